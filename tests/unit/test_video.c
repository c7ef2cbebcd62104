// SPDX-License-Identifier: Apache-2.0
// Videos in, clips out. All videos are made here; the frame number is written into the pixels, so
// that a clip itself says which frames it holds.
#include "runtime/video/video.h"

#include "tests/unit/folder.h"
#include "tests/video/make_video.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void write_text(const char *path, const char *text) {
  FILE *f = fopen(path, "w");
  ck_assert_ptr_nonnull(f);
  fputs(text, f);
  fclose(f);
}

static void make_counter(const char *path, int frames, int fps_num, int fps_den) {
  make_video(&(made_video){.path = path,
                           .is_lossless = strstr(path, ".mkv") != NULL,
                           .w = 32,
                           .h = 24,
                           .frames = frames,
                           .fps_num = fps_num,
                           .fps_den = fps_den,
                           .key_every = 1,
                           .pixel = made_counter});
}

// A timeline at a constant rate, as a file would give it.
static md_timeline *at_rate(int64_t frames, double fps) {
  return md_timeline_make(frames, NULL, 1, (double[2]){fps, fps});
}

static void expect_clip(const md_timeline *t, md_clip_shape shape, double start,
                        const int64_t *want) {
  for (int j = 0; j < shape.frames; j++)
    ck_assert_msg(md_clip_frame(t, shape, start, j) == want[j], "frame %d: %lld, not %lld", j,
                  (long long)md_clip_frame(t, shape, start, j), (long long)want[j]);
}

static uint64_t sample_of(const char *path, const md_sample_rule *rule, uint64_t key,
                          uint8_t *clip[4], md_timeline **t) {
  md_fault f;
  *t = md_timeline_read(path, NULL, &f);
  ck_assert_msg(*t != NULL, "%s", f.text);
  md_sample_out out = {0};
  for (int s = 0; s < 4; s++) out.clip[s] = clip[s];
  md_gather *g = md_gather_create();
  ck_assert_msg(md_gather_sample(g, path, *t, rule, key, NULL, &out, &f), "%s", f.text);
  md_gather_destroy(g);
  ck_assert_int_eq(out.damaged, 0);
  ck_assert_int_eq(out.missing, 0);
  return (uint64_t)out.decoded;
}

// --- timeline

START_TEST(index_table_at_30_fps) {
  md_timeline *t = at_rate(300, 30);
  expect_clip(t, (md_clip_shape){8, 8, 1}, 10, (int64_t[]){10, 18, 26, 34, 42, 50, 58, 66});
  expect_clip(t, (md_clip_shape){4, 4, 1}, 10.5, (int64_t[]){11, 15, 19, 23});
  ck_assert_double_eq(md_timeline_length(t), 300);
  md_timeline_destroy(t);
}
END_TEST

START_TEST(index_table_at_15_fps) {
  md_timeline *t = at_rate(150, 15);
  expect_clip(t, (md_clip_shape){8, 8, 1}, 0, (int64_t[]){0, 4, 8, 12, 16, 20, 24, 28});
  expect_clip(t, (md_clip_shape){4, 4, 1}, 20, (int64_t[]){10, 12, 14, 16});
  ck_assert_double_eq(md_timeline_length(t), 300);
  md_timeline_destroy(t);
}
END_TEST

START_TEST(index_table_at_25_fps) {
  // j * 8 * 25 / 30 = 6.667 j; j * 4 * 25 / 30 = 3.333 j
  md_timeline *t = at_rate(250, 25);
  expect_clip(t, (md_clip_shape){8, 8, 1}, 0, (int64_t[]){0, 7, 13, 20, 27, 33, 40, 47});
  expect_clip(t, (md_clip_shape){4, 4, 1}, 0, (int64_t[]){0, 3, 7, 10});
  md_timeline_destroy(t);
}
END_TEST

START_TEST(index_table_at_60_fps) {
  md_timeline *t = at_rate(600, 60);
  expect_clip(t, (md_clip_shape){8, 8, 1}, 1, (int64_t[]){2, 18, 34, 50, 66, 82, 98, 114});
  ck_assert_int_eq(md_timeline_motion_lag(t), 2);
  md_timeline_destroy(t);
}
END_TEST

