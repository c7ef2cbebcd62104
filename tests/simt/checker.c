// SPDX-License-Identifier: Apache-2.0
// The checker. Kernels are compiled with -fsanitize=thread but not linked with its library: the
// functions that announce each access are these. An address is sorted into the stacks (private, not
// looked at), shared memory, a buffer, or nothing, which is an error.
//
// Every byte remembers who wrote and who read it last, and when (order.c). Two accesses by two threads,
// one of them a write and neither over for the other, are a race whatever the schedule was; only
// barriers order memory. So is any pair of two blocks.
#include "tests/simt/machine.h"
#include "tests/simt/shadow.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

enum { SLACK = 256, MAX_BUFFERS = 4096, HINTS = 256 };

typedef struct Window {
  int64_t from, to;
} Window;

typedef struct Buffer {
  char *name, *at;
  int64_t bytes;
  bool writable;
  Shadow shadow;
  Window *window;                      // what may be touched; none: all of it
  int num_windows, cap_windows, last;  // last: the window that was touched last
} Buffer;

static struct Checker {
  Buffer buffer[MAX_BUFFERS];
  int num;
  unsigned char *shared;
  int shared_bytes;
  Shadow shared_shadow;
  int16_t hint[HINTS];  // by place in the text: the buffer that was touched last
  const char *stacks;
  int64_t stack_bytes;
  uint32_t block_start, launch_start;
  bool off, numbers;
} C;

void simt_check(bool on) { C.off = !on; }
void simt_check_numbers(bool on) { C.numbers = on; }
bool simt_is_checked(void) { return !C.off; }
simt_form simt_form_now(void) {
  return C.off ? SIMT_PLAIN : C.numbers ? SIMT_NUMBERS : SIMT_CHECKED;
}

void *simt_buffer(const char *name, int64_t bytes, bool is_set) {
  MD_ASSERT(C.num < MAX_BUFFERS, "too many buffers");
  Buffer *b = &C.buffer[C.num++];
  char *all = aligned_alloc(SLACK, (size_t)md_round_up(bytes + 2 * SLACK, SLACK));
  *b = (Buffer){.name = strdup(name), .at = all + SLACK, .bytes = bytes, .writable = true};
  MD_ASSERT(all && b->name, "out of memory");
  simt_shadow_create(&b->shadow, bytes, is_set, false);
  memset(all, 0xff, (size_t)bytes + 2 * SLACK);
  return b->at;
}

void simt_set(const void *buffer) {
  for (int i = 0; i < C.num; i++)
    if (C.buffer[i].at == buffer) simt_shadow_set(&C.buffer[i].shadow, 0, C.buffer[i].bytes);
}

static Buffer *buffer_with(const void *p, int64_t bytes) {
  for (int i = 0; i < C.num; i++) {
    int64_t off = (const char *)p - C.buffer[i].at;
    if (off >= 0 && off + bytes <= C.buffer[i].bytes) return &C.buffer[i];
  }
  return NULL;
}

void simt_wrote(const void *p, int64_t bytes) {
  Buffer *b = C.off ? NULL : buffer_with(p, bytes);
  if (b) simt_shadow_set(&b->shadow, (const char *)p - b->at, bytes);
}

void simt_writable(const void *buffer, bool writable) {
  for (int i = 0; i < C.num; i++)
    if (C.buffer[i].at == buffer) C.buffer[i].writable = writable;
}

void simt_open(const void *buffer, int64_t offset, int64_t bytes) {
  for (int i = 0; i < C.num; i++) {
    Buffer *b = &C.buffer[i];
    if (b->at == buffer)
      MD_PUSH(b->window, b->num_windows, b->cap_windows, ((Window){offset, offset + bytes}));
  }
}

void simt_close(const void *buffer) {
  for (int i = 0; i < C.num; i++)
    if (C.buffer[i].at == buffer) C.buffer[i].num_windows = C.buffer[i].last = 0;
}

