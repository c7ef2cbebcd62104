// SPDX-License-Identifier: Apache-2.0
// The interpreter against values by hand and against definitions written out element by element.
#include "graph/graph.h"
#include "tests/tolerance.h"

#include <check.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static md_type type_of(md_dtype d, int rank, ...) {
  md_type t = {.dtype = d, .shape.rank = rank};
  va_list dims;
  va_start(dims, rank);
  for (int i = 0; i < rank; i++) t.shape.dim[i] = va_arg(dims, int);
  va_end(dims);
  return t;
}

// A graph under construction and its run.
typedef struct fixture {
  md_graph *g;
  md_diags *d;
  md_builder b;
  md_interp *run;
} fixture;

static fixture start(void) {
  fixture f = {.g = md_graph_create("t"), .d = md_diags_create()};
  md_builder_init(&f.b, f.g, f.d);
  return f;
}

static void ready(fixture *f, bool round) {
  ck_assert_msg(!f->b.failed, "%s", md_diags_text(f->d));
  f->run = md_interp_create(f->g, round);
  ck_assert_ptr_nonnull(f->run);
}

static void step(fixture *f) {
  ck_assert_msg(md_interp_step(f->run, f->d), "%s", md_diags_text(f->d));
}

static void finish(fixture *f) {
  md_interp_destroy(f->run);
  md_graph_destroy(f->g);
  md_diags_destroy(f->d);
}

static void set(fixture *f, const char *name, const double *x) {
  md_tensor *t = md_interp_input(f->run, name);
  ck_assert_ptr_nonnull(t);
  for (int64_t i = 0; i < md_elements(&t->type.shape); i++) {
    if (t->f) t->f[i] = x[i];
    else t->i[i] = (int64_t)x[i];
  }
}

static void set_random(fixture *f, const char *name) {
  md_tensor *t = md_interp_input(f->run, name);
  for (int64_t i = 0; i < md_elements(&t->type.shape); i++)
    t->f[i] = md_hash_unit(md_hash_key(name, 1), (uint64_t)i);
}

static void expect(const fixture *f, md_val v, const double *want) {
  const md_tensor *t = md_interp_value(f->run, v);
  ck_assert_ptr_nonnull(t);
  for (int64_t i = 0; i < md_elements(&t->type.shape); i++) {
    double got = t->f ? t->f[i] : (double)t->i[i];
    bool same = got == want[i] || fabs(got - want[i]) <= 1e-12 * (1 + fabs(want[i]));
    ck_assert_msg(same, "element %d is %.17g, not %.17g", (int)i, got, want[i]);
  }
}

#define VALUES(...) ((double[]){__VA_ARGS__})

static md_val node(fixture *f, md_op op, int n, const md_val *in, md_attr a) {
  md_val v = md_add_node(&f->b, op, in, n, &a);
  ck_assert_msg(v != MD_NONE, "%s", md_diags_text(f->d));
  return v;
}

#define IN(...) ((md_val[]){__VA_ARGS__})

// --- steps and states

START_TEST(updates_do_not_see_each_other) {
  fixture f = start();
  md_type t = type_of(MD_F32, 1, 1);
  md_val x = md_state(&f.b, "x", t, &(md_state_attr){.init = MD_INIT_fill, .a = 1});
  md_val y = md_state(&f.b, "y", t, &(md_state_attr){.init = MD_INIT_fill, .a = 2});
  md_update_state(&f.b, x, y);
  md_update_state(&f.b, y, md_affine(&f.b, x, 10, 0));
  md_return(&f.b, "r", x);
  ready(&f, false);
  step(&f);
  ck_assert_double_eq(md_interp_state(f.run, "x")->f[0], 2);
  ck_assert_double_eq(md_interp_state(f.run, "y")->f[0], 10);
  expect(&f, x, VALUES(1));  // as the step read it
  step(&f);
  ck_assert_double_eq(md_interp_state(f.run, "x")->f[0], 10);
  ck_assert_double_eq(md_interp_state(f.run, "y")->f[0], 20);
  finish(&f);
}
END_TEST

