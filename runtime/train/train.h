// SPDX-License-Identifier: Apache-2.0
// Training: loader -> compiled step -> log -> saved weights. The map of this folder.
#ifndef RUNTIME_TRAIN_TRAIN_H
#define RUNTIME_TRAIN_TRAIN_H

#include "graph/graph.h"
#include "models/models.h"
#include "passes/passes.h"
#include "runtime/exec/exec.h"
#include "runtime/train/config.h"

// --- engine.c: one face for the compiled program and the interpreter -----------------------------

typedef enum md_backend { MD_BACKEND_CPU, MD_BACKEND_INTERP } md_backend;
typedef struct md_engine_options {
  md_backend backend;
  md_pass_options passes;
  const char *cpu;              // cap of the instructions
  bool asan, no_cache, check_nan;
  int threads;
  uint64_t seed;
  int64_t memory_limit;         // bytes; 0: none
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
const md_graph *md_engine_graph(const md_engine *e);          // as compiled
md_exec *md_engine_exec(md_engine *e);                        // NULL with the interpreter

// --- verify.c: taps. Before each launch its inputs are copied; after it the region's nodes run on
// the interpreter and every output is compared. Fusion stays as it is.
typedef struct md_verify_stats { int regions, values; int64_t elements; double worst; char at[128]; } md_verify_stats;
// Steps the engine once under taps. False: reported (E0702 and the first region that disagrees).
bool md_engine_verify_step(md_engine *e, md_verify_stats *stats, md_diags *d);

// --- schedule.c
// Linear warm-up from `warm0` to the cosine's value at `warmup`, then half a cosine; e in epochs,
// fractional (spec §6).
double md_lr_at(double base, double epoch, double epochs, double warmup, double warm0);

// --- train.c
typedef struct md_train_options {
  md_engine_options engine;
  const char *out_dir;          // weights.safetensors, log.jsonl, config.yaml; NULL: from config
  int64_t max_steps;            // 0: no limit
  bool dry_run, quiet;
  const char *trace;            // Chrome trace of the run; NULL: none
} md_train_options;
md_status md_train(const md_config *c, const md_train_options *o, md_diags *d);

#endif
