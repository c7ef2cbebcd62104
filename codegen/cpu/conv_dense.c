// SPDX-License-Identifier: Apache-2.0
// Forward and data gradient: weights are packed to [dst block][src block][tap][i][lane] first, then
// an item packs its window and runs, for each pair of dst blocks, register tiles over its pixels:
//
//     acc[pixel][block] += splat(window[pixel + tap][i]) * panel[block][tap][i]
//
// The epilogue works on the tile's result while it is in cache.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/parts.h"

typedef struct Dense {
  const md_conv *c;
  const md_dense *d;
  md_sums *sums;
  int64_t first_part;  // of this problem among all parts of a sample
  int64_t weights;     // workspace place
  int64_t tile[3];     // of the version being emitted
  bool chunked;        // results of all blocks stay in acc while chunks of the source come
  md_ir n, m0[3], part;
  md_ir first, blocks;  // source blocks in the window
  md_ir window;         // packed source
  md_ir acc;            // [block][pixel][lane] in scratch; NULL: straight to dst
} Dense;

// Cells of a block's channels that exist at most.
static int64_t inner_cells(const md_conv *c) {
  return md_ceil_div(MD_MIN(c->src_c, c->lanes), c->pair);
}
static int64_t taps_of(const md_conv *c) { return c->kernel[0] * c->kernel[1] * c->kernel[2]; }
static int64_t panel_cells(const md_conv *c) {
  return c->src_blocks * taps_of(c) * inner_cells(c) * c->lanes;
}

md_ir md_channel_mask(md_emit *e, int64_t channels, md_ir block, int lanes) {
  if (channels % lanes == 0) return NULL;
  md_ir left = md_isub(e, md_i64(e, channels), md_imulc(e, block, lanes));
  return md_first_lanes(e, md_imax(e, left, md_i64(e, 0)), lanes);
}

// Weights of source channel `src` at a tap, lanes along the channels of block dst; zero past the ends.
static md_ir weights_at(const md_conv *c, md_ir dst, md_ir mask, md_ir src, md_ir tap) {
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_ir at[5] = {NULL, NULL, md_idivc(e, tap, c->kernel[1] * c->kernel[2]),
                 md_imodc(e, md_idivc(e, tap, c->kernel[2]), c->kernel[1]),
                 md_imodc(e, tap, c->kernel[2])};
  int lane_axis = c->flipped ? 1 : 0;
  at[lane_axis] = md_imulc(e, dst, c->lanes);
  // Channels past the end are packed as zeros; any real channel serves as their address.
  at[1 - lane_axis] = md_imin(e, src, md_i64(e, c->src_c - 1));
  md_body body;
  md_body_init(&body, k);
  md_point p = md_point_of(5, at, lane_axis, c->lanes, mask);
  md_ir w = md_body_value(&body, c->w, &p), zero = md_const(e, c->type, c->lanes, 0);
  if (mask) w = md_select(e, mask, w, zero);
  bool past_end = c->src_c % c->lanes && (c->src_c > c->lanes || c->src_c % c->pair);
  return past_end ? md_select(e, md_ilt(e, src, md_i64(e, c->src_c)), w, zero) : w;
}

// Phase 0: one item for each dst block.
static void pack_weights(const md_conv *c, int64_t place) {
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_phase_begin(k, "pack_weights", c->dst_blocks, 0);
  md_ir to = md_workspace(k, place), dst = k->item;
  md_ir base = md_imulc(e, dst, panel_cells(c));
  md_ir mask = md_channel_mask(e, c->dst_c, dst, c->lanes);
  md_loop sb = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->src_blocks), 1, "i_block");
  md_loop tap = md_loop_begin(e, md_i64(e, 0), md_i64(e, taps_of(c)), 1, "tap");
  md_loop in = md_loop_begin(e, md_i64(e, 0), md_i64(e, inner_cells(c)), 1, "i");
  md_ir src = md_iadd(e, md_imulc(e, sb.i, c->lanes), md_imulc(e, in.i, c->pair));
  md_ir w = weights_at(c, dst, mask, src, tap.i);
  if (c->pair == 2) w = md_bf16_pair(e, w, weights_at(c, dst, mask, md_iaddc(e, src, 1), tap.i));
  md_ir off = md_iadd(e, md_imulc(e, sb.i, taps_of(c)), tap.i);
  off = md_iadd(e, md_imulc(e, off, inner_cells(c)), in.i);
  md_store(e, c->cell, to, md_iadd(e, base, md_imulc(e, off, c->lanes)), w, NULL);
  md_loop_end(e, &in);
  md_loop_end(e, &tap);
  md_loop_end(e, &sb);
  md_phase_end(k);
}

