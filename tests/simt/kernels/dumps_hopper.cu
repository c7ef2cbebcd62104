// The instructions of sm_90a, as in dumps.cu. m is a map of x: [64][64] in boxes of 64 by 8, or with
// im2col=1 of [1][1][8][8][64] in windows of 3 x 3 at steps of 2 with padding 1, 16 pixels.

// Element i of a box of 1024 bytes, as it lies in shared memory.
#define FROM_BOX(BYTES, LOAD)                                          \
  MD_SHARED(shared);                                                   \
  md_u64 *const bar = (md_u64 *)(shared + (BYTES));                    \
  if (md_thread() == 0) {                                              \
    md_bar_init(bar, 1);                                               \
    md_bar_fence();                                                    \
    md_bar_expect(bar, BYTES);                                         \
    LOAD                                                               \
  }                                                                    \
  md_sync();                                                           \
  md_bar_wait(bar, 0);                                                 \
  const int words = (BYTES) / 128;                                     \
  for (int i = 0; i < words; i++)                                      \
    y[md_thread() * words + i] = ((const md_u32 *)shared)[md_thread() * words + i];

//! words=8 shared=1032
MD_KERNEL(32) tma2(MD_TMAP(m), md_u32 *y) {
  FROM_BOX(1024, md_tma2(shared, &m, bar, 0, 8);)
}

// Over the edge: what is not there is 0.
//! words=8 shared=1032
MD_KERNEL(32) tma2_edge(MD_TMAP(m), md_u32 *y) {
  FROM_BOX(1024, md_tma2(shared, &m, bar, 56, -4);)
}

//! words=16 shared=2056 im2col=1
MD_KERNEL(32) tma_im2col(MD_TMAP(m), md_u32 *y) {
  FROM_BOX(2048, md_tma_im2col(shared, &m, bar, 0, -1, -1, 0, 0, 1, 0, 0);)
}

//! words=16 shared=2056 im2col=1
MD_KERNEL(32) tma_im2col_inside(MD_TMAP(m), md_u32 *y) {
  FROM_BOX(2048, md_tma_im2col(shared, &m, bar, 0, 3, 1, 0, 0, 2, 2, 0);)
}

//! words=8 shared=1032
MD_KERNEL(32) bulk(const md_bf16 *x, md_u32 *y) {
  FROM_BOX(1024, md_bulk_load(shared, x + 256, 768, bar); md_bulk_load(shared + 768, x + 8, 256, bar);)
}

// What others have copied, behind an mbarrier.
//! words=4 shared=520
MD_KERNEL(32) cp_arrive(const md_u32 *x, md_u32 *y) {
  MD_SHARED(shared);
  md_u32 *const s = (md_u32 *)shared;
  md_u64 *const bar = (md_u64 *)(shared + 512);
  if (md_thread() == 0) {
    md_bar_init(bar, 32);
    md_bar_fence();
  }
  md_sync();
  md_cp_async(s + 4 * md_thread(), x + 4 * (md_thread() ^ 5), 16);
  md_cp_arrive(bar);
  md_bar_wait(bar, 0);
  for (int i = 0; i < 4; i++) y[md_thread() * 4 + i] = s[4 * (md_thread() ^ 1) + i];
}

// Operands of `rows` by 16 in pieces of 8 rows of 16 bytes.
#define PIECES(s, rows, first)                                                                \
  for (int i = md_thread(); i < (rows) * 16; i += 128)                                        \
    (s)[i % 16 / 8 * 8 * (rows) + i / 16 * 8 + i % 8] = x[(first) + i];

// The same, across: lines of 64 rows, panels of 16 lines.
#define PANELS(s, rows, first)                                                                \
  for (int i = md_thread(); i < (rows) * 16; i += 128)                                        \
    (s)[i / 1024 * 1024 + i % 16 * 64 + (i / 128 % 8 ^ i % 8) * 8 + i / 16 % 8] = x[(first) + i];

