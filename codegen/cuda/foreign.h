// SPDX-License-Identifier: Apache-2.0
// Inside the CUDA back end: foreign.c, which tells program.c what another engine could do.
#ifndef CODEGEN_CUDA_FOREIGN_H
#define CODEGEN_CUDA_FOREIGN_H

#include "codegen/cuda/cuda.h"

// A region as md_conv_group has it; MD_NONE: it has no such part.
typedef struct md_foreign_conv {
  const md_node *node;  // conv3d, conv3d_dgrad or conv3d_wgrad
  md_val x, w, y, part[MD_NUM_CONV_PARTS];
  md_conv_fused fused;
  int first, num;  // launches of the module
} md_foreign_conv;
// Those of the graph that m was made of, in the order of their launches. In `a`.
md_foreign_conv *md_cu_foreign_convs(const md_graph *g, const md_cuda_module *m, int *num,
                                     md_arena *a);

#endif
