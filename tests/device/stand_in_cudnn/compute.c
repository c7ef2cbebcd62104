// SPDX-License-Identifier: Apache-2.0
// The operations of a plan by plain loops, whatever the strides, with sums in double: convolutions and their
// gradients, arithmetic, sums by channel. What lies nowhere is rounded to its type all the same. With
// MODIST_STAND_IN_CUDNN_OFF one element of a convolution is wrong; with SLOW=MS all takes so much longer.
#include "tests/device/stand_in_cudnn/stand_in_cudnn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t elements_of(const Tensor *t) {
  int64_t num = 1;
  for (int i = 0; i < 5; i++) num *= t->dim[i];
  return num;
}

static bool conv_is_sound(const Op *o, const Tensor *x, const Tensor *w, const Tensor *y) {
  bool ok = x->dim[0] == y->dim[0] && x->dim[1] == w->dim[1] && y->dim[1] == w->dim[0];
  for (int i = 0; i < 3; i++) {
    int64_t room = x->dim[2 + i] + 2 * o->pad[i] - (w->dim[2 + i] - 1) * o->dilation[i] - 1;
    ok &= room >= 0 && o->stride[i] > 0 && y->dim[2 + i] == room / o->stride[i] + 1;
  }
  return ok && x->is_bf16 == w->is_bf16;
}

bool op_is_sound(const Job *j, const Op *o) {
  const Tensor *x = &j->tensor[o->x], *y = &j->tensor[o->y],
               *b = o->b < 0 ? NULL : &j->tensor[o->b];
  if (o->kind == OP_CONV) return conv_is_sound(o, x, b, y);
  if (o->kind == OP_SUMS) return elements_of(y) == x->dim[1] && elements_of(b) == x->dim[1];
  bool ok = !memcmp(x->dim, y->dim, sizeof x->dim);
  for (int i = 0; b && i < 5; i++) ok &= b->dim[i] == x->dim[i] || b->dim[i] == 1;
  return ok;
}

// --- elements

typedef struct Place {
  const Tensor *t;
  char *data;
} Place;

static int64_t bytes_of(const Tensor *t) {
  int64_t last = 0;
  for (int i = 0; i < 5; i++) last += (t->dim[i] - 1) * t->stride[i];
  return (last + 1) * (t->is_bf16 ? 2 : 4);
}

static int64_t offset(const Tensor *t, const int64_t at[5]) {
  int64_t o = 0;
  for (int i = 0; i < 5; i++) o += at[i] * t->stride[i];
  return o;
}

static double load(const Place *p, const int64_t at[5]) {
  float f;
  uint16_t h;
  char *from = p->data + offset(p->t, at) * (p->t->is_bf16 ? 2 : 4);
  if (p->t->is_bf16) memcpy(&h, from, sizeof h);
  else memcpy(&f, from, sizeof f);
  return p->t->is_bf16 ? md_bf16_to_float(h) : f;
}

static void store(const StandInMemory *memory, const Place *p, const int64_t at[5], double x) {
  float f = (float)x;
  uint16_t h = md_bf16_from_float(f);
  size_t bytes = p->t->is_bf16 ? sizeof h : sizeof f;
  char *to = p->data + offset(p->t, at) * (int64_t)bytes;
  memcpy(to, p->t->is_bf16 ? (void *)&h : (void *)&f, bytes);
  memory->written(to, bytes);
}

// Row-major place number e of a tensor's elements.
static void unpack(const Tensor *t, int64_t e, int64_t at[5]) {
  for (int i = 4; i >= 0; i--) {
    at[i] = e % t->dim[i];
    e /= t->dim[i];
  }
}

// Row-major; dimensions of 1 stand for any index.
static int64_t pack(const Tensor *t, const int64_t at[5]) {
  int64_t e = 0;
  for (int i = 0; i < 5; i++) e = e * t->dim[i] + (t->dim[i] == 1 ? 0 : at[i]);
  return e;
}

static double rounded(const Tensor *t, double x) {
  float f = (float)x;
  return t->is_bf16 ? md_bf16_to_float(md_bf16_from_float(f)) : f;
}

// --- operations, on values in row-major order

// Every product of an element of y, one of w and the one of x that both meet in; adds it to whom it is for.
static void convolve(const Job *j, const Op *o, double *const *value) {
  const Tensor *tx = &j->tensor[o->x], *tw = &j->tensor[o->b], *ty = &j->tensor[o->y];
  double *x = value[o->x], *w = value[o->b], *y = value[o->y];
  int64_t num_y = elements_of(ty), taps = elements_of(tw) / tw->dim[0], p[5], k[5], q[5];
  for (int64_t e = 0; e < num_y; e++) {
    unpack(ty, e, p);
    for (int64_t f = p[1] * taps; f < (p[1] + 1) * taps; f++) {
      unpack(tw, f, k);
      bool inside = true;
      q[0] = p[0], q[1] = k[1];
      for (int i = 2; i < 5; i++) {
        q[i] = p[i] * o->stride[i - 2] + k[i] * o->dilation[i - 2] - o->pad[i - 2];
        inside &= q[i] >= 0 && q[i] < tx->dim[i];
      }
      if (!inside) continue;
      int64_t source = pack(tx, q);
      if (o->mode == FORWARD) y[e] += x[source] * w[f];
      else if (o->mode == TO_SOURCE) x[source] += y[e] * w[f];
      else w[f] += y[e] * x[source];
    }
  }
  double *to = o->mode == FORWARD ? y : o->mode == TO_SOURCE ? x : w;
  int64_t num = elements_of(o->mode == FORWARD ? ty : o->mode == TO_SOURCE ? tx : tw);
  if (*cudnn_setting("OFF", "")) to[num / 2] += 1 + fabs(to[num / 2]);
}

