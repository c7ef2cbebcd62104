// SPDX-License-Identifier: Apache-2.0
// Training: settings -> step -> compiled engine; then batch by batch: inputs, step, log; at the end,
// or when a signal asks, everything that was learnt goes into one file.
#include "runtime/train/train.h"

#include "base/file.h"
#include "base/log.h"
#include "runtime/train/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_AGAIN_NS = 200000 };  // whether the GPU is busy
enum { RETRY_S = 5 };             // between two tries to save at the end

typedef struct Run {
  const md_config *config;
  md_config *own_config;  // of a resumed run
  md_checkpoint *from;    // what it goes on from, until that is restored
  bool is_new;            // no other run of the folder is gone on with
  const md_train_options *o;
  md_diags *d;
  md_arena *arena;
  md_step step;
  md_dataset *data;
  md_loader *loader;
  md_engine *engine;
  md_progress *progress;
  md_train_log *log;
  md_tensorboard *board;
  md_alarm alarm;
  md_trace *trace;
  md_stop *stop;
  md_run_folder *folder;
  const char *dir, *config_text, *code, *quarantine;
  char *weights, *videos, *maps;
  md_schedule schedule;
  int64_t steps, done, saved_ns;
  int quarantined;
  md_batch batch;  // of the step that is next, or runs
  md_bank_ids bank;
  bool is_fed;          // the inputs are those of the next step
  bool is_out_of_data;  // that failed
  bool is_spoilt;       // the last step may have left states that nobody should keep
} Run;

static double epoch_at(const Run *r, int64_t done) {
  return (double)(done * r->step.batch) / r->data->num_items;
}

static const char *path_in(Run *r, const char *name) {
  return md_format(r->arena, "%s/%s", r->dir, name);
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
  r->videos = md_videos_name(r->data);
  r->maps = md_train_maps_name(r->config, &r->step, r->data, r->d);
  if (!r->maps) return false;
  return !r->from ||
         (md_resume_check_videos(r->from, r->videos, path, r->d) &&
          md_resume_check_maps(r->from, r->maps, md_config_text(r->config, "data.maps"), r->d));
}

int64_t md_train_steps(const md_config *c, const md_train_options *o, int64_t videos,
                       int64_t batch) {
  int64_t all = (int64_t)ceil(md_config_float(c, "epochs") * (double)videos / (double)batch);
  return o->max_steps ? MD_MIN(o->max_steps, all) : all;
}

static void plan_length(Run *r) {
  const md_config *c = r->config;
  double epochs = md_config_float(c, "epochs");
  r->schedule = (md_schedule){.constant = strcmp(md_config_text(c, "sched"), "constant") == 0,
                              .base = md_config_float(c, "opt.lr"),
                              .epochs = epochs,
                              .warmup = md_config_float(c, "warmup"),
                              .warm0 = md_config_float(c, "warmup_lr")};
  r->steps = md_train_steps(c, r->o, r->data->num_items, r->step.batch);
}

// Equal texts compute equal bits: the same instructions, the same graph after all passes, the same kernels and plans.
static const char *name_code(Run *r) {
  const md_exec *x = md_engine_exec(r->engine);
  char digits[33];
  md_text code = {0};
  md_digest_text(md_graph_digest(md_engine_graph(r->engine)), digits);
  const char *name = md_format(r->arena, "%s %s modist " MODIST_VERSION,
                               x ? md_exec_program(x)->target : "interp", digits);
  if (x) md_exec_code(x, &code);
  if (code.len)
    name = md_format(r->arena, "%s, kernels %s", name,
                     md_digest_text(md_digest_of(code.s, code.len), digits));
  md_text_free(&code);
  return name;
}

