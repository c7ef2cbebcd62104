// SPDX-License-Identifier: Apache-2.0
// Work along the rows of a matrix. A warp takes a short row, a block a long one: its threads stride
// over the columns, and what a row sums up is joined over lanes and warps in a fixed order, so that
// every thread has it and results are the same in every run. Sums are gathered in double.
#include "codegen/cuda/gen.h"

enum { LONG_ROW = 1024, SLOT_BYTES = 8 };

typedef struct Rows {
  md_cu_kernel k;
  const md_node *node;
  md_arena *a;
  md_cu_type type;  // of the elements
  int64_t num, len;
  bool by_block;
  int num_joined;  // slots of shared memory: one for each joined quantity, so that none waits
} Rows;

// --- the frame

static const char *value_at(Rows *r, int i, md_cu_ix column, md_cu_type type) {
  const md_val v = r->node->in[i];
  md_cu_spot s = {.shape = &md_type_in(r->k.w->r->g, v)->shape, .at = {"row", column}};
  return md_cu_value_as(&r->k, v, &s, type);
}

static const char *element(Rows *r, int i) { return value_at(r, i, "j", r->type); }

static void put(Rows *r, md_cu_ix column, const char *text) {
  const md_val v = r->node->out;
  md_cu_spot s = {.shape = &md_type_in(r->k.w->r->g, v)->shape, .at = {"row", column}};
  md_cu_store(&r->k, v, &s, text);
}

static md_cu_mark open_columns(Rows *r) {
  return md_cu_open(&r->k, NULL, "for (%s j = lane; j < %s; j += %d) {", md_cu_index_type(&r->k),
                    md_cu_number(&r->k, r->len), r->by_block ? MD_CU_THREADS : 32);
}

static md_cu_mark open_first_lane(Rows *r) { return md_cu_open(&r->k, NULL, "if (lane == 0) {"); }

static md_cu_mark begin(Rows *r) {
  md_cu_kernel *k = &r->k;
  const char *type = md_cu_index_type(k);
  if (r->by_block) {
    md_cu_line(k, NULL, "MD_SHARED(shared);");
    md_cu_line(k, NULL, "const int lane = md_thread();");
    md_cu_line(k, NULL, "const %s row = md_block();", type);
  } else {
    md_cu_line(k, NULL, "const int lane = md_thread() %% 32;");
    md_cu_line(k, NULL, "const %s row = (%s)md_block() * %d + md_thread() / 32;", type, type,
               MD_CU_WARPS);
  }
  return md_cu_open(k, NULL, "if (row < %s) {", md_cu_extent(k, "rows", r->num));
}

// --- what a row has in common

// Joins `name` of all threads of the row; `form`: how two are joined, "md_max(%s, %s)".
static void join(Rows *r, const char *name, md_cu_type type, const char *form) {
  md_cu_kernel *k = &r->k;
  md_cu_mark m = md_cu_open(k, NULL, "for (int o = 16; o > 0; o >>= 1) {");
  md_cu_line(k, NULL, "const %s other = md_shfl_xor%s(%s, o);", md_cu_type_name(type),
             type == MD_CU_DOUBLE ? "_d" : "", name);
  md_cu_line(k, NULL, "%s = %s;", name, md_format(r->a, form, name, "other"));
  md_cu_close(k, m);
  if (!r->by_block) return;
  const char *all = md_format(r->a, "%s_of", name);
  md_cu_line(k, "[warp]", "%s *const %s = (%s *)(shared + %d);", md_cu_type_name(type), all,
             md_cu_type_name(type), r->num_joined++ * MD_CU_WARPS * SLOT_BYTES);
  md_cu_line(k, NULL, "if (lane %% 32 == 0) %s[lane / 32] = %s;", all, name);
  md_cu_line(k, NULL, "md_sync();");
  md_cu_line(k, NULL, "%s = %s[0];", name, all);
  m = md_cu_open(k, NULL, "for (int o = 1; o < %d; o++) {", MD_CU_WARPS);
  md_cu_line(k, NULL, "%s = %s;", name, md_format(r->a, form, name, md_format(r->a, "%s[o]", all)));
  md_cu_close(k, m);
}

static const char *larger(const Rows *r) {
  return r->type == MD_CU_DOUBLE ? "md_maxd(%s, %s)" : "md_max(%s, %s)";
}

static const char *suffix(const Rows *r) { return r->type == MD_CU_DOUBLE ? "d" : ""; }

// double `name`: the sum of `form` over the row, x being the element of operand `i`.
static void sum_up(Rows *r, const char *name, int i, const char *form) {
  md_cu_line(&r->k, NULL, "double %s = 0.0;", name);
  md_cu_mark m = open_columns(r);
  md_cu_line(&r->k, NULL, "const double x = %s;", value_at(r, i, "j", MD_CU_DOUBLE));
  md_cu_line(&r->k, NULL, "%s += %s;", name, form);
  md_cu_close(&r->k, m);
  join(r, name, MD_CU_DOUBLE, "%s + %s");
}

