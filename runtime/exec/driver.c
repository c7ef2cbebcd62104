// SPDX-License-Identifier: Apache-2.0
// NVIDIA's driver: the only file that speaks to libcuda.so.1. It is opened when it is first asked for,
// and its functions are declared here; a machine without it is an ordinary state.
#include "runtime/exec/exec.h"

#include <dlfcn.h>
#include <string.h>

enum { MAJOR = 75, MINOR = 76 };  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

typedef struct driver {
  int (*init)(unsigned);
  int (*version)(int *);
  int (*count)(int *);
  int (*get)(int *, int);
  int (*name)(char *, int, int);
  int (*attribute)(int *, int, int);
  int (*error)(int, const char **);
} driver;

// Where the loader does not look but containers and WSL keep it.
static const char *const folders[] = {"/usr/lib/wsl/lib", "/usr/local/nvidia/lib64",
                                      "/usr/local/cuda/compat"};
#define LIBRARY "libcuda.so.1"

static void *open_library(char *why, int size) {
  void *lib = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
  if (lib) return lib;
  char first[200], path[100];
  const char *text = dlerror();
  md_clean(text ? text : LIBRARY ": not found", first, sizeof first);
  for (int i = 0; i < MD_COUNT(folders); i++) {
    snprintf(path, sizeof path, "%s/" LIBRARY, folders[i]);
    if ((lib = dlopen(path, RTLD_NOW | RTLD_LOCAL))) return lib;
  }
  snprintf(why, (size_t)size, "%s; nor is it in %s, %s or %s", first, folders[0], folders[1],
           folders[2]);
  return NULL;
}

static bool find_symbols(void *lib, driver *d, char *why, int size) {
  const struct {
    const char *name;
    void *to;
  } symbols[] = {
      {"cuInit", &d->init},
      {"cuDriverGetVersion", &d->version},
      {"cuDeviceGetCount", &d->count},
      {"cuDeviceGet", &d->get},
      {"cuDeviceGetName", &d->name},
      {"cuDeviceGetAttribute", &d->attribute},
      {"cuGetErrorString", &d->error},
  };
  for (int i = 0; i < MD_COUNT(symbols); i++) {
    void *symbol = dlsym(lib, symbols[i].name);
    memcpy(symbols[i].to, &symbol, sizeof symbol);
    if (symbol) continue;
    snprintf(why, (size_t)size, LIBRARY " has no %s", symbols[i].name);
    return false;
  }
  return true;
}

// A driver without devices, or the toolkit's stand-in for it, is as good as none.
static bool ask(const driver *d, md_gpu_device *device, char *why, int size) {
  int count = 0, id, major = 0, minor = 0, error;
  const char *asked = "cuInit";
  if (!(error = d->init(0))) error = d->count(&count), asked = "cuDeviceGetCount";
  if (!error && count < 1) {
    snprintf(why, (size_t)size, "the driver is there, but it sees no device");
    return false;
  }
  if (!error) error = d->get(&id, 0), asked = "cuDeviceGet";
  if (!error)
    error = d->name(device->name, (int)sizeof device->name, id), asked = "cuDeviceGetName";
  if (!error) error = d->attribute(&major, MAJOR, id), asked = "cuDeviceGetAttribute";
  if (!error) error = d->attribute(&minor, MINOR, id);
  if (!error) error = d->version(&device->driver), asked = "cuDriverGetVersion";
  device->sm = 10 * major + minor;
  if (!error) return true;
  const char *text = NULL;
  char clean[160];
  if (d->error(error, &text)) text = NULL;
  snprintf(why, (size_t)size, "%s fails with %d (%s)", asked, error,
           md_clean(text ? text : "no reason given", clean, sizeof clean));
  return false;
}

bool md_gpu_find(md_gpu_device *device, char *why, int size) {
  *device = (md_gpu_device){.sm = 0};
  driver d;
  void *lib = open_library(why, size);
  return lib && find_symbols(lib, &d, why, size) && ask(&d, device, why, size);
}
