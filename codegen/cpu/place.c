// SPDX-License-Identifier: Apache-2.0
// Where an element of a result comes from: index maps of views and of lettered axes, and the
// address of an element in memory. An index is affine in the lane (base + lane * step) as long as
// it can be, else a vector of its own; axes stay merged as long as no map takes them apart.
#include "codegen/cpu/place.h"

#include <string.h>

static md_index scalar_index(md_ir base) { return (md_index){.base = base}; }

static int64_t const_or(md_ir v, int64_t otherwise) {
  return LLVMIsAConstantInt(v) ? LLVMConstIntGetSExtValue(v) : otherwise;
}

// The index of every lane: <lanes x i64>, or i64 for one lane.
md_ir md_index_vector(md_emit *e, const md_index *x, int lanes) {
  if (x->vec) return x->vec;
  md_ir base = md_splat(e, x->base, lanes);
  return x->step ? md_iadd(e, base, md_iota(e, e->i64, lanes, 0, x->step)) : base;
}

bool md_index_equal(const md_index *a, const md_index *b) {
  return a->base == b->base && a->step == b->step && a->vec == b->vec;
}

static md_index index_scale(md_emit *e, md_index x, int64_t by, int lanes) {
  if (x.vec) return (md_index){.vec = md_imulc(e, x.vec, by)};
  bool aligned = x.aligned || by % lanes == 0 || const_or(x.base, 1) * by % lanes == 0;
  return (md_index){.base = md_imulc(e, x.base, by), .step = x.step * by, .aligned = aligned};
}

static md_index index_add(md_emit *e, md_index a, md_index b, int lanes) {
  if (a.vec || b.vec) {
    return (md_index){.vec =
                          md_iadd(e, md_index_vector(e, &a, lanes), md_index_vector(e, &b, lanes))};
  }
  bool a_aligned = a.aligned || const_or(a.base, 1) % lanes == 0;
  bool b_aligned = b.aligned || const_or(b.base, 1) % lanes == 0;
  return (md_index){.base = md_iadd(e, a.base, b.base),
                    .step = a.step + b.step,
                    .aligned = a_aligned && b_aligned};
}

// x / by and x % by of a row-major index. Lanes that stay within one multiple of `by` stay affine.
static void index_split(md_emit *e, md_index x, int64_t by, int lanes, md_index *high,
                        md_index *low) {
  if (by == 1) {
    *high = x;
    *low = scalar_index(md_i64(e, 0));
    return;
  }
  if (!x.vec && (x.step == 0 || (x.step == 1 && x.aligned && by % lanes == 0))) {
    *high = scalar_index(md_idivc(e, x.base, by));
    *low = (md_index){.base = md_imodc(e, x.base, by), .step = x.step, .aligned = x.step == 1};
    return;
  }
  md_ir v = md_index_vector(e, &x, lanes);
  *high = (md_index){.vec = md_idivc(e, v, by)};
  *low = (md_index){.vec = md_imodc(e, v, by)};
}

// --- places

md_spot md_spot_of(const md_point *p) {
  md_spot s = {.rank = p->rank, .tail = p->tail, .lanes = p->lanes, .mask = p->mask};
  for (int i = 0; i < p->rank && i <= p->tail; i++) {
    bool is_lane_axis = p->lanes > 1 && i == p->lane_axis;
    int64_t step = p->step ? p->step : 1;
    s.at[i] = (md_index){
        .base = p->at[i], .step = is_lane_axis ? step : 0, .aligned = is_lane_axis && !p->step};
  }
  return s;
}

bool md_spot_equal(const md_spot *a, const md_spot *b) {
  if (a->rank != b->rank || a->tail != b->tail || a->lanes != b->lanes || a->mask != b->mask) {
    return false;
  }
  for (int i = 0; i < a->rank && i <= a->tail; i++) {
    if (!md_index_equal(&a->at[i], &b->at[i])) return false;
  }
  return true;
}

