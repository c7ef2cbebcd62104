// SPDX-License-Identifier: Apache-2.0
// InfoNCE over a bank in one streaming pass. An item is a run of bank rows, taken in tiles of TILE rows,
// which both products read from the caches:
//   logits   of the tile against all queries, to scratch: the only logits that ever exist. Lanes are
//            queries
//   join     into the item's maximum and sum, shrinking the sum when the maximum grows; where the mean is
//            wanted, logits become weights e^(logit - maximum)
//   mean     the item's sum of weight times bank row, shrunk alike. Lanes are columns
// Last phases merge the items' parts in order.
#include "codegen/cpu/parts.h"

#include <math.h>

enum { TILE = 64, MAX_ITEMS = 64, MIN_ITEMS = 4, PART_BYTES = 1 << 20, EMPTY_ROW = -2 };
enum { MAX_WIDTH = 2 };      // vectors of queries at a time
enum { TOP = 1, MEAN = 2 };  // results behind lse

typedef struct Nce {
  md_kernel *k;
  md_val q, ids, bank, bank_ids, lse;
  md_dtype dtype;  // of scratch and workspace
  LLVMTypeRef type;
  int lanes;  // queries of a vector
  int64_t queries, dim, rows, vectors, padded_dim;
  int64_t items, tiles_each;
  double tau;
  bool mean;        // is wanted
  bool direct;      // the bank is read where it lies
  int64_t packed;   // workspace: q as [vector][dim][lane]
  int64_t z_bytes;  // scratch: logits [row][vector][lane]
  int64_t
      shrink_bytes;  // then by what the mean shrinks [vector][lane], then the tile where it is packed
} Nce;

// One tile in the making: bank row n of the tile lies at base + offset + n * stride.
typedef struct Tile {
  md_ir first;
  int64_t rows;
  md_ir base, offset;
  int64_t stride;
  md_ir z, shrink;
} Tile;

static Nce nce_of(md_kernel *k) {
  const md_graph *g = k->r->g;
  const md_node *n = k->r->anchor;
  Nce s = {.k = k,
           .q = n->in[0],
           .ids = n->in[1],
           .bank = n->in[2],
           .bank_ids = n->in[3],
           .lse = n->out,
           .tau = n->attr.f.value};
  const md_type *q = md_type_in(g, s.q), *bank = md_type_in(g, s.bank);
  s.dtype = md_wide_dtype(q->dtype);
  s.type = md_compute_type(&k->e, s.dtype);
  s.queries = q->shape.dim[0];
  s.dim = q->shape.dim[1];
  s.rows = bank->shape.dim[0];
  s.lanes = k->e.cpu->lanes;
  while (s.lanes > 4 && s.lanes / 2 >= s.queries) s.lanes /= 2;
  s.vectors = md_ceil_div(s.queries, s.lanes);
  s.padded_dim = md_round_up(s.dim, k->e.cpu->lanes);
  s.mean = md_is_output(k->r, s.lse + MEAN);
  s.direct = md_is_input(k->r, s.bank) && !bank->block && bank->dtype == s.dtype;
  int size = md_dtype_size(s.dtype);
  s.z_bytes = md_round_up(TILE * s.vectors * s.lanes * size, 64);
  s.shrink_bytes = s.mean ? md_round_up(s.vectors * s.lanes * size, 64) : 0;
  // Powers of two: two, four or eight threads end together.
  int64_t part_bytes = s.vectors * s.lanes * 12 + (s.mean ? s.queries * s.padded_dim * size : 0);
  int64_t most = MAX_ITEMS;
  while (most > MIN_ITEMS && most * part_bytes > PART_BYTES) most /= 2;
  s.items = md_split_items(md_ceil_div(s.rows, TILE), most, &s.tiles_each);
  return s;
}

static int64_t scratch_bytes(const Nce *s) {
  int64_t tile = s->direct ? 0 : TILE * s->padded_dim * md_dtype_size(s->dtype);
  return s->z_bytes + s->shrink_bytes + tile;
}

static md_ir value_1(const Nce *s, md_val v, md_ir at, int lanes, md_ir mask) {
  md_body b;
  md_body_init(&b, s->k);
  md_point p = md_point_of(1, &at, 0, lanes, mask);
  return md_body_value(&b, v, &p);
}

