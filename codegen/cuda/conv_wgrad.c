// SPDX-License-Identifier: Apache-2.0
// conv3d_wgrad: channels of dy times (tap, channel of the source), summed over pixels. Blocks share
// the pixels; each writes its tile of f32 sums as a part, and a second kernel adds the parts in order
// and brings them into the order of the weights.
#include "codegen/cuda/conv.h"

enum { MIN_STEPS = 8 };  // of a block

typedef md_cu_gradient Wgrad;

// One step is known to be one; more are told.
const char *md_cu_gradient_steps(Wgrad *g) {
  return g->steps == 1 ? "1" : md_cu_count(&g->k, "steps", g->steps);
}

int64_t md_cu_gradient_bytes(const Wgrad *g) { return g->parts * g->out * g->columns * 4; }

static int operand_bytes(const Wgrad *g, int rows) { return md_cu_tile_bytes(&g->tile, rows); }

static void put_shared(Wgrad *g) {
  md_cu_kernel *k = &g->k;
  const char *cell = md_cu_cell(&g->tile);
  int at = 2 * operand_bytes(g, g->tile.m);
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  md_cu_line(k, "two tiles of dy", "%s *const as = (%s *)shared;", cell, cell);
  md_cu_line(k, "and two of the source", "%s *const bs = (%s *)(shared + %d);", cell, cell, at);
  at += 2 * operand_bytes(g, g->tile.n);
  if (g->dy.lanes.num_slots)
    md_cu_line(k, NULL, "float *const atable = (float *)(shared + %d);", at);
  at += md_cu_table_bytes(&g->dy.lanes);
  if (g->x.lanes.num_slots)
    md_cu_line(k, NULL, "float *const btable = (float *)(shared + %d);", at);
  at += md_cu_table_bytes(&g->x.lanes);
  k->shared_bytes = at;
  md_cu_put_table(k, &g->dy.lanes);
  md_cu_put_table(k, &g->x.lanes);
  md_cu_line(k, NULL, "md_sync();");
}

// The line's pixel in step `next`.
static void put_pixel(Wgrad *g, const char *next) {
  md_cu_line(&g->k, NULL, "const %s p = begin + %s * %d + line;", md_cu_index_type(&g->k), next,
             md_cu_step(&g->tile));
}

void md_cu_gradient_put_dy(Wgrad *g, const char *next) {
  md_cu_kernel *k = &g->k;
  put_pixel(g, next);
  if (g->dy.by_pixel) {
    md_cu_line(k, NULL, "ap[i] = p;");
  } else {
    md_cu_put_place(k, &g->a, "p", "0");
    md_cu_line(k, NULL, "an[i] = sample;");
    md_cu_line(k, NULL, "at[i] = q0, ah[i] = q1, aw[i] = q2;");
  }
  md_cu_line(k, NULL, "ain[i] = p < end && ac < %lld && line < %d;", (long long)g->out,
             md_cu_step(&g->tile));
}

void md_cu_gradient_put_x(Wgrad *g, const char *next) {
  md_cu_kernel *k = &g->k;
  put_pixel(g, next);
  if (g->x.by_pixel) {
    md_cu_line(k, NULL, "bp[i] = p;");
  } else {
    md_cu_put_place(k, &g->a, "p", "0");
    md_cu_line(k, NULL, "bn[i] = sample;");
  }
  for (int x = 0; !g->x.by_pixel && x < 3; x++) {
    const md_cu_axis_map *axis = &g->a.axis[x];
    md_cu_ix ix[] = {md_format(g->w->arena, "q%d", x), md_format(g->w->arena, "bm%d", x)};
    md_cu_line(k, NULL, "b%c[i] = %s;", md_cu_axis_letters[x],
               md_cu_linear(k, 2, ix, (int64_t[]){axis->from_q, axis->from_m}, axis->from0));
  }
  md_cu_put_inside(k, &g->x, &g->a,
                   md_format(g->w->arena, "p < end && line < %d", md_cu_step(&g->tile)));
}

