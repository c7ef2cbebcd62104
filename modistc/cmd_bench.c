// SPDX-License-Identifier: Apache-2.0
// bench: how long a step, convolutions, or fused regions take, against baselines of the same run;
// the loader's part is in bench_loader.c.
//
// Candidates take turns (a, b, a, b, ...), so that a machine that slows down slows both. The median
// and the spread (half the range between the quartiles) of the rounds are printed.
#include "modistc/modistc.h"

#include "base/file.h"
#include "runtime/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 1000, MAX_SIDES = 3 };

static const md_option bench_options[] = {
    {"config", 'c', "FILE", "settings of the model (step)"},
    {"baseline", 0, "LIST", "unfused, interp: measured in turn with the fused program"},
    {"rounds", 'n', "N", "counted rounds (5); loader: batches (one epoch)"},
    {"warmup", 0, "N", "rounds before counting starts (1; loader: 0)"},
    {"step-ms", 0, "T", "loader: pretend that a step takes so long (0)"},
    {"threads", 'j', "N", "threads (all cores)"},
    {"format", 0, "FORM", "table (default) or json"},
    {"output", 'o', "FILE", "where to write the report; '-' or nothing: standard output"},
    MD_CPU_OPTIONS,
    {0}};

static const md_option_rule bench_rules[] = {
    {":conv|fused", "config", "only `bench step` has settings", NULL}, {0}};

typedef struct Samples {
  double ms[MAX_ROUNDS];
  int num;
} Samples;

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// Quantile of sorted samples, linear between neighbours.
static double quantile(const Samples *s, double q) {
  double at = q * (s->num - 1);
  int i = (int)at, j = MD_MIN(i + 1, s->num - 1);
  return s->ms[i] + (at - i) * (s->ms[j] - s->ms[i]);
}

typedef struct Side {
  const char *name;
  int level;
  md_backend backend;
  md_engine *engine;
  Samples samples;
} Side;

typedef struct Line {
  const char *what;
  double gflop;
  Side *side;
  int num_sides;
} Line;

typedef struct Bench {
  md_cli *cli;
  int64_t rounds, warmup, threads;
  bool json, unfused, interp;
  FILE *out;  // the table, as it grows
  md_json report;
} Bench;

static double flops_of(const md_graph *g) {
  double total = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    md_cost c = {0};
    if (md_ops[g->node[i]->op].role != MD_LEAF) md_node_cost(g, g->node[i], &c);
    total += c.flops;
  }
  return total;
}

static void fill(md_engine *e) {
  const md_graph *g = md_engine_graph(e);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op != MD_OP_input) continue;
    md_type type;
    void *to = md_engine_input(e, n->name, &type);
    md_fill_input(n->name, type.dtype, md_elements(&type.shape), 0, to);
  }
}

static void report_line(Bench *b, const Line *l) {
  double base = quantile(&l->side[0].samples, 0.5);
  if (!b->json) {
    fprintf(b->out, "%-44s", l->what);
    for (int i = 0; i < l->num_sides; i++) {
      const Samples *s = &l->side[i].samples;
      double median = quantile(s, 0.5), spread = (quantile(s, 0.75) - quantile(s, 0.25)) / 2;
      fprintf(b->out, "  %s %.3f ms +-%.3f", l->side[i].name, median, spread);
      if (i == 0) fprintf(b->out, " (%.1f GFLOP/s)", l->gflop / median * 1e3);
      else fprintf(b->out, " (%.2fx)", median / base);
    }
    fputc('\n', b->out);
    return;
  }
  md_json *j = &b->report;
  md_json_begin(j, '{');
  md_json_key(j, "what");
  md_json_str(j, l->what);
  md_json_key(j, "gflop");
  md_json_float(j, l->gflop);
  for (int i = 0; i < l->num_sides; i++) {
    const Samples *s = &l->side[i].samples;
    md_json_key(j, l->side[i].name);
    md_json_begin(j, '{');
    md_json_key(j, "median_ms");
    md_json_float(j, quantile(s, 0.5));
    md_json_key(j, "min_ms");
    md_json_float(j, s->ms[0]);
    md_json_key(j, "q1_ms");
    md_json_float(j, quantile(s, 0.25));
    md_json_key(j, "q3_ms");
    md_json_float(j, quantile(s, 0.75));
    md_json_end(j, '}');
  }
  md_json_end(j, '}');
}

