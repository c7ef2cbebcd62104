// SPDX-License-Identifier: Apache-2.0
// Single nodes: pointwise formulas, views, reductions, rows, data movement, integers. Operands with a
// domain (log, sqrt, div) are first led into it.
#include "tests/random/random.h"

#include <math.h>

static md_val unary(md_gen *g, md_op op, md_val x, double size) {
  return md_gen_node(g, op, &x, 1, NULL, size);
}

// In 0.25 .. about 0.25 + |x|.
static md_val positive(md_gen *g, md_val x) {
  md_val soft = md_add_node(&g->b, MD_OP_softplus, &x, 1, NULL);
  return md_affine(&g->b, soft, 1, 0.25);
}

static md_val domain_unary(md_gen *g, md_val x) {
  static const md_op op[] = {MD_OP_log, MD_OP_sqrt, MD_OP_rsqrt};
  return unary(g, op[md_roll(g->dice, MD_COUNT(op))], positive(g, x), 4);
}

static void one_operand(md_gen *g, md_val x) {
  static const md_op smooth[] = {MD_OP_neg, MD_OP_tanh, MD_OP_sigmoid, MD_OP_softplus};
  double size = md_gen_size(g, x);
  md_attr a = {0};
  switch (md_roll(g->dice, 13)) {
  case 0:
  case 1:
    a.affine.scale = (double)(1 + md_roll(g->dice, 24)) / 8 * (md_gen_one_in(g, 2) ? -1 : 1);
    a.affine.shift = (double)md_roll(g->dice, 9) / 8 - 0.5;
    md_gen_node(g, MD_OP_affine, &x, 1, &a, 3 * size + 1);
    return;
  case 2: domain_unary(g, x); return;
  case 3:  // exp of something that is not large
    unary(g, MD_OP_exp, md_add_node(&g->b, MD_OP_tanh, &x, 1, NULL), 3);
    return;
  case 4:
  case 5:
  case 6: unary(g, smooth[md_roll(g->dice, MD_COUNT(smooth))], x, size); return;
  case 7:
    if (g->smooth || g->has_loss) break;
    unary(g, MD_OP_abs, x, size);
    return;
  case 8:
    if (g->smooth || g->has_loss) break;
    a.real[0] = -0.5;
    a.real[1] = (double)md_roll(g->dice, 5) / 2;
    md_gen_node(g, MD_OP_clamp, &x, 1, &a, 2);
    return;
  case 9: {
    md_type t = *md_type_in(g->b.g, x);
    t.dtype = MD_I64;
    md_type one = md_type_of(MD_I64, 1, (int64_t[]){1});
    md_val key = md_gen_one_in(g, 2)
                     ? md_gen_leaf(g, "int", t)
                     : md_broadcast(&g->b, md_gen_leaf(g, "int", one), t.shape, (md_dims){1, {0}});
    md_gen_node(g, MD_OP_dropout, (md_val[]){x, key}, 2, &(md_attr){.f = {.value = 0.25}},
                2 * size);
    return;
  }
  default: break;
  }
  unary(g, g->has_loss ? MD_OP_tanh : MD_OP_relu, x, size);
}

static void two_operands(md_gen *g, md_val x) {
  md_val y = md_gen_one_in(g, 12) ? x : md_gen_like(g, x), in[] = {x, y};
  if (md_gen_one_in(g, 2)) in[0] = y, in[1] = x;
  double sx = md_gen_size(g, x), sy = md_gen_size(g, y);
  switch (md_roll(g->dice, g->smooth || g->has_loss ? 8 : md_gen_may_jump(g) ? 11 : 9)) {
  case 0:
  case 1:
  case 2: md_gen_node(g, MD_OP_add, in, 2, NULL, sx + sy); return;
  case 3: md_gen_node(g, MD_OP_sub, in, 2, NULL, sx + sy); return;
  case 4:
  case 5: md_gen_node(g, MD_OP_mul, in, 2, NULL, sx * sy); return;
  case 6:
    in[1] = positive(g, in[1]);
    md_gen_node(g, MD_OP_div, in, 2, NULL, 4 * md_gen_size(g, in[0]));
    return;
  case 7:
    if (md_gen_one_in(g, 2)) {
      in[1] = md_add_node(&g->b, MD_OP_sigmoid, &in[1], 1, NULL);
      md_gen_node(g, MD_OP_bce, in, 2, NULL, sx + sy);
    } else {
      md_gen_node(g, MD_OP_lerp, in, 2, &(md_attr){.f = {.value = 0.375}}, sx + sy);
    }
    return;
  case 8: md_gen_node(g, MD_OP_maximum, in, 2, NULL, sx + sy); return;
  case 9: md_gen_node(g, MD_OP_less, in, 2, NULL, 1); return;
  default: md_gen_node(g, MD_OP_relu_grad, in, 2, NULL, sx + sy);
  }
}

