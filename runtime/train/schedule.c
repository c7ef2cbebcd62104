// SPDX-License-Identifier: Apache-2.0
// Learning rate over the run (spec §6).
#include "runtime/train/train.h"

#include <math.h>

static double cosine(double base, double epoch, double epochs) {
  return base * 0.5 * (1 + cos(M_PI * epoch / epochs));
}

double md_lr_at(double base, double epoch, double epochs, double warmup, double warm0) {
  if (epoch >= warmup) return cosine(base, epoch, epochs);
  return warm0 + (cosine(base, warmup, epochs) - warm0) * epoch / warmup;
}
