// SPDX-License-Identifier: Apache-2.0
// The order of a region's kernels. Values are made in stages: what needs neither a reduction nor an
// InfoNCE pass first, then what needs one, and so on. In a stage, values of one shape and the
// reductions over it share a walk. A result may lie over an operand only where all that reads the
// operand does so at the result's own index (passes/live.c), and then one walk makes both.
#include "codegen/cuda/gen.h"

typedef struct Plan {
  md_cu_work *w;
  const md_region_view *r;
  bool *needed;  // by node of the region
  int *stage;    // of a node's value
  bool *done;    // by output
} Plan;

static int number_of(const Plan *p, const md_node *n) {
  for (int i = 0; i < p->r->num_nodes; i++)
    if (p->r->node[i] == n) return i;
  return -1;
}

// The node that makes v in this region and is not in memory yet, or -1.
static int maker(const Plan *p, md_val v) {
  const md_node *n = v == MD_NONE ? NULL : md_inner(p->r, v);
  return n && !md_cu_is_ready(p->w, v) ? number_of(p, n) : -1;
}

static bool is_reduce(const md_node *n) { return md_ops[n->op].role == MD_REDUCE; }
static bool is_anchor(const md_node *n) { return md_ops[n->op].role == MD_ANCHOR; }

static void find_needed(Plan *p) {
  for (int i = 0; i < p->r->num_outputs; i++)
    p->needed[number_of(p, md_def(p->r->g, p->r->output[i]))] = true;
  for (int i = p->r->num_nodes - 1; i >= 0; i--) {
    const md_node *n = p->r->node[i];
    for (int k = 0; p->needed[i] && k < n->num_in; k++) {
      int at = maker(p, n->in[k]);
      if (at >= 0) p->needed[at] = true;
    }
  }
  for (int i = 0; i < p->r->num_nodes; i++) {
    const md_node *n = p->r->node[i];
    for (int k = 0; k < n->num_in; k++) {
      int at = maker(p, n->in[k]);
      if (at < 0) continue;
      const md_node *from = p->r->node[at];
      p->stage[i] = MD_MAX(p->stage[i], p->stage[at] + (is_reduce(from) || is_anchor(from)));
    }
  }
}

static void place_results(const Plan *p, const md_node *n) {
  for (int i = 0; i < n->num_out; i++) md_cu_place(p->w, n->out + (md_val)i);
}

static void finish_results(const Plan *p, const md_node *n) {
  for (int i = 0; i < n->num_out; i++) md_cu_ready(p->w, n->out + (md_val)i);
}

static md_cu_nest nest_of(const Plan *p, const md_node *reduce, const md_shape *shape) {
  int max = MD_MAX(p->r->num_outputs, p->r->num_nodes);
  md_cu_nest n = {.shape = shape,
                  .groups = 1,
                  .store = MD_NEW_ARRAY(p->w->arena, md_val, max + 1),
                  .reduce = MD_NEW_ARRAY(p->w->arena, const md_node *, max + 1)};
  if (!reduce) return n;
  if (reduce->op == MD_OP_moments || reduce->op == MD_OP_batch_norm_sums) {
    n.channels = true;
    n.groups = md_type_in(p->r->g, reduce->out)->shape.dim[0];
    return n;
  }
  n.kept = reduce->attr.axes.axes.n ? (1u << shape->rank) - 1 : 0;  // no axes listed: all go
  for (int64_t i = 0; i < reduce->attr.axes.axes.n; i++)
    n.kept &= ~(1u << reduce->attr.axes.axes.d[i]);
  return n;
}

// Outputs of one shape that are still missing in this stage.
static void take_stores(const Plan *p, md_cu_nest *n, int stage) {
  for (int i = 0; i < p->r->num_outputs; i++) {
    md_val v = p->r->output[i];
    int at = maker(p, v);
    if (p->done[i] || at < 0 || p->stage[at] != stage) continue;
    if (is_reduce(p->r->node[at]) || is_anchor(p->r->node[at])) continue;
    const md_shape *s = &md_type_in(p->r->g, v)->shape;
    if (!n->shape) n->shape = s;
    if (!md_shape_equal(s, n->shape)) continue;
    n->store[n->num_stores++] = v;
    p->done[i] = true;
    md_cu_place(p->w, v);
  }
}

static void emit_reductions(const Plan *p, int stage) {
  int num = p->r->num_nodes;
  bool *taken = MD_NEW_ARRAY(p->w->arena, bool, num);
  for (int i = 0; i < num; i++) {
    const md_node *first = p->r->node[i];
    if (!p->needed[i] || taken[i] || !is_reduce(first) || p->stage[i] != stage) continue;
    md_cu_nest n = nest_of(p, first, &md_type_in(p->r->g, first->in[0])->shape);
    for (int j = i; j < num; j++) {
      const md_node *other = p->r->node[j];
      if (!p->needed[j] || taken[j] || !is_reduce(other) || p->stage[j] != stage) continue;
      md_cu_nest m = nest_of(p, other, &md_type_in(p->r->g, other->in[0])->shape);
      if (!md_shape_equal(m.shape, n.shape) || m.kept != n.kept || m.channels != n.channels ||
          m.groups != n.groups)
        continue;
      taken[j] = true;
      n.reduce[n.num_reduces++] = other;
      place_results(p, other);
    }
    take_stores(p, &n, stage);
    md_cu_reduce(p->w, &n);
  }
}

static void emit_stage(const Plan *p, int stage) {
  int num = p->r->num_nodes;
  emit_reductions(p, stage);
  for (int i = 0; i < num; i++) {
    const md_node *n = p->r->node[i];
    if (!p->needed[i] || p->stage[i] != stage || !is_anchor(n)) continue;
    place_results(p, n);
    md_cu_nce(p->w, n);
  }
  for (;;) {
    md_cu_nest n = nest_of(p, NULL, NULL);
    take_stores(p, &n, stage);
    if (!n.num_stores) break;
    md_cu_walk(p->w, &n);
  }
  for (int i = 0; i < num; i++) {
    const md_node *n = p->r->node[i];
    if (p->needed[i] && p->stage[i] == stage && (is_reduce(n) || is_anchor(n)))
      finish_results(p, n);
  }
  for (int i = 0; i < p->r->num_outputs; i++)
    if (p->done[i]) md_cu_ready(p->w, p->r->output[i]);
}

void md_cu_region_kernels(md_cu_work *w) {
  int num = w->r->num_nodes, last = 0;
  Plan p = {.w = w,
            .r = w->r,
            .needed = MD_NEW_ARRAY(w->arena, bool, num + 1),
            .stage = MD_NEW_ARRAY(w->arena, int, num + 1),
            .done = MD_NEW_ARRAY(w->arena, bool, w->r->num_outputs + 1)};
  find_needed(&p);
  for (int i = 0; i < num; i++) last = p.needed[i] ? MD_MAX(last, p.stage[i]) : last;
  for (int stage = 0; stage <= last; stage++) emit_stage(&p, stage);
}
