// SPDX-License-Identifier: Apache-2.0
// --dry-run: how large the run would be. The graph becomes a program without code, so memory is what
// the run itself will ask for; code is made only to measure, and nothing is written.
#include "runtime/train/plan.h"

#include "codegen/cpu/cpu.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PROBED = 1000 };  // videos that are looked into; of more, every n-th

typedef struct Kind {
  const char *what, *prefix[2];
} Kind;
static const Kind kinds[] = {{"weights", {"v.", "m."}},
                             {"key networks", {"vk.", "mk."}},
                             {"optimiser", {"sgd.", "adam."}},
                             {"banks", {"bank.", NULL}}};

static int kind_of(const char *name) {
  for (int k = 0; k < MD_COUNT(kinds); k++)
    for (int i = 0; i < 2; i++)
      if (kinds[k].prefix[i] && strncmp(name, kinds[k].prefix[i], strlen(kinds[k].prefix[i])) == 0)
        return k;
  return 0;
}

static void show_net(const char *what, const md_net *net, FILE *to) {
  int64_t trunk = md_net_measure(net, 0, 0, false).params;
  int64_t all = md_net_measure(net, 0, 0, true).params;
  fprintf(to, "%-8s%-16s %12lld parameters", what, net->name, (long long)trunk);
  if (all > trunk) fprintf(to, " + %lld of its head", (long long)(all - trunk));
  fputc('\n', to);
}

typedef struct Plan {
  const md_config *config;
  const md_step *step;
  const md_train_options *o;
  FILE *to;
  md_diags *d;
  bool is_gpu;
  md_plan_device device;  // of a GPU
  int threads;            // of the CPU
  md_graph *graph;
  md_program *program;  // without code
} Plan;

// About the largest batch that the GPU has room for: all but the states grows with it. It falls into the
// groups of batch norm.
static void show_room(const Plan *p, int64_t total, int64_t states) {
  char text[MD_FLOAT_CHARS];
  int64_t each = (total - states) / p->step->batch;
  if (!p->device.bytes || each <= 0) return;
  int64_t most = MD_MAX(p->device.bytes - states, 0) / each;
  most -= most % p->step->bn_groups;
  fprintf(p->to, "        %-14s %12s on %s: ", "there is",
          md_bytes_text((double)p->device.bytes, text), p->device.title);
  if (most) fprintf(p->to, "room for a batch of about %lld\n", (long long)most);
  else if (states >= p->device.bytes) fprintf(p->to, "the states alone do not fit\n");
  else fprintf(p->to, "no room for a batch of %lld\n", (long long)p->step->bn_groups);
}

static void show_memory(const Plan *plan) {
  const md_graph *g = plan->graph;
  const md_program *p = plan->program;
  FILE *to = plan->to;
  md_memory_report m;
  md_memory_of(g, &m);
  int64_t states[MD_COUNT(kinds)] = {0}, inputs = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op != MD_OP_state && n->op != MD_OP_input) continue;
    int64_t bytes = md_type_bytes(md_type_in(g, n->out));
    if (n->op == MD_OP_input) inputs += plan->is_gpu ? 2 * bytes : bytes;
    else states[kind_of(n->name)] += bytes;
  }
  char a[MD_FLOAT_CHARS], b[MD_FLOAT_CHARS];
  int64_t total = md_program_bytes(p, plan->threads);
  fprintf(to, "memory  %-14s %12s planned", "total", md_bytes_text((double)total, a));
  fprintf(to, ", peak at %s\n", m.peak_region > 0 ? g->region[m.peak_region].name : "-");
  fprintf(to, "        %-14s %12s (%s without reuse)\n", "activations",
          md_bytes_text((double)p->arena_bytes, a), md_bytes_text((double)m.without_reuse, b));
  for (int k = 0; k < MD_COUNT(kinds); k++)
    if (states[k])
      fprintf(to, "        %-14s %12s\n", kinds[k].what, md_bytes_text((double)states[k], a));
  fprintf(to, "        %-14s %12s%s\n", "inputs", md_bytes_text((double)inputs, a),
          plan->is_gpu ? ", those of two steps" : "");
  fprintf(to, "        %-14s %12s\n", "kernels' own",
          md_bytes_text((double)(total - p->arena_bytes - m.states - inputs), a));
  md_again again = md_program_again(p);
  if (again.launches)
    fprintf(to, "        %-14s %12d of %d kernels, %.1f%% of FLOPs and %.1f%% of bytes\n",
            "computed again", again.launches, again.of, 100 * again.flops, 100 * again.bytes);
  fprintf(to, "        %-14s %12s\n", "for a video",
          md_bytes_text((double)p->arena_bytes / (double)plan->step->batch, a));
  if (plan->is_gpu) show_room(plan, total, m.states);
}

// --- the step that would run

// What the passes have to know. False: reported.
static bool ask_target(Plan *p, md_pass_options *o) {
  const md_engine_options *e = &p->o->engine;
  *o = e->passes;
  if (p->is_gpu) {
    o->memory = md_cuda_memory(&p->device.program, e->memory_limit);
    return md_cuda_facts(p->device.target, &o->facts, p->d);
  }
  const md_cpu *cpu = md_cpu_find(e->cpu, false, p->d);
  if (!cpu) return false;
  md_engine_warn_of_threads(p->threads, p->d);
  o->facts = md_cpu_facts(cpu);
  o->memory = md_cpu_memory(cpu, e->memory_limit, p->threads);
  return true;
}

