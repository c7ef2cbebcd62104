// SPDX-License-Identifier: Apache-2.0
// fuse-conv-bn-relu: regions around anchors, so that every activation is written once.
//
//   region = [ prologue ] anchor [ epilogue ]
//
//   training   { bn, relu | conv3d | moments }                     the raw convolution is stored
//              { bn, add, relu | conv3d | moments }                and so is the residual sum
//   backward   { bn_dx | conv3d_dgrad | bn, relu, relu_grad, batch_norm_sums }
//              { bn_dx; bn, relu | conv3d_wgrad | }
//              { bn_dx; bn, relu | conv3d_dgrad, conv3d_wgrad | ... }     both, where the target can
//   evaluation { | conv3d | relu, add }                            after fold-bn
//   taps       { | conv3d | moments }                              of several, where the target wants it
//   weights    { cast | conv3d | }                                 where the target packs them
//
// Which values are stored, and which are virtual: computed by whoever reads them, says
// fuse_conv_values.c; which stored ones a prologue forms, fuse_conv_formed.c. fuse_conv_emit.c writes it all.
//
// The prologue is a copy of the virtual producers of the anchor's activation operands, of at most
// max_prologue leaves. The epilogue takes the pointwise readers of the anchor's result, and the
// per-channel reductions of these, as long as everything else they read stood before the anchor:
// so the whole region can stand where the anchor stood, and cycles cannot arise.
//
// A node computes the same whatever region it is copied to, so results stay bitwise equal. Zero
// padding of a convolution follows its prologue: the padded zeros are no elements of the operand.
#include "passes/fuse_conv.h"

#include <string.h>

enum { MAX_EPILOGUE = 32 };  // nodes

static bool sums_channels(const md_fusion *f, const md_node *n) {
  if (md_op_in(n->op, 0)->num_axes > 1) return true;  // [n,c,*] -> [g,c]
  int rank = md_shape_in(f, n->in[0])->rank;
  const md_dims *axes = &n->attr.axes.axes;
  if (n->op != MD_OP_sum || rank < 2 || axes->n != rank - 1) return false;
  for (int i = 0; i < axes->n; i++)
    if (axes->d[i] == 1) return false;
  return true;
}

// Why n cannot join the epilogue of a; NULL: it can. Full-size tensors that it reads join `reads`.
static const char *refuse_epilogue(const md_fusion *f, const md_node *a, const md_node *n,
                                   md_leaves *reads) {
  const md_shape *space = md_shape_in(f, a->out);
  md_role role = md_ops[n->op].role;
  bool reduces = md_is_free(n) && role == MD_REDUCE;
  if (!md_is_pointwise(n) && !reduces) return "its reader is not pointwise";
  if (!md_shape_equal(md_shape_in(f, reduces ? n->in[0] : n->out), space))
    return "its reader has another shape";
  if (reduces && !sums_channels(f, n)) return "its reader reduces other axes";
  if (f->info[n->index].home >= 0) return "its reader is in another region";
  for (int j = 0; j < n->num_in; j++) {
    const md_node *from = md_maker(f, n->in[j]);
    const md_fused *x = &f->info[from->index];
    bool same = md_shape_equal(md_shape_in(f, n->in[j]), space);
    if (from->op == MD_OP_constant) continue;
    if (from == a || x->home == a->index) {
      if (from == a ? n->in[j] != a->out : md_ops[from->op].role == MD_REDUCE)
        return "its reader waits for a reduction of the region";
      continue;
    }
    int ready = md_is_repeat(f, from)   ? md_fused_of(f, from->in[0])->emit
                : same && x->is_virtual ? x->ready
                                        : x->emit;
    if (ready >= a->index) return "its reader waits for a later node";
    if (same && x->is_virtual) md_add_leaves(reads, &x->leaves);
    else if (same && !md_is_repeat(f, from)) md_add_leaf(reads, n->in[j]);
  }
  return reads->num > MD_MIN(2 * f->max_leaves, MD_MAX_LEAVES) ? "its reader reads too many tensors"
                                                               : NULL;
}

// Readers of v join the candidates, ascending and once.
static void add_readers(const md_fusion *f, md_val v, int *candidate, int *num) {
  for (int k = f->readers.first[v]; k < f->readers.first[v + 1]; k++) {
    int node = f->readers.reader[k], i = *num;
    while (i > 0 && candidate[i - 1] > node) i--;
    if ((i > 0 && candidate[i - 1] == node) || *num == 4 * MAX_EPILOGUE) continue;
    memmove(&candidate[i + 1], &candidate[i], (size_t)(*num - i) * sizeof *candidate);
    candidate[i] = node;
    ++*num;
  }
}

