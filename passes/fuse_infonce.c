// SPDX-License-Identifier: Apache-2.0
// fuse-infonce: the logits of InfoNCE never exist in memory, and each bank is read once.
//
//   z = nce_mask(matmul(q, bank^T), ids, bank_ids) {tau}
//   logsumexp(z), max(z, rows)  =  nce_lse(q, ids, bank, bank_ids) {tau}
//
// All queries against one bank share the pass: equal (q, ids) are one, different ones are stacked,
//   lse of q1, lse of q2  =  slices of nce_lse(concat(q1, q2), concat(ids1, ids2), bank, bank_ids)
// unless their ids differ in type or one query depends on the other's result. Holds when nobody else reads the logits, and when
// no gradient is wanted for the bank or through the maximum: nce_lse has none there. Runs before
// autodiff, so that the same pass over the bank brings what the gradient of the queries needs. Not
// bitwise: the sum runs in another order.
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

enum {
  MAX_GROUPS = 64,   // banks in a graph
  MAX_MEMBERS = 32,  // different queries against one bank
  MAX_LOOKS = 16,    // nodes looked at for stacking, for each node of the graph
};

typedef struct Member {
  md_val q, ids;
  bool alone;       // depends on another member: has a pass of its own
  md_val lse, top;  // in the new graph, once built
} Member;

typedef struct Group {
  md_val bank, bank_ids;
  md_dtype ids;  // of the members: stacked ids are of one type
  double tau;
  Member member[MAX_MEMBERS];
  int num;
  bool built;
} Group;

typedef struct Site {
  int group, member;
} Site;  // group -1: none

typedef struct Fusion {
  md_rewriter *r;
  const md_graph *g;
  md_readers readers;
  bool *from_wrt, *to_loss;  // by value: a gradient's path may lead through it
  Group *group;
  int num_groups;
  Site *site;     // by node: of the mask, its matmul and its readers
  bool *emitted;  // by node
  int64_t looks;
} Fusion;

static void find_gradient_paths(Fusion *f) {
  const md_graph *g = f->g;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op != MD_OP_gradient) continue;
    f->to_loss[n->in[0]] = true;
    for (int j = 1; j < n->num_in; j++) f->from_wrt[n->in[j]] = true;
  }
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    bool any = false;
    for (int j = 0; j < n->num_in; j++) any |= f->from_wrt[n->in[j]];
    for (int j = 0; any && j < n->num_out; j++) f->from_wrt[n->out + (md_val)j] = true;
  }
  for (int i = g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = g->node[i];
    bool any = false;
    for (int j = 0; j < n->num_out; j++) any |= f->to_loss[n->out + (md_val)j];
    for (int j = 0; any && j < n->num_in; j++) f->to_loss[n->in[j]] = true;
  }
}

static bool reads_rows(const md_node *n) {
  const md_dims *axes = &n->attr.axes.axes;
  return n->op == MD_OP_logsumexp || (n->op == MD_OP_max && axes->n == 1 && axes->d[0] == 1);
}

// Why the mask n is no site; NULL: it is one.
static const char *refuse(const Fusion *f, const md_node *n) {
  const md_node *product = md_def(f->g, n->in[0]);
  if (product->op != MD_OP_matmul || product->attr.matmul.ta || !product->attr.matmul.tb)
    return "masks no product of queries and a bank";
  if (f->readers.kept[n->out] || f->readers.kept[product->out])
    return "the logits are a result of the graph";
  for (int i = f->readers.first[product->out]; i < f->readers.first[product->out + 1]; i++)
    if (f->g->node[f->readers.reader[i]] != n) return "the raw logits have another reader";
  if (f->readers.first[n->out] == f->readers.first[n->out + 1]) return "nobody reads the logits";
  for (int i = f->readers.first[n->out]; i < f->readers.first[n->out + 1]; i++) {
    const md_node *reader = f->g->node[f->readers.reader[i]];
    if (!reads_rows(reader)) return "the logits have another reader";
    if (reader->op == MD_OP_max && f->from_wrt[reader->out] && f->to_loss[reader->out])
      return "a gradient would lead through the maximum";
  }
  if (f->from_wrt[product->in[1]] && f->to_loss[n->out]) return "a gradient would lead to the bank";
  return NULL;
}

// The place of (bank, q) among the groups; group -1 when the tables are full.
static Site find_place(Fusion *f, const md_node *n, const md_node *product) {
  md_val bank = product->in[1], q = product->in[0];
  md_dtype ids = md_type_in(f->g, n->in[1])->dtype;
  int i = 0;
  for (; i < f->num_groups; i++) {
    const Group *g = &f->group[i];
    if (g->bank == bank && g->bank_ids == n->in[2] && g->ids == ids && g->tau == n->attr.f.value)
      break;
  }
  if (i == MAX_GROUPS) return (Site){.group = -1};
  Group *g = &f->group[i];
  if (i == f->num_groups) {
    *g = (Group){.bank = bank, .bank_ids = n->in[2], .ids = ids, .tau = n->attr.f.value};
    f->num_groups++;
  }
  for (int k = 0; k < g->num; k++)
    if (g->member[k].q == q && g->member[k].ids == n->in[1]) return (Site){i, k};
  if (g->num == MAX_MEMBERS) return (Site){.group = -1};
  g->member[g->num] = (Member){.q = q, .ids = n->in[1]};
  return (Site){i, g->num++};
}

