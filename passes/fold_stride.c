// SPDX-License-Identifier: Apache-2.0
// fold-stride: where channels are read in vectors, a convolution of three of them multiplies mostly padding; and
// where minimal filtering spares most products, a stride stands in its way. Both end when neighbours along the
// axes with a stride become channels (space to depth), and the stride goes:
//
//   conv(x[n,c,t,h,w], u[o,c,a,b,k]), stride s on w  =  conv(fold(x'), fold(u')), stride 1, no pad on w
//   x' = x with the zeros of the pad, u' = u with zeros behind it, so that s divides both
//   fold: space_to_depth
//
// The gradient for u is that for fold(u'), unfolded. Of the axes with a stride those are folded that leave
// the fewest products; for filtering both of an image. Not bitwise: sums run in another order, and an infinity meets
// the zeros behind u, which makes NaN of results that have no tap there.
#include "passes/passes.h"

enum { AXES = 3, FIRST = 2 };  // axes of a kernel; the first one's number in the tensor

typedef struct Fold {
  md_dim3 stride, pad, kernel;
  int64_t places[AXES];  // of the result
  int folded;            // bit i: axis i
} Fold;

// --- which axes

static int64_t taps(const Fold *f, int i, int folded) {
  return folded >> i & 1 ? md_ceil_div(f->kernel.d[i], f->stride.d[i]) : f->kernel.d[i];
}

// That an element of the result sums up, with the channels that nobody counts.
static int64_t products(const Fold *f, int64_t channels, int64_t vector, int folded) {
  int64_t num = 1;
  for (int i = 0; i < AXES; i++) {
    if (folded >> i & 1) channels *= f->stride.d[i];
    num *= taps(f, i, folded);
  }
  return num * md_round_up(channels, vector);
}

// Height and width of a first convolution, which reads few channels, if what filtering leaves of the products for a
// result, and its transforms (as dear as so many products for the result, and as many for each channel that is read),
// are well below the products of all taps: those of bf16 count less, as some targets take them in pairs. As measured
// on Zen 4 for R3D-50, R3D-18, and small images; a weight gradient of few channels, whose planes stay in the L2 cache
// (codegen/cpu/conv_winograd_wgrad.c), on Zen 5 for the miniature networks.
enum { FORWARD_TRANSFORMS = 40, WEIGHTS_TRANSFORMS = 150, KEPT_TRANSFORMS = 90, MOST_KEPT = 32 };
static int filtered_axes(const Fold *f, const md_dim3 *dilation, const md_type *x, int64_t out,
                         int transforms) {
  enum { IMAGE = 6, MOST_CHANNELS = 16, LEAST_PLACES = 8 };
  int64_t channels = x->shape.dim[1];
  for (int i = 1; i < AXES; i++) {
    int64_t left = taps(f, i, IMAGE);
    if (f->stride.d[i] < 2 || dilation->d[i] != 1 || left < 3 || left > 4) return 0;
    if (f->places[i] < LEAST_PLACES) return 0;
    channels *= f->stride.d[i];
  }
  // Nothing filters a stride along time.
  if (f->stride.d[0] != 1 || channels > MOST_CHANNELS) return 0;
  if (taps(f, 1, IMAGE) != taps(f, 2, IMAGE)) return 0;
  double all = (double)products(f, x->shape.dim[1], 1, 0) * (x->dtype == MD_BF16 ? 0.7 : 1);
  double left = (double)products(f, x->shape.dim[1], 1, IMAGE) / 4;
  return left + transforms * (1 + (double)channels / (double)out) < 0.8 * all ? IMAGE : 0;
}

// 0: nothing is gained. `out`: channels of the result.
static int best_axes(const md_rewriter *r, const Fold *f, const md_dim3 *dilation, const md_type *x,
                     int64_t out, int transforms) {
  const md_target_facts *facts = &r->options->facts;
  if (facts->filters_taps && (x->dtype == MD_F32 || x->dtype == MD_BF16))
    return filtered_axes(f, dilation, x, out, transforms);
  if (!facts->channels_last || x->dtype != MD_BF16 || x->shape.rank != FIRST + AXES) return 0;
  int64_t channels = x->shape.dim[1], least = products(f, channels, facts->channel_block, 0);
  int best = 0;
  least = least * 4 / 5;  // what is moved has to be made
  // The width sooner than others: neighbours are read together.
  for (int folded = (1 << AXES) - 1; folded > 0; folded--) {
    bool can = true;
    for (int i = 0; i < AXES; i++)
      can &= !(folded >> i & 1) || (f->stride.d[i] > 1 && dilation->d[i] == 1);
    int64_t num = can ? products(f, channels, facts->channel_block, folded) : least;
    if (num >= least) continue;
    least = num;
    best = folded;
  }
  return best;
}

// --- operands

