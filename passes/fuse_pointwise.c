// SPDX-License-Identifier: Apache-2.0
// fuse-pointwise: nodes that walk the same elements become one stream region, so that what flows
// between them stays in registers; every other node becomes a region of its own. Bitwise.
//
//   root      the last node of a group: pointwise, or a reduction of the walked elements
//   joins     a producer of the same shape whose other readers all come after the root, and a
//             reduction of the same kind that would otherwise keep such a producer out
//   channels  where the target takes all of few channels at once (few_channels), what has one channel is of
//             the same walk: a channel that is cut out, or one channel that is read for all
//   views     of stored tensors are index maps: every group that reads one gets a copy of its own
//   casts     to f32 of what was rounded to bf16: other groups and regions read the bf16 and cast it themselves
//   again     what a group makes for itself, others that read it make again, where the target computes it in
//             less time than it moves the bytes (again_work)
//   merged    groups of one small shape that only updates and results read go together, and groups that read the
//             same tensor nearby
//   folds     a space_to_depth, which reads each element once, takes the group that makes its operand
//             into its region, where the target wants it (moves_values)
//
// A group is emitted where its root stood. All that it reads stood before the root, and all that
// reads it from outside stands after, so regions never depend on themselves. Reductions are moved up
// to their operand first. The result of a reduction is complete only after the walk, so within a
// group nobody reads it.
#include "passes/fuse_pointwise.h"

#include <string.h>

static bool is_free(const md_node *n) { return !n->region && md_ops[n->op].role != MD_LEAF; }

static bool walks(const md_node *n) {
  md_role role = md_ops[n->op].role;
  return is_free(n) && (role == MD_POINTWISE || role == MD_REDUCE);
}

// The shape that a node walks.
static const md_shape *space_of(const md_graph *g, const md_node *n) {
  return &md_type_in(g, md_ops[n->op].role == MD_REDUCE ? n->in[0] : n->out)->shape;
}

// Reductions of one kind give results of one index space.
static bool same_kind(const md_graph *g, const md_node *a, const md_node *b) {
  const md_operand_spec *x = md_op_in(a->op, 0), *y = md_op_in(b->op, 0);
  bool channels_a = x->num_axes > 1, channels_b = y->num_axes > 1;  // [n,c,*] -> [g,c]
  if (channels_a && channels_b)
    return md_shape_equal(&md_type_in(g, a->out)->shape, &md_type_in(g, b->out)->shape);
  return channels_a == channels_b && !memcmp(&a->attr.axes, &b->attr.axes, sizeof a->attr.axes);
}

// Reductions right after their latest operand (or its region), everything else as it was.
static void order_nodes(md_streams *f) {
  const md_graph *g = f->g;
  int num = g->num_nodes, *after = MD_NEW_ARRAY(f->r->scratch, int, num + 1);
  int *count = MD_NEW_ARRAY(f->r->scratch, int, num + 2);
  for (int i = 0; i < num; i++) {
    const md_node *n = g->node[i];
    after[i] = i;
    if (is_free(n) && md_ops[n->op].role == MD_REDUCE) {
      after[i] = 0;
      for (int j = 0; j < n->num_in; j++) {
        const md_node *from = md_def(g, n->in[j]);
        const md_region *in = &g->region[from->region];
        int end = from->region ? in->first + in->num - 1 : after[from->index];
        after[i] = MD_MAX(after[i], end);
      }
    }
    count[after[i] + 1]++;
  }
  for (int i = 0; i < num; i++) count[i + 1] += count[i];
  for (int i = 0; i < num; i++) {
    f->pos[i] = count[after[i]]++;
    f->order[f->pos[i]] = i;
  }
}

// A view that all its readers can copy: they walk, and it is of a tensor in memory.
static bool can_map(const md_streams *f, const md_node *n) {
  if (!is_free(n) || md_ops[n->op].role != MD_VIEW || f->readers.kept[n->out]) return false;
  if (f->mapped[md_def(f->g, n->in[0])->index]) return false;
  for (int i = f->readers.first[n->out]; i < f->readers.first[n->out + 1]; i++)
    if (!walks(f->g->node[f->readers.reader[i]])) return false;
  return true;
}

// Shapes of one walk: equal, or but for the channels, of which one has few and the other has one.
static bool same_places(const md_streams *f, const md_shape *a, const md_shape *b) {
  if (md_shape_equal(a, b)) return true;
  if (a->rank != b->rank || a->rank < 3) return false;
  for (int i = 0; i < a->rank; i++)
    if (i != 1 && a->dim[i] != b->dim[i]) return false;
  return MD_MIN(a->dim[1], b->dim[1]) == 1 &&
         MD_MAX(a->dim[1], b->dim[1]) <= f->r->options->facts.few_channels;
}

