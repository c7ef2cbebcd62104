// SPDX-License-Identifier: Apache-2.0
// Motion maps from frame differences (spec 4.1): D = mean over RGB of |I_t - I_{t-1}| on [0,1].
//
// With diff = sum over RGB of the byte differences, 255 * D = diff / 3; so no division happens before
// the resize, and q = round(255 * D) is one rounding of the interpolated value.
#include "runtime/video/motion.h"

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

void md_motion_signed_diff(const md_image *a, const md_image *b, uint16_t *diff) {
  MD_ASSERT(a->w == b->w && a->h == b->h, "frames of %dx%d and %dx%d", a->w, a->h, b->w, b->h);
  int64_t pixels = (int64_t)a->w * a->h;
  for (int c = 0; c < 3; c++)
    for (int64_t i = 0; i < pixels; i++)
      *diff++ = (uint16_t)(255 + a->rgb[3 * i + c] - b->rgb[3 * i + c]);
}

void md_motion_resize(const uint16_t *diff, int w, bool is_signed, const md_tap *rows, int num_rows,
                      const md_tap *cols, int num_cols, uint8_t *out) {
  // Signed: 1 + x / (255 / 127) takes 0, 255 and 510 to 1, 128 and 255.
  float per = is_signed ? 255.0F / 127 : 3, first = is_signed ? 1 : 0;
  for (int y = 0; y < num_rows; y++) {
    md_tap row = rows[y];
    const uint16_t *up = diff + (int64_t)row.lo * w, *low = diff + (int64_t)row.hi * w;
    for (int x = 0; x < num_cols; x++) {
      md_tap col = cols[x];
      float value = md_bilinear(up[col.lo], up[col.hi], low[col.lo], low[col.hi], col, row);
      *out++ = (uint8_t)(value / per + first + 0.5F);
    }
  }
}
