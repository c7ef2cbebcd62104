// SPDX-License-Identifier: Apache-2.0
// The checker. Kernels are compiled with -fsanitize=thread but not linked with its library: the
// functions that announce each access are these. An address is sorted into the stacks (private, not
// looked at), shared memory, a buffer, or nothing, which is an error.
//
// Every byte remembers who wrote and who read it last, and in which epoch. An epoch begins with a
// block and with each barrier, and only barriers order memory (shuffles do not). So two accesses by
// two threads in one epoch, one of them a write, are a race whatever the schedule was; and so is any
// pair of two blocks.
#include "tests/simt/simt.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

enum { SLACK = 256, MAX_BUFFERS = 4096 };

typedef struct Cell {
  uint32_t written, read;  // epochs; 0: not in this program
  uint32_t foreign;        // launch in which another block has read it
  uint16_t writer, reader;
  bool many_readers, is_set;
} Cell;

typedef struct Buffer {
  char *name, *at;
  int64_t bytes;
  bool writable;
  Cell *cell;
} Buffer;

static struct Checker {
  Buffer buffer[MAX_BUFFERS];
  int num;
  unsigned char *shared;
  int shared_bytes;
  Cell *shared_cell;
  int shared_cap;
  const char *stacks;
  int64_t stack_bytes;
  uint32_t epoch, block_start, launch_start;
} C;

void *simt_buffer(const char *name, int64_t bytes, bool is_set) {
  MD_ASSERT(C.num < MAX_BUFFERS, "too many buffers");
  Buffer *b = &C.buffer[C.num++];
  char *all = aligned_alloc(SLACK, (size_t)md_round_up(bytes + 2 * SLACK, SLACK));
  *b = (Buffer){.name = strdup(name),
                .at = all + SLACK,
                .bytes = bytes,
                .writable = true,
                .cell = calloc((size_t)bytes, sizeof(Cell))};
  MD_ASSERT(all && b->cell && b->name, "out of memory");
  memset(all, 0xff, (size_t)bytes + 2 * SLACK);
  for (int64_t i = 0; is_set && i < bytes; i++) b->cell[i].is_set = true;
  return b->at;
}

void simt_set(const void *buffer) {
  for (int i = 0; i < C.num; i++)
    for (int64_t j = 0; C.buffer[i].at == buffer && j < C.buffer[i].bytes; j++)
      C.buffer[i].cell[j].is_set = true;
}

void simt_writable(const void *buffer, bool writable) {
  for (int i = 0; i < C.num; i++)
    if (C.buffer[i].at == buffer) C.buffer[i].writable = writable;
}

void simt_free_buffers(void) {
  for (int i = 0; i < C.num; i++) {
    free(C.buffer[i].name);
    free(C.buffer[i].at - SLACK);
    free(C.buffer[i].cell);
  }
  C.num = 0;
}

void simt_checker_launch(unsigned char *shared, int shared_bytes, const char *stacks,
                         int64_t stack_bytes) {
  C.shared = shared;
  C.shared_bytes = shared_bytes;
  C.stacks = stacks;
  C.stack_bytes = stack_bytes;
  C.launch_start = C.epoch + 1;
  if (shared_bytes <= C.shared_cap) return;
  C.shared_cell = realloc(C.shared_cell, sizeof(Cell) * (size_t)shared_bytes);
  MD_ASSERT(C.shared_cell, "out of memory");
  C.shared_cap = shared_bytes;
}

void simt_checker_block(void) {
  C.block_start = ++C.epoch;
  if (C.shared_bytes) memset(C.shared_cell, 0, sizeof(Cell) * (size_t)C.shared_bytes);
}

void simt_checker_barrier(void) { C.epoch++; }

// --- one byte; false: reported

static bool read_cell(Cell *c, const char *where, int64_t at, const void *pc) {
  uint16_t me = (uint16_t)simt_current();
  if (!c->is_set) {
    simt_error(false, pc, "reads %s +%lld, which nobody has written", where, (long long)at);
    return false;
  }
  if (c->written == C.epoch && c->writer != me) {
    simt_error(false, pc, "race: reads %s +%lld, which thread %d wrote without a barrier between",
               where, (long long)at, c->writer);
    return false;
  }
  if (c->written >= C.launch_start && c->written < C.block_start) {
    simt_error(false, pc, "conflict: reads %s +%lld, which another block wrote", where,
               (long long)at);
    return false;
  }
  if (c->read >= C.launch_start && c->read < C.block_start) c->foreign = C.launch_start;
  if (c->read == C.epoch) {
    c->many_readers |= c->reader != me;
  } else {
    c->read = C.epoch;
    c->reader = me;
    c->many_readers = false;
  }
  return true;
}

static bool write_cell(Cell *c, const char *where, int64_t at, const void *pc) {
  uint16_t me = (uint16_t)simt_current();
  if (c->written == C.epoch && c->writer != me) {
    simt_error(false, pc, "race: writes %s +%lld, which thread %d wrote without a barrier between",
               where, (long long)at, c->writer);
    return false;
  }
  if (c->read == C.epoch && (c->reader != me || c->many_readers)) {
    simt_error(false, pc, "race: writes %s +%lld, which thread %d read without a barrier between",
               where, (long long)at, c->reader);
    return false;
  }
  bool written = c->written >= C.launch_start && c->written < C.block_start;
  bool read =
      (c->read >= C.launch_start && c->read < C.block_start) || c->foreign == C.launch_start;
  if (written || read) {
    simt_error(false, pc, "conflict: writes %s +%lld, which another block %s", where, (long long)at,
               written ? "wrote" : "read");
    return false;
  }
  c->written = C.epoch;
  c->writer = me;
  c->is_set = true;
  return true;
}

