// Kernels with one bug each, and the same without it. x may only be read; y may
// not be read before it is written. Both have 70 numbers unless it says otherwise.
#define N 70

// y[i] = x of the neighbour, through shared memory, twice; FIRST and SECOND where barriers must be.
#define SHIFT(FIRST, SECOND)                       \
  MD_SHARED(shared);                               \
  float *const s = (float *)shared;                \
  for (int i = 0; i < 2; i++) {                    \
    s[md_thread()] = x[md_thread()];               \
    FIRST                                          \
    y[md_thread()] = s[(md_thread() + 1) % 64];    \
    SECOND                                         \
  }

//! shared=256
MD_KERNEL(64) good_shift(const float *x, float *y) {
  SHIFT(md_sync();, md_sync();)
}

//! shared=256: reads shared memory
MD_KERNEL(64) no_barrier_before_read(const float *x, float *y) {
  SHIFT(, md_sync();)
}

//! shared=256: race: writes shared memory
MD_KERNEL(64) no_barrier_before_write(const float *x, float *y) {
  SHIFT(md_sync();, )
}

// --- places

#define ME (md_block() * 64 + md_thread())

//! blocks=2
MD_KERNEL(64) good_guard(const float *x, float *y) {
  if (ME < N) y[ME] = x[ME];
}

//! blocks=2: writes 4 bytes of y at +280, but it has 280
MD_KERNEL(64) no_guard(float *y) { y[ME] = 1.0f; }

//! blocks=2: reads 4 bytes of x at +280, but it has 280
MD_KERNEL(64) read_past_end(const float *x, float *y) { y[ME % N] = x[ME + 7]; }

//! shared=256: writes 4 bytes of shared memory at +256, but it has 256
MD_KERNEL(64) shared_past_end(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  s[md_thread() + 1] = x[ME];
  y[ME] = 1.0f;
}

//!: writes 4 bytes at an address in no buffer
MD_KERNEL(64) far_away(float *y) { *(float *)((char *)y + 1000000000) = 1.0f; }

//! y=64: a sum of integers overflows
MD_KERNEL(64) sum_overflows(float *y) { y[md_thread()] = (float)(md_thread() + 2147483600); }

//! y=64: a difference of integers overflows
MD_KERNEL(64) difference_overflows(float *y) { y[md_thread()] = (float)(-md_thread() - 2147483600); }

//! y=64: a product of integers overflows
MD_KERNEL(64) product_overflows(float *y) { y[md_thread()] = (float)(md_thread() * 100000000); }

//! y=64: an integer is divided by 0
MD_KERNEL(64) divides_by_0(float *y) { y[md_thread()] = (float)(7 / (md_thread() - 5)); }

//! y=64: a shift by too much
MD_KERNEL(64) shifts_by_too_much(float *y) { y[md_thread()] = (float)(1u << md_thread()); }

//! y=64: a float is no number of the integer type
MD_KERNEL(64) float_too_large(float *y) { y[md_thread()] = (float)(int)((float)md_thread() * 1e9f); }

//! y=64: index 4 is outside of its array
MD_KERNEL(64) own_array(float *y) {
  float own[4];
  for (int i = 0; i <= 4; i++) own[i] = 1.0f;
  y[ME] = own[md_thread() % 4];
}

//! y=64: index 8 is outside of its array
MD_KERNEL(64) own_vector(float *y) {
  md_f8 own = {{0.0f}};
  for (int i = 0; i <= 8; i++) own.x[i] = 1.0f;
  y[ME] = own.x[md_thread() % 8];
}

//! y=64
MD_KERNEL(64) good_table(float *y) {
  const float table[16] = {1.0f, 2.0f, 3.0f, 5.0f, 7.0f, 11.0f, 13.0f, 17.0f, 19.0f, 23.0f, 29.0f};
  y[ME] = table[md_thread() % 16];
}

//!: misaligned
MD_KERNEL(64) misaligned(float *y) { *(float *)((char *)y + 4 * md_thread() + 2) = 1.0f; }

// --- what is there

//! shared=256: reads shared memory +0, which nobody has written
MD_KERNEL(64) unset_shared(float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  y[ME] = s[md_thread()];
}

//! shared=256 blocks=2 x=128 y=128
MD_KERNEL(64) good_shift_twice(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  s[md_thread()] = x[ME];
  md_sync();
  y[ME] = s[md_thread() ^ 1];
}

//! shared=256 blocks=2: block 1 thread 0: reads shared memory +0, which nobody has written
MD_KERNEL(64) unset_in_second_block(float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  if (md_block() == 0) s[md_thread()] = 1.0f;
  if (ME < N) y[ME] = s[md_thread()];
}

//!: reads y +0, which nobody has written
MD_KERNEL(64) unset_result(float *x, float *y) { x[ME] = y[ME]; }

//!: writes x +0, which is only read here
MD_KERNEL(64) input_written(float *x) { x[ME] = 1.0f; }

// --- threads and blocks

//! blocks=2: conflict: writes y +0, which another block wrote
MD_KERNEL(64) blocks_collide(float *y) { y[md_thread()] = (float)md_block(); }

