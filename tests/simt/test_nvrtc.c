// SPDX-License-Identifier: Apache-2.0
// NVRTC takes the text of every sample and of some random graphs, for the first and for the newest
// target with a cubin each, and no kernel spills; what ptxas says of it is what the cubin says. Where
// sm_90a has other kernels, those. Without NVRTC: says so and is skipped.
#include "tests/simt/kernels.h"
#include "tests/simt/program.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

enum { RANDOM_GRAPHS = 16 };

static const md_cuda_arch archs[] = {{80, 0}, {90, 0}, {90, 'a'}};

static const struct {
  const char *name;
  bool is_90a;  // only for this target
} files[] = {
    {"gemm.cu", false}, {"dumps.cu", false}, {"dumps_hopper.cu", true}, {"hopper.cu", true}};

static const md_kernel_facts *find(const md_kernel_facts *k, int num, const char *name) {
  for (int i = 0; i < num; i++)
    if (!strcmp(k[i].name, name)) return &k[i];
  return NULL;
}

// The same facts from the log and from the binary; threads and parameters are those of the launches.
static bool agrees(const md_cuda_module *m, const md_cubin *c, md_cuda_arch arch) {
  md_kernel_facts k[MAX_KERNELS];
  md_cuda_usage *u;
  const char *why;
  int sm, num = md_cubin_read(c->data, c->bytes, k, MAX_KERNELS, &sm, &why);
  int said = md_cuda_usage_of_log(c->log, &u);
  bool ok = num == m->num_kernels && said == num && sm == arch.sm;
  for (int i = 0; i < said; i++) {
    const md_kernel_facts *f = find(k, num, u[i].facts.name);
    ok = ok && f && f->registers > 0 && f->registers == u[i].facts.registers &&
         f->frame_bytes == u[i].facts.frame_bytes && f->shared_bytes == u[i].facts.shared_bytes;
  }
  for (int i = 0; i < m->num_launches; i++) {
    const md_kernel_facts *f = find(k, num, m->launch[i].kernel);
    ok = ok && f && f->param_bytes == 8 * (m->launch[i].num_args + m->launch[i].num_counts) &&
         f->max_threads == m->launch[i].threads;
  }
  free(u);
  if (!ok) printf("FAILED: cubin, log and launches do not agree\n");
  return ok;
}

// sm_90 is sm_90a without its own instructions, which these texts do not have: one in four is enough to
// see that the prelude is for both.
static int compile_module(const md_cuda_module *m, const char *name, bool with_90, md_diags *d) {
  int failed = 0;
  for (int a = 0; a < MD_COUNT(archs); a++) {
    if (archs[a].sm == 90 && !archs[a].suffix && !with_90) continue;
    md_cubin c;
    bool ok = !m->num_refused && md_nvrtc_compile(m->text.s, "sample.cu", archs[a], false, &c, d);
    ok = ok && c.bytes > 4 && !memcmp(c.data, "\177ELF", 4) && strstr(c.log, "Used ") &&
         agrees(m, &c, archs[a]);
    if (!ok)
      printf("FAILED %s for sm_%d: %s\n%s\n", name, archs[a].sm, md_diags_text(d), m->text.s);
    failed += !ok;
    free(c.data);
    free(c.log);
  }
  return failed;
}

static int compile(Program *p, const char *name, bool with_90, md_diags *d) {
  int failed = p ? compile_module(p->m, name, with_90, d) : 0;
  if (!p) printf("FAILED %s: %s\n", name, md_diags_text(d));
  failed += !p;
  program_destroy(p);
  return failed;
}

// Blocks with roles trade registers: there must be as many as the text takes them to have.
static bool has_registers(const md_cuda_module *m, const md_cubin *c) {
  md_kernel_facts k[MAX_KERNELS];
  const char *why;
  int sm, num = md_cubin_read(c->data, c->bytes, k, MAX_KERNELS, &sm, &why);
  for (int i = 0; i < num; i++)
    if (k[i].max_threads > 256 && k[i].max_threads * k[i].registers != 65536) return false;
  return num == m->num_kernels;
}

static int compile_wgmma(const char *text, const char *name, md_diags *d) {
  md_cuda_arch arch = archs[MD_COUNT(archs) - 1];
  md_graph *g = md_parse_graph("sample", text, strlen(text), d);
  Program *p = g ? program_for(arch, g, 2, MD_F32, 1, d) : NULL;
  md_cubin c = {0};
  bool other = p && strstr(p->m->text.s, "md_wgmma");
  bool ok = p && (!other || (md_nvrtc_compile(p->m->text.s, "sample.cu", arch, false, &c, d) &&
                             !strstr(c.log, "C75") && has_registers(p->m, &c)));
  if (!ok) printf("FAILED %s with wgmma: %s\n%s\n", name, md_diags_text(d), c.log ? c.log : "");
  free(c.data);
  free(c.log);
  program_destroy(p);
  return !ok;
}

