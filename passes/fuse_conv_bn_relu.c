// SPDX-License-Identifier: Apache-2.0
// fuse-conv-bn-relu: regions around anchors, so that every activation is written once.
//
//   region = [ prologue ] anchor [ epilogue ]
//
//   training   { bn, relu | conv3d | moments }                     the raw convolution is stored
//   backward   { bn_dx | conv3d_dgrad | bn, relu, relu_grad, batch_norm_sums }
//              { bn_dx; bn, relu | conv3d_wgrad | }
//   evaluation { | conv3d | relu, add }                            after fold-bn
//
// Virtual values are pointwise results that are not stored: whoever reads one computes it from what
// is stored (its leaves). That is right for a value of one full-size leaf, which costs no more to
// compute than to load; with more leaves it must be read by anchors alone and cost less traffic than
// storing it; and never for sums of two tensors (residuals), whose leaves would grow by one a block,
// nor behind a flip, slice or transpose.
//
// The prologue is a copy of the virtual producers of the anchor's activation operands, of at most
// max_prologue leaves. The epilogue takes the pointwise readers of the anchor's result, and the
// per-channel reductions of these, as long as everything else they read stood before the anchor:
// so the whole region can stand where the anchor stood, and cycles cannot arise.
//
// A node computes the same whatever region it is copied to, so results stay bitwise equal. Zero
// padding of a convolution follows its prologue: the padded zeros are no elements of the operand.
#include "passes/passes.h"

#include <string.h>

enum {
  MAX_LEAVES = 8,     // of one virtual value
  MAX_CLONE = 16,     // nodes that one virtual value may stand for
  MAX_EPILOGUE = 32,  // nodes
};

// Anchors that have regions: which operands are activations, and whether result 0 has an epilogue.
static const struct AnchorRow {
  unsigned activations;
  bool epilogue;
} anchors[MD_NUM_OPS] = {
    [MD_OP_conv3d] = {1, true},        [MD_OP_conv3d_dgrad] = {1, true},
    [MD_OP_conv3d_wgrad] = {3, false}, [MD_OP_matmul] = {3, true},
    [MD_OP_max_pool3d] = {1, false},   [MD_OP_max_pool3d_grad] = {0, true},
    [MD_OP_avg_pool3d] = {1, false},   [MD_OP_avg_pool3d_grad] = {0, true},
};

typedef struct Leaves {
  md_val v[MAX_LEAVES];
  int num;
} Leaves;  // num > MAX_LEAVES: too many

// What the pass knows of a node.
typedef struct Info {
  bool is_virtual;   // pointwise
  bool is_whole;     // formed once and stored: sums of two tensors, readers of other views
  bool is_needed;    // virtual or broadcast: also emitted, because somebody cannot copy it
  bool for_anchors;  // all readers are anchors, perhaps through pointwise nodes
  int users;         // how many
  int weight;        // nodes that a copy takes
  int ready;         // place after which a copy can stand
  int emit;          // place at which it is emitted
  int home;          // anchor whose epilogue it is part of, or -1
  unsigned cloned;   // anchor: operands that its prologue computes
  int next;          // of the epilogue, by place; -1: last. Anchor: the first
  Leaves leaves;
} Info;

typedef struct Fusion {
  md_rewriter *r;
  const md_graph *g;
  md_readers readers;
  Info *info;  // by node
  int max_leaves;
  md_val *copy;    // by value: its copy in the region at work
  int *copied_in;  // by value: which region that is
} Fusion;

static const md_node *maker(const Fusion *f, md_val v) { return md_def(f->g, v); }
static Info *info_of(const Fusion *f, md_val v) { return &f->info[maker(f, v)->index]; }

static const md_shape *shape_of(const Fusion *f, md_val v) { return &md_type_in(f->g, v)->shape; }

static bool is_free(const md_node *n) { return !n->region && md_ops[n->op].role != MD_LEAF; }

static bool is_pointwise(const md_node *n) {
  return is_free(n) && md_ops[n->op].role == MD_POINTWISE && n->num_out == 1;
}

// A small tensor repeated: whoever reads it copies it.
static bool is_repeat(const Fusion *f, const md_node *n) {
  return is_free(n) && n->op == MD_OP_broadcast &&
         md_elements(shape_of(f, n->in[0])) < md_elements(shape_of(f, n->out));
}

static bool is_anchor(const md_node *n) {
  return is_free(n) && (anchors[n->op].activations || anchors[n->op].epilogue);
}

