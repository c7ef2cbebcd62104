// SPDX-License-Identifier: Apache-2.0
// Kernels of the CPU back end against the interpreter: shapes that leave rests in every vector, tile
// and split, prologues and epilogues around each anchor, all element types, every target that runs
// here. One thread and two give the same bits.
#include "tests/samples.h"
#include "tests/unit/against_interpreter.h"
#include "tests/unit/suite.h"

// One op: "f32[3,5], f32[5,4] {tx=true}" as in the samples of the op table.
static void op_text(const char *op, const char *sample, int num_out, md_text *to) {
  size_t types = strcspn(sample, "{");
  int num_in = 0;
  md_put(to, "graph @g(");
  for (const char *t = sample; t < sample + types && *t; num_in++) {
    size_t len = strcspn(t, "]") + 1;
    md_put(to, "%s%%a%d: %.*s", num_in ? ", " : "", num_in, (int)len, t);
    t += len;
    while (*t == ',' || *t == ' ') t++;
  }
  md_put(to, ") {\n  %%r0%s = %s ", num_out > 1 ? ", %r1" : "", op);
  for (int k = 0; k < num_in; k++) md_put(to, "%s%%a%d", k ? ", " : "", k);
  md_put(to, " %s\n  return %%r0%s\n}\n", sample + types, num_out > 1 ? ", %r1" : "");
}

static void check_op(const char *op, const char *sample, int num_out, int64_t length) {
  md_text t = {0};
  op_text(op, sample, num_out, &t);
  check_everywhere(t.s, length, 1);
  md_text_free(&t);
}

// --- every row of the op table

static int64_t largest_sample(const char *text) {
  md_graph *g = parse(text);
  int64_t most = 1;
  for (md_val v = 1; v <= (md_val)g->num_values; v++)
    most = MD_MAX(most, md_elements(&md_type_in(g, v)->shape));
  md_graph_destroy(g);
  return most;
}

// No sum is longer than the largest tensor.
START_TEST(samples_of_every_op_agree_with_one_thread_and_two) {
  int rows = 0;
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    md_role role = md_ops[op].role;
    if (role == MD_META || role == MD_LEAF) continue;
    int num_out = MD_MAX(md_op_num_out((md_op)op), 1), i = 0;
    if (op == MD_OP_moments || op == MD_OP_max_pool3d) num_out = 2;
    for (;; i++) {
      md_text t = {0};
      if (!sample_text((md_op)op, i, num_out, &t)) break;
      int64_t length = largest_sample(t.s);
      for (int level = 0; level <= 2; level += 2)
        check_text(t.s, &(Setup){.level = level, .length = length});
      md_text_free(&t);
    }
    ck_assert_msg(i > 0, "%s has no sample", md_ops[op].name);
    rows++;
  }
  ck_assert_int_gt(rows, 60);
}
END_TEST

// --- matrices

static void check_product(const char *type, int64_t m, int64_t n, int64_t k) {
  for (int i = 0; i < 4; i++) {
    bool tx = i & 1, ty = i & 2;
    md_text t = {0};
    md_put(&t, "%s[%lld,%lld], %s[%lld,%lld] {tx=%s, ty=%s}", type, (long long)(tx ? k : m),
           (long long)(tx ? m : k), type, (long long)(ty ? n : k), (long long)(ty ? k : n),
           tx ? "true" : "false", ty ? "true" : "false");
    check_op("matmul", t.s, 1, k);
    md_text_free(&t);
  }
}

START_TEST(products_of_any_size_are_right) {
  const int64_t size[][3] = {{1, 1, 1},     {1, 17, 33},   {2, 128, 300},  {7, 5, 4099},
                             {13, 65, 64},  {33, 31, 17},  {40, 300, 130}, {115, 33, 257},
                             {64, 3, 3000}, {250, 270, 5}, {32, 100, 31}};
  for (int i = 0; i < MD_COUNT(size); i++) check_product("f32", size[i][0], size[i][1], size[i][2]);
}
END_TEST

START_TEST(products_of_other_types_are_right) {
  const char *type[] = {"f64", "bf16"};
  for (int i = 0; i < 2; i++) {
    check_product(type[i], 3, 37, 70);
    check_product(type[i], 45, 50, 140);
  }
}
END_TEST

