// SPDX-License-Identifier: Apache-2.0
// Random graphs whose regions are drawn too: pointwise nodes, views and reductions in any order around
// at most one op that is more than that. So values are read at every kind of place, before and behind
// every kind of anchor, and results lie over operands wherever the memory plan finds that they may.
#include "tests/simt/samples.h"

enum { MAX_VALUES = 64 };

typedef struct Maker {
  md_builder b;
  uint64_t key, draws;
  md_val pool[MAX_VALUES], index;
  int num;
} Maker;

static int draw(Maker *m, int below) {
  return (int)(md_hash_at(m->key, m->draws++) % (uint64_t)below);
}

// Rather a late value than an early one.
static md_val any(Maker *m) {
  int a = draw(m, m->num), b = draw(m, m->num);
  return m->pool[MD_MAX(a, b)];
}

static md_val same_shape(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x);
  for (int i = 0; i < 8; i++) {
    md_val y = any(m);
    md_shape t = md_shape_of(&m->b, y);
    if (md_shape_equal(&s, &t)) return y;
  }
  return x;
}

static md_val pointwise(Maker *m, md_val x) {
  static const md_op one[] = {MD_OP_relu, MD_OP_tanh, MD_OP_neg, MD_OP_abs},
                     two[] = {MD_OP_add, MD_OP_sub, MD_OP_maximum};
  if (draw(m, 2)) return md_add_node(&m->b, one[draw(m, MD_COUNT(one))], &x, 1, NULL);
  return md_add_node(&m->b, two[draw(m, MD_COUNT(two))], (md_val[]){x, same_shape(m, x)}, 2, NULL);
}

static md_val view(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x);
  int axis = draw(m, s.rank);
  md_attr a = {.word = {axis}};
  switch (draw(m, 4)) {
  case 0: return md_add_node(&m->b, MD_OP_flip, &x, 1, &a);
  case 1: {
    md_dims perm = {.n = s.rank};
    for (int i = 0; i < s.rank; i++) perm.d[i] = (i + axis) % s.rank;
    return md_transpose(&m->b, x, perm);
  }
  case 2: {
    int start = draw(m, (int)s.dim[axis]);
    return md_slice(&m->b, x, axis, start, 1 + draw(m, (int)s.dim[axis] - start));
  }
  default: {
    md_shape to = {.rank = 2, .dim = {s.dim[0], md_elements(&s) / s.dim[0]}};
    return md_reshape(&m->b, x, to);
  }
  }
}

static md_val reduce(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x);
  if (s.rank >= 2 && draw(m, 3) == 0)
    return md_result_of(&m->b, md_moments(&m->b, x, 1), draw(m, 2));
  return md_mean(&m->b, x, (md_dims){1, {draw(m, s.rank)}});
}

static md_val node(Maker *m, md_op op, md_val x, md_attr a) {
  return md_add_node(&m->b, op, &x, 1, &a);
}

// With an eps that keeps the rounding of what cancels from being blown up to length 1.
static md_val of_matrix(Maker *m, md_val x) {
  md_attr eps = {.f = {0.25}};
  switch (draw(m, 5)) {
  case 0: return md_matmul(&m->b, x, same_shape(m, x), false, true);
  case 1: return md_matmul(&m->b, x, same_shape(m, x), true, false);
  case 2:
    return md_add_node(&m->b, MD_OP_l2_normalize_grad, (md_val[]){x, same_shape(m, x)}, 2, &eps);
  case 3: return node(m, MD_OP_l2_normalize, x, eps);
  default: return md_add_node(&m->b, draw(m, 2) ? MD_OP_softmax : MD_OP_logsumexp, &x, 1, NULL);
  }
}