static bool make_program(Plan *p) {
  md_cpu_options cpu = {.cpu = p->o->engine.cpu, .plan_only = true};
  p->program = p->is_gpu ? md_plan_device_program(&p->device, p->graph, p->d)
                         : md_cpu_compile(p->graph, &cpu, NULL, p->d);
  return p->program != NULL;
}

static bool fits(const Plan *p) {
  bool ok = md_program_fits(p->program, p->threads, p->o->engine.memory_limit, p->d);
  if (!ok || !p->is_gpu || !p->device.bytes) return ok;
  return md_program_fits_on(p->program, p->device.bytes, p->device.title, p->d);
}

// False: no plan, or more than there is; reported.
static bool show_step(Plan *p) {
  md_pass_options o;
  md_graph *g = ask_target(p, &o) ? md_step_graph(p->step, p->d) : NULL;
  if (g) p->graph = md_run_passes(g, &o, NULL, p->d);
  if (!p->graph) return false;
  double flops = 0;
  for (int i = 0; i < p->graph->num_nodes; i++) {
    md_cost c = {0};
    md_node_cost(p->graph, p->graph->node[i], &c);
    flops += c.flops;
  }
  fprintf(p->to, "step    %d nodes in %d regions, %.3f GFLOP\n", p->graph->num_nodes,
          p->graph->num_regions, flops / 1e9);
  if (!make_program(p)) return false;
  show_memory(p);
  return fits(p);
}

// --- the data

// *out: the data, NULL where none is named. False: reported.
static bool show_data(const md_config *c, const md_step *s, const md_train_options *o,
                      md_dataset **out, double *steps, FILE *to, md_diags *d) {
  const char *path = md_config_text(c, "data.train");
  if (!*path) {
    fprintf(to, "data    data.train is not set\n");
    return true;
  }
  md_dataset *data = *out = md_train_data(c, s, d);
  if (!data) return false;
  int every = (data->num_items + MAX_PROBED - 1) / MAX_PROBED, probed = 0, unreadable = 0;
  double seconds = 0;
  for (int i = 0; i < data->num_items; i += every, probed++) {
    md_fault why;
    md_timeline *t = md_timeline_read(data->items[i].path, &(md_video_limits){0}, &why);
    if (t) {
      seconds += md_timeline_length(t) / 30;
    } else {
      unreadable++;
      md_warning(d, MD_IN_FILE(data->items[i].path), "%s", why.text);
    }
    md_timeline_destroy(t);
  }
  double each = (double)data->num_items / (double)s->batch;
  *steps = (double)md_train_steps(c, o, data->num_items, s->batch);
  fprintf(to, "data    %d videos", data->num_items);
  if (every > 1) fprintf(to, "; of %d that were looked into", probed);
  fprintf(to, ", %.1f s, %d unreadable\n", seconds, unreadable);
  fprintf(to, "run     %.2f steps an epoch, %.0f steps in %g epochs\n", each, *steps,
          o->max_steps ? *steps / each : md_config_float(c, "epochs"));
  bool ok = unreadable < probed;
  if (!ok) md_error(d, E0505, MD_IN_FILE(path), "none of %d videos can be read", probed);
  return ok;
}

static void show_time(Plan *p, const md_dataset *data, double steps) {
  const md_engine_options *o = &p->o->engine;
  md_estimate e = {.cores = md_pool_default(), .is_bf16 = o->passes.precision == MD_BF16};
  bool known = p->is_gpu ? md_plan_device_estimate(&p->device, p->program, &e, p->to)
                         : md_estimate_here(&e, p->config, p->step, o, p->graph, p->to);
  if (!known || !data) return;
  if (md_estimate_decoding(&e, p->config, p->step, data, p->to))
    md_estimate_run(&e, (int)md_config_int(p->config, "data.workers"), steps, p->to);
}

static bool show(Plan *p) {
  p->is_gpu = p->o->target || p->o->engine.backend == MD_BACKEND_CUDA;
  if (p->is_gpu && !md_plan_device_find(&p->device, p->o, p->d)) return false;
  show_net("visual", &p->step->visual, p->to);
  if (p->step->mode == MD_MODE_MODIST) show_net("motion", &p->step->motion, p->to);
  md_dataset *data = NULL;
  double steps = 0;
  bool ok = show_step(p) && show_data(p->config, p->step, p->o, &data, &steps, p->to, p->d);
  if (ok) show_time(p, data, steps);
  md_dataset_destroy(data);
  return ok;
}

md_status md_train_plan(const md_config *c, const md_step *s, const md_train_options *o, FILE *to,
                        md_diags *d) {
  Plan p = {.config = c,
            .step = s,
            .o = o,
            .to = to,
            .d = d,
            .threads = (int)md_config_int(c, "run.threads")};
  bool ok = show(&p);
  md_program_destroy(p.program);
  if (p.graph) md_graph_destroy(p.graph);
  return ok ? MD_OK : md_diags_status(d);
}
