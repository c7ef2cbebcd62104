// SPDX-License-Identifier: Apache-2.0
// memory: every value that lies in memory gets its place in one arena; the peak is known before
// anything runs. Bitwise.
//
// A value is live from the region that makes it to the last that reads it. Two values share bytes
// only when their lives do not meet, or when the later one is written over the earlier in the region
// where the one ends and the other begins (see md_same_index); such chains are placed as one block. Where two
// regions may run at once (md_pairs_of), what one of them makes or reads is live in both.
// Two allocators run, and the smaller arena is taken:
//   by size    the largest block first, each into the tightest gap among those alive with it
//   by time    regions in order, each block into the tightest hole that is free at that moment
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_BY_SIZE = 8192 };   // blocks; beyond, the quadratic allocator would take seconds
enum { MAX_SCAN = 1024 };      // holes looked at for one block
enum { MAX_CANDIDATES = 64 };  // nodes of a region whose operands a result may be written over

typedef struct Block {
  int64_t bytes, offset;
  int from, to;  // regions
  int id, next;  // next: in the list of blocks placed so far, by offset
} Block;

typedef struct Plan {
  Block *block;
  int num;
  int *of;
  int64_t peak;
} Plan;  // of[value]: block, or -1

static int larger_first(const void *a, const void *b) {
  const Block *x = *(const Block *const *)a, *y = *(const Block *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  if (x->from != y->from) return x->from - y->from;
  return x->id - y->id;
}

// Chains values that are written over one another, then makes each chain a block.
static Plan blocks_of(const md_graph *g, md_live *live, const int *like, int64_t alignment,
                      md_arena *a) {
  Plan p = {.of = MD_NEW_ARRAY(a, int, g->num_values + 1),
            .block = MD_NEW_ARRAY(a, Block, g->num_values + 1)};
  bool *taken = MD_NEW_ARRAY(a, bool, g->num_values + 1);
  for (int v = 0; v <= g->num_values; v++) p.of[v] = -1;
  for (md_val v = 1; v <= (md_val)g->num_values; v++) {
    if (!live->stored[v] || live->storage[v]) continue;
    const md_node *n = md_def(g, v);
    int region = n->region, last = MD_MAX(live->last[v], region);
    int from = MD_MIN(region, like[region] ? like[region] : region), to = MD_MAX(last, like[last]);
    const md_region *r = &g->region[region];
    int end = r->first + MD_MIN(r->num, MAX_CANDIDATES);
    for (int i = r->first; i < end && p.of[v] < 0; i++) {
      for (int j = 0; j < g->node[i]->num_in && p.of[v] < 0; j++) {
        md_val x = g->node[i]->in[j];
        if (!x || p.of[x] < 0 || taken[x] || live->last[x] != region) continue;
        if (md_region_of(md_def(g, x)) == region) continue;
        if (!md_same_index(g, live, region, x, v)) continue;
        taken[x] = true;
        p.of[v] = p.of[x];
        p.block[p.of[v]].to = to;
      }
    }
    if (p.of[v] >= 0) continue;
    p.of[v] = p.num;
    p.block[p.num] =
        (Block){.bytes = md_place_bytes(g, v, alignment), .from = from, .to = to, .id = p.num};
    p.num++;
  }
  return p;
}

static void by_size(Plan *p, md_arena *a) {
  Block **order = MD_NEW_ARRAY(a, Block *, p->num + 1);
  for (int i = 0; i < p->num; i++) order[i] = &p->block[i];
  qsort(order, (size_t)p->num, sizeof *order, larger_first);
  int head = -1;
  p->peak = 0;
  for (int i = 0; i < p->num; i++) {
    Block *b = order[i];
    int64_t end = 0, best = INT64_MAX;
    b->offset = -1;
    for (int j = head; j >= 0; j = p->block[j].next) {
      const Block *o = &p->block[j];
      if (o->to < b->from || o->from > b->to) continue;
      int64_t gap = o->offset - end;
      if (gap >= b->bytes && gap < best) {
        best = gap;
        b->offset = end;
      }
      end = MD_MAX(end, o->offset + o->bytes);
    }
    if (b->offset < 0) b->offset = end;
    p->peak = MD_MAX(p->peak, b->offset + b->bytes);
    int *link = &head;
    while (*link >= 0 && p->block[*link].offset <= b->offset) link = &p->block[*link].next;
    b->next = *link;
    *link = b->id;
  }
}

typedef struct Hole {
  int64_t offset, bytes;
} Hole;  // ascending offsets, never adjacent
typedef struct Holes {
  Hole *hole;
  int num, cap;
  int64_t end;
} Holes;

static int64_t take(Holes *h, int64_t bytes) {
  int best = -1;
  for (int i = 0; i < h->num && i < MAX_SCAN; i++)
    if (h->hole[i].bytes >= bytes && (best < 0 || h->hole[i].bytes < h->hole[best].bytes)) best = i;
  if (best < 0) {
    // A hole at the very end grows into the new space.
    Hole *last = h->num ? &h->hole[h->num - 1] : NULL;
    int64_t offset = h->end;
    if (last && last->offset + last->bytes == h->end) {
      offset = last->offset;
      h->num--;
    }
    h->end = offset + bytes;
    return offset;
  }
  int64_t offset = h->hole[best].offset;
  h->hole[best].offset += bytes;
  h->hole[best].bytes -= bytes;
  if (!h->hole[best].bytes) {
    h->num--;
    memmove(&h->hole[best], &h->hole[best + 1], (size_t)(h->num - best) * sizeof *h->hole);
  }
  return offset;
}

static void give_back(Holes *h, int64_t offset, int64_t bytes) {
  int lo = 0, hi = h->num;
  while (lo < hi) {
    int mid = (lo + hi) / 2;
    if (h->hole[mid].offset < offset) lo = mid + 1;
    else hi = mid;
  }
  bool joins_left = lo > 0 && h->hole[lo - 1].offset + h->hole[lo - 1].bytes == offset;
  bool joins_right = lo < h->num && offset + bytes == h->hole[lo].offset;
  if (joins_left) {
    h->hole[lo - 1].bytes += bytes;
    if (!joins_right) return;
    h->hole[lo - 1].bytes += h->hole[lo].bytes;
    h->num--;
    memmove(&h->hole[lo], &h->hole[lo + 1], (size_t)(h->num - lo) * sizeof *h->hole);
    return;
  }
  if (joins_right) {
    h->hole[lo].offset = offset;
    h->hole[lo].bytes += bytes;
    return;
  }
  MD_PUSH(h->hole, h->num, h->cap, ((Hole){0}));
  memmove(&h->hole[lo + 1], &h->hole[lo], (size_t)(h->num - 1 - lo) * sizeof *h->hole);
  h->hole[lo] = (Hole){offset, bytes};
}

// Blocks come in the order of `from`. `ending`: lists of blocks by the region they end in.
static void by_time(Plan *p, int num_regions, md_arena *a) {
  int *ending = MD_NEW_ARRAY(a, int, num_regions + 2);
  for (int i = 0; i < num_regions + 2; i++) ending[i] = -1;
  Holes h = {0};
  int next = 0;
  for (int region = 1; region <= num_regions; region++) {
    for (; next < p->num && p->block[next].from == region; next++) {
      Block *b = &p->block[next];
      b->offset = take(&h, b->bytes);
      b->next = ending[b->to];
      ending[b->to] = next;
    }
    for (int i = ending[region]; i >= 0; i = p->block[i].next)
      give_back(&h, p->block[i].offset, p->block[i].bytes);
  }
  p->peak = h.end;
  free(h.hole);
}

static Plan plan(const md_graph *g, md_live *live, const int *like, int64_t alignment,
                 md_arena *a) {
  Plan p = blocks_of(g, live, like, alignment, a);
  by_time(&p, g->num_regions, a);
  if (p.num > MAX_BY_SIZE) return p;
  Plan q = p;
  q.block = MD_NEW_ARRAY(a, Block, p.num + 1);
  memcpy(q.block, p.block, (size_t)p.num * sizeof *q.block);
  by_size(&q, a);
  return q.peak < p.peak ? q : p;
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  int64_t alignment = MD_MAX(r->options->facts.alignment, 1);
  md_live live = md_live_of(g, r->scratch);
  const int *like = r->options->facts.pairs ? md_pairs_of(g, r->scratch)
                                            : MD_NEW_ARRAY(r->scratch, int, g->num_regions + 2);
  Plan p = plan(g, &live, like, alignment, r->scratch);
  for (int i = 0; i < g->num_nodes; i++) {
    r->region = g->node[i]->region;
    md_copy_node(r, g->node[i]);
  }
  for (md_val v = 1; v <= (md_val)g->num_values; v++) {
    md_value *to = &r->b.g->value[md_mapped(r, v)];
    to->offset = p.of[v] >= 0 ? p.block[p.of[v]].offset : -1;
    to->storage = live.storage[v] ? md_mapped(r, live.storage[v]) : MD_NONE;
  }
  r->b.g->arena_bytes = p.peak;
  return true;
}

void md_memory_of(const md_graph *g, md_memory_report *r) {
  md_arena *a = md_arena_create();
  md_live live = md_live_of(g, a);
  *r = (md_memory_report){.arena = g->arena_bytes};
  int64_t *change = MD_NEW_ARRAY(a, int64_t, g->num_regions + 3);
  for (md_val v = 1; v <= (md_val)g->num_values; v++) {
    int64_t bytes = md_type_bytes(md_type_in(g, v));
    int from = md_region_of(md_def(g, v));
    if (md_def(g, v)->op == MD_OP_state) r->states += bytes;
    if (!live.stored[v] || live.storage[v]) continue;
    r->without_reuse += bytes;
    change[from] += bytes;
    change[MD_MAX(live.last[v], from) + 1] -= bytes;
  }
  int64_t now = 0, most = 0;
  for (int i = 1; i <= g->num_regions; i++) {
    now += change[i];
    if (now > most) r->peak_region = i;
    most = MD_MAX(most, now);
  }
  md_arena_destroy(a);
}

const md_pass md_pass_memory = {
    .name = "memory",
    .doc = "plans the arena",
    .needs = MD_NEEDS_EXPANDED | MD_NEEDS_REGIONS,
    .bitwise = true,
    .required = true,
    .run = run,
};
