// SPDX-License-Identifier: Apache-2.0
// A program on the fiber machine.
#ifndef TESTS_SIMT_RUN_H
#define TESTS_SIMT_RUN_H

#include "tests/simt/program.h"
#include "tests/simt/simt.h"

// The module's text with an entry for each kernel: void k3_call(void *const *arg).
char *run_text(const Program *p);
// Makes code of the kernels, each as a text of its own, of one program or of several by one call of the
// compiler. False: it has said why.
bool run_build(const Program *p);
bool run_build_all(Program *const *p, int num);
// An equal program came by before: the same graph after its passes, inputs, kernels and launches, and so
// the same expected values. To run it again would show nothing else.
bool run_is_known(const Program *p);
void run_print(const Program *p);  // those texts
// One launch on buffers of the checker, by image. code: of run_text; NULL: of run_build. False: told.
bool run_launch(const Program *p, const md_cuda_launch *l, const simt_code *code, simt_options o,
                char *const *data, md_text *why);
// All launches in order. *data: by image, owned by the checker until simt_free_buffers. False: told.
bool run_program(const Program *p, const simt_code *code, simt_options o, char ***data,
                 md_text *why);
// What came of regions. The order of threads and blocks is to decide no bit of what they write.
typedef struct Regions {
  int passed, failed;
  md_digest bits;
} Regions;
// Each region of a program_apart by itself, with the interpreter's inputs. Says what fails.
Regions run_regions(const Program *p, const simt_code *code, simt_options o, const char *name);
// Regions whose sums are made in parts, which another launch adds up.
int run_sums_in_parts(const Program *p);

#endif
