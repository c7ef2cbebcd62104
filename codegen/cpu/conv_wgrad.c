// SPDX-License-Identifier: Apache-2.0
// Weight gradient: dw[o,i,k] = sum over n, p of dy[n,o,p] * x[n,i,p*stride + off(k)].
//
// Work is cut into items by groups of output channels and by splits of the sum over pixels, each with
// a part of dw of its own in the workspace; a last phase adds the splits in order. Many splits of a
// large dw would cost more than packing x once for each group. An item walks over its tiles of pixels:
// both windows are packed (prologues applied); for each block of input channels and two blocks of
// output channels, strips of pixels that L1 holds are run over for every tap:
//
//     acc[i][block] += splat(x[pixel + tap][i]) * dy[pixel][block]
//
// Where a product takes several elements, of bf16 or in half a register's lanes, `pixel` is so many neighbours of
// a row, packed side by side; a row that they do not divide ends with zeros (which make a NaN of an infinite x
// beside it).
#include "codegen/cpu/conv.h"
#include "codegen/cpu/parts.h"

enum {
  SPARE_REGISTERS = 8,
  MAX_ACC = 24,
  FEW_CHANNELS = 8,
  FEW_ROWS = 12,
  ITEMS = 4,
  STRIP_CELLS = 128,
  PIECE_CELLS = 16,
  SMALL_DW = 1 << 20
};

typedef struct md_wgrad {
  md_kernel *k;
  md_conv x;  // as if a forward convolution x -> dy
  md_val dy;
  md_dense xd, yd;                // windows of x and of dy for a tile
  md_cells xp, yp;                // their pixels in cells
  int64_t xwidth, ywidth, xstep;  // cells in a row; in x from one of an output row to the next
  int64_t groups, group_blocks;   // of output blocks
  int64_t splits, tiles_each;
  int64_t strip[3];          // t, h, cells
  int64_t piece;             // cells between fetches for the next tile
  int64_t inner;             // input channels of a block that exist at most
  int64_t joined[2];         // taps along h and w whose channels are rows of register tiles
  int64_t partial;           // elements of an item's dw: [o block][i block][tap][inner][lane]
  int64_t place;             // workspace
  md_ir n, m0[3], xw, yw;    // of the tile
  md_ir next_n, next_m0[3];  // of the tile behind it, which may not exist
  md_ir first, blocks;       // input blocks in the window of x
  md_ir sums;                // the item\'s dw
} Wgrad;

static int64_t taps_of(const md_conv *c) { return c->kernel[0] * c->kernel[1] * c->kernel[2]; }
static int64_t rows_of(const Wgrad *g) { return g->inner * g->joined[0] * g->joined[1]; }

// Offset in an item's dw of channel block (ob, ib), tap, row.
static md_ir partial_offset(const Wgrad *g, md_ir ob, md_ir ib, md_ir tap, int64_t row) {
  md_emit *e = &g->k->e;
  md_ir off = md_iadd(e, md_imulc(e, ob, g->x.src_blocks), ib);
  off = md_iadd(e, md_imulc(e, off, taps_of(&g->x)), tap);
  return md_imulc(e, md_iaddc(e, md_imulc(e, off, g->inner), row), g->x.lanes);
}

// Share number `share` of `shares` of what the next tile packs of a block of src at the strip's pixels.
static void fetch_share(const Wgrad *g, const md_dense *d, md_val src, md_ir block, md_ir strip,
                        md_ir share, int64_t shares) {
  const md_conv *c = &g->x;
  md_emit *e = &g->k->e;
  int64_t cells = g->strip[2];
  md_ir first = md_iadd(e, strip, md_idivc(e, md_imulc(e, share, cells), shares));
  for (int64_t i = 0; i < md_ceil_div(cells, shares); i++) {
    md_ir pixel = md_imulc(e, md_iaddc(e, first, i), c->in_cell);
    md_fetch_pixel(c, d, src, g->next_n, block, g->next_m0, md_iadd(e, g->next_m0[2], pixel));
  }
}

