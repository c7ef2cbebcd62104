// SPDX-License-Identifier: Apache-2.0
// Runs a program on a device:
//
//   start   states that the caller wrote and inputs go to the device, and the step begins
//   finish  it is done; new values have come into the states, all of them or none
//
// A step that somebody watches (taps, checks, times, a trace) is done launch by launch:
//   tap, launch, checks, tap
#include "runtime/exec/device.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct md_exec {
  const md_program *p;
  md_exec_options options;
  md_pool *pool;  // of the CPU
  md_device *dev;
  md_mirror *mirror;  // of a GPU
  md_launch_time *time;
  int64_t num_steps, resident_before;
  int num_done;  // launches of a watched step
  bool is_running;
  bool owes_times;  // of the step that runs
  md_exec_tap tap;
  void *tap_ctx;
  const int *order;  // launches of a watched step; NULL: as the program has them
  int num_order, cap_order;
  int64_t *order_ns;  // of the last step that had it
  md_trace *trace;
};

static void *zeroed(int64_t count, size_t size) { return md_calloc((size_t)count, size); }

static md_place place_of(const md_program *p) { return p->path ? MD_IN_FILE(p->path) : MD_NOWHERE; }

// --- Memory

static void *input_at(md_exec *e, int i) {
  if (!e->dev->kind->is_host) return e->dev->kind->input(e->dev, i);
  return e->dev->kind->at(e->dev, &(md_arg){.space = MD_IN_INPUT, .index = i});
}

static void *state_at(md_exec *e, int i, bool write) {
  if (!e->dev->kind->is_host) return md_mirror_state(e->mirror, i, write);
  return e->dev->kind->at(e->dev, &(md_arg){.space = MD_IN_STATE, .index = i});
}

static const void *result_at(md_exec *e, int i) {
  if (e->dev->kind->is_host) return e->dev->kind->at(e->dev, &e->p->result_at[i]);
  const void *at = e->dev->kind->result(e->dev, i);
  return at ? at : md_mirror_result(e->mirror, i);
}

void *md_exec_arg(md_exec *e, const md_arg *a) {
  return e->dev->kind->is_host ? e->dev->kind->at(e->dev, a) : md_mirror_arg(e->mirror, a);
}

// Says why there is no copy of what lies on the device. False.
static bool unread(md_exec *e, md_diags *d) {
  if (md_exec_is_alive(e, d))
    md_error(d, E0802, place_of(e->p), "no memory for a copy of what lies on %s", e->dev->name);
  return false;
}

// --- The search for NaN

static bool check_spec(md_exec *e, const char *what, const md_spec *s, const void *at,
                       md_diags *d) {
  char found[160];
  md_arg a = {.dtype = s->dtype, .rank = s->rank};
  memcpy(a.dim, s->dim, sizeof a.dim);
  if (!at) return unread(e, d);
  if (md_arg_look(&a, at, found, sizeof found) == MD_FINITE) return true;
  return md_error(d, E0710, place_of(e->p), "%s '%s' is not finite before step %" PRId64 ": %s",
                  what, s->name, e->num_steps + 1, found);
}

// What comes from outside is named before a region is blamed for it.
static bool check_sources(md_exec *e, md_diags *d) {
  const md_program *p = e->p;
  for (int i = 0; i < p->num_inputs; i++)
    if (!check_spec(e, "input", &p->input[i], input_at(e, i), d)) return false;
  for (int i = 0; i < p->num_states; i++)
    if (!check_spec(e, "state", &p->state[i], state_at(e, i, false), d)) return false;
  return true;
}

static bool overlap(const md_arg *a, const md_arg *b) {
  return a->space == b->space && a->index == b->index && a->offset < b->offset + b->bytes &&
         b->offset < a->offset + a->bytes;
}

// -inf that is nobody's mistake: the region leaves out, or read what had been left out. What it has
// written over tells nothing any more.
static bool is_left_out(md_exec *e, const md_launch *l, const md_arg *written) {
  if (written->may_be_left_out) return true;
  const md_arg *arg = &e->p->arg[l->first_arg];
  for (int i = 0; i < l->num_args; i++) {
    bool is_there = !arg[i].write && md_dtype_is_float(arg[i].dtype);
    for (int k = 0; is_there && k < l->num_args; k++)
      is_there = !arg[k].write || !overlap(&arg[i], &arg[k]);
    char found[160];
    const void *at = is_there ? md_exec_arg(e, &arg[i]) : NULL;
    if (at && md_arg_look(&arg[i], at, found, sizeof found) == MD_MINUS_INF) return true;
  }
  return false;
}

