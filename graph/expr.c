// SPDX-License-Identifier: Apache-2.0
// Formulas of pointwise ops: text of the row -> a short straight-line program. Everybody who needs
// the meaning of a pointwise op (interpreter, both back ends, cost) reads this program; equal
// subterms are one step. The text is ours, so a mistake in it is found by md_ops_check.
#include "graph/graph.h"

#include <ctype.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

enum { MAX_LOCALS = 8 };

typedef struct parser {
  const md_op_row *row;
  const char *s;
  md_expr *e;
  char local[MAX_LOCALS][16];
  int local_node[MAX_LOCALS];
  int num_locals;
  const char *bad;  // first mistake
} parser;

static const struct {
  const char *name;
  md_expr_kind kind;
} functions[] = {
    {"min", MD_EX_MIN},     {"max", MD_EX_MAX},       {"exp", MD_EX_EXP},
    {"log", MD_EX_LOG},     {"log1p", MD_EX_LOG1P},   {"sqrt", MD_EX_SQRT},
    {"rsqrt", MD_EX_RSQRT}, {"abs", MD_EX_ABS},       {"tanh", MD_EX_TANH},
    {"floor", MD_EX_FLOOR}, {"select", MD_EX_SELECT}, {"random", MD_EX_RANDOM},
};

// Longer spellings first.
static const struct {
  const char *text;
  int level;  // of binding
  md_expr_kind kind;
} operators[] = {
    {"<=", 3, MD_EX_LE}, {"==", 3, MD_EX_EQ}, {"!=", 3, MD_EX_NE}, {"<", 3, MD_EX_LT},
    {"|", 1, MD_EX_OR},  {"&", 2, MD_EX_AND}, {"+", 4, MD_EX_ADD}, {"-", 4, MD_EX_SUB},
    {"*", 5, MD_EX_MUL}, {"/", 5, MD_EX_DIV},
};
enum { LOWEST = 1, UNARY = 6 };

static struct {
  pthread_once_t once;
  md_expr expr[MD_NUM_OPS];
} formulas = {.once = PTHREAD_ONCE_INIT};

static int fail(parser *p, const char *why) {
  if (!p->bad) p->bad = why;
  return 0;
}

static void skip_space(parser *p) {
  while (*p->s == ' ') p->s++;
}

static bool take(parser *p, const char *text) {
  skip_space(p);
  size_t len = strlen(text);
  if (strncmp(p->s, text, len) != 0) return false;
  p->s += len;
  return true;
}

static int append(parser *p, md_expr_node n) {
  md_expr *e = p->e;
  if (n.kind == MD_EX_NEG && e->node[n.a].kind == MD_EX_CONST)
    n = (md_expr_node){.kind = MD_EX_CONST, .value = -e->node[n.a].value};
  for (int i = 0; i < e->num; i++) {
    const md_expr_node *o = &e->node[i];
    if (o->kind == n.kind && o->a == n.a && o->b == n.b && o->c == n.c && o->is_int == n.is_int &&
        !memcmp(&o->value, &n.value, sizeof n.value))
      return i;
  }
  if (e->num == MD_MAX_EXPR) return fail(p, "too many steps");
  e->node[e->num] = n;
  return e->num++;
}

static bool take_word(parser *p, char *to, size_t size) {
  skip_space(p);
  size_t len = 0;
  while (isalnum((unsigned char)p->s[len]) || p->s[len] == '_') len++;
  if (!len || len >= size || isdigit((unsigned char)p->s[0])) return false;
  memcpy(to, p->s, len);
  to[len] = '\0';
  p->s += len;
  return true;
}

static int take_number(parser *p) {
  char text[32];
  size_t len = strspn(p->s, "0123456789.");
  double value = 0;
  if (len < sizeof text) {
    memcpy(text, p->s, len);
    text[len] = '\0';
  }
  if (!len || len >= sizeof text || !md_parse_float(text, &value)) return fail(p, "not a number");
  p->s += len;
  return append(p, (md_expr_node){.kind = MD_EX_CONST, .value = value});
}

// Locals hide operands: `y = ...; z = y + 1` means the y just computed.
static int resolve(parser *p, const char *name) {
  if (!strcmp(name, "inf"))
    return append(p, (md_expr_node){.kind = MD_EX_CONST, .value = INFINITY});
  for (int i = p->num_locals - 1; i >= 0; i--)
    if (!strcmp(p->local[i], name)) return p->local_node[i];
  md_op op = p->row->op;
  for (int i = 0; i < md_op_num_in(op); i++)
    if (!strcmp(md_op_in(op, i)->name, name))
      return append(p, (md_expr_node){.kind = MD_EX_ARG, .a = i});
  for (int i = 0; i < md_op_num_attr(op); i++) {
    const md_attr_spec *a = md_op_attr(op, i);
    if (strcmp(a->name, name) != 0) continue;
    if (a->type != MD_AT_FLOAT && a->type != MD_AT_INT && a->type != MD_AT_BOOL)
      return fail(p, "an attribute in a formula is one number");
    bool is_int = a->type != MD_AT_FLOAT;
    return append(p, (md_expr_node){.kind = MD_EX_ATTR, .a = a->word, .is_int = is_int});
  }
  return fail(p, "unknown name");
}

