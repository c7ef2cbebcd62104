// SPDX-License-Identifier: Apache-2.0
// The border of this folder in a build without the CUDA back end (MODIST_CUDA=OFF).
#include "codegen/cuda/cuda.h"

static bool is_off(md_diags *d) {
  md_error(d, E0442, MD_NOWHERE, "this modist was built without the CUDA back end");
  md_hint(d, "configure it with -DMODIST_CUDA=AUTO");
  return false;
}

bool md_cuda_facts(const char *target, md_target_facts *facts, md_diags *d) {
  (void)target, (void)facts;
  return is_off(d);
}

bool md_cuda_compile(const md_graph *g, const char *target, md_cuda_emit what, md_text *out,
                     md_diags *d) {
  (void)g, (void)target, (void)what, (void)out;
  return is_off(d);
}

bool md_nvrtc_version(int *major, int *minor, md_diags *d) {
  (void)major, (void)minor;
  return is_off(d);
}

int md_nvrtc_archs(int *sm, int max, md_diags *d) {
  (void)sm, (void)max;
  is_off(d);
  return 0;
}

md_program *md_cuda_program(const md_graph *g, const md_cuda_options *o, md_cuda_report *report,
                            md_diags *d) {
  (void)g, (void)o, (void)report;
  is_off(d);
  return NULL;
}
