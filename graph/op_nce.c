// SPDX-License-Identifier: Apache-2.0
// InfoNCE's sum over a bank in one streaming pass (spec §2, §13): the logits are never stored.
//
//   s_n = q.bank_n / tau, left out where bank row n is of the query's own video or empty (id -2)
//   lse = ln sum_n e^s_n          dq = dlse/tau sum_n e^(s_n - lse) bank_n
//
// With every row left out lse is -inf: softplus(lse - positive) is then 0, and so is the gradient. A
// logit of inf makes lse inf, a NaN makes it NaN, as in logsumexp.
#include "graph/op_functions.h"

#include <math.h>

enum { EMPTY_ROW = -2 };

static bool left_out(int64_t id, int64_t bank_id) { return bank_id == id || bank_id == EMPTY_ROW; }

static double dot(const double *x, const double *y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
  return sum;
}

void nce_lse_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  if (dy[0] == MD_NONE) return;
  md_val in[] = {dy[0], y->out, y->in[0], y->in[1], y->in[2], y->in[3]};
  d[0] = md_add_node(b, MD_OP_nce_lse_grad, in, 6, &y->attr);
}

// q bank^T, and exponential, comparison, sum for each logit.
void nce_lse_cost(const md_infer *f, md_cost *c) {
  const md_shape *q = md_in(f, 0), *bank = md_in(f, 2);
  c->flops = (double)q->dim[0] * (double)bank->dim[0] * (2.0 * (double)q->dim[1] + 4);
  c->bytes = bytes_of(f);
}

// Online maximum and sum: when the maximum grows, the sum so far shrinks to the new scale.
void nce_lse_eval(md_eval *e) {
  const md_shape *qs = &e->in[0]->type.shape;
  const double *q = e->in[0]->f, *bank = e->in[2]->f;
  const int64_t *ids = e->in[1]->i, *bank_ids = e->in[3]->i;
  int64_t rows = e->in[2]->type.shape.dim[0], dim = qs->dim[1];
  double tau = e->node->attr.f.value;
  for (int64_t i = 0; i < qs->dim[0]; i++) {
    double top = -INFINITY, sum = 0;
    for (int64_t n = 0; n < rows; n++) {
      if (left_out(ids[i], bank_ids[n])) continue;
      double s = dot(&q[i * dim], &bank[n * dim], dim) / tau;
      if (s == -INFINITY) continue;  // adds nothing, and -inf - -inf has no value
      if (s > top || isnan(s)) {
        sum *= exp(top - s);
        top = s;
      }
      sum += exp(s - top);
    }
    e->out[0]->f[i] = isinf(top) ? top : top + log(sum);
    e->out[1]->f[i] = top;
  }
}

void nce_lse_grad_cost(const md_infer *f, md_cost *c) {
  const md_shape *q = md_in(f, 2), *bank = md_in(f, 4);
  c->flops = (double)q->dim[0] * (double)bank->dim[0] * (4.0 * (double)q->dim[1] + 4);
  c->bytes = bytes_of(f);
}

void nce_lse_grad_eval(md_eval *e) {
  const md_shape *qs = &e->in[2]->type.shape;
  const double *dlse = e->in[0]->f, *lse = e->in[1]->f, *q = e->in[2]->f, *bank = e->in[4]->f;
  const int64_t *ids = e->in[3]->i, *bank_ids = e->in[5]->i;
  int64_t rows = e->in[4]->type.shape.dim[0], dim = qs->dim[1];
  double tau = e->node->attr.f.value;
  for (int64_t i = 0; i < qs->dim[0]; i++) {
    if (lse[i] == -INFINITY) continue;
    double *dq = &e->out[0]->f[i * dim];
    for (int64_t n = 0; n < rows; n++) {
      if (left_out(ids[i], bank_ids[n])) continue;
      double s = dot(&q[i * dim], &bank[n * dim], dim) / tau;
      double weight = dlse[i] / tau * exp(s - lse[i]);
      for (int64_t j = 0; j < dim; j++) dq[j] += weight * bank[n * dim + j];
    }
  }
}
