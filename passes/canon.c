// SPDX-License-Identifier: Apache-2.0
// canon: one form for what can be written in several ways, the shortest. Each rule removes a node
// from a chain or moves a view towards the leaves, so the set ends.
//
//   x + 0 = x - 0 = x * 1 = x / 1 = x       f(f(x)) = f(x) for idempotent f, -(-x) = x
//   x * c, x + c = affine(x)                affine(affine(x)) = affine(x)
//   cast to the same type = x               cast(cast(x)) = cast(x) where the inner one is exact and
//                                           the outer one saturates neither or both
//   reshape(reshape(x)), transpose(transpose(x)), slice(slice(x)), broadcast(broadcast(x)): one view
//   views that change nothing = x           slice(concat(x, y)) = slice of the one it lies in
//   view(cast(x)) = cast(view(x)) where the cast widens: less to move, and the view is of a leaf
//   sums over axes of size 1 = reshape      concat(x) = x, pad by 0 = x
//   a convolution of equal channels = that of one channel with the sum of the weights, and its
//   weight gradient is the same for all of them
//
// Not bitwise: -0 + 0 is 0, two affine steps round twice, a factor or summand of bf16 is not
// rounded when it becomes an attribute, and weights add up before they meet a channel.
#include "passes/passes.h"

static const md_node *def(md_rewriter *r, md_val v) { return md_def(r->b.g, md_mapped(r, v)); }

static md_shape shape_of(md_rewriter *r, md_val v) { return md_type_in(r->old, v)->shape; }

static bool same_shape(md_rewriter *r, md_val a, md_val b) {
  return md_shape_equal(&md_type_in(r->old, a)->shape, &md_type_in(r->old, b)->shape);
}

// v is a splat, perhaps broadcast.
static bool is_splat(md_rewriter *r, md_val v, double *value) {
  const md_node *n = def(r, v);
  while (md_ops[n->op].role == MD_VIEW) n = md_def(r->b.g, n->in[0]);
  if (n->op != MD_OP_constant) return false;
  *value = n->attr.value.value;
  return true;
}

// x*scale + shift; a scale of 0 cannot be said in attributes.
static md_val as_affine(md_rewriter *r, const md_node *n, md_val x, double scale, double shift) {
  md_dtype d = md_type_in(r->old, n->out)->dtype;
  bool finite = scale - scale == 0 && shift - shift == 0;
  if (!md_dtype_is_float(d) || scale == 0 || !finite) return md_copy_node(r, n);
  return md_affine(&r->b, md_mapped(r, x), scale, shift);
}

static md_val canon_add(md_rewriter *r, const md_node *n) {
  double c;
  for (int i = 0; i < 2; i++) {
    if (!is_splat(r, n->in[i], &c)) continue;
    if (c == 0) return md_mapped(r, n->in[1 - i]);
    return as_affine(r, n, n->in[1 - i], 1, c);
  }
  return md_copy_node(r, n);
}

static md_val canon_sub(md_rewriter *r, const md_node *n) {
  double c;
  if (is_splat(r, n->in[1], &c))
    return c == 0 ? md_mapped(r, n->in[0]) : as_affine(r, n, n->in[0], 1, -c);
  if (is_splat(r, n->in[0], &c)) return as_affine(r, n, n->in[1], -1, c);
  return md_copy_node(r, n);
}

static md_val canon_mul(md_rewriter *r, const md_node *n) {
  double c;
  for (int i = 0; i < 2; i++) {
    if (!is_splat(r, n->in[i], &c)) continue;
    if (c == 1) return md_mapped(r, n->in[1 - i]);
    return as_affine(r, n, n->in[1 - i], c, 0);
  }
  return md_copy_node(r, n);
}

static md_val canon_div(md_rewriter *r, const md_node *n) {
  double c;
  if (is_splat(r, n->in[1], &c) && c == 1) return md_mapped(r, n->in[0]);
  return md_copy_node(r, n);
}

static md_val canon_affine(md_rewriter *r, const md_node *n) {
  const md_affine_attr *a = &n->attr.affine;
  if (a->scale == 1 && a->shift == 0) return md_mapped(r, n->in[0]);
  const md_node *inner = def(r, n->in[0]);
  if (inner->op != MD_OP_affine) return md_copy_node(r, n);
  double scale = inner->attr.affine.scale * a->scale;
  double shift = inner->attr.affine.shift * a->scale + a->shift;
  if (scale == 0 || scale - scale != 0 || shift - shift != 0)
    return md_keep(r, "the product of the scales is out of range");
  return md_affine(&r->b, inner->in[0], scale, shift);
}

static md_val canon_neg(md_rewriter *r, const md_node *n) {
  const md_node *inner = def(r, n->in[0]);
  return inner->op == MD_OP_neg ? inner->in[0] : md_copy_node(r, n);
}

static md_val canon_any(md_rewriter *r, const md_node *n) {
  if (!(md_ops[n->op].flags & MD_IDEMPOTENT)) return md_copy_node(r, n);
  const md_node *inner = def(r, n->in[0]);
  if (inner->op != n->op) return md_copy_node(r, n);
  for (int i = 0; i < MD_ATTR_WORDS; i++)
    if (inner->attr.word[i] != n->attr.word[i]) return md_copy_node(r, n);
  return md_mapped(r, n->in[0]);
}

