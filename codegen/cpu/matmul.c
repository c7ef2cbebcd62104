// SPDX-License-Identifier: Apache-2.0
// Many rows: an item makes a tile of z. For each block of the depth it packs its part of X, as
// [row][k] or [k][row] (whichever way it lies), and its part of Y as [vector][k][lane], prologues
// applied; then register tiles of `height` rows x two vectors run over it:
//
//     c[row][vector] += splat(X[row][k]) * Y[vector][k]
//
// Where Y lies transposed, lanes x lanes blocks are transposed in registers.
#include "codegen/cpu/matmul.h"

enum { DEPTH = 128, MAX_ROWS = 112, MAX_COLUMNS = 256, MIN_ITEMS = 8, MIN_SPLIT = 512 };

// --- shared with matmul_rows.c

md_product md_product_of(md_kernel *k) {
  const md_node *n = k->r->anchor;
  const md_graph *g = k->r->g;
  const md_type *x = md_type_in(g, n->in[0]), *z = md_type_in(g, n->out);
  md_product s = {.k = k,
                  .node = n,
                  .x = n->in[0],
                  .y = n->in[1],
                  .z = n->out,
                  .tx = n->attr.matmul.ta != 0,
                  .ty = n->attr.matmul.tb != 0,
                  .lanes = k->e.cpu->lanes,
                  .dtype = md_wide_dtype(z->dtype),
                  .splits = 1};
  s.m = z->shape.dim[0];
  s.n = z->shape.dim[1];
  s.depth = x->shape.dim[s.tx ? 0 : 1];
  s.split_depth = s.depth;
  s.type = md_compute_type(&k->e, s.dtype);
  s.registers = k->e.cpu->registers / (s.dtype == MD_F64 ? 2 : 1);
  s.padded_n = md_round_up(s.n, s.lanes);
  return s;
}

void md_product_split(md_product *s, int64_t tiles, int64_t step) {
  int64_t want = md_ceil_div(2 * MIN_ITEMS, tiles), most = s->depth / MIN_SPLIT;
  if (tiles >= MIN_ITEMS || most < 2) return;
  s->split_depth = md_round_up(md_ceil_div(s->depth, MD_MIN(want, most)), step);
  s->splits = md_ceil_div(s->depth, s->split_depth);
  if (s->splits == 1) return;
  s->part = md_workspace_reserve(s->k, s->splits * s->m * s->padded_n * md_dtype_size(s->dtype));
}

static md_ir operand(const md_product *s, md_val v, bool swap, md_ir first, md_ir second,
                     int lane_axis, md_ir mask) {
  md_ir at[2] = {swap ? second : first, swap ? first : second};
  if (lane_axis >= 0 && swap) lane_axis = 1 - lane_axis;
  md_body b;
  md_body_init(&b, s->k);
  md_point p = md_point_of(2, at, lane_axis, lane_axis < 0 ? 1 : s->lanes, mask);
  return md_body_value(&b, v, &p);
}

md_ir md_product_x(const md_product *s, md_ir i, md_ir kk, md_along along, md_ir mask) {
  int axis = along == MD_ALONG_NONE ? -1 : along == MD_ALONG_DEPTH;
  return operand(s, s->x, s->tx, i, kk, axis, mask);
}

md_ir md_product_y(const md_product *s, md_ir kk, md_ir j, md_along along, md_ir mask) {
  int axis = along == MD_ALONG_NONE ? -1 : along == MD_ALONG_SIDE;
  return operand(s, s->y, s->ty, kk, j, axis, mask);
}

md_ir md_lanes_left(const md_product *s, md_ir at, int64_t size) {
  md_emit *e = &s->k->e;
  if (size % s->lanes == 0) return NULL;
  return md_first_lanes(e, md_isub(e, md_i64(e, size), at), s->lanes);
}

static md_ir part_offset(const md_product *s, md_ir split, md_ir i, md_ir j) {
  md_emit *e = &s->k->e;
  md_ir row = md_iadd(e, md_imulc(e, split, s->m), i);
  return md_iadd(e, md_imulc(e, row, s->padded_n), j);
}

static void finish_at(const md_product *s, md_ir value, const md_point *p) {
  md_body b;
  md_body_init(&b, s->k);
  md_finish_set(&b, s->z, value);
  md_finish_store(&b, p);
}

