// SPDX-License-Identifier: Apache-2.0
// What the generator asks of a region: how wide its indices are, and what is not there yet.
#include "codegen/cuda/conv.h"

// Indices of a walk go beyond the elements by a stride at most, so half of an int's range is safe.
#define MAX_INT_ELEMENTS ((int64_t)1 << 30)

// A block of channels holds elements that nobody counts.
static int64_t stored_elements(const md_type *t) {
  int64_t num = md_elements(&t->shape);
  return t->block && num ? num / t->shape.dim[1] * md_round_up(t->shape.dim[1], t->block) : num;
}

static bool is_wide(const md_graph *g, md_val v) {
  return v != MD_NONE && stored_elements(md_type_in(g, v)) > MAX_INT_ELEMENTS;
}

// Parts of the mean: those of all blocks together are a tensor too.
static bool has_wide_parts(const md_graph *g, const md_node *n) {
  if (n->op != MD_OP_nce_lse) return false;
  const md_shape *q = &md_type_in(g, n->in[0])->shape;
  return ((int64_t)MD_CU_NCE_BLOCKS * MD_CU_NCE_TILE + q->dim[0]) > MAX_INT_ELEMENTS / q->dim[1];
}

bool md_cu_is_wide(const md_region_view *r) {
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    if (has_wide_parts(r->g, n)) return true;
    for (int k = 0; k < n->num_in; k++)
      if (is_wide(r->g, n->in[k])) return true;
    for (int k = 0; k < n->num_out; k++)
      if (is_wide(r->g, n->out + (md_val)k)) return true;
  }
  return false;
}

bool md_cu_is_of_state(const md_region_view *r, const md_shape *s) {
  for (int i = 0; i < r->num_inputs + r->num_outputs; i++) {
    bool in = i < r->num_inputs;
    md_val v = in ? r->input[i] : r->output[i - r->num_inputs];
    bool is_state = md_def(r->g, v)->op == MD_OP_state || r->g->value[v].storage != MD_NONE;
    if (is_state && md_elements(&md_type_in(r->g, v)->shape) == md_elements(s)) return true;
  }
  return false;
}

enum { MANY_READS = 100 };

// clang-format off
static const md_cu_op ops[MD_NUM_OPS] = {
    [MD_OP_conv3d] = {.emit = md_cu_conv, .places = true, .is_narrow = true},
    [MD_OP_conv3d_dgrad] = {.emit = md_cu_conv, .places = true, .is_narrow = true},
    [MD_OP_conv3d_wgrad] = {.emit = md_cu_wgrad, .places = true, .is_narrow = true},
    [MD_OP_nce_lse] = {.emit = md_cu_nce, .reads = MANY_READS, .is_narrow = true},
    [MD_OP_max_pool3d] = {.is_value = true, .is_long = true},
    [MD_OP_max_pool3d_grad] = {.is_value = true, .is_long = true, .reads = MANY_READS},
    [MD_OP_avg_pool3d] = {.is_value = true, .is_long = true},
    [MD_OP_avg_pool3d_grad] = {.is_value = true, .is_long = true, .reads = MANY_READS},
    [MD_OP_scatter_rows] = {.is_value = true, .is_long = true, .reads = MANY_READS},
    [MD_OP_matmul] = {.emit = md_cu_matmul, .reads = MANY_READS},
    [MD_OP_logsumexp] = {.emit = md_cu_rows},
    [MD_OP_softmax] = {.emit = md_cu_rows},
    [MD_OP_cross_entropy] = {.emit = md_cu_rows},
    [MD_OP_cross_entropy_grad] = {.emit = md_cu_rows},
    [MD_OP_l2_normalize] = {.emit = md_cu_rows},
    [MD_OP_l2_normalize_grad] = {.emit = md_cu_rows},
    [MD_OP_argmax] = {.emit = md_cu_rows},
    [MD_OP_topk_hit] = {.emit = md_cu_rows},
    [MD_OP_resize] = {.emit = md_cu_resize, .reads = MANY_READS},
    [MD_OP_gaussian_blur] = {.emit = md_cu_blur, .reads = MANY_READS},
    [MD_OP_concat] = {.is_value = true},
    [MD_OP_pad] = {.is_value = true},
    [MD_OP_space_to_depth] = {.is_value = true},
    [MD_OP_depth_to_space] = {.is_value = true},
    [MD_OP_crop] = {.is_value = true},
    [MD_OP_gather_rows] = {.is_value = true},
    [MD_OP_bank_push] = {.emit = md_cu_push, .is_value = true},
    [MD_OP_ring_next] = {.is_value = true},
    [MD_OP_grayscale] = {.is_value = true},
    [MD_OP_frame_difference] = {.is_value = true},
};
// clang-format on

const md_cu_op *md_cu_op_of(md_op op) { return ops[op].emit || ops[op].is_value ? &ops[op] : NULL; }

static bool has_kernel(const md_node *n) {
  md_role role = md_ops[n->op].role;
  return role == MD_POINTWISE || role == MD_VIEW || role == MD_REDUCE || md_cu_op_of(n->op);
}

// Tiles count pixels as an int.
static bool has_many_pixels(const md_graph *g, const md_node *n) {
  if (n->op != MD_OP_conv3d && n->op != MD_OP_conv3d_dgrad && n->op != MD_OP_conv3d_wgrad)
    return false;
  const md_shape *s = &md_type_in(g, n->op == MD_OP_conv3d_wgrad ? n->in[0] : n->out)->shape;
  return md_elements(s) / s->dim[1] > MAX_INT_ELEMENTS;
}

const char *md_cu_refuse(const md_region_view *r, md_arena *a) {
  int args = r->num_inputs + r->num_outputs;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    if (has_many_pixels(r->g, n)) return "a convolution of more than 2^30 pixels";
    if (!has_kernel(n)) return md_format(a, "%s is not there yet", md_ops[n->op].name);
    args += 2 * n->num_out;  // workspace, at most
    if (md_cu_op_of(n->op) && md_cu_op_of(n->op)->is_narrow &&
        md_type_in(r->g, n->out)->dtype == MD_F64)
      return md_format(a, "%s of f64 is not there yet", md_ops[n->op].name);
  }
  return args > MD_CU_MAX_ARGS ? "more tensors than a kernel takes" : NULL;
}
