// SPDX-License-Identifier: Apache-2.0
// Matrix product.
#include "graph/op_functions.h"

// Rows, columns and inner size of z = x y after the transpositions.
typedef struct sizes {
  int64_t m, n, k, k_of_y;
} sizes;

static sizes sizes_of(const md_shape *x, const md_shape *y, const md_matmul_attr *a) {
  return (sizes){.m = x->dim[a->ta ? 1 : 0],
                 .n = y->dim[a->tb ? 0 : 1],
                 .k = x->dim[a->ta ? 0 : 1],
                 .k_of_y = y->dim[a->tb ? 1 : 0]};
}

bool matmul_shape(md_infer *f) {
  sizes s = sizes_of(md_in(f, 0), md_in(f, 1), &f->node->attr.matmul);
  if (s.k != s.k_of_y)
    return md_reject(f, "inner sizes differ: %lld in $0, %lld in $1", (long long)s.k,
                     (long long)s.k_of_y);
  md_shape z = {.rank = 2, .dim = {s.m, s.n}};
  return set_result(f, 0, md_in_dtype(f, 0), &z);
}

// z = X Y with X = x or x^T, Y = y or y^T: dX = dz Y^T, dY = X^T dz, each transposed back if needed.
void matmul_grad(md_builder *b, const md_node *z, const md_val *dz, md_val *d) {
  md_val x = z->in[0], y = z->in[1];
  bool tx = z->attr.matmul.ta, ty = z->attr.matmul.tb;
  d[0] = tx ? md_matmul(b, y, dz[0], ty, true) : md_matmul(b, dz[0], y, false, !ty);
  d[1] = ty ? md_matmul(b, dz[0], x, true, tx) : md_matmul(b, x, dz[0], !tx, false);
}

void matmul_cost(const md_infer *f, md_cost *c) {
  sizes s = sizes_of(md_in(f, 0), md_in(f, 1), &f->node->attr.matmul);
  c->flops = 2.0 * (double)s.m * (double)s.n * (double)s.k;
  c->bytes = bytes_of(f);
}

void matmul_eval(md_eval *e) {
  const md_matmul_attr *a = &e->node->attr.matmul;
  sizes s = sizes_of(&e->in[0]->type.shape, &e->in[1]->type.shape, a);
  const double *x = e->in[0]->f, *y = e->in[1]->f;
  double *z = e->out[0]->f;
  for (int64_t i = 0; i < s.m; i++) {
    for (int64_t k = 0; k < s.k; k++) {
      double c = a->ta ? x[k * s.m + i] : x[i * s.k + k];
      for (int64_t j = 0; j < s.n; j++)
        z[i * s.n + j] += c * (a->tb ? y[j * s.k + k] : y[k * s.n + j]);
    }
  }
}
