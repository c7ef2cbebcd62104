// SPDX-License-Identifier: Apache-2.0
// The memory plan. Time is the number of a node; what happens in a region happens at once, so a
// value lives from the first node of the region that makes it to the last node of the last region
// that reads it, and results and next states live on. Places of values that live at the same time
// are disjoint, with one exception: a value may lie over one that dies in its region, when every
// element is read and written at its own index.
//
// Sweep over time. Intervals [begin, end) of live places meet [b, e) in
//     #(begin < e) - #(end <= b)
// places (a place that ends before b also begins before e), so two Fenwick trees over the sorted
// borders answer in O(log n), whatever a stranger's text contains.
#include "graph/graph.h"

#include <stdlib.h>

typedef struct place {
  int64_t begin, end;    // bytes
  int begin_at, end_at;  // their ranks among all borders
  int from, to;          // time
  md_val val;
  bool is_live;
} place;

typedef struct plan {
  const md_graph *g;
  md_arena *a;
  md_diags *d;
  int *last;      // by value: end of its life
  bool *tainted;  // by value: scratch of may_overwrite; false between calls
  place *place;   // by time of birth
  int num;
  int64_t *border;  // sorted, unique
  int num_borders;
  int *begins, *ends;  // Fenwick trees
  int *owner;          // by border: live place that begins there, + 1
} plan;

static int unit_begin(const md_graph *g, const md_node *n) {
  return n->region ? g->region[n->region].first : n->index;
}

static int unit_end(const md_graph *g, const md_node *n) {
  const md_region *r = &g->region[n->region];
  return n->region ? r->first + r->num - 1 : n->index;
}

static const char *value_text(const md_graph *g, md_val v) {
  const char *name = g->value[v].name;
  return name ? md_format(g->arena, "%%%s", name) : md_format(g->arena, "%%%u", v);
}

static void find_lives(plan *p) {
  const md_graph *g = p->g;
  p->last = MD_NEW_ARRAY(p->a, int, g->num_values + 1);
  p->tainted = MD_NEW_ARRAY(p->a, bool, g->num_values + 1);
  for (md_val v = 1; v <= (md_val)g->num_values; v++) p->last[v] = unit_end(g, g->value[v].node);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    for (int k = 0; k < n->num_in; k++)
      p->last[n->in[k]] = MD_MAX(p->last[n->in[k]], unit_end(g, n));
  }
  for (int i = 0; i < g->num_updates; i++) p->last[g->update[i].val] = g->num_nodes;
  for (int i = 0; i < g->num_results; i++) p->last[g->result[i].val] = g->num_nodes;
}

// y may be written over x, read for the last time in y's region: all in the region that depends on
// x is pointwise and of x's shape, so element i is read before anything else needs its bytes. And
// bank_push, which changes some rows and keeps the others.
static bool may_overwrite(plan *p, md_val x, md_val y) {
  const md_graph *g = p->g;
  const md_type *tx = &g->value[x].type, *ty = &g->value[y].type;
  const md_node *made = g->value[y].node;
  if (!md_shape_equal(&tx->shape, &ty->shape) || tx->block != ty->block ||
      md_dtype_size(tx->dtype) != md_dtype_size(ty->dtype))
    return false;
  int first = unit_begin(g, made), end = unit_end(g, made) + 1;
  if (made->op == MD_OP_bank_push)
    return end - first == 1 && made->in[0] == x && made->in[1] != x && made->in[2] != x;
  bool ok = md_ops[made->op].role == MD_POINTWISE;
  p->tainted[x] = true;
  for (int i = first; ok && i < end; i++) {
    const md_node *n = g->node[i];
    bool reads = false;
    for (int k = 0; k < n->num_in; k++) reads |= n->in[k] != MD_NONE && p->tainted[n->in[k]];
    if (!reads) continue;
    ok = md_ops[n->op].role == MD_POINTWISE &&
         md_shape_equal(&g->value[n->out].type.shape, &tx->shape);
    for (int k = 0; k < n->num_out; k++) p->tainted[n->out + (md_val)k] = true;
  }
  p->tainted[x] = false;
  for (int i = first; i < end; i++)
    for (int k = 0; k < g->node[i]->num_out; k++) p->tainted[g->node[i]->out + (md_val)k] = false;
  return ok;
}