// `top`: the largest element, NaN if there is one; `sum`: that of e^(x - top). inf - inf spoils it, so
// `infinite` says that top is infinite: then it is the log-sum-exp.
static void exponentials(Rows *r, int i) {
  md_cu_kernel *k = &r->k;
  md_cu_line(k, NULL, "%s top = -MD_INF;", md_cu_type_name(r->type));
  md_cu_mark m = open_columns(r);
  md_cu_line(k, NULL, "top = %s;", md_format(r->a, larger(r), "top", element(r, i)));
  md_cu_close(k, m);
  join(r, "top", r->type, larger(r));
  md_cu_line(k, NULL, "double sum = 0.0;");
  m = open_columns(r);
  md_cu_line(k, NULL, "sum += (double)md_exp%s(%s - top);", suffix(r), element(r, i));
  md_cu_close(k, m);
  join(r, "sum", MD_CU_DOUBLE, "%s + %s");
  md_cu_line(k, NULL, "const int infinite = md_abs%s(top) == MD_INF;", suffix(r));
}

// --- the ops

static const char log_sum_exp[] = "(infinite ? (double)top : (double)top + md_logd(sum))";

static void logsumexp(Rows *r) {
  exponentials(r, 0);
  md_cu_mark m = open_first_lane(r);
  put(r, NULL, md_cu_from_double(&r->k, r->node->out, log_sum_exp));
  md_cu_close(&r->k, m);
}

static void declare_scale(Rows *r, const char *infinite) {
  md_cu_line(&r->k, NULL, "const %s scale = infinite ? %s : (%s)(1.0 / sum);",
             md_cu_type_name(r->type), infinite, md_cu_type_name(r->type));
}

static void softmax(Rows *r) {
  exponentials(r, 0);
  declare_scale(r, "1.0f");
  md_cu_mark m = open_columns(r);
  put(r, "j", md_format(r->a, "md_exp%s(%s - top) * scale", suffix(r), element(r, 0)));
  md_cu_close(&r->k, m);
}

// The label of the row, and whether it is a column.
static void declare_label(Rows *r, int i) {
  md_cu_line(&r->k, NULL, "const md_i64 label = %s;", value_at(r, i, NULL, MD_CU_LONG));
  md_cu_line(&r->k, NULL, "const int valid = label >= 0 && label < %s;",
             md_cu_number(&r->k, r->len));
}

static void cross_entropy(Rows *r) {
  md_cu_kernel *k = &r->k;
  declare_label(r, 1);
  exponentials(r, 0);
  md_cu_line(k, NULL, "const double lse = %s;", log_sum_exp);
  md_cu_mark m = open_first_lane(r);
  md_cu_line(k, NULL, "%s loss = MD_NAN;", md_cu_type_name(r->type));
  md_cu_mark in = md_cu_open(k, NULL, "if (valid) {");
  md_cu_line(k, NULL, "const %s j = (%s)label;", md_cu_index_type(k), md_cu_index_type(k));
  const char *x = value_at(r, 0, "j", MD_CU_DOUBLE);
  md_cu_line(k, NULL, "loss = %s;",
             md_cu_from_double(k, r->node->out, md_format(r->a, "lse - %s", x)));
  md_cu_close(k, in);
  put(r, NULL, "loss");
  md_cu_close(k, m);
}

static void cross_entropy_grad(Rows *r) {
  exponentials(r, 1);
  declare_label(r, 2);
  declare_scale(r, "1.0f");
  const char *dloss = value_at(r, 0, NULL, r->type);
  md_cu_mark m = open_columns(r);
  md_cu_line(&r->k, NULL, "const %s p = valid ? md_exp%s(%s - top) * scale : MD_NAN;",
             md_cu_type_name(r->type), suffix(r), element(r, 1));
  put(r, "j", md_format(r->a, "%s * (j == label ? p - 1.0f : p)", dloss));
  md_cu_close(&r->k, m);
}

// `norm` of the row of operand i, and `per`, one over it or over eps, if that is more; NaN stays.
static void declare_length(Rows *r, int i) {
  const char *eps = md_cu_literal(r->a, MD_CU_DOUBLE, r->node->attr.f.value);
  sum_up(r, "square", i, "x * x");
  md_cu_line(&r->k, NULL,
             "const double norm = md_sqrtd(square), per = 1.0 / (norm < %s ? %s : norm);", eps,
             eps);
}

static void l2_normalize(Rows *r) {
  declare_length(r, 0);
  md_cu_mark m = open_columns(r);
  const char *y = md_format(r->a, "%s * per", value_at(r, 0, "j", MD_CU_DOUBLE));
  put(r, "j", md_cu_from_double(&r->k, r->node->out, y));
  md_cu_close(&r->k, m);
}

