// SPDX-License-Identifier: Apache-2.0
// The plan that cuDNN's heuristics choose for a graph,
//
//   graph -> heuristic -> configurations of engines -> plan
//
// or the one that they chose before: it is kept as cuDNN's JSON, under the digest of all that the choice depends
// on. One that cuDNN does not take any more, or that needs more room than there is, is made anew.
#include "runtime/exec/cudnn.h"

#include "base/cache.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

// CUDNN_BACKEND_*_DESCRIPTOR
enum { ENGINE = 2, CONFIG = 3, HEURISTIC = 4, PLAN = 5, PACK = 16 };
// CUDNN_TYPE_*
enum { A_HANDLE = 0, A_HEURISTIC = 8, A_NOTE = 11 };
// CUDNN_ATTR_*
enum {
  HEUR_MODE = 200,
  HEUR_GRAPH,
  HEUR_RESULTS,
  HEUR_DEVICE = 204,
  CONFIG_ENGINE = 300,
  PLAN_HANDLE = 400,
  PLAN_CONFIG,
  PLAN_WORKSPACE,
  PLAN_JSON = 405,
  PLAN_DEVICE = 407,
  PACK_IDS = 1000,
  PACK_POINTERS,
  PACK_WORKSPACE = 1003,
  ENGINE_NOTES = 1303,
};
// CUDNN_NUMERICAL_NOTE_*
enum {
  TENSOR_CORE,
  DOWN_CONVERTS,
  REDUCED_SUMS,
  FFT,
  IS_RANDOM,
  WINOGRAD,
  WINOGRAD_LAST = 8,
  MAX_NOTES = 32
};
enum { FALLBACK = 2, FIRST_CHOICE = 3 };  // CUDNN_HEUR_MODE_*
enum { MAX_CONFIGS = 40, RULES = 1 };  // RULES: of the choice, a part of what plans are kept under

struct md_cudnn_plan {
  md_cudnn *c;
  md_cudnn_making all;  // what the plan is made of
  void *plan, *pack;
  bool
      is_second;  // one before it was refused for what may be otherwise another time, such as little memory
  int64_t workspace, id[MD_CUDNN_TENSORS];  // of tensors that have a place
  int num_ids, tensor[MD_CUDNN_TENSORS];    // their numbers
};

// Why there is no plan: the later ones say more than the earlier ones, and of equals the first counts.
typedef enum Refusal { NOT_REFUSED, UNSUITED, TOO_LARGE, FAILED } Refusal;
typedef struct Search {
  md_cudnn_plan *p;
  const md_cudnn_graph *g;
  void *graph;
  int64_t room;  // bytes that there are for the workspace
  Refusal refusal;
  char *why;
} Search;

static void refuse(Search *s, Refusal r, const char *why) {
  if (r <= s->refusal) return;
  s->refusal = r;
  snprintf(s->why, MD_CUDNN_WORDS, "%s", why);
}

// Results are to be the same in every run, and those of f32 as near as f32 has them.
static bool suits(md_cudnn_making *m, void *config, const md_cudnn_graph *g) {
  int note[MAX_NOTES];
  void *engine = md_cudnn_make(m, ENGINE, "an engine");
  md_cudnn_get(m, config, CONFIG_ENGINE, MD_CUDNN_DESCRIPTOR, 1, &engine);
  int64_t num = md_cudnn_get(m, engine, ENGINE_NOTES, A_NOTE, MAX_NOTES, note);
  for (int i = 0; i < num && i < MAX_NOTES; i++) {
    int n = note[i];
    if (n == IS_RANDOM || n == DOWN_CONVERTS || n == REDUCED_SUMS) return false;
    bool is_rough = n == TENSOR_CORE || n == FFT || (n >= WINOGRAD && n <= WINOGRAD_LAST);
    if (is_rough && g->is_exact) return false;
  }
  return true;
}

static void set_device(md_cudnn_making *m, void *plan) {
  void *handle = md_cudnn_handle(m->c), *device = md_cudnn_device(m->c);
  if (handle) md_cudnn_set(m, plan, PLAN_HANDLE, A_HANDLE, 1, &handle);
  else md_cudnn_set(m, plan, PLAN_DEVICE, MD_CUDNN_DESCRIPTOR, 1, &device);
}

