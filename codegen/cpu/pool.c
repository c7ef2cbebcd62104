// SPDX-License-Identifier: Apache-2.0
// Pooling over t, h, w. Lanes are channels where the result is blocked (or summed per channel). An
// item is a run of rows (t, h) of one channel block of one sample. For a row of maxima the rows of the
// windows are laid out in scratch first, prologue applied, -inf around them: windows overlap.
//
// Both gradients gather: an element of dx looks at the windows that contain it. On an axis, element i
// lies in window p when p*stride - pad <= i < p*stride - pad + kernel.
#include "codegen/cpu/parts.h"

#include <math.h>

enum { MAX_PARTS = 16, MIN_PART_VECTORS = 512 };

typedef struct Pool {
  md_kernel *k;
  const md_node *node;
  const md_pool3d_attr *a;   // of gradients too: they begin with the same words
  const md_shape *in, *out;  // of operand 0 and of the result
  md_sums *sums;
  LLVMTypeRef type;
  int lanes;
  int64_t blocks, rows, parts, per_part;
  int64_t scratch;  // bytes
} Pool;

static Pool pool_of(md_kernel *k) {
  const md_graph *g = k->r->g;
  const md_node *n = k->r->anchor;
  const md_type *out = md_type_in(g, n->out);
  Pool s = {.k = k,
            .node = n,
            .a = &n->attr.pool3d,
            .in = &md_type_in(g, n->in[0])->shape,
            .out = &out->shape,
            .type = md_compute_type(&k->e, out->dtype)};
  bool across = md_has_sums(k->r);
  for (int i = 0; i < k->r->num_outputs; i++) {
    const md_type *t = md_type_in(g, k->r->output[i]);
    across = across || (t->shape.rank == 5 && t->block);
  }
  s.lanes = across ? k->e.cpu->lanes : 1;
  s.blocks = md_ceil_div(s.out->dim[1], s.lanes);
  s.rows = s.out->dim[2] * s.out->dim[3];
  int64_t vectors = s.rows * s.out->dim[4];
  int64_t most = MD_MIN(MD_MAX(vectors / MIN_PART_VECTORS, 1), MAX_PARTS);
  s.parts = md_split_items(s.rows, most, &s.per_part);
  return s;
}

// Indices first .. last-1 (variables of a loop) on one axis.
typedef struct Range {
  md_ir first, last;
} Range;

// First element of window `at`, perhaps outside of x.
static md_ir window_begin(md_emit *e, const Pool *s, int axis, md_ir at) {
  return md_iaddc(e, md_imulc(e, at, s->a->stride.d[axis]), -s->a->pad.d[axis]);
}

// Elements of x in window `at`.
static Range window(md_emit *e, const Pool *s, const md_shape *x, int axis, md_ir at) {
  int64_t kernel = s->a->kernel.d[axis], pad = s->a->pad.d[axis];
  md_ir first = window_begin(e, s, axis, at);
  md_ir last = md_iaddc(e, first, kernel);
  int64_t top = (s->out->dim[2 + axis] - 1) * s->a->stride.d[axis] - pad + kernel;
  if (pad) first = md_imax(e, first, md_i64(e, 0));
  if (top > x->dim[2 + axis]) last = md_imin(e, last, md_i64(e, x->dim[2 + axis]));
  return (Range){first, last};
}

// Windows of y that contain element i.
static Range windows_of(md_emit *e, const Pool *s, const md_shape *y, int axis, md_ir i) {
  int64_t kernel = s->a->kernel.d[axis], stride = s->a->stride.d[axis];
  md_ir from_pad = md_iaddc(e, i, s->a->pad.d[axis]);
  // ceil((i + pad - kernel + 1) / stride), where that is positive
  md_ir first = md_imax(e, md_iaddc(e, from_pad, stride - kernel), md_i64(e, 0));
  md_ir last = md_iaddc(e, md_idivc(e, from_pad, stride), 1);
  return (Range){md_idivc(e, first, stride), md_imin(e, last, md_i64(e, y->dim[2 + axis]))};
}

typedef struct Loops {
  md_loop axis[3];
} Loops;

