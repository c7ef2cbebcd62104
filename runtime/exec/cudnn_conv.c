// SPDX-License-Identifier: Apache-2.0
// A convolution with what is fused with it, as steps that cuDNN has plans for:
//
//   prepare   mean, var, gamma, beta -> scale, shift     of each batch norm before it
//   cast      w -> w16                                   f32 weights, which lie as they did; their gradients: w16 -> w
//   form      relu?(x * scale + shift + add) -> formed   where others read it, too
//   main      the same, if it is not formed; conv; bias, rest, relu; sums and sums of squares
//   finish    sums, squares -> mean, var
//
// What goes from one to the next lies in the workspace.
#include "runtime/exec/cudnn.h"

#include <stdlib.h>
#include <string.h>

// Tensors: those of an md_conv, those between steps, numbers. Those that lie nowhere come behind.
enum {
  X,
  W,
  Y,
  PART,
  SCALE = PART + MD_NUM_CONV_PARTS,
  SHIFT,
  ADD_SCALE,
  ADD_SHIFT,
  CAST_W,
  SUM,
  SQUARES,
  EPS,
  ADD_EPS,
  SHARE,
  NUM_IDS,
  FIRST_BETWEEN = SCALE,
  FIRST_NUMBER = EPS
};
enum { MAX_STEPS = 6, ALIGNMENT = 256 };

typedef struct Step {
  md_cudnn_graph graph;
  md_cudnn_plan *plan;
} Step;
struct md_cudnn_conv {
  Step step[MAX_STEPS];
  int num_steps, num_virtual;
  const md_conv *v;          // while it is made
  int64_t between[NUM_IDS];  // bytes in the workspace; 0: none
  int64_t own_bytes, workspace;
  float number[NUM_IDS];
};

// --- tensors and operations of a step

static int64_t elements_of(const md_conv_tensor *t) {
  int64_t num = 1;
  for (int i = 0; i < 5; i++) num *= t->dim[i];
  return num;
}

static int add_tensor(Step *s, int id, md_cudnn_place place, const md_conv_tensor *type) {
  md_cudnn_graph *g = &s->graph;
  for (int i = 0; i < g->num_tensors; i++)
    if (g->tensor[i].id == id + 1) return i;
  MD_ASSERT(g->num_tensors < MD_CUDNN_TENSORS, "too many tensors");
  g->tensor[g->num_tensors] = (md_cudnn_tensor){id + 1, place, *type};
  return g->num_tensors++;
}

static const md_conv_tensor *type_of(const md_conv *v, int id) {
  return id == X ? &v->x : id == W ? &v->w : id == Y ? &v->y : &v->part[id - PART];
}

static int operand(md_cudnn_conv *p, Step *s, int id) {
  return add_tensor(s, id, MD_CUDNN_STORED, type_of(p->v, id));
}

// A number for each of n channels.
static int vector(md_cudnn_conv *p, Step *s, int id, int64_t n) {
  md_conv_tensor t = {MD_F32, {1, n, 1, 1, 1}, {n, 1, n, n, n}};
  if (id == PART + MD_CONV_BIAS) t.dtype = p->v->part[MD_CONV_BIAS].dtype;
  if (id >= FIRST_BETWEEN) p->between[id] = n * (int64_t)sizeof(float);
  return add_tensor(s, id, MD_CUDNN_STORED, &t);
}

static int number(md_cudnn_conv *p, Step *s, int id, double x) {
  md_conv_tensor t = {MD_F32, {1, 1, 1, 1, 1}, {1, 1, 1, 1, 1}};
  p->number[id] = (float)x;
  return add_tensor(s, id, MD_CUDNN_BY_VALUE, &t);
}

// As large as tensor `like`, and nowhere.
static int between(md_cudnn_conv *p, Step *s, int like, md_dtype t) {
  md_conv_tensor type = s->graph.tensor[like].type;
  type.dtype = t;
  return add_tensor(s, NUM_IDS + p->num_virtual++, MD_CUDNN_NOWHERE, &type);
}