START_TEST(short_videos_repeat_the_last_frame) {
  md_timeline *t = at_rate(20, 30);
  expect_clip(t, (md_clip_shape){8, 8, 1}, 0, (int64_t[]){0, 8, 16, 19, 19, 19, 19, 19});
  md_timeline_destroy(t);
  t = at_rate(1, 30);
  expect_clip(t, (md_clip_shape){3, 8, 1}, 0, (int64_t[]){0, 0, 0});
  ck_assert_int_eq(md_timeline_motion_lag(t), 0);
  md_timeline_destroy(t);
}
END_TEST

START_TEST(irregular_times_take_the_nearest_frame) {
  static const int64_t ms[] = {0, 33, 67, 400, 433, 900};
  int64_t *pts = malloc(sizeof ms);
  memcpy(pts, ms, sizeof ms);
  md_timeline *t = md_timeline_make(6, pts, 1e-3, (double[2]){30, 30});
  ck_assert(!t->constant);
  // 30 fps frames 0, 4, 8, ... are at 0, 133, 267, 400, 533, 667, 800, 933 ms
  expect_clip(t, (md_clip_shape){8, 4, 1}, 0, (int64_t[]){0, 2, 3, 3, 4, 5, 5, 5});
  md_timeline_destroy(t);
}
END_TEST

START_TEST(absurd_rates_are_taken_as_30) {
  md_timeline *t = at_rate(100, 90000);
  ck_assert_double_eq(t->fps, 30);
  md_timeline_destroy(t);
  int64_t *pts = calloc(3, sizeof *pts);
  pts[0] = INT64_MIN + 1, pts[1] = 0, pts[2] = INT64_MAX;
  t = md_timeline_make(3, pts, 1, (double[2]){NAN, 0});
  ck_assert_double_eq(t->fps, 30);
  ck_assert_int_eq(md_timeline_index(t, 1), 1);
  ck_assert_int_eq(md_timeline_index(t, 1e300), 2);
  md_timeline_destroy(t);
}
END_TEST

START_TEST(files_give_their_frames_and_rate) {
  static const struct {
    const char *name;
    int frames, num, den;
    double fps;
  } cases[] = {{"a.mkv", 40, 15, 1, 15}, {"b.mp4", 40, 25, 1, 25},
               {"c.avi", 7, 30, 1, 30},  {"d.mkv", 50, 30000, 1001, 30000.0 / 1001},
               {"e.mkv", 90, 60, 1, 60}, {"f.mkv", 1, 30, 1, 30},
               {"g.mkv", 2, 30, 1, 30}};
  for (int i = 0; i < MD_COUNT(cases); i++) {
    const char *path = in_folder(cases[i].name);
    make_counter(path, cases[i].frames, cases[i].num, cases[i].den);
    md_fault f;
    md_timeline *t = md_timeline_read(path, NULL, &f);
    ck_assert_msg(t != NULL, "%s: %s", cases[i].name, f.text);
    ck_assert_int_eq(t->num_frames, cases[i].frames);
    ck_assert_double_eq_tol(t->fps, cases[i].fps, 0.02);
    ck_assert(t->constant);
    ck_assert_int_eq(t->missing, 0);
    md_timeline_destroy(t);
  }
}
END_TEST

// --- samples from files

START_TEST(clips_hold_the_frames_that_the_table_names) {
  static const int rates[] = {15, 25, 30, 60};
  uint8_t *clip[4];
  for (int s = 0; s < 4; s++) clip[s] = calloc(48, 64);
  md_sample_rule rule = {.visual = {8, 8, 8}, .motion = {16, 4, 8}};
  for (int i = 0; i < MD_COUNT(rates); i++) {
    const char *path = in_folder("n.mkv");
    make_counter(path, 200, rates[i], 1);
    for (uint64_t key = 0; key < 5; key++) {
      md_timeline *t;
      uint64_t decoded = sample_of(path, &rule, key, clip, &t);
      double starts[4];
      md_sample_starts(&rule, key, t, starts);
      int64_t first = 200, last = 0;
      for (int s = 0; s < 2; s++)
        for (int j = 0; j < 8; j++) {
          int64_t want = md_clip_frame(t, rule.visual, starts[s], j);
          first = MD_MIN(first, want), last = MD_MAX(last, want);
          for (int c = 0; c < 3; c++)
            ck_assert_int_eq(clip[s][(size_t)64 * (size_t)(c * 8 + j)], (int)want + 1);
        }
      // Neighbours differ by one grey step in each channel, by two at 60 fps: D = 1/255, 2/255.
      for (int s = 2; s < 4; s++)
        for (int j = 0; j < 16; j++) {
          int64_t want = md_clip_frame(t, rule.motion, starts[s], j);
          first = MD_MIN(first, want), last = MD_MAX(last, want);
          ck_assert_int_eq(clip[s][(size_t)64 * (size_t)j + 5], rates[i] == 60 ? 2 : 1);
        }
      ck_assert_int_le((int64_t)decoded,
                       last - first + 4);  // it starts at a key frame and ends early
      md_timeline_destroy(t);
    }
  }
  for (int s = 0; s < 4; s++) free(clip[s]);
}
END_TEST

