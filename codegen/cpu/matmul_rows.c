// SPDX-License-Identifier: Apache-2.0
// Few rows (a small batch against a weight matrix): time is that of reading Y once, so Y is read where
// it lies and all rows of X meet each element while it is in cache.
//
//   Y^T in memory [n][k]   dot products: lanes along k, a register tile of rows x columns, lanes
//                          added up at the end
//   Y in memory   [k][n]   lanes along n; an item owns a run of columns and goes down them in blocks of
//                          the depth, c staying in its scratch
#include "codegen/cpu/matmul.h"

enum { DEPTH = 16, MAX_ITEMS = 64, GROUP = 4 };

typedef struct Few {
  md_product p;
  int64_t packed;  // workspace: X as [row][padded depth], zeros behind the depth
  int64_t padded;
  md_ir x;       // its address in the current phase
  md_ir k0, k1;  // the depth of this item's split
} Few;

// Phase 0: X row by row, so that the kernels need not know how it lies.
static void pack_x(Few *s) {
  md_product *p = &s->p;
  md_kernel *k = p->k;
  md_emit *e = &k->e;
  // Rows a power of two apart would fall on the same lines of the cache.
  s->padded = md_round_up(p->depth, p->lanes) + p->lanes;
  s->packed = md_workspace_reserve(k, p->m * s->padded * md_dtype_size(p->dtype));
  int64_t runs = md_ceil_div(p->depth, p->lanes), each;
  int64_t items = md_split_items(runs, 8, &each);
  md_phase_begin(k, "pack_x", items, 0);
  md_ir to = md_workspace(k, s->packed), first = md_imulc(e, k->item, each);
  md_ir last = md_imin(e, md_iaddc(e, first, each), md_i64(e, runs));
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, p->m), 1, "row");
  md_loop run = md_loop_begin(e, first, last, 1, "run");
  md_ir kk = md_imulc(e, run.i, p->lanes), mask = md_lanes_left(p, kk, p->depth);
  md_ir x = md_product_x(p, i.i, kk, MD_ALONG_DEPTH, mask);
  if (mask) x = md_select(e, mask, x, md_const(e, p->type, p->lanes, 0));
  md_store(e, p->dtype, to, md_iadd(e, md_imulc(e, i.i, s->padded), kk), x, NULL);
  md_loop_end(e, &run);
  md_loop_end(e, &i);
  md_phase_end(k);
}

static void set_split(Few *s, md_ir split) {
  md_emit *e = &s->p.k->e;
  s->k0 = md_imulc(e, split, s->p.split_depth);
  s->k1 = md_imin(e, md_iaddc(e, s->k0, s->p.split_depth), md_i64(e, s->p.depth));
}

// --- dot products

// c[row .. +rows][column .. +columns] = the products of their lines; c: [m][lanes], `column` within it.
static void dot_tile(const Few *s, md_ir c, md_ir row, int64_t rows, md_ir j0, int64_t column,
                     int64_t columns) {
  const md_product *p = &s->p;
  md_emit *e = &p->k->e;
  md_var acc[64];
  md_ir j[GROUP];
  for (int64_t i = 0; i < rows * columns; i++) {
    acc[i] = md_var_new(e, md_lanes_type(p->type, p->lanes), NULL, "acc");
    md_set(e, acc[i], md_const(e, p->type, p->lanes, 0));
  }
  for (int64_t b = 0; b < columns; b++) {
    j[b] = md_iaddc(e, j0, column + b);
    if (p->n % p->lanes) j[b] = md_imin(e, j[b], md_i64(e, p->n - 1));
  }
  // A last vector that is cut off needs a mask: whole ones run without.
  bool cut = p->depth % p->lanes != 0;
  for (int part = 0; part < (cut ? 2 : 1); part++) {
    md_ir whole = md_imin(e, s->k1, md_i64(e, p->depth / p->lanes * p->lanes));
    md_loop kk = part == 0 ? md_loop_begin(e, s->k0, whole, p->lanes, "k")
                           : md_loop_begin(e, whole, s->k1, p->lanes, "rest");
    md_ir mask = part == 0 ? NULL : md_first_lanes(e, md_i64(e, p->depth % p->lanes), p->lanes);
    md_ir y[GROUP];
    for (int64_t b = 0; b < columns; b++) {
      y[b] = md_product_y(p, kk.i, j[b], MD_ALONG_DEPTH, mask);
      if (mask) y[b] = md_select(e, mask, y[b], md_const(e, p->type, p->lanes, 0));
    }
    for (int64_t a = 0; a < rows; a++) {
      md_ir off = md_iadd(e, md_imulc(e, md_iaddc(e, row, a), s->padded), kk.i);
      md_ir x = md_load(e, p->dtype, s->x, off, p->lanes, NULL);
      for (int64_t b = 0; b < columns; b++) {
        md_var v = acc[a * columns + b];
        md_set(e, v, md_fma(e, x, y[b], md_get(e, v)));
      }
    }
    md_loop_end(e, &kk);
  }
  for (int64_t i = 0; i < rows * columns; i++) {
    md_ir at = md_imulc(e, md_iaddc(e, row, i / columns), p->lanes);
    md_store(e, p->dtype, c, md_iaddc(e, at, column + i % columns), md_hsum(e, md_get(e, acc[i])),
             NULL);
  }
}

