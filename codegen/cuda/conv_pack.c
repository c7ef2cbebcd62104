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

// Chunks of a row: those of terms, then what fills the last step.
static int64_t chunks_of_row(const md_cu_pack *p) {
  return md_cu_pack_steps(p) * step_of(p) / MD_CU_LANES;
}

// Where chunk number `chunk` of the row lies, in chunks.
static const char *place_of(md_arena *a, const md_cu_pack *p, const char *chunk) {
  if (!p->tile) return md_format(a, "row * %lld + %s", (long long)chunks_of_row(p), chunk);
  return md_format(a, "((row / %d * %lld + %s / 8) * %d + row %% %d) * 8 + (%s %% 8 ^ row %% 8)",
                   p->tile, (long long)md_cu_pack_steps(p), chunk, p->tile, p->tile, chunk);
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

// Neighbouring threads take what lies side by side in the weights.
static void put_term(md_cu_kernel *k, const md_cu_pack *p) {
  long long taps = (long long)md_cu_map_taps(&p->map), chunks = md_ceil_div(p->in, MD_CU_LANES);
  md_cu_line(k, NULL, "const int tap = e %% %lld;", taps);
  if (p->backward) {
    md_cu_line(k, NULL, "const int row = e / %lld %% %lld;", taps, (long long)p->rows);
    md_cu_line(k, NULL, "const int first = e / %lld * 8;", taps * (long long)p->rows);
  } else {
    md_cu_line(k, NULL, "const int row = e / %lld;", taps * chunks);
    md_cu_line(k, NULL, "const int first = e / %lld %% %lld * 8;", taps, chunks);
  }
  md_cu_line(k, NULL, "const int chunk = tap * %lld + first / 8;", chunks);
}

static void put_weights(md_cu_kernel *k, const md_cu_pack *p) {
  md_cu_line(k, NULL, "md_f8 v = {{0}};");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int j = 0; j < %d; j++) {", MD_CU_LANES);
  md_cu_line(k, NULL, "const int c = first + j;");
  md_cu_mark in =
      md_cu_open(k, NULL, "if (row < %lld && c < %lld) {", (long long)p->out, (long long)p->in);
  md_cu_spot s = weight_at(k, p, "row", "c", "tap");
  md_cu_line(k, NULL, "v.x[j] = %s;", md_cu_value_as(k, p->weights, &s, MD_CU_FLOAT));
  md_cu_close(k, in);
  md_cu_close(k, m);
}

static void put_store(md_cu_kernel *k, const md_cu_pack *p, const char *to, const char *chunk,
                      const char *v) {
  const char *form =
      p->narrow ? "md_st_h8(%s + (%s) * 8, md_round_h8(%s));" : "md_st_f8(%s + (%s) * 8, %s);";
  md_cu_line(k, NULL, "%s", md_format(k->w->arena, form, to, place_of(k->w->arena, p, chunk), v));
}

void md_cu_put_pack(md_cu_work *w, const md_cu_pack *p, int64_t place) {
  int64_t chunks = chunks_of(p), num = p->rows * chunks;
  if (!chunks) return;
  md_cu_kernel k;
  md_cu_begin(&k, w, "weights in the order of the terms");
  k.is_early = true;
  md_cu_line(&k, NULL, "const int e = md_block() * %d + md_thread();", MD_CU_THREADS);
  md_cu_mark all = md_cu_open(&k, NULL, "if (e < %lld) {", (long long)num);
  const char *type = p->narrow ? "md_bf16" : "float";
  const char *to = md_cu_workspace(&k, place, md_cu_pack_bytes(p), type, true);
  put_term(&k, p);
  put_weights(&k, p);
  put_store(&k, p, to, "chunk", "v");
  if (chunks_of_row(p) > chunks) {
    md_cu_mark last = md_cu_open(&k, "nothing more fills the step", "if (chunk == %lld) {",
                                 (long long)chunks - 1);
    md_cu_line(&k, NULL, "const md_f8 none = {{0}};");
    md_cu_mark m = md_cu_open(&k, NULL, "for (int z = %lld; z < %lld; z++) {", (long long)chunks,
                              (long long)chunks_of_row(p));
    put_store(&k, p, to, "z", "none");
    md_cu_close(&k, m);
    md_cu_close(&k, last);
  }
  md_cu_close(&k, all);
  md_cu_end(&k, md_ceil_div(num, MD_CU_THREADS));
}
