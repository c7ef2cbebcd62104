// SPDX-License-Identifier: Apache-2.0
// NVRTC takes the text of every sample and of some random graphs, for the first and for the newest
// target with a cubin each, and no kernel spills; what ptxas says of it is what the cubin says. Of the samples of
// convolutions, a kernel of each family. Cubins and logs are kept in MODIST_TEST_KEPT by the digest of all that they
// depend on. Without NVRTC: says so and is skipped.
#include "tests/simt/kernels.h"
#include "tests/simt/program.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "tests/simt/simt.h"

enum { RANDOM_GRAPHS = 16, BATCH = 16, REGISTERS = 65536 };  // of a multiprocessor

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

// --- what is kept

static bool read_part(const char *path, const char *end, char **data, size_t *bytes) {
  char name[600];
  snprintf(name, sizeof name, "%s.%s", path, end);
  md_diags *quiet = md_diags_create();
  bool ok = md_file_read(name, 64 << 20, E0801, quiet, data, bytes);
  md_diags_destroy(quiet);
  return ok;
}

static bool write_part(const char *path, const char *end, const void *data, size_t bytes) {
  char name[600];
  snprintf(name, sizeof name, "%s.%s", path, end);
  return md_file_save(name, data, bytes, NULL);
}

// What compiles and does not spill, as NVRTC or as a former run has it.
static bool compile_kept(const char *text, const char *name, md_cuda_arch arch, md_cubin *c,
                         md_diags *d) {
  const char *folder = getenv("MODIST_TEST_KEPT");
  char path[560], hex[33];
  md_digest key;
  size_t len;
  *c = (md_cubin){0};
  if (!folder || !md_nvrtc_key(text, arch, false, &key, d))
    return md_nvrtc_compile(text, name, arch, false, c, d);
  snprintf(path, sizeof path, "%s/nvrtc/%s", folder, md_digest_text(key, hex));
  if (read_part(path, "log", &c->log, &len) && read_part(path, "cubin", &c->data, &c->bytes))
    return md_cuda_check_log(c->log, name, d);
  free(c->log);
  if (!md_nvrtc_compile(text, name, arch, false, c, d)) return false;
  if (write_part(path, "cubin", c->data, c->bytes)) write_part(path, "log", c->log, strlen(c->log));
  return true;
}

// --- samples

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
    bool ok = !m->num_refused && compile_kept(m->text.s, "sample.cu", archs[a], &c, d);
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

// --- kernels of convolutions

// Kernels that are compiled together, each under its symbol.
typedef struct Batch {
  md_cuda_arch arch;
  md_text text;
  char symbol[BATCH][24];
  int threads[BATCH], num, all;  // all: that went through it
} Batch;

// Blocks with roles trade registers: there must be as many as the text takes them to have.
static bool has_registers(const md_kernel_facts *f, int threads) {
  bool has_roles = threads > 256;
  return f && f->max_threads == threads && !f->frame_bytes &&
         (!has_roles || threads * f->registers == REGISTERS);
}

static int compile_batch(Batch *b, md_diags *d) {
  md_kernel_facts k[MAX_KERNELS];
  md_cubin c = {0};
  const char *why = "";
  int sm, num = 0;
  md_diags_clear(d);
  bool ok = !b->num || compile_kept(b->text.s, "products.cu", b->arch, &c, d);
  if (ok && b->num) num = md_cubin_read(c.data, c.bytes, k, MAX_KERNELS, &sm, &why);
  ok = ok && num == b->num && !(c.log && strstr(c.log, "C75"));
  for (int i = 0; ok && i < num; i++) {
    const md_kernel_facts *f = find(k, num, b->symbol[i]);
    ok = has_registers(f, b->threads[i]);
    if (!ok) printf("FAILED %s: %d registers\n", b->symbol[i], f ? f->registers : 0);
  }
  if (!ok)
    printf("FAILED products for sm_%d: %s%s\n%s\n", b->arch.sm, why ? why : "", md_diags_text(d),
           b->text.s);
  free(c.data);
  free(c.log);
  md_text_free(&b->text);
  *b = (Batch){.arch = b->arch, .all = b->all + b->num};
  return !ok;
}

