// SPDX-License-Identifier: Apache-2.0
// Features, probes and made videos: cases that can be computed by hand, and files there and back.
#include "runtime/train/probe.h"

#include "base/file.h"
#include "tests/tolerance.h"
#include "tests/unit/folder.h"
#include "tests/unit/suite.h"

#include <string.h>
#include <unistd.h>

// Borrows x and label.
static md_features features_of(float *x, int32_t *label, char **path, int64_t num, int64_t width) {
  return (md_features){.num = num, .width = width, .x = x, .label = label, .path = path};
}

static char *read_file(const char *path, size_t *len) {
  md_diags *d = md_diags_create();
  char *data;
  ck_assert_msg(md_file_read(path, 1 << 26, E0801, d, &data, len), "%s", md_diags_text(d));
  md_diags_destroy(d);
  return data;
}

static bool equal_files(const char *a, const char *b) {
  size_t a_len, b_len;
  char *x = read_file(a, &a_len), *y = read_file(b, &b_len);
  bool equal = a_len == b_len && memcmp(x, y, a_len) == 0;
  free(x);
  free(y);
  return equal;
}

// Rosenbrock's valley: minimum 0 at (1, 1), bent, and far from quadratic where it starts.
static double valley(const void *ctx, const double *x, double *g) {
  (void)ctx;
  double a = 1 - x[0], b = x[1] - x[0] * x[0];
  g[0] = -2 * a - 400 * x[0] * b;
  g[1] = 200 * b;
  return a * a + 100 * b * b;
}

START_TEST(lbfgs_finds_the_end_of_a_bent_valley) {
  double x[2] = {-1.2, 1};
  md_minimum m = md_lbfgs(valley, NULL, 2, 1e-8, 500, x);
  ck_assert(m.converged && m.gradient <= 1e-8);
  // The smallest curvature there is 0.4, so x is off by at most gradient / 0.4 in each direction.
  ck_assert_double_eq_tol(x[0], 1, 1e-7);
  ck_assert_double_eq_tol(x[1], 1, 1e-7);
}
END_TEST

START_TEST(lbfgs_says_when_steps_run_out) {
  double x[2] = {-1.2, 1};
  md_minimum m = md_lbfgs(valley, NULL, 2, 1e-8, 3, x);
  ck_assert(!m.converged);
  ck_assert_int_eq(m.steps, 3);
}
END_TEST

START_TEST(gradient_of_the_probe_is_that_of_its_loss) {
  enum { NUM = 7, WIDTH = 3, CLASSES = 4, N = CLASSES * (WIDTH + 1) };
  double x[NUM * WIDTH], w[N], g[N], unused[N];
  int32_t label[NUM];
  uint64_t key = md_hash_key("probe", 1);
  for (int i = 0; i < NUM * WIDTH; i++) x[i] = md_hash_normal(key, (uint64_t)i);
  for (int i = 0; i < N; i++) w[i] = md_hash_normal(key, (uint64_t)(1000 + i));
  for (int i = 0; i < NUM; i++) label[i] = i % CLASSES;
  md_linear_problem p = {
      .x = x, .label = label, .num = NUM, .width = WIDTH, .classes = CLASSES, .l2 = 0.3};
  double loss = md_linear_loss(&p, w, g);
  for (int i = 0; i < N; i++) {
    double kept = w[i];
    w[i] = kept + MD_DIFFERENCE_STEP;
    double up = md_linear_loss(&p, w, unused);
    w[i] = kept - MD_DIFFERENCE_STEP;
    double down = md_linear_loss(&p, w, unused);
    w[i] = kept;
    ck_assert_double_eq_tol(g[i], (up - down) / (2 * MD_DIFFERENCE_STEP),
                            md_difference_tolerance(loss));
  }
}
END_TEST

