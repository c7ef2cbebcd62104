// SPDX-License-Identifier: Apache-2.0
// Compiled graphs against the interpreter, on every target that runs here; one thread and two give the
// same bits. With MODIST_TEST_RT and MODIST_TEST_CPU set, on another machine: see elsewhere.c.
#ifndef TESTS_UNIT_AGAINST_INTERPRETER_H
#define TESTS_UNIT_AGAINST_INTERPRETER_H

#include "codegen/cpu/cpu.h"

#include <check.h>
#include <math.h>
#include <string.h>

typedef struct Setup {
  int level;           // of the pipeline
  const char *passes;  // instead of it
  const char *cpu;
  int steps;
  int64_t
      length;  // of the longest sum; 0: every sum is exact, and so must the result be (without filtering)
  bool from_rules;  // states begin by their rules, not with values of the test
} Setup;

md_graph *parse(const char *text);
// NULL options: to run here.
md_program *compiled(const char *text, const Setup *s, const md_cpu_options *options);
md_exec *executor(const md_program *p, int threads);

// Compiles, runs with one thread and with two, compares results and states after each step.
void check_text(const char *text, const Setup *s);
// `s` on every target that runs here, whatever its cpu.
void check_targets(const char *text, const Setup *s);
// On every target that runs here; the best one also at every level.
void check_everywhere(const char *text, int64_t length, int steps);

// What elsewhere.c shares with against_interpreter.c.
void fill(md_tensor *t, const char *name, int seed);
void compare(const char *what, const md_tensor *want, const void *memory, const Setup *s,
             const char *text);
bool is_elsewhere(void);
// The processor's name for s: where all is exact, convolutions are direct.
typedef struct CpuName {
  char s[48];
} CpuName;
CpuName cpu_name(const Setup *s, const char *cpu);
void check_elsewhere(const char *text, const Setup *s);

#endif
