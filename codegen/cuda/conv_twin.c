// SPDX-License-Identifier: Apache-2.0
// Both gradients of a 1x1x1 convolution of few weights in bf16. Where activations are large and channels
// few, what costs is to read dy and what it is made from: so a block reads it once, for some pixels at a
// time and all channels, and multiplies it by the weights and, transposed, by the source:
//
//   dx [pixel][in]  = dy [pixel][out] x weights             leaves through the finish, as in conv.c
//   dw [out][in]   += dy^T [out][pixel] x source            stays in registers to the end: a part
//
// The weights stay in shared memory. The next pixels are on their way into registers meanwhile.
#include "codegen/cuda/conv.h"

enum {
  MIN_PIXELS = 32,
  MAX_PIXELS = 128,
  VECTORS = 2 * MD_CU_THREADS,  // of an operand, loaded at once where there are pixels enough
  PAD = 8,
  BLOCKS = 264,  // about: twice the multiprocessors of an H100 or H200
};

typedef struct Twins {
  md_cu_work *w;
  const md_node *dgrad, *wgrad;
  int64_t in, out, samples, groups, parts;  // channels of dx and dy; parts: blocks of a group
  int pixels;                               // at a time
  md_cu_map map;
  md_cu_pack pack;
  md_cu_tile dx, dw;
  md_cu_finish finish;
  int64_t weights, dw_at;  // places in the workspace
  md_cu_side dy, x;
  md_cu_kernel k;
} Twins;

static int power_of_two(int64_t n, int least) {
  int size = least;
  while (size < n) size *= 2;
  return size;
}

static int terms(const Twins *t) { return (int)md_cu_pack_steps(&t->pack) * MD_CU_STEP; }

// --- shared memory: dy and the source of some pixels, over them later the tile of dx; the weights; sums
// and tables

static int dy_bytes(const Twins *t) { return t->pixels * t->dw.line_m * 2; }

static int tiles_bytes(const Twins *t) {
  int operands = dy_bytes(t) + t->pixels * t->dw.line_n * 2;
  return MD_MAX(operands, md_cu_finish_bytes(&t->finish, &t->dx));
}

static int weights_bytes(const Twins *t) { return t->dx.n * t->dx.line_n * 2; }

static int shared_bytes(const Twins *t) {
  return tiles_bytes(t) + weights_bytes(t) + md_cu_sums_bytes(&t->finish, &t->dx) +
         md_cu_table_bytes(&t->dy.lanes) + md_cu_table_bytes(&t->x.lanes) +
         md_cu_table_bytes(&t->finish.lanes);
}

static int put_table(Twins *t, const md_cu_lanes *l, int at) {
  if (l->num_slots)
    md_cu_line(&t->k, NULL, "float *const %stable = (float *)(shared + %d);", l->prefix, at);
  return at + md_cu_table_bytes(l);
}

static void put_weights(Twins *t) {
  md_cu_kernel *k = &t->k;
  int chunks = terms(t) / MD_CU_LANES;
  const char *from = md_cu_workspace(k, t->weights, md_cu_pack_bytes(&t->pack), "md_bf16", false);
  md_cu_mark m = md_cu_open(k, NULL, "for (int e = md_thread(); e < %d; e += %d) {",
                            t->dx.n * chunks, MD_CU_THREADS);
  md_cu_line(k, NULL, "md_cp_async(weights + e / %d * %d + e %% %d * 8, %s + e * 8, 16);", chunks,
             t->dx.line_n, chunks, from);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_cp_commit();");
}

static void put_shared(Twins *t) {
  md_cu_kernel *k = &t->k;
  int at = tiles_bytes(t);
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  md_cu_line(k, "[pixel][channel]", "md_bf16 *const dy = (md_bf16 *)shared;");
  md_cu_line(k, NULL, "md_bf16 *const source = (md_bf16 *)(shared + %d);", dy_bytes(t));
  md_cu_line(k, "[channel of dx][of dy]", "md_bf16 *const weights = (md_bf16 *)(shared + %d);", at);
  at += weights_bytes(t);
  if (t->finish.num_sums)
    md_cu_line(k, "[sum][column]", "double *const sums = (double *)(shared + %d);", at);
  at += md_cu_sums_bytes(&t->finish, &t->dx);
  at = put_table(t, &t->dy.lanes, at);
  at = put_table(t, &t->x.lanes, at);
  at = put_table(t, &t->finish.lanes, at);
  k->shared_bytes = at;
  put_weights(t);
  md_cu_put_table(k, &t->dy.lanes);
  md_cu_put_table(k, &t->x.lanes);
  md_cu_put_table(k, &t->finish.lanes);
  md_cu_put_sums(k, &t->finish, &t->dx);
  md_cu_line(k, NULL, "md_cp_wait(0);");
}

