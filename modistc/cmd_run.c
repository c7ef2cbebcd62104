// SPDX-License-Identifier: Apache-2.0
// run: executes an artefact or a graph on given or random inputs.
#include "modistc/modistc.h"

#include "base/file.h"
#include "runtime/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const md_option run_options[] = {
    {"config", 'c', "FILE", "settings of the model; key=value arguments override them"},
    {"input", 'i', "NAME=FILE.npy", "value of an input; the others are random"},
    {"output", 'o', "NAME=FILE.npy",
     "write a result; without any, results are summed up on screen"},
    {"steps", 'n', "N", "how many steps (1)"},
    {"threads", 'j', "N", "threads (all cores)"},
    {"seed", 0, "N", "of initial states and random inputs (0)"},
    {"backend", 0, "NAME",
     "cpu (default) or interp: the slow, plain meaning; -O0 unless passes are asked for"},
    MD_DEVICE_OPTION,
    MD_ENGINE_OPTIONS,
    {"verify", 0, NULL,
     "check every kernel against the interpreter of the graph that the passes made"},
    {"verify-work", 0, "GFLOP",
     "above it only some channels of a convolution are checked (0.2); 0: never"},
    {"check-nan", 0, NULL, "stop at the first kernel that makes a NaN or infinity"},
    {"trace", 0, "FILE", "Chrome/Perfetto trace of the kernels"},
    {"times", 0, NULL, "list the kernels by time"},
    MD_MEMORY_OPTION,
    MD_PASS_OPTIONS,
    MD_CPU_OPTIONS,
    {0}};

static const md_option_rule run_rules[] = {
    {":*.mdx", MD_PASS_NAMES " cpu jit-asan backend", "an artefact is compiled already",
     "give it to 'modistc compile'"},
    {":*.mdx !engine", "no-cache", "an artefact is compiled already", NULL},
    {"backend=interp", MD_CPU_NAMES " threads device verify check-nan trace times", MD_INTERP_WHY,
     "take --backend=cpu"},
    {"!device=cuda* !:*.mdx", "engine", "the CPU runs the program", "add --device=cuda:0"},
    {"device=cuda*", "cpu jit-asan threads backend", MD_DEVICE_WHY, NULL},
    {"!verify", "verify-work", "nothing is verified", "add --verify"},
    {0}};

static md_spec spec_of(const char *name, const md_type *t) {
  md_spec s = {.name = name, .dtype = t->dtype, .rank = t->shape.rank, .bytes = md_type_bytes(t)};
  memcpy(s.dim, t->shape.dim, sizeof s.dim);
  return s;
}

// Splits NAME=FILE; the name in cli's arena.
static const char *split(md_cli *cli, const char *text, const char *option, const char **file) {
  const char *eq = strchr(text, '=');
  if (eq && eq != text && eq[1]) {
    *file = eq + 1;
    return md_strndup(cli->arena, text, (size_t)(eq - text));
  }
  md_error(cli->diags, E0401, MD_NOWHERE, "--%s is '%s', but takes NAME=FILE.npy", option, text);
  md_hint(cli->diags, "for example: --%s x=x.npy", option);
  return NULL;
}

static bool unknown(md_cli *cli, md_engine *e, const char *what, const char *name, bool result) {
  const md_graph *g = md_engine_graph(e);
  const char **names = MD_NEW_ARRAY(cli->arena, const char *, g->num_nodes + g->num_results);
  int num = 0;
  for (int i = 0; !result && i < g->num_nodes; i++)
    if (g->node[i]->op == MD_OP_input) names[num++] = g->node[i]->name;
  for (int i = 0; result && i < g->num_results; i++) names[num++] = g->result[i].name;
  md_error(cli->diags, E0401, MD_NOWHERE, "the graph has no %s '%s'", what, name);
  const char *near = md_nearest(name, names, num);
  md_text list = {0};
  for (int i = 0; i < num; i++) md_put(&list, "%s%s", i ? ", " : "", names[i]);
  if (near) md_hint(cli->diags, "did you mean '%s'?", near);
  else if (num) md_hint(cli->diags, "it has: %s", list.s);
  md_text_free(&list);
  return false;
}

