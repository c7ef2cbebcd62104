// SPDX-License-Identifier: Apache-2.0
// Work along the rows of a matrix: log-sum-exp, softmax, cross-entropy, l2 norm, ranks.
#include "graph/op_functions.h"

#include <math.h>

typedef struct rows {
  int64_t num, len;
} rows;

static rows rows_of(const md_tensor *x) {
  return (rows){x->type.shape.dim[0], x->type.shape.dim[1]};
}

// ln sum e^x with the maximum taken out. -inf for a row of -inf, inf for a row with inf.
static double log_sum_exp(const double *x, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) {
    if (isnan(x[i])) return NAN;
    top = fmax(top, x[i]);
  }
  if (isinf(top)) return top;
  for (int64_t i = 0; i < n; i++) sum += exp(x[i] - top);
  return top + log(sum);
}

// v [b] repeated along the rows of a [b,k] value.
static md_val along_rows(md_builder *b, md_val v, md_val like) {
  return md_broadcast(b, v, md_shape_of(b, like), (md_dims){1, {0}});
}

void logsumexp_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val in[] = {y->in[0], y->out, dy[0]};
  d[0] = md_add_node(b, MD_OP_softmax_grad_row, in, 3, NULL);
}

void logsumexp_eval(md_eval *e) {
  rows r = rows_of(e->in[0]);
  for (int64_t i = 0; i < r.num; i++) e->out[0]->f[i] = log_sum_exp(&e->in[0]->f[i * r.len], r.len);
}

// dx = y (dy - sum dy y)
void softmax_grad(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val inner = md_sum(b, md_mul(b, dy[0], y->out), (md_dims){1, {1}});
  d[0] = md_mul(b, y->out, md_sub(b, dy[0], along_rows(b, inner, y->out)));
}

void softmax_eval(md_eval *e) {
  rows r = rows_of(e->in[0]);
  for (int64_t i = 0; i < r.num; i++) {
    double lse = log_sum_exp(&e->in[0]->f[i * r.len], r.len);
    for (int64_t j = i * r.len; j < (i + 1) * r.len; j++)
      e->out[0]->f[j] = exp(e->in[0]->f[j] - lse);
  }
}

void cross_entropy_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  md_val in[] = {dy[0], y->in[0], y->in[1]};
  d[0] = md_add_node(b, MD_OP_cross_entropy_grad, in, 3, NULL);
}

void cross_entropy_eval(md_eval *e) {
  rows r = rows_of(e->in[0]);
  for (int64_t i = 0; i < r.num; i++) {
    const double *x = &e->in[0]->f[i * r.len];
    int64_t label = e->in[1]->i[i];
    bool valid = label >= 0 && label < r.len;
    e->out[0]->f[i] = valid ? log_sum_exp(x, r.len) - x[label] : NAN;
  }
}

void cross_entropy_grad_eval(md_eval *e) {
  rows r = rows_of(e->in[1]);
  for (int64_t i = 0; i < r.num; i++) {
    const double *x = &e->in[1]->f[i * r.len];
    int64_t label = e->in[2]->i[i];
    double lse = label >= 0 && label < r.len ? log_sum_exp(x, r.len) : NAN;
    for (int64_t j = 0; j < r.len; j++)
      e->out[0]->f[i * r.len + j] = e->in[0]->f[i] * (exp(x[j] - lse) - (j == label ? 1 : 0));
  }
}

static double norm(const double *x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
  return sqrt(sum);
}

// The larger one, and NaN if the norm is NaN, which fmax would drop.
static double at_least(double norm, double eps) { return norm < eps ? eps : norm; }

void l2_normalize_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  d[0] = md_add_node(b, MD_OP_l2_normalize_grad, (md_val[]){dy[0], y->in[0]}, 2, &y->attr);
}

void l2_normalize_eval(md_eval *e) {
  rows r = rows_of(e->in[0]);
  for (int64_t i = 0; i < r.num; i++) {
    const double *x = &e->in[0]->f[i * r.len];
    double length = at_least(norm(x, r.len), e->node->attr.f.value);
    for (int64_t j = 0; j < r.len; j++) e->out[0]->f[i * r.len + j] = x[j] / length;
  }
}

// Below eps the divisor is a constant, and so the second term is absent.
void l2_normalize_grad_eval(md_eval *e) {
  rows r = rows_of(e->in[1]);
  for (int64_t i = 0; i < r.num; i++) {
    const double *dy = &e->in[0]->f[i * r.len], *x = &e->in[1]->f[i * r.len];
    double *dx = &e->out[0]->f[i * r.len], length = norm(x, r.len), along = 0;
    double divisor = at_least(length, e->node->attr.f.value);
    if (length >= e->node->attr.f.value) {
      for (int64_t j = 0; j < r.len; j++) along += dy[j] * (x[j] / divisor);
    }
    for (int64_t j = 0; j < r.len; j++) dx[j] = (dy[j] - along * (x[j] / divisor)) / divisor;
  }
}

void argmax_eval(md_eval *e) {
  rows r = rows_of(e->in[0]);
  for (int64_t i = 0; i < r.num; i++) {
    const double *x = &e->in[0]->f[i * r.len];
    int64_t best = 0;
    for (int64_t j = 1; j < r.len; j++)
      if (x[j] > x[best]) best = j;
    e->out[0]->i[i] = best;
  }
}

// NaN beats every element, itself too: a row of NaN is no hit.
void topk_hit_eval(md_eval *e) {
  rows r = rows_of(e->in[0]);
  for (int64_t i = 0; i < r.num; i++) {
    const double *x = &e->in[0]->f[i * r.len];
    int64_t label = e->in[1]->i[i], better = 0;
    if (label < 0 || label >= r.len) continue;
    for (int64_t j = 0; j < r.len; j++)
      if (!(x[j] <= x[label]) || (x[j] == x[label] && j < label)) better++;
    e->out[0]->f[i] = better < e->node->attr.i.value ? 1 : 0;
  }
}