// One channel of what is pointwise, or its one channel for all: no other view is of the same places.
static bool is_channel(const md_streams *f, const md_node *n) {
  if (!f->mapped[n->index] || md_ops[md_def(f->g, n->in[0])->op].role != MD_POINTWISE) return false;
  const md_shape *in = &md_type_in(f->g, n->in[0])->shape, *out = &md_type_in(f->g, n->out)->shape;
  return !md_shape_equal(in, out) && same_places(f, in, out);
}

// Where a node will be emitted, at the earliest.
int md_place_of(const md_streams *f, int node) {
  return f->pos[f->root[node] >= 0 ? f->root[node] : node];
}

// Readers that come before the root and are not in its group; -1 when there are many.
typedef struct Early {
  int node[4], num;
} Early;

static void add_early(const md_streams *f, md_val v, int root, Early *e) {
  for (int i = f->readers.first[v]; i < f->readers.first[v + 1] && e->num >= 0; i++) {
    int reader = f->readers.reader[i];
    if (f->channel[reader]) {
      add_early(f, f->g->node[reader]->out, root, e);
      continue;
    }
    if (f->root[reader] == root || md_place_of(f, reader) > f->pos[root]) continue;
    if (e->num && e->node[e->num - 1] == reader) continue;
    if (e->num == MD_COUNT(e->node)) e->num = -1;
    else e->node[e->num++] = reader;
  }
}

static Early early_readers(const md_streams *f, const md_node *n, int root) {
  Early e = {.num = 0};
  for (int k = 0; k < n->num_out; k++) add_early(f, n->out + (md_val)k, root, &e);
  return e;
}

// Reductions are of the channels that are walked: beside other channels, of one.
static bool is_of_one(const md_streams *f, const md_node *reduction) {
  return !reduction ||
         (md_op_in(reduction->op, 0)->num_axes == 1 && space_of(f->g, reduction)->dim[1] == 1);
}

static bool fits(const md_streams *f, const md_node *n, int root) {
  if (!walks(n) || f->root[n->index] >= 0 || f->size[root] >= MD_MAX_GROUP) return false;
  const md_shape *space = space_of(f->g, n);
  if (!f->mixed[root] && md_shape_equal(space, f->space[root])) return true;
  return same_places(f, space, f->space[root]) && is_of_one(f, f->reduction[root]) &&
         (md_ops[n->op].role != MD_REDUCE || is_of_one(f, n));
}

// A sibling that reads what a producer makes, and comes before the root.
static bool can_follow(const md_streams *f, const md_node *n, int root) {
  if (!fits(f, n, root) || md_ops[n->op].role != MD_REDUCE) return false;
  if (f->reduction[root] && !same_kind(f->g, f->reduction[root], n)) return false;
  for (int j = 0; j < n->num_in; j++) {
    const md_node *from = n->in[j] ? md_def(f->g, n->in[j]) : n;
    if (f->root[from->index] == root && md_ops[from->op].role == MD_REDUCE) return false;
  }
  for (int k = 0; k < n->num_out; k++) {
    md_val v = n->out + (md_val)k;
    for (int i = f->readers.first[v]; i < f->readers.first[v + 1]; i++)
      if (f->root[f->readers.reader[i]] == root) return false;
  }
  return early_readers(f, n, root).num == 0;
}

static void join(md_streams *f, const md_node *n, int root) {
  f->root[n->index] = root;
  f->size[root]++;
  const md_shape *space = space_of(f->g, n);
  f->mixed[root] |= !md_shape_equal(space, f->space[root]);
  if (md_elements(space) > md_elements(f->space[root])) f->space[root] = space;
  if (md_ops[n->op].role == MD_REDUCE) f->reduction[root] = n;
}

// Producers still to be asked, latest first.
typedef struct Queue {
  int item[MD_MAX_GROUP * MD_ROW_IN];
  int num;
} Queue;

static void ask_producers(md_streams *f, const md_node *n, Queue *q) {
  for (int j = 0; j < n->num_in; j++) {
    if (n->in[j] == MD_NONE) continue;
    const md_node *from = md_def(f->g, n->in[j]);
    if (f->channel[from->index]) from = md_def(f->g, from->in[0]);
    if (!walks(from) || md_ops[from->op].role == MD_REDUCE || f->root[from->index] >= 0) continue;
    int i = q->num;
    while (i > 0 && f->pos[q->item[i - 1]] > f->pos[from->index]) i--;
    if (i > 0 && q->item[i - 1] == from->index) continue;
    memmove(&q->item[i + 1], &q->item[i], (size_t)(q->num - i) * sizeof *q->item);
    q->item[i] = from->index;
    q->num++;
  }
}

