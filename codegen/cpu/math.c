// SPDX-License-Identifier: Apache-2.0
// Elementary functions as straight-line code on vectors of float or double: no libm, so that host
// code in artefacts stands alone and results do not depend on the machine's library.
// Errors are below 2 ulp; tests/unit/test_cpu.c measures them.
#include "codegen/cpu/emit.h"

#include <math.h>

// What the algorithms need to know of a format.
typedef struct format {
  LLVMTypeRef scalar, ints;
  int lanes;
  int mantissa, bias;        // bits, exponent bias
  double magic;              // 1.5 * 2^mantissa: adding it rounds to an integer
  double exp_lo, exp_hi;     // beyond: 0 and infinity
  int exp_terms, log_terms;  // of the series
} format;

static format format_of(const md_emit *e, md_ir x) {
  format f = {.scalar = md_scalar_type(x), .lanes = md_lanes_of(x)};
  bool is_double = f.scalar == e->f64;
  f.ints = md_lanes_type(is_double ? e->i64 : e->i32, f.lanes);
  f.mantissa = is_double ? 52 : 23;
  f.bias = is_double ? 1023 : 127;
  f.magic = is_double ? 0x1.8p52 : 0x1.8p23;
  f.exp_lo = is_double ? -746 : -104;
  f.exp_hi = is_double ? 710 : 89;
  f.exp_terms = is_double ? 13 : 7;
  f.log_terms = is_double ? 11 : 5;
  return f;
}

static md_ir constant(const md_emit *e, const format *f, double x) {
  return md_const(e, f->scalar, f->lanes, x);
}

static md_ir to_bits(md_emit *e, const format *f, md_ir x) {
  return LLVMBuildBitCast(e->b, x, f->ints, "");
}

static md_ir from_bits(md_emit *e, const format *f, md_ir bits) {
  return LLVMBuildBitCast(e->b, bits, md_lanes_type(f->scalar, f->lanes), "");
}

static md_ir int_const(const md_emit *e, const format *f, double x) {
  return md_const(e, f->scalar == e->f64 ? e->i64 : e->i32, f->lanes, x);
}

// 2^n for n within the exponent's range.
static md_ir power_of_two(md_emit *e, const format *f, md_ir n) {
  md_ir biased = LLVMBuildAdd(e->b, n, int_const(e, f, f->bias), "");
  return from_bits(e, f, LLVMBuildShl(e->b, biased, int_const(e, f, f->mantissa), ""));
}

static md_ir is_equal(md_emit *e, md_ir a, md_ir b) {
  return LLVMBuildFCmp(e->b, LLVMRealOEQ, a, b, "");
}

// e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2; e^r by its Taylor series. ln 2 in two parts,
// the first with so few bits that n * ln2_hi is exact. 2^n in two factors reaches the subnormals.
md_ir md_exp_of(md_emit *e, md_ir x) {
  format f = format_of(e, x);
  bool is_double = f.scalar == e->f64;
  double ln2_hi = is_double ? 0x1.62e42fee00000p-1 : 0x1.62e4p-1;
  double ln2_lo = is_double ? 0x1.a39ef35793c76p-33 : 0x1.7f7d1cf79abcap-20;
  md_ir in = md_fmin(e, md_fmax(e, x, constant(e, &f, f.exp_lo)), constant(e, &f, f.exp_hi));
  md_ir scaled = md_fmul(e, in, constant(e, &f, 1 / M_LN2));
  md_ir shifted = md_fadd(e, scaled, constant(e, &f, f.magic));
  md_ir n =
      LLVMBuildSub(e->b, to_bits(e, &f, shifted), to_bits(e, &f, constant(e, &f, f.magic)), "");
  md_ir whole = md_fsub(e, shifted, constant(e, &f, f.magic));
  md_ir r = md_fsub(e, in, md_fmul(e, whole, constant(e, &f, ln2_hi)));
  r = md_fsub(e, r, md_fmul(e, whole, constant(e, &f, ln2_lo)));
  double factorial = 1;
  for (int i = 2; i <= f.exp_terms; i++) factorial *= i;
  md_ir sum = constant(e, &f, 1 / factorial);
  for (int i = f.exp_terms; i >= 3; i--) {
    factorial /= i;
    sum = md_fma(e, sum, r, constant(e, &f, 1 / factorial));
  }
  sum = md_fma(e, md_fmul(e, sum, r), r, r);  // r + r^2/2 + ...: the 1 joins last
  sum = md_fadd(e, sum, constant(e, &f, 1));
  md_ir half = LLVMBuildAShr(e->b, n, int_const(e, &f, 1), "");
  md_ir rest = LLVMBuildSub(e->b, n, half, "");
  return md_fmul(e, md_fmul(e, sum, power_of_two(e, &f, half)), power_of_two(e, &f, rest));
}

