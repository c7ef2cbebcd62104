// SPDX-License-Identifier: Apache-2.0
// Winograd's minimal filtering for kernels of few taps along h and w or along t: forward and data gradient. Squares of
// the source become planes with a pixel for each square, and so do the weights (filter.c). In a plane the convolution
// is a direct one of the other taps, which may have a stride beside a filter along t: its register tile is that of
// conv_dense.c.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/filter.h"
#include "codegen/cpu/parts.h"

#include <math.h>

// How an item's tile is made of squares.
typedef struct Squares {
  const md_filter *f;
  int64_t size[3];        // of the results: t, h, w
  int64_t num[3];         // squares in a tile
  int64_t source_num[3];  // in its source: more where there are other taps
  int64_t source, sums;   // vectors of a plane: of the source, of results
  bool images;            // planes have taps along h and w, or a stride: pixels are no list
  bool apart;             // planes of all items together
  int64_t items;          // whose squares a plane has: one, or all
  int parts;              // of the convolution
} Squares;

typedef struct Winograd {
  Squares q;
  const md_conv_parts *p;
  md_dense in_plane[MD_MAX_DENSE];
  md_item item, plane;          // of the convolution, of the direct one in a plane
  int64_t place;                // of the weights, in the workspace
  md_ir source, weights, sums;  // the first plane of each
  md_ir item_in_plane;          // number of the item among those
  md_ir from_m0[3];             // where its tile of `from` begins
} Winograd;

// --- the plan

static int64_t squares_along(const Squares *q, int axis) {
  return md_filter_squares(q->f, axis, q->size[axis]);
}
static int64_t tile_squares(const Squares *q) { return q->num[0] * q->num[1] * q->num[2]; }
static int64_t all_squares(const md_conv *c, const Squares *q) {
  return c->n * squares_along(q, 0) * squares_along(q, 1) * squares_along(q, 2);
}
static int64_t source_squares(const Squares *q) {
  return q->source_num[0] * q->source_num[1] * q->source_num[2];
}

static void set_tile(const md_conv *c, md_conv_parts *p, Squares *q) {
  md_dense *from = &p->from;
  q->items = q->apart ? all_squares(c, q) / tile_squares(q) : 1;
  q->sums = md_plane_vectors(q->items * (q->apart ? c->dst_blocks * p->num : 2) * tile_squares(q));
  from->chunk = 1;
  for (int i = 0; i < 3; i++) {
    int64_t tile = q->num[i] * md_filter_step(q->f, i), grid = md_round_up(q->size[i], tile);
    int64_t of_source = q->f->transposed && md_filters_axis(q->f, i) ? q->f->stride : 1;
    from->tile[i] = tile / of_source;
    from->grid[i] = grid / of_source;
    for (int k = 0; k < p->num; k++) p->part[k].tile[i] = tile;
  }
  md_set_window(from);
  md_share_window(p);
  for (int i = 0; i < 3; i++)
    q->source_num[i] = md_filters_axis(q->f, i) ? q->num[i] : from->window[i];
  q->source = md_plane_vectors(q->items * c->src_blocks * source_squares(q));
}

static int64_t vector_bytes(const md_conv *c) { return c->lanes * md_dtype_size(c->wide); }
// Taps in a plane.
static int64_t plane_taps(const md_conv *c, const md_filter *f) {
  return f->along_t ? c->kernel[1] * c->kernel[2] : c->kernel[0];
}
// Costs count multiply-adds of vectors. What else takes time stands in the same unit, as measured on Zen 4 and 5: how
// many times as much an element of a plane is where planes are apart; a vector of weights from L2, L3, memory.
enum { APART = 5 };
static double weight_cost(const md_conv *c, int64_t bytes) {
  if (bytes <= c->k->e.cpu->l2_bytes) return 0.5;
  return bytes <= c->k->e.cpu->cache_bytes ? 2 : 36;
}

static double cost_of(const md_conv *c, const md_dense *d, const Squares *q) {
  double planes = md_filter_planes(q->f), squares = (double)tile_squares(q);
  double items = (double)(c->n * md_dense_tiles(d)), results = (double)q->parts * squares;
  double weights = planes * (double)(plane_taps(c, q->f) * md_channel_pairs(c));
  double reading = weights * weight_cost(c, (int64_t)weights * vector_bytes(c));
  double pixels = planes * q->f->work *
                  ((double)(c->src_blocks * source_squares(q)) + (double)c->dst_blocks * results);
  double products = weights * squares / (c->k->e.cpu->is_half ? 2 : 1);  // see plane_conv
  return items * (products + pixels * (q->apart ? APART : 1)) + reading * (q->apart ? 1 : items) +
         weights * q->f->work;
}

