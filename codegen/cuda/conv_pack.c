// SPDX-License-Identifier: Apache-2.0
// Weights in the order of a convolution's terms: [channel of the result][tap][channel of the source,
// rounded up to eight], with rows to fill tiles and terms to fill steps, which are 0. For wgmma a step's
// lines of a tile lie together, swizzled as they are to be in shared memory.
#include "codegen/cuda/conv.h"

static int64_t chunks_of(const md_cu_pack *p) {
  return md_cu_map_taps(&p->map) * md_ceil_div(p->in, MD_CU_LANES);
}

static int64_t step_of(const md_cu_pack *p) { return p->tile ? MD_CU_WGMMA_STEP : MD_CU_STEP; }

int64_t md_cu_pack_steps(const md_cu_pack *p) {
  return md_ceil_div(chunks_of(p) * MD_CU_LANES, step_of(p));
}

int64_t md_cu_pack_bytes(const md_cu_pack *p) {
  return p->rows * md_cu_pack_steps(p) * step_of(p) * (p->narrow ? 2 : 4);
}

// Row and term of element e.
static void find(md_cu_kernel *k, const md_cu_pack *p, md_cu_ix *row, md_cu_ix *term) {
  int64_t steps = md_cu_pack_steps(p), line = step_of(p), tile = p->tile * line;
  if (!p->tile) {
    *row = md_cu_digit(k, "e", steps * line, 0), *term = md_cu_digit(k, "e", 1, steps * line);
    return;
  }
  md_cu_ix of_row[] = {md_cu_digit(k, "e", tile * steps, 0), md_cu_digit(k, "e", line, p->tile)};
  *row = md_cu_linear(k, 2, of_row, (int64_t[]){p->tile, 1}, 0);
  md_cu_ix chunk =
      md_cu_name(k, md_format(k->w->arena, "%s ^ %s %% 8", md_cu_digit(k, "e", 8, 8), *row));
  md_cu_ix of_term[] = {md_cu_digit(k, "e", tile, steps), chunk, md_cu_digit(k, "e", 1, 8)};
  *term = md_cu_linear(k, 3, of_term, (int64_t[]){line, 8, 1}, 0);
}

// The weight of a term, by the axes of the tensor: [out, in, taps] of the forward convolution.
static md_cu_spot weight_at(md_cu_kernel *k, const md_cu_pack *p, md_cu_ix row, md_cu_ix channel,
                            md_cu_ix tap) {
  md_cu_spot s = {.shape = &md_type_in(k->w->r->g, p->weights)->shape};
  s.at[0] = p->backward ? channel : row;
  s.at[1] = p->backward ? row : channel;
  int64_t div = 1;
  for (int i = 2; i >= 0; i--) {
    const md_cu_axis_map *m = &p->map.axis[i];
    md_cu_ix at = md_cu_digit(k, tap, div, m->taps);
    s.at[2 + i] = md_cu_linear(k, 1, &at, &m->tap_step, m->tap0);
    div *= m->taps;
  }
  return s;
}

void md_cu_put_pack(md_cu_work *w, const md_cu_pack *p, int64_t place) {
  if (!chunks_of(p)) return;
  md_cu_kernel k;
  md_cu_begin(&k, w, "weights in the order of the terms");
  k.is_early = true;
  int64_t num = p->rows * md_cu_pack_steps(p) * step_of(p);
  int64_t lanes = md_round_up(p->in, MD_CU_LANES);
  md_cu_line(&k, NULL, "const int e = md_block() * %d + md_thread();", MD_CU_THREADS);
  md_cu_mark all = md_cu_open(&k, NULL, "if (e < %lld) {", (long long)num);
  const char *type = p->narrow ? "md_bf16" : "float";
  const char *to = md_cu_workspace(&k, place, md_cu_pack_bytes(p), type, true);
  md_cu_ix row, term;
  find(&k, p, &row, &term);
  md_cu_ix tap = md_cu_digit(&k, term, lanes, 0), channel = md_cu_digit(&k, term, 1, lanes);
  md_cu_line(&k, NULL, "float x = 0.0f;");
  md_cu_mark in =
      md_cu_open(&k, NULL, "if (%s < %lld && %s < %lld && %s < %lld) {", row, (long long)p->out,
                 channel, (long long)p->in, tap, (long long)md_cu_map_taps(&p->map));
  md_cu_spot s = weight_at(&k, p, row, channel, tap);
  md_cu_line(&k, NULL, "x = %s;", md_cu_value_as(&k, p->weights, &s, MD_CU_FLOAT));
  md_cu_close(&k, in);
  md_cu_line(&k, NULL, p->narrow ? "%s[e] = md_f2bf(x);" : "%s[e] = x;", to);
  md_cu_close(&k, all);
  md_cu_end(&k, md_ceil_div(num, MD_CU_THREADS));
}
