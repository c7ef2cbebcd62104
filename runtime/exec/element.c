// SPDX-License-Identifier: Apache-2.0
// Element types: their table, and one element at a time as a double.
#include "runtime/exec/exec.h"

#include "base/round.h"

#include <string.h>

// clang-format off
static const struct { const char *name; int64_t bytes; bool is_float; } elements[MD_NUM_DTYPES] = {
  [MD_F32] = {"f32", 4, true}, [MD_BF16] = {"bf16", 2, true}, [MD_F64] = {"f64", 8, true},
  [MD_I32] = {"i32", 4, false}, [MD_I64] = {"i64", 8, false}, [MD_U8] = {"u8", 1, false},
  [MD_BOOL] = {"bool", 1, false},
};
// clang-format on

static bool is_element(md_dtype t) { return t > MD_NO_DTYPE && t < MD_NUM_DTYPES; }

int64_t md_element_bytes(md_dtype t) { return is_element(t) ? elements[t].bytes : 0; }

bool md_element_is_float(md_dtype t) { return is_element(t) && elements[t].is_float; }

const char *md_element_name(md_dtype t) { return is_element(t) ? elements[t].name : "none"; }

md_dtype md_element_from(const char *name) {
  for (int t = MD_NO_DTYPE + 1; t < MD_NUM_DTYPES; t++)
    if (!strcmp(elements[t].name, name)) return (md_dtype)t;
  return MD_NO_DTYPE;
}

double md_element_load(md_dtype t, const void *from, int64_t i) {
  switch (t) {
  case MD_F32: return (double)((const float *)from)[i];
  case MD_BF16: return (double)md_bf16_to_float(((const uint16_t *)from)[i]);
  case MD_F64: return ((const double *)from)[i];
  case MD_I32: return (double)((const int32_t *)from)[i];
  case MD_I64: return (double)((const int64_t *)from)[i];
  case MD_U8:
  case MD_BOOL: return (double)((const uint8_t *)from)[i];
  case MD_NO_DTYPE:
  case MD_NUM_DTYPES: break;
  }
  MD_ASSERT(false, "element type %d", (int)t);
}

void md_element_store(md_dtype t, void *to, int64_t i, double x) {
  switch (t) {
  case MD_F32: ((float *)to)[i] = (float)x; return;
  case MD_BF16: ((uint16_t *)to)[i] = md_bf16_from_float((float)x); return;
  case MD_F64: ((double *)to)[i] = x; return;
  case MD_I32: ((int32_t *)to)[i] = (int32_t)md_integer_of(t, x); return;
  case MD_I64: ((int64_t *)to)[i] = md_integer_of(t, x); return;
  case MD_U8:
  case MD_BOOL: ((uint8_t *)to)[i] = (uint8_t)md_integer_of(t, x); return;
  case MD_NO_DTYPE:
  case MD_NUM_DTYPES: break;
  }
  MD_ASSERT(false, "element type %d", (int)t);
}
