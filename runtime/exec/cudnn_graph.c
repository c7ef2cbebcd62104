// SPDX-License-Identifier: Apache-2.0
// Operations as cuDNN's descriptors:
//
//   tensors + what to do with them -> operations -> graph
#include "runtime/exec/cudnn.h"

// CUDNN_BACKEND_*_DESCRIPTOR
enum {
  POINTWISE = 0,
  CONVOLUTION = 1,
  FORWARD_OP = 10,
  WEIGHTS_OP,
  DATA_OP,
  POINTWISE_OP,
  SUMS_OP,
  GRAPH,
  TENSOR = 17
};
// CUDNN_TYPE_*
enum { A_HANDLE = 0, A_DATA_TYPE = 1, A_MODE = 7, A_POINTWISE_MODE = 14, A_SUMS_MODE = 16 };
// CUDNN_ATTR_*
enum {
  POINTWISE_MODE = 0,
  POINTWISE_TYPE,
  CONV_TYPE = 100,
  CONV_MODE,
  CONV_DILATIONS,
  CONV_STRIDES,
  CONV_POST_PADS,
  CONV_PRE_PADS,
  CONV_AXES,
  FORWARD_ALPHA = 700,
  FORWARD_BETA,
  FORWARD_CONV,
  FORWARD_W,
  FORWARD_X,
  FORWARD_Y,
  DATA_ALPHA,
  DATA_BETA,
  DATA_CONV,
  DATA_W,
  DATA_X,
  DATA_Y,
  WEIGHTS_ALPHA,
  WEIGHTS_BETA,
  WEIGHTS_CONV,
  WEIGHTS_W,
  WEIGHTS_X,
  WEIGHTS_Y,
  POINTWISE_OP_IS = 750,
  POINTWISE_OP_X,
  POINTWISE_OP_B,
  POINTWISE_OP_Y,
  SUMS_MODE = 770,
  SUMS_TYPE,
  SUMS_X,
  SUMS_SUM,
  SUMS_SQUARES,
  GRAPH_HANDLE = 800,
  GRAPH_OPERATIONS,
  TENSOR_ALIGNMENT = 900,
  TENSOR_TYPE,
  TENSOR_DIMS,
  TENSOR_STRIDES,
  TENSOR_ID = 906,
  TENSOR_IS_NOWHERE = 907,
  TENSOR_IS_BY_VALUE = 908,
};
enum { ALIGNMENT = 16 };

// --- as text, for a digest

static void put_axes(md_text *to, const int64_t *x, int num) {
  for (int i = 0; i < num; i++) md_put(to, "%s%lld", i ? "," : " ", (long long)x[i]);
}

void md_cudnn_graph_text(const md_cudnn_graph *g, md_text *to) {
  for (int i = 0; i < g->num_tensors; i++) {
    const md_cudnn_tensor *t = &g->tensor[i];
    md_put(to, "tensor %d id %lld %s %d", i, (long long)t->id, md_dtype_name(t->type.dtype),
           (int)t->place);
    put_axes(to, t->type.dim, 5);
    put_axes(to, t->type.stride, 5);
    md_put(to, "\n");
  }
  for (int i = 0; i < g->num_ops; i++)
    md_put(to, "op %d %d: %d %d %d\n", (int)g->op[i].kind, g->op[i].mode, g->op[i].x, g->op[i].b,
           g->op[i].y);
  put_axes(to, g->stride, 3);
  put_axes(to, g->pad, 3);
  put_axes(to, g->dilation, 3);
  md_put(to, "%s\n", g->is_exact ? " exact" : "");
}

// --- as descriptors

static int data_type(md_dtype t) { return t == MD_BF16 ? 9 : 0; }  // CUDNN_DATA_*

