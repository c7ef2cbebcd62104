// SPDX-License-Identifier: Apache-2.0
// Blocks around anchors as models have them (convolution, batch norm, residual sum, relu; linear
// layers; InfoNCE against a bank), pictures, and backward ops by themselves.
#include "tests/random/random.h"

#include <math.h>

enum { MOST_MACS = 60000, MACS_IN_LARGE = 600000, MACS_IN_WIDE = 8000000 };

static md_type typed(md_gen *g, int rank, const int64_t *dim) {
  return md_type_of(g->dtype, rank, dim);
}

static md_val row_leaf(md_gen *g, const char *kind, int64_t c) {
  return md_gen_leaf(g, kind, typed(g, 1, &c));
}

// A window that fits: kernel, stride, padding, dilation of one axis of size x.
static void draw_window(md_gen *g, int64_t x, int64_t *k, int64_t *stride, int64_t *pad,
                        int64_t *dil) {
  static const int64_t kernel[] = {1, 3, 2, 1, 3, 5, 7};
  *k = kernel[md_roll(g->dice, MD_COUNT(kernel))];
  *stride = 1 + md_roll(g->dice, md_gen_one_in(g, 2) ? 3 : 1);
  *dil = md_gen_one_in(g, 4) ? 2 : 1;
  *pad = md_gen_one_in(g, 2) ? *k / 2 * *dil : md_roll(g->dice, *k);
  if ((*k - 1) * *dil + 1 <= x + 2 * *pad) return;
  *k = 1;
  *pad = 0;
}

// A kernel of 1 or 3 frames that stays at its pixel.
static void draw_frames(md_gen *g, int64_t k[3], md_conv3d_attr *a) {
  k[0] = md_gen_one_in(g, 2) ? 1 : 3;
  k[1] = k[2] = 1;
  a->stride = a->dilation = D3(1, 1, 1);
  a->pad = D3(k[0] / 2, 0, 0);
}

static bool draw_conv(md_gen *g, md_val x, md_conv3d_attr *a, int64_t w[5]) {
  md_shape s = md_shape_of(&g->b, x);
  if (s.rank != 5) return false;
  w[0] = md_gen_channels(g);
  w[1] = s.dim[1];
  double macs = (double)(w[0] * w[1] * s.dim[0]);
  for (int i = 0; i < 3; i++)
    draw_window(g, s.dim[2 + i], &w[2 + i], &a->stride.d[i], &a->pad.d[i], &a->dilation.d[i]);
  if (md_gen_one_in(g, 3)) draw_frames(g, &w[2], a);
  for (int i = 0; i < 3; i++) {
    int64_t y =
        (s.dim[2 + i] + 2 * a->pad.d[i] - (w[2 + i] - 1) * a->dilation.d[i] - 1) / a->stride.d[i] +
        1;
    macs *= (double)(w[2 + i] * y);
  }
  double most = g->wide ? MACS_IN_WIDE : g->large ? MACS_IN_LARGE : MOST_MACS;
  while (macs > most && w[0] > 1) {
    macs /= 2;
    w[0] /= 2;
  }
  return macs < 4 * most;
}

// Batch norm with statistics of x, of groups of x, or given ones.
static md_val batch_norm(md_gen *g, md_val x) {
  md_shape s = md_shape_of(&g->b, x);
  if (s.rank < 2) return x;
  bool train = !md_gen_one_in(g, 3);
  int64_t groups = md_gen_one_in(g, 4) && s.dim[0] % 2 == 0 ? 2 : 1;
  int64_t stat[] = {groups, s.dim[1]};
  md_val gamma = row_leaf(g, "x", s.dim[1]), beta = row_leaf(g, "x", s.dim[1]), mean, var;
  if (train) {
    mean = md_moments(&g->b, x, groups);
    var = md_result_of(&g->b, mean, 1);
    if (md_gen_one_in(g, 3)) md_gen_keep(g, mean, md_gen_size(g, x));
  } else {
    mean = md_gen_leaf(g, "x", typed(g, 2, stat));
    var = md_gen_leaf(g, "pos", typed(g, 2, stat));
  }
  double size = train ? 8 : 3 * (md_gen_size(g, x) + 2);
  return md_gen_keep(g, md_batch_norm(&g->b, x, gamma, beta, mean, var, 0.01, train), size);
}

