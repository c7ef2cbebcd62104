// SPDX-License-Identifier: Apache-2.0
// A GPU as a device. Work goes to one stream in order; inputs come by a second one:
//
//   sender   [wait: taken] send inputs to their arrival [sent]
//   stream   [wait: sent] take them from there [taken]   launches, copies into states, small results
//
// The first step is issued call by call, which makes the driver load all code; the second is captured as
// one CUDA graph, and from then on a step is one call, unless cuDNN cannot be captured. Once an error has ended
// the context, every later question is answered by that error.
#include "runtime/exec/cuda.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  NON_BLOCKING = 1,  // CU_STREAM_NON_BLOCKING
  SLEEPS = 1,    // CU_EVENT_BLOCKING_SYNC: who waits for it sleeps, where others keep a core busy
  NO_TIMES = 2,  // CU_EVENT_DISABLE_TIMING
  THREAD_LOCAL = 1,  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
  L2_BYTES = 38,     // CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE
};

// --- errors

static const char *region_of(const md_cuda *c, int launch) {
  const md_program *p = c->base.p;
  if (launch >= p->num_launches) launch = p->conv[launch - p->num_launches].first_launch;
  return launch < 0 ? NULL : p->launch[launch].name;
}

static bool did(md_cuda *c, const md_driver_task *t, int error, md_diags *d) {
  if (!error) return true;
  // Without a place for the message it is told by cuda_is_alive.
  if ((md_driver_is_fatal(error) || !d) && !c->fatal) {
    c->fatal = error;
    snprintf(c->fatal_call, sizeof c->fatal_call, "%s", t->call);
  }
  return md_driver_failed(&c->call, t, error, d);
}

bool md_cuda_did(md_cuda *c, const char *call, int launch, int error, md_diags *d) {
  md_driver_task t = {.p = c->base.p, .device = c->base.title, .call = call};
  t.region = region_of(c, launch);
  return did(c, &t, error, d);
}

bool md_cuda_did_compile(md_cuda *c, const char *call, int error, md_diags *d) {
  md_driver_task t = {.p = c->base.p, .device = c->base.title, .call = call, .log = c->code.log};
  return did(c, &t, error, d);
}

static bool cuda_is_alive(md_device *v, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  if (!c->fatal) return true;
  char words[MD_DRIVER_WORDS];
  md_error(d, E0648, MD_NOWHERE, "nothing can be read from %s any more: %s failed with %d, %s",
           v->title, c->fatal_call, c->fatal, md_driver_words(&c->call, c->fatal, words));
  md_hint(d, "start again from the last checkpoint");
  return false;
}

// The context belongs to a thread, and an executor may be handed to another one.
static bool enter(md_cuda *c, md_diags *d) {
  return cuda_is_alive(&c->base, d) &&
         md_cuda_did(c, "cuCtxSetCurrent", -1, c->call.cuCtxSetCurrent(c->context), d);
}

// --- memory

static void *cuda_input(md_device *v, int input) {
  const md_cuda_layout *m = &((md_cuda *)v)->memory;
  return m->inputs_host + m->input[input];
}

static const void *cuda_result(md_device *v, int i) {
  const md_cuda *c = (md_cuda *)v;
  int64_t at = c->memory.result_host[i];
  return at < 0 || c->fatal || !c->has_results ? NULL : c->memory.results_host + at;
}

// By an event of our own: the primary context's flags, which would do the same, are everybody's.
bool md_cuda_wait(md_cuda *c, int launch, md_diags *d) {
  return md_cuda_did(c, "cuEventRecord", launch, c->call.cuEventRecord(c->done, c->stream), d) &&
         md_cuda_did(c, "cuEventSynchronize", launch, c->call.cuEventSynchronize(c->done), d);
}

static bool cuda_put(md_device *v, const md_arg *to, const void *from, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  if (!enter(c, d)) return false;
  int error = c->call.cuMemcpyHtoDAsync(md_cuda_place(c, to), from, (size_t)to->bytes, c->stream);
  return md_cuda_did(c, "cuMemcpyHtoDAsync", -1, error, d) && md_cuda_wait(c, -1, d);
}

static bool fetch(md_cuda *c, const md_arg *from, void *to, md_diags *d) {
  int error = c->call.cuMemcpyDtoHAsync(to, md_cuda_place(c, from), (size_t)from->bytes, c->stream);
  return md_cuda_did(c, "cuMemcpyDtoHAsync", -1, error, d);
}

