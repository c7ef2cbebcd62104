// SPDX-License-Identifier: Apache-2.0
// Who does a convolution faster, its launches or cuDNN? Records may tell, under the digest of all that counts: what
// cuDNN is to do, its version, the device as it describes it, and the code of the launches. What they do not tell is
// tried: both run in turn, on the zeros that memory has when a program was just loaded, and what is gained in a round is
// compared: so what slows the device down does so to both. Its operands are then in the L2 cache for both if they
// fit, unlike within a step, where `tune` measures. What was tried becomes a record.
#include "runtime/exec/cuda.h"
#include "runtime/exec/tune.h"

#include "base/log.h"

#include <string.h>

enum { ROUNDS = 7, MARKS = 3 };
static const int64_t hold_ns = 640000;

typedef struct Race {
  md_cuda *c;
  void *mark[MARKS];       // before ours, between, behind cuDNN's
  int num, won, launches;  // groups; of those that cuDNN wins
  int num_known;           // of the groups
  md_records *found;       // by trying
} Race;
typedef struct Times {  // us, medians of rounds: of the launches, of cuDNN, of what it takes less
  double own, cudnn, gain;
} Times;

// --- what records tell

// False: nothing can be kept, as nobody knows the device.
static bool key_of(const md_cuda *c, const md_conv_group *g, char key[33]) {
  const char *device = md_cudnn_described(c->convs.cudnn);
  if (!device) return false;
  md_text all = {0};
  md_conv v = md_cuda_conv_of(g);
  md_put(&all, "cuDNN %d\n%s\n", md_cudnn_version(c->convs.cudnn), device);
  md_cudnn_conv_text(&v, &all);
  for (int i = 0; i < g->num_launches; i++) md_cuda_code_text(c, g->first_launch + i, &all);
  md_digest_text(md_digest_of(all.s, all.len), key);
  md_text_free(&all);
  return true;
}

bool md_cuda_conv_key(md_device *v, int conv, char key[33]) {
  const md_cuda *c = (const md_cuda *)v;
  const md_conv_group *g = &v->p->conv[conv];
  const md_cudnn_conv *plan =
      c->convs.cudnn ? c->convs.plan[g->first_launch - v->first_launch] : NULL;
  return plan && !md_cudnn_conv_is_second(plan) && key_of(c, g, key);
}

void md_cuda_convs_look_up(md_cuda *c, md_diags *d) {
  const md_program *p = c->base.p;
  char key[33];
  if (!md_cudnn_described(c->convs.cudnn)) return;
  md_records *all = md_records_kept(d);
  for (int i = 0; i < p->num_convs; i++) {
    if (!md_cuda_conv_is_ours(c, &p->conv[i]) || !key_of(c, &p->conv[i], key)) continue;
    const md_record *r = md_records_find(all, c->base.variant->target, key, c->base.gpu);
    if (r) c->convs.known[i] = strcmp(r->best, r->own) ? MD_FASTER_CUDNN : MD_FASTER_OURS;
  }
  md_records_destroy(all);
}

// --- what is tried

static bool set_mark(Race *r, int i, md_diags *d) {
  int error = r->c->call.cuEventRecord(r->mark[i], r->c->stream);
  return md_cuda_did(r->c, "cuEventRecord", -1, error, d);
}

static bool run_both(Race *r, const md_conv_group *g, md_diags *d) {
  md_cuda *c = r->c;
  int error = c->call.cuLaunchHostFunc(c->stream, md_cuda_hold, (void *)&hold_ns);
  if (!md_cuda_did(c, "cuLaunchHostFunc", -1, error, d) || !set_mark(r, 0, d)) return false;
  c->base.by_engine = NULL;
  bool ok = true;
  for (int i = 0; i < g->num_launches && ok; i++)
    ok = c->base.kind->launch(&c->base, g->first_launch + i, d);
  c->base.by_engine = c->convs.is_covered;
  return ok && set_mark(r, 1, d) && md_cuda_convs_run(c, g->first_launch, d) && set_mark(r, 2, d) &&
         md_cuda_wait(c, g->first_launch, d);
}

// The first round, in which code is loaded, does not count.
static bool measure(Race *r, const md_conv_group *g, Times *t, md_diags *d) {
  double gains[ROUNDS], owns[ROUNDS], others[ROUNDS];
  for (int i = -1; i < ROUNDS; i++) {
    float ms[2] = {0, 0};
    if (!run_both(r, g, d)) return false;
    for (int k = 0; k < 2; k++) {
      int error = r->c->call.cuEventElapsedTime(&ms[k], r->mark[k], r->mark[k + 1]);
      if (!md_cuda_did(r->c, "cuEventElapsedTime", -1, error, d)) return false;
    }
    if (i < 0) continue;
    owns[i] = (double)ms[0] * 1e3;
    others[i] = (double)ms[1] * 1e3;
    gains[i] = owns[i] - others[i];
  }
  *t = (Times){md_median(owns, ROUNDS), md_median(others, ROUNDS), md_median(gains, ROUNDS)};
  return true;
}

