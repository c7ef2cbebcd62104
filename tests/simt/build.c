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

enum { DIR = 400 };

// Of every array, the last one of a struct too.
#ifdef __clang__
#define INDICES "bounds -fstrict-flex-arrays=3"
#else
#define INDICES "bounds-strict"
#endif

struct simt_code {
  void *lib;
  bool is_kept;
  char dir[DIR];  // there while the code is: it has the line numbers
};

static void remove_files(const char *dir) {
  static const char *const names[] = {"k.c", "k.o", "k.so"};
  char path[DIR + 8];
  for (int i = 0; i < MD_COUNT(names); i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    unlink(path);
  }
  rmdir(dir);
}

// False: the compiler has said why.
static bool compile(const char *text, const char *dir) {
  char path[DIR + 8], command[2048];
  snprintf(path, sizeof path, "%s/k.c", dir);
  FILE *f = fopen(path, "w");
  bool ok = f && fputs(text, f) >= 0;
  if (f) ok = fclose(f) == 0 && ok;
  const char *cc = getenv("CC"), *source = getenv("MODIST_SOURCE");
  if (!cc || !*cc) cc = access(SIMT_CC, X_OK) == 0 ? SIMT_CC : "cc";
  if (!source || !*source) source = SIMT_SOURCE;
  // The text is to be clean in both languages; no contraction, as everywhere. A part of one block does
  // not ask for its number. Vectors of a step that is not there are passed on, but not used, and those of
  // padding are not even loaded: the optimizer takes that for a use.
  snprintf(command, sizeof command,
           "cd '%s' && '%s' -std=c11 %s -g1 -fPIC -Wall -Wextra -Werror -Wno-unused-variable "
           "-Wno-unused-parameter -Wno-unused-but-set-variable -Wno-psabi -ffp-contract=off "
           "-include '%s/tests/simt/md_host.h' -c k.c -o k.o && '%s' -shared k.o -lm -o k.so",
           dir, cc,
           simt_is_checked() ? "-O1 -fsanitize=thread," INDICES
                             : "-O2 -Wno-uninitialized -Wno-maybe-uninitialized",
           source, cc);
  ok = ok && system(command) == 0;
  if (!ok) fprintf(stderr, "%s\n", text);
  return ok;
}

static simt_code *open_code(const char *dir, bool is_kept) {
  char path[DIR + 8];
  snprintf(path, sizeof path, "%s/k.so", dir);
  void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!lib) {
    fprintf(stderr, "%s\n", dlerror());
    return NULL;
  }
  simt_code *c = malloc(sizeof *c);
  MD_ASSERT(c, "out of memory");
  *c = (simt_code){.lib = lib, .is_kept = is_kept};
  snprintf(c->dir, sizeof c->dir, "%s", dir);
  return c;
}

simt_code *simt_build(const char *text) {
  char dir[] = "/tmp/modist-simt-XXXXXX";
  if (!mkdtemp(dir)) return NULL;
  simt_code *c = compile(text, dir) ? open_code(dir, false) : NULL;
  if (!c) remove_files(dir);
  return c;
}

simt_code *simt_build_kept(const char *text, const char *folder) {
  char dir[DIR], made[DIR], hex[33];
  md_digest_text(md_digest_of(text, strlen(text)), hex);
  snprintf(dir, sizeof dir, "%s/%s%s", folder, hex, simt_is_checked() ? "-checked" : "");
  snprintf(made, sizeof made, "%s/new-XXXXXX", folder);
  if (access(dir, F_OK) == 0) return open_code(dir, true);
  bool ok = mkdtemp(made) && compile(text, made);
  if (!ok || rename(made, dir) != 0) remove_files(made);  // another process may have been faster
  return ok ? open_code(dir, true) : NULL;
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
  if (!c->is_kept) remove_files(c->dir);
  free(c);
}
