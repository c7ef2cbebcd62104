// SPDX-License-Identifier: Apache-2.0
// Winograd's minimal filtering for 3x3 kernels of stride 1, forward and data gradient. Squares of the source
// become n^2 planes with a pixel for each square, and so do the weights (filter.c). In a plane the
// convolution is a direct one without taps along h and w: its register tile is that of conv_dense.c.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/filter.h"
#include "codegen/cpu/parts.h"

#include <math.h>
#include <stdlib.h>

// How an item's tile is made of squares.
typedef struct Squares {
  const md_filter *f;
  int64_t t, h, w;       // squares (t: frames) of the results
  int64_t frames;        // of the source
  int64_t source, sums;  // vectors of a plane: of the source, of results
  bool apart;            // planes of all items together
} Squares;

typedef struct Winograd {
  Squares q;
  md_item item;                 // of the convolution
  int64_t place;                // of the weights, in the workspace
  md_ir source, weights, sums;  // the first plane of each
  md_ir base;                   // the item's first square in a block of a plane
} Winograd;

// --- the plan

// A plane must not be a power of two away from the next: their lines would share a few sets of L1.
static int64_t odd(int64_t vectors) { return vectors | 1; }

static int64_t all_squares(const md_conv *c, const Squares *q) {
  return c->n * c->dst_size[0] * md_ceil_div(c->dst_size[1], q->f->m) * q->w;
}

static void set_tile(const md_conv *c, md_dense *d, Squares *q) {
  const md_filter *f = q->f;
  q->frames = q->t + (d->tap[0].num - 1) * llabs(d->tap[0].doff);
  int64_t items = q->apart ? all_squares(c, q) / (q->t * q->h * q->w) : 1;
  q->source = odd(items * c->src_blocks * q->frames * q->h * q->w);
  q->sums = odd(items * (q->apart ? c->dst_blocks : 2) * q->t * q->h * q->w);
  int64_t tile[3] = {q->t, q->h * f->m, q->w * f->m};
  for (int i = 0; i < 3; i++) {
    d->tile[i] = tile[i];
    d->grid[i] = md_round_up(c->dst_size[i], tile[i]);
  }
  d->chunk = 1;
  md_set_window(d);
}

static int64_t vector_bytes(const md_conv *c) { return c->lanes * md_dtype_size(c->wide); }
static int64_t weight_vectors(const md_conv *c) {
  return c->kernel[0] * c->src_blocks * c->lanes * c->dst_blocks;
}

// Costs count multiply-adds of vectors. What else takes time stands in the same unit, as measured on Zen 5:
// an element of a plane in a transform, and how much more it is where planes are apart; a vector of weights that comes from L2, L3, memory.
enum { TRANSFORM = 6, APART = 5 };
static double weight_cost(const md_conv *c, int64_t bytes) {
  if (bytes <= c->k->e.cpu->l2_bytes) return 0.5;
  return bytes <= c->k->e.cpu->cache_bytes ? 2.5 : 36;
}

static double direct_cost(const md_conv *c) {
  int64_t pixels = c->n * c->dst_size[0] * c->dst_size[1] * c->dst_size[2];
  return (double)(9 * pixels * weight_vectors(c));
}

static double cost_of(const md_conv *c, const md_dense *d, const Squares *q) {
  double planes = q->f->n * q->f->n, squares = (double)(q->t * q->h * q->w);
  double sources = (double)(c->src_blocks * q->frames * q->h * q->w);
  double items = (double)(c->n * md_dense_tiles(d)), weights = planes * (double)weight_vectors(c);
  double reading = weights * weight_cost(c, (int64_t)weights * vector_bytes(c));
  double pixels = planes * TRANSFORM * (sources + (double)c->dst_blocks * squares);
  return items * (weights * squares + pixels * (q->apart ? APART : 1)) +
         reading * (q->apart ? 1 : items) + weights * TRANSFORM;
}

// Planes of an item should stay in L2, planes of all in the last cache.
static bool fits(const md_conv *c, const Squares *q) {
  int64_t bytes = q->f->n * q->f->n * (q->source + q->sums) * vector_bytes(c);
  if (q->apart) return c->kernel[0] == 1 && bytes <= c->k->e.cpu->cache_bytes * 3 / 4;
  return bytes <= c->k->e.cpu->l2_bytes * 2 / 3 || q->t * q->h == 1;
}

