// SPDX-License-Identifier: Apache-2.0
// Optical flow, its edges, files of maps, and what is drawn by them. Frames, fields and videos are all
// made here, so each result is known in advance.
#include "runtime/video/motion.h"

#include "base/file.h"
#include "tests/tolerance.h"
#include "tests/video/make_video.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { W = 96, H = 80, PIXELS = W * H, INSIDE = 8 };

static char folder[64];

static const char *in_folder(const char *name) {
  static char path[8][160];
  static int at;
  at = (at + 1) % 8;
  snprintf(path[at], sizeof path[at], "%s/%s", folder, name);
  return path[at];
}

static void make_folder(void) {
  strcpy(folder, "/tmp/modist_motion_XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  ck_assert_int_eq(system(command), 0);
}

// --- flow

// A texture of waves longer than 12 pixels, at a place of the plane.
static float texture(double x, double y) {
  double sum = 0;
  for (uint64_t i = 0; i < 24; i++) {
    double fx = 0.35 * md_hash_unit(1, 3 * i), fy = 0.35 * md_hash_unit(1, 3 * i + 1);
    sum += sin(fx * x + fy * y + 6.28 * md_hash_01(1, 3 * i + 2));
  }
  return (float)MD_MAX(0, MD_MIN(128 + 16 * sum, 255));
}

// What stands at (x, y) moves by (dx, dy) within the square, and nowhere else.
static void make_frames(double dx, double dy, bool square_only, float *from, float *to) {
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) {
      from[y * W + x] = to[y * W + x] = texture(x, y);
      if (!square_only) to[y * W + x] = texture(x - dx, y - dy);
    }
  if (!square_only) return;
  for (int y = 24; y < 56; y++)
    for (int x = 32; x < 64; x++) {
      from[y * W + x] = texture(x + 500, y);
      to[(y + (int)dy) * W + x + (int)dx] = texture(x + 500, y);
    }
}

static double mean_error(const float *u, const float *v, double dx, double dy) {
  double sum = 0;
  for (int i = 0; i < PIXELS; i++) sum += hypot((double)u[i] - dx, (double)v[i] - dy);
  return sum / PIXELS;
}

START_TEST(flow_finds_translations_with_their_sign) {
  static const double shift[][2] = {{1, 0}, {0, -1}, {2.5, -1}, {-3, 2.5},
                                    {4, 0}, {0, 4},  {0.25, 0}};
  static float from[PIXELS], to[PIXELS], u[PIXELS], v[PIXELS];
  md_flow *f = md_flow_create(NULL, W, H);
  for (int i = 0; i < MD_COUNT(shift); i++) {
    make_frames(shift[i][0], shift[i][1], false, from, to);
    md_flow_run(f, from, to, u, v);
    double error = mean_error(u, v, shift[i][0], shift[i][1]);
    ck_assert_msg(error <= MD_FLOW_PIXELS, "(%g, %g): off by %g pixels", shift[i][0], shift[i][1],
                  error);
  }
  md_flow_destroy(f);
}
END_TEST

START_TEST(flow_of_equal_or_empty_frames_is_zero) {
  static float from[PIXELS], u[PIXELS], v[PIXELS];
  md_flow *f = md_flow_create(NULL, W, H);
  for (int kind = 0; kind < 2; kind++) {
    for (int i = 0; i < PIXELS; i++) from[i] = kind ? texture(i % W, i / (double)W) : 77;
    md_flow_run(f, from, from, u, v);
    for (int i = 0; i < PIXELS; i++) ck_assert(u[i] == 0 && v[i] == 0);
  }
  md_flow_destroy(f);
}
END_TEST

START_TEST(flow_takes_frames_of_any_size) {
  static const int size[][2] = {{1, 1}, {1, 40}, {2, 2}, {3, 17}, {17, 3}, {33, 31}};
  for (int i = 0; i < MD_COUNT(size); i++) {
    int w = size[i][0], h = size[i][1], n = w * h;
    float *plane = calloc((size_t)n * 4, sizeof *plane);
    for (int k = 0; k < n; k++) plane[k] = texture(k % w, k / w), plane[n + k] = plane[k] / 2;
    md_flow *f = md_flow_create(NULL, w, h);
    md_flow_run(f, plane, plane + n, plane + 2 * n, plane + 3 * n);
    for (int k = 2 * n; k < 4 * n; k++) ck_assert(isfinite(plane[k]));
    md_flow_destroy(f);
    free(plane);
  }
}
END_TEST

