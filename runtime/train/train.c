// SPDX-License-Identifier: Apache-2.0
// Training: settings -> step -> compiled engine; then batch by batch: inputs, step, log; at the end,
// or when a signal asks, everything that was learnt goes into one file.
#include "runtime/train/train.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct Run {
  const md_config *config;
  const md_train_options *o;
  md_diags *d;
  md_arena *arena;
  md_step step;
  md_dataset *data;
  md_loader *loader;
  md_engine *engine;
  md_progress *progress;
  md_train_log *log;
  md_trace *trace;
  md_stop *stop;
  const char *dir, *weights, *config_text;
  md_schedule schedule;
  int64_t steps, done;
  bool is_spoilt;  // the last step may have left states that nobody should keep
} Run;

static const char *path_in(Run *r, const char *name) {
  return md_format(r->arena, "%s/%s", r->dir, name);
}

// Every folder of the path that is not there yet.
static bool make_folders(Run *r) {
  char *path = md_strdup(r->arena, r->dir);
  for (char *s = path + 1;; s++) {
    if (*s && *s != '/') continue;
    char kept = *s;
    *s = 0;
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
      return md_error(r->d, E0801, MD_IN_FILE(path), "the folder of the run cannot be made: %s",
                      strerror(errno));
    *s = kept;
    if (!kept) return true;
  }
}

// Weights of an earlier run are never overwritten silently.
static bool protect(Run *r) {
  struct stat info;
  if (r->o->overwrite || lstat(r->weights, &info) != 0) return true;
  md_error(r->d, E0208, MD_IN_FILE(r->weights), "run.dir already holds the weights of a run");
  md_hint(r->d, "run.dir=ANOTHER keeps both; --overwrite replaces the old one");
  return false;
}

static bool open_data(Run *r) {
  const char *path = md_config_text(r->config, "data.train");
  if (!*path) {
    md_error(r->d, E0209, MD_NOWHERE, "no videos are named to train on");
    md_hint(r->d, "data.train=FOLDER; 'modistc dataset shapes -o FOLDER' makes some to try");
    return false;
  }
  r->data = md_train_data(r->config, &r->step, r->d);
  if (!r->data) return false;
  if (r->data->num_items < r->step.batch)
    md_warning(r->d, md_config_place(r->config, "batch"),
               "a batch of %lld holds videos more than once: there are %d",
               (long long)r->step.batch, r->data->num_items);
  return true;
}

static void plan_length(Run *r) {
  const md_config *c = r->config;
  double epochs = md_config_float(c, "epochs");
  r->schedule = (md_schedule){.constant = strcmp(md_config_text(c, "sched"), "constant") == 0,
                              .base = md_config_float(c, "opt.lr"),
                              .epochs = epochs,
                              .warmup = md_config_float(c, "warmup"),
                              .warm0 = md_config_float(c, "warmup_lr")};
  r->steps = (int64_t)ceil(epochs * r->data->num_items / (double)r->step.batch);
  if (r->o->max_steps && r->o->max_steps < r->steps) r->steps = r->o->max_steps;
}

static bool make_engine(Run *r) {
  md_graph *g = md_step_graph(&r->step, r->d);
  if (!g) return false;
  md_engine_options o = r->o->engine;
  o.seed = (uint64_t)md_config_int(r->config, "run.seed");
  o.threads = (int)md_config_int(r->config, "run.threads");
  int64_t start = md_now_ns();
  r->engine = md_engine_create(g, &o, r->d);
  if (!r->engine) return false;
  if (!r->o->quiet)
    fprintf(stderr, "compiled %s in %.1f s\n", md_config_text(r->config, "model.name"),
            (double)(md_now_ns() - start) / 1e9);
  if (r->o->trace && md_engine_exec(r->engine)) {
    r->trace = md_trace_create();
    md_exec_set_trace(md_engine_exec(r->engine), r->trace);
  }
  return true;
}

static bool open_outputs(Run *r) {
  md_text text = {0};
  md_config_print(r->config, false, &text);
  r->config_text = md_strdup(r->arena, text.s);
  md_text_free(&text);
  if (!make_folders(r) ||
      !md_file_save(path_in(r, "config.yaml"), r->config_text, strlen(r->config_text), r->d))
    return false;
  r->log = md_train_log_open(path_in(r, "log.jsonl"), r->d);
  r->progress = md_progress_create(
      &(md_progress_options){.steps = r->steps,
                             .clips = r->step.batch * (r->step.mode == MD_MODE_MODIST ? 4 : 2),
                             .every_s = md_config_float(r->config, "run.log_every"),
                             .quiet = r->o->quiet,
                             .tty = isatty(STDERR_FILENO)});
  return r->progress != NULL;
}

// The negatives that this step's losses count, as the graph sees the bank: before the push, or after.
static void read_chance(Run *r, const md_batch *b, md_measure *m, bool after) {
  const int32_t *ids = md_engine_state(r->engine, "bank.ids", NULL);
  if (!ids || after != r->step.enqueue_before) return;
  m->has_chance = true;
  m->chance = md_chance(ids, r->step.bank, b->id, r->step.batch);
}

