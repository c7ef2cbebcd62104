// SPDX-License-Identifier: Apache-2.0
// Leaves: their type is declared, not inferred.
#include "graph/op_functions.h"

#include <math.h>

bool leaf_shape(md_infer *f) {
  double v = f->node->attr.value.value;
  md_dtype d = f->out[0].dtype;
  if (f->node->op != MD_OP_constant || md_dtype_is_float(d)) return true;
  // An integer type holds the value as it is, and the value as a double is exact.
  double low = d == MD_BOOL || d == MD_U8 ? 0 : d == MD_I32 ? -0x1p31 : -0x1p53;
  double high = d == MD_BOOL ? 1 : d == MD_U8 ? 255 : d == MD_I32 ? 0x1p31 - 1 : 0x1p53;
  if (v >= low && v <= high && v == floor(v)) return true;
  return md_reject(f, "%g is not a value of type %s", v, md_dtype_name(d));
}
