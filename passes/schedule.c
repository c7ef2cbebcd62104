// SPDX-License-Identifier: Apache-2.0
// schedule: the order of regions that needs least memory, among a few. Bitwise.
//
// List scheduling: a region is ready once all it reads is there and all readers of a state that it
// overwrites have run (that order stands already, and keeping it keeps updates in place). Of the
// ready ones the next is
//   as is     the earliest in the present order
//   shrinking the one that frees most, if it frees more than it takes; else the earliest
//   greedy    the one that adds least
// The order with the smallest peak is taken, the earlier of these at a tie, and the same again from
// there until nothing improves: so a second run changes nothing.
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 8 };
typedef enum Policy { AS_IS, SHRINKING, GREEDY, NUM_POLICIES } Policy;

// Regions as a graph. Edges: values read, and readers of a state before the region that takes it.
typedef struct Flow {
  const md_graph *g;
  const md_live *live;
  int num;                   // regions
  int *first_in, *in;        // values that a region reads and that die in the arena
  int *first_out, *out;      // values that it makes in the arena
  int *first_after, *after;  // regions that wait for it
  int *waits;                // number of regions that it waits for
  int64_t *bytes;            // by value
} Flow;

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

static Flow flow_of(const md_graph *g, const md_live *live, int64_t alignment, md_arena *a) {
  int num = g->num_regions, num_operands = 0;
  Flow f = {.g = g,
            .live = live,
            .num = num,
            .first_in = MD_NEW_ARRAY(a, int, num + 2),
            .first_out = MD_NEW_ARRAY(a, int, num + 2),
            .first_after = MD_NEW_ARRAY(a, int, num + 2),
            .waits = MD_NEW_ARRAY(a, int, num + 1),
            .bytes = MD_NEW_ARRAY(a, int64_t, g->num_values + 1)};
  for (int i = 0; i < g->num_nodes; i++) num_operands += g->node[i]->num_in;
  Edge *in = MD_NEW_ARRAY(a, Edge, num_operands + 1),
       *out = MD_NEW_ARRAY(a, Edge, g->num_values + 1);
  Edge *wait = MD_NEW_ARRAY(a, Edge, 2 * (num_operands + 1));
  int num_in = 0, num_out = 0, num_wait = 0;
  md_val *taken_by = MD_NEW_ARRAY(a, md_val, g->num_values + 1);  // state -> value in its buffer
  for (md_val v = 1; v <= (md_val)g->num_values; v++) {
    if (live->storage[v]) taken_by[live->storage[v]] = v;
    if (!live->stored[v] || live->storage[v]) continue;
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
      if (to > n->region) wait[num_wait++] = (Edge){n->region, to};
    }
  }
  num_in = index_edges(in, num_in, f.first_in, num);
  num_out = index_edges(out, num_out, f.first_out, num);
  num_wait = index_edges(wait, num_wait, f.first_after, num);
  f.in = targets(in, num_in, a);
  f.out = targets(out, num_out, a);
  f.after = targets(wait, num_wait, a);
  for (int i = 0; i < num_wait; i++) f.waits[f.after[i]]++;
  return f;
}

// A binary heap of (key, rank), smallest first; the rank is the place in the present order. An entry
// whose key is no longer its region's is stale and skipped.
typedef struct Item {
  int64_t key;
  int rank, region;
} Item;
typedef struct Heap {
  Item *item;
  int num, cap;
} Heap;

static bool before(const Item *a, const Item *b) {
  return a->key != b->key ? a->key < b->key : a->rank < b->rank;
}

static void heap_push(Heap *h, Item item) {
  MD_PUSH(h->item, h->num, h->cap, item);
  for (int i = h->num - 1; i > 0 && before(&h->item[i], &h->item[(i - 1) / 2]); i = (i - 1) / 2) {
    Item t = h->item[i];
    h->item[i] = h->item[(i - 1) / 2];
    h->item[(i - 1) / 2] = t;
  }
}

static Item heap_pop(Heap *h) {
  Item top = h->item[0];
  h->item[0] = h->item[--h->num];
  for (int i = 0;;) {
    int least = i;
    for (int c = 2 * i + 1; c <= 2 * i + 2 && c < h->num; c++)
      if (before(&h->item[c], &h->item[least])) least = c;
    if (least == i) return top;
    Item t = h->item[i];
    h->item[i] = h->item[least];
    h->item[least] = t;
    i = least;
  }
}

typedef struct State {
  const Flow *f;
  const int *rank;
  Policy policy;
  int *waits;        // regions still to come before it
  int *left;         // by value: regions that still read it
  int64_t *readers;  // by value: their numbers, xor'ed: with one left, it is that one
  int64_t *frees;    // by region: bytes of values that it alone still reads
  int64_t *takes;
} State;

static int64_t key_of(const State *s, int region) {
  int64_t grows = s->takes[region] - s->frees[region];
  switch (s->policy) {
  case SHRINKING: return grows < 0 ? grows : 0;
  case GREEDY: return grows;
  default: return 0;
  }
}

static void push_ready(const State *s, int region, Heap *ready) {
  heap_push(ready, (Item){key_of(s, region), s->rank[region], region});
}

