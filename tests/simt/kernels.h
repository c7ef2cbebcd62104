// SPDX-License-Identifier: Apache-2.0
// Kernel texts written by hand (kernels/*.cu), for both preludes. A line above a kernel says how it is
// run and what must be seen of it:
//   //! blocks=2 y=70: writes 4 bytes of y at +280
#ifndef TESTS_SIMT_KERNELS_H
#define TESTS_SIMT_KERNELS_H

#include <stdbool.h>

#include "base/base.h"

enum { MAX_KERNELS = 96 };
typedef struct Kernel {
  char name[48];
  int threads, num_args;
  unsigned tmaps;               // bit i: argument i is a tensor map
  char how[120], message[120];  // from "//!"; empty: no such line, nothing is wrong
} Kernel;

char *kernels_read(const char *file);  // malloc'ed; NULL: told
// All kernels of a text, in order.
int kernels_find(const char *text, Kernel k[MAX_KERNELS]);
int64_t kernel_option(const Kernel *k, const char *name, int64_t otherwise);
// The text without the other kernels. malloc'ed.
char *kernel_alone(const char *text, const char *name);
// The text and an entry for each kernel: void NAME_call(void *const *arg). malloc'ed.
char *kernels_with_entries(const char *text);
// A buffer of bf16 that may only be read: integers from -15 to 15, numbers `from` on of a fixed row; and
// what such a number is.
uint16_t *kernel_numbers(const char *name, int64_t num, int64_t from);
double kernel_number(uint16_t x);

// Kernels that dump what an instruction leaves read so many of "x"; what the fiber machine makes of them is a
// file of dumps/, whose path this is.
enum { DUMP_NUMBERS = 8192 };
void dump_path(const char *kernel, char path[1024]);

#endif
