// SPDX-License-Identifier: Apache-2.0
// Values and sums of activations, made by vectors of eight channels: behind a convolution, whose tile
// lies in shared memory, and in walks. A thread keeps its channels while it goes over pixels: what it
// stores are 16 bytes of bf16, and its sums over pixels stay with it. Those of a thread are f32, the
// others double, and their order is fixed.
#include "codegen/cuda/conv.h"

bool md_cu_is_vector(const md_type *t) {
  return t->block > 0 && t->block % MD_CU_LANES == 0 && (t->dtype == MD_BF16 || t->dtype == MD_F32);
}

// Of vector u of those that are under way together.
static md_cu_spot spot_at(const md_cu_finish *f, const md_shape *shape, md_cu_ix channel) {
  if (f->by_pixel) return (md_cu_spot){.shape = shape, .pixel = "pixel[u]", .at = {NULL, channel}};
  return (md_cu_spot){.shape = shape, .at = {"n[u]", channel, "o0[u]", "o1[u]", "o2[u]"}};
}

static md_cu_spot spot_of(const md_cu_finish *f) { return spot_at(f, f->shape, MD_CU_CHANNEL); }

static void store_texts(md_cu_kernel *k, md_cu_finish *f, const char **text) {
  const md_graph *g = k->w->r->g;
  for (int i = 0; i < f->num_stores; i++) {
    const md_type *t = md_type_in(g, f->store[i]);
    md_cu_spot s = spot_of(f);
    if (!md_cu_is_vector(t)) {
      md_cu_store(k, f->store[i], &s, text[i]);
      continue;
    }
    md_cu_line(k, NULL, "r%d.x[j] = %s;", i, text[i]);
  }
}

static void sum_texts(md_cu_kernel *k, md_cu_finish *f) {
  md_arena *a = k->w->arena;
  for (int i = 0, sum = 0; i < f->num_reduces; i++) {
    const md_node *n = f->reduce[i];
    md_cu_spot s = spot_of(f);
    const char *first = md_cu_value_as(k, n->in[0], &s, MD_CU_FLOAT), *second = first;
    if (n->op == MD_OP_batch_norm_sums) {
      md_cu_spot at = spot_of(f);
      md_cu_spot of_group = {.shape = &md_type_in(k->w->r->g, n->in[2])->shape,
                             .at = {"group", MD_CU_CHANNEL}};
      const char *y = md_cu_value_as(k, n->in[1], &at, MD_CU_FLOAT);
      second = md_format(a, "(%s - %s)", y, md_cu_value_as(k, n->in[2], &of_group, MD_CU_FLOAT));
    }
    md_cu_line(k, NULL, "s%d[j] += %s;", sum++, first);
    md_cu_line(k, NULL, "s%d[j] += %s * %s;", sum++, first, second);
  }
}

void md_cu_finish_texts(md_cu_kernel *k, md_cu_finish *f) {
  f->lanes = (md_cu_lanes){.channels = f->shape->dim[1],
                           .groups = f->groups,
                           .no_table = f->no_table,
                           .row = "[u]",
                           .first = "first",
                           .group = "group",
                           .prefix = "e"};
  md_cu_lanes_begin(k, &f->lanes);
  if (f->anchor) {
    md_cu_spot s = spot_of(f);
    md_cu_line(k, md_cu_comment(k, f->anchor->out), "const float y = %s;",
               f->narrow ? "md_h2f(tile, j)" : "tile.x[j]");
    md_cu_know(k, f->anchor->out, &s, (md_cu_term){.text = "y", .type = MD_CU_FLOAT});
  }
  const char **text = MD_NEW_ARRAY(k->w->arena, const char *, f->num_stores + 1);
  for (int i = 0; i < f->num_stores; i++) {
    md_cu_spot s = spot_of(f);
    md_cu_type type = md_cu_compute_type(md_type_in(k->w->r->g, f->store[i])->dtype);
    text[i] = md_cu_value_as(k, f->store[i], &s, type);
  }
  sum_texts(k, f);
  store_texts(k, f, text);
  md_cu_lanes_end(k);
}

// --- the kernel's part

static int chunks(const md_cu_tile *t) { return t->n / MD_CU_LANES; }

int md_cu_sums_bytes(const md_cu_finish *f, const md_cu_tile *t) { return f->num_sums * t->n * 8; }

int md_cu_thread_sums_bytes(const md_cu_finish *f, const md_cu_tile *t) {
  return f->num_sums * MD_CU_THREADS / chunks(t) * t->n * 4;
}

// How many vectors of each operand a thread has under way: memory is far.
static int at_once(const md_cu_finish *f, const md_cu_tile *t) {
  int rows = t->m * chunks(t) / MD_CU_THREADS, num = f->lanes.num_vectors;
  bool few = num > 2 || t->n > 128;  // registers
  return MD_MAX(MD_MIN(rows, few ? 2 : num ? MD_CU_AT_ONCE : 1), 1);
}

