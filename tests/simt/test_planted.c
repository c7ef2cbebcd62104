// SPDX-License-Identifier: Apache-2.0
// The checker finds what it is there to find: kernels with a bug each and the message it must bring
// (kernels/planted_*.cu), the same kernels without it, and the generated InfoNCE kernels with one barrier taken out.
#include "tests/simt/kernels.h"
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

static const char *const files[] = {"planted_base.cu", "planted_tensor.cu", "planted_async.cu",
                                    "planted_hopper.cu"};

static bool expect(const char *what, const char *message, const simt_report *r) {
  bool ok = *message ? r->errors && strstr(r->first, message) : !r->errors;
  if (!ok) printf("FAILED %s: expected '%s', got '%s'\n", what, message, r->errors ? r->first : "");
  return ok;
}

static simt_report run_kernel(const simt_code *code, const Kernel *k, simt_options o) {
  char name[64];
  snprintf(name, sizeof name, "%s_call", k->name);
  int64_t x_bytes = 4 * kernel_option(k, "x", 70);
  char *x = simt_buffer("x", x_bytes, true);
  void *y = simt_buffer("y", 4 * kernel_option(k, "y", 70), false);
  simt_writable(x, strstr(k->message, "reads y") || kernel_option(k, "ticket", 0));
  memset(x, 0, (size_t)x_bytes);
  void *two[] = {x, y}, *one[] = {strstr(k->message, "writes x") ? x : y};
  simt_launch l = {.kernel = simt_entry(code, name),
                   .arg = k->num_args == 1 ? one : two,
                   .blocks = kernel_option(k, "blocks", 1),
                   .threads = k->threads,
                   .shared_bytes = (int)kernel_option(k, "shared", 0)};
  simt_report r = simt_run(&l, o);
  simt_free_buffers();
  return r;
}

// Whatever the schedule, a race is two accesses and not an outcome; so is nothing where nothing is.
static bool try_kernel(const simt_code *code, const Kernel *k) {
  simt_report r = run_kernel(code, k, (simt_options){SIMT_FORWARD, 0});
  if (!expect(k->name, k->message, &r)) return false;
  if (*k->message && !strstr(k->message, "race: ") && !strstr(k->message, "in flight")) return true;
  for (uint64_t seed = 0; seed < 4; seed++) {
    r = run_kernel(code, k, (simt_options){seed ? SIMT_RANDOM : SIMT_REVERSE, seed});
    if (!expect(k->name, *k->message ? " thread " : "", &r)) return false;
  }
  return true;
}

static void try_file(const char *file, int *passed, int *failed) {
  Kernel k[MAX_KERNELS];
  char *text = kernels_read(file), *full = text ? kernels_with_entries(text) : NULL;
  simt_code *code = full ? simt_build(full) : NULL;
  int num = code ? kernels_find(text, k) : 0;
  *failed += !num;
  for (int i = 0; i < num; i++) {
    bool ok = try_kernel(code, &k[i]);
    *passed += ok;
    *failed += !ok;
  }
  simt_code_free(code);
  free(full);
  free(text);
}

// Takes the n-th "md_sync();" out; false: there is none.
static bool without_barrier(char *kernels, int n) {
  static const char barrier[] = "md_sync();";
  char *at = kernels;
  for (int i = 0; at && (at = strstr(at, barrier)); i++, at++) {
    if (i < n) continue;
    memset(at, ' ', strlen(barrier));
    return true;
  }
  return false;
}

// InfoNCE with several chunks and tiles: each of its barriers is needed, and each loss is seen.
static int try_barriers(int *passed) {
  static const char graph[] =
      "graph @s(%n_q: f32[9,40], %k_ids: i32[9], %n_bank: f32[130,40], %e_rows: i32[130]) {\n"
      "  %lse, %top, %mean = nce_lse %n_q, %k_ids, %n_bank, %e_rows {tau=0.1}\n"
      "  return %lse, %top, %mean\n}\n";
  md_diags *d = md_diags_create();
  Program *p = program_create(graph, 2, 1, d);
  int failed = 0, num = 0;
  for (; p; num++) {
    char *kernels = run_text(p), **data = NULL;
    bool there = without_barrier(kernels, num);
    simt_code *code = there ? simt_build(kernels) : NULL;
    free(kernels);
    if (!code) break;
    md_text why = {0};
    bool ran = run_program(p, code, (simt_options){SIMT_FORWARD, 0}, &data, &why);
    bool ok = !ran && why.s && (strstr(why.s, "race: ") || strstr(why.s, "nobody has written"));
    if (!ok)
      printf("FAILED InfoNCE without barrier %d: %s\n", num, why.s ? why.s : "nothing was seen");
    *passed += ok;
    failed += !ok;
    free(data);
    simt_free_buffers();
    simt_code_free(code);
    md_text_free(&why);
  }
  if (num < 4) {
    printf("FAILED InfoNCE: only %d barriers\n%s", num, md_diags_text(d));
    failed++;
  }
  program_destroy(p);
  md_diags_destroy(d);
  return failed;
}

// One step too far in a place of the workspace, where another place follows.
static int try_workspace(int *passed) {
  static const char guard[] = "if (e < elements) {", wrong[] = "if (e <=elements) {";
  md_text text = {0}, why = {0};
  char name[64] = "", **data = NULL;
  for (int i = 0; simt_sample(i, &text, name) && strcmp(name, "rows 5 x 37 of f64") != 0; i++) {
    md_text_free(&text);
    text = (md_text){0};
  }
  md_diags *d = md_diags_create();
  Program *p = text.s ? program_create(text.s, 2, 1, d) : NULL;
  char *kernels = p ? run_text(p) : NULL, *at = NULL;
  const char *joined = kernels ? strstr(kernels, "e / 39") : NULL;  // rows of 2 + 37
  for (char *g = kernels; joined && (g = strstr(g, guard)) && g < joined; g++) at = g;
  if (at) memcpy(at, wrong, strlen(wrong));
  simt_code *code = at ? simt_build(kernels) : NULL;
  bool ran = code && run_program(p, code, (simt_options){SIMT_FORWARD, 0}, &data, &why);
  bool ok = code && !ran && why.s && strstr(why.s, "between what the launch has of it");
  if (!ok) printf("FAILED a place of the workspace: %s\n", why.s ? why.s : "nothing was seen");
  *passed += ok;
  free(data);
  free(kernels);
  simt_free_buffers();
  simt_code_free(code);
  program_destroy(p);
  md_diags_destroy(d);
  md_text_free(&why);
  md_text_free(&text);
  return !ok;
}

int main(void) {
  simt_check_numbers(true);
  int passed = 0, failed = 0;
  for (int i = 0; i < MD_COUNT(files); i++) try_file(files[i], &passed, &failed);
  failed += try_barriers(&passed) + try_workspace(&passed);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
