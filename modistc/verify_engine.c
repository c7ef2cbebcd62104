// SPDX-License-Identifier: Apache-2.0
// A compiled program as a back end of the golden sets. Its memory is in the graph's own types.
#include "modistc/verify_golden.h"

#include "runtime/train/train.h"

#include <stdlib.h>

static void *engine_create(void *ctx, md_graph *g, md_diags *d) {
  return md_engine_create(g, ctx, d);
}

static void engine_destroy(void *run) { md_engine_destroy(run); }

// `from` in the type of the memory at `to`.
static bool engine_put(void *run, const char *name, const md_tensor *from) {
  md_type type;
  void *to = md_engine_input(run, name, &type);
  if (!to) to = md_engine_state(run, name, &type);
  bool fits = to && md_dtype_is_float(type.dtype) == (from->f != NULL) &&
              md_elements(&type.shape) == md_elements(&from->type.shape);
  if (!fits) return false;
  md_tensor same = {.type = type, .f = from->f, .i = from->i};
  same.type.block = 0;
  md_tensor_write(&same, to);
  return true;
}

static bool engine_step(void *run, md_diags *d) { return md_engine_step(run, d); }

static bool engine_get(void *run, const char *name, md_tensor *to) {
  int64_t n = md_elements(&to->type.shape);
  double *x = md_calloc((size_t)n, sizeof *x);
  bool ok = md_engine_result(run, name, x, n);
  for (int64_t i = 0; ok && i < n; i++) {
    if (to->f) to->f[i] = x[i];
    else to->i[i] = (int64_t)x[i];
  }
  free(x);
  if (ok) return true;
  md_type type;
  const void *from = md_engine_state(run, name, &type);
  bool fits =
      from && md_dtype_is_float(type.dtype) == (to->f != NULL) && md_elements(&type.shape) == n;
  if (!fits) return false;
  md_tensor same = {.type = type, .f = to->f, .i = to->i};
  same.type.block = 0;
  md_tensor_read(&same, from);
  return true;
}

md_verify_backend md_verify_engine(const char *name, md_engine_options *o) {
  return (md_verify_backend){.name = name,
                             .ctx = o,
                             .create = engine_create,
                             .destroy = engine_destroy,
                             .put = engine_put,
                             .step = engine_step,
                             .get = engine_get};
}
