// SPDX-License-Identifier: Apache-2.0
// RGB frames: their memory, random and central crops, bilinear resize to what a network takes.
//
// Resize convention (spec 5.1, align_corners = False): output pixel i reads at
//     (i + 0.5) * in / out - 0.5, clamped to the first and last sample.
#include "runtime/video/video.h"

#include <math.h>
#include <stdlib.h>

enum { CROP_TRIES = 10, DRAWS_A_TRY = MD_CROP_DRAWS / CROP_TRIES };

static double between(double lo, double hi, double unit) { return lo + (hi - lo) * unit; }

static md_box middle(int w, int h, int box_w, int box_h) {
  return (md_box){(w - box_w) / 2, (h - box_h) / 2, box_w, box_h};
}

bool md_image_resize(md_image *im, int w, int h) {
  size_t need = (size_t)w * (size_t)h * 3;
  if (need > im->cap) {
    uint8_t *rgb = malloc(need);
    if (!rgb) return false;
    free(im->rgb);
    im->rgb = rgb;
    im->cap = need;
  }
  im->w = im->disp_w = w;
  im->h = im->disp_h = h;
  return true;
}

void md_image_free(md_image *im) {
  free(im->rgb);
  *im = (md_image){0};
}

md_box md_crop_draw(const md_crop_rule *rule, uint64_t key, uint64_t first, int w, int h) {
  int side = MD_MIN(w, h);
  if (rule->centered) return middle(w, h, side, side);
  double area_min = rule->area_max > 0 ? rule->area_min : 0.3;
  double area_max = rule->area_max > 0 ? rule->area_max : 1;
  double aspect_min = rule->aspect_max > 0 ? rule->aspect_min : 0.5;
  double aspect_max = rule->aspect_max > 0 ? rule->aspect_max : 2;
  for (uint64_t i = first; i < first + MD_CROP_DRAWS; i += DRAWS_A_TRY) {
    double area = between(area_min, area_max, md_hash_01(key, i)) * w * h;
    double aspect = exp(between(log(aspect_min), log(aspect_max), md_hash_01(key, i + 1)));
    double box_w = round(sqrt(area * aspect)), box_h = round(sqrt(area / aspect));
    if (box_w < 1 || box_h < 1 || box_w > w || box_h > h) continue;
    return (md_box){(int)(md_hash_01(key, i + 2) * (w - box_w + 1)),
                    (int)(md_hash_01(key, i + 3) * (h - box_h + 1)), (int)box_w, (int)box_h};
  }
  // The whole frame, cut where its aspect is beyond the bounds.
  double aspect = MD_MIN(MD_MAX((double)w / h, aspect_min), aspect_max);
  int box_w = (int)MD_MAX(1, MD_MIN(w, round(h * aspect)));
  int box_h = (int)MD_MAX(1, MD_MIN(h, round(w / aspect)));
  return middle(w, h, box_w, box_h);
}

void md_taps(md_tap *tap, int num, double in_first, double in_per_out, int in_size) {
  for (int i = 0; i < num; i++) {
    double at = in_first + (i + 0.5) * in_per_out - 0.5;
    at = MD_MIN(MD_MAX(at, 0), in_size - 1);
    int lo = (int)at;
    tap[i] = (md_tap){lo, MD_MIN(lo + 1, in_size - 1), (float)(at - lo)};
  }
}

void md_square_make(md_square *s, int w, int h, int disp_w, int disp_h, int size,
                    const double at[2]) {
  MD_ASSERT(size >= 1 && size <= MD_MAX_CLIP_SIZE, "clip size %d", size);
  double scale = (double)size / MD_MIN(disp_w, disp_h);
  int wide = (int)MD_MAX(size, lround(disp_w * scale));
  int high = (int)MD_MAX(size, lround(disp_h * scale));
  double step_x = (double)w / wide, step_y = (double)h / high;
  double left = ceil(at[0] * (wide - size) - 0.5), top = ceil(at[1] * (high - size) - 0.5);
  s->size = size;
  md_taps(s->col, size, left * step_x, step_x, w);
  md_taps(s->row, size, top * step_y, step_y, h);
}

// One row of the frame, resized along x: line[c][x].
static void resize_row(const uint8_t *row, const md_tap *col, int size,
                       float line[3][MD_MAX_CLIP_SIZE]) {
  for (int x = 0; x < size; x++) {
    const uint8_t *l = row + 3 * (int64_t)col[x].lo, *r = row + 3 * (int64_t)col[x].hi;
    for (int c = 0; c < 3; c++) line[c][x] = (float)l[c] + col[x].frac * (float)(r[c] - l[c]);
  }
}

// Two resized rows are kept: neighbours of the output share them.
void md_image_crop(const md_image *im, md_box box, int size, uint8_t *out, int64_t plane) {
  MD_ASSERT(size >= 1 && size <= MD_MAX_CLIP_SIZE, "clip size %d", size);
  MD_ASSERT(box.x >= 0 && box.y >= 0 && box.w >= 1 && box.h >= 1 && box.x + box.w <= im->w &&
                box.y + box.h <= im->h,
            "box %d,%d %dx%d in %dx%d", box.x, box.y, box.w, box.h, im->w, im->h);
  md_tap col[MD_MAX_CLIP_SIZE], row[MD_MAX_CLIP_SIZE];
  float line[2][3][MD_MAX_CLIP_SIZE];
  int held[2] = {-1, -1};  // rows in `line`: even ones in line[0], odd ones in line[1]
  md_taps(col, size, 0, (double)box.w / size, box.w);
  md_taps(row, size, 0, (double)box.h / size, box.h);
  for (int y = 0; y < size; y++) {
    int need[2] = {row[y].lo, row[y].hi};
    for (int i = 0; i < 2; i++) {
      int at = need[i] % 2;
      if (held[at] == need[i]) continue;
      const uint8_t *from = im->rgb + 3 * ((int64_t)(box.y + need[i]) * im->w + box.x);
      resize_row(from, col, size, line[at]);
      held[at] = need[i];
    }
    float fy = row[y].frac;
    for (int c = 0; c < 3; c++) {
      const float *a = line[need[0] % 2][c], *b = line[need[1] % 2][c];
      uint8_t *to = out + c * plane + (int64_t)y * size;
      for (int x = 0; x < size; x++) to[x] = (uint8_t)(a[x] + fy * (b[x] - a[x]) + 0.5F);
    }
  }
}
