// SPDX-License-Identifier: Apache-2.0
// Formulas of pointwise ops as C text. Steps that are used once stand inside their user; what is used
// twice gets a name. Integer arithmetic wraps: it is written in unsigned types.
#include "codegen/cuda/gen.h"

#include "base/round.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct formula {
  md_cu_kernel *k;
  md_arena *a;
  const md_node *node;
  md_cu_type type;  // in which the arithmetic is done
  const md_cu_term *arg;
  md_cu_ix index;  // row-major, for random
} formula;

md_cu_type md_cu_compute_type(md_dtype d) {
  if (d == MD_F64) return MD_CU_DOUBLE;
  return d == MD_F32 || d == MD_BF16 ? MD_CU_FLOAT : d == MD_I64 ? MD_CU_LONG : MD_CU_INT;
}

const char *md_cu_type_name(md_cu_type t) {
  static const char *const names[] = {"float", "double", "int", "md_i64", "int"};
  return names[t];
}

const char *md_cu_memory_type(md_dtype d) {
  static const char *const names[MD_NUM_DTYPES] = {
      [MD_F32] = "float",  [MD_BF16] = "md_bf16", [MD_F64] = "double", [MD_I32] = "int",
      [MD_I64] = "md_i64", [MD_U8] = "md_u8",     [MD_BOOL] = "md_u8",
  };
  return names[d];
}

static bool is_real(md_cu_type t) { return t == MD_CU_FLOAT || t == MD_CU_DOUBLE; }

// Toward zero; what does not fit becomes the nearest that does, NaN becomes 0.
static long long integer_of(md_cu_type t, double x) {
  if (isnan(x)) return 0;
  if (t == MD_CU_LONG) return x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : (long long)x;
  return (long long)fmin(fmax(x, INT32_MIN), INT32_MAX);
}

static bool reads_back(md_cu_type t, const char *text, double x) {
  return t == MD_CU_FLOAT ? strtof(text, NULL) == (float)x : strtod(text, NULL) == x;
}

const char *md_cu_literal(md_arena *a, md_cu_type t, double x) {
  if (t == MD_CU_COND) return x != 0 ? "1" : "0";
  if (!is_real(t)) {
    long long i = integer_of(t, x);
    if (t == MD_CU_INT && i == INT32_MIN) return "(-2147483647 - 1)";
    if (i == INT64_MIN) return "(-9223372036854775807ll - 1)";
    return md_format(a, i < 0 ? "(%lld%s)" : "%lld%s", i, t == MD_CU_LONG ? "ll" : "");
  }
  const char *wide = t == MD_CU_DOUBLE ? "(double)" : "";
  if (t == MD_CU_FLOAT) x = (double)(float)x;
  if (isnan(x)) return md_format(a, "%sMD_NAN", wide);
  if (isinf(x)) return md_format(a, x < 0 ? "(-%sMD_INF)" : "%sMD_INF", wide);
  char text[MD_FLOAT_CHARS];  // as short as it reads back
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, x);
    if (reads_back(t, text, x)) break;
  }
  // The process may use a locale with another decimal point, of any number of bytes.
  char s[MD_FLOAT_CHARS];
  int len = 0;
  bool plain = true;
  for (const char *p = text; *p; p++) {
    bool other = !strchr("0123456789+-e", *p);
    if (!other || !len || s[len - 1] != '.') s[len++] = (char)(other ? '.' : *p);
    plain = plain && !other && *p != 'e';
  }
  s[len] = '\0';
  return md_format(a, signbit(x) ? "(%s%s%s)" : "%s%s%s", s, plain ? ".0" : "",
                   t == MD_CU_FLOAT ? "f" : "");
}

const char *md_cu_as(md_arena *a, const md_cu_term *t, md_cu_type to) {
  if (t->known) return md_cu_literal(a, to, t->number);
  if (t->type == to) return t->text;
  if (to == MD_CU_COND) return md_format(a, "(%s != 0)", t->text);
  if (t->type == MD_CU_COND && is_real(to))
    return md_format(a, "(%s ? %s : %s)", t->text, md_cu_literal(a, to, 1),
                     md_cu_literal(a, to, 0));
  if (is_real(t->type) && !is_real(to))
    return md_format(a, "md_%c2%c(%s)", t->type == MD_CU_FLOAT ? 'f' : 'd',
                     to == MD_CU_INT ? 'i' : 'l', t->text);
  return md_format(a, "(%s)%s", md_cu_type_name(to), t->text);
}

// In which a and b compare without loss: integers as i64, so that large ids differ.
static md_cu_type common(const md_cu_term *a, const md_cu_term *b) {
  const md_cu_term *both[] = {a, b};
  bool real = false, wide = false, all_int = true;
  for (int i = 0; i < 2; i++) {
    if (both[i]->known) real |= both[i]->number != floor(both[i]->number) || isinf(both[i]->number);
    else if (is_real(both[i]->type)) real = true;
    else all_int &= both[i]->type != MD_CU_LONG;
    wide |= !both[i]->known && both[i]->type == MD_CU_DOUBLE;
  }
  return wide ? MD_CU_DOUBLE : real ? MD_CU_FLOAT : all_int ? MD_CU_INT : MD_CU_LONG;
}

