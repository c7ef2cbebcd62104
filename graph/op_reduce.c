// SPDX-License-Identifier: Apache-2.0
// Reductions, accumulated in double. A group is N/groups samples in order: sample n belongs to group
// n*groups/N.
#include "graph/op_functions.h"

#include <math.h>

// Which axes go. An empty list means all of them.
static void summed_axes(const md_dims *axes, int rank, bool gone[MD_MAX_RANK]) {
  for (int i = 0; i < MD_MAX_RANK; i++) gone[i] = axes->n == 0 && i < rank;
  for (int i = 0; i < axes->n; i++) gone[axes->d[i]] = true;
}

bool sum_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  const md_dims *axes = &f->node->attr.axes.axes;
  bool gone[MD_MAX_RANK];
  for (int i = 0; i < axes->n; i++) {
    if (!axis_fits(f, axes->d[i], x)) return false;
    if (i > 0 && axes->d[i] <= axes->d[i - 1]) return md_reject(f, "axes must increase");
  }
  summed_axes(axes, x->rank, gone);
  md_shape y = shape_drop(x, gone);
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void sum_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_shape x = md_shape_of(b, y->in[0]);
  bool gone[MD_MAX_RANK];
  summed_axes(&y->attr.axes.axes, x.rank, gone);
  md_dims kept = {0};
  for (int i = 0; i < x.rank; i++)
    if (!gone[i]) kept.d[kept.n++] = i;
  if (kept.n == 0) kept = (md_dims){1, {0}};  // the result [1] repeats along any axis
  d[0] = md_broadcast(b, dy[0], x, kept);
}

// Place in the reduced tensor of element i of x.
static int64_t reduced_index(const md_shape *x, const bool gone[MD_MAX_RANK], int64_t i) {
  int64_t at = 0, step = 1;
  for (int a = x->rank - 1; a >= 0; a--) {
    if (!gone[a]) {
      at += i % x->dim[a] * step;
      step *= x->dim[a];
    }
    i /= x->dim[a];
  }
  return at;
}

void sum_eval(md_eval *e) {
  const md_tensor *x = e->in[0];
  bool gone[MD_MAX_RANK];
  summed_axes(&e->node->attr.axes.axes, x->type.shape.rank, gone);
  int64_t n = md_elements(&x->type.shape);
  for (int64_t i = 0; i < n; i++) e->out[0]->f[reduced_index(&x->type.shape, gone, i)] += x->f[i];
}

// NaN wins: a maximum that hides it would hide a broken run.
void max_eval(md_eval *e) {
  const md_tensor *x = e->in[0];
  md_tensor *y = e->out[0];
  bool gone[MD_MAX_RANK];
  summed_axes(&e->node->attr.axes.axes, x->type.shape.rank, gone);
  int64_t n = md_elements(&x->type.shape), num_y = md_elements(&y->type.shape);
  for (int64_t i = 0; i < num_y; i++) y->f[i] = -INFINITY;
  for (int64_t i = 0; i < n; i++) {
    double *to = &y->f[reduced_index(&x->type.shape, gone, i)];
    if (x->f[i] > *to || isnan(x->f[i])) *to = x->f[i];
  }
}

bool moments_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  int64_t groups = f->node->attr.i.value;
  if (x->dim[0] % groups != 0)
    return md_reject(f, "axis n of $0 is %lld, which %lld groups do not divide",
                     (long long)x->dim[0], (long long)groups);
  md_shape y = {.rank = 2, .dim = {groups, x->dim[1]}};
  return set_result(f, 0, md_in_dtype(f, 0), &y) && set_result(f, 1, md_in_dtype(f, 0), &y);
}

// [g,c] to x's shape: [g, N/g, c, rest] and the same elements under [n, c, ...].
static md_val spread(md_builder *b, md_val v, const md_shape *x) {
  md_shape g = md_shape_of(b, v);
  if (g.rank != 2) return MD_NONE;
  md_shape wide = {.rank = 4,
                   .dim = {g.dim[0], x->dim[0] / g.dim[0], g.dim[1], elements_from(x, 2)}};
  return md_reshape(b, md_broadcast(b, v, wide, (md_dims){2, {0, 2}}), *x);
}

// With m elements in a group: dx = dmean/m + dvar * 2 (x - mean)/m
void moments_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_shape x = md_shape_of(b, y->in[0]);
  int64_t samples = x.dim[0] / y->attr.i.value;
  double m = (double)(samples * elements_from(&x, 2));
  if (dy[0] != MD_NONE) d[0] = spread(b, scaled(b, dy[0], 1 / m), &x);
  if (dy[1] == MD_NONE) return;
  md_val centred = md_sub(b, y->in[0], spread(b, y->out, &x));
  md_val from_var = md_mul(b, spread(b, scaled(b, dy[1], 2 / m), &x), centred);
  d[0] = dy[0] != MD_NONE ? md_add(b, d[0], from_var) : from_var;
}

// Two passes: the variance is a mean of squared distances, never a difference of large squares.
void moments_eval(md_eval *e) {
  const md_shape *s = &e->in[0]->type.shape;
  const double *x = e->in[0]->f;
  double *mean = e->out[0]->f, *var = e->out[1]->f;
  int64_t groups = e->node->attr.i.value, channels = s->dim[1], inner = elements_from(s, 2);
  int64_t in_group = s->dim[0] / groups;
  double count = (double)(in_group * inner);
  for (int64_t g = 0; g < groups; g++) {
    for (int64_t c = 0; c < channels; c++) {
      double sum = 0, squares = 0;
      for (int64_t n = g * in_group; n < (g + 1) * in_group; n++)
        for (int64_t i = 0; i < inner; i++) sum += x[(n * channels + c) * inner + i];
      double centre = sum / count;
      for (int64_t n = g * in_group; n < (g + 1) * in_group; n++) {
        for (int64_t i = 0; i < inner; i++) {
          double away = x[(n * channels + c) * inner + i] - centre;
          squares += away * away;
        }
      }
      mean[g * channels + c] = centre;
      var[g * channels + c] = squares / count;
    }
  }
}

void batch_norm_sums_eval(md_eval *e) {
  const md_shape *s = &e->in[0]->type.shape;
  const double *dy = e->in[0]->f, *x = e->in[1]->f, *mean = e->in[2]->f, *var = e->in[3]->f;
  double *mdy = e->out[0]->f, *mdyx = e->out[1]->f, eps = e->node->attr.f.value;
  int64_t groups = e->in[2]->type.shape.dim[0], channels = s->dim[1], inner = elements_from(s, 2);
  int64_t in_group = s->dim[0] / groups;
  for (int64_t g = 0; g < groups; g++) {
    for (int64_t c = 0; c < channels; c++) {
      int64_t at = g * channels + c;
      double rstd = 1 / sqrt(var[at] + eps), sum = 0, sum_x = 0;
      for (int64_t n = g * in_group; n < (g + 1) * in_group; n++) {
        for (int64_t i = 0; i < inner; i++) {
          int64_t j = (n * channels + c) * inner + i;
          sum += dy[j];
          sum_x += dy[j] * (x[j] - mean[at]) * rstd;
        }
      }
      mdy[at] = sum / (double)(in_group * inner);
      mdyx[at] = sum_x / (double)(in_group * inner);
    }
  }
}
