// SPDX-License-Identifier: Apache-2.0
// The fiber machine. A thread runs until it waits; then another that is ready runs, and when none is,
// the block has ended or is stuck, and who waits where is the message.
#include "tests/simt/machine.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/base.h"

#if !defined(__x86_64__) || defined(SIMT_UCONTEXT)
#include <ucontext.h>
#define SIMT_PORTABLE 1
#else
#define SIMT_PORTABLE 0
#endif

enum {
  STACK = 64 << 10,
  GUARD = 4096,
  SHARED_ALIGN = 1024,
  MAX_SHARED = 227 << 10,  // of the largest target
  MAX_ERRORS = 1000
};

typedef struct Fiber {
  void *sp;
#if SIMT_PORTABLE
  ucontext_t context;
#endif
  int thread;
  bool done;
  const char *what;  // it waits for
  const void *on;    // it sleeps on
  int line;
} Fiber;

typedef struct Warp {
  int arrived, line;
  const char *what;  // it meets for
  void *operands[SIMT_LANES];
} Warp;

// The one machine of this process: kernels reach it without an argument.
static struct Machine {
  Fiber fiber[SIMT_THREADS], main;
  Warp warp[SIMT_THREADS / SIMT_LANES];
  Fiber *now;
  uint64_t ready[SIMT_THREADS / 64];  // a bit for each thread
  char *stacks;
  int guarded;  // stacks
  const simt_launch *launch;
  simt_options options;
  simt_report report;
  uint64_t draws, key;  // of the schedule
  int64_t block;
  int live, at_barrier, barrier_line;
  bool stop;
  simt_where where;  // of the first error
  int agent;         // that acts; -1: none
  unsigned char *shared;
} M;

int simt_self = -1;

static void note_self(void) {
  simt_self = M.now == &M.main ? -1 : M.now->thread;
  if (M.agent >= 0) simt_self = M.launch->threads + M.agent;
}

// --- switching

#if SIMT_PORTABLE
static void switch_to(Fiber *to) {
  Fiber *from = M.now;
  if (from == to) return;
  M.now = to;
  note_self();
  M.report.switches++;
  swapcontext(&from->context, &to->context);
}
#else
void simt_switch(void **save, void *load);
__asm__(".text\n"
        ".globl simt_switch\n"
        ".hidden simt_switch\n"
        ".type simt_switch, @function\n"
        "simt_switch:\n"
        "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
        "  mov %rsp, (%rdi)\n"
        "  mov %rsi, %rsp\n"
        "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n"
        "  ret\n"
        ".size simt_switch, .-simt_switch\n");

static void switch_to(Fiber *to) {
  Fiber *from = M.now;
  if (from == to) return;
  M.now = to;
  note_self();
  M.report.switches++;
  simt_switch(&from->sp, to->sp);
}
#endif

uint64_t simt_draw(void) { return md_hash_at(M.key, M.draws++); }

static void set_ready(int t, bool ready) {
  uint64_t bit = (uint64_t)1 << t % 64, *word = &M.ready[t / 64];
  *word = ready ? *word | bit : *word & ~bit;
}

// The first that is ready in from .. num - 1, or the last one in 0 .. from; -1: none.
static int ready_from(int from, int num) {
  for (int t = from; t < num; t = (t / 64 + 1) * 64) {
    uint64_t word = M.ready[t / 64] >> t % 64;
    if (word) return t + __builtin_ctzll(word);
  }
  return -1;
}

static int ready_until(int from) {
  for (int t = from; t >= 0; t = t / 64 * 64 - 1) {
    uint64_t word = M.ready[t / 64] << (63 - t % 64);
    if (word) return t - __builtin_clzll(word);
  }
  return -1;
}

// The next that is ready behind `from`, round and round; from itself is the last.
static int next_ready(int from, int num, bool reverse) {
  int t = reverse ? ready_until(from - 1) : ready_from(from + 1, num);
  if (t >= 0) return t;
  return reverse ? ready_until(num - 1) : ready_from(0, num);
}

// One of what lands beside the threads.
static bool units_run(void) {
  bool copies = simt_draw() % 2;
  return copies ? simt_async_run() || simt_tma_run() : simt_tma_run() || simt_async_run();
}

// Forward and reverse go on from the thread that stops; random may take any. Transfers that nobody
// must wait for yet are made when no thread can run, or at random.
static void run_another(void) {
  int num = M.launch->threads, from = M.now->thread;
  if (M.options.order == SIMT_RANDOM) {
    from = (int)(simt_draw() % (uint64_t)num);
    if (from % 16 == 0) units_run();
  }
  do {
    int t = next_ready(from, num, M.options.order == SIMT_REVERSE);
    if (t >= 0) {
      switch_to(&M.fiber[t]);
      return;
    }
  } while (!M.stop && units_run());
  switch_to(&M.main);
}

