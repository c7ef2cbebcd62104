// SPDX-License-Identifier: Apache-2.0
// Tensor cores on the host: products of matrices by kernels/gemm.cu against sums in double, and what
// each instruction leaves in its registers (kernels/dumps*.cu) against dumps/.
//   test_tensor [--update | --speed]
#include "tests/simt/kernels.h"
#include "tests/simt/simt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/file.h"

typedef struct Shape {
  int m, n, k;
} Shape;
static const Shape shapes[] = {{64, 64, 64}, {100, 72, 200}, {33, 8, 40}, {130, 64, 8}};
static const simt_options modes[] = {
    {SIMT_FORWARD, 0}, {SIMT_REVERSE, 0}, {SIMT_RANDOM, 2}, {SIMT_RANDOM, 3}};
static const char *const gemms[] = {"gemm", "gemm_async"};

// Small integers: every sum is exact, in whatever order it is made.
static bool is_product(Shape s, const uint16_t *a, const uint16_t *b, bool b_by_rows,
                       const float *y) {
  for (int i = 0; i < s.m; i++)
    for (int j = 0; j < s.n; j++) {
      double sum = 0.0;
      for (int k = 0; k < s.k; k++)
        sum +=
            kernel_number(a[i * s.k + k]) * kernel_number(b[b_by_rows ? k * s.n + j : j * s.k + k]);
      if (y[i * s.n + j] == sum) continue;
      printf("y[%d,%d] is %g, but %g is right\n", i, j, (double)y[i * s.n + j], sum);
      return false;
    }
  return true;
}

static simt_code *build_gemms(Shape s) {
  char *text = kernels_read("gemm.cu");
  if (!text) return NULL;
  char *all = kernels_with_entries(text);
  md_text t = {0};
  md_put(&t, "#define M %d\n#define N %d\n#define K %d\n%s", s.m, s.n, s.k, all);
  simt_code *code = simt_build(t.s);
  md_text_free(&t);
  free(all);
  free(text);
  return code;
}

static bool run_gemm(const simt_code *code, const char *kernel, Shape s, simt_options o,
                     bool compare) {
  char name[64];
  snprintf(name, sizeof name, "%s_call", kernel);
  uint16_t *a = kernel_numbers("a", (int64_t)s.m * s.k, 0),
           *b = kernel_numbers("b", (int64_t)s.n * s.k, 1 << 20);
  float *y = simt_buffer("y", (int64_t)s.m * s.n * 4, false);
  void *arg[] = {a, b, y};
  simt_launch l = {.kernel = simt_entry(code, name),
                   .arg = arg,
                   .blocks = (int64_t)((s.m + 63) / 64) * ((s.n + 63) / 64),
                   .threads = 128,
                   .shared_bytes = 4 * 4096};
  simt_report r = simt_run(&l, o);
  bool ok = !r.errors && r.mmas && !r.conflicts;
  if (!ok)
    printf("%s; %lld mma, %lld conflicts\n", r.errors ? r.first : "no error", (long long)r.mmas,
           (long long)r.conflicts);
  if (ok && compare) ok = is_product(s, a, b, strcmp(kernel, "gemm") != 0, y);
  simt_free_buffers();
  if (!ok) printf("FAILED %s %dx%dx%d, order %d\n", kernel, s.m, s.n, s.k, (int)o.order);
  return ok;
}

// The last shape without the checker: only run.
static int try_gemms(int *passed) {
  int failed = 0;
  for (int i = 0; i < MD_COUNT(shapes); i++) {
    simt_check(i + 1 < MD_COUNT(shapes));
    simt_code *code = build_gemms(shapes[i]);
    if (!code) return failed + 1;
    for (int g = 0; g < MD_COUNT(gemms); g++)
      for (int o = 0; o < MD_COUNT(modes); o++) {
        bool ok = run_gemm(code, gemms[g], shapes[i], modes[o], true);
        *passed += ok;
        failed += !ok;
      }
    simt_code_free(code);
  }
  simt_check(true);
  return failed;
}

