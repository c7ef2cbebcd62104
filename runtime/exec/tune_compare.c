// SPDX-License-Identifier: Apache-2.0
// Does a way make what the own one makes? Of large tensors the begin and the end are compared. What a way leaves
// undone must not be there already, so results are spoilt before it runs.
#include "runtime/exec/tune.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20 };  // bytes that are compared at the begin and at the end of a tensor

void md_tune_forget(md_tuner *t) {
  for (int i = 0; i < t->num_pieces; i++) free(t->piece[i].value);
  t->num_pieces = 0;
}

// As numbers, malloc'ed; NULL: the device has failed, or there is no memory.
static double *values_of(md_tuner *t, const md_arg *a, int64_t *num) {
  const void *at = md_exec_arg(t->e, a);
  if (!at) return NULL;
  *num = a->bytes / md_dtype_size(a->dtype);
  double *x = md_tune_rows(*num, sizeof *x);
  for (int64_t i = 0; i < *num; i++) x[i] = md_element_load(a->dtype, at, i);
  return x;
}

static bool keep_piece(md_tuner *t, md_arg a, int64_t from, int64_t bytes) {
  a.offset += from;
  a.bytes = bytes;
  md_tune_piece x = {.arg = a, .value = values_of(t, &a, &x.num)};
  if (!x.value) return false;
  for (int64_t i = 0; i < x.num; i++)
    if (isfinite(x.value[i])) x.largest = fmax(x.largest, fabs(x.value[i]));
  MD_PUSH(t->piece, t->num_pieces, t->cap_pieces, x);
  return true;
}

static bool is_output(const md_arg *a) { return a->write && a->space != MD_IN_WORKSPACE; }

// Where the last of several blocks has channels that nobody counts, elements are not told from those.
static bool is_comparable(const md_arg *a) {
  bool known = !a->block || (a->rank > 1 && (a->dim[1] % a->block == 0 || a->dim[1] < a->block));
  return is_output(a) && a->dtype != MD_NO_DTYPE && known;
}

// Of one block, too, some channels may be nobody's.
static bool counts(const md_arg *a, int64_t i) { return !a->block || i % a->block < a->dim[1]; }

static bool keep_own(md_tuner *t, md_tune_site *s) {
  md_tune_forget(t);
  s->is_compared = true;
  for (int l = s->replaced; l < s->replaced + s->num_replaced; l++) {
    const md_launch *x = &t->p->launch[l];
    for (int k = x->first_arg; k < x->first_arg + x->num_args; k++) {
      const md_arg *a = &t->p->arg[k];
      if (!is_comparable(a)) {
        s->is_compared &= !is_output(a);
        continue;
      }
      int64_t row = a->block ? a->block * md_dtype_size(a->dtype) : 1;  // pieces are whole rows
      int64_t head = MD_MIN(a->bytes, PIECE / row * row), tail = MD_MIN(a->bytes - head, head);
      if (!keep_piece(t, *a, 0, head) || (tail && !keep_piece(t, *a, a->bytes - tail, tail)))
        return false;
    }
  }
  return true;
}

// Sums in another order, then a rounding: of bf16 eight of its steps; of f32 what the roundings of up to 2^20
// terms, a random walk, add up to, eightfold. Both of the largest value.
static double tolerance_of(md_dtype t) {
  return t == MD_BF16 ? ldexp(8, -8) : t == MD_F64 ? ldexp(8, -43) : ldexp(8, -14);
}

// An engine may round to bf16 what is made of bf16, as cuDNN does gradients for weights.
static md_dtype rounded_to(const md_tuner *t, const md_tune_site *s, md_dtype type) {
  const md_conv_group *g = md_tune_conv(t, s);
  return g && (g->x.dtype == MD_BF16 || g->y.dtype == MD_BF16) ? MD_BF16 : type;
}

// How far an element is off; what is no number the own way either does not count.
static double off_by(double own, double x) {
  if (!isfinite(own)) return 0;
  return isfinite(x) ? fabs(own - x) : INFINITY;
}

// False: nothing can be read. `why` stays empty where all is well.
static bool compare(md_tuner *t, const md_tune_site *s, char *why, size_t size) {
  why[0] = '\0';
  for (int i = 0; i < t->num_pieces; i++) {
    const md_tune_piece *x = &t->piece[i];
    int64_t num;
    double *y = values_of(t, &x->arg, &num), off = 0;
    if (!y) return false;
    for (int64_t k = 0; k < num; k++)
      if (counts(&x->arg, k)) off = fmax(off, off_by(x->value[k], y[k]));
    free(y);
    if (off > tolerance_of(rounded_to(t, s, x->arg.dtype)) * x->largest)
      snprintf(why, size, "'%.60s' is off by %.3g, its largest value is %.3g",
               x->arg.name ? x->arg.name : "?", off, x->largest);
  }
  return true;
}

// Nothing that a way leaves undone is there already.
static bool spoil_results(md_tuner *t, const md_tune_site *s) {
  for (int l = s->replaced; l < s->replaced + s->num_replaced; l++) {
    const md_launch *x = &t->p->launch[l];
    for (int k = x->first_arg; k < x->first_arg + x->num_args; k++)
      if (is_output(&t->p->arg[k]) && !md_exec_spoil(t->e, &t->p->arg[k], t->said)) return false;
  }
  return true;
}

// Whoever waits knows what runs. True: a trial begins.
static bool begin(md_tuner *t, const md_tune_entry *x) {
  md_tune_site *s = &t->site[x->site];
  if (x->trial == MD_TUNE_OWN && x->launch == s->replaced) md_tune_begin(t, MD_TUNE_OWN, -1);
  if (x->trial < 0 || t->trial[x->trial].first_launch != x->launch) return false;
  md_tune_begin(t, x->trial, s->own_ns);
  return true;
}

// A way of the site has been made. False: nothing can be read.
static bool look_at(md_tuner *t, md_tune_site *s, int trial) {
  if (trial == MD_TUNE_OWN) {
    s->own_ns = md_now_ns() - t->kept->since_ns;
    return keep_own(t, s);
  }
  if (!compare(t, s, t->failed[trial], sizeof t->failed[trial])) return false;
  s->num_tried = trial - s->first + 1;
  return true;
}

bool md_tune_watch(void *ctx, md_exec *e, int launch, bool before) {
  (void)e, (void)launch;
  md_tuner *t = ctx;
  const md_tune_entry *x = &t->entry[t->at];
  if (before) return !begin(t, x) || spoil_results(t, &t->site[x->site]);
  bool has_ended = x->is_last && x->trial != MD_TUNE_NONE;
  if (has_ended && !look_at(t, &t->site[x->site], x->trial)) return false;
  if (has_ended) md_tune_begin(t, MD_TUNE_OWN, -1);
  t->at++;
  return true;
}