static void add_op(Step *s, md_cudnn_kind kind, int mode, int x, int b, int y) {
  md_cudnn_graph *g = &s->graph;
  MD_ASSERT(g->num_ops < MD_CUDNN_OPS, "too many operations");
  g->op[g->num_ops++] = (md_cudnn_op){kind, mode, x, b, y};
}

static void compute(Step *s, md_cudnn_mode mode, int x, int b, int y) {
  add_op(s, MD_CUDNN_POINTWISE, (int)mode, x, b, y);
}

// In f32, nowhere, as large as x.
static int computed(md_cudnn_conv *p, Step *s, md_cudnn_mode mode, int x, int b) {
  int y = between(p, s, x, MD_F32);
  compute(s, mode, x, b, y);
  return y;
}

static Step *new_step(md_cudnn_conv *p) {
  MD_ASSERT(p->num_steps < MAX_STEPS, "too many steps");
  return &p->step[p->num_steps++];
}

static bool has(const md_conv *v, md_conv_part part) { return v->part[part].dtype != MD_NO_DTYPE; }

// --- the steps

static void prepare(md_cudnn_conv *p, md_conv_part gamma, int scale, double eps, int eps_id) {
  if (!has(p->v, gamma)) return;
  Step *s = new_step(p);
  int64_t n = p->v->x.dim[1];
  int first = PART + (int)gamma, g = vector(p, s, first, n), b = vector(p, s, first + 1, n);
  int mean = vector(p, s, first + 2, n), var = vector(p, s, first + 3, n);
  int to_scale = vector(p, s, scale, n), to_shift = vector(p, s, scale + 1, n);
  int r = computed(p, s, MD_CUDNN_ADD, var, number(p, s, eps_id, eps));
  r = computed(p, s, MD_CUDNN_RSQRT, r, -1);
  compute(s, MD_CUDNN_MUL, r, g, to_scale);
  compute(s, MD_CUDNN_SUB, b, computed(p, s, MD_CUDNN_MUL, mean, to_scale), to_shift);
}

// What is multiplied.
static md_dtype product_type(const md_conv *v) {
  return v->kind == MD_CONV_DATA ? v->y.dtype : v->x.dtype;
}

static bool casts_weights(const md_conv *v) {
  return v->w.dtype == MD_F32 && product_type(v) == MD_BF16;
}

// Before the convolution, or behind it where they are its result: no engine has gradients of f32 from bf16.
static void cast_weights(md_cudnn_conv *p, bool is_result) {
  if (!casts_weights(p->v) || is_result != (p->v->kind == MD_CONV_WEIGHTS)) return;
  Step *s = new_step(p);
  int64_t n = elements_of(&p->v->w);
  // As engines take a row of numbers.
  md_conv_tensor t = {MD_F32, {1, n, 1, 1, 1}, {n, 1, n, n, n}};
  int wide = add_tensor(s, W, MD_CUDNN_STORED, &t);
  t.dtype = MD_BF16;
  p->between[CAST_W] = n * md_dtype_size(t.dtype);
  int narrow = add_tensor(s, CAST_W, MD_CUDNN_STORED, &t);
  compute(s, MD_CUDNN_IDENTITY, is_result ? narrow : wide, -1, is_result ? wide : narrow);
}

// x, or the norm of it.
static int term(md_cudnn_conv *p, Step *s, int x, md_conv_part gamma, int scale) {
  int64_t n = p->v->x.dim[1];
  int at = operand(p, s, x);
  if (!has(p->v, gamma)) return at;
  at = computed(p, s, MD_CUDNN_MUL, at, vector(p, s, scale, n));
  return computed(p, s, MD_CUDNN_ADD, at, vector(p, s, scale + 1, n));
}

