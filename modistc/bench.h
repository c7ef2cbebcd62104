// SPDX-License-Identifier: Apache-2.0
// `modistc bench`: a report is a list of lines, a line is something that is measured on one or more
// sides in turn. The map of bench_*.c; statistics and texts of problems have headers of their own.
#ifndef MODISTC_BENCH_H
#define MODISTC_BENCH_H

#include "codegen/cpu/cpu.h"
#include "modistc/bench_spec.h"
#include "modistc/bench_stats.h"
#include "modistc/modistc.h"
#include "runtime/train/train.h"

#define MD_BENCH_SCHEMA "modist.bench/2"
// Two sets of rounds differ where chance alone would set them so far apart in fewer cases.
#define MD_BENCH_ALPHA 0.01
#define MD_BENCH_CONFIDENCE 0.95

typedef enum md_bench_format { MD_BENCH_TABLE, MD_BENCH_JSON, MD_BENCH_CSV } md_bench_format;

// A kernel of the fused program: its fastest call beside what its costs predict.
typedef struct md_bench_kernel {
  const md_cpu_kernel_report *report;
  double measured_ms, predicted_ms;
} md_bench_kernel;

typedef struct md_bench {
  md_cli *cli;
  const md_cpu *cpu;
  int64_t rounds;            // counted ones; 0: at least 5, and for min_ms
  int64_t warmup;            // -1: until the times are steady
  int64_t threads;           // 0: all cores
  md_engine_options on;      // backend and device of what is measured
  const char *device_title;  // "cuda:0, NVIDIA H200 (sm_90)"; NULL: the CPU
  double min_ms;
  md_dtype precision;    // of activations
  int64_t memory_limit;  // bytes; 0: none
  bool unfused, interp, torch, cudnn;
  bool predict;          // put predicted times beside measured ones
  const char *roofline;  // where a picture of all kernels is saved; NULL: nowhere
  bool wants_roof;       // measure it before the first line
  md_cpu_roof roof;      // zero: not measured
  bool has_begun;
  md_bench_kernel *dot;  // of the picture
  int num_dots, cap_dots;
  md_bench_format format;
  FILE *out;  // table and CSV, as they grow
  md_json report;
} md_bench;

// One of those that take turns. "fused" is what users get and what the others are compared with.
typedef struct md_bench_side {
  const char *name, *version;  // version: of what is not ours, else NULL
  const char *note;            // what it did; NULL: everything
  md_samples samples;
  const char *unmeasured;  // why there are no samples; NULL: there are
} md_bench_side;

enum { MD_BENCH_SIDES = 4 };
typedef struct md_bench_line {
  const char *what;   // `bench compare` matches lines by it
  const char *repro;  // a command that measures this line alone
  double gflop;
  double roof_ms;  // the least time that the roof allows; 0: not known
  md_bench_side side[MD_BENCH_SIDES];
  int num_sides;
  md_bench_kernel *kernel;  // --predict, --roofline; those that are timed
  int num_kernels;
} md_bench_line;

// --- bench_report.c: table, JSON, CSV
// What is measured on, roof included; the first call counts. False: reported.
bool md_bench_begin(md_bench *b);
void md_bench_put(md_bench *b, const md_bench_line *l);
void md_bench_end(md_bench *b);
void md_bench_field(FILE *to, const char *text);  // of a CSV; quoted where that is needed

// --- bench_measure.c: taking turns
typedef struct md_bench_job {
  const char *what;
  const char *args;                           // after `modistc bench`: what measures it alone
  md_graph *(*make)(void *ctx, md_diags *d);  // afresh for each side; NULL: reported
  void *ctx;
  const char *only;   // kernels whose name holds it are timed; NULL: the whole step
  const char *torch;  // the same for the peer, in its words; NULL: it has nothing like it
} md_bench_job;
bool md_bench_measure(md_bench *b, const md_bench_job *job);  // false: reported
bool md_bench_is_timed(const md_bench_job *job, const md_launch *l);
int md_bench_threads(const md_bench *b);
// A word as the shell takes it.
void md_bench_word(md_text *to, const char *word);

// --- bench_predict.c: kernels, measured and predicted
bool md_bench_predict(md_bench *b, const md_bench_job *job, md_engine *e,
                      md_bench_line *l);  // false: reported
void md_bench_put_kernels(const md_bench *b, const md_bench_line *l);
void md_bench_put_kernels_json(const md_bench_line *l, md_json *j);
int md_bench_longer(const void *a,
                    const void *b);  // of two md_bench_kernel, for qsort: the longer one first

// --- bench_roofline.c: all kernels in one picture
void md_bench_roofline_add(md_bench *b, const md_bench_line *l);
bool md_bench_roofline_save(md_bench *b, const char *path);  // as SVG; false: reported

// --- bench_torch.c: PyTorch, in a process that takes turns
// `task`: words that its program knows; NULL: none. NULL: `why` says why not; nothing is reported.
typedef struct md_bench_peer md_bench_peer;
md_bench_peer *md_bench_peer_start(const md_bench *b, const char *task, char *why, size_t size);
const char *md_bench_peer_version(const md_bench_peer *p);
bool md_bench_peer_run(md_bench_peer *p, double *ms, char *why, size_t size);
void md_bench_peer_stop(md_bench_peer *p);
// bench_program.c: what the process runs, in pieces that follow one another; ended by NULL.
extern const char *const md_bench_program[];

// --- bench_sweep.c: every combination of the values of all --sweep options
typedef struct md_bench_sweeps {
  md_sweep sweep[8];
  int at[8];
  int num;
} md_bench_sweeps;
bool md_bench_sweeps_read(md_cli *cli, md_bench_sweeps *s);  // at the first combination
bool md_bench_sweeps_next(md_bench_sweeps *s);               // false: that was the last
const char *md_bench_sweeps_value(const md_bench_sweeps *s, int i);

// --- bench_graphs.c: problems become graphs. NULL: reported.
typedef enum md_direction {
  MD_FORWARD,
  MD_DGRAD,  // gradient of the data
  MD_WGRAD,  // gradient of the weights
  MD_BOTH,   // forward and backward in one program
  MD_NUM_DIRECTIONS
} md_direction;
typedef struct md_bench_op {
  md_problem_op problem;
  const char *only;              // as in md_bench_job
  bool goes[MD_NUM_DIRECTIONS];  // directions that it can be measured in
  md_direction preset;           // the one that is meant when none is named
  md_graph *(*make)(const md_problem *p, md_direction way, md_diags *d);
} md_bench_op;
extern const md_bench_op md_bench_ops[];
extern const int md_num_bench_ops;

// --- subjects. False: reported.
bool md_bench_one_op(md_bench *b);   // bench_op.c: --op
bool md_bench_convs(md_bench *b);    // bench_op.c: layers of R3D-50
bool md_bench_fused(md_bench *b);    // bench_op.c: some of them within their block
bool md_bench_infonce(md_bench *b);  // bench_op.c
bool md_bench_motion(md_bench *b);   // bench_op.c: the motion network
bool md_bench_step(md_bench *b);     // bench_step.c
bool md_bench_mini(md_bench *b);     // bench_step.c
bool md_bench_loader(md_bench *b);   // bench_loader.c

// --- bench_compare.c: two reports, line by line
bool md_bench_compare(md_bench *b);  // false: reported, or a line is slower than allowed

#endif