// --- the loop over pixels

static void put_load(Twins *t, const md_cu_side *s, int64_t channels) {
  md_cu_kernel *k = &t->k;
  md_cu_mark m = md_cu_side_open(k, s);
  md_cu_line(k, NULL, "const int p = next + line;");
  md_cu_put_place(k, &t->map, "p", "sample0");
  md_cu_line(k, NULL, "%sn[i] = sample;", s->p);
  md_cu_line(k, NULL, "%st[i] = q0, %sh[i] = q1, %sw[i] = q2;", s->p, s->p, s->p);
  md_cu_line(k, NULL, "%sin[i] = p < pixels && line < %d && %sc < %lld;", s->p, t->pixels, s->p,
             (long long)channels);
  md_cu_side_load(k, s);
  md_cu_close(k, m);
}

static void put_products(Twins *t) {
  md_cu_kernel *k = &t->k;
  md_cu_put_accumulators(k, &t->dx);
  md_cu_mark m = md_cu_open(k, NULL, "for (int s = 0; s < %d; s += %d) {", terms(t), MD_CU_STEP);
  md_cu_put_product(k, &t->dx, "dy + s", "weights + s");
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "for (int s = 0; s < %d; s += %d) {", t->pixels, MD_CU_STEP);
  md_cu_put_product(k, &t->dw, md_format(t->w->arena, "dy + s * %d", t->dw.line_m),
                    md_format(t->w->arena, "source + s * %d", t->dw.line_n));
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
}

static void put_pixels(Twins *t) {
  md_cu_kernel *k = &t->k;
  md_cu_count(k, "stride", t->parts * t->pixels);
  md_cu_mark loop =
      md_cu_open(k, "the first time round nothing is there yet",
                 "for (int m0 = part * %d - stride; m0 < pixels; m0 += stride) {", t->pixels);
  md_cu_line(k, NULL, "const int next = m0 + stride;");
  md_cu_mark m = md_cu_open(k, NULL, "if (next < pixels) {");
  put_load(t, &t->dy, t->out);
  put_load(t, &t->x, t->in);
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "if (m0 >= 0) {");
  put_products(t);
  md_cu_put_finish(k, &t->finish, &t->dx, &t->map, "pixels");
  md_cu_line(k, NULL, "md_sync();");
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "if (next < pixels) {");
  md_cu_side_store(k, &t->dy, "dy");
  md_cu_side_store(k, &t->x, "source");
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
  md_cu_close(k, loop);
}

static int64_t dw_bytes(const Twins *t) {
  return t->parts * t->groups * t->out * md_cu_weight_columns(t->w->r, t->wgrad) * 4;
}

static void put_dw(Twins *t) {
  md_cu_kernel *k = &t->k;
  long long columns = (long long)md_cu_weight_columns(t->w->r, t->wgrad);
  const char *to = md_cu_workspace(k, t->dw_at, dw_bytes(t), "float", true);
  md_cu_mark m[4];
  md_cu_open_tile(k, &t->dw, m);
  md_cu_line(k, NULL, "if (row < %lld && col + z < %lld)", (long long)t->out, columns);
  md_cu_line(k, NULL, "  %s[(md_block() * %lld + row) * %lld + col + z] = sum;", to,
             (long long)t->out, columns);
  md_cu_close_tile(k, m);
}

// --- the kernel

static void make_texts(Twins *t) {
  bool no_table = t->finish.no_table;
  md_cu_side form = {.tile = &t->dw,
                     .lines = t->pixels,
                     .chunks = t->dw.m / MD_CU_LANES,
                     .thread = "md_thread()",
                     .sets = 1};
  t->dy = md_cu_side_of(&t->k, "a", t->dgrad->in[0], &form, t->groups, no_table);
  form.chunks = t->dw.n / MD_CU_LANES;
  t->x = md_cu_side_of(&t->k, "b", t->wgrad->in[1], &form, t->groups, no_table);
  md_cu_finish_texts(&t->k, &t->finish);
}

static void free_texts(Twins *t) {
  md_cu_lanes_free(&t->dy.lanes);
  md_cu_lanes_free(&t->x.lanes);
  md_cu_lanes_free(&t->finish.lanes);
}

static bool fits(Twins *t) {
  for (int i = 0; i < 2; i++) {
    t->finish.no_table = i == 1;
    md_cu_begin(&t->k, t->w, "to be measured");
    make_texts(t);
    int bytes = shared_bytes(t);
    free_texts(t);
    if (bytes <= md_cu_shared_limit(t->w)) return true;
  }
  return false;
}