// The last reader of v is known: it will free v.
static void count_free(State *s, int v, Heap *ready, const bool *done) {
  int region = (int)s->readers[v];
  if (done[region]) return;
  s->frees[region] += s->f->bytes[v];
  if (!s->waits[region]) push_ready(s, region, ready);
}

// Fills order[0..num-1]; returns the peak in bytes, reuse of places inside a region left out.
static int64_t try_policy(const Flow *f, Policy policy, const int *rank, int *order, md_arena *a) {
  int num_values = f->g->num_values + 1;
  State s = {.f = f,
             .policy = policy,
             .rank = rank,
             .waits = MD_NEW_ARRAY(a, int, f->num + 1),
             .left = MD_NEW_ARRAY(a, int, num_values),
             .readers = MD_NEW_ARRAY(a, int64_t, num_values),
             .frees = MD_NEW_ARRAY(a, int64_t, f->num + 1),
             .takes = MD_NEW_ARRAY(a, int64_t, f->num + 1)};
  bool *done = MD_NEW_ARRAY(a, bool, f->num + 1);
  Heap ready = {0};
  memcpy(s.waits, f->waits, ((size_t)f->num + 1) * sizeof *s.waits);
  for (int r = 1; r <= f->num; r++) {
    for (int i = f->first_out[r]; i < f->first_out[r + 1]; i++) s.takes[r] += f->bytes[f->out[i]];
    for (int i = f->first_in[r]; i < f->first_in[r + 1]; i++) {
      s.left[f->in[i]]++;
      s.readers[f->in[i]] ^= r;
    }
  }
  for (int v = 1; v < num_values; v++)
    if (s.left[v] == 1 && !f->live->readers.kept[v]) s.frees[s.readers[v]] += f->bytes[v];
  for (int r = 1; r <= f->num; r++)
    if (!s.waits[r]) push_ready(&s, r, &ready);

  int64_t now = 0, peak = 0;
  int num = 0;
  while (ready.num) {
    Item item = heap_pop(&ready);
    int r = item.region;
    if (done[r] || item.key != key_of(&s, r)) continue;
    done[r] = true;
    order[num++] = r;
    now += s.takes[r];
    peak = MD_MAX(peak, now);
    for (int i = f->first_in[r]; i < f->first_in[r + 1]; i++) {
      int v = f->in[i];
      s.readers[v] ^= r;
      if (f->live->readers.kept[v]) continue;
      if (--s.left[v] == 0) now -= f->bytes[v];
      else if (s.left[v] == 1) count_free(&s, v, &ready, done);
    }
    // Made and read by nobody else: gone at once.
    for (int i = f->first_out[r]; i < f->first_out[r + 1]; i++) {
      int v = f->out[i];
      if (!s.left[v] && !f->live->readers.kept[v]) now -= f->bytes[v];
    }
    for (int i = f->first_after[r]; i < f->first_after[r + 1]; i++) {
      int to = f->after[i];
      if (--s.waits[to] == 0) push_ready(&s, to, &ready);
    }
  }
  free(ready.item);
  MD_ASSERT(num == f->num, "regions wait for one another");
  return peak;
}

// The old graph's nodes in the order of `order`, leaves first.
static void emit(md_rewriter *r, const int *order) {
  const md_graph *g = r->old;
  md_copy_leaves(r);
  for (int i = 0; i < g->num_regions; i++) {
    const md_region *region = &g->region[order[i]];
    for (int j = region->first; j < region->first + region->num; j++) {
      if (md_ops[g->node[j]->op].role == MD_LEAF) continue;
      r->region = order[i];
      md_copy_node(r, g->node[j]);
    }
  }
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  int64_t alignment = MD_MAX(r->options->facts.alignment, 1);
  md_live live = md_live_of(g, r->scratch);
  Flow f = flow_of(g, &live, alignment, r->scratch);
  int *best = MD_NEW_ARRAY(r->scratch, int, f.num + 1);
  int *order = MD_NEW_ARRAY(r->scratch, int, f.num + 1);
  int *rank = MD_NEW_ARRAY(r->scratch, int, f.num + 1);
  for (int i = 0; i <= f.num; i++) rank[i] = i;
  int64_t peak = try_policy(&f, AS_IS, rank, best, r->scratch);
  for (int round = 0, improved = true; improved && round < MAX_ROUNDS; round++) {
    improved = false;
    for (Policy p = SHRINKING; p < NUM_POLICIES; p++) {
      int64_t bytes = try_policy(&f, p, rank, order, r->scratch);
      if (bytes >= peak) continue;
      improved = true;
      peak = bytes;
      r->rewrites++;
      memcpy(best, order, ((size_t)f.num + 1) * sizeof *best);
    }
    for (int i = 0; i < f.num; i++) rank[best[i]] = i;
  }
  emit(r, best);
  return true;
}

const md_pass md_pass_schedule = {
    .name = "schedule",
    .doc = "orders regions for the smallest peak",
    .needs = MD_NEEDS_EXPANDED | MD_NEEDS_REGIONS,
    .bitwise = true,
    .required = true,
    .run = run,
};