// Bias and ReLU around a linear layer, forward and backward, few rows and many.
START_TEST(products_take_what_surrounds_them) {
  const int rows[] = {2, 5, 50};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    for (int ty = 0; ty < 2; ty++) {
      md_text t = {0};
      int m = rows[i];
      const char *w = ty ? "37,70" : "70,37";
      md_put(&t,
             "graph @g(%%x: f32[%d,70], %%w: f32[%s], %%b: f32[37], %%dy: f32[%d,37]) {\n"
             "  %%r = relu %%x\n  %%z = matmul %%r, %%w {ty=%s}\n"
             "  %%bb = broadcast %%b {shape=[%d,37], axes=[1]}\n  %%a = add %%z, %%bb\n"
             "  %%y = relu %%a\n  %%g = relu_grad %%dy, %%y\n"
             "  %%dx = matmul %%g, %%w {ty=%s}\n  %%dr = relu_grad %%dx, %%x\n"
             "  %%dw = matmul %%g, %%r {tx=true}\n  %%dw2 = affine %%dw {scale=0.5}\n"
             "  return %%y, %%dr, %%dw2, %%r\n}\n",
             m, w, m, ty ? "true" : "false", m, ty ? "false" : "true");
      check_everywhere(t.s, 70, 1);
      md_text_free(&t);
    }
  }
}
END_TEST

// --- InfoNCE

// All results, without the mean, and the mean alone.
static void check_nce(const char *type, const char *ids, int64_t b, int64_t d, int64_t k) {
  static const char *const results[] = {"%lse, %top, %mean", "%lse, %top", "%mean"};
  for (int i = 0; i < MD_COUNT(results); i++) {
    md_text t = {0};
    md_put(&t,
           "graph @g(%%q: %s[%lld,%lld], %%ids: %s[%lld], %%bank: %s[%lld,%lld], %%bids: i32[%lld])"
           " {\n  %%qs = affine %%q {scale=0.125}\n"
           "  %%lse, %%top, %%mean = nce_lse %%qs, %%ids, %%bank, %%bids {tau=0.5}\n"
           "  return %s\n}\n",
           type, (long long)b, (long long)d, ids, (long long)b, type, (long long)k, (long long)d,
           (long long)k, results[i]);
    check_everywhere(t.s, k + d, 1);
    md_text_free(&t);
  }
}

START_TEST(infonce_streams_banks_of_any_size) {
  const int64_t size[][3] = {{3, 8, 11},   {1, 1, 1},     {2, 128, 1000}, {3, 17, 31}, {5, 40, 33},
                             {16, 64, 96}, {20, 33, 200}, {33, 7, 2500},  {70, 20, 65}};
  for (int i = 0; i < MD_COUNT(size); i++)
    check_nce("f32", i % 2 ? "i32" : "i64", size[i][0], size[i][1], size[i][2]);
  check_nce("f64", "i32", 9, 21, 130);
  check_nce("bf16", "i64", 9, 21, 130);
}
END_TEST

// Every row is of the query's own video or empty: nothing to sum, nothing to learn.
START_TEST(a_bank_without_negatives_gives_minus_infinity) {
  const char *text =
      "graph @g(%q: f32[3,8], %bank: f32[70,8]) {\n"
      "  %ids = constant {value=5} : i32[3]\n  %own = constant {value=5} : i32[35]\n"
      "  %empty = constant {value=-2} : i32[35]\n  %bids = concat %own, %empty {axis=0}\n"
      "  %lse, %top, %mean = nce_lse %q, %ids, %bank, %bids\n  return %lse, %top, %mean\n}\n";
  check_everywhere(text, 70, 1);
  Setup s = {.level = 2};
  md_program *p = compiled(text, &s, NULL);
  md_exec *e = executor(p, 1);
  ck_assert(md_exec_step(e, NULL));
  const float *lse = md_exec_result(e, "lse", NULL), *top = md_exec_result(e, "top", NULL),
              *mean = md_exec_result(e, "mean", NULL);
  for (int i = 0; i < 3; i++) ck_assert(lse[i] == -INFINITY && top[i] == -INFINITY);
  for (int i = 0; i < 24; i++) ck_assert(mean[i] == 0);
  md_exec_destroy(e);
  md_program_destroy(p);
}
END_TEST

