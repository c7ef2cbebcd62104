// SPDX-License-Identifier: Apache-2.0
// Inside the stand-in for cuDNN: calls.c counts calls and makes them fail, descriptors.c has the functions,
// compute.c is the arithmetic. Numbers are those of cudnn_graph.h.
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
void cudnn_note(const char *text);  // into the log
const char *cudnn_words(void);
const char *cudnn_setting(const char *name, const char *preset);  // MODIST_STAND_IN_CUDNN_name
void cudnn_alive(int by);  // handles and descriptors that are not given back yet

// --- compute.c: the operations of a plan
enum { MAX_TENSORS = 24, MAX_OPS = 12 };
typedef enum Direction { FORWARD, TO_SOURCE, TO_WEIGHTS } Direction;
typedef struct Tensor {
  int64_t id, dim[5], stride[5];
  bool is_bf16, is_nowhere, is_by_value;
  float value;
  Address at;
} Tensor;
typedef struct Op {
  enum { OP_POINTWISE, OP_CONV, OP_SUMS } kind;
  int mode;     // of arithmetic, or a Direction
  int x, b, y;  // tensors; sums go to y and b; -1: none
  int64_t stride[3], pad[3], dilation[3];
} Op;
typedef struct Job {  // what Execute leaves to the stream
  Tensor tensor[MAX_TENSORS];
  Op op[MAX_OPS];
  int num_tensors, num_ops;
  Address workspace;
  int64_t workspace_bytes;
} Job;
bool op_is_sound(const Job *j, const Op *o);  // its sizes follow from one another
// 0, or the driver's error. Reads and writes by the stand-in driver's functions.
int job_run(const StandInMemory *memory, const void *job);

#endif