// Time of one step: of the whole, or of the kernels whose name holds `only`.
static bool time_once(Bench *b, Side *s, const char *only, double *ms) {
  md_exec *x = md_engine_exec(s->engine);
  if (!only || !x) {
    int64_t start = md_now_ns();
    if (!md_engine_step(s->engine, b->cli->diags)) return false;
    *ms = (double)(md_now_ns() - start) / 1e6;
    return true;
  }
  const md_program *p = md_exec_program(x);
  const md_launch_time *t = md_exec_times(x);
  int64_t before = 0, after = 0;
  for (int i = 0; i < p->num_launches; i++)
    if (strstr(p->launch[i].name, only)) before += t[i].total_ns;
  if (!md_engine_step(s->engine, b->cli->diags)) return false;
  for (int i = 0; i < p->num_launches; i++)
    if (strstr(p->launch[i].name, only)) after += t[i].total_ns;
  *ms = (double)(after - before) / 1e6;
  return true;
}

// `make` gives the graph afresh for each side.
typedef md_graph *(*Make)(void *ctx, md_diags *d);

static bool measure(Bench *b, const char *what, Make make, void *ctx, const char *only) {
  Side side[MAX_SIDES] = {{.name = "fused", .level = 2, .backend = MD_BACKEND_CPU}};
  int num = 1;
  if (b->unfused) side[num++] = (Side){.name = "unfused", .level = 1, .backend = MD_BACKEND_CPU};
  if (b->interp) side[num++] = (Side){.name = "interp", .level = 0, .backend = MD_BACKEND_INTERP};
  Line line = {.what = what, .side = side, .num_sides = num};
  bool ok = true;
  for (int i = 0; i < num && ok; i++) {
    md_engine_options o = {.backend = side[i].backend,
                           .passes = md_pass_defaults(),
                           .threads = (int)b->threads,
                           .cpu = md_cli_get(b->cli, "cpu"),
                           .asan = md_cli_has(b->cli, "jit-asan"),
                           .no_cache = md_cli_has(b->cli, "no-cache")};
    o.passes.level = side[i].level;
    md_graph *g = make(ctx, b->cli->diags);
    side[i].engine = g ? md_engine_create(g, &o, b->cli->diags) : NULL;
    ok = side[i].engine != NULL;
    if (ok) fill(side[i].engine);
    if (ok && i == 0) line.gflop = flops_of(md_engine_graph(side[i].engine)) / 1e9;
  }
  for (int64_t round = -b->warmup; round < b->rounds && ok; round++) {
    for (int i = 0; i < num && ok; i++) {
      double ms;
      ok = time_once(b, &side[i], only, &ms);
      if (ok && round >= 0) side[i].samples.ms[side[i].samples.num++] = ms;
    }
  }
  for (int i = 0; i < num; i++) {
    qsort(side[i].samples.ms, (size_t)side[i].samples.num, sizeof(double), by_value);
    md_engine_destroy(side[i].engine);
  }
  if (ok) report_line(b, &line);
  return ok;
}

static md_graph *make_source(void *ctx, md_diags *d) {
  (void)d;
  md_cli *cli = ctx;
  return md_source_graph(cli, cli->arg[0]);
}

// --- conv and fused: layers of R3D-50 at 8 x 224 x 224 (spec §16), batch 2

