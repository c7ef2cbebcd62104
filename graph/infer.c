// SPDX-License-Identifier: Apache-2.0
// Does a node fit its row, and what are its results? Operands are matched with the patterns one
// axis at a time; the first operand that shows a letter binds it, later ones must agree:
//   conv3d takes x[n,i,t,h,w], w[o,i,kt,kh,kw]: w's second axis must be what x's second axis is.
// Then the row's shape function sees operands that fit, and adds what patterns cannot say. The same
// code serves the builder (before a node exists) and the verifier (afterwards).
#include "graph/graph.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct binding {
  const char *letter;
  int64_t size;
  int operand;
} binding;

// What the letters stand for, in the order of appearance.
typedef struct matcher {
  md_infer *f;
  binding letter[MD_ROW_IN * MD_MAX_RANK];
  int num_letters;
  md_shape star;     // trailing axes bound by `*`
  int star_operand;  // -1: not bound yet
  int first_float, first_any;
} matcher;

static const char *op_name(const md_infer *f) { return md_ops[f->node->op].name; }

static bool is_variadic(const md_infer *f) { return md_ops[f->node->op].flags & MD_VARIADIC; }

// Pattern of operand i; the last one of a variadic row repeats.
static const md_operand_spec *pattern(const md_infer *f, int i) {
  return md_op_in(f->node->op, MD_MIN(i, md_op_num_in(f->node->op) - 1));
}

static bool is_repeated(const md_infer *f, int i) {
  return is_variadic(f) && i >= md_op_num_in(f->node->op) - 1;
}

static const char *value_text(const md_infer *f, int i) {
  md_val v = f->node->in[i];
  const char *name = f->g->value[v].name;
  return name ? md_format(f->g->arena, "%%%s", name) : md_format(f->g->arena, "%%%u", v);
}

static const char *type_text(const md_infer *f, int i) {
  return md_type_text(&f->g->value[f->node->in[i]].type, f->g->arena);
}

static md_place operand_place(const md_infer *f, int i) {
  return f->parts && i >= 0 ? f->parts->in[i] : f->place;
}

// A value that is left to its default stands nowhere.
static md_place attr_place(const md_infer *f, const md_attr_spec *a) {
  for (int i = 0; f->parts && i < md_op_num_attr(f->node->op); i++)
    if (md_op_attr(f->node->op, i) == a && f->parts->attr[i].line > 0) return f->parts->attr[i];
  return f->place;
}

// "conv3d takes x[n,i,t,h,w], ...; %w is f32[64,4,1,7,7], declared at 2:12". blamed < 0: nobody.
static bool note_signature(const md_infer *f, int blamed) {
  if (!f->diags) return false;
  const md_op_row *row = &md_ops[f->node->op];
  if (row->role == MD_LEAF) return false;
  md_text t = {0};
  md_put(&t, "%s takes ", row->name);
  for (int i = 0; i < md_op_num_in(row->op); i++) md_put(&t, "%s%s", i ? ", " : "", row->in[i]);
  if (is_variadic(f)) md_put(&t, ", ...");
  if (blamed >= 0) {
    md_put(&t, "; %s is %s", value_text(f, blamed), type_text(f, blamed));
    md_place at = f->g->value[f->node->in[blamed]].node->place;
    if (at.line > 0) md_put(&t, ", declared at %d:%d", at.line, at.col);
  }
  md_note(f->diags, MD_NOWHERE, "%s", t.s);
  md_text_free(&t);
  return false;
}

