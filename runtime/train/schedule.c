// SPDX-License-Identifier: Apache-2.0
// Learning rate over the run (spec §6).
#include "runtime/train/train.h"

#include <math.h>

static double curve(const md_schedule *s, double epoch) {
  return s->constant ? s->base : s->base * 0.5 * (1 + cos(M_PI * epoch / s->epochs));
}

double md_lr_at(const md_schedule *s, double epoch) {
  if (epoch >= s->warmup) return curve(s, epoch);
  return s->warm0 + (curve(s, s->warmup) - s->warm0) * epoch / s->warmup;
}
