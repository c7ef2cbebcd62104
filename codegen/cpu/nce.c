// SPDX-License-Identifier: Apache-2.0
// InfoNCE over a bank in one streaming pass. Lanes are queries. An item is a run of bank rows, taken in
// tiles of TILE rows: logits of the tile against all queries go to scratch (TILE x queries, the only
// logits that ever exist), then
//   lse   joins them into the item's maximum and sum, shrinking the sum when the maximum grows
//   grad  turns them into weights and adds weights^T . tile to the item's dq
// A last phase merges the items' parts in order.
#include "codegen/cpu/parts.h"

#include <math.h>

enum { TILE = 32, MAX_ITEMS = 64, MIN_ITEMS = 4, PART_BYTES = 1 << 20, EMPTY_ROW = -2 };

typedef struct Nce {
  md_kernel *k;
  md_val q, ids, bank, bank_ids;
  md_dtype dtype;  // of scratch and workspace
  LLVMTypeRef type;
  int lanes;  // queries of a vector
  int64_t queries, dim, rows, vectors, padded_dim;
  int64_t items, tiles_each;
  double tau;
  int64_t packed;   // workspace: q as [vector][dim][lane]
  int64_t z_bytes;  // scratch: logits [row][vector][lane], then the tile where it is packed
  bool direct;      // the bank is read where it lies
} Nce;

// One tile in the making: bank row n of the tile lies at base + (row + n) * stride.
typedef struct Tile {
  md_ir first;
  int64_t rows;
  md_ir base, offset;
  int64_t stride;
  md_ir z;
} Tile;

static Nce nce_of(md_kernel *k, int first_in) {
  const md_graph *g = k->r->g;
  const md_node *n = k->r->anchor;
  Nce s = {.k = k,
           .q = n->in[first_in],
           .ids = n->in[first_in + 1],
           .bank = n->in[first_in + 2],
           .bank_ids = n->in[first_in + 3],
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
  s.direct = md_is_input(k->r, s.bank) && !bank->block && bank->dtype == s.dtype;
  return s;
}

static void cut(Nce *s, int64_t part_bytes) {
  int64_t most = MD_MIN(MD_MAX(PART_BYTES / part_bytes, MIN_ITEMS), MAX_ITEMS);
  s->items = md_split_items(md_ceil_div(s->rows, TILE), most, &s->tiles_each);
  int size = md_dtype_size(s->dtype);
  s->z_bytes = md_round_up(TILE * s->vectors * s->lanes * size, 64);
}

static int64_t scratch_bytes(const Nce *s) {
  return s->z_bytes + (s->direct ? 0 : TILE * s->padded_dim * md_dtype_size(s->dtype));
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
  t->base = md_at(e, MD_U8, k->scratch, md_i64(e, s->z_bytes));
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

// Logits of `rows` bank rows from `row` against `vectors` query vectors: the register tile.
static void logits_block(const Nce *s, const Tile *t, md_ir row, int64_t rows, md_ir vector,
                         int vectors) {
  md_emit *e = &s->k->e;
  md_ir packed = md_workspace(s->k, s->packed);
  md_var acc[64];
  for (int64_t i = 0; i < rows * vectors; i++) {
    acc[i] = md_var_new(e, md_lanes_type(s->type, s->lanes), NULL, "acc");
    md_set(e, acc[i], md_const(e, s->type, s->lanes, 0));
  }
  md_ir bank = md_iadd(e, t->offset, md_imulc(e, row, t->stride));
  md_ir from = md_imulc(e, vector, s->dim * s->lanes);
  md_loop d = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->dim), 1, "d");
  md_ir q[2], at = md_iadd(e, from, md_imulc(e, d.i, s->lanes));
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
    int width = part == 0 ? 2 : 1;
    int64_t count = part == 0 ? s->vectors / 2 : s->vectors % 2,
            height = e->cpu->registers / (2 * width * words);
    if (!count) continue;
    md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, count), 1, "vector");
    md_ir vector = part == 0 ? md_imulc(e, v.i, 2) : md_i64(e, s->vectors - 1);
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

// An item's tiles; the last tile of the bank may be short.
typedef void Use(const Nce *s, const Tile *t, void *ctx);