static bool is_open(Buffer *b, int64_t off, int64_t bytes) {
  for (int i = 0, at = b->last; i < b->num_windows; i++, at = (at + 1) % b->num_windows) {
    if (off < b->window[at].from || off + bytes > b->window[at].to) continue;
    b->last = at;
    return true;
  }
  return !b->num_windows;
}

static bool is_fresh(const char *slack) {
  for (int i = 0; i < SLACK; i++)
    if (slack[i] != '\xff') return false;
  return true;
}

const char *simt_overrun(void) {
  for (int i = 0; i < C.num; i++) {
    const Buffer *b = &C.buffer[i];
    if (!is_fresh(b->at - SLACK) || !is_fresh(b->at + b->bytes)) return b->name;
  }
  return NULL;
}

static void free_buffer(Buffer *b) {
  free(b->name);
  free(b->window);
  free(b->at - SLACK);
  simt_shadow_free(&b->shadow);
}

void simt_free_buffer(void *buffer) {
  Buffer *b = buffer_with(buffer, 0);
  free_buffer(b);
  *b = C.buffer[--C.num];
}

void simt_free_buffers(void) {
  for (int i = 0; i < C.num; i++) free_buffer(&C.buffer[i]);
  C.num = 0;
}

void simt_checker_launch(unsigned char *shared, int shared_bytes, const char *stacks,
                         int64_t stack_bytes) {
  C.shared = shared;
  C.shared_bytes = shared_bytes;
  C.stacks = stacks;
  C.stack_bytes = stack_bytes;
  C.launch_start = simt_order_epoch() + 1;
  if (shared_bytes <= C.shared_shadow.bytes) return;
  simt_shadow_free(&C.shared_shadow);
  simt_shadow_create(&C.shared_shadow, shared_bytes, false, true);
}

void simt_checker_block(void) { C.block_start = simt_order_epoch(); }

// --- one cell; false: reported

static bool of_other_block(uint32_t epoch) {
  return epoch >= C.launch_start && epoch < C.block_start;
}

// By a block from which no ticket has come.
static bool is_foreign(uint32_t epoch, uint16_t clock, uint16_t thread) {
  return of_other_block(epoch) && !simt_ticket_knows((simt_moment){epoch, clock, thread});
}

static bool writer_is_foreign(const Cell *c) {
  return is_foreign(c->written, c->write_clock, c->writer);
}

static bool readers_are_foreign(const Cell *c) {
  if (!of_other_block(c->read)) return false;
  return is_foreign(c->read, c->read_clock[0], c->reader[0]) ||
         (c->two_readers && is_foreign(c->read, c->read_clock[1], c->reader[1]));
}

// Who comes, to what, from where in the text.
typedef struct Visit {
  simt_moment me;
  simt_where at;
  const char *name;  // of the memory
  Shadow *shadow;
} Visit;

static bool write_is_over(const Visit *v, const Cell *c) {
  return simt_order_knows(v->me, (simt_moment){c->written, c->write_clock, c->writer});
}

static bool read_is_over(const Visit *v, const Cell *c, int i) {
  return simt_order_knows(v->me, (simt_moment){c->read, c->read_clock[i], c->reader[i]});
}

static void note_reader(const Visit *v, Cell *c) {
  simt_moment me = v->me;
  int i = 0;
  if (c->read != me.epoch || (!c->two_readers && read_is_over(v, c, 0))) {
    c->two_readers = false;
  } else if (c->reader[0] != me.thread) {
    bool same_warp = c->reader[0] / SIMT_LANES == me.thread / SIMT_LANES;
    if (c->two_readers && same_warp && !read_is_over(v, c, 1)) return;
    c->two_readers = true;
    i = 1;
  }
  c->read = me.epoch;
  c->reader[i] = me.thread;
  c->read_clock[i] = me.clock;
}

static void note_writer(const Visit *v, Cell *c, int grain) {
  if (!c->is_set) v->shadow->unset -= grain;
  c->written = v->me.epoch;
  c->writer = v->me.thread;
  c->write_clock = v->me.clock;
  c->is_set = true;
  c->in_flight = false;
}