static void put_kernel(Twins *t) {
  md_cu_kernel *k = &t->k;
  md_cu_begin(k, t->w, "both gradients");
  make_texts(t);
  put_shared(t);
  md_cu_count(k, "pixels", md_cu_map_places(&t->map) * (t->samples / t->groups));
  md_cu_put_block(k, 1, t->dx.n, t->parts, t->samples, t->groups);
  md_cu_side_declare(k, &t->dy);
  md_cu_side_declare(k, &t->x);
  md_cu_line(k, NULL, "ac = md_thread() %% %d * 8;", t->dy.chunks);
  md_cu_line(k, NULL, "bc = md_thread() %% %d * 8;", t->x.chunks);
  md_cu_put_accumulators(k, &t->dw);
  md_cu_line(k, NULL, "md_sync();");
  put_pixels(t);
  put_dw(t);
  md_cu_put_parts(k, &t->finish, &t->dx, "part");
  free_texts(t);
  k->work = 1;
  md_cu_end(k, t->parts * t->groups);
}

static bool is_plain(const md_region_view *r) {
  const md_node *d = r->anchor, *g = r->twin;
  const md_type *dy = md_type_in(r->g, d->in[0]), *x = md_type_in(r->g, g->in[1]);
  const md_shape *weights = &md_type_in(r->g, g->out)->shape;
  bool good = dy->dtype == MD_BF16 && x->dtype == MD_BF16 &&
              md_shape_equal(&x->shape, &md_type_in(r->g, d->out)->shape) &&
              md_elements(weights) == weights->dim[0] * weights->dim[1];
  for (int i = 0; i < 3; i++)
    good &= d->attr.conv3d.stride.d[i] == 1 && d->attr.conv3d.pad.d[i] == 0 &&
            g->attr.conv3d.stride.d[i] == 1 && g->attr.conv3d.pad.d[i] == 0;
  return good;
}

static Twins twins_of(md_cu_work *w) {
  const md_node *d = w->r->anchor, *g = w->r->twin;
  const md_shape *dy = &md_type_in(w->r->g, d->in[0])->shape;
  Twins t = {.w = w,
             .dgrad = d,
             .wgrad = g,
             .in = md_type_in(w->r->g, d->out)->shape.dim[1],
             .out = dy->dim[1],
             .samples = dy->dim[0],
             .groups = md_cu_groups(w->r)};
  md_cu_map_backward(w->r, d, (int64_t[3]){0, 0, 0}, &t.map);
  int in = power_of_two(t.in, 8), out = power_of_two(t.out, MD_CU_STEP);
  t.pixels = MD_MAX(VECTORS * MD_CU_LANES / MD_MAX(in, out), MIN_PIXELS);
  t.pixels = MD_MIN(t.pixels, MAX_PIXELS);
  t.dx = md_cu_tile_sized(t.pixels, in, true, false);
  t.dw = md_cu_tile_sized(out, in, true, true);
  t.dw.p = "w";
  t.pack = (md_cu_pack){.weights = d->in[1],
                        .backward = true,
                        .in = t.out,
                        .out = t.in,
                        .rows = t.dx.n,
                        .narrow = true,
                        .map = t.map};
  t.dx.line_m = t.dw.line_m;
  t.dx.line_n = terms(&t) + PAD;
  int64_t tiles = md_ceil_div(md_cu_map_places(&t.map) * (t.samples / t.groups), t.pixels);
  t.parts = MD_MIN(tiles, MD_MAX(BLOCKS / t.groups, 1));
  t.finish = md_cu_finish_of(w, d, t.groups);
  return t;
}

bool md_cu_twins(md_cu_work *w) {
  if (!md_cuda_multiplies_bf16(w->arch) || !is_plain(w->r)) return false;
  if (md_cu_wgmma_twins(w)) return true;
  Twins t = twins_of(w);
  if (t.dw.m * t.dw.n > MD_CU_TWIN_WEIGHTS || !fits(&t)) return false;
  md_cu_place(w, t.wgrad->out);
  md_cu_finish_place(w, &t.finish, &t.dx, t.parts);
  t.weights = md_cu_reserve(w, md_cu_pack_bytes(&t.pack));
  t.dw_at = md_cu_reserve(w, dw_bytes(&t));
  md_cu_put_pack(w, &t.pack, t.weights);
  put_kernel(&t);
  md_cu_merge_weights(w, t.wgrad, t.parts * t.groups, t.dw_at);
  md_cu_ready(w, t.wgrad->out);
  md_cu_finish_ready(w, &t.finish);
  return true;
}
