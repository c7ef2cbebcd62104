// SPDX-License-Identifier: Apache-2.0
// The graph: op table, inference, builder, verifier. A verifier test breaks a good graph in one
// place and expects the one complaint.
#include "graph/graph.h"

#include "suite.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

// A fresh builder for each test; `d` collects what is reported.
typedef struct Bench {
  md_diags *d;
  md_graph *g;
  md_builder b;
} Bench;

static Bench setup(void) {
  Bench t = {.d = md_diags_create(), .g = md_graph_create("test")};
  md_builder_init(&t.b, t.g, t.d);
  return t;
}

static void teardown(Bench *t) {
  md_graph_destroy(t->g);
  md_diags_destroy(t->d);
}

static md_type f32(int rank, ...) {
  int64_t dim[MD_MAX_RANK];
  va_list args;
  va_start(args, rank);
  for (int i = 0; i < rank; i++) dim[i] = va_arg(args, int);
  va_end(args);
  return md_type_of(MD_F32, rank, dim);
}

static md_val input(Bench *t, const char *name, md_type type) {
  return md_input(&t->b, name, type);
}

static void expect_error(Bench *t, const char *text) {
  const char *all = md_diags_text(t->d);
  ck_assert_msg(strstr(all, text) != NULL, "expected: %s\nfound: %s", text, all);
  ck_assert_int_eq(md_diags_errors(t->d), 1);
}

static void expect_verified(Bench *t) {
  bool ok = md_graph_verify(t->g, t->d);
  ck_assert_msg(ok, "%s", md_diags_text(t->d));
}

static void expect_refused(Bench *t, const char *text) {
  ck_assert(!md_graph_verify(t->g, t->d));
  expect_error(t, text);
}

// --- table

START_TEST(every_row_of_the_table_is_consistent) {
  char why[256] = "";
  ck_assert_msg(md_ops_check(why, sizeof why), "%s", why);
}
END_TEST

// "f32[2,3], i32[3] {axis=1}": operand types as inputs, then the node.
static md_val add_sample(Bench *t, const md_op_row *row, const char *sample) {
  md_val in[MD_ROW_IN];
  int num = 0;
  const char *s = sample;
  while (*s && *s != '{') {
    char name[8] = "", dtype[8] = "";
    size_t len = strcspn(s, "[");
    memcpy(dtype, s, len);
    md_type type = {.dtype = md_dtype_from(dtype)};
    for (s += len; *s != ']';) {
      char *end;
      type.shape.dim[type.shape.rank++] = strtoll(s + 1, &end, 10);
      s = end;
    }
    s += 1 + strspn(s + 1, ", ");
    snprintf(name, sizeof name, "x%d", num);
    in[num++] = input(t, name, type);
  }
  md_attr attr = {0};
  if (*s) ck_assert(md_parse_attrs(s, row->op, t->g->arena, &attr, t->d));
  return md_add_node(&t->b, row->op, in, num, &attr);
}

START_TEST(every_sample_of_every_row_can_be_built_and_verified) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++)
    for (int i = 0; i < MD_ROW_SAMPLES && md_ops[op].samples[i]; i++) {
      Bench t = setup();
      md_val v = add_sample(&t, &md_ops[op], md_ops[op].samples[i]);
      ck_assert_msg(v != MD_NONE, "%s %s: %s", md_ops[op].name, md_ops[op].samples[i],
                    md_diags_text(t.d));
      expect_verified(&t);
      teardown(&t);
    }
}
END_TEST

START_TEST(near_names_are_offered_for_an_unknown_op) {
  ck_assert_int_eq(md_op_from("conv3d"), MD_OP_conv3d);
  ck_assert_int_eq(md_op_from("conv4d"), MD_OP_none);
  ck_assert_str_eq(md_op_nearest("conv4d"), "conv3d");
}
END_TEST

// Evaluates formula result `out` for the given operands.
static double evaluate(md_op op, const md_attr *attr, const double *in, int out) {
  const md_expr *e = md_op_expr(&md_ops[op]);
  double v[MD_MAX_EXPR];
  for (int i = 0; i < e->num; i++) {
    const md_expr_node *n = &e->node[i];
    v[i] = n->kind == MD_EX_CONST  ? n->value
           : n->kind == MD_EX_ARG  ? in[n->a]
           : n->kind == MD_EX_ATTR ? md_attr_value(attr, n)
                                   : md_expr_apply(n->kind, v[n->a], v[n->b], v[n->c]);
  }
  return v[e->out[out]];
}