START_TEST(flow_runs_the_iterations_that_are_asked_for) {
  static float from[PIXELS], to[PIXELS], u[PIXELS], v[PIXELS];
  make_frames(2, 1, false, from, to);
  md_flow_options o = {.levels = 1, .warps = 3, .outer = 2, .inner = 4, .epsilon = -1};
  md_flow *f = md_flow_create(&o, W, H);
  md_flow_run(f, from, to, u, v);
  ck_assert_int_eq(md_flow_work(f), (int64_t)3 * 2 * 4 * PIXELS);
  md_flow_destroy(f);
  o.epsilon = 1e3F;  // every change is small enough: one iteration a warp
  f = md_flow_create(&o, W, H);
  md_flow_run(f, from, to, u, v);
  ck_assert_int_eq(md_flow_work(f), (int64_t)3 * PIXELS);
  md_flow_destroy(f);
}
END_TEST

// --- edges, scale 1/8 and clamp 10: q = 25.5 E

static void edges_of(const float *u, const float *v, uint8_t *q) {
  static float m[PIXELS];
  md_motion_magnitude(u, v, PIXELS, m);
  md_motion_edges(m, W, H, 0.125F, 10, q);
}

START_TEST(edges_of_a_translation_are_zero_inside) {
  static float u[PIXELS], v[PIXELS], from[PIXELS], to[PIXELS];
  static uint8_t q[PIXELS];
  for (int i = 0; i < PIXELS; i++) u[i] = 3, v[i] = -7;
  edges_of(u, v, q);
  for (int i = 0; i < PIXELS; i++)
    ck_assert_int_eq(q[i], 0);  // at the border, too: it is replicated
  // The same from pictures: flow that is off by at most MD_FLOW_PIXELS between neighbours.
  make_frames(3, -2, false, from, to);
  md_flow *f = md_flow_create(NULL, W, H);
  md_flow_run(f, from, to, u, v);
  md_flow_destroy(f);
  edges_of(u, v, q);
  for (int y = INSIDE; y < H - INSIDE; y++)
    for (int x = INSIDE; x < W - INSIDE; x++)
      ck_assert_msg(q[y * W + x] <= 25.5 * MD_FLOW_PIXELS / 2, "(%d, %d): %d", x, y, q[y * W + x]);
}
END_TEST

START_TEST(edges_of_a_step_are_half_its_height_up_to_the_clamp) {
  static float m[PIXELS];
  static uint8_t q[PIXELS];
  static const float height[] = {1, 4, 19, 20, 21, 1000};
  for (int i = 0; i < MD_COUNT(height); i++) {
    for (int k = 0; k < PIXELS; k++) m[k] = k % W < 40 ? 0 : height[i];
    md_motion_edges(m, W, H, 0.125F, 10, q);
    long want = lround(25.5 * MD_MIN((double)height[i] / 2, 10));
    for (int k = 0; k < PIXELS; k++) {
      bool is_edge = k % W == 39 || k % W == 40;
      ck_assert_msg(labs(q[k] - (is_edge ? want : 0)) <= 1, "step %g: %d, not %ld",
                    (double)height[i], q[k], is_edge ? want : 0);
    }
    // OpenCV's Sobel has no 1/8: the clamp bites eight times earlier.
    md_motion_edges(m, W, H, 1, 10, q);
    ck_assert_int_eq(q[39], (int)lround(25.5 * MD_MIN(4 * (double)height[i], 10)));
  }
}
END_TEST

START_TEST(edges_of_a_rotation_are_constant_inside) {
  // |f| = w r has the slope w everywhere; Sobel's sums see it up to the curvature, of order w / r^2.
  static float u[PIXELS], v[PIXELS];
  static uint8_t q[PIXELS];
  const double turn = 0.2;
  for (int i = 0; i < PIXELS; i++) {
    u[i] = (float)(-turn * (i / W - 40));
    v[i] = (float)(turn * (i % W - 48));
  }
  edges_of(u, v, q);
  for (int y = 1; y < H - 1; y++)
    for (int x = 1; x < W - 1; x++) {
      double r2 = pow(x - 48, 2) + pow(y - 40, 2);
      if (r2 < 16) continue;
      ck_assert_msg(fabs(q[y * W + x] - 25.5 * turn) <= 0.5 + 25.5 * turn / r2, "(%d, %d): %d", x,
                    y, q[y * W + x]);
    }
}
END_TEST

