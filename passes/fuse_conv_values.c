// SPDX-License-Identifier: Apache-2.0
// fuse-conv-bn-relu, which values are stored. Virtual values are pointwise results that are not: whoever
// reads one computes it from what is stored (its leaves). That is right for a value of one full-size
// leaf, which costs no more to compute than to load; with more leaves it must be read by anchors alone
// and cost less traffic than storing it; and never for sums of two tensors (residuals), whose leaves
// would grow by one a block, nor behind a flip, slice or transpose; nor for what a convolution of several
// taps reads or a weight gradient of many channels, where the target says so (taps_formed, stored_wgrad).
#include "passes/fuse_conv.h"

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

const md_node *md_maker(const md_fusion *f, md_val v) { return md_def(f->g, v); }
md_fused *md_fused_of(const md_fusion *f, md_val v) { return &f->info[md_maker(f, v)->index]; }

const md_shape *md_shape_in(const md_fusion *f, md_val v) { return &md_type_in(f->g, v)->shape; }

bool md_is_free(const md_node *n) { return !n->region && md_ops[n->op].role != MD_LEAF; }

bool md_is_pointwise(const md_node *n) {
  return md_is_free(n) && md_ops[n->op].role == MD_POINTWISE && n->num_out == 1;
}

// A small tensor repeated.
bool md_is_repeat(const md_fusion *f, const md_node *n) {
  return md_is_free(n) && n->op == MD_OP_broadcast &&
         md_elements(md_shape_in(f, n->in[0])) < md_elements(md_shape_in(f, n->out));
}

bool md_is_anchor(const md_node *n) {
  return md_is_free(n) && (anchors[n->op].activations || anchors[n->op].epilogue);
}

bool md_is_activation(const md_node *anchor, int operand) {
  return anchors[anchor->op].activations >> operand & 1;
}

bool md_has_epilogue(const md_node *anchor) { return anchors[anchor->op].epilogue; }

bool md_is_weight(const md_node *anchor, int operand) {
  return (anchor->op == MD_OP_conv3d || anchor->op == MD_OP_conv3d_dgrad) && operand == 1;
}

static bool is_one_pixel(const md_fusion *f, const md_node *wgrad) {
  const md_shape *w = md_shape_in(f, wgrad->out);
  const md_conv3d_attr *a = &wgrad->attr.conv3d;
  bool good = md_elements(w) == w->dim[0] * w->dim[1];
  for (int i = 0; i < 3; i++) good &= a->stride.d[i] == 1 && a->pad.d[i] == 0;
  return good;
}

static bool has_dgrad(const md_fusion *f, md_val dy) {
  for (int k = f->readers.first[dy]; k < f->readers.first[dy + 1]; k++) {
    const md_node *n = f->g->node[f->readers.reader[k]];
    if (n->op == MD_OP_conv3d_dgrad && n->in[0] == dy) return true;
  }
  return false;
}

// A gradient in bf16 for weights of many channels.
static bool is_of_many(const md_fusion *f, const md_node *wgrad) {
  const md_shape *w = md_shape_in(f, wgrad->out);
  int64_t least = f->r->options->facts.stored_wgrad;
  bool narrow = md_type_in(f->g, wgrad->in[0])->dtype == MD_BF16;
  return narrow && least && MD_MIN(w->dim[0], w->dim[1]) >= least;
}

bool md_may_be_twin(const md_fusion *f, const md_node *wgrad) {
  const md_target_facts *facts = &f->r->options->facts;
  const md_shape *w = md_shape_in(f, wgrad->out);
  md_dtype d = md_type_in(f->g, wgrad->in[0])->dtype;
  int64_t most = d == MD_BF16 ? facts->twin_weights : d == MD_F32 ? facts->twin_weights_f32 : 0;
  if (md_elements(w) > most || !is_one_pixel(f, wgrad) || !has_dgrad(f, wgrad->in[0])) return false;
  int64_t side = facts->twin_side;
  return !is_of_many(f, wgrad) || (side && MD_MIN(w->dim[0], w->dim[1]) == side &&
                                   MD_MAX(w->dim[0], w->dim[1]) % (2 * side) == 0);
}

static bool has_taps(const md_shape *w) { return md_elements(w) > w->dim[0] * w->dim[1]; }

bool md_forms_taps(const md_fusion *f, const md_node *anchor) {
  int64_t least = f->r->options->facts.taps_formed;
  if (anchor->op != MD_OP_conv3d || !least) return false;
  const md_shape *w = md_shape_in(f, anchor->in[1]);
  return has_taps(w) && w->dim[0] >= least;
}

bool md_is_of_one(const md_fusion *f, const md_leaves *leaves) {
  return leaves->num == 1 && md_type_in(f->g, leaves->v[0])->dtype == MD_BF16;
}

bool md_wants_stored(const md_fusion *f, const md_node *anchor) {
  const md_target_facts *facts = &f->r->options->facts;
  bool is_wgrad = anchor->op == MD_OP_conv3d_wgrad;
  if (!is_wgrad && !md_is_weight(anchor, 1)) return false;
  const md_shape *w = md_shape_in(f, is_wgrad ? anchor->out : anchor->in[1]);
  if (is_wgrad && is_of_many(f, anchor)) return !md_may_be_twin(f, anchor);
  return facts->taps_formed && has_taps(w) && !md_forms_taps(f, anchor);
}

