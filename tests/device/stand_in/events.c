// SPDX-License-Identifier: Apache-2.0
// Events: a place in the order of a stream, or of a stream that is captured.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>

enum { USUAL = NEEDS_INIT | NEEDS_CONTEXT };

static Event *find(void *event, int *error) {
  Event *e = handle_find(AN_EVENT, event);
  if (!e) *error = refuse(INVALID_HANDLE, "it is no event");
  return e;
}

static Event *find_own(void *event, int *error) {
  Event *e = find(event, error);
  if (!e || e->context == context_current()) return e;
  *error = refuse(INVALID_HANDLE, "it is an event of another context");
  return NULL;
}

API cuEventCreate(void **event, unsigned flags) {
  int error = call_begin(__func__, USUAL);
  if (!error && flags & ~(unsigned)(EVENT_BLOCKING | EVENT_NO_TIMING))
    error = refuse(INVALID_VALUE, "flags %u", flags);
  if (error) return call_end(error);
  Event *e = calloc(1, sizeof *e);
  MD_ASSERT(e, "out of memory");
  *e = (Event){.context = context_current(),
               .has_time = !(flags & EVENT_NO_TIMING),
               .is_blocking = flags & EVENT_BLOCKING};
  *event = handle_new(AN_EVENT, e);
  return call_end(0);
}

API cuEventDestroy_v2(void *event) {
  int error = call_begin(__func__, USUAL), bad = 0;
  if (!call_releases(error)) return call_end(error);
  Event *e = find(event, &bad);
  if (!e) return call_end(error ? error : bad);
  capture_forget_event(e);
  handle_drop(AN_EVENT, event);
  free(e);
  return call_end(error);
}

static int record(void *event, void *stream) {
  int error = 0;
  Event *e = find_own(event, &error);
  Stream *s = e ? stream_find(stream, &error) : NULL;
  if (!s) return error;
  capture_forget_event(e);
  if (s->capture) return capture_record(s, e);
  error = stream_add(s, (Op){.kind = OP_MARK, .event = event});
  return error ? error : s->context->error;
}

API cuEventRecord(void *event, void *stream) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : record(event, stream));
}

void event_issued(void *handle, Stream *s, int64_t ticket) {
  Event *e = handle_find(AN_EVENT, handle);
  e->stream = s;
  e->ticket = ticket;
  e->was_asked = false;
}

// The last record alone counts.
void event_marked(void *handle, const Stream *s, int64_t ticket) {
  Event *e = handle_find(AN_EVENT, handle);
  if (e && e->stream == s && e->ticket == ticket) e->ns = md_now_ns();
}

static bool is_done(const Event *e) { return !e->stream || e->stream->done >= e->ticket; }

static int wait_for(void *stream, void *event) {
  int error = 0;
  Event *e = find(event, &error);
  Stream *s = e ? stream_find(stream, &error) : NULL;
  if (!s) return error;
  if (s->capture || e->capture) return capture_wait(s, e);
  if (is_done(e)) return 0;
  error = stream_add(s, (Op){.kind = OP_WAIT, .stream = e->stream, .ticket = e->ticket});
  return error ? error : s->context->error;
}

API cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  int error = call_begin(__func__, USUAL);
  if (!error && flags) error = refuse(INVALID_VALUE, "flags %u", flags);
  return call_end(error ? error : wait_for(stream, event));
}

static int synchronize(void *event, bool is_query) {
  int error = 0;
  Event *e = find(event, &error);
  if (!e) return error;
  if (e->capture) return refuse(CAPTURED_EVENT, "it was recorded in a capture");
  bool asks_first = !e->was_asked && !is_done(e);
  e->was_asked = true;
  if (is_query && asks_first) return NOT_READY;
  if (!e->is_blocking && !is_done(e)) call_spins();
  if (e->stream) stream_wait(e->stream, e->ticket);
  return e->context->error;
}

// The first time that it is asked, an event is not ready.
API cuEventQuery(void *event) {
  int error = call_begin(__func__, USUAL | UNSAFE);
  return call_end(error ? error : synchronize(event, true));
}

API cuEventSynchronize(void *event) {
  int error = call_begin(__func__, USUAL | UNSAFE);
  return call_end(error ? error : synchronize(event, false));
}

static int elapsed(float *ms, void *start, void *end) {
  int error = 0;
  Event *a = find(start, &error), *b = a ? find(end, &error) : NULL;
  if (!b) return error;
  if (!a->has_time || !b->has_time) return refuse(INVALID_HANDLE, "an event that takes no time");
  if (a->capture || b->capture) return refuse(CAPTURED_EVENT, "an event of a capture");
  if (!a->stream || !b->stream) return refuse(INVALID_HANDLE, "an event was never recorded");
  if (!is_done(a) || !is_done(b)) return refuse(NOT_READY, "nobody has waited for an event");
  *ms = (float)((double)(b->ns - a->ns) * 1e-6);
  return 0;
}

API cuEventElapsedTime(float *ms, void *start, void *end) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : elapsed(ms, start, end));
}

API cuEventElapsedTime_v2(float *ms, void *start, void *end) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : elapsed(ms, start, end));
}
