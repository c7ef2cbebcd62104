// SPDX-License-Identifier: Apache-2.0
// TV-L1 optical flow: the field u that minimises
//     sum |grad u1| + |grad u2| + lambda |I1(x + u) - I0(x)|
// by the duality scheme of Zach, Pock and Bischof (DAGM 2007), coarse to fine. On each level I1 is
// warped by the field so far, u0, and linearised: rho(u) = I1w + g.(u - u0) - I0. One iteration is
//     v = u + d g                    d = -rho / |g|^2, held in [-lambda theta, lambda theta]
//     u = v + theta div p
//     p = (p + tau/theta grad u) / (1 + tau/theta |grad u|)
//
// An iteration is one sweep over the rows. u of row y reads p of rows y and y-1; p of row y-1 reads u
// of rows y-1 and y. So p follows one row behind, and ten planes go through the cache once, not twice.
//
// Planes have a margin, so that no loop asks where it is: 0 beside p, a copy of the edge beside u.
#include "runtime/video/motion.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Loops over a row, once for each width of vectors. Products are not contracted, so all give the same
// bits.
#ifdef MODIST_CLONES
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

enum {
  MARGIN = 16,  // floats before and behind a row; a row starts on a cache line
  LANES = 32,   // pixels of a median at once
  MAX_LEVELS = 16,
  MAX_RADIUS = 8,
  PAD = 2  // pixels around the image that cubic interpolation may read
};

typedef struct level {
  int w, h;
  float *from, *to;  // [h * w]
} level;

struct md_flow {
  md_flow_options o;
  int num_levels;
  level level[MAX_LEVELS];
  int64_t work;
  float *u[2], *p[4];            // field; dual p11 p12 p21 p22
  float *gx, *gy, *inv, *rho;    // of the linearised data term; inv = 1 / |g|^2
  float *spare, *change, *pack;  // pack: I1, its two derivatives and 0, interleaved
  md_tap *col, *row;
  void *memory[24];
  int num_memory;
};

// --- memory

static int stride_of(int w) { return (int)md_round_up(w + 2, MARGIN) + MARGIN; }

static int64_t plane_floats(int w, int h) {
  return (int64_t)(h + 2) * stride_of(w) + 2 * (int64_t)LANES;
}

static void *take(md_flow *f, int64_t bytes) {
  void *p = aligned_alloc(64, (size_t)md_round_up(MD_MAX(bytes, 1), 64));
  if (!p) md_out_of_memory((size_t)bytes);
  memset(p, 0, (size_t)bytes);
  MD_ASSERT(f->num_memory < MD_COUNT(f->memory), "too many buffers");
  return f->memory[f->num_memory++] = p;
}

static float *take_floats(md_flow *f, int64_t n) { return take(f, n * (int64_t)sizeof(float)); }

// Pixel (0, 0) of a plane for frames of width w: one row and one margin into its memory.
static float *origin(float *plane, int w) { return plane + stride_of(w) + MARGIN; }

// --- one iteration

typedef struct row_in {
  const float *gx, *gy, *inv, *rho;
  const float *p11, *p12, *p12_up, *p21, *p22, *p22_up;
} row_in;

CLONES static void update_u(int w, const row_in *in, float bound, float theta, float *restrict u1,
                            float *restrict u2, float *restrict change) {
  const float *restrict gx = in->gx, *restrict gy = in->gy, *restrict inv = in->inv;
  const float *restrict rho = in->rho, *restrict p11 = in->p11, *restrict p12 = in->p12;
  const float *restrict p12_up = in->p12_up, *restrict p21 = in->p21, *restrict p22 = in->p22;
  const float *restrict p22_up = in->p22_up;
  for (int x = 0; x < w; x++) {
    float d = -(rho[x] + gx[x] * u1[x] + gy[x] * u2[x]) * inv[x];
    d = d < bound ? d : bound;
    d = d > -bound ? d : -bound;
    float new1 = u1[x] + d * gx[x] + theta * (p11[x] - p11[x - 1] + p12[x] - p12_up[x]);
    float new2 = u2[x] + d * gy[x] + theta * (p21[x] - p21[x - 1] + p22[x] - p22_up[x]);
    float c1 = new1 - u1[x], c2 = new2 - u2[x];
    change[x] += c1 * c1 + c2 * c2;
    u1[x] = new1;
    u2[x] = new2;
  }
}

