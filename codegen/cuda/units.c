// SPDX-License-Identifier: Apache-2.0
// Kernel texts to code. Each unit is compiled alone, so that the cache knows it whatever stands beside
// it; NVRTC works in as many threads as it is called from.
#include "codegen/cuda/cuda.h"

#include "base/cache.h"
#include "base/log.h"

#include <stdlib.h>

typedef struct Run {
  md_cuda_unit *unit;
  bool no_cache;
} Run;

// From the cache or from NVRTC. A cubin that spills is never in the cache.
static bool compile(md_cuda_unit *u, bool no_cache, md_diags *d) {
  md_digest key;
  if (!md_nvrtc_key(u->text, u->arch, u->ptx, &key, d)) return false;
  u->hit = !no_cache && md_cache_read(key, &u->data, &u->bytes);
  if (u->hit) return true;
  md_cubin code;
  if (!md_nvrtc_compile(u->text, u->name, u->arch, u->ptx, &code, d)) return false;
  free(code.log);
  u->data = code.data;
  u->bytes = code.bytes;
  if (!no_cache) md_cache_write(key, u->data, u->bytes);
  return true;
}

static void run_unit(void *ctx, int64_t item, int thread) {
  (void)thread;
  const Run *run = ctx;
  md_diags *own = md_diags_create();
  run->unit[item].failed = !compile(&run->unit[item], run->no_cache, own);
  md_diags_destroy(own);
}

bool md_cuda_units_compile(md_cuda_unit *u, int num, bool no_cache, int threads, md_diags *d) {
  Run run = {u, no_cache};
  int hits = 0, major, minor;
  if (!md_nvrtc_version(&major, &minor, d)) return false;
  int64_t start = md_now_ns();
  md_pool *pool = md_pool_create(threads);
  md_pool_run(pool, num, run_unit, &run);
  md_pool_destroy(pool);
  bool ok = true;
  for (int i = 0; i < num; i++) {
    hits += u[i].hit;
    if (!u[i].failed) continue;
    u[i].failed = !compile(&u[i], no_cache, d);  // once more, to report
    if (u[i].failed && u[i].what) md_note(d, MD_NOWHERE, "it is of %s", u[i].what);
    ok = ok && !u[i].failed;
  }
  md_log(MD_LOG_CACHE, MD_LEVEL_INFO, "%d of %d CUDA kernels were there", hits, num);
  md_log(MD_LOG_CODEGEN, MD_LEVEL_INFO, "NVRTC %d.%d: %d kernels in %.1f ms", major, minor,
         num - hits, (double)(md_now_ns() - start) * 1e-6);
  return ok;
}