static int put_kernel(Batch *b, const md_cuda_module *m, int number, md_diags *d) {
  const md_cuda_kernel *k = &m->kernel[number];
  for (int i = 0; i < m->num_launches; i++)
    if (m->launch[i].number == number) b->threads[b->num] = m->launch[i].threads;
  snprintf(b->symbol[b->num++], sizeof b->symbol[0], "%s", k->symbol);
  simt_put_kernel(&b->text, k->text);
  return b->num == BATCH ? compile_batch(b, d) : 0;
}

// What threads do together and what units do beside them, whatever its order: kernels with the same of it are
// of one family.
static bool is_shared_work(const char *name) {
  static const char *const begin[] = {"md_mma",  "md_ldmatrix", "md_cp_",  "md_wgmma",
                                      "md_bulk", "md_sync",     "md_regs", "md_last",
                                      "md_shfl", "md_fence",    "md_desc"};
  for (int i = 0; i < MD_COUNT(begin); i++)
    if (!strncmp(name, begin[i], strlen(begin[i]))) return true;
  return false;
}

static md_digest family_of(const char *text) {
  md_text seen = {0};
  md_digest all = {0};
  for (const char *s = text; (s = strstr(s, "md_"));) {
    int len = (int)strspn(s, "abcdefghijklmnopqrstuvwxyz_0123456789");
    char name[48];
    snprintf(name, sizeof name, "%.*s(", len, s);
    s += len;
    if (*s != '(' || !is_shared_work(name) || (seen.s && strstr(seen.s, name))) continue;
    md_put(&seen, "%s", name);
    md_digest d = md_digest_of(name, strlen(name));
    all.lo += d.lo;
    all.hi += d.hi;
  }
  md_text_free(&seen);
  return all;
}

static bool is_new(md_digest family) {
  static md_digest *seen;
  static int num, cap;
  for (int i = 0; i < num; i++)
    if (seen[i].lo == family.lo && seen[i].hi == family.hi) return false;
  MD_PUSH(seen, num, cap, family);
  return true;
}

// Its kernel for both gradients takes 8 bytes of stack.
static const char spilling[] = "both gradients, 64 to 256 channels";

// One kernel of each family: those with wgmma for the target that has it, others in turns.
static int compile_products(md_diags *d) {
  Batch batch[] = {{.arch = {80, 0}}, {.arch = {90, 'a'}}};
  int failed = 0, turn = 0, num_wgmma = 0;
  for (int a = 0; a < MD_COUNT(batch); a++) {
    md_text text = {0};
    char name[64];
    for (int i = 0; simt_conv_sample(i, &text, name); i++) {
      md_graph *g = md_parse_graph("sample", text.s, text.len, d);
      Program *p = g ? program_for(batch[a].arch, g, 2, MD_F32, 1, d) : NULL;
      if (!p) printf("FAILED %s: %s\n", name, md_diags_text(d));
      failed += !p;
      for (int k = 0; p && k < p->m->num_kernels; k++) {
        bool with_wgmma = strstr(p->m->kernel[k].text, "md_wgmma");
        if (with_wgmma && !strcmp(name, spilling)) continue;
        if (with_wgmma != (a > 0) || !is_new(family_of(p->m->kernel[k].text))) continue;
        num_wgmma += with_wgmma;
        failed += put_kernel(&batch[with_wgmma ? 1 : turn++ % 2], p->m, k, d);
      }
      program_destroy(p);
      md_text_free(&text);
      text = (md_text){0};
    }
  }
  failed += compile_batch(&batch[0], d) + compile_batch(&batch[1], d);
  printf("products: %d for sm_80, %d for sm_90a, %d of them with wgmma\n", batch[0].all,
         batch[1].all, num_wgmma);
  return failed + !num_wgmma;
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
  failed += compile_products(d) + compile_wide(d) + refuses_spills() + refuses_nonsense();
  printf("NVRTC %d.%d: %d graphs for %d targets, %d failed\n", major, minor, num, MD_COUNT(archs),
         failed);
  md_diags_destroy(d);
  return failed != 0;
}
