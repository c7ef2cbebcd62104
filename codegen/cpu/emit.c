// SPDX-License-Identifier: Apache-2.0
// Arithmetic on scalars and vectors alike. The builder folds constants; what it does not fold (x +
// 0, x * 1) is folded here, so that the shapes of a region disappear from its code.
#include "codegen/cpu/emit.h"

#include <math.h>
#include <string.h>

md_emit md_emit_open(const md_cpu *cpu, const char *name) {
  md_emit e = {.ctx = LLVMContextCreate(), .cpu = cpu};
  e.mod = LLVMModuleCreateWithNameInContext(name, e.ctx);
  e.b = LLVMCreateBuilderInContext(e.ctx);
  e.i1 = LLVMInt1TypeInContext(e.ctx);
  e.i8 = LLVMInt8TypeInContext(e.ctx);
  e.i16 = LLVMInt16TypeInContext(e.ctx);
  e.i32 = LLVMInt32TypeInContext(e.ctx);
  e.i64 = LLVMInt64TypeInContext(e.ctx);
  e.f32 = LLVMFloatTypeInContext(e.ctx);
  e.f64 = LLVMDoubleTypeInContext(e.ctx);
  e.ptr = LLVMPointerTypeInContext(e.ctx, 0);
  e.void_ = LLVMVoidTypeInContext(e.ctx);
  e.invariant_kind = LLVMGetMDKindIDInContext(e.ctx, "invariant.load", strlen("invariant.load"));
  e.nontemporal_kind = LLVMGetMDKindIDInContext(e.ctx, "nontemporal", strlen("nontemporal"));
  return e;
}

void md_emit_close(md_emit *e) {
  LLVMDisposeBuilder(e->b);
  LLVMDisposeModule(e->mod);
  LLVMContextDispose(e->ctx);
}

LLVMTypeRef md_compute_type(const md_emit *e, md_dtype d) {
  switch (d) {
  case MD_F64: return e->f64;
  case MD_I64: return e->i64;
  case MD_I32:
  case MD_U8:
  case MD_BOOL: return e->i32;
  default: return e->f32;
  }
}

LLVMTypeRef md_memory_type(const md_emit *e, md_dtype d) {
  switch (d) {
  case MD_BF16: return e->i16;
  case MD_U8:
  case MD_BOOL: return e->i8;
  default: return md_compute_type(e, d);
  }
}

LLVMTypeRef md_lanes_type(LLVMTypeRef scalar, int lanes) {
  return lanes == 1 ? scalar : LLVMVectorType(scalar, (unsigned)lanes);
}

static bool is_vector(md_ir v) { return LLVMGetTypeKind(LLVMTypeOf(v)) == LLVMVectorTypeKind; }

int md_lanes_of(md_ir v) { return is_vector(v) ? (int)LLVMGetVectorSize(LLVMTypeOf(v)) : 1; }

LLVMTypeRef md_scalar_type(md_ir v) {
  return is_vector(v) ? LLVMGetElementType(LLVMTypeOf(v)) : LLVMTypeOf(v);
}

static bool is_float(LLVMTypeRef scalar) { return LLVMGetTypeKind(scalar) != LLVMIntegerTypeKind; }

// --- constants

md_ir md_i64(const md_emit *e, int64_t x) { return LLVMConstInt(e->i64, (uint64_t)x, true); }

md_ir md_i32(const md_emit *e, int32_t x) {
  return LLVMConstInt(e->i32, (unsigned long long)x, true);
}

static md_ir splat_const(md_ir scalar, int lanes) {
  if (lanes == 1) return scalar;
  md_ir lane[64];
  MD_ASSERT(lanes <= MD_COUNT(lane), "%d lanes", lanes);
  for (int i = 0; i < lanes; i++) lane[i] = scalar;
  return LLVMConstVector(lane, (unsigned)lanes);
}

// Toward zero, saturating; NaN gives 0: as llvm.fptosi.sat does.
static int64_t whole_of(double x) {
  if (isnan(x)) return 0;
  if (x >= 0x1p63) return INT64_MAX;
  return x < -0x1p63 ? INT64_MIN : (int64_t)x;
}

