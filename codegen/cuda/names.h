// SPDX-License-Identifier: Apache-2.0
// Texts of kernels that are written already, by digest: a number for each.
#ifndef CODEGEN_CUDA_NAMES_H
#define CODEGEN_CUDA_NAMES_H

#include "base/base.h"

typedef struct md_cu_names {
  md_digest *text;
  int num, cap;
} md_cu_names;
// The number of a text; a new one gets the next number.
int md_cu_names_find(md_cu_names *n, md_digest text);

#endif