static void find_sites(Fusion *f) {
  const md_graph *g = f->g;
  for (int i = 0; i < g->num_nodes; i++) f->site[i].group = -1;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op != MD_OP_nce_mask || !md_may_rewrite(f->r)) continue;
    const char *why = refuse(f, n);
    if (why) {
      md_site_kept(f->r, n, "%s", why);
      continue;
    }
    const md_node *product = md_def(g, n->in[0]);
    Site s = find_place(f, n, product);
    if (s.group < 0) {
      md_site_kept(f->r, n, "more than %d banks, or %d queries of one", MAX_GROUPS, MAX_MEMBERS);
      continue;
    }
    md_site_done(f->r, n, "streams %s", md_value_text(g, product->in[1], f->r->scratch));
    f->site[i] = f->site[product->index] = s;
    for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++)
      f->site[f->readers.reader[k]] = s;
    f->r->rewrites++;
  }
}

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static void copy(Fusion *f, int node) {
  f->emitted[node] = true;
  md_copy_node(f->r, f->g->node[node]);
}

// Emits all that v depends on, early; false when that needs a pass over a bank first.
static bool pull(Fusion *f, md_val v) {
  const md_graph *g = f->g;
  int *found = NULL, num = 0, cap = 0;
  bool *seen = f->emitted;  // marked while found, unmarked on failure
  bool good = true;
  if (!seen[md_def(g, v)->index]) {
    MD_PUSH(found, num, cap, md_def(g, v)->index);
    seen[found[0]] = true;
  }
  for (int i = 0; good && i < num; i++) {
    const md_node *n = g->node[found[i]];
    good = f->site[found[i]].group < 0 && f->looks-- > 0;
    for (int j = 0; good && j < n->num_in; j++) {
      int from = n->in[j] ? md_def(g, n->in[j])->index : -1;
      if (from < 0 || seen[from]) continue;
      seen[from] = true;
      MD_PUSH(found, num, cap, from);
    }
  }
  if (good && num) {
    qsort(found, (size_t)num, sizeof *found, ascending);
    for (int i = 0; i < num; i++) copy(f, found[i]);
  }
  for (int i = 0; !good && i < num; i++) seen[found[i]] = false;
  free(found);
  return good;
}

static md_val stream(Fusion *f, const Group *g, md_val q, md_val ids) {
  md_attr tau = {.f = {.value = g->tau}};
  md_val in[] = {q, ids, md_mapped(f->r, g->bank), md_mapped(f->r, g->bank_ids)};
  return md_add_node(&f->r->b, MD_OP_nce_lse, in, 4, &tau);
}

// One pass for all members whose queries can be had by now.
static void build(Fusion *f, Group *g) {
  md_builder *b = &f->r->b;
  md_val q[MAX_MEMBERS], ids[MAX_MEMBERS];
  int num = 0;
  for (int i = 0; i < g->num; i++) {
    Member *m = &g->member[i];
    m->alone = !pull(f, m->q) || !pull(f, m->ids);
    if (m->alone) continue;
    q[num] = md_mapped(f->r, m->q);
    ids[num++] = md_mapped(f->r, m->ids);
  }
  g->built = true;
  md_val all_q = num > 1 ? md_concat(b, q, num, 0) : q[0];
  md_val all_ids = num > 1 ? md_concat(b, ids, num, 0) : ids[0];
  md_val lse = stream(f, g, all_q, all_ids);
  md_val top = md_result_of(b, lse, 1);
  int64_t start = 0;
  for (int i = 0; i < g->num; i++) {
    Member *m = &g->member[i];
    if (m->alone) continue;
    int64_t rows = md_type_in(f->g, m->q)->shape.dim[0];
    m->lse = num > 1 ? md_slice(b, lse, 0, start, rows) : lse;
    m->top = num > 1 ? md_slice(b, top, 0, start, rows) : top;
    start += rows;
  }
}

static void emit_reader(Fusion *f, const md_node *n) {
  Group *g = &f->group[f->site[n->index].group];
  Member *m = &g->member[f->site[n->index].member];
  md_place_like(f->r, n);
  if (!g->built) build(f, g);
  if (m->lse == MD_NONE) {
    m->lse = stream(f, g, md_mapped(f->r, m->q), md_mapped(f->r, m->ids));
    m->top = md_result_of(&f->r->b, m->lse, 1);
  }
  f->r->map[n->out] = n->op == MD_OP_max ? m->top : m->lse;
  f->emitted[n->index] = true;
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  Fusion f = {.r = r,
              .g = g,
              .readers = md_readers_of(g, r->scratch),
              .from_wrt = MD_NEW_ARRAY(r->scratch, bool, g->num_values + 1),
              .to_loss = MD_NEW_ARRAY(r->scratch, bool, g->num_values + 1),
              .group = MD_NEW_ARRAY(r->scratch, Group, MAX_GROUPS),
              .site = MD_NEW_ARRAY(r->scratch, Site, g->num_nodes + 1),
              .emitted = MD_NEW_ARRAY(r->scratch, bool, g->num_nodes + 1),
              .looks = (int64_t)MAX_LOOKS * g->num_nodes};
  find_gradient_paths(&f);
  find_sites(&f);
  for (int i = 0; i < g->num_nodes && !r->b.failed; i++) {
    const md_node *n = g->node[i];
    if (f.emitted[i]) continue;
    if (f.site[i].group < 0) copy(&f, i);
    else if (reads_rows(n)) emit_reader(&f, n);
  }
  return true;
}

const md_pass md_pass_fuse_infonce = {
    .name = "fuse-infonce",
    .doc = "streams each bank once for all InfoNCE terms",
    .needs = MD_NEEDS_NO_REGIONS,
    .run = run,
};
