// SPDX-License-Identifier: Apache-2.0
// The generic test: every row of the op table, with the operands and attributes of its samples.
#include "graph/graph.h"
#include "tests/tolerance.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

// --- a sample: "f32[2,3], i32[2] {axis=1}"

typedef struct sample {
  md_op op;
  const char *text;
  md_type in[MD_ROW_IN];
  int num_in;
  md_attr attr;
} sample;

// One graph with the sample's op between inputs and results.
typedef struct subject {
  md_graph *g;
  md_diags *diags;
  md_builder b;
  md_val in[MD_ROW_IN];
  const md_node *node;
} subject;

static md_type parse_type(const char **s) {
  char dtype[8];
  size_t len = strcspn(*s, "[");
  ck_assert_uint_lt(len, sizeof dtype);
  memcpy(dtype, *s, len);
  dtype[len] = '\0';
  md_type t = {.dtype = md_dtype_from(dtype)};
  ck_assert_int_ne(t.dtype, MD_NO_DTYPE);
  *s += len;
  while (**s != ']') {
    char *end;
    ck_assert_int_lt(t.shape.rank, MD_MAX_RANK);
    t.shape.dim[t.shape.rank++] = strtoll(*s + 1, &end, 10);
    *s = end;
  }
  ++*s;
  return t;
}

static sample parse_sample(md_op op, const char *text, md_arena *a) {
  sample p = {.op = op, .text = text};
  const char *s = text;
  while (*s && *s != '{') {
    ck_assert_int_lt(p.num_in, MD_ROW_IN);
    p.in[p.num_in++] = parse_type(&s);
    s += strspn(s, ", ");
  }
  md_diags *d = md_diags_create();
  ck_assert_msg(*s != '{' || md_parse_attrs(s, op, a, &p.attr, d), "%s: %s: %s", md_ops[op].name,
                text, md_diags_text(d));
  md_diags_destroy(d);
  return p;
}

// Builds the node; subject.node is NULL when it is refused.
static subject build(const sample *p) {
  subject s = {.g = md_graph_create("sample"), .diags = md_diags_create()};
  md_builder_init(&s.b, s.g, s.diags);
  for (int i = 0; i < p->num_in; i++) {
    char name[16];
    snprintf(name, sizeof name, "x%d", i);
    s.in[i] = md_input(&s.b, name, p->in[i]);
  }
  md_val y = md_add_node(&s.b, p->op, s.in, p->num_in, &p->attr);
  if (y != MD_NONE) s.node = md_def(s.g, y);
  return s;
}

static void destroy(subject *s) {
  md_graph_destroy(s->g);
  md_diags_destroy(s->diags);
}

static const char *name_of(const sample *p) { return md_ops[p->op].name; }

typedef void (*sample_test)(const sample *p);

static void for_every_sample(sample_test test) {
  md_arena *a = md_arena_create();
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    for (int i = 0; i < MD_ROW_SAMPLES && md_ops[op].samples[i]; i++) {
      sample p = parse_sample((md_op)op, md_ops[op].samples[i], a);
      test(&p);
    }
  }
  md_arena_destroy(a);
}

// --- values

// Integers serve as labels, ids and indices at once: 0, 1, 2. Floats stay away from 0, where relu
// and |x| have their kinks, and are all different, so that maxima have no ties.
static void fill(md_tensor *t, int seed, bool positive) {
  int64_t n = md_elements(&t->type.shape);
  uint64_t key = md_hash_key("operand", (uint64_t)seed);
  for (int64_t i = 0; i < n; i++) {
    if (t->i) {
      t->i[i] = (int64_t)(md_hash_at(key, (uint64_t)i) % 3);
      if (t->type.dtype == MD_BOOL) t->i[i] &= 1;
      continue;
    }
    double unit = md_hash_unit(key, (uint64_t)i);
    t->f[i] = 0.25 + fabs(unit);
    if (unit < 0 && !positive) t->f[i] = -t->f[i];
  }
}

typedef struct values {
  md_tensor *in[MD_ROW_IN], *out[MD_ROW_OUT];
  const md_tensor *arg[MD_ROW_IN];
} values;

static void evaluate(const subject *s, values *v) {
  const md_node *n = s->node;
  for (int i = 0; i < n->num_in; i++) v->arg[i] = v->in[i];
  for (int i = 0; i < n->num_out; i++) {
    md_tensor_destroy(v->out[i]);
    v->out[i] = md_tensor_create(s->g->value[n->out + (md_val)i].type);
  }
  md_eval_node(s->g, n, v->arg, v->out);
}

