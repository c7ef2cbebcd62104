// SPDX-License-Identifier: Apache-2.0
// What stands behind a convolution. The tile of its result lies in shared memory, rounded as it is
// stored; each thread takes vectors of eight channels of it, makes what follows, stores that and adds
// up its sums over pixels. Those of a thread are f32, the others double, and their order is fixed.
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
                    .channels = md_type_in(r->g, anchor->out)->shape.dim[1],
                    .groups = groups,
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

// --- texts

static bool is_vector(const md_type *t) {
  return t->block > 0 && t->block % MD_CU_LANES == 0 && (t->dtype == MD_BF16 || t->dtype == MD_F32);
}

static md_cu_spot spot_of(const md_cu_finish *f, const md_cu_kernel *k) {
  return (md_cu_spot){.shape = &md_type_in(k->w->r->g, f->anchor->out)->shape,
                      .at = {"n", MD_CU_CHANNEL, "o0", "o1", "o2"}};
}

static void store_texts(md_cu_kernel *k, md_cu_finish *f, const char **text) {
  const md_graph *g = k->w->r->g;
  for (int i = 0; i < f->num_stores; i++) {
    const md_type *t = md_type_in(g, f->store[i]);
    md_cu_spot s = spot_of(f, k);
    if (!is_vector(t)) {
      md_cu_store(k, f->store[i], &s, text[i]);
      continue;
    }
    md_cu_line(k, NULL, t->dtype == MD_BF16 ? "r%d.x[j] = md_f2bf(%s);" : "r%d.x[j] = %s;", i,
               text[i]);
  }
}

static void sum_texts(md_cu_kernel *k, md_cu_finish *f) {
  md_arena *a = k->w->arena;
  for (int i = 0, sum = 0; i < f->num_reduces; i++) {
    const md_node *n = f->reduce[i];
    md_cu_spot s = spot_of(f, k);
    const char *first = md_cu_value_as(k, n->in[0], &s, MD_CU_FLOAT), *second = first;
    if (n->op == MD_OP_batch_norm_sums) {
      md_cu_spot at = spot_of(f, k);
      md_cu_spot of_group = {.shape = &md_type_in(k->w->r->g, n->in[2])->shape,
                             .at = {"group", MD_CU_CHANNEL}};
      const char *y = md_cu_value_as(k, n->in[1], &at, MD_CU_FLOAT);
      second = md_format(a, "(%s - %s)", y, md_cu_value_as(k, n->in[2], &of_group, MD_CU_FLOAT));
    }
    md_cu_line(k, NULL, "s%d[j] += %s;", sum++, first);
    md_cu_line(k, NULL, "s%d[j] += %s * %s;", sum++, first, second);
  }
}

void md_cu_finish_texts(md_cu_kernel *k, md_cu_finish *f) {
  f->lanes = (md_cu_lanes){.channels = f->channels,
                           .groups = f->groups,
                           .no_table = f->no_table,
                           .row = "",
                           .first = "first",
                           .group = "group",
                           .prefix = "e"};
  md_cu_lanes_begin(k, &f->lanes);
  md_cu_spot s = spot_of(f, k);
  md_cu_line(k, md_cu_comment(k, f->anchor->out), "const float y = %s;",
             f->narrow ? "md_bf2f(tile.x[j])" : "tile.x[j]");
  md_cu_know(k, f->anchor->out, &s, (md_cu_term){.text = "y", .type = MD_CU_FLOAT});
  const char **text = MD_NEW_ARRAY(k->w->arena, const char *, f->num_stores + 1);
  for (int i = 0; i < f->num_stores; i++) {
    md_cu_type type = md_cu_compute_type(md_type_in(k->w->r->g, f->store[i])->dtype);
    text[i] = md_cu_value_as(k, f->store[i], &s, type);
  }
  sum_texts(k, f);
  store_texts(k, f, text);
  md_cu_lanes_end(k);
}

// --- the kernel's part

static int chunks(const md_cu_tile *t) { return t->n / MD_CU_LANES; }
static int pitch(const md_cu_finish *f, const md_cu_tile *t) { return t->n + (f->narrow ? 8 : 4); }

int md_cu_sums_bytes(const md_cu_finish *f, const md_cu_tile *t) { return f->num_sums * t->n * 8; }

int md_cu_finish_bytes(const md_cu_finish *f, const md_cu_tile *t) {
  int tile = t->m * pitch(f, t) * (f->narrow ? 2 : 4);
  int sums = f->num_sums * MD_CU_THREADS / chunks(t) * t->n * 4;
  return MD_MAX(tile, sums);
}

