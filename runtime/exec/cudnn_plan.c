// SPDX-License-Identifier: Apache-2.0
// A convolution as cuDNN's graph of one operation, and the plan that cuDNN's heuristics choose for it:
//
//   tensors x, w, y + convolution -> operation -> graph -> heuristic -> configurations of engines -> plan
#include "runtime/exec/cudnn.h"

#include <stdlib.h>
#include <string.h>

// CUDNN_BACKEND_*_DESCRIPTOR
enum {
  CONVOLUTION = 1,
  ENGINE = 2,
  CONFIG = 3,
  HEURISTIC = 4,
  PLAN = 5,
  GRAPH = 15,
  PACK = 16,
  TENSOR = 17
};
// CUDNN_TYPE_*
enum { A_DATA_TYPE = 1, A_HANDLE = 0, A_MODE = 7, A_HEURISTIC = 8, A_NOTE = 11 };
// CUDNN_ATTR_*
enum {
  CONV_TYPE = 100,
  CONV_MODE,
  CONV_DILATIONS,
  CONV_STRIDES,
  CONV_POST_PADS,
  CONV_PRE_PADS,
  CONV_AXES,
  HEUR_MODE = 200,
  HEUR_GRAPH,
  HEUR_RESULTS,
  HEUR_DEVICE = 204,
  CONFIG_ENGINE = 300,
  PLAN_HANDLE = 400,
  PLAN_CONFIG,
  PLAN_WORKSPACE,
  PLAN_DEVICE = 407,
  GRAPH_HANDLE = 800,
  GRAPH_OPERATIONS,
  TENSOR_ALIGNMENT = 900,
  TENSOR_TYPE,
  TENSOR_DIMS,
  TENSOR_STRIDES,
  TENSOR_ID = 906,
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
enum { MAX_CONFIGS = 40, ALIGNMENT = 16 };

struct md_cudnn_plan {
  md_cudnn *c;
  md_cudnn_making all;  // what the plan is made of
  void *plan, *pack;
  int64_t workspace;
};

static const int64_t ids[3] = {1, 2, 3};  // of x, w, y

static int data_type(md_dtype t) { return t == MD_BF16 ? 9 : 0; }  // CUDNN_DATA_*

static void *tensor(md_cudnn_making *m, const md_conv_tensor *t, int64_t id) {
  int type = data_type(t->dtype);
  int64_t alignment = ALIGNMENT;
  void *d = md_cudnn_make(m, TENSOR, "a tensor");
  md_cudnn_set(m, d, TENSOR_TYPE, A_DATA_TYPE, 1, &type);
  md_cudnn_set(m, d, TENSOR_DIMS, MD_CUDNN_INT, 5, t->dim);
  md_cudnn_set(m, d, TENSOR_STRIDES, MD_CUDNN_INT, 5, t->stride);
  md_cudnn_set(m, d, TENSOR_ID, MD_CUDNN_INT, 1, &id);
  md_cudnn_set(m, d, TENSOR_ALIGNMENT, MD_CUDNN_INT, 1, &alignment);
  md_cudnn_finish(m, d, "a tensor");
  return d;
}

static void *geometry(md_cudnn_making *m, const md_conv *v) {
  int type = data_type(MD_F32), mode = 1;  // CUDNN_CROSS_CORRELATION
  int64_t axes = 3;
  void *d = md_cudnn_make(m, CONVOLUTION, "a convolution");
  md_cudnn_set(m, d, CONV_TYPE, A_DATA_TYPE, 1, &type);
  md_cudnn_set(m, d, CONV_MODE, A_MODE, 1, &mode);
  md_cudnn_set(m, d, CONV_AXES, MD_CUDNN_INT, 1, &axes);
  md_cudnn_set(m, d, CONV_STRIDES, MD_CUDNN_INT, 3, v->stride);
  md_cudnn_set(m, d, CONV_DILATIONS, MD_CUDNN_INT, 3, v->dilation);
  md_cudnn_set(m, d, CONV_PRE_PADS, MD_CUDNN_INT, 3, v->pad);
  md_cudnn_set(m, d, CONV_POST_PADS, MD_CUDNN_INT, 3, v->pad);
  md_cudnn_finish(m, d, "a convolution");
  return d;
}

// y = 1 * conv(x, w) + 0 * y, or one of the gradients.
static void *operation(md_cudnn_making *m, const md_conv *v) {
  static const struct {
    int kind, alpha, beta, conv, x, w, y;
  } rows[MD_NUM_CONVS] = {
      [MD_CONV_FORWARD] = {10, 700, 701, 702, 704, 703, 705},
      [MD_CONV_DATA] = {12, 706, 707, 708, 710, 709, 711},
      [MD_CONV_WEIGHTS] = {11, 712, 713, 714, 716, 715, 717},
  };
  float one = 1, zero = 0;
  void *conv = geometry(m, v), *x = tensor(m, &v->x, ids[0]), *w = tensor(m, &v->w, ids[1]);
  void *y = tensor(m, &v->y, ids[2]);
  void *d = md_cudnn_make(m, rows[v->kind].kind, "an operation");
  md_cudnn_set(m, d, rows[v->kind].alpha, MD_CUDNN_FLOAT, 1, &one);
  md_cudnn_set(m, d, rows[v->kind].beta, MD_CUDNN_FLOAT, 1, &zero);
  md_cudnn_set(m, d, rows[v->kind].conv, MD_CUDNN_DESCRIPTOR, 1, &conv);
  md_cudnn_set(m, d, rows[v->kind].x, MD_CUDNN_DESCRIPTOR, 1, &x);
  md_cudnn_set(m, d, rows[v->kind].w, MD_CUDNN_DESCRIPTOR, 1, &w);
  md_cudnn_set(m, d, rows[v->kind].y, MD_CUDNN_DESCRIPTOR, 1, &y);
  md_cudnn_finish(m, d, "an operation");
  return d;
}

static void *graph_of(md_cudnn_making *m, const md_conv *v) {
  void *handle = md_cudnn_handle(m->c), *op = operation(m, v);
  void *d = md_cudnn_make(m, GRAPH, "a graph");
  if (handle) md_cudnn_set(m, d, GRAPH_HANDLE, A_HANDLE, 1, &handle);
  md_cudnn_set(m, d, GRAPH_OPERATIONS, MD_CUDNN_DESCRIPTOR, 1, &op);
  md_cudnn_finish(m, d, "the graph of a convolution");
  return d;
}

// Why there is no plan: the later ones say more than the earlier ones, and of equals the first counts.
typedef enum Refusal { NOT_REFUSED, UNSUITED, TOO_LARGE, FAILED } Refusal;
typedef struct Search {
  md_cudnn_plan *p;
  const md_conv *v;
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
static bool suits(md_cudnn_making *m, void *config, const md_conv *v) {
  int note[MAX_NOTES];
  void *engine = md_cudnn_make(m, ENGINE, "an engine");
  md_cudnn_get(m, config, CONFIG_ENGINE, MD_CUDNN_DESCRIPTOR, 1, &engine);
  int64_t num = md_cudnn_get(m, engine, ENGINE_NOTES, A_NOTE, MAX_NOTES, note);
  for (int i = 0; i < num && i < MAX_NOTES; i++) {
    int n = note[i];
    if (n == IS_RANDOM || n == DOWN_CONVERTS || n == REDUCED_SUMS) return false;
    bool is_rough = n == TENSOR_CORE || n == FFT || (n >= WINOGRAD && n <= WINOGRAD_LAST);
    if (is_rough && v->x.dtype == MD_F32) return false;
  }
  return true;
}

// The plan of a configuration, and its workspace. What `tried` made goes with it.
static Refusal try(Search *s, md_cudnn_making *tried, void *config, void **plan) {
  void *handle = md_cudnn_handle(tried->c), *device = md_cudnn_device(tried->c);
  char needed[MD_FLOAT_CHARS], left[MD_FLOAT_CHARS];
  if (!suits(tried, config, s->v)) {
    snprintf(tried->why, MD_CUDNN_WORDS, "no engine gives the same bits in every run%s",
             s->v->x.dtype == MD_F32 ? " and adds plain products of f32" : "");
    return UNSUITED;
  }
  void *p = md_cudnn_make(tried, PLAN, "a plan");
  md_cudnn_set(tried, p, PLAN_CONFIG, MD_CUDNN_DESCRIPTOR, 1, &config);
  if (handle) md_cudnn_set(tried, p, PLAN_HANDLE, A_HANDLE, 1, &handle);
  else md_cudnn_set(tried, p, PLAN_DEVICE, MD_CUDNN_DESCRIPTOR, 1, &device);
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

static bool choose(Search *s, int mode) {
  void *config[MAX_CONFIGS], *plan = NULL;
  char why[MD_CUDNN_WORDS] = "";
  md_cudnn_making *all = &s->p->all, *tried = md_malloc(sizeof *tried);
  all->why = why;
  int num = configs_of(all, s->graph, mode, config);
  if (all->has_failed) refuse(s, FAILED, why);
  all->has_failed = false;
  for (int i = 0; i < num && !s->p->plan; i++) {
    *tried = (md_cudnn_making){.c = s->p->c, .why = why};
    Refusal r = try(s, tried, config[i], &plan);
    if (r == NOT_REFUSED) {
      s->p->plan = plan;
      all->made[all->num++] = tried->made[--tried->num];  // the last that was made
    }
    md_cudnn_drop(tried);
    refuse(s, r, why);
  }
  free(tried);
  return s->p->plan != NULL;
}

static bool make(md_cudnn_plan *p, const md_conv *v, int64_t room, char *why) {
  Search s = {.p = p, .v = v, .room = room, .why = why};
  s.graph = graph_of(&p->all, v);
  if (p->all.has_failed) return false;
  snprintf(why, MD_CUDNN_WORDS, "no engine is for such a convolution");
  return choose(&s, FIRST_CHOICE) || choose(&s, FALLBACK);
}

md_cudnn_plan *md_cudnn_plan_create(md_cudnn *c, const md_conv *v, int64_t room, char *why) {
  md_cudnn_plan *p = md_calloc(1, sizeof *p);
  p->c = c;
  p->all = (md_cudnn_making){.c = c, .why = why};
  if (make(p, v, room, why)) return p;
  md_cudnn_plan_destroy(p);
  return NULL;
}

void md_cudnn_plan_destroy(md_cudnn_plan *p) {
  if (!p) return;
  md_cudnn_drop(&p->all);
  free(p);
}

int64_t md_cudnn_plan_bytes(const md_cudnn_plan *p) { return p->workspace; }

bool md_cudnn_plan_bind(md_cudnn_plan *p, void *x, void *w, void *y, void *workspace, char *why) {
  md_cudnn_making *m = &p->all;
  void *at[3] = {x, w, y};
  m->why = why;
  p->pack = md_cudnn_make(m, PACK, "addresses");
  md_cudnn_set(m, p->pack, PACK_IDS, MD_CUDNN_INT, 3, ids);
  md_cudnn_set(m, p->pack, PACK_POINTERS, MD_CUDNN_POINTER, 3, at);
  md_cudnn_set(m, p->pack, PACK_WORKSPACE, MD_CUDNN_POINTER, 1, &workspace);
  md_cudnn_finish(m, p->pack, "addresses");
  return !m->has_failed;
}

bool md_cudnn_plan_run(md_cudnn_plan *p, char *why) {
  return md_cudnn_execute(p->c, p->plan, p->pack, why);
}
