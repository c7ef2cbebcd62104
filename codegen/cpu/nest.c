// SPDX-License-Identifier: Apache-2.0
// The loops of a stream region. An axis is kept (it is in the reductions' results) or folded. Kept
// axes make cells; a cell's places are walked by the folded axes, the innermost of them a plain
// loop:
//
//   item -> cells x part:    for cell:  acc = 0
//                                       for outer in part:  for inner:  store values, acc += terms
//                                       results, or partials when a cell has several parts
//   merge -> cells:          results = partials joined in order
//
// Without reductions no axis is kept and parts are all that items are made of. How the work is cut
// depends on shapes only.
#include "codegen/cpu/nest.h"

#include <string.h>

enum {
  MAX_ITEMS = 64,
  ITEM_WORK = 1 << 14,  // elements that are worth an item
  CHUNK = 1 << 12,      // elements of the flat axis that one inner loop walks
};

// index of axis += i * scale, i < count
typedef struct Axis {
  int axis;
  int64_t count, scale;
  bool kept;
} Axis;

typedef struct Walk {
  md_nest *n;
  md_kernel *k;
  md_emit *e;
  int lanes, lane_axis, tail;
  int64_t flat;  // length of the merged axes
  int64_t flat_step;
  bool flat_kept, lanes_kept;
  int num_kept, num_folded;  // folded: all but the inner loop
  Axis kept[MD_MAX_RANK + 2], folded[MD_MAX_RANK + 2];
  bool inner_is_flat;
  int64_t chunk;  // inner_is_flat: elements of the flat axis
  Axis inner;     // else
  int64_t cells, domain, parts;
  int num_acc;
  md_var acc[MD_NEST_VALUES * MD_MAX_QUANTITIES];
  int64_t partials;  // in the workspace
} Walk;

static int64_t product(const Axis *a, int num) {
  int64_t p = 1;
  for (int i = 0; i < num; i++) p *= a[i].count;
  return p;
}

static bool is_kept(const md_nest *n, int axis) { return n->kept >> (unsigned)axis & 1; }

static void add_axis(Walk *w, Axis a) {
  if (a.count == 1) return;
  if (a.kept) w->kept[w->num_kept++] = a;
  else w->folded[w->num_folded++] = a;
}

// --- plan

static void plan_lanes(Walk *w) {
  const md_nest *n = w->n;
  const md_shape *s = n->shape;
  int run = s->rank - 1;  // start of the last axes that are all kept or all folded
  while (run > 0 && is_kept(n, run - 1) == is_kept(n, s->rank - 1)) run--;
  if (n->groups > 1) run = MD_MAX(run, 1);
  w->tail = MD_MAX(n->min_tail, run);
  if (n->block) w->tail = MD_MAX(MD_MIN(w->tail, s->rank - 1), 2);
  else w->tail = MD_MIN(w->tail, s->rank - 1);
  w->flat = 1;
  for (int i = w->tail; i < s->rank; i++) w->flat *= s->dim[i];
  w->lanes = n->block ? MD_MIN(n->block, w->e->cpu->lanes) : w->e->cpu->lanes;
  if (w->flat < w->lanes / 2 && !n->block) w->lanes = 1;
  w->lane_axis = n->block ? 1 : w->tail;
  w->lanes_kept = is_kept(n, n->block ? 1 : s->rank - 1);
  w->flat_kept = w->tail < s->rank && is_kept(n, s->rank - 1);
  w->flat_step = n->block ? 1 : w->lanes;
}

static void plan_axes(Walk *w) {
  const md_nest *n = w->n;
  const md_shape *s = n->shape;
  for (int i = 0; i < w->tail; i++) {
    int64_t size = s->dim[i];
    if (i == 0 && n->groups > 1) {
      add_axis(w, (Axis){0, n->groups, size / n->groups, true});
      size /= n->groups;
    }
    bool is_lane = n->block && i == 1;
    Axis a = {i, is_lane ? md_ceil_div(size, w->lanes) : size, is_lane ? w->lanes : 1,
              is_kept(n, i) && !(i == 0 && n->groups > 1)};
    add_axis(w, a);
  }
  if (w->flat_kept) {
    add_axis(w, (Axis){w->tail, md_ceil_div(w->flat, w->flat_step), w->flat_step, true});
    if (w->num_folded > 0) w->inner = w->folded[--w->num_folded];
    else w->inner = (Axis){0, 1, 0, false};
  } else {
    w->inner_is_flat = true;
    w->chunk = w->flat;
    int64_t chunk = md_round_up(MD_MAX(CHUNK / (n->block ? w->lanes : 1), 1), w->lanes);
    if (product(w->folded, w->num_folded) < MAX_ITEMS && chunk < w->flat) {
      w->chunk = chunk;
      add_axis(w, (Axis){w->tail, md_ceil_div(w->flat, chunk), chunk, false});
    }
  }
  w->cells = product(w->kept, w->num_kept);
  w->domain = product(w->folded, w->num_folded);
  int64_t work = md_elements(s) / w->cells;  // of a cell
  int64_t wanted = MD_MIN(md_ceil_div(work, ITEM_WORK), MD_MAX(MAX_ITEMS / w->cells, 1));
  w->parts = MD_MAX(MD_MIN(wanted, w->domain), 1);
  w->parts = md_ceil_div(w->domain, md_ceil_div(w->domain, w->parts));  // none is empty
}

