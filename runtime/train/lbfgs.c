// SPDX-License-Identifier: Apache-2.0
// L-BFGS (Nocedal & Wright, algorithms 7.4 and 7.5): the last few steps s and changes of the gradient
// y stand for the inverse of the curvature; a step is halved until the value falls enough. A pair
// with s.y <= 0 is not kept, so that the direction always descends.
#include "runtime/train/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MEMORY = 10, MAX_HALVINGS = 40 };
static const double sufficient = 1e-4;  // of the fall that the gradient promises

typedef struct Pairs {
  double *s[MEMORY], *y[MEMORY], rho[MEMORY];
  int num, newest;  // pairs that are kept; the ring's last one
} Pairs;

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

static double largest(const double *g, int64_t n) {
  double max = 0;
  for (int64_t i = 0; i < n; i++) max = fmax(max, fabs(g[i]));
  return max;
}

static double *vector(int64_t n) { return md_calloc((size_t)n + 1, sizeof(double)); }

// p = -H g, by two loops over the pairs, newest first and then oldest first.
static void direction(const Pairs *q, const double *g, int64_t n, double *p) {
  double alpha[MEMORY];
  MD_ASSERT(q->num >= 0 && q->num <= MEMORY, "%d pairs", q->num);
  for (int64_t i = 0; i < n; i++) p[i] = -g[i];
  for (int k = 0; k < q->num; k++) {
    int at = (q->newest - k + MEMORY) % MEMORY;
    alpha[k] = q->rho[at] * dot(q->s[at], p, n);
    for (int64_t i = 0; i < n; i++) p[i] -= alpha[k] * q->y[at][i];
  }
  if (q->num) {
    double scale = 1 / (q->rho[q->newest] * dot(q->y[q->newest], q->y[q->newest], n));
    for (int64_t i = 0; i < n; i++) p[i] *= scale;
  }
  for (int k = q->num - 1; k >= 0; k--) {
    int at = (q->newest - k + MEMORY) % MEMORY;
    double beta = q->rho[at] * dot(q->y[at], p, n);
    for (int64_t i = 0; i < n; i++) p[i] += (alpha[k] - beta) * q->s[at][i];
  }
}

// From (x, g) to (next, next_g).
static void keep_pair(Pairs *q, const double *x, const double *next, const double *g,
                      const double *next_g, int64_t n) {
  int at = (q->newest + 1) % MEMORY;
  for (int64_t i = 0; i < n; i++) {
    q->s[at][i] = next[i] - x[i];
    q->y[at][i] = next_g[i] - g[i];
  }
  double curvature = dot(q->s[at], q->y[at], n);
  if (curvature <= 0) return;
  q->rho[at] = 1 / curvature;
  q->newest = at;
  q->num = MD_MIN(q->num + 1, MEMORY);
}

md_minimum md_lbfgs(md_function *f, const void *ctx, int64_t n, double gradient, int max_steps,
                    double *x) {
  Pairs q = {.newest = MEMORY - 1};
  for (int i = 0; i < MEMORY; i++) {
    q.s[i] = vector(n);
    q.y[i] = vector(n);
  }
  double *g = vector(n), *p = vector(n), *next = vector(n), *next_g = vector(n);
  md_minimum m = {.value = f(ctx, x, g)};
  for (;; m.steps++) {
    m.gradient = largest(g, n);
    m.converged = m.gradient <= gradient;
    if (m.converged || m.steps == max_steps) break;
    direction(&q, g, n, p);
    double slope = dot(g, p, n), value = INFINITY;
    double step = q.num ? 1 : 1 / fmax(1, sqrt(dot(g, g, n)));
    bool falls = false;
    for (int k = 0; !falls && k < MAX_HALVINGS; k++) {
      for (int64_t i = 0; i < n; i++) next[i] = x[i] + step * p[i];
      value = f(ctx, next, next_g);
      falls = value <= m.value + sufficient * step * slope;
      step /= 2;
    }
    if (!falls) break;
    keep_pair(&q, x, next, g, next_g, n);
    memcpy(x, next, (size_t)n * sizeof *x);
    memcpy(g, next_g, (size_t)n * sizeof *g);
    m.value = value;
  }
  for (int i = 0; i < MEMORY; i++) {
    free(q.s[i]);
    free(q.y[i]);
  }
  free(g);
  free(p);
  free(next);
  free(next_g);
  return m;
}
