// SPDX-License-Identifier: Apache-2.0
// A kernel text to code: the compiler that built the tests makes a shared object of it, with the host
// prelude in front. The accesses are instrumented; what they call is found in this program.
#include "tests/simt/simt.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

struct simt_code {
  void *lib;
  char dir[64];  // kept while the code is: it has the line numbers
};

static void remove_files(const char *dir) {
  static const char *const names[] = {"k.c", "k.o", "k.so"};
  char path[128];
  for (int i = 0; i < MD_COUNT(names); i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    unlink(path);
  }
  rmdir(dir);
}

simt_code *simt_build(const char *text) {
  char dir[] = "/tmp/modist-simt-XXXXXX", path[64], command[2048];
  if (!mkdtemp(dir)) return NULL;
  snprintf(path, sizeof path, "%s/k.c", dir);
  FILE *f = fopen(path, "w");
  bool ok = f && fputs(text, f) >= 0;
  if (f) ok = fclose(f) == 0 && ok;
  const char *cc = getenv("CC"), *source = getenv("MODIST_SOURCE");
  if (!cc || !*cc) cc = access(SIMT_CC, X_OK) == 0 ? SIMT_CC : "cc";
  if (!source || !*source) source = SIMT_SOURCE;
  // The text is to be clean in both languages; no contraction, as everywhere. A part of one block does
  // not ask for its number. Vectors of a step that is
  // not there are passed on, but not used: the optimizer takes that for a use.
  snprintf(command, sizeof command,
           "cd %s && '%s' -std=c11 %s -g1 -fPIC -Wall -Wextra -Werror -Wno-unused-variable "
           "-Wno-unused-parameter -Wno-unused-but-set-variable -Wno-psabi -ffp-contract=off "
           "-include '%s/tests/simt/md_host.h' -c k.c -o k.o && '%s' -shared k.o -lm -o k.so",
           dir, cc, simt_is_checked() ? "-O1 -fsanitize=thread" : "-O2 -Wno-uninitialized", source,
           cc);
  ok = ok && system(command) == 0;
  void *lib = NULL;
  if (ok) {
    snprintf(path, sizeof path, "%s/k.so", dir);
    lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) fprintf(stderr, "%s\n", dlerror());
  }
  if (!lib) {
    fprintf(stderr, "%s\n", text);
    remove_files(dir);
    return NULL;
  }
  simt_code *c = malloc(sizeof *c);
  MD_ASSERT(c, "out of memory");
  c->lib = lib;
  snprintf(c->dir, sizeof c->dir, "%s", dir);
  return c;
}

void (*simt_entry(const simt_code *c, const char *name))(void *const *arg) {
  void *symbol = dlsym(c->lib, name);
  void (*entry)(void *const *);
  memcpy(&entry, &symbol, sizeof entry);
  return entry;
}

void simt_code_free(simt_code *c) {
  if (!c) return;
  dlclose(c->lib);
  remove_files(c->dir);
  free(c);
}
