// SPDX-License-Identifier: Apache-2.0
// The interpreter: what a graph means. Everything is computed in double (integers in 64 bits), one
// node after another, by the row's eval function or, for pointwise ops, by the row's formula. With
// `round`, every value is rounded to its own type before anybody reads it.
//
// A step reads inputs and states, runs all nodes in order and only then gives the states their next
// values: an update never sees another one.
#include "graph/graph.h"

#include "base/round.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct md_interp {
  const md_graph *g;
  bool round;
  md_tensor **val;   // by md_val; leaves keep theirs between steps
  md_tensor **old;   // by md_val: what an updated state was in the last step
  int *last_reader;  // by md_val: index of the last node that reads it; num_nodes: keep
};

// --- tensors

// Row-major element i lies at this element of memory.
static int64_t place_of(const md_type *t, int64_t i) {
  if (t->block == 0) return i;
  int64_t idx[MD_MAX_RANK];
  for (int a = t->shape.rank - 1; a >= 0; a--) {
    idx[a] = i % t->shape.dim[a];
    i /= t->shape.dim[a];
  }
  return md_type_offset(t, idx);
}

// Integers keep their low bits; a bool is whether there are any.
static int64_t narrowed(md_dtype d, int64_t x) {
  if (d == MD_I32) return (int64_t)(int32_t)(uint32_t)(uint64_t)x;
  if (d == MD_U8) return (int64_t)(uint8_t)(uint64_t)x;
  return d == MD_BOOL ? x != 0 : x;
}

// --- pointwise ops

// How an operand is read at a result's index: a step for each axis of the result. An operand with an
// axis g has one value for each group of samples: sample n of N reads group n*G/N.
typedef struct reading {
  const md_tensor *x;
  int64_t step[MD_MAX_RANK];
  int group_axis;  // axis of the result that is divided into groups, or -1
  int64_t groups, group_step;
} reading;

static int axis_named(const md_operand_spec *o, const char *letter) {
  for (int i = 0; i < o->num_axes; i++)
    if (!strcmp(o->axis[i], letter)) return i;
  return -1;
}

// `y`: the pattern that names the axes of the result.
static reading read_operand(const md_tensor *x, const md_operand_spec *in, const md_operand_spec *y,
                            int y_rank) {
  reading r = {.x = x, .group_axis = -1};
  const md_shape *s = &x->type.shape;
  int64_t step = 1;
  for (int a = s->rank - 1; a >= 0; a--) {
    bool in_star = a >= in->num_axes - 1 && !strcmp(in->axis[in->num_axes - 1], "*");
    const char *letter = in_star ? "*" : in->axis[a];
    int to = axis_named(y, letter);
    if (in_star) {
      r.step[y_rank - s->rank + a] = step;  // both end in the same trailing axes
    } else if (to >= 0) {
      r.step[to] = step;
    } else if (!strcmp(letter, "g")) {
      r.group_axis = axis_named(y, "n");
      r.groups = s->dim[a];
      r.group_step = step;
    }
    step *= s->dim[a];
  }
  return r;
}

static int64_t place_read(const reading *r, const md_shape *y, const int64_t idx[MD_MAX_RANK]) {
  int64_t at = 0;
  for (int a = 0; a < y->rank; a++) at += idx[a] * r->step[a];
  if (r->group_axis >= 0)
    at += idx[r->group_axis] * r->groups / y->dim[r->group_axis] * r->group_step;
  return at;
}

// Integer arithmetic wraps, as in the machine.
static int64_t apply_integer(md_expr_kind kind, int64_t a, int64_t b) {
  switch (kind) {
  case MD_EX_ADD: return (int64_t)((uint64_t)a + (uint64_t)b);
  case MD_EX_SUB: return (int64_t)((uint64_t)a - (uint64_t)b);
  case MD_EX_MUL: return (int64_t)((uint64_t)a * (uint64_t)b);
  default: MD_ASSERT(false, "step %d of a formula has no integer form", (int)kind);
  }
}

// The formula on integers alone: add, sub, mul, and cast between integer types.
static int64_t integer_formula(const md_expr *e, const reading *in, const int64_t *at) {
  int64_t v[MD_MAX_EXPR];
  for (int i = 0; i < e->num; i++) {
    const md_expr_node *n = &e->node[i];
    v[i] =
        n->kind == MD_EX_ARG ? in[n->a].x->i[at[n->a]] : apply_integer(n->kind, v[n->a], v[n->b]);
  }
  return v[e->out[0]];
}