// --- dumps

static bool same_as_file(const char *kernel, const char *text, bool update) {
  char path[1024], *want = NULL;
  dump_path(kernel, path);
  if (update) {
    FILE *f = fopen(path, "w");
    bool ok = f && fputs(text, f) >= 0;
    return f && !fclose(f) && ok;
  }
  md_diags *d = md_diags_create();
  size_t len;
  bool ok = md_file_read(path, 1 << 20, E0801, d, &want, &len) && !strcmp(want, text);
  if (!ok) printf("FAILED %s: %s has something else than\n%s", kernel, path, text);
  md_diags_destroy(d);
  free(want);
  return ok;
}

static simt_tmap map_of(void *x, bool im2col) {
  static const int plane[2] = {64, 64}, box[2] = {64, 8}, image[5] = {64, 8, 8, 1, 1},
                   lower[3] = {-1, -1, 0}, upper[3] = {-1, -1, 0}, step[3] = {2, 2, 1};
  return im2col ? simt_tmap_im2col(x, image, lower, upper, step, 64, 16, true)
                : simt_tmap_tiled(x, 2, plane, box, true);
}

static bool try_dump(const simt_code *code, const Kernel *k, bool update) {
  char name[64];
  snprintf(name, sizeof name, "%.48s_call", k->name);
  int words = (int)kernel_option(k, "words", 1);
  uint16_t *x = kernel_numbers("x", DUMP_NUMBERS, 0);
  uint32_t *y = simt_buffer("y", 4 * words * k->threads, false);
  simt_tmap map = map_of(x, kernel_option(k, "im2col", 0));
  void *two[] = {k->tmaps ? (void *)&map : x, y}, *one[] = {y};
  simt_launch l = {.kernel = simt_entry(code, name),
                   .arg = k->num_args == 1 ? one : two,
                   .blocks = 1,
                   .threads = k->threads,
                   .shared_bytes = (int)kernel_option(k, "shared", 0)};
  simt_report r = simt_run(&l, modes[0]);
  md_text t = {0};
  for (int i = 0; i < k->threads; i++) {
    md_put(&t, "%d:", i);
    for (int j = 0; j < words; j++) md_put(&t, " %08x", y[i * words + j]);
    md_put(&t, "\n");
  }
  simt_free_buffers();
  if (r.errors) printf("FAILED %s: %s\n", k->name, r.first);
  bool ok = !r.errors && same_as_file(k->name, t.s, update);
  md_text_free(&t);
  return ok;
}

static int try_dumps(const char *file, int *passed, bool update) {
  Kernel k[MAX_KERNELS];
  char *text = kernels_read(file), *full = text ? kernels_with_entries(text) : NULL;
  simt_code *code = full ? simt_build(full) : NULL;
  int num = code ? kernels_find(text, k) : 0, failed = !num;
  for (int i = 0; i < num; i++) {
    bool ok = try_dump(code, &k[i], update);
    *passed += ok;
    failed += !ok;
  }
  simt_code_free(code);
  free(full);
  free(text);
  return failed;
}

// --- speed

// Of this process: the machine may be busy with others.
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_speed(void) {
  Shape s = {512, 256, 512};
  for (int checked = 0; checked < 2; checked++) {
    simt_check(checked);
    simt_code *code = build_gemms(s);
    for (int g = 0; code && g < MD_COUNT(gemms); g++) {
      double from = now();
      run_gemm(code, gemms[g], s, modes[0], false);
      printf("%s, checker %s: %.3f GMAC/s\n", gemms[g], checked ? "on" : "off",
             1e-9 * s.m * s.n * s.k / (now() - from));
    }
    simt_code_free(code);
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "--speed")) {
    print_speed();
    return 0;
  }
  bool update = argc > 1 && !strcmp(argv[1], "--update");
  int passed = 0, failed = try_dumps("dumps.cu", &passed, update);
  failed += try_dumps("dumps_hopper.cu", &passed, update);
  failed += try_gemms(&passed);
  printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}