static bool tell(const Visit *v, int64_t off, const char *what, const char *then) {
  simt_error(false, v->at, "%s %s +%lld, %s", what, v->name, (long long)off, then);
  return false;
}

static bool tell_of(const Visit *v, int64_t off, const char *what, int thread, const char *did) {
  simt_error(false, v->at, "%s %s +%lld, which thread %d %s without a barrier between", what,
             v->name, (long long)off, thread, did);
  return false;
}

static bool tell_flight(const Visit *v, int64_t off, const char *what, int thread) {
  simt_error(false, v->at, "%s %s +%lld, into which a copy of thread %d is in flight", what,
             v->name, (long long)off, thread);
  return false;
}

static bool read_cell(const Visit *v, Cell *c, int64_t off) {
  if (c->in_flight) return tell_flight(v, off, "reads", c->writer);
  if (!c->is_set) return tell(v, off, "reads", "which nobody has written");
  if (!write_is_over(v, c)) return tell_of(v, off, "race: reads", c->writer, "wrote");
  if (writer_is_foreign(c)) return tell(v, off, "conflict: reads", "which another block wrote");
  if (readers_are_foreign(c)) c->foreign = C.launch_start;
  note_reader(v, c);
  return true;
}

static bool write_cell(const Visit *v, Cell *c, int grain, int64_t off) {
  if (c->in_flight) return tell_flight(v, off, "writes", c->writer);
  if (!write_is_over(v, c)) return tell_of(v, off, "race: writes", c->writer, "wrote");
  for (int i = 0; i <= c->two_readers; i++)
    if (!read_is_over(v, c, i)) return tell_of(v, off, "race: writes", c->reader[i], "read");
  if (c->units) return tell(v, off, "writes", "which a wgmma in flight reads");
  if (readers_are_foreign(c) || c->foreign == C.launch_start)
    return tell(v, off, "conflict: writes", "which another block read");
  if (writer_is_foreign(c)) return tell(v, off, "conflict: writes", "which another block wrote");
  note_writer(v, c, grain);
  return true;
}

static void visit_cells(const Visit *v, int64_t off, int64_t bytes, bool write) {
  for (int64_t end = off + bytes; off < end;) {
    Cells c = simt_shadow_at(v->shadow, off, end - off);
    for (int i = 0; i < c.num; i++, off += c.grain)
      if (!(write ? write_cell(v, &c.at[i], c.grain, off) : read_cell(v, &c.at[i], off))) return;
  }
}

// --- addresses

static bool near(int64_t at, int64_t bytes, int64_t of) {
  return at + bytes > -SLACK && at < of + SLACK;
}

// A table that the compiler made: it lies in the kernels' own file.
static bool is_constant(const void *p) {
  Dl_info info;
  const char *name = dladdr(p, &info) && info.dli_fname ? strrchr(info.dli_fname, '/') : NULL;
  return name && !strcmp(name, "/k.so");
}

static void access_shared(int64_t off, int64_t bytes, int align, bool write, simt_where at) {
  if (off & (align - 1))
    simt_error(false, at, "%s %lld bytes of shared memory at +%lld: misaligned",
               write ? "writes" : "reads", (long long)bytes, (long long)off);
  Visit v = {simt_order_now(), at, "shared memory", &C.shared_shadow};
  simt_shadow_forget(v.shadow, off, bytes, C.block_start);  // it is new in every block
  visit_cells(&v, off, bytes, write);
}

static void access_buffer(Buffer *b, int64_t off, int64_t bytes, int align, bool write,
                          simt_where at) {
  if (write && !b->writable)
    simt_error(false, at, "writes %s +%lld, which is only read here", b->name, (long long)off);
  if (off & (align - 1))
    simt_error(false, at, "%s %lld bytes of %s at +%lld: misaligned", write ? "writes" : "reads",
               (long long)bytes, b->name, (long long)off);
  if (!is_open(b, off, bytes)) {
    simt_error(false, at, "%s %lld bytes of %s at +%lld, between what the launch has of it",
               write ? "writes" : "reads", (long long)bytes, b->name, (long long)off);
    return;
  }
  // What nobody may write in this launch is over for all who read it, and forgotten with the launch.
  if (!write && !b->writable && !b->shadow.unset) return;
  Visit v = {simt_order_now(), at, b->name, &b->shadow};
  visit_cells(&v, off, bytes, write);
}