static bool read_outside(const md_fusion *f, const md_node *n, int home) {
  if (f->readers.kept[n->out]) return true;
  for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++)
    if (f->info[f->readers.reader[k]].home != home) return true;
  return false;
}

// Which values of the epilogue are stored, and which are computed by their readers from what is
// stored anyway or takes less memory (a cast of the convolution's result).
static void choose_stored(md_fusion *f, const md_node *a, const int *member, int num) {
  for (int i = 0; i < num; i++) {
    const md_node *n = f->g->node[member[i]];
    md_fused *x = &f->info[n->index];
    if (!md_is_pointwise(n)) continue;
    md_measure_copy(f, n);
    if (x->leaves.num != 1 || !md_can_copy(f, n)) continue;
    md_val leaf = x->leaves.v[0];
    const md_node *from = md_maker(f, leaf);
    if (from != a && f->info[from->index].home != a->index) continue;
    x->is_virtual = read_outside(f, from, a->index) ||
                    md_type_bytes(md_type_in(f->g, leaf)) < md_type_bytes(md_type_in(f->g, n->out));
  }
  // Those that only served virtual ones go; each is looked at after its readers.
  for (int i = num - 1; i >= 0; i--) {
    const md_node *n = f->g->node[member[i]];
    md_fused *x = &f->info[n->index];
    bool used = md_ops[n->op].role == MD_REDUCE || (!x->is_virtual && read_outside(f, n, a->index));
    for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++)
      used |= f->info[f->readers.reader[k]].home == a->index;
    if (used) continue;
    x->home = -1;
    x->emit = n->index;
  }
}