static void check_cells(Cell *c, const char *where, int64_t at, int64_t bytes, bool write,
                        const void *pc) {
  for (int64_t i = 0; i < bytes; i++)
    if (!(write ? write_cell(&c[i], where, at + i, pc) : read_cell(&c[i], where, at + i, pc)))
      return;
}

// --- addresses

static bool near(int64_t at, int64_t bytes, int64_t of) {
  return at + bytes > -SLACK && at < of + SLACK;
}

static void access_at(const void *p, int64_t bytes, bool write, const void *pc) {
  if (simt_current() < 0) return;
  const char *a = p, *what = write ? "writes" : "reads";
  if (a >= C.stacks && a < C.stacks + C.stack_bytes) return;
  int64_t at = a - (const char *)C.shared;
  if (at >= 0 && at + bytes <= C.shared_bytes) {
    if (at % bytes)
      simt_error(false, pc, "%s %lld bytes of shared memory at +%lld: misaligned", what,
                 (long long)bytes, (long long)at);
    check_cells(&C.shared_cell[at], "shared memory", at, bytes, write, pc);
    return;
  }
  for (int i = 0; i < C.num; i++) {
    Buffer *b = &C.buffer[i];
    int64_t off = a - b->at;
    if (off < 0 || off + bytes > b->bytes) continue;
    if (write && !b->writable)
      simt_error(false, pc, "writes %s +%lld, which is only read here", b->name, (long long)off);
    if (off % bytes)
      simt_error(false, pc, "%s %lld bytes of %s at +%lld: misaligned", what, (long long)bytes,
                 b->name, (long long)off);
    check_cells(&b->cell[off], b->name, off, bytes, write, pc);
    return;
  }
  if (near(at, bytes, C.shared_bytes))
    simt_error(true, pc, "%s %lld bytes of shared memory at +%lld, but it has %d", what,
               (long long)bytes, (long long)at, C.shared_bytes);
  for (int i = 0; i < C.num; i++)
    if (near(a - C.buffer[i].at, bytes, C.buffer[i].bytes))
      simt_error(true, pc, "%s %lld bytes of %s at +%lld, but it has %lld", what, (long long)bytes,
                 C.buffer[i].name, (long long)(a - C.buffer[i].at), (long long)C.buffer[i].bytes);
  simt_error(true, pc, "%s %lld bytes at an address in no buffer", what, (long long)bytes);
}

// --- what instrumented code calls. Their names are not ours to choose.

#define PC __builtin_return_address(0)
void __tsan_init(void);
void __tsan_func_entry(void *pc);
void __tsan_func_exit(void);
void __tsan_read_range(void *p, long bytes);
void __tsan_write_range(void *p, long bytes);
void *__tsan_memset(void *p, int value, size_t bytes);
void *__tsan_memcpy(void *dst, const void *src, size_t bytes);
void *__tsan_memmove(void *dst, const void *src, size_t bytes);
void __tsan_init(void) {}
void __tsan_func_entry(void *pc) { (void)pc; }
void __tsan_func_exit(void) {}
static void range(const void *p, long bytes, bool write, const void *pc) {
  for (long i = 0; i < bytes; i++) access_at((const char *)p + i, 1, write, pc);
}
void __tsan_read_range(void *p, long bytes) { range(p, bytes, false, PC); }
void __tsan_write_range(void *p, long bytes) { range(p, bytes, true, PC); }
void *__tsan_memset(void *p, int value, size_t bytes) {
  range(p, (long)bytes, true, PC);
  return memset(p, value, bytes);
}
void *__tsan_memcpy(void *dst, const void *src, size_t bytes) {
  range(src, (long)bytes, false, PC);
  range(dst, (long)bytes, true, PC);
  return memcpy(dst, src, bytes);
}
void *__tsan_memmove(void *dst, const void *src, size_t bytes) {
  range(src, (long)bytes, false, PC);
  range(dst, (long)bytes, true, PC);
  return memmove(dst, src, bytes);
}
#define HOOK(name, bytes, write) \
  void name(void *p);            \
  void name(void *p) { access_at(p, bytes, write, PC); }
HOOK(__tsan_read1, 1, false)
HOOK(__tsan_read2, 2, false)
HOOK(__tsan_read4, 4, false)
HOOK(__tsan_read8, 8, false)
HOOK(__tsan_read16, 16, false)
HOOK(__tsan_unaligned_read2, 2, false)
HOOK(__tsan_unaligned_read4, 4, false)
HOOK(__tsan_unaligned_read8, 8, false)
HOOK(__tsan_unaligned_read16, 16, false)
HOOK(__tsan_write1, 1, true)
HOOK(__tsan_write2, 2, true)
HOOK(__tsan_write4, 4, true)
HOOK(__tsan_write8, 8, true)
HOOK(__tsan_write16, 16, true)
HOOK(__tsan_unaligned_write2, 2, true)
HOOK(__tsan_unaligned_write4, 4, true)
HOOK(__tsan_unaligned_write8, 8, true)
HOOK(__tsan_unaligned_write16, 16, true)
