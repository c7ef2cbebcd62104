// SPDX-License-Identifier: Apache-2.0
// The fiber machine as a back end of the golden sets, for `modistc verify --backend=simt`: a module that
// modistc opens (modistc/verify_simt.c), built with the tests, because it needs a compiler, the sources
// and this kind of processor. Kernels are checked while they run.
#include "modistc/verify_golden.h"
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

#define MOST_FLOPS 2e8  // some seconds of the machine

typedef struct Run {
  Program *p;
  char **data;  // by image, after a step whose updates are not taken over yet; NULL: none
} Run;

static void destroy(void *run) {
  Run *r = run;
  free(r->data);
  simt_free_buffers();
  simt_forget();
  program_destroy(r->p);
  free(r);
}

static void *create(void *ctx, md_graph *g, md_diags *d) {
  const md_verify_simt_options *o = ctx;
  Program *p = program_made(o->arch, g, &o->passes, d);
  if (!p) return NULL;
  Run *r = calloc(1, sizeof *r);
  MD_ASSERT(r, "out of memory");
  r->p = p;
  if (md_cuda_is_complete(p->m, p->g, d) && run_build(p)) return r;
  if (!md_diags_errors(d))
    md_error(d, E0704, MD_NOWHERE, "the host's compiler refuses the kernels");
  destroy(r);
  return NULL;
}

// --- tensors

static bool copy(md_tensor *to, const md_tensor *from) {
  int64_t n = md_elements(&to->type.shape);
  if (!to->f != !from->f || n != md_elements(&from->type.shape)) return false;
  if (to->f) memcpy(to->f, from->f, (size_t)n * sizeof *to->f);
  else memcpy(to->i, from->i, (size_t)n * sizeof *to->i);
  return true;
}

static bool is_leaf(const md_graph *g, md_val v) {
  return md_ops[md_def(g, v)->op].role == MD_LEAF;
}

// What a value is after the step; a leaf is what it was before. malloc'ed.
static md_tensor *value_of(const Run *r, md_val v) {
  const Program *p = r->p;
  const md_node *n = md_def(p->g, v);
  md_tensor *t = md_tensor_create(*md_type_in(p->g, v));
  MD_ASSERT(t, "out of memory");
  if (n->op == MD_OP_constant) md_eval_node(p->g, n, NULL, &t);
  else if (is_leaf(p->g, v)) copy(t, md_interp_value(p->ref, v));
  else md_tensor_read(t, r->data[p->image_of[v]]);
  return t;
}

static md_val update_of(const md_graph *g, const char *state) {
  for (int i = 0; i < g->num_updates; i++)
    if (!strcmp(md_def(g, g->update[i].state)->name, state)) return g->update[i].val;
  return MD_NONE;
}

// The updates of the last step, which may read one another's states.
static void settle(Run *r) {
  const md_graph *g = r->p->g;
  if (!r->data) return;
  md_tensor **t = calloc((size_t)g->num_updates + 1, sizeof *t);
  MD_ASSERT(t, "out of memory");
  for (int i = 0; i < g->num_updates; i++) t[i] = value_of(r, g->update[i].val);
  for (int i = 0; i < g->num_updates; i++) {
    copy(md_interp_state(r->p->ref, md_def(g, g->update[i].state)->name), t[i]);
    md_tensor_destroy(t[i]);
  }
  free(t);
  free(r->data);
  r->data = NULL;
  simt_free_buffers();
}

static bool put(void *run, const char *name, const md_tensor *from) {
  Run *r = run;
  settle(r);
  md_tensor *to = md_interp_input(r->p->ref, name);
  if (!to) to = md_interp_state(r->p->ref, name);
  if (!to || !copy(to, from)) return false;
  md_tensor_round(to);
  return true;
}

static bool step(void *run, md_diags *d) {
  Run *r = run;
  md_text why = {0};
  settle(r);
  program_take_leaves(r->p);
  bool ok = run_program(r->p, NULL, (simt_options){SIMT_FORWARD, 0}, &r->data, &why);
  if (!ok) md_error(d, E0704, MD_NOWHERE, "%s", why.s);
  md_text_free(&why);
  return ok;
}

static bool get(void *run, const char *name, md_tensor *to) {
  Run *r = run;
  md_val v = md_find_result(r->p->g, name);
  if (v == MD_NONE && r->data) v = update_of(r->p->g, name);
  if (v == MD_NONE) {
    const md_tensor *state = md_interp_state(r->p->ref, name);
    return state && copy(to, state);
  }
  md_tensor *t = value_of(r, v);
  bool ok = copy(to, t);
  md_tensor_destroy(t);
  return ok;
}

bool md_simt_backend(const char *version, md_verify_backend *to) {
  if (strcmp(version, MODIST_VERSION) != 0) return false;
  *to = (md_verify_backend){.name = "simt",
                            .most_flops = MOST_FLOPS,
                            .create = create,
                            .destroy = destroy,
                            .put = put,
                            .step = step,
                            .get = get};
  return true;
}