static const char *grow_epilogue(md_fusion *f, const md_node *a) {
  int candidate[4 * MAX_EPILOGUE + 1], num = 0, member[MAX_EPILOGUE], num_members = 0;
  const char *why = NULL;
  md_leaves reads = {.num = 0};
  add_readers(f, a->out, candidate, &num);
  for (int i = 0; i < num && num_members < MAX_EPILOGUE; i++) {
    const md_node *n = f->g->node[candidate[i]];
    md_leaves more = reads;
    const char *refusal = refuse_epilogue(f, a, n, &more);
    if (refusal) {
      why = why ? why : refusal;
      continue;
    }
    reads = more;
    f->info[n->index].home = a->index;
    f->info[n->index].emit = a->index;
    member[num_members++] = n->index;
    if (md_is_pointwise(n)) add_readers(f, n->out, candidate, &num);
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

// Operands whose producers are computed as they are loaded. What is stored is read anyway.
static const char *choose_prologue(md_fusion *f, const md_node *a) {
  for (int j = 0; j < a->num_in; j++)
    if (md_is_weight(a, j) && md_fused_of(f, a->in[j])->is_virtual)
      f->info[a->index].cloned |= 1u << j;
  const char *why = md_form_operand(f, a);
  if (!why) {
    f->info[a->index].cloned |= 1;
    return NULL;
  }
  if (!*why) why = NULL;
  md_leaves reads = {.num = 0};
  unsigned candidates = 0;
  for (int j = 0; j < a->num_in; j++) {
    if (!md_is_activation(a, j) || a->in[j] == MD_NONE) continue;
    bool inner = md_is_inlined(f, a->in[j], md_shape_in(f, a->in[j]));
    if (inner && !md_wants_stored(f, a)) candidates |= 1u << j;
    else md_add_leaf(&reads, a->in[j]);
  }
  for (int j = 0; j < a->num_in; j++) {
    if (!(candidates >> j & 1)) continue;
    const md_node *from = md_maker(f, a->in[j]);
    md_leaves more = reads;
    if (md_is_repeat(f, from)) md_add_leaf(&more, from->in[0]);
    else md_add_leaves(&more, &f->info[from->index].leaves);
    if (more.num > f->max_leaves) {
      why = "its prologue would read too many tensors";
      md_add_leaf(&reads, a->in[j]);
      continue;
    }
    reads = more;
    f->info[a->index].cloned |= 1u << j;
  }
  return why;
}

// The nodes that a copy of v takes.
static void list_copied(const md_fusion *f, md_val v, md_text *t) {
  const md_node *n = md_maker(f, v);
  const md_shape *space = md_shape_in(f, v);
  for (int j = 0; j < n->num_in && !md_is_repeat(f, n); j++)
    if (md_is_inlined(f, n->in[j], space)) list_copied(f, n->in[j], t);
  bool is_stored = f->info[n->index].former >= 0;
  md_put(t, "%s%s%s", t->len ? ", " : "", md_ops[n->op].name, is_stored ? " (stored)" : "");
}

static void tell(md_fusion *f, const md_node *a, const char *why, const char *why_after) {
  const md_fused *x = &f->info[a->index];
  if (!x->cloned && x->next < 0) {
    why = why ? why : why_after;
    md_site_kept(f->r, a, "%s", why ? why : "nothing pointwise before or after it");
    return;
  }
  md_text before = {0}, after = {0};
  for (int j = 0; j < a->num_in; j++)
    if (x->cloned >> j & 1) list_copied(f, a->in[j], &before);
  for (int i = x->next; i >= 0; i = f->info[i].next)
    md_put(&after, "%s%s", after.len ? ", " : "", md_ops[f->g->node[i]->op].name);
  md_site_done(f->r, a, "prologue %s; epilogue %s%s%s", before.len ? before.s : "none",
               after.len ? after.s : "none", why ? "; " : "", why ? why : "");
  md_text_free(&before);
  md_text_free(&after);
  f->r->rewrites++;
}

// --- both gradients of a convolution

// Is v, or what a copy of it reads, there before node a?
static bool is_before(const md_fusion *f, md_val v, bool is_copied, const md_node *a) {
  const md_fused *x = md_fused_of(f, v);
  return (is_copied && !md_is_repeat(f, md_maker(f, v)) ? x->ready : x->emit) < a->index;
}

static bool can_join(const md_fusion *f, const md_node *dgrad, const md_node *wgrad) {
  const md_fused *x = &f->info[wgrad->index];
  bool good = md_may_be_twin(f, wgrad) &&
              md_shape_equal(md_shape_in(f, wgrad->in[1]), md_shape_in(f, dgrad->out));
  for (int j = 0; good && j < 2; j++) good = is_before(f, wgrad->in[j], x->cloned >> j & 1, dgrad);
  return good;
}

// The gradient for the weights reads what that for the source reads: of few weights a region makes both
// and reads it once.
static void find_twin(md_fusion *f, const md_node *a) {
  if (a->op != MD_OP_conv3d_dgrad) return;
  for (int k = f->readers.first[a->in[0]]; k < f->readers.first[a->in[0] + 1]; k++) {
    const md_node *n = f->g->node[f->readers.reader[k]];
    md_fused *x = &f->info[n->index];
    if (n->op != MD_OP_conv3d_wgrad || !md_is_free(n) || n->index < a->index || x->twin >= 0)
      continue;
    choose_prologue(f, n);
    if (!can_join(f, a, n)) {
      x->cloned = 0;
      continue;
    }
    x->twin = a->index;
    f->info[a->index].twin = n->index;
    md_site_done(f->r, n, "made with %s", md_value_text(f->g, a->out, f->r->scratch));
    f->r->rewrites++;
    return;
  }
}

static void fuse(md_fusion *f, const md_node *a) {
  if (!md_may_rewrite(f->r) || f->info[a->index].twin >= 0) return;
  const char *before = choose_prologue(f, a);
  const char *after = md_has_epilogue(a) ? grow_epilogue(f, a) : NULL;
  tell(f, a, before, after);
  find_twin(f, a);
}

static bool run(md_rewriter *r) {
  const md_graph *g = r->old;
  md_fusion f = {.r = r,
                 .g = g,
                 .readers = md_readers_of(g, r->scratch),
                 .info = MD_NEW_ARRAY(r->scratch, md_fused, g->num_nodes + 1),
                 .max_leaves = MD_MIN(r->options->facts.max_prologue, MD_MAX_LEAVES),
                 .copy = MD_NEW_ARRAY(r->scratch, md_val, g->num_values + 1),
                 .copied_in = MD_NEW_ARRAY(r->scratch, int, g->num_values + 1)};
  for (int i = 0; i < g->num_nodes; i++) {
    f.info[i].home = f.info[i].former = f.info[i].after = f.info[i].next = f.info[i].twin = -1;
    f.info[i].emit = md_ops[g->node[i]->op].role == MD_LEAF ? -1 : i;
  }
  md_find_users(&f);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (md_is_anchor(n)) fuse(&f, n);
    else if (md_is_pointwise(n) && f.info[i].home < 0) md_classify(&f, n);
  }
  md_emit(&f);
  return true;
}

const md_pass md_pass_fuse_conv_bn_relu = {
    .name = "fuse-conv-bn-relu",
    .doc = "forms regions around convolutions, matrix products and pooling",
    .needs = MD_NEEDS_EXPANDED,
    .bitwise = true,
    .run = run,
};
