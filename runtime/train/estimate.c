// SPDX-License-Identifier: Apache-2.0
// How long a run takes, and what would make it shorter. The rates of this machine are measured with
// what will run: a compiled convolution, a compiled copy, the loader on some videos of the data, and,
// where that is quick, the compiled step itself. A region takes at least
//   max(FLOPs / rate of arithmetic, bytes / rate of memory),
// and their sum says which of the two bounds the step.
#include "runtime/train/plan.h"

#include "codegen/cpu/cpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MIN_RUNS = 3, MAX_SAMPLES = 16, MIN_SAMPLES = 2 };
static const double enough_s = 0.2;    // of one measurement of a rate
static const double decoding_s = 2;    // of the videos
static const double quick_step_s = 1;  // the step itself is run where rates promise less
static const double worth_telling = 0.95;

static const char arithmetic[] =
    "graph @arithmetic(%x: f32[2,64,4,28,28], %w: f32[64,64,1,3,3]) {\n"
    "  %y = conv3d %x, %w {pad=[0,1,1]} : f32[2,64,4,28,28]\n"
    "  return %y\n"
    "}\n";
static const double arithmetic_flops = 2.0 * (2 * 64 * 4 * 28 * 28) * (64 * 9);
static const char memory[] = "graph @memory(%x: f32[16777216]) {\n"
                             "  %y = affine %x {scale=1, shift=1} : f32[16777216]\n"
                             "  return %y\n"
                             "}\n";
static const double memory_bytes = 2.0 * 16777216 * 4;

// Seconds of the fastest of some steps; 0: it could not be run.
static double fastest_step(md_graph *take_g, const md_engine_options *o, double enough) {
  md_diags *own = md_diags_create();  // an estimate that fails is no error of the user
  md_engine *e = take_g ? md_engine_create(take_g, o, own) : NULL;
  double best = INFINITY, spent = 0;
  bool ok = e != NULL;
  for (int i = 0; ok && (i < MIN_RUNS || spent < enough); i++) {
    int64_t start = md_now_ns();
    ok = md_engine_step(e, own);
    double seconds = (double)(md_now_ns() - start) / 1e9;
    best = fmin(best, seconds);
    spent += seconds;
  }
  md_engine_destroy(e);
  md_diags_destroy(own);
  return ok ? best : 0;
}

static double fastest_text(const char *text, const md_engine_options *o) {
  return fastest_step(md_parse_graph("rate.mdg", text, strlen(text), NULL), o, enough_s);
}

// What the regions of a planned graph need at least, by the rates.
static void add_regions(const md_graph *g, md_estimate *e) {
  md_arena *a = md_arena_create();
  for (int r = 1; r <= g->num_regions; r++) {
    double flops = 0, bytes = 0;
    for (int i = g->region[r].first; i < g->region[r].first + g->region[r].num; i++) {
      md_cost c = {0};
      md_node_cost(g, g->node[i], &c);
      flops += c.flops;
    }
    md_val *v;
    for (int i = md_region_inputs(g, r, a, &v) - 1; i >= 0; i--)
      bytes += (double)md_type_bytes(md_type_in(g, v[i]));
    for (int i = md_region_outputs(g, r, a, &v) - 1; i >= 0; i--)
      bytes += (double)md_type_bytes(md_type_in(g, v[i]));
    double compute_s = flops / e->flops_per_s, move_s = bytes / e->bytes_per_s;
    if (compute_s > move_s) e->arithmetic_s += compute_s;
    else e->memory_s += move_s;
    md_arena_reset(a);
  }
  md_arena_destroy(a);
}

