// SPDX-License-Identifier: Apache-2.0
// Inside the tuner: trials on a device (tune.c), which launches a step has (tune_order.c), whether a way is right
// (tune_compare.c), which one is the best (tune_result.c).
#ifndef RUNTIME_EXEC_TUNE_H
#define RUNTIME_EXEC_TUNE_H

#include "runtime/exec/exec.h"

enum {
  MD_TUNE_NONE = -2,  // of an entry: nothing ends with it
  MD_TUNE_OWN = -1,   // the product is there, made its own way
};

// A product: its trials are neighbours.
typedef struct md_tune_site {
  int replaced, num_replaced, first, num;  // first: trial of the program
  bool is_over_input;  // what it writes lies over what it reads: it cannot be made twice in a step
  bool is_compared;
  double *own;  // us, by round
} md_tune_site;

// A launch of a step, and what it ends.
typedef struct md_tune_entry {
  int launch, site, trial;
} md_tune_entry;

typedef struct md_tune_piece {
  md_arg arg;
  double *value;  // made the own way
  int64_t num;
  double largest;  // of the finite ones
} md_tune_piece;

typedef struct md_tuner {
  const md_program *p;
  const md_tune_options *o;
  md_exec *e;
  const md_gpu_variant *v;
  md_records *to;
  md_gpu_device device;
  md_tune_site *site;
  int num_sites, most;   // most: ways of a site
  const char **failed;   // by trial of the program; in the records' arena
  double **us;           // by trial: us, by round
  int64_t *total;        // by launch: ns, of all steps so far
  int num_rounds;        // that are whole
  md_tune_entry *entry;  // of the step to be done
  int *order, num_entries, cap_entries, cap_order;
  int at;  // entry that runs
  md_tune_piece *piece;
  int num_pieces, cap_pieces;
} md_tuner;

// Cleared, malloc'ed.
void *md_tune_rows(int64_t num, size_t size);

// --- tune_order.c
void md_tune_find_sites(md_tuner *t);
// The site's trials are not run, or this one is not.
bool md_tune_is_out(const md_tuner *t, const md_tune_site *s, int trial);
// Every product is made every way; at last its own again, for what follows.
void md_tune_order_all(md_tuner *t);
// Every product is made its way number `way`, 0 being its own, where it has one.
void md_tune_order_way(md_tuner *t, int way);
// The trial that the entry at hand belongs to; < 0: it is the step's own.
int md_tune_trial(const md_tuner *t);

// --- tune_compare.c: taps
// In a step of all ways: results are spoilt before each way but the own one, and compared after it.
bool md_tune_watch(void *ctx, md_exec *e, int launch, bool before);
// In a step in which something fails: it is known what.
bool md_tune_count(void *ctx, md_exec *e, int launch, bool before);
void md_tune_forget(md_tuner *t);  // what was kept to compare with

// --- tune_result.c
void md_tune_put_records(md_tuner *t);
bool md_tune_nothing(const md_program *p, const char *where, md_diags *d);  // E0448; false

#endif
