// SPDX-License-Identifier: Apache-2.0
// What a value is at a place: loads of what lies in memory, formulas of pointwise nodes, index maps
// of views. A value of the region is never read from memory here unless an earlier kernel made it.
#include "codegen/cuda/gen.h"

#include "base/round.h"

#include <string.h>

struct md_cu_memo {
  md_val val;
  md_cu_spot at;
  md_cu_term term;
};

void md_cu_know(md_cu_kernel *k, md_val v, const md_cu_spot *s, md_cu_term term) {
  if (k->now.num_memo == k->now.cap_memo) {
    int cap = MD_MAX(32, 2 * k->now.cap_memo);
    struct md_cu_memo *memo = MD_NEW_ARRAY(k->w->arena, struct md_cu_memo, cap);
    if (k->now.num_memo) memcpy(memo, k->now.memo, sizeof *memo * (size_t)k->now.num_memo);
    k->now.memo = memo;
    k->now.cap_memo = cap;
  }
  k->now.memo[k->now.num_memo++] = (struct md_cu_memo){v, *s, term};
}

static const md_cu_term *recalled(const md_cu_kernel *k, md_val v, const md_cu_spot *s) {
  for (int i = k->now.num_memo - 1; i >= 0; i--)
    if (k->now.memo[i].val == v && md_cu_spot_equal(&k->now.memo[i].at, s))
      return &k->now.memo[i].term;
  return NULL;
}

// "(a + b)" -> "a + b"
static const char *bare(md_arena *a, const char *text) {
  size_t len = strlen(text);
  if (len < 2 || text[0] != '(' || text[len - 1] != ')') return text;
  int depth = 0;
  for (size_t i = 0; i + 1 < len; i++) {
    depth += (text[i] == '(') - (text[i] == ')');
    if (!depth) return text;
  }
  return md_strndup(a, text + 1, len - 2);
}

static bool is_name(const char *text) {
  return text[0] == 't' && text[1] && strspn(text + 1, "0123456789") == strlen(text + 1);
}

static md_cu_term named(md_cu_kernel *k, md_val v, md_cu_term t) {
  if (is_name(t.text)) return t;  // a cast that changes nothing
  const char *name = md_format(k->w->arena, "t%d", k->num_value++);
  if (t.by_channel) md_cu_enter_table(k);
  md_cu_line(k, md_cu_comment(k, v), "const %s %s = %s;", md_cu_type_name(t.type), name,
             bare(k->w->arena, t.text));
  if (t.by_channel) md_cu_leave_table(k);
  t.text = name;
  return t;
}

static md_cu_term load(md_cu_kernel *k, md_val v, md_cu_spot *s) {
  const md_type *t = md_type_in(k->w->r->g, v);
  md_cu_term r = {.type = md_cu_compute_type(t->dtype), .text = md_cu_vector(k, v, s)};
  if (!r.text) {
    const char *form = t->dtype == MD_BF16 ? "md_bf2f(%s[%s])" : "%s[%s]";
    md_cu_ix at = md_cu_offset(k, t, s);
    r.text = md_format(k->w->arena, form, md_cu_pointer(k, v, false), at);
  }
  return named(k, v, r);
}

// All results of a pointwise node; they go to the memo.
static void make_pointwise(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  md_cu_term arg[MD_ROW_IN] = {{0}}, result[MD_COUNT(((md_expr *)0)->out)];
  for (int i = 0; i < n->num_in; i++) {
    md_cu_spot in = md_cu_spot_operand(k, n, i, s);
    arg[i] = md_cu_value(k, n->in[i], &in);
  }
  md_cu_formula(k, n, arg, s, result);
  for (int i = 0; i < n->num_out; i++) {
    md_val v = n->out + (md_val)i;
    if (k->w->r->g->value[v].uses > 0) md_cu_know(k, v, s, named(k, v, result[i]));
  }
}

static md_cu_term value_of_channel(md_cu_kernel *k, md_val v) {
  md_cu_enter_table(k);
  md_cu_spot s = md_cu_table_spot(k, v);
  md_cu_term r = md_cu_value(k, v, &s);
  md_cu_leave_table(k);
  r.by_channel = !r.known;
  return r;
}

