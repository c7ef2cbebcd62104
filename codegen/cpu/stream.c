// SPDX-License-Identifier: Apache-2.0
// Stream regions: pointwise, view and reduce nodes without an anchor. Values are made in stages:
// what needs no reduction first, then what needs one, and so on. In a stage, values of one shape
// and the reductions over it share a walk; what lies over one of its operands comes last.
#include "codegen/cpu/nest.h"
#include "codegen/cpu/place.h"

#include <string.h>

typedef struct Plan {
  md_kernel *k;
  const md_region_view *r;
  bool *needed;  // by node of the view
  int *stage;    // of a node's value
  bool *seen;    // [node][tail]: scratch of merges()
} Plan;

static int number_of(const Plan *p, const md_node *n) {
  for (int i = 0; i < p->r->num_nodes; i++) {
    if (p->r->node[i] == n) return i;
  }
  return -1;
}

// The node that makes v in this region and is not in memory yet, or -1.
static int maker(const Plan *p, md_val v) {
  const md_node *n = v == MD_NONE ? NULL : md_inner(p->r, v);
  return n && !md_kernel_is_ready(p->k, v) ? number_of(p, n) : -1;
}

static bool is_reduce(const md_node *n) { return md_ops[n->op].role == MD_REDUCE; }

static void find_needed(Plan *p, const md_val *vals, int num) {
  for (int i = 0; i < num; i++) {
    int at = maker(p, vals[i]);
    if (at >= 0) p->needed[at] = true;
  }
  for (int i = p->r->num_nodes - 1; i >= 0; i--) {
    for (int k = 0; p->needed[i] && k < p->r->node[i]->num_in; k++) {
      int at = maker(p, p->r->node[i]->in[k]);
      if (at >= 0) p->needed[at] = true;
    }
  }
  for (int i = 0; i < p->r->num_nodes; i++) {
    const md_node *n = p->r->node[i];
    for (int k = 0; k < n->num_in; k++) {
      int at = maker(p, n->in[k]);
      if (at >= 0) p->stage[i] = MD_MAX(p->stage[i], p->stage[at] + is_reduce(p->r->node[at]));
    }
  }
}

// --- how far axes may be merged

static bool merges(const Plan *p, md_val v, int tail) {
  int at = maker(p, v);
  if (at < 0) return true;
  const md_node *n = p->r->node[at];
  if (is_reduce(n)) return true;
  bool *seen = &p->seen[(size_t)at * (MD_MAX_RANK + 1) + (size_t)tail];
  if (*seen) return true;
  *seen = true;
  for (int k = 0; k < n->num_in; k++) {
    int in_tail;
    if (!md_keeps_merged(p->r->g, n, k, tail, &in_tail) || !merges(p, n->in[k], in_tail))
      return false;
  }
  return true;
}

static int merge_tail(const Plan *p, const md_nest *n) {
  for (int tail = 0; tail < n->shape->rank; tail++) {
    memset(p->seen, 0, sizeof *p->seen * (size_t)p->r->num_nodes * (MD_MAX_RANK + 1));
    bool ok = true;
    for (int i = 0; i < n->num_stores; i++) ok = ok && merges(p, n->store[i], tail);
    for (int i = 0; i < n->num_reduces; i++) {
      const md_node *r = n->reduce[i];
      bool by_channel = r->op == MD_OP_moments || r->op == MD_OP_batch_norm_sums;
      ok = ok && !(by_channel && tail < 2);
      int full = r->op == MD_OP_batch_norm_sums ? 2 : 1;  // operands of the walk's shape
      for (int k = 0; k < full; k++) ok = ok && merges(p, r->in[k], tail);
    }
    if (ok) return tail;
  }
  return n->shape->rank;
}

// Block of a tensor of the walk's shape that is read or written, 0 when all are row-major.
static int block_of(const Plan *p, const md_shape *shape, md_val v) {
  const md_type *t = md_type_in(p->r->g, v);
  int at = maker(p, v), block = 0;
  if (at < 0) {
    bool full = md_shape_equal(&t->shape, shape) && md_def(p->r->g, v)->op != MD_OP_constant;
    return full ? t->block : 0;
  }
  bool *seen = &p->seen[(size_t)at * (MD_MAX_RANK + 1)];
  if (*seen) return 0;
  *seen = true;
  const md_node *n = p->r->node[at];
  for (int k = 0; k < n->num_in && !block; k++) {
    if (n->in[k] != MD_NONE) block = block_of(p, shape, n->in[k]);
  }
  return block;
}

static int find_block(const Plan *p, const md_nest *n) {
  memset(p->seen, 0, sizeof *p->seen * (size_t)p->r->num_nodes * (MD_MAX_RANK + 1));
  int block = 0;
  for (int i = 0; i < n->num_stores && !block; i++) {
    block = md_type_in(p->r->g, n->store[i])->block;
    if (!block) block = block_of(p, n->shape, n->store[i]);
  }
  for (int i = 0; i < n->num_reduces && !block; i++) {
    for (int k = 0; k < n->reduce[i]->num_in && !block; k++) {
      block = block_of(p, n->shape, n->reduce[i]->in[k]);
    }
  }
  return block;
}

// --- walks

