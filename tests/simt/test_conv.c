// SPDX-License-Identifier: Apache-2.0
// Convolutions on the fiber machine against the interpreter, region by region, at two pass levels and with
// all that a region can hold; and once more where sm_90a has other kernels than sm_80, and products of bf16 for
// sm_75, which makes them in f32. In two schedules at least, copies late and at once, which must agree bit by bit.
//   test_conv [--only=TEXT]
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

enum { ALL_FUSED = 3 };  // beyond the levels of the passes

static const md_cuda_arch archs[] = {{80, 0}, {90, 'a'}, {75, 0}};

static bool multiplies_by_wgmma(const Program *p) { return strstr(p->m->text.s, "md_wgmma"); }

// Has the architecture kernels of its own for this?
static bool differs(const Program *p, md_cuda_arch arch, int level) {
  if (arch.sm < 80) return level == 2 && strstr(p->m->text.s, "md_bf16 *");
  return arch.sm == 80 || multiplies_by_wgmma(p);
}

// Programs wait for one another, so that the compiler is called once for several.
typedef struct Waiting {
  Program *p;
  md_cuda_arch arch;
  md_diags *d;
  char name[96];
} Waiting;
static Waiting waiting[8];
static int num_waiting;

static const md_op products[] = {MD_OP_conv3d, MD_OP_conv3d_dgrad, MD_OP_conv3d_wgrad};
static int by_windows[MD_COUNT(products)];  // launches whose operands TMA copies
static int in_parts;  // regions that add up sums in parts, in several schedules

// With wgmma the order of warps decides more than elsewhere. What sm_75 has of its own has no copies.
static int run(const Program *p, md_cuda_arch arch, const char *name) {
  static const simt_options modes[] = {{SIMT_FORWARD, 0}, {SIMT_REVERSE, 0}, {SIMT_RANDOM, 1}};
  int num = arch.sm < 80 ? 1 : multiplies_by_wgmma(p) ? MD_COUNT(modes) : 2, failed = 0;
  Regions first = {0};
  if (!run_build(p)) return printf("FAILED %s: its text\n", name), 1;
  for (int i = 0; i < num; i++) {
    Regions r = run_regions(p, NULL, modes[i], name);
    failed += r.failed + !r.passed;
    if (!i) first = r;
    if (r.failed || first.failed || (r.bits.lo == first.bits.lo && r.bits.hi == first.bits.hi))
      continue;
    printf("FAILED %s: bits of schedule %d are not those of the first\n", name, i);
    failed++;
  }
  for (int i = 0; i < MD_COUNT(products); i++) by_windows[i] += program_windows(p, products[i]);
  if (num > 1) in_parts += run_sums_in_parts(p);
  return failed;
}

static int run_waiting(void) {
  Program *p[MD_COUNT(waiting)];
  int failed = 0;
  for (int i = 0; i < num_waiting; i++) p[i] = waiting[i].p;
  run_build_all(p, num_waiting);
  for (int i = 0; i < num_waiting; i++) {
    failed += run(p[i], waiting[i].arch, waiting[i].name);
    program_destroy(p[i]);
    md_diags_destroy(waiting[i].d);
  }
  num_waiting = 0;
  return failed;
}

// What a convolution of several taps reads is made in its region, as a text may ask for: the passes for
// CUDA store it before.
static md_graph *fuse_all(md_graph *g, md_diags *d) {
  md_pass_options o = md_pass_defaults();
  o.passes = "fuse-conv-bn-relu,fuse-pointwise,regions";
  if (!md_cuda_facts("cuda:sm_80", &o.facts, d)) {
    md_graph_destroy(g);
    return NULL;
  }
  o.facts.taps_formed = 0;
  return md_run_passes(g, &o, NULL, d);
}

static int try(const char *name, const char *text, int level, int *with_wgmma, int *in_f32) {
  int failed = 0;
  for (int a = 0; a < MD_COUNT(archs); a++) {
    md_diags *d = md_diags_create();
    md_graph *g = md_parse_graph("sample", text, strlen(text), d);
    if (g && level == ALL_FUSED) g = fuse_all(g, d);
    Program *p = g ? program_apart(archs[a], g, level, MD_F32, 1, d) : NULL;
    bool ok = p && !p->m->num_refused, wgmma = ok && multiplies_by_wgmma(p);
    char full[96];
    snprintf(full, sizeof full, "%s, level %d, sm_%d", name, level, archs[a].sm);
    if (ok && differs(p, archs[a], level) && !run_is_known(p)) {
      Waiting *w = &waiting[num_waiting++];
      *w = (Waiting){.p = p, .arch = archs[a], .d = d};
      snprintf(w->name, sizeof w->name, "%s", full);
      *with_wgmma += wgmma;
      *in_f32 += archs[a].sm < 80;
      if (num_waiting == MD_COUNT(waiting)) failed += run_waiting();
      continue;
    }
    if (!ok) {
      printf("FAILED %s: %s\n", full, p ? p->m->refused[0].why : md_diags_text(d));
      failed++;
    }
    program_destroy(p);
    md_diags_destroy(d);
  }
  return failed;
}

