// SPDX-License-Identifier: Apache-2.0
// Work along the rows of a matrix: an item is a run of rows, lanes are columns. Sums are kept in
// double, and e^x is taken with the row's maximum out:
//   lse = top + ln s,  softmax = e^(x - top) / s,  s = sum e^(x - top)
// A row whose maximum is infinite takes s = 1, which gives -inf for a row of -inf and NaN for NaN.
#include "codegen/cpu/parts.h"

#include <math.h>

enum { MAX_ITEMS = 64, ITEM_ELEMENTS = 4096 };

// The matrix that a kernel reads along, and the row at hand.
typedef struct Row {
  md_kernel *k;
  md_val x;
  const md_shape *shape;
  md_dtype dtype;    // of the row kept in scratch
  LLVMTypeRef type;  // compute type of x
  int lanes;
  bool kept;  // the row is made once and kept in scratch
  md_ir at;   // row number
} Row;

typedef void Visit(void *ctx, const Row *r, md_ir x, const md_point *p);

// x at p: from scratch where the row was kept.
static md_ir element(const Row *r, const md_point *p) {
  md_kernel *k = r->k;
  if (r->kept) return md_load(&k->e, r->dtype, k->scratch, p->at[1], p->lanes, NULL);
  md_body b;
  md_body_init(&b, k);
  return md_body_value(&b, r->x, p);
}

// Visits the columns of the row in vectors; the code of `visit` stands at most twice.
static void each_column(const Row *r, Visit *visit, void *ctx) {
  md_emit *e = &r->k->e;
  int64_t len = r->shape->dim[1], whole = len / r->lanes * r->lanes;
  md_ir at[2] = {r->at, NULL};
  if (whole) {
    md_loop j = md_loop_begin(e, md_i64(e, 0), md_i64(e, whole), r->lanes, "column");
    at[1] = j.i;
    md_point p = md_point_of(2, at, 1, r->lanes, NULL);
    visit(ctx, r, element(r, &p), &p);
    md_loop_end(e, &j);
  }
  if (whole == len) return;
  at[1] = md_i64(e, whole);
  md_point p = md_point_of(2, at, 1, r->lanes, md_first_lanes(e, md_i64(e, len - whole), r->lanes));
  visit(ctx, r, element(r, &p), &p);
}

static void keep_element(void *ctx, const Row *r, md_ir x, const md_point *p) {
  (void)ctx;
  md_store(&r->k->e, r->dtype, r->k->scratch, p->at[1], x, NULL);
}

// Begins the phase and the loop over the item's rows. A row that costs more than a load is made once.
static Row rows_begin(md_kernel *k, md_val x, md_loop *loop) {
  md_emit *e = &k->e;
  const md_graph *g = k->r->g;
  const md_type *t = md_type_in(g, x);
  Row r = {.k = k,
           .x = x,
           .shape = &t->shape,
           .dtype = md_wide_dtype(t->dtype),
           .type = md_compute_type(e, t->dtype),
           .lanes = e->cpu->lanes};
  const md_node *inner = md_inner(k->r, x);
  int64_t len = t->shape.dim[1], per, bytes = (len + r.lanes) * md_dtype_size(r.dtype);
  int64_t most = MD_MIN(MD_MAX(md_elements(&t->shape) / ITEM_ELEMENTS, 1), MAX_ITEMS);
  int64_t items = md_split_items(t->shape.dim[0], most, &per);
  md_finish_kept(k);
  md_phase_begin(k, md_ops[k->r->anchor->op].name, items, inner ? bytes : 0);
  md_ir first = md_imulc(e, k->item, per);
  md_ir end = md_imin(e, md_iaddc(e, first, per), md_i64(e, t->shape.dim[0]));
  *loop = md_loop_begin(e, first, end, 1, "row");
  r.at = loop->i;
  if (inner) {
    each_column(&r, keep_element, NULL);
    r.kept = true;
  }
  return r;
}

static void rows_end(md_kernel *k, md_loop *loop) {
  md_loop_end(&k->e, loop);
  md_phase_end(k);
}

static void finish(const Row *r, md_ir value, const md_point *p) {
  md_body b;
  md_body_init(&b, r->k);
  md_finish_set(&b, r->k->r->anchor->out, value);
  md_finish_store(&b, p);
}

