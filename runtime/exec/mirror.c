// SPDX-License-Identifier: Apache-2.0
// Copies in host memory of states, results and arguments that lie on a GPU. Nothing is copied unless
// somebody asks, and then once until the device goes on. Their memory comes with the first question and
// stays, so that addresses hold for the life of a run.
#include "runtime/exec/device.h"

#include <stdlib.h>

typedef struct copy {
  md_block block;
  int64_t age;      // of the device when it was made; 0: never
  bool is_written;  // the caller may write it, or has
} copy;

struct md_mirror {
  md_device *v;
  int64_t age;  // how often the device went on
  copy *state, *result, arg;
};

static copy *copies(int num) { return md_calloc((size_t)num + 1, sizeof(copy)); }

md_mirror *md_mirror_create(md_device *v) {
  md_mirror *m = md_calloc(1, sizeof *m);
  m->v = v;
  m->age = 1;
  m->state = copies(v->p->num_states);
  m->result = copies(v->p->num_results);
  return m;
}

void md_mirror_destroy(md_mirror *m) {
  if (!m) return;
  for (int i = 0; i < m->v->p->num_states; i++) md_block_destroy(&m->state[i].block);
  for (int i = 0; i < m->v->p->num_results; i++) md_block_destroy(&m->result[i].block);
  md_block_destroy(&m->arg.block);
  free(m->state);
  free(m->result);
  free(m);
}

void md_mirror_age(md_mirror *m) { m->age++; }

static void *fresh(md_mirror *m, copy *c, const md_arg *from) {
  if (c->age == m->age) return c->block.at;
  if (!c->block.at && !md_block_create(&c->block, from->bytes)) return NULL;
  if (!m->v->kind->get(m->v, from, c->block.at, NULL)) return NULL;
  c->age = m->age;
  return c->block.at;
}

static md_arg whole_state(const md_mirror *m, int i) {
  return (md_arg){.space = MD_IN_STATE, .index = i, .bytes = m->v->p->state[i].bytes};
}

void *md_mirror_state(md_mirror *m, int i, bool write) {
  md_arg from = whole_state(m, i);
  void *at = fresh(m, &m->state[i], &from);
  if (at && write) m->state[i].is_written = true;
  return at;
}

const void *md_mirror_result(md_mirror *m, int i) {
  return fresh(m, &m->result[i], &m->v->p->result_at[i]);
}

// The one before may have been smaller.
void *md_mirror_arg(md_mirror *m, const md_arg *a) {
  if (m->arg.block.at && (int64_t)m->arg.block.bytes < a->bytes) md_block_destroy(&m->arg.block);
  m->arg.age = 0;
  return fresh(m, &m->arg, a);
}

bool md_mirror_flush(md_mirror *m, md_diags *d) {
  for (int i = 0; i < m->v->p->num_states; i++) {
    if (!m->state[i].is_written) continue;
    md_arg to = whole_state(m, i);
    if (!m->v->kind->put(m->v, &to, m->state[i].block.at, d)) return false;
    m->state[i].is_written = false;
  }
  return true;
}
