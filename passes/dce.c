// SPDX-License-Identifier: Apache-2.0
// dce: a node that no result and no update depends on is dropped. Inputs and states stay: they are
// the interface of the graph. Bitwise.
#include "passes/passes.h"

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  bool *live = MD_NEW_ARRAY(r->scratch, bool, g->num_values + 1);
  bool *drop = MD_NEW_ARRAY(r->scratch, bool, g->num_nodes + 1);
  for (int i = 0; i < g->num_results; i++) live[g->result[i].val] = true;
  for (int i = 0; i < g->num_updates; i++) live[g->update[i].val] = true;
  // Readers first: a node goes only after all that read it.
  for (int i = g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = g->node[i];
    bool keep = md_ops[n->op].flags & MD_EFFECT;
    for (int j = 0; j < n->num_out; j++) keep |= live[n->out + (md_val)j];
    drop[i] = !keep && md_may_rewrite(r);
    r->rewrites += drop[i];
    for (int j = 0; !drop[i] && j < n->num_in; j++) live[n->in[j]] = true;
  }
  for (int i = 0; i < g->num_nodes; i++) {
    r->region = g->node[i]->region;
    if (!drop[i]) md_copy_node(r, g->node[i]);
  }
  return true;
}

const md_pass md_pass_dce = {
    .name = "dce", .doc = "drops nodes that nothing reads", .bitwise = true, .run = run};