static md_ir query_mask(const Nce *s, md_ir vector) {
  md_emit *e = &s->k->e;
  if (s->queries % s->lanes == 0) return NULL;
  md_ir left = md_isub(e, md_i64(e, s->queries), md_imulc(e, vector, s->lanes));
  return md_first_lanes(e, left, s->lanes);
}

// Phase 0: one item for each query; what fills the last vector is zero.
static void pack_queries(Nce *s) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  s->packed = md_workspace_reserve(k, s->vectors * s->lanes * s->dim * md_dtype_size(s->dtype));
  md_phase_begin(k, "pack_queries", s->vectors * s->lanes, 0);
  md_ir to = md_workspace(k, s->packed);
  md_ir vector = md_idivc(e, k->item, s->lanes), lane = md_imodc(e, k->item, s->lanes);
  md_ir exists = md_ilt(e, k->item, md_i64(e, s->queries));
  md_loop d = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->dim), 1, "d");
  md_ir at[2] = {md_imin(e, k->item, md_i64(e, s->queries - 1)), d.i};
  md_body b;
  md_body_init(&b, k);
  md_point p = md_point_of(2, at, -1, 1, NULL);
  md_ir x = md_body_value(&b, s->q, &p);
  x = md_select(e, exists, x, md_const_like(e, x, 0));
  md_ir off = md_iadd(e, md_imulc(e, vector, s->dim), d.i);
  md_store(e, s->dtype, to, md_iadd(e, md_imulc(e, off, s->lanes), lane), x, NULL);
  md_loop_end(e, &d);
  md_phase_end(k);
}

static void pack_tile(const Nce *s, Tile *t) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  int lanes = e->cpu->lanes;
  t->base = md_at(e, MD_U8, k->scratch, md_i64(e, s->z_bytes + s->shrink_bytes));
  t->offset = md_i64(e, 0);
  t->stride = s->padded_dim;
  md_loop r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows), 1, "row");
  md_loop d = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->dim), lanes, "d");
  md_ir mask = NULL;
  if (s->dim % lanes) mask = md_first_lanes(e, md_isub(e, md_i64(e, s->dim), d.i), lanes);
  md_ir at[2] = {md_iadd(e, t->first, r.i), d.i};
  md_body b;
  md_body_init(&b, k);
  md_point p = md_point_of(2, at, 1, lanes, mask);
  md_ir x = md_body_value(&b, s->bank, &p);
  md_store(e, s->dtype, t->base, md_iadd(e, md_imulc(e, r.i, t->stride), d.i), x, NULL);
  md_loop_end(e, &d);
  md_loop_end(e, &r);
}

static Tile tile_of(const Nce *s, md_ir first, int64_t rows) {
  md_emit *e = &s->k->e;
  Tile t = {.first = first, .rows = rows, .z = s->k->scratch};
  t.shrink = md_at(e, MD_U8, t.z, md_i64(e, s->z_bytes));
  if (s->direct) {
    t.base = md_kernel_arg(s->k, s->bank);
    t.offset = md_imulc(e, first, s->dim);
    t.stride = s->dim;
  } else {
    pack_tile(s, &t);
  }
  return t;
}

static md_ir z_offset(const Nce *s, md_ir row, md_ir vector) {
  md_emit *e = &s->k->e;
  return md_imulc(e, md_iadd(e, md_imulc(e, row, s->vectors), vector), s->lanes);
}

// -inf for the query's own video and for empty rows.
static md_ir keep_others(const Nce *s, md_ir z, md_ir row, md_ir vector) {
  md_emit *e = &s->k->e;
  md_ir ids = value_1(s, s->ids, md_imulc(e, vector, s->lanes), s->lanes, query_mask(s, vector));
  md_ir own = value_1(s, s->bank_ids, row, 1, NULL);
  if (md_scalar_type(ids) != md_scalar_type(own)) {
    ids = md_convert(e, ids, e->i64);
    own = md_convert(e, own, e->i64);
  }
  md_ir empty = md_splat(e, md_ieq(e, own, md_const_like(e, own, EMPTY_ROW)), s->lanes);
  md_ir out = LLVMBuildOr(e->b, md_ieq(e, ids, md_splat(e, own, s->lanes)), empty, "left_out");
  return md_select(e, out, md_const_like(e, z, -INFINITY), z);
}

