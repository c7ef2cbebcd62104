// SPDX-License-Identifier: Apache-2.0
// Launches: what a driver checks before it takes one. The fiber machine has grids and blocks of one
// axis, whole warps and no clusters.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_THREADS = 1024, CLUSTER = 4, COOPERATIVE = 2, SERIALIZATION = 6 };

static int check_attributes(const LaunchConfig *c) {
  for (unsigned i = 0; i < c->num_attributes; i++) {
    const LaunchAttribute *a = &c->attribute[i];
    bool is_one =
        a->id == CLUSTER && a->of.cluster.x == 1 && a->of.cluster.y == 1 && a->of.cluster.z == 1;
    if (a->id == CLUSTER && (!a->of.cluster.x || c->grid_x % a->of.cluster.x))
      return refuse(INVALID_CLUSTER_SIZE, "clusters of %u of %u blocks", a->of.cluster.x,
                    c->grid_x);
    bool is_off = a->id == COOPERATIVE && !a->of.value;
    if (a->id && a->id != SERIALIZATION && !is_one && !is_off)
      return refuse(NOT_SUPPORTED, "launch attribute %d is more than the stand-in can do", a->id);
  }
  return 0;
}

static int check_size(const LaunchConfig *c, const Kernel *k) {
  int64_t threads = (int64_t)c->block_x * c->block_y * c->block_z;
  if (!c->grid_x || !c->grid_y || !c->grid_z || !threads)
    return refuse(INVALID_VALUE, "no blocks or no threads");
  if (c->grid_x > INT32_MAX || c->grid_y > 65535 || c->grid_z > 65535)
    return refuse(INVALID_VALUE, "%u x %u x %u blocks", c->grid_x, c->grid_y, c->grid_z);
  if (threads > BLOCK_THREADS)
    return refuse(INVALID_VALUE, "%lld threads in a block", (long long)threads);
  if (k->facts.max_threads && threads > k->facts.max_threads)
    return refuse(LAUNCH_OUT_OF_RESOURCES, "%lld threads for a kernel of at most %d",
                  (long long)threads, k->facts.max_threads);
  if (c->shared_bytes > (unsigned)k->dynamic_shared)
    return refuse(INVALID_VALUE, "%u bytes of dynamic shared memory where %d may be",
                  c->shared_bytes, k->dynamic_shared);
  if (c->grid_y > 1 || c->grid_z > 1 || c->block_y > 1 || c->block_z > 1 || threads % 32)
    return refuse(NOT_SUPPORTED, "more axes, or no whole warps, are more than the stand-in can do");
  return 0;
}

// The text, the image and what is given agree. A tensor map is aligned within the constant memory, whose begin the
// text does not know.
static int take_arguments(const Source *s, const Kernel *k, void **parameters, Launch *l) {
  bool has_map = false;
  for (int i = 0; i < s->num; i++) has_map |= s->param[i].kind == A_MAP;
  if (s->bytes != k->facts.param_bytes && !has_map)
    return refuse(INVALID_IMAGE, "its text has %d bytes of parameters, its code %d", s->bytes,
                  k->facts.param_bytes);
  if (s->num && !parameters) return refuse(INVALID_VALUE, "no arguments");
  l->args = calloc(1, (size_t)s->bytes + 1);
  MD_ASSERT(l->args, "out of memory");
  for (int i = 0; i < s->num; i++) {
    if (!parameters[i]) return refuse(INVALID_VALUE, "argument %d is missing", i);
    memcpy(l->args + s->param[i].offset, parameters[i], (size_t)s->param[i].bytes);
  }
  return 0;
}

static int launch(const LaunchConfig *c, void *function, void **parameters, void **extra) {
  int error = 0;
  const Kernel *k = kernel_find(function);
  if (!k) return refuse(INVALID_HANDLE, "it is no function");
  Stream *s = stream_find(c->stream, &error);
  if (!s) return error;
  if (extra) return refuse(NOT_SUPPORTED, "`extra` is more than the stand-in can do");
  error = check_size(c, k);
  if (!error) error = check_attributes(c);
  if (error) return error;
  Op op = {.kind = OP_KERNEL,
           .launch = {.kernel = function,
                      .blocks = c->grid_x,
                      .threads = (int)c->block_x,
                      .shared_bytes = (int)c->shared_bytes}};
  error = take_arguments(kernel_source(k->facts.name), k, parameters, &op.launch);
  if (error) {
    op_free(&op);
    return error;
  }
  error = stream_add(s, op);
  return error ? error : s->context->error;
}

API cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   void *stream, void **parameters, void **extra) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  LaunchConfig c = {grid_x,  grid_y,       grid_z, block_x, block_y,
                    block_z, shared_bytes, stream, NULL,    0};
  return call_end(error ? error : launch(&c, function, parameters, extra));
}

API cuLaunchKernelEx(const LaunchConfig *c, void *function, void **parameters, void **extra) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : launch(c, function, parameters, extra));
}

static int add_work(void *stream, StandInWork *work, const void *data, size_t bytes) {
  int error = 0;
  Stream *s = stream_find(stream, &error);
  if (!s) return error;
  Op op = {.kind = OP_WORK, .work = work, .staged = malloc(bytes)};
  MD_ASSERT(op.staged, "out of memory");
  memcpy(op.staged, data, bytes);
  error = stream_add(s, op);
  return error ? error : s->context->error;
}

API cuStandInWork(void *stream, StandInWork *work, const void *data, size_t bytes) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : add_work(stream, work, data, bytes));
}

typedef struct HostCall {
  void (*work)(void *data);
  void *data;
} HostCall;

static int call_host(const StandInMemory *memory, const void *call) {
  const HostCall *c = call;
  (void)memory;
  c->work(c->data);
  return 0;
}

API cuLaunchHostFunc(void *stream, void (*work)(void *), void *data) {
  const HostCall c = {work, data};
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  return call_end(error ? error : add_work(stream, call_host, &c, sizeof c));
}
