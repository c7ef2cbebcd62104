// SPDX-License-Identifier: Apache-2.0
// What an element type holds of a number. The interpreter, constants, states and inputs all ask here,
// so that one graph begins and goes on with the same elements everywhere.
#ifndef BASE_ROUND_H
#define BASE_ROUND_H

#include "modist/dtype.h"

#include <stdint.h>

// x as an integer type: toward zero; what does not fit becomes the nearest that does, NaN becomes 0.
// A bool is whether x differs from 0, as NaN does.
int64_t md_integer_of(md_dtype d, double x);

// x as an element of type d: floats to nearest even, integers as md_integer_of says.
double md_rounded(md_dtype d, double x);

#endif
