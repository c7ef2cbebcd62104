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
  md_bf16 x[8];
} __attribute__((aligned(16))) md_h8;
typedef struct md_f8 {
  float x[8];
} __attribute__((aligned(16))) md_f8;

#define MD_KERNEL(threads) __attribute__((noinline)) void
#define MD_DEV_ static inline
#define MD_SHARED(name) unsigned char *const name = simt_shared_()
#define MD_UNROLL
#define MD_RESTRICT restrict
#define MD_INF INFINITY
#define MD_NAN NAN

unsigned char *simt_shared_(void);
int simt_thread_(void);
int simt_block_(void);
void simt_sync_(int line);
double simt_shfl_xor_(double x, int lanes, int line);
void simt_sync_warp_(int line);
void simt_load_(void *to, const void *p, int bytes, int line);
void simt_store_(void *p, const void *from, int bytes, int line);
void simt_ldmatrix4_(md_u32 *r, const void *row, bool trans, int line);
void simt_mma_(float *c, const md_u32 *a, const md_u32 *b, int line);
void simt_cp_async_(void *shared, const void *global, bool valid, int line);
void simt_cp_commit_(void);
void simt_cp_wait_(int groups);
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
#define md_st_h8(p, v) simt_st_h8_((p), (v), __LINE__)
#define md_st_f8(p, v) simt_st_f8_((p), (v), __LINE__)
#define md_ldmatrix4(r, row) simt_ldmatrix4_((r), (row), false, __LINE__)
#define md_ldmatrix4t(r, row) simt_ldmatrix4_((r), (row), true, __LINE__)
#define md_mma(c, a, b) simt_mma_((c), (a), (b), __LINE__)
#define md_cp_async16(shared, global, valid) simt_cp_async_((shared), (global), (valid), __LINE__)
#define md_cp_commit() simt_cp_commit_()
#define md_cp_wait(groups) simt_cp_wait_(groups)

MD_DEV_ md_h8 simt_ld_h8_(const md_bf16 *p, int lanes, int line) {
  md_h8 v = {{0}};
  simt_load_(v.x, p, lanes * 2, line);
  return v;
}
MD_DEV_ md_f8 simt_ld_f8_(const float *p, int lanes, int line) {
  md_f8 v = {{0}};
  simt_load_(v.x, p, lanes * 4, line);
  return v;
}
MD_DEV_ void simt_st_h8_(md_bf16 *p, md_h8 v, int line) { simt_store_(p, v.x, 16, line); }
MD_DEV_ void simt_st_f8_(float *p, md_f8 v, int line) { simt_store_(p, v.x, 32, line); }
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

#endif
