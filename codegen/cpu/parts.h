// SPDX-License-Identifier: Apache-2.0
// Parts that the lowerings share: walks over an index space (walk.c), and what surrounds an anchor
// (finish.c): the epilogue, prologue values that are kept, refusals that all have in common.
#ifndef CODEGEN_CPU_PARTS_H
#define CODEGEN_CPU_PARTS_H

#include "codegen/cpu/emit.h"

// --- walk.c

// All points of an index space as vectors along one axis, cut into items.
typedef struct md_walk {
  md_shape shape;
  int lane_axis, lanes;       // -1, 1: scalars
  int64_t grid[MD_MAX_RANK];  // vectors on each axis
  bool flat;                  // few rows: items are runs of vectors, else of rows of the last axis
  int64_t items, per_item;
} md_walk;
// Vectors as t lies in memory: along the channels of a blocked tensor, else along the last axis.
md_walk md_walk_of(const md_kernel *k, const md_type *t);
md_walk md_walk_scalars(const md_shape *s);
// Emits the work of item `item` (0 .. items-1) into the current phase: `at` is called where code for a
// point shall stand, possibly several times.
typedef void md_walk_at(void *ctx, const md_point *p);
void md_walk_emit(md_kernel *k, const md_walk *w, md_ir item, md_walk_at *at, void *ctx);
// A phase of its own.
void md_walk_phase(md_kernel *k, const char *what, const md_walk *w, md_walk_at *at, void *ctx);
// Row-major element offset of at[rank].
md_ir md_flat_offset(md_emit *e, const md_shape *s, const md_ir *at);
// v at p although p.at on the lane axis is no multiple of the lanes.
md_ir md_value_unaligned(md_body *b, md_val v, const md_point *p);

// --- finish.c

bool md_is_input(const md_region_view *r, md_val v);  // a region input: it lies in memory

// NULL: v is row-major, or its channel blocks are whole vectors of the target.
const char *md_refuse_block(const md_region_view *r, md_val v, const md_cpu *cpu);
// NULL: blocks are the target's vectors, and what follows the anchor has the shape of its first result.
// `sums`: sums of the kind that md_sums takes may follow too.
const char *md_finish_refuse(const md_region_view *r, const md_cpu *cpu, bool sums);
bool md_has_sums(const md_region_view *r);
// The anchor's only reader is memory, where it lies row-major: values may be stored directly.
bool md_stores_directly(const md_region_view *r);
// A result of the anchor at the point that is evaluated, rounded to its dtype.
void md_finish_set(md_body *b, md_val v, md_ir value);
// Stores what follows the anchor (the anchor included) and has p's rank at p; all loads come before the
// first store.
void md_finish_store(md_body *b, const md_point *p);
// Prologue values that the region also keeps: phases of their own.
void md_finish_kept(md_kernel *k);
// Scratch and workspace hold floats: f64 for f64, else f32.
md_dtype md_wide_dtype(md_dtype d);

#endif
