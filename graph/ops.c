// SPDX-License-Identifier: Apache-2.0
// The op table and its patterns. Rows are constant text; the patterns are parsed once, the first
// time anyone asks, into tables that never change again (the only lazily filled data we have;
// pthread_once makes it safe for two compilations in two threads).
//
// Defaults of attributes. A zero word takes what its pattern states, so `(md_conv3d_attr){0}` is a
// plain convolution: `=x` states the default itself, `>=x` a lower bound, which is then also the
// default when it is positive. Therefore `eps:float=1e-05` cannot be set to 0; a row whose 0 means
// something states no default. Text and builders agree in this.
#include "graph/graph.h"

#include "graph/op_functions.h"

#include <ctype.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

const md_op_row md_ops[MD_NUM_OPS] = {
    [MD_OP_none] = {.name = "none"},
#define OP(id, ...) [MD_OP_##id] = {.op = MD_OP_##id, .name = #id, __VA_ARGS__},
#include "graph/ops.def"
#undef OP
};

typedef struct row_patterns {
  md_operand_spec in[MD_ROW_IN], out[MD_ROW_OUT];
  md_attr_spec attr[MD_ROW_ATTR];
  int num_in, num_out, num_attr;
} row_patterns;

static struct {
  pthread_once_t once;
  row_patterns row[MD_NUM_OPS];
  bool failed;
  char why[200];
} table = {.once = PTHREAD_ONCE_INIT};

// Copies characters that belong to a name; returns what follows, or NULL when there is no name or
// it does not fit.
static const char *take_name(const char *s, char *to, size_t size) {
  size_t len = 0;
  while (isalnum((unsigned char)s[len]) || s[len] == '_') len++;
  if (!len || len >= size) return NULL;
  memcpy(to, s, len);
  to[len] = '\0';
  return s + len;
}

static const char *take_axes(const char *s, md_operand_spec *o) {
  while (*s != ']') {
    if (o->num_axes == MD_MAX_RANK) return NULL;
    char *axis = o->axis[o->num_axes++];
    if (*s == '*') {
      strcpy(axis, "*");
      return s[1] == ']' ? s + 2 : NULL;
    }
    s = take_name(s, axis, sizeof o->axis[0]);
    if (!s || (*s != ',' && *s != ']')) return NULL;
    if (*s == ',') s++;
  }
  return o->num_axes ? s + 1 : NULL;
}

// "i32 ids[b]?"
static bool parse_operand(const char *s, md_operand_spec *o) {
  char first[sizeof o->name];
  s = take_name(s, first, sizeof first);
  if (!s) return false;
  if (*s == ' ') {
    bool known = !strcmp(first, "f") || !strcmp(first, "i") || !strcmp(first, "any") ||
                 md_dtype_from(first) != MD_NO_DTYPE;
    if (!known || strlen(first) >= sizeof o->dtype) return false;
    strcpy(o->dtype, first);
    s = take_name(s + 1, first, sizeof first);
    if (!s) return false;
  }
  strcpy(o->name, first);
  if (*s != '[') return false;
  s = take_axes(s + 1, o);
  if (s && *s == '?') {
    o->optional = true;
    s++;
  }
  return s && !*s;
}

static bool parse_choices(const char **s, md_attr_spec *a) {
  if (*(*s)++ != '(') return false;
  for (;;) {
    if (a->num_choices == MD_COUNT(a->choice)) return false;
    *s = take_name(*s, a->choice[a->num_choices++], sizeof a->choice[0]);
    if (!*s) return false;
    char c = *(*s)++;
    if (c == ')') return true;
    if (c != ',') return false;
  }
}

static bool parse_preset(const char *s, md_attr_spec *a) {
  if (a->type != MD_AT_ENUM) return md_parse_float(s, &a->preset);
  for (int i = 0; i < a->num_choices; i++)
    if (!strcmp(a->choice[i], s)) {
      a->preset = i;
      return true;
    }
  return false;
}

// "stride:dim3>=1", "init:enum(zeros,ones)=zeros". `word`: place in md_attr.
static bool parse_attr(const char *s, int word, md_attr_spec *a) {
  static const struct {
    const char *name;
    int num_words;
  } types[] = {
      [MD_AT_INT] = {"int", 1},
      [MD_AT_FLOAT] = {"float", 1},
      [MD_AT_BOOL] = {"bool", 1},
      [MD_AT_DIM3] = {"dim3", 3},
      [MD_AT_DIMS] = {"dims", 1 + MD_MAX_RANK},
      [MD_AT_ENUM] = {"enum", 1},
      [MD_AT_DTYPE] = {"dtype", 1},
      [MD_AT_NAME] = {"name", 1},
  };
  char type[16];
  s = take_name(s, a->name, sizeof a->name);
  if (!s || *s != ':') return false;
  s = take_name(s + 1, type, sizeof type);
  if (!s) return false;
  for (int i = 0; i < MD_COUNT(types); i++)
    if (!strcmp(types[i].name, type)) {
      a->type = (md_attr_type)i;
      a->num_words = types[i].num_words;
    }
  a->word = word;
  if (!a->num_words || word + a->num_words > MD_ATTR_WORDS) return false;
  if (a->type == MD_AT_ENUM && !parse_choices(&s, a)) return false;
  bool is_number = a->type == MD_AT_INT || a->type == MD_AT_FLOAT || a->type == MD_AT_DIM3;
  if (s[0] == '>' && s[1] == '=' && is_number) {
    a->has_min = true;
    if (!md_parse_float(s + 2, &a->min)) return false;
    a->preset = MD_MAX(a->min, 0);
    return true;
  }
  if (*s == '=' && (is_number || a->type == MD_AT_ENUM)) return parse_preset(s + 1, a);
  return !*s;
}

