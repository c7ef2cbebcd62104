// SPDX-License-Identifier: Apache-2.0
// InfoNCE over a bank in one streaming pass. A block takes TILE queries and a part of the bank, in
// tiles of TILE rows; thread (ty, tx) of 16 x 16 holds the logits of queries ty + 16 m and rows
// tx + 16 n, made from chunks of CHUNK columns in shared memory. The logits never leave registers but
// to join a running maximum and sum, by half warps, since 16 lanes share the queries. Where the mean is
// wanted they become weights in shared memory, which times the tile give the block's part of it; all
// parts shrink when the maximum grows. Further kernels join the parts of the bank in order. Products are FMAs
// of float on every target.
#include "codegen/cuda/gen.h"

enum {
  TILE = MD_CU_NCE_TILE,  // queries and bank rows of a tile
  SIDE = 16,              // threads on a side of the tile
  EACH = TILE / SIDE,
  CHUNK = 32,         // columns in shared memory at a time
  PITCH = CHUNK + 1,  // of a chunk's row: an odd number of words keeps banks apart
  WEIGHTS = TILE + 1,
  COLUMNS = 128,  // of the mean that a block makes
  WANTED_BLOCKS = MD_CU_NCE_BLOCKS,
  MIN_TILES = 4,  // of a part: parts cost memory
  EMPTY_ROW = -2,
};
enum { LSE, TOP, MEAN };  // results

typedef struct Nce {
  md_cu_work *w;
  md_cu_kernel k;
  const md_node *node;
  md_val q, ids, bank, bank_ids;
  int64_t queries, dim, rows;
  int64_t groups;  // of queries
  int64_t slabs;   // of the mean's columns
  int64_t tiles, parts, part_tiles;
  bool rows_fixed;            // the bank is a state
  int64_t tops, sums, means;  // places of the parts: [part][query], means [part][query][column]
  bool wide_ids, mean;
} Nce;

static bool is_read(const Nce *s, int result) {
  return s->w->r->g->value[s->node->out + (md_val)result].uses > 0;
}

static Nce nce_of(md_cu_work *w, const md_node *n) {
  const md_graph *g = w->r->g;
  Nce s = {
      .w = w, .node = n, .q = n->in[0], .ids = n->in[1], .bank = n->in[2], .bank_ids = n->in[3]};
  s.queries = md_type_in(g, s.q)->shape.dim[0];
  s.dim = md_type_in(g, s.q)->shape.dim[1];
  s.rows = md_type_in(g, s.bank)->shape.dim[0];
  s.wide_ids = md_type_in(g, s.ids)->dtype == MD_I64 || md_type_in(g, s.bank_ids)->dtype == MD_I64;
  s.rows_fixed = md_cu_is_of_state(w->r, &md_type_in(g, s.bank)->shape);
  s.mean = is_read(&s, MEAN);
  s.groups = md_ceil_div(s.queries, TILE);
  s.slabs = s.mean ? md_ceil_div(s.dim, COLUMNS) : 1;
  s.tiles = md_ceil_div(s.rows, TILE);
  int64_t wanted = md_ceil_div(WANTED_BLOCKS, s.groups * s.slabs);
  int64_t parts = MD_MIN(wanted, md_ceil_div(s.tiles, MIN_TILES));
  s.part_tiles = md_ceil_div(s.tiles, parts);
  s.parts = md_ceil_div(s.tiles, s.part_tiles);  // none is empty
  s.tops = md_cu_reserve(w, s.parts * s.queries * 4);
  s.sums = md_cu_reserve(w, s.parts * s.queries * 8);
  if (s.mean) s.means = md_cu_reserve(w, s.parts * s.queries * s.dim * 4);
  return s;
}

// Text of v at (row[, column]) as a `type`.
static const char *value_at(Nce *s, md_val v, md_cu_ix row, md_cu_ix column, md_cu_type type) {
  md_cu_spot at = {.shape = &md_type_in(s->w->r->g, v)->shape, .at = {row, column}};
  md_cu_term t = md_cu_value(&s->k, v, &at);
  return md_cu_as(s->w->arena, &t, type);
}