static bool has_nan(const md_tensor *t) {
  int64_t n = md_elements(&t->type.shape);
  for (int64_t i = 0; t->f && i < n; i++)
    if (isnan(t->f[i])) return true;
  return false;
}

// Operands on which the op is defined: positive ones where signed ones give NaN (log, sqrt).
static values make_values(const subject *s) {
  values v = {0};
  for (int positive = 0; positive < 2; positive++) {
    for (int i = 0; i < s->node->num_in; i++) {
      if (!v.in[i]) v.in[i] = md_tensor_create(md_type_in(s->g, s->in[i])[0]);
      fill(v.in[i], i, positive);
    }
    evaluate(s, &v);
    bool bad = false;
    for (int i = 0; i < s->node->num_out; i++) bad |= has_nan(v.out[i]);
    if (!bad) break;
  }
  return v;
}

static void free_values(const subject *s, values *v) {
  for (int i = 0; i < s->node->num_in; i++) md_tensor_destroy(v->in[i]);
  for (int i = 0; i < s->node->num_out; i++) md_tensor_destroy(v->out[i]);
}

// --- the table

START_TEST(the_table_is_well_formed) {
  char why[200];
  ck_assert_msg(md_ops_check(why, sizeof why), "%s", why);
}
END_TEST

// An artefact says `init` in these words, and a text in those of the row.
START_TEST(the_words_of_init_are_those_of_its_enum) {
  const md_attr_spec *init = md_op_attr(MD_OP_state, 0);
  ck_assert_int_eq(init->num_choices, MD_COUNT(md_init_names));
  for (int i = 0; i < init->num_choices; i++) ck_assert_str_eq(init->choice[i], md_init_names[i]);
}
END_TEST

START_TEST(every_op_but_leaves_has_samples) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++)
    ck_assert_msg(md_ops[op].role == MD_LEAF || md_ops[op].samples[0], "%s", md_ops[op].name);
}
END_TEST

static void sample_builds(const sample *p) {
  subject s = build(p);
  ck_assert_msg(s.node, "%s: %s\n%s", name_of(p), p->text, md_diags_text(s.diags));
  for (int i = 0; i < s.node->num_out; i++) {
    char name[16];
    snprintf(name, sizeof name, "y%d", i);
    md_return(&s.b, name, s.node->out + (md_val)i);
  }
  ck_assert_msg(md_graph_verify(s.g, s.diags), "%s: %s\n%s", name_of(p), p->text,
                md_diags_text(s.diags));
  md_cost c;
  md_node_cost(s.g, s.node, &c);
  ck_assert_msg(c.flops >= 0 && c.bytes >= 0 && isfinite(c.flops), "%s: cost", name_of(p));
  bool works = md_ops[p->op].role != MD_VIEW;
  ck_assert_msg(!works || c.bytes > 0, "%s: no bytes", name_of(p));
  destroy(&s);
}

START_TEST(every_sample_builds_and_verifies) { for_every_sample(sample_builds); }
END_TEST

static void sample_returns_from_text(const sample *p) {
  subject s = build(p);
  for (int i = 0; i < s.node->num_out; i++) {
    char name[16];
    snprintf(name, sizeof name, "y%d", i);
    md_return(&s.b, name, s.node->out + (md_val)i);
  }
  md_text first = {0}, second = {0};
  md_graph_print(s.g, &first);
  md_graph *again = md_parse_graph("sample.mdg", first.s, first.len, s.diags);
  ck_assert_msg(again, "%s\n%s", first.s, md_diags_text(s.diags));
  md_graph_print(again, &second);
  ck_assert_str_eq(first.s, second.s);
  md_digest x = md_graph_digest(s.g), y = md_graph_digest(again);
  ck_assert_msg(x.lo == y.lo && x.hi == y.hi, "%s: digest changes", name_of(p));
  md_text_free(&first);
  md_text_free(&second);
  md_graph_destroy(again);
  destroy(&s);
}

START_TEST(every_sample_returns_from_its_text) { for_every_sample(sample_returns_from_text); }
END_TEST

// --- what is refused

static bool refused(const sample *p) {
  subject s = build(p);
  bool no = !s.node;
  ck_assert_msg(no == (md_diags_errors(s.diags) == 1), "%s: %s: %d errors", name_of(p), p->text,
                md_diags_errors(s.diags));
  // What is accepted can be run: a sanitizer sees whether shape checked all that eval relies on.
  if (!no && md_ops[p->op].role != MD_META) {
    values v = make_values(&s);
    free_values(&s, &v);
  }
  destroy(&s);
  return no;
}

