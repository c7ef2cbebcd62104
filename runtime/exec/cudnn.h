// SPDX-License-Identifier: Apache-2.0
// Convolutions by NVIDIA's cuDNN, which is opened at run time and never required. cudnn.c opens it and speaks
// to it, cudnn_graph.c says what operations are to it, cudnn_plan.c has plans for them made or finds those that
// were, and cudnn_conv.c says what a convolution is made of, with all that is fused with it.
//
// A function that can fail returns false or NULL, and `why` of MD_CUDNN_WORDS bytes then says what was being
// done, with cuDNN's own words. One thread at a time may use an md_cudnn and its plans.
#ifndef RUNTIME_EXEC_CUDNN_H
#define RUNTIME_EXEC_CUDNN_H

#include "runtime/exec/exec.h"

// Versions are as cudnnGetVersion has them. Convolutions of three axes in bf16 are wrong or refused in 9.8
// to 9.14; a later major version may have another API.
enum { MD_CUDNN_LEAST = 91500, MD_CUDNN_BEYOND = 100000, MD_CUDNN_WORDS = 700 };

// As in md_conv_group; strides in elements. MD_NO_DTYPE: it is not there.
typedef struct md_conv_tensor {
  md_dtype dtype;
  int64_t dim[5], stride[5];
} md_conv_tensor;
typedef struct md_conv {  // sums are f32
  md_conv_kind kind;
  md_conv_tensor x, w, y, part[MD_NUM_CONV_PARTS];
  int64_t stride[3], pad[3], dilation[3];  // t, h, w
  md_conv_fused fused;
} md_conv;
typedef struct md_conv_places {  // addresses on the device
  void *x, *w, *y, *part[MD_NUM_CONV_PARTS], *workspace;
} md_conv_places;

// --- cudnn.c
// Is it here? *version is 0 where no library was found; *path is its file, or NULL.
bool md_cudnn_find(int *version, const char **path, char *why);
// What plans are made for.
typedef struct md_cudnn md_cudnn;
md_cudnn *md_cudnn_open(void *stream, char *why);  // the device of the current context
md_cudnn *md_cudnn_open_offline(const char *device, char *why);  // one described by cuDNN's JSON
void md_cudnn_close(md_cudnn *c);
void md_cudnn_keep_plans(md_cudnn *c);  // in the cache folder, and take those that are there
int md_cudnn_version(const md_cudnn *c);
int md_cudnn_failures(const md_cudnn *c);  // of plans so far, but for those that are not supported
char *md_cudnn_name(int version, char buf[32]);  // "cuDNN 9.19.0"

// --- cudnn_conv.c
// For each of its steps the first plan of cuDNN's own choice that gives the same bits in every run, in f32 adds
// plain products of f32, and leaves all within `room` bytes of workspace. Plans are kept in the cache folder,
// if the md_cudnn says so.
typedef struct md_cudnn_conv md_cudnn_conv;
md_cudnn_conv *md_cudnn_conv_create(md_cudnn *c, const md_conv *v, int64_t room, char *why);
void md_cudnn_conv_destroy(md_cudnn_conv *p);
void md_cudnn_conv_text(const md_conv *v, md_text *to);  // of its steps, for a digest
int64_t md_cudnn_conv_bytes(const md_cudnn_conv *p);     // of workspace, to be aligned to 256
// A plan before it failed or needed more room, which may be otherwise another time; `why` of its making says how.
bool md_cudnn_conv_is_second(const md_cudnn_conv *p);
void md_cudnn_conv_plans(md_cudnn_conv *p, md_text *to);  // equal texts compute equal bits
// For all runs.
bool md_cudnn_conv_bind(md_cudnn_conv *p, const md_conv_places *at, char *why);
bool md_cudnn_conv_run(md_cudnn_conv *p, char *why);  // goes to the stream; allocates nothing here