static const char *queries_of(Nce *s) { return md_cu_extent(&s->k, "queries", s->queries); }
static const char *groups_of(Nce *s) { return md_cu_extent(&s->k, "groups", s->groups); }

// Of the bank.
static const char *told(Nce *s, const char *name, int64_t value) {
  return s->rows_fixed ? md_cu_number(&s->k, value) : md_cu_extent(&s->k, name, value);
}

static md_cu_type id_type(const Nce *s) { return s->wide_ids ? MD_CU_LONG : MD_CU_INT; }

static void begin(Nce *s, const char *what, int shared_bytes) {
  md_cu_kernel *k = &s->k;
  md_cu_begin(k, s->w, what);
  k->shared_bytes = shared_bytes;
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  md_cu_line(k, "chunk of the queries", "float *const qs = (float *)shared;");
  md_cu_line(k, "the same columns of the bank", "float *const bs = qs + %d;", TILE * PITCH);
  md_cu_line(k, NULL, "const int tx = md_thread() %% %d, ty = md_thread() / %d;", SIDE, SIDE);
  md_cu_line(k, "first query", "const int q0 = md_block() %% %s * %d;", groups_of(s), TILE);
}

// One column chunk of queries and bank rows; what lies outside is zero.
static void load_chunk(Nce *s, bool queries, const char *first_row, const char *first_column) {
  md_cu_kernel *k = &s->k;
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m =
      md_cu_open(k, NULL, "for (int i = 0; i < %d; i++) {", TILE * CHUNK / MD_CU_THREADS);
  md_cu_line(k, NULL, "const int j = md_thread() + i * %d;", MD_CU_THREADS);
  md_cu_line(k, NULL, "const int row = j / %d, column = j %% %d;", CHUNK, CHUNK);
  for (int bank = queries ? 0 : 1; bank < 2; bank++) {
    const char *row = bank ? "b" : "q", *x = bank ? "y" : "x";
    md_cu_line(k, NULL, "const %s %s = %s + row, %sd = %s + column;", md_cu_index_type(k), row,
               bank ? first_row : "q0", row, first_column);
    md_cu_line(k, NULL, "float %s = 0.0f;", x);
    md_cu_mark in =
        md_cu_open(k, NULL, "if (%s < %s && %sd < %lld) {", row,
                   bank ? told(s, "rows", s->rows) : queries_of(s), row, (long long)s->dim);
    md_cu_line(
        k, NULL, "%s = %s;", x,
        value_at(s, bank ? s->bank : s->q, row, md_format(s->w->arena, "%sd", row), MD_CU_FLOAT));
    md_cu_close(k, in);
    md_cu_line(k, NULL, "%ss[row * %d + column] = %s;", row, PITCH, x);
  }
  md_cu_close(k, m);
}

