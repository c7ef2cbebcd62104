// SPDX-License-Identifier: Apache-2.0
// Packing the part of an operand that a tile needs: prologue applied, zeros outside. Pixels hold a block
// of channels, a lane each; of few channels that lie row-major, each row of a channel stands alone.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/parts.h"
#include "codegen/cpu/place.h"

md_ir md_channel_mask(md_emit *e, int64_t channels, md_ir block, int lanes) {
  if (channels % lanes == 0) return NULL;
  md_ir left = md_isub(e, md_i64(e, channels), md_imulc(e, block, lanes));
  return md_first_lanes(e, md_imax(e, left, md_i64(e, 0)), lanes);
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

md_point md_pixel_point(const md_conv *c, const md_dense *d, const md_ir at[5], md_ir mask) {
  md_ir place[5];
  for (int i = 0; i < 5; i++) place[i] = at[i];
  md_point p = md_point_of(5, place, 1, c->lanes, mask);
  for (int i = d->tail + 1; i < 5; i++) p.at[i] = NULL;
  if (d->tail < 5) p.at[d->tail] = at[4];
  p.tail = d->tail;
  return p;
}

// A row of pixels on its way from a place of the source: n, c, t, h; w is w0 + its number.
typedef struct Row {
  const md_conv *c;
  const md_dense *d;
  md_val src;
  md_ir at[5], w0;
  md_ir mask;      // of the channels that exist; lanes along the row have masks of their own
  md_ir to, base;  // element `base` on
} Row;

// Pixels j .. of the row (one, or a vector along the row), from the source or zeros.
static void pack_pixels(Row *r, md_ir j, md_ir mask, bool inside) {
  const md_conv *c = r->c;
  md_emit *e = &c->k->e;
  md_ir v = md_const(e, c->type, c->lanes, 0);
  if (inside) {
    md_body body;
    md_body_init(&body, c->k);
    r->at[4] = md_iadd(e, r->w0, j);
    md_point p = md_pixel_point(c, r->d, r->at, mask);
    if (r->d->planar) {
      p.lane_axis = 4;
      p.step = 1;
    }
    v = md_body_value(&body, r->src, &p);
    if (mask) v = md_select(e, mask, v, md_const(e, c->type, c->lanes, 0));
    store_prologue(c, &body, &p);
  }
  md_ir at = md_iadd(e, r->base, md_imulc(e, j, r->d->planar ? 1 : c->lanes));
  md_store(e, c->packed, r->to, at, v, r->d->planar ? mask : NULL);
}

// Pixels j0 .. j1-1.
static void pack_run(Row *r, int64_t j0, int64_t j1, bool inside) {
  md_emit *e = &r->c->k->e;
  int64_t step = r->d->planar ? r->c->lanes : 1, whole = j0 + MD_MAX(j1 - j0, 0) / step * step;
  if (whole > j0) {
    md_loop x = md_loop_begin(e, md_i64(e, j0), md_i64(e, whole), step, "x");
    pack_pixels(r, x.i, r->mask, inside);
    md_loop_end(e, &x);
  }
  if (whole < j1)
    pack_pixels(r, md_i64(e, whole), md_first_lanes(e, md_i64(e, j1 - whole), (int)step), inside);
}

int64_t md_cells_row_bytes(const md_conv *c, const md_dense *d, const md_cells *p) {
  return md_round_up(
      (d->window[2] + (c->in_cell - 1) * p->apart) * c->lanes * md_dtype_size(c->packed), 64);
}

// Cells j .. of a row (one for each channel, or a vector along the row).
static void join_cells(const Row *r, const md_cells *p, md_ir to, md_ir base, md_ir j, md_ir mask) {
  const md_conv *c = r->c;
  md_emit *e = &c->k->e;
  int64_t each = r->d->planar ? 1 : c->lanes;
  md_ir pixel[4];
  for (int i = 0; i < c->in_cell; i++) {
    md_ir off = md_imulc(e, md_iaddc(e, md_imulc(e, j, p->step), i * p->apart), each);
    pixel[i] = md_load(e, c->packed, p->row, off, c->lanes, mask);
  }
  md_store(e, c->cell, to, md_iadd(e, base, md_imulc(e, j, each)), md_cell_of(c, pixel), mask);
}

// A row of pixels in p->row, behind which zeros lie, to the cells from `base`.
static void join_pixels(const Row *r, const md_cells *p, md_ir to, md_ir base) {
  md_emit *e = &r->c->k->e;
  MD_ASSERT(!r->d->planar || p->step == 1, "cells %lld apart", (long long)p->step);
  int64_t step = r->d->planar ? r->c->lanes : 1, whole = p->num / step * step;
  if (whole) {
    md_loop j = md_loop_begin(e, md_i64(e, 0), md_i64(e, whole), step, "cell");
    join_cells(r, p, to, base, j.i, NULL);
    md_loop_end(e, &j);
  }
  if (whole < p->num)
    join_cells(r, p, to, base, md_i64(e, whole),
               md_first_lanes(e, md_i64(e, p->num - whole), (int)step));
}

// Is the row at at[2], at[3] of the source inside of it? NULL: always.
static md_ir row_exists(const md_conv *c, const md_dense *d, const md_ir at[5]) {
  md_emit *e = &c->k->e;
  md_ir inside = NULL;
  for (int i = 0; i < 2; i++) {
    int64_t reach = d->window[i] - (d->tile[i] - 1) * d->in_step[i];
    if (d->lo[i] >= 0 && (d->grid[i] - 1) * d->in_step[i] + d->lo[i] + reach <= d->in_size[i])
      continue;
    md_ir in = LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, -1), at[2 + i]),
                            md_ilt(e, at[2 + i], md_i64(e, d->in_size[i])), "");
    inside = inside ? LLVMBuildAnd(e->b, inside, in, "") : in;
  }
  return inside;
}

