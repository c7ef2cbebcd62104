// SPDX-License-Identifier: Apache-2.0
#include "runtime/exec/rt_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct summary {
  double mean, low, high;  // low and high of the numbers, mean of all
  int64_t num_nan;
} summary;

static summary summarise(const md_spec *s, const void *at) {
  summary y = {0, NAN, NAN, 0};  // fmin and fmax pass over NaN
  int64_t n = md_spec_elements(s);
  double sum = 0;
  for (int64_t k = 0; k < n; k++) {
    double x = md_element_load(s->dtype, at, k);
    sum += x;
    y.low = fmin(y.low, x);
    y.high = fmax(y.high, x);
    y.num_nan += isnan(x) != 0;
  }
  y.mean = sum / (double)n;
  return y;
}

static void print_result(const md_spec *s, const void *at) {
  char type[MD_SPEC_CHARS], digest[33];
  printf("%s %s", s->name, md_spec_text(s, type));
  int64_t n = md_spec_elements(s);
  if (n == 1) {
    printf(" = %.9g", md_element_load(s->dtype, at, 0));
  } else {
    summary y = summarise(s, at);
    printf(" mean %.6g min %.6g max %.6g", y.mean, y.low, y.high);
    if (y.num_nan) printf(" (%" PRId64 " of %" PRId64 " are NaN)", y.num_nan, n);
  }
  printf(" xxh3 %s\n", md_digest_text(md_digest_of(at, (size_t)s->bytes), digest));
}

static void print_memory(const md_exec *e) {
  char plan[MD_FLOAT_CHARS], grown[MD_FLOAT_CHARS];
  printf("memory %s planned on %s, %s more resident than before\n",
         md_bytes_text((double)md_exec_bytes(e), plan), md_exec_device(e),
         md_bytes_text((double)md_exec_grown(e), grown));
}

static void put_result(md_json *j, const md_spec *s, const void *at) {
  char type[MD_SPEC_CHARS], digest[33];
  md_json_key(j, s->name);
  md_json_begin(j, '{');
  md_json_put_str(j, "type", md_spec_text(s, type));
  if (md_spec_elements(s) == 1) {
    md_json_put_float(j, "value", md_element_load(s->dtype, at, 0));
  } else {
    summary y = summarise(s, at);
    md_json_put_float(j, "mean", y.mean);
    md_json_put_float(j, "min", y.low);
    md_json_put_float(j, "max", y.high);
    md_json_put_int(j, "nan", y.num_nan);
  }
  md_json_put_str(j, "xxh3", md_digest_text(md_digest_of(at, (size_t)s->bytes), digest));
  md_json_end(j, '}');
}

static void put_device(md_json *j, md_exec *e) {
  const char *device = md_exec_device(e);
  md_gpu_device g;
  md_gpu_lack lack;
  md_json_put_str(j, "device", device);
  if (strncmp(device, "cuda:", 5) || !md_gpu_find((int)strtol(device + 5, NULL, 10), &g, &lack))
    return;
  md_json_key(j, "gpu");
  md_json_begin(j, '{');
  md_json_put_str(j, "name", g.name);
  md_json_put_int(j, "sm", g.sm);
  md_json_put_int(j, "memory_bytes", g.bytes);
  md_json_put_int(j, "driver_cuda", g.driver);  // 13000 is CUDA 13.0
  md_json_put_str(j, "code", md_exec_variant(e)->target);
  md_json_end(j, '}');
}

static int compare_ns(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

rt_steps rt_summarise(int64_t *ns, int64_t n) {
  qsort(ns, (size_t)n, sizeof *ns, compare_ns);
  return (rt_steps){n, ns[n / 2], ns[0], ns[n - 1], -1};
}

// Says why there is no copy of a result or state in the host's memory. False.
bool rt_unread(md_exec *e, const char *name, md_diags *d) {
  return md_exec_is_alive(e, d) &&
         md_error(d, E0802, MD_NOWHERE, "no memory for a copy of '%s'", name);
}

bool rt_print(md_exec *e, rt_steps s, bool times, md_diags *d) {
  const md_program *p = md_exec_program(e);
  for (int i = 0; i < p->num_results; i++) {
    const void *at = md_exec_result(e, p->result[i].name, NULL);
    if (!at) return rt_unread(e, p->result[i].name, d);
    print_result(&p->result[i], at);
  }
  printf("%" PRId64 " steps: median %.3f ms, min %.3f, max %.3f\n", s.num,
         (double)s.median_ns / 1e6, (double)s.min_ns / 1e6, (double)s.max_ns / 1e6);
  if (s.taken >= 0) printf("tuned: %d products are made in a better way\n", s.taken);
  print_memory(e);
  if (md_exec_engine(e)) printf("engine %s\n", md_exec_engine(e));
  if (times) rt_print_times(e);
  return true;
}

bool rt_print_json(md_exec *e, rt_steps s, bool times, md_diags *d) {
  const md_program *p = md_exec_program(e);
  md_json j = {.compact = false};
  md_json_begin(&j, '{');
  md_json_put_str(&j, "schema", "modist.rt/1");
  md_json_put_str(&j, "modist", MODIST_VERSION);
  md_json_put_str(&j, "program", p->name);
  put_device(&j, e);
  if (md_exec_engine(e)) md_json_put_str(&j, "engine", md_exec_engine(e));
  if (s.taken >= 0) md_json_put_int(&j, "tuned", s.taken);
  md_json_put_int(&j, "steps", s.num);
  md_json_put_float(&j, "median_ms", (double)s.median_ns / 1e6);
  md_json_put_float(&j, "min_ms", (double)s.min_ns / 1e6);
  md_json_put_float(&j, "max_ms", (double)s.max_ns / 1e6);
  md_json_put_int(&j, "planned_bytes", md_exec_bytes(e));
  md_json_put_int(&j, "resident_bytes", md_exec_grown(e));
  md_json_key(&j, "results");
  md_json_begin(&j, '{');
  bool ok = true;
  for (int i = 0; i < p->num_results && ok; i++) {
    const void *at = md_exec_result(e, p->result[i].name, NULL);
    if (at) put_result(&j, &p->result[i], at);
    else ok = rt_unread(e, p->result[i].name, d);
  }
  md_json_end(&j, '}');
  if (ok && times) rt_put_times(&j, e);
  md_json_end(&j, '}');
  if (ok) puts(j.out.s);
  md_text_free(&j.out);
  return ok;
}
