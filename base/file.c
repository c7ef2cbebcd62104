// SPDX-License-Identifier: Apache-2.0
// Whole files. Reading trusts nothing: no FIFO or device, no more than the limit, even if the file
// grows meanwhile. Writing goes to a temporary neighbour that takes the name only when all of it is
// on the disk: a reader, a crash or a full disk never sees half a file.
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct md_file_writer {
  char *path, *temp;
  int fd;
  bool has_failed;
  md_diags *diags;
};

static const char *reason(int error) {
  const char *s = strerrordesc_np(error);  // never translated, safe with threads
  return s ? s : "unknown error";
}

static const char *kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a pipe";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

// Reads until the end or until `max` bytes; -1 on failure.
static ssize_t read_all(int fd, char *buf, size_t max) {
  size_t n = 0;
  while (n < max) {
    ssize_t got = read(fd, buf + n, max - n);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    n += (size_t)got;
  }
  return (ssize_t)n;
}

static bool too_large(const char *path, int64_t size, int64_t limit, md_code code, md_diags *d) {
  char found[MD_FLOAT_CHARS], most[MD_FLOAT_CHARS];
  return md_error(d, code, MD_IN_FILE(path), "file is too large: %s, but at most %s are read here",
                  md_bytes_text((double)size, found), md_bytes_text((double)limit, most));
}

static int sync_fd(int fd) {
  int rc;
  do rc = fsync(fd);
  while (rc < 0 && errno == EINTR);
  return rc < 0 && (errno == EINVAL || errno == EROFS) ? 0 : rc;  // file systems that have no fsync
}

// The length of the folder part of `path`, with its slash.
static size_t folder_len(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? (size_t)(slash - path) + 1 : 0;
}

// 0666 as umask allows it. umask() itself can only be read by setting it, which races.
static mode_t wanted_mode(void) {
  char text[4096];
  int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  ssize_t len = fd < 0 ? -1 : read_all(fd, text, sizeof text - 1);
  if (fd >= 0) close(fd);
  if (len < 0) return 0600;
  text[len] = '\0';
  const char *line = strstr(text, "\nUmask:");
  if (!line) return 0600;
  return 0666 & ~(mode_t)strtoul(line + strlen("\nUmask:"), NULL, 8);
}

static void free_writer(md_file_writer *w) {
  if (w->fd >= 0) close(w->fd);
  free(w->path);
  free(w->temp);
  free(w);
}

static bool fail(md_file_writer *w, const char *doing) {
  int error = errno;
  if (!w->has_failed)
    md_error(w->diags, E0801, MD_IN_FILE(w->path), "%s: %s", doing, reason(error));
  w->has_failed = true;
  return false;
}

int md_sync_folder_of(const char *path) {
  size_t len = folder_len(path);
  char *folder = len ? strndup(path, len) : strdup(".");
  if (!folder) md_out_of_memory(len);
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  free(folder);
  if (fd < 0) return errno == EACCES ? 0 : -1;  // a folder may be writable but not readable
  int rc = sync_fd(fd);
  int error = errno;
  close(fd);
  errno = error;
  return rc;
}

static bool make_folder(const char *path, mode_t mode) {
  if (mkdir(path, mode) == 0) return md_sync_folder_of(path) == 0;
  struct stat st;
  if (errno != EEXIST || stat(path, &st) < 0) return false;
  errno = ENOTDIR;
  return S_ISDIR(st.st_mode);
}

bool md_make_folders(char *path, mode_t mode) {
  for (char *p = path + 1;; p++) {
    if (*p && *p != '/') continue;
    char kept = *p;
    *p = 0;
    if (!make_folder(path, mode)) return false;
    *p = kept;
    if (!kept) return true;
  }
}

bool md_make_parents(const char *path, md_diags *d) {
  const char *slash = strrchr(path, '/');
  if (!slash || slash == path) return true;
  char *folder = strndup(path, (size_t)(slash - path));
  if (!folder) md_out_of_memory(strlen(path));
  bool ok = md_make_folders(folder, 0777);
  if (!ok && errno == ENOTDIR)
    md_error(d, E0801, MD_IN_FILE(folder), "a folder is needed here, but this is none");
  else if (!ok)
    md_error(d, E0801, MD_IN_FILE(folder), "folder cannot be made: %s", strerrordesc_np(errno));
  free(folder);
  return ok;
}

