// SPDX-License-Identifier: Apache-2.0
// Handles. A handle is no address, so that nothing can be done with it but to give it back; a number is
// never used twice, so that a stale one is found out.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>

typedef struct Slot {
  Kind kind;  // 0: gone
  void *object;
  const char *made_by;
} Slot;

static Slot *slots;
static int num, cap;

static const uintptr_t MARK = (uintptr_t)1 << 52;  // no address of a process has it

void *handle_new(Kind kind, void *object) {
  MD_PUSH(slots, num, cap, ((Slot){kind, object, call_name()}));
  return (void *)(MARK | (uintptr_t)num << 8 | kind);
}

static Slot *slot_of(Kind kind, const void *handle) {
  uintptr_t h = (uintptr_t)handle, i = (h & ~MARK) >> 8;
  if (!(h & MARK) || i < 1 || i > (uintptr_t)num || (h & 0xff) != kind) return NULL;
  Slot *s = &slots[i - 1];
  return s->kind == kind ? s : NULL;
}

void *handle_find(Kind kind, const void *handle) {
  const Slot *s = slot_of(kind, handle);
  return s ? s->object : NULL;
}

void handle_drop(Kind kind, const void *handle) {
  Slot *s = slot_of(kind, handle);
  MD_ASSERT(s, "a handle is dropped twice");
  *s = (Slot){.object = NULL};
}

void *handle_next(Kind kind, int *i, const char **made_by) {
  for (; *i < num; ++*i) {
    if (slots[*i].kind != kind) continue;
    *made_by = slots[*i].made_by;
    return slots[(*i)++].object;
  }
  return NULL;
}