// Takes merged axes apart.
static md_spot unmerged(md_emit *e, const md_spot *s, const md_shape *shape) {
  md_spot r = *s;
  if (s->tail >= s->rank) return r;
  md_index rest = s->at[s->tail];
  for (int i = s->rank - 1; i > s->tail; i--) {
    index_split(e, rest, shape->dim[i], s->lanes, &rest, &r.at[i]);
  }
  r.at[s->tail] = rest;
  r.tail = s->rank;
  return r;
}

// Row-major index over axes first..last-1 of an unmerged spot.
static md_index flat_index(md_emit *e, const md_spot *s, const md_shape *shape, int first,
                           int last) {
  md_index flat = scalar_index(md_i64(e, 0));
  int64_t stride = 1;
  for (int i = last - 1; i >= first; i--) {
    if (shape->dim[i] == 1) continue;
    flat = index_add(e, flat, index_scale(e, s->at[i], stride, s->lanes), s->lanes);
    stride *= shape->dim[i];
  }
  return flat;
}

md_index md_flat_index(md_emit *e, const md_spot *s, const md_shape *shape) {
  int last = MD_MIN(s->tail, s->rank);
  if (last == s->rank) return flat_index(e, s, shape, 0, s->rank);
  int64_t inner = 1;
  for (int i = last; i < s->rank; i++) inner *= shape->dim[i];
  md_index flat = index_scale(e, flat_index(e, s, shape, 0, last), inner, s->lanes);
  return index_add(e, flat, s->at[last], s->lanes);
}

// Merged axes tail.. of a result: may they stay so in an operand whose axis j is result axis
// from[j]? *start: the operand's first merged axis. *touched: does the operand depend on them at
// all?
static bool keeps_tail(const md_shape *shape, const md_shape *in, const int *from, int tail,
                       int *start, bool *touched) {
  int merged = shape->rank - tail;
  bool keep = merged > 0 && in->rank >= merged;
  *start = in->rank - merged;
  *touched = false;
  for (int j = 0; j < in->rank; j++) {
    if (j < *start) keep = keep && from[j] < tail;
    else if (from[j] != tail + j - *start || in->dim[j] != shape->dim[from[j]]) keep = false;
    *touched = *touched || (from[j] >= tail && in->dim[j] > 1);
  }
  return keep;
}

// Operand axis j is result axis from[j]; -1, or an operand axis of size 1: index 0.
static md_spot pick_axes(md_emit *e, const md_spot *s, const md_shape *shape, const md_shape *in,
                         const int *from) {
  int start;
  bool touched, keep = keeps_tail(shape, in, from, s->tail, &start, &touched);
  md_spot full = keep || !touched ? *s : unmerged(e, s, shape);
  md_spot r = {
      .rank = in->rank, .tail = keep ? start : in->rank, .lanes = s->lanes, .mask = s->mask};
  for (int j = 0; j < in->rank && j <= r.tail; j++) {
    bool zero = from[j] < 0 || (in->dim[j] == 1 && !(keep && j == start));
    r.at[j] = zero ? scalar_index(md_i64(e, 0)) : full.at[from[j]];
  }
  return r;
}

// --- lettered axes of a row

// Axis names of a pattern for a tensor of `rank`; "*" stands for the rest.
static int axis_of(const md_operand_spec *spec, int rank, const char *name) {
  for (int i = 0; i < spec->num_axes; i++) {
    if (!strcmp(spec->axis[i], name)) return i < rank ? i : -1;
  }
  return -1;
}

static bool is_star(const md_operand_spec *spec, int i) {
  return i >= spec->num_axes - 1 && !strcmp(spec->axis[spec->num_axes - 1], "*");
}

// Result axis of each axis of operand k; -1: none. *group: the operand's axis `g`, or -1.
static void operand_axes(const md_graph *g, const md_node *n, int k, int *from, int *group) {
  const md_shape *out = &md_type_in(g, n->out)->shape, *in = &md_type_in(g, n->in[k])->shape;
  bool same = md_op_num_out(n->op) == 0;  // its shape comes from a function: element by element
  const md_operand_spec *so = same ? NULL : md_op_out(n->op, 0);
  const md_operand_spec *si = md_op_in(n->op, k);
  *group = -1;
  for (int j = 0; j < in->rank; j++) {
    if (same) {
      from[j] = j;
    } else if (is_star(si, j)) {
      from[j] = so->num_axes - 1 + (j - (si->num_axes - 1));
    } else {
      from[j] = axis_of(so, out->rank, si->axis[j]);
      if (from[j] < 0 && !strcmp(si->axis[j], "g")) *group = j;
    }
  }
}

