// SPDX-License-Identifier: Apache-2.0
// Every way to make a convolution and its gradients makes what the interpreter says; and a record that
// names a way has the generator take it.
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

// Statistics behind a convolution, a source that is made on the way, one that is read as it is; gradients with
// strides. No tile divides an extent, but that of %x's channels, which TMA copies.
static const char graph_text[] =
    "graph @s(%x: f32[2,64,1,9,11], %w: f32[136,64,1,3,3], %u: f32[24,136,1,1,1], %g: f32[136], "
    "%p_b: f32[136], %dy: f32[2,136,1,5,6]) {\n"
    "  %a = conv3d %x, %w {pad=[0,1,1]}\n"
    "  %m, %v = moments %a {groups=1}\n"
    "  %n = batch_norm %a, %g, %p_b, %m, %v {batch_stats=true}\n"
    "  %r = relu %n\n"
    "  %y = conv3d %r, %u\n"
    "  %dx = conv3d_dgrad %dy, %w {stride=[1,2,2], pad=[0,1,1], shape=[2,64,1,9,11]}\n"
    "  %dw = conv3d_wgrad %dy, %x {stride=[1,2,2], pad=[0,1,1], shape=[136,64,1,3,3]}\n"
    "  return %y, %dx, %dw\n"
    "}\n";

static const simt_options random_order = {SIMT_RANDOM, 1};

// --- all ways give the right values

// The step with way number k of each product that has so many.
static int replace(const md_cuda_module *m, const md_cuda_launch *step, int num, int k,
                   md_cuda_launch *to) {
  int n = 0;
  for (int i = 0; i < num;) {
    const md_cuda_site *s = NULL;
    for (int j = 0; j < m->num_sites && !s; j++)
      if (m->site[j].first_launch == i && k < m->site[j].num_trials) s = &m->site[j];
    for (int l = 0; s && l < s->trial[k].num_launches; l++) to[n++] = s->trial[k].launch[l];
    if (!s) to[n++] = step[i];
    i += s ? s->num_launches : 1;
  }
  return n;
}

static bool is_right(const Program *p, md_text *why) {
  char **data = NULL;
  bool ok = run_program(p, NULL, random_order, &data, why) && program_check(p, data, why);
  simt_free_buffers();
  free(data);
  return ok;
}

static int try_ways(Program *p, const char *title, int *passed) {
  md_cuda_module *m = p->m;
  md_cuda_launch *step = m->launch, *to = NULL;
  int num = m->num_launches, n = 0, cap = 0, most = 0, failed = 0;
  for (int i = 0; i < num; i++) MD_PUSH(to, n, cap, step[i]);
  for (int i = 0; i < m->num_sites; i++) {
    most = MD_MAX(most, m->site[i].num_trials);
    for (int k = 0; k < m->site[i].num_trials; k++)
      for (int l = 0; l < m->site[i].trial[k].num_launches; l++)
        MD_PUSH(to, n, cap, m->site[i].trial[k].launch[l]);
  }
  m->launch = to;
  m->num_launches = n;
  bool is_built = run_build(p);  // of all kernels
  for (int k = 0; k < most; k++) {
    md_text why = {0};
    m->num_launches = replace(m, step, num, k, to);
    bool ok = is_built && is_right(p, &why);
    if (!ok) printf("FAILED %s, ways number %d: %s\n", title, k, why.s ? why.s : "");
    md_text_free(&why);
    *passed += ok;
    failed += !ok;
  }
  m->launch = step;
  m->num_launches = num;
  free(to);
  return failed;
}

// --- stages

// Shared memory that a way's product takes: its launch with the most.
static int shared_of(const md_cuda_launch *l, int num) {
  int most = 0;
  for (int i = 0; i < num; i++) most = MD_MAX(most, l[i].shared_bytes);
  return most;
}

// How many products have ways with fewer stages; -1: one of these takes as much memory as with all.
static int num_staged(const md_cuda_module *m) {
  int num = 0;
  for (int i = 0; i < m->num_sites; i++) {
    const md_cuda_site *s = &m->site[i];
    int own = shared_of(m->launch + s->first_launch, s->num_launches), staged = 0;
    for (int k = 0; k < s->num_trials; k++) {
      if (!s->trial[k].way.stages) continue;
      if (shared_of(s->trial[k].launch, s->trial[k].num_launches) >= own) return -1;
      staged++;
    }
    num += staged > 0;
  }
  return num;
}

// --- copies

// Products of which one way differs from their own by that alone: threads copy what TMA could.
static int num_copied(const md_cuda_module *m) {
  int num = 0;
  for (int i = 0; i < m->num_sites; i++) {
    md_cuda_schedule by_threads = m->site[i].own;
    by_threads.copies = true;
    for (int k = 0; k < m->site[i].num_trials; k++)
      num += md_cuda_schedule_equal(&m->site[i].trial[k].way, &by_threads);
  }
  return num;
}

