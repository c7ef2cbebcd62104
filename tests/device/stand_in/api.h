// SPDX-License-Identifier: Apache-2.0
// The driver's functions that the stand-in has, as in CUDA 13's cuda.h, but handles are void * and
// enumerations are int. A name without its version is what cuGetProcAddress is asked for.
#ifndef TESTS_DEVICE_STAND_IN_API_H
#define TESTS_DEVICE_STAND_IN_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API __attribute__((visibility("default"))) int
typedef unsigned long long Address;  // CUdeviceptr

enum {  // CUresult
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  NO_BINARY_FOR_GPU = 209,
  ECC_UNCORRECTABLE = 214,
  INVALID_PTX = 218,
  INVALID_HANDLE = 400,
  ILLEGAL_STATE = 401,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  LAUNCH_OUT_OF_RESOURCES = 701,
  CONTEXT_IS_DESTROYED = 709,
  INVALID_PC = 718,
  LAUNCH_FAILED = 719,
  NOT_SUPPORTED = 801,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
  CAPTURE_MERGE = 902,
  CAPTURE_UNMATCHED = 903,
  CAPTURE_UNJOINED = 904,
  CAPTURE_ISOLATION = 905,
  CAPTURE_IMPLICIT = 906,
  CAPTURED_EVENT = 907,
  CAPTURE_WRONG_THREAD = 908,
  INVALID_CLUSTER_SIZE = 912,
};
enum { SYMBOL_NOT_FOUND = 1 };  // a status; the call itself succeeds
enum { STREAM_NON_BLOCKING = 1, EVENT_BLOCKING = 1, EVENT_NO_TIMING = 2 };
enum { CAPTURE_GLOBAL, CAPTURE_THREAD_LOCAL, CAPTURE_RELAXED };
enum { FUNC_MAX_THREADS, FUNC_SHARED_BYTES, FUNC_LOCAL_BYTES = 3, FUNC_REGISTERS };
enum { FUNC_PTX_VERSION = 5, FUNC_BINARY_VERSION, FUNC_MAX_DYNAMIC_SHARED = 8, FUNC_CARVEOUT };

// --- errors.c, devices.c
API cuGetErrorName(int error, const char **text);
API cuGetErrorString(int error, const char **text);
API cuInit(unsigned flags);
API cuDriverGetVersion(int *version);
API cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags,
                        int *status);
API cuGetExportTable(const void **table, const void *id);
API cuDeviceGetCount(int *count);
API cuDeviceGet(int *device, int index);
API cuDeviceGetName(char *name, int size, int device);
API cuDeviceGetPCIBusId(char *text, int size, int device);
API cuDeviceGetAttribute(int *value, int attribute, int device);
API cuDeviceTotalMem_v2(size_t *bytes, int device);

// --- contexts.c
API cuDevicePrimaryCtxRetain(void **context, int device);
API cuDevicePrimaryCtxRelease_v2(int device);
API cuCtxSetCurrent(void *context);
API cuCtxSynchronize(void);

// --- libraries.c
API cuLibraryLoadData(void **library, const void *code, int *jit_options, void **jit_values,
                      unsigned num_jit, int *options, void **values, unsigned num_options);
API cuLibraryGetKernel(void **kernel, void *library, const char *name);
API cuLibraryUnload(void *library);
API cuKernelGetFunction(void **function, void *kernel);
API cuModuleLoadData(void **module, const void *image);
API cuModuleLoadDataEx(void **module, const void *image, unsigned num_options, int *options,
                       void **values);
API cuModuleGetFunction(void **function, void *module, const char *name);
API cuModuleUnload(void *module);
API cuFuncGetAttribute(int *value, int attribute, void *function);
API cuFuncSetAttribute(void *function, int attribute, int value);
API cuFuncGetParamInfo(void *function, size_t index, size_t *offset, size_t *bytes);
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads,
                                                size_t shared_bytes);

