// SPDX-License-Identifier: Apache-2.0
// A small set of real video files to try things on: a textured shape moves over a textured ground in
// one of eight ways (spec §12), which is the label of the video. What tells the classes apart is
// motion alone: ground, shape and colours are drawn anew for each video.
//
// Coordinates are those of the spec's 36 x 36 canvas, whatever the size of the files.
#include "runtime/video/video.h"

#include "base/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CANVAS = 36, GROUND = 96, SKIN = 32, CLASSES = 8, SHAPES = 4, FPS = 30 };
static const double two_pi = 6.283185307179586;

typedef struct Draw {
  uint64_t key, at;
} Draw;

static double uniform(Draw *d, double lo, double hi) {
  return lo + (hi - lo) * md_hash_01(d->key, d->at++);
}
static int integer(Draw *d, int lo, int hi) {  // [lo, hi)
  return lo + (int)(md_hash_at(d->key, d->at++) % (uint64_t)(hi - lo));
}

typedef struct Scene {
  float ground[GROUND][GROUND][3], skin[SKIN][SKIN][3];
  int frames, motion, shape, idle_start, idle_len;
  double period, phase, amplitude, scale, cx, cy, angle, turn;
  double pan[2], offset[2];
} Scene;

// Where the shape is in one frame.
typedef struct Pose {
  double cx, cy, angle, scale;
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

static void draw_textures(Scene *s, Draw *d) {
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

static void draw_scene(Scene *s, Draw *d, int motion, int frames) {
  *s = (Scene){.frames = frames, .motion = motion};
  draw_textures(s, d);
  s->period = uniform(d, 14, 22);
  s->phase = uniform(d, 0, two_pi);
  s->idle_len = MD_MIN(integer(d, 12, 19), frames / 4);
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

static Pose pose_at(const Scene *s, int t) {
  int idle = MD_MIN(MD_MAX(t + 1 - s->idle_start, 0), s->idle_len);
  double a = s->phase + two_pi / s->period * (t + 1 - idle), A = s->amplitude;
  Pose p = {s->cx, s->cy, s->angle, s->scale};
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
  case 6: p.angle += s->turn * a; break;
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

static void ground_at(const Scene *s, double x, double y, double rgb[3]) {
  x = fmin(fmax(x, 0), (double)GROUND - 1.001);
  y = fmin(fmax(y, 0), (double)GROUND - 1.001);
  int ix = (int)x, iy = (int)y;
  double fx = x - ix, fy = y - iy;
  for (int c = 0; c < 3; c++)
    rgb[c] = (1 - fy) * ((1 - fx) * s->ground[iy][ix][c] + fx * s->ground[iy][ix + 1][c]) +
             fy * ((1 - fx) * s->ground[iy + 1][ix][c] + fx * s->ground[iy + 1][ix + 1][c]);
}

static void render(const Scene *s, int t, int size, uint64_t noise, uint8_t *to) {
  Pose p = pose_at(s, t);
  double unit = (double)CANVAS / size, cosine = cos(p.angle), sine = sin(p.angle);
  double shift = 0.5 * (t - s->frames / 2.0);
  for (int y = 0; y < size; y++) {
    for (int x = 0; x < size; x++) {
      double X = (x + 0.5) * unit - 0.5, Y = (y + 0.5) * unit - 0.5, rgb[3];
      ground_at(s, X + s->offset[0] + shift * s->pan[0], Y + s->offset[1] + shift * s->pan[1], rgb);
      double dx = (X - p.cx) / p.scale, dy = (Y - p.cy) / p.scale;
      double u = cosine * dx + sine * dy, v = cosine * dy - sine * dx;
      double m = clamp01(0.7 * (1 - distance(s->shape, u, v)) * p.scale / unit + 0.5);
      int su = (int)lround(fmin(fmax((u + 1.3) / 2.6 * (SKIN - 1), 0), SKIN - 1));
      int sv = (int)lround(fmin(fmax((v + 1.3) / 2.6 * (SKIN - 1), 0), SKIN - 1));
      int64_t at = ((int64_t)t * size + y) * size + x;
      for (int c = 0; c < 3; c++) {
        double value = m * s->skin[sv][su][c] + (1 - m) * rgb[c] +
                       0.02 * md_hash_normal(noise, (uint64_t)(3 * at + c));
        to[3 * ((int64_t)y * size + x) + c] = (uint8_t)lround(255 * clamp01(value));
      }
    }
  }
}

static bool make_one(const md_shapes_options *o, int i, const char *path, uint8_t *rgb, Scene *s,
                     md_diags *d) {
  char name[32];
  snprintf(name, sizeof name, "shapes.%d", i);
  Draw draw = {.key = md_hash_key(name, o->seed)};
  draw_scene(s, &draw, i % CLASSES, (int)lround(o->seconds * (double)FPS));
  md_encoder *e = md_encoder_open(path, o->size, o->size, FPS, d);
  if (!e) return false;
  uint64_t noise = md_hash_key("noise", draw.key);
  bool ok = true;
  for (int t = 0; ok && t < s->frames; t++) {
    render(s, t, o->size, noise, rgb);
    ok = md_encoder_frame(e, rgb);
  }
  return md_encoder_close(e) && ok;
}

bool md_shapes_make(const md_shapes_options *o, md_diags *d) {
  md_arena *a = md_arena_create();
  Scene *s = malloc(sizeof *s);
  uint8_t *rgb = malloc((size_t)3 * (size_t)o->size * (size_t)o->size);
  const char *list_path = md_format(a, "%s/videos.csv", o->folder);
  md_text list = {0};
  bool ok = s && rgb;
  if (ok && mkdir(o->folder, 0777) != 0 && errno != EEXIST)
    ok =
        md_error(d, E0843, MD_IN_FILE(o->folder), "the folder cannot be made: %s", strerror(errno));
  if (ok && access(list_path, F_OK) == 0) {
    ok = md_error(d, E0211, MD_IN_FILE(list_path), "the folder already holds a set of videos");
    md_hint(d, "name another folder, or remove this one");
  }
  for (int i = 0; ok && i < o->videos; i++) {
    const char *name = md_format(a, "shapes_%04d.%s", i, i % 2 ? "mkv" : "mp4");
    ok = make_one(o, i, md_format(a, "%s/%s", o->folder, name), rgb, s, d);
    md_put(&list, "%s,%d\n", name, i % CLASSES);
  }
  ok = ok && md_file_save(list_path, list.s, list.len, d);
  md_text_free(&list);
  free(rgb);
  free(s);
  md_arena_destroy(a);
  return ok;
}
