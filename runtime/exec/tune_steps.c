// SPDX-License-Identifier: Apache-2.0
// What a process that measures does. It begins where the one before it has ended:
//
//   one step   each product is made its own way, then all others on the same inputs, and what they write
//              is compared
//   some steps where the process before has failed in a step of many ways: each with one of these alone
//   rounds     step after step, each with the next way of every product at once
//   beside     the same with an L2 cache that holds nothing, and then with what the way itself has left there
//
// In a round each way runs once, its own too, so what slows the device down does so to all of them, and a way
// is judged by what it gains in each round. Rounds are whole in one process. It ends with the first failure.
#include "runtime/exec/tune.h"

#include "base/log.h"
#include "runtime/exec/driver.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// When a way is late: after 10 s, and a hundred times what the own one takes. Of what that is not known, such as
// the opening of a device for which the driver compiles PTX, after 10 min.
enum { LEAST_S = 10, LONGEST_S = 600, TIMES = 100 };
static const int64_t second = 1000000000;

void md_tune_begin(md_tuner *t, int trial, int64_t usual_ns) {
  md_tune_kept *k = t->kept;
  k->trial = trial;
  k->since_ns = md_now_ns();
  int64_t limit = usual_ns < 0 ? LONGEST_S * second : LEAST_S * second + TIMES * usual_ns;
  k->until_ns = k->since_ns + MD_MIN(limit, LONGEST_S * second);
}

void md_tune_blame(md_tuner *t, const char *why) {
  md_tune_kept *k = t->kept;
  int trial = k->trial;
  snprintf(k->why, sizeof k->why, "%s", why);
  if (trial == MD_TUNE_OWN) k->failures++;
  if (trial < 0) return;
  const md_gpu_trial *x = &t->trial[trial];
  snprintf(t->failed[trial], sizeof t->failed[trial], "%s", why);
  k->doubt = 0;
  md_log(MD_LOG_EXEC, MD_LEVEL_WARN, "%s of %s: %s", x->way, t->p->launch[x->replaced].name, why);
}

// What was issued waits at first, until the host is ahead (cuda.c): so not before the device works.
static void look_at_clocks(md_tuner *t) {
  md_tune_kept *k = t->kept;
  int64_t ns = MD_MIN(k->since_ns + k->step_ns / 4 * 3 - md_now_ns(), second - 1);
  if (ns > 0) nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
  md_clocks_look(&k->clocks, t->nvml);
}

static bool run_order(md_tuner *t, md_exec_tap tap) {
  t->said = md_diags_create();
  md_exec_set_tap(t->e, tap, t);
  md_exec_set_order(t->e, t->order, t->num_entries);
  bool ok = md_exec_start(t->e, t->said);
  if (ok && t->nvml) look_at_clocks(t);
  ok = ok && md_exec_finish(t->e, t->said);
  md_exec_set_order(t->e, NULL, 0);
  md_exec_set_tap(t->e, NULL, NULL);
  if (!ok && !md_diags_errors(t->said)) md_exec_is_alive(t->e, t->said);
  char why[MD_TUNE_WHY];
  md_diags_reason(t->said, why, sizeof why);
  if (!ok) md_tune_blame(t, why);
  md_diags_destroy(t->said);
  return ok;
}

// --- ways compared

// A plain step comes first: what is loaded in it is not in the times of own ways.
static bool compare_all(md_tuner *t) {
  if (t->kept->is_checked) return true;
  md_tune_order_way(t, 0, NULL);
  if (!run_order(t, NULL)) return false;
  md_tune_order_all(t);
  bool ok = run_order(t, md_tune_watch);
  md_tune_forget(t);
  if (ok) t->kept->failures = 0;
  return t->kept->is_checked = ok;
}

// --- rounds

