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

// Of a stored value: all of its channels at the place.
static md_cu_spot spot_of_store(md_cu_kernel *k, const md_cu_nest *n, const md_shape *stored,
                                const char *last, int channel) {
  md_cu_spot s = spot_of(k, n->shape, last);
  return md_cu_channel_of(k, &s, stored, channel);
}

void md_cu_line_texts(md_cu_kernel *k, const md_cu_nest *n, md_cu_lanes *l) {
  *l = (md_cu_lanes){.channels = n->shape->dim[n->shape->rank - 1],
                     .groups = 1,
                     .no_table = true,
                     .is_line = true,
                     .row = "",
                     .first = "first",
                     .group = "0",
                     .prefix = "e"};
  md_cu_lanes_begin(k, l);
  for (int i = 0; i < n->num_reduces; i++) {
    md_cu_spot s = spot_of(k, n->shape, MD_CU_CHANNEL);
    const char *term = md_cu_value_as(k, n->reduce[i]->in[0], &s, MD_CU_DOUBLE);
    md_cu_add_term(k, n->reduce[i], md_format(k->w->arena, "s%d", i), term);
  }
  for (int i = 0, made = 0; i < n->num_stores; i++) {
    const md_type *t = md_type_in(k->w->r->g, n->store[i]);
    for (int c = 0; c < md_cu_num_channels(n, &t->shape); c++, made++) {
      md_cu_spot s = spot_of_store(k, n, &t->shape, MD_CU_CHANNEL, c);
      const char *text = md_cu_value_as(k, n->store[i], &s, md_cu_compute_type(t->dtype));
      md_cu_make_lane(k, n->store[i], md_format(k->w->arena, "r%d", made), text);
    }
  }
  md_cu_lanes_end(k);
}

void md_cu_put_line(md_cu_kernel *k, const md_cu_nest *n, md_cu_lanes *l) {
  const md_graph *g = k->w->r->g;
  md_cu_put_loads(k, l);
  for (int i = 0, made = 0; i < n->num_stores; i++) {
    const md_type *t = md_type_in(g, n->store[i]);
    for (int c = 0; c < md_cu_num_channels(n, &t->shape); c++)
      md_cu_line(k, NULL, "md_%s r%d;", md_cu_made_kind(t), made++);
  }
  md_cu_put_lanes(k, l);
  for (int i = 0, made = 0; i < n->num_stores; i++) {
    const md_type *t = md_type_in(g, n->store[i]);
    for (int c = 0; c < md_cu_num_channels(n, &t->shape); c++) {
      md_cu_spot s = spot_of_store(k, n, &t->shape, "first", c);
      md_cu_put_vector(k, n->store[i], &s, md_format(k->w->arena, "r%d", made++));
    }
  }
  md_cu_lanes_free(l);
}

bool md_cu_is_of_lines(md_cu_work *w, const md_cu_nest *n) {
  int last = n->shape->rank - 1;
  if (last < 0 || n->shape->dim[last] % MD_CU_LANES != 0) return false;
  for (int i = 0; i < n->num_stores; i++)
    if (!is_line(md_type_in(w->r->g, n->store[i]))) return false;
  md_cu_kernel k;
  md_cu_lanes l;
  md_cu_begin(&k, w, "to be measured");
  md_cu_line_texts(&k, n, &l);
  md_cu_lanes_free(&l);
  return !l.is_scattered;
}

// Number e of the vectors -> x0, x1, ... and first.
static void put_place(md_cu_kernel *k, const md_shape *shape) {
  int last = shape->rank - 1;
  int64_t div = shape->dim[last] / MD_CU_LANES;
  const char *type = md_cu_index_type(k);
  bool is_all = md_elements(shape) == shape->dim[last];
  md_cu_line(k, NULL, "const %s first = %s * 8;", type, md_cu_digit(k, "e", 1, is_all ? 0 : div));
  for (int i = last - 1; i >= 0; i--) {
    if (shape->dim[i] != 1)
      md_cu_line(k, NULL, "const %s x%d = %s;", type, i,
                 md_cu_digit(k, "e", div, i ? shape->dim[i] : 0));
    div *= shape->dim[i];
  }
}

bool md_cu_line_walk(md_cu_work *w, const md_cu_nest *n) {
  if (!md_cu_is_of_lines(w, n)) return false;
  md_cu_kernel k;
  md_cu_lanes l;
  md_cu_begin(&k, w, "walk of lines");
  md_cu_line_texts(&k, n, &l);
  int64_t blocks, num = md_elements(n->shape) / MD_CU_LANES;
  bool is_fixed = md_cu_is_of_state(w->r, n->shape);
  md_cu_mark m = md_cu_open_elements(&k, num, is_fixed, &blocks);
  put_place(&k, n->shape);
  md_cu_put_line(&k, n, &l);
  md_cu_close(&k, m);
  k.is_told = !is_fixed;
  md_cu_end(&k, blocks);
  return true;
}
