// SPDX-License-Identifier: Apache-2.0
// Which products a step has that can be made in several ways, and which launches a step is to have.
#include "runtime/exec/tune.h"

#include "runtime/exec/cudnn.h"

enum { WARM = 3 };  // times in a row, of which the last one counts

// --- sites

static bool overlap(const md_arg *a, const md_arg *b) {
  return a->space == b->space && a->index == b->index && a->offset < b->offset + b->bytes &&
         b->offset < a->offset + a->bytes;
}

// Does one of the launches write over what one of them reads that none before had made?
static bool writes_over_input(const md_program *p, int first, int num) {
  int begin = p->launch[first].first_arg;
  const md_launch *last = &p->launch[first + num - 1];
  int end = last->first_arg + last->num_args;
  for (int w = begin; w < end; w++) {
    if (!p->arg[w].write || p->arg[w].space == MD_IN_WORKSPACE) continue;
    for (int l = first; l < first + num; l++) {
      const md_launch *reader = &p->launch[l];
      for (int r = reader->first_arg; r < reader->first_arg + reader->num_args; r++) {
        if (p->arg[r].write || !overlap(&p->arg[w], &p->arg[r])) continue;
        bool is_made = false;
        for (int k = begin; k < reader->first_arg; k++)
          is_made |= p->arg[k].write && overlap(&p->arg[k], &p->arg[r]);
        if (!is_made) return true;
      }
    }
  }
  return false;
}

static void start_site(md_tuner *t, int first) {
  const md_gpu_trial *x = &t->trial[first];
  md_tune_site *s = &t->site[t->num_sites++];
  snprintf(s->key, sizeof s->key, "%s", x->key);
  s->replaced = x->replaced;
  s->num_replaced = x->num_replaced;
  s->first = first;
  s->is_fixed = writes_over_input(t->p, x->replaced, x->num_replaced);
}

void md_tune_find_sites(md_tuner *t) {
  for (int i = 0; i < t->num_trials; i++) {
    const md_gpu_trial *x = &t->trial[i];
    bool is_next = !t->num_sites || t->site[t->num_sites - 1].replaced != x->replaced;
    if (is_next) start_site(t, i);
    md_tune_site *s = &t->site[t->num_sites - 1];
    s->num++;
    if (!s->is_fixed) t->most = MD_MAX(t->most, s->num);
  }
}

md_gpu_trial *md_tune_engine_trials(md_tuner *t, int *num) {
  const md_program *p = t->p;
  md_cudnn_name(t->cudnn, t->by_cudnn);
  md_gpu_trial *all = md_tune_rows(p->num_convs, sizeof *all);
  *num = 0;
  for (int i = 0; i < p->num_convs; i++) {
    const md_conv_group *g = &p->conv[i];
    int at = g->first_launch - t->v->first_launch;
    if (at < 0 || at >= t->v->num_launches) continue;
    all[(*num)++] = (md_gpu_trial){.key = "",
                                   .way = t->by_cudnn,
                                   .own = MD_OWN_ENGINE,
                                   .replaced = g->first_launch,
                                   .num_replaced = g->num_launches,
                                   .first_launch = p->num_launches + i,
                                   .num_launches = 1};
  }
  return all;
}

const md_conv_group *md_tune_conv(const md_tuner *t, const md_tune_site *s) {
  int conv = t->trial[s->first].first_launch - t->p->num_launches;
  return conv < 0 ? NULL : &t->p->conv[conv];
}

// The site whose launches begin with `launch`, or NULL.
static md_tune_site *site_at(const md_tuner *t, int launch) {
  for (int i = 0; i < t->num_sites; i++)
    if (t->site[i].replaced == launch) return &t->site[i];
  return NULL;
}

bool md_tune_is_out(const md_tuner *t, const md_tune_site *s, int trial) {
  return s->is_fixed || t->failed[trial][0] || trial - s->first >= s->num_tried;
}