void md_product_finish(const md_product *s, md_ir c, int64_t ld, md_ir i0, md_ir rows, md_ir j0,
                       md_ir vectors, md_ir split) {
  md_emit *e = &s->k->e;
  md_loop i = md_loop_begin(e, md_i64(e, 0), rows, 1, "row");
  md_loop v = md_loop_begin(e, md_i64(e, 0), vectors, 1, "vector");
  md_ir column = md_imulc(e, v.i, s->lanes);
  md_ir z = md_load(e, s->dtype, c, md_iadd(e, md_imulc(e, i.i, ld), column), s->lanes, NULL);
  md_ir at[2] = {md_iadd(e, i0, i.i), md_iadd(e, j0, column)};
  if (s->splits > 1) {
    md_store(e, s->dtype, md_workspace(s->k, s->part), part_offset(s, split, at[0], at[1]), z,
             NULL);
  } else {
    md_point p = md_point_of(2, at, 1, s->lanes, md_lanes_left(s, at[1], s->n));
    finish_at(s, z, &p);
  }
  md_loop_end(e, &v);
  md_loop_end(e, &i);
}

static void merge_at(void *ctx, const md_point *p) {
  const md_product *s = ctx;
  md_emit *e = &s->k->e;
  md_ir from = md_workspace(s->k, s->part), sum = NULL;
  for (int64_t i = 0; i < s->splits; i++) {
    md_ir off = part_offset(s, md_i64(e, i), p->at[0], p->at[1]);
    md_ir x = md_load(e, s->dtype, from, off, p->lanes, NULL);
    sum = sum ? md_fadd(e, sum, x) : x;
  }
  finish_at(s, sum, p);
}

void md_product_merge(md_product *s) {
  if (s->splits == 1) return;
  md_walk w = md_walk_of(s->k, md_type_in(s->k->r->g, s->z));
  md_walk_phase(s->k, "merge", &w, merge_at, s);
}

// --- packed tiles

typedef struct Packed {
  md_product p;
  int64_t rows, columns, height;  // of a tile; rows of a register tile
  int64_t padded_rows;            // whole register tiles
  int64_t tiles_m, tiles_n;
  md_ir x, y, c;     // scratch
  md_ir i0, j0, k0;  // of the tile and the block of the depth
  md_ir num_rows, num_vectors, num_k;
} Packed;

static int64_t even(int64_t size, int64_t most, int64_t step) {
  return md_round_up(md_ceil_div(size, md_ceil_div(size, most)), step);
}

static Packed packed_of(md_kernel *k) {
  Packed s = {.p = md_product_of(k)};
  const md_product *p = &s.p;
  int64_t tallest = MD_MAX((p->registers - 3) / 2, 1), most = MAX_COLUMNS;
  // Lanes run along the rows of X^T, so that tiles begin at a multiple of them.
  s.rows = p->tx ? even(p->m, MAX_ROWS, p->lanes) : even(p->m, MAX_ROWS, 1);
  s.height = even(s.rows, tallest, 1);
  s.padded_rows = md_round_up(s.rows, s.height);
  s.columns = even(p->padded_n, most, 2 * p->lanes);
  s.tiles_m = md_ceil_div(p->m, s.rows);
  while (s.tiles_m * md_ceil_div(p->n, s.columns) < 2 * MIN_ITEMS && most > 64) {
    most /= 2;
    s.columns = even(p->padded_n, most, 2 * p->lanes);
  }
  s.tiles_n = md_ceil_div(p->n, s.columns);
  return s;
}

// Elements of a line of packed X; whole vectors and whole register tiles fit in.
static int64_t x_line(const Packed *s) {
  return s->p.tx ? md_round_up(s->padded_rows, s->p.lanes) : DEPTH;
}

