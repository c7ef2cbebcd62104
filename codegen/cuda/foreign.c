// SPDX-License-Identifier: Apache-2.0
// Convolutions that another engine can do in place of our launches: a region that is one convolution, or one
// gradient of it, with weights that are cast on the way; and around a forward one what engines fuse, too:
//
//   x -> batch norm -+-> add -> relu -> conv3d -> bias -> add -> relu        or -> moments
//   z -> batch norm -'
//
// Its operands and its results lie where the graph says; and its launches, but for weights that are packed
// early, come one behind the other and do nothing for other regions.
#include "codegen/cuda/foreign.h"

#include "codegen/region.h"

#include <stdlib.h>
#include <string.h>

// --- what a region computes

typedef struct Match {
  const md_region_view *r;
  md_foreign_conv *to;
  int num_seen;  // nodes of the region that were met, each once
  bool seen[MD_MAX_REGION];
} Match;

static const md_node *see(Match *m, const md_node *n) {
  int at = n->index - m->r->node[0]->index;
  m->num_seen += !m->seen[at];
  m->seen[at] = true;
  return n;
}

static bool is_float(const md_graph *g, md_val v) {
  md_dtype t = md_type_in(g, v)->dtype;
  return t == MD_F32 || t == MD_BF16;
}

// A constant has no place.
static bool is_tensor(const md_graph *g, md_val v) {
  return is_float(g, v) && md_def(g, v)->op != MD_OP_constant;
}

// Of what v is a cast of, within the region.
static md_val uncast(Match *m, md_val v) {
  const md_node *n = md_inner(m->r, v);
  while (n && n->op == MD_OP_cast && is_float(m->r->g, n->in[0])) {
    see(m, n);
    v = n->in[0];
    n = md_inner(m->r, v);
  }
  return v;
}

// The node that makes v, but for casts, if it is such an operation.
static const md_node *made_by(Match *m, md_val *v, md_op op) {
  *v = uncast(m, *v);
  const md_node *n = md_inner(m->r, *v);
  return n && n->op == op ? see(m, n) : NULL;
}

// It comes from outside and lies there.
static bool take(Match *m, md_val v, md_val *to) {
  *to = v;
  return !md_inner(m->r, v) && is_tensor(m->r->g, v);
}

// By channel, of one group of samples.
static bool take_vector(Match *m, md_val v, md_val *to) {
  const md_type *t = md_type_in(m->r->g, v);
  bool is_one = t->shape.rank == 1 || (t->shape.rank == 2 && t->shape.dim[0] == 1);
  return take(m, v, to) && is_one && t->dtype == MD_F32;
}

// x, or a batch norm of it, whose operands are the parts from `gamma` on.
static bool take_term(Match *m, md_val v, md_val *x, md_conv_part gamma, double *eps) {
  const md_node *norm = made_by(m, &v, MD_OP_batch_norm);
  if (!norm) return take(m, v, x);
  *eps = norm->attr.batch_norm.eps;
  for (int i = 0; i < 4; i++)
    if (!take_vector(m, norm->in[1 + i], &m->to->part[(int)gamma + i])) return false;
  return take(m, uncast(m, norm->in[0]), x);
}

// What is convolved.
static bool match_front(Match *m) {
  md_foreign_conv *c = m->to;
  md_val source = c->node->in[0], v = source;
  const md_graph *g = m->r->g;
  c->fused.relu_before = made_by(m, &v, MD_OP_relu) != NULL;
  if (c->fused.relu_before) v = md_inner(m->r, v)->in[0];
  const md_node *sum = made_by(m, &v, MD_OP_add);
  if (!take_term(m, sum ? sum->in[0] : v, &c->x, MD_CONV_GAMMA, &c->fused.eps)) return false;
  if (sum && !take_term(m, sum->in[1], &c->part[MD_CONV_ADD], MD_CONV_ADD_GAMMA, &c->fused.add_eps))
    return false;
  if (md_is_output(m->r, source)) c->part[MD_CONV_FORMED] = source;
  return md_type_in(g, source)->dtype == md_type_in(g, c->x)->dtype;
}

