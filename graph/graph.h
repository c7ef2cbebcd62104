// SPDX-License-Identifier: Apache-2.0
// The graph: typed values, nodes from one op table, states with updates, regions. The map of this
// folder; a section for each file. docs/graph.md has the text form and its meaning.
#ifndef GRAPH_GRAPH_H
#define GRAPH_GRAPH_H

#include "base/base.h"
#include "base/diag.h"
#include "base/init.h"
#include "modist/dtype.h"

// --- type.c: element types and shapes ------------------------------------------------------------

enum {
  MD_MAX_RANK = 6,
  MD_MAX_IN = 512,         // operands of a node (variadic ops)
  MD_MAX_OUT = 512,        // results of a node
  MD_MAX_NODES = 1000000,  // nodes of a graph
  MD_MAX_REGION = 1024,    // nodes of a region: back ends recurse along them
  MD_MAX_NAME = 255,       // characters of a name
};
#define MD_MAX_DIM ((int64_t)1 << 31)       // exclusive bound of one dimension
#define MD_MAX_ELEMENTS ((int64_t)1 << 40)  // exclusive bound of a tensor's elements

typedef struct md_dim3 {
  int64_t d[3];
} md_dim3;  // t, h, w
#define D3(t, h, w) ((md_dim3){{(t), (h), (w)}})
// A short list of sizes or axes. n = 0 is "not given".
typedef struct md_dims {
  int64_t n, d[MD_MAX_RANK];
} md_dims;

typedef struct md_shape {
  int rank;
  int64_t dim[MD_MAX_RANK];
} md_shape;
// `block`: channels (axis 1) stored in blocks of that many, innermost, the last block padded with
// unspecified values: [n][ceil(c/block)]...[block]. 0: row-major.
typedef struct md_type {
  md_dtype dtype;
  int block;
  md_shape shape;
} md_type;

md_type md_type_of(md_dtype d, int rank, const int64_t *dim);
bool md_type_equal(const md_type *a, const md_type *b);  // layout included
bool md_shape_equal(const md_shape *a, const md_shape *b);
int64_t md_elements(const md_shape *s);   // of a verified shape
int64_t md_type_bytes(const md_type *t);  // in memory, padding of blocks included
// Offset in elements of index idx[rank], layout respected.
int64_t md_type_offset(const md_type *t, const int64_t *idx);
char *md_type_text(const md_type *t, md_arena *a);         // "f32[2,64,8,56,56].c8"
bool md_shape_check(const md_shape *s, const char **why);  // limits; false with a reason
bool md_type_check(const md_type *t, const char **why);    // the same, with dtype and layout

// --- expr.c: scalar formulas of pointwise ops ----------------------------------------------------
// Grammar: `y = max(x, 0)` or, for several results, `a = ...; b = ...`. Names are operands,
// attributes, or results defined before. All arithmetic is in the element type of the results.
// + - * / ( ) comparisons (< <= == !=, giving 1 or 0) & | and the functions
// min max exp log log1p sqrt rsqrt abs tanh floor select(cond, a, b) random(key), `inf`.

typedef enum md_expr_kind {
  MD_EX_CONST,
  MD_EX_ARG,
  MD_EX_ATTR,
  MD_EX_ADD,
  MD_EX_SUB,
  MD_EX_MUL,
  MD_EX_DIV,
  MD_EX_NEG,
  MD_EX_MIN,
  MD_EX_MAX,
  MD_EX_LT,
  MD_EX_LE,
  MD_EX_EQ,
  MD_EX_NE,
  MD_EX_AND,
  MD_EX_OR,
  MD_EX_EXP,
  MD_EX_LOG,
  MD_EX_LOG1P,
  MD_EX_SQRT,
  MD_EX_RSQRT,
  MD_EX_ABS,
  MD_EX_TANH,
  MD_EX_FLOOR,
  MD_EX_SELECT,  // select(a, b, c)
  MD_EX_RANDOM,  // a is an ARG; in [0, 1): md_hash_01(a as integer key, row-major index of the element)
  MD_NUM_EX
} md_expr_kind;
enum { MD_MAX_EXPR = 64 };
typedef struct md_expr_node {
  md_expr_kind kind;
  int a, b, c;   // operands: indices of earlier nodes; ARG: operand number; ATTR: word of md_attr
  bool is_int;   // ATTR: the word is an integer (or bool), else a double
  double value;  // CONST
} md_expr_node;
typedef struct md_expr {
  int num, num_out;
  md_expr_node node[MD_MAX_EXPR];  // topological
  int out[4];                      // node of each result
} md_expr;

