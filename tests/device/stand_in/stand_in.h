// SPDX-License-Identifier: Apache-2.0
// Inside the stand-in for NVIDIA's driver: what its files ask of each other, a section for each.
#ifndef TESTS_DEVICE_STAND_IN_STAND_IN_H
#define TESTS_DEVICE_STAND_IN_STAND_IN_H

#include "base/base.h"
#include "runtime/exec/cubin.h"
#include "tests/device/stand_in/api.h"

#include <pthread.h>

// --- call.c: what every function begins and ends with: one at a time, counted, logged, and failing
// where the environment says so.
typedef enum Needs {
  NEEDS_NOTHING,
  NEEDS_INIT = 1,     // cuInit before
  NEEDS_CONTEXT = 2,  // a current context that no error has spoiled
  UNSAFE = 4,         // not while this thread captures
} Needs;
int call_begin(const char *name, int needs);  // an error: the function has nothing to do
int call_end(int error);                      // error
bool call_releases(
    int error);  // a call that releases something does so even where it is told to fail
int64_t call_count(void);
FILE *call_log(void);  // NULL: none is asked for
// The error, with the reason in the log.
int refuse(int error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *call_name(void);
bool call_fault(const char *name, int *error);  // for what is no call: "kernel"
int call_init(void);    // of cuInit; a driver is of no use in the children of who has called that
void call_spins(void);  // the present one waits for work, and keeps a core busy: the log says so
const char *setting(const char *name, const char *preset);  // MODIST_STAND_IN_name
int64_t setting_number(const char *name, int64_t preset);

// --- order.c: when asynchronous work is done
typedef enum Order { AT_ONCE, LATE, COPIES_FIRST, OTHERS_FIRST } Order;
Order order(void);

// --- handles.c: numbers that lead to objects; what is gone is never found again
typedef enum Kind {
  A_CONTEXT = 1,
  A_STREAM,
  AN_EVENT,
  A_LIBRARY,
  A_MODULE,
  A_KERNEL,
  A_FUNCTION,
  A_GRAPH,
  AN_EXEC
} Kind;
void *handle_new(Kind kind, void *object);
void *handle_find(Kind kind, const void *handle);  // NULL: there is no such thing
void handle_drop(Kind kind, const void *handle);
// Live ones in turn, from *i = 0; NULL: no more.
void *handle_next(Kind kind, int *i, const char **made_by);

// --- devices.c
enum { MAX_DEVICES = 8 };
int device_count(void);
int device_sm(void);
int64_t device_bytes(void);  // of memory
int64_t device_shared_limit(void);

// --- contexts.c
typedef struct Stream Stream;
typedef struct Context {
  int device, retained;
  int error;     // that has spoiled it
  bool is_kept;  // a library uses it until the process ends
  void *handle;
  int64_t used_bytes;
  Stream *legacy;  // the stream NULL
} Context;
Context *context_current(void);  // of this thread
int context_check(void);         // of the current one
void context_spoil(Context *c, int error);
bool is_sticky(int error);
bool context_any_spoiled(void);

// --- memory.c: device memory is the host's, under addresses that the host cannot follow
typedef struct Block {
  Address at;  // of the host's memory when pinned
  char *data;
  size_t bytes;
  bool is_pinned;
  Context *context;
  const char *made_by;
} Block;
bool is_device_address(Address at);
char *memory_at(Address at, size_t bytes);  // NULL: not inside one block of device memory
const Block *memory_block(Address at);      // of either kind, in which it lies; NULL: none
const Block *memory_next(int *i);           // NULL: no more
void memory_written(const char *at, size_t bytes);

// --- launch.c, kernels.c
typedef struct Kernel Kernel;
typedef struct Launch {
  void *kernel;  // handle, A_FUNCTION or A_KERNEL
  int64_t blocks;
  int threads, shared_bytes;
  unsigned char *args;  // values at their offsets
} Launch;
Kernel *kernel_find(const void *handle);  // of a kernel or function; NULL: it is neither

// What the text of a kernel says. Without a text the process ends.
typedef enum ParamKind { A_POINTER, A_MAP, A_NUMBER } ParamKind;
typedef struct Param {
  ParamKind kind;
  int offset, bytes;
  char type[48];
} Param;
typedef struct Source {
  char name[MD_KERNEL_NAME];
  char *text;
  Param *param;
  int num, cap, bytes;
  bool is_put;  // into what is compiled
  void (*entry)(void *const *arg);
} Source;
const Source *kernel_source(const char *name);
int kernel_run(const Launch *l);                              // 0, or how it fails
bool launch_uses(const Launch *l, Address at, size_t bytes);  // as an argument

// --- libraries.c
struct Kernel {
  md_kernel_facts facts;
  int dynamic_shared;  // that it may have
  int sm;
  bool is_ptx;
  void *kernel, *function;  // handles; NULL: not yet
};
typedef struct Image {
  Kernel *kernel;
  int num;
  int error;  // of code that cannot be used
} Image;

// --- streams.c: work in order
typedef enum OpKind { OP_KERNEL, OP_WORK, OP_COPY, OP_FILL, OP_MARK, OP_WAIT, OP_GRAPH } OpKind;
typedef struct Graph Graph;
typedef struct Op {
  OpKind kind;
  Launch launch;
  Address to, from;  // the host's addresses too
  size_t bytes;
  unsigned value;
  int width;     // bytes of a value
  void *staged;  // what was at `from`; data of work
  StandInWork *work;
  void *event;     // handle to mark
  Stream *stream;  // to wait for, or the mark's own
  int64_t ticket;  // of that stream
  Graph *graph;
} Op;
typedef struct Nodes {  // a set of them, by number
  int *node, num, cap;
} Nodes;
typedef struct Capture Capture;
struct Stream {
  Context *context;
  void *handle;  // NULL: the legacy stream
  bool is_blocking;
  Op *op;
  int num, cap, first;
  int64_t issued, done;  // tickets
  bool was_asked;        // since the last work was issued
  Capture *capture;
  Nodes last;  // of the captured graph: what the next one depends on
  Stream *next;
};
Stream *stream_find(void *handle, int *error);  // of the current context; NULL: *error
// Takes op. Into the graph when the stream is captured.
int stream_add(Stream *s, Op op);
void stream_run(Stream *s, int64_t ticket);   // all work up to it
void stream_wait(Stream *s, int64_t ticket);  // the same for the host
void stream_run_all(Context *c);
bool stream_reads(Address at, size_t bytes);  // is there work that still will?
Stream *stream_new(Context *c, bool is_blocking);
void stream_free(Stream *s);
int op_run(const Op *op);
void op_free(Op *op);
Stream *stream_first(void);

// --- events.c
typedef struct Event {
  Context *context;
  bool has_time, is_blocking;
  Stream *stream;  // NULL: never recorded
  int64_t ticket, ns;
  bool was_asked;
  Capture *capture;  // recorded there
  Nodes last;
} Event;
void event_issued(void *handle, Stream *s, int64_t ticket);
void event_marked(void *handle, const Stream *s, int64_t ticket);

// --- captures.c
struct Capture {
  Graph *g;
  Stream *origin;
  pthread_t thread;
  int mode;
  bool is_broken, is_over;  // what is over stays: events may lead to it
  Capture *next;
};
int capture_check_unsafe(void);     // of this thread
int capture_check_legacy(void);     // does work on the legacy stream meet a capture?
int capture_add(Stream *s, Op op);  // takes op
int capture_record(Stream *s, Event *e);
int capture_wait(Stream *s, Event *e);
void capture_forget_stream(Stream *s);
void capture_forget_event(Event *e);

// --- graphs.c
typedef struct Node {
  Op op;
  Nodes after;
} Node;
struct Graph {
  int refs;
  Node *node;
  int num, cap;
};
Graph *graph_new(void);
void graph_release(Graph *g);
int graph_run(const Graph *g);
bool graph_reads(const Graph *g, Address at, size_t bytes);  // as the source of a copy
bool graph_execs_use(Address at, size_t bytes);
void graph_poison(const Graph *g);  // pinned memory that it is to write
void nodes_include(Nodes *n, const Nodes *more);
void nodes_clear(Nodes *n);

#endif