static void real_formula(const md_expr *e, const md_attr *attr, const reading *in,
                         const int64_t *at, int64_t element, double v[MD_MAX_EXPR]) {
  for (int i = 0; i < e->num; i++) {
    const md_expr_node *n = &e->node[i];
    switch (n->kind) {
    case MD_EX_CONST: v[i] = n->value; break;
    case MD_EX_ATTR: v[i] = md_attr_value(attr, n); break;
    case MD_EX_ARG: {
      const md_tensor *x = in[n->a].x;
      v[i] = x->f ? x->f[at[n->a]] : (double)x->i[at[n->a]];
      break;
    }
    case MD_EX_RANDOM: {  // its operand is the key itself, all 64 bits of it
      int key = e->node[n->a].a;
      v[i] = md_hash_01((uint64_t)in[key].x->i[at[key]], (uint64_t)element);
      break;
    }
    default: v[i] = md_expr_apply(n->kind, v[n->a], v[n->b], v[n->c]);
    }
  }
}

static void eval_pointwise(const md_node *n, const md_tensor **in, md_tensor **out) {
  const md_op_row *row = &md_ops[n->op];
  const md_expr *e = md_op_expr(row);
  const md_operand_spec *y_axes =
      md_op_num_out(n->op) > 0 ? md_op_out(n->op, 0) : md_op_in(n->op, 0);
  const md_shape *y = &out[0]->type.shape;
  bool all_integer = !md_dtype_is_float(out[0]->type.dtype);
  reading r[MD_ROW_IN];
  int64_t at[MD_ROW_IN], idx[MD_MAX_RANK] = {0}, num = md_elements(y);
  double v[MD_MAX_EXPR];
  for (int k = 0; k < n->num_in; k++) {
    r[k] = read_operand(in[k], md_op_in(n->op, k), y_axes, y->rank);
    all_integer = all_integer && in[k]->i;
  }
  for (int64_t i = 0; i < num; i++) {
    for (int k = 0; k < n->num_in; k++) at[k] = place_read(&r[k], y, idx);
    if (all_integer) {
      out[0]->i[i] = narrowed(out[0]->type.dtype, integer_formula(e, r, at));
    } else {
      real_formula(e, &n->attr, r, at, i, v);
      for (int k = 0; k < e->num_out; k++) {
        if (out[k]->f) out[k]->f[i] = v[e->out[k]];
        else out[k]->i[i] = md_integer_of(out[k]->type.dtype, v[e->out[k]]);
      }
    }
    for (int a = y->rank - 1; a >= 0 && ++idx[a] == y->dim[a]; a--) idx[a] = 0;
  }
}

// --- steps

static void fill_constant(md_tensor *t, double value) {
  int64_t n = md_elements(&t->type.shape);
  for (int64_t i = 0; i < n; i++) {
    if (t->f) t->f[i] = value;
    else t->i[i] = md_integer_of(t->type.dtype, value);
  }
}

static md_tensor *tensor_copy(const md_tensor *t) {
  md_tensor *c = md_tensor_create(t->type);
  if (!c) return NULL;
  size_t n = (size_t)md_elements(&t->type.shape);
  if (t->f) memcpy(c->f, t->f, n * sizeof *t->f);
  else memcpy(c->i, t->i, n * sizeof *t->i);
  return c;
}

static bool out_of_memory(const md_node *n, md_diags *d) {
  return md_error(d, E0802, n->place, "%s: no memory for its results", md_ops[n->op].name);
}

static bool run_node(md_interp *p, const md_node *n, md_diags *d) {
  const md_op_row *row = &md_ops[n->op];
  const md_tensor *in[MD_MAX_IN];
  for (int i = 0; i < n->num_in; i++) in[i] = n->in[i] == MD_NONE ? NULL : p->val[n->in[i]];
  md_tensor **out = &p->val[n->out];
  if (n->op == MD_OP_input || n->op == MD_OP_state) {
    if (p->round) md_tensor_round(out[0]);
    return true;
  }
  if (row->role == MD_META)
    return md_error(d, E0352, n->place, "%s: must be expanded before the graph can run", row->name);
  for (int i = 0; i < n->num_out; i++) {
    out[i] = md_tensor_create(p->g->value[n->out + (md_val)i].type);
    if (!out[i]) return out_of_memory(n, d);
  }
  md_eval_node(p->g, n, in, out);
  for (int i = 0; i < n->num_out && p->round; i++) md_tensor_round(out[i]);
  return true;
}

