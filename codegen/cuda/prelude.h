// SPDX-License-Identifier: Apache-2.0
// The parts of the device prelude (prelude.c joins them).
#ifndef CODEGEN_CUDA_PRELUDE_H
#define CODEGEN_CUDA_PRELUDE_H

#include "base/base.h"

extern const char md_cu_prelude_tensor[];  // prelude_tensor.c: vectors, ldmatrix, mma, copies
void md_cu_prelude_hopper(md_text *to);    // prelude_hopper.c: what only sm_90a has

#endif