// Every frame of the file is a key frame: no other one than those of the clips is decoded.
START_TEST(frames_that_nobody_wants_are_not_decoded) {
  enum { T = 4, SIZE = 16 };
  make_counter(in_folder("a.mkv"), 200, 30, 1);
  md_sample_rule rule = {.visual = {T, 7, SIZE}};
  static uint8_t clip[2][3 * T * SIZE * SIZE];
  for (uint64_t key = 0; key < 4; key++) {
    md_timeline *t;
    uint64_t decoded =
        sample_of(in_folder("a.mkv"), &rule, key, (uint8_t *[4]){clip[0], clip[1]}, &t);
    double starts[MD_NUM_SLOTS];
    md_sample_starts(&rule, key, t, starts);
    bool is_wanted[200] = {false};
    uint64_t wanted = 0;
    for (int s = 0; s < 2; s++)
      for (int j = 0; j < T; j++) {
        int64_t frame = md_clip_frame(t, rule.visual, starts[s], j);
        wanted += !is_wanted[frame];
        is_wanted[frame] = true;
        ck_assert_int_eq(clip[s][j * SIZE * SIZE], frame + 1);
      }
    ck_assert_uint_eq(decoded, wanted);
    md_timeline_destroy(t);
  }
}
END_TEST

// Between key frames, and across frames that nobody needs: wanted frames are the same bit for bit as
// when every frame is decoded, and fewer are.
START_TEST(clips_do_not_depend_on_what_is_left_out) {
  enum { T = 4, SIZE = 24 };
  static const struct {
    const char *name;
    int key_every, b_frames, rotation;
  } cases[] = {{"b.mp4", 12, 2, 0}, {"b.mkv", 200, 3, 0}, {"b.mov", 30, 0, 90}};
  static uint8_t clip[2][MD_NUM_SLOTS][3 * T * SIZE * SIZE];
  for (int i = 0; i < MD_COUNT(cases); i++) {
    make_video(&(made_video){.path = in_folder(cases[i].name),
                             .w = 64,
                             .h = 48,
                             .frames = 160,
                             .fps_num = 30,
                             .fps_den = 1,
                             .key_every = cases[i].key_every,
                             .b_frames = cases[i].b_frames,
                             .rotation = cases[i].rotation,
                             .pixel = made_square});
    md_fault f;
    md_timeline *t = md_timeline_read(in_folder(cases[i].name), NULL, &f);
    ck_assert_msg(t && t->num_keys > 0, "%s", f.text);
    md_timeline plain = *t;
    plain.num_keys = 0;  // nothing is known of packets: every frame is decoded
    int64_t decoded[2] = {0};
    for (uint64_t key = 0; key < 8; key++) {
      md_sample_rule rule = {.visual = {T, 8, SIZE}};
      if (key % 2) rule.motion = (md_clip_shape){T, 4, SIZE};
      for (int k = 0; k < 2; k++) {
        md_sample_out out = {0};
        for (int s = 0; s < MD_NUM_SLOTS; s++) out.clip[s] = clip[k][s];
        md_gather *g = md_gather_create();
        ck_assert_msg(md_gather_sample(g, in_folder(cases[i].name), k ? &plain : t, &rule, key,
                                       NULL, &out, &f),
                      "%s", f.text);
        md_gather_destroy(g);
        ck_assert_int_eq(out.missing, 0);
        decoded[k] += out.decoded;
      }
      ck_assert_mem_eq(clip[0], clip[1], sizeof clip[0]);
    }
    ck_assert_msg(decoded[0] < decoded[1], "%s: %lld frames, %lld in all", cases[i].name,
                  (long long)decoded[0], (long long)decoded[1]);
    md_timeline_destroy(t);
  }
}
END_TEST