// The result [b] of the row.
static void finish_row(const Row *r, md_ir value) {
  md_ir at = r->at;
  md_point p = md_point_of(1, &at, -1, 1, NULL);
  finish(r, value, &p);
}

// Operand v [b] at the row.
static md_ir of_row(const Row *r, md_val v) {
  md_body b;
  md_body_init(&b, r->k);
  md_ir at = r->at;
  md_point p = md_point_of(1, &at, -1, 1, NULL);
  return md_body_value(&b, v, &p);
}

static md_ir masked(md_emit *e, const md_point *p, md_ir x, double off) {
  return p->mask ? md_select(e, p->mask, x, md_const_like(e, x, off)) : x;
}

static md_ir is_infinite(md_emit *e, md_ir x) {
  md_ir size = md_intrinsic(e, "llvm.fabs", &x, 1, LLVMTypeOf(x));
  return LLVMBuildFCmp(e->b, LLVMRealOEQ, size, md_const_like(e, size, INFINITY), "");
}

// --- maximum and sum of exponentials

typedef struct Soft {
  md_var top, sum;
  md_ir max;
} Soft;

static void join_top(void *ctx, const Row *r, md_ir x, const md_point *p) {
  md_emit *e = &r->k->e;
  Soft *s = ctx;
  md_set(e, s->top, md_fmax(e, md_get(e, s->top), masked(e, p, x, -INFINITY)));
}

static void join_exp(void *ctx, const Row *r, md_ir x, const md_point *p) {
  md_emit *e = &r->k->e;
  Soft *s = ctx;
  md_ir y = md_exp_of(e, md_fsub(e, x, md_splat(e, s->max, p->lanes)));
  y = md_convert(e, masked(e, p, y, 0), e->f64);
  md_set(e, s->sum, md_fadd(e, md_get(e, s->sum), y));
}

// max: compute type of x; *sum: double.
static md_ir soft_of(const Row *r, md_ir *sum) {
  md_emit *e = &r->k->e;
  Soft s = {.top = md_var_new(e, md_lanes_type(r->type, r->lanes), NULL, "top"),
            .sum = md_var_new(e, md_lanes_type(e->f64, r->lanes), NULL, "sum")};
  md_set(e, s.top, md_const(e, r->type, r->lanes, -INFINITY));
  md_set(e, s.sum, md_const(e, e->f64, r->lanes, 0));
  each_column(r, join_top, &s);
  s.max = md_hmax(e, md_get(e, s.top));
  each_column(r, join_exp, &s);
  *sum =
      md_select(e, is_infinite(e, s.max), md_const(e, e->f64, 1, 1), md_hsum(e, md_get(e, s.sum)));
  return s.max;
}

// ln s + top - less, in double.
static md_ir log_sum(const Row *r, md_ir less) {
  md_emit *e = &r->k->e;
  md_ir sum, top = md_convert(e, soft_of(r, &sum), e->f64);
  if (less) top = md_fsub(e, top, md_convert(e, less, e->f64));
  return md_convert(e, md_fadd(e, top, md_log_of(e, sum)), r->type);
}

static void emit_logsumexp(md_kernel *k) {
  md_loop loop;
  Row r = rows_begin(k, k->r->anchor->in[0], &loop);
  finish_row(&r, log_sum(&r, NULL));
  rows_end(k, &loop);
}

// scale * (e^(x - top) / s - [column = label])
typedef struct Scaled {
  md_ir top, inverse, scale, label;
} Scaled;

static void put_softmax(void *ctx, const Row *r, md_ir x, const md_point *p) {
  md_emit *e = &r->k->e;
  const Scaled *s = ctx;
  md_ir y = md_exp_of(e, md_fsub(e, x, md_splat(e, s->top, p->lanes)));
  y = md_fmul(e, y, md_splat(e, s->inverse, p->lanes));
  if (s->label) {
    md_ir column = md_iadd(e, md_splat(e, p->at[1], p->lanes), md_iota(e, e->i64, p->lanes, 0, 1));
    md_ir hit = md_ieq(e, column, md_splat(e, s->label, p->lanes));
    y = md_fsub(e, y, md_select(e, hit, md_const_like(e, y, 1), md_const_like(e, y, 0)));
    y = md_fmul(e, y, md_splat(e, s->scale, p->lanes));
  }
  finish(r, y, p);
}