struct md_op_row;
union md_attr;
// The formula of a row, parsed once; NULL when the row has none.
const md_expr *md_op_expr(const struct md_op_row *row);
// Parses it anew, for md_ops_check. False with a text.
bool md_expr_parse(const struct md_op_row *row, md_expr *e, char *why, int why_size);
double md_attr_value(const union md_attr *attr, const md_expr_node *n);
int md_expr_arity(md_expr_kind kind);  // how many of a, b, c are steps; the others are 0
// min and max pass a NaN on.
double md_expr_apply(md_expr_kind kind, double a, double b, double c);  // all but ARG, ATTR, RANDOM

// --- ops.c: the op table -------------------------------------------------------------------------

typedef uint32_t md_val;
#define MD_NONE ((md_val)0)

typedef enum md_op {
  MD_OP_none,
#define OP(name, ...) MD_OP_##name,
#include "graph/ops.def"
#undef OP
  MD_NUM_OPS
} md_op;

// What passes and back ends may do with an op.
typedef enum md_role {
  MD_LEAF,       // input, state, constant
  MD_POINTWISE,  // has a formula; operands are read at the element's own (broadcast) index
  MD_VIEW,       // element of the result = one element of the operand, strides known statically
  MD_REDUCE,     // sums over axes
  MD_ANCHOR,     // convolution, matrix product, pooling, InfoNCE: the heart of a region
  MD_GATHER,     // data movement and row-wise work that is none of the above
  MD_META,       // expanded by a pass (gradient); not executable
} md_role;

// Algebraic facts (flags of a row).
enum {
  MD_COMMUTATIVE = 1,  // of its two operands
  MD_IDEMPOTENT = 2,   // f(f(x)) = f(x)
  MD_VARIADIC = 4,     // the last operand pattern repeats
  MD_EFFECT = 8,       // never merged by CSE
  MD_LEAVES_OUT = 16,  // -inf says what was left out: a value, and no mistake
};

// Attributes. Each struct is a run of 8-byte words in the order of the row's `.attr`; zero words
// take the default that the row states (`name:type>=bound` or `name:type=default`).
typedef struct md_conv3d_attr {
  md_dim3 stride, pad, dilation;
} md_conv3d_attr;
typedef struct md_conv3d_grad_attr {
  md_dim3 stride, pad, dilation;
  md_dims shape;
} md_conv3d_grad_attr;
typedef struct md_pool3d_attr {
  md_dim3 kernel, stride, pad;
} md_pool3d_attr;
typedef struct md_pool3d_grad_attr {
  md_dim3 kernel, stride, pad;
  md_dims shape;
} md_pool3d_grad_attr;
typedef struct md_batch_norm_attr {
  double eps;
  int64_t batch_stats;
} md_batch_norm_attr;
typedef struct md_matmul_attr {
  int64_t ta, tb;
} md_matmul_attr;
typedef struct md_axes_attr {
  md_dims axes;
} md_axes_attr;
typedef struct md_shape_attr {
  md_dims shape, axes;
} md_shape_attr;
typedef struct md_slice_attr {
  int64_t axis, start, size;
} md_slice_attr;
typedef struct md_state_attr {
  int64_t init;      // md_init of base/init.h
  double a, b;       // fill: a; normal: mean a, std b; uniform: [a-b, a+b)
  const char *from;  // copy: name of the state whose initial value this one takes
} md_state_attr;
typedef struct md_sgd_attr {
  double momentum, weight_decay;
  int64_t nesterov;
} md_sgd_attr;
typedef struct md_adamw_attr {
  double beta1, beta2, eps, weight_decay;
} md_adamw_attr;
typedef struct md_resize_attr {
  md_dims size;
  int64_t align_corners, antialias;
} md_resize_attr;
typedef struct md_crop_attr {
  int64_t top, left, h, w;
} md_crop_attr;
typedef struct md_fold_attr {
  md_dim3 by, before, size;
} md_fold_attr;
typedef struct md_value_attr {
  double value;
} md_value_attr;
typedef struct md_affine_attr {
  double scale, shift;
} md_affine_attr;  // scale 0 means 1
typedef struct md_blur_attr {
  int64_t size;
  double sigma;
} md_blur_attr;
typedef struct md_dtype_attr {
  int64_t dtype;
} md_dtype_attr;
typedef struct md_int_attr {
  int64_t value;
} md_int_attr;
typedef struct md_float_attr {
  double value;
} md_float_attr;