START_TEST(formulas_mean_what_they_say) {
  md_attr attr = {0};
  attr.sgd = (md_sgd_attr){.momentum = 0.5, .weight_decay = 0.25, .nesterov = 0};
  const double in[] = {4, 1, 6, 0.125};                       // p, g, buf, lr
  ck_assert_double_eq(evaluate(MD_OP_sgd, &attr, in, 1), 5);  // .5*6 + (1 + .25*4)
  ck_assert_double_eq(evaluate(MD_OP_sgd, &attr, in, 0), 4 - 0.625);
  attr.sgd.nesterov = 1;
  ck_assert_double_eq(evaluate(MD_OP_sgd, &attr, in, 0), 4 - 0.125 * 4.5);
  attr = (md_attr){0};
  attr.f.value = 0.5;
  ck_assert_double_eq(evaluate(MD_OP_nce_mask, &attr, (double[]){3, 7, 8}, 0), 6);
  ck_assert_double_eq(evaluate(MD_OP_nce_mask, &attr, (double[]){3, 7, 7}, 0), -INFINITY);
  ck_assert_double_eq(evaluate(MD_OP_nce_mask, &attr, (double[]){3, 7, -2}, 0), -INFINITY);
  ck_assert_double_eq(evaluate(MD_OP_sub, &attr, (double[]){7, 2}, 0), 5);
  // gamma * rsqrt(var + eps) * (dy - mdy - (x - mean) * rsqrt(var + eps) * mdyx)
  attr.f.value = 1;
  ck_assert_double_eq(evaluate(MD_OP_batch_norm_dx, &attr, (double[]){9, 5, 4, 3, 3, 2, 6}, 0), 2);
  ck_assert(isnan(evaluate(MD_OP_relu, &attr, (double[]){NAN}, 0)));
}
END_TEST

START_TEST(equal_terms_of_a_formula_are_one_step) {
  const md_expr *e = md_op_expr(&md_ops[MD_OP_batch_norm_dx]);
  int num_rsqrt = 0;
  for (int i = 0; i < e->num; i++) num_rsqrt += e->node[i].kind == MD_EX_RSQRT;
  ck_assert_int_eq(num_rsqrt, 1);
  ck_assert_ptr_null(md_op_expr(&md_ops[MD_OP_conv3d]));
}
END_TEST

// --- types

START_TEST(blocked_layout_pads_channels_and_keeps_them_innermost) {
  md_type t = f32(4, 2, 10, 3, 5);
  ck_assert_int_eq(md_type_offset(&t, (int64_t[]){1, 9, 2, 4}), 2 * 10 * 3 * 5 - 1);
  t.block = 8;
  ck_assert_int_eq(md_type_bytes(&t), 2 * 16 * 3 * 5 * 4);
  ck_assert_int_eq(md_type_offset(&t, (int64_t[]){0, 3, 0, 0}), 3);
  ck_assert_int_eq(md_type_offset(&t, (int64_t[]){1, 9, 2, 4}),
                   (((1 * 2 + 1) * 3 + 2) * 5 + 4) * 8 + 1);
  md_arena *a = md_arena_create();
  ck_assert_str_eq(md_type_text(&t, a), "f32[2,10,3,5].c8");
  md_arena_destroy(a);
}
END_TEST

START_TEST(sizes_beyond_the_limits_are_refused) {
  const char *why;
  md_shape s = {.rank = 2, .dim = {1 << 20, 1 << 20}};
  ck_assert(!md_shape_check(&s, &why));
  s.dim[1]--;
  ck_assert(md_shape_check(&s, &why));
  s.dim[1] = 0;
  ck_assert(!md_shape_check(&s, &why));
  s = (md_shape){.rank = 6, .dim = {INT64_MAX, INT64_MAX, 2, 2, 2, 2}};
  ck_assert(!md_shape_check(&s, &why));
  ck_assert(!md_shape_check(&(md_shape){.rank = 0}, &why));
  ck_assert(!md_shape_check(&(md_shape){.rank = 7}, &why));
  md_type t = f32(1, 5);
  t.block = 8;
  ck_assert(!md_type_check(&t, &why));
}
END_TEST

START_TEST(a_result_beyond_the_limits_is_refused) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(2, 1 << 20, 1 << 19));
  ck_assert_uint_eq(md_concat(&t.b, (md_val[]){x, x}, 2, 0), MD_NONE);
  expect_error(&t, "error[E0307]: concat: result 0 would be f32[2097152,524288], but a tensor has "
                   "fewer than 2^40 elements");
  teardown(&t);
}
END_TEST

START_TEST(a_leaf_of_impossible_type_is_refused) {
  Bench t = setup();
  ck_assert_uint_eq(input(&t, "x", f32(2, 4, 0)), MD_NONE);
  expect_error(&t,
               "E0307]: input x is declared as f32[4,0], but every axis has at least one element");
  teardown(&t);
  t = setup();
  ck_assert_uint_eq(md_add_node(&t.b, MD_OP_input, NULL, 0, NULL), MD_NONE);
  expect_error(&t, "E0311]: input: its type must be declared");
  teardown(&t);
}
END_TEST

