// SPDX-License-Identifier: Apache-2.0
// Networks on every target: convolutions with what surrounds them, steps of a small training.
#include "models/models.h"
#include "tests/unit/against_interpreter.h"
#include "tests/unit/suite.h"

// Statistics of the batch ride on the convolution, forward and backward.
START_TEST(normalised_convolutions_are_right) {
  const int channels[][2] = {{3, 19}, {20, 33}};
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

SUITE_MAIN("cpu_nets", normalised_convolutions_are_right,
           a_small_training_goes_as_the_interpreter_says)
