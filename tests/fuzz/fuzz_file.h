// SPDX-License-Identifier: Apache-2.0
// For targets whose subject reads files: one file of this process in the temporary folder.
#ifndef TESTS_FUZZ_FUZZ_FILE_H
#define TESTS_FUZZ_FUZZ_FILE_H

#include "base/file.h"

#include <stdlib.h>
#include <unistd.h>

static char fuzz_file[64];
static void fuzz_remove_file(void) { unlink(fuzz_file); }

// Its path, after `data` was written to it; NULL leaves it as it is.
static const char *fuzz_path(const void *data, size_t size) {
  if (!fuzz_file[0]) {
    snprintf(fuzz_file, sizeof fuzz_file, "/tmp/modist-fuzz-%ld", (long)getpid());
    atexit(fuzz_remove_file);
  }
  FILE *f = data ? fopen(fuzz_file, "wb") : NULL;
  if (f) {
    fwrite(data, 1, size, f);
    fclose(f);
  }
  return fuzz_file;
}

static inline void fuzz_add_file(const char *path, void (*add)(const char *s, size_t len)) {
  char *bytes;
  size_t len;
  if (!md_file_read(path, 1 << 20, E0601, NULL, &bytes, &len)) return;
  add(bytes, len);
  free(bytes);
}

#endif