// Indices beyond 32 bits, in graphs that no test could run.
static int compile_wide(md_diags *d) {
  static const char text[] =
      "graph @wide(%x: f32[64,32,32,256,256], %i: i64[7], %z: f32[3000000,512], %p: i64[1], "
      "%l: i64[3000000], %w: f32[512,9], %s: f32[64], %y: f32[2,2000000000], %k: i32[2]) {\n"
      "  %r = relu %x\n  %a, %b = max_pool3d %r {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}\n"
      "  %c = max_pool3d_grad %a, %b {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1], "
      "shape=[64,32,32,256,256]}\n  %d = avg_pool3d %r {kernel=[32,256,256]}\n"
      "  %e = concat %x, %x {axis=0}\n  %f = pad %x {axis=4, after=1}\n"
      "  %g = gather_rows %x, %i\n  %h = scatter_rows %z, %l {rows=5000000}\n"
      "  %n = bank_push %z, %z, %p\n  %o = softmax %z\n  %q = cross_entropy %z, %l\n"
      "  %t = matmul %z, %w\n  %u = matmul %z, %z {tx=true}\n  %v = argmax %y\n"
      "  %aa = resize %x {size=[128,300]}\n  %ab = gaussian_blur %x, %s {size=5}\n"
      "  %ac = crop %x {top=1, left=1, h=250, w=250}\n  %ad = frame_difference %x\n"
      "  %ae = topk_hit %y, %k {k=5}\n"
      "  return %c, %d, %e, %f, %g, %h, %n, %o, %q, %t, %u, %v, %aa, %ab, %ac, %ad, %ae\n}\n";
  md_pass_options o = md_pass_defaults();
  md_graph *g = md_parse_graph("wide", text, strlen(text), d);
  int failed = 1;
  if (g && md_cuda_facts("cuda:sm_80", &o.facts, d)) g = md_run_passes(g, &o, NULL, d);
  md_cuda_module *m = g ? md_cuda_generate(g, archs[0], NULL, d) : NULL;
  if (m) failed = compile_module(m, "wide indices", true, d);
  else printf("FAILED wide indices: %s\n", md_diags_text(d));
  md_cuda_module_free(m);
  if (g) md_graph_destroy(g);
  return failed;
}

// Texts by hand: for every target, sizes in front.
static int compile_file(const char *file, bool is_90a, md_diags *d) {
  char *text = kernels_read(file);
  md_text t = {0};
  md_put(&t,
         "#define M 100\n#define N 72\n#define K 200\n#define IMAGES 2\n#define DEPTH 2\n"
         "#define H 9\n#define W 7\n%s",
         text ? text : "");
  int failed = !text;
  for (int a = 0; text && a < MD_COUNT(archs); a++) {
    md_cubin c;
    md_diags_clear(d);
    bool ok =
        md_nvrtc_compile(t.s, file, archs[a], false, &c, d) == (!is_90a || archs[a].suffix == 'a');
    // C7508, C7510: registers stay as they were; wgmma in the order of the text.
    ok = ok && !(c.log && strstr(c.log, "C75"));
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
  // Warnings before the mistake do not hide it.
  static const char text[] = "MD_KERNEL(32) k0(float *a0) {\n  int a, b, c, d, e, f, g, h;\n"
                             "  a0[0] = nothing;\n}\n";
  bool ok = !md_nvrtc_compile(text, "bad.cu", archs[0], false, &c, d) &&
            strstr(md_diags_text(d), "E0443") && strstr(md_diags_text(d), "note: bad.cu(3): error");
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
    failed += compile(program_create(text.s, 2, 1, d), name, num % 4 == 0, d);
    if (strstr(text.s, "conv3d")) failed += compile_wgmma(text.s, name, d);
    md_text_free(&text);
    text = (md_text){0};
  }
  for (uint64_t seed = 1; seed <= RANDOM_GRAPHS; seed++, num++) {
    md_diags_clear(d);
    snprintf(name, sizeof name, "%s graph %d", seed % 2 ? "random" : "fused", (int)seed);
    md_graph *g = seed % 2 ? simt_random_graph(seed, d) : simt_fused_graph(seed, d);
    failed += compile(g ? program_of(g, 2, seed, d) : NULL, name, num % 4 == 0, d);
  }
  for (int i = 0; i < MD_COUNT(files); i++)
    failed += compile_file(files[i].name, files[i].is_90a, d);
  md_diags_clear(d);
  failed += compile_wide(d) + refuses_spills() + refuses_nonsense();
  printf("NVRTC %d.%d: %d graphs for %d targets, %d failed\n", major, minor, num, MD_COUNT(archs),
         failed);
  md_diags_destroy(d);
  return failed != 0;
}