START_TEST(values_are_dropped_after_their_last_reader_unless_kept) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 1, 2));
  md_val a = md_affine(&f.b, x, 2, 0), b = md_affine(&f.b, a, 3, 0), c = md_affine(&f.b, b, 5, 0);
  md_val unread = md_affine(&f.b, x, 7, 0);
  md_return(&f.b, "c", c);
  ready(&f, false);
  md_interp_keep(f.run, b);
  set(&f, "x", VALUES(1, -1));
  step(&f);
  ck_assert_ptr_null(md_interp_value(f.run, a));
  ck_assert_ptr_null(md_interp_value(f.run, unread));
  expect(&f, b, VALUES(6, -6));
  expect(&f, c, VALUES(30, -30));
  finish(&f);
}
END_TEST

START_TEST(states_start_from_name_and_seed) {
  fixture f = start();
  md_type t = type_of(MD_F32, 2, 3, 4);
  md_state(&f.b, "u", t, &(md_state_attr){.init = MD_INIT_uniform, .a = 1, .b = 0.25});
  md_state(&f.b, "r", t, &(md_state_attr){.init = MD_INIT_unit_rows});
  md_state(&f.b, "c", t, &(md_state_attr){.init = MD_INIT_copy, .from = "u"});
  md_val i =
      md_state(&f.b, "i", type_of(MD_I32, 1, 3), &(md_state_attr){.init = MD_INIT_fill, .a = -2});
  md_return(&f.b, "out", i);
  ready(&f, false);
  const md_tensor *u = md_interp_state(f.run, "u"), *r = md_interp_state(f.run, "r");
  for (uint64_t k = 0; k < 12; k++) {
    float scaled = 0.25f * (float)md_hash_unit(md_hash_key("u", 0), k);
    ck_assert_double_eq(u->f[k], (double)(1.0f + scaled));
    ck_assert_double_eq(md_interp_state(f.run, "c")->f[k], u->f[k]);
  }
  for (int row = 0; row < 3; row++) {
    double sum = 0;
    for (int k = 0; k < 4; k++) sum += r->f[row * 4 + k] * r->f[row * 4 + k];
    ck_assert_double_eq_tol(sum, 1, md_tolerance(MD_F32, 4, 1));
  }
  ck_assert_int_eq(md_interp_state(f.run, "i")->i[2], -2);
  md_tensor *other = md_tensor_create(t);
  md_state_fill(f.g, md_find_state(f.g, "c"), 7, other);
  ck_assert_double_eq(other->f[5],
                      (double)(1.0f + 0.25f * (float)md_hash_unit(md_hash_key("u", 7), 5)));
  md_tensor_destroy(other);
  finish(&f);
}
END_TEST

START_TEST(round_mode_rounds_every_value_to_its_type) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 1, 1));
  md_val third = md_affine(&f.b, x, 1.0 / 3, 0);
  md_val narrow = md_cast(&f.b, third, MD_BF16);
  md_return(&f.b, "third", third);
  md_return(&f.b, "narrow", narrow);
  ready(&f, true);
  set(&f, "x", VALUES(1));
  step(&f);
  expect(&f, third, VALUES((double)(float)(1.0 / 3)));
  ck_assert_double_eq(md_interp_value(f.run, narrow)->f[0], 0.333984375);
  finish(&f);
}
END_TEST

START_TEST(a_meta_op_does_not_run) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 1, 1));
  md_return(&f.b, "g", md_gradient(&f.b, md_mul(&f.b, x, x), &x, 1));
  ready(&f, false);
  ck_assert(!md_interp_step(f.run, f.d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(f.d), "E0352"));
  finish(&f);
}
END_TEST

// --- types

START_TEST(tensors_cross_memory_of_every_type_and_layout) {
  static const md_dtype types[] = {MD_F32, MD_BF16, MD_F64, MD_I32, MD_I64, MD_U8, MD_BOOL};
  for (int d = 0; d < MD_COUNT(types); d++) {
    for (int block = 0; block <= 4; block += 4) {
      md_type t = type_of(types[d], 3, 2, 5, 3);
      t.block = block;
      md_tensor *x = md_tensor_create(t), *y = md_tensor_create(t);
      void *memory = calloc(1, (size_t)md_type_bytes(&t));
      for (int i = 0; i < 30; i++) {
        if (x->f) x->f[i] = i - 7.5;
        else x->i[i] = types[d] == MD_BOOL ? i % 2 : types[d] == MD_U8 ? i : i - 7;
      }
      md_tensor_write(x, memory);
      md_tensor_read(y, memory);
      for (int i = 0; i < 30; i++) {
        if (x->f) ck_assert_double_eq(y->f[i], x->f[i]);
        else ck_assert_int_eq(y->i[i], x->i[i]);
      }
      if (block == 4 && types[d] == MD_F32) {
        // [n=1][c=4][w=2]: second block of sample 1, which has 2 blocks of 3*4 elements each
        int64_t idx[] = {1, 4, 2};
        ck_assert_int_eq(md_type_offset(&t, idx), 24 + 12 + 2 * 4);
        ck_assert_float_eq(((float *)memory)[24 + 12 + 8], 29 - 7.5f);
      }
      free(memory);
      md_tensor_destroy(x);
      md_tensor_destroy(y);
    }
  }
}
END_TEST

