// SPDX-License-Identifier: Apache-2.0
// Pooling over t, h, w.
#include "graph/op_functions.h"

#include <math.h>

// Sizes of the pooled tensor. Padding is below the window, so that each window meets an element.
static bool pooled_sizes(md_infer *f, const md_shape *x, int64_t y[3]) {
  const md_pool3d_attr *a = &f->node->attr.pool3d;
  for (int i = 0; i < 3; i++) {
    int64_t kernel = a->kernel.d[i], pad = a->pad.d[i], stride = a->stride.d[i];
    if (pad >= kernel)
      return md_reject(f, "on axis %c the padding %lld is not below the window %lld", "thw"[i],
                       (long long)pad, (long long)kernel);
    int64_t room = x->dim[2 + i] + 2 * pad - kernel;
    if (room < 0)
      return md_reject(f, "on axis %c a window of %lld does not fit into %lld padded elements",
                       "thw"[i], (long long)kernel, (long long)(x->dim[2 + i] + 2 * pad));
    y[i] = room / stride + 1;
  }
  return true;
}

static bool pooled_shape(md_infer *f, md_shape *y) {
  const md_shape *x = md_in(f, 0);
  *y = (md_shape){.rank = 5, .dim = {x->dim[0], x->dim[1]}};
  return pooled_sizes(f, x, &y->dim[2]);
}

// Per axis: where a window begins, perhaps in the padding, and the part lo..hi-1 of it that lies inside of x.
typedef struct window {
  int64_t first[3], lo[3], hi[3];
} window;

static window window_at(const md_pool3d_attr *a, const md_shape *x, const int64_t at[3]) {
  window r;
  for (int i = 0; i < 3; i++) {
    r.first[i] = at[i] * a->stride.d[i] - a->pad.d[i];
    r.lo[i] = MD_MAX(r.first[i], 0);
    r.hi[i] = MD_MIN(r.first[i] + a->kernel.d[i], x->dim[2 + i]);
  }
  return r;
}

// Position t,h,w of element i of a plane.
static void place(const md_shape *y, int64_t i, int64_t at[3]) {
  at[2] = i % y->dim[4];
  at[1] = i / y->dim[4] % y->dim[3];
  at[0] = i / y->dim[4] / y->dim[3];
}

static md_val pool_grad(md_builder *b, md_op op, const md_node *y, const md_val *in, int num_in) {
  md_shape x = md_shape_of(b, y->in[0]);
  md_attr a = {.pool3d_grad = {.kernel = y->attr.pool3d.kernel,
                               .stride = y->attr.pool3d.stride,
                               .pad = y->attr.pool3d.pad,
                               .shape = {.n = x.rank}}};
  for (int i = 0; i < x.rank; i++) a.pool3d_grad.shape.d[i] = x.dim[i];
  return md_add_node(b, op, in, num_in, &a);
}

// Of what counts the places of a window: u8 where there are at most 256.
static bool index_dtype(md_infer *f, md_dtype *d) {
  const int64_t *k = f->node->attr.pool3d.kernel.d;
  int64_t places;
  if (!md_mul_size(k[0], k[1], &places) || !md_mul_size(places, k[2], &places) ||
      places >= MD_MAX_DIM)
    return md_reject(f, "a window must have fewer than 2^31 places for its i32 index");
  *d = places <= 256 ? MD_U8 : MD_I32;
  return true;
}

int64_t md_pool_place(const md_pool3d_attr *a, const md_shape *x, const md_shape *y, int64_t i,
                      int64_t index) {
  int64_t at[3], p[3], rest = index;
  place(y, i % elements_from(y, 2), at);
  window v = window_at(a, x, at);
  for (int k = 2; k >= 0; k--) {
    p[k] = v.first[k] + rest % a->kernel.d[k];
    rest /= a->kernel.d[k];
    if (p[k] < v.lo[k] || p[k] >= v.hi[k]) return -1;
  }
  return index < 0 || rest > 0 ? -1 : (p[0] * x->dim[3] + p[1]) * x->dim[4] + p[2];
}

bool max_pool3d_shape(md_infer *f) {
  md_shape y;
  md_dtype index;
  return pooled_shape(f, &y) && index_dtype(f, &index) && set_result(f, 0, md_in_dtype(f, 0), &y) &&
         set_result(f, 1, index, &y);
}

void max_pool3d_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  if (dy[0] == MD_NONE) return;
  d[0] = pool_grad(b, MD_OP_max_pool3d_grad, y, (md_val[]){dy[0], y->out + 1}, 2);
}

