// SPDX-License-Identifier: Apache-2.0
// Training: loader -> compiled step -> log -> saved weights. The map of this folder.
#ifndef RUNTIME_TRAIN_TRAIN_H
#define RUNTIME_TRAIN_TRAIN_H

#include "graph/graph.h"
#include "models/models.h"
#include "passes/passes.h"
#include "runtime/exec/exec.h"
#include "runtime/train/config.h"
#include "runtime/video/video.h"

// --- engine.c: one face for the compiled program and the interpreter -----------------------------

typedef enum md_backend { MD_BACKEND_CPU, MD_BACKEND_INTERP } md_backend;
typedef struct md_engine_options {
  md_backend backend;
  md_pass_options passes;
  const char *cpu;  // cap of the instructions
  bool asan, no_cache, check_nan;
  int threads;
  uint64_t seed;
  int64_t memory_limit;  // bytes; 0: none
} md_engine_options;
typedef struct md_engine md_engine;
// Takes g. Compiles it (or makes an interpreter). NULL: reported.
md_engine *md_engine_create(md_graph *g, const md_engine_options *o, md_diags *d);
// The same for an artefact (.mdx); `passes` and `cpu` are the artefact's own business.
md_engine *md_engine_load(const char *path, const md_engine_options *o, md_diags *d);
void md_engine_destroy(md_engine *e);
// Memory of an input or state in its own dtype, row-major. NULL: there is none of this name. With the
// interpreter these are copies that the step reads and writes back.
void *md_engine_input(md_engine *e, const char *name, md_type *type);
void *md_engine_state(md_engine *e, const char *name, md_type *type);
int md_engine_num_states(const md_engine *e);
const char *md_engine_state_name(const md_engine *e, int i);
// Copies a float result (any float dtype) to out[n]; false: no such result.
bool md_engine_result(md_engine *e, const char *name, double *out, int64_t n);
bool md_engine_step(md_engine *e, md_diags *d);
const md_graph *md_engine_graph(const md_engine *e);  // as compiled
md_exec *md_engine_exec(md_engine *e);                // NULL with the interpreter

// --- verify.c: taps. Before each launch its inputs are copied; after it the region's nodes run on
// the interpreter and every output is compared. Fusion stays as it is.
typedef struct md_verify_stats {
  int regions, values;
  int sampled;  // regions of which only some channels were computed
  int64_t elements;
  double worst;
  char at[128];
} md_verify_stats;
// Steps the engine once under taps. Convolutions of more than `most_flops` are checked on some of
// their channels only (0: no limit). False: reported (E0702 and the first region that disagrees).
bool md_engine_verify_step(md_engine *e, double most_flops, md_verify_stats *stats, md_diags *d);

// --- partial.c: some channels of a convolution on the interpreter
// How many channels to compute, so that the work is at most `most_flops`; 0: all of them.
int64_t md_partial_channels(const md_graph *g, const md_node *n, double most_flops);
// Computes `num` channels of node n's result, the first and the last among them; all others become
// huge numbers of this sign. False: no memory.
bool md_partial_eval(const md_graph *g, const md_node *n, const md_tensor *const *in,
                     md_tensor *out, int64_t num, double sign);

// --- schedule.c
// Linear warm-up from `warm0` at epoch 0 to the curve's value at `warmup`; then the curve: half a
// cosine down to 0 at `epochs`, or constant. Epochs are fractional (spec §6).
typedef struct md_schedule {
  bool constant;
  double base, epochs, warmup, warm0;
} md_schedule;
double md_lr_at(const md_schedule *s, double epoch);

// --- feed.c: from the settings' videos to the inputs of the step
// Opens data.train, which is set. A supervised step wants a label for every video. NULL: reported.
md_dataset *md_train_data(const md_config *c, const md_step *s, md_diags *d);
// What the loader draws for this step; the loader borrows `data`. NULL: reported.
md_loader *md_train_loader(const md_config *c, const md_step *s, const md_dataset *data,
                           md_diags *d);
