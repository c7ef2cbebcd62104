// SPDX-License-Identifier: Apache-2.0
// Views: each element of the result is one element of the operand, at strides known statically.
#include "graph/op_functions.h"

// Index tuple of the row-major element i.
static void unravel(const md_shape *s, int64_t i, int64_t idx[MD_MAX_RANK]) {
  for (int a = s->rank - 1; a >= 0; a--) {
    idx[a] = i % s->dim[a];
    i /= s->dim[a];
  }
}

static int64_t ravel(const md_shape *s, const int64_t idx[MD_MAX_RANK]) {
  int64_t i = 0;
  for (int a = 0; a < s->rank; a++) i = i * s->dim[a] + idx[a];
  return i;
}

// Axes increase: a permutation is transpose's business.
bool broadcast_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  const md_shape_attr *a = &f->node->attr.shape;
  md_shape y;
  if (!shape_from(f, &a->shape, &y)) return false;
  if (a->axes.n != x->rank)
    return md_reject(f, "axes lists %lld axes, but $0 has %d", (long long)a->axes.n, x->rank);
  for (int i = 0; i < x->rank; i++) {
    int64_t to = a->axes.d[i];
    if (to < 0 || to >= y.rank || (i > 0 && to <= a->axes.d[i - 1]))
      return md_reject(f, "axes must increase and stay below %d", y.rank);
    if (x->dim[i] != 1 && x->dim[i] != y.dim[to])
      return md_reject(f, "axis %d of $0 is %lld, but axis %lld of the result is %lld", i,
                       (long long)x->dim[i], (long long)to, (long long)y.dim[to]);
  }
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

// What was repeated is summed; axes of size 1 return by reshape.
void broadcast_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  const md_shape_attr *a = &y->attr.shape;
  md_shape x = md_shape_of(b, y->in[0]), to = md_shape_of(b, y->out);
  bool plain[MD_MAX_RANK] = {false};
  for (int i = 0; i < x.rank; i++) plain[a->axes.d[i]] = x.dim[i] == to.dim[a->axes.d[i]];
  md_dims repeated = {0};
  for (int i = 0; i < to.rank; i++)
    if (!plain[i]) repeated.d[repeated.n++] = i;
  // An empty list would mean all axes.
  d[0] = md_reshape(b, repeated.n > 0 ? md_sum(b, dy[0], repeated) : dy[0], x);
}

void broadcast_eval(md_eval *e) {
  const md_tensor *x = e->in[0];
  md_tensor *y = e->out[0];
  const md_dims *axes = &e->node->attr.shape.axes;
  int64_t n = md_elements(&y->type.shape), at[MD_MAX_RANK], from[MD_MAX_RANK];
  for (int64_t i = 0; i < n; i++) {
    unravel(&y->type.shape, i, at);
    for (int a = 0; a < x->type.shape.rank; a++)
      from[a] = x->type.shape.dim[a] == 1 ? 0 : at[axes->d[a]];
    copy_element(y, i, x, ravel(&x->type.shape, from));
  }
}

bool reshape_shape(md_infer *f) {
  md_shape y;
  if (!shape_from(f, &f->node->attr.shape.shape, &y)) return false;
  int64_t have = md_elements(md_in(f, 0)), want = md_elements(&y);
  if (have != want)
    return md_reject(f, "$0 has %lld elements, but attribute 'shape' %lld", (long long)have,
                     (long long)want);
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void reshape_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_reshape(b, dy[0], md_shape_of(b, y->in[0]));
}

void reshape_eval(md_eval *e) {
  int64_t n = md_elements(&e->out[0]->type.shape);
  for (int64_t i = 0; i < n; i++) copy_element(e->out[0], i, e->in[0], i);
}

bool transpose_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  const md_dims *perm = &f->node->attr.axes.axes;
  bool seen[MD_MAX_RANK] = {false};
  md_shape y = {.rank = x->rank};
  if (perm->n != x->rank)
    return md_reject(f, "axes lists %lld axes, but $0 has %d", (long long)perm->n, x->rank);
  for (int i = 0; i < x->rank; i++) {
    int64_t from = perm->d[i];
    if (from < 0 || from >= x->rank || seen[from])
      return md_reject(f, "axes must name each of 0..%d once", x->rank - 1);
    seen[from] = true;
    y.dim[i] = x->dim[from];
  }
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void transpose_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  const md_dims *perm = &y->attr.axes.axes;
  md_dims inverse = {.n = perm->n};
  for (int i = 0; i < perm->n; i++) inverse.d[perm->d[i]] = i;
  d[0] = md_transpose(b, dy[0], inverse);
}

void transpose_eval(md_eval *e) {
  const md_tensor *x = e->in[0];
  md_tensor *y = e->out[0];
  const md_dims *perm = &e->node->attr.axes.axes;
  int64_t n = md_elements(&y->type.shape), at[MD_MAX_RANK], from[MD_MAX_RANK];
  for (int64_t i = 0; i < n; i++) {
    unravel(&y->type.shape, i, at);
    for (int a = 0; a < y->type.shape.rank; a++) from[perm->d[a]] = at[a];
    copy_element(y, i, x, ravel(&x->type.shape, from));
  }
}

bool slice_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  const md_slice_attr *a = &f->node->attr.slice;
  if (!axis_fits(f, a->axis, x)) return false;
  int64_t size = x->dim[a->axis];
  if (a->start > size || a->size > size - a->start)
    return md_reject(f, "elements %lld .. %lld are outside of $0, whose axis %lld has %lld",
                     (long long)a->start, (long long)(a->start + (a->size - 1)), (long long)a->axis,
                     (long long)size);
  md_shape y = *x;
  y.dim[a->axis] = a->size;
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void slice_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  const md_slice_attr *a = &y->attr.slice;
  int64_t size = md_shape_of(b, y->in[0]).dim[a->axis];
  md_attr pad = {.word = {a->axis, a->start, size - a->start - a->size}};
  d[0] = md_add_node(b, MD_OP_pad, dy, 1, &pad);
}

void slice_eval(md_eval *e) {
  const md_slice_attr *a = &e->node->attr.slice;
  split from = split_at(&e->in[0]->type.shape, (int)a->axis);
  for (int64_t o = 0; o < from.outer; o++)
    for (int64_t i = 0; i < a->size * from.inner; i++)
      copy_element(e->out[0], o * a->size * from.inner + i, e->in[0],
                   (o * from.size + a->start) * from.inner + i);
}

bool flip_shape(md_infer *f) {
  return axis_fits(f, f->node->attr.i.value, md_in(f, 0)) &&
         set_result(f, 0, md_in_dtype(f, 0), md_in(f, 0));
}

void flip_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_add_node(b, MD_OP_flip, dy, 1, &y->attr);
}

void flip_eval(md_eval *e) {
  split s = split_at(&e->in[0]->type.shape, (int)e->node->attr.i.value);
  for (int64_t o = 0; o < s.outer; o++)
    for (int64_t k = 0; k < s.size; k++)
      for (int64_t i = 0; i < s.inner; i++)
        copy_element(e->out[0], (o * s.size + k) * s.inner + i, e->in[0],
                     (o * s.size + s.size - 1 - k) * s.inner + i);
}
