// SPDX-License-Identifier: Apache-2.0
// Some channels of a convolution on the interpreter, where all of them would take too long.
//
// A convolution of every kind is independent along one axis of its result, and that axis is one of an
// operand: of w for conv3d and conv3d_dgrad, of dy for conv3d_wgrad. With the operand cut to `num`
// channels the interpreter computes the same numbers, only fewer of them. What is not computed is
// filled with huge numbers of a given sign; who evaluates the nodes behind it with both signs sees
// which elements depend on them: those that differ.
#include "runtime/train/train.h"

#include <string.h>

static const double huge_fill = 1e6;

typedef struct Cut {
  int operand, operand_axis, axis;
} Cut;

static bool cut_of(md_op op, Cut *c) {
  switch (op) {
  case MD_OP_conv3d: *c = (Cut){.operand = 1, .operand_axis = 0, .axis = 1}; return true;
  case MD_OP_conv3d_dgrad: *c = (Cut){.operand = 1, .operand_axis = 1, .axis = 1}; return true;
  case MD_OP_conv3d_wgrad: *c = (Cut){.operand = 0, .operand_axis = 1, .axis = 0}; return true;
  default: return false;
  }
}

// The first and the last channel, and others at equal distances.
static int64_t channel(int64_t k, int64_t num, int64_t all) {
  return num > 1 ? k * (all - 1) / (num - 1) : 0;
}

// Copies between the channels of `whole` and the dense `part`.
static void copy_channels(md_tensor *whole, int axis, md_tensor *part, bool to_part) {
  const md_shape *s = &whole->type.shape;
  int64_t all = s->dim[axis], num = part->type.shape.dim[axis], outer = 1, inner = 1;
  for (int i = 0; i < axis; i++) outer *= s->dim[i];
  for (int i = axis + 1; i < s->rank; i++) inner *= s->dim[i];
  for (int64_t o = 0; o < outer; o++) {
    for (int64_t k = 0; k < num; k++) {
      double *w = whole->f + (o * all + channel(k, num, all)) * inner;
      double *p = part->f + (o * num + k) * inner;
      memcpy(to_part ? p : w, to_part ? w : p, (size_t)inner * sizeof *w);
    }
  }
}

static md_tensor *part_like(const md_tensor *whole, int axis, int64_t num) {
  md_type t = whole->type;
  t.shape.dim[axis] = num;
  return md_tensor_create(t);
}

static md_tensor *part_of(const md_tensor *whole, int axis, int64_t num) {
  md_tensor *part = part_like(whole, axis, num);
  md_tensor from = *whole;
  if (part) copy_channels(&from, axis, part, true);
  return part;
}

int64_t md_partial_channels(const md_graph *g, const md_node *n, double most_flops) {
  Cut c;
  md_cost cost;
  if (most_flops <= 0 || !cut_of(n->op, &c)) return 0;
  md_node_cost(g, n, &cost);
  if (cost.flops <= most_flops) return 0;
  int64_t all = md_type_in(g, n->out)->shape.dim[c.axis];
  int64_t num = MD_MAX(2, (int64_t)((double)all * most_flops / cost.flops));
  return num < all ? num : 0;
}

bool md_partial_eval(const md_graph *g, const md_node *n, const md_tensor *const *in,
                     md_tensor *out, int64_t num, double sign) {
  Cut c;
  MD_ASSERT(cut_of(n->op, &c), "%s cannot be cut", md_ops[n->op].name);
  const md_tensor *cut_in[3] = {in[0], in[1], n->num_in > 2 ? in[2] : NULL};
  md_tensor *operand = part_of(in[c.operand], c.operand_axis, num);
  md_tensor *bias = cut_in[2] ? part_of(cut_in[2], 0, num) : NULL;
  md_tensor *part = part_like(out, c.axis, num);
  bool ok = operand && part && (bias || !cut_in[2]);
  if (ok) {
    cut_in[c.operand] = operand;
    cut_in[2] = bias;
    md_eval_node(g, n, cut_in, &part);
    uint64_t key = md_hash_key("partial", sign > 0);
    int64_t elements = md_elements(&out->type.shape);
    for (int64_t i = 0; i < elements; i++)
      out->f[i] = sign * huge_fill * (1 + md_hash_01(key, (uint64_t)i));
    copy_channels(out, c.axis, part, false);
  }
  md_tensor_destroy(operand);
  md_tensor_destroy(bias);
  md_tensor_destroy(part);
  return ok;
}
