// SPDX-License-Identifier: Apache-2.0
// modist_rt --rates: what times of a GPU are held against. The rate at which it copies its own memory, which no
// kernel bound by memory beats, and the time between two marks with nothing in between, which every time of a
// launch contains.
#include "runtime/exec/rt_report.h"

#include "runtime/exec/driver.h"

#include <stdlib.h>

enum { NON_BLOCKING = 1, COPIES = 10, MARKS = 64 };
static const int64_t most_bytes = (int64_t)512 << 20;  // far more than any cache has

typedef struct meter {
  md_driver call;
  md_gpu_device device;
  char title[160];
  int id;
  void *context, *stream, *mark[MARKS];
  md_gpu_place from, to;
  int64_t bytes;
  double copy_gb_s, mark_us;
} meter;

static bool did(const meter *m, const char *call, int error, md_diags *d) {
  static const md_program none = {.name = "rates"};
  md_driver_task t = {.p = &none, .device = m->title, .call = call};
  return !error || md_driver_failed(&m->call, &t, error, d);
}

static bool find_device(meter *m, int index, md_diags *d) {
  md_gpu_lack lack;
  if (md_driver_open(&m->call, &lack) ||
      md_driver_device(&m->call, index, &m->id, &m->device, &lack))
    return md_driver_unusable(NULL, &lack, d);
  snprintf(m->title, sizeof m->title, "cuda:%d, %s (sm_%d)", index, m->device.name, m->device.sm);
  return true;
}

// A quarter of what is free for each side.
static bool begin(meter *m, md_diags *d) {
  size_t free_bytes = 0, all = 0;
  bool ok =
      did(m, "cuDevicePrimaryCtxRetain", m->call.cuDevicePrimaryCtxRetain(&m->context, m->id), d) &&
      did(m, "cuCtxSetCurrent", m->call.cuCtxSetCurrent(m->context), d) &&
      did(m, "cuStreamCreate", m->call.cuStreamCreate(&m->stream, NON_BLOCKING), d) &&
      did(m, "cuMemGetInfo", m->call.cuMemGetInfo(&free_bytes, &all), d);
  for (int i = 0; ok && i < MARKS; i++)
    ok = did(m, "cuEventCreate", m->call.cuEventCreate(&m->mark[i], 0), d);
  m->bytes = MD_MIN((int64_t)(free_bytes / 4), most_bytes) / 256 * 256;
  size_t bytes = (size_t)MD_MAX(m->bytes, 256);
  return ok && did(m, "cuMemAlloc", m->call.cuMemAlloc(&m->from, bytes), d) &&
         did(m, "cuMemAlloc", m->call.cuMemAlloc(&m->to, bytes), d) &&
         did(m, "cuMemsetD8Async", m->call.cuMemsetD8Async(m->from, 1, bytes, m->stream), d);
}

static bool copy(meter *m, md_diags *d) {
  return did(m, "cuMemcpyDtoDAsync",
             m->call.cuMemcpyDtoDAsync(m->to, m->from, (size_t)m->bytes, m->stream), d);
}

static bool set_mark(meter *m, int i, md_diags *d) {
  return did(m, "cuEventRecord", m->call.cuEventRecord(m->mark[i], m->stream), d);
}

// The shortest time between marks i and i + 1, i + every and i + every + 1, ...; of `num` pairs.
static bool shortest(const meter *m, int num, int every, double *ms, md_diags *d) {
  *ms = 0;
  for (int i = 0; i < num; i++) {
    float x = 0;
    void *const *pair = &m->mark[(ptrdiff_t)i * every];
    int error = m->call.cuEventElapsedTime(&x, pair[0], pair[1]);
    if (!did(m, "cuEventElapsedTime", error, d)) return false;
    if (i == 0 || (double)x < *ms) *ms = (double)x;
  }
  return true;
}

static bool synchronize(const meter *m, md_diags *d) {
  return did(m, "cuStreamSynchronize", m->call.cuStreamSynchronize(m->stream), d);
}

// A copy reads and writes.
static bool measure_copies(meter *m, md_diags *d) {
  double ms;
  bool ok = copy(m, d);
  for (int i = 0; ok && i < COPIES; i++)
    ok = set_mark(m, 2 * i, d) && copy(m, d) && set_mark(m, 2 * i + 1, d);
  if (!ok || !synchronize(m, d) || !shortest(m, COPIES, 2, &ms, d)) return false;
  if (ms > 0) m->copy_gb_s = 2 * (double)m->bytes / ms / 1e6;
  return true;
}

// Behind two copies, during which the host gets ahead.
static bool measure_marks(meter *m, md_diags *d) {
  double ms;
  bool ok = true;
  for (int i = 0; ok && i < 2; i++) ok = copy(m, d);
  for (int i = 0; ok && i < MARKS; i++) ok = set_mark(m, i, d);
  if (!ok || !synchronize(m, d) || !shortest(m, MARKS - 1, 1, &ms, d)) return false;
  m->mark_us = ms * 1e3;
  return true;
}

static void end(meter *m) {
  if (!m->context) return;
  m->call.cuCtxSetCurrent(m->context);
  if (m->stream) m->call.cuStreamSynchronize(m->stream);
  for (int i = 0; i < MARKS; i++)
    if (m->mark[i]) m->call.cuEventDestroy(m->mark[i]);
  if (m->from) m->call.cuMemFree(m->from);
  if (m->to) m->call.cuMemFree(m->to);
  if (m->stream) m->call.cuStreamDestroy(m->stream);
  m->call.cuDevicePrimaryCtxRelease(m->id);
}

static void print_json(const meter *m) {
  md_json j = {.compact = false};
  md_json_begin(&j, '{');
  md_json_put_str(&j, "schema", "modist.rt/1");
  md_json_put_str(&j, "device", m->title);
  md_json_put_int(&j, "copy_bytes", m->bytes);
  md_json_put_float(&j, "copy_gb_s", m->copy_gb_s);
  md_json_put_float(&j, "mark_us", m->mark_us);
  md_json_end(&j, '}');
  puts(j.out.s);
  md_text_free(&j.out);
}

bool rt_rates(const char *device, bool json, md_diags *d) {
  int index;
  if (!md_device_parse(device ? device : "cuda:0", &index, d)) return false;
  if (index < 0) return md_error(d, E0401, MD_NOWHERE, "--rates is of a GPU: --device=cuda:N");
  meter m = {.bytes = 0};
  bool ok =
      find_device(&m, index, d) && begin(&m, d) && measure_copies(&m, d) && measure_marks(&m, d);
  end(&m);
  if (!ok) return false;
  if (json) print_json(&m);
  else printf("%s copies %.1f GB/s; between two marks %.2f us\n", m.title, m.copy_gb_s, m.mark_us);
  return true;
}
