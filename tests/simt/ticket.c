// SPDX-License-Identifier: Apache-2.0
// Tickets: the last of some blocks to ask for one sees what the others had done before they asked. Each
// block leaves what was over for the asking thread; the last block gets all of it, and what those had got
// themselves. Blocks run one after another here, so the order is theirs.
#include "tests/simt/machine.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"

// Of a block: from the epoch in which it began to what was over when it asked.
typedef struct Past {
  uint32_t begin;
  simt_past over;
} Past;

typedef struct Ticket {
  const void *at;
  Past *past;
  int num, cap;
} Ticket;

static struct Tickets {
  Ticket *ticket;
  int num, cap;
  uint32_t begin;  // of the block
  Past *known;     // to it
  int num_known, cap_known;
} T;

void simt_ticket_launch(void) {
  for (int i = 0; i < T.num; i++) free(T.ticket[i].past);
  T.num = 0;
}

void simt_ticket_block(void) {
  T.begin = simt_order_epoch();
  T.num_known = 0;
}

bool simt_ticket_knows(simt_moment m) {
  for (int i = 0; i < T.num_known; i++) {
    const simt_past *over = &T.known[i].over;
    if (m.epoch < T.known[i].begin || m.epoch > over->epoch) continue;
    if (m.epoch < over->epoch || m.clock <= over->heard[m.thread]) return true;
  }
  return false;
}

static Ticket *ticket_at(const void *at) {
  for (int i = 0; i < T.num; i++)
    if (T.ticket[i].at == at) return &T.ticket[i];
  MD_PUSH(T.ticket, T.num, T.cap, ((Ticket){.at = at}));
  return &T.ticket[T.num - 1];
}

static void leave(Ticket *t) {
  Past mine = {.begin = T.begin};
  simt_order_tell(&mine.over);
  MD_PUSH(t->past, t->num, t->cap, mine);
  for (int i = 0; i < T.num_known; i++) MD_PUSH(t->past, t->num, t->cap, T.known[i]);
}

static void get(Ticket *t) {
  for (int i = 0; i < t->num; i++) MD_PUSH(T.known, T.num_known, T.cap_known, t->past[i]);
  t->num = 0;
}

int simt_last_(uint32_t *ticket, int num, int line);
int simt_last_(uint32_t *ticket, int num, int line) {
  simt_access_ticket(ticket, line);
  if (*ticket >= (uint32_t)num)
    simt_error(true, (simt_where){.line = line}, "a ticket for %d blocks is %u", num, *ticket);
  bool last = *ticket + 1 == (uint32_t)num;
  *ticket = last ? 0 : *ticket + 1;
  if (!simt_is_checked()) return last;
  Ticket *t = ticket_at(ticket);
  leave(t);
  if (last) get(t);
  return last;
}
