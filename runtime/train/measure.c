// SPDX-License-Identifier: Apache-2.0
// What one step says: its results by name, where the graph has them.
#include "runtime/train/train.h"

#include <math.h>

const char *const md_term_names[MD_NUM_TERMS] = {"v", "m", "vm", "mv"};
const char *const md_side_names[MD_NUM_SIDES] = {"v", "m"};

static bool get(md_engine *e, const char *prefix, const char *name, double *to) {
  char full[32];
  snprintf(full, sizeof full, "%s%s", prefix, name);
  return md_engine_result(e, full, to, 1);
}

void md_measure_read(md_engine *e, md_measure *m) {
  get(e, "loss", "", &m->loss);
  for (int i = 0; i < MD_NUM_TERMS; i++) {
    m->has_term[i] = get(e, "loss_", md_term_names[i], &m->term[i]);
    get(e, "top1_", md_term_names[i], &m->top1[i]);
  }
  for (int i = 0; i < MD_NUM_SIDES; i++)
    m->has_side[i] = get(e, "std_", md_side_names[i], &m->std[i]);
  m->has_top1 = get(e, "top1", "", &m->supervised_top1);
}

bool md_measure_is_finite(const md_measure *m, const char **which) {
  static const char *const terms[MD_NUM_TERMS] = {"loss_v", "loss_m", "loss_vm", "loss_mv"};
  for (int i = 0; i < MD_NUM_TERMS; i++) {
    *which = terms[i];
    if (m->has_term[i] && !isfinite(m->term[i])) return false;
  }
  *which = "loss";
  return isfinite(m->loss);
}