// From file to clip: a gap in the times, and videos that end before the clip does.
START_TEST(irregular_and_short_videos_fill_their_clips) {
  enum { T = 6, SIZE = 16 };
  int64_t ms[40];
  for (int i = 0; i < 40; i++) ms[i] = i * 50 + (i >= 20 ? 1500 : 0) + i % 3 * 7;
  static uint8_t clip[2][3 * T * SIZE * SIZE];
  static const int lengths[] = {40, 1, 2, 5};
  for (int i = 0; i < MD_COUNT(lengths); i++) {
    make_video(&(made_video){.path = in_folder("i.mkv"),
                             .is_lossless = true,
                             .w = 32,
                             .h = 24,
                             .frames = lengths[i],
                             .fps_num = 20,
                             .fps_den = 1,
                             .times = ms,
                             .key_every = 4,
                             .pixel = made_counter});
    md_sample_rule rule = {.visual = {T, 8, SIZE}};
    for (uint64_t key = 0; key < 4; key++) {
      md_timeline *t;
      sample_of(in_folder("i.mkv"), &rule, key, (uint8_t *[4]){clip[0], clip[1]}, &t);
      ck_assert_int_eq(t->num_frames, lengths[i]);
      double starts[MD_NUM_SLOTS];
      md_sample_starts(&rule, key, t, starts);
      for (int s = 0; s < 2; s++)
        for (int j = 0; j < T; j++) {
          // The frame that is nearest in time, the later one of two.
          double want = (starts[s] + 8 * j) / 30 * 1000;
          int nearest = 0;
          for (int n = 1; n < lengths[i]; n++)
            if (fabs((double)(ms[n] - ms[0]) - want) <= fabs((double)(ms[nearest] - ms[0]) - want))
              nearest = n;
          if (!t->constant) ck_assert_int_eq(clip[s][j * SIZE * SIZE], nearest + 1);
          else ck_assert_int_le(clip[s][j * SIZE * SIZE], lengths[i]);
          if (lengths[i] == 1) ck_assert_int_eq(clip[s][j * SIZE * SIZE], 1);
        }
      md_timeline_destroy(t);
    }
  }
}
END_TEST

START_TEST(starts_are_independent_or_in_sync) {
  md_timeline *t = at_rate(300, 30);
  md_sample_rule rule = {.visual = {8, 8, 8}, .motion = {16, 4, 8}};
  double s[4], again[4];
  double sum = 0;
  for (uint64_t key = 0; key < 2000; key++) {
    md_sample_starts(&rule, md_sample_key(1, 0, (int64_t)key, 0), t, s);
    for (int i = 0; i < 4; i++) {
      ck_assert(s[i] >= 0 && s[i] <= 300 - 64);
      for (int k = 0; k < i; k++) ck_assert(s[i] != s[k]);
      sum += s[i];
    }
  }
  // The mean of 8000 uniform draws: standard error is 236 / sqrt(12 * 8000) = 0.76.
  ck_assert_double_eq_tol(sum / 8000, 118, 4);
  rule.in_sync = true;
  md_sample_starts(&rule, 7, t, s);
  ck_assert_double_eq(s[MD_MK], s[MD_VQ]);
  ck_assert_double_eq(s[MD_MQ], s[MD_VK]);
  ck_assert(s[MD_VQ] != s[MD_VK]);
  md_sample_starts(&rule, 7, t, again);
  ck_assert_mem_eq(s, again, sizeof s);
  md_timeline_destroy(t);
}
END_TEST

START_TEST(order_is_a_permutation_of_each_epoch) {
  enum { NUM = 13 };
  md_order *o = md_order_create(5, NUM);
  int first[NUM];
  for (int e = 0; e < 3; e++) {
    int seen = 0;
    bool is_same = true;
    for (int i = 0; i < NUM; i++) {
      int v = md_order_at(o, e * NUM + i);
      seen |= 1 << v;
      if (e == 0) first[i] = v;
      is_same = is_same && first[i] == v;
    }
    ck_assert_int_eq(seen, (1 << NUM) - 1);
    ck_assert(is_same == (e == 0));
  }
  md_order_destroy(o);
}
END_TEST

