// SPDX-License-Identifier: Apache-2.0
// A region as the generator sees it, where its values lie, and what is not there yet.
#include "codegen/cuda/gen.h"

// Indices of a walk go beyond the elements by a stride at most, so half of an int's range is safe.
#define MAX_INT_ELEMENTS ((int64_t)1 << 30)

const md_node *md_cu_inner(const md_cu_region *r, md_val v) {
  const md_node *n = md_def(r->g, v);
  if (md_ops[n->op].role == MD_LEAF) return NULL;
  if (r->index > 0) return n->region == r->index ? n : NULL;
  return n == r->node[0] ? n : NULL;
}

static bool listed(const md_val *vals, int num, md_val v) {
  for (int i = 0; i < num; i++)
    if (vals[i] == v) return true;
  return false;
}

bool md_cu_is_output(const md_cu_region *r, md_val v) {
  return listed(r->output, r->num_outputs, v);
}

// In the order of their first use, so that equal regions have equal lists.
static void find_inputs(md_cu_region *r, md_arena *a) {
  int max = 0;
  for (int i = 0; i < r->num_nodes; i++) max += r->node[i]->num_in;
  r->input = MD_NEW_ARRAY(a, md_val, max + 1);
  for (int i = 0; i < r->num_nodes; i++) {
    for (int k = 0; k < r->node[i]->num_in; k++) {
      md_val v = r->node[i]->in[k];
      if (v == MD_NONE || md_cu_inner(r, v) || md_def(r->g, v)->op == MD_OP_constant) continue;
      if (!listed(r->input, r->num_inputs, v)) r->input[r->num_inputs++] = v;
    }
  }
}

// A value is visible outside when it has more readers than the region itself.
static void find_outputs(md_cu_region *r, md_arena *a) {
  int max = 0, num = 0;
  for (int i = 0; i < r->num_nodes; i++) max += r->node[i]->num_out;
  md_val *val = MD_NEW_ARRAY(a, md_val, max + 1);
  int *uses = MD_NEW_ARRAY(a, int, max + 1);
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    for (int k = 0; k < n->num_in; k++)
      for (int j = 0; j < num; j++) uses[j] -= val[j] == n->in[k];
    for (int k = 0; k < n->num_out; k++) {
      val[num] = n->out + (md_val)k;
      uses[num] = r->g->value[val[num]].uses;
      num++;
    }
  }
  r->output = MD_NEW_ARRAY(a, md_val, max + 1);
  for (int i = 0; i < num; i++)
    if (uses[i] > 0) r->output[r->num_outputs++] = val[i];
}

static bool is_wide(const md_graph *g, md_val v) {
  return v != MD_NONE && md_elements(&md_type_in(g, v)->shape) > MAX_INT_ELEMENTS;
}

// Parts of dq: those of all blocks together are a tensor too.
static bool has_wide_parts(const md_graph *g, const md_node *n) {
  if (n->op != MD_OP_nce_lse_grad) return false;
  const md_shape *q = &md_type_in(g, n->out)->shape;
  return (MD_CU_NCE_BLOCKS * MD_CU_NCE_TILE + q->dim[0]) > MAX_INT_ELEMENTS / q->dim[1];
}

md_cu_region *md_cu_region_of(const md_graph *g, int region, const md_node *n, md_arena *a) {
  md_cu_region *r = MD_NEW(a, md_cu_region);
  r->g = g;
  r->index = region;
  int first = region > 0 ? g->region[region].first : n->index;
  int num = region > 0 ? g->region[region].num : 1;
  r->node = MD_NEW_ARRAY(a, const md_node *, num);
  for (int i = first; i < first + num; i++)
    if (md_ops[g->node[i]->op].role != MD_LEAF) r->node[r->num_nodes++] = g->node[i];
  find_inputs(r, a);
  find_outputs(r, a);
  for (int i = 0; i < r->num_nodes; i++) {
    r->wide |= has_wide_parts(g, r->node[i]);
    for (int k = 0; k < r->node[i]->num_in; k++) r->wide |= is_wide(g, r->node[i]->in[k]);
    for (int k = 0; k < r->node[i]->num_out; k++)
      r->wide |= is_wide(g, r->node[i]->out + (md_val)k);
  }
  return r;
}

// Where a value lies: in a state's or input's buffer (its value number), or in the arena (0).
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

bool md_cu_shares_memory(const md_graph *g, md_val a, md_val b) {
  home x = home_of(g, a), y = home_of(g, b);
  if (x.offset < 0 || y.offset < 0) return a == b;
  return x.owner == y.owner && x.offset < y.offset + y.bytes && y.offset < x.offset + x.bytes;
}

static bool has_kernel(const md_node *n) {
  md_role role = md_ops[n->op].role;
  return role == MD_POINTWISE || role == MD_VIEW || role == MD_REDUCE || n->op == MD_OP_nce_lse ||
         n->op == MD_OP_nce_lse_grad;
}

const char *md_cu_refuse(const md_cu_region *r, md_arena *a) {
  int args = r->num_inputs + r->num_outputs;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    if (!has_kernel(n)) return md_format(a, "%s is not there yet", md_ops[n->op].name);
    args += 2 * n->num_out;  // workspace, at most
    for (int k = 0; k < n->num_out; k++)
      if (md_type_in(r->g, n->out + (md_val)k)->dtype == MD_F64) return "f64 is not there yet";
    for (int k = 0; k < n->num_in; k++)
      if (n->in[k] != MD_NONE && md_type_in(r->g, n->in[k])->dtype == MD_F64)
        return "f64 is not there yet";
  }
  return args > MD_CU_MAX_ARGS ? "more tensors than a kernel takes" : NULL;
}
