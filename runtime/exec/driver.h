// SPDX-License-Identifier: Apache-2.0
// Inside this folder: NVIDIA's driver as functions. driver.c opens it, driver_error.c says what its errors
// mean, cuda.c and cuda_code.c use it.
#ifndef RUNTIME_EXEC_DRIVER_H
#define RUNTIME_EXEC_DRIVER_H

#include "runtime/exec/exec.h"

typedef unsigned long long md_gpu_place;  // CUdeviceptr: an address on the device

typedef struct md_driver {
  int (*cuInit)(unsigned flags);
#define CALL(name, parameters) int(*name) parameters;
#define MAY CALL
#include "runtime/exec/driver_calls.def"
#undef CALL
#undef MAY
} md_driver;

// --- driver.c
enum { MD_DRIVER_LEAST = 12000 };  // CUDA 12.0
// MD_NO_CODE and the functions; else the code in *l, and why.
md_code md_driver_open(md_driver *v, md_gpu_lack *l);
// A device by its index, behind that; its code, too. *id is its CUdevice.
md_code md_driver_device(const md_driver *v, int index, int *id, md_gpu_device *device,
                         md_gpu_lack *l);

// A library of the driver's, opened; NULL: `why` says where it was looked for.
void *md_driver_library(const char *name, char *why, int size);

// --- nvml.c: NVIDIA's management library, which comes with the driver
typedef struct md_nvml md_nvml;
// For the device at that place of the PCI bus ("0000:0A:00.0"), or for none (NULL). NULL: `why` says why not.
md_nvml *md_nvml_open(const char *bus, char *why, int size);
void md_nvml_close(md_nvml *n);
// How fast it runs now, and the reasons for it as bits. False: it does not tell.
bool md_nvml_look(const md_nvml *n, int *sm_mhz, int *memory_mhz, uint64_t *reasons);
bool md_nvml_is_slow(uint64_t reasons);                          // it holds itself back
void md_nvml_words(uint64_t reasons, char *to, size_t size);     // why it does: "power limit, heat"
bool md_nvml_driver(const md_nvml *n, char *version, int size);  // "580.65.06"

// --- driver_error.c
enum { MD_CUDA_OUT_OF_MEMORY = 2, MD_CUDA_NOT_READY = 600 };
// "CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)". Returns buf.
enum { MD_DRIVER_WORDS = 240 };
char *md_driver_words(const md_driver *v, int error, char buf[MD_DRIVER_WORDS]);
// The error ends the context: nothing can be done or read after it.
bool md_driver_is_fatal(int error);
// What was being done when a call failed.
typedef struct md_driver_task {
  const md_program *p;
  const char *device;  // "cuda:0, NVIDIA H200 (sm_90)"
  const char *call;    // "cuLaunchKernel"
  const char *region;  // NULL: none, or it is not known
  const char *log;     // of the driver's compiler; may be NULL
} md_driver_task;
// Reports it: what failed, the driver's words, what to do. False.
bool md_driver_failed(const md_driver *v, const md_driver_task *t, int error, md_diags *d);
// A call failed with which a device was looked for: fills in *l. Its code.
md_code md_driver_start_failed(const md_driver *v, const char *call, int error, md_gpu_lack *l);

#endif
