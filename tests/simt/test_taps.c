// SPDX-License-Identifier: Apache-2.0
// The regions of a real training step, one by one: each region that has kernels gets its inputs from
// the interpreter and must give what the interpreter gives. So every fusion that the passes make of
// MoDist's networks, losses and optimisers is tried, though convolutions have no kernel yet.
#include "models/models.h"
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

// Launches first .. first + num - 1 are those of one region.
static bool try_region(const Program *p, const simt_code *code, int first, int num, md_text *why) {
  int region = p->m->launch[first].region;
  char **data = calloc((size_t)p->num_images, sizeof *data);
  MD_ASSERT(data, "out of memory");
  bool ok = true;
  for (int l = first; l < first + num; l++) {
    for (int i = 0; i < p->m->launch[l].num_args; i++) {
      const md_cuda_arg *a = &p->m->launch[l].arg[i];
      int64_t offset;
      int at = program_place(p, a, &offset);
      const Image *image = &p->image[at];
      bool from_outside = a->val != MD_NONE && md_def(p->g, a->val)->region != region;
      bool over = data[at] != NULL;
      md_val state = a->val != MD_NONE ? p->g->value[a->val].storage : MD_NONE;
      if (!over) data[at] = simt_buffer(image->name, image->bytes, from_outside || state);
      // What changes a part of a state leaves the rest.
      if (!over && state) md_tensor_write(md_interp_value(p->ref, state), data[at]);
      // A result may lie over an operand, which then decides what is there first.
      if (from_outside) {
        if (over) simt_set(data[at]);
        if (l == first || !over) md_tensor_write(md_interp_value(p->ref, a->val), data[at]);
      }
    }
  }
  for (int l = first; ok && l < first + num; l++)
    ok = run_launch(p, &p->m->launch[l], code, (simt_options){SIMT_RANDOM, (uint64_t)region}, data,
                    why);
  double tolerance = program_tolerance(p, region);
  for (int l = first; ok && l < first + num; l++) {
    for (int i = 0; ok && i < p->m->launch[l].num_args; i++) {
      const md_cuda_arg *a = &p->m->launch[l].arg[i];
      char name[32];
      snprintf(name, sizeof name, "value %u", (unsigned)a->val);
      if (a->write && a->val != MD_NONE)
        ok = program_check_value(p, name, a->val, data[p->image_of[a->val]], tolerance, why);
    }
  }
  simt_free_buffers();
  free(data);
  return ok;
}

static int try_step(const char *name, const md_step *s, int level) {
  md_diags *d = md_diags_create();
  md_graph *g = md_step_graph(s, d);
  Program *p = g ? program_of(g, level, 1, d) : NULL;
  simt_code *code = p ? run_build(p) : NULL;
  int passed = 0, failed = 0;
  if (!code) {
    printf("FAILED %s: %s\n", name, md_diags_text(d));
    failed++;
  }
  for (int first = 0, num; code && first < p->m->num_launches; first += num) {
    for (num = 1; first + num < p->m->num_launches; num++)
      if (p->m->launch[first + num].region != p->m->launch[first].region) break;
    md_text why = {0};
    bool ok = try_region(p, code, first, num, &why);
    if (!ok)
      printf("FAILED %s, region %d %s: %s\n", name, p->m->launch[first].region,
             p->g->region[p->m->launch[first].region].name, why.s);
    passed += ok;
    failed += !ok;
    md_text_free(&why);
  }
  if (p)
    printf("%s: %d regions, %d wrong, %d without kernels\n", name, passed + failed, failed,
           p->m->num_refused);
  // A step that has lost most of its regions shows nothing.
  if (passed < 30) failed++;
  simt_code_free(code);
  program_destroy(p);
  md_diags_destroy(d);
  return failed;
}

int main(void) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 3;
  s.clip = (md_clip){2, 32};
  s.mclip = (md_clip){2, 32};
  s.bank = 150;
  s.bank_empty = false;
  int failed = try_step("fused step", &s, 2);
  failed += try_step("unfused step", &s, 0);
  s.opt = MD_OPT_ADAMW;
  failed += try_step("fused step with AdamW", &s, 2);
  return failed != 0;
}
