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

static md_code lacks(md_gpu_lack *l, md_code code) { return l->code = code; }

static md_code find_calls(finder find, md_driver *v, md_gpu_lack *l) {
  for (int i = 0; i < MD_COUNT(calls); i++) {
    void *address = NULL;
    int status = 0;
    if (find(calls[i].name, &address, MD_DRIVER_LEAST, 0, &status)) address = NULL;
    memcpy((char *)v + calls[i].at, &address, sizeof address);
    if (address || !calls[i].is_needed) continue;
    snprintf(l->why, sizeof l->why, LIBRARY " has no %s of CUDA %d.%d", calls[i].name,
             MD_DRIVER_LEAST / 1000, MD_DRIVER_LEAST % 1000 / 10);
    return lacks(l, E0641);
  }
  return MD_NO_CODE;
}

md_code md_driver_open(md_driver *v, md_gpu_lack *l) {
  *v = (md_driver){0};
  *l = (md_gpu_lack){.code = MD_NO_CODE};
  void *lib = md_driver_library(LIBRARY, l->why, sizeof l->why);
  if (!lib) return lacks(l, E0635);
  finder find;
  void *init = dlsym(lib, "cuInit"), *address = dlsym(lib, "cuGetProcAddress_v2");
  memcpy(&v->cuInit, &init, sizeof init);  // POSIX promises it, ISO C has no cast for it
  memcpy(&find, &address, sizeof address);
  if (!init || !address) {
    snprintf(l->why, sizeof l->why, LIBRARY " has no %s: its driver is older than CUDA %d.%d",
             init ? "cuGetProcAddress_v2" : "cuInit", MD_DRIVER_LEAST / 1000,
             MD_DRIVER_LEAST % 1000 / 10);
    return lacks(l, E0641);
  }
  if (find_calls(find, v, l)) return l->code;
  int error = v->cuInit(0), version = 0;
  if (error) return md_driver_start_failed(v, "cuInit", error, l);
  error = v->cuDriverGetVersion(&version);
  if (error) return md_driver_start_failed(v, "cuDriverGetVersion", error, l);
  if (version >= MD_DRIVER_LEAST) return MD_NO_CODE;
  snprintf(l->why, sizeof l->why, "it speaks CUDA %d.%d, and %d.%d is the least", version / 1000,
           version % 1000 / 10, MD_DRIVER_LEAST / 1000, MD_DRIVER_LEAST % 1000 / 10);
  return lacks(l, E0641);
}

md_code md_driver_device(const md_driver *v, int index, int *id, md_gpu_device *device,
                         md_gpu_lack *l) {
  int error, major = 0, minor = 0;
  size_t bytes = 0;
  *device = (md_gpu_device){0};
  if ((error = v->cuDeviceGetCount(&device->count)))
    return md_driver_start_failed(v, "cuDeviceGetCount", error, l);
  if (device->count < 1) {
    snprintf(l->why, sizeof l->why, "the driver is there, but it sees no device");
    return lacks(l, E0635);
  }
  if (index >= device->count) {
    snprintf(l->why, sizeof l->why,
             "there is no device cuda:%d: the driver shows %d, from cuda:0 on", index,
             device->count);
    return lacks(l, E0642);
  }
  if ((error = v->cuDeviceGet(id, index)))
    return md_driver_start_failed(v, "cuDeviceGet", error, l);
  if ((error = v->cuDeviceGetName(device->name, (int)sizeof device->name, *id)))
    return md_driver_start_failed(v, "cuDeviceGetName", error, l);
  if ((error = v->cuDeviceGetAttribute(&major, MAJOR, *id)) ||
      (error = v->cuDeviceGetAttribute(&minor, MINOR, *id)))
    return md_driver_start_failed(v, "cuDeviceGetAttribute", error, l);
  if ((error = v->cuDeviceTotalMem(&bytes, *id)))
    return md_driver_start_failed(v, "cuDeviceTotalMem", error, l);
  if ((error = v->cuDriverGetVersion(&device->driver)))
    return md_driver_start_failed(v, "cuDriverGetVersion", error, l);
  device->sm = 10 * major + minor;
  device->bytes = (int64_t)bytes;
  char clean[sizeof device->name];
  md_clean(device->name, clean, sizeof clean);
  memcpy(device->name, clean, sizeof clean);
  return MD_NO_CODE;
}

bool md_gpu_find(int index, md_gpu_device *device, md_gpu_lack *l) {
  md_driver v;
  int id;
  *device = (md_gpu_device){0};
  return !md_driver_open(&v, l) && !md_driver_device(&v, index, &id, device, l);
}

bool md_gpu_require(int index, md_gpu_device *device, md_diags *d) {
  md_gpu_lack lack;
  return md_gpu_find(index, device, &lack) || md_driver_unusable(NULL, &lack, d);
}

// --- asked apart

typedef struct Answer {
  int index;
  bool is_found;
  md_gpu_device device;
  md_gpu_lack lack;
} Answer;

static md_status ask(void *ctx) {
  Answer *a = ctx;
  a->is_found = md_gpu_find(a->index, &a->device, &a->lack);
  return MD_OK;
}

bool md_gpu_ask(int index, md_gpu_device *device, md_gpu_lack *l) {
  Answer *a = md_shared_create(sizeof *a);
  a->index = index;
  int child = md_apart(ask, a), how = child < 0 ? 0 : md_apart_wait(child, NULL);
  if (child < 0 || how != 0) {
    a->is_found = false;
    a->lack = (md_gpu_lack){.code = E0635};
    snprintf(a->lack.why, sizeof a->lack.why, "the process that asked for it %s (%d)",
             child < 0 ? "was not given by the system" : "was ended", child < 0 ? errno : -how);
  }
  bool is_found = a->is_found;
  *device = a->device;
  *l = a->lack;
  md_shared_destroy(a, sizeof *a);
  return is_found;
}