// The value that updates state s in place: nobody reads the old value afterwards.
static bool check_storage(plan *p, md_val v, const md_val *next) {
  const md_graph *g = p->g;
  md_val s = g->value[v].storage;
  const md_node *n = g->value[v].node;
  if (s > (md_val)g->num_values || g->value[s].node->op != MD_OP_state || next[s] != v)
    return md_error(p->d, E0314, n->place, "%s lies in value %u, which is no state that it updates",
                    value_text(g, v), s);
  const char *state = g->value[s].node->name;
  if (g->value[v].offset >= 0)
    return md_error(p->d, E0314, n->place, "%s lies both in the arena and in state %s",
                    value_text(g, v), state);
  if (!md_type_equal(&g->value[s].type, &g->value[v].type))
    return md_error(p->d, E0314, n->place,
                    "%s does not have the type of state %s, in which it lies", value_text(g, v),
                    state);
  int begin = unit_begin(g, n), end = unit_end(g, n);
  if (p->last[s] < begin || (p->last[s] <= end && may_overwrite(p, s, v))) return true;
  return md_error(p->d, E0314, n->place, "%s overwrites state %s, whose old value is still read",
                  value_text(g, v), state);
}

// What has a place may have it, and what needs one has it.
static bool check_value(plan *p, md_val v, const md_val *next) {
  const md_graph *g = p->g;
  const md_value *value = &g->value[v];
  const md_node *n = value->node;
  bool has_place = value->offset >= 0 || value->storage != MD_NONE;
  if (value->offset < -1)
    return md_error(p->d, E0314, n->place, "%s has offset %lld", value_text(g, v),
                    (long long)value->offset);
  if (has_place && g->arena_bytes < 0)
    return md_error(p->d, E0314, n->place, "%s has a place, but graph %s has no arena",
                    value_text(g, v), g->name);
  if (has_place && md_ops[n->op].role == MD_LEAF)
    return md_error(p->d, E0314, n->place, "%s has a place, but every %s has its own memory",
                    value_text(g, v), md_ops[n->op].name);
  if (g->arena_bytes < 0 || md_ops[n->op].role == MD_LEAF) return true;
  if (md_ops[n->op].role == MD_META)
    return md_error(p->d, E0314, n->place, "%s must be expanded before memory is planned",
                    md_ops[n->op].name);
  if (!n->region) {
    md_error(p->d, E0314, n->place,
             "%s is made outside of the regions, but only regions use the "
             "arena of graph %s",
             value_text(g, v), g->name);
    md_hint(p->d, "put it into a region, or leave the arena away: the passes regions and memory "
                  "make a plan");
    return false;
  }
  if (value->storage != MD_NONE) return check_storage(p, v, next);
  if (value->offset < 0) {
    if (p->last[v] <= unit_end(g, n)) return true;
    return md_error(p->d, E0314, n->place, "%s is read outside of its region, but has no place",
                    value_text(g, v));
  }
  int size = md_dtype_size(value->type.dtype);
  if (value->offset % size != 0)
    return md_error(p->d, E0314, n->place, "%s at %lld is not aligned to its %d bytes",
                    value_text(g, v), (long long)value->offset, size);
  if (value->offset > g->arena_bytes - md_type_bytes(&value->type))
    return md_error(p->d, E0314, n->place, "%s at %lld reaches beyond the arena of %lld bytes",
                    value_text(g, v), (long long)value->offset, (long long)g->arena_bytes);
  return true;
}