// The only node of the region that reads v.
static const md_node *reader_of(const Match *m, md_val v) {
  const md_node *found = NULL;
  for (int i = 0; i < m->r->num_nodes; i++)
    for (int k = 0; k < m->r->node[i]->num_in; k++)
      if (m->r->node[i]->in[k] == v) found = m->r->node[i];
  return found;
}

// v becomes what is made of it, if it is made so.
static const md_node *follow(Match *m, md_val *v, md_op op) {
  const md_node *n = reader_of(m, *v);
  while (n && n->op == MD_OP_cast && !md_is_output(m->r, *v)) {
    see(m, n);
    *v = n->out;
    n = reader_of(m, *v);
  }
  if (!n || n->op != op || md_is_output(m->r, *v)) return NULL;
  *v = n->out;
  return see(m, n);
}

// A plain y whose moments are taken, or a y that is made of the sums.
static bool match_back(Match *m) {
  md_foreign_conv *c = m->to;
  md_val v = c->y, of;
  for (int i = 0; i < m->r->num_nodes; i++) {
    const md_node *n = m->r->node[i];
    if (n->op != MD_OP_moments) continue;
    of = uncast(m, n->in[0]);
    if (of != c->y || !md_is_output(m->r, of) || n->attr.i.value != 1) return false;
    c->part[MD_CONV_MEAN] = n->out;
    c->part[MD_CONV_VAR] = n->out + 1;
    see(m, n);
    return true;
  }
  const md_node *sum = follow(m, &v, MD_OP_add);
  if (sum) {
    md_val a = uncast(m, sum->in[0]), b = uncast(m, sum->in[1]);
    if (!take(m, a == c->y ? b : a, &c->part[MD_CONV_REST])) return false;
  }
  c->fused.relu_behind = follow(m, &v, MD_OP_relu) != NULL;
  if (!md_is_output(m->r, v)) follow(m, &v, MD_OP_cast);
  c->y = v;
  return true;
}

static bool match_weights(Match *m, md_dtype type) {
  md_foreign_conv *c = m->to;
  md_dtype t = md_type_in(m->r->g, uncast(m, c->node->in[1]))->dtype;
  return take(m, uncast(m, c->node->in[1]), &c->w) &&
         (t == type || (t == MD_F32 && type == MD_BF16));
}

static bool match_anchor(Match *m) {
  md_foreign_conv *c = m->to;
  const md_node *n = see(m, c->node);
  c->y = n->out;
  switch (n->op) {
  case MD_OP_conv3d:
    if (n->num_in > 2 && n->in[2] != MD_NONE &&
        !take(m, uncast(m, n->in[2]), &c->part[MD_CONV_BIAS]))
      return false;
    return match_front(m) && match_weights(m, md_type_in(m->r->g, n->in[0])->dtype) &&
           match_back(m);
  case MD_OP_conv3d_dgrad:
    c->x = n->out;
    return take(m, n->in[0], &c->y) && match_weights(m, md_type_in(m->r->g, n->in[0])->dtype);
  case MD_OP_conv3d_wgrad:
    c->w = n->out;
    return take(m, n->in[0], &c->y) && take(m, n->in[1], &c->x);
  default: return false;
  }
}

// Nothing but that is computed, and what the outside sees is a result of it, over nothing that it reads.
static bool match(const md_region_view *r, md_foreign_conv *to) {
  Match m = {.r = r, .to = to};
  *to = (md_foreign_conv){.node = r->anchor};
  for (int i = 0; i < MD_NUM_CONV_PARTS; i++) to->part[i] = MD_NONE;
  if (!r->anchor || r->twin || !match_anchor(&m) || m.num_seen != r->num_nodes) return false;
  for (int i = 0; i < r->num_outputs; i++) {
    md_val v = r->output[i];
    md_val anchor = to->node->op == MD_OP_conv3d ? to->y : to->node->out;
    bool is_ours = v == anchor || v == to->part[MD_CONV_FORMED] || v == to->part[MD_CONV_MEAN] ||
                   v == to->part[MD_CONV_VAR];
    if (!is_ours || !is_tensor(r->g, v) || (r->num_nodes > 1 && md_is_over_input(r, v)))
      return false;
  }
  return true;
}

