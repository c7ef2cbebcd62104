// SPDX-License-Identifier: Apache-2.0
// Loads and stores between memory types and compute types: whole vectors, masked ones, and lanes at
// places of their own.
#include "codegen/cpu/emit.h"

#include <string.h>

md_ir md_at(md_emit *e, md_dtype d, md_ir ptr, md_ir offset) {
  if (LLVMIsNull(offset)) return ptr;
  return LLVMBuildInBoundsGEP2(e->b, md_memory_type(e, d), ptr, &offset, 1, "");
}

void md_prefetch(md_emit *e, md_dtype d, md_ir ptr, md_ir offset) {
  enum { READ = 0, INTO_L2 = 2, DATA = 1 };
  md_ir at = LLVMBuildGEP2(e->b, md_memory_type(e, d), ptr, &offset, 1, "");
  md_ir arg[] = {at, md_i32(e, READ), md_i32(e, INTO_L2), md_i32(e, DATA)};
  md_intrinsic(e, "llvm.prefetch", arg, 4, e->ptr);
}

// Memory type -> compute type.
static md_ir widen(md_emit *e, md_dtype d, md_ir v) {
  int lanes = md_lanes_of(v);
  if (d == MD_BF16) {
    md_ir wide = LLVMBuildZExt(e->b, v, md_lanes_type(e->i32, lanes), "");
    wide = LLVMBuildShl(e->b, wide, md_const_like(e, wide, 16), "");
    return LLVMBuildBitCast(e->b, wide, md_lanes_type(e->f32, lanes), "");
  }
  if (d == MD_U8 || d == MD_BOOL) {
    return LLVMBuildZExt(e->b, v, md_lanes_type(e->i32, lanes), "");
  }
  return v;
}

// The bf16 that v was widened from, or NULL.
static md_ir was_bf16(const md_emit *e, md_ir v) {
  md_ir shifted = LLVMIsABitCastInst(v) ? LLVMGetOperand(v, 0) : NULL;
  if (!shifted || !LLVMIsAInstruction(shifted) || LLVMGetInstructionOpcode(shifted) != LLVMShl)
    return NULL;
  md_ir wide = LLVMGetOperand(shifted, 0);
  if (!LLVMIsAZExtInst(wide) || LLVMGetOperand(shifted, 1) != md_const_like(e, wide, 16))
    return NULL;
  md_ir bits = LLVMGetOperand(wide, 0);
  return md_scalar_type(bits) == e->i16 ? bits : NULL;
}

static md_ir narrow(md_emit *e, md_dtype d, md_ir v) {
  if (d == MD_BF16 && was_bf16(e, v)) return was_bf16(e, v);
  v = md_convert(e, v, md_compute_type(e, d));
  int lanes = md_lanes_of(v);
  if (d == MD_BF16) {
    md_ir bits = LLVMBuildBitCast(e->b, md_round_bf16(e, v), md_lanes_type(e->i32, lanes), "");
    bits = LLVMBuildLShr(e->b, bits, md_const_like(e, bits, 16), "");
    return LLVMBuildTrunc(e->b, bits, md_lanes_type(e->i16, lanes), "");
  }
  if (d == MD_BOOL) {
    md_ir set = LLVMBuildICmp(e->b, LLVMIntNE, v, md_zero(LLVMTypeOf(v)), "");
    return LLVMBuildZExt(e->b, set, md_lanes_type(e->i8, lanes), "");
  }
  if (d == MD_U8) return LLVMBuildTrunc(e->b, v, md_lanes_type(e->i8, lanes), "");
  return v;
}

static unsigned align_of(md_dtype d) { return (unsigned)md_dtype_size(d); }

static bool all_on(md_ir mask) {
  return !mask || mask == LLVMConstAllOnes(LLVMTypeOf(mask));  // constants are unique
}

static md_ir masked_call(md_emit *e, const char *name, LLVMTypeRef vector, md_ir *arg, int num) {
  LLVMTypeRef types[] = {vector, e->ptr};
  unsigned id = LLVMLookupIntrinsicID(name, strlen(name));
  md_ir fn = LLVMGetIntrinsicDeclaration(e->mod, id, types, 2);
  LLVMTypeRef type = LLVMIntrinsicGetType(e->ctx, id, types, 2);
  return LLVMBuildCall2(e->b, type, fn, arg, (unsigned)num, "");
}

