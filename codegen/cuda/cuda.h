// SPDX-License-Identifier: Apache-2.0
// The CUDA back end: a graph after its passes -> CUDA C text -> PTX and cubins by NVRTC. No GPU, no
// driver and no CUDA header is needed. The border of this folder.
#ifndef CODEGEN_CUDA_CUDA_H
#define CODEGEN_CUDA_CUDA_H

#include "graph/graph.h"
#include "passes/passes.h"
#include "runtime/exec/exec.h"

// --- target.c
typedef struct md_cuda_arch {
  int sm;
  char suffix;
} md_cuda_arch;  // 90, 'a'
// "cuda:sm_90a"; false: reported (E0441) with the nearest names.
bool md_cuda_parse(const char *target, md_cuda_arch *arch, md_diags *d);
// "cuda:sm_80,cuda:sm_90a": their number, at most `max`; 0: reported.
enum { MD_CUDA_TARGETS = 16 };
int md_cuda_targets(const char *list, md_cuda_arch *arch, int max, md_diags *d);
// Of one target or a list: they are the same for all, so that one graph serves every target.
bool md_cuda_facts(const char *target, md_target_facts *facts, md_diags *d);

// The device of that compute capability that a list of targets names, as "cuda:h200" does; NULL: none.
struct md_cuda_spec;
const struct md_cuda_spec *md_cuda_named_device(const char *list, int sm);

// The best target for a device of this compute capability. False: reported (E0441).
bool md_cuda_target_for(int sm, char *target, int size, md_diags *d);
// Does the driver load what the NVRTC here compiles? False: reported (E0646, or E0442 without NVRTC).
bool md_cuda_is_loaded_by(int driver, md_diags *d);

int md_cuda_num_archs(void);
md_cuda_arch md_cuda_arch_at(int i, bool *has_suffix);  // sm_75 first

// --- devices.c, spec.c: facts of devices, for predictions. A device that is not known, or not there,
// is described by a file of the same keys.
typedef struct md_cuda_spec {
  const char *name;    // "h200": --target=cuda:h200
  const char *title;   // "NVIDIA H200 SXM"
  const char *source;  // of the figures
  md_cuda_arch arch;   // the best code for it
  double sms, clock_mhz;
  double registers, threads, blocks, shared_bytes;  // of a multiprocessor, at most
  double block_shared_bytes;                        // of a block, at most
  double l2_bytes, memory_bytes;
  double bandwidth;                // bytes a second
  double fma_flops, tensor_flops;  // a second; tensor: bf16 products added in f32, not sparse
} md_cuda_spec;
int md_cuda_num_devices(void);
const md_cuda_spec *md_cuda_device_at(int i);
const md_cuda_spec *md_cuda_device(const char *name);  // NULL: no such device
const md_cuda_spec *
md_cuda_device_of(md_cuda_arch arch);  // the best of a target; NULL: none is known
void md_cuda_spec_print(const md_cuda_spec *s, md_text *to);  // as a file
// One key of a file into *s; texts live in `a`. False: reported (E0445).
bool md_cuda_spec_set(md_cuda_spec *s, const char *key, const char *text, md_place key_at,
                      md_place at, md_arena *a, md_diags *d);
bool md_cuda_spec_check(const md_cuda_spec *s, const char *file, md_diags *d);  // is it all there?

// --- nvrtc.c: the only file that speaks to NVRTC, opened at run time (MODIST_NVRTC overrides).
// False: reported (E0442, exit 4) when the library is not there.
const char *md_nvrtc_path(void);  // of the library; NULL: it is not there
bool md_nvrtc_version(int *major, int *minor, md_diags *d);
int md_nvrtc_archs(int *sm, int max,
                   md_diags *d);  // compute capabilities it compiles for; 0: reported
typedef struct md_cubin {
  char *data;
  size_t bytes;
  char *log;
} md_cubin;  // malloc'ed
bool md_nvrtc_compile(const char *text, const char *name, md_cuda_arch arch, bool ptx,
                      md_cubin *out, md_diags *d);
// Its version, if it is there, and the options that kernels are compiled with.
void md_nvrtc_describe(md_text *to);
// The digest of all that the result depends on. False: reported.
bool md_nvrtc_key(const char *text, md_cuda_arch arch, bool ptx, md_digest *key, md_diags *d);

// --- usage.c: what ptxas says of kernels. The same facts stand in a cubin (md_cubin_read), but for
// the spills, of which the stack frame is the sign there.
typedef struct md_cuda_usage {
  md_kernel_facts facts;  // but threads and parameters
  int spill_stores, spill_loads;
} md_cuda_usage;
int md_cuda_usage_of_log(const char *log, md_cuda_usage **usage);  // *usage is malloc'ed
// False: reported (E0444) that a kernel spills, has a stack frame, or is slow for another reason.
bool md_cuda_check_log(const char *log, const char *name, md_diags *d);