md_ir md_const(const md_emit *e, LLVMTypeRef scalar, int lanes, double x) {
  (void)e;
  md_ir c = is_float(scalar) ? LLVMConstReal(scalar, x)
                             : LLVMConstInt(scalar, (uint64_t)whole_of(x), true);
  return splat_const(c, lanes);
}

md_ir md_const_like(const md_emit *e, md_ir v, double x) {
  return md_const(e, md_scalar_type(v), md_lanes_of(v), x);
}

static md_ir int_like(md_ir v, int64_t x) {
  return splat_const(LLVMConstInt(md_scalar_type(v), (uint64_t)x, true), md_lanes_of(v));
}

md_ir md_zero(LLVMTypeRef type) { return LLVMConstNull(type); }

md_ir md_splat(md_emit *e, md_ir scalar, int lanes) {
  if (lanes == 1) return scalar;
  if (LLVMIsConstant(scalar)) return splat_const(scalar, lanes);
  LLVMTypeRef type = LLVMVectorType(LLVMTypeOf(scalar), (unsigned)lanes);
  md_ir v = LLVMBuildInsertElement(e->b, LLVMGetPoison(type), scalar, md_i32(e, 0), "");
  return LLVMBuildShuffleVector(e->b, v, LLVMGetPoison(type),
                                LLVMConstNull(LLVMVectorType(e->i32, (unsigned)lanes)), "splat");
}

md_ir md_iota(const md_emit *e, LLVMTypeRef scalar, int lanes, int64_t start, int64_t step) {
  if (lanes == 1) return md_const(e, scalar, 1, (double)start);
  md_ir lane[64];
  MD_ASSERT(lanes <= MD_COUNT(lane), "%d lanes", lanes);
  for (int i = 0; i < lanes; i++) lane[i] = md_const(e, scalar, 1, (double)(start + i * step));
  return LLVMConstVector(lane, (unsigned)lanes);
}

md_ir md_get_lane(md_emit *e, md_ir v, int lane) {
  return is_vector(v) ? LLVMBuildExtractElement(e->b, v, md_i32(e, lane), "lane") : v;
}

md_ir md_set_lane(md_emit *e, md_ir v, int lane, md_ir x) {
  return is_vector(v) ? LLVMBuildInsertElement(e->b, v, x, md_i32(e, lane), "lane") : x;
}

md_ir md_shuffle(md_emit *e, md_ir a, md_ir b, const int *lane, int lanes) {
  md_ir at[64];
  MD_ASSERT(lanes <= MD_COUNT(at), "%d lanes", lanes);
  for (int i = 0; i < lanes; i++) at[i] = md_i32(e, lane[i]);
  if (!b) b = LLVMGetPoison(LLVMTypeOf(a));
  return LLVMBuildShuffleVector(e->b, a, b, LLVMConstVector(at, (unsigned)lanes), "shuffle");
}

// log2(lanes) rounds, each interleaving vectors half the lanes apart.
void md_turn_lanes(md_emit *e, md_ir *v, int lanes) {
  int low[64], high[64];
  for (int i = 0; i < lanes; i++) {
    low[i] = i / 2 + (i % 2) * lanes;
    high[i] = low[i] + lanes / 2;
  }
  for (int round = 1; round < lanes; round *= 2) {
    md_ir w[64];
    for (int i = 0; i < lanes / 2; i++) {
      w[2 * i] = md_shuffle(e, v[i], v[i + lanes / 2], low, lanes);
      w[2 * i + 1] = md_shuffle(e, v[i], v[i + lanes / 2], high, lanes);
    }
    for (int i = 0; i < lanes; i++) v[i] = w[i];
  }
}

// --- index arithmetic

static bool const_of(md_ir v, int64_t *x) {
  if (!LLVMIsAConstantInt(v)) return false;
  *x = LLVMConstIntGetSExtValue(v);
  return true;
}

md_ir md_iadd(md_emit *e, md_ir a, md_ir b) {
  int64_t x;
  if (const_of(a, &x) && x == 0) return b;
  if (const_of(b, &x) && x == 0) return a;
  return LLVMBuildNSWAdd(e->b, a, b, "");
}