// Two videos at +-1 (any two values are, once standardised): weights are (-a, a), biases 0, and with
// loss log(1 + e^-2a) + l2 a^2 the derivative is 0 where l2 a (1 + e^2a) = 1.
START_TEST(probe_of_two_points_is_the_one_on_paper) {
  float x[2] = {3, 5};
  int32_t label[2] = {0, 1}, guess[2];
  md_features f = features_of(x, label, NULL, 2, 1);
  double lo = 0, hi = 20;
  for (int i = 0; i < 200; i++) {
    double a = (lo + hi) / 2;
    if (0.01 * a * (1 + exp(2 * a)) < 1) lo = a;
    else hi = a;
  }
  md_linear_probe *p = md_linear_fit(&f, 2, &(md_linear_options){.gradient = 1e-9});
  md_minimum m = md_linear_minimum(p);
  ck_assert(m.converged);
  // Flat at the minimum: the value is off by at most gradient^2 / (2 l2).
  ck_assert_double_eq_tol(m.value, log1p(exp(-2 * lo)) + 0.01 * lo * lo, 1e-12);
  md_linear_guess(p, &f, guess);
  ck_assert(guess[0] == 0 && guess[1] == 1);
  md_linear_destroy(p);
}
END_TEST

START_TEST(separable_classes_are_told_apart) {
  enum { NUM = 60, CLASSES = 3 };
  float x[NUM * 2];
  int32_t label[NUM], guess[NUM];
  uint64_t key = md_hash_key("blobs", 1);
  for (int i = 0; i < NUM; i++) {  // blobs of radius below 1 at distance 10
    label[i] = i % CLASSES;
    x[2 * i] = (float)(10 * (label[i] == 1) + md_hash_unit(key, (uint64_t)(2 * i)));
    x[2 * i + 1] = (float)(10 * (label[i] == 2) + md_hash_unit(key, (uint64_t)(2 * i + 1)));
  }
  md_features f = features_of(x, label, NULL, NUM, 2);
  md_linear_probe *p = md_linear_fit(&f, CLASSES, &(md_linear_options){0});
  md_linear_guess(p, &f, guess);
  md_score s = md_score_of(label, guess, NUM, CLASSES);
  ck_assert(md_linear_minimum(p).converged);
  ck_assert_int_eq(s.hits, NUM);
  ck_assert_double_eq(md_score_error(&s), 0);
  md_score_free(&s);
  md_linear_destroy(p);
}
END_TEST

// With nothing to learn from, only the share of each class is left: the loss is its entropy.
START_TEST(features_that_never_change_leave_the_commonest_class) {
  float x[8] = {2, 2, 2, 2, 2, 2, 2, 2};
  int32_t label[8] = {0, 1, 1, 1, 1, 0, 1, 1}, guess[8];
  md_features f = features_of(x, label, NULL, 8, 1);
  md_linear_probe *p = md_linear_fit(&f, 2, &(md_linear_options){.gradient = 1e-9});
  double entropy = -0.25 * log(0.25) - 0.75 * log(0.75);
  ck_assert_double_eq_tol(md_linear_minimum(p).value, entropy, 1e-12);
  md_linear_guess(p, &f, guess);
  md_score s = md_score_of(label, guess, 8, 2);
  ck_assert_int_eq(s.hits, 6);
  ck_assert_int_eq(s.confusion[1], 2);  // label 0, guess 1
  ck_assert_int_eq(s.confusion[0] + s.confusion[2], 0);
  ck_assert_double_eq_tol(md_score_error(&s), sqrt(0.75 * 0.25 / 8), 1e-15);
  md_score_free(&s);
  md_linear_destroy(p);
}
END_TEST

