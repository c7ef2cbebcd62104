// SPDX-License-Identifier: Apache-2.0
// The verifier: after it, no later stage checks a graph again. It trusts nothing, because graphs
// come from texts of strangers and from passes with mistakes: first the structure (so that
// following an index is safe), then nodes, names, updates, readers, regions, and the memory plan
// (verify_plan.c). No recursion; linear but for sorting names and places.
#include "graph/graph.h"

#include <stdlib.h>
#include <string.h>

typedef struct named {
  const char *name;
  int kind;  // op of a leaf; -1: result
  const md_node *node;
} named;

static const char *name_of(const md_graph *g, const md_node *n) {
  const char *name = n->name ? n->name : g->value[n->out].name;
  return name ? md_format(g->arena, "%%%s", name) : md_format(g->arena, "%%%u", n->out);
}

// Nodes in order, results numbered in order, operands from above.
static bool check_structure(const md_graph *g, md_diags *d) {
  md_val next = 1;
  if (g->num_nodes < 0 || g->num_nodes > MD_MAX_NODES || g->num_values < 0 || g->num_results < 0 ||
      g->num_updates < 0 || g->num_regions < 0)
    return md_error(d, E0312, MD_NOWHERE, "graph %s has %d nodes; 0 to %d are possible", g->name,
                    g->num_nodes, MD_MAX_NODES);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (!n || (int)n->op <= MD_OP_none || (int)n->op >= MD_NUM_OPS)
      return md_error(d, E0312, n ? n->place : MD_NOWHERE, "node %d has no op", i);
    if (n->index != i)
      return md_error(d, E0312, n->place, "node %d says that it is node %d", i, n->index);
    if (n->num_in < 0 || n->num_in > MD_MAX_IN || (n->num_in && !n->in) || n->num_out < 1 ||
        n->num_out > MD_MAX_OUT)
      return md_error(d, E0312, n->place, "node %d (%s) has %d operands and %d results", i,
                      md_ops[n->op].name, n->num_in, n->num_out);
    if (n->out != next || (int64_t)next + n->num_out - 1 > g->num_values)
      return md_error(d, E0312, n->place, "results of node %d (%s) are numbered %u, expected %u", i,
                      md_ops[n->op].name, n->out, next);
    for (int k = 0; k < n->num_in; k++)
      if (n->in[k] >= next)
        return md_error(d, E0312, n->place, "node %d (%s) reads value %u, which is made later", i,
                        md_ops[n->op].name, n->in[k]);
    for (int k = 0; k < n->num_out; k++)
      if (g->value[next + (md_val)k].node != n)
        return md_error(d, E0312, n->place, "value %u does not know its node %d (%s)",
                        next + (md_val)k, i, md_ops[n->op].name);
    next += (md_val)n->num_out;
  }
  if ((int64_t)next != (int64_t)g->num_values + 1)
    return md_error(d, E0312, MD_NOWHERE, "graph %s has %d values, but its nodes make %u", g->name,
                    g->num_values, next - 1);
  return true;
}

// Operands, attributes and result types by the op's row. The layout is the value's own affair.
static bool check_node(const md_graph *g, const md_node *n, md_diags *d) {
  md_infer f;
  const char *why;
  f.g = g;
  f.node = n;
  f.diags = d;
  f.place = n->place;
  f.parts = NULL;
  f.num_out = 1;
  f.out[0] = g->value[n->out].type;
  if (!md_infer_node(&f)) return false;
  if (f.num_out != n->num_out)
    return md_error(d, E0312, n->place, "%s: has %d results, but its operands imply %d",
                    md_ops[n->op].name, n->num_out, f.num_out);
  for (int i = 0; i < f.num_out; i++) {
    const md_value *v = &g->value[n->out + (md_val)i];
    if (!md_type_check(&v->type, &why))
      return md_error(d, E0307, n->place, "%s: %s: %s", name_of(g, n),
                      md_type_text(&v->type, g->arena), why);
    if (v->type.dtype != f.out[i].dtype || !md_shape_equal(&v->type.shape, &f.out[i].shape))
      return md_error(d, E0312, n->place, "%s: result %d is %s, but its operands imply %s",
                      md_ops[n->op].name, i, md_type_text(&v->type, g->arena),
                      md_type_text(&f.out[i], g->arena));
    if (v->name && !md_name_valid(v->name))
      return md_error(d, E0308, n->place, "the name of value %u is not a name", n->out + (md_val)i);
  }
  return true;
}

