// SPDX-License-Identifier: Apache-2.0
// Places in the workspace. Each is in use from the first launch that takes it to the last; places that
// are not in use together may share bytes. The largest is placed first, as low as it can be.
#include "codegen/cuda/gen.h"

#include <stdlib.h>

typedef struct Use {
  int64_t begin, bytes, offset;
  int from, to, next;  // next: among those placed, by offset
} Use;

static int larger_first(const void *a, const void *b) {
  const Use *x = *(const Use *const *)a, *y = *(const Use *const *)b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x->begin < y->begin ? -1 : 1;
}

// Places are made in order, each behind the one before.
static Use *use_at(Use *use, int num, int64_t at) {
  int lo = 0, hi = num;
  while (hi - lo > 1) {
    int mid = (lo + hi) / 2;
    if (use[mid].begin <= at) lo = mid;
    else hi = mid;
  }
  return &use[lo];
}

static void find_uses(const md_cuda_module *m, Use *use) {
  for (int i = 0; i < m->num_places; i++)
    use[i] = (Use){.begin = m->place[i].begin,
                   .bytes = md_round_up(m->place[i].bytes, MD_CU_PLACE_ALIGN),
                   .from = -1};
  for (int i = 0; i < m->num_launches; i++) {
    for (int k = 0; k < m->launch[i].num_args; k++) {
      const md_cuda_arg *a = &m->launch[i].arg[k];
      if (a->val != MD_NONE) continue;
      Use *u = use_at(use, m->num_places, a->workspace);
      if (u->from < 0) u->from = i;
      u->to = i;
    }
  }
}

static int64_t find_room(const Use *use, int head, const Use *u) {
  int64_t end = 0;
  for (int i = head; i >= 0; i = use[i].next) {
    const Use *o = &use[i];
    if (o->to < u->from || o->from > u->to) continue;
    if (o->offset - end >= u->bytes) break;
    end = MD_MAX(end, o->offset + o->bytes);
  }
  return end;
}

static int64_t place_all(Use *use, int num, md_arena *a) {
  Use **order = MD_NEW_ARRAY(a, Use *, num + 1);
  for (int i = 0; i < num; i++) order[i] = &use[i];
  qsort(order, (size_t)num, sizeof *order, larger_first);
  int head = -1;
  int64_t bytes = 0;
  for (int i = 0; i < num; i++) {
    Use *u = order[i];
    if (u->from < 0) continue;  // nobody takes it
    u->offset = find_room(use, head, u);
    bytes = MD_MAX(bytes, u->offset + u->bytes);
    int *link = &head;
    while (*link >= 0 && use[*link].offset <= u->offset) link = &use[*link].next;
    u->next = *link;
    *link = (int)(u - use);
  }
  return bytes;
}

static void move(const md_cuda_launch *l, Use *use, int num) {
  for (int k = 0; k < l->num_args; k++) {
    md_cuda_arg *a = &l->arg[k];
    if (a->val != MD_NONE) continue;
    const Use *u = use_at(use, num, a->workspace);
    a->workspace += u->offset - u->begin;
  }
}

void md_cu_share_workspace(md_cuda_module *m) {
  md_arena *a = md_arena_create();
  Use *use = MD_NEW_ARRAY(a, Use, m->num_places + 1);
  find_uses(m, use);
  m->workspace_bytes = place_all(use, m->num_places, a);
  for (int i = 0; i < m->num_launches; i++) {
    move(&m->launch[i], use, m->num_places);
    for (int k = 0; k < m->launch[i].num_parts; k++)
      move(&m->launch[i].part[k], use, m->num_places);
  }
  md_arena_destroy(a);
}