static void put_load(Wgrad *g) {
  md_cu_kernel *k = &g->k;
  md_cu_mark m = md_cu_side_open(k, &g->dy);
  md_cu_gradient_put_dy(g, "next");
  md_cu_side_load(k, &g->dy);
  md_cu_close(k, m);
  m = md_cu_side_open(k, &g->x);
  md_cu_gradient_put_x(g, "next");
  md_cu_side_load(k, &g->x);
  md_cu_close(k, m);
}

static const char *buffer(Wgrad *g, const char *base, int rows, const char *which) {
  int cells = operand_bytes(g, rows) / (g->tile.narrow ? 2 : 4);
  return md_format(g->w->arena, "%s + %s * %d", base, which, cells);
}

static void put_steps(Wgrad *g) {
  md_cu_kernel *k = &g->k;
  const char *cell = md_cu_cell(&g->tile);
  const char *steps = md_cu_gradient_steps(g);
  md_cu_mark loop = md_cu_open(k, NULL, "for (int step = -1; step < %s; step++) {", steps);
  md_cu_line(k, NULL, "const int next = step + 1;");
  md_cu_mark m = md_cu_open(k, NULL, "if (next < %s) {", steps);
  put_load(g);
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "if (step >= 0) {");
  md_cu_line(k, NULL, "const %s *const a = %s;", cell, buffer(g, "as", g->tile.m, "step % 2"));
  md_cu_line(k, NULL, "const %s *const b = %s;", cell, buffer(g, "bs", g->tile.n, "step % 2"));
  md_cu_put_product(k, &g->tile, "a", "b");
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "if (next < %s) {", steps);
  md_cu_side_store(k, &g->dy, buffer(g, "as", g->tile.m, "next % 2"));
  md_cu_side_store(k, &g->x, buffer(g, "bs", g->tile.n, "next % 2"));
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
  md_cu_close(k, loop);
}

void md_cu_gradient_sides(Wgrad *g, md_cu_kernel *k) {
  bool apart = g->tile.swizzled;
  md_cu_side form = {.tile = &g->tile,
                     .lines = md_cu_step(&g->tile),
                     .chunks = g->tile.m / MD_CU_LANES,
                     .thread = apart ? "(md_thread() & 255)" : "md_thread()",
                     .sets = 1,
                     .by_pixel = apart};
  g->dy = md_cu_side_of(k, "a", g->n->in[0], &form, g->groups, g->no_table);
  form.chunks = g->tile.n / MD_CU_LANES;
  form.by_pixel = apart && md_cu_map_is_identity(&g->a);
  g->x = md_cu_side_of(k, "b", g->n->in[1], &form, g->groups, g->no_table);
}

static void free_sides(Wgrad *g) {
  md_cu_lanes_free(&g->dy.lanes);
  md_cu_lanes_free(&g->x.lanes);
}

// Tables of many channels do not fit beside the tiles.
static bool needs_room(Wgrad *g) {
  md_cu_kernel k;
  md_cu_begin(&k, g->w, "to be measured");
  md_cu_gradient_sides(g, &k);
  int bytes = 2 * operand_bytes(g, g->tile.m) + 2 * operand_bytes(g, g->tile.n) +
              md_cu_table_bytes(&g->dy.lanes) + md_cu_table_bytes(&g->x.lanes);
  free_sides(g);
  return bytes > md_cu_shared_limit(g->w);
}

void md_cu_gradient_put_block(Wgrad *g) {
  md_cu_kernel *k = &g->k;
  const char *pixels = md_cu_count(k, "pixels", g->pixels);
  md_cu_line(k, NULL, "const int m0 = md_block() %% %lld * %d;", (long long)g->tiles_m, g->tile.m);
  md_cu_line(k, NULL, "const int n0 = md_block() / %lld %% %lld * %d;", (long long)g->tiles_m,
             (long long)g->tiles_n, g->tile.n);
  md_cu_line(k, NULL, "const int part = md_block() / %lld;", (long long)(g->tiles_m * g->tiles_n));
  md_cu_line(k, NULL, "const int length = %s * %d;", md_cu_gradient_steps(g), md_cu_step(&g->tile));
  md_cu_line(k, "pixels of the part", "const int begin = part * length;");
  md_cu_line(k, NULL, "const int end = begin + length < %s ? begin + length : %s;", pixels, pixels);
}