// Seconds of one worker for a video, by the CPU: a GPU may be at work for others, or only described.
// Videos that fail are not told here: the plan has looked into them, or into many.
static double decode_some(const md_config *c, const md_step *s, const md_dataset *data, int *num) {
  md_diags *own = md_diags_create();
  md_text text = {0};
  md_config_print(c, false, &text);
  md_config *alone = md_config_parse("settings", text.s, text.len, own);
  md_text_free(&text);
  md_step single = *s;
  single.batch = 1;
  if (alone) md_config_set(alone, "data.workers", "0");
  if (alone) md_config_set(alone, "data.decode", "cpu");
  md_loader *l = alone ? md_train_loader(alone, &single, data, &(md_feed_options){0}, own) : NULL;
  int64_t start = md_now_ns();
  double seconds = 0;
  md_batch b;
  for (*num = 0; l && *num < MAX_SAMPLES && (*num < MIN_SAMPLES || seconds < decoding_s); ++*num) {
    if (md_loader_next(l, &b) != MD_OK) break;
    seconds = (double)(md_now_ns() - start) / 1e9;
  }
  md_loader_destroy(l);
  md_config_destroy(alone);
  md_diags_destroy(own);
  return *num ? seconds / *num : 0;
}

double md_step_wall(const md_estimate *e, int workers, md_bound *bound) {
  md_bound of_step = e->arithmetic_s >= e->memory_s ? MD_BOUND_ARITHMETIC : MD_BOUND_MEMORY;
  if (e->launch_s > fmax(e->arithmetic_s, e->memory_s)) of_step = MD_BOUND_LAUNCHES;
  *bound = e->decode_s > e->step_s ? MD_BOUND_DECODING : of_step;
  if (!workers) return e->step_s + e->decode_s;
  // Compute threads and workers share the cores.
  double decoding = e->decode_s / workers;
  double shared = (e->step_s * e->threads + e->decode_s) / e->cores;
  double wall = fmax(e->step_s, fmax(decoding, shared));
  *bound = wall == e->step_s ? of_step : wall == decoding ? MD_BOUND_DECODING : MD_BOUND_CORES;
  return wall;
}

// --- what would make it shorter

static void advise_workers(const md_estimate *e, int workers, double steps, FILE *to) {
  md_bound other;
  int best = workers;
  for (int w = 1; w <= 2 * e->cores; w++)
    if (md_step_wall(e, w, &other) < worth_telling * md_step_wall(e, best, &other)) best = w;
  char text[32];
  if (best == workers) return;
  md_duration_text(steps * md_step_wall(e, best, &other), text, sizeof text);
  fprintf(to, "        data.workers=%d would make it %s\n", best, text);
}

// A GPU is fast enough to want more cores than are here, and may be in a machine that has them.
static void advise_cores(const md_estimate *e, double wall, FILE *to) {
  if (e->threads || wall <= e->step_s / worth_telling) return;
  fprintf(
      to,
      "        the GPU works %.0f%% of the time; %.0f workers on as many cores keep up with it\n",
      100 * e->step_s / wall, ceil(e->decode_s / e->step_s));
}

static void advise_step(const md_estimate *e, md_bound bound, FILE *to) {
  if (bound >= MD_BOUND_DECODING && e->decode_s > e->step_s)
    fprintf(to, "        videos of fewer pixels, or with more key frames, are decoded faster\n");
  else if (bound == MD_BOUND_LAUNCHES)
    fprintf(to, "        launches this small do not fill the GPU; a larger batch does better\n");
  else if (!e->threads && !e->is_bf16)
    fprintf(to, "        --precision=bf16 multiplies on tensor cores, and halves what is moved\n");
  else if (e->arithmetic_s >= e->memory_s)
    fprintf(to, "        arithmetic falls with clip.frames and with the square of clip.size\n");
  else if (!e->is_bf16)
    fprintf(to, "        --precision=bf16 stores activations in half the bytes\n");
  else
    fprintf(to, "        what is moved falls with clip.frames and with the square of clip.size\n");
}

