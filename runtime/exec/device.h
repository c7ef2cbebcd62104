// SPDX-License-Identifier: Apache-2.0
// Inside this folder: what the executor asks of a device. A device owns memory and code of one program
// and does its launches one after another. There are two kinds: the processor (cpu.c), whose memory is
// the caller's, and a GPU (cuda.c), whose memory is reached by copies.
#ifndef RUNTIME_EXEC_DEVICE_H
#define RUNTIME_EXEC_DEVICE_H

#include "runtime/exec/exec.h"

typedef struct md_device md_device;
// All return false, reported, when the device fails; it is of no use then. `launch` is a number of the
// program's launches.
typedef struct md_device_kind {
  bool is_host;  // its memory is the caller's: `at` serves everything
  void (*close)(md_device *v);

  // --- memory; row-major where the program says so
  void *(*at)(md_device *v, const md_arg *a);  // of a host device. NULL: the space has no bytes
  void *(*input)(md_device *v, int input);     // where the caller fills it
  const void *(*result)(md_device *v, int i);  // what `end` has brought along; NULL: get it
  bool (*put)(md_device *v, const md_arg *to, const void *from, md_diags *d);
  bool (*get)(md_device *v, const md_arg *from, void *to, md_diags *d);  // waits for all before
  bool (*spoil)(md_device *v, const md_arg *a, md_diags *d);  // of a GPU: every float is a NaN
  bool (*flush)(md_device *v, md_diags *d);  // of a GPU: its L2 cache holds nothing of the program

  // --- a step: begin, then either all of it or launches one by one and the end; then wait
  bool (*send)(md_device *v, md_diags *d);   // inputs start on their way; a step may still run
  bool (*begin)(md_device *v, md_diags *d);  // takes the inputs; they may be filled anew
  bool (*step)(md_device *v, md_diags *d);   // the fastest way to do all launches and the end
  // Waits until the inputs that it took have left the caller's memory.
  bool (*arrived)(md_device *v, md_diags *d);
  // Behind the program's launches: a convolution by cuDNN, of a GPU.
  bool (*launch)(md_device *v, int launch, md_diags *d);
  void (*code)(md_device *v, int launch, md_text *to);     // of a GPU, a line as md_exec_code
  bool (*conv_key)(md_device *v, int conv, char key[33]);  // of a GPU, as md_exec_conv_key
  bool (*end)(md_device *v, md_diags *d);  // new values go to states, small results to the host
  bool (*is_busy)(md_device *v);           // with what was begun; of an error `wait` tells
  bool (*wait)(md_device *v, int launch, md_diags *d);  // launch: the last one, for messages; or -1

  // --- times: marks 0 to 2 * num_marked - 1, set in order; the first starts a step
  void (*mark)(md_device *v, int i);
  int64_t (*when)(md_device *v, int i);  // by the clock of md_now_ns; after wait. -1: unknown
  // False, reported: it has failed, and nothing can be read from it.
  bool (*is_alive)(md_device *v, md_diags *d);
} md_device_kind;

struct md_device {
  const md_device_kind *kind;
  const md_program *p;
  char name[16], title[160];       // "cuda:1", "cuda:1, NVIDIA H200 (sm_90)"
  char gpu[128];                   // "NVIDIA H200", as records name it; empty: a CPU
  int first_launch, num_launches;  // those of the program that a step does
  int num_all;                     // with the trials behind them
  const int *step;                 // of a GPU: the launches that a whole step does; NULL: those
  int num_step;
  int num_marked;                 // launches of the step that is to be marked
  const md_gpu_variant *variant;  // whose they are; NULL: a program for the CPU has none
  int64_t bytes;                  // of its memory that the program takes
  char engine[120];               // what does a part of the launches; "": nothing else does
  const bool *by_engine;          // which of them; NULL: none
  md_trace *trace;                // for the shares of threads; may be NULL
};

// --- device.c: which one. NULL: reported. The pool is borrowed.
md_device *md_device_open(const md_program *p, const md_exec_options *o, md_pool *pool,
                          md_diags *d);

// --- cpu.c, cuda.c
md_device *md_device_open_cpu(const md_program *p, const md_exec_options *o, md_pool *pool,
                              md_diags *d);
md_device *md_device_open_cuda(const md_program *p, const md_exec_options *o, int index,
                               md_diags *d);

// --- demand.c: the memory of a run
typedef struct md_demand {
  int64_t arena, workspace, inputs, states, results, scratch, total;  // scratch: of all threads
} md_demand;
md_demand md_demand_of(const md_program *p, int threads);
enum { MD_TENSOR_MAP_BYTES = 128 };
int64_t md_tensor_maps_bytes(const md_program *p);  // of all kernels
// Reports that a program does not get its memory. `why`: "2.0 GiB are free". False.
bool md_demand_refused(const md_program *p, const md_demand *n, md_code code, const char *why,
                       md_diags *d);
// A note to an error: what the program's plan takes on a GPU.
void md_demand_tell(const md_program *p, md_diags *d);
bool md_demand_within(const md_program *p, const md_demand *n, int64_t limit, md_diags *d);
// On a GPU every part and every tensor starts at a multiple of it.
enum { MD_DEVICE_ALIGN = 256 };

// --- mirror.c: copies in host memory of what lies on a GPU, made when somebody asks
typedef struct md_mirror md_mirror;
md_mirror *md_mirror_create(md_device *v);
void md_mirror_destroy(md_mirror *m);
void md_mirror_age(md_mirror *m);  // the device goes on: copies are old
// NULL: the device did not give it. `write`: what is written there goes to the device by md_mirror_flush.
void *md_mirror_state(md_mirror *m, int i, bool write);
const void *md_mirror_result(md_mirror *m, int i);
void *md_mirror_arg(md_mirror *m, const md_arg *a);  // until the next such call
bool md_mirror_flush(md_mirror *m, md_diags *d);

#endif