enum { MD_ATTR_WORDS = 20 };
typedef union md_attr {
  int64_t word[MD_ATTR_WORDS];
  double real[MD_ATTR_WORDS];
  md_conv3d_attr conv3d;
  md_conv3d_grad_attr conv3d_grad;
  md_pool3d_attr pool3d;
  md_pool3d_grad_attr pool3d_grad;
  md_batch_norm_attr batch_norm;
  md_matmul_attr matmul;
  md_axes_attr axes;
  md_shape_attr shape;
  md_slice_attr slice;
  md_state_attr state;
  md_sgd_attr sgd;
  md_adamw_attr adamw;
  md_resize_attr resize;
  md_crop_attr crop;
  md_fold_attr fold;
  md_value_attr value;
  md_affine_attr affine;
  md_blur_attr blur;
  md_dtype_attr dtype;
  md_int_attr i;
  md_float_attr f;
} md_attr;

typedef enum md_attr_type {
  MD_AT_INT,
  MD_AT_FLOAT,
  MD_AT_BOOL,
  MD_AT_DIM3,
  MD_AT_DIMS,
  MD_AT_ENUM,
  MD_AT_DTYPE,
  MD_AT_NAME
} md_attr_type;
// One attribute pattern, parsed: "stride:dim3>=1", "eps:float=1e-05", "init:enum(zeros,ones)=zeros".
typedef struct md_attr_spec {
  char name[24];
  md_attr_type type;
  int word, num_words;  // place in md_attr
  double preset;        // default of a zero word
  bool has_min;
  double min;  // lower bound of every word
  char choice[8][16];
  int num_choices;
} md_attr_spec;

// One operand or result pattern, parsed: "x[n,c,*]", "i32 ids[b]", "bias[o]?".
// dtype words in front: f (any float; the default; all f operands agree), i (i32 or i64), i32, i64,
// u8, bool, any. `*` binds any number of trailing axes (equal wherever it stands).
typedef struct md_operand_spec {
  char name[16];
  char dtype[8];
  char axis[MD_MAX_RANK][8];
  int num_axes;  // letters; "*" last
  bool optional;
} md_operand_spec;

struct md_node;
struct md_builder;
struct md_infer;
struct md_eval;
typedef struct md_cost {
  double flops, bytes;
} md_cost;

enum { MD_ROW_IN = 10, MD_ROW_OUT = 6, MD_ROW_ATTR = 6, MD_ROW_SAMPLES = 6 };
typedef struct md_op_row {
  md_op op;
  const char *name;
  md_role role;
  unsigned flags;
  const char *in[MD_ROW_IN], *out[MD_ROW_OUT], *attr[MD_ROW_ATTR];
  const char *scalar;  // formula of a pointwise op
  // Result types where the patterns do not say them. False: rejected by md_reject.
  bool (*shape)(struct md_infer *f);
  // dy[i]: gradient of result i or MD_NONE; sets d[j] of operand j, MD_NONE where there is none.
  void (*grad)(struct md_builder *b, const struct md_node *y, const md_val *dy, md_val *d);
  const char *no_grad;   // why there is no gradient
  const char *constant;  // operand that has none beside the others, which do
  void (*cost)(const struct md_infer *f,
               md_cost *c);         // NULL: one FLOP a formula step, bytes of operands
  void (*eval)(struct md_eval *e);  // NULL for pointwise: the formula
  const char *doc;                  // one sentence of meaning
  // Operand types and attributes for the generic tests: "f32[2,3,4,5,5], f32[4,3,1,3,3] {pad=[0,1,1]}"
  const char *samples[MD_ROW_SAMPLES];
} md_op_row;
extern const md_op_row md_ops[MD_NUM_OPS];

