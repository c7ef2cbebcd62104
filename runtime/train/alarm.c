// SPDX-License-Identifier: Apache-2.0
// Collapse: all clips get the same embedding. Unit vectors of random directions in d dimensions have
// a standard deviation of 1/sqrt(d) in each of them; below a tenth of that nothing is told apart.
#include "runtime/train/train.h"

#include <math.h>

// The alarm ends above twice the level where it starts, or it would ring with every step.
static const double starts_at = 0.1, ends_at = 0.2;

void md_alarm_check(md_alarm *a, md_measure *m, md_diags *d) {
  for (int i = 0; i < MD_NUM_SIDES; i++) {
    // One clip has no spread.
    if (!m->has_side[i] || a->dim[i] < 1 || a->batch < 2) continue;
    double random = 1 / sqrt((double)a->dim[i]), level = a->is_on[i] ? ends_at : starts_at;
    bool was_on = a->is_on[i];
    // What is logged depends on the step alone, so that a resumed run logs the same.
    m->is_collapsed[i] = m->std[i] < starts_at * random;
    a->is_on[i] = m->std[i] < level * random;
    if (was_on == a->is_on[i]) continue;
    if (was_on) {
      md_warning(d, MD_NOWHERE, "step %lld: embeddings of %s are apart again (std %.4f)",
                 (long long)m->step, md_side_names[i], m->std[i]);
      continue;
    }
    md_warning(d, MD_NOWHERE,
               "step %lld: embeddings of %s have collapsed: std %.5f, random directions have %.4f",
               (long long)m->step, md_side_names[i], m->std[i], random);
    md_hint(d, "a lower opt.lr, a longer warmup or a larger bank.size may prevent it");
  }
}
