// SPDX-License-Identifier: Apache-2.0
// What a graph means, in double, and how far rounding may lead away from it.
//
// Compiled code sums in another order, keeps values in registers, contracts to fma: it computes some
// rounded version of the graph, and so does each of SAMPLES further evaluations here:
//   - one rounds every value to its own type (the interpreter's `round`),
//   - the others disturb each node as backward error analysis says a rounded op is disturbed: the
//     operands by eps * sqrt(length of its sums), relatively, each element by itself, then the result
//     by as much (partial sums of one sign are as large as the result) and by the eps of its type.
//     Ops that only move or choose elements are exact.
// What a sample is off by includes all that the graph makes of earlier errors: cancellation, depth,
// small divisors, the state of the step before. Element i of a value may be off by
//   SAFETY * (dev_i + rms(dev) + eps * rms(value)),   dev_i = largest deviation of a sample,
// the rms because few samples can miss an element by chance. Where no sample is off (moved inputs,
// zeros of a relu) the compiled code must be exact. SAFETY is that of tests/tolerance.h.
#include "tests/random/random.h"

#include "tests/tolerance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 4 };
#define LARGEST 1e9

typedef enum Mode { EXACT, ROUND, DISTURB } Mode;
typedef struct Evaluation {
  const md_graph *g;
  Mode mode;
  uint64_t key, counter;
  md_dtype squares;
} Evaluation;

static bool is_leaf(const md_node *n) { return n->op == MD_OP_input || n->op == MD_OP_state; }

static void copy_values(md_tensor *to, const md_tensor *from) {
  size_t n = (size_t)md_elements(&to->type.shape);
  if (to->f) memcpy(to->f, from->f, n * sizeof *to->f);
  else memcpy(to->i, from->i, n * sizeof *to->i);
}

static md_tensor *copy_of(const md_tensor *t) {
  md_tensor *c = md_tensor_create(t->type);
  copy_values(c, t);
  return c;
}

// Ops that move, choose or compare.
static bool is_exact(const md_graph *g, const md_node *n) {
  switch (n->op) {
  case MD_OP_concat:
  case MD_OP_pad:
  case MD_OP_space_to_depth:
  case MD_OP_depth_to_space:
  case MD_OP_gather_rows:
  case MD_OP_crop:
  case MD_OP_flip_select:
  case MD_OP_bank_push:
  case MD_OP_relu:
  case MD_OP_relu_grad:
  case MD_OP_max:
  case MD_OP_maximum:
  case MD_OP_max_pool3d:
  case MD_OP_neg:
  case MD_OP_abs:
  case MD_OP_clamp:
  case MD_OP_less:
  case MD_OP_argmax:
  case MD_OP_topk_hit: return true;
  case MD_OP_constant: return (double)(float)n->attr.value.value == n->attr.value.value;
  case MD_OP_cast: {
    md_dtype from = md_type_in(g, n->in[0])->dtype, to = md_type_in(g, n->out)->dtype;
    if (from == MD_I32 && to == MD_F64) return true;
    return md_epsilon(from) >= md_epsilon(to);
  }
  default: return md_ops[n->op].role == MD_VIEW || md_ops[n->op].role == MD_LEAF;
  }
}

static void disturb(Evaluation *e, md_tensor *t, double eps) {
  int64_t n = md_elements(&t->type.shape);
  for (int64_t i = 0; t->f && i < n; i++)
    if (isfinite(t->f[i])) t->f[i] += t->f[i] * eps * md_hash_unit(e->key, e->counter++);
}

// Terms of the sums of a node, by its cost.
static double sum_length(const md_graph *g, const md_node *n) {
  md_cost cost;
  md_node_cost(g, n, &cost);
  const md_shape *y = &md_type_in(g, n->out)->shape;
  double most = cost.flops / (double)md_elements(y);
  for (int i = 0; i < n->num_in; i++)
    if (n->in[i] != MD_NONE)
      most =
          fmax(most, (double)md_elements(&md_type_in(g, n->in[i])->shape) / (double)md_elements(y));
  if (n->op == MD_OP_max_pool3d_grad) {  // every window around an element may have chosen it
    const md_dim3 *k = &n->attr.pool3d_grad.kernel;
    most = fmax(most, (double)k->d[0] * (double)k->d[1] * (double)k->d[2]);
  }
  return fmax(most, 1);
}