// The plan of a configuration, and its workspace. What `tried` made goes with it.
static Refusal try(Search *s, md_cudnn_making *tried, void *config, void **plan) {
  char needed[MD_FLOAT_CHARS], left[MD_FLOAT_CHARS];
  if (!suits(tried, config, s->g)) {
    snprintf(tried->why, MD_CUDNN_WORDS, "no engine gives the same bits in every run%s",
             s->g->is_exact ? " and adds plain products of f32" : "");
    return UNSUITED;
  }
  void *p = md_cudnn_make(tried, PLAN, "a plan");
  md_cudnn_set(tried, p, PLAN_CONFIG, MD_CUDNN_DESCRIPTOR, 1, &config);
  set_device(tried, p);
  md_cudnn_finish(tried, p, "a plan");
  md_cudnn_get(tried, p, PLAN_WORKSPACE, MD_CUDNN_INT, 1, &s->p->workspace);
  if (tried->has_failed) return FAILED;
  *plan = p;
  if (s->p->workspace <= s->room) return NOT_REFUSED;
  snprintf(tried->why, MD_CUDNN_WORDS, "a plan needs %s of workspace, and %s are left",
           md_bytes_text((double)s->p->workspace, needed), md_bytes_text((double)s->room, left));
  return TOO_LARGE;
}

// Configurations in the order that cuDNN recommends; each is a descriptor of m.
static int configs_of(md_cudnn_making *m, void *graph, int mode, void *config[MAX_CONFIGS]) {
  void *device = md_cudnn_device(m->c), *h = md_cudnn_make(m, HEURISTIC, "a heuristic");
  md_cudnn_set(m, h, HEUR_GRAPH, MD_CUDNN_DESCRIPTOR, 1, &graph);
  md_cudnn_set(m, h, HEUR_MODE, A_HEURISTIC, 1, &mode);
  if (device) md_cudnn_set(m, h, HEUR_DEVICE, MD_CUDNN_DESCRIPTOR, 1, &device);
  md_cudnn_finish(m, h, "the choice of an engine");
  int64_t num = md_cudnn_get(m, h, HEUR_RESULTS, MD_CUDNN_DESCRIPTOR, 0, NULL);
  num = MD_MIN(num, MAX_CONFIGS);
  for (int i = 0; i < num; i++) config[i] = md_cudnn_make(m, CONFIG, "a configuration");
  if (num) num = md_cudnn_get(m, h, HEUR_RESULTS, MD_CUDNN_DESCRIPTOR, num, config);
  return m->has_failed ? 0 : (int)MD_MIN(num, MAX_CONFIGS);
}

static void note_failure(Search *s) {
  s->p->is_second = true;
  md_cudnn_count_failure(s->p->c);
}

static bool choose(Search *s, int mode) {
  void *config[MAX_CONFIGS], *plan = NULL;
  char why[MD_CUDNN_WORDS] = "";
  md_cudnn_making *all = &s->p->all, *tried = md_malloc(sizeof *tried);
  all->why = why;
  int num = configs_of(all, s->graph, mode, config);
  if (all->has_failed) {
    refuse(s, FAILED, why);
    if (!all->is_unsupported) note_failure(s);
  }
  all->has_failed = all->is_unsupported = false;
  for (int i = 0; i < num && !s->p->plan; i++) {
    *tried = (md_cudnn_making){.c = s->p->c, .why = why};
    Refusal r = try(s, tried, config[i], &plan);
    if (r == NOT_REFUSED) {
      s->p->plan = plan;
      all->made[all->num++] = tried->made[--tried->num];  // the last that was made
    }
    md_cudnn_drop(tried);
    s->p->is_second |= r == TOO_LARGE;
    if (r == FAILED && !tried->is_unsupported) note_failure(s);
    refuse(s, r, why);
  }
  free(tried);
  return s->p->plan != NULL;
}

static bool make(md_cudnn_plan *p, const md_cudnn_graph *g, int64_t room, char *why) {
  Search s = {.p = p, .g = g, .room = room, .why = why};
  s.graph = md_cudnn_graph_make(&p->all, g);
  if (p->all.has_failed) return false;
  snprintf(why, MD_CUDNN_WORDS, "no engine is for such a convolution");
  return choose(&s, FIRST_CHOICE) || choose(&s, FALLBACK);
}

// --- plans that are kept

static md_digest key_of(const md_cudnn *c, const md_cudnn_graph *g) {
  md_text all = {0};
  md_put(&all, "cuDNN %d, rules %d\n%s\n", md_cudnn_version(c), RULES, md_cudnn_described(c));
  md_cudnn_graph_text(g, &all);
  md_digest key = md_digest_of(all.s, all.len);
  md_text_free(&all);
  return key;
}

