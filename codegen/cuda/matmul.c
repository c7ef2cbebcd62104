// SPDX-License-Identifier: Apache-2.0
// Matrix products of the heads. A block makes a tile of 64 x 64 results: chunks of both operands go
// through shared memory, and thread (ty, tx) of 16 x 16 holds rows ty + 16 i and columns tx + 16 j.
// Where there are few tiles and much to sum up, blocks share the sum: each leaves its part in the
// workspace, and a second kernel joins the parts in order. Sums run in the type of the operands, those
// of bf16 in float.
#include "codegen/cuda/gen.h"

enum {
  TILE = 64,  // results on a side of a block's tile
  SIDE = 16,  // threads on a side
  EACH = TILE / SIDE,
  CHUNK = 16,        // of the inner size, in shared memory at a time
  PITCH = TILE + 1,  // of a line of the chunk: an odd number of words keeps banks apart
  WANTED_BLOCKS = 256,
  MIN_PART = 128,  // of the inner size: parts cost memory
};

typedef struct Product {
  md_cu_kernel k;
  md_cu_work *w;
  md_arena *a;
  const md_node *node;
  const char *type;  // of the sums
  int64_t m, n, inner, down, tiles;
  int64_t parts, part, place;  // inner size of a part; where the parts lie
  // What follows from the batch if anything does: rows that lie first in x, and an inner axis that lies
  // first in both. Columns are a pitch, and so are the others.
  bool rows_told, inner_told;
} Product;

static Product product_of(md_cu_work *w, const md_node *n) {
  const md_shape *x = &md_type_in(w->r->g, n->in[0])->shape;
  const md_type *z = md_type_in(w->r->g, n->out);
  Product p = {.w = w,
               .a = w->arena,
               .node = n,
               .type = md_cu_type_name(md_cu_compute_type(z->dtype)),
               .m = z->shape.dim[0],
               .n = z->shape.dim[1],
               .inner = x->dim[n->attr.matmul.ta ? 0 : 1],
               .rows_told = !n->attr.matmul.ta,
               .inner_told = n->attr.matmul.ta && !n->attr.matmul.tb};
  p.down = md_ceil_div(p.m, TILE);
  p.tiles = p.down * md_ceil_div(p.n, TILE);
  int64_t parts = MD_MIN(md_ceil_div(WANTED_BLOCKS, p.tiles), md_ceil_div(p.inner, MIN_PART));
  p.part = md_round_up(md_ceil_div(p.inner, parts), CHUNK);
  p.parts = md_ceil_div(p.inner, p.part);  // none is empty
  return p;
}

// A count, or a number where the batch changes nothing.
static const char *told(Product *p, bool is_told, const char *name, int64_t value) {
  return is_told ? md_cu_extent(&p->k, name, value) : md_cu_number(&p->k, value);
}

static const char *rows_of(Product *p) { return told(p, p->rows_told, "rows", p->m); }
static const char *terms_of(Product *p) { return told(p, p->inner_told, "terms", p->inner); }
static const char *turn_of(Product *p) {
  return told(p, p->rows_told || p->inner_told, "turn", p->part);
}

static int64_t parts_bytes(const Product *p) {
  int size = md_type_in(p->w->r->g, p->node->out)->dtype == MD_F64 ? 8 : 4;
  return p->parts * p->m * p->n * size;
}

