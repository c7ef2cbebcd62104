// SPDX-License-Identifier: Apache-2.0
// One loop nest of a stream region: shared by stream.c (which values together) and nest.c (how).
#ifndef CODEGEN_CPU_NEST_H
#define CODEGEN_CPU_NEST_H

#include "codegen/cpu/emit.h"

enum { MD_NEST_VALUES = 64 };
// A walk over all places of `shape`: values stored there, reductions that add up over the axes not
// in `kept` (bit i: axis i; axis 0 is kept as its group when `groups` > 1).
typedef struct md_nest {
  md_kernel *k;
  const md_shape *shape;
  int block;     // > 0: lanes are channels, in blocks of that many
  int min_tail;  // axes from here on may be merged
  unsigned kept;
  int64_t groups;
  int num_stores, num_reduces;
  md_val store[MD_NEST_VALUES];
  const md_node *reduce[MD_NEST_VALUES];
} md_nest;
void md_nest_emit(md_nest *n);

#endif