// Binary operators by levels of binding; `level` is the weakest that may be taken here.
static int parse(parser *p, int level) {
  char word[24];
  int left = 0;
  skip_space(p);
  if (p->bad) return 0;
  if (take(p, "-")) {
    left = append(p, (md_expr_node){.kind = MD_EX_NEG, .a = parse(p, UNARY)});
  } else if (take(p, "(")) {
    left = parse(p, LOWEST);
    if (!take(p, ")")) return fail(p, "')' is missing");
  } else if (!take_word(p, word, sizeof word)) {
    left = take_number(p);
  } else if (!take(p, "(")) {
    left = resolve(p, word);
  } else {
    md_expr_node n = {.kind = MD_NUM_EX};
    for (int i = 0; i < MD_COUNT(functions); i++)
      if (!strcmp(functions[i].name, word)) n.kind = functions[i].kind;
    if (n.kind == MD_NUM_EX) return fail(p, "unknown function");
    int *arg[] = {&n.a, &n.b, &n.c};
    for (int i = 0; i < md_expr_arity(n.kind); i++) {
      if (i && !take(p, ",")) return fail(p, "too few arguments");
      *arg[i] = parse(p, LOWEST);
    }
    if (!take(p, ")")) return fail(p, "too many arguments");
    if (n.kind == MD_EX_RANDOM && p->e->node[n.a].kind != MD_EX_ARG)
      return fail(p, "the key of random must be an operand");
    left = append(p, n);
  }
  for (int i = 0; !p->bad && i < MD_COUNT(operators); i++) {
    if (operators[i].level < level || !take(p, operators[i].text)) continue;
    int right = parse(p, operators[i].level + 1);
    left = append(p, (md_expr_node){.kind = operators[i].kind, .a = left, .b = right});
    i = -1;  // again from the first operator
  }
  return p->bad ? 0 : left;
}

static void parse_statement(parser *p) {
  if (p->num_locals == MAX_LOCALS) {
    fail(p, "too many names");
    return;
  }
  char *name = p->local[p->num_locals];
  if (!take_word(p, name, sizeof p->local[0]) || !take(p, "=")) {
    fail(p, "a statement is `name = ...`");
    return;
  }
  p->local_node[p->num_locals] = parse(p, LOWEST);
  p->num_locals++;
}

// Results by the names of the row's result patterns; without patterns the last statement is the one
// result.
static void bind_results(parser *p) {
  md_op op = p->row->op;
  p->e->num_out = MD_MAX(md_op_num_out(op), 1);
  if (p->e->num_out > MD_COUNT(p->e->out)) {
    fail(p, "too many results");
    return;
  }
  if (!md_op_num_out(op)) p->e->out[0] = p->local_node[p->num_locals - 1];
  for (int i = 0; i < md_op_num_out(op); i++) {
    p->e->out[i] = -1;
    for (int k = 0; k < p->num_locals; k++)
      if (!strcmp(p->local[k], md_op_out(op, i)->name)) p->e->out[i] = p->local_node[k];
    if (p->e->out[i] < 0) fail(p, "a result is not computed");
  }
}

static void parse_all(void) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    char why[160];
    MD_ASSERT(!md_ops[op].scalar || md_expr_parse(&md_ops[op], &formulas.expr[op], why, sizeof why),
              "%s: %s", md_ops[op].name, why);
  }
}

int md_expr_arity(md_expr_kind kind) {
  switch (kind) {
  case MD_EX_CONST:
  case MD_EX_ARG:
  case MD_EX_ATTR: return 0;
  case MD_EX_SELECT: return 3;
  case MD_EX_NEG:
  case MD_EX_EXP:
  case MD_EX_LOG:
  case MD_EX_LOG1P:
  case MD_EX_SQRT:
  case MD_EX_RSQRT:
  case MD_EX_ABS:
  case MD_EX_TANH:
  case MD_EX_FLOOR:
  case MD_EX_RANDOM: return 1;
  default: return 2;
  }
}

bool md_expr_parse(const md_op_row *row, md_expr *e, char *why, int why_size) {
  parser p = {.row = row, .s = row->scalar, .e = e};
  *e = (md_expr){0};
  do parse_statement(&p);
  while (!p.bad && take(&p, ";"));
  skip_space(&p);
  if (!p.bad && *p.s) fail(&p, "the text goes on");
  if (!p.bad) bind_results(&p);
  if (p.bad) snprintf(why, (size_t)why_size, "%s before '%s'", p.bad, p.s);
  return !p.bad;
}

const md_expr *md_op_expr(const md_op_row *row) {
  if (!row->scalar) return NULL;
  pthread_once(&formulas.once, parse_all);
  return &formulas.expr[row->op];
}

double md_attr_value(const md_attr *attr, const md_expr_node *n) {
  return n->is_int ? (double)attr->word[n->a] : attr->real[n->a];
}

// min and max pass a NaN on, so that a relu does not hide one from --check-nan.
double md_expr_apply(md_expr_kind kind, double a, double b, double c) {
  switch (kind) {
  case MD_EX_ADD: return a + b;
  case MD_EX_SUB: return a - b;
  case MD_EX_MUL: return a * b;
  case MD_EX_DIV: return a / b;
  case MD_EX_NEG: return -a;
  case MD_EX_MIN: return a < b || isnan(a) ? a : b;
  case MD_EX_MAX: return a > b || isnan(a) ? a : b;
  case MD_EX_LT: return a < b;
  case MD_EX_LE: return a <= b;
  case MD_EX_EQ: return a == b;
  case MD_EX_NE: return a != b;
  case MD_EX_AND: return a != 0 && b != 0;
  case MD_EX_OR: return a != 0 || b != 0;
  case MD_EX_EXP: return exp(a);
  case MD_EX_LOG: return log(a);
  case MD_EX_LOG1P: return log1p(a);
  case MD_EX_SQRT: return sqrt(a);
  case MD_EX_RSQRT: return 1 / sqrt(a);
  case MD_EX_ABS: return fabs(a);
  case MD_EX_TANH: return tanh(a);
  case MD_EX_FLOOR: return floor(a);
  case MD_EX_SELECT: return a != 0 ? b : c;
  default: MD_ASSERT(false, "expression step %d has no value of its own", (int)kind);
  }
}