static bool check_count(const md_infer *f) {
  md_op op = f->node->op;
  int most = is_variadic(f) ? MD_MAX_IN : md_op_num_in(op), least = 0;
  for (int i = 0; i < md_op_num_in(op); i++) least += !md_op_in(op, i)->optional;
  int n = f->node->num_in;
  if (n < least || n > most) {
    md_place at = n > most ? operand_place(f, most) : f->place;
    if (least == most)
      md_error(f->diags, E0302, at, "%s: takes %d operand%s, not %d", op_name(f), most,
               most == 1 ? "" : "s", n);
    else
      md_error(f->diags, E0302, at, "%s: takes %d to %d operands, not %d", op_name(f), least, most,
               n);
    return note_signature(f, -1);
  }
  for (int i = 0; i < n; i++) {
    md_val v = f->node->in[i];
    if (v == MD_NONE && !pattern(f, i)->optional) {
      md_error(f->diags, E0302, f->place, "%s: operand %s is missing", op_name(f),
               pattern(f, i)->name);
      return note_signature(f, -1);
    }
    if (v > (md_val)f->g->num_values)
      return md_error(f->diags, E0310, f->place,
                      "%s: operand %s is value %u, but the graph has values 1 to %d", op_name(f),
                      pattern(f, i)->name, v, f->g->num_values);
  }
  return true;
}

// All `f` operands share their element type, and so do all `any` operands.
static bool check_dtype(matcher *m, int i) {
  const md_infer *f = m->f;
  const md_operand_spec *o = pattern(f, i);
  md_dtype d = f->g->value[f->node->in[i]].type.dtype;
  int *first = !o->dtype[0] || !strcmp(o->dtype, "f") ? &m->first_float
               : !strcmp(o->dtype, "any")             ? &m->first_any
                                                      : NULL;
  const char *need = NULL;
  if (first == &m->first_float) need = md_dtype_is_float(d) ? NULL : "floating-point";
  else if (!strcmp(o->dtype, "i")) need = d == MD_I32 || d == MD_I64 ? NULL : "i32 or i64";
  else if (!first) need = d == md_dtype_from(o->dtype) ? NULL : o->dtype;
  if (need) {
    md_error(f->diags, E0303, operand_place(f, i), "%s: %s must be %s, but %s is %s", op_name(f),
             o->name, need, value_text(f, i), md_dtype_name(d));
    return note_signature(f, i);
  }
  if (!first) return true;
  if (*first < 0) *first = i;
  md_dtype other = f->g->value[f->node->in[*first]].type.dtype;
  if (other == d) return true;
  md_error(f->diags, E0303, operand_place(f, i), "%s: element types differ: %s is %s, but %s is %s",
           op_name(f), value_text(f, *first), md_dtype_name(other), value_text(f, i),
           md_dtype_name(d));
  note_signature(f, i);
  md_hint(f->diags, "cast %s {to=%s}", value_text(f, i), md_dtype_name(other));
  return false;
}

static const binding *find_letter(const matcher *m, const char *letter) {
  for (int i = 0; i < m->num_letters; i++)
    if (!strcmp(m->letter[i].letter, letter)) return &m->letter[i];
  return NULL;
}

// The type that operand i should have had, by the letters bound before it.
static bool hint_type(const matcher *m, int i, int fits) {
  const md_infer *f = m->f;
  const md_operand_spec *o = pattern(f, i);
  md_type t = f->g->value[f->node->in[i]].type;
  for (int k = 0; k < o->num_axes && strcmp(o->axis[k], "*") != 0; k++) {
    const binding *b = find_letter(m, o->axis[k]);
    if (b) t.shape.dim[k] = b->size;
  }
  if (f->diags)
    md_hint(f->diags, "a %s that fits %s is %s", o->name, value_text(f, fits),
            md_type_text(&t, f->g->arena));
  return false;
}