// The next tile comes from memory while this one is multiplied. Step d of a block of rows fetches a bit
// of the rows that lie a tile further; all queries against the block fetch them whole.
static void fetch_ahead(const Nce *s, const Tile *t, md_ir bank, int64_t rows, md_ir vector,
                        int vectors, md_ir d) {
  md_emit *e = &s->k->e;
  int64_t groups = s->vectors / vectors;
  bool is_last_vector = vectors < MD_MIN(s->vectors, MAX_WIDTH);
  if (!s->direct || t->rows < TILE || is_last_vector || groups > rows) return;
  md_ir step = md_iadd(e, md_imulc(e, md_idivc(e, vector, vectors), s->dim), d);
  md_ir at = md_iadd(e, bank, md_imulc(e, step, md_ceil_div(rows, groups)));
  md_prefetch(e, s->dtype, t->base, md_iaddc(e, at, TILE * t->stride));
}

// Logits of `rows` bank rows from `row` against `vectors` query vectors: the register tile.
static void logits_block(const Nce *s, const Tile *t, md_ir row, int64_t rows, md_ir vector,
                         int vectors) {
  md_emit *e = &s->k->e;
  md_ir packed = md_workspace(s->k, s->packed);
  md_var acc[64] = {{0}};
  for (int64_t i = 0; i < rows * vectors; i++) {
    acc[i] = md_var_new(e, md_lanes_type(s->type, s->lanes), NULL, "acc");
    md_set(e, acc[i], md_const(e, s->type, s->lanes, 0));
  }
  md_ir bank = md_iadd(e, t->offset, md_imulc(e, row, t->stride));
  md_ir from = md_imulc(e, vector, s->dim * s->lanes);
  md_loop d = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->dim), 1, "d");
  fetch_ahead(s, t, bank, rows, vector, vectors, d.i);
  md_ir q[MAX_WIDTH], at = md_iadd(e, from, md_imulc(e, d.i, s->lanes));
  for (int v = 0; v < vectors; v++)
    q[v] = md_load(e, s->dtype, packed, md_iaddc(e, at, v * s->dim * s->lanes), s->lanes, NULL);
  for (int64_t r = 0; r < rows; r++) {
    md_ir x =
        md_load(e, s->dtype, t->base, md_iaddc(e, md_iadd(e, bank, d.i), r * t->stride), 1, NULL);
    x = md_splat(e, x, s->lanes);
    for (int v = 0; v < vectors; v++) {
      md_var a = acc[r * vectors + v];
      md_set(e, a, md_fma(e, x, q[v], md_get(e, a)));
    }
  }
  md_loop_end(e, &d);
  md_ir scale = md_const(e, s->type, s->lanes, 1 / s->tau);
  for (int64_t r = 0; r < rows; r++) {
    for (int v = 0; v < vectors; v++) {
      md_ir at_row = md_iaddc(e, row, r), at_vector = md_iaddc(e, vector, v);
      md_ir z = md_fmul(e, md_get(e, acc[r * vectors + v]), scale);
      z = keep_others(s, z, md_iadd(e, t->first, at_row), at_vector);
      md_store(e, s->dtype, t->z, z_offset(s, at_row, at_vector), z, NULL);
    }
  }
}

static void logits(const Nce *s, const Tile *t) {
  md_emit *e = &s->k->e;
  int words = s->dtype == MD_F64 ? 2 : 1;  // registers of a vector, at most
  for (int part = 0; part < 2; part++) {
    // pairs of vectors, then the last one alone
    int width = part == 0 ? MAX_WIDTH : 1;
    int64_t count = part == 0 ? s->vectors / MAX_WIDTH : s->vectors % MAX_WIDTH,
            height = e->cpu->registers / (2 * width * words);
    if (!count) continue;
    md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, count), 1, "vector");
    md_ir vector = part == 0 ? md_imulc(e, v.i, MAX_WIDTH) : md_i64(e, s->vectors - 1);
    if (t->rows / height) {
      md_loop r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows / height), 1, "rows");
      logits_block(s, t, md_imulc(e, r.i, height), height, vector, width);
      md_loop_end(e, &r);
    }
    if (t->rows % height)
      logits_block(s, t, md_i64(e, t->rows / height * height), t->rows % height, vector, width);
    md_loop_end(e, &v);
  }
}

