// SPDX-License-Identifier: Apache-2.0
// The stand-in with one kernel, for its own tests: ktwice, y[i] = 2 * x[i] of 64 numbers.
#ifndef TESTS_DEVICE_STAND_IN_FIXTURE_H
#define TESTS_DEVICE_STAND_IN_FIXTURE_H

#include "tests/device/stand_in/api.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <string.h>

enum { NUM = 64, BYTES = NUM * 4 };
static const char twice_ptx[] =
    ".version 7.0\n.target sm_80\n.visible .entry ktwice(\n.param .u64 ktwice_param_0,\n"
    ".param .u64 ktwice_param_1\n)\n.maxntid 64, 1, 1\n{\n}\n";
static const char twice_text[] =
    "MD_KERNEL(64) ktwice(const float *MD_RESTRICT a0, float *a1) {\n"
    "  a1[md_block() * 64 + md_thread()] = 2.0f * a0[md_block() * 64 + md_thread()];\n}\n";

static void *context, *library, *twice, *stream;

#define is(call, error) ck_assert_int_eq(call, error)
#define works(call) ck_assert_int_eq(call, 0)

static int load(void **to, const char *ptx) {
  return cuLibraryLoadData(to, ptx, NULL, NULL, 0, NULL, NULL, 0);
}

static void *function_of(void *lib, const char *name) {
  void *kernel, *function;
  works(cuLibraryGetKernel(&kernel, lib, name));
  works(cuKernelGetFunction(&function, kernel));
  return function;
}

static void start(void) {
  setenv("MODIST_STAND_IN_ORDER", "late", 1);
  works(cuInit(0));
  works(cuDevicePrimaryCtxRetain(&context, 0));
  works(cuCtxSetCurrent(context));
  works(load(&library, twice_ptx));
  twice = function_of(library, "ktwice");
  works(cuStreamCreate(&stream, STREAM_NON_BLOCKING));
}

static void finish(void) {
  works(cuStreamDestroy_v2(stream));
  works(cuLibraryUnload(library));
  works(cuDevicePrimaryCtxRelease_v2(0));
}

static Address memory(size_t bytes) {
  Address at = 0;
  works(cuMemAlloc_v2(&at, bytes));
  return at;
}

static float *pinned(void) {
  void *at = NULL;
  works(cuMemHostAlloc(&at, BYTES, 0));
  return at;
}

static int launch(Address from, Address to, void *on) {
  void *args[] = {&from, &to};
  return cuLaunchKernel(twice, 1, 1, 1, NUM, 1, 1, 0, on, args, NULL);
}

// Two pinned arrays, x of numbers from 0 on, and two of the device.
static float *x, *y;
static Address a, b;

static void start_with_arrays(void) {
  start();
  x = pinned();
  y = pinned();
  for (int i = 0; i < NUM; i++) x[i] = (float)i;
  a = memory(BYTES);
  b = memory(BYTES);
}

static void finish_with_arrays(void) {
  works(cuMemFree_v2(a));
  works(cuMemFree_v2(b));
  works(cuMemFreeHost(x));
  works(cuMemFreeHost(y));
  finish();
}

static bool write_text(const char *folder, const char *name, const char *text) {
  char path[100];
  snprintf(path, sizeof path, "%s/%s.cu", folder, name);
  FILE *f = fopen(path, "w");
  return f && fputs(text, f) >= 0 && fclose(f) == 0;
}

// The suite, with a folder of texts.
static int run_with_texts(const char *name, const TTest *const *tests, int num,
                          const char *const *texts) {
  char folder[] = "/tmp/modist_test_XXXXXX", command[60];
  if (!mkdtemp(folder) || !write_text(folder, "ktwice", twice_text)) return EXIT_FAILURE;
  for (; texts && *texts; texts += 2)
    if (!write_text(folder, texts[0], texts[1])) return EXIT_FAILURE;
  setenv("MODIST_STAND_IN_TEXTS", folder, 1);
  int code = run_suite(name, tests, num);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command) ? EXIT_FAILURE : code;
}

#endif
