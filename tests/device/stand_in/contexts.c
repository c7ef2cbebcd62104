// SPDX-License-Identifier: Apache-2.0
// Contexts: the primary one of each device, and which is current in a thread. Some errors spoil a
// context: from then on every call that needs it returns them. Of most, cuda.h says that "the process must be
// terminated and relaunched": no other context is of use either, one that is retained later neither.
#include "tests/device/stand_in/stand_in.h"

#include <stdlib.h>

static Context *primary[MAX_DEVICES];
static int spoiled;                  // by which error
static _Thread_local void *current;  // handle

Context *context_current(void) { return handle_find(A_CONTEXT, current); }

int context_check(void) {
  if (!current) return refuse(INVALID_CONTEXT, "no context is current in this thread");
  const Context *c = context_current();
  if (!c) return refuse(CONTEXT_IS_DESTROYED, "the context has been released");
  int error = c->error ? c->error : spoiled;
  return error ? refuse(error, "the process is spoiled") : 0;
}

bool is_sticky(int error) {
  return error == ECC_UNCORRECTABLE || error == ILLEGAL_ADDRESS || error == 702 || error == 710 ||
         (error >= 714 && error <= LAUNCH_FAILED);
}

void context_spoil(Context *c, int error) {
  if (!c->error) c->error = error;
  if (!spoiled) spoiled = error;
}

bool context_any_spoiled(void) { return spoiled != 0; }

static int check_device(int device) {
  return device >= 0 && device < device_count() ? 0
                                                : refuse(INVALID_DEVICE, "no device %d", device);
}

API cuDevicePrimaryCtxRetain(void **context, int device) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error) error = check_device(device);
  if (!error && spoiled) error = refuse(spoiled, "the process is spoiled");
  if (error) return call_end(error);
  Context *c = primary[device];
  if (!c) {
    c = primary[device] = calloc(1, sizeof *c);
    MD_ASSERT(c, "out of memory");
    c->device = device;
    c->handle = handle_new(A_CONTEXT, c);
    c->legacy = stream_new(c, true);
  }
  c->retained++;
  *context = c->handle;
  return call_end(0);
}

// With the last one the context is gone; what is left in it shows at the end.
API cuDevicePrimaryCtxRelease_v2(int device) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!call_releases(error)) return call_end(error);
  int bad = check_device(device);
  if (bad) return call_end(error ? error : bad);
  Context *c = primary[device];
  if (!c) return call_end(error ? error : refuse(INVALID_CONTEXT, "it is not retained"));
  if (--c->retained) return call_end(error);
  MD_ASSERT(!c->is_kept, "the context goes from under a library that uses it");
  handle_drop(A_CONTEXT, c->handle);
  primary[device] = NULL;
  return call_end(error);
}

API cuStandInKeep(void) {
  Context *c = context_current();
  if (c) c->is_kept = true;
  return 0;
}

API cuCtxSetCurrent(void *context) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error && context && !handle_find(A_CONTEXT, context))
    error = refuse(INVALID_CONTEXT, "it is no context");
  if (!error) current = context;
  return call_end(error);
}

API cuCtxSynchronize(void) {
  int error = call_begin(__func__, NEEDS_INIT | NEEDS_CONTEXT | UNSAFE);
  if (!error) {
    stream_run_all(context_current());
    error = context_current()->error;
  }
  return call_end(error);
}