// Memory is busy while numbers are multiplied: each piece of a register tile's strip, number `piece` of `pieces` of
// those with these blocks, fetches a little, as a processor drops what is asked for in bursts. It stands outside of the
// loop over pixels: among the products LLVM would run out of registers.
static void fetch_ahead(const Wgrad *g, md_ir strip, md_ir piece, int64_t pieces, int blocks,
                        md_ir ob, md_ir ib) {
  md_emit *e = &g->k->e;
  int64_t pairs = md_ceil_div(g->group_blocks, 2);  // see md_in_pairs
  md_ir share = md_iadd(e, md_imulc(e, md_idivc(e, ob, 2), pieces), piece);
  fetch_share(g, &g->xd, g->x.src, ib, strip, share, pairs * pieces);
  share = md_iadd(e, md_imulc(e, ib, pieces), piece);
  for (int b = 0; b < blocks; b++)
    fetch_share(g, &g->yd, g->dy, md_iaddc(e, ob, b), strip, share, g->x.src_blocks * pieces);
}

// acc[row][block] over the strip from `from`, which joins what the item has so far. A row is an input channel of
// the tap, or of one of the `joined` taps that begin there.
static void register_tile(const Wgrad *g, const md_ir from[3], int64_t row0, int64_t rows,
                          int blocks, md_ir ob, md_ir ib, md_ir tap, const md_ir tap_at[3]) {
  const md_conv *c = &g->x;
  const md_dense *xd = &g->xd, *yd = &g->yd;
  md_emit *e = &g->k->e;
  md_var acc[MAX_ACC];
  md_ir at[MAX_ACC], zero = md_accumulator(c, md_const(e, c->type, c->lanes, 0));
  for (int64_t r = 0; r < rows; r++) {
    int64_t of_tap = (row0 + r) / g->inner, channel = (row0 + r) % g->inner;
    for (int b = 0; b < blocks; b++) {
      int64_t i = r * blocks + b;
      at[i] = partial_offset(g, md_iaddc(e, ob, b), md_iadd(e, g->first, ib),
                             md_iaddc(e, tap, of_tap), channel);
      acc[i] = md_var_new(e, LLVMTypeOf(zero), NULL, "acc");
      md_set(e, acc[i], zero);
    }
  }
  md_steps xs = md_window_steps(c, xd, g->xwidth), ys = md_window_steps(c, yd, g->ywidth);
  md_loop t = md_loop_begin(e, from[0], md_iaddc(e, from[0], g->strip[0]), 1, "t");
  md_loop h = md_loop_begin(e, from[1], md_iaddc(e, from[1], g->strip[1]), 1, "h");
  md_ir xt = md_iadd(e, md_imulc(e, t.i, xd->in_step[0]), tap_at[0]);
  md_ir xh = md_iadd(e, md_imulc(e, h.i, xd->in_step[1]), tap_at[1]);
  md_ir xline = md_iadd(e, md_imulc(e, xt, xd->window[1]), xh);
  md_ir xrow = md_iadd(e, md_imulc(e, ib, xs.block), md_imulc(e, xline, xs.row));
  xrow = md_iadd(e, xrow, md_imulc(e, tap_at[2], xs.pixel));
  md_ir yline = md_iadd(e, md_imulc(e, t.i, yd->window[1]), h.i);
  md_loop piece = md_loop_begin(e, from[2], md_iaddc(e, from[2], g->strip[2]), g->piece, "piece");
  if (xd->ahead) {
    int64_t num = g->strip[2] / g->piece, tiles = md_ceil_div(rows_of(g), rows);
    md_ir index = md_idivc(e, md_isub(e, piece.i, from[2]), g->piece);
    index = md_iaddc(e, index, row0 / rows * num);
    fetch_ahead(g, from[2], index, tiles * num, blocks, ob, md_iadd(e, g->first, ib));
  }
  md_loop w = md_loop_begin(e, piece.i, md_iaddc(e, piece.i, g->piece), 1, "w");
  md_ir xi = md_iadd(e, xrow, md_imulc(e, w.i, g->xstep * xs.pixel)), y[2];
  for (int b = 0; b < blocks; b++) {
    md_ir yi = md_iadd(e, md_imulc(e, md_iaddc(e, ob, b), ys.block), md_imulc(e, yline, ys.row));
    yi = md_iadd(e, yi, md_imulc(e, w.i, ys.pixel));
    y[b] = md_load(e, c->cell, g->yw, yi, c->lanes, NULL);
  }
  for (int64_t r = 0; r < rows; r++) {
    int64_t of_tap = (row0 + r) / g->inner, channel = (row0 + r) % g->inner;
    int64_t line = of_tap / g->joined[1] * xd->tap[1].doff;
    int64_t pixel = of_tap % g->joined[1] * xd->tap[2].doff;
    md_ir off = md_iaddc(e, xi, line * xs.row + pixel * xs.pixel + channel * xs.channel);
    md_ir x = md_load(e, c->cell, g->xw, off, 1, NULL);
    x = md_splat(e, x, c->lanes);
    for (int b = 0; b < blocks; b++) {
      int64_t i = r * blocks + b;
      md_set(e, acc[i], md_multiply_cells(c, x, y[b], md_get(e, acc[i])));
    }
  }
  md_loop_end(e, &w);
  md_loop_end(e, &piece);
  md_loop_end(e, &h);
  md_loop_end(e, &t);
  // Sums of strips join, rather than pixels one by one: rounding errors grow with the root of either.
  for (int64_t i = 0; i < rows * blocks; i++) {
    md_ir sum = md_accumulated(c, md_get(e, acc[i]));
    sum = md_fadd(e, md_load(e, c->wide, g->sums, at[i], c->lanes, NULL), sum);
    md_store(e, c->wide, g->sums, at[i], sum, NULL);
  }
}

