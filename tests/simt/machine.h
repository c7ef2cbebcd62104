// SPDX-License-Identifier: Apache-2.0
// Inside the machine: what its files ask of each other, a section for each.
#ifndef TESTS_SIMT_MACHINE_H
#define TESTS_SIMT_MACHINE_H

#include "tests/simt/simt.h"

enum {
  SIMT_THREADS = 1024,  // of a block, at most
  SIMT_LANES = 32,
  SIMT_AGENTS = 64,  // units that write memory and are no threads: one for each mbarrier
  SIMT_WHO = SIMT_THREADS + SIMT_AGENTS,
};

// Where in the kernel text: the return address of an instrumented access, or a line.
typedef struct simt_where {
  const void *pc;
  int line;
} simt_where;

// --- machine.c

extern int simt_self;  // thread or agent that acts now; -1: none
static inline int simt_current(void) { return simt_self; }
void simt_act_as(int agent);  // from now on; -1: the thread again
int simt_num_threads(void);
simt_report *simt_counts(void);
bool simt_is_eager(void);  // asynchronous work is done at once
// Notes an error of the current thread; `fatal` leaves the launch and does not return.
void simt_error(bool fatal, simt_where at, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// A collective of a warp: every lane brings its operands, and the last to come, for whom it is true,
// works for all and then calls simt_part. The others return when it has.
bool simt_meet(const char *what, int line, void *operands);
void *const *simt_operands(void);  // by lane, for the last
void simt_part(void);
// Until somebody wakes what sleeps on this.
void simt_sleep(const void *on, const char *what, int line);
void simt_wake(const void *on);
uint64_t simt_draw(void);  // of the schedule
unsigned char *simt_shared_(void);

// --- order.c: who knows of whose past
void simt_order_barrier(void);    // all threads met, or a new block begins
void simt_order_warp(int first);  // the lanes of a warp met
// What a thread does now is at this moment of its past.
typedef struct simt_moment {
  uint32_t epoch;
  uint16_t clock, thread;
} simt_moment;
simt_moment simt_order_now(void);  // of the current thread
bool simt_order_heard(simt_moment me, simt_moment m);
// m is over for the one whose present moment is `me`.
static inline bool simt_order_knows(simt_moment me, simt_moment m) {
  return m.epoch != me.epoch || m.thread == me.thread || simt_order_heard(me, m);
}
uint32_t simt_order_epoch(void);
// What somebody has done and heard of, to be told to others.
typedef struct simt_past {
  uint32_t epoch;
  uint16_t heard[SIMT_WHO];
} simt_past;
void simt_order_tell(simt_past *p);         // the current thread's is in p now
void simt_order_learn(const simt_past *p);  // is over for the current thread
void simt_order_pass(simt_past *to, const simt_past *from);
// What the thread has written or heard of may be read by the units beside it (the asynchronous proxy);
// is_fenced: by those of the current warp.
void simt_order_fence(void);
bool simt_order_is_fenced(simt_moment m);

// --- checker.c
void simt_checker_launch(unsigned char *shared, int shared_bytes, const char *stacks,
                         int64_t stack_bytes);
void simt_checker_block(void);  // a new block, fresh shared memory
// An access by one of the prelude's functions; instrumented code announces its own.
void simt_access(const void *p, int64_t bytes, int align, bool write, simt_where at);
// The same for what must be shared memory.
void simt_access_shared(const char *what, const void *p, int64_t bytes, int align, bool write,
                        int line);
bool simt_is_shared(const void *p);
// Bytes of shared memory begin to be written behind the threads' back / are written as of now.
void simt_fly(const void *p, int bytes);
// A unit begins to read 16 bytes of shared memory / has read them.
void simt_read_begins(const char *what, const void *p, int line);
void simt_read_ends(const void *p);
void simt_land(const void *p, int bytes);
void simt_land_at(simt_moment m, const void *p, int bytes);  // by somebody else

// What several blocks change at once, each after the other.
void simt_access_ticket(const void *p, int line);

// --- ticket.c
void simt_ticket_launch(void);
void simt_ticket_block(void);
// m, of another block of this launch, is over for this block.
bool simt_ticket_knows(simt_moment m);

// --- async.c
bool simt_async_run(
    void);  // copies of a thread land, and it arrives; false: nobody waits to arrive
void simt_async_reset(void);  // a new block
void simt_async_exit(void);   // the current thread ends

// --- bar.c
typedef struct Bar Bar;
Bar *simt_bar(const void *at, int line);  // NULL: told
bool simt_bar_is_fenced(const Bar *b);
int64_t simt_bar_phase(const Bar *b);
int simt_bar_agent(const Bar *b);
void simt_bar_land(Bar *b, int64_t bytes);  // of those that it expects
void simt_bar_arrive_late(Bar *b, const simt_past *p,
                          int line);  // of a thread that goes on since p
void simt_bar_reset(void);            // a new block

// --- tma.c
bool simt_tma_run(void);             // one transfer; false: there is none
void simt_tma_settle(const Bar *b);  // what landed in the phases before b's may be read
void simt_tma_reset(void);
void simt_tma_end(void);  // of the block

// --- wgmma.c
void simt_wgmma_reset(void);
void simt_wgmma_exit(void);
void simt_wgmma_end(void);

#endif
