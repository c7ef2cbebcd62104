// SPDX-License-Identifier: Apache-2.0
// Data movement: pieces along an axis (concat, pad), rows by index, the ring of the memory bank,
// windows. Views need no kernel: whoever reads them reads through them (stream.c for their own sake).
#include "codegen/cpu/parts.h"

static const char *refuse_op(const md_region_view *r, const md_cpu *cpu, md_op op) {
  if (!r->anchor || r->anchor->op != op) return "";
  return md_finish_refuse(r, cpu, false);
}

// The anchor's value at p; the epilogue follows.
static void finish(md_kernel *k, md_ir value, const md_point *p) {
  md_body b;
  md_body_init(&b, k);
  md_finish_set(&b, k->r->anchor->out, value);
  md_finish_store(&b, p);
}

// i modulo n, as if n were added until i >= 0. i64.
static md_ir wrapped(md_emit *e, md_ir i, int64_t n) {
  md_ir rest = LLVMBuildSRem(e->b, md_convert(e, i, e->i64), md_i64(e, n), "");
  return md_select(e, md_ilt(e, rest, md_i64(e, 0)), md_iaddc(e, rest, n), rest);
}

static md_ir index_at(md_kernel *k, md_val v, md_ir i) {
  md_body b;
  md_body_init(&b, k);
  md_point p = md_point_of(1, &i, -1, 1, NULL);
  return md_body_value(&b, v, &p);
}

// Axis 0 is addressed by row: it cannot be the lane axis.
static md_walk walk_rows(const md_kernel *k, const md_type *t) {
  return t->shape.rank == 1 ? md_walk_scalars(&t->shape) : md_walk_of(k, t);
}

// --- concat, pad: pieces along an axis, zeros where a piece has no operand

typedef struct Piece {
  md_kernel *k;
  md_val from;  // MD_NONE: zeros
  int axis;
  int64_t start;  // on the axis of the result
  bool direct;    // no epilogue, row-major: stored at any offset
} Piece;

static void put_piece(void *ctx, const md_point *p) {
  const Piece *c = ctx;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  const md_type *to = md_type_in(k->r->g, k->r->anchor->out);
  md_body b;
  md_body_init(&b, k);
  md_ir v = c->from ? md_body_value(&b, c->from, p)
                    : md_zero(md_lanes_type(md_compute_type(e, to->dtype), p->lanes));
  md_point q = *p;
  q.at[c->axis] = md_iaddc(e, p->at[c->axis], c->start);
  if (c->direct) {
    md_ir off = md_flat_offset(e, &to->shape, q.at);
    md_store(e, to->dtype, md_kernel_arg(k, k->r->anchor->out), off, v, p->mask);
  } else {
    finish(k, v, &q);
  }
}

// A piece that begins inside a vector is walked element by element unless it is stored directly. Into
// a blocked tensor even that would leave the padding alone: see blocked_pieces.
static md_walk piece_walk(const md_kernel *k, const Piece *c, const md_shape *s) {
  md_type t = *md_type_in(k->r->g, k->r->anchor->out);
  t.shape = *s;
  md_walk w = md_walk_of(k, &t);
  bool shifted = c->axis == w.lane_axis && c->start % w.lanes;
  return shifted && !c->direct ? md_walk_scalars(s) : w;
}

static int pieces_of(md_kernel *k, Piece *piece, md_shape *shape) {
  const md_node *n = k->r->anchor;
  const md_graph *g = k->r->g;
  bool direct = md_stores_directly(k->r);
  int axis = (int)n->attr.word[0], num = 0;
  if (n->op == MD_OP_concat) {
    int64_t start = 0;
    for (int i = 0; i < n->num_in; i++) {
      shape[i] = md_type_in(g, n->in[i])->shape;
      piece[i] = (Piece){k, n->in[i], axis, start, direct};
      start += shape[i].dim[axis];
    }
    return n->num_in;
  }
  md_shape x = md_type_in(g, n->in[0])->shape;
  int64_t before = n->attr.word[1], after = n->attr.word[2], size = x.dim[axis];
  const int64_t start[] = {0, before, before + size}, length[] = {before, size, after};
  for (int i = 0; i < 3; i++) {
    if (!length[i]) continue;
    shape[num] = x;
    shape[num].dim[axis] = length[i];
    piece[num++] = (Piece){k, i == 1 ? n->in[0] : MD_NONE, axis, start[i], direct};
  }
  return num;
}

