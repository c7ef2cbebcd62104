// SPDX-License-Identifier: Apache-2.0
// Weight gradient: dw[o,i,k] = sum over n, p of dy[n,o,p] * x[n,i,p*stride + off(k)].
//
// Work is cut into items by groups of channels, of x or of dy, whichever are more, and by splits of the sum over pixels,
// each with a part of dw of its own in the workspace; a last phase adds the splits in order. Many splits of a large dw
// would cost more than packing the other operand once for each group. An item walks over its tiles of pixels:
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
  SPARE_REGISTERS = 7,
  MAX_ACC = 25,  // a channel's 5 x 5 taps
  FEW_CHANNELS = 8,
  FEW_ROWS = 16,
  ITEMS = 4,
  STRIP_CELLS = 128,
  PIECE_CELLS = 16,
  SMALL_DW = 3 << 18,
  LITTLE_DW = 1 << 16
};

// An operand: windows of its tiles.
typedef struct Side {
  md_val val;
  md_dense d;
  md_cells cells;  // its pixels, where a product takes several
  int64_t width;   // cells in a row
  int64_t blocks;  // of channels, of a group
  bool in_place;   // the window is the tensor itself
  md_ir window;
} Side;

typedef struct md_wgrad {
  md_kernel *k;
  md_conv c;       // as if a forward convolution x -> dy
  Side x, y;       // y: dy
  int64_t xstep;   // in x from the cell of an output row to the next
  int64_t groups;  // of blocks of x or of dy
  int64_t splits, tiles_each;
  int64_t strip[3];          // t, h, cells
  int64_t piece;             // cells between fetches for the next tile
  int64_t inner;             // input channels of a block that exist at most
  int64_t joined[2];         // taps along h and w whose channels are rows of register tiles
  int64_t partial;           // elements of an item's dw: [o block][i block][tap][inner][lane]
  int64_t place;             // workspace
  md_ir n, m0[3];            // of the tile
  md_ir next_n, next_m0[3];  // of the tile behind it, which may not exist
  md_ir first, blocks;       // input blocks in the window of x
  md_ir sums;                // the item\'s dw
} Wgrad;

static int64_t taps_of(const md_conv *c) { return c->kernel[0] * c->kernel[1] * c->kernel[2]; }
static int64_t rows_of(const Wgrad *g) { return g->inner * g->joined[0] * g->joined[1]; }

// Offset in an item's dw of channel block (ob, ib), tap, row.
static md_ir partial_offset(const Wgrad *g, md_ir ob, md_ir ib, md_ir tap, int64_t row) {
  md_emit *e = &g->k->e;
  md_ir off = md_iadd(e, md_imulc(e, ob, g->x.blocks), ib);
  off = md_iadd(e, md_imulc(e, off, taps_of(&g->c)), tap);
  return md_imulc(e, md_iaddc(e, md_imulc(e, off, g->inner), row), g->c.lanes);
}

static md_steps steps_of(const Wgrad *g, const Side *s) {
  if (s->in_place) return md_steps_in_place(&g->c, &s->d);
  return md_window_steps(&g->c, &s->d, s->width);
}

// Bytes of scratch for `blocks` blocks of channels.
static int64_t side_bytes(const Wgrad *g, const Side *s, int64_t blocks) {
  if (s->in_place) return 0;
  return md_round_up(steps_of(g, s).block * blocks * md_dtype_size(g->c.cell), 64);
}

// Makes blocks `first` .. of s the tile's window, `to` unless they lie in place.
static void pack_side(const Wgrad *g, Side *s, md_ir n, md_ir first, md_ir blocks, md_ir to) {
  const md_conv *c = &g->c;
  s->window = s->in_place ? md_window_in_place(c, &s->d, s->val, n, first, g->m0) : to;
  if (s->in_place) return;
  int64_t channels = md_type_in(g->k->r->g, s->val)->shape.dim[1];
  md_pack_window(c, &s->d, s->val, channels, first, blocks, n, g->m0, s->d.tile, to,
                 c->in_cell > 1 ? &s->cells : NULL);
}