static bool check_launch(md_exec *e, int launch, md_diags *d) {
  const md_launch *l = &e->p->launch[launch];
  for (int i = l->first_arg; i < l->first_arg + l->num_args; i++) {
    const md_arg *a = &e->p->arg[i];
    char found[160];
    if (!a->write || !md_dtype_is_float(a->dtype)) continue;
    const void *at = md_exec_arg(e, a);
    if (!at) return unread(e, d);
    md_finite is = md_arg_look(a, at, found, sizeof found);
    if (is == MD_FINITE || (is == MD_MINUS_INF && is_left_out(e, l, a))) continue;
    return md_error(d, E0710, place_of(e->p),
                    "region '%s' (launch %d of %d, step %" PRId64 ") made '%s' not finite: %s",
                    l->name, launch - e->dev->first_launch + 1, e->dev->num_launches,
                    e->num_steps + 1, a->name ? a->name : "?", found);
  }
  return true;
}

// --- A step that is watched

// An order under a tap waits after each launch.
static bool is_timed(const md_exec *e) {
  return (e->options.time || e->trace) && !(e->order && e->tap);
}

static bool flush(md_exec *e, md_diags *d) {
  md_device *v = e->dev;
  if (is_timed(e)) v->kind->mark(v, 2 * e->num_done);
  if (!v->kind->flush(v, d)) return false;
  if (is_timed(e)) v->kind->mark(v, 2 * e->num_done + 1);
  e->num_done++;
  return true;
}

static bool run_launch(md_exec *e, int launch, md_diags *d) {
  md_device *v = e->dev;
  if (launch == MD_EXEC_FLUSH) return flush(e, d);
  if (e->tap && !e->tap(e->tap_ctx, e, launch, true)) return false;
  bool is_looked_at = e->options.check_nan || e->tap;
  if (is_timed(e)) v->kind->mark(v, 2 * e->num_done);
  if (!v->kind->launch(v, launch, d)) return false;
  if (is_timed(e)) v->kind->mark(v, 2 * e->num_done + 1);
  e->num_done++;
  if (is_looked_at && !v->kind->is_host) {
    md_mirror_age(e->mirror);
    if (!v->kind->wait(v, launch, d)) return false;
  }
  if (e->options.check_nan && !check_launch(e, launch, d)) return false;
  return !e->tap || e->tap(e->tap_ctx, e, launch, false);
}

static int launch_at(const md_exec *e, int i) {
  return e->order ? e->order[i] : e->dev->first_launch + i;
}

// An order has other things, too.
static bool is_launch(const md_exec *e, int i) { return i >= 0 && i < e->p->num_launches; }

static void keep_times(md_exec *e) {
  md_device *v = e->dev;
  for (int i = 0; i < e->num_done; i++) {
    int64_t start = v->kind->when(v, 2 * i), end = v->kind->when(v, 2 * i + 1), ns = end - start;
    if (start < 0 || end < 0) return;
    if (e->order) e->order_ns[i] = ns;
    if (!is_launch(e, launch_at(e, i))) continue;
    md_launch_time *t = &e->time[launch_at(e, i)];
    t->min_ns = t->calls == 0 ? ns : MD_MIN(t->min_ns, ns);
    t->total_ns += ns;
    t->calls++;
    if (e->trace)
      md_trace_span(e->trace, e->p->launch[launch_at(e, i)].name, "launch",
                    v->kind->is_host ? 0 : MD_TRACE_GPU, start, end);
  }
}

static bool run_watched(md_exec *e, md_diags *d) {
  md_device *v = e->dev;
  e->num_done = 0;
  bool ok = true;
  int num = v->num_marked = e->order ? e->num_order : v->num_launches;
  for (int i = 0; e->order && i < num; i++) e->order_ns[i] = -1;
  for (int i = 0; i < num && ok; i++) ok = run_launch(e, launch_at(e, i), d);
  ok = ok && v->kind->end(v, d);
  if (!v->kind->is_host) md_mirror_age(e->mirror);
  // A GPU still works: its times are there when the step is finished.
  e->owes_times = is_timed(e) && !v->kind->is_host && ok;
  if (is_timed(e) && !e->owes_times) keep_times(e);
  return ok;
}