// --- its launches

static int num_parts(const md_cuda_launch *l) { return l->num_parts ? l->num_parts : 1; }
static const md_cuda_launch *part_of(const md_cuda_launch *l, int i) {
  return l->num_parts ? &l->part[i] : l;
}

// How many parts of a launch are the region's.
static int parts_of(const md_cuda_launch *l, int region) {
  int num = 0;
  for (int i = 0; i < num_parts(l); i++) num += part_of(l, i)->region == region;
  return num;
}

static bool has_moved(const md_cuda_launch *l, int region) {
  for (int i = 0; i < num_parts(l); i++)
    if (part_of(l, i)->region == region && part_of(l, i)->is_moved) return true;
  return false;
}

static bool is_early(const md_cuda_launch *l, int region) {
  for (int i = 0; i < num_parts(l); i++)
    if (part_of(l, i)->region == region && !part_of(l, i)->is_early) return false;
  return true;
}

static bool is_whole(const md_cuda_launch *l, int region) {
  return parts_of(l, region) == num_parts(l);
}

static bool writes_over(const md_cuda_launch *l, const md_graph *g, md_val v) {
  for (int i = 0; i < num_parts(l); i++) {
    const md_cuda_launch *part = part_of(l, i);
    for (int k = 0; k < part->num_args; k++)
      if (part->arg[k].write && part->arg[k].val != MD_NONE &&
          md_shares_memory(g, part->arg[k].val, v))
        return true;
  }
  return false;
}

// From where weights are packed early on, the graph's own may be gone, which another engine would read.
static bool keeps_operands(const md_region_view *r, const md_cuda_module *m,
                           const md_foreign_conv *c) {
  int i = 0;
  while (!parts_of(&m->launch[i], r->index)) i++;
  for (; i < c->first; i++)
    for (int k = 0; k < r->num_inputs; k++)
      if (writes_over(&m->launch[i], r->g, r->input[k])) return false;
  return true;
}

// The launches that are the region's alone. What is packed early stays where it is unless it stands among
// them or directly before: then nobody else needs it.
static bool find_launches(const md_cuda_module *m, int region, md_foreign_conv *to) {
  int first = -1, last = -1;
  for (int i = 0; i < m->num_launches; i++) {
    const md_cuda_launch *l = &m->launch[i];
    if (has_moved(l, region)) return false;
    if (!parts_of(l, region) || is_early(l, region)) continue;
    if (first < 0) first = i;
    last = i;
  }
  if (first < 0) return false;
  for (int i = first; i <= last; i++)
    if (!is_whole(&m->launch[i], region)) return false;
  while (first > 0 && is_whole(&m->launch[first - 1], region)) first--;
  to->first = first;
  to->num = last + 1 - first;
  return true;
}

static int compare(const void *a, const void *b) {
  return ((const md_foreign_conv *)a)->first - ((const md_foreign_conv *)b)->first;
}

md_foreign_conv *md_cu_foreign_convs(const md_graph *g, const md_cuda_module *m, int *num,
                                     md_arena *a) {
  md_foreign_conv *all = MD_NEW_ARRAY(a, md_foreign_conv, g->num_regions + 1);
  md_arena *scratch = md_arena_create();
  *num = 0;
  for (int region = 1; region <= g->num_regions; region++) {
    md_foreign_conv *c = &all[*num];
    const md_region_view *r = md_region_view_of(g, region, NULL, scratch);
    if (match(r, c) && find_launches(m, region, c) && keeps_operands(r, m, c)) (*num)++;
    md_arena_reset(scratch);
  }
  md_arena_destroy(scratch);
  qsort(all, (size_t)*num, sizeof *all, compare);
  return all;
}
