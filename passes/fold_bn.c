// SPDX-License-Identifier: Apache-2.0
// fold-bn: batch norm with frozen statistics after a convolution; with s = gamma / sqrt(var + eps):
//
//     bn(conv(x, w) + bias) = conv(x, s*w) + (beta - s*(mean - bias))
//
// Holds for one group of statistics, and pays when nobody else reads the raw convolution. Not
// bitwise: s*w is rounded.
#include "passes/passes.h"

static md_val fold(md_rewriter *r, const md_node *bn) {
  const md_node *conv = md_def(r->old, bn->in[0]);
  const md_shape *stats = &md_type_in(r->old, bn->in[3])->shape;
  if (bn->attr.batch_norm.batch_stats) return md_keep(r, "uses the statistics of the batch");
  if (conv->op != MD_OP_conv3d) return md_keep(r, "follows %s, not conv3d", md_ops[conv->op].name);
  if (stats->dim[0] != 1)
    return md_keep(r, "has statistics of %lld groups", (long long)stats->dim[0]);
  int readers = r->old->value[conv->out].uses;
  if (readers > 1) return md_keep(r, "the raw convolution has %d readers", readers);
  // The new weight depends on all of these; a convolution may not be moved before them.
  md_builder *b = &r->b;
  md_val gamma = md_mapped(r, bn->in[1]), beta = md_mapped(r, bn->in[2]);
  md_val mean = md_mapped(r, bn->in[3]), var = md_mapped(r, bn->in[4]);
  md_val w = md_mapped(r, conv->in[1]),
         bias = md_mapped(r, conv->num_in > 2 ? conv->in[2] : MD_NONE);
  md_shape channel = md_shape_of(b, gamma);
  mean = md_reshape(b, mean, channel);
  md_val root = md_affine(b, md_reshape(b, var, channel), 1, bn->attr.batch_norm.eps);
  md_val s = md_mul(b, gamma, md_add_node(b, MD_OP_rsqrt, &root, 1, NULL));
  md_val scaled = md_mul(b, w, md_broadcast(b, s, md_shape_of(b, w), (md_dims){1, {0}}));
  md_val shift = bias ? md_sub(b, mean, bias) : mean;
  md_val folded = md_sub(b, beta, md_mul(b, s, shift));
  md_site_done(r, bn, "folded into %s", md_value_text(r->old, conv->out, r->scratch));
  return md_conv3d(b, md_mapped(r, conv->in[0]), scaled, folded, &conv->attr.conv3d);
}

const md_pass md_pass_fold_bn = {
    .name = "fold-bn",
    .doc = "moves frozen batch norm into weight and bias",
    .needs = MD_NEEDS_NO_REGIONS,
    .at = {[MD_OP_batch_norm] = fold},
};