// --- units.c: texts to code, each alone, from the cache where it has them, by several threads
typedef struct md_cuda_unit {
  const char *name, *text;
  const char *what;  // for messages: where it is from; may be NULL
  md_cuda_arch arch;
  bool ptx;  // PTX text rather than a cubin
  char *data;
  size_t bytes;  // malloc'ed
  bool hit;      // it came from the cache
  bool failed;
} md_cuda_unit;
// Fills in data. threads 0: one for each core. False: reported. The caller frees data either way.
bool md_cuda_units_compile(md_cuda_unit *u, int num, bool no_cache, int threads, md_diags *d);

// --- schedule.c: how the product of a convolution is made
typedef enum md_cuda_math { MD_CUDA_FMA, MD_CUDA_MMA, MD_CUDA_WGMMA, MD_CUDA_MATHS } md_cuda_math;
extern const char *const md_cuda_math_names[MD_CUDA_MATHS];
typedef struct md_cuda_schedule {
  md_cuda_math math;
  int m, n;     // rows and columns of a block's tile of the result
  int blocks;   // about, that share the tiles or what is summed up; 0: one for each tile
  int stages;   // of operands on their way to wgmma; 0: as many as there is room for
  bool copies;  // threads copy to wgmma what TMA could
} md_cuda_schedule;
enum { MD_CUDA_WAYS = 16, MD_CUDA_TRIALS = 8, MD_CUDA_SCHEDULE_CHARS = 48 };  // trials: by default
// "wgmma 128x256 264", with 3 stages "wgmma 128x256 264 s3", copied by threads "wgmma 128x256 264 copies".
// Returns buf.
char *md_cuda_schedule_text(const md_cuda_schedule *s, char buf[MD_CUDA_SCHEDULE_CHARS]);
bool md_cuda_schedule_equal(const md_cuda_schedule *a, const md_cuda_schedule *b);

// --- text.c, stream.c, nce.c: regions to text
typedef enum md_cuda_emit { MD_CUDA_TEXT, MD_CUDA_PTX, MD_CUDA_CUBIN } md_cuda_emit;
// What a kernel takes, in order: a value of the graph, or a place in the workspace.
typedef struct md_cuda_arg {
  md_val val;         // MD_NONE: the workspace
  int64_t workspace;  // its first byte there
  int64_t bytes;
  const md_windows *windows;  // the kernel takes a tensor map of it; NULL: its address
  bool write;                 // the kernel writes it (and may read it when `read`)
  bool read;
} md_cuda_arg;
// How a kernel is to be launched, for the driver and for the host harness alike: a grid of one axis.
typedef struct md_cuda_launch {
  char kernel[32];  // "k12"; never a user's name. Equal regions share a kernel.
  int number;       // 12: in the module's kernels
  int64_t blocks;
  int threads, shared_bytes;
  int region;      // of its first part
  double work;     // its share of what the region computes, in any unit; 0 in all: by bytes
  bool is_early;   // wants to run as soon as what it reads is there
  bool is_beside;  // may run beside the one before it: what both write is of each its own elements
  bool is_told;    // so many blocks follow from the batch, as its counts do
  bool is_moved;   // some of what it touches lies in the workspace rather than in the arena
  int num_args;
  md_cuda_arg *arg;  // in the module's arena
  int num_counts;
  int64_t *count;  // numbers that the kernel takes behind its arguments; there, too
  int num_parts;   // launches that it stands for; 0: itself
  struct md_cuda_launch *part;
} md_cuda_launch;
// A kernel as a text of its own, without comments; the symbol is made of its digest, so that equal
// kernels of any graphs are equal texts. And what that text is made of.
typedef struct md_cuda_kernel {
  char symbol[20];
  const char *text;
  int threads, num_params, num_counts;
  const char **param;   // "const float *MD_RESTRICT "; then come the counts
  const char *code;     // lines between the braces
  const char *listing;  // the same with comments
  const char *title;    // comment in front
} md_cuda_kernel;
// A place in the workspace.
typedef struct md_cuda_place {
  int64_t begin, bytes;
} md_cuda_place;
// A region that has no CUDA kernel yet, and why.
typedef struct md_cuda_refusal {
  int region;
  const char *name, *why;
} md_cuda_refusal;
// A product that can be made in several ways.
typedef struct md_cuda_trial {
  md_cuda_schedule way;
  md_cuda_launch *launch;  // what makes the region this way, in a workspace that begins at 0
  int num_launches;
} md_cuda_trial;
typedef struct md_cuda_site {
  int region;
  char key
      [33];  // digest of the kernels that the generator makes by itself and of what compiles them
  md_cuda_schedule own, used;      // that way, and the one that was taken
  const char *known_by;            // the device whose record says so; NULL: there is none
  int first_launch, num_launches;  // of a module whose launches stand apart
  md_cuda_trial *trial;            // other ways; not of a product that a site before has
  int num_trials;
} md_cuda_site;
typedef struct md_cuda_module {
  md_text text;  // prelude-free: names md_* come from the device or the host prelude
  md_cuda_launch *launch;
  int num_launches, cap_launches;  // in the order in which they run
  md_cuda_kernel *kernel;
  int num_kernels, cap_kernels;
  md_cuda_place *place;
  int num_places, cap_places;
  int64_t workspace_bytes;
  md_cuda_refusal *refused;
  int num_refused, cap_refused;
  md_cuda_site *site;
  int num_sites, cap_sites;
  md_arena *arena;
} md_cuda_module;
typedef struct md_cuda_how {
  bool is_apart;  // a launch for each kernel of a region, those of a region together
  int trials;     // at most so many other ways of each product, besides; of what is_apart
  const md_records *records;  // which ways are best; NULL: the generator's own
  const char *device;         // whose records; NULL: of what the target names, or of any
} md_cuda_how;
// NULL only for an internal reason; regions that are not supported yet are listed, not errors. `how`
// NULL: joined, without records.
md_cuda_module *md_cuda_generate(const md_graph *g, md_cuda_arch arch, const md_cuda_how *how,
                                 md_diags *d);
