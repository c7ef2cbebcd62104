// SPDX-License-Identifier: Apache-2.0
// The matrices of Winograd's filtering, and code that takes squares of a window through them.
#include "codegen/cpu/filter.h"

#include <stdlib.h>

// Points of a small product and sum of squares make for small rounding errors: those at 0, +-3/4 and +-3/2
// have half of the error of the usual 0, +-1 and +-2. All of B and A is exact in f32.
// clang-format off
#define SIX_POINTS                                                                                            \
  .n = 6, .single = 2, .pairs = 2, .in = 6, .stride = 1, .work = 6,                                           \
  .b = {{1.265625, 0, -2.8125, 0, 1}, {0, 1.265625, 0, -2.8125, 0, 1},                                        \
        {0, -1.6875, -2.25, 0.75, 1}, {0, -0.84375, -0.5625, 1.5, 1}}
#define FOUR                                                                                                  \
  SIX_POINTS, .m = 4, .r = 3, .in_step = 4,                                                                   \
  .g = {{64. / 81}, {0, 0, 1}, {-128. / 243, -96. / 243, -72. / 243}, {32. / 243, 48. / 243, 72. / 243}},     \
  .a = {{1}, {0, 0, 0, 1}, {1, 0.75, 0.5625, 0.421875}, {1, 1.5, 2.25, 3.375}}
#define THREE                                                                                                 \
  SIX_POINTS, .m = 3, .r = 4, .in_step = 3,                                                                   \
  .g = {{64. / 81}, {0, 0, 0, 1}, {-128. / 243, -96. / 243, -72. / 243, -54. / 243},                          \
        {32. / 243, 48. / 243, 72. / 243, 108. / 243}},                                                       \
  .a = {{1}, {0, 0, 1}, {1, 0.75, 0.5625}, {1, 1.5, 2.25}}
#define TWO                                                                                                   \
  .m = 2, .r = 3, .n = 4, .single = 2, .pairs = 1, .in = 4, .in_step = 2, .stride = 1, .work = 6,             \
  .b = {{-1, 0, 1}, {0, -1, 0, 1}, {0, 1, 1}}, .g = {{-1}, {0, 0, 1}, {0.5, 0.5, 0.5}},                       \
  .a = {{1}, {0, 1}, {1, 1}}
// Even pixels at 0, 1 and infinity, then the odd ones.
#define STRIDED                                                                                               \
  .r = 3, .n = 5, .single = 5, .stride = 2, .work = 3, .g = {{1}, {1, 0, 1}, {0, 0, 1}, {0, 1}, {0, 1}}
const md_filter md_filters[MD_FILTERS] = {
  {FOUR}, {THREE}, {TWO}, {FOUR, .along_t = true}, {TWO, .along_t = true},
  {STRIDED, .m = 2, .in = 5, .in_step = 4,
   .b = {{1, 0, -1}, {0, 0, 1}, {0, 0, -1, 0, 1}, {0, 1}, {0, 0, 0, 1}},
   .a = {{1}, {1, 1}, {0, 1}, {1}, {0, 1}}},
  {STRIDED, .m = 4, .in = 3, .in_step = 2, .transposed = true,
   .b = {{1, -1}, {0, 1}, {0, -1, 1}, {1}, {0, 1}},
   .a = {{0, 1}, {0, 1, 0, 1}, {0, 0, 0, 1}, {1}, {0, 0, 1}}}};
// clang-format on

int md_filter_planes(const md_filter *f) { return f->along_t ? f->n : f->n * f->n; }
bool md_filters_axis(const md_filter *f, int axis) { return (axis == 0) == f->along_t; }
int64_t md_filter_step(const md_filter *f, int axis) { return md_filters_axis(f, axis) ? f->m : 1; }

int64_t md_filter_squares(const md_filter *f, int axis, int64_t size) {
  return md_ceil_div(size, md_filter_step(f, axis));
}
int64_t md_plane_vectors(int64_t vectors) { return vectors | 1; }

static int64_t stride_of(const md_conv *c, int axis) { return c->node->attr.conv3d.stride.d[axis]; }

// All residues of a strided data gradient at once: at even places the middle tap, at odd ones the outer two. The first
// residue, that of the even places, has what all have in common: the taps along t and the source.
static bool transposed_problem(const md_conv *c, md_conv_parts *p) {
  const md_conv3d_attr *a = &c->node->attr.conv3d;
  md_dense *d = &p->part[0];
  p->num = 1;
  for (int i = 1; i < 3; i++) {
    if (c->kernel[i] != 3 || a->pad.d[i] != 1 || a->dilation.d[i] != 1) return false;
    d->grid[i] = c->dst_size[i];
    d->step[i] = 1;
    d->tap[i] = (md_taps){.num = 3, .dk = 1, .off0 = 1, .doff = -1};
    p->from.grid[i] = md_ceil_div(c->dst_size[i], 2);
    p->from.tap[i] = (md_taps){.num = 2, .doff = 1};
  }
  return true;
}

