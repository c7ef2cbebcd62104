// SPDX-License-Identifier: Apache-2.0
// Networks on every target: convolutions with what surrounds them, steps of a small training.
#include "models/models.h"
#include "tests/unit/against_interpreter.h"
#include "tests/unit/suite.h"

// Statistics of the batch ride on the convolution, forward and backward.
START_TEST(normalised_convolutions_are_right) {
  const int channels[][2] = {{3, 19}, {20, 33}, {8, 30}};
  for (int i = 0; i < MD_COUNT(channels); i++) {
    int in = channels[i][0], out = channels[i][1];
    md_text t = {0};
    md_put(&t,
           "graph @g(%%x: f32[2,%d,2,9,7], %%w: f32[%d,%d,1,3,3], %%gamma: f32[%d], "
           "%%beta: f32[%d], %%z: f32[2,%d,2,9,7], %%dy: f32[2,%d,2,9,7]) {\n"
           "  %%c = conv3d %%x, %%w {pad=[0,1,1]}\n  %%m, %%v = moments %%c\n"
           "  %%n = batch_norm %%c, %%gamma, %%beta, %%m, %%v\n  %%a = add %%n, %%z\n"
           "  %%y = relu %%a\n  %%g = relu_grad %%dy, %%y\n"
           "  %%p, %%q = batch_norm_sums %%g, %%c, %%m, %%v\n"
           "  %%dc = batch_norm_dx %%g, %%c, %%gamma, %%m, %%v, %%p, %%q\n"
           "  %%dx = conv3d_dgrad %%dc, %%w {pad=[0,1,1], shape=[2,%d,2,9,7]}\n"
           "  %%dw = conv3d_wgrad %%dc, %%x {pad=[0,1,1], shape=[%d,%d,1,3,3]}\n"
           "  return %%y, %%m, %%v, %%dx, %%dw\n}\n",
           in, out, in, out, out, out, out, in, out, in);
    check_everywhere(t.s, MD_MAX(9 * MD_MAX(in, out), 2 * 2 * 9 * 7), 1);
    md_text_free(&t);
  }
}
END_TEST

// Kernels between tensors in blocks of whole vectors and of half ones, each with empty lanes and without.
static void check_blocks(const char *of) {
  const int channels[][3] = {{12, 8, 30}, {8, 24, 16}, {5, 16, 7}};
  for (int i = 0; i < MD_COUNT(channels); i++) {
    int a = channels[i][0], b = channels[i][1], c = channels[i][2];
    md_text t = {0};
    md_put(&t,
           "graph @g(%%x: %s[2,%d,2,9,7], %%u: %s[%d,%d,1,1,1], %%w: %s[%d,%d,1,3,3], "
           "%%v: %s[%d,%d,3,1,1]) {\n",
           of, a, of, b, a, of, c, b, of, b, c);
    md_put(&t,
           "  %%p = conv3d %%x, %%u\n  %%q = relu %%p\n  %%r = conv3d %%q, %%w {pad=[0,1,1]}\n"
           "  %%s = relu %%r\n  %%y = conv3d %%s, %%v {pad=[1,0,0]}\n  %%z = add %%y, %%q\n"
           "  %%ds = conv3d_dgrad %%z, %%v {pad=[1,0,0], shape=[2,%d,2,9,7]}\n"
           "  %%dr = relu_grad %%ds, %%s\n"
           "  %%dw = conv3d_wgrad %%dr, %%q {pad=[0,1,1], shape=[%d,%d,1,3,3]}\n"
           "  %%dq = conv3d_dgrad %%dr, %%w {pad=[0,1,1], shape=[2,%d,2,9,7]}\n"
           "  %%du = conv3d_wgrad %%dq, %%x {shape=[%d,%d,1,1,1]}\n"
           "  %%t = sum %%z {axes=[0,2,3,4]}\n  return %%t, %%dw, %%du\n}\n",
           c, c, b, b, b, a);
    check_everywhere(t.s, 2 * 2 * 9 * 7 * 9 * MD_MAX(b, c), 1);
    md_text_free(&t);
  }
}

START_TEST(blocks_of_both_sizes_meet) { check_blocks("f32"); }
END_TEST
START_TEST(blocks_of_both_sizes_meet_in_bf16) { check_blocks("bf16"); }
END_TEST

// Pixels in tiles of which each is fetched while the one before is multiplied; the last is shorter, and nothing is
// behind it.
static void check_ahead(const char *of) {
  md_text t = {0};
  md_put(
      &t,
      "graph @g(%%x: %s[2,72,3,9,13], %%u: %s[80,72,1,1,1], %%v: %s[72,80,1,1,1]) {\n"
      "  %%p = conv3d %%x, %%u\n  %%q = relu %%p\n  %%r = conv3d %%q, %%v\n  %%y = add %%r, %%x\n"
      "  %%d = conv3d_dgrad %%y, %%v {shape=[2,80,3,9,13]}\n  %%s = sum %%d {axes=[0,2,3,4]}\n"
      "  return %%y, %%s\n}\n",
      of, of, of);
  check_everywhere(t.s, 2 * 3 * 9 * 13 * 72, 1);
  md_text_free(&t);
}

START_TEST(lists_are_fetched_ahead) {
  check_ahead("f32");
  check_ahead("bf16");
}
END_TEST

// The whole step of MoDist: both networks and their keys, banks, loss, gradients, SGD, averages.
// Three in a row, each from the states that the one before has left.
START_TEST(a_small_training_goes_as_the_interpreter_says) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  md_diags *d = md_diags_create();
  md_pass_options o = {.passes = "autodiff,dce"};
  md_graph *g = md_run_passes(md_step_graph(&s, d), &o, NULL, d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  md_text t = {0};
  md_graph_print(g, &t);
  const int64_t pixels = s.batch * s.clip.frames * s.clip.size * s.clip.size;
  check_targets(t.s, &(Setup){.level = 2, .steps = 3, .length = pixels, .from_rules = true});
  md_text_free(&t);
  md_graph_destroy(g);
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("cpu_nets", normalised_convolutions_are_right, blocks_of_both_sizes_meet,
           blocks_of_both_sizes_meet_in_bf16, lists_are_fetched_ahead,
           a_small_training_goes_as_the_interpreter_says)