// Share number `share` of `shares` of what the next tile reads of a block of s at the strip's pixels.
static void fetch_share(const Wgrad *g, const Side *s, md_ir block, md_ir strip, md_ir share,
                        int64_t shares) {
  const md_conv *c = &g->c;
  md_emit *e = &g->k->e;
  int64_t cells = g->strip[2];
  md_ir first = md_iadd(e, strip, md_idivc(e, md_imulc(e, share, cells), shares));
  for (int64_t i = 0; i < md_ceil_div(cells, shares); i++) {
    md_ir pixel = md_imulc(e, md_iaddc(e, first, i), c->in_cell);
    md_fetch_pixel(c, &s->d, s->val, g->next_n, block, g->next_m0,
                   md_iadd(e, g->next_m0[2], pixel));
  }
}

// Memory is busy while numbers are multiplied: each piece of a register tile's strip, number `piece` of `pieces` of
// those with these blocks, fetches a little, as a processor drops what is asked for in bursts. It stands outside of the
// loop over pixels: among the products LLVM would run out of registers.
static void fetch_ahead(const Wgrad *g, md_ir strip, md_ir piece, int64_t pieces, int blocks,
                        md_ir ob, md_ir ib) {
  md_emit *e = &g->k->e;
  int64_t pairs = md_ceil_div(g->y.blocks, 2);  // see md_in_pairs
  md_ir share = md_iadd(e, md_imulc(e, md_idivc(e, ob, 2), pieces), piece);
  fetch_share(g, &g->x, ib, strip, share, pairs * pieces);
  share = md_iadd(e, md_imulc(e, ib, pieces), piece);
  for (int b = 0; b < blocks; b++)
    fetch_share(g, &g->y, md_iaddc(e, ob, b), strip, share, g->c.src_blocks * pieces);
}

// acc[row][block] over the strip from `from`, which joins what the item has so far. A row is an input channel of
// the tap, or of one of the `joined` taps that begin there.
static void register_tile(const Wgrad *g, const md_ir from[3], int64_t row0, int64_t rows,
                          int blocks, md_ir ob, md_ir ib, md_ir tap, const md_ir tap_at[3]) {
  const md_conv *c = &g->c;
  const md_dense *xd = &g->x.d, *yd = &g->y.d;
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
  md_steps xs = steps_of(g, &g->x), ys = steps_of(g, &g->y);
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
    y[b] = md_load(e, c->cell, g->y.window, yi, c->lanes, NULL);
  }
  for (int64_t r = 0; r < rows; r++) {
    int64_t of_tap = (row0 + r) / g->inner, channel = (row0 + r) % g->inner;
    int64_t line = of_tap / g->joined[1] * xd->tap[1].doff;
    int64_t pixel = of_tap % g->joined[1] * xd->tap[2].doff;
    md_ir off = md_iaddc(e, xi, line * xs.row + pixel * xs.pixel + channel * xs.channel);
    md_ir x = md_load(e, c->cell, g->x.window, off, 1, NULL);
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
  const md_conv *c = &g->c;
  const md_dense *d = &g->x.d;
  md_emit *e = &g->k->e;
  md_loop ib = md_loop_begin(e, md_i64(e, 0), g->blocks, 1, "i_block");
  md_loop strip[3], tap[3];
  md_ir from[3], at[3], index = md_i64(e, 0);
  int64_t extent[3] = {d->tile[0], d->tile[1], g->y.width};
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
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, g->partial), g->c.lanes, "clear");
  md_store(e, g->c.wide, g->sums, i.i, md_const(e, g->c.type, g->c.lanes, 0), NULL);
  md_loop_end(e, &i);
}

