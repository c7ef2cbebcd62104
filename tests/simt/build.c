// SPDX-License-Identifier: Apache-2.0
// A kernel text to code: the compiler that built the tests makes a shared object of it, with the host
// prelude in front. The accesses are instrumented; what they call is found in this program.
#include "tests/simt/simt.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/base.h"

enum { DIR_LENGTH = 400, COMMAND = 1600, KEPT_SECONDS = 3 * 24 * 3600 };

// Of every array, the last one of a struct too. That a function begins and ends nobody asks.
#ifdef __clang__
#define CHECKED "-fsanitize=thread,bounds -fstrict-flex-arrays=3"
#define UNCHECKED "-Wno-uninitialized"
#else
// Registers by regions would take a sixth longer.
#define CHECKED \
  "-fira-region=one -fsanitize=thread,bounds-strict --param tsan-instrument-func-entry-exit=0"
#define UNCHECKED "-fira-region=one -Wno-uninitialized -Wno-maybe-uninitialized"
#endif
// Of what -fsanitize=undefined looks at, numbers alone: the checker knows more of pointers, and they would take
// twice as long again.
#define NUMBERS \
  CHECKED       \
  " -fsanitize=signed-integer-overflow,shift,integer-divide-by-zero,float-cast-overflow"
static const char *const forms[] = {
    [SIMT_PLAIN] = UNCHECKED, [SIMT_CHECKED] = CHECKED, [SIMT_NUMBERS] = NUMBERS};

struct simt_code {
  void *lib;
  bool is_kept;
  char dir[DIR_LENGTH];  // there while the code is: it has the line numbers
};

static void remove_files(const char *dir) {
  static const char *const names[] = {"k.c", "k.o", "k.so"};
  char path[DIR_LENGTH + 8];
  for (int i = 0; i < MD_COUNT(names); i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    unlink(path);
  }
  rmdir(dir);
}

// The text is to be clean in both languages; no contraction, as everywhere. A part of one block does
// not ask for its number. Vectors of a step that is not there are passed on, but not used, and those of
// padding are not even loaded: the optimizer takes that for a use. -Og: kernels run a few times and mostly
// in the machine, so what the compiler saves is more than they lose; it warns as -O1 does.
static void put_command(char command[COMMAND]) {
  const char *cc = getenv("CC"), *source = getenv("MODIST_SOURCE");
  if (!cc || !*cc) cc = access(SIMT_CC, X_OK) == 0 ? SIMT_CC : "cc";
  if (!source || !*source) source = SIMT_SOURCE;
  snprintf(command, COMMAND,
           "'%s' -std=c11 -Og %s -g1 -fPIC -Wall -Wextra -Werror -Wno-unused-variable "
           "-Wno-unused-parameter -Wno-unused-but-set-variable -Wno-psabi -ffp-contract=off "
           "-include '%s/tests/simt/md_host.h' -c k.c -o k.o && '%s' -shared -nostdlib k.o -o k.so",
           cc, forms[simt_form_now()], source, cc);
}

// False: the compiler has said why.
static bool compile(const char *text, const char *dir) {
  char path[DIR_LENGTH + 8], command[COMMAND], all[COMMAND + DIR_LENGTH + 16];
  snprintf(path, sizeof path, "%s/k.c", dir);
  FILE *f = fopen(path, "w");
  bool ok = f && fputs(text, f) >= 0;
  if (f) ok = fclose(f) == 0 && ok;
  put_command(command);
  snprintf(all, sizeof all, "cd '%s' && %s", dir, command);
  ok = ok && system(all) == 0;
  snprintf(path, sizeof path, "%s/k.o", dir);
  unlink(path);
  if (!ok) fprintf(stderr, "%s\n", text);
  return ok;
}

static simt_code *open_code(const char *dir, bool is_kept) {
  char path[DIR_LENGTH + 8];
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

// --- code that is kept

static void put_prelude(md_text *to) {
  const char *source = getenv("MODIST_SOURCE");
  char path[COMMAND], line[400];
  snprintf(path, sizeof path, "%s/tests/simt/md_host.h", source && *source ? source : SIMT_SOURCE);
  FILE *f = fopen(path, "r");
  while (f && fgets(line, sizeof line, f)) md_put(to, "%s", line);
  if (f) fclose(f);
}

// All that the code depends on; the compiler by its size and when it was changed.
static void put_key(const char *text, char hex[33]) {
  char command[COMMAND];
  const char *cc = getenv("CC");
  struct stat st = {0};
  md_text all = {0};
  put_command(command);
  md_put(&all, "%s\n", command);
  if (stat(cc && *cc ? cc : SIMT_CC, &st) == 0)
    md_put(&all, "%lld %lld\n", (long long)st.st_size, (long long)st.st_mtim.tv_sec);
  put_prelude(&all);
  md_put(&all, "%s", text);
  md_digest_text(md_digest_of(all.s, all.len), hex);
  md_text_free(&all);
}

// What nobody has asked for in three days goes; once a process.
static void forget_old(const char *folder) {
  static bool done;
  DIR *d = done ? NULL : opendir(folder);
  done = true;
  for (const struct dirent *e; d && (e = readdir(d));) {
    char path[DIR_LENGTH];
    struct stat st;
    snprintf(path, sizeof path, "%s/%.40s", folder, e->d_name);
    if (e->d_name[0] != '.' && stat(path, &st) == 0 && st.st_mtime < time(NULL) - KEPT_SECONDS)
      remove_files(path);
  }
  if (d) closedir(d);
}

simt_code *simt_build_kept(const char *text, const char *folder) {
  if (!folder) folder = SIMT_KEPT;
  if (access(folder, W_OK) != 0) return simt_build(text);
  char dir[DIR_LENGTH], made[DIR_LENGTH], hex[33];
  put_key(text, hex);
  snprintf(dir, sizeof dir, "%s/%s", folder, hex);
  snprintf(made, sizeof made, "%s/new-XXXXXX", folder);
  if (utimensat(AT_FDCWD, dir, NULL, 0) == 0) return open_code(dir, true);
  forget_old(folder);
  bool ok = mkdtemp(made) && compile(text, made);
  if (!ok || rename(made, dir) != 0) remove_files(made);  // another process may have been faster
  return ok ? open_code(dir, true) : NULL;
}

simt_entry_point *simt_entry(const simt_code *c, const char *name) {
  void *symbol = dlsym(c->lib, name);
  simt_entry_point *entry;
  memcpy(&entry, &symbol, sizeof entry);
  return entry;
}

void simt_code_free(simt_code *c) {
  if (!c) return;
  dlclose(c->lib);
  if (!c->is_kept) remove_files(c->dir);
  free(c);
}