bool md_file_read(const char *path, int64_t limit, md_code code, md_diags *d, char **data,
                  size_t *len) {
  MD_ASSERT(limit >= 0 && limit < INT64_MAX, "file limit %lld", (long long)limit);
  bool ok = false;
  char *buf = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);  // a FIFO must not block
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) {
    md_error(d, code, MD_IN_FILE(path), "cannot open: %s", reason(errno));
    goto out;
  }
  if (!S_ISREG(st.st_mode)) {
    md_error(d, code, MD_IN_FILE(path), "a regular file is needed, but this is %s",
             kind_of(st.st_mode));
    goto out;
  }
  if (st.st_size > limit) {
    too_large(path, st.st_size, limit, code, d);
    goto out;
  }
  // One byte more than the size tells a file that grew, and gives room for the NUL.
  size_t room = (size_t)st.st_size + 1;
  buf = md_malloc(room);
  ssize_t got = read_all(fd, buf, room);
  if (got < 0) {
    md_error(d, code, MD_IN_FILE(path), "cannot read: %s", reason(errno));
    goto out;
  }
  if ((size_t)got == room) {
    md_error(d, code, MD_IN_FILE(path), "file grew while it was read");
    goto out;
  }
  buf[got] = '\0';
  *data = buf;
  *len = (size_t)got;
  buf = NULL;
  ok = true;
out:
  free(buf);
  if (fd >= 0) close(fd);
  return ok;
}

md_file_writer *md_file_create(const char *path, md_diags *d) {
  struct stat st;
  if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
    md_error(d, E0801, MD_IN_FILE(path), "cannot be replaced by a file: it is %s",
             kind_of(st.st_mode));
    return NULL;
  }
  md_file_writer *w = md_calloc(1, sizeof *w);
  w->fd = -1;
  w->diags = d;
  w->path = strdup(path);
  int folder = (int)folder_len(path);
  // A name of its own, not made from `path`: that may already be as long as a name can be.
  if (!w->path || asprintf(&w->temp, "%.*s.modist-XXXXXX", folder, path) < 0)
    md_out_of_memory(strlen(path));
  w->fd = mkostemp(w->temp, O_CLOEXEC);
  if (w->fd >= 0) return w;
  fail(w, "cannot create");
  if (errno == ENOENT && folder) md_hint(d, "mkdir -p '%.*s'", folder, path);
  free_writer(w);
  return NULL;
}

bool md_write_all(int fd, const void *data, size_t len) {
  for (const char *p = data; len > 0;) {
    ssize_t n = write(fd, p, len);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    p += n;
    len -= (size_t)n;
  }
  return true;
}

bool md_file_write(md_file_writer *w, const void *data, size_t len) {
  if (w->has_failed) return false;
  return md_write_all(w->fd, data, len) || fail(w, "cannot write");
}

bool md_file_rewrite(md_file_writer *w, int64_t at, const void *data, size_t len) {
  if (w->has_failed) return false;
  for (const char *p = data; len > 0;) {
    ssize_t n = pwrite(w->fd, p, len, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(w, "cannot write");
    p += n;
    at += n;
    len -= (size_t)n;
  }
  return true;
}

bool md_file_commit(md_file_writer *w) {
  if (w->has_failed) {
    md_file_abort(w);
    return false;
  }
  // close() may be the first to tell of a full disk on a network file system. When a signal interrupts
  // it, the file is closed all the same.
  bool ok = (fchmod(w->fd, wanted_mode()) == 0 && sync_fd(w->fd) == 0) || fail(w, "cannot write");
  int rc = close(w->fd);
  w->fd = -1;
  ok = ok && (rc == 0 || errno == EINTR || fail(w, "cannot write"));
  ok = ok && (rename(w->temp, w->path) == 0 || fail(w, "cannot take its place"));
  if (!ok) {
    md_file_abort(w);
    return false;
  }
  ok = md_sync_folder_of(w->path) == 0 || fail(w, "cannot sync its folder");
  free_writer(w);
  return ok;
}

void md_file_abort(md_file_writer *w) {
  if (!w) return;
  unlink(w->temp);
  free_writer(w);
}

bool md_file_may_create(const char *path, md_diags *d) {
  md_file_writer *w = md_file_create(path, d);
  bool may = w != NULL;
  md_file_abort(w);
  return may;
}

bool md_file_save(const char *path, const void *data, size_t len, md_diags *d) {
  md_file_writer *w = md_file_create(path, d);
  if (!w) return false;
  md_file_write(w, data, len);  // sticky: the commit tells
  return md_file_commit(w);
}

const char *md_cache_dir(md_arena *a) {
  const char *own = getenv("MODIST_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  char *path = NULL;
  if (own && *own) path = md_strdup(a, own);
  else if (xdg && *xdg == '/') path = md_format(a, "%s/modist", xdg);  // relative: to be ignored
  else if (home && *home == '/') path = md_format(a, "%s/.cache/modist", home);
  if (!path || !md_make_folders(path, 0700)) return NULL;
  // Code is loaded from here: nobody else may be able to put a file in.
  struct stat st;
  if (lstat(path, &st) < 0 || !S_ISDIR(st.st_mode)) return NULL;
  if (st.st_uid != geteuid() || (st.st_mode & 022) || access(path, R_OK | W_OK | X_OK) < 0)
    return NULL;
  return path;
}
