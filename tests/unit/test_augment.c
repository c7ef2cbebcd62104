// SPDX-License-Identifier: Apache-2.0
// Augmentation: the numbers that are drawn, and the part of the step that applies them, held against
// the formulas of spec §5.1 in plain loops.
#include "runtime/train/train.h"

#include "tests/tolerance.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <string.h>

enum { N = 3, T = 2, S = 8, FRAME = S * S, PLANE = T * FRAME, CLIP = 3 * PLANE, DRAWS = 10000 };

static const md_augment_rule paper = {.color = 0.8,
                                      .strength = {0.4, 0.4, 0.4},
                                      .gray = 0.2,
                                      .blur = 0.5,
                                      .sigma_min = 0.1,
                                      .sigma_max = 2};

// --- the part of the step

typedef struct Inputs {
  uint8_t clip[N * CLIP], flip[N], gray[N];
  float color[N][3][3], sigma[N];
} Inputs;

static Inputs some_clips(void) {
  Inputs in = {0};
  uint64_t key = md_hash_key("clip", 1);
  for (int i = 0; i < N * CLIP; i++) in.clip[i] = (uint8_t)(md_hash_at(key, (uint64_t)i) % 256);
  for (int n = 0; n < N; n++)
    for (int i = 0; i < 3; i++) in.color[n][i][0] = 1;
  return in;
}

static void set(md_engine *e, const char *name, const void *from) {
  md_type type;
  void *to = md_engine_input(e, name, &type);
  if (to) memcpy(to, from, (size_t)md_type_bytes(&type));
}

