// SPDX-License-Identifier: Apache-2.0
// Graphs. One is launched as one work, which does all nodes in an order that they allow, and rather not
// the order in which they were captured.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>
#include <string.h>

typedef struct Exec {
  Graph *g;
  Context *context;
} Exec;

// --- sets of nodes

static bool has(const Nodes *n, int node) {
  for (int i = 0; i < n->num; i++)
    if (n->node[i] == node) return true;
  return false;
}

void nodes_include(Nodes *n, const Nodes *more) {
  for (int i = 0; i < more->num; i++)
    if (!has(n, more->node[i])) MD_PUSH(n->node, n->num, n->cap, more->node[i]);
}

void nodes_clear(Nodes *n) {
  free(n->node);
  *n = (Nodes){.num = 0};
}

// --- graphs

Graph *graph_new(void) {
  Graph *g = calloc(1, sizeof *g);
  MD_ASSERT(g, "out of memory");
  g->refs = 1;
  return g;
}

void graph_release(Graph *g) {
  if (--g->refs) return;
  for (int i = 0; i < g->num; i++) {
    op_free(&g->node[i].op);
    nodes_clear(&g->node[i].after);
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
    if (best < 0 || order() != COPIES_FIRST || is_copy(g, i)) best = i;
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
  if (!error && flags) error = refuse(NOT_SUPPORTED, "flags %llu", flags);
  Graph *g = handle_find(A_GRAPH, graph);
  if (error || !g) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no graph"));
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
  if (!call_releases(error)) return call_end(error);
  Exec *e = handle_find(AN_EXEC, exec);
  if (!e) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no graph to launch"));
  handle_drop(AN_EXEC, exec);
  graph_release(e->g);
  free(e);
  return call_end(error);
}

API cuGraphDestroy(void *graph) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!call_releases(error)) return call_end(error);
  Graph *g = handle_find(A_GRAPH, graph);
  if (!g) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no graph"));
  handle_drop(A_GRAPH, graph);
  graph_release(g);
  return call_end(error);
}

// Only how many there are.
API cuGraphGetNodes(void *graph, void **nodes, size_t *num) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error && nodes) error = refuse(NOT_SUPPORTED, "nodes have no handles here");
  const Graph *g = handle_find(A_GRAPH, graph);
  if (error || !g) return call_end(error ? error : refuse(INVALID_HANDLE, "it is no graph"));
  *num = (size_t)g->num;
  return call_end(0);
}
