// SPDX-License-Identifier: Apache-2.0
// Large buffers straight from the system: zeroed, returned at once when freed, and with huge pages,
// which halve the time of kernels that walk through more memory than the TLB covers.
//
// The hostile build takes all of them from malloc, so that AddressSanitizer sees overruns, and
// fills them with NaN, so that reading what was never written shows.
#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64, HUGE_PAGE = 2 << 20, PAGE = 4096 };

#ifdef MODIST_HOSTILE_ARENA
enum { MAPPED_FROM = INT32_MAX, FRESH = 0xFF };  // every float of 0xFF bytes is a NaN
#else
enum { MAPPED_FROM = HUGE_PAGE, FRESH = 0 };
#endif

// A mapping that starts at a huge page: more is asked for, and what is too much given back. Its end
// is not rounded to huge pages, so that small pages carry the rest.
static void *map(size_t bytes) {
  size_t room = bytes + HUGE_PAGE;
  char *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return NULL;
  size_t head = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
  if (head) munmap(p, head);
  munmap(p + head + bytes, room - head - bytes);
  madvise(p + head, bytes, MADV_HUGEPAGE);  // a wish; without it there are small pages
  return p + head;
}

// First number after `key` in a small file; -1 when there is none ("max" in control groups).
static int64_t number_in(const char *path, const char *key) {
  FILE *f = fopen(path, "re");
  if (!f) return -1;
  char line[256];
  int64_t found = -1;
  while (found < 0 && fgets(line, sizeof line, f)) {
    if (strncmp(line, key, strlen(key))) continue;
    char *end, *text = line + strlen(key);
    long long x = strtoll(text, &end, 10);
    if (end > text && x >= 0) found = x;
  }
  fclose(f);
  return found;
}

bool md_block_create(md_block *b, int64_t bytes) {
  *b = (md_block){0};
  if (bytes == 0) return true;
  if (bytes >= MAPPED_FROM) {
    b->bytes = (size_t)md_round_up(bytes, PAGE);
    b->mapped = true;
    b->at = map(b->bytes);
  } else {
    b->bytes = (size_t)md_round_up(bytes, ALIGN);
    b->at = aligned_alloc(ALIGN, b->bytes);
    if (b->at) memset(b->at, FRESH, b->bytes);
  }
  if (!b->at) *b = (md_block){0};
  return b->at != NULL;
}

void md_block_destroy(md_block *b) {
  if (b->mapped) munmap(b->at, b->bytes);
  else free(b->at);
  *b = (md_block){0};
}

int64_t md_memory_resident(void) {
  int64_t kib = number_in("/proc/self/status", "VmRSS:");
  return MD_MAX(kib, 0) * 1024;
}

int64_t md_memory_free(void) {
  int64_t bytes = INT64_MAX;
  int64_t kib = number_in("/proc/meminfo", "MemAvailable:");
  if (kib >= 0 && kib < INT64_MAX / 1024) bytes = kib * 1024;
  // Inside a container the group's own files stand at the root; elsewhere they are not there.
  int64_t most = number_in("/sys/fs/cgroup/memory.max", "");
  int64_t used = number_in("/sys/fs/cgroup/memory.stat", "anon ");
  if (most >= 0) bytes = MD_MIN(bytes, MD_MAX(most - MD_MAX(used, 0), 0));
  return bytes;
}
