// SPDX-License-Identifier: Apache-2.0
// One element at a time as a double.
#include "runtime/exec/exec.h"

#include "base/round.h"

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
