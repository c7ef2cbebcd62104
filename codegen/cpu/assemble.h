// SPDX-License-Identifier: Apache-2.0
// From regions to a program: shared by compile.c, structure.c and assemble.c only.
#ifndef CODEGEN_CPU_ASSEMBLE_H
#define CODEGEN_CPU_ASSEMBLE_H

#include "codegen/cpu/emit.h"
#include "codegen/places.h"

// A kernel that is compiled once, however many launches use it.
typedef struct md_job {
  const md_region_view *view;
  bool is_snapshot;  // copies the one input (or makes the constant) into memory
  md_digest structure;
  const char *symbol;
  md_arena *arena;  // of the emission; phases live in it
  // Filled by the job:
  md_phase *phase;
  int num_phases;
  int64_t workspace_bytes;
  const char *lowering;
  bool in_f32;
  md_text refusals, ir, assembly;
  md_object object;
  bool hit;
  md_cpu_report report;  // times only
  md_diags *diags;       // NULL: of the job's own, dropped
  bool failed;
} md_job;

// One launch and the job that computes it.
typedef struct md_step {
  const md_region_view *view;
  int job;
  const char *name;
} md_step;

typedef struct md_assembly {
  const md_graph *g;
  const md_cpu *cpu;
  md_arena *arena;
  md_job *job;
  int num_jobs;
  md_step *step;
  int num_steps;
  md_places *places;
} md_assembly;

// --- structure.c: equal digests, equal code
md_digest md_structure_digest(const md_region_view *r, bool is_snapshot, const char *options);

// --- assemble.c
// Regions, jobs and snapshots of the graph.
void md_assembly_plan(md_assembly *s, const char *options);
void md_assembly_program(const md_assembly *s, md_program *p);

#endif
