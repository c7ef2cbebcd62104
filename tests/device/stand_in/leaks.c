// SPDX-License-Identifier: Apache-2.0
// What was not given back when the process ends: into the log, or on stderr, and then the process aborts.
// After an error that spoils a context nothing can be given back.
#include "tests/device/stand_in/stand_in.h"

#include <stdarg.h>
#include <stdlib.h>

static int leaks;

static void tell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vfprintf(call_log() ? call_log() : stderr, fmt, args);
  va_end(args);
  leaks++;
}

static void tell_handles(Kind kind, const char *what) {
  const char *made_by;
  for (int i = 0; handle_next(kind, &i, &made_by);) tell("leak: %s of %s\n", what, made_by);
}

static void tell_leaks(void) {
  const char *made_by;
  const Context *c;
  for (int i = 0; (c = handle_next(A_CONTEXT, &i, &made_by));)
    if (!c->is_kept)
      tell("leak: the context of device %d, retained %d times\n", c->device, c->retained);
  const Block *b;
  for (int i = 0; (b = memory_next(&i));) tell("leak: %zu bytes of %s\n", b->bytes, b->made_by);
  tell_handles(A_STREAM, "a stream");
  tell_handles(AN_EVENT, "an event");
  tell_handles(A_LIBRARY, "a library");
  tell_handles(A_MODULE, "a module");
  tell_handles(A_GRAPH, "a graph");
  tell_handles(AN_EXEC, "a graph to launch");
  for (const Stream *s = stream_first(); s; s = s->next)
    if (s->done < s->issued) tell("leak: work that nobody has waited for\n");
}

__attribute__((destructor)) static void at_end(void) {
  if (call_log()) fprintf(call_log(), "%lld calls\n", (long long)call_count());
  if (context_any_spoiled()) return;
  tell_leaks();
  if (leaks && !call_log()) abort();
}