// Planes of an item should stay in L2, planes of all in the last cache.
static bool fits(const md_conv *c, const Squares *q) {
  int64_t bytes = md_filter_planes(q->f) * (q->source + q->sums) * vector_bytes(c);
  if (q->apart) return bytes <= c->k->e.cpu->cache_bytes * 3 / 4;
  bool is_least = !q->images && tile_squares(q) == q->num[q->f->along_t ? 0 : 2];
  return bytes <= c->k->e.cpu->l2_bytes * 7 / 10 || is_least;
}

// A window holds whole rows and, with taps along t, whole columns of frames. Planes that are apart join tiles along
// their first axis.
static bool is_tile(const md_conv *c, const Squares *q) {
  bool is_whole[3];
  for (int i = 0; i < 3; i++) {
    if (squares_along(q, i) % q->num[i]) return false;
    is_whole[i] = q->num[i] == squares_along(q, i);
  }
  if (q->images) return is_whole[0] && is_whole[2] && (is_whole[1] || !q->apart);
  if (q->f->along_t) return is_whole[0] && is_whole[1];
  if (q->apart) return is_whole[2] && q->num[0] == 1 && plane_taps(c, q->f) == 1;
  return is_whole[2];
}

// The best way to cut the convolution into squares; its cost, infinite where there is none.
static double choose_squares(const md_conv *c, md_conv_parts *problem, Squares *best) {
  double least = INFINITY;
  for (int i = 0; i < 2 * MD_FILTERS; i++) {
    md_conv_parts p;
    Squares q = {.f = &md_filters[i / 2], .apart = i % 2};
    if (!md_filter_split(c, q.f, &p)) continue;
    q.images = q.f->along_t && p.part[0].tail == 5;
    q.parts = p.num;
    for (int k = 0; k < 3; k++) q.size[k] = p.part[0].grid[k];
    for (q.num[0] = 1; q.num[0] <= squares_along(&q, 0); q.num[0]++) {
      if (squares_along(&q, 0) % q.num[0]) continue;
      for (q.num[1] = 1; q.num[1] <= squares_along(&q, 1); q.num[1]++) {
        if (squares_along(&q, 1) % q.num[1]) continue;
        for (q.num[2] = 1; q.num[2] <= squares_along(&q, 2); q.num[2]++) {
          if (!is_tile(c, &q)) continue;
          set_tile(c, &p, &q);
          double cost = cost_of(c, &p.part[0], &q);
          if (cost >= least || !fits(c, &q)) continue;
          least = cost;
          *best = q;
          *problem = p;
        }
      }
    }
  }
  return least;
}

static md_conv conv_of(md_kernel *k) {
  const md_node *node = k->r->anchor;
  return md_conv_of(k, node->in[0], node->in[1], node->out);
}

const char *md_winograd_refuse(const md_region_view *r, const md_cpu *cpu) {
  md_kernel k = {.r = r, .e.cpu = cpu};  // enough to plan with
  md_conv direct = conv_of(&k), c = md_conv_in_f32(direct);
  if (!cpu->winograd || c.dtype == MD_F64) return "";
  md_conv_parts p;
  Squares q;
  double cost = choose_squares(&c, &p, &q);
  if (cost == INFINITY) return "";
  return md_filter_refuse(&direct, cost);
}

// Elements from a plane to the next: of weights, source, sums.
static int64_t weights_step(const md_conv *plane) {
  int64_t cells = plane->dst_blocks * md_panel_cells(plane);
  return md_plane_vectors(cells * plane->in_cell / plane->lanes) * plane->lanes;
}
static int64_t source_step(const Winograd *g) { return g->q.source * g->item.c->lanes; }
static int64_t sums_step(const Winograd *g) { return g->q.sums * g->item.c->lanes; }

// --- weights