// --- operands and attributes

START_TEST(a_wrong_axis_is_told_with_both_operands_and_a_type_that_fits) {
  Bench t = setup();
  t.b.place = (md_place){"stem.mdg", 2, 12, 2};
  md_val x = input(&t, "x", f32(5, 2, 3, 4, 32, 32)), w = input(&t, "w", f32(5, 64, 4, 1, 7, 7));
  t.b.place = (md_place){"stem.mdg", 4, 19, 2};
  ck_assert_uint_eq(md_conv3d(&t.b, x, w, MD_NONE, NULL), MD_NONE);
  expect_error(&t, "stem.mdg:4:19: error[E0304]: conv3d: axis i is 3 in %x, but 4 in %w\n");
  expect_error(&t, "note: conv3d takes x[n,i,t,h,w], w[o,i,kt,kh,kw], bias[o]?; %w is "
                   "f32[64,4,1,7,7], declared at 2:12\n");
  expect_error(&t, "hint: a w that fits %x is f32[64,3,1,7,7]\n");
  teardown(&t);
}
END_TEST

START_TEST(trailing_axes_must_agree) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(2, 2, 3)), y = input(&t, "y", f32(2, 3, 2));
  ck_assert_uint_eq(md_add(&t.b, x, y), MD_NONE);
  expect_error(&t, "E0304]: add: %x is f32[2,3], but %y is f32[3,2]; their sizes must be equal");
  teardown(&t);
}
END_TEST

START_TEST(a_wrong_number_of_axes_is_refused) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(2, 2, 3));
  ck_assert_uint_eq(md_max_pool3d(&t.b, x, NULL), MD_NONE);
  expect_error(&t, "E0304]: max_pool3d: x has 5 axes, but %x is f32[2,3]");
  teardown(&t);
}
END_TEST

START_TEST(element_types_must_agree) {
  Bench t = setup();
  md_type half = f32(1, 4);
  half.dtype = MD_BF16;
  md_val x = input(&t, "x", f32(1, 4)), y = input(&t, "y", half);
  ck_assert_uint_eq(md_div(&t.b, x, y), MD_NONE);
  expect_error(&t, "E0303]: div: element types differ: %x is f32, but %y is bf16");
  expect_error(&t, "hint: cast %y {to=f32}");
  teardown(&t);
}
END_TEST

START_TEST(integers_do_not_pass_as_floats) {
  Bench t = setup();
  md_type whole = f32(1, 4);
  whole.dtype = MD_I32;
  md_val x = input(&t, "x", whole);
  ck_assert_uint_eq(md_relu(&t.b, x), MD_NONE);
  expect_error(&t, "E0303]: relu: x must be floating-point, but %x is i32");
  teardown(&t);
}
END_TEST

START_TEST(groups_must_divide_the_samples) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(2, 4, 5)), c = input(&t, "c", f32(1, 5)),
         m = input(&t, "m", f32(2, 3, 5));
  ck_assert_uint_eq(md_batch_norm(&t.b, x, c, c, m, m, 0, false), MD_NONE);
  expect_error(&t, "E0304]: batch_norm: 3 groups of %m do not divide axis n of %x, 4");
  teardown(&t);
}
END_TEST

START_TEST(the_number_of_operands_is_checked) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(1, 4));
  md_add_node(&t.b, MD_OP_add, (md_val[]){x, x, x}, 3, NULL);
  expect_error(&t, "E0302]: add: takes 2 operands, not 3");
  teardown(&t);
  t = setup();
  x = input(&t, "x", f32(1, 4));
  md_add(&t.b, x, MD_NONE);
  expect_error(&t, "E0302]: add: operand y is missing");
  teardown(&t);
  t = setup();
  input(&t, "x", f32(1, 4));
  md_add(&t.b, 1, 77);
  expect_error(&t, "E0310]: add: operand y is value 77, but the graph has values 1 to 1");
  teardown(&t);
}
END_TEST

START_TEST(an_absent_optional_operand_does_not_count) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(5, 1, 3, 4, 8, 8)), w = input(&t, "w", f32(5, 4, 3, 1, 3, 3));
  md_val y = md_conv3d(&t.b, x, w, MD_NONE, NULL);
  ck_assert_int_eq(md_def(t.g, y)->num_in, 2);
  ck_assert_uint_eq(md_def(t.g, y)->in[2], MD_NONE);
  teardown(&t);
}
END_TEST

