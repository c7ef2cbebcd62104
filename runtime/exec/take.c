// SPDX-License-Identifier: Apache-2.0
// A step with the best ways that records know, of a program that brings them along as trials.
#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>

// The trial to make the launches from `launch` on, or NULL: their own way.
static const md_gpu_trial *best_at(const md_program *p, const md_gpu_variant *v,
                                   const md_records *known, const char *device, int launch) {
  for (int i = v->first_trial; i < v->first_trial + v->num_trials; i++) {
    const md_gpu_trial *x = &p->trial[i];
    if (x->replaced != launch) continue;
    const md_record *r = md_records_find(known, v->target, x->key, device);
    if (r && !strcmp(r->own, x->own) && !strcmp(r->best, x->way)) return x;
  }
  return NULL;
}

int *md_take_best(const md_program *p, const md_gpu_variant *v, const md_records *known,
                  const char *device, int *num, int *taken) {
  int *launch = md_calloc((size_t)(v->num_launches + v->num_tried) + 1, sizeof *launch);
  *num = *taken = 0;
  for (int i = v->first_launch; i < v->first_launch + v->num_launches;) {
    const md_gpu_trial *x = best_at(p, v, known, device, i);
    for (int k = 0; k < (x ? x->num_launches : 1); k++)
      launch[(*num)++] = x ? x->first_launch + k : i;
    *taken += x != NULL;
    i += x ? x->num_replaced : 1;
  }
  return launch;
}