// Prologue values that the region also keeps are stored where they are made.
static void store_prologue(const md_conv *c, md_body *body, const md_point *p) {
  const md_region_view *r = c->k->r;
  for (int i = 0; i < r->num_outputs; i++) {
    const md_node *n = md_inner(r, r->output[i]);
    if (n && n != r->anchor && md_in_prologue(r, n))
      md_body_store(body, r->output[i], p, md_body_value(body, r->output[i], p));
  }
}

// at: n, c, t, h, w as the problem sees them.
static md_point pixel_point(const md_conv *c, const md_dense *d, const md_ir at[5], md_ir mask) {
  md_ir place[5];
  for (int i = 0; i < 5; i++) place[i] = at[i];
  md_point p = md_point_of(5, place, 1, c->lanes, mask);
  for (int i = d->tail + 1; i < 5; i++) p.at[i] = NULL;
  if (d->tail < 5) p.at[d->tail] = at[4];
  p.tail = d->tail;
  return p;
}

// Pixels j0 .. j1-1 of a packed row, from the source or zeros.
static void pack_run(const md_conv *c, const md_dense *d, md_val src, md_ir mask, md_ir at[5],
                     md_ir to, md_ir row, int64_t j0, int64_t j1, md_ir w0, bool inside) {
  md_emit *e = &c->k->e;
  if (j0 >= j1) return;
  md_loop x = md_loop_begin(e, md_i64(e, j0), md_i64(e, j1), 1, "x");
  md_ir v = md_const(e, c->type, c->lanes, 0);
  if (inside) {
    md_body body;
    md_body_init(&body, c->k);
    at[4] = md_iadd(e, w0, x.i);
    md_point p = pixel_point(c, d, at, mask);
    v = md_body_value(&body, src, &p);
    if (mask) v = md_select(e, mask, v, md_const(e, c->type, c->lanes, 0));
    if (d->tail == 2) store_prologue(c, &body, &p);
  }
  md_store(e, c->packed, to, md_imulc(e, md_iadd(e, row, x.i), c->lanes), v, NULL);
  md_loop_end(e, &x);
}

int64_t md_pairs_row_bytes(const md_conv *c, const md_dense *d, const md_pairs *p) {
  return md_round_up((d->window[2] + p->apart) * c->lanes * md_dtype_size(c->packed), 64);
}

// A row of pixels in p->row, behind which zeros lie, to cells at `to`.
static void join_pixels(const md_conv *c, const md_pairs *p, md_ir to, md_ir row) {
  md_emit *e = &c->k->e;
  md_loop j = md_loop_begin(e, md_i64(e, 0), md_i64(e, p->num), 1, "pair");
  md_ir at = md_imulc(e, j.i, p->step), pixel[2];
  for (int i = 0; i < 2; i++) {
    md_ir off = md_imulc(e, md_iaddc(e, at, i * p->apart), c->lanes);
    pixel[i] = md_load(e, c->packed, p->row, off, c->lanes, NULL);
  }
  md_store(e, c->cell, to, md_imulc(e, md_iadd(e, row, j.i), c->lanes),
           md_bf16_pair(e, pixel[0], pixel[1]), NULL);
  md_loop_end(e, &j);
}

