// SPDX-License-Identifier: Apache-2.0
// Training: loader -> compiled step -> log -> saved weights. The map of this folder.
#ifndef RUNTIME_TRAIN_TRAIN_H
#define RUNTIME_TRAIN_TRAIN_H

#include "graph/graph.h"
#include "models/models.h"
#include "passes/passes.h"
#include "runtime/exec/exec.h"
#include "runtime/train/config.h"
#include "runtime/video/motion.h"

// --- engine.c: one face for the compiled program and the interpreter -----------------------------

typedef enum md_backend { MD_BACKEND_CPU, MD_BACKEND_INTERP, MD_BACKEND_CUDA } md_backend;
typedef struct md_engine_options {
  md_backend backend;
  const char *device;  // "cuda:1"; NULL: the CPU, or the first GPU
  bool time;           // keep times of launches; on the CPU they are kept anyway
  md_pass_options passes;
  const char *cpu;  // cap of the instructions
  bool asan, no_cache, check_nan;
  bool verifies;  // md_engine_verify_step sees every region
  md_conv_engine engine;
  bool
      deterministic;  // nothing that was measured has a say: no records of tuning; see md_exec_options
  int threads;
  uint64_t seed;
  int64_t memory_limit;  // bytes; 0: none
} md_engine_options;
typedef struct md_engine md_engine;
// Takes g. Compiles it (or makes an interpreter); for a GPU by NVRTC, for the one that is there. NULL:
// reported.
md_engine *md_engine_create(md_graph *g, const md_engine_options *o, md_diags *d);
// The same for an artefact (.mdx); `passes` and `cpu` are the artefact's own business.
md_engine *md_engine_load(const char *path, const md_engine_options *o, md_diags *d);
void md_engine_destroy(md_engine *e);
// Memory of an input or state in its own dtype, row-major. NULL: there is none of this name, or
// md_engine_is_alive tells why it cannot be read. With the interpreter these are copies that the step
// reads and writes back. On a GPU see md_exec_state: asking for a state copies it, and what may have been
// written goes back; one that is only looked at does not.
void *md_engine_input(md_engine *e, const char *name, md_type *type);
void *md_engine_state(md_engine *e, const char *name, md_type *type);
const void *md_engine_view_state(md_engine *e, const char *name, md_type *type);
int md_engine_num_states(const md_engine *e);
const char *md_engine_state_name(const md_engine *e, int i);
// Copies a float result (any float dtype) to out[n]; false: no such result.
bool md_engine_result(md_engine *e, const char *name, double *out, int64_t n);
bool md_engine_step(md_engine *e, md_diags *d);
// See md_exec_start, md_exec_finish, md_exec_send and md_exec_is_alive.
bool md_engine_start(md_engine *e, md_diags *d);
bool md_engine_finish(md_engine *e, md_diags *d);
bool md_engine_is_busy(const md_engine *e);  // between them
bool md_engine_send(md_engine *e, md_diags *d);
bool md_engine_is_alive(md_engine *e, md_diags *d);
// Warns of many more threads than cores that the process may use.
void md_engine_warn_of_threads(int threads, md_diags *d);
bool md_engine_is_gpu(const md_engine *e);  // works beside the caller between start and finish
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
typedef struct md_feed_options {
  int64_t first;       // number of the first sample
  int gpu;             // which one decodes, if data.decode asks one
  bool deterministic;  // see md_loader_options
} md_feed_options;
// What the loader draws for this step; it borrows `data`. NULL: reported.
md_loader *md_train_loader(const md_config *c, const md_step *s, const md_dataset *data,
                           const md_feed_options *from, md_diags *d);
// Fills every input of the step. `at` counts steps from 0. False: reported (a label out of range).
bool md_train_feed(md_engine *e, const md_step *s, const md_batch *b, int64_t at, uint64_t seed,
                   double lr, md_diags *d);
// --- bank.c: whose videos lie in the bank
// A copy that is pushed to as the step does: reading the state after each step would have a GPU wait.
typedef struct md_bank_ids {
  int32_t *id;  // NULL: the step has no bank
  int64_t rows, next;
} md_bank_ids;
// From the engine's states. False: reported.
bool md_bank_ids_read(md_bank_ids *b, md_engine *e, md_diags *d);
void md_bank_ids_push(md_bank_ids *b, const int32_t *ids, int64_t batch);
void md_bank_ids_free(md_bank_ids *b);
// Loss of guessing among the positive and the negatives that are counted for row i of the batch,
// ln(1 + counted), mean over the batch. A bank row counts unless it is empty (-2) or of video i;
// *masked: rows that do not, mean over the batch.
double md_chance(const int32_t *bank_ids, int64_t rows, const int32_t *ids, int64_t batch,
                 double *masked);

