// SPDX-License-Identifier: Apache-2.0
// --dry-run: how large a run would be, how long it would take, and what bounds it. Nothing is written.
#ifndef RUNTIME_TRAIN_PLAN_H
#define RUNTIME_TRAIN_PLAN_H

#include "codegen/cuda/cuda.h"
#include "runtime/train/train.h"

// --- plan.c
md_status md_train_plan(const md_config *c, const md_step *s, const md_train_options *o, FILE *to,
                        md_diags *d);

// --- estimate.c: how long. Each shows what it finds, and returns false where that is nothing.
typedef enum md_bound {
  MD_BOUND_ARITHMETIC,
  MD_BOUND_MEMORY,
  MD_BOUND_LAUNCHES,
  MD_BOUND_DECODING,
  MD_BOUND_CORES
} md_bound;
typedef struct md_estimate {
  int cores, threads;  // of this machine; that compute the step, 0: a GPU does
  bool is_bf16;        // activations
  double flops_per_s, bytes_per_s;
  double arithmetic_s, memory_s;  // least time of the step's regions that are bound by either
  double launch_s;                // of a GPU's launches that are too small for both
  double step_s;                  // of the compiled step
  double decode_s;                // of one worker, for the videos of a step
} md_estimate;
// The step on this machine: g is what the passes made. Measures for some seconds.
bool md_estimate_here(md_estimate *e, const md_config *c, const md_step *s,
                      const md_engine_options *o, const md_graph *g, FILE *to);
// Decoding, which is done on this machine: measured.
bool md_estimate_decoding(md_estimate *e, const md_config *c, const md_step *s,
                          const md_dataset *data, FILE *to);
// So many steps, what bounds them, and what would make it shorter.
void md_estimate_run(const md_estimate *e, int workers, double steps, FILE *to);
// Seconds from one step to the next with this many loader workers, and what they are spent on.
double md_step_wall(const md_estimate *e, int workers, md_bound *bound);

// --- plan_device.c: a GPU that is here, or is only described
typedef struct md_plan_device {
  char target[32];           // "cuda:sm_90a"
  char title[200];           // "NVIDIA H200 SXM"
  const md_cuda_spec *spec;  // for predictions; NULL: no device of the target is described
  int64_t bytes;             // of its memory; 0: it is not known
  md_cuda_options program;
  md_cuda_forecast forecast;
} md_plan_device;
// False: reported.
bool md_plan_device_find(md_plan_device *v, const md_train_options *o, md_diags *d);
// The program without its code, and the forecast. NULL: reported.
md_program *md_plan_device_program(md_plan_device *v, const md_graph *g, md_diags *d);
bool md_plan_device_estimate(const md_plan_device *v, const md_program *p, md_estimate *e,
                             FILE *to);

#endif
