// SPDX-License-Identifier: Apache-2.0
// Calls of the stand-in for cuDNN are counted and, where MODIST_STAND_IN_CUDNN_LOG names a file, written to
// it: number, name, status. MODIST_STAND_IN_CUDNN_FAULT=CALL:N:STATUS makes the N-th call of a function fail,
// `any` of all. What was not given back at the end is told there, too, or on stderr, and the process aborts.
#include "tests/device/stand_in_cudnn/stand_in_cudnn.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static int64_t num_calls, num_named;
static int alive;
static char words[300];

const char *cudnn_setting(const char *name, const char *preset) {
  char all[64];
  snprintf(all, sizeof all, "MODIST_STAND_IN_CUDNN_%s", name);
  const char *text = getenv(all);
  return text && *text ? text : preset;
}

static FILE *log_file(void) {
  static FILE *f;
  const char *path = cudnn_setting("LOG", NULL);
  if (!f && path) {
    f = fopen(path, "a");
    MD_ASSERT(f, "MODIST_STAND_IN_CUDNN_LOG=%s", path);
    setvbuf(f, NULL, _IOLBF, 0);
  }
  return f;
}

static int fault(const char *name) {
  char call[80];
  long long n, status;
  const char *text = cudnn_setting("FAULT", NULL);
  if (!text) return 0;
  MD_ASSERT(sscanf(text, "%79[^:]:%lld:%lld", call, &n, &status) == 3,
            "MODIST_STAND_IN_CUDNN_FAULT=%s", text);
  if (strcmp(call, "any") != 0 && strcmp(call, name) != 0) return 0;
  return ++num_named == n ? (int)status : 0;
}

int cudnn_call(const char *name) {
  num_calls++;
  words[0] = '\0';
  int status = fault(name);
  if (log_file())
    fprintf(log_file(), "%lld %s %d%s\n", (long long)num_calls, name, status,
            status ? " as MODIST_STAND_IN_CUDNN_FAULT says" : "");
  return status ? cudnn_refuse(status, "as MODIST_STAND_IN_CUDNN_FAULT says") : 0;
}

int cudnn_refuse(int status, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vsnprintf(words, sizeof words, fmt, args);
  va_end(args);
  return status;
}

void cudnn_note(const char *text) {
  if (log_file()) fprintf(log_file(), "%s\n", text);
}

const char *cudnn_words(void) { return words; }
void cudnn_alive(int by) { alive += by; }

__attribute__((destructor)) static void at_end(void) {
  FILE *f = log_file();
  if (alive) fprintf(f ? f : stderr, "leak: %d handles or descriptors of cuDNN\n", alive);
  if (alive && !f) abort();
}
