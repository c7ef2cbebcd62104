// SPDX-License-Identifier: Apache-2.0
// Any bytes as an artefact, as the manifest inside a whole one, and as a kernel beside it: no crash, and a
// program that is accepted can be written and read again. No code is loaded.
#include "tests/fuzz/fuzz.h"

#include "base/file.h"
#include "codegen/cpu/cpu.h"
#include "graph/graph.h"
#include "passes/passes.h"
#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char code[] = "code";
static const md_member shared = {
    .name = "c0.cubin", .data = code, .bytes = sizeof code, .shared = true};

// A folder of this process, with the kernel that manifests may name.
static char artefact[64], any_kernel[96], its_kernel[96];
static void leave_folder(void) {
  char *end = strrchr(artefact, '/');
  unlink(any_kernel);
  unlink(its_kernel);
  *strrchr(any_kernel, '/') = *end = '\0';
  rmdir(any_kernel);
  rmdir(artefact);
}
static const char *in_folder(void) {
  if (artefact[0]) return artefact;
  char folder[] = "/tmp/modist-fuzz-XXXXXX";
  MD_ASSERT(mkdtemp(folder), "no folder");
  snprintf(artefact, sizeof artefact, "%s/fuzz.mdx", folder);
  snprintf(any_kernel, sizeof any_kernel, "%s/" MD_KERNELS "/any.cubin.z", folder);
  snprintf(its_kernel, sizeof its_kernel, "%s/" MD_KERNELS "/%s.z", folder, shared.name);
  MD_ASSERT(md_kernels_save(artefact, &shared, 1, NULL), "no kernel");
  atexit(leave_folder);
  return artefact;
}

// Adds what it shares to the members, in `a`.
static md_program *read_manifest(md_member **m, int *num, md_arena *a, md_diags *d) {
  md_program *p = md_program_create("");
  p->path = md_strdup(p->arena, in_folder());
  bool ok = md_manifest_read(p, m, num, a, d);
  MD_ASSERT(ok == (md_diags_errors(d) == 0), "%d errors", md_diags_errors(d));
  if (ok) return p;
  md_program_destroy(p);
  return NULL;
}

static void as_manifest(const uint8_t *data, size_t size) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  md_member archive[2] = {{.name = "manifest.json", .data = data, .bytes = size},
                          {.name = "host.so", .data = code, .bytes = sizeof code}};
  md_member *m = archive;
  int num = 2;
  md_program *p = read_manifest(&m, &num, a, d);
  if (p) {
    md_text again = {0};
    md_manifest_write(p, m + 1, num - 1, &again);
    archive[0].data = again.s;
    archive[0].bytes = again.len;
    m = archive;
    num = 2;
    md_program *q = read_manifest(&m, &num, a, d);
    MD_ASSERT(q, "a written manifest is refused:\n%s\n%s", again.s, md_diags_text(d));
    md_program_destroy(q);
    md_text_free(&again);
  }
  md_program_destroy(p);
  md_arena_destroy(a);
  md_diags_destroy(d);
}

// What is taken is the kernel, however its stream says it.
static void as_kernel(const uint8_t *data, size_t size) {
  md_arena *a = md_arena_create();
  const char *path = in_folder();
  FILE *f = fopen(any_kernel, "wb");
  if (f) {
    fwrite(data, 1, size, f);
    fclose(f);
  }
  md_member m = {.name = "any.cubin", .bytes = sizeof code};
  if (md_kernel_read(path, md_digest_of(code, sizeof code), &m, a, NULL))
    MD_ASSERT(!memcmp(m.data, code, sizeof code), "another kernel of %zu bytes", size);
  md_arena_destroy(a);
}

