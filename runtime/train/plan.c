// SPDX-License-Identifier: Apache-2.0
// --dry-run: how large the run would be. The graph becomes a program without code, so memory is what
// the run itself will ask for; code is made only to measure, and nothing is written.
#include "runtime/train/train.h"

#include "codegen/cpu/cpu.h"

#include <math.h>
#include <string.h>

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

static void show_memory(const md_graph *g, const md_program *p, const md_step *s, int threads,
                        FILE *to) {
  md_memory_report m;
  md_memory_of(g, &m);
  int64_t states[MD_COUNT(kinds)] = {0}, inputs = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op != MD_OP_state && n->op != MD_OP_input) continue;
    int64_t bytes = md_type_bytes(md_type_in(g, n->out));
    if (n->op == MD_OP_input) inputs += bytes;
    else states[kind_of(n->name)] += bytes;
  }
  char a[MD_FLOAT_CHARS], b[MD_FLOAT_CHARS];
  int64_t total = md_program_bytes(p, threads);
  fprintf(to, "memory  %-14s %12s planned", "total", md_bytes_text((double)total, a));
  fprintf(to, ", peak at %s\n", m.peak_region > 0 ? g->region[m.peak_region].name : "-");
  fprintf(to, "        %-14s %12s (%s without reuse)\n", "activations",
          md_bytes_text((double)p->arena_bytes, a), md_bytes_text((double)m.without_reuse, b));
  for (int k = 0; k < MD_COUNT(kinds); k++)
    if (states[k])
      fprintf(to, "        %-14s %12s\n", kinds[k].what, md_bytes_text((double)states[k], a));
  fprintf(to, "        %-14s %12s\n", "inputs", md_bytes_text((double)inputs, a));
  fprintf(to, "        %-14s %12s\n", "kernels' own",
          md_bytes_text((double)(total - p->arena_bytes - m.states - inputs), a));
  md_again again = md_program_again(p);
  if (again.launches)
    fprintf(to, "        %-14s %12d of %d kernels, %.1f%% of FLOPs and %.1f%% of bytes\n",
            "computed again", again.launches, again.of, 100 * again.flops, 100 * again.bytes);
  fprintf(to, "        %-14s %12s\n", "for a video",
          md_bytes_text((double)p->arena_bytes / (double)s->batch, a));
}

// False: no plan, or more than the limit; reported.
static bool show_plan(const md_graph *g, const md_step *s, const md_engine_options *o, int threads,
                      FILE *to, md_diags *d) {
  md_program *p = md_cpu_compile(g, &(md_cpu_options){.cpu = o->cpu, .plan_only = true}, NULL, d);
  if (!p) return false;
  show_memory(g, p, s, threads, to);
  bool ok = md_program_fits(p, threads, o->memory_limit, d);
  md_program_destroy(p);
  return ok;
}

// The graph that would run. NULL: reported.
static md_graph *show_step(const md_step *s, const md_engine_options *engine, int threads, FILE *to,
                           md_diags *d) {
  const md_cpu *cpu = md_cpu_find(engine->cpu, false, d);
  md_graph *g = cpu ? md_step_graph(s, d) : NULL;
  if (!g) return NULL;
  md_pass_options o = engine->passes;
  o.facts = md_cpu_facts(cpu);
  o.memory = md_cpu_memory(cpu, engine->memory_limit, threads);
  g = md_run_passes(g, &o, NULL, d);
  if (!g) return NULL;
  double flops = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    md_cost c = {0};
    md_node_cost(g, g->node[i], &c);
    flops += c.flops;
  }
  fprintf(to, "step    %d nodes in %d regions, %.3f GFLOP\n", g->num_nodes, g->num_regions,
          flops / 1e9);
  if (show_plan(g, s, engine, threads, to, d)) return g;
  md_graph_destroy(g);
  return NULL;
}

// *out: the data, NULL where none is named. False: reported.
static bool show_data(const md_config *c, const md_step *s, md_dataset **out, double *steps,
                      FILE *to, md_diags *d) {
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
  double epochs = md_config_float(c, "epochs");
  double each = (double)data->num_items / (double)s->batch;
  *steps = ceil(epochs * each);
  fprintf(to, "data    %d videos", data->num_items);
  if (every > 1) fprintf(to, "; of %d that were looked into", probed);
  fprintf(to, ", %.1f s, %d unreadable\n", seconds, unreadable);
  fprintf(to, "run     %.2f steps an epoch, %.0f steps in %g epochs\n", each, *steps, epochs);
  bool ok = unreadable < probed;
  if (!ok) md_error(d, E0505, MD_IN_FILE(path), "none of %d videos can be read", probed);
  return ok;
}

md_status md_train_plan(const md_config *c, const md_step *s, const md_engine_options *o, FILE *to,
                        md_diags *d) {
  show_net("visual", &s->visual, to);
  if (s->mode == MD_MODE_MODIST) show_net("motion", &s->motion, to);
  md_graph *g = show_step(s, o, (int)md_config_int(c, "run.threads"), to, d);
  md_dataset *data = NULL;
  double steps = 0;
  bool ok = g && show_data(c, s, &data, &steps, to, d);
  if (ok) md_train_estimate(c, s, &o->passes, o->cpu, g, data, steps, to);
  md_dataset_destroy(data);
  if (g) md_graph_destroy(g);
  return ok ? MD_OK : md_diags_status(d);
}