// What the products took in the last step, us; < 0: unknown. NaN: nobody has asked.
static void sum_up(md_tuner *t) {
  const int64_t *ns = md_exec_order_ns(t->e);
  for (int i = 0; i < t->num_sites; i++) t->sum[i] = NAN;
  for (int i = 0; i < t->num_entries; i++) {
    double *sum = &t->sum[t->entry[i].site];
    if (!t->entry[i].counts) continue;
    if (isnan(*sum)) *sum = 0;
    *sum = ns[i] < 0 || *sum < 0 ? -1 : *sum + (double)ns[i] / 1e3;
  }
}

static void keep_times(md_tuner *t, int way, md_tune_l2 l2, int round) {
  sum_up(t);
  for (int i = 0; i < t->num_sites; i++) {
    const md_tune_site *s = &t->site[i];
    int trial = way ? s->first + way - 1 : MD_TUNE_OWN;
    if (!isnan(t->sum[i])) md_tune_us(t, s, trial, l2)[round] = t->sum[i];
  }
}

static int64_t usual_step(const md_tuner *t) { return t->kept->step_ns ? t->kept->step_ns : -1; }

// Not while somebody looks at the clocks, which would put off the next look, and so on.
static void note_step(md_tune_kept *k) {
  k->step_ns = md_now_ns() - k->since_ns;
  md_log(MD_LOG_EXEC, MD_LEVEL_DEBUG, "a step takes %.3f ms", (double)k->step_ns / 1e6);
}

static bool measure(md_tuner *t, int way, int round) {
  md_tune_kept *k = t->kept;
  k->doubt = way + 1;
  md_tune_order_way(t, way, NULL);
  md_tune_begin(t, MD_TUNE_STEP, usual_step(t));
  if (!run_order(t, NULL)) return false;
  if (way == 0 && !t->nvml) note_step(k);
  keep_times(t, way, MD_TUNE_STEPS, round);
  k->doubt = 0;
  return true;
}

// Twice, one after the other: some fail only behind themselves.
static bool run_alone(md_tuner *t, const md_tune_site *s, int way) {
  md_tune_order_way(t, way, s);
  for (int i = 0; i < 2; i++) {
    md_tune_begin(t, way > 0 ? s->first + way - 1 : MD_TUNE_OWN, usual_step(t));
    if (!run_order(t, NULL)) return false;
  }
  return true;
}

static bool has_way(const md_tuner *t, const md_tune_site *s, int way) {
  return way > 0 && way <= s->num && !md_tune_is_out(t, s, s->first + way - 1);
}

// It fails again and again, and none of it does so alone: all of it is left out.
static void leave_out(md_tuner *t, int way, const char *why) {
  for (const md_tune_site *s = t->site; s < t->site + t->num_sites; s++)
    if (has_way(t, s, way))
      snprintf(t->failed[s->first + way - 1], MD_TUNE_WHY,
               "a step with it and others fails: %.300s", why);
  t->kept->failures = 0;
}

// Which way of a step is to blame? False: it has failed, or the step itself has too often.
static bool settle_doubt(md_tuner *t) {
  md_tune_kept *k = t->kept;
  int way = k->doubt - 1;
  if (way < 0) return true;
  char why[MD_TUNE_WHY];
  memcpy(why, k->why, sizeof why);
  if (way == 0 && !run_alone(t, NULL, 0)) return false;
  for (const md_tune_site *s = t->site; s < t->site + t->num_sites; s++)
    if (has_way(t, s, way) && !run_alone(t, s, way)) return false;
  k->doubt = 0;
  if (++k->failures < MD_TUNE_FAILURES) return true;
  if (way > 0) leave_out(t, way, why);
  return way > 0;
}

// Every way runs once before what counts: a driver loads a kernel when it is first launched.
static bool warm_up(md_tuner *t) {
  for (int way = 0; way <= t->most; way++)
    if (!measure(t, way, t->kept->step / (t->most + 1))) return false;
  return true;
}

static void tell(const md_tuner *t, int step) {
  int of = (t->o->rounds + 2 * MD_TUNE_BESIDE) * (t->most + 1);
  if (t->o->told) t->o->told(t->o->ctx, step, of);
}