md_spot md_spot_operand(md_emit *e, const md_graph *g, const md_node *n, int k, const md_spot *s) {
  const md_shape *out = &md_type_in(g, n->out)->shape, *in = &md_type_in(g, n->in[k])->shape;
  int from[MD_MAX_RANK] = {0}, group;
  operand_axes(g, n, k, from, &group);
  md_spot r = pick_axes(e, s, out, in, from);
  if (group < 0 || in->dim[group] == 1) return r;
  // Element n of N belongs to group n * G / N; axis n is the first.
  md_spot full = s->tail == 0 ? unmerged(e, s, out) : *s;
  md_index scaled = index_scale(e, full.at[0], in->dim[group], s->lanes), rest;
  index_split(e, scaled, out->dim[0], s->lanes, &r.at[group], &rest);
  return r;
}

// --- views

static void view_axes(const md_node *n, int rank, int *from) {
  const md_dims *axes = n->op == MD_OP_broadcast ? &n->attr.shape.axes : &n->attr.axes.axes;
  for (int i = 0; i < rank; i++) {
    if (n->op == MD_OP_broadcast) from[i] = (int)axes->d[i];
    else from[axes->d[i]] = i;
  }
}

static md_spot of_slice(md_emit *e, const md_node *n, const md_spot *s, const md_shape *out) {
  int axis = (int)n->attr.slice.axis;
  md_spot r = axis > s->tail ? unmerged(e, s, out) : *s;
  int64_t inner = 1;
  if (axis == r.tail) {
    for (int i = axis + 1; i < out->rank; i++) inner *= out->dim[i];
  }
  md_index start = scalar_index(md_i64(e, n->attr.slice.start * inner));
  r.at[axis] = index_add(e, r.at[axis], start, s->lanes);
  return r;
}

static md_spot of_flip(md_emit *e, const md_node *n, const md_spot *s, const md_shape *out) {
  int axis = (int)n->attr.slice.axis;
  md_spot r = axis >= s->tail ? unmerged(e, s, out) : *s;
  md_index x = r.at[axis];
  md_ir last = md_i64(e, out->dim[axis] - 1);
  if (x.vec) r.at[axis].vec = md_isub(e, md_splat(e, last, s->lanes), x.vec);
  else r.at[axis] = (md_index){.base = md_isub(e, last, x.base), .step = -x.step};
  return r;
}

// Both shapes are cut into the smallest groups of axes with equal products; what is not in a
// changed group keeps its index. A changed last group stays merged in the operand.
static md_spot of_reshape(md_emit *e, const md_spot *s, const md_shape *out, const md_shape *in) {
  md_spot r = {.rank = in->rank, .tail = in->rank, .lanes = s->lanes, .mask = s->mask};
  md_spot full = *s;
  int i = 0, j = 0;
  while (i < out->rank && j < in->rank) {
    int i0 = i, j0 = j;
    int64_t pi = out->dim[i++], pj = in->dim[j++];
    while (pi != pj) {
      if (pi < pj) pi *= out->dim[i++];
      else pj *= in->dim[j++];
    }
    if (i0 == full.tail &&
        full.tail < full.rank) {  // the groups from here on are merged as they are
      r.tail = j0;
      r.at[j0] = full.at[i0];
      return r;
    }
    if (i > full.tail && full.tail < full.rank) full = unmerged(e, &full, out);
    if (i - i0 == 1 && j - j0 == 1) {
      r.at[j0] = full.at[i0];
      continue;
    }
    md_index rest = flat_index(e, &full, out, i0, i);
    bool last = true;
    for (int k = j; k < in->rank; k++) last = last && in->dim[k] == 1;
    if (last && j - j0 > 1) {
      r.tail = j0;
      r.at[j0] = rest;
      return r;
    }
    for (int k = j - 1; k > j0; k--) index_split(e, rest, in->dim[k], s->lanes, &rest, &r.at[k]);
    r.at[j0] = rest;
  }
  for (; j < in->rank; j++) r.at[j] = scalar_index(md_i64(e, 0));
  return r;
}

