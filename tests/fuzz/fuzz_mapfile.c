// SPDX-License-Identifier: Apache-2.0
// Any bytes as a file of motion maps: no crash, bounded memory, and what is refused has a reason. Most
// changes are caught by the checksum of header and tables, so the same bytes come again with a right
// one. Built for libFuzzer, or with fuzz_main.c for a run with a seed.
#include "runtime/video/motion.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { HEADER = 80, AT_FRAMES = 8, AT_SUM = 72, MOST = 64 };

static void read_maps(const uint8_t *data, size_t size) {
  int fd = memfd_create("maps", MFD_CLOEXEC);
  MD_ASSERT(fd >= 0 && write(fd, data, size) == (ssize_t)size, "no file in memory");
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  md_fault f;
  md_map *m = md_map_open(path, &f);
  MD_ASSERT(m || (f.code && *f.text && *f.hint), "refused without a reason");
  int frames = m ? MD_MIN(md_map_about(m)->frames, MOST) : 0;
  uint8_t sum = 0;
  for (int t = 0; t < frames; t++) {
    const md_map_info *i = md_map_about(m);
    const uint8_t *q = md_map_frame(m, t, &f);
    MD_ASSERT(q || f.code == E0851, "frame %d is refused without a reason", t);
    for (int64_t k = 0; q && k < (int64_t)md_map_planes(i->kind) * i->w * i->h; k++) sum ^= q[k];
  }
  static volatile uint8_t sink;  // every byte of a plane must be readable
  sink = sum;
  (void)sink;
  md_map_close(m);
  close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  read_maps(data, size);
  if (size < HEADER) return 0;
  uint32_t frames = 0;
  for (int i = 0; i < 4; i++) frames |= (uint32_t)data[AT_FRAMES + i] << 8 * i;
  uint64_t tables = HEADER + 20 * (uint64_t)frames + 8;
  if (tables > size) return 0;
  uint8_t *copy = malloc(size);
  MD_ASSERT(copy, "no memory");
  memcpy(copy, data, size);
  memset(copy + AT_SUM, 0, 8);
  uint64_t sum = md_digest_of(copy, (size_t)tables).lo;
  for (int i = 0; i < 8; i++) copy[AT_SUM + i] = (uint8_t)(sum >> 8 * i);
  read_maps(copy, size);
  free(copy);
  return 0;
}

// A file of each kind, as the writer makes it.
void fuzz_seeds(void (*add)(const char *s, size_t len)) {
  for (int kind = 0; kind < MD_NUM_MAP_KINDS; kind++) {
    md_map_info info = {.kind = (md_map_kind)kind, .frames = 3, .w = 12, .h = 9, .fps_den = 1};
    char path[64];
    snprintf(path, sizeof path, "fuzz-%ld.mmap1", (long)getpid());
    md_map_writer *w = md_map_create(path, &info, NULL);
    MD_ASSERT(w, "%s cannot be written", path);
    for (int t = 0; t < info.frames; t++) {
      uint8_t planes[3 * 12 * 9];
      for (int i = 0; i < MD_COUNT(planes); i++) planes[i] = (uint8_t)(i * t);
      md_map_add(w, planes, 0.5F);
    }
    MD_ASSERT(md_map_commit(w), "%s cannot be written", path);
    static char buf[1 << 14];
    FILE *f = fopen(path, "rb");
    MD_ASSERT(f, "%s cannot be read", path);
    add(buf, fread(buf, 1, sizeof buf, f));
    fclose(f);
    remove(path);
  }
}
