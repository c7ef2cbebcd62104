// SPDX-License-Identifier: Apache-2.0
// Inside the tuner: processes that measure and what outlives them (tune.c), the steps of such a process
// (tune_steps.c), which launches a step has (tune_order.c), whether a way is right (tune_compare.c), which one is
// the best (tune_result.c).
#ifndef RUNTIME_EXEC_TUNE_H
#define RUNTIME_EXEC_TUNE_H

#include "runtime/exec/exec.h"

enum {
  MD_TUNE_STEP = -3,     // what runs is a whole step: which way fails is not known
  MD_TUNE_NONE = -2,     // of an entry: nobody asks about it
  MD_TUNE_OWN = -1,      // the product is made its own way
  MD_TUNE_WHY = 400,     // bytes of a reason
  MD_TUNE_FAILURES = 3,  // of the step itself: then it is of no use to go on
  MD_TUNE_BESIDE = 3,    // rounds of cold and warm times
};

// What the L2 cache holds when a way begins. The first decides; the others tell why it takes what it takes.
typedef enum md_tune_l2 {
  MD_TUNE_STEPS,  // what the step has left there
  MD_TUNE_COLD,   // nothing of the program
  MD_TUNE_WARM,   // what the same launches have left there
  MD_TUNE_L2S
} md_tune_l2;

// A product: its trials are neighbours. Shared.
typedef struct md_tune_site {
  int replaced, num_replaced, first, num;  // first: trial
  char key[33];
  // Nothing is tried: what it writes lies over what it reads, so that it cannot be made twice in a step; or cuDNN
  // has no plan for it, or a site before is the same.
  bool is_fixed;
  bool is_compared;
  int num_tried;   // trials from the first on that were compared with the own way, or have failed
  int64_t own_ns;  // of its own way, launch by launch
  double *own;     // us, as md_tune_us has them
} md_tune_site;

// A launch of a step, what it belongs to, and whether it ends that.
typedef struct md_tune_entry {
  int launch, site, trial;
  bool is_last;
  bool counts;  // the site's time is to be known
} md_tune_entry;

// What outlives a process that measures. Shared.
typedef struct md_tune_kept {
  _Atomic int trial;          // that runs, or MD_TUNE_OWN, MD_TUNE_STEP
  _Atomic int64_t until_ns;   // it is late then
  int64_t since_ns, step_ns;  // when it began; what a step of own ways takes
  bool is_checked, is_over;   // all ways were compared; everything is measured
  _Atomic int signal;         // that asks to stop
  int step;                   // of the rounds, that comes next
  bool has_begun_beside;      // cold and warm times
  int num_beside;             // rounds of them that are whole
  int doubt;              // > 0: a step with way number doubt - 1 was begun, and has not ended well
  int failures;           // of the step itself
  char why[MD_TUNE_WHY];  // the last one
  md_clocks clocks;
} md_tune_kept;

typedef struct md_tune_piece {
  md_arg arg;
  double *value;  // made the own way
  int64_t num;
  double largest;  // of the finite ones
} md_tune_piece;

typedef struct md_tuner {
  const md_program *p;
  const md_tune_options *o;
  md_exec *e;            // of the process that measures
  struct md_nvml *nvml;  // there, too; NULL: nobody looks at clocks
  int index;             // of the device
  const md_gpu_variant *v;
  const md_gpu_trial *trial;  // the variant's, or cuDNN's plans
  int num_trials;
  int cudnn;          // its version; 0: the trials are ways to make kernels
  char by_cudnn[32];  // its name, a way
  md_records *to;
  md_gpu_device device;
  int64_t start_ns, shared_bytes;
  md_tune_kept *kept;           // the begin of what is shared
  md_tune_site *site;           // shared
  int num_sites, most;          // most: ways of a site
  double *us;                   // shared; by trial, as md_tune_us has them
  char (*failed)[MD_TUNE_WHY];  // shared; by trial: why, or empty
  double *sum;                  // by site: us of the last step
  int num_rounds;               // that are whole
  md_tune_entry *entry;         // of the step to be done
  int *order, num_entries, cap_entries, cap_order;
  int at;          // entry that runs
  md_diags *said;  // of the step that runs
  md_tune_piece *piece;
  int num_pieces, cap_pieces;
} md_tuner;

// Cleared, malloc'ed.
void *md_tune_rows(int64_t num, size_t size);

// By round: of a trial, or of the site's own way where that is MD_TUNE_OWN.
double *md_tune_us(const md_tuner *t, const md_tune_site *s, int trial, md_tune_l2 l2);
int md_tune_rounds(const md_tuner *t, md_tune_l2 l2);  // that are whole
bool md_tune_is_late(const md_tuner *t);               // the budget is used up, or a signal came

// --- tune_steps.c
// In a process of its own: measures until all is done or something fails, which is kept. The status of what was
// printed: nothing can be measured.
md_status md_tune_work(void *tuner);
// What runs has failed: that way is left out, or the step itself has failed once more.
void md_tune_blame(md_tuner *t, const char *why);
// The trial runs from now on, or MD_TUNE_OWN or MD_TUNE_STEP. usual_ns: what its own way takes; < 0: not known.
void md_tune_begin(md_tuner *t, int trial, int64_t usual_ns);

// --- tune_order.c
void md_tune_find_sites(md_tuner *t);
// The convolutions of the variant by cuDNN as trials: each is the launch behind the program's of its number.
md_gpu_trial *md_tune_engine_trials(md_tuner *t, int *num);
const md_conv_group *md_tune_conv(const md_tuner *t, const md_tune_site *s);  // NULL: no engine's
// The site's trials are not run, or this one is not.
bool md_tune_is_out(const md_tuner *t, const md_tune_site *s, int trial);
// Every product is made its own way, then all others that were not compared yet; at last its own again, for what
// follows.
void md_tune_order_all(md_tuner *t);
// Every product, or one alone, is made its way number `way`, where it has one; others are made their own way,
// which is number 0.
void md_tune_order_way(md_tuner *t, int way, const md_tune_site *alone);
// The same, but where the way is there it finds the L2 cache cold, or warm.
void md_tune_order_beside(md_tuner *t, int way, md_tune_l2 l2);

// --- tune_compare.c
// A tap: in a step of all ways: results are spoilt before each way but the own one, and compared after it.
bool md_tune_watch(void *ctx, md_exec *e, int launch, bool before);
void md_tune_forget(md_tuner *t);  // what was kept to compare with

// --- clocks.c
// In a process that measures: NULL where nobody can look, and *c says why, or the highest clocks.
struct md_nvml *md_clocks_watch(md_clocks *c, int index);
void md_clocks_look(md_clocks *c,
                    const struct md_nvml *n);  // while the device works; n may be NULL
void md_clocks_tell(const md_clocks *c, const char *device,
                    md_diags *d);  // that it held itself back

// --- tune_result.c
void md_tune_put_records(md_tuner *t);
bool md_tune_nothing(const md_program *p, const char *where, md_diags *d);  // E0448; false

// --- tune_result.c: what is better than what, here and in cuda_fastest.c
double md_median(const double *x, int num);  // of those that are no NaN; NaN: there is none
double md_least_gain(double own_us);         // us; less is chance

#endif