#define WGMMA(NUM, MULTIPLY)                                           \
  float c[NUM];                                                        \
  MD_UNROLL for (int i = 0; i < (NUM); i++) c[i] = (float)i * 0.25f;   \
  md_fence_async();                                                    \
  md_sync();                                                           \
  md_wgmma_ready(c, NUM);                                              \
  md_wgmma_fence();                                                    \
  MULTIPLY                                                             \
  md_wgmma_commit();                                                   \
  md_wgmma_wait(0);                                                    \
  md_wgmma_ready(c, NUM);                                              \
  MD_UNROLL for (int i = 0; i < (NUM); i++) y[md_thread() * (NUM) + i] = c[i];

// PUT: PIECES or PANELS
#define FROM_SHARED(PUT, NUM, ROWS, MULTIPLY)                          \
  MD_SHARED(shared);                                                   \
  md_bf16 *const sa = (md_bf16 *)shared, *const sb = sa + 1024;        \
  PUT(sa, 64, 0)                                                       \
  PUT(sb, ROWS, 1024)                                                  \
  WGMMA(NUM, MULTIPLY)

#define FROM_REGISTERS(NUM, ROWS, MULTIPLY)                            \
  MD_SHARED(shared);                                                   \
  md_bf16 *const sb = (md_bf16 *)shared;                               \
  md_u32 a[4];                                                         \
  MD_UNROLL for (int i = 0; i < 4; i++) a[i] = ((const md_u32 *)x)[md_thread() * 4 + i]; \
  PIECES(sb, ROWS, 1024)                                               \
  WGMMA(NUM, MULTIPLY)

//! words=32 shared=4096
MD_KERNEL(128) wgmma64(const md_bf16 *x, float *y) {
  FROM_SHARED(PIECES, 32, 64, md_wgmma64(c, md_desc(sa, 1024, 128), md_desc(sb, 1024, 128));)
}

//! words=64 shared=6144
MD_KERNEL(128) wgmma128(const md_bf16 *x, float *y) {
  FROM_SHARED(PIECES, 64, 128, md_wgmma128(c, md_desc(sa, 1024, 128), md_desc(sb, 2048, 128));)
}

//! words=128 shared=10240
MD_KERNEL(128) wgmma256(const md_bf16 *x, float *y) {
  FROM_SHARED(PIECES, 128, 256, md_wgmma256(c, md_desc(sa, 1024, 128), md_desc(sb, 4096, 128));)
}

//! words=32 shared=2048
MD_KERNEL(128) wgmma64r(const md_bf16 *x, float *y) {
  FROM_REGISTERS(32, 64, md_wgmma64r(c, a, md_desc(sb, 1024, 128));)
}

//! words=64 shared=4096
MD_KERNEL(128) wgmma128r(const md_bf16 *x, float *y) {
  FROM_REGISTERS(64, 128, md_wgmma128r(c, a, md_desc(sb, 2048, 128));)
}

//! words=128 shared=8192
MD_KERNEL(128) wgmma256r(const md_bf16 *x, float *y) {
  FROM_REGISTERS(128, 256, md_wgmma256r(c, a, md_desc(sb, 4096, 128));)
}

//! words=32 shared=4096
MD_KERNEL(128) wgmma64t(const md_bf16 *x, float *y) {
  FROM_SHARED(PANELS, 32, 64, md_wgmma64t(c, md_desc128t(sa, 2048), md_desc128t(sb, 2048));)
}

//! words=64 shared=6144
MD_KERNEL(128) wgmma128t(const md_bf16 *x, float *y) {
  FROM_SHARED(PANELS, 64, 128, md_wgmma128t(c, md_desc128t(sa, 2048), md_desc128t(sb, 2048));)
}

//! words=128 shared=10240
MD_KERNEL(128) wgmma256t(const md_bf16 *x, float *y) {
  FROM_SHARED(PANELS, 128, 256, md_wgmma256t(c, md_desc128t(sa, 2048), md_desc128t(sb, 2048));)
}