// The best way to cut the problem into squares; its cost.
static double choose_squares(const md_conv *c, md_dense *d, Squares *best) {
  double least = INFINITY;
  for (int i = 0; i < 2 * MD_FILTERS; i++) {
    const md_filter *f = &md_filters[i / 2];
    Squares q = {.f = f, .w = md_ceil_div(c->dst_size[2], f->m), .apart = i % 2};
    int64_t rows = md_ceil_div(c->dst_size[1], f->m);
    for (q.t = 1; q.t <= (q.apart ? 1 : c->dst_size[0]); q.t++) {
      for (q.h = 1; q.h <= rows; q.h++) {
        if (c->dst_size[0] % q.t || rows % q.h) continue;
        set_tile(c, d, &q);
        double cost = cost_of(c, d, &q);
        if (cost >= least || !fits(c, &q)) continue;
        least = cost;
        *best = q;
      }
    }
  }
  set_tile(c, d, best);
  return least;
}

static bool has_three_taps(const md_dense *d) {
  for (int i = 0; i < 3; i++) {
    if (d->in_step[i] != 1 || d->step[i] != 1 || d->first[i] != 0) return false;
    if (i > 0 && (d->tap[i].num != 3 || llabs(d->tap[i].doff) != 1)) return false;
  }
  return !d->planar;
}

bool md_is_three_by_three(const md_conv *c) {
  md_dense problem[MD_MAX_DENSE];
  return md_conv_problems(c, problem) == 1 && has_three_taps(problem);
}

const char *md_winograd_refuse(const md_region_view *r, const md_cpu *cpu) {
  md_kernel k = {.r = r, .e.cpu = cpu};  // enough to plan with
  md_conv c = md_conv_of(&k, r->anchor->in[0], r->anchor->in[1], r->anchor->out);
  if (!cpu->winograd || c.dtype != MD_F32 || !md_is_three_by_three(&c)) return "";
  md_dense d;
  Squares q;
  md_conv_problems(&c, &d);
  double cost = choose_squares(&c, &d, &q);
  return cost < 0.8 * direct_cost(&c) ? NULL : "its transforms would cost more than they spare";
}

// Elements from a plane to the next: of weights, source, sums.
static int64_t weights_step(const md_conv *plane) {
  return odd(plane->dst_blocks * md_panel_cells(plane) / plane->lanes) * plane->lanes;
}
static int64_t source_step(const Winograd *g) { return g->q.source * g->item.c->lanes; }
static int64_t sums_step(const Winograd *g) { return g->q.sums * g->item.c->lanes; }

// --- weights

// Phase 0: an item for each pair of blocks. The weights of plane p: [dst block][src block][t][i][lane].
static void pack_weights(const Winograd *g, const md_conv *plane) {
  const md_conv *c = g->item.c;
  const md_dense *d = g->item.d;
  const md_filter *f = g->q.f;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t size[2] = {c->dst_blocks, c->src_blocks}, inner = MD_MIN(c->src_c, c->lanes);
  md_phase_begin(k, "transform_weights", size[0] * size[1], 0);
  md_ir at[2], to = md_workspace(k, g->place);
  md_split_index(e, k->item, 2, size, at);
  md_ir mask = md_channel_mask(e, c->dst_c, at[0], c->lanes);
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->kernel[0]), 1, "tap");
  md_loop in = md_loop_begin(e, md_i64(e, 0), md_i64(e, inner), 1, "i");
  md_ir src = md_iadd(e, md_imulc(e, at[1], c->lanes), in.i);
  md_square x;
  for (int i = 0; i < 3; i++) {
    for (int j = 0; j < 3; j++) {
      // Ascending offsets into the window; a data gradient meets its taps the other way round.
      md_ir tap[3] = {t.i, md_i64(e, d->tap[1].doff > 0 ? i : 2 - i),
                      md_i64(e, d->tap[2].doff > 0 ? j : 2 - j)};
      x[i][j] = md_weights_at(c, at[0], mask, src, tap);
    }
  }
  md_filter_weights(e, f, x);
  md_ir off = md_iadd(e, md_imulc(e, at[0], c->src_blocks), at[1]);
  off = md_iadd(e, md_imulc(e, off, c->kernel[0]), t.i);
  off = md_imulc(e, md_iadd(e, md_imulc(e, off, inner), in.i), c->lanes);
  for (int p = 0; p < f->n * f->n; p++)
    md_store(e, c->wide, to, md_iaddc(e, off, p * weights_step(plane)), x[p / f->n][p % f->n],
             NULL);
  md_loop_end(e, &in);
  md_loop_end(e, &t);
  md_phase_end(k);
}

// --- an item's parts

// Squares of a block in a plane.
static int64_t block_squares(const Winograd *g, int64_t frames) {
  const Squares *q = &g->q;
  return q->apart ? all_squares(g->item.c, q) : frames * q->h * q->w;
}
static md_ir first_pixel(const Winograd *g, md_ir block, int64_t frames) {
  md_emit *e = &g->item.c->k->e;
  md_ir square = md_iadd(e, md_imulc(e, block, block_squares(g, frames)), g->base);
  return md_imulc(e, square, g->item.c->lanes);
}

