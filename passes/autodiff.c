// SPDX-License-Identifier: Apache-2.0
// autodiff: reverse mode. `gradient loss, wrt...` becomes nodes.
//
//   d loss / d v  =  sum over the readers r of v of (d loss / d r) (d r / d v)
//
// Only nodes on a path from a wrt to the loss are visited, latest first; the sum is a chain of `add`
// in that order. Integers have no gradient. A wrt that the loss does not depend on gets zeros. What
// a rule makes beyond what is read is dropped by dce. Results are what the gradient means: exact in
// real numbers, and the reference for `gradient` itself, which nothing else computes.
#include "passes/passes.h"

static bool is_float(const md_graph *g, md_val v) {
  return v != MD_NONE && md_dtype_is_float(md_type_in(g, v)->dtype);
}

// dep[v]: v is a float that depends on a wrt. Values up to `num`; nodes up to `last`.
static bool *dependents(md_rewriter *r, const md_node *n, int last, int num) {
  const md_graph *g = r->b.g;
  bool *dep = MD_NEW_ARRAY(r->scratch, bool, num + 1);
  for (int i = 1; i < n->num_in; i++) dep[md_mapped(r, n->in[i])] = true;
  for (int i = 0; i <= last; i++) {
    const md_node *y = g->node[i];
    bool any = false;
    for (int j = 0; j < y->num_in; j++) any |= dep[y->in[j]];
    for (int j = 0; any && j < y->num_out; j++) {
      md_val v = y->out + (md_val)j;
      dep[v] = dep[v] || is_float(g, v);
    }
  }
  return dep;
}

static bool no_gradient(md_rewriter *r, const md_node *gradient, const md_node *y) {
  const md_graph *g = r->b.g;
  const char *why = md_ops[y->op].no_grad;
  md_error(r->b.diags, E0350, gradient->place,
           "gradient: the loss depends on it through %s %s, which has no gradient: %s",
           md_ops[y->op].name, md_value_text(g, y->out, r->scratch), why ? why : "no rule");
  if (y->place.line > 0) md_note(r->b.diags, y->place, "%s stands here", md_ops[y->op].name);
  return false;
}

static bool is_constant(md_rewriter *r, const md_node *gradient, const md_node *y, int operand) {
  md_error(
      r->b.diags, E0350, gradient->place,
      "gradient: the loss depends on it through operand %s of %s, which takes that for a constant",
      md_ops[y->op].constant, md_ops[y->op].name);
  if (y->place.line > 0)
    md_note(r->b.diags, y->place, "%s stands here and reads %s", md_ops[y->op].name,
            md_value_text(r->b.g, y->in[operand], r->scratch));
  return false;
}

static bool expand(md_rewriter *r, const md_node *n) {
  md_builder *b = &r->b;
  md_graph *g = b->g;
  md_val loss = md_mapped(r, n->in[0]);
  int last = md_def(g, loss)->index, num = g->num_values;
  bool *dep = dependents(r, n, last, num);
  md_val *grad = MD_NEW_ARRAY(r->scratch, md_val, num + 1);
  md_val dy[MD_MAX_OUT], d[MD_MAX_IN];

  md_place_like(r, n);
  grad[loss] = md_constant(b, *md_type_in(g, loss), 1);
  for (int i = last; i >= 0; i--) {
    const md_node *y = g->node[i];
    bool reached = false, wanted = false;
    for (int j = 0; j < y->num_out; j++) {
      dy[j] = grad[y->out + (md_val)j];
      reached |= dy[j] != MD_NONE;
    }
    for (int j = 0; j < y->num_in; j++) {
      wanted |= dep[y->in[j]];
      d[j] = MD_NONE;
    }
    if (!reached || !wanted) continue;
    if (!md_ops[y->op].grad) return no_gradient(r, n, y);
    b->place = y->place;
    for (int j = 0; j < y->num_in; j++)
      if (dep[y->in[j]] && md_op_is_constant(y->op, j)) return is_constant(r, n, y, j);
    md_ops[y->op].grad(b, y, dy, d);
    if (b->failed) return false;
    for (int j = 0; j < y->num_in; j++) {
      md_val x = y->in[j];
      if (x == MD_NONE || !dep[x] || d[j] == MD_NONE) continue;
      grad[x] = grad[x] != MD_NONE ? md_add(b, grad[x], d[j]) : d[j];
    }
  }

  md_place_like(r, n);
  for (int i = 1; i < n->num_in; i++) {
    md_val x = md_mapped(r, n->in[i]), to = n->out + (md_val)i - 1;
    r->map[to] = grad[x] != MD_NONE ? grad[x] : md_constant(b, *md_type_in(g, x), 0);
    md_value *value = &g->value[r->map[to]];
    const char *name = r->old->value[to].name;
    if (name && !value->name) value->name = md_strdup(g->arena, name);
  }
  r->rewrites++;
  return !b->failed;
}

static bool run(md_rewriter *r) {
  for (int i = 0; i < r->old->num_nodes && !r->b.failed; i++) {
    const md_node *n = r->old->node[i];
    if (n->op != MD_OP_gradient) md_copy_node(r, n);
    else if (!expand(r, n)) return false;
  }
  return true;
}

const md_pass md_pass_autodiff = {
    .name = "autodiff",
    .doc = "expands gradients by reverse mode",
    .needs = MD_NEEDS_NO_REGIONS,
    .required = true,
    .run = run,
};