typedef struct Layer {
  const char *name;
  int64_t in, out, t, size, k[3], stride, pad[3];
} Layer;
static const Layer layers[] = {{"conv1", 3, 64, 8, 224, {5, 7, 7}, 2, {2, 3, 3}},
                               {"res2 a 1x1x1", 256, 64, 8, 56, {1, 1, 1}, 1, {0, 0, 0}},
                               {"res2 b 1x3x3", 64, 64, 8, 56, {1, 3, 3}, 1, {0, 1, 1}},
                               {"res2 c 1x1x1", 64, 256, 8, 56, {1, 1, 1}, 1, {0, 0, 0}},
                               {"res3 a 1x1x1", 512, 128, 8, 28, {1, 1, 1}, 1, {0, 0, 0}},
                               {"res3 b /2", 128, 128, 8, 56, {1, 3, 3}, 2, {0, 1, 1}},
                               {"res3 b 1x3x3", 128, 128, 8, 28, {1, 3, 3}, 1, {0, 1, 1}},
                               {"res3 c 1x1x1", 128, 512, 8, 28, {1, 1, 1}, 1, {0, 0, 0}},
                               {"res4 a 3x1x1", 1024, 256, 8, 14, {3, 1, 1}, 1, {1, 0, 0}},
                               {"res4 b 1x3x3", 256, 256, 8, 14, {1, 3, 3}, 1, {0, 1, 1}},
                               {"res4 c 1x1x1", 256, 1024, 8, 14, {1, 1, 1}, 1, {0, 0, 0}},
                               {"res5 a 3x1x1", 2048, 512, 8, 7, {3, 1, 1}, 1, {1, 0, 0}},
                               {"res5 b 1x3x3", 512, 512, 8, 7, {1, 3, 3}, 1, {0, 1, 1}},
                               {"res5 c 1x1x1", 512, 2048, 8, 7, {1, 1, 1}, 1, {0, 0, 0}}};

typedef struct ConvJob {
  const Layer *layer;
  md_op op;    // conv3d, conv3d_dgrad, conv3d_wgrad
  bool fused;  // batch norm and ReLU around it
} ConvJob;

static md_conv3d_attr attr_of(const Layer *l) {
  return (md_conv3d_attr){.stride = D3(1, l->stride, l->stride),
                          .pad = D3(l->pad[0], l->pad[1], l->pad[2])};
}

// A pooling of single elements in front of each operand keeps it inside the program, in the layout
// that a network would have, and is never fused with the convolution.
static md_val inside(md_builder *b, const char *name, const md_shape *shape) {
  md_pool3d_attr one = {.kernel = D3(1, 1, 1)};
  return md_max_pool3d(b, md_input(b, name, md_type_of(MD_F32, 5, shape->dim)), &one);
}

static md_graph *make_conv(void *ctx, md_diags *d) {
  const ConvJob *job = ctx;
  const Layer *l = job->layer;
  md_graph *g = md_graph_create("conv");
  md_builder b;
  md_builder_init(&b, g, d);
  md_conv3d_attr a = attr_of(l);
  md_shape x = {5, {2, l->in, l->t, l->size, l->size}},
           w = {5, {l->out, l->in, l->k[0], l->k[1], l->k[2]}}, y = {.rank = 5};
  y.dim[0] = 2;
  y.dim[1] = l->out;
  for (int i = 0; i < 3; i++)
    y.dim[2 + i] = (x.dim[2 + i] + 2 * l->pad[i] - l->k[i]) / (i ? l->stride : 1) + 1;
  md_val xv = MD_NONE, yv = MD_NONE, result;
  md_state_attr init = {.init = MD_INIT_normal, .b = 0.05};
  md_val wv = md_state(&b, "w", md_type_of(MD_F32, 5, w.dim), &init);
  if (job->op != MD_OP_conv3d_dgrad) xv = inside(&b, "x", &x);
  if (job->op != MD_OP_conv3d) yv = inside(&b, "dy", &y);
  if (job->op == MD_OP_conv3d) result = md_conv3d(&b, xv, wv, MD_NONE, &a);
  else if (job->op == MD_OP_conv3d_dgrad) result = md_conv3d_dgrad(&b, yv, wv, x, &a);
  else result = md_conv3d_wgrad(&b, yv, xv, w, &a);
  md_return(&b, "s", md_sum(&b, result, (md_dims){0}));
  if (!b.failed) return g;
  md_graph_destroy(g);
  return NULL;
}