START_TEST(casts_round_wrap_and_saturate) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 1, 6));
  md_val i = md_cast(&f.b, x, MD_I32), u = md_cast(&f.b, x, MD_U8), b = md_cast(&f.b, x, MD_BOOL);
  md_val wide = md_input(&f.b, "wide", type_of(MD_I64, 1, 2)), low = md_cast(&f.b, wide, MD_I32);
  md_val sum = md_add(&f.b, low, low);
  md_return(&f.b, "i", i), md_return(&f.b, "u", u), md_return(&f.b, "b", b);
  md_return(&f.b, "low", low), md_return(&f.b, "sum", sum);
  ready(&f, false);
  set(&f, "x", VALUES(2.75, -2.75, 300, -1e20, 0, NAN));
  md_interp_input(f.run, "wide")->i[0] = ((int64_t)1 << 53) + 1;  // no double holds it
  md_interp_input(f.run, "wide")->i[1] = INT32_MAX;
  step(&f);
  expect(&f, i, VALUES(2, -2, 300, INT32_MIN, 0, 0));
  expect(&f, u, VALUES(2, 0, 255, 0, 0, 0));
  expect(&f, b, VALUES(1, 1, 1, 1, 0, 1));  // NaN is not 0
  expect(&f, low, VALUES(1, INT32_MAX));
  expect(&f, sum, VALUES(2, -2));
  finish(&f);
}
END_TEST

// --- ops

// The definition, with every index written out.
static double conv_at(const md_tensor *x, const md_tensor *w, const md_conv3d_attr *a, int64_t n,
                      int64_t o, const int64_t p[3]) {
  const int64_t *xs = x->type.shape.dim, *ws = w->type.shape.dim;
  double sum = 0;
  for (int64_t i = 0; i < ws[1]; i++) {
    for (int64_t k = 0; k < ws[2] * ws[3] * ws[4]; k++) {
      int64_t tap[3] = {k / ws[4] / ws[3], k / ws[4] % ws[3], k % ws[4]}, at[3];
      bool inside = true;
      for (int d = 0; d < 3; d++) {
        at[d] = p[d] * a->stride.d[d] + tap[d] * a->dilation.d[d] - a->pad.d[d];
        inside = inside && at[d] >= 0 && at[d] < xs[2 + d];
      }
      if (!inside) continue;
      double xv = x->f[(((n * xs[1] + i) * xs[2] + at[0]) * xs[3] + at[1]) * xs[4] + at[2]];
      sum += xv * w->f[(o * ws[1] + i) * ws[2] * ws[3] * ws[4] + k];
    }
  }
  return sum;
}

