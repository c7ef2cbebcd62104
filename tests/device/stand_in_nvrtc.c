// SPDX-License-Identifier: Apache-2.0
// A double of NVRTC. It is linked with the real one, where whoever opens this library finds all
// functions but two. nvrtcVersion says what MODIST_STAND_IN_NVRTC=MAJOR.MINOR does, if that is set.
// nvrtcCreateProgram keeps the text as NAME.cu in the folder MODIST_STAND_IN_TEXTS,
// for the driver's stand-in to make code of, and goes on to the real one with kernels that return at
// once. All of the text is read there, and what is wrong with it said, but nothing is left to optimize:
// nobody runs this code, and whether kernels spill other tests tell.
// MODIST_STAND_IN_NVRTC_FAULT=NAME:N: the first N programs of that name in a process are refused.
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char returns[] = " return;";

// Under a name of its own until it is whole: several threads and processes write.
static int keep(const char *name, const char *text) {
  const char *folder = getenv("MODIST_STAND_IN_TEXTS");
  if (!folder || !*folder) return 1;
  char path[600], made[600];
  snprintf(path, sizeof path, "%s/%s.cu", folder, name);
  snprintf(made, sizeof made, "%s/text-XXXXXX", folder);
  const char *kernel = strstr(text, "#line");
  int f = mkstemp(made);
  FILE *to = f < 0 ? NULL : fdopen(f, "w");
  return to && fputs(kernel ? kernel : text, to) >= 0 && fclose(to) == 0 && rename(made, path) == 0;
}

// Where the body of the next kernel begins, behind its brace; or NULL.
static const char *next_body(const char *text) {
  const char *kernel = strstr(text, "MD_KERNEL("), *brace = kernel ? strchr(kernel, '{') : NULL;
  return brace ? brace + 1 : NULL;
}

static char *idle(const char *text) {
  size_t bytes = strlen(text) + 1;
  for (const char *s = text; (s = next_body(s));) bytes += sizeof returns;
  char *all = malloc(bytes), *to = all;
  if (!all) abort();
  for (const char *body; (body = next_body(text)); text = body)
    to += sprintf(to, "%.*s%s", (int)(body - text), text, returns);
  strcpy(to, text);
  return all;
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

typedef int Version(int *major, int *minor);
__attribute__((visibility("default"))) Version nvrtcVersion;

int nvrtcVersion(int *major, int *minor) {
  const char *text = getenv("MODIST_STAND_IN_NVRTC");
  if (text && sscanf(text, "%d.%d", major, minor) == 2) return 0;
  Version *version;
  void *symbol = real("nvrtcVersion");
  memcpy(&version, &symbol, sizeof version);
  return version ? version(major, minor) : 1;
}

typedef int Create(void **program, const char *text, const char *name, int num,
                   const char *const *headers, const char *const *header_names);
__attribute__((visibility("default"))) Create nvrtcCreateProgram;

static int is_refused(const char *name) {
  static atomic_int num;
  const char *fault = getenv("MODIST_STAND_IN_NVRTC_FAULT");
  size_t len = strlen(name);
  if (!fault || strncmp(fault, name, len) != 0 || fault[len] != ':') return 0;
  return atomic_fetch_add(&num, 1) < strtol(fault + len + 1, NULL, 10);
}

int nvrtcCreateProgram(void **program, const char *text, const char *name, int num,
                       const char *const *headers, const char *const *header_names) {
  enum { OUT_OF_MEMORY = 1 };  // NVRTC_ERROR_
  if (is_refused(name)) return OUT_OF_MEMORY;
  Create *create;
  void *symbol = real("nvrtcCreateProgram");
  memcpy(&create, &symbol, sizeof create);
  if (!symbol || !keep(name, text)) {
    fprintf(stderr, "NVRTC's double %s %s\n", symbol ? "cannot keep" : "finds no NVRTC for", name);
    abort();
  }
  char *all = idle(text);
  int error = create(program, all, name, num, headers, header_names);
  free(all);
  return error;
}