CLONES static void update_p(int w, const float *restrict u, const float *restrict u_low, float step,
                            float *restrict px, float *restrict py) {
  for (int x = 0; x < w; x++) {
    float dx = u[x + 1] - u[x], dy = u_low[x] - u[x];
    float by = 1 / (1 + step * sqrtf(dx * dx + dy * dy));
    px[x] = (px[x] + step * dx) * by;
    py[x] = (py[x] + step * dy) * by;
  }
}

// Returns the sum over pixels of |change of u|^2.
static double iterate(md_flow *f, int w, int h) {
  int stride = stride_of(w);
  float *u1 = origin(f->u[0], w), *u2 = origin(f->u[1], w), *p[4];
  for (int i = 0; i < 4; i++) p[i] = origin(f->p[i], w);
  float step = f->o.tau / f->o.theta;
  memset(f->change, 0, (size_t)w * sizeof *f->change);
  for (int y = 0; y <= h; y++) {
    int64_t at = (int64_t)y * stride, up = at - stride;
    if (y < h) {
      row_in in = {.gx = origin(f->gx, w) + at,
                   .gy = origin(f->gy, w) + at,
                   .inv = origin(f->inv, w) + at,
                   .rho = origin(f->rho, w) + at,
                   .p11 = p[0] + at,
                   .p12 = p[1] + at,
                   .p12_up = p[1] + up,
                   .p21 = p[2] + at,
                   .p22 = p[3] + at,
                   .p22_up = p[3] + up};
      update_u(w, &in, f->o.lambda * f->o.theta, f->o.theta, u1 + at, u2 + at, f->change);
      u1[at + w] = u1[at + w - 1];
      u2[at + w] = u2[at + w - 1];
    }
    if (y > 0) {
      int64_t low = y < h ? at : up;  // below the last row nothing changes
      update_p(w, u1 + up, u1 + low, step, p[0] + up, p[1] + up);
      update_p(w, u2 + up, u2 + low, step, p[2] + up, p[3] + up);
    }
  }
  double sum = 0;
  for (int x = 0; x < w; x++) sum += (double)f->change[x];
  return sum;
}

// --- median 5x5: of 14 values the least and the greatest cannot be the median of 25; they go, the
// next value comes in, and so on until three are left (LANES windows side by side).

static inline void exchange(float *restrict a, float *restrict b) {
  for (int i = 0; i < LANES; i++) {
    float x = a[i], y = b[i];
    a[i] = x < y ? x : y;
    b[i] = x < y ? y : x;
  }
}

// The least of v[0..n-1] moves to v[0], the greatest to v[n-1].
static inline void part(float (*v)[LANES], int n) {
  for (int i = 0; i < n / 2; i++) exchange(v[i], v[n - 1 - i]);
  for (int i = 1; i < n - n / 2; i++) exchange(v[0], v[i]);
  for (int i = n / 2; i < n - 1; i++) exchange(v[i], v[n - 1]);
}

// Reads and writes up to LANES - 1 floats behind the row, which the margins have room for.
CLONES static void median_row(int w, const float *const row[5], float *out) {
  for (int x = 0; x < w; x += LANES) {
    float v[14][LANES];
    for (int i = 0; i < 14; i++) memcpy(v[i], row[i / 5] + x + i % 5 - 2, sizeof v[i]);
    int next = 14;
#pragma GCC unroll 12
    for (int n = 14; n > 3; n--, next++) {
      part(v, n);
      memcpy(v[0], row[next / 5] + x + next % 5 - 2, sizeof v[0]);
    }
    part(v, 3);
    memcpy(out + x, v[1], sizeof v[1]);
  }
}

static void median(md_flow *f, float *plane, int w, int h) {
  int stride = stride_of(w);
  float *u = origin(plane, w), *out = origin(f->spare, w);
  for (int y = 0; y < h; y++) {
    float *r = u + (int64_t)y * stride;
    r[-2] = r[-1] = r[0];
    r[w] = r[w + 1] = r[w - 1];
  }
  for (int y = 0; y < h; y++) {
    const float *row[5];
    for (int i = 0; i < 5; i++) row[i] = u + (int64_t)MD_MIN(MD_MAX(y + i - 2, 0), h - 1) * stride;
    median_row(w, row, out + (int64_t)y * stride);
  }
  for (int y = 0; y < h; y++) {
    float *r = u + (int64_t)y * stride;
    memcpy(r, out + (int64_t)y * stride, (size_t)w * sizeof *r);
    r[w] = r[w - 1];
  }
}