// Another operand of the sample has the same axis, or the axis must have one element.
static bool is_bound(const sample *p, int operand, int axis) {
  const md_operand_spec *o = md_op_in(p->op, operand);
  if (axis >= o->num_axes || !strcmp(o->axis[axis], "*")) return false;
  for (int i = 0; i < p->num_in; i++) {
    const md_operand_spec *other = md_op_in(p->op, i);
    for (int k = 0; i != operand && k < other->num_axes; k++)
      if (!strcmp(other->axis[k], o->axis[axis])) return true;
  }
  return !strcmp(o->axis[axis], "one");
}

static void sample_is_guarded(const sample *p) {
  bool variadic = md_ops[p->op].flags & MD_VARIADIC;
  sample bad = *p;
  bad.num_in = 0;
  ck_assert_msg(refused(&bad), "%s: no operands", name_of(p));
  for (int i = 0; i < p->num_in; i++) {
    const md_operand_spec *o = md_op_in(p->op, MD_MIN(i, md_op_num_in(p->op) - 1));
    bad = *p;
    bad.in[i].dtype = MD_BOOL;
    bool is_any = !strcmp(o->dtype, "any");
    ck_assert_msg(refused(&bad) || is_any, "%s: operand %d of type bool", name_of(p), i);
    bad = *p;
    bad.in[i].shape.rank--;
    bool any_rank = !strcmp(o->axis[o->num_axes - 1], "*");
    ck_assert_msg(refused(&bad) || any_rank, "%s: operand %d lacks an axis", name_of(p), i);
    for (int k = 0; k < p->in[i].shape.rank; k++) {
      for (int by = -1; by <= 1; by += 2) {
        bad = *p;
        bad.in[i].shape.dim[k] += by;
        bool must = !variadic && is_bound(p, i, k);
        ck_assert_msg(refused(&bad) || !must, "%s: %s: operand %d, axis %d, %+d", name_of(p),
                      p->text, i, k, by);
      }
    }
  }
}

START_TEST(operands_that_do_not_fit_are_refused) { for_every_sample(sample_is_guarded); }
END_TEST

// Attributes beyond all sense are refused or harmless, never a crash.
static void sample_attrs_are_guarded(const sample *p) {
  static const int64_t wild[] = {-1, 1, 2, 7, 1000, (int64_t)1 << 31, INT64_MAX, INT64_MIN};
  for (int i = 0; i < md_op_num_attr(p->op); i++) {
    const md_attr_spec *a = md_op_attr(p->op, i);
    if (a->type == MD_AT_FLOAT || a->type == MD_AT_NAME) continue;
    // Behind the end of a short list nothing is read.
    int num_words = a->type == MD_AT_DIMS ? 1 + (int)p->attr.word[a->word] : a->num_words;
    for (int k = 0; k < num_words; k++) {
      for (int w = 0; w < MD_COUNT(wild); w++) {
        sample bad = *p;
        bad.attr.word[a->word + k] = wild[w];
        bool no = refused(&bad);
        ck_assert_msg(no || llabs(wild[w]) < (int64_t)1 << 31, "%s: %s = %lld", name_of(p), a->name,
                      (long long)wild[w]);
      }
    }
  }
}

START_TEST(attributes_out_of_range_are_refused) { for_every_sample(sample_attrs_are_guarded); }
END_TEST

// --- gradients

// The loss: every float result against a fixed random weight. Results that are not finite (masked
// logits) weigh nothing.
static double loss_of(const subject *s, values *v, md_tensor **weight) {
  double loss = 0;
  evaluate(s, v);
  for (int i = 0; i < s->node->num_out; i++) {
    int64_t n = md_elements(&v->out[i]->type.shape);
    for (int64_t j = 0; v->out[i]->f && j < n; j++)
      if (weight[i]->f[j] != 0) loss += weight[i]->f[j] * v->out[i]->f[j];
  }
  return loss;
}

// Results of an op that carry no gradient: what nce_lse reports beside lse.
static bool is_reported_only(const sample *p, int result) {
  return p->op == MD_OP_nce_lse && result > 0;
}

