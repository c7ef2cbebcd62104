// SPDX-License-Identifier: Apache-2.0
// Builders spelled as the ops are printed: what models, gradients and rewrites are written in. Each
// packs its arguments into operands and attributes; the checks are md_add_node's.
#include "graph/graph.h"

#define NODE(b, op, attr, ...) \
  md_add_node(b, op, (const md_val[]){__VA_ARGS__}, MD_COUNT(((const md_val[]){__VA_ARGS__})), attr)

static md_dims dims_of(const md_shape *s) {
  md_dims d = {.n = s->rank};
  for (int i = 0; i < s->rank && i < MD_MAX_RANK; i++) d.d[i] = s->dim[i];
  return d;
}

static md_attr conv_grad_attr(const md_conv3d_attr *a, const md_shape *shape) {
  md_attr attr = {0};
  if (a)
    attr.conv3d_grad =
        (md_conv3d_grad_attr){.stride = a->stride, .pad = a->pad, .dilation = a->dilation};
  attr.conv3d_grad.shape = dims_of(shape);
  return attr;
}

static md_attr pool_attr(const md_pool3d_attr *a) {
  md_attr attr = {0};
  if (a) attr.pool3d = *a;
  return attr;
}

md_val md_add(md_builder *b, md_val x, md_val y) { return NODE(b, MD_OP_add, NULL, x, y); }
md_val md_sub(md_builder *b, md_val x, md_val y) { return NODE(b, MD_OP_sub, NULL, x, y); }
md_val md_mul(md_builder *b, md_val x, md_val y) { return NODE(b, MD_OP_mul, NULL, x, y); }
md_val md_div(md_builder *b, md_val x, md_val y) { return NODE(b, MD_OP_div, NULL, x, y); }

// A scale of 0 cannot be said with this op (zero words are defaults): x*0 + shift is the constant.
md_val md_affine(md_builder *b, md_val x, double scale, double shift) {
  if (scale == 0 && !b->failed && x != MD_NONE && x <= (md_val)b->g->num_values)
    return md_constant(b, *md_type_in(b->g, x), shift);
  md_attr a = {0};
  a.affine = (md_affine_attr){.scale = scale, .shift = shift};
  return NODE(b, MD_OP_affine, &a, x);
}

md_val md_relu(md_builder *b, md_val x) { return NODE(b, MD_OP_relu, NULL, x); }

md_val md_relu_grad(md_builder *b, md_val dy, md_val y) {
  return NODE(b, MD_OP_relu_grad, NULL, dy, y);
}

md_val md_cast(md_builder *b, md_val x, md_dtype to) {
  md_attr a = {0};
  a.dtype.dtype = to;
  return NODE(b, MD_OP_cast, &a, x);
}

md_val md_broadcast(md_builder *b, md_val x, md_shape to, md_dims axes) {
  md_attr a = {0};
  a.shape = (md_shape_attr){.shape = dims_of(&to), .axes = axes};
  return NODE(b, MD_OP_broadcast, &a, x);
}

md_val md_reshape(md_builder *b, md_val x, md_shape to) {
  md_attr a = {0};
  a.axes.axes = dims_of(&to);
  return NODE(b, MD_OP_reshape, &a, x);
}

md_val md_transpose(md_builder *b, md_val x, md_dims perm) {
  md_attr a = {0};
  a.axes.axes = perm;
  return NODE(b, MD_OP_transpose, &a, x);
}

md_val md_slice(md_builder *b, md_val x, int axis, int64_t start, int64_t size) {
  md_attr a = {0};
  a.slice = (md_slice_attr){.axis = axis, .start = start, .size = size};
  return NODE(b, MD_OP_slice, &a, x);
}

md_val md_concat(md_builder *b, const md_val *x, int n, int axis) {
  md_attr a = {0};
  a.i.value = axis;
  return md_add_node(b, MD_OP_concat, x, n, &a);
}

md_val md_sum(md_builder *b, md_val x, md_dims axes) {
  md_attr a = {0};
  a.axes.axes = axes;
  return NODE(b, MD_OP_sum, &a, x);
}

md_val md_mean(md_builder *b, md_val x, md_dims axes) {
  md_val y = md_sum(b, x, axes);
  if (y == MD_NONE) return y;
  md_shape from = md_shape_of(b, x), to = md_shape_of(b, y);
  return md_affine(b, y, (double)md_elements(&to) / (double)md_elements(&from), 0);
}

md_val md_matmul(md_builder *b, md_val x, md_val y, bool tx, bool ty) {
  md_attr a = {0};
  a.matmul = (md_matmul_attr){.ta = tx, .tb = ty};
  return NODE(b, MD_OP_matmul, &a, x, y);
}

md_val md_conv3d(md_builder *b, md_val x, md_val w, md_val bias, const md_conv3d_attr *a) {
  md_attr attr = {0};
  if (a) attr.conv3d = *a;
  return NODE(b, MD_OP_conv3d, &attr, x, w, bias);
}

md_val md_conv3d_dgrad(md_builder *b, md_val dy, md_val w, md_shape x, const md_conv3d_attr *a) {
  md_attr attr = conv_grad_attr(a, &x);
  return NODE(b, MD_OP_conv3d_dgrad, &attr, dy, w);
}

md_val md_conv3d_wgrad(md_builder *b, md_val dy, md_val x, md_shape w, const md_conv3d_attr *a) {
  md_attr attr = conv_grad_attr(a, &w);
  return NODE(b, MD_OP_conv3d_wgrad, &attr, dy, x);
}

md_val md_moments(md_builder *b, md_val x, int64_t groups) {
  md_attr a = {0};
  a.i.value = groups;
  return NODE(b, MD_OP_moments, &a, x);
}

md_val md_batch_norm(md_builder *b, md_val x, md_val gamma, md_val beta, md_val mean, md_val var,
                     double eps, bool batch_stats) {
  md_attr a = {0};
  a.batch_norm = (md_batch_norm_attr){.eps = eps, .batch_stats = batch_stats};
  return NODE(b, MD_OP_batch_norm, &a, x, gamma, beta, mean, var);
}

md_val md_max_pool3d(md_builder *b, md_val x, const md_pool3d_attr *a) {
  md_attr attr = pool_attr(a);
  return NODE(b, MD_OP_max_pool3d, &attr, x);
}

md_val md_avg_pool3d(md_builder *b, md_val x, const md_pool3d_attr *a) {
  md_attr attr = pool_attr(a);
  return NODE(b, MD_OP_avg_pool3d, &attr, x);
}

md_val md_l2_normalize(md_builder *b, md_val x, double eps) {
  md_attr a = {0};
  a.f.value = eps;
  return NODE(b, MD_OP_l2_normalize, &a, x);
}

md_val md_gradient(md_builder *b, md_val loss, const md_val *wrt, int n) {
  if (n < 0 || n >= MD_MAX_IN) n = MD_MAX_IN;  // refused by the count of operands
  md_val in[MD_MAX_IN + 1] = {loss};
  for (int i = 0; i < n && n < MD_MAX_IN; i++) in[i + 1] = wrt[i];
  md_val first = md_add_node(b, MD_OP_gradient, in, n + 1, NULL);
  // So that dumps, times and traces tell whose gradient a kernel makes.
  for (int i = 0; i < n && !b->failed; i++) {
    const char *name = b->g->value[wrt[i]].name;
    if (name) b->g->value[first + (md_val)i].name = md_format(b->g->arena, "%s.grad", name);
  }
  return first;
}
