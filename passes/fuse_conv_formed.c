// SPDX-License-Identifier: Apache-2.0
// fuse-conv-bn-relu, stored values in a prologue. A residual sum is stored, as many read it; but the
// convolution that reads it first may form it:
//
//   { bn, add, relu | conv3d | moments }      stores relu and the raw convolution
//
// where it makes each element of its operand once (md_conv3d_stays_at_pixel), and nobody reads the sum
// before. What is stored on the way for the sum alone is not stored any more. Virtual values that
// read the sum and stood before the convolution stand behind it. Targets that store what several taps read
// let convolutions of one tap alone do so, and those that form such from one tensor on the way if each pixel
// has a tap of its own, at which it is stored.
#include "passes/fuse_conv.h"

// A stored value that only one node reads, at the same elements.
static bool is_step(const md_fusion *f, md_val v, const md_shape *space) {
  const md_node *n = md_maker(f, v);
  const md_fused *x = &f->info[n->index];
  return md_is_pointwise(n) && !x->is_virtual && x->home < 0 && x->former < 0 &&
         f->g->value[v].uses == 1 && md_shape_equal(md_shape_in(f, v), space);
}

typedef struct Reach {
  md_leaves leaves;
  int weight;  // nodes
  bool views;  // reads a flip, slice or transpose, which is not in memory for it
} Reach;

// What forming n takes.
static void reach(const md_fusion *f, const md_node *n, Reach *to) {
  const md_shape *space = md_shape_in(f, n->out);
  to->weight++;
  for (int j = 0; j < n->num_in; j++) {
    const md_node *from = md_maker(f, n->in[j]);
    const md_fused *x = &f->info[from->index];
    if (md_is_repeat(f, from)) to->weight++;
    else if (from->op == MD_OP_constant || !md_shape_equal(md_shape_in(f, n->in[j]), space))
      continue;
    else if (is_step(f, n->in[j], space)) reach(f, from, to);
    else if (x->is_virtual) {
      md_add_leaves(&to->leaves, &x->leaves);
      to->weight += x->weight;
    } else {
      md_add_leaf(&to->leaves, n->in[j]);
      to->views |= md_is_free(from) && md_ops[from->op].role == MD_VIEW;
    }
  }
}

static int place_of(const md_fusion *f, const md_node *n) {
  return f->info[n->index].home >= 0 ? f->info[n->index].home : n->index;
}

// Does anything before a, other than virtual values, read v?
static bool is_read_before(const md_fusion *f, md_val v, const md_node *a) {
  for (int k = f->readers.first[v]; k < f->readers.first[v + 1]; k++) {
    const md_node *n = f->g->node[f->readers.reader[k]];
    const md_fused *x = &f->info[n->index];
    if (place_of(f, n) >= a->index) continue;
    if (x->home >= 0 || !md_is_pointwise(n) || !x->is_virtual || is_read_before(f, n->out, a))
      return true;
  }
  return false;
}

static bool makes_once(const md_fusion *f, const md_node *a) {
  return md_conv3d_stays_at_pixel(f->g, a) && !md_wants_stored(f, a) && !md_forms_taps(f, a);
}

static bool makes_at_own_tap(const md_fusion *f, const md_node *a, const md_leaves *leaves) {
  int64_t tap[3];
  return md_forms_taps(f, a) && md_is_of_one(f, leaves) && md_conv3d_own_tap(f->g, a, tap);
}

static const char *refuse(const md_fusion *f, const md_node *a) {
  const md_node *n = md_maker(f, a->in[0]);
  const md_fused *x = &f->info[n->index];
  if (a->op != MD_OP_conv3d || !md_is_pointwise(n) || x->is_virtual || x->home >= 0 ||
      x->former >= 0)
    return "";
  Reach to = {.weight = 0};
  reach(f, n, &to);
  if (!makes_once(f, a) && !makes_at_own_tap(f, a, &to.leaves))
    return "it would make elements of its operand repeatedly";
  if (is_read_before(f, n->out, a)) return "its operand is read before it";
  if (to.views) return "its operand is made of a view";
  if (to.leaves.num > f->max_leaves) return "its prologue would read too many tensors";
  return to.weight > MD_MAX_COPIED ? "its operand is made of too many nodes" : NULL;
}

void md_take_steps(md_fusion *f, const md_node *n) {
  const md_shape *space = md_shape_in(f, n->out);
  for (int j = 0; j < n->num_in; j++) {
    if (!is_step(f, n->in[j], space)) continue;
    md_take_steps(f, md_maker(f, n->in[j]));
    md_fused_of(f, n->in[j])->is_virtual = true;
  }
}

static void hold_readers(md_fusion *f, md_val v, const md_node *a) {
  for (int k = f->readers.first[v]; k < f->readers.first[v + 1]; k++) {
    const md_node *n = f->g->node[f->readers.reader[k]];
    md_fused *x = &f->info[n->index];
    if (n->index >= a->index) continue;
    x->after = x->ready = x->emit = a->index;
    hold_readers(f, n->out, a);
  }
}

const char *md_form_operand(md_fusion *f, const md_node *a) {
  const char *why = refuse(f, a);
  if (why) return why;
  const md_node *n = md_maker(f, a->in[0]);
  md_fused *x = &f->info[n->index];
  md_take_steps(f, n);
  hold_readers(f, n->out, a);
  x->former = x->emit = a->index;
  return NULL;
}