static int compare_named(const void *a, const void *b) {
  const named *x = a, *y = b;
  return x->kind != y->kind ? (x->kind > y->kind) - (x->kind < y->kind) : strcmp(x->name, y->name);
}

// Names that the outside knows exist and are unique within their kind. Sorted into *out.
static bool check_names(const md_graph *g, md_arena *a, md_diags *d, named **out, int *num) {
  named *t = *out = MD_NEW_ARRAY(a, named, g->num_nodes + g->num_results + 1);
  int n = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *node = g->node[i];
    if (node->op == MD_OP_input || node->op == MD_OP_state)
      t[n++] = (named){node->name, (int)node->op, node};
    else if (node->name)
      return md_error(d, E0308, node->place, "%s: only inputs and states have a name of their own",
                      md_ops[node->op].name);
  }
  for (int i = 0; i < g->num_results; i++) {
    md_val v = g->result[i].val;
    if (v == MD_NONE || v > (md_val)g->num_values)
      return md_error(d, E0310, MD_NOWHERE, "result %d is value %u, which does not exist", i, v);
    t[n++] = (named){g->result[i].name, -1, g->value[v].node};
  }
  for (int i = 0; i < n; i++)
    if (!md_name_valid(t[i].name))
      return md_error(d, E0308, t[i].node->place, "%s has no valid name",
                      t[i].kind < 0 ? "a result" : md_ops[t[i].kind].name);
  qsort(t, (size_t)n, sizeof *t, compare_named);
  for (int i = 1; i < n; i++)
    if (!compare_named(&t[i - 1], &t[i]))
      return md_error(d, E0308, t[i].node->place, "%s name '%s' stands twice",
                      t[i].kind < 0 ? "result" : md_ops[t[i].kind].name, t[i].name);
  *num = n;
  return true;
}

// `copy` names a state of the same type above, so that filling in order works and has no cycle.
static bool check_state_init(const md_graph *g, const named *names, int num, const md_node *n,
                             md_diags *d) {
  const md_state_attr *a = &n->attr.state;
  if (a->init != MD_INIT_copy) return true;
  named key = {a->from, MD_OP_state, NULL};
  const named *found =
      a->from ? bsearch(&key, names, (size_t)num, sizeof key, compare_named) : NULL;
  if (!found || found->node->index >= n->index)
    return md_error(d, E0309, n->place,
                    "state %s starts as a copy of '%s', which is no state above", n->name,
                    a->from ? a->from : "");
  const md_type *to = &g->value[n->out].type, *from = &g->value[found->node->out].type;
  if (to->dtype == from->dtype && md_shape_equal(&to->shape, &from->shape)) return true;
  return md_error(d, E0309, n->place, "state %s is %s, but starts as a copy of %s, which is %s",
                  n->name, md_type_text(to, g->arena), a->from, md_type_text(from, g->arena));
}

static bool check_updates(const md_graph *g, md_arena *a, md_diags *d) {
  bool *has_update = MD_NEW_ARRAY(a, bool, g->num_values + 1);
  for (int i = 0; i < g->num_updates; i++) {
    md_val s = g->update[i].state, v = g->update[i].val;
    if (s == MD_NONE || s > (md_val)g->num_values || v == MD_NONE || v > (md_val)g->num_values)
      return md_error(d, E0310, MD_NOWHERE, "update %d: value %u or %u does not exist", i, s, v);
    const md_node *n = g->value[s].node;
    if (n->op != MD_OP_state)
      return md_error(d, E0309, n->place, "update %d: %s is not a state", i, name_of(g, n));
    if (has_update[s]) return md_error(d, E0309, n->place, "state %s has two updates", n->name);
    has_update[s] = true;
    if (!md_type_equal(&g->value[s].type, &g->value[v].type))
      return md_error(d, E0309, n->place, "state %s is %s, but its next value is %s", n->name,
                      md_type_text(&g->value[s].type, g->arena),
                      md_type_text(&g->value[v].type, g->arena));
  }
  return true;
}