START_TEST(zero_attributes_take_their_defaults) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(5, 1, 3, 4, 8, 8)), w = input(&t, "w", f32(5, 4, 3, 1, 3, 3));
  md_val y = md_conv3d(&t.b, x, w, MD_NONE, &(md_conv3d_attr){.pad = D3(0, 1, 0)});
  const md_conv3d_attr *a = &md_def(t.g, y)->attr.conv3d;
  ck_assert_int_eq(a->stride.d[2], 1);
  ck_assert_int_eq(a->dilation.d[0], 1);
  ck_assert_int_eq(a->pad.d[1], 1);
  md_val z = md_l2_normalize(&t.b, input(&t, "z", f32(2, 3, 4)), 0);
  ck_assert_double_eq(md_def(t.g, z)->attr.f.value, 1e-12);
  teardown(&t);
}
END_TEST

START_TEST(attributes_stay_within_their_bounds) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(5, 1, 3, 4, 8, 8));
  md_avg_pool3d(&t.b, x, &(md_pool3d_attr){.stride = D3(1, -2, 1)});
  expect_error(&t, "E0305]: avg_pool3d: attribute stride[1] is -2, but must be at least 1");
  teardown(&t);
  t = setup();
  md_affine(&t.b, input(&t, "x", f32(1, 4)), NAN, 0);
  expect_error(&t, "E0305]: affine: attribute scale is nan, but must be a number");
  teardown(&t);
  t = setup();
  md_attr huge = {0};
  huge.axes.axes = (md_dims){.n = 99};
  md_add_node(&t.b, MD_OP_sum, (md_val[]){input(&t, "x", f32(1, 4))}, 1, &huge);
  expect_error(&t, "E0305]: sum: attribute axes has 99 numbers; at most 6 fit");
  teardown(&t);
}
END_TEST

// --- builder

START_TEST(after_an_error_the_builder_is_silent) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(2, 2, 3)), y = input(&t, "y", f32(2, 3, 2));
  md_val z = md_relu(&t.b, md_add(&t.b, x, y));
  z = md_conv3d(&t.b, z, z, z, NULL);
  md_update_state(&t.b, z, z);
  md_return(&t.b, NULL, md_mean(&t.b, z, (md_dims){0}));
  md_set_name(&t.b, z, "z");
  ck_assert_uint_eq(z, MD_NONE);
  ck_assert_int_eq(md_diags_errors(t.d), 1);
  ck_assert_int_eq(t.g->num_nodes, 2);
  ck_assert_int_eq(md_shape_of(&t.b, z).rank, 0);
  teardown(&t);
}
END_TEST

START_TEST(names_are_scoped_found_and_unique) {
  Bench t = setup();
  int top = md_scope_push(&t.b, "s%d", 4), inner = md_scope_push(&t.b, "b2");
  md_val w = md_state(&t.b, "w", f32(1, 4), NULL);
  md_scope_pop(&t.b, inner);
  md_val x = input(&t, "x", f32(1, 4));
  md_scope_pop(&t.b, top);
  md_val x2 = input(&t, "x", f32(1, 4));
  ck_assert_uint_eq(md_find_state(t.g, "s4.b2.w"), w);
  ck_assert_uint_eq(md_find_input(t.g, "s4.x"), x);
  ck_assert_uint_eq(md_find_input(t.g, "x"), x2);
  ck_assert_uint_eq(md_find_state(t.g, "x"), MD_NONE);
  ck_assert_uint_ne(md_state(&t.b, "x", f32(1, 4), NULL), MD_NONE);  // another kind
  ck_assert_uint_eq(input(&t, "x", f32(1, 4)), MD_NONE);
  expect_error(&t, "E0308]: input name 'x' is already taken");
  teardown(&t);
}
END_TEST

START_TEST(many_names_are_all_found) {
  Bench t = setup();
  char name[16];
  md_val v[500];
  for (int i = 0; i < 500; i++) {
    snprintf(name, sizeof name, "n%d", i);
    v[i] = input(&t, name, f32(1, 4));
  }
  for (int i = 0; i < 500; i++) {
    snprintf(name, sizeof name, "n%d", i);
    ck_assert_uint_eq(md_find_input(t.g, name), v[i]);
  }
  teardown(&t);
}
END_TEST

START_TEST(malformed_names_are_refused) {
  const char *bad[] = {"", "4x", "a b", "a/b", "\x1b[2J"};
  for (int i = 0; i < MD_COUNT(bad); i++) {
    Bench t = setup();
    ck_assert_uint_eq(input(&t, bad[i], f32(1, 4)), MD_NONE);
    ck_assert_int_eq(md_diags_errors(t.d), 1);
    teardown(&t);
  }
}
END_TEST

