// SPDX-License-Identifier: Apache-2.0
// Launches side by side. A launch costs some microseconds, and the step of a deep network has hundreds
// that do next to nothing: weights brought into order, sums merged, states updated. Those wait, in
// waves: none needs what another of its wave makes, and what it needs is made by waves before. A wave
// becomes one launch as soon as somebody outside needs it. Large ones run beside their like in another network (passes/pair.c),
// and products beside products.
//
// Two launches keep their order where one writes what the other touches. Parts of a gradient that wait
// to be added up take memory, so they do not wait for long.
#include "codegen/cuda/gen.h"

#include <stdlib.h>
#include <string.h>

enum {
  SMALL_SHARED = 16 << 10,
  SMALL_BYTES = 128 << 20,  // larger ones are worth a launch, and registers of their own
  SMALL_ARGS = 240,
  SMALL_VALUE = 1 << 20,
  MAX_KINDS = 48,             // of a wave: bounds what is compiled at once
  WAITING_BYTES = 128 << 20,  // of the workspace, to be read
  AHEAD = 12,                 // launches, that a large one may pass
};

typedef struct Waiting {
  const md_cuda_launch *launch;
  int wave;
} Waiting;

typedef struct Join {
  md_cuda_module *m;
  const md_graph *g;
  md_arena *scratch;
  const int *like;       // by region: the other of its pair, or 0
  md_cuda_launch *from;  // launches of regions
  int num;
  Waiting *waiting;
  int num_waiting;
  int64_t bytes;           // that those read in the workspace
  md_cuda_launch *to;      // the launches to be
  md_cuda_kernel *kernel;  // and their kernels
  md_cuda_kernel *part;    // kernels that others call
  int num_to, cap_to, num_kernels, cap_kernels, num_parts, cap_parts;
} Join;

// --- what depends on what

static bool overlaps(const md_graph *g, const md_cuda_arg *a, const md_cuda_arg *b) {
  if ((a->val == MD_NONE) != (b->val == MD_NONE)) return false;
  if (a->val != MD_NONE) return md_shares_memory(g, a->val, b->val);
  return a->workspace < b->workspace + b->bytes && b->workspace < a->workspace + a->bytes;
}

static bool depend(const md_graph *g, const md_cuda_launch *x, const md_cuda_launch *y) {
  for (int i = 0; i < x->num_args; i++)
    for (int k = 0; k < y->num_args; k++)
      if ((x->arg[i].write || y->arg[k].write) && overlaps(g, &x->arg[i], &y->arg[k])) return true;
  return false;
}

// What it takes of a launch that stands for it and others: its blocks may be a count, too.
static int num_params(const md_cuda_launch *l) { return l->num_args + l->num_counts + l->is_told; }

static bool is_small(const md_cuda_launch *l) {
  int64_t bytes = 0;
  for (int i = 0; i < l->num_args; i++) bytes += l->arg[i].bytes;
  return l->threads == MD_CU_THREADS && l->shared_bytes <= SMALL_SHARED && bytes <= SMALL_BYTES &&
         num_params(l) <= SMALL_ARGS;
}

// What it keeps of the workspace until it runs.
static int64_t read_bytes(const md_cuda_launch *l) {
  int64_t bytes = 0;
  for (int i = 0; i < l->num_args; i++)
    if (l->arg[i].val == MD_NONE && l->arg[i].read) bytes += l->arg[i].bytes;
  return bytes;
}

// --- before: early launches go to the front, and values out of the way

static void move_early(Join *j) {
  for (int i = 1; i < j->num; i++) {
    md_cuda_launch l = j->from[i];
    int to = i;
    while (l.is_early && to > 0 && !depend(j->g, &j->from[to - 1], &l)) to--;
    memmove(&j->from[to + 1], &j->from[to], sizeof l * (size_t)(i - to));
    j->from[to] = l;
  }
}

