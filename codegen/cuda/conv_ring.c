// SPDX-License-Identifier: Apache-2.0
// A ring of stages in shared memory. A block has a multiprocessor for itself; two of its warpgroups
// multiply by wgmma, the other threads bring operands. A stage holds a step's tiles of both:
//
//   full[stage]   counts the warps that have stored their part, or the threads whose copies have landed,
//                 and bytes that are copied in bulk, by TMA
//   empty[stage]  counts the warps that have read all of it
//
// Those who multiply make what is stored known to wgmma. Those who store would wait there for all that
// is on its way to them.
#include "codegen/cuda/conv.h"

#include <string.h>

enum {
  SHARED = 227 << 10,  // bytes that a block may have
  BARRIERS = 128,      // bytes
  REGISTERS = 128,     // of a thread, at first: they share 65536
  AT_ONCE = 128,       // columns of one wgmma: ptxas wants room for its sums in registers
};

md_cu_ring md_cu_ring_of(int a, int b, int rest, int stages) {
  md_cu_ring r = {.a = a, .b = b};
  r.stages = MD_MIN((SHARED - BARRIERS - rest) / (a + b), stages ? stages : MD_CU_MAX_STAGES);
  r.barriers = r.stages * (a + b);
  r.end = r.barriers + BARRIERS;
  return r;
}

void md_cu_ring_put(md_cu_kernel *k, const md_cu_ring *r) {
  MD_ASSERT(r->stages >= MD_CU_MIN_STAGES && 16 * r->stages <= BARRIERS, "a ring of stages");
  k->threads = 2 * MD_CU_THREADS;
  md_cu_line(k, NULL, "MD_SHARED(ring);");
  md_cu_line(k, "stages of one operand", "md_bf16 *const as = (md_bf16 *)ring;");
  md_cu_line(k, "and of the other", "md_bf16 *const bs = (md_bf16 *)(ring + %d);",
             r->stages * r->a);
  md_cu_line(k, NULL, "md_u64 *const full = (md_u64 *)(ring + %d), *const empty = full + %d;",
             r->barriers, r->stages);
  md_cu_mark m = md_cu_open(k, NULL, "if (md_thread() == 0) {");
  md_cu_mark each = md_cu_open(k, NULL, "for (int i = 0; i < %d; i++) {", r->stages);
  int others = r->is_bulk ? 0 : r->copies ? MD_CU_THREADS : MD_CU_WARPS;
  md_cu_line(k, r->expects ? "and who expects the bytes" : NULL, "md_bar_init(full + i, %d);",
             others + r->expects);
  md_cu_line(k, NULL, "md_bar_init(empty + i, %d);", MD_CU_WARPS);
  md_cu_close(k, each);
  md_cu_line(k, NULL, "md_bar_fence();");
  md_cu_close(k, m);
}

void md_cu_ring_registers(md_cu_kernel *k, int consumer, bool consumes) {
  int num = consumes ? consumer : 2 * REGISTERS - consumer;
  md_cu_line(k, NULL, "md_regs_%s(%d);", num > REGISTERS ? "inc" : "dec", num);
}

void md_cu_ring_next(md_cu_kernel *k, const md_cu_ring *r) {
  md_cu_line(k, NULL, "if (++stage == %d) stage = 0, parity ^= 1;", r->stages);
}

// --- bringing

void md_cu_ring_arrive(md_cu_kernel *k, const md_cu_ring *r, const char *stage) {
  if (r->copies) {
    md_cu_line(k, NULL, "md_cp_arrive(full + %s);", stage);
  } else {
    md_cu_line(k, NULL, "md_sync_warp();");
    md_cu_line(k, NULL, "if (md_lane() == 0) md_bar_arrive(full + %s);", stage);
  }
}

void md_cu_ring_brought(md_cu_kernel *k, const md_cu_ring *r) {
  md_cu_ring_arrive(k, r, "stage");
  md_cu_ring_next(k, r);
}

void md_cu_ring_end(md_cu_kernel *k) {
  md_cu_line(k, NULL, "md_cp_commit();");
  md_cu_line(k, NULL, "md_cp_wait(0);");
}

// --- multiplying

// Steps that are written out would have ptxas wait for each wgmma.
md_cu_mark md_cu_ring_open_steps(md_cu_kernel *k, const char *steps) {
  md_cu_line(k, NULL, "MD_NO_UNROLL");
  return md_cu_open(k, NULL, "for (int step = 0; step < %s; step++) {", steps);
}

// One step is on its way while the next one's are begun: a stage is free when the step after it has been.
void md_cu_ring_multiply(md_cu_kernel *k, const md_cu_ring *r, const char *steps, int columns,
                         bool across, const char *a, const char *b) {
  bool once = !strcmp(steps, "1");
  int part = MD_MIN(columns, AT_ONCE), line = MD_CU_WGMMA_STEP;
  md_cu_mark loop = md_cu_ring_open_steps(k, steps);
  md_cu_line(k, NULL, "md_bar_wait(full + stage, parity);");
  if (!r->is_bulk) md_cu_line(k, NULL, "md_fence_async();");
  md_cu_line(k, NULL, "const md_bf16 *const a = as + stage * %d%s;", r->a / 2, a);
  md_cu_line(k, NULL, "const md_bf16 *const b = bs + stage * %d%s;", r->b / 2, b);
  // With one step the zeros are written just before: ptxas would wait for them in between.
  for (int i = 0; once && i < columns; i += part)
    md_cu_line(k, NULL, "md_wgmma_ready(acc[0][%d], %d);", i / 8, part / 2);
  md_cu_line(k, NULL, "md_wgmma_fence();");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int z = 0; z < %d; z++) {", line / 16);
  int lead = line * line * 2;  // panels of 64 columns
  for (int i = 0; i < columns; i += part) {
    if (across)
      md_cu_line(k, NULL,
                 "md_wgmma%dt(acc[0][%d], md_desc128t(a + z * %d, %d), md_desc128t(b + %d + z * "
                 "%d, %d));",
                 part, i / 8, 16 * line, lead, i * line, 16 * line, lead);
    else
      md_cu_line(k, NULL,
                 "md_wgmma%d(acc[0][%d], md_desc128(a + z * 16), md_desc128(b + %d + z * 16));",
                 part, i / 8, i * line);
  }
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_wgmma_commit();");
  if (!once) {  // else ptxas would wait before that
    md_cu_line(k, "of the step before", "md_wgmma_wait(1);");
    md_cu_line(k, NULL, "if (step > 0 && md_lane() == 0) md_bar_arrive(empty + before);");
  }
  md_cu_line(k, NULL, "before = stage;");
  md_cu_ring_next(k, r);
  md_cu_close(k, loop);
  md_cu_line(k, NULL, "md_wgmma_wait(0);");
  for (int i = 0; i < columns; i += part)
    md_cu_line(k, NULL, "md_wgmma_ready(acc[0][%d], %d);", i / 8, part / 2);
  md_cu_line(k, NULL, "if (md_lane() == 0) md_bar_arrive(empty + before);");
}