static void parse_row(const md_op_row *row, row_patterns *p) {
  const char *bad = NULL;
  for (; !bad && p->num_in < MD_ROW_IN && row->in[p->num_in]; p->num_in++)
    if (!parse_operand(row->in[p->num_in], &p->in[p->num_in])) bad = row->in[p->num_in];
  for (; !bad && p->num_out < MD_ROW_OUT && row->out[p->num_out]; p->num_out++)
    if (!parse_operand(row->out[p->num_out], &p->out[p->num_out])) bad = row->out[p->num_out];
  int word = 0;
  for (; !bad && p->num_attr < MD_ROW_ATTR && row->attr[p->num_attr]; p->num_attr++) {
    md_attr_spec *a = &p->attr[p->num_attr];
    if (!parse_attr(row->attr[p->num_attr], word, a)) bad = row->attr[p->num_attr];
    word += a->num_words;
  }
  if (!bad || table.failed) return;
  table.failed = true;
  snprintf(table.why, sizeof table.why, "%s: pattern \"%s\" cannot be read", row->name, bad);
}

static void parse_table(void) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) parse_row(&md_ops[op], &table.row[op]);
}

static const row_patterns *patterns(md_op op) {
  pthread_once(&table.once, parse_table);
  MD_ASSERT(!table.failed, "%s", table.why);
  MD_ASSERT((int)op >= MD_OP_none && (int)op < MD_NUM_OPS, "op %d is not in the table", (int)op);
  return &table.row[op];
}

