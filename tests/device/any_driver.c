// SPDX-License-Identifier: Apache-2.0
// What says yes to all that cuDNN asks a driver while it makes a plan, and does nothing: engines that fuse are
// compiled then, and cuDNN loads what it has compiled. No plan can run on it.
#include <stddef.h>

#define API __attribute__((visibility("default"))) int
#define YES(name) \
  API name(void); \
  API name(void) { return 0; }
YES(cuCtxGetCurrent)
YES(cuCtxGetLimit)
YES(cuCtxPopCurrent)
YES(cuCtxPushCurrent)
YES(cuCtxSetCurrent)
YES(cuDeviceGet)
YES(cuDeviceGetCount)
YES(cuDriverGetVersion)
YES(cuFuncSetAttribute)
YES(cuKernelSetAttribute)
YES(cuLaunchCooperativeKernel)
YES(cuLaunchKernel)
YES(cuLaunchKernelEx)
YES(cuLibraryUnload)
YES(cuLinkAddData)
YES(cuLinkComplete)
YES(cuLinkCreate)
YES(cuLinkDestroy)
YES(cuModuleUnload)
YES(cuOccupancyMaxPotentialClusterSize)
YES(cuStreamGetCtx)

static int something;

#define GIVES(name, ...)  \
  API name(__VA_ARGS__);  \
  API name(__VA_ARGS__) { \
    *to = &something;     \
    return 0;             \
  }
GIVES(cuLibraryLoadData, void **to)
GIVES(cuLibraryLoadFromFile, void **to)
GIVES(cuLibraryGetKernel, void **to)
GIVES(cuLibraryGetModule, void **to)
GIVES(cuKernelGetFunction, void **to)
GIVES(cuModuleGetFunction, void **to)
GIVES(cuModuleLoadData, void **to)
GIVES(cuModuleLoadDataEx, void **to)

API cuGetErrorString(int error, const char **to);
API cuGetErrorString(int error, const char **to) {
  (void)error;
  *to = "no driver";
  return 0;
}
API cuGetErrorName(int error, const char **to);
API cuGetErrorName(int error, const char **to) { return cuGetErrorString(error, to); }

enum { REGISTERS = 128, CLUSTERS = 66 };
API cuFuncGetAttribute(int *value);
API cuFuncGetAttribute(int *value) {
  *value = REGISTERS;
  return 0;
}
API cuKernelGetAttribute(int *value);
API cuKernelGetAttribute(int *value) { return cuFuncGetAttribute(value); }
API cuOccupancyMaxActiveClusters(int *num);
API cuOccupancyMaxActiveClusters(int *num) {
  *num = CLUSTERS;
  return 0;
}
