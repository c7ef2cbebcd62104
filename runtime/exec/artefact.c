// SPDX-License-Identifier: Apache-2.0
// Artefacts (.mdx): a compiled program as one file.
//
//   manifest.json   the program but its code        host.so     its code, position-independent
//   graph.mdg       text of the compiled graph, for --verify (may be missing)
//   c*.cubin, c*.ptx   in place of host.so: code of CUDA kernels, named by its digest; may be shared
//                      with other artefacts (kernels.c)
//
// Code is loaded last, after every check, from an anonymous file in memory: no temporary file, no
// search path, nothing that somebody could exchange between check and use.
#include "runtime/exec/exec.h"

#include "base/file.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOST_CODE "host.so"
#define GRAPH_TEXT "graph.mdg"
#define MAX_FILE ((int64_t)1 << 31)

// The file stays open as long as the library: the loader knows libraries by name first, and a file
// number that is used again would give it the old one.
typedef struct host_code {
  void *library;
  int fd;
} host_code;

static void *lookup_symbol(void *code, const char *symbol) {
  return dlsym(((const host_code *)code)->library, symbol);
}

static void free_code(void *code) {
  host_code *c = code;
  if (c->library) dlclose(c->library);
  if (c->fd >= 0) close(c->fd);
  free(c);
}

// Where the system makes such files not executable unless asked, it knows the flag; older ones
// refuse it.
static int executable_memory_file(void) {
  const unsigned exec_flag = 0x10;  // MFD_EXEC of Linux 6.3
  int fd = memfd_create("modist-host-code", MFD_CLOEXEC | exec_flag);
  return fd < 0 && errno == EINVAL ? memfd_create("modist-host-code", MFD_CLOEXEC) : fd;
}

static bool load_code(md_program *p, md_diags *d) {
  host_code *c = md_calloc(1, sizeof *c);
  p->code = c;
  p->lookup = lookup_symbol;
  p->code_free = free_code;
  c->fd = executable_memory_file();
  if (c->fd < 0 || !md_write_all(c->fd, p->image, p->image_bytes))
    return md_error(d, E0801, MD_IN_FILE(p->path), "cannot hold its code in memory: %s",
                    strerrordesc_np(errno));
  char path[32];
  snprintf(path, sizeof path, "/proc/self/fd/%d", c->fd);
  c->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (c->library) return true;
  char why[256];
  const char *text = dlerror();
  return md_error(d, E0634, MD_IN_FILE(p->path), "host code cannot be loaded: %s",
                  md_clean(text ? text : "no reason given", why, sizeof why));
}

static const md_member *find(const md_member *m, int num, const char *name) {
  for (int i = 0; i < num; i++)
    if (!strcmp(m[i].name, name)) return &m[i];
  return NULL;
}

static const void *copy_of(const md_member *m, md_arena *a) {
  void *copy = md_alloc(a, m->bytes + 1);
  memcpy(copy, m->data, m->bytes);
  return copy;
}

static bool take_image(md_program *p, const md_member *members, int num, md_diags *d) {
  const md_member *m = find(members, num, HOST_CODE);
  if (!m) return md_error(d, E0632, MD_IN_FILE(p->path), "artefact has no '" HOST_CODE "'");
  p->image = copy_of(m, p->arena);
  p->image_bytes = m->bytes;
  return true;
}

// Kernels share members, which are copied once.
static bool take_kernels(md_program *p, const md_member *members, int num, md_diags *d) {
  const void **copy = md_calloc((size_t)num + 1, sizeof *copy);
  bool ok = true;
  for (int i = 0; i < p->num_kernels && ok; i++) {
    md_gpu_kernel *k = &p->kernel[i];
    const md_member *m = find(members, num, k->member);
    char name[100];
    if (!m) {
      ok = md_error(d, E0632, MD_IN_FILE(p->path), "artefact has no '%s'",
                    md_clean(k->member, name, sizeof name));
      break;
    }
    const void **at = &copy[m - members];
    if (!*at) *at = copy_of(m, p->arena);
    k->data = *at;
    k->bytes = m->bytes;
  }
  free(copy);
  return ok && md_gpu_code_check(p, d);
}

// The code and the graph's text, checked as far as that goes without the machine.
static bool take_code(md_program *p, const md_member *members, int num, md_diags *d) {
  const md_member *g = find(members, num, GRAPH_TEXT);
  if (g && memchr(g->data, 0, g->bytes))
    return md_error(d, E0632, MD_IN_FILE(p->path), "'" GRAPH_TEXT "' is no text");
  if (g) p->graph_text = md_strndup(p->arena, g->data, g->bytes);
  return p->num_variants ? take_kernels(p, members, num, d) : take_image(p, members, num, d);
}

static bool check_machine(const md_program *p, md_diags *d) {
  char why[128], target[256], shown[128];
  if (md_machine_runs(p->target, why, sizeof why)) return true;
  md_error(d, E0633, MD_IN_FILE(p->path), "artefact is for target '%s': %s",
           md_clean(p->target, target, sizeof target), md_clean(why, shown, sizeof shown));
  md_hint(d, "modistc compile ... --target=%s -o %s", md_machine_target(), p->path);
  return false;
}

// Everything but code. The program does not point into `file`. `members`, of `a`, may.
static md_program *read_program(const char *path, const char *file, size_t bytes, md_arena *a,
                                md_member **members, int *num_members, md_diags *d) {
  *num_members = md_zip_read(path, file, bytes, a, members, d);
  if (*num_members < 0) return NULL;
  md_program *p = md_program_create("");
  p->path = md_strdup(p->arena, path);
  if (md_manifest_read(p, members, num_members, a, d) && take_code(p, *members, *num_members, d))
    return p;
  md_program_destroy(p);
  return NULL;
}