START_TEST(a_state_has_one_update_of_its_own_type) {
  Bench t = setup();
  md_val s = md_state(&t.b, "s", f32(1, 4), NULL), x = input(&t, "x", f32(1, 4)),
         y = input(&t, "y", f32(1, 5));
  md_update_state(&t.b, s, x);
  ck_assert(!t.b.failed);
  md_update_state(&t.b, s, x);
  expect_error(&t, "E0309]: update: state s has an update already");
  ck_assert_int_eq(t.g->num_updates, 1);
  md_diags_clear(t.d);
  t.b.failed = false;
  md_update_state(&t.b, x, x);
  expect_error(&t, "E0309]: update: value 2 is made by input; only a state is updated");
  md_diags_clear(t.d);
  t.b.failed = false;
  md_update_state(&t.b, md_state(&t.b, "r", f32(1, 4), NULL), y);
  expect_error(&t, "E0309]: update: state r is f32[4], but its next value is f32[5]");
  teardown(&t);
}
END_TEST

START_TEST(a_result_needs_a_name_of_its_own) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(1, 4)), y = md_relu(&t.b, x);
  md_return(&t.b, NULL, x);
  md_return(&t.b, "y", y);
  ck_assert_uint_eq(md_find_result(t.g, "x"), x);
  ck_assert_uint_eq(md_find_result(t.g, "y"), y);
  md_return(&t.b, "y", x);
  expect_error(&t, "E0308]: result name 'y' is already taken");
  md_diags_clear(t.d);
  t.b.failed = false;
  md_return(&t.b, NULL, y);
  expect_error(&t, "E0308]: a result has no name");
  teardown(&t);
}
END_TEST

START_TEST(readers_are_operands_updates_and_results) {
  Bench t = setup();
  md_val s = md_state(&t.b, "s", f32(1, 4), NULL), y = md_add(&t.b, s, s);
  md_update_state(&t.b, s, y);
  md_return(&t.b, "y", y);
  ck_assert_int_eq(t.g->value[s].uses, 2);
  ck_assert_int_eq(t.g->value[y].uses, 2);
  teardown(&t);
}
END_TEST

START_TEST(types_stay_readable_while_the_graph_grows) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(2, 2, 3));
  const md_type *type = md_type_in(t.g, x);
  md_val y = x;
  for (int i = 0; i < 1000; i++) y = md_relu(&t.b, y);
  ck_assert_int_eq(type->shape.dim[1], 3);
  ck_assert(md_type_equal(type, md_type_in(t.g, y)));
  teardown(&t);
}
END_TEST

// --- digest

typedef struct Variant {
  const char *state, *label;
  double scale;
  int line;
} Variant;

static md_digest digest_of(Variant o) {
  Bench t = setup();
  t.b.place.line = o.line;
  md_val s = md_state(&t.b, o.state, f32(1, 4), NULL), y = md_affine(&t.b, s, o.scale, 0);
  md_set_name(&t.b, y, o.label);
  md_update_state(&t.b, s, y);
  md_digest d = md_graph_digest(t.g);
  teardown(&t);
  return d;
}

START_TEST(the_digest_sees_meaning_but_not_labels_and_places) {
  md_digest base = digest_of((Variant){"s", "y", 2, 1});
  md_digest label = digest_of((Variant){"s", "z", 2, 9});
  md_digest state = digest_of((Variant){"r", "y", 2, 1});
  md_digest attr = digest_of((Variant){"s", "y", 3, 1});
  ck_assert(base.lo == label.lo && base.hi == label.hi);
  ck_assert(base.lo != state.lo);
  ck_assert(base.lo != attr.lo);
}
END_TEST

// --- verifier. x -> [a = relu x; b = exp a] -> c = add a, s; update s = c; return b
enum { X = 1, S, A, B, C };

static Bench regions(void) {
  Bench t = setup();
  input(&t, "x", f32(1, 4));
  md_state(&t.b, "s", f32(1, 4), NULL);
  ck_assert_int_eq(md_region_begin(&t.b, "r1"), 1);
  md_relu(&t.b, X);
  md_add_node(&t.b, MD_OP_exp, (md_val[]){A}, 1, NULL);
  md_region_end(&t.b);
  md_region_begin(&t.b, "r2");
  md_add(&t.b, A, S);
  md_region_end(&t.b);
  md_update_state(&t.b, S, C);
  md_return(&t.b, "b", B);
  ck_assert(!t.b.failed);
  return t;
}

static Bench planned(void) {
  Bench t = regions();
  t.g->arena_bytes = 48;
  t.g->value[A].offset = 0;
  t.g->value[B].offset = 16;
  t.g->value[C].offset = 32;
  return t;
}