static Scaled softmax_of(const Row *r) {
  md_emit *e = &r->k->e;
  md_ir sum;
  Scaled s = {.top = soft_of(r, &sum)};
  s.inverse = md_convert(e, md_fdiv(e, md_const(e, e->f64, 1, 1), sum), r->type);
  return s;
}

static void emit_softmax(md_kernel *k) {
  md_loop loop;
  Row r = rows_begin(k, k->r->anchor->in[0], &loop);
  Scaled s = softmax_of(&r);
  each_column(&r, put_softmax, &s);
  rows_end(k, &loop);
}

// The row's label (i64) and whether it names a column.
static md_ir label_of(const Row *r, md_val labels, md_ir *valid) {
  md_emit *e = &r->k->e;
  md_ir label = md_convert(e, of_row(r, labels), e->i64);
  *valid = LLVMBuildAnd(e->b, md_ilt(e, md_i64(e, -1), label),
                        md_ilt(e, label, md_i64(e, r->shape->dim[1])), "");
  return label;
}

// x at the label; at column 0 if that is no column.
static md_ir labelled(const Row *r, md_ir label, md_ir valid) {
  md_emit *e = &r->k->e;
  md_ir at[2] = {r->at, md_select(e, valid, label, md_i64(e, 0))};
  md_point p = md_point_of(2, at, -1, 1, NULL);
  return element(r, &p);
}

static void emit_cross_entropy(md_kernel *k) {
  md_emit *e = &k->e;
  md_loop loop;
  Row r = rows_begin(k, k->r->anchor->in[0], &loop);
  md_ir valid, label = label_of(&r, k->r->anchor->in[1], &valid);
  md_ir loss = log_sum(&r, labelled(&r, label, valid));
  finish_row(&r, md_select(e, valid, loss, md_const_like(e, loss, NAN)));
  rows_end(k, &loop);
}

static void emit_cross_entropy_grad(md_kernel *k) {
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  md_loop loop;
  Row r = rows_begin(k, n->in[1], &loop);
  md_ir valid, label = label_of(&r, n->in[2], &valid);
  Scaled s = softmax_of(&r);
  s.label = label;
  md_ir scale = of_row(&r, n->in[0]);
  s.scale = md_select(e, valid, scale, md_const_like(e, scale, NAN));
  each_column(&r, put_softmax, &s);
  rows_end(k, &loop);
}

// --- l2 norm

typedef struct Norm {
  md_var sum;
  md_val dy;
  md_ir along, divisor;
} Norm;

static void join_product(Norm *s, const Row *r, md_ir x, md_ir y, const md_point *p) {
  md_emit *e = &r->k->e;
  x = md_convert(e, masked(e, p, x, 0), e->f64);
  y = md_convert(e, masked(e, p, y, 0), e->f64);
  md_set(e, s->sum, md_fma(e, x, y, md_get(e, s->sum)));
}

static void join_square(void *ctx, const Row *r, md_ir x, const md_point *p) {
  join_product(ctx, r, x, x, p);
}

static md_ir second_operand(const Row *r, md_val v, const md_point *p) {
  md_body b;
  md_body_init(&b, r->k);
  return md_body_value(&b, v, p);
}

static void join_along(void *ctx, const Row *r, md_ir x, const md_point *p) {
  Norm *s = ctx;
  join_product(s, r, x, second_operand(r, s->dy, p), p);
}

static md_ir sum_over(const Row *r, Norm *s, Visit *visit) {
  md_emit *e = &r->k->e;
  md_set(e, s->sum, md_const(e, e->f64, r->lanes, 0));
  each_column(r, visit, s);
  return md_hsum(e, md_get(e, s->sum));
}

static md_ir double_const(md_emit *e, double x) { return md_const(e, e->f64, 1, x); }

static void put_normalized(void *ctx, const Row *r, md_ir x, const md_point *p) {
  md_emit *e = &r->k->e;
  const Norm *s = ctx;
  finish(r, md_fdiv(e, x, md_splat(e, s->divisor, p->lanes)), p);
}

