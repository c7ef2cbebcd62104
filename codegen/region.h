// SPDX-License-Identifier: Apache-2.0
// What both back ends ask of a region.
#ifndef CODEGEN_REGION_H
#define CODEGEN_REGION_H

#include "graph/graph.h"
#include "passes/passes.h"

// A region as back ends see it. Nodes in order; at most one of them is the anchor (role
// MD_ANCHOR or MD_GATHER), what it needs is prologue, what needs it is epilogue. No anchor: a
// stream region. Beside a conv3d_dgrad may stand its twin, the conv3d_wgrad of the same dy.
typedef struct md_region_view {
  const md_graph *g;
  int index;  // region number, 0: a node without region
  const md_node **node;
  int num_nodes;
  const md_node *anchor, *twin;
  md_val *input;
  int num_inputs;  // constants are not among them: they are immediate
  md_val *output;
  int num_outputs;
} md_region_view;
bool md_in_prologue(const md_region_view *r, const md_node *n);  // anchor depends on n
bool md_in_epilogue(const md_region_view *r, const md_node *n);  // n depends on the anchor
bool md_is_output(const md_region_view *r, md_val v);
// The node of this region that makes v, or NULL: v comes from outside (or is a constant).
const md_node *md_inner(const md_region_view *r, md_val v);

// Does a node of this region read v?
bool md_read_inside(const md_region_view *r, md_val v);

// Do a and b lie in overlapping memory? Without a place a value overlaps with itself only.
bool md_shares_memory(const md_graph *g, md_val a, md_val b);
// Does v lie over something that the region reads?
bool md_is_over_input(const md_region_view *r, md_val v);
// At the very same place?
bool md_same_memory(const md_graph *g, md_val a, md_val b);
// Can code be made for g: does it have a memory plan, and is every layout row-major or what the target
// stores activations in? What the outside sees is row-major. False: reported (E0352, E0355).
bool md_regions_check(const md_graph *g, const md_target_facts *facts, md_diags *d);
// The view of a region, or of the single node n where index is 0. In `a`.
md_region_view *md_region_view_of(const md_graph *g, int region, const md_node *n, md_arena *a);

#endif
