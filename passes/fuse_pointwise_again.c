// SPDX-License-Identifier: Apache-2.0
// fuse-pointwise, what is computed again. A value that a walk makes for itself and stores for others costs its
// bytes once, and once more for each walk that loads it. Others can make it again, of what is stored: they read
// that, unless they read it anyway, and compute the steps, unless they do so anyway for another such value.
// That is right where the target computes (again_work steps for a byte) in less time than it moves what is saved.
#include "passes/fuse_pointwise.h"

enum { LONG_STEP = 8 };  // steps that a division or an exponential counts as

typedef struct md_made {
  int root, node;
  md_val leaf;
  struct md_made *next;
} Made;  // a group makes a node of another one again, or reads a leaf for that

static bool is_made(const md_streams *f, Made x) {
  for (const Made *m = f->made; m; m = m->next)
    if (m->root == x.root && m->node == x.node && m->leaf == x.leaf) return true;
  return false;
}

static void add_made(md_streams *f, Made x) {
  if (is_made(f, x)) return;
  x.next = f->made;
  f->made = MD_NEW(f->r->scratch, Made);
  *f->made = x;
}

// Other groups that read a value; -1: many, or others read it as well.
typedef struct Groups {
  int root[4], num;
} Groups;

static void add_groups(const md_streams *f, const md_node *n, int own, Groups *to) {
  if (f->readers.kept[n->out]) to->num = -1;
  for (int i = f->readers.first[n->out]; i < f->readers.first[n->out + 1] && to->num >= 0; i++) {
    int reader = f->readers.reader[i], root = f->root[reader], k = 0;
    if (f->channel[reader] || (f->widened[reader] && root == own)) {
      add_groups(f, f->g->node[reader], own, to);
      continue;
    }
    if (root == own) continue;
    while (k < to->num && to->root[k] != root) k++;
    if (k < to->num) continue;
    if (root < 0 || k == MD_COUNT(to->root)) to->num = -1;
    else to->root[to->num++] = root;
  }
}

static Groups groups_of(const md_streams *f, const md_node *n) {
  Groups to = {.num = 0};
  add_groups(f, n, f->root[n->index], &to);
  return to;
}

// What it takes to make a value again.
typedef struct Copy {
  int node[MD_MAX_GROUP], num;  // -1: too many
  md_val leaf[MD_MAX_GROUP];    // stored values that they read
  int num_leaves;
} Copy;

static void add_leaf(Copy *c, md_val v) {
  for (int i = 0; i < c->num_leaves; i++)
    if (c->leaf[i] == v) return;
  if (c->num_leaves == MD_MAX_GROUP) c->num = -1;
  else c->leaf[c->num_leaves++] = v;
}

static void add_node(const md_streams *f, const md_node *n, Copy *c) {
  for (int i = 0; i < c->num; i++)
    if (c->node[i] == n->index) return;
  if (c->num < 0 || c->num == MD_MAX_GROUP) {
    c->num = -1;
    return;
  }
  c->node[c->num++] = n->index;
  for (int j = 0; j < n->num_in; j++) {
    if (n->in[j] == MD_NONE) continue;
    const md_node *from = md_def(f->g, n->in[j]);
    int at = from->index;
    if (from->op == MD_OP_constant) continue;
    bool inside = f->root[at] >= 0 && md_ops[from->op].role == MD_POINTWISE && from->num_out == 1 &&
                  (f->again[at] || f->widened[at] || groups_of(f, from).num == 0);
    if (inside || f->mapped[at]) add_node(f, from, c);
    else add_leaf(c, n->in[j]);
  }
}

// Does operand v of a member read `leaf`, perhaps through what the group copies?
static bool reads_from(const md_streams *f, md_val v, md_val leaf) {
  while (v != leaf && v != MD_NONE) {
    const md_node *n = md_def(f->g, v);
    if (!f->mapped[n->index] && !f->widened[n->index]) return false;
    v = n->in[0];
  }
  return v == leaf;
}