// A chunk of operand i: line d holds the elements of all rows (of x; columns of y) at inner index
// k0 + d. Neighbouring threads take neighbours in memory.
static void load(Product *p, int i) {
  md_cu_kernel *k = &p->k;
  bool transposed = i == 0 ? p->node->attr.matmul.ta : p->node->attr.matmul.tb;
  bool inner_last = (i == 0) != transposed;
  const char *type = md_cu_index_type(k), *to = i == 0 ? "xs" : "ys";
  md_cu_mark m =
      md_cu_open(k, NULL, "MD_UNROLL for (int j = 0; j < %d; j++) {", TILE * CHUNK / MD_CU_THREADS);
  md_cu_line(k, NULL, "const int at = md_thread() + %d * j;", MD_CU_THREADS);
  if (inner_last) md_cu_line(k, NULL, "const int d = at %% %d, line = at / %d;", CHUNK, CHUNK);
  else md_cu_line(k, NULL, "const int line = at %% %d, d = at / %d;", TILE, TILE);
  md_cu_line(k, NULL, "const %s outer = %s + line, inner = k0 + d;", type, i == 0 ? "m0" : "n0");
  md_cu_line(k, NULL, "%s v = 0;", p->type);
  // A part begins at a chunk.
  bool may_end = p->inner_told || p->inner % CHUNK != 0;
  md_cu_mark in =
      md_cu_open(k, NULL, "if (outer < %s%s) {", i == 0 ? rows_of(p) : md_cu_number(k, p->n),
                 may_end ? md_format(p->a, " && inner < %s", terms_of(p)) : "");
  const md_val x = p->node->in[i];
  md_cu_spot s = {.shape = &md_type_in(p->w->r->g, x)->shape,
                  .at = {inner_last ? "outer" : "inner", inner_last ? "inner" : "outer"}};
  md_cu_type to_type = md_cu_compute_type(md_type_in(p->w->r->g, p->node->out)->dtype);
  md_cu_line(k, NULL, "v = %s;", md_cu_value_as(k, x, &s, to_type));
  md_cu_close(k, in);
  md_cu_line(k, NULL, "%s[d * %d + line] = v;", to, PITCH);
  md_cu_close(k, m);
}

static void multiply(Product *p) {
  md_cu_kernel *k = &p->k;
  md_cu_mark m = md_cu_open(k, NULL, "MD_UNROLL for (int d = 0; d < %d; d++) {", CHUNK);
  md_cu_line(k, NULL, "%s x[%d], y[%d];", p->type, EACH, EACH);
  for (int i = 0; i < 2; i++)
    md_cu_line(k, NULL, "MD_UNROLL for (int i = 0; i < %d; i++) %s[i] = %s[d * %d + %s + %d * i];",
               EACH, i ? "y" : "x", i ? "ys" : "xs", PITCH, i ? "tx" : "ty", SIDE);
  md_cu_line(k, NULL, "MD_UNROLL for (int i = 0; i < %d; i++)", EACH);
  md_cu_line(k, NULL, "  MD_UNROLL for (int j = 0; j < %d; j++) acc[i][j] += x[i] * y[j];", EACH);
  md_cu_close(k, m);
}

static void store(Product *p) {
  md_cu_kernel *k = &p->k;
  const char *type = md_cu_index_type(k);
  md_cu_mark i = md_cu_open(k, NULL, "MD_UNROLL for (int i = 0; i < %d; i++) {", EACH);
  md_cu_mark j = md_cu_open(k, NULL, "MD_UNROLL for (int j = 0; j < %d; j++) {", EACH);
  md_cu_line(k, NULL, "const %s row = m0 + ty + %d * i, column = n0 + tx + %d * j;", type, SIDE,
             SIDE);
  md_cu_mark in =
      md_cu_open(k, NULL, "if (row < %s && column < %s) {", rows_of(p), md_cu_number(k, p->n));
  md_cu_spot s = {.shape = &md_type_in(p->w->r->g, p->node->out)->shape, .at = {"row", "column"}};
  if (p->parts > 1) {
    const char *to = md_cu_workspace(k, p->place, parts_bytes(p), p->type, true);
    md_cu_line(k, NULL, "%s[((%s)part * %s + row) * %s + column] = acc[i][j];", to, type,
               rows_of(p), md_cu_number(k, p->n));
  } else {
    md_cu_store(k, p->node->out, &s, "acc[i][j]");
  }
  md_cu_close(k, in);
  md_cu_close(k, j);
  md_cu_close(k, i);
}

