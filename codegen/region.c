// SPDX-License-Identifier: Apache-2.0
// A region as back ends see it: what goes in and comes out, what stands before and behind its anchor,
// and which of its values lie in the same memory.
#include "codegen/region.h"

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
    if (role != MD_ANCHOR && role != MD_GATHER) continue;
    if (r->anchor) r->twin = at;
    else r->anchor = at;
  }
  find_inputs(r, a);
  find_outputs(r, a);
  return r;
}

// Marks what depends on `on` from there to n: each node once, however often values are read.
static bool depends(const md_region_view *r, const md_node *n, const md_node *on) {
  bool marked[MD_MAX_REGION] = {false};  // by node, counted from the region's first
  int first = r->node[0]->index;
  marked[on->index - first] = true;
  for (int i = 0; i < r->num_nodes && r->node[i]->index <= n->index; i++) {
    const md_node *at = r->node[i];
    for (int k = 0; k < at->num_in && at->index > on->index; k++) {
      const md_node *from = at->in[k] == MD_NONE ? NULL : md_inner(r, at->in[k]);
      if (from && marked[from->index - first]) marked[at->index - first] = true;
    }
  }
  return marked[n->index - first];
}

bool md_in_prologue(const md_region_view *r, const md_node *n) {
  return r->anchor && n != r->anchor && depends(r, r->anchor, n);
}

bool md_in_epilogue(const md_region_view *r, const md_node *n) {
  return r->anchor && n != r->anchor && depends(r, n, r->anchor);
}

bool md_read_inside(const md_region_view *r, md_val v) {
  for (int i = 0; i < r->num_nodes; i++)
    if (listed(r->node[i]->in, r->node[i]->num_in, v)) return true;
  return false;
}

// --- what code can be made for

static bool reject_layout(const md_graph *g, md_val v, const char *why, md_diags *d) {
  md_arena *a = md_arena_create();
  const char *name = g->value[v].name;
  name = name ? md_format(a, "%%%s", name) : md_format(a, "%%%u", (unsigned)v);
  md_error(d, E0355, md_def(g, v)->place, "%s is %s, but %s", name,
           md_type_text(md_type_in(g, v), a), why);
  md_hint(d, "the pass layout chooses layouts that fit the target");
  md_arena_destroy(a);
  return false;
}

static bool check_layout(const md_graph *g, md_val v, const md_target_facts *facts, md_diags *d) {
  const md_type *t = md_type_in(g, v);
  char why[80];
  if (!t->block) return true;
  if (md_ops[md_def(g, v)->op].role == MD_LEAF)
    return reject_layout(g, v, "inputs, states and constants are row-major", d);
  // Of few channels in bf16 a convolution may be the reader.
  int block = t->shape.rank == 5 ? md_layout_block(facts, t->shape.dim[1], t->dtype == MD_BF16) : 0;
  bool fits = t->block == block;
  bool counts = t->dtype == MD_I32 || t->dtype == MD_U8;
  if (fits && (md_dtype_is_float(t->dtype) || counts)) return true;
  if (block) snprintf(why, sizeof why, "this target takes f, i32 or u8 [n,c,t,h,w] in .c%d", block);
  else snprintf(why, sizeof why, "this target takes it row-major alone");
  return reject_layout(g, v, why, d);
}

bool md_regions_check(const md_graph *g, const md_target_facts *facts, md_diags *d) {
  if (g->arena_bytes < 0) {
    md_error(d, E0352, MD_NOWHERE, "graph %s has no memory plan, without which there is no code",
             g->name);
    md_hint(d, "run the pass memory last: --passes=...,regions,memory");
    return false;
  }
  for (md_val v = 1; v <= (md_val)g->num_values; v++)
    if (!check_layout(g, v, facts, d)) return false;
  for (int i = 0; i < g->num_results; i++)
    if (md_type_in(g, g->result[i].val)->block)
      return reject_layout(g, g->result[i].val, "results are row-major", d);
  return true;
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
  if (x.offset < 0 || y.offset < 0) return a == b;
  return x.owner == y.owner && x.offset < y.offset + y.bytes && y.offset < x.offset + x.bytes;
}

bool md_is_over_input(const md_region_view *r, md_val v) {
  for (int i = 0; i < r->num_inputs; i++)
    if (md_shares_memory(r->g, v, r->input[i])) return true;
  return false;
}

bool md_same_memory(const md_graph *g, md_val a, md_val b) {
  home x = home_of(g, a), y = home_of(g, b);
  return x.owner == y.owner && x.offset == y.offset && x.offset >= 0;
}