static void grow(md_streams *f, int root) {
  const md_graph *g = f->g;
  Queue q = {.num = 0};
  f->space[root] = space_of(g, g->node[root]);
  join(f, g->node[root], root);
  ask_producers(f, g->node[root], &q);
  while (q.num) {
    const md_node *n = g->node[q.item[--q.num]];
    if (!fits(f, n, root) || !md_may_rewrite(f->r)) continue;
    Early e = early_readers(f, n, root);
    bool later = e.num >= 0 && f->size[root] + e.num < MD_MAX_GROUP;
    for (int i = 0; i < e.num; i++) later = later && can_follow(f, g->node[e.node[i]], root);
    for (int i = 0; later && i < e.num; i++) {
      // Asked again: the one before may have brought another kind of reduction.
      later = can_follow(f, g->node[e.node[i]], root);
      if (!later) break;
      join(f, g->node[e.node[i]], root);
      ask_producers(f, g->node[e.node[i]], &q);
      f->r->rewrites++;
    }
    if (!later) {
      md_site_kept(f->r, n, "is read before the region of %s",
                   md_value_text(g, g->node[root]->out, f->r->scratch));
      continue;
    }
    join(f, n, root);
    f->r->rewrites++;
    ask_producers(f, n, &q);
  }
}

void md_list_members(md_streams *f) {
  for (int i = 0; i < f->g->num_nodes; i++) f->first[i] = -1;
  for (int p = f->g->num_nodes - 1; p >= 0; p--) {
    int i = f->order[p], root = f->root[i];
    if (root < 0) continue;
    f->next[i] = f->first[root];
    f->first[root] = i;
  }
}

int md_home_of(const md_streams *f, int node) {
  return f->root[node] >= 0 ? f->root[node] : -1 - f->g->node[node]->region;
}

// A cast to f32 of what its group or region has rounded to bf16; all that read it elsewhere are of such homes, too,
// and can cast it themselves.
static bool is_widened(const md_streams *f, const md_node *n) {
  int home = md_home_of(f, n->index);
  if (n->op != MD_OP_cast || home == -1 || f->readers.kept[n->out]) return false;
  const md_node *from = md_def(f->g, n->in[0]);
  if (md_type_in(f->g, n->in[0])->dtype != MD_BF16 || md_type_in(f->g, n->out)->dtype != MD_F32 ||
      md_home_of(f, from->index) != home)
    return false;
  for (int i = f->readers.first[n->out]; i < f->readers.first[n->out + 1]; i++) {
    const md_node *reader = f->g->node[f->readers.reader[i]];
    md_role role = md_ops[reader->op].role;
    bool casts = md_home_of(f, reader->index) != -1 && (role == MD_POINTWISE || role == MD_REDUCE);
    if (!casts && !f->mapped[reader->index]) return false;
  }
  return true;
}

// Nobody but `reader` reads a group of one shape and no reductions, whose root is its operand.
static bool is_only_for(const md_streams *f, int root, const md_node *reader) {
  if (f->reduction[root] || f->mixed[root]) return false;
  for (int i = f->first[root]; i >= 0; i = f->next[i]) {
    const md_node *n = f->g->node[i];
    md_val end = n->out + (md_val)n->num_out;
    for (md_val v = n->out; v < end; v++)
      if (f->readers.kept[v]) return false;
    for (int j = f->readers.first[n->out]; j < f->readers.first[end]; j++)
      if (f->root[f->readers.reader[j]] != root && f->readers.reader[j] != reader->index)
        return false;
  }
  return true;
}

static void find_folds(md_streams *f) {
  for (int i = 0; i < f->g->num_nodes; i++) f->fold[i] = -1;
  for (int i = 0; f->r->options->facts.moves_values && i < f->g->num_nodes; i++) {
    const md_node *n = f->g->node[i];
    if (n->op != MD_OP_space_to_depth || !is_free(n) || !md_may_rewrite(f->r)) continue;
    int from = md_def(f->g, n->in[0])->index;
    if (f->root[from] != from || !is_only_for(f, from, n)) continue;
    f->fold[from] = i;
    f->r->rewrites++;
  }
}

bool md_is_read_in(const md_streams *f, const md_node *n, int home) {
  for (int i = f->readers.first[n->out]; i < f->readers.first[n->out + 1]; i++) {
    int reader = f->readers.reader[i];
    if (md_home_of(f, reader) == home) return true;
    if (f->channel[reader] && md_is_read_in(f, f->g->node[reader], home)) return true;
  }
  return false;
}

// --- the new graph

// What a group has copies of its own of: views, and nodes of other groups.
typedef struct Copies {
  md_val *of;
  int *region;  // by value: the region that has it
} Copies;