static void win(Race *r, const md_conv_group *g) {
  r->won++;
  r->launches += g->num_launches;
}

static void give_back(md_cuda *c, const md_conv_group *g) {
  int at = g->first_launch - c->base.first_launch;
  md_cudnn_conv_destroy(c->convs.plan[at]);
  c->convs.plan[at] = NULL;
  for (int i = 0; i < g->num_launches; i++) c->convs.is_covered[at + i] = false;
}

static void note(Race *r, const md_conv_group *g, const Times *t, bool is_better) {
  const md_cuda *c = r->c;
  md_arena *a = r->found->arena;
  char key[33], name[32];
  // Another time there may be a better plan.
  if (md_cudnn_conv_is_second(c->convs.plan[g->first_launch - c->base.first_launch])) return;
  if (!key_of(c, g, key)) return;
  const char *way = md_strdup(a, md_cudnn_name(md_cudnn_version(c->convs.cudnn), name));
  md_record x = {.key = md_strdup(a, key),
                 .target = c->base.variant->target,
                 .device = c->base.gpu,
                 .region = c->base.p->launch[g->first_launch].name,
                 .own = MD_OWN_ENGINE,
                 .best = is_better ? way : MD_OWN_ENGINE,
                 .own_us = t->own,
                 .best_us = is_better ? t->cudnn : t->own,
                 .own_cold_us = -1,
                 .own_warm_us = -1,
                 .num_ways = 1};
  x.way = MD_NEW(a, md_record_way);
  *x.way = (md_record_way){.way = way, .us = t->cudnn, .cold_us = -1, .warm_us = -1};
  MD_PUSH(r->found->row, r->found->num, r->found->cap, x);
}

// A plan that fails while it is tried is no loss, unless the device is lost with it; and no record, as `tune` makes
// one: whether the launches run is not known then.
static bool race(Race *r, const md_conv_group *g, md_diags *d) {
  md_cuda *c = r->c;
  Times t = {0, 0, 0};
  char why[400];
  md_diags *tried = md_diags_create();
  bool ok = measure(r, g, &t, tried);
  md_diags_reason(tried, why, sizeof why);
  md_diags_destroy(tried);
  if (!ok)
    md_warning(d, c->base.p->path ? MD_IN_FILE(c->base.p->path) : MD_NOWHERE,
               "region '%s' stays with our kernels: %s", c->base.p->launch[g->first_launch].name,
               why);
  if (!ok && !c->base.kind->is_alive(&c->base, d)) return false;
  bool is_better = ok && t.gain > md_least_gain(t.own);
  if (ok) note(r, g, &t, is_better);
  if (is_better) win(r, g);
  else give_back(c, g);
  return true;
}

static bool settle(Race *r, int conv, md_diags *d) {
  md_cuda *c = r->c;
  const md_conv_group *g = &c->base.p->conv[conv];
  bool has_plan = c->convs.plan[g->first_launch - c->base.first_launch];
  md_cuda_faster known = c->convs.known[conv];
  if (!has_plan && known != MD_FASTER_OURS) return true;
  r->num++;
  if (known == MD_FASTER_UNKNOWN) return race(r, g, d);
  r->num_known++;
  if (known == MD_FASTER_CUDNN) win(r, g);
  return true;
}

static void keep(const Race *r) {
  char why[400];
  md_diags *said = md_diags_create();
  if (r->found->num && !md_records_keep(r->found, said)) {
    md_diags_reason(said, why, sizeof why);
    md_log(MD_LOG_CACHE, MD_LEVEL_INFO, "%s", why);
  }
  md_diags_destroy(said);
}

static void tell(const Race *r) {
  char *to = r->c->base.engine, known[40] = "";
  md_cuda_convs_tell(r->c, r->won, r->launches);
  size_t len = strlen(to), room = sizeof r->c->base.engine - len;
  if (r->num_known) snprintf(known, sizeof known, ", %d by records", r->num_known);
  snprintf(to + len, room, ", the faster ones of %d%s", r->num, known);
}

bool md_cuda_convs_choose(md_cuda *c, md_diags *d) {
  const md_program *p = c->base.p;
  bool ok = true;
  if (!c->convs.cudnn) return true;
  Race r = {.c = c, .found = md_records_create()};
  for (int i = 0; i < MARKS && ok; i++)
    ok = md_cuda_did(c, "cuEventCreate", -1, c->call.cuEventCreate(&r.mark[i], 0), d);
  for (int i = 0; i < p->num_convs && ok; i++)
    if (md_cuda_conv_is_ours(c, &p->conv[i])) ok = settle(&r, i, d);
  for (int i = 0; i < MARKS; i++)
    if (r.mark[i]) c->call.cuEventDestroy(r.mark[i]);
  ok = ok && md_cuda_convs_fit_workspace(c, d);
  tell(&r);
  keep(&r);
  md_records_destroy(r.found);
  return ok;
}