static void emit_dots(Few *s) {
  md_product *p = &s->p;
  md_kernel *k = p->k;
  md_emit *e = &k->e;
  int64_t blocks = md_ceil_div(p->n, p->lanes), each;
  int64_t columns = p->registers >= 16 ? GROUP : 2;
  int64_t height = MD_MIN(p->m, p->registers >= 32 ? 6 : 2);
  int64_t items = md_split_items(blocks, MAX_ITEMS, &each);
  md_product_split(p, items, p->lanes);
  md_phase_begin(k, "dots", items * p->splits, p->m * p->lanes * md_dtype_size(p->dtype));
  s->x = md_workspace(k, s->packed);
  const int64_t count[] = {p->splits, items};
  md_ir index[2];
  md_split_index(e, k->item, 2, count, index);
  set_split(s, index[0]);
  md_ir first = md_imulc(e, index[1], each);
  md_ir last = md_imin(e, md_iaddc(e, first, each), md_i64(e, blocks));
  md_loop block = md_loop_begin(e, first, last, 1, "block");
  md_ir j0 = md_imulc(e, block.i, p->lanes);
  md_loop group = md_loop_begin(e, md_i64(e, 0), md_i64(e, p->lanes / columns), 1, "group");
  md_ir within = md_imulc(e, group.i, columns), at = md_iadd(e, j0, within);
  md_ir c = md_at(e, p->dtype, k->scratch, within);
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, p->m / height), 1, "rows");
  dot_tile(s, c, md_imulc(e, i.i, height), height, at, 0, columns);
  md_loop_end(e, &i);
  int64_t rest = p->m % height;
  if (rest) dot_tile(s, c, md_i64(e, p->m - rest), rest, at, 0, columns);
  md_loop_end(e, &group);
  md_product_finish(p, k->scratch, p->lanes, md_i64(e, 0), md_i64(e, p->m), j0, md_i64(e, 1),
                    index[0]);
  md_loop_end(e, &block);
  md_phase_end(k);
}

// --- sums of lines

// c[row .. +rows][vector .. +vectors] += X[.., k0 .. k1) Y[k0 .. k1, ..]; c: [m][ld]; the last vector
// may be cut off (mask).
static void line_tile(const Few *s, md_ir c, int64_t ld, md_ir row, int64_t rows, md_ir j,
                      md_ir within, int64_t vectors, md_ir mask, md_ir k0, md_ir k1) {
  const md_product *p = &s->p;
  md_emit *e = &p->k->e;
  md_var acc[64];
  md_ir at[64];
  for (int64_t i = 0; i < rows * vectors; i++) {
    at[i] = md_iadd(e, md_imulc(e, md_iaddc(e, row, i / vectors), ld),
                    md_iaddc(e, within, i % vectors * p->lanes));
    acc[i] = md_var_new(e, md_lanes_type(p->type, p->lanes), NULL, "acc");
    md_set(e, acc[i], md_load(e, p->dtype, c, at[i], p->lanes, NULL));
  }
  md_loop kk = md_loop_begin(e, k0, k1, 1, "k");
  md_ir y[GROUP];
  for (int64_t v = 0; v < vectors; v++) {
    md_ir column = md_iaddc(e, j, v * p->lanes);
    y[v] = md_product_y(p, kk.i, column, MD_ALONG_SIDE, v == vectors - 1 ? mask : NULL);
  }
  for (int64_t a = 0; a < rows; a++) {
    md_ir off = md_iadd(e, md_imulc(e, md_iaddc(e, row, a), s->padded), kk.i);
    md_ir x = md_splat(e, md_load(e, p->dtype, s->x, off, 1, NULL), p->lanes);
    for (int64_t v = 0; v < vectors; v++) {
      md_var w = acc[a * vectors + v];
      md_set(e, w, md_fma(e, x, y[v], md_get(e, w)));
    }
  }
  md_loop_end(e, &kk);
  for (int64_t i = 0; i < rows * vectors; i++)
    md_store(e, p->dtype, c, at[i], md_get(e, acc[i]), NULL);
}