static md_val norm(md_builder *b, md_val x, const char *name) {
  int64_t c = md_shape_of(b, x).dim[1];
  md_state_attr one = {.init = MD_INIT_ones}, zero = {.init = MD_INIT_zeros};
  md_val g = md_state(b, md_format(b->g->arena, "%s.g", name), md_type_of(MD_F32, 1, &c), &one);
  md_val s = md_state(b, md_format(b->g->arena, "%s.b", name), md_type_of(MD_F32, 1, &c), &zero);
  md_val mean = md_moments(b, x, 1);
  return md_batch_norm(b, x, g, s, mean, md_result_of(b, mean, 1), 1e-5, true);
}

// conv, batch norm, ReLU, conv, batch norm, ReLU, forward and backward, as inside a block.
static md_graph *make_fused(void *ctx, md_diags *d) {
  const ConvJob *job = ctx;
  const Layer *l = job->layer;
  md_graph *g = md_graph_create("fused");
  md_builder b;
  md_builder_init(&b, g, d);
  md_conv3d_attr a = attr_of(l), back = {0};
  md_state_attr init = {.init = MD_INIT_normal, .b = 0.05};
  md_val x =
      md_input(&b, "x", md_type_of(MD_F32, 5, (int64_t[]){2, l->in, l->t, l->size, l->size}));
  md_val w0 = md_state(&b, "w0", md_type_of(MD_F32, 5, (int64_t[]){l->in, l->in, 1, 1, 1}), &init);
  md_val w1 =
      md_state(&b, "w1",
               md_type_of(MD_F32, 5, (int64_t[]){l->out, l->in, l->k[0], l->k[1], l->k[2]}), &init);
  md_val w2 = md_state(&b, "w2", md_type_of(MD_F32, 5, (int64_t[]){l->in, l->out, 1, 1, 1}), &init);
  md_val h = md_relu(&b, norm(&b, md_conv3d(&b, x, w0, MD_NONE, &back), "n0"));
  h = md_relu(&b, norm(&b, md_conv3d(&b, h, w1, MD_NONE, &a), "n1"));
  h = md_relu(&b, norm(&b, md_conv3d(&b, h, w2, MD_NONE, &back), "n2"));
  md_val loss = md_mean(&b, md_mul(&b, h, h), (md_dims){0}), wrt[3] = {w0, w1, w2};
  md_val grads = md_gradient(&b, loss, wrt, 3);
  for (int i = 0; i < 3; i++) {
    md_dims all = {0};
    md_return(&b, md_format(g->arena, "g%d", i), md_sum(&b, md_result_of(&b, grads, i), all));
  }
  if (!b.failed) return g;
  md_graph_destroy(g);
  return NULL;
}

static bool bench_convs(Bench *b) {
  static const struct {
    md_op op;
    const char *name;
  } ops[] = {{MD_OP_conv3d, "forward"},
             {MD_OP_conv3d_dgrad, "data gradient"},
             {MD_OP_conv3d_wgrad, "weight gradient"}};
  for (int i = 0; i < MD_COUNT(layers); i++) {
    for (int j = 0; j < MD_COUNT(ops); j++) {
      if (j == 1 && i == 0) continue;  // nobody needs the gradient of the clip
      ConvJob job = {.layer = &layers[i], .op = ops[j].op};
      char what[64];
      snprintf(what, sizeof what, "%s %s", layers[i].name, ops[j].name);
      if (!measure(b, what, make_conv, &job, "conv3d")) return false;
    }
  }
  return true;
}

static bool bench_fused(Bench *b) {
  b->unfused = true;
  static const int some[] = {2, 4, 6, 9, 12};
  for (int i = 0; i < MD_COUNT(some); i++) {
    ConvJob job = {.layer = &layers[some[i]]};
    char what[64];
    snprintf(what, sizeof what, "%s + BN + ReLU, forward and backward", layers[some[i]].name);
    if (!measure(b, what, make_fused, &job, NULL)) return false;
  }
  return true;
}

static bool read_baselines(Bench *b) {
  const char *list = md_cli_get(b->cli, "baseline");
  for (const char *s = list ? list : ""; *s;) {
    size_t len = strcspn(s, ",");
    if (len == 7 && strncmp(s, "unfused", 7) == 0) b->unfused = true;
    else if (len == 6 && strncmp(s, "interp", 6) == 0) b->interp = true;
    else {
      md_error(b->cli->diags, E0401, MD_NOWHERE, "--baseline: there is no baseline '%.*s'",
               (int)len, s);
      md_hint(b->cli->diags, "baselines are: unfused, interp");
      return false;
    }
    s += len + (s[len] == ',');
  }
  return true;
}