// One block of the depth of X: rows that do not exist are left as they are, nobody reads their results.
static void pack_x(const Packed *s) {
  const md_product *p = &s->p;
  md_emit *e = &p->k->e;
  md_loop a = md_loop_begin(e, md_i64(e, 0), p->tx ? s->num_k : s->num_rows, 1, "line");
  md_loop b = md_loop_begin(e, md_i64(e, 0), p->tx ? s->num_rows : s->num_k, p->lanes, "run");
  md_ir i = md_iadd(e, s->i0, p->tx ? b.i : a.i), kk = md_iadd(e, s->k0, p->tx ? a.i : b.i);
  md_ir mask = p->tx ? md_lanes_left(p, i, p->m) : md_lanes_left(p, kk, p->depth);
  md_ir x = md_product_x(p, i, kk, p->tx ? MD_ALONG_SIDE : MD_ALONG_DEPTH, mask);
  md_store(e, p->dtype, s->x, md_iadd(e, md_imulc(e, a.i, x_line(s)), b.i), x, NULL);
  md_loop_end(e, &b);
  md_loop_end(e, &a);
}

static md_ir y_offset(const Packed *s, md_ir vector, md_ir kk) {
  md_emit *e = &s->p.k->e;
  return md_imulc(e, md_iadd(e, md_imulc(e, vector, DEPTH), kk), s->p.lanes);
}

static void pack_y(const Packed *s) {
  const md_product *p = &s->p;
  md_emit *e = &p->k->e;
  md_loop v = md_loop_begin(e, md_i64(e, 0), s->num_vectors, 1, "vector");
  md_ir j = md_iadd(e, s->j0, md_imulc(e, v.i, p->lanes));
  if (!p->ty) {
    md_loop kk = md_loop_begin(e, md_i64(e, 0), s->num_k, 1, "k");
    md_ir y = md_product_y(p, md_iadd(e, s->k0, kk.i), j, MD_ALONG_SIDE, md_lanes_left(p, j, p->n));
    md_store(e, p->dtype, s->y, y_offset(s, v.i, kk.i), y, NULL);
    md_loop_end(e, &kk);
  } else {
    md_loop kk = md_loop_begin(e, md_i64(e, 0), s->num_k, p->lanes, "k");
    md_ir at = md_iadd(e, s->k0, kk.i), mask = md_lanes_left(p, at, p->depth), line[64];
    for (int l = 0; l < p->lanes; l++) {
      md_ir column = md_iaddc(e, j, l);
      if (p->n % p->lanes) column = md_imin(e, column, md_i64(e, p->n - 1));
      line[l] = md_product_y(p, at, column, MD_ALONG_DEPTH, mask);
    }
    md_turn_lanes(e, line, p->lanes);
    for (int l = 0; l < p->lanes; l++)
      md_store(e, p->dtype, s->y, y_offset(s, v.i, md_iaddc(e, kk.i, l)), line[l], NULL);
    md_loop_end(e, &kk);
  }
  md_loop_end(e, &v);
}

// c[row .. +height][vector, vector+1] joins the block of the depth.
static void register_tile(const Packed *s, md_ir row, md_ir vector) {
  const md_product *p = &s->p;
  md_emit *e = &p->k->e;
  md_var acc[64];
  md_ir at[64];
  for (int64_t i = 0; i < 2 * s->height; i++) {
    md_ir line = md_imulc(e, md_iaddc(e, row, i / 2), s->columns);
    at[i] = md_iadd(e, line, md_imulc(e, md_iaddc(e, vector, i % 2), p->lanes));
    acc[i] = md_var_new(e, md_lanes_type(p->type, p->lanes), NULL, "acc");
    md_set(e, acc[i], md_load(e, p->dtype, s->c, at[i], p->lanes, NULL));
  }
  md_loop kk = md_loop_begin(e, md_i64(e, 0), s->num_k, 1, "k");
  md_ir y[2];
  for (int v = 0; v < 2; v++)
    y[v] = md_load(e, p->dtype, s->y, y_offset(s, md_iaddc(e, vector, v), kk.i), p->lanes, NULL);
  for (int64_t i = 0; i < s->height; i++) {
    md_ir line = md_iaddc(e, row, i);
    md_ir off = p->tx ? md_iadd(e, md_imulc(e, kk.i, x_line(s)), line)
                      : md_iadd(e, md_imulc(e, line, x_line(s)), kk.i);
    md_ir x = md_splat(e, md_load(e, p->dtype, s->x, off, 1, NULL), p->lanes);
    for (int v = 0; v < 2; v++) {
      md_var a = acc[2 * i + v];
      md_set(e, a, md_fma(e, x, y[v], md_get(e, a)));
    }
  }
  md_loop_end(e, &kk);
  for (int64_t i = 0; i < 2 * s->height; i++)
    md_store(e, p->dtype, s->c, at[i], md_get(e, acc[i]), NULL);
}

