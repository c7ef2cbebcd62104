// SPDX-License-Identifier: Apache-2.0
// Which way a product is made. A region's kernels are made the generator's own way first, aside: the digest
// of their texts and the prelude's names the problem, with every type and formula in it and every extent, that
// of the batch by the counts of launches; and what compiles them, as another compiler's code has other times.
// Under that name records know the best way on a device.
#include "codegen/cuda/gen.h"
#include "codegen/cuda/names.h"

#include <stdlib.h>
#include <string.h>

// The region's kernels in a module of their own, but for the arena.
static md_cuda_module aside(md_cu_work w, const md_cuda_schedule *s, md_cu_ways *ways) {
  md_cuda_module m = {.arena = w.module->arena};
  md_cu_names names = {0};
  w.module = &m;
  w.names = &names;
  w.made = NULL;
  w.num_made = w.cap_made = 0;
  w.schedule = s;
  w.ways = ways;
  md_cu_region_kernels(&w);
  md_cu_share_workspace(&m);
  free(names.text);
  return m;
}

static void free_aside(md_cuda_module *m) {
  free(m->launch);
  free(m->kernel);
  free(m->place);
}

static void make_key(const md_cuda_module *m, md_cuda_arch arch, char key[33]) {
  md_text all = {0};
  md_nvrtc_describe(&all);
  md_put(&all, "\n%s", md_cuda_prelude(arch));
  for (int i = 0; i < m->num_launches; i++) {
    const md_cuda_launch *l = &m->launch[i];
    md_put(&all, "%s %lld ", m->kernel[l->number].symbol, (long long)l->blocks);
    for (int k = 0; k < l->num_counts; k++) md_put(&all, "%lld ", (long long)l->count[k]);
  }
  md_digest_text(md_digest_of(all.s, all.len), key);
  md_text_free(&all);
}

static bool is_tried(const md_cuda_module *m, const char *key) {
  for (int i = 0; i < m->num_sites; i++)
    if (m->site[i].num_trials && !strcmp(m->site[i].key, key)) return true;
  return false;
}

static int add_kernel(md_cu_work *w, md_cuda_kernel k) {
  md_cuda_module *m = w->module;
  int number = md_cu_names_find(w->names, md_digest_of(k.text, strlen(k.text)));
  if (number == m->num_kernels) MD_PUSH(m->kernel, m->num_kernels, m->cap_kernels, k);
  return number;
}

static md_cuda_trial trial_of(md_cu_work *w, const md_cuda_schedule *way) {
  md_cuda_module m = aside(*w, way, NULL);
  md_cuda_trial t = {.way = *way, .num_launches = m.num_launches};
  t.launch = MD_NEW_ARRAY(w->module->arena, md_cuda_launch, m.num_launches + 1);
  for (int i = 0; i < m.num_launches; i++) {
    t.launch[i] = m.launch[i];
    t.launch[i].number = add_kernel(w, m.kernel[m.launch[i].number]);
    snprintf(t.launch[i].kernel, sizeof t.launch[i].kernel, "k%d", t.launch[i].number);
  }
  free_aside(&m);
  return t;
}

static const md_cuda_schedule *find_way(const md_cu_ways *ways, const char *text) {
  char buf[MD_CUDA_SCHEDULE_CHARS];
  for (int i = 0; i < ways->num; i++)
    if (!strcmp(md_cuda_schedule_text(&ways->at[i], buf), text)) return &ways->at[i];
  return NULL;
}

// What the records say; a way that there is not, as somebody wrote it by hand, is not known.
static void look_up(const md_cu_work *w, const md_cuda_how *how, const md_cu_ways *ways,
                    md_cuda_site *s) {
  char target[32];
  snprintf(target, sizeof target, "cuda:sm_%d%.1s", w->arch.sm, &w->arch.suffix);
  const md_record *r = md_records_find(how->records, target, s->key, how->device);
  const md_cuda_schedule *best = r ? find_way(ways, r->best) : NULL;
  if (!best) return;
  s->known_by = md_strdup(w->module->arena, r->device);
  s->used = *best;
}

void md_cu_choose(md_cu_work *w, const md_cuda_how *how) {
  md_cuda_module *m = w->module;
  md_cu_ways ways = {0};
  md_cuda_module own = aside(*w, NULL, &ways);
  if (ways.num > 1) {
    md_cuda_site s = {.region = w->r->index, .own = ways.at[0], .used = ways.at[0]};
    make_key(&own, w->arch, s.key);
    if (how->records) look_up(w, how, &ways, &s);
    w->schedule = &s.used;
    s.first_launch = m->num_launches;
    md_cu_region_kernels(w);
    s.num_launches = m->num_launches - s.first_launch;
    int num = is_tried(m, s.key) ? 0 : MD_MIN(how->trials, ways.num - 1);
    s.trial = MD_NEW_ARRAY(m->arena, md_cuda_trial, num + 1);
    for (int i = 1; i <= num; i++) s.trial[s.num_trials++] = trial_of(w, &ways.at[i]);
    MD_PUSH(m->site, m->num_sites, m->cap_sites, s);
  } else {
    md_cu_region_kernels(w);
  }
  free_aside(&own);
}
