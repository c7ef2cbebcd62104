// SPDX-License-Identifier: Apache-2.0
// Schedules: how the product of a convolution is made.
#include "codegen/cuda/gen.h"

const char *const md_cuda_math_names[MD_CUDA_MATHS] = {"fma", "mma", "wgmma"};

char *md_cuda_schedule_text(const md_cuda_schedule *s, char buf[MD_CUDA_SCHEDULE_CHARS]) {
  snprintf(buf, MD_CUDA_SCHEDULE_CHARS, "%s %dx%d %d", md_cuda_math_names[s->math], s->m, s->n,
           s->blocks);
  return buf;
}

bool md_cuda_schedule_equal(const md_cuda_schedule *a, const md_cuda_schedule *b) {
  return a->math == b->math && a->m == b->m && a->n == b->n && a->blocks == b->blocks;
}

void md_cu_add_way(md_cu_ways *w, md_cuda_schedule s) {
  for (int i = 0; i < w->num; i++)
    if (md_cuda_schedule_equal(&w->at[i], &s)) return;
  if (w->num < MD_CUDA_WAYS) w->at[w->num++] = s;
}
