// SPDX-License-Identifier: Apache-2.0
// Forward and data gradient: weights are packed to [dst block][src block][tap][i][lane] first, then
// an item packs its window and runs, for each pair of dst blocks, register tiles over its pixels:
//
//     acc[pixel][block] += splat(window[pixel + tap][i]) * panel[block][tap][i]
//
// Where rows are short, a register tile has several of them, and frames.
// In a planar window the taps along w join the channels: i counts both.
// The residues of a strided data gradient take turns, their results lie side by side in scratch.
// The epilogue works on the tile's result while it is in cache.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/parts.h"

// Cells along w of a planar window.
static int64_t row_cells(const md_conv *c) { return md_ceil_div(c->kernel[2], c->in_cell); }
// Cells of a tap: of a block's channels that exist at most.
static int64_t inner_cells(const md_conv *c) {
  if (c->planar) return c->src_c * row_cells(c);
  return md_ceil_div(MD_MIN(c->src_c, c->lanes), c->in_cell);
}
static int64_t taps_along_w(const md_conv *c) { return c->planar ? 1 : c->kernel[2]; }
static int64_t taps_of(const md_conv *c) { return c->kernel[0] * c->kernel[1] * taps_along_w(c); }
int64_t md_panel_cells(const md_conv *c) {
  return c->src_blocks * taps_of(c) * inner_cells(c) * c->lanes;
}
// First tap of cell j along w: where cells do not divide the taps, the last one begins earlier.
static md_ir first_tap(const md_conv *c, md_ir j) {
  md_emit *e = &c->k->e;
  return md_imin(e, md_imulc(e, j, c->in_cell), md_i64(e, c->kernel[2] - c->in_cell));
}

// Weights of source channel `src` at tap (t, h, w), lanes along the channels of block dst; zero past the ends.
md_ir md_weights_at(const md_conv *c, md_ir dst, md_ir mask, md_ir src, const md_ir tap[3]) {
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_ir at[5] = {NULL, NULL, tap[0], tap[1], tap[2]};
  int lane_axis = c->flipped ? 1 : 0;
  at[lane_axis] = md_imulc(e, dst, c->lanes);
  // Channels past the end are packed as zeros; any real channel serves as their address.
  at[1 - lane_axis] = md_imin(e, src, md_i64(e, c->src_c - 1));
  md_body body;
  md_body_init(&body, k);
  md_point p = md_point_of(5, at, lane_axis, c->lanes, mask);
  md_ir w = md_body_value(&body, c->w, &p), zero = md_const(e, c->type, c->lanes, 0);
  if (mask) w = md_select(e, mask, w, zero);
  bool past_end = c->src_c % c->lanes && (c->src_c > c->lanes || c->src_c % c->in_cell);
  return past_end ? md_select(e, md_ilt(e, src, md_i64(e, c->src_c)), w, zero) : w;
}

// Cell `in` of a tap: channels or, in a planar window, taps along w.
static md_ir weight_cell(const md_conv *c, md_ir dst, md_ir mask, md_ir sb, const md_ir tap[3],
                         md_ir in) {
  md_emit *e = &c->k->e;
  md_ir w[4], j = md_imodc(e, in, row_cells(c)), first = first_tap(c, j);
  for (int i = 0; i < c->in_cell; i++) {
    md_ir at[3] = {tap[0], tap[1], tap[2]};
    md_ir src = md_iadd(e, md_imulc(e, sb, c->lanes), md_iaddc(e, md_imulc(e, in, c->in_cell), i));
    if (c->planar) {
      src = md_idivc(e, in, row_cells(c));
      at[2] = md_iaddc(e, first, i);
    }
    w[i] = md_weights_at(c, dst, mask, src, at);
    // Taps that the cell before the last holds already; their zero weights meet elements that count anyway.
    if (c->planar && i < row_cells(c) * c->in_cell - c->kernel[2])
      w[i] = md_select(e, md_ieq(e, md_imulc(e, j, c->in_cell), first), w[i],
                       md_const(e, c->type, c->lanes, 0));
  }
  return md_cell_of(c, w);
}