void md_pack_window(const md_conv *c, const md_dense *d, md_val src, int64_t channels, md_ir first,
                    md_ir blocks, md_ir n, const md_ir m0[3], const int64_t tile[3], md_ir to,
                    const md_pairs *pairs) {
  md_emit *e = &c->k->e;
  int64_t window[3];
  for (int i = 0; i < 3; i++) window[i] = d->window[i] - (d->tile[i] - tile[i]) * d->in_step[i];
  int64_t width = pairs ? pairs->num : d->window[2];
  md_loop sb = md_loop_begin(e, md_i64(e, 0), blocks, 1, "block");
  md_ir block = md_iadd(e, first, sb.i);
  md_ir mask = md_channel_mask(e, channels, block, c->lanes);
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, window[0]), 1, "t");
  md_loop h = md_loop_begin(e, md_i64(e, 0), md_i64(e, window[1]), 1, "h");
  md_ir line = md_iadd(e, md_imulc(e, sb.i, d->window[0]), t.i);
  md_ir row = md_imulc(e, md_iadd(e, md_imulc(e, line, d->window[1]), h.i), width);
  md_ir pixels = pairs ? pairs->row : to, pixel = pairs ? md_i64(e, 0) : row;
  md_ir at[5] = {n, md_imulc(e, block, c->lanes)};
  md_ir inside = NULL, walk[2] = {t.i, h.i};
  for (int i = 0; i < 2; i++) {
    at[2 + i] = md_iadd(e, md_iaddc(e, md_imulc(e, m0[i], d->in_step[i]), d->lo[i]), walk[i]);
    if (d->lo[i] >= 0 && (d->grid[i] - 1) * d->in_step[i] + d->lo[i] +
                                 (d->window[i] - (d->tile[i] - 1) * d->in_step[i]) <=
                             d->in_size[i])
      continue;  // never outside
    md_ir in = LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, -1), at[2 + i]),
                            md_ilt(e, at[2 + i], md_i64(e, d->in_size[i])), "");
    inside = inside ? LLVMBuildAnd(e->b, inside, in, "") : in;
  }
  // The last axis is packed whole (m0 = 0) unless it is a list, where nothing is outside.
  bool is_list = d->tail < 5;
  int64_t j0 = is_list ? 0 : MD_MAX(0, -d->lo[2]);
  int64_t j1 = is_list ? window[2] : MD_MIN(window[2], d->in_size[2] - d->lo[2]);
  j0 = MD_MIN(j0, window[2]);
  j1 = MD_MAX(j1, j0);
  md_ir w0 = md_iaddc(e, md_imulc(e, m0[2], d->in_step[2]), d->lo[2]);
  md_if f = {0};
  if (inside) f = md_if_begin(e, inside, "inside");
  pack_run(c, d, src, mask, at, pixels, pixel, 0, j0, w0, false);
  pack_run(c, d, src, mask, at, pixels, pixel, j0, j1, w0, true);
  pack_run(c, d, src, mask, at, pixels, pixel, j1, window[2], w0, false);
  if (inside) {
    md_if_else(e, &f);
    pack_run(c, d, src, mask, at, pixels, pixel, 0, window[2], w0, false);
    md_if_end(e, &f);
  }
  if (pairs) {
    int64_t end = (pairs->num - 1) * pairs->step + pairs->apart + 1;
    pack_run(c, d, src, mask, at, pixels, pixel, window[2], end, w0, false);
    join_pixels(c, pairs, to, row);
  }
  md_loop_end(e, &h);
  md_loop_end(e, &t);
  md_loop_end(e, &sb);
}

// The register tile: `pixels` x `blocks` accumulators over all source channels and taps.
// src: cell of the first pixel in the window; panel[b]: first cell of its weights.
static void accumulate(const Dense *s, int64_t pixels, int blocks, md_ir src, const md_ir *panel,
                       md_ir weights, md_var *acc) {
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_emit *e = &c->k->e;
  int64_t pixel = c->lanes / c->pair, plane = md_window_elements(d) * pixel, inner = inner_cells(c);
  int64_t row[3] = {d->window[1] * d->window[2] * pixel, d->window[2] * pixel, pixel};
  int64_t kstep[3] = {c->kernel[1] * c->kernel[2], c->kernel[2], 1};
  md_loop sb = md_loop_begin(e, md_i64(e, 0), s->blocks, 1, "i_block");
  md_ir in = md_iadd(e, src, md_imulc(e, sb.i, plane));
  md_ir wt = md_imulc(e, md_iadd(e, s->first, sb.i), taps_of(c) * inner * c->lanes);
  md_loop tap[3];
  for (int i = 0; i < 3; i++) {
    const md_taps *t = &d->tap[i];
    tap[i] = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->num), 1, "tap");
    // off(j) - lo, so that the window's first pixel is 0
    md_ir off = md_iaddc(e, md_imulc(e, tap[i].i, t->doff), t->off0 - d->lo[i]);
    in = md_iadd(e, in, md_imulc(e, off, row[i]));
    md_ir kk = md_iaddc(e, md_imulc(e, tap[i].i, t->dk), t->k0);
    wt = md_iadd(e, wt, md_imulc(e, kk, kstep[i] * inner * c->lanes));
  }
  for (int64_t ci = 0; ci < inner; ci++) {
    md_ir w[4];
    for (int b = 0; b < blocks; b++) {
      md_ir off = md_iaddc(e, md_iadd(e, panel[b], wt), ci * c->lanes);
      w[b] = md_load(e, c->cell, weights, off, c->lanes, NULL);
    }
    for (int64_t p = 0; p < pixels; p++) {
      md_ir off = md_iaddc(e, in, p * d->in_step[2] * pixel + ci);
      md_ir x = md_splat(e, md_load(e, c->cell, s->window, off, 1, NULL), c->lanes);
      for (int b = 0; b < blocks; b++) {
        md_var a = acc[p * blocks + b];
        md_set(e, a, md_multiply_cells(c, x, w[b], md_get(e, a)));
      }
    }
  }
  for (int i = 2; i >= 0; i--) md_loop_end(e, &tap[i]);
  md_loop_end(e, &sb);
}

