// SPDX-License-Identifier: Apache-2.0
// Initial values of states, a pure function of name, seed and index.
#ifndef BASE_INIT_H
#define BASE_INIT_H

#include "base/base.h"

// In the order of the enum attribute `init` of op `state`.
typedef enum md_init {
  MD_INIT_zeros,
  MD_INIT_ones,
  MD_INIT_fill,
  MD_INIT_normal,
  MD_INIT_uniform,
  MD_INIT_unit_rows,
  MD_INIT_copy
} md_init;
extern const char *const md_init_names[MD_INIT_copy + 1];  // "zeros", ...

// Element `first` .. `first+n-1` of a tensor [.., row] into out: fill a; normal: mean a, std b;
// uniform: [a-b, a+b); unit_rows: Gaussian rows of `row` elements with norm 1 (first and n are then
// multiples of row). `copy` is resolved by the caller, who passes the name of the other state.
void md_init_values(md_init init, double a, double b, const char *name, uint64_t seed, int64_t row,
                    int64_t first, int64_t n, double *out);

#endif
