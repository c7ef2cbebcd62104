// SPDX-License-Identifier: Apache-2.0
// A program on the fiber machine.
#ifndef TESTS_SIMT_RUN_H
#define TESTS_SIMT_RUN_H

#include "tests/simt/program.h"
#include "tests/simt/simt.h"

// The module's text with an entry for each kernel: void k3_call(void *const *arg).
char *run_text(const Program *p);
simt_code *run_build(const Program *p);
// One launch on buffers of the checker, by image. False: told.
bool run_launch(const Program *p, const md_cuda_launch *l, const simt_code *code, simt_options o,
                char *const *data, md_text *why);
// All launches in order. *data: by image, owned by the checker until simt_free_buffers. False: told.
bool run_program(const Program *p, const simt_code *code, simt_options o, char ***data,
                 md_text *why);
// Each region of a program_apart by itself, with the interpreter's inputs. Says what fails; the number of failures.
int run_regions(const Program *p, const simt_code *code, simt_options o, const char *name,
                int *passed);

#endif
