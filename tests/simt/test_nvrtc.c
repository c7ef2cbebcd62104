// SPDX-License-Identifier: Apache-2.0
// NVRTC takes the text of every sample and of some random graphs, for the first and for the newest
// target with a cubin each, and no kernel spills. Without NVRTC: says so and is skipped.
#include "tests/simt/kernels.h"
#include "tests/simt/program.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

enum { RANDOM_GRAPHS = 12 };

static const md_cuda_arch archs[] = {{80, 0}, {90, 0}, {90, 'a'}};

static const char *const files[] = {"gemm.cu", "dumps.cu"};

static int compile(Program *p, const char *name, md_diags *d) {
  int failed = 0;
  for (int a = 0; p && a < MD_COUNT(archs); a++) {
    md_cubin c;
    bool ok =
        !p->m->num_refused && md_nvrtc_compile(p->m->text.s, "sample.cu", archs[a], false, &c, d);
    ok = ok && c.bytes > 4 && !memcmp(c.data, "\177ELF", 4) && strstr(c.log, "Used ");
    if (!ok)
      printf("FAILED %s for sm_%d: %s\n%s\n", name, archs[a].sm, md_diags_text(d), p->m->text.s);
    failed += !ok;
    free(c.data);
    free(c.log);
  }
  if (!p) printf("FAILED %s: %s\n", name, md_diags_text(d));
  failed += !p;
  program_destroy(p);
  return failed;
}

// Texts by hand: for every target, sizes in front.
static int compile_file(const char *file, md_diags *d) {
  char *text = kernels_read(file);
  md_text t = {0};
  md_put(&t, "#define M 100\n#define N 72\n#define K 200\n%s", text ? text : "");
  int failed = !text;
  for (int a = 0; text && a < MD_COUNT(archs); a++) {
    md_cubin c;
    md_diags_clear(d);
    bool ok = md_nvrtc_compile(t.s, file, archs[a], false, &c, d);
    if (!ok) printf("FAILED %s for sm_%d: %s\n", file, archs[a].sm, md_diags_text(d));
    failed += !ok;
    free(c.data);
    free(c.log);
  }
  md_text_free(&t);
  free(text);
  return failed;
}

// A kernel that must spill is refused.
static int refuses_spills(void) {
  static const char text[] = "MD_KERNEL(1024) k0(const float *a0, float *a1, int n) {\n"
                             "  float x[200];\n  for (int i = 0; i < 200; i++) x[i] = a0[i * n];\n"
                             "  for (int j = 0; j < n; j++)\n    for (int i = 0; i < 200; i++) "
                             "x[i] = x[i] * x[(i * 7 + j) % 200];\n"
                             "  for (int i = 0; i < 200; i++) a1[i] = x[i];\n}\n";
  md_diags *d = md_diags_create();
  md_cubin c;
  bool ok = !md_nvrtc_compile(text, "spill.cu", archs[0], false, &c, d) &&
            strstr(md_diags_text(d), "E0444") && strstr(md_diags_text(d), "kernel k0 spills");
  if (!ok) printf("FAILED a kernel that spills: %s\n", md_diags_text(d));
  md_diags_destroy(d);
  return !ok;
}

static int refuses_nonsense(void) {
  md_diags *d = md_diags_create();
  md_cubin c;
  bool ok = !md_nvrtc_compile("MD_KERNEL(32) k0(float *a0) { a0[0] = nothing; }\n", "bad.cu",
                              archs[0], false, &c, d) &&
            strstr(md_diags_text(d), "E0443") && strstr(md_diags_text(d), "bad.cu(1)");
  if (!ok) printf("FAILED a text that is wrong: %s\n", md_diags_text(d));
  md_diags_destroy(d);
  return !ok;
}

int main(void) {
  int major, minor, num = 0, failed = 0;
  md_diags *d = md_diags_create();
  if (!md_nvrtc_version(&major, &minor, d)) {
    printf("skipped: %s", md_diags_text(d));
    md_diags_destroy(d);
    return 77;
  }
  md_text text = {0};
  char name[64];
  for (int i = 0; simt_sample(i, &text, name); i++, num++) {
    md_diags_clear(d);
    failed += compile(program_create(text.s, 2, 1, d), name, d);
    md_text_free(&text);
    text = (md_text){0};
  }
  for (uint64_t seed = 1; seed <= RANDOM_GRAPHS; seed++, num++) {
    md_diags_clear(d);
    snprintf(name, sizeof name, "random graph %d", (int)seed);
    md_graph *g = simt_random_graph(seed, d);
    failed += compile(g ? program_of(g, 2, seed, d) : NULL, name, d);
  }
  for (int i = 0; i < MD_COUNT(files); i++) failed += compile_file(files[i], d);
  failed += refuses_spills() + refuses_nonsense();
  printf("NVRTC %d.%d: %d graphs for %d targets, %d failed\n", major, minor, num, MD_COUNT(archs),
         failed);
  md_diags_destroy(d);
  return failed != 0;
}