// Index of output pixel m on each axis.
static md_ir out_index(const Dense *s, int axis, md_ir m) {
  md_emit *e = &s->c->k->e;
  return md_iaddc(e, md_imulc(e, md_iadd(e, s->m0[axis], m), s->d->step[axis]), s->d->first[axis]);
}

static md_point out_point(const Dense *s, md_ir block, md_ir t, md_ir h, md_ir w) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  md_ir mask = md_channel_mask(e, c->dst_c, block, c->lanes);
  md_ir at[5] = {s->n, md_imulc(e, block, c->lanes), out_index(s, 0, t), out_index(s, 1, h),
                 out_index(s, 2, w)};
  return pixel_point(c, s->d, at, mask);
}

// Element offset of a result of block `block`+b in scratch, which holds all blocks or just the group's.
static md_ir acc_offset(const Dense *s, md_ir block, int b, md_ir t, md_ir h, md_ir w) {
  md_emit *e = &s->c->k->e;
  md_ir pixel = md_iadd(e, md_imulc(e, md_iadd(e, md_imulc(e, t, s->tile[1]), h), s->tile[2]), w);
  int64_t pixels = s->tile[0] * s->tile[1] * s->tile[2];
  pixel = md_iaddc(e, pixel, b * pixels);
  if (s->chunked) pixel = md_iadd(e, pixel, md_imulc(e, block, pixels));
  return md_imulc(e, pixel, s->c->lanes);
}

static md_ir dst_offset(const Dense *s, md_ir block, md_ir t, md_ir h, md_ir w) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  const int64_t *size = c->dst_size;
  md_ir at = md_iadd(e, md_imulc(e, s->n, c->dst_blocks), block);
  md_ir line =
      md_iadd(e, md_imulc(e, out_index(s, 0, t), s->d->tail < 5 ? 1 : size[1]), out_index(s, 1, h));
  int64_t width = s->d->tail < 5 ? size[1] * size[2] : size[2];
  md_ir pixel = md_iadd(e, md_imulc(e, line, width), out_index(s, 2, w));
  return md_imulc(e, md_iadd(e, md_imulc(e, at, size[0] * size[1] * size[2]), pixel), c->lanes);
}

static int64_t taps_used(const md_dense *d) {
  return d->tap[0].num * d->tap[1].num * d->tap[2].num;
}

// One register tile at pixels w .. w+pixels-1 of row (t, h), result to scratch or dst.
static void register_tile(const Dense *s, int64_t pixels, int blocks, md_ir block, md_ir t, md_ir h,
                          md_ir w) {
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_emit *e = &c->k->e;
  md_ir zero = md_const(e, c->type, c->lanes, 0);
  md_var acc[64];
  for (int64_t i = 0; i < pixels * blocks; i++)
    acc[i] = md_var_new(e, md_lanes_type(c->type, c->lanes), NULL, "acc");
  for (int64_t p = 0; p < pixels; p++) {
    for (int b = 0; b < blocks; b++) {
      md_ir start = zero;
      if (s->chunked) {
        md_ir off = acc_offset(s, block, b, t, h, md_iaddc(e, w, p));
        start = md_load(e, c->wide, s->acc, off, c->lanes, NULL);
      }
      md_set(e, acc[p * blocks + b], start);
    }
  }
  if (taps_used(d)) {
    md_ir weights = md_workspace(c->k, s->weights), panel[4];
    for (int b = 0; b < blocks; b++) panel[b] = md_imulc(e, md_iaddc(e, block, b), panel_cells(c));
    md_ir line = md_iadd(e, md_imulc(e, md_imulc(e, t, d->in_step[0]), d->window[1]),
                         md_imulc(e, h, d->in_step[1]));
    md_ir src = md_iadd(e, md_imulc(e, line, d->window[2]), md_imulc(e, w, d->in_step[2]));
    accumulate(s, pixels, blocks, md_imulc(e, src, c->lanes / c->pair), panel, weights, acc);
  }
  for (int64_t p = 0; p < pixels; p++) {
    for (int b = 0; b < blocks; b++) {
      md_ir x = md_iaddc(e, w, p), v = md_get(e, acc[p * blocks + b]);
      if (s->acc) {
        md_store(e, c->wide, s->acc, acc_offset(s, block, b, t, h, x), v, NULL);
      } else {
        md_store(e, c->dtype, md_kernel_arg(c->k, c->dst),
                 dst_offset(s, md_iaddc(e, block, b), t, h, x), v, NULL);
      }
    }
  }
}