// All input channels and taps against `blocks` output blocks of the group.
static void block_group(const void *wgrad, int blocks, md_ir ob) {
  const Wgrad *g = wgrad;
  const md_conv *c = &g->x;
  const md_dense *d = &g->xd;
  md_emit *e = &g->k->e;
  md_loop ib = md_loop_begin(e, md_i64(e, 0), g->blocks, 1, "i_block");
  md_loop strip[3], tap[3];
  md_ir from[3], at[3], index = md_i64(e, 0);
  int64_t extent[3] = {d->tile[0], d->tile[1], g->ywidth};
  for (int i = 0; i < 3; i++) {
    strip[i] = md_loop_begin(e, md_i64(e, 0), md_i64(e, extent[i]), g->strip[i], "strip");
    from[i] = strip[i].i;
  }
  for (int i = 0; i < 3; i++) {
    int64_t step = i > 0 ? g->joined[i - 1] : 1;
    tap[i] = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->kernel[i]), step, "tap");
    at[i] = md_iaddc(e, md_imulc(e, tap[i].i, d->tap[i].doff), d->tap[i].off0 - d->lo[i]);
    index = md_iadd(e, md_imulc(e, index, c->kernel[i]), tap[i].i);
  }
  int64_t rows = rows_of(g);
  int64_t most = MD_MIN(MAX_ACC, e->cpu->registers - SPARE_REGISTERS) / blocks;
  int64_t each = md_ceil_div(rows, md_ceil_div(rows, most));
  for (int64_t row = 0; row < rows; row += each)
    register_tile(g, from, row, MD_MIN(each, rows - row), blocks, ob, ib.i, index, at);
  for (int i = 2; i >= 0; i--) md_loop_end(e, &tap[i]);
  for (int i = 2; i >= 0; i--) md_loop_end(e, &strip[i]);
  md_loop_end(e, &ib);
}

static void clear(const Wgrad *g) {
  md_emit *e = &g->k->e;
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, g->partial), g->x.lanes, "clear");
  md_store(e, g->x.wide, g->sums, i.i, md_const(e, g->x.type, g->x.lanes, 0), NULL);
  md_loop_end(e, &i);
}

