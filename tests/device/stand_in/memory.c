// SPDX-License-Identifier: Apache-2.0
// Memory. That of the device is made by the checker of the fiber machine, full of NaN, and the host is
// given addresses that it cannot follow; pinned memory is the host's own.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>
#include <string.h>

#include "tests/simt/simt.h"

enum { PAGE = 4096 };
static const Address OFFSET = (Address)1 << 52;  // no address of a process has it

static Block *blocks;  // live ones
static int num, cap;

bool is_device_address(Address at) { return at & OFFSET; }

const Block *memory_block(Address at) {
  for (int i = 0; i < num; i++)
    if (at - blocks[i].at < blocks[i].bytes) return &blocks[i];
  return NULL;
}

char *memory_at(Address at, size_t bytes) {
  const Block *b = memory_block(at);
  if (!b || b->is_pinned || bytes > b->bytes - (at - b->at)) return NULL;
  return b->data + (at - b->at);
}

const Block *memory_next(int *i) { return *i < num ? &blocks[(*i)++] : NULL; }

void memory_written(const char *at, size_t bytes) { simt_wrote(at, (int64_t)bytes); }

static void forget(const Block *b) {
  b->context->used_bytes -= b->is_pinned ? 0 : (int64_t)b->bytes;
  blocks[b - blocks] = blocks[--num];
}

static int take(Address *at, size_t bytes) {
  Context *c = context_current();
  if (!bytes) return refuse(INVALID_VALUE, "no bytes");
  if (bytes > (size_t)(device_bytes() - c->used_bytes))
    return refuse(OUT_OF_MEMORY, "%zu bytes of %lld", bytes,
                  (long long)(device_bytes() - c->used_bytes));
  char *data = simt_buffer("device memory", (int64_t)bytes, false);
  Block b = {.at = OFFSET + (Address)(uintptr_t)data,
             .data = data,
             .bytes = bytes,
             .context = c,
             .made_by = call_name()};
  MD_PUSH(blocks, num, cap, b);
  c->used_bytes += (int64_t)bytes;
  *at = b.at;
  return 0;
}

API cuMemAlloc_v2(Address *at, size_t bytes) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT | UNSAFE);
  return call_end(error ? error : take(at, bytes));
}

// Waits for all work, as the driver does.
static int give_back(Address at) {
  const Block *b = memory_block(at);
  if (!b || b->is_pinned || b->at != at) return refuse(INVALID_VALUE, "no memory begins there");
  if (graph_execs_use(b->at, b->bytes))
    return refuse(INVALID_VALUE, "a graph that can still be launched uses this memory");
  stream_run_all(b->context);
  simt_free_buffer(b->data);
  forget(b);
  return 0;
}

API cuMemFree_v2(Address at) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT | UNSAFE);
  int bad = call_releases(error) ? give_back(at) : 0;
  return call_end(error ? error : bad);
}

API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT);
  if (!error) {
    *total = (size_t)device_bytes();
    *free_bytes = *total - (size_t)context_current()->used_bytes;
  }
  return call_end(error);
}

// --- pinned

static int pin(void **at, size_t bytes) {
  if (!bytes) return refuse(INVALID_VALUE, "no bytes");
  char *data = aligned_alloc(PAGE, (size_t)md_round_up((int64_t)bytes, PAGE));
  MD_ASSERT(data, "out of memory");
  memset(data, 0xff, bytes);
  Block b = {.at = (Address)(uintptr_t)data,
             .data = data,
             .bytes = bytes,
             .is_pinned = true,
             .context = context_current(),
             .made_by = call_name()};
  MD_PUSH(blocks, num, cap, b);
  *at = data;
  return 0;
}

API cuMemHostAlloc(void **at, size_t bytes, unsigned flags) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT | UNSAFE);
  if (!error && flags > 7) error = refuse(INVALID_VALUE, "flags %u", flags);
  return call_end(error ? error : pin(at, bytes));
}

API cuMemAllocHost_v2(void **at, size_t bytes) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT | UNSAFE);
  return call_end(error ? error : pin(at, bytes));
}

static int unpin(const void *at) {
  const Block *b = memory_block((Address)(uintptr_t)at);
  if (!b || !b->is_pinned || b->data != at)
    return refuse(INVALID_VALUE, "no pinned memory begins there");
  if (graph_execs_use(b->at, b->bytes))
    return refuse(INVALID_VALUE, "a graph that can still be launched uses this memory");
  stream_run_all(b->context);
  free(b->data);
  forget(b);
  return 0;
}

API cuMemFreeHost(void *at) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT | UNSAFE);
  int bad = call_releases(error) ? unpin(at) : 0;
  return call_end(error ? error : bad);
}
