// SPDX-License-Identifier: Apache-2.0
// How long regions took, and how far that is from what was predicted. A region's time is its fastest step:
// the first one loads code, and a prediction knows nothing of other work. Regions are told apart by the
// symbols of their kernels: equal ones bear the same name.
#include "runtime/exec/rt_report.h"

#include <math.h>
#include <stdlib.h>

enum { NUM_WORST = 10, NEAR_PERCENT = 25 };

typedef struct row {
  const md_launch *launch;  // the first, where another engine did several at once
  double flops, bytes;
  double mean_us, min_us;
  double predicted_us;  // < 0: nothing was predicted
  bool is_foreign;      // another engine did it
} row;

typedef struct table {
  const md_program *p;
  row *row;
  int num;
  const char *predicted_for;             // NULL: there are no predictions
  double mean_us, min_us, predicted_us;  // sums
  int num_near;                          // predicted within NEAR_PERCENT of the fastest
  const row **worst;                     // all of them, the one that is off by most first
} table;

static double off_us(const row *r) { return fabs(r->predicted_us - r->min_us); }

static int by_off(const void *a, const void *b) {
  const row *x = *(const row *const *)a, *y = *(const row *const *)b;
  double off_x = off_us(x), off_y = off_us(y);
  if (off_x != off_y) return off_x < off_y ? 1 : -1;
  return (x > y) - (x < y);
}

// What another engine does stands at its first launch, and the others are nothing.
static void merge(table *t, int first, int num) {
  for (int i = 0; i < t->p->num_convs; i++) {
    const md_conv_group *g = &t->p->conv[i];
    if (g->first_launch < first || g->first_launch >= first + num) continue;
    row *r = &t->row[g->first_launch - first];
    if (!r->is_foreign) continue;
    for (int k = 1; k < g->num_launches; k++) {
      r->flops += r[k].flops;
      r->bytes += r[k].bytes;
      r[k].launch = NULL;
    }
  }
  for (int i = 0; i < num; i++)
    if (t->row[i].launch) t->row[t->num++] = t->row[i];
}

static table table_of(const md_exec *e) {
  const md_launch_time *time = md_exec_times(e);
  const md_gpu_variant *v = md_exec_variant(e);
  int first, num = md_exec_launches(e, &first);
  table t = {.p = md_exec_program(e)};
  t.predicted_for = v && !md_exec_engine(e) ? v->predicted_for : NULL;  // it is for our kernels
  t.row = md_calloc((size_t)num + 1, sizeof *t.row);
  t.worst = md_calloc((size_t)num + 1, sizeof *t.worst);
  for (int i = 0; i < num; i++) {
    const md_launch_time *x = &time[first + i];
    const md_launch *l = &t.p->launch[first + i];
    t.row[i] = (row){.launch = l,
                     .flops = l->flops,
                     .bytes = l->bytes,
                     .mean_us = (double)x->total_ns / 1e3 / (double)MD_MAX(x->calls, 1),
                     .min_us = (double)x->min_ns / 1e3,
                     .predicted_us = t.predicted_for ? v->predicted_us[i] : -1,
                     .is_foreign = md_exec_by_engine(e, first + i)};
  }
  merge(&t, first, num);
  for (int i = 0; i < t.num; i++) {
    const row *r = t.worst[i] = &t.row[i];
    t.mean_us += r->mean_us;
    t.min_us += r->min_us;
    t.predicted_us += r->predicted_us;
    t.num_near += t.predicted_for && off_us(r) <= r->min_us * NEAR_PERCENT / 100;
  }
  qsort(t.worst, (size_t)t.num, sizeof *t.worst, by_off);
  return t;
}

static void free_table(table *t) {
  free(t->row);
  free(t->worst);
}

static const char *symbol_of(const table *t, const row *r, int phase) {
  return r->is_foreign ? "cuDNN" : t->p->phase[r->launch->first_phase + phase].symbol;
}