static bool check_finite(Run *r, const md_measure *m) {
  const char *which;
  if (md_measure_is_finite(m, &which)) return true;
  md_error(r->d, E0841, MD_NOWHERE, "%s is not finite at step %lld (epoch %.2f, lr %g)", which,
           (long long)m->step, m->epoch, m->lr);
  if (!r->o->engine.check_nan)
    md_hint(r->d, "the same command with --check-nan names the first kernel that made it");
  return false;
}

static bool one_step(Run *r) {
  md_measure m = {.step = r->done + 1};
  m.epoch = (double)(r->done * r->step.batch) / r->data->num_items;
  m.lr = md_lr_at(&r->schedule, m.epoch);
  int64_t start = md_now_ns();
  md_batch batch;
  if (md_loader_next(r->loader, &batch) != MD_OK) return false;
  uint64_t seed = (uint64_t)md_config_int(r->config, "run.seed");
  if (!md_train_feed(r->engine, &r->step, &batch, r->done, seed, m.lr, r->d)) return false;
  read_chance(r, &batch, &m, false);
  int64_t fed = md_now_ns();
  if (r->trace) md_trace_span(r->trace, "wait for data", "data", 0, start, fed);
  r->is_spoilt = true;
  if (!md_engine_step(r->engine, r->d)) return false;
  m.wait_ns = fed - start;
  m.step_ns = md_now_ns() - fed;
  read_chance(r, &batch, &m, true);
  md_measure_read(r->engine, &m);
  md_train_log_step(r->log, &m, r->d);
  md_progress_step(r->progress, &m);
  md_progress_warnings(r->progress, r->d);
  if (!check_finite(r, &m)) return false;
  r->is_spoilt = false;
  r->done++;
  return true;
}

static void report(Run *r, int signal, bool saved) {
  if (r->o->quiet) return;
  md_progress_table(r->progress, stdout);
  md_loader_stats s = md_loader_stats_now(r->loader);
  printf("data    %lld samples, %lld replaced; %d of %d videos given up; %lld damaged and %lld "
         "missing frames\n",
         (long long)s.samples, (long long)s.replaced, s.quarantined, r->data->num_items,
         (long long)s.damaged_frames, (long long)s.missing_frames);
  if (saved) printf("wrote   %s after %lld steps\n", r->weights, (long long)r->done);
  if (signal) printf("stopped by %s\n", strsignal(signal));
}

// What was learnt before an error, of the data for instance, is kept too.
static md_status loop(Run *r) {
  int signal = 0;
  bool ok = true;
  while (ok && r->done < r->steps && !(signal = md_stop_asked(r->stop))) ok = one_step(r);
  md_progress_end(r->progress);
  bool saved = (ok || r->done > 0) && !r->is_spoilt &&
               md_train_save(r->engine, r->weights, r->config_text, r->done, r->d);
  if (r->trace) ok = md_trace_save(r->trace, r->o->trace, r->d) && ok;
  report(r, signal, saved);
  if (!ok || !saved) return md_diags_status(r->d);
  return signal ? MD_STOPPED : MD_OK;
}

static md_status run(Run *r) {
  if (!protect(r) || !open_data(r)) return md_diags_status(r->d);
  plan_length(r);
  if (!make_engine(r)) return md_diags_status(r->d);
  r->loader = md_train_loader(r->config, &r->step, r->data, r->d);
  if (!r->loader || !open_outputs(r)) return md_diags_status(r->d);
  r->stop = md_stop_create();
  return loop(r);
}

bool md_train_step(const md_config *c, md_step *s, md_diags *d) {
  *s = md_step_defaults();
  const md_model *m = md_model_from(md_config_text(c, "model.name"));
  if (m) m->fill(s);
  return md_config_step(c, s, d);
}

md_status md_train(const md_config *c, const md_train_options *o, md_diags *d) {
  Run r = {.config = c, .o = o, .d = d};
  if (!md_train_step(c, &r.step, d)) return md_diags_status(d);
  if (o->dry_run) return md_train_plan(c, &r.step, &o->engine, stdout, d);
  r.arena = md_arena_create();
  r.dir = o->out_dir ? o->out_dir : md_config_text(c, "run.dir");
  r.weights = path_in(&r, "weights.safetensors");
  md_status status = run(&r);
  md_stop_destroy(r.stop);
  md_loader_destroy(r.loader);
  md_train_log_close(r.log, d);
  md_progress_destroy(r.progress);
  if (r.engine && r.trace) md_exec_set_trace(md_engine_exec(r.engine), NULL);
  if (r.trace) md_trace_destroy(r.trace);
  md_engine_destroy(r.engine);
  md_dataset_destroy(r.data);
  md_arena_destroy(r.arena);
  return status;
}
