// SPDX-License-Identifier: Apache-2.0
// Pointwise ops: the row's formula is their meaning, so only gradients stand here.
#include "graph/op_functions.h"

void add_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  (void)b, (void)y;
  d[0] = d[1] = dy[0];
}

void sub_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  (void)y;
  d[0] = dy[0];
  d[1] = unary(b, MD_OP_neg, dy[0]);
}

void mul_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_mul(b, dy[0], y->in[1]);
  d[1] = md_mul(b, dy[0], y->in[0]);
}

// z = x/y: dx = dz/y, dy = -dx z.
void div_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_div(b, dy[0], y->in[1]);
  d[1] = unary(b, MD_OP_neg, md_mul(b, d[0], y->out));
}

void affine_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = scaled(b, dy[0], y->attr.affine.scale);
}

void neg_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  (void)y;
  d[0] = unary(b, MD_OP_neg, dy[0]);
}

// The result is positive exactly where the operand is, and it is what the next layer keeps anyway.
void relu_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_relu_grad(b, dy[0], y->out);
}

void relu_grad_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_relu_grad(b, dy[0], y->in[1]);
}

void exp_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_mul(b, dy[0], y->out);
}

void log_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_div(b, dy[0], y->in[0]);
}

void sqrt_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_affine(b, md_div(b, dy[0], y->out), 0.5, 0);
}

// d x^(-1/2) = -1/2 y^3
void rsqrt_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val cube = md_mul(b, md_mul(b, y->out, y->out), y->out);
  d[0] = md_affine(b, md_mul(b, dy[0], cube), -0.5, 0);
}

void tanh_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_mul(b, dy[0], md_affine(b, md_mul(b, y->out, y->out), -1, 1));
}

void sigmoid_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_mul(b, dy[0], md_mul(b, y->out, md_affine(b, y->out, -1, 1)));
}

void softplus_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_mul(b, dy[0], unary(b, MD_OP_sigmoid, y->in[0]));
}

bool cast_shape(md_infer *f) {
  return set_result(f, 0, (md_dtype)f->node->attr.dtype.dtype, md_in(f, 0));
}

void cast_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_dtype from = md_dtype_of(b, y->in[0]);
  if (md_dtype_is_float(from)) d[0] = md_cast(b, dy[0], from);
}

static bool is_moment(const md_builder *b, md_val v, int which, md_val x) {
  const md_node *n = md_def(b->g, v);
  return n->op == MD_OP_moments && v == n->out + (md_val)which && n->in[0] == x;
}

static void refuse_batch_stats(md_builder *b, const md_node *y) {
  md_error(b->diags, E0350, y->place,
           "batch_norm: no gradient: batch_stats is set, but mean and var are not the moments of "
           "its x");
  md_hint(b->diags,
          "take both from one `moments` of x, or leave batch_stats out: mean and var have "
          "gradients of their own then");
  b->failed = true;
}

// Gradients of statistics that are operands like any others, [g,c]; `count` elements each:
//   dmean = -gamma rstd sum dy        dvar = -1/2 gamma rstd^2 sum dy xhat
static void statistics_grad(md_builder *b, const md_node *y, md_val mdy, md_val mdyx, double count,
                            md_val *d) {
  md_val var = y->in[4], gamma = y->in[1];
  md_val rstd = unary(b, MD_OP_rsqrt, md_affine(b, var, 1, y->attr.batch_norm.eps));
  md_val gain = md_mul(b, md_broadcast(b, gamma, md_shape_of(b, var), (md_dims){1, {1}}), rstd);
  d[3] = scaled(b, md_mul(b, gain, mdy), -count);
  d[4] = scaled(b, md_mul(b, md_mul(b, gain, rstd), mdyx), -count / 2);
}

// With xhat = (x - mean) rstd, rstd = 1 / sqrt(var + eps) and means over a group (spec §14):
//   dgamma = sum dy xhat, dbeta = sum dy
//   batch_stats:  dx = gamma rstd (dy - mean(dy) - xhat mean(dy xhat)); it is the whole dx, so mean
//                 and var, which are moments of the same x, get nothing
//   frozen:       dx = gamma rstd dy, which is batch_norm of dy with mean and beta 0
void batch_norm_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val x = y->in[0], gamma = y->in[1], mean = y->in[3], var = y->in[4];
  md_shape xs = md_shape_of(b, x), ms = md_shape_of(b, mean);
  md_attr eps = {.real = {y->attr.batch_norm.eps}};

  md_val mdy = md_add_node(b, MD_OP_batch_norm_sums, (md_val[]){dy[0], x, mean, var}, 4, &eps);
  md_val mdyx = md_result_of(b, mdy, 1);
  bool batch_stats = y->attr.batch_norm.batch_stats;
  if (batch_stats && !(is_moment(b, mean, 0, x) && is_moment(b, var, 1, x))) {
    refuse_batch_stats(b, y);
    return;
  }
  if (batch_stats) {
    md_val in[] = {dy[0], x, gamma, mean, var, mdy, mdyx};
    d[0] = md_add_node(b, MD_OP_batch_norm_dx, in, 7, &eps);
  } else {
    md_val no_beta = constant_like(b, gamma, md_shape_of(b, gamma), 0);
    md_val no_mean = constant_like(b, mean, ms, 0);
    d[0] = md_batch_norm(b, dy[0], gamma, no_beta, no_mean, var, y->attr.batch_norm.eps, false);
  }

  if (xs.rank < 2 || ms.rank < 2) return;  // after an error
  // Means to sums: elements of a channel in one group.
  double count = (double)(xs.dim[0] / ms.dim[0] * elements_from(&xs, 2));
  d[1] = scaled(b, md_sum(b, mdyx, (md_dims){1, {0}}), count);
  d[2] = scaled(b, md_sum(b, mdy, (md_dims){1, {0}}), count);
  if (!batch_stats) statistics_grad(b, y, mdy, mdyx, count, d);
}

// ds = dz/tau where the entry is not masked. exp(mask(0)) is 1 there and 0 elsewhere.
void nce_mask_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val zero = constant_like(b, y->in[0], md_shape_of(b, y->in[0]), 0);
  md_val masked = md_add_node(b, MD_OP_nce_mask, (md_val[]){zero, y->in[1], y->in[2]}, 3, &y->attr);
  d[0] = scaled(b, md_mul(b, dy[0], unary(b, MD_OP_exp, masked)), 1 / y->attr.f.value);
}

void lerp_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = scaled(b, dy[0], 1 - y->attr.f.value);
  d[1] = scaled(b, dy[0], y->attr.f.value);
}

// Linear in x, and the same key at the same index drops the same elements.
void dropout_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_add_node(b, MD_OP_dropout, (md_val[]){dy[0], y->in[1]}, 2, &y->attr);
}

void bce_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val x = y->in[0], t = y->in[1];
  d[0] = md_mul(b, dy[0], md_sub(b, unary(b, MD_OP_sigmoid, x), t));
  d[1] = unary(b, MD_OP_neg, md_mul(b, dy[0], x));
}