// -inf - -inf has no value: where the maximum is -inf, every exponential is to be 0.
static md_ir finite_top(md_emit *e, md_ir top) {
  md_ir none = LLVMBuildFCmp(e->b, LLVMRealOEQ, top, md_const_like(e, top, -INFINITY), "");
  return md_select(e, none, md_const_like(e, top, 0), top);
}

// --- maximum, sum and weights

// What an item makes of its rows.
typedef struct Part {
  md_ir top, sum;  // [vector][lane]
  md_ir mean;      // [query][padded_dim]; NULL: not wanted
} Part;

// Rows of the tile by `STRANDS`: a chain of maxima or sums waits for itself.
enum { STRANDS = 4 };

typedef struct Strands {
  md_var of[STRANDS];
  int num;
} Strands;

static Strands strands_of(const Nce *s, const Tile *t, md_ir start) {
  Strands x = {.num = t->rows % STRANDS ? 1 : STRANDS};
  for (int i = 0; i < x.num; i++)
    x.of[i] = md_var_new(&s->k->e, LLVMTypeOf(start), start, "strand");
  return x;
}

static md_ir joined(md_emit *e, const Strands *x, md_ir join(md_emit *e, md_ir a, md_ir b)) {
  md_ir all = md_get(e, x->of[0]);
  for (int i = 1; i < x->num; i++) all = join(e, all, md_get(e, x->of[i]));
  return all;
}

static md_ir top_of(const Nce *s, const Tile *t, md_ir vector, md_ir old) {
  md_emit *e = &s->k->e;
  Strands top = strands_of(s, t, old);
  md_loop r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows), top.num, "row");
  for (int i = 0; i < top.num; i++) {
    md_ir off = z_offset(s, md_iaddc(e, r.i, i), vector);
    md_ir z = md_load(e, s->dtype, t->z, off, s->lanes, NULL);
    md_set(e, top.of[i], md_fmax(e, md_get(e, top.of[i]), z));
  }
  md_loop_end(e, &r);
  return joined(e, &top, md_fmax);
}

// The tile's sum of e^(z - top), which become the weights.
static md_ir sum_of(const Nce *s, const Tile *t, md_ir vector, md_ir top) {
  md_emit *e = &s->k->e;
  Strands sum = strands_of(s, t, md_const_like(e, top, 0));
  md_loop r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows), sum.num, "row");
  for (int i = 0; i < sum.num; i++) {
    md_ir off = z_offset(s, md_iaddc(e, r.i, i), vector);
    md_ir z = md_load(e, s->dtype, t->z, off, s->lanes, NULL);
    md_ir weight = md_exp_of(e, md_fsub(e, z, top));
    if (s->mean) md_store(e, s->dtype, t->z, off, weight, NULL);
    md_set(e, sum.of[i], md_fadd(e, md_get(e, sum.of[i]), weight));
  }
  md_loop_end(e, &r);
  return joined(e, &sum, md_fadd);
}

static void join_tile(const Nce *s, const Tile *t, const Part *part) {
  md_emit *e = &s->k->e;
  md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->vectors), 1, "vector");
  md_ir at = md_imulc(e, v.i, s->lanes), old = md_load(e, s->dtype, part->top, at, s->lanes, NULL);
  md_ir top = top_of(s, t, v.i, old), now = finite_top(e, top);
  md_ir sum = sum_of(s, t, v.i, now), shrink = md_exp_of(e, md_fsub(e, old, now));
  md_ir before = md_load(e, MD_F64, part->sum, at, s->lanes, NULL);
  md_ir all = md_fma(e, before, md_convert(e, shrink, e->f64), md_convert(e, sum, e->f64));
  md_store(e, MD_F64, part->sum, at, all, NULL);
  md_store(e, s->dtype, part->top, at, top, NULL);
  if (s->mean) md_store(e, s->dtype, t->shrink, at, shrink, NULL);
  md_loop_end(e, &v);
}

// --- mean

