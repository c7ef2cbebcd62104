// SPDX-License-Identifier: Apache-2.0
// The command line: one option table, one file a subcommand. No logic of its own lives here: a
// command reads its options, calls the libraries and prints. The map of this folder.
#ifndef MODISTC_MODISTC_H
#define MODISTC_MODISTC_H

#include "base/diag.h"
#include "graph/graph.h"
#include "models/models.h"
#include "passes/passes.h"
#include "runtime/exec/exec.h"

// --- options.c: the table speaks for parsing, help, completion and the manual --------------------

typedef struct md_option {
  const char *name;  // long name
  char letter;       // 0: none
  const char *arg;   // NULL: a switch; "FILE"; "[=WHEN]" when it may be left out
  const char *doc;
} md_option;

// Options that would do nothing: ignoring what a user asks for would be a lie. Where all conditions
// of `when` hold, each of the options in `refused` is an error. Both are words between spaces; a
// condition is
//   name        the option was given           name=a|b*   its value matches a pattern
//   :a|b*       the first argument does        !X          X does not hold
typedef struct md_option_rule {
  const char *when, *refused;
  const char *why;      // "--backend=interp runs no kernels"
  const char *instead;  // after "leave it out, or "; NULL: nothing to suggest
} md_option_rule;

typedef struct md_cli md_cli;
typedef struct md_command {
  const char *name, *group;     // group: heading under which the overview lists it
  const char *doc;              // one line
  const char *usage;            // after the name: "[MODEL|GRAPH.mdg] [options]"
  const char *const *examples;  // NULL-terminated
  const md_option *options;     // ended by {0}; NULL: none
  const md_option_rule *rules;  // ended by {0}; NULL: none
  md_status (*run)(md_cli *cli);
} md_command;
extern const md_command *const md_commands[];
extern const int md_num_commands;
extern const md_option md_global_options[];

struct md_cli {
  const md_command *command;
  md_diags *diags;
  md_arena *arena;
  char **arg;  // what is not an option
  int num_args;
  struct {
    const md_option *option;
    const char *value;
  } set[64];
  int num_set;
  bool color_err, quiet;
  int verbose;
};
// False: reported (E0401).
bool md_cli_parse(md_cli *cli, int argc, char **argv);
// False: the command's rules refuse an option (E0401, reported).
bool md_cli_obeys(md_cli *cli);
bool md_cli_has(const md_cli *cli, const char *name);
const char *md_cli_get(const md_cli *cli, const char *name);  // last one; NULL: not given
const char *md_cli_next(const md_cli *cli, const char *name,
                        int *at);  // each of several; *at from 0
bool md_cli_int(md_cli *cli, const char *name, int64_t lo, int64_t hi,
                int64_t *value);  // keeps *value when absent
// A number of bytes, such as 1400M or 1.4G; keeps *value when absent.
bool md_cli_bytes(md_cli *cli, const char *name, int64_t *value);
bool md_cli_float(md_cli *cli, const char *name, double lo, double hi, double *value);
// One of `choices` (NULL-terminated); -1: reported. Absent: `preset`.
int md_cli_choice(md_cli *cli, const char *name, const char *const *choices, int preset);
// The file that the option names, if it is given and not '-', can be written. To be asked before work whose
// results it would take. False: reported.
bool md_cli_may_write(md_cli *cli, const char *name);
bool md_cli_args(md_cli *cli, int least, int most, const char *what);  // checks num_args

// --- help.c
void md_help_overview(FILE *to);
void md_help_command(const md_command *c, FILE *to);
void md_help_manual(const md_command *c, FILE *to);  // roff
bool md_help_completion(const char *shell, FILE *to);

// --- dataset_tools.c, dataset_flow.c: verbs of `modistc dataset`
md_status md_dataset_check(md_cli *cli);
md_status md_dataset_index(md_cli *cli);
md_status md_dataset_stat(md_cli *cli);
md_status md_dataset_flow(md_cli *cli);
typedef struct md_map_rule md_map_rule;  // video.h
bool md_cli_maps_named(md_cli *cli);     // --maps, if given, is not empty; false: reported
bool md_cli_map_rule(md_cli *cli, md_map_rule *r);  // from --kind, --lag and so on; false: reported

