// SPDX-License-Identifier: Apache-2.0
// The code of a CUDA program against its launches, as far as files tell: every kernel that is launched
// is there, for the right device, with as many parameters and threads as the launch has, and fits into
// a multiprocessor. What passes can be launched; no device is needed to know.
#include "runtime/exec/exec.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IN_MEMBER = 256, REGISTERS = 65536 };

// --- targets

bool md_gpu_target(const char *target, int *sm, char *suffix, bool *is_ptx) {
  static const char cubin[] = "cuda:sm_", ptx[] = "cuda:compute_";
  *is_ptx = !strncmp(target, ptx, strlen(ptx));
  if (!*is_ptx && strncmp(target, cubin, strlen(cubin)) != 0) return false;
  const char *s = target + strlen(*is_ptx ? ptx : cubin);
  int digits = 0;
  for (*sm = 0; digits < 3 && *s >= '0' && *s <= '9'; digits++) *sm = 10 * *sm + (*s++ - '0');
  *suffix = *s;
  if (*s == 'a' && !*is_ptx) s++;
  return digits >= 2 && !*s;
}

// By the table of compute capabilities in NVIDIA's CUDA programming guide, with the opt-in.
int64_t md_gpu_shared_limit(int sm) {
  if (sm < 80) return 64 << 10;
  if (sm == 80 || sm == 87) return 163 << 10;
  if (sm < 90 || sm >= 120) return 99 << 10;
  return 227 << 10;
}

// Cubins run on their own major version from their own minor one on, those of an `a` target nowhere
// else; the driver compiles PTX for every later device.
static bool runs_on(const md_gpu_variant *v, int device, int *rank) {
  int sm;
  char suffix;
  bool is_ptx;
  if (!md_gpu_target(v->target, &sm, &suffix, &is_ptx) || sm > device) return false;
  *rank = is_ptx ? 0 : 2 * sm + (suffix == 'a');
  if (is_ptx) return true;
  return suffix ? sm == device : sm / 10 == device / 10;
}

bool md_gpu_runs(const char *target, int sm) {
  int rank;
  return runs_on(&(md_gpu_variant){.target = target}, sm, &rank);
}

const md_gpu_variant *md_gpu_variant_for(const md_program *p, int sm) {
  const md_gpu_variant *best = NULL;
  for (int i = 0, best_rank = -1, rank; i < p->num_variants; i++) {
    if (!runs_on(&p->variant[i], sm, &rank) || rank <= best_rank) continue;
    best = &p->variant[i];
    best_rank = rank;
  }
  return best;
}

// --- kernels and launches

static bool bad(const md_program *p, md_diags *d, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool bad(const md_program *p, md_diags *d, const char *fmt, ...) {
  char text[400], clean[400];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  md_place at = p->path ? MD_IN_FILE(p->path) : MD_NOWHERE;
  return md_error(d, E0636, at, "CUDA code: %s", md_clean(text, clean, sizeof clean));
}

static bool read_kernel(const md_program *p, const md_gpu_variant *v, md_gpu_kernel *k,
                        md_diags *d) {
  md_kernel_facts facts[MAX_IN_MEMBER];
  const char *why;
  int sm = 0, want = 0;
  char suffix;
  bool is_ptx;
  md_gpu_target(v->target, &want, &suffix, &is_ptx);
  int num = is_ptx ? md_ptx_read(k->data, k->bytes, facts, MAX_IN_MEMBER, &sm, &why)
                   : md_cubin_read(k->data, k->bytes, facts, MAX_IN_MEMBER, &sm, &why);
  if (num < 0) return bad(p, d, "'%s' cannot be read: %s", k->member, why);
  if (sm != want) return bad(p, d, "'%s' is for sm_%d, not for %s", k->member, sm, v->target);
  for (int i = 0; i < num; i++) {
    if (strcmp(facts[i].name, k->symbol) != 0) continue;
    k->facts = facts[i];
    return true;
  }
  return bad(p, d, "'%s' has no kernel '%s'", k->member, k->symbol);
}

static int compare_symbols(const void *a, const void *b) {
  return strcmp((*(const md_gpu_kernel *const *)a)->symbol,
                (*(const md_gpu_kernel *const *)b)->symbol);
}

static bool check_launch(const md_program *p, const md_gpu_variant *v, const md_launch *l,
                         md_gpu_kernel *const *sorted, md_diags *d) {
  const md_phase *f = &p->phase[l->first_phase];
  md_gpu_kernel name = {.symbol = f->symbol}, *key = &name;
  md_gpu_kernel *const *found =
      bsearch(&key, sorted, (size_t)v->num_kernels, sizeof *sorted, compare_symbols);
  int sm;
  char suffix;
  bool is_ptx;
  md_gpu_target(v->target, &sm, &suffix, &is_ptx);
  if (!found) return bad(p, d, "%s has no kernel '%s' for '%s'", v->target, f->symbol, l->name);
  const md_kernel_facts *k = &(*found)->facts;
  if (k->param_bytes != 8 * (l->num_args + l->num_counts))
    return bad(p, d,
               "kernel '%s' takes %d bytes of parameters, but '%s' gives %d pointers and %d counts",
               f->symbol, k->param_bytes, l->name, l->num_args, l->num_counts);
  if (f->threads > k->max_threads)
    return bad(p, d, "kernel '%s' takes %d threads, but '%s' launches %d", f->symbol,
               k->max_threads, l->name, f->threads);
  int64_t shared = k->shared_bytes + f->shared_bytes, limit = md_gpu_shared_limit(sm);
  if (shared > limit)
    return bad(p, d, "kernel '%s' needs %lld bytes of shared memory; a block of %s has %lld",
               f->symbol, (long long)shared, v->target, (long long)limit);
  if ((int64_t)k->registers * f->threads > REGISTERS)
    return bad(p, d, "a block of kernel '%s' needs more registers than there are", f->symbol);
  return true;
}

static bool check_variant(md_program *p, const md_gpu_variant *v, md_diags *d) {
  md_gpu_kernel **sorted = md_calloc((size_t)v->num_kernels + 1, sizeof *sorted);
  bool ok = true;
  for (int i = 0; i < v->num_kernels && ok; i++) {
    sorted[i] = &p->kernel[v->first_kernel + i];
    ok = read_kernel(p, v, sorted[i], d);
  }
  if (ok && v->num_kernels) qsort(sorted, (size_t)v->num_kernels, sizeof *sorted, compare_symbols);
  for (int i = 0; i < v->num_launches + v->num_tried && ok; i++)
    ok = check_launch(p, v, &p->launch[v->first_launch + i], sorted, d);
  free(sorted);
  return ok;
}

bool md_gpu_code_check(md_program *p, md_diags *d) {
  for (int i = 0; i < p->num_variants; i++)
    if (!check_variant(p, &p->variant[i], d)) return false;
  return true;
}