static int compare_int64(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static int compare_death(const void *a, const void *b) {
  const place *x = *(place *const *)a, *y = *(place *const *)b;
  return x->to != y->to ? (x->to > y->to) - (x->to < y->to) : (x->val > y->val) - (x->val < y->val);
}

static int border_rank(const plan *p, int64_t border) {
  const int64_t *at =
      bsearch(&border, p->border, (size_t)p->num_borders, sizeof border, compare_int64);
  return (int)(at - p->border);
}

static void collect_places(plan *p) {
  const md_graph *g = p->g;
  p->place = MD_NEW_ARRAY(p->a, place, g->num_values + 1);
  for (md_val v = 1; v <= (md_val)g->num_values; v++) {
    const md_value *value = &g->value[v];
    if (value->offset < 0) continue;
    // Values are numbered by their nodes and regions are runs of nodes: births come in order.
    p->place[p->num++] = (place){.begin = value->offset,
                                 .end = value->offset + md_type_bytes(&value->type),
                                 .from = unit_begin(g, value->node),
                                 .to = p->last[v],
                                 .val = v};
  }
  int64_t *border = p->border = MD_NEW_ARRAY(p->a, int64_t, 2 * (int64_t)p->num + 1);
  int num = 0;
  for (int i = 0; i < p->num; i++) {
    border[num++] = p->place[i].begin;
    border[num++] = p->place[i].end;
  }
  qsort(border, (size_t)num, sizeof *border, compare_int64);
  for (int i = 0; i < num; i++)
    if (!i || border[i] != border[i - 1]) border[p->num_borders++] = border[i];
  for (int i = 0; i < p->num; i++) {
    p->place[i].begin_at = border_rank(p, p->place[i].begin);
    p->place[i].end_at = border_rank(p, p->place[i].end);
  }
  p->begins = MD_NEW_ARRAY(p->a, int, p->num_borders + 1);
  p->ends = MD_NEW_ARRAY(p->a, int, p->num_borders + 1);
  p->owner = MD_NEW_ARRAY(p->a, int, p->num_borders + 1);
}

static void fenwick_add(int *tree, int size, int rank, int by) {
  for (int i = rank + 1; i <= size; i += i & -i) tree[i] += by;
}

// Sum over ranks below `rank`.
static int fenwick_below(const int *tree, int rank) {
  int sum = 0;
  for (int i = rank; i > 0; i -= i & -i) sum += tree[i];
  return sum;
}

static void set_live(plan *p, place *x, bool live) {
  if (x->is_live == live) return;
  x->is_live = live;
  fenwick_add(p->begins, p->num_borders, x->begin_at, live ? 1 : -1);
  fenwick_add(p->ends, p->num_borders, x->end_at, live ? 1 : -1);
  p->owner[x->begin_at] = live ? (int)(x - p->place) + 1 : 0;
}

static bool is_free(const plan *p, const place *x) {
  return fenwick_below(p->begins, x->end_at) == fenwick_below(p->ends, x->begin_at + 1);
}

static bool reject_overlap(const plan *p, const place *x) {
  for (int i = 0; i < p->num; i++) {
    const place *y = &p->place[i];
    if (!y->is_live || y->begin >= x->end || y->end <= x->begin) continue;
    return md_error(p->d, E0314, p->g->value[x->val].node->place,
                    "%s at %lld overlaps %s at %lld, which is still live", value_text(p->g, x->val),
                    (long long)x->begin, value_text(p->g, y->val), (long long)y->begin);
  }
  MD_ASSERT(false, "the sweep saw an overlap that does not exist");
}

static bool check_overlaps(plan *p) {
  collect_places(p);
  place **death = MD_NEW_ARRAY(p->a, place *, p->num + 1);
  for (int i = 0; i < p->num; i++) death[i] = &p->place[i];
  qsort(death, (size_t)p->num, sizeof *death, compare_death);
  for (int i = 0, dead = 0; i < p->num; i++) {
    place *x = &p->place[i];
    for (; dead < p->num && death[dead]->to < x->from; dead++) set_live(p, death[dead], false);
    if (!is_free(p, x)) {
      int under = p->owner[x->begin_at];
      place *y = under ? &p->place[under - 1] : NULL;
      bool dies_here = y && y->from < x->from && y->to == unit_end(p->g, p->g->value[x->val].node);
      if (dies_here && may_overwrite(p, y->val, x->val)) set_live(p, y, false);
      if (!is_free(p, x)) {
        if (dies_here) set_live(p, y, true);
        return reject_overlap(p, x);
      }
    }
    set_live(p, x, true);
  }
  return true;
}

// Nodes, updates, results and regions of g are verified already.
bool md_plan_verify(const md_graph *g, md_arena *a, md_diags *d) {
  plan p = {.g = g, .a = a, .d = d};
  if (g->arena_bytes < -1)
    return md_error(d, E0314, MD_NOWHERE, "an arena of %lld bytes", (long long)g->arena_bytes);
  find_lives(&p);
  md_val *next = MD_NEW_ARRAY(a, md_val, g->num_values + 1);
  for (int i = 0; i < g->num_updates; i++) next[g->update[i].state] = g->update[i].val;
  for (md_val v = 1; v <= (md_val)g->num_values; v++)
    if (!check_value(&p, v, next)) return false;
  return g->arena_bytes < 0 || check_overlaps(&p);
}
