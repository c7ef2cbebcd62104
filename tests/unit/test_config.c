// SPDX-License-Identifier: Apache-2.0
// Settings: where values come from, what is refused and how, and the learning rates they lead to.
// Whole messages are in tests/errors_cli; here are the rules.
#include "runtime/train/train.h"

#include "tests/unit/suite.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static char folder[32];

static const char *write_file(const char *name, const char *text) {
  static char path[4][64];
  static int at;
  if (!*folder) {
    strcpy(folder, "/tmp/modist_config_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
  }
  char *p = path[at++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", folder, name);
  FILE *f = fopen(p, "w");
  ck_assert_ptr_nonnull(f);
  fputs(text, f);
  fclose(f);
  return p;
}

static void remove_files(void) {
  char command[64];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  if (*folder) ck_assert_int_eq(system(command), 0);
  *folder = 0;
}

static md_config *load(const char *path, char *const *override, int num) {
  md_diags *d = md_diags_create();
  md_config *c = md_config_load(path, override, num, d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  return c;
}

// The settings of `text` are refused with `code`, and the message has `words`.
static void refuse(const char *text, md_code code, int line, const char *words) {
  md_diags *d = md_diags_create();
  md_config *c = md_config_load(write_file("bad.yaml", text), NULL, 0, d);
  md_step s;
  if (c) ck_assert(!md_train_step(c, &s, d));
  const char *told = md_diags_text(d);
  char place[32];
  snprintf(place, sizeof place, "bad.yaml:%d:", line);
  ck_assert_msg(strstr(told, md_codes[code].name) != NULL, "%s", told);
  ck_assert_msg(strstr(told, words) != NULL, "%s", told);
  if (line) ck_assert_msg(strstr(told, place) != NULL && strstr(told, "^") != NULL, "%s", told);
  ck_assert_int_eq(md_diags_errors(d), 1);
  ck_assert_int_eq(md_diags_status(d), MD_ERR_USAGE);
  md_config_destroy(c);
  md_diags_destroy(d);
  remove_files();
}

START_TEST(later_sources_win) {
  write_file("base.yaml", "opt: {lr: 1, wd: 2}\nbatch: 16\n");
  const char *top = write_file("top.yaml", "_base_: base.yaml\nopt:\n  lr: 3\n");
  md_config *c = load(top, (char *[]){"batch=32"}, 1);
  ck_assert_double_eq(md_config_float(c, "opt.lr"), 3);
  ck_assert_double_eq(md_config_float(c, "opt.wd"), 2);
  ck_assert_int_eq(md_config_int(c, "batch"), 32);
  ck_assert_int_eq(md_config_int(c, "data.queue"), 2);  // the schema's
  ck_assert(md_config_given(c, "opt.wd") && !md_config_given(c, "data.queue"));
  ck_assert_int_eq(md_config_place(c, "opt.lr").line, 3);
  md_text t = {0};
  md_config_print(c, true, &t);
  ck_assert_ptr_nonnull(strstr(t.s, "base.yaml:1\n"));
  ck_assert_ptr_nonnull(strstr(t.s, "lr: 3  # "));
  ck_assert_ptr_nonnull(strstr(t.s, "  queue: 2  # default\n"));
  md_text_free(&t);
  md_config_destroy(c);
  remove_files();
}
END_TEST

START_TEST(values_stay_text_until_the_schema_reads_them) {
  const char *p = write_file("t.yaml", "data: {train: no}\nopt: {lr: 1e-4}\nrun: {dir: 'a: b'}\n");
  md_config *c = load(p, NULL, 0);
  ck_assert_str_eq(md_config_text(c, "data.train"), "no");
  ck_assert_double_eq(md_config_float(c, "opt.lr"), 1e-4);
  ck_assert_str_eq(md_config_text(c, "run.dir"), "a: b");
  md_config_destroy(c);
  remove_files();
}
END_TEST

START_TEST(what_is_not_given_is_as_the_model_says) {
  md_config *c = load(NULL, (char *[]){"model.name=modist-mini"}, 1);
  ck_assert_int_eq(md_config_int(c, "batch"), 48);
  ck_assert_str_eq(md_config_text(c, "opt.name"), "adamw");
  ck_assert_str_eq(md_config_text(c, "loss.cross_neg"), "key");
  ck_assert(!md_config_given(c, "batch"));
  md_config_destroy(c);
}
END_TEST

// What is printed is what is used: it reads back to the same step.
START_TEST(printed_settings_read_back_to_the_same_step) {
  for (int i = 0; i < md_num_models; i++) {
    char name[64];
    snprintf(name, sizeof name, "model.name=%s", md_models[i].name);
    md_config *c = load(NULL, (char *[]){name, "run.dir=it''s a \\ \"name\""}, 2);
    md_text first = {0}, second = {0};
    md_config_print(c, false, &first);
    md_config *again = load(write_file("again.yaml", first.s), NULL, 0);
    md_config_print(again, false, &second);
    ck_assert_str_eq(first.s, second.s);
    md_diags *d = md_diags_create();
    md_step a, b;
    ck_assert(md_train_step(c, &a, d) && md_train_step(again, &b, d));
    md_graph *ga = md_step_graph(&a, d), *gb = md_step_graph(&b, d);
    ck_assert_ptr_nonnull(ga);
    ck_assert_ptr_nonnull(gb);
    md_digest da = md_graph_digest(ga), db = md_graph_digest(gb);
    ck_assert_msg(da.lo == db.lo && da.hi == db.hi, "%s", name);
    md_graph_destroy(ga);
    md_graph_destroy(gb);
    md_diags_destroy(d);
    md_text_free(&first);
    md_text_free(&second);
    md_config_destroy(c);
    md_config_destroy(again);
  }
  remove_files();
}
END_TEST

START_TEST(every_preset_of_the_schema_is_valid) {
  md_config *c = load(NULL, NULL, 0);
  md_text t = {0};
  md_config_print(c, false, &t);
  md_config_destroy(load(write_file("all.yaml", t.s), NULL, 0));
  md_text_free(&t);
  md_config_destroy(c);
  remove_files();
}
END_TEST

START_TEST(mistakes_in_the_text_are_shown_where_they_are) {
  refuse("opt: [1\n", E0201, 2, "closing bracket");
  refuse("batch: 1\nbatch: 2\n", E0201, 2, "'batch' stands twice");
  refuse("opt:\n  lr: 1\n  lr: 2\n", E0201, 3, "'opt.lr' stands twice");
  refuse("opt:\n\tlr: 1\n", E0201, 2, "tab");
  refuse("batch: \xff\n", E0201, 0, "not UTF-8");
  refuse("- a\n", E0202, 0, "mapping of keys to values");
  refuse("batch: 4\n---\nbatch: 5\n", E0202, 0, "one document");
  refuse("_base_: {a: 1}\n", E0202, 0, "_base_ takes a file");
}
END_TEST

START_TEST(unknown_keys_bring_the_nearest_one) {
  refuse("opt:\n  lrr: 1\n", E0203, 2, "did you mean 'opt.lr'");
  refuse("tau: 1\n", E0203, 1, "did you mean 'loss.tau'");
  refuse("opt: 3\n", E0203, 1, "unknown key 'opt'");
  refuse("nothing: {like: this}\n", E0203, 1, "config schema");
}
END_TEST

START_TEST(values_have_a_type_and_bounds) {
  refuse("batch: many\n", E0204, 1, "whole number");
  refuse("batch: 2.5\n", E0204, 1, "whole number");
  refuse("batch: 0\n", E0204, 1, "between 1 and 65536");
  refuse("opt: {lr: nan}\n", E0204, 1, "must be a number");
  refuse("opt: {lr: -0.1}\n", E0204, 1, "between 0 and 1000");
  refuse("opt: {nesterov: yes}\n", E0204, 1, "true or false");
  refuse("opt: {name: lion}\n", E0204, 1, "sgd,adamw");
  refuse("data: {train: \"a\\nb\"}\n", E0204, 1, "control character");
  refuse("data: {train: 'a''''b'}\n", E0204, 1, "side by side");
  refuse("opt: {lr: [1]}\n", E0204, 1, "single value");
  refuse("opt:\n  lr:\n    x: 1\n", E0204, 2, "single value");
  refuse("batch:\n", E0204, 1, "whole number");
  refuse("model: {name: modist-tinny}\n", E0204, 1, "did you mean 'modist-tiny'");
  refuse("model: {visual: r3d51}\n", E0204, 1, "did you mean 'r3d50'");
}
END_TEST

START_TEST(a_file_is_not_its_own_base) {
  refuse("_base_: bad.yaml\n", E0205, 1, "its own _base_");
  write_file("other.yaml", "_base_: bad.yaml\n");
  refuse("_base_: other.yaml\n", E0205, 0, "its own _base_");
}
END_TEST

START_TEST(a_base_that_is_missing_says_who_names_it) {
  refuse("_base_: [gone.yaml]\n", E0206, 1, "it is named here");
}
END_TEST

START_TEST(contradictions_are_told) {
  refuse("batch: 8\nbank: {size: 4}\n", E0207, 2, "cannot take the 8 keys");
  refuse("batch: 6\nbn: {groups: 4}\n", E0207, 2, "4 equal groups");
  refuse("loss: {w_v: 0, w_m: 0, w_mv: 0}\n", E0207, 1, "nothing would be trained");
  refuse("model: {motion: frames2d}\n", E0207, 1, "they are compared");
  refuse("epochs: 2\nwarmup: 3\n", E0207, 2, "warm-up takes 3 epochs");
}
END_TEST

START_TEST(overrides_are_key_and_value) {
  static const struct {
    char *text;
    const char *told;
  } bad[] = {{"batch", "argument 1:1:1: error[E0202]"},
             {"=4", "argument 1:1:1: error[E0202]"},
             {"btach=4", "argument 1:1:1: error[E0203]"},
             {"batch=x", "argument 1:1:7: error[E0204]"}};
  for (int i = 0; i < MD_COUNT(bad); i++) {
    md_diags *d = md_diags_create();
    ck_assert_ptr_null(md_config_load(NULL, &(char *){bad[i].text}, 1, d));
    ck_assert_msg(strstr(md_diags_text(d), bad[i].told) != NULL, "%s", md_diags_text(d));
    md_diags_destroy(d);
  }
}
END_TEST

static void near(double x, double y) { ck_assert_double_eq_tol(x, y, 1e-12); }

// Spec §6: 0.8 over 600 epochs with 35 of warm-up from 0.001; the warm-up ends on the cosine.
START_TEST(learning_rate_of_the_paper) {
  md_schedule s = {.base = 0.8, .epochs = 600, .warmup = 35, .warm0 = 0.001};
  double at35 = 0.4 * (1 + cos(M_PI * 35 / 600));
  near(md_lr_at(&s, 0), 0.001);
  near(md_lr_at(&s, 17.5), (0.001 + at35) / 2);
  near(md_lr_at(&s, 35), at35);
  near(md_lr_at(&s, 35 - 1e-13), at35);
  near(md_lr_at(&s, 300), 0.4);
  near(md_lr_at(&s, 450), 0.4 * (1 - sqrt(0.5)));
  near(md_lr_at(&s, 600), 0);
}
END_TEST

START_TEST(learning_rate_without_warm_up_and_constant) {
  md_schedule cosine = {.base = 0.1, .epochs = 10};
  near(md_lr_at(&cosine, 0), 0.1);
  near(md_lr_at(&cosine, 5), 0.05);
  md_schedule flat = {.constant = true, .base = 0.1, .epochs = 10, .warmup = 2, .warm0 = 0.02};
  near(md_lr_at(&flat, 0), 0.02);
  near(md_lr_at(&flat, 1), 0.06);
  near(md_lr_at(&flat, 2), 0.1);
  near(md_lr_at(&flat, 9.9), 0.1);
}
END_TEST

// 50 epochs of 1.1 steps are 55, however they round.
START_TEST(a_run_has_whole_steps) {
  char *settings[] = {"epochs=50"};
  md_diags *d = md_diags_create();
  md_config *c = md_config_load(NULL, settings, 1, d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  ck_assert_int_eq(md_train_steps(c, &(md_train_options){.max_steps = 0}, 11, 10), 55);
  ck_assert_int_eq(md_train_steps(c, &(md_train_options){.max_steps = 0}, 11, 100), 6);
  ck_assert_int_eq(md_train_steps(c, &(md_train_options){.max_steps = 7}, 11, 10), 7);
  ck_assert_int_eq(md_train_steps(c, &(md_train_options){.max_steps = 70}, 11, 10), 55);
  md_config_destroy(c);
  md_diags_destroy(d);
}
END_TEST

START_TEST(chance_counts_neither_empty_rows_nor_the_own_video) {
  const int32_t bank[] = {-2, -1, 0, 1, 1, 2, -2, 7};
  double masked;
  near(md_chance(bank, 8, (int32_t[]){5}, 1, &masked), log(7));  // six filled, none its own
  near(md_chance(bank, 8, (int32_t[]){1}, 1, &masked), log(5));  // two are its own
  near(md_chance(bank, 8, (int32_t[]){1, 5}, 2, &masked), (log(5) + log(7)) / 2);
  near(masked, (4 + 2) / 2.0);  // empty ones count as masked
  near(md_chance((int32_t[]){-2, -2}, 2, (int32_t[]){0}, 1, &masked), 0);
}
END_TEST

SUITE_MAIN("config", later_sources_win, values_stay_text_until_the_schema_reads_them,
           what_is_not_given_is_as_the_model_says, printed_settings_read_back_to_the_same_step,
           every_preset_of_the_schema_is_valid, mistakes_in_the_text_are_shown_where_they_are,
           unknown_keys_bring_the_nearest_one, values_have_a_type_and_bounds,
           a_file_is_not_its_own_base, a_base_that_is_missing_says_who_names_it,
           contradictions_are_told, overrides_are_key_and_value, learning_rate_of_the_paper,
           learning_rate_without_warm_up_and_constant, a_run_has_whole_steps,
           chance_counts_neither_empty_rows_nor_the_own_video)