static bool match_axis(matcher *m, int i, int k) {
  const md_infer *f = m->f;
  const char *letter = pattern(f, i)->axis[k];
  int64_t size = md_in(f, i)->dim[k];
  if (!strcmp(letter, "one")) {
    if (size == 1) return true;
    md_error(f->diags, E0304, operand_place(f, i),
             "%s: %s has one element along axis %d, but %s has %lld", op_name(f),
             pattern(f, i)->name, k, value_text(f, i), (long long)size);
    return note_signature(f, i);
  }
  const binding *b = find_letter(m, letter);
  if (!b) {
    m->letter[m->num_letters++] = (binding){.letter = letter, .size = size, .operand = i};
    return true;
  }
  if (b->size == size) return true;
  md_error(f->diags, E0304, operand_place(f, i), "%s: axis %s is %lld in %s, but %lld in %s",
           op_name(f), letter, (long long)b->size, value_text(f, b->operand), (long long)size,
           value_text(f, i));
  note_signature(f, i);
  return hint_type(m, i, b->operand);
}

static bool match_star(matcher *m, int i, int from) {
  const md_infer *f = m->f;
  if (is_repeated(f, i)) return true;  // each has its own; the shape function compares them
  const md_shape *s = md_in(f, i);
  md_shape rest = {.rank = s->rank - from};
  for (int k = 0; k < rest.rank; k++) rest.dim[k] = s->dim[from + k];
  if (m->star_operand < 0) {
    m->star = rest;
    m->star_operand = i;
    return true;
  }
  if (md_shape_equal(&rest, &m->star)) return true;
  md_error(f->diags, E0304, operand_place(f, i), "%s: %s is %s, but %s is %s; %s must be equal",
           op_name(f), value_text(f, m->star_operand), type_text(f, m->star_operand),
           value_text(f, i), type_text(f, i), from ? "their trailing axes" : "their sizes");
  return note_signature(f, i);
}

static bool match_operand(matcher *m, int i) {
  const md_infer *f = m->f;
  const md_operand_spec *o = pattern(f, i);
  const md_shape *s = md_in(f, i);
  bool has_star = !strcmp(o->axis[o->num_axes - 1], "*");
  int fixed = o->num_axes - has_star;
  if (has_star ? s->rank < fixed : s->rank != fixed) {
    md_error(f->diags, E0304, operand_place(f, i), "%s: %s has %d %s, but %s is %s", op_name(f),
             o->name, fixed,
             has_star     ? "or more axes"
             : fixed == 1 ? "axis"
                          : "axes",
             value_text(f, i), type_text(f, i));
    return note_signature(f, i);
  }
  for (int k = 0; k < fixed; k++)
    if (!match_axis(m, i, k)) return false;
  return !has_star || match_star(m, i, fixed);
}

// `g` groups of whole samples: element n belongs to group n*g/N.
static bool check_groups(const matcher *m) {
  const md_infer *f = m->f;
  const binding *g = find_letter(m, "g"), *n = find_letter(m, "n");
  if (!g || !n || n->size % g->size == 0) return true;
  md_error(f->diags, E0304, operand_place(f, g->operand),
           "%s: %lld groups of %s do not divide axis n of %s, %lld", op_name(f), (long long)g->size,
           value_text(f, g->operand), value_text(f, n->operand), (long long)n->size);
  return note_signature(f, g->operand);
}

static bool reject_attr(const md_infer *f, const md_attr_spec *a, int k, const char *found,
                        const char *need) {
  char at[16] = "";
  bool is_list = a->type == MD_AT_DIM3 || a->type == MD_AT_DIMS;
  if (is_list) snprintf(at, sizeof at, "[%d]", k);
  return md_error(f->diags, E0305, attr_place(f, a), "%s: attribute %s%s is %s, but must be %s",
                  op_name(f), a->name, at, found, need);
}

static bool check_int(const md_infer *f, const md_attr_spec *a, int k, int64_t x, int64_t min,
                      int64_t max) {
  if (x >= min && x <= max) return true;
  char found[24], need[64];
  snprintf(found, sizeof found, "%lld", (long long)x);
  snprintf(need, sizeof need, x < min ? "at least %lld" : "at most %lld",
           (long long)(x < min ? min : max));
  return reject_attr(f, a, k, found, need);
}