static void put_tile(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  md_cu_mark m[4];
  const md_node *n = f->anchor;
  const char *bias = "";
  md_cu_open_tile(k, t, m);
  if (n->op == MD_OP_conv3d && n->num_in > 2 && n->in[2] != MD_NONE) {
    md_cu_line(k, NULL, "const int b = n0 + col + z < %lld ? n0 + col + z : 0;",
               (long long)f->channels);
    md_cu_spot s = {.shape = &md_type_in(k->w->r->g, n->in[2])->shape, .at = {"b"}};
    bias = md_format(k->w->arena, " + %s", md_cu_value_as(k, n->in[2], &s, MD_CU_FLOAT));
  }
  md_cu_line(k, NULL,
             f->narrow ? "stage[row * %d + col + z] = md_f2bf(sum%s);"
                       : "stage[row * %d + col + z] = sum%s;",
             pitch(f, t), bias);
  md_cu_close_tile(k, m);
  md_cu_line(k, NULL, "%s", k->sync);
}

static void put_vectors(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                        const md_cu_map *a, const char *places) {
  const md_graph *g = k->w->r->g;
  md_cu_line(k, NULL, "const int first = n0 + md_thread() %% %d * 8;", chunks(t));
  for (int i = 0; i < f->num_sums; i++) md_cu_line(k, NULL, "float s%d[8] = {0};", i);
  md_cu_mark loop = md_cu_open(k, NULL, "for (int i = md_thread() / %d; i < %d; i += %d) {",
                               chunks(t), t->m, MD_CU_THREADS / chunks(t));
  md_cu_line(k, NULL, "const int p = m0 + i;");
  md_cu_mark in =
      md_cu_open(k, NULL, "if (p < %s && first < %lld) {", places, (long long)f->channels);
  md_cu_put_place(k, a, "p", "sample0");
  for (int x = 0; x < 3; x++) {
    md_cu_ix q = md_format(k->w->arena, "q%d", x);
    md_cu_line(k, NULL, "const int o%d = %s;", x,
               md_cu_linear(k, 1, &q, &a->axis[x].out_step, a->axis[x].out0));
  }
  md_cu_line(k, NULL, "const md_%s tile = md_ld_%s(stage + i * %d + md_thread() %% %d * 8, 8);",
             f->narrow ? "h8" : "f8", f->narrow ? "h8" : "f8", pitch(f, t), chunks(t));
  md_cu_put_loads(k, &f->lanes);
  for (int i = 0; i < f->num_stores; i++) {
    const md_type *type = md_type_in(g, f->store[i]);
    if (is_vector(type))
      md_cu_line(k, NULL, "md_%s r%d = {{0}};", type->dtype == MD_BF16 ? "h8" : "f8", i);
  }
  md_cu_put_lanes(k, &f->lanes);
  for (int i = 0; i < f->num_stores; i++) {
    const md_type *type = md_type_in(g, f->store[i]);
    if (!is_vector(type)) continue;
    md_cu_spot s = {.shape = &type->shape, .at = {"n", "first", "o0", "o1", "o2"}};
    md_cu_ix at = md_cu_offset(k, type, &s);
    md_cu_line(k, md_cu_comment(k, f->store[i]), "md_st_%s(%s + %s, r%d);",
               type->dtype == MD_BF16 ? "h8" : "f8", md_cu_pointer(k, f->store[i], true), at, i);
  }
  md_cu_close(k, in);
  md_cu_close(k, loop);
}

// Sums of threads -> the block's sums [sum][column].
static void put_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  int rows = MD_CU_THREADS / chunks(t);
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_line(k, "[sum][row of threads][column]", "float *const part = (float *)shared;");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int j = 0; j < 8; j++) {");
  md_cu_line(k, NULL, "float *const to = part + md_thread() / %d * %d + md_thread() %% %d * 8 + j;",
             chunks(t), t->n, chunks(t));
  for (int i = 0; i < f->num_sums; i++) md_cu_line(k, NULL, "to[%d] = s%d[j];", i * rows * t->n, i);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "%s", k->sync);
  m = md_cu_open(k, NULL, "for (int e = md_thread(); e < %d; e += %d) {", f->num_sums * t->n,
                 MD_CU_THREADS);
  md_cu_line(k, NULL, "double sum = 0.0;");
  md_cu_line(k, NULL,
             "for (int i = 0; i < %d; i++) sum += (double)part[(e / %d * %d + i) * %d + e %% %d];",
             rows, t->n, rows, t->n, t->n);
  md_cu_line(k, NULL, "sums[e] += sum;");
  md_cu_close(k, m);
}

void md_cu_put_finish(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                      const md_cu_map *a, const char *places) {
  md_cu_line(k, NULL, "%s *const stage = (%s *)shared;", f->narrow ? "md_bf16" : "float",
             f->narrow ? "md_bf16" : "float");
  put_tile(k, f, t);
  put_vectors(k, f, t, a, places);
  if (f->num_sums) put_sums(k, f, t);
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