static bool cuda_get(md_device *v, const md_arg *from, void *to, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  return enter(c, d) && fetch(c, from, to, d) && md_cuda_wait(c, -1, d);
}

static bool cuda_spoil(md_device *v, const md_arg *a, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  if (!enter(c, d)) return false;
  int error = c->call.cuMemsetD8Async(md_cuda_place(c, a), 0xFF, (size_t)a->bytes, c->stream);
  return md_cuda_did(c, "cuMemsetD8Async", -1, error, d);
}

// Twice what the cache holds: which lines a part of it replaces first, nobody tells.
static bool make_flood(md_cuda *c, md_diags *d) {
  int bytes = 0, error = c->call.cuDeviceGetAttribute(&bytes, L2_BYTES, c->id);
  if (!md_cuda_did(c, "cuDeviceGetAttribute", -1, error, d)) return false;
  c->flood_bytes = 2 * (size_t)MD_MAX(bytes, 1 << 20);
  return md_cuda_did(c, "cuMemAlloc", -1, c->call.cuMemAlloc(&c->flood, c->flood_bytes), d);
}

static bool cuda_flush(md_device *v, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  if (!enter(c, d) || (!c->flood && !make_flood(c, d))) return false;
  int error = c->call.cuMemsetD8Async(c->flood, 0, c->flood_bytes, c->stream);
  return md_cuda_did(c, "cuMemsetD8Async", -1, error, d);
}

// --- a step

// The sender has nothing else to do, so what is sent goes out now, or as soon as there is room.
static void mark_send(md_cuda *c, void **event) {
  if (!c->base.trace) return;
  if (!*event) c->call.cuEventCreate(event, SLEEPS);
  if (*event) c->call.cuEventRecord(*event, c->sender);
  if (event == &c->sends) c->send_ns = md_now_ns();
}

static void trace_send(md_cuda *c) {
  float ms;
  if (c->send_ns && c->base.trace && c->sends && c->has_sent &&
      c->call.cuEventElapsedTime(&ms, c->sends, c->has_sent) == 0)
    md_trace_span(c->base.trace, "inputs", "send", MD_TRACE_SENDER, c->send_ns,
                  c->send_ns + (int64_t)((double)ms * 1e6));
  c->send_ns = 0;
}

static bool send(md_cuda *c, md_diags *d) {
  const md_cuda_layout *m = &c->memory;
  int error = c->call.cuStreamWaitEvent(c->sender, c->taken, 0);
  if (!md_cuda_did(c, "cuStreamWaitEvent", -1, error, d)) return false;
  mark_send(c, &c->sends);
  error = c->call.cuMemcpyHtoDAsync(m->at + (md_gpu_place)m->arrival, m->inputs_host,
                                    (size_t)m->inputs_bytes, c->sender);
  if (!md_cuda_did(c, "cuMemcpyHtoDAsync", -1, error, d)) return false;
  mark_send(c, &c->has_sent);
  return md_cuda_did(c, "cuEventRecord", -1, c->call.cuEventRecord(c->sent, c->sender), d);
}

static bool cuda_send(md_device *v, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  const md_cuda_layout *m = &c->memory;
  if (c->is_sent) return true;
  if (!enter(c, d)) return false;
  if (!m->inputs_bytes) return c->is_sent = true;
  return c->is_sent = send(c, d);
}

static bool cuda_begin(md_device *v, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  const md_cuda_layout *m = &c->memory;
  if (!cuda_send(v, d) || !enter(c, d)) return false;
  c->is_sent = c->has_results = false;
  if (!m->inputs_bytes) return true;
  return md_cuda_did(c, "cuStreamWaitEvent", -1, c->call.cuStreamWaitEvent(c->stream, c->sent, 0),
                     d) &&
         md_cuda_did(c, "cuMemcpyDtoDAsync", -1,
                     c->call.cuMemcpyDtoDAsync(m->at + (md_gpu_place)m->inputs,
                                               m->at + (md_gpu_place)m->arrival,
                                               (size_t)m->inputs_bytes, c->stream),
                     d) &&
         md_cuda_did(c, "cuEventRecord", -1, c->call.cuEventRecord(c->taken, c->stream), d);
}

static bool cuda_launch(md_device *v, int launch, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  const md_program *p = v->p;
  if (launch >= p->num_launches)
    return md_cuda_convs_run(c, p->conv[launch - p->num_launches].first_launch, d);
  if (v->by_engine && v->by_engine[launch - v->first_launch])
    return md_cuda_convs_run(c, launch, d);
  const md_launch *l = &p->launch[launch];
  const md_phase *f = &p->phase[l->first_phase];
  int error = c->call.cuLaunchKernel(c->code.function[launch - v->first_launch], (unsigned)f->items,
                                     1, 1, (unsigned)f->threads, 1, 1, (unsigned)f->shared_bytes,
                                     c->stream, c->parameter + l->first_arg + l->first_count, NULL);
  return md_cuda_did(c, "cuLaunchKernel", launch, error, d);
}

