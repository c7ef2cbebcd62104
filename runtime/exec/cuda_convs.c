// SPDX-License-Identifier: Apache-2.0
// Convolutions of a program that cuDNN does in place of its launches, with what is fused with them. The first
// launch of a group becomes the run of plans, the others become nothing. All share one workspace: they run one
// after another. Which of them are faster so, cuda_fastest.c finds out.
#include "runtime/exec/cuda.h"

#include <stdlib.h>
#include <string.h>

// What lies at an argument, channels last where it has a block of them.
static md_conv_tensor tensor_of(const md_arg *a) {
  md_conv_tensor t = {.dtype = a->dtype};
  int64_t pitch = a->block ? md_round_up(a->dim[1], a->block) : 1;
  memcpy(t.dim, a->dim, sizeof t.dim);
  t.stride[4] = pitch;
  t.stride[3] = t.dim[4] * pitch;
  t.stride[2] = t.dim[3] * t.stride[3];
  t.stride[1] = a->block ? 1 : t.dim[2] * t.stride[2];
  t.stride[0] = t.dim[2] * t.stride[2] * (a->block ? 1 : t.dim[1]);
  return t;
}

md_conv md_cuda_conv_of(const md_conv_group *g) {
  md_conv v = {.kind = g->kind,
               .x = tensor_of(&g->x),
               .w = tensor_of(&g->w),
               .y = tensor_of(&g->y),
               .fused = g->fused};
  for (int i = 0; i < MD_NUM_CONV_PARTS; i++)
    if (g->part[i].rank) v.part[i] = tensor_of(&g->part[i]);
  memcpy(v.stride, g->stride, sizeof v.stride);
  memcpy(v.pad, g->pad, sizeof v.pad);
  memcpy(v.dilation, g->dilation, sizeof v.dilation);
  return v;
}

static md_place place_of(const md_cuda *c) {
  return c->base.p->path ? MD_IN_FILE(c->base.p->path) : MD_NOWHERE;
}

bool md_cuda_conv_is_ours(const md_cuda *c, const md_conv_group *g) {
  int launch = g->first_launch - c->base.first_launch;
  return launch >= 0 && launch < c->base.num_launches;
}

typedef struct Taken {
  int convs, launches, refused;
  int64_t workspace;
  char why[MD_CUDNN_WORDS];           // the first was refused
  const char *region;                 // whose
  char why_unsteady[MD_CUDNN_WORDS];  // a plan failed that may be made another time
  const char *unsteady;               // whose
} Taken;

enum { KEPT_BACK = 512 << 20 };  // bytes that cuDNN's own kernels may take when they are loaded

// Bytes that the device leaves to workspaces.
static bool find_room(md_cuda *c, int64_t *room, md_diags *d) {
  size_t left = 0, all;
  if (!md_cuda_did(c, "cuMemGetInfo", -1, c->call.cuMemGetInfo(&left, &all), d)) return false;
  *room = MD_MAX((int64_t)left - KEPT_BACK, 0);
  return true;
}

static Taken make_plans(md_cuda *c, int64_t room) {
  const md_program *p = c->base.p;
  Taken t = {.convs = 0};
  for (int i = 0; i < p->num_convs; i++) {
    const md_conv_group *g = &p->conv[i];
    char why[MD_CUDNN_WORDS];
    if (!md_cuda_conv_is_ours(c, g) || c->convs.known[i] == MD_FASTER_OURS) continue;
    md_conv v = md_cuda_conv_of(g);
    int at = g->first_launch - c->base.first_launch;
    int failures = md_cudnn_failures(c->convs.cudnn);
    c->convs.plan[at] = md_cudnn_conv_create(c->convs.cudnn, &v, room, why);
    if (md_cudnn_failures(c->convs.cudnn) > failures) {
      t.unsteady = p->launch[g->first_launch].name;
      memcpy(t.why_unsteady, why, sizeof why);
    }
    if (!c->convs.plan[at]) {
      if (!t.refused++) {
        t.region = p->launch[g->first_launch].name;
        snprintf(t.why, sizeof t.why, "%s", why);
      }
      continue;
    }
    for (int k = 0; k < g->num_launches; k++) c->convs.is_covered[at + k] = true;
    t.convs++;
    t.launches += g->num_launches;
    t.workspace = MD_MAX(t.workspace, md_cudnn_conv_bytes(c->convs.plan[at]));
  }
  return t;
}

static void drop_plans(md_cuda *c) {
  for (int i = 0; c->convs.plan && i < c->base.num_launches; i++) {
    md_cudnn_conv_destroy(c->convs.plan[i]);
    c->convs.plan[i] = NULL;
    c->convs.is_covered[i] = false;
  }
}