// Below eps the divisor is a constant, and so the second term is absent.
static void l2_normalize_grad(Rows *r) {
  md_cu_kernel *k = &r->k;
  declare_length(r, 1);
  md_cu_line(k, NULL, "double along = 0.0;");
  md_cu_mark m = open_columns(r);
  const char *x = value_at(r, 1, "j", MD_CU_DOUBLE), *dy = value_at(r, 0, "j", MD_CU_DOUBLE);
  md_cu_line(k, NULL, "along += %s * (%s * per);", dy, x);
  md_cu_close(k, m);
  join(r, "along", MD_CU_DOUBLE, "%s + %s");
  md_cu_line(k, NULL, "if (!(norm >= %s)) along = 0.0;",
             md_cu_literal(r->a, MD_CU_DOUBLE, r->node->attr.f.value));
  m = open_columns(r);
  x = value_at(r, 1, "j", MD_CU_DOUBLE);
  dy = value_at(r, 0, "j", MD_CU_DOUBLE);
  put(r, "j",
      md_cu_from_double(k, r->node->out,
                        md_format(r->a, "(%s - along * (%s * per)) * per", dy, x)));
  md_cu_close(k, m);
}

// The largest element, then the first column that has it. A NaN is never larger, but in the first
// column it stays.
static void argmax(Rows *r) {
  md_cu_kernel *k = &r->k;
  md_cu_line(k, NULL, "%s top = -MD_INF;", md_cu_type_name(r->type));
  md_cu_mark m = open_columns(r);
  const char *x = element(r, 0);
  md_cu_line(k, NULL, "top = %s > top ? %s : top;", x, x);
  md_cu_close(k, m);
  join(r, "top", r->type, larger(r));
  md_cu_line(k, "the column, negative", "double first = -MD_INF;");
  m = open_columns(r);
  md_cu_line(k, NULL, "if (%s == top) first = md_maxd(first, -(double)j);", element(r, 0));
  md_cu_close(k, m);
  join(r, "first", MD_CU_DOUBLE, "md_maxd(%s, %s)");
  m = open_first_lane(r);
  x = value_at(r, 0, "0", r->type);
  put(r, NULL, md_format(r->a, "(%s != %s ? 0 : (int)-first)", x, x));
  md_cu_close(k, m);
}

// How many elements beat the label's: what is not below it, in an earlier column if equal.
static void topk_hit(Rows *r) {
  md_cu_kernel *k = &r->k;
  declare_label(r, 1);
  md_cu_line(k, "any column if the label is none", "const %s at = valid ? (%s)label : 0;",
             md_cu_index_type(k), md_cu_index_type(k));
  md_cu_line(k, NULL, "const double own = %s;", value_at(r, 0, "at", MD_CU_DOUBLE));
  sum_up(r, "better", 0, "!(x <= own) || (x == own && j < at) ? 1.0 : 0.0");
  md_cu_mark m = open_first_lane(r);
  put(r, NULL,
      md_format(r->a, "(valid && better < %lld.0 ? 1.0f : 0.0f)",
                (long long)r->node->attr.i.value));
  md_cu_close(k, m);
}

void md_cu_rows(md_cu_work *w, const md_node *n) {
  static void (*const rows[MD_NUM_OPS])(Rows *r) = {
      [MD_OP_logsumexp] = logsumexp,
      [MD_OP_softmax] = softmax,
      [MD_OP_cross_entropy] = cross_entropy,
      [MD_OP_cross_entropy_grad] = cross_entropy_grad,
      [MD_OP_l2_normalize] = l2_normalize,
      [MD_OP_l2_normalize_grad] = l2_normalize_grad,
      [MD_OP_argmax] = argmax,
      [MD_OP_topk_hit] = topk_hit,
  };
  // The matrix is the last operand of two axes.
  int i = n->num_in - 1;
  while (md_type_in(w->r->g, n->in[i])->shape.rank != 2) i--;
  const md_type *x = md_type_in(w->r->g, n->in[i]);
  Rows r = {.node = n,
            .a = w->arena,
            .type = md_cu_compute_type(x->dtype),
            .num = x->shape.dim[0],
            .len = x->shape.dim[1],
            // Double exponentials and a block's joins together spill for some targets.
            .by_block = x->shape.dim[1] > LONG_ROW && x->dtype != MD_F64};
  md_cu_begin(&r.k, w, r.by_block ? "a block for each row" : "a warp for each row");
  md_cu_mark m = begin(&r);
  rows[n->op](&r);
  md_cu_close(&r.k, m);
  r.k.shared_bytes = r.num_joined * MD_CU_WARPS * SLOT_BYTES;
  md_cu_end(&r.k, r.by_block ? r.num : md_ceil_div(r.num, MD_CU_WARPS));
}