//! blocks=2 y=128: conflict: reads y +0, which another block wrote
MD_KERNEL(64) block_reads_other(float *y) {
  y[ME] = 1.0f;
  if (md_block() == 1 && md_thread() == 0) y[ME] = y[0];
}

//!: race: writes y +0, which thread 0 wrote without a barrier between
MD_KERNEL(64) threads_collide(float *y) { y[md_thread() / 2] = (float)md_thread(); }

//!: deadlock: 63 threads wait at the barrier
MD_KERNEL(64) conditional_barrier(float *y) {
  if (md_thread() != 5) md_sync();
  y[ME] = 1.0f;
}

//!: divergent barrier
MD_KERNEL(64) other_barrier(float *y) {
  if (md_thread() != 5) md_sync();
  else md_sync();
  y[ME] = 1.0f;
}

//!: threads wait at the shuffle
MD_KERNEL(64) conditional_shuffle(float *y) {
  float v = 1.0f;
  if (md_lane() < 7) v = md_shfl_xor(v, 1);
  y[ME] = v;
}

// --- tickets. x is one, and 0.

// The last of two blocks adds up what both have left; BEFORE and BEHIND it is found out, barriers.
#define LAST(BEFORE, BEHIND)                             \
  MD_SHARED(shared);                                     \
  int *const last = (int *)shared;                       \
  y[ME] = 1.0f;                                          \
  BEFORE                                                 \
  if (md_thread() == 0) *last = md_last((md_u32 *)x, 2); \
  BEHIND                                                 \
  if (*last) y[128 + md_thread()] = y[md_thread()] + y[64 + md_thread()];

//! shared=4 blocks=2 y=192 ticket=1
MD_KERNEL(64) good_ticket(float *x, float *y) { LAST(md_sync();, md_sync();) }

//! shared=4 blocks=2 y=192 ticket=1: conflict: reads y
MD_KERNEL(64) no_barrier_before_ticket(float *x, float *y) { LAST(, md_sync();) }

//! shared=4 blocks=2 y=192 ticket=1: reads shared memory
MD_KERNEL(64) no_barrier_behind_ticket(float *x, float *y) { LAST(md_sync();, ) }

//! blocks=2 y=192: conflict: reads y
MD_KERNEL(64) no_ticket(float *x, float *y) {
  y[ME] = 1.0f;
  md_sync();
  if (md_block() == 1) y[128 + md_thread()] = y[md_thread()] + y[64 + md_thread()];
}

//! y=64: a ticket at y +0, which nobody has written
MD_KERNEL(64) unset_ticket(float *x, float *y) {
  if (md_thread() == 0) y[1] = (float)md_last((md_u32 *)y, 2);
}

// --- parts of what was touched together before: 16 bytes each, of which another thread takes 2

// Thread t writes 16 bytes at 8 t halves, reads half 8 u + k and writes half 8 u + k + 1, u behind a barrier.
#define PARTS(BETWEEN, U, K)                                              \
  MD_SHARED(shared);                                                      \
  md_bf16 *const s = (md_bf16 *)shared;                                   \
  md_h8 v = {{1, 2, 3, 4}};                                               \
  md_st_h8(s + md_thread() * 8, v);                                       \
  BETWEEN                                                                 \
  const md_bf16 h = s[(U) * 8 + (K)];                                     \
  s[(U) * 8 + (K) + 1] = h;                                               \
  md_sync();                                                              \
  if (md_lanes(8) == 8) v = md_ld_h8(s + (md_thread() + 1) % 64 * 8, 8);  \
  y[md_thread()] = x[md_thread()] + (float)v.w[3];

//! shared=1024
MD_KERNEL(64) good_parts(const float *x, float *y) {
  PARTS(md_sync();, (md_thread() + 1) % 64, 2)
}

// Eight threads have a vector, each two of its bytes.
//! shared=1024
MD_KERNEL(64) good_parts_of_eight(const float *x, float *y) {
  MD_SHARED(shared);
  md_bf16 *const s = (md_bf16 *)shared;
  md_h8 v = {{1, 2, 3, 4}};
  if (md_thread() < 8) md_st_h8(s + md_thread() * 8, v);
  md_sync();
  s[md_thread()] = (md_bf16)(s[md_thread()] + 1);
  md_sync();
  v = md_ld_h8(s + md_thread() % 8 * 8, 8);
  y[md_thread()] = x[md_thread()] + (float)v.w[3];
}

//! shared=1024: reads shared memory
MD_KERNEL(64) parts_of_another(const float *x, float *y) {
  PARTS(, (md_thread() + 1) % 64 / 2 * 2, 2)
}

// Two threads, and the same two bytes of a vector that a third one wrote.
//! shared=1024: race: writes shared memory
MD_KERNEL(64) parts_twice(const float *x, float *y) {
  PARTS(md_sync();, md_thread() / 2, 2)
}

// Half of a vector is nobody's.
//! shared=1024: reads shared memory +8, which nobody has written
MD_KERNEL(64) part_unset(const float *x, float *y) {
  MD_SHARED(shared);
  md_u32 *const s = (md_u32 *)shared;
  if (md_thread() == 0) s[0] = s[1] = 1;
  md_sync();
  const md_h8 v = md_ld_h8((const md_bf16 *)shared, 8);
  y[md_thread()] = x[md_thread()] + (float)v.w[0];
}