// An item: the tiles of its split, one after another, for its group of output blocks.
static void emit_items(Wgrad *g) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  const md_conv *c = &g->x;
  int64_t cell = md_dtype_size(c->cell);
  int64_t xbytes =
      md_round_up(md_window_steps(c, &g->xd, g->xwidth).block * g->xd.chunk * cell, 64);
  int64_t ybytes =
      md_round_up(md_window_steps(c, &g->yd, g->ywidth).block * g->group_blocks * cell, 64);
  int64_t row_bytes = 0;
  if (c->in_cell > 1)
    row_bytes =
        MD_MAX(md_cells_row_bytes(c, &g->xd, &g->xp), md_cells_row_bytes(c, &g->yd, &g->yp));
  md_phase_begin(k, "wgrad", g->splits * g->groups, xbytes + ybytes + row_bytes);
  g->xw = k->scratch;
  g->yw = md_at(e, MD_U8, k->scratch, md_i64(e, xbytes));
  g->xp.row = g->yp.row = md_at(e, MD_U8, k->scratch, md_i64(e, xbytes + ybytes));
  const md_cells *xp = c->in_cell > 1 ? &g->xp : NULL, *yp = c->in_cell > 1 ? &g->yp : NULL;
  g->sums = md_at(e, c->wide, md_workspace(k, g->place), md_imulc(e, k->item, g->partial));
  clear(g);
  int64_t per_sample = md_dense_tiles(&g->xd), all = per_sample * c->n;
  md_ir group = md_imulc(e, md_imodc(e, k->item, g->groups), g->group_blocks);
  md_ir first = md_imulc(e, md_idivc(e, k->item, g->groups), g->tiles_each);
  md_ir last = md_imin(e, md_iaddc(e, first, g->tiles_each), md_i64(e, all));
  md_loop tile = md_loop_begin(e, first, last, 1, "tile");
  int64_t count[4] = {c->n};
  for (int i = 0; i < 3; i++) count[1 + i] = md_ceil_div(g->xd.grid[i], g->xd.tile[i]);
  md_ir index[4], next[4];
  md_split_index(e, tile.i, 4, count, index);
  md_split_index(e, md_iaddc(e, tile.i, 1), 4, count, next);
  for (int i = 0; i < 3; i++) {
    g->m0[i] = md_imulc(e, index[1 + i], g->xd.tile[i]);
    g->next_m0[i] = md_imulc(e, next[1 + i], g->xd.tile[i]);
  }
  g->next_n = next[0];
  md_pack_window(c, &g->yd, g->dy, c->dst_c, group, md_i64(e, g->group_blocks), index[0], g->m0,
                 g->yd.tile, g->yw, yp);
  int64_t step = g->xd.chunk;
  md_loop chunk = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->src_blocks), step, "chunk");
  g->first = chunk.i;
  g->blocks = md_i64(e, step);
  if (c->src_blocks % step)
    g->blocks = md_imin(e, md_isub(e, md_i64(e, c->src_blocks), chunk.i), g->blocks);
  md_pack_window(c, &g->xd, c->src, c->src_c, g->first, g->blocks, index[0], g->m0, g->xd.tile,
                 g->xw, xp);
  md_in_pairs(e, g->group_blocks, block_group, g);
  md_loop_end(e, &chunk);
  md_loop_end(e, &tile);
  md_phase_end(k);
}

// The sum of all splits, in order (an md_weight_of).
static md_ir merged(const void *wgrad, md_ir ob, md_ir ib, md_ir tap, md_ir row) {
  const Wgrad *g = wgrad;
  const md_conv *c = &g->x;
  md_emit *e = &g->k->e;
  md_ir in_group = md_imodc(e, ob, g->group_blocks), group = md_idivc(e, ob, g->group_blocks);
  md_ir off = md_iadd(e, partial_offset(g, in_group, ib, tap, 0), md_imulc(e, row, c->lanes));
  off = md_iadd(e, off, md_imulc(e, group, g->partial));
  md_ir sum = NULL, from = md_workspace(g->k, g->place);
  for (int64_t s = 0; s < g->splits; s++) {
    int64_t part = s * g->groups * g->partial;
    md_ir x = md_load(e, c->wide, from, md_iaddc(e, off, part), c->lanes, NULL);
    sum = sum ? md_fadd(e, sum, x) : x;
  }
  return sum;
}