// `width` pixels and, with cells, the zeros behind them.
static void pack_row(Row *r, int64_t width, const md_cells *cells, md_ir to, md_ir base) {
  const md_dense *d = r->d;
  md_emit *e = &r->c->k->e;
  r->to = cells ? cells->row : to;
  r->base = cells ? md_i64(e, 0) : base;
  // The last axis is packed whole (m0 = 0) unless it is a list, where nothing is outside.
  bool is_list = d->tail < 5;
  int64_t j0 = is_list ? 0 : MD_MIN(MD_MAX(0, -d->lo[2]), width);
  int64_t j1 = is_list ? width : MD_MAX(MD_MIN(width, d->in_size[2] - d->lo[2]), j0);
  md_ir inside = row_exists(r->c, d, r->at);
  md_if f = {0};
  if (inside) f = md_if_begin(e, inside, "inside");
  pack_run(r, 0, j0, false);
  pack_run(r, j0, j1, true);
  pack_run(r, j1, width, false);
  if (inside) {
    md_if_else(e, &f);
    pack_run(r, 0, width, false);
    md_if_end(e, &f);
  }
  if (!cells) return;
  pack_run(r, width, (cells->num - 1) * cells->step + (r->c->in_cell - 1) * cells->apart + 1,
           false);
  join_pixels(r, cells, to, base);
}

md_steps md_window_steps(const md_conv *c, const md_dense *d, int64_t width) {
  md_steps s = {.pixel = c->lanes, .channel = 1, .row = width * c->lanes};
  if (d->planar) s = (md_steps){.pixel = 1, .channel = width, .row = width * c->src_c};
  s.block = d->window[0] * d->window[1] * s.row;
  return s;
}