static void tiles(Product *p) {
  md_cu_kernel *k = &p->k;
  md_cu_begin(k, p->w, p->parts > 1 ? "parts of tiles" : "tiles");
  k->shared_bytes = 2 * CHUNK * PITCH * (*p->type == 'd' ? 8 : 4);
  const char *type = md_cu_index_type(k);
  md_cu_line(k, NULL, "MD_SHARED(shared);");
  md_cu_line(k, "[inner][row]", "%s *const xs = (%s *)shared;", p->type, p->type);
  md_cu_line(k, "[inner][column]", "%s *const ys = xs + %d;", p->type, CHUNK * PITCH);
  md_cu_line(k, NULL, "const int tx = md_thread() %% %d, ty = md_thread() / %d;", SIDE, SIDE);
  long long across = (long long)(p->tiles / p->down);
  md_cu_line(k, "unsigned: what may be negative takes ten registers more",
             "const md_u32 tile = (md_u32)md_block(), high = (md_u32)%s;",
             told(p, p->rows_told, "down", p->down));
  md_cu_line(k, NULL, "const %s m0 = (%s)(tile %% high) * %d;", type, type, TILE);
  md_cu_line(k, NULL, "const %s n0 = (%s)(tile / high %% %lldu) * %d;", type, type, across, TILE);
  md_cu_line(k, NULL, "const int part = (int)(tile / high / %lldu);", across);
  md_cu_line(k, NULL, "const %s begin = (%s)part * %s;", type, type, turn_of(p));
  md_cu_line(k, NULL, "%s acc[%d][%d];", p->type, EACH, EACH);
  md_cu_line(k, NULL, "MD_UNROLL for (int i = 0; i < %d; i++)", EACH);
  md_cu_line(k, NULL, "  MD_UNROLL for (int j = 0; j < %d; j++) acc[i][j] = 0;", EACH);
  md_cu_line(k, NULL, "const %s end = begin + %s < %s ? begin + %s : %s;", type, turn_of(p),
             terms_of(p), turn_of(p), terms_of(p));
  md_cu_mark m = md_cu_open(k, NULL, "for (%s k0 = begin; k0 < end; k0 += %d) {", type, CHUNK);
  md_cu_line(k, "nobody reads the old chunk any more", "md_sync();");
  load(p, 0);
  load(p, 1);
  md_cu_line(k, "the new one is there", "md_sync();");
  multiply(p);
  md_cu_close(k, m);
  store(p);
  k->is_told = p->rows_told || (p->inner_told && p->parts > 1);
  md_cu_end(k, p->tiles * p->parts);
}

static void merge(Product *p) {
  md_cu_kernel *k = &p->k;
  int64_t blocks;
  md_cu_begin(k, p->w, "merge of the parts");
  md_cu_mark m = md_cu_open_elements(k, p->m * p->n, !p->rows_told, &blocks);
  const char *from = md_cu_workspace(k, p->place, parts_bytes(p), p->type, false);
  const char *sum = md_cu_sum(k);
  md_cu_line(k, NULL, "for (int j = 0; j < %s; j++) %s += (double)%s[(%s)j * %s + e];",
             told(p, p->rows_told || p->inner_told, "parts", p->parts), sum, from,
             md_cu_index_type(k), told(p, p->rows_told, "elements", p->m * p->n));
  md_cu_spot s = md_cu_spot_flat(&md_type_in(p->w->r->g, p->node->out)->shape, "e");
  md_cu_store(k, p->node->out, &s, md_cu_from_double(k, p->node->out, sum));
  md_cu_close(k, m);
  k->is_told = p->rows_told;
  md_cu_end(k, blocks);
}

void md_cu_matmul(md_cu_work *w, const md_node *n) {
  Product p = product_of(w, n);
  if (p.parts > 1) p.place = md_cu_reserve(w, parts_bytes(&p));
  tiles(&p);
  if (p.parts > 1) merge(&p);
}