// Every value of `from` is a value of `to`.
static bool holds(md_dtype to, md_dtype from) {
  static const int bits[MD_NUM_DTYPES] = {
      // of an integer that is held exactly
      [MD_F32] = 24, [MD_BF16] = 8, [MD_F64] = 53, [MD_I32] = 31,
      [MD_I64] = 63, [MD_U8] = 8,   [MD_BOOL] = 1};
  if (to == from) return true;
  if (md_dtype_is_float(from))
    return md_dtype_is_float(to) && md_dtype_size(to) > md_dtype_size(from);
  bool sign = from == MD_I32 || from == MD_I64;
  return bits[to] >= bits[from] && !(sign && (to == MD_U8 || to == MD_BOOL));
}

static md_val canon_cast(md_rewriter *r, const md_node *n) {
  md_dtype to = md_type_in(r->old, n->out)->dtype;
  if (md_type_in(r->old, n->in[0])->dtype == to) return md_mapped(r, n->in[0]);
  const md_node *inner = def(r, n->in[0]);
  if (inner->op != MD_OP_cast) return md_copy_node(r, n);
  md_dtype from = md_type_in(r->b.g, inner->in[0])->dtype;
  md_dtype between = md_type_in(r->old, n->in[0])->dtype;
  if (!holds(between, from)) return md_keep(r, "the inner cast rounds");
  // Floats that do not fit into an integer saturate, integers wrap; a bool asks for 0 either way.
  bool saturates = md_dtype_is_float(between) && !md_dtype_is_float(from) &&
                   !md_dtype_is_float(to) && to != MD_BOOL;
  if (saturates && !holds(to, from))
    return md_keep(r, "without the inner cast the outer one wraps");
  return from == to ? inner->in[0] : md_cast(&r->b, inner->in[0], to);
}

// view(cast(x)) = cast(view(x))
static md_val below_cast(md_rewriter *r, const md_node *n) {
  const md_node *cast = def(r, n->in[0]);
  if (cast->op != MD_OP_cast) return md_copy_node(r, n);
  md_dtype from = md_type_in(r->b.g, cast->in[0])->dtype, to = md_type_in(r->old, n->out)->dtype;
  if (md_dtype_size(from) >= md_dtype_size(to)) return md_copy_node(r, n);
  md_val in[] = {cast->in[0]};
  return md_cast(&r->b, md_add_node(&r->b, n->op, in, 1, &n->attr), to);
}

static md_val canon_reshape(md_rewriter *r, const md_node *n) {
  if (same_shape(r, n->in[0], n->out)) return md_mapped(r, n->in[0]);
  const md_node *inner = def(r, n->in[0]);
  if (inner->op != MD_OP_reshape) return below_cast(r, n);
  md_shape to = shape_of(r, n->out);
  if (md_shape_equal(&md_type_in(r->b.g, inner->in[0])->shape, &to)) return inner->in[0];
  return md_reshape(&r->b, inner->in[0], to);
}

static md_val canon_transpose(md_rewriter *r, const md_node *n) {
  const md_dims *axes = &n->attr.axes.axes;
  bool changes = false;
  for (int i = 0; i < axes->n; i++) changes |= axes->d[i] != i;
  if (!changes) return md_mapped(r, n->in[0]);
  const md_node *inner = def(r, n->in[0]);
  if (inner->op != MD_OP_transpose) return below_cast(r, n);
  md_dims both = {.n = axes->n};
  changes = false;
  for (int i = 0; i < axes->n; i++) {
    both.d[i] = inner->attr.axes.axes.d[axes->d[i]];
    changes |= both.d[i] != i;
  }
  return changes ? md_transpose(&r->b, inner->in[0], both) : inner->in[0];
}

static md_val canon_broadcast(md_rewriter *r, const md_node *n) {
  if (same_shape(r, n->in[0], n->out)) return md_mapped(r, n->in[0]);
  const md_node *inner = def(r, n->in[0]);
  if (inner->op != MD_OP_broadcast) return md_copy_node(r, n);
  md_dims axes = inner->attr.shape.axes;
  for (int i = 0; i < axes.n; i++) axes.d[i] = n->attr.shape.axes.d[axes.d[i]];
  return md_broadcast(&r->b, inner->in[0], shape_of(r, n->out), axes);
}

// The operand of a concat in which the whole slice lies.
static md_val slice_of_concat(md_rewriter *r, const md_node *n, const md_node *concat) {
  const md_slice_attr *a = &n->attr.slice;
  int64_t start = a->start;
  for (int i = 0; i < concat->num_in; i++) {
    const md_shape *x = &md_type_in(r->b.g, concat->in[i])->shape;
    int64_t size = x->dim[a->axis];
    if (start < size) {
      if (start + a->size > size) return md_keep(r, "lies in two operands of the concat");
      if (a->size == size) return concat->in[i];
      return md_slice(&r->b, concat->in[i], (int)a->axis, start, a->size);
    }
    start -= size;
  }
  return md_copy_node(r, n);
}