static md_val operand(const md_streams *f, md_val v, int home, Copies *c) {
  md_rewriter *r = f->r;
  const md_node *n = v ? md_def(f->g, v) : NULL;
  bool copied =
      n && md_home_of(f, n->index) != home && (f->widened[n->index] || f->again[n->index]);
  if (!n || !(copied || f->mapped[n->index])) return md_mapped(r, v);
  if (c->region[v] == r->region) return c->of[v];
  // A view of a cast is the cast of a view: then the view is of what is stored.
  const md_node *wide = f->mapped[n->index] ? md_def(f->g, n->in[0]) : n;
  bool casts = f->mapped[n->index] && f->widened[wide->index] && md_home_of(f, wide->index) != home;
  md_val in[MD_ROW_IN] = {casts ? operand(f, wide->in[0], home, c) : MD_NONE};
  for (int j = 0; !casts && j < n->num_in; j++) in[j] = operand(f, n->in[j], home, c);
  md_val from = md_clone_node(r, n, in);
  if (casts) from = md_clone_node(r, wide, &from);
  c->region[v] = r->region;
  return c->of[v] = from;
}

static void emit_node(md_streams *f, const md_node *n, Copies *c) {
  int home = md_home_of(f, n->index);
  if (f->widened[n->index] && !md_is_read_in(f, n, home)) return;
  md_val in[MD_MAX_IN];
  for (int j = 0; j < n->num_in; j++) in[j] = operand(f, n->in[j], home, c);
  md_copy_with(f->r, n, in);
}

static void emit_group(md_streams *f, int root, Copies *c) {
  for (int i = f->first[root]; i >= 0; i = f->next[i]) emit_node(f, f->g->node[i], c);
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  int num = g->num_nodes + 1;
  md_streams f = {.r = r, .g = g, .readers = md_readers_of(g, r->scratch)};
  f.order = MD_NEW_ARRAY(r->scratch, int, num);
  f.pos = MD_NEW_ARRAY(r->scratch, int, num);
  f.root = MD_NEW_ARRAY(r->scratch, int, num);
  f.size = MD_NEW_ARRAY(r->scratch, int, num);
  f.first = MD_NEW_ARRAY(r->scratch, int, num);
  f.next = MD_NEW_ARRAY(r->scratch, int, num);
  f.mapped = MD_NEW_ARRAY(r->scratch, bool, num);
  f.channel = MD_NEW_ARRAY(r->scratch, bool, num);
  f.mixed = MD_NEW_ARRAY(r->scratch, bool, num);
  f.widened = MD_NEW_ARRAY(r->scratch, bool, num);
  f.fold = MD_NEW_ARRAY(r->scratch, int, num);
  f.again = MD_NEW_ARRAY(r->scratch, bool, num);
  f.space = MD_NEW_ARRAY(r->scratch, const md_shape *, num);
  f.reduction = MD_NEW_ARRAY(r->scratch, const md_node *, num);
  order_nodes(&f);
  for (int i = 0; i < g->num_nodes; i++) {
    f.root[i] = -1;
    f.mapped[i] = can_map(&f, g->node[i]);
    f.channel[i] = is_channel(&f, g->node[i]);
  }
  for (int p = g->num_nodes - 1; p >= 0; p--)
    if (walks(g->node[f.order[p]]) && f.root[f.order[p]] < 0) grow(&f, f.order[p]);
  md_list_members(&f);
  md_merge_groups(&f);
  for (int i = 0; i < g->num_nodes; i++) f.widened[i] = is_widened(&f, g->node[i]);
  find_folds(&f);
  md_find_again(&f);

  Copies copies = {.of = MD_NEW_ARRAY(r->scratch, md_val, g->num_values + 1),
                   .region = MD_NEW_ARRAY(r->scratch, int, g->num_values + 1)};
  md_copy_leaves(r);
  for (int p = 0; p < g->num_nodes && !r->b.failed; p++) {
    int i = f.order[p];
    const md_node *n = g->node[i];
    if (md_ops[n->op].role == MD_LEAF || f.mapped[i]) continue;
    bool folds = n->op == MD_OP_space_to_depth && f.fold[md_def(g, n->in[0])->index] == i;
    if (f.root[i] >= 0 && (f.root[i] != i || f.fold[i] >= 0)) continue;
    r->region = n->region ? n->region : md_new_region_of(r, n);
    if (f.root[i] == i) emit_group(&f, i, &copies);
    if (folds) emit_group(&f, md_def(g, n->in[0])->index, &copies);
    if (f.root[i] < 0) emit_node(&f, n, &copies);
  }
  return true;
}

const md_pass md_pass_fuse_pointwise = {
    .name = "fuse-pointwise",
    .doc = "joins pointwise nodes and reductions to stream regions",
    .needs = MD_NEEDS_EXPANDED,
    .bitwise = true,
    .run = run,
};
