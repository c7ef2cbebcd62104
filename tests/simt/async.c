// SPDX-License-Identifier: Apache-2.0
// cp.async. A copy is the thread's own until it has waited for it; nobody may touch its bytes before.
// Lazy copies land at the wait, the latest moment that the rules allow, eager ones at once: each shows
// mistakes that the other hides.
#include "tests/simt/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct Copy {
  void *to;
  const void *from;
  int bytes;  // behind them zeros
  int64_t group;
  int line;
} Copy;

typedef struct Queue {
  Copy *copy;
  int num, cap;
  int64_t group;  // that is being filled
} Queue;

static Queue queues[SIMT_THREADS];

// A thread that arrives at an mbarrier when what it copies has landed.
typedef struct Arrival {
  int thread, line;
  int64_t group;  // of the last copy
  Bar *bar;
  Copy *copy;
  int num;
  simt_moment when;
  simt_past past;
} Arrival;

static Arrival **arrivals;  // in the order of their calls
static int num_arrivals, cap_arrivals;

void simt_cp_async_(void *shared, const void *global, int bytes, int line);
void simt_cp_commit_(void);
void simt_cp_arrive_(void *bar, int line);
void simt_cp_wait_(int groups);

static void land(const Copy *c) {
  memset(c->to, 0, 16);
  if (c->bytes) memcpy(c->to, c->from, (size_t)c->bytes);
}

void simt_cp_async_(void *shared, const void *global, int bytes, int line) {
  Queue *q = &queues[simt_current()];
  simt_where at = {.line = line};
  simt_access_shared("cp.async", shared, 16, 16, true, line);
  if (bytes && simt_is_shared(global)) simt_error(true, at, "cp.async reads shared memory");
  if (bytes < 0 || bytes > 16) simt_error(true, at, "cp.async of %d bytes", bytes);
  if (bytes) simt_access(global, bytes, 16, false, at);
  simt_fly(shared, 16);
  Copy c = {shared, global, bytes, q->group, line};
  if (simt_is_eager()) land(&c);
  MD_PUSH(q->copy, q->num, q->cap, c);
}

// --- arrivals

static void settle(int i) {
  Arrival *a = arrivals[i];
  memmove(arrivals + i, arrivals + i + 1, sizeof *arrivals * (size_t)(--num_arrivals - i));
  for (int j = 0; j < a->num; j++) {
    if (!simt_is_eager()) land(&a->copy[j]);
    simt_land_at(a->when, a->copy[j].to, 16);
  }
  simt_bar_arrive_late(a->bar, &a->past, a->line);
  free(a->copy);
  free(a);
}

static int first_of(int thread) {
  for (int i = 0; i < num_arrivals; i++)
    if (arrivals[i]->thread == thread) return i;
  return -1;
}

bool simt_async_run(void) {
  if (!num_arrivals) return false;
  settle(first_of(arrivals[simt_draw() % (uint64_t)num_arrivals]->thread));
  return true;
}

void simt_cp_arrive_(void *bar, int line) {
  Queue *q = &queues[simt_current()];
  simt_access_shared("mbarrier", bar, 8, 8, false, line);
  Arrival *a = calloc(1, sizeof *a);
  MD_ASSERT(a, "out of memory");
  *a = (Arrival){.thread = simt_current(),
                 .line = line,
                 .group = q->group,
                 .bar = simt_bar(bar, line),
                 .num = q->num};
  a->copy = malloc(sizeof *a->copy * (size_t)MD_MAX(q->num, 1));
  MD_ASSERT(a->copy, "out of memory");
  if (q->num) memcpy(a->copy, q->copy, sizeof *a->copy * (size_t)q->num);
  q->num = 0;
  a->when = simt_order_now();
  simt_order_tell(&a->past);
  MD_PUSH(arrivals, num_arrivals, cap_arrivals, a);
  if (simt_is_eager()) settle(num_arrivals - 1);
}

// --- groups

void simt_cp_commit_(void) { queues[simt_current()].group++; }

void simt_cp_wait_(int groups) {
  Queue *q = &queues[simt_current()];
  int kept = 0;
  for (int i; (i = first_of(simt_current())) >= 0 && arrivals[i]->group < q->group - groups;)
    settle(i);
  for (int i = 0; i < q->num; i++) {
    Copy c = q->copy[i];
    if (c.group >= q->group - groups) {
      q->copy[kept++] = c;
      continue;
    }
    if (!simt_is_eager()) land(&c);
    simt_land(c.to, 16);
  }
  q->num = kept;
}

void simt_async_reset(void) {
  for (int t = 0; t < SIMT_THREADS; t++) queues[t].num = 0, queues[t].group = 0;
  for (int i = 0; i < num_arrivals; i++) {
    free(arrivals[i]->copy);
    free(arrivals[i]);
  }
  num_arrivals = 0;
}

void simt_async_exit(void) {
  const Queue *q = &queues[simt_current()];
  int i = first_of(simt_current());
  if (i >= 0)
    simt_error(true, (simt_where){.line = arrivals[i]->line}, "ends with a copy in flight");
  if (q->num) simt_error(true, (simt_where){.line = q->copy[0].line}, "ends with a copy in flight");
}