static void emit_l2_normalize(md_kernel *k) {
  md_emit *e = &k->e;
  md_loop loop;
  Row r = rows_begin(k, k->r->anchor->in[0], &loop);
  Norm s = {.sum = md_var_new(e, md_lanes_type(e->f64, r.lanes), NULL, "sum")};
  md_ir length = md_sqrt_of(e, sum_over(&r, &s, join_square));
  s.divisor = md_fmax(e, length, double_const(e, k->r->anchor->attr.f.value));
  s.divisor = md_convert(e, s.divisor, r.type);
  each_column(&r, put_normalized, &s);
  rows_end(k, &loop);
}

// dx = (dy - along * x / divisor) / divisor, along = dy.x / divisor or 0 below eps
static void put_normalize_grad(void *ctx, const Row *r, md_ir x, const md_point *p) {
  md_emit *e = &r->k->e;
  const Norm *s = ctx;
  md_ir divisor = md_splat(e, s->divisor, p->lanes), along = md_splat(e, s->along, p->lanes);
  md_ir dy = second_operand(r, s->dy, p);
  md_ir across = md_fsub(e, dy, md_fmul(e, along, md_fdiv(e, x, divisor)));
  finish(r, md_fdiv(e, across, divisor), p);
}

static void emit_l2_normalize_grad(md_kernel *k) {
  md_emit *e = &k->e;
  const md_node *n = k->r->anchor;
  md_loop loop;
  Row r = rows_begin(k, n->in[1], &loop);
  Norm s = {.sum = md_var_new(e, md_lanes_type(e->f64, r.lanes), NULL, "sum"), .dy = n->in[0]};
  md_ir length = md_sqrt_of(e, sum_over(&r, &s, join_square));
  md_ir eps = double_const(e, n->attr.f.value), divisor = md_fmax(e, length, eps);
  md_ir along = md_fdiv(e, sum_over(&r, &s, join_along), divisor);
  along = md_select(e, md_flt(e, length, eps), double_const(e, 0), along);
  s.along = md_convert(e, along, r.type);
  s.divisor = md_convert(e, divisor, r.type);
  each_column(&r, put_normalize_grad, &s);
  rows_end(k, &loop);
}

// --- ranks

typedef struct Best {
  md_var x, column;
} Best;

static md_ir columns(const Row *r, LLVMTypeRef type, const md_point *p) {
  md_emit *e = &r->k->e;
  return md_iadd(e, md_splat(e, md_convert(e, p->at[1], type), p->lanes),
                 md_iota(e, type, p->lanes, 0, 1));
}

static void join_best(void *ctx, const Row *r, md_ir x, const md_point *p) {
  md_emit *e = &r->k->e;
  Best *s = ctx;
  md_ir better = md_flt(e, md_get(e, s->x), x);
  if (p->mask) better = LLVMBuildAnd(e->b, better, p->mask, "");
  md_set(e, s->x, md_select(e, better, x, md_get(e, s->x)));
  md_set(e, s->column, md_select(e, better, columns(r, e->i32, p), md_get(e, s->column)));
}

// Every lane starts from column 0, which only a larger element replaces: NaNs never win, and a NaN in
// column 0 always does.
static void emit_argmax(md_kernel *k) {
  md_emit *e = &k->e;
  md_loop loop;
  Row r = rows_begin(k, k->r->anchor->in[0], &loop);
  md_ir zero = md_i64(e, 0), at[2] = {r.at, zero};
  md_point p = md_point_of(2, at, -1, 1, NULL);
  Best s = {md_var_new(e, md_lanes_type(r.type, r.lanes), NULL, "best"),
            md_var_new(e, md_lanes_type(e->i32, r.lanes), NULL, "column")};
  md_set(e, s.x, md_splat(e, element(&r, &p), r.lanes));
  md_set(e, s.column, md_const(e, e->i32, r.lanes, 0));
  each_column(&r, join_best, &s);
  // Among the lanes with the largest element the lowest column wins: max of -column.
  md_ir top = md_splat(e, md_hmax(e, md_get(e, s.x)), r.lanes);
  md_ir has = LLVMBuildFCmp(e->b, LLVMRealOEQ, md_get(e, s.x), top, "");
  md_ir negative = LLVMBuildNeg(e->b, md_get(e, s.column), "");
  md_ir key = md_select(e, has, negative, md_const(e, e->i32, r.lanes, INT32_MIN + 1));
  md_ir column = LLVMBuildNeg(e->b, md_hmax(e, key), "");
  md_ir none = md_ieq(e, column, md_i32(e, INT32_MAX));
  finish_row(&r, md_select(e, none, md_i32(e, 0), column));
  rows_end(k, &loop);
}