static void as_file(const uint8_t *data, size_t size) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  md_member *m;
  int num = md_zip_read("fuzz.mdx", data, size, a, &m, d);
  MD_ASSERT((num < 0) == (md_diags_errors(d) > 0), "%d errors", md_diags_errors(d));
  if (num >= 0) {
    // The reader takes only what the writer makes, but for other ways to deflate the same.
    md_text again = {0};
    bool deflated = false;
    for (int i = 0; i < num; i++) deflated |= m[i].deflate;
    md_zip_write(m, num, &again);
    MD_ASSERT(deflated || again.len == size, "%zu bytes, not %zu", again.len, size);
    md_text_free(&again);
    md_program_destroy(read_manifest(&m, &num, a, d));
  }
  md_arena_destroy(a);
  md_diags_destroy(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  as_manifest(data, size);
  as_file(data, size);
  as_kernel(data, size);
  return 0;
}

// The same program as if it were for two CUDA targets. Its code is not looked at.
static void make_cuda(md_program *p) {
  p->target = "cuda:sm_80,cuda:compute_80";
  for (int i = 0; i < p->num_phases; i++) p->phase[i].threads = 256;
  p->variant = MD_NEW_ARRAY(p->arena, md_gpu_variant, p->num_variants = 2);
  p->kernel = MD_NEW_ARRAY(p->arena, md_gpu_kernel, p->num_kernels = 2);
  for (int i = 0; i < 2; i++) {
    p->kernel[i] = (md_gpu_kernel){.symbol = "k0", .member = i ? "c0.ptx" : "c0.cubin"};
    p->variant[i] = (md_gpu_variant){.target = i ? "cuda:compute_80" : "cuda:sm_80",
                                     .num_launches = p->num_launches,
                                     .first_kernel = i,
                                     .num_kernels = 1};
  }
}

static void add_seeds(const md_program *p, bool is_cuda, void (*add)(const char *s, size_t len)) {
  md_text manifest = {0}, file = {0};
  md_member m[3] = {{.name = "manifest.json"},
                    {.name = "host.so", .data = code, .bytes = sizeof code, .deflate = is_cuda},
                    shared};
  md_manifest_write(p, m + 1, is_cuda ? 2 : 1, &manifest);
  m[0].data = manifest.s;
  m[0].bytes = manifest.len;
  m[0].deflate = is_cuda;
  md_zip_write(m, 2, &file);
  add(manifest.s, manifest.len);
  add(file.s, file.len);
  md_text_free(&manifest);
  md_text_free(&file);
}

static void add_kernel(void (*add)(const char *s, size_t len)) {
  char *bytes;
  size_t len;
  in_folder();
  MD_ASSERT(md_file_read(its_kernel, 1 << 10, E0601, NULL, &bytes, &len), "no kernel");
  add(bytes, len);
  free(bytes);
}

void fuzz_seeds(void (*add)(const char *s, size_t len)) {
  static const char *const texts[] = {
      "graph @a(%x: f32[4,8]) {\n  %y = relu %x\n  return %y\n}\n",
      "graph @b(%x: f32[4,8], %z: f32[8,4]) {\n  %w = state @w {init=normal, a=0.0, b=1.0} : "
      "f32[4,4]\n"
      "  %y = matmul %x, %z : f32[4,4]\n  %n = add %w, %y : f32[4,4]\n  update @w = %n\n"
      "  return %y\n}\n"};
  add_kernel(add);
  for (int i = 0; i < MD_COUNT(texts); i++) {
    md_graph *g = md_parse_graph("seed.mdg", texts[i], strlen(texts[i]), NULL);
    md_pass_options o = md_pass_defaults();
    o.facts = md_cpu_facts(md_cpu_find(NULL, true, NULL));
    g = g ? md_run_passes(g, &o, NULL, NULL) : NULL;
    md_program *p = g ? md_cpu_compile(g, &(md_cpu_options){.no_cache = true}, NULL, NULL) : NULL;
    MD_ASSERT(p, "seed %d is not compiled", i);
    add_seeds(p, false, add);
    make_cuda(p);
    add_seeds(p, true, add);
    md_program_destroy(p);
    md_graph_destroy(g);
  }
}
