// SPDX-License-Identifier: Apache-2.0
// schedule: the order of regions that needs least memory, among a few. Bitwise.
//
// List scheduling: a region is ready once all it reads is there and all readers of a state that it
// can overwrite have run, which lets the update stay in place. Of the ready ones the next is
//   as is     the earliest in the present order
//   shrinking the one that frees most, if it frees more than it takes; else the earliest
//   greedy    the one that adds least
//   depth     as shrinking, but else the one that became ready last: it finishes what it began,
//             such as the backward pass of one network before the forward pass of another
//   backward  shrinking and depth again, but "earliest" in an order built from the end: of the
//             regions whose readers all have a place, the one that adds least to what is kept for
//             them; it finds that networks whose activations are not kept should run first
// The order with the smallest peak is taken, the earlier of these at a tie, and the same again from
// there until nothing improves: so a second run changes nothing. At last regions that a target can run at once
// are moved side by side (pair.c).
#include "passes/schedule.h"

#include <stdlib.h>
#include <string.h>

enum {
  MAX_ROUNDS = 8,
  SPARE_PART = 64,  // of the peak, that pairs may take where memory is not limited
};
typedef enum Policy {
  AS_IS,
  SHRINKING,
  GREEDY,
  DEPTH,
  BACKWARD,
  BACKWARD_DEPTH,
  NUM_POLICIES
} Policy;