typedef struct Beaten {
  md_var num;
  md_ir by, label;
} Beaten;

static void join_beaten(void *ctx, const Row *r, md_ir x, const md_point *p) {
  md_emit *e = &r->k->e;
  Beaten *s = ctx;
  md_ir own = md_splat(e, s->by, p->lanes);
  md_ir equal = LLVMBuildFCmp(e->b, LLVMRealOEQ, x, own, "");
  md_ir before = md_ilt(e, columns(r, e->i64, p), md_splat(e, s->label, p->lanes));
  md_ir beats = LLVMBuildFCmp(e->b, LLVMRealUGT, x, own, "");  // as NaN does
  md_ir better = LLVMBuildOr(e->b, beats, LLVMBuildAnd(e->b, equal, before, ""), "");
  if (p->mask) better = LLVMBuildAnd(e->b, better, p->mask, "");
  md_set(e, s->num, md_iadd(e, md_get(e, s->num), md_convert(e, better, e->i64)));
}

static void emit_topk_hit(md_kernel *k) {
  md_emit *e = &k->e;
  md_loop loop;
  Row r = rows_begin(k, k->r->anchor->in[0], &loop);
  md_ir valid, label = label_of(&r, k->r->anchor->in[1], &valid);
  Beaten s = {.num = md_var_new(e, md_lanes_type(e->i64, r.lanes), NULL, "better"),
              .by = labelled(&r, label, valid),
              .label = label};
  md_set(e, s.num, md_zero(s.num.type));
  each_column(&r, join_beaten, &s);
  md_ir few = md_ilt(e, md_hsum(e, md_get(e, s.num)), md_i64(e, k->r->anchor->attr.i.value));
  md_ir hit = LLVMBuildAnd(e->b, few, valid, "");
  finish_row(&r, md_select(e, hit, md_const(e, r.type, 1, 1), md_const(e, r.type, 1, 0)));
  rows_end(k, &loop);
}

// --- rows of the table

static const char *refuse_op(const md_region_view *r, const md_cpu *cpu, md_op op) {
  if (!r->anchor || r->anchor->op != op) return "";
  return md_finish_refuse(r, cpu, false);
}
static const char *refuse_logsumexp(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_logsumexp);
}
static const char *refuse_softmax(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_softmax);
}
static const char *refuse_cross_entropy(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_cross_entropy);
}
static const char *refuse_cross_entropy_grad(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_cross_entropy_grad);
}
static const char *refuse_l2_normalize(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_l2_normalize);
}
static const char *refuse_l2_normalize_grad(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_l2_normalize_grad);
}
static const char *refuse_argmax(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_argmax);
}
static const char *refuse_topk_hit(const md_region_view *r, const md_cpu *cpu) {
  return refuse_op(r, cpu, MD_OP_topk_hit);
}

const md_lowering md_row_rows[] = {
    {"logsumexp of rows", refuse_logsumexp, emit_logsumexp},
    {"softmax of rows", refuse_softmax, emit_softmax},
    {"cross entropy of rows", refuse_cross_entropy, emit_cross_entropy},
    {"cross entropy gradient of rows", refuse_cross_entropy_grad, emit_cross_entropy_grad},
    {"l2 norm of rows", refuse_l2_normalize, emit_l2_normalize},
    {"l2 norm gradient of rows", refuse_l2_normalize_grad, emit_l2_normalize_grad},
    {"argmax of rows", refuse_argmax, emit_argmax},
    {"top k of rows", refuse_topk_hit, emit_topk_hit},
    {0},
};
