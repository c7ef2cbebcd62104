// SPDX-License-Identifier: Apache-2.0
// The regions of a real training step, one by one: each region that has kernels gets its inputs from
// the interpreter and must give what the interpreter gives. So every fusion that the passes make of
// MoDist's networks, losses and optimisers is tried.
#include "models/models.h"
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

static int try_step_for(md_cuda_arch arch, const char *name, const md_step *s, int level,
                        md_dtype precision) {
  md_diags *d = md_diags_create();
  md_graph *g = md_step_graph(s, d);
  Program *p = g ? program_apart(arch, g, level, precision, 1, d) : NULL;
  bool built = p && run_build(p);
  Regions r = {0};
  int failed = 0;
  if (!built) {
    printf("FAILED %s: %s\n", name, md_diags_text(d));
    failed++;
  }
  if (built) r = run_regions(p, NULL, (simt_options){.order = SIMT_RANDOM}, name);
  failed += r.failed;
  if (p)
    printf("%s: %d regions, %d wrong, %d without kernels\n", name, r.passed + r.failed, r.failed,
           p->m->num_refused);
  // A step that has lost most of its regions shows nothing, nor does one without the target's own kernels.
  if (r.passed < 30 || (md_cuda_has_wgmma(arch) && p && !strstr(p->m->text.s, "md_wgmma")))
    failed++;
  program_destroy(p);
  md_diags_destroy(d);
  return failed;
}

static int try_step(const char *name, const md_step *s, int level, md_dtype precision) {
  return try_step_for((md_cuda_arch){80, 0}, name, s, level, precision);
}

int main(void) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 3;
  s.clip = (md_clip){2, 32};
  s.mclip = (md_clip){2, 32};
  s.bank = 150;
  s.bank_empty = false;
  int failed = try_step("fused step", &s, 2, MD_F32);
  failed += try_step("unfused step", &s, 0, MD_F32);
  failed += try_step("fused step in bf16", &s, 2, MD_BF16);
  s.opt = MD_OPT_ADAMW;
  failed += try_step("fused step with AdamW", &s, 2, MD_F32);
  s.visual = *md_net_from("mini_visual");
  s.motion = *md_net_from("mini_motion");
  failed += try_step_for((md_cuda_arch){90, 'a'}, "wider step with wgmma", &s, 2, MD_BF16);
  simt_forget();
  return failed != 0;
}
