// SPDX-License-Identifier: Apache-2.0
// The program's data: which launch reads and writes what, where results lie, what is copied into
// states at the end of a step.
//
// What the graph returns or takes as an update without computing it has no place of its own: a
// constant, or the old value of a state that this step overwrites. Such values get a snapshot, a
// launch before all others that writes them behind the planned arena.
#include "codegen/cpu/assemble.h"

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

static int find_job(md_assembly *s, const md_region_view *view, bool is_snapshot,
                    const char *options) {
  md_digest d = md_structure_digest(view, is_snapshot, options);
  for (int i = 0; i < s->num_jobs; i++) {
    if (s->job[i].structure.lo == d.lo && s->job[i].structure.hi == d.hi) return i;
  }
  char hex[33];
  md_digest_text(d, hex);
  md_job *j = &s->job[s->num_jobs];
  *j = (md_job){.view = view, .is_snapshot = is_snapshot, .structure = d};
  j->symbol = md_format(s->arena, "k%.16s", hex);
  return s->num_jobs++;
}

static void add_snapshot(md_assembly *s, md_val v, const char *options) {
  if (!needs_snapshot(s->g, v) || s->snapshot[v] >= 0) return;
  md_region_view *view = MD_NEW(s->arena, md_region_view);
  view->g = s->g;
  view->input = MD_NEW_ARRAY(s->arena, md_val, 1);
  view->output = MD_NEW_ARRAY(s->arena, md_val, 1);
  view->input[0] = view->output[0] = v;
  view->num_outputs = 1;
  view->num_inputs = !is_leaf(s->g, v, MD_OP_constant);
  s->snapshot[v] = md_round_up(s->arena_bytes, 64);
  s->arena_bytes = s->snapshot[v] + md_type_bytes(md_type_in(s->g, v));
  s->step[s->num_steps++] =
      (md_step){view, find_job(s, view, true, options), s->snapshot[v], "snapshot"};
}

void md_assembly_plan(md_assembly *s, const char *options) {
  const md_graph *g = s->g;
  int max = g->num_regions + g->num_results + g->num_updates + 1;
  s->job = MD_NEW_ARRAY(s->arena, md_job, max);
  s->step = MD_NEW_ARRAY(s->arena, md_step, max);
  s->snapshot = MD_NEW_ARRAY(s->arena, int64_t, g->num_values + 1);
  for (int i = 0; i <= g->num_values; i++) s->snapshot[i] = -1;
  s->arena_bytes = g->arena_bytes;
  for (int i = 0; i < g->num_results; i++) add_snapshot(s, g->result[i].val, options);
  for (int i = 0; i < g->num_updates; i++) {
    if (g->update[i].state != g->update[i].val) add_snapshot(s, g->update[i].val, options);
  }
  for (int i = 1; i <= g->num_regions; i++) {
    md_region_view *view = md_region_view_of(g, i, NULL, s->arena);
    if (!view->num_outputs) continue;
    int job = find_job(s, view, false, options);
    s->step[s->num_steps++] = (md_step){view, job, -1, g->region[i].name};
  }
}

// --- the program

typedef struct Names {
  int *input, *state;
} Names;  // number of an input or state, by value

static md_arg arg_of(const md_assembly *s, const Names *names, md_val v, bool write) {
  const md_value *x = &s->g->value[v];
  md_arg a = {.space = MD_IN_ARENA,
              .offset = x->offset,
              .bytes = md_type_bytes(&x->type),
              .write = write,
              .name = x->name,
              .dtype = x->type.dtype,
              .block = x->type.block,
              .rank = x->type.shape.rank};
  memcpy(a.dim, x->type.shape.dim, sizeof a.dim);
  md_val state = x->node->op == MD_OP_state ? v : x->storage;
  if (x->node->op == MD_OP_input) {
    a.space = MD_IN_INPUT;
    a.index = names->input[v];
    a.offset = 0;
  } else if (state != MD_NONE) {
    a.space = MD_IN_STATE;
    a.index = names->state[state];
    a.offset = 0;
  }
  return a;
}

static md_arg snapshot_of(const md_assembly *s, const Names *names, md_val v, bool write) {
  md_arg a = arg_of(s, names, v, write);
  if (s->snapshot[v] < 0) return a;
  a.space = MD_IN_ARENA;
  a.index = 0;
  a.offset = s->snapshot[v];
  return a;
}

static const char *name_of(const md_graph *g, md_val v, md_arena *a) {
  const char *name = g->value[v].name;
  return name ? md_strdup(a, name) : md_format(a, "%u", (unsigned)v);
}

static md_spec spec_of(const md_graph *g, md_val v, const char *name, md_arena *a) {
  const md_type *t = md_type_in(g, v);
  md_spec s = {.name = name ? md_strdup(a, name) : name_of(g, v, a),
               .dtype = t->dtype,
               .rank = t->shape.rank,
               .bytes = md_elements(&t->shape) * md_dtype_size(t->dtype)};
  memcpy(s.dim, t->shape.dim, sizeof s.dim);
  return s;
}