// What a sum of so many terms is off by, relatively. Sums of bf16 are formed in f32.
static double sum_eps(double length, md_dtype d) {
  return sqrt(length) * fmin(md_epsilon(d), md_epsilon(MD_F32));
}

// dx = (dy - (dy.y) y) / |x|: the terms may cancel to nothing, their roundings do not.
static void disturb_l2_grad(Evaluation *e, const md_node *n, md_tensor *const *in, md_tensor *dx) {
  const md_shape *s = &dx->type.shape;
  int64_t len = s->dim[s->rank - 1];
  double eps = md_epsilon(dx->type.dtype);
  for (int64_t i = 0; i < md_elements(s); i += len) {
    double dy = 0, x = 0;
    for (int64_t j = i; j < i + len; j++) {
      dy += in[0]->f[j] * in[0]->f[j];
      x += in[1]->f[j] * in[1]->f[j];
    }
    double term = sqrt(dy) / fmax(sqrt(x), n->attr.f.value);
    for (int64_t j = i; j < i + len; j++)
      dx->f[j] += term * eps * md_hash_unit(e->key, e->counter++);
  }
}

// var = mean(x^2) - mean(x)^2 in one pass, whose sums are formed in double (or f32): the same.
static void disturb_variance(Evaluation *e, const md_tensor *mean, double length, md_tensor *var) {
  double eps = sqrt(length) * md_epsilon(var->type.dtype == MD_F64 ? MD_F64 : e->squares);
  for (int64_t i = 0; i < md_elements(&var->type.shape); i++) {
    double square = mean->f[i] * mean->f[i] + var->f[i];
    // Reflected at 0: a variance of 0 is off in every sample.
    var->f[i] = fabs(var->f[i] + square * eps * md_hash_unit(e->key, e->counter++));
  }
}

static void evaluate_node(Evaluation *e, const md_node *n, md_tensor **value) {
  md_tensor *in[MD_MAX_IN];
  bool noisy = e->mode == DISTURB && !is_exact(e->g, n);
  double length = noisy ? sum_length(e->g, n) : 0;
  for (int i = 0; i < n->num_in; i++) {
    in[i] = n->in[i] == MD_NONE ? NULL : value[n->in[i]];
    if (!noisy || !in[i]) continue;
    in[i] = copy_of(in[i]);
    disturb(e, in[i], sum_eps(length, in[i]->type.dtype));
  }
  for (int i = 0; i < n->num_out; i++) {
    md_val v = n->out + (md_val)i;
    value[v] = md_tensor_create(e->g->value[v].type);
  }
  md_eval_node(e->g, n, (const md_tensor **)in, &value[n->out]);
  if (noisy && n->op == MD_OP_l2_normalize_grad) disturb_l2_grad(e, n, in, value[n->out]);
  if (noisy && n->op == MD_OP_moments)
    disturb_variance(e, value[n->out], length, value[n->out + 1]);
  for (int i = 0; i < n->num_out; i++) {
    md_tensor *y = value[n->out + (md_val)i];
    if (noisy) disturb(e, y, md_epsilon(y->type.dtype) + sum_eps(length, y->type.dtype));
    if (e->mode == ROUND) md_tensor_round(y);
  }
  for (int i = 0; i < n->num_in && noisy; i++) md_tensor_destroy(in[i]);
}

// Leaves are there.
static void evaluate(Evaluation *e, md_tensor **value) {
  for (int i = 0; i < e->g->num_nodes; i++)
    if (!is_leaf(e->g->node[i])) evaluate_node(e, e->g->node[i], value);
}

static void clear(const md_graph *g, md_tensor **value) {
  for (int v = 1; value && v <= g->num_values; v++) {
    md_tensor_destroy(value[v]);
    value[v] = NULL;
  }
}

static md_tensor **new_values(const md_graph *g) {
  return calloc((size_t)g->num_values + 1, sizeof(md_tensor *));
}

static md_val update_of(const md_graph *g, md_val state) {
  for (int i = 0; i < g->num_updates; i++)
    if (g->update[i].state == state) return g->update[i].val;
  return state;
}

// Inputs of a step; states as the step before left them, or drawn for the first one.
static void set_leaves(const md_graph *g, md_tensor **value, md_tensor **before, uint64_t seed) {
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (!is_leaf(n)) continue;
    value[n->out] = md_tensor_create(g->value[n->out].type);
    if (n->op == MD_OP_state && before) copy_values(value[n->out], before[update_of(g, n->out)]);
    else md_draw(value[n->out], n->name, seed);
  }
}