static md_val activate(md_gen *g, md_val x) {
  double size = md_gen_size(g, x);
  if (g->has_loss || (g->smooth && md_gen_one_in(g, 2)))
    return md_gen_node(g, MD_OP_tanh, &x, 1, NULL, 1);
  return md_gen_keep(g, md_relu(&g->b, x), size);
}

static md_val conv(md_gen *g, md_val x) {
  md_conv3d_attr a = {0};
  int64_t w[5];
  if (!draw_conv(g, x, &a, w)) return MD_NONE;
  md_val weight = md_gen_leaf(g, "x", typed(g, 5, w));
  md_val bias = md_gen_one_in(g, 3) ? row_leaf(g, "x", w[0]) : MD_NONE;
  double size = md_gen_size(g, x) * 2 * sqrt((double)(w[1] * w[2] * w[3] * w[4]));
  return md_gen_keep(g, md_conv3d(&g->b, x, weight, bias, &a), size);
}

void md_random_conv(md_gen *g) {
  md_val x = md_gen_pick(g, 5), y = conv(g, x);
  for (int64_t more = md_roll(g->dice, 3); more > 0 && y != MD_NONE; more--) {
    y = activate(g, batch_norm(g, y));
    md_val next = conv(g, y);
    if (next == MD_NONE) break;
    y = next;
  }
  if (y == MD_NONE || md_gen_one_in(g, 4)) return;
  if (!md_gen_one_in(g, 3)) y = batch_norm(g, y);
  if (md_gen_one_in(g, 2)) {  // a shortcut: the block's own input where it fits
    md_shape from = md_shape_of(&g->b, x), to = md_shape_of(&g->b, y);
    md_val shortcut = md_shape_equal(&from, &to) ? x : md_gen_like(g, y);
    double size = md_gen_size(g, y) + md_gen_size(g, shortcut);
    y = md_gen_keep(g, md_add(&g->b, y, shortcut), size);
  }
  if (!md_gen_one_in(g, 4)) y = activate(g, y);
  if (md_gen_one_in(g, 2)) conv(g, y);  // the first of the next block
  if (md_gen_one_in(g, 4))
    md_gen_keep(g, md_mean(&g->b, y, (md_dims){3, {2, 3, 4}}), md_gen_size(g, y));
}

void md_random_matmul(md_gen *g) {
  md_val x = md_gen_pick(g, 2);
  md_shape s = md_shape_of(&g->b, x);
  if (s.rank != 2) return;
  bool tx = md_gen_one_in(g, 3), ty = md_gen_one_in(g, 2), first = !md_gen_one_in(g, 4);
  int64_t k = s.dim[first ? !tx : ty], n = md_gen_channels(g);
  bool swap = first ? ty : !tx;  // the other operand is [n,k]
  md_val w = md_gen_leaf(g, "x", typed(g, 2, swap ? (int64_t[]){n, k} : (int64_t[]){k, n}));
  double size = md_gen_size(g, x) * 2 * sqrt((double)k);
  md_val y = first ? md_matmul(&g->b, x, w, tx, ty) : md_matmul(&g->b, w, x, tx, ty);
  md_gen_keep(g, y, size);
  if (md_gen_one_in(g, 3)) return;
  md_shape to = md_shape_of(&g->b, y);
  if (to.rank != 2) return;
  md_val bias = md_broadcast(&g->b, row_leaf(g, "x", to.dim[1]), to, (md_dims){1, {1}});
  y = md_gen_keep(g, md_add(&g->b, y, bias), size + 2);
  if (md_gen_one_in(g, 2)) activate(g, y);
}

static bool draw_pool(md_gen *g, md_val x, md_pool3d_attr *a) {
  md_shape s = md_shape_of(&g->b, x);
  if (s.rank != 5) return false;
  for (int i = 0; i < 3; i++) {
    int64_t dilation;
    draw_window(g, s.dim[2 + i], &a->kernel.d[i], &a->stride.d[i], &a->pad.d[i], &dilation);
    a->pad.d[i] = MD_MIN(a->pad.d[i], a->kernel.d[i] - 1);
    if (a->kernel.d[i] > s.dim[2 + i] + 2 * a->pad.d[i]) a->kernel.d[i] = 1, a->pad.d[i] = 0;
  }
  return true;
}

