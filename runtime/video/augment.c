// SPDX-License-Identifier: Apache-2.0
// What is drawn for the look of one visual clip (spec §5.1): colours, gray, blur. The arithmetic is
// part of the compiled step; here are only its numbers.
#include "runtime/video/video.h"

// Counters under a key of their own, so that no draw of another kind moves when one is added here.
enum { AT_COLOR, AT_ORDER, AT_FACTOR, AT_GRAY = AT_FACTOR + MD_COLOR_KINDS, AT_BLUR, AT_SIGMA };

static double between(uint64_t key, int at, double lo, double hi) {
  return lo + (hi - lo) * md_hash_01(key, (uint64_t)at);
}

// Brightness pulls towards black, contrast towards the frame's mean, saturation towards gray.
static void set_stage(float stage[3], md_color_kind kind, double factor) {
  stage[0] = (float)factor;
  stage[1] = kind == MD_CONTRAST ? (float)(1 - factor) : 0;
  stage[2] = kind == MD_SATURATION ? (float)(1 - factor) : 0;
}

static void draw_color(const md_augment_rule *r, uint64_t key, md_look *look) {
  // The n-th of the six orders: the first kind, then whether the other two change places.
  int order = (int)(md_hash_at(key, AT_ORDER) % 6), first = order / 2;
  int kinds[MD_COLOR_KINDS] = {first, (first + 1) % 3, (first + 2) % 3};
  if (order % 2) {
    kinds[1] = (first + 2) % 3;
    kinds[2] = (first + 1) % 3;
  }
  bool is_drawn = md_hash_01(key, AT_COLOR) < r->color;
  for (int i = 0; i < MD_COLOR_KINDS; i++) {
    double s = r->strength[kinds[i]];
    double f = between(key, AT_FACTOR + kinds[i], MD_MAX(0, 1 - s), 1 + s);
    set_stage(look->color[i], is_drawn ? (md_color_kind)kinds[i] : MD_BRIGHTNESS, is_drawn ? f : 1);
  }
}

md_look md_look_draw(const md_augment_rule *r, uint64_t sample_key, md_slot slot) {
  uint64_t key = md_hash_at(md_hash_key("look", sample_key), (uint64_t)slot);
  md_look look = {.gray = md_hash_01(key, AT_GRAY) < r->gray};
  draw_color(r, key, &look);
  if (md_hash_01(key, AT_BLUR) < r->blur)
    look.sigma = (float)between(key, AT_SIGMA, r->sigma_min, r->sigma_max);
  return look;
}