// --- records

static bool same_launches(const md_cuda_module *m, const md_cuda_site *s, const md_cuda_module *n,
                          const md_cuda_trial *t) {
  if (s->num_launches != t->num_launches) return false;
  for (int i = 0; i < t->num_launches; i++) {
    const md_cuda_launch *a = &m->launch[s->first_launch + i], *b = &t->launch[i];
    if (strcmp(m->kernel[a->number].symbol, n->kernel[b->number].symbol) != 0 ||
        a->blocks != b->blocks)
      return false;
  }
  return true;
}

static int check_that(const char *what, bool is, int *passed) {
  *passed += is;
  if (!is) printf("FAILED: %s\n", what);
  return !is;
}

static int try_records(const Program *p, md_cuda_arch arch, const char *target, int *passed,
                       md_diags *d) {
  int failed = 0;
  const md_cuda_site *s = &p->m->site[0];
  const md_cuda_trial *t = &s->trial[s->num_trials - 1];
  char way[MD_CUDA_SCHEDULE_CHARS];
  md_records *r = md_records_create();
  md_record row = {.key = s->key,
                   .target = target,
                   .device = "NVIDIA H200",
                   .best = md_cuda_schedule_text(&t->way, way)};
  MD_PUSH(r->row, r->num, r->cap, row);
  md_cuda_how how = {.is_apart = true, .records = r, .device = "h200"};
  md_cuda_module *m = md_cuda_generate(p->g, arch, &how, d);
  const md_cuda_site *same = &m->site[0];
  failed += check_that("a record is not heard",
                       same->known_by && !strcmp(same->known_by, "NVIDIA H200") &&
                           md_cuda_schedule_equal(&same->used, &t->way) &&
                           same_launches(m, same, p->m, t),
                       passed);
  failed += check_that("a record is heard that is of another product",
                       !m->site[m->num_sites - 1].known_by, passed);
  md_cuda_module_free(m);
  how.device = "h100";
  m = md_cuda_generate(p->g, arch, &how, d);
  failed += check_that("a record of another device is heard", !m->site[0].known_by, passed);
  md_cuda_module_free(m);
  how.device = NULL;
  r->row[0].best = "wgmma 7x7 7";
  m = md_cuda_generate(p->g, arch, &how, d);
  failed += check_that(
      "a way that there is not is taken",
      !m->site[0].known_by && md_cuda_schedule_equal(&m->site[0].used, &m->site[0].own), passed);
  md_cuda_module_free(m);
  r->row[0].best = row.best;
  r->row[0].is_predicted = true;
  m = md_cuda_generate(p->g, arch, &how, d);
  failed += check_that("a prediction is heard", !m->site[0].known_by, passed);
  md_cuda_module_free(m);
  md_records_destroy(r);
  return failed;
}

// So many products are to have ways with fewer stages, and so many others by which threads copy.
static int try_all(md_cuda_arch arch, const char *target, md_dtype precision, int staged,
                   int copied, int *passed, md_diags *d) {
  char title[60];
  snprintf(title, sizeof title, "%s, %s", target, precision == MD_BF16 ? "bf16" : "f32");
  md_graph *g = md_parse_graph("sample", graph_text, strlen(graph_text), d);
  Program *p = g ? program_trials(arch, g, precision, 1, d) : NULL;
  int failed = 0, before = *passed;
  if (!p || p->m->num_sites < 4) {
    printf("FAILED %s: %d products\n%s", title, p ? p->m->num_sites : 0, md_diags_text(d));
    failed++;
  } else {
    failed += check_that("fewer stages", num_staged(p->m) == staged, passed);
    failed += check_that("copies by threads", num_copied(p->m) == copied, passed);
    failed += try_ways(p, title, passed) + try_records(p, arch, target, passed, d);
  }
  printf("%s: %d products, %d passed\n", title, p ? p->m->num_sites : 0, *passed - before);
  program_destroy(p);
  return failed;
}

int main(void) {
  simt_check_numbers(true);
  md_diags *d = md_diags_create();
  int passed = 0, failed = try_all((md_cuda_arch){80, 0}, "cuda:sm_80", MD_F32, 0, 0, &passed, d);
  failed += try_all((md_cuda_arch){80, 0}, "cuda:sm_80", MD_BF16, 0, 0, &passed, d);
  failed += try_all((md_cuda_arch){90, 'a'}, "cuda:sm_90a", MD_BF16, 3, 2, &passed, d);
  md_diags_destroy(d);
  printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}
