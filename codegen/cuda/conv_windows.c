// SPDX-License-Identifier: Apache-2.0
// A source that TMA copies by itself. What a product takes of it in a step, one tap of 64 channels for each
// pixel of the tile, is one copy: a tensor map tells TMA where windows begin, how far apart they are and what
// is zero around the source; a thread tells it the tile's first window, the tap and the channels. No other
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
  return MD_MIN(begin_of(m), end_of(m)) >= MD_WINDOW_FIRST &&
         MD_MAX(begin_of(m), end_of(m)) <= MD_WINDOW_LAST && m->from_q <= MD_WINDOW_STEP &&
         last_tap <= MD_WINDOW_TAP;
}

const md_windows *md_cu_windows_of(const md_cu_convolution *c, const md_cu_side *source,
                                   const md_cu_map *a) {
  if (!source->is_plain || c->in % MD_CU_WGMMA_STEP || !md_cu_map_taps(a)) return NULL;
  const md_type *t = md_type_in(c->w->r->g, source->val);
  if (t->block != c->in) return NULL;  // the channels of a pixel lie together
  md_windows *to = MD_NEW_ARRAY(c->w->module->arena, md_windows, 1);
  *to = (md_windows){.dim = {c->in, 0, 0, 0, c->samples},
                     .channels = MD_CU_WGMMA_STEP,
                     .pixels = MD_CU_WGMMA_PIXELS};
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

void md_cu_put_window(md_cu_product *p, const char *first) {
  md_cu_put_place(&p->k, &p->a, first, "sample0");
  for (int i = 0; i < 3; i++) {
    md_cu_ix q = md_format(p->k.w->arena, "q%d", i);
    const md_cu_axis_map *m = &p->a.axis[i];
    md_cu_line(&p->k, NULL, "const int begin%d = %s;", i,
               md_cu_linear(&p->k, 1, &q, &m->from_q, begin_of(m)));
  }
}

// Elements from the begin of a window to the tap.
static md_cu_ix tap_of(md_cu_product *p, int axis, md_cu_ix tap, int64_t div, int64_t mod) {
  const md_cu_axis_map *m = &p->a.axis[axis];
  md_cu_ix digit = md_cu_digit(&p->k, tap, div, mod);
  return md_cu_linear(&p->k, 1, &digit, &m->from_m, m->from_m < 0 ? (1 - m->taps) * m->from_m : 0);
}

void md_cu_put_window_copy(md_cu_product *p, const md_windows *windows, const char *to) {
  md_cu_kernel *k = &p->k;
  int64_t steps = p->c->in / MD_CU_WGMMA_STEP, h = p->a.axis[1].taps, w = p->a.axis[2].taps;
  md_cu_ix tap = md_cu_digit(k, "step", steps, 0), rest = md_cu_digit(k, "step", 1, steps);
  md_cu_ix channel = md_cu_linear(k, 1, &rest, (int64_t[]){MD_CU_WGMMA_STEP}, 0);
  md_cu_ix at[3] = {tap_of(p, 0, tap, h * w, 0), tap_of(p, 1, tap, w, h), tap_of(p, 2, tap, 1, w)};
  md_cu_line(k, md_cu_comment(k, p->source.val),
             "md_tma_im2col(%s, %s, full + stage, %s, begin2, begin1, begin0, sample, %s, %s, "
             "%s);",
             to, md_cu_tensor_map(k, p->source.val, windows), channel, at[2], at[1], at[0]);
}
