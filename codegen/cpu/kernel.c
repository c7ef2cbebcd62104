// SPDX-License-Identifier: Apache-2.0
// The frame of the functions that a region becomes: arguments (inputs, then outputs, then the
// workspace), phases, items.
#include "codegen/cpu/emit.h"

#include <string.h>

// --- memory

bool md_kernel_writes(const md_kernel *k, md_val v) {
  for (int i = 0; i < k->whole->num_outputs; i++) {
    if (md_shares_memory(k->whole->g, v, k->whole->output[i])) return true;
  }
  return false;
}

// --- phases

static void add_attribute(md_emit *e, md_ir fn, const char *name, const char *value) {
  LLVMAttributeRef a = LLVMCreateStringAttribute(e->ctx, name, (unsigned)strlen(name), value,
                                                 (unsigned)strlen(value));
  LLVMAddAttributeAtIndex(fn, (unsigned)LLVMAttributeFunctionIndex, a);
}

static void add_enum_attribute(md_emit *e, md_ir fn, unsigned at, const char *name) {
  unsigned kind = LLVMGetEnumAttributeKindForName(name, strlen(name));
  LLVMAddAttributeAtIndex(fn, at, LLVMCreateEnumAttribute(e->ctx, kind, 0));
}

void md_phase_begin(md_kernel *k, const char *what, int64_t items, int64_t scratch_bytes) {
  md_emit *e = &k->e;
  MD_ASSERT(!k->body, "phase %s begins inside another", what);
  if (k->num_phases == k->cap_phases) {
    int cap = MD_MAX(4, 2 * k->cap_phases);
    md_phase *phase = MD_NEW_ARRAY(k->arena, md_phase, cap);
    if (k->num_phases) memcpy(phase, k->phase, sizeof *phase * (size_t)k->num_phases);
    k->phase = phase;
    k->cap_phases = cap;
  }
  const char *symbol = md_format(k->arena, "%s_%d_%s", k->symbol, k->num_phases, what);
  k->phase[k->num_phases++] =
      (md_phase){.symbol = symbol, .items = items, .scratch_bytes = scratch_bytes};
  LLVMTypeRef params[] = {e->ptr, e->i64, e->ptr};
  e->fn = LLVMAddFunction(e->mod, symbol, LLVMFunctionType(e->void_, params, 3, false));
  add_enum_attribute(e, e->fn, (unsigned)LLVMAttributeFunctionIndex, "nounwind");
  add_attribute(e, e->fn, "no-builtins", "true");
  if (k->asan)
    add_enum_attribute(e, e->fn, (unsigned)LLVMAttributeFunctionIndex, "sanitize_address");
  if (e->cpu->lanes == 16) add_attribute(e, e->fn, "min-legal-vector-width", "512");
  const char *names[] = {"arg", "item", "scratch"};
  for (unsigned i = 0; i < 3; i++)
    LLVMSetValueName2(LLVMGetParam(e->fn, i), names[i], strlen(names[i]));
  add_enum_attribute(e, e->fn, 1, "noalias");
  add_enum_attribute(e, e->fn, 3, "noalias");
  e->entry = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "entry");
  k->body = LLVMAppendBasicBlockInContext(e->ctx, e->fn, "work");
  LLVMPositionBuilderAtEnd(e->b, k->body);
  k->item = LLVMGetParam(e->fn, 1);
  k->scratch = LLVMGetParam(e->fn, 2);
  int num_args = k->whole->num_inputs + k->whole->num_outputs + 1;
  k->arg_ptr = MD_NEW_ARRAY(k->arena, md_ir, num_args);
}

// The entry block has gathered allocas and addresses; now it leads on.
void md_phase_end(md_kernel *k) {
  md_emit *e = &k->e;
  if (e->needs_fence) md_fence(e);
  LLVMBuildRetVoid(e->b);
  LLVMPositionBuilderAtEnd(e->b, e->entry);
  LLVMBuildBr(e->b, k->body);
  k->body = NULL;
}

// --- arguments

static md_ir argument(md_kernel *k, int number, const char *name) {
  md_emit *e = &k->e;
  if (k->arg_ptr[number]) return k->arg_ptr[number];
  LLVMBasicBlockRef here = LLVMGetInsertBlock(e->b);
  LLVMPositionBuilderAtEnd(e->b, e->entry);
  md_ir at = md_i64(e, number);
  at = LLVMBuildInBoundsGEP2(e->b, e->ptr, LLVMGetParam(e->fn, 0), &at, 1, "");
  k->arg_ptr[number] = md_invariant(e, LLVMBuildLoad2(e->b, e->ptr, at, name));
  LLVMPositionBuilderAtEnd(e->b, here);
  return k->arg_ptr[number];
}

static struct md_made *made_of(const md_kernel *k, md_val v) {
  for (int i = 0; i < k->num_made; i++) {
    if (k->made[i].val == v) return &k->made[i];
  }
  return NULL;
}

md_ir md_kernel_arg(md_kernel *k, md_val v) {
  const md_region_view *r = k->whole;
  char name[16];
  for (int i = 0; i < r->num_inputs + r->num_outputs; i++) {
    bool is_input = i < r->num_inputs;
    int number = is_input ? i : i - r->num_inputs;
    if ((is_input ? r->input : r->output)[number] != v) continue;
    snprintf(name, sizeof name, "%s%d", is_input ? "in" : "out", number);
    return argument(k, i, name);
  }
  const struct md_made *made = made_of(k, v);
  MD_ASSERT(made, "%%%u is no argument of %s", (unsigned)v, k->symbol);
  return md_workspace(k, made->place);
}

void md_kernel_place(md_kernel *k, md_val v) {
  if (made_of(k, v)) return;
  if (k->num_made == k->cap_made) {
    int cap = MD_MAX(8, 2 * k->cap_made);
    struct md_made *made = MD_NEW_ARRAY(k->arena, struct md_made, cap);
    if (k->num_made) memcpy(made, k->made, sizeof *made * (size_t)k->num_made);
    k->made = made;
    k->cap_made = cap;
  }
  int64_t place = -1;
  if (!md_is_output(k->whole, v)) {
    place = md_workspace_reserve(k, md_type_bytes(md_type_in(k->whole->g, v)));
  }
  k->made[k->num_made++] = (struct md_made){.val = v, .place = place};
}

void md_kernel_ready(md_kernel *k, md_val v) {
  md_kernel_place(k, v);
  made_of(k, v)->ready = true;
}

bool md_kernel_is_ready(const md_kernel *k, md_val v) {
  const struct md_made *made = made_of(k, v);
  return made && made->ready;
}

int64_t md_workspace_reserve(md_kernel *k, int64_t bytes) {
  int64_t place = k->workspace_bytes;
  k->workspace_bytes += md_round_up(bytes, 64);
  return place;
}

md_ir md_workspace(md_kernel *k, int64_t place) {
  md_ir base = argument(k, k->whole->num_inputs + k->whole->num_outputs, "workspace");
  return md_at(&k->e, MD_U8, base, md_i64(&k->e, place));
}

int64_t md_split_items(int64_t total, int64_t max_items, int64_t *per_item) {
  *per_item = MD_MAX(md_ceil_div(total, max_items), 1);
  return md_ceil_div(total, *per_item);
}

void md_split_index(md_emit *e, md_ir item, int n, const int64_t *size, md_ir *index) {
  for (int i = n - 1; i >= 0; i--) {
    index[i] = i ? md_imodc(e, item, size[i]) : item;
    item = md_idivc(e, item, size[i]);
  }
}
