// SPDX-License-Identifier: Apache-2.0
// The executor on a GPU that the stand-in plays: a training step as on the CPU, what goes to and fro in a
// steady state, what the caller may touch while a step runs, and what a dead device answers. The
// environment is that of tests/device/README.md.
#include "runtime/train/train.h"
#include "tests/tolerance.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char graph_text[] = "graph @step(%x: f32[5,130], %g: f32[130]) {\n"
                                 "  %w = state @w {init=normal, b=1} : f32[130]\n"
                                 "  %n = state @n {init=zeros} : f32[130]\n"
                                 "  %a = exp %x\n"
                                 "  %s = sum %a {axes=[0]}\n"
                                 "  %w2 = add %w, %s\n"
                                 "  %m = mul %w2, %g\n"
                                 "  %n2 = add %n, %g\n"
                                 "  update @w = %m\n"
                                 "  update @n = %n2\n"
                                 "  return %a, %m\n"
                                 "}\n";

static md_engine *engine_of(md_graph *g, md_backend backend, md_engine_options o) {
  md_diags *d = md_diags_create();
  o.backend = backend;
  o.passes = md_pass_defaults();
  o.seed = 3;
  md_engine *e = md_engine_create(g, &o, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  return e;
}

static md_engine *small(md_backend backend) {
  return engine_of(md_parse_graph("step.mdg", graph_text, strlen(graph_text), NULL), backend,
                   (md_engine_options){0});
}

static void fill(md_engine *e, uint64_t seed) {
  const md_graph *g = md_engine_graph(e);
  for (int i = 0; i < g->num_nodes; i++) {
    if (g->node[i]->op != MD_OP_input) continue;
    md_type type;
    void *to = md_engine_input(e, g->node[i]->name, &type);
    md_fill_input(g->node[i]->name, type.dtype, md_elements(&type.shape), seed, to);
  }
}

static void step(md_engine *e) {
  md_diags *d = md_diags_create();
  ck_assert_msg(md_engine_step(e, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

// --- calls of the driver, from the stand-in's log

static char log_path[64];

static void start_log(void) {
  snprintf(log_path, sizeof log_path, "calls.%d.log", (int)getpid());
  setenv("MODIST_STAND_IN_LOG", log_path, 1);
}

static int num_calls(const char *name) {
  FILE *f = fopen(log_path, "r");
  ck_assert_msg(f != NULL, "no log of the stand-in");
  char line[400];
  int num = 0;
  size_t len = strlen(name);
  while (fgets(line, sizeof line, f)) {
    const char *call = strchr(line, ' ');
    if (call && !strncmp(call + 1, name, len)) num++;
  }
  fclose(f);
  return num;
}

// --- the claims

// By root mean squares: of the differences, and of what the steps have changed, as test_step has it.
static void compare_state(const char *name, md_engine *a, md_engine *b, const float *before,
                          int64_t n, double tolerance) {
  const float *x = md_engine_view_state(a, name, NULL), *y = md_engine_view_state(b, name, NULL);
  ck_assert(x && y);
  double off = 0, change = 0, size = 0;
  for (int64_t i = 0; i < n; i++) {
    off += pow((double)x[i] - (double)y[i], 2);
    change += pow((double)x[i] - (double)before[i], 2);
    size += pow((double)x[i], 2);
  }
  double allowed = tolerance * sqrt(change) + md_tolerance(MD_F32, 2, sqrt(size));
  ck_assert_msg(sqrt(off) <= allowed, "%s: off by %.3g of a change of %.3g", name, sqrt(off),
                sqrt(change));
}

START_TEST(a_training_step_is_that_of_the_cpu) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 2;
  s.clip.frames = s.mclip.frames = 2;
  s.bank = 8;
  md_engine *a = engine_of(md_step_graph(&s, NULL), MD_BACKEND_CPU, (md_engine_options){0});
  md_engine *b = engine_of(md_step_graph(&s, NULL), MD_BACKEND_CUDA, (md_engine_options){0});
  ck_assert(md_engine_is_gpu(b) && !md_engine_is_gpu(a));
  int num = md_engine_num_states(a);
  float **before = calloc((size_t)num, sizeof *before);
  for (int i = 0; i < num; i++) {
    md_type t;
    const void *x = md_engine_view_state(a, md_engine_state_name(a, i), &t);
    before[i] = malloc((size_t)md_type_bytes(&t));
    memcpy(before[i], x, (size_t)md_type_bytes(&t));
    ck_assert_mem_eq(md_engine_view_state(b, md_engine_state_name(a, i), NULL), x,
                     (size_t)md_type_bytes(&t));
  }
  for (int i = 1; i <= 3; i++) {  // the third is the first that only replays
    fill(a, (uint64_t)i);
    fill(b, (uint64_t)i);
    step(a);
    step(b);
  }
  const md_graph *g = md_engine_graph(b);
  int64_t layers = 0;
  for (int i = 0; i < g->num_nodes; i++) layers += md_ops[g->node[i]->op].role == MD_ANCHOR;
  double tolerance = sqrt(md_tolerance(MD_F32, layers, 1));
  for (int i = 0; i < num; i++) {
    md_type t;
    const char *name = md_engine_state_name(a, i);
    const void *x = md_engine_view_state(a, name, &t);
    if (t.dtype == MD_F32) compare_state(name, a, b, before[i], md_elements(&t.shape), tolerance);
    else ck_assert_mem_eq(md_engine_view_state(b, name, NULL), x, (size_t)md_type_bytes(&t));
    free(before[i]);
  }
  double x, y;
  ck_assert(md_engine_result(a, "loss", &x, 1) && md_engine_result(b, "loss", &y, 1));
  ck_assert_msg(fabs(x - y) <= tolerance * fabs(x), "loss %g, on the CPU %g", y, x);
  free(before);
  md_engine_destroy(a);
  md_engine_destroy(b);
}
END_TEST

START_TEST(a_steady_state_replays_one_graph_and_copies_no_state) {
  start_log();
  md_engine *e = small(MD_BACKEND_CUDA);
  fill(e, 1);
  step(e);
  step(e);
  int launches = num_calls("cuLaunchKernel"), to = num_calls("cuMemcpyHtoD"),
      from = num_calls("cuMemcpyDtoH"), all = num_calls("cu");
  for (int i = 0; i < 5; i++) {
    double m[130];
    fill(e, (uint64_t)i);
    step(e);
    ck_assert(md_engine_result(e, "m", m, 130));
  }
  ck_assert_int_eq(num_calls("cuLaunchKernel"), launches);
  ck_assert_int_eq(num_calls("cuStreamBeginCapture"), 1);
  ck_assert_int_eq(num_calls("cuGraphLaunch"), 6);
  ck_assert_int_eq(num_calls("cuMemcpyHtoD"), to + 5);  // the inputs, all at once
  ck_assert_int_eq(num_calls("cuMemcpyDtoH"), from);    // results come with the graph
  ck_assert_int_le(num_calls("cu") - all, 5 * 14);
  md_engine_destroy(e);
}
END_TEST

START_TEST(a_state_that_is_only_looked_at_does_not_go_back) {
  start_log();
  md_engine *e = small(MD_BACKEND_CUDA);
  fill(e, 1);
  step(e);
  int to = num_calls("cuMemcpyHtoD"), from = num_calls("cuMemcpyDtoH");
  const float *w = md_engine_view_state(e, "w", NULL);
  ck_assert_ptr_eq(md_engine_view_state(e, "w", NULL), w);
  ck_assert_int_eq(num_calls("cuMemcpyDtoH"), from + 1);  // asked twice, copied once
  float before = w[7];
  step(e);
  ck_assert_int_eq(num_calls("cuMemcpyHtoD"), to + 1);
  ck_assert_float_ne(((const float *)md_engine_view_state(e, "w", NULL))[7], before);
  md_engine_destroy(e);
}
END_TEST

START_TEST(what_is_written_to_a_state_counts_from_the_next_step) {
  md_engine *e[] = {small(MD_BACKEND_CPU), small(MD_BACKEND_CUDA)};
  for (int i = 0; i < 2; i++) {
    fill(e[i], 1);
    for (int k = 0; k < 3; k++) step(e[i]);
    float *n = md_engine_state(e[i], "n", NULL);
    for (int k = 0; k < 130; k++) n[k] = 1000;
    step(e[i]);
  }
  const float *a = md_engine_view_state(e[0], "n", NULL),
              *b = md_engine_view_state(e[1], "n", NULL);
  ck_assert_mem_eq(a, b, 130 * sizeof *a);
  ck_assert_float_gt(b[0], 900);
  md_engine_destroy(e[0]);
  md_engine_destroy(e[1]);
}
END_TEST

static void fill_while_steps_run(const char *order) {
  setenv("MODIST_STAND_IN_ORDER", order, 1);
  md_engine *e[] = {small(MD_BACKEND_CPU), small(MD_BACKEND_CUDA)};
  double m[2][130];
  md_diags *d = md_diags_create();
  for (int send = 0; send < 2; send++) {
    for (int i = 0; i < 2; i++) fill(e[i], 1);
    for (int k = 2; k < 6; k++) {
      for (int i = 0; i < 2; i++) {
        ck_assert(md_engine_start(e[i], d));
        fill(e[i], (uint64_t)k);
        if (send) ck_assert(md_engine_send(e[i], d));
        ck_assert(md_engine_finish(e[i], d));
        ck_assert(md_engine_result(e[i], "m", m[i], 130));
      }
      for (int j = 0; j < 130; j++)
        ck_assert_double_eq_tol(m[0][j], m[1][j], md_tolerance(MD_F32, 20, 1 + fabs(m[0][j])));
    }
  }
  md_diags_destroy(d);
  md_engine_destroy(e[0]);
  md_engine_destroy(e[1]);
}

// Work is done only when somebody waits, so an input that is filled too early would be seen.
START_TEST(inputs_may_be_filled_while_a_step_runs) { fill_while_steps_run("late"); }
END_TEST

// The next inputs arrive before the step begins unless those before must have been taken.
START_TEST(inputs_may_arrive_while_a_step_runs) { fill_while_steps_run("others-first"); }
END_TEST

START_TEST(every_region_is_verified_and_times_are_kept) {
  md_engine *e =
      engine_of(md_parse_graph("step.mdg", graph_text, strlen(graph_text), NULL), MD_BACKEND_CUDA,
                (md_engine_options){.time = true, .check_nan = true, .verifies = true});
  md_diags *d = md_diags_create();
  md_verify_stats s = {0};
  for (int i = 0; i < 3; i++) {
    fill(e, (uint64_t)i);
    ck_assert_msg(md_engine_verify_step(e, 0, &s, d), "%s", md_diags_text(d));
  }
  ck_assert_int_eq(s.regions, 3 * md_engine_graph(e)->num_regions);
  int first, num = md_exec_launches(md_engine_exec(e), &first);
  for (int i = first; i < first + num; i++) {
    ck_assert_int_eq(md_exec_times(md_engine_exec(e))[i].calls, 3);
    ck_assert_int_gt(md_exec_times(md_engine_exec(e))[i].min_ns, 0);
  }
  float *g = md_engine_input(e, "g", NULL);
  g[5] = NAN;
  ck_assert(!md_engine_step(e, d));
  ck_assert_msg(strstr(md_diags_text(d), "input 'g' is not finite"), "%s", md_diags_text(d));
  md_diags_clear(d);
  fill(e, 1);
  ((float *)md_engine_input(e, "x", NULL))[3] = 1e9F;  // exp of it is infinite
  ck_assert(!md_engine_step(e, d));
  ck_assert_msg(strstr(md_diags_text(d), "not finite: 1 of 650 elements"), "%s", md_diags_text(d));
  md_diags_destroy(d);
  md_engine_destroy(e);
}
END_TEST

START_TEST(a_dead_device_gives_nothing_and_no_checkpoint_is_written) {
  md_engine *e = small(MD_BACKEND_CUDA);
  md_diags *d = md_diags_create();
  fill(e, 1);
  step(e);
  setenv("MODIST_STAND_IN_FAULT", "kernel:1:719", 1);
  ck_assert(!md_engine_step(e, d));
  unsetenv("MODIST_STAND_IN_FAULT");
  ck_assert_msg(strstr(md_diags_text(d), "error[E0645]"), "%s", md_diags_text(d));
  ck_assert_msg(strstr(md_diags_text(d), "CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)"),
                "%s", md_diags_text(d));
  md_diags_clear(d);
  ck_assert_ptr_null(md_engine_state(e, "w", NULL));
  ck_assert_ptr_null(md_engine_view_state(e, "w", NULL));
  double m[130];
  ck_assert(!md_engine_result(e, "m", m, 130));
  ck_assert(!md_engine_is_alive(e, d));
  ck_assert_msg(strstr(md_diags_text(d), "error[E0648]"), "%s", md_diags_text(d));
  md_diags_clear(d);
  ck_assert(!md_engine_step(e, d));
  ck_assert_msg(strstr(md_diags_text(d), "start again from the last checkpoint"), "%s",
                md_diags_text(d));
  md_diags_clear(d);
  md_checkpoint_info info = {.step = 1, .config = ""};
  ck_assert(!md_checkpoint_save(e, "dead.safetensors", &info, d));
  ck_assert_msg(strstr(md_diags_text(d), "error[E0648]"), "%s", md_diags_text(d));
  ck_assert_int_ne(access("dead.safetensors", F_OK), 0);
  md_engine_destroy(e);
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("run on a GPU", a_steady_state_replays_one_graph_and_copies_no_state,
           a_state_that_is_only_looked_at_does_not_go_back,
           what_is_written_to_a_state_counts_from_the_next_step,
           inputs_may_be_filled_while_a_step_runs, inputs_may_arrive_while_a_step_runs,
           every_region_is_verified_and_times_are_kept,
           a_dead_device_gives_nothing_and_no_checkpoint_is_written,
           a_training_step_is_that_of_the_cpu)