void md_random_pointwise(md_gen *g) {
  md_val x = md_gen_pick(g, 0);
  if (md_gen_one_in(g, 2)) {
    one_operand(g, x);
  } else {
    two_operands(g, x);
  }
}

// --- views

static md_dims dims_of(const md_shape *s) {
  md_dims d = {.n = s->rank};
  for (int i = 0; i < s->rank; i++) d.d[i] = s->dim[i];
  return d;
}

// The same elements: two axes joined, an axis split, or an axis of size 1 more.
static md_shape other_shape(md_gen *g, md_shape s) {
  int at = (int)md_roll(g->dice, s.rank);
  switch (md_roll(g->dice, 3)) {
  case 0:
    if (at + 1 >= s.rank) break;
    s.dim[at] *= s.dim[at + 1];
    for (int i = at + 1; i + 1 < s.rank; i++) s.dim[i] = s.dim[i + 1];
    s.rank--;
    return s;
  case 1:
    for (int64_t by = 2; by < 8 && s.rank < 5; by++) {
      if (s.dim[at] % by) continue;
      for (int i = s.rank; i > at + 1; i--) s.dim[i] = s.dim[i - 1];
      s.dim[at] /= by;
      s.dim[at + 1] = by;
      s.rank++;
      return s;
    }
    break;
  default:
    if (s.rank >= 5) break;
    for (int i = s.rank; i > at; i--) s.dim[i] = s.dim[i - 1];
    s.dim[at] = 1;
    s.rank++;
    return s;
  }
  return (md_shape){.rank = 1, .dim = {md_elements(&s)}};
}

static md_dims permutation(md_gen *g, int rank) {
  md_dims p = {.n = rank};
  for (int i = 0; i < rank; i++) {
    int to = (int)md_roll(g->dice, i + 1);
    p.d[i] = p.d[to];
    p.d[to] = i;
  }
  return p;
}

void md_random_view(md_gen *g) {
  md_val x = md_gen_pick(g, 0);
  md_shape s = md_shape_of(&g->b, x);
  if (s.rank == 0) return;
  double size = md_gen_size(g, x);
  int axis = (int)md_roll(g->dice, s.rank);
  md_attr a = {0};
  switch (md_roll(g->dice, 5)) {
  case 0: {
    md_shape to = other_shape(g, s);
    a.shape.shape = dims_of(&to);
    md_gen_node(g, MD_OP_reshape, &x, 1, &a, size);
    return;
  }
  case 1:
    a.axes.axes = permutation(g, s.rank);
    md_gen_node(g, MD_OP_transpose, &x, 1, &a, size);
    return;
  case 2:
    a.slice = (md_slice_attr){.axis = axis, .start = md_roll(g->dice, s.dim[axis])};
    a.slice.size = 1 + md_roll(g->dice, s.dim[axis] - a.slice.start);
    md_gen_node(g, MD_OP_slice, &x, 1, &a, size);
    return;
  case 3:
    a.i.value = axis;
    md_gen_node(g, MD_OP_flip, &x, 1, &a, size);
    return;
  default: {  // a new axis, or axes of size 1 repeated
    md_shape to = {0};
    for (int i = 0; i < s.rank; i++) {
      if (i == axis && s.rank < 5 && md_elements(&s) < 400)
        to.dim[to.rank++] = 1 + md_roll(g->dice, 5);
      a.shape.axes.d[a.shape.axes.n++] = to.rank;
      to.dim[to.rank++] =
          s.dim[i] == 1 && md_elements(&s) < 400 ? 1 + md_roll(g->dice, 5) : s.dim[i];
    }
    a.shape.shape = dims_of(&to);
    md_gen_node(g, MD_OP_broadcast, &x, 1, &a, size);
  }
  }
}

// --- reductions

static md_dims some_axes(md_gen *g, int rank) {
  md_dims axes = {0};
  for (int i = 0; i < rank; i++)
    if (md_gen_one_in(g, 2)) axes.d[axes.n++] = i;
  return axes;  // none: all of them
}

static int64_t divisor(md_gen *g, int64_t n) {
  int64_t by = 1 + md_roll(g->dice, 3);
  return n % by == 0 ? by : 1;
}