static Names add_leaves(const md_assembly *s, md_program *p) {
  const md_graph *g = s->g;
  Names names = {MD_NEW_ARRAY(s->arena, int, g->num_values + 1),
                 MD_NEW_ARRAY(s->arena, int, g->num_values + 1)};
  p->input = MD_NEW_ARRAY(p->arena, md_spec, g->num_nodes + 1);
  p->state = MD_NEW_ARRAY(p->arena, md_spec, g->num_nodes + 1);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op == MD_OP_input) {
      names.input[n->out] = p->num_inputs;
      p->input[p->num_inputs++] = spec_of(g, n->out, n->name, p->arena);
    } else if (n->op == MD_OP_state) {
      names.state[n->out] = p->num_states;
      md_spec spec = spec_of(g, n->out, n->name, p->arena);
      const md_state_attr *init = &n->attr.state;
      spec.init = (int)init->init;
      spec.a = init->a;
      spec.b = init->b;
      spec.from = init->from ? md_strdup(p->arena, init->from) : NULL;
      p->state[p->num_states++] = spec;
    }
  }
  return names;
}

static void add_arg(md_program *p, const md_graph *g, md_val v, md_arg a) {
  a.name = name_of(g, v, p->arena);
  p->arg[p->num_args++] = a;
}

static void add_launch(const md_assembly *s, const Names *names, md_program *p,
                       const md_step *step) {
  const md_job *job = &s->job[step->job];
  const md_region_view *r = step->view;
  md_launch *l = &p->launch[p->num_launches++];
  *l = (md_launch){.name = md_strdup(p->arena, step->name ? step->name : "region"),
                   .first_phase = p->num_phases,
                   .num_phases = job->num_phases,
                   .first_arg = p->num_args};
  md_cpu_work work = md_work_of(r, s->cpu);
  l->flops = work.flops;
  l->bytes = work.memory_bytes + work.cache_bytes;
  for (int i = 0; i < job->num_phases; i++) {
    p->phase[p->num_phases] = job->phase[i];
    p->phase[p->num_phases].symbol = md_strdup(p->arena, job->phase[i].symbol);
    p->num_phases++;
  }
  for (int i = 0; i < r->num_inputs; i++)
    add_arg(p, s->g, r->input[i], arg_of(s, names, r->input[i], false));
  for (int i = 0; i < r->num_outputs; i++) {
    md_arg a = job->is_snapshot ? snapshot_of(s, names, r->output[i], true)
                                : arg_of(s, names, r->output[i], true);
    add_arg(p, s->g, r->output[i], a);
  }
  if (job->workspace_bytes > 0) {
    p->workspace_bytes = MD_MAX(p->workspace_bytes, job->workspace_bytes);
    p->arg[p->num_args++] = (md_arg){.space = MD_IN_WORKSPACE,
                                     .bytes = job->workspace_bytes,
                                     .write = true,
                                     .name = "workspace"};
  }
  l->num_args = p->num_args - l->first_arg;
}

static void add_ends(const md_assembly *s, const Names *names, md_program *p) {
  const md_graph *g = s->g;
  p->result = MD_NEW_ARRAY(p->arena, md_spec, g->num_results + 1);
  p->result_at = MD_NEW_ARRAY(p->arena, md_arg, g->num_results + 1);
  p->copy = MD_NEW_ARRAY(p->arena, md_copy, g->num_updates + 1);
  for (int i = 0; i < g->num_results; i++) {
    md_val v = g->result[i].val;
    p->result[i] = spec_of(g, v, g->result[i].name, p->arena);
    p->result_at[i] = snapshot_of(s, names, v, false);
    p->result_at[i].name = p->result[i].name;
    p->num_results++;
  }
  for (int i = 0; i < g->num_updates; i++) {
    md_val state = g->update[i].state, v = g->update[i].val;
    if (v == state || g->value[v].storage == state) continue;
    md_copy *c = &p->copy[p->num_copies++];
    *c = (md_copy){.state = names->state[state], .src = snapshot_of(s, names, v, false)};
    c->src.name = name_of(g, v, p->arena);
  }
}

void md_assembly_program(const md_assembly *s, md_program *p) {
  int phases = 0, args = 0;
  for (int i = 0; i < s->num_steps; i++) {
    phases += s->job[s->step[i].job].num_phases;
    args += s->step[i].view->num_inputs + s->step[i].view->num_outputs + 1;
  }
  p->graph = md_graph_digest(s->g);
  p->arena_bytes = s->arena_bytes;
  p->launch = MD_NEW_ARRAY(p->arena, md_launch, s->num_steps + 1);
  p->phase = MD_NEW_ARRAY(p->arena, md_phase, phases + 1);
  p->arg = MD_NEW_ARRAY(p->arena, md_arg, args + 1);
  Names names = add_leaves(s, p);
  for (int i = 0; i < s->num_steps; i++) add_launch(s, &names, p, &s->step[i]);
  add_ends(s, &names, p);
}
