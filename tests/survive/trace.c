// SPDX-License-Identifier: Apache-2.0
// Loaded by LD_PRELOAD: does each call by the system's own number, and notes it if it is about the
// root. What libc writes by itself (stdio) is not seen; no file that must survive is written so.
#include "tests/survive/trace.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))
enum { MAX_FD = 1024 };
static bool is_traced[MAX_FD];

// The part of `path` below the root; NULL: it lies elsewhere.
static const char *below_root(const char *path) {
  const char *root = getenv(TRACE_ROOT);
  size_t len = root ? strlen(root) : 0;
  if (!len || strncmp(path, root, len) != 0) return NULL;
  if (!path[len]) return "";
  return path[len] == '/' ? path + len + 1 : NULL;
}

static void note(trace_record r, const char *path, const char *to, const void *data) {
  static int fd = -1;
  if (fd < 0)
    fd = (int)syscall(SYS_openat, AT_FDCWD, getenv(TRACE_FILE),
                      O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (path) snprintf(r.path, sizeof r.path, "%s", path);
  if (to) snprintf(r.to, sizeof r.to, "%s", to);
  struct iovec part[2] = {{&r, sizeof r}, {(void *)data, data ? (size_t)r.len : 0}};
  if (syscall(SYS_writev, fd, part, 2) != (long)(part[0].iov_len + part[1].iov_len)) abort();
}

static void note_open(int fd, const char *path) {
  const char *name = below_root(path);
  if (fd < 0 || fd >= MAX_FD || !name) return;
  is_traced[fd] = true;
  note((trace_record){.op = TRACE_OPEN, .fd = fd}, name, NULL, NULL);
}

static bool traces(int fd) { return fd >= 0 && fd < MAX_FD && is_traced[fd]; }

SHOWN int open(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  int fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags,
                        flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0);
  va_end(args);
  note_open(fd, path);
  return fd;
}

SHOWN int mkostemp(char *template, int flags) {
  int (*real)(char *, int);
  *(void **)&real = dlsym(RTLD_NEXT, "mkostemp");  // C has no cast from data to code
  int fd = real(template, flags);
  note_open(fd, template);
  return fd;
}

SHOWN ssize_t write(int fd, const void *data, size_t len) {
  ssize_t n = syscall(SYS_write, fd, data, len);
  if (n > 0 && traces(fd))  // the end of what was written, wherever the file was open to append
    note((trace_record){TRACE_WRITE, fd, .at = lseek(fd, 0, SEEK_CUR) - n, .len = n}, NULL, NULL,
         data);
  return n;
}

SHOWN ssize_t pwrite(int fd, const void *data, size_t len, off_t at) {
  ssize_t n = syscall(SYS_pwrite64, fd, data, len, at);
  if (n > 0 && traces(fd))
    note((trace_record){TRACE_WRITE, fd, .at = at, .len = n}, NULL, NULL, data);
  return n;
}

SHOWN int ftruncate(int fd, off_t len) {
  int rc = (int)syscall(SYS_ftruncate, fd, len);
  if (rc == 0 && traces(fd)) note((trace_record){TRACE_TRUNCATE, fd, .at = len}, NULL, NULL, NULL);
  return rc;
}

static int synced(int fd, long rc) {
  if (rc == 0 && traces(fd)) note((trace_record){.op = TRACE_SYNC, .fd = fd}, NULL, NULL, NULL);
  return (int)rc;
}
SHOWN int fsync(int fd) { return synced(fd, syscall(SYS_fsync, fd)); }
SHOWN int fdatasync(int fd) { return synced(fd, syscall(SYS_fdatasync, fd)); }

SHOWN int close(int fd) {
  if (traces(fd)) {
    is_traced[fd] = false;
    note((trace_record){.op = TRACE_CLOSE, .fd = fd}, NULL, NULL, NULL);
  }
  return (int)syscall(SYS_close, fd);
}

static int named(trace_op op, long rc, const char *path, const char *to) {
  const char *from = below_root(path);
  if (rc == 0 && from)
    note((trace_record){.op = (int32_t)op}, from, to ? below_root(to) : NULL, NULL);
  return (int)rc;
}

SHOWN int mkdir(const char *path, mode_t mode) {
  return named(TRACE_MKDIR, syscall(SYS_mkdir, path, mode), path, NULL);
}
SHOWN int rename(const char *from, const char *to) {
  return named(TRACE_RENAME, syscall(SYS_rename, from, to), from, to);
}
SHOWN int link(const char *from, const char *to) {
  return named(TRACE_LINK, syscall(SYS_link, from, to), from, to);
}
SHOWN int unlink(const char *path) {
  return named(TRACE_UNLINK, syscall(SYS_unlink, path), path, NULL);
}

SHOWN int unlinkat(int folder, const char *name, int flags) {
  char link_path[64], path[PATH_MAX] = "";
  snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", folder);
  ssize_t len = readlink(link_path, path, sizeof path - 1);
  if (len > 0) snprintf(path + len, sizeof path - (size_t)len, "/%s", name);
  return named(TRACE_UNLINK, syscall(SYS_unlinkat, folder, name, flags), path, NULL);
}
