// SPDX-License-Identifier: Apache-2.0
// The program's data: inputs, states, results, what is copied into states at the end of a step.
#include "codegen/places.h"

#include <string.h>

static bool is_leaf(const md_graph *g, md_val v, md_op op) { return md_def(g, v)->op == op; }

static bool is_updated(const md_graph *g, md_val state) {
  for (int i = 0; i < g->num_updates; i++) {
    if (g->update[i].state == state) return true;
  }
  return false;
}

static bool needs_snapshot(const md_graph *g, md_val v) {
  return is_leaf(g, v, MD_OP_constant) || (is_leaf(g, v, MD_OP_state) && is_updated(g, v));
}

static void add_snapshot(md_places *s, md_val v, int64_t alignment) {
  if (!needs_snapshot(s->g, v) || s->snapshot[v] >= 0) return;
  s->snapshot[v] = md_round_up(s->arena_bytes, alignment);
  s->arena_bytes = s->snapshot[v] + md_type_bytes(md_type_in(s->g, v));
  s->copied[s->num_copied++] = v;
}

const char *md_places_name(const md_graph *g, md_val v, md_arena *a) {
  const char *name = g->value[v].name;
  return name ? md_strdup(a, name) : md_format(a, "%u", (unsigned)v);
}

// A fused region may end with other nodes than that which leaves out.
static bool may_be_left_out(const md_graph *g, md_val v) {
  const md_region *r = &g->region[md_def(g, v)->region];
  for (int i = r->first; i < r->first + r->num; i++)
    if (md_ops[g->node[i]->op].flags & MD_LEAVES_OUT) return true;
  return false;
}

md_arg md_places_arg(const md_places *s, md_val v, bool write) {
  const md_value *x = &s->g->value[v];
  md_arg a = {.space = MD_IN_ARENA,
              .offset = x->offset,
              .bytes = md_type_bytes(&x->type),
              .write = write,
              .may_be_left_out = write && x->node->region && may_be_left_out(s->g, v),
              .name = x->name,
              .dtype = x->type.dtype,
              .block = x->type.block,
              .rank = x->type.shape.rank};
  memcpy(a.dim, x->type.shape.dim, sizeof a.dim);
  md_val state = x->node->op == MD_OP_state ? v : x->storage;
  if (x->node->op == MD_OP_input) {
    a.space = MD_IN_INPUT;
    a.index = s->input[v];
    a.offset = 0;
  } else if (state != MD_NONE) {
    a.space = MD_IN_STATE;
    a.index = s->state[state];
    a.offset = 0;
  }
  return a;
}

md_arg md_places_snapshot(const md_places *s, md_val v, bool write) {
  md_arg a = md_places_arg(s, v, write);
  if (s->snapshot[v] < 0) return a;
  a.space = MD_IN_ARENA;
  a.index = 0;
  a.offset = s->snapshot[v];
  return a;
}

static md_spec spec_of(const md_graph *g, md_val v, const char *name, md_arena *a) {
  const md_type *t = md_type_in(g, v);
  md_spec s = {.name = name ? md_strdup(a, name) : md_places_name(g, v, a),
               .dtype = t->dtype,
               .rank = t->shape.rank,
               .bytes = md_elements(&t->shape) * md_dtype_size(t->dtype)};
  memcpy(s.dim, t->shape.dim, sizeof s.dim);
  return s;
}

static void add_leaves(const md_places *s, md_program *p) {
  const md_graph *g = s->g;
  p->input = MD_NEW_ARRAY(p->arena, md_spec, g->num_nodes + 1);
  p->state = MD_NEW_ARRAY(p->arena, md_spec, g->num_nodes + 1);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op == MD_OP_input) {
      p->input[p->num_inputs++] = spec_of(g, n->out, n->name, p->arena);
    } else if (n->op == MD_OP_state) {
      md_spec spec = spec_of(g, n->out, n->name, p->arena);
      const md_state_attr *init = &n->attr.state;
      spec.init = (int)init->init;
      spec.a = init->a;
      spec.b = init->b;
      spec.from = init->from ? md_strdup(p->arena, init->from) : NULL;
      p->state[p->num_states++] = spec;
    }
  }
}

static void add_ends(const md_places *s, md_program *p) {
  const md_graph *g = s->g;
  p->result = MD_NEW_ARRAY(p->arena, md_spec, g->num_results + 1);
  p->result_at = MD_NEW_ARRAY(p->arena, md_arg, g->num_results + 1);
  p->copy = MD_NEW_ARRAY(p->arena, md_copy, g->num_updates + 1);
  for (int i = 0; i < g->num_results; i++) {
    md_val v = g->result[i].val;
    p->result[i] = spec_of(g, v, g->result[i].name, p->arena);
    p->result_at[i] = md_places_snapshot(s, v, false);
    p->result_at[i].name = p->result[i].name;
    p->num_results++;
  }
  for (int i = 0; i < g->num_updates; i++) {
    md_val state = g->update[i].state, v = g->update[i].val;
    if (v == state || g->value[v].storage == state) continue;
    md_copy *c = &p->copy[p->num_copies++];
    *c = (md_copy){.state = s->state[state], .src = md_places_snapshot(s, v, false)};
    c->src.name = md_places_name(g, v, p->arena);
  }
}

md_places *md_places_of(const md_graph *g, int64_t alignment, md_arena *a) {
  md_places *s = MD_NEW(a, md_places);
  *s = (md_places){.g = g, .arena_bytes = g->arena_bytes};
  s->input = MD_NEW_ARRAY(a, int, g->num_values + 1);
  s->state = MD_NEW_ARRAY(a, int, g->num_values + 1);
  s->snapshot = MD_NEW_ARRAY(a, int64_t, g->num_values + 1);
  s->copied = MD_NEW_ARRAY(a, md_val, g->num_results + g->num_updates + 1);
  for (int i = 0; i <= g->num_values; i++) s->snapshot[i] = -1;
  for (int i = 0; i < g->num_results; i++) add_snapshot(s, g->result[i].val, alignment);
  for (int i = 0; i < g->num_updates; i++) {
    if (g->update[i].state != g->update[i].val) add_snapshot(s, g->update[i].val, alignment);
  }
  int inputs = 0, states = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op == MD_OP_input) s->input[n->out] = inputs++;
    if (n->op == MD_OP_state) s->state[n->out] = states++;
  }
  return s;
}

void md_places_program(const md_places *s, md_program *p) {
  p->graph = md_graph_digest(s->g);
  p->arena_bytes = s->arena_bytes;
  add_leaves(s, p);
  add_ends(s, p);
}

void md_places_keep_text(const md_graph *g, md_program *p) {
  md_text t = {0};
  md_graph_print(g, &t);
  p->graph_text = md_strndup(p->arena, t.s, t.len);
  md_text_free(&t);
}