static void *tensor(md_cudnn_making *m, const md_cudnn_tensor *t) {
  int type = data_type(t->type.dtype);
  int64_t alignment = ALIGNMENT;
  const unsigned char yes = 1;
  void *d = md_cudnn_make(m, TENSOR, "a tensor");
  md_cudnn_set(m, d, TENSOR_TYPE, A_DATA_TYPE, 1, &type);
  md_cudnn_set(m, d, TENSOR_DIMS, MD_CUDNN_INT, 5, t->type.dim);
  md_cudnn_set(m, d, TENSOR_STRIDES, MD_CUDNN_INT, 5, t->type.stride);
  md_cudnn_set(m, d, TENSOR_ID, MD_CUDNN_INT, 1, &t->id);
  md_cudnn_set(m, d, TENSOR_ALIGNMENT, MD_CUDNN_INT, 1, &alignment);
  if (t->place == MD_CUDNN_NOWHERE) md_cudnn_set(m, d, TENSOR_IS_NOWHERE, MD_CUDNN_BOOL, 1, &yes);
  if (t->place == MD_CUDNN_BY_VALUE) md_cudnn_set(m, d, TENSOR_IS_BY_VALUE, MD_CUDNN_BOOL, 1, &yes);
  md_cudnn_finish(m, d, "a tensor");
  return d;
}

static void *geometry(md_cudnn_making *m, const md_cudnn_graph *g) {
  int type = data_type(MD_F32), mode = 1;  // CUDNN_CROSS_CORRELATION
  int64_t axes = 3;
  void *d = md_cudnn_make(m, CONVOLUTION, "a convolution");
  md_cudnn_set(m, d, CONV_TYPE, A_DATA_TYPE, 1, &type);
  md_cudnn_set(m, d, CONV_MODE, A_MODE, 1, &mode);
  md_cudnn_set(m, d, CONV_AXES, MD_CUDNN_INT, 1, &axes);
  md_cudnn_set(m, d, CONV_STRIDES, MD_CUDNN_INT, 3, g->stride);
  md_cudnn_set(m, d, CONV_DILATIONS, MD_CUDNN_INT, 3, g->dilation);
  md_cudnn_set(m, d, CONV_PRE_PADS, MD_CUDNN_INT, 3, g->pad);
  md_cudnn_set(m, d, CONV_POST_PADS, MD_CUDNN_INT, 3, g->pad);
  md_cudnn_finish(m, d, "a convolution");
  return d;
}

// y = 1 * conv(x, w) + 0 * y, or one of the gradients.
static void *convolution(md_cudnn_making *m, const md_cudnn_graph *g, int kind, void *x, void *w,
                         void *y) {
  static const struct {
    int kind, alpha, beta, conv, x, w, y;
  } rows[MD_NUM_CONVS] = {
      [MD_CONV_FORWARD] = {FORWARD_OP, FORWARD_ALPHA, FORWARD_BETA, FORWARD_CONV, FORWARD_X,
                           FORWARD_W, FORWARD_Y},
      [MD_CONV_DATA] = {DATA_OP, DATA_ALPHA, DATA_BETA, DATA_CONV, DATA_X, DATA_W, DATA_Y},
      [MD_CONV_WEIGHTS] = {WEIGHTS_OP, WEIGHTS_ALPHA, WEIGHTS_BETA, WEIGHTS_CONV, WEIGHTS_X,
                           WEIGHTS_W, WEIGHTS_Y},
  };
  float one = 1, zero = 0;
  void *conv = geometry(m, g);
  void *d = md_cudnn_make(m, rows[kind].kind, "an operation");
  md_cudnn_set(m, d, rows[kind].alpha, MD_CUDNN_FLOAT, 1, &one);
  md_cudnn_set(m, d, rows[kind].beta, MD_CUDNN_FLOAT, 1, &zero);
  md_cudnn_set(m, d, rows[kind].conv, MD_CUDNN_DESCRIPTOR, 1, &conv);
  md_cudnn_set(m, d, rows[kind].x, MD_CUDNN_DESCRIPTOR, 1, &x);
  md_cudnn_set(m, d, rows[kind].w, MD_CUDNN_DESCRIPTOR, 1, &w);
  md_cudnn_set(m, d, rows[kind].y, MD_CUDNN_DESCRIPTOR, 1, &y);
  md_cudnn_finish(m, d, "an operation");
  return d;
}

