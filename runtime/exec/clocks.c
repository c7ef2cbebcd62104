// SPDX-License-Identifier: Apache-2.0
// How fast a device ran while it was measured: a time without the clock that it was taken at cannot be compared with
// another one. Whoever measures looks while the device works.
#include "runtime/exec/tune.h"

#include "runtime/exec/driver.h"

#include <string.h>

enum { SM_KHZ = 13, MEMORY_KHZ = 36 };  // CU_DEVICE_ATTRIBUTE_*: peaks

// --- watching

static void find_peak(const md_driver *v, int id, md_clocks *c) {
  int khz = 0;
  if (!v->cuDeviceGetAttribute(&khz, SM_KHZ, id)) c->sm_most = khz / 1000;
  if (!v->cuDeviceGetAttribute(&khz, MEMORY_KHZ, id)) c->memory_most = khz / 1000;
  c->sm_least = c->sm_most;
  c->memory_least = c->memory_most;
}

static md_nvml *open_nvml(const md_driver *v, int id, char *why, int size) {
  char bus[32] = "";
  if (v->cuDeviceGetPCIBusId && !v->cuDeviceGetPCIBusId(bus, sizeof bus, id))
    return md_nvml_open(bus, why, size);
  snprintf(why, (size_t)size, "the driver does not tell the place of the device on the bus");
  return NULL;
}

// What a process before has seen stays.
md_nvml *md_clocks_watch(md_clocks *c, int index) {
  md_driver v;
  md_gpu_device device;
  int id;
  md_gpu_lack lack;
  char why[600];
  if (md_driver_open(&v, &lack) || md_driver_device(&v, index, &id, &device, &lack)) return NULL;
  md_nvml *n = open_nvml(&v, id, why, sizeof why);
  if (c->looks) return n;
  snprintf(c->driver, sizeof c->driver, "CUDA %d.%d", device.driver / 1000,
           device.driver % 1000 / 10);
  if (n) {
    md_nvml_driver(n, c->driver, sizeof c->driver);
  } else {
    snprintf(c->why, sizeof c->why, "%.*s", (int)sizeof c->why - 1, why);
    find_peak(&v, id, c);
  }
  return n;
}

static void widen(int *least, int *most, int mhz, bool is_first) {
  *least = is_first ? mhz : MD_MIN(*least, mhz);
  *most = is_first ? mhz : MD_MAX(*most, mhz);
}

void md_clocks_look(md_clocks *c, const md_nvml *n) {
  int sm, memory;
  uint64_t reasons;
  if (!n || !md_nvml_look(n, &sm, &memory, &reasons)) return;
  widen(&c->sm_least, &c->sm_most, sm, !c->looks);
  widen(&c->memory_least, &c->memory_most, memory, !c->looks);
  c->looks++;
  c->throttled += md_nvml_is_slow(reasons);
  c->reasons |= reasons;
  md_nvml_words(c->reasons, c->why, sizeof c->why);
}

// --- telling

static void put_range(const char *what, int least, int most, char *to, size_t size) {
  if (least < most) snprintf(to, size, "%s %d to %d MHz", what, least, most);
  else snprintf(to, size, "%s %d MHz", what, most);
}

char *md_clocks_text(const md_clocks *c, char buf[MD_CLOCKS_CHARS]) {
  char sm[60], memory[60];
  if (!c || !c->sm_most) {
    snprintf(buf, MD_CLOCKS_CHARS, "not known");
    return buf;
  }
  put_range("SM", c->sm_least, c->sm_most, sm, sizeof sm);
  put_range("memory", c->memory_least, c->memory_most, memory, sizeof memory);
  if (!c->looks)
    snprintf(buf, MD_CLOCKS_CHARS, "not watched (%s); the highest are %s, %s", c->why, sm, memory);
  else if (c->throttled)
    snprintf(buf, MD_CLOCKS_CHARS, "%s, %s; held back in %d of %d steps: %s", sm, memory,
             c->throttled, c->looks, c->why);
  else snprintf(buf, MD_CLOCKS_CHARS, "%s, %s", sm, memory);
  return buf;
}

void md_clocks_tell(const md_clocks *c, const char *device, md_diags *d) {
  if (!c->throttled) return;
  md_warning(d, MD_NOWHERE, "%s held itself back in %d of %d steps that were measured: %s", device,
             c->throttled, c->looks, c->why);
  md_hint(d,
          "the ways of a round are slowed down alike, so the choice holds; the times are too long");
}
