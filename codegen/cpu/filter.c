// SPDX-License-Identifier: Apache-2.0
// The matrices of Winograd's filtering, and code that takes squares of a window through them.
#include "codegen/cpu/filter.h"

#include <stdlib.h>

// Points of a small product and sum of squares make for small rounding errors: those at 0, +-3/4 and +-3/2
// have half of the error of the usual 0, +-1 and +-2. All of B and A is exact in f32.
// clang-format off
#define SIX_POINTS                                                                                            \
  .n = 6, .pairs = 2,                                                                                         \
  .b = {{1.265625, 0, -2.8125, 0, 1}, {0, -1.6875, -2.25, 0.75, 1}, {0, -0.84375, -0.5625, 1.5, 1},           \
        {0, 1.265625, 0, -2.8125, 0, 1}}
#define FOUR                                                                                                  \
  SIX_POINTS, .m = 4, .r = 3,                                                                                 \
  .g = {{64. / 81}, {-128. / 243, -96. / 243, -72. / 243}, {32. / 243, 48. / 243, 72. / 243}, {0, 0, 1}},     \
  .a = {{1}, {1, 0.75, 0.5625, 0.421875}, {1, 1.5, 2.25, 3.375}, {0, 0, 0, 1}}
#define THREE                                                                                                 \
  SIX_POINTS, .m = 3, .r = 4,                                                                                 \
  .g = {{64. / 81}, {-128. / 243, -96. / 243, -72. / 243, -54. / 243},                                        \
        {32. / 243, 48. / 243, 72. / 243, 108. / 243}, {0, 0, 0, 1}},                                         \
  .a = {{1}, {1, 0.75, 0.5625}, {1, 1.5, 2.25}, {0, 0, 1}}
#define TWO                                                                                                   \
  .m = 2, .r = 3, .n = 4, .pairs = 1, .b = {{-1, 0, 1}, {0, 1, 1}, {0, -1, 0, 1}},                            \
  .g = {{-1}, {0.5, 0.5, 0.5}, {0, 0, 1}}, .a = {{1}, {1, 1}, {0, 1}}
const md_filter md_filters[MD_FILTERS] = {
  {FOUR}, {THREE}, {TWO}, {FOUR, .along_t = true}, {TWO, .along_t = true}};
// clang-format on

int md_filter_planes(const md_filter *f) { return f->along_t ? f->n : f->n * f->n; }
int64_t md_filter_step(const md_filter *f, int axis) {
  return (axis == 0) == f->along_t ? f->m : 1;
}

int64_t md_filter_squares(const md_filter *f, int axis, int64_t size) {
  return md_ceil_div(size, md_filter_step(f, axis));
}
int64_t md_plane_vectors(int64_t vectors) { return vectors | 1; }

bool md_filter_suits(const md_filter *f, const md_dense *d) {
  for (int i = 0; i < 3; i++) {
    if (d->in_step[i] != 1 || d->step[i] != 1 || d->first[i] != 0) return false;
    if (md_filter_step(f, i) > 1 && (d->tap[i].num != f->r || llabs(d->tap[i].doff) != 1))
      return false;
  }
  return !d->planar && (d->tail == 3) == f->along_t;
}

// Sum of c[k] x[k] for k = first, first+step, ...; one that needs no product comes first.
static md_ir dot(md_emit *e, const double *c, int num, int first, int step, const md_ir *x) {
  int start = first;
  while (start < num && c[start] != 1) start += step;
  md_ir sum = start < num ? x[start] : NULL;
  for (int k = first; k < num; k += step) {
    if (c[k] == 0 || k == start) continue;
    md_ir factor = md_const_like(e, x[k], c[k]);
    sum = sum ? md_fma(e, x[k], factor, sum) : md_fmul(e, x[k], factor);
  }
  return sum;
}

typedef struct Step {
  md_emit *e;
  const md_filter *f;
  const double (*matrix)[MD_FILTER_N];
  int cols;
} Step;

// cols -> n: y = M x.
static void evaluate(const Step *s, const md_ir *x, md_ir *y) {
  md_emit *e = s->e;
  int pairs = s->f->pairs;
  y[0] = dot(e, s->matrix[0], s->cols, 0, 1, x);
  for (int i = 0; i < pairs; i++) {
    md_ir even = dot(e, s->matrix[1 + i], s->cols, 0, 2, x);
    md_ir odd = dot(e, s->matrix[1 + i], s->cols, 1, 2, x);
    y[1 + 2 * i] = md_fadd(e, even, odd);
    y[2 + 2 * i] = md_fsub(e, even, odd);
  }
  y[s->f->n - 1] = dot(e, s->matrix[pairs + 1], s->cols, 0, 1, x);
}

// n -> cols: y = M' x.
static void combine(const Step *s, const md_ir *x, md_ir *y) {
  md_emit *e = s->e;
  int pairs = s->f->pairs;
  md_ir part[2][4];  // of even and odd columns
  for (int k = 0; k < 2; k++) {
    part[k][0] = x[0];
    part[k][pairs + 1] = x[s->f->n - 1];
  }
  for (int i = 0; i < pairs; i++) {
    part[0][1 + i] = md_fadd(e, x[1 + 2 * i], x[2 + 2 * i]);
    part[1][1 + i] = md_fsub(e, x[1 + 2 * i], x[2 + 2 * i]);
  }
  for (int k = 0; k < s->cols; k++) {
    double column[4];
    for (int i = 0; i < pairs + 2; i++) column[i] = s->matrix[i][k];
    y[k] = dot(e, column, pairs + 2, 0, 1, part[k % 2]);
  }
}