static const char *unusable(const md_graph *g, md_tensor *const *value) {
  for (int v = 1; v <= g->num_values; v++) {
    const md_tensor *t = value[v];
    int64_t n = md_elements(&t->type.shape);
    for (int64_t i = 0; t->f && i < n; i++) {
      if (isnan(t->f[i])) return "NaN";
      if (isfinite(t->f[i]) && fabs(t->f[i]) > LARGEST) return "size";
    }
  }
  return NULL;
}

// Relative to the largest, whose square may be too small for a double.
static double rms(const double *x, int64_t n) {
  double largest = 0, sum = 0;
  int64_t num = 0;
  for (int64_t i = 0; i < n; i++)
    if (isfinite(x[i])) largest = fmax(largest, fabs(x[i]));
  for (int64_t i = 0; i < n && largest > 0; i++) {
    if (!isfinite(x[i])) continue;
    sum += x[i] / largest * (x[i] / largest);
    num++;
  }
  return num ? largest * sqrt(sum / (double)num) : 0;
}

// bound[i] = max(bound[i], |x - value|); equal infinities are equal.
static void deviate(md_tensor *bound, const md_tensor *value, const md_tensor *x) {
  int64_t n = md_elements(&value->type.shape);
  for (int64_t i = 0; i < n; i++) {
    double dev = value->f ? (x->f[i] == value->f[i] ? 0 : fabs(x->f[i] - value->f[i]))
                          : (x->i[i] == value->i[i] ? 0 : INFINITY);
    if (isnan(dev)) dev = INFINITY;
    if (dev > bound->f[i]) bound->f[i] = dev;
  }
}

static void finish_bound(md_tensor *bound, const md_tensor *value) {
  int64_t n = md_elements(&value->type.shape);
  double dev = rms(bound->f, n), eps = md_epsilon(value->type.dtype);
  if (dev == 0 || !value->f) return;
  double all = dev + eps * rms(value->f, n);
  // In f64 the reference is a rounded version too, summed term by term: the least exact one.
  double safety = MD_TOLERANCE_SAFETY * (value->type.dtype == MD_F64 ? 4 : 1);
  for (int64_t i = 0; i < n; i++) {
    bool same = bound->f[i] == 0 && (value->f[i] == 0 || !isfinite(value->f[i]));
    if (!same) bound->f[i] = safety * (bound->f[i] + all);
  }
}

// Zeros of a relu whose operand may be positive after rounding.
static bool any_undecided(const md_reference *r, int step) {
  for (int i = 0; i < r->g->num_nodes; i++) {
    const md_node *n = r->g->node[i];
    if (n->op != MD_OP_relu) continue;
    const md_tensor *x = r->value[step][n->in[0]], *bound = r->bound[step][n->in[0]];
    int64_t num = md_elements(&x->type.shape);
    for (int64_t k = 0; k < num; k++)
      if (x->f[k] <= 0 && x->f[k] + bound->f[k] > 0) return true;
  }
  return false;
}

// Then no zero is certain where its neighbours are not.
static void loosen_zeros(md_tensor *bound) {
  int64_t n = md_elements(&bound->type.shape);
  double least = INFINITY;
  for (int64_t i = 0; i < n; i++)
    if (bound->f[i] > 0) least = fmin(least, bound->f[i]);
  for (int64_t i = 0; i < n && isfinite(least); i++) bound->f[i] = fmax(bound->f[i], least);
}

static void bound_values(md_reference *r) {
  const md_graph *g = r->g;
  for (int s = 0; s < r->num_steps; s++) {
    r->bound[s] = new_values(g);
    for (int v = 1; v <= g->num_values; v++) {
      md_type t = g->value[v].type;
      t.dtype = MD_F64;
      r->bound[s][v] = md_tensor_create(t);
    }
  }
  for (int k = 0; k < SAMPLES; k++) {
    Evaluation e = {.g = g,
                    .mode = k == 0 ? ROUND : DISTURB,
                    .key = md_hash_key("disturb", r->seed + (uint64_t)k),
                    .squares = r->squares};
    md_tensor **before = NULL;
    for (int s = 0; s < r->num_steps; s++) {
      md_tensor **value = new_values(g);
      set_leaves(g, value, before, 0);
      for (int i = 0; i < g->num_nodes; i++) {
        const md_node *n = g->node[i];
        if (is_leaf(n) && (s == 0 || n->op == MD_OP_input))
          copy_values(value[n->out], r->value[s][n->out]);
      }
      evaluate(&e, value);
      for (int v = 1; v <= g->num_values; v++) deviate(r->bound[s][v], r->value[s][v], value[v]);
      clear(g, before);
      free(before);
      before = value;
    }
    clear(g, before);
    free(before);
  }
  for (int s = 0; s < r->num_steps; s++) {
    for (int v = 1; v <= g->num_values; v++) finish_bound(r->bound[s][v], r->value[s][v]);
    bool loose = any_undecided(r, s);
    for (int v = 1; loose && v <= g->num_values; v++)
      if (r->value[s][v]->f) loosen_zeros(r->bound[s][v]);
  }
}

