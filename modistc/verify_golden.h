// SPDX-License-Identifier: Apache-2.0
// Golden sets: cases with numbers from an independent implementation. A case is an op or a network
// with inputs and expected outputs; it is built as a graph, run on a back end and judged row by row.
//
// A set is a folder with manifest.json (format modist-golden-1) and safetensors files.
#ifndef MODISTC_VERIFY_GOLDEN_H
#define MODISTC_VERIFY_GOLDEN_H

#include "base/json_tree.h"
#include "base/safetensors.h"
#include "graph/graph.h"

#include <regex.h>

#include "codegen/cuda/cuda.h"

// --- verify_golden.c: the set, the judge, the report ---------------------------------------------

// What runs a graph. Tensors are row-major; `put` and `get` go by the names in the graph and convert
// between float types and between integer types.
typedef struct md_verify_backend {
  const char *name;
  bool
      in_f64;  // trajectories are judged to their end; in f32 they are chaotic after the first step
  double most_flops;  // of a case: the host would take too long for more; 0: no limit
  void *ctx;
  // Takes g, in which gradients are not yet expanded. NULL: reported.
  void *(*create)(void *ctx, md_graph *g, md_diags *d);
  void (*destroy)(void *run);
  bool (*put)(void *run, const char *name, const md_tensor *from);  // to an input or a state
  bool (*step)(void *run, md_diags *d);
  bool (*get)(void *run, const char *name, md_tensor *to);  // from a result or a state
} md_verify_backend;
extern const md_verify_backend md_verify_interp;

typedef struct md_verify_options {
  const char *dir;
  const regex_t *only;  // cases whose name matches; NULL: all
  bool json, verbose;
  const md_verify_backend *backend;
  FILE *out;
} md_verify_options;
// MD_OK, MD_ERR_MISMATCH when a case fails, MD_ERR_DATA when the set cannot be read (reported).
md_status md_verify_golden(const md_verify_options *o, md_diags *d);

// --- verify_engine.c: a compiled program in f32; `o` is borrowed for as long as the back end is used
struct md_engine_options;
md_verify_backend md_verify_engine(const char *name, struct md_engine_options *o);

// --- verify_simt.c: the text of CUDA kernels, run on the host under a checker by a module that is built
// with the tests (tests/simt/golden.c). False: reported.
typedef struct md_verify_simt_options {
  md_cuda_arch arch;
  md_pass_options passes;
} md_verify_simt_options;
bool md_verify_simt(const char *arch, md_verify_simt_options *o, md_verify_backend *to,
                    md_diags *d);
// What the module has: fills *to, unless it is of another version.
typedef bool (*md_verify_module)(const char *version, md_verify_backend *to);
bool md_simt_backend(const char *version, md_verify_backend *to);

// --- verify_cases.c: from a case to a graph ---------------------------------------

// A row of the manifest.
typedef struct md_case_row {
  const char *role;
  bool is_input, exact, by_l2;
  double rtol, atol, l2_tol;
  const md_st_tensor *data;  // inputs and expected outputs; NULL: generated
  md_tensor *value;          // inputs
  bool used;                 // somebody understood it
  bool is_node;              // it is an input of the graph
} md_case_row;

// What a case gives back, by role.
typedef struct md_case_output {
  const char *role, *name;  // name in the graph
  md_tensor *value;
} md_case_output;

typedef struct md_case_state {
  const char *name;
  md_type type;
} md_case_state;

typedef struct md_case {
  const char *name, *op;
  const md_tree *config;
  const md_tree **read;  // attributes that somebody understood
  int num_read, cap_read;
  md_case_row *row;
  int num_rows;
  md_case_output *output;
  int num_outputs, cap_outputs;
  md_arena *arena;
  md_diags *diags;  // of this case alone
  const md_verify_backend *backend;
  double too_many_flops;  // more than the back end is for; 0: they are not
  md_graph *g;
  md_builder b;
  void *run;             // on the back end, once started
  md_case_state *state;  // of the started graph
  int num_states;
} md_case;

typedef struct md_case_kind {
  const char *op;
  bool (*run)(md_case *c);  // false: reported
} md_case_kind;
extern const md_case_kind md_case_kinds[];
extern const int md_num_case_kinds;

// Names in graphs hold no '/': roles are written with '.'.
const char *md_case_name(md_case *c, const char *role);
md_case_row *md_case_find(md_case *c, const char *role);
bool md_case_has(const md_case *c, const char *role);
md_val md_case_input(md_case *c, const char *role);           // an input node with the row's type
void md_case_result(md_case *c, const char *role, md_val v);  // a result node
md_case_output *md_case_output_of(md_case *c, const char *role);  // NULL: none yet
// Runs the graph once and fetches every result.
bool md_case_run(md_case *c);
// The same in parts, for cases of several steps. Each reports what fails.
bool md_case_start(md_case *c,
                   md_graph *take_g);  // NULL: the case's own; puts inputs that are nodes
bool md_case_put(md_case *c, const char *name, const md_tensor *value);
bool md_case_step(md_case *c);
bool md_case_fetch(md_case *c);  // all results
// A new output: the present value of a result or state of that type.
md_case_output *md_case_take(md_case *c, const char *role, const char *name, md_type type);
// Attributes. Reading one says that the case does what it asks for: one that nobody has read fails
// the case, at any depth. A missing or ill-typed one is reported and leaves the value alone.
const md_tree *md_case_attr(md_case *c, const md_tree *map, const char *key);  // NULL: none
bool md_case_int(md_case *c, const md_tree *map, const char *key, int64_t *out);
bool md_case_float(md_case *c, const md_tree *map, const char *key, double *out);
// Of an op whose 0 stands for a default: a 0 in the case would silently mean something else.
bool md_case_positive(md_case *c, const md_tree *map, const char *key, double *out);
bool md_case_bool(md_case *c, const md_tree *map, const char *key, bool *out);
// Which of `words` (NULL-terminated); -1: reported.
int md_case_word(md_case *c, const md_tree *map, const char *key, const char *const *words);
bool md_case_says(md_case *c, const char *key, bool is_so);  // a bool that repeats a fact
bool md_case_sampled(md_case *c);  // `sampled`, where it stands: outputs are stored as samples
// The list lr_per_step, which follows base_lr, total_steps, warmup and warmup_start. NULL: reported.
const md_tree *md_case_rates(md_case *c);
// n numbers; fewer stand for the last axes, what is missing in front is `front`.
bool md_case_dim3(md_case *c, const char *key, int64_t front, md_dim3 *out);
// Results d<role> for the roles, gradients of sum(y * gy).
void md_case_gradients(md_case *c, md_val y, int n, const char *const *role, const md_val *val);

// --- verify_nets.c: networks, the classifier, whole training runs --------------------------------

bool md_run_net(md_case *c);
bool md_run_train(md_case *c);
bool md_run_classifier(md_case *c);

#endif