// relu?(norm?(x) + norm?(add)); the number of the tensor that has it.
static int formed(md_cudnn_conv *p, Step *s, bool is_stored) {
  const md_conv *v = p->v;
  int at = term(p, s, X, MD_CONV_GAMMA, SCALE);
  if (has(v, MD_CONV_ADD)) {
    int add = term(p, s, PART + MD_CONV_ADD, MD_CONV_ADD_GAMMA, ADD_SCALE);
    at = computed(p, s, MD_CUDNN_ADD, at, add);
  }
  if (v->fused.relu_before) at = computed(p, s, MD_CUDNN_RELU, at, -1);
  if (!s->graph.num_ops) return at;
  md_cudnn_tensor *last = &s->graph.tensor[at];
  last->type.dtype = v->x.dtype;  // as it is multiplied
  if (is_stored)
    *last = (md_cudnn_tensor){PART + MD_CONV_FORMED + 1, MD_CUDNN_STORED, v->part[MD_CONV_FORMED]};
  return at;
}

static void form(md_cudnn_conv *p) {
  if (has(p->v, MD_CONV_FORMED)) formed(p, new_step(p), true);
}

// y, and what comes before it behind the sums of products, which `at` is.
static void add_back(md_cudnn_conv *p, Step *s, int sums) {
  const md_conv *v = p->v;
  int at = sums;
  if (has(v, MD_CONV_BIAS))
    at = computed(p, s, MD_CUDNN_ADD, at, vector(p, s, PART + MD_CONV_BIAS, v->y.dim[1]));
  if (has(v, MD_CONV_REST))
    at = computed(p, s, MD_CUDNN_ADD, at, operand(p, s, PART + MD_CONV_REST));
  if (v->fused.relu_behind) at = computed(p, s, MD_CUDNN_RELU, at, -1);
  s->graph.tensor[at] = (md_cudnn_tensor){Y + 1, MD_CUDNN_STORED, v->y};
  if (!has(v, MD_CONV_MEAN)) return;
  int sum = vector(p, s, SUM, v->y.dim[1]), squares = vector(p, s, SQUARES, v->y.dim[1]);
  add_op(s, MD_CUDNN_SUMS, 0, at, squares, sum);
}

static void convolve(md_cudnn_conv *p) {
  const md_conv *v = p->v;
  Step *s = new_step(p);
  md_cudnn_graph *g = &s->graph;
  memcpy(g->stride, v->stride, sizeof g->stride);
  memcpy(g->pad, v->pad, sizeof g->pad);
  memcpy(g->dilation, v->dilation, sizeof g->dilation);
  g->is_exact = product_type(v) == MD_F32;
  md_conv_tensor w = v->w;
  if (casts_weights(v)) w.dtype = MD_BF16;
  int x = v->kind != MD_CONV_FORWARD ? operand(p, s, X)
          : has(v, MD_CONV_FORMED)   ? operand(p, s, PART + MD_CONV_FORMED)
                                     : formed(p, s, false);
  int at_w = add_tensor(s, casts_weights(v) ? CAST_W : W, MD_CUDNN_STORED, &w);
  if (v->kind != MD_CONV_FORWARD) {
    add_op(s, MD_CUDNN_CONV, (int)v->kind, x, at_w, operand(p, s, Y));
    return;
  }
  int y = add_tensor(s, NUM_IDS + p->num_virtual++, MD_CUDNN_NOWHERE, &v->y);
  g->tensor[y].type.dtype = MD_F32;
  add_op(s, MD_CUDNN_CONV, (int)v->kind, x, at_w, y);
  add_back(p, s, y);
}

// The variance is a difference, which must not end below 0.
static void finish(md_cudnn_conv *p) {
  const md_conv *v = p->v;
  if (!has(v, MD_CONV_MEAN)) return;
  Step *s = new_step(p);
  int64_t n = v->y.dim[1];
  int sum = vector(p, s, SUM, n), squares = vector(p, s, SQUARES, n);
  int mean = vector(p, s, PART + MD_CONV_MEAN, n), var = vector(p, s, PART + MD_CONV_VAR, n);
  int share = number(p, s, SHARE, (double)n / (double)elements_of(&v->y));
  compute(s, MD_CUDNN_MUL, sum, share, mean);
  int of_squares = computed(p, s, MD_CUDNN_MUL, squares, share);
  int off = computed(p, s, MD_CUDNN_SUB, of_squares, computed(p, s, MD_CUDNN_MUL, mean, mean));
  compute(s, MD_CUDNN_RELU, off, -1, var);
}