md_ir md_load(md_emit *e, md_dtype d, md_ir ptr, md_ir offset, int lanes, md_ir mask) {
  LLVMTypeRef type = md_lanes_type(md_memory_type(e, d), lanes);
  md_ir at = md_at(e, d, ptr, offset);
  if (all_on(mask) || lanes == 1) {
    md_ir v = LLVMBuildLoad2(e->b, type, at, "");
    LLVMSetAlignment(v, align_of(d));
    return widen(e, d, v);
  }
  md_ir arg[] = {at, md_i32(e, (int32_t)align_of(d)), mask, md_zero(type)};
  return widen(e, d, masked_call(e, "llvm.masked.load", type, arg, 4));
}

void md_store(md_emit *e, md_dtype d, md_ir ptr, md_ir offset, md_ir v, md_ir mask) {
  v = narrow(e, d, v);
  md_ir at = md_at(e, d, ptr, offset);
  if (all_on(mask) || md_lanes_of(v) == 1) {
    LLVMSetAlignment(LLVMBuildStore(e->b, v, at), align_of(d));
    return;
  }
  md_ir arg[] = {v, at, md_i32(e, (int32_t)align_of(d)), mask};
  masked_call(e, "llvm.masked.store", LLVMTypeOf(v), arg, 4);
}

void md_store_line(md_emit *e, md_dtype d, md_ir ptr, md_ir offset, md_ir v) {
  md_ir store = LLVMBuildStore(e->b, narrow(e, d, v), md_at(e, d, ptr, offset));
  LLVMSetAlignment(store, MD_LINE);
  LLVMMetadataRef one = LLVMValueAsMetadata(md_i32(e, 1));
  LLVMSetMetadata(store, e->nontemporal_kind,
                  LLVMMetadataAsValue(e->ctx, LLVMMDNodeInContext2(e->ctx, &one, 1)));
  e->needs_fence = true;
}

void md_fence(md_emit *e) {
  LLVMBuildFence(e->b, LLVMAtomicOrderingSequentiallyConsistent, false, "");
  e->needs_fence = false;
}

// Lane by lane: gather instructions are no faster on the machines we know. A lane that is off reads
// the element at offset 0, which exists, and is then cleared.
md_ir md_gather(md_emit *e, md_dtype d, md_ir ptr, md_ir offsets, md_ir mask) {
  int lanes = md_lanes_of(offsets);
  if (lanes == 1) return md_load(e, d, ptr, offsets, 1, NULL);
  if (all_on(mask)) mask = NULL;
  if (mask) offsets = md_select(e, mask, offsets, md_zero(LLVMTypeOf(offsets)));
  LLVMTypeRef type = md_memory_type(e, d);
  md_ir v = LLVMGetPoison(md_lanes_type(type, lanes));
  for (int i = 0; i < lanes; i++) {
    md_ir x = LLVMBuildLoad2(e->b, type, md_at(e, d, ptr, md_get_lane(e, offsets, i)), "");
    LLVMSetAlignment(x, align_of(d));
    v = md_set_lane(e, v, i, x);
  }
  v = widen(e, d, v);
  return mask ? md_select(e, mask, v, md_zero(LLVMTypeOf(v))) : v;
}

void md_scatter(md_emit *e, md_dtype d, md_ir ptr, md_ir offsets, md_ir v, md_ir mask) {
  int lanes = md_lanes_of(offsets);
  v = narrow(e, d, v);
  if (all_on(mask)) mask = NULL;
  for (int i = 0; i < lanes; i++) {
    md_if on = {0};
    if (mask) on = md_if_begin(e, md_get_lane(e, mask, i), "on");
    md_ir at = md_at(e, d, ptr, md_get_lane(e, offsets, i));
    LLVMSetAlignment(LLVMBuildStore(e->b, md_get_lane(e, v, i), at), align_of(d));
    if (mask) md_if_end(e, &on);
  }
}

md_ir md_invariant(md_emit *e, md_ir load) {
  if (LLVMIsALoadInst(load)) {
    LLVMSetMetadata(load, e->invariant_kind,
                    LLVMMetadataAsValue(e->ctx, LLVMMDNodeInContext2(e->ctx, NULL, 0)));
  }
  return load;
}

md_ir md_first_lanes(md_emit *e, md_ir count, int lanes) {
  md_ir enough = md_imin(e, count, md_i64(e, lanes));
  md_ir n = LLVMBuildIntCast2(e->b, enough, e->i32, true, "");
  return LLVMBuildICmp(e->b, LLVMIntSLT, md_iota(e, e->i32, lanes, 0, 1), md_splat(e, n, lanes),
                       "mask");
}
