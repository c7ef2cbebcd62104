// SPDX-License-Identifier: Apache-2.0
// Numbers as element types hold them.
#include "base/round.h"

#include "base/base.h"

#include <math.h>

int64_t md_integer_of(md_dtype d, double x) {
  if (d == MD_BOOL) return x != 0;
  if (isnan(x)) return 0;
  if (d == MD_I64) return x >= 0x1p63 ? INT64_MAX : x <= -0x1p63 ? INT64_MIN : (int64_t)x;
  double low = d == MD_U8 ? 0 : (double)INT32_MIN,
         high = d == MD_U8 ? UINT8_MAX : (double)INT32_MAX;
  return (int64_t)fmin(fmax(x, low), high);
}

double md_rounded(md_dtype d, double x) {
  switch (d) {
  case MD_F64: return x;
  case MD_F32: return (double)(float)x;
  case MD_BF16: return (double)md_bf16_to_float(md_bf16_from_float((float)x));
  default: return (double)md_integer_of(d, x);
  }
}