void md_random_pool(md_gen *g) {
  md_val x = md_gen_pick(g, 5);
  md_attr a = {0};
  if (!draw_pool(g, x, &a.pool3d)) return;
  bool average = md_gen_one_in(g, 2);
  md_gen_node(g, average ? MD_OP_avg_pool3d : MD_OP_max_pool3d, &x, 1, &a, md_gen_size(g, x));
}

// The term of the step (spec §2), its parts read by others now and then, or the streaming op itself.
void md_random_nce(md_gen *g) {
  md_builder *b = &g->b;
  md_val q = md_gen_pick(g, 2);
  md_shape s = md_shape_of(b, q);
  if (s.rank != 2) return;
  int64_t rows = 1 + md_roll(g->dice, 40), d = s.dim[1];
  md_val ids = md_gen_leaf(g, "int", md_type_of(MD_I32, 1, s.dim));
  md_val bank = md_gen_leaf(g, "x", typed(g, 2, (int64_t[]){rows, d}));
  md_val bank_ids = md_gen_leaf(g, "int", md_type_of(MD_I32, 1, &rows));
  if (g->smooth || !md_gen_one_in(g, 4)) q = md_l2_normalize(b, md_affine(b, q, 1, 0.5), 0);
  md_attr tau = {.f = {.value = 0.5}};
  for (int64_t queries = 1 + md_roll(g->dice, 2); queries > 0; queries--) {
    md_val lse, top = MD_NONE, mean = MD_NONE;
    if (md_gen_one_in(g, 3)) {
      lse = md_add_node(b, MD_OP_nce_lse, (md_val[]){q, ids, bank, bank_ids}, 4, &tau);
      if (!g->smooth) top = md_result_of(b, lse, 1);
      if (!g->smooth && md_gen_one_in(g, 2)) mean = md_result_of(b, lse, 2);
    } else {
      md_val z =
          md_add_node(b, MD_OP_nce_mask,
                      (md_val[]){md_matmul(b, q, bank, false, true), ids, bank_ids}, 3, &tau);
      lse = md_add_node(b, MD_OP_logsumexp, &z, 1, NULL);
      md_attr row = {.axes = {.axes = {1, {1}}}};
      if (!g->smooth) top = md_add_node(b, MD_OP_max, &z, 1, &row);
      if (!g->smooth && md_gen_one_in(g, 8)) md_return(b, md_format(b->g->arena, "z%u", z), z);
    }
    // The positive beside the bank: its logit keeps everything finite.
    md_val a = md_sum(b, md_mul(b, q, md_gen_like(g, q)), (md_dims){1, {1}});
    if (top != MD_NONE && md_gen_may_jump(g) && md_gen_one_in(g, 2))
      md_gen_node(g, MD_OP_less, (md_val[]){top, a}, 2, NULL, 1);
    if (mean != MD_NONE) md_gen_node(g, MD_OP_mul, (md_val[]){mean, q}, 2, NULL, 1);
    md_val gap = md_sub(b, lse, a);
    md_gen_node(g, MD_OP_softplus, &gap, 1, NULL, 8);
    if (!md_gen_one_in(g, 2)) continue;
    q = md_l2_normalize(b, md_affine(b, md_gen_like(g, q), 1, 0.5), 0);
  }
}

void md_random_picture(md_gen *g) {
  md_type t = md_gen_type(g, 4 + (int)md_roll(g->dice, 2));
  t.shape.dim[1] = 3;
  t.dtype = MD_U8;
  md_val x = md_gen_leaf(g, "pixel", t);
  x = md_affine(&g->b, md_cast(&g->b, x, g->dtype), 1 / (255 * 0.225), -0.45 / 0.225);
  md_shape s = t.shape;
  int64_t h = s.dim[s.rank - 2], w = s.dim[s.rank - 1];
  md_attr a = {0};
  switch (md_roll(g->dice, 5)) {
  case 0:
    a.resize.size = (md_dims){2, {1 + md_roll(g->dice, 17), 1 + md_roll(g->dice, 17)}};
    if (s.rank == 5)
      a.resize.size = (md_dims){3, {s.dim[2], a.resize.size.d[0], a.resize.size.d[1]}};
    a.resize.align_corners = md_gen_one_in(g, 3);
    a.resize.antialias = !a.resize.align_corners && md_gen_one_in(g, 2);
    md_gen_node(g, MD_OP_resize, &x, 1, &a, 3);
    return;
  case 1:
    a.crop.top = md_roll(g->dice, h);
    a.crop.left = md_roll(g->dice, w);
    a.crop.h = 1 + md_roll(g->dice, h - a.crop.top);
    a.crop.w = 1 + md_roll(g->dice, w - a.crop.left);
    md_gen_node(g, MD_OP_crop, &x, 1, &a, 3);
    return;
  case 2: md_gen_node(g, MD_OP_grayscale, &x, 1, NULL, 3); return;
  case 3:
    if (h < 2 || w < 2) break;
    md_gen_node(g, MD_OP_gaussian_blur, (md_val[]){x, row_leaf(g, "pos", s.dim[0])}, 2,
                &(md_attr){.blur = {.size = 3}}, 3);
    return;
  default:
    if (s.rank != 5 || s.dim[2] < 2) break;
    md_gen_node(g, MD_OP_frame_difference, &x, 1, &(md_attr){.i = {.value = md_roll(g->dice, 2)}},
                6);
    return;
  }
  md_gen_keep(g, x, 3);
}