// Declares z[m][n] and makes the logits of this tile: rows n0 .. n0 + TILE - 1.
static void logits(Nce *s) {
  md_cu_kernel *k = &s->k;
  md_arena *a = s->w->arena;
  md_cu_line(k, NULL, "float z[%d][%d];", EACH, EACH);
  md_cu_line(k, NULL, "MD_UNROLL for (int m = 0; m < %d; m++)", EACH);
  md_cu_line(k, NULL, "  MD_UNROLL for (int n = 0; n < %d; n++) z[m][n] = 0.0f;", EACH);
  md_cu_mark chunk =
      md_cu_open(k, NULL, "for (int d0 = 0; d0 < %lld; d0 += %d) {", (long long)s->dim, CHUNK);
  md_cu_line(k, "nobody reads the old chunk any more", "md_sync();");
  load_chunk(s, true, "n0", "d0");
  md_cu_line(k, "the new one is there", "md_sync();");
  md_cu_mark d = md_cu_open(k, NULL, "for (int d = 0; d < %d; d++) {", CHUNK);
  md_cu_line(k, NULL, "float x[%d], y[%d];", EACH, EACH);
  md_cu_line(k, NULL, "MD_UNROLL for (int m = 0; m < %d; m++) x[m] = qs[(ty + %d * m) * %d + d];",
             EACH, SIDE, PITCH);
  md_cu_line(k, NULL, "MD_UNROLL for (int n = 0; n < %d; n++) y[n] = bs[(tx + %d * n) * %d + d];",
             EACH, SIDE, PITCH);
  md_cu_line(k, NULL, "MD_UNROLL for (int m = 0; m < %d; m++)", EACH);
  md_cu_line(k, NULL, "  MD_UNROLL for (int n = 0; n < %d; n++) z[m][n] += x[m] * y[n];", EACH);
  md_cu_close(k, d);
  md_cu_close(k, chunk);
  md_cu_mark n = md_cu_open(k, "temperature; -inf: own video, empty or past the end",
                            "MD_UNROLL for (int n = 0; n < %d; n++) {", EACH);
  md_cu_line(k, NULL, "const %s b = n0 + tx + %d * n;", md_cu_index_type(k), SIDE);
  md_cu_line(k, NULL, "%s other = %d;", md_cu_type_name(id_type(s)), EMPTY_ROW);
  md_cu_mark in = md_cu_open(k, NULL, "if (b < %s) {", told(s, "rows", s->rows));
  md_cu_line(k, NULL, "other = %s;", value_at(s, s->bank_ids, "b", NULL, id_type(s)));
  md_cu_close(k, in);
  md_cu_line(k, NULL, "MD_UNROLL for (int m = 0; m < %d; m++)", EACH);
  md_cu_line(k, NULL, "  z[m][n] = other == %d || other == id[m] ? -MD_INF : z[m][n] * %s;",
             EMPTY_ROW, md_cu_literal(a, MD_CU_FLOAT, 1 / s->node->attr.f.value));
  md_cu_close(k, n);
}

// "for m: const int q = ..., if it exists { ... }": what a block knows of its queries.
static md_cu_mark open_queries(Nce *s, md_cu_mark *inner) {
  md_cu_kernel *k = &s->k;
  md_cu_mark m = md_cu_open(k, NULL, "MD_UNROLL for (int m = 0; m < %d; m++) {", EACH);
  md_cu_line(k, NULL, "const int q = q0 + ty + %d * m;", SIDE);
  *inner = md_cu_open(k, NULL, "if (q < %s) {", queries_of(s));
  return m;
}

static md_cu_mark open_tiles(Nce *s, const char *part) {
  md_cu_kernel *k = &s->k;
  md_cu_line(k, NULL, "const int part = %s;", part);
  const char *turn = md_cu_extent(k, "turn", s->part_tiles), *tiles = told(s, "tiles", s->tiles);
  md_cu_line(k, NULL, "const int last = (part + 1) * %s < %s ? (part + 1) * %s : %s;", turn, tiles,
             turn, tiles);
  md_cu_mark m = md_cu_open(k, NULL, "for (int tile = part * %s; tile < last; tile++) {", turn);
  md_cu_line(k, "first bank row", "const %s n0 = (%s)tile * %d;", md_cu_index_type(k),
             md_cu_index_type(k), TILE);
  return m;
}

// --- the stream

// What is done to each sum of query m.
static void each_acc(md_cu_kernel *k, int chunks, const char *what) {
  md_cu_line(k, NULL, "MD_UNROLL for (int c = 0; c < %d; c++)", chunks);
  md_cu_line(k, NULL, "  MD_UNROLL for (int h = 0; h < %d; h++) acc[c][m][h] %s;", CHUNK / SIDE,
             what);
}

