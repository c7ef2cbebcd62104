// SPDX-License-Identifier: Apache-2.0
// Who does a convolution faster, its launches or cuDNN? Both run in turn, on what lies in memory when a program
// was just loaded, and what is gained in a round is compared: so what slows the device down does so to both. Its
// operands are then in the L2 cache for both if they fit.
#include "runtime/exec/cuda.h"
#include "runtime/exec/tune.h"

#include <string.h>

enum { ROUNDS = 7, MARKS = 3 };
static const int64_t hold_ns = 640000;

typedef struct Race {
  md_cuda *c;
  void *mark[MARKS];       // before ours, between, behind cuDNN's
  int num, won, launches;  // groups; of those that cuDNN wins
} Race;

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

// *gain: the median of what cuDNN takes less in a round, and what the launches take then, us. The first round,
// in which code is loaded, does not count.
static bool measure(Race *r, const md_conv_group *g, double *gain, double *own, md_diags *d) {
  double gains[ROUNDS], owns[ROUNDS];
  for (int i = -1; i < ROUNDS; i++) {
    float ms[2] = {0, 0};
    if (!run_both(r, g, d)) return false;
    for (int k = 0; k < 2; k++) {
      int error = r->c->call.cuEventElapsedTime(&ms[k], r->mark[k], r->mark[k + 1]);
      if (!md_cuda_did(r->c, "cuEventElapsedTime", -1, error, d)) return false;
    }
    if (i < 0) continue;
    owns[i] = (double)ms[0] * 1e3;
    gains[i] = owns[i] - (double)ms[1] * 1e3;
  }
  *gain = md_median(gains, ROUNDS);
  *own = md_median(owns, ROUNDS);
  return true;
}

static void give_back(md_cuda *c, const md_conv_group *g) {
  int at = g->first_launch - c->base.first_launch;
  md_cudnn_conv_destroy(c->convs.plan[at]);
  c->convs.plan[at] = NULL;
  for (int i = 0; i < g->num_launches; i++) c->convs.is_covered[at + i] = false;
}

// A plan that fails while it is tried is no loss, unless the device is lost with it.
static bool race(Race *r, const md_conv_group *g, md_diags *d) {
  md_cuda *c = r->c;
  double gain = 0, own = 0;
  char why[400];
  md_diags *tried = md_diags_create();
  bool ok = measure(r, g, &gain, &own, tried);
  md_diags_reason(tried, why, sizeof why);
  md_diags_destroy(tried);
  if (!ok)
    md_warning(d, c->base.p->path ? MD_IN_FILE(c->base.p->path) : MD_NOWHERE,
               "region '%s' stays with our kernels: %s", c->base.p->launch[g->first_launch].name,
               why);
  if (!ok && !c->base.kind->is_alive(&c->base, d)) return false;
  r->num++;
  if (!ok || gain <= md_least_gain(own)) {
    give_back(c, g);
    return true;
  }
  r->won++;
  r->launches += g->num_launches;
  return true;
}

bool md_cuda_convs_choose(md_cuda *c, md_diags *d) {
  const md_program *p = c->base.p;
  Race r = {.c = c};
  bool ok = true;
  if (!c->convs.cudnn) return true;
  for (int i = 0; i < MARKS && ok; i++)
    ok = md_cuda_did(c, "cuEventCreate", -1, c->call.cuEventCreate(&r.mark[i], 0), d);
  for (int i = 0; i < p->num_convs && ok; i++) {
    int at = p->conv[i].first_launch - c->base.first_launch;
    if (at >= 0 && at < c->base.num_launches && c->convs.plan[at]) ok = race(&r, &p->conv[i], d);
  }
  for (int i = 0; i < MARKS; i++)
    if (r.mark[i]) c->call.cuEventDestroy(r.mark[i]);
  md_cuda_convs_tell(c, r.won, r.launches);
  size_t len = strlen(c->base.engine);
  snprintf(c->base.engine + len, sizeof c->base.engine - len, ", the faster ones of %d", r.num);
  return ok;
}
