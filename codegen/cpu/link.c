// SPDX-License-Identifier: Apache-2.0
// Objects -> one position-independent shared object for an artefact. lld has no C API, so it is run
// as a program, in a folder of its own that is removed afterwards. `-z defs`: kernels must not need
// any symbol from outside.
#include "codegen/cpu/emit.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MODIST_LLD
#define MODIST_LLD "ld.lld-19"
#endif
#define MAX_IMAGE ((int64_t)1 << 30)

static bool save(const char *path, const char *data, size_t len, md_diags *d) {
  FILE *f = fopen(path, "wxe");
  bool ok = f && fwrite(data, 1, len, f) == len;
  if (f && fclose(f)) ok = false;
  return ok || md_error(d, E0831, MD_IN_FILE(path), "cannot be written: %s", strerror(errno));
}

static const char *program(void) {
  const char *path = getenv("MODIST_LLD");
  return path && *path ? path : MODIST_LLD;
}

// Runs argv with its output in the file `log`. False: reported.
static bool run(char *const *argv, const char *log, md_diags *d) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  pid_t child;
  int error = posix_spawnp(&child, argv[0], &files, NULL, argv, environ);
  posix_spawn_file_actions_destroy(&files);
  if (error) {
    md_error(d, E0430, MD_NOWHERE, "%s: %s", argv[0], strerror(error));
    md_hint(d, "apt-get install lld-19");
    return false;
  }
  int status;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
    md_error(d, E0430, MD_NOWHERE, "%s cannot be started", argv[0]);
    md_hint(d, "apt-get install lld-19");
    return false;
  }
  char *text = NULL;
  size_t len;
  md_file_read(log, 1 << 20, E0831, NULL, &text, &len);
  md_error(d, E0831, MD_NOWHERE, "%s failed: %.400s", argv[0], text ? text : "no output");
  free(text);
  return false;
}

bool md_link_image(const md_object *objects, int num, md_arena *a, const void **image,
                   size_t *bytes, md_diags *d) {
  const char *tmp = getenv("TMPDIR");
  char *dir = md_format(a, "%s/modist-XXXXXX", tmp && *tmp ? tmp : "/tmp");
  if (!mkdtemp(dir))
    return md_error(d, E0831, MD_IN_FILE(dir), "cannot be made: %s", strerror(errno));
  char *out = md_format(a, "%s/host.so", dir), *log = md_format(a, "%s/log", dir);
  char *response = md_format(a, "%s/objects", dir);
  md_text list = {0};
  bool ok = true;
  for (int i = 0; i < num && ok; i++) {
    char *path = md_format(a, "%s/%d.o", dir, i);
    ok = save(path, objects[i].data, objects[i].bytes, d);
    md_put(&list, "\"%s\"\n", path);
  }
  ok = ok && save(response, list.s ? list.s : "", list.len, d);
  char *argv[] = {md_strdup(a, program()),
                  "-shared",
                  "-nostdlib",
                  "-z",
                  "defs",
                  "-z",
                  "text",
                  "-z",
                  "noexecstack",
                  "-z",
                  "relro",
                  "-z",
                  "now",
                  "--build-id=none",
                  "--hash-style=gnu",
                  "-o",
                  out,
                  md_format(a, "@%s", response),
                  NULL};
  ok = ok && run(argv, log, d);
  char *data = NULL;
  ok = ok && md_file_read(out, MAX_IMAGE, E0831, d, &data, bytes);
  if (ok) {
    void *copy = md_alloc(a, *bytes);
    memcpy(copy, data, *bytes);
    *image = copy;
  }
  free(data);
  for (int i = 0; i < num; i++) unlink(md_format(a, "%s/%d.o", dir, i));
  unlink(response);
  unlink(log);
  unlink(out);
  rmdir(dir);
  md_text_free(&list);
  return ok;
}