// --- cudnn_graph.c: operations on tensors, in order, each of which one of the plans does as a whole
enum { MD_CUDNN_TENSORS = 24, MD_CUDNN_OPS = 12 };
typedef enum md_cudnn_place { MD_CUDNN_STORED, MD_CUDNN_NOWHERE, MD_CUDNN_BY_VALUE } md_cudnn_place;
typedef struct md_cudnn_tensor {
  int64_t id;  // within the graph
  md_cudnn_place place;
  md_conv_tensor type;
} md_cudnn_tensor;
typedef enum md_cudnn_mode {  // CUDNN_POINTWISE_*
  MD_CUDNN_ADD = 0,
  MD_CUDNN_MUL = 1,
  MD_CUDNN_SUB = 9,
  MD_CUDNN_RSQRT = 17,
  MD_CUDNN_IDENTITY = 21,
  MD_CUDNN_RELU = 100
} md_cudnn_mode;
typedef enum md_cudnn_kind {
  MD_CUDNN_POINTWISE,  // y = mode(x, b)
  MD_CUDNN_CONV,       // x, b = w, y; which of them it makes, says the mode, an md_conv_kind
  MD_CUDNN_SUMS        // y and b = the sums by channel of x, and of its squares
} md_cudnn_kind;
typedef struct md_cudnn_op {
  md_cudnn_kind kind;
  int mode, x, b, y;  // numbers of tensors; -1: none
} md_cudnn_op;
typedef struct md_cudnn_graph {
  md_cudnn_tensor tensor[MD_CUDNN_TENSORS];
  md_cudnn_op op[MD_CUDNN_OPS];
  int num_tensors, num_ops;
  int64_t stride[3], pad[3], dilation[3];  // of its convolution
  bool is_exact;                           // products are f32, and to be kept so
} md_cudnn_graph;
void md_cudnn_graph_text(const md_cudnn_graph *g, md_text *to);

// --- cudnn_plan.c
typedef struct md_cudnn_plan md_cudnn_plan;
md_cudnn_plan *md_cudnn_plan_create(md_cudnn *c, const md_cudnn_graph *g, int64_t room, char *why);
void md_cudnn_plan_destroy(md_cudnn_plan *p);
int64_t md_cudnn_plan_bytes(const md_cudnn_plan *p);
bool md_cudnn_plan_is_second(const md_cudnn_plan *p);
void md_cudnn_plan_text(const md_cudnn_plan *p, md_text *to);  // cuDNN's version and JSON
// Addresses by tensor of the graph: on the device, or on the host of what is passed by value.
bool md_cudnn_plan_bind(md_cudnn_plan *p, void *const *at, void *workspace, char *why);
bool md_cudnn_plan_run(md_cudnn_plan *p, char *why);

// --- between them
enum {
  MD_CUDNN_CHARS = 24,
  MD_CUDNN_BOOL = 2,
  MD_CUDNN_INT = 3,
  MD_CUDNN_FLOAT = 4,
  MD_CUDNN_POINTER = 6,
  MD_CUDNN_DESCRIPTOR = 15
};  // CUDNN_TYPE_*
void *md_cudnn_handle(const md_cudnn *c);  // NULL: offline
void *md_cudnn_device(const md_cudnn *c);  // descriptor of the device described; NULL: not offline
void md_cudnn_count_failure(md_cudnn *c);
// The device as cuDNN describes it, in JSON; NULL: plans are not kept.
const char *md_cudnn_described(const md_cudnn *c);
// Descriptors being made. After the first call that fails, which `why` tells, the others do nothing; those
// that were made are kept until all are dropped.
enum { MD_CUDNN_MADE = 160 };
typedef struct md_cudnn_making {
  const md_cudnn *c;
  void *made[MD_CUDNN_MADE];
  int num;
  bool has_failed;
  bool is_unsupported;  // and always will
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
void *md_cudnn_graph_make(md_cudnn_making *m, const md_cudnn_graph *g);
bool md_cudnn_execute(const md_cudnn *c, void *plan, void *values, char *why);

#endif