// --- the data term

// I1 and its central differences, with a margin of PAD copied pixels: [h + 2 PAD][w + 2 PAD][4].
static void pack_image(const level *l, float *pack) {
  for (int y = -PAD; y < l->h + PAD; y++) {
    int at = MD_MIN(MD_MAX(y, 0), l->h - 1);
    const float *mid = l->to + (int64_t)at * l->w;
    const float *up = l->to + (int64_t)MD_MAX(at - 1, 0) * l->w;
    const float *low = l->to + (int64_t)MD_MIN(at + 1, l->h - 1) * l->w;
    for (int x = -PAD; x < l->w + PAD; x++, pack += 4) {
      int i = MD_MIN(MD_MAX(x, 0), l->w - 1);
      pack[0] = mid[i];
      pack[1] = (mid[MD_MIN(i + 1, l->w - 1)] - mid[MD_MAX(i - 1, 0)]) / 2;
      pack[2] = (low[i] - up[i]) / 2;
      pack[3] = 0;
    }
  }
}

// Weights of samples -1, 0, 1, 2 for a point t in [0, 1): Keys' cubic, exact for parabolas.
static inline void cubic(float t, float k[4]) {
  k[0] = ((-0.5F * t + 1) * t - 0.5F) * t;
  k[1] = (1.5F * t - 2.5F) * t * t + 1;
  k[2] = ((-1.5F * t + 2) * t + 0.5F) * t;
  k[3] = (0.5F * t - 0.5F) * t * t;
}

// What the field leads out of the frame has no data term; smoothness alone moves it.
CLONES static void warp_row(const float *pack, int w, int h, int y, const float *from,
                            const float *u1, const float *u2, float *gx, float *gy, float *inv,
                            float *rho) {
  int64_t pitch = 4 * (int64_t)(w + 2 * PAD);
  for (int x = 0; x < w; x++) {
    float at_x = (float)x + u1[x], at_y = (float)y + u2[x], sum[4] = {0};
    bool is_inside = at_x >= 0 && at_y >= 0 && at_x <= (float)(w - 1) && at_y <= (float)(h - 1);
    if (is_inside) {
      int left = (int)at_x, top = (int)at_y;
      float kx[4], ky[4];
      cubic(at_x - (float)left, kx);
      cubic(at_y - (float)top, ky);
      const float *p = pack + (top + PAD - 1) * pitch + (int64_t)4 * (left + PAD - 1);
      for (int j = 0; j < 4; j++, p += pitch)
        for (int i = 0; i < 4; i++)
          for (int c = 0; c < 4; c++) sum[c] += ky[j] * kx[i] * p[4 * i + c];
    }
    float square = sum[1] * sum[1] + sum[2] * sum[2];
    gx[x] = sum[1];
    gy[x] = sum[2];
    inv[x] = 1 / MD_MAX(square, 1e-6F);
    rho[x] = is_inside ? sum[0] - sum[1] * u1[x] - sum[2] * u2[x] - from[x] : 0;
  }
}

static void linearise(md_flow *f, const level *l) {
  int stride = stride_of(l->w);
  for (int y = 0; y < l->h; y++) {
    int64_t at = (int64_t)y * stride;
    warp_row(f->pack, l->w, l->h, y, l->from + (int64_t)y * l->w, origin(f->u[0], l->w) + at,
             origin(f->u[1], l->w) + at, origin(f->gx, l->w) + at, origin(f->gy, l->w) + at,
             origin(f->inv, l->w) + at, origin(f->rho, l->w) + at);
  }
}

// --- the pyramid

CLONES static void add_scaled(int w, float *restrict to, const float *restrict from, float by) {
  for (int x = 0; x < w; x++) to[x] += by * from[x];
}