static bool is_given(md_cli *cli, const char *input) {
  size_t len = strlen(input);
  const char *text;
  for (int at = 0; (text = md_cli_next(cli, "input", &at));)
    if (strncmp(text, input, len) == 0 && text[len] == '=') return true;
  return false;
}

// What was not given is drawn once, as in modist_rt.
static void draw_inputs(md_cli *cli, md_engine *e, uint64_t seed) {
  const md_graph *g = md_engine_graph(e);
  for (int i = 0; i < g->num_nodes; i++) {
    const char *name = g->node[i]->name;
    if (g->node[i]->op != MD_OP_input || is_given(cli, name)) continue;
    md_type type;
    void *to = md_engine_input(e, name, &type);
    md_fill_input(name, type.dtype, md_elements(&type.shape), seed, to);
  }
}

static bool read_inputs(md_cli *cli, md_engine *e) {
  const char *text;
  for (int at = 0; (text = md_cli_next(cli, "input", &at));) {
    const char *file, *name = split(cli, text, "input", &file);
    if (!name) return false;
    md_type type;
    void *to = md_engine_input(e, name, &type);
    if (!to) return unknown(cli, e, "input", name, false);
    md_spec spec = spec_of(name, &type);
    if (!md_npy_read(file[0] == '@' ? file + 1 : file, &spec, to, cli->diags)) return false;
  }
  return true;
}

// Before anything runs: a slip in the last name must not cost the steps, or leave the first file.
static bool check_outputs(md_cli *cli, md_engine *e) {
  const char *text;
  for (int at = 0; (text = md_cli_next(cli, "output", &at));) {
    const char *file, *name = split(cli, text, "output", &file);
    if (!name) return false;
    if (md_find_result(md_engine_graph(e), name) == MD_NONE)
      return unknown(cli, e, "result", name, true);
    if (!md_file_may_create(file[0] == '@' ? file + 1 : file, cli->diags)) return false;
  }
  return true;
}

// The result as doubles, malloc'ed. NULL: reported.
static double *result_of(md_cli *cli, md_engine *e, const char *name, int64_t n) {
  double *x = malloc((size_t)n * sizeof *x);
  if (x && md_engine_result(e, name, x, n)) return x;
  free(x);
  if (!md_engine_is_alive(e, cli->diags)) return NULL;
  md_error(cli->diags, E0802, MD_NOWHERE, "no memory for a copy of result '%s'", name);
  md_hint(cli->diags, "a smaller batch needs less: batch=N");
  return NULL;
}

static bool write_output(md_cli *cli, md_engine *e, const char *name, const char *file) {
  md_type type = *md_type_in(md_engine_graph(e), md_find_result(md_engine_graph(e), name));
  type.block = 0;
  md_spec spec = spec_of(name, &type);
  int64_t n = md_elements(&type.shape);
  double *x = result_of(cli, e, name, n);
  if (!x) return false;
  char *bytes = malloc((size_t)spec.bytes);
  bool ok = bytes != NULL;
  if (ok) {
    for (int64_t i = 0; i < n; i++) md_element_store(spec.dtype, bytes, i, x[i]);
    ok = md_npy_write(file[0] == '@' ? file + 1 : file, &spec, bytes, cli->diags);
  } else {
    md_error(cli->diags, E0802, MD_NOWHERE, "no memory for the file of result '%s'", name);
  }
  free(bytes);
  free(x);
  return ok;
}

static bool write_outputs(md_cli *cli, md_engine *e) {
  const char *text;
  for (int at = 0; (text = md_cli_next(cli, "output", &at));) {
    const char *file = NULL, *name = split(cli, text, "output", &file);
    if (!write_output(cli, e, name, file)) return false;
  }
  return true;
}