static bool is_activation(const md_node *n, md_val v) {
  for (int j = 0; j < n->num_in; j++)
    if (n->in[j] == v && !(anchors[n->op].activations >> j & 1)) return false;
  return true;
}

static void add_leaf(Leaves *to, md_val v) {
  for (int i = 0; i < MD_MIN(to->num, MAX_LEAVES); i++)
    if (to->v[i] == v) return;
  if (to->num < MAX_LEAVES) to->v[to->num] = v;
  if (to->num <= MAX_LEAVES) to->num++;
}

static void add_leaves(Leaves *to, const Leaves *from) {
  if (from->num > MAX_LEAVES) to->num = MAX_LEAVES + 1;
  for (int i = 0; i < MD_MIN(from->num, MAX_LEAVES); i++) add_leaf(to, from->v[i]);
}

// Operand v of a node that walks `space` is computed by whoever reads it.
static bool is_inlined(const Fusion *f, md_val v, const md_shape *space) {
  const md_node *n = maker(f, v);
  return is_repeat(f, n) || (f->info[n->index].is_virtual && md_shape_equal(shape_of(f, v), space));
}

// Readers first: who reads through pointwise nodes only into anchors?
static void find_users(Fusion *f) {
  for (int i = f->g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = f->g->node[i];
    Info *x = &f->info[i];
    if (!is_pointwise(n)) continue;
    x->for_anchors = !f->readers.kept[n->out];
    for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++) {
      const md_node *reader = f->g->node[f->readers.reader[k]];
      const Info *y = &f->info[reader->index];
      if (is_anchor(reader) && is_activation(reader, n->out)) x->users++;
      else if (is_pointwise(reader) && y->for_anchors &&
               md_shape_equal(shape_of(f, n->out), shape_of(f, reader->out)))
        x->users += y->users;
      else x->for_anchors = false;
    }
  }
}

// Leaves, readiness and weight of a copy of the pointwise node n.
static void measure(Fusion *f, const md_node *n) {
  Info *x = &f->info[n->index];
  const md_shape *space = shape_of(f, n->out);
  int full = 0;
  x->leaves.num = 0;
  x->weight = 1;
  x->ready = -1;
  x->is_whole = false;
  for (int j = 0; j < n->num_in; j++) {
    const md_node *from = maker(f, n->in[j]);
    const Info *y = &f->info[from->index];
    if (from->op == MD_OP_constant) continue;
    bool same = md_shape_equal(shape_of(f, n->in[j]), space);
    if (is_repeat(f, from)) {
      x->ready = MD_MAX(x->ready, info_of(f, from->in[0])->emit);
      x->weight++;
    } else if (same && y->is_virtual) {
      full++;
      add_leaves(&x->leaves, &y->leaves);
      x->ready = MD_MAX(x->ready, y->ready);
      x->weight += y->weight;
    } else {
      full += same;
      if (same) add_leaf(&x->leaves, n->in[j]);
      x->ready = MD_MAX(x->ready, y->emit);
    }
    // What stream regions can copy and others cannot.
    x->is_whole |= same && is_free(from) && md_ops[from->op].role == MD_VIEW && !is_repeat(f, from);
    // A whole value that only n reads is stored as n's result.
    x->is_whole |= same && y->is_whole && y->home < 0 && f->g->value[n->in[j]].uses == 1;
  }
  if (md_ops[n->op].flags & MD_COMMUTATIVE && full == 2 && n->in[0] != n->in[1]) x->is_whole = true;
}

static bool can_copy(const Fusion *f, const md_node *n) {
  const Info *x = &f->info[n->index];
  return !x->is_whole && !f->readers.kept[n->out] && x->weight <= MAX_CLONE &&
         x->leaves.num <= f->max_leaves;
}

// A pointwise node in no epilogue.
static void classify(Fusion *f, const md_node *n) {
  Info *x = &f->info[n->index];
  measure(f, n);
  int num = x->leaves.num;
  bool cheap = num <= 1 || (x->for_anchors && x->users * num < num + 1 + x->users);
  x->is_virtual = cheap && can_copy(f, n);
}

static bool sums_channels(const Fusion *f, const md_node *n) {
  if (md_op_in(n->op, 0)->num_axes > 1) return true;  // [n,c,*] -> [g,c]
  int rank = shape_of(f, n->in[0])->rank;
  const md_dims *axes = &n->attr.axes.axes;
  if (n->op != MD_OP_sum || rank < 2 || axes->n != rank - 1) return false;
  for (int i = 0; i < axes->n; i++)
    if (axes->d[i] == 1) return false;
  return true;
}