START_TEST(what_crosses_the_border_of_a_region_is_known) {
  Bench t = regions();
  md_val *v;
  ck_assert_int_eq(md_region_inputs(t.g, 1, t.g->arena, &v), 1);
  ck_assert_uint_eq(v[0], X);
  ck_assert_int_eq(md_region_outputs(t.g, 1, t.g->arena, &v), 2);
  ck_assert_uint_eq(v[1], B);
  ck_assert_int_eq(md_region_inputs(t.g, 2, t.g->arena, &v), 2);
  ck_assert_uint_eq(v[0], S);
  ck_assert_uint_eq(v[1], A);
  ck_assert_int_eq(md_region_outputs(t.g, 2, t.g->arena, &v), 1);
  ck_assert_uint_eq(v[0], C);
  teardown(&t);
}
END_TEST

START_TEST(a_value_read_only_inside_of_its_region_is_no_output) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(1, 4)), *v;
  md_region_begin(&t.b, "r");
  md_val y = md_add(&t.b, x, x), z = md_add(&t.b, y, y);
  md_region_end(&t.b);
  md_return(&t.b, "z", z);
  ck_assert_int_eq(md_region_inputs(t.g, 1, t.g->arena, &v), 1);
  ck_assert_int_eq(md_region_outputs(t.g, 1, t.g->arena, &v), 1);
  ck_assert_uint_eq(v[0], z);
  teardown(&t);
}
END_TEST

START_TEST(good_graphs_pass) {
  Bench t = regions();
  expect_verified(&t);
  teardown(&t);
  t = planned();
  expect_verified(&t);
  teardown(&t);
}
END_TEST

// Nodes may be written here only because the tests made them.
static md_node *node_of(Bench *t, md_val v) { return t->g->node[md_def(t->g, v)->index]; }

START_TEST(a_broken_structure_is_refused) {
  Bench t = regions();
  ((md_val *)node_of(&t, A)->in)[0] = B;
  expect_refused(&t, "E0312]: node 2 (relu) reads value 4, which is made later");
  teardown(&t);
  t = regions();
  node_of(&t, A)->index = 3;
  expect_refused(&t, "E0312]: node 2 says that it is node 3");
  teardown(&t);
  t = regions();
  node_of(&t, A)->num_out = 2;
  expect_refused(&t, "E0312]: value 4 does not know its node 2 (relu)");
  teardown(&t);
  t = regions();
  node_of(&t, C)->num_out = 400;
  expect_refused(&t, "E0312]: results of node 4 (add) are numbered 5, expected 5");
  teardown(&t);
  t = regions();
  node_of(&t, C)->op = (md_op)9999;
  expect_refused(&t, "E0312]: node 4 has no op");
  teardown(&t);
  t = regions();
  t.g->value[A].uses = 1;
  expect_refused(&t, "E0312]: value 3 has 2 readers, but counts 1");
  teardown(&t);
  t = regions();
  t.g->value[A].type.shape.dim[0] = 5;
  ck_assert(!md_graph_verify(t.g, t.d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(t.d),
                               "E0312]: relu: result 0 is f32[5], but its operands imply f32[4]"));
  teardown(&t);
  t = regions();
  t.g->result[0].val = 99;
  expect_refused(&t, "E0310]: result 0 is value 99, which does not exist");
  teardown(&t);
  t = regions();
  t.g->update[0].state = X;
  expect_refused(&t, "E0309]: update 0: %x is not a state");
  teardown(&t);
  t = regions();
  md_update twice = t.g->update[0];
  MD_PUSH(t.g->update, t.g->num_updates, t.g->cap_updates, twice);
  expect_refused(&t, "E0309]: state s has two updates");
  teardown(&t);
  t = regions();
  node_of(&t, S)->name = "no name";
  expect_refused(&t, "E0308]: state has no valid name");
  teardown(&t);
}
END_TEST

START_TEST(a_state_copies_only_a_state_above) {
  for (int i = 0; i < 3; i++) {
    Bench t = setup();
    const char *from[] = {"a", "b", "c"};
    md_state(&t.b, "a", f32(1, 4), NULL);
    md_state(&t.b, "b", f32(1, i == 0 ? 4 : 5),
             &(md_state_attr){.init = MD_INIT_copy, .from = from[i]});
    md_state(&t.b, "c", f32(1, 5), NULL);
    if (i == 0) expect_verified(&t);
    else expect_refused(&t, "which is no state above");
    teardown(&t);
  }
}
END_TEST

START_TEST(regions_are_runs_of_nodes_in_order) {
  Bench t = regions();
  node_of(&t, B)->region = 2;
  expect_refused(&t, "E0313]: node 3 (exp) says region 2, but lies in 1");
  teardown(&t);
  t = regions();
  t.g->region[2].first = 3;
  expect_refused(&t, "E0313]: region r2 begins at node 3 and has 1 nodes");
  teardown(&t);
  t = regions();
  t.g->region[2].num = 7;
  expect_refused(&t, "E0313]: region r2 begins at node 4 and has 7 nodes");
  teardown(&t);
  t = regions();
  t.g->region[1].first = 1;
  t.g->region[1].num = 3;
  node_of(&t, S)->region = 1;
  expect_refused(&t, "E0313]: state cannot stand in region r1");
  teardown(&t);
  t = regions();
  t.g->num_regions = 1;
  expect_refused(&t, "E0313]: node 4 (add) says region 2, but lies in none");
  teardown(&t);
}
END_TEST

