// SPDX-License-Identifier: Apache-2.0
// The true flow of made videos, and the maps of it.
#include "runtime/video/motion.h"
#include "tests/tolerance.h"
#include "tests/unit/folder.h"
#include "tests/unit/suite.h"

#include <math.h>

enum { SIDE = 72, PIXELS = SIDE * SIDE, FRAMES = MD_MINI_FRAMES, ENOUGH = 16 };
static const double two_pi = 6.283185307179586;
static const double near = 1e-9;  // of what is 0 but for the rounding of doubles

typedef struct Point {
  double x, y;
} Point;

// Two points of a shape from the end of its rest (rests 12 to 18 frames, then moves on) to the end of
// the video, in pixels. Of two poses that are equal the flow is 0; the ground's never is.
typedef struct Track {
  int num;
  Point a[FRAMES], b[FRAMES];
} Track;

static float u[PIXELS], v[PIXELS];

static int resting_pixels(const md_scene *s, int t, int *first, int *last) {
  md_scene_flow(s, t, t - 1, SIDE, u, v);
  int num = 0;
  for (int i = 0; i < PIXELS; i++) {
    if (fabs((double)u[i]) > near || fabs((double)v[i]) > near) continue;
    if (!num++) *first = i;
    *last = i;
  }
  return num;
}

static Point moved(int pixel) {
  return (Point){pixel % SIDE + (double)u[pixel], pixel / SIDE + (double)v[pixel]};
}

// The first scene of a motion that moves for long enough after its rest.
static Track track_of(int motion) {
  Track k = {0};
  for (int number = 0; k.num < ENOUGH; number++) {
    md_scene *s = md_scene_create("track", number, 1, motion, FRAMES);
    int end = 0, a = 0, b = 0;
    for (int t = 1; t < FRAMES; t++)
      if (resting_pixels(s, t, &a, &b) > 1) end = t;
    ck_assert_int_gt(end, 0);
    resting_pixels(s, end, &a, &b);
    k.num = FRAMES - end;
    for (int i = 0; i < k.num; i++) {
      md_scene_flow(s, end, end + i, SIDE, u, v);
      k.a[i] = moved(a);
      k.b[i] = moved(b);
    }
    md_scene_destroy(s);
  }
  return k;
}

// Differences of neighbours of a sinus with frequency w obey d[i-1] + d[i+1] = 2 cos(w) d[i]; gives w.
static double frequency(const double *x, int num, double tolerance) {
  double both = 0, square = 0;
  for (int i = 1; i + 2 < num; i++) {
    double d = x[i + 1] - x[i];
    both += (x[i] - x[i - 1] + x[i + 2] - x[i + 1]) * d;
    square += d * d;
  }
  for (int i = 1; i + 2 < num; i++) {
    double d = x[i + 1] - x[i], off = x[i] - x[i - 1] + x[i + 2] - x[i + 1] - both / square * d;
    ck_assert_msg(fabs(off) <= tolerance, "step %d: off by %g", i, off);
  }
  return acos(both / square / 2);
}

// Periods are 14 to 22 frames.
static void expect_period(double w) {
  ck_assert_msg(w > two_pi / 22 && w < two_pi / 14, "a period of %g frames", two_pi / w);
}

static double steps_of(const double *x, int num, double *least) {
  double most = 0;
  *least = INFINITY;
  for (int i = 1; i < num; i++) {
    most = MD_MAX(most, fabs(x[i] - x[i - 1]));
    *least = MD_MIN(*least, fabs(x[i] - x[i - 1]));
  }
  return most;
}

// A flow of up to SIDE pixels is kept in f32.
static double flow_tolerance(void) { return md_tolerance(MD_F32, 1, SIDE); }