// What thread (ty, tx) knows of its queries: acc[c][m][h] is the mean at column slab + CHUNK c + tx + 16 h.
static void start(Nce *s, int chunks) {
  md_cu_kernel *k = &s->k;
  md_cu_mark in;
  md_cu_line(k, NULL, "%s id[%d];", md_cu_type_name(id_type(s)), EACH);
  md_cu_line(k, "running maximum and sum of e^(z - maximum)", "float top[%d];", EACH);
  md_cu_line(k, NULL, "double sum[%d];", EACH);
  if (s->mean) md_cu_line(k, NULL, "float acc[%d][%d][%d];", chunks, EACH, CHUNK / SIDE);
  md_cu_mark m = open_queries(s, &in);
  md_cu_line(k, NULL, "id[m] = %s;", value_at(s, s->ids, "q", NULL, id_type(s)));
  md_cu_close(k, in);
  md_cu_line(k, NULL, "else id[m] = %d;", EMPTY_ROW);
  md_cu_line(k, NULL, "top[m] = -MD_INF;");
  md_cu_line(k, NULL, "sum[m] = 0.0;");
  if (s->mean) each_acc(k, chunks, "= 0.0f");
  md_cu_close(k, m);
}

// `form` joins `other`, that of another lane, into var.
static void join_lanes(md_cu_kernel *k, const char *var, const char *form) {
  md_cu_mark o = md_cu_open(k, NULL, "for (int o = 1; o < %d; o <<= 1) {", SIDE);
  md_cu_line(k, NULL, "const float other = md_shfl_xor(%s, o);", var);
  md_cu_line(k, NULL, "%s", form);
  md_cu_close(k, o);
}

// Maximum and sum take the tile in; logits become weights.
static void join_tile(Nce *s, int chunks) {
  md_cu_kernel *k = &s->k;
  md_cu_mark m = md_cu_open(k, NULL, "MD_UNROLL for (int m = 0; m < %d; m++) {", EACH);
  md_cu_line(k, NULL, "float high = top[m], add = 0.0f;");
  md_cu_line(k, NULL, "MD_UNROLL for (int n = 0; n < %d; n++) high = md_max(high, z[m][n]);", EACH);
  join_lanes(k, "high", "high = md_max(high, other);");
  md_cu_line(k, "-inf - -inf has no value", "const float from = high == -MD_INF ? 0.0f : high;");
  md_cu_mark n = md_cu_open(k, NULL, "MD_UNROLL for (int n = 0; n < %d; n++) {", EACH);
  md_cu_line(k, NULL, "const float weight = md_exp(z[m][n] - from);");
  if (s->mean)
    md_cu_line(k, NULL, "ws[(ty + %d * m) * %d + tx + %d * n] = weight;", SIDE, WEIGHTS, SIDE);
  md_cu_line(k, NULL, "add += weight;");
  md_cu_close(k, n);
  join_lanes(k, "add", "add += other;");
  md_cu_line(k, "what is there shrinks", "const float shrink = md_exp(top[m] - from);");
  md_cu_line(k, NULL, "sum[m] = sum[m] * (double)shrink + (double)add;");
  md_cu_line(k, NULL, "top[m] = high;");
  if (s->mean) each_acc(k, chunks, "*= shrink");
  md_cu_close(k, m);
}

static void add_mean(Nce *s, int chunks) {
  md_cu_kernel *k = &s->k;
  md_cu_mark c = md_cu_open(k, NULL, "MD_UNROLL for (int c = 0; c < %d; c++) {", chunks);
  md_cu_line(k, "weights are there; nobody reads the old chunk", "md_sync();");
  load_chunk(s, false, "n0", md_format(s->w->arena, "slab + %d * c", CHUNK));
  md_cu_line(k, NULL, "md_sync();");
  md_cu_mark n = md_cu_open(k, NULL, "for (int n = 0; n < %d; n++) {", TILE);
  for (int h = 0; h < CHUNK / SIDE; h++)
    md_cu_line(k, NULL, "const float y%d = bs[n * %d + tx + %d];", h, PITCH, SIDE * h);
  md_cu_mark m = md_cu_open(k, NULL, "MD_UNROLL for (int m = 0; m < %d; m++) {", EACH);
  md_cu_line(k, NULL, "const float x = ws[(ty + %d * m) * %d + n];", SIDE, WEIGHTS);
  for (int h = 0; h < CHUNK / SIDE; h++) md_cu_line(k, NULL, "acc[c][m][%d] += x * y%d;", h, h);
  md_cu_close(k, m);
  md_cu_close(k, n);
  md_cu_close(k, c);
}

