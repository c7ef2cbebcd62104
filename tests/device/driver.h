// SPDX-License-Identifier: Apache-2.0
// The driver of a GPU, for programs that run on one: opened at run time, its functions are declared here.
#ifndef TESTS_DEVICE_DRIVER_H
#define TESTS_DEVICE_DRIVER_H

#include <stdbool.h>
#include <stddef.h>

#include "base/base.h"

enum { NO_DEVICE = 4 };       // exit code
enum { DYNAMIC_SHARED = 8 };  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES

typedef unsigned long long Address;  // CUdeviceptr
typedef struct Driver {
  int (*init)(unsigned);
  int (*count)(int *);
  int (*get)(int *, int);
  int (*name)(char *, int, int);
  int (*attribute)(int *, int, int);
  int (*version)(int *);
  int (*retain)(void **, int);
  int (*release)(int);
  int (*current)(void *);
  int (*synchronize)(void);
  int (*load)(void **, const void *);
  int (*unload)(void *);
  int (*function)(void **, void *, const char *);
  int (*allow)(void *, int, int);
  int (*alloc)(Address *, size_t);
  int (*free)(Address);
  int (*set)(Address, unsigned char, size_t);
  int (*to_device)(Address, const void *, size_t);
  int (*to_host)(void *, Address, size_t);
  int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                void *, void **, void **);
  int (*tiled)(void *, int, unsigned, void *, const uint64_t *, const uint64_t *, const unsigned *,
               const unsigned *, int, int, int, int);
  int (*im2col)(void *, int, unsigned, void *, const uint64_t *, const uint64_t *, const int *,
                const int *, unsigned, unsigned, const unsigned *, int, int, int, int);
  int (*error)(int, const char **);
  int device, sm;
  char label[128];
} Driver;

// The first device, its context current. False: printed why not.
bool driver_open(Driver *d);
// Of a call's error, in the driver's words. True: there is none.
bool driver_good(const Driver *d, int error, const char *what, md_text *why);
// One kernel of a module, on `blocks` by `threads`, to its end.
bool driver_launch(const Driver *d, void *module, const char *kernel, int64_t blocks, int threads,
                   int64_t shared_bytes, void **arg, md_text *why);

#endif
