// SPDX-License-Identifier: Apache-2.0
// The functions that the rows of ops.def name: shape, gradient, cost, interpreter. They carry no md_
// prefix because a row reads better without it; only ops.c and the op_<family>.c files see them.
//
// What they may rely on:
//   shape  operand count, dtypes and lettered axes fit the row; attributes are in bounds, below 2^31,
//          and zero words already hold their defaults. out[] holds what the result patterns say, or
//          the operand's dtype, for a leaf its declared type; md_infer_node checks sizes afterwards.
//   grad   d[] is all MD_NONE on entry; dy[i] is MD_NONE for a result without a gradient, at least
//          one dy[i] is not. `y` belongs to the graph that is being built.
//   cost   an inferred node: out[] as `shape` left it.
//   eval   results are allocated and zero; operands and attributes passed `shape`.
#ifndef GRAPH_OP_FUNCTIONS_H
#define GRAPH_OP_FUNCTIONS_H

#include "graph/graph.h"

// --- shape
bool leaf_shape(md_infer *f);
bool cast_shape(md_infer *f);
bool broadcast_shape(md_infer *f);
bool reshape_shape(md_infer *f);
bool transpose_shape(md_infer *f);
bool slice_shape(md_infer *f);
bool flip_shape(md_infer *f);
bool sum_shape(md_infer *f);
bool moments_shape(md_infer *f);
bool conv3d_shape(md_infer *f);
bool conv3d_dgrad_shape(md_infer *f);
bool conv3d_wgrad_shape(md_infer *f);
bool matmul_shape(md_infer *f);
bool max_pool3d_shape(md_infer *f);
bool max_pool3d_grad_shape(md_infer *f);
bool pool3d_grad_shape(md_infer *f);
bool avg_pool3d_shape(md_infer *f);
bool concat_shape(md_infer *f);
bool pad_shape(md_infer *f);
bool space_to_depth_shape(md_infer *f);
bool depth_to_space_shape(md_infer *f);
bool gather_rows_shape(md_infer *f);
bool scatter_rows_shape(md_infer *f);
bool resize_shape(md_infer *f);
bool crop_shape(md_infer *f);
bool rgb_shape(md_infer *f);
bool gaussian_blur_shape(md_infer *f);
bool frame_difference_shape(md_infer *f);
bool gradient_shape(md_infer *f);

// --- grad
void add_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void sub_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void mul_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void div_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void affine_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void neg_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void relu_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void relu_grad_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void exp_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void log_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void sqrt_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void rsqrt_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void tanh_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void sigmoid_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void softplus_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void cast_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void batch_norm_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void nce_mask_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void lerp_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void dropout_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void bce_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void broadcast_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void reshape_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void transpose_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void slice_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void flip_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void sum_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void moments_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void conv3d_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void matmul_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void max_pool3d_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void avg_pool3d_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void nce_lse_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void logsumexp_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void softmax_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void cross_entropy_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void l2_normalize_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void concat_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void pad_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void space_to_depth_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void depth_to_space_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);
void gather_rows_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d);

// --- cost
void conv3d_cost(const md_infer *f, md_cost *c);
void conv3d_dgrad_cost(const md_infer *f, md_cost *c);
void conv3d_wgrad_cost(const md_infer *f, md_cost *c);
void matmul_cost(const md_infer *f, md_cost *c);
void pool3d_cost(const md_infer *f, md_cost *c);
void nce_lse_cost(const md_infer *f, md_cost *c);

// --- eval
void broadcast_eval(md_eval *e);
void reshape_eval(md_eval *e);
void transpose_eval(md_eval *e);
void slice_eval(md_eval *e);
void flip_eval(md_eval *e);
void sum_eval(md_eval *e);
void moments_eval(md_eval *e);
void batch_norm_sums_eval(md_eval *e);
void max_eval(md_eval *e);
void conv3d_eval(md_eval *e);
void conv3d_dgrad_eval(md_eval *e);
void conv3d_wgrad_eval(md_eval *e);
void matmul_eval(md_eval *e);
void max_pool3d_eval(md_eval *e);
void max_pool3d_grad_eval(md_eval *e);
void avg_pool3d_eval(md_eval *e);
void avg_pool3d_grad_eval(md_eval *e);
void nce_lse_eval(md_eval *e);
void logsumexp_eval(md_eval *e);
void softmax_eval(md_eval *e);
void cross_entropy_eval(md_eval *e);
void cross_entropy_grad_eval(md_eval *e);
void l2_normalize_eval(md_eval *e);
void l2_normalize_grad_eval(md_eval *e);
void argmax_eval(md_eval *e);
void topk_hit_eval(md_eval *e);
void concat_eval(md_eval *e);
void pad_eval(md_eval *e);
void space_to_depth_eval(md_eval *e);
void depth_to_space_eval(md_eval *e);
void gather_rows_eval(md_eval *e);
void scatter_rows_eval(md_eval *e);
void bank_push_eval(md_eval *e);
void ring_next_eval(md_eval *e);
void resize_eval(md_eval *e);
void crop_eval(md_eval *e);
void grayscale_eval(md_eval *e);
void gaussian_blur_eval(md_eval *e);
void frame_difference_eval(md_eval *e);
void gradient_eval(md_eval *e);