static bool load(md_cudnn_plan *p, md_digest key, int64_t room) {
  char *json, why[MD_CUDNN_WORDS] = "";
  size_t bytes;
  if (!md_cache_read(key, &json, &bytes)) return false;
  md_cudnn_making *m = &p->all;
  m->why = why;
  void *plan = md_cudnn_make(m, PLAN, "a plan");
  set_device(m, plan);
  md_cudnn_set(m, plan, PLAN_JSON, MD_CUDNN_CHARS, (int64_t)bytes, json);
  md_cudnn_finish(m, plan, "a plan that was kept");
  md_cudnn_get(m, plan, PLAN_WORKSPACE, MD_CUDNN_INT, 1, &p->workspace);
  free(json);
  if (!m->has_failed && p->workspace <= room) p->plan = plan;
  else
    md_log(MD_LOG_CACHE, MD_LEVEL_INFO, "a plan of cuDNN is made anew: %s",
           m->has_failed ? why : "it needs more workspace than there is");
  if (!p->plan) md_cudnn_drop(m);
  m->has_failed = m->is_unsupported = false;
  return p->plan != NULL;
}

// malloc'ed. NULL: `why` says why there is none.
static char *json_of(const md_cudnn_plan *p, char *why) {
  md_cudnn_making m = {.c = p->c, .why = why};
  int64_t num = md_cudnn_get(&m, p->plan, PLAN_JSON, MD_CUDNN_CHARS, 0, NULL);
  char *json = md_calloc((size_t)num + 1, 1);
  if (num) md_cudnn_get(&m, p->plan, PLAN_JSON, MD_CUDNN_CHARS, num, json);
  if (num && !m.has_failed) return json;
  free(json);
  return NULL;
}

// What cannot be kept is made each time.
static void keep(md_cudnn_plan *p, md_digest key) {
  char why[MD_CUDNN_WORDS] = "";
  char *json = json_of(p, why);
  if (json) md_cache_write(key, json, strlen(json));
  else md_log(MD_LOG_CACHE, MD_LEVEL_INFO, "a plan of cuDNN is not kept: %s", why);
  free(json);
}

void md_cudnn_plan_text(const md_cudnn_plan *p, md_text *to) {
  char why[MD_CUDNN_WORDS] = "";
  char *json = json_of(p, why);
  md_put(to, "cuDNN %d %s\n", md_cudnn_version(p->c), json ? json : why);
  free(json);
}

static bool find_or_make(md_cudnn_plan *p, const md_cudnn_graph *g, int64_t room, char *why) {
  if (!md_cudnn_described(p->c)) return make(p, g, room, why);
  md_digest key = key_of(p->c, g);
  if (load(p, key, room)) return true;
  p->all.why = why;
  if (!make(p, g, room, why)) return false;
  if (!p->is_second) keep(p, key);
  return true;
}

md_cudnn_plan *md_cudnn_plan_create(md_cudnn *c, const md_cudnn_graph *g, int64_t room, char *why) {
  md_cudnn_plan *p = md_calloc(1, sizeof *p);
  p->c = c;
  p->all = (md_cudnn_making){.c = c, .why = why};
  for (int i = 0; i < g->num_tensors; i++) {
    if (g->tensor[i].place == MD_CUDNN_NOWHERE) continue;
    p->id[p->num_ids] = g->tensor[i].id;
    p->tensor[p->num_ids++] = i;
  }
  if (find_or_make(p, g, room, why)) return p;
  md_cudnn_plan_destroy(p);
  return NULL;
}

void md_cudnn_plan_destroy(md_cudnn_plan *p) {
  if (!p) return;
  md_cudnn_drop(&p->all);
  free(p);
}

int64_t md_cudnn_plan_bytes(const md_cudnn_plan *p) { return p->workspace; }
bool md_cudnn_plan_is_second(const md_cudnn_plan *p) { return p->is_second; }

bool md_cudnn_plan_bind(md_cudnn_plan *p, void *const *at, void *workspace, char *why) {
  md_cudnn_making *m = &p->all;
  void *place[MD_CUDNN_TENSORS];
  for (int i = 0; i < p->num_ids; i++) place[i] = at[p->tensor[i]];
  m->why = why;
  p->pack = md_cudnn_make(m, PACK, "addresses");
  md_cudnn_set(m, p->pack, PACK_IDS, MD_CUDNN_INT, p->num_ids, p->id);
  md_cudnn_set(m, p->pack, PACK_POINTERS, MD_CUDNN_POINTER, p->num_ids, place);
  md_cudnn_set(m, p->pack, PACK_WORKSPACE, MD_CUDNN_POINTER, 1, &workspace);
  md_cudnn_finish(m, p->pack, "addresses");
  return !m->has_failed;
}

bool md_cudnn_plan_run(md_cudnn_plan *p, char *why) {
  return md_cudnn_execute(p->c, p->plan, p->pack, why);
}