// Channels of a blocked tensor whose pieces begin or end inside a block: each lane looks where it
// comes from.
typedef struct Lanes {
  md_kernel *k;
  const Piece *piece;
  const md_shape *shape;
  int num;
} Lanes;

static void put_lanes(void *ctx, const md_point *p) {
  const Lanes *c = ctx;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_type t = *md_type_in(k->r->g, k->r->anchor->out);
  LLVMTypeRef type = md_compute_type(e, t.dtype);
  md_var all = md_var_new(e, md_lanes_type(type, p->lanes), NULL, "lanes");
  md_set(e, all, md_zero(md_lanes_type(type, p->lanes)));
  for (int i = 0; i < c->num; i++) {
    const Piece *piece = &c->piece[i];
    if (!piece->from) continue;
    for (int l = 0; l < p->lanes; l++) {
      md_ir at = md_iaddc(e, p->at[1], l - piece->start);
      md_ir in = LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, -1), at),
                              md_ilt(e, at, md_i64(e, c->shape[i].dim[1])), "");
      md_if f = md_if_begin(e, in, "in");
      md_point q = *p;
      q.lanes = 1;
      q.lane_axis = -1;
      q.mask = NULL;
      q.at[1] = at;
      md_body b;
      md_body_init(&b, k);
      md_set(e, all, md_set_lane(e, md_get(e, all), l, md_body_value(&b, piece->from, &q)));
      md_if_end(e, &f);
    }
  }
  finish(k, md_get(e, all), p);
}

static bool splits_blocks(const md_kernel *k, const Piece *piece, int num) {
  const md_type *t = md_type_in(k->r->g, k->r->anchor->out);
  if (!t->block || piece->axis != 1) return false;
  for (int i = 0; i < num; i++)
    if (piece[i].start % t->block) return true;
  return false;
}

static void emit_pieces(md_kernel *k) {
  md_emit *e = &k->e;
  md_finish_kept(k);
  Piece *piece = MD_NEW_ARRAY(k->arena, Piece, MD_MAX(k->r->anchor->num_in, 3));
  md_shape *shape = MD_NEW_ARRAY(k->arena, md_shape, MD_MAX(k->r->anchor->num_in, 3));
  int num = pieces_of(k, piece, shape);
  if (splits_blocks(k, piece, num)) {
    Lanes c = {k, piece, shape, num};
    md_walk w = md_walk_of(k, md_type_in(k->r->g, k->r->anchor->out));
    md_walk_phase(k, "lanes", &w, put_lanes, &c);
    return;
  }
  md_walk *walk = MD_NEW_ARRAY(k->arena, md_walk, num);
  int64_t items = 0;
  for (int i = 0; i < num; i++) {
    walk[i] = piece_walk(k, &piece[i], &shape[i]);
    items += walk[i].items;
  }
  md_phase_begin(k, "pieces", items, 0);
  int64_t first = 0;
  for (int i = 0; i < num; i++) {
    md_ir item = md_iaddc(e, k->item, -first);
    md_ir mine = LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, -1), item),
                              md_ilt(e, item, md_i64(e, walk[i].items)), "");
    md_if f = md_if_begin(e, mine, "piece");
    md_walk_emit(k, &walk[i], item, put_piece, &piece[i]);
    md_if_end(e, &f);
    first += walk[i].items;
  }
  md_phase_end(k);
}

// --- rows by index

static void put_gathered(void *ctx, const md_point *p) {
  md_kernel *k = ctx;
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  md_point q = *p;
  q.at[0] =
      wrapped(e, index_at(k, n->in[1], p->at[0]), md_type_in(k->r->g, n->in[0])->shape.dim[0]);
  md_body b;
  md_body_init(&b, k);
  finish(k, md_body_value(&b, n->in[0], &q), p);
}

static void emit_gather_rows(md_kernel *k) {
  md_finish_kept(k);
  md_walk w = walk_rows(k, md_type_in(k->r->g, k->r->anchor->out));
  md_walk_phase(k, "gather", &w, put_gathered, k);
}

typedef struct Scatter {
  md_kernel *k;
  int64_t place, rows;
} Scatter;