static bool holds(const Buffer *b, const char *a, int64_t bytes) {
  return a >= b->at && a + bytes <= b->at + b->bytes;
}

// A line of the text mostly touches one buffer.
static Buffer *buffer_at(const char *a, int64_t bytes, simt_where at) {
  int16_t *hint = &C.hint[((uintptr_t)at.pc + (uintptr_t)at.line) % HINTS];
  if (*hint < C.num && holds(&C.buffer[*hint], a, bytes)) return &C.buffer[*hint];
  for (int i = 0; i < C.num; i++) {
    if (!holds(&C.buffer[i], a, bytes)) continue;
    *hint = (int16_t)i;
    return &C.buffer[i];
  }
  return NULL;
}

void simt_access(const void *p, int64_t bytes, int align, bool write, simt_where at) {
  const char *a = p, *what = write ? "writes" : "reads";
  if (C.off || (a >= C.stacks && a < C.stacks + C.stack_bytes) || simt_current() < 0) return;
  int64_t off = a - (const char *)C.shared;
  if (off >= 0 && off + bytes <= C.shared_bytes) {
    access_shared(off, bytes, align, write, at);
    return;
  }
  Buffer *b = buffer_at(a, bytes, at);
  if (b) {
    access_buffer(b, a - b->at, bytes, align, write, at);
    return;
  }
  if (!write && is_constant(p)) return;
  if (near(off, bytes, C.shared_bytes))
    simt_error(true, at, "%s %lld bytes of shared memory at +%lld, but it has %d", what,
               (long long)bytes, (long long)off, C.shared_bytes);
  for (int i = 0; i < C.num; i++)
    if (near(a - C.buffer[i].at, bytes, C.buffer[i].bytes))
      simt_error(true, at, "%s %lld bytes of %s at +%lld, but it has %lld", what, (long long)bytes,
                 C.buffer[i].name, (long long)(a - C.buffer[i].at), (long long)C.buffer[i].bytes);
  simt_error(true, at, "%s %lld bytes at an address in no buffer", what, (long long)bytes);
}

void simt_access_ticket(const void *p, int line) {
  simt_where at = {.line = line};
  for (int i = 0; i < C.num; i++) {
    Buffer *b = &C.buffer[i];
    int64_t off = (const char *)p - b->at;
    if (off < 0 || off + 4 > b->bytes) continue;
    if (!b->writable || off % 4)
      simt_error(true, at, "a ticket at %s +%lld", b->name, (long long)off);
    Cells c = simt_shadow_at(&b->shadow, off, 4);
    for (int j = 0; !C.off && j < c.num; j++)
      if (!c.at[j].is_set)
        simt_error(true, at, "a ticket at %s +%lld, which nobody has written", b->name,
                   (long long)off);
    return;
  }
  simt_error(true, at, "a ticket at an address in no buffer");
}

void simt_access_shared(const char *what, const void *p, int64_t bytes, int align, bool write,
                        int line) {
  simt_where at = {.line = line};
  int64_t off = (const unsigned char *)p - C.shared;
  if (off < 0 || off + bytes > C.shared_bytes)
    simt_error(true, at, "%s: %lld bytes at +%lld of shared memory, but it has %d", what,
               (long long)bytes, (long long)off, C.shared_bytes);
  if (C.off && off % align) simt_error(false, at, "%s at +%lld: misaligned", what, (long long)off);
  simt_access(p, bytes, align, write, at);
}

bool simt_is_shared(const void *p) {
  const unsigned char *a = p;
  return a >= C.shared && a < C.shared + C.shared_bytes;
}