static bool cuda_end(md_device *v, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  const md_program *p = v->p;
  for (int i = 0; i < p->num_copies; i++) {
    const md_copy *k = &p->copy[i];
    md_arg to = {.space = MD_IN_STATE, .index = k->state};
    int error = c->call.cuMemcpyDtoDAsync(md_cuda_place(c, &to), md_cuda_place(c, &k->src),
                                          (size_t)k->src.bytes, c->stream);
    if (!md_cuda_did(c, "cuMemcpyDtoDAsync", -1, error, d)) return false;
  }
  for (int i = 0; i < p->num_results; i++) {
    int64_t at = c->memory.result_host[i];
    if (at >= 0 && !fetch(c, &p->result_at[i], c->memory.results_host + at, d)) return false;
  }
  return c->has_results = true;
}

static bool issue(md_cuda *c, md_diags *d) {
  md_device *v = &c->base;
  for (int i = 0; i < (v->step ? v->num_step : v->num_launches); i++)
    if (!cuda_launch(v, v->step ? v->step[i] : v->first_launch + i, d)) return false;
  return cuda_end(v, d);
}

// A capture that was begun is ended in any case; what it gives is of no use after an error.
static bool capture(md_cuda *c, md_diags *d) {
  void *graph = NULL;
  int error = c->call.cuStreamBeginCapture(c->stream, THREAD_LOCAL);
  if (!md_cuda_did(c, "cuStreamBeginCapture", -1, error, d)) return false;
  bool ok = issue(c, d);
  error = c->call.cuStreamEndCapture(c->stream, &graph);
  ok = ok && md_cuda_did(c, "cuStreamEndCapture", -1, error, d);
  if (ok)
    ok = md_cuda_did(c, "cuGraphInstantiate", -1,
                     c->call.cuGraphInstantiateWithFlags(&c->graph, graph, 0), d);
  if (graph) error = c->call.cuGraphDestroy(graph);
  return ok && md_cuda_did(c, "cuGraphDestroy", -1, error, d) &&
         md_cuda_did(c, "cuGraphUpload", -1, c->call.cuGraphUpload(c->graph, c->stream), d);
}

// An engine of cuDNN may do what no capture takes. Then steps are issued as the first one was; what else is
// wrong shows there again.
static bool try_capture(md_cuda *c, md_diags *d) {
  char why[400];
  md_diags *refused = md_diags_create();
  c->is_issued = !capture(c, refused) && !c->fatal;
  md_diags_reason(refused, why, sizeof why);
  md_diags_destroy(refused);
  if (c->is_issued) {
    md_warning(d, c->base.p->path ? MD_IN_FILE(c->base.p->path) : MD_NOWHERE,
               "cuDNN cannot be captured as a CUDA graph: steps are issued call by call");
    md_note(d, MD_NOWHERE, "%s", why);
  }
  return cuda_is_alive(&c->base, d);
}

static bool replay(md_cuda *c, md_diags *d) {
  bool (*const begin)(md_cuda *c, md_diags *d) = md_cuda_convs_any(c) ? try_capture : capture;
  if (!c->graph && !c->is_issued && !begin(c, d)) return false;
  if (c->is_issued) return issue(c, d);
  c->has_results = true;
  return md_cuda_did(c, "cuGraphLaunch", -1, c->call.cuGraphLaunch(c->graph, c->stream), d);
}

static bool cuda_step(md_device *v, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  if (!(c->has_issued ? replay(c, d) : issue(c, d))) return false;
  return c->has_issued = true;
}

static bool cuda_arrived(md_device *v, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  if (!c->memory.inputs_bytes) return true;
  int error = c->call.cuEventSynchronize(c->sent);
  if (!md_cuda_did(c, "cuEventSynchronize", -1, error, d)) return false;
  trace_send(c);
  return true;
}

static bool cuda_is_busy(md_device *v) {
  md_cuda *c = (md_cuda *)v;
  return !c->fatal && c->call.cuStreamQuery(c->stream) == MD_CUDA_NOT_READY;
}

static bool cuda_wait(md_device *v, int launch, md_diags *d) {
  md_cuda *c = (md_cuda *)v;
  return enter(c, d) && md_cuda_wait(c, launch, d);
}