int md_op_num_in(md_op op);   // patterns, optional ones included
int md_op_num_out(md_op op);  // patterns
int md_op_num_attr(md_op op);
const md_operand_spec *md_op_in(md_op op, int i);  // parsed once
bool md_op_is_constant(md_op op, int i);           // the row's .constant
const md_operand_spec *md_op_out(md_op op, int i);
const md_attr_spec *md_op_attr(md_op op, int i);
md_op md_op_from(const char *name);  // MD_OP_none when unknown
const char *md_op_nearest(const char *name);
// Parses every row and checks the table's own rules. False with a text.
bool md_ops_check(char *why, int why_size);

// --- graph.c: the graph --------------------------------------------------------------------------

typedef struct md_node {
  md_op op;
  int index;  // position in the graph; operands come earlier
  int num_in, num_out;
  const md_val *in;  // MD_NONE for an absent optional operand
  md_val out;        // results are out, out + 1, ...
  int region;        // 1..num_regions; 0 while unfused
  const char *name;  // input and state: its name. Others: NULL
  md_place place;    // where the user wrote it
  md_attr attr;
} md_node;

typedef struct md_value {
  md_type type;
  const md_node *node;
  int uses;          // readers: operands, updates and graph results
  const char *name;  // without '%'; NULL: numbered
  int64_t offset;    // bytes in the arena; -1: no place (not planned, region-internal, or state)
  md_val storage;    // state whose buffer holds this value (in-place update), or MD_NONE
} md_value;

typedef struct md_result {
  const char *name;
  md_val val;
} md_result;
typedef struct md_update {
  md_val state, val;
} md_update;
// A region: nodes first .. first+num-1. Only values read outside of it exist in memory.
typedef struct md_region {
  const char *name;
  int first, num;
} md_region;

typedef struct md_graph {
  md_arena *arena;
  const char *name;
  int num_nodes, num_values, num_results, num_updates, num_regions;  // values: 1..num_values
  md_node **node;                                                    // topological
  md_value *value;                                                   // by md_val; [0] unused
  md_result *result;
  md_update *update;
  md_region *region;    // [1..num_regions]
  int64_t arena_bytes;  // planned peak; -1 before planning
  int cap_nodes, cap_values, cap_results, cap_updates, cap_regions;
  struct md_names *names;  // index of the names below
} md_graph;

md_graph *md_graph_create(const char *name);
void md_graph_destroy(md_graph *g);
const md_type *md_type_in(const md_graph *g, md_val v);
const md_node *md_def(const md_graph *g, md_val v);
md_val md_find_state(const md_graph *g, const char *name);  // MD_NONE when there is none
md_val md_find_input(const md_graph *g, const char *name);
md_val md_find_result(const md_graph *g, const char *name);
// A letter or `_`, then letters, digits and _ . $ -; at most MD_MAX_NAME characters.
bool md_name_valid(const char *name);
// Names are unique within a kind; adding one a second time returns false (build.c).
// MD_NAME_UPDATE: names of the states that have an update.
typedef enum md_name_kind {
  MD_NAME_INPUT = 1,
  MD_NAME_STATE,
  MD_NAME_RESULT,
  MD_NAME_UPDATE
} md_name_kind;
bool md_name_add(md_graph *g, md_name_kind kind, const char *name, md_val v);
// Values that a region reads from outside / makes visible outside. Arrays in `a`; returns the count.
int md_region_inputs(const md_graph *g, int region, md_arena *a, md_val **vals);
int md_region_outputs(const md_graph *g, int region, md_arena *a, md_val **vals);
md_digest md_graph_digest(const md_graph *g);  // of the text form without names and places

// --- build.c: the builder ------------------------------------------------------------------------
// Sticky: after an error every builder returns MD_NONE, which every builder accepts.

// Where the parts of a node stand in a text, for carets. line 0: it is not written there.
typedef struct md_parts {
  md_place in[MD_MAX_IN], attr[MD_ROW_ATTR];
} md_parts;

typedef struct md_builder {
  md_graph *g;
  md_diags *diags;
  md_place place;         // given to new nodes
  const md_parts *parts;  // of the node that is being added; NULL: not known
  bool failed;
  int region;  // given to new nodes
  char scope[MD_MAX_NAME + 1];
} md_builder;

