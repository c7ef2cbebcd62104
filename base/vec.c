// SPDX-License-Identifier: Apache-2.0
// Growth of `T *v; int num_v, cap_v;`: doubling, so that pushing n items costs O(n).
#include "base/base.h"

#include <limits.h>
#include <stdlib.h>

void *md_grow(void *data, int *cap, size_t size) {
  if (*cap > INT_MAX / 2) md_out_of_memory(SIZE_MAX);
  int want = *cap ? 2 * *cap : 8;
  void *grown = reallocarray(data, (size_t)want, size);
  if (!grown) md_out_of_memory((size_t)want * size);
  *cap = want;
  return grown;
}
