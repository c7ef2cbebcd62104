// SPDX-License-Identifier: Apache-2.0
// cse: equal op, operands, attributes and result types give equal results, so the first node serves
// for all. Operands of commutative ops are compared in either order (x + y and y + x round alike).
// Bitwise. Inputs and states are themselves; nodes of different regions stay apart, for a region
// computes for itself what it reads.
#include "passes/passes.h"

#include <string.h>

// What decides equality. Operands follow in `in`; the rest is compared word by word.
typedef struct Key {
  int64_t op, region, num_in;
  md_type type;
  md_attr attr;
} Key;

typedef struct Entry {
  Key *key;
  const md_val *in;
  uint64_t hash;
  md_val out;  // 0: empty
} Entry;

static uint64_t mix(uint64_t h, const void *data, size_t bytes) {
  md_digest d = md_digest_of(data, bytes);
  return (h ^ d.lo) * 0x9e3779b97f4a7c15u;
}

static Key *key_of(md_rewriter *r, const md_node *n, md_val *in) {
  Key *key = MD_NEW(r->scratch, Key);
  key->op = n->op;
  key->region = n->region;
  key->num_in = n->num_in;
  const md_type *type = md_type_in(r->old, n->out);
  key->type.dtype = type->dtype;
  key->type.block = type->block;
  key->type.shape.rank = type->shape.rank;
  for (int i = 0; i < type->shape.rank; i++) key->type.shape.dim[i] = type->shape.dim[i];
  key->attr = n->attr;
  for (int i = 0; i < n->num_in; i++) in[i] = md_mapped(r, n->in[i]);
  if (md_ops[n->op].flags & MD_COMMUTATIVE && in[0] > in[1]) {
    md_val first = in[0];
    in[0] = in[1];
    in[1] = first;
  }
  return key;
}

// Linear probing; the table is at most half full.
static Entry *find(Entry *table, uint64_t size, const Key *key, const md_val *in, uint64_t hash) {
  for (uint64_t i = hash & (size - 1);; i = (i + 1) & (size - 1)) {
    Entry *e = &table[i];
    if (!e->out) return e;
    if (e->hash == hash && !memcmp(e->key, key, sizeof *key) &&
        !memcmp(e->in, in, (size_t)key->num_in * sizeof *in))
      return e;
  }
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  uint64_t size = 16;
  while (size < 2 * (uint64_t)g->num_nodes) size *= 2;
  Entry *table = MD_NEW_ARRAY(r->scratch, Entry, size);
  for (int i = 0; i < g->num_nodes && !r->b.failed; i++) {
    const md_node *n = g->node[i];
    r->region = n->region;
    if (md_ops[n->op].flags & MD_EFFECT || !md_may_rewrite(r)) {
      md_copy_node(r, n);
      continue;
    }
    md_val *in = MD_NEW_ARRAY(r->scratch, md_val, n->num_in + 1);
    Key *key = key_of(r, n, in);
    uint64_t hash = mix(mix(0, key, sizeof *key), in, (size_t)n->num_in * sizeof *in);
    Entry *e = find(table, size, key, in, hash);
    if (!e->out) {
      *e = (Entry){.key = key, .in = in, .hash = hash, .out = md_copy_node(r, n)};
      continue;
    }
    for (int j = 0; j < n->num_out; j++) r->map[n->out + (md_val)j] = e->out + (md_val)j;
    r->rewrites++;
  }
  return true;
}

const md_pass md_pass_cse = {
    .name = "cse", .doc = "merges equal nodes", .bitwise = true, .run = run};
