// SPDX-License-Identifier: Apache-2.0
// Tensor maps for TMA. Only a driver can make them, of addresses on its device, so an artefact says what is to
// be in them; they are made when it is loaded, and lie behind the workspace.
#include "runtime/exec/cuda.h"

#include <stdlib.h>

enum {
  ALIGN = 64,         // of what the driver writes
  BF16 = 9,           // CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
  SWIZZLE_128 = 3,    // CU_TENSOR_MAP_SWIZZLE_128B
  PROMOTION_128 = 2,  // CU_TENSOR_MAP_L2_PROMOTION_L2_128B
};

static bool encode(md_cuda *c, void *to, int launch, const md_arg *a, md_diags *d) {
  const md_windows *w = a->windows;
  uint64_t dim[5], stride[5], bytes = 2;
  int first[3], last[3];
  unsigned step[5] = {1, 1, 1, 1, 1};
  for (int i = 0; i < 5; i++) {
    dim[i] = (uint64_t)w->dim[i];
    stride[i] = bytes *= dim[i];
  }
  for (int i = 0; i < 3; i++) {
    first[i] = (int)w->first[i];
    last[i] = (int)w->last[i];
    step[1 + i] = (unsigned)w->step[i];
  }
  int error = c->call.cuTensorMapEncodeIm2col(
      to, BF16, 5, (void *)(uintptr_t)md_cuda_place(c, a), dim, stride, first, last,
      (unsigned)w->channels, (unsigned)w->pixels, step, 0, SWIZZLE_128, PROMOTION_128, 0);
  return md_cuda_did(c, "cuTensorMapEncodeIm2col", launch, error, d);
}

// *bytes: of those that were made.
static bool make(md_cuda *c, char *host, md_gpu_place at, size_t *bytes, md_diags *d) {
  const md_program *p = c->base.p;
  for (int i = 0; i < c->base.num_all; i++) {
    int launch = c->base.first_launch + i;
    const md_launch *l = &p->launch[launch];
    for (int k = 0; k < l->num_args; k++) {
      const md_arg *a = &p->arg[l->first_arg + k];
      if (!a->windows) continue;
      if (!encode(c, host + *bytes, launch, a, d)) return false;
      c->place[l->first_arg + l->first_count + k] = at + *bytes;
      *bytes += MD_TENSOR_MAP_BYTES;
    }
  }
  return true;
}

bool md_cuda_maps_make(md_cuda *c, md_diags *d) {
  size_t all = (size_t)md_tensor_maps_bytes(c->base.p), bytes = 0;
  if (!all) return true;
  char *host = aligned_alloc(ALIGN, all);
  MD_ASSERT(host, "out of memory");
  md_gpu_place at = c->memory.at + (md_gpu_place)c->memory.maps;
  bool ok = make(c, host, at, &bytes, d);
  if (ok && bytes) {
    int error = c->call.cuMemcpyHtoDAsync(at, host, bytes, c->stream);
    ok = md_cuda_did(c, "cuMemcpyHtoDAsync", -1, error, d) && md_cuda_wait(c, -1, d);
  }
  free(host);
  return ok;
}