// --- maps.c: where motion clips come from
// What the settings alone tell: optical flow and its edges need maps. False: reported.
bool md_train_check_maps(const md_config *c, const md_step *s, md_diags *d);
// The first map of the set that can be used, which speaks for the others. False: reported, not one.
bool md_maps_about(const char *folder, const md_dataset *data, md_map_info *about, md_diags *d);
// How the maps of the run were made (md_map_words), malloc'ed; "" where it needs none. NULL: reported, as
// when not all were made alike, or two videos share one.
char *md_train_maps_name(const md_config *c, const md_step *s, const md_dataset *data, md_diags *d);
// The rule for the loader. False: reported; no video of the set has a map of the kind asked for.
bool md_train_maps(const md_config *c, const md_dataset *data, md_motion_rule *r, md_diags *d);

// --- measure.c: what one step says
enum { MD_NUM_TERMS = 4, MD_NUM_SIDES = 2 };
extern const char *const md_term_names[MD_NUM_TERMS];  // v m vm mv
extern const char *const md_side_names[MD_NUM_SIDES];  // v m
typedef struct md_measure {
  int64_t step;  // 1: the first
  double epoch, lr, loss;
  bool has_chance, has_term[MD_NUM_TERMS], has_side[MD_NUM_SIDES], has_top1;
  double chance;  // of every term: the banks share their ids
  double masked;  // bank rows that do not count, mean over the batch
  double term[MD_NUM_TERMS], top1[MD_NUM_TERMS];
  double std[MD_NUM_SIDES];  // of the embeddings; near 0 is collapse
  double supervised_top1;
  bool is_collapsed[MD_NUM_SIDES];  // see alarm.c
  int64_t wait_ns, step_ns;         // for data; of the compiled step
} md_measure;
void md_measure_read(md_engine *e, md_measure *m);
bool md_measure_is_finite(const md_measure *m, const char **which);  // else names a result

// --- log.c: run.dir/log.jsonl, one object a step. A failure warns once and stops nothing.
typedef struct md_train_log md_train_log;
// Goes on behind step `done`: later lines, of steps that will be done again, are cut off. 0: anew.
md_train_log *md_train_log_open(const char *path, int64_t done, md_diags *d);
void md_train_log_step(md_train_log *l, const md_measure *m, md_diags *d);
void md_train_log_sync(md_train_log *l);  // what was logged is on the disk
void md_train_log_close(md_train_log *l, md_diags *d);

// --- quarantine.c: run.dir/quarantine.txt. *known: how many it holds; start with 0. A failure warns.
void md_train_quarantine(md_loader *l, const char *path, int *known, md_diags *d);
// --- tensorboard.c: the same as an event file of TensorBoard. A failure warns once, stops nothing.
#define MD_EVENTS_PREFIX "events.out.tfevents."
#define MD_EVENTS_SUFFIX ".modist"
typedef struct md_tensorboard md_tensorboard;
md_tensorboard *md_tensorboard_open(const char *dir, int64_t done, md_diags *d);
void md_tensorboard_step(md_tensorboard *t, const md_measure *m, md_diags *d);
void md_tensorboard_close(md_tensorboard *t);

// --- alarm.c: warns once when the embeddings of a side collapse, and once when that is over
typedef struct md_alarm {
  int64_t batch, dim[MD_NUM_SIDES];  // of an embedding
  bool is_on[MD_NUM_SIDES];
} md_alarm;
void md_alarm_check(md_alarm *a, md_measure *m, md_diags *d);

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
void md_duration_text(double seconds, char *to, size_t size);  // "00:06:29", "3d 04h"
// Means over equal spans of steps, at most 20 rows, each term beside its chance line.
void md_progress_table(const md_progress *p, FILE *to);

// --- stop.c: SIGINT, SIGTERM, SIGHUP, SIGUSR1 ask for a stop; a second one of a kind ends at once. One that
// is ignored stays so.
typedef struct md_stop md_stop;
md_stop *md_stop_create(void);
void md_stop_destroy(md_stop *s);     // signals are as before
int md_stop_asked(const md_stop *s);  // the signal, or 0

