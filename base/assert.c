// SPDX-License-Identifier: Apache-2.0
// A broken assertion: say where, let the hook save what helps to repeat it, abort.
#include "base/base.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

// Set by whoever holds the object worth saving. Process-wide, since abort is.
static void (*saved_hook)(void *);
static void *saved_ctx;

void md_assert_failed(const char *file, int line, const char *cond, const char *fmt, ...) {
  static atomic_flag entered = ATOMIC_FLAG_INIT;  // the hook itself may fail
  va_list args;
  va_start(args, fmt);
  fprintf(stderr, "modist: internal error at %s:%d: ", file, line);
  vfprintf(stderr, fmt, args);
  fprintf(stderr, "\n        (%s does not hold; this is a bug of modist, not of your input)\n",
          cond);
  va_end(args);
  fflush(stderr);
  if (!atomic_flag_test_and_set(&entered) && saved_hook) saved_hook(saved_ctx);
  abort();
}

void md_assert_hook(void (*hook)(void *), void *ctx) {
  saved_hook = hook;
  saved_ctx = ctx;
}
