// SPDX-License-Identifier: Apache-2.0
// Initial values of states. Element i of a tensor depends on name, seed and i alone, so a state may
// be filled in pieces, by any thread, in any order.
#include "base/init.h"

#include <math.h>

const char *const md_init_names[] = {
    [MD_INIT_zeros] = "zeros",   [MD_INIT_ones] = "ones",       [MD_INIT_fill] = "fill",
    [MD_INIT_normal] = "normal", [MD_INIT_uniform] = "uniform", [MD_INIT_unit_rows] = "unit_rows",
    [MD_INIT_copy] = "copy",
};

// f32 arithmetic, as in the golden sets: the same bits in every type that holds an f32.
static double uniform(uint64_t key, uint64_t i, double a, double b) {
  float scaled = (float)b * (float)md_hash_unit(key, i);
  return (double)((float)a + scaled);
}

// n / row rows of norm 1; a Gaussian vector points in a uniformly random direction.
static void unit_rows(uint64_t key, int64_t row, int64_t first, int64_t n, double *out) {
  for (int64_t start = 0; start < n; start += row) {
    double *y = out + start, sum = 0;
    for (int64_t j = 0; j < row; j++) {
      y[j] = md_hash_normal(key, (uint64_t)(first + start + j));
      sum += y[j] * y[j];
    }
    double norm = sqrt(sum);
    for (int64_t j = 0; j < row; j++) y[j] = norm > 0 ? y[j] / norm : j == 0;
  }
}

void md_init_values(md_init init, double a, double b, const char *name, uint64_t seed, int64_t row,
                    int64_t first, int64_t n, double *out) {
  uint64_t key = md_hash_key(name, seed);
  switch (init) {
  case MD_INIT_zeros:
    for (int64_t i = 0; i < n; i++) out[i] = 0;
    return;
  case MD_INIT_ones:
    for (int64_t i = 0; i < n; i++) out[i] = 1;
    return;
  case MD_INIT_fill:
    for (int64_t i = 0; i < n; i++) out[i] = a;
    return;
  case MD_INIT_normal:
    for (int64_t i = 0; i < n; i++) out[i] = a + b * md_hash_normal(key, (uint64_t)(first + i));
    return;
  case MD_INIT_uniform:
    for (int64_t i = 0; i < n; i++) out[i] = uniform(key, (uint64_t)(first + i), a, b);
    return;
  case MD_INIT_unit_rows:
    MD_ASSERT(row > 0 && first % row == 0 && n % row == 0, "unit_rows '%s': a part of a row", name);
    unit_rows(key, row, first, n, out);
    return;
  case MD_INIT_copy: break;
  }
  MD_ASSERT(false, "state '%s': init %d has no values of its own", name, (int)init);
}