// Adds the rows that fall on p's row, in order.
static void put_scattered(void *ctx, const md_point *p) {
  const Scatter *c = ctx;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_val x = k->r->anchor->in[0];
  md_ir index = md_workspace(k, c->place);
  LLVMTypeRef type = md_compute_type(e, md_type_in(k->r->g, x)->dtype);
  md_var sum = md_var_new(e, md_lanes_type(type, p->lanes), NULL, "sum");
  md_set(e, sum, md_zero(sum.type));
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, c->rows), 1, "i");
  md_ir to = md_load(e, MD_I64, index, i.i, 1, NULL);
  md_if hit = md_if_begin(e, md_ieq(e, to, p->at[0]), "hit");
  md_point q = *p;
  q.at[0] = i.i;
  md_body b;
  md_body_init(&b, k);
  md_set(e, sum, md_fadd(e, md_get(e, sum), md_body_value(&b, x, &q)));
  md_if_end(e, &hit);
  md_loop_end(e, &i);
  finish(k, md_get(e, sum), p);
}

static void emit_scatter_rows(md_kernel *k) {
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  const md_type *y = md_type_in(k->r->g, n->out);
  md_finish_kept(k);
  Scatter c = {.k = k, .rows = md_type_in(k->r->g, n->in[0])->shape.dim[0]};
  c.place = md_workspace_reserve(k, c.rows * 8);
  md_phase_begin(k, "index", 1, 0);
  md_loop i = md_loop_begin(e, md_i64(e, 0), md_i64(e, c.rows), 1, "i");
  md_ir to = wrapped(e, index_at(k, n->in[1], i.i), y->shape.dim[0]);
  md_store(e, MD_I64, md_workspace(k, c.place), i.i, to, NULL);
  md_loop_end(e, &i);
  md_phase_end(k);
  md_walk w = walk_rows(k, y);
  md_walk_phase(k, "scatter", &w, put_scattered, &c);
}

// --- the ring

typedef struct Push {
  md_kernel *k;
  md_val bank, keys, ptr;
  int64_t size, num, first;
} Push;

static Push push_of(md_kernel *k) {
  const md_node *n = k->r->anchor;
  Push c = {k, n->in[0], n->in[1], n->in[2], .num = md_type_in(k->r->g, n->in[1])->shape.dim[0]};
  c.size = md_type_in(k->r->g, c.bank)->shape.dim[0];
  c.first = MD_MAX(c.num - c.size, 0);  // earlier keys are overwritten by later ones
  return c;
}

// In place: key first + at[0] goes to its row.
static void put_key(void *ctx, const md_point *p) {
  const Push *c = ctx;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_val out = k->r->anchor->out;
  md_point q = *p;
  q.at[0] = md_iaddc(e, p->at[0], c->first);
  md_body b;
  md_body_init(&b, k);
  md_ir v = md_body_value(&b, c->keys, &q);
  md_ir ptr = wrapped(e, index_at(k, c->ptr, md_i64(e, 0)), c->size);
  q.at[0] = md_imodc(e, md_iadd(e, ptr, q.at[0]), c->size);
  const md_type *t = md_type_in(k->r->g, out);
  md_store(e, t->dtype, md_kernel_arg(k, out), md_flat_offset(e, &t->shape, q.at), v, p->mask);
}

// Elsewhere: row at[0] of the result is the last key that falls on it, or the bank's row.
static void put_row(void *ctx, const md_point *p) {
  const Push *c = ctx;
  md_kernel *k = c->k;
  md_emit *e = &k->e;
  md_ir ptr = wrapped(e, index_at(k, c->ptr, md_i64(e, 0)), c->size);
  md_ir ahead = md_imodc(e, md_iaddc(e, md_isub(e, p->at[0], ptr), c->size), c->size);
  LLVMTypeRef type = md_compute_type(e, md_type_in(k->r->g, c->bank)->dtype);
  md_var row = md_var_new(e, md_lanes_type(type, p->lanes), NULL, "row");
  md_if pushed = md_if_begin(e, md_ilt(e, ahead, md_i64(e, c->num)), "pushed");
  md_point q = *p;
  md_ir laps = md_idivc(e, md_isub(e, md_i64(e, c->num - 1), ahead), c->size);
  q.at[0] = md_iadd(e, ahead, md_imulc(e, laps, c->size));
  md_body b;
  md_body_init(&b, k);
  md_set(e, row, md_body_value(&b, c->keys, &q));
  md_if_else(e, &pushed);
  md_body_reset(&b);
  md_set(e, row, md_body_value(&b, c->bank, p));
  md_if_end(e, &pushed);
  finish(k, md_get(e, row), p);
}

static void emit_bank_push(md_kernel *k) {
  const md_graph *g = k->r->g;
  md_finish_kept(k);
  Push c = push_of(k);
  if (md_same_memory(g, c.bank, k->r->anchor->out) && md_stores_directly(k->r)) {
    md_type t = *md_type_in(g, k->r->anchor->out);
    t.shape.dim[0] = c.num - c.first;
    md_walk w = walk_rows(k, &t);
    md_walk_phase(k, "push", &w, put_key, &c);
  } else {
    md_walk w = walk_rows(k, md_type_in(g, k->r->anchor->out));
    md_walk_phase(k, "copy_and_push", &w, put_row, &c);
  }
}