void md_cu_gradient_put_chunks(Wgrad *g) {
  md_cu_kernel *k = &g->k;
  md_cu_side_declare(k, &g->dy);
  md_cu_side_declare(k, &g->x);
  md_cu_line(k, NULL, "ac = m0 + %s %% %d * 8;", g->dy.thread, g->dy.chunks);
  md_cu_line(k, NULL, "const int chunk = n0 / 8 + %s %% %d;", g->x.thread, g->x.chunks);
  md_cu_put_tap(k, &g->x, &g->a, g->in, "chunk");
}

static void product(Wgrad *g) {
  md_cu_kernel *k = &g->k;
  md_cu_gradient_sides(g, k);
  put_shared(g);
  md_cu_gradient_put_block(g);
  md_cu_gradient_put_chunks(g);
  md_cu_put_accumulators(k, &g->tile);
  put_steps(g);
  const char *to = md_cu_workspace(k, g->place, md_cu_gradient_bytes(g), "float", true);
  md_cu_mark m[4];
  md_cu_open_tile(k, &g->tile, m);
  md_cu_line(k, NULL, "if (m0 + row < %lld && n0 + col + z < %lld)", (long long)g->out,
             (long long)g->columns);
  md_cu_line(k, NULL, "  %s[(part * %lld + m0 + row) * %lld + n0 + col + z] = sum;", to,
             (long long)g->out, (long long)g->columns);
  md_cu_close_tile(k, m);
  free_sides(g);
}

int64_t md_cu_weight_columns(const md_region_view *r, const md_node *n) {
  md_cu_map a = md_cu_map_forward(r, n);
  return md_cu_map_taps(&a) * md_round_up(md_type_in(r->g, n->out)->shape.dim[1], MD_CU_LANES);
}

// A thread adds the parts of an element. Neighbours read side by side.
void md_cu_merge_weights(md_cu_work *w, const md_node *n, int64_t parts, int64_t place) {
  md_cu_kernel kernel, *k = &kernel;
  const md_shape *shape = &md_type_in(w->r->g, n->out)->shape;
  int64_t columns = md_cu_weight_columns(w->r, n), num = shape->dim[0] * columns;
  int64_t lanes = md_round_up(shape->dim[1], MD_CU_LANES);
  md_cu_begin(k, w, "the parts of a gradient for weights");
  md_cu_line(k, NULL, "const int e = md_block() * %d + md_thread();", MD_CU_THREADS);
  md_cu_ix column = md_cu_digit(k, "e", 1, columns);
  md_cu_ix tap = md_cu_digit(k, column, lanes, 0), channel = md_cu_digit(k, column, 1, lanes);
  md_cu_mark m = md_cu_open(k, NULL, "if (e < %lld && %s < %lld) {", (long long)num, channel,
                            (long long)shape->dim[1]);
  const char *from = md_cu_workspace(k, place, parts * num * 4, "float", false);
  md_cu_line(k, NULL, "float x = 0.0f;");
  md_cu_line(k, NULL, "for (int j = 0; j < %s; j++) x += %s[j * %lld + e];",
             md_cu_count(k, "parts", parts), from, (long long)num);
  md_cu_spot s = {.shape = shape};
  s.at[0] = md_cu_digit(k, "e", columns, 0);
  s.at[1] = channel;
  int64_t div = 1;
  for (int i = 2; i >= 0; i--) {
    s.at[2 + i] = md_cu_digit(k, tap, div, shape->dim[2 + i]);
    div *= shape->dim[2 + i];
  }
  md_cu_store(k, n->out, &s, "x");
  md_cu_close(k, m);
  md_cu_end(k, md_ceil_div(num, MD_CU_THREADS));
}