// Epilogue of `blocks` channel blocks of the tile.
static void finish(const Dense *s, int blocks, md_ir block) {
  const md_conv *c = s->c;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_sums_clear(s->sums, blocks);
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->tile[0]), 1, "t");
  md_loop h = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->tile[1]), 1, "h");
  md_loop w = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->tile[2]), 1, "w");
  for (int b = 0; b < blocks; b++) {
    md_point p = out_point(s, md_iaddc(e, block, b), t.i, h.i, w.i);
    md_body body;
    md_body_init(&body, k);
    md_ir v = md_load(e, c->wide, s->acc, acc_offset(s, block, b, t.i, h.i, w.i), c->lanes, NULL);
    if (c->bias != MD_NONE) {
      md_point channel = md_point_of(1, &p.at[1], 0, c->lanes, p.mask);
      v = md_fadd(e, v, md_body_value(&body, c->bias, &channel));
    }
    md_finish_set(&body, c->dst, v);
    // A result may lie over a tensor that the others read: all is read before anything is stored.
    md_sums_add(s->sums, b, &body, &p);
    md_finish_store(&body, &p);
  }
  md_loop_end(e, &w);
  md_loop_end(e, &h);
  md_loop_end(e, &t);
  for (int b = 0; b < blocks; b++) md_sums_store(s->sums, b, s->n, md_iaddc(e, block, b), s->part);
}

// Everything that a tile of pixels needs for dst blocks block .. block+blocks-1.
static void block_group(const Dense *s, int blocks, md_ir block) {
  md_emit *e = &s->c->k->e;
  int64_t most = (e->cpu->registers - blocks - 1) / blocks;
  md_run run[4];
  int num = md_cut_row(s->tile[2], most, run);
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->tile[0]), 1, "t");
  md_loop h = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->tile[1]), 1, "h");
  for (int i = 0; i < num; i++) {
    md_loop x = md_loop_begin(e, md_i64(e, 0), md_i64(e, run[i].count), 1, "tile");
    md_ir w = md_iaddc(e, md_imulc(e, x.i, run[i].pixels), run[i].start);
    register_tile(s, run[i].pixels, blocks, block, t.i, h.i, w);
    md_loop_end(e, &x);
  }
  md_loop_end(e, &h);
  md_loop_end(e, &t);
  if (s->acc && !s->chunked) finish(s, blocks, block);
}

static void all_blocks(const Dense *s) {
  const md_conv *c = s->c;
  md_emit *e = &c->k->e;
  int64_t pairs = c->dst_blocks / 2;
  if (pairs) {
    md_loop o = md_loop_begin(e, md_i64(e, 0), md_i64(e, pairs), 1, "o_pair");
    block_group(s, 2, md_imulc(e, o.i, 2));
    md_loop_end(e, &o);
  }
  if (c->dst_blocks % 2) block_group(s, 1, md_i64(e, c->dst_blocks - 1));
}

