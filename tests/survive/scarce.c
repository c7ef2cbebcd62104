// SPDX-License-Identifier: Apache-2.0
// glibc lets a program have a malloc of its own; this one asks glibc's, unless it is to fail. Blocks
// are glibc's, so its free stays.
#include "tests/survive/scarce.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t num, size_t size);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

static _Atomic int calls;
static int bad_call;
static bool is_on;

void scarce_begin(int nth) {
  calls = 0;
  bad_call = nth;
  is_on = true;
}

int scarce_end(void) {
  is_on = false;
  return calls;
}

static bool fails(void) {
  if (!is_on || ++calls != bad_call) return false;
  errno = ENOMEM;
  return true;
}

#pragma GCC visibility push(default)  // libraries are to find these

void *malloc(size_t bytes) { return fails() ? NULL : __libc_malloc(bytes); }
void *calloc(size_t num, size_t size) { return fails() ? NULL : __libc_calloc(num, size); }
void *realloc(void *p, size_t bytes) { return fails() ? NULL : __libc_realloc(p, bytes); }

void *reallocarray(void *p, size_t num, size_t size) {
  size_t bytes;
  if (!__builtin_mul_overflow(num, size, &bytes)) return realloc(p, bytes);
  errno = ENOMEM;
  return NULL;
}

void *aligned_alloc(size_t align, size_t bytes) {
  return fails() ? NULL : __libc_memalign(align, bytes);
}

int posix_memalign(void **out, size_t align, size_t bytes) {
  *out = aligned_alloc(align, bytes);
  return *out ? 0 : ENOMEM;
}

#pragma GCC visibility pop