static void enter(void) {
  M.launch->kernel(M.launch->arg);
  simt_async_exit();
  simt_wgmma_exit();
  M.now->done = true;
  set_ready(M.now->thread, false);
  M.live--;
  run_another();
  abort();  // nobody comes back to a thread that is done
}

static void wait_for(const char *what, int line) {
  M.now->what = what;
  M.now->line = line;
  set_ready(M.now->thread, false);
  run_another();
}

void simt_sleep(const void *on, const char *what, int line) {
  M.now->on = on;
  wait_for(what, line);
  M.now->on = NULL;
}

void simt_wake(const void *on) {
  for (int t = 0; t < M.launch->threads; t++)
    if (M.fiber[t].on == on) set_ready(t, true);
}

// --- errors

static const simt_where NOWHERE = {NULL, 0};

// The source line of the first error, by the system's own tool; kernels are built with -g.
static void add_line(char *to, size_t size, simt_where at) {
  Dl_info info;
  const char *pc = at.pc;
  size_t used = strlen(to);
  if (at.line) snprintf(to + used, size - used, " (k.c:%d)", at.line);
  if (!pc || !dladdr(pc, &info) || !info.dli_fname) return;
  char command[600], line[300] = "";
  snprintf(command, sizeof command, "addr2line -f -s -e '%s' 0x%llx 2>/dev/null", info.dli_fname,
           (unsigned long long)(pc - (const char *)info.dli_fbase - 1));
  FILE *p = popen(command, "r");
  char function[100] = "?";
  if (p && fgets(function, sizeof function, p) && fgets(line, sizeof line, p)) {
    function[strcspn(function, "\n")] = line[strcspn(line, "\n")] = '\0';
    snprintf(to + used, size - used, " (%s, %s)", function, line);
  }
  if (p) pclose(p);
}

void simt_error(bool fatal, simt_where at, const char *fmt, ...) {
  if (!M.report.errors++) {
    va_list args;
    va_start(args, fmt);
    int len = snprintf(M.report.first, sizeof M.report.first,
                       "block %lld thread %d: ", (long long)M.block, simt_current());
    vsnprintf(M.report.first + len, sizeof M.report.first - (size_t)len, fmt, args);
    va_end(args);
    M.where = at;
  }
  if (!fatal && M.report.errors < MAX_ERRORS) return;
  M.stop = true;
  if (M.now != &M.main) switch_to(&M.main);
}

void simt_act_as(int agent) {
  M.agent = agent;
  note_self();
}
int simt_num_threads(void) { return M.launch->threads; }
simt_report *simt_counts(void) { return &M.report; }
bool simt_is_eager(void) {
  return M.options.order == SIMT_RANDOM ? M.options.seed % 2 : M.options.order == SIMT_REVERSE;
}

static void report_stuck(void) {
  const Fiber *first = NULL, *other = NULL;
  for (int t = 0; t < M.launch->threads; t++) {
    const Fiber *f = &M.fiber[t];
    if (f->done) continue;
    if (!first) first = f;
    else if (!other && (f->line != first->line || strcmp(f->what, first->what) != 0)) other = f;
  }
  if (other)
    simt_error(true, NOWHERE,
               "deadlock: thread %d waits at the %s of line %d, thread %d at the %s of line %d",
               first->thread, first->what, first->line, other->thread, other->what, other->line);
  else
    simt_error(true, NOWHERE, "deadlock: %d threads wait at the %s of line %d, %d have ended",
               M.live, first->what, first->line, M.launch->threads - M.live);
}

// --- what kernels call (md_host.h)

unsigned char *simt_shared_(void) { return M.shared; }
int simt_thread_(void) { return M.now->thread; }
int simt_block_(void) { return (int)M.block; }

void simt_sync_(int line) {
  if (!M.at_barrier) M.barrier_line = line;
  else if (M.barrier_line != line)
    simt_error(true, NOWHERE, "divergent barrier: line %d, but others wait at line %d", line,
               M.barrier_line);
  if (++M.at_barrier < M.launch->threads) {
    wait_for("barrier", line);
    return;
  }
  M.at_barrier = 0;
  M.report.barriers++;
  simt_order_barrier();
  for (int t = 0; t < M.launch->threads; t++) set_ready(t, true);
}

// --- collectives of a warp

static Warp *my_warp(void) { return &M.warp[M.now->thread / SIMT_LANES]; }