// A binary heap of (key, rank), smallest first; the rank is the place in the present order. An entry
// whose key is no longer its region's is stale and skipped.
typedef struct Item {
  int64_t key, rank;
  int region;
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

// One list scheduling in progress.
typedef struct List {
  const md_flow *f;
  const int *rank;
  Policy policy;
  int *waits;      // by region: how many it still waits for
  int64_t *since;  // by region: turn in which it became ready
  int64_t turn;
  bool *done;
  int *left;         // by value: regions that still read it
  int64_t *readers;  // by value: their numbers, xor'ed: with one left, it is that one
  int64_t *frees;    // by region: bytes that its turn frees
  int64_t *takes;    // by region: bytes that its turn takes
  Heap ready;
} List;

static int64_t key_of(const List *s, int region) {
  int64_t grows = s->takes[region] - s->frees[region];
  switch (s->policy) {
  case AS_IS: return 0;
  case SHRINKING:
  case DEPTH: return grows < 0 ? grows : 0;
  default: return grows;
  }
}

static void push_ready(List *s, int region) {
  if (s->done[region] || s->waits[region]) return;
  int64_t rank = s->policy == BACKWARD ? -s->rank[region] : s->rank[region];
  if (s->policy == DEPTH) rank -= s->since[region] * ((int64_t)s->f->num + 1);
  heap_push(&s->ready, (Item){key_of(s, region), rank, region});
}

static List list_of(const md_flow *f, Policy policy, const int *rank, md_arena *a) {
  int num_values = f->g->num_values + 1;
  List s = {.f = f, .policy = policy, .rank = rank};
  s.waits = MD_NEW_ARRAY(a, int, f->num + 1);
  s.since = MD_NEW_ARRAY(a, int64_t, f->num + 1);
  s.done = MD_NEW_ARRAY(a, bool, f->num + 1);
  s.left = MD_NEW_ARRAY(a, int, num_values);
  s.readers = MD_NEW_ARRAY(a, int64_t, num_values);
  s.frees = MD_NEW_ARRAY(a, int64_t, f->num + 1);
  s.takes = MD_NEW_ARRAY(a, int64_t, f->num + 1);
  const int *first = policy == BACKWARD ? f->first_after : f->first_before;
  for (int r = 1; r <= f->num; r++) s.waits[r] = first[r + 1] - first[r];
  return s;
}

// The next region, or 0. Stale entries of the heap are dropped.
static int next_region(List *s) {
  while (s->ready.num) {
    Item item = heap_pop(&s->ready);
    if (s->done[item.region] || item.key != key_of(s, item.region)) continue;
    s->done[item.region] = true;
    s->turn++;
    return item.region;
  }
  return 0;
}

static void release(List *s, const int *first, const int *waiting, int region) {
  for (int i = first[region]; i < first[region + 1]; i++) {
    s->waits[waiting[i]]--;
    s->since[waiting[i]] = s->turn;
    push_ready(s, waiting[i]);
  }
}

static void forward(const md_flow *f, Policy policy, const int *rank, int *order, md_arena *a) {
  List s = list_of(f, policy, rank, a);
  const bool *kept = f->live->readers.kept;
  for (int r = 1; r <= f->num; r++) {
    for (int i = f->first_out[r]; i < f->first_out[r + 1]; i++) s.takes[r] += f->bytes[f->out[i]];
    for (int i = f->first_in[r]; i < f->first_in[r + 1]; i++) {
      s.left[f->in[i]]++;
      s.readers[f->in[i]] ^= r;
    }
  }
  for (int v = 1; v <= f->g->num_values; v++)
    if (s.left[v] == 1 && !kept[v]) s.frees[s.readers[v]] += f->bytes[v];
  for (int r = 1; r <= f->num; r++) push_ready(&s, r);
  for (int num = 0, r; (r = next_region(&s)) != 0;) {
    order[num++] = r;
    for (int i = f->first_in[r]; i < f->first_in[r + 1]; i++) {
      int v = f->in[i];
      s.readers[v] ^= r;
      if (--s.left[v] != 1 || kept[v]) continue;
      s.frees[s.readers[v]] += f->bytes[v];
      push_ready(&s, (int)s.readers[v]);
    }
    release(&s, f->first_after, f->after, r);
  }
  free(s.ready.item);
}

// What a region makes is kept from here on back to it; what it reads must be kept from now on, if it
// is not already.
static void backward(const md_flow *f, const int *rank, int *order, md_arena *a) {
  List s = list_of(f, BACKWARD, rank, a);
  int num_values = f->g->num_values + 1;
  int *first_reader = MD_NEW_ARRAY(a, int, num_values + 1);
  bool *is_kept = MD_NEW_ARRAY(a, bool, num_values);
  for (int i = 0; i < f->first_in[f->num + 1]; i++) first_reader[f->in[i] + 1]++;
  for (int v = 0; v < num_values; v++) first_reader[v + 1] += first_reader[v];
  int *reader = MD_NEW_ARRAY(a, int, first_reader[num_values] + 1);
  int *next = MD_NEW_ARRAY(a, int, num_values);
  for (int v = 0; v < num_values; v++) {
    next[v] = first_reader[v];
    is_kept[v] = f->live->readers.kept[v];
  }
  for (int r = 1; r <= f->num; r++) {
    for (int i = f->first_in[r]; i < f->first_in[r + 1]; i++) {
      int v = f->in[i];
      reader[next[v]++] = r;
      if (!is_kept[v]) s.takes[r] += f->bytes[v];
    }
    for (int i = f->first_out[r]; i < f->first_out[r + 1]; i++) s.frees[r] += f->bytes[f->out[i]];
  }
  for (int r = 1; r <= f->num; r++) push_ready(&s, r);
  for (int num = f->num, r; (r = next_region(&s)) != 0;) {
    order[--num] = r;
    for (int i = f->first_in[r]; i < f->first_in[r + 1]; i++) {
      int v = f->in[i];
      if (is_kept[v]) continue;
      is_kept[v] = true;
      for (int k = first_reader[v]; k < first_reader[v + 1]; k++) {
        s.takes[reader[k]] -= f->bytes[v];
        push_ready(&s, reader[k]);
      }
    }
    release(&s, f->first_before, f->before, r);
  }
  free(s.ready.item);
}

static bool has_order(const md_flow *f, md_arena *a) {
  int *order = MD_NEW_ARRAY(a, int, f->num + 1), *rank = MD_NEW_ARRAY(a, int, f->num + 1);
  forward(f, AS_IS, rank, order, a);
  return !f->num || order[f->num - 1];
}

// Fills order[0..num-1]; returns its peak.
static int64_t try_policy(const md_flow *f, Policy policy, const int *rank, int *order,
                          md_arena *a) {
  for (int i = 0; i < f->num; i++) order[i] = 0;
  if (policy >= BACKWARD) {
    int *from_end = MD_NEW_ARRAY(a, int, f->num + 1);
    backward(f, rank, order, a);
    for (int i = 0; i < f->num; i++) from_end[order[i]] = i;
    forward(f, policy == BACKWARD ? SHRINKING : DEPTH, from_end, order, a);
  } else forward(f, policy, rank, order, a);
  MD_ASSERT(!f->num || (order[0] && order[f->num - 1]), "regions wait for one another");
  return md_flow_peak(f, order, NULL, a);
}

// The old graph's nodes in the order of `order`, leaves first.
static void emit(md_rewriter *r, const int *order) {
  md_copy_leaves(r);
  for (int i = 0; i < r->old->num_regions; i++) md_copy_region(r, order[i]);
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  int64_t alignment = MD_MAX(r->options->facts.alignment, 1);
  md_live live = md_live_of(g, r->scratch);
  md_flow f = md_flow_of(g, &live, md_find_in_place(g, &live, r->scratch), alignment, r->scratch);
  // Waiting for readers can close a circle through other states; then only what holds already.
  if (!has_order(&f, r->scratch)) f = md_flow_of(g, &live, live.storage, alignment, r->scratch);
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
  int64_t spare = r->options->memory.bytes ? 0 : peak / SPARE_PART;
  if (r->options->facts.pairs) r->rewrites += md_pair(&f, best, peak + spare, r->scratch);
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
