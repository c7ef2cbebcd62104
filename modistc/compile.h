// SPDX-License-Identifier: Apache-2.0
// What `modistc compile` was asked for, shared by its parts: cmd_compile.c reads the command line,
// compile_batch.c settles the batch, compile_cpu.c and compile_cuda.c make programs and reports.
#ifndef MODISTC_COMPILE_H
#define MODISTC_COMPILE_H

#include "codegen/cuda/cuda.h"
#include "modistc/modistc.h"

typedef enum md_emit_what {
  EMIT_ARTEFACT,
  EMIT_GRAPH,
  EMIT_FUSED,
  EMIT_DOT,
  EMIT_LLVM,
  EMIT_ASM,
  EMIT_CUDA,
  EMIT_PTX,
  EMIT_CUBIN,
  EMIT_REPORT
} md_emit_what;
typedef struct md_compile_job {
  md_cli *cli;
  md_emit_what emit;
  const char *output, *target;
  const char *cpu;  // of a CPU target; NULL: this machine's
  bool cuda;
  int64_t threads;       // that compile; 0: one for each core
  int64_t memory_limit;  // bytes; 0: none
  md_cuda_options gpu;   // of CUDA targets
  md_records *records;   // of tuning; NULL: they are not asked
  bool requires_records;
  const char *batch_text;  // what batch=max found; NULL: nothing was asked
  md_pass_options passes;
  md_pass_report report;
  const md_cuda_spec *spec;  // of --target-spec; NULL: none
  char *report_text;         // of --emit=report
  size_t report_bytes;
} md_compile_job;

bool md_compile_to_stdout(const md_compile_job *j);
bool md_compile_write(const md_compile_job *j, const char *text, size_t len);
bool md_compile_write_artefact(const md_compile_job *j, const md_program *p, int64_t start);
// Does --report (or --emit=report alone) ask for this part?
bool md_compile_wants(const md_compile_job *j, const char *part);
// Where reports go: a memory stream for --emit=report, else stderr. The second writes it out.
FILE *md_compile_report_open(md_compile_job *j);
bool md_compile_report_close(md_compile_job *j, FILE *to);
// Reports that are about the graph, not the target.
void md_report_fusion(const md_pass_report *r, FILE *to);
void md_report_again(const md_compile_job *j, const md_program *p, FILE *to);
void md_report_summary(const md_compile_job *j, int declared, const md_graph *g,
                       const md_program *p, FILE *to);

// --- compile_batch.c: `batch=max` becomes a number. False: reported.
bool md_compile_batch(md_compile_job *j);

// --- compile_cpu.c, compile_cuda.c
bool md_compile_cpu(md_compile_job *j, const md_graph *g, int declared);
bool md_compile_cuda_spec(md_compile_job *j);  // reads --target-spec; false: reported
bool md_compile_cuda(md_compile_job *j, const md_graph *g, int declared);
// What a program for `target` is to say of how long its launches should take; `spec` NULL: on the device
// that the target names, or the best one for it.
void md_compile_predict(const char *target, const md_cuda_spec *spec, md_program *p,
                        const md_cuda_report *r);

#endif