static bool show_results(md_cli *cli, md_engine *e) {
  const md_graph *g = md_engine_graph(e);
  for (int i = 0; i < g->num_results; i++) {
    const md_type *t = md_type_in(g, g->result[i].val);
    int64_t n = md_elements(&t->shape);
    double *x = result_of(cli, e, g->result[i].name, n), sum = 0, square = 0;
    if (!x) return false;
    for (int64_t j = 0; j < n; j++) {
      sum += x[j];
      square += x[j] * x[j];
    }
    if (n == 1) printf("%-16s %.9g\n", g->result[i].name, x[0]);
    else
      printf("%-16s %s mean %.6g rms %.6g\n", g->result[i].name, md_type_text(t, cli->arena),
             sum / (double)n, sqrt(square / (double)n));
    free(x);
  }
  return true;
}

typedef struct Row {
  const char *name;
  double ms, gflops;
} Row;
static int by_time(const void *a, const void *b) {
  double x = ((const Row *)a)->ms, y = ((const Row *)b)->ms;
  return (x < y) - (x > y);
}

static void show_times(md_cli *cli, md_engine *e) {
  md_exec *x = md_engine_exec(e);
  if (!x) return;
  const md_program *p = md_exec_program(x);
  const md_launch_time *time = md_exec_times(x);
  Row *row = MD_NEW_ARRAY(cli->arena, Row, p->num_launches);
  double total = 0;
  int first, num = md_exec_launches(x, &first);
  for (int i = 0; i < num; i++) {
    const md_launch *l = &p->launch[first + i];
    double ms = time[first + i].calls ? (double)time[first + i].min_ns / 1e6 : 0;
    row[i] = (Row){l->name, ms, ms > 0 ? l->flops / ms / 1e6 : 0};
    total += ms;
  }
  qsort(row, (size_t)num, sizeof *row, by_time);
  printf("%-40s %10s %8s %10s\n", "kernel (fastest call)", "ms", "share", "GFLOP/s");
  for (int i = 0; i < MD_MIN(num, 60); i++)
    printf("%-40s %10.3f %7.1f%% %10.1f\n", row[i].name, row[i].ms, 100 * row[i].ms / total,
           row[i].gflops);
  printf("%-40s %10.3f\n", "all kernels", total);
}

static bool step(md_cli *cli, md_engine *e, int64_t steps, uint64_t seed) {
  double gflop = 0.2;
  if (!md_cli_float(cli, "verify-work", 0, 1e9, &gflop)) return false;
  draw_inputs(cli, e, seed);
  for (int64_t i = 0; i < steps; i++) {
    if (!md_cli_has(cli, "verify")) {
      if (!md_engine_step(e, cli->diags)) return false;
      continue;
    }
    md_verify_stats s = {0};
    if (!md_engine_verify_step(e, gflop * 1e9, &s, cli->diags)) return false;
    printf("verified %d regions, %d values, %lld elements; worst %.3g of its tolerance at %s\n",
           s.regions, s.values, (long long)s.elements, s.worst, s.at);
    if (s.sampled)
      printf("of %d regions with a convolution of more than %g GFLOP some channels were checked\n",
             s.sampled, gflop);
  }
  return true;
}