static unsigned kept_axes(const md_graph *g, const md_node *r, int64_t *groups) {
  const md_shape *s = &md_type_in(g, r->in[0])->shape;
  *groups = 1;
  if (r->op == MD_OP_moments || r->op == MD_OP_batch_norm_sums) {
    *groups = md_type_in(g, r->out)->shape.dim[0];
    return 2;
  }
  if (r->attr.axes.axes.n == 0) return 0;  // the sum over everything
  unsigned kept = (1u << s->rank) - 1;
  for (int64_t i = 0; i < r->attr.axes.axes.n; i++) kept &= ~(1u << r->attr.axes.axes.d[i]);
  return kept;
}

static void emit(const Plan *p, md_nest *n) {
  n->block = find_block(p, n);
  n->min_tail = merge_tail(p, n);
  for (int i = 0; i < n->num_reduces; i++) {
    for (int q = 0; q < n->reduce[i]->num_out; q++)
      md_kernel_place(p->k, n->reduce[i]->out + (md_val)q);
  }
  for (int i = 0; i < n->num_stores; i++) md_kernel_place(p->k, n->store[i]);
  md_nest_emit(n);
}

static void finish(const Plan *p, const md_nest *n) {
  for (int i = 0; i < n->num_reduces; i++) {
    for (int q = 0; q < n->reduce[i]->num_out; q++)
      md_kernel_ready(p->k, n->reduce[i]->out + (md_val)q);
  }
  for (int i = 0; i < n->num_stores; i++) md_kernel_ready(p->k, n->store[i]);
}

static bool lies_over_operand(const Plan *p, md_val v) {
  for (int i = 0; i < p->k->whole->num_inputs; i++) {
    if (md_shares_memory(p->r->g, v, p->k->whole->input[i])) return true;
  }
  return false;
}

// Stores of one shape, `late` ones only or early ones only, that are still missing.
static void take_stores(const Plan *p, md_nest *n, const md_val *vals, int num, bool *done,
                        int stage, bool late) {
  for (int i = 0; i < num && n->num_stores < MD_NEST_VALUES; i++) {
    int at = maker(p, vals[i]);
    if (done[i] || at < 0 || is_reduce(p->r->node[at]) || p->stage[at] != stage) continue;
    if (lies_over_operand(p, vals[i]) != late) continue;
    const md_shape *s = &md_type_in(p->r->g, vals[i])->shape;
    if (!n->shape) n->shape = s;
    if (!md_shape_equal(s, n->shape)) continue;
    n->store[n->num_stores++] = vals[i];
    done[i] = true;
  }
}

static void emit_stage(const Plan *p, const md_val *vals, int num, bool *done, int stage) {
  int num_nodes = p->r->num_nodes;
  bool *taken = MD_NEW_ARRAY(p->k->arena, bool, num_nodes);
  md_nest *nests = MD_NEW_ARRAY(p->k->arena, md_nest, num_nodes + 2 * num);
  int num_nests = 0;
  for (int i = 0; i < num_nodes; i++) {
    const md_node *r = p->r->node[i];
    if (!p->needed[i] || taken[i] || !is_reduce(r) || p->stage[i] != stage) continue;
    md_nest *n = &nests[num_nests++];
    *n = (md_nest){.k = p->k, .shape = &md_type_in(p->r->g, r->in[0])->shape};
    n->kept = kept_axes(p->r->g, r, &n->groups);
    for (int j = i; j < num_nodes && n->num_reduces < MD_NEST_VALUES; j++) {
      const md_node *s = p->r->node[j];
      if (!p->needed[j] || taken[j] || !is_reduce(s) || p->stage[j] != stage) continue;
      int64_t groups;
      bool same = md_shape_equal(&md_type_in(p->r->g, s->in[0])->shape, n->shape) &&
                  kept_axes(p->r->g, s, &groups) == n->kept && groups == n->groups;
      if (!same) continue;
      taken[j] = true;
      n->reduce[n->num_reduces++] = s;
    }
    take_stores(p, n, vals, num, done, stage, false);
    emit(p, n);
  }
  for (int late = 0; late < 2; late++) {
    for (;;) {
      md_nest *n = &nests[num_nests];
      *n = (md_nest){.k = p->k, .groups = 1};
      take_stores(p, n, vals, num, done, stage, late != 0);
      if (!n->num_stores) break;
      emit(p, n);
      num_nests++;
      // What was written over an operand is read from there by the walks that follow.
      if (late) finish(p, n);
    }
  }
  for (int i = 0; i < num_nests; i++) finish(p, &nests[i]);
}

void md_materialise(md_kernel *k, const md_val *vals, int num) {
  int nodes = k->r->num_nodes;
  Plan p = {.k = k,
            .r = k->r,
            .needed = MD_NEW_ARRAY(k->arena, bool, nodes),
            .stage = MD_NEW_ARRAY(k->arena, int, nodes),
            .seen = MD_NEW_ARRAY(k->arena, bool, nodes *(MD_MAX_RANK + 1))};
  bool *done = MD_NEW_ARRAY(k->arena, bool, num + 1);
  find_needed(&p, vals, num);
  int last = 0;
  for (int i = 0; i < nodes; i++) last = p.needed[i] ? MD_MAX(last, p.stage[i]) : last;
  for (int stage = 0; stage <= last; stage++) emit_stage(&p, vals, num, done, stage);
}

static const char *refuse(const md_region_view *r, const md_cpu *cpu) {
  (void)cpu;
  return r->anchor ? "" : NULL;
}

static void emit_region(md_kernel *k) { md_materialise(k, k->r->output, k->r->num_outputs); }

const md_lowering md_stream_rows[] = {{"stream", refuse, emit_region}, {0}};
