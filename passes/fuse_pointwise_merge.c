// SPDX-License-Identifier: Apache-2.0
// fuse-pointwise, groups that become one though neither reads the other.
#include "passes/fuse_pointwise.h"

enum {
  NUM_SHAPES = 256,  // small shapes remembered; a collision only loses a merge
  NEAR = 4,          // anchors that a group may be moved over
};

// Results of the group are read by updates and results of the graph alone.
static bool is_final(const md_streams *f, int root) {
  for (int i = f->first[root]; i >= 0; i = f->next[i]) {
    const md_node *n = f->g->node[i];
    for (int k = 0; k < n->num_out; k++) {
      md_val v = n->out + (md_val)k;
      for (int j = f->readers.first[v]; j < f->readers.first[v + 1]; j++)
        if (f->root[f->readers.reader[j]] != root) return false;
    }
  }
  return true;
}

// Small pointwise groups of one shape join the next such group. Nothing waits for them, so nothing
// is held up that could run before.
static void merge_small(md_streams *f) {
  const md_graph *g = f->g;
  int last[NUM_SHAPES], *into = MD_NEW_ARRAY(f->r->scratch, int, g->num_nodes + 1);
  for (int i = 0; i < NUM_SHAPES; i++) last[i] = -1;
  for (int i = 0; i < g->num_nodes; i++) into[i] = i;
  for (int p = 0; p < g->num_nodes; p++) {
    int root = f->order[p];
    if (f->root[root] != root || f->reduction[root] || !md_may_rewrite(f->r)) continue;
    const md_shape *s = f->space[root];
    if (md_elements(s) > MD_SMALL_WALK || !is_final(f, root)) continue;
    int slot = (int)(md_digest_of(s->dim, (size_t)s->rank * sizeof *s->dim).lo % NUM_SHAPES);
    int other = last[slot];
    last[slot] = root;
    if (other < 0 || !md_shape_equal(f->space[other], s)) continue;
    if (f->size[other] + f->size[root] > MD_MAX_GROUP) continue;
    into[other] = root;
    f->size[root] += f->size[other];
    f->r->rewrites++;
  }
  // Chains go forward, so the last of a chain is final.
  for (int p = g->num_nodes - 1; p >= 0; p--) into[f->order[p]] = into[into[f->order[p]]];
  for (int i = 0; i < g->num_nodes; i++)
    if (f->root[i] >= 0) f->root[i] = into[f->root[i]];
}

// --- groups that read the same tensor

// Where what an operand is read from will be.
static int source_place(const md_streams *f, md_val v) {
  const md_node *n = md_def(f->g, v);
  while (f->mapped[n->index]) n = md_def(f->g, n->in[0]);
  if (md_ops[n->op].role == MD_LEAF) return -1;
  return md_place_of(f, n->index);
}

// All that the group reads stands before the root of another, and few anchors lie between their roots.
static bool can_move(const md_streams *f, int group, int to) {
  for (int i = f->first[group]; i >= 0; i = f->next[i]) {
    const md_node *n = f->g->node[i];
    for (int j = 0; j < n->num_in; j++) {
      int place = n->in[j] ? source_place(f, n->in[j]) : -1;
      if (place != f->pos[group] && place >= f->pos[to]) return false;
    }
  }
  int passed = 0;
  for (int p = f->pos[to] + 1; p < f->pos[group]; p++) {
    md_role role = md_ops[f->g->node[f->order[p]]->op].role;
    passed += role == MD_ANCHOR;
  }
  return passed <= NEAR;
}

// The next group that walks the same places and reads v from memory, too; -1: none.
static int find_beside(const md_streams *f, int root, md_val v) {
  for (int i = f->readers.first[v]; i < f->readers.first[v + 1]; i++) {
    int other = f->root[f->readers.reader[i]];
    if (other < 0 || f->pos[other] <= f->pos[root] || f->reduction[other] || f->mixed[other] ||
        f->size[root] + f->size[other] > MD_MAX_GROUP ||
        !md_shape_equal(f->space[other], f->space[root]))
      continue;
    if (can_move(f, other, root)) return other;
  }
  return -1;
}

static int reads_beside(const md_streams *f, int root) {
  for (int i = f->first[root]; i >= 0; i = f->next[i]) {
    const md_node *n = f->g->node[i];
    for (int j = 0; j < n->num_in; j++) {
      md_val v = n->in[j];
      bool is_read = v && md_home_of(f, md_def(f->g, v)->index) != root &&
                     md_shape_equal(&md_type_in(f->g, v)->shape, f->space[root]);
      int other = is_read ? find_beside(f, root, v) : -1;
      if (other >= 0) return other;
    }
  }
  return -1;
}

// A large tensor that two groups read one soon after the other is read once.
static void merge_beside(md_streams *f) {
  for (int p = 0; p < f->g->num_nodes && md_may_rewrite(f->r); p++) {
    int root = f->order[p];
    if (f->root[root] != root || f->reduction[root] || f->mixed[root] ||
        md_elements(f->space[root]) <= MD_SMALL_WALK)
      continue;
    int other = reads_beside(f, root);
    if (other < 0) continue;
    for (int i = f->first[other]; i >= 0; i = f->next[i]) f->root[i] = root;
    f->size[root] += f->size[other];
    f->r->rewrites++;
    md_list_members(f);
  }
}

void md_merge_groups(md_streams *f) {
  merge_small(f);
  md_list_members(f);
  merge_beside(f);
}
