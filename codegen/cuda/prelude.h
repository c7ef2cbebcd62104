// SPDX-License-Identifier: Apache-2.0
// The parts of the device prelude (prelude.c joins them).
#ifndef CODEGEN_CUDA_PRELUDE_H
#define CODEGEN_CUDA_PRELUDE_H

extern const char md_cu_prelude_tensor[];  // prelude_tensor.c: vectors, ldmatrix, mma

#endif