START_TEST(crops_stay_inside_and_have_the_drawn_area) {
  md_crop_rule rule = {0};
  double area = 0;
  for (uint64_t key = 0; key < 4000; key++) {
    md_box b = md_crop_draw(&rule, key * 977, 0, 320, 240);
    ck_assert(b.x >= 0 && b.y >= 0 && b.w >= 1 && b.h >= 1 && b.x + b.w <= 320 && b.y + b.h <= 240);
    ck_assert(b.w <= 2.1 * b.h && b.h <= 2.1 * b.w);
    ck_assert((double)b.w * b.h >= 0.29 * 320 * 240);
    area += (double)b.w * b.h / (320 * 240);
  }
  // Accepted areas are below 0.65 on average, as large ones fit less often.
  ck_assert(area / 4000 > 0.5 && area / 4000 < 0.66);
  md_box thin = md_crop_draw(&rule, 1, 0, 4, 1000);
  ck_assert(thin.x >= 0 && thin.w <= 4 && thin.y >= 0 && thin.y + thin.h <= 1000 && thin.h <= 8);
  md_box one = md_crop_draw(&rule, 1, 0, 1, 1);
  ck_assert(one.x == 0 && one.y == 0 && one.w == 1 && one.h == 1);
  rule.centered = true;
  md_box c = md_crop_draw(&rule, 1, 0, 320, 240);
  ck_assert(c.x == 40 && c.y == 0 && c.w == 240 && c.h == 240);
}
END_TEST

// --- pixels

START_TEST(resize_follows_the_half_pixel_rule) {
  // A row 0, 30, 60, 90 to 2 samples: at 0.5 and 2.5; to 8: clamped ends, steps of half a sample.
  md_image im = {0};
  ck_assert(md_image_resize(&im, 4, 4));
  for (int i = 0; i < 16; i++)
    for (int c = 0; c < 3; c++) im.rgb[3 * i + c] = (uint8_t)(30 * (i % 4) + c);
  uint8_t out[3 * 64];
  md_image_crop(&im, (md_box){0, 0, 4, 4}, 2, out, 4);
  ck_assert_int_eq(out[0], 15);
  ck_assert_int_eq(out[1], 75);
  ck_assert_int_eq(out[4 + 1], 76);
  md_image_crop(&im, (md_box){0, 0, 4, 4}, 8, out, 64);
  static const int want[8] = {0, 8, 23, 38, 53, 68, 83, 90};  // 7.5, 22.5, ... round up
  for (int x = 0; x < 8; x++) ck_assert_int_eq(out[x], want[x]);
  md_image_crop(&im, (md_box){2, 1, 2, 3}, 1, out, 1);
  ck_assert_int_eq(out[0], 75);
  md_image_free(&im);
}
END_TEST

START_TEST(motion_plane_is_the_rounded_mean_difference) {
  md_image a = {0}, b = {0};
  ck_assert(md_image_resize(&a, 6, 4) && md_image_resize(&b, 6, 4));
  for (int i = 0; i < 24; i++)
    for (int c = 0; c < 3; c++) {
      a.rgb[3 * i + c] = (uint8_t)(100 + 10 * c);
      b.rgb[3 * i + c] = (uint8_t)(100 + (i % 6) * (c + 1));
    }
  uint16_t diff[24];
  md_motion_diff(&a, &b, diff);
  // column x: |x| + |10 - 2x| + |20 - 3x|
  static const int sum[6] = {30, 26, 22, 18, 14, 10};
  for (int i = 0; i < 24; i++) ck_assert_int_eq(diff[i], sum[i % 6]);
  uint8_t q[16];
  md_square s;
  md_square_make(&s, 6, 4, 6, 4, 4, (double[]){0.5, 0.5});  // the middle columns, no change of size
  md_motion_resize(diff, 6, false, s.row, 4, s.col, 4, q);
  static const int want[4] = {9, 7, 6, 5};  // 26/3, 22/3, 18/3, 14/3
  for (int i = 0; i < 16; i++) ck_assert_int_eq(q[i], want[i % 4]);
  md_image_free(&a);
  md_image_free(&b);
}
END_TEST

