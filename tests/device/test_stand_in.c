// SPDX-License-Identifier: Apache-2.0
// The driver's stand-in is as strict as a driver and more: each misuse has its error; work that nobody
// waits for is not done; kernels run.
#include "tests/device/stand_in/api.h"
#include "tests/unit/suite.h"

#include <stdio.h>
#include <string.h>

// --- a device with one kernel: y[i] = 2 * x[i], of 64 numbers

enum { NUM = 64, BYTES = NUM * 4 };
static const char twice_text[] =
    "MD_KERNEL(64) ktwice(const float *MD_RESTRICT a0, float *a1) {\n"
    "  a1[md_block() * 64 + md_thread()] = 2.0f * a0[md_block() * 64 + md_thread()];\n}\n";
static const char twice_ptx[] =
    ".version 7.0\n.target sm_80\n.visible .entry ktwice(\n.param .u64 ktwice_param_0,\n"
    ".param .u64 ktwice_param_1\n)\n.maxntid 64, 1, 1\n{\n}\n";

static void *context, *library, *twice, *stream;

#define is(call, error) ck_assert_int_eq(call, error)
#define works(call) ck_assert_int_eq(call, 0)

static int load(void **to, const char *ptx) {
  return cuLibraryLoadData(to, ptx, NULL, NULL, 0, NULL, NULL, 0);
}

static void start(void) {
  void *kernel;
  setenv("MODIST_STAND_IN_ORDER", "late", 1);
  works(cuInit(0));
  works(cuDevicePrimaryCtxRetain(&context, 0));
  works(cuCtxSetCurrent(context));
  works(load(&library, twice_ptx));
  works(cuLibraryGetKernel(&kernel, library, "ktwice"));
  works(cuKernelGetFunction(&twice, kernel));
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

static float *pinned(size_t bytes) {
  void *at = NULL;
  works(cuMemHostAlloc(&at, bytes, 0));
  return at;
}

static int launch(Address from, Address to, void *on) {
  void *args[] = {&from, &to};
  return cuLaunchKernel(twice, 1, 1, 1, NUM, 1, 1, 0, on, args, NULL);
}

// --- what works

static void run_in(const char *order) {
  setenv("MODIST_STAND_IN_ORDER", order, 1);
  float *x = pinned(BYTES), *y = pinned(BYTES);
  for (int i = 0; i < NUM; i++) x[i] = (float)i;
  Address a = memory(BYTES), b = memory(BYTES);
  works(cuMemcpyHtoDAsync_v2(a, x, BYTES, stream));
  works(launch(a, b, stream));
  works(cuMemcpyDtoHAsync_v2(y, b, BYTES, stream));
  ck_assert_int_eq(y[1] == 2, !strcmp(order, "at-once"));  // else when somebody waits
  works(cuStreamSynchronize(stream));
  ck_assert(y[1] == 2 && y[63] == 126);
  works(cuMemFree_v2(a));
  works(cuMemFree_v2(b));
  works(cuMemFreeHost(x));
  works(cuMemFreeHost(y));
}

START_TEST(a_kernel_runs_in_every_order) {
  start();
  run_in("at-once");
  run_in("late");
  run_in("copies-first");
  finish();
}
END_TEST

int main(void) {
  const TTest *const tests[] = {a_kernel_runs_in_every_order};
  char folder[] = "/tmp/modist_test_XXXXXX", text[60], remove[60];
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  snprintf(text, sizeof text, "%s/ktwice.cu", folder);
  snprintf(remove, sizeof remove, "rm -rf '%s'", folder);
  FILE *f = fopen(text, "w");
  if (!f || fputs(twice_text, f) < 0 || fclose(f) != 0) return EXIT_FAILURE;
  setenv("MODIST_STAND_IN_TEXTS", folder, 1);
  int code = run_suite("stand-in", tests, (int)(sizeof tests / sizeof *tests));
  return system(remove) ? EXIT_FAILURE : code;
}
