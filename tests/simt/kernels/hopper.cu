// y[M][N] = a[M][K] b[N][K]^T by wgmma, blocks of 64 by 64, K in steps of 64: a warp that loads by TMA
// and a warpgroup that multiplies, with a ring of 3 stages. The sizes are defined in front of this text,
// and BUG, which plants a mistake; 0: none.
#ifndef BUG
#define BUG 0
#endif
#define BLOCKS_N ((N + 63) / 64)
#define ROW0 (md_block() / BLOCKS_N * 64)
#define COL0 (md_block() % BLOCKS_N * 64)
#define STEPS ((K + 63) / 64)
#define STAGES 3
#define STAGE 16384  // bytes: 64 rows of a and of b, 128 bytes each

#define STORE(c)                                                                              \
  MD_UNROLL for (int j = 0; j < 8; j++)                                                       \
    MD_UNROLL for (int e = 0; e < 4; e++) {                                                   \
      const int row = ROW0 + md_warp() * 16 + e / 2 * 8 + md_lane() / 4;                      \
      const int col = COL0 + j * 8 + md_lane() % 4 * 2 + e % 2;                               \
      if (row < M && col < N) y[row * N + col] = c[4 * j + e];                                \
    }

// mbarriers behind the stages: full, then empty.
#define RING                                                                                  \
  MD_SHARED(shared);                                                                          \
  md_u64 *const full = (md_u64 *)(shared + STAGES * STAGE), *const empty = full + STAGES;     \
  if (md_thread() == 0) {                                                                     \
    for (int i = 0; i < STAGES; i++) {                                                        \
      md_bar_init(full + i, 1);                                                               \
      md_bar_init(empty + i, BUG == 2 ? 3 : 4);                                               \
    }                                                                                         \
    if (BUG != 3) md_bar_fence();                                                             \
  }                                                                                           \
  if (BUG != 1) md_sync();

#define PRODUCE(LOAD_A)                                                                       \
  if (md_warp() == 4) {                                                                       \
    for (int k = 0; md_lane() == 0 && k < STEPS; k++) {                                       \
      const int s = k % STAGES, parity = k / STAGES % 2;                                      \
      if (BUG != 4) md_bar_wait(empty + s, parity ^ 1);                                       \
      md_bar_expect(full + s, BUG == 5 ? 16000 : BUG == 6 ? 16640 : STAGE);                   \
      LOAD_A                                                                                  \
      md_tma2(shared + s * STAGE + 8192, &mb, full + s, k * 64, COL0);                        \
    }                                                                                         \
    return;                                                                                   \
  }

#define FREE_STAGE                                                                            \
  if (BUG == 17) md_bar_arrive(empty + s);                                                    \
  else if (md_lane() == 0) md_bar_arrive(empty + s);

MD_KERNEL(160) wg_gemm(MD_TMAP(ma), MD_TMAP(mb), float *y) {
  RING
  PRODUCE(md_tma2(shared + s * STAGE + (BUG == 16 ? 64 : 0), &ma, full + s, k * 64, ROW0);)
  float c[32];
  MD_UNROLL for (int i = 0; i < 32; i++) c[i] = 0.0f;
  for (int k = 0; k < STEPS; k++) {
    const int s = k % STAGES, parity = k / STAGES % 2;
    if (BUG != 7) md_bar_wait(full + s, BUG == 8 ? parity ^ 1 : parity);
    const unsigned char *const sa = shared + s * STAGE, *const sb = sa + 8192;
    if (BUG != 9) md_wgmma_fence();
    MD_UNROLL for (int kk = 0; kk < 4; kk++)
      md_wgmma64(c, md_desc128(sa + kk * 32), md_desc128(sb + kk * 32));
    if (BUG != 10) md_wgmma_commit();
    if (BUG == 11) {
      FREE_STAGE
    }
    if (BUG != 12) md_wgmma_wait(0);
    if (BUG != 13) md_wgmma_ready(c, 32);
    if (BUG != 11) {
      FREE_STAGE
    }
  }
  STORE(c)
}

// The same, a through registers.
MD_KERNEL(160) wg_registers(MD_TMAP(ma), MD_TMAP(mb), float *y) {
  RING
  PRODUCE(md_tma2(shared + s * STAGE, &ma, full + s, k * 64, ROW0);)
  float c[32];
  MD_UNROLL for (int i = 0; i < 32; i++) c[i] = 0.0f;
  for (int k = 0; k < STEPS; k++) {
    const int s = k % STAGES, parity = k / STAGES % 2;
    md_bar_wait(full + s, parity);
    const unsigned char *const sa = shared + s * STAGE, *const sb = sa + 8192;
    md_u32 a[4][4];
    MD_UNROLL for (int kk = 0; kk < 4; kk++) {
      const int row = md_warp() * 16 + md_lane() % 16, chunk = kk * 2 + md_lane() / 16;
      md_ldmatrix4(a[kk], sa + row * 128 + ((chunk ^ (BUG == 20 ? 0 : row % 8)) << 4));
    }
    md_wgmma_fence();
    MD_UNROLL for (int kk = 0; kk < 4; kk++) md_wgmma64r(c, a[kk], md_desc128(sb + kk * 32));
    md_wgmma_commit();
    md_wgmma_wait(0);
    md_wgmma_ready(c, 32);
    md_sync_warp();
    FREE_STAGE
  }
  STORE(c)
}