md_ir md_isub(md_emit *e, md_ir a, md_ir b) {
  int64_t x;
  if (const_of(b, &x) && x == 0) return a;
  return LLVMBuildNSWSub(e->b, a, b, "");
}

md_ir md_imul(md_emit *e, md_ir a, md_ir b) {
  int64_t x;
  if (const_of(a, &x) && (x == 0 || x == 1)) return x ? b : a;
  if (const_of(b, &x) && (x == 0 || x == 1)) return x ? a : b;
  return LLVMBuildNSWMul(e->b, a, b, "");
}

md_ir md_iaddc(md_emit *e, md_ir a, int64_t b) { return b ? md_iadd(e, a, int_like(a, b)) : a; }

md_ir md_imulc(md_emit *e, md_ir a, int64_t b) {
  return b == 1 ? a : md_imul(e, a, int_like(a, b));
}

md_ir md_idivc(md_emit *e, md_ir a, int64_t b) {
  return b == 1 ? a : LLVMBuildUDiv(e->b, a, int_like(a, b), "");
}

md_ir md_imodc(md_emit *e, md_ir a, int64_t b) {
  return b == 1 ? LLVMConstNull(LLVMTypeOf(a)) : LLVMBuildURem(e->b, a, int_like(a, b), "");
}

md_ir md_ilt(md_emit *e, md_ir a, md_ir b) { return LLVMBuildICmp(e->b, LLVMIntSLT, a, b, ""); }
md_ir md_ieq(md_emit *e, md_ir a, md_ir b) { return LLVMBuildICmp(e->b, LLVMIntEQ, a, b, ""); }
md_ir md_imin(md_emit *e, md_ir a, md_ir b) { return md_select(e, md_ilt(e, a, b), a, b); }
md_ir md_imax(md_emit *e, md_ir a, md_ir b) { return md_select(e, md_ilt(e, a, b), b, a); }

// --- floats

md_ir md_fadd(md_emit *e, md_ir a, md_ir b) { return LLVMBuildFAdd(e->b, a, b, ""); }
md_ir md_fsub(md_emit *e, md_ir a, md_ir b) { return LLVMBuildFSub(e->b, a, b, ""); }
md_ir md_fmul(md_emit *e, md_ir a, md_ir b) { return LLVMBuildFMul(e->b, a, b, ""); }
md_ir md_fdiv(md_emit *e, md_ir a, md_ir b) { return LLVMBuildFDiv(e->b, a, b, ""); }
md_ir md_fneg(md_emit *e, md_ir a) { return LLVMBuildFNeg(e->b, a, ""); }

md_ir md_fma(md_emit *e, md_ir a, md_ir b, md_ir c) {
  if (!e->cpu->fma) return md_fadd(e, md_fmul(e, a, b), c);
  md_ir arg[] = {a, b, c};
  return md_intrinsic(e, "llvm.fma", arg, 3, LLVMTypeOf(a));
}

md_ir md_flt(md_emit *e, md_ir a, md_ir b) { return LLVMBuildFCmp(e->b, LLVMRealOLT, a, b, ""); }

// A NaN on either side wins, as in the interpreter. With a constant on the right one test does it.
static md_ir extreme(md_emit *e, md_ir a, md_ir b, LLVMRealPredicate unordered_better) {
  md_ir take = LLVMBuildFCmp(e->b, unordered_better, a, b, "");
  md_ir r = md_select(e, take, a, b);
  if (LLVMIsConstant(b)) return r;
  return md_select(e, LLVMBuildFCmp(e->b, LLVMRealUNO, b, b, ""), b, r);
}

md_ir md_fmax(md_emit *e, md_ir a, md_ir b) { return extreme(e, a, b, LLVMRealUGT); }
md_ir md_fmin(md_emit *e, md_ir a, md_ir b) { return extreme(e, a, b, LLVMRealULT); }

md_ir md_select(md_emit *e, md_ir cond, md_ir a, md_ir b) {
  return LLVMBuildSelect(e->b, cond, a, b, "");
}

