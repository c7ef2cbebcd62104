// SPDX-License-Identifier: Apache-2.0
// What repeated times say: their middle, how far they scatter, how sure the middle is, and whether
// two sets of them differ. Pure functions; times are in the order in which they were taken.
#ifndef MODISTC_BENCH_STATS_H
#define MODISTC_BENCH_STATS_H

#include "base/base.h"

typedef struct md_samples {
  double *ms;
  int num, cap;
} md_samples;  // zero is empty; ms is malloc'ed
void md_samples_add(md_samples *s, double ms);
void md_samples_free(md_samples *s);

// Of one sample at least. Quantiles are linear between neighbours.
double md_samples_quantile(const md_samples *s, double q);
double md_samples_median(const md_samples *s);
double md_samples_mad(const md_samples *s);  // median distance from the median
// Bounds between which the median lies with probability `confidence`: percentiles of the medians of
// resampled sets (bootstrap). The same samples give the same bounds.
void md_samples_interval(const md_samples *s, double confidence, double *low, double *high);
// Warm-up is over when two rounds in a row were not clearly faster than the best before them.
bool md_samples_are_steady(const md_samples *s);

// Mann-Whitney: probability that two sets from one source have ranks at least as far apart as these.
// Exact, ties included, for up to MD_EXACT_RANKS samples in all; beyond that by the normal curve.
enum { MD_EXACT_RANKS = 60 };
double md_samples_p(const md_samples *a, const md_samples *b);
// The least p that sets of these sizes can have.
double md_samples_least_p(int num_a, int num_b);

#endif