// Gaussian, replicate border. `wide` holds one row with MAX_RADIUS more at both ends.
static void blur(const float *in, int w, int h, float sigma, float *wide, float *mid, float *out) {
  float k[2 * MAX_RADIUS + 1] = {0}, sum = 0;
  int radius = MD_MIN((int)ceilf(3 * sigma), MAX_RADIUS);
  for (int i = -radius; i <= radius; i++) {
    k[i + radius] = expf(-(float)(i * i) / (2 * sigma * sigma));
    sum += k[i + radius];
  }
  for (int i = 0; i <= 2 * radius; i++) k[i] /= sum;
  for (int y = 0; y < h; y++) {
    const float *row = in + (int64_t)y * w;
    for (int x = -radius; x < w + radius; x++) wide[x + radius] = row[MD_MIN(MD_MAX(x, 0), w - 1)];
    float *to = mid + (int64_t)y * w;
    memset(to, 0, (size_t)w * sizeof *to);
    for (int i = 0; i <= 2 * radius; i++) add_scaled(w, to, wide + i, k[i]);
  }
  for (int y = 0; y < h; y++) {
    float *to = out + (int64_t)y * w;
    memset(to, 0, (size_t)w * sizeof *to);
    for (int i = -radius; i <= radius; i++)
      add_scaled(w, to, mid + (int64_t)MD_MIN(MD_MAX(y + i, 0), h - 1) * w, k[i + radius]);
  }
}

// Bilinear, from in_w x in_h to w x h, times `by`.
static void resize(md_flow *f, const float *in, int in_w, int in_h, int in_stride, float *out,
                   int w, int h, int stride, float by) {
  md_taps(f->col, w, 0, (double)in_w / w, in_w);
  md_taps(f->row, h, 0, (double)in_h / h, in_h);
  for (int y = 0; y < h; y++) {
    const float *up = in + (int64_t)f->row[y].lo * in_stride;
    const float *low = in + (int64_t)f->row[y].hi * in_stride;
    for (int x = 0; x < w; x++) {
      const md_tap *c = &f->col[x];
      float a = up[c->lo] + c->frac * (up[c->hi] - up[c->lo]);
      float b = low[c->lo] + c->frac * (low[c->hi] - low[c->lo]);
      out[(int64_t)y * stride + x] = by * (a + f->row[y].frac * (b - a));
    }
  }
}

static void smooth(md_flow *f, const float *in, const level *l, float *out) {
  if (f->o.blur > 0) blur(in, l->w, l->h, f->o.blur, f->pack, f->spare, out);
  else if (out != in) memcpy(out, in, (size_t)l->w * (size_t)l->h * sizeof *out);
}

// Every level is blurred and then made smaller: what it cannot show is gone before.
static void fill_pyramid(md_flow *f, const float *from, const float *to) {
  smooth(f, from, &f->level[0], f->level[0].from);
  smooth(f, to, &f->level[0], f->level[0].to);
  for (int i = 1; i < f->num_levels; i++) {
    const level *fine = &f->level[i - 1], *l = &f->level[i];
    float *soft = f->rho;  // free until the first level is solved
    smooth(f, fine->from, fine, soft);
    resize(f, soft, fine->w, fine->h, fine->w, l->from, l->w, l->h, l->w, 1);
    smooth(f, fine->to, fine, soft);
    resize(f, soft, fine->w, fine->h, fine->w, l->to, l->w, l->h, l->w, 1);
  }
}

static void to_finer(md_flow *f, const level *coarse, const level *l) {
  for (int i = 0; i < 2; i++) {
    float by = i == 0 ? (float)l->w / (float)coarse->w : (float)l->h / (float)coarse->h;
    int stride = stride_of(l->w);
    resize(f, origin(f->u[i], coarse->w), coarse->w, coarse->h, stride_of(coarse->w),
           origin(f->spare, l->w), l->w, l->h, stride, by);
    float *kept = f->spare;
    f->spare = f->u[i];
    f->u[i] = kept;
    for (int y = 0; y < l->h; y++) {
      float *r = origin(f->u[i], l->w) + (int64_t)y * stride;
      r[l->w] = r[l->w - 1];
    }
  }
}

static void solve(md_flow *f, const level *l) {
  for (int i = 0; i < 4; i++) memset(f->p[i], 0, (size_t)plane_floats(l->w, l->h) * sizeof(float));
  pack_image(l, f->pack);
  double pixels = (double)l->w * l->h;
  double enough = f->o.epsilon < 0 ? -1 : (double)f->o.epsilon * f->o.epsilon * pixels;
  for (int warp = 0; warp < f->o.warps; warp++) {
    linearise(f, l);
    double change = INFINITY;
    for (int outer = 0; outer < f->o.outer && change > enough; outer++) {
      for (int i = 0; i < 2 && !f->o.no_median; i++) median(f, f->u[i], l->w, l->h);
      for (int inner = 0; inner < f->o.inner && change > enough; inner++) {
        change = iterate(f, l->w, l->h);
        f->work += (int64_t)l->w * l->h;
      }
    }
  }
}

