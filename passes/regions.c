// SPDX-License-Identifier: Apache-2.0
// regions: every node that is in no region becomes one by itself, named after it. What runs when nothing
// is fused. Bitwise.
#include "passes/passes.h"

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  md_copy_leaves(r);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (md_ops[n->op].role == MD_LEAF) continue;
    r->region = n->region ? n->region : md_new_region_of(r, n);
    r->rewrites += !n->region;
    md_copy_node(r, n);
  }
  return true;
}

const md_pass md_pass_regions = {
    .name = "regions",
    .doc = "gives every node a region of its own",
    .needs = MD_NEEDS_EXPANDED,
    .bitwise = true,
    .required = true,
    .run = run,
};
