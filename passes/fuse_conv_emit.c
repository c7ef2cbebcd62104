// SPDX-License-Identifier: Apache-2.0
// fuse-conv-bn-relu, the new graph: regions where their anchors stood, and all other values that somebody
// reads and cannot copy. What a convolution wants stored brings copies of what it is made of, as a prologue
// does: fuse-pointwise makes one region of it all, which reads what is stored anyway.
#include "passes/fuse_conv.h"

// --- what regions read

// Marks what a copy of v reads and cannot copy.
static void need_inputs(md_fusion *f, md_val v, const md_shape *space) {
  const md_node *n = md_maker(f, v);
  if (md_is_repeat(f, n)) {
    md_fused_of(f, n->in[0])->is_needed = true;
    return;
  }
  for (int j = 0; j < n->num_in; j++) {
    if (md_is_inlined(f, n->in[j], space)) need_inputs(f, n->in[j], space);
    else md_fused_of(f, n->in[j])->is_needed = true;
  }
}

static void need_operands(md_fusion *f, const md_node *n, const md_node *a) {
  for (int j = 0; j < n->num_in; j++) {
    md_val v = n->in[j];
    if (v == MD_NONE) continue;
    bool is_copied =
        n == a ? f->info[a->index].cloned >> j & 1 : md_is_inlined(f, v, md_shape_in(f, a->out));
    if (md_fused_of(f, v)->home == a->index && n != a) continue;
    if (is_copied) need_inputs(f, v, n == a ? md_shape_in(f, v) : md_shape_in(f, a->out));
    else md_fused_of(f, v)->is_needed = true;
  }
}

// Virtual values that somebody reads and cannot copy are emitted as well. Readers first.
static bool is_emitted(const md_fusion *f, const md_node *n) {
  const md_fused *x = &f->info[n->index];
  if (x->home >= 0 || x->former >= 0) return false;
  return x->is_needed || f->readers.kept[n->out] || !(x->is_virtual || md_is_repeat(f, n));
}

static void find_needed(md_fusion *f) {
  for (int i = f->g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = f->g->node[i];
    if (md_is_anchor(n)) {
      need_operands(f, n, n);
      for (int k = f->info[i].next; k >= 0; k = f->info[k].next) need_operands(f, f->g->node[k], n);
    } else if (is_emitted(f, n) && f->info[i].is_wanted) {
      need_inputs(f, n->out, md_shape_in(f, n->out));
    } else if (is_emitted(f, n)) {
      for (int j = 0; j < n->num_in; j++)
        if (n->in[j] != MD_NONE) md_fused_of(f, n->in[j])->is_needed = true;
    }
  }
}

// --- emission

// The copy of v in the region at work; `part` tells prologue and epilogue apart.
static md_val copy_value(md_fusion *f, md_val v, const md_shape *space, int part) {
  const md_node *n = md_maker(f, v);
  if (f->copied_in[v] == part) return f->copy[v];
  md_val in[MD_ROW_IN];
  for (int j = 0; j < n->num_in; j++) {
    bool inner = !md_is_repeat(f, n) && md_is_inlined(f, n->in[j], space);
    in[j] = inner ? copy_value(f, n->in[j], space, part) : md_mapped(f->r, n->in[j]);
  }
  f->copied_in[v] = part;
  bool is_stored = f->info[n->index].former >= 0;
  return f->copy[v] = is_stored ? md_copy_with(f->r, n, in) : md_clone_node(f->r, n, in);
}

static void emit_anchor(md_fusion *f, const md_node *a) {
  md_val in[MD_ROW_IN];
  for (int j = 0; j < a->num_in; j++)
    in[j] = f->info[a->index].cloned >> j & 1
                ? copy_value(f, a->in[j], md_shape_in(f, a->in[j]), 2 * f->r->region)
                : md_mapped(f->r, a->in[j]);
  md_copy_with(f->r, a, in);
}

static void emit_region(md_fusion *f, const md_node *a) {
  md_rewriter *r = f->r;
  const md_fused *x = &f->info[a->index];
  const md_shape *space = md_shape_in(f, a->out);
  md_val in[MD_ROW_IN];
  r->region = 0;
  if (x->cloned || x->next >= 0 || x->twin >= 0) r->region = md_new_region_of(r, a);
  emit_anchor(f, a);
  if (x->twin >= 0) emit_anchor(f, f->g->node[x->twin]);
  for (int i = x->next; i >= 0; i = f->info[i].next) {
    const md_node *n = f->g->node[i];
    for (int j = 0; j < n->num_in; j++) {
      bool inner = md_fused_of(f, n->in[j])->home != a->index && md_is_inlined(f, n->in[j], space);
      in[j] = inner ? copy_value(f, n->in[j], space, 2 * r->region + 1) : md_mapped(r, n->in[j]);
    }
    md_copy_with(r, n, in);
  }
}

static void emit_wanted(md_fusion *f, const md_node *n) {
  const md_shape *space = md_shape_in(f, n->out);
  md_val in[MD_ROW_IN];
  for (int j = 0; j < n->num_in; j++) {
    bool inner = md_is_inlined(f, n->in[j], space);
    in[j] = inner ? copy_value(f, n->in[j], space, -n->index - 1) : md_mapped(f->r, n->in[j]);
  }
  md_copy_with(f->r, n, in);
}

static void emit_alone(md_fusion *f, const md_node *n) {
  f->r->region = n->region;
  if (f->info[n->index].is_wanted) emit_wanted(f, n);
  else md_copy_node(f->r, n);
}

// Virtual values that have to wait for what a forms, and are emitted as well.
static void emit_waiting(md_fusion *f, const md_node *a) {
  const md_node *formed = md_maker(f, a->in[0]);
  if (f->info[formed->index].former != a->index) return;
  for (int i = formed->index + 1; i < a->index; i++) {
    const md_node *n = f->g->node[i];
    if (f->info[i].after == a->index && is_emitted(f, n)) emit_alone(f, n);
  }
}

void md_emit(md_fusion *f) {
  md_rewriter *r = f->r;
  for (int i = 0; i < f->g->num_nodes; i++)
    if (f->info[i].is_wanted && f->info[i].home < 0 && f->info[i].former < 0)
      md_take_steps(f, f->g->node[i]);
  find_needed(f);
  md_copy_leaves(r);
  for (int i = 0; i < f->g->num_nodes && !r->b.failed; i++) {
    const md_node *n = f->g->node[i];
    const md_fused *x = &f->info[i];
    if (md_ops[n->op].role == MD_LEAF) continue;
    if (md_is_anchor(n)) {
      if (x->twin >= 0 && x->twin < i) continue;
      emit_region(f, n);
      emit_waiting(f, n);
    } else if (x->after < 0 && is_emitted(f, n)) {
      emit_alone(f, n);
    }
  }
}
