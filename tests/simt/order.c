// SPDX-License-Identifier: Apache-2.0
// The order of memory: which accesses are over for whom. A barrier of the block ends an epoch, and what
// lies in an older epoch is over for everybody. Inside an epoch each thread has a clock, and remembers
// which moment of each other thread it has heard of: vector clocks, which few kernels need, so a row
// counts as empty until its thread takes part in something smaller than a barrier. Who writes memory
// and is no thread, a unit that copies, has a clock as well.
#include "tests/simt/machine.h"

#include <string.h>

#include "base/base.h"

static struct Order {
  uint32_t epoch;
  uint32_t row_epoch[SIMT_WHO];
  uint16_t clock[SIMT_WHO];            // from 1
  uint16_t heard[SIMT_WHO][SIMT_WHO];  // [t][u]: moments of u that are over for t
  simt_moment fence[SIMT_THREADS];     // of the last one, and what was over for the thread then
  uint16_t fence_heard[SIMT_THREADS][SIMT_WHO];
} O;

static int width(void) { return simt_num_threads() + SIMT_AGENTS; }

void simt_order_barrier(void) { O.epoch++; }
uint32_t simt_order_epoch(void) { return O.epoch; }

static uint16_t *row_of(int t) {
  if (O.row_epoch[t] != O.epoch) {
    O.row_epoch[t] = O.epoch;
    O.clock[t] = 1;
    memset(O.heard[t], 0, sizeof O.heard[t]);
  }
  return O.heard[t];
}

// The moment that ends.
static uint16_t tick(int t) {
  MD_ASSERT(O.clock[t] != UINT16_MAX, "too many meetings without a barrier of the block");
  return O.clock[t]++;
}

simt_moment simt_order_now(void) {
  int t = simt_current();
  uint16_t clock = O.row_epoch[t] == O.epoch ? O.clock[t] : 1;
  return (simt_moment){O.epoch, clock, (uint16_t)t};
}

bool simt_order_heard(simt_moment me, simt_moment m) {
  return O.row_epoch[me.thread] == O.epoch && m.clock <= O.heard[me.thread][m.thread];
}

void simt_order_warp(int first) {
  uint16_t all[SIMT_WHO] = {0};
  int num = width();
  for (int t = first; t < first + SIMT_LANES; t++) {
    const uint16_t *row = row_of(t);
    for (int u = 0; u < num; u++) all[u] = MD_MAX(all[u], row[u]);
  }
  for (int t = first; t < first + SIMT_LANES; t++) all[t] = tick(t);
  for (int t = first; t < first + SIMT_LANES; t++) {
    memcpy(O.heard[t], all, sizeof *all * (size_t)num);
  }
}

static void join(uint16_t *to, const uint16_t *from) {
  for (int u = 0, num = width(); u < num; u++) to[u] = MD_MAX(to[u], from[u]);
}

void simt_order_tell(simt_past *p) {
  int t = simt_current();
  const uint16_t *row = row_of(t);
  if (p->epoch != O.epoch) *p = (simt_past){.epoch = O.epoch};
  join(p->heard, row);
  p->heard[t] = tick(t);
}

void simt_order_learn(const simt_past *p) {
  if (p->epoch == O.epoch) join(row_of(simt_current()), p->heard);
}

void simt_order_pass(simt_past *to, const simt_past *from) {
  if (to->epoch != O.epoch) *to = (simt_past){.epoch = O.epoch};
  if (from->epoch == O.epoch) join(to->heard, from->heard);
}

void simt_order_fence(void) {
  int t = simt_current();
  memcpy(O.fence_heard[t], row_of(t), sizeof *O.heard[t] * (size_t)width());
  O.fence[t] = (simt_moment){O.epoch, tick(t), (uint16_t)t};
}

static bool is_fenced_by(int t, simt_moment m) {
  simt_moment f = O.fence[t];
  return m.epoch < f.epoch || (m.epoch == f.epoch && m.clock <= O.fence_heard[t][m.thread]);
}

// The proxy fence lies anywhere between the write and the read: in the thread that wrote, or else in each
// lane that reads, as every one of them asks for the product.
bool simt_order_is_fenced(simt_moment m) {
  if (m.thread >= simt_num_threads()) return true;  // written by a unit that copies
  simt_moment f = O.fence[m.thread];
  if (m.epoch < f.epoch || (m.epoch == f.epoch && m.clock <= f.clock)) return true;
  int first = simt_current() / SIMT_LANES * SIMT_LANES;
  for (int t = first; t < first + SIMT_LANES; t++)
    if (!is_fenced_by(t, m)) return false;
  return true;
}
