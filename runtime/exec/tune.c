// SPDX-License-Identifier: Apache-2.0
// Trials on a device. A way to make a product is good where it runs: behind what runs before it, with what
// that has left in the caches. So it is measured within the step (tune_steps.c).
//
// A way may fail, and then the driver is of no use in that process; or it may never end. So a process of its own
// measures, and this one waits: what is late is ended, what has failed is left out, and the next process goes on
// with what it finds in the memory that all of them share.
#include "runtime/exec/tune.h"

#include "runtime/exec/cudnn.h"
#include "runtime/exec/driver.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

void *md_tune_rows(int64_t num, size_t size) { return md_calloc((size_t)num + 1, size); }

static int64_t row_of(const md_tuner *t) { return t->o->rounds + 2 * MD_TUNE_BESIDE; }

double *md_tune_us(const md_tuner *t, const md_tune_site *s, int trial, md_tune_l2 l2) {
  double *row = trial == MD_TUNE_OWN ? s->own : t->us + trial * row_of(t);
  if (l2 == MD_TUNE_STEPS) return row;
  return row + t->o->rounds + (l2 == MD_TUNE_WARM ? MD_TUNE_BESIDE : 0);
}

int md_tune_rounds(const md_tuner *t, md_tune_l2 l2) {
  return l2 == MD_TUNE_STEPS ? t->num_rounds : t->kept->num_beside;
}

bool md_tune_is_late(const md_tuner *t) {
  return t->kept->signal || (double)(md_now_ns() - t->start_ns) > t->o->seconds * 1e9;
}

// --- what is shared

// A site has a trial or more.
static void share(md_tuner *t) {
  int64_t num = t->num_trials, times = num * row_of(t);
  int64_t sites = num * (int64_t)sizeof *t->site, us = times * (int64_t)sizeof *t->us;
  t->shared_bytes = (int64_t)sizeof *t->kept + sites + 2 * us + num * (int64_t)sizeof *t->failed;
  char *at = md_shared_create(t->shared_bytes);
  t->kept = (md_tune_kept *)at;
  t->site = (md_tune_site *)(at += sizeof *t->kept);
  t->us = (double *)(at += sites);
  double *own = (double *)(at += us);
  t->failed = (char(*)[MD_TUNE_WHY])(at + us);
  for (int i = 0; i < num; i++) t->site[i].own = own + i * row_of(t);
}

// --- processes

// False: there is no use in another one; reported.
static bool run_worker(md_tuner *t, md_diags *d) {
  md_tune_kept *k = t->kept;
  char why[MD_TUNE_WHY];
  md_tune_begin(t, MD_TUNE_OWN, -1);
  int child = md_apart(md_tune_work, t);
  if (child < 0)
    return md_error(d, E0647, MD_NOWHERE, "there is no process to measure in: %s", strerror(errno));
  int how = md_apart_wait(child, &k->until_ns);
  double s = (double)(md_now_ns() - k->since_ns) / 1e9;
  if (how == MD_APART_STUCK)
    return md_error(d, E0647, MD_NOWHERE,
                    "process %d is killed, as it was late, but the driver does not let go of it",
                    child);
  if (how > 0) return md_told(d, (md_status)how);
  if (how == MD_APART_LATE) snprintf(why, sizeof why, "it did not end within %.3g s", s);
  else if (how < 0) snprintf(why, sizeof why, "signal %d ended its process", -how);
  if (how < 0) md_tune_blame(t, why);
  return true;
}

static void name_failed(const md_tuner *t, md_diags *d) {
  for (int i = 0; i < t->num_trials; i++) {
    const md_gpu_trial *x = &t->trial[i];
    if (t->failed[i][0])
      md_note(d, MD_NOWHERE, "%s of %s had failed: %s", x->way, t->p->launch[x->replaced].name,
              t->failed[i]);
  }
}

static bool run_workers(md_tuner *t, md_diags *d) {
  md_tune_kept *k = t->kept;
  bool ok = true;
  while (ok && !k->is_over && k->failures < MD_TUNE_FAILURES) {
    ok = run_worker(t, d);
    k->is_checked |= md_tune_is_late(t);  // ways that fail do not take more than the time there is
  }
  if (ok && !k->is_over)
    ok = md_error(d, E0647, MD_NOWHERE, "a step fails with every way left out: %s", k->why);
  if (!ok) name_failed(t, d);
  return ok;
}

// --- a wish to stop
// It ends the time there is, in both processes, and what was measured by then is kept. A second signal ends them.