// The window of each block of channels becomes pixels of all planes: [block][t][h][w][lane].
static void transform_source(const Winograd *g) {
  const md_item *s = &g->item;
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_emit *e = &c->k->e;
  md_squares q = {c, g->q.f, g->q.frames, g->q.h, g->q.w, d->window[1], d->window[2]};
  md_loop ib = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->src_blocks), 1, "i_block");
  md_pack_window(c, d, c->src, c->src_c, ib.i, md_i64(e, 1), s->n, s->m0, s->tile, s->window, NULL);
  md_planes to = {g->source, first_pixel(g, ib.i, q.t), source_step(g)};
  md_squares_to_planes(&q, md_filter_source, q.f->n, s->window, &to);
  md_loop_end(e, &ib);
}

// The direct convolution in plane p, for `blocks` dst blocks, whose sums begin at `to` in the plane.
static void multiply_plane(const Winograd *g, const md_item *plane, md_ir p, int blocks,
                           md_ir block, md_ir to) {
  const md_conv *c = plane->c;
  md_emit *e = &c->k->e;
  md_item s = *plane;
  s.window = md_at(e, c->wide, g->source, md_imulc(e, p, source_step(g)));
  s.panels = md_at(e, c->wide, g->weights, md_imulc(e, p, weights_step(c)));
  s.acc = md_at(e, c->wide, g->sums, md_iadd(e, md_imulc(e, p, sums_step(g)), to));
  md_item_multiply(&s, blocks, block);
}

// Sums of all planes become the tile's results, and go through the epilogue.
static void finish_blocks(const Winograd *g, int blocks, md_ir block) {
  const md_item *s = &g->item;
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  md_squares q = {c, g->q.f, g->q.t, g->q.h, g->q.w, s->tile[1], s->tile[2]};
  md_loop b = md_loop_begin(e, md_i64(e, 0), md_i64(e, blocks), 1, "block");
  md_ir in_plane = g->q.apart ? md_iadd(e, block, b.i) : b.i;
  md_planes from = {g->sums, first_pixel(g, in_plane, q.t), sums_step(g)};
  md_ir to = md_imulc(e, b.i, s->tile[0] * s->tile[1] * s->tile[2] * c->lanes);
  md_squares_from_planes(&q, &from, md_at(e, c->wide, s->acc, to));
  md_loop_end(e, &b);
  md_item_finish(s, blocks, block);
}

// --- phases

// The convolution in a plane: a pixel for each square, taps along t alone.
static md_conv plane_conv(const md_conv *c) {
  md_conv p = *c;
  p.kernel[1] = p.kernel[2] = 1;
  return p;
}
static md_dense plane_problem(const Winograd *g) {
  const Squares *q = &g->q;
  const md_dense *d = g->item.d;
  bool is_list = d->tap[0].num == 1;  // then frames need not be told apart
  md_dense p = {.tail = 5, .in_step = {1, 1, 1}, .tap = {d->tap[0], {.num = 1}, {.num = 1}}};
  p.lo[0] = d->lo[0];
  p.tile[0] = is_list ? 1 : q->t;
  p.window[0] = is_list ? 1 : q->frames;
  p.tile[1] = p.window[1] = 1;
  p.tile[2] = p.window[2] = is_list ? block_squares(g, q->t) : q->h * q->w;
  return p;
}

// Begins a phase whose items are tiles, with `bytes` of scratch behind the window and the results.
static md_ir begin_tiles(Winograd *g, const char *what, int64_t bytes) {
  md_item *s = &g->item;
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t window = md_round_up(md_window_bytes(c, d), 64);
  int64_t acc = 2 * d->tile[0] * d->tile[1] * d->tile[2] * vector_bytes(c);
  md_phase_begin(k, what, c->n * md_dense_tiles(d), window + acc + bytes);
  int64_t tiles[3] = {c->n, d->grid[0] / d->tile[0], d->grid[1] / d->tile[1]};
  md_ir index[3];
  md_split_index(e, k->item, 3, tiles, index);
  s->n = index[0];
  s->part = md_iadd(e, md_imulc(e, index[1], tiles[2]), index[2]);
  for (int i = 0; i < 3; i++) {
    s->tile[i] = d->tile[i];
    s->m0[i] = i < 2 ? md_imulc(e, index[1 + i], d->tile[i]) : md_i64(e, 0);
    s->extent[i] =
        md_imin(e, md_i64(e, d->tile[i]), md_isub(e, md_i64(e, c->dst_size[i]), s->m0[i]));
  }
  s->window = k->scratch;
  s->acc = md_at(e, MD_U8, k->scratch, md_i64(e, window));
  g->base = g->q.apart ? md_imulc(e, k->item, g->q.t * g->q.h * g->q.w) : md_i64(e, 0);
  return md_at(e, MD_U8, s->acc, md_i64(e, acc));
}