START_TEST(convolution_is_its_definition) {
  const struct {
    int x[5], w[5];
    md_conv3d_attr a;
  } cases[] = {
      {{2, 3, 4, 7, 6}, {4, 3, 3, 3, 3}, {D3(1, 1, 1), D3(1, 1, 1), D3(1, 1, 1)}},
      {{1, 2, 3, 9, 8}, {3, 2, 1, 3, 3}, {D3(1, 2, 2), D3(0, 2, 2), D3(1, 2, 2)}},
      {{2, 5, 3, 4, 5}, {3, 5, 1, 1, 1}, {D3(1, 1, 1), D3(0, 0, 0), D3(1, 1, 1)}},
      {{2, 5, 3, 4, 5}, {3, 5, 3, 1, 1}, {D3(1, 1, 1), D3(1, 0, 0), D3(1, 1, 1)}},
      {{1, 2, 3, 4, 5}, {3, 2, 1, 1, 1}, {D3(2, 1, 1), D3(0, 0, 0), D3(1, 1, 1)}},
      {{1, 2, 3, 4, 5}, {3, 2, 1, 1, 3}, {D3(1, 1, 3), D3(0, 1, 4), D3(1, 1, 1)}},
      {{1, 1, 1, 1, 2}, {2, 1, 5, 7, 7}, {D3(1, 2, 2), D3(2, 3, 3), D3(1, 1, 1)}},
  };
  for (int c = 0; c < MD_COUNT(cases); c++) {
    fixture f = start();
    md_type xt = {.dtype = MD_F32, .shape.rank = 5}, wt = xt;
    for (int i = 0; i < 5; i++) xt.shape.dim[i] = cases[c].x[i], wt.shape.dim[i] = cases[c].w[i];
    md_val x = md_input(&f.b, "x", xt), w = md_input(&f.b, "w", wt);
    md_val bias = md_input(&f.b, "bias", type_of(MD_F32, 1, cases[c].w[0]));
    md_val y = md_conv3d(&f.b, x, w, bias, &cases[c].a);
    md_return(&f.b, "y", y);
    ready(&f, false);
    set_random(&f, "x");
    set_random(&f, "w");
    set_random(&f, "bias");
    step(&f);
    const md_tensor *yt = md_interp_value(f.run, y), *xv = md_interp_input(f.run, "x");
    const int64_t *s = yt->type.shape.dim;
    for (int64_t i = 0; i < md_elements(&yt->type.shape); i++) {
      int64_t p[3] = {i / s[4] / s[3] % s[2], i / s[4] % s[3], i % s[4]};
      int64_t o = i / s[4] / s[3] / s[2] % s[1], n = i / s[4] / s[3] / s[2] / s[1];
      double want = conv_at(xv, md_interp_input(f.run, "w"), &cases[c].a, n, o, p) +
                    md_interp_input(f.run, "bias")->f[o];
      ck_assert_msg(fabs(yt->f[i] - want) < 1e-12, "case %d, element %d: %.17g, not %.17g", c,
                    (int)i, yt->f[i], want);
    }
    finish(&f);
  }
}
END_TEST

START_TEST(a_group_has_its_own_statistics) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 2, 4, 1));
  md_val gamma = md_constant(&f.b, type_of(MD_F32, 1, 1), 2),
         beta = md_constant(&f.b, type_of(MD_F32, 1, 1), 1);
  md_val mean = md_moments(&f.b, x, 2), var = md_result_of(&f.b, mean, 1);
  md_val y = md_batch_norm(&f.b, x, gamma, beta, mean, var, 1, true);
  md_return(&f.b, "mean", mean), md_return(&f.b, "var", var), md_return(&f.b, "y", y);
  ready(&f, false);
  set(&f, "x", VALUES(1, 3, 10, 20));
  step(&f);
  expect(&f, mean, VALUES(2, 15));
  expect(&f, var, VALUES(1, 25));
  double a = 2 / sqrt(2.0), b = 2 / sqrt(26.0);
  expect(&f, y, VALUES(1 - a, 1 + a, 1 - 5 * b, 1 + 5 * b));
  finish(&f);
}
END_TEST