void md_cu_gradient_divide(Wgrad *g, int blocks) {
  g->tiles_m = md_ceil_div(g->out, g->tile.m);
  g->tiles_n = md_ceil_div(g->columns, g->tile.n);
  int64_t steps = md_ceil_div(g->pixels, md_cu_step(&g->tile));
  int64_t parts = md_ceil_div(blocks, g->tiles_m * g->tiles_n);
  g->parts = MD_MAX(MD_MIN(parts, steps / MIN_STEPS), 1);
  g->steps = md_ceil_div(steps, g->parts);
  g->parts = md_ceil_div(steps, g->steps);
}

// --- ways to make it

static md_cuda_schedule own_schedule(Wgrad *g, bool narrow) {
  md_cuda_schedule s;
  if (md_cu_wgmma_gradient_schedule(g, &s)) return s;
  md_cu_tile t = md_cu_tile_of(g->out, g->columns, narrow, true);
  return md_cu_way(narrow ? MD_CUDA_MMA : MD_CUDA_FMA, t.m, t.n, MD_CU_WGRAD_BLOCKS);
}

static void list_ways(Wgrad *g, bool narrow, md_cuda_schedule own, md_cu_ways *ways) {
  md_cu_add_way(ways, own);
  if (own.math == MD_CUDA_WGMMA) md_cu_wgmma_gradient_ways(g, own, ways);
  md_cu_tile t = md_cu_tile_of(g->out, g->columns, narrow, true);
  md_cuda_math math = narrow ? MD_CUDA_MMA : MD_CUDA_FMA;
  for (int m = t.m; m >= MD_MAX(t.m / 2, 16); m /= 2)
    for (int n = t.n; n >= MD_MAX(t.n / 2, 8); n /= 2)
      for (int blocks = MD_CU_WGRAD_BLOCKS; blocks <= 4 * MD_CU_WGRAD_BLOCKS; blocks *= 2)
        md_cu_add_way(ways, md_cu_way(math, m, n, blocks));
}

static void take(Wgrad *g, bool narrow, const md_cuda_schedule *s) {
  if (s->math == MD_CUDA_WGMMA) {
    md_cu_wgmma_gradient_take(g, s);
    return;
  }
  g->tile = md_cu_tile_sized(s->m, s->n, narrow, true);
  md_cu_gradient_divide(g, s->blocks);
  g->no_table = needs_room(g);
}

void md_cu_wgrad(md_cu_work *w, const md_node *n) {
  const md_graph *graph = w->r->g;
  const md_type *dy = md_type_in(graph, n->in[0]), *x = md_type_in(graph, n->in[1]);
  Wgrad g = {.w = w,
             .n = n,
             .a = md_cu_map_forward(w->r, n),
             .out = dy->shape.dim[1],
             .in = x->shape.dim[1],
             .groups = md_cu_groups(w->r)};
  g.columns = md_cu_weight_columns(w->r, n);
  g.pixels = dy->shape.dim[0] * md_cu_map_places(&g.a);
  bool narrow = md_cuda_multiplies_bf16(w->arch) && dy->dtype == MD_BF16,
       is_anchor = n == w->r->anchor;
  md_cuda_schedule own = own_schedule(&g, narrow);
  if (w->ways && is_anchor) list_ways(&g, narrow, own, w->ways);
  take(&g, narrow, w->schedule && is_anchor ? w->schedule : &own);
  g.place = md_cu_reserve(w, md_cu_gradient_bytes(&g));
  md_cu_place(w, n->out);
  md_cu_begin(&g.k, w, "gradient for the weights, in parts");
  if (g.tile.swizzled) md_cu_wgmma_gradient(&g);
  else product(&g);
  g.k.work = 1;
  md_cu_end(&g.k, g.tiles_m * g.tiles_n * g.parts);
  md_cu_merge_weights(w, n, g.parts, g.place);
  md_cu_ready(w, n->out);
}
