// SPDX-License-Identifier: Apache-2.0
// Trials on a device. A way to make a product is good where it runs: behind what runs before it, with what
// that has left in the caches. So it is measured within the step:
//
//   one step   each product is made its own way, then all others on the same inputs, and what they write
//              is compared; a way that fails is left out, after which the device is opened anew
//   rounds     step after step, each with the next way of every product at once
//
// In a round each way runs once, its own too, so what slows the device down does so to all of them, and a way
// is judged by what it gains in each round.
#include "runtime/exec/tune.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_FAILURES = 2 };  // of the step itself, one after another

void *md_tune_rows(int64_t num, size_t size) {
  void *rows = calloc((size_t)num + 1, size);
  if (!rows) md_out_of_memory((size_t)num * size);
  return rows;
}

// --- steps

static bool open_device(md_tuner *t, md_diags *d) {
  md_exec_options o = t->o->exec;
  o.time = true;
  t->e = md_exec_create(t->p, &o, d);
  return t->e && (!t->o->set_inputs || t->o->set_inputs(t->o->ctx, t->e, d));
}

static bool reopen(md_tuner *t, md_diags *d) {
  md_exec_destroy(t->e);
  t->e = NULL;
  memset(t->total, 0, (size_t)t->p->num_launches * sizeof *t->total);
  return open_device(t, d);
}

static bool run_order(md_tuner *t, md_exec_tap tap, md_diags *d) {
  md_exec_set_tap(t->e, tap, t);
  md_exec_set_order(t->e, t->order, t->num_entries);
  bool ok = md_exec_step(t->e, d);
  md_exec_set_order(t->e, NULL, 0);
  md_exec_set_tap(t->e, NULL, NULL);
  return ok;
}

// The first line of what was said, without its place and code.
static const char *line_of(md_tuner *t, const md_diags *said) {
  const char *text = md_diags_text(said), *begin = strstr(text, "]: ");
  if (begin) text = begin + strlen("]: ");
  return md_strndup(t->to->arena, text, strcspn(text, "\n"));
}

// After a failed step: the trial that failed is left out, and the device opened anew. False: it was none, or
// the device cannot be opened; reported.
static bool recover(md_tuner *t, md_diags *said, int *failures, md_diags *d) {
  int trial = md_tune_trial(t);
  if (!md_diags_errors(said)) md_exec_is_alive(t->e, said);
  if (trial >= 0) {
    const md_gpu_trial *x = &t->p->trial[trial];
    t->failed[trial] = line_of(t, said);
    md_log(MD_LOG_EXEC, MD_LEVEL_WARN, "%s of %s: %s", x->way, t->p->launch[x->replaced].name,
           t->failed[trial]);
  } else if ((*failures)++ == MAX_FAILURES) {
    return md_error(d, E0647, MD_NOWHERE, "a step fails with every way left out: %s",
                    line_of(t, said));
  }
  if (reopen(t, d)) return true;
  if (trial >= 0)
    md_note(d, MD_NOWHERE, "it is of no use since %s of %s has failed: %s", t->p->trial[trial].way,
            t->p->launch[t->p->trial[trial].replaced].name, t->failed[trial]);
  return false;
}

static bool check_all(md_tuner *t, md_diags *d) {
  for (int failures = 0;;) {
    md_diags *said = md_diags_create();
    md_tune_order_all(t);
    bool ok = run_order(t, md_tune_watch, said);
    md_tune_forget(t);
    bool goes_on = ok || recover(t, said, &failures, d);
    md_diags_destroy(said);
    if (ok || !goes_on) return ok;
  }
}

// What the launches took in the last step, us; < 0: unknown.
static double last_us(md_tuner *t, int first, int num) {
  const md_launch_time *time = md_exec_times(t->e);
  int64_t ns = 0;
  for (int i = first; i < first + num; i++) {
    if (time[i].total_ns == t->total[i]) return -1;
    ns += time[i].total_ns - t->total[i];
  }
  return (double)ns / 1e3;
}

