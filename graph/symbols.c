// SPDX-License-Identifier: Apache-2.0
// Names of a graph text: a hash table over a list, so that both look-up and order are at hand.
#include "graph/read.h"

#include <stdlib.h>
#include <string.h>

// Of a million values the mistyped one is near.
enum { NEAREST_AMONG = 1000 };

static int *slot_of(const md_symbols *n, const char *s, int len) {
  uint64_t at = md_digest_of(s, (size_t)len).lo;
  for (uint64_t mask = (uint64_t)n->num_slots - 1;; at++) {
    int *slot = &n->slot[at & mask];
    if (!*slot) return slot;
    const md_symbol *item = &n->item[*slot - 1];
    if (item->len == len && !memcmp(item->s, s, (size_t)len)) return slot;
  }
}

static void grow(md_symbols *n) {
  int num_slots = MD_MAX(64, 2 * n->num_slots);
  free(n->slot);
  n->slot = md_calloc((size_t)num_slots, sizeof *n->slot);
  n->num_slots = num_slots;
  for (int i = 0; i < n->num; i++) *slot_of(n, n->item[i].s, n->item[i].len) = i + 1;
}

md_symbol *md_symbols_find(const md_symbols *n, const char *s, int len) {
  if (!n->num) return NULL;
  int slot = *slot_of(n, s, len);
  return slot ? &n->item[slot - 1] : NULL;
}

void md_symbols_add(md_symbols *n, const char *s, int len, md_val val) {
  md_symbol item = {s, len, val};
  if (2 * n->num >= n->num_slots) grow(n);
  MD_PUSH(n->item, n->num, n->cap, item);
  *slot_of(n, s, len) = n->num;
}

const char *md_symbols_nearest(const md_symbols *n, const char *s, int len, md_arena *a) {
  int num = MD_MIN(n->num, NEAREST_AMONG);
  const char **names = MD_NEW_ARRAY(a, const char *, num + 1);
  for (int i = 0; i < num; i++) {
    const md_symbol *item = &n->item[n->num - 1 - i];
    names[i] = md_strndup(a, item->s, (size_t)item->len);
  }
  return md_nearest(md_strndup(a, s, (size_t)len), names, num);
}

void md_symbols_free(md_symbols *n) {
  free(n->item);
  free(n->slot);
  *n = (md_symbols){0};
}