static bool group_reads(const md_streams *f, int root, md_val leaf) {
  for (int i = f->first[root]; i >= 0; i = f->next[i])
    for (int j = 0; j < f->g->node[i]->num_in; j++)
      if (reads_from(f, f->g->node[i]->in[j], leaf)) return true;
  return is_made(f, (Made){.root = root, .node = -1, .leaf = leaf});
}

// Steps of a formula for an element; those that take a row of instructions count as such.
static double steps_of(const md_node *n) {
  const md_expr *e = md_op_expr(&md_ops[n->op]);
  double steps = 0;
  for (int i = 0; i < e->num; i++) {
    md_expr_kind kind = e->node[i].kind;
    bool is_long = kind == MD_EX_DIV || (kind >= MD_EX_EXP && kind <= MD_EX_RSQRT) ||
                   kind == MD_EX_TANH || kind == MD_EX_RANDOM;
    if (md_expr_arity(kind) > 0) steps += is_long ? LONG_STEP : 1;
  }
  return MD_MAX(steps, 1);  // a cast
}

// What the group would compute, for all elements.
static double work_of(const md_streams *f, const Copy *c, int root) {
  double work = 0;
  for (int i = 0; i < c->num; i++) {
    const md_node *n = f->g->node[c->node[i]];
    if (f->mapped[n->index] || is_made(f, (Made){.root = root, .node = n->index})) continue;
    work += steps_of(n) * (double)md_elements(&md_type_in(f->g, n->out)->shape);
  }
  return work;
}

// Bytes that the group would read.
static double bytes_of(const md_streams *f, const Copy *c, int root) {
  double bytes = 0;
  for (int i = 0; i < c->num_leaves; i++)
    if (!group_reads(f, root, c->leaf[i]))
      bytes += (double)md_type_bytes(md_type_in(f->g, c->leaf[i]));
  return bytes;
}

// Is it right that these groups make n again? It is not stored then, nor loaded by any.
static bool saves_time(const md_streams *f, const md_node *n, const Copy *c, const Groups *by) {
  double saved = (double)md_type_bytes(md_type_in(f->g, n->out)) * (by->num + 1), work = 0;
  for (int i = 0; i < by->num; i++) {
    if (f->size[by->root[i]] + c->num > MD_MAX_GROUP) return false;
    saved -= bytes_of(f, c, by->root[i]);
    work += work_of(f, c, by->root[i]);
  }
  return work <= (double)f->r->options->facts.again_work * saved;
}

static void find_again(md_streams *f, const md_node *n) {
  int own = f->root[n->index];
  if (own < 0 || md_ops[n->op].role != MD_POINTWISE || n->num_out != 1 || f->widened[n->index] ||
      !md_may_rewrite(f->r) || !md_is_read_in(f, n, own) ||
      md_elements(&md_type_in(f->g, n->out)->shape) <= MD_SMALL_WALK)
    return;
  Groups by = groups_of(f, n);
  if (by.num <= 0) return;
  Copy c = {.num = 0};
  add_node(f, n, &c);
  if (c.num <= 0 || !saves_time(f, n, &c, &by)) return;
  for (int i = 0; i < by.num; i++) {
    int root = by.root[i];
    f->size[root] += c.num;
    for (int k = 0; k < c.num; k++) add_made(f, (Made){.root = root, .node = c.node[k]});
    for (int k = 0; k < c.num_leaves; k++)
      add_made(f, (Made){.root = root, .node = -1, .leaf = c.leaf[k]});
  }
  for (int i = 0; i < c.num; i++) f->again[c.node[i]] |= !f->mapped[c.node[i]];
  f->r->rewrites++;
  md_site_done(f->r, n, "made again by %d of its readers", by.num);
}

void md_find_again(md_streams *f) {
  for (int p = 0; p < f->g->num_nodes; p++) find_again(f, f->g->node[f->order[p]]);
}