START_TEST(neighbours_vote_by_number_then_nearness) {
  float train[8] = {1, 0, 0.9F, 0.1F, 0, 2, 0.1F, 3};  // two of class 1 to the right, two of 0 up
  int32_t train_label[4] = {1, 1, 0, 0}, guess[3];
  float test[6] = {5, 1, 1, 9, 0, 0};
  md_features a = features_of(train, train_label, NULL, 4, 2);
  md_features b = features_of(test, NULL, NULL, 3, 2);
  md_knn(&a, &b, 2, guess);
  ck_assert(guess[0] == 1 && guess[1] == 0);
  md_knn(&a, &b, 4, guess);  // two against two: the nearer pair wins, at cosine 0 the smaller label
  ck_assert(guess[0] == 1 && guess[1] == 0 && guess[2] == 0);
}
END_TEST

static void expect(bool ok, md_diags *d, const char *code) {
  ck_assert(!ok);
  ck_assert_msg(strstr(md_diags_text(d), code) != NULL, "%s", md_diags_text(d));
  md_diags_clear(d);
}

START_TEST(sets_that_do_not_fit_are_refused) {
  float x[6] = {0, 1, 2, 3, 4, 5};
  int32_t two[2] = {0, 4}, same[2] = {3, 3}, none[2] = {0, -1};
  char *path[2] = {"a", "b"};
  md_features a = features_of(x, two, path, 2, 3), b = features_of(x, two, path, 2, 2);
  md_features c = features_of(x, same, path, 2, 3), n = features_of(x, none, path, 2, 3);
  md_diags *d = md_diags_create();
  ck_assert_int_eq(md_score_classes(&a, &a, d), 5);
  expect(md_score_classes(&a, &b, d), d, "E0883");
  expect(md_score_classes(&c, &a, d), d, "E0883");
  expect(md_score_classes(&a, &n, d), d, "E0882");
  two[1] = 9999;
  ck_assert_int_eq(md_score_classes(&a, &a, d), 10000);
  two[1] = 10000;  // more classes than a confusion of all pairs has room for
  expect(md_score_classes(&a, &a, d), d, "E0882");
  two[1] = 4;
  x[2] = NAN;
  expect(md_score_classes(&a, &a, d), d, "E0886");
  md_diags_destroy(d);
}
END_TEST

