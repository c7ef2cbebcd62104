// SPDX-License-Identifier: Apache-2.0
// A textured shape moves over a textured ground in one of eight ways (spec §12). What tells the
// classes apart is motion alone: ground, shape and colours are drawn anew for each video, and for a
// while the shape stands still.
//
// Coordinates are those of the spec's 36 x 36 canvas, whatever the size of the frames.
#include "runtime/video/video.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { CANVAS = 36, GROUND = 96, SKIN = 32, SHAPES = 4, NOISES = 1 << 12 };
static const double two_pi = 6.283185307179586;
static const double ground_speed = 0.5;  // of the pan, in each frame

typedef struct Draw {
  uint64_t key, at;
} Draw;

static double uniform(Draw *d, double lo, double hi) {
  return lo + (hi - lo) * md_hash_01(d->key, d->at++);
}
static int integer(Draw *d, int lo, int hi) {  // [lo, hi)
  return lo + (int)(md_hash_at(d->key, d->at++) % (uint64_t)(hi - lo));
}

struct md_scene {
  float ground[GROUND][GROUND][3], skin[SKIN][SKIN][3];
  int frames, motion, shape, idle_start, idle_len;
  double period, phase, amplitude, scale, cx, cy, angle, turn;
  double pan[2], offset[2];
  float noise[NOISES];  // of one pixel and colour, N(0, 0.02)
  uint64_t noise_key;
};

// Where the shape is in one frame.
typedef struct Pose {
  double cx, cy, scale, cosine, sine;
} Pose;

static double clamp01(double x) { return x < 0 ? 0 : x > 1 ? 1 : x; }

// A random grid of `cells` + 1 points a side, bilinearly enlarged to size x size.
static void value_noise(Draw *d, int cells, int size, float *to) {
  float grid[13][13][3];
  for (int y = 0; y <= cells; y++)
    for (int x = 0; x <= cells; x++)
      for (int c = 0; c < 3; c++) grid[y][x][c] = (float)uniform(d, 0, 1);
  for (int y = 0; y < size; y++) {
    for (int x = 0; x < size; x++) {
      double gx = (double)x * cells / size, gy = (double)y * cells / size;
      int ix = (int)gx, iy = (int)gy;
      double fx = gx - ix, fy = gy - iy;
      for (int c = 0; c < 3; c++)
        to[(y * size + x) * 3 + c] =
            (float)((1 - fy) * ((1 - fx) * grid[iy][ix][c] + fx * grid[iy][ix + 1][c]) +
                    fy * ((1 - fx) * grid[iy + 1][ix][c] + fx * grid[iy + 1][ix + 1][c]));
    }
  }
}

static void draw_textures(md_scene *s, Draw *d) {
  double base[3], mean = 0;
  for (int c = 0; c < 3; c++) base[c] = uniform(d, 0, 1);
  value_noise(d, integer(d, 7, 12), GROUND, &s->ground[0][0][0]);
  float *g = &s->ground[0][0][0];
  for (int i = 0; i < GROUND * GROUND * 3; i++) {
    g[i] = (float)clamp01(0.6 * base[i % 3] + 0.4 * g[i]);
    mean += g[i] / (GROUND * GROUND * 3.0);
  }
  value_noise(d, integer(d, 3, 6), SKIN, &s->skin[0][0][0]);
  float *f = &s->skin[0][0][0];
  for (int i = 0; i < SKIN * SKIN * 3; i++) f[i] = 0.35F * f[i] + (mean < 0.5 ? 0.65F : 0);
}

static void draw_scene(md_scene *s, Draw *d, int motion, int frames) {
  s->frames = frames;
  s->motion = motion;
  draw_textures(s, d);
  s->period = uniform(d, 14, 22);
  s->phase = uniform(d, 0, two_pi);
  s->idle_len = MD_MIN(integer(d, 12, 19), frames * 19 / 64);
  s->idle_start = integer(d, 0, frames - s->idle_len);
  s->amplitude = uniform(d, 6, 9);
  s->scale = uniform(d, 4.5, 7);
  s->cx = 0.5 * (double)CANVAS + uniform(d, -4, 4);
  s->cy = 0.5 * (double)CANVAS + uniform(d, -4, 4);
  s->angle = uniform(d, 0, two_pi);
  s->turn = integer(d, 0, 2) ? 1 : -1;
  // The ground is 96 wide: a long video pans more slowly, so that it never leaves it.
  for (int i = 0; i < 2; i++) s->pan[i] = uniform(d, -0.5, 0.5) * MD_MIN(1, 64.0 / frames);
  for (int i = 0; i < 2; i++) s->offset[i] = uniform(d, 20, 36);
  s->shape = integer(d, 0, SHAPES);
}

static double triangle(double x) { return 2 * fabs(2 * (x - floor(x)) - 1) - 1; }

static Pose pose_at(const md_scene *s, int t) {
  int idle = MD_MIN(MD_MAX(t + 1 - s->idle_start, 0), s->idle_len);
  double a = s->phase + two_pi / s->period * (t + 1 - idle), A = s->amplitude;
  double angle = s->angle + (s->motion == 6 ? s->turn * a : 0);
  Pose p = {s->cx, s->cy, s->scale, cos(angle), sin(angle)};
  switch (s->motion) {
  case 0: p.cx += A * sin(a); break;
  case 1: p.cy += A * sin(a); break;
  case 2:
    p.cx += 0.75 * A * sin(a);
    p.cy += 0.75 * A * sin(a);
    break;
  case 3:
    p.cx += 0.75 * A * sin(a);
    p.cy -= 0.75 * A * sin(a);
    break;
  case 4:
    p.cx += 0.8 * A * cos(a);
    p.cy += 0.8 * A * sin(a);
    break;
  case 5: p.scale *= 1 + 0.45 * sin(a); break;
  case 6: break;  // it turns
  default: p.cx += 0.8 * A * sin(0.9 * a); p.cy += 0.6 * A * triangle(1.8 * a / two_pi);
  }
  return p;
}

