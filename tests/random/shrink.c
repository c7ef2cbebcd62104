// SPDX-License-Identifier: Apache-2.0
// Greedy removal. A smaller graph is one with a result or an update less, with a node's results given
// from outside, or with a node bypassed by an operand of the same type; what nobody reads any more
// goes too.
#include "tests/random/random.h"

#include <stdlib.h>
#include <string.h>

typedef struct Removal {
  int result, update;  // -1: none
  int node;            // -1: none
  int operand;         // that takes the node's place; -1: an input does
} Removal;

static bool *needed(const md_graph *g, const Removal *cut) {
  bool *need = calloc((size_t)g->num_values + 1, 1);
  for (int i = 0; i < g->num_results; i++)
    if (i != cut->result) need[g->result[i].val] = true;
  for (int i = 0; i < g->num_updates; i++)
    if (i != cut->update) need[g->update[i].val] = need[g->update[i].state] = true;
  for (int i = g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = g->node[i];
    bool any = false;
    for (int k = 0; k < n->num_out; k++) any |= need[n->out + (md_val)k];
    if (!any) continue;
    if (i == cut->node) {
      if (cut->operand >= 0) need[n->in[cut->operand]] = true;
      continue;
    }
    for (int k = 0; k < n->num_in; k++) need[n->in[k]] = true;
  }
  return need;
}

static bool any_needed(const md_node *n, const bool *need) {
  for (int k = 0; k < n->num_out; k++)
    if (need[n->out + (md_val)k]) return true;
  return false;
}

// What to draw for the input that stands for a value.
static const char *kind_of(const md_graph *g, md_val v) {
  return md_dtype_is_float(md_type_in(g, v)->dtype) ? "x" : "int";
}

static void copy_node(md_builder *b, const md_graph *g, const md_node *n, const Removal *cut,
                      const bool *need, md_val *map) {
  if (n->index == cut->node) {
    for (int k = 0; k < n->num_out; k++) {
      md_val v = n->out + (md_val)k;
      if (!need[v]) continue;
      char *name = md_format(b->g->arena, "%s_cut%u", kind_of(g, v), v);
      map[v] = cut->operand >= 0 ? map[n->in[cut->operand]] : md_input(b, name, g->value[v].type);
    }
    return;
  }
  if (n->op == MD_OP_input) {
    map[n->out] = md_input(b, n->name, g->value[n->out].type);
  } else if (n->op == MD_OP_state) {
    map[n->out] = md_state(b, n->name, g->value[n->out].type, &n->attr.state);
  } else if (n->op == MD_OP_constant) {
    map[n->out] = md_constant(b, g->value[n->out].type, n->attr.value.value);
  } else {
    md_val in[MD_MAX_IN];
    for (int k = 0; k < n->num_in; k++) in[k] = map[n->in[k]];
    md_val y = md_add_node(b, n->op, in, n->num_in, &n->attr);
    for (int k = 0; y != MD_NONE && k < n->num_out; k++) map[n->out + (md_val)k] = y + (md_val)k;
  }
}

static md_graph *without(const md_graph *g, const Removal *cut) {
  md_graph *to = md_graph_create(g->name);
  md_builder b;
  md_builder_init(&b, to, NULL);
  bool *need = needed(g, cut);
  md_val *map = calloc((size_t)g->num_values + 1, sizeof *map);
  for (int i = 0; i < g->num_nodes; i++)
    if (any_needed(g->node[i], need)) copy_node(&b, g, g->node[i], cut, need, map);
  for (int i = 0; i < g->num_updates; i++)
    if (i != cut->update) md_update_state(&b, map[g->update[i].state], map[g->update[i].val]);
  for (int i = 0; i < g->num_results; i++)
    if (i != cut->result)
      md_return(&b, md_strdup(to->arena, g->result[i].name), map[g->result[i].val]);
  free(need);
  free(map);
  if (!b.failed && to->num_results + to->num_updates > 0) return to;
  md_graph_destroy(to);
  return NULL;
}

static bool is_leaf(const md_node *n) { return md_ops[n->op].role == MD_LEAF; }

// Replaces *g when the smaller graph fails too.
static bool try(md_graph **g, const Removal *cut, bool (*fails)(void *ctx, const md_graph *g),
                void *ctx) {
  md_graph *smaller = without(*g, cut);
  if (!smaller) return false;
  bool good = fails(ctx, smaller);
  if (good) {
    md_graph_destroy(*g);
    *g = smaller;
  } else {
    md_graph_destroy(smaller);
  }
  return good;
}

md_graph *md_shrink(md_graph *g, bool (*fails)(void *ctx, const md_graph *g), void *ctx) {
  for (bool again = true; again;) {
    again = false;
    for (int i = g->num_results - 1; i >= 0; i--)
      again |= i < g->num_results && try(&g, &(Removal){i, -1, -1, -1}, fails, ctx);
    for (int i = g->num_updates - 1; i >= 0; i--)
      again |= i < g->num_updates && try(&g, &(Removal){-1, i, -1, -1}, fails, ctx);
    for (int i = g->num_nodes - 1; i >= 0; i--) {
      if (i >= g->num_nodes || is_leaf(g->node[i]) || g->node[i]->op == MD_OP_gradient) continue;
      if (try(&g, &(Removal){-1, -1, i, -1}, fails, ctx)) {
        again = true;
        continue;
      }
      const md_node *n = g->node[i];
      for (int k = 0; n->num_out == 1 && k < n->num_in; k++) {
        if (n->in[k] == MD_NONE) continue;
        if (!md_type_equal(md_type_in(g, n->in[k]), md_type_in(g, n->out))) continue;
        if (!try(&g, &(Removal){-1, -1, i, k}, fails, ctx)) continue;
        again = true;
        break;
      }
    }
  }
  return g;
}
