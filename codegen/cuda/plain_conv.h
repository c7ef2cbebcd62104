// SPDX-License-Identifier: Apache-2.0
// Inside the CUDA back end: plain_conv.c, which tells program.c what another engine could do.
#ifndef CODEGEN_CUDA_PLAIN_CONV_H
#define CODEGEN_CUDA_PLAIN_CONV_H

#include "codegen/cuda/cuda.h"

typedef struct md_plain_conv {
  const md_node *node;  // conv3d without bias, conv3d_dgrad or conv3d_wgrad
  int first, num;       // launches of the module
} md_plain_conv;
// Those of the graph that m was made of, in the order of their launches. In `a`.
md_plain_conv *md_cu_plain_convs(const md_graph *g, const md_cuda_module *m, int *num, md_arena *a);

#endif
