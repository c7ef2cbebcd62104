// SPDX-License-Identifier: Apache-2.0
// Leaves: their type is declared, not inferred.
#include "graph/op_functions.h"

bool leaf_shape(md_infer *f) {
  const char *why;
  f->num_out = 1;
  if (f->out[0].dtype == MD_NO_DTYPE) return md_reject(f, "has no declared element type");
  if (!md_shape_check(&f->out[0].shape, &why)) return md_reject(f, "has no valid shape: %s", why);
  if (f->node->op == MD_OP_constant && f->out[0].dtype == MD_BOOL) {
    double v = f->node->attr.value.value;
    if (v != 0 && v != 1) return md_reject(f, "a bool is 0 or 1, not %g", v);
  }
  return true;
}