// An item: the tiles of its split, one after another, for its group of output blocks.
static void emit_items(Wgrad *g) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  const md_conv *c = &g->c;
  int64_t xbytes = side_bytes(g, &g->x, g->x.d.chunk);
  int64_t ybytes = side_bytes(g, &g->y, g->y.blocks), row_bytes = 0;
  if (c->in_cell > 1)
    row_bytes = MD_MAX(md_cells_row_bytes(c, &g->x.d, &g->x.cells),
                       md_cells_row_bytes(c, &g->y.d, &g->y.cells));
  md_phase_begin(k, "wgrad", g->splits * g->groups, xbytes + ybytes + row_bytes);
  md_ir yw = md_at(e, MD_U8, k->scratch, md_i64(e, xbytes));
  g->x.cells.row = g->y.cells.row = md_at(e, MD_U8, k->scratch, md_i64(e, xbytes + ybytes));
  g->sums = md_at(e, c->wide, md_workspace(k, g->place), md_imulc(e, k->item, g->partial));
  clear(g);
  int64_t per_sample = md_dense_tiles(&g->x.d), all = per_sample * c->n;
  md_ir group = md_imodc(e, k->item, g->groups);
  md_ir x0 = md_imulc(e, group, g->x.blocks < c->src_blocks ? g->x.blocks : 0);
  md_ir y0 = md_imulc(e, group, g->y.blocks < c->dst_blocks ? g->y.blocks : 0);
  md_ir first = md_imulc(e, md_idivc(e, k->item, g->groups), g->tiles_each);
  md_ir last = md_imin(e, md_iaddc(e, first, g->tiles_each), md_i64(e, all));
  md_loop tile = md_loop_begin(e, first, last, 1, "tile");
  int64_t count[4] = {c->n};
  for (int i = 0; i < 3; i++) count[1 + i] = md_ceil_div(g->x.d.grid[i], g->x.d.tile[i]);
  md_ir index[4], next[4];
  md_split_index(e, tile.i, 4, count, index);
  md_split_index(e, md_iaddc(e, tile.i, 1), 4, count, next);
  for (int i = 0; i < 3; i++) {
    g->m0[i] = md_imulc(e, index[1 + i], g->x.d.tile[i]);
    g->next_m0[i] = md_imulc(e, next[1 + i], g->x.d.tile[i]);
  }
  g->next_n = next[0];
  pack_side(g, &g->y, index[0], y0, md_i64(e, g->y.blocks), yw);
  int64_t step = g->x.d.chunk;
  md_loop chunk = md_loop_begin(e, md_i64(e, 0), md_i64(e, g->x.blocks), step, "chunk");
  g->first = chunk.i;
  g->blocks = md_i64(e, step);
  if (g->x.blocks % step)
    g->blocks = md_imin(e, md_isub(e, md_i64(e, g->x.blocks), chunk.i), g->blocks);
  pack_side(g, &g->x, index[0], md_iadd(e, x0, chunk.i), g->blocks, k->scratch);
  md_in_pairs(e, g->y.blocks, block_group, g);
  md_loop_end(e, &chunk);
  md_loop_end(e, &tile);
  md_phase_end(k);
}

// The sum of all splits, in order (an md_weight_of).
static md_ir merged(const void *wgrad, md_ir ob, md_ir ib, md_ir tap, md_ir row) {
  const Wgrad *g = wgrad;
  const md_conv *c = &g->c;
  md_emit *e = &g->k->e;
  md_ir group = md_iadd(e, md_idivc(e, ob, g->y.blocks), md_idivc(e, ib, g->x.blocks));
  md_ir y = md_imodc(e, ob, g->y.blocks), x = md_imodc(e, ib, g->x.blocks);
  md_ir off = md_iadd(e, partial_offset(g, y, x, tap, 0), md_imulc(e, row, c->lanes));
  off = md_iadd(e, off, md_imulc(e, group, g->partial));
  md_ir sum = NULL, from = md_workspace(g->k, g->place);
  for (int64_t s = 0; s < g->splits; s++) {
    int64_t part = s * g->groups * g->partial;
    md_ir share = md_load(e, c->wide, from, md_iaddc(e, off, part), c->lanes, NULL);
    sum = sum ? md_fadd(e, sum, share) : share;
  }
  return sum;
}

