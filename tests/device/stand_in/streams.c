// SPDX-License-Identifier: Apache-2.0
// Streams: queues of work that is done in order. The n-th work of a stream has ticket n; an event is a
// stream and a ticket, and to wait for it is to do that stream's work up to there. A stream that is
// destroyed stays, so that tickets still lead to it.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>
#include <string.h>

static Stream *first_stream;

Stream *stream_first(void) { return first_stream; }

Stream *stream_new(Context *c, bool is_blocking) {
  Stream *s = calloc(1, sizeof *s);
  MD_ASSERT(s, "out of memory");
  *s = (Stream){.context = c, .is_blocking = is_blocking, .next = first_stream};
  return first_stream = s;
}

void stream_free(Stream *s) {
  handle_drop(A_STREAM, s->handle);
  s->is_blocking = false;
}

Stream *stream_find(void *handle, int *error) {
  Context *c = context_current();
  Stream *s = (uintptr_t)handle <= 1 ? c->legacy : handle_find(A_STREAM, handle);
  if (!s) *error = refuse(INVALID_HANDLE, "it is no stream");
  else if (s->context != c) *error = refuse(INVALID_HANDLE, "it is a stream of another context");
  else if (s == c->legacy) *error = capture_check_legacy();
  return *error ? NULL : s;
}

// --- work

static char *end_of(Address at, size_t bytes) {
  return is_device_address(at) ? memory_at(at, bytes) : (char *)(uintptr_t)at;
}

static int move(const Op *op) {
  char *to = end_of(op->to, op->bytes);
  const char *from = op->staged ? op->staged : end_of(op->from, op->bytes);
  if (!to || !from) return refuse(ILLEGAL_ADDRESS, "a copy of memory that has been freed");
  memmove(to, from, op->bytes);
  if (is_device_address(op->to)) memory_written(to, op->bytes);
  return 0;
}

static int fill(const Op *op) {
  char *to = memory_at(op->to, op->bytes);
  if (!to) return refuse(ILLEGAL_ADDRESS, "a fill of memory that has been freed");
  for (size_t i = 0; i < op->bytes; i += (size_t)op->width)
    memcpy(to + i, &op->value, (size_t)op->width);
  memory_written(to, op->bytes);
  return 0;
}

int op_run(const Op *op) {
  switch (op->kind) {
  case OP_KERNEL: return kernel_run(&op->launch);
  case OP_WORK: return op->work(&(StandInMemory){memory_at, memory_written}, op->staged);
  case OP_COPY: return move(op);
  case OP_FILL: return fill(op);
  case OP_MARK: event_marked(op->event, op->stream, op->ticket); return 0;
  case OP_WAIT: stream_run(op->stream, op->ticket); return 0;
  case OP_GRAPH: return graph_run(op->graph);
  }
  return 0;
}

void op_free(Op *op) {
  free(op->launch.args);
  free(op->staged);
  if (op->graph) graph_release(op->graph);
}

// A spoiled context does no more work.
static void run_first(Stream *s) {
  Op op = s->op[s->first++];
  if (s->first == s->num) s->first = s->num = 0;
  int error = s->context->error ? 0 : op_run(&op);
  if (error) context_spoil(s->context, error);
  op_free(&op);
  s->done++;
}

void stream_run(Stream *s, int64_t ticket) {
  while (s->done < ticket) run_first(s);
}

void stream_run_all(Context *c) {
  for (Stream *s = first_stream; s; s = s->next)
    if (s->context == c) stream_run(s, s->issued);
}

static void push(Stream *s, Op op) {
  s->issued++;
  s->was_asked = false;
  if (op.kind == OP_MARK) {
    op.stream = s;
    op.ticket = s->issued;
    event_issued(op.event, s, op.ticket);
  }
  MD_PUSH(s->op, s->num, s->cap, op);
}