// Values that lie in the arena until the step's end, or in a state, stay there.
static bool *find_fixed(const Join *j) {
  const md_graph *g = j->g;
  bool *fixed = MD_NEW_ARRAY(j->scratch, bool, g->num_values + 1);
  for (md_val v = 1; v <= (md_val)g->num_values; v++)
    fixed[v] = md_ops[md_def(g, v)->op].role == MD_LEAF || g->value[v].storage != MD_NONE;
  for (int i = 0; i < g->num_nodes; i++) {  // what is changed in part stays where it is
    const md_node *n = g->node[i];
    if (n->op == MD_OP_bank_push && md_same_memory(g, n->in[0], n->out))
      fixed[n->in[0]] = fixed[n->out] = true;
  }
  for (int i = 0; i < g->num_results; i++) fixed[g->result[i].val] = true;
  for (int i = 0; i < g->num_updates; i++) fixed[g->update[i].val] = true;
  return fixed;
}

// A small value, and one that small launches alone touch, lies in the workspace: in the arena its place
// would be written over while those wait.
static void move_values(Join *j) {
  bool *fixed = find_fixed(j);
  for (int i = 0; i < j->num; i++) {
    const md_cuda_launch *l = &j->from[i];
    for (int k = 0; k < l->num_args; k++)
      fixed[l->arg[k].val] |= l->arg[k].bytes > SMALL_VALUE && !is_small(l);
  }
  md_cu_work w = {.module = j->m};
  int64_t *place = MD_NEW_ARRAY(j->scratch, int64_t, j->g->num_values + 1);
  bool *moved = MD_NEW_ARRAY(j->scratch, bool, j->g->num_values + 1);
  for (int i = 0; i < j->num; i++) {
    for (int k = 0; k < j->from[i].num_args; k++) {
      md_cuda_arg *a = &j->from[i].arg[k];
      if (a->val == MD_NONE || fixed[a->val]) continue;
      if (!moved[a->val]) place[a->val] = md_cu_reserve(&w, a->bytes);
      moved[a->val] = true;
      j->from[i].is_moved = true;
      a->workspace = place[a->val];
      a->val = MD_NONE;
    }
  }
}

// --- large launches side by side

static int num_beside(const Join *j, int first) {
  int num = 1;
  while (first + num < j->num && j->from[first + num].is_beside &&
         j->from[first + num].threads == j->from[first].threads)
    num++;
  return num;
}

// A block has a multiprocessor for itself.
static bool is_product(const md_cuda_launch *l) { return l->threads > MD_CU_THREADS; }

// Launch number `at` can run as soon as `first` does.
static bool can_pass(const Join *j, int first, int at) {
  for (int i = first; i < at; i++)
    if (depend(j->g, &j->from[i], &j->from[at])) return false;
  return true;
}

// The same of the pair's other region: both are as large, and together they fill the device to its end.
static bool is_like(const Join *j, const md_cuda_launch *a, const md_cuda_launch *b) {
  return !is_small(a) && a->region > 0 && b->region > 0 && j->like[a->region] == b->region &&
         a->threads == b->threads && a->blocks == b->blocks;
}

// While the blocks of one wait for memory, those of the other multiply.
static bool are_products(const md_cuda_launch *a, const md_cuda_launch *b) {
  return is_product(a) && is_product(b) && a->threads == b->threads;
}

// The first launch behind number i .. i + num - 1 that suits it and can run at once with it; -1: none.
static int find_beside(const Join *j, int i, int num, bool like) {
  const md_cuda_launch *l = &j->from[i];
  for (int at = i + num; at < MD_MIN(j->num, i + num + AHEAD); at++) {
    bool suits = like ? is_like(j, l, &j->from[at]) : are_products(l, &j->from[at]);
    if (suits && num_beside(j, at) == 1 && can_pass(j, i, at)) return at;
  }
  return -1;
}

// Large launches that do not depend on each other run side by side: those of a pair, and products.
static void move_beside(Join *j) {
  for (int i = 0, num; i < j->num; i += num) {
    num = num_beside(j, i);
    int at = find_beside(j, i, num, true);
    if (at < 0) at = find_beside(j, i, num, false);
    if (at < 0) continue;
    md_cuda_launch l = j->from[at];
    memmove(&j->from[i + num + 1], &j->from[i + num], sizeof l * (size_t)(at - i - num));
    l.is_beside = true;
    j->from[i + num++] = l;
  }
}

// --- the launches to be

static int kernel_number(Join *j, md_cuda_kernel k) {
  for (int i = 0; i < j->num_kernels; i++)
    if (!strcmp(j->kernel[i].symbol, k.symbol)) return i;
  MD_PUSH(j->kernel, j->num_kernels, j->cap_kernels, k);
  return j->num_kernels - 1;
}