md_ir md_intrinsic(md_emit *e, const char *name, md_ir *arg, int num, LLVMTypeRef overload) {
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  MD_ASSERT(id != 0, "LLVM has no intrinsic %s", name);
  size_t num_types = overload ? 1 : 0;
  md_ir fn = LLVMGetIntrinsicDeclaration(e->mod, id, &overload, num_types);
  LLVMTypeRef type = LLVMIntrinsicGetType(e->ctx, id, &overload, num_types);
  return LLVMBuildCall2(e->b, type, fn, arg, (unsigned)num, "");
}

// Saturating conversion: the plain one is undefined outside of the target's range.
static md_ir to_int(md_emit *e, md_ir v, LLVMTypeRef to) {
  LLVMTypeRef types[] = {to, LLVMTypeOf(v)};
  const char *name = "llvm.fptosi.sat";
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  md_ir fn = LLVMGetIntrinsicDeclaration(e->mod, id, types, 2);
  return LLVMBuildCall2(e->b, LLVMIntrinsicGetType(e->ctx, id, types, 2), fn, &v, 1, "");
}

md_ir md_convert(md_emit *e, md_ir v, LLVMTypeRef scalar) {
  LLVMTypeRef from = md_scalar_type(v);
  if (from == scalar) return v;
  LLVMTypeRef to = md_lanes_type(scalar, md_lanes_of(v));
  bool from_float = is_float(from), to_float = is_float(scalar);
  if (from_float && to_float) return LLVMBuildFPCast(e->b, v, to, "");
  if (from_float) return to_int(e, v, to);
  if (to_float) {
    return from == e->i1 ? LLVMBuildUIToFP(e->b, v, to, "") : LLVMBuildSIToFP(e->b, v, to, "");
  }
  return LLVMBuildIntCast2(e->b, v, to, from != e->i1, "");
}

// Halves are joined until one lane is left: the same tree for every target with these lanes.
static md_ir fold_lanes(md_emit *e, md_ir v, md_ir (*join)(md_emit *, md_ir, md_ir)) {
  for (int n = md_lanes_of(v) / 2; n >= 1; n /= 2) {
    int low[32], high[32];
    for (int i = 0; i < n; i++) low[i] = i, high[i] = n + i;
    if (n == 1) return join(e, md_get_lane(e, v, 0), md_get_lane(e, v, 1));
    v = join(e, md_shuffle(e, v, NULL, low, n), md_shuffle(e, v, NULL, high, n));
  }
  return v;
}

md_ir md_hsum(md_emit *e, md_ir v) {
  return fold_lanes(e, v, is_float(md_scalar_type(v)) ? md_fadd : md_iadd);
}

md_ir md_hmax(md_emit *e, md_ir v) {
  return fold_lanes(e, v, is_float(md_scalar_type(v)) ? md_fmax : md_imax);
}

// The instruction takes denormals for zero, which are below any bf16 that matters.
static md_ir cut_by_instruction(md_emit *e, md_ir v) {
  bool half = md_lanes_of(v) == 8;
  const char *name =
      half ? "llvm.x86.avx512bf16.cvtneps2bf16.256" : "llvm.x86.avx512bf16.cvtneps2bf16.512";
  md_ir cut = md_intrinsic(e, name, &v, 1, NULL);
  return LLVMBuildBitCast(e->b, cut, LLVMVectorType(e->i16, half ? 8 : 16), "");
}

// Without denormals too where the instruction would be taken for more lanes.
static md_ir cut_by_hand(md_emit *e, md_ir v) {
  int lanes = md_lanes_of(v);
  if (e->cpu->bf16_dot) {
    md_ir size = md_intrinsic(e, "llvm.fabs", &v, 1, LLVMTypeOf(v));
    md_ir is_tiny = md_flt(e, size, md_const_like(e, v, 0x1p-126));
    v = md_select(e, is_tiny, md_fmul(e, v, md_const_like(e, v, 0)), v);
  }
  md_ir bits = LLVMBuildBitCast(e->b, v, md_lanes_type(e->i32, lanes), "");
  md_ir odd =
      LLVMBuildAnd(e->b, LLVMBuildLShr(e->b, bits, int_like(bits, 16), ""), int_like(bits, 1), "");
  md_ir up = LLVMBuildAdd(e->b, LLVMBuildAdd(e->b, bits, int_like(bits, 0x7fff), ""), odd, "");
  md_ir nan = LLVMBuildFCmp(e->b, LLVMRealUNO, v, v, "");
  md_ir quiet = LLVMBuildOr(e->b, bits, int_like(bits, 0x400000), "");
  md_ir cut = LLVMBuildLShr(e->b, md_select(e, nan, quiet, up), int_like(bits, 16), "");
  return LLVMBuildTrunc(e->b, cut, md_lanes_type(e->i16, lanes), "");
}