static void check_translation(int motion) {
  Track k = track_of(motion);
  double x[FRAMES], y[FRAMES], tolerance = flow_tolerance(), least;
  for (int i = 0; i < k.num; i++) {
    x[i] = k.a[i].x - k.a[0].x;
    y[i] = k.a[i].y - k.a[0].y;
    ck_assert_double_eq_tol(k.b[i].x - k.b[0].x, x[i], tolerance);
    ck_assert_double_eq_tol(k.b[i].y - k.b[0].y, y[i], tolerance);
    if (motion == 0) ck_assert_double_eq_tol(y[i], 0, tolerance);
    if (motion == 1) ck_assert_double_eq_tol(x[i], 0, tolerance);
    if (motion == 2) ck_assert_double_eq_tol(x[i], y[i], tolerance);
    if (motion == 3) ck_assert_double_eq_tol(x[i], -y[i], tolerance);
  }
  if (motion == 7) {  // across 0.9 times as often; up and down at one speed but for the turns
    expect_period(frequency(x, k.num, tolerance) / 0.9);
    double most = steps_of(y, k.num, &least);
    int even = 0;
    for (int i = 1; i < k.num; i++) even += fabs(fabs(y[i] - y[i - 1]) - most) <= tolerance;
    ck_assert_int_gt(even, k.num / 2);
    return;
  }
  if (motion != 1) expect_period(frequency(x, k.num, tolerance));
  if (motion != 0) expect_period(frequency(y, k.num, tolerance));
  if (motion != 4) return;
  for (int i = 1; i < k.num; i++)  // a circle is passed at one speed
    ck_assert_double_eq_tol(hypot(x[i] - x[i - 1], y[i] - y[i - 1]), hypot(x[1], y[1]), tolerance);
}

START_TEST(shapes_go_to_and_fro_around_and_zigzag) {
  static const int motions[] = {0, 1, 2, 3, 4, 7};
  for (int i = 0; i < MD_COUNT(motions); i++) check_translation(motions[i]);
}
END_TEST

START_TEST(zoom_scales_and_spin_turns) {
  for (int motion = 5; motion <= 6; motion++) {
    Track k = track_of(motion);
    double ratio[FRAMES], angle[FRAMES], least;
    Point first = {k.b[0].x - k.a[0].x, k.b[0].y - k.a[0].y};
    double length = hypot(first.x, first.y), tolerance = flow_tolerance() / length;
    for (int i = 0; i < k.num; i++) {
      Point now = {k.b[i].x - k.a[i].x, k.b[i].y - k.a[i].y};
      ratio[i] = hypot(now.x, now.y) / length;
      angle[i] = atan2(first.x * now.y - first.y * now.x, first.x * now.x + first.y * now.y);
      if (i) angle[i] += two_pi * round((angle[i - 1] - angle[i]) / two_pi);
    }
    if (motion == 5) {
      expect_period(frequency(ratio, k.num, tolerance));
      for (int i = 0; i < k.num; i++) ck_assert_double_eq_tol(angle[i], 0, tolerance);
    } else {
      double most = steps_of(angle, k.num, &least);
      ck_assert_double_eq_tol(most, least, tolerance);
      expect_period(most);
      for (int i = 0; i < k.num; i++) ck_assert_double_eq_tol(ratio[i], 1, tolerance);
    }
  }
}
END_TEST

// The camera pans at one speed, at most a quarter of the canvas's pixels a frame on each axis.
START_TEST(the_ground_moves_evenly) {
  static const int corner[] = {0, SIDE - 1, PIXELS - SIDE, PIXELS - 1};
  for (int motion = 0; motion < MD_SCENE_MOTIONS; motion++) {
    md_scene *s = md_scene_create("ground", motion, 1, motion, FRAMES);
    md_scene_flow(s, 1, 0, SIDE, u, v);
    double x = (double)u[0], y = (double)v[0];
    ck_assert(x != 0 && fabs(x) <= 0.25 * SIDE / 36 && y != 0 && fabs(y) <= 0.25 * SIDE / 36);
    for (int t = 0; t < FRAMES; t += 7)
      for (int to = 0; to < FRAMES; to += 9) {
        md_scene_flow(s, t, to, SIDE, u, v);
        for (int i = 0; i < MD_COUNT(corner); i++) {
          ck_assert_double_eq_tol((double)u[corner[i]], (t - to) * x, flow_tolerance());
          ck_assert_double_eq_tol((double)v[corner[i]], (t - to) * y, flow_tolerance());
        }
      }
    md_scene_destroy(s);
  }
}
END_TEST

// --- maps