// Why n cannot join the epilogue of a; NULL: it can. Full-size tensors that it reads join `reads`.
static const char *refuse_epilogue(const Fusion *f, const md_node *a, const md_node *n,
                                   Leaves *reads) {
  const md_shape *space = shape_of(f, a->out);
  md_role role = md_ops[n->op].role;
  bool reduces = is_free(n) && role == MD_REDUCE;
  if (!is_pointwise(n) && !reduces) return "its reader is not pointwise";
  if (!md_shape_equal(shape_of(f, reduces ? n->in[0] : n->out), space))
    return "its reader has another shape";
  if (reduces && !sums_channels(f, n)) return "its reader reduces other axes";
  if (f->info[n->index].home >= 0) return "its reader is in another region";
  for (int j = 0; j < n->num_in; j++) {
    const md_node *from = maker(f, n->in[j]);
    const Info *x = &f->info[from->index];
    bool same = md_shape_equal(shape_of(f, n->in[j]), space);
    if (from->op == MD_OP_constant) continue;
    if (from == a || x->home == a->index) {
      if (from == a ? n->in[j] != a->out : md_ops[from->op].role == MD_REDUCE)
        return "its reader waits for a reduction of the region";
      continue;
    }
    int ready = is_repeat(f, from)      ? info_of(f, from->in[0])->emit
                : same && x->is_virtual ? x->ready
                                        : x->emit;
    if (ready >= a->index) return "its reader waits for a later node";
    if (same && x->is_virtual) add_leaves(reads, &x->leaves);
    else if (same && !is_repeat(f, from)) add_leaf(reads, n->in[j]);
  }
  return reads->num > MD_MIN(2 * f->max_leaves, MAX_LEAVES) ? "its reader reads too many tensors"
                                                            : NULL;
}

// Readers of v join the candidates, ascending and once.
static void add_readers(const Fusion *f, md_val v, int *candidate, int *num) {
  for (int k = f->readers.first[v]; k < f->readers.first[v + 1]; k++) {
    int node = f->readers.reader[k], i = *num;
    while (i > 0 && candidate[i - 1] > node) i--;
    if ((i > 0 && candidate[i - 1] == node) || *num == 4 * MAX_EPILOGUE) continue;
    memmove(&candidate[i + 1], &candidate[i], (size_t)(*num - i) * sizeof *candidate);
    candidate[i] = node;
    ++*num;
  }
}

static bool read_outside(const Fusion *f, const md_node *n, int home) {
  if (f->readers.kept[n->out]) return true;
  for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++)
    if (f->info[f->readers.reader[k]].home != home) return true;
  return false;
}

// Which values of the epilogue are stored, and which are computed by their readers from what is
// stored anyway or takes less memory (a cast of the convolution's result).
static void choose_stored(Fusion *f, const md_node *a, const int *member, int num) {
  for (int i = 0; i < num; i++) {
    const md_node *n = f->g->node[member[i]];
    Info *x = &f->info[n->index];
    if (!is_pointwise(n)) continue;
    measure(f, n);
    if (x->leaves.num != 1 || !can_copy(f, n)) continue;
    md_val leaf = x->leaves.v[0];
    const md_node *from = maker(f, leaf);
    if (from != a && f->info[from->index].home != a->index) continue;
    x->is_virtual = read_outside(f, from, a->index) ||
                    md_type_bytes(md_type_in(f->g, leaf)) < md_type_bytes(md_type_in(f->g, n->out));
  }
  // Those that only served virtual ones go; each is looked at after its readers.
  for (int i = num - 1; i >= 0; i--) {
    const md_node *n = f->g->node[member[i]];
    Info *x = &f->info[n->index];
    bool used = md_ops[n->op].role == MD_REDUCE || (!x->is_virtual && read_outside(f, n, a->index));
    for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++)
      used |= f->info[f->readers.reader[k]].home == a->index;
    if (used) continue;
    x->home = -1;
    x->emit = n->index;
  }
}