// Each cell of some bytes of shared memory.
static void each_shared(const void *p, int bytes, void (*visit)(const Visit *, Cell *, int grain),
                        simt_moment me) {
  Visit v = {.me = me, .name = "shared memory", .shadow = &C.shared_shadow};
  int64_t off = (const unsigned char *)p - C.shared;
  for (int64_t end = off + bytes; !C.off && off < end;) {
    Cells c = simt_shadow_at(v.shadow, off, end - off);
    for (int i = 0; i < c.num; i++) visit(&v, &c.at[i], c.grain);
    off += (int64_t)c.num * c.grain;
  }
}

static void set_in_flight(const Visit *v, Cell *c, int grain) {
  (void)v, (void)grain;
  c->in_flight = true;
}

void simt_fly(const void *p, int bytes) { each_shared(p, bytes, set_in_flight, (simt_moment){0}); }

void simt_land(const void *p, int bytes) { simt_land_at(simt_order_now(), p, bytes); }

void simt_land_at(simt_moment m, const void *p, int bytes) {
  each_shared(p, bytes, note_writer, m);
}

void simt_read_begins(const char *what, const void *p, int line) {
  simt_access_shared(what, p, 16, 16, false, line);
  int64_t off = (const unsigned char *)p - C.shared;
  for (int64_t end = off + 16; !C.off && off < end;) {
    Cells cells = simt_shadow_at(&C.shared_shadow, off, end - off);
    for (int i = 0; i < cells.num; i++, off += cells.grain) {
      Cell *c = &cells.at[i];
      MD_ASSERT(c->units < UINT8_MAX, "too much in flight");
      c->units++;
      if (simt_order_is_fenced((simt_moment){c->written, c->write_clock, c->writer})) continue;
      simt_error(true, (simt_where){.line = line},
                 "%s reads shared memory +%lld, which thread %d wrote without md_fence_async", what,
                 (long long)off, c->writer);
    }
  }
}

static void end_read(const Visit *v, Cell *c, int grain) {
  (void)grain;
  c->units--;
  note_reader(v, c);
}

void simt_read_ends(const void *p) { each_shared(p, 16, end_read, simt_order_now()); }

// --- what instrumented code calls. Their names are not ours to choose.

#define PC ((simt_where){__builtin_return_address(0), 0})
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
static void range(const void *p, long bytes, bool write, simt_where at) {
  for (long i = 0; i < bytes; i++) simt_access((const char *)p + i, 1, 1, write, at);
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
  void name(void *p) { simt_access(p, bytes, bytes, write, PC); }
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

// Of -fsanitize=bounds. Accesses of a thread's own arrays are not told from those of their neighbours,
// so their indices are looked at. In a build with sanitizers theirs has that name, and is called instead.
typedef struct Indexed {
  const char *file;
  uint32_t line, column;
} Indexed;
__attribute__((weak)) void __ubsan_handle_out_of_bounds(const Indexed *at, unsigned long index);
void __ubsan_handle_out_of_bounds(const Indexed *at, unsigned long index) {
  if (C.off) return;
  simt_error(true, (simt_where){.line = (int)at->line}, "index %ld is outside of its array",
             (long)index);
}

// Of the sanitizer for what C does not define. What else they are told, the values, nobody needs.
#define UNDEFINED(name, what)                                          \
  __attribute__((weak)) void __ubsan_handle_##name(const Indexed *at); \
  void __ubsan_handle_##name(const Indexed *at) {                      \
    simt_error(true, (simt_where){.line = (int)at->line}, what);       \
  }
UNDEFINED(add_overflow, "a sum of integers overflows")
UNDEFINED(sub_overflow, "a difference of integers overflows")
UNDEFINED(mul_overflow, "a product of integers overflows")
UNDEFINED(negate_overflow, "the negative of an integer overflows")
UNDEFINED(divrem_overflow, "an integer is divided by 0, or the least by -1")
UNDEFINED(shift_out_of_bounds, "a shift by too much, or of a negative number")
UNDEFINED(float_cast_overflow, "a float is no number of the integer type")