static void make_mini(const char *name, int videos, int size, md_truth_rule truth) {
  md_diags *d = md_diags_create();
  md_mini_options o = {.folder = in_folder(name),
                       .split = MD_MINI_TUNE,
                       .videos = videos,
                       .size = size,
                       .truth = truth};
  ck_assert_msg(md_mini_make(&o, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

static md_map *open_map(const char *folder_name, int video) {
  char name[80];
  md_fault f;
  snprintf(name, sizeof name, "%s/tune_%04d.%s.mmap1", folder_name, video,
           video % 2 ? "mkv" : "mp4");
  md_map *m = md_map_open(in_folder(name), &f);
  ck_assert_msg(m != NULL, "%s: %s", name, f.text);
  return m;
}

START_TEST(a_map_holds_the_flow_and_is_that_of_its_video) {
  enum { SMALL = 36, LAG = 3, BYTES = SMALL * SMALL };
  make_empty_folder();
  md_map_rule rule = {MD_MAP_FLOW, .lag30 = LAG};
  make_mini("made", 2, SMALL, (md_truth_rule){.folder = in_folder("deep/maps"), .maps = rule});
  for (int video = 0; video < 2; video++) {
    md_map *m = open_map("deep/maps", video);
    const md_map_info *i = md_map_about(m);
    ck_assert(i->is_true && i->frames == FRAMES && i->w == SMALL && i->h == SMALL && i->lag == LAG);
    ck_assert(i->lag30 == LAG && i->short_side == 128 && i->clamp == 20 && i->scale == 0.125F);
    md_scene *s = md_scene_create("mini.tune", video, 0, video, FRAMES);
    static uint8_t planes[3 * BYTES];
    static float magnitude[BYTES];
    for (int t = 0; t < FRAMES; t++) {
      md_fault f;
      int at = MD_MAX(t, LAG);
      md_scene_flow(s, at, at - LAG, SMALL, u, v);
      // 36 pixels of the video are 256 of the flow.
      for (int k = 0; k < BYTES; k++) u[k] *= 256.0F / SMALL, v[k] *= 256.0F / SMALL;
      md_motion_magnitude(u, v, BYTES, magnitude);
      md_motion_signed(u, BYTES, 20, planes);
      md_motion_signed(v, BYTES, 20, planes + BYTES);
      md_motion_signed(magnitude, BYTES, 20, planes + 2 * BYTES);
      ck_assert_mem_eq(md_map_frame(m, t, &f), planes, sizeof planes);
    }
    md_scene_destroy(s);
    md_map_close(m);
  }
  remove_folder();
}
END_TEST

START_TEST(training_data_takes_true_maps_without_a_word) {
  make_empty_folder();
  md_truth_rule truth = {.folder = in_folder("maps"), .maps = {MD_MAP_EDGE, .lag30 = 3}};
  make_mini("made", 4, 36, truth);
  md_diags *d = md_diags_create();
  md_dataset *set = md_dataset_open(&(md_dataset_options){.path = in_folder("made/tune.csv")}, d);
  md_loader_options o = {.data = set,
                         .rule = {.visual = {2, 3, 32},
                                  .motion = {8, 3, 32},
                                  .from = {.maps = truth.folder, .kind = MD_MAP_EDGE}},
                         .batch = 8};
  md_loader *l = md_loader_create(&o, d);
  md_batch b;
  ck_assert_msg(md_loader_next(l, &b) == MD_OK, "%s", md_diags_text(d));
  ck_assert_int_eq(md_loader_stats_now(l).quarantined, 0);
  ck_assert_str_eq(md_diags_text(d), "");
  md_loader_destroy(l);
  // True maps are not taken for estimated ones: `dataset flow` makes its own.
  md_maps_options estimate = {.set = set, .folder = truth.folder, .rule = truth.maps, .jobs = 1};
  md_maps_progress p;
  ck_assert(md_maps_make(&estimate, &p, d));
  ck_assert(p.made == 4 && !p.kept);
  md_dataset_destroy(set);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

START_TEST(noise_has_the_deviation_that_is_asked_for) {
  enum { SMALL = 36, BYTES = SMALL * SMALL };
  make_empty_folder();
  const double sigma = 10;
  md_map_rule rule = {MD_MAP_FLOW, .lag30 = 3, .clamp = 200};
  make_mini("a", 1, SMALL, (md_truth_rule){.folder = in_folder("plain"), .maps = rule});
  make_mini("b", 1, SMALL, (md_truth_rule){in_folder("noisy"), rule, sigma});
  make_mini("c", 1, SMALL, (md_truth_rule){in_folder("again"), rule, sigma});
  md_map *plain = open_map("plain", 0), *noisy = open_map("noisy", 0),
         *again = open_map("again", 0);
  double square = 0;
  int num = 2 * BYTES * (FRAMES - 3);
  for (int t = 3; t < FRAMES; t++) {
    md_fault f;
    const uint8_t *p = md_map_frame(plain, t, &f), *q = md_map_frame(noisy, t, &f);
    ck_assert_mem_eq(md_map_frame(again, t, &f), q, 3 * BYTES);
    for (int i = 0; i < 2 * BYTES; i++) square += pow((q[i] - p[i]) * 200.0 / 127, 2) / num;
  }
  // Two roundings to steps of 200/127 add 2 * step^2 / 12; the deviation of n numbers is uncertain by
  // sigma / sqrt(2 n), of which four are allowed.
  double want = sqrt(sigma * sigma + pow(200.0 / 127, 2) / 6);
  ck_assert_double_eq_tol(sqrt(square), want, 4 * sigma / sqrt(2.0 * num));
  md_map_close(plain);
  md_map_close(noisy);
  md_map_close(again);
  remove_folder();
}
END_TEST

// Pearson's, of one plane over all frames.
static double correlation(md_map *one, md_map *other, int plane) {
  double n = 0, a = 0, b = 0, aa = 0, bb = 0, ab = 0;
  int64_t pixels = (int64_t)md_map_about(one)->w * md_map_about(one)->h;
  for (int t = 0; t < FRAMES; t++) {
    md_fault f;
    const uint8_t *p = md_map_frame(one, t, &f) + plane * pixels;
    const uint8_t *q = md_map_frame(other, t, &f) + plane * pixels;
    for (int64_t i = 0; i < pixels; i++) {
      n++, a += p[i], b += q[i];
      aa += p[i] * p[i], bb += q[i] * q[i], ab += p[i] * q[i];
    }
  }
  return (n * ab - a * b) / sqrt((n * aa - a * a) * (n * bb - b * b));
}

// What TV-L1 sees in a video goes with the true motion of that video more than with that of any
// other. By chance that happens once in 8^8 times, for each plane; were a sign wrong or u taken for v,
// it would not happen at all.
static void expect_own_truth(md_map_rule rule, int size) {
  enum { VIDEOS = 8 };
  make_empty_folder();
  make_mini("made", VIDEOS, size, (md_truth_rule){.folder = in_folder("truth"), .maps = rule});
  md_diags *d = md_diags_create();
  md_dataset *set = md_dataset_open(&(md_dataset_options){.path = in_folder("made")}, d);
  md_maps_options o = {.set = set, .folder = in_folder("estimate"), .rule = rule, .jobs = 2};
  md_maps_progress p;
  ck_assert_msg(md_maps_make(&o, &p, d) && p.made == VIDEOS, "%s", md_diags_text(d));
  md_map *truth[VIDEOS], *estimate[VIDEOS];
  for (int i = 0; i < VIDEOS; i++) {
    truth[i] = open_map("truth", i);
    estimate[i] = open_map("estimate", i);
  }
  for (int plane = 0; plane < md_map_planes(rule.kind); plane++)
    for (int i = 0; i < VIDEOS; i++) {
      double own = correlation(truth[i], estimate[i], plane);
      for (int j = 0; j < VIDEOS; j++) {
        double r = i == j ? -1 : correlation(truth[j], estimate[i], plane);
        ck_assert_msg(own > r, "plane %d of video %d: %g with its own, %g with %d", plane, i, own,
                      r, j);
      }
    }
  for (int i = 0; i < VIDEOS; i++) {
    md_map_close(truth[i]);
    md_map_close(estimate[i]);
  }
  md_dataset_destroy(set);
  md_diags_destroy(d);
  remove_folder();
}

START_TEST(estimated_edges_go_with_the_true_ones) {
  expect_own_truth((md_map_rule){MD_MAP_EDGE, .lag30 = 3}, 64);
}
END_TEST

// From frame to frame, where no shape moves farther than the four pixels that flow is made for.
START_TEST(estimated_flow_goes_with_the_true_one) {
  expect_own_truth((md_map_rule){MD_MAP_FLOW, .lag30 = 1}, 36);
}
END_TEST

SUITE_MAIN("truth", shapes_go_to_and_fro_around_and_zigzag, zoom_scales_and_spin_turns,
           the_ground_moves_evenly, a_map_holds_the_flow_and_is_that_of_its_video,
           training_data_takes_true_maps_without_a_word, noise_has_the_deviation_that_is_asked_for,
           estimated_edges_go_with_the_true_ones, estimated_flow_goes_with_the_true_one)
