// SPDX-License-Identifier: Apache-2.0
// Bump allocation in a list of chunks. The chunk in use is the first; a big object gets a chunk of
// its own behind it, so that the room left in the first is not lost:
//
//   arena -> [header | used .... | free ..] -> [header | big object] -> [header | used, full] -> NULL
//
// The hostile build keeps a plain array of pointers instead: each object is an allocation of its own.
#include "base/arena.h"

#include "base/base.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16, FIRST_CHUNK = 16 << 10, LARGEST_CHUNK = 1 << 20 };

typedef struct chunk {
  _Alignas(ALIGN) struct chunk *next;
  size_t used, size;  // bytes after the header
} chunk;

struct md_arena {
  chunk *chunks;
  void **objects;  // of the hostile build
  int num_objects, cap_objects;
  size_t bytes;
};

static size_t rounded(size_t bytes) { return (bytes + ALIGN - 1) / ALIGN * ALIGN; }

#ifdef MODIST_HOSTILE_ARENA
static void *new_object(md_arena *a, size_t bytes) {
  void *p = md_calloc(1, bytes ? bytes : 1);
  MD_PUSH(a->objects, a->num_objects, a->cap_objects, p);
  return p;
}
#else
static chunk *new_chunk(size_t size) {
  if (size > SIZE_MAX - sizeof(chunk)) md_out_of_memory(size);
  chunk *c = md_malloc(sizeof(chunk) + size);
  *c = (chunk){.size = size};
  return c;
}

static void *take(chunk *c, size_t bytes) {
  char *p = (char *)(c + 1) + c->used;
  c->used += bytes;
  return memset(p, 0, bytes);
}

// One place in the first chunk, in a new first chunk, or in a chunk of its own.
static void *new_object(md_arena *a, size_t bytes) {
  bytes = bytes ? rounded(bytes) : ALIGN;
  chunk *first = a->chunks;
  if (first && first->size - first->used >= bytes) return take(first, bytes);
  if (first && bytes >= LARGEST_CHUNK / 4) {
    chunk *own = new_chunk(bytes);
    own->next = first->next;
    first->next = own;
    return take(own, bytes);
  }
  size_t size = first ? MD_MIN(2 * first->size, (size_t)LARGEST_CHUNK) : (size_t)FIRST_CHUNK;
  chunk *c = new_chunk(MD_MAX(size, bytes));
  c->next = first;
  a->chunks = c;
  return take(c, bytes);
}
#endif

void md_out_of_memory(size_t bytes) {
  // No exit handlers: other threads may still run, and those of libraries may want memory.
  fprintf(stderr, "modist: out of memory (%zu bytes more were needed)\n", bytes);
  fflush(stderr);
  _Exit(MD_ERR_MEMORY);
}

md_arena *md_arena_create(void) { return md_calloc(1, sizeof(md_arena)); }

void md_arena_reset(md_arena *a) {
  for (chunk *c = a->chunks, *next; c; c = next) {
    next = c->next;
    free(c);
  }
  for (int i = 0; i < a->num_objects; i++) free(a->objects[i]);
  free(a->objects);
  *a = (md_arena){0};
}

void md_arena_destroy(md_arena *a) {
  if (!a) return;
  md_arena_reset(a);
  free(a);
}

size_t md_arena_bytes(const md_arena *a) { return a->bytes; }

void *md_alloc(md_arena *a, size_t bytes) {
  if (bytes > SIZE_MAX / 2) md_out_of_memory(bytes);
  a->bytes += rounded(bytes);
  return new_object(a, bytes);
}

void *md_alloc_array(md_arena *a, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes)) md_out_of_memory(SIZE_MAX);
  return md_alloc(a, bytes);
}

char *md_strndup(md_arena *a, const char *s, size_t len) {
  len = strnlen(s, len);
  char *copy = md_alloc(a, len + 1);
  memcpy(copy, s, len);
  return copy;
}

char *md_strdup(md_arena *a, const char *s) { return md_strndup(a, s, strlen(s)); }

char *md_format(md_arena *a, const char *fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  int len = vsnprintf(NULL, 0, fmt, args);
  va_end(args);
  MD_ASSERT(len >= 0, "format '%s' cannot be printed", fmt);
  char *s = md_alloc(a, (size_t)len + 1);
  vsnprintf(s, (size_t)len + 1, fmt, again);
  va_end(again);
  return s;
}
