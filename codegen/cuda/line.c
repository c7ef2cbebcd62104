// SPDX-License-Identifier: Apache-2.0
// Walks over tensors that lie as they are numbered: a thread takes eight neighbours on the last axis, with
// one load of each operand and one computation of where they are. Only where all that differs from
// neighbour to neighbour lies so: else it is the walk of single elements.
#include "codegen/cuda/gen.h"

static bool is_line(const md_type *t) {
  int rank = t->shape.rank;
  return rank > 0 && !t->block && md_cu_vector_kind(t) && t->shape.dim[rank - 1] % MD_CU_LANES == 0;
}

static md_cu_spot spot_of(const md_cu_kernel *k, const md_shape *shape, const char *last) {
  md_cu_spot s = {.shape = shape};
  for (int i = 0; i < shape->rank; i++)
    s.at[i] = shape->dim[i] == 1 ? "0" : md_format(k->w->arena, "x%d", i);
  s.at[shape->rank - 1] = last;
  return s;
}

static void make_texts(md_cu_kernel *k, const md_cu_nest *n, md_cu_lanes *l) {
  *l = (md_cu_lanes){.channels = n->shape->dim[n->shape->rank - 1],
                     .groups = 1,
                     .no_table = true,
                     .is_line = true,
                     .row = "",
                     .first = "first",
                     .group = "0",
                     .prefix = "e"};
  md_cu_lanes_begin(k, l);
  for (int i = 0; i < n->num_stores; i++) {
    const md_type *t = md_type_in(k->w->r->g, n->store[i]);
    md_cu_spot s = spot_of(k, n->shape, MD_CU_CHANNEL);
    md_cu_type type = md_cu_compute_type(t->dtype);
    const char *text = md_cu_value_as(k, n->store[i], &s, type);
    md_cu_make_lane(k, n->store[i], md_format(k->w->arena, "r%d", i), text);
  }
  md_cu_lanes_end(k);
}

static bool is_scattered(md_cu_work *w, const md_cu_nest *n) {
  md_cu_kernel k;
  md_cu_lanes l;
  md_cu_begin(&k, w, "to be measured");
  make_texts(&k, n, &l);
  md_cu_lanes_free(&l);
  return l.is_scattered;
}

// Number e of the vectors -> x0, x1, ... and first.
static void put_place(md_cu_kernel *k, const md_shape *shape) {
  int last = shape->rank - 1;
  int64_t div = shape->dim[last] / MD_CU_LANES;
  const char *type = md_cu_index_type(k);
  md_cu_line(k, NULL, "const %s first = %s * 8;", type, md_cu_digit(k, "e", 1, div));
  for (int i = last - 1; i >= 0; i--) {
    if (shape->dim[i] != 1)
      md_cu_line(k, NULL, "const %s x%d = %s;", type, i,
                 md_cu_digit(k, "e", div, i ? shape->dim[i] : 0));
    div *= shape->dim[i];
  }
}

bool md_cu_line_walk(md_cu_work *w, const md_cu_nest *n) {
  const md_graph *g = w->r->g;
  for (int i = 0; i < n->num_stores; i++)
    if (!is_line(md_type_in(g, n->store[i]))) return false;
  if (is_scattered(w, n)) return false;
  md_cu_kernel k;
  md_cu_lanes l;
  md_cu_begin(&k, w, "walk of lines");
  make_texts(&k, n, &l);
  int64_t blocks;
  md_cu_mark m = md_cu_open_elements(&k, md_elements(n->shape) / MD_CU_LANES, &blocks);
  put_place(&k, n->shape);
  md_cu_put_loads(&k, &l);
  for (int i = 0; i < n->num_stores; i++)
    md_cu_line(&k, NULL, "md_%s r%d;", md_cu_made_kind(md_type_in(g, n->store[i])), i);
  md_cu_put_lanes(&k, &l);
  for (int i = 0; i < n->num_stores; i++) {
    md_cu_spot s = spot_of(&k, n->shape, "first");
    md_cu_put_vector(&k, n->store[i], &s, md_format(w->arena, "r%d", i));
  }
  md_cu_close(&k, m);
  md_cu_lanes_free(&l);
  md_cu_end(&k, blocks);
  return true;
}