// x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); s = f / (2 + f):
//   ln(1 + f) = f - (f^2/2 - s (f^2/2 + R)),  R = 2 s^2 (1/3 + s^2/5 + ...)
md_ir md_log_of(md_emit *e, md_ir x) {
  format f = format_of(e, x);
  bool is_double = f.scalar == e->f64;
  double smallest = is_double ? 0x1p-1022 : 0x1p-126;
  double lift = is_double ? 0x1p54 : 0x1p25;  // out of the subnormals
  md_ir tiny = md_flt(e, x, constant(e, &f, smallest));
  md_ir in = md_select(e, tiny, md_fmul(e, x, constant(e, &f, lift)), x);
  md_ir bits = to_bits(e, &f, in);
  md_ir base = to_bits(e, &f, constant(e, &f, M_SQRT1_2));
  md_ir places = int_const(e, &f, f.mantissa);
  md_ir k = LLVMBuildAShr(e->b, LLVMBuildSub(e->b, bits, base, ""), places, "");
  md_ir m = from_bits(e, &f, LLVMBuildSub(e->b, bits, LLVMBuildShl(e->b, k, places, ""), ""));
  md_ir g = md_fsub(e, m, constant(e, &f, 1));
  md_ir s = md_fdiv(e, g, md_fadd(e, g, constant(e, &f, 2)));
  md_ir z = md_fmul(e, s, s);
  md_ir sum = constant(e, &f, 2.0 / (2 * f.log_terms + 1));
  for (int i = f.log_terms - 1; i >= 1; i--)
    sum = md_fma(e, sum, z, constant(e, &f, 2.0 / (2 * i + 1)));
  sum = md_fmul(e, sum, z);
  md_ir half_square = md_fmul(e, md_fmul(e, g, constant(e, &f, 0.5)), g);
  md_ir small_k = LLVMBuildIntCast2(e->b, k, md_lanes_type(e->i32, f.lanes), true, "");
  md_ir exponent = md_convert(e, small_k, f.scalar);
  exponent =
      md_fsub(e, exponent, md_select(e, tiny, constant(e, &f, log2(lift)), constant(e, &f, 0)));
  double ln2_hi = is_double ? 0x1.62e42fee00000p-1 : 0x1.62e4p-1;
  double ln2_lo = is_double ? 0x1.a39ef35793c76p-33 : 0x1.7f7d1cf79abcap-20;
  md_ir low =
      md_fma(e, exponent, constant(e, &f, ln2_lo), md_fmul(e, s, md_fadd(e, half_square, sum)));
  md_ir r = md_fadd(e, md_fmul(e, exponent, constant(e, &f, ln2_hi)),
                    md_fsub(e, g, md_fsub(e, half_square, low)));
  md_ir zero = constant(e, &f, 0), inf = constant(e, &f, INFINITY);
  r = md_select(e, is_equal(e, x, inf), inf, r);
  r = md_select(e, LLVMBuildFCmp(e->b, LLVMRealUGE, x, zero, ""), r, constant(e, &f, NAN));
  r = md_select(e, LLVMBuildFCmp(e->b, LLVMRealUNO, x, x, ""), x, r);
  return md_select(e, is_equal(e, x, zero), constant(e, &f, -INFINITY), r);
}

// ln(1 + x) = ln(u) + (x - (u - 1)) / u, u = 1 + x as rounded.
md_ir md_log1p_of(md_emit *e, md_ir x) {
  format f = format_of(e, x);
  md_ir one = constant(e, &f, 1), u = md_fadd(e, x, one);
  md_ir lost = md_fsub(e, x, md_fsub(e, u, one));
  md_ir r = md_log_of(e, u);
  md_ir finite = LLVMBuildAnd(e->b, md_flt(e, u, constant(e, &f, INFINITY)),
                              md_flt(e, constant(e, &f, 0), u), "");
  return md_select(e, finite, md_fadd(e, r, md_fdiv(e, lost, u)), r);
}

