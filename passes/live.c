// SPDX-License-Identifier: Apache-2.0
// Liveness over regions: which values lie in memory, until when, and which lie over the state that
// they update. Serves schedule and memory, so that both mean the same.
//
// A region may write over what it reads where each element is read and written at its own index:
// then no order within the region can tell the difference. The verifier holds plans to the same.
#include "passes/passes.h"

// Ops that may write their result over operand 0, whatever the index: they change a part of it.
static const bool in_part[MD_NUM_OPS] = {[MD_OP_bank_push] = true};

// All in the region that depends on x is pointwise and of x's shape.
static bool stays_at_index(const md_graph *g, md_live *live, int region, md_val x) {
  const md_region *r = &g->region[region];
  const md_shape *shape = &md_type_in(g, x)->shape;
  bool good = true;
  live->tainted[x] = true;
  for (int i = r->first; good && i < r->first + r->num; i++) {
    const md_node *n = g->node[i];
    bool reads = false;
    for (int j = 0; j < n->num_in; j++) reads |= n->in[j] && live->tainted[n->in[j]];
    if (!reads) continue;
    good =
        md_ops[n->op].role == MD_POINTWISE && md_shape_equal(&md_type_in(g, n->out)->shape, shape);
    for (int j = 0; j < n->num_out; j++) live->tainted[n->out + (md_val)j] = true;
  }
  live->tainted[x] = false;
  for (int i = r->first; i < r->first + r->num; i++)
    for (int j = 0; j < g->node[i]->num_out; j++)
      live->tainted[g->node[i]->out + (md_val)j] = false;
  return good;
}

static bool changes_part(const md_graph *g, int region, md_val x, const md_node *to) {
  if (!in_part[to->op] || to->in[0] != x || g->region[region].num != 1) return false;
  for (int i = 1; i < to->num_in; i++)
    if (to->in[i] == x) return false;
  return true;
}

bool md_same_index(const md_graph *g, md_live *live, int region, md_val x, md_val y) {
  const md_type *tx = md_type_in(g, x), *ty = md_type_in(g, y);
  if (!md_shape_equal(&tx->shape, &ty->shape) || tx->block != ty->block ||
      md_dtype_size(tx->dtype) != md_dtype_size(ty->dtype))
    return false;
  const md_node *to = md_def(g, y);
  if (in_part[to->op]) return changes_part(g, region, x, to);
  if (md_ops[to->op].role != MD_POINTWISE) return false;
  if (region != live->last[x]) return stays_at_index(g, live, region, x);
  if (!live->own_index[x]) live->own_index[x] = stays_at_index(g, live, region, x) ? 1 : 2;
  return live->own_index[x] == 1;
}

int md_region_of(const md_node *n) { return md_ops[n->op].role == MD_LEAF ? 0 : n->region; }

int64_t md_place_bytes(const md_graph *g, md_val v, int64_t alignment) {
  return md_round_up(md_type_bytes(md_type_in(g, v)), alignment);
}

md_live md_live_of(const md_graph *g, md_arena *a) {
  int num = g->num_values + 1;
  md_live live = {.readers = md_readers_of(g, a),
                  .last = MD_NEW_ARRAY(a, int, num),
                  .stored = MD_NEW_ARRAY(a, bool, num),
                  .storage = MD_NEW_ARRAY(a, md_val, num),
                  .tainted = MD_NEW_ARRAY(a, bool, num),
                  .own_index = MD_NEW_ARRAY(a, char, num)};
  for (md_val v = 1; v < (md_val)num; v++) {
    int made = md_region_of(md_def(g, v));
    for (int i = live.readers.first[v]; i < live.readers.first[v + 1]; i++) {
      int region = g->node[live.readers.reader[i]]->region;
      live.last[v] = MD_MAX(live.last[v], region);
      live.stored[v] |= made && region != made;
    }
    if (live.readers.kept[v]) {
      live.last[v] = g->num_regions + 1;
      live.stored[v] = made;
    }
  }
  // The new value takes the state's buffer once nobody reads the old one any more.
  for (int i = 0; i < g->num_updates; i++) {
    md_val s = g->update[i].state, v = g->update[i].val;
    int region = md_region_of(md_def(g, v));
    if (!region || live.storage[v] || !md_type_equal(md_type_in(g, s), md_type_in(g, v))) continue;
    if (live.last[s] < region || (live.last[s] == region && md_same_index(g, &live, region, s, v)))
      live.storage[v] = s;
  }
  return live;
}