static void gradient_fits(const sample *p) {
  const md_op_row *row = &md_ops[p->op];
  if (!row->grad) return;
  subject s = build(p);
  values v = make_values(&s);
  md_val dy[MD_ROW_OUT] = {0}, d[MD_ROW_IN] = {0};
  md_tensor *weight[MD_ROW_OUT] = {0};
  const md_node *node = s.node;
  for (int i = 0; i < node->num_out; i++) {
    md_type t = v.out[i]->type;
    char name[16];
    snprintf(name, sizeof name, "dy%d", i);
    weight[i] = md_tensor_create(t);
    if (!md_dtype_is_float(t.dtype) || is_reported_only(p, i)) continue;
    fill(weight[i], 100 + i, false);
    for (int64_t j = 0; j < md_elements(&t.shape); j++)
      if (!isfinite(v.out[i]->f[j])) weight[i]->f[j] = 0;
    dy[i] = md_input(&s.b, name, t);
  }
  row->grad(&s.b, node, dy, d);
  ck_assert_msg(!s.b.failed, "%s: %s\n%s", row->name, p->text, md_diags_text(s.diags));

  // The gradients, by interpreting the graph that they are.
  for (int i = 0; i < node->num_in; i++) {
    char name[16];
    snprintf(name, sizeof name, "d%d", i);
    if (d[i] != MD_NONE) md_return(&s.b, name, d[i]);
  }
  md_interp *run = md_interp_create(s.g, false);
  for (int i = 0; i < s.g->num_nodes; i++) {
    const md_node *n = s.g->node[i];
    if (n->op != MD_OP_input) continue;
    md_tensor *to = md_interp_input(run, n->name);
    const md_tensor *from = n->name[0] == 'x' ? v.in[atoi(n->name + 1)] : weight[atoi(n->name + 2)];
    size_t num = (size_t)md_elements(&to->type.shape);
    if (to->f) memcpy(to->f, from->f, num * sizeof *to->f);
    else memcpy(to->i, from->i, num * sizeof *to->i);
  }
  ck_assert_msg(md_interp_step(run, s.diags), "%s", md_diags_text(s.diags));

  int checked = 0;
  for (int i = 0; i < node->num_in; i++) {
    if (d[i] == MD_NONE) continue;
    const md_tensor *got = md_interp_value(run, d[i]);
    ck_assert_msg(md_type_equal(&got->type, &v.in[i]->type),
                  "%s: gradient of operand %d has "
                  "another type",
                  row->name, i);
    int64_t n = md_elements(&got->type.shape), stride = n / 40 + 1;
    for (int64_t j = 0; j < n; j += stride) {
      double x = v.in[i]->f[j], h = MD_DIFFERENCE_STEP;
      v.in[i]->f[j] = x + h;
      double above = loss_of(&s, &v, weight);
      v.in[i]->f[j] = x - h;
      double below = loss_of(&s, &v, weight);
      v.in[i]->f[j] = x;
      double want = (above - below) / (2 * h);
      ck_assert_msg(fabs(got->f[j] - want) <= md_difference_tolerance(fabs(want)),
                    "%s: %s: d%d[%lld] is %.12g, but differences give %.12g", row->name, p->text, i,
                    (long long)j, got->f[j], want);
      checked++;
    }
  }
  bool differentiable = false;
  for (int i = 0; i < node->num_in; i++) differentiable |= v.in[i]->f != NULL;
  ck_assert_msg(checked > 0 || !differentiable, "%s: %s: no gradient at all", row->name, p->text);
  for (int i = 0; i < node->num_out; i++) md_tensor_destroy(weight[i]);
  md_interp_destroy(run);
  free_values(&s, &v);
  destroy(&s);
}

START_TEST(gradients_agree_with_finite_differences) { for_every_sample(gradient_fits); }
END_TEST

START_TEST(ops_without_a_gradient_say_why) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++)
    ck_assert_msg(md_ops[op].grad || md_ops[op].no_grad, "%s", md_ops[op].name);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("ops");
  TCase *t = tcase_create("every row");
  tcase_set_timeout(t, 300);
  tcase_add_test(t, the_table_is_well_formed);
  tcase_add_test(t, the_words_of_init_are_those_of_its_enum);
  tcase_add_test(t, every_op_but_leaves_has_samples);
  tcase_add_test(t, every_sample_builds_and_verifies);
  tcase_add_test(t, every_sample_returns_from_its_text);
  tcase_add_test(t, operands_that_do_not_fit_are_refused);
  tcase_add_test(t, attributes_out_of_range_are_refused);
  tcase_add_test(t, gradients_agree_with_finite_differences);
  tcase_add_test(t, ops_without_a_gradient_say_why);
  suite_add_tcase(suite, t);
  SRunner *r = srunner_create(suite);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed > 0;
}
