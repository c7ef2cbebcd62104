// SPDX-License-Identifier: Apache-2.0
// Compiled code on disk, under the digest of all that it was made from. A file holds its own digest,
// so a torn or changed one is only a miss; no fsync is needed for the same reason.
//
//   <cache>/<32 hex digits>.o:  magic[8]  digest of the rest[16]  code
#include "base/cache.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 24 };
static const char magic[8] = {'m', 'o', 'd', 'i', 's', 't', '.', 'o'};
#define MAX_OBJECT ((int64_t)64 << 20)

// NULL: no cache. In `a`.
static char *path_of(md_digest key, md_arena *a) {
  const char *dir = md_cache_dir(a);
  char hex[33];
  return dir ? md_format(a, "%s/%s.o", dir, md_digest_text(key, hex)) : NULL;
}

static bool read_all(int fd, char *to, size_t len) {
  while (len > 0) {
    ssize_t n = read(fd, to, len);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    to += n;
    len -= (size_t)n;
  }
  return true;
}

static bool read_code(int fd, char **code, size_t *len) {
  struct stat st;
  if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_uid != geteuid()) return false;
  if (st.st_size <= HEADER || st.st_size > MAX_OBJECT) return false;
  char header[HEADER];
  if (!read_all(fd, header, sizeof header) || memcmp(header, magic, sizeof magic) != 0)
    return false;
  size_t bytes = (size_t)st.st_size - HEADER;
  char *data = md_malloc(bytes);
  if (read_all(fd, data, bytes)) {
    md_digest found = md_digest_of(data, bytes);
    if (!memcmp(header + sizeof magic, &found, sizeof found)) {
      *code = data;
      *len = bytes;
      return true;
    }
  }
  free(data);
  return false;
}

bool md_cache_read(md_digest key, char **data, size_t *bytes) {
  md_arena *a = md_arena_create();
  char *path = path_of(key, a);
  int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
  bool ok = fd >= 0 && read_code(fd, data, bytes);
  // That it was used, whatever the file system notes of reading: `cache prune` asks.
  if (ok) futimens(fd, (struct timespec[2]){{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}});
  if (fd >= 0) close(fd);
  if (fd >= 0 && !ok)
    md_log(MD_LOG_CACHE, MD_LEVEL_WARN, "damaged cache file %s is made anew", path);
  md_log(MD_LOG_CACHE, MD_LEVEL_DEBUG, "%s %s", ok ? "hit" : "miss", path ? path : "(no folder)");
  md_arena_destroy(a);
  return ok;
}

void md_cache_write(md_digest key, const char *data, size_t bytes) {
  md_arena *a = md_arena_create();
  char *path = path_of(key, a);
  char *temp = path ? md_format(a, "%s.XXXXXX", path) : NULL;
  int fd = temp ? mkostemp(temp, O_CLOEXEC) : -1;
  if (fd >= 0) {
    char header[HEADER];
    md_digest digest = md_digest_of(data, bytes);
    memcpy(header, magic, sizeof magic);
    memcpy(header + sizeof magic, &digest, sizeof digest);
    bool ok = md_write_all(fd, header, sizeof header) && md_write_all(fd, data, bytes);
    ok = close(fd) == 0 && ok && rename(temp, path) == 0;
    if (!ok) {
      md_log(MD_LOG_CACHE, MD_LEVEL_WARN, "%s: %s", path, strerror(errno));
      unlink(temp);
    }
  }
  md_arena_destroy(a);
}