START_TEST(signed_motion_keeps_sign_and_colour) {
  md_image a = {0}, b = {0};
  ck_assert(md_image_resize(&a, 4, 4) && md_image_resize(&b, 4, 4));
  for (int i = 0; i < 16 * 3; i++) {
    a.rgb[i] = (uint8_t)(17 * (i / 3));  // 0 to 255
    b.rgb[i] = (uint8_t)(i % 3 == 0 ? 0 : i % 3 == 1 ? 255 : a.rgb[i]);
  }
  uint16_t diff[3 * 16];
  md_motion_signed_diff(&a, &b, diff);
  md_square s;
  md_square_make(&s, 4, 4, 4, 4, 4, (double[]){0.5, 0.5});
  for (int c = 0; c < 3; c++) {
    uint8_t q[16];
    md_motion_resize(diff + c * 16, 4, true, s.row, 4, s.col, 4, q);
    for (int i = 0; i < 16; i++) {
      double d = c == 0 ? 17 * i : c == 1 ? 17 * i - 255 : 0;
      ck_assert_int_eq(q[i], 128 + (int)lround(127 * d / 255));
    }
  }
  md_image_free(&a);
  md_image_free(&b);
}
END_TEST

START_TEST(a_square_lies_anywhere_in_what_is_left) {
  // 8x4 shown as 16x8: the short side becomes 4, the long one 8, of which 4 columns are left over.
  static const struct {
    double at;
    int first;
  } cases[] = {{0, 0}, {0.124, 0}, {0.126, 1}, {0.5, 2}, {0.874, 3}, {0.876, 4}, {1, 4}};
  for (int i = 0; i < MD_COUNT(cases); i++) {
    md_square s;
    md_square_make(&s, 8, 4, 16, 8, 4, (double[]){cases[i].at, cases[i].at});
    for (int k = 0; k < 4; k++) {
      ck_assert_int_eq(s.col[k].lo, cases[i].first + k);
      ck_assert_int_eq(s.row[k].lo, k);
      ck_assert(s.col[k].frac == 0 && s.row[k].frac == 0);
    }
  }
  md_sample_rule r = {.from.random_place = true};
  double sum = 0, at[2], other[2];
  for (uint64_t key = 0; key < 1000; key++) {
    md_sample_place(&r, key, MD_MQ, at);
    md_sample_place(&r, key, MD_MK, other);
    ck_assert(at[0] != at[1] && at[0] != other[0]);
    sum += at[0] + at[1] + other[0] + other[1];
  }
  // The mean of 4000 uniform draws: four times its standard error is 4 / sqrt(12 * 4000).
  ck_assert_double_eq_tol(sum / 4000, 0.5, 4 / sqrt(12.0 * 4000));
}
END_TEST

static uint32_t corner(int t, int x, int y) {
  (void)t;
  return x < 16 && y < 12 ? 0xFF0000U : 0x0000FFU;  // red at the top left
}

START_TEST(rotation_and_pixel_aspect_make_the_picture_upright) {
  static const struct {
    int rotation, w, h, x, y;
  } cases[] = {{0, 64, 48, 2, 2},
               {90, 48, 64, 45, 2},
               {180, 64, 48, 61, 45},
               {270, 48, 64, 2, 61},
               {37, 64, 48, 2, 2}};
  for (int i = 0; i < MD_COUNT(cases); i++) {
    const char *path = in_folder("r.mov");
    make_video(&(made_video){.path = path,
                             .w = 64,
                             .h = 48,
                             .frames = 3,
                             .fps_num = 30,
                             .fps_den = 1,
                             .rotation = cases[i].rotation,
                             .pixel = corner});
    md_fault f;
    md_video *v = md_video_open(path, NULL, &f);
    ck_assert_msg(v != NULL, "%s", f.text);
    md_frame_info info;
    md_image im = {0};
    ck_assert_int_eq(md_video_next(v, &info, &f), MD_VIDEO_FRAME);
    ck_assert(md_video_rgb(v, 0, &im, &f));
    ck_assert_int_eq(im.w, cases[i].w);
    ck_assert_int_eq(im.h, cases[i].h);
    const uint8_t *p = im.rgb + (size_t)3 * (size_t)(cases[i].y * im.w + cases[i].x);
    ck_assert_msg(p[0] > 200 && p[2] < 60, "rotation %d: %d %d %d", cases[i].rotation, p[0], p[1],
                  p[2]);
    md_image_free(&im);
    md_video_close(v);
  }
  static const struct {
    int num, den, short_side, w, h;
  } aspects[] = {{2, 1, 48, 128, 48},
                 {2, 1, 24, 64, 24},
                 {1, 2, 48, 48, 72},
                 {1, 200, 100, 64, 48},
                 {0, 0, 24, 32, 24}};
  for (int i = 0; i < MD_COUNT(aspects); i++) {
    const char *path = in_folder("s.mov");
    make_video(&(made_video){.path = path,
                             .w = 64,
                             .h = 48,
                             .frames = 2,
                             .fps_num = 30,
                             .fps_den = 1,
                             .aspect_num = aspects[i].num,
                             .aspect_den = aspects[i].den,
                             .pixel = corner});
    md_fault f;
    md_video *v = md_video_open(path, NULL, &f);
    md_frame_info info;
    md_image im = {0};
    ck_assert_int_eq(md_video_next(v, &info, &f), MD_VIDEO_FRAME);
    ck_assert(md_video_rgb(v, aspects[i].short_side, &im, &f));
    ck_assert_int_eq(im.w, aspects[i].w);
    ck_assert_int_eq(im.h, aspects[i].h);
    ck_assert(md_video_rgb(v, 0, &im, &f));
    ck_assert_int_eq(im.w, 64);
    md_image_free(&im);
    md_video_close(v);
  }
}
END_TEST

