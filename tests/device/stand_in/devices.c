// SPDX-License-Identifier: Apache-2.0
// What the driver says of itself and of its devices. All are alike, as the environment has them:
//   MODIST_STAND_IN_NAME, _SM (90), _MEMORY (bytes, 4G), _DEVICES (1), _DRIVER (13000)
//   MODIST_STAND_IN_WITHOUT   functions that an older driver does not have
#include "tests/device/stand_in/stand_in.h"

#include <dlfcn.h>
#include <string.h>

#include "runtime/exec/exec.h"

int device_count(void) { return (int)MD_MIN(setting_number("DEVICES", 1), MAX_DEVICES); }
int device_sm(void) { return (int)setting_number("SM", 90); }
int64_t device_bytes(void) { return setting_number("MEMORY", (int64_t)4 << 30); }
int64_t device_shared_limit(void) { return md_gpu_shared_limit(device_sm()); }

static int check_device(int device) {
  if (device >= 0 && device < device_count()) return 0;
  return refuse(INVALID_DEVICE, "there is no device %d", device);
}

API cuInit(unsigned flags) {
  int error = call_begin(__func__, NEEDS_NOTHING);
  if (!error && flags) error = refuse(INVALID_VALUE, "flags %u", flags);
  return call_end(error ? error : call_init());
}

API cuDriverGetVersion(int *version) {
  int error = call_begin(__func__, NEEDS_NOTHING);
  if (!error) *version = (int)setting_number("DRIVER", 13000);
  return call_end(error);
}

static bool is_without(const char *name) {
  const char *list = setting("WITHOUT", "");
  size_t len = strlen(name);
  for (const char *s = list; (s = strstr(s, name)); s += len)
    if ((s == list || s[-1] == ',') && (!s[len] || s[len] == ',')) return true;
  return false;
}

// The newest of name_v5 ... name.
static void *newest(const char *name) {
  char all[100];
  void *self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), *symbol = NULL;
  for (int v = 5; v > 1 && !symbol; v--) {
    snprintf(all, sizeof all, "%s_v%d", name, v);
    symbol = dlsym(self, all);
  }
  if (!symbol) symbol = dlsym(self, name);
  dlclose(self);
  return symbol;
}

API cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                        int *status) {
  int error = call_begin(__func__, NEEDS_NOTHING);
  if (!error && (flags || version < 12000))
    error = refuse(INVALID_VALUE, "%s of version %d with flags %llu", name, version,
                   (unsigned long long)flags);
  if (!error) *function = is_without(name) || strstr(name, "_v") ? NULL : newest(name);
  if (!error && status) *status = *function ? 0 : SYMBOL_NOT_FOUND;
  return call_end(error);
}

// NVRTC asks for a table of what the public does not know. No call of modist: it is not counted.
API cuGetExportTable(const void **table, const void *id) {
  (void)id;
  *table = NULL;
  return NOT_FOUND;
}

API cuDeviceGetCount(int *count) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error) *count = device_count();
  return call_end(error);
}

API cuDeviceGet(int *device, int index) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error) error = check_device(index);
  if (!error) *device = index;
  return call_end(error);
}

API cuDeviceGetName(char *name, int size, int device) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error) error = check_device(device);
  if (!error) snprintf(name, (size_t)size, "%s", setting("NAME", "Stand-in GPU"));
  return call_end(error);
}

API cuDeviceGetPCIBusId(char *text, int size, int device) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error) error = check_device(device);
  if (!error && size < 13) error = refuse(INVALID_VALUE, "%d bytes for a place on the bus", size);
  if (!error) snprintf(text, (size_t)size, "0000:%02X:00.0", device + 1);
  return call_end(error);
}

API cuDeviceTotalMem_v2(size_t *bytes, int device) {
  int error = call_begin(__func__, NEEDS_INIT);
  if (!error) error = check_device(device);
  if (!error) *bytes = (size_t)device_bytes();
  return call_end(error);
}

// CU_DEVICE_ATTRIBUTE_* by number; -1: it is not known here.
static int attribute(int which) {
  switch (which) {
  case 1: return 1024;  // threads of a block
  case 2:
  case 3: return 1024;  // on x and y
  case 4: return 64;
  case 5: return INT32_MAX;  // blocks on x
  case 6:
  case 7: return 65535;
  case 8: return 48 << 10;  // shared memory of a block
  case 10: return 32;       // a warp
  case 12:
  case 82: return 65536;    // registers of a block, of a multiprocessor
  case 13: return 1000000;  // clock, kHz
  case 16: return 4;        // multiprocessors
  case 18:
  case 20: return 0;  // integrated; compute mode
  case 31:
  case 41:
  case 78: return 1;        // concurrent kernels; one address space; priorities
  case 36: return 1000000;  // memory clock, kHz
  case 37: return 1024;     // its bus
  case 38: return 4 << 20;  // L2
  case 39:
    return device_sm() % 10 && device_sm() != 103 ? 1536 : 2048;  // threads of a multiprocessor
  case 40: return 2;                                              // copy engines
  case 75: return device_sm() / 10;
  case 76: return device_sm() % 10;
  case 81: return (int)device_shared_limit() + MD_RESERVED_SHARED;
  case 95: return 0;  // cooperative launches
  case 97: return (int)device_shared_limit();
  case 106: return 32;  // blocks of a multiprocessor
  case 111: return MD_RESERVED_SHARED;
  case 115:
  case 120: return 0;  // memory pools; clusters
  default: return -1;
  }
}

API cuDeviceGetAttribute(int *value, int which, int device) {
  int error = call_begin(__func__, NEEDS_INIT), x = attribute(which);
  if (!error) error = check_device(device);
  if (!error && x < 0) error = refuse(INVALID_VALUE, "attribute %d", which);
  if (!error) *value = x;
  return call_end(error);
}
