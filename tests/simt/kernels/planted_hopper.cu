// Kernels with one bug each, and the same without it: mbarriers, barriers of a part of the block, bulk copies.
// What needs tensor maps is in hopper.cu. x and y have 70 numbers.

// Thread 0 gives a number to the others of its part, by way of BARRIER.
#define GIVEN(BARRIER)                                         \
  MD_SHARED(shared);                                           \
  float *const s = (float *)shared;                            \
  if (md_thread() == 0) s[0] = x[3];                           \
  if (md_warp() < 2) {                                         \
    BARRIER                                                    \
    y[md_thread()] = s[0];                                     \
  }

//! shared=64
MD_KERNEL(96) good_part(const float *x, float *y) {
  GIVEN(md_sync_part(1, 64);)
}

//! shared=64: shared memory +0, which
MD_KERNEL(96) no_part_barrier(const float *x, float *y) {
  GIVEN()
}

//! shared=64: shared memory +0, which
MD_KERNEL(96) only_warps(const float *x, float *y) {
  GIVEN(md_sync_warp();)
}

//! shared=64: threads wait at the barrier of a part
MD_KERNEL(96) part_too_large(const float *x, float *y) {
  GIVEN(md_sync_part(1, 96);)
}

//! shared=64: barrier 1 of 40 threads
MD_KERNEL(96) part_of_a_warp(const float *x, float *y) {
  GIVEN(md_sync_part(1, 40);)
}

//! shared=64: deadlock: 32 threads wait at the barrier of a part
MD_KERNEL(96) parts_differ(const float *x, float *y) {
  GIVEN(if (md_warp()) md_sync_part(1, 64);
        else md_sync_part(1, 32);)
}

// --- mbarriers

// The same by an mbarrier of COUNT arrivals.
#define BY_BAR(COUNT, INIT_DONE, ARRIVE, WAIT)                 \
  MD_SHARED(shared);                                           \
  float *const s = (float *)shared;                            \
  md_u64 *const bar = (md_u64 *)(shared + 8);                  \
  if (md_thread() == 0) md_bar_init(bar, COUNT);               \
  INIT_DONE                                                    \
  if (md_thread() == 64) {                                     \
    s[0] = x[3];                                               \
    ARRIVE                                                     \
  }                                                            \
  if (md_warp() < 2) {                                         \
    WAIT                                                       \
    y[md_thread()] = s[0];                                     \
  }

//! shared=64
MD_KERNEL(96) good_bar(const float *x, float *y) {
  BY_BAR(1, md_sync();, md_bar_arrive(bar);, md_bar_wait(bar, 0);)
}

//! shared=64: shared memory +8, which
MD_KERNEL(96) bar_not_there_yet(const float *x, float *y) {
  BY_BAR(1, , md_bar_arrive(bar);, md_bar_wait(bar, 0);)
}

//! shared=64: reads shared memory +0, which nobody has written
MD_KERNEL(96) bar_other_parity(const float *x, float *y) {
  BY_BAR(1, md_sync();, md_bar_arrive(bar);, md_bar_wait(bar, 1);)
}

//! shared=64: deadlock: 64 threads wait at the mbarrier
MD_KERNEL(96) bar_of_two(const float *x, float *y) {
  BY_BAR(2, md_sync();, md_bar_arrive(bar);, md_bar_wait(bar, 0);)
}

//! shared=64: deadlock: 64 threads wait at the mbarrier
MD_KERNEL(96) bar_expects_bytes(const float *x, float *y) {
  BY_BAR(1, md_sync();, md_bar_expect(bar, 16);, md_bar_wait(bar, 0);)
}

//! shared=64: arrives at mbarrier +8, which expects nobody
MD_KERNEL(96) bar_has_enough(const float *x, float *y) {
  BY_BAR(1, md_sync();, md_bar_expect(bar, 16); md_bar_arrive(bar);, md_bar_wait(bar, 0);)
}

//! shared=64: race: reads shared memory +0
MD_KERNEL(96) bar_before_the_store(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  md_u64 *const bar = (md_u64 *)(shared + 8);
  if (md_thread() == 0) md_bar_init(bar, 1);
  md_sync();
  if (md_thread() == 0) {
    md_bar_arrive(bar);
    s[0] = x[3];
  }
  md_bar_wait(bar, 0);
  if (md_thread() < 70) y[md_thread()] = s[0];
}

//! shared=64: misaligned
MD_KERNEL(96) bar_misaligned(const float *x, float *y) {
  MD_SHARED(shared);
  if (md_thread() == 0) md_bar_init((md_u64 *)(shared + 4), 1);
  y[0] = x[0];
}

//! shared=64: no mbarrier at shared memory +16
MD_KERNEL(96) no_bar(const float *x, float *y) {
  MD_SHARED(shared);
  md_u64 *const bar = (md_u64 *)(shared + 8);
  bar[1] = 0;
  md_bar_wait(bar + 1, 0);
  y[0] = x[0];
}

//! shared=64: 12 registers: a multiple of 8 from 24 to 256
MD_KERNEL(128) few_registers(const float *x, float *y) {
  md_regs_dec(12);
  y[0] = x[0];
}

// --- bulk copies

// 64 numbers of x to shared memory by a bulk copy of BYTES from FROM on.
#define BY_BULK(FENCE, FROM, BYTES, WAIT)                      \
  MD_SHARED(shared);                                           \
  float *const s = (float *)shared;                            \
  md_u64 *const bar = (md_u64 *)(shared + 256);                \
  if (md_thread() == 0) {                                      \
    md_bar_init(bar, 1);                                       \
    FENCE                                                      \
  }                                                            \
  md_sync();                                                   \
  if (md_thread() == 64) {                                     \
    md_bar_expect(bar, 256);                                   \
    md_bulk_load(s, FROM, BYTES, bar);                         \
  }                                                            \
  if (md_warp() < 2) {                                         \
    WAIT                                                       \
    y[md_thread()] = s[md_thread()];                           \
  }

//! shared=512
MD_KERNEL(96) good_bulk(const float *x, float *y) {
  BY_BULK(md_bar_fence();, x + 4, 256, md_bar_wait(bar, 0);)
}

//! shared=512: was not fenced
MD_KERNEL(96) bulk_without_fence(const float *x, float *y) {
  BY_BULK(, x, 256, md_bar_wait(bar, 0);)
}

//! shared=512: which nobody has written
MD_KERNEL(96) bulk_without_wait(const float *x, float *y) {
  BY_BULK(md_bar_fence();, x, 256, md_sync_warp();)
}

//! shared=512: misaligned
MD_KERNEL(96) bulk_misaligned(const float *x, float *y) {
  BY_BULK(md_bar_fence();, x + 1, 256, md_bar_wait(bar, 0);)
}

//! shared=512: of x at +32, but it has 280
MD_KERNEL(96) bulk_too_far(const float *x, float *y) {
  BY_BULK(md_bar_fence();, x + 8, 256, md_bar_wait(bar, 0);)
}

//! shared=512: a bulk copy of 250 bytes: a multiple of 16
MD_KERNEL(96) bulk_of_odd_bytes(const float *x, float *y) {
  BY_BULK(md_bar_fence();, x, 250, md_bar_wait(bar, 0);)
}

//! shared=512: deadlock
MD_KERNEL(96) bulk_of_few_bytes(const float *x, float *y) {
  BY_BULK(md_bar_fence();, x, 240, md_bar_wait(bar, 0);)
}
