// SPDX-License-Identifier: Apache-2.0
// Element types of tensors.
#include "base/base.h"

#include <string.h>

static const struct dtype_row {
  const char *name;
  int size;
  bool is_float;
} dtypes[MD_NUM_DTYPES] = {
    [MD_NO_DTYPE] = {"?", 0, false}, [MD_F32] = {"f32", 4, true},    [MD_BF16] = {"bf16", 2, true},
    [MD_F64] = {"f64", 8, true},     [MD_I32] = {"i32", 4, false},   [MD_I64] = {"i64", 8, false},
    [MD_U8] = {"u8", 1, false},      [MD_BOOL] = {"bool", 1, false},
};

static const struct dtype_row *dtype_row(md_dtype d) {
  bool known = (int)d > MD_NO_DTYPE && (int)d < MD_NUM_DTYPES;
  return &dtypes[known ? d : MD_NO_DTYPE];
}

const char *md_dtype_name(md_dtype d) { return dtype_row(d)->name; }

md_dtype md_dtype_from(const char *name) {
  for (int d = MD_NO_DTYPE + 1; d < MD_NUM_DTYPES; d++)
    if (!strcmp(dtypes[d].name, name)) return (md_dtype)d;
  return MD_NO_DTYPE;
}

int md_dtype_size(md_dtype d) { return dtype_row(d)->size; }

bool md_dtype_is_float(md_dtype d) { return dtype_row(d)->is_float; }
