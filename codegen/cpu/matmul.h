// SPDX-License-Identifier: Apache-2.0
// Matrix product z = X Y, X = x or x^T [m,k], Y = y or y^T [k,n]: what its kernels share.
//
//   matmul_rows.c   few rows: Y is read where it lies, once
//   matmul.c        many rows: tiles of X and Y are packed for a register tile
//
// Where the result is small and k long, k is cut into splits: each leaves its part of z in the
// workspace, and a last phase adds them in order.
#ifndef CODEGEN_CPU_MATMUL_H
#define CODEGEN_CPU_MATMUL_H

#include "codegen/cpu/parts.h"

typedef struct md_product {
  md_kernel *k;
  const md_node *node;
  md_val x, y, z;
  bool tx, ty;
  int64_t m, n, depth;
  int lanes;
  md_dtype dtype;  // of scratch and workspace
  LLVMTypeRef type;
  int registers;  // vectors of `lanes` that the target holds
  int64_t splits, split_depth;
  int64_t part;  // workspace: [split][m][padded n]; unused when splits is 1
  int64_t padded_n;
} md_product;

md_product md_product_of(md_kernel *k);
// Cuts the depth so that `tiles` items become at least a few; a split is a multiple of `step` deep.
void md_product_split(md_product *s, int64_t tiles, int64_t step);
// x at X[i, kk] and y at Y[kk, j]; lanes along k, along i or j, or none.
typedef enum md_along { MD_ALONG_NONE, MD_ALONG_DEPTH, MD_ALONG_SIDE } md_along;
md_ir md_product_x(const md_product *s, md_ir i, md_ir kk, md_along along, md_ir mask);
md_ir md_product_y(const md_product *s, md_ir kk, md_ir j, md_along along, md_ir mask);
md_ir md_lanes_left(const md_product *s, md_ir at, int64_t size);  // mask; NULL: all exist
// Result rows i0 .. i0+rows-1, `vectors` vectors of columns from j0 (a multiple of the lanes): the
// epilogue, or, with splits, a copy into the part of `split`. c: [row][ld].
void md_product_finish(const md_product *s, md_ir c, int64_t ld, md_ir i0, md_ir rows, md_ir j0,
                       md_ir vectors, md_ir split);
void md_product_merge(md_product *s);  // the last phase; nothing when splits is 1

void md_emit_product_rows(md_kernel *k);  // matmul_rows.c
enum { MD_FEW_ROWS = 32 };

#endif
