// SPDX-License-Identifier: Apache-2.0
// Regions as a graph: what waits for what, and what lies in memory meanwhile.
#include "passes/schedule.h"

#include <stdlib.h>

typedef struct Edge {
  int from, to;
} Edge;
static int by_from(const void *a, const void *b) {
  const Edge *x = a, *y = b;
  return x->from != y->from ? (x->from < y->from ? -1 : 1) : (x->to > y->to) - (x->to < y->to);
}

// Sorts, removes repeats, and returns how many stay; fills first[1..num] as an index.
static int index_edges(Edge *e, int num_edges, int *first, int num) {
  qsort(e, (size_t)num_edges, sizeof *e, by_from);
  int kept = 0;
  for (int i = 0; i < num_edges; i++)
    if (!i || by_from(&e[i], &e[i - 1]) != 0) e[kept++] = e[i];
  for (int i = 0; i < kept; i++) first[e[i].from + 1]++;
  for (int i = 0; i <= num; i++) first[i + 1] += first[i];
  return kept;
}

static int *targets(const Edge *e, int num, md_arena *a) {
  int *to = MD_NEW_ARRAY(a, int, num + 1);
  for (int i = 0; i < num; i++) to[i] = e[i].to;
  return to;
}

// Nobody reads what the region makes within the step.
static bool *find_sinks(const md_graph *g, md_arena *a) {
  bool *sink = MD_NEW_ARRAY(a, bool, g->num_regions + 1);
  for (int i = 1; i <= g->num_regions; i++) sink[i] = true;
  for (int i = 0; i < g->num_nodes; i++) {
    for (int j = 0; j < g->node[i]->num_in; j++) {
      md_val v = g->node[i]->in[j];
      int from = v ? md_region_of(md_def(g, v)) : 0;
      if (from != g->node[i]->region) sink[from] = false;
    }
  }
  return sink;
}

// Values that can take the buffer of the state they update, in the present order or in another: a
// region that nobody waits for can go after all readers of the state. Among such regions that update
// the order stays, so that two of them do not wait for each other.
md_val *md_find_in_place(const md_graph *g, md_live *live, md_arena *a) {
  bool *sink = find_sinks(g, a), *updates = MD_NEW_ARRAY(a, bool, g->num_regions + 1);
  md_val *storage = MD_NEW_ARRAY(a, md_val, g->num_values + 1);
  for (int i = 0; i < g->num_updates; i++)
    updates[md_region_of(md_def(g, g->update[i].val))] = true;
  for (int i = 0; i < g->num_updates; i++) {
    md_val s = g->update[i].state, v = g->update[i].val;
    int to = md_region_of(md_def(g, v));
    storage[v] = storage[v] ? storage[v] : live->storage[v];
    bool can = to && !storage[v] && sink[to] && !live->readers.kept[s] &&
               md_type_equal(md_type_in(g, s), md_type_in(g, v));
    for (int k = live->readers.first[s]; can && k < live->readers.first[s + 1]; k++) {
      int from = g->node[live->readers.reader[k]]->region;
      if (from == to) can = md_same_index(g, live, to, s, v);
      else can = from < to || !sink[from] || !updates[from];
    }
    if (can) storage[v] = s;
  }
  return storage;
}

md_flow md_flow_of(const md_graph *g, const md_live *live, const md_val *storage, int64_t alignment,
                   md_arena *a) {
  int num = g->num_regions, num_operands = 0;
  md_flow f = {.g = g,
               .live = live,
               .num = num,
               .first_in = MD_NEW_ARRAY(a, int, num + 2),
               .first_out = MD_NEW_ARRAY(a, int, num + 2),
               .first_after = MD_NEW_ARRAY(a, int, num + 2),
               .first_before = MD_NEW_ARRAY(a, int, num + 2),
               .bytes = MD_NEW_ARRAY(a, int64_t, g->num_values + 1)};
  for (int i = 0; i < g->num_nodes; i++) num_operands += g->node[i]->num_in;
  Edge *in = MD_NEW_ARRAY(a, Edge, num_operands + 1),
       *out = MD_NEW_ARRAY(a, Edge, g->num_values + 1);
  Edge *wait = MD_NEW_ARRAY(a, Edge, 2 * (num_operands + 1));
  int num_in = 0, num_out = 0, num_wait = 0;
  md_val *taken_by = MD_NEW_ARRAY(a, md_val, g->num_values + 1);  // state -> value in its buffer
  for (md_val v = 1; v <= (md_val)g->num_values; v++) {
    if (storage[v]) taken_by[storage[v]] = v;
    if (!live->stored[v] || storage[v]) continue;
    f.bytes[v] = md_place_bytes(g, v, alignment);
    out[num_out++] = (Edge){md_region_of(md_def(g, v)), (int)v};
  }
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (!n->region) continue;
    for (int j = 0; j < n->num_in; j++) {
      md_val v = n->in[j];
      int from = v ? md_region_of(md_def(g, v)) : n->region;
      if (from && from != n->region) wait[num_wait++] = (Edge){from, n->region};
      if (f.bytes[v]) in[num_in++] = (Edge){n->region, (int)v};
      int to = taken_by[v] ? md_region_of(md_def(g, taken_by[v])) : n->region;
      if (to != n->region) wait[num_wait++] = (Edge){n->region, to};
    }
  }
  num_in = index_edges(in, num_in, f.first_in, num);
  num_out = index_edges(out, num_out, f.first_out, num);
  num_wait = index_edges(wait, num_wait, f.first_after, num);
  f.in = targets(in, num_in, a);
  f.out = targets(out, num_out, a);
  f.after = targets(wait, num_wait, a);
  for (int i = 0; i < num_wait; i++) wait[i] = (Edge){wait[i].to, wait[i].from};
  num_wait = index_edges(wait, num_wait, f.first_before, num);
  f.before = targets(wait, num_wait, a);
  return f;
}

static bool runs_beside(const md_flow *f, const int *like, const int *order, int k) {
  return like && k + 1 < f->num && like[order[k]] == order[k + 1];
}

int64_t md_flow_peak(const md_flow *f, const int *order, const int *like, md_arena *a) {
  int *left = MD_NEW_ARRAY(a, int, f->g->num_values + 1);
  const bool *kept = f->live->readers.kept;
  int64_t now = 0, peak = 0;
  for (int i = 0; i < f->first_in[f->num + 1]; i++) left[f->in[i]]++;
  for (int k = 0, end; k < f->num; k = end) {
    end = k + 1 + runs_beside(f, like, order, k);
    for (int r = k; r < end; r++)
      for (int i = f->first_out[order[r]]; i < f->first_out[order[r] + 1]; i++)
        now += f->bytes[f->out[i]];
    peak = MD_MAX(peak, now);
    for (int r = k; r < end; r++) {
      for (int i = f->first_in[order[r]]; i < f->first_in[order[r] + 1]; i++)
        if (--left[f->in[i]] == 0 && !kept[f->in[i]]) now -= f->bytes[f->in[i]];
      for (int i = f->first_out[order[r]]; i < f->first_out[order[r] + 1]; i++)
        if (!left[f->out[i]] && !kept[f->out[i]]) now -= f->bytes[f->out[i]];
    }
  }
  return peak;
}