// --- checkpoint.c: all states and what is needed to make sense of them (spec §6), sealed by a
// checksum over the whole file
#define MD_CHECKPOINT_FORMAT "modist.checkpoint/1"
typedef struct md_checkpoint md_checkpoint;
// Reads and checks the whole file: structure, checksum, format. NULL: reported.
md_checkpoint *md_checkpoint_open(const char *path, md_diags *d);
void md_checkpoint_close(md_checkpoint *c);
const char *md_checkpoint_path(const md_checkpoint *c);
int64_t md_checkpoint_step(const md_checkpoint *c);        // steps that are done
const char *md_checkpoint_config(const md_checkpoint *c);  // resolved settings, YAML
// What the data set and the compiled step are named by; "": it does not say.
const char *md_checkpoint_videos(const md_checkpoint *c);
const char *md_checkpoint_maps(const md_checkpoint *c);  // of older versions: ""
const char *md_checkpoint_code(const md_checkpoint *c);
// Copies tensors into the engine's states. prefix NULL: all states, which must be exactly those of the
// file; "v.": the engine's states of this prefix, and at least one. Names, shapes and types must
// agree. False: reported, and no state was touched.
bool md_checkpoint_restore(const md_checkpoint *c, md_engine *e, const char *prefix, md_diags *d);
typedef struct md_checkpoint_info {
  int64_t step;
  const char *config, *videos, *code, *maps;  // the last three may be NULL
} md_checkpoint_info;
// Under its name only when complete and on the disk; an older file of the name stays until then.
bool md_checkpoint_save(md_engine *e, const char *path, const md_checkpoint_info *info,
                        md_diags *d);

// --- folder.c: the folder of a run. Texts are malloc'ed.
typedef struct md_run_folder md_run_folder;
char *md_run_weights_path(const char *dir);
char *md_run_checkpoint_path(const char *dir, int64_t step);
// Steps that checkpoints/ holds a file of, ascending; malloc'ed, NULL for none. False: reported.
bool md_run_checkpoints(const char *dir, int64_t **steps, int *num, md_diags *d);
// A folder that holds a run is not written to by another one, which may begin from a checkpoint. False: reported.
bool md_run_protect(const char *dir, bool has_checkpoint, md_diags *d);
bool md_run_contains(const char *dir, const char *file);
// Makes the folders, keeps other processes out, and removes half-written files of a killed one.
// is_new: weights and checkpoints of an earlier run go as well. NULL: reported.
md_run_folder *md_run_folder_open(const char *dir, bool is_new, md_diags *d);
void md_run_folder_close(md_run_folder *f);
// Of the checkpoints up to `step` the newest `keep` stay.
void md_run_keep_newest(const char *dir, int64_t step, int64_t keep);

// --- resume.c: which checkpoint a run goes on from, and with which settings
// The newest one of the folder that is whole; each damaged one costs a warning. NULL: reported.
md_checkpoint *md_resume_find(const char *dir, md_diags *d);
// Its settings, with those of `given` that may change: where the videos and the folder are, how many
// threads, how often to log and to save; `epochs` where the rate is constant. NULL: reported.
md_config *md_resume_config(const md_checkpoint *c, const md_config *given, md_diags *d);
// Names a list of videos: their number, and a digest of file names and labels in order. malloc'ed.
char *md_videos_name(const md_dataset *data);
// The order of the data depends on the list, so it must be the one of the checkpoint.
bool md_resume_check_videos(const md_checkpoint *c, const char *now, const char *path, md_diags *d);
bool md_resume_check_maps(const md_checkpoint *c, const char *now, const char *folder, md_diags *d);

// --- train.c
typedef struct md_train_options {
  md_engine_options engine;
  const char *out_dir;  // in place of run.dir; NULL: run.dir
  int64_t max_steps;    // of the whole run; 0: no limit
  bool dry_run, quiet, overwrite;
  bool resume;              // go on from the newest checkpoint of the folder,
  const char *resume_from;  // or from this one; NULL: the newest
  const char *trace;        // Chrome trace of the run; NULL: none
  // Of a dry run: a GPU that need not be here, "cuda:h200"; and its facts, if no known device has them.
  const char *target;
  const struct md_cuda_spec *spec;
} md_train_options;
// MD_STOPPED: a signal came, everything is saved.
md_status md_train(const md_config *c, const md_train_options *o, md_diags *d);
// How many steps a run over so many videos has.
int64_t md_train_steps(const md_config *c, const md_train_options *o, int64_t videos,
                       int64_t batch);
// The step that the settings describe: the model's, and every given key on top.
bool md_train_step(const md_config *c, md_step *s, md_diags *d);

#endif