// --- the face

static void set_defaults(md_flow_options *o) {
  if (!o->levels) o->levels = 5;
  if (!o->warps) o->warps = 5;
  if (!o->outer) o->outer = 1;
  if (!o->inner) o->inner = 30;
  if (!o->min_side) o->min_side = 16;
  if (o->step <= 0) o->step = 0.5F;
  if (o->tau <= 0) o->tau = 0.25F;
  if (o->lambda <= 0) o->lambda = 0.15F;
  if (o->theta <= 0) o->theta = 0.3F;
  if (o->epsilon == 0) o->epsilon = 0.01F;
  if (o->blur == 0) o->blur = 0.8F;
  MD_ASSERT(o->levels <= MAX_LEVELS && o->step < 1, "pyramid of %d levels by %g", o->levels,
            (double)o->step);
}

md_flow *md_flow_create(const md_flow_options *o, int w, int h) {
  MD_ASSERT(w >= 1 && h >= 1, "flow of %dx%d frames", w, h);
  md_flow *f = md_calloc(1, sizeof *f);
  if (o) f->o = *o;
  set_defaults(&f->o);
  int64_t floats = plane_floats(w, h);
  double scale = 1;
  for (int i = 0; i < f->o.levels; i++) {
    level l = {.w = (int)lround(w * scale), .h = (int)lround(h * scale)};
    if (i > 0 && MD_MIN(l.w, l.h) < f->o.min_side) break;
    f->level[f->num_levels++] = l;
    scale *= (double)f->o.step;
  }
  // Images of all levels lie in two blocks.
  int64_t pixels = 0;
  for (int i = 0; i < f->num_levels; i++) pixels += (int64_t)f->level[i].w * f->level[i].h;
  float *from = take_floats(f, pixels), *to = take_floats(f, pixels);
  for (int i = 0; i < f->num_levels; i++) {
    level *l = &f->level[i];
    l->from = from;
    l->to = to;
    from += (int64_t)l->w * l->h;
    to += (int64_t)l->w * l->h;
  }
  float **planes[] = {&f->u[0], &f->u[1], &f->p[0], &f->p[1], &f->p[2], &f->p[3],
                      &f->gx,   &f->gy,   &f->inv,  &f->rho,  &f->spare};
  for (int i = 0; i < MD_COUNT(planes); i++) *planes[i] = take_floats(f, floats);
  f->change = take_floats(f, w);
  int64_t packed = 4 * (int64_t)(w + 2 * PAD) * (h + 2 * PAD);
  f->pack = take_floats(f, MD_MAX(packed, w + 2 * MAX_RADIUS));
  f->col = take(f, w * (int64_t)sizeof *f->col);
  f->row = take(f, h * (int64_t)sizeof *f->row);
  return f;
}

void md_flow_destroy(md_flow *f) {
  if (!f) return;
  for (int i = 0; i < f->num_memory; i++) free(f->memory[i]);
  free(f);
}

void md_flow_run(md_flow *f, const float *from, const float *to, float *u, float *v) {
  f->work = 0;
  fill_pyramid(f, from, to);
  int last = f->num_levels - 1, w = f->level[0].w, h = f->level[0].h;
  for (int i = 0; i < 2; i++) memset(f->u[i], 0, (size_t)plane_floats(w, h) * sizeof(float));
  for (int i = last; i >= 0; i--) {
    if (i < last) to_finer(f, &f->level[i + 1], &f->level[i]);
    solve(f, &f->level[i]);
  }
  for (int y = 0; y < h; y++) {
    int64_t at = (int64_t)y * stride_of(w);
    memcpy(u + (int64_t)y * w, origin(f->u[0], w) + at, (size_t)w * sizeof *u);
    memcpy(v + (int64_t)y * w, origin(f->u[1], w) + at, (size_t)w * sizeof *v);
  }
}

int64_t md_flow_work(const md_flow *f) { return f->work; }