START_TEST(a_moving_square_shows_as_a_ring) {
  static float from[PIXELS], to[PIXELS], u[PIXELS], v[PIXELS];
  static uint8_t q[PIXELS];
  make_frames(3, 0, true, from, to);
  md_flow *f = md_flow_create(NULL, W, H);
  md_flow_run(f, from, to, u, v);
  md_flow_destroy(f);
  edges_of(u, v, q);
  double ring = 0, inner = 0, outer = 0;
  int num_ring = 0, num_inner = 0, num_outer = 0;
  for (int y = 0; y < H; y++)
    for (int x = 0; x < W; x++) {
      // Distance from the outline of the square [32, 64) x [24, 56): below 0 inside.
      int far = MD_MAX(MD_MAX(31 - x, x - 64), MD_MAX(23 - y, y - 56));
      if (abs(far) <= 2) ring += q[y * W + x], num_ring++;
      else if (far < -6) inner += q[y * W + x], num_inner++;
      else if (far > 6) outer += q[y * W + x], num_outer++;
    }
  ring /= num_ring, inner /= num_inner, outer /= num_outer;
  ck_assert_msg(ring > 5 * inner && ring > 5 * outer, "ring %g, inside %g, outside %g", ring, inner,
                outer);
}
END_TEST

START_TEST(signed_bytes_have_an_exact_zero) {
  static const float x[] = {0, 20, -20, 1e9F, -1e9F, 10, -0.05F};
  uint8_t q[MD_COUNT(x)];
  md_motion_signed(x, MD_COUNT(x), 20, q);
  static const uint8_t want[] = {128, 255, 1, 255, 1, 192, 128};  // 63.5 rounds to even
  ck_assert_mem_eq(q, want, sizeof want);
}
END_TEST

// --- files

enum { FRAMES = 5, MAP_W = 6, MAP_H = 4, TABLES = 80 + 20 * FRAMES + 8 };
static const md_map_info tiny = {.kind = MD_MAP_FLOW,
                                 .frames = FRAMES,
                                 .w = MAP_W,
                                 .h = MAP_H,
                                 .fps_num = 30000,
                                 .fps_den = 1000,
                                 .lag = 5,
                                 .lag30 = 5,
                                 .short_side = 128,
                                 .unit = 2,
                                 .scale = 0.125F,
                                 .clamp = 20,
                                 .source_bytes = 12345,
                                 .source_mtime = -1};

static uint8_t tiny_pixel(int t, int i) {
  return (uint8_t)(md_hash_at(9, (uint64_t)(t * 100 + i)) % 7);
}

