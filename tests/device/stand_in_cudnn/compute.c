// SPDX-License-Identifier: Apache-2.0
// A convolution and its gradients by plain loops, whatever the strides, with sums in double. With
// MODIST_STAND_IN_CUDNN_OFF one element of a result is wrong.
#include "tests/device/stand_in_cudnn/stand_in_cudnn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool job_is_sound(const Job *j) {
  bool ok = j->x.dim[0] == j->y.dim[0] && j->x.dim[1] == j->w.dim[1] && j->y.dim[1] == j->w.dim[0];
  for (int i = 0; i < 3; i++) {
    int64_t room = j->x.dim[2 + i] + 2 * j->pad[i] - (j->w.dim[2 + i] - 1) * j->dilation[i] - 1;
    ok &= room >= 0 && j->stride[i] > 0 && j->y.dim[2 + i] == room / j->stride[i] + 1;
  }
  return ok;
}

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

// Every product of an element of y, one of w and the one of x that both meet in; adds it to whom it is for.
static void visit(const Job *j, Place x, Place w, Place y, double *sum) {
  int64_t num_y = 1, num_w = 1, p[5], k[5], q[5];
  for (int i = 0; i < 5; i++) num_y *= j->y.dim[i], num_w *= j->w.dim[i];
  for (int64_t e = 0; e < num_y; e++) {
    unpack(&j->y, e, p);
    int64_t taps = num_w / j->w.dim[0];
    for (int64_t f = p[1] * taps; f < (p[1] + 1) * taps; f++) {
      unpack(&j->w, f, k);
      bool inside = true;
      q[0] = p[0], q[1] = k[1];
      for (int i = 2; i < 5; i++) {
        q[i] = p[i] * j->stride[i - 2] + k[i] * j->dilation[i - 2] - j->pad[i - 2];
        inside &= q[i] >= 0 && q[i] < j->x.dim[i];
      }
      if (!inside) continue;
      int64_t source = 0;
      for (int i = 0; i < 5; i++) source = source * j->x.dim[i] + q[i];
      if (j->direction == FORWARD) sum[e] += load(&x, q) * load(&w, k);
      else if (j->direction == TO_SOURCE) sum[source] += load(&y, p) * load(&w, k);
      else sum[f] += load(&y, p) * load(&x, q);
    }
  }
}

int job_run(const StandInMemory *memory, const void *job) {
  const Job *j = job;
  Place place[3] = {{.t = &j->x}, {.t = &j->w}, {.t = &j->y}};
  for (int i = 0; i < 3; i++) {
    place[i].data = memory->at(place[i].t->at, (size_t)bytes_of(place[i].t));
    if (!place[i].data || place[i].t->at % 16) return ILLEGAL_ADDRESS;
  }
  char *scratch = memory->at(j->workspace, (size_t)j->workspace_bytes);
  if (!scratch) return ILLEGAL_ADDRESS;
  memset(scratch, 0xff, (size_t)j->workspace_bytes);
  const Place *to = &place[j->direction == FORWARD ? 2 : j->direction == TO_SOURCE ? 0 : 1];
  int64_t num = 1, at[5];
  for (int i = 0; i < 5; i++) num *= to->t->dim[i];
  double *sum = calloc((size_t)num, sizeof *sum);
  MD_ASSERT(sum, "out of memory");
  visit(j, place[0], place[1], place[2], sum);
  if (*cudnn_setting("OFF", "")) sum[num / 2] += 1 + fabs(sum[num / 2]);
  for (int64_t e = 0; e < num; e++) {
    unpack(to->t, e, at);
    store(memory, to, at, sum[e]);
  }
  free(sum);
  return 0;
}