// --- all of it

// What goes from step to step, and behind it what each plan needs for itself.
static bool make_plans(md_cudnn_conv *p, md_cudnn *c, int64_t room, char *why) {
  for (int i = 0; i < NUM_IDS; i++) p->own_bytes += md_round_up(p->between[i], ALIGNMENT);
  for (int i = 0; i < p->num_steps; i++) {
    Step *s = &p->step[i];
    char said[MD_CUDNN_WORDS] = "";
    s->plan = md_cudnn_plan_create(c, &s->graph, room - p->own_bytes, said);
    if (!s->plan || md_cudnn_plan_is_second(s->plan)) memcpy(why, said, sizeof said);
    if (!s->plan) return false;
    p->workspace = MD_MAX(p->workspace, md_cudnn_plan_bytes(s->plan));
  }
  return true;
}

static md_cudnn_conv *steps_of(const md_conv *v) {
  md_cudnn_conv *p = md_calloc(1, sizeof *p);
  p->v = v;
  prepare(p, MD_CONV_GAMMA, SCALE, v->fused.eps, EPS);
  prepare(p, MD_CONV_ADD_GAMMA, ADD_SCALE, v->fused.add_eps, ADD_EPS);
  cast_weights(p, false);
  form(p);
  convolve(p);
  cast_weights(p, true);
  finish(p);
  p->v = NULL;
  return p;
}

void md_cudnn_conv_text(const md_conv *v, md_text *to) {
  md_cudnn_conv *p = steps_of(v);
  for (int i = 0; i < p->num_steps; i++) md_cudnn_graph_text(&p->step[i].graph, to);
  md_cudnn_conv_destroy(p);
}

md_cudnn_conv *md_cudnn_conv_create(md_cudnn *c, const md_conv *v, int64_t room, char *why) {
  md_cudnn_conv *p = steps_of(v);
  if (make_plans(p, c, room, why)) return p;
  md_cudnn_conv_destroy(p);
  return NULL;
}

void md_cudnn_conv_destroy(md_cudnn_conv *p) {
  if (!p) return;
  for (int i = 0; i < p->num_steps; i++) md_cudnn_plan_destroy(p->step[i].plan);
  free(p);
}

bool md_cudnn_conv_is_second(const md_cudnn_conv *p) {
  bool is = false;
  for (int i = 0; i < p->num_steps; i++) is |= md_cudnn_plan_is_second(p->step[i].plan);
  return is;
}

void md_cudnn_conv_plans(md_cudnn_conv *p, md_text *to) {
  for (int i = 0; i < p->num_steps; i++) md_cudnn_plan_text(p->step[i].plan, to);
}

int64_t md_cudnn_conv_bytes(const md_cudnn_conv *p) { return p->own_bytes + p->workspace; }

bool md_cudnn_conv_bind(md_cudnn_conv *p, const md_conv_places *to, char *why) {
  void *place[NUM_IDS] = {to->x, to->w, to->y}, *at[MD_CUDNN_TENSORS];
  char *next = to->workspace;
  memcpy(&place[PART], to->part, sizeof to->part);
  for (int i = FIRST_BETWEEN; i < FIRST_NUMBER; i++) {
    place[i] = next;
    if (p->between[i]) next += md_round_up(p->between[i], ALIGNMENT);
  }
  for (int i = FIRST_NUMBER; i < NUM_IDS; i++) place[i] = &p->number[i];
  for (int i = 0; i < p->num_steps; i++) {
    const md_cudnn_graph *g = &p->step[i].graph;
    for (int k = 0; k < g->num_tensors; k++)
      at[k] = g->tensor[k].id <= NUM_IDS ? place[g->tensor[k].id - 1] : NULL;
    if (!md_cudnn_plan_bind(p->step[i].plan, at, next, why)) return false;
  }
  return true;
}

bool md_cudnn_conv_run(md_cudnn_conv *p, char *why) {
  for (int i = 0; i < p->num_steps; i++)
    if (!md_cudnn_plan_run(p->step[i].plan, why)) return false;
  return true;
}
