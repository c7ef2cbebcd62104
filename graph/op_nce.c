// SPDX-License-Identifier: Apache-2.0
// InfoNCE's sum over a bank in one streaming pass (spec §2, §13): the logits are never stored.
//
//   s_n = q.bank_n / tau, left out where bank row n is of the query's own video or empty (id -2)
//   lse = ln sum_n e^s_n     mean = sum_n e^(s_n - lse) bank_n     d lse / d q = mean / tau
//
// The mean is what attention gives that has the bank for keys and values: with it the gradient needs no
// second pass. With every row left out lse is -inf and the mean 0: softplus(lse - positive) is then 0,
// and so is the gradient. A logit of inf makes lse inf and the mean NaN, a NaN makes both NaN.
#include "graph/op_functions.h"

#include <math.h>

enum { EMPTY_ROW = -2 };
enum { LSE, TOP, MEAN };  // results

static bool left_out(int64_t id, int64_t bank_id) { return bank_id == id || bank_id == EMPTY_ROW; }

static double dot(const double *x, const double *y, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
  return sum;
}

static void refuse_result(md_builder *b, const md_node *y, int result) {
  md_error(b->diags, E0350, y->place, "nce_lse: no gradient leads through its result %s",
           md_op_out(y->op, result)->name);
  md_hint(b->diags, "the loss may depend on lse alone");
  b->failed = true;
}

void nce_lse_grad_(md_builder *b, const md_node *y, const md_val *dy, md_val *d) {
  for (int i = TOP; i <= MEAN; i++)
    if (dy[i] != MD_NONE) refuse_result(b, y, i);
  md_val mean = y->out + MEAN, share = md_affine(b, dy[LSE], 1 / y->attr.f.value, 0);
  share = md_broadcast(b, share, md_shape_of(b, mean), (md_dims){1, {0}});
  d[0] = md_mul(b, share, mean);
}

// q bank^T, and exponential, comparison, sum for each logit; weights times bank where the mean is read.
void nce_lse_cost(const md_infer *f, md_cost *c) {
  const md_shape *q = md_in(f, 0), *bank = md_in(f, 2);
  bool is_mean_read = f->g->value[f->node->out + MEAN].uses > 0;
  double products = is_mean_read ? 2 : 1;
  c->flops = (double)q->dim[0] * (double)bank->dim[0] * (products * 2 * (double)q->dim[1] + 4);
  c->bytes = bytes_of(f) - (is_mean_read ? 0 : (double)md_type_bytes(&f->out[MEAN]));
}

static void add_row(double *sum, double scale, const double *row, int64_t n) {
  for (int64_t i = 0; i < n; i++) sum[i] += scale * row[i];
}

// Online maximum and sums: when the maximum grows, the sums so far shrink to the new scale.
void nce_lse_eval(md_eval *e) {
  const md_shape *qs = &e->in[0]->type.shape;
  const double *q = e->in[0]->f, *bank = e->in[2]->f;
  const int64_t *ids = e->in[1]->i, *bank_ids = e->in[3]->i;
  int64_t rows = e->in[2]->type.shape.dim[0], dim = qs->dim[1];
  double tau = e->node->attr.f.value;
  for (int64_t i = 0; i < qs->dim[0]; i++) {
    double top = -INFINITY, sum = 0, *mean = &e->out[MEAN]->f[i * dim];
    for (int64_t n = 0; n < rows; n++) {
      if (left_out(ids[i], bank_ids[n])) continue;
      double s = dot(&q[i * dim], &bank[n * dim], dim) / tau;
      if (s > top || isnan(s)) {
        double shrink = exp(top - s);
        sum *= shrink;
        for (int64_t j = 0; j < dim; j++) mean[j] *= shrink;
        top = s;
      }
      double weight = s == -INFINITY ? 0 : exp(s - top);  // -inf - -inf has no value
      sum += weight;
      add_row(mean, weight, &bank[n * dim], dim);
    }
    e->out[LSE]->f[i] = isinf(top) ? top : top + log(sum);
    e->out[TOP]->f[i] = top;
    for (int64_t j = 0; j < dim; j++) mean[j] = top == -INFINITY ? 0 : mean[j] / sum;
  }
}
