// SPDX-License-Identifier: Apache-2.0
// A double of NVRTC. It is linked with the real one, where whoever opens this library finds all
// functions but two: nvrtcCreateProgram keeps the text as NAME.cu in the folder MODIST_STAND_IN_TEXTS,
// for the driver's stand-in to make code of, and goes on to the real one. nvrtcCompileProgram asks it not
// to take its time: nobody runs this code, and whether kernels spill other tests tell.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID_OPTION = 5, MAX_OPTIONS = 16 };

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

static void *real(const char *name) {
  void *symbol = dlsym(RTLD_NEXT, name);
  if (symbol) return symbol;
  fprintf(stderr, "NVRTC's double finds no %s\n", name);
  abort();
}

typedef int Create(void **program, const char *text, const char *name, int num,
                   const char *const *headers, const char *const *header_names);
__attribute__((visibility("default"))) Create nvrtcCreateProgram;

int nvrtcCreateProgram(void **program, const char *text, const char *name, int num,
                       const char *const *headers, const char *const *header_names) {
  Create *create;
  void *symbol = real("nvrtcCreateProgram");
  memcpy(&create, &symbol, sizeof create);
  if (!keep(name, text)) {
    fprintf(stderr, "NVRTC's double cannot keep %s\n", name);
    abort();
  }
  return create(program, text, name, num, headers, header_names);
}

typedef int Compile(void *program, int num, const char *const *option);
__attribute__((visibility("default"))) Compile nvrtcCompileProgram;

// Old ones do not know the option.
int nvrtcCompileProgram(void *program, int num, const char *const *option) {
  Compile *compile;
  void *symbol = real("nvrtcCompileProgram");
  memcpy(&compile, &symbol, sizeof compile);
  const char *all[MAX_OPTIONS];
  if (num >= MAX_OPTIONS) abort();
  memcpy(all, option, sizeof *option * (size_t)num);
  all[num] = "--Ofast-compile=min";
  int error = compile(program, num + 1, all);
  return error == INVALID_OPTION ? compile(program, num, option) : error;
}