// Through batch statistics: differences of the whole of moments and batch_norm.
START_TEST(batch_norm_gradient_passes_through_the_statistics) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 3, 4, 2, 3)),
         dy = md_input(&f.b, "dy", type_of(MD_F32, 3, 4, 2, 3));
  md_val gamma = md_input(&f.b, "gamma", type_of(MD_F32, 1, 2)),
         beta = md_input(&f.b, "beta", type_of(MD_F32, 1, 2));
  md_val mean = md_moments(&f.b, x, 2), var = md_result_of(&f.b, mean, 1);
  md_val y = md_batch_norm(&f.b, x, gamma, beta, mean, var, 1e-5, true);
  md_val loss = md_sum(&f.b, md_mul(&f.b, y, dy), (md_dims){0}), d[5] = {0};
  md_ops[MD_OP_batch_norm].grad(&f.b, md_def(f.g, y), &dy, d);
  ck_assert_uint_eq(d[3], MD_NONE);
  ck_assert_uint_eq(d[4], MD_NONE);
  md_return(&f.b, "loss", loss);
  for (int i = 0; i < 3; i++) md_return(&f.b, (const char *[]){"dx", "dgamma", "dbeta"}[i], d[i]);
  ready(&f, false);
  set_random(&f, "x"), set_random(&f, "dy"), set_random(&f, "gamma"), set_random(&f, "beta");
  step(&f);
  static const char *const names[] = {"x", "gamma", "beta"};
  for (int k = 0; k < 3; k++) {
    md_tensor *at = md_interp_input(f.run, names[k]);
    int64_t n = md_elements(&at->type.shape);
    double got[24], h = MD_DIFFERENCE_STEP;
    memcpy(got, md_interp_value(f.run, d[k])->f, (size_t)n * sizeof *got);
    for (int64_t i = 0; i < n; i++) {
      double was = at->f[i];
      at->f[i] = was + h;
      step(&f);
      double above = md_interp_value(f.run, loss)->f[0];
      at->f[i] = was - h;
      step(&f);
      double want = (above - md_interp_value(f.run, loss)->f[0]) / (2 * h);
      at->f[i] = was;
      ck_assert_msg(fabs(got[i] - want) <= md_difference_tolerance(fabs(want)),
                    "d%s[%d] is %.12g, but differences give %.12g", names[k], (int)i, got[i], want);
    }
    step(&f);
  }
  finish(&f);
}
END_TEST

START_TEST(max_pool_gives_ties_to_the_first_and_nothing_to_padding) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 5, 1, 1, 1, 3, 3));
  md_pool3d_attr a = {D3(1, 3, 3), D3(1, 2, 2), D3(0, 1, 1)};
  md_val y = md_max_pool3d(&f.b, x, &a), index = md_result_of(&f.b, y, 1);
  md_return(&f.b, "y", y), md_return(&f.b, "index", index);
  ready(&f, false);
  set(&f, "x", VALUES(-1, -5, -2, -5, -1, -5, -INFINITY, -3, -2));
  step(&f);
  expect(&f, y, VALUES(-1, -1, -1, -1));
  expect(&f, index, VALUES(4, 6, 2, 0));  // places in the windows, which begin in the padding
  finish(&f);
}
END_TEST

// With given statistics all five operands have a gradient.
START_TEST(given_statistics_have_gradients_of_their_own) {
  static const char *const names[] = {"x", "gamma", "beta", "mean", "var"};
  fixture f = start();
  md_val in[5], d[5] = {0}, dy = md_input(&f.b, "dy", type_of(MD_F32, 3, 4, 2, 3));
  for (int i = 0; i < 5; i++)
    in[i] = md_input(&f.b, names[i],
                     i == 0  ? type_of(MD_F32, 3, 4, 2, 3)
                     : i < 3 ? type_of(MD_F32, 1, 2)
                             : type_of(MD_F32, 2, 2, 2));
  md_val y = md_batch_norm(&f.b, in[0], in[1], in[2], in[3], in[4], 2, false);
  md_val loss = md_sum(&f.b, md_mul(&f.b, y, dy), (md_dims){0});
  md_ops[MD_OP_batch_norm].grad(&f.b, md_def(f.g, y), &dy, d);
  md_return(&f.b, "loss", loss);
  for (int i = 0; i < 5; i++)
    md_return(&f.b, (const char *[]){"dx", "dgamma", "dbeta", "dmean", "dvar"}[i], d[i]);
  ready(&f, false);
  set_random(&f, "dy");
  for (int i = 0; i < 5; i++) set_random(&f, names[i]);
  for (int k = 0; k < 5; k++) {
    step(&f);
    md_tensor *at = md_interp_input(f.run, names[k]);
    int64_t n = md_elements(&at->type.shape);
    double got[24], h = MD_DIFFERENCE_STEP;
    memcpy(got, md_interp_value(f.run, d[k])->f, (size_t)n * sizeof *got);
    for (int64_t i = 0; i < n; i++) {
      double old = at->f[i], at_step[2];
      for (int side = 0; side < 2; side++) {
        at->f[i] = old + (side ? h : -h);
        step(&f);
        at_step[side] = md_interp_value(f.run, loss)->f[0];
      }
      at->f[i] = old;
      double slope = (at_step[1] - at_step[0]) / (2 * h);
      ck_assert_msg(fabs(slope - got[i]) <= md_difference_tolerance(fabs(at_step[0])),
                    "d%s[%d]: %.12g, not %.12g", names[k], (int)i, got[i], slope);
    }
  }
  finish(&f);
}
END_TEST