// Phase 0: one item for each dst block.
void md_pack_panels(const md_conv *c, int64_t place) {
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_phase_begin(k, "pack_weights", c->dst_blocks, 0);
  md_ir to = md_workspace(k, place), dst = k->item;
  md_ir base = md_imulc(e, dst, md_panel_cells(c));
  md_ir mask = md_channel_mask(e, c->dst_c, dst, c->lanes);
  md_loop sb = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->src_blocks), 1, "i_block");
  md_loop tap = md_loop_begin(e, md_i64(e, 0), md_i64(e, taps_of(c)), 1, "tap");
  md_loop in = md_loop_begin(e, md_i64(e, 0), md_i64(e, inner_cells(c)), 1, "i");
  int64_t along = taps_along_w(c);
  md_ir at[3] = {md_idivc(e, tap.i, c->kernel[1] * along),
                 md_imodc(e, md_idivc(e, tap.i, along), c->kernel[1]), md_imodc(e, tap.i, along)};
  md_ir w = weight_cell(c, dst, mask, sb.i, at, in.i);
  md_ir off = md_iadd(e, md_imulc(e, sb.i, taps_of(c)), tap.i);
  off = md_iadd(e, md_imulc(e, off, inner_cells(c)), in.i);
  md_store(e, c->cell, to, md_iadd(e, base, md_imulc(e, off, c->lanes)), w, NULL);
  md_loop_end(e, &in);
  md_loop_end(e, &tap);
  md_loop_end(e, &sb);
  md_phase_end(k);
}

// The cell at element `off` of the window, in all lanes. Taps along w begin at any element.
static md_ir window_cell(const md_item *s, md_ir off) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  md_ir x = md_load(e, c->cell, md_at(e, c->packed, s->window, off), md_i64(e, 0), 1, NULL);
  if (LLVMIsALoadInst(x)) LLVMSetAlignment(x, (unsigned)md_dtype_size(c->packed));
  return md_splat(e, x, c->lanes);
}

static md_steps steps_of(const md_item *s) {
  return s->in_place ? md_steps_in_place(s->c, s->d) : md_window_steps(s->c, s->d, s->d->window[2]);
}

// The pixels of a register tile along t, h, w: more than one row only where it has whole ones, more than one frame where
// it has whole ones of those.
typedef struct Box {
  int64_t size[3];
} Box;
static int64_t box_pixels(const Box *x) { return x->size[0] * x->size[1] * x->size[2]; }

// Steps along t, h, w, times those of the box's pixel p.
static int64_t in_box(const Box *x, int64_t p, const int64_t step[3]) {
  int64_t row = p / x->size[2];
  return row / x->size[1] * step[0] + row % x->size[1] * step[1] + p % x->size[2] * step[2];
}

// The register tile: pixels of the box x `blocks` accumulators over all source channels and taps.
// pixel: the first along w; src: its element in the window; panel[b]: first cell of the weights of block + b.
static void accumulate(const md_item *s, const Box *box, int blocks, md_ir block, md_ir pixel,
                       md_ir src, const md_ir *panel, md_var *acc) {
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_emit *e = &c->k->e;
  md_steps step = steps_of(s);
  int64_t inner = inner_cells(c), along = taps_along_w(c);
  int64_t row[3] = {d->window[1] * step.row, step.row, step.pixel}, apart[3];
  for (int i = 0; i < 3; i++) apart[i] = d->in_step[i] * row[i];
  int64_t pixels = box_pixels(box), kstep[3] = {c->kernel[1] * along, along, 1};
  md_loop sb = md_loop_begin(e, md_i64(e, 0), s->blocks, 1, "i_block");
  md_item_fetch(s, sb.i, pixel, pixels, blocks, block);
  md_ir in = md_iadd(e, src, md_imulc(e, sb.i, step.block));
  md_ir wt = md_imulc(e, md_iadd(e, s->first, sb.i), taps_of(c) * inner * c->lanes);
  md_loop tap[3];
  for (int i = 0; i < 3; i++) {
    const md_taps *t = &d->tap[i];
    tap[i] = md_loop_begin(e, md_i64(e, 0), md_i64(e, i == 2 && c->planar ? 1 : t->num), 1, "tap");
    // off(j) - lo, so that the window's first pixel is 0
    md_ir off = md_iaddc(e, md_imulc(e, tap[i].i, t->doff), t->off0 - d->lo[i]);
    in = md_iadd(e, in, md_imulc(e, off, row[i]));
    md_ir kk = md_iaddc(e, md_imulc(e, tap[i].i, t->dk), t->k0);
    wt = md_iadd(e, wt, md_imulc(e, kk, kstep[i] * inner * c->lanes));
  }
  // Pixels of a row share elements, each at another tap. Code for one tap at a time loads them again, which costs
  // less than to keep them: there are no registers left.
  int64_t cells = c->planar ? row_cells(c) : 1;
  md_loop cell = md_loop_begin(e, md_i64(e, 0), md_i64(e, cells), 1, "cell");
  if (c->planar) {
    in = md_iadd(e, in, md_imulc(e, first_tap(c, cell.i), d->tap[2].doff));
    wt = md_iadd(e, wt, md_imulc(e, cell.i, c->lanes));
  }
  for (int64_t i = 0; i < inner / cells; i++) {
    md_ir w[4];
    for (int b = 0; b < blocks; b++) {
      md_ir off = md_iaddc(e, md_iadd(e, panel[b], wt), i * cells * c->lanes);
      w[b] = md_load(e, c->cell, s->panels, off, c->lanes, NULL);
    }
    int64_t of_cell = c->planar ? i * step.channel : i * c->in_cell;
    for (int64_t p = 0; p < pixels; p++) {
      md_ir x = window_cell(s, md_iaddc(e, in, in_box(box, p, apart) + of_cell));
      for (int b = 0; b < blocks; b++) {
        md_var a = acc[p * blocks + b];
        md_set(e, a, md_multiply_cells(c, x, w[b], md_get(e, a)));
      }
    }
  }
  md_loop_end(e, &cell);
  for (int i = 2; i >= 0; i--) md_loop_end(e, &tap[i]);
  md_loop_end(e, &sb);
}

