// SPDX-License-Identifier: Apache-2.0
// Launches side by side: whatever is joined or moved, each launch finds in memory what was made for it.
// The arena and the workspace are gone through launch by launch: what is written over is gone, and a
// launch reads before it writes. So a part must not need what another part of its launch makes.
#include "codegen/cuda/cuda.h"
#include "codegen/cuda/foreign.h"
#include "codegen/region.h"
#include "models/models.h"

#include <stdlib.h>
#include <string.h>

static int failed;
static const md_cuda_arch sm_80 = {80, 0}, sm_90a = {90, 'a'};

static void check(bool ok, const char *claim, const char *what) {
  if (!ok) printf("FAILED %s: %s\n", claim, what);
  failed += !ok;
}

// What lies in memory: values, and places of the workspace as they were written.
typedef struct Memory {
  const md_graph *g;
  bool *is_there;  // by value
  md_cuda_arg *place;
  int num, cap;
} Memory;

static bool overlap(const md_cuda_arg *a, const md_cuda_arg *b) {
  return a->workspace < b->workspace + b->bytes && b->workspace < a->workspace + a->bytes;
}

static bool is_leaf(const md_graph *g, md_val v) {
  return md_ops[md_def(g, v)->op].role == MD_LEAF;
}

static Memory memory_of(const md_graph *g) {
  Memory m = {.g = g, .is_there = calloc((size_t)g->num_values + 1, sizeof(bool))};
  for (md_val v = 1; v <= (md_val)g->num_values; v++) m.is_there[v] = is_leaf(g, v);
  return m;
}

static void memory_free(Memory *m) {
  free(m->is_there);
  free(m->place);
}

static bool is_there(const Memory *m, const md_cuda_arg *a) {
  if (a->val != MD_NONE) return m->is_there[a->val];
  for (int i = 0; i < m->num; i++)
    if (m->place[i].workspace == a->workspace && m->place[i].bytes == a->bytes) return true;
  return false;
}

static void put(Memory *m, const md_cuda_arg *a) {
  if (a->val != MD_NONE) {
    for (md_val v = 1; v <= (md_val)m->g->num_values; v++)
      if (m->is_there[v] && md_shares_memory(m->g, a->val, v)) m->is_there[v] = false;
    m->is_there[a->val] = true;
    return;
  }
  int left = 0;
  for (int i = 0; i < m->num; i++)
    if (!overlap(&m->place[i], a)) m->place[left++] = m->place[i];
  m->num = left;
  MD_PUSH(m->place, m->num, m->cap, *a);
}

static bool meet(const md_graph *g, const md_cuda_arg *a, const md_cuda_arg *b) {
  if (a->val == MD_NONE && b->val == MD_NONE) return overlap(a, b);
  return a->val != MD_NONE && b->val != MD_NONE && md_shares_memory(g, a->val, b->val);
}

static bool disturb(const md_graph *g, const md_cuda_launch *x, const md_cuda_launch *y) {
  for (int i = 0; i < x->num_args; i++)
    for (int k = 0; k < y->num_args; k++)
      if (x->arg[i].write && meet(g, &x->arg[i], &y->arg[k])) return true;
  return false;
}

static const md_cuda_launch *parts_of(const md_cuda_launch *l, int *num) {
  *num = l->num_parts ? l->num_parts : 1;
  return l->num_parts ? l->part : l;
}

// Why launch number i of m cannot run where it stands; NULL: it can, and has run.
// Kernels of one result that write each its own elements: that they do, the fiber machine sees.
static bool shares_result(const md_cuda_launch *a, const md_cuda_launch *b) {
  return a->region == b->region && (a->is_beside || b->is_beside);
}

static const char *run(Memory *memory, const md_cuda_launch *l) {
  int num;
  const md_cuda_launch *part = parts_of(l, &num);
  for (int p = 0; p < num; p++) {
    for (int q = 0; q < num; q++)
      if (p != q && !shares_result(&part[p], &part[q]) && disturb(memory->g, &part[p], &part[q]))
        return "parts disturb one another";
    for (int i = 0; i < part[p].num_args; i++)
      if (part[p].arg[i].read && !part[p].arg[i].write && !is_there(memory, &part[p].arg[i]))
        return "what it reads is not there";
  }
  for (int i = 0; i < l->num_args; i++)
    if (l->arg[i].write) put(memory, &l->arg[i]);
  return NULL;
}