// --- batches that share kernels

static Program *of_batch(int samples, md_cuda_arch arch, md_diags *d) {
  md_text t = {0};
  md_put(&t,
         "graph @s(%%x: f32[%d,8,1,6,7], %%u: f32[72,8,1,1,1], %%w: f32[256,72,1,3,3], "
         "%%g: f32[72], %%b: f32[72], %%dy: f32[%d,256,1,6,7]) {\n"
         "  %%a = conv3d %%x, %%u\n  %%m, %%v = moments %%a {groups=1}\n"
         "  %%n = batch_norm %%a, %%g, %%b, %%m, %%v {batch_stats=true}\n  %%r = relu %%n\n"
         "  %%y = conv3d %%r, %%w {pad=[0,1,1]}\n  %%my, %%vy = moments %%y {groups=1}\n"
         "  %%dx = conv3d_dgrad %%dy, %%w {pad=[0,1,1], shape=[%d,72,1,6,7]}\n"
         "  %%dw = conv3d_wgrad %%dy, %%r {pad=[0,1,1], shape=[256,72,1,3,3]}\n"
         "  return %%y, %%my, %%vy, %%dx, %%dw\n}\n",
         samples, samples, samples);
  md_graph *g = md_parse_graph("sample", t.s, t.len, d);
  Program *p = g ? program_apart(arch, g, 2, MD_BF16, 1, d) : NULL;
  md_text_free(&t);
  return p;
}

static bool has_kernel(const Program *p, const char *symbol) {
  for (int i = 0; i < p->m->num_kernels; i++)
    if (!strcmp(p->m->kernel[i].symbol, symbol)) return true;
  return false;
}

// What was compiled for one batch runs the other.
static int run_two_batches(md_cuda_arch arch) {
  md_diags *d = md_diags_create();
  Program *a = of_batch(9, arch, d), *b = of_batch(7, arch, d);
  int failed = !a || !b, others = 0;
  for (int i = 0; !failed && i < b->m->num_kernels; i++)
    others += b->m->kernel[i].num_counts && !has_kernel(a, b->m->kernel[i].symbol);
  if (failed || others)
    printf("FAILED two batches on sm_%d: %d kernels with counts are of one alone; %s\n", arch.sm,
           others, md_diags_text(d));
  failed += others;
  if (a && b) failed += run(a, arch, "batch of 9") + run(b, arch, "batch of 7");
  program_destroy(a);
  program_destroy(b);
  md_diags_destroy(d);
  return failed;
}

int main(int argc, char **argv) {
  const char *only = argc > 1 && !strncmp(argv[1], "--only=", 7) ? argv[1] + 7 : NULL;
  int failed = 0, tried = 0, with_wgmma = 0, in_f32 = 0;
  md_text text = {0};
  char name[64];
  for (int i = 0; simt_conv_sample(i, &text, name); i++) {
    for (int level = 0; level <= ALL_FUSED; level += level ? 1 : 2) {
      bool drawn = strstr(text.s, "region");  // the text says what is fused
      if ((only && !strstr(name, only)) || (drawn && level == ALL_FUSED)) continue;
      failed += try(name, text.s, level, &with_wgmma, &in_f32);
      tried++;
    }
    md_text_free(&text);
    text = (md_text){0};
  }
  failed += run_waiting();
  for (int i = 0; !only && i < MD_COUNT(archs); i++) failed += run_two_batches(archs[i]);
  simt_forget();
  printf("%d tried, %d of them with wgmma too, %d with bf16 in f32; %d sums in parts\n", tried,
         with_wgmma, in_f32, in_parts);
  bool all_kinds = with_wgmma && in_f32 && in_parts;
  for (int i = 0; i < MD_COUNT(products); i++) {
    printf("%d launches of %s by TMA\n", by_windows[i], md_ops[products[i]].name);
    all_kinds &= by_windows[i] > 0;
  }
  printf("%d failures\n", failed);
  return failed || !tried || (!only && !all_kinds);
}