static Loops loops_begin(md_emit *e, const Range r[3]) {
  Loops l;
  for (int i = 0; i < 3; i++) l.axis[i] = md_loop_begin(e, r[i].first, r[i].last, 1, "tap");
  return l;
}

static void loops_end(md_emit *e, Loops *l) {
  for (int i = 2; i >= 0; i--) md_loop_end(e, &l->axis[i]);
}

// p with other indices on t, h, w.
static md_point moved(const md_point *p, const Loops *l) {
  md_point q = *p;
  for (int i = 0; i < 3; i++) q.at[2 + i] = l->axis[i].i;
  return q;
}

static md_ir value(const Pool *s, int operand, const md_point *p) {
  md_body b;
  md_body_init(&b, s->k);
  return md_body_value(&b, s->node->in[operand], p);
}

// An index: place `at` of the window on each axis.
static md_ir window_place(md_emit *e, const Pool *s, const md_ir at[3]) {
  const int64_t *kernel = s->a->kernel.d;
  md_ir row = md_iadd(e, md_imulc(e, at[0], kernel[1]), at[1]);
  return md_convert(e, md_iadd(e, md_imulc(e, row, kernel[2]), at[2]), e->i32);
}

// What is made at a point of the result; sets the anchor's results in b.
typedef void Make(const Pool *s, md_body *b, const md_point *p);
// What is made before the points of a row.
typedef void Prepare(const Pool *s, const md_point *p);

// The rows of an item, point by point.
static void emit_pool(Pool *s, Prepare *prepare, Make *make) {
  md_kernel *k = s->k;
  md_emit *e = &k->e;
  md_finish_kept(k);
  s->sums = md_sums_create(k, s->parts, 1);
  md_phase_begin(k, md_ops[s->node->op].name, s->out->dim[0] * s->blocks * s->parts, s->scratch);
  const int64_t size[] = {s->out->dim[0], s->blocks, s->parts};
  md_ir index[3], mask = NULL;
  md_split_index(e, k->item, 3, size, index);
  md_ir channel = md_imulc(e, index[1], s->lanes);
  if (s->out->dim[1] % s->lanes)
    mask = md_first_lanes(e, md_isub(e, md_i64(e, s->out->dim[1]), channel), s->lanes);
  md_ir first = md_imulc(e, index[2], s->per_part);
  md_ir last = md_imin(e, md_iaddc(e, first, s->per_part), md_i64(e, s->rows));
  md_sums_clear(s->sums, 1);
  md_loop row = md_loop_begin(e, first, last, 1, "row");
  md_ir at[5] = {index[0], channel, md_idivc(e, row.i, s->out->dim[3]),
                 md_imodc(e, row.i, s->out->dim[3]), md_i64(e, 0)};
  md_point p = md_point_of(5, at, 1, s->lanes, mask);
  if (prepare) prepare(s, &p);
  md_loop w = md_loop_begin(e, md_i64(e, 0), md_i64(e, s->out->dim[4]), 1, "w");
  p.at[4] = w.i;
  md_body b;
  md_body_init(&b, k);
  make(s, &b, &p);
  md_sums_add(s->sums, 0, &b, &p);
  md_finish_store(&b, &p);
  md_loop_end(e, &w);
  md_sums_row(s->sums, 1);
  md_loop_end(e, &row);
  md_sums_store(s->sums, 0, index[0], index[1], index[2]);
  md_phase_end(k);
  md_sums_finish(s->sums);
}

// --- maximum

static md_dtype scratch_dtype(const Pool *s) {
  return md_wide_dtype(md_type_in(s->k->r->g, s->node->out)->dtype);
}

// Elements of a row of the windows of a row of results.
static int64_t window_width(const Pool *s) {
  return (s->out->dim[4] - 1) * s->a->stride.d[2] + s->a->kernel.d[2];
}