// --- places

static void set_index(Walk *w, const Axis *axes, int num, md_ir at, md_ir *index) {
  int64_t size[MD_MAX_RANK + 2] = {0};
  md_ir i[MD_MAX_RANK + 2];
  for (int k = 0; k < num; k++) size[k] = axes[k].count;
  md_split_index(w->e, at, num, size, i);
  for (int k = 0; k < num; k++) {
    md_ir *to = &index[axes[k].axis];
    *to = md_iadd(w->e, *to, md_imulc(w->e, i[k], axes[k].scale));
  }
}

static md_ir lane_mask(Walk *w, const md_ir *index) {
  int64_t size = w->n->block ? w->n->shape->dim[1] : w->flat;
  if (w->lanes == 1 || size % w->lanes == 0) return NULL;
  md_ir left = md_isub(w->e, md_i64(w->e, size), index[w->lane_axis]);
  return md_first_lanes(w->e, left, w->lanes);
}

static md_point point_at(const Walk *w, const md_ir *index, md_ir mask) {
  md_point p = {.rank = w->n->shape->rank,
                .tail = w->tail,
                .lanes = w->lanes,
                .lane_axis = w->lanes > 1 ? w->lane_axis : -1,
                .mask = mask};
  for (int i = 0; i < p.rank && i <= p.tail; i++) p.at[i] = index[i];
  return p;
}

// The place of a cell in the results of a reduction.
static md_point result_at(const Walk *w, const md_node *r, const md_ir *index, md_ir mask) {
  md_emit *e = w->e;
  const md_nest *n = w->n;
  bool has_lanes = w->lanes > 1 && w->lanes_kept;
  md_point p = {
      .lanes = has_lanes ? w->lanes : 1, .lane_axis = -1, .mask = has_lanes ? mask : NULL};
  if (r->op == MD_OP_moments || r->op == MD_OP_batch_norm_sums) {
    int64_t per_group = n->shape->dim[0] / n->groups;
    md_ir at[] = {n->groups > 1 ? md_idivc(e, index[0], per_group) : md_i64(e, 0), index[1]};
    return md_point_of(2, at, 1, p.lanes, p.mask);
  }
  int merged = -1;
  for (int i = 0; i < n->shape->rank; i++) {
    if (!is_kept(n, i)) continue;
    if (i == w->tail) merged = p.rank;
    if (has_lanes && i == w->lane_axis) p.lane_axis = p.rank;
    p.at[p.rank++] = i <= w->tail ? index[i] : NULL;
  }
  if (p.rank == 0) p.at[p.rank++] = md_i64(e, 0);
  p.tail = merged >= 0 ? merged : p.rank;
  return p;
}

// --- code

static void visit(Walk *w, md_body *b, md_ir *index, md_ir mask) {
  md_emit *e = w->e;
  md_point p = point_at(w, index, mask);
  md_body_reset(b);
  int acc = 0;
  for (int i = 0; i < w->n->num_reduces; i++) {
    const md_node *r = w->n->reduce[i];
    md_ir term[MD_MAX_QUANTITIES];
    md_reduce_terms(b, r, &p, b->k->e.f64, term);
    for (int q = 0; q < md_reduce_quantities(r); q++, acc++) {
      if (mask && !w->lanes_kept) {
        term[q] = md_select(e, mask, term[q], md_reduce_neutral(e, r, e->f64, w->lanes));
      }
      md_set(e, w->acc[acc], md_reduce_join(e, r, md_get(e, w->acc[acc]), term[q]));
    }
  }
  md_ir value[MD_NEST_VALUES];  // all before the first store: it may lie over an operand
  for (int i = 0; i < w->n->num_stores; i++) value[i] = md_body_value(b, w->n->store[i], &p);
  for (int i = 0; i < w->n->num_stores; i++) md_body_store(b, w->n->store[i], &p, value[i]);
}