static bool execute(md_cli *cli, md_engine *e, int64_t steps, int64_t seed) {
  const char *trace_path = md_cli_get(cli, "trace");
  md_trace *trace = trace_path && md_engine_exec(e) ? md_trace_create() : NULL;
  if (trace) md_exec_set_trace(md_engine_exec(e), trace);
  int64_t start = md_now_ns();
  bool ok = md_cli_may_write(cli, "trace") && check_outputs(cli, e) && read_inputs(cli, e) &&
            step(cli, e, steps, (uint64_t)seed);
  double seconds = (double)(md_now_ns() - start) / 1e9;
  if (trace) ok = md_trace_save(trace, trace_path, cli->diags) && ok;  // of a step that failed, too
  double busy = trace ? md_trace_busy(trace) : 0;
  if (trace) md_trace_destroy(trace);
  if (!ok || !write_outputs(cli, e)) return false;
  if (!md_cli_has(cli, "output") && !show_results(cli, e)) return false;
  if (md_cli_has(cli, "times")) show_times(cli, e);
  const char *engine = md_engine_exec(e) ? md_exec_engine(md_engine_exec(e)) : NULL;
  if (engine && !cli->quiet) fprintf(stderr, "%s\n", engine);
  if (!cli->quiet)
    fprintf(stderr, "%lld step%s in %.3f s%s%s%s\n", (long long)steps, steps == 1 ? "" : "s",
            seconds, md_engine_is_gpu(e) ? " on " : "",
            md_engine_is_gpu(e) ? md_exec_device(md_engine_exec(e)) : "",
            busy > 0 ? md_format(cli->arena, ", threads busy for %.1f%% of the steps", 100 * busy)
                     : "");
  return true;
}

static bool asks_for_passes(const md_cli *cli) {
  static const char *const options[] = {"opt-level",      "passes",        "disable-pass",
                                        "print-ir-after", "print-changed", "max-rewrites"};
  for (int i = 0; i < MD_COUNT(options); i++)
    if (md_cli_has(cli, options[i])) return true;
  return false;
}

static md_status run(md_cli *cli) {
  if (!md_cli_args(cli, 1, 64, "takes an artefact, a model, a graph text or a plug-in"))
    return MD_ERR_USAGE;
  int64_t steps = 1, threads = 0, seed = 0;
  md_engine_options o = {.cpu = md_cli_get(cli, "cpu"),
                         .asan = md_cli_has(cli, "jit-asan"),
                         .no_cache = md_cli_has(cli, "no-cache"),
                         .check_nan = md_cli_has(cli, "check-nan"),
                         .verifies = md_cli_has(cli, "verify"),
                         .time = md_cli_has(cli, "times")};
  if (!md_source_engine(cli, &o) || !md_source_backend(cli, &o) ||
      !md_cli_int(cli, "steps", 1, INT32_MAX, &steps) ||
      !md_cli_int(cli, "threads", 0, 1024, &threads) ||
      !md_cli_int(cli, "seed", 0, INT64_MAX, &seed) ||
      !md_cli_bytes(cli, "memory-limit", &o.memory_limit) || !md_source_passes(cli, &o.passes))
    return MD_ERR_USAGE;
  // A wrong rewrite would change what it is compared with.
  if (o.backend == MD_BACKEND_INTERP && !asks_for_passes(cli)) o.passes.level = 0;
  o.threads = (int)threads;
  o.seed = (uint64_t)seed;
  const char *what = cli->arg[0];
  size_t len = strlen(what);
  md_engine *e = NULL;
  if (len > 4 && strcmp(what + len - 4, ".mdx") == 0) {
    if (md_source_takes_no_settings(cli, what)) e = md_engine_load(what, &o, cli->diags);
  } else {
    md_graph *g = md_source_graph(cli, what);
    if (g) e = md_engine_create(g, &o, cli->diags);
  }
  bool ok = e && execute(cli, e, steps, seed);
  md_engine_destroy(e);
  return ok ? MD_OK : md_diags_status(cli->diags);
}

static const char *const examples[] = {
    "modistc run tiny.mdx --steps=3 --times", "modistc run modist-tiny --verify",
    "modistc run graph.mdg --input x=x.npy --output y=y.npy",
    "modistc compile modist-tiny --emit=graph | modistc run -", NULL};
const md_command md_cmd_run = {
    .name = "run",
    .group = "Compile and run",
    .usage = "ARTEFACT.mdx|MODEL|GRAPH.mdg|PLUGIN.so [key=value ...] [options]",
    .doc = "execute a program once or for some steps",
    .examples = examples,
    .options = run_options,
    .rules = run_rules,
    .run = run};
