// SPDX-License-Identifier: Apache-2.0
// The judge of golden sets: a small set made here passes, and every way to spoil it is seen.
#include "base/file.h"
#include "modistc/verify_golden.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static const char *in_dir(const char *name) {
  static char path[128];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  return path;
}

static void make_dir(void) {
  snprintf(dir, sizeof dir, "/tmp/modist-golden-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void remove_dir(void) {
  unlink(in_dir("manifest.json"));
  unlink(in_dir("a.safetensors"));
  rmdir(dir);
}

#define ROW(role, kind, more)                                      \
  "{\"key\":\"r/" role "\",\"role\":\"" role "\",\"kind\":\"" kind \
  "\",\"dtype\":\"float32\",\"shape\":[1,1,1,1,4]" more "}"
#define INPUTS ROW("x", "input", "") "," ROW("gy", "input", "")
#define TOLERANCE ",\"rtol\":1e-5,\"atol\":1e-5,\"check\":\"elem\""
#define OUTPUTS ROW("y", "output", ",\"exact\":true") "," ROW("dx", "output", TOLERANCE)
#define CASE(op, config, rows)                                                      \
  "{\"name\":\"r\",\"op\":\"" op "\",\"file\":\"a.safetensors\",\"config\":" config \
  ",\"tensors\":[" rows "]}"
#define SET(cases) "{\"format\":\"modist-golden-1\",\"cases\":[" cases "]}"

// Writes the set with y[2] = `third` and judges it on the interpreter.
static md_status judge_as(bool json, const char *manifest, float third, const regex_t *only,
                          char **said) {
  float x[] = {-1, 2, 3, -4}, gy[] = {5, 6, 7, 8}, y[] = {0, 2, third, 0};
  float dx[] = {0, 6.00001f, 7, 0}, clip[12] = {0};
  md_st_tensor t[] = {{"r/x", MD_F32, 5, {1, 1, 1, 1, 4}, x, sizeof x},
                      {"r/gy", MD_F32, 5, {1, 1, 1, 1, 4}, gy, sizeof gy},
                      {"r/y", MD_F32, 5, {1, 1, 1, 1, 4}, y, sizeof y},
                      {"r/dx", MD_F32, 5, {1, 1, 1, 1, 4}, dx, sizeof dx},
                      {"r/z", MD_F32, 5, {1, 1, 1, 1, 4}, dx, sizeof dx},
                      {"r/w", MD_F32, 5, {1, 1, 1, 1, 4}, dx, sizeof dx},
                      {"r/clip", MD_F32, 4, {3, 1, 2, 2}, clip, sizeof clip}};
  ck_assert(md_safetensors_write(in_dir("a.safetensors"), t, MD_COUNT(t), NULL, 0, NULL));
  ck_assert(md_file_save(in_dir("manifest.json"), manifest, strlen(manifest), NULL));
  size_t len;
  FILE *out = open_memstream(said, &len);
  md_verify_options o = {
      .dir = dir, .only = only, .backend = &md_verify_interp, .out = out, .json = json};
  md_diags *d = md_diags_create();
  md_status s = md_verify_golden(&o, d);
  fputs(md_diags_text(d), out);
  md_diags_destroy(d);
  fclose(out);
  return s;
}

static md_status judge(const char *manifest, float third, const regex_t *only, char **said) {
  return judge_as(false, manifest, third, only, said);
}

typedef struct expectation {
  const char *manifest;
  float third;
  md_status status;
  const char *says;
} expectation;

static void expect(const expectation *e) {
  char *said;
  md_status s = judge(e->manifest, e->third, NULL, &said);
  ck_assert_msg(s == e->status && strstr(said, e->says), "status %d, not %d:\n%s", (int)s,
                (int)e->status, said);
  free(said);
}

START_TEST(a_right_set_passes) {
  expect(&(expectation){SET(CASE("relu", "{}", INPUTS "," OUTPUTS)), 3, MD_OK,
                        "1 passed, 0 failed, 0 skipped"});
}
END_TEST

START_TEST(json_names_its_schema) {
  char *said;
  ck_assert_int_eq(judge_as(true, SET(CASE("relu", "{}", INPUTS "," OUTPUTS)), 3, NULL, &said),
                   MD_OK);
  static const char begin[] = "{\n  \"schema\": \"modist.verify/1\",\n";
  ck_assert_msg(strncmp(said, begin, strlen(begin)) == 0, "%s", said);
  free(said);
}
END_TEST

START_TEST(a_spoilt_set_does_not) {
  static const expectation bad[] = {
      // One unit in the last place of an exact row, a wrong value, NaN.
      {SET(CASE("relu", "{}", INPUTS "," OUTPUTS)), 3.0000002f, MD_ERR_MISMATCH,
       "FAIL y: element 2"},
      {SET(CASE("relu", "{}", INPUTS "," OUTPUTS)), -3, MD_ERR_MISMATCH, "0 passed, 1 failed"},
      {SET(CASE("relu", "{}", INPUTS "," OUTPUTS)), NAN, MD_ERR_MISMATCH, "0 passed, 1 failed"},
      // The gradient is 1e-5 away: outside of a tighter tolerance.
      {SET(CASE("relu", "{}",
                INPUTS "," ROW("dx", "output", ",\"rtol\":0,\"atol\":1e-6,\"check\":\"elem\""))),
       3, MD_ERR_MISMATCH, "FAIL dx: element 1"},
      {SET(CASE("relu", "{}", INPUTS "," ROW("dx", "output", ",\"l2_tol\":1e-7,\"check\":\"l2\""))),
       3, MD_ERR_MISMATCH, "relative L2"},
      // What is not understood is not passed over.
      {SET(CASE("relu", "{\"slope\":0.1}", INPUTS "," OUTPUTS)), 3, MD_ERR_MISMATCH, "slope"},
      {SET(CASE("relu", "{}", INPUTS "," ROW("z", "input", "") "," OUTPUTS)), 3, MD_ERR_MISMATCH,
       "z: the input is not understood"},
      {SET(CASE("relu", "{}", INPUTS "," ROW("z", "output", TOLERANCE))), 3, MD_ERR_MISMATCH,
       "z: the output is not understood"},
      {SET(CASE("relu", "{}", ROW("x", "input", "") "," OUTPUTS)), 3, MD_ERR_MISMATCH,
       "input gy is missing"},
      {SET(CASE("relu", "{}", INPUTS "," ROW("q", "output", TOLERANCE))), 3, MD_ERR_MISMATCH,
       "not complete"},
      // A 0 is not taken for the default of the op.
      {SET(CASE("l2norm", "{\"eps\":0}", INPUTS "," OUTPUTS)), 3, MD_ERR_MISMATCH,
       "attribute eps is not above 0"},
      {SET(CASE("relu", "{}", INPUTS)), 3, MD_ERR_MISMATCH, "no output to judge"},
      // An infinity is not within any tolerance of a number, and later elements do not mend it.
      {SET(CASE("relu", "{}", INPUTS "," ROW("y", "output", TOLERANCE))), INFINITY, MD_ERR_MISMATCH,
       "FAIL y: element 2 is 3, expected inf"},
      {SET(CASE("relu", "{}",
                INPUTS "," ROW("y", "output", ",\"rtol\":9,\"atol\":9,\"check\":\"most\""))),
       3, MD_ERR_MISMATCH, "unknown check"},
      {SET(""), 3, MD_ERR_DATA, ""},
      {"{\"format\":\"modist-golden-2\",\"cases\":[]}", 3, MD_ERR_DATA, ""},
      {"{\"format\":\"modist-golden-1\"}", 3, MD_ERR_DATA, ""},
      {"{", 3, MD_ERR_DATA, ""},
  };
  for (int i = 0; i < MD_COUNT(bad); i++) expect(&bad[i]);
}
END_TEST

#define WEIGHT ROW("w", "input", "")
#define CLIP                                                                            \
  "{\"key\":\"r/"                                                                       \
  "clip\",\"role\":\"clip\",\"kind\":\"input\",\"dtype\":\"float32\",\"shape\":[3,1,2," \
  "2]}"
#define CONV(kernel, bias) \
  "{\"stride\":[1,1,1],\"pad\":[0,0,0],\"kernel\":" kernel ",\"bias\":" bias "}"
#define AUGMENT(op, arg) SET(CASE("augment", "{\"ops\":[[\"" op "\"," arg "]]}", CLIP))
#define SGD(rates)                                                                                 \
  SET(CASE("sgd_momentum",                                                                         \
           "{\"momentum\":0.9,\"weight_decay\":0,\"base_lr\":0.1,\"total_steps\":10,\"warmup\":0," \
           "\"warmup_start\":0,\"lr_per_step\":" rates "}",                                        \
           ""))

START_TEST(cases_that_fail_are_counted_by_one_error) {
  expect(&(expectation){SET(CASE("relu", "{}", INPUTS "," OUTPUTS)), 4, MD_ERR_MISMATCH,
                        "error[E0701]: 1 golden cases fail on interp"});
}
END_TEST

START_TEST(an_attribute_that_is_not_kept_fails) {
  static const expectation bad[] = {
      {SET(CASE("bce_with_logits", "{\"reduction\":\"sum\"}", "")), 3, MD_ERR_MISMATCH,
       "attribute reduction is not 'mean over all elements'"},
      {SET(CASE("conv3d", CONV("[9,9,9]", "false"), WEIGHT)), 3, MD_ERR_MISMATCH,
       "kernel is not the shape of w"},
      {SET(CASE("conv3d", CONV("[1,1,4]", "\"maybe\""), WEIGHT)), 3, MD_ERR_MISMATCH,
       "attribute bias is not true or false"},
      {SET(CASE("conv3d", CONV("[1,1,4]", "true"), WEIGHT)), 3, MD_ERR_MISMATCH,
       "attribute bias is not what the tensors of the case say"},
      {AUGMENT("normalize", "{\"mean\":[0,0,0]}"), 3, MD_ERR_MISMATCH,
       "attribute mean is not understood"},
      {AUGMENT("hflip", "{\"axis\":2}"), 3, MD_ERR_MISMATCH, "attribute axis is not understood"},
      {AUGMENT("hflip", "2"), 3, MD_ERR_MISMATCH, "augmentation 0 is not understood"},
      {AUGMENT("color_jitter", "{\"order\":[],\"factors\":{\"hue\":0.1}}"), 3, MD_ERR_MISMATCH,
       "attribute hue is not understood"},
      {SGD("[0.1,0.1]"), 3, MD_ERR_MISMATCH, "lr_per_step is not what its schedule gives"},
      {SGD("[0.1]"), 3, MD_ERR_MISMATCH, "input p is missing"},
  };
  for (int i = 0; i < MD_COUNT(bad); i++) expect(&bad[i]);
}
END_TEST

START_TEST(a_filter_that_matches_nothing_is_a_mistake) {
  regex_t only;
  char *said;
  ck_assert(regcomp(&only, "zzz", REG_EXTENDED | REG_NOSUB) == 0);
  md_status s = judge(SET(CASE("relu", "{}", INPUTS "," OUTPUTS)), 3, &only, &said);
  ck_assert_msg(s == MD_ERR_USAGE, "status %d:\n%s", (int)s, said);
  free(said);
  regfree(&only);
}
END_TEST

START_TEST(unknown_ops_are_counted_as_skipped) {
  expect(&(expectation){SET(CASE("relu", "{}", INPUTS "," OUTPUTS) "," CASE("raft", "{}", "")), 3,
                        MD_OK, "1 passed, 0 failed, 1 skipped"});
}
END_TEST

int main(void) {
  Suite *suite = suite_create("golden");
  TCase *t = tcase_create("all");
  tcase_add_checked_fixture(t, make_dir, remove_dir);
  tcase_add_test(t, a_right_set_passes);
  tcase_add_test(t, json_names_its_schema);
  tcase_add_test(t, a_spoilt_set_does_not);
  tcase_add_test(t, cases_that_fail_are_counted_by_one_error);
  tcase_add_test(t, an_attribute_that_is_not_kept_fails);
  tcase_add_test(t, a_filter_that_matches_nothing_is_a_mistake);
  tcase_add_test(t, unknown_ops_are_counted_as_skipped);
  suite_add_tcase(suite, t);
  SRunner *r = srunner_create(suite);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed > 0;
}