// mean[query .. +queries][d .. +vectors] over the rows of the tile: the register tile.
static void mean_block(const Nce *s, const Tile *t, md_ir mean, md_ir query, int64_t queries,
                       md_ir d, int64_t vectors) {
  md_emit *e = &s->k->e;
  int lanes = e->cpu->lanes;
  md_var acc[64] = {{0}};
  md_ir at[64] = {NULL};
  for (int64_t i = 0; i < queries * vectors; i++) {
    md_ir q = md_iaddc(e, query, i / vectors);
    at[i] = md_iadd(e, md_imulc(e, q, s->padded_dim), md_iaddc(e, d, i % vectors * lanes));
    md_ir shrink = md_splat(e, md_load(e, s->dtype, t->shrink, q, 1, NULL), lanes);
    md_ir old = md_load(e, s->dtype, mean, at[i], lanes, NULL);
    acc[i] = md_var_new(e, LLVMTypeOf(old), md_fmul(e, old, shrink), "acc");
  }
  md_loop r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows), 1, "row");
  md_ir x[8], from = md_iadd(e, md_iadd(e, t->offset, md_imulc(e, r.i, t->stride)), d);
  for (int64_t v = 0; v < vectors; v++) {
    md_ir mask = NULL;
    if (s->direct && s->dim % lanes)
      mask = md_first_lanes(e, md_isub(e, md_i64(e, s->dim), md_iaddc(e, d, v * lanes)), lanes);
    x[v] = md_load(e, s->dtype, t->base, md_iaddc(e, from, v * lanes), lanes, mask);
  }
  md_ir z = z_offset(s, r.i, md_i64(e, 0));
  for (int64_t i = 0; i < queries; i++) {
    md_ir w = md_load(e, s->dtype, t->z, md_iadd(e, z, md_iaddc(e, query, i)), 1, NULL);
    w = md_splat(e, w, lanes);
    for (int64_t v = 0; v < vectors; v++) {
      md_var a = acc[i * vectors + v];
      md_set(e, a, md_fma(e, w, x[v], md_get(e, a)));
    }
  }
  md_loop_end(e, &r);
  for (int64_t i = 0; i < queries * vectors; i++)
    md_store(e, s->dtype, mean, at[i], md_get(e, acc[i]), NULL);
}

// All queries against `vectors` vectors of columns from d, in blocks as equal as can be.
static void mean_columns(const Nce *s, const Tile *t, md_ir mean, md_ir d, int64_t vectors,
                         int64_t most) {
  md_emit *e = &s->k->e;
  int64_t height = md_ceil_div(s->queries, md_ceil_div(s->queries, most));
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->queries / height), 1, "queries");
  mean_block(s, t, mean, md_imulc(e, i.i, height), height, d, vectors);
  md_loop_end(e, &i);
  int64_t rest = s->queries % height;
  if (rest) mean_block(s, t, mean, md_i64(e, s->queries - rest), rest, d, vectors);
}

static void add_mean(const Nce *s, const Tile *t, md_ir mean) {
  md_emit *e = &s->k->e;
  int lanes = e->cpu->lanes, room = e->cpu->registers / (s->dtype == MD_F64 ? 2 : 1);
  int64_t width = room >= 32 ? 4 : 2, height = room >= 32 ? 6 : 4;
  int64_t vectors = s->padded_dim / lanes, rest = vectors % width;
  if (vectors / width) {
    md_loop d = md_loop_begin(e, md_i64(e, 0), md_i64(e, vectors / width), 1, "columns");
    mean_columns(s, t, mean, md_imulc(e, d.i, width * lanes), width, height);
    md_loop_end(e, &d);
  }
  if (rest) mean_columns(s, t, mean, md_i64(e, (vectors - rest) * lanes), rest, height);
}

// --- an item

static void work_on(const Nce *s, const Tile *t, const Part *part) {
  logits(s, t);
  join_tile(s, t, part);
  if (s->mean) add_mean(s, t, part->mean);
}