static void print_row(const table *t, const row *r) {
  double ns = fmax(r->min_us * 1e3, 1);
  char predicted[32] = "-";
  if (r->predicted_us >= 0) snprintf(predicted, sizeof predicted, "%.1f", r->predicted_us);
  printf("%10.1f %10.1f %10s %5.1f%% %9.1f %8.1f  %-17s  %s\n", r->mean_us, r->min_us, predicted,
         100 * r->mean_us / fmax(t->mean_us, 1e-3), r->flops / ns, r->bytes / ns,
         symbol_of(t, r, 0), r->launch->name);
}

void rt_print_times(const md_exec *e) {
  table t = table_of(e);
  printf("%10s %10s %10s %6s %9s %8s  %-17s  %s\n", "mean us", "min us", "predicted", "share",
         "GFLOP/s", "GB/s", "kernel", "region");
  for (int i = 0; i < t.num; i++) print_row(&t, &t.row[i]);
  if (t.predicted_for && t.num) {
    printf(
        "predicted for %s: %.1f us, measured %.1f; %d of %d regions within %d %%. Off by most:\n",
        t.predicted_for, t.predicted_us, t.min_us, t.num_near, t.num, NEAR_PERCENT);
    for (int i = 0; i < MD_MIN(t.num, NUM_WORST); i++) print_row(&t, t.worst[i]);
  }
  free_table(&t);
}

static void put_row(md_json *j, const table *t, const row *r) {
  md_json_begin(j, '{');
  md_json_put_str(j, "name", r->launch->name);
  md_json_put_int(j, "region", r->launch->region);
  md_json_key(j, "kernels");
  md_json_begin(j, '[');
  for (int i = 0; i < (r->is_foreign ? 1 : r->launch->num_phases); i++)
    md_json_str(j, symbol_of(t, r, i));
  md_json_end(j, ']');
  md_json_put_float(j, "mean_us", r->mean_us);
  md_json_put_float(j, "min_us", r->min_us);
  if (r->predicted_us >= 0) md_json_put_float(j, "predicted_us", r->predicted_us);
  md_json_put_float(j, "flops", r->flops);
  md_json_put_float(j, "bytes", r->bytes);
  md_json_end(j, '}');
}

static void put_rows(md_json *j, const table *t, const char *key, const row *const *list, int num) {
  md_json_key(j, key);
  md_json_begin(j, '[');
  for (int i = 0; i < num; i++) put_row(j, t, list ? list[i] : &t->row[i]);
  md_json_end(j, ']');
}

// What another engine could do, or does, and how long its launches took.
static void put_convs(md_json *j, const md_exec *e, const table *t) {
  int first, num = md_exec_launches(e, &first);
  md_json_key(j, "convolutions");
  md_json_begin(j, '[');
  for (int i = 0; i < t->p->num_convs; i++) {
    const md_conv_group *g = &t->p->conv[i];
    double us = 0;
    if (g->first_launch < first || g->first_launch >= first + num) continue;
    for (int k = 0; k < t->num; k++) {
      int64_t at = t->row[k].launch - &t->p->launch[g->first_launch];
      if (at >= 0 && at < g->num_launches) us += t->row[k].min_us;
    }
    md_json_begin(j, '{');
    md_json_put_str(j, "region", t->p->launch[g->first_launch].name);
    md_json_put_str(j, "kind", md_conv_kind_names[g->kind]);
    md_json_put_int(j, "channels", g->x.dim[1]);
    md_json_put_str(j, "by", md_exec_by_engine(e, g->first_launch) ? "cudnn" : "modist");
    md_json_put_float(j, "conv_us", us);
    md_json_end(j, '}');
  }
  md_json_end(j, ']');
}

void rt_put_times(md_json *j, const md_exec *e) {
  table t = table_of(e);
  put_rows(j, &t, "regions", NULL, t.num);
  if (t.p->num_convs) put_convs(j, e, &t);
  if (t.predicted_for) {
    md_json_key(j, "predicted");
    md_json_begin(j, '{');
    md_json_put_str(j, "for", t.predicted_for);
    md_json_put_float(j, "step_us", t.predicted_us);
    md_json_put_float(j, "measured_us", t.min_us);
    md_json_put_int(j, "within_25_percent", t.num_near);
    md_json_put_int(j, "of", t.num);
    put_rows(j, &t, "worst", t.worst, MD_MIN(t.num, NUM_WORST));
    md_json_end(j, '}');
  }
  free_table(&t);
}