bool md_filter_split(const md_conv *c, const md_filter *f, md_conv_parts *p) {
  bool strided = false;
  for (int i = 0; i < 3; i++) {
    bool filtered = md_filters_axis(f, i);
    if ((filtered || i == 0) && stride_of(c, i) != (filtered ? f->stride : 1)) return false;
    strided |= stride_of(c, i) > 1;
  }
  if (f->transposed != (c->flipped && strided && !f->along_t)) return false;
  md_conv_split(c, p);
  if (p->part[0].planar || (!f->along_t && p->part[0].tail != 5)) return false;
  if (f->transposed && !transposed_problem(c, p)) return false;
  for (int i = 0; i < 3; i++) {
    const md_taps *t = &p->part[0].tap[i];
    if (md_filters_axis(f, i) && (t->num != f->r || llabs(t->doff) != 1)) return false;
  }
  return true;
}

const char *md_filter_refuse(const md_conv *c, double cost) {
  const int64_t *size = c->flipped ? c->src_size : c->dst_size;  // each of these meets all taps
  int64_t pixels = c->n * size[0] * size[1] * size[2];
  int64_t taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
  // Those of f32 in pairs, measured on Zen 5, wait for loads: one for each product where there is one dst block.
  double rate = c->in_cell == 1 ? 1 : c->packed == MD_F32 ? 1.4 : 2;
  double direct = (double)(taps * pixels * md_channel_pairs(c)) / rate;
  return cost < 0.9 * direct ? NULL : "its transforms would cost more than they spare";
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
  int single = s->f->single;
  for (int i = 0; i < single; i++) y[i] = dot(e, s->matrix[i], s->cols, 0, 1, x);
  for (int i = 0; i < s->f->pairs; i++) {
    md_ir even = dot(e, s->matrix[single + i], s->cols, 0, 2, x);
    md_ir odd = dot(e, s->matrix[single + i], s->cols, 1, 2, x);
    y[single + 2 * i] = md_fadd(e, even, odd);
    y[single + 2 * i + 1] = md_fsub(e, even, odd);
  }
}

// n -> cols: y = M' x.
static void combine(const Step *s, const md_ir *x, md_ir *y) {
  md_emit *e = s->e;
  int single = s->f->single, rows = single + s->f->pairs;
  md_ir part[2][5];  // of even and odd columns
  for (int i = 0; i < single; i++) part[0][i] = part[1][i] = x[i];
  for (int i = single; i < rows; i++) {
    const md_ir *pair = &x[single + 2 * (i - single)];
    part[0][i] = md_fadd(e, pair[0], pair[1]);
    part[1][i] = md_fsub(e, pair[0], pair[1]);
  }
  for (int k = 0; k < s->cols; k++) {
    double column[5];
    for (int i = 0; i < rows; i++) column[i] = s->matrix[i][k];
    y[k] = dot(e, column, rows, 0, 1, part[k % 2]);
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
  transform(&(Step){e, f, f->b, f->in}, evaluate, f->in, f->n, x);
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

md_squares md_squares_in_order(const md_conv *c, const md_filter *f, const int64_t num[3]) {
  return (md_squares){.c = c,
                      .f = f,
                      .num = {num[0], num[1], num[2]},
                      .apart = {1, 1, 1},
                      .in_plane = {num[1] * num[2], num[2], 1}};
}

typedef struct Place {
  md_loop loop[3];
  md_ir pixel, plane;  // elements: of its upper left corner in the window, of its pixel in a plane
} Place;

static Place squares_begin(const md_squares *q, md_ir first) {
  md_emit *e = &q->c->k->e;
  Place p;
  md_ir square = md_i64(e, 0), at[3];
  for (int i = 0; i < 3; i++) {
    p.loop[i] = md_loop_begin(e, md_i64(e, 0), md_i64(e, q->num[i]), 1, "square");
    square = md_iadd(e, square, md_imulc(e, p.loop[i].i, q->in_plane[i]));
    at[i] = md_imulc(e, p.loop[i].i, (md_filters_axis(q->f, i) ? q->step : 1) * q->apart[i]);
  }
  p.plane = md_iadd(e, first, md_imulc(e, square, q->c->lanes));
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
  int64_t row = q->f->along_t ? q->apart[0] * q->height * q->width : q->apart[1] * q->width;
  return md_iaddc(&q->c->k->e, p->pixel, (k / cols * row + k % cols * q->apart[2]) * q->c->lanes);
}

void md_squares_to_planes(const md_squares *q, md_filter_part *part, md_ir window,
                          const md_planes *to) {
  const md_conv *c = q->c;
  md_emit *e = &c->k->e;
  int cols = cols_of(q, q->size);
  Place p = squares_begin(q, to->first);
  md_square x;
  for (int k = 0; k < q->size * cols; k++)
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
  cols = cols_of(q, q->size);
  for (int k = 0; k < q->size * cols; k++)
    md_store(e, c->wide, window, pixel_at(q, &p, k, cols), x[k / cols][k % cols], NULL);
  squares_end(q, &p);
}