static bool is_kept_leaf(const md_interp *p, md_val v) {
  md_op op = p->g->value[v].node->op;
  return op == MD_OP_input || op == MD_OP_state;
}

static void drop(md_interp *p, md_val v) {
  if (is_kept_leaf(p, v)) return;
  md_tensor_destroy(p->val[v]);
  p->val[v] = NULL;
}

static void drop_read(md_interp *p, const md_node *n) {
  for (int i = 0; i < n->num_in; i++)
    if (n->in[i] != MD_NONE && p->last_reader[n->in[i]] == n->index) drop(p, n->in[i]);
  for (int i = 0; i < n->num_out; i++) {
    md_val v = n->out + (md_val)i;
    if (p->last_reader[v] < n->index) drop(p, v);  // nobody reads it
  }
}

// States of the step stay readable by md_interp_value until the next one.
static bool apply_updates(md_interp *p, md_diags *d) {
  const md_graph *g = p->g;
  for (int i = 0; i < g->num_updates; i++) {
    md_val s = g->update[i].state;
    p->old[s] = tensor_copy(p->val[g->update[i].val]);
    if (!p->old[s]) return out_of_memory(g->value[s].node, d);
  }
  for (int i = 0; i < g->num_updates; i++) {
    md_val s = g->update[i].state;
    md_tensor *now = p->val[s];
    p->val[s] = p->old[s];
    p->old[s] = now;
  }
  return true;
}

md_tensor *md_tensor_create(md_type type) {
  md_tensor *t = calloc(1, sizeof *t);
  if (!t) return NULL;
  t->type = type;
  size_t n = (size_t)md_elements(&type.shape);
  if (md_dtype_is_float(type.dtype)) t->f = calloc(n, sizeof *t->f);
  else t->i = calloc(n, sizeof *t->i);
  if (t->f || t->i) return t;
  free(t);
  return NULL;
}

void md_tensor_destroy(md_tensor *t) {
  if (!t) return;
  free(t->f);
  free(t->i);
  free(t);
}

void md_tensor_read(md_tensor *t, const void *src) {
  int64_t n = md_elements(&t->type.shape);
  size_t size = (size_t)md_dtype_size(t->type.dtype);
  for (int64_t i = 0; i < n; i++) {
    const char *from = (const char *)src + (size_t)place_of(&t->type, i) * size;
    float f;
    uint16_t b;
    int32_t w;
    switch (t->type.dtype) {
    case MD_F32:
      memcpy(&f, from, size);
      t->f[i] = (double)f;
      break;
    case MD_BF16:
      memcpy(&b, from, size);
      t->f[i] = (double)md_bf16_to_float(b);
      break;
    case MD_F64: memcpy(&t->f[i], from, size); break;
    case MD_I32:
      memcpy(&w, from, size);
      t->i[i] = w;
      break;
    case MD_I64: memcpy(&t->i[i], from, size); break;
    default: t->i[i] = (unsigned char)*from;
    }
  }
}

void md_tensor_write(const md_tensor *t, void *dst) {
  int64_t n = md_elements(&t->type.shape);
  size_t size = (size_t)md_dtype_size(t->type.dtype);
  for (int64_t i = 0; i < n; i++) {
    char *to = (char *)dst + (size_t)place_of(&t->type, i) * size;
    float f;
    uint16_t b;
    int32_t w;
    switch (t->type.dtype) {
    case MD_F32:
      f = (float)t->f[i];
      memcpy(to, &f, size);
      break;
    case MD_BF16:
      b = md_bf16_from_float((float)t->f[i]);
      memcpy(to, &b, size);
      break;
    case MD_F64: memcpy(to, &t->f[i], size); break;
    case MD_I32:
      w = (int32_t)narrowed(MD_I32, t->i[i]);
      memcpy(to, &w, size);
      break;
    case MD_I64: memcpy(to, &t->i[i], size); break;
    default: *to = (char)narrowed(t->type.dtype, t->i[i]);
    }
  }
}

void md_tensor_round(md_tensor *t) {
  int64_t n = md_elements(&t->type.shape);
  for (int64_t i = 0; t->f && i < n; i++) t->f[i] = md_rounded(t->type.dtype, t->f[i]);
}