static void forget_bounds(md_reference *r) {
  for (int s = 0; s < MD_RANDOM_STEPS; s++) {
    clear(r->g, r->bound[s]);
    free(r->bound[s]);
    r->bound[s] = NULL;
  }
}

// Draws leaves of a step and evaluates it. False: not usable.
static bool draw_step(md_reference *r, int step) {
  uint64_t seed = r->seed * 1000003u + (uint64_t)r->draws++;
  clear(r->g, r->value[step]);
  set_leaves(r->g, r->value[step], step ? r->value[step - 1] : NULL, seed);
  Evaluation e = {.g = r->g, .mode = EXACT};
  evaluate(&e, r->value[step]);
  r->refused = unusable(r->g, r->value[step]);
  if (!r->refused) r->refused = md_near_jump(r->g, r->value[step], NULL);
  return !r->refused;
}

// "label7_i3": 0..6.
static int64_t draw_integer(const char *name, md_dtype d, uint64_t h) {
  int64_t k = 0;
  if (!strncmp(name, "label", 5)) {
    for (const char *s = name + 5; *s >= '0' && *s <= '9'; s++) k = k * 10 + (*s - '0');
    return (int64_t)(h % (uint64_t)MD_MAX(k, 1));
  }
  if (!strncmp(name, "flag", 4) || d == MD_BOOL) return (int64_t)(h & 1);
  if (d == MD_U8) return (int64_t)(h & 255);
  return (int64_t)(h % 9) - 2;
}

void md_draw(md_tensor *t, const char *name, uint64_t seed) {
  uint64_t key = md_hash_key(name, seed);
  int64_t n = md_elements(&t->type.shape);
  bool positive = !strncmp(name, "pos", 3);
  for (int64_t i = 0; i < n; i++) {
    double u = md_hash_unit(key, (uint64_t)i);
    if (t->f) t->f[i] = positive ? 0.75 + u / 2 : 2 * u;
    else t->i[i] = draw_integer(name, t->type.dtype, md_hash_at(key, (uint64_t)i));
  }
  md_tensor_round(t);
}

bool md_reference_create_for(md_reference *r, const md_graph *g, uint64_t seed, int most,
                             md_dtype squares) {
  *r = (md_reference){.g = g, .seed = seed, .squares = squares};
  for (int s = 0; s < MD_RANDOM_STEPS; s++) r->value[s] = new_values(g);
  while (r->draws < most) {
    forget_bounds(r);
    if (!draw_step(r, 0)) continue;
    r->num_steps = 1;
    for (int more = 0; r->num_steps < MD_RANDOM_STEPS && more < most / 4; more++)
      if (draw_step(r, 1)) r->num_steps = 2;
    bound_values(r);
    r->refused = md_near_jump(g, r->value[0], r->bound[0]);
    if (r->refused) continue;
    if (r->num_steps == 2 && md_near_jump(g, r->value[1], r->bound[1])) r->num_steps = 1;
    return true;
  }
  r->num_steps = 0;
  return false;
}

bool md_reference_create(md_reference *r, const md_graph *g, uint64_t seed, int most) {
  return md_reference_create_for(r, g, seed, most, MD_F64);
}

void md_reference_destroy(md_reference *r) {
  forget_bounds(r);
  for (int s = 0; s < MD_RANDOM_STEPS; s++) {
    clear(r->g, r->value[s]);
    free(r->value[s]);
  }
}

const md_tensor *md_state_after(const md_reference *r, int step, md_val s,
                                const md_tensor **bound) {
  md_val v = update_of(r->g, s);
  if (bound) *bound = r->bound[step][v];
  return r->value[step][v];
}
