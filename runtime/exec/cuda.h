// SPDX-License-Identifier: Apache-2.0
// Inside this folder: a GPU as a device (cuda.c), its memory (cuda_memory.c), its code (cuda_code.c) and what
// cuDNN does in place of code (cuda_convs.c).
#ifndef RUNTIME_EXEC_CUDA_H
#define RUNTIME_EXEC_CUDA_H

#include "runtime/exec/cudnn.h"
#include "runtime/exec/device.h"
#include "runtime/exec/driver.h"

// Where the parts of the program's memory begin, and each tensor in its part.
typedef struct md_cuda_layout {
  md_gpu_place at;  // of all of it
  int64_t bytes;
  int64_t workspace, maps, arrival, inputs, states, results;  // the arena begins at 0
  int64_t *input, *state, *result;                            // offsets in their parts
  int64_t inputs_bytes;
  char *inputs_host;     // what is sent; as large as the inputs
  char *results_host;    // small results
  int64_t *result_host;  // place of a result there; -1: it is large
} md_cuda_layout;

typedef struct md_cuda_code {
  void **library;  // by kernel of the variant
  int num;
  bool is_module;   // of the kind that older drivers have
  void **function;  // by launch of the variant
  char *log;        // of the driver's compiler, which may be put off until a kernel is asked for
} md_cuda_code;

// Who does a convolution faster.
typedef enum md_cuda_faster { MD_FASTER_UNKNOWN, MD_FASTER_OURS, MD_FASTER_CUDNN } md_cuda_faster;

// Convolutions that cuDNN does in place of launches.
typedef struct md_cuda_convs {
  md_cudnn *cudnn;  // NULL: none
  md_cudnn_conv *
      *plan;         // by launch of the variant, trials too: what runs in its place, if anything
  bool *is_covered;  // by launch: a plan does its work
  md_cuda_faster *known;  // by convolution of the program: what records tell
  md_gpu_place workspace;
  int64_t workspace_bytes;
} md_cuda_convs;

typedef struct md_cuda {
  md_device base;
  md_driver call;
  int id;                           // CUdevice
  void *context, *stream, *sender;  // work goes to the stream, inputs come by the sender
  void *sent, *taken;               // events: inputs have arrived; they were taken from there
  void *done;                       // of all that was asked of the stream before a wait
  md_cuda_layout memory;
  md_cuda_code code;
  md_cuda_convs convs;
  md_gpu_place *place;  // by argument of the program
  void **parameter;     // where each argument's value is, as a launch takes them
  void *graph;          // of a step; NULL: not captured yet
  bool is_issued;       // each step is, for want of a graph
  bool is_sent;         // the next step's inputs are on their way
  bool has_issued;      // a step has been done: all code is loaded
  bool has_results;     // of the last step, in results_host
  void **mark, *zero;   // events; made when the first is set
  int num_marks;
  int64_t zero_ns, hold_ns;
  md_gpu_place flood;  // memory that has more bytes than the L2 cache; 0: not yet
  size_t flood_bytes;
  void *sends, *has_sent;  // events around the inputs that are on their way, for a trace
  int64_t send_ns;         // since when; 0: nobody wants to know
  int fatal;               // the error that ended the context; 0: none
  char fatal_call[40];     // and where it came up
} md_cuda;

// --- cuda.c
// True: no error. Else reported; `launch` is that of the program, or -1.
bool md_cuda_did(md_cuda *c, const char *call, int launch, int error, md_diags *d);
// The same with the log of the driver's compiler.
bool md_cuda_did_compile(md_cuda *c, const char *call, int error, md_diags *d);
// Until the stream has done all; the thread sleeps meanwhile.
bool md_cuda_wait(md_cuda *c, int launch, md_diags *d);
void md_cuda_hold(
    void *ns);  // for cuLaunchHostFunc: the stream waits for so many (int64_t), the host gets ahead

// --- cuda_memory.c
bool md_cuda_memory_create(md_cuda *c, int64_t limit, md_diags *d);
void md_cuda_memory_destroy(md_cuda *c);
md_gpu_place md_cuda_place(const md_cuda *c, const md_arg *a);

// --- cuda_maps.c
// Tensor maps of all launches, which take their addresses instead of the tensors'.
bool md_cuda_maps_make(md_cuda *c, md_diags *d);

// --- cuda_code.c
bool md_cuda_code_load(md_cuda *c, md_diags *d);
void md_cuda_code_unload(md_cuda *c);
int md_cuda_code_kernel(const md_cuda *c, int launch);  // number of its kernel within the variant
void md_cuda_code_text(const md_cuda *c, int launch,
                       md_text *to);  // a line: its kernel and its blocks

// --- cuda_convs.c
// Plans and workspace, before anything is captured. What cuDNN refuses stays with its kernels, and is told. So does
// what is known to be faster there, where that counts.
bool md_cuda_convs_open(md_cuda *c, const md_exec_options *o, md_diags *d);
bool md_cuda_convs_any(const md_cuda *c);  // cuDNN has something left to do
void md_cuda_convs_close(md_cuda *c);
bool md_cuda_convs_run(md_cuda *c, int launch,
                       md_diags *d);  // in place of a launch that is covered
void md_cuda_convs_tell(md_cuda *c, int convs, int launches);         // what they do, for messages
bool md_cuda_conv_is_ours(const md_cuda *c, const md_conv_group *g);  // of the variant
md_conv md_cuda_conv_of(const md_conv_group *g);

// As large as the plans that are left need.
bool md_cuda_convs_fit_workspace(md_cuda *c, md_diags *d);
void md_cuda_convs_code(md_device *v, int launch,
                        md_text *to);  // of a launch: its kernel, or its plans

// --- cuda_fastest.c
// Before there are plans: what records tell.
void md_cuda_convs_look_up(md_cuda *c, md_diags *d);
// Plans that do not gain anything are dropped, when all is loaded and before anything is computed. What was
// measured for that is kept, unless `no_cache`.
bool md_cuda_convs_choose(md_cuda *c, md_diags *d);
bool md_cuda_conv_key(md_device *v, int conv, char key[33]);

#endif