// The weights of source channel `src` in all planes; tap: that beside the filter.
static void transform_weights(const Winograd *g, const md_conv *plane, md_ir dst, md_ir src,
                              md_ir tap, md_square x) {
  const md_conv *c = g->item.c;
  const md_taps *taps = g->p->part[0].tap;
  const md_filter *f = g->q.f;
  md_emit *e = &c->k->e;
  md_ir mask = md_channel_mask(e, c->dst_c, dst, c->lanes);
  // Ascending offsets into the window; a data gradient meets its taps the other way round.
  int last = f->r - 1, at[3][MD_FILTER_N];
  for (int i = 0; i < 3; i++)
    for (int k = 0; k <= last; k++) at[i][k] = taps[i].doff > 0 ? k : last - k;
  for (int i = 0; i <= last && f->along_t; i++) {
    md_ir place[3] = {md_i64(e, at[0][i]), md_idivc(e, tap, c->kernel[2]),
                      md_imodc(e, tap, c->kernel[2])};
    x[i][0] = md_weights_at(plane, dst, mask, src, place);
  }
  for (int i = 0; i < f->r * f->r && !f->along_t; i++) {
    md_ir place[3] = {tap, md_i64(e, at[1][i / f->r]), md_i64(e, at[2][i % f->r])};
    x[i / f->r][i % f->r] = md_weights_at(plane, dst, mask, src, place);
  }
  md_filter_weights(e, f, x);
}

// Phase 0: an item for each pair of blocks. The weights of plane p: [dst block][src block][tap][cell][lane].
static void pack_weights(const Winograd *g, const md_conv *plane) {
  const md_conv *c = g->item.c;
  const md_filter *f = g->q.f;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t size[2] = {c->dst_blocks, c->src_blocks};
  int64_t cells = md_ceil_div(MD_MIN(c->src_c, c->lanes), plane->in_cell);
  md_phase_begin(k, "transform_weights", size[0] * size[1], 0);
  md_ir at[2], to = md_workspace(k, g->place), zero = md_i64(e, 0);
  md_split_index(e, k->item, 2, size, at);
  md_loop tap = md_loop_begin(e, zero, md_i64(e, plane_taps(c, f)), 1, "tap");
  md_loop cell = md_loop_begin(e, zero, md_i64(e, cells), 1, "cell");
  md_ir src = md_iadd(e, md_imulc(e, at[1], c->lanes), md_imulc(e, cell.i, plane->in_cell));
  md_square x[2];
  for (int i = 0; i < plane->in_cell; i++)
    transform_weights(g, plane, at[0], md_iaddc(e, src, i), tap.i, x[i]);
  md_ir off = md_iadd(e, md_imulc(e, at[0], c->src_blocks), at[1]);
  off = md_iadd(e, md_imulc(e, off, plane_taps(c, f)), tap.i);
  off = md_imulc(e, md_iadd(e, md_imulc(e, off, cells), cell.i), c->lanes * plane->in_cell);
  int cols = f->along_t ? 1 : f->n;
  for (int p = 0; p < md_filter_planes(f); p++) {
    md_ir w[2], element = md_iaddc(e, off, p * weights_step(plane));
    for (int i = 0; i < plane->in_cell; i++) w[i] = x[i][p / cols][p % cols];
    md_store(e, plane->cell, md_at(e, c->wide, to, element), zero, md_cell_of(plane, w), NULL);
  }
  md_loop_end(e, &cell);
  md_loop_end(e, &tap);
  md_phase_end(k);
}

// --- an item's parts

// The item's part of a block begins there in a plane; `squares`: those of a tile.
static md_ir first_pixel(const Winograd *g, md_ir block, int64_t squares) {
  md_emit *e = &g->item.c->k->e;
  md_ir part = md_iadd(e, md_imulc(e, block, g->q.items), g->item_in_plane);
  return md_imulc(e, part, squares * g->item.c->lanes);
}

// The window of each block of channels becomes pixels of all planes: [block][t][h][w][lane].
static void transform_source(const Winograd *g) {
  const md_item *s = &g->item;
  const md_conv *c = s->c;
  const md_dense *from = &g->p->from;
  const md_filter *f = g->q.f;
  md_emit *e = &c->k->e;
  md_squares q = md_squares_in_order(c, f, g->q.source_num);
  q.height = from->window[1];
  q.width = from->window[2];
  q.size = f->in;
  q.step = f->in_step;
  md_loop ib = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->src_blocks), 1, "i_block");
  md_pack_window(c, from, c->src, c->src_c, ib.i, md_i64(e, 1), s->n, g->from_m0, from->tile,
                 s->window, NULL);
  md_planes to = {g->source, first_pixel(g, ib.i, source_squares(&g->q)), source_step(g)};
  md_squares_to_planes(&q, md_filter_source, s->window, &to);
  md_loop_end(e, &ib);
}

