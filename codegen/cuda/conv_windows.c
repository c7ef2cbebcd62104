// SPDX-License-Identifier: Apache-2.0
// Operands that TMA copies by itself. What a product takes of an activation in a step, one tap of 64 channels for
// each of some pixels in a row, is one copy: a tensor map tells TMA where windows begin, how far apart they are
// and what is zero around the image; a thread tells it the first window, the tap and the channels. No other
// thread finds a pixel's place.
#include "codegen/cuda/conv.h"

// Where the window of place 0 begins: at its first element, whichever tap that is.
static int64_t begin_of(const md_cu_axis_map *m) {
  return m->from0 + (m->from_m < 0 ? (m->taps - 1) * m->from_m : 0);
}

// What is left of the source behind the last window's begin; a map counts it from the source's end.
static int64_t end_of(const md_cu_axis_map *m) {
  return begin_of(m) + (m->num - 1) * m->from_q - (m->size - 1);
}

static bool is_possible(const md_cu_axis_map *m) {
  int64_t last_tap = (m->taps - 1) * (m->from_m < 0 ? -m->from_m : m->from_m);
  return m->taps > 0 && MD_MIN(begin_of(m), end_of(m)) >= MD_WINDOW_FIRST &&
         MD_MAX(begin_of(m), end_of(m)) <= MD_WINDOW_LAST && m->from_q <= MD_WINDOW_STEP &&
         last_tap <= MD_WINDOW_TAP;
}

const md_windows *md_cu_windows_of(const md_cu_work *w, md_val v, const md_cu_map *a, int pixels) {
  const md_type *t = md_type_in(w->r->g, v);
  if (t->block != t->shape.dim[1]) return NULL;  // the channels of a pixel lie together
  md_windows *to = MD_NEW_ARRAY(w->module->arena, md_windows, 1);
  *to = (md_windows){.dim = {t->shape.dim[1], 0, 0, 0, t->shape.dim[0]},
                     .channels = MD_WINDOW_CHANNELS,
                     .pixels = pixels};
  for (int i = 0; i < 3; i++) {  // width comes first
    const md_cu_axis_map *m = &a->axis[2 - i];
    if (!is_possible(m)) return NULL;
    to->dim[1 + i] = m->size;
    to->first[i] = begin_of(m);
    to->last[i] = end_of(m);
    to->step[i] = m->from_q;
  }
  return to;
}

void md_cu_window_begin(md_cu_kernel *k, const md_cu_map *a, md_cu_ix at[3]) {
  for (int i = 0; i < 3; i++) {
    md_cu_ix q = md_format(k->w->arena, "q%d", i);
    at[i] = md_cu_linear(k, 1, &q, &a->axis[i].from_q, begin_of(&a->axis[i]));
  }
}

void md_cu_window_tap(md_cu_kernel *k, const md_cu_map *a, md_cu_ix tap, md_cu_ix at[3]) {
  int64_t h = a->axis[1].taps, w = a->axis[2].taps;
  md_cu_ix digit[3] = {md_cu_digit(k, tap, h * w, 0), md_cu_digit(k, tap, w, h),
                       md_cu_digit(k, tap, 1, w)};
  for (int i = 0; i < 3; i++) {
    const md_cu_axis_map *m = &a->axis[i];
    int64_t from = m->from_m < 0 ? (1 - m->taps) * m->from_m : 0;
    at[i] = md_cu_linear(k, 1, &digit[i], &m->from_m, from);
  }
}

void md_cu_put_window_copy(md_cu_kernel *k, md_val v, const md_windows *windows, const char *to,
                           md_cu_ix channel, const md_cu_ix begin[3], const md_cu_ix tap[3]) {
  md_cu_line(k, md_cu_comment(k, v),
             "md_tma_im2col(%s, %s, full + stage, %s, %s, %s, %s, sample, %s, %s, %s);", to,
             md_cu_tensor_map(k, v, windows), channel, begin[2], begin[1], begin[0], tap[2], tap[1],
             tap[0]);
}