// Adds the splits and stores dw[o,i,k]; an item is an output block.
void md_wgrad_merge(const md_wgrad *g) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  const md_conv *c = &g->x;
  md_phase_begin(k, "merge", c->dst_blocks, 0);
  md_loop ib = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->src_blocks), 1, "i_block");
  md_store_weights(c, k->item, ib.i, merged, g);
  md_loop_end(e, &ib);
  md_phase_end(k);
}

// Several taps along a row ask for cells that begin at any pixel.
static void join_in_cells(Wgrad *g) {
  const md_dense *d = &g->xd;
  const md_taps *taps = &d->tap[2];
  int64_t stride = d->in_step[2];
  g->xwidth = d->window[2];
  g->ywidth = d->tile[2];
  g->xstep = stride;
  if (g->x.in_cell == 1) return;
  int64_t num = g->x.in_cell;
  g->ywidth = md_ceil_div(d->tile[2], num);
  g->yp = (md_cells){.step = num, .apart = 1, .num = g->ywidth};
  g->xp = (md_cells){.step = taps->num > 1 ? 1 : num * stride, .apart = stride};
  g->xstep = num * stride / g->xp.step;
  g->xwidth = g->xp.num = (g->ywidth - 1) * g->xstep + (taps->num - 1) * taps->doff + 1;
}

// Sums of a group that are larger than L2 would come and go with each tile: then tiles have many pixels, and few
// channels of x beside them.
static void choose_groups(Wgrad *g) {
  md_conv *c = &g->x;
  g->inner = MD_MIN(c->src_c, c->lanes);
  int64_t block = c->src_blocks * taps_of(c) * g->inner * c->lanes;
  bool large = c->dst_blocks * block * md_dtype_size(c->wide) > SMALL_DW;
  g->groups = large && c->dst_blocks % (2 * ITEMS) == 0 ? ITEMS : 1;
  g->group_blocks = c->dst_blocks / g->groups;
  g->partial = g->group_blocks * block;
  if (g->groups > 1) c->beside = g->group_blocks * c->lanes * md_dtype_size(c->packed);
}

// Into items that do not depend on the number of threads.
static void cut_work(Wgrad *g) {
  const md_conv *c = &g->x;
  int64_t tiles = md_dense_tiles(&g->xd) * c->n;
  g->tiles_each = md_ceil_div(tiles, MD_MIN(ITEMS / g->groups, tiles));
  g->splits = md_ceil_div(tiles, g->tiles_each);
}

// Whole rows where they are short, and several of them.
static void choose_strip(Wgrad *g) {
  int64_t extent[3] = {g->xd.tile[0], g->xd.tile[1], g->ywidth}, cells = 1;
  for (int i = 2; i >= 0; i--) {
    g->strip[i] = MD_MAX(MD_MIN(extent[i], STRIP_CELLS / cells), 1);
    while (extent[i] % g->strip[i]) g->strip[i]--;
    cells *= g->strip[i];
  }
  g->piece = MD_MIN(g->strip[2], PIECE_CELLS);
  while (g->strip[2] % g->piece) g->piece--;
  if (!g->xd.ahead || 2 * g->piece < PIECE_CELLS) g->piece = g->strip[2];
}

void md_emit_conv_wgrad(md_kernel *k) {
  const md_node *node = k->r->anchor;
  // Seen as the forward convolution x -> dy: its windows of x, its pixels of dy.
  Wgrad g = {.k = k, .dy = node->in[0], .x = md_conv_of(k, node->in[1], node->out, node->in[0])};
  md_conv *c = &g.x;
  c->bytes = md_dtype_size(c->kernel[2] == 1 ? c->packed : c->cell);
  c->whole_tiles = true;
  c->min_tiles = 1;
  choose_groups(&g);
  md_conv_parts p;
  md_conv_split(c, &p);
  g.xd = p.from;
  g.yd = g.xd;
  g.yd.planar = false;
  for (int i = 0; i < 3; i++) {
    g.yd.in_step[i] = 1;
    g.yd.in_size[i] = g.xd.grid[i];
    g.yd.tap[i] = (md_taps){.num = 1};
    g.yd.lo[i] = 0;
    g.yd.window[i] = g.yd.tile[i];
  }
  join_in_cells(&g);
  g.joined[1] = g.inner <= FEW_CHANNELS ? c->kernel[2] : 1;
  // Joined taps are neighbours in dw: those of a row, or all of several rows.
  bool all_along_w = g.joined[1] == c->kernel[2];
  g.joined[0] = all_along_w && g.inner * g.joined[1] < FEW_ROWS ? c->kernel[1] : 1;
  cut_work(&g);
  choose_strip(&g);
  g.place = md_workspace_reserve(k, g.splits * g.groups * g.partial * md_dtype_size(c->wide));
  emit_items(&g);
  md_wgrad_merge(&g);
}