void md_eval_node(const md_graph *g, const md_node *n, const md_tensor **in, md_tensor **out) {
  const md_op_row *row = &md_ops[n->op];
  md_eval e = {.g = g, .node = n, .in = in, .out = out};
  if (n->op == MD_OP_constant) fill_constant(out[0], n->attr.value.value);
  else if (row->scalar) eval_pointwise(n, in, out);
  else row->eval(&e);
}

md_interp *md_interp_create(const md_graph *g, bool round) {
  size_t num = (size_t)g->num_values + 1;
  md_interp *p = calloc(1, sizeof *p);
  if (!p) return NULL;
  *p = (md_interp){.g = g,
                   .round = round,
                   .val = calloc(num, sizeof(md_tensor *)),
                   .old = calloc(num, sizeof(md_tensor *)),
                   .last_reader = malloc(num * sizeof(int))};
  if (!p->val || !p->old || !p->last_reader) goto failed;
  for (size_t v = 0; v < num; v++) p->last_reader[v] = -1;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    for (int k = 0; k < n->num_in; k++) p->last_reader[n->in[k]] = i;
    if (n->op != MD_OP_input && n->op != MD_OP_state) continue;
    p->val[n->out] = md_tensor_create(g->value[n->out].type);
    if (!p->val[n->out]) goto failed;
    if (n->op == MD_OP_state) md_state_fill(g, n->out, 0, p->val[n->out]);
  }
  for (int i = 0; i < g->num_results; i++) p->last_reader[g->result[i].val] = g->num_nodes;
  for (int i = 0; i < g->num_updates; i++) p->last_reader[g->update[i].val] = g->num_nodes;
  return p;
failed:
  md_interp_destroy(p);
  return NULL;
}

void md_interp_destroy(md_interp *p) {
  if (!p) return;
  for (int v = 1; v <= p->g->num_values; v++) {
    if (p->val) md_tensor_destroy(p->val[v]);
    if (p->old) md_tensor_destroy(p->old[v]);
  }
  free(p->val);
  free(p->old);
  free(p->last_reader);
  free(p);
}

md_tensor *md_interp_input(md_interp *p, const char *name) {
  md_val v = md_find_input(p->g, name);
  return v == MD_NONE ? NULL : p->val[v];
}

md_tensor *md_interp_state(md_interp *p, const char *name) {
  md_val v = md_find_state(p->g, name);
  return v == MD_NONE ? NULL : p->val[v];
}

void md_interp_keep(md_interp *p, md_val v) { p->last_reader[v] = p->g->num_nodes; }

bool md_interp_step(md_interp *p, md_diags *d) {
  const md_graph *g = p->g;
  for (int v = 1; v <= g->num_values; v++) {
    drop(p, (md_val)v);
    md_tensor_destroy(p->old[v]);
    p->old[v] = NULL;
  }
  for (int i = 0; i < g->num_nodes; i++) {
    if (!run_node(p, g->node[i], d)) return false;
    drop_read(p, g->node[i]);
  }
  return apply_updates(p, d);
}

const md_tensor *md_interp_value(const md_interp *p, md_val v) {
  return p->old[v] ? p->old[v] : p->val[v];
}

void md_state_fill(const md_graph *g, md_val state, uint64_t seed, md_tensor *to) {
  const md_node *n = g->value[state].node;
  int64_t num = md_elements(&to->type.shape);
  // A copy takes the values of the state it names, that one's name included. The chain ends: the
  // verifier has seen that it names earlier states.
  while (n->attr.state.init == MD_INIT_copy) {
    md_val from = md_find_state(g, n->attr.state.from ? n->attr.state.from : "");
    MD_ASSERT(from != MD_NONE && g->value[from].node->index < n->index,
              "state %s copies no earlier state", n->name);
    n = g->value[from].node;
  }
  const md_state_attr *a = &n->attr.state;
  double *values = to->f ? to->f : md_calloc((size_t)num, sizeof *values);
  int rank = to->type.shape.rank;
  int64_t row = rank > 0 ? to->type.shape.dim[rank - 1] : 1;
  md_init_values((md_init)a->init, a->a, a->b, n->name, seed, row, 0, num, values);
  if (to->f) {
    md_tensor_round(to);
    return;
  }
  for (int64_t i = 0; i < num; i++) to->i[i] = md_integer_of(to->type.dtype, values[i]);
  free(values);
}