static bool measure_all(md_tuner *t) {
  md_tune_kept *k = t->kept;
  int ways = t->most + 1, of = t->o->rounds * ways;
  k->step -= k->step % ways;
  if (k->step < of && !warm_up(t)) return false;
  t->nvml = md_clocks_watch(&k->clocks, t->index);
  while (k->step < of) {
    bool is_enough = md_tune_is_late(t) && k->step >= MD_TUNE_LEAST_ROUNDS * ways;
    if (is_enough && k->step % ways == 0) break;
    if (!measure(t, k->step % ways, k->step / ways)) return false;
    k->step++;
    tell(t, k->step);
  }
  return true;
}

// --- cold and warm

static bool measure_beside(md_tuner *t, int way, md_tune_l2 l2) {
  md_tune_order_beside(t, way, l2);
  md_tune_begin(t, MD_TUNE_STEP, usual_step(t));
  return run_order(t, NULL);
}

// In whole rounds, as long as there is time. They decide nothing, so whatever fails here, in whatever process,
// costs these times alone. The first step makes the memory that drives the cache out.
static void measure_all_beside(md_tuner *t) {
  md_tune_kept *k = t->kept;
  if (k->has_begun_beside || md_tune_is_late(t)) return;
  k->has_begun_beside = true;
  bool ok = measure_beside(t, 0, MD_TUNE_COLD);
  for (int round = 0; ok && round < MD_TUNE_BESIDE && !md_tune_is_late(t); round++) {
    for (int i = 0; i < 2 * (t->most + 1) && ok; i++) {
      md_tune_l2 l2 = i % 2 ? MD_TUNE_WARM : MD_TUNE_COLD;
      ok = measure_beside(t, i / 2, l2);
      if (ok) keep_times(t, i / 2, l2, round);
      tell(t, (t->o->rounds + 2 * round) * (t->most + 1) + i + 1);
    }
    k->num_beside += ok;
  }
  if (!ok) md_log(MD_LOG_EXEC, MD_LEVEL_WARN, "times of a cold and a warm L2 cache: %s", k->why);
}

// --- all of it

static bool open_device(md_tuner *t, md_diags *d) {
  md_exec_options o = t->o->exec;
  o.time = true;
  o.engine = MD_ENGINE_MODIST;
  o.tries_cudnn = t->cudnn != 0;
  md_tune_begin(t, MD_TUNE_OWN, -1);
  t->e = md_exec_create(t->p, &o, d);
  return t->e && (!t->o->set_inputs || t->o->set_inputs(t->o->ctx, t->e, d));
}

// What cuDNN has no plan for is not tried, nor what a site before is. False: nothing is.
static bool find_plans(const md_tuner *t) {
  bool has_any = !t->cudnn;
  for (int i = 0; t->cudnn && i < t->num_sites; i++) {
    md_tune_site *s = &t->site[i];
    int conv = (int)(md_tune_conv(t, s) - t->p->conv);
    if (!s->is_fixed) s->is_fixed = !md_exec_conv_key(t->e, conv, s->key);
    for (int k = 0; k < i && !s->is_fixed; k++)
      s->is_fixed = !t->site[k].is_fixed && !strcmp(t->site[k].key, s->key);
    has_any |= !s->is_fixed;
  }
  return has_any;
}

static bool work(md_tuner *t) {
  if (!find_plans(t)) return true;
  if (!compare_all(t) || !settle_doubt(t) || !measure_all(t)) return false;
  measure_all_beside(t);
  return true;
}

md_status md_tune_work(void *tuner) {
  md_tuner *t = tuner;
  md_diags *d = md_diags_create();
  t->kept->is_over = open_device(t, d) && work(t);
  md_tune_begin(t, MD_TUNE_STEP, -1);  // nobody is to blame from now on
  md_nvml_close(t->nvml);
  md_exec_destroy(t->e);
  md_diags_print(d, stderr, md_likes_color(STDERR_FILENO));
  md_status status = md_diags_status(d);
  md_diags_destroy(d);
  return status;
}
