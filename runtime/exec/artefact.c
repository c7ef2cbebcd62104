// SPDX-License-Identifier: Apache-2.0
// Artefacts (.mdx): a compiled program as one file.
//
//   manifest.json   the program but its code        host.so     its code, position-independent
//   graph.mdg       text of the compiled graph, for --verify (may be missing)
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

static bool write_all(int fd, const char *data, size_t len) {
  while (len > 0) {
    ssize_t n = write(fd, data, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    data += n;
    len -= (size_t)n;
  }
  return true;
}

// Where the system makes such files not executable unless asked, it knows the flag; older ones
// refuse it.
static int executable_memory_file(void) {
  const unsigned exec_flag = 0x10;  // MFD_EXEC of Linux 6.3
  int fd = memfd_create("modist-host-code", MFD_CLOEXEC | exec_flag);
  return fd < 0 && errno == EINVAL ? memfd_create("modist-host-code", MFD_CLOEXEC) : fd;
}

static bool load_code(md_program *p, md_diags *d) {
  host_code *c = calloc(1, sizeof *c);
  if (!c) md_out_of_memory(sizeof *c);
  p->code = c;
  p->lookup = lookup_symbol;
  p->code_free = free_code;
  c->fd = executable_memory_file();
  if (c->fd < 0 || !write_all(c->fd, p->image, p->image_bytes))
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

// Everything but code. The program does not point into `file`. `members`, of `a`, do.
static md_program *read_program(const char *path, const char *file, size_t bytes, md_arena *a,
                                md_member **members, int *num_members, md_diags *d) {
  *num_members = md_zip_read(path, file, bytes, a, members, d);
  if (*num_members < 0) return NULL;
  md_program *p = md_program_create("");
  p->path = md_strdup(p->arena, path);
  if (md_manifest_read(p, *members, *num_members, d)) return p;
  md_program_destroy(p);
  return NULL;
}

static bool take_image(md_program *p, const md_member *members, int num, md_diags *d) {
  const md_member *m = find(members, num, HOST_CODE), *g = find(members, num, GRAPH_TEXT);
  if (!m) return md_error(d, E0632, MD_IN_FILE(p->path), "artefact has no '" HOST_CODE "'");
  if (g && memchr(g->data, 0, g->bytes))
    return md_error(d, E0632, MD_IN_FILE(p->path), "'" GRAPH_TEXT "' is no text");
  void *image = md_alloc(p->arena, m->bytes);
  memcpy(image, m->data, m->bytes);
  p->image = image;
  p->image_bytes = m->bytes;
  if (g) p->graph_text = md_strndup(p->arena, g->data, g->bytes);
  return true;
}

static bool check_machine(const md_program *p, md_diags *d) {
  char why[128], target[256], shown[128];
  if (md_machine_runs(p->target, why, sizeof why)) return true;
  md_error(d, E0633, MD_IN_FILE(p->path), "artefact is for target '%s': %s",
           md_clean(p->target, target, sizeof target), md_clean(why, shown, sizeof shown));
  md_hint(d, "modistc compile ... --target=%s -o %s", md_machine_target(), p->path);
  return false;
}

static void put_specs(md_json *to, const char *key, const md_spec *s, int num) {
  md_json_key(to, key);
  md_json_begin(to, '[');
  for (int i = 0; i < num; i++) {
    char type[MD_SPEC_CHARS];
    md_json_begin(to, '{');
    md_json_key(to, "name");
    md_json_str(to, s[i].name);
    md_json_key(to, "type");
    md_json_str(to, md_spec_text(&s[i], type));
    md_json_key(to, "bytes");
    md_json_int(to, s[i].bytes);
    md_json_end(to, '}');
  }
  md_json_end(to, ']');
}

static int64_t sum_of(const md_spec *s, int num) {
  int64_t sum = 0;
  for (int i = 0; i < num; i++)
    if (!md_add_size(sum, s[i].bytes, &sum)) return INT64_MAX;
  return sum;
}

static void put_launches(md_json *to, const md_program *p) {
  md_json_key(to, "launches");
  md_json_begin(to, '[');
  for (int i = 0; i < p->num_launches; i++) {
    const md_launch *l = &p->launch[i];
    md_json_begin(to, '{');
    md_json_key(to, "name");
    md_json_str(to, l->name);
    md_json_key(to, "phases");
    md_json_int(to, l->num_phases);
    md_json_key(to, "flops");
    md_json_float(to, l->flops);
    md_json_key(to, "bytes");
    md_json_float(to, l->bytes);
    md_json_end(to, '}');
  }
  md_json_end(to, ']');
}

static void put_program(md_json *to, const md_program *p, const md_member *members, int num) {
  char digest[33], why[128];
  md_json_begin(to, '{');
  md_json_key(to, "format");
  md_json_str(to, MD_ARTEFACT_FORMAT);
  md_json_key(to, "abi");
  md_json_int(to, MD_ABI_VERSION);
  md_json_key(to, "name");
  md_json_str(to, p->name);
  md_json_key(to, "target");
  md_json_str(to, p->target);
  md_json_key(to, "runs_here");
  md_json_bool(to, md_machine_runs(p->target, why, sizeof why));
  md_json_key(to, "graph");
  md_json_str(to, md_digest_text(p->graph, digest));
  md_json_key(to, "members");
  md_json_begin(to, '[');
  for (int i = 0; i < num; i++) {
    md_json_begin(to, '{');
    md_json_key(to, "name");
    md_json_str(to, members[i].name);
    md_json_key(to, "bytes");
    md_json_int(to, (int64_t)members[i].bytes);
    md_json_end(to, '}');
  }
  md_json_end(to, ']');
  md_json_key(to, "memory");
  md_json_begin(to, '{');
  md_json_key(to, "arena");
  md_json_int(to, p->arena_bytes);
  md_json_key(to, "workspace");
  md_json_int(to, p->workspace_bytes);
  md_json_key(to, "states");
  md_json_int(to, sum_of(p->state, p->num_states));
  md_json_key(to, "inputs");
  md_json_int(to, sum_of(p->input, p->num_inputs));
  md_json_end(to, '}');
  put_specs(to, "inputs", p->input, p->num_inputs);
  put_specs(to, "states", p->state, p->num_states);
  put_specs(to, "results", p->result, p->num_results);
  put_launches(to, p);
  md_json_end(to, '}');
}

bool md_program_write(const md_program *p, md_text *to, md_diags *d) {
  MD_ASSERT(p->image, "program '%s' has no image to save", p->name);
  if (!md_program_check(p, d)) return false;
  md_member m[3] = {{.name = "manifest.json"}, {HOST_CODE, p->image, p->image_bytes}};
  int num = 2;
  if (p->graph_text) m[num++] = (md_member){GRAPH_TEXT, p->graph_text, strlen(p->graph_text)};
  md_text manifest = {0};
  md_manifest_write(p, m + 1, num - 1, &manifest);
  m[0].data = manifest.s;
  m[0].bytes = manifest.len;
  md_zip_write(m, num, to);
  md_text_free(&manifest);
  return true;
}

bool md_program_save(const md_program *p, const char *path, md_diags *d) {
  md_text file = {0};
  bool ok = md_program_write(p, &file, d) && md_file_save(path, file.s, file.len, d);
  md_text_free(&file);
  return ok;
}

md_program *md_program_load(const char *path, md_diags *d) {
  char *file;
  size_t bytes;
  if (!md_file_read(path, MAX_FILE, E0630, d, &file, &bytes)) return NULL;
  md_arena *a = md_arena_create();
  md_member *members;
  int num;
  md_program *p = read_program(path, file, bytes, a, &members, &num, d);
  if (p && (!take_image(p, members, num, d) || !check_machine(p, d) || !load_code(p, d))) {
    md_program_destroy(p);
    p = NULL;
  }
  md_arena_destroy(a);
  free(file);
  return p;
}

bool md_artefact_inspect(const char *path, md_json *to, md_diags *d) {
  char *file;
  size_t bytes;
  if (!md_file_read(path, MAX_FILE, E0630, d, &file, &bytes)) return false;
  md_arena *a = md_arena_create();
  md_member *members;
  int num;
  md_program *p = read_program(path, file, bytes, a, &members, &num, d);
  if (p) put_program(to, p, members, num);
  bool ok = p != NULL;
  md_program_destroy(p);
  md_arena_destroy(a);
  free(file);
  return ok;
}