// Parts of the bank without negatives, at its ends: they count for nothing in the mean.
START_TEST(parts_without_negatives_do_not_count) {
  check_everywhere(
      "graph @g(%q: f32[3,8], %bank: f32[2500,8], %some: i32[200]) {\n"
      "  %ids = constant {value=5} : i32[3]\n  %own = constant {value=5} : i32[1500]\n"
      "  %empty = constant {value=-2} : i32[800]\n  %bids = concat %own, %some, %empty {axis=0}\n"
      "  %lse, %top, %mean = nce_lse %q, %ids, %bank, %bids\n  return %lse, %top, %mean\n}\n",
      200, 1);
}
END_TEST

// Maxima grow by more than e^x can hold, between the tiles of an item as well: it has several.
START_TEST(sums_shrink_when_the_maximum_grows) {
  check_everywhere(
      "graph @g(%q: f32[20,3], %ids: i32[20], %bank: f32[700,3], %bids: i32[12600]) {\n"
      "  %a = affine %bank {scale=0.1}\n  %b = affine %a {scale=0.5}\n"
      "  %c = affine %bank {scale=20}\n"
      "  %all = concat %a, %a, %a, %a, %b, %b, %c, %a, %c, %a, %a, %a, %c, %c, %b, "
      "%a, %a, %a {axis=0}\n"
      "  %lse, %top, %mean = nce_lse %q, %ids, %all, %bids {tau=0.2}\n"
      "  return %lse, %top, %mean\n}\n",
      12600, 1);
}
END_TEST

// The mean is read within the region: it is made there, and then what reads it.
START_TEST(a_mean_takes_what_follows_it) {
  check_text(
      "graph @g(%q: f32[5,1], %ids: i32[5], %bank: f32[70,1], %bids: i32[70], %y: f32[5]) {\n"
      "  region @r {\n    %lse, %top, %mean = nce_lse %q, %ids, %bank, %bids\n"
      "    %m = reshape %mean {shape=[5]}\n    %z = mul %m, %y\n    %e = add %lse, %y\n  }\n"
      "  return %z, %e, %mean\n}\n",
      &(Setup){.passes = "memory", .length = 70});
}
END_TEST

// --- pooling

START_TEST(pools_of_any_window_are_right) {
  const char *window[] = {"kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]",
                          "kernel=[2,2,2], stride=[2,2,2]",
                          "kernel=[3,1,2], stride=[1,3,1], pad=[1,0,1]", "kernel=[3,9,8]",
                          "kernel=[3,10,9], pad=[1,1,2]"};  // more places than a u8 counts
  for (int i = 0; i < MD_COUNT(window); i++) {
    for (int c = 3; c <= 19; c += 16) {
      md_text t = {0};
      // The convolution on either side makes the layout pass block what lies between.
      md_put(&t,
             "graph @g(%%x: f32[2,%d,3,9,8], %%gamma: f32[%d], %%beta: f32[%d]) {\n"
             "  %%m, %%v = moments %%x\n  %%n = batch_norm %%x, %%gamma, %%beta, %%m, %%v\n"
             "  %%r = relu %%n\n  %%y, %%i = max_pool3d %%r {%s}\n  %%z = avg_pool3d %%r {%s}\n"
             "  %%s = affine %%y {scale=2}\n"
             "  %%dy = max_pool3d_grad %%s, %%i {%s, shape=[2,%d,3,9,8]}\n"
             "  %%dz = avg_pool3d_grad %%z {%s, shape=[2,%d,3,9,8]}\n"
             "  %%g = relu_grad %%dy, %%r\n  %%a, %%b = batch_norm_sums %%g, %%x, %%m, %%v\n"
             "  %%d = add %%g, %%dz\n"
             "  return %%y, %%i, %%z, %%dy, %%dz, %%a, %%b, %%d\n}\n",
             c, c, c, window[i], window[i], window[i], c, window[i], c);
      check_everywhere(t.s, 216, 1);
      md_text_free(&t);
    }
  }
}
END_TEST