// --- source.c: what a user names on the command line becomes a graph -----------------------------
// A model's name, a graph text (.mdg, or - for standard input), or a plug-in (.so); settings as
// `key=value`. NULL: reported.
md_graph *md_source_graph(md_cli *cli, const char *what);
// False: there are some, reported.
bool md_source_takes_no_settings(md_cli *cli, const char *what);
// Reads the pass options of the command line.
bool md_source_passes(md_cli *cli, md_pass_options *o);
#define MD_PASS_OPTIONS                                                                         \
  {"passes", 0, "LIST", "run these passes, in this order, in place of the standard ones"},      \
      {"disable-pass", 0, "LIST", "leave these passes out"},                                    \
      {"opt-level", 'O', "N", "0: only what is needed, 1: no fusion, 2: everything (default)"}, \
      {"precision", 0, "TYPE", "fp32 (default) or bf16 storage of activations"},                \
      {"print-ir-after", 0, "PASS", "print the graph after this pass, or after `all`"},         \
      {"print-changed", 0, NULL, "print the graph after each pass that changed it"},            \
      {"dump-dir", 0, "DIR", "write the graph after each pass to numbered files"},              \
      {"time-passes", 0, NULL, "say how long each pass took"},                                  \
      {"max-rewrites", 0, "N", "stop rewriting after N rewrites (to bisect)"},                  \
      {"verify-each", 0, NULL, "check the graph after each pass"}
#define MD_PASS_NAMES                                                                          \
  "passes disable-pass opt-level precision print-ir-after print-changed dump-dir time-passes " \
  "max-rewrites verify-each"
#define MD_CPU_OPTIONS                                                                       \
  {"cpu", 0, "NAME",                                                                         \
   "cap the instructions: native (default), avx512-bf16, avx512, avx2, sse4.2, generic;"     \
   " or x86-64-v4, -v3, -v2, x86-64; with ,-winograd behind it: direct convolutions alone"}, \
      {"jit-asan", 0, NULL, "instrument the generated code with AddressSanitizer"},          \
      {"no-cache", 0, NULL, "neither read nor write the cache of compiled kernels"}
#define MD_MEMORY_OPTION                                                                \
  {"memory-limit", 0, "BYTES",                                                          \
   "need no more than that (1400M, 1.4G): values are computed again rather than kept, " \
   "and what still needs more is refused"}
#define MD_CPU_NAMES "cpu jit-asan no-cache"
#define MD_DEVICE_OPTION \
  {"device", 0, "NAME", "cpu, or cuda:N for a GPU; by default the CPU, or what an artefact is for"}
#define MD_ENGINE_OPTIONS                                                                       \
  {"engine", 0, "NAME",                                                                         \
   "modist (default), cudnn: NVIDIA's cuDNN does the convolutions that it can, with what is "   \
   "fused "                                                                                     \
   "with them; or fastest: those that it does faster, by records of tuning, or tried when the " \
   "program is loaded"},                                                                        \
      {"deterministic", 0, NULL,                                                                \
       "the same bits in every run: nothing that is measured has a say, as times, records of "  \
       "tuning and free memory"}
#define MD_DEVICE_WHY "it is of the CPU, and a GPU runs the kernels"
// --backend (cpu or interp) and --device into the options of an engine. False: reported.
struct md_engine_options;
bool md_source_backend(md_cli *cli, struct md_engine_options *o);
bool md_source_engine(md_cli *cli,
                      struct md_engine_options *o);  // the same of --engine, --deterministic
// --target-spec, if it is given: facts of a device for one of the targets, in cli's arena. False: reported.
typedef struct md_cuda_spec md_cuda_spec;
bool md_cli_cuda_spec(md_cli *cli, const char *target, const md_cuda_spec **spec);
// Of `run` and `train`: the interpreter has the graph and nothing else.
#define MD_INTERP_WHY "--backend=interp runs no kernels"

#endif