// Backward ops whose operands come from anywhere.
void md_random_backward(md_gen *g) {
  md_builder *b = &g->b;
  md_val x = md_gen_pick(g, md_gen_one_in(g, 3) ? 2 : 5);
  md_shape s = md_shape_of(b, x);
  if (s.rank == 2) {
    md_val dy = md_gen_like(g, x);
    md_gen_node(g, MD_OP_l2_normalize_grad, (md_val[]){dy, md_affine(b, x, 1, 0.5)}, 2, NULL, 8);
    return;
  }
  md_attr conv_attr = {0}, pool_attr = {0};
  int64_t w[5];
  switch (md_roll(g->dice, 4)) {
  case 0:
  case 1: {
    md_conv3d_attr *a = &conv_attr.conv3d;
    if (!draw_conv(g, x, a, w)) return;
    md_type y = {.dtype = g->dtype, .shape = {.rank = 5, .dim = {s.dim[0], w[0]}}};
    for (int i = 0; i < 3; i++)
      y.shape.dim[2 + i] =
          (s.dim[2 + i] + 2 * a->pad.d[i] - (w[2 + i] - 1) * a->dilation.d[i] - 1) /
              a->stride.d[i] +
          1;
    md_val dy = md_gen_leaf(g, "x", y);
    double n = (double)md_elements(&y.shape), size = md_gen_size(g, x);
    md_shape ws = {.rank = 5, .dim = {w[0], w[1], w[2], w[3], w[4]}};
    if (md_gen_one_in(g, 2)) {
      md_gen_keep(g, md_conv3d_wgrad(b, dy, x, ws, a), size * 2 * sqrt(n));
    } else {
      md_val weight = md_gen_leaf(g, "x", typed(g, 5, w));
      md_gen_keep(g, md_conv3d_dgrad(b, dy, weight, s, a),
                  4 * sqrt((double)(w[0] * w[2] * w[3] * w[4])));
    }
    return;
  }
  case 2: {
    if (!draw_pool(g, x, &pool_attr.pool3d)) return;
    md_val y = md_add_node(b, MD_OP_max_pool3d, &x, 1, &pool_attr);
    md_attr a = {
        .pool3d_grad = {
            pool_attr.pool3d.kernel, pool_attr.pool3d.stride, pool_attr.pool3d.pad, {5, {0}}}};
    for (int i = 0; i < 5; i++) a.pool3d_grad.shape.d[i] = s.dim[i];
    md_val index = md_result_of(b, y, 1), dy = md_gen_like(g, y);
    md_gen_node(g, MD_OP_max_pool3d_grad, (md_val[]){dy, index}, 2, &a, 8);
    return;
  }
  default: {
    md_val mean = md_moments(b, x, 1), var = md_result_of(b, mean, 1), dy = md_gen_like(g, x);
    md_attr eps = {.f = {.value = 0.01}};
    md_val sums = md_gen_node(g, MD_OP_batch_norm_sums, (md_val[]){dy, x, mean, var}, 4, &eps, 4);
    md_val in[] = {dy, x, row_leaf(g, "x", s.dim[1]), mean, var, sums, md_result_of(b, sums, 1)};
    md_gen_node(g, MD_OP_batch_norm_dx, in, 7, &eps, 16);
  }
  }
}