// A diverged run must look like one.
START_TEST(nan_is_not_hidden) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 2, 4, 3)),
         labels = md_input(&f.b, "labels", type_of(MD_I32, 1, 4)),
         bank = md_input(&f.b, "bank", type_of(MD_F32, 2, 2, 3)),
         ids = md_input(&f.b, "ids", type_of(MD_I32, 1, 2));
  md_val unit = node(&f, MD_OP_l2_normalize, 1, IN(x), (md_attr){.f.value = 1e-12});
  md_val hit = node(&f, MD_OP_topk_hit, 2, IN(x, labels), (md_attr){.i.value = 1});
  md_val lse = node(&f, MD_OP_nce_lse, 4, IN(x, labels, bank, ids), (md_attr){.f.value = 1});
  md_return(&f.b, "unit", unit), md_return(&f.b, "hit", hit), md_return(&f.b, "lse", lse);
  ready(&f, false);
  set(&f, "x", VALUES(NAN, NAN, NAN, NAN, 1, 2, INFINITY, 1, 0, 0, 3, 4));
  set(&f, "labels", VALUES(0, 2, 0, 2));
  set(&f, "bank", VALUES(1, 0, 0, -1, 0, 0));
  set(&f, "ids", VALUES(5, 5));
  step(&f);
  const double *u = md_interp_value(f.run, unit)->f, *l = md_interp_value(f.run, lse)->f;
  for (int i = 0; i < 6; i++) ck_assert(isnan(u[i]));
  expect(&f, hit, VALUES(0, 0, 1, 1));
  ck_assert(isnan(l[0]) && isnan(l[1]) && l[2] == INFINITY);
  ck_assert(fabs(l[3] - log(2)) < 1e-12);
  finish(&f);
}
END_TEST

START_TEST(an_index_of_no_place_is_dropped) {
  fixture f = start();
  md_val dy = md_input(&f.b, "dy", type_of(MD_F32, 5, 1, 1, 1, 1, 4)),
         index = md_input(&f.b, "index", type_of(MD_U8, 5, 1, 1, 1, 1, 4));
  md_attr a = {.pool3d_grad = {.kernel = {{1, 1, 2}},
                               .stride = {{1, 1, 2}},
                               .pad = {{0, 0, 1}},
                               .shape = {.n = 5, .d = {1, 1, 1, 1, 6}}}};
  md_val dx = node(&f, MD_OP_max_pool3d_grad, 2, IN(dy, index), a);
  md_return(&f.b, "dx", dx);
  ready(&f, false);
  set(&f, "dy", VALUES(1, 2, 4, 8));
  set(&f, "index", VALUES(0, 1, 2, 0));  // padding; an element; no place; an element
  step(&f);
  expect(&f, dx, VALUES(0, 0, 2, 0, 0, 8));
  finish(&f);
}
END_TEST

START_TEST(a_query_without_negatives_has_no_loss_and_no_gradient) {
  fixture f = start();
  md_val q = md_input(&f.b, "q", type_of(MD_F32, 2, 2, 2)),
         ids = md_input(&f.b, "ids", type_of(MD_I32, 1, 2));
  md_val bank = md_input(&f.b, "bank", type_of(MD_F32, 2, 3, 2)),
         bids = md_input(&f.b, "bids", type_of(MD_I32, 1, 3));
  md_attr tau = {.f.value = 0.5};
  md_val lse = node(&f, MD_OP_nce_lse, 4, IN(q, ids, bank, bids), tau),
         top = md_result_of(&f.b, lse, 1);
  md_val loss = node(&f, MD_OP_softplus, 1, IN(lse), (md_attr){0});
  md_val dlse = node(&f, MD_OP_sigmoid, 1, IN(lse), (md_attr){0});
  md_val dy[] = {dlse, MD_NONE, MD_NONE}, dq = MD_NONE;
  md_ops[MD_OP_nce_lse].grad(&f.b, md_def(f.b.g, lse), dy, &dq);
  md_return(&f.b, "lse", lse), md_return(&f.b, "top", top), md_return(&f.b, "loss", loss);
  md_return(&f.b, "dq", dq);
  ready(&f, false);
  // Row 0 is of video 7, as are all rows of the bank that are not empty; row 1 sees two of them.
  set(&f, "q", VALUES(1, 2, 0.5, -1));
  set(&f, "ids", VALUES(7, 8));
  set(&f, "bank", VALUES(1, 0, 5, 5, 0, 1));
  set(&f, "bids", VALUES(7, -2, 7));
  step(&f);
  double s0 = 0.5 / 0.5, s1 = -1 / 0.5, l = log(exp(s0) + exp(s1)), r = 1 / (1 + exp(-l));
  expect(&f, lse, VALUES(-INFINITY, l));
  expect(&f, top, VALUES(-INFINITY, 1));
  expect(&f, loss, VALUES(0, log1p(exp(l))));
  expect(&f, dq, VALUES(0, 0, r / 0.5 * exp(s0 - l), r / 0.5 * exp(s1 - l)));
  finish(&f);
}
END_TEST

