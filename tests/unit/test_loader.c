// SPDX-License-Identifier: Apache-2.0
// Data sets as lists of videos, and the loader that makes batches of them.
#include "runtime/video/video.h"

#include "tests/unit/folder.h"
#include "tests/video/make_video.h"

#include <sys/stat.h>
#include <unistd.h>

static void write_text(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  ck_assert_ptr_nonnull(f);
  fputs(text, f);
  fclose(f);
}

// --- data sets

START_TEST(folders_are_walked_sorted_and_without_circles) {
  ck_assert_int_eq(mkdir(in_folder("d"), 0700), 0);
  ck_assert_int_eq(mkdir(in_folder("d/sub"), 0700), 0);
  write_text(in_folder("d/b.mp4"), "x");
  write_text(in_folder("d/B.MKV"), "x");
  write_text(in_folder("d/notes.txt"), "x");
  write_text(in_folder("d/.hidden.mp4"), "x");
  write_text(in_folder("d/sub/a.webm"), "x");
  ck_assert_int_eq(symlink("..", in_folder("d/sub/up")), 0);
  ck_assert_int_eq(symlink("nowhere", in_folder("d/z.mp4")), 0);
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("d")}, d);
  ck_assert_msg(s != NULL, "%s", md_diags_text(d));
  static const char *const want[] = {"d/B.MKV", "d/b.mp4", "d/sub/a.webm", "d/z.mp4"};
  ck_assert_int_eq(s->num_items, 4);
  for (int i = 0; i < 4; i++) {
    ck_assert_str_eq(s->items[i].path, in_folder(want[i]));
    ck_assert_int_eq(s->items[i].label, -1);
  }
  md_dataset_destroy(s);
  s = md_dataset_open(&(md_dataset_options){.path = in_folder("d"), .extensions = "avi"}, d);
  ck_assert_ptr_null(s);
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  md_diags_destroy(d);
}
END_TEST

START_TEST(lists_hold_paths_and_labels) {
  write_text(in_folder("l.csv"),
             "\xEF\xBB\xBF# a comment\n\na.mp4 3\r\n/abs/b.mp4\t-1\nc,d.mp4,7\n\"e f, g.mp4\" "
             "2\nplain.mp4\nlast.mp4,1");
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("l.csv")}, d);
  ck_assert_msg(s != NULL, "%s", md_diags_text(d));
  static const md_data_item want[] = {{"a.mp4", 3, 3},      {"/abs/b.mp4", -1, 4},
                                      {"c,d.mp4", 7, 5},    {"e f, g.mp4", 2, 6},
                                      {"plain.mp4", -1, 7}, {"last.mp4", 1, 8}};
  ck_assert_int_eq(s->num_items, 6);
  for (int i = 0; i < 6; i++) {
    ck_assert_str_eq(s->items[i].path,
                     want[i].path[0] == '/' ? want[i].path : in_folder(want[i].path));
    ck_assert_int_eq(s->items[i].label, want[i].label);
    ck_assert_int_eq(s->items[i].line, want[i].line);
  }
  md_dataset_destroy(s);
  s = md_dataset_open(&(md_dataset_options){.path = in_folder("l.csv"), .prefix = "/data"}, d);
  ck_assert_str_eq(s->items[0].path, "/data/a.mp4");
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(bad_lines_are_shown_with_a_caret) {
  write_text(in_folder("bad.csv"),
             "a.mp4 1\nmy video.mp4\nb.mp4 -2\n\"open 1\nok.mp4 2\nc.mp4,99999999999\n");
  md_diags *d = md_diags_create();
  ck_assert_ptr_null(md_dataset_open(&(md_dataset_options){.path = in_folder("bad.csv")}, d));
  ck_assert_int_eq(md_diags_errors(d), 4);
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  const char *text = md_diags_text(d);
  ck_assert_ptr_nonnull(
      strstr(text, "bad.csv:2:4: error[E0504]: label 'video.mp4' is not an integer"));
  ck_assert_ptr_nonnull(strstr(text, "|    ^~~~~~~~~"));
  ck_assert_ptr_nonnull(strstr(text, "double quotes"));
  ck_assert_ptr_nonnull(strstr(text, "bad.csv:4:1: error[E0504]: quote is not closed"));
  ck_assert_ptr_nonnull(strstr(text, "bad.csv:6:7:"));
  md_diags_clear(d);
  ck_assert_ptr_null(md_dataset_open(&(md_dataset_options){.path = in_folder("none")}, d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "error[E0503]"));
  md_diags_destroy(d);
}
END_TEST

// --- loader

enum { LOADER_VIDEOS = 6, LOADER_BATCHES = 7 };

