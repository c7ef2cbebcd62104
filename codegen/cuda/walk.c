// SPDX-License-Identifier: Apache-2.0
// Walks over activations by vectors of eight channels, with sums over pixels if there are any: a block
// takes some channels and every so-manyth row of pixels.
#include "codegen/cuda/conv.h"

enum {
  MAX_COLUMNS = 128,
  ROWS_OF_SUMS = 16,  // that a thread adds in f32
  ROWS = 4,           // of a thread that has many
  MAX_PIXELS = 1 << 30
};

typedef struct Walk {
  md_cu_work *w;
  const md_cu_nest *n;
  md_cu_finish f;
  md_cu_tile tile;
  md_cu_map map;
  int64_t columns, count, parts;
  md_cu_kernel k;
} Walk;

// Sums over the pixels of all samples, of a group, or of each sample.
enum { SAMPLE_AND_CHANNEL = 1 << 0 | 1 << 1 };
static bool sums_samples(const md_cu_nest *n) {
  return n->num_reduces && n->kept == SAMPLE_AND_CHANNEL && !n->channels;
}

static bool sums_channels(const Walk *v) {
  const md_graph *g = v->w->r->g;
  for (int i = 0; i < v->n->num_reduces; i++) {
    const md_node *n = v->n->reduce[i];
    bool fits = sums_samples(v->n) ? n->op == MD_OP_sum
                                   : n->op == MD_OP_moments || n->op == MD_OP_batch_norm_sums;
    if (!fits || !md_cu_is_vector(md_type_in(g, n->in[0]))) return false;
    if (!sums_samples(v->n) && v->n->groups != v->f.groups) return false;
  }
  return true;
}

static bool is_possible(const Walk *v) {
  const md_shape *s = v->n->shape;
  if (s->rank != 5 || md_elements(s) / s->dim[1] > MAX_PIXELS || s->dim[0] % v->f.groups != 0)
    return false;
  for (int i = 0; i < v->n->num_stores; i++) {
    const md_type *t = md_type_in(v->w->r->g, v->n->store[i]);
    if (!md_cu_is_vector(t) || !md_shape_equal(&t->shape, s)) return false;
  }
  return sums_channels(v);
}

static Walk walk_of(md_cu_work *w, const md_cu_nest *n) {
  Walk v = {.w = w, .n = n};
  int64_t statistics = md_cu_groups(w->r);
  v.f = (md_cu_finish){.shape = n->shape,
                       .by_pixel = true,
                       .store = n->store,
                       .num_stores = n->num_stores,
                       .reduce = n->reduce,
                       .num_reduces = n->num_reduces,
                       .groups = sums_samples(n) ? n->shape->dim[0] : statistics,
                       .statistics = statistics};
  for (int i = 0; i < n->num_reduces; i++) v.f.num_sums += md_cu_num_sums(n->reduce[i]);
  return v;
}

static void divide(Walk *v) {
  const md_shape *s = v->n->shape;
  v->tile.n = MD_CU_LANES;
  while (v->tile.n < s->dim[1] && v->tile.n < MAX_COLUMNS) v->tile.n *= 2;
  int rows = MD_CU_THREADS / (v->tile.n / MD_CU_LANES);
  for (int i = 0; i < 3; i++)
    v->map.axis[i] = (md_cu_axis_map){.num = s->dim[2 + i], .out_step = 1};
  v->columns = md_ceil_div(s->dim[1], v->tile.n);
  v->count = md_cu_map_places(&v->map) * (s->dim[0] / v->f.groups);
  int64_t most = (v->f.num_sums ? MD_CU_SUM_BLOCKS : MD_CU_BLOCKS) / (v->columns * v->f.groups);
  bool many = v->count >= (int64_t)rows * ROWS * MD_MAX(most, 1);
  v->tile.m = rows * (v->f.num_sums ? ROWS_OF_SUMS : many ? ROWS : 1);
  v->parts = MD_MIN(md_ceil_div(v->count, v->tile.m), MD_MAX(most, 1));
}

static int shared_bytes(const Walk *v) {
  return md_cu_thread_sums_bytes(&v->f, &v->tile) + md_cu_sums_bytes(&v->f, &v->tile) +
         md_cu_table_bytes(&v->f.lanes);
}

static void choose_table(Walk *v) {
  md_cu_kernel k;
  md_cu_begin(&k, v->w, "to be measured");
  md_cu_finish_texts(&k, &v->f);
  v->f.no_table = shared_bytes(v) > md_cu_shared_limit(v->w);
  md_cu_lanes_free(&v->f.lanes);
}

static void put_shared(Walk *v) {
  md_cu_kernel *k = &v->k;
  int at = md_cu_thread_sums_bytes(&v->f, &v->tile);
  k->shared_bytes = shared_bytes(v);
  if (!k->shared_bytes) return;
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  if (v->f.num_sums)
    md_cu_line(k, "[sum][column]", "double *const sums = (double *)(shared + %d);", at);
  at += md_cu_sums_bytes(&v->f, &v->tile);
  if (v->f.lanes.num_slots)
    md_cu_line(k, NULL, "float *const etable = (float *)(shared + %d);", at);
  md_cu_put_table(k, &v->f.lanes);
  md_cu_put_sums(k, &v->f, &v->tile);
  md_cu_line(k, NULL, "md_sync();");
}

static void put_kernel(Walk *v) {
  md_cu_kernel *k = &v->k;
  md_cu_begin(k, v->w, v->f.num_sums ? "sums of vectors" : "walk of vectors");
  md_cu_finish_texts(k, &v->f);
  put_shared(v);
  md_cu_put_block(k, v->columns, v->tile.n, v->parts, v->n->shape->dim[0], v->f.groups);
  const char *count = md_cu_count(k, "pixels", v->count);
  md_cu_mark loop = md_cu_open(k, NULL, "for (int m0 = part * %d; m0 < %s; m0 += %s) {", v->tile.m,
                               count, md_cu_count(k, "stride", v->parts * v->tile.m));
  md_cu_put_each_vector(k, &v->f, &v->tile, &v->map, count);
  if (v->f.num_sums) md_cu_put_thread_sums(k, &v->f, &v->tile);
  md_cu_close(k, loop);
  if (v->f.num_sums) md_cu_line(k, NULL, "%s", k->sync);
  md_cu_put_parts(k, &v->f, &v->tile, "part");
  md_cu_lanes_free(&v->f.lanes);
  md_cu_end(k, v->columns * v->parts * v->f.groups);
}

bool md_cu_vector_walk(md_cu_work *w, const md_cu_nest *n) {
  Walk v = walk_of(w, n);
  if (!is_possible(&v)) return false;
  divide(&v);
  choose_table(&v);
  md_cu_sums_place(w, &v.f, &v.tile, v.parts);
  put_kernel(&v);
  return true;
}