static void visit_flat(Walk *w, md_body *b, md_ir *index) {
  md_emit *e = w->e;
  md_ir begin = index[w->tail], end = md_i64(e, w->flat);
  if (w->tail == w->n->shape->rank) {  // blocked, and no axes beyond the channels
    visit(w, b, index, lane_mask(w, index));
    return;
  }
  if (w->chunk < w->flat) end = md_imin(e, md_iaddc(e, begin, w->chunk), end);
  md_ir at[MD_MAX_RANK];
  memcpy(at, index, sizeof at);
  if (w->n->block || w->lanes == 1) {
    md_ir mask = w->n->block ? lane_mask(w, index) : NULL;
    md_loop l = md_loop_begin(e, begin, end, 1, "p");
    at[w->tail] = l.i;
    visit(w, b, at, mask);
    md_loop_end(e, &l);
    return;
  }
  bool exact = w->flat % w->lanes == 0;
  md_ir length = md_isub(e, end, begin);
  md_ir whole =
      exact ? end : md_iadd(e, begin, md_imulc(e, md_idivc(e, length, w->lanes), w->lanes));
  md_loop l = md_loop_begin(e, begin, whole, w->lanes, "p");
  at[w->tail] = l.i;
  visit(w, b, at, NULL);
  md_loop_end(e, &l);
  if (exact) return;
  md_if rest = md_if_begin(e, md_ilt(e, whole, end), "rest");
  at[w->tail] = whole;
  visit(w, b, at, md_first_lanes(e, md_isub(e, end, whole), w->lanes));
  md_if_end(e, &rest);
}

static int acc_lanes(const Walk *w) { return w->lanes_kept ? w->lanes : 1; }

// Totals of a cell: lanes are joined where they were folded.
static void totals(Walk *w, md_ir *total) {
  for (int i = 0, acc = 0; i < w->n->num_reduces; i++) {
    const md_node *r = w->n->reduce[i];
    for (int q = 0; q < md_reduce_quantities(r); q++, acc++) {
      total[acc] = md_get(w->e, w->acc[acc]);
      if (w->lanes_kept) continue;
      total[acc] = r->op == MD_OP_max ? md_hmax(w->e, total[acc]) : md_hsum(w->e, total[acc]);
    }
  }
}

static void store_results(Walk *w, const md_ir *index, const md_ir *total) {
  md_body b;
  md_body_init(&b, w->k);
  md_ir mask = w->lanes_kept ? lane_mask(w, index) : NULL;
  int64_t count = md_elements(w->n->shape);
  for (int i = 0, acc = 0; i < w->n->num_reduces; i++) {
    const md_node *r = w->n->reduce[i];
    int64_t results = w->n->groups;
    for (int a = 0; a < w->n->shape->rank; a++)
      results *= is_kept(w->n, a) ? w->n->shape->dim[a] : 1;
    md_point p = result_at(w, r, index, mask);
    md_reduce_store(&b, r, count / results, &p, &total[acc]);
    acc += md_reduce_quantities(r);
  }
}

static md_ir partial_offset(Walk *w, md_ir cell, md_ir part, int acc) {
  md_ir at = md_iadd(w->e, md_imulc(w->e, cell, w->parts), part);
  at = md_iaddc(w->e, md_imulc(w->e, at, w->num_acc), acc);
  return md_imulc(w->e, at, acc_lanes(w));
}

static void new_accumulators(Walk *w, int lanes) {
  for (int i = 0, acc = 0; i < w->n->num_reduces; i++) {
    for (int q = 0; q < md_reduce_quantities(w->n->reduce[i]); q++, acc++) {
      w->acc[acc] = md_var_new(w->e, md_lanes_type(w->e->f64, lanes), NULL, "acc");
    }
  }
}

static void clear_accumulators(Walk *w, int lanes) {
  for (int i = 0, acc = 0; i < w->n->num_reduces; i++) {
    const md_node *r = w->n->reduce[i];
    for (int q = 0; q < md_reduce_quantities(r); q++, acc++) {
      md_set(w->e, w->acc[acc], md_reduce_neutral(w->e, r, w->e->f64, lanes));
    }
  }
}

static void zero_index(Walk *w, md_ir *index) {
  for (int i = 0; i < MD_MAX_RANK; i++) index[i] = md_i64(w->e, 0);
}

