// SPDX-License-Identifier: Apache-2.0
// Where the values of a graph lie in its program: what is about the graph and not about a target.
//
// What the graph returns or takes as an update without computing it has no place of its own: a
// constant, or the old value of a state that this step overwrites. Such values get a snapshot, a
// place behind the planned arena, and a launch before all others that writes it.
#ifndef CODEGEN_PLACES_H
#define CODEGEN_PLACES_H

#include "graph/graph.h"
#include "runtime/exec/exec.h"

typedef struct md_places {
  const md_graph *g;
  int *input, *state;  // number of an input or state, by value
  int64_t *snapshot;   // by value: its place in the arena, or -1
  md_val *copied;      // values that have a snapshot
  int num_copied;
  int64_t arena_bytes;
} md_places;
// Snapshots are aligned to `alignment` bytes. In `a`.
md_places *md_places_of(const md_graph *g, int64_t alignment, md_arena *a);
md_arg md_places_arg(const md_places *s, md_val v, bool write);
// The same, of its snapshot where it has one.
md_arg md_places_snapshot(const md_places *s, md_val v, bool write);
// "17" where it has no name. In `a`.
const char *md_places_name(const md_graph *g, md_val v, md_arena *a);
// Fills in inputs, states, results, copies, the graph's digest and the size of the arena.
void md_places_program(const md_places *s, md_program *p);
void md_places_keep_text(const md_graph *g, md_program *p);  // p->graph_text

#endif