static void tile_body(Dense *s) {
  const md_conv *c = s->c;
  const md_dense *d = s->d;
  md_emit *e = &c->k->e;
  s->first = md_i64(e, 0);
  s->blocks = md_i64(e, c->src_blocks);
  if (!s->chunked) {
    if (taps_used(d))
      md_pack_window(c, d, c->src, c->src_c, s->first, s->blocks, s->n, s->m0, s->tile, s->window,
                     NULL);
    all_blocks(s);
    return;
  }
  int64_t results = c->dst_blocks * s->tile[0] * s->tile[1] * s->tile[2];
  md_loop z = md_loop_begin(e, md_i64(e, 0), md_i64(e, results), 1, "clear");
  md_ir zero = md_const(e, c->type, c->lanes, 0);
  md_store(e, c->wide, s->acc, md_imulc(e, z.i, c->lanes), zero, NULL);
  md_loop_end(e, &z);
  md_loop chunk = md_loop_begin(e, s->first, s->blocks, d->chunk, "chunk");
  md_ir left = md_isub(e, s->blocks, chunk.i);
  s->first = chunk.i;
  s->blocks =
      c->src_blocks % d->chunk ? md_imin(e, left, md_i64(e, d->chunk)) : md_i64(e, d->chunk);
  md_pack_window(c, d, c->src, c->src_c, s->first, s->blocks, s->n, s->m0, s->tile, s->window,
                 NULL);
  all_blocks(s);
  md_loop_end(e, &chunk);
  md_loop o = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->dst_blocks), 1, "o_block");
  finish(s, 1, o.i);
  md_loop_end(e, &o);
}

// Results go straight to memory when nothing follows the convolution.
static bool is_plain(const md_conv *c) {
  const md_region_view *r = c->k->r;
  for (int i = 0; i < r->num_nodes; i++)
    if (md_in_epilogue(r, r->node[i])) return false;
  return c->bias == MD_NONE && md_type_in(r->g, c->dst)->block == c->lanes &&
         md_is_output(r, c->dst);
}

static void emit_problem(const md_conv *c, const md_dense *d, md_sums *sums, int64_t first_part,
                         int64_t weights) {
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  int64_t pixels = d->tile[0] * d->tile[1] * d->tile[2], tiles[4] = {c->n};
  for (int i = 0; i < 3; i++) tiles[1 + i] = md_ceil_div(d->grid[i], d->tile[i]);
  int64_t window = md_round_up(md_window_elements(d) * d->chunk * c->lanes * c->bytes, 64);
  bool chunked = md_is_chunked(c, d) && taps_used(d);
  int64_t acc =
      md_round_up((chunked ? c->dst_blocks : 2) * pixels * c->lanes * md_dtype_size(c->wide), 64);
  md_phase_begin(k, "conv", c->n * md_dense_tiles(d), window + acc);
  md_ir index[4];
  md_split_index(e, k->item, 4, tiles, index);
  Dense s = {.c = c,
             .d = d,
             .sums = sums,
             .first_part = first_part,
             .weights = weights,
             .n = index[0],
             .chunked = chunked,
             .window = k->scratch};
  s.part = md_iaddc(
      e,
      md_iadd(e, md_imulc(e, md_iadd(e, md_imulc(e, index[1], tiles[2]), index[2]), tiles[3]),
              index[3]),
      first_part);
  for (int i = 0; i < 3; i++) {
    s.tile[i] = d->tile[i];
    s.m0[i] = md_imulc(e, index[1 + i], d->tile[i]);
  }
  if (chunked || !is_plain(c)) s.acc = md_at(e, MD_U8, k->scratch, md_i64(e, window));
  int64_t tail = d->grid[2] % d->tile[2];
  if (tail == 0) {
    tile_body(&s);
  } else {  // the last tile of a list is shorter
    md_if last = md_if_begin(e, md_ieq(e, index[3], md_i64(e, tiles[3] - 1)), "last");
    Dense t = s;
    t.tile[2] = tail;
    tile_body(&t);
    md_if_else(e, &last);
    tile_body(&s);
    md_if_end(e, &last);
  }
  md_phase_end(k);
}

void md_emit_conv_dense(md_kernel *k) {
  const md_node *node = k->r->anchor;
  md_conv c = md_conv_of(k, node->in[0], node->in[1], node->out);
  md_dense problem[MD_MAX_DENSE];
  int num = md_conv_problems(&c, problem);
  int64_t parts = 0;
  for (int i = 0; i < num; i++) parts += md_dense_tiles(&problem[i]);
  int64_t bytes = c.dst_blocks * panel_cells(&c) * md_dtype_size(c.cell);
  int64_t weights = md_workspace_reserve(k, bytes);
  md_sums *sums = md_sums_create(k, parts, 2);
  pack_weights(&c, weights);
  int64_t part = 0;
  for (int i = 0; i < num; i++) {
    emit_problem(&c, &problem[i], sums, part, weights);
    part += md_dense_tiles(&problem[i]);
  }
  md_sums_finish(sums);
}
