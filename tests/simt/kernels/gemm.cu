// y[M][N] = a[M][K] b on tensor cores; the sizes are defined in front of this text, K and N % 8 == 0.
// Blocks of 64 by 64 and 4 warps of 32 by 32 each; K in steps of 32. Chunks are 16 bytes of a row, at
// places that differ by row, so that 8 rows of a matrix lie in different banks.
#define BLOCKS_N ((N + 63) / 64)
#define ROW0 (md_block() / BLOCKS_N * 64)
#define COL0 (md_block() % BLOCKS_N * 64)
#define AT(row, chunk) ((row) * 32 + ((chunk) ^ ((row) >> 1 & 3)) * 8)     // tiles of [64][32]
#define AT_K(row, chunk) ((row) * 64 + ((chunk) ^ ((row) & 7)) * 8)        // tiles of [32][64]
#define TILE 2048

#define CLEAR(c)                                         \
  MD_UNROLL for (int i = 0; i < 2; i++)                  \
    MD_UNROLL for (int j = 0; j < 4; j++)                \
      MD_UNROLL for (int e = 0; e < 4; e++) c[i][j][e] = 0.0f;

#define LOAD_A(sa)                                                                            \
  MD_UNROLL for (int i = 0; i < 2; i++)                                                       \
    md_ldmatrix4(fa[i], (sa) + AT(md_warp() % 2 * 32 + i * 16 + md_lane() % 16,               \
                                  kk * 2 + md_lane() / 16));

#define PRODUCTS(c)                                      \
  MD_UNROLL for (int i = 0; i < 2; i++)                  \
    MD_UNROLL for (int j = 0; j < 4; j++)                \
      md_mma(c[i][j], fa[i], fb[j / 2] + j % 2 * 2);

#define STORE(c)                                                                              \
  MD_UNROLL for (int i = 0; i < 2; i++)                                                       \
    MD_UNROLL for (int j = 0; j < 4; j++)                                                     \
      MD_UNROLL for (int e = 0; e < 4; e++) {                                                 \
        const int row = ROW0 + md_warp() % 2 * 32 + i * 16 + e / 2 * 8 + md_lane() / 4;       \
        const int col = COL0 + md_warp() / 2 * 32 + j * 8 + md_lane() % 4 * 2 + e % 2;        \
        if (row < M && col < N) y[row * N + col] = c[i][j][e];                                \
      }

// b[N][K]; one buffer, plain stores to it.
MD_KERNEL(128) gemm(const md_bf16 *a, const md_bf16 *b, float *y) {
  MD_SHARED(shared);
  md_bf16 *const sa = (md_bf16 *)shared, *const sb = sa + TILE;
  float c[2][4][4];
  CLEAR(c)
  for (int k0 = 0; k0 < K; k0 += 32) {
    for (int i = md_thread(); i < 256; i += 128) {
      const int row = i / 4, k = k0 + i % 4 * 8;
      md_h8 va = {{0}}, vb = {{0}};
      if (ROW0 + row < M && k < K) va = md_ld_h8(a + (ROW0 + row) * K + k, 8);
      if (COL0 + row < N && k < K) vb = md_ld_h8(b + (COL0 + row) * K + k, 8);
      md_st_h8(sa + AT(row, i % 4), va);
      md_st_h8(sb + AT(row, i % 4), vb);
    }
    md_sync();
    MD_UNROLL for (int kk = 0; kk < 2; kk++) {
      md_u32 fa[2][4], fb[2][4];
      LOAD_A(sa)
      MD_UNROLL for (int j = 0; j < 2; j++)
        md_ldmatrix4(fb[j], sb + AT(md_warp() / 2 * 32 + j * 16 + md_lane() / 16 * 8 + md_lane() % 8,
                                    kk * 2 + md_lane() / 8 % 2));
      PRODUCTS(c)
    }
    md_sync();
  }
  STORE(c)
}

// b[K][N], transposed as it goes to registers; two buffers that asynchronous copies fill.
#define COPY(step)                                                                            \
  for (int i = md_thread(); i < 256; i += 128) {                                              \
    const int row = i / 4, k = (step) * 32 + i % 4 * 8;                                       \
    const int row_k = i / 8, n = COL0 + i % 8 * 8;                                            \
    const bool in_a = ROW0 + row < M && k < K, in_b = (step) * 32 + row_k < K && n < N;       \
    md_bf16 *const sa = s + (step) % 2 * 2 * TILE;                                            \
    md_cp_async(sa + AT(row, i % 4), a + (in_a ? (ROW0 + row) * K + k : 0), in_a ? 16 : 0);    \
    md_cp_async(sa + TILE + AT_K(row_k, i % 8),                                               \
                b + (in_b ? ((step) * 32 + row_k) * N + n : 0), in_b ? 16 : 0);               \
  }

MD_KERNEL(128) gemm_async(const md_bf16 *a, const md_bf16 *b, float *y) {
  MD_SHARED(shared);
  md_bf16 *const s = (md_bf16 *)shared;
  float c[2][4][4];
  CLEAR(c)
  COPY(0)
  md_cp_commit();
  for (int step = 0; step < (K + 31) / 32; step++) {
    if ((step + 1) * 32 < K) {
      COPY(step + 1)
    }
    md_cp_commit();
    md_cp_wait(1);
    md_sync();
    const md_bf16 *const sa = s + step % 2 * 2 * TILE;
    MD_UNROLL for (int kk = 0; kk < 2; kk++) {
      md_u32 fa[2][4], fb[2][4];
      LOAD_A(sa)
      MD_UNROLL for (int j = 0; j < 2; j++)
        md_ldmatrix4t(fb[j], sa + TILE + AT_K(kk * 16 + md_lane() % 16,
                                              md_warp() / 2 * 4 + j * 2 + md_lane() / 16));
      PRODUCTS(c)
    }
    md_sync();
  }
  STORE(c)
}
