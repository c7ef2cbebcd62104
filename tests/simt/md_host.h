// SPDX-License-Identifier: Apache-2.0
// The host prelude: the names of the device prelude (codegen/cuda/prelude.c), served by the fiber
// machine. It is put in front of a kernel text when the host's compiler compiles it. Names that end
// in `_` are private.
#ifndef MD_PRELUDE_H
#define MD_PRELUDE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef unsigned char md_u8;
typedef unsigned short md_bf16;
typedef unsigned int md_u32;
typedef long long md_i64;
typedef unsigned long long md_u64;
typedef struct md_h8 {
  md_u32 w[4];
} __attribute__((aligned(16))) md_h8;
typedef struct md_f8 {
  float x[8];
} __attribute__((aligned(16))) md_f8;
typedef struct md_i32x8 {
  int x[8];
} __attribute__((aligned(16))) md_i32x8;
typedef struct md_u8x8 {
  md_u8 x[8];
} __attribute__((aligned(8))) md_u8x8;
typedef struct md_tmap {
  unsigned char x[128];
} __attribute__((aligned(64))) md_tmap;

#define MD_KERNEL(...) __attribute__((noinline)) void
#define MD_PART static void
#define MD_DEV_ static inline
#define MD_SHARED(name) unsigned char *const name = simt_shared_()
#define MD_TMAP(name) const md_tmap name
#define MD_UNROLL
#define MD_NO_UNROLL
#define MD_RESTRICT restrict
#define MD_INF INFINITY
#define MD_NAN NAN

unsigned char *simt_shared_(void);
int simt_thread_(void);
int simt_block_(void);
void simt_sync_(int line);
double simt_shfl_xor_(double x, int lanes, int line);
void simt_sync_warp_(int line);
void simt_load_(void *to, const void *p, int bytes, int align, int line);
void simt_store_(void *p, const void *from, int bytes, int align, int line);
void simt_ldmatrix4_(md_u32 *r, const void *row, bool trans, int line);
void simt_mma_(float *c, const md_u32 *a, const md_u32 *b, int line);
void simt_cp_async_(void *shared, const void *global, int bytes, int line);
void simt_cp_commit_(void);
void simt_cp_wait_(int groups);
int simt_last_(md_u32 *ticket, int num, int line);
#define md_last(ticket, num) simt_last_((ticket), (num), __LINE__)
#define md_thread() simt_thread_()
#define md_lane() (md_thread() % 32)
#define md_warp() (md_thread() / 32)
#define md_lanes(left) ((left) < 8 ? (left) : 8)
#define md_block() simt_block_()
#define md_sync() simt_sync_(__LINE__)
#define md_sync_warp() simt_sync_warp_(__LINE__)
#define md_shfl_xor(x, lanes) ((float)simt_shfl_xor_((double)(x), (lanes), __LINE__))
#define md_shfl_xor_d(x, lanes) simt_shfl_xor_((x), (lanes), __LINE__)

#define md_ld_h8(p, lanes) simt_ld_h8_((p), (lanes), __LINE__)
#define md_ld_f8(p, lanes) simt_ld_f8_((p), (lanes), __LINE__)
#define md_ld_halves(p, apart, lanes) simt_ld_halves_((p), (apart), (lanes), __LINE__)
#define md_ld_i32x8(p, lanes) simt_ld_i32x8_((p), (lanes), __LINE__)
#define md_ld_u8x8(p, lanes) simt_ld_u8x8_((p), (lanes), __LINE__)
#define md_st_u8x8(p, v) simt_st_u8x8_((p), (v), __LINE__)
#define md_st_h8(p, v) simt_st_h8_((p), (v), __LINE__)
#define md_st_f8(p, v) simt_st_f8_((p), (v), __LINE__)
#define md_st_i32x8(p, v) simt_st_i32x8_((p), (v), __LINE__)
#define md_ldmatrix4(r, row) simt_ldmatrix4_((r), (row), false, __LINE__)
#define md_ldmatrix4t(r, row) simt_ldmatrix4_((r), (row), true, __LINE__)
#define md_mma(c, a, b) simt_mma_((c), (a), (b), __LINE__)
#define md_cp_async(shared, global, bytes) simt_cp_async_((shared), (global), (bytes), __LINE__)
#define md_cp_commit() simt_cp_commit_()
#define md_cp_wait(groups) simt_cp_wait_(groups)