// --- memory.c, copies.c
API cuMemGetInfo_v2(size_t *free_bytes, size_t *total);
API cuMemAlloc_v2(Address *at, size_t bytes);
API cuMemFree_v2(Address at);
API cuMemHostAlloc(void **at, size_t bytes, unsigned flags);
API cuMemAllocHost_v2(void **at, size_t bytes);
API cuMemFreeHost(void *at);
API cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes);
API cuMemcpyDtoH_v2(void *to, Address from, size_t bytes);
API cuMemcpyDtoD_v2(Address to, Address from, size_t bytes);
API cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *stream);
API cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *stream);
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *stream);
API cuMemsetD8_v2(Address at, unsigned char value, size_t num);
API cuMemsetD32_v2(Address at, unsigned value, size_t num);
API cuMemsetD8Async(Address at, unsigned char value, size_t num, void *stream);
API cuMemsetD32Async(Address at, unsigned value, size_t num, void *stream);

// --- streams.c, events.c
API cuStreamCreate(void **stream, unsigned flags);
API cuStreamDestroy_v2(void *stream);
API cuStreamSynchronize(void *stream);
API cuStreamQuery(void *stream);
API cuStreamWaitEvent(void *stream, void *event, unsigned flags);
API cuEventCreate(void **event, unsigned flags);
API cuEventDestroy_v2(void *event);
API cuEventRecord(void *event, void *stream);
API cuEventQuery(void *event);
API cuEventSynchronize(void *event);
API cuEventElapsedTime(float *ms, void *start, void *end);
API cuEventElapsedTime_v2(float *ms, void *start, void *end);

// --- launch.c
typedef struct LaunchAttribute {
  int id, pad;
  union {
    char pad[64];
    int value;
    struct {
      unsigned x, y, z;
    } cluster;
  } of;
} LaunchAttribute;
typedef struct LaunchConfig {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  void *stream;
  LaunchAttribute *attribute;
  unsigned num_attributes;
} LaunchConfig;
API cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   void *stream, void **parameters, void **extra);
API cuLaunchKernelEx(const LaunchConfig *c, void *function, void **parameters, void **extra);
API cuLaunchHostFunc(void *stream, void (*work)(void *data), void *data);

// No function of a driver: work on the host, in the order of a stream, for doubles of libraries that launch
// kernels of their own. Data is copied. `work` gives 0 or the error of a kernel that failed.
typedef struct StandInMemory {
  char *(*at)(Address at, size_t bytes);  // NULL: not inside one block of device memory
  void (*written)(const char *at, size_t bytes);
} StandInMemory;
typedef int StandInWork(const StandInMemory *memory, const void *data);
API cuStandInWork(void *stream, StandInWork *work, const void *data, size_t bytes);
// A library uses the current context until the process ends: it must not go before.
API cuStandInKeep(void);

// --- captures.c, graphs.c
API cuStreamBeginCapture_v2(void *stream, int mode);
API cuStreamEndCapture(void *stream, void **graph);
API cuStreamIsCapturing(void *stream, int *status);
API cuGraphInstantiateWithFlags(void **exec, void *graph, unsigned long long flags);
API cuGraphUpload(void *exec, void *stream);
API cuGraphLaunch(void *exec, void *stream);
API cuGraphExecDestroy(void *exec);
API cuGraphDestroy(void *graph);
API cuGraphGetNodes(void *graph, void **nodes, size_t *num);

// --- tensor_maps.c
API cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *dim,
                           const uint64_t *stride, const unsigned *box, const unsigned *step,
                           int interleave, int swizzle, int promotion, int fill);
API cuTensorMapEncodeIm2col(void *map, int type, unsigned rank, void *address, const uint64_t *dim,
                            const uint64_t *stride, const int *lower, const int *upper,
                            unsigned channels, unsigned pixels, const unsigned *step,
                            int interleave, int swizzle, int promotion, int fill);

#endif
