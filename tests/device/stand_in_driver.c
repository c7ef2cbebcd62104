// SPDX-License-Identifier: Apache-2.0
// A driver without a device behind it: what it says comes from the environment. For the messages of
// modist_rt only; it cannot run anything.
//   STAND_IN_INIT=N    cuInit fails with N        STAND_IN_COUNT=N   devices (default 1)
//   STAND_IN_SM=NN     compute capability (default 90)
#include <stdio.h>
#include <stdlib.h>

enum { MAJOR = 75 };

static int number(const char *name, int preset) {
  const char *text = getenv(name);
  return text ? atoi(text) : preset;
}

#define API __attribute__((visibility("default"))) int
API cuInit(unsigned flags);
API cuDriverGetVersion(int *version);
API cuDeviceGetCount(int *count);
API cuDeviceGet(int *device, int i);
API cuDeviceGetName(char *name, int size, int device);
API cuDeviceGetAttribute(int *value, int attribute, int device);
API cuGetErrorString(int error, const char **text);

API cuInit(unsigned flags) {
  (void)flags;
  return number("STAND_IN_INIT", 0);
}

API cuDriverGetVersion(int *version) {
  *version = 13000;
  return 0;
}

API cuDeviceGetCount(int *count) {
  *count = number("STAND_IN_COUNT", 1);
  return 0;
}

API cuDeviceGet(int *device, int i) {
  *device = i;
  return 0;
}

API cuDeviceGetName(char *name, int size, int device) {
  (void)device;
  snprintf(name, (size_t)size, "Stand-in GPU");
  return 0;
}

API cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  int sm = number("STAND_IN_SM", 90);
  *value = attribute == MAJOR ? sm / 10 : sm % 10;
  return 0;
}

API cuGetErrorString(int error, const char **text) {
  *text = error == 34 ? "CUDA driver is a stub library" : "no CUDA-capable device is detected";
  return 0;
}
