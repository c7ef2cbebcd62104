// SPDX-License-Identifier: Apache-2.0
// Captures: while a stream is captured its work becomes nodes of a graph, each with the nodes that it must
// follow. Events take other streams into the capture, and have to bring their work back.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>

static Capture *first_capture;

static int broken(Capture *c, int error, const char *why) {
  c->is_broken = true;
  return refuse(error, "%s", why);
}

int capture_check_unsafe(void) {
  for (Capture *c = first_capture; c; c = c->next) {
    bool mine = pthread_equal(c->thread, pthread_self());
    if (!c->is_over && (c->mode == CAPTURE_GLOBAL || (c->mode == CAPTURE_THREAD_LOCAL && mine)))
      return broken(c, CAPTURE_UNSUPPORTED, "a stream is being captured");
  }
  return 0;
}

int capture_check_legacy(void) {
  for (const Stream *s = stream_first(); s; s = s->next)
    if (s->capture && s->is_blocking)
      return broken(s->capture, CAPTURE_IMPLICIT, "a stream that blocks is being captured");
  return 0;
}

int capture_add(Stream *s, Op op) {
  Capture *c = s->capture;
  int error = c->is_broken ? refuse(CAPTURE_INVALIDATED, "the capture has failed before") : 0;
  if (!error && op.kind == OP_GRAPH)
    error = refuse(NOT_SUPPORTED, "a graph inside a graph is more than the stand-in can do");
  if (error) {
    op_free(&op);
    return error;
  }
  Node n = {.op = op, .after = s->last};
  s->last = (Nodes){.num = 0};
  MD_PUSH(s->last.node, s->last.num, s->last.cap, c->g->num);
  MD_PUSH(c->g->node, c->g->num, c->g->cap, n);
  return 0;
}

int capture_record(Stream *s, Event *e) {
  if (s->capture->is_broken) return refuse(CAPTURE_INVALIDATED, "the capture has failed before");
  e->capture = s->capture;
  nodes_include(&e->last, &s->last);
  return 0;
}

int capture_wait(Stream *s, Event *e) {
  if (e->capture && e->capture->is_over) return refuse(CAPTURED_EVENT, "its capture is over");
  if (!e->capture)
    return e->stream ? broken(s->capture, CAPTURE_ISOLATION, "an event of no capture") : 0;
  if (s->capture && s->capture != e->capture)
    return broken(s->capture, CAPTURE_MERGE, "an event of another capture");
  if (e->capture->is_broken) return refuse(CAPTURE_INVALIDATED, "the capture has failed before");
  s->capture = e->capture;
  nodes_include(&s->last, &e->last);
  return 0;
}

void capture_forget_event(Event *e) {
  e->capture = NULL;
  nodes_clear(&e->last);
}

void capture_forget_stream(Stream *s) {
  if (s->capture) s->capture->is_broken = true;
  s->capture = NULL;
  nodes_clear(&s->last);
}

static void end(Capture *c) {
  c->is_over = true;
  for (Stream *s = stream_first(); s; s = s->next)
    if (s->capture == c) capture_forget_stream(s);
}

// Does the end of the first stream follow all nodes?
static bool is_joined(const Capture *c) {
  bool *reached = calloc((size_t)c->g->num + 1, sizeof *reached);
  MD_ASSERT(reached, "out of memory");
  for (int i = 0; i < c->origin->last.num; i++) reached[c->origin->last.node[i]] = true;
  int num = 0;
  for (int i = c->g->num - 1; i >= 0; i--) {
    const Nodes *after = &c->g->node[i].after;
    num += reached[i];
    for (int k = 0; reached[i] && k < after->num; k++) reached[after->node[k]] = true;
  }
  free(reached);
  return num == c->g->num;
}

static int begin_capture(void *stream, int mode) {
  int error = 0;
  Stream *s = stream_find(stream, &error);
  if (!s) return error;
  if (s == s->context->legacy) return refuse(CAPTURE_UNSUPPORTED, "it is the legacy stream");
  if (s->capture) return refuse(ILLEGAL_STATE, "it is being captured");
  if (mode < CAPTURE_GLOBAL || mode > CAPTURE_RELAXED)
    return refuse(INVALID_VALUE, "mode %d", mode);
  Capture *c = calloc(1, sizeof *c);
  Graph *g = calloc(1, sizeof *g);
  MD_ASSERT(c && g, "out of memory");
  g->refs = 1;
  *c =
      (Capture){.g = g, .origin = s, .thread = pthread_self(), .mode = mode, .next = first_capture};
  first_capture = s->capture = c;
  return 0;
}

API cuStreamBeginCapture_v2(void *stream, int mode) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : begin_capture(stream, mode));
}

static int end_capture(void *stream, void **graph) {
  int error = 0;
  Stream *s = stream_find(stream, &error);
  *graph = NULL;
  if (!s) return error;
  Capture *c = s->capture;
  if (!c) return refuse(ILLEGAL_STATE, "it is not being captured");
  if (c->origin != s) return broken(c, CAPTURE_UNMATCHED, "the capture began in another stream");
  if (c->mode != CAPTURE_RELAXED && !pthread_equal(c->thread, pthread_self()))
    return broken(c, CAPTURE_WRONG_THREAD, "the capture began in another thread");
  if (c->is_broken) error = refuse(CAPTURE_INVALIDATED, "the capture has failed before");
  else if (!is_joined(c)) error = refuse(CAPTURE_UNJOINED, "another stream's work is not joined");
  end(c);
  if (error) graph_release(c->g);
  else *graph = handle_new(A_GRAPH, c->g);
  c->g = NULL;
  return error;
}

// After an error too nothing is captured any more.
API cuStreamEndCapture(void *stream, void **graph) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  if (!error) return call_end(end_capture(stream, graph));
  Stream *s = call_releases(error) ? handle_find(A_STREAM, stream) : NULL;
  Capture *c = s ? s->capture : NULL;
  *graph = NULL;
  if (c) {
    end(c);
    graph_release(c->g);
    c->g = NULL;
  }
  return call_end(error);
}

API cuStreamIsCapturing(void *stream, int *status) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  Stream *s = error ? NULL : stream_find(stream, &error);
  if (s) *status = !s->capture ? 0 : s->capture->is_broken ? 2 : 1;
  return call_end(error);
}