MD_DEV_ md_h8 simt_ld_h8_(const md_bf16 *p, int lanes, int line) {
  md_h8 v = {{0}};
  simt_load_(v.w, p, lanes * 2, 16, line);
  return v;
}
MD_DEV_ md_f8 simt_ld_f8_(const float *p, int lanes, int line) {
  md_f8 v = {{0}};
  simt_load_(v.x, p, lanes * 4, 16, line);
  return v;
}
MD_DEV_ md_f8 simt_ld_halves_(const float *p, int apart, int lanes, int line) {
  md_f8 v = {{0}};
  simt_load_(v.x, p, (lanes < 4 ? lanes : 4) * 4, 16, line);
  if (lanes > 4) simt_load_(v.x + 4, p + apart, (lanes - 4) * 4, 16, line);
  return v;
}
MD_DEV_ md_i32x8 simt_ld_i32x8_(const int *p, int lanes, int line) {
  md_i32x8 v = {{0}};
  simt_load_(v.x, p, lanes * 4, 16, line);
  return v;
}
MD_DEV_ md_u8x8 simt_ld_u8x8_(const md_u8 *p, int lanes, int line) {
  md_u8x8 v = {{0}};
  simt_load_(v.x, p, lanes, 8, line);
  return v;
}
MD_DEV_ void simt_st_u8x8_(md_u8 *p, md_u8x8 v, int line) { simt_store_(p, v.x, 8, 8, line); }
MD_DEV_ void simt_st_h8_(md_bf16 *p, md_h8 v, int line) { simt_store_(p, v.w, 16, 16, line); }
MD_DEV_ void simt_st_f8_(float *p, md_f8 v, int line) { simt_store_(p, v.x, 32, 16, line); }
MD_DEV_ void simt_st_i32x8_(int *p, md_i32x8 v, int line) { simt_store_(p, v.x, 32, 16, line); }
MD_DEV_ float md_as_float(int bits) {
  float f;
  memcpy(&f, &bits, sizeof f);
  return f;
}
MD_DEV_ float md_bf2f(md_bf16 x) {
  uint32_t u = (uint32_t)x << 16;
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}
MD_DEV_ md_bf16 md_f2bf(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  if (x != x) return 0x7fff;
  return (md_bf16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
MD_DEV_ float md_h2f(md_h8 v, int lane) {
  return md_bf2f((md_bf16)(v.w[lane / 2] >> lane % 2 * 16));
}
MD_DEV_ md_h8 md_round_h8(md_f8 v) {
  md_h8 r;
  for (int i = 0; i < 4; i++)
    r.w[i] = (md_u32)md_f2bf(v.x[2 * i]) | (md_u32)md_f2bf(v.x[2 * i + 1]) << 16;
  return r;
}
MD_DEV_ int md_f2i(float x) {
  return x != x ? 0 : x >= 0x1p31f ? INT32_MAX : x <= -0x1p31f ? INT32_MIN : (int)x;
}
MD_DEV_ md_i64 md_f2l(float x) {
  return x != x ? 0 : x >= 0x1p63f ? INT64_MAX : x <= -0x1p63f ? INT64_MIN : (md_i64)x;
}
MD_DEV_ int md_f2u8(float x) { return (int)fminf(fmaxf(x, 0.0f), 255.0f); }
MD_DEV_ int md_d2i(double x) {
  return x != x ? 0 : x >= 0x1p31 ? INT32_MAX : x <= -0x1p31 ? INT32_MIN : (int)x;
}
MD_DEV_ md_i64 md_d2l(double x) {
  return x != x ? 0 : x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : (md_i64)x;
}
MD_DEV_ int md_d2u8(double x) { return (int)fmin(fmax(x, 0.0), 255.0); }
MD_DEV_ float md_min(float a, float b) { return a < b || a != a ? a : b; }
MD_DEV_ float md_max(float a, float b) { return a > b || a != a ? a : b; }
MD_DEV_ double md_maxd(double a, double b) { return a > b || a != a ? a : b; }
MD_DEV_ double md_mind(double a, double b) { return a < b || a != a ? a : b; }
MD_DEV_ float md_exp(float x) { return expf(x); }
MD_DEV_ float md_log(float x) { return logf(x); }
MD_DEV_ float md_log1p(float x) { return log1pf(x); }
MD_DEV_ float md_sqrt(float x) { return sqrtf(x); }
MD_DEV_ float md_rsqrt(float x) { return 1.0f / sqrtf(x); }
MD_DEV_ float md_abs(float x) { return fabsf(x); }
MD_DEV_ float md_tanh(float x) { return tanhf(x); }
MD_DEV_ float md_floor(float x) { return floorf(x); }
MD_DEV_ double md_expd(double x) { return exp(x); }
MD_DEV_ double md_logd(double x) { return log(x); }
MD_DEV_ double md_log1pd(double x) { return log1p(x); }
MD_DEV_ double md_sqrtd(double x) { return sqrt(x); }
MD_DEV_ double md_rsqrtd(double x) { return 1.0 / sqrt(x); }
MD_DEV_ double md_absd(double x) { return fabs(x); }
MD_DEV_ double md_tanhd(double x) { return tanh(x); }
MD_DEV_ double md_floord(double x) { return floor(x); }
MD_DEV_ float md_random(md_i64 key, md_i64 i) {
  md_u64 z = (md_u64)key + ((md_u64)i + 1) * 0x9E3779B97F4A7C15ull;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ z >> 27) * 0x94D049BB133111EBull;
  return (float)((z ^ z >> 31) >> 40) * (1.0f / 16777216.0f);
}

// --- sm_90a

void simt_sync_part_(int id, int threads, int line);
void simt_bar_init_(md_u64 *bar, int count, int line);
void simt_bar_fence_(void);
void simt_bar_arrive_(md_u64 *bar, int line);
void simt_bar_expect_(md_u64 *bar, int bytes, int line);
void simt_cp_arrive_(md_u64 *bar, int line);
void simt_bar_wait_(md_u64 *bar, int parity, int line);
void simt_tma_(void *shared, const md_tmap *map, md_u64 *bar, const int *at, const int *offset,
               int line);
void simt_tmap_acquire_(const void *map, int line);
void simt_bulk_(void *shared, const void *p, int bytes, md_u64 *bar, int line);
void simt_wgmma_(int n, float *c, const md_u32 *a, md_u64 da, md_u64 db, bool across, int line);
void simt_wgmma_fence_(int line);
void simt_wgmma_commit_(int line);
void simt_wgmma_wait_(int groups, int line);
void simt_wgmma_ready_(const float *c, int line);
void simt_fence_async_(void);
void simt_regs_(int num, int line);
md_u32 simt_shared_address_(const void *p);
#define md_sync_part(id, threads) simt_sync_part_((id), (threads), __LINE__)
#define md_bar_init(bar, count) simt_bar_init_((bar), (count), __LINE__)
#define md_bar_fence() simt_bar_fence_()
#define md_bar_arrive(bar) simt_bar_arrive_((bar), __LINE__)
#define md_cp_arrive(bar) simt_cp_arrive_((bar), __LINE__)
#define md_bar_expect(bar, bytes) simt_bar_expect_((bar), (bytes), __LINE__)
#define md_bar_wait(bar, parity) simt_bar_wait_((bar), (parity), __LINE__)
#define md_fence_async() simt_fence_async_()
#define md_bulk_load(shared, p, bytes, bar) simt_bulk_((shared), (p), (bytes), (bar), __LINE__)
#define md_tmap_acquire(map) simt_tmap_acquire_((map), __LINE__)
#define md_tma2(shared, map, bar, x, y) \
  simt_tma_((shared), (map), (bar), (const int[5]){(x), (y)}, NULL, __LINE__)
#define md_tma_im2col(shared, map, bar, c, w, h, d, n, ow, oh, od)           \
  simt_tma_((shared), (map), (bar), (const int[5]){(c), (w), (h), (d), (n)}, \
            (const int[3]){(ow), (oh), (od)}, __LINE__)
#define md_wgmma_fence() simt_wgmma_fence_(__LINE__)
#define md_wgmma_commit() simt_wgmma_commit_(__LINE__)
#define md_wgmma_wait(groups) simt_wgmma_wait_((groups), __LINE__)
#define md_wgmma_ready(c, num) simt_wgmma_ready_((c), __LINE__)
#define md_wgmma64(c, a, b) simt_wgmma_(64, (c), NULL, (a), (b), false, __LINE__)
#define md_wgmma128(c, a, b) simt_wgmma_(128, (c), NULL, (a), (b), false, __LINE__)
#define md_wgmma256(c, a, b) simt_wgmma_(256, (c), NULL, (a), (b), false, __LINE__)
#define md_wgmma64r(c, a, b) simt_wgmma_(64, (c), (a), 0, (b), false, __LINE__)
#define md_wgmma128r(c, a, b) simt_wgmma_(128, (c), (a), 0, (b), false, __LINE__)
#define md_wgmma256r(c, a, b) simt_wgmma_(256, (c), (a), 0, (b), false, __LINE__)
#define md_wgmma64t(c, a, b) simt_wgmma_(64, (c), NULL, (a), (b), true, __LINE__)
#define md_wgmma128t(c, a, b) simt_wgmma_(128, (c), NULL, (a), (b), true, __LINE__)
#define md_wgmma256t(c, a, b) simt_wgmma_(256, (c), NULL, (a), (b), true, __LINE__)
#define md_regs_inc(num) simt_regs_((num), __LINE__)
#define md_regs_dec(num) simt_regs_((num), __LINE__)

MD_DEV_ md_u64 md_desc128(const void *p) {
  return (md_u64)(simt_shared_address_(p) >> 4 & 0x3fff) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}
MD_DEV_ md_u64 md_desc128t(const void *p, int lead) {
  return (md_u64)(simt_shared_address_(p) >> 4 & 0x3fff) | (md_u64)(lead >> 4) << 16 | 64ull << 32 |
         1ull << 62;
}
MD_DEV_ md_u64 md_desc(const void *p, int lead, int stride) {
  return (md_u64)(simt_shared_address_(p) >> 4 & 0x3fff) | (md_u64)(lead >> 4) << 16 |
         (md_u64)(stride >> 4) << 32;
}

#endif