START_TEST(variable_rate_clips_follow_the_clock) {
  // 30 frames at 30 fps, a gap of a second, 30 frames more.
  int64_t ms[60];
  for (int i = 0; i < 60; i++) ms[i] = (i * 1000 + 15) / 30 + (i >= 30 ? 1000 : 0);
  const char *path = in_folder("v.mkv");
  make_video(&(made_video){.path = path,
                           .is_lossless = true,
                           .w = 32,
                           .h = 24,
                           .frames = 60,
                           .fps_num = 30,
                           .fps_den = 1,
                           .times = ms,
                           .key_every = 1,
                           .pixel = made_counter});
  md_fault f;
  md_timeline *t = md_timeline_read(path, NULL, &f);
  ck_assert_msg(t != NULL, "%s", f.text);
  ck_assert_int_eq(t->num_frames, 60);
  ck_assert(!t->constant);
  // Times 0, 16, 32, 48, 64, 80 of the base: the gap lies between 29 (frame 29) and 60 (frame 30).
  expect_clip(t, (md_clip_shape){6, 16, 1}, 0, (int64_t[]){0, 16, 29, 30, 34, 50});
  md_timeline_destroy(t);
}
END_TEST

// --- files that are no videos

static void expect_refused(const char *path, md_code code, const char *part) {
  md_fault f = {0};
  ck_assert_ptr_null(md_timeline_read(path, NULL, &f));
  ck_assert_int_eq(f.code, code);
  ck_assert_msg(strstr(f.text, part) != NULL, "'%s' does not tell '%s'", f.text, part);
  md_diags *d = md_diags_create();
  md_fault_report(&f, path, d);
  ck_assert_int_eq(md_diags_errors(d), 1);
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  md_diags_destroy(d);
}

START_TEST(what_is_no_video_is_refused_with_a_reason) {
  ck_assert_int_eq(mkfifo(in_folder("fifo.mp4"), 0600), 0);
  expect_refused(in_folder("fifo.mp4"), E0501, "FIFO");  // and does not hang
  expect_refused(folder, E0501, "folder");
  expect_refused("/dev/zero", E0501, "device");
  expect_refused(in_folder("nothing.mp4"), E0501, "No such file");
  write_text(in_folder("empty.mp4"), "");
  expect_refused(in_folder("empty.mp4"), E0501, "0 bytes");
  ck_assert_int_eq(symlink("loop.mp4", in_folder("loop.mp4")), 0);
  expect_refused(in_folder("loop.mp4"), E0501, "symbolic links");
  make_counter(in_folder("target.mkv"), 3, 30, 1);
  char script[512];
  snprintf(script, sizeof script,
           "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%s\n#EXT-X-ENDLIST\n",
           in_folder("target.mkv"));
  write_text(in_folder("hls.mp4"), script);
  expect_refused(in_folder("hls.mp4"), E0501, "container");
  snprintf(script, sizeof script, "ffconcat version 1.0\nfile target.mkv\n");
  write_text(in_folder("concat.mp4"), script);
  expect_refused(in_folder("concat.mp4"), E0501, "container");
}
END_TEST

