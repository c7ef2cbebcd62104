// SPDX-License-Identifier: Apache-2.0
// Index maps: shared by place.c, body.c and stream.c only.
#ifndef CODEGEN_CPU_PLACE_H
#define CODEGEN_CPU_PLACE_H

#include "codegen/cpu/emit.h"

// Index of lane l: base + l * step, or vec[l]. aligned: base is a multiple of the lanes.
typedef struct md_index {
  md_ir base, vec;
  int64_t step;
  bool aligned;
} md_index;

// An md_point whose indices may be anything. Axes tail..rank-1 are merged when tail < rank.
typedef struct md_spot {
  int rank, tail, lanes;
  md_index at[MD_MAX_RANK];
  md_ir mask;
} md_spot;

md_spot md_spot_of(const md_point *p);
bool md_spot_equal(const md_spot *a, const md_spot *b);
bool md_index_equal(const md_index *a, const md_index *b);
md_ir md_index_vector(md_emit *e, const md_index *x, int lanes);
// Operand k of a pointwise node / the operand of a view, for the result at s.
md_spot md_spot_operand(md_emit *e, const md_graph *g, const md_node *n, int k, const md_spot *s);
md_spot md_spot_view(md_emit *e, const md_graph *g, const md_node *n, const md_spot *s);
// Would operand k of n leave axes tail.. of the result merged (and from which axis on)?
bool md_keeps_merged(const md_graph *g, const md_node *n, int k, int tail, int *in_tail);
md_index md_flat_index(md_emit *e, const md_spot *s, const md_shape *shape);  // row-major
md_index md_spot_offset(md_emit *e, const md_type *t, const md_spot *s);      // in memory, elements

#endif