void md_builder_init(md_builder *b, md_graph *g, md_diags *diags);
// Names inside a scope are "scope.name". `md_scope_push` returns what `md_scope_pop` takes.
int md_scope_push(md_builder *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void md_scope_pop(md_builder *b, int mark);

// The general builder: checks operands against the row, infers the results, appends the node.
// `attr` NULL: all defaults. Returns the first result.
md_val md_add_node(md_builder *b, md_op op, const md_val *in, int num_in, const md_attr *attr);
md_val md_input(md_builder *b, const char *name, md_type type);
md_val md_state(md_builder *b, const char *name, md_type type, const md_state_attr *init);
void md_update_state(md_builder *b, md_val state, md_val val);  // once for each state
void md_return(md_builder *b, const char *name, md_val val);    // name NULL: the value's own
void md_set_name(md_builder *b, md_val v, const char *name);    // scope is put in front
md_shape md_shape_of(const md_builder *b, md_val v);            // rank 0 of MD_NONE
md_dtype md_dtype_of(const md_builder *b, md_val v);
// Result i of the node that made v (its first result).
md_val md_result_of(const md_builder *b, md_val v, int i);
// One line each, spelled as the op is printed (builders.c). Several results: the first is returned,
// the others are md_result_of(b, v, i).
md_val md_constant(md_builder *b, md_type type, double value);
md_val md_add(md_builder *b, md_val x, md_val y);
md_val md_sub(md_builder *b, md_val x, md_val y);
md_val md_mul(md_builder *b, md_val x, md_val y);
md_val md_div(md_builder *b, md_val x, md_val y);
md_val md_affine(md_builder *b, md_val x, double scale, double shift);  // x*scale + shift
md_val md_relu(md_builder *b, md_val x);
md_val md_relu_grad(md_builder *b, md_val dy, md_val y);
md_val md_cast(md_builder *b, md_val x, md_dtype to);
md_val md_broadcast(md_builder *b, md_val x, md_shape to,
                    md_dims axes);  // axes[i]: where axis i goes
md_val md_reshape(md_builder *b, md_val x, md_shape to);
md_val md_transpose(md_builder *b, md_val x, md_dims perm);
md_val md_slice(md_builder *b, md_val x, int axis, int64_t start, int64_t size);
md_val md_concat(md_builder *b, const md_val *x, int n, int axis);
md_val md_sum(md_builder *b, md_val x, md_dims axes);  // summed axes disappear
md_val md_mean(md_builder *b, md_val x, md_dims axes);
md_val md_matmul(md_builder *b, md_val x, md_val y, bool tx, bool ty);
md_val md_conv3d(md_builder *b, md_val x, md_val w, md_val bias, const md_conv3d_attr *a);
// A conv3d of T x 1 x 1 that has as many frames and pixels as its operand: every element of x counts, and
// a pixel of y is made of the frames of that pixel of x alone.
bool md_conv3d_stays_at_pixel(const md_graph *g, const md_node *n);
// A tap of a conv3d at which each pixel of y meets the pixel of x of its own place, and y has as many; false:
// there is none.
bool md_conv3d_own_tap(const md_graph *g, const md_node *n, int64_t tap[3]);
md_val md_conv3d_dgrad(md_builder *b, md_val dy, md_val w, md_shape x, const md_conv3d_attr *a);
md_val md_conv3d_wgrad(md_builder *b, md_val dy, md_val x, md_shape w, const md_conv3d_attr *a);
md_val md_moments(md_builder *b, md_val x, int64_t groups);  // mean, var (biased), [g,c] each
md_val md_batch_norm(md_builder *b, md_val x, md_val gamma, md_val beta, md_val mean, md_val var,
                     double eps, bool batch_stats);
md_val md_max_pool3d(md_builder *b, md_val x, const md_pool3d_attr *a);
md_val md_avg_pool3d(md_builder *b, md_val x, const md_pool3d_attr *a);
md_val md_l2_normalize(md_builder *b, md_val x, double eps);
md_val md_gradient(md_builder *b, md_val loss, const md_val *wrt, int n);

// The nodes added between the two belong to region `name`; its number is returned. Regions do not
// nest; an empty one disappears.
int md_region_begin(md_builder *b, const char *name);
void md_region_end(md_builder *b);

// --- infer.c: what a row's functions see ---------------------------------------------------------

typedef struct md_infer {
  const md_graph *g;
  const md_node *node;  // op, num_in, in, attr
  md_type out[MD_MAX_OUT];
  int num_out;  // shape functions of ops with a variable number of results set it
  md_diags *diags;
  md_place place;
  const md_parts *parts;  // NULL: messages point at the whole node
} md_infer;
const md_shape *md_in(const md_infer *f, int i);  // shape of operand i; NULL when absent
md_dtype md_in_dtype(const md_infer *f, int i);
// "$0" in the text becomes the name of operand 0. Returns false.
bool md_reject(md_infer *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool md_infer_node(md_infer *f);  // checks operands and attributes, sets out[]
void md_node_cost(const md_graph *g, const md_node *n, md_cost *c);
// resize goes axis by axis; the axes in their order: those that shrink first, so that nothing between
// is larger than both ends. axis[] gets them; returns how many. (op_image.c)
int md_resize_order(const md_shape *x, const md_resize_attr *a, int *axis);
// What place `index` in the window of element i of y is in its plane of x, t*H*W + h*W + w; -1: none. (op_pool.c)
int64_t md_pool_place(const md_pool3d_attr *a, const md_shape *x, const md_shape *y, int64_t i,
                      int64_t index);

// --- verify.c ------------------------------------------------------------------------------------
// All that later stages rely on: order, types, attributes, one update a state, contiguous regions,
// places inside the arena that do not overlap while both are live. False: reported.
bool md_graph_verify(const md_graph *g, md_diags *d);
// Its last part (verify_plan.c), on a graph whose other parts are verified.
bool md_plan_verify(const md_graph *g, md_arena *scratch, md_diags *d);

// --- parse.c, print.c, dot.c ---------------------------------------------------------------------
md_graph **md_parse_graphs(const char *file, const char *text, size_t len, md_arena *a, int *num,
                           md_diags *d);  // several graphs in a text; NULL: reported
md_graph *md_parse_graph(const char *file, const char *text, size_t len,
                         md_diags *d);  // exactly one
// Parses "{stride=[1,2,2]}" (braces included) of `op` into attr.
bool md_parse_attrs(const char *text, md_op op, md_arena *a, md_attr *attr, md_diags *d);
void md_graph_print(const md_graph *g, md_text *to);
void md_node_print(const md_graph *g, const md_node *n, md_text *to);  // one line, no newline
// The same for many nodes of a graph, whose values are named once.
typedef struct md_printer md_printer;
md_printer *md_printer_create(const md_graph *g);
void md_printer_node(md_printer *p, const md_node *n, md_text *to);
void md_printer_destroy(md_printer *p);
void md_graph_dump(const md_graph *g);  // to stderr, for debuggers
void md_graph_dot(const md_graph *g, md_text *to);

// --- interp.c: the meaning -----------------------------------------------------------------------

// Row-major whatever the type's layout. Floats as double, integers and bools as int64_t.
typedef struct md_tensor {
  md_type type;
  double *f;
  int64_t *i;
} md_tensor;
typedef struct md_eval {
  const md_graph *g;
  const md_node *node;
  const md_tensor **in;  // NULL for an absent operand
  md_tensor **out;       // allocated, zeroed
} md_eval;
md_tensor *md_tensor_create(md_type type);  // zeroed; NULL: no memory
void md_tensor_destroy(md_tensor *t);
void md_tensor_read(md_tensor *t, const void *src);   // from memory of t->type's dtype and layout
void md_tensor_write(const md_tensor *t, void *dst);  // to memory of t->type's dtype and layout
// Rounds the elements to the type's precision (f32, bf16).
void md_tensor_round(md_tensor *t);
void md_eval_node(const md_graph *g, const md_node *n, const md_tensor **in, md_tensor **out);

// Runs whole graphs. Keeps states between steps. Values are dropped after their last reader.
typedef struct md_interp md_interp;
md_interp *md_interp_create(const md_graph *g, bool round);  // round: every value to its own type
void md_interp_destroy(md_interp *in);
md_tensor *md_interp_input(md_interp *in, const char *name);  // to be filled; NULL: no such input
md_tensor *md_interp_state(md_interp *in, const char *name);
void md_interp_keep(md_interp *in, md_val v);                     // keep this value for inspection
bool md_interp_step(md_interp *in, md_diags *d);                  // runs and applies the updates
const md_tensor *md_interp_value(const md_interp *in, md_val v);  // result or kept value
// Initial value of a state as its attributes say, from the counter-based hash of name and seed.
void md_state_fill(const md_graph *g, md_val state, uint64_t seed, md_tensor *to);

#endif