// Fills every input of the step. `at` counts steps from 0. False: reported (a label out of range).
bool md_train_feed(md_engine *e, const md_step *s, const md_batch *b, int64_t at, uint64_t seed,
                   double lr, md_diags *d);
// Loss of guessing among the positive and the negatives that are counted for row i of the batch,
// ln(1 + counted), mean over the batch. A bank row counts unless it is empty (-2) or of video i.
double md_chance(const int32_t *bank_ids, int64_t rows, const int32_t *ids, int64_t batch);

// --- measure.c: what one step says
enum { MD_NUM_TERMS = 4, MD_NUM_SIDES = 2 };
extern const char *const md_term_names[MD_NUM_TERMS];  // v m vm mv
extern const char *const md_side_names[MD_NUM_SIDES];  // v m
typedef struct md_measure {
  int64_t step;  // 1: the first
  double epoch, lr, loss;
  bool has_chance, has_term[MD_NUM_TERMS], has_side[MD_NUM_SIDES], has_top1;
  double chance;  // of every term: the banks share their ids
  double term[MD_NUM_TERMS], top1[MD_NUM_TERMS];
  double std[MD_NUM_SIDES];  // of the embeddings; near 0 is collapse
  double supervised_top1;
  int64_t wait_ns, step_ns;  // for data; of the compiled step
} md_measure;
void md_measure_read(md_engine *e, md_measure *m);
bool md_measure_is_finite(const md_measure *m, const char **which);  // else names a result

// --- log.c: run.dir/log.jsonl, one object a step. A failure warns once and stops nothing.
typedef struct md_train_log md_train_log;
md_train_log *md_train_log_open(const char *path, md_diags *d);
void md_train_log_step(md_train_log *l, const md_measure *m, md_diags *d);
void md_train_log_close(md_train_log *l, md_diags *d);

// --- progress.c: what a person sees meanwhile, on stderr, and the table of losses at the end
typedef struct md_progress md_progress;
typedef struct md_progress_options {
  int64_t steps, clips;  // of the whole run; clips that a step takes
  double every_s;        // heartbeat where nobody watches
  bool quiet, tty;
} md_progress_options;
md_progress *md_progress_create(const md_progress_options *o);
void md_progress_destroy(md_progress *p);
void md_progress_step(md_progress *p, const md_measure *m);
// Prints warnings that came up and forgets them, so that they show when they happen.
void md_progress_warnings(md_progress *p, md_diags *d);
// Ends the line that is being redrawn.
void md_progress_end(md_progress *p);
// Means over equal spans of steps, at most 20 rows, each term beside its chance line.
void md_progress_table(const md_progress *p, FILE *to);

// --- stop.c: SIGINT, SIGTERM, SIGUSR1 ask for a stop; a second one of a kind ends at once.
typedef struct md_stop md_stop;
md_stop *md_stop_create(void);
void md_stop_destroy(md_stop *s);     // signals are as before
int md_stop_asked(const md_stop *s);  // the signal, or 0

// --- save.c: all states and what is needed to make sense of them
#define MD_WEIGHTS_FORMAT "modist.weights/1"
bool md_train_save(md_engine *e, const char *path, const char *config, int64_t steps, md_diags *d);

// --- plan.c: --dry-run: the size of what would run
md_status md_train_plan(const md_config *c, const md_step *s, const md_engine_options *o, FILE *to,
                        md_diags *d);

// --- train.c
typedef struct md_train_options {
  md_engine_options engine;
  const char *out_dir;  // weights.safetensors, log.jsonl, config.yaml; NULL: run.dir
  int64_t max_steps;    // 0: no limit
  bool dry_run, quiet, overwrite;
  const char *trace;  // Chrome trace of the run; NULL: none
} md_train_options;
// MD_STOPPED: a signal came, everything is saved.
md_status md_train(const md_config *c, const md_train_options *o, md_diags *d);
// The step that the settings describe: the model's, and every given key on top.
bool md_train_step(const md_config *c, md_step *s, md_diags *d);

#endif