static bool restore(Run *r) {
  if (!md_checkpoint_restore(r->from, r->engine, NULL, r->d)) return false;
  const char *before = md_checkpoint_code(r->from);
  if (*before && strcmp(before, r->code) != 0) {
    md_warning(r->d, MD_IN_FILE(md_checkpoint_path(r->from)),
               "the step was compiled in another way: the run goes on, but not bit for bit");
    char clean[1000];  // whole, as what differs may come last
    md_note(r->d, MD_NOWHERE, "then %s, now %s", md_clean(before, clean, sizeof clean), r->code);
    md_hint(r->d, "what differs is one of --cpu, --precision, --memory-limit, --engine, "
                  "--deterministic, passes, records of tuning, the version of modist");
  }
  r->done = md_checkpoint_step(r->from);
  if (!r->o->quiet)
    fprintf(stderr,
            r->done < r->steps ? "goes on from %s, step %lld of %lld\n"
                               : "%s is at step %lld, and the run ends at %lld: all is done\n",
            md_checkpoint_path(r->from), (long long)r->done, (long long)r->steps);
  md_checkpoint_close(r->from);  // as large as all states
  r->from = NULL;
  return true;
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
  const char *engine = md_engine_exec(r->engine) ? md_exec_engine(md_engine_exec(r->engine)) : NULL;
  if (engine && !r->o->quiet) fprintf(stderr, "%s\n", engine);
  r->code = name_code(r);
  if (r->from && !restore(r)) return false;
  if (!md_bank_ids_read(&r->bank, r->engine, r->d)) return false;
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
  r->folder = md_run_folder_open(r->dir, r->is_new, r->d);
  if (!r->folder ||
      !md_file_save(path_in(r, "config.yaml"), r->config_text, strlen(r->config_text), r->d))
    return false;
  r->quarantine = path_in(r, "quarantine.txt");
  unlink(r->quarantine);  // of an earlier run; a resumed one meets the same files again
  r->log = md_train_log_open(path_in(r, "log.jsonl"), r->is_new ? 0 : r->done, r->d);
  if (md_config_bool(r->config, "run.tensorboard"))
    r->board = md_tensorboard_open(r->dir, r->done, r->d);
  r->alarm =
      (md_alarm){.batch = r->step.batch, .dim = {r->step.visual.embed, r->step.motion.embed}};
  r->progress = md_progress_create(
      &(md_progress_options){.steps = r->steps,
                             .clips = r->step.batch * (r->step.mode == MD_MODE_MODIST ? 4 : 2),
                             .every_s = md_config_float(r->config, "run.log_every"),
                             .quiet = r->o->quiet,
                             .tty = isatty(STDERR_FILENO)});
  return true;
}

// The batch of the step after `at` others, into the engine's inputs. Waits for it. False: reported.
static bool feed(Run *r, int64_t at) {
  int64_t start = md_now_ns();
  md_status got = md_loader_next(r->loader, &r->batch);
  int64_t there = md_now_ns();
  md_train_quarantine(r->loader, r->quarantine, &r->quarantined, r->d);
  uint64_t seed = (uint64_t)md_config_int(r->config, "run.seed");
  double lr = md_lr_at(&r->schedule, epoch_at(r, at));
  r->is_fed = got == MD_OK && md_train_feed(r->engine, &r->step, &r->batch, at, seed, lr, r->d) &&
              md_engine_send(r->engine, r->d);
  if (r->trace) {
    md_trace_span(r->trace, "wait for data", "data", 0, start, there);
    md_trace_span(r->trace, "fill inputs", "data", 0, there, md_now_ns());
  }
  r->is_out_of_data = !r->is_fed;
  return r->is_fed;
}

// While a GPU works, the next batch can come to it. For one that is not there by then the next step waits,
// and counts that time.
static void feed_ahead(Run *r) {
  if (r->done + 1 >= r->steps) return;
  while (!md_loader_is_ready(r->loader) && md_engine_is_busy(r->engine))
    nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_NS}, NULL);
  if (md_loader_is_ready(r->loader)) feed(r, r->done + 1);
}

