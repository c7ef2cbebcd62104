// SPDX-License-Identifier: Apache-2.0
// What stands behind a convolution. The tile of its result lies in shared memory, rounded as it is
// stored; each thread takes vectors of eight channels of it and makes what follows (vectors.c).
#include "codegen/cuda/conv.h"

// When a node of the region can be made.
typedef enum When { LATER, BEFORE, BEHIND } When;  // BEHIND: from the tile, element by element
typedef struct Order {
  md_cu_work *w;
  const md_region_view *r;
  const md_node *anchor;
  int64_t groups;
  When *when;  // by node of the region
} Order;

static When when(const Order *o, md_val v) {
  const md_node *n = v == MD_NONE ? NULL : md_inner(o->r, v);
  if (!n || md_cu_is_ready(o->w, v)) return BEFORE;
  for (int i = 0; i < o->r->num_nodes; i++)
    if (o->r->node[i] == n) return o->when[i];
  return LATER;
}

static bool has_shape(const Order *o, md_val v) {
  return md_shape_equal(&md_type_in(o->r->g, v)->shape,
                        &md_type_in(o->r->g, o->anchor->out)->shape);
}

static When when_made(const Order *o, const md_node *n) {
  if (n == o->anchor) return BEHIND;
  const md_cu_op *op = md_cu_op_of(n->op);
  md_role role = md_ops[n->op].role;
  if (role != MD_POINTWISE && role != MD_VIEW && !(op && op->is_value)) return LATER;
  When last = BEFORE;
  for (int i = 0; i < n->num_in; i++) {
    When in = when(o, n->in[i]);
    if (in == LATER) return LATER;
    if (in == BEHIND) last = has_shape(o, n->in[i]) ? BEHIND : LATER;
    if (last == LATER) return LATER;
  }
  return last == BEHIND && (role != MD_POINTWISE || !has_shape(o, n->out)) ? LATER : last;
}

// Sums over all but the channel, of the groups of samples that the tiles keep apart.
static bool sums_pixels(const Order *o, const md_node *n) {
  bool kind = n->op == MD_OP_moments || n->op == MD_OP_batch_norm_sums;
  if (!kind || when(o, n->in[0]) != BEHIND) return false;
  for (int i = 1; i < n->num_in; i++)
    if (when(o, n->in[i]) == LATER) return false;
  return md_type_in(o->r->g, n->out)->shape.dim[0] == o->groups;
}

// Later kernels have work; what they may read must not be written over yet.
static bool leaves_work(const Order *o) {
  md_val formed = md_cu_formed(o->r);
  for (int i = 0; i < o->r->num_nodes; i++)
    if (o->when[i] == LATER && o->r->node[i] != o->r->twin && !sums_pixels(o, o->r->node[i]))
      return true;
  for (int i = 0; i < o->r->num_outputs; i++) {
    md_val v = o->r->output[i];
    if (when(o, v) == BEFORE && v != formed && !md_cu_is_ready(o->w, v)) return true;
  }
  return false;
}

md_cu_finish md_cu_finish_of(md_cu_work *w, const md_node *anchor, int64_t groups) {
  const md_region_view *r = w->r;
  Order o = {w, r, anchor, groups, MD_NEW_ARRAY(w->arena, When, r->num_nodes)};
  for (int i = 0; i < r->num_nodes; i++) o.when[i] = when_made(&o, r->node[i]);
  md_cu_finish f = {.anchor = anchor,
                    .shape = &md_type_in(r->g, anchor->out)->shape,
                    .groups = groups,
                    .statistics = groups,
                    .narrow = md_type_in(r->g, anchor->out)->dtype == MD_BF16,
                    .store = MD_NEW_ARRAY(w->arena, md_val, r->num_outputs + 1),
                    .reduce = MD_NEW_ARRAY(w->arena, const md_node *, r->num_nodes)};
  bool read_later = false;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    if (sums_pixels(&o, n)) {
      f.reduce[f.num_reduces++] = n;
      f.num_sums += md_cu_num_sums(n);
    } else if (o.when[i] == LATER && md_in_epilogue(r, n)) {
      read_later = true;
    }
  }
  bool leaves = leaves_work(&o);
  for (int i = 0; i < r->num_outputs; i++) {
    md_val v = r->output[i];
    if (when(&o, v) != BEHIND) continue;
    if (leaves && md_is_over_input(r, v)) read_later = true;
    else f.store[f.num_stores++] = v;
  }
  if (read_later && !md_is_output(r, anchor->out)) f.store[f.num_stores++] = anchor->out;
  return f;
}

// --- the kernel's part

int md_cu_stage_pitch(const md_cu_finish *f, const md_cu_tile *t) {
  return t->n + (f->narrow ? 8 : 4);
}

int md_cu_finish_bytes(const md_cu_finish *f, const md_cu_tile *t) {
  return MD_MAX(t->m * md_cu_stage_pitch(f, t) * (f->narrow ? 2 : 4),
                md_cu_thread_sums_bytes(f, t));
}

static void put_tile(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  md_cu_mark m[4];
  const md_node *n = f->anchor;
  const char *bias = "";
  md_cu_open_tile(k, t, m);
  if (n->op == MD_OP_conv3d && n->num_in > 2 && n->in[2] != MD_NONE) {
    md_cu_line(k, NULL, "const int b = n0 + col + z < %lld ? n0 + col + z : 0;",
               (long long)f->shape->dim[1]);
    md_cu_spot s = {.shape = &md_type_in(k->w->r->g, n->in[2])->shape, .at = {"b"}};
    bias = md_format(k->w->arena, " + %s", md_cu_value_as(k, n->in[2], &s, MD_CU_FLOAT));
  }
  md_cu_line(k, NULL,
             f->narrow ? "stage[row * %d + col + z] = md_f2bf(sum%s);"
                       : "stage[row * %d + col + z] = sum%s;",
             md_cu_stage_pitch(f, t), bias);
  md_cu_close_tile(k, m);
  md_cu_line(k, NULL, "%s", k->sync);
}

void md_cu_put_finish(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                      const md_cu_map *a, const char *places) {
  md_cu_line(k, NULL, "%s *const stage = (%s *)shared;", f->narrow ? "md_bf16" : "float",
             f->narrow ? "md_bf16" : "float");
  put_tile(k, f, t);
  md_cu_put_each_vector(k, f, t, a, places);
  if (f->num_sums) md_cu_put_thread_sums(k, f, t);
}

// --- around the kernels

void md_cu_finish_place(md_cu_work *w, md_cu_finish *f, const md_cu_tile *t, int64_t parts) {
  for (int i = 0; i < f->num_stores; i++) md_cu_place(w, f->store[i]);
  md_cu_sums_place(w, f, t, parts);
}

void md_cu_finish_ready(md_cu_work *w, const md_cu_finish *f) {
  for (int i = 0; i < f->num_stores; i++) md_cu_ready(w, f->store[i]);
  for (int i = 0; i < f->num_reduces; i++)
    for (int j = 0; j < f->reduce[i]->num_out; j++) md_cu_ready(w, f->reduce[i]->out + (md_val)j);
}
