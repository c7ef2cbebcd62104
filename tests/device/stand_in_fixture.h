// SPDX-License-Identifier: Apache-2.0
// The stand-in with one kernel, for its own tests: ktwice, y[i] = 2 * x[i] of 64 numbers.
#ifndef TESTS_DEVICE_STAND_IN_FIXTURE_H
#define TESTS_DEVICE_STAND_IN_FIXTURE_H

#include "tests/device/stand_in/api.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <string.h>

enum { NUM = 64, BYTES = NUM * 4, MAX_TESTS = 32 };
static const char twice_ptx[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry ktwice(\n.param .u64 ktwice_param_0,\n.param .u64 ktwice_param_1\n)\n"
    ".maxntid 64, 1, 1\n{\n"
    ".reg .b64 %rd<6>;\n.reg .b32 %r<4>;\n.reg .f32 %f<3>;\n"
    "ld.param.u64 %rd1, [ktwice_param_0];\nld.param.u64 %rd2, [ktwice_param_1];\n"
    "mov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %tid.x;\nmad.lo.s32 %r3, %r1, 64, %r2;\n"
    "mul.wide.s32 %rd3, %r3, 4;\nadd.s64 %rd4, %rd1, %rd3;\nadd.s64 %rd5, %rd2, %rd3;\n"
    "ld.global.f32 %f1, [%rd4];\nadd.f32 %f2, %f1, %f1;\nst.global.f32 [%rd5], %f2;\nret;\n}\n";
static const char twice_text[] =
    "MD_KERNEL(64) ktwice(const float *MD_RESTRICT a0, float *a1) {\n"
    "  a1[md_block() * 64 + md_thread()] = 2.0f * a0[md_block() * 64 + md_thread()];\n}\n";

static void *context, *library, *twice, *stream;

// With MODIST_REAL_DRIVER in the environment a driver has been put in the stand-in's place, and what it
// answers otherwise is only told: tools/gpu_check.sh.
static void expect(int value, int wanted, const char *call, int line) {
  if (value == wanted) return;
  if (!getenv("MODIST_REAL_DRIVER"))
    ck_abort_msg("line %d: %s gives %d, not %d", line, call, value, wanted);
  printf("line %d: the driver: %s gives %d, the stand-in %d\n", line, call, value, wanted);
  fflush(stdout);  // the process may be ended by what comes
}
#define is(call, error) expect(call, error, #call, __LINE__)
#define works(call) expect(call, 0, #call, __LINE__)

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

// The suite, with a folder of texts. `alone`: tests of what the stand-in does and a driver need not, such as
// putting work off; they may use it in ways that crash a driver. Both lists end with NULL.
static int run_with_texts(const char *name, const TTest *const *tests, const TTest *const *alone,
                          const char *const *texts) {
  char folder[] = "/tmp/modist_test_XXXXXX", command[60];
  if (!mkdtemp(folder) || !write_text(folder, "ktwice", twice_text)) return EXIT_FAILURE;
  for (; texts && *texts; texts += 2)
    if (!write_text(folder, texts[0], texts[1])) return EXIT_FAILURE;
  setenv("MODIST_STAND_IN_TEXTS", folder, 1);
  const TTest *all[MAX_TESTS];
  int num = 0, num_alone = 0;
  while (*tests && num < MAX_TESTS) all[num++] = *tests++;
  while (alone[num_alone]) num_alone++;
  if (getenv("MODIST_REAL_DRIVER")) printf("%d tests are of the stand-in alone\n", num_alone);
  else
    for (int i = 0; i < num_alone && num < MAX_TESTS; i++) all[num++] = alone[i];
  int code = run_suite(name, all, num);
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command) ? EXIT_FAILURE : code;
}

#endif