START_TEST(features_come_back_from_their_files) {
  make_empty_folder();
  float x[10] = {0, 1, -2.5F, 1e-30F, 4, 5, 6, 7, 8, 9};
  int32_t label[5] = {0, -1, 7, 2, 3};
  char *path[5] = {"plain.mp4", "with, comma.mp4", "a \"quote\",3", "two\nlines\n.mp4", "\r.mp4"};
  md_features f = features_of(x, label, path, 5, 2);
  md_diags *d = md_diags_create();
  const char *to = in_folder("f");
  ck_assert_msg(md_features_save(&f, to, d), "%s", md_diags_text(d));
  md_features *g = md_features_load(to, d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  ck_assert(g->num == 5 && g->width == 2 && memcmp(g->x, x, sizeof x) == 0);
  for (int i = 0; i < 5; i++) {
    ck_assert_int_eq(g->label[i], label[i]);
    ck_assert_str_eq(g->path[i], path[i]);
  }
  md_features_destroy(g);
  expect(md_features_save(&f, to, d), d, "E0884");
  const char *list = in_folder("f/features.csv");
  ck_assert(md_file_save(list, "path,label,row\na,0,0\n", 21, d));
  expect(md_features_load(to, d) != NULL, d, "E0880");  // four rows have no video
  static const char twice[] = "path,label,row\n\"a\n\n\",0,0\nb\nc,1,1\n";  // no quotes around b\nc
  ck_assert(md_file_save(list, twice, strlen(twice), d));
  expect(md_features_load(to, d) != NULL, d, "features.csv:5: error[E0880]: is not a line");
  ck_assert(md_file_save(list, "path,label,row\na,0,0\nb,x,1\n", 27, d));
  expect(md_features_load(to, d) != NULL, d, "E0880");  // a label that is no number
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

static void make_mini(const char *name, md_mini_split split, int64_t first, int videos) {
  md_diags *d = md_diags_create();
  md_mini_options o = {
      .folder = in_folder(name), .split = split, .first = first, .videos = videos, .size = 36};
  ck_assert_msg(md_mini_make(&o, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

START_TEST(splits_share_no_video_and_a_set_can_be_made_in_parts) {
  make_empty_folder();
  make_mini("all", MD_MINI_TRAIN, 0, 2);
  make_mini("part", MD_MINI_TRAIN, 1, 1);
  make_mini("all", MD_MINI_TUNE, 0, 2);
  ck_assert(equal_files(in_folder("all/train_0001.mkv"), in_folder("part/train_0001.mkv")));
  ck_assert(!equal_files(in_folder("all/train_0001.mkv"), in_folder("all/tune_0001.mkv")));
  md_fault f;
  md_timeline *t = md_timeline_read(in_folder("all/tune_0000.mp4"), &(md_video_limits){0}, &f);
  ck_assert_ptr_nonnull(t);
  ck_assert_int_eq(t->num_frames, MD_MINI_FRAMES);
  md_timeline_destroy(t);
  size_t len;
  char *list = read_file(in_folder("part/train.csv"), &len);
  ck_assert_str_eq(list, "train_0001.mkv,1\n");
  free(list);
  remove_folder();
}
END_TEST

// Frames of one scene at two sizes show the same place: the mean colour is nearly the same.
START_TEST(a_larger_scene_is_the_same_scene) {
  static uint8_t small[36 * 36 * 3], large[72 * 72 * 3];
  md_scene *s = md_scene_create("test", 0, 1, 4, MD_MINI_FRAMES);
  md_scene_frame(s, 10, 36, small);
  md_scene_frame(s, 10, 72, large);
  md_scene_destroy(s);
  double difference = 0;
  for (int y = 0; y < 36; y++)
    for (int x = 0; x < 36; x++)
      for (int c = 0; c < 3; c++) {
        int sum = 0;
        for (int k = 0; k < 4; k++) sum += large[((2 * y + k / 2) * 72 + 2 * x + k % 2) * 3 + c];
        difference += abs(small[(y * 36 + x) * 3 + c] - sum / 4) / (36.0 * 36 * 3);
      }
  // Noise of 0.02 * 255 = 5.1 in one and 2.6 in the mean of four: 0.8 * 5.7 = 4.6 on average, and the
  // outline of the shape, a few percent of the pixels.
  ck_assert_double_lt(difference, 7);
}
END_TEST

static void train_two_steps(const char *videos, const char *dir, md_diags *d) {
  char data[160], run[160];
  snprintf(data, sizeof data, "data.train=%s", videos);
  snprintf(run, sizeof run, "run.dir=%s", dir);
  char *override[] = {data,
                      run,
                      "batch=2",
                      "bank.size=4",
                      "clip.frames=2",
                      "mclip.frames=2",
                      "clip.size=32",
                      "mclip.size=32",
                      "epochs=2"};
  md_config *c = md_config_load(NULL, override, MD_COUNT(override), d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  md_train_options o = {.quiet = true, .engine = {.passes = md_pass_defaults(), .no_cache = true}};
  ck_assert_msg(md_train(c, &o, d) == MD_OK, "%s", md_diags_text(d));
  md_config_destroy(c);
}

static md_features *features_from(const char *weights, const md_dataset *data, int threads,
                                  md_diags *d) {
  md_checkpoint *c = md_checkpoint_open(weights, d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  md_features_options o = {
      .clips = 20,  // a window of clips ends within a video
      .engine = {.passes = md_pass_defaults(), .no_cache = true, .threads = threads}};
  md_features *f = md_features_compute(c, data, &o, d);
  md_checkpoint_close(c);
  return f;
}

START_TEST(exported_network_gives_the_same_features_bit_for_bit) {
  make_empty_folder();
  make_mini("v", MD_MINI_TRAIN, 0, 2);
  md_diags *d = md_diags_create();
  const char *whole = in_folder("run/weights.safetensors"), *part = in_folder("v.safetensors");
  train_two_steps(in_folder("v"), in_folder("run"), d);
  md_diags_clear(d);  // two steps may end in an alarm of collapse
  md_checkpoint *c = md_checkpoint_open(whole, d);
  ck_assert_msg(c && md_visual_export(c, part, d), "%s", md_diags_text(d));
  md_checkpoint_close(c);
  md_dataset *data = md_dataset_open(&(md_dataset_options){.path = in_folder("v/train.csv")}, d);
  ck_assert_ptr_nonnull(data);
  // A video that is not there is left out, and changes nothing for the others; nor do threads.
  MD_PUSH(data->items, data->num_items, data->cap_items, data->items[1]);
  data->items[1] = (md_data_item){"nowhere.mp4", 0, 0};
  md_features *f = features_from(whole, data, 1, d), *g = features_from(part, data, 3, d);
  ck_assert_msg(f && g, "%s", md_diags_text(d));
  ck_assert_int_eq(md_diags_warnings(d), 2);
  ck_assert(strstr(md_diags_text(d), "is left out: video cannot be opened: No such file"));
  ck_assert(f->num == 2 && g->num == 2 && f->width == g->width);
  ck_assert_mem_eq(f->x, g->x, (size_t)(f->num * f->width) * sizeof *f->x);
  double size = 0;
  for (int64_t i = 0; i < f->num * f->width; i++) size = fmax(size, fabs((double)f->x[i]));
  ck_assert_double_gt(size, 0);
  data->items[0] = data->items[2] = data->items[1];
  md_features *none = features_from(whole, data, 2, d);
  expect(none != NULL, d, "E0881");
  md_features_destroy(f);
  md_features_destroy(g);
  md_dataset_destroy(data);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

START_TEST(curves_have_a_panel_for_each_term_and_a_line_for_each_run) {
  make_empty_folder();
  md_diags *d = md_diags_create();
  const char *dir[2] = {folder, folder}, *svg = in_folder("a.svg");
  expect(md_picture_save(dir, 1, NULL, svg, d), d, "E0885");  // no log
  static const char log[] = "{\"step\":1,\"loss\":4,\"loss_v\":2,\"chance\":3}\n"
                            "{\"step\":2,\"loss\":3,\"loss_v\":1,\"chance\":3}\n";
  ck_assert(md_file_save(in_folder("log.jsonl"), log, sizeof log - 1, d));
  ck_assert_msg(md_picture_save(dir, 2, NULL, svg, d), "%s", md_diags_text(d));
  size_t len;
  char *text = read_file(svg, &len);
  int lines = 0;
  for (char *p = text; (p = strstr(p, "<polyline")); p++) lines++;
  ck_assert_int_eq(lines, 2 + 4);  // loss: a line a run; loss_v: a line and its chance line a run
  ck_assert(strstr(text, ">loss_v<") && !strstr(text, ">loss_m<"));
  free(text);
  ck_assert(md_file_save(in_folder("log.jsonl"), "{\"step\":1}\n", 11, d));
  expect(md_picture_save(dir, 1, NULL, svg, d), d, "E0885");
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

SUITE_MAIN("probe", lbfgs_finds_the_end_of_a_bent_valley, lbfgs_says_when_steps_run_out,
           gradient_of_the_probe_is_that_of_its_loss, probe_of_two_points_is_the_one_on_paper,
           separable_classes_are_told_apart, features_that_never_change_leave_the_commonest_class,
           neighbours_vote_by_number_then_nearness, sets_that_do_not_fit_are_refused,
           features_come_back_from_their_files,
           splits_share_no_video_and_a_set_can_be_made_in_parts, a_larger_scene_is_the_same_scene,
           exported_network_gives_the_same_features_bit_for_bit,
           curves_have_a_panel_for_each_term_and_a_line_for_each_run)
