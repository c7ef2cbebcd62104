// SPDX-License-Identifier: Apache-2.0
// mbarriers: objects in shared memory that count arrivals and bytes. When a phase has had all of both,
// the next one begins and who waits for the parity of the old one goes on, knowing what those who
// arrived had done. And barriers of a part of the block.
#include "tests/simt/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

enum { PARTS = 16 };

struct Bar {
  const void *at;
  int count, pending;  // arrivals of a phase, still missing
  int64_t bytes;       // that are still to land
  int64_t phase;
  bool is_fenced;
  simt_past open, closed;  // of those who arrived: up to now, up to the end of the last phase
};

typedef struct Part {
  int arrived, threads, line;
  int64_t round;
  simt_past open, closed;
} Part;

static Bar bars[SIMT_AGENTS];
static int num_bars;
static Part parts[PARTS];

void simt_bar_init_(void *bar, int count, int line);
void simt_bar_fence_(void);
void simt_bar_arrive_(void *bar, int line);
void simt_bar_expect_(void *bar, int bytes, int line);
void simt_bar_wait_(void *bar, int parity, int line);
void simt_sync_part_(int id, int threads, int line);

void simt_bar_reset(void) {
  num_bars = 0;
  for (int i = 0; i < PARTS; i++) parts[i] = (Part){0};
}

static long long place(const void *p) { return (const unsigned char *)p - simt_shared_(); }

Bar *simt_bar(const void *at, int line) {
  for (int i = 0; i < num_bars; i++)
    if (bars[i].at == at) return &bars[i];
  simt_error(true, (simt_where){.line = line}, "no mbarrier at shared memory +%lld", place(at));
  return NULL;
}

bool simt_bar_is_fenced(const Bar *b) { return b->is_fenced; }
int64_t simt_bar_phase(const Bar *b) { return b->phase; }
int simt_bar_agent(const Bar *b) { return (int)(b - bars); }

void simt_bar_init_(void *bar, int count, int line) {
  simt_access_shared("mbarrier", bar, 8, 8, true, line);
  if (num_bars == SIMT_AGENTS) simt_error(true, (simt_where){.line = line}, "too many mbarriers");
  bars[num_bars++] = (Bar){.at = bar, .count = count, .pending = count};
}

void simt_bar_fence_(void) {
  for (int i = 0; i < num_bars; i++) bars[i].is_fenced = true;
}

static void end_phase(Bar *b) {
  if (b->pending || b->bytes) return;
  b->phase++;
  b->pending = b->count;
  b->closed = b->open;
  simt_wake(b);
}

static void arrive(void *bar, int bytes, int line) {
  simt_access_shared("mbarrier", bar, 8, 8, false, line);
  Bar *b = simt_bar(bar, line);
  if (!b->pending)
    simt_error(true, (simt_where){.line = line}, "arrives at mbarrier +%lld, which expects nobody",
               place(bar));
  simt_order_tell(&b->open);
  b->bytes += bytes;
  b->pending--;
  end_phase(b);
}

void simt_bar_arrive_(void *bar, int line) { arrive(bar, 0, line); }
void simt_bar_expect_(void *bar, int bytes, int line) { arrive(bar, bytes, line); }

void simt_bar_arrive_late(Bar *b, const simt_past *p, int line) {
  if (!b->pending)
    simt_error(true, (simt_where){.line = line}, "arrives at mbarrier +%lld, which expects nobody",
               place(b->at));
  simt_order_pass(&b->open, p);
  b->pending--;
  end_phase(b);
}

void simt_bar_land(Bar *b, int64_t bytes) {
  b->bytes -= bytes;
  end_phase(b);
}

void simt_bar_wait_(void *bar, int parity, int line) {
  simt_access_shared("mbarrier", bar, 8, 8, false, line);
  Bar *b = simt_bar(bar, line);
  while (b->phase % 2 == parity) simt_sleep(b, "mbarrier", line);
  simt_tma_settle(b);
  simt_act_as(simt_bar_agent(b));
  simt_order_tell(&b->open);
  simt_order_tell(&b->closed);
  simt_act_as(-1);
  simt_order_learn(&b->closed);
}

// --- parts of the block

void simt_sync_part_(int id, int threads, int line) {
  simt_where at = {.line = line};
  if (id < 1 || id >= PARTS || threads % SIMT_LANES)
    simt_error(true, at, "barrier %d of %d threads", id, threads);
  Part *p = &parts[id];
  if (!p->arrived) p->threads = threads, p->line = line;
  else if (p->threads != threads || p->line != line)
    simt_error(true, at, "divergent barrier %d: line %d, but others wait at line %d", id, line,
               p->line);
  simt_order_tell(&p->open);
  int64_t round = p->round;
  if (++p->arrived == threads) {
    p->arrived = 0;
    p->round++;
    p->closed = p->open;
    simt_wake(p);
  }
  while (p->round == round) simt_sleep(p, "barrier of a part", line);
  simt_order_learn(&p->closed);
}
