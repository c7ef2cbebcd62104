// SPDX-License-Identifier: Apache-2.0
// What every function of the driver begins and ends with. Calls run one at a time. Each is counted and
// written to the log, and the one that MODIST_STAND_IN_FAULT names fails:
//   CALL:N:ERROR   the N-th call of CALL, or the N-th of all for CALL `any`, in each process; where
//                  MODIST_STAND_IN_ONCE names a file, only while that is there, which it ends
// A call that releases something does so before it returns the error, as a driver does that tells of
// work done before.
//   With MODIST_STAND_IN_PLACES the log says of each call where it was made: @ and a digest of the calls
// that have led to it. One place has one digest in a process.
#include "tests/device/stand_in/stand_in.h"

#include <execinfo.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct Calls {
  pthread_mutex_t lock;
  const char *name;
  int64_t num, named;  // calls; those of the name that the fault has
  pid_t user;          // the process that has called cuInit
  bool is_hurt;        // the present one fails as it was told to
  bool spins;          // it waits, and keeps a core busy
  char why[400];
} calls = {.lock = PTHREAD_MUTEX_INITIALIZER};

const char *setting(const char *name, const char *preset) {
  char all[64];
  snprintf(all, sizeof all, "MODIST_STAND_IN_%s", name);
  const char *text = getenv(all);
  return text && *text ? text : preset;
}

int64_t setting_number(const char *name, int64_t preset) {
  const char *text = setting(name, NULL);
  int64_t n = preset;
  MD_ASSERT(!text || md_parse_bytes(text, &n) || md_parse_int(text, &n), "MODIST_STAND_IN_%s=%s",
            name, text);
  return n;
}

// --- the log

FILE *call_log(void) {
  static FILE *f;
  const char *path = setting("LOG", NULL);
  if (!f && path) {
    f = fopen(path, "a");
    MD_ASSERT(f, "MODIST_STAND_IN_LOG=%s", path);
    setvbuf(f, NULL, _IOLBF, 0);
  }
  return f;
}

static uint64_t place_of_call(void) {
  void *back[64];
  uint64_t digest = 0;
  for (int i = backtrace(back, MD_COUNT(back)); i-- > 0;)
    digest = md_hash_at(digest, (uintptr_t)back[i]);
  return digest;
}

static void log_call(int error) {
  FILE *f = call_log();
  if (!f) return;
  const char *name = "?";
  cuGetErrorName(error, &name);
  fprintf(f, "%lld %s", (long long)calls.num, calls.name);
  if (error) fprintf(f, " %d %s%s%s", error, name, *calls.why ? ": " : "", calls.why);
  if (calls.spins) fputs(" spins", f);
  if (setting("PLACES", NULL)) fprintf(f, " @%016llx", (unsigned long long)place_of_call());
  fputc('\n', f);
}

int refuse(int error, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vsnprintf(calls.why, sizeof calls.why, fmt, args);
  va_end(args);
  return error;
}

// --- faults

bool call_fault(const char *name, int *error) {
  const char *fault = setting("FAULT", NULL);
  if (!fault) return false;
  char call[100];
  snprintf(call, sizeof call, "%s", fault);
  char *at = strchr(call, ':'), *what = at ? strchr(at + 1, ':') : NULL;
  int64_t n = 0, code = 0;
  MD_ASSERT(what, "MODIST_STAND_IN_FAULT=%s", fault);
  *at++ = *what++ = '\0';
  MD_ASSERT(md_parse_int(at, &n) && md_parse_int(what, &code), "MODIST_STAND_IN_FAULT=%s", fault);
  bool is_any = !strcmp(call, "any") && strcmp(name, "kernel") != 0;
  if (!is_any && strcmp(call, name) != 0) return false;
  *error = (int)code;
  if (++calls.named != n) return false;
  const char *once = setting("ONCE", NULL);
  return !once || unlink(once) == 0;
}

// --- begin and end

const char *call_name(void) { return calls.name; }
int call_init(void) {
  if (calls.user && calls.user != getpid())
    return refuse(NOT_INITIALIZED, "the process that has forked this one has used the driver");
  calls.user = getpid();
  return 0;
}

void call_spins(void) { calls.spins = true; }

static int check(int needs) {
  if (needs && calls.user != getpid()) return refuse(NOT_INITIALIZED, "cuInit comes first");
  int error = needs & NEEDS_CONTEXT ? context_check() : 0;
  return error || !(needs & UNSAFE) ? error : capture_check_unsafe();
}

int call_begin(const char *name, int needs) {
  pthread_mutex_lock(&calls.lock);
  calls.name = name;
  calls.num++;
  calls.why[0] = '\0';
  calls.spins = false;
  int error = 0;
  calls.is_hurt = call_fault(name, &error);
  if (!calls.is_hurt) return check(needs);
  refuse(error, "as MODIST_STAND_IN_FAULT says");
  if (context_current() && is_sticky(error)) context_spoil(context_current(), error);
  return error;
}

bool call_releases(int error) { return !error || calls.is_hurt; }
int64_t call_count(void) { return calls.num; }

int call_end(int error) {
  log_call(error);
  pthread_mutex_unlock(&calls.lock);
  return error;
}