typedef void Group(const Winograd *g, const md_item *plane, int blocks, md_ir block);
static void all_groups(const Winograd *g, const md_item *plane, Group *group) {
  const md_conv *c = g->item.c;
  md_emit *e = &c->k->e;
  if (c->dst_blocks >= 2) {
    md_loop o = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->dst_blocks / 2), 1, "o_pair");
    group(g, plane, 2, md_imulc(e, o.i, 2));
    md_loop_end(e, &o);
  }
  if (c->dst_blocks % 2) group(g, plane, 1, md_i64(e, c->dst_blocks - 1));
}

static void whole_group(const Winograd *g, const md_item *plane, int blocks, md_ir block) {
  md_emit *e = &g->item.c->k->e;
  int n = g->q.f->n;
  md_loop p = md_loop_begin(e, md_i64(e, 0), md_i64(e, n * n), 1, "plane");
  multiply_plane(g, plane, p.i, blocks, block, md_i64(e, 0));
  md_loop_end(e, &p);
  finish_blocks(g, blocks, block);
}
static void group_of_plane(const Winograd *g, const md_item *plane, int blocks, md_ir block) {
  const md_conv *c = g->item.c;
  md_ir to = md_imulc(&c->k->e, block, block_squares(g, g->q.t) * c->lanes);
  multiply_plane(g, plane, c->k->item, blocks, block, to);
}
static void group_of_tile(const Winograd *g, const md_item *plane, int blocks, md_ir block) {
  (void)plane;
  finish_blocks(g, blocks, block);
}

static void emit_whole(Winograd *g, md_item *plane) {
  const md_conv *c = g->item.c;
  md_emit *e = &c->k->e;
  int64_t planes = g->q.f->n * g->q.f->n, source = planes * g->q.source * vector_bytes(c);
  g->source = begin_tiles(g, "winograd", source + planes * g->q.sums * vector_bytes(c));
  g->sums = md_at(e, MD_U8, g->source, md_i64(e, source));
  g->weights = md_workspace(c->k, g->place);
  transform_source(g);
  plane->first = md_i64(e, 0);
  plane->blocks = md_i64(e, c->src_blocks);
  all_groups(g, plane, whole_group);
  md_phase_end(c->k);
}

static void emit_apart(Winograd *g, md_item *plane) {
  const md_conv *c = g->item.c;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t planes = g->q.f->n * g->q.f->n;
  int64_t source = md_workspace_reserve(k, planes * g->q.source * vector_bytes(c));
  int64_t sums = md_workspace_reserve(k, planes * g->q.sums * vector_bytes(c));
  begin_tiles(g, "planes", 0);
  g->source = md_workspace(k, source);
  transform_source(g);
  md_phase_end(k);

  md_phase_begin(k, "products", planes, 0);
  g->source = md_workspace(k, source);
  g->sums = md_workspace(k, sums);
  g->weights = md_workspace(k, g->place);
  plane->first = md_i64(e, 0);
  plane->blocks = md_i64(e, c->src_blocks);
  all_groups(g, plane, group_of_plane);
  md_phase_end(k);

  begin_tiles(g, "results", 0);
  g->sums = md_workspace(k, sums);
  all_groups(g, plane, group_of_tile);
  md_phase_end(k);
}

void md_emit_conv_winograd(md_kernel *k) {
  const md_node *node = k->r->anchor;
  md_conv c = md_conv_of(k, node->in[0], node->in[1], node->out), pc = plane_conv(&c);
  md_dense d;
  md_conv_problems(&c, &d);
  Winograd g = {.item = {.c = &c, .d = &d}};
  choose_squares(&c, &d, &g.q);
  md_dense pd = plane_problem(&g);
  int64_t planes = g.q.f->n * g.q.f->n;
  g.place = md_workspace_reserve(k, planes * weights_step(&pc) * md_dtype_size(c.wide));
  g.item.sums = md_sums_create(k, md_dense_tiles(&d), 2);
  pack_weights(&g, &pc);
  md_item plane = {.c = &pc, .d = &pd};
  for (int i = 0; i < 3; i++) plane.tile[i] = pd.tile[i];
  if (g.q.apart) emit_apart(&g, &plane);
  else emit_whole(&g, &plane);
  md_sums_finish(g.item.sums);
}