START_TEST(a_region_has_no_more_nodes_than_back_ends_follow) {
  for (int num = MD_MAX_REGION; num <= MD_MAX_REGION + 1; num++) {
    Bench t = setup();
    md_val v = input(&t, "x", f32(1, 4));
    md_region_begin(&t.b, "r");
    for (int i = 0; i < num; i++) v = md_relu(&t.b, v);
    md_region_end(&t.b);
    if (num == MD_MAX_REGION) expect_verified(&t);
    else expect_refused(&t, "E0313]: region r has 1025 nodes, but at most 1024 are possible");
    teardown(&t);
  }
}
END_TEST

START_TEST(a_gradient_cannot_stand_in_a_region) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(1, 1));
  md_region_begin(&t.b, "r");
  md_gradient(&t.b, x, &x, 1);
  md_region_end(&t.b);
  expect_refused(&t, "E0313]: gradient cannot stand in region r");
  teardown(&t);
}
END_TEST

START_TEST(a_gradient_is_called_after_what_it_belongs_to) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(1, 1)), w = md_state(&t.b, "w", f32(1, 1), NULL);
  md_val wrt[] = {w, md_relu(&t.b, x)};
  md_val g = md_gradient(&t.b, md_mul(&t.b, wrt[0], wrt[1]), wrt, 2);
  ck_assert_str_eq(t.g->value[g].name, "w.grad");
  ck_assert_ptr_null(t.g->value[g + 1].name);
  teardown(&t);
}
END_TEST

START_TEST(places_that_do_not_hold_are_refused) {
  Bench t = planned();
  t.g->value[C].offset = 20;  // over b, which is a result
  expect_refused(&t, "E0314]: %5 at 20 overlaps %4 at 16, which is still live");
  teardown(&t);
  t = planned();
  t.g->value[C].offset = 34;
  expect_refused(&t, "E0314]: %5 at 34 is not aligned to its 4 bytes");
  teardown(&t);
  t = planned();
  t.g->arena_bytes = 44;
  expect_refused(&t, "E0314]: %5 at 32 reaches beyond the arena of 44 bytes");
  teardown(&t);
  t = planned();
  t.g->value[C].offset = INT64_MAX - 3;
  expect_refused(&t, "reaches beyond the arena of 48 bytes");
  teardown(&t);
  t = planned();
  t.g->value[A].offset = -1;
  expect_refused(&t, "E0314]: %3 is read outside of its region, but has no place");
  teardown(&t);
  t = planned();
  t.g->num_regions = 1;
  node_of(&t, C)->region = 0;
  expect_refused(&t, "E0314]: %5 is made outside of the regions, but only regions use the arena");
  teardown(&t);
  t = planned();
  t.g->arena_bytes = -1;
  expect_refused(&t, "E0314]: %3 has a place, but graph test has no arena");
  teardown(&t);
  t = planned();
  t.g->value[X].offset = 0;
  expect_refused(&t, "E0314]: %x has a place, but every input has its own memory");
  teardown(&t);
}
END_TEST

// max(x, 0) in a region of its own.
static md_val relu_alone(Bench *t, md_val x) {
  md_region_begin(&t->b, "r");
  md_val y = md_relu(&t->b, x);
  md_region_end(&t->b);
  return y;
}

START_TEST(a_place_is_free_after_its_last_reader) {
  Bench t = setup();
  md_val v = input(&t, "x", f32(1, 4));
  for (int i = 0; i < 4; i++) {
    v = relu_alone(&t, v);
    t.g->value[v].offset = 16 * (i % 2);
  }
  md_return(&t.b, "y", v);
  t.g->arena_bytes = 32;
  expect_verified(&t);
  t.g->value[v].offset = 8;  // half over its own operand
  expect_refused(&t, "E0314]: %5 at 8 overlaps %4 at 0, which is still live");
  teardown(&t);
}
END_TEST

START_TEST(the_next_value_of_a_state_keeps_its_place_to_the_end) {
  Bench t = setup();
  md_val s = md_state(&t.b, "s", f32(1, 4), NULL);
  md_val y = relu_alone(&t, s), z = relu_alone(&t, s);
  md_update_state(&t.b, s, y);
  md_return(&t.b, "z", z);
  t.g->arena_bytes = 32;
  t.g->value[y].offset = t.g->value[z].offset = 16;
  expect_refused(&t, "E0314]: %3 at 16 overlaps %2 at 16, which is still live");
  teardown(&t);
}
END_TEST

