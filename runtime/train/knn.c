// SPDX-License-Identifier: Apache-2.0
// Nearest neighbours by cosine (spec §7.6). Nothing is fitted, so it shows what the features hold as
// they are. A row of zeros has cosine 0 with everything.
#include "runtime/train/probe.h"

#include <math.h>
#include <stdlib.h>

typedef struct Near {
  double cosine;
  int64_t row;
} Near;

static double *unit_rows(const md_features *f) {
  double *x = md_calloc((size_t)(f->num * f->width) + 1, sizeof *x);
  for (int64_t i = 0; i < f->num; i++) {
    double square = 0;
    for (int64_t j = 0; j < f->width; j++)
      square += (double)f->x[i * f->width + j] * (double)f->x[i * f->width + j];
    double scale = square > 0 ? 1 / sqrt(square) : 0;
    for (int64_t j = 0; j < f->width; j++)
      x[i * f->width + j] = (double)f->x[i * f->width + j] * scale;
  }
  return x;
}

// Near ones first; equally near ones in the order of their rows.
static int by_nearness(const void *a, const void *b) {
  const Near *p = a, *q = b;
  if (p->cosine != q->cosine) return p->cosine < q->cosine ? 1 : -1;
  return (p->row > q->row) - (p->row < q->row);
}

static int32_t vote(const Near *near, int k, const int32_t *label, int classes, double *votes) {
  for (int64_t c = 0; c < (int64_t)2 * classes; c++) votes[c] = 0;
  for (int i = 0; i < k; i++) {
    int64_t c = label[near[i].row];
    votes[2 * c] += 1;
    votes[2 * c + 1] += near[i].cosine;
  }
  int32_t best = 0;
  for (int32_t c = 1; c < classes; c++) {
    const double *v = votes + (int64_t)2 * c, *b = votes + (int64_t)2 * best;
    if (v[0] > b[0] || (v[0] == b[0] && v[1] > b[1])) best = c;
  }
  return best;
}

void md_knn(const md_features *train, const md_features *test, int k, int32_t *guess) {
  int classes = 0;
  for (int64_t i = 0; i < train->num; i++) classes = MD_MAX(classes, train->label[i] + 1);
  double *a = unit_rows(train), *b = unit_rows(test);
  double *votes = md_calloc(2 * (size_t)classes + 1, sizeof *votes);
  Near *near = md_calloc((size_t)train->num + 1, sizeof *near);
  for (int64_t i = 0; i < test->num; i++) {
    for (int64_t n = 0; n < train->num; n++) {
      near[n] = (Near){.row = n};
      for (int64_t j = 0; j < train->width; j++)
        near[n].cosine += b[i * train->width + j] * a[n * train->width + j];
    }
    qsort(near, (size_t)train->num, sizeof *near, by_nearness);
    guess[i] = vote(near, k, train->label, classes, votes);
  }
  free(a);
  free(b);
  free(votes);
  free(near);
}