static bool run_kind(Bench *b) {
  md_cli *cli = b->cli;
  const char *kind = cli->arg[0];
  if (strcmp(kind, "loader") == 0)
    return md_bench_loader(cli, md_cli_has(cli, "rounds") ? b->rounds : 0,
                           md_cli_has(cli, "warmup") ? b->warmup : 0, b->json ? &b->report : NULL);
  bool is_conv = strcmp(kind, "conv") == 0, is_fused = strcmp(kind, "fused") == 0;
  if ((is_conv || is_fused) && !md_cli_args(cli, 1, 1, "conv and fused take no more")) return false;
  if (is_conv) return bench_convs(b);
  if (is_fused) return bench_fused(b);
  if (strcmp(kind, "step") != 0) {
    char clean[80];
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc bench: '%s' is no benchmark",
             md_clean(kind, clean, sizeof clean));
    md_hint(cli->diags, "benchmarks are: step MODEL, conv, fused, loader VIDEOS");
    return false;
  }
  if (cli->num_args < 2) {
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc bench step: needs a model or graph");
    md_hint(cli->diags, "for example: modistc bench step modist-tiny");
    return false;
  }
  cli->arg++;
  cli->num_args--;
  return measure(b, cli->arg[0], make_source, cli, NULL);
}

static md_status run(md_cli *cli) {
  static const char *const formats[] = {"table", "json", NULL};
  Bench b = {.cli = cli, .rounds = 5, .warmup = 1};
  if (!md_cli_args(cli, 1, 64, "takes step MODEL, conv, fused or loader VIDEOS"))
    return MD_ERR_USAGE;
  int format = md_cli_choice(cli, "format", formats, 0);
  if (format < 0 || !md_cli_int(cli, "rounds", 1, MAX_ROUNDS, &b.rounds) ||
      !md_cli_int(cli, "warmup", 0, 1000, &b.warmup) ||
      !md_cli_int(cli, "threads", 0, 1024, &b.threads) || !read_baselines(&b))
    return MD_ERR_USAGE;
  const char *path = md_cli_get(cli, "output");
  bool to_file = path && strcmp(path, "-") != 0;
  char *text = NULL;
  size_t len = 0;
  b.out = to_file ? open_memstream(&text, &len) : stdout;
  MD_ASSERT(b.out, "out of memory");
  b.json = format == 1;
  if (b.json) {
    md_json_begin(&b.report, '{');
    md_json_key(&b.report, "schema");
    md_json_str(&b.report, "modist.bench/1");
    md_json_key(&b.report, "version");
    md_json_str(&b.report, MODIST_VERSION);
    md_json_key(&b.report, "rows");
    md_json_begin(&b.report, '[');
  }
  bool ok = run_kind(&b);
  if (b.json && ok) {
    md_json_end(&b.report, ']');
    md_json_end(&b.report, '}');
    fprintf(b.out, "%s\n", b.report.out.s);
  }
  md_text_free(&b.report.out);
  if (to_file) fclose(b.out);
  ok = ok && (!to_file || md_file_save(path, text, len, cli->diags));
  free(text);
  return ok ? MD_OK : md_diags_status(cli->diags);
}

static const char *const examples[] = {"modistc bench step modist-r3d50 batch=2 --baseline=unfused",
                                       "modistc bench conv --format=json -o conv.json",
                                       "modistc bench fused",
                                       "modistc bench loader videos data.workers=2",
                                       "modistc bench loader -c configs/modist_tiny.yaml "
                                       "data.train=videos --step-ms=50 --format=json",
                                       NULL};
const md_command md_cmd_bench = {.name = "bench",
                                 .group = "Compile and run",
                                 .usage =
                                     "step MODEL [key=value ...] | conv | fused | loader VIDEOS "
                                     "[key=value ...]",
                                 .doc = "time a step, convolutions, fused regions or the loader",
                                 .examples = examples,
                                 .options = bench_options,
                                 .rules = bench_rules,
                                 .run = run};