typedef void Along(const Step *s, const md_ir *x, md_ir *y);

// Along the columns, then along the rows: from^2 values become to^2.
static void transform(const Step *s, Along *along, int from, int to, md_square x) {
  for (int j = 0; j < (s->f->along_t ? 1 : from); j++) {
    md_ir in[MD_FILTER_N], out[MD_FILTER_N];
    for (int i = 0; i < from; i++) in[i] = x[i][j];
    along(s, in, out);
    for (int i = 0; i < to; i++) x[i][j] = out[i];
  }
  for (int i = 0; i < to && !s->f->along_t; i++) {
    md_ir out[MD_FILTER_N];
    along(s, x[i], out);
    for (int j = 0; j < to; j++) x[i][j] = out[j];
  }
}

void md_filter_source(md_emit *e, const md_filter *f, md_square x) {
  transform(&(Step){e, f, f->b, f->n}, evaluate, f->n, f->n, x);
}
void md_filter_weights(md_emit *e, const md_filter *f, md_square x) {
  transform(&(Step){e, f, f->g, f->r}, evaluate, f->r, f->n, x);
}
void md_filter_results(md_emit *e, const md_filter *f, md_square x) {
  transform(&(Step){e, f, f->a, f->m}, combine, f->n, f->m, x);
}
void md_filter_result_gradient(md_emit *e, const md_filter *f, md_square x) {
  transform(&(Step){e, f, f->a, f->m}, evaluate, f->m, f->n, x);
}
void md_filter_weight_gradient(md_emit *e, const md_filter *f, md_square x) {
  transform(&(Step){e, f, f->g, f->r}, combine, f->n, f->r, x);
}

// --- squares of a window

typedef struct Place {
  md_loop loop[3];
  md_ir pixel, plane;  // elements: of its upper left corner in the window, of its pixel in a plane
} Place;

static Place squares_begin(const md_squares *q, md_ir first) {
  md_emit *e = &q->c->k->e;
  Place p;
  md_ir index = md_i64(e, 0), at[3];
  for (int i = 0; i < 3; i++) {
    p.loop[i] = md_loop_begin(e, md_i64(e, 0), md_i64(e, q->num[i]), 1, "square");
    index = md_iadd(e, md_imulc(e, index, q->num[i]), p.loop[i].i);
    at[i] = md_imulc(e, p.loop[i].i, md_filter_step(q->f, i));
  }
  p.plane = md_iadd(e, first, md_imulc(e, index, q->c->lanes));
  md_ir line = md_iadd(e, md_imulc(e, at[0], q->height), at[1]);
  p.pixel = md_imulc(e, md_iadd(e, md_imulc(e, line, q->width), at[2]), q->c->lanes);
  return p;
}

static void squares_end(const md_squares *q, Place *p) {
  for (int i = 2; i >= 0; i--) md_loop_end(&q->c->k->e, &p->loop[i]);
}

// Visits pixels k = 0, 1, ... of a square that is `size` wide: x[k / cols][k % cols].
static int cols_of(const md_squares *q, int size) { return q->f->along_t ? 1 : size; }
static md_ir pixel_at(const md_squares *q, const Place *p, int k, int cols) {
  int64_t row = q->f->along_t ? q->height * q->width : q->width;
  return md_iaddc(&q->c->k->e, p->pixel, (k / cols * row + k % cols) * q->c->lanes);
}

void md_squares_to_planes(const md_squares *q, md_filter_part *part, int size, md_ir window,
                          const md_planes *to) {
  const md_conv *c = q->c;
  md_emit *e = &c->k->e;
  int cols = cols_of(q, size);
  Place p = squares_begin(q, to->first);
  md_square x;
  for (int k = 0; k < size * cols; k++)
    x[k / cols][k % cols] = md_load(e, c->wide, window, pixel_at(q, &p, k, cols), c->lanes, NULL);
  part(e, q->f, x);
  cols = cols_of(q, q->f->n);
  for (int k = 0; k < md_filter_planes(q->f); k++)
    md_store(e, c->wide, to->at, md_iaddc(e, p.plane, k * to->step), x[k / cols][k % cols], NULL);
  squares_end(q, &p);
}

void md_squares_from_planes(const md_squares *q, const md_planes *from, md_ir window) {
  const md_conv *c = q->c;
  md_emit *e = &c->k->e;
  int cols = cols_of(q, q->f->n);
  Place p = squares_begin(q, from->first);
  md_square x;
  for (int k = 0; k < md_filter_planes(q->f); k++)
    x[k / cols][k % cols] =
        md_load(e, c->wide, from->at, md_iaddc(e, p.plane, k * from->step), c->lanes, NULL);
  md_filter_results(e, q->f, x);
  cols = cols_of(q, q->f->m);
  for (int k = 0; k < q->f->m * cols; k++)
    md_store(e, c->wide, window, pixel_at(q, &p, k, cols), x[k / cols][k % cols], NULL);
  squares_end(q, &p);
}