// 1 on the outline of the shape, less inside.
static double distance(int shape, double u, double v) {
  switch (shape) {
  case 0: return sqrt(u * u + 1.7 * v * v);
  case 1: return fmax(fabs(u), 1.3 * fabs(v));
  case 2: return fmax(1.2 * v, fmax(-0.6 * v - 1.04 * u, -0.6 * v + 1.04 * u));
  default: return fmin(fmax(fabs(u), 3 * fabs(v)), fmax(fabs(v), 3 * fabs(u)));
  }
}

// Share of the shape in what a pixel of `unit` of the canvas shows.
static double mask_at(int shape, double u, double v, double scale, double unit) {
  return clamp01(0.7 * (1 - distance(shape, u, v)) * scale / unit + 0.5);
}

// Middle of pixel i, where a pixel has `unit` of the canvas.
static double on_canvas(int i, double unit) { return (i + 0.5) * unit - 0.5; }

// A place of the canvas in the coordinates of a shape, and back.
static void to_shape(const Pose *p, double x, double y, double *u, double *v) {
  double dx = (x - p->cx) / p->scale, dy = (y - p->cy) / p->scale;
  *u = p->cosine * dx + p->sine * dy;
  *v = p->cosine * dy - p->sine * dx;
}
static void from_shape(const Pose *p, double u, double v, double *x, double *y) {
  *x = p->cx + p->scale * (p->cosine * u - p->sine * v);
  *y = p->cy + p->scale * (p->sine * u + p->cosine * v);
}

static void ground_at(const md_scene *s, double x, double y, double rgb[3]) {
  x = fmin(fmax(x, 0), (double)GROUND - 1.001);
  y = fmin(fmax(y, 0), (double)GROUND - 1.001);
  int ix = (int)x, iy = (int)y;
  double fx = x - ix, fy = y - iy;
  for (int c = 0; c < 3; c++)
    rgb[c] = (1 - fy) * ((1 - fx) * s->ground[iy][ix][c] + fx * s->ground[iy][ix + 1][c]) +
             fy * ((1 - fx) * s->ground[iy + 1][ix][c] + fx * s->ground[iy + 1][ix + 1][c]);
}

md_scene *md_scene_create(const char *stream, int64_t number, uint64_t seed, int motion,
                          int frames) {
  md_scene *s = md_calloc(1, sizeof *s);
  char name[64];
  snprintf(name, sizeof name, "%s.%lld", stream, (long long)number);
  Draw draw = {.key = md_hash_key(name, seed)};
  draw_scene(s, &draw, motion, frames);
  s->noise_key = md_hash_key("noise", draw.key);
  for (int i = 0; i < NOISES; i++)
    s->noise[i] = 0.02F * (float)md_hash_normal(s->noise_key, (uint64_t)i);
  return s;
}

void md_scene_destroy(md_scene *s) { free(s); }

void md_scene_flow(const md_scene *s, int t, int to, int size, float *u_out, float *v_out) {
  Pose now = pose_at(s, t), then = pose_at(s, to);
  double unit = (double)CANVAS / size, shift = ground_speed * (t - to);
  for (int y = 0; y < size; y++) {
    for (int x = 0; x < size; x++) {
      double X = on_canvas(x, unit), Y = on_canvas(y, unit), u, v, to_x, to_y;
      to_shape(&now, X, Y, &u, &v);
      double m = mask_at(s->shape, u, v, now.scale, unit);
      from_shape(&then, u, v, &to_x, &to_y);
      *u_out++ = (float)((m * (to_x - X) + (1 - m) * shift * s->pan[0]) / unit);
      *v_out++ = (float)((m * (to_y - Y) + (1 - m) * shift * s->pan[1]) / unit);
    }
  }
}

void md_scene_frame(const md_scene *s, int t, int size, uint8_t *to) {
  Pose p = pose_at(s, t);
  double unit = (double)CANVAS / size;
  double shift = ground_speed * (t - s->frames / 2.0);
  for (int y = 0; y < size; y++) {
    for (int x = 0; x < size; x++) {
      double X = on_canvas(x, unit), Y = on_canvas(y, unit), u, v, rgb[3];
      ground_at(s, X + s->offset[0] + shift * s->pan[0], Y + s->offset[1] + shift * s->pan[1], rgb);
      to_shape(&p, X, Y, &u, &v);
      double m = mask_at(s->shape, u, v, p.scale, unit);
      int su = (int)(fmin(fmax((u + 1.3) / 2.6 * (SKIN - 1), 0), SKIN - 1) + 0.5);
      int sv = (int)(fmin(fmax((v + 1.3) / 2.6 * (SKIN - 1), 0), SKIN - 1) + 0.5);
      int64_t at = ((int64_t)t * size + y) * size + x;
      uint64_t bits = md_hash_at(s->noise_key, (uint64_t)at);  // one hash picks three noises
      for (int c = 0; c < 3; c++, bits >>= 12) {
        double value =
            m * (double)s->skin[sv][su][c] + (1 - m) * rgb[c] + (double)s->noise[bits % NOISES];
        to[3 * ((int64_t)y * size + x) + c] = (uint8_t)(255 * clamp01(value) + 0.5);
      }
    }
  }
}
