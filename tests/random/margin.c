// SPDX-License-Identifier: Apache-2.0
// Where rounding could decide: elements nearer to a discontinuity than MARGIN of their tensor's root
// mean square, or than their own bound. Zeros that are zero by construction (behind a relu, a padding,
// a mask) are exact in compiled code too and lie on a known side; so do equal operands.
#include "tests/random/random.h"

#include <math.h>

#define MARGIN 1e-4

typedef struct Operand {
  const double *x, *bound;  // bound NULL: not known
  int64_t num;
  double margin;
} Operand;

static Operand operand(const md_node *n, int i, md_tensor *const *value, md_tensor *const *bound) {
  const md_tensor *t = value[n->in[i]];
  Operand o = {.x = t->f, .num = md_elements(&t->type.shape)};
  if (bound) o.bound = bound[n->in[i]]->f;
  double sum = 0;
  int64_t num = 0;
  for (int64_t k = 0; k < o.num; k++) {
    if (!isfinite(o.x[k])) continue;
    sum += o.x[k] * o.x[k];
    num++;
  }
  o.margin = num ? MARGIN * sqrt(sum / (double)num) : 0;
  return o;
}

static double bound_at(const Operand *o, int64_t i) { return o->bound ? o->bound[i] : 0; }

// Element i against level c, which is known to be off by at most `slack`.
static bool is_near(const Operand *o, int64_t i, double c, double slack) {
  double reach = bound_at(o, i) + slack;
  if (o->x[i] == c) return reach > 0;
  return fabs(o->x[i] - c) < fmax(o->margin, reach);
}

static bool any_near(const Operand *o, double c) {
  for (int64_t i = 0; i < o->num; i++)
    if (is_near(o, i, c, 0)) return true;
  return false;
}

// The first of two elements against the second.
static bool pair_near(const Operand *o, int64_t i, int64_t j) {
  return is_near(o, i, o->x[j], bound_at(o, j));
}

// Largest of a row against all others.
static bool row_near(const Operand *o, int64_t first, int64_t len, int64_t against) {
  int64_t top = against >= 0 ? first + against : first;
  for (int64_t i = first; against < 0 && i < first + len; i++)
    if (o->x[i] > o->x[top]) top = i;
  for (int64_t i = first; i < first + len; i++)
    if (i != top && pair_near(o, i, top)) return true;
  return false;
}

static bool rows_near(const md_node *n, const Operand *o, md_tensor *const *value) {
  const md_shape *s = &value[n->in[0]]->type.shape;
  for (int64_t i = 0; i < s->dim[0]; i++) {
    int64_t against = n->op == MD_OP_topk_hit ? value[n->in[1]]->i[i] : -1;
    if (row_near(o, i * s->dim[1], s->dim[1], against)) return true;
  }
  return false;
}

static bool windows_near(const md_node *n, const Operand *o, md_tensor *const *value) {
  const md_pool3d_attr *a = &n->attr.pool3d;
  const md_shape *x = &value[n->in[0]]->type.shape, *y = &value[n->out]->type.shape;
  int64_t plane = x->dim[2] * x->dim[3] * x->dim[4], num = md_elements(y);
  for (int64_t i = 0; i < num; i++) {
    int64_t best = md_pool_place(a, x, y, i, value[n->out + 1]->i[i]), at[3], rest = i;
    for (int k = 2; k >= 0; k--) {
      at[k] = rest % y->dim[2 + k] * a->stride.d[k] - a->pad.d[k];
      rest /= y->dim[2 + k];
    }
    for (int64_t t = 0; t < a->kernel.d[0]; t++)
      for (int64_t h = 0; h < a->kernel.d[1]; h++)
        for (int64_t w = 0; w < a->kernel.d[2]; w++) {
          int64_t p[3] = {at[0] + t, at[1] + h, at[2] + w};
          bool inside = true;
          for (int k = 0; k < 3; k++) inside = inside && p[k] >= 0 && p[k] < x->dim[2 + k];
          int64_t j = (p[0] * x->dim[3] + p[1]) * x->dim[4] + p[2];
          if (inside && j != best && pair_near(o, rest * plane + j, rest * plane + best))
            return true;
        }
  }
  return false;
}

// Largest elements along axes: every element but the result's own against it.
static bool reduced_near(const md_graph *g, const md_node *n, const Operand *o) {
  const md_shape *s = &md_type_in(g, n->in[0])->shape;
  const md_dims *axes = &n->attr.axes.axes;
  if (axes->n == 1 && axes->d[0] == s->rank - 1) {
    int64_t len = s->dim[s->rank - 1];
    for (int64_t i = 0; i < o->num; i += len)
      if (row_near(o, i, len, -1)) return true;
  }
  return axes->n == 0 && row_near(o, 0, o->num, -1);
}

static bool less_near(const md_node *n, const Operand *x, md_tensor *const *value,
                      md_tensor *const *bound) {
  Operand y = operand(n, 1, value, bound);
  for (int64_t i = 0; i < x->num; i++)
    if (is_near(x, i, y.x[i], bound_at(&y, i))) return true;
  return false;
}

// Truncation jumps at integers but 0, within the range of the type.
static bool truncation_near(const Operand *x, md_dtype d) {
  for (int64_t i = 0; i < x->num; i++) {
    double to = rint(x->x[i]), away = fabs(x->x[i] - to);
    if (to == 0 || (d == MD_U8 && (to < 0 || to > 255))) continue;
    if (away == 0 ? bound_at(x, i) > 0 : away < fmax(1e-6, bound_at(x, i))) return true;
  }
  return false;
}

static bool node_near(const md_graph *g, const md_node *n, md_tensor *const *value,
                      md_tensor *const *bound, bool has_relu_grad) {
  bool to_integer = n->op == MD_OP_cast && value[n->in[0]]->f && value[n->out]->i;
  Operand x = {0};
  if (n->num_in > 0 && value[n->in[0]]->f) x = operand(n, 0, value, bound);
  // The value of these does not jump, only the choice that others make of it.
  bool is_continuous = n->op == MD_OP_max || n->op == MD_OP_clamp || n->op == MD_OP_abs ||
                       (n->op == MD_OP_relu && !has_relu_grad) ||
                       (n->op == MD_OP_max_pool3d && g->value[n->out + 1].uses == 0);
  if (bound && is_continuous) return false;
  switch (n->op) {
  case MD_OP_relu: return any_near(&x, 0);
  case MD_OP_relu_grad: x = operand(n, 1, value, bound); return any_near(&x, 0);
  case MD_OP_clamp: return any_near(&x, n->attr.real[0]) || any_near(&x, n->attr.real[1]);
  case MD_OP_max: return reduced_near(g, n, &x);
  case MD_OP_argmax:
  case MD_OP_topk_hit: return rows_near(n, &x, value);
  case MD_OP_less: return less_near(n, &x, value, bound);
  case MD_OP_max_pool3d: return windows_near(n, &x, value);
  case MD_OP_cast: {
    md_dtype d = value[n->out]->type.dtype;
    return to_integer && (d == MD_BOOL ? any_near(&x, 0) : truncation_near(&x, d));
  }
  default: return false;
  }
}

const char *md_near_jump(const md_graph *g, md_tensor *const *value, md_tensor *const *bound) {
  bool has_relu_grad = false;
  for (int i = 0; i < g->num_nodes; i++) has_relu_grad |= g->node[i]->op == MD_OP_relu_grad;
  for (int i = 0; i < g->num_nodes; i++)
    if (node_near(g, g->node[i], value, bound, has_relu_grad)) return md_ops[g->node[i]->op].name;
  return NULL;
}