static void emit_ring_next(md_kernel *k) {
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  int64_t push = n->attr.word[0], size = n->attr.word[1];
  md_finish_kept(k);
  md_phase_begin(k, "ring_next", 1, 0);
  md_ir zero = md_i64(e, 0), at = wrapped(e, index_at(k, n->in[0], zero), size);
  at = md_imodc(e, md_iaddc(e, at, push % size), size);
  md_point p = md_point_of(1, &zero, -1, 1, NULL);
  finish(k, md_convert(e, at, md_compute_type(e, md_type_in(k->r->g, n->out)->dtype)), &p);
  md_phase_end(k);
}

// --- crop

static void put_cropped(void *ctx, const md_point *p) {
  md_kernel *k = ctx;
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  md_point q = *p;
  q.at[p->rank - 2] = md_iaddc(e, p->at[p->rank - 2], n->attr.crop.top);
  q.at[p->rank - 1] = md_iaddc(e, p->at[p->rank - 1], n->attr.crop.left);
  md_body b;
  md_body_init(&b, k);
  bool shifted = p->lane_axis == p->rank - 1
                     ? n->attr.crop.left % p->lanes != 0
                     : p->lane_axis == p->rank - 2 && n->attr.crop.top % p->lanes != 0;
  md_ir v = shifted ? md_value_unaligned(&b, n->in[0], &q) : md_body_value(&b, n->in[0], &q);
  finish(k, v, p);
}

static void emit_crop(md_kernel *k) {
  md_finish_kept(k);
  md_walk w = md_walk_of(k, md_type_in(k->r->g, k->r->anchor->out));
  md_walk_phase(k, "crop", &w, put_cropped, k);
}

// --- space_to_depth, depth_to_space: each lane looks where it comes from

// The operand's element that becomes the result's at *p, and whether it has that.
static md_ir fold_source(md_kernel *k, md_point *p) {
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  const md_fold_attr *a = &n->attr.fold;
  const md_shape *x = &md_type_in(k->r->g, n->in[0])->shape;
  bool folds = n->op == MD_OP_space_to_depth;
  md_ir channel = p->at[1], inside = NULL;
  for (int i = 2; folds && i >= 0; i--) {
    md_ir by = md_i64(e, a->by.d[i]);
    md_ir rest = LLVMBuildURem(e->b, channel, by, "");
    channel = LLVMBuildUDiv(e->b, channel, by, "");
    md_ir at =
        md_iaddc(e, md_iadd(e, md_imulc(e, p->at[2 + i], a->by.d[i]), rest), -a->before.d[i]);
    md_ir in = LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, -1), at),
                            md_ilt(e, at, md_i64(e, x->dim[2 + i])), "");
    inside = inside ? LLVMBuildAnd(e->b, inside, in, "") : in;
    p->at[2 + i] = at;
  }
  for (int i = 0; !folds && i < 3; i++) {
    md_ir by = md_i64(e, a->by.d[i]), at = md_iaddc(e, p->at[2 + i], a->before.d[i]);
    channel = md_iadd(e, md_imulc(e, channel, a->by.d[i]), LLVMBuildURem(e->b, at, by, ""));
    p->at[2 + i] = LLVMBuildUDiv(e->b, at, by, "");
  }
  p->at[1] = channel;
  // Lanes behind the last channel.
  md_ir in = md_ilt(e, channel, md_i64(e, x->dim[1]));
  return inside ? LLVMBuildAnd(e->b, inside, in, "") : in;
}

static void put_folded(void *ctx, const md_point *p) {
  md_kernel *k = ctx;
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  LLVMTypeRef type = md_compute_type(e, md_type_in(k->r->g, n->out)->dtype);
  md_var all = md_var_new(e, md_lanes_type(type, p->lanes), NULL, "lanes");
  md_set(e, all, md_zero(md_lanes_type(type, p->lanes)));
  for (int l = 0; l < p->lanes; l++) {
    md_point q = *p;
    q.lanes = 1;
    q.lane_axis = -1;
    q.mask = NULL;
    if (p->lanes > 1) q.at[p->lane_axis] = md_iaddc(e, p->at[p->lane_axis], l);
    md_if f = md_if_begin(e, fold_source(k, &q), "in");
    md_body b;
    md_body_init(&b, k);
    md_ir v = md_body_value(&b, n->in[0], &q);
    md_set(e, all, p->lanes > 1 ? md_set_lane(e, md_get(e, all), l, v) : v);
    md_if_end(e, &f);
  }
  finish(k, md_get(e, all), p);
}