static bool reads(const md_node *anchor, md_val v) {
  for (int j = 0; j < anchor->num_in; j++)
    if (anchor->in[j] == v && md_is_activation(anchor, j)) return true;
  return false;
}

// A state or input that is rounded for convolutions alone.
static bool is_rounded_weight(const md_fusion *f, const md_node *n) {
  if (n->op != MD_OP_cast || md_ops[md_maker(f, n->in[0])->op].role != MD_LEAF ||
      f->readers.kept[n->out])
    return false;
  for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++) {
    const md_node *reader = f->g->node[f->readers.reader[k]];
    if (!md_is_anchor(reader)) return false;
    for (int j = 0; j < reader->num_in; j++)
      if (reader->in[j] == n->out && !md_is_weight(reader, j)) return false;
  }
  return true;
}

static bool reads_as_activation(const md_node *anchor, md_val v) {
  for (int j = 0; j < anchor->num_in; j++)
    if (anchor->in[j] == v && !md_is_activation(anchor, j)) return false;
  return true;
}

void md_add_leaf(md_leaves *to, md_val v) {
  for (int i = 0; i < MD_MIN(to->num, MD_MAX_LEAVES); i++)
    if (to->v[i] == v) return;
  if (to->num < MD_MAX_LEAVES) to->v[to->num] = v;
  if (to->num <= MD_MAX_LEAVES) to->num++;
}

void md_add_leaves(md_leaves *to, const md_leaves *from) {
  if (from->num > MD_MAX_LEAVES) to->num = MD_MAX_LEAVES + 1;
  for (int i = 0; i < MD_MIN(from->num, MD_MAX_LEAVES); i++) md_add_leaf(to, from->v[i]);
}

bool md_is_inlined(const md_fusion *f, md_val v, const md_shape *space) {
  const md_node *n = md_maker(f, v);
  return md_is_repeat(f, n) ||
         (f->info[n->index].is_virtual && md_shape_equal(md_shape_in(f, v), space));
}

// Readers first: who reads through pointwise nodes only into anchors?
void md_find_users(md_fusion *f) {
  for (int i = f->g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = f->g->node[i];
    md_fused *x = &f->info[i];
    if (!md_is_pointwise(n)) continue;
    x->for_anchors = !f->readers.kept[n->out];
    for (int k = f->readers.first[n->out]; k < f->readers.first[n->out + 1]; k++) {
      const md_node *reader = f->g->node[f->readers.reader[k]];
      const md_fused *y = &f->info[reader->index];
      bool is_read = md_is_anchor(reader) && reads(reader, n->out);
      x->is_wanted |= is_read && md_wants_stored(f, reader);
      x->is_wanted_of_more |= is_read && md_forms_taps(f, reader);
      if (md_is_anchor(reader) && reads_as_activation(reader, n->out)) x->users++;
      else if (md_is_pointwise(reader) && y->for_anchors &&
               md_shape_equal(md_shape_in(f, n->out), md_shape_in(f, reader->out)))
        x->users += y->users;
      else x->for_anchors = false;
    }
  }
}

void md_measure_copy(md_fusion *f, const md_node *n) {
  md_fused *x = &f->info[n->index];
  const md_shape *space = md_shape_in(f, n->out);
  int full = 0;
  x->leaves.num = 0;
  x->weight = 1;
  x->ready = -1;
  x->is_whole = false;
  for (int j = 0; j < n->num_in; j++) {
    const md_node *from = md_maker(f, n->in[j]);
    const md_fused *y = &f->info[from->index];
    if (from->op == MD_OP_constant) continue;
    bool same = md_shape_equal(md_shape_in(f, n->in[j]), space);
    if (md_is_repeat(f, from)) {
      x->ready = MD_MAX(x->ready, md_fused_of(f, from->in[0])->emit);
      x->weight++;
    } else if (same && y->is_virtual) {
      full++;
      md_add_leaves(&x->leaves, &y->leaves);
      x->ready = MD_MAX(x->ready, y->ready);
      x->weight += y->weight;
    } else {
      full += same;
      if (same) md_add_leaf(&x->leaves, n->in[j]);
      x->ready = MD_MAX(x->ready, y->emit);
    }
    // What stream regions can copy and others cannot.
    x->is_whole |=
        same && md_is_free(from) && md_ops[from->op].role == MD_VIEW && !md_is_repeat(f, from);
    // A whole value that only n reads is stored as n's result.
    x->is_whole |= same && y->is_whole && y->home < 0 && f->g->value[n->in[j]].uses == 1;
  }
  x->is_wanted |= x->is_wanted_of_more && !md_is_of_one(f, &x->leaves);
  if (md_ops[n->op].flags & MD_COMMUTATIVE && full == 2 && n->in[0] != n->in[1]) x->is_whole = true;
}

bool md_can_copy(const md_fusion *f, const md_node *n) {
  const md_fused *x = &f->info[n->index];
  return !x->is_whole && !x->is_wanted && !f->readers.kept[n->out] && x->weight <= MD_MAX_COPIED &&
         x->leaves.num <= f->max_leaves;
}

void md_classify(md_fusion *f, const md_node *n) {
  md_fused *x = &f->info[n->index];
  md_measure_copy(f, n);
  int num = x->leaves.num;
  bool cheap = num <= 1 || (x->for_anchors && x->users * num < num + 1 + x->users);
  x->is_virtual = cheap && md_can_copy(f, n);
  x->is_virtual |= f->r->options->facts.packs_weights && is_rounded_weight(f, n);
}
