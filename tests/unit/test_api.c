// SPDX-License-Identifier: Apache-2.0
// The public C API, through the shared library and its headers alone.
#include "modist/modist.h"

#include <check.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static modist_graph *fresh(void) {
  modist_graph *g;
  ck_assert_int_eq(modist_graph_create("g", &g), MD_OK);
  return g;
}

// The graph has failed with a text that holds both.
static void expect_failed(modist_graph *g, const char *code, const char *text) {
  ck_assert_int_eq(modist_graph_status(g), MD_ERR_USAGE);
  ck_assert_msg(strstr(modist_graph_error(g), code) && strstr(modist_graph_error(g), text),
                "wanted %s and '%s' in: %s", code, text, modist_graph_error(g));
  // Sticky: everything accepts what failed, and nothing can be compiled.
  modist_val x = modist_op(g, "relu", &(modist_val){MODIST_NONE}, 1, NULL);
  ck_assert_uint_eq(x, MODIST_NONE);
  modist_return(g, "y", x);
  modist_program *p = (void *)g;
  ck_assert_int_eq(modist_compile(g, NULL, &p), MD_ERR_USAGE);
  ck_assert_ptr_null(p);
  modist_graph_destroy(g);
}

static modist_val matrix(modist_graph *g, const char *name) {
  return modist_input(g, name, MD_F32, 2, (int64_t[]){4, 8});
}

START_TEST(versions) {
  ck_assert_int_eq(modist_abi_version(), MODIST_ABI_VERSION);
  ck_assert_str_eq(modist_version(), MODIST_VERSION);
}
END_TEST

START_TEST(wrong_ops_are_told) {
  modist_graph *g = fresh();
  modist_val x = matrix(g, "x");
  ck_assert_uint_eq(modist_op(g, "rellu", &x, 1, NULL), MODIST_NONE);
  expect_failed(g, "E0301", "did you mean 'relu'?");

  g = fresh();
  modist_op(g, NULL, NULL, 0, NULL);
  expect_failed(g, "E0301", "modistc ops");

  g = fresh();
  modist_op(g, "state", NULL, 0, NULL);
  expect_failed(g, "E0311", "use modist_state");

  g = fresh();
  x = matrix(g, "x");
  modist_op(g, "add", &x, 1, NULL);
  expect_failed(g, "E0302", "add");

  g = fresh();
  modist_op(g, "concat", NULL, -1, NULL);
  expect_failed(g, "E0302", "-1 operands");

  g = fresh();
  modist_op(g, "relu", &(modist_val){77}, 1, NULL);
  expect_failed(g, "E0310", "77");
}
END_TEST

START_TEST(wrong_attributes_are_told) {
  modist_graph *g = fresh();
  modist_val x = matrix(g, "x");
  modist_op(g, "affine", &x, 1, "scal=2");
  expect_failed(g, "E0107", "did you mean scale?");

  g = fresh();
  x = matrix(g, "x");
  modist_op(g, "affine", &x, 1, "scale=two");
  expect_failed(g, "E01", "scale");

  g = fresh();
  x = matrix(g, "x");
  modist_op(g, "affine", &x, 1, "scale=2} {");
  expect_failed(g, "E0101", "attributes");

  g = fresh();
  modist_state(g, "w", MD_F32, 1, (int64_t[]){3}, "init=nomal");
  expect_failed(g, "E0111", "normal");
}
END_TEST

START_TEST(wrong_types_are_told) {
  modist_graph *g = fresh();
  modist_input(g, "x", (md_dtype)99, 1, (int64_t[]){3});
  expect_failed(g, "E0303", "99");

  g = fresh();
  modist_input(g, "x", MD_F32, 7, (int64_t[]){1, 1, 1, 1, 1, 1, 1});
  expect_failed(g, "E0307", "7 axes");

  g = fresh();
  modist_constant(g, MD_F32, 0, NULL, 1);
  expect_failed(g, "E0307", "0 axes");

  g = fresh();
  modist_input(g, "x", MD_F32, 2, (int64_t[]){4, -1});
  expect_failed(g, "E0307", "x");

  g = fresh();
  matrix(g, "x");
  matrix(g, "x");
  expect_failed(g, "E0308", "already taken");

  g = fresh();
  modist_update(g, matrix(g, "x"), matrix(g, "z"));
  expect_failed(g, "E0309", "input");

  g = fresh();
  modist_val x = matrix(g, "x");
  modist_result(g, x, 1);
  expect_failed(g, "E0310", "no number 1");

  g = fresh();
  modist_result(g, 5, 0);
  expect_failed(g, "E0310", "value 5");
}
END_TEST

