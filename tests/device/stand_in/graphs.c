// SPDX-License-Identifier: Apache-2.0
// Captures and graphs. While a stream is captured its work becomes nodes, each with the nodes that it
// must follow; a graph is launched as one work that does them all in an order that this allows, and
// rather not the order in which they were captured.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>
#include <string.h>

typedef struct Node {
  Op op;
  Nodes after;
} Node;
struct Graph {
  int refs;
  Node *node;
  int num, cap;
};
struct Capture {
  Graph *g;
  Stream *origin;
  pthread_t thread;
  int mode;
  bool is_broken, is_over;  // what is over stays: events may lead to it
  Capture *next;
};
typedef struct Exec {
  Graph *g;
  Context *context;
} Exec;

static Capture *first_capture;

// --- sets of nodes

static bool has(const Nodes *n, int node) {
  for (int i = 0; i < n->num; i++)
    if (n->node[i] == node) return true;
  return false;
}

static void include(Nodes *n, const Nodes *more) {
  for (int i = 0; i < more->num; i++)
    if (!has(n, more->node[i])) MD_PUSH(n->node, n->num, n->cap, more->node[i]);
}

static void clear(Nodes *n) {
  free(n->node);
  *n = (Nodes){.num = 0};
}

// --- captures

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
  include(&e->last, &s->last);
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
  include(&s->last, &e->last);
  return 0;
}

void capture_forget_event(Event *e) {
  e->capture = NULL;
  clear(&e->last);
}

void capture_forget_stream(Stream *s) {
  if (s->capture) s->capture->is_broken = true;
  s->capture = NULL;
  clear(&s->last);
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
  Stream *s = handle_find(A_STREAM, stream);
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

// --- graphs

void graph_release(Graph *g) {
  if (--g->refs) return;
  for (int i = 0; i < g->num; i++) {
    op_free(&g->node[i].op);
    clear(&g->node[i].after);
  }
  free(g->node);
  free(g);
}

static bool is_ready(const Graph *g, int node, const bool *done) {
  const Nodes *after = &g->node[node].after;
  for (int i = 0; i < after->num; i++)
    if (!done[after->node[i]]) return false;
  return !done[node];
}

static bool is_copy(const Graph *g, int node) { return g->node[node].op.kind == OP_COPY; }

static int choose(const Graph *g, const bool *done) {
  int best = -1;
  for (int i = 0; i < g->num; i++) {
    if (!is_ready(g, i, done)) continue;
    if (order() == AT_ONCE) return i;
    if (best < 0 || order() == LATE || is_copy(g, i)) best = i;
  }
  return best;
}

int graph_run(const Graph *g) {
  bool *done = calloc((size_t)g->num + 1, sizeof *done);
  MD_ASSERT(done, "out of memory");
  int error = 0;
  for (int left = g->num; left && !error; left--) {
    int node = choose(g, done);
    error = op_run(&g->node[node].op);
    done[node] = true;
  }
  free(done);
  return error;
}

static bool touches(const Op *op, Address at, size_t bytes) {
  if (op->kind == OP_KERNEL) return launch_uses(&op->launch, at, bytes);
  return (op->to < at + bytes && at < op->to + op->bytes) ||
         (op->kind == OP_COPY && op->from < at + bytes && at < op->from + op->bytes);
}

bool graph_reads(const Graph *g, Address at, size_t bytes) {
  for (int i = 0; i < g->num; i++) {
    const Op *op = &g->node[i].op;
    if (op->kind == OP_COPY && op->from < at + bytes && at < op->from + op->bytes) return true;
  }
  return false;
}

bool graph_execs_use(Address at, size_t bytes) {
  const char *made_by;
  const Exec *e;
  for (int i = 0; (e = handle_next(AN_EXEC, &i, &made_by));)
    for (int k = 0; k < e->g->num; k++)
      if (touches(&e->g->node[k].op, at, bytes)) return true;
  return false;
}

void graph_poison(const Graph *g) {
  for (int i = 0; i < g->num; i++) {
    const Op *op = &g->node[i].op;
    bool ends_on_host = op->kind == OP_COPY && !is_device_address(op->to);
    if (ends_on_host && !stream_reads(op->to, op->bytes) && !graph_reads(g, op->to, op->bytes))
      memset((void *)(uintptr_t)op->to, 0xff, op->bytes);
  }
}

API cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  Graph *g = handle_find(A_GRAPH, graph);
  if (!error && !g) error = refuse(INVALID_HANDLE, "it is no graph");
  if (!error && flags) error = refuse(NOT_SUPPORTED, "flags %llu", flags);
  if (error) return call_end(error);
  Exec *e = malloc(sizeof *e);
  MD_ASSERT(e, "out of memory");
  *e = (Exec){g, context_current()};
  g->refs++;
  *exec = handle_new(AN_EXEC, e);
  return call_end(0);
}

static int launch(void *exec, void *stream, bool only_upload) {
  int error = 0;
  const Exec *e = handle_find(AN_EXEC, exec);
  Stream *s = e ? stream_find(stream, &error) : NULL;
  if (!e) return refuse(INVALID_HANDLE, "it is no graph to launch");
  if (!s) return error;
  if (e->context != s->context) return refuse(INVALID_HANDLE, "it is of another context");
  if (only_upload) return s->capture ? refuse(CAPTURE_UNSUPPORTED, "it is being captured") : 0;
  e->g->refs++;
  error = stream_add(s, (Op){.kind = OP_GRAPH, .graph = e->g});
  return error ? error : s->context->error;
}

API cuGraphUpload(void *exec, void *stream) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : launch(exec, stream, true));
}

API cuGraphLaunch(void *exec, void *stream) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : launch(exec, stream, false));
}

API cuGraphExecDestroy(void *exec) {
  int error = call_begin(__func__, NEEDS_INIT);
  Exec *e = handle_find(AN_EXEC, exec);
  if (!e) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no graph to launch"));
  handle_drop(AN_EXEC, exec);
  graph_release(e->g);
  free(e);
  return call_end(error);
}

API cuGraphDestroy(void *graph) {
  int error = call_begin(__func__, NEEDS_INIT);
  Graph *g = handle_find(A_GRAPH, graph);
  if (!g) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no graph"));
  handle_drop(A_GRAPH, graph);
  graph_release(g);
  return call_end(error);
}

// Only how many there are.
API cuGraphGetNodes(void *graph, void **nodes, size_t *num) {
  int error = call_begin(__func__, NEEDS_INIT);
  const Graph *g = handle_find(A_GRAPH, graph);
  if (!error && !g) error = refuse(INVALID_HANDLE, "it is no graph");
  if (!error && nodes) error = refuse(NOT_SUPPORTED, "nodes have no handles here");
  if (!error) *num = (size_t)g->num;
  return call_end(error);
}
