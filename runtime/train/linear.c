// SPDX-License-Identifier: Apache-2.0
// The linear probe: how well classes can be told apart by planes in feature space. The problem is
// convex and has one solution up to a shift of all biases, so the result depends on no seed. Features
// are standardised with mean and deviation of the training rows; one that never changes becomes 0.
#include "runtime/train/probe.h"

#include <math.h>
#include <stdlib.h>

static const double usual_l2 = 0.01, usual_gradient = 1e-6;
enum { USUAL_STEPS = 1000 };

struct md_linear_probe {
  int64_t width;
  int classes;
  double *mean, *scale;  // [width]
  double *w;             // [classes,width + 1], bias last
  md_minimum minimum;
};

static double *vector(int64_t n) { return md_calloc((size_t)n + 1, sizeof(double)); }

// z[c] = w[c] x + b[c]; returns log sum exp z.
static double scores(const double *w, const double *x, int64_t width, int classes, double *z) {
  double max = -INFINITY, sum = 0;
  for (int c = 0; c < classes; c++) {
    const double *row = w + c * (width + 1);
    z[c] = row[width];
    for (int64_t j = 0; j < width; j++) z[c] += row[j] * x[j];
    max = fmax(max, z[c]);
  }
  for (int c = 0; c < classes; c++) sum += exp(z[c] - max);
  return max + log(sum);
}

// d loss / d z[c] = (softmax(z)[c] - [c == label]) / num, and d z[c] / d w[c] = (x, 1).
double md_linear_loss(const void *problem, const double *w, double *gradient) {
  const md_linear_problem *p = problem;
  int64_t width = p->width, stride = width + 1;
  double *z = vector(p->classes), loss = 0;
  for (int64_t i = 0; i < p->classes * stride; i++) gradient[i] = 0;
  for (int64_t i = 0; i < p->num; i++) {
    const double *x = p->x + i * width;
    double log_sum = scores(w, x, width, p->classes, z);
    loss += (log_sum - z[p->label[i]]) / (double)p->num;
    for (int c = 0; c < p->classes; c++) {
      double dz = (exp(z[c] - log_sum) - (c == p->label[i])) / (double)p->num;
      double *g = gradient + c * stride;
      for (int64_t j = 0; j < width; j++) g[j] += dz * x[j];
      g[width] += dz;
    }
  }
  for (int c = 0; c < p->classes; c++) {
    for (int64_t j = 0; j < width; j++) {
      double v = w[c * stride + j];
      loss += 0.5 * p->l2 * v * v;
      gradient[c * stride + j] += p->l2 * v;
    }
  }
  free(z);
  return loss;
}

static void measure(md_linear_probe *p, const md_features *f) {
  for (int64_t j = 0; j < p->width; j++) {
    double mean = 0, square = 0;
    for (int64_t i = 0; i < f->num; i++) mean += (double)f->x[i * p->width + j];
    mean /= (double)f->num;
    for (int64_t i = 0; i < f->num; i++) {
      double away = (double)f->x[i * p->width + j] - mean;
      square += away * away;
    }
    p->mean[j] = mean;
    p->scale[j] = square > 0 ? 1 / sqrt(square / (double)f->num) : 0;
  }
}

static double *standardised(const md_linear_probe *p, const md_features *f) {
  double *x = vector(f->num * p->width);
  for (int64_t i = 0; i < f->num * p->width; i++)
    x[i] = ((double)f->x[i] - p->mean[i % p->width]) * p->scale[i % p->width];
  return x;
}

md_linear_probe *md_linear_fit(const md_features *train, int classes, const md_linear_options *o) {
  md_linear_probe *p = md_calloc(1, sizeof *p);
  int64_t width = train->width;
  *p = (md_linear_probe){.width = width,
                         .classes = classes,
                         .mean = vector(width),
                         .scale = vector(width),
                         .w = vector(classes * (width + 1))};
  measure(p, train);
  double *x = standardised(p, train);
  md_linear_problem problem = {.x = x,
                               .label = train->label,
                               .num = train->num,
                               .width = width,
                               .classes = classes,
                               .l2 = o->l2 > 0 ? o->l2 : usual_l2};
  p->minimum = md_lbfgs(md_linear_loss, &problem, classes * (width + 1),
                        o->gradient > 0 ? o->gradient : usual_gradient,
                        o->max_steps ? o->max_steps : USUAL_STEPS, p->w);
  free(x);
  return p;
}

md_minimum md_linear_minimum(const md_linear_probe *p) { return p->minimum; }

void md_linear_guess(const md_linear_probe *p, const md_features *f, int32_t *guess) {
  double *x = standardised(p, f), *z = vector(p->classes);
  for (int64_t i = 0; i < f->num; i++) {
    scores(p->w, x + i * p->width, p->width, p->classes, z);
    guess[i] = 0;
    for (int c = 1; c < p->classes; c++)
      if (z[c] > z[guess[i]]) guess[i] = c;
  }
  free(x);
  free(z);
}

void md_linear_destroy(md_linear_probe *p) {
  if (!p) return;
  free(p->mean);
  free(p->scale);
  free(p->w);
  free(p);
}