static int compare_names(const void *a, const void *b) {
  return strcmp(((const md_member *)a)->name, ((const md_member *)b)->name);
}

// Code of CUDA kernels, each file once.
static int add_kernels(const md_program *p, bool shared, md_member *m) {
  int num = 0;
  for (int i = 0; i < p->num_kernels; i++) {
    const md_gpu_kernel *k = &p->kernel[i];
    m[num++] = (md_member){
        .name = k->member, .data = k->data, .bytes = k->bytes, .deflate = true, .shared = shared};
  }
  if (num) qsort(m, (size_t)num, sizeof *m, compare_names);
  int kept = 0;
  for (int i = 0; i < num; i++)
    if (!kept || strcmp(m[kept - 1].name, m[i].name) != 0) m[kept++] = m[i];
  return kept;
}

// What an artefact consists of: its manifest, of which `manifest` is the text, and what that lists. Freed by
// the caller. The manifest of a CUDA program is long, and that of a host program is stored for those who
// look at it.
static md_member *members_of(const md_program *p, bool shared, md_text *manifest, int *num) {
  MD_ASSERT(p->image || p->num_variants, "program '%s' has no image to save", p->name);
  md_member *m = md_calloc((size_t)p->num_kernels + 3, sizeof *m);
  bool deflate = p->num_variants > 0;
  *num = 1;
  if (p->image)
    m[(*num)++] = (md_member){.name = HOST_CODE, .data = p->image, .bytes = p->image_bytes};
  *num += add_kernels(p, shared, m + *num);
  if (p->graph_text)
    m[(*num)++] = (md_member){.name = GRAPH_TEXT,
                              .data = p->graph_text,
                              .bytes = strlen(p->graph_text),
                              .deflate = deflate};
  md_manifest_write(p, m + 1, *num - 1, manifest);
  m[0] = (md_member){
      .name = "manifest.json", .data = manifest->s, .bytes = manifest->len, .deflate = deflate};
  return m;
}

// What no reader would take is not written. What is shared is part of the program, too.
static bool may_be_saved(const md_program *p, const md_member *m, int num, md_diags *d) {
  int64_t sum = 0;
  bool fits = num <= MD_MAX_MEMBERS;
  for (int i = 0; i < num && fits; i++)
    fits = !m[i].deflate || (md_add_size(sum, (int64_t)m[i].bytes, &sum) && sum <= MD_MAX_INFLATED);
  return fits ||
         md_error(
             d, E0651, MD_NOWHERE,
             "program '%s' has %d files of kernels and texts, but an artefact has room for %d, "
             "and for %lld MiB in all",
             p->name, num, MD_MAX_MEMBERS, (long long)(MD_MAX_INFLATED >> 20));
}

// The members that are in the archive, in place.
static int archived(md_member *m, int num) {
  int kept = 0;
  for (int i = 0; i < num; i++)
    if (!m[i].shared) m[kept++] = m[i];
  return kept;
}

bool md_program_write(const md_program *p, md_text *to, md_diags *d) {
  if (!md_program_check(p, d)) return false;
  md_text manifest = {0};
  int num;
  md_member *m = members_of(p, false, &manifest, &num);
  bool ok = may_be_saved(p, m, num, d);
  if (ok) md_zip_write(m, num, to);
  md_text_free(&manifest);
  free(m);
  return ok;
}

bool md_program_save(const md_program *p, const char *path, md_diags *d) {
  md_text file = {0};
  bool ok = md_program_write(p, &file, d) && md_file_save(path, file.s, file.len, d);
  md_text_free(&file);
  return ok;
}

// Kernels first: an artefact that is there has all of them.
bool md_program_save_sharing(const md_program *p, const char *path, md_diags *d) {
  if (!md_program_check(p, d)) return false;
  md_text manifest = {0}, file = {0};
  int num;
  md_member *m = members_of(p, true, &manifest, &num);
  bool ok = may_be_saved(p, m, num, d) && md_kernels_save(path, m, num, d);
  if (ok) md_zip_write(m, archived(m, num), &file);
  ok = ok && md_file_save(path, file.s, file.len, d);
  md_text_free(&file);
  md_text_free(&manifest);
  free(m);
  return ok;
}

md_program *md_artefact_check(const char *path, md_diags *d) {
  char *file;
  size_t bytes;
  if (!md_file_read(path, MAX_FILE, E0630, d, &file, &bytes)) return NULL;
  md_arena *a = md_arena_create();
  md_member *members;
  int num;
  md_program *p = read_program(path, file, bytes, a, &members, &num, d);
  md_arena_destroy(a);
  free(file);
  return p;
}

md_program *md_program_load(const char *path, md_diags *d) {
  md_program *p = md_artefact_check(path, d);
  if (!p || p->num_variants) return p;  // a device loads its own code
  if (check_machine(p, d) && load_code(p, d)) return p;
  md_program_destroy(p);
  return NULL;
}

bool md_artefact_inspect(const char *path, md_json *to, md_diags *d) {
  char *file;
  size_t bytes;
  if (!md_file_read(path, MAX_FILE, E0630, d, &file, &bytes)) return false;
  md_arena *a = md_arena_create();
  md_member *members;
  int num;
  md_program *p = read_program(path, file, bytes, a, &members, &num, d);
  if (p) md_inspect_program(p, members, num, to);
  bool ok = p != NULL;
  md_program_destroy(p);
  md_arena_destroy(a);
  free(file);
  return ok;
}
