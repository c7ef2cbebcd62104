// SPDX-License-Identifier: Apache-2.0
// Compiled programs: what they are, how they are saved, how they run. This folder is modist_rt: it
// knows nothing of graphs, LLVM, NVRTC or FFmpeg. The map of the folder.
#ifndef RUNTIME_EXEC_EXEC_H
#define RUNTIME_EXEC_EXEC_H

#include "base/base.h"
#include "base/diag.h"
#include "modist/dtype.h"

// --- program.c: a compiled step ------------------------------------------------------------------
// Buffers are one arena (planned offsets), one buffer a state, one an input, and a workspace that
// kernels use within a launch. Everything is row-major for the caller; layouts inside the arena are
// the kernels' business.

enum { MD_SPEC_RANK = 6 };
// An input, a state or a result. Owned by the program's arena.
typedef struct md_spec {
  const char *name;
  md_dtype dtype;
  int rank;
  int64_t dim[MD_SPEC_RANK];
  int64_t bytes;
  int init;               // states: md_init of base/init.h
  double a, b;
  const char *from;
} md_spec;

typedef enum md_space { MD_IN_ARENA, MD_IN_STATE, MD_IN_INPUT, MD_IN_RESULT, MD_IN_WORKSPACE } md_space;
typedef struct md_arg {
  md_space space;
  int index;              // state, input or result number
  int64_t offset, bytes;  // offset inside the space
  bool write;
  const char *name;       // of the value, for messages
  // What lies there, for --check-nan and --verify: layout as in md_type.
  md_dtype dtype; int block, rank; int64_t dim[MD_SPEC_RANK];
} md_arg;

// One kernel call for each of `items`; items are independent of one another and write disjoint
// memory, so results do not depend on how they are spread over threads. Phases of a launch run one
// after another.
//   void symbol(void *const *arg, int64_t item, void *scratch)
// scratch: `scratch_bytes` of memory of the calling thread, aligned to 64, not cleared.
typedef struct md_phase { const char *symbol; int64_t items, scratch_bytes; } md_phase;
typedef struct md_launch {
  const char *name;       // of the region
  int first_phase, num_phases, first_arg, num_args;
  double flops, bytes;
} md_launch;
// After the step: state `index` takes the bytes at src (an arena place), unless updated in place.
typedef struct md_copy { int state; md_arg src; } md_copy;

typedef struct md_program {
  md_arena *arena;        // owns everything below but the code
  const char *name, *target;          // "cpu:znver3+avx2+fma"
  md_digest graph;                    // of the compiled graph
  int64_t arena_bytes, workspace_bytes;
  int num_inputs, num_states, num_results, num_launches, num_phases, num_args, num_copies;
  md_spec *input, *state, *result;
  md_arg *result_at;                  // where result i lies after the step
  md_launch *launch;
  md_phase *phase;
  md_arg *arg;
  md_copy *copy;
  // Code: the address of a symbol. `code` is destroyed with the program.
  void *code;
  void *(*lookup)(void *code, const char *symbol);
  void (*code_free)(void *code);
  const void *image; size_t image_bytes;  // position-independent shared object, when there is one
  const char *graph_text;                 // of the compiled graph, for --verify; may be NULL
} md_program;
md_program *md_program_create(const char *name);
void md_program_destroy(md_program *p);
// Checks every index, offset and size; what a file says is not trusted before.
bool md_program_check(const md_program *p, md_diags *d);

// --- artefact.c: .mdx, a stored zip with manifest.json, host.so, graph.mdg -----------------------
enum { MD_ABI_VERSION = 1 };
bool md_program_save(const md_program *p, const char *path, md_diags *d);   // needs p->image
md_program *md_program_load(const char *path, md_diags *d);                 // code through a memfd
bool md_artefact_inspect(const char *path, md_json *to, md_diags *d);       // without loading code

// --- pool.c: threads -----------------------------------------------------------------------------
typedef struct md_pool md_pool;
md_pool *md_pool_create(int threads);   // 0: one for each core that the process may use
void md_pool_destroy(md_pool *p);
int md_pool_threads(const md_pool *p);
// Calls fn(ctx, item, thread) for items 0 .. n-1; returns when all are done. The caller takes part.
void md_pool_run(md_pool *p, int64_t n, void (*fn)(void *ctx, int64_t item, int thread), void *ctx);

// --- executor.c ----------------------------------------------------------------------------------
typedef struct md_exec md_exec;
typedef struct md_exec_options {
  int threads;            // 0: all
  uint64_t seed;          // of the initial states
  bool check_nan;         // stop at the first launch that writes a NaN or infinity
  bool time;              // keep times of launches
} md_exec_options;
typedef struct md_launch_time { int64_t total_ns, min_ns, calls; } md_launch_time;

// Allocates arena, states, inputs, workspace and initialises the states. `p` is borrowed.
md_exec *md_exec_create(const md_program *p, const md_exec_options *o, md_diags *d);
void md_exec_destroy(md_exec *e);
void *md_exec_input(md_exec *e, const char *name, const md_spec **spec);   // NULL: no such input
void *md_exec_state(md_exec *e, const char *name, const md_spec **spec);
const void *md_exec_result(md_exec *e, const char *name, const md_spec **spec);
bool md_exec_step(md_exec *e, md_diags *d);   // allocates nothing; false: reported, states not updated
void *md_exec_arg(md_exec *e, const md_arg *a);   // address of an argument
// Called after (before: `before` true) each launch; for taps. NULL removes it.
typedef bool (*md_exec_tap)(void *ctx, md_exec *e, int launch, bool before);
void md_exec_set_tap(md_exec *e, md_exec_tap tap, void *ctx);
const md_launch_time *md_exec_times(const md_exec *e);   // one for each launch
int64_t md_exec_bytes(const md_exec *e);      // arena + states + inputs + workspace + scratch
const md_program *md_exec_program(const md_exec *e);

// --- trace.c: Chrome / Perfetto JSON of what ran when --------------------------------------------
typedef struct md_trace md_trace;
md_trace *md_trace_create(void);
void md_trace_destroy(md_trace *t);
void md_trace_span(md_trace *t, const char *name, const char *kind, int thread, int64_t start_ns,
                   int64_t end_ns);           // thread-safe
bool md_trace_save(const md_trace *t, const char *path, md_diags *d);
void md_exec_set_trace(md_exec *e, md_trace *t);

#endif
