// SPDX-License-Identifier: Apache-2.0
// What ran when, for chrome://tracing and ui.perfetto.dev. Room for all spans is reserved at the
// start (the system gives memory only as it is touched), so that adding one is a counter and a
// store; what comes after the last place is counted.
#include "runtime/exec/exec.h"

#include "base/file.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct span {
  const char *name, *kind;
  int64_t start_ns, end_ns;
  int thread;
} span;

struct md_trace {
  span *spans;
  atomic_llong num;  // of spans wanted; may exceed MD_TRACE_SPANS
  int64_t start_ns;
};

// Viewers take no negative numbers.
static int track_of(int thread) { return thread < 0 ? 10000 - thread : thread; }

static void put_thread(md_json *j, int thread) {
  char name[32];
  if (thread > 0) snprintf(name, sizeof name, "worker %d", thread);
  else
    snprintf(name, sizeof name, "%s",
             !thread                  ? "main"
             : thread == MD_TRACE_GPU ? "GPU"
                                      : "inputs on their way");
  md_json_begin(j, '{');
  md_json_key(j, "name");
  md_json_str(j, "thread_name");
  md_json_key(j, "ph");
  md_json_str(j, "M");
  md_json_key(j, "pid");
  md_json_int(j, 1);
  md_json_key(j, "tid");
  md_json_int(j, track_of(thread));
  md_json_key(j, "args");
  md_json_begin(j, '{');
  md_json_key(j, "name");
  md_json_str(j, name);
  md_json_end(j, '}');
  md_json_end(j, '}');
}

static void put_span(md_json *j, const md_trace *t, const span *s) {
  md_json_begin(j, '{');
  md_json_key(j, "name");
  md_json_str(j, s->name);
  md_json_key(j, "cat");
  md_json_str(j, s->kind);
  md_json_key(j, "ph");
  md_json_str(j, "X");
  md_json_key(j, "ts");
  md_json_float(j, (double)(s->start_ns - t->start_ns) / 1000);  // microseconds
  md_json_key(j, "dur");
  md_json_float(j, (double)(s->end_ns - s->start_ns) / 1000);
  md_json_key(j, "pid");
  md_json_int(j, 1);
  md_json_key(j, "tid");
  md_json_int(j, track_of(s->thread));
  md_json_end(j, '}');
}

md_trace *md_trace_create(void) {
  md_trace *t = md_calloc(1, sizeof *t);
  t->spans = md_calloc(MD_TRACE_SPANS, sizeof *t->spans);
  t->start_ns = md_now_ns();
  return t;
}

void md_trace_destroy(md_trace *t) {
  if (!t) return;
  free(t->spans);
  free(t);
}

void md_trace_span(md_trace *t, const char *name, const char *kind, int thread, int64_t start_ns,
                   int64_t end_ns) {
  long long i = atomic_fetch_add(&t->num, 1);
  if (i < MD_TRACE_SPANS) t->spans[i] = (span){name, kind, start_ns, end_ns, thread};
}

double md_trace_busy(const md_trace *t) {
  int64_t num = MD_MIN(atomic_load(&t->num), MD_TRACE_SPANS);
  int64_t first = INT64_MAX, last = 0, busy = 0;
  int threads = 0;
  for (int64_t i = 0; i < num; i++) {
    const span *s = &t->spans[i];
    if (strcmp(s->kind, "launch") == 0) {
      first = MD_MIN(first, s->start_ns);
      last = MD_MAX(last, s->end_ns);
    } else if (strcmp(s->kind, "share") == 0) {
      threads = MD_MAX(threads, s->thread + 1);
      busy += s->end_ns - s->start_ns;
    }
  }
  return threads && last > first ? (double)busy / (double)(last - first) / threads : 0;
}

bool md_trace_save(const md_trace *t, const char *path, md_diags *d) {
  int64_t wanted = atomic_load(&t->num), num = MD_MIN(wanted, MD_TRACE_SPANS);
  int first_thread = 0, last_thread = 0;
  for (int64_t i = 0; i < num; i++) {
    first_thread = MD_MIN(first_thread, t->spans[i].thread);
    last_thread = MD_MAX(last_thread, t->spans[i].thread);
  }
  md_json j = {.compact = true};
  md_json_begin(&j, '{');
  md_json_key(&j, "displayTimeUnit");
  md_json_str(&j, "ms");
  md_json_key(&j, "otherData");
  md_json_begin(&j, '{');
  md_json_key(&j, "producer");
  md_json_str(&j, "modist " MODIST_VERSION);
  md_json_key(&j, "dropped_spans");
  md_json_int(&j, wanted - num);
  md_json_end(&j, '}');
  md_json_key(&j, "traceEvents");
  md_json_begin(&j, '[');
  for (int i = first_thread; i <= last_thread; i++) put_thread(&j, i);
  for (int64_t i = 0; i < num; i++) put_span(&j, t, &t->spans[i]);
  md_json_end(&j, ']');
  md_json_end(&j, '}');
  bool ok = md_file_save(path, j.out.s, j.out.len, d);
  md_text_free(&j.out);
  return ok;
}
