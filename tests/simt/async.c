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

void simt_cp_async_(void *shared, const void *global, int bytes, int line);
void simt_cp_commit_(void);
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

void simt_cp_commit_(void) { queues[simt_current()].group++; }

void simt_cp_wait_(int groups) {
  Queue *q = &queues[simt_current()];
  int kept = 0;
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
}

void simt_async_exit(void) {
  const Queue *q = &queues[simt_current()];
  if (q->num) simt_error(true, (simt_where){.line = q->copy[0].line}, "ends with a copy in flight");
}