static void note_part(Join *j, md_cuda_kernel k) {
  for (int i = 0; i < j->num_parts; i++)
    if (!strcmp(j->part[i].symbol, k.symbol)) return;
  MD_PUSH(j->part, j->num_parts, j->cap_parts, k);
}

static void emit(Join *j, md_cuda_launch l, md_cuda_kernel k) {
  l.number = kernel_number(j, k);
  snprintf(l.kernel, sizeof l.kernel, "k%d", l.number);
  MD_PUSH(j->to, j->num_to, j->cap_to, l);
}

static void emit_beside(Join *j, const md_cuda_launch *part, int num) {
  if (num == 1) {
    emit(j, part[0], j->m->kernel[part[0].number]);
    return;
  }
  for (int i = 0; i < num; i++) note_part(j, j->m->kernel[part[i].number]);
  md_cuda_launch joint;
  md_cuda_kernel k = md_cu_joint(j->m, part, num, &joint);
  emit(j, joint, k);
}

// The first wave; the others move up.
static void emit_wave(Join *j) {
  md_cuda_launch *part = MD_NEW_ARRAY(j->scratch, md_cuda_launch, j->num_waiting + 1);
  int num = 0, left = 0;
  j->bytes = 0;
  for (int i = 0; i < j->num_waiting; i++) {
    Waiting w = j->waiting[i];
    if (w.wave == 0) {
      part[num++] = *w.launch;
      continue;
    }
    w.wave--;
    j->waiting[left++] = w;
    j->bytes += read_bytes(w.launch);
  }
  j->num_waiting = left;
  emit_beside(j, part, num);
}

// Waves that must run before l does.
static int waves_before(const Join *j, const md_cuda_launch *l) {
  int waves = 0;
  for (int i = 0; i < j->num_waiting; i++)
    if (j->waiting[i].wave >= waves && depend(j->g, j->waiting[i].launch, l))
      waves = j->waiting[i].wave + 1;
  return waves;
}

static bool has_room(const Join *j, int wave, const md_cuda_launch *l) {
  int args = num_params(l), kinds = 1;
  for (int i = 0; i < j->num_waiting; i++) {
    if (j->waiting[i].wave != wave) continue;
    const md_cuda_launch *o = j->waiting[i].launch;
    bool is_new = o->number != l->number;
    for (int k = 0; is_new && k < i; k++)
      is_new = j->waiting[k].wave != wave || j->waiting[k].launch->number != o->number;
    args += num_params(o);
    kinds += is_new;
  }
  return args <= MD_CU_MAX_ARGS && kinds <= MAX_KINDS;
}

static void add_large(Join *j, const md_cuda_launch *l, int num) {
  for (int i = 0; i < num; i++)
    for (int waves = waves_before(j, &l[i]); waves > 0; waves--) emit_wave(j);
  emit_beside(j, l, num);
}

static void add_small(Join *j, const md_cuda_launch *l) {
  int wave = waves_before(j, l);
  while (!has_room(j, wave, l)) wave++;
  j->waiting[j->num_waiting++] = (Waiting){l, wave};
  j->bytes += read_bytes(l);
  while (j->bytes > WAITING_BYTES) emit_wave(j);
}

void md_cu_join(md_cuda_module *m, const md_graph *g) {
  Join j = {
      .m = m, .g = g, .scratch = md_arena_create(), .from = m->launch, .num = m->num_launches};
  j.waiting = MD_NEW_ARRAY(j.scratch, Waiting, j.num + 1);
  j.like = md_pairs_of(g, j.scratch);
  move_values(&j);
  move_early(&j);
  move_beside(&j);
  for (int i = 0, num; i < j.num; i += num) {
    num = num_beside(&j, i);
    if (num == 1 && is_small(&j.from[i])) add_small(&j, &j.from[i]);
    else add_large(&j, &j.from[i], num);
  }
  while (j.num_waiting) emit_wave(&j);
  free(m->launch);
  free(m->kernel);
  m->launch = j.to;
  m->num_launches = j.num_to;
  m->cap_launches = j.cap_to;
  m->kernel = j.kernel;
  m->num_kernels = j.num_kernels;
  m->cap_kernels = j.cap_kernels;
  md_cu_list(m, j.part, j.num_parts);
  free(j.part);
  md_arena_destroy(j.scratch);
}
