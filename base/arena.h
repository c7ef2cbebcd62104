// SPDX-License-Identifier: Apache-2.0
// An arena: many small objects with one lifetime. Nothing in it is freed alone.
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>
#include <stdlib.h>

typedef struct md_arena md_arena;

// Prints how much was wanted and ends the process (exit code 6).
_Noreturn void md_out_of_memory(size_t bytes);
// As malloc and calloc, for what is freed alone, but never NULL.
static inline void *md_malloc(size_t bytes) {
  void *p = malloc(bytes ? bytes : 1);
  if (!p) md_out_of_memory(bytes);
  return p;
}
static inline void *md_calloc(size_t count, size_t size) {
  void *p = calloc(count ? count : 1, size ? size : 1);
  if (!p) md_out_of_memory(count * size);
  return p;
}

// Never returns NULL: out of memory ends the process with a message (exit code 6).
md_arena *md_arena_create(void);
void md_arena_destroy(md_arena *a);
// Frees every object, keeps the arena.
void md_arena_reset(md_arena *a);
size_t md_arena_bytes(const md_arena *a);

// Zeroed memory, aligned to 16 bytes. With MODIST_HOSTILE_ARENA each object is an allocation of its
// own, so that AddressSanitizer sees overruns.
void *md_alloc(md_arena *a, size_t bytes);
#define MD_NEW(arena, T) ((T *)md_alloc((arena), sizeof(T)))
// Checked product: an impossible size ends the process like any out-of-memory.
void *md_alloc_array(md_arena *a, size_t count, size_t size);
#define MD_NEW_ARRAY(arena, T, n) ((T *)md_alloc_array((arena), (size_t)(n), sizeof(T)))

char *md_strdup(md_arena *a, const char *s);
char *md_strndup(md_arena *a, const char *s, size_t len);
char *md_format(md_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