static void write_tiny(const char *path) {
  md_diags *d = md_diags_create();
  md_map_writer *w = md_map_create(path, &tiny, d);
  ck_assert_msg(w != NULL, "%s", md_diags_text(d));
  for (int t = 0; t < FRAMES; t++) {
    uint8_t planes[3 * MAP_W * MAP_H];
    for (int i = 0; i < (int)sizeof planes; i++) planes[i] = tiny_pixel(t, i);
    ck_assert(md_map_add(w, planes, (float)t / 8));
  }
  ck_assert_msg(md_map_commit(w), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

// True if header, tables and all frames are accepted; frames are then those that were written.
static bool reads_whole(const char *path) {
  md_fault f;
  md_map *m = md_map_open(path, &f);
  bool ok = m != NULL;
  for (int t = 0; ok && t < md_map_about(m)->frames; t++) {
    const uint8_t *q = md_map_frame(m, t, &f);
    ok = q != NULL;
    for (int i = 0; ok && i < 3 * MAP_W * MAP_H; i++) ck_assert_int_eq(q[i], tiny_pixel(t, i));
  }
  ck_assert(ok || (f.code == E0851 && *f.text && *f.hint));
  md_map_close(m);
  return ok;
}

START_TEST(maps_come_back_from_their_file) {
  const char *path = in_folder("a.mmap1");
  write_tiny(path);
  md_fault f;
  md_map *m = md_map_open(path, &f);
  ck_assert_msg(m != NULL, "%s", f.text);
  const md_map_info *i = md_map_about(m);
  ck_assert(i->kind == tiny.kind && i->frames == FRAMES && i->w == MAP_W && i->h == MAP_H);
  ck_assert(i->fps_num == 30000 && i->fps_den == 1000 && i->lag == 5 && i->lag30 == 5);
  ck_assert(i->short_side == 128 && i->unit == 2 && i->scale == 0.125F && i->clamp == 20);
  ck_assert(i->source_bytes == 12345 && i->source_mtime == -1);
  for (int n = 0; n < 2 * FRAMES; n++) {
    int t = n * 3 % FRAMES;  // in any order
    const uint8_t *planes = md_map_frame(m, t, &f);
    ck_assert_ptr_nonnull(planes);
    for (int k = 0; k < 3 * MAP_W * MAP_H; k++) ck_assert_int_eq(planes[k], tiny_pixel(t, k));
    ck_assert(md_map_scores(m)[t] == (float)t / 8);
  }
  md_map_close(m);
}
END_TEST

START_TEST(each_damaged_byte_of_a_file_is_found) {
  write_tiny(in_folder("a.mmap1"));
  char *data;
  size_t len;
  ck_assert(md_file_read(in_folder("a.mmap1"), 1 << 20, E0851, NULL, &data, &len));
  const char *path = in_folder("b.mmap1");
  int taken = 0;
  for (size_t i = 0; i < len; i++)
    for (int bit = 0; bit < 8; bit += 7) {
      data[i] = (char)(data[i] ^ 1 << bit);
      ck_assert(md_file_save(path, data, len, NULL));
      // A stream has a few bits that mean nothing: frames are then as they were.
      bool is_taken = reads_whole(path);
      ck_assert_msg(!is_taken || i >= TABLES, "bit %d of byte %zu can change unseen", bit, i);
      taken += is_taken;
      data[i] = (char)(data[i] ^ 1 << bit);
    }
  ck_assert_int_le(taken, 2 * FRAMES);
  for (size_t cut = 0; cut < len; cut++) {
    ck_assert(md_file_save(path, data, cut, NULL));
    ck_assert_msg(!reads_whole(path), "%zu of %zu bytes are taken for the whole", cut, len);
  }
  char *more = calloc(1, len + 1);
  memcpy(more, data, len);
  ck_assert(md_file_save(path, more, len + 1, NULL));
  ck_assert(!reads_whole(path));
  ck_assert(md_file_save(path, data, len, NULL));
  ck_assert(reads_whole(path));
  free(more);
  free(data);
}
END_TEST

// A header may lie with a good checksum.
START_TEST(lies_in_a_header_are_refused) {
  static const struct {
    int at, bytes;
    uint64_t value;
  } lie[] = {{6, 1, 3},          {7, 1, 1},           {8, 4, 0},  {8, 4, 1000001},
             {8, 4, FRAMES + 1}, {8, 4, 0xFFFFFFFF},  {12, 4, 0}, {12, 4, 0x7FFFFFFF},
             {16, 4, 8193},      {20, 4, 0xFFFFFFFF}, {12, 4, 8}, {52, 4, 2}};
  write_tiny(in_folder("a.mmap1"));
  char *data;
  size_t len;
  ck_assert(md_file_read(in_folder("a.mmap1"), 1 << 20, E0851, NULL, &data, &len));
  for (int i = 0; i < MD_COUNT(lie); i++) {
    char *copy = malloc(len);
    memcpy(copy, data, len);
    for (int k = 0; k < lie[i].bytes; k++) copy[lie[i].at + k] = (char)(lie[i].value >> 8 * k);
    memset(copy + 72, 0, 8);
    uint64_t sum = md_digest_of(copy, TABLES).lo;
    for (int k = 0; k < 8; k++) copy[72 + k] = (char)(sum >> 8 * k);
    ck_assert(md_file_save(in_folder("b.mmap1"), copy, len, NULL));
    ck_assert_msg(!reads_whole(in_folder("b.mmap1")), "lie %d is believed", i);
    free(copy);
  }
  free(data);
  md_fault f;
  ck_assert_ptr_null(md_map_open(in_folder("nothing"), &f));
  ck_assert_int_eq(f.code, E0850);
  ck_assert_ptr_null(md_map_open(folder, &f));
  ck_assert_int_eq(f.code, E0851);
}
END_TEST

START_TEST(a_writer_that_gives_up_leaves_nothing) {
  md_map_writer *w = md_map_create(in_folder("a.mmap1"), &tiny, NULL);
  uint8_t planes[3 * MAP_W * MAP_H] = {0};
  ck_assert(md_map_add(w, planes, 0));
  md_map_abort(w);
  ck_assert_int_eq(rmdir(folder), 0);
  ck_assert_int_eq(mkdir(folder, 0700), 0);
}
END_TEST

// --- gamma

static md_timeline *at_rate(int64_t frames, double fps) {
  return md_timeline_make(frames, NULL, 1, (double[2]){fps, fps});
}

// The rule as it is written, clip by clip.
static double plain(const md_timeline *t, const float *score, md_clip_shape c, int64_t s,
                    md_gamma_rule rule) {
  double sum = 0, least = INFINITY;
  for (int j = 0; j < c.frames; j++) {
    double x = (double)score[md_clip_frame(t, c, (double)s, j)];
    sum += x;
    least = MD_MIN(least, x);
  }
  if (rule == MD_GAMMA_FIRST) return (double)score[md_clip_frame(t, c, (double)s, 0)];
  return rule == MD_GAMMA_ALL ? least : sum / c.frames;
}

START_TEST(gamma_draws_evenly_from_the_valid_starts) {
  static const double rates[] = {30, 25, 15, 60};
  const md_clip_shape clip = {16, 4, 8};
  for (int r = 0; r < MD_COUNT(rates); r++) {
    int64_t frames = (int64_t)(10 * rates[r]);
    md_timeline *t = at_rate(frames, rates[r]);
    float *score = calloc((size_t)frames, sizeof *score);
    // Idle but for two seconds, whose motion is uneven.
    for (int64_t i = frames / 2; i < frames / 2 + (int64_t)(2.5 * rates[r]); i++)
      score[i] = 0.125F + 0.25F * (float)md_hash_01(5, (uint64_t)i);
    for (int rule = 0; rule < 3; rule++) {
      int64_t valid[300], num = 0;
      for (int64_t s = 0; s <= 300 - 64; s++)
        if (plain(t, score, clip, s, (md_gamma_rule)rule) > 0.1) valid[num++] = s;
      ck_assert_int_gt(num, 0);
      ck_assert_int_lt(num, 300 - 64);
      for (int64_t k = 0; k < num; k++) {
        double unit = ((double)k + 0.5) / (double)num;
        double start = md_gamma_start(t, score, clip, 0.1, (md_gamma_rule)rule, unit);
        ck_assert_msg(start == (double)valid[k], "rule %d at %g fps: %g, not %lld", rule, rates[r],
                      start, (long long)valid[k]);
      }
    }
    free(score);
    md_timeline_destroy(t);
  }
}
END_TEST

START_TEST(gamma_takes_the_liveliest_clip_of_an_idle_video) {
  const md_clip_shape clip = {16, 4, 8};
  static float score[300];
  memset(score, 0, sizeof score);
  score[150] = 0.01F;
  md_timeline *t = at_rate(300, 30);
  for (int rule = 0; rule < 3; rule++)
    for (double unit = 0; unit < 1; unit += 0.3) {
      double start = md_gamma_start(t, score, clip, 0.02, (md_gamma_rule)rule, unit);
      // Frame 150 is frame j of the clips from 150 - 4 j; the first of the best is taken.
      ck_assert_double_eq(start, rule == MD_GAMMA_FIRST ? 150 : 90);
    }
  md_timeline_destroy(t);
  t = at_rate(20, 30);  // shorter than a clip
  ck_assert_double_eq(md_gamma_start(t, score, clip, 0.02, MD_GAMMA_MEAN, 0.9), 0);
  md_timeline_destroy(t);
  t = at_rate(1, 30);
  ck_assert_double_eq(md_gamma_start(t, score, clip, 0.02, MD_GAMMA_ALL, 0.9), 0);
  md_timeline_destroy(t);
}
END_TEST

// --- the maps of a data set, and a loader that takes clips from them

enum { VIDEOS = 4, SIDE = 48 };

// A square that begins to move at frame 60, over a still texture.
static uint32_t late_square(int t, int x, int y) {
  int left = 8 + MD_MAX(t - 60, 0) % 16 * 2;
  bool inside = x >= left && x < left + 16 && y >= 16 && y < 32;
  uint32_t grey = (uint32_t)texture(inside ? 300 + x - left : x, y);
  return grey << 16 | grey << 8 | grey;
}

static void make_set(void) {
  static const int frames[VIDEOS] = {150, 40, 3, 1};
  ck_assert_int_eq(mkdir(in_folder("set"), 0700), 0);
  ck_assert_int_eq(mkdir(in_folder("set/inner"), 0700), 0);
  for (int i = 0; i < VIDEOS; i++) {
    char name[32];
    snprintf(name, sizeof name, "set/%s%d.mkv", i % 2 ? "inner/" : "", i);
    make_video(&(made_video){.path = in_folder(name),
                             .is_lossless = true,
                             .w = 64,
                             .h = SIDE,
                             .frames = frames[i],
                             .fps_num = 30,
                             .fps_den = 1,
                             .key_every = 10,
                             .pixel = late_square});
  }
}

static md_maps_progress make_maps(const md_dataset *s, md_map_kind kind, const char *to, int jobs,
                                  md_diags *d) {
  md_maps_options o = {.set = s, .folder = to, .rule.kind = kind, .jobs = jobs};
  md_maps_progress p;
  ck_assert_msg(md_maps_make(&o, &p, d), "%s", md_diags_text(d));
  return p;
}

static md_digest file_digest(const char *path) {
  char *data;
  size_t len;
  ck_assert(md_file_read(path, 1 << 24, E0851, NULL, &data, &len));
  md_digest x = md_digest_of(data, len);
  free(data);
  return x;
}

// A name that begins like the folder's is no path below it: its maps would lie at another video's place.
START_TEST(maps_lie_where_the_video_lies_below_the_set) {
  md_data_item item[] = {{.path = "/data/vid/eo/a.mp4"},
                         {.path = "/data/video/a.mp4"},
                         {.path = "/data/vid/../b.mp4"}};
  md_dataset set = {.items = item, .num_items = MD_COUNT(item), .root = "/data/vid"};
  md_arena *a = md_arena_create();
  ck_assert_str_eq(md_map_path(a, "maps", &set, 0), "maps/eo/a.mp4.mmap1");
  ck_assert_str_eq(md_map_path(a, "maps", &set, 1), "maps/data/video/a.mp4.mmap1");
  ck_assert_str_eq(md_map_path(a, "maps", &set, 2), "maps/__/b.mp4.mmap1");
  set.root = "/data/vid/";
  ck_assert_str_eq(md_map_path(a, "maps", &set, 0), "maps/eo/a.mp4.mmap1");
  md_arena_destroy(a);
}
END_TEST

START_TEST(maps_are_made_once_and_again_when_something_changed) {
  make_set();
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  ck_assert_int_eq(s->num_items, VIDEOS);
  md_maps_progress p = make_maps(s, MD_MAP_EDGE, in_folder("m"), 2, d);
  ck_assert(p.made == VIDEOS && !p.kept && !p.failed);
  md_digest first = file_digest(in_folder("m/0.mkv.mmap1"));
  p = make_maps(s, MD_MAP_EDGE, in_folder("m"), 1, d);
  ck_assert(p.kept == VIDEOS && !p.made);
  // A file that was cut off and one of another video are made anew.
  ck_assert_int_eq(truncate(in_folder("m/0.mkv.mmap1"), 100), 0);
  FILE *f = fopen(in_folder("set/2.mkv"), "ab");
  fputc(0, f);
  fclose(f);
  p = make_maps(s, MD_MAP_EDGE, in_folder("m"), 3, d);
  ck_assert(p.kept == VIDEOS - 2 && p.made == 2);
  md_digest again = file_digest(in_folder("m/0.mkv.mmap1"));
  ck_assert(first.lo == again.lo && first.hi == again.hi);
  p = make_maps(s, MD_MAP_FLOW, in_folder("m"), 2, d);
  ck_assert(p.made == VIDEOS);
  // One bad video stops nothing and is listed until it is good again.
  f = fopen(in_folder("set/2.mkv"), "wb");
  fputs("text", f);
  fclose(f);
  p = make_maps(s, MD_MAP_FLOW, in_folder("m"), 2, d);
  ck_assert(p.failed == 1 && p.kept == VIDEOS - 1 && md_diags_warnings(d) == 1);
  ck_assert_int_eq(access(in_folder("m/quarantine.txt"), R_OK), 0);
  make_video(&(made_video){.path = in_folder("set/2.mkv"),
                           .is_lossless = true,
                           .w = 64,
                           .h = SIDE,
                           .frames = 3,
                           .fps_num = 30,
                           .fps_den = 1,
                           .pixel = late_square});
  p = make_maps(s, MD_MAP_FLOW, in_folder("m"), 2, d);
  ck_assert(p.made == 1 && !p.failed);
  ck_assert_int_ne(access(in_folder("m/quarantine.txt"), R_OK), 0);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

static bool stop_at_once(void *ctx, const md_maps_progress *p) {
  (void)p;
  ++*(int *)ctx;
  return false;
}

START_TEST(a_stopped_run_leaves_nothing_half_and_goes_on) {
  make_set();
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  int ticks = 0;
  md_maps_options o = {.set = s,
                       .folder = in_folder("m"),
                       .rule.kind = MD_MAP_EDGE,
                       .jobs = 1,
                       .tick = stop_at_once,
                       .ctx = &ticks};
  md_maps_progress first, second;
  ck_assert(md_maps_make(&o, &first, d));
  ck_assert(ticks > 0 && !first.failed && !md_diags_warnings(d));
  o.tick = NULL;
  ck_assert(md_maps_make(&o, &second, d));
  ck_assert(second.kept == first.made && second.made == VIDEOS - first.made && !second.failed);
  // Complete files only: folders m, m/inner and a file for each video.
  char command[256], text[16] = "";
  snprintf(command, sizeof command, "find '%s' | wc -l", in_folder("m"));
  FILE *f = popen(command, "r");
  ck_assert_ptr_nonnull(fgets(text, sizeof text, f));
  pclose(f);
  ck_assert_int_eq(atoi(text), VIDEOS + 2);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(scores_tell_where_something_moves) {
  make_set();
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  for (int kind = 0; kind < MD_NUM_MAP_KINDS; kind++) {
    make_maps(s, (md_map_kind)kind, in_folder("m"), 2, d);
    md_fault f;
    md_map *m = md_map_open(in_folder("m/0.mkv.mmap1"), &f);
    ck_assert_msg(m != NULL, "%s", f.text);
    const md_map_info *i = md_map_about(m);
    ck_assert(i->frames == 150 && i->w == 64 && i->h == SIDE);
    ck_assert_int_eq(i->lag, kind == MD_MAP_DIFF ? 1 : 5);
    // Frame 61 is the first that differs from the one before; it stays within the lag until 65.
    for (int t = 0; t <= 60; t++) ck_assert(md_map_scores(m)[t] == 0);
    for (int t = 62; t < 75; t++) ck_assert(md_map_scores(m)[t] > 0);
    // Frames before the lag show the map of the first pair.
    uint8_t *first = malloc((size_t)3 * 64 * SIDE);
    size_t bytes = (size_t)md_map_planes(i->kind) * 64 * SIDE;
    memcpy(first, md_map_frame(m, i->lag, &f), bytes);
    for (int t = 0; t < i->lag; t++) ck_assert_mem_eq(md_map_frame(m, t, &f), first, bytes);
    free(first);
    md_map_close(m);
  }
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(the_loader_takes_clips_from_maps_and_replaces_what_has_none) {
  make_set();
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  make_maps(s, MD_MAP_FLOW, in_folder("m"), 2, d);
  ck_assert_int_eq(unlink(in_folder("m/2.mkv.mmap1")), 0);
  ck_assert_int_eq(truncate(in_folder("m/inner/1.mkv.mmap1"), 200), 0);
  const char *maps = in_folder("m");
  md_digest seen[3] = {{0}};
  for (int workers = 0; workers < 3; workers++) {
    md_loader_options o = {.data = s,
                           .rule = {.visual = {2, 8, 16},
                                    .motion = {4, 4, SIDE},
                                    .from = {.maps = maps, .kind = MD_MAP_FLOW, .gamma = 0.001}},
                           .batch = 8,
                           .workers = workers,
                           .seed = 3};
    md_loader *l = md_loader_create(&o, d);
    md_batch b;
    ck_assert_msg(md_loader_next(l, &b) == MD_OK, "%s", md_diags_text(d));
    size_t clip = (size_t)3 * 4 * SIDE * SIDE;
    seen[workers] = md_digest_of(b.clip[MD_MQ], 8 * clip);
    for (int i = 0; i < b.size; i++) {
      const char *path = s->items[b.id[i]].path;
      ck_assert_msg(strstr(path, "0.mkv") || strstr(path, "3.mkv"), "%s has no map", path);
      if (!strstr(path, "0.mkv")) continue;
      // The clip moves: the planes of the last frame are those of some map, and not all still.
      const uint8_t *q = b.clip[MD_MQ] + (size_t)i * clip;
      bool moves = false;
      for (size_t k = 0; k < clip; k++) moves = moves || q[k] != 128;
      ck_assert_msg(moves, "an idle clip, though others move");
    }
    ck_assert_int_eq(md_loader_stats_now(l).quarantined, 2);
    md_loader_destroy(l);
  }
  ck_assert(seen[0].lo == seen[1].lo && seen[1].lo == seen[2].lo);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

START_TEST(clips_show_the_maps_that_the_table_names) {
  make_set();
  md_diags *d = md_diags_create();
  md_dataset *s = md_dataset_open(&(md_dataset_options){.path = in_folder("set")}, d);
  make_maps(s, MD_MAP_EDGE, in_folder("m"), 2, d);
  md_sample_rule r = {.visual = {2, 8, 16},
                      .motion = {4, 4, SIDE},
                      .from = {.maps = in_folder("m"), .kind = MD_MAP_EDGE, .gamma = 0.5},
                      .in_sync = true};  // so gamma has no say
  md_fault f;
  md_timeline *t = md_timeline_read(in_folder("set/0.mkv"), NULL, &f);
  uint8_t *clip[2] = {malloc((size_t)4 * SIDE * SIDE), malloc((size_t)4 * SIDE * SIDE)};
  md_sample_out out = {.clip = {[MD_MQ] = clip[0], [MD_MK] = clip[1]}};
  double starts[MD_NUM_SLOTS];
  md_sample_starts(&r, 7, t, starts);
  ck_assert(md_map_clips(in_folder("m/0.mkv.mmap1"), t, &r, 7, &out, &f));
  md_map *m = md_map_open(in_folder("m/0.mkv.mmap1"), &f);
  for (int c = 0; c < 2; c++)
    for (int j = 0; j < 4; j++) {
      // The short side is that of the maps: nothing is resized, the middle columns are taken.
      int64_t frame = md_clip_frame(t, r.motion, starts[MD_MQ + c], j);
      const uint8_t *q = md_map_frame(m, (int)frame, &f);
      for (int y = 0; y < SIDE; y++)
        ck_assert_mem_eq(clip[c] + (j * SIDE + y) * SIDE, q + y * 64 + 8, SIDE);
    }
  r.from.random_place = true;  // of the 16 columns that are left over
  ck_assert(md_map_clips(in_folder("m/0.mkv.mmap1"), t, &r, 7, &out, &f));
  for (int c = 0; c < 2; c++) {
    double at[2];
    md_sample_place(&r, 7, (md_slot)(MD_MQ + c), at);
    int left = (int)ceil(16 * at[0] - 0.5);
    ck_assert_int_ne(left, 8);
    for (int j = 0; j < 4; j++) {  // all frames of a clip show the same place
      int64_t frame = md_clip_frame(t, r.motion, starts[MD_MQ + c], j);
      const uint8_t *q = md_map_frame(m, (int)frame, &f);
      for (int y = 0; y < SIDE; y++)
        ck_assert_mem_eq(clip[c] + (j * SIDE + y) * SIDE, q + y * 64 + left, SIDE);
    }
  }
  r.from.random_place = false;
  r.from.kind = MD_MAP_FLOW;
  ck_assert(!md_map_clips(in_folder("m/0.mkv.mmap1"), t, &r, 7, &out, &f) && f.code == E0851);
  r.from.kind = MD_MAP_EDGE;
  ck_assert(!md_map_clips(in_folder("m/2.mkv.mmap1"), t, &r, 7, &out, &f) && f.code == E0851);
  t->file_bytes++;  // another video, which has as many frames
  ck_assert(!md_map_clips(in_folder("m/0.mkv.mmap1"), t, &r, 7, &out, &f) && f.code == E0851);
  md_map_close(m);
  md_timeline_destroy(t);
  free(clip[0]);
  free(clip[1]);
  md_dataset_destroy(s);
  md_diags_destroy(d);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {flow_finds_translations_with_their_sign,
                                flow_of_equal_or_empty_frames_is_zero,
                                flow_takes_frames_of_any_size,
                                flow_runs_the_iterations_that_are_asked_for,
                                edges_of_a_translation_are_zero_inside,
                                edges_of_a_step_are_half_its_height_up_to_the_clamp,
                                edges_of_a_rotation_are_constant_inside,
                                a_moving_square_shows_as_a_ring,
                                signed_bytes_have_an_exact_zero,
                                maps_come_back_from_their_file,
                                each_damaged_byte_of_a_file_is_found,
                                lies_in_a_header_are_refused,
                                a_writer_that_gives_up_leaves_nothing,
                                gamma_draws_evenly_from_the_valid_starts,
                                gamma_takes_the_liveliest_clip_of_an_idle_video,
                                maps_lie_where_the_video_lies_below_the_set,
                                maps_are_made_once_and_again_when_something_changed,
                                a_stopped_run_leaves_nothing_half_and_goes_on,
                                scores_tell_where_something_moves,
                                the_loader_takes_clips_from_maps_and_replaces_what_has_none,
                                clips_show_the_maps_that_the_table_names};
  Suite *suite = suite_create("motion");
  TCase *c = tcase_create("all");
  tcase_add_checked_fixture(c, make_folder, remove_folder);
  tcase_set_timeout(c, 120);
  for (int i = 0; i < MD_COUNT(tests); i++) tcase_add_test(c, tests[i]);
  suite_add_tcase(suite, c);
  SRunner *r = srunner_create(suite);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed > 0;
}