// room < 0: there is enough, but not in one piece.
static bool lacks_room(const md_cuda *c, int64_t wanted, int64_t room, md_diags *d) {
  char needed[MD_FLOAT_CHARS], left[MD_FLOAT_CHARS];
  md_bytes_text((double)wanted, needed);
  if (room < 0)
    md_error(d, E0643, place_of(c),
             "cuDNN's plans need %s of workspace, which %s does not have in one piece", needed,
             c->base.title);
  else
    md_error(
        d, E0643, place_of(c),
        "cuDNN's plans need %s of workspace, and %s has %s left beside what cuDNN itself may take",
        needed, c->base.title, md_bytes_text((double)room, left));
  md_demand_tell(c->base.p, d);
  md_hint(
      d,
      "with --deterministic plans do not depend on what is left: --memory-limit makes them smaller "
      "in every run, and so does a smaller batch");
  return false;
}

// Another run would have other kernels.
static bool is_unsteady(const md_cuda *c, const Taken *t, md_diags *d) {
  if (!t->unsteady) return false;
  md_error(d, E0639, place_of(c),
           "region '%s': --deterministic takes the plan that cuDNN chooses first, which fails: %s",
           t->unsteady, t->why_unsteady);
  md_hint(d, "without --deterministic the next plan runs, or our kernels");
  return true;
}

// Plans and their workspace. What is free says nothing of what can be had in one piece, so plans may have to
// do with less, but for those that must not depend on it.
static bool make_room(md_cuda *c, const md_exec_options *o, Taken *t, md_diags *d) {
  int64_t room, limit = o->memory_limit ? o->memory_limit - c->base.bytes : INT64_MAX;
  int error = 0;
  if (!find_room(c, &room, d)) return false;
  *t = make_plans(c, o->deterministic ? limit : MD_MIN(room, limit));
  if (o->deterministic && is_unsteady(c, t, d)) return false;
  if (t->workspace > room) return lacks_room(c, t->workspace, room, d);
  while (t->workspace && (error = c->call.cuMemAlloc(&c->convs.workspace, (size_t)t->workspace)) ==
                             MD_CUDA_OUT_OF_MEMORY) {
    if (o->deterministic) return lacks_room(c, t->workspace, -1, d);
    error = 0;
    drop_plans(c);
    *t = make_plans(c, t->workspace / 2);
  }
  if (!md_cuda_did(c, "cuMemAlloc", -1, error, d)) return false;
  c->convs.workspace_bytes = t->workspace;
  c->base.bytes += t->workspace;
  return true;
}

static void *pointer(md_gpu_place at) { return (void *)(uintptr_t)at; }

// An error of the driver's own is told like that of a launch. It is asked for by a call that may be made while
// a step is captured, which a query of the stream may not.
static bool failed(md_cuda *c, int launch, const char *why, md_diags *d) {
  size_t left, all;
  const char *region = c->base.p->launch[launch].name;
  if (!md_cuda_did(c, "cuDNN", launch, c->call.cuMemGetInfo(&left, &all), d)) return false;
  md_error(d, E0639, place_of(c), "region '%s': cuDNN on %s fails: %s", region, c->base.title, why);
  md_hint(d, "without --engine=cudnn the program's own kernels run");
  return false;
}

static md_conv_places places_of(const md_cuda *c, const md_conv_group *g) {
  md_conv_places at = {.x = pointer(md_cuda_place(c, &g->x)),
                       .w = pointer(md_cuda_place(c, &g->w)),
                       .y = pointer(md_cuda_place(c, &g->y)),
                       .workspace = pointer(c->convs.workspace)};
  for (int i = 0; i < MD_NUM_CONV_PARTS; i++)
    if (g->part[i].rank) at.part[i] = pointer(md_cuda_place(c, &g->part[i]));
  return at;
}

static bool bind(md_cuda *c, md_diags *d) {
  const md_program *p = c->base.p;
  for (int i = 0; i < p->num_convs; i++) {
    const md_conv_group *g = &p->conv[i];
    char why[MD_CUDNN_WORDS];
    md_cudnn_conv *plan =
        md_cuda_conv_is_ours(c, g) ? c->convs.plan[g->first_launch - c->base.first_launch] : NULL;
    if (!plan) continue;
    md_conv_places at = places_of(c, g);
    if (!md_cudnn_conv_bind(plan, &at, why)) return failed(c, g->first_launch, why, d);
  }
  return true;
}

void md_cuda_convs_tell(md_cuda *c, int convs, int launches) {
  char name[32];
  snprintf(c->base.engine, sizeof c->base.engine,
           "%s: %d convolution%s in place of %d of %d launches",
           md_cudnn_name(md_cudnn_version(c->convs.cudnn), name), convs, convs == 1 ? "" : "s",
           launches, c->base.num_launches);
}

