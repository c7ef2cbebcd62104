// SPDX-License-Identifier: Apache-2.0
// Convolutions by NVIDIA's cuDNN, which is opened at run time and never required. cudnn.c opens it and speaks
// to it, cudnn_plan.c says what a convolution is to it.
//
// A function that can fail returns false or NULL, and `why` of MD_CUDNN_WORDS bytes then says what was being
// done, with cuDNN's own words. One thread at a time may use an md_cudnn and its plans.
#ifndef RUNTIME_EXEC_CUDNN_H
#define RUNTIME_EXEC_CUDNN_H

#include "runtime/exec/exec.h"

// Versions are as cudnnGetVersion has them. Convolutions of three axes in bf16 are wrong or refused in 9.8
// to 9.14; a later major version may have another API.
enum { MD_CUDNN_LEAST = 91500, MD_CUDNN_BEYOND = 100000, MD_CUDNN_WORDS = 700 };

// As in md_conv_group; strides in elements.
typedef struct md_conv_tensor {
  md_dtype dtype;
  int64_t dim[5], stride[5];
} md_conv_tensor;
typedef struct md_conv {  // sums are f32
  md_conv_kind kind;
  md_conv_tensor x, w, y;
  int64_t stride[3], pad[3], dilation[3];  // t, h, w
} md_conv;

// --- cudnn.c
// Is it here? *version is 0 where no library was found; *path is its file, or NULL.
bool md_cudnn_find(int *version, const char **path, char *why);
// What plans are made for.
typedef struct md_cudnn md_cudnn;
md_cudnn *md_cudnn_open(void *stream, char *why);  // the device of the current context
md_cudnn *md_cudnn_open_offline(const char *device, char *why);  // one described by cuDNN's JSON
void md_cudnn_close(md_cudnn *c);
int md_cudnn_version(const md_cudnn *c);

// --- cudnn_plan.c
// The first plan of cuDNN's own choice that gives the same bits in every run, in f32 adds plain products of
// f32, and needs no more than `room` bytes of workspace.
typedef struct md_cudnn_plan md_cudnn_plan;
md_cudnn_plan *md_cudnn_plan_create(md_cudnn *c, const md_conv *v, int64_t room, char *why);
void md_cudnn_plan_destroy(md_cudnn_plan *p);
int64_t md_cudnn_plan_bytes(const md_cudnn_plan *p);  // of workspace, to be aligned to 256
// Addresses on the device, for all runs.
bool md_cudnn_plan_bind(md_cudnn_plan *p, void *x, void *w, void *y, void *workspace, char *why);
bool md_cudnn_plan_run(md_cudnn_plan *p, char *why);  // goes to the stream; allocates nothing here

// --- between the two
enum {
  MD_CUDNN_CHARS = 24,
  MD_CUDNN_INT = 3,
  MD_CUDNN_FLOAT = 4,
  MD_CUDNN_POINTER = 6,
  MD_CUDNN_DESCRIPTOR = 15
};  // CUDNN_TYPE_*
void *md_cudnn_handle(const md_cudnn *c);  // NULL: offline
void *md_cudnn_device(const md_cudnn *c);  // descriptor of the device described; NULL: not offline
// Descriptors being made. After the first call that fails, which `why` tells, the others do nothing; those
// that were made are kept until all are dropped.
enum { MD_CUDNN_MADE = 160 };
typedef struct md_cudnn_making {
  const md_cudnn *c;
  void *made[MD_CUDNN_MADE];
  int num;
  bool has_failed;
  char *why;
} md_cudnn_making;
void *md_cudnn_make(md_cudnn_making *m, int kind, const char *name);
void md_cudnn_set(md_cudnn_making *m, void *to, int attribute, int type, int64_t num,
                  const void *values);
// The number of values that there are, at most `room` of which are read.
int64_t md_cudnn_get(md_cudnn_making *m, void *from, int attribute, int type, int64_t room,
                     void *values);
void md_cudnn_finish(md_cudnn_making *m, void *d, const char *name);
void md_cudnn_drop(md_cudnn_making *m);
bool md_cudnn_execute(const md_cudnn *c, void *plan, void *values, char *why);

#endif
