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

md_memory_limit md_cuda_memory(const md_cuda_options *o, int64_t bytes) {
  (void)o, (void)bytes;
  return (md_memory_limit){0};
}

int md_cuda_targets(const char *list, md_cuda_arch *arch, int max, md_diags *d) {
  (void)list, (void)arch, (void)max;
  is_off(d);
  return 0;
}

bool md_cuda_target_for(int sm, char *target, int size, md_diags *d) {
  (void)sm, (void)target, (void)size;
  return is_off(d);
}

bool md_cuda_is_loaded_by(int driver, md_diags *d) {
  (void)driver;
  return is_off(d);
}

// Nothing is known of devices, so nothing is asked about one.
int md_cuda_num_archs(void) { return 0; }
md_cuda_arch md_cuda_arch_at(int i, bool *has_suffix) {
  (void)i;
  *has_suffix = false;
  return (md_cuda_arch){0};
}
int md_cuda_num_devices(void) { return 0; }
const md_cuda_spec *md_cuda_device_at(int i) {
  (void)i;
  return NULL;
}
const md_cuda_spec *md_cuda_device(const char *name) {
  (void)name;
  return NULL;
}
const md_cuda_spec *md_cuda_named_device(const char *list, int sm) {
  (void)list, (void)sm;
  return NULL;
}
const md_cuda_spec *md_cuda_device_of(md_cuda_arch arch) {
  (void)arch;
  return NULL;
}
void md_cuda_spec_print(const md_cuda_spec *s, md_text *to) { (void)s, (void)to; }
bool md_cuda_spec_set(md_cuda_spec *s, const char *key, const char *text, md_place key_at,
                      md_place at, md_arena *a, md_diags *d) {
  (void)s, (void)key, (void)text, (void)key_at, (void)at, (void)a;
  return is_off(d);
}
bool md_cuda_spec_check(const md_cuda_spec *s, const char *file, md_diags *d) {
  (void)s, (void)file;
  return is_off(d);
}
const char *const md_cuda_limit_names[MD_NUM_LIMITS] = {"memory", "tensor", "fma", "launch"};
md_cuda_cost md_cuda_predict(const md_program *p, const md_launch *l, const md_kernel_facts *k,
                             md_cuda_math math, const md_cuda_spec *s) {
  (void)p, (void)l, (void)k, (void)math, (void)s;
  return (md_cuda_cost){0};
}
md_cuda_forecast md_cuda_forecast_of(const md_program *p, const md_gpu_variant *v,
                                     const md_cuda_report *r, const md_cuda_spec *s) {
  (void)p, (void)v, (void)r, (void)s;
  return (md_cuda_forecast){0};
}
md_cuda_cost md_cuda_cost_of(const md_program *p, const md_gpu_variant *v, const md_launch *l,
                             const md_cuda_report *r, const md_cuda_spec *s) {
  (void)p, (void)v, (void)l, (void)r, (void)s;
  return (md_cuda_cost){0};
}
const md_gpu_kernel *md_cuda_kernel_of(const md_program *p, const md_gpu_variant *v,
                                       const md_launch *l) {
  (void)p, (void)v, (void)l;
  return NULL;
}

const char *md_nvrtc_path(void) { return NULL; }
