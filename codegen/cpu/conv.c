// SPDX-License-Identifier: Apache-2.0
// Which regions the direct convolution takes.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/parts.h"

static const char *refuse_common(const md_region_view *r, const md_cpu *cpu) {
  for (int i = 0; i < r->num_inputs; i++) {
    const char *why = md_refuse_block(r, r->input[i], cpu);
    if (why) return why;
  }
  for (int i = 0; i < r->num_outputs; i++) {
    const char *why = md_refuse_block(r, r->output[i], cpu);
    if (why) return why;
    const md_node *n = md_inner(r, r->output[i]);
    if (n == r->anchor || n == r->twin || md_in_epilogue(r, n)) continue;
    if (!md_in_prologue(r, n))
      return "it holds a value that has nothing to do with the convolution";
    // Tiles hold all frames of their pixels then, so packing makes each element once.
    if (!md_conv3d_stays_at_pixel(r->g, r->anchor))
      return "its prologue is kept, but made more than once";
  }
  return NULL;
}

static const char *refuse_dense(const md_region_view *r, const md_cpu *cpu) {
  if (!r->anchor || (r->anchor->op != MD_OP_conv3d && r->anchor->op != MD_OP_conv3d_dgrad))
    return "";
  if (r->twin) return "it holds both gradients";
  const md_conv3d_attr *a = &r->anchor->attr.conv3d;
  if (r->anchor->op == MD_OP_conv3d_dgrad &&
      a->stride.d[0] * a->stride.d[1] * a->stride.d[2] > MD_MAX_DENSE)
    return "the stride of the data gradient has too many residues";
  const char *why = refuse_common(r, cpu);
  return why ? why : md_sums_refuse(r);
}

static const char *refuse_twins(const md_region_view *r, const md_cpu *cpu) {
  const char *why = md_twins_refuse(r);
  if (!why) why = refuse_common(r, cpu);
  return why ? why : md_sums_refuse(r);
}

static const char *refuse_winograd(const md_region_view *r, const md_cpu *cpu) {
  const char *why = refuse_dense(r, cpu);
  return why ? "" : md_winograd_refuse(r, cpu);
}

static const char *refuse_wgrad(const md_region_view *r, const md_cpu *cpu) {
  if (!r->anchor || r->anchor->op != MD_OP_conv3d_wgrad) return "";
  for (int i = 0; i < r->num_nodes; i++)
    if (md_ops[r->node[i]->op].role == MD_REDUCE) return "a reduction follows the weight gradient";
  return refuse_common(r, cpu);
}

static const char *refuse_winograd_wgrad(const md_region_view *r, const md_cpu *cpu) {
  const char *why = refuse_wgrad(r, cpu);
  return why ? "" : md_winograd_wgrad_refuse(r, cpu);
}

const md_lowering md_conv_rows[] = {
    {"conv3d both gradients", refuse_twins, md_emit_conv_twins},
    {"conv3d winograd", refuse_winograd, md_emit_conv_winograd},
    {"conv3d direct", refuse_dense, md_emit_conv_dense},
    {"conv3d winograd weight gradient", refuse_winograd_wgrad, md_emit_conv_winograd_wgrad},
    {"conv3d weight gradient", refuse_wgrad, md_emit_conv_wgrad},
    {0},
};
