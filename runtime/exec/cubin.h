// SPDX-License-Identifier: Apache-2.0
// What compiled CUDA code says of its kernels, read without CUDA: a cubin is an ELF file, PTX a text.
#ifndef RUNTIME_EXEC_CUBIN_H
#define RUNTIME_EXEC_CUBIN_H

#include "base/base.h"

enum { MD_KERNEL_NAME = 64, MD_RESERVED_SHARED = 1024 };
// PTX knows only the name, the threads and the parameters: the rest is 0.
typedef struct md_kernel_facts {
  char name[MD_KERNEL_NAME];
  int registers;     // of a thread
  int frame_bytes;   // of a thread's stack, where spilled registers go
  int shared_bytes;  // static, of a block
  int max_threads;   // of a block
  int param_bytes;
} md_kernel_facts;

// The kernels of a cubin (at most `max` of them) and the compute capability that it is for. Returns
// their number; -1: `why` says what is wrong with it.
int md_cubin_read(const void *data, size_t bytes, md_kernel_facts *k, int max, int *sm,
                  const char **why);
// The same of PTX text, which need not end with a NUL.
int md_ptx_read(const char *text, size_t bytes, md_kernel_facts *k, int max, int *sm,
                const char **why);

#endif