// --- Making one

static int find(const md_spec *s, int num, const char *name) {
  for (int i = 0; i < num; i++)
    if (!strcmp(s[i].name, name)) return i;
  return -1;
}

// First values; on their way to a GPU they need host memory once.
static bool fill_states(md_exec *e, md_diags *d) {
  const md_program *p = e->p;
  bool is_host = e->dev->kind->is_host, ok = true;
  void **state = zeroed(p->num_states, sizeof *state);
  md_block *block = zeroed(p->num_states, sizeof *block);
  for (int i = 0; i < p->num_states && ok; i++) {
    if (!is_host) ok = md_block_create(&block[i], p->state[i].bytes);
    state[i] = is_host ? state_at(e, i, true) : block[i].at;
  }
  if (ok) md_fill_states(p, e->options.seed, e->pool, state);
  else md_error(d, E0802, place_of(p), "no memory for the first values of the states");
  for (int i = 0; i < p->num_states; i++) {
    md_arg to = {.space = MD_IN_STATE, .index = i, .bytes = p->state[i].bytes};
    ok = ok && (is_host || e->dev->kind->put(e->dev, &to, state[i], d));
    md_block_destroy(&block[i]);
  }
  free(block);
  free(state);
  return ok;
}

// A GPU has no use for threads.
static bool open_device(md_exec *e, md_diags *d) {
  e->pool = md_pool_create(e->options.threads);
  e->dev = md_device_open(e->p, &e->options, e->pool, d);
  if (!e->dev || !fill_states(e, d)) return false;
  if (e->dev->kind->is_host) return true;
  md_pool_destroy(e->pool);
  e->pool = NULL;
  e->mirror = md_mirror_create(e->dev);
  return true;
}

md_exec *md_exec_create(const md_program *p, const md_exec_options *o, md_diags *d) {
  if (!md_program_check(p, d)) return NULL;
  md_exec *e = zeroed(1, sizeof *e);
  e->p = p;
  e->resident_before = md_memory_resident();
  if (o) e->options = *o;
  e->time = zeroed(p->num_launches, sizeof *e->time);
  if (!open_device(e, d)) {
    md_exec_destroy(e);
    return NULL;
  }
  char threads[32] = "";
  if (e->pool) snprintf(threads, sizeof threads, ", %d threads", md_pool_threads(e->pool));
  md_log(MD_LOG_EXEC, MD_LEVEL_INFO, "%s for %s on %s: %d launches%s, %lld bytes in all", p->name,
         p->target, e->dev->title, e->dev->num_launches, threads, (long long)e->dev->bytes);
  return e;
}

void md_exec_destroy(md_exec *e) {
  if (!e) return;
  md_mirror_destroy(e->mirror);
  if (e->dev) e->dev->kind->close(e->dev);
  md_pool_destroy(e->pool);
  free(e->order_ns);
  free(e->time);
  free(e);
}

// --- For the caller

void *md_exec_input(md_exec *e, const char *name, const md_spec **spec) {
  int i = find(e->p->input, e->p->num_inputs, name);
  if (i >= 0 && spec) *spec = &e->p->input[i];
  return i >= 0 ? input_at(e, i) : NULL;
}

static void *state_named(md_exec *e, const char *name, const md_spec **spec, bool write) {
  MD_ASSERT(!e->is_running, "state '%s' while a step runs", name);
  int i = find(e->p->state, e->p->num_states, name);
  if (i >= 0 && spec) *spec = &e->p->state[i];
  return i >= 0 ? state_at(e, i, write) : NULL;
}

void *md_exec_state(md_exec *e, const char *name, const md_spec **spec) {
  return state_named(e, name, spec, true);
}

const void *md_exec_view_state(md_exec *e, const char *name, const md_spec **spec) {
  return state_named(e, name, spec, false);
}

const void *md_exec_result(md_exec *e, const char *name, const md_spec **spec) {
  MD_ASSERT(!e->is_running, "result '%s' while a step runs", name);
  int i = find(e->p->result, e->p->num_results, name);
  if (i >= 0 && spec) *spec = &e->p->result[i];
  return i >= 0 ? result_at(e, i) : NULL;
}

