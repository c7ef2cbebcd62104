// SPDX-License-Identifier: Apache-2.0
// Tolerances of the tests, derived and never loosened to pass.
//
// A value of type d carries a relative error of half a unit in its last place, eps(d). A sum of n
// such terms, added in double or in the type itself by halves, has an error that grows like a random
// walk: eps * sqrt(n), times the size of the terms. SAFETY covers the few roundings of the formula
// around the sum (scale, bias, activation).
#ifndef TESTS_TOLERANCE_H
#define TESTS_TOLERANCE_H

#include "graph/graph.h"

#include <math.h>

enum { MD_TOLERANCE_SAFETY = 8 };

static inline double md_epsilon(md_dtype d) {
  if (d == MD_F64) return 0x1p-53;
  if (d == MD_F32) return 0x1p-24;
  return d == MD_BF16 ? 0x1p-8 : 0;  // integers and bools agree exactly
}

// Of a value whose terms are at most `size`, after a reduction of `length` terms.
static inline double md_tolerance(md_dtype d, int64_t length, double size) {
  return (double)MD_TOLERANCE_SAFETY * md_epsilon(d) * sqrt((double)length) * size;
}

// Central differences of step h in double: rounding eps*|f|/h and curvature h^2/6*|f'''|. With
// h = 1e-5, |f| and |f'''| of order `size`, the sum is below 1e-9 * size; the factor covers losses
// that add some hundred such terms.
#define MD_DIFFERENCE_STEP 1e-5
static inline double md_difference_tolerance(double size) { return 1e-7 * (1 + size); }

// Mean error of optical flow over a frame, in pixels: what the motion maps promise for translations of
// up to four pixels, borders included.
#define MD_FLOW_PIXELS 0.3

#endif