// Sums of a part in planes that are apart begin there, for blocks from `block` on.
static md_ir part_apart(const Winograd *g, int part, md_ir block) {
  const md_conv *c = g->item.c;
  return md_iaddc(&c->k->e, block, part * c->dst_blocks);
}

// The direct convolution of a part in plane p, for `blocks` dst blocks.
static void multiply_plane(const Winograd *g, int part, md_ir p, int blocks, md_ir block) {
  const md_conv *c = g->plane.c;
  md_emit *e = &c->k->e;
  md_item s = g->plane;
  s.d = &g->in_plane[part];
  for (int i = 0; i < 3; i++) s.tile[i] = s.d->tile[i];
  md_ir to = md_imulc(e, p, sums_step(g));
  if (g->q.apart) {
    int64_t squares = g->q.items * tile_squares(&g->q);
    to = md_iadd(e, to, md_imulc(e, part_apart(g, part, block), squares * c->lanes));
  }
  s.window = md_at(e, c->wide, g->source, md_imulc(e, p, source_step(g)));
  s.panels = md_at(e, c->wide, g->weights, md_imulc(e, p, weights_step(c)));
  s.acc = md_at(e, c->wide, g->sums, to);
  md_item_multiply(&s, blocks, block);
}

// Sums of all planes become results of a part, where they lie in the tile.
static void finish_part(const Winograd *g, int part, int blocks, md_ir block) {
  const md_item *s = &g->item;
  const md_conv *c = s->c;
  const md_dense *d = &g->p->part[part];
  md_emit *e = &c->k->e;
  md_squares q = md_squares_in_order(c, g->q.f, g->q.num);
  q.height = d->tile[1] * d->step[1];
  q.width = d->tile[2] * d->step[2];
  q.size = q.step = g->q.f->m;
  for (int i = 1; i < 3; i++) q.apart[i] = d->step[i];
  md_loop b = md_loop_begin(e, md_i64(e, 0), md_i64(e, blocks), 1, "block");
  md_ir in_plane = g->q.apart ? part_apart(g, part, md_iadd(e, block, b.i)) : b.i;
  md_planes from = {g->sums, first_pixel(g, in_plane, tile_squares(&g->q)), sums_step(g)};
  md_ir to = md_imulc(e, b.i, d->tile[0] * q.height * q.width);
  to = md_imulc(e, md_iaddc(e, to, d->first[1] * q.width + d->first[2]), c->lanes);
  md_squares_from_planes(&q, &from, md_at(e, c->wide, s->acc, to));
  md_loop_end(e, &b);
}

// --- phases

// The convolution in a plane. Taps along t that the filter leaves become such along w.
static md_conv plane_conv(const md_conv *c, const md_filter *f) {
  md_conv p = c->k->e.cpu->is_half ? md_conv_in_halves(*c) : *c;
  p.kernel[0] = 1;
  if (f->along_t) return p;
  p.kernel[1] = 1;
  p.kernel[2] = c->kernel[0];
  return p;
}
static md_dense plane_problem(const Winograd *g, const md_dense *d) {
  const Squares *q = &g->q;
  md_taps one = {.num = 1};
  md_dense p = {.tail = 5, .step = {1, 1, 1}, .in_step = {1, 1, 1}, .tap = {one, one, one}};
  if (q->images) {
    p.tile[0] = p.window[0] = q->items * q->num[0];
    for (int i = 1; i < 3; i++) {
      p.tile[i] = d->tile[i];
      p.window[i] = d->window[i];
      p.in_step[i] = d->in_step[i];
      p.tap[i] = d->tap[i];
      p.lo[i] = d->lo[i];
    }
    return p;
  }
  // All squares of a tile are one row of pixels; from a tap to the next it is a frame's squares.
  for (int i = 0; i < 3; i++) p.tile[i] = p.window[i] = 1;
  p.tile[2] = q->items * tile_squares(q);
  p.window[2] = q->items * source_squares(q);
  if (plane_taps(g->item.c, q->f) > 1) {
    int64_t frame = q->num[1] * q->num[2];
    p.tap[2] = d->tap[0];
    p.tap[2].off0 *= frame;
    p.tap[2].doff *= frame;
    p.lo[2] = d->lo[0] * frame;
  }
  return p;
}

