// SPDX-License-Identifier: Apache-2.0
// schedule, regions side by side: a network and its copy (a key network, say) compute the same on other data.
// Where the target can run two such regions at once, each stands right before its like, with all that the
// like waits for before both:
//
//   a1 a2 a3 .. b1 b2 b3      ->      a1 b1 a2 b2 a3 b3 ..
//
// as long as no moment needs more memory than it may.
#include "passes/schedule.h"

#include <string.h>

enum {
  LEAST_PART = 4096,   // of the peak: what makes less is not worth being moved
  MAX_REGIONS = 4096,  // looking for likes takes the square of them
  MAX_TRIES = 64,      // regions of its kind that may wait for it, before its like
};

static void put_operand(md_text *t, const md_graph *g, int region, md_val v, md_val *outer,
                        int *num_outer) {
  const md_node *n = v ? md_def(g, v) : NULL;
  if (!n) {
    md_put(t, " -");
  } else if (md_region_of(n) == region) {
    md_put(t, " n%d.%d", n->index - g->region[region].first, (int)(v - n->out));
  } else if (n->op == MD_OP_constant) {
    md_put(t, " c%a", n->attr.value.value);
    md_put(t, ":%d", (int)md_type_in(g, v)->dtype);
  } else {
    int i = 0;
    while (i < *num_outer && outer[i] != v) i++;
    if (i == *num_outer) outer[(*num_outer)++] = v;
    md_put(t, " i%d", i);
  }
}

static md_digest kind_of(const md_graph *g, int region, md_arena *a) {
  const md_region *r = &g->region[region];
  int num = 0;
  for (int i = r->first; i < r->first + r->num; i++) num += g->node[i]->num_in;
  md_val *outer = MD_NEW_ARRAY(a, md_val, num + 1);
  md_text t = {0};
  num = 0;
  for (int i = r->first; i < r->first + r->num; i++) {
    const md_node *n = g->node[i];
    md_put(&t, "%s", md_ops[n->op].name);
    for (int w = 0; w < MD_ATTR_WORDS; w++)
      md_put(&t, ",%llx", (unsigned long long)n->attr.word[w]);
    for (int j = 0; j < n->num_in; j++) put_operand(&t, g, region, n->in[j], outer, &num);
    for (int j = 0; j < n->num_out; j++)
      md_put(&t, " %s", md_type_text(md_type_in(g, n->out + (md_val)j), a));
  }
  for (int i = 0; i < num; i++) md_put(&t, " %s", md_type_text(md_type_in(g, outer[i]), a));
  md_digest kind = md_digest_of(t.s, t.len);
  md_text_free(&t);
  return kind;
}

typedef struct Pairs {
  const md_flow *f;
  int *order, *other;  // other: scratch
  int *place;          // by region: in the order
  md_digest *kind;     // by region
  bool *worth;         // by region: it makes enough
  int *like;           // by region: the other of its pair, or 0
  bool *needed;        // by region: the like waits for it
  int64_t peak;
  md_arena *arena;
} Pairs;

// Marks what stands behind a and has to run before b. False: a is among it.
static bool find_needed(Pairs *p, int a, int b) {
  p->needed[b] = true;
  for (int i = p->f->first_before[b]; i < p->f->first_before[b + 1]; i++) {
    int from = p->f->before[i];
    if (from == a) return false;
    if (p->place[from] < p->place[a] || p->needed[from]) continue;
    if (!find_needed(p, a, from)) return false;
  }
  return true;
}

// The next of its kind that does not wait for it, or 0.
static int like_of(Pairs *p, int a) {
  for (int i = p->place[a] + 1, tries = 0; i < p->f->num && tries < MAX_TRIES; i++) {
    int b = p->order[i];
    if (!p->worth[b] || p->like[b] || memcmp(&p->kind[a], &p->kind[b], sizeof *p->kind) != 0)
      continue;
    tries++;
    memset(p->needed, 0, sizeof *p->needed * ((size_t)p->f->num + 1));
    if (find_needed(p, a, b)) return b;
  }
  return 0;
}

// False: some moment would need too much memory.
static bool stand_beside(Pairs *p, int a, int b) {
  int num = p->place[a], end = p->f->num;
  memcpy(p->other, p->order, sizeof *p->order * (size_t)num);
  for (int i = p->place[a] + 1; i < end; i++)
    if (p->needed[p->order[i]] && p->order[i] != b) p->other[num++] = p->order[i];
  p->other[num++] = a;
  p->other[num++] = b;
  for (int i = p->place[a] + 1; i < end; i++)
    if (!p->needed[p->order[i]]) p->other[num++] = p->order[i];
  p->like[a] = b;
  p->like[b] = a;
  if (md_flow_peak(p->f, p->other, p->like, p->arena) > p->peak) {
    p->like[a] = p->like[b] = 0;
    return false;
  }
  memcpy(p->order, p->other, sizeof *p->order * (size_t)end);
  for (int i = 0; i < end; i++) p->place[p->order[i]] = i;
  return true;
}

static int64_t bytes_made(const md_flow *f, int region) {
  int64_t bytes = 0;
  for (int i = f->first_out[region]; i < f->first_out[region + 1]; i++)
    bytes += f->bytes[f->out[i]];
  return bytes;
}

int md_pair(const md_flow *f, int *order, int64_t peak, md_arena *a) {
  if (f->num > MAX_REGIONS) return 0;
  int pairs = 0, num = f->num + 1;
  Pairs p = {.f = f,
             .order = order,
             .other = MD_NEW_ARRAY(a, int, num),
             .place = MD_NEW_ARRAY(a, int, num),
             .kind = MD_NEW_ARRAY(a, md_digest, num),
             .worth = MD_NEW_ARRAY(a, bool, num),
             .like = MD_NEW_ARRAY(a, int, num),
             .needed = MD_NEW_ARRAY(a, bool, num),
             .peak = peak,
             .arena = a};
  for (int i = 0; i < f->num; i++) {
    int r = order[i];
    p.place[r] = i;
    p.kind[r] = kind_of(f->g, r, a);
    p.worth[r] = bytes_made(f, r) > peak / LEAST_PART;
  }
  for (int i = 0; i < f->num; i++) {
    int region = order[i];
    int like = p.worth[region] && !p.like[region] ? like_of(&p, region) : 0;
    if (!like || !stand_beside(&p, region, like)) continue;
    i = p.place[region];
    pairs++;
  }
  return pairs;
}

static bool reads(const md_graph *g, int region, int from) {
  const md_region *r = &g->region[region];
  for (int i = r->first; i < r->first + r->num; i++)
    for (int j = 0; j < g->node[i]->num_in; j++)
      if (g->node[i]->in[j] && md_region_of(md_def(g, g->node[i]->in[j])) == from) return true;
  return false;
}

int *md_pairs_of(const md_graph *g, md_arena *a) {
  int *like = MD_NEW_ARRAY(a, int, g->num_regions + 2);
  md_digest before = {0};
  for (int r = 1; r <= g->num_regions; r++) {
    md_digest kind = kind_of(g, r, a);
    if (r > 1 && !like[r - 1] && !memcmp(&kind, &before, sizeof kind) && !reads(g, r, r - 1)) {
      like[r - 1] = r;
      like[r] = r - 1;
    }
    before = kind;
  }
  return like;
}
