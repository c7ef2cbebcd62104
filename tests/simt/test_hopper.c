// SPDX-License-Identifier: Apache-2.0
// What only sm_90a has, on the host: kernels/hopper.cu against sums in double, and with each mistake
// that it can plant, which must be seen.
#include "tests/simt/kernels.h"
#include "tests/simt/simt.h"

#include <stdlib.h>
#include <string.h>

enum { M = 100, N = 72, K = 328, IMAGES = 2, DEPTH = 2, H = 9, W = 7, C = 64, PIXELS = 80 };

static const simt_options modes[] = {
    {SIMT_FORWARD, 0}, {SIMT_REVERSE, 0}, {SIMT_RANDOM, 2}, {SIMT_RANDOM, 3}};

static const struct Case {
  const char *kernel;
  int bug;
  const char *message[3];  // one of them; NULL: nothing is wrong
} cases[] = {
    {"wg_gemm", 0, {NULL}},
    {"wg_registers", 0, {NULL}},
    {"wg_stored", 0, {NULL}},
    {"wg_conv", 0, {NULL}},
    // mbarriers: used before they are there, too few arrivals, not fenced, no wait for an empty stage,
    // too few bytes, too many, no wait for a full stage, the other parity, each lane arrives
    {"wg_gemm", 1, {"race: reads shared memory +49152", "which nobody has written"}},
    {"wg_gemm", 2, {"race: writes shared memory"}},
    {"wg_gemm", 3, {"was not fenced"}},
    {"wg_gemm", 4, {"expects nobody", "writes shared memory +0, into which a copy"}},
    {"wg_gemm", 5, {"deadlock"}},
    {"wg_gemm", 6, {"deadlock"}},
    {"wg_gemm", 7, {"into which a copy of thread 128 is in flight", "which nobody has written"}},
    {"wg_gemm", 8, {"into which a copy of thread 128 is in flight", "deadlock"}},
    {"wg_gemm", 17, {"expects nobody", "deadlock", "race: writes shared memory"}},
    // wgmma: without fence, not committed, stage freed before the wait, no wait, registers touched
    {"wg_gemm", 9, {"without md_wgmma_fence"}},
    {"wg_gemm", 10, {"accumulators of a wgmma in flight"}},
    {"wg_gemm", 11, {"which a wgmma in flight reads", "which thread"}},
    {"wg_gemm", 12, {"accumulators of a wgmma in flight"}},
    {"wg_stored", 14, {"without md_fence_async"}},
    {"wg_stored", 15, {"accumulators of a wgmma in flight"}},
    // places: TMA to a misaligned one, swizzle on one side only, no window begins there
    {"wg_gemm", 16, {"TMA to shared memory +64: misaligned"}},
    {"wg_registers", 20, {"a wrong result"}},
    {"wg_conv", 18, {"where no window begins"}},
};

// Small integers: every sum is exact, in whatever order it is made.
static bool is_product(const uint16_t *a, const uint16_t *b, const float *y) {
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      double sum = 0.0;
      for (int k = 0; k < K; k++) sum += kernel_number(a[i * K + k]) * kernel_number(b[j * K + k]);
      if (y[i * N + j] != sum) return false;
    }
  return true;
}

static double convolved(const uint16_t *x, const uint16_t *w, int pixel, int channel) {
  int ow = pixel % ((W + 1) / 2), oh = pixel / ((W + 1) / 2) % ((H + 1) / 2);
  int image = pixel / ((W + 1) / 2 * ((H + 1) / 2));
  double sum = 0.0;
  for (int tap = 0; tap < 9; tap++) {
    int h = oh * 2 - 1 + tap / 3, v = ow * 2 - 1 + tap % 3;
    if (h < 0 || h >= H || v < 0 || v >= W) continue;
    for (int c = 0; c < C; c++)
      sum += kernel_number(x[((image * H + h) * W + v) * C + c]) *
             kernel_number(w[(channel * 9 + tap) * C + c]);
  }
  return sum;
}

static bool is_convolution(const uint16_t *x, const uint16_t *w, const float *y) {
  for (int i = 0; i < PIXELS; i++)
    for (int j = 0; j < C; j++)
      if (y[i * C + j] != convolved(x, w, i, j)) return false;
  return true;
}

