// SPDX-License-Identifier: Apache-2.0
// The CPU back end: a graph after its passes -> a program that runs here or lies in an artefact.
// This header is the border of the folder and knows no LLVM; emit.h is the map of what is inside.
#ifndef CODEGEN_CPU_CPU_H
#define CODEGEN_CPU_CPU_H

#include "graph/graph.h"
#include "passes/passes.h"
#include "runtime/exec/exec.h"

// --- target.c: facts of CPU targets --------------------------------------------------------------

typedef struct md_cpu md_cpu;
struct md_cpu {
  const char *name;      // "avx2": what --cpu= takes
  const char *isa;       // "x86-64-v3": taken too, and what an artefact asks of a machine
  const char *arch;      // "x86_64": first word of LLVM's triple
  const char *llvm_cpu;  // "x86-64-v3"
  const char *features;  // LLVM's spelling, on top of llvm_cpu
  int lanes;             // f32 elements of a vector register = channel block
  int registers;         // vector registers
  bool fma;
  bool rounding;  // an instruction rounds a float to a whole number
  bool bf16_dot;  // adds products of pairs of bf16 to f32 in one instruction
  int64_t l2_bytes;
  bool winograd;  // convolutions may take Winograd's transforms
  // Nominal, for predictions where the machine itself cannot be asked:
  double core_flops;    // a second, of a core in f32
  double read_bytes;    // a second, from memory, of all cores together
  int64_t cache_bytes;  // the last cache
  const md_cpu *half;   // the same with half the lanes, for tensors of few channels; NULL: too slow
  bool is_half;         // registers are twice as wide
};
// `cap`: "native", "host" or NULL for what this machine has, else the name of a row. NULL: reported
// (E0420 unknown name, E0421 this machine lacks it and the code must run here).
const md_cpu *md_cpu_find(const char *cap, bool must_run_here, md_diags *d);
int md_cpu_count(void);
const md_cpu *md_cpu_at(int i);  // of an architecture: best last
const md_cpu *md_cpu_native(void);
bool md_cpu_runs_here(const md_cpu *cpu);
md_target_facts md_cpu_facts(const md_cpu *cpu);
void md_cpu_llvm_version(char *text, int size);  // "19.1.7"

// --- roof.c: what this machine does at most with the instructions of a target ---------------------

typedef struct md_cpu_roof {
  double f32_flops,
      bf16_flops;     // a second; bf16: dot products of pairs, 0 where there is no such instruction
  double read_bytes;  // a second, from memory
} md_cpu_roof;
// The best of some runs on so many threads (0: one for each core), in a second or so. False: reported.
bool md_cpu_measure_roof(const md_cpu *cpu, int threads, md_cpu_roof *roof, md_diags *d);

// --- compile.c -----------------------------------------------------------------------------------

typedef struct md_cpu_options {
  const char *cpu;       // cap; NULL: native
  bool asan;             // instrument the generated code (E0424 where it could not run)
  bool no_cache;         // neither read nor write the object cache
  int threads;           // that compile; 0: one for each core
  bool want_image;       // link p->image for an artefact (ld.lld)
  bool no_code;          // compile only: the machine need not have the target's instructions
  bool plan_only;        // sizes and costs: the program has no code and cannot run
  bool want_graph_text;  // keep the graph's text in the program
  md_text *llvm_ir;      // gets the IR of all kernels, as emitted; NULL: not wanted
  md_text *assembly;     // gets the assembly of all kernels; NULL: not wanted
} md_cpu_options;        // zero is the default

// What a kernel has to do.
typedef struct md_cpu_work {
  double flops;
  double memory_bytes, cache_bytes;  // of operands and results, each once, by where they are
  int nodes;
  bool is_bf16;  // it multiplies pairs of bf16
} md_cpu_work;

typedef struct md_cpu_kernel_report {
  const char *region;    // name
  const char *lowering;  // row that took it: "conv3d direct", "stream", "plain loops"
  const char *why_not;   // refusals of the rows before it that name its anchor; may be empty
  int phases;
  int64_t items;    // of its largest phase
  int shared_with;  // index of an identical launch compiled before, or -1
  md_cpu_work work;
} md_cpu_kernel_report;
typedef struct md_cpu_report {
  double emit_ms, optimise_ms, codegen_ms, link_ms;
  int launches, distinct, cache_hits;
  int64_t object_bytes;
  md_cpu_kernel_report *kernel;
  int num_kernels;  // in `arena`
  md_arena *arena;  // set by the caller; may be NULL: then no kernel rows
} md_cpu_report;

// `g` must have been through the passes (regions, memory plan). NULL: reported. The program owns
// its code. `report` may be NULL.
md_program *md_cpu_compile(const md_graph *g, const md_cpu_options *o, md_cpu_report *report,
                           md_diags *d);
// Programs for `cpu` need no more than so many bytes (0: no limit) on so many threads (0: one for each
// core). For md_pass_options.
md_memory_limit md_cpu_memory(const md_cpu *cpu, int64_t bytes, int threads);

// --- cost.c: how long a kernel should take -------------------------------------------------------
// Rates of so many cores by the target's facts, for machines other than this one.
md_cpu_roof md_cpu_nominal_roof(const md_cpu *cpu, int threads);
// Seconds of one call on `threads` threads, of which `roof` tells the rates.
double md_cpu_predict(const md_cpu_kernel_report *k, const md_cpu_roof *roof, int threads);

#endif