void md_cuda_module_free(md_cuda_module *m);
// The device prelude, given to NVRTC as a named header; and whether it has mbarriers, TMA and wgmma.
const char *md_cuda_prelude(md_cuda_arch arch);
bool md_cuda_has_wgmma(md_cuda_arch arch);
// Without it products of bf16 are made in f32, by FMAs.
bool md_cuda_multiplies_bf16(md_cuda_arch arch);

// All of it: text, PTX or cubin into `out` (binary for cubin). Regions without a kernel: E0440, all
// named, unless some regions have one and the text is wanted: then comments say what is missing.
bool md_cuda_compile(const md_graph *g, const char *target, md_cuda_emit what, md_text *out,
                     md_diags *d);

// False, reported (E0440), when a region of the module has no kernel.
bool md_cuda_is_complete(const md_cuda_module *m, const md_graph *g, md_diags *d);

// --- program.c: a graph to a program for an artefact, with code for one or more targets
typedef struct md_cuda_options {
  const char *targets;  // "cuda:sm_80,cuda:sm_90a"
  md_cuda_how how;      // is_apart: md_launch.region says of all launches whose they are
  bool no_ptx;  // leave out the PTX of compute_80, from which a driver compiles for later devices
  bool no_cache, want_graph_text;
  bool
      plan_only;  // launches and sizes: kernels have names, but no code, and the program cannot run
  int threads;    // that compile; 0: one for each core
} md_cuda_options;
typedef struct md_cuda_report {
  int kernels, cache_hits;  // compilation units, of all targets
  double compile_ms;
  md_arena *arena;     // set by the caller; may be NULL: then no `math`
  md_cuda_math *math;  // by kernel of the program: what its text multiplies with
  // Products that can be made in several ways, if anybody asked for that: all, those with a record, those
  // that are not made the generator's own way; of all targets.
  int products, known, changed;
  const char *known_by;  // the devices whose records were taken, with commas; in the arena
  int num_devices;       // of those, for a target: the most
  const char *unknown,
      *unknown_for;  // the first region without a record, and its target; in the arena
} md_cuda_report;
// `g` must have been through the passes. NULL: reported. `report` may be NULL.
md_program *md_cuda_program(const md_graph *g, const md_cuda_options *o, md_cuda_report *report,
                            md_diags *d);
// That the pass `recompute` keeps a limit of so many bytes of the program for these targets (0: none);
// *o must outlive it. What drivers take for themselves is not counted.
md_memory_limit md_cuda_memory(const md_cuda_options *o, int64_t bytes);

// --- cost.c: how long a launch should take, by a roofline over a spec
typedef enum md_cuda_limit {
  MD_BY_MEMORY,
  MD_BY_TENSOR,
  MD_BY_FMA,
  MD_BY_LAUNCH,
  MD_NUM_LIMITS
} md_cuda_limit;
extern const char *const md_cuda_limit_names[MD_NUM_LIMITS];
typedef struct md_cuda_cost {
  int blocks_per_sm;  // that fit at once; 0: not even one
  double us;
  md_cuda_limit limit;
} md_cuda_cost;
md_cuda_cost md_cuda_predict(const md_program *p, const md_launch *l, const md_kernel_facts *k,
                             md_cuda_math math, const md_cuda_spec *s);
// The kernel of a launch, one of the variant's.
const md_gpu_kernel *md_cuda_kernel_of(const md_program *p, const md_gpu_variant *v,
                                       const md_launch *l);
md_cuda_cost md_cuda_cost_of(const md_program *p, const md_gpu_variant *v, const md_launch *l,
                             const md_cuda_report *r, const md_cuda_spec *s);
// All launches of a variant, one after another. A plan without code has the same.
typedef struct md_cuda_forecast {
  int launches[MD_NUM_LIMITS];  // by what limits them
  double us[MD_NUM_LIMITS];
  double all_us, flops, bytes;
} md_cuda_forecast;
md_cuda_forecast md_cuda_forecast_of(const md_program *p, const md_gpu_variant *v,
                                     const md_cuda_report *r, const md_cuda_spec *s);

#endif