// Begins a phase whose items are tiles, with `bytes` of scratch behind the window and the results.
static md_ir begin_tiles(Winograd *g, const char *what, int64_t bytes) {
  md_item *s = &g->item;
  const md_conv *c = s->c;
  const md_dense *d = s->d, *from = &g->p->from;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t window = md_round_up(md_window_bytes(c, from), 64);
  for (int i = 0; i < 3; i++) s->tile[i] = d->tile[i];
  int64_t acc = 2 * md_item_results(s) * vector_bytes(c);
  md_phase_begin(k, what, c->n * md_dense_tiles(d), window + acc + bytes);
  int64_t tiles[2] = {c->n, md_dense_tiles(d)}, along[3];
  md_ir index[2], tile[3];
  md_split_index(e, k->item, 2, tiles, index);
  for (int i = 0; i < 3; i++) along[i] = md_ceil_div(d->grid[i], d->tile[i]);
  md_split_index(e, index[1], 3, along, tile);
  s->n = index[0];
  s->part = index[1];
  md_item_place(s, g->p, tile);
  for (int i = 0; i < 3; i++) g->from_m0[i] = md_imulc(e, tile[i], from->tile[i]);
  s->window = k->scratch;
  s->acc = md_at(e, MD_U8, k->scratch, md_i64(e, window));
  g->item_in_plane = g->q.apart ? k->item : md_i64(e, 0);
  return md_at(e, MD_U8, s->acc, md_i64(e, acc));
}

static void whole_group(const void *winograd, int blocks, md_ir block) {
  const Winograd *g = winograd;
  md_emit *e = &g->item.c->k->e;
  for (int i = 0; i < g->p->num; i++) {
    md_loop p = md_loop_begin(e, md_i64(e, 0), md_i64(e, md_filter_planes(g->q.f)), 1, "plane");
    multiply_plane(g, i, p.i, blocks, block);
    md_loop_end(e, &p);
    finish_part(g, i, blocks, block);
  }
  md_item_finish(&g->item, blocks, block);
}
static void group_of_plane(const void *winograd, int blocks, md_ir block) {
  const Winograd *g = winograd;
  for (int i = 0; i < g->p->num; i++) multiply_plane(g, i, g->item.c->k->item, blocks, block);
}
static void group_of_tile(const void *winograd, int blocks, md_ir block) {
  const Winograd *g = winograd;
  for (int i = 0; i < g->p->num; i++) finish_part(g, i, blocks, block);
  md_item_finish(&g->item, blocks, block);
}

static void emit_whole(Winograd *g) {
  const md_conv *c = g->item.c;
  md_emit *e = &c->k->e;
  int64_t planes = md_filter_planes(g->q.f), source = planes * g->q.source * vector_bytes(c);
  g->source = begin_tiles(g, "winograd", source + planes * g->q.sums * vector_bytes(c));
  g->sums = md_at(e, MD_U8, g->source, md_i64(e, source));
  g->weights = md_workspace(c->k, g->place);
  transform_source(g);
  g->plane.first = md_i64(e, 0);
  g->plane.blocks = md_i64(e, c->src_blocks);
  md_in_pairs(e, c->dst_blocks, whole_group, g);
  md_phase_end(c->k);
}

static void emit_apart(Winograd *g) {
  const md_conv *c = g->item.c;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t planes = md_filter_planes(g->q.f);
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
  g->plane.first = md_i64(e, 0);
  g->plane.blocks = md_i64(e, c->src_blocks);
  md_in_pairs(e, c->dst_blocks, group_of_plane, g);
  md_phase_end(k);

  begin_tiles(g, "results", 0);
  g->sums = md_workspace(k, sums);
  md_in_pairs(e, c->dst_blocks, group_of_tile, g);
  md_phase_end(k);
}

void md_emit_conv_winograd(md_kernel *k) {
  md_conv c = md_conv_in_f32(conv_of(k)), pc;
  k->in_f32 = true;
  md_conv_parts p;
  Winograd g = {.p = &p, .item = {.c = &c, .d = p.part}};
  choose_squares(&c, &p, &g.q);
  g.item.num = p.num;
  pc = plane_conv(&c, g.q.f);
  for (int i = 0; i < p.num; i++) g.in_plane[i] = plane_problem(&g, &p.part[i]);
  int64_t planes = md_filter_planes(g.q.f);
  g.place = md_workspace_reserve(k, planes * weights_step(&pc) * md_dtype_size(c.wide));
  g.item.sums = md_sums_create(k, md_dense_tiles(p.part), 2);
  pack_weights(&g, &pc);
  g.plane.c = &pc;
  if (g.q.apart) emit_apart(&g);
  else emit_whole(&g);
  md_sums_finish(g.item.sums);
}