static md_val canon_slice(md_rewriter *r, const md_node *n) {
  if (same_shape(r, n->in[0], n->out)) return md_mapped(r, n->in[0]);
  const md_slice_attr *a = &n->attr.slice;
  const md_node *inner = def(r, n->in[0]);
  if (inner->op == MD_OP_concat && inner->attr.i.value == a->axis)
    return slice_of_concat(r, n, inner);
  if (inner->op != MD_OP_slice || inner->attr.slice.axis != a->axis) return below_cast(r, n);
  return md_slice(&r->b, inner->in[0], (int)a->axis, inner->attr.slice.start + a->start, a->size);
}

static md_val canon_flip(md_rewriter *r, const md_node *n) {
  int64_t axis = n->attr.i.value;
  md_shape s = shape_of(r, n->in[0]);
  if (s.dim[axis] == 1) return md_mapped(r, n->in[0]);
  const md_node *inner = def(r, n->in[0]);
  if (inner->op == MD_OP_flip && inner->attr.i.value == axis) return inner->in[0];
  return below_cast(r, n);
}

static md_val canon_reduce(md_rewriter *r, const md_node *n) {
  md_shape x = shape_of(r, n->in[0]), y = shape_of(r, n->out);
  if (md_elements(&x) != md_elements(&y)) return md_copy_node(r, n);
  return md_shape_equal(&x, &y) ? md_mapped(r, n->in[0])
                                : md_reshape(&r->b, md_mapped(r, n->in[0]), y);
}

static md_val canon_concat(md_rewriter *r, const md_node *n) {
  return n->num_in == 1 ? md_mapped(r, n->in[0]) : md_copy_node(r, n);
}

static md_val canon_pad(md_rewriter *r, const md_node *n) {
  return same_shape(r, n->in[0], n->out) ? md_mapped(r, n->in[0]) : md_copy_node(r, n);
}

// The one channel of which v is copies, or MD_NONE.
static md_val one_channel(md_rewriter *r, md_val v) {
  const md_node *n = def(r, v);
  if (n->op != MD_OP_broadcast) return MD_NONE;
  const md_shape *x = &md_type_in(r->b.g, n->in[0])->shape;
  md_shape y = shape_of(r, v);
  if (x->rank != y.rank || x->dim[1] != 1 || y.dim[1] == 1) return MD_NONE;
  for (int i = 0; i < x->rank; i++)
    if (i != 1 && x->dim[i] != y.dim[i]) return MD_NONE;
  return n->in[0];
}

static md_val canon_conv(md_rewriter *r, const md_node *n) {
  md_val x = one_channel(r, n->in[0]);
  if (x == MD_NONE) return md_copy_node(r, n);
  md_shape w = shape_of(r, n->in[1]);
  w.dim[1] = 1;
  md_val sum = md_sum(&r->b, md_mapped(r, n->in[1]), (md_dims){.n = 1, .d = {1}});
  md_val bias = n->num_in == 3 ? md_mapped(r, n->in[2]) : MD_NONE;
  return md_conv3d(&r->b, x, md_reshape(&r->b, sum, w), bias, &n->attr.conv3d);
}

static md_val canon_wgrad(md_rewriter *r, const md_node *n) {
  md_val x = one_channel(r, n->in[1]);
  if (x == MD_NONE) return md_copy_node(r, n);
  const md_conv3d_grad_attr *a = &n->attr.conv3d_grad;
  md_shape all = shape_of(r, n->out), one = all;
  one.dim[1] = 1;
  md_conv3d_attr conv = {.stride = a->stride, .pad = a->pad, .dilation = a->dilation};
  md_val dw = md_conv3d_wgrad(&r->b, md_mapped(r, n->in[0]), x, one, &conv);
  return md_broadcast(&r->b, dw, all, (md_dims){.n = 5, .d = {0, 1, 2, 3, 4}});
}

static bool run(md_rewriter *r) {
  static const md_rule rule[MD_NUM_OPS] = {
      [MD_OP_add] = canon_add,
      [MD_OP_sub] = canon_sub,
      [MD_OP_mul] = canon_mul,
      [MD_OP_div] = canon_div,
      [MD_OP_affine] = canon_affine,
      [MD_OP_neg] = canon_neg,
      [MD_OP_cast] = canon_cast,
      [MD_OP_reshape] = canon_reshape,
      [MD_OP_transpose] = canon_transpose,
      [MD_OP_broadcast] = canon_broadcast,
      [MD_OP_slice] = canon_slice,
      [MD_OP_flip] = canon_flip,
      [MD_OP_sum] = canon_reduce,
      [MD_OP_max] = canon_reduce,
      [MD_OP_concat] = canon_concat,
      [MD_OP_pad] = canon_pad,
      [MD_OP_conv3d] = canon_conv,
      [MD_OP_conv3d_wgrad] = canon_wgrad,
  };
  return md_run_rules(r, rule, canon_any);
}

const md_pass md_pass_canon = {
    .name = "canon",
    .doc = "brings nodes into one form",
    .needs = MD_NEEDS_NO_REGIONS,
    .run = run,
};
