// SPDX-License-Identifier: Apache-2.0
// Loops, conditions, and variables. A loop is rotated (test at the end), so that what does not
// change in it can move before it; one that runs once is no loop at all.
#include "codegen/cpu/emit.h"

static LLVMBasicBlockRef new_block(md_emit *e, const char *name) {
  return LLVMAppendBasicBlockInContext(e->ctx, e->fn, name);
}

md_loop md_loop_begin(md_emit *e, md_ir begin, md_ir end, int64_t step, const char *name) {
  md_loop l = {.i = begin, .end = end, .step = step};
  bool known = LLVMIsAConstantInt(begin) && LLVMIsAConstantInt(end);
  int64_t first = known ? LLVMConstIntGetSExtValue(begin) : 0;
  int64_t last = known ? LLVMConstIntGetSExtValue(end) : 0;
  if (known && first < last && last - first <= step) return l;
  LLVMBasicBlockRef before = LLVMGetInsertBlock(e->b);
  l.body = new_block(e, name);
  l.exit = new_block(e, "done");
  if (known && first < last) LLVMBuildBr(e->b, l.body);
  else LLVMBuildCondBr(e->b, md_ilt(e, begin, end), l.body, l.exit);
  LLVMPositionBuilderAtEnd(e->b, l.body);
  l.i = LLVMBuildPhi(e->b, e->i64, name);
  LLVMAddIncoming(l.i, &begin, &before, 1);
  return l;
}

void md_loop_end(md_emit *e, md_loop *l) {
  if (!l->body) return;
  md_ir next = LLVMBuildNSWAdd(e->b, l->i, md_i64(e, l->step), "next");
  LLVMBasicBlockRef latch = LLVMGetInsertBlock(e->b);
  LLVMBuildCondBr(e->b, md_ilt(e, next, l->end), l->body, l->exit);
  LLVMAddIncoming(l->i, &next, &latch, 1);
  LLVMPositionBuilderAtEnd(e->b, l->exit);
}

md_if md_if_begin(md_emit *e, md_ir cond, const char *name) {
  LLVMBasicBlockRef then = new_block(e, name);
  md_if f = {.other = new_block(e, "else"), .join = new_block(e, "join")};
  LLVMBuildCondBr(e->b, cond, then, f.other);
  LLVMPositionBuilderAtEnd(e->b, then);
  return f;
}

void md_if_else(md_emit *e, md_if *f) {
  LLVMBuildBr(e->b, f->join);
  LLVMPositionBuilderAtEnd(e->b, f->other);
  f->has_else = true;
}

void md_if_end(md_emit *e, md_if *f) {
  LLVMBuildBr(e->b, f->join);
  if (!f->has_else) {
    LLVMPositionBuilderAtEnd(e->b, f->other);
    LLVMBuildBr(e->b, f->join);
  }
  LLVMPositionBuilderAtEnd(e->b, f->join);
}

md_var md_var_new(md_emit *e, LLVMTypeRef type, md_ir init, const char *name) {
  LLVMBasicBlockRef here = LLVMGetInsertBlock(e->b);
  LLVMPositionBuilderAtEnd(e->b, e->entry);
  md_var v = {.at = LLVMBuildAlloca(e->b, type, name), .type = type};
  LLVMPositionBuilderAtEnd(e->b, here);
  if (init) md_set(e, v, init);
  return v;
}

md_ir md_get(md_emit *e, md_var v) { return LLVMBuildLoad2(e->b, v.type, v.at, ""); }
void md_set(md_emit *e, md_var v, md_ir x) { LLVMBuildStore(e->b, x, v.at); }