enum { SIGNALS = 3 };
static const int signals[SIGNALS] = {SIGINT, SIGTERM, SIGHUP};
static md_tune_kept *listening;  // a handler has no other way to it

static void hear(int signal) { listening->signal = signal; }

static void listen(md_tuner *t, struct sigaction before[SIGNALS]) {
  struct sigaction a = {.sa_handler = hear, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
  sigemptyset(&a.sa_mask);
  listening = t->kept;
  for (int i = 0; i < SIGNALS; i++) {
    sigaction(signals[i], NULL, &before[i]);
    if (before[i].sa_handler != SIG_IGN) sigaction(signals[i], &a, NULL);
  }
}

// False: one came, reported.
static bool heard_nothing(const md_tuner *t, const struct sigaction before[SIGNALS], md_diags *d) {
  for (int i = 0; i < SIGNALS; i++) sigaction(signals[i], &before[i], NULL);
  listening = NULL;
  if (!t->kept->signal) return true;
  md_warning(d, MD_NOWHERE, "stopped by signal %d after %d rounds, which count",
             (int)t->kept->signal, t->num_rounds);
  return md_told(d, MD_STOPPED);
}

// --- all of it

void md_tune_input(const md_spec *s, uint64_t seed, void *to) {
  int64_t num = md_spec_elements(s);
  if (num == 1 && md_dtype_is_float(s->dtype)) md_element_store(s->dtype, to, 0, 1e-3);
  else md_fill_input(s->name, s->dtype, num, seed, to);
}

static bool find_device(md_tuner *t, md_diags *d) {
  int index;
  md_gpu_lack lack;
  if (!md_device_parse(t->o->exec.device ? t->o->exec.device : "cuda:0", &index, d)) return false;
  if (index < 0) return md_tune_nothing(t->p, "the CPU", d);
  t->index = index;
  if (!md_gpu_ask(index, &t->device, &lack)) return md_driver_unusable(NULL, &lack, d);
  t->v = md_gpu_variant_for(t->p, t->device.sm);
  return true;
}

// What the trials take, as records.
static bool tune(md_tuner *t, md_diags *d) {
  share(t);
  md_tune_find_sites(t);
  t->sum = md_tune_rows(t->num_sites, sizeof *t->sum);
  struct sigaction before[SIGNALS];
  listen(t, before);
  bool ok = run_workers(t, d);
  t->num_rounds = t->kept->step / (t->most + 1);
  if (ok || t->num_rounds >= MD_TUNE_LEAST_ROUNDS) md_tune_put_records(t);
  md_clocks_tell(&t->kept->clocks, t->device.name, d);
  ok = heard_nothing(t, before, d) && ok;
  md_shared_destroy(t->kept, t->shared_bytes);
  free(t->sum);
  return ok;
}

static bool tune_ways(md_tuner t, md_diags *d) {
  t.cudnn = 0;
  t.trial = t.p->trial + t.v->first_trial;
  t.num_trials = t.v->num_trials;
  return !t.num_trials || tune(&t, d);
}

// By processes of their own: what cuDNN does there spoils no way.
static bool tune_engines(md_tuner t, md_diags *d) {
  md_gpu_trial *all = md_tune_engine_trials(&t, &t.num_trials);
  t.trial = all;
  bool ok = !t.num_trials || tune(&t, d);
  free(all);
  return ok;
}

static md_status ask_cudnn(void *version) {
  const char *path;
  char why[MD_CUDNN_WORDS];
  if (!md_cudnn_find(version, &path, why)) *(int *)version = 0;
  return MD_OK;
}

int md_tune_cudnn(void) {
  int *version = md_shared_create(sizeof *version);
  int child = md_apart(ask_cudnn, version);
  int found = child >= 0 && md_apart_wait(child, NULL) == 0 ? *version : 0;
  md_shared_destroy(version, sizeof *version);
  return found;
}

bool md_tune(const md_program *p, const md_tune_options *o, md_records *to, md_diags *d) {
  md_tuner t = {.p = p, .o = o, .to = to, .start_ns = md_now_ns()};
  if (!find_device(&t, d)) return false;
  bool has_convs = t.v && p->num_convs && o->exec.engine == MD_ENGINE_FASTEST;
  if (has_convs) t.cudnn = md_tune_cudnn();
  if (!t.v || (!t.v->num_trials && !t.cudnn)) return md_tune_nothing(p, t.device.name, d);
  return tune_ways(t, d) && (!t.cudnn || tune_engines(t, d));
}
