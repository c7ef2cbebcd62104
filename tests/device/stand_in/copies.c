// SPDX-License-Identifier: Apache-2.0
// Copies and fills. What is on the host's side may be pinned; then both ends are touched when the copy
// is done. Else the driver takes what is copied to the device at once, and does not return before what
// is copied to the host is there.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>
#include <string.h>

static int check_device_range(Address at, size_t bytes) {
  const Block *b = memory_block(at);
  if (!b || b->is_pinned) return refuse(INVALID_VALUE, "%#llx is no device memory", at);
  if (b->context != context_current()) return refuse(INVALID_VALUE, "memory of another context");
  if (memory_at(at, bytes)) return 0;
  return refuse(INVALID_VALUE, "%zu bytes at +%llu of %zu bytes of device memory", bytes,
                at - b->at, b->bytes);
}

static int check_host_range(Address at, size_t bytes) {
  const Block *b = memory_block(at), *end = memory_block(at + bytes - 1);
  if (!at || is_device_address(at)) return refuse(INVALID_VALUE, "%#llx is not the host's", at);
  return b == end ? 0 : refuse(INVALID_VALUE, "it goes beyond pinned memory");
}

static int check_range(Address at, size_t bytes, bool on_device) {
  return on_device ? check_device_range(at, bytes) : check_host_range(at, bytes);
}

static bool is_pageable(Address at) { return !is_device_address(at) && !memory_block(at); }

typedef enum Direction { TO_DEVICE, TO_HOST, ON_DEVICE } Direction;

static int copy(Direction way, Address to, Address from, size_t bytes, void *stream, bool wait) {
  int error = 0;
  Stream *s = stream_find(stream, &error);
  if (!s) return error;
  if (!bytes) return 0;
  error = check_range(to, bytes, way != TO_HOST);
  if (!error) error = check_range(from, bytes, way != TO_DEVICE);
  if (error) return error;
  Op op = {.kind = OP_COPY, .to = to, .from = from, .bytes = bytes};
  if (way == TO_DEVICE && is_pageable(from) && !s->capture) {
    op.staged = malloc(bytes);
    MD_ASSERT(op.staged, "out of memory");
    memcpy(op.staged, (const void *)(uintptr_t)from, bytes);
  }
  error = stream_add(s, op);
  if (error || s->capture) return error;
  if (wait || (way == TO_HOST && is_pageable(to))) stream_run(s, s->issued);
  return s->context->error;
}

static Address of(const void *host) { return (Address)(uintptr_t)host; }

enum { USUAL = NEEDS_INIT | NEEDS_CONTEXT };

API cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) {
  int error = call_begin(__func__, USUAL | UNSAFE);
  return call_end(error ? error : copy(TO_DEVICE, to, of(from), bytes, NULL, true));
}

API cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) {
  int error = call_begin(__func__, USUAL | UNSAFE);
  return call_end(error ? error : copy(TO_HOST, of(to), from, bytes, NULL, true));
}

API cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) {
  int error = call_begin(__func__, USUAL | UNSAFE);
  return call_end(error ? error : copy(ON_DEVICE, to, from, bytes, NULL, false));
}

API cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : copy(TO_DEVICE, to, of(from), bytes, stream, false));
}

API cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : copy(TO_HOST, of(to), from, bytes, stream, false));
}

API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : copy(ON_DEVICE, to, from, bytes, stream, false));
}

// --- fills

static int fill(Address at, unsigned value, int width, size_t num, void *stream) {
  int error = 0;
  Stream *s = stream_find(stream, &error);
  if (!s) return error;
  if (!num) return 0;
  if (at % (Address)width) return refuse(INVALID_VALUE, "%#llx is misaligned", at);
  error = check_device_range(at, num * (size_t)width);
  if (error) return error;
  Op op = {.kind = OP_FILL, .to = at, .bytes = num * (size_t)width, .value = value, .width = width};
  error = stream_add(s, op);
  return error ? error : s->context->error;
}

API cuMemsetD8_v2(Address at, unsigned char value, size_t num) {
  int error = call_begin(__func__, USUAL | UNSAFE);
  return call_end(error ? error : fill(at, value, 1, num, NULL));
}

API cuMemsetD32_v2(Address at, unsigned value, size_t num) {
  int error = call_begin(__func__, USUAL | UNSAFE);
  return call_end(error ? error : fill(at, value, 4, num, NULL));
}

API cuMemsetD8Async(Address at, unsigned char value, size_t num, void *stream) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : fill(at, value, 1, num, stream));
}

API cuMemsetD32Async(Address at, unsigned value, size_t num, void *stream) {
  int error = call_begin(__func__, USUAL);
  return call_end(error ? error : fill(at, value, 4, num, stream));
}