static md_val of_picture(Maker *m, md_val x, const md_shape *s) {
  int64_t h = s->dim[s->rank - 2], w = s->dim[s->rank - 1];
  md_attr resize = {
      .resize = {.size = {2, {1 + draw(m, 9), 1 + draw(m, 9)}}, .antialias = draw(m, 2)}};
  md_attr crop = {.crop = {.h = h, .w = 1 + w / 2, .left = w - 1 - w / 2}};
  md_pool3d_attr pool = {.kernel = D3(1, MD_MIN(h, 3), MD_MIN(w, 2)),
                         .stride = D3(1, 1 + draw(m, 2), 2)};
  pool.pad.d[1] = pool.kernel.d[1] > 1 ? draw(m, 2) : 0;
  switch (draw(m, s->rank == 5 ? 4 : 2)) {
  case 0: return node(m, MD_OP_resize, x, resize);
  case 1: return node(m, MD_OP_crop, x, crop);
  case 2: return md_max_pool3d(&m->b, x, &pool);
  default: return md_avg_pool3d(&m->b, x, &pool);
  }
}

static md_val anchor(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x);
  int axis = draw(m, s.rank), kind = draw(m, 8);
  md_attr pad = {.word = {axis, draw(m, 3), draw(m, 3)}}, rows = {.word = {1 + draw(m, 6)}};
  if (kind < 3 && s.rank == 2) return of_matrix(m, x);
  if (kind < 4 && s.rank >= 4) return of_picture(m, x, &s);
  if (kind < 5) return md_concat(&m->b, (md_val[]){x, same_shape(m, x), x}, 2 + draw(m, 2), axis);
  if (kind < 6) return node(m, MD_OP_pad, x, pad);
  md_shape index = md_shape_of(&m->b, m->index);
  if (kind < 7 || s.dim[0] != index.dim[0])
    return md_add_node(&m->b, MD_OP_gather_rows, (md_val[]){x, m->index}, 2, NULL);
  return md_add_node(&m->b, MD_OP_scatter_rows, (md_val[]){x, m->index}, 2, &rows);
}

// Sizes stay small: what grows too large is not kept.
static void keep(Maker *m, md_val v) {
  md_shape s = md_shape_of(&m->b, v);
  if (m->num < MAX_VALUES && v && md_elements(&s) < 4000) m->pool[m->num++] = v;
}

static void region(Maker *m, int number) {
  char name[16];
  snprintf(name, sizeof name, "r%d", number);
  md_region_begin(&m->b, name);
  int nodes = 2 + draw(m, 6), at = draw(m, nodes + 1);
  for (int i = 0; i < nodes; i++) {
    md_val x = any(m);
    int kind = draw(m, 10);
    if (i == at) keep(m, anchor(m, x));
    else if (kind < 6) keep(m, pointwise(m, x));
    else if (kind < 8) keep(m, view(m, x));
    else keep(m, reduce(m, x));
  }
  md_region_end(&m->b);
}

md_graph *simt_fused_graph(uint64_t seed, md_diags *d) {
  md_graph *g = md_graph_create("fused");
  Maker m = {.key = md_hash_key("fused graph", seed)};
  md_builder_init(&m.b, g, d);
  static const int ranks[] = {2, 2, 5, 4};
  md_shape s = {.rank = ranks[draw(&m, MD_COUNT(ranks))]};
  for (int i = 0; i < s.rank; i++) s.dim[i] = 1 + draw(&m, s.rank == 2 ? 40 : 6);
  md_shape row = {.rank = 1, .dim = {1 + draw(&m, 7)}};
  m.index = md_input(&m.b, "index", md_type_of(MD_I32, 1, row.dim));
  for (int i = 0; i < 3; i++)
    keep(&m, md_input(&m.b, (const char *[]){"x", "y", "z"}[i], md_type_of(MD_F32, s.rank, s.dim)));
  int regions = 1 + draw(&m, 5);
  for (int i = 0; i < regions; i++) region(&m, i);
  for (int i = 3; i < m.num; i += 1 + draw(&m, 2)) {
    char name[16];
    snprintf(name, sizeof name, "v%d", i);
    md_return(&m.b, name, m.pool[i]);
  }
  md_return(&m.b, "last", m.pool[m.num - 1]);
  if (!m.b.failed) return g;
  md_graph_destroy(g);
  return NULL;
}