static const char *run_all(const md_cuda_module *m, const md_graph *g) {
  Memory memory = memory_of(g);
  const char *why = NULL;
  for (int i = 0; i < m->num_launches && !why; i++) why = run(&memory, &m->launch[i]);
  for (int i = 0; i < g->num_results && !why; i++)
    if (!is_leaf(g, g->result[i].val) && !memory.is_there[g->result[i].val])
      why = "a result is not there";
  for (int i = 0; i < g->num_updates && !why; i++)
    if (!is_leaf(g, g->update[i].val) && !memory.is_there[g->update[i].val])
      why = "an update is not there";
  memory_free(&memory);
  return why;
}

static int count_parts(const md_cuda_module *m) {
  int all = 0, num;
  for (int i = 0; i < m->num_launches; i++, all += num) parts_of(&m->launch[i], &num);
  return all;
}

static md_graph *with_passes(md_graph *g, md_cuda_arch arch, int level, md_dtype precision,
                             md_diags *d) {
  md_pass_options o = md_pass_defaults();
  const char *target = arch.suffix ? "cuda:sm_90a" : "cuda:sm_80";
  o.level = level;
  o.precision = precision;
  return g && md_cuda_facts(target, &o.facts, d) ? md_run_passes(g, &o, NULL, d) : NULL;
}

// --- whole steps

static void try_step(const char *model, md_cuda_arch arch, int level, md_dtype precision,
                     md_optimizer opt) {
  char name[80];
  snprintf(name, sizeof name, "%s, sm_%d, level %d, %s", model, arch.sm, level,
           precision == MD_BF16 ? "bf16" : "f32");
  md_diags *d = md_diags_create();
  md_step s = md_step_defaults();
  md_model_from(model)->fill(&s);
  s.opt = opt;
  md_graph *g = with_passes(md_step_graph(&s, d), arch, level, precision, d);
  md_cuda_module *apart = md_cuda_generate(g, arch, &(md_cuda_how){.is_apart = true}, d);
  md_cuda_module *m = md_cuda_generate(g, arch, NULL, d);
  const char *why = run_all(apart, g);
  check(!why, name, why ? why : "");
  why = run_all(m, g);
  check(!why, name, why ? why : "");
  check(count_parts(m) == apart->num_launches, name, "launches are lost");
  check(m->num_launches < apart->num_launches * 3 / 4, name, "hardly anything is joined");
  printf("%s: %d launches for %d\n", name, m->num_launches, apart->num_launches);
  md_cuda_module_free(apart);
  md_cuda_module_free(m);
  md_graph_destroy(g);
  md_diags_destroy(d);
}

// --- what must and what must not be joined

static md_graph *parsed(const char *text, md_cuda_arch arch, int level, md_diags *d) {
  return with_passes(md_parse_graph("text", text, strlen(text), d), arch, level, MD_F32, d);
}

static void expect_launches_on(md_cuda_arch arch, int level, const char *claim, const char *text,
                               int num) {
  md_diags *d = md_diags_create();
  md_graph *g = parsed(text, arch, level, d);
  md_cuda_module *m = md_cuda_generate(g, arch, NULL, d);
  const char *why = run_all(m, g);
  check(!why, claim, why ? why : "");
  check(m->num_launches == num, claim, m->text.s);
  md_cuda_module_free(m);
  md_graph_destroy(g);
  md_diags_destroy(d);
}

static void expect_launches(const char *claim, const char *text, int num) {
  expect_launches_on(sm_80, 0, claim, text, num);
}

static void dependencies_are_kept(void) {
  expect_launches("independent ones are one launch",
                  "graph @s(%x: f32[9], %y: f32[8]) {\n  %a = exp %x\n  %b = exp %y\n"
                  "  return %a, %b\n}\n",
                  1);
  expect_launches("one that reads another's result runs after it",
                  "graph @s(%x: f32[9], %y: f32[9]) {\n  %a = exp %x\n  %b = exp %y\n"
                  "  %c = mul %a, %b\n  return %a, %b, %c\n}\n",
                  2);
  expect_launches("chains go side by side",
                  "graph @s(%x: f32[9], %y: f32[7]) {\n  %a = exp %x\n  %b = log %a\n"
                  "  %c = exp %y\n  %d = log %c\n  return %a, %b, %c, %d\n}\n",
                  2);
  expect_launches("who reads a state runs before it is written",
                  "graph @s(%x: f32[9]) {\n  %s = state @s : f32[9]\n  %a = exp %s\n"
                  "  %n = add %s, %x\n  update @s = %n\n  return %a\n}\n",
                  2);
}

