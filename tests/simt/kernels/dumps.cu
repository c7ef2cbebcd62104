// One kernel for each instruction, which writes its registers: y gets `words` of each thread. What the
// host makes of them is in dumps/; a GPU must write the same. x[i] is a small integer.

// Shared memory in which element i is i.
#define NUMBERED(s)                                                    \
  MD_SHARED(shared);                                                   \
  md_bf16 *const s = (md_bf16 *)shared;                                \
  for (int i = 0; i < 8; i++) s[md_thread() * 8 + i] = (md_bf16)(md_thread() * 8 + i); \
  md_sync();

#define OUT(n, value) \
  MD_UNROLL for (int i = 0; i < (n); i++) y[md_thread() * (n) + i] = (value);

//! words=16
MD_KERNEL(32) vectors(const md_bf16 *x, md_u32 *y) {
  const md_h8 v = md_ld_h8(x + 8 * md_thread(), 5);
  md_f8 f;
  MD_UNROLL for (int i = 0; i < 8; i++) f.x[i] = md_h2f(v, i) * 0.5f;
  md_st_f8((float *)y + 16 * md_thread(), f);
  md_st_f8((float *)y + 16 * md_thread() + 8, md_ld_f8((const float *)x + 8 * md_thread(), 3));
}

// Ties, the largest finite number, infinities, NaN, what is below the smallest.
//! words=1
MD_KERNEL(32) to_bf16(md_u32 *y) {
  const int i = md_lane() % 8;
  const float mine = i == 0   ? 1.00390625f
                     : i == 1 ? 1.01171875f
                     : i == 2 ? -3.3961776e38f
                     : i == 3 ? 3.4e38f
                     : i == 4 ? MD_INF
                     : i == 5 ? MD_NAN
                     : i == 6 ? 1e-45f
                              : -0.0f;
  y[md_thread()] = md_f2bf(mine);
}

//! words=1
MD_KERNEL(32) shfl_xor(const md_bf16 *x, md_u32 *y) {
  y[md_thread()] = md_f2bf(md_shfl_xor(md_bf2f(x[md_thread()]), 5));
}

//! words=4 shared=512
MD_KERNEL(32) ldmatrix4(md_u32 *y) {
  NUMBERED(s)
  md_u32 r[4];
  md_ldmatrix4(r, s + 8 * (md_thread() ^ 3));
  OUT(4, r[i])
}

//! words=4 shared=512
MD_KERNEL(32) ldmatrix4t(md_u32 *y) {
  NUMBERED(s)
  md_u32 r[4];
  md_ldmatrix4t(r, s + 8 * (md_thread() ^ 3));
  OUT(4, r[i])
}

//! words=4
MD_KERNEL(32) mma(const md_u32 *x, float *y) {
  md_u32 a[4], b[2];
  float c[4];
  MD_UNROLL for (int i = 0; i < 4; i++) {
    a[i] = x[md_thread() * 4 + i];
    b[i % 2] = x[128 + md_thread() * 4 + i];
    c[i] = (float)(md_thread() * 4 + i) * 0.25f;
  }
  md_mma(c, a, b);
  OUT(4, c[i])
}

//! words=4 shared=512
MD_KERNEL(32) cp_async(const md_u32 *x, md_u32 *y) {
  MD_SHARED(shared);
  md_u32 *const s = (md_u32 *)shared;
  md_cp_async(s + 4 * md_thread(), x + 4 * (md_thread() ^ 1), md_thread() % 3 * 8);
  md_cp_commit();
  md_cp_wait(0);
  OUT(4, s[4 * md_thread() + i])
}