START_TEST(a_long_batch_wraps_around_the_bank) {
  fixture f = start();
  md_val bank = md_input(&f.b, "bank", type_of(MD_I32, 1, 3)),
         keys = md_input(&f.b, "keys", type_of(MD_I32, 1, 4));
  md_val ptr = md_input(&f.b, "ptr", type_of(MD_I32, 1, 1));
  md_val next = node(&f, MD_OP_bank_push, 3, IN(bank, keys, ptr), (md_attr){0});
  md_val moved = node(&f, MD_OP_ring_next, 1, IN(ptr), (md_attr){.word = {4, 3}});
  md_return(&f.b, "next", next), md_return(&f.b, "moved", moved);
  ready(&f, false);
  set(&f, "bank", VALUES(1, 2, 3));
  set(&f, "keys", VALUES(10, 20, 30, 40));
  set(&f, "ptr", VALUES(2));
  step(&f);
  expect(&f, next, VALUES(20, 30, 40));  // 10 at row 2, then 20, 30, and 40 over the 10
  expect(&f, moved, VALUES(0));
  finish(&f);
}
END_TEST

START_TEST(dropout_follows_key_and_index) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 1, 64)),
         key = md_input(&f.b, "key", type_of(MD_I64, 1, 64));
  md_attr p = {.f.value = 0.25};
  md_val y = node(&f, MD_OP_dropout, 2, IN(x, key), p);
  md_return(&f.b, "y", y);
  ready(&f, false);
  uint64_t k = md_hash_key("mask", 3);  // all 64 bits count
  for (int i = 0; i < 64; i++) {
    md_interp_input(f.run, "x")->f[i] = 3;
    md_interp_input(f.run, "key")->i[i] = (int64_t)k;
  }
  step(&f);
  int fallen = 0;
  for (uint64_t i = 0; i < 64; i++) {
    double want = md_hash_01(k, i) < 0.25 ? 0 : 4;
    ck_assert_double_eq(md_interp_value(f.run, y)->f[i], want);
    fallen += want == 0;
  }
  ck_assert_int_gt(fallen, 4);
  ck_assert_int_lt(fallen, 32);
  finish(&f);
}
END_TEST

START_TEST(ranks_break_ties_by_column) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 2, 3, 4)),
         labels = md_input(&f.b, "labels", type_of(MD_I64, 1, 3));
  md_val best = node(&f, MD_OP_argmax, 1, IN(x), (md_attr){0});
  md_val hit = node(&f, MD_OP_topk_hit, 2, IN(x, labels), (md_attr){.i.value = 2});
  md_val loss = node(&f, MD_OP_cross_entropy, 2, IN(x, labels), (md_attr){0});
  md_return(&f.b, "best", best), md_return(&f.b, "hit", hit), md_return(&f.b, "loss", loss);
  ready(&f, false);
  set(&f, "x", VALUES(1, 5, 5, 5, /**/ 1, 5, 5, 5, /**/ 0, 0, 0, 0));
  set(&f, "labels", VALUES(2, 3, 9));
  step(&f);
  expect(&f, best, VALUES(1, 1, 0));
  expect(&f, hit, VALUES(1, 0, 0));
  ck_assert_double_eq_tol(md_interp_value(f.run, loss)->f[0], log(3 + exp(-4.0)), 1e-12);
  ck_assert(isnan(md_interp_value(f.run, loss)->f[2]));  // no such label
  finish(&f);
}
END_TEST

