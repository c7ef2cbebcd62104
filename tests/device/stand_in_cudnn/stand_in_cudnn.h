// SPDX-License-Identifier: Apache-2.0
// Inside the stand-in for cuDNN: calls.c counts calls and makes them fail, descriptors.c has the functions,
// compute.c is the convolution. Numbers are those of cudnn_graph.h.
#ifndef TESTS_DEVICE_STAND_IN_CUDNN_H
#define TESTS_DEVICE_STAND_IN_CUDNN_H

#include "base/base.h"
#include "tests/device/stand_in/api.h"

#define CUDNN(result) __attribute__((visibility("default"))) result

enum { BAD_PARAM = 2000, NOT_SUPPORTED_HERE = 3000, DRIVER_FAILED = 5001 };  // CUDNN_STATUS_*

// --- calls.c
// The status that a call has to end with because it was told to fail; 0: it has to do its work. A call that
// releases something does so in any case.
int cudnn_call(const char *name);
// The status; the words are those of cudnnGetLastErrorString.
int cudnn_refuse(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *cudnn_words(void);
const char *cudnn_setting(const char *name, const char *preset);  // MODIST_STAND_IN_CUDNN_name
void cudnn_alive(int by);  // handles and descriptors that are not given back yet

// --- compute.c
typedef enum Direction { FORWARD, TO_SOURCE, TO_WEIGHTS } Direction;
typedef struct Tensor {
  int64_t dim[5], stride[5];
  bool is_bf16;
  Address at;
} Tensor;
typedef struct Job {  // what Execute leaves to the stream
  Direction direction;
  Tensor x, w, y;
  int64_t stride[3], pad[3], dilation[3];
  Address workspace;
  int64_t workspace_bytes;
} Job;
bool job_is_sound(const Job *j);  // the sizes of y follow from the others
// 0, or the driver's error. Reads and writes by the stand-in driver's functions.
int job_run(const StandInMemory *memory, const void *job);

#endif