// Results of an item are counted from its first: those of all parts side by side.
static int64_t results_along(const md_item *s, int axis) {
  return s->tile[axis] * s->d->step[axis];
}
int64_t md_item_results(const md_item *s) {
  return results_along(s, 0) * results_along(s, 1) * results_along(s, 2);
}

// The last tile along an axis may have fewer results than others.
void md_item_place(md_item *s, const md_conv_parts *p, const md_ir tile[3]) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  for (int i = 0; i < 3; i++) {
    const md_dense *d = s->d;
    int64_t size = d->step[i] > 1 ? c->dst_size[i] : p->part[0].grid[i];
    s->tile[i] = d->tile[i];
    s->m0[i] = md_imulc(e, tile[i], d->tile[i]);
    s->extent[i] = md_i64(e, results_along(s, i));
    md_ir left = md_isub(e, md_i64(e, size), md_imulc(e, s->m0[i], d->step[i]));
    if (size % results_along(s, i)) s->extent[i] = md_imin(e, s->extent[i], left);
  }
}

static md_point out_point(const md_item *s, md_ir block, const md_ir at[3]) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  md_ir mask = md_channel_mask(e, c->dst_c, block, c->lanes);
  md_ir place[5] = {s->n, md_imulc(e, block, c->lanes)};
  for (int i = 0; i < 3; i++)
    place[2 + i] = md_iadd(e, md_imulc(e, s->m0[i], s->d->step[i]), at[i]);
  return md_pixel_point(c, s->d, place, mask);
}

// Element offset of a result of block `block`+b in scratch, which holds all blocks or just the group's.
static md_ir acc_offset(const md_item *s, md_ir block, int b, const md_ir at[3]) {
  md_emit *e = &s->c->k->e;
  md_ir result = md_iadd(e, md_imulc(e, at[0], results_along(s, 1)), at[1]);
  result = md_iadd(e, md_imulc(e, result, results_along(s, 2)), at[2]);
  result = md_iaddc(e, result, b * md_item_results(s));
  if (s->chunked) result = md_iadd(e, result, md_imulc(e, block, md_item_results(s)));
  return md_imulc(e, result, s->c->lanes);
}

static int64_t taps_used(const md_dense *d) {
  return d->tap[0].num * d->tap[1].num * d->tap[2].num;
}

// Epilogue of a result of block `block`, the b-th of its group, whose sum is v.
static void finish_pixel(const md_item *s, int b, md_ir block, const md_ir result[3], md_ir v) {
  const md_conv *c = s->c;
  md_point p = out_point(s, block, result);
  md_body body;
  md_body_init(&body, c->k);
  if (c->bias != MD_NONE) {
    md_point channel = md_point_of(1, &p.at[1], 0, c->lanes, p.mask);
    v = md_fadd(&c->k->e, v, md_body_value(&body, c->bias, &channel));
  }
  md_finish_set(&body, c->dst, v);
  // A result may lie over a tensor that the others read: all is read before anything is stored.
  md_sums_add(s->sums, b, &body, &p);
  md_finish_store(&body, &p);
}

