// SPDX-License-Identifier: Apache-2.0
// The device prelude: every name that kernel texts use and C does not have. No header is needed. The
// host prelude of the tests has the same names (a test compares them); names that end in `_` are
// private to a prelude.
#include "codegen/cuda/prelude.h"

#include <pthread.h>

#include "codegen/cuda/cuda.h"

// md_last, asked by one thread of each of `num` blocks: whether it is the last to ask. What a block wrote
// before (and met at a barrier) is seen by the last. The ticket is 0 before and after.
// MD_KERNEL(threads) or, where it matters, MD_KERNEL(threads, blocks of a multiprocessor).
// min and max pass a NaN on. Floats to integers go toward zero and saturate, NaN becomes 0.
static const char base[] =
    "#define MD_PRELUDE_H\n"
    "typedef unsigned char md_u8;\n"
    "typedef unsigned short md_bf16;\n"
    "typedef unsigned int md_u32;\n"
    "typedef long long md_i64;\n"
    "typedef unsigned long long md_u64;\n"
    "typedef struct __align__(16) md_h8 { md_u32 w[4]; } md_h8;\n"
    "typedef struct __align__(16) md_f8 { float x[8]; } md_f8;\n"
    "typedef struct __align__(16) md_i32x8 { int x[8]; } md_i32x8;\n"
    "typedef struct __align__(8) md_u8x8 { md_u8 x[8]; } md_u8x8;\n"
    "#define MD_KERNEL(...) extern \"C\" __global__ void __launch_bounds__(__VA_ARGS__)\n"
    "#define MD_PART static __device__ __forceinline__ void\n"
    "#define MD_DEV_ static __device__ __forceinline__\n"
    "#define MD_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]\n"
    "#define MD_UNROLL _Pragma(\"unroll\")\n"
    "#define MD_RESTRICT __restrict__\n"
    "#define MD_INF __int_as_float(0x7f800000)\n"
    "#define MD_NAN __int_as_float(0x7fc00000)\n"
    "#define md_as_float(bits) __int_as_float(bits)\n"
    "#define md_thread() ((int)threadIdx.x)\n"
    "#define md_block() ((int)blockIdx.x)\n"
    "#define md_lane() (md_thread() % 32)\n"
    "#define md_warp() (md_thread() / 32)\n"
    "#define md_lanes(left) ((left) < 8 ? (left) : 8)\n"
    "#define md_sync() __syncthreads()\n"
    "#define md_sync_warp() __syncwarp()\n"
    "#define md_shfl_xor(x, lanes) __shfl_xor_sync(0xffffffffu, (float)(x), (lanes))\n"
    "#define md_shfl_xor_d(x, lanes) __shfl_xor_sync(0xffffffffu, (double)(x), (lanes))\n"
    "MD_DEV_ int md_last(md_u32 *ticket, int num) {\n"
    "  __threadfence();\n"
    "  const int last = atomicInc(ticket, (md_u32)(num - 1)) == (md_u32)(num - 1);\n"
    "  __threadfence();\n"
    "  return last;\n"
    "}\n"
    "MD_DEV_ float md_bf2f(md_bf16 x) { return __uint_as_float((md_u32)x << 16); }\n"
    // Two floats to the nearest, ties to even; the first in the low half. Turing has no instruction for it.
    "#if __CUDA_ARCH__ >= 800\n"
    "MD_DEV_ md_u32 md_round_2_(float low, float high) {\n"
    "  md_u32 r;\n"
    "  asm(\"cvt.rn.bf16x2.f32 %0, %1, %2;\" : \"=r\"(r) : \"f\"(high), \"f\"(low));\n"
    "  return r;\n"
    "}\n"
    "#else\n"
    "MD_DEV_ md_u32 md_round_1_(float x) {\n"
    "  const md_u32 u = __float_as_uint(x);\n"
    "  return x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;\n"
    "}\n"
    "MD_DEV_ md_u32 md_round_2_(float low, float high) {\n"
    "  return md_round_1_(low) | md_round_1_(high) << 16;\n"
    "}\n"
    "#endif\n"
    // A pair is rounded by a faster unit than one.
    "MD_DEV_ md_bf16 md_f2bf(float x) { return (md_bf16)md_round_2_(x, 0.0f); }\n"
    "MD_DEV_ int md_f2i(float x) { return __float2int_rz(x); }\n"
    "MD_DEV_ md_i64 md_f2l(float x) { return x != x ? 0 : __float2ll_rz(x); }\n"
    "MD_DEV_ int md_f2u8(float x) { return __float2int_rz(fminf(fmaxf(x, 0.0f), 255.0f)); }\n"
    "MD_DEV_ int md_d2i(double x) { return x != x ? 0 : __double2int_rz(x); }\n"
    "MD_DEV_ md_i64 md_d2l(double x) { return x != x ? 0 : __double2ll_rz(x); }\n"
    "MD_DEV_ int md_d2u8(double x) { return __double2int_rz(fmin(fmax(x, 0.0), 255.0)); }\n"
    "MD_DEV_ float md_min(float a, float b) { return a < b || a != a ? a : b; }\n"
    "MD_DEV_ float md_max(float a, float b) { return a > b || a != a ? a : b; }\n"
    "MD_DEV_ double md_maxd(double a, double b) { return a > b || a != a ? a : b; }\n"
    "MD_DEV_ double md_mind(double a, double b) { return a < b || a != a ? a : b; }\n"
    "MD_DEV_ float md_exp(float x) { return expf(x); }\n"
    "MD_DEV_ float md_log(float x) { return logf(x); }\n"
    "MD_DEV_ float md_log1p(float x) { return log1pf(x); }\n"
    "MD_DEV_ float md_sqrt(float x) { return sqrtf(x); }\n"
    "MD_DEV_ float md_rsqrt(float x) { return rsqrtf(x); }\n"
    "MD_DEV_ float md_abs(float x) { return fabsf(x); }\n"
    "MD_DEV_ float md_tanh(float x) { return tanhf(x); }\n"
    "MD_DEV_ float md_floor(float x) { return floorf(x); }\n"
    "MD_DEV_ double md_expd(double x) { return exp(x); }\n"
    "MD_DEV_ double md_logd(double x) { return log(x); }\n"
    "MD_DEV_ double md_log1pd(double x) { return log1p(x); }\n"
    "MD_DEV_ double md_sqrtd(double x) { return sqrt(x); }\n"
    "MD_DEV_ double md_rsqrtd(double x) { return 1.0 / sqrt(x); }\n"
    "MD_DEV_ double md_absd(double x) { return fabs(x); }\n"
    "MD_DEV_ double md_tanhd(double x) { return tanh(x); }\n"
    "MD_DEV_ double md_floord(double x) { return floor(x); }\n"
    "MD_DEV_ float md_random(md_i64 key, md_i64 i) {  // md_hash_01\n"
    "  md_u64 z = (md_u64)key + ((md_u64)i + 1) * 0x9E3779B97F4A7C15ull;\n"
    "  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;\n"
    "  z = (z ^ z >> 27) * 0x94D049BB133111EBull;\n"
    "  return (float)((z ^ z >> 31) >> 40) * (1.0f / 16777216.0f);\n"
    "}\n";

bool md_cuda_multiplies_bf16(md_cuda_arch arch) { return arch.sm >= 80; }
bool md_cuda_has_wgmma(md_cuda_arch arch) { return arch.sm == 90 && arch.suffix == 'a'; }

// The parts are joined at the first call.
static char *parts, *parts_with_wgmma;
static void join(void) {
  md_text t = {0}, all = {0};
  md_put(&t, "%s%s", base, md_cu_prelude_tensor);
  md_put(&all, "%s", t.s);
  md_cu_prelude_hopper(&all);
  parts = t.s;
  parts_with_wgmma = all.s;
}

const char *md_cuda_prelude(md_cuda_arch arch) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, join);
  return md_cuda_has_wgmma(arch) ? parts_with_wgmma : parts;
}