// Near 0 the rational approximation of Cephes (S. Moshier), elsewhere 1 - 2 / (e^2|x| + 1).
md_ir md_tanh_of(md_emit *e, md_ir x) {
  format f = format_of(e, x);
  md_ir z = md_fmul(e, x, x), one = constant(e, &f, 1), two = constant(e, &f, 2);
  md_ir p = md_fma(e, z, constant(e, &f, -9.64399179425052238628e-1),
                   constant(e, &f, -9.92877231001918586564e1));
  p = md_fma(e, p, z, constant(e, &f, -1.61468768441708447952e3));
  md_ir q = md_fadd(e, z, constant(e, &f, 1.12811678491632931402e2));
  q = md_fma(e, q, z, constant(e, &f, 2.23548839060100448583e3));
  q = md_fma(e, q, z, constant(e, &f, 4.84406305325125486048e3));
  md_ir near = md_fma(e, md_fmul(e, x, z), md_fdiv(e, p, q), x);
  md_ir size = md_intrinsic(e, "llvm.fabs", &x, 1, LLVMTypeOf(x));
  md_ir power = md_exp_of(e, md_fmul(e, size, two));
  md_ir far = md_fsub(e, one, md_fdiv(e, two, md_fadd(e, power, one)));
  md_ir with_sign[] = {far, x};
  far = md_intrinsic(e, "llvm.copysign", with_sign, 2, LLVMTypeOf(x));
  return md_select(e, md_flt(e, size, constant(e, &f, 0.625)), near, far);
}

md_ir md_sqrt_of(md_emit *e, md_ir x) { return md_intrinsic(e, "llvm.sqrt", &x, 1, LLVMTypeOf(x)); }

// Adding 2^mantissa rounds to a whole number; targets without a rounding instruction would call
// libm. From there on every number is whole.
md_ir md_floor_of(md_emit *e, md_ir x) {
  if (e->cpu->rounding) return md_intrinsic(e, "llvm.floor", &x, 1, LLVMTypeOf(x));
  format f = format_of(e, x);
  md_ir big = constant(e, &f, ldexp(1, f.mantissa));
  md_ir size = md_intrinsic(e, "llvm.fabs", &x, 1, LLVMTypeOf(x));
  md_ir near = md_fsub(e, md_fadd(e, size, big), big);
  md_ir with_sign[] = {near, x};
  near = md_intrinsic(e, "llvm.copysign", with_sign, 2, LLVMTypeOf(x));
  md_ir down = md_fsub(e, near, constant(e, &f, 1));
  md_ir r = md_select(e, md_flt(e, x, near), down, near);
  return md_select(e, md_flt(e, size, big), r, x);
}

// md_hash_at of base/hash.c: splitmix64 at position index + 1; its top 24 bits.
md_ir md_random_of(md_emit *e, md_ir key, md_ir index, LLVMTypeRef scalar) {
  int lanes = md_lanes_of(index);
  LLVMTypeRef type = LLVMTypeOf(index);
  const uint64_t step = 0x9E3779B97F4A7C15u;
  const uint64_t factor[] = {0xBF58476D1CE4E5B9u, 0x94D049BB133111EBu};
  const unsigned shift[] = {30, 27, 31};
  md_ir at = LLVMBuildAdd(e->b, index, md_splat(e, md_i64(e, 1), lanes), "");
  md_ir z = LLVMBuildMul(e->b, at, md_splat(e, LLVMConstInt(e->i64, step, false), lanes), "");
  z = LLVMBuildAdd(e->b, key, z, "");
  for (int i = 0; i < 3; i++) {
    md_ir by = md_splat(e, md_i64(e, shift[i]), lanes);
    z = LLVMBuildXor(e->b, z, LLVMBuildLShr(e->b, z, by, ""), "");
    if (i == 2) break;
    z = LLVMBuildMul(e->b, z, md_splat(e, LLVMConstInt(e->i64, factor[i], false), lanes), "");
  }
  z = LLVMBuildLShr(e->b, z, md_splat(e, md_i64(e, 40), lanes), "");
  MD_ASSERT(LLVMTypeOf(z) == type, "random: the index must be i64");
  z = LLVMBuildTrunc(e->b, z, md_lanes_type(e->i32, lanes), "random");
  return md_fmul(e, md_convert(e, z, scalar), md_const(e, scalar, lanes, 0x1p-24));
}
