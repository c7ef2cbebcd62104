// SPDX-License-Identifier: Apache-2.0
// Which way is the best, as a record: by what it gains in each round, or by predictions.
#include "runtime/exec/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// A smaller gain is chance: of the own way's time, and of what events tell apart.
static const double least_share = 0.02, least_us = 1;

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double md_median(const double *x, int num) {
  double *sorted = md_tune_rows(num, sizeof *sorted);
  int known = 0;
  for (int i = 0; i < num; i++)
    if (!isnan(x[i])) sorted[known++] = x[i];
  if (known) qsort(sorted, (size_t)known, sizeof *sorted, by_size);
  double m = known ? sorted[known / 2] : NAN;
  free(sorted);
  return m;
}

double md_least_gain(double own_us) { return fmax(least_us, least_share * own_us); }

// By the median of what a way gains in each round.
static double gain_of(const md_tuner *t, const md_tune_site *s, int trial) {
  const double *us = md_tune_us(t, s, trial, MD_TUNE_STEPS);
  const double *own = md_tune_us(t, s, MD_TUNE_OWN, MD_TUNE_STEPS);
  double *gain = md_tune_rows(t->num_rounds, sizeof *gain);
  for (int i = 0; i < t->num_rounds; i++) gain[i] = own[i] < 0 || us[i] < 0 ? NAN : own[i] - us[i];
  double m = md_median(gain, t->num_rounds);
  free(gain);
  return m;
}

// < 0: nobody knows.
static double time_of(const md_tuner *t, const md_tune_site *s, int trial, md_tune_l2 l2) {
  double us = md_median(md_tune_us(t, s, trial, l2), md_tune_rounds(t, l2));
  return us >= 0 ? us : -1;
}

static void choose(md_record *r, const double *gain) {
  double most = md_least_gain(r->own_us);
  r->best = r->own;
  r->best_us = r->own_us;
  for (int i = 0; i < r->num_ways; i++) {
    if (r->way[i].failed || r->way[i].us < 0 || !(gain[i] > most)) continue;
    most = gain[i];
    r->best = r->way[i].way;
    r->best_us = r->way[i].us;
  }
}

// What is said of `num` trials, all of one product.
static md_record record_of(md_records *to, const md_program *p, const md_gpu_variant *v,
                           const char *device, const char *key, const md_gpu_trial *x, int num) {
  md_record r = {.key = md_strdup(to->arena, key),
                 .target = md_strdup(to->arena, v->target),
                 .device = md_strdup(to->arena, device),
                 .region = md_strdup(to->arena, p->launch[x->replaced].name),
                 .own = md_strdup(to->arena, x->own),
                 .own_cold_us = -1,
                 .own_warm_us = -1,
                 .num_ways = num};
  r.way = MD_NEW_ARRAY(to->arena, md_record_way, num + 1);
  for (int i = 0; i < num; i++)
    r.way[i] = (md_record_way){
        .way = md_strdup(to->arena, x[i].way), .us = -1, .cold_us = -1, .warm_us = -1};
  return r;
}

// Of what cannot be tried, too: it is as good as it gets. But not of cuDNN.
void md_tune_put_records(md_tuner *t) {
  md_clocks *clocks = MD_NEW(t->to->arena, md_clocks);
  *clocks = t->kept->clocks;
  for (int i = 0; i < t->num_sites; i++) {
    const md_tune_site *s = &t->site[i];
    if (t->cudnn && s->is_fixed) continue;
    md_record r = record_of(t->to, t->p, t->v, t->device.name, s->key, &t->trial[s->first],
                            s->is_fixed ? 0 : s->num);
    double *gain = md_tune_rows(s->num, sizeof *gain);
    r.is_checked = s->is_compared;
    r.clocks = clocks;
    r.own_us = time_of(t, s, MD_TUNE_OWN, MD_TUNE_STEPS);
    if (!s->is_fixed) {
      r.own_cold_us = time_of(t, s, MD_TUNE_OWN, MD_TUNE_COLD);
      r.own_warm_us = time_of(t, s, MD_TUNE_OWN, MD_TUNE_WARM);
    }
    for (int k = 0; k < r.num_ways; k++) {
      int trial = s->first + k;
      if (t->failed[trial][0]) r.way[k].failed = md_strdup(t->to->arena, t->failed[trial]);
      if (!md_tune_is_out(t, s, trial)) {
        r.way[k].us = time_of(t, s, trial, MD_TUNE_STEPS);
        r.way[k].cold_us = time_of(t, s, trial, MD_TUNE_COLD);
        r.way[k].warm_us = time_of(t, s, trial, MD_TUNE_WARM);
      }
      gain[k] = gain_of(t, s, trial);
    }
    choose(&r, gain);
    free(gain);
    if (r.own_us >= 0) MD_PUSH(t->to->row, t->to->num, t->to->cap, r);
  }
}

bool md_tune_nothing(const md_program *p, const char *where, md_diags *d) {
  md_error(d, E0448, p->path ? MD_IN_FILE(p->path) : MD_NOWHERE,
           "%s has nothing that is to be tried on %s", p->name, where);
  if (p->path) md_hint(d, "modistc compile ... --trials -o FILE.mdx, for this target");
  else md_hint(d, "its target is %s, and convolutions alone are made in several ways", p->target);
  return false;
}

static double predicted(const md_gpu_variant *v, int first, int num) {
  double us = 0;
  for (int i = 0; i < num; i++) us += v->predicted_us[first - v->first_launch + i];
  return us;
}

bool md_tune_predicted(const md_program *p, md_records *to, md_diags *d) {
  int before = to->num;
  for (const md_gpu_variant *v = p->variant; v < p->variant + p->num_variants; v++) {
    int end = v->first_trial + v->num_trials;
    for (int i = v->first_trial, num; v->predicted_for && i < end; i += num) {
      const md_gpu_trial *x = &p->trial[i];
      num = 1;
      while (i + num < end && x[num].replaced == x->replaced) num++;
      md_record r = record_of(to, p, v, v->predicted_for, x->key, x, num);
      double *gain = md_tune_rows(num, sizeof *gain);
      r.is_predicted = true;
      r.own_us = predicted(v, x->replaced, x->num_replaced);
      for (int k = 0; k < num; k++) {
        r.way[k].us = predicted(v, x[k].first_launch, x[k].num_launches);
        gain[k] = r.own_us - r.way[k].us;
      }
      choose(&r, gain);
      free(gain);
      MD_PUSH(to->row, to->num, to->cap, r);
    }
  }
  return to->num > before || md_tune_nothing(p, "any device that is described", d);
}
