// SPDX-License-Identifier: Apache-2.0
// The program's launches: which kernel reads and writes what.
#include "codegen/cpu/assemble.h"

#include <string.h>

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
  md_region_view *view = MD_NEW(s->arena, md_region_view);
  view->g = s->g;
  view->input = MD_NEW_ARRAY(s->arena, md_val, 1);
  view->output = MD_NEW_ARRAY(s->arena, md_val, 1);
  view->input[0] = view->output[0] = v;
  view->num_outputs = 1;
  view->num_inputs = md_def(s->g, v)->op != MD_OP_constant;
  s->step[s->num_steps++] = (md_step){view, find_job(s, view, true, options), "snapshot"};
}

void md_assembly_plan(md_assembly *s, const char *options) {
  const md_graph *g = s->g;
  int max = g->num_regions + g->num_results + g->num_updates + 1;
  s->job = MD_NEW_ARRAY(s->arena, md_job, max);
  s->step = MD_NEW_ARRAY(s->arena, md_step, max);
  s->places = md_places_of(g, 64, s->arena);
  for (int i = 0; i < s->places->num_copied; i++) add_snapshot(s, s->places->copied[i], options);
  for (int i = 1; i <= g->num_regions; i++) {
    md_region_view *view = md_region_view_of(g, i, NULL, s->arena);
    if (!view->num_outputs) continue;
    int job = find_job(s, view, false, options);
    s->step[s->num_steps++] = (md_step){view, job, g->region[i].name};
  }
}

// --- the program

static void add_arg(md_program *p, const md_graph *g, md_val v, md_arg a) {
  a.name = md_places_name(g, v, p->arena);
  p->arg[p->num_args++] = a;
}

static void add_launch(const md_assembly *s, md_program *p, const md_step *step) {
  const md_job *job = &s->job[step->job];
  const md_region_view *r = step->view;
  md_launch *l = &p->launch[p->num_launches++];
  *l = (md_launch){.name = md_strdup(p->arena, step->name ? step->name : "region"),
                   .region = job->is_snapshot ? 0 : r->index,
                   .first_phase = p->num_phases,
                   .num_phases = job->num_phases,
                   .first_arg = p->num_args};
  md_cpu_work work = md_work_of(r, job->in_f32, s->cpu);
  l->flops = work.flops;
  l->bytes = work.memory_bytes + work.cache_bytes;
  for (int i = 0; i < job->num_phases; i++) {
    p->phase[p->num_phases] = job->phase[i];
    p->phase[p->num_phases].symbol = md_strdup(p->arena, job->phase[i].symbol);
    p->num_phases++;
  }
  for (int i = 0; i < r->num_inputs; i++)
    add_arg(p, s->g, r->input[i], md_places_arg(s->places, r->input[i], false));
  for (int i = 0; i < r->num_outputs; i++) {
    md_arg a = job->is_snapshot ? md_places_snapshot(s->places, r->output[i], true)
                                : md_places_arg(s->places, r->output[i], true);
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

void md_assembly_program(const md_assembly *s, md_program *p) {
  int phases = 0, args = 0;
  for (int i = 0; i < s->num_steps; i++) {
    phases += s->job[s->step[i].job].num_phases;
    args += s->step[i].view->num_inputs + s->step[i].view->num_outputs + 1;
  }
  p->launch = MD_NEW_ARRAY(p->arena, md_launch, s->num_steps + 1);
  p->phase = MD_NEW_ARRAY(p->arena, md_phase, phases + 1);
  p->arg = MD_NEW_ARRAY(p->arena, md_arg, args + 1);
  for (int i = 0; i < s->num_steps; i++) add_launch(s, p, &s->step[i]);
  md_places_program(s->places, p);
}