// The legacy stream and those that block wait for each other.
static void push_legacy_waits(Stream *s) {
  for (Stream *t = first_stream; t; t = t->next) {
    bool waits = t != s && t->context == s->context && t->is_blocking && s->is_blocking &&
                 (s == s->context->legacy || t == s->context->legacy);
    if (waits && t->done < t->issued)
      push(s, (Op){.kind = OP_WAIT, .stream = t, .ticket = t->issued});
  }
}

static bool is_ready(const Stream *s, bool only_copies) {
  if (s->done == s->issued) return false;
  const Op *op = &s->op[s->first];
  if (op->kind == OP_WAIT) return op->stream->done >= op->ticket;
  return !only_copies || (op->kind > OP_WORK && op->kind != OP_GRAPH);
}

// Work of all streams but one that waits for nothing, and what becomes so.
static void run_ready(const Stream *but, bool only_copies) {
  for (bool more = true; more;) {
    more = false;
    for (Stream *s = first_stream; s; s = s->next) {
      for (; s != but && is_ready(s, only_copies); more = true) run_first(s);
    }
  }
}

void stream_wait(Stream *s, int64_t ticket) {
  if (order() == OTHERS_FIRST && s->done < ticket) run_ready(s, false);
  stream_run(s, ticket);
}

// Pinned memory that a copy is to write holds nothing until then; unless work before it reads that.
static void spoil_target(const Op *op) {
  if (op->kind == OP_GRAPH) graph_poison(op->graph);
  if (op->kind != OP_COPY || is_device_address(op->to) || stream_reads(op->to, op->bytes)) return;
  memset((void *)(uintptr_t)op->to, 0xff, op->bytes);
}

int stream_add(Stream *s, Op op) {
  if (s->capture) return capture_add(s, op);
  push_legacy_waits(s);
  if (order() != AT_ONCE) spoil_target(&op);
  push(s, op);
  if (order() == AT_ONCE) stream_run(s, s->issued);
  if (order() == COPIES_FIRST) run_ready(NULL, true);
  return 0;
}

bool stream_reads(Address at, size_t bytes) {
  for (const Stream *s = first_stream; s; s = s->next) {
    for (int i = s->first; i < s->num; i++) {
      const Op *op = &s->op[i];
      if (op->kind == OP_GRAPH && graph_reads(op->graph, at, bytes)) return true;
      if (op->kind == OP_COPY && op->from < at + bytes && at < op->from + op->bytes) return true;
    }
  }
  return false;
}

// --- the driver's functions

API cuStreamCreate(void **stream, unsigned flags) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  if (!error && flags & ~(unsigned)STREAM_NON_BLOCKING)
    error = refuse(INVALID_VALUE, "flags %u", flags);
  if (error) return call_end(error);
  Stream *s = stream_new(context_current(), !(flags & STREAM_NON_BLOCKING));
  *stream = s->handle = handle_new(A_STREAM, s);
  return call_end(0);
}

// Its work is still done, by whom it concerns.
API cuStreamDestroy_v2(void *stream) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  if (!call_releases(error)) return call_end(error);
  Stream *s = handle_find(A_STREAM, stream);
  if (!s) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no stream"));
  capture_forget_stream(s);
  stream_free(s);
  return call_end(error);
}

static int synchronize(void *stream, bool is_query) {
  int error = 0;
  Stream *s = stream_find(stream, &error);
  if (!s) return error;
  if (s->capture) return capture_check_unsafe();
  bool asks_first = !s->was_asked && s->done < s->issued;
  s->was_asked = true;
  if (is_query && asks_first) return NOT_READY;
  if (!is_query && s->done < s->issued) call_spins();
  stream_wait(s, s->issued);
  return s->context->error;
}

API cuStreamSynchronize(void *stream) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : synchronize(stream, false));
}

// The first time that it is asked, a stream with work is not ready.
API cuStreamQuery(void *stream) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : synchronize(stream, true));
}