START_TEST(pools_of_other_types_are_right) {
  const char *sample = "[2,18,2,7,6] {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}";
  const char *type[] = {"f64", "bf16"};
  for (int i = 0; i < 2; i++) {
    md_text t = {0};
    md_put(&t, "%s%s", type[i], sample);
    check_op("max_pool3d", t.s, 2, 9);
    check_op("avg_pool3d", t.s, 1, 9);
    md_text_free(&t);
    md_put(&t,
           "%s[2,18,2,4,3], u8[2,18,2,4,3] {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1], "
           "shape=[2,18,2,7,6]}",
           type[i]);
    check_op("max_pool3d_grad", t.s, 1, 9);
    md_text_free(&t);
  }
}
END_TEST

// --- rows

static void check_rows(const char *type, int64_t b, int64_t k) {
  md_text t = {0};
  long long m = (long long)b, n = (long long)k;
  md_put(
      &t,
      "graph @g(%%x: %s[%lld,%lld], %%dy: %s[%lld,%lld], %%dl: %s[%lld], %%l: i64[%lld]) {\n"
      "  %%z = affine %%x {scale=2}\n"
      "  %%a = logsumexp %%z\n  %%b = softmax %%z\n  %%c = cross_entropy %%z, %%l\n"
      "  %%d = cross_entropy_grad %%dl, %%z, %%l\n  %%e = l2_normalize %%z\n"
      "  %%f = l2_normalize_grad %%dy, %%z\n  %%g = argmax %%x\n  %%h = topk_hit %%x, %%l {k=2}\n"
      "  return %%a, %%b, %%c, %%d, %%e, %%f, %%g, %%h\n}\n",
      type, m, n, type, m, n, type, m, m);
  check_everywhere(t.s, k, 1);
  md_text_free(&t);
}

START_TEST(rows_of_any_length_are_right) {
  const int64_t size[][2] = {{1, 1}, {3, 7}, {5, 16}, {70, 33}, {2, 4099}, {600, 10}};
  for (int i = 0; i < MD_COUNT(size); i++) check_rows("f32", size[i][0], size[i][1]);
  check_rows("f64", 4, 37);
  check_rows("bf16", 4, 37);
}
END_TEST

// A region of its own for each row op with what surrounds it.
START_TEST(rows_take_what_surrounds_them) {
  const char *head =
      "graph @g(%x: f32[9,37], %y: f32[9,37], %l: i32[9], %v: f32[9]) {\n  region @r {\n"
      "    %a = mul %x, %y\n";
  const char *op[] = {"logsumexp %a",          "softmax %a",
                      "cross_entropy %a, %l",  "argmax %a",
                      "l2_normalize %a",       "cross_entropy_grad %v, %a, %l",
                      "topk_hit %a, %l {k=3}", "l2_normalize_grad %a, %y"};
  const char *tail[] = {"%z = add %o, %v", "%z = add %o, %x", "%z = add %o, %v", "",
                        "%z = add %o, %x", "%z = add %o, %x", "%z = add %o, %v", "%z = add %o, %x"};
  for (int i = 0; i < MD_COUNT(op); i++) {
    md_text t = {0};
    md_put(&t, "%s    %%o = %s\n    %s\n  }\n  return %%o, %%a%s\n}\n", head, op[i], tail[i],
           *tail[i] ? ", %z" : "");
    check_text(t.s, &(Setup){.passes = "memory", .length = 37});
    md_text_free(&t);
  }
}
END_TEST

// Logarithms of half of the elements are NaN: in some rows some, in the last operand all.
START_TEST(nan_comes_through_rows_and_banks) {
  check_everywhere("graph @g(%x: f32[40,3], %l: i32[40], %bank: f32[70,3], %ids: i32[70]) {\n"
                   "  %n = log %x\n  %one = constant {value=-1} : f32[40,3]\n  %all = log %one\n"
                   "  %a = l2_normalize %n\n  %b = l2_normalize_grad %x, %n\n"
                   "  %c = topk_hit %n, %l {k=2}\n  %d = topk_hit %all, %l\n"
                   "  %e, %f, %h = nce_lse %n, %l, %bank, %ids\n  %g = logsumexp %n\n"
                   "  return %a, %b, %c, %d, %e, %f, %h, %g\n}\n",
                   70, 1);
}
END_TEST