static void each_tile(const Nce *s, Use *use, void *ctx) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  int64_t whole = s->rows / TILE, rest = s->rows % TILE;
  if (whole) {
    md_ir first = md_imulc(e, k->item, s->tiles_each);
    md_ir last = md_imin(e, md_iaddc(e, first, s->tiles_each), md_i64(e, whole));
    md_loop l = md_loop_begin(e, first, last, 1, "tile");
    Tile t = tile_of(s, md_imulc(e, l.i, TILE), TILE);
    logits(s, &t);
    use(s, &t, ctx);
    md_loop_end(e, &l);
  }
  if (rest) {
    md_if f = md_if_begin(e, md_ieq(e, k->item, md_i64(e, s->items - 1)), "rest");
    Tile t = tile_of(s, md_i64(e, whole * TILE), rest);
    logits(s, &t);
    use(s, &t, ctx);
    md_if_end(e, &f);
  }
}

// -inf - -inf has no value: where the maximum is -inf, every exponential is to be 0.
static md_ir finite_top(md_emit *e, md_ir top) {
  md_ir none = LLVMBuildFCmp(e->b, LLVMRealOEQ, top, md_const_like(e, top, -INFINITY), "");
  return md_select(e, none, md_const_like(e, top, 0), top);
}

// --- log-sum-exp

typedef struct Lse {
  md_ir top, sum;
} Lse;  // the item's parts: [vector][lane]

static void join_tile(const Nce *s, const Tile *t, void *ctx) {
  md_emit *e = &s->k->e;
  const Lse *part = ctx;
  md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->vectors), 1, "vector");
  md_ir at = md_imulc(e, v.i, s->lanes), old = md_load(e, s->dtype, part->top, at, s->lanes, NULL);
  md_var top = md_var_new(e, LLVMTypeOf(old), NULL, "top"),
         sum = md_var_new(e, LLVMTypeOf(old), NULL, "sum");
  md_set(e, top, old);
  md_set(e, sum, md_const_like(e, old, 0));
  md_loop r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows), 1, "row");
  md_ir z = md_load(e, s->dtype, t->z, z_offset(s, r.i, v.i), s->lanes, NULL);
  md_set(e, top, md_fmax(e, md_get(e, top), z));
  md_loop_end(e, &r);
  md_ir now = finite_top(e, md_get(e, top));
  r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows), 1, "row");
  z = md_load(e, s->dtype, t->z, z_offset(s, r.i, v.i), s->lanes, NULL);
  md_set(e, sum, md_fadd(e, md_get(e, sum), md_exp_of(e, md_fsub(e, z, now))));
  md_loop_end(e, &r);
  md_ir before = md_load(e, MD_F64, part->sum, at, s->lanes, NULL);
  md_ir shrink = md_convert(e, md_exp_of(e, md_fsub(e, old, now)), e->f64);
  md_ir all = md_fma(e, before, shrink, md_convert(e, md_get(e, sum), e->f64));
  md_store(e, MD_F64, part->sum, at, all, NULL);
  md_store(e, s->dtype, part->top, at, md_get(e, top), NULL);
  md_loop_end(e, &v);
}

// One item: all parts in order.
static void merge_lse(const Nce *s, int64_t tops, int64_t sums) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  md_val lse = k->r->anchor->out;
  LLVMTypeRef wide = md_lanes_type(e->f64, s->lanes);
  int64_t each = s->vectors * s->lanes;
  md_phase_begin(k, "merge", 1, 0);
  md_ir top_at = md_workspace(k, tops), sum_at = md_workspace(k, sums);
  md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->vectors), 1, "vector");
  md_ir at = md_imulc(e, v.i, s->lanes);
  md_var top = md_var_new(e, wide, NULL, "top"), sum = md_var_new(e, wide, NULL, "sum");
  md_set(e, top, md_const(e, e->f64, s->lanes, -INFINITY));
  md_set(e, sum, md_const(e, e->f64, s->lanes, 0));
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->items), 1, "part");
  md_ir off = md_iadd(e, md_imulc(e, i.i, each), at);
  md_ir x = md_convert(e, md_load(e, s->dtype, top_at, off, s->lanes, NULL), e->f64);
  md_set(e, top, md_fmax(e, md_get(e, top), x));
  md_loop_end(e, &i);
  md_ir now = finite_top(e, md_get(e, top));
  i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->items), 1, "part");
  off = md_iadd(e, md_imulc(e, i.i, each), at);
  x = md_convert(e, md_load(e, s->dtype, top_at, off, s->lanes, NULL), e->f64);
  md_ir part = md_load(e, MD_F64, sum_at, off, s->lanes, NULL);
  md_set(e, sum, md_fma(e, part, md_exp_of(e, md_fsub(e, x, now)), md_get(e, sum)));
  md_loop_end(e, &i);
  // An infinite maximum is the result: inf - inf has spoilt the sum.
  md_ir high = md_get(e, top), size = md_intrinsic(e, "llvm.fabs", &high, 1, LLVMTypeOf(high));
  md_ir infinite = LLVMBuildFCmp(e->b, LLVMRealOEQ, size, md_const_like(e, size, INFINITY), "");
  md_ir result = md_fadd(e, high, md_log_of(e, md_get(e, sum)));
  result = md_select(e, infinite, high, result);
  md_point p = md_point_of(1, &at, 0, s->lanes, query_mask(s, v.i));
  md_body b;
  md_body_init(&b, k);
  md_finish_set(&b, lse, md_convert(e, result, s->type));
  md_finish_set(&b, lse + 1, md_convert(e, high, s->type));
  md_finish_store(&b, &p);
  md_loop_end(e, &v);
  md_phase_end(k);
}

