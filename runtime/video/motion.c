// SPDX-License-Identifier: Apache-2.0
// Motion maps from frame differences (spec 4.1): D = mean over RGB of |I_t - I_{t-1}| on [0,1].
//
// With diff = sum over RGB of the byte differences, 255 * D = diff / 3; so no division happens before
// the resize, and q = round(255 * D) is one rounding of the interpolated value.
#include "runtime/video/motion.h"

#include <math.h>
#include <stdlib.h>

void md_motion_diff(const md_image *a, const md_image *b, uint16_t *diff) {
  MD_ASSERT(a->w == b->w && a->h == b->h, "frames of %dx%d and %dx%d", a->w, a->h, b->w, b->h);
  int64_t pixels = (int64_t)a->w * a->h;
  for (int64_t i = 0; i < pixels; i++) {
    int sum = 0;
    for (int c = 0; c < 3; c++) sum += abs(a->rgb[3 * i + c] - b->rgb[3 * i + c]);
    diff[i] = (uint16_t)sum;
  }
}

void md_motion_plane(const uint16_t *diff, const md_image *geometry, int size, uint8_t *out) {
  MD_ASSERT(size >= 1 && size <= MD_MAX_CLIP_SIZE, "clip size %d", size);
  // The resized frame is wide x high with min(wide, high) = size; only its middle is computed.
  const md_image *g = geometry;
  double scale = (double)size / MD_MIN(g->disp_w, g->disp_h);
  int wide = (int)MD_MAX(size, lround(g->disp_w * scale));
  int high = (int)MD_MAX(size, lround(g->disp_h * scale));
  double step_x = (double)g->w / wide, step_y = (double)g->h / high;
  int left = (wide - size) / 2, top = (high - size) / 2;
  md_tap col[MD_MAX_CLIP_SIZE], row[MD_MAX_CLIP_SIZE];
  md_taps(col, size, left * step_x, step_x, g->w);
  md_taps(row, size, top * step_y, step_y, g->h);
  for (int y = 0; y < size; y++) {
    const uint16_t *up = diff + (int64_t)row[y].lo * g->w, *low = diff + (int64_t)row[y].hi * g->w;
    for (int x = 0; x < size; x++) {
      float fx = col[x].frac;
      float a = (float)up[col[x].lo] + fx * (float)(up[col[x].hi] - up[col[x].lo]);
      float b = (float)low[col[x].lo] + fx * (float)(low[col[x].hi] - low[col[x].lo]);
      out[(int64_t)y * size + x] = (uint8_t)((a + row[y].frac * (b - a)) / 3 + 0.5F);
    }
  }
}