// Elements j0 .. j1-1 of row `row` of the windows, from the row that q lies in or -inf (NULL).
static void lay_out(const Pool *s, md_ir row, int64_t j0, int64_t j1, const md_point *q) {
  md_emit *e = &s->k->e;
  if (j0 >= j1) return;
  md_loop j = md_loop_begin(e, md_i64(e, j0), md_i64(e, j1), 1, "x");
  md_ir x = md_const(e, s->type, s->lanes, -INFINITY);
  if (q) {
    md_point p = *q;
    p.at[4] = md_iaddc(e, j.i, -s->a->pad.d[2]);
    x = value(s, 0, &p);
  }
  md_ir at = md_iadd(e, md_imulc(e, row, window_width(s)), j.i);
  md_store(e, scratch_dtype(s), s->k->scratch, md_imulc(e, at, s->lanes), x, NULL);
  md_loop_end(e, &j);
}

static void lay_out_windows(const Pool *s, const md_point *p) {
  md_emit *e = &s->k->e;
  const int64_t *kernel = s->a->kernel.d, width = window_width(s);
  int64_t j0 = MD_MIN(s->a->pad.d[2], width), j1 = MD_MIN(s->in->dim[4] + s->a->pad.d[2], width);
  md_loop t = md_loop_begin(e, md_i64(e, 0), md_i64(e, kernel[0]), 1, "t");
  md_loop h = md_loop_begin(e, md_i64(e, 0), md_i64(e, kernel[1]), 1, "h");
  md_ir row = md_iadd(e, md_imulc(e, t.i, kernel[1]), h.i);
  md_point q = *p;
  q.at[2] = md_iadd(e, window_begin(e, s, 0, p->at[2]), t.i);
  q.at[3] = md_iadd(e, window_begin(e, s, 1, p->at[3]), h.i);
  md_ir inside = NULL;
  for (int i = 2; i < 4; i++) {
    md_ir in = LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, -1), q.at[i]),
                            md_ilt(e, q.at[i], md_i64(e, s->in->dim[i])), "");
    inside = inside ? LLVMBuildAnd(e->b, inside, in, "") : in;
  }
  md_if f = md_if_begin(e, inside, "inside");
  lay_out(s, row, 0, j0, NULL);
  lay_out(s, row, j0, j1, &q);
  lay_out(s, row, j1, width, NULL);
  md_if_else(e, &f);
  lay_out(s, row, 0, width, NULL);
  md_if_end(e, &f);
  md_loop_end(e, &h);
  md_loop_end(e, &t);
}

// The window's first element is the winner until another is larger, or the first NaN. No -inf around
// x is larger than anything.
static void make_max(const Pool *s, md_body *b, const md_point *p) {
  md_emit *e = &s->k->e;
  const int64_t *kernel = s->a->kernel.d;
  md_ir zero = md_i64(e, 0), first[3];
  Range tap[3];
  for (int i = 0; i < 3; i++) {
    first[i] = md_imax(e, md_isub(e, zero, window_begin(e, s, i, p->at[2 + i])), zero);
    tap[i] = (Range){zero, md_i64(e, kernel[i])};
  }
  md_var best = md_var_new(e, md_lanes_type(s->type, s->lanes), NULL, "best");
  md_var winner = md_var_new(e, md_lanes_type(e->i32, s->lanes), NULL, "winner");
  md_set(e, best, md_const(e, s->type, s->lanes, -INFINITY));
  md_set(e, winner, md_splat(e, window_place(e, s, first), s->lanes));
  Loops l = loops_begin(e, tap);
  md_ir row = md_iadd(e, md_imulc(e, l.axis[0].i, kernel[1]), l.axis[1].i);
  md_ir at = md_iadd(e, md_imulc(e, row, window_width(s)), l.axis[2].i);
  at = md_iadd(e, at, md_imulc(e, p->at[4], s->a->stride.d[2]));
  md_ir x = md_load(e, scratch_dtype(s), s->k->scratch, md_imulc(e, at, s->lanes), s->lanes, NULL);
  md_ir old = md_get(e, best), larger = LLVMBuildFCmp(e->b, LLVMRealUGT, x, old, "");
  md_ir take = LLVMBuildAnd(e->b, larger, LLVMBuildFCmp(e->b, LLVMRealORD, old, old, ""), "");
  md_set(e, best, md_select(e, take, x, old));
  const md_ir now[] = {l.axis[0].i, l.axis[1].i, l.axis[2].i};
  md_ir here = md_splat(e, window_place(e, s, now), s->lanes);
  md_set(e, winner, md_select(e, take, here, md_get(e, winner)));
  loops_end(e, &l);
  md_finish_set(b, s->node->out, md_get(e, best));
  md_body_set(b, s->node->out + 1, md_get(e, winner));
}