void max_pool3d_eval(md_eval *e) {
  const md_shape *xs = &e->in[0]->type.shape, *ys = &e->out[0]->type.shape;
  int64_t planes = xs->dim[0] * xs->dim[1], x_plane = elements_from(xs, 2);
  int64_t y_plane = elements_from(ys, 2), at[3];
  const int64_t *kernel = e->node->attr.pool3d.kernel.d;
  for (int64_t p = 0; p < planes; p++) {
    const double *x = &e->in[0]->f[p * x_plane];
    for (int64_t i = 0; i < y_plane; i++) {
      place(ys, i, at);
      window v = window_at(&e->node->attr.pool3d, xs, at);
      double best = 0;
      int64_t winner =
          -1;  // the first element is taken whatever it is: a window of -inf has a place
      for (int64_t t = v.lo[0]; t < v.hi[0]; t++) {
        for (int64_t h = v.lo[1]; h < v.hi[1]; h++) {
          for (int64_t w = v.lo[2]; w < v.hi[2]; w++) {
            int64_t j = (t * xs->dim[3] + h) * xs->dim[4] + w;
            if (winner >= 0 && !(x[j] > best || (isnan(x[j]) && !isnan(best)))) continue;
            best = x[j];
            winner = ((t - v.first[0]) * kernel[1] + h - v.first[1]) * kernel[2] + w - v.first[2];
          }
        }
      }
      e->out[0]->f[p * y_plane + i] = best;
      e->out[1]->i[p * y_plane + i] = winner;
    }
  }
}

bool pool3d_grad_shape(md_infer *f) {
  const md_shape *dy = md_in(f, 0);
  md_shape x;
  int64_t want[3];
  if (!shape_from(f, &f->node->attr.pool3d_grad.shape, &x)) return false;
  if (x.rank != 5 || x.dim[0] != dy->dim[0] || x.dim[1] != dy->dim[1])
    return md_reject(f, "attribute 'shape' must be [%lld,%lld,t,h,w]", (long long)dy->dim[0],
                     (long long)dy->dim[1]);
  if (!pooled_sizes(f, &x, want)) return false;
  for (int i = 0; i < 3; i++) {
    if (dy->dim[2 + i] != want[i])
      return md_reject(f, "axis %c of $0 is %lld, but the pooling makes %lld there", "thw"[i],
                       (long long)dy -> dim[2 + i], (long long)want[i]);
  }
  return set_result(f, 0, md_in_dtype(f, 0), &x);
}

bool max_pool3d_grad_shape(md_infer *f) {
  md_dtype index;
  if (!pool3d_grad_shape(f) || !index_dtype(f, &index)) return false;
  return md_in_dtype(f, 1) == index ||
         md_reject(f, "$1 must be %s, which counts the places of the window", md_dtype_name(index));
}

// An index of no place of x, which only a wrong caller makes, is dropped: each element of dx has a few
// windows to look into.
void max_pool3d_grad_eval(md_eval *e) {
  const md_shape *dys = &e->in[0]->type.shape, *dxs = &e->out[0]->type.shape;
  int64_t dy_plane = elements_from(dys, 2), dx_plane = elements_from(dxs, 2), n = md_elements(dys);
  for (int64_t i = 0; i < n; i++) {
    int64_t at = md_pool_place(&e->node->attr.pool3d, dxs, dys, i, e->in[1]->i[i]);
    if (at >= 0) e->out[0]->f[i / dy_plane * dx_plane + at] += e->in[0]->f[i];
  }
}

bool avg_pool3d_shape(md_infer *f) {
  md_shape y;
  return pooled_shape(f, &y) && set_result(f, 0, md_in_dtype(f, 0), &y);
}

void avg_pool3d_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = pool_grad(b, MD_OP_avg_pool3d_grad, y, dy, 1);
}

void pool3d_cost(const md_infer *f, md_cost *c) {
  const int64_t *k = f->node->attr.pool3d.kernel.d;
  double pooled = (double)MD_MIN(md_elements(md_in(f, 0)), md_elements(&f->out[0].shape));
  c->flops = pooled * (double)k[0] * (double)k[1] * (double)k[2];
  c->bytes = bytes_of(f);
}

// x and y (or dx and dy) of one window, in either direction.
static void each_mean(const md_eval *e, const md_shape *xs, const md_shape *ys, double *x,
                      double *y, bool backward) {
  const md_pool3d_attr *a = &e->node->attr.pool3d;
  double count = (double)(a->kernel.d[0] * a->kernel.d[1] * a->kernel.d[2]);
  int64_t planes = xs->dim[0] * xs->dim[1], x_plane = elements_from(xs, 2);
  int64_t y_plane = elements_from(ys, 2), at[3];
  for (int64_t p = 0; p < planes; p++) {
    for (int64_t i = 0; i < y_plane; i++) {
      place(ys, i, at);
      window v = window_at(a, xs, at);
      double *yi = &y[p * y_plane + i], sum = 0;
      for (int64_t t = v.lo[0]; t < v.hi[0]; t++) {
        for (int64_t h = v.lo[1]; h < v.hi[1]; h++) {
          for (int64_t w = v.lo[2]; w < v.hi[2]; w++) {
            double *xj = &x[p * x_plane + (t * xs->dim[3] + h) * xs->dim[4] + w];
            if (backward) *xj += *yi / count;
            else sum += *xj;
          }
        }
      }
      if (!backward) *yi = sum / count;
    }
  }
}

void avg_pool3d_eval(md_eval *e) {
  each_mean(e, &e->in[0]->type.shape, &e->out[0]->type.shape, e->in[0]->f, e->out[0]->f, false);
}

void avg_pool3d_grad_eval(md_eval *e) {
  each_mean(e, &e->out[0]->type.shape, &e->in[0]->type.shape, e->out[0]->f, e->in[0]->f, true);
}
