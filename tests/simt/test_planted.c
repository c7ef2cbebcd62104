// SPDX-License-Identifier: Apache-2.0
// The checker finds what it is there to find: kernels with a bug each and the message it must bring,
// the same kernels without it, and the generated InfoNCE kernels with one barrier taken out.
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

static const char text[] =
    "#define N 70\n"
    // y[i] = x of the neighbour, through shared memory; SYNC where a barrier must be.
    "#define SHIFT(name, first, second)                                          \\\n"
    "  MD_KERNEL(64) name(const float *x, float *y) {                            \\\n"
    "    MD_SHARED(shared);                                                      \\\n"
    "    float *const s = (float *)shared;                                       \\\n"
    "    for (int i = 0; i < 2; i++) {                                           \\\n"
    "      s[md_thread()] = x[md_thread()];                                      \\\n"
    "      first                                                                 \\\n"
    "      y[md_thread()] = s[(md_thread() + 1) % 64];                           \\\n"
    "      second                                                                \\\n"
    "    }                                                                       \\\n"
    "  }                                                                         \\\n"
    "  void name##_call(void *const *a);                                         \\\n"
    "  __attribute__((no_sanitize(\"thread\"))) void name##_call(void *const *a) { name(a[0], "
    "a[1]); }\n"
    "#define KERNEL(name, body)                                                  \\\n"
    "  MD_KERNEL(64) name(float *x, float *y) {                                  \\\n"
    "    MD_SHARED(shared);                                                      \\\n"
    "    float *const s = (float *)shared;                                       \\\n"
    "    const int i = md_block() * 64 + md_thread();                            \\\n"
    "    (void)s; (void)i; (void)x; (void)y;                                           \\\n"
    "    body                                                                    \\\n"
    "  }                                                                         \\\n"
    "  void name##_call(void *const *a);                                         \\\n"
    "  __attribute__((no_sanitize(\"thread\"))) void name##_call(void *const *a) { name(a[0], "
    "a[1]); }\n"
    "SHIFT(good_shift, md_sync();, md_sync();)\n"
    "SHIFT(no_barrier_before_read, , md_sync();)\n"
    "SHIFT(no_barrier_before_write, md_sync();, )\n"
    "KERNEL(good_guard, if (i < N) y[i] = x[i];)\n"
    "KERNEL(no_guard, y[i] = 1.0f;)\n"
    "KERNEL(read_past_end, y[i % N] = x[i + 7];)\n"
    "KERNEL(shared_past_end, s[i % 64 + 1] = 1.0f;)\n"
    "KERNEL(far_away, *(float *)((char *)y + 1000000000) = (float)i;)\n"
    "KERNEL(unset_shared, y[i] = s[md_thread()];)\n"
    "KERNEL(unset_result, x[i] = y[i];)\n"
    "KERNEL(input_written, x[i] = 1.0f;)\n"
    "KERNEL(blocks_collide, y[md_thread()] = (float)md_block();)\n"
    "KERNEL(block_reads_other, y[i] = 1.0f; if (md_thread() == 0) x[0] = y[(i + 64) % N];)\n"
    "KERNEL(threads_collide, y[md_thread() / 2] = (float)md_thread();)\n"
    "KERNEL(conditional_barrier, if (md_thread() != 5) md_sync();)\n"
    "KERNEL(other_barrier, if (md_thread() != 5) md_sync();\n else md_sync();)\n"
    "KERNEL(conditional_shuffle, float v = 1.0f; if (i % 32 < 7) v = md_shfl_xor(v, 1); y[i] = "
    "v;)\n"
    "KERNEL(misaligned, *(float *)((char *)y + 4 * md_thread() + 2) = 1.0f;)\n";

static const struct Case {
  const char *kernel;
  int blocks;
  const char *message;  // NULL: nothing is wrong
} cases[] = {
    {"good_shift", 1, NULL},
    {"no_barrier_before_read", 1, "reads shared memory"},
    {"no_barrier_before_write", 1, "race: "},
    {"good_guard", 2, NULL},
    {"no_guard", 2, "writes 4 bytes of y at +280, but it has 280"},
    {"read_past_end", 2, "reads 4 bytes of x at +280, but it has 280"},
    {"shared_past_end", 1, "writes 4 bytes of shared memory at +256, but it has 256"},
    {"far_away", 1, "writes 4 bytes at an address in no buffer"},
    {"unset_shared", 1, "reads shared memory +0, which nobody has written"},
    {"unset_result", 1, "reads y +0, which nobody has written"},
    {"input_written", 1, "writes x +0, which is only read here"},
    {"blocks_collide", 2, "conflict: writes y +0, which another block wrote"},
    {"threads_collide", 1, "race: writes y +0, which thread 0 wrote without a barrier between"},
    {"conditional_barrier", 1, "deadlock: 63 threads wait at the barrier"},
    {"other_barrier", 1, "divergent barrier"},
    {"conditional_shuffle", 1, "threads wait at the shuffle"},
    {"misaligned", 1, "misaligned"},
};

static bool expect(const char *what, const char *message, const simt_report *r) {
  bool ok = message ? r->errors && strstr(r->first, message) : !r->errors;
  if (!ok)
    printf("FAILED %s: expected '%s', got '%s'\n", what, message ? message : "",
           r->errors ? r->first : "");
  return ok;
}

static bool run_case(const simt_code *code, const struct Case *c, simt_options o) {
  char name[64];
  snprintf(name, sizeof name, "%s_call", c->kernel);
  float *x = simt_buffer("x", 70 * 4, true), *y = simt_buffer("y", 70 * 4, false);
  simt_writable(x, strcmp(c->kernel, "unset_result") == 0);
  for (int i = 0; i < 70; i++) x[i] = (float)i;
  void *arg[] = {x, y};
  simt_launch l = {simt_entry(code, name), arg, c->blocks, 64, 256};
  simt_report r = simt_run(&l, o);
  bool ok = expect(c->kernel, c->message, &r);
  for (int i = 0; ok && i < 64 && !strcmp(c->kernel, "good_shift"); i++)
    ok = y[i] == (float)((i + 1) % 64);
  simt_free_buffers();
  return ok;
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
      "graph @s(%n_q: f32[9,40], %k_ids: i32[9], %n_bank: f32[130,40], %e_rows: i32[130], %dl: "
      "f32[9]) {\n"
      "  %lse, %top = nce_lse %n_q, %k_ids, %n_bank, %e_rows {tau=0.1}\n"
      "  %dq = nce_lse_grad %dl, %lse, %n_q, %k_ids, %n_bank, %e_rows {tau=0.1}\n"
      "  return %lse, %top, %dq\n}\n";
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
  if (num < 6) {
    printf("FAILED InfoNCE: only %d barriers\n%s", num, md_diags_text(d));
    failed++;
  }
  program_destroy(p);
  md_diags_destroy(d);
  return failed;
}

int main(void) {
  int passed = 0, failed = 0;
  simt_code *code = simt_build(text);
  if (!code) return 1;
  for (int i = 0; i < MD_COUNT(cases); i++) {
    bool ok = run_case(code, &cases[i], (simt_options){SIMT_FORWARD, 0});
    passed += ok;
    failed += !ok;
  }
  // Whatever the schedule: a race is two accesses, not an outcome.
  for (int i = 0; i < 3; i++) {
    bool ok = run_case(code, &cases[i], (simt_options){SIMT_REVERSE, 0}) &&
              run_case(code, &cases[i], (simt_options){SIMT_RANDOM, 7});
    passed += ok;
    failed += !ok;
  }
  simt_code_free(code);
  failed += try_barriers(&passed);
  printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}