// Adds the splits and stores dw[o,i,k]; an item is an output block.
void md_wgrad_merge(const md_wgrad *g) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  const md_conv *c = &g->c;
  md_phase_begin(k, "merge", c->dst_blocks, 0);
  md_loop ib = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->src_blocks), 1, "i_block");
  md_store_weights(c, k->item, ib.i, merged, g);
  md_loop_end(e, &ib);
  md_phase_end(k);
}

// Several taps along a row ask for cells that begin at any pixel.
static void join_in_cells(Wgrad *g) {
  const md_dense *d = &g->x.d;
  const md_taps *taps = &d->tap[2];
  int64_t stride = d->in_step[2];
  g->x.width = d->window[2];
  g->y.width = d->tile[2];
  g->xstep = stride;
  if (g->c.in_cell == 1) return;
  int64_t num = g->c.in_cell;
  g->y.width = md_ceil_div(d->tile[2], num);
  g->y.cells = (md_cells){.step = num, .apart = 1, .num = g->y.width};
  g->x.cells = (md_cells){.step = taps->num > 1 ? 1 : num * stride, .apart = stride};
  g->xstep = num * stride / g->x.cells.step;
  g->x.width = g->x.cells.num = (g->y.width - 1) * g->xstep + (taps->num - 1) * taps->doff + 1;
}

// Sums of a group that are larger than L2 would come and go with each tile: then tiles have many pixels, and few
// channels of x beside them.
static void choose_groups(Wgrad *g) {
  md_conv *c = &g->c;
  g->inner = MD_MIN(c->src_c, c->lanes);
  int64_t block = c->src_blocks * taps_of(c) * g->inner * c->lanes;
  bool large = c->dst_blocks * block * md_dtype_size(c->wide) > SMALL_DW;
  bool by_x = c->src_blocks > c->dst_blocks && c->src_blocks % ITEMS == 0;
  g->groups = large && (by_x || c->dst_blocks % (2 * ITEMS) == 0) ? ITEMS : 1;
  g->x.blocks = c->src_blocks / (by_x ? g->groups : 1);
  g->y.blocks = c->dst_blocks / (by_x ? 1 : g->groups);
  g->partial = c->dst_blocks * block / g->groups;
  if (g->groups > 1) c->beside = g->y.blocks * c->lanes * md_dtype_size(c->packed);
}

// Of a group's blocks at most. Where dw stays in cache whatever the order, x is packed a block at a time, which never
// leaves L1. Cells take longer to pack, so that several blocks of them are better.
static void choose_chunk(Wgrad *g) {
  g->x.d.chunk = MD_MIN(g->x.d.chunk, g->x.blocks);
  bool little = g->partial * md_dtype_size(g->c.wide) <= LITTLE_DW;
  if (g->x.d.tail == 2 && little && g->c.in_cell == 1) g->x.d.chunk = 1;
}

// Into items that do not depend on the number of threads.
static void cut_work(Wgrad *g) {
  const md_conv *c = &g->c;
  int64_t tiles = md_dense_tiles(&g->x.d) * c->n;
  g->tiles_each = md_ceil_div(tiles, MD_MIN(ITEMS / g->groups, tiles));
  g->splits = md_ceil_div(tiles, g->tiles_each);
}

// Whole rows where they are short, and several of them.
static void choose_strip(Wgrad *g) {
  int64_t extent[3] = {g->x.d.tile[0], g->x.d.tile[1], g->y.width}, cells = 1;
  for (int i = 2; i >= 0; i--) {
    g->strip[i] = MD_MAX(MD_MIN(extent[i], STRIP_CELLS / cells), 1);
    while (extent[i] % g->strip[i]) g->strip[i]--;
    cells *= g->strip[i];
  }
  g->piece = MD_MIN(g->strip[2], PIECE_CELLS);
  while (g->strip[2] % g->piece) g->piece--;
  if (!g->x.d.ahead || 2 * g->piece < PIECE_CELLS) g->piece = g->strip[2];
}

