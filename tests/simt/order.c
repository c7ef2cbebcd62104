// SPDX-License-Identifier: Apache-2.0
// The order of memory: which accesses are over for whom. A barrier of the block ends an epoch, and what
// lies in an older epoch is over for everybody. Inside an epoch each thread has a clock, and remembers
// which moment of each other thread it has heard of: vector clocks, which few kernels need, so a row
// counts as empty until its thread takes part in something smaller than a barrier.
#include "tests/simt/machine.h"

#include <string.h>

#include "base/base.h"

static struct Order {
  uint32_t epoch;
  uint32_t row_epoch[SIMT_THREADS];
  uint16_t clock[SIMT_THREADS];                // from 1
  uint16_t heard[SIMT_THREADS][SIMT_THREADS];  // [t][u]: moments of u that are over for t
} O;

void simt_order_reset(void) { O.epoch++; }
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

simt_moment simt_order_now(void) {
  int t = simt_current();
  uint16_t clock = O.row_epoch[t] == O.epoch ? O.clock[t] : 1;
  return (simt_moment){O.epoch, clock, (uint16_t)t};
}

bool simt_order_knows(simt_moment m) {
  int t = simt_current();
  if (m.epoch != O.epoch || m.thread == t) return true;
  return O.row_epoch[t] == O.epoch && m.clock <= O.heard[t][m.thread];
}

void simt_order_warp(int first) {
  uint16_t all[SIMT_THREADS] = {0};
  int num = simt_num_threads();
  for (int t = first; t < first + SIMT_LANES; t++) {
    const uint16_t *row = row_of(t);
    for (int u = 0; u < num; u++) all[u] = MD_MAX(all[u], row[u]);
  }
  for (int t = first; t < first + SIMT_LANES; t++) all[t] = O.clock[t]++;
  for (int t = first; t < first + SIMT_LANES; t++) {
    MD_ASSERT(O.clock[t] != UINT16_MAX, "too many meetings without a barrier of the block");
    memcpy(O.heard[t], all, sizeof *all * (size_t)num);
  }
}