// Of the item, pixel p of the box that begins at m.
static void result_of(const md_item *s, const Box *box, const md_ir m[3], int64_t p, md_ir at[3]) {
  md_emit *e = &s->c->k->e;
  for (int i = 0; i < 3; i++) {
    int64_t one[3] = {i == 0, i == 1, i == 2}, step = s->d->step[i];
    at[i] = md_iaddc(e, md_imulc(e, m[i], step), in_box(box, p, one) * step + s->d->first[i]);
  }
}

// One register tile from pixel m on, results to scratch or through the epilogue.
static void register_tile(const md_item *s, const Box *box, int blocks, md_ir block,
                          const md_ir m[3]) {
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_emit *e = &c->k->e;
  md_ir zero = md_accumulator(c, md_const(e, c->type, c->lanes, 0)), at[3];
  md_var acc[64];
  int64_t pixels = box_pixels(box);
  for (int64_t i = 0; i < pixels * blocks; i++)
    acc[i] = md_var_new(e, LLVMTypeOf(zero), NULL, "acc");
  for (int64_t p = 0; p < pixels; p++) {
    result_of(s, box, m, p, at);
    for (int b = 0; b < blocks; b++) {
      md_ir start = zero;
      if (s->chunked) {
        md_ir off = acc_offset(s, block, b, at);
        start = md_accumulator(c, md_load(e, c->wide, s->acc, off, c->lanes, NULL));
      }
      md_set(e, acc[p * blocks + b], start);
    }
  }
  if (taps_used(d)) {
    md_ir panel[4];
    for (int b = 0; b < blocks; b++)
      panel[b] = md_imulc(e, md_iaddc(e, block, b), md_panel_cells(c));
    md_ir line = md_iadd(e, md_imulc(e, md_imulc(e, m[0], d->in_step[0]), d->window[1]),
                         md_imulc(e, m[1], d->in_step[1]));
    md_steps step = steps_of(s);
    md_ir src = md_imulc(e, m[2], d->in_step[2] * step.pixel);
    src = md_iadd(e, md_imulc(e, line, step.row), src);
    accumulate(s, box, blocks, block, m[2], src, panel, acc);
  }
  for (int b = 0; b < blocks; b++) {
    for (int64_t p = 0; p < pixels; p++) {
      md_ir v = md_accumulated(c, md_get(e, acc[p * blocks + b]));
      result_of(s, box, m, p, at);
      if (s->acc) md_store(e, c->wide, s->acc, acc_offset(s, block, b, at), v, NULL);
      else finish_pixel(s, b, md_iaddc(e, block, b), at, v);
    }
  }
  if (!s->acc) md_sums_row(s->sums, blocks);
}

// Epilogue of `blocks` channel blocks of the tile.
void md_item_finish(const md_item *s, int blocks, md_ir block) {
  const md_conv *c = s->c;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_sums_clear(s->sums, blocks);
  md_loop t = md_loop_begin(e, md_i64(e, 0), s->extent[0], 1, "t");
  md_loop h = md_loop_begin(e, md_i64(e, 0), s->extent[1], 1, "h");
  md_loop w = md_loop_begin(e, md_i64(e, 0), s->extent[2], 1, "w");
  for (int b = 0; b < blocks; b++) {
    const md_ir at[3] = {t.i, h.i, w.i};
    md_ir v = md_load(e, c->wide, s->acc, acc_offset(s, block, b, at), c->lanes, NULL);
    finish_pixel(s, b, md_iaddc(e, block, b), at, v);
  }
  md_loop_end(e, &w);
  md_sums_row(s->sums, blocks);
  md_loop_end(e, &h);
  md_loop_end(e, &t);
  for (int b = 0; b < blocks; b++) md_sums_store(s->sums, b, s->n, md_iaddc(e, block, b), s->part);
}

// Cuts `size` into equal parts of at most `most`, the last perhaps smaller.
static int cut_evenly(int64_t size, int64_t most, md_run run[2]) {
  int64_t each = md_ceil_div(size, md_ceil_div(size, most)), rest = size % each;
  run[0] = (md_run){0, each, size / each};
  run[1] = (md_run){size - rest, rest, 1};
  return rest ? 2 : 1;
}

// Register tiles of at most `most` pixels; returns how many runs there are along each axis.
static void cut_boxes(const md_item *s, int64_t most, md_run run[3][4], int num[3]) {
  int64_t rows = MD_MAX(most / s->tile[2], 1), frames = MD_MAX(rows / s->tile[1], 1);
  num[0] = cut_evenly(s->tile[0], frames, run[0]);
  num[1] = cut_evenly(s->tile[1], rows, run[1]);
  num[2] = md_cut_row(s->tile[2], most, run[2]);
}