typedef struct Outcome {
  simt_report r;
  bool right;
} Outcome;

static Outcome run_conv(void (*kernel)(void *const *), simt_options o) {
  static const int dim[5] = {C, W, H, DEPTH, IMAGES}, lower[3] = {-1, -1, 0},
                   upper[3] = {-1, -1, 0}, step[3] = {2, 2, 1}, dim_w[2] = {9 * C, C},
                   box[2] = {64, 64};
  uint16_t *x = kernel_numbers("x", (int64_t)IMAGES * DEPTH * H * W * C, 0),
           *w = kernel_numbers("w", 9 * C * C, 1 << 20);
  float *y = simt_buffer("y", PIXELS * C * 4, false);
  simt_tmap mx = simt_tmap_im2col(x, dim, lower, upper, step, 64, 64, true),
            mw = simt_tmap_tiled(w, 2, dim_w, box, true);
  void *arg[] = {&mx, &mw, y};
  simt_launch l = {kernel, arg, (PIXELS + 63) / 64, 160, 3 * 16384 + 48};
  Outcome out = {.r = simt_run(&l, o)};
  out.right = !out.r.errors && is_convolution(x, w, y);
  return out;
}

static Outcome run_gemm(const char *name, void (*kernel)(void *const *), simt_options o) {
  static const int dim_a[2] = {K, M}, dim_b[2] = {K, N}, box[2] = {64, 64};
  bool stored = !strcmp(name, "wg_stored");
  uint16_t *a = kernel_numbers("a", M * K, 0), *b = kernel_numbers("b", N * K, 1 << 20);
  float *y = simt_buffer("y", M * N * 4, false);
  simt_tmap ma = simt_tmap_tiled(a, 2, dim_a, box, true),
            mb = simt_tmap_tiled(b, 2, dim_b, box, true);
  void *maps[] = {&ma, &mb, y}, *plain[] = {a, b, y};
  simt_launch l = {kernel, stored ? plain : maps, (int64_t)((M + 63) / 64) * ((N + 63) / 64),
                   stored ? 128 : 160, 3 * 16384 + 48};
  Outcome out = {.r = simt_run(&l, o)};
  out.right = !out.r.errors && is_product(a, b, y);
  return out;
}

static bool try_case(const struct Case *c, const char *text) {
  md_text t = {0};
  md_put(&t, "#define M %d\n#define N %d\n#define K %d\n#define IMAGES %d\n#define DEPTH %d\n", M,
         N, K, IMAGES, DEPTH);
  md_put(&t, "#define H %d\n#define W %d\n#define BUG %d\n%s", H, W, c->bug, text);
  simt_code *code = simt_build(t.s);
  md_text_free(&t);
  if (!code) return false;
  char name[64];
  snprintf(name, sizeof name, "%s_call", c->kernel);
  bool ok = true;
  for (int i = 0; ok && i < MD_COUNT(modes); i++) {
    Outcome o = strcmp(c->kernel, "wg_conv") ? run_gemm(c->kernel, simt_entry(code, name), modes[i])
                                             : run_conv(simt_entry(code, name), modes[i]);
    simt_free_buffers();
    const char *seen = o.r.errors ? o.r.first : o.right ? "a right result" : "a wrong result";
    ok = !c->message[0] && o.right;
    for (int j = 0; j < MD_COUNT(c->message); j++)
      ok |= c->message[j] && strstr(seen, c->message[j]);
    if (!ok)
      printf("FAILED %s, bug %d, mode %d: expected '%s', got '%s'\n", c->kernel, c->bug, i,
             c->message[0] ? c->message[0] : "a right result", seen);
  }
  simt_code_free(code);
  return ok;
}

int main(void) {
  char *text = kernels_read("hopper.cu"), *full = text ? kernels_with_entries(text) : NULL;
  int passed = 0, failed = !full;
  for (int i = 0; full && i < MD_COUNT(cases); i++) {
    bool ok = try_case(&cases[i], full);
    passed += ok;
    failed += !ok;
  }
  free(full);
  free(text);
  printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}
