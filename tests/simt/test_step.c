// SPDX-License-Identifier: Apache-2.0
// Two whole training steps of a small MoDist as CUDA kernels on the fiber machine, against the
// interpreter: the losses, and by how much each state has changed. In f32 and with bf16 activations for sm_80,
// and for sm_90a with enough channels in the last stage that its products are those of wgmma.
#include "models/models.h"
#include "tests/simt/run.h"
#include "tests/tolerance.h"

#include <stdlib.h>
#include <string.h>

enum { STEPS = 2 };

// Roundings of layers add up like a random walk. A unit whose input is closer to zero than that is
// switched by it: with an error e of activations, a share e of the units, whose gradients are then all
// wrong; by root mean squares that is an error of sqrt(e). Root mean squares of n differences scatter by
// a share 1 / sqrt(2 n): three times that is allowed on top (check_states).
static double relative_tolerance(const md_graph *g, md_dtype precision) {
  int64_t layers = 0;
  for (int i = 0; i < g->num_nodes; i++) layers += md_ops[g->node[i]->op].role == MD_ANCHOR;
  return sqrt(md_tolerance(precision, layers, 1));
}

// The host's part of a step: a new value that lies elsewhere takes the place of the state.
static void apply_updates(const Program *p, char *const *data) {
  for (int i = 0; i < p->g->num_updates; i++) {
    int from = p->image_of[p->g->update[i].val], to = p->image_of[p->g->update[i].state];
    if (from >= 0 && to >= 0 && from != to)
      memcpy(data[to], data[from], (size_t)p->image[to].bytes);
  }
}

static bool run_step(const Program *p, char *const *data, md_text *why) {
  for (int i = 0; i < p->m->num_launches; i++)
    if (!run_launch(p, &p->m->launch[i], NULL, (simt_options){.order = SIMT_RANDOM}, data, why))
      return false;
  apply_updates(p, data);
  return true;
}

// By root mean squares: of the differences, and of what the steps have changed. States are f32.
static bool check_states(const Program *p, char *const *data, double tolerance) {
  bool good = true;
  for (int i = 0; i < p->g->num_updates; i++) {
    md_val s = p->g->update[i].state;
    const md_type *t = md_type_in(p->g, s);
    const char *name = md_def(p->g, s)->name;
    const md_tensor *want = md_interp_state(p->ref, name);
    md_tensor *got = md_tensor_create(*t), *before = md_tensor_create(*t);
    MD_ASSERT(got && before, "out of memory");
    md_tensor_read(got, data[p->image_of[s]]);
    md_tensor_read(before, p->image[p->image_of[s]].data);
    double off = 0, change = 0, size = 0;
    for (int64_t j = 0; j < md_elements(&t->shape); j++) {
      double x = want->f ? want->f[j] : (double)want->i[j];
      double y = got->f ? got->f[j] : (double)got->i[j];
      double z = before->f ? before->f[j] : (double)before->i[j];
      off += (x - y) * (x - y);
      change += (x - z) * (x - z);
      size += x * x;
    }
    double scatter = 1 + 3 / sqrt(2 * (double)md_elements(&t->shape));
    double allowed = tolerance * scatter * sqrt(change) + md_tolerance(MD_F32, STEPS, sqrt(size));
    bool ok = sqrt(off) <= allowed && isfinite(off);
    if (!ok) printf("FAILED %s: off by %.3g of a change of %.3g\n", name, sqrt(off), sqrt(change));
    good &= ok;
    md_tensor_destroy(got);
    md_tensor_destroy(before);
  }
  return good;
}

// Where there is wgmma it makes products of each kind.
static bool has_products(const Program *p, md_cuda_arch arch) {
  static const md_op products[] = {MD_OP_conv3d, MD_OP_conv3d_dgrad, MD_OP_conv3d_wgrad};
  bool has = true;
  for (int i = 0; md_cuda_has_wgmma(arch) && i < MD_COUNT(products); i++) {
    int num = program_wgmmas(p, products[i]);
    printf("%d launches of %s with wgmma\n", num, md_ops[products[i]].name);
    has &= num > 0;
  }
  return has;
}

static int try(const char *name, md_cuda_arch arch, const md_step *s, md_dtype precision) {
  md_diags *d = md_diags_create();
  md_graph *g = md_step_graph(s, d);
  Program *p = g ? program_for(arch, g, 2, precision, 1, d) : NULL;
  md_text why = {0};
  bool ok = p && !p->m->num_refused && run_build(p);
  char **data = p ? calloc((size_t)p->num_images, sizeof *data) : NULL;
  for (int i = 0; ok && i < p->num_images; i++) {
    data[i] = simt_buffer(p->image[i].name, p->image[i].bytes, p->image[i].is_set);
    if (p->image[i].is_set) memcpy(data[i], p->image[i].data, (size_t)p->image[i].bytes);
  }
  for (int i = 0; ok && i < STEPS; i++) {
    ok = run_step(p, data, &why);
    if (ok && i > 0) ok = md_interp_step(p->ref, d);  // the first was made with the program
  }
  if (!ok) printf("FAILED %s: %s%s\n", name, why.s ? why.s : "", md_diags_text(d));
  double tolerance = p ? relative_tolerance(p->g, precision) : 0;
  ok = ok && check_states(p, data, tolerance);
  if (p && !has_products(p, arch)) {
    printf("FAILED %s: products without wgmma\n", name);
    ok = false;
  }
  if (p)
    printf("%s: %d launches, %d states, within %.2g of their change\n", name, p->m->num_launches,
           p->g->num_updates, tolerance);
  simt_free_buffers();
  free(data);
  program_destroy(p);
  md_text_free(&why);
  md_diags_destroy(d);
  return !ok;
}

int main(void) {
  simt_check(false);  // test_taps looks at each access of their regions
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 4;
  s.clip = (md_clip){2, 64};
  s.mclip = (md_clip){2, 64};
  s.bank = 64;
  s.bank_empty = false;
  const md_cuda_arch sm_80 = {80, 0}, sm_90a = {90, 'a'};
  int failed = try("f32", sm_80, &s, MD_F32) + try("bf16", sm_80, &s, MD_BF16);
  simt_check(true);
  s.clip.size = s.mclip.size = 32;
  s.visual.width[3] = s.motion.width[3] = 64;
  failed += try("bf16 with wgmma", sm_90a, &s, MD_BF16);
  simt_forget();
  return failed;
}
