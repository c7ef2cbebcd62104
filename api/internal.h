// SPDX-License-Identifier: Apache-2.0
// What the files of this folder share. The map of this folder: graph.c declares, program.c compiles
// and saves, run.c executes, plugin.c loads plug-ins, error.c keeps the text of failures without a
// handle.
#ifndef API_INTERNAL_H
#define API_INTERNAL_H

#include "base/diag.h"
#include "graph/graph.h"
#include "modist/modist.h"
#include "runtime/exec/exec.h"

// --- graph.c
struct modist_graph {
  md_builder b;       // b.g is the graph, b.diags the errors of declaring
  md_diags *compile;  // errors of the last modist_compile
};
// `diags` belongs to the handle from now on.
modist_graph *md_api_wrap(md_graph *g, md_diags *diags);
// The graph leaves the handle, which is destroyed. NULL: there were errors.
md_graph *md_api_unwrap(modist_graph *g);

// --- program.c
struct modist_program {
  md_program *program;
  md_graph *graph;  // after the passes, to link code for an artefact when asked; NULL: was loaded
  char *cpu;
  bool no_cache;
  md_diags *diags;  // errors of the last call
};

// --- error.c
// Keeps the text for modist_last_error and returns its status, which is never MD_OK; frees `d`.
md_status md_api_fail(md_diags *d);
// Copies options of the caller's size over `own`, which has the defaults. Reports sizes that cannot
// be, and settings that this library is too old to know.
bool md_api_options(void *own, size_t own_size, const void *given, const char *what, md_diags *d);

#endif