START_TEST(without_a_handle_the_thread_knows) {
  modist_graph *g = (void *)1;
  ck_assert_int_eq(modist_graph_create("no name", &g), MD_ERR_USAGE);
  ck_assert_ptr_null(g);
  ck_assert_ptr_nonnull(strstr(modist_last_error(), "'no name' is not a name"));
  ck_assert_int_eq(modist_graph_create(NULL, &g), MD_ERR_USAGE);

  const char *text = "graph @g(%x: f32[2]) {\n  %y = rellu %x\n  return %y\n}\n";
  ck_assert_int_eq(modist_graph_parse(text, strlen(text), &g), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(modist_last_error(), "text:2:"));
  ck_assert_ptr_nonnull(strstr(modist_last_error(), "did you mean"));

  ck_assert_int_eq(modist_step_graph("modist-tinny", NULL, 0, &g), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(modist_last_error(), "did you mean 'modist-tiny'?"));
  ck_assert_int_eq(modist_step_graph(NULL, NULL, 0, &g), MD_ERR_USAGE);
  const char *setting = "batsh=4";
  ck_assert_int_eq(modist_step_graph("modist-tiny", &setting, 1, &g), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(modist_last_error(), "E0203"));

  modist_program *p = (void *)1;
  ck_assert_int_eq(modist_program_load("/nowhere/x.mdx", &p), MD_ERR_DATA);
  ck_assert_ptr_null(p);
  ck_assert_ptr_nonnull(strstr(modist_last_error(), "/nowhere/x.mdx"));
}
END_TEST

static modist_graph *counting(void) {
  modist_graph *g = fresh();
  modist_val x = matrix(g, "x");
  modist_val s = modist_state(g, "s", MD_F32, 2, (int64_t[]){4, 8}, "init=fill, a=10");
  modist_val y = modist_op(g, "add", (modist_val[]){x, s}, 2, NULL);
  modist_update(g, s, y);
  modist_val z = modist_op(g, "affine", &y, 1, "scale=2, shift=1");
  modist_return(g, "z", z);
  ck_assert_int_eq(modist_rank(g, z), 2);
  ck_assert_int_eq(modist_dim(g, z, 1), 8);
  ck_assert_int_eq(modist_dim(g, z, 2), 0);
  ck_assert_int_eq(modist_dim(g, 1000, 0), 0);
  ck_assert_str_eq(modist_graph_error(g), "");
  return g;
}

// x counts up; s and z follow by hand.
static void check_counting(const modist_program *p) {
  modist_run_options o = {.struct_size = sizeof o, .threads = 1};
  modist_run *r;
  ck_assert_msg(modist_run_create(p, &o, &r) == MD_OK, "%s", modist_last_error());
  size_t bytes = 0;
  float *x = modist_run_input(r, "x", &bytes);
  ck_assert_uint_eq(bytes, 4 * 8 * sizeof *x);
  for (int i = 0; i < 32; i++) x[i] = (float)i;
  ck_assert_int_eq(modist_run_step(r), MD_OK);
  ck_assert_int_eq(modist_run_step(r), MD_OK);
  const float *z = modist_run_result(r, "z", &bytes), *s = modist_run_state(r, "s", NULL);
  ck_assert_uint_eq(bytes, 4 * 8 * sizeof *z);
  for (int i = 0; i < 32; i++) {
    ck_assert_float_eq(s[i], 10 + 2 * (float)i);
    ck_assert_float_eq(z[i], 2 * s[i] + 1);
  }
  ck_assert_ptr_null(modist_run_input(r, "nope", &bytes));
  ck_assert_uint_eq(bytes, 0);
  ck_assert_ptr_null(modist_run_state(r, "x", NULL));
  ck_assert_ptr_null(modist_run_result(r, "s", NULL));
  modist_run_destroy(r);
}

START_TEST(a_graph_compiles_and_runs) {
  modist_graph *g = counting();
  char *before = modist_graph_text(g), *after;
  for (int level = 0; level <= 3; level++) {
    modist_compile_options o = {.struct_size = sizeof o, .opt_level_plus1 = level, .no_cache = 1};
    modist_program *p;
    ck_assert_msg(modist_compile(g, &o, &p) == MD_OK, "%s", modist_graph_error(g));
    ck_assert_int_gt(modist_program_launches(p), 0);
    ck_assert_ptr_nonnull(modist_program_launch_name(p, 0));
    ck_assert_ptr_null(modist_program_launch_name(p, modist_program_launches(p)));
    ck_assert_int_ge(modist_program_arena_bytes(p), 0);
    check_counting(p);
    modist_program_destroy(p);
  }
  after = modist_graph_text(g);
  ck_assert_str_eq(before, after);  // compiling takes a copy
  modist_free(before);
  modist_free(after);
  modist_graph_destroy(g);
}
END_TEST