static void keep_times(md_tuner *t, int way, int round) {
  for (int i = 0; i < t->num_sites; i++) {
    md_tune_site *s = &t->site[i];
    int trial = s->first + way - 1;
    if (way == 0) s->own[round] = last_us(t, s->replaced, s->num_replaced);
    else if (way <= s->num && !md_tune_is_out(t, s, trial))
      t->us[trial][round] =
          last_us(t, t->p->trial[trial].first_launch, t->p->trial[trial].num_launches);
  }
  for (int i = 0; i < t->p->num_launches; i++) t->total[i] = md_exec_times(t->e)[i].total_ns;
}

// The step that has failed once more, launch by launch.
static bool find_failure(md_tuner *t, md_diags *said, int *failures, md_diags *d) {
  if (!reopen(t, d)) return false;
  md_diags *again = md_diags_create();
  bool goes_on = true;
  if (!run_order(t, md_tune_count, again)) goes_on = recover(t, again, failures, d);
  else if ((*failures)++ == MAX_FAILURES)
    goes_on = md_error(d, E0647, MD_NOWHERE, "a step fails now and then: %s", line_of(t, said));
  md_diags_destroy(again);
  return goes_on;
}

// A step with way number `way`; done again, launch by launch, when it fails: then it is known what failed.
static bool measure(md_tuner *t, int way, int round, int *failures, md_diags *d) {
  for (;;) {
    md_diags *said = md_diags_create();
    md_tune_order_way(t, way);
    bool ok = run_order(t, NULL, said);
    if (ok) keep_times(t, way, round);
    bool goes_on = ok || find_failure(t, said, failures, d);
    md_diags_destroy(said);
    if (ok || !goes_on) return ok;
  }
}

static bool measure_all(md_tuner *t, int64_t start, md_diags *d) {
  int ways = t->most + 1, of = t->o->rounds * ways, failures = 0;
  if (!measure(t, 0, 0, &failures, d)) return false;  // to warm up
  for (int i = 0; i < of; i++) {
    bool is_late = (double)(md_now_ns() - start) > t->o->seconds * 1e9;
    if (is_late && t->num_rounds >= MD_TUNE_LEAST_ROUNDS && i % ways == 0) break;
    if (!measure(t, i % ways, i / ways, &failures, d)) return false;
    t->num_rounds = (i + 1) / ways;
    if (t->o->told) t->o->told(t->o->ctx, i + 1, of);
  }
  return true;
}

// --- all of it

void md_tune_input(const md_spec *s, uint64_t seed, void *to) {
  int64_t num = md_spec_elements(s);
  if (num == 1 && md_dtype_is_float(s->dtype)) md_element_store(s->dtype, to, 0, 1e-3);
  else md_fill_input(s->name, s->dtype, num, seed, to);
}

static void free_tuner(md_tuner *t) {
  md_exec_destroy(t->e);
  for (int i = 0; i < t->num_sites; i++) free(t->site[i].own);
  for (int i = 0; i < t->p->num_trials; i++) free(t->us[i]);
  free(t->us);
  free(t->total);
  free(t->piece);
  free(t->entry);
  free(t->order);
  free(t->site);
  free(t->failed);
}

bool md_tune(const md_program *p, const md_tune_options *o, md_records *to, md_diags *d) {
  int64_t start = md_now_ns();
  int index;
  md_tuner t = {.p = p, .o = o, .to = to};
  if (!md_device_parse(o->exec.device ? o->exec.device : "cuda:0", &index, d)) return false;
  if (index < 0) return md_tune_nothing(p, "the CPU", d);
  if (!md_gpu_require(index, &t.device, d)) return false;
  t.v = md_gpu_variant_for(p, t.device.sm);
  if (!t.v || !t.v->num_trials) return md_tune_nothing(p, t.device.name, d);
  t.failed = md_tune_rows(p->num_trials, sizeof *t.failed);
  t.us = md_tune_rows(p->num_trials, sizeof *t.us);
  t.total = md_tune_rows(p->num_launches, sizeof *t.total);
  md_tune_find_sites(&t);
  bool ok = open_device(&t, d) && check_all(&t, d) && measure_all(&t, start, d);
  if (ok) md_tune_put_records(&t);
  free_tuner(&t);
  return ok;
}
