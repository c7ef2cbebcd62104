// SPDX-License-Identifier: Apache-2.0
// Both gradients of a 1x1x1 convolution in one kernel.
#include "tests/unit/against_interpreter.h"
#include "tests/unit/suite.h"

typedef struct Shape {
  int n, in, out, size[3];
} Shape;

// Pixels that a tile divides evenly, oddly or not at all; one tile an item and several, the last item with fewer;
// channels on both sides of a vector; weights enough to fetch tiles ahead.
static const Shape shapes[] = {
    {1, 7, 17, {1, 5, 7}},  {2, 33, 16, {3, 4, 14}}, {2, 16, 65, {2, 5, 13}},
    {1, 1, 3, {1, 1, 61}},  {2, 64, 64, {1, 8, 56}}, {3, 8, 40, {2, 28, 28}},
    {2, 7, 5, {1, 31, 34}},
};

// dy and x are formed on the way; what follows dx reads x again, and is summed.
static void put_graph(md_text *t, const Shape *s, const char *of) {
  char dy[80], x[80], shape[40];
  snprintf(shape, sizeof shape, "[%d,%d,%d,%d,%d]", s->n, s->in, s->size[0], s->size[1],
           s->size[2]);
  snprintf(x, sizeof x, "%s%s", of, shape);
  snprintf(dy, sizeof dy, "%s[%d,%d,%d,%d,%d]", of, s->n, s->out, s->size[0], s->size[1],
           s->size[2]);
  md_put(t, "graph @g(%%g: %s, %%x: %s, %%w: %s[%d,%d,1,1,1]) {\n", dy, x, of, s->out, s->in);
  md_put(t, "  %%dy = relu %%g\n  %%r = relu %%x\n");
  md_put(t, "  %%dx = conv3d_dgrad %%dy, %%w {shape=%s}\n", shape);
  md_put(t, "  %%dw = conv3d_wgrad %%dy, %%r {shape=[%d,%d,1,1,1]}\n", s->out, s->in);
  md_put(t, "  %%m = relu_grad %%dx, %%x\n  %%s = sum %%m {axes=[0,2,3,4]}\n");
  md_put(t, "  return %%m, %%dw, %%s\n}\n");
}

// Is any kernel of the graph that for both?
static bool is_joined(const char *text) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  md_pass_options o = md_pass_defaults();
  o.facts = md_cpu_facts(md_cpu_native());
  md_graph *g = md_run_passes(parse(text), &o, NULL, d);
  md_cpu_report report = {.arena = a};
  md_program *p = md_cpu_compile(g, &(md_cpu_options){.plan_only = true}, &report, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  bool joined = false;
  for (int i = 0; i < report.num_kernels; i++)
    joined |= !strcmp(report.kernel[i].lowering, "conv3d both gradients");
  md_program_destroy(p);
  md_graph_destroy(g);
  md_arena_destroy(a);
  md_diags_destroy(d);
  return joined;
}

static void check_shapes(const char *of) {
  for (int i = 0; i < MD_COUNT(shapes); i++) {
    md_text t = {0};
    put_graph(&t, &shapes[i], of);
    ck_assert_msg(is_elsewhere() || is_joined(t.s), "%s", t.s);
    check_targets(t.s, &(Setup){.level = 2});
    md_text_free(&t);
  }
}

START_TEST(both_gradients_of_f32_are_exact) { check_shapes("f32"); }
END_TEST
START_TEST(both_gradients_of_bf16_are_exact) { check_shapes("bf16"); }
END_TEST

// They multiply all the time.
START_TEST(many_channels_stay_apart) {
  const Shape many = {1, 256, 256, {1, 4, 4}};
  md_text t = {0};
  put_graph(&t, &many, "f32");
  ck_assert(!is_joined(t.s));
  md_text_free(&t);
}
END_TEST

// What nobody forms but somebody may write.
START_TEST(other_pairs_are_made_one_by_one) {
  const char *taps = "graph @g(%d: f32[2,5,1,3,4], %w: f32[5,6,1,3,3], %x: f32[2,6,1,3,4]) {\n"
                     "  region @r {\n    %e = relu %d\n"
                     "    %dx = conv3d_dgrad %e, %w {pad=[0,1,1], shape=[2,6,1,3,4]}\n"
                     "    %y = relu %x\n"
                     "    %dw = conv3d_wgrad %e, %y {pad=[0,1,1], shape=[5,6,1,3,3]}\n  }\n"
                     "  return %dx, %dw\n}\n";
  const char *followed = "graph @g(%d: f32[2,5,1,3,4], %w: f32[5,6,1,1,1], %x: f32[2,6,1,3,4]) {\n"
                         "  region @r {\n    %dx = conv3d_dgrad %d, %w {shape=[2,6,1,3,4]}\n"
                         "    %dw = conv3d_wgrad %d, %x {shape=[5,6,1,1,1]}\n"
                         "    %y = relu %dw\n    %z = abs %dx\n  }\n"
                         "  return %y, %z\n}\n";
  check_targets(taps, &(Setup){.passes = "memory"});
  check_targets(followed, &(Setup){.passes = "memory"});
}
END_TEST

SUITE_MAIN("cpu_twins", both_gradients_of_f32_are_exact, both_gradients_of_bf16_are_exact,
           many_channels_stay_apart, other_pairs_are_made_one_by_one)