static void make_loader_videos(const char *broken) {
  static const int frames[LOADER_VIDEOS] = {80, 30, 100, 1, 2, 70};
  static const int fps[LOADER_VIDEOS] = {30, 15, 25, 30, 30, 60};
  mkdir(in_folder("set"), 0700);
  for (int i = 0; i < LOADER_VIDEOS; i++) {
    char name[32];
    snprintf(name, sizeof name, "set/%d.%s", i, i % 2 ? "mp4" : "avi");
    make_video(&(made_video){.path = in_folder(name),
                             .w = 96,
                             .h = 64,
                             .frames = frames[i],
                             .fps_num = fps[i],
                             .fps_den = 1,
                             .pixel = made_square});
  }
  if (broken) write_text(in_folder(broken), "this is no video\n");
}

static md_loader_options loader_options(const md_dataset *s, int workers) {
  return (md_loader_options){.data = s,
                             .rule = {.visual = {8, 8, 32},
                                      .motion = {16, 4, 24},
                                      .flip = 0.5,
                                      .augment = {0.8, {0.4, 0.4, 0.4}, 0.2, 0.5, 0.1, 2}},
                             .batch = 4,
                             .workers = workers,
                             .seed = 11};
}

// A digest of everything in the first batches.
static uint64_t batches_digest(const md_dataset *s, int workers, int queue, md_diags *d) {
  md_loader_options o = loader_options(s, workers);
  o.queue = queue;
  md_loader *l = md_loader_create(&o, d);
  ck_assert_msg(l != NULL, "%s", md_diags_text(d));
  uint64_t sum = 0;
  for (int b = 0; b < LOADER_BATCHES; b++) {
    md_batch batch;
    ck_assert_msg(md_loader_next(l, &batch) == MD_OK, "%s", md_diags_text(d));
    ck_assert_int_eq(batch.size, 4);
    ck_assert_int_eq(batch.first_sample, (int64_t)4 * b);
    for (int c = 0; c < MD_NUM_SLOTS; c++) {
      size_t bytes = c < 2 ? (size_t)4 * 3 * 8 * 32 * 32 : (size_t)4 * 16 * 24 * 24;
      sum = md_hash_at(sum, md_digest_of(batch.clip[c], bytes).lo);
    }
    for (int i = 0; i < 2; i++) {
      sum = md_hash_at(sum, md_digest_of(batch.flip[i], 4).lo);
      sum = md_hash_at(sum, md_digest_of(batch.color[i], sizeof(float[4][3][3])).lo);
      sum = md_hash_at(sum, md_digest_of(batch.gray[i], 4).lo);
      sum = md_hash_at(sum, md_digest_of(batch.sigma[i], sizeof(float[4])).lo);
    }
    sum = md_hash_at(sum, md_digest_of(batch.id, 16).lo);
  }
  md_loader_stats st = md_loader_stats_now(l);
  ck_assert_int_eq(st.batches, LOADER_BATCHES);
  ck_assert_int_eq(st.samples, (int64_t)4 * LOADER_BATCHES);
  ck_assert(st.wait_ns > 0 && st.work_ns > 0 && st.decoded_frames > 0);
  md_loader_destroy(l);
  return sum;
}

START_TEST(batches_do_not_depend_on_the_number_of_workers) {
  make_loader_videos("set/9.mp4");
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  ck_assert_int_eq(s->num_items, LOADER_VIDEOS + 1);
  uint64_t want = batches_digest(s, 0, 0, d);
  ck_assert_uint_eq(batches_digest(s, 1, 1, d), want);
  ck_assert_uint_eq(batches_digest(s, 2, 2, d), want);
  ck_assert_uint_eq(batches_digest(s, 4, 3, d), want);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(an_epoch_loses_no_video_and_a_broken_one_is_replaced_once_reported) {
  make_loader_videos("set/9.mp4");
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  md_loader_options o = loader_options(s, 2);
  o.batch = 7;  // one epoch
  md_loader *l = md_loader_create(&o, d);
  for (int e = 0; e < 3; e++) {
    md_batch b;
    ck_assert_int_eq(md_loader_next(l, &b), MD_OK);
    int count[LOADER_VIDEOS + 1] = {0};
    for (int i = 0; i < 7; i++) count[b.id[i]]++;
    for (int v = 0; v < LOADER_VIDEOS; v++) ck_assert_int_ge(count[v], 1);
    ck_assert_int_eq(count[LOADER_VIDEOS], 0);
  }
  md_loader_stats st = md_loader_stats_now(l);
  ck_assert_int_eq(st.replaced, 3);
  ck_assert_int_eq(st.quarantined, 1);
  ck_assert_int_eq(md_diags_warnings(d), 1);
  ck_assert_int_eq(md_diags_errors(d), 0);
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "9.mp4: warning: left out: is not a video"));
  md_fault why;
  int at = 0;
  ck_assert_str_eq(md_loader_quarantined(l, &at, &why), in_folder("set/9.mp4"));
  ck_assert_int_eq(why.code, E0501);
  ck_assert_ptr_null(md_loader_quarantined(l, &at, &why));
  md_loader_destroy(l);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_later_start_gives_the_later_batches) {
  make_loader_videos(NULL);
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  md_loader_options o = loader_options(s, 2);
  o.rule.motion.frames = 0;  // RGB only
  md_loader *l = md_loader_create(&o, d);
  md_batch b;
  for (int i = 0; i < 3; i++) ck_assert_int_eq(md_loader_next(l, &b), MD_OK);
  ck_assert_ptr_null(b.clip[MD_MQ]);
  md_digest want = md_digest_of(b.clip[MD_VK], (size_t)4 * 3 * 8 * 32 * 32);
  md_loader_destroy(l);
  o.first_sample = 8;
  l = md_loader_create(&o, d);
  ck_assert_int_eq(md_loader_next(l, &b), MD_OK);
  md_digest got = md_digest_of(b.clip[MD_VK], (size_t)4 * 3 * 8 * 32 * 32);
  ck_assert(got.lo == want.lo && got.hi == want.hi);
  md_loader_destroy(l);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_set_without_a_usable_video_ends_with_an_error) {
  mkdir(in_folder("junk"), 0700);
  write_text(in_folder("junk/a.mp4"), "junk");
  write_text(in_folder("junk/b.mp4"), "junk");
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("junk")}, d);
  md_loader_options o = loader_options(s, 2);
  md_loader *l = md_loader_create(&o, d);
  md_batch b;
  ck_assert_int_eq(md_loader_next(l, &b), MD_ERR_DATA);
  ck_assert_int_eq(md_loader_next(l, &b), MD_ERR_DATA);
  ck_assert_int_eq(md_diags_errors(d), 1);
  ck_assert_int_eq(md_diags_warnings(d), 2);
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "error[E0505]"));
  md_loader_destroy(l);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