// Blocks of several slabs have the same maximum and sum: the first stores them.
static void store_parts(Nce *s, int chunks) {
  md_cu_kernel *k = &s->k;
  int64_t num = s->parts * s->queries;
  md_cu_mark in, m = open_queries(s, &in);
  const char *first = s->slabs > 1 ? "tx == 0 && slab == 0" : "tx == 0";
  md_cu_mark one = md_cu_open(k, NULL, "if (%s) {", first);
  md_cu_line(k, NULL, "%s[part * %s + q] = top[m];",
             md_cu_workspace(k, s->tops, num * 4, "float", true), queries_of(s));
  md_cu_line(k, NULL, "%s[part * %s + q] = sum[m];",
             md_cu_workspace(k, s->sums, num * 8, "double", true), queries_of(s));
  md_cu_close(k, one);
  if (s->mean) {
    md_cu_mark c = md_cu_open(k, NULL, "MD_UNROLL for (int c = 0; c < %d; c++) {", chunks);
    md_cu_mark h = md_cu_open(k, NULL, "MD_UNROLL for (int h = 0; h < %d; h++) {", CHUNK / SIDE);
    md_cu_line(k, NULL, "const int d = slab + %d * c + tx + %d * h;", CHUNK, SIDE);
    const char *to = md_cu_workspace(k, s->means, num * s->dim * 4, "float", true);
    const char *type = md_cu_index_type(k);
    md_cu_line(k, NULL, "if (d < %lld) %s[((%s)part * %s + q) * %lld + d] = acc[c][m][h];",
               (long long)s->dim, to, type, queries_of(s), (long long)s->dim);
    md_cu_close(k, h);
    md_cu_close(k, c);
  }
  md_cu_close(k, in);
  md_cu_close(k, m);
}

static void stream(Nce *s) {
  md_cu_kernel *k = &s->k;
  int chunks = (int)md_ceil_div(MD_MIN(s->dim, COLUMNS), CHUNK);
  long long blocks = (long long)s->groups * s->slabs;
  begin(s, "stream over the bank", (2 * TILE * PITCH + (s->mean ? TILE * WEIGHTS : 0)) * 4);
  if (s->mean) {
    md_cu_line(k, "weights [query][row]", "float *const ws = bs + %d;", TILE * PITCH);
    md_cu_line(k, "first column of the mean", "const int slab = md_block() / %s %% %lld * %d;",
               groups_of(s), (long long)s->slabs, COLUMNS);
  }
  start(s, chunks);
  md_cu_mark tile = open_tiles(
      s, md_format(s->w->arena, "md_block() / %s / %lld", groups_of(s), (long long)s->slabs));
  logits(s);
  join_tile(s, chunks);
  if (s->mean) add_mean(s, chunks);
  md_cu_close(k, tile);
  store_parts(s, chunks);
  md_cu_end(k, blocks * s->parts);
}

// --- merges

