// SPDX-License-Identifier: Apache-2.0
// Ablations: each switch changes what it is there for, and nothing else (spec 8, last line).
#include "runtime/train/train.h"

#include "runtime/video/motion.h"
#include "tests/unit/folder.h"
#include "tests/unit/suite.h"

#include <math.h>

// A text in the graph and how often it stands there without and with the switch; -1: at all.
typedef struct Count {
  const char *text;
  int before, after;
} Count;

typedef struct Switch {
  char *setting[3];
  const char *terms;  // what the loss is the sum of
  bool same_states;   // no weight, statistic, bank or slow copy is added or removed
  Count count[4];
} Switch;

#define ALL "v m vm mv"
static const Switch switches[] = {
    {{"model.mode=rgb"}, "v", false, {{"%mq: ", 1, 0}, {"@bank.m ", -1, 0}, {"loss_m=", 1, 0}}},
    {{"mclip.input=flow"}, ALL, true, {{"%mq: u8[8,1,", 1, 0}, {"%mq: u8[8,3,", 0, 1}}},
    {{"mclip.input=mag3"}, ALL, true, {{"%mq: u8[8,1,", 1, 0}, {"%mq: u8[8,3,", 0, 1}}},
    {{"mclip.input=signed_rgb"}, ALL, true, {{"%mq: u8[8,1,", 1, 0}, {"%mq: u8[8,3,", 0, 1}}},
    {{"mclip.crop=random"}, ALL, true, {{0}}},
    {{"loss.w_m=0"}, "v vm mv", true, {{"loss_m=", 1, 1}}},
    {{"loss.w_mv=0"}, "v m", true, {{"loss_vm=", 1, 1}}},
    {{"loss.cross_neg=key"},
     ALL,
     true,
     {{"matmul %v, %bank.v", 2, 1},
      {"matmul %v, %bank.m", 0, 1},
      {"matmul %m, %bank.m", 2, 1},
      {"matmul %m, %bank.v", 0, 1}}},
    {{"model.motion=frames2d_stem5", "head.dim=16"},
     ALL,
     false,
     {{": f32[4,3,1,7,7]", -1, 0}, {"state @m.s4.b5.a.w", 0, 1}, {"state @v.s4.b5.a.w", 0, 0}}},
    {{"bank.enqueue=before"},
     ALL,
     true,
     {{"matmul %v, %bank.v", 2, 0}, {"%ids, %bank.ids", 4, 0}, {"bank_push", 3, 3}}},
    {{"bank.init=empty"},
     ALL,
     false,
     {{"{init=unit_rows}", 2, 0}, {"{init=fill, a=-1}", 1, 0}, {"{init=fill, a=-2}", 0, 1}}},
    {{"bn.groups=2"},
     ALL,
     true,
     {{"%perm: i32[8]", 0, 1}, {"gather_rows", 0, 4}, {"groups=2", 0, -1}}},
    {{"clip.jitter=false"}, ALL, true, {{0}}},
    {{"mclip.gamma=0"}, ALL, true, {{0}}},
    {{"epochs=7"}, ALL, true, {{0}}},
    {{"data.train=other"}, ALL, true, {{0}}}};