START_TEST(pictures_are_resized_at_pixel_centres) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 3, 1, 1, 4));
  md_attr up = {.resize.size = {1, {8}}}, down = {.resize.size = {1, {2}}}, smooth = down;
  md_attr corners = {.resize = {.size = {1, {3}}, .align_corners = 1}};
  smooth.resize.antialias = 1;
  md_val a = node(&f, MD_OP_resize, 1, IN(x), up), b = node(&f, MD_OP_resize, 1, IN(x), down);
  md_val c = node(&f, MD_OP_resize, 1, IN(x), smooth),
         d = node(&f, MD_OP_resize, 1, IN(x), corners);
  md_return(&f.b, "a", a), md_return(&f.b, "b", b), md_return(&f.b, "c", c),
      md_return(&f.b, "d", d);
  ready(&f, false);
  set(&f, "x", VALUES(0, 4, 8, 16));
  step(&f);
  expect(&f, a, VALUES(0, 1, 3, 5, 7, 10, 14, 16));
  expect(&f, b, VALUES(2, 12));
  // Triangle of half-width 2 around 1 and 3: weights 3, 3, 1 (and 0) quarters, cut at the border.
  expect(&f, c, VALUES((3 * 0 + 3 * 4 + 1 * 8) / 7.0, (1 * 4 + 3 * 8 + 3 * 16) / 7.0));
  expect(&f, d, VALUES(0, 6, 16));
  finish(&f);
}
END_TEST

START_TEST(blur_reflects_at_the_border_and_copies_at_sigma_0) {
  fixture f = start();
  md_val x = md_input(&f.b, "x", type_of(MD_F32, 3, 2, 2, 3)),
         sigma = md_input(&f.b, "sigma", type_of(MD_F32, 1, 2));
  md_val y = node(&f, MD_OP_gaussian_blur, 2, IN(x, sigma), (md_attr){.blur.size = 3});
  md_return(&f.b, "y", y);
  ready(&f, false);
  set(&f, "x", VALUES(1, 2, 4, 1, 2, 4, /**/ 1, 2, 4, 8, 16, 32));
  set(&f, "sigma", VALUES(1, 0));
  step(&f);
  double e = exp(-0.5), s = 1 + 2 * e;
  double row[] = {(1 + 2 * e * 2) / s, (2 + e * (1 + 4)) / s, (4 + 2 * e * 2) / s};
  expect(&f, y, VALUES(row[0], row[1], row[2], row[0], row[1], row[2], 1, 2, 4, 8, 16, 32));
  finish(&f);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("interp");
  TCase *t = tcase_create("all");
  tcase_add_test(t, updates_do_not_see_each_other);
  tcase_add_test(t, values_are_dropped_after_their_last_reader_unless_kept);
  tcase_add_test(t, states_start_from_name_and_seed);
  tcase_add_test(t, round_mode_rounds_every_value_to_its_type);
  tcase_add_test(t, a_meta_op_does_not_run);
  tcase_add_test(t, tensors_cross_memory_of_every_type_and_layout);
  tcase_add_test(t, casts_round_wrap_and_saturate);
  tcase_add_test(t, convolution_is_its_definition);
  tcase_add_test(t, a_group_has_its_own_statistics);
  tcase_add_test(t, batch_norm_gradient_passes_through_the_statistics);
  tcase_add_test(t, given_statistics_have_gradients_of_their_own);
  tcase_add_test(t, nan_is_not_hidden);
  tcase_add_test(t, an_index_of_no_place_is_dropped);
  tcase_add_test(t, max_pool_gives_ties_to_the_first_and_nothing_to_padding);
  tcase_add_test(t, a_query_without_negatives_has_no_loss_and_no_gradient);
  tcase_add_test(t, a_long_batch_wraps_around_the_bank);
  tcase_add_test(t, dropout_follows_key_and_index);
  tcase_add_test(t, ranks_break_ties_by_column);
  tcase_add_test(t, pictures_are_resized_at_pixel_centres);
  tcase_add_test(t, blur_reflects_at_the_border_and_copies_at_sigma_0);
  suite_add_tcase(suite, t);
  SRunner *r = srunner_create(suite);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed > 0;
}
