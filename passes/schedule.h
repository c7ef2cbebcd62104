// SPDX-License-Identifier: Apache-2.0
// What schedule is made of: flow.c (what waits for what), schedule.c (list scheduling), pair.c (what is alike
// side by side).
#ifndef PASSES_SCHEDULE_H
#define PASSES_SCHEDULE_H

#include "passes/passes.h"

// Regions as a graph. Edges: values read, and readers of a state before the region that takes it.
typedef struct md_flow {
  const md_graph *g;
  const md_live *live;
  int num;                     // regions
  int *first_in, *in;          // values that a region reads and that die in the arena
  int *first_out, *out;        // values that it makes in the arena
  int *first_after, *after;    // regions that wait for it
  int *first_before, *before;  // regions that it waits for
  int64_t *bytes;              // by value
} md_flow;

// Values that can take the buffer of the state they update, in the present order or in another.
md_val *md_find_in_place(const md_graph *g, md_live *live, md_arena *a);
md_flow md_flow_of(const md_graph *g, const md_live *live, const md_val *storage, int64_t alignment,
                   md_arena *a);
// Bytes live at the worst moment of order[0..num-1], writing over operands left out. `like`, by region: the one
// that runs at once with it, if it comes next; NULL: none does.
int64_t md_flow_peak(const md_flow *f, const int *order, const int *like, md_arena *a);

// --- pair.c

// Moves regions that are alike and do not wait for each other side by side, where no moment needs more memory
// than `peak`; returns how many.
int md_pair(const md_flow *f, int *order, int64_t peak, md_arena *a);

#endif
