// SPDX-License-Identifier: Apache-2.0
// layout: activations of rank 5 (floats, and the places that max_pool3d remembers) are stored with
// their channels in blocks of the target's vector width, `.c8`, so that one load takes neighbouring
// channels; in blocks of half vectors, where a target takes them, if fewer lanes stay empty so. The index of
// an element means the same in every layout, so nodes stay as they are, and results stay bitwise equal;
// conversions happen where a region reads one layout and writes another.
// What the outside sees (inputs, states and their updates, results), weights and tensors of few
// channels are row-major, those excepted that are multiplied as bf16 with all channels in one block;
// with a block of 0 in the target's facts all are. Blocks that a text brings, such as a dump for
// another target, count for nothing.
#include "passes/passes.h"

// Weights and their gradients have no channels of an image on axis 1, nor has what is computed from
// them element by element.
static bool *find_weights(const md_graph *g, md_arena *a) {
  static const bool makes_weight[MD_NUM_OPS] = {[MD_OP_conv3d_wgrad] = true};
  bool *weight = MD_NEW_ARRAY(a, bool, g->num_values + 1);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    const md_op_row *row = &md_ops[n->op];
    bool from_weight = makes_weight[n->op] || n->op == MD_OP_state;
    for (int j = 0; row->role == MD_POINTWISE && j < n->num_in; j++)
      from_weight |= n->in[j] && weight[n->in[j]] &&
                     md_shape_equal(&md_type_in(g, n->in[j])->shape, &md_type_in(g, n->out)->shape);
    for (int j = 0; j < n->num_out; j++) weight[n->out + (md_val)j] |= from_weight;
    // Operands "w[o,i,...]".
    for (int j = 0; row->role == MD_ANCHOR && j < n->num_in; j++) {
      const md_operand_spec *spec = md_op_in(n->op, j);
      if (spec->num_axes == 5 && spec->axis[0][0] == 'o') weight[n->in[j]] = true;
    }
  }
  return weight;
}

int md_layout_block(const md_target_facts *facts, int64_t channels, bool multiplied) {
  int block = facts->channel_block, half = facts->half_block;
  if (half && md_round_up(channels, half) < md_round_up(channels, block)) block = half;
  bool fits = 2 * channels >= facts->channel_block || (facts->channels_last && multiplied);
  if (!fits || !block) return 0;
  return facts->channels_last ? (int)md_round_up(channels, block) : block;
}

static bool is_convolution(const md_node *n) {
  return n->op == MD_OP_conv3d || n->op == MD_OP_conv3d_dgrad || n->op == MD_OP_conv3d_wgrad;
}

// What convolutions multiply, by vectors of bf16 if they can.
static bool *find_operands(const md_graph *g, const bool *weight, md_arena *a) {
  bool *operand = MD_NEW_ARRAY(a, bool, g->num_values + 1);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    for (int j = 0; is_convolution(n) && j < n->num_in; j++)
      operand[n->in[j]] |= n->in[j] && !weight[n->in[j]];
  }
  return operand;
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  bool *plain = find_weights(g, r->scratch);
  const bool *operand = find_operands(g, plain, r->scratch);
  for (int i = 0; i < g->num_updates; i++) plain[g->update[i].val] = true;
  for (int i = 0; i < g->num_results; i++) plain[g->result[i].val] = true;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    r->region = n->region;
    md_copy_node(r, n);
    for (int j = 0; j < n->num_out; j++) {
      md_val v = n->out + (md_val)j;
      const md_type *t = md_type_in(g, v);
      bool image = t->shape.rank == 5 &&
                   (md_dtype_is_float(t->dtype) || t->dtype == MD_I32 || n->op == MD_OP_max_pool3d);
      int block = 0;
      if (image && !plain[v] && md_ops[n->op].role != MD_LEAF)
        block =
            md_layout_block(&r->options->facts, t->shape.dim[1], operand[v] && t->dtype == MD_BF16);
      r->b.g->value[md_mapped(r, v)].type.block = block;
      r->rewrites += t->block != block;
    }
  }
  return true;
}

const md_pass md_pass_layout = {
    .name = "layout",
    .doc = "stores activations in channel blocks",
    .needs = MD_NEEDS_EXPANDED,
    .bitwise = true,
    .required = true,
    .run = run,
};