// One column, so that a logit is inf or -inf but never inf - inf.
START_TEST(an_infinite_logit_gives_infinity) {
  check_everywhere("graph @g(%x: f32[20,1], %l: i32[20], %bank: f32[70,1], %ids: i32[70]) {\n"
                   "  %big = affine %x {scale=1000}\n  %q = exp %big\n"
                   "  %e, %f, %g = nce_lse %q, %l, %bank, %ids\n  return %e, %f\n}\n",
                   70, 1);
  check_everywhere("graph @g(%l: i32[20], %bank: f32[70,1], %ids: i32[70]) {\n"
                   "  %q = constant {value=inf} : f32[20,1]\n"
                   "  %e, %f, %g = nce_lse %q, %l, %bank, %ids\n  return %e, %f, %g\n}\n",
                   70, 1);
}
END_TEST

START_TEST(rows_of_infinities_have_their_limits) {
  check_everywhere("graph @g(%x: f32[4,21]) {\n  %i = constant {value=inf} : f32[4,21]\n"
                   "  %n = neg %i\n  %a = logsumexp %n\n  %b = logsumexp %i\n"
                   "  %c = concat %x, %n {axis=1}\n  %d = logsumexp %c\n  %e = softmax %c\n"
                   "  %f = argmax %n\n  %z = constant {value=0} : f32[4,21]\n"
                   "  %y = l2_normalize %z\n  %w = l2_normalize_grad %x, %z\n"
                   "  return %a, %b, %d, %e, %f, %y, %w\n}\n",
                   42, 1);
}
END_TEST

// --- movement

START_TEST(pieces_begin_anywhere) {
  for (int axis = 0; axis < 3; axis++) {
    const char *shape[][3] = {{"2,19,5", "1,19,5", "4,19,5"},
                              {"3,7,37", "3,16,37", "3,1,37"},
                              {"5,3,7", "5,3,33", "5,3,16"}};
    const char *type[] = {"f32", "i64", "u8"};
    for (int i = 0; i < 3; i++) {
      md_text t = {0};
      md_put(&t, "%s[%s], %s[%s], %s[%s] {axis=%d}", type[i], shape[axis][0], type[i],
             shape[axis][1], type[i], shape[axis][2], axis);
      check_op("concat", t.s, 1, 1);
      md_text_free(&t);
    }
    md_text t = {0};
    md_put(&t, "f32[%s] {axis=%d, before=3, after=2}", shape[axis][0], axis);
    check_op("pad", t.s, 1, 1);
    md_text_free(&t);
  }
  check_op("pad", "f32[40,70] {axis=1, after=5}", 1, 1);
}
END_TEST

// Between convolutions everything is blocked, whatever the number of channels.
START_TEST(pieces_of_blocked_channels_are_right) {
  const char *text =
      "graph @g(%%x: f32[2,%d,2,5,4], %%w: f32[%d,%d,1,1,1], %%u: f32[3,%d,1,3,3]) {\n"
      "  %%a = conv3d %%x, %%w\n  %%b = relu %%a\n  %%c = concat %%b, %%a, %%b {axis=1}\n"
      "  %%p = pad %%c {axis=1, before=%d, after=1}\n  %%q = pad %%p {axis=3, before=1, after=2}\n"
      "  %%i = crop %%q {top=1, left=1, h=6, w=2}\n  %%y = conv3d %%i, %%u {pad=[0,1,1]}\n"
      "  return %%y\n}\n";
  const int channels[] = {16, 19, 32, 5};
  for (int i = 0; i < MD_COUNT(channels); i++) {
    md_text t = {0};
    int c = channels[i], before = c % 16 ? 3 : 16;
    md_put(&t, text, c, c, c, 3 * c + before + 1, before);
    check_everywhere(t.s, c * 9, 1);
    md_text_free(&t);
  }
}
END_TEST

START_TEST(rows_move_by_index) {
  check_op("gather_rows", "f32[5,37], i32[40]", 1, 1);
  check_op("gather_rows", "i64[5], i64[9]", 1, 1);
  check_op("gather_rows", "f32[4,3,5,2], i32[3]", 1, 1);
  check_op("scatter_rows", "f32[40,37], i32[40] {rows=5}", 1, 40);
  check_op("scatter_rows", "f64[7], i64[7] {rows=9}", 1, 7);
  check_op("scatter_rows", "f32[3,4,7], i32[3] {rows=100}", 1, 3);
}
END_TEST

