// SPDX-License-Identifier: Apache-2.0
// The linker takes these functions for the program's and our libraries' calls, in place of libc's.
#include "tests/survive/faults.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int calls, bad_call, kind;
static bool is_on;

void faults_begin(int nth, int fault) {
  calls = 0;
  bad_call = nth;
  kind = fault;
  is_on = true;
}

int faults_end(void) {
  is_on = false;
  return calls;
}

// Counts; true when this call is to fail.
static bool fails(void) {
  if (!is_on || ++calls != bad_call) return false;
  if (kind == FAULT_KILL) syscall(SYS_kill, getpid(), SIGKILL);
  if (kind > 0) errno = kind;
  return kind > 0;
}

static bool is_short(size_t len) {
  return is_on && calls == bad_call && kind == FAULT_SHORT && len > 1;
}

int open(const char *path, int flags, ...) {
  if (fails()) return -1;
  va_list args;
  va_start(args, flags);
  mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
  va_end(args);
  return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int mkostemp(char *template, int flags) {
  int (*real)(char *, int);
  *(void **)&real = dlsym(RTLD_NEXT, "mkostemp");  // C has no cast from data to code
  return fails() ? -1 : real(template, flags);
}

DIR *opendir(const char *path) {
  DIR *(*real)(const char *);
  *(void **)&real = dlsym(RTLD_NEXT, "opendir");
  return fails() ? NULL : real(path);
}

ssize_t read(int fd, void *data, size_t len) {
  if (fails()) return -1;
  return syscall(SYS_read, fd, data, is_short(len) ? len / 2 : len);
}

ssize_t write(int fd, const void *data, size_t len) {
  if (fails()) return -1;
  return syscall(SYS_write, fd, data, is_short(len) ? len / 2 : len);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at) {
  if (fails()) return -1;
  return syscall(SYS_pwrite64, fd, data, is_short(len) ? len / 2 : len, at);
}

int fsync(int fd) { return fails() ? -1 : (int)syscall(SYS_fsync, fd); }
int fchmod(int fd, mode_t mode) { return fails() ? -1 : (int)syscall(SYS_fchmod, fd, mode); }
int flock(int fd, int how) { return fails() ? -1 : (int)syscall(SYS_flock, fd, how); }
int mkdir(const char *path, mode_t mode) {
  return fails() ? -1 : (int)syscall(SYS_mkdir, path, mode);
}
int rename(const char *from, const char *to) {
  return fails() ? -1 : (int)syscall(SYS_rename, from, to);
}
int unlink(const char *path) { return fails() ? -1 : (int)syscall(SYS_unlink, path); }
int unlinkat(int fd, const char *name, int flags) {
  return fails() ? -1 : (int)syscall(SYS_unlinkat, fd, name, flags);
}

// As the system does it: the file is closed, whatever is told.
int close(int fd) {
  bool bad = fails();
  int error = errno, rc = (int)syscall(SYS_close, fd);
  if (!bad) return rc;
  errno = error;
  return -1;
}
