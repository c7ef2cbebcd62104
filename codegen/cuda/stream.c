// SPDX-License-Identifier: Apache-2.0
// The order of a region's kernels. Values are made in stages: what needs neither a reduction nor an
// anchor first, then what needs one, and so on. In a stage, values of one shape and the reductions
// over it share a walk. A result may lie over an operand only where all that reads the operand does so
// at the result's own index (passes/live.c), and then the last kernel over that shape makes it: a walk,
// or the anchor's, if it leaves nothing for later.
//
// An anchor that says what it is at a place, like a pool, stands inside of a walk if that is all that
// reads it; others leave their results in memory. What an anchor reads again and again, it reads from
// memory: operands that are more than a load are made first. A few times are cheaper than the store.
#include "codegen/cuda/gen.h"

enum { FEW_READS = 4 };

typedef struct Plan {
  md_cu_work *w;
  const md_region_view *r;
  bool *needed;    // by node of the region
  int *stage;      // of a node's value
  bool *done;      // by output
  int last;        // stage
  bool by_itself;  // the anchor leaves its results in memory
  md_val formed;   // an output that the anchor's kernels store while they read it
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
static bool is_anchor(const Plan *p, const md_node *n) {
  return p->by_itself && (n == p->r->anchor || n == p->r->twin);
}

// Everything that reads the anchor is pointwise and of its shape, or a sum of that: one walk makes it all.
static bool is_walked_once(const md_region_view *r) {
  const md_shape *shape = &md_type_in(r->g, r->anchor->out)->shape;
  int sums = 0;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    if (!md_in_epilogue(r, n)) continue;
    bool is_sum = md_ops[n->op].role == MD_REDUCE;
    sums += is_sum;
    if (!is_sum && md_ops[n->op].role != MD_POINTWISE) return false;
    if (!md_shape_equal(&md_type_in(r->g, is_sum ? n->in[0] : n->out)->shape, shape)) return false;
  }
  return sums <= 1;
}

static bool stands_alone(const md_region_view *r) {
  const md_node *n = r->anchor;
  const md_cu_op *op = n ? md_cu_op_of(n->op) : NULL;
  if (!op) return false;
  if (op->emit && op->is_value) return md_same_memory(r->g, n->in[0], n->out);
  return op->emit || (op->is_long && !is_walked_once(r));
}

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
}

static void find_stages(Plan *p) {
  for (int i = 0; i < p->r->num_nodes; i++) {
    const md_node *n = p->r->node[i];
    for (int k = 0; k < n->num_in; k++) {
      int at = maker(p, n->in[k]);
      if (at < 0) continue;
      const md_node *from = p->r->node[at];
      p->stage[i] = MD_MAX(p->stage[i], p->stage[at] + (is_reduce(from) || is_anchor(p, from)));
    }
  }
}

// Twins are made together: the later stage of the two, and then of all that reads them.
static void join_twins(Plan *p) {
  int anchor = number_of(p, p->r->anchor), twin = number_of(p, p->r->twin);
  p->needed[anchor] |= p->needed[twin];
  p->stage[anchor] = p->stage[twin] = MD_MAX(p->stage[anchor], p->stage[twin]);
  find_stages(p);
}

// A reduction makes all of its results, an anchor those that somebody reads.
static bool is_made(const Plan *p, const md_node *n, int result) {
  return is_reduce(n) || p->r->g->value[n->out + (md_val)result].uses > 0;
}

static void place_results(const Plan *p, const md_node *n) {
  for (int i = 0; i < n->num_out; i++)
    if (is_made(p, n, i)) md_cu_place(p->w, n->out + (md_val)i);
}