// As many pixels of a row as there are lanes, none of which has a source beside its row: each channel is a vector
// along the row first.
static void put_folded_pixels(md_kernel *k, const md_point *p) {
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  LLVMTypeRef type = md_compute_type(e, md_type_in(k->r->g, n->out)->dtype);
  md_ir zero = md_zero(md_lanes_type(type, p->lanes)), v[64];
  for (int l = 0; l < p->lanes; l++) {
    md_var channel = md_var_new(e, LLVMTypeOf(zero), zero, "channel");
    md_point q = *p;
    q.lane_axis = 4;
    q.step = n->attr.fold.by.d[2];
    q.mask = NULL;
    q.at[1] = md_iaddc(e, p->at[1], l);
    md_if f = md_if_begin(e, fold_source(k, &q), "in");
    md_body b;
    md_body_init(&b, k);
    md_set(e, channel, md_body_value(&b, n->in[0], &q));
    md_if_end(e, &f);
    v[l] = md_get(e, channel);
  }
  md_turn_lanes(e, v, p->lanes);
  for (int l = 0; l < p->lanes; l++) {
    md_point q = *p;
    q.at[4] = md_iaddc(e, p->at[4], l);
    finish(k, v[l], &q);
  }
}

static void put_folded_run(md_kernel *k, const md_point *row, int64_t first, int64_t last) {
  md_emit *e = &k->e;
  md_loop x = md_loop_begin(e, md_i64(e, first), md_i64(e, last), 1, "x");
  md_point p = *row;
  p.at[4] = x.i;
  put_folded(k, &p);
  md_loop_end(e, &x);
}

// A row of a blocked result.
static void put_folded_row(void *ctx, const md_point *row) {
  md_kernel *k = ctx;
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  const md_fold_attr *a = &n->attr.fold;
  int64_t by = a->by.d[2], before = a->before.d[2];
  int64_t width = md_type_in(k->r->g, n->in[0])->shape.dim[4];
  // Pixels all of whose sources are in the row.
  int64_t first = MD_MIN(md_ceil_div(before, by), a->size.d[2]);
  int64_t whole = MD_MIN((width + before) / by, a->size.d[2]) - first;
  int64_t end = first + MD_MAX(whole, 0) / row->lanes * row->lanes;
  put_folded_run(k, row, 0, first);
  md_loop x = md_loop_begin(e, md_i64(e, first), md_i64(e, end), row->lanes, "x");
  md_point p = *row;
  p.at[4] = x.i;
  if (end > first) put_folded_pixels(k, &p);
  md_loop_end(e, &x);
  put_folded_run(k, row, end, a->size.d[2]);
}

static void emit_fold(md_kernel *k) {
  md_finish_kept(k);
  const md_node *n = k->r->anchor;
  md_type t = *md_type_in(k->r->g, n->out);
  bool rows = n->op == MD_OP_space_to_depth && t.block;
  if (rows) t.shape.dim[4] = 1;
  md_walk w = md_walk_of(k, &t);
  md_walk_phase(k, "fold", &w, rows ? put_folded_row : put_folded, k);
}

// --- rows of the table

static const char *refuse_concat(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_concat);
}
static const char *refuse_pad(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_pad);
}
static const char *refuse_gather(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_gather_rows);
}
static const char *refuse_scatter(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_scatter_rows);
}
static const char *refuse_push(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_bank_push);
}
static const char *refuse_ring(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_ring_next);
}
static const char *refuse_fold(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_space_to_depth);
}
static const char *refuse_unfold(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_depth_to_space);
}
static const char *refuse_crop(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_crop);
}

const md_lowering md_move_rows[] = {
    {"concat pieces", refuse_concat, emit_pieces},
    {"pad pieces", refuse_pad, emit_pieces},
    {"gather rows", refuse_gather, emit_gather_rows},
    {"scatter rows", refuse_scatter, emit_scatter_rows},
    {"bank push", refuse_push, emit_bank_push},
    {"ring next", refuse_ring, emit_ring_next},
    {"crop", refuse_crop, emit_crop},
    {"fold", refuse_fold, emit_fold},
    {"unfold", refuse_unfold, emit_fold},
    {0},
};