// --- times. What cannot be measured is unknown; an error shows in the next call that matters.

enum { ISSUE_NS = 20000 };  // that a launch and its two marks take on the host, at the most

// What is issued while the stream waits here runs back to back on the device. Else the time between two marks
// would be the host's, where a kernel is short. Where the driver's queue is full before that, the host waits,
// and stays as far ahead as the queue is long.
void md_cuda_hold(void *ns) {
  int64_t all = *(const int64_t *)ns;
  nanosleep(&(struct timespec){.tv_sec = all / 1000000000, .tv_nsec = all % 1000000000}, NULL);
}

static void make_marks(md_cuda *c) {
  int num = 2 * MD_MAX(c->base.num_all, c->base.num_marked);
  if (!c->mark) c->call.cuEventCreate(&c->zero, 0);
  if (c->mark && num <= c->num_marks) return;
  void **all = md_calloc((size_t)num + 1, sizeof *all);
  if (c->mark) memcpy(all, c->mark, (size_t)c->num_marks * sizeof *all);
  for (int i = c->num_marks; i < num; i++) c->call.cuEventCreate(&all[i], 0);
  free(c->mark);
  c->mark = all;
  c->num_marks = num;
}

// What comes first is tied to the host's clock by a mark that is set while nothing runs.
static void set_zero(md_cuda *c) {
  make_marks(c);
  c->call.cuStreamSynchronize(c->stream);
  c->hold_ns = (int64_t)c->base.num_marked * ISSUE_NS;
  c->zero_ns = md_now_ns();
  if (c->zero) c->call.cuEventRecord(c->zero, c->stream);
  c->call.cuLaunchHostFunc(c->stream, md_cuda_hold, &c->hold_ns);
}

static void cuda_mark(md_device *v, int i) {
  md_cuda *c = (md_cuda *)v;
  if (i == 0) set_zero(c);
  if (c->mark[i]) c->call.cuEventRecord(c->mark[i], c->stream);
}

static int64_t cuda_when(md_device *v, int i) {
  md_cuda *c = (md_cuda *)v;
  float ms;
  if (c->fatal || !c->zero || !c->mark[i] ||
      c->call.cuEventElapsedTime(&ms, c->zero, c->mark[i]) != 0)
    return -1;
  return c->zero_ns + (int64_t)((double)ms * 1e6);
}

// --- all of it

static void destroy_events(md_cuda *c) {
  for (int i = 0; c->mark && i < c->num_marks; i++)
    if (c->mark[i]) c->call.cuEventDestroy(c->mark[i]);
  free(c->mark);
  void *const events[] = {c->zero, c->sent, c->taken, c->done, c->sends, c->has_sent};
  for (int i = 0; i < MD_COUNT(events); i++)
    if (events[i]) c->call.cuEventDestroy(events[i]);
}

static void cuda_close(md_device *v) {
  md_cuda *c = (md_cuda *)v;
  if (c->context) {
    c->call.cuCtxSetCurrent(c->context);
    if (c->stream) c->call.cuStreamSynchronize(c->stream);
    if (c->sender) c->call.cuStreamSynchronize(c->sender);
    if (c->graph) c->call.cuGraphExecDestroy(c->graph);
    md_cuda_convs_close(c);
    md_cuda_code_unload(c);
    md_cuda_memory_destroy(c);
    if (c->flood) c->call.cuMemFree(c->flood);
    destroy_events(c);
    if (c->stream) c->call.cuStreamDestroy(c->stream);
    if (c->sender) c->call.cuStreamDestroy(c->sender);
    c->call.cuDevicePrimaryCtxRelease(c->id);
  }
  free(c->place);
  free(c->parameter);
  free(c);
}

// A launch takes the address of each argument's value, then of each count's. Those that no launch of the
// variant uses stay empty.
static bool line_up_arguments(md_cuda *c, md_diags *d) {
  const md_program *p = c->base.p;
  size_t num = (size_t)p->num_args + (size_t)p->num_counts + 1;
  c->place = md_calloc(num, sizeof *c->place);
  c->parameter = md_calloc(num, sizeof *c->parameter);
  for (size_t i = 0; i < num; i++) c->parameter[i] = &c->place[i];
  for (int i = 0; i < c->base.num_all; i++) {
    const md_launch *l = &p->launch[c->base.first_launch + i];
    md_gpu_place *to = c->place + l->first_arg + l->first_count;
    for (int k = 0; k < l->num_args; k++) *to++ = md_cuda_place(c, &p->arg[l->first_arg + k]);
    for (int k = 0; k < l->num_counts; k++) *to++ = (md_gpu_place)p->count[l->first_count + k];
  }
  return md_cuda_maps_make(c, d);
}

