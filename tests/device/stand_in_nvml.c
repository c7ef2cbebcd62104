// SPDX-License-Identifier: Apache-2.0
// A stand-in for NVML, libnvidia-ml.so.1, in a folder of its own: who does not look there has none. What it tells
// is as the environment has it, lists with commas in turn:
//   MODIST_STAND_IN_NVML_SM, _MEMORY   MHz (1500, 2600)
//   MODIST_STAND_IN_NVML_REASONS       bits (0)
//   MODIST_STAND_IN_NVML_SLOW          ms that a question about clocks takes (0)
//   MODIST_STAND_IN_NVML_FAULT=CALL:N:STATUS   the N-th call of a function fails
// It refuses calls before it is initialised, and devices that there are not: the first is at 0000:01:00.0. What was
// initialised and not shut down at the end is told on stderr, and the process aborts.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default"))) int
enum { UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_FOUND = 6, SMALL = 7 };  // NVML_ERROR_*
enum { CLOCK_SM = 1, CLOCK_MEMORY = 2 };

API nvmlInit_v2(void);
API nvmlShutdown(void);
API nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device);
API nvmlDeviceGetClockInfo(void *device, int which, unsigned *mhz);
API nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *bits);
API nvmlSystemGetDriverVersion(char *version, unsigned size);
__attribute__((visibility("default"))) const char *nvmlErrorString(int error);

static int alive, num_named;
static const char the_device[] = "device";

static const char *setting(const char *name, const char *preset) {
  char all[64];
  snprintf(all, sizeof all, "MODIST_STAND_IN_NVML_%s", name);
  const char *text = getenv(all);
  return text && *text ? text : preset;
}

static int begin(const char *name) {
  char call[80];
  int n, status;
  if (sscanf(setting("FAULT", ""), "%79[^:]:%d:%d", call, &n, &status) == 3 &&
      !strcmp(call, name) && ++num_named == n)
    return status;
  return alive || !strcmp(name, "nvmlInit_v2") ? 0 : UNINITIALIZED;
}

// Number `turn` of the list, which begins anew at its end.
static unsigned long long in_turn(const char *name, const char *preset, int turn) {
  const char *list = setting(name, preset), *s = list;
  int num = 1;
  for (const char *c = list; *c; c++) num += *c == ',';
  for (int i = turn % num; i > 0; i--) s = strchr(s, ',') + 1;
  return strtoull(s, NULL, 0);
}

API nvmlInit_v2(void) {
  int error = begin(__func__);
  alive += !error;
  return error;
}

API nvmlShutdown(void) {
  int error = begin(__func__);
  alive -= alive > 0;
  return error;
}

API nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
  int error = begin(__func__);
  if (error) return error;
  memcpy(device, &(const void *){the_device}, sizeof *device);
  return strcmp(bus, "0000:01:00.0") ? NOT_FOUND : 0;
}

API nvmlDeviceGetClockInfo(void *device, int which, unsigned *mhz) {
  static int turn[3], asked;
  int error = begin(__func__);
  if (error) return error;
  unsigned long long ms = in_turn("SLOW", "0", asked++);
  nanosleep(
      &(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000},
      NULL);
  if (device != the_device || (which != CLOCK_SM && which != CLOCK_MEMORY)) return INVALID_ARGUMENT;
  *mhz = (unsigned)(which == CLOCK_SM ? in_turn("SM", "1500", turn[which]++)
                                      : in_turn("MEMORY", "2600", turn[which]++));
  return 0;
}

API nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *bits) {
  static int turn;
  int error = begin(__func__);
  if (error) return error;
  if (device != the_device) return INVALID_ARGUMENT;
  *bits = in_turn("REASONS", "0", turn++);
  return 0;
}

API nvmlSystemGetDriverVersion(char *version, unsigned size) {
  int error = begin(__func__);
  if (error) return error;
  return snprintf(version, size, "580.65.06") < (int)size ? 0 : SMALL;
}

const char *nvmlErrorString(int error) {
  return error == NOT_FOUND       ? "Not Found"
         : error == UNINITIALIZED ? "Uninitialized"
                                  : "Unknown Error";
}

__attribute__((destructor)) static void at_end(void) {
  if (!alive) return;
  fprintf(stderr, "leak: NVML was initialised %d times too often\n", alive);
  abort();
}
