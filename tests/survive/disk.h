// SPDX-License-Identifier: Apache-2.0
// A disk that forgets. It replays a trace and knows what fsync has made certain; whatever came after
// that may be there or not when the power fails, each name and each sector on its own:
//
//   a file      what it held at its last fsync, then any of the sectors written since
//   a folder    the names it held at its last fsync, then any of the changes since
//
// So a new file is found only if its folder was synced, and has its bytes only if it was synced too.
#ifndef TESTS_SURVIVE_DISK_H
#define TESTS_SURVIVE_DISK_H

#include "base/base.h"
#include "tests/survive/trace.h"

typedef struct disk disk;
disk *disk_create(void);
void disk_destroy(disk *k);
void disk_do(disk *k, const trace_record *r, const char *data);  // data lives as long as the disk

// A file as programs see it now; malloc'ed. NULL: there is none.
char *disk_read(const disk *k, const char *path, size_t *len);

typedef enum disk_luck { DISK_NONE, DISK_ANY, DISK_ALL } disk_luck;
typedef struct disk_file {
  char *path, *bytes;  // a folder has no bytes
  size_t len;
} disk_file;
typedef struct disk_state {
  disk_file *file;  // folders before what is in them
  int num, cap;
} disk_state;
// The disk after a loss of power now: what of the uncertain is there. DISK_ANY throws dice by `key`.
disk_state disk_after_loss(const disk *k, disk_luck names, disk_luck data, uint64_t key);
md_digest disk_state_digest(const disk_state *s);
bool disk_state_write(const disk_state *s, const char *folder);  // into an empty one
void disk_state_free(disk_state *s);

#endif