static void emit_lse(md_kernel *k) {
  md_emit *e = &k->e;
  md_finish_kept(k);
  Nce s = nce_of(k, 0);
  int64_t each = s.vectors * s.lanes;
  cut(&s, each * 12);
  pack_queries(&s);
  int64_t tops = md_workspace_reserve(k, s.items * each * md_dtype_size(s.dtype));
  int64_t sums = md_workspace_reserve(k, s.items * each * 8);
  md_phase_begin(k, "stream", s.items, scratch_bytes(&s));
  md_ir mine = md_imulc(e, k->item, each);
  Lse part = {md_at(e, s.dtype, md_workspace(k, tops), mine),
              md_at(e, MD_F64, md_workspace(k, sums), mine)};
  md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, each), s.lanes, "clear");
  md_store(e, s.dtype, part.top, v.i, md_const(e, s.type, s.lanes, -INFINITY), NULL);
  md_store(e, MD_F64, part.sum, v.i, md_const(e, e->f64, s.lanes, 0), NULL);
  md_loop_end(e, &v);
  each_tile(&s, join_tile, &part);
  md_phase_end(k);
  merge_lse(&s, tops, sums);
}

// --- gradient

typedef struct Grad {
  md_val dlse, lse;
  md_ir dq;
} Grad;  // dq: the item's part [query][padded_dim]

// z -> dlse/tau e^(z - lse), 0 where lse is -inf
static void weights(const Nce *s, const Tile *t, const Grad *g) {
  md_emit *e = &s->k->e;
  md_loop v = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->vectors), 1, "vector");
  md_ir at = md_imulc(e, v.i, s->lanes), mask = query_mask(s, v.i);
  md_ir lse = value_1(s, g->lse, at, s->lanes, mask);
  md_ir none = LLVMBuildFCmp(e->b, LLVMRealOEQ, lse, md_const_like(e, lse, -INFINITY), "");
  md_ir scale =
      md_fmul(e, value_1(s, g->dlse, at, s->lanes, mask), md_const_like(e, lse, 1 / s->tau));
  scale = md_select(e, none, md_const_like(e, scale, 0), scale);
  lse = finite_top(e, lse);
  md_loop r = md_loop_begin(e, md_i64(e, 0), md_i64(e, t->rows), 1, "row");
  md_ir off = z_offset(s, r.i, v.i), z = md_load(e, s->dtype, t->z, off, s->lanes, NULL);
  md_store(e, s->dtype, t->z, off, md_fmul(e, md_exp_of(e, md_fsub(e, z, lse)), scale), NULL);
  md_loop_end(e, &r);
  md_loop_end(e, &v);
}

// dq[query .. +queries][d .. +vectors] over the rows of the tile: the register tile.
static void dq_block(const Nce *s, const Tile *t, md_ir dq, md_ir query, int64_t queries, md_ir d,
                     int64_t vectors) {
  md_emit *e = &s->k->e;
  int lanes = e->cpu->lanes;
  md_var acc[64];
  md_ir at[64];
  for (int64_t i = 0; i < queries * vectors; i++) {
    at[i] = md_iadd(e, md_imulc(e, md_iaddc(e, query, i / vectors), s->padded_dim),
                    md_iaddc(e, d, i % vectors * lanes));
    acc[i] = md_var_new(e, md_lanes_type(s->type, lanes), NULL, "acc");
    md_set(e, acc[i], md_load(e, s->dtype, dq, at[i], lanes, NULL));
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
    md_store(e, s->dtype, dq, at[i], md_get(e, acc[i]), NULL);
}

// All queries against `vectors` vectors of columns from d.
static void dq_columns(const Nce *s, const Tile *t, md_ir dq, md_ir d, int64_t vectors,
                       int64_t most) {
  md_emit *e = &s->k->e;
  int64_t height = MD_MIN(most, s->queries);
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->queries / height), 1, "queries");
  dq_block(s, t, dq, md_imulc(e, i.i, height), height, d, vectors);
  md_loop_end(e, &i);
  int64_t rest = s->queries % height;
  if (rest) dq_block(s, t, dq, md_i64(e, s->queries - rest), rest, d, vectors);
}