// --- within another kernel

md_wgrad *md_wgrad_create(md_kernel *k, const md_dense *tile, int64_t splits) {
  const md_node *node = k->r->anchor;
  Wgrad *g = MD_NEW(k->arena, Wgrad);
  *g = (Wgrad){.k = k,
               .dy = node->in[0],
               .x = md_conv_of(k, node->in[1], node->out, node->in[0]),
               .xd = *tile,
               .yd = *tile,
               .groups = 1,
               .splits = splits,
               .joined = {1, 1}};
  g->xd.ahead = true;
  const md_conv *c = &g->x;
  g->inner = MD_MIN(c->src_c, c->lanes);
  g->group_blocks = c->dst_blocks;
  g->partial = c->dst_blocks * c->src_blocks * g->inner * c->lanes;
  join_in_cells(g);
  choose_strip(g);
  g->first = md_i64(&k->e, 0);
  g->blocks = md_i64(&k->e, c->src_blocks);
  g->place = md_workspace_reserve(k, splits * g->partial * md_dtype_size(c->wide));
  return g;
}

static int64_t window_bytes(const Wgrad *g, int64_t blocks) {
  const md_conv *c = &g->x;
  return md_round_up(g->ywidth * c->lanes * blocks * md_dtype_size(c->cell), 64);
}

int64_t md_wgrad_bytes(const md_wgrad *g) {
  const md_conv *c = &g->x;
  int64_t x = window_bytes(g, c->src_blocks);
  if (c->in_cell == 1) return x;
  return x + window_bytes(g, c->dst_blocks) + md_cells_row_bytes(c, &g->yd, &g->yp);
}

void md_wgrad_begin(md_wgrad *g, md_ir split, md_ir scratch) {
  md_emit *e = &g->k->e;
  const md_conv *c = &g->x;
  int64_t x = window_bytes(g, c->src_blocks), y = window_bytes(g, c->dst_blocks);
  g->xw = scratch;
  g->yw = md_at(e, MD_U8, scratch, md_i64(e, x));
  g->xp.row = g->yp.row = md_at(e, MD_U8, scratch, md_i64(e, x + y));
  g->sums = md_at(e, c->wide, md_workspace(g->k, g->place), md_imulc(e, split, g->partial));
  clear(g);
}

void md_wgrad_pack(md_wgrad *g, md_ir dy, md_ir n, const md_ir m0[3], md_ir next_n,
                   const md_ir next_m0[3]) {
  const md_conv *c = &g->x;
  g->next_n = next_n;
  for (int i = 0; i < 3; i++) g->next_m0[i] = next_m0[i];
  md_ir all = md_i64(&g->k->e, c->dst_blocks);
  md_pack_window(c, &g->xd, c->src, c->src_c, g->first, g->blocks, n, m0, g->xd.tile, g->xw,
                 c->in_cell > 1 ? &g->xp : NULL);
  if (c->in_cell == 1) g->yw = dy;
  else if (g->yd.tile[2] % c->in_cell == 0) md_window_cells(c, &g->yd, dy, all, g->yw, &g->yp);
  else md_pack_window(c, &g->yd, g->dy, c->dst_c, g->first, all, n, m0, g->yd.tile, g->yw, &g->yp);
}

void md_wgrad_add(md_wgrad *g) { md_in_pairs(&g->k->e, g->x.dst_blocks, block_group, g); }
