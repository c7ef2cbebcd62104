// SPDX-License-Identifier: Apache-2.0
// NVIDIA's driver: libcuda.so.1, opened when it is first asked for; its functions are declared here. A
// machine without it is an ordinary state.
#include "runtime/exec/driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <string.h>

enum {
  MAJOR = 75,  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
  MINOR = 76,
};

// Where the loader does not look but containers and WSL keep it.
static const char *const folders[] = {"/usr/lib/wsl/lib", "/usr/local/nvidia/lib64",
                                      "/usr/local/cuda/compat"};
#define LIBRARY "libcuda.so.1"

void *md_driver_library(const char *name, char *why, int size) {
  void *lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (lib) return lib;
  char first[200], path[100];
  const char *text = dlerror();
  md_clean(text ? text : name, first, sizeof first);
  for (int i = 0; i < MD_COUNT(folders); i++) {
    snprintf(path, sizeof path, "%s/%s", folders[i], name);
    if ((lib = dlopen(path, RTLD_NOW | RTLD_LOCAL))) return lib;
  }
  snprintf(why, (size_t)size, "%s; nor is it in %s, %s or %s", first, folders[0], folders[1],
           folders[2]);
  return NULL;
}

typedef int (*finder)(const char *name, void **address, int version, uint64_t flags, int *status);

static const struct {
  const char *name;
  size_t at;
  bool is_needed;
} calls[] = {
#define CALL(name, parameters) {#name, offsetof(md_driver, name), true},
#define MAY(name, parameters) {#name, offsetof(md_driver, name), false},
#include "runtime/exec/driver_calls.def"
#undef CALL
#undef MAY
};

static md_code find_calls(finder find, md_driver *v, char *why, int size) {
  for (int i = 0; i < MD_COUNT(calls); i++) {
    void *address = NULL;
    int status = 0;
    if (find(calls[i].name, &address, MD_DRIVER_LEAST, 0, &status)) address = NULL;
    memcpy((char *)v + calls[i].at, &address, sizeof address);
    if (address || !calls[i].is_needed) continue;
    snprintf(why, (size_t)size, LIBRARY " has no %s of CUDA %d.%d", calls[i].name,
             MD_DRIVER_LEAST / 1000, MD_DRIVER_LEAST % 1000 / 10);
    return E0641;
  }
  return MD_NO_CODE;
}

static md_code failed(const md_driver *v, const char *call, int error, char *why, int size) {
  char words[MD_DRIVER_WORDS];
  snprintf(why, (size_t)size, "%s fails with %d, %s", call, error,
           md_driver_words(v, error, words));
  return E0635;
}

md_code md_driver_open(md_driver *v, char *why, int size) {
  *v = (md_driver){0};
  void *lib = md_driver_library(LIBRARY, why, size);
  if (!lib) return E0635;
  finder find;
  void *init = dlsym(lib, "cuInit"), *address = dlsym(lib, "cuGetProcAddress_v2");
  memcpy(&v->cuInit, &init, sizeof init);  // POSIX promises it, ISO C has no cast for it
  memcpy(&find, &address, sizeof address);
  if (!init || !address) {
    snprintf(why, (size_t)size, LIBRARY " has no %s: its driver is older than CUDA %d.%d",
             init ? "cuGetProcAddress_v2" : "cuInit", MD_DRIVER_LEAST / 1000,
             MD_DRIVER_LEAST % 1000 / 10);
    return E0641;
  }
  md_code code = find_calls(find, v, why, size);
  if (code) return code;
  int error = v->cuInit(0), version = 0;
  if (error) return failed(v, "cuInit", error, why, size);
  error = v->cuDriverGetVersion(&version);
  if (error) return failed(v, "cuDriverGetVersion", error, why, size);
  if (version >= MD_DRIVER_LEAST) return MD_NO_CODE;
  snprintf(why, (size_t)size, "it speaks CUDA %d.%d, and %d.%d is the least", version / 1000,
           version % 1000 / 10, MD_DRIVER_LEAST / 1000, MD_DRIVER_LEAST % 1000 / 10);
  return E0641;
}

// A driver without devices, or the toolkit's stand-in for it, is as good as none.
md_code md_driver_device(const md_driver *v, int index, int *id, md_gpu_device *device, char *why,
                         int size) {
  int error, major = 0, minor = 0;
  size_t bytes = 0;
  *device = (md_gpu_device){0};
  if ((error = v->cuDeviceGetCount(&device->count)))
    return failed(v, "cuDeviceGetCount", error, why, size);
  if (device->count < 1) {
    snprintf(why, (size_t)size, "the driver is there, but it sees no device");
    return E0635;
  }
  if (index >= device->count) {
    snprintf(why, (size_t)size, "there is no device cuda:%d: the driver shows %d, from cuda:0 on",
             index, device->count);
    return E0642;
  }
  if ((error = v->cuDeviceGet(id, index))) return failed(v, "cuDeviceGet", error, why, size);
  if ((error = v->cuDeviceGetName(device->name, (int)sizeof device->name, *id)))
    return failed(v, "cuDeviceGetName", error, why, size);
  if ((error = v->cuDeviceGetAttribute(&major, MAJOR, *id)) ||
      (error = v->cuDeviceGetAttribute(&minor, MINOR, *id)))
    return failed(v, "cuDeviceGetAttribute", error, why, size);
  if ((error = v->cuDeviceTotalMem(&bytes, *id)))
    return failed(v, "cuDeviceTotalMem", error, why, size);
  if ((error = v->cuDriverGetVersion(&device->driver)))
    return failed(v, "cuDriverGetVersion", error, why, size);
  device->sm = 10 * major + minor;
  device->bytes = (int64_t)bytes;
  char clean[sizeof device->name];
  md_clean(device->name, clean, sizeof clean);
  memcpy(device->name, clean, sizeof clean);
  return MD_NO_CODE;
}

static md_code find(int index, md_gpu_device *device, char *why, int size) {
  md_driver v;
  int id;
  *device = (md_gpu_device){0};
  md_code code = md_driver_open(&v, why, size);
  return code ? code : md_driver_device(&v, index, &id, device, why, size);
}

bool md_gpu_find(int index, md_gpu_device *device, char *why, int size) {
  return !find(index, device, why, size);
}

bool md_gpu_require(int index, md_gpu_device *device, md_diags *d) {
  char why[600];
  md_code code = find(index, device, why, sizeof why);
  return !code || md_driver_unusable(NULL, code, why, d);
}

// --- asked apart

typedef struct Answer {
  int index;
  md_gpu_device device;
  md_code code;
  char why[600];
} Answer;

static md_status ask(void *ctx) {
  Answer *a = ctx;
  a->code = find(a->index, &a->device, a->why, sizeof a->why);
  return MD_OK;
}

md_code md_gpu_ask(int index, md_gpu_device *device, char *why, int size) {
  Answer *a = md_shared_create(sizeof *a);
  a->index = index;
  int child = md_apart(ask, a), how = child < 0 ? 0 : md_apart_wait(child, NULL);
  if (child < 0 || how != 0) {
    a->code = E0635;
    snprintf(a->why, sizeof a->why, "the process that asked for it %s (%d)",
             child < 0 ? "was not given by the system" : "was ended", child < 0 ? errno : -how);
  }
  md_code code = a->code;
  *device = a->device;
  snprintf(why, (size_t)size, "%s", a->why);
  md_shared_destroy(a, sizeof *a);
  return code;
}