// Integers stay below 2^31 in magnitude, so that products of two of them cannot overflow.
static bool check_attr(const md_infer *f, const md_attr_spec *a) {
  const int64_t *w = &f->node->attr.word[a->word], max = MD_MAX_DIM - 1;
  char found[MD_FLOAT_CHARS], need[64];
  switch (a->type) {
  case MD_AT_INT:
  case MD_AT_DIM3:
    for (int k = 0; k < a->num_words; k++)
      if (!check_int(f, a, k, w[k], a->has_min ? (int64_t)ceil(a->min) : -max, max)) return false;
    return true;
  case MD_AT_DIMS:
    if (w[0] < 0 || w[0] > MD_MAX_RANK)
      return md_error(f->diags, E0305, attr_place(f, a),
                      "%s: attribute %s has %lld numbers; at most %d fit", op_name(f), a->name,
                      (long long)w[0], MD_MAX_RANK);
    for (int k = 0; k < (int)w[0]; k++)
      if (!check_int(f, a, k, w[1 + k], 0, max)) return false;
    return true;
  case MD_AT_FLOAT: {
    double x = f->node->attr.real[a->word];
    if (isnan(x)) return reject_attr(f, a, 0, "nan", "a number");
    if (!a->has_min || x >= a->min) return true;
    snprintf(need, sizeof need, "at least %g", a->min);
    return reject_attr(f, a, 0, md_float_text(x, found), need);
  }
  case MD_AT_BOOL: return check_int(f, a, 0, w[0], 0, 1);
  case MD_AT_ENUM: return check_int(f, a, 0, w[0], 0, a->num_choices - 1);
  case MD_AT_DTYPE:
    if (w[0] > MD_NO_DTYPE && w[0] < MD_NUM_DTYPES) return true;
    return reject_attr(f, a, 0, "not given", "an element type such as f32");
  case MD_AT_NAME: {
    const char *name;
    memcpy(&name, w, sizeof name);
    return !name || md_name_valid(name) || reject_attr(f, a, 0, "not a name", "a name");
  }
  }
  return true;
}

static void derive_result(const matcher *m, const md_operand_spec *o, md_type *y) {
  int like = m->first_float >= 0 && m->first_any >= 0 ? MD_MIN(m->first_float, m->first_any)
                                                      : MD_MAX(m->first_float, m->first_any);
  *y = (md_type){.dtype = md_in_dtype(m->f, MD_MAX(like, 0))};
  if (!o) return;
  if (o->dtype[0]) y->dtype = md_dtype_from(o->dtype);
  for (int k = 0; k < o->num_axes; k++) {
    md_shape *s = &y->shape;
    if (!strcmp(o->axis[k], "*")) {
      for (int i = 0; i < m->star.rank; i++) s->dim[s->rank++] = m->star.dim[i];
      return;
    }
    const binding *b = find_letter(m, o->axis[k]);
    s->dim[s->rank++] = b ? b->size : 1;
  }
}

static bool check_result(md_infer *f, int i) {
  const char *why;
  if (md_type_check(&f->out[i], &why)) return true;
  const char *text = md_type_text(&f->out[i], f->g->arena);
  if (md_ops[f->node->op].role == MD_LEAF)
    return md_error(f->diags, E0307, f->place, "%s%s%s is declared as %s, but %s", op_name(f),
                    f->node->name ? " " : "", f->node->name ? f->node->name : "", text, why);
  md_error(f->diags, E0307, f->place, "%s: result %d would be %s, but %s", op_name(f), i, text,
           why);
  return note_signature(f, -1);
}

static bool match_operands(matcher *m) {
  md_infer *f = m->f;
  if (!check_count(f)) return false;
  for (int i = 0; i < f->node->num_in; i++)
    if (f->node->in[i] != MD_NONE && !check_dtype(m, i)) return false;
  for (int i = 0; i < f->node->num_in; i++)
    if (f->node->in[i] != MD_NONE && !match_operand(m, i)) return false;
  return check_groups(m);
}

