// SPDX-License-Identifier: Apache-2.0
// What a program asked of the file system below one folder: a record for each call that succeeded, in
// order. trace.c, loaded before the program's own libraries, writes them; disk.c replays them.
#ifndef TESTS_SURVIVE_TRACE_H
#define TESTS_SURVIVE_TRACE_H

#include <stdint.h>

typedef enum trace_op {
  TRACE_OPEN,      // fd is now `path`, which is made if it is not there
  TRACE_WRITE,     // `len` bytes, which follow the record, at `at` of fd
  TRACE_TRUNCATE,  // fd ends at `at`
  TRACE_SYNC,      // fd, a file or a folder
  TRACE_CLOSE,
  TRACE_MKDIR,   // path
  TRACE_RENAME,  // path to `to`
  TRACE_LINK,    // path, also as `to`
  TRACE_UNLINK,  // path
} trace_op;

typedef struct trace_record {
  int32_t op, fd;
  int64_t at, len;
  char path[160], to[160];  // below the root, without a slash in front
} trace_record;

// Environment of the traced program: the file that records are appended to, and the root.
#define TRACE_FILE "MODIST_TRACE_FILE"
#define TRACE_ROOT "MODIST_TRACE_ROOT"

#endif