// All rows against `vectors` vectors of columns.
static void line_rows(const Few *s, md_ir c, int64_t ld, md_ir j, md_ir within, int64_t vectors,
                      md_ir mask, md_ir k0, md_ir k1) {
  const md_product *p = &s->p;
  md_emit *e = &p->k->e;
  int64_t height = MD_MIN(p->m, p->registers >= 32 ? 6 : 2), rest = p->m % height;
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, p->m / height), 1, "rows");
  line_tile(s, c, ld, md_imulc(e, i.i, height), height, j, within, vectors, mask, k0, k1);
  md_loop_end(e, &i);
  if (rest) line_tile(s, c, ld, md_i64(e, p->m - rest), rest, j, within, vectors, mask, k0, k1);
}

static void emit_lines(Few *s) {
  md_product *p = &s->p;
  md_kernel *k = p->k;
  md_emit *e = &k->e;
  int64_t vectors = p->padded_n / p->lanes, width = MD_MIN(GROUP, vectors), each;
  int64_t groups = md_ceil_div(vectors, width),
          items = md_split_items(groups, MAX_ITEMS / 4, &each);
  int64_t ld = each * width * p->lanes, rest = vectors % width;
  md_product_split(p, items, DEPTH);
  md_phase_begin(k, "lines", items * p->splits, p->m * ld * md_dtype_size(p->dtype));
  s->x = md_workspace(k, s->packed);
  const int64_t count[] = {p->splits, items};
  md_ir index[2];
  md_split_index(e, k->item, 2, count, index);
  set_split(s, index[0]);
  md_loop clear = md_loop_begin(e, md_i64(e, 0), md_i64(e, p->m * ld), p->lanes, "clear");
  md_store(e, p->dtype, k->scratch, clear.i, md_const(e, p->type, p->lanes, 0), NULL);
  md_loop_end(e, &clear);
  md_ir first = md_imulc(e, index[1], each);
  md_ir last = md_imin(e, md_iaddc(e, first, each), md_i64(e, groups));
  // The last group is emitted apart when it is narrower or cut off.
  bool odd = rest || p->n % p->lanes;
  md_ir whole = odd ? md_imin(e, last, md_i64(e, groups - 1)) : last;
  md_loop block = md_loop_begin(e, s->k0, s->k1, DEPTH, "depth");
  md_ir k1 = md_imin(e, md_iaddc(e, block.i, DEPTH), s->k1);
  md_loop g = md_loop_begin(e, first, whole, 1, "group");
  md_ir j = md_imulc(e, g.i, width * p->lanes);
  md_ir within = md_imulc(e, md_isub(e, g.i, first), width * p->lanes);
  line_rows(s, k->scratch, ld, j, within, width, NULL, block.i, k1);
  md_loop_end(e, &g);
  if (odd) {
    md_if f = md_if_begin(e, md_ieq(e, last, md_i64(e, groups)), "last");
    md_ir at = md_i64(e, groups - 1), mask = NULL;
    if (p->n % p->lanes) mask = md_first_lanes(e, md_i64(e, p->n % p->lanes), p->lanes);
    within = md_imulc(e, md_isub(e, at, first), width * p->lanes);
    line_rows(s, k->scratch, ld, md_imulc(e, at, width * p->lanes), within, rest ? rest : width,
              mask, block.i, k1);
    md_if_end(e, &f);
  }
  md_loop_end(e, &block);
  md_ir v0 = md_imulc(e, first, width),
        v1 = md_imin(e, md_imulc(e, last, width), md_i64(e, vectors));
  md_product_finish(p, k->scratch, ld, md_i64(e, 0), md_i64(e, p->m), md_imulc(e, v0, p->lanes),
                    md_isub(e, v1, v0), index[0]);
  md_phase_end(k);
}

void md_emit_product_rows(md_kernel *k) {
  md_finish_kept(k);
  Few s = {.p = md_product_of(k)};
  pack_x(&s);
  if (s.p.ty) emit_dots(&s);
  else emit_lines(&s);
  md_product_merge(&s.p);
}