static const char *grow_epilogue(Fusion *f, const md_node *a) {
  int candidate[4 * MAX_EPILOGUE + 1], num = 0, member[MAX_EPILOGUE], num_members = 0;
  const char *why = NULL;
  Leaves reads = {.num = 0};
  add_readers(f, a->out, candidate, &num);
  for (int i = 0; i < num && num_members < MAX_EPILOGUE; i++) {
    const md_node *n = f->g->node[candidate[i]];
    Leaves more = reads;
    const char *refusal = refuse_epilogue(f, a, n, &more);
    if (refusal) {
      why = why ? why : refusal;
      continue;
    }
    reads = more;
    f->info[n->index].home = a->index;
    f->info[n->index].emit = a->index;
    member[num_members++] = n->index;
    if (is_pointwise(n)) add_readers(f, n->out, candidate, &num);
  }
  choose_stored(f, a, member, num_members);
  int *link = &f->info[a->index].next;
  for (int i = 0; i < num_members; i++) {
    if (f->info[member[i]].home != a->index) continue;
    *link = member[i];
    link = &f->info[member[i]].next;
  }
  *link = -1;
  return why;
}

// Operands whose virtual producers are computed as they are loaded. What is stored is read anyway.
static const char *choose_prologue(Fusion *f, const md_node *a) {
  const char *why = NULL;
  Leaves reads = {.num = 0};
  unsigned candidates = 0;
  for (int j = 0; j < a->num_in; j++) {
    if (!(anchors[a->op].activations >> j & 1) || a->in[j] == MD_NONE) continue;
    if (is_inlined(f, a->in[j], shape_of(f, a->in[j]))) candidates |= 1u << j;
    else add_leaf(&reads, a->in[j]);
  }
  for (int j = 0; j < a->num_in; j++) {
    if (!(candidates >> j & 1)) continue;
    const md_node *from = maker(f, a->in[j]);
    Leaves more = reads;
    if (is_repeat(f, from)) add_leaf(&more, from->in[0]);
    else add_leaves(&more, &f->info[from->index].leaves);
    if (more.num > f->max_leaves) {
      why = "its prologue would read too many tensors";
      add_leaf(&reads, a->in[j]);
      continue;
    }
    reads = more;
    f->info[a->index].cloned |= 1u << j;
  }
  return why;
}

static void list_virtual(const Fusion *f, md_val v, const md_shape *space, md_text *t) {
  const md_node *n = maker(f, v);
  if (!is_inlined(f, v, space)) return;
  for (int j = 0; j < n->num_in && !is_repeat(f, n); j++) list_virtual(f, n->in[j], space, t);
  md_put(t, "%s%s", t->len ? ", " : "", md_ops[n->op].name);
}

static void tell(Fusion *f, const md_node *a, const char *why, const char *why_after) {
  const Info *x = &f->info[a->index];
  if (!x->cloned && x->next < 0) {
    why = why ? why : why_after;
    md_site_kept(f->r, a, "%s", why ? why : "nothing pointwise before or after it");
    return;
  }
  md_text before = {0}, after = {0};
  for (int j = 0; j < a->num_in; j++)
    if (x->cloned >> j & 1) list_virtual(f, a->in[j], shape_of(f, a->in[j]), &before);
  for (int i = x->next; i >= 0; i = f->info[i].next)
    md_put(&after, "%s%s", after.len ? ", " : "", md_ops[f->g->node[i]->op].name);
  md_site_done(f->r, a, "prologue %s; epilogue %s%s%s", before.len ? before.s : "none",
               after.len ? after.s : "none", why ? "; " : "", why ? why : "");
  md_text_free(&before);
  md_text_free(&after);
  f->r->rewrites++;
}

static void fuse(Fusion *f, const md_node *a) {
  if (!md_may_rewrite(f->r)) return;
  const char *before = choose_prologue(f, a);
  const char *after = anchors[a->op].epilogue ? grow_epilogue(f, a) : NULL;
  tell(f, a, before, after);
}

// --- what a region reads

// Marks what a copy of v reads and cannot copy.
static void need_inputs(Fusion *f, md_val v, const md_shape *space) {
  const md_node *n = maker(f, v);
  if (is_repeat(f, n)) {
    info_of(f, n->in[0])->is_needed = true;
    return;
  }
  for (int j = 0; j < n->num_in; j++) {
    if (is_inlined(f, n->in[j], space)) need_inputs(f, n->in[j], space);
    else info_of(f, n->in[j])->is_needed = true;
  }
}

static void need_operands(Fusion *f, const md_node *n, const md_node *a) {
  for (int j = 0; j < n->num_in; j++) {
    md_val v = n->in[j];
    if (v == MD_NONE) continue;
    bool is_copied =
        n == a ? f->info[a->index].cloned >> j & 1 : is_inlined(f, v, shape_of(f, a->out));
    if (info_of(f, v)->home == a->index && n != a) continue;
    if (is_copied) need_inputs(f, v, n == a ? shape_of(f, v) : shape_of(f, a->out));
    else info_of(f, v)->is_needed = true;
  }
}

