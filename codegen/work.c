// SPDX-License-Identifier: Apache-2.0
// FLOPs and bytes of regions: every operand and result counts once, constants do not.
#include "codegen/work.h"

// A bank that is pushed into in place is touched where the new rows go.
static bool pushes_in_place(const md_graph *g, const md_node *n) {
  return n->op == MD_OP_bank_push && md_same_memory(g, n->in[0], n->out);
}

double md_work_bytes(const md_region_view *r, md_val v) {
  const md_node *a = r->anchor;
  if (a && pushes_in_place(r->g, a) && (v == a->in[0] || v == a->out)) v = a->in[1];
  return (double)md_type_bytes(md_type_in(r->g, v));
}

md_work md_work_of_region(const md_region_view *r) {
  md_work w = {0};
  for (int i = 0; i < r->num_nodes; i++) {
    md_cost cost = {0};
    md_node_cost(r->g, r->node[i], &cost);
    if (!pushes_in_place(r->g, r->node[i])) w.flops += cost.flops;
  }
  for (int i = 0; i < r->num_inputs; i++) {
    bool is_leaf = md_ops[md_def(r->g, r->input[i])->op].role == MD_LEAF;
    *(is_leaf ? &w.leaf_bytes : &w.made_bytes) += md_work_bytes(r, r->input[i]);
  }
  for (int i = 0; i < r->num_outputs; i++) w.made_bytes += md_work_bytes(r, r->output[i]);
  return w;
}