static void add_moments(md_gen *g) {
  md_val x = md_gen_pick(g, 2 + (int)md_roll(g->dice, 4));
  md_attr groups = {.i = {.value = divisor(g, md_shape_of(&g->b, x).dim[0])}};
  double size = md_gen_size(g, x);
  md_val mean = md_gen_node(g, MD_OP_moments, &x, 1, &groups, size * size);
  if (md_gen_one_in(g, 2)) return;
  md_val var = md_result_of(&g->b, mean, 1);
  int64_t c = md_shape_of(&g->b, x).dim[1];
  md_type row = md_type_of(g->dtype, 1, &c);
  md_val in[] = {x, md_gen_leaf(g, "x", row), md_gen_leaf(g, "x", row), mean, var};
  md_attr a = {.batch_norm = {.eps = 0.01, .batch_stats = true}};
  md_gen_node(g, MD_OP_batch_norm, in, 5, &a, 8);
}

void md_random_reduce(md_gen *g) {
  if (md_gen_one_in(g, 3)) {
    add_moments(g);
    return;
  }
  md_val x = md_gen_pick(g, 0);
  md_shape s = md_shape_of(&g->b, x);
  md_attr a = {.axes = {.axes = some_axes(g, s.rank)}};
  double size = md_gen_size(g, x);
  if (!g->smooth && md_gen_one_in(g, 4)) md_gen_node(g, MD_OP_max, &x, 1, &a, size);
  else if (md_gen_one_in(g, 2))
    md_gen_node(g, MD_OP_sum, &x, 1, &a, size * sqrt((double)md_elements(&s)));
  else md_gen_keep(g, md_mean(&g->b, x, a.axes.axes), size);
}

// --- rows

static md_val labels(md_gen *g, md_val x) {
  md_shape s = md_shape_of(&g->b, x);
  char *kind = md_format(g->b.g->arena, "label%lld", (long long)s.dim[1]);
  return md_gen_leaf(g, kind, md_type_of(md_gen_one_in(g, 2) ? MD_I64 : MD_I32, 1, s.dim));
}

void md_random_rows(md_gen *g) {
  md_val x = md_gen_pick(g, 2);
  double size = md_gen_size(g, x);
  switch (md_roll(g->dice, md_gen_may_jump(g) ? 6 : 4)) {
  case 0: unary(g, MD_OP_logsumexp, x, size + 3); return;
  case 1: unary(g, MD_OP_softmax, x, 1); return;
  case 2:
    md_gen_node(g, MD_OP_cross_entropy, (md_val[]){x, labels(g, x)}, 2, NULL, size + 3);
    return;
  case 3:  // away from zero rows
    if (g->smooth) x = md_affine(&g->b, x, 1, 0.75);
    md_gen_node(g, MD_OP_l2_normalize, &x, 1, NULL, 1);
    return;
  case 4: unary(g, MD_OP_argmax, x, 1); return;
  default:
    md_gen_node(g, MD_OP_topk_hit, (md_val[]){x, labels(g, x)}, 2,
                &(md_attr){.i = {.value = 1 + md_roll(g->dice, 3)}}, 1);
  }
}

// --- data movement

static void add_concat(md_gen *g) {
  md_val x = md_gen_pick(g, 0), in[4] = {x};
  md_shape s = md_shape_of(&g->b, x);
  if (s.rank == 0) return;
  int axis = (int)md_roll(g->dice, s.rank), num = 1 + (int)md_roll(g->dice, 3);
  double size = md_gen_size(g, x);
  for (int i = 1; i < num; i++) {
    in[i] = md_gen_like(g, x);
    size = fmax(size, md_gen_size(g, in[i]));
    if (!md_gen_one_in(g, 2)) continue;
    md_type other = *md_type_in(g->b.g, x);
    other.shape.dim[axis] = 1 + md_roll(g->dice, 9);
    in[i] = md_gen_leaf(g, "x", other);
  }
  md_gen_node(g, MD_OP_concat, in, num, &(md_attr){.i = {.value = axis}}, size);
}

static md_val indices(md_gen *g, int64_t num) {
  return md_gen_leaf(g, "int", md_type_of(md_gen_one_in(g, 3) ? MD_I64 : MD_I32, 1, &num));
}

// A ring with its pointer, as the bank of the step has them.
static void add_bank(md_gen *g) {
  md_val keys = md_gen_pick(g, 2);
  md_shape s = md_shape_of(&g->b, keys);
  int64_t rows = md_gen_dim(g), one = 1;
  md_val bank = md_gen_state(g, "ring", md_type_of(g->dtype, 2, (int64_t[]){rows, s.dim[1]}));
  md_val ptr = md_gen_state(g, "int", md_type_of(MD_I32, 1, &one));
  md_val next = md_gen_node(g, MD_OP_bank_push, (md_val[]){bank, keys, ptr}, 3, NULL, 2);
  md_val move = md_gen_node(g, MD_OP_ring_next, &ptr, 1, &(md_attr){.word = {s.dim[0], rows}}, 1);
  if (g->b.failed) return;
  md_update_state(&g->b, bank, next);
  md_update_state(&g->b, ptr, move);
}