static void emit_max(md_kernel *k) {
  Pool s = pool_of(k);
  const int64_t *kernel = s.a->kernel.d;
  s.scratch = kernel[0] * kernel[1] * window_width(&s) * s.lanes * md_dtype_size(scratch_dtype(&s));
  emit_pool(&s, lay_out_windows, make_max);
}

static void make_max_grad(const Pool *s, md_body *b, const md_point *p) {
  md_emit *e = &s->k->e;
  Range r[3];
  for (int i = 0; i < 3; i++) r[i] = windows_of(e, s, s->in, i, p->at[2 + i]);
  md_var sum = md_var_new(e, md_lanes_type(s->type, s->lanes), NULL, "sum");
  md_set(e, sum, md_zero(sum.type));
  Loops l = loops_begin(e, r);
  md_point q = moved(p, &l);
  md_ir at[3];
  for (int i = 0; i < 3; i++) at[i] = md_isub(e, p->at[2 + i], window_begin(e, s, i, l.axis[i].i));
  md_ir here = md_splat(e, window_place(e, s, at), s->lanes);
  md_ir dy = value(s, 0, &q), hit = md_ieq(e, value(s, 1, &q), here);
  dy = md_select(e, hit, dy, md_zero(LLVMTypeOf(dy)));
  md_set(e, sum, md_fadd(e, md_get(e, sum), dy));
  loops_end(e, &l);
  md_finish_set(b, s->node->out, md_get(e, sum));
}

static void emit_max_grad(md_kernel *k) {
  Pool s = pool_of(k);
  emit_pool(&s, NULL, make_max_grad);
}

// --- mean

static void make_mean(const Pool *s, md_body *b, const md_point *p, bool backward) {
  md_emit *e = &s->k->e;
  const int64_t *kernel = s->a->kernel.d;
  Range r[3];
  for (int i = 0; i < 3; i++) {
    r[i] =
        backward ? windows_of(e, s, s->in, i, p->at[2 + i]) : window(e, s, s->in, i, p->at[2 + i]);
  }
  md_var sum = md_var_new(e, md_lanes_type(s->type, s->lanes), NULL, "sum");
  md_set(e, sum, md_zero(sum.type));
  Loops l = loops_begin(e, r);
  md_point q = moved(p, &l);
  md_set(e, sum, md_fadd(e, md_get(e, sum), value(s, 0, &q)));
  loops_end(e, &l);
  md_ir count = md_const(e, s->type, s->lanes, (double)(kernel[0] * kernel[1] * kernel[2]));
  md_finish_set(b, s->node->out, md_fdiv(e, md_get(e, sum), count));
}

static void make_avg(const Pool *s, md_body *b, const md_point *p) { make_mean(s, b, p, false); }
static void make_avg_grad(const Pool *s, md_body *b, const md_point *p) {
  make_mean(s, b, p, true);
}

static void emit_avg(md_kernel *k) {
  Pool s = pool_of(k);
  emit_pool(&s, NULL, make_avg);
}

static void emit_avg_grad(md_kernel *k) {
  Pool s = pool_of(k);
  emit_pool(&s, NULL, make_avg_grad);
}

// --- rows of the table

static const char *refuse_op(const md_region_view *r, const md_cpu *cpu, md_op op) {
  if (!r->anchor || r->anchor->op != op) return "";
  return md_finish_refuse(r, cpu, true);
}
static const char *refuse_max(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_max_pool3d);
}
static const char *refuse_max_grad(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_max_pool3d_grad);
}
static const char *refuse_avg(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_avg_pool3d);
}
static const char *refuse_avg_grad(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_avg_pool3d_grad);
}

const md_lowering md_pool_rows[] = {
    {"max pool windows", refuse_max, emit_max},
    {"max pool gradient gather", refuse_max_grad, emit_max_grad},
    {"avg pool windows", refuse_avg, emit_avg},
    {"avg pool gradient gather", refuse_avg_grad, emit_avg_grad},
    {0},
};