md_ir md_round_bf16(md_emit *e, md_ir v) {
  int lanes = md_lanes_of(v);
  // 16 bits that a store finds again.
  bool fits = e->cpu->bf16_dot && (lanes == 8 || lanes == 16);
  md_ir cut = fits ? cut_by_instruction(e, v) : cut_by_hand(e, v);
  md_ir wide = LLVMBuildZExt(e->b, cut, md_lanes_type(e->i32, lanes), "");
  wide = LLVMBuildShl(e->b, wide, int_like(wide, 16), "");
  return LLVMBuildBitCast(e->b, wide, md_lanes_type(e->f32, lanes), "bf16");
}

md_ir md_bf16_dot(md_emit *e, md_ir acc, md_ir a, md_ir b) {
  int lanes = md_lanes_of(acc);
  MD_ASSERT(e->cpu->bf16_dot && (lanes == 8 || lanes == 16), "%d lanes", lanes);
  LLVMTypeRef pairs = LLVMVectorType(LLVMBFloatTypeInContext(e->ctx), 2 * (unsigned)lanes);
  const char *name =
      lanes == 8 ? "llvm.x86.avx512bf16.dpbf16ps.256" : "llvm.x86.avx512bf16.dpbf16ps.512";
  md_ir arg[] = {acc, LLVMBuildBitCast(e->b, a, pairs, ""), LLVMBuildBitCast(e->b, b, pairs, "")};
  return md_intrinsic(e, name, arg, 3, NULL);
}

md_ir md_bf16_pair(md_emit *e, md_ir low, md_ir high) {
  LLVMTypeRef ints = md_lanes_type(e->i32, md_lanes_of(low));
  low = LLVMBuildBitCast(e->b, low, ints, "");
  low = LLVMBuildLShr(e->b, low, int_like(low, 16), "");
  high = LLVMBuildBitCast(e->b, high, ints, "");
  return LLVMBuildOr(e->b, low, high, "pair");
}

md_ir md_pair_lanes(md_emit *e, md_ir low, md_ir high) {
  int lanes = md_lanes_of(low);
  LLVMTypeRef ints = md_lanes_type(e->i32, lanes), wide = md_lanes_type(e->i64, lanes);
  low = LLVMBuildZExt(e->b, LLVMBuildBitCast(e->b, low, ints, ""), wide, "");
  high = LLVMBuildZExt(e->b, LLVMBuildBitCast(e->b, high, ints, ""), wide, "");
  return LLVMBuildOr(e->b, low, LLVMBuildShl(e->b, high, md_const_like(e, high, 32), ""), "pair");
}

md_ir md_f32_of_pairs(md_emit *e, md_ir pairs) {
  return LLVMBuildBitCast(e->b, pairs, md_lanes_type(e->f32, 2 * md_lanes_of(pairs)), "");
}

// By way of integers, as LLVM would take an instruction for a shuffled sum that reaches half of the registers alone.
md_ir md_add_pairs(md_emit *e, md_ir v) {
  int lanes = md_lanes_of(v) / 2;
  LLVMTypeRef ints = md_lanes_type(e->i32, lanes), floats = md_lanes_type(e->f32, lanes);
  md_ir pairs = LLVMBuildBitCast(e->b, v, md_lanes_type(e->i64, lanes), "");
  md_ir high = LLVMBuildLShr(e->b, pairs, md_const_like(e, pairs, 32), "");
  md_ir low = LLVMBuildBitCast(e->b, LLVMBuildTrunc(e->b, pairs, ints, ""), floats, "");
  return md_fadd(e, low, LLVMBuildBitCast(e->b, LLVMBuildTrunc(e->b, high, ints, ""), floats, ""));
}
