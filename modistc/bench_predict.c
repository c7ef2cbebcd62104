// SPDX-License-Identifier: Apache-2.0
// Predicted times of kernels beside measured ones, by the lowering that made them. The error of some
// kernels is the geometric mean of how many times the one is the other: 25 % is a factor of 1.25.
#include "modistc/bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST = 10 };
// A kernel cannot be timed finer, next to the calls of the clock.
static const double least_ms = 1e-3;

bool md_bench_predict(md_bench *b, const md_bench_job *job, md_engine *e, md_bench_line *l) {
  md_arena *a = b->cli->arena;
  md_cpu_report r = {.arena = a};
  md_cpu_options o = {.cpu = b->cpu->name, .plan_only = true};
  md_program *plan = md_cpu_compile(md_engine_graph(e), &o, &r, b->cli->diags);
  if (!plan) return false;
  md_exec *x = md_engine_exec(e);
  l->kernel = MD_NEW_ARRAY(a, md_bench_kernel, r.num_kernels + 1);
  for (int i = 0; i < r.num_kernels; i++) {
    if (!md_bench_is_timed(job, &md_exec_program(x)->launch[i])) continue;
    double measured = (double)md_exec_times(x)[i].min_ns / 1e6,
           predicted = 1e3 * md_cpu_predict(&r.kernel[i], &b->roof, md_bench_threads(b));
    l->kernel[l->num_kernels++] =
        (md_bench_kernel){&r.kernel[i], fmax(measured, least_ms), fmax(predicted, least_ms)};
  }
  md_program_destroy(plan);
  return true;
}

// Sums over the kernels of one lowering, or over all.
typedef struct Sum {
  const char *lowering;
  int num;
  double measured, predicted;
  double error, timed_error;  // sums of |ln|: each kernel the same; each by its time
} Sum;

static void add(Sum *s, const md_bench_kernel *k) {
  double error = fabs(log(k->measured_ms / k->predicted_ms));
  s->num++;
  s->measured += k->measured_ms;
  s->predicted += k->predicted_ms;
  s->error += error;
  s->timed_error += k->measured_ms * error;
}

static int by_time(const void *a, const void *b) {
  double x = ((const Sum *)a)->measured, y = ((const Sum *)b)->measured;
  return (x < y) - (x > y);
}

static void put_sum(const Sum *s, FILE *to) {
  fprintf(to, "    %-28s %6d %12.3f %12.3f %7.0f%% %7.0f%%\n", s->lowering, s->num, s->measured,
          s->predicted, 100 * expm1(s->error / s->num), 100 * expm1(s->timed_error / s->measured));
}

int md_bench_longer(const void *a, const void *b) {
  double x = ((const md_bench_kernel *)a)->measured_ms;
  double y = ((const md_bench_kernel *)b)->measured_ms;
  return (x < y) - (x > y);
}

// What bounds a kernel is the rate of which it takes the larger share.
static void put_longest(const md_bench *b, const md_bench_line *l) {
  md_bench_kernel *longest = MD_NEW_ARRAY(b->cli->arena, md_bench_kernel, l->num_kernels + 1);
  memcpy(longest, l->kernel, (size_t)l->num_kernels * sizeof *longest);
  qsort(longest, (size_t)l->num_kernels, sizeof *longest, md_bench_longer);
  fprintf(b->out, "    %-39s %12s %12s %12s %10s\n", "the longest", "measured ms", "predicted ms",
          "arithmetic", "memory");
  for (int i = 0; i < MD_MIN(l->num_kernels, LONGEST); i++) {
    const md_bench_kernel *k = &longest[i];
    const md_cpu_work *w = &k->report->work;
    double flops = w->is_bf16 ? b->roof.bf16_flops : b->roof.f32_flops, s = 1e-3 * k->measured_ms;
    fprintf(b->out, "    %-39s %12.3f %12.3f %11.0f%% %9.0f%%\n", k->report->region, k->measured_ms,
            k->predicted_ms, 100 * w->flops / flops / s,
            100 * (w->memory_bytes + w->cache_bytes) / b->roof.read_bytes / s);
  }
}

void md_bench_put_kernels(const md_bench *b, const md_bench_line *l) {
  md_arena *a = b->cli->arena;
  FILE *to = b->out;
  Sum *sum = MD_NEW_ARRAY(a, Sum, l->num_kernels), all = {.lowering = "all"};
  int num = 0;
  for (int i = 0; i < l->num_kernels; i++) {
    const md_bench_kernel *k = &l->kernel[i];
    int at = 0;
    while (at < num && strcmp(sum[at].lowering, k->report->lowering) != 0) at++;
    if (at == num) sum[num++].lowering = k->report->lowering;
    add(&sum[at], k);
    add(&all, k);
  }
  qsort(sum, (size_t)num, sizeof *sum, by_time);
  fprintf(to, "    %-28s %6s %12s %12s %8s %8s\n", "kernels, fastest calls", "", "measured ms",
          "predicted ms", "error", "by time");
  for (int i = 0; i < num; i++) put_sum(&sum[i], to);
  put_sum(&all, to);
  put_longest(b, l);
}

static void put_kernel(const md_bench_kernel *k, md_json *j) {
  const md_cpu_work *w = &k->report->work;
  md_json_begin(j, '{');
  j->compact = true;  // on one line
  md_json_put_str(j, "region", k->report->region);
  md_json_put_str(j, "lowering", k->report->lowering);
  md_json_put_float(j, "flops", w->flops);
  md_json_put_float(j, "memory_bytes", w->memory_bytes);
  md_json_put_float(j, "cache_bytes", w->cache_bytes);
  md_json_put_int(j, "nodes", w->nodes);
  md_json_put_int(j, "items", k->report->items);
  md_json_put_int(j, "is_bf16", w->is_bf16);
  md_json_put_float(j, "measured_ms", k->measured_ms);
  md_json_put_float(j, "predicted_ms", k->predicted_ms);
  md_json_end(j, '}');
  j->compact = false;
}

void md_bench_put_kernels_json(const md_bench_line *l, md_json *j) {
  md_json_key(j, "kernels");
  md_json_begin(j, '[');
  for (int i = 0; i < l->num_kernels; i++) put_kernel(&l->kernel[i], j);
  md_json_end(j, ']');
}