static void clear(const Packed *s) {
  const md_product *p = &s->p;
  md_emit *e = &p->k->e;
  md_loop i =
      md_loop_begin(e, md_i64(e, 0), md_i64(e, s->padded_rows * s->columns), p->lanes, "clear");
  md_store(e, p->dtype, s->c, i.i, md_const(e, p->type, p->lanes, 0), NULL);
  md_loop_end(e, &i);
}

static void emit_packed(md_kernel *k) {
  md_emit *e = &k->e;
  md_finish_kept(k);
  Packed s = packed_of(k);
  md_product *p = &s.p;
  md_product_split(p, s.tiles_m * s.tiles_n, DEPTH);
  int size = md_dtype_size(p->dtype);
  int64_t x_bytes = md_round_up(x_line(&s) * (p->tx ? DEPTH : s.padded_rows) * size, 64);
  int64_t y_bytes = md_round_up(s.columns * DEPTH * size, 64);
  int64_t c_bytes = md_round_up(s.padded_rows * s.columns * size, 64);
  md_phase_begin(k, "product", s.tiles_m * s.tiles_n * p->splits, x_bytes + y_bytes + c_bytes);
  s.x = k->scratch;
  s.y = md_at(e, MD_U8, k->scratch, md_i64(e, x_bytes));
  s.c = md_at(e, MD_U8, k->scratch, md_i64(e, x_bytes + y_bytes));
  const int64_t count[] = {p->splits, s.tiles_n, s.tiles_m};
  md_ir index[3];
  md_split_index(e, k->item, 3, count, index);
  s.i0 = md_imulc(e, index[2], s.rows);
  s.j0 = md_imulc(e, index[1], s.columns);
  s.num_rows = md_imin(e, md_i64(e, s.rows), md_isub(e, md_i64(e, p->m), s.i0));
  md_ir columns = md_imin(e, md_i64(e, s.columns), md_isub(e, md_i64(e, p->padded_n), s.j0));
  s.num_vectors = md_idivc(e, columns, p->lanes);
  clear(&s);
  md_ir begin = md_imulc(e, index[0], p->split_depth);
  md_ir end = md_imin(e, md_iaddc(e, begin, p->split_depth), md_i64(e, p->depth));
  md_loop block = md_loop_begin(e, begin, end, DEPTH, "depth");
  s.k0 = block.i;
  s.num_k = md_imin(e, md_i64(e, DEPTH), md_isub(e, end, s.k0));
  pack_x(&s);
  pack_y(&s);
  // An odd last vector takes its neighbour along: the tile has room for it.
  md_loop v = md_loop_begin(e, md_i64(e, 0), s.num_vectors, 2, "vectors");
  md_loop i = md_loop_begin(e, md_i64(e, 0), s.num_rows, s.height, "rows");
  register_tile(&s, i.i, v.i);
  md_loop_end(e, &i);
  md_loop_end(e, &v);
  md_loop_end(e, &block);
  md_product_finish(p, s.c, s.columns, s.i0, s.num_rows, s.j0, s.num_vectors, index[0]);
  md_phase_end(k);
  md_product_merge(p);
}

// --- rows of the table

static const char *refuse_any(const md_region_view *r, const md_cpu *cpu) {
  if (!r->anchor || r->anchor->op != MD_OP_matmul) return "";
  return md_finish_refuse(r, cpu, false);
}

static const char *refuse_few(const md_region_view *r, const md_cpu *cpu) {
  const char *why = refuse_any(r, cpu);
  if (why) return why;
  int64_t m = md_type_in(r->g, r->anchor->out)->shape.dim[0];
  return m > MD_FEW_ROWS ? "the product has many rows" : NULL;
}

const md_lowering md_matmul_rows[] = {
    {"matmul few rows", refuse_few, md_emit_product_rows},
    {"matmul packed", refuse_any, emit_packed},
    {0},
};