void md_emit_conv_wgrad(md_kernel *k) {
  const md_node *node = k->r->anchor;
  // Seen as the forward convolution x -> dy: its windows of x, its pixels of dy.
  Wgrad g = {.k = k,
             .c = md_conv_of(k, node->in[1], node->out, node->in[0]),
             .x = {.val = node->in[1]},
             .y = {.val = node->in[0]}};
  md_conv *c = &g.c;
  c->bytes = md_dtype_size(c->kernel[2] == 1 ? c->packed : c->cell);
  c->whole_tiles = true;
  c->min_tiles = 1;
  choose_groups(&g);
  md_conv_parts p;
  md_conv_split(c, &p);
  g.x.d = p.from;
  g.y.d = g.x.d;
  g.y.d.planar = false;
  for (int i = 0; i < 3; i++) {
    g.y.d.in_step[i] = 1;
    g.y.d.in_size[i] = g.x.d.grid[i];
    g.y.d.tap[i] = (md_taps){.num = 1};
    g.y.d.lo[i] = 0;
    g.y.d.window[i] = g.y.d.tile[i];
  }
  join_in_cells(&g);
  choose_chunk(&g);
  g.y.in_place = c->in_cell == 1 && md_lies_packed(c, &g.y.d, g.y.val);
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
               .c = md_conv_of(k, node->in[1], node->out, node->in[0]),
               .x = {.val = node->in[1], .d = *tile},
               .y = {.val = node->in[0], .d = *tile},
               .groups = 1,
               .splits = splits,
               .joined = {1, 1}};
  g->x.d.ahead = true;
  const md_conv *c = &g->c;
  g->inner = MD_MIN(c->src_c, c->lanes);
  g->x.blocks = c->src_blocks;
  g->y.blocks = c->dst_blocks;
  g->partial = c->dst_blocks * c->src_blocks * g->inner * c->lanes;
  join_in_cells(g);
  choose_strip(g);
  g->first = md_i64(&k->e, 0);
  g->blocks = md_i64(&k->e, c->src_blocks);
  g->place = md_workspace_reserve(k, splits * g->partial * md_dtype_size(c->wide));
  return g;
}

int64_t md_wgrad_bytes(const md_wgrad *g) {
  const md_conv *c = &g->c;
  int64_t x = side_bytes(g, &g->x, c->src_blocks);
  if (c->in_cell == 1) return x;
  return x + side_bytes(g, &g->y, c->dst_blocks) + md_cells_row_bytes(c, &g->y.d, &g->y.cells);
}

void md_wgrad_begin(md_wgrad *g, md_ir split, md_ir scratch) {
  md_emit *e = &g->k->e;
  const md_conv *c = &g->c;
  int64_t x = side_bytes(g, &g->x, c->src_blocks), y = side_bytes(g, &g->y, c->dst_blocks);
  g->x.window = scratch;
  g->y.window = md_at(e, MD_U8, scratch, md_i64(e, x));
  g->x.cells.row = g->y.cells.row = md_at(e, MD_U8, scratch, md_i64(e, x + y));
  g->sums = md_at(e, c->wide, md_workspace(g->k, g->place), md_imulc(e, split, g->partial));
  clear(g);
}

void md_wgrad_pack(md_wgrad *g, md_ir dy, md_ir n, const md_ir m0[3], md_ir next_n,
                   const md_ir next_m0[3]) {
  const md_conv *c = &g->c;
  Side *y = &g->y;
  g->next_n = next_n;
  for (int i = 0; i < 3; i++) {
    g->m0[i] = m0[i];
    g->next_m0[i] = next_m0[i];
  }
  md_ir all = md_i64(&g->k->e, c->dst_blocks);
  pack_side(g, &g->x, n, g->first, g->blocks, g->x.window);
  if (c->in_cell == 1) y->window = dy;
  else if (y->d.tile[2] % c->in_cell) pack_side(g, y, n, g->first, all, y->window);
  else md_window_cells(c, &y->d, dy, all, y->window, &y->cells);
}

void md_wgrad_add(md_wgrad *g) { md_in_pairs(&g->k->e, g->c.dst_blocks, block_group, g); }
