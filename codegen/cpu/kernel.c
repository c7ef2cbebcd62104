// SPDX-License-Identifier: Apache-2.0
// A region as lowerings see it, and the frame of the functions it becomes: arguments (inputs, then
// outputs, then the workspace), phases, items.
#include "codegen/cpu/emit.h"

#include <string.h>

// --- the view

const md_node *md_inner(const md_region_view *r, md_val v) {
  const md_node *n = md_def(r->g, v);
  if (md_ops[n->op].role == MD_LEAF) return NULL;
  if (r->index > 0) return n->region == r->index ? n : NULL;
  return n == r->node[0] ? n : NULL;
}

static bool listed(const md_val *vals, int num, md_val v) {
  for (int i = 0; i < num; i++) {
    if (vals[i] == v) return true;
  }
  return false;
}

bool md_is_output(const md_region_view *r, md_val v) {
  return listed(r->output, r->num_outputs, v);
}

// Inputs in the order of their first use, so that equal regions have equal lists.
static void find_inputs(md_region_view *r, md_arena *a) {
  int max = 0;
  for (int i = 0; i < r->num_nodes; i++) max += r->node[i]->num_in;
  r->input = MD_NEW_ARRAY(a, md_val, max + 1);
  for (int i = 0; i < r->num_nodes; i++) {
    for (int k = 0; k < r->node[i]->num_in; k++) {
      md_val v = r->node[i]->in[k];
      if (v == MD_NONE || md_inner(r, v) || md_def(r->g, v)->op == MD_OP_constant) continue;
      if (!listed(r->input, r->num_inputs, v)) r->input[r->num_inputs++] = v;
    }
  }
}

// A value is visible outside when it has more readers than the region itself.
static void find_outputs(md_region_view *r, md_arena *a) {
  int max = 0;
  for (int i = 0; i < r->num_nodes; i++) max += r->node[i]->num_out;
  md_val *val = MD_NEW_ARRAY(a, md_val, max);
  int *uses = MD_NEW_ARRAY(a, int, max), num = 0;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    for (int k = 0; k < n->num_in; k++) {
      for (int j = 0; j < num; j++) uses[j] -= val[j] == n->in[k];
    }
    for (int k = 0; k < n->num_out; k++) {
      val[num] = n->out + (md_val)k;
      uses[num] = r->g->value[val[num]].uses;
      num++;
    }
  }
  r->output = MD_NEW_ARRAY(a, md_val, max);
  for (int i = 0; i < num; i++) {
    if (uses[i] > 0) r->output[r->num_outputs++] = val[i];
  }
}

md_region_view *md_region_view_of(const md_graph *g, int region, const md_node *n, md_arena *a) {
  md_region_view *r = MD_NEW(a, md_region_view);
  r->g = g;
  r->index = region;
  int first = region > 0 ? g->region[region].first : n->index;
  int num = region > 0 ? g->region[region].num : 1;
  r->node = MD_NEW_ARRAY(a, const md_node *, num);
  for (int i = 0; i < num; i++) {
    const md_node *at = g->node[first + i];
    md_role role = md_ops[at->op].role;
    if (role == MD_LEAF) continue;
    r->node[r->num_nodes++] = at;
    if (role == MD_ANCHOR || role == MD_GATHER) r->anchor = at;
  }
  find_inputs(r, a);
  find_outputs(r, a);
  return r;
}

static bool depends(const md_region_view *r, const md_node *n, const md_node *on) {
  if (n == on) return true;
  for (int k = 0; k < n->num_in; k++) {
    const md_node *from = n->in[k] == MD_NONE ? NULL : md_inner(r, n->in[k]);
    if (from && from->index >= on->index && depends(r, from, on)) return true;
  }
  return false;
}

bool md_in_prologue(const md_region_view *r, const md_node *n) {
  return r->anchor && n != r->anchor && depends(r, r->anchor, n);
}

bool md_in_epilogue(const md_region_view *r, const md_node *n) {
  return r->anchor && n != r->anchor && depends(r, n, r->anchor);
}

// --- memory

// Where a value lies: in a state or input (its value number), or in the arena (0).
typedef struct home {
  md_val owner;
  int64_t offset, bytes;
} home;

static home home_of(const md_graph *g, md_val v) {
  const md_value *x = &g->value[v];
  home h = {.bytes = md_type_bytes(&x->type)};
  if (x->node->op == MD_OP_state || x->node->op == MD_OP_input) h.owner = v;
  else if (x->storage != MD_NONE) h.owner = x->storage;
  else h.offset = x->offset;
  return h;
}

bool md_shares_memory(const md_graph *g, md_val a, md_val b) {
  home x = home_of(g, a), y = home_of(g, b);
  if (x.offset < 0 || y.offset < 0) return false;
  return x.owner == y.owner && x.offset < y.offset + y.bytes && y.offset < x.offset + x.bytes;
}

bool md_same_memory(const md_graph *g, md_val a, md_val b) {
  home x = home_of(g, a), y = home_of(g, b);
  return x.owner == y.owner && x.offset == y.offset && x.offset >= 0;
}

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
  k->phase[k->num_phases++] = (md_phase){symbol, items, scratch_bytes};
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