START_TEST(a_pointwise_result_may_lie_over_a_dying_operand) {
  Bench t = planned();
  t.g->value[C].offset = 0;
  expect_verified(&t);
  teardown(&t);
}
END_TEST

START_TEST(a_result_read_at_other_indices_may_not_lie_over_its_operand) {
  Bench t = setup();
  md_val x = input(&t, "x", f32(2, 4, 4)), a = relu_alone(&t, x);
  md_region_begin(&t.b, "r");
  md_val y = md_add(&t.b, a, md_transpose(&t.b, a, (md_dims){2, {1, 0}}));
  md_region_end(&t.b);
  md_return(&t.b, "y", y);
  t.g->arena_bytes = 64;
  t.g->value[a].offset = t.g->value[y].offset = 0;
  expect_refused(&t, "overlaps %2 at 0, which is still live");
  teardown(&t);
}
END_TEST

START_TEST(a_state_is_overwritten_only_after_its_last_reader) {
  Bench t = planned();
  t.g->value[C].offset = -1;
  t.g->value[C].storage = S;
  expect_verified(&t);
  md_return(&t.b, "old", S);
  expect_refused(&t, "E0314]: %5 overwrites state s, whose old value is still read");
  teardown(&t);
  t = planned();
  t.g->value[B].offset = -1;
  t.g->value[B].storage = S;
  expect_refused(&t, "E0314]: %4 lies in value 2, which is no state that it updates");
  teardown(&t);
}
END_TEST

START_TEST(a_large_plan_is_verified_quickly) {
  enum { N = 200000 };
  Bench t = setup();
  md_val v[64] = {input(&t, "x", f32(1, 4))};
  for (int i = 1; i < 64; i++) v[i] = v[0];
  for (int i = 0; i < N; i++) {  // each result lives for 64 nodes
    md_region_begin(&t.b, "r");
    md_val y = md_add(&t.b, v[i % 64], v[i % 64]);
    md_region_end(&t.b);
    t.g->value[y].offset = 16 * (i % 65);
    v[i % 64] = y;
  }
  t.g->arena_bytes = 16 * 65;
  int64_t begin = md_now_ns();
  expect_verified(&t);
  ck_assert_int_lt(md_now_ns() - begin, 20000000000);  // a quadratic sweep would take minutes
  t.g->value[N / 2].offset = t.g->value[N / 2 + 1].offset;
  expect_refused(&t, "E0314]");
  teardown(&t);
}
END_TEST

SUITE_MAIN(
    "graph", every_row_of_the_table_is_consistent,
    every_sample_of_every_row_can_be_built_and_verified, near_names_are_offered_for_an_unknown_op,
    formulas_mean_what_they_say, equal_terms_of_a_formula_are_one_step,
    blocked_layout_pads_channels_and_keeps_them_innermost, sizes_beyond_the_limits_are_refused,
    a_result_beyond_the_limits_is_refused, a_leaf_of_impossible_type_is_refused,
    a_wrong_axis_is_told_with_both_operands_and_a_type_that_fits, trailing_axes_must_agree,
    a_wrong_number_of_axes_is_refused, element_types_must_agree, integers_do_not_pass_as_floats,
    groups_must_divide_the_samples, the_number_of_operands_is_checked,
    an_absent_optional_operand_does_not_count, zero_attributes_take_their_defaults,
    attributes_stay_within_their_bounds, after_an_error_the_builder_is_silent,
    names_are_scoped_found_and_unique, many_names_are_all_found, malformed_names_are_refused,
    a_state_has_one_update_of_its_own_type, a_result_needs_a_name_of_its_own,
    readers_are_operands_updates_and_results, types_stay_readable_while_the_graph_grows,
    the_digest_sees_meaning_but_not_labels_and_places, what_crosses_the_border_of_a_region_is_known,
    a_value_read_only_inside_of_its_region_is_no_output, good_graphs_pass,
    a_broken_structure_is_refused, a_state_copies_only_a_state_above,
    regions_are_runs_of_nodes_in_order, a_region_has_no_more_nodes_than_back_ends_follow,
    a_gradient_cannot_stand_in_a_region, places_that_do_not_hold_are_refused,
    a_gradient_is_called_after_what_it_belongs_to, a_place_is_free_after_its_last_reader,
    the_next_value_of_a_state_keeps_its_place_to_the_end,
    a_pointwise_result_may_lie_over_a_dying_operand,
    a_result_read_at_other_indices_may_not_lie_over_its_operand,
    a_state_is_overwritten_only_after_its_last_reader, a_large_plan_is_verified_quickly)
