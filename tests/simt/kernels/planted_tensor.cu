// Kernels with one bug each, and the same without it: vectors, warps, ldmatrix, mma. x and y have 512
// numbers of 4 bytes, 1024 of 2.

//! x=512 y=512
MD_KERNEL(64) good_vectors(const float *x, float *y) {
  md_st_f8(y + 8 * md_thread(), md_ld_f8(x + 8 * md_thread(), 8));
}

//! x=512 y=512: reads 32 bytes of x at +8: misaligned
MD_KERNEL(64) vector_misaligned(const float *x, float *y) {
  md_st_f8(y + 8 * md_thread(), md_ld_f8(x + 4 * (md_thread() % 32) + 2, 8));
}

//! x=512 y=512: writes 16 bytes of y at +8: misaligned
MD_KERNEL(64) half_vector_misaligned(const md_bf16 *x, md_bf16 *y) {
  md_st_h8(y + 8 * md_thread() + 4, md_ld_h8(x + 8 * md_thread(), 8));
}

//! x=500 y=512: reads 32 bytes of x at +1984, but it has 2000
MD_KERNEL(64) vector_past_end(const float *x, float *y) {
  md_st_f8(y + 8 * md_thread(), md_ld_f8(x + 8 * md_thread(), 8));
}

//! x=512 y=512: reads y +12, which nobody has written
MD_KERNEL(64) vector_of_padding(float *y) {
  for (int i = 0; i < 3; i++) y[8 * md_thread() + i] = 1.0f;
  md_st_f8(y + 8 * md_thread(), md_ld_f8(y + 8 * md_thread(), 4));
}

//! x=512 y=512
MD_KERNEL(64) good_padding(float *y) {
  for (int i = 0; i < 3; i++) y[8 * md_thread() + i] = 1.0f;
  md_st_f8(y + 8 * md_thread(), md_ld_f8(y + 8 * md_thread(), 3));
}

//! x=512 y=512: race: writes y +16
MD_KERNEL(64) vectors_overlap(const float *x, float *y) {
  md_st_f8(y + 4 * md_thread(), md_ld_f8(x + 4 * md_thread(), 8));
}

// --- warps

// y[i] = x of the neighbour in the warp.
#define IN_WARP(FIRST, SECOND)                                          \
  MD_SHARED(shared);                                                    \
  float *const s = (float *)shared;                                     \
  for (int i = 0; i < 2; i++) {                                         \
    s[md_thread()] = x[md_thread()];                                    \
    FIRST                                                               \
    y[md_thread()] = s[md_warp() * 32 + (md_lane() + 1) % 32];          \
    SECOND                                                              \
  }

//! shared=256
MD_KERNEL(64) good_warp(const float *x, float *y) {
  IN_WARP(md_sync_warp();, md_sync_warp();)
}

//! shared=256: reads shared memory
MD_KERNEL(64) no_warp_sync_before_read(const float *x, float *y) {
  IN_WARP(, md_sync_warp();)
}

//! shared=256: race: writes shared memory
MD_KERNEL(64) no_warp_sync_before_write(const float *x, float *y) {
  IN_WARP(md_sync_warp();, )
}

//! shared=256: reads shared memory
MD_KERNEL(64) warp_sync_across_warps(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  s[md_thread()] = x[md_thread()];
  md_sync_warp();
  if (md_warp() == 1) y[md_thread()] = s[md_thread() - 32];
}

//! shared=256: race: reads shared memory +120, which thread 30 wrote without a barrier between
MD_KERNEL(64) shuffle_is_no_barrier(const float *x, float *y) {
  MD_SHARED(shared);
  float *const s = (float *)shared;
  s[md_thread()] = x[md_thread()];
  const float sum = md_shfl_xor(x[md_thread()], 1);
  y[md_thread()] = s[md_thread() ^ 1] + sum;
}

//!: 8 threads wait at the md_sync_warp
MD_KERNEL(64) conditional_warp_sync(float *y) {
  if (md_thread() < 40) md_sync_warp();
  y[md_thread()] = 1.0f;
}

//!: divergent md_sync_warp
MD_KERNEL(64) other_collective(float *y) {
  float v = 1.0f;
  if (md_lane() < 7) v = md_shfl_xor(v, 1);
  else md_sync_warp();
  y[md_thread()] = v;
}

// --- ldmatrix, mma

// 32 rows of 16 bytes for each warp, then out as they are.
#define ROWS(BEFORE, ROW)                                               \
  MD_SHARED(shared);                                                    \
  md_bf16 *const s = (md_bf16 *)shared;                                 \
  md_u32 r[4];                                                          \
  md_st_h8(s + 8 * md_thread(), md_ld_h8(x + 8 * md_thread(), 8));      \
  BEFORE                                                                \
  md_ldmatrix4(r, ROW);                                                 \
  for (int i = 0; i < 4; i++) y[4 * md_thread() + i] = r[i];

//! shared=1024 x=512 y=512
MD_KERNEL(64) good_rows(const md_bf16 *x, md_u32 *y) {
  ROWS(md_sync();, s + 8 * (md_thread() ^ 33))
}

//! shared=1024 x=512 y=512: reads shared memory
MD_KERNEL(64) rows_without_barrier(const md_bf16 *x, md_u32 *y) {
  ROWS(, s + 8 * (md_thread() ^ 1))
}

//! shared=1024 x=512 y=512: reads 16 bytes of shared memory at +504: misaligned
MD_KERNEL(64) rows_misaligned(const md_bf16 *x, md_u32 *y) {
  ROWS(md_sync();, s + 8 * (md_thread() % 32) + 4)
}

//! shared=1024 x=512 y=512: ldmatrix: 16 bytes at +1024 of shared memory, but it has 1024
MD_KERNEL(64) rows_past_end(const md_bf16 *x, md_u32 *y) {
  ROWS(md_sync();, s + 8 * (md_thread() + 1))
}

//! shared=1024 x=512 y=512: ldmatrix: 16 bytes at
MD_KERNEL(64) rows_of_global_memory(const md_bf16 *x, md_u32 *y) {
  ROWS(md_sync();, x + 8 * md_thread())
}

//! shared=1024 x=512 y=512: reads shared memory +1008, which nobody has written
MD_KERNEL(64) rows_unset(const md_bf16 *x, md_u32 *y) {
  MD_SHARED(shared);
  md_bf16 *const s = (md_bf16 *)shared;
  md_u32 r[4];
  if (md_thread() < 48) md_st_h8(s + 8 * md_thread(), md_ld_h8(x + 8 * md_thread(), 8));
  md_sync();
  md_ldmatrix4(r, s + 8 * md_thread());
  y[md_thread()] = r[0];
}

//! shared=1024 x=512 y=512: race: writes shared memory +480, which thread 30 read
MD_KERNEL(64) rows_overwritten(const md_bf16 *x, md_u32 *y) {
  ROWS(md_sync();, s + 8 * md_thread())
  md_st_h8(s + 8 * (md_thread() ^ 1), md_ld_h8(x + 8 * md_thread(), 8));
}

//! x=512 y=512: threads wait at the mma
MD_KERNEL(64) conditional_mma(const md_u32 *x, float *y) {
  md_u32 a[4], b[2];
  float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  for (int i = 0; i < 4; i++) a[i] = b[i % 2] = x[md_thread()];
  if (md_lane() != 9) md_mma(c, a, b);
  y[md_thread()] = c[0];
}