static void put_places(md_cu_kernel *k, const md_cu_finish *f, const md_cu_map *a) {
  if (f->by_pixel) {
    md_cu_line(k, NULL, "pixel[u] = sample0 * %lld + p;", (long long)md_cu_map_places(a));
    return;
  }
  md_cu_put_place(k, a, "p", "sample0");
  md_cu_line(k, NULL, "n[u] = sample;");
  for (int x = 0; x < 3; x++) {
    md_cu_ix q = md_format(k->w->arena, "q%d", x);
    md_cu_line(k, NULL, "o%d[u] = %s;", x,
               md_cu_linear(k, 1, &q, &a->axis[x].out_step, a->axis[x].out0));
  }
}

static void put_loads(md_cu_kernel *k, const md_cu_finish *f, const md_cu_map *a, int num, int step,
                      const char *places) {
  const char *type = md_cu_index_type(k);
  if (f->by_pixel) md_cu_line(k, NULL, "%s pixel[%d];", type, num);
  else md_cu_line(k, NULL, "%s n[%d];", type, num);
  if (!f->by_pixel) md_cu_line(k, NULL, "int o0[%d], o1[%d], o2[%d];", num, num, num);
  md_cu_line(k, NULL, "int in[%d];", num);
  md_cu_put_vectors(k, &f->lanes, num);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int u = 0; u < %d; u++) {", num);
  md_cu_line(k, NULL, "const int p = m0 + i + u * %d;", step);
  md_cu_line(k, NULL, "in[u] = p < %s && first < %lld;", places, (long long)f->shape->dim[1]);
  md_cu_mark in = md_cu_open(k, NULL, "if (in[u]) {");
  put_places(k, f, a);
  md_cu_put_loads(k, &f->lanes);
  md_cu_close(k, in);
  md_cu_close(k, m);
}

static void put_stores(md_cu_kernel *k, const md_cu_finish *f) {
  for (int i = 0; i < f->num_stores; i++) {
    const md_type *type = md_type_in(k->w->r->g, f->store[i]);
    if (!md_cu_is_vector(type)) continue;
    md_cu_spot s = spot_at(f, &type->shape, "first");
    md_cu_ix at = md_cu_offset(k, type, &s);
    const char *form =
        type->dtype == MD_BF16 ? "md_st_h8(%s + %s, md_round_h8(r%d));" : "md_st_f8(%s + %s, r%d);";
    md_cu_line(k, md_cu_comment(k, f->store[i]), form, md_cu_pointer(k, f->store[i], true), at, i);
  }
}

void md_cu_put_each_vector(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                           const md_cu_map *a, const char *places) {
  const md_graph *g = k->w->r->g;
  int num = at_once(f, t), step = MD_CU_THREADS / chunks(t);
  md_cu_line(k, NULL, "const int first = n0 + md_thread() %% %d * 8;", chunks(t));
  for (int i = 0; i < f->num_sums; i++) md_cu_line(k, NULL, "float s%d[8] = {0};", i);
  md_cu_mark loop = md_cu_open(k, NULL, "for (int i = md_thread() / %d; i < %d; i += %d) {",
                               chunks(t), t->m, step * num);
  put_loads(k, f, a, num, step, places);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int u = 0; u < %d; u++) {", num);
  md_cu_mark in = md_cu_open(k, NULL, "if (in[u]) {");
  if (f->anchor)
    md_cu_line(k, NULL,
               "const md_%s tile = md_ld_%s(stage + (i + u * %d) * %d + md_thread() %% %d * 8, 8);",
               f->narrow ? "h8" : "f8", f->narrow ? "h8" : "f8", step, md_cu_stage_pitch(f, t),
               chunks(t));
  for (int i = 0; i < f->num_stores; i++) {
    if (md_cu_is_vector(md_type_in(g, f->store[i]))) md_cu_line(k, NULL, "md_f8 r%d = {{0}};", i);
  }
  md_cu_put_lanes(k, &f->lanes);
  put_stores(k, f);
  md_cu_close(k, in);
  md_cu_close(k, m);
  md_cu_close(k, loop);
}

// Sums of threads -> the block's sums [sum][column].
void md_cu_put_thread_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  int rows = MD_CU_THREADS / chunks(t);
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_line(k, "[sum][row of threads][column]", "float *const part = (float *)shared;");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int j = 0; j < 8; j++) {");
  md_cu_line(k, NULL, "float *const to = part + md_thread() / %d * %d + md_thread() %% %d * 8 + j;",
             chunks(t), t->n, chunks(t));
  for (int i = 0; i < f->num_sums; i++) md_cu_line(k, NULL, "to[%d] = s%d[j];", i * rows * t->n, i);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "%s", k->sync);
  m = md_cu_open(k, NULL, "for (int e = md_thread(); e < %d; e += %d) {", f->num_sums * t->n,
                 MD_CU_THREADS);
  md_cu_line(k, NULL, "double sum = 0.0;");
  md_cu_line(k, NULL,
             "for (int i = 0; i < %d; i++) sum += (double)part[(e / %d * %d + i) * %d + e %% %d];",
             rows, t->n, rows, t->n, t->n);
  md_cu_line(k, NULL, "sums[e] += sum;");
  md_cu_close(k, m);
}
