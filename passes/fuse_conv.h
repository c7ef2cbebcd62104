// SPDX-License-Identifier: Apache-2.0
// What the files of fuse-conv-bn-relu share: what the pass knows of nodes and values.
#ifndef PASSES_FUSE_CONV_H
#define PASSES_FUSE_CONV_H

#include "passes/passes.h"

enum {
  MD_MAX_LEAVES = 8,   // of one virtual value
  MD_MAX_COPIED = 16,  // nodes that one virtual value may stand for
};

typedef struct md_leaves {
  md_val v[MD_MAX_LEAVES];
  int num;
} md_leaves;  // num > MD_MAX_LEAVES: too many

// What the pass knows of a node.
typedef struct md_fused {
  bool is_virtual;         // pointwise
  bool is_whole;           // formed once and stored: sums of two tensors, readers of other views
  bool is_wanted;          // stored for an anchor that would make it repeatedly
  bool is_wanted_of_more;  // the same, if it is made of more than one tensor of bf16
  bool is_needed;          // virtual or broadcast: also emitted, because somebody cannot copy it
  bool for_anchors;        // all readers are anchors, perhaps through pointwise nodes
  int users;               // how many
  int weight;              // nodes that a copy takes
  int ready;               // place after which a copy can stand
  int emit;                // place at which it is emitted
  int home;                // anchor whose epilogue it is part of, or -1
  int former;              // anchor whose prologue forms and stores it, or -1
  int twin;                // dgrad: the wgrad that is made with it; wgrad: that dgrad; or -1
  int after;               // virtual, reads what that anchor forms: stands behind it, or -1
  unsigned cloned;         // anchor: operands that its prologue computes
  int next;                // of the epilogue, by place; -1: last. Anchor: the first
  md_leaves leaves;
} md_fused;

typedef struct md_fusion {
  md_rewriter *r;
  const md_graph *g;
  md_readers readers;
  md_fused *info;  // by node
  int max_leaves;
  md_val *copy;    // by value: its copy in the region at work
  int *copied_in;  // by value: which region that is
} md_fusion;

// --- fuse_conv_values.c: what stands for what

const md_node *md_maker(const md_fusion *f, md_val v);
md_fused *md_fused_of(const md_fusion *f, md_val v);  // of its maker
const md_shape *md_shape_in(const md_fusion *f, md_val v);
bool md_is_free(const md_node *n);
bool md_is_pointwise(const md_node *n);
bool md_is_repeat(const md_fusion *f, const md_node *n);  // whoever reads it copies it
bool md_is_anchor(const md_node *n);
bool md_is_activation(const md_node *anchor, int operand);
bool md_has_epilogue(const md_node *anchor);
bool md_is_weight(const md_node *anchor, int operand);  // that the anchor brings into order
// Its activations are stored before it, as it would make each element for every tap.
bool md_wants_stored(const md_fusion *f, const md_node *anchor);
// So they are, but for those that are made of one tensor of bf16.
bool md_forms_taps(const md_fusion *f, const md_node *anchor);
bool md_is_of_one(const md_fusion *f, const md_leaves *leaves);  // tensor of bf16
// Its region may make the gradient for the source, which reads the same, as well.
bool md_may_be_twin(const md_fusion *f, const md_node *wgrad);
void md_add_leaf(md_leaves *to, md_val v);
void md_add_leaves(md_leaves *to, const md_leaves *from);
// Operand v of a node that walks `space` is computed by whoever reads it.
bool md_is_inlined(const md_fusion *f, md_val v, const md_shape *space);
void md_find_users(md_fusion *f);  // before all else
// Leaves, readiness and weight of a copy of the pointwise node n.
void md_measure_copy(md_fusion *f, const md_node *n);
bool md_can_copy(const md_fusion *f, const md_node *n);
void md_classify(md_fusion *f, const md_node *n);  // a pointwise node in no epilogue

// --- fuse_conv_formed.c

// Lets anchor `a` form and store its operand, if it can. NULL: done; else why not ("": it is no candidate).
const char *md_form_operand(md_fusion *f, const md_node *a);
// Stored values that n alone reads, at the same elements, are not stored any more.
void md_take_steps(md_fusion *f, const md_node *n);

// --- fuse_conv_emit.c

void md_emit(md_fusion *f);  // the new graph, after all else

#endif