// What stays with our kernels is told; nothing at all is an error.
static bool tell(md_cuda *c, const Taken *t, bool is_asked, md_diags *d) {
  md_cuda_convs_tell(c, t->convs, t->launches);
  if (!t->convs && is_asked) {
    md_error(d, E0638, place_of(c), "--engine=cudnn would do nothing: %s",
             t->refused ? "cuDNN refuses every convolution"
                        : "no convolution of the program is a region with launches of its own");
    if (t->refused) md_note(d, MD_NOWHERE, "region '%s': %s", t->region, t->why);
    else if (c->base.p->path)
      md_hint(d, "modistc compile --apart gives every kernel a launch of its own");
    return false;
  }
  if (t->refused && is_asked)
    md_warning(d, place_of(c),
               "cuDNN refuses %d of %d convolutions, which our kernels do; region '%s': %s",
               t->refused, t->convs + t->refused, t->region, t->why);
  return true;
}

// Once it is open, cuDNN keeps things in the context for as long as the process lives: then this is never given
// back.
static bool keep_context(md_cuda *c, md_diags *d) {
  void *context;
  int error = c->call.cuDevicePrimaryCtxRetain(&context, c->id);
  return md_cuda_did(c, "cuDevicePrimaryCtxRetain", -1, error, d);
}

// No cuDNN is an error where it was asked for, and none where it would only be taken if it were faster.
static bool is_missing(md_cuda *c, bool is_asked, const char *why, md_diags *d) {
  c->call.cuDevicePrimaryCtxRelease(c->id);
  if (!is_asked) {
    md_warning(d, place_of(c), "our kernels alone, as cuDNN cannot be used: %s", why);
    return true;
  }
  md_error(d, E0637, place_of(c), "--engine=cudnn: cuDNN cannot be used: %s", why);
  md_hint(d,
          "MODIST_CUDNN=/path/to/libcudnn.so.9 names it; without --engine=cudnn it is not needed");
  return false;
}

bool md_cuda_convs_open(md_cuda *c, const md_exec_options *o, md_diags *d) {
  char why[MD_CUDNN_WORDS];
  bool is_asked = o->engine == MD_ENGINE_CUDNN;
  size_t num = (size_t)c->base.num_all + 1;  // trials too, which no plan does
  if (!keep_context(c, d)) return false;
  c->convs.cudnn = md_cudnn_open(c->stream, why);
  if (!c->convs.cudnn) return is_missing(c, is_asked, why, d);
  if (!o->no_cache) md_cudnn_keep_plans(c->convs.cudnn);
  c->convs.plan = md_calloc(num, sizeof *c->convs.plan);
  c->convs.is_covered = md_calloc(num, sizeof *c->convs.is_covered);
  c->convs.known = md_calloc((size_t)c->base.p->num_convs + 1, sizeof *c->convs.known);
  if (o->engine == MD_ENGINE_FASTEST) md_cuda_convs_look_up(c, d);
  if (!o->tries_cudnn) c->base.by_engine = c->convs.is_covered;
  Taken t;
  return make_room(c, o, &t, d) && tell(c, &t, is_asked, d) && bind(c, d);
}

bool md_cuda_convs_any(const md_cuda *c) {
  for (int i = 0; c->convs.plan && i < c->base.num_launches; i++)
    if (c->convs.plan[i]) return true;
  return false;
}

static void free_workspace(md_cuda *c) {
  if (c->convs.workspace) c->call.cuMemFree(c->convs.workspace);
  c->base.bytes -= c->convs.workspace_bytes;
  c->convs.workspace = 0;
  c->convs.workspace_bytes = 0;
}

bool md_cuda_convs_fit_workspace(md_cuda *c, md_diags *d) {
  int64_t bytes = 0;
  for (int i = 0; i < c->base.num_launches; i++)
    if (c->convs.plan[i]) bytes = MD_MAX(bytes, md_cudnn_conv_bytes(c->convs.plan[i]));
  if (bytes == c->convs.workspace_bytes) return true;
  free_workspace(c);
  int error = bytes ? c->call.cuMemAlloc(&c->convs.workspace, (size_t)bytes) : 0;
  if (!md_cuda_did(c, "cuMemAlloc", -1, error, d)) return false;
  c->convs.workspace_bytes = bytes;
  c->base.bytes += bytes;
  return bind(c, d);
}

void md_cuda_convs_code(md_device *v, int launch, md_text *to) {
  md_cuda *c = (md_cuda *)v;
  if (!v->by_engine || !v->by_engine[launch - v->first_launch]) md_cuda_code_text(c, launch, to);
  else if (c->convs.plan[launch - v->first_launch])
    md_cudnn_conv_plans(c->convs.plan[launch - v->first_launch], to);
}

void md_cuda_convs_close(md_cuda *c) {
  drop_plans(c);
  md_cudnn_close(c->convs.cudnn);
  free_workspace(c);
  free(c->convs.plan);
  free(c->convs.is_covered);
  free(c->convs.known);
}

bool md_cuda_convs_run(md_cuda *c, int launch, md_diags *d) {
  char why[MD_CUDNN_WORDS];
  md_cudnn_conv *plan = c->convs.plan[launch - c->base.first_launch];
  return !plan || md_cudnn_conv_run(plan, why) || failed(c, launch, why, d);
}