md_spot md_spot_view(md_emit *e, const md_graph *g, const md_node *n, const md_spot *s) {
  const md_shape *out = &md_type_in(g, n->out)->shape, *in = &md_type_in(g, n->in[0])->shape;
  switch (n->op) {
  case MD_OP_broadcast:
  case MD_OP_transpose: {
    int from[MD_MAX_RANK] = {0};
    view_axes(n, in->rank, from);
    return pick_axes(e, s, out, in, from);
  }
  case MD_OP_slice: return of_slice(e, n, s, out);
  case MD_OP_flip: return of_flip(e, n, s, out);
  default: return of_reshape(e, s, out, in);
  }
}

bool md_keeps_merged(const md_graph *g, const md_node *n, int k, int tail, int *in_tail) {
  const md_shape *out = &md_type_in(g, n->out)->shape, *in = &md_type_in(g, n->in[k])->shape;
  *in_tail = in->rank;
  if (tail >= out->rank) return true;
  int from[MD_MAX_RANK] = {0}, start, group = -1;
  bool touched, is_view = md_ops[n->op].role == MD_VIEW;
  if (n->op == MD_OP_slice || n->op == MD_OP_flip) {
    *in_tail = tail;
    int axis = (int)n->attr.slice.axis;
    return n->op == MD_OP_slice ? axis <= tail : axis < tail;
  }
  if (n->op == MD_OP_reshape) {
    int64_t inner = 1, of_in = 1;
    for (int i = tail; i < out->rank; i++) inner *= out->dim[i];
    int j = in->rank;
    while (j > 0 && of_in < inner) of_in *= in->dim[--j];
    *in_tail = j;
    return of_in == inner && (tail == 0 || j > 0 || out->dim[0] == 1);
  }
  if (is_view) view_axes(n, in->rank, from);
  else operand_axes(g, n, k, from, &group);
  bool keep = keeps_tail(out, in, from, tail, &start, &touched);
  if (keep) *in_tail = start;
  return (keep || !touched) && (group < 0 || in->dim[group] == 1 || tail > 0);
}

// --- memory

// Offset in elements of a tensor of type t at s.
md_index md_spot_offset(md_emit *e, const md_type *t, const md_spot *s) {
  if (t->block == 0) return md_flat_index(e, s, &t->shape);
  md_spot full = s->tail < 2 ? unmerged(e, s, &t->shape) : *s;
  int lanes = s->lanes, rank = t->shape.rank;
  int64_t block = t->block, plane = 1;
  for (int i = 2; i < rank; i++) plane *= t->shape.dim[i];
  md_index inner = scalar_index(md_i64(e, 0));
  if (full.tail < rank) {
    inner = full.at[full.tail];
    int64_t stride = 1;
    for (int i = full.tail; i < rank; i++) stride *= t->shape.dim[i];
    for (int i = full.tail - 1; i >= 2; i--) {
      inner = index_add(e, inner, index_scale(e, full.at[i], stride, lanes), lanes);
      stride *= t->shape.dim[i];
    }
  } else if (rank > 2) {
    inner = flat_index(e, &full, &t->shape, 2, rank);
  }
  md_index high, low;
  index_split(e, full.at[1], block, lanes, &high, &low);
  int64_t blocks = md_ceil_div(t->shape.dim[1], block);
  md_index at = index_scale(e, full.at[0], blocks, lanes);
  at = index_add(e, at, high, lanes);
  at = index_add(e, index_scale(e, at, plane, lanes), inner, lanes);
  return index_add(e, index_scale(e, at, block, lanes), low, lanes);
}