static md_cu_term term(md_cu_type type, const char *text) {
  return (md_cu_term){.text = text, .type = type};
}

static md_cu_term compare(const formula *f, const char *op, const md_cu_term *a,
                          const md_cu_term *b) {
  md_cu_type t = common(a, b);
  return term(MD_CU_COND,
              md_format(f->a, "(%s %s %s)", md_cu_as(f->a, a, t), op, md_cu_as(f->a, b, t)));
}

static const char *arithmetic(const formula *f, char op, const char *a, const char *b) {
  if (is_real(f->type)) return md_format(f->a, "(%s %c %s)", a, op, b);
  const char *bits = f->type == MD_CU_LONG ? "md_u64" : "md_u32", *type = md_cu_type_name(f->type);
  MD_ASSERT(op != '/', "%s has no integer form", md_ops[f->node->op].name);
  return md_format(f->a, "(%s)((%s)%s %c (%s)%s)", type, bits, a, op, bits, b);
}

static const char *call(const formula *f, const char *name, const char *a, const char *b) {
  MD_ASSERT(is_real(f->type), "%s has no integer form", md_ops[f->node->op].name);
  const char *wide = f->type == MD_CU_DOUBLE ? "d" : "";
  return b ? md_format(f->a, "%s%s(%s, %s)", name, wide, a, b)
           : md_format(f->a, "%s%s(%s)", name, wide, a);
}

// A number of terms, one over it, or what makes their variance unbiased; as a float, which it may have been.
// One over 255 makes numbers of bytes.
static bool looks_counted(double x) {
  if (!(x > 0) || x == 1) return false;
  double n = x < 1 ? round(1 / x) : x < 1.5 ? round(x / (x - 1)) : round(x);
  return n != UINT8_MAX && (float)x == (float)(x < 1 ? 1 / n : x < 1.5 ? n / (n - 1) : n);
}

// Graphs have the number of what is added up, over the batch too, as a factor. Among vectors of channels none
// has been met.
static bool is_told(const formula *f, const md_expr_node *x) {
  const md_cu_lanes *l = f->k->lanes;
  if (f->node->op != MD_OP_affine || f->type != MD_CU_FLOAT || x->a != 0) return false;
  return (!l || l->is_line) && looks_counted(f->node->attr.affine.scale);
}

static md_cu_term apply(const formula *f, const md_expr_node *x, const md_cu_term *s) {
  static const char *const functions[MD_NUM_EX] = {
      [MD_EX_MIN] = "md_min",     [MD_EX_MAX] = "md_max",     [MD_EX_EXP] = "md_exp",
      [MD_EX_LOG] = "md_log",     [MD_EX_LOG1P] = "md_log1p", [MD_EX_SQRT] = "md_sqrt",
      [MD_EX_RSQRT] = "md_rsqrt", [MD_EX_ABS] = "md_abs",     [MD_EX_TANH] = "md_tanh",
      [MD_EX_FLOOR] = "md_floor",
  };
  const md_cu_term *a = &s[x->a], *b = &s[x->b], *c = &s[x->c];
  switch (x->kind) {
  case MD_EX_CONST: return (md_cu_term){.known = true, .number = x->value};
  case MD_EX_ATTR:
    if (is_told(f, x)) return term(MD_CU_FLOAT, md_cu_factor(f->k, f->node->attr.affine.scale));
    return (md_cu_term){.known = true, .number = md_attr_value(&f->node->attr, x)};
  case MD_EX_ARG: return f->arg[x->a];
  case MD_EX_RANDOM:
    return term(MD_CU_FLOAT,
                md_format(f->a, "md_random(%s, %s)", md_cu_as(f->a, a, MD_CU_LONG), f->index));
  default: break;
  }
  int arity = md_expr_arity(x->kind);
  if (a->known && (arity < 2 || b->known) && (arity < 3 || c->known))
    return (md_cu_term){.known = true,
                        .number = md_expr_apply(x->kind, a->number, arity > 1 ? b->number : 0,
                                                arity > 2 ? c->number : 0)};
  switch (x->kind) {
  case MD_EX_LT: return compare(f, "<", a, b);
  case MD_EX_LE: return compare(f, "<=", a, b);
  case MD_EX_EQ: return compare(f, "==", a, b);
  case MD_EX_NE: return compare(f, "!=", a, b);
  case MD_EX_AND:
  case MD_EX_OR:
    return term(MD_CU_COND,
                md_format(f->a, "(%s %s %s)", md_cu_as(f->a, a, MD_CU_COND),
                          x->kind == MD_EX_AND ? "&&" : "||", md_cu_as(f->a, b, MD_CU_COND)));
  case MD_EX_SELECT:
    if (a->known) return a->number != 0 ? *b : *c;
    return term(f->type, md_format(f->a, "(%s ? %s : %s)", md_cu_as(f->a, a, MD_CU_COND),
                                   md_cu_as(f->a, b, f->type), md_cu_as(f->a, c, f->type)));
  default: break;
  }
  const char *ta = md_cu_as(f->a, a, f->type), *tb = arity > 1 ? md_cu_as(f->a, b, f->type) : NULL;
  switch (x->kind) {
  case MD_EX_ADD: return term(f->type, arithmetic(f, '+', ta, tb));
  case MD_EX_SUB: return term(f->type, arithmetic(f, '-', ta, tb));
  case MD_EX_MUL: return term(f->type, arithmetic(f, '*', ta, tb));
  case MD_EX_DIV: return term(f->type, arithmetic(f, '/', ta, tb));
  case MD_EX_NEG:
    return term(f->type,
                is_real(f->type) ? md_format(f->a, "(-%s)", ta) : arithmetic(f, '-', "0", ta));
  default: return term(f->type, call(f, functions[x->kind], ta, tb));
  }
}

