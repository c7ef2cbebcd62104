// SPDX-License-Identifier: Apache-2.0
// Schedules: how the product of a convolution is made.
#include "codegen/cuda/conv.h"

const char *const md_cuda_math_names[MD_CUDA_MATHS] = {"fma", "mma", "wgmma"};

char *md_cuda_schedule_text(const md_cuda_schedule *s, char buf[MD_CUDA_SCHEDULE_CHARS]) {
  char stages[16] = "";
  if (s->stages) snprintf(stages, sizeof stages, " s%d", s->stages);
  snprintf(buf, MD_CUDA_SCHEDULE_CHARS, "%s %dx%d %d%s%s", md_cuda_math_names[s->math], s->m, s->n,
           s->blocks, stages, s->copies ? " copies" : "");
  return buf;
}

bool md_cuda_schedule_equal(const md_cuda_schedule *a, const md_cuda_schedule *b) {
  return a->math == b->math && a->m == b->m && a->n == b->n && a->blocks == b->blocks &&
         a->stages == b->stages && a->copies == b->copies;
}

md_cuda_schedule md_cu_way(md_cuda_math math, int m, int n, int blocks) {
  return (md_cuda_schedule){.math = math, .m = m, .n = n, .blocks = blocks};
}

void md_cu_add_way(md_cu_ways *w, md_cuda_schedule s) {
  for (int i = 0; i < w->num; i++)
    if (md_cuda_schedule_equal(&w->at[i], &s)) return;
  if (w->num < MD_CUDA_WAYS) w->at[w->num++] = s;
}

void md_cu_add_copies(md_cu_ways *w, md_cuda_schedule s) {
  s.copies = true;
  md_cu_add_way(w, s);
}

void md_cu_add_stages(md_cu_ways *w, md_cuda_schedule s, int most) {
  const int stages[] = {most - 1, most / 2};
  for (int i = 0; i < MD_COUNT(stages); i++) {
    s.stages = stages[i];
    if (s.stages >= MD_CU_MIN_STAGES) md_cu_add_way(w, s);
  }
}