bool simt_meet(const char *what, int line, void *operands) {
  Warp *w = my_warp();
  if (!w->arrived) {
    w->line = line;
    w->what = what;
  } else if (w->line != line || w->what != what) {
    simt_error(true, NOWHERE,
               "divergent %s: line %d, but others of the warp wait at the %s of line %d", what,
               line, w->what, w->line);
  }
  w->operands[M.now->thread % SIMT_LANES] = operands;
  if (++w->arrived == SIMT_LANES) return true;
  wait_for(what, line);
  return false;
}

void *const *simt_operands(void) { return my_warp()->operands; }

void simt_part(void) {
  int first = M.now->thread / SIMT_LANES * SIMT_LANES;
  my_warp()->arrived = 0;
  for (int t = first; t < first + SIMT_LANES; t++) set_ready(t, true);
}

// --- launches

static char *stack_of(int thread) { return M.stacks + (size_t)thread * (STACK + GUARD) + GUARD; }

static void make_stacks(void) {
  size_t bytes = (size_t)SIMT_THREADS * (STACK + GUARD);
  M.stacks =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MD_ASSERT(M.stacks != MAP_FAILED, "no memory for the stacks of the threads");
}

// Each guard is a piece of the address space, and many tests are processes that run little.
static void guard_stacks(int threads) {
  for (; M.guarded < threads; M.guarded++)
    MD_ASSERT(mprotect(stack_of(M.guarded) - GUARD, GUARD, PROT_NONE) == 0, "no guard page");
}

static void start_fiber(Fiber *f, int thread) {
  *f = (Fiber){.thread = thread, .what = "start"};
  set_ready(thread, true);
#if SIMT_PORTABLE
  getcontext(&f->context);
  f->context.uc_stack.ss_sp = stack_of(thread);
  f->context.uc_stack.ss_size = STACK;
  makecontext(&f->context, enter, 0);
#else
  // As if `enter` had been about to be called: return address, then six saved registers.
  void **sp = (void **)(void *)(stack_of(thread) + STACK);
  void (*entry)(void) = enter;
  *--sp = NULL;
  --sp;
  memcpy(sp, &entry, sizeof entry);
  sp -= 6;
  memset(sp, 0, 6 * sizeof *sp);
  f->sp = sp;
#endif
}

static void run_block(void) {
  int num = M.launch->threads;
  simt_act_as(-1);
  memset(M.shared, 0xff, (size_t)M.launch->shared_bytes);  // NaN in every float type
  simt_order_barrier();
  simt_checker_block();
  simt_ticket_block();
  simt_async_reset();
  simt_bar_reset();
  simt_tma_reset();
  simt_wgmma_reset();
  M.live = num;
  M.at_barrier = 0;
  memset(M.ready, 0, sizeof M.ready);
  for (int i = 0; i < num / SIMT_LANES; i++) M.warp[i].arrived = 0;
  for (int t = 0; t < num; t++) start_fiber(&M.fiber[t], t);
  M.main.thread = M.options.order == SIMT_REVERSE ? num : -1;
  run_another();
  if (M.live && !M.stop) report_stuck();
  if (!M.stop) {
    simt_tma_end();
    simt_wgmma_end();
  }
}

simt_report simt_run(const simt_launch *l, simt_options o) {
  MD_ASSERT(l->threads > 0 && l->threads <= SIMT_THREADS && l->threads % SIMT_LANES == 0,
            "%d threads", l->threads);
  MD_ASSERT(l->shared_bytes <= MAX_SHARED, "%d bytes of shared memory", l->shared_bytes);
  if (!M.stacks) make_stacks();
  guard_stacks(l->threads);
  M.launch = l;
  M.options = o;
  M.report = (simt_report){0};
  M.now = &M.main;
  M.stop = false;
  M.where = NOWHERE;
  M.draws = 0;
  M.key = md_hash_key("schedule", o.seed);
  simt_act_as(-1);
  // Overruns meet the checker first: the bytes behind are ours.
  unsigned char *block = aligned_alloc(
      SHARED_ALIGN, (size_t)md_round_up(l->shared_bytes + 2 * SHARED_ALIGN, SHARED_ALIGN));
  MD_ASSERT(block, "out of memory");
  M.shared = block + SHARED_ALIGN;
  simt_checker_launch(M.shared, l->shared_bytes, M.stacks, (int64_t)SIMT_THREADS * (STACK + GUARD));
  simt_ticket_launch();
  for (int64_t b = 0; b < l->blocks && !M.stop; b++) {
    M.block = o.order == SIMT_FORWARD ? b : l->blocks - 1 - b;
    run_block();
  }
  free(block);
  if (M.report.errors) add_line(M.report.first, sizeof M.report.first, M.where);
  return M.report;
}
