// SPDX-License-Identifier: Apache-2.0
// A double of NVRTC. It is linked with the real one, where whoever opens this library finds all
// functions but one: nvrtcCreateProgram keeps the text as NAME.cu in the folder MODIST_STAND_IN_TEXTS,
// for the driver's stand-in to make code of, and goes on to the real one.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

typedef int Create(void **program, const char *text, const char *name, int num,
                   const char *const *headers, const char *const *header_names);
__attribute__((visibility("default"))) Create nvrtcCreateProgram;

int nvrtcCreateProgram(void **program, const char *text, const char *name, int num,
                       const char *const *headers, const char *const *header_names) {
  Create *real;
  void *symbol = dlsym(RTLD_NEXT, "nvrtcCreateProgram");
  memcpy(&real, &symbol, sizeof real);
  if (!real || !keep(name, text)) {
    fprintf(stderr, "NVRTC's double cannot keep %s or finds no NVRTC\n", name);
    abort();
  }
  return real(program, text, name, num, headers, header_names);
}