// The negatives that this step's losses count, as the graph sees the bank: before the push, or after.
static void see_bank(Run *r, md_measure *m) {
  if (!r->bank.id) return;
  if (r->step.enqueue_before) md_bank_ids_push(&r->bank, r->batch.id, r->step.batch);
  m->has_chance = true;
  m->chance = md_chance(r->bank.id, r->bank.rows, r->batch.id, r->step.batch, &m->masked);
  if (!r->step.enqueue_before) md_bank_ids_push(&r->bank, r->batch.id, r->step.batch);
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

// The CPU does the step in md_engine_start; a GPU meanwhile, until md_engine_finish.
static bool run_step(Run *r, int64_t start, md_measure *m) {
  r->is_fed = false;
  r->is_spoilt = true;
  if (!md_engine_start(r->engine, r->d)) return false;
  m->step_ns = md_now_ns() - start;
  see_bank(r, m);
  if (!md_engine_is_gpu(r->engine)) return md_engine_finish(r->engine, r->d);
  feed_ahead(r);
  int64_t ahead = md_now_ns();
  bool ok = md_engine_finish(r->engine, r->d);
  if (r->trace) md_trace_span(r->trace, "wait for the GPU", "step", 0, ahead, md_now_ns());
  m->step_ns = md_now_ns() - start;
  return ok;
}

static bool one_step(Run *r) {
  md_measure m = {.step = r->done + 1, .epoch = epoch_at(r, r->done)};
  m.lr = md_lr_at(&r->schedule, m.epoch);
  int64_t start = md_now_ns();
  if (r->is_out_of_data || (!r->is_fed && !feed(r, r->done))) return false;
  int64_t fed = md_now_ns();
  m.wait_ns = fed - start;
  if (!run_step(r, fed, &m)) return false;
  md_measure_read(r->engine, &m);
  md_alarm_check(&r->alarm, &m, r->d);
  md_train_log_step(r->log, &m, r->d);
  md_tensorboard_step(r->board, &m, r->d);
  md_progress_step(r->progress, &m);
  md_progress_warnings(r->progress, r->d);
  if (!check_finite(r, &m)) return false;
  r->is_spoilt = false;
  r->done++;
  return true;
}

static bool save(Run *r, const char *path, md_diags *d) {
  md_train_log_sync(r->log);
  md_checkpoint_info info = {.step = r->done,
                             .config = r->config_text,
                             .videos = r->videos,
                             .code = r->code,
                             .maps = r->maps};
  r->saved_ns = md_now_ns();
  return md_checkpoint_save(r->engine, path, &info, d);
}

// By steps or by time, whichever comes first. A disk that is full now may have room later: training
// goes on, and the older checkpoints are there.
static void checkpoint(Run *r) {
  int64_t every = md_config_int(r->config, "run.checkpoint_every");
  double minutes = md_config_float(r->config, "run.checkpoint_minutes");
  bool is_due = (every && r->done % every == 0) ||
                (minutes > 0 && (double)(md_now_ns() - r->saved_ns) / 60e9 >= minutes);
  if (!is_due || r->done == r->steps) return;
  md_diags *own = md_diags_create();
  char *path = md_run_checkpoint_path(r->dir, r->done);
  if (save(r, path, own)) {
    md_run_keep_newest(r->dir, r->done, md_config_int(r->config, "run.keep"));
  } else {
    md_warning(r->d, MD_IN_FILE(path), "no checkpoint is written now; training goes on");
    md_note(r->d, MD_NOWHERE, "%s", md_diags_text(own));
    md_progress_warnings(r->progress, r->d);
  }
  free(path);
  md_diags_destroy(own);
}

// Said at once, and whatever the run is not to tell: somebody has to act.
static void tell_of_wait(Run *r, const md_diags *refusal) {
  int64_t bytes = 0;
  for (int i = 0; i < md_engine_num_states(r->engine); i++) {
    md_type t =
        *md_type_in(md_engine_graph(r->engine),
                    md_find_state(md_engine_graph(r->engine), md_engine_state_name(r->engine, i)));
    bytes += md_type_bytes(&t);
  }
  md_diags *d = md_diags_create();
  md_warning(d, MD_IN_FILE(r->weights),
             "cannot be written now: what the last steps taught is in memory only");
  md_note(d, MD_NOWHERE, "%s", md_diags_text(refusal));
  md_hint(d,
          "%.1f MB are needed there; for %g minutes (run.save_minutes) the run tries again every "
          "%d s. A signal (Ctrl-C) ends it",
          (double)bytes / 1e6, md_config_float(r->config, "run.save_minutes"), RETRY_S);
  md_diags_print(d, stderr, false);
  md_diags_destroy(d);
}

// No later save makes up for the last one, so a run stays for some time on a disk that is full. What
// the last try is refused for is the run's error.
static bool save_at_end(Run *r) {
  int64_t end = md_now_ns() + (int64_t)(md_config_float(r->config, "run.save_minutes") * 60e9);
  int asked = md_stop_asked(r->stop);
  md_diags *own = md_diags_create();
  bool saved = false, told = false;
  while (md_now_ns() < end && md_stop_asked(r->stop) == asked) {
    md_diags_clear(own);
    saved = save(r, r->weights, own);
    if (saved || md_diags_code(own) != E0801) break;  // waiting helps a disk alone
    if (!told) tell_of_wait(r, own);
    told = true;
    sleep(RETRY_S);
  }
  md_diags_destroy(own);
  return saved || save(r, r->weights, r->d);
}

static void report(Run *r, int signal, bool saved) {
  if (r->o->quiet) return;
  md_progress_table(r->progress, stdout);
  md_loader_stats s = md_loader_stats_now(r->loader);
  printf("data    %lld samples, %lld replaced; %d of %d videos given up; %lld damaged and %lld "
         "missing frames\n",
         (long long)s.samples, (long long)s.replaced, s.quarantined, r->data->num_items,
         (long long)s.damaged_frames, (long long)s.missing_frames);
  if (s.gpu_frames)
    printf("        %lld frames were decoded by the GPU\n", (long long)s.gpu_frames);
  if (saved) printf("wrote   %s after %lld steps\n", r->weights, (long long)r->done);
  if (signal) printf("stopped by %s\n", strsignal(signal));
}

// What was learnt before an error, of the data for instance, is kept too.
static md_status loop(Run *r) {
  int signal = 0;
  bool ok = true;
  r->saved_ns = md_now_ns();
  while (ok && r->done < r->steps && !(signal = md_stop_asked(r->stop))) {
    ok = one_step(r);
    if (ok) checkpoint(r);
  }
  md_progress_end(r->progress);
  bool saved = (ok || r->done > 0) && !r->is_spoilt && save_at_end(r);
  if (r->trace) ok = md_trace_save(r->trace, r->o->trace, r->d) && ok;
  report(r, signal, saved);
  if (!ok || !saved) return md_diags_status(r->d);
  return signal ? MD_STOPPED : MD_OK;
}

// The checkpoint to go on from, and settings that are its own but for what may change.
static bool find_checkpoint(Run *r) {
  const char *dir = r->o->out_dir ? r->o->out_dir : md_config_text(r->config, "run.dir");
  r->from =
      r->o->resume_from ? md_checkpoint_open(r->o->resume_from, r->d) : md_resume_find(dir, r->d);
  if (!r->from) return false;
  r->own_config = md_resume_config(r->from, r->config, r->d);
  if (!r->own_config) return false;
  if (!r->o->resume_from) md_config_set(r->own_config, "run.dir", dir);  // it may have moved
  r->config = r->own_config;
  return true;
}

// The GPU that trains decodes, too; the first one where the CPU trains.
static int gpu_of(const Run *r) {
  const char *device = r->o->engine.device;
  int index = 0;
  return device && md_device_parse(device, &index, r->d) && index > 0 ? index : 0;
}

static md_status run(Run *r) {
  // A checkpoint from elsewhere starts a run in a folder of its own.
  r->is_new = !r->o->resume || (r->o->resume_from && !md_run_contains(r->dir, r->o->resume_from));
  if (r->is_new && !r->o->overwrite && !md_run_protect(r->dir, r->o->resume, r->d))
    return md_diags_status(r->d);
  if (!open_data(r)) return md_diags_status(r->d);
  plan_length(r);
  if (!make_engine(r)) return md_diags_status(r->d);
  md_feed_options from = {.first = r->done * r->step.batch,
                          .gpu = gpu_of(r),
                          .deterministic = r->o->engine.deterministic};
  r->loader = md_train_loader(r->config, &r->step, r->data, &from, r->d);
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

// The GPU decodes what it can, and the CPU the rest: which of them does, may be another one next time.
static bool check_decoder(Run *r) {
  if (!r->o->engine.deterministic || !strcmp(md_config_text(r->config, "data.decode"), "cpu"))
    return true;
  md_error(r->d, E0207, md_config_place(r->config, "data.decode"),
           "data.decode is %s, but with --deterministic the CPU alone decodes",
           md_config_text(r->config, "data.decode"));
  return md_hint(r->d, "data.decode=cpu"), false;
}

static md_status plan_or_run(Run *r) {
  if (r->o->resume && !find_checkpoint(r)) return md_diags_status(r->d);
  if (!check_decoder(r)) return md_diags_status(r->d);
  if (!md_train_step(r->config, &r->step, r->d) || !md_train_check_maps(r->config, &r->step, r->d))
    return md_diags_status(r->d);
  if (r->o->dry_run) return md_train_plan(r->config, &r->step, r->o, stdout, r->d);
  r->dir = r->o->out_dir ? r->o->out_dir : md_config_text(r->config, "run.dir");
  r->weights = md_run_weights_path(r->dir);
  return run(r);
}

md_status md_train(const md_config *c, const md_train_options *o, md_diags *d) {
  Run r = {.config = c, .o = o, .d = d, .arena = md_arena_create()};
  md_status status = plan_or_run(&r);
  md_stop_destroy(r.stop);
  md_loader_destroy(r.loader);
  md_train_log_close(r.log, d);
  md_tensorboard_close(r.board);
  md_progress_destroy(r.progress);
  if (r.engine && r.trace) md_exec_set_trace(md_engine_exec(r.engine), NULL);
  if (r.trace) md_trace_destroy(r.trace);
  md_engine_destroy(r.engine);
  md_bank_ids_free(&r.bank);
  md_dataset_destroy(r.data);
  md_checkpoint_close(r.from);
  md_run_folder_close(r.folder);
  md_config_destroy(r.own_config);
  free(r.weights);
  free(r.videos);
  free(r.maps);
  md_arena_destroy(r.arena);
  return status;
}