// A thread for a query: its parts in order. Sums become the parts' shares in the mean.
static void merge_lse(Nce *s) {
  md_cu_kernel *k = &s->k;
  int64_t num = s->parts * s->queries;
  md_cu_begin(k, s->w, "merge of the parts");
  const char *parts = md_cu_extent(k, "parts", s->parts), *queries = queries_of(s);
  md_cu_line(k, NULL, "const int q = md_block() * %d + md_thread();", MD_CU_THREADS);
  md_cu_mark in = md_cu_open(k, NULL, "if (q < %s) {", queries);
  const char *top = md_cu_workspace(k, s->tops, num * 4, "float", false);
  const char *sum = md_cu_workspace(k, s->sums, num * 8, "double", s->mean);
  md_cu_line(k, NULL, "float high = -MD_INF;");
  md_cu_line(k, NULL, "for (int j = 0; j < %s; j++) high = md_max(high, %s[j * %s + q]);", parts,
             top, queries);
  md_cu_line(k, NULL, "const float from = high == -MD_INF ? 0.0f : high;");
  md_cu_line(k, NULL, "double total = 0.0;");
  md_cu_mark loop = md_cu_open(k, NULL, "for (int j = 0; j < %s; j++) {", parts);
  md_cu_line(k, NULL, "total += %s[j * %s + q] * (double)md_exp(%s[j * %s + q] - from);", sum,
             queries, top, queries);
  md_cu_close(k, loop);
  if (s->mean) {
    loop = md_cu_open(k, NULL, "for (int j = 0; j < %s; j++) {", parts);
    md_cu_line(k, NULL, "const double grown = (double)md_exp(%s[j * %s + q] - from);", top,
               queries);
    md_cu_line(k, "no row counts: the mean is 0",
               "%s[j * %s + q] = high == -MD_INF ? 0.0 : grown / total;", sum, queries);
    md_cu_close(k, loop);
  }
  md_val lse = s->node->out;
  md_cu_spot at = md_cu_spot_flat(&md_type_in(s->w->r->g, lse)->shape, "q");
  md_cu_line(k, "inf - inf has spoilt the sum", "const int infinite = md_abs(high) == MD_INF;");
  if (is_read(s, LSE))
    md_cu_store(k, lse, &at, "(infinite ? high : (float)((double)high + md_logd(total)))");
  if (is_read(s, TOP)) md_cu_store(k, lse + TOP, &at, "high");
  md_cu_close(k, in);
  md_cu_end(k, md_ceil_div(s->queries, MD_CU_THREADS));
}

// A thread for an element.
static void merge_mean(Nce *s) {
  md_cu_kernel *k = &s->k;
  int64_t num = s->queries * s->dim;
  md_cu_begin(k, s->w, "merge of the means");
  const char *parts = md_cu_extent(k, "parts", s->parts), *queries = queries_of(s);
  const char *elements = md_cu_extent(k, "elements", num);
  const char *type = md_cu_index_type(k), *id = s->w->wide ? "(md_i64)md_block()" : "md_block()";
  md_cu_line(k, NULL, "const %s e = %s * %d + md_thread();", type, id, MD_CU_THREADS);
  md_cu_mark in = md_cu_open(k, NULL, "if (e < %s) {", elements);
  const char *from = md_cu_workspace(k, s->means, s->parts * num * 4, "float", false);
  const char *share = md_cu_workspace(k, s->sums, s->parts * s->queries * 8, "double", false);
  md_cu_line(k, NULL, "const int q = (int)(e / %lld);", (long long)s->dim);
  md_cu_line(k, NULL, "double sum = 0.0;");
  md_cu_line(k, NULL, "for (%s j = 0; j < %s; j++)", type, parts);
  md_cu_line(k, NULL, "  sum += %s[j * %s + q] * (double)%s[j * %s + e];", share, queries, from,
             elements);
  md_val mean = s->node->out + MEAN;
  md_cu_spot at = md_cu_spot_flat(&md_type_in(s->w->r->g, mean)->shape, "e");
  md_cu_store(k, mean, &at, "(float)sum");
  md_cu_close(k, in);
  md_cu_end(k, md_ceil_div(num, MD_CU_THREADS));
}

void md_cu_nce(md_cu_work *w, const md_node *n) {
  Nce s = nce_of(w, n);
  stream(&s);
  merge_lse(&s);
  if (s.mean) merge_mean(&s);
}