static md_config *load(char *const *settings, md_step *s) {
  int num = 0;
  while (settings[num]) num++;
  md_diags *d = md_diags_create();
  md_config *c = md_config_load(NULL, settings, num, d);
  ck_assert_msg(c && md_train_step(c, s, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
  return c;
}

static md_graph *graph_with(char *const *settings, md_text *text) {
  md_step s = md_step_defaults();
  md_config_destroy(load(settings, &s));
  md_diags *d = md_diags_create();
  md_graph *g = md_step_graph(&s, d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  md_graph_print(g, text);
  md_diags_destroy(d);
  return g;
}

static int count_text(const char *in, const char *text) {
  int num = 0;
  for (const char *at = in; (at = strstr(at, text)); at += strlen(text)) num++;
  return num;
}

// Names of the terms that are added up in `v`: of loss_v, "v".
static void add_terms(const md_graph *g, md_val v, md_text *to) {
  for (int i = 0; i < g->num_results; i++)
    if (g->result[i].val == v && strncmp(g->result[i].name, "loss_", 5) == 0) {
      md_put(to, "%s%s", to->len ? " " : "", g->result[i].name + 5);
      return;
    }
  const md_node *sum = md_def(g, v);
  ck_assert_int_eq(sum->op, MD_OP_add);
  for (int i = 0; i < 2; i++) add_terms(g, sum->in[i], to);
}

static bool same_states(const md_graph *a, const md_graph *b) {
  int num[2] = {0, 0};
  const md_graph *const each[] = {a, b};
  for (int g = 0; g < 2; g++)
    for (int i = 0; i < each[g]->num_nodes; i++) {
      const md_node *n = each[g]->node[i];
      if (n->op != MD_OP_state) continue;
      num[g]++;
      md_val other = md_find_state(each[!g], n->name);
      if (other == MD_NONE) return false;
      const md_type *t = md_type_in(each[g], n->out), *u = md_type_in(each[!g], other);
      const md_state_attr *p = &n->attr.state, *q = &md_def(each[!g], other)->attr.state;
      if (md_type_bytes(t) != md_type_bytes(u) || p->init != q->init || p->a != q->a) return false;
    }
  return num[0] == num[1];
}

static void expect_count(const char *setting, const char *in, const char *text, int want) {
  int found = count_text(in, text);
  ck_assert_msg(want < 0 ? found > 0 : found == want, "%s: '%s' stands there %d times, not %d",
                setting, text, found, want);
}

START_TEST(a_switch_changes_its_own_part_of_the_step) {
  md_text plain = {0};
  md_graph *g = graph_with((char *[]){NULL}, &plain);
  for (int i = 0; i < MD_COUNT(switches); i++) {
    const Switch *s = &switches[i];
    const char *name = s->setting[0];
    md_text text = {0}, terms = {0};
    md_graph *changed = graph_with(s->setting, &text);
    add_terms(changed, md_find_result(changed, "loss"), &terms);
    ck_assert_msg(strcmp(terms.s, s->terms) == 0, "%s: the loss is %s", name, terms.s);
    ck_assert_msg(same_states(g, changed) == s->same_states, "%s: states", name);
    for (int k = 0; k < MD_COUNT(s->count) && s->count[k].text; k++) {
      expect_count("default", plain.s, s->count[k].text, s->count[k].before);
      expect_count(name, text.s, s->count[k].text, s->count[k].after);
    }
    bool is_same = strcmp(plain.s, text.s) == 0;
    ck_assert_msg(is_same == !s->count[0].text, "%s: the graph is %s", name,
                  is_same ? "the same" : "another one");
    md_text_free(&text);
    md_text_free(&terms);
    md_graph_destroy(changed);
  }
  md_text_free(&plain);
  md_graph_destroy(g);
}
END_TEST

// --- the switches of the clips

enum { SIDE = 36, FRAMES = 8, BATCH = 8, PLANE = FRAMES * SIDE * SIDE };

static void make_videos(md_map_kind kind) {
  make_empty_folder();
  md_diags *d = md_diags_create();
  md_mini_options o = {.folder = in_folder("made"),
                       .split = MD_MINI_TUNE,
                       .videos = BATCH,
                       .size = SIDE,
                       .truth = {.folder = in_folder("maps"), .maps = {kind, .lag30 = 3}}};
  ck_assert_msg(md_mini_make(&o, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

// The first batch of a run.
typedef struct First {
  md_config *config;
  md_diags *diags;
  md_dataset *set;
  md_loader *loader;
  md_batch b;
} First;

// `setting` may be NULL.
static First first_batch(bool with_maps, char *input, char *setting) {
  char data[160], maps[160];
  snprintf(data, sizeof data, "data.train=%s", in_folder("made/tune.csv"));
  snprintf(maps, sizeof maps, "data.maps=%s", with_maps ? in_folder("maps") : "");
  char *settings[] = {data,
                      maps,
                      "mclip.frames=8",
                      "clip.stride=3",
                      "mclip.stride=3",
                      "mclip.size=36",
                      "data.workers=0",
                      input,
                      setting,
                      NULL};
  md_step s = md_step_defaults();
  First x = {.config = load(settings, &s), .diags = md_diags_create()};
  x.set = md_train_data(x.config, &s, x.diags);
  x.loader = md_train_loader(x.config, &s, x.set, &(md_feed_options){0}, x.diags);
  ck_assert_msg(x.loader && md_loader_next(x.loader, &x.b) == MD_OK, "%s", md_diags_text(x.diags));
  ck_assert_int_eq(x.b.size, BATCH);
  return x;
}

static void end_batch(First *x) {
  md_loader_destroy(x->loader);
  md_dataset_destroy(x->set);
  md_config_destroy(x->config);
  md_diags_destroy(x->diags);
}

// Motion clips of the first batch are those that the rule draws from the maps. Returns their digest.
static md_digest expect_clips(char *setting, const md_sample_rule *rule) {
  First x = first_batch(true, "mclip.input=edge", setting);
  static uint8_t clip[2][PLANE];
  md_arena *a = md_arena_create();
  for (int i = 0; i < BATCH; i++) {
    md_fault f;
    int video = x.b.id[i];
    md_timeline *t = md_timeline_read(x.set->items[video].path, NULL, &f);
    md_sample_out out = {.clip = {[MD_MQ] = clip[0], [MD_MK] = clip[1]}};
    const char *path = md_map_path(a, in_folder("maps"), x.set, video);
    ck_assert_msg(md_map_clips(path, t, rule, md_sample_key(0, 0, video, 0), &out, &f), "%s",
                  f.text);
    for (int k = 0; k < 2; k++)
      ck_assert_mem_eq(x.b.clip[MD_MQ + k] + (size_t)i * PLANE, clip[k], PLANE);
    md_timeline_destroy(t);
  }
  md_digest all = md_digest_of(x.b.clip[MD_MQ], (size_t)BATCH * PLANE);
  md_arena_destroy(a);
  end_batch(&x);
  return all;
}

START_TEST(a_switch_changes_which_clips_are_drawn) {
  make_videos(MD_MAP_EDGE);
  md_sample_rule plain = {.visual = {4, 3, SIDE},
                          .motion = {FRAMES, 3, SIDE},
                          .from = {.kind = MD_MAP_EDGE, .gamma = 0.02}};
  md_sample_rule in_sync = plain, moving = plain, any = plain;
  in_sync.in_sync = true;
  moving.from.gamma = 0.1;
  any.from.gamma = 0;
  md_digest clips[] = {
      expect_clips("clip.jitter=true", &plain), expect_clips("clip.jitter=false", &in_sync),
      expect_clips("mclip.gamma=0.1", &moving), expect_clips("mclip.gamma=0", &any)};
  for (int i = 0; i < MD_COUNT(clips); i++)
    for (int k = 0; k < i; k++) ck_assert(clips[i].lo != clips[k].lo);
  remove_folder();
}
END_TEST

// Square videos leave a square no room: what it does is in test_motion, that it is asked for here.
START_TEST(a_square_of_any_place_can_be_asked_for) {
  for (int random = 0; random < 2; random++) {
    md_step s = md_step_defaults();
    md_config *c = load((char *[]){random ? "mclip.crop=random" : "mclip.crop=center", NULL}, &s);
    md_diags *d = md_diags_create();
    md_motion_rule r = {0};
    ck_assert(md_train_maps(c, NULL, &r, d) && r.random_place == random && !r.maps);
    md_diags_destroy(d);
    md_config_destroy(c);
  }
}
END_TEST

START_TEST(mag3_shows_the_magnitude_three_times) {
  make_videos(MD_MAP_FLOW);
  First flow = first_batch(true, "mclip.input=flow", NULL);
  First mag3 = first_batch(true, "mclip.input=mag3", NULL);
  for (int k = MD_MQ; k <= MD_MK; k++)
    for (int i = 0; i < 3 * BATCH; i++)
      ck_assert_mem_eq(mag3.b.clip[k] + (size_t)i * PLANE,
                       flow.b.clip[k] + (size_t)(i / 3 * 3 + 2) * PLANE, PLANE);
  end_batch(&flow);
  end_batch(&mag3);
  remove_folder();
}
END_TEST

// Of signed differences d, the mean of |d| over the colours is the plain one. With nothing resized a
// byte of d is off by 255/127 / 2, one of the mean by 1/2.
START_TEST(signed_differences_have_the_plain_ones_as_their_size) {
  make_videos(MD_MAP_EDGE);
  First plain = first_batch(false, "mclip.input=diff", NULL);
  First both = first_batch(false, "mclip.input=signed_rgb", NULL);
  bool below = false, above = false;
  for (int k = MD_MQ; k <= MD_MK; k++)
    for (int i = 0; i < BATCH; i++)
      for (int p = 0; p < PLANE; p++) {
        double sum = 0;
        for (int c = 0; c < 3; c++) {
          int d = both.b.clip[k][(size_t)(3 * i + c) * PLANE + (size_t)p] - 128;
          below = below || d < 0;
          above = above || d > 0;
          sum += fabs(d * 255.0 / 127);
        }
        int want = plain.b.clip[k][(size_t)i * PLANE + (size_t)p];
        ck_assert_double_eq_tol(sum / 3, want, 0.5 * 255 / 127 + 0.5 + 1e-9);
      }
  ck_assert(below && above);
  end_batch(&plain);
  end_batch(&both);
  remove_folder();
}
END_TEST

SUITE_MAIN("switches", a_switch_changes_its_own_part_of_the_step,
           a_switch_changes_which_clips_are_drawn, a_square_of_any_place_can_be_asked_for,
           mag3_shows_the_magnitude_three_times,
           signed_differences_have_the_plain_ones_as_their_size)