static void *pointwise(md_cudnn_making *m, int mode, void *x, void *b, void *y) {
  int type = data_type(MD_F32);
  void *how = md_cudnn_make(m, POINTWISE, "arithmetic");
  md_cudnn_set(m, how, POINTWISE_MODE, A_POINTWISE_MODE, 1, &mode);
  md_cudnn_set(m, how, POINTWISE_TYPE, A_DATA_TYPE, 1, &type);
  md_cudnn_finish(m, how, "arithmetic");
  void *d = md_cudnn_make(m, POINTWISE_OP, "an operation");
  md_cudnn_set(m, d, POINTWISE_OP_IS, MD_CUDNN_DESCRIPTOR, 1, &how);
  md_cudnn_set(m, d, POINTWISE_OP_X, MD_CUDNN_DESCRIPTOR, 1, &x);
  if (b) md_cudnn_set(m, d, POINTWISE_OP_B, MD_CUDNN_DESCRIPTOR, 1, &b);
  md_cudnn_set(m, d, POINTWISE_OP_Y, MD_CUDNN_DESCRIPTOR, 1, &y);
  md_cudnn_finish(m, d, "an operation");
  return d;
}

static void *sums(md_cudnn_making *m, void *x, void *sum, void *squares) {
  int type = data_type(MD_F32), mode = 0;  // CUDNN_GENSTATS_SUM_SQSUM
  void *d = md_cudnn_make(m, SUMS_OP, "sums");
  md_cudnn_set(m, d, SUMS_MODE, A_SUMS_MODE, 1, &mode);
  md_cudnn_set(m, d, SUMS_TYPE, A_DATA_TYPE, 1, &type);
  md_cudnn_set(m, d, SUMS_X, MD_CUDNN_DESCRIPTOR, 1, &x);
  md_cudnn_set(m, d, SUMS_SUM, MD_CUDNN_DESCRIPTOR, 1, &sum);
  md_cudnn_set(m, d, SUMS_SQUARES, MD_CUDNN_DESCRIPTOR, 1, &squares);
  md_cudnn_finish(m, d, "sums");
  return d;
}

static void *operation(md_cudnn_making *m, const md_cudnn_graph *g, const md_cudnn_op *o,
                       void *const *t) {
  void *b = o->b < 0 ? NULL : t[o->b];
  switch (o->kind) {
  case MD_CUDNN_POINTWISE: return pointwise(m, o->mode, t[o->x], b, t[o->y]);
  case MD_CUDNN_CONV: return convolution(m, g, o->mode, t[o->x], b, t[o->y]);
  case MD_CUDNN_SUMS: return sums(m, t[o->x], t[o->y], b);
  }
  return NULL;
}

void *md_cudnn_graph_make(md_cudnn_making *m, const md_cudnn_graph *g) {
  void *handle = md_cudnn_handle(m->c), *t[MD_CUDNN_TENSORS], *op[MD_CUDNN_OPS];
  for (int i = 0; i < g->num_tensors; i++) t[i] = tensor(m, &g->tensor[i]);
  for (int i = 0; i < g->num_ops; i++) op[i] = operation(m, g, &g->op[i], t);
  void *d = md_cudnn_make(m, GRAPH, "a graph");
  if (handle) md_cudnn_set(m, d, GRAPH_HANDLE, A_HANDLE, 1, &handle);
  md_cudnn_set(m, d, GRAPH_OPERATIONS, MD_CUDNN_DESCRIPTOR, g->num_ops, op);
  md_cudnn_finish(m, d, "the graph of a convolution");
  return d;
}