static md_val fold(md_rewriter *r, const Fold *f, md_op op, md_val v, const md_dim3 *before,
                   const int64_t size[AXES]) {
  md_shape s = md_type_in(r->b.g, v)->shape;
  md_attr a = {0};
  for (int i = 0; i < AXES; i++) {
    bool is = f->folded >> i & 1;
    a.fold.by.d[i] = is ? f->stride.d[i] : 1;
    a.fold.before.d[i] = is && before ? before->d[i] : 0;
    a.fold.size.d[i] = is ? size[i] : s.dim[FIRST + i];
  }
  return md_add_node(&r->b, op, &v, 1, &a);
}

static md_val fold_source(md_rewriter *r, md_val x, const Fold *f) {
  int64_t size[AXES];
  for (int i = 0; i < AXES; i++) size[i] = f->places[i] - 1 + taps(f, i, f->folded);
  return fold(r, f, MD_OP_space_to_depth, x, &f->pad, size);
}

static md_val fold_weights(md_rewriter *r, md_val w, const Fold *f) {
  int64_t size[AXES];
  for (int i = 0; i < AXES; i++) size[i] = taps(f, i, f->folded);
  return fold(r, f, MD_OP_space_to_depth, w, NULL, size);
}

static md_val unfold_weights(md_rewriter *r, md_val w, const Fold *f) {
  return fold(r, f, MD_OP_depth_to_space, w, NULL, f->kernel.d);
}

static md_conv3d_attr folded_attr(const Fold *f, const md_dim3 *dilation) {
  md_conv3d_attr a = {.stride = f->stride, .pad = f->pad, .dilation = *dilation};
  for (int i = 0; i < AXES; i++)
    if (f->folded >> i & 1) a.stride.d[i] = 1, a.pad.d[i] = 0;
  return a;
}

// --- the rules

static void say(md_rewriter *r, const md_node *n, const Fold *f) {
  md_site_done(r, n, "axes%s%s%s become channels", f->folded & 1 ? " time" : "",
               f->folded & 2 ? " height" : "", f->folded & 4 ? " width" : "");
}

static md_val fold_conv(md_rewriter *r, const md_node *n) {
  const md_conv3d_attr *a = &n->attr.conv3d;
  const md_type *x = md_type_in(r->old, n->in[0]), *y = md_type_in(r->old, n->out);
  const md_type *w = md_type_in(r->old, n->in[1]);
  Fold f = {.stride = a->stride, .pad = a->pad};
  for (int i = 0; i < AXES; i++) {
    f.kernel.d[i] = w->shape.dim[FIRST + i];
    f.places[i] = y->shape.dim[FIRST + i];
  }
  f.folded = best_axes(r, &f, &a->dilation, x, y->shape.dim[1], FORWARD_TRANSFORMS);
  if (!f.folded) return md_copy_node(r, n);
  say(r, n, &f);
  md_conv3d_attr folded = folded_attr(&f, &a->dilation);
  md_val bias = n->num_in == 3 ? md_mapped(r, n->in[2]) : MD_NONE;
  md_val from = fold_source(r, md_mapped(r, n->in[0]), &f);
  md_val weights = fold_weights(r, md_mapped(r, n->in[1]), &f);
  return md_conv3d(&r->b, from, weights, bias, &folded);
}

static md_val fold_wgrad(md_rewriter *r, const md_node *n) {
  const md_conv3d_grad_attr *a = &n->attr.conv3d_grad;
  const md_type *dy = md_type_in(r->old, n->in[0]), *x = md_type_in(r->old, n->in[1]);
  const md_type *w = md_type_in(r->old, n->out);
  Fold f = {.stride = a->stride, .pad = a->pad};
  for (int i = 0; i < AXES; i++) {
    f.kernel.d[i] = w->shape.dim[FIRST + i];
    f.places[i] = dy->shape.dim[FIRST + i];
  }
  int64_t out = dy->shape.dim[1];
  int transforms = out <= MOST_KEPT ? KEPT_TRANSFORMS : WEIGHTS_TRANSFORMS;
  f.folded = best_axes(r, &f, &a->dilation, x, out, transforms);
  if (!f.folded) return md_copy_node(r, n);
  say(r, n, &f);
  md_conv3d_attr folded = folded_attr(&f, &a->dilation);
  md_shape to = w->shape;
  for (int i = 0; i < AXES; i++) {
    to.dim[FIRST + i] = taps(&f, i, f.folded);
    if (f.folded >> i & 1) to.dim[1] *= f.stride.d[i];
  }
  md_val from = fold_source(r, md_mapped(r, n->in[1]), &f);
  md_val dw = md_conv3d_wgrad(&r->b, md_mapped(r, n->in[0]), from, to, &folded);
  return unfold_weights(r, dw, &f);
}

const md_pass md_pass_fold_stride = {
    .name = "fold-stride",
    .doc = "neighbours along a stride become channels where that spares products",
    .needs = MD_NEEDS_EXPANDED | MD_NEEDS_NO_REGIONS,
    .at = {[MD_OP_conv3d] = fold_conv, [MD_OP_conv3d_wgrad] = fold_wgrad},
};
