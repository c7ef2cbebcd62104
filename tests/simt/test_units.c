// SPDX-License-Identifier: Apache-2.0
// Kernels as compilation units of their own: what their PTX says of them is what their launches say; the
// cache keeps them; what would be slow is refused. Without NVRTC: says so and is skipped.
#include "tests/simt/program.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_KERNELS = 64 };
static const md_cuda_arch archs[] = {{80, 0}, {90, 'a'}}, newest = {120, 0};
static int failed;

static void check(bool ok, const char *claim, const char *seen) {
  if (!ok) printf("FAILED %s\n%s\n", claim, seen ? seen : "");
  failed += !ok;
}

static const md_kernel_facts *find(const md_kernel_facts *k, int num, const char *name) {
  for (int i = 0; i < num; i++)
    if (!strcmp(k[i].name, name)) return &k[i];
  return NULL;
}

static void ptx_agrees(const md_cuda_module *m, md_diags *d) {
  md_kernel_facts k[MAX_KERNELS];
  const char *why;
  md_cubin c = {0};
  bool ok = md_nvrtc_compile(m->text.s, "sample.cu", archs[0], true, &c, d);
  int sm = 0, num = ok ? md_ptx_read(c.data, c.bytes, k, MAX_KERNELS, &sm, &why) : -1;
  check(num == m->num_kernels && sm == 80, "PTX names all kernels", num < 0 ? why : c.data);
  for (int i = 0; i < m->num_launches; i++) {
    const md_kernel_facts *f = find(k, num, m->launch[i].kernel);
    check(f && f->param_bytes == 8 * (m->launch[i].num_args + m->launch[i].num_counts) &&
              f->max_threads == m->launch[i].threads,
          "PTX and launch agree", m->launch[i].kernel);
  }
  free(c.data);
  free(c.log);
}

// Of cubins test_nvrtc says the same.
static void samples_agree(void) {
  char name[64];
  md_text text = {0};
  for (int i = 0; simt_sample(i, &text, name); i++) {
    md_diags *d = md_diags_create();
    Program *p = i % 4 == 0 ? program_create(text.s, 2, 1, d) : NULL;
    check(p || i % 4, name, md_diags_text(d));
    if (p) ptx_agrees(p->m, d);
    program_destroy(p);
    md_diags_destroy(d);
    md_text_free(&text);
    text = (md_text){0};
  }
}

static void static_shared_memory_is_seen(void) {
  static const char text[] =
      "MD_KERNEL(128) ks(float *a0, float *a1) {\n  __shared__ float x[100];\n"
      "  x[md_thread() % 100] = a0[md_thread()];\n  md_sync();\n"
      "  a1[md_thread()] = x[(md_thread() * 7) % 100];\n}\n";
  for (int a = 0; a <= MD_COUNT(archs); a++) {
    md_cuda_arch arch = a < MD_COUNT(archs) ? archs[a] : newest;
    md_diags *d = md_diags_create();
    md_cubin c = {0};
    md_kernel_facts k[1];
    md_cuda_usage *u = NULL;
    const char *why = NULL;
    int sm;
    bool ok = md_nvrtc_compile(text, "shared.cu", arch, false, &c, d) &&
              md_cubin_read(c.data, c.bytes, k, 1, &sm, &why) == 1 && sm == arch.sm &&
              md_cuda_usage_of_log(c.log, &u) == 1 && k->shared_bytes == 400 &&
              u->facts.shared_bytes == 400 && k->max_threads == 128;
    check(ok, "static shared memory without what is reserved", why ? why : md_diags_text(d));
    free(u);
    free(c.data);
    free(c.log);
    md_diags_destroy(d);
  }
}

// A cubin cut off or changed anywhere is read without harm.
static void damaged_cubins_are_harmless(void) {
  static const char text[] = "MD_KERNEL(32) k0(float *a0) { a0[md_thread()] = 1.0f; }\n";
  md_cubin c = {0};
  if (!md_nvrtc_compile(text, "small.cu", archs[1], false, &c, NULL)) return;
  md_kernel_facts k[4];
  const char *why;
  int sm, refused = 0;
  for (size_t len = 0; len < c.bytes; len++) {
    char *part = malloc(len + 1);  // so that a sanitizer sees a step too far
    memcpy(part, c.data, len);
    refused += md_cubin_read(part, len, k, 4, &sm, &why) < 0;
    free(part);
  }
  check(refused > (int)c.bytes / 2, "a cubin that is cut off is refused", NULL);
  for (uint64_t i = 0; i < 20000; i++) {
    size_t at = (size_t)(md_hash_at(1, i) % c.bytes);
    char old = c.data[at];
    c.data[at] = (char)md_hash_at(2, i);
    md_cubin_read(c.data, c.bytes, k, 4, &sm, &why);
    c.data[at] = old;
  }
  check(md_cubin_read(c.data, c.bytes, k, 4, &sm, &why) == 1, "and a whole one is read", why);
  free(c.data);
  free(c.log);
}

static void slow_kernels_are_refused(void) {
  static const struct {
    const char *log, *error;
  } rows[] = {
      {"ptxas info    : Compiling entry function 'k7' for 'sm_80'\n"
       "ptxas         .     416 bytes stack frame, 764 bytes spill stores, 12 bytes spill loads\n"
       "ptxas info    : Used 255 registers, used 1 barriers\n",
       "kernel k7 spills registers (416 bytes of stack, 764 stored, 12 loaded)"},
      {"ptxas info    : Compiling entry function 'k7' for 'sm_80'\n"
       "ptxas         .     16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n",
       "16 bytes of stack"},
      {"ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are "
       "serialized due to insufficient register resources\n",
       "wgmma instructions wait for one another"},
      {"ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored\n",
       "setmaxnreg is ignored"},
      {"ptxas info    : (C7517) warpgroup.wait is injected in around line 1512 by compiler to "
       "allow "
       "use of registers defined by GMMA in function 'k62'\n",
       "are waited for sooner"},
      {"ptxas info    : Compiling entry function 'k7' for 'sm_80'\n"
       "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n",
       NULL},
  };
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_diags *d = md_diags_create();
    bool ok = md_cuda_check_log(rows[i].log, "x.cu", d);
    bool as_wanted = rows[i].error ? !ok && strstr(md_diags_text(d), "E0444") &&
                                         strstr(md_diags_text(d), rows[i].error)
                                   : ok;
    check(as_wanted, rows[i].log, md_diags_text(d));
    md_diags_destroy(d);
  }
}