// Weights, two convolutions that make the operands, the products, and parts that are added up.
static void products_are_beside_each_other(void) {
  static const char operands[] =
      "graph @s(%x: bf16[1,8,1,17,27], %u: bf16[1,8,1,17,27], %w0: bf16[64,8,1,1,1], "
      "%w1: bf16[128,8,1,1,1], %w: bf16[128,64,1,3,3]) {\n"
      "  %a = conv3d %x, %w0\n  %d = conv3d %u, %w1\n";
  char text[1000];
  snprintf(text, sizeof text,
           "%s  %%i = conv3d_dgrad %%d, %%w {pad=[0,1,1], shape=[1,64,1,17,27]}\n"
           "  %%dw = conv3d_wgrad %%d, %%a {pad=[0,1,1], shape=[128,64,1,3,3]}\n"
           "  return %%i, %%dw\n}\n",
           operands);
  expect_launches_on(sm_90a, 2, "both gradients of several taps", text, 5);
  snprintf(text, sizeof text,
           "%s  %%i = conv3d_dgrad %%d, %%w {pad=[0,1,1], shape=[1,64,1,17,27]}\n"
           "  %%y = conv3d %%i, %%w {pad=[0,1,1]}\n  return %%y, %%a\n}\n",
           operands);
  expect_launches_on(sm_90a, 2, "a product of another's result", text, 5);
}

// 160 MB are worth a launch, but for two that do the same.
static void pairs_are_beside_each_other(void) {
  static const char form[] = "graph @s(%%x: f32[10000,2000], %%y: f32[10000,2000]) {\n"
                             "  %%a = exp %%x\n  %%b = sum %%a\n  %%c = %s %%y\n  %%d = sum %%c\n"
                             "  return %%a, %%b, %%c, %%d\n}\n";
  char text[400];
  snprintf(text, sizeof text, form, "exp");
  expect_launches_on(sm_80, 0, "large ones that do the same; their sums, and what merges those",
                     text, 3);
  snprintf(text, sizeof text, form, "neg");
  expect_launches_on(sm_80, 0, "large ones that do not do the same", text, 4);
}

// The check itself: launches that depend on each other, the other way round.
static void exchanged_launches_are_seen(void) {
  md_diags *d = md_diags_create();
  md_graph *g =
      parsed("graph @s(%x: f32[9]) {\n  %a = exp %x\n  %b = log %a\n  return %b\n}\n", sm_80, 0, d);
  md_cuda_module *m = md_cuda_generate(g, sm_80, NULL, d);
  md_cuda_launch first = m->launch[0];
  check(!run_all(m, g), "the order that was made", "is right");
  m->launch[0] = m->launch[1];
  m->launch[1] = first;
  check(run_all(m, g) != NULL, "launches the other way round", "were not seen");
  md_cuda_module_free(m);
  md_graph_destroy(g);
  md_diags_destroy(d);
}

static int num_foreign_convs(const md_cuda_module *m, const md_graph *g) {
  int num;
  md_arena *a = md_arena_create();
  md_cu_foreign_convs(g, m, &num, a);
  md_arena_destroy(a);
  return num;
}

// Weights are packed, and then the convolution may run after its state was written: but not by another
// engine, which reads the state.
static void weights_that_are_gone_are_seen(void) {
  md_diags *d = md_diags_create();
  md_graph *g = parsed("graph @s(%x: f32[1,8,2,5,4], %d: f32[8,8,1,1,1]) {\n"
                       "  %s = state @s : f32[8,8,1,1,1]\n  %p = conv3d %x, %s\n"
                       "  %n = add %s, %d\n  update @s = %n\n  return %p\n}\n",
                       sm_80, 0, d);
  md_cuda_module *m = md_cuda_generate(g, sm_80, &(md_cuda_how){.is_apart = true}, d);
  check(m->num_launches == 3 && num_foreign_convs(m, g) == 1, "a convolution alone", m->text.s);
  md_cuda_launch conv = m->launch[1];
  m->launch[1] = m->launch[2];
  m->launch[2] = conv;
  check(!run_all(m, g), "the state is written before the convolution", "is right");
  check(num_foreign_convs(m, g) == 0, "the weights of a convolution", "were gone");
  md_cuda_module_free(m);
  md_graph_destroy(g);
  md_diags_destroy(d);
}

int main(void) {
  dependencies_are_kept();
  products_are_beside_each_other();
  pairs_are_beside_each_other();
  exchanged_launches_are_seen();
  weights_that_are_gone_are_seen();
  try_step("modist-tiny", sm_80, 0, MD_F32, MD_OPT_SGD);
  try_step("modist-tiny", sm_80, 2, MD_F32, MD_OPT_ADAMW);
  try_step("modist-tiny", sm_80, 2, MD_BF16, MD_OPT_SGD);
  try_step("modist-r3d50", sm_80, 2, MD_BF16, MD_OPT_SGD);
  try_step("modist-r3d50", sm_90a, 2, MD_BF16, MD_OPT_SGD);
  printf("%d failed\n", failed);
  return failed != 0;
}
