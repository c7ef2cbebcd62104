// SPDX-License-Identifier: Apache-2.0
// Pictures: what happens to a clip [n,c,t,h,w] or picture [n,c,h,w] before the network.
#include "graph/op_functions.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// The elements of x that one element of y mixes along an axis: first .. first+num-1.
typedef struct taps {
  int64_t first, num;
} taps;

// Half-pixel sampling (spec §14): src = (dst + .5) in/out - .5, clamped to the first and last
// element. With align_corners the first and last elements of both meet.
static taps linear_taps(int64_t at, int64_t in, int64_t out, bool align_corners, double *weight) {
  double src;
  if (align_corners) src = out > 1 ? (double)at * (double)(in - 1) / (double)(out - 1) : 0;
  else src = ((double)at + 0.5) * (double)in / (double)out - 0.5;
  src = fmin(fmax(src, 0), (double)(in - 1));
  int64_t first = MD_MIN((int64_t)src, in - 1);
  weight[1] = src - (double)first;
  weight[0] = 1 - weight[1];
  return (taps){first, first + 1 < in ? 2 : 1};  // at the end weight[1] is 0
}

// A triangle as wide as the scale when shrinking, cut at the border and normalised.
static taps triangle_taps(int64_t at, int64_t in, int64_t out, double *weight) {
  double scale = (double)in / (double)out, width = fmax(scale, 1);
  double centre = ((double)at + 0.5) * scale, total = 0;
  int64_t first = MD_MAX((int64_t)(centre - width + 0.5), 0);
  int64_t last = MD_MIN((int64_t)(centre + width + 0.5), in);
  for (int64_t j = first; j < last; j++) {
    double away = fabs((double)j - centre + 0.5) / width;
    weight[j - first] = away < 1 ? 1 - away : 0;
    total += weight[j - first];
  }
  for (int64_t j = 0; j < last - first; j++) weight[j] /= total;
  return (taps){first, last - first};
}

bool resize_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  const md_resize_attr *a = &f->node->attr.resize;
  md_shape y = *x;
  if (a->size.n < 1 || a->size.n > x->rank - 2)
    return md_reject(f, "size lists %lld axes, but $0 has %d behind n and c", (long long)a->size.n,
                     x->rank - 2);
  if (a->antialias && a->align_corners)
    return md_reject(f, "antialias is defined for align_corners=false only");
  for (int i = 0; i < a->size.n; i++) {
    if (a->size.d[i] < 1) return md_reject(f, "size must be at least 1 on each axis");
    y.dim[x->rank - a->size.n + i] = a->size.d[i];
  }
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

int md_resize_order(const md_shape *x, const md_resize_attr *a, int *axis) {
  int num = 0;
  for (int grows = 0; grows < 2; grows++) {
    for (int i = 0; i < a->size.n; i++) {
      int at = x->rank - (int)a->size.n + i;
      if ((a->size.d[i] > x->dim[at]) == grows) axis[num++] = at;
    }
  }
  return num;
}

// Linear filters of different axes commute, so one axis is resized after another.
static double *resize_axis(double *x, md_shape *s, int axis, int64_t size,
                           const md_resize_attr *a) {
  split in = split_at(s, axis);
  double *y = md_calloc((size_t)(in.outer * size * in.inner), sizeof *y);
  double *weight = md_calloc((size_t)in.size + 2, sizeof *weight);
  for (int64_t at = 0; at < size; at++) {
    taps t = a->antialias ? triangle_taps(at, in.size, size, weight)
                          : linear_taps(at, in.size, size, a->align_corners, weight);
    for (int64_t o = 0; o < in.outer; o++)
      for (int64_t k = 0; k < t.num; k++)
        for (int64_t i = 0; i < in.inner; i++)
          y[(o * size + at) * in.inner + i] +=
              weight[k] * x[(o * in.size + t.first + k) * in.inner + i];
  }
  s->dim[axis] = size;
  free(weight);
  free(x);
  return y;
}

void resize_eval(md_eval *e) {
  const md_resize_attr *a = &e->node->attr.resize;
  md_shape s = e->in[0]->type.shape;
  size_t bytes = (size_t)md_elements(&s) * sizeof(double);
  double *x = md_malloc(bytes);
  memcpy(x, e->in[0]->f, bytes);
  int order[MD_MAX_RANK], num = md_resize_order(&s, a, order);
  for (int i = 0; i < num; i++)
    x = resize_axis(x, &s, order[i], a->size.d[order[i] - s.rank + num], a);
  memcpy(e->out[0]->f, x, (size_t)md_elements(&s) * sizeof(double));
  free(x);
}

bool crop_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  const md_crop_attr *a = &f->node->attr.crop;
  if (x->rank < 2) return md_reject(f, "$0 has no axes h, w");
  int64_t h = x->dim[x->rank - 2], w = x->dim[x->rank - 1];
  if (a->top > h || a->h > h - a->top || a->left > w || a->w > w - a->left)
    return md_reject(f, "the window is not inside of $0, whose pictures are %lld x %lld",
                     (long long)h, (long long)w);
  md_shape y = *x;
  y.dim[x->rank - 2] = a->h;
  y.dim[x->rank - 1] = a->w;
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void crop_eval(md_eval *e) {
  const md_crop_attr *a = &e->node->attr.crop;
  const md_shape *x = &e->in[0]->type.shape;
  int64_t h = x->dim[x->rank - 2], w = x->dim[x->rank - 1], planes = md_elements(x) / h / w;
  for (int64_t p = 0; p < planes; p++)
    for (int64_t i = 0; i < a->h; i++)
      for (int64_t j = 0; j < a->w; j++)
        copy_element(e->out[0], (p * a->h + i) * a->w + j, e->in[0],
                     (p * h + a->top + i) * w + a->left + j);
}