static bool choose_variant(md_cuda *c, const md_gpu_device *device, md_diags *d) {
  const md_program *p = c->base.p;
  c->base.variant = md_gpu_variant_for(p, device->sm);
  if (c->base.variant) return true;
  char target[300];
  md_error(d, E0633, p->path ? MD_IN_FILE(p->path) : MD_NOWHERE,
           "%s is for %s, and none of it runs on %s (sm_%d)", p->path ? "artefact" : "program",
           md_clean(p->target, target, sizeof target), device->name, device->sm);
  md_hint(d, "modistc compile ... --target=cuda:sm_%d -o %s", device->sm,
          p->path ? p->path : "FILE.mdx");
  return false;
}

static bool find_device(md_cuda *c, int index, md_diags *d) {
  md_gpu_lack lack;
  md_gpu_device device;
  if (md_driver_open(&c->call, &lack) || md_driver_device(&c->call, index, &c->id, &device, &lack))
    return md_driver_unusable(c->base.p->path, &lack, d);
  snprintf(c->base.name, sizeof c->base.name, "cuda:%d", index);
  snprintf(c->base.title, sizeof c->base.title, "%s, %s (sm_%d)", c->base.name, device.name,
           device.sm);
  snprintf(c->base.gpu, sizeof c->base.gpu, "%s", device.name);
  if (!choose_variant(c, &device, d)) return false;
  c->base.first_launch = c->base.variant->first_launch;
  c->base.num_launches = c->base.variant->num_launches;
  c->base.num_all = c->base.num_launches + c->base.variant->num_tried;
  return true;
}

static bool create_streams(md_cuda *c, md_diags *d) {
  void **const streams[] = {&c->stream, &c->sender};
  void **const events[] = {&c->sent, &c->taken, &c->done};
  for (int i = 0; i < MD_COUNT(streams); i++)
    if (!md_cuda_did(c, "cuStreamCreate", -1, c->call.cuStreamCreate(streams[i], NON_BLOCKING), d))
      return false;
  for (int i = 0; i < MD_COUNT(events); i++)
    if (!md_cuda_did(c, "cuEventCreate", -1, c->call.cuEventCreate(events[i], NO_TIMES | SLEEPS),
                     d))
      return false;
  return true;
}

static const md_device_kind kind = {.close = cuda_close,
                                    .input = cuda_input,
                                    .result = cuda_result,
                                    .put = cuda_put,
                                    .get = cuda_get,
                                    .spoil = cuda_spoil,
                                    .flush = cuda_flush,
                                    .send = cuda_send,
                                    .begin = cuda_begin,
                                    .step = cuda_step,
                                    .arrived = cuda_arrived,
                                    .launch = cuda_launch,
                                    .code = md_cuda_convs_code,
                                    .conv_key = md_cuda_conv_key,
                                    .end = cuda_end,
                                    .is_busy = cuda_is_busy,
                                    .wait = cuda_wait,
                                    .mark = cuda_mark,
                                    .when = cuda_when,
                                    .is_alive = cuda_is_alive};

md_device *md_device_open_cuda(const md_program *p, const md_exec_options *o, int index,
                               md_diags *d) {
  md_cuda *c = md_calloc(1, sizeof *c);
  c->base = (md_device){.kind = &kind, .p = p};
  int64_t start = md_now_ns();
  bool ok = find_device(c, index, d) &&
            md_cuda_did(c, "cuDevicePrimaryCtxRetain", -1,
                        c->call.cuDevicePrimaryCtxRetain(&c->context, c->id), d) &&
            enter(c, d) && create_streams(c, d) && md_cuda_code_load(c, d) &&
            md_cuda_memory_create(c, o->memory_limit, d) && line_up_arguments(c, d) &&
            ((o->engine == MD_ENGINE_MODIST && !o->tries_cudnn) || md_cuda_convs_open(c, o, d)) &&
            (o->engine != MD_ENGINE_FASTEST || md_cuda_convs_choose(c, d));
  if (!ok) {
    cuda_close(&c->base);
    return NULL;
  }
  md_log(MD_LOG_EXEC, MD_LEVEL_INFO, "%s: %d kernels for %s loaded in %.1f s", c->base.title,
         c->code.num, c->base.variant->target, (double)(md_now_ns() - start) / 1e9);
  return &c->base;
}
