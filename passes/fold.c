// SPDX-License-Identifier: Apache-2.0
// fold: an op whose operands are all constants is computed now; constants are splats, so one element
// says it all.
//
//   pointwise(c...) = c'     view(c) = c     sum(c) = count c     max(c) = c
//
// Kept: random ops, results that are not a number, integers beyond 2^53. Not bitwise: a back end may
// round within a formula, folding rounds its result once.
#include "passes/passes.h"

#include "base/round.h"

#include <math.h>

// v as the dtype holds it. False: integers that do not fit, which saturate or wrap as the op says.
static bool round_to(md_dtype d, double v, double *out) {
  *out = md_rounded(d, v);
  if (isnan(v)) return false;
  return md_dtype_is_float(d) || d == MD_BOOL || (*out == trunc(v) && fabs(v) <= 0x1p53);
}

static bool constant_operands(md_rewriter *r, const md_node *n, double *value) {
  for (int i = 0; i < n->num_in; i++) {
    if (n->in[i] == MD_NONE) return false;
    const md_node *from = md_def(r->b.g, md_mapped(r, n->in[i]));
    if (from->op != MD_OP_constant) return false;
    value[i] = md_rounded(md_type_in(r->b.g, from->out)->dtype, from->attr.value.value);
  }
  return n->num_in > 0;
}

// Constants for all results, of the old results' types.
static md_val replace(md_rewriter *r, const md_node *n, const double *value) {
  double rounded[4];
  for (int i = 0; i < n->num_out; i++)
    if (!round_to(md_type_in(r->old, n->out + (md_val)i)->dtype, value[i], &rounded[i]))
      return md_keep(r, "the result is not a finite number of its type");
  md_val first = MD_NONE;
  for (int i = 0; i < n->num_out; i++) {
    md_val v = md_constant(&r->b, *md_type_in(r->old, n->out + (md_val)i), rounded[i]);
    if (i) r->map[n->out + (md_val)i] = v;
    else first = v;
  }
  return first;
}

static md_val fold_pointwise(md_rewriter *r, const md_node *n) {
  double in[MD_ROW_IN], v[MD_MAX_EXPR], out[4];
  const md_expr *e = md_op_expr(&md_ops[n->op]);
  if (!constant_operands(r, n, in)) return md_copy_node(r, n);
  for (int i = 0; i < e->num; i++) {
    const md_expr_node *x = &e->node[i];
    switch (x->kind) {
    case MD_EX_CONST: v[i] = x->value; break;
    case MD_EX_ARG: v[i] = in[x->a]; break;
    case MD_EX_ATTR: v[i] = md_attr_value(&n->attr, x); break;
    case MD_EX_RANDOM: return md_keep(r, "every element has a random number of its own");
    default: v[i] = md_expr_apply(x->kind, v[x->a], v[x->b], v[x->c]);
    }
  }
  for (int i = 0; i < n->num_out; i++) out[i] = v[e->out[i]];
  return replace(r, n, out);
}

static md_val fold(md_rewriter *r, const md_node *n) {
  double in[1];
  md_role role = md_ops[n->op].role;
  if (role == MD_POINTWISE) return fold_pointwise(r, n);
  if (role != MD_VIEW || !constant_operands(r, n, in)) return md_copy_node(r, n);
  return replace(r, n, in);
}

static md_val fold_max(md_rewriter *r, const md_node *n) {
  double in[1];
  return constant_operands(r, n, in) ? replace(r, n, in) : md_copy_node(r, n);
}

static md_val fold_sum(md_rewriter *r, const md_node *n) {
  double in[1];
  if (!constant_operands(r, n, in)) return md_copy_node(r, n);
  in[0] *= (double)md_elements(&md_type_in(r->old, n->in[0])->shape) /
           (double)md_elements(&md_type_in(r->old, n->out)->shape);
  return replace(r, n, in);
}

static bool run(md_rewriter *r) {
  static const md_rule special[MD_NUM_OPS] = {[MD_OP_sum] = fold_sum, [MD_OP_max] = fold_max};
  return md_run_rules(r, special, fold);
}

const md_pass md_pass_fold = {
    .name = "fold",
    .doc = "computes what constants decide",
    .needs = MD_NEEDS_NO_REGIONS,
    .run = run,
};