// The last tile of the bank may be short.
static void each_tile(const Nce *s, const Part *part) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  int64_t whole = s->rows / TILE, rest = s->rows % TILE;
  if (whole) {
    md_ir first = md_imulc(e, k->item, s->tiles_each);
    md_ir last = md_imin(e, md_iaddc(e, first, s->tiles_each), md_i64(e, whole));
    md_loop l = md_loop_begin(e, first, last, 1, "tile");
    Tile t = tile_of(s, md_imulc(e, l.i, TILE), TILE);
    work_on(s, &t, part);
    md_loop_end(e, &l);
  }
  if (rest) {
    md_if f = md_if_begin(e, md_ieq(e, k->item, md_i64(e, s->items - 1)), "rest");
    Tile t = tile_of(s, md_i64(e, whole * TILE), rest);
    work_on(s, &t, part);
    md_if_end(e, &f);
  }
}

static void fill(const Nce *s, md_dtype d, md_ir to, int64_t num, int lanes, double x) {
  md_emit *e = &s->k->e;
  md_ir value = md_const(e, md_compute_type(e, d), lanes, x);
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, num), lanes, "fill");
  md_store(e, d, to, i.i, value, NULL);
  md_loop_end(e, &i);
}

// --- the parts of all items: places in the workspace

typedef struct Places {
  const Nce *s;
  int64_t tops, sums;  // [item][vector][lane]
  int64_t shares;      // in place of sums, once merged: of an item in the whole
  int64_t means;       // [item][query][padded_dim]
} Places;

static Places reserve(const Nce *s) {
  int64_t num = s->items * s->vectors * s->lanes, size = md_dtype_size(s->dtype);
  Places p = {.s = s};
  p.tops = md_workspace_reserve(s->k, num * size);
  p.sums = p.shares = md_workspace_reserve(s->k, num * 8);
  if (s->mean) p.means = md_workspace_reserve(s->k, s->items * s->queries * s->padded_dim * size);
  return p;
}

static void stream(const Nce *s, const Places *p) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  int64_t each = s->vectors * s->lanes, elements = s->queries * s->padded_dim;
  md_phase_begin(k, "stream", s->items, scratch_bytes(s));
  md_ir mine = md_imulc(e, k->item, each);
  Part part = {.top = md_at(e, s->dtype, md_workspace(k, p->tops), mine),
               .sum = md_at(e, MD_F64, md_workspace(k, p->sums), mine)};
  fill(s, s->dtype, part.top, each, s->lanes, -INFINITY);
  fill(s, MD_F64, part.sum, each, s->lanes, 0);
  if (s->mean) {
    part.mean = md_at(e, s->dtype, md_workspace(k, p->means), md_imulc(e, k->item, elements));
    fill(s, s->dtype, part.mean, elements, e->cpu->lanes, 0);
  }
  each_tile(s, &part);
  md_phase_end(k);
}

// An item's part of a vector of queries.
static md_ir part_at(const Places *p, md_ir item, md_ir at) {
  md_emit *e = &p->s->k->e;
  return md_iadd(e, md_imulc(e, item, p->s->vectors * p->s->lanes), at);
}

static md_ir factor_at(const Places *p, md_ir off, md_ir top) {
  const Nce *s = p->s;
  md_emit *e = &s->k->e;
  md_ir x = md_load(e, s->dtype, md_workspace(s->k, p->tops), off, s->lanes, NULL);
  return md_exp_of(e, md_fsub(e, md_convert(e, x, e->f64), top));
}

// All that an item's mean counts in the whole: e^(its maximum - top) / sum, 0 where there is no row.
static void store_shares(const Places *p, md_ir at, md_ir top, md_ir sum) {
  const Nce *s = p->s;
  md_emit *e = &s->k->e;
  md_ir none = LLVMBuildFCmp(e->b, LLVMRealOEQ, top, md_const_like(e, top, -INFINITY), "none");
  md_ir now = finite_top(e, top);
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->items), 1, "part");
  md_ir off = part_at(p, i.i, at), share = md_fdiv(e, factor_at(p, off, now), sum);
  share = md_select(e, none, md_const_like(e, share, 0), share);
  md_store(e, MD_F64, md_workspace(s->k, p->shares), off, share, NULL);
  md_loop_end(e, &i);
}

