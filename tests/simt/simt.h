// SPDX-License-Identifier: Apache-2.0
// CUDA kernels on the host: a fiber for each CUDA thread of a block, blocks one after another, one
// thread of the system. Barriers and shuffles are rendezvous; between them a fiber runs alone, in an
// order that the test chooses. The kernel text is compiled with -fsanitize=thread, and the functions
// that it calls for each access are ours (checker.c).
#ifndef TESTS_SIMT_SIMT_H
#define TESTS_SIMT_SIMT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

// --- machine.c

// Asynchronous work is done as late as it may be with the forward schedule, at once with the reverse
// one, and either way, by the seed, with a random one.
typedef enum simt_order { SIMT_FORWARD, SIMT_REVERSE, SIMT_RANDOM } simt_order;
typedef struct simt_options {
  simt_order order;
  uint64_t seed;
} simt_options;
typedef struct simt_launch {
  void (*kernel)(void *const *arg);
  void *const *arg;
  int64_t blocks;
  int threads, shared_bytes;  // threads: whole warps
} simt_launch;
typedef struct simt_report {
  int errors;       // 0: the kernel did nothing wrong
  char first[512];  // the first of them
  int64_t switches, barriers, mmas;
  int64_t ldmatrices, conflicts;  // conflicts: further passes over the banks of shared memory
} simt_report;
simt_report simt_run(const simt_launch *l, simt_options o);

// --- build.c: a kernel text to code
typedef struct simt_code simt_code;
// NULL with the compiler's words on stderr. `name` of each entry: a function void name(void *const *).
simt_code *simt_build(const char *text);
// The same from what `folder` keeps of equal texts, or kept there. NULL: the folder of this build.
simt_code *simt_build_kept(const char *text, const char *folder);
typedef void simt_entry_point(void *const *arg);
simt_entry_point *simt_entry(const simt_code *c, const char *name);
void simt_code_free(simt_code *c);

// --- library.c: kernels by symbols that say what their texts are, each built once a process
typedef struct simt_kernel {
  const char *symbol, *text;
  int num_params, num_counts;
} simt_kernel;
bool simt_know(const simt_kernel *k, int num);        // false: the compiler has said why
simt_entry_point *simt_known(const char *symbol);     // NULL: it is not
void simt_forget(void);                               // all of them
void simt_put_kernel(md_text *to, const char *text);  // but for functions that are there

// --- checker.c: what kernels may touch.
// Off: kernels built from now on are only run, and faster; nothing is known of what they write.
void simt_check(bool on);
// Numbers: kernels built from now on are checked and tell of what C does not define as well: sums and products of
// integers that overflow, shifts, divisions by 0, floats that no integer holds. They take two thirds more to compile.
void simt_check_numbers(bool on);
bool simt_is_checked(void);
// How kernels are built now.
typedef enum simt_form { SIMT_PLAIN, SIMT_CHECKED, SIMT_NUMBERS } simt_form;
simt_form simt_form_now(void);
// Buffers are kept between launches, with what is written. Memory is of the checker's own making: unused bytes
// around it make overruns visible.
void *simt_buffer(const char *name, int64_t bytes, bool is_set);  // is_set: it may be read at once
void simt_set(const void *buffer);                                // all of it may be read
void simt_wrote(const void *p, int64_t bytes);                    // of one: the host has
void simt_writable(const void *buffer, bool writable);
// From now on kernels may touch these bytes of a buffer, and others that are opened, alone; simt_close:
// all of it again.
void simt_open(const void *buffer, int64_t offset, int64_t bytes);
void simt_close(const void *buffer);
const char *
simt_overrun(void);  // a buffer whose surroundings were written, if nobody checks; or NULL
void simt_free_buffer(void *buffer);
void simt_free_buffers(void);

// --- tma.c: tensor maps of bf16 tensors, the first axis innermost. They are what md_tmap is here.
typedef struct simt_tmap {
  _Alignas(64) void *base;
  int rank, dim[5], stride[5], box[5];  // strides in bytes
  int lower[3], upper[3], step[5], pixels;
  bool is_im2col, is_swizzled;
  bool is_in_memory;  // the kernel has its address: who uses it acquires it first
} simt_tmap;
simt_tmap simt_tmap_tiled(void *base, int rank, const int *dim, const int *box, bool swizzled);
// dim: c w h d n. Windows of a convolution with padding p and dilated kernel k on an axis: lower -p,
// upper p - (k - 1).
simt_tmap simt_tmap_im2col(void *base, const int dim[5], const int lower[3], const int upper[3],
                           const int step[3], int channels, int pixels, bool swizzled);

#endif