static void walk_part(Walk *w, md_body *b, const md_ir *cell_index, md_ir part) {
  md_emit *e = w->e;
  int64_t per_part = md_ceil_div(w->domain, w->parts);
  md_ir first = md_imulc(e, part, per_part);
  md_ir last = md_imin(e, md_iaddc(e, first, per_part), md_i64(e, w->domain));
  if (w->domain % w->parts == 0) last = md_iaddc(e, first, per_part);
  if (w->parts == 1) first = md_i64(e, 0), last = md_i64(e, w->domain);
  md_loop outer = md_loop_begin(e, first, last, 1, "outer");
  md_ir index[MD_MAX_RANK];
  memcpy(index, cell_index, sizeof index);
  set_index(w, w->folded, w->num_folded, outer.i, index);
  if (w->inner_is_flat) {
    visit_flat(w, b, index);
  } else {
    md_loop inner = md_loop_begin(e, md_i64(e, 0), md_i64(e, w->inner.count), 1, "inner");
    md_ir *to = &index[w->inner.axis];
    *to = md_iadd(e, *to, md_imulc(e, inner.i, w->inner.scale));
    visit(w, b, index, lane_mask(w, index));
    md_loop_end(e, &inner);
  }
  md_loop_end(e, &outer);
}

static void emit_walk(Walk *w) {
  md_emit *e = w->e;
  int64_t per_item = 1, groups_of_cells = w->cells;
  if (w->parts == 1) groups_of_cells = md_split_items(w->cells, MAX_ITEMS, &per_item);
  md_phase_begin(w->k, w->num_acc ? "reduce" : "stream", groups_of_cells * w->parts, 0);
  md_body b;
  md_body_init(&b, w->k);
  new_accumulators(w, w->lanes);
  int64_t sizes[] = {groups_of_cells, w->parts};
  md_ir at[2];
  md_split_index(e, w->k->item, 2, sizes, at);
  md_ir first = md_imulc(e, at[0], per_item);
  md_ir last = md_iaddc(e, first, per_item);
  if (w->cells % per_item) last = md_imin(e, last, md_i64(e, w->cells));
  if (groups_of_cells == 1) first = md_i64(e, 0), last = md_i64(e, per_item);
  if (w->parts == 1) at[1] = md_i64(e, 0);
  bool single = per_item == 1;
  md_loop cells = {0};
  if (!single) cells = md_loop_begin(e, first, last, 1, "cell");
  md_ir cell = single ? first : cells.i, index[MD_MAX_RANK];
  md_ir total[MD_COUNT(w->acc)] = {0};
  zero_index(w, index);
  set_index(w, w->kept, w->num_kept, cell, index);
  clear_accumulators(w, w->lanes);
  walk_part(w, &b, index, at[1]);
  if (w->num_acc) {
    totals(w, total);
    if (w->parts == 1) store_results(w, index, total);
    else {
      md_ir to = md_workspace(w->k, w->partials);
      for (int i = 0; i < w->num_acc; i++) {
        md_store(e, MD_F64, to, partial_offset(w, cell, at[1], i), total[i], NULL);
      }
    }
  }
  if (!single) md_loop_end(e, &cells);
  md_phase_end(w->k);
}

static void emit_merge(Walk *w) {
  md_emit *e = w->e;
  int lanes = acc_lanes(w);
  md_phase_begin(w->k, "merge", w->cells, 0);
  new_accumulators(w, lanes);
  clear_accumulators(w, lanes);
  md_ir from = md_workspace(w->k, w->partials), index[MD_MAX_RANK];
  md_ir total[MD_COUNT(w->acc)] = {0};
  md_loop l = md_loop_begin(e, md_i64(e, 0), md_i64(e, w->parts), 1, "part");
  for (int i = 0, acc = 0; i < w->n->num_reduces; i++) {
    const md_node *r = w->n->reduce[i];
    for (int q = 0; q < md_reduce_quantities(r); q++, acc++) {
      md_ir x = md_load(e, MD_F64, from, partial_offset(w, w->k->item, l.i, acc), lanes, NULL);
      md_set(e, w->acc[acc], md_reduce_join(e, r, md_get(e, w->acc[acc]), x));
    }
  }
  md_loop_end(e, &l);
  for (int i = 0; i < w->num_acc; i++) total[i] = md_get(e, w->acc[i]);
  zero_index(w, index);
  set_index(w, w->kept, w->num_kept, w->k->item, index);
  store_results(w, index, total);
  md_phase_end(w->k);
}

void md_nest_emit(md_nest *n) {
  Walk w = {.n = n, .k = n->k, .e = &n->k->e};
  plan_lanes(&w);
  plan_axes(&w);
  for (int i = 0; i < n->num_reduces; i++) w.num_acc += md_reduce_quantities(n->reduce[i]);
  if (w.num_acc && w.parts > 1) {
    int64_t bytes = w.cells * w.parts * w.num_acc * acc_lanes(&w) * 8;
    w.partials = md_workspace_reserve(n->k, bytes);
  }
  emit_walk(&w);
  if (w.num_acc && w.parts > 1) emit_merge(&w);
}
