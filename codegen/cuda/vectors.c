// SPDX-License-Identifier: Apache-2.0
// Values and sums of activations, made by vectors of eight channels: behind a convolution, whose tile
// lies in shared memory, and in walks. A thread keeps its channels while it goes over pixels: what it
// stores are 16 bytes of bf16, and its sums over pixels stay with it. Those of a thread are f32, the
// others double, and their order is fixed.
#include "codegen/cuda/conv.h"

// Of one of the vectors that are under way together.
static md_cu_spot spot_at(const md_cu_finish *f, const md_shape *shape, md_cu_ix channel) {
  if (f->by_pixel) return (md_cu_spot){.shape = shape, .pixel = "pixel", .at = {NULL, channel}};
  return (md_cu_spot){.shape = shape, .at = {"sample", channel, "o0", "o1", "o2"}};
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
    md_cu_make_lane(k, f->store[i], md_format(k->w->arena, "r%d", i), text[i]);
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
    if (n->op != MD_OP_sum) md_cu_line(k, NULL, "s%d[j] += %s * %s;", sum++, first, second);
  }
}

void md_cu_finish_texts(md_cu_kernel *k, md_cu_finish *f) {
  f->lanes =
      (md_cu_lanes){.channels = f->shape->dim[1],
                    .groups = f->statistics,
                    .no_table = f->no_table,
                    .row = "[u]",
                    .first = "first",
                    .group = f->statistics == 1 ? "0"
                                                : md_format(k->w->arena, "(group / %lld)",
                                                            (long long)(f->groups / f->statistics)),
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

enum { MAX_AT_ONCE = 4, MAX_WORDS = 32, MAX_WORDS_BESIDE = 24 };  // beside what mma.sync keeps

// Rows of a thread that are loaded before the first is used; loops in front of the lanes load enough.
static int at_once(const md_cu_finish *f, const md_cu_tile *t) {
  if (f->lanes.before.text.len) return 1;
  int num = 1, most = MD_MIN(t->m * chunks(t) / MD_CU_THREADS, MAX_AT_ONCE);
  int words = md_cu_vector_words(&f->lanes);
  int most_words = f->anchor && !t->swizzled ? MAX_WORDS_BESIDE : MAX_WORDS;
  if (t->n > 128) most = MD_MIN(most, 2);  // beside 128 sums
  if (f->most_words) most_words = f->most_words;
  while (words && 2 * num <= most && 2 * num * words <= most_words) num *= 2;
  return num;
}

// "for (each of those) {": its place.
static md_cu_mark open_vectors(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                               const md_cu_map *a, const char *places, md_cu_mark *in) {
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int u = 0; u < %d; u++) {", at_once(f, t));
  md_cu_line(k, NULL, "const int i = i0 + u * %d;", MD_CU_THREADS / chunks(t));
  md_cu_line(k, NULL, "const int p = m0 + i;");
  if (f->by_pixel)
    md_cu_line(k, NULL, "const %s pixel = sample0 * %lld + p;", md_cu_index_type(k),
               (long long)md_cu_map_places(a));
  else md_cu_put_place(k, a, "p", "sample0");
  for (int x = 0; !f->by_pixel && x < 3; x++) {
    md_cu_ix q = md_format(k->w->arena, "q%d", x);
    md_cu_line(k, NULL, "const int o%d = %s;", x,
               md_cu_linear(k, 1, &q, &a->axis[x].out_step, a->axis[x].out0));
  }
  *in = md_cu_open(k, NULL, "if (p < %s && first < %lld) {", places, (long long)f->shape->dim[1]);
  return m;
}

void md_cu_put_each_vector(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                           const md_cu_map *a, const char *places) {
  const md_graph *g = k->w->r->g;
  md_cu_line(k, NULL, "const int first = n0 + md_thread() %% %d * 8;", chunks(t));
  for (int i = 0; i < f->num_sums; i++) md_cu_line(k, NULL, "float s%d[8] = {0};", i);
  md_cu_mark in, m,
      loop = md_cu_open(k, NULL, "for (int i0 = md_thread() / %d; i0 < %d; i0 += %d) {", chunks(t),
                        t->m, MD_CU_THREADS / chunks(t) * at_once(f, t));
  if (f->lanes.num_vectors) {
    md_cu_put_vectors(k, &f->lanes, at_once(f, t), false);
    m = open_vectors(k, f, t, a, places, &in);
    md_cu_put_loads(k, &f->lanes);
    md_cu_close(k, in);
    md_cu_close(k, m);
  }
  m = open_vectors(k, f, t, a, places, &in);
  if (f->anchor)
    md_cu_line(k, NULL, "const md_%s tile = md_ld_%s(stage + i * %d + md_thread() %% %d * 8, 8);",
               f->narrow ? "h8" : "f8", f->narrow ? "h8" : "f8", md_cu_stage_pitch(f, t),
               chunks(t));
  for (int i = 0; i < f->num_stores; i++) {
    const md_type *type = md_type_in(g, f->store[i]);
    if (md_cu_is_vector(type)) md_cu_line(k, NULL, "md_%s r%d = {{0}};", md_cu_made_kind(type), i);
  }
  md_cu_put_lanes(k, &f->lanes);
  for (int i = 0; i < f->num_stores; i++) {
    const md_type *type = md_type_in(g, f->store[i]);
    if (!md_cu_is_vector(type)) continue;
    md_cu_spot s = spot_at(f, &type->shape, "first");
    md_cu_put_vector(k, f->store[i], &s, md_format(k->w->arena, "r%d", i));
  }
  md_cu_close(k, in);
  md_cu_close(k, m);
  md_cu_close(k, loop);
}

static int rows_of(const md_cu_tile *t) { return MD_CU_THREADS / chunks(t); }

// Floats from row to row: those of a column lie in banks of their own.
static int sums_pitch(const md_cu_tile *t) { return t->n + 4; }

int md_cu_thread_sums_bytes(const md_cu_finish *f, const md_cu_tile *t) {
  return f->num_sums * rows_of(t) * sums_pitch(t) * 4;
}

// Few sums: threads side by side share the rows of each.
static void put_shared_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                            int split) {
  int cells = f->num_sums * t->n, rows = rows_of(t);
  md_cu_mark m = md_cu_open(k, NULL, "{");
  md_cu_line(k, NULL, "const int e = md_thread() / %d;", split);
  md_cu_line(k, NULL, "double sum = 0.0;");
  md_cu_line(k, NULL, "if (e < %d)", cells);
  md_cu_line(k, NULL, "  for (int i = md_thread() %% %d; i < %d; i += %d)", split, rows, split);
  md_cu_line(k, NULL, "    sum += (double)part[(e / %d * %d + i) * %d + e %% %d];", t->n, rows,
             sums_pitch(t), t->n);
  md_cu_line(k, NULL, "for (int o = 1; o < %d; o *= 2) sum += md_shfl_xor_d(sum, o);", split);
  md_cu_line(k, NULL, "if (e < %d && md_thread() %% %d == 0) sums[e] += sum;", cells, split);
  md_cu_close(k, m);
}

// Sums of threads -> the block's sums [sum][column].
void md_cu_put_thread_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t) {
  int rows = rows_of(t), cells = f->num_sums * t->n, split = 1;
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_line(k, "[sum][row of threads][column]", "float *const part = (float *)shared;");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int j = 0; j < 8; j++) {");
  md_cu_line(k, NULL, "float *const to = part + md_thread() / %d * %d + md_thread() %% %d * 8 + j;",
             chunks(t), sums_pitch(t), chunks(t));
  for (int i = 0; i < f->num_sums; i++)
    md_cu_line(k, NULL, "to[%d] = s%d[j];", i * rows * sums_pitch(t), i);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "%s", k->sync);
  while (2 * split * cells <= MD_CU_THREADS && 2 * split <= MD_MIN(rows, 32)) split *= 2;
  if (split > 1) {
    put_shared_sums(k, f, t, split);
    return;
  }
  m = md_cu_open(k, NULL, "for (int e = md_thread(); e < %d; e += %d) {", cells, MD_CU_THREADS);
  md_cu_line(k, NULL, "double sum = 0.0;");
  md_cu_line(k, NULL,
             "for (int i = 0; i < %d; i++) sum += (double)part[(e / %d * %d + i) * %d + e %% %d];",
             rows, t->n, rows, sums_pitch(t), t->n);
  md_cu_line(k, NULL, "sums[e] += sum;");
  md_cu_close(k, m);
}