START_TEST(the_ring_is_pushed_in_place_and_elsewhere) {
  const char *text =
      "graph @g(%%k: f32[%d,21], %%i: i64[%d]) {\n"
      "  %%bank = state @bank : f32[11,21]\n  %%ids = state @ids : i64[11]\n"
      "  %%other = state @other : f32[11,21]\n  %%ptr = state @ptr : i32[1]\n"
      "  %%kn = neg %%k\n"
      "  %%b = bank_push %%bank, %%kn, %%ptr\n  %%j = bank_push %%ids, %%i, %%ptr\n"
      "  %%o = bank_push %%other, %%k, %%ptr\n  %%late = neg %%other\n"
      "  %%p = ring_next %%ptr {push=%d, size=11}\n"
      "  update @bank = %%b\n  update @ids = %%j\n  update @other = %%o\n  update @ptr = %%p\n"
      "  return %%late, old=%%other\n}\n";
  const int num[] = {1, 4, 11, 25};
  for (int i = 0; i < MD_COUNT(num); i++) {
    md_text t = {0};
    md_put(&t, text, num[i], num[i], num[i]);
    check_everywhere(t.s, 1, 4);
    md_text_free(&t);
  }
}
END_TEST

// A clip on its way to a first convolution, and channels in blocks.
START_TEST(what_becomes_channels_is_made_on_the_way) {
  const char *type[] = {"f32", "bf16"};
  for (int i = 0; i < 2; i++) {
    md_text t = {0};
    md_put(&t,
           "graph @g(%%u: u8[2,3,2,5,19], %%s: f32[3], %%x: f32[2,37,2,5,6]) {\n"
           "  %%f = flip %%u {axis=4}\n  %%a = cast %%f {to=f32}\n"
           "  %%b = affine %%a {scale=0.0625, shift=-2}\n"
           "  %%c = broadcast %%s {shape=[2,3,2,5,19], axes=[1]}\n  %%d = mul %%b, %%c\n"
           "  %%e = cast %%d {to=%s}\n"
           "  %%y = space_to_depth %%e {by=[1,2,2], before=[0,1,3], size=[2,3,11]}\n"
           "  %%r = relu %%x\n  %%h = cast %%r {to=%s}\n"
           "  %%z = space_to_depth %%h {by=[2,1,3], before=[0,0,1], size=[1,5,2]}\n"
           "  return %%y, %%z\n}\n",
           type[i], type[i]);
    check_everywhere(t.s, 1, 1);
    md_text_free(&t);
  }
}
END_TEST

// Rows of more pixels than lanes in blocks of channels: with pixels and frames that have no source, and a source whose
// neighbours lie side by side, backwards, or apart.
START_TEST(rows_of_pixels_become_channels_together) {
  const char *type[] = {"f32", "bf16"}, *way[] = {"flip %e {axis=4}", "affine %e {scale=2}"};
  const int by[] = {1, 2, 3};
  for (int i = 0; i < 12; i++) {
    md_text t = {0};
    int along = by[i / 4], channels = 5 * 2 * along;
    md_put(&t, "graph @g(%%x: u8[2,5,2,5,%d], %%w: %s[3,%d,1,1,1]) {\n", 25 * along, type[i % 2],
           channels);
    md_put(&t, "  %%e = cast %%x {to=%s}\n  %%f = %s\n", type[i % 2], way[i / 2 % 2]);
    md_put(&t, "  %%y = space_to_depth %%f {by=[1,2,%d], before=[0,1,5], size=[3,3,29]}\n", along);
    md_put(&t, "  %%c = conv3d %%y, %%w\n  return %%c\n}\n");
    check_everywhere(t.s, channels, 1);
    md_text_free(&t);
  }
}
END_TEST

START_TEST(views_of_their_own_are_copies) {
  check_op("transpose", "f32[37,50] {axes=[1,0]}", 1, 1);
  check_op("transpose", "bf16[3,17,5,33] {axes=[0,3,1,2]}", 1, 1);
  check_op("flip", "i32[5,37] {axis=1}", 1, 1);
  check_op("slice", "u8[5,37] {axis=1, start=3, size=29}", 1, 1);
  check_op("reshape", "f64[6,35] {shape=[5,7,6]}", 1, 1);
  check_op("broadcast", "f32[7,1] {shape=[3,7,19], axes=[1,2]}", 1, 1);
}
END_TEST