static void finish_results(const Plan *p, const md_node *n) {
  for (int i = 0; i < n->num_out; i++)
    if (is_made(p, n, i)) md_cu_ready(p->w, n->out + (md_val)i);
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

static bool is_walked(const Plan *p, int i) {
  const md_node *n = p->r->node[i];
  return p->needed[i] && md_ops[n->op].role == MD_POINTWISE && !md_cu_is_ready(p->w, n->out);
}

// What v and others of the region are made of has one channel at each place of v: the shape of that, else v's.
static const md_shape *walked_for(const Plan *p, md_val v) {
  const md_shape *s = &md_type_in(p->r->g, v)->shape;
  for (int i = 0; i < p->r->num_nodes; i++) {
    const md_shape *one = &md_type_in(p->r->g, p->r->node[i]->out)->shape;
    if (is_walked(p, i) && md_cu_has_channels(one, s)) return one;
  }
  return s;
}

// Outputs of one shape, and of few channels where it has one, that are still missing in this stage.
static void take_stores(const Plan *p, md_cu_nest *n, int stage) {
  for (int i = 0; i < p->r->num_outputs; i++) {
    md_val v = p->r->output[i];
    int at = maker(p, v);
    if (p->done[i] || at < 0 || v == p->formed) continue;
    if (is_reduce(p->r->node[at]) || is_anchor(p, p->r->node[at])) continue;
    if (stage != (md_is_over_input(p->r, v) ? p->last : p->stage[at])) continue;
    const md_shape *s = &md_type_in(p->r->g, v)->shape;
    if (!n->shape) n->shape = walked_for(p, v);
    if (!md_shape_equal(s, n->shape) && !md_cu_has_channels(n->shape, s)) continue;
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
    if (md_cu_is_ready(p->w, first->out)) continue;  // the anchor's kernels made it
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

// A load, seen through views and casts.
static bool is_cheap(const Plan *p, md_val v) {
  int at = maker(p, v);
  if (at < 0) return true;
  const md_node *n = p->r->node[at];
  bool passes_on = n->op == MD_OP_cast || md_ops[n->op].role == MD_VIEW;
  return passes_on && is_cheap(p, n->in[0]);
}

// Windows of a pool overlap.
static int64_t num_reads(const md_node *n) {
  if (n->op != MD_OP_max_pool3d && n->op != MD_OP_avg_pool3d) return md_cu_op_of(n->op)->reads;
  int64_t num = 1;
  for (int i = 0; i < 3; i++)
    num *= md_ceil_div(n->attr.pool3d.kernel.d[i], n->attr.pool3d.stride.d[i]);
  return num;
}

static void settle_operands(const Plan *p) {
  const md_node *n = p->r->anchor;
  if (num_reads(n) <= FEW_READS) return;
  for (int i = 0; i < n->num_in; i++) {
    md_val v = n->in[i];
    // What lies over an operand cannot be there yet: others may read the operand.
    if (v == MD_NONE || is_cheap(p, v) || md_is_over_input(p->r, v)) continue;
    md_cu_place(p->w, v);
    md_cu_walk(p->w, &(md_cu_nest){.shape = &md_type_in(p->r->g, v)->shape,
                                   .groups = 1,
                                   .store = &v,
                                   .num_stores = 1});
    md_cu_ready(p->w, v);
  }
}

// A walk that leaves the results that somebody reads in memory.
static void walk_results(const Plan *p, const md_node *n) {
  md_val store[MD_ROW_OUT];
  md_cu_nest nest = {.shape = &md_type_in(p->r->g, n->out)->shape, .groups = 1, .store = store};
  for (int i = 0; i < n->num_out; i++)
    if (p->r->g->value[n->out + (md_val)i].uses) store[nest.num_stores++] = n->out + (md_val)i;
  md_cu_walk(p->w, &nest);
}

static void emit_anchor(const Plan *p) {
  const md_node *n = p->r->anchor;
  const md_cu_op *op = md_cu_op_of(n->op);
  if (!op->places) place_results(p, n);
  if (op->emit) op->emit(p->w, n);
  else walk_results(p, n);
}

static void emit_stage(const Plan *p, int stage) {
  int num = p->r->num_nodes, anchor = p->r->anchor ? number_of(p, p->r->anchor) : -1;
  bool here = anchor >= 0 && p->needed[anchor] && p->stage[anchor] == stage;
  if (here) settle_operands(p);
  emit_reductions(p, stage);
  for (int i = 0; i < num; i++)
    if (p->needed[i] && p->stage[i] == stage && is_reduce(p->r->node[i]))
      finish_results(p, p->r->node[i]);
  if (here && p->by_itself) emit_anchor(p);
  for (;;) {
    md_cu_nest n = nest_of(p, NULL, NULL);
    take_stores(p, &n, stage);
    if (!n.num_stores) break;
    md_cu_walk(p->w, &n);
  }
  for (int i = 0; i < num; i++) {
    const md_node *n = p->r->node[i];
    bool placed = is_anchor(p, n) && !md_cu_op_of(n->op)->places;
    if (p->needed[i] && p->stage[i] == stage && placed) finish_results(p, n);
  }
  for (int i = 0; i < p->r->num_outputs; i++)
    if (p->done[i]) md_cu_ready(p->w, p->r->output[i]);
}

void md_cu_region_kernels(md_cu_work *w) {
  int num = w->r->num_nodes;
  Plan p = {.w = w,
            .r = w->r,
            .needed = MD_NEW_ARRAY(w->arena, bool, num + 1),
            .stage = MD_NEW_ARRAY(w->arena, int, num + 1),
            .done = MD_NEW_ARRAY(w->arena, bool, w->r->num_outputs + 1),
            .by_itself = stands_alone(w->r),
            .formed = md_cu_formed(w->r)};
  find_needed(&p);
  find_stages(&p);
  if (w->r->twin) join_twins(&p);
  if (p.formed && !p.needed[number_of(&p, w->r->anchor)]) p.formed = MD_NONE;
  for (int i = 0; i < num; i++) p.last = p.needed[i] ? MD_MAX(p.last, p.stage[i]) : p.last;
  for (int stage = 0; stage <= p.last; stage++) emit_stage(&p, stage);
}
