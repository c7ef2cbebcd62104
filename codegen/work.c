// SPDX-License-Identifier: Apache-2.0
// FLOPs and bytes of regions: every operand and result counts once, constants do not.
#include "codegen/work.h"

#include <math.h>

enum { LINE = 64 };  // bytes that come from memory at once

// A bank that is pushed into in place is touched where the new rows go.
static bool pushes_in_place(const md_graph *g, const md_node *n) {
  return n->op == MD_OP_bank_push && md_same_memory(g, n->in[0], n->out);
}

// The share of its source that a convolution meets: a kernel smaller than its stride steps over pixels, and along w over
// whole lines of memory where a pixel has one.
static double share_met(const md_graph *g, const md_node *n, md_val v) {
  bool forward = n->op == MD_OP_conv3d;
  if (!(forward ? v == n->in[0] : n->op == MD_OP_conv3d_wgrad && v == n->in[1])) return 1;
  const md_type *t = md_type_in(g, v);
  const md_shape *w = &md_type_in(g, forward ? n->in[1] : n->out)->shape;
  bool has_lines = MD_MIN(t->block, t->shape.dim[1]) * md_dtype_size(t->dtype) >= LINE;
  double share = 1;
  for (int i = 0; i < (has_lines ? 3 : 2); i++)
    share *= fmin((double)w->dim[2 + i] / (double)n->attr.conv3d.stride.d[i], 1);
  return share;
}

double md_work_bytes(const md_region_view *r, md_val v) {
  const md_node *a = r->anchor;
  if (a && pushes_in_place(r->g, a) && (v == a->in[0] || v == a->out)) v = a->in[1];
  return (double)md_type_bytes(md_type_in(r->g, v)) * (a ? share_met(r->g, a, v) : 1);
}

static const md_node *reader_of(const md_graph *g, md_val v) {
  for (int i = 0; i < g->num_nodes; i++)
    for (int j = 0; j < g->node[i]->num_in; j++)
      if (g->node[i]->in[j] == v) return g->node[i];
  return NULL;
}

// The share of a convolution's products that its weights had before they were folded (pass fold-stride) and filled up.
static double share_of_taps(const md_graph *g, const md_node *n) {
  const md_node *fold = NULL;
  md_val folded = MD_NONE, plain = MD_NONE;
  if (n->op == MD_OP_conv3d) {
    folded = n->in[1];
    fold = md_def(g, folded);
    if (fold->op == MD_OP_space_to_depth) plain = fold->in[0];
  } else if (n->op == MD_OP_conv3d_wgrad) {
    folded = n->out;
    fold = reader_of(g, folded);
    if (fold && fold->op == MD_OP_depth_to_space) plain = fold->out;
  }
  if (!plain) return 1;
  const md_shape *from = &md_type_in(g, plain)->shape, *to = &md_type_in(g, folded)->shape;
  return fmin((double)md_elements(from) / (double)md_elements(to), 1);
}

md_work md_work_of_region(const md_region_view *r) {
  md_work w = {0};
  for (int i = 0; i < r->num_nodes; i++) {
    md_cost cost = {0};
    md_node_cost(r->g, r->node[i], &cost);
    if (!pushes_in_place(r->g, r->node[i])) w.flops += cost.flops * share_of_taps(r->g, r->node[i]);
  }
  for (int i = 0; i < r->num_inputs; i++) {
    bool is_leaf = md_ops[md_def(r->g, r->input[i])->op].role == MD_LEAF;
    *(is_leaf ? &w.leaf_bytes : &w.made_bytes) += md_work_bytes(r, r->input[i]);
  }
  for (int i = 0; i < r->num_outputs; i++) w.made_bytes += md_work_bytes(r, r->output[i]);
  return w;
}