static double apply(int mode, double x, double b) {
  switch (mode) {
  case 0: return x + b;
  case 1: return x * b;
  case 9: return x - b;
  case 17: return 1 / sqrt(x);
  case 21: return x;
  case 100: return x > 0 || isnan(x) ? x : 0;
  default: MD_ASSERT(false, "mode %d", mode); return 0;
  }
}

static void compute(const Job *j, const Op *o, double *const *value) {
  const Tensor *x = &j->tensor[o->x];
  int64_t at[5];
  for (int64_t e = 0; e < elements_of(x); e++) {
    unpack(x, e, at);
    double b = o->b < 0 ? 0 : value[o->b][pack(&j->tensor[o->b], at)];
    value[o->y][e] = apply(o->mode, value[o->x][e], b);
  }
}

static void add_up(const Job *j, const Op *o, double *const *value) {
  const Tensor *x = &j->tensor[o->x];
  int64_t at[5];
  for (int64_t e = 0; e < elements_of(x); e++) {
    unpack(x, e, at);
    value[o->y][at[1]] += value[o->x][e];
    value[o->b][at[1]] += value[o->x][e] * value[o->x][e];
  }
}

// --- all of it

static bool makes(const Op *o, int tensor) {
  if (o->kind == OP_SUMS) return tensor == o->y || tensor == o->b;
  if (o->kind == OP_POINTWISE || o->mode == FORWARD) return tensor == o->y;
  return tensor == (o->mode == TO_SOURCE ? o->x : o->b);
}

static bool is_made(const Job *j, int tensor) {
  for (int i = 0; i < j->num_ops; i++)
    if (makes(&j->op[i], tensor)) return true;
  return false;
}

static void read(const Place *p, double *to) {
  int64_t at[5];
  for (int64_t e = 0; e < elements_of(p->t); e++) {
    unpack(p->t, e, at);
    to[e] = load(p, at);
  }
}

static void write(const StandInMemory *memory, const Place *p, const double *from) {
  int64_t at[5];
  for (int64_t e = 0; e < elements_of(p->t); e++) {
    unpack(p->t, e, at);
    store(memory, p, at, from[e]);
  }
}

static void run_op(const Job *j, const Op *o, double *const *value) {
  if (o->kind == OP_CONV) convolve(j, o, value);
  else if (o->kind == OP_SUMS) add_up(j, o, value);
  else compute(j, o, value);
  for (int i = 0; i < j->num_tensors; i++)
    for (int64_t e = 0; makes(o, i) && e < elements_of(&j->tensor[i]); e++)
      value[i][e] = rounded(&j->tensor[i], value[i][e]);
}

static void take_time(void) {
  int ms = atoi(cudnn_setting("SLOW", "0"));
  if (ms) nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL);
}

int job_run(const StandInMemory *memory, const void *job) {
  const Job *j = job;
  take_time();
  Place place[MAX_TENSORS];
  for (int i = 0; i < j->num_tensors; i++) {
    const Tensor *t = &j->tensor[i];
    place[i] = (Place){.t = t};
    if (t->is_nowhere || t->is_by_value) continue;
    place[i].data = memory->at(t->at, (size_t)bytes_of(t));
    if (!place[i].data || t->at % 16) return ILLEGAL_ADDRESS;
  }
  char *scratch = memory->at(j->workspace, (size_t)j->workspace_bytes);
  if (!scratch) return ILLEGAL_ADDRESS;
  memset(scratch, 0xff, (size_t)j->workspace_bytes);
  double *value[MAX_TENSORS];
  for (int i = 0; i < j->num_tensors; i++) {
    const Tensor *t = &j->tensor[i];
    value[i] = md_calloc((size_t)elements_of(t), sizeof *value[i]);
    if (t->is_by_value) value[i][0] = t->value;
    else if (!is_made(j, i)) read(&place[i], value[i]);
  }
  for (int i = 0; i < j->num_ops; i++) run_op(j, &j->op[i], value);
  for (int i = 0; i < j->num_tensors; i++) {
    if (is_made(j, i) && !j->tensor[i].is_nowhere) write(memory, &place[i], value[i]);
    free(value[i]);
  }
  return 0;
}
