// SPDX-License-Identifier: Apache-2.0
// Whole files: read with a limit, written atomically. Every failure is a diagnostic.
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/diag.h"

#include <sys/types.h>

// Reads a regular file of at most `limit` bytes. `code` is what a failure is reported as.
// *data is malloc'ed and NUL-terminated one past *len.
bool md_file_read(const char *path, int64_t limit, md_code code, md_diags *d, char **data,
                  size_t *len);

bool md_write_all(int fd, const void *data, size_t len);  // false: errno says why

// A file that appears under its name only when complete: written to a temporary file in the same
// folder (0600, then the mode that umask allows), fsync, rename, fsync of the folder.
typedef struct md_file_writer md_file_writer;
md_file_writer *md_file_create(const char *path, md_diags *d);        // NULL: reported
bool md_file_write(md_file_writer *w, const void *data, size_t len);  // sticky failure
// Over what was written already, from byte `at` on: a header that is known last.
bool md_file_rewrite(md_file_writer *w, int64_t at, const void *data, size_t len);
bool md_file_commit(md_file_writer *w);  // frees w; false: reported, nothing left behind
void md_file_abort(md_file_writer *w);   // frees w and removes the temporary file; NULL is fine
// To be asked before the work that the file is for. False: reported; true leaves nothing behind.
bool md_file_may_create(const char *path, md_diags *d);
bool md_file_save(const char *path, const void *data, size_t len, md_diags *d);  // all in one

// A new name, of a file or a folder, survives a loss of power only when the folder that it is in was
// synced. -1: errno says why not.
int md_sync_folder_of(const char *path);
// Every folder of the path that is not there yet, durably. False: errno says why, and the path ends with
// the folder that could not be made.
bool md_make_folders(char *path, mode_t mode);
// Those that a path is in. False: reported (E0801).
bool md_make_parents(const char *path, md_diags *d);

// $XDG_CACHE_HOME/modist or ~/.cache/modist, made with 0700; MODIST_CACHE overrides.
// NULL when there is no usable one (owner is somebody else, no HOME): caching is then off.
const char *md_cache_dir(md_arena *a);

#endif