bool md_exec_is_alive(md_exec *e, md_diags *d) {
  return e->dev->kind->is_host || e->dev->kind->is_alive(e->dev, d);
}

void md_exec_set_tap(md_exec *e, md_exec_tap tap, void *ctx) {
  e->tap = tap;
  e->tap_ctx = ctx;
}

void md_exec_set_order(md_exec *e, const int *launch, int num) {
  e->order = launch;
  e->num_order = num;
  if (num <= e->cap_order) return;
  free(e->order_ns);
  e->order_ns = zeroed(num, sizeof *e->order_ns);
  e->cap_order = num;
}

const int64_t *md_exec_order_ns(const md_exec *e) { return e->order_ns; }

void md_exec_set_step(md_exec *e, const int *launch, int num) {
  MD_ASSERT(!e->dev->kind->is_host && !e->num_steps,
            "another step is for a GPU, from the first one");
  e->dev->step = launch;
  e->dev->num_step = num;
}

bool md_exec_spoil(md_exec *e, const md_arg *a, md_diags *d) {
  return e->dev->kind->spoil(e->dev, a, d);
}

void md_exec_set_trace(md_exec *e, md_trace *t) { e->trace = e->dev->trace = t; }

const md_launch_time *md_exec_times(const md_exec *e) { return e->time; }
int64_t md_exec_grown(const md_exec *e) { return md_memory_resident() - e->resident_before; }
int64_t md_exec_bytes(const md_exec *e) { return e->dev->bytes; }
const md_program *md_exec_program(const md_exec *e) { return e->p; }
const char *md_exec_device(const md_exec *e) { return e->dev->title; }
const char *md_exec_gpu(const md_exec *e) { return e->dev->gpu; }

int md_exec_launches(const md_exec *e, int *first) {
  *first = e->dev->first_launch;
  return e->dev->num_launches;
}

const char *md_exec_engine(const md_exec *e) { return *e->dev->engine ? e->dev->engine : NULL; }

bool md_exec_by_engine(const md_exec *e, int launch) {
  return e->dev->by_engine && e->dev->by_engine[launch - e->dev->first_launch];
}

void md_exec_code(const md_exec *e, md_text *to) {
  for (int i = 0; i < e->dev->num_launches && !e->dev->kind->is_host; i++)
    e->dev->kind->code(e->dev, e->dev->first_launch + i, to);
}

bool md_exec_conv_key(const md_exec *e, int conv, char key[33]) {
  return !e->dev->kind->is_host && e->dev->kind->conv_key(e->dev, conv, key);
}

const md_gpu_variant *md_exec_variant(const md_exec *e) { return e->dev->variant; }

bool md_exec_send(md_exec *e, md_diags *d) {
  return e->dev->kind->is_host || e->dev->kind->send(e->dev, d);
}

bool md_exec_start(md_exec *e, md_diags *d) {
  MD_ASSERT(!e->is_running, "a step is started while another one runs");
  md_device *v = e->dev;
  bool is_watched = e->order || e->tap || e->trace || e->options.time || e->options.check_nan;
  if (e->options.check_nan && !check_sources(e, d)) return false;
  if (!v->kind->is_host) {
    if (!md_mirror_flush(e->mirror, d) || !v->kind->begin(v, d)) return false;
    md_mirror_age(e->mirror);
  }
  if (is_watched ? !run_watched(e, d) : !v->kind->step(v, d)) return false;
  if (!v->kind->is_host && !v->kind->arrived(v, d)) return false;
  e->is_running = true;
  return true;
}

bool md_exec_is_busy(const md_exec *e) {
  return e->is_running && !e->dev->kind->is_host && e->dev->kind->is_busy(e->dev);
}

bool md_exec_finish(md_exec *e, md_diags *d) {
  MD_ASSERT(e->is_running, "no step runs that could be finished");
  e->is_running = false;
  if (!e->dev->kind->is_host && !e->dev->kind->wait(e->dev, -1, d)) return false;
  if (e->owes_times) keep_times(e);
  e->owes_times = false;
  e->num_steps++;
  return true;
}

bool md_exec_step(md_exec *e, md_diags *d) { return md_exec_start(e, d) && md_exec_finish(e, d); }