static void join_grad(const Nce *s, const Tile *t, void *ctx) {
  md_emit *e = &s->k->e;
  const Grad *g = ctx;
  int lanes = e->cpu->lanes, room = e->cpu->registers / (s->dtype == MD_F64 ? 2 : 1);
  int64_t width = room >= 32 ? 4 : 2, height = room >= 32 ? 6 : 4;
  int64_t vectors = s->padded_dim / lanes;
  weights(s, t, g);
  if (vectors / width) {
    md_loop d = md_loop_begin(e, md_i64(e, 0), md_i64(e, vectors / width), 1, "columns");
    dq_columns(s, t, g->dq, md_imulc(e, d.i, width * lanes), width, height);
    md_loop_end(e, &d);
  }
  int64_t rest = vectors % width;
  if (rest) dq_columns(s, t, g->dq, md_i64(e, (vectors - rest) * lanes), rest, height);
}

typedef struct Merge {
  const Nce *s;
  int64_t place;
} Merge;

static void merge_dq(void *ctx, const md_point *p) {
  const Merge *m = ctx;
  const Nce *s = m->s;
  md_emit *e = &s->k->e;
  md_ir from = md_workspace(s->k, m->place);
  md_ir at = md_iadd(e, md_imulc(e, p->at[0], s->padded_dim), p->at[1]);
  md_var sum = md_var_new(e, md_lanes_type(e->f64, p->lanes), NULL, "sum");
  md_set(e, sum, md_const(e, e->f64, p->lanes, 0));
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->items), 1, "part");
  md_ir off = md_iadd(e, at, md_imulc(e, i.i, s->queries * s->padded_dim));
  md_ir x = md_load(e, s->dtype, from, off, p->lanes, NULL);
  md_set(e, sum, md_fadd(e, md_get(e, sum), md_convert(e, x, e->f64)));
  md_loop_end(e, &i);
  md_body b;
  md_body_init(&b, s->k);
  md_finish_set(&b, s->k->r->anchor->out, md_convert(e, md_get(e, sum), s->type));
  md_finish_store(&b, p);
}

static void emit_grad(md_kernel *k) {
  md_emit *e = &k->e;
  md_finish_kept(k);
  Nce s = nce_of(k, 2);
  int64_t each = s.queries * s.padded_dim;
  cut(&s, each * md_dtype_size(s.dtype));
  pack_queries(&s);
  Merge m = {&s, md_workspace_reserve(k, s.items * each * md_dtype_size(s.dtype))};
  md_phase_begin(k, "stream", s.items, scratch_bytes(&s));
  Grad g = {k->r->anchor->in[0], k->r->anchor->in[1],
            md_at(e, s.dtype, md_workspace(k, m.place), md_imulc(e, k->item, each))};
  md_loop c = md_loop_begin(e, md_i64(e, 0), md_i64(e, each), e->cpu->lanes, "clear");
  md_store(e, s.dtype, g.dq, c.i, md_const(e, s.type, e->cpu->lanes, 0), NULL);
  md_loop_end(e, &c);
  each_tile(&s, join_grad, &g);
  md_phase_end(k);
  md_walk w = md_walk_of(k, md_type_in(k->r->g, k->r->anchor->out));
  md_walk_phase(k, "merge", &w, merge_dq, &m);
}

// --- rows of the table

static const char *refuse_lse(const md_region_view *r, const md_cpu *cpu) {
  if (!r->anchor || r->anchor->op != MD_OP_nce_lse) return "";
  return md_finish_refuse(r, cpu, false);
}

static const char *refuse_grad(const md_region_view *r, const md_cpu *cpu) {
  if (!r->anchor || r->anchor->op != MD_OP_nce_lse_grad) return "";
  return md_finish_refuse(r, cpu, false);
}

const md_lowering md_nce_rows[] = {
    {"InfoNCE stream", refuse_lse, emit_lse},
    {"InfoNCE gradient stream", refuse_grad, emit_grad},
    {0},
};