// One item: maxima and sums of all parts in order.
static void merge_lse(const Places *p) {
  const Nce *s = p->s;
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  LLVMTypeRef wide = md_lanes_type(e->f64, s->lanes);
  md_phase_begin(k, "merge", 1, 0);
  md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->vectors), 1, "vector");
  md_ir at = md_imulc(e, v.i, s->lanes);
  md_var top = md_var_new(e, wide, md_const(e, e->f64, s->lanes, -INFINITY), "top");
  md_var sum = md_var_new(e, wide, md_const(e, e->f64, s->lanes, 0), "sum");
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->items), 1, "part");
  md_ir x = md_load(e, s->dtype, md_workspace(k, p->tops), part_at(p, i.i, at), s->lanes, NULL);
  md_set(e, top, md_fmax(e, md_get(e, top), md_convert(e, x, e->f64)));
  md_loop_end(e, &i);
  md_ir high = md_get(e, top), now = finite_top(e, high);
  i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->items), 1, "part");
  md_ir off = part_at(p, i.i, at);
  md_ir part = md_load(e, MD_F64, md_workspace(k, p->sums), off, s->lanes, NULL);
  md_set(e, sum, md_fma(e, part, factor_at(p, off, now), md_get(e, sum)));
  md_loop_end(e, &i);
  md_ir all = md_get(e, sum);
  if (s->mean) store_shares(p, at, high, all);
  // An infinite maximum is the result: inf - inf has spoilt the sum.
  md_ir size = md_intrinsic(e, "llvm.fabs", &high, 1, LLVMTypeOf(high));
  md_ir infinite = LLVMBuildFCmp(e->b, LLVMRealOEQ, size, md_const_like(e, size, INFINITY), "");
  md_ir result = md_select(e, infinite, high, md_fadd(e, high, md_log_of(e, all)));
  md_point point = md_point_of(1, &at, 0, s->lanes, query_mask(s, v.i));
  md_body b;
  md_body_init(&b, k);
  md_finish_set(&b, s->lse, md_convert(e, result, s->type));
  md_finish_set(&b, s->lse + TOP, md_convert(e, high, s->type));
  md_finish_store(&b, &point);
  md_loop_end(e, &v);
  md_phase_end(k);
}

static void merge_mean(void *ctx, const md_point *point) {
  const Places *p = ctx;
  const Nce *s = p->s;
  md_emit *e = &s->k->e;
  md_ir from = md_workspace(s->k, p->means), shares = md_workspace(s->k, p->shares);
  md_ir at = md_iadd(e, md_imulc(e, point->at[0], s->padded_dim), point->at[1]);
  LLVMTypeRef wide = md_lanes_type(e->f64, point->lanes);
  md_var sum = md_var_new(e, wide, md_const(e, e->f64, point->lanes, 0), "sum");
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->items), 1, "part");
  md_ir off = md_iadd(e, at, md_imulc(e, i.i, s->queries * s->padded_dim));
  md_ir x = md_convert(e, md_load(e, s->dtype, from, off, point->lanes, NULL), e->f64);
  md_ir share = md_load(e, MD_F64, shares, part_at(p, i.i, point->at[0]), 1, NULL);
  md_set(e, sum, md_fma(e, md_splat(e, share, point->lanes), x, md_get(e, sum)));
  md_loop_end(e, &i);
  md_body b;
  md_body_init(&b, s->k);
  md_finish_set(&b, s->lse + MEAN, md_convert(e, md_get(e, sum), s->type));
  md_finish_store(&b, point);
}

// --- the row of the table

static void emit(md_kernel *k) {
  md_finish_kept(k);
  Nce s = nce_of(k);
  pack_queries(&s);
  Places p = reserve(&s);
  stream(&s, &p);
  merge_lse(&p);
  if (!s.mean) return;
  md_walk w = md_walk_of(k, md_type_in(k->r->g, s.lse + MEAN));
  md_walk_phase(k, "mean", &w, merge_mean, &p);
}

static const char *refuse(const md_region_view *r, const md_cpu *cpu) {
  if (!r->anchor || r->anchor->op != MD_OP_nce_lse) return "";
  if (md_read_inside(r, r->anchor->out + MEAN)) return "the mean is read where it is made";
  return md_finish_refuse(r, cpu, false);
}

const md_lowering md_nce_rows[] = {{"InfoNCE stream", refuse, emit}, {0}};
