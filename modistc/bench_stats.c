// SPDX-License-Identifier: Apache-2.0
// Statistics of benchmarks. Times of a computer are no bell curve: they have a floor and a tail. So
// everything here goes by ranks: medians, not means, and a test that assumes no curve.
#include "modistc/bench_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RESAMPLES = 1000 };
static const double clearly_faster = 0.98;

void md_samples_add(md_samples *s, double ms) { MD_PUSH(s->ms, s->num, s->cap, ms); }

void md_samples_free(md_samples *s) {
  free(s->ms);
  *s = (md_samples){0};
}

static double *new_array(int64_t num) { return md_calloc((size_t)num, sizeof(double)); }

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void sort(double *x, int num) { qsort(x, (size_t)num, sizeof *x, by_value); }

static double quantile(const double *sorted, int num, double q) {
  double at = q * (num - 1);
  int i = (int)at, next = MD_MIN(i + 1, num - 1);
  return sorted[i] + (at - i) * (sorted[next] - sorted[i]);
}

static double *sorted_copy(const md_samples *s) {
  MD_ASSERT(s->num > 0, "statistics of no samples");
  double *x = new_array(s->num);
  memcpy(x, s->ms, (size_t)s->num * sizeof *x);
  sort(x, s->num);
  return x;
}

double md_samples_quantile(const md_samples *s, double q) {
  double *x = sorted_copy(s), result = quantile(x, s->num, q);
  free(x);
  return result;
}

double md_samples_median(const md_samples *s) { return md_samples_quantile(s, 0.5); }

double md_samples_mad(const md_samples *s) {
  double *x = sorted_copy(s), median = quantile(x, s->num, 0.5);
  for (int i = 0; i < s->num; i++) x[i] = fabs(x[i] - median);
  sort(x, s->num);
  double mad = quantile(x, s->num, 0.5);
  free(x);
  return mad;
}

void md_samples_interval(const md_samples *s, double confidence, double *low, double *high) {
  MD_ASSERT(s->num > 0, "statistics of no samples");
  double *x = new_array(s->num), *median = new_array(RESAMPLES);
  uint64_t key = md_hash_key("bootstrap", 0), draw = 0;
  for (int r = 0; r < RESAMPLES; r++) {
    for (int i = 0; i < s->num; i++) x[i] = s->ms[md_hash_at(key, draw++) % (uint64_t)s->num];
    sort(x, s->num);
    median[r] = quantile(x, s->num, 0.5);
  }
  sort(median, RESAMPLES);
  *low = quantile(median, RESAMPLES, (1 - confidence) / 2);
  *high = quantile(median, RESAMPLES, (1 + confidence) / 2);
  free(x);
  free(median);
}

bool md_samples_are_steady(const md_samples *s) {
  if (s->num < 3) return false;
  double best = s->ms[0];
  for (int i = 1; i < s->num - 2; i++) best = fmin(best, s->ms[i]);
  double last_two = fmin(s->ms[s->num - 2], s->ms[s->num - 1]);
  return last_two >= clearly_faster * best;
}

// --- Mann-Whitney

// Ranks of all samples, a's first, from 1, times two: equal samples share the mean of their ranks,
// which may end in a half. *ties: sum of t^3 - t over groups of t equal ones.
static int *doubled_ranks(const md_samples *a, const md_samples *b, double *ties) {
  int num = a->num + b->num;
  md_samples all = {0};
  for (int i = 0; i < num; i++) md_samples_add(&all, i < a->num ? a->ms[i] : b->ms[i - a->num]);
  int *rank = md_calloc((size_t)num, sizeof *rank);
  *ties = 0;
  for (int i = 0; i < num; i++) {
    int less = 0, equal = 0;
    for (int j = 0; j < num; j++) {
      less += all.ms[j] < all.ms[i];
      equal += all.ms[j] == all.ms[i];
    }
    rank[i] = 2 * less + equal + 1;
    *ties += (double)equal * equal - 1;  // each of the t members adds t^2 - 1
  }
  md_samples_free(&all);
  return rank;
}

// Of all ways to choose a's ranks, the share whose sum is as far from the mean as the one at hand.
static double exact_p(const int *rank, int num_a, int num_b, int sum) {
  int num = num_a + num_b, most = num * (num + 1);  // sum of all doubled ranks
  // ways[k][s]: how often k of the ranks seen so far add up to s
  double *ways = new_array((int64_t)(num_a + 1) * (most + 1));
  ways[0] = 1;
  for (int i = 0; i < num; i++)
    for (int k = MD_MIN(i + 1, num_a); k > 0; k--)
      for (int s = rank[i]; s <= most; s++)
        ways[k * (most + 1) + s] += ways[(k - 1) * (most + 1) + s - rank[i]];
  int mean = num_a * (num + 1);
  double all = 0, far = 0;
  for (int s = 0; s <= most; s++) {
    double w = ways[num_a * (most + 1) + s];
    all += w;
    if (abs(s - mean) >= abs(sum - mean)) far += w;
  }
  free(ways);
  return far / all;
}

static double normal_p(int num_a, int num_b, int sum, double ties) {
  double na = num_a, nb = num_b, n = na + nb;
  double u = sum / 2.0 - na * (na + 1) / 2, mean = na * nb / 2;
  double variance = na * nb / 12 * (n + 1 - ties / (n * (n - 1)));
  if (variance <= 0) return 1;  // all are equal
  double z = fmax(0, fabs(u - mean) - 0.5) / sqrt(variance);
  return erfc(z / sqrt(2));
}

double md_samples_p(const md_samples *a, const md_samples *b) {
  MD_ASSERT(a->num > 0 && b->num > 0, "statistics of no samples");
  double ties;
  int *rank = doubled_ranks(a, b, &ties), sum = 0;
  for (int i = 0; i < a->num; i++) sum += rank[i];
  double p = a->num + b->num <= MD_EXACT_RANKS ? exact_p(rank, a->num, b->num, sum)
                                               : normal_p(a->num, b->num, sum, ties);
  free(rank);
  return p;
}

double md_samples_least_p(int num_a, int num_b) {
  double ways = 1;
  for (int i = 1; i <= num_a; i++) ways *= (double)(num_b + i) / i;
  return fmin(1, 2 / ways);
}
