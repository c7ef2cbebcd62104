// SPDX-License-Identifier: Apache-2.0
// First values of all states, and random values of inputs. Each element is a pure function of seed,
// name and index, so the states are cut into pieces for all threads, and the outcome does not depend
// on the cut.
#include "runtime/exec/exec.h"

#include "base/init.h"

#include <stdlib.h>

enum { PIECE = 1 << 14 };  // elements; a piece of whole rows may be longer

typedef struct fill {
  const md_program *p;
  uint64_t seed;
  void *const *state;
  int64_t *first_item;  // of a state; [num_states] is the number of items
  double *buffer;       // `room` elements for each thread
  int64_t room;
} fill;

// The state whose rule gives the values; a checked program has no circles.
static const md_spec *origin(const md_program *p, const md_spec *s) {
  while (s->init == MD_INIT_copy) s = md_program_state(p, s->from);
  return s;
}

static int64_t row_of(const md_spec *s) { return s->rank > 0 ? s->dim[s->rank - 1] : 1; }

// Only unit_rows needs whole rows, but equal pieces for all are simpler.
static int64_t piece_of(const md_spec *s) {
  int64_t row = row_of(s);
  return row * MD_MAX(1, PIECE / row);
}

static void fill_piece(void *ctx, int64_t item, int thread) {
  const fill *f = ctx;
  int lo = 0, hi = f->p->num_states;  // first_item[lo] <= item < first_item[hi]
  while (hi - lo > 1) {
    int mid = (lo + hi) / 2;
    if (f->first_item[mid] <= item) lo = mid;
    else hi = mid;
  }
  const md_spec *s = &f->p->state[lo], *rule = origin(f->p, s);
  int64_t piece = piece_of(s), first = (item - f->first_item[lo]) * piece;
  int64_t n = MD_MIN(piece, md_spec_elements(s) - first);
  double *x = f->buffer + thread * f->room;
  md_init_values((md_init)rule->init, rule->a, rule->b, rule->name, f->seed, row_of(s), first, n,
                 x);
  for (int64_t i = 0; i < n; i++) md_element_store(s->dtype, f->state[lo], first + i, x[i]);
}

void md_fill_input(const char *name, md_dtype t, int64_t n, uint64_t seed, void *to) {
  uint64_t key = md_hash_key(name, seed);
  uint8_t *byte = to;
  if (t == MD_U8) {  // videos: there are many
    for (int64_t i = 0; i < n; i++) byte[i] = (uint8_t)(md_hash_at(key, (uint64_t)i) >> 56);
    return;
  }
  bool is_float = md_dtype_is_float(t);
  for (int64_t i = 0; i < n; i++) {
    double x =
        is_float ? md_hash_unit(key, (uint64_t)i) : (double)(md_hash_at(key, (uint64_t)i) >> 63);
    md_element_store(t, to, i, x);
  }
}

void md_fill_states(const md_program *p, uint64_t seed, md_pool *pool, void *const *state) {
  if (p->num_states == 0) return;
  fill f = {.p = p, .seed = seed, .state = state, .room = 1};
  f.first_item = md_calloc((size_t)p->num_states + 1, sizeof *f.first_item);
  for (int i = 0; i < p->num_states; i++) {
    const md_spec *s = &p->state[i];
    f.first_item[i + 1] = f.first_item[i] + md_ceil_div(md_spec_elements(s), piece_of(s));
    f.room = MD_MAX(f.room, MD_MIN(piece_of(s), md_spec_elements(s)));
  }
  size_t elements = (size_t)f.room * (size_t)md_pool_threads(pool);
  f.buffer = md_malloc(elements * sizeof *f.buffer);
  md_pool_run(pool, f.first_item[p->num_states], fill_piece, &f);
  free(f.buffer);
  free(f.first_item);
}