START_TEST(a_text_is_a_graph) {
  modist_graph *g = counting(), *again;
  char *text = modist_graph_text(g), *second;
  ck_assert_msg(modist_graph_parse(text, strlen(text), &again) == MD_OK, "%s", modist_last_error());
  second = modist_graph_text(again);
  ck_assert_str_eq(text, second);
  modist_free(text);
  modist_free(second);
  modist_graph_destroy(g);
  modist_graph_destroy(again);
}
END_TEST

START_TEST(a_program_is_saved_and_loaded) {
  char folder[] = "/tmp/modist_api_XXXXXX", path[64];
  ck_assert_ptr_nonnull(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/x.mdx", folder);
  modist_graph *g = counting();
  modist_program *p, *loaded;
  ck_assert_int_eq(modist_compile(g, NULL, &p), MD_OK);
  ck_assert_int_ne(modist_program_save(p, "/nowhere/at/all.mdx"), MD_OK);
  ck_assert_ptr_nonnull(strstr(modist_program_error(p), "/nowhere/at/all.mdx"));
  ck_assert_msg(modist_program_save(p, path) == MD_OK, "%s", modist_program_error(p));
  ck_assert_str_eq(modist_program_error(p), "");
  check_counting(p);
  ck_assert_msg(modist_program_load(path, &loaded) == MD_OK, "%s", modist_last_error());
  check_counting(loaded);
  ck_assert_int_eq(modist_program_save(loaded, path), MD_OK);
  modist_program_destroy(loaded);
  ck_assert_int_eq(modist_program_load(path, &loaded), MD_OK);
  check_counting(loaded);
  modist_program_destroy(loaded);
  modist_program_destroy(p);
  modist_graph_destroy(g);
  unlink(path);
  rmdir(folder);
}
END_TEST

START_TEST(options_are_checked) {
  modist_graph *g = counting();
  modist_program *p;
  modist_compile_options o = {0};
  ck_assert_int_eq(modist_compile(g, &o, &p), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(
      strstr(modist_graph_error(g), "[E0407]: modist_compile_options: struct_size is 0"));
  ck_assert_int_eq(modist_graph_status(g), MD_OK);  // the declaring was fine

  o = (modist_compile_options){.struct_size = sizeof o, .opt_level_plus1 = 4};
  ck_assert_int_eq(modist_compile(g, &o, &p), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(modist_graph_error(g), "opt_level_plus1 is 4"));
  o = (modist_compile_options){.struct_size = sizeof o, .precision = MD_I32};
  ck_assert_int_eq(modist_compile(g, &o, &p), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(modist_graph_error(g), "precision"));
  o = (modist_compile_options){.struct_size = sizeof o, .cpu = "pentium"};
  ck_assert_int_eq(modist_compile(g, &o, &p), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(modist_graph_error(g), "E0420"));

  // A program of tomorrow: fine as long as it asks for nothing that is unknown here.
  struct {
    modist_compile_options now;
    int64_t tomorrow;
  } later = {.now.struct_size = sizeof later};
  ck_assert_int_eq(modist_compile(g, &later.now, &p), MD_OK);
  ck_assert_str_eq(modist_graph_error(g), "");
  modist_program_destroy(p);
  later.tomorrow = 1;
  ck_assert_int_eq(modist_compile(g, &later.now, &p), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(modist_graph_error(g), "newer modist"));
  // And one of yesterday, which knew only the first setting.
  o = (modist_compile_options){.struct_size = sizeof(size_t) + sizeof(int), .cpu = "pentium"};
  ck_assert_int_eq(modist_compile(g, &o, &p), MD_OK);

  modist_run_options bad = {.struct_size = sizeof bad, .threads = -3};
  modist_run *r = (void *)1;
  ck_assert_int_eq(modist_run_create(p, &bad, &r), MD_ERR_USAGE);
  ck_assert_ptr_null(r);
  ck_assert_ptr_nonnull(strstr(modist_last_error(), "threads is -3"));
  modist_program_destroy(p);
  modist_graph_destroy(g);
}
END_TEST

START_TEST(a_nan_is_named) {
  modist_graph *g = fresh();
  modist_val x = matrix(g, "x"), y = modist_op(g, "log", &x, 1, NULL);
  modist_return(g, "y", y);
  modist_program *p;
  ck_assert_int_eq(modist_compile(g, NULL, &p), MD_OK);
  modist_run *r;
  modist_run_options o = {.struct_size = sizeof o, .check_nan = 1};
  ck_assert_int_eq(modist_run_create(p, &o, &r), MD_OK);
  float *in = modist_run_input(r, "x", NULL);
  for (int i = 0; i < 32; i++) in[i] = 1;
  ck_assert_int_eq(modist_run_step(r), MD_OK);
  ck_assert_str_eq(modist_run_error(r), "");
  in[7] = -1;
  ck_assert_int_eq(modist_run_step(r), MD_ERR_NUMERIC);
  ck_assert_ptr_nonnull(strstr(modist_run_error(r), "E0710"));
  in[7] = 1;
  ck_assert_int_eq(modist_run_step(r), MD_OK);
  ck_assert_str_eq(modist_run_error(r), "");
  modist_run_destroy(r);
  modist_program_destroy(p);
  modist_graph_destroy(g);
}
END_TEST

START_TEST(the_step_is_at_hand) {
  const char *settings[] = {"batch=4", "bank.size=16"};
  modist_graph *g;
  ck_assert_msg(modist_step_graph("modist-tiny", settings, 2, &g) == MD_OK, "%s",
                modist_last_error());
  modist_program *p;
  ck_assert_msg(modist_compile(g, NULL, &p) == MD_OK, "%s", modist_graph_error(g));
  modist_run *r;
  ck_assert_int_eq(modist_run_create(p, NULL, &r), MD_OK);
  size_t bytes;
  ck_assert_ptr_nonnull(modist_run_input(r, "ids", &bytes));
  ck_assert_uint_eq(bytes, 4 * sizeof(int32_t));
  *(float *)modist_run_input(r, "lr", NULL) = 0.01F;
  ck_assert_int_eq(modist_run_step(r), MD_OK);
  ck_assert(isfinite(*(const float *)modist_run_result(r, "loss", NULL)));
  modist_run_destroy(r);
  modist_program_destroy(p);
  modist_graph_destroy(g);
}
END_TEST

// Declares, compiles and runs; another thread does the same and fails with a text of its own.
static void *work(void *fails) {
  for (int i = 0; i < 5; i++) {
    modist_graph *g = counting();
    modist_program *p;
    ck_assert_int_eq(modist_compile(g, NULL, &p), MD_OK);
    check_counting(p);
    modist_program_destroy(p);
    modist_graph_destroy(g);
    if (fails) ck_assert_int_eq(modist_graph_create("no name", &g), MD_ERR_USAGE);
  }
  ck_assert_int_eq(strlen(modist_last_error()) > 0, fails != NULL);
  return NULL;
}

START_TEST(threads_do_not_know_of_each_other) {
  pthread_t a, b;
  int fails = 1;
  ck_assert_int_eq(pthread_create(&a, NULL, work, NULL), 0);
  ck_assert_int_eq(pthread_create(&b, NULL, work, &fails), 0);
  pthread_join(a, NULL);
  pthread_join(b, NULL);
}
END_TEST

int main(void) {
  TCase *c = tcase_create("api");
  tcase_set_timeout(c, 300);
  tcase_add_test(c, versions);
  tcase_add_test(c, wrong_ops_are_told);
  tcase_add_test(c, wrong_attributes_are_told);
  tcase_add_test(c, wrong_types_are_told);
  tcase_add_test(c, without_a_handle_the_thread_knows);
  tcase_add_test(c, a_graph_compiles_and_runs);
  tcase_add_test(c, a_text_is_a_graph);
  tcase_add_test(c, a_program_is_saved_and_loaded);
  tcase_add_test(c, options_are_checked);
  tcase_add_test(c, a_nan_is_named);
  tcase_add_test(c, the_step_is_at_hand);
  tcase_add_test(c, threads_do_not_know_of_each_other);
  Suite *s = suite_create("api");
  suite_add_tcase(s, c);
  SRunner *run = srunner_create(s);
  srunner_run_all(run, CK_NORMAL);
  int failed = srunner_ntests_failed(run);
  srunner_free(run);
  return failed != 0;
}