// Virtual values that somebody reads and cannot copy are emitted as well. Readers first.
static bool is_emitted(const Fusion *f, const md_node *n) {
  const Info *x = &f->info[n->index];
  if (x->home >= 0) return false;
  return x->is_needed || f->readers.kept[n->out] || !(x->is_virtual || is_repeat(f, n));
}

static void find_needed(Fusion *f) {
  for (int i = f->g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = f->g->node[i];
    if (is_anchor(n)) {
      need_operands(f, n, n);
      for (int k = f->info[i].next; k >= 0; k = f->info[k].next) need_operands(f, f->g->node[k], n);
    } else if (is_emitted(f, n)) {
      for (int j = 0; j < n->num_in; j++)
        if (n->in[j] != MD_NONE) info_of(f, n->in[j])->is_needed = true;
    }
  }
}

// --- emission

// The copy of v in the region at work; `part` tells prologue and epilogue apart.
static md_val copy_value(Fusion *f, md_val v, const md_shape *space, int part) {
  const md_node *n = maker(f, v);
  if (f->copied_in[v] == part) return f->copy[v];
  md_val in[MD_ROW_IN];
  for (int j = 0; j < n->num_in; j++) {
    bool inner = !is_repeat(f, n) && is_inlined(f, n->in[j], space);
    in[j] = inner ? copy_value(f, n->in[j], space, part) : md_mapped(f->r, n->in[j]);
  }
  f->copied_in[v] = part;
  return f->copy[v] = md_clone_node(f->r, n, in);
}

static void emit_region(Fusion *f, const md_node *a) {
  md_rewriter *r = f->r;
  const Info *x = &f->info[a->index];
  const md_shape *space = shape_of(f, a->out);
  md_val in[MD_ROW_IN];
  r->region = 0;
  if (x->cloned || x->next >= 0) {
    const char *name = r->old->value[a->out].name;
    r->region = md_new_region(r, "%s%s%s", md_ops[a->op].name, name ? "." : "", name ? name : "");
  }
  for (int j = 0; j < a->num_in; j++)
    in[j] = x->cloned >> j & 1 ? copy_value(f, a->in[j], shape_of(f, a->in[j]), 2 * r->region)
                               : md_mapped(r, a->in[j]);
  md_copy_with(r, a, in);
  for (int i = x->next; i >= 0; i = f->info[i].next) {
    const md_node *n = f->g->node[i];
    for (int j = 0; j < n->num_in; j++) {
      bool inner = info_of(f, n->in[j])->home != a->index && is_inlined(f, n->in[j], space);
      in[j] = inner ? copy_value(f, n->in[j], space, 2 * r->region + 1) : md_mapped(r, n->in[j]);
    }
    md_copy_with(r, n, in);
  }
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  Fusion f = {.r = r,
              .g = g,
              .readers = md_readers_of(g, r->scratch),
              .info = MD_NEW_ARRAY(r->scratch, Info, g->num_nodes + 1),
              .max_leaves = MD_MIN(r->options->facts.max_prologue, MAX_LEAVES),
              .copy = MD_NEW_ARRAY(r->scratch, md_val, g->num_values + 1),
              .copied_in = MD_NEW_ARRAY(r->scratch, int, g->num_values + 1)};
  for (int i = 0; i < g->num_nodes; i++) {
    f.info[i].home = f.info[i].next = -1;
    f.info[i].emit = md_ops[g->node[i]->op].role == MD_LEAF ? -1 : i;
  }
  find_users(&f);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (is_anchor(n)) fuse(&f, n);
    else if (is_pointwise(n) && f.info[i].home < 0) classify(&f, n);
  }
  find_needed(&f);

  md_copy_leaves(r);
  for (int i = 0; i < g->num_nodes && !r->b.failed; i++) {
    const md_node *n = g->node[i];
    if (md_ops[n->op].role == MD_LEAF) continue;
    if (is_anchor(n)) emit_region(&f, n);
    else if (is_emitted(&f, n)) {
      r->region = n->region;
      md_copy_node(r, n);
    }
  }
  return true;
}

const md_pass md_pass_fuse_conv_bn_relu = {
    .name = "fuse-conv-bn-relu",
    .doc = "forms regions around convolutions, matrix products and pooling",
    .needs = MD_NEEDS_EXPANDED,
    .bitwise = true,
    .run = run,
};