START_TEST(limits_refuse_a_file_as_a_whole) {
  const char *path = in_folder("l.mkv");
  make_counter(path, 20, 30, 1);
  md_fault f;
  ck_assert_ptr_null(md_timeline_read(path, &(md_video_limits){.max_frames = 19}, &f));
  ck_assert_int_eq(f.code, E0502);
  ck_assert_ptr_null(md_timeline_read(path, &(md_video_limits){.max_seconds = 1e-9}, &f));
  ck_assert_int_eq(f.code, E0502);
  atomic_bool cancel = true;
  ck_assert_ptr_null(md_timeline_read(path, &(md_video_limits){.cancel = &cancel}, &f));
  md_video *v = md_video_open(path, &(md_video_limits){.max_pixels = 767}, &f);
  md_frame_info info;
  if (v) ck_assert_int_eq(md_video_next(v, &info, &f), MD_VIDEO_FAILED);
  ck_assert_int_eq(f.code, E0502);
  md_video_close(v);
  md_timeline *t =
      md_timeline_read(path, &(md_video_limits){.max_frames = 20, .max_pixels = 768}, &f);
  ck_assert_msg(t != NULL, "%s", f.text);
  md_timeline_destroy(t);
}
END_TEST

START_TEST(odd_names_are_only_names) {
  static const char *const names[] = {"-dash.mkv", "frame%03d.mkv", "http:,x.mkv", "a b\"c.mkv",
                                      "pipe:0.mkv"};
  for (int i = 0; i < MD_COUNT(names); i++) {
    make_counter(in_folder("plain.mkv"), 2, 30, 1);
    const char *to = in_folder(names[i]);
    ck_assert_int_eq(rename(in_folder("plain.mkv"), to), 0);
    md_fault f;
    md_timeline *t = md_timeline_read(to, NULL, &f);
    ck_assert_msg(t != NULL, "%s: %s", names[i], f.text);
    ck_assert_int_eq(t->num_frames, 2);
    md_timeline_destroy(t);
  }
}
END_TEST

int main(void) {
  Suite *s = suite_create("video");
  TCase *c = tcase_create("all");
  tcase_add_checked_fixture(c, make_empty_folder, remove_folder);
  tcase_set_timeout(c, 120);
  tcase_add_test(c, index_table_at_30_fps);
  tcase_add_test(c, index_table_at_15_fps);
  tcase_add_test(c, index_table_at_25_fps);
  tcase_add_test(c, index_table_at_60_fps);
  tcase_add_test(c, short_videos_repeat_the_last_frame);
  tcase_add_test(c, irregular_times_take_the_nearest_frame);
  tcase_add_test(c, absurd_rates_are_taken_as_30);
  tcase_add_test(c, files_give_their_frames_and_rate);
  tcase_add_test(c, clips_hold_the_frames_that_the_table_names);
  tcase_add_test(c, frames_that_nobody_wants_are_not_decoded);
  tcase_add_test(c, clips_do_not_depend_on_what_is_left_out);
  tcase_add_test(c, irregular_and_short_videos_fill_their_clips);
  tcase_add_test(c, starts_are_independent_or_in_sync);
  tcase_add_test(c, order_is_a_permutation_of_each_epoch);
  tcase_add_test(c, crops_stay_inside_and_have_the_drawn_area);
  tcase_add_test(c, resize_follows_the_half_pixel_rule);
  tcase_add_test(c, motion_plane_is_the_rounded_mean_difference);
  tcase_add_test(c, signed_motion_keeps_sign_and_colour);
  tcase_add_test(c, a_square_lies_anywhere_in_what_is_left);
  tcase_add_test(c, rotation_and_pixel_aspect_make_the_picture_upright);
  tcase_add_test(c, variable_rate_clips_follow_the_clock);
  tcase_add_test(c, what_is_no_video_is_refused_with_a_reason);
  tcase_add_test(c, limits_refuse_a_file_as_a_whole);
  tcase_add_test(c, odd_names_are_only_names);
  suite_add_tcase(s, c);
  SRunner *r = srunner_create(s);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed > 0;
}