bool rgb_shape(md_infer *f) {
  if (md_in(f, 0)->dim[1] == 3) return true;
  return md_reject(f, "$0 has %lld channels, but a colour picture has 3",
                   (long long)md_in(f, 0)->dim[1]);
}

void grayscale_eval(md_eval *e) {
  const md_shape *s = &e->in[0]->type.shape;
  const double *factor = e->node->attr.real;
  int64_t plane = elements_from(s, 2);
  for (int64_t n = 0; n < s->dim[0]; n++) {
    const double *x = &e->in[0]->f[n * 3 * plane];
    for (int64_t i = 0; i < plane; i++) {
      double luma = factor[0] * x[i] + factor[1] * x[plane + i] + factor[2] * x[2 * plane + i];
      for (int64_t c = 0; c < 3; c++) e->out[0]->f[(n * 3 + c) * plane + i] = luma;
    }
  }
}

bool gaussian_blur_shape(md_infer *f) {
  const md_shape *x = md_in(f, 0);
  int64_t size = f->node->attr.blur.size;
  if (x->rank < 3) return md_reject(f, "$0 has no axes n, h, w");
  if (md_in(f, 1)->dim[0] != x->dim[0])
    return md_reject(f, "$1 has %lld elements, but $0 has %lld samples",
                     (long long)md_in(f, 1)->dim[0], (long long)x->dim[0]);
  if (size % 2 == 0) return md_reject(f, "size is %lld, but must be odd", (long long)size);
  // Reflection at both borders needs size/2 elements besides the edge itself.
  if (size / 2 >= x->dim[x->rank - 2] || size / 2 >= x->dim[x->rank - 1])
    return md_reject(f, "size is %lld, too wide for pictures of %lld x %lld", (long long)size,
                     (long long)x->dim[x->rank - 2], (long long)x->dim[x->rank - 1]);
  return set_result(f, 0, md_in_dtype(f, 0), x);
}

static int64_t reflected(int64_t i, int64_t n) {
  if (i < 0) return -i;
  return i < n ? i : 2 * (n - 1) - i;
}

// One axis of the separable filter: y = sum_k weight[k] x[i + k - size/2].
static void blur_axis(const double *x, double *y, split s, const double *weight, int64_t size) {
  for (int64_t o = 0; o < s.outer; o++) {
    for (int64_t j = 0; j < s.size; j++) {
      for (int64_t i = 0; i < s.inner; i++) {
        double sum = 0;
        for (int64_t k = 0; k < size; k++)
          sum += weight[k] * x[(o * s.size + reflected(j + k - size / 2, s.size)) * s.inner + i];
        y[(o * s.size + j) * s.inner + i] = sum;
      }
    }
  }
}

void gaussian_blur_eval(md_eval *e) {
  md_shape sample = e->in[0]->type.shape;
  int64_t num = sample.dim[0], size = e->node->attr.blur.size;
  sample.dim[0] = 1;
  int64_t len = md_elements(&sample);
  double *half = md_calloc((size_t)len, sizeof *half),
         *weight = md_calloc((size_t)size, sizeof *weight);
  for (int64_t n = 0; n < num; n++) {
    const double *x = &e->in[0]->f[n * len];
    double sigma = e->in[1]->f[n], total = 0;
    for (int64_t k = 0; k < size; k++) {
      double away = (double)(k - size / 2);
      if (sigma > 0) weight[k] = exp(-0.5 * (away / sigma) * (away / sigma));
      else weight[k] = away == 0 ? 1 : 0;
      total += weight[k];
    }
    for (int64_t k = 0; k < size; k++) weight[k] /= total;
    blur_axis(x, half, split_at(&sample, sample.rank - 1), weight, size);
    blur_axis(half, &e->out[0]->f[n * len], split_at(&sample, sample.rank - 2), weight, size);
  }
  free(half);
  free(weight);
}

bool frame_difference_shape(md_infer *f) {
  md_shape y = *md_in(f, 0);
  if (y.dim[2] < 2) return md_reject(f, "$0 has one frame, but a difference needs two");
  y.dim[2]--;
  return set_result(f, 0, md_in_dtype(f, 0), &y);
}

void frame_difference_eval(md_eval *e) {
  split from = split_at(&e->in[0]->type.shape, 2);
  const double *x = e->in[0]->f;
  bool is_signed = e->node->attr.i.value != 0;
  int64_t run = (from.size - 1) * from.inner;
  for (int64_t o = 0; o < from.outer; o++) {
    for (int64_t i = 0; i < run; i++) {
      int64_t at = o * from.size * from.inner + i;
      double d = x[at + from.inner] - x[at];
      e->out[0]->f[o * run + i] = is_signed ? d : fabs(d);
    }
  }
}
