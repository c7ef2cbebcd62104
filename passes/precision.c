// SPDX-License-Identifier: Apache-2.0
// precision: what --precision says about the storage of activations. f32 changes nothing. bf16:
//
//   conv(x, w)  =  f32(conv(bf16(x), bf16(w)))     forward and gradients for x; sums run in fp32
//   wgrad(dy,x) =  wgrad(bf16(dy), bf16(x))        gradients for w are not rounded
//   max_pool(x) =  f32(max_pool(bf16(x)))          and its gradient; rounding keeps the order, so the
//                                                  largest is what it was, rounded; of those that
//                                                  rounding makes equal the first counts
//   v           =  f32(bf16(v))                    v that will be stored: two tensors flow into it and
//                                                  several nodes read it (residuals, masked gradients)
//
// States, statistics and everything that is not an image stay f32; the casts become part of the
// regions beside them. Not bitwise: that is the point. Only f32 values of rank 5 are touched, so a
// second run finds its own casts and changes nothing.
#include "passes/passes.h"

static const bool runs_in_bf16[MD_NUM_OPS] = {
    [MD_OP_conv3d] = true,     [MD_OP_conv3d_dgrad] = true,    [MD_OP_conv3d_wgrad] = true,
    [MD_OP_max_pool3d] = true, [MD_OP_max_pool3d_grad] = true,
};

static bool is_image(const md_type *t) { return t->dtype == MD_F32 && t->shape.rank == 5; }

static md_val narrow(md_rewriter *r, md_val v) {
  const md_node *n = md_def(r->b.g, v);
  bool widened = n->op == MD_OP_cast && md_type_in(r->b.g, n->in[0])->dtype == MD_BF16;
  return widened ? n->in[0] : md_cast(&r->b, v, MD_BF16);
}

static md_val in_bf16(md_rewriter *r, const md_node *n) {
  md_val in[MD_ROW_IN];
  if (!is_image(md_type_in(r->old, n->out))) return md_copy_node(r, n);
  for (int i = 0; i < n->num_in; i++) {
    in[i] = md_mapped(r, n->in[i]);
    if (in[i] && md_type_in(r->old, n->in[i])->dtype == MD_F32) in[i] = narrow(r, in[i]);
  }
  md_val y = md_add_node(&r->b, n->op, in, n->num_in, &n->attr);
  for (int i = 1; i < n->num_out; i++)
    r->map[n->out + (md_val)i] = md_result_of(&r->b, y, i);  // the places of a pool
  return md_type_in(r->b.g, y)->dtype == MD_F32 ? y : md_cast(&r->b, y, MD_F32);
}

// Two tensors of its size flow into it, perhaps through nodes that nobody else reads.
static bool joins_tensors(const md_graph *g, const md_node *n) {
  const md_shape *s = &md_type_in(g, n->out)->shape;
  for (;;) {
    const md_node *only = NULL;
    int full = 0;
    for (int i = 0; i < n->num_in; i++) {
      const md_node *from = md_def(g, n->in[i]);
      if (from->op == MD_OP_constant || !md_shape_equal(&md_type_in(g, n->in[i])->shape, s))
        continue;
      full++;
      only = from;
    }
    if (full != 1) return full > 1;
    if (md_ops[only->op].role != MD_POINTWISE || g->value[only->out].uses != 1) return false;
    n = only;
  }
}

static md_val store_narrow(md_rewriter *r, const md_node *n) {
  const md_value *value = &r->old->value[n->out];
  bool image = md_ops[n->op].role == MD_POINTWISE && n->num_out == 1 && n->op != MD_OP_cast &&
               is_image(&value->type);
  if (!image || value->uses < 2 || !joins_tensors(r->old, n)) return md_copy_node(r, n);
  md_val in[MD_ROW_IN];
  for (int i = 0; i < n->num_in; i++) in[i] = md_mapped(r, n->in[i]);
  md_val v = md_add_node(&r->b, n->op, in, n->num_in, &n->attr);
  return md_cast(&r->b, md_cast(&r->b, v, MD_BF16), MD_F32);
}

static bool run(md_rewriter *r) {
  md_rule rule[MD_NUM_OPS] = {NULL};
  if (r->options->precision != MD_BF16) return md_run_rules(r, rule, NULL);
  for (int i = 0; i < MD_NUM_OPS; i++)
    if (runs_in_bf16[i]) rule[i] = in_bf16;
  return md_run_rules(r, rule, store_narrow);
}

const md_pass md_pass_precision = {
    .name = "precision",
    .doc = "stores activations as the precision says",
    .needs = MD_NEEDS_EXPANDED | MD_NEEDS_NO_REGIONS,
    .run = run,
};