// Is it still to be compared?
static bool is_new(const md_tuner *t, const md_tune_site *s, int trial) {
  return !s->is_fixed && !t->failed[trial][0] && trial - s->first >= s->num_tried;
}

// --- orders

static void add(md_tuner *t, int first, int num, int site, int trial) {
  for (int i = 0; i < num; i++) {
    md_tune_entry e = {first + i, site, trial, i == num - 1, false};
    int n = t->num_entries;
    MD_PUSH(t->order, n, t->cap_order, e.launch);
    MD_PUSH(t->entry, t->num_entries, t->cap_entries, e);
  }
}

static void add_trial(md_tuner *t, int site, int trial) {
  const md_gpu_trial *x = &t->trial[trial];
  add(t, x->first_launch, x->num_launches, site, trial);
}

// All that the site's product is made in.
static void add_ways(md_tuner *t, const md_tune_site *s) {
  int site = (int)(s - t->site);
  bool has_new = false;
  for (int k = s->first; k < s->first + s->num; k++) has_new |= is_new(t, s, k);
  if (has_new) add(t, s->replaced, s->num_replaced, site, MD_TUNE_OWN);
  for (int k = s->first; k < s->first + s->num; k++)
    if (is_new(t, s, k)) add_trial(t, site, k);
  add(t, s->replaced, s->num_replaced, site, MD_TUNE_NONE);
}

void md_tune_order_all(md_tuner *t) {
  int begin = t->v->first_launch, end = begin + t->v->num_launches;
  t->num_entries = t->at = 0;
  for (int i = begin, num; i < end; i += num) {
    const md_tune_site *s = site_at(t, i);
    num = s ? s->num_replaced : 1;
    if (s) add_ways(t, s);
    else add(t, i, num, 0, MD_TUNE_NONE);
  }
}

// What was added from `from` on is what the site takes.
static void count(md_tuner *t, int from) {
  for (int i = from; i < t->num_entries; i++) t->entry[i].counts = true;
}

// The site's product, by the trial or (MD_TUNE_NONE) its own way, with the L2 cache as `l2` says.
static void add_product(md_tuner *t, const md_tune_site *s, int trial, md_tune_l2 l2) {
  int site = (int)(s - t->site), from = t->num_entries;
  if (l2 == MD_TUNE_COLD) add(t, MD_EXEC_FLUSH, 1, site, MD_TUNE_NONE);
  for (int i = l2 == MD_TUNE_WARM ? WARM : 1; i > 0; i--) {
    from = t->num_entries;
    if (trial >= 0) add_trial(t, site, trial);
    else add(t, s->replaced, s->num_replaced, site, MD_TUNE_NONE);
  }
  count(t, from);
}

static void order(md_tuner *t, int way, const md_tune_site *alone, md_tune_l2 l2) {
  int begin = t->v->first_launch, end = begin + t->v->num_launches;
  t->num_entries = t->at = 0;
  for (int i = begin, num; i < end; i += num) {
    const md_tune_site *s = site_at(t, i);
    num = s ? s->num_replaced : 1;
    int trial = s && way > 0 && way <= s->num ? s->first + way - 1 : MD_TUNE_NONE;
    bool tries = trial >= 0 && !md_tune_is_out(t, s, trial) && (!alone || alone == s);
    bool is_asked = s && (way == 0 || tries) && (l2 == MD_TUNE_STEPS || !s->is_fixed);
    if (is_asked) add_product(t, s, tries ? trial : MD_TUNE_NONE, l2);
    else add(t, i, num, 0, MD_TUNE_NONE);
  }
}

void md_tune_order_way(md_tuner *t, int way, const md_tune_site *alone) {
  order(t, way, alone, MD_TUNE_STEPS);
}

void md_tune_order_beside(md_tuner *t, int way, md_tune_l2 l2) { order(t, way, NULL, l2); }
