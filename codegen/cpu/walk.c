// SPDX-License-Identifier: Apache-2.0
// Walks: every point of an index space once, as vectors. Items are runs of rows of the last axis, or,
// where there are few rows, runs of vectors.
#include "codegen/cpu/parts.h"

enum { MAX_ITEMS = 64, ITEM_ELEMENTS = 4096, FEW_ROWS = 32 };

static md_walk walk(const md_shape *s, int lane_axis, int lanes) {
  md_walk w = {.shape = *s, .lane_axis = lanes == 1 ? -1 : lane_axis, .lanes = lanes};
  int64_t rows = 1;
  for (int i = 0; i < s->rank; i++) {
    w.grid[i] = i == w.lane_axis ? md_ceil_div(s->dim[i], lanes) : s->dim[i];
    if (i + 1 < s->rank) rows *= w.grid[i];
  }
  w.flat = rows < FEW_ROWS;
  int64_t units = w.flat ? rows * w.grid[s->rank - 1] : rows;
  int64_t most = MD_MIN(MD_MAX(md_elements(s) / ITEM_ELEMENTS, 1), MAX_ITEMS);
  w.items = md_split_items(units, most, &w.per_item);
  return w;
}

md_walk md_walk_of(const md_kernel *k, const md_type *t) {
  int lanes = k->e.cpu->lanes, last = t->shape.rank - 1;
  if (t->block) return walk(&t->shape, 1, lanes);
  while (lanes > 1 && lanes / 2 >= t->shape.dim[last]) lanes /= 2;
  return walk(&t->shape, last, lanes);
}

md_walk md_walk_scalars(const md_shape *s) { return walk(s, -1, 1); }

static md_ir lane_mask(md_emit *e, const md_walk *w, md_ir first) {
  int64_t dim = w->shape.dim[w->lane_axis];
  if (dim % w->lanes == 0) return NULL;
  return md_first_lanes(e, md_isub(e, md_i64(e, dim), first), w->lanes);
}

// The last axis of one row; at[0..rank-2] are set.
static void emit_row(md_kernel *k, const md_walk *w, md_ir *at, md_walk_at *fn, void *ctx) {
  md_emit *e = &k->e;
  int last = w->shape.rank - 1;
  md_point p;
  if (w->lane_axis != last) {
    md_ir mask = w->lane_axis < 0 ? NULL : lane_mask(e, w, at[w->lane_axis]);
    md_loop x = md_loop_begin(e, md_i64(e, 0), md_i64(e, w->shape.dim[last]), 1, "x");
    at[last] = x.i;
    p = md_point_of(w->shape.rank, at, w->lane_axis, w->lanes, mask);
    fn(ctx, &p);
    md_loop_end(e, &x);
    return;
  }
  int64_t whole = w->shape.dim[last] / w->lanes * w->lanes;
  if (whole) {
    md_loop x = md_loop_begin(e, md_i64(e, 0), md_i64(e, whole), w->lanes, "x");
    at[last] = x.i;
    p = md_point_of(w->shape.rank, at, last, w->lanes, NULL);
    fn(ctx, &p);
    md_loop_end(e, &x);
  }
  if (whole == w->shape.dim[last]) return;
  at[last] = md_i64(e, whole);
  p = md_point_of(w->shape.rank, at, last, w->lanes, lane_mask(e, w, at[last]));
  fn(ctx, &p);
}

static void to_elements(md_emit *e, const md_walk *w, int num, md_ir *at) {
  if (w->lane_axis >= 0 && w->lane_axis < num)
    at[w->lane_axis] = md_imulc(e, at[w->lane_axis], w->lanes);
}

void md_walk_emit(md_kernel *k, const md_walk *w, md_ir item, md_walk_at *fn, void *ctx) {
  md_emit *e = &k->e;
  int rank = w->shape.rank, outer = w->flat ? rank : rank - 1;
  int64_t units = 1;
  for (int i = 0; i < outer; i++) units *= w->grid[i];
  md_ir begin = md_imulc(e, item, w->per_item);
  md_ir end = md_imin(e, md_iaddc(e, begin, w->per_item), md_i64(e, units));
  md_loop l = md_loop_begin(e, begin, end, 1, w->flat ? "vector" : "row");
  md_ir at[MD_MAX_RANK];
  md_split_index(e, l.i, outer, w->grid, at);
  to_elements(e, w, outer, at);
  if (w->flat) {
    md_ir mask = w->lane_axis < 0 ? NULL : lane_mask(e, w, at[w->lane_axis]);
    md_point p = md_point_of(rank, at, w->lane_axis, w->lanes, mask);
    fn(ctx, &p);
  } else {
    emit_row(k, w, at, fn, ctx);
  }
  md_loop_end(e, &l);
}

void md_walk_phase(md_kernel *k, const char *what, const md_walk *w, md_walk_at *at, void *ctx) {
  md_phase_begin(k, what, w->items, 0);
  md_walk_emit(k, w, k->item, at, ctx);
  md_phase_end(k);
}

md_ir md_flat_offset(md_emit *e, const md_shape *s, const md_ir *at) {
  md_ir off = at[0];
  for (int i = 1; i < s->rank; i++) off = md_iadd(e, md_imulc(e, off, s->dim[i]), at[i]);
  return off;
}

// Contiguous memory takes a load at any offset. Other values are made lane by lane; a lane that is off
// takes the place of the first, which exists.
md_ir md_value_unaligned(md_body *b, md_val v, const md_point *p) {
  md_kernel *k = b->k;
  md_emit *e = &k->e;
  const md_type *t = md_type_in(k->r->g, v);
  if (p->lanes == 1) return md_body_value(b, v, p);
  int axis = p->lane_axis;
  if (md_is_input(k->r, v) && !t->block && axis == t->shape.rank - 1) {
    md_ir off = md_flat_offset(e, &t->shape, p->at);
    return md_load(e, t->dtype, md_kernel_arg(k, v), off, p->lanes, p->mask);
  }
  md_ir r = LLVMGetPoison(md_lanes_type(md_compute_type(e, t->dtype), p->lanes));
  for (int i = 0; i < p->lanes; i++) {
    md_point one = *p;
    one.lane_axis = -1;
    one.lanes = 1;
    one.mask = NULL;
    one.at[axis] = md_iaddc(e, p->at[axis], i);
    if (p->mask) one.at[axis] = md_select(e, md_get_lane(e, p->mask, i), one.at[axis], p->at[axis]);
    r = md_set_lane(e, r, i, md_body_value(b, v, &one));
  }
  return r;
}