static bool check_uses(const md_graph *g, md_arena *a, md_diags *d) {
  int *uses = MD_NEW_ARRAY(a, int, g->num_values + 1);
  for (int i = 0; i < g->num_nodes; i++)
    for (int k = 0; k < g->node[i]->num_in; k++) uses[g->node[i]->in[k]]++;
  for (int i = 0; i < g->num_updates; i++) uses[g->update[i].val]++;
  for (int i = 0; i < g->num_results; i++) uses[g->result[i].val]++;
  for (md_val v = 1; v <= (md_val)g->num_values; v++)
    if (uses[v] != g->value[v].uses)
      return md_error(d, E0312, g->value[v].node->place, "value %u has %d readers, but counts %d",
                      v, uses[v], g->value[v].uses);
  return true;
}

// Both gradients of a convolution, that for the source first, may stand together.
static bool are_twins(const md_node *a, const md_node *b) {
  return a->op == MD_OP_conv3d_dgrad && b->op == MD_OP_conv3d_wgrad && a->in[0] == b->in[0];
}

// What a kernel is made for: one anchor at most, and no more nodes than a back end follows.
static bool check_kernel(const md_graph *g, const md_region *r, md_diags *d) {
  const md_node *anchor = NULL, *twin = NULL;
  if (r->num > MD_MAX_REGION)
    return md_error(d, E0313, g->node[r->first]->place,
                    "region %s has %d nodes, but at most %d are possible", r->name, r->num,
                    MD_MAX_REGION);
  for (int i = r->first; i < r->first + r->num; i++) {
    const md_node *n = g->node[i];
    if (md_ops[n->op].role != MD_ANCHOR && md_ops[n->op].role != MD_GATHER) continue;
    if (anchor && !twin && are_twins(anchor, n)) {
      twin = n;
      continue;
    }
    if (anchor) {
      md_error(d, E0313, n->place, "%s and %s cannot stand in one region %s",
               md_ops[anchor->op].name, md_ops[n->op].name, r->name);
      md_hint(d, "a region holds one op that is not computed element by element");
      return false;
    }
    anchor = n;
  }
  return true;
}

static bool check_regions(const md_graph *g, md_diags *d) {
  int at = 0;  // first node that no region has claimed yet
  for (int r = 1; r <= g->num_regions; r++) {
    const md_region *region = &g->region[r];
    if (!md_name_valid(region->name))
      return md_error(d, E0313, MD_NOWHERE, "region %d has no valid name", r);
    if (region->first < at || region->num < 1 || region->num > g->num_nodes - region->first)
      return md_error(
          d, E0313, MD_NOWHERE,
          "region %s begins at node %d and has %d nodes; the one before ends at %d, the "
          "graph at %d",
          region->name, region->first, region->num, at, g->num_nodes);
    for (; at < region->first + region->num; at++) {
      const md_node *n = g->node[at];
      int want = at < region->first ? 0 : r;
      if (n->region != want)
        return md_error(d, E0313, n->place, "node %d (%s) says region %d, but lies in %d", at,
                        md_ops[n->op].name, n->region, want);
      if (want && (md_ops[n->op].role == MD_META || n->op == MD_OP_input || n->op == MD_OP_state))
        return md_error(d, E0313, n->place, "%s cannot stand in region %s", md_ops[n->op].name,
                        region->name);
    }
    if (!check_kernel(g, region, d)) return false;
  }
  for (; at < g->num_nodes; at++)
    if (g->node[at]->region)
      return md_error(d, E0313, g->node[at]->place, "node %d (%s) says region %d, but lies in none",
                      at, md_ops[g->node[at]->op].name, g->node[at]->region);
  return true;
}

static bool check_all(const md_graph *g, md_arena *a, md_diags *d) {
  named *names;
  int num_names = 0;
  bool ok = true;
  if (!check_structure(g, d)) return false;
  for (int i = 0; i < g->num_nodes; i++) ok &= check_node(g, g->node[i], d);
  if (!ok || !check_names(g, a, d, &names, &num_names)) return false;
  for (int i = 0; i < g->num_nodes; i++)
    if (g->node[i]->op == MD_OP_state) ok &= check_state_init(g, names, num_names, g->node[i], d);
  return ok && check_updates(g, a, d) && check_uses(g, a, d) && check_regions(g, d) &&
         md_plan_verify(g, a, d);
}

bool md_graph_verify(const md_graph *g, md_diags *d) {
  md_arena *a = md_arena_create();
  bool ok = check_all(g, a, d);
  md_arena_destroy(a);
  return ok;
}