// Register tiles of one size, as many as the runs have along t, h, w.
static void emit_boxes(const md_item *s, int blocks, md_ir block, const md_run *run[3]) {
  md_emit *e = &s->c->k->e;
  md_loop loop[3];
  md_ir at[3];
  Box box;
  for (int i = 0; i < 3; i++) {
    box.size[i] = run[i]->pixels;
    loop[i] = md_loop_begin(e, md_i64(e, 0), md_i64(e, run[i]->count), 1, "tile");
    at[i] = md_iaddc(e, md_imulc(e, loop[i].i, run[i]->pixels), run[i]->start);
  }
  register_tile(s, &box, blocks, block, at);
  for (int i = 2; i >= 0; i--) md_loop_end(e, &loop[i]);
}

void md_item_multiply(const md_item *s, int blocks, md_ir block) {
  int64_t most = (s->c->k->e.cpu->registers - blocks - 1) / blocks;
  md_run run[3][4];
  int num[3];
  cut_boxes(s, most, run, num);
  for (int t = 0; t < num[0]; t++)
    for (int h = 0; h < num[1]; h++)
      for (int w = 0; w < num[2]; w++)
        emit_boxes(s, blocks, block, (const md_run *[]){&run[0][t], &run[1][h], &run[2][w]});
}

// Everything that a tile of pixels needs for dst blocks block .. block+blocks-1.
void md_item_group(const void *item, int blocks, md_ir block) {
  const md_item *s = item;
  md_emit *e = &s->c->k->e;
  if (!s->acc) md_sums_clear(s->sums, blocks);
  for (int i = 0; i < s->num; i++) {
    md_item part = *s;
    part.d = &s->d[i];
    if (s->num == 1 || taps_used(part.d)) md_item_multiply(&part, blocks, block);
  }
  if (s->chunked) return;
  if (s->acc) md_item_finish(s, blocks, block);
  for (int b = 0; b < blocks && !s->acc; b++)
    md_sums_store(s->sums, b, s->n, md_iaddc(e, block, b), s->part);
}

// A multiplication waits for the one before it on the same sum, that of pairs of bf16 for longer than others. Tiles of a
// few pixels take four blocks then, so that there are sums enough in between.
static int blocks_at_once(const md_conv *c, const md_dense *d) {
  enum { MANY = 4, FEW = 2 };
  int64_t pixels = d->tile[0] * d->tile[1] * d->tile[2];
  bool fits = MANY * pixels + MANY + 1 <= c->k->e.cpu->registers;
  return c->packed == MD_BF16 && pixels < MANY && fits && c->dst_blocks >= MANY ? MANY : FEW;
}

static void all_blocks(const md_item *s) {
  md_in_groups(&s->c->k->e, s->c->dst_blocks, blocks_at_once(s->c, s->d), md_item_group, s);
}

static void pack_source(md_item *s) {
  const md_conv *c = s->c;
  if (s->in_place) s->window = md_window_in_place(c, s->d, c->src, s->n, s->first, s->m0);
  else
    md_pack_window(c, s->d, c->src, c->src_c, s->first, s->blocks, s->n, s->m0, s->tile, s->window,
                   NULL);
}

static void clear_results(const md_item *s, int64_t blocks) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  md_loop z = md_loop_begin(e, md_i64(e, 0), md_i64(e, blocks * md_item_results(s)), 1, "clear");
  md_ir zero = md_const(e, c->type, c->lanes, 0);
  md_store(e, c->wide, s->acc, md_imulc(e, z.i, c->lanes), zero, NULL);
  md_loop_end(e, &z);
}

static void tile_body(md_item *s, bool has_taps) {
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_emit *e = &c->k->e;
  s->first = md_i64(e, 0);
  s->blocks = md_i64(e, c->src_blocks);
  if (!s->chunked) {
    // No products write over the results of parts without taps.
    bool all = true;
    for (int i = 0; i < s->num; i++) all &= s->num == 1 || taps_used(&s->d[i]) > 0;
    if (!all) clear_results(s, blocks_at_once(c, d));
    if (has_taps) pack_source(s);
    all_blocks(s);
    return;
  }
  clear_results(s, c->dst_blocks);
  md_loop chunk = md_loop_begin(e, s->first, s->blocks, d->chunk, "chunk");
  md_ir left = md_isub(e, s->blocks, chunk.i);
  s->first = chunk.i;
  s->blocks =
      c->src_blocks % d->chunk ? md_imin(e, left, md_i64(e, d->chunk)) : md_i64(e, d->chunk);
  pack_source(s);
  all_blocks(s);
  md_loop_end(e, &chunk);
  md_loop o = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->dst_blocks), 1, "o_block");
  md_item_finish(s, 1, o.i);
  md_loop_end(e, &o);
}

