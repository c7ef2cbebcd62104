// SPDX-License-Identifier: Apache-2.0
// What a region has to do, whoever does it.
#ifndef CODEGEN_WORK_H
#define CODEGEN_WORK_H

#include "codegen/region.h"

typedef struct md_work {
  double flops;
  double leaf_bytes;  // of inputs and states that it reads
  double made_bytes;  // of what other regions made for it, and of what it makes
} md_work;
md_work md_work_of_region(const md_region_view *r);
// Bytes of v that the region touches.
double md_work_bytes(const md_region_view *r, md_val v);

#endif