static void make_gather(md_cu_kernel *k, const md_node *n, md_cu_spot *s) {
  const char *result[MD_ROW_OUT] = {NULL};
  if (k->lanes) k->lanes->is_scattered = true;  // it may load where a condition holds
  md_cu_gather(k, n, s, result);
  for (int i = 0; i < n->num_out; i++) {
    md_val v = n->out + (md_val)i;
    if (!k->w->r->g->value[v].uses) continue;
    // As its element type holds it; what only goes to memory is rounded there.
    bool rounds = md_type_in(k->w->r->g, v)->dtype == MD_BF16 && md_read_inside(k->w->r, v);
    md_cu_type type = md_cu_compute_type(md_type_in(k->w->r->g, v)->dtype);
    const char *text = md_format(k->w->arena, rounds ? "md_bf2f(md_f2bf(%s))" : "%s", result[i]);
    md_cu_know(k, v, s, named(k, v, (md_cu_term){.text = text, .type = type}));
  }
}

const char *md_cu_variable(md_cu_kernel *k, md_cu_type type, const char *init) {
  const char *name = md_format(k->w->arena, "t%d", k->num_value++);
  md_cu_line(k, NULL, "%s %s%s%s;", md_cu_type_name(type), name, init ? " = " : "",
             init ? init : "");
  return name;
}

const char *md_cu_sum(md_cu_kernel *k) {
  const char *name = md_format(k->w->arena, "sum%d", k->num_value++);
  md_cu_line(k, NULL, "double %s = 0.0;", name);
  return name;
}

const char *md_cu_from_double(md_cu_kernel *k, md_val v, const char *text) {
  md_cu_type type = md_cu_compute_type(md_type_in(k->w->r->g, v)->dtype);
  return md_format(k->w->arena, "(%s)(%s)", md_cu_type_name(type), text);
}

md_cu_term md_cu_value(md_cu_kernel *k, md_val v, md_cu_spot *s) {
  const md_graph *g = k->w->r->g;
  const md_node *n = md_def(g, v);
  md_dtype dtype = md_type_in(g, v)->dtype;
  md_cu_term r = {.type = md_cu_compute_type(dtype)};
  if (n->op == MD_OP_constant) {
    r.known = true;
    r.number = md_rounded(dtype, n->attr.value.value);
    r.text = md_cu_literal(k->w->arena, r.type, r.number);
    return r;
  }
  if (md_cu_by_channel(k, v, s)) return value_of_channel(k, v);
  const md_cu_term *before = recalled(k, v, s);
  if (before) return *before;
  if (!md_inner(k->w->r, v) || md_cu_is_ready(k->w, v)) {
    r = load(k, v, s);
    md_cu_know(k, v, s, r);
  } else if (md_ops[n->op].role == MD_POINTWISE) {
    make_pointwise(k, n, s);
    r = *recalled(k, v, s);
  } else if (md_cu_op_of(n->op) && md_cu_op_of(n->op)->is_value) {
    make_gather(k, n, s);
    r = *recalled(k, v, s);
  } else {
    MD_ASSERT(md_ops[n->op].role == MD_VIEW, "%s has no value before it ran", md_ops[n->op].name);
    md_cu_spot in = md_cu_spot_view(k, n, s);
    r = md_cu_value(k, n->in[0], &in);
    if (!r.known) md_cu_know(k, v, s, r);
  }
  return r;
}

const char *md_cu_value_as(md_cu_kernel *k, md_val v, md_cu_spot *s, md_cu_type type) {
  md_cu_term t = md_cu_value(k, v, s), plain = md_cu_plain(k, &t);
  return md_cu_as(k->w->arena, &plain, type);
}

void md_cu_store(md_cu_kernel *k, md_val v, md_cu_spot *s, const char *text) {
  const md_type *t = md_type_in(k->w->r->g, v);
  md_cu_ix at = md_cu_offset(k, t, s);
  const char *ptr = md_cu_pointer(k, v, true), *form = "%s[%s] = %s;";
  if (t->dtype == MD_BF16) form = "%s[%s] = md_f2bf(%s);";
  if (t->dtype == MD_U8 || t->dtype == MD_BOOL) form = "%s[%s] = (md_u8)%s;";
  md_cu_line(k, md_cu_comment(k, v), "%s", md_format(k->w->arena, form, ptr, at, text));
}
