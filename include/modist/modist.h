// SPDX-License-Identifier: Apache-2.0
// modist: declare a graph, compile it, run it, save it. The public C API.
//
//   modist_graph *g;
//   modist_graph_create("mean", &g);
//   int64_t dim[2] = {4, 8};
//   modist_val x = modist_input(g, "x", MD_F32, 2, dim);
//   modist_val y = modist_op(g, "relu", &x, 1, NULL);
//   modist_return(g, "y", y);
//   modist_program *p;
//   if (modist_compile(g, NULL, &p) != MD_OK) puts(modist_graph_error(g));
//
// Rules: handles are opaque; every call that can fail returns a status (which is also modistc's exit
// code), and the text of the last error lives on the handle until its next call. A handle belongs to
// one thread at a time; different handles do not know of one another. Options are structs whose zero
// is the default; set struct_size first. Strings and arrays are borrowed for the call.
#ifndef MODIST_MODIST_H
#define MODIST_MODIST_H

#include "modist/dtype.h"
#include "modist/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MODIST_ABI_VERSION 1
#if defined(__GNUC__)
#define MODIST_API __attribute__((visibility("default")))
#else
#define MODIST_API
#endif

MODIST_API int modist_abi_version(void);
MODIST_API const char *modist_version(void);  // "0.1.0"
// Text of the last failure in this thread for which no handle could be made; "" without one.
MODIST_API const char *modist_last_error(void);

// --- Declaring a graph. Builders are sticky: after an error they return MODIST_NONE, which all of
// them accept; modist_graph_status tells. The ops are those of `modistc ops`.

typedef struct modist_graph modist_graph;
typedef uint32_t modist_val;
#define MODIST_NONE ((modist_val)0)

// All handles: set to NULL on failure; whoever creates one destroys it; destroying NULL is fine.
MODIST_API md_status modist_graph_create(const char *name, modist_graph **graph);
// Reads the text form (docs/graph.md); exactly one graph.
MODIST_API md_status modist_graph_parse(const char *text, size_t len, modist_graph **graph);
MODIST_API void modist_graph_destroy(modist_graph *graph);

MODIST_API modist_val modist_input(modist_graph *g, const char *name, md_dtype dtype, int rank,
                                   const int64_t *dim);
// `init` as in the text form: "init=normal, b=0.05"; NULL: zeros.
MODIST_API modist_val modist_state(modist_graph *g, const char *name, md_dtype dtype, int rank,
                                   const int64_t *dim, const char *init);
// A constant whose elements are all `value`.
MODIST_API modist_val modist_constant(modist_graph *g, md_dtype dtype, int rank, const int64_t *dim,
                                      double value);
// `attrs` as in the text form: "stride=[1,2,2], pad=[0,1,1]"; NULL: defaults. First result.
MODIST_API modist_val modist_op(modist_graph *g, const char *op, const modist_val *in, int num_in,
                                const char *attrs);
MODIST_API modist_val modist_result(modist_graph *g, modist_val first, int i);
MODIST_API void modist_update(modist_graph *g, modist_val state, modist_val value);
MODIST_API void modist_return(modist_graph *g, const char *name, modist_val value);
MODIST_API int modist_rank(const modist_graph *g, modist_val v);
MODIST_API int64_t modist_dim(const modist_graph *g, modist_val v,
                              int axis);  // 0 where there is none

MODIST_API md_status modist_graph_status(const modist_graph *g);
MODIST_API const char *
modist_graph_error(const modist_graph *g);  // all diagnostics, "" without one
// Text form; malloc'ed, to be freed by modist_free. NULL: no memory.
MODIST_API char *modist_graph_text(const modist_graph *g);
MODIST_API void modist_free(void *memory);

// --- Named training steps, such as "modist-tiny", with settings such as "batch=4".
MODIST_API md_status modist_step_graph(const char *model, const char *const *settings,
                                       int num_settings, modist_graph **graph);

// --- Compiling

typedef struct modist_program modist_program;
typedef struct modist_compile_options {
  size_t struct_size;
  int opt_level_plus1;  // 1: only what is needed, 2: no fusion, 3: everything; 0: everything
  md_dtype precision;   // MD_F32 or MD_BF16; 0: MD_F32
  const char *cpu;      // cap of the instructions; NULL: what this machine has
  int no_cache;         // neither read nor write the kernel cache
} modist_compile_options;
// The graph stays as it was. Errors of compiling are on the graph's handle.
MODIST_API md_status modist_compile(modist_graph *g, const modist_compile_options *o,
                                    modist_program **program);
// Writes an artefact (.mdx), whole or not at all. Needs ld.lld for programs that were compiled here.
MODIST_API md_status modist_program_save(modist_program *p, const char *path);
// An artefact holds machine code: load only those you trust.
MODIST_API md_status modist_program_load(const char *path, modist_program **program);
MODIST_API void modist_program_destroy(modist_program *p);
MODIST_API const char *modist_program_error(const modist_program *p);
MODIST_API int64_t modist_program_arena_bytes(const modist_program *p);  // planned activations
MODIST_API int modist_program_launches(const modist_program *p);
MODIST_API const char *modist_program_launch_name(const modist_program *p, int i);

// --- Running

typedef struct modist_run modist_run;
typedef struct modist_run_options {
  size_t struct_size;
  int threads;    // 0: all cores
  uint64_t seed;  // of the initial states
  int check_nan;
  const char *device;  // "cuda:1"; NULL: the CPU, or for a CUDA program the first GPU
} modist_run_options;
// `p` must outlive the run. Several runs may share a program, each with a thread of its own.
MODIST_API md_status modist_run_create(const modist_program *p, const modist_run_options *o,
                                       modist_run **run);
MODIST_API void modist_run_destroy(modist_run *r);
// Row-major memory in the tensor's own type; valid until destroy. NULL: no such name, or modist_run_error
// says why the GPU does not give it. On a GPU states and results are copies: each call brings one up to
// date, and what is written to a state after it, before the next step, goes to the GPU with that step.
MODIST_API void *modist_run_input(modist_run *r, const char *name, size_t *bytes);
MODIST_API void *modist_run_state(modist_run *r, const char *name, size_t *bytes);
MODIST_API const void *modist_run_result(modist_run *r, const char *name, size_t *bytes);
// On failure no update is applied, but states that a kernel writes in place may have changed, so the
// run is of no more use.
MODIST_API md_status modist_run_step(modist_run *r);
MODIST_API const char *modist_run_error(const modist_run *r);

// --- Plug-ins: `modistc compile PLUGIN.so`. A plug-in exports both of these.
#define MODIST_PLUGIN_ABI_SYMBOL "modist_plugin_abi"
#define MODIST_PLUGIN_ENTRY_SYMBOL "modist_plugin_declare"
//   const int modist_plugin_abi = MODIST_ABI_VERSION;
//   void modist_plugin_declare(modist_graph *g);      // builds into g by the functions above
// docs/plugins.md has the rules.
typedef void (*modist_plugin_entry)(modist_graph *g);

#ifdef __cplusplus
}
#endif
#endif
