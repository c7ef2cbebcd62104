// SPDX-License-Identifier: Apache-2.0
// A flow field as the bytes of a map. Edges of its magnitude leave out what moves as a whole, such as
// the background of a moving camera: a constant has no gradient (spec 4.3).
#include "runtime/video/motion.h"

#include <math.h>

enum { UNIT_SIDE = 256 };  // flow counts pixels of a frame with this short side (spec 4.3)

const char *const md_map_kind_names[MD_NUM_MAP_KINDS + 1] = {
    [MD_MAP_DIFF] = "diff", [MD_MAP_EDGE] = "edge", [MD_MAP_FLOW] = "flow"};

int md_map_planes(md_map_kind k) { return k == MD_MAP_FLOW ? 3 : 1; }

int md_motion_planes(const md_motion_rule *r) {
  if (r->maps) return md_map_planes(r->kind);
  return r->signed_rgb ? 3 : 1;
}

void md_motion_grey(const md_image *im, float *grey) {
  int64_t pixels = (int64_t)im->w * im->h;
  for (int64_t i = 0; i < pixels; i++) {
    const uint8_t *p = im->rgb + 3 * i;
    grey[i] = 0.299F * (float)p[0] + 0.587F * (float)p[1] + 0.114F * (float)p[2];
  }
}

void md_motion_magnitude(const float *u, const float *v, int64_t n, float *m) {
  for (int64_t i = 0; i < n; i++) m[i] = sqrtf(u[i] * u[i] + v[i] * v[i]);
}

void md_motion_edges(const float *m, int w, int h, float scale, float clamp, uint8_t *q) {
  for (int y = 0; y < h; y++) {
    const float *up = m + (int64_t)MD_MAX(y - 1, 0) * w, *mid = m + (int64_t)y * w;
    const float *low = m + (int64_t)MD_MIN(y + 1, h - 1) * w;
    for (int x = 0; x < w; x++) {
      int l = MD_MAX(x - 1, 0), r = MD_MIN(x + 1, w - 1);
      float gx = (up[r] - up[l]) + 2 * (mid[r] - mid[l]) + (low[r] - low[l]);
      float gy = (low[l] - up[l]) + 2 * (low[x] - up[x]) + (low[r] - up[r]);
      float e = sqrtf(scale * scale * (gx * gx + gy * gy) + 1e-12F);
      q[(int64_t)y * w + x] = (uint8_t)(MD_MIN(e, clamp) * (255 / clamp) + 0.5F);
    }
  }
}

void md_motion_signed(const float *x, int64_t n, float clamp, uint8_t *q) {
  for (int64_t i = 0; i < n; i++) {
    float unit = MD_MAX(-1.0F, MD_MIN(x[i] / clamp, 1.0F));
    q[i] = (uint8_t)(128 + lrintf(127 * unit));
  }
}

md_map_rule md_map_rule_full(md_map_rule r) {
  if (!r.lag30) r.lag30 = r.kind == MD_MAP_DIFF ? 1 : 5;
  if (!r.short_side) r.short_side = 128;
  if (r.scale <= 0) r.scale = 0.125F;
  if (r.clamp <= 0) r.clamp = r.kind == MD_MAP_EDGE ? 10 : 20;
  return r;
}

float md_map_unit(int w, int h) { return (float)UNIT_SIDE / (float)MD_MIN(w, h); }

void md_map_planes_from(const md_map_info *i, float *u, float *v, float *m, uint8_t *planes) {
  int64_t pixels = (int64_t)i->w * i->h;
  for (int64_t k = 0; k < pixels; k++) u[k] *= i->unit, v[k] *= i->unit;
  md_motion_magnitude(u, v, pixels, m);
  if (i->kind == MD_MAP_EDGE) {
    md_motion_edges(m, i->w, i->h, i->scale, i->clamp, planes);
  } else {
    md_motion_signed(u, pixels, i->clamp, planes);
    md_motion_signed(v, pixels, i->clamp, planes + pixels);
    md_motion_signed(m, pixels, i->clamp, planes + 2 * pixels);
  }
}

// Mean of what the network sees: of the magnitude's plane, for a flow.
float md_map_score(const md_map_info *i, const uint8_t *planes) {
  int64_t pixels = (int64_t)i->w * i->h, sum = 0;
  bool is_flow = i->kind == MD_MAP_FLOW;
  const uint8_t *q = planes + (is_flow ? 2 * pixels : 0);
  for (int64_t k = 0; k < pixels; k++) sum += is_flow ? q[k] - 128 : q[k];
  return (float)((double)sum / (double)pixels / (is_flow ? 127 : 255));
}