static void show_advice(const md_estimate *e, int workers, md_bound bound, double steps, FILE *to) {
  md_bound other;
  advise_workers(e, workers, steps, to);
  if (bound == MD_BOUND_CORES && e->threads)
    fprintf(to, "        %d compute threads and %d workers share %d cores; more cores help both\n",
            e->threads, workers, e->cores);
  advise_cores(e, md_step_wall(e, workers, &other), to);
  advise_step(e, bound, to);
  if (e->threads && bound < MD_BOUND_DECODING && e->step_s > 2 * (e->arithmetic_s + e->memory_s))
    fprintf(to, "        kernels this small do not reach the rates; a larger batch does better\n");
}

// --- all of it

static void show_step(const md_estimate *e, bool is_measured, FILE *to) {
  double least = e->arithmetic_s + e->memory_s;
  fprintf(to, "time    %-14s %12.4g s a step", "compute", e->step_s);
  if (is_measured) fprintf(to, ", the compiled step on zeros; by the rates at least %.3g\n", least);
  else fprintf(to, " at least, by the rates\n");
  fprintf(to, "        %-14s %12.4g GFLOP/s in a convolution, %.4g GB/s in a copy, %d threads\n",
          "rates", e->flops_per_s / 1e9, e->bytes_per_s / 1e9, e->threads);
  if (least > 0)
    fprintf(to, "        %-14s %11.0f%% of the least time is arithmetic, %.0f%% memory\n", "bound",
            100 * e->arithmetic_s / least, 100 * e->memory_s / least);
}

bool md_estimate_here(md_estimate *e, const md_config *c, const md_step *s,
                      const md_engine_options *engine, const md_graph *g, FILE *to) {
  if (!md_cpu_find(engine->cpu, true, NULL)) {
    fprintf(to, "time    not estimated: this machine cannot run the code\n");
    return false;
  }
  md_engine_options o = {.passes = md_pass_defaults(),
                         .cpu = engine->cpu,
                         .no_cache = true,  // a dry run writes nothing
                         .threads = (int)md_config_int(c, "run.threads")};
  e->threads = o.threads ? o.threads : e->cores;
  double compute_s = fastest_text(arithmetic, &o), copy_s = fastest_text(memory, &o);
  if (compute_s <= 0 || copy_s <= 0) {
    fprintf(to, "time    not estimated: the rates of this machine could not be measured\n");
    return false;
  }
  e->flops_per_s = arithmetic_flops / compute_s;
  e->bytes_per_s = memory_bytes / copy_s;
  add_regions(g, e);
  e->step_s = e->arithmetic_s + e->memory_s;
  o.passes = engine->passes;
  o.memory_limit = engine->memory_limit;
  double measured = e->step_s < quick_step_s ? fastest_step(md_step_graph(s, NULL), &o, 0) : 0;
  if (measured > 0) e->step_s = measured;
  show_step(e, measured > 0, to);
  return true;
}

bool md_estimate_decoding(md_estimate *e, const md_config *c, const md_step *s,
                          const md_dataset *data, FILE *to) {
  int samples = 0;
  e->decode_s = decode_some(c, s, data, &samples) * (double)s->batch;
  if (samples)
    fprintf(to,
            "        %-14s %12.4g s a step of one worker by the CPU%s (%d samples tried), "
            "data.workers=%lld\n",
            "decoding", e->decode_s, e->threads ? "" : " here", samples,
            (long long)md_config_int(c, "data.workers"));
  else
    fprintf(to, "        %-14s %12s: no sample could be decoded; nor is the time of the run\n",
            "decoding", "not known");
  return samples > 0;
}

void md_estimate_run(const md_estimate *e, int workers, double steps, FILE *to) {
  static const char *const names[] = {"arithmetic", "memory", "launches", "decoding",
                                      "the number of cores"};
  md_bound bound;
  double wall = md_step_wall(e, workers, &bound);
  char text[32];
  md_duration_text(steps * wall, text, sizeof text);
  fprintf(to, "        %-14s %12s for %.0f steps of %.4g s, bound by %s\n", "run", text, steps,
          wall, names[bound]);
  show_advice(e, workers, bound, steps, to);
}