void md_pack_window(const md_conv *c, const md_dense *d, md_val src, int64_t channels, md_ir first,
                    md_ir blocks, md_ir n, const md_ir m0[3], const int64_t tile[3], md_ir to,
                    const md_cells *cells) {
  md_emit *e = &c->k->e;
  int64_t window[3];
  for (int i = 0; i < 3; i++) window[i] = d->window[i] - (d->tile[i] - tile[i]) * d->in_step[i];
  md_steps step = md_window_steps(c, d, cells ? cells->num : d->window[2]);
  md_loop sb = md_loop_begin(e, md_i64(e, 0), blocks, 1, "block");
  md_ir block = md_iadd(e, first, sb.i), start[3];
  for (int i = 0; i < 3; i++) start[i] = md_iaddc(e, md_imulc(e, m0[i], d->in_step[i]), d->lo[i]);
  Row r = {.c = c, .d = d, .src = src, .at = {n, md_imulc(e, block, c->lanes)}, .w0 = start[2]};
  if (!d->planar) r.mask = md_channel_mask(e, channels, block, c->lanes);
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, window[0]), 1, "t");
  md_loop h = md_loop_begin(e, md_i64(e, 0), md_i64(e, window[1]), 1, "h");
  r.at[2] = md_iadd(e, start[0], t.i);
  r.at[3] = md_iadd(e, start[1], h.i);
  md_ir line = md_iadd(e, md_imulc(e, t.i, d->window[1]), h.i);
  md_ir base = md_iadd(e, md_imulc(e, sb.i, step.block), md_imulc(e, line, step.row));
  if (d->planar) {
    md_loop channel = md_loop_begin(e, md_i64(e, 0), md_i64(e, channels), 1, "c");
    r.at[1] = channel.i;
    pack_row(&r, window[2], cells, to, md_iadd(e, base, md_imulc(e, channel.i, step.channel)));
    md_loop_end(e, &channel);
  } else {
    pack_row(&r, window[2], cells, to, base);
  }
  md_loop_end(e, &h);
  md_loop_end(e, &t);
  md_loop_end(e, &sb);
}

void md_window_cells(const md_conv *c, const md_dense *d, md_ir from, md_ir blocks, md_ir to,
                     const md_cells *cells) {
  md_emit *e = &c->k->e;
  int64_t pixels = d->window[2];
  MD_ASSERT(pixels == c->in_cell * cells->num, "a row of %lld pixels", (long long)pixels);
  Row r = {.c = c, .d = d};
  md_cells p = *cells;
  md_loop b = md_loop_begin(e, md_i64(e, 0), blocks, 1, "block");
  p.row = md_at(e, c->packed, from, md_imulc(e, b.i, pixels * c->lanes));
  join_pixels(&r, &p, to, md_imulc(e, b.i, cells->num * c->lanes));
  md_loop_end(e, &b);
}

bool md_lies_packed(const md_conv *c, const md_dense *d, md_val src) {
  const md_region_view *r = c->k->r;
  const md_type *t = md_type_in(r->g, src);
  return d->tail == 2 && md_is_input(r, src) && t->block == c->lanes && t->dtype == c->packed &&
         t->shape.dim[1] % c->lanes == 0;
}

md_steps md_steps_in_place(const md_conv *c, const md_dense *d) {
  md_steps s = md_window_steps(c, d, d->window[2]);
  s.block = d->in_size[2] * c->lanes;
  return s;
}

md_ir md_window_in_place(const md_conv *c, const md_dense *d, md_val src, md_ir n, md_ir block,
                         const md_ir m0[3]) {
  md_emit *e = &c->k->e;
  int64_t blocks = md_type_in(c->k->r->g, src)->shape.dim[1] / c->lanes;
  md_ir pixel = md_imulc(e, md_iadd(e, md_imulc(e, n, blocks), block), d->in_size[2]);
  md_ir off = md_imulc(e, md_iadd(e, pixel, m0[2]), c->lanes);
  return md_at(e, c->packed, md_kernel_arg(c->k, src), off);
}