// An accumulator that is changed between two products makes each wait for the one before.
static void real_lints_are_refused(void) {
  static const char text[] =
      "MD_KERNEL(128) k0(float *a0) {\n  __shared__ __align__(1024) unsigned char s[4096];\n"
      "  md_u64 d = (md_u64)((md_u32)__cvta_generic_to_shared(s) >> 4) | 1ull << 62;\n"
      "  float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};\n"
      "  asm volatile(\"wgmma.fence.sync.aligned;\");\n"
      "  for (int i = 0; i < 4; i++) {\n"
      "    asm volatile(\"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0,%1,%2,%3}, %4, "
      "%5, "
      "1, 1, 1, 0, 0;\" : \"+f\"(c[0]), \"+f\"(c[1]), \"+f\"(c[2]), \"+f\"(c[3]) : \"l\"(d), "
      "\"l\"(d));\n    c[i] = c[i] * a0[i];\n  }\n"
      "  asm volatile(\"wgmma.commit_group.sync.aligned;\");\n"
      "  asm volatile(\"wgmma.wait_group.sync.aligned 0;\" ::: \"memory\");\n"
      "  a0[md_thread()] = c[0] + c[1] + c[2] + c[3];\n}\n";
  md_diags *d = md_diags_create();
  md_cubin c = {0};
  bool ok = md_nvrtc_compile(text, "lint.cu", (md_cuda_arch){90, 'a'}, false, &c, d);
  check(!ok && strstr(md_diags_text(d), "E0444") && strstr(md_diags_text(d), "serialized"),
        "serial wgmma is refused", ok ? c.log : md_diags_text(d));
  free(c.data);
  free(c.log);
  md_diags_destroy(d);
}

static int hits_of(md_cuda_module *m, md_cuda_arch arch, bool no_cache, int threads,
                   md_digest *all) {
  md_diags *d = md_diags_create();
  md_cuda_unit *u = calloc((size_t)m->num_kernels, sizeof *u);
  for (int i = 0; i < m->num_kernels; i++)
    u[i] = (md_cuda_unit){.name = m->kernel[i].symbol, .text = m->kernel[i].text, .arch = arch};
  bool ok = md_cuda_units_compile(u, m->num_kernels, no_cache, threads, d);
  check(ok, "every kernel compiles alone", md_diags_text(d));
  int hits = 0;
  md_hasher *h = md_hasher_create();
  for (int i = 0; i < m->num_kernels; i++) {
    md_kernel_facts k[1];
    const char *why = NULL;
    int sm;
    check(ok && md_cubin_read(u[i].data, u[i].bytes, k, 1, &sm, &why) == 1 &&
              !strcmp(k->name, m->kernel[i].symbol),
          "the unit holds its kernel", why);
    md_hasher_add(h, u[i].data, u[i].bytes);
    hits += u[i].hit;
    free(u[i].data);
  }
  *all = md_hasher_end(h);
  free(u);
  md_diags_destroy(d);
  return hits;
}

static bool equal(md_digest a, md_digest b) { return a.lo == b.lo && a.hi == b.hi; }

static void the_cache_keeps_units(void) {
  char dir[] = "/tmp/modist-units-XXXXXX";
  check(mkdtemp(dir) && !setenv("MODIST_CACHE", dir, 1), "a folder", NULL);
  md_text text = {0};
  char name[64];
  md_diags *d = md_diags_create();
  Program *p = simt_sample(3, &text, name) ? program_create(text.s, 0, 1, d) : NULL;
  check(p && p->m->num_kernels > 3, "a program of several kernels", md_diags_text(d));
  if (p) {
    int num = p->m->num_kernels;
    md_digest first, second, third;
    check(hits_of(p->m, archs[0], false, 2, &first) == 0, "nothing is there at first", NULL);
    check(hits_of(p->m, archs[0], false, 2, &second) == num, "all is there then", NULL);
    check(hits_of(p->m, archs[1], false, 1, &third) == 0, "but not for another target", NULL);
    check(equal(first, second) && !equal(first, third), "the same code comes back", NULL);
    check(hits_of(p->m, archs[0], true, 1, &third) == 0, "no_cache reads nothing", NULL);
    check(equal(first, third), "the same text makes the same code", NULL);
  }
  program_destroy(p);
  md_diags_destroy(d);
  md_text_free(&text);
  char command[80];
  snprintf(command, sizeof command, "rm -r %s", dir);
  check(system(command) == 0, "the folder goes", NULL);
}

int main(void) {
  int major, minor;
  md_diags *d = md_diags_create();
  slow_kernels_are_refused();
  if (!md_nvrtc_version(&major, &minor, d)) {
    printf("skipped: %s", md_diags_text(d));
    md_diags_destroy(d);
    return failed ? 1 : 77;
  }
  md_diags_destroy(d);
  samples_agree();
  static_shared_memory_is_seen();
  damaged_cubins_are_harmless();
  real_lints_are_refused();
  the_cache_keeps_units();
  printf("%d failed\n", failed);
  return failed != 0;
}