static void augment(md_backend backend, const md_augment *a, const Inputs *in,
                    double out[N * CLIP]) {
  md_diags *d = md_diags_create();
  md_graph *g = md_graph_create("augment");
  md_builder b;
  md_builder_init(&b, g, d);
  md_val raw = md_input(&b, "vq", md_type_of(MD_U8, 5, (int64_t[]){N, 3, T, S, S}));
  md_return(&b, "x", md_augment_clip(&b, a, "vq", raw));
  md_engine_options o = {.backend = backend, .passes = md_pass_defaults(), .no_cache = true};
  md_engine *e = md_engine_create(g, &o, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  set(e, "vq", in->clip);
  set(e, "vq_flip", in->flip);
  set(e, "vq_color", in->color);
  set(e, "vq_gray", in->gray);
  set(e, "vq_sigma", in->sigma);
  ck_assert(md_engine_step(e, d));
  ck_assert(md_engine_result(e, "x", out, (int64_t)N * CLIP));
  md_engine_destroy(e);
  md_diags_destroy(d);
}

// One clip, spec §5.1 read aloud. Kinds and factors as drawn; factor 1 of any kind does nothing.
typedef struct Look {
  bool flip, gray;
  md_color_kind kind[3];
  double factor[3], sigma;
} Look;

static double luma_of(const double *x, int at) {
  return 0.299 * x[at] + 0.587 * x[PLANE + at] + 0.114 * x[2 * PLANE + at];
}

static void jitter(double *x, md_color_kind kind, double f) {
  for (int t = 0; t < T; t++) {
    double mean = 0;
    for (int i = 0; i < FRAME; i++) mean += luma_of(x, t * FRAME + i) / FRAME;
    for (int i = t * FRAME; i < (t + 1) * FRAME; i++) {
      double toward = kind == MD_BRIGHTNESS ? 0 : kind == MD_CONTRAST ? mean : luma_of(x, i);
      for (int c = 0; c < 3; c++) {
        double y = x[c * PLANE + i] * f + (1 - f) * toward;
        x[c * PLANE + i] = fmin(fmax(y, 0), 1);
      }
    }
  }
}

static int mirrored(int i) { return i < 0 ? -i : i < S ? i : 2 * (S - 1) - i; }

static void blur(double *x, double sigma) {
  double side = exp(-0.5 / (sigma * sigma)), total = 1 + 2 * side, y[FRAME];
  double w[3] = {side / total, 1 / total, side / total};
  for (int p = 0; p < 3 * T; p++) {
    for (int i = 0; i < S; i++)
      for (int j = 0; j < S; j++) {
        y[i * S + j] = 0;
        for (int a = 0; a < 3; a++)
          for (int b = 0; b < 3; b++)
            y[i * S + j] +=
                w[a] * w[b] * x[p * FRAME + mirrored(i + a - 1) * S + mirrored(j + b - 1)];
      }
    memcpy(x + (ptrdiff_t)p * FRAME, y, sizeof y);
  }
}

static void expected(const uint8_t *clip, const Look *look, double out[CLIP]) {
  for (int i = 0; i < CLIP; i++) {
    int col = i % S, from = look->flip ? i - col + S - 1 - col : i;
    out[i] = clip[from] / 255.0;
  }
  for (int i = 0; i < 3; i++) jitter(out, look->kind[i], look->factor[i]);
  for (int i = 0; look->gray && i < PLANE; i++) {
    double y = luma_of(out, i);
    for (int c = 0; c < 3; c++) out[c * PLANE + i] = y;
  }
  if (look->sigma > 0) blur(out, look->sigma);
  for (int i = 0; i < CLIP; i++) out[i] = (out[i] - 0.45) / 0.225;
}

static void put(Inputs *in, int n, const Look *look) {
  in->flip[n] = look->flip;
  in->gray[n] = look->gray;
  in->sigma[n] = (float)look->sigma;
  for (int i = 0; i < 3; i++) {
    float f = (float)look->factor[i], rest = (float)(1 - look->factor[i]);
    float row[3] = {f, look->kind[i] == MD_CONTRAST ? rest : 0,
                    look->kind[i] == MD_SATURATION ? rest : 0};
    memcpy(in->color[n][i], row, sizeof row);
  }
}

static void expect(const Look look[N], const md_augment *a) {
  static double got[N * CLIP], want[CLIP];
  Inputs in = some_clips();
  for (int n = 0; n < N; n++) put(&in, n, &look[n]);
  for (int backend = MD_BACKEND_CPU; backend <= MD_BACKEND_INTERP; backend++) {
    augment((md_backend)backend, a, &in, got);
    // The longest sum is the mean of a frame; a normalised value is at most 2.45.
    double tol = md_tolerance(MD_F32, FRAME, 2.45);
    for (int n = 0; n < N; n++) {
      expected(in.clip + (ptrdiff_t)n * CLIP, &look[n], want);
      for (int i = 0; i < CLIP; i++)
        ck_assert_msg(fabs(got[n * CLIP + i] - want[i]) <= tol, "clip %d, element %d: %g, not %g",
                      n, i, got[n * CLIP + i], want[i]);
    }
  }
}

static const Look plain = {.factor = {1, 1, 1}};

START_TEST(each_stage_follows_its_formula) {
  static const double factors[] = {0.6, 1.4, 0};
  for (int kind = 0; kind < MD_COLOR_KINDS; kind++) {
    Look look[N];
    for (int n = 0; n < N; n++) {
      look[n] = plain;
      look[n].kind[n] = (md_color_kind)kind;  // in each of the three places
      look[n].factor[n] = factors[n];
    }
    expect(look, &(md_augment){.color = true});
  }
  Look gray = {.gray = true, .factor = {1, 1, 1}}, flip = {.flip = true, .factor = {1, 1, 1}};
  expect((Look[N]){plain, gray, plain}, &(md_augment){.gray = true});
  expect((Look[N]){flip, plain, flip}, &(md_augment){0});
  Look soft = plain, sharp = plain;
  soft.sigma = 2;
  sharp.sigma = 0.3;
  expect((Look[N]){soft, plain, sharp}, &(md_augment){.blur = true});
}
END_TEST

START_TEST(stages_follow_one_another) {
  Look a = {true, true, {MD_CONTRAST, MD_BRIGHTNESS, MD_SATURATION}, {1.4, 1.3, 0.7}, 1.1};
  Look b = {false, false, {MD_SATURATION, MD_CONTRAST, MD_BRIGHTNESS}, {0.6, 1.2, 1.4}, 0};
  Look c = {true, false, {MD_BRIGHTNESS, MD_SATURATION, MD_CONTRAST}, {1.4, 1.4, 0.6}, 0.5};
  expect((Look[N]){a, b, c}, &(md_augment){true, true, true});
}
END_TEST

// A clip that nothing was drawn for comes out as if the stages were not there, up to the rounding of
// x/255 in between.
START_TEST(what_is_not_drawn_changes_nothing) {
  expect((Look[N]){plain, plain, plain}, &(md_augment){true, true, true});
}
END_TEST

static bool has_node(const md_graph *g, md_op op) {
  for (int i = 0; i < g->num_nodes; i++)
    if (g->node[i]->op == op) return true;
  return false;
}

static bool has_input(const md_graph *g, const char *name) {
  for (int i = 0; i < g->num_nodes; i++)
    if (g->node[i]->op == MD_OP_input && !strcmp(g->node[i]->name, name)) return true;
  return false;
}

START_TEST(probability_0_leaves_the_stage_out) {
  static const struct {
    char *off;
    const char *input;
    md_op op;
  } cases[] = {{"aug.color=0", "vk_color", MD_OP_clamp},
               {"aug.gray=0", "vk_gray", MD_OP_none},
               {"aug.blur=0", "vk_sigma", MD_OP_gaussian_blur}};
  for (int i = -1; i < MD_COUNT(cases); i++) {
    char *override[] = {"aug.color=0.8", "aug.gray=0.2", "aug.blur=0.5",
                        i < 0 ? "batch=2" : cases[i].off};
    md_diags *d = md_diags_create();
    md_config *c = md_config_load(NULL, override, 4, d);
    md_step s;
    ck_assert_msg(c && md_train_step(c, &s, d), "%s", md_diags_text(d));
    md_graph *g = md_step_graph(&s, d);
    ck_assert_ptr_nonnull(g);
    for (int k = 0; k < MD_COUNT(cases); k++) {
      ck_assert_msg(has_input(g, cases[k].input) == (i != k), "%s with %s", cases[k].input,
                    i < 0 ? "everything" : cases[i].off);
      if (cases[k].op != MD_OP_none) ck_assert(has_node(g, cases[k].op) == (i != k));
    }
    md_graph_destroy(g);
    g = md_features_graph(&s, d);  // evaluation sees clips as they are
    ck_assert(g && !has_node(g, MD_OP_clamp) && !has_node(g, MD_OP_gaussian_blur));
    md_graph_destroy(g);
    md_config_destroy(c);
    md_diags_destroy(d);
  }
}
END_TEST

START_TEST(models_say_what_they_take) {
  md_step s = md_step_defaults();
  md_model_from("modist-r3d50")->fill(&s);
  ck_assert(s.augment.color && s.augment.gray && s.augment.blur);
  md_diags *d = md_diags_create();
  md_config *c = md_config_load(NULL, (char *[]){"model.name=modist-tiny"}, 1, d);
  ck_assert(c && md_config_float(c, "aug.color") == 0 && md_config_float(c, "aug.gray") == 0 &&
            md_config_float(c, "aug.blur") == 0);
  md_config_destroy(c);
  c = md_config_load(NULL, (char *[]){"model.name=modist-r3d50"}, 1, d);
  ck_assert(c && md_config_float(c, "aug.color") == 0.8 && md_config_float(c, "aug.gray") == 0.2 &&
            md_config_float(c, "aug.blur") == 0.5);
  md_config_destroy(c);
  md_diags_destroy(d);
}
END_TEST

// --- what is drawn

static md_color_kind kind_of(const float stage[3]) {
  return stage[1] != 0 ? MD_CONTRAST : stage[2] != 0 ? MD_SATURATION : MD_BRIGHTNESS;
}

static bool is_colored(const md_look *l) {
  for (int i = 0; i < 3; i++)
    if (l->color[i][0] != 1 || l->color[i][1] != 0 || l->color[i][2] != 0) return true;
  return false;
}

// Counts lie within five standard deviations of a binomial distribution: one seed, one outcome.
static void expect_share(int count, int of, double p) {
  double sd = sqrt(of * p * (1 - p));
  ck_assert_msg(fabs(count - of * p) <= 5 * sd, "%d of %d, but p is %g", count, of, p);
}

START_TEST(frequencies_are_as_asked) {
  int color = 0, gray = 0, blur = 0, order[27] = {0};
  double sum[3] = {0}, sigma = 0;
  for (int i = 0; i < DRAWS; i++) {
    md_look l = md_look_draw(&paper, md_sample_key(1, 0, i, 0), MD_VQ);
    gray += l.gray;
    blur += l.sigma > 0;
    sigma += l.sigma;
    if (l.sigma > 0) ck_assert(l.sigma >= 0.1F && l.sigma <= 2.0F);
    if (!is_colored(&l)) continue;
    color++;
    int k[3], seen = 0;
    for (int j = 0; j < 3; j++) {
      k[j] = (int)kind_of(l.color[j]);
      seen |= 1 << k[j];
      float f = l.color[j][0];
      ck_assert(f >= 0.6F && f <= 1.4F);
      ck_assert(l.color[j][1] == 0 || l.color[j][2] == 0);
      if (k[j] != MD_BRIGHTNESS)
        ck_assert_float_eq_tol(f + l.color[j][1] + l.color[j][2], 1, 1e-6F);
      sum[k[j]] += (double)f;
    }
    ck_assert_int_eq(seen, 7);  // each kind once
    order[9 * k[0] + 3 * k[1] + k[2]]++;
  }
  expect_share(color, DRAWS, 0.8);
  expect_share(gray, DRAWS, 0.2);
  expect_share(blur, DRAWS, 0.5);
  for (int i = 0; i < 27; i++)
    if (order[i]) expect_share(order[i], color, 1.0 / 6);
  int orders = 0;
  for (int i = 0; i < 27; i++) orders += order[i] > 0;
  ck_assert_int_eq(orders, 6);
  // Means of uniform numbers: sd (hi - lo) / sqrt(12 n).
  for (int k = 0; k < 3; k++)
    ck_assert_double_eq_tol(sum[k] / color, 1, 5 * 0.8 / sqrt(12.0 * color));
  ck_assert_double_eq_tol(sigma / blur, 1.05, 5 * 1.9 / sqrt(12.0 * blur));
}
END_TEST

START_TEST(draws_are_independent_between_clips_and_events) {
  int both[3] = {0}, gray_and_blur = 0, again = 0;
  for (int i = 0; i < DRAWS; i++) {
    uint64_t key = md_sample_key(1, 0, i, 0);
    md_look q = md_look_draw(&paper, key, MD_VQ), k = md_look_draw(&paper, key, MD_VK);
    md_look q2 = md_look_draw(&paper, key, MD_VQ);
    ck_assert_mem_eq(&q, &q2, sizeof q);
    both[0] += is_colored(&q) && is_colored(&k);
    both[1] += q.gray && k.gray;
    both[2] += q.sigma > 0 && k.sigma > 0;
    gray_and_blur += q.gray && q.sigma > 0;
    again += q.sigma == k.sigma && q.sigma > 0;
  }
  expect_share(both[0], DRAWS, 0.8 * 0.8);
  expect_share(both[1], DRAWS, 0.2 * 0.2);
  expect_share(both[2], DRAWS, 0.5 * 0.5);
  expect_share(gray_and_blur, DRAWS, 0.2 * 0.5);
  ck_assert_int_eq(again, 0);
}
END_TEST

START_TEST(nothing_is_drawn_at_probability_0_everything_at_1) {
  md_augment_rule all = {1, {2, 0, 0.5}, 1, 1, 0.7, 0.7}, none = {0};
  for (int i = 0; i < 1000; i++) {
    uint64_t key = md_sample_key(2, 0, i, 0);
    md_look l = md_look_draw(&none, key, MD_VK);
    ck_assert(!is_colored(&l) && !l.gray && l.sigma == 0);
    l = md_look_draw(&all, key, MD_VK);
    ck_assert(l.gray && l.sigma == 0.7F);
    for (int j = 0; j < 3; j++) ck_assert(l.color[j][0] >= 0 && l.color[j][0] <= 3);
  }
}
END_TEST

SUITE_MAIN("augment", each_stage_follows_its_formula, stages_follow_one_another,
           what_is_not_drawn_changes_nothing, probability_0_leaves_the_stage_out,
           models_say_what_they_take, frequencies_are_as_asked,
           draws_are_independent_between_clips_and_events,
           nothing_is_drawn_at_probability_0_everything_at_1)
