// SPDX-License-Identifier: Apache-2.0
// Augmentation of visual clips as part of the step (spec §5.1): one static graph for all clips, what
// was drawn for each one comes in as numbers.
//
//   raw clip -> flip -> colour stage x3 -> gray -> blur -> (x - 0.45) / 0.225
//
// Brightness, contrast and saturation, in any order, and doing nothing are one formula,
//
//   x' = clamp(a x + m mean(gray(x)) + g gray(x), 0, 1)
//
//   with (a, m, g) = (f, 0, 0), (f, 1-f, 0), (f, 0, 1-f) and (1, 0, 0); the mean is that of a frame.
#include "models/models.h"

static const double luma[3] = {0.299, 0.587, 0.114};

static md_type per_clip(md_dtype d, const md_shape *x, int rank) {
  return md_type_of(d, rank, (int64_t[]){x->dim[0], MD_COLOR_STAGES, MD_COLOR_TERMS});
}

static md_val input(md_builder *b, const char *clip, const char *what, md_type type) {
  return md_input(b, md_format(b->g->arena, "%s_%s", clip, what), type);
}

// Samples whose flag is not 0 become y.
static md_val choose(md_builder *b, md_val x, md_val y, md_val flag) {
  return md_add_node(b, MD_OP_flip_select, (md_val[]){x, y, flag}, 3, NULL);
}

// x [n,3,t,h,w] -> [n,1,t,h,w]
static md_val gray_of(md_builder *b, md_val x) {
  md_val sum = MD_NONE;
  for (int c = 0; c < 3; c++) {
    md_val term = md_affine(b, md_slice(b, x, 1, c, 1), luma[c], 0);
    sum = sum == MD_NONE ? term : md_add(b, sum, term);
  }
  return sum;
}

// factors [n, stages * terms]: one number for each sample, as large as a clip.
static md_val factor(md_builder *b, md_val factors, int stage, int term, md_shape clip) {
  md_val one = md_slice(b, factors, 1, (int64_t)stage * MD_COLOR_TERMS + term, 1);
  return md_broadcast(b, one, clip, (md_dims){.n = 2, .d = {0, 1}});
}

static md_val color_stage(md_builder *b, md_val x, md_val factors, int stage) {
  md_shape clip = md_shape_of(b, x);
  md_val gray = gray_of(b, x);
  md_val mean = md_mean(b, gray, (md_dims){.n = 3, .d = {1, 3, 4}});  // [n,t]
  md_val term[MD_COLOR_TERMS] = {
      x, md_broadcast(b, mean, clip, (md_dims){.n = 2, .d = {0, 2}}),
      md_broadcast(b, gray, clip, (md_dims){.n = 5, .d = {0, 1, 2, 3, 4}})};
  md_val sum = MD_NONE;
  for (int i = 0; i < MD_COLOR_TERMS; i++) {
    md_val y = md_mul(b, term[i], factor(b, factors, stage, i, clip));
    sum = sum == MD_NONE ? y : md_add(b, sum, y);
  }
  md_attr unit = {.real = {0, 1}};
  return md_add_node(b, MD_OP_clamp, &sum, 1, &unit);
}

static md_val color(md_builder *b, md_val x, const char *name) {
  md_shape clip = md_shape_of(b, x);
  md_val factors = input(b, name, "color", per_clip(MD_F32, &clip, 3));
  factors = md_reshape(b, factors, (md_shape){2, {clip.dim[0], MD_COLOR_STAGES * MD_COLOR_TERMS}});
  for (int i = 0; i < MD_COLOR_STAGES; i++) x = color_stage(b, x, factors, i);
  return x;
}

static md_val gray(md_builder *b, md_val x, const char *name) {
  md_shape clip = md_shape_of(b, x);
  md_val y = md_broadcast(b, gray_of(b, x), clip, (md_dims){.n = 5, .d = {0, 1, 2, 3, 4}});
  return choose(b, x, y, input(b, name, "gray", per_clip(MD_U8, &clip, 1)));
}

static md_val blur(md_builder *b, md_val x, const char *name) {
  md_shape clip = md_shape_of(b, x);
  md_attr size = {.blur = {.size = 3}};
  md_val sigma = input(b, name, "sigma", per_clip(MD_F32, &clip, 1));
  return md_add_node(b, MD_OP_gaussian_blur, (md_val[]){x, sigma}, 2, &size);
}

md_val md_augment_clip(md_builder *b, const md_augment *a, const char *name, md_val raw) {
  md_shape clip = md_shape_of(b, raw);
  md_val x = md_cast(b, raw, MD_F32);
  md_attr width = {.i = {.value = 4}};
  md_val mirror = md_add_node(b, MD_OP_flip, &x, 1, &width);
  x = choose(b, x, mirror, input(b, name, "flip", per_clip(MD_U8, &clip, 1)));
  double one = 255;
  if (a->color || a->gray || a->blur) {
    x = md_affine(b, x, 1 / one, 0);
    one = 1;
  }
  if (a->color) x = color(b, x, name);
  if (a->gray) x = gray(b, x, name);
  if (a->blur) x = blur(b, x, name);
  return md_affine(b, x, 1 / (one * 0.225), -0.45 / 0.225);
}