// Few sums leave an epilogue no time to hide in: it follows on the register tile then, and the results
// never lie in scratch. Behind many, code for a pixel at a time is smaller and no slower. Results of several parts
// take turns in memory.
static bool finishes_at_once(const md_conv *c, const md_conv_parts *p) {
  const md_region_view *r = c->k->r;
  bool follows = c->bias != MD_NONE || !md_is_output(r, c->dst);
  for (int i = 0; i < r->num_nodes; i++) follows |= md_in_epilogue(r, r->node[i]);
  return p->num == 1 && (!follows || taps_used(p->part) <= 1);
}

static void emit_items(const md_conv *c, const md_conv_parts *p, md_sums *sums, int64_t weights) {
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  const md_dense *d = p->part;
  md_item s = {.c = c, .d = d, .num = p->num, .sums = sums};
  int64_t tiles[4] = {c->n};
  for (int i = 0; i < 3; i++) {
    s.tile[i] = d->tile[i];
    tiles[1 + i] = md_ceil_div(d->grid[i], d->tile[i]);
  }
  bool has_taps = taps_used(&p->from) > 0;
  bool in_place = md_lies_packed(c, d, c->src);
  int64_t window = in_place ? 0 : md_round_up(md_window_bytes(c, d) * d->chunk, 64);
  bool chunked = md_is_chunked(c, d) && has_taps;
  int64_t blocks = chunked ? c->dst_blocks : blocks_at_once(c, d);
  int64_t acc = md_round_up(blocks * md_item_results(&s) * c->lanes * md_dtype_size(c->wide), 64);
  md_phase_begin(k, "conv", c->n * md_dense_tiles(d), window + acc);
  md_ir index[4];
  md_split_index(e, k->item, 4, tiles, index);
  s.panels = md_workspace(k, weights);
  s.in_place = in_place;
  s.window = k->scratch;
  s.chunked = chunked;
  s.n = index[0];
  s.part = md_iadd(e, md_imulc(e, index[1], tiles[2]), index[2]);
  s.part = md_iadd(e, md_imulc(e, s.part, tiles[3]), index[3]);
  md_item_place(&s, p, &index[1]);
  s.fetches_results = md_reads_results(c, d);
  if (d->ahead || s.fetches_results) {
    md_ir next[4];
    md_split_index(e, md_iaddc(e, k->item, 1), 4, tiles, next);
    s.next_n = next[0];
    for (int i = 0; i < 3; i++) s.next_m0[i] = md_imulc(e, next[1 + i], d->tile[i]);
  }
  if (chunked || !finishes_at_once(c, p)) s.acc = md_at(e, MD_U8, k->scratch, md_i64(e, window));
  int64_t tail = d->grid[2] % d->tile[2];
  if (tail == 0) {
    tile_body(&s, has_taps);
  } else {  // the last tile of a list is shorter
    md_if last = md_if_begin(e, md_ieq(e, index[3], md_i64(e, tiles[3] - 1)), "last");
    md_item t = s;
    t.tile[2] = tail;
    t.extent[2] = md_i64(e, tail);
    tile_body(&t, has_taps);
    md_if_else(e, &last);
    s.extent[2] = md_i64(e, s.tile[2]);  // a number again
    tile_body(&s, has_taps);
    md_if_end(e, &last);
  }
  md_phase_end(k);
}

void md_emit_conv_dense(md_kernel *k) {
  const md_node *node = k->r->anchor;
  md_conv c = md_conv_of(k, node->in[0], node->in[1], node->out);
  md_conv_parts p;
  md_conv_split(&c, &p);
  int64_t bytes = c.dst_blocks * md_panel_cells(&c) * md_dtype_size(c.cell);
  int64_t weights = md_workspace_reserve(k, bytes);
  md_sums *sums = md_sums_create(k, md_dense_tiles(p.part), blocks_at_once(&c, p.part));
  md_pack_panels(&c, weights);
  emit_items(&c, &p, sums, weights);
  md_sums_finish(sums);
}