void md_random_data(md_gen *g) {
  md_val x = md_gen_pick(g, 0);
  md_shape s = md_shape_of(&g->b, x);
  if (s.rank == 0) return;
  double size = md_gen_size(g, x);
  switch (md_roll(g->dice, g->smooth ? 4 : 6)) {
  case 0:
  case 1: add_concat(g); return;
  case 2: {
    md_attr a = {.word = {md_roll(g->dice, s.rank), md_roll(g->dice, 3), md_roll(g->dice, 3)}};
    md_gen_node(g, MD_OP_pad, &x, 1, &a, size);
    return;
  }
  case 3:
    md_gen_node(g, MD_OP_gather_rows, (md_val[]){x, indices(g, md_gen_dim(g))}, 2, NULL, size);
    return;
  case 4:
    md_gen_node(g, MD_OP_scatter_rows, (md_val[]){x, indices(g, s.dim[0])}, 2,
                &(md_attr){.i = {.value = md_gen_dim(g)}}, 3 * size);
    return;
  default: add_bank(g);
  }
}

// --- integers and other element types

void md_random_integer(md_gen *g) {
  md_type t = md_gen_type(g, 1 + (int)md_roll(g->dice, 4));
  static const md_dtype dtype[] = {MD_I32, MD_I64, MD_U8}, narrow[] = {MD_I32, MD_U8, MD_BOOL};
  switch (md_roll(g->dice, md_gen_may_jump(g) ? 5 : 4)) {
  case 0: {
    t.dtype = dtype[md_roll(g->dice, MD_COUNT(dtype))];
    static const md_op op[] = {MD_OP_add, MD_OP_sub, MD_OP_mul};
    md_val in[] = {md_gen_leaf(g, "int", t), md_gen_leaf(g, "int", t)};
    md_val y = md_gen_node(g, op[md_roll(g->dice, 3)], in, 2, NULL, 1);
    md_gen_keep(g, md_affine(&g->b, md_cast(&g->b, y, g->dtype), 1.0 / 64, -0.5), 4);
    return;
  }
  case 1: {  // to another float and back
    md_val x = md_gen_pick(g, 0);
    md_dtype other = g->dtype == MD_BF16 || md_gen_one_in(g, 2) ? MD_F32 : MD_BF16;
    md_val y = md_cast(&g->b, x, other);
    if (md_gen_one_in(g, 2)) y = md_add_node(&g->b, MD_OP_tanh, &y, 1, NULL);
    md_gen_keep(g, md_cast(&g->b, y, g->dtype), md_gen_size(g, x));
    return;
  }
  case 2: {
    md_val x = md_gen_pick(g, 0), y = md_gen_like(g, x);
    md_shape s = md_shape_of(&g->b, x);
    md_val flag = md_gen_leaf(g, "flag", md_type_of(MD_U8, 1, s.dim));
    if (s.rank > 0)
      md_gen_node(g, MD_OP_flip_select, (md_val[]){x, y, flag}, 3, NULL,
                  fmax(md_gen_size(g, x), md_gen_size(g, y)));
    return;
  }
  case 3: {  // -200 .. 600 on a detour over f64: u8 saturates there, and wraps without it
    t.dtype = MD_I32;
    md_val x = md_mul(&g->b, md_gen_leaf(g, "int", t), md_constant(&g->b, t, 100));
    md_dtype to = narrow[md_roll(g->dice, MD_COUNT(narrow))];
    md_val y = md_gen_keep(g, md_cast(&g->b, md_cast(&g->b, x, MD_F64), to), 1);
    md_gen_keep(g, md_affine(&g->b, md_cast(&g->b, y, g->dtype), 1.0 / 256, 0), 3);
    return;
  }
  default: {  // floats on both sides of what the type holds
    md_val x = md_gen_pick(g, 0);
    md_dtype to = narrow[md_roll(g->dice, MD_COUNT(narrow))];
    bool byte = to == MD_U8;
    md_val y = md_cast(&g->b, md_affine(&g->b, x, byte ? 90 : 11.7, byte ? 100 : 0), to);
    md_gen_keep(g, y, 1);
    md_gen_keep(g, md_affine(&g->b, md_cast(&g->b, y, g->dtype), 1.0 / 16, 0),
                byte ? 16 : md_gen_size(g, x));
  }
  }
}