// --- pictures

START_TEST(pictures_are_filtered_as_the_interpreter_says) {
  check_op("resize", "f32[2,3,37,50] {size=[21,33]}", 1, 4);
  check_op("resize", "f32[1,2,5,4] {size=[7,39]}", 1, 4);
  check_op("resize", "f32[2,1,9] {size=[40]}", 1, 4);
  check_op("resize", "f32[1,2,5,20,18] {size=[8,11,35]}", 1, 4);
  check_op("resize", "f32[1,1,1,5] {size=[3,33], align_corners=true}", 1, 4);
  check_op("resize", "f32[1,3,50,41] {size=[7,18], antialias=true}", 1, 64);
  check_op("resize", "f32[1,3,7,9] {size=[50,41], antialias=true}", 1, 64);
  check_op("resize", "bf16[1,3,20,41] {size=[7,18]}", 1, 4);
  check_op("crop", "u8[2,3,9,50] {top=2, left=5, h=6, w=37}", 1, 1);
  check_op("crop", "f32[9,50] {top=2, left=16, h=6, w=17}", 1, 1);
  check_op("grayscale", "f32[2,3,2,5,19]", 1, 3);
  check_op("grayscale", "f64[2,3]", 1, 3);
  check_op("gaussian_blur", "f32[2,3,20,66], f32[2] {size=7}", 1, 49);
  check_op("gaussian_blur", "f32[3,5,6], f32[3] {size=3}", 1, 9);
  check_op("frame_difference", "f32[1,3,4,5,37]", 1, 1);
  check_op("frame_difference", "f64[2,1,2,3,5] {signed=true}", 1, 1);
}
END_TEST

START_TEST(pictures_and_movement_take_what_surrounds_them) {
  const char *op[] = {"resize %a {size=[9,33]}",
                      "resize %a {size=[9,33], antialias=true}",
                      "crop %a {top=3, left=5, h=9, w=33}",
                      "gaussian_blur %a, %s {size=5}",
                      "grayscale %a",
                      "concat %a, %x {axis=3}",
                      "pad %a {axis=3, before=3, after=1}",
                      "gather_rows %a, %i",
                      "scatter_rows %a, %i {rows=4}"};
  const char *shape[] = {"2,3,9,33",  "2,3,9,33",  "2,3,9,33",  "2,3,20,40", "2,3,20,40",
                         "2,3,20,80", "2,3,20,44", "2,3,20,40", "4,3,20,40"};
  for (int i = 0; i < MD_COUNT(op); i++) {
    md_text t = {0};
    md_put(&t,
           "graph @g(%%x: f32[2,3,20,40], %%s: f32[2], %%i: i32[2], %%r: f32[%s], %%c: f32[3]) {\n"
           "  region @r {\n    %%b = broadcast %%c {shape=[2,3,20,40], axes=[1]}\n"
           "    %%a = mul %%x, %%b\n    %%o = %s\n    %%y = sub %%o, %%r\n  }\n"
           "  return %%y, %%o, %%a\n}\n",
           shape[i], op[i]);
    check_text(t.s, &(Setup){.passes = "memory", .length = 64});
    md_text_free(&t);
  }
}
END_TEST

SUITE_MAIN("cpu_ops", samples_of_every_op_agree_with_one_thread_and_two,
           products_of_any_size_are_right, products_of_other_types_are_right,
           products_take_what_surrounds_them, infonce_streams_banks_of_any_size,
           a_bank_without_negatives_gives_minus_infinity, parts_without_negatives_do_not_count,
           sums_shrink_when_the_maximum_grows, a_mean_takes_what_follows_it,
           pools_of_any_window_are_right, pools_of_other_types_are_right,
           rows_of_any_length_are_right, rows_take_what_surrounds_them,
           rows_of_infinities_have_their_limits, nan_comes_through_rows_and_banks,
           an_infinite_logit_gives_infinity, pieces_begin_anywhere,
           pieces_of_blocked_channels_are_right, rows_move_by_index,
           the_ring_is_pushed_in_place_and_elsewhere, what_becomes_channels_is_made_on_the_way,
           rows_of_pixels_become_channels_together, views_of_their_own_are_copies,
           pictures_are_filtered_as_the_interpreter_says,
           pictures_and_movement_take_what_surrounds_them)
