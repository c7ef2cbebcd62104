// SPDX-License-Identifier: Apache-2.0
// Guesses against labels, and whether two sets of features can be compared at all.
#include "runtime/train/probe.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_CLASSES = 10000 };  // the confusion has its square

md_score md_score_of(const int32_t *label, const int32_t *guess, int64_t num, int classes) {
  md_score s = {.num = num, .classes = classes};
  s.confusion = md_calloc((size_t)classes * (size_t)classes + 1, sizeof *s.confusion);
  for (int64_t i = 0; i < num; i++) {
    s.hits += label[i] == guess[i];
    s.confusion[(int64_t)label[i] * classes + guess[i]]++;
  }
  return s;
}

void md_score_free(md_score *s) { free(s->confusion); }

double md_score_top1(const md_score *s) { return (double)s->hits / (double)s->num; }

double md_score_error(const md_score *s) {
  double p = md_score_top1(s);
  return sqrt(p * (1 - p) / (double)s->num);
}

static bool check_rows(const md_features *f, const char *what, md_diags *d) {
  for (int64_t i = 0; i < f->num; i++) {
    if (f->label[i] < 0 || f->label[i] >= MAX_CLASSES) {
      md_error(d, E0882, MD_IN_FILE(f->path[i]),
               "video of the %s set has label %d, but labels lie "
               "in 0 to %d",
               what, f->label[i], MAX_CLASSES - 1);
      md_hint(d, "a list of videos has a line 'path label' for each");
      return false;
    }
    for (int64_t j = 0; j < f->width; j++)
      if (!isfinite(f->x[i * f->width + j]))
        return md_error(d, E0886, MD_IN_FILE(f->path[i]), "feature %lld of the video is not finite",
                        (long long)j);
  }
  return true;
}

int md_score_classes(const md_features *train, const md_features *test, md_diags *d) {
  if (!check_rows(train, "training", d) || !check_rows(test, "test", d)) return 0;
  if (train->width != test->width)
    return md_error(d, E0883, MD_NOWHERE,
                    "training features have %lld numbers a video, but those to "
                    "test %lld: they come from different networks",
                    (long long)train->width, (long long)test->width);
  int32_t lo = train->label[0], hi = lo;
  for (int64_t i = 0; i < train->num; i++) {
    lo = MD_MIN(lo, train->label[i]);
    hi = MD_MAX(hi, train->label[i]);
  }
  if (lo == hi)
    return md_error(d, E0883, MD_NOWHERE,
                    "all %lld training videos have label %d, so there is "
                    "nothing to tell apart",
                    (long long)train->num, lo);
  for (int64_t i = 0; i < test->num; i++) hi = MD_MAX(hi, test->label[i]);
  return hi + 1;
}