// Whether it takes too long is another matter every time.
START_TEST(a_slow_video_ends_what_is_deterministic) {
  make_loader_videos(NULL);
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  md_loader_options o = loader_options(s, 2);
  o.limits.max_seconds = 1e-9;
  o.deterministic = true;
  md_loader *l = md_loader_create(&o, d);
  md_batch b;
  ck_assert_int_eq(md_loader_next(l, &b), MD_ERR_DATA);
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "left out: reading took more than 1e-09 seconds"));
  ck_assert_ptr_nonnull(
      strstr(md_diags_text(d), "error[E0502]: with --deterministic no video is left out"));
  md_loader_destroy(l);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(geometry_beyond_the_limits_is_refused_by_the_loader) {
  mkdir(in_folder("junk"), 0700);
  write_text(in_folder("junk/a.mp4"), "junk");
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("junk")}, d);
  md_loader_options rows[6];
  for (int i = 0; i < MD_COUNT(rows); i++) rows[i] = loader_options(s, 1);
  rows[0].rule.visual.frames = MD_MAX_CLIP_FRAMES + 1;
  rows[1].rule.motion.size = MD_MAX_CLIP_SIZE + 1;
  rows[2].rule.visual.stride = 0;
  rows[3].batch = 0;
  rows[4].workers = -1;
  rows[5].queue = 65;
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_diags_clear(d);
    ck_assert_ptr_null(md_loader_create(&rows[i], d));
    ck_assert_msg(strstr(md_diags_text(d), "error[E0506]") != NULL, "row %d", i);
    ck_assert_int_eq(md_diags_status(d), MD_ERR_USAGE);
  }
  md_loader_options most = loader_options(s, 1);
  most.rule.visual.frames = MD_MAX_CLIP_FRAMES;
  md_loader *l = md_loader_create(&most, d);
  ck_assert_ptr_nonnull(l);
  md_loader_destroy(l);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_loader_stops_while_it_works) {
  make_loader_videos(NULL);
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  for (int i = 0; i < 8; i++) {
    md_loader_options o = loader_options(s, 1 + i % 4);
    md_loader *l = md_loader_create(&o, d);
    md_batch b;
    if (i % 2) ck_assert_int_eq(md_loader_next(l, &b), MD_OK);
    md_loader_destroy(l);
  }
  ck_assert_int_eq(md_diags_warnings(d), 0);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

int main(void) {
  Suite *s = suite_create("loader");
  TCase *c = tcase_create("all");
  tcase_add_checked_fixture(c, make_empty_folder, remove_folder);
  tcase_set_timeout(c, 120);
  tcase_add_test(c, folders_are_walked_sorted_and_without_circles);
  tcase_add_test(c, lists_hold_paths_and_labels);
  tcase_add_test(c, bad_lines_are_shown_with_a_caret);
  tcase_add_test(c, batches_do_not_depend_on_the_number_of_workers);
  tcase_add_test(c, an_epoch_loses_no_video_and_a_broken_one_is_replaced_once_reported);
  tcase_add_test(c, a_later_start_gives_the_later_batches);
  tcase_add_test(c, a_set_without_a_usable_video_ends_with_an_error);
  tcase_add_test(c, a_slow_video_ends_what_is_deterministic);
  tcase_add_test(c, geometry_beyond_the_limits_is_refused_by_the_loader);
  tcase_add_test(c, a_loader_stops_while_it_works);
  suite_add_tcase(s, c);
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed > 0;
}
