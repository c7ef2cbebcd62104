// SPDX-License-Identifier: Apache-2.0
#include "tests/device/driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

enum { MAJOR = 75, MINOR = 76 };  // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

static bool find_functions(Driver *d, void *lib) {
  struct {
    const char *name;
    void *to;
  } symbols[] = {
      {"cuInit", &d->init},
      {"cuDeviceGetCount", &d->count},
      {"cuDeviceGet", &d->get},
      {"cuDeviceGetName", &d->name},
      {"cuDeviceGetAttribute", &d->attribute},
      {"cuDriverGetVersion", &d->version},
      {"cuDevicePrimaryCtxRetain", &d->retain},
      {"cuDevicePrimaryCtxRelease_v2", &d->release},
      {"cuCtxSetCurrent", &d->current},
      {"cuCtxSynchronize", &d->synchronize},
      {"cuModuleLoadData", &d->load},
      {"cuModuleUnload", &d->unload},
      {"cuModuleGetFunction", &d->function},
      {"cuFuncSetAttribute", &d->allow},
      {"cuMemAlloc_v2", &d->alloc},
      {"cuMemFree_v2", &d->free},
      {"cuMemsetD8_v2", &d->set},
      {"cuMemcpyHtoD_v2", &d->to_device},
      {"cuMemcpyDtoH_v2", &d->to_host},
      {"cuLaunchKernel", &d->launch},
      {"cuTensorMapEncodeTiled", &d->tiled},
      {"cuTensorMapEncodeIm2col", &d->im2col},
      {"cuGetErrorString", &d->error},
  };
  for (int i = 0; i < MD_COUNT(symbols); i++) {
    void *symbol = dlsym(lib, symbols[i].name);
    memcpy(symbols[i].to, &symbol, sizeof symbol);
    if (symbol) continue;
    printf("no GPU here: the driver has no %s\n", symbols[i].name);
    return false;
  }
  return true;
}

bool driver_open(Driver *d) {
  void *lib = dlopen("libcuda.so.1", RTLD_NOW);
  if (!lib) {
    printf("no GPU here: %s\n", dlerror());
    return false;
  }
  if (!find_functions(d, lib)) return false;
  int count = 0, major = 0, minor = 0;
  int error = d->init(0);
  if (!error) error = d->count(&count);
  if (error || !count) {
    const char *text = NULL;
    if (error) d->error(error, &text);
    printf("no GPU here: %s\n", text ? text : "the driver sees none");
    return false;
  }
  void *context;
  error = d->get(&d->device, 0) || d->name(d->label, sizeof d->label, d->device) ||
          d->attribute(&major, MAJOR, d->device) || d->attribute(&minor, MINOR, d->device) ||
          d->retain(&context, d->device) || d->current(context);
  if (error) {
    printf("no GPU here: the device cannot be used\n");
    return false;
  }
  d->sm = major * 10 + minor;
  return true;
}

bool driver_good(const Driver *d, int error, const char *what, md_text *why) {
  if (!error) return true;
  const char *text = NULL;
  d->error(error, &text);
  md_put(why, "%s: %s", what, text ? text : "?");
  return false;
}

bool driver_launch(const Driver *d, void *module, const char *kernel, int64_t blocks, int threads,
                   int64_t shared_bytes, void **arg, md_text *why) {
  void *function;
  return driver_good(d, d->function(&function, module, kernel), kernel, why) &&
         driver_good(d, d->allow(function, DYNAMIC_SHARED, (int)shared_bytes), kernel, why) &&
         driver_good(d,
                     d->launch(function, (unsigned)blocks, 1, 1, (unsigned)threads, 1, 1,
                               (unsigned)shared_bytes, NULL, arg, NULL),
                     kernel, why) &&
         driver_good(d, d->synchronize(), kernel, why);
}