// Operands that threads store, without swizzle: pieces of 8 rows of 16 bytes, one column of them after
// the other.
#define PIECE(row, k) ((k) / 8 * 512 + (row) * 8 + (k) % 8)  // elements, of [64][64]
MD_KERNEL(128) wg_stored(const md_bf16 *a, const md_bf16 *b, float *y) {
  MD_SHARED(shared);
  md_bf16 *const sa = (md_bf16 *)shared, *const sb = sa + 4096;
  float c[32];
  MD_UNROLL for (int i = 0; i < 32; i++) c[i] = 0.0f;
  for (int k0 = 0; k0 < K; k0 += 64) {
    for (int i = md_thread(); i < 512; i += 128) {
      const int row = i / 8, k = k0 + i % 8 * 8;
      md_h8 va = {{0}}, vb = {{0}};
      if (ROW0 + row < M && k < K) va = md_ld_h8(a + (ROW0 + row) * K + k, 8);
      if (COL0 + row < N && k < K) vb = md_ld_h8(b + (COL0 + row) * K + k, 8);
      md_st_h8(sa + PIECE(row, i % 8 * 8), va);
      md_st_h8(sb + PIECE(row, i % 8 * 8), vb);
    }
    if (BUG != 14) md_fence_async();
    md_sync();
    md_wgmma_fence();
    MD_UNROLL for (int kk = 0; kk < 4; kk++)
      md_wgmma64(c, md_desc(sa + PIECE(0, kk * 16), 1024, 128),
                 md_desc(sb + PIECE(0, kk * 16), 1024, 128));
    md_wgmma_commit();
    if (BUG != 15) md_wgmma_wait(0);
    md_wgmma_ready(c, 32);
    md_sync();
  }
  STORE(c)
}

// y[pixel][64] of a 1 x 3 x 3 convolution, stride 1 x 2 x 2, padding 0 x 1 x 1, of 64 channels: pixels of
// x by TMA in windows, weights [64][9 * 64]. Output [IMAGES][DEPTH][(H + 1) / 2][(W + 1) / 2].
#define OUT_W ((W + 1) / 2)
#define OUT_H ((H + 1) / 2)
#define PIXELS (IMAGES * DEPTH * OUT_H * OUT_W)
#define PIXEL0 (md_block() * 64)
MD_KERNEL(160) wg_conv(MD_TMAP(mx), MD_TMAP(mb), float *y) {
  RING
  if (md_warp() == 4) {
    const int w = PIXEL0 % OUT_W * 2 - 1, h = PIXEL0 / OUT_W % OUT_H * 2 - 1;
    const int d = PIXEL0 / (OUT_W * OUT_H) % DEPTH, n = PIXEL0 / (OUT_W * OUT_H * DEPTH);
    for (int k = 0; md_lane() == 0 && k < 9; k++) {
      const int s = k % STAGES, parity = k / STAGES % 2;
      md_bar_wait(empty + s, parity ^ 1);
      md_bar_expect(full + s, STAGE);
      md_tma_im2col(shared + s * STAGE, &mx, full + s, 0, w, h + (BUG == 18), d, n, k % 3, k / 3, 0);
      md_tma2(shared + s * STAGE + 8192, &mb, full + s, k * 64, 0);
    }
    return;
  }
  float c[32];
  MD_UNROLL for (int i = 0; i < 32; i++) c[i] = 0.0f;
  for (int k = 0; k < 9; k++) {
    const int s = k % STAGES;
    md_bar_wait(full + s, k / STAGES % 2);
    const unsigned char *const sa = shared + s * STAGE, *const sb = sa + 8192;
    md_wgmma_fence();
    MD_UNROLL for (int kk = 0; kk < 4; kk++)
      md_wgmma64(c, md_desc128(sa + kk * 32), md_desc128(sb + kk * 32));
    md_wgmma_commit();
    md_wgmma_wait(0);
    md_wgmma_ready(c, 32);
    FREE_STAGE
  }
  MD_UNROLL for (int j = 0; j < 8; j++)
    MD_UNROLL for (int e = 0; e < 4; e++) {
      const int row = PIXEL0 + md_warp() * 16 + e / 2 * 8 + md_lane() / 4;
      if (row < PIXELS) y[row * 64 + j * 8 + md_lane() % 4 * 2 + e % 2] = c[4 * j + e];
    }
}
