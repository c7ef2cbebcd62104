// SPDX-License-Identifier: Apache-2.0
// A place in a kernel's text: the expression around it, and what that depends on.
#ifndef TESTS_SIMT_EXPRESSION_H
#define TESTS_SIMT_EXPRESSION_H

#include "base/base.h"

typedef struct Span {
  int64_t from, to;
} Span;
// The largest expression around an operator that has its value from operators that bind no looser: up
// to the brackets, commas, arms and assignments next to it.
Span expression_around(const char *text, int64_t at);
// Does its value depend on the thread and the block alone? False where that is not seen.
bool expression_is_index(const char *text, Span e);
// Do the thread and the block alone decide whether it is evaluated? False where that is not seen.
bool expression_is_reached_by_indices(const char *text, int64_t at);
// It is the value of a name that nothing in the kernel reads.
bool expression_is_unread(const char *text, int64_t at);
// `a < b` of a choice whose arms are equal where a is b: `a < b ? a : b`, `a < b ? b : a`.
bool expression_is_clamp(const char *text, int64_t at);

#endif