static bool complain(char *why, int why_size, const md_op_row *row, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static bool complain(char *why, int why_size, const md_op_row *row, const char *fmt, ...) {
  int len = snprintf(why, (size_t)why_size, "%s: ", row->name);
  va_list args;
  va_start(args, fmt);
  if (len < why_size) vsnprintf(why + len, (size_t)(why_size - len), fmt, args);
  va_end(args);
  return false;
}

static bool has_axis(const md_operand_spec *o, const char *axis) {
  for (int i = 0; i < o->num_axes; i++)
    if (!strcmp(o->axis[i], axis)) return true;
  return false;
}

// Every letter of a result stands in a required operand, and names are unique within the row.
static bool check_letters(const md_op_row *row, char *why, int why_size) {
  const row_patterns *p = patterns(row->op);
  for (int i = 0; i < p->num_out; i++)
    for (int k = 0; k < p->out[i].num_axes; k++) {
      bool bound = !strcmp(p->out[i].axis[k], "one");
      for (int j = 0; j < p->num_in; j++)
        bound |= !p->in[j].optional && has_axis(&p->in[j], p->out[i].axis[k]);
      if (!bound)
        return complain(why, why_size, row, "axis %s of result %s stands in no operand",
                        p->out[i].axis[k], p->out[i].name);
    }
  const char *name[MD_ROW_IN + MD_ROW_OUT + MD_ROW_ATTR];
  int n = 0;
  for (int i = 0; i < p->num_in; i++) name[n++] = p->in[i].name;
  for (int i = 0; i < p->num_attr; i++) name[n++] = p->attr[i].name;
  for (int i = 0; i < p->num_out; i++) name[n++] = p->out[i].name;
  for (int i = 0; i < n; i++)
    for (int k = 0; k < i; k++)
      if (!strcmp(name[i], name[k]))
        return complain(why, why_size, row, "the name %s stands twice", name[i]);
  return true;
}

// Algebraic facts, and optional operands only at the end.
static bool check_flags(const md_op_row *row, char *why, int why_size) {
  const row_patterns *p = patterns(row->op);
  if (row->flags & MD_COMMUTATIVE) {
    bool ok = p->num_in == 2 && !strcmp(p->in[0].dtype, p->in[1].dtype) &&
              p->in[0].num_axes == p->in[1].num_axes;
    for (int k = 0; ok && k < p->in[0].num_axes; k++)
      ok = !strcmp(p->in[0].axis[k], p->in[1].axis[k]);
    if (!ok) return complain(why, why_size, row, "commutative, but its operands are not alike");
  }
  if ((row->flags & MD_IDEMPOTENT) && p->num_in != 1)
    return complain(why, why_size, row, "idempotent, but has %d operands", p->num_in);
  if ((row->flags & MD_VARIADIC) && (!p->num_in || !row->shape))
    return complain(why, why_size, row,
                    "variadic: needs an operand to repeat and a shape function");
  for (int i = 1; i < p->num_in; i++)
    if (p->in[i - 1].optional && !p->in[i].optional)
      return complain(why, why_size, row, "optional operand %s stands before a required one",
                      p->in[i - 1].name);
  return true;
}

// What the columns owe each other.
static bool check_columns(const md_op_row *row, char *why, int why_size) {
  const row_patterns *p = patterns(row->op);
  if (!row->doc) return complain(why, why_size, row, "no .doc");
  if (!p->num_out && !row->shape) return complain(why, why_size, row, "neither .out nor .shape");
  if (!row->grad == !row->no_grad)
    return complain(why, why_size, row, "needs either .grad or .no_grad with the reason");
  int num_constant = 0;
  for (int i = 0; i < p->num_in; i++) num_constant += md_op_is_constant(row->op, i);
  if (row->constant && (!row->grad || !num_constant))
    return complain(why, why_size, row, ".constant names no operand, or there is no .grad");
  if ((row->role == MD_LEAF) != (p->num_in == 0))
    return complain(why, why_size, row, "leaves, and only leaves, have no operands");
  if (row->role == MD_LEAF) return true;
  if (!row->samples[0]) return complain(why, why_size, row, "no .samples");
  if (row->role == MD_POINTWISE ? !row->scalar : !row->eval)
    return complain(why, why_size, row, "no %s", row->role == MD_POINTWISE ? ".scalar" : ".eval");
  if (row->scalar && row->role != MD_POINTWISE)
    return complain(why, why_size, row, "has a formula, but is not pointwise");
  return true;
}

static bool check_attrs(const md_op_row *row, char *why, int why_size) {
  const row_patterns *p = patterns(row->op);
  for (int i = 0; i < p->num_attr; i++) {
    const md_attr_spec *a = &p->attr[i];
    if (a->has_min && a->preset < a->min)
      return complain(why, why_size, row, "default of %s lies below its bound", a->name);
    // A choice that is not first could otherwise not be told from "not given".
    if (a->type == MD_AT_ENUM && a->preset != 0)
      return complain(why, why_size, row, "the default of %s must be its first choice", a->name);
  }
  return true;
}

static bool check_formula(const md_op_row *row, char *why, int why_size) {
  if (!row->scalar) return true;
  md_expr e;
  char text[160];
  if (!md_expr_parse(row, &e, text, sizeof text))
    return complain(why, why_size, row, "formula: %s", text);
  const row_patterns *p = patterns(row->op);
  bool used[MD_ROW_IN] = {false};
  for (int i = 0; i < e.num; i++)
    if (e.node[i].kind == MD_EX_ARG) used[e.node[i].a] = true;
  for (int i = 0; i < p->num_in; i++)
    if (!used[i]) return complain(why, why_size, row, "formula does not read %s", p->in[i].name);
  return true;
}

int md_op_num_in(md_op op) { return patterns(op)->num_in; }
int md_op_num_out(md_op op) { return patterns(op)->num_out; }
int md_op_num_attr(md_op op) { return patterns(op)->num_attr; }

const md_operand_spec *md_op_in(md_op op, int i) {
  MD_ASSERT(i >= 0 && i < patterns(op)->num_in, "%s has no operand %d", md_ops[op].name, i);
  return &patterns(op)->in[i];
}

bool md_op_is_constant(md_op op, int i) {
  const char *name = md_ops[op].constant;
  return name && i < patterns(op)->num_in && !strcmp(patterns(op)->in[i].name, name);
}

const md_operand_spec *md_op_out(md_op op, int i) {
  MD_ASSERT(i >= 0 && i < patterns(op)->num_out, "%s has no result %d", md_ops[op].name, i);
  return &patterns(op)->out[i];
}

const md_attr_spec *md_op_attr(md_op op, int i) {
  MD_ASSERT(i >= 0 && i < patterns(op)->num_attr, "%s has no attribute %d", md_ops[op].name, i);
  return &patterns(op)->attr[i];
}

md_op md_op_from(const char *name) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++)
    if (!strcmp(md_ops[op].name, name)) return (md_op)op;
  return MD_OP_none;
}

const char *md_op_nearest(const char *name) {
  const char *names[MD_NUM_OPS];
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) names[op - 1] = md_ops[op].name;
  return md_nearest(name, names, MD_NUM_OPS - 1);
}

bool md_ops_check(char *why, int why_size) {
  pthread_once(&table.once, parse_table);
  if (table.failed) {
    snprintf(why, (size_t)why_size, "%s", table.why);
    return false;
  }
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    const md_op_row *row = &md_ops[op];
    if ((int)row->op != op) return complain(why, why_size, row, "stands at the wrong place");
    if (md_op_from(row->name) != row->op) return complain(why, why_size, row, "name stands twice");
    if (!check_columns(row, why, why_size) || !check_letters(row, why, why_size) ||
        !check_flags(row, why, why_size) || !check_attrs(row, why, why_size) ||
        !check_formula(row, why, why_size))
      return false;
  }
  return true;
}