// --- shared by the op_<family>.c files

// Sets result i. Always true, so that a shape function can end in it.
static inline bool set_result(md_infer *f, int i, md_dtype dtype, const md_shape *s) {
  f->out[i] = (md_type){.dtype = dtype, .shape = *s};
  if (f->num_out <= i) f->num_out = i + 1;
  return true;
}

// The shape that a `dims` attribute lists.
static inline bool shape_from(md_infer *f, const md_dims *d, md_shape *s) {
  const char *why;
  if (d->n < 1) return md_reject(f, "attribute 'shape' is missing");
  *s = (md_shape){.rank = (int)d->n};
  for (int i = 0; i < s->rank; i++) s->dim[i] = d->d[i];
  return md_shape_check(s, &why) || md_reject(f, "attribute 'shape' is no valid shape: %s", why);
}

static inline md_shape shape_drop(const md_shape *s, const bool drop[MD_MAX_RANK]) {
  md_shape r = {0};
  for (int i = 0; i < s->rank; i++)
    if (!drop[i]) r.dim[r.rank++] = s->dim[i];
  if (r.rank == 0) r = (md_shape){.rank = 1, .dim = {1}};
  return r;
}

static inline bool axis_fits(md_infer *f, int64_t axis, const md_shape *x) {
  if (axis >= 0 && axis < x->rank) return true;
  return md_reject(f, "axis is %lld, but $0 has %d axes", (long long)axis, x->rank);
}

// Memory traffic when every operand is read once and every result written once.
static inline double bytes_of(const md_infer *f) {
  double bytes = 0;
  for (int i = 0; i < f->node->num_in; i++) {
    if (f->node->in[i] != MD_NONE) bytes += (double)md_type_bytes(md_type_in(f->g, f->node->in[i]));
  }
  for (int i = 0; i < f->num_out; i++) bytes += (double)md_type_bytes(&f->out[i]);
  return bytes;
}

static inline md_val unary(md_builder *b, md_op op, md_val x) {
  return md_add_node(b, op, &x, 1, NULL);
}

static inline md_val binary(md_builder *b, md_op op, md_val x, md_val y) {
  md_val in[] = {x, y};
  return md_add_node(b, op, in, 2, NULL);
}

// x * s. A zero factor means "no gradient"; affine would take it for its default.
static inline md_val scaled(md_builder *b, md_val x, double s) {
  if (s == 0.0) return MD_NONE;
  return s == 1.0 ? x : md_affine(b, x, s, 0.0);
}

// A constant of x's element type.
static inline md_val constant_like(md_builder *b, md_val x, md_shape shape, double value) {
  md_type t = {.dtype = md_dtype_of(b, x), .shape = shape};
  return md_constant(b, t, value);
}

// Elements before, at and after `axis`, the three loops of most data movement.
typedef struct split {
  int64_t outer, size, inner;
} split;
static inline split split_at(const md_shape *s, int axis) {
  split r = {1, s->dim[axis], 1};
  for (int i = 0; i < axis; i++) r.outer *= s->dim[i];
  for (int i = axis + 1; i < s->rank; i++) r.inner *= s->dim[i];
  return r;
}

// The whole tensor's element count over axes first..rank-1.
static inline int64_t elements_from(const md_shape *s, int first) {
  int64_t n = 1;
  for (int i = first; i < s->rank; i++) n *= s->dim[i];
  return n;
}

// y[j] = x[i], whatever the element type.
static inline void copy_element(md_tensor *y, int64_t j, const md_tensor *x, int64_t i) {
  if (x->f) y->f[j] = x->f[i];
  else y->i[j] = x->i[i];
}

static inline int64_t wrapped(int64_t i, int64_t n) {
  int64_t r = i % n;
  return r < 0 ? r + n : r;
}

#endif
