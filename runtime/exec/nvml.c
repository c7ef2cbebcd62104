// SPDX-License-Identifier: Apache-2.0
// The only file that speaks to NVML, NVIDIA's management library: libnvidia-ml.so.1, which comes with the driver and
// is opened when it is first asked for. It tells how fast the clocks of a device are. Nothing needs it.
#include "runtime/exec/driver.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnvidia-ml.so.1"
enum { CLOCK_SM = 1, CLOCK_MEMORY = 2 };  // NVML_CLOCK_*

struct md_nvml {
  void *library, *device;
  int (*init)(void);
  int (*shutdown)(void);
  int (*find)(const char *bus, void **device);
  int (*clock)(void *device, int which, unsigned *mhz);
  int (*reasons)(void *device, unsigned long long *bits);
  int (*driver)(char *version, unsigned size);
  const char *(*words)(int error);
};

// Reasons for which a device is slower than it was asked to be: nvmlClocksEventReason*. Others are settings of
// somebody's, or that it has nothing to do.
static const struct {
  uint64_t bit;
  const char *words;
} slow[] = {{0x04, "power limit"},
            {0x08, "hardware slowdown"},
            {0x20, "heat"},
            {0x40, "heat (hardware)"},
            {0x80, "power brake"}};

bool md_nvml_is_slow(uint64_t reasons) {
  for (int i = 0; i < MD_COUNT(slow); i++)
    if (reasons & slow[i].bit) return true;
  return false;
}

void md_nvml_words(uint64_t reasons, char *to, size_t size) {
  size_t len = 0;
  to[0] = '\0';
  for (int i = 0; i < MD_COUNT(slow) && len < size; i++)
    if (reasons & slow[i].bit)
      len += (size_t)snprintf(to + len, size - len, "%s%s", len ? ", " : "", slow[i].words);
}

// --- opening

static bool find_calls(md_nvml *n, char *why, int size) {
  const struct {
    const char *name, *older;  // before driver 535
    void *to;
  } calls[] = {{"nvmlInit_v2", NULL, &n->init},
               {"nvmlShutdown", NULL, &n->shutdown},
               {"nvmlDeviceGetHandleByPciBusId_v2", NULL, &n->find},
               {"nvmlDeviceGetClockInfo", NULL, &n->clock},
               {"nvmlDeviceGetCurrentClocksEventReasons",
                "nvmlDeviceGetCurrentClocksThrottleReasons", &n->reasons},
               {"nvmlSystemGetDriverVersion", NULL, &n->driver},
               {"nvmlErrorString", NULL, &n->words}};
  for (int i = 0; i < MD_COUNT(calls); i++) {
    void *at = dlsym(n->library, calls[i].name);
    if (!at && calls[i].older) at = dlsym(n->library, calls[i].older);
    memcpy(calls[i].to, &at, sizeof at);
    if (at) continue;
    snprintf(why, (size_t)size, LIBRARY " has no %s", calls[i].name);
    return false;
  }
  return true;
}

static bool did(const md_nvml *n, const char *call, int error, char *why, int size) {
  char words[100];
  const char *text = error ? n->words(error) : NULL;
  if (error)
    snprintf(why, (size_t)size, "%s fails with %d, %s", call, error,
             md_clean(text ? text : "no reason given", words, sizeof words));
  return !error;
}

static md_nvml *give_up(md_nvml *n) {
  if (n->library) dlclose(n->library);
  free(n);
  return NULL;
}

md_nvml *md_nvml_open(const char *bus, char *why, int size) {
  md_nvml *n = md_calloc(1, sizeof *n);
  n->library = md_driver_library(LIBRARY, why, size);
  if (!n->library || !find_calls(n, why, size) || !did(n, "nvmlInit_v2", n->init(), why, size))
    return give_up(n);
  if (!bus || did(n, "nvmlDeviceGetHandleByPciBusId_v2", n->find(bus, &n->device), why, size))
    return n;
  n->shutdown();
  return give_up(n);
}

void md_nvml_close(md_nvml *n) {
  if (!n) return;
  n->shutdown();
  give_up(n);
}

// --- asking

bool md_nvml_look(const md_nvml *n, int *sm_mhz, int *memory_mhz, uint64_t *reasons) {
  unsigned sm = 0, memory = 0;
  unsigned long long bits = 0;
  if (n->clock(n->device, CLOCK_SM, &sm) || n->clock(n->device, CLOCK_MEMORY, &memory))
    return false;
  if (n->reasons(n->device, &bits)) bits = 0;  // some devices do not tell
  *sm_mhz = (int)sm;
  *memory_mhz = (int)memory;
  *reasons = bits;
  return true;
}

bool md_nvml_driver(const md_nvml *n, char *version, int size) {
  char text[80] = "";
  if (n->driver(text, sizeof text) || !*text) return false;
  md_clean(text, version, (size_t)size);
  return true;
}

bool md_nvml_version(char *version, int size, char *why, int why_size) {
  md_nvml *n = md_nvml_open(NULL, why, why_size);
  bool ok = n && md_nvml_driver(n, version, size);
  if (n && !ok) snprintf(why, (size_t)why_size, LIBRARY " does not tell the driver's version");
  md_nvml_close(n);
  return ok;
}
