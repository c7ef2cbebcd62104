// SPDX-License-Identifier: Apache-2.0
// The code of a variant on a GPU: every kernel is loaded before the first step, so that none has to be
// while a step is captured. The driver compiles PTX here.
#include "runtime/exec/cuda.h"

#include <stdlib.h>
#include <string.h>

enum {
  LOG_BUFFER = 5,  // CU_JIT_ERROR_LOG_BUFFER, and its size
  LOG_BYTES = 6,
  LOG_ROOM = 4096,
  DYNAMIC_SHARED = 8,          // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
  SHARED_UNASKED = 48 * 1024,  // what a block has without asking
};

static bool load(md_cuda *c, const md_gpu_kernel *k, void **library, md_diags *d) {
  int options[] = {LOG_BUFFER, LOG_BYTES};
  void *values[] = {c->code.log, (void *)(uintptr_t)(LOG_ROOM - 1)};
  if (c->code.is_module)
    return md_cuda_did_compile(c, "cuModuleLoadDataEx",
                               c->call.cuModuleLoadDataEx(library, k->data, 2, options, values), d);
  int error = c->call.cuLibraryLoadData(library, k->data, options, values, 2, NULL, NULL, 0);
  return md_cuda_did_compile(c, "cuLibraryLoadData", error, d);
}

static bool find_function(md_cuda *c, void *library, const char *symbol, void **function,
                          md_diags *d) {
  if (c->code.is_module)
    return md_cuda_did_compile(c, "cuModuleGetFunction",
                               c->call.cuModuleGetFunction(function, library, symbol), d);
  void *kernel = NULL;
  return md_cuda_did_compile(c, "cuLibraryGetKernel",
                             c->call.cuLibraryGetKernel(&kernel, library, symbol), d) &&
         md_cuda_did_compile(c, "cuKernelGetFunction",
                             c->call.cuKernelGetFunction(function, kernel), d);
}

int md_cuda_code_kernel(const md_cuda *c, int launch) {
  const md_program *p = c->base.p;
  const md_gpu_variant *v = c->base.variant;
  const char *symbol = p->phase[p->launch[launch].first_phase].symbol;
  for (int i = 0; i < v->num_kernels; i++)
    if (!strcmp(p->kernel[v->first_kernel + i].symbol, symbol)) return i;
  MD_ASSERT(false, "kernel %s is launched, but is not there", symbol);
}

// The most dynamic memory that a launch of the kernel takes has to be asked for.
static bool ask_for_shared(md_cuda *c, void *const *function, const int64_t *dynamic, md_diags *d) {
  const md_gpu_kernel *k = &c->base.p->kernel[c->base.variant->first_kernel];
  for (int i = 0; i < c->code.num; i++) {
    if (!function[i] || dynamic[i] + k[i].facts.shared_bytes <= SHARED_UNASKED) continue;
    int error = c->call.cuFuncSetAttribute(function[i], DYNAMIC_SHARED, (int)dynamic[i]);
    if (!md_cuda_did(c, "cuFuncSetAttribute", -1, error, d)) return false;
  }
  return true;
}

static bool load_all(md_cuda *c, void **function, int64_t *dynamic, md_diags *d) {
  const md_program *p = c->base.p;
  const md_gpu_variant *v = c->base.variant;
  for (int i = 0; i < v->num_kernels; i++) {
    const md_gpu_kernel *k = &p->kernel[v->first_kernel + i];
    if (!load(c, k, &c->code.library[i], d) ||
        !find_function(c, c->code.library[i], k->symbol, &function[i], d))
      return false;
  }
  for (int i = 0; i < c->base.num_all; i++) {
    const md_phase *f = &p->phase[p->launch[v->first_launch + i].first_phase];
    int k = md_cuda_code_kernel(c, v->first_launch + i);
    c->code.function[i] = function[k];
    dynamic[k] = MD_MAX(dynamic[k], f->shared_bytes);
  }
  return ask_for_shared(c, function, dynamic, d);
}

static void *zeroed(int num, size_t size) { return md_calloc((size_t)num + 1, size); }

bool md_cuda_code_load(md_cuda *c, md_diags *d) {
  const md_gpu_variant *v = c->base.variant;
  c->code = (md_cuda_code){.num = v->num_kernels,
                           .library = zeroed(v->num_kernels, sizeof(void *)),
                           .function = zeroed(c->base.num_all, sizeof(void *)),
                           .log = zeroed(LOG_ROOM, 1)};
  c->code.is_module = !c->call.cuLibraryLoadData || !c->call.cuLibraryGetKernel ||
                      !c->call.cuKernelGetFunction || !c->call.cuLibraryUnload;
  void **function = zeroed(v->num_kernels, sizeof *function);
  int64_t *dynamic = zeroed(v->num_kernels, sizeof *dynamic);
  bool ok = load_all(c, function, dynamic, d);
  free(function);
  free(dynamic);
  return ok;
}

void md_cuda_code_unload(md_cuda *c) {
  for (int i = 0; i < c->code.num; i++) {
    void *library = c->code.library[i];
    if (library && c->code.is_module) c->call.cuModuleUnload(library);
    else if (library) c->call.cuLibraryUnload(library);
  }
  free(c->code.library);
  free(c->code.function);
  free(c->code.log);
}

void md_cuda_code_text(const md_cuda *c, int launch, md_text *to) {
  const md_program *p = c->base.p;
  const md_launch *l = &p->launch[launch];
  const md_phase *f = &p->phase[l->first_phase];
  int kernel = c->base.variant->first_kernel + md_cuda_code_kernel(c, launch);
  md_put(to, "%s %lld %d %lld", p->kernel[kernel].member, (long long)f->items, f->threads,
         (long long)f->shared_bytes);
  for (int i = 0; i < l->num_counts; i++)
    md_put(to, " %lld", (long long)p->count[l->first_count + i]);
  md_put(to, "\n");
}