const md_shape *md_in(const md_infer *f, int i) {
  if (i >= f->node->num_in || f->node->in[i] == MD_NONE) return NULL;
  return &md_type_in(f->g, f->node->in[i])->shape;
}

md_dtype md_in_dtype(const md_infer *f, int i) {
  if (i >= f->node->num_in || f->node->in[i] == MD_NONE) return MD_NO_DTYPE;
  return md_type_in(f->g, f->node->in[i])->dtype;
}

bool md_reject(md_infer *f, const char *fmt, ...) {
  char raw[400];
  va_list args;
  va_start(args, fmt);
  vsnprintf(raw, sizeof raw, fmt, args);
  va_end(args);
  md_text t = {0};
  int blamed = -1;
  md_put(&t, "%s: ", op_name(f));
  for (const char *s = raw; *s;) {
    char *end = NULL;
    bool is_operand = s[0] == '$' && s[1] >= '0' && s[1] <= '9';
    int i = is_operand ? (int)strtol(s + 1, &end, 10) : -1;
    if (!is_operand || !md_in(f, i)) {
      md_put_bytes(&t, s++, 1);
      continue;
    }
    md_put(&t, "%s", value_text(f, i));
    if (blamed < 0) blamed = i;
    s = end;
  }
  md_error(f->diags, E0306, operand_place(f, blamed), "%s", t.s);
  md_text_free(&t);
  return note_signature(f, blamed);
}

// The caller has set g, node, diags and place, and for a leaf its declared type in out[0].
bool md_infer_node(md_infer *f) {
  md_op op = f->node->op;
  const md_op_row *row = &md_ops[op];
  matcher m = {.f = f, .star_operand = -1, .first_float = -1, .first_any = -1};
  if (!match_operands(&m)) return false;
  for (int i = 0; i < md_op_num_attr(op); i++)
    if (!check_attr(f, md_op_attr(op, i))) return false;
  f->num_out = MD_MAX(md_op_num_out(op), 1);
  for (int i = 0; row->role != MD_LEAF && i < f->num_out; i++)
    derive_result(&m, md_op_num_out(op) ? md_op_out(op, i) : NULL, &f->out[i]);
  if (row->shape && !row->shape(f)) return false;
  MD_ASSERT(f->num_out >= 1 && f->num_out <= MD_MAX_OUT, "%s has %d results", row->name,
            f->num_out);
  for (int i = 0; i < f->num_out; i++)
    if (!check_result(f, i)) return false;
  return true;
}

// A row without a cost: a step of the formula, or a comparison or addition, for each element; views
// are free. Bytes are those of all operands and results, unless the row says better.
void md_node_cost(const md_graph *g, const md_node *n, md_cost *c) {
  const md_op_row *row = &md_ops[n->op];
  md_infer f = {.g = g, .node = n, .num_out = n->num_out};
  double most = 0;
  *c = (md_cost){0};
  for (int i = 0; i < n->num_out; i++) {
    f.out[i] = g->value[n->out + (md_val)i].type;
    most = MD_MAX(most, (double)md_elements(&f.out[i].shape));
    c->bytes += (double)md_type_bytes(&f.out[i]);
  }
  for (int i = 0; i < n->num_in; i++) {
    if (n->in[i] == MD_NONE) continue;
    const md_type *t = md_type_in(g, n->in[i]);
    most = MD_MAX(most, (double)md_elements(&t->shape));
    c->bytes += (double)md_type_bytes(t);
  }
  if (row->role == MD_LEAF || row->role == MD_VIEW) *c = (md_cost){0};
  int steps = row->role == MD_LEAF || row->role == MD_VIEW ? 0 : 1;
  if (row->scalar) {
    const md_expr *e = md_op_expr(row);
    steps = 0;
    for (int i = 0; i < e->num; i++) steps += md_expr_arity(e->node[i].kind) > 0;
  }
  c->flops = steps * most;
  if (row->cost) row->cost(&f, c);
}