// Result v as its element type holds it: u8 and bool are computed as int, bf16 as float. What only
// goes to memory is rounded to bf16 there.
static const char *settled(const formula *f, md_val v, const md_cu_term *t) {
  const md_region_view *r = f->k->w->r;
  md_dtype d = md_type_in(r->g, v)->dtype;
  md_cu_type type = md_cu_compute_type(d);
  if (t->known) return md_cu_literal(f->a, type, md_rounded(d, t->number));
  if (d == MD_BOOL) return md_format(f->a, "(%s ? 1 : 0)", md_cu_as(f->a, t, MD_CU_COND));
  if (d == MD_U8) {
    if (is_real(t->type))
      return md_format(f->a, t->type == MD_CU_FLOAT ? "md_f2u8(%s)" : "md_d2u8(%s)", t->text);
    return md_format(f->a, "(%s & 255)", md_cu_as(f->a, t, MD_CU_INT));
  }
  const char *text = md_cu_as(f->a, t, type);
  bool rounds = d == MD_BF16 && md_read_inside(r, v);
  return rounds ? md_format(f->a, "md_bf2f(md_f2bf(%s))", text) : text;
}

static md_cu_term settle(const formula *f, md_val v, const md_cu_term *t) {
  md_dtype d = md_type_in(f->k->w->r->g, v)->dtype;
  return (md_cu_term){.text = settled(f, v, t),
                      .type = md_cu_compute_type(d),
                      .by_channel = t->by_channel && !t->known};
}

// Is a step of what the channel alone decides? If not, what of its operands is comes from the table.
static bool step_by_channel(md_cu_kernel *k, const md_expr_node *x, md_cu_term *s) {
  const int from[] = {x->a, x->b, x->c};
  int arity = x->kind == MD_EX_ARG ? 0 : md_expr_arity(x->kind);
  bool any = false, all = true;
  for (int i = 0; i < arity; i++) {
    any |= s[from[i]].by_channel;
    all &= s[from[i]].by_channel || s[from[i]].known;
  }
  for (int i = 0; any && !all && i < arity; i++) s[from[i]] = md_cu_plain(k, &s[from[i]]);
  return any && all;
}

static void count_uses(const md_expr *e, int *uses) {
  for (int i = 0; i < e->num; i++) {
    const int from[] = {e->node[i].a, e->node[i].b, e->node[i].c};
    for (int j = 0; j < md_expr_arity(e->node[i].kind); j++) uses[from[j]]++;
  }
}

void md_cu_formula(md_cu_kernel *k, const md_node *n, const md_cu_term *arg, md_cu_spot *spot,
                   md_cu_term *result) {
  const md_expr *e = md_op_expr(&md_ops[n->op]);
  const md_graph *g = k->w->r->g;
  formula f = {.k = k,
               .a = k->w->arena,
               .node = n,
               .arg = arg,
               .type = md_cu_compute_type(md_type_in(g, n->out)->dtype)};
  md_cu_term s[MD_MAX_EXPR];
  int uses[MD_MAX_EXPR] = {0};
  count_uses(e, uses);
  for (int i = 0; i < e->num; i++) {
    const md_expr_node *x = &e->node[i];
    if (x->kind == MD_EX_RANDOM && !f.index) f.index = md_cu_flat(k, spot);
    bool by_channel = step_by_channel(k, x, s);
    s[i] = apply(&f, x, s);
    s[i].by_channel |= by_channel && !s[i].known;
    bool leaf = x->kind == MD_EX_CONST || x->kind == MD_EX_ATTR || x->kind == MD_EX_ARG;
    if (uses[i] < 2 || leaf || s[i].known) continue;
    const char *name = md_format(f.a, "t%d", k->num_value++);
    if (s[i].by_channel) md_cu_enter_table(k);
    md_cu_line(k, NULL, "const %s %s = %s;", md_cu_type_name(s[i].type), name, s[i].text);
    if (s[i].by_channel) md_cu_leave_table(k);
    s[i].text = name;
  }
  for (int i = 0; i < e->num_out; i++) result[i] = settle(&f, n->out + (md_val)i, &s[e->out[i]]);
}
