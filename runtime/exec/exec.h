// SPDX-License-Identifier: Apache-2.0
// Compiled programs: what they are, how they are saved, how they run. This folder is modist_rt: it
// knows nothing of graphs, LLVM, NVRTC or FFmpeg. The map of the folder.
#ifndef RUNTIME_EXEC_EXEC_H
#define RUNTIME_EXEC_EXEC_H

#include "base/base.h"
#include "base/diag.h"
#include "runtime/exec/cubin.h"

// --- element.c: elements of tensors --------------------------------------------------------------------
double md_element_load(md_dtype t, const void *from, int64_t i);
void md_element_store(md_dtype t, void *to, int64_t i, double x);  // rounds; integers saturate

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
  int init;  // states: md_init of base/init.h
  double a, b;
  const char *from;
} md_spec;

typedef enum md_space {
  MD_IN_ARENA,
  MD_IN_STATE,
  MD_IN_INPUT,
  MD_IN_RESULT,
  MD_IN_WORKSPACE,
  MD_NUM_SPACES
} md_space;
extern const char *const md_space_names[MD_NUM_SPACES];
// What a tensor map says of a tensor of bf16 that TMA copies windows of ("im2col"): innermost axis first.
typedef struct md_windows {
  int64_t dim[5];  // channels, width, height, time, samples
  // By width, height, time: where the first window begins; the last, counted from the last element; steps
  // between them.
  int64_t first[3], last[3], step[3];
  int64_t channels, pixels;  // of a copy
} md_windows;
enum {  // what a tensor map can say
  MD_WINDOW_FIRST = -16,
  MD_WINDOW_LAST = 15,
  MD_WINDOW_STEP = 8,
  MD_WINDOW_TAP = 31,       // elements from a window's begin to what is copied of it
  MD_WINDOW_CHANNELS = 64,  // where lines are swizzled by 128 bytes
  MD_WINDOW_PIXELS = 1024
};
typedef struct md_arg {
  md_space space;
  int index;              // state, input or result number
  int64_t offset, bytes;  // offset inside the space
  bool write;
  bool
      may_be_left_out;  // -inf is no mistake: a sum over what InfoNCE counts, where that is nothing
  const char *name;     // of the value, for messages
  const md_windows *windows;  // a kernel takes the address of a tensor map of it; NULL: its own
  // What lies there, for --check-nan and --verify: layout as in md_type.
  md_dtype dtype;
  int block, rank;
  int64_t dim[MD_SPEC_RANK];
} md_arg;

// One kernel call for each of `items`; items are independent of one another and write disjoint
// memory, so results do not depend on how they are spread over threads. Phases of a launch run one
// after another.
//   void symbol(void *const *arg, int64_t item, void *scratch)
// scratch: `scratch_bytes` of memory of the calling thread, aligned to 64, not cleared.
// In a CUDA program a launch has one phase, a kernel that takes the addresses of the arguments in order,
// then its counts, 8 bytes each: a grid of one axis of `items` blocks of `threads`, with so much dynamic shared memory.
typedef struct md_phase {
  const char *symbol;
  int64_t items, scratch_bytes;
  int threads;  // 0: a CPU's
  int64_t shared_bytes;
} md_phase;
typedef struct md_launch {
  const char *name;  // of the region
  int region;        // its number in the graph, 1 the first; 0: it is no region's
  int first_phase, num_phases, first_arg, num_args;
  int first_count, num_counts;  // of a CUDA program: numbers that follow from the batch
  double flops, bytes;
} md_launch;
// After the step: state `index` takes the bytes at src (an arena place), unless updated in place.
typedef struct md_copy {
  int state;
  md_arg src;
} md_copy;

// A convolution that launches of a CUDA program do together, and nothing else: what another engine can do in
// their place. Axes are [n, c, t, h, w], of weights [out, in, t, h, w].
typedef enum md_conv_kind {
  MD_CONV_FORWARD,  // x, w -> y
  MD_CONV_DATA,     // w, y -> x: the gradient for the source
  MD_CONV_WEIGHTS,  // x, y -> w: the gradient for the weights
  MD_NUM_CONVS
} md_conv_kind;
extern const char *const md_conv_kind_names[MD_NUM_CONVS];
// What may be fused with a forward one, in f32 but for the places:
//   formed = relu?(norm?(x) + norm?(add))            is what is convolved; y as x, it may be stored
//   y = relu?(conv(formed, w) + bias + rest)
//   mean, var                                         of y over all but its channels, biased
typedef enum md_conv_part {
  MD_CONV_ADD,
  MD_CONV_GAMMA,  // of the norm of x: (x - mean) * rsqrt(var + eps) * gamma + beta, f32 by channel
  MD_CONV_BETA,
  MD_CONV_NORM_MEAN,
  MD_CONV_NORM_VAR,
  MD_CONV_ADD_GAMMA,  // of the norm of add
  MD_CONV_ADD_BETA,
  MD_CONV_ADD_MEAN,
  MD_CONV_ADD_VAR,
  MD_CONV_FORMED,
  MD_CONV_BIAS,
  MD_CONV_REST,
  MD_CONV_MEAN,
  MD_CONV_VAR,
  MD_NUM_CONV_PARTS
} md_conv_part;
extern const char *const md_conv_part_names[MD_NUM_CONV_PARTS];
typedef struct md_conv_fused {
  bool relu_before, relu_behind;
  double eps, add_eps;
} md_conv_fused;
typedef struct md_conv_group {
  int first_launch, num_launches;
  md_conv_kind kind;
  md_arg x, w, y;  // f32 or bf16, at multiples of 16 bytes; w may be f32 beside bf16
  int64_t stride[3], pad[3], dilation[3];  // t, h, w
  md_conv_fused fused;
  md_arg part[MD_NUM_CONV_PARTS];  // rank 0: it is not there
} md_conv_group;

// A CUDA program is for one or more targets, each with launches and kernels of its own.
typedef struct md_gpu_kernel {
  const char *symbol, *member;  // file in the artefact
  const void *data;
  size_t bytes;
  md_kernel_facts facts;
} md_gpu_kernel;
// Another way to make what some launches of the step make, for a device to choose from (tune.c).
typedef struct md_gpu_trial {
  const char *key;             // of the product: that of other steps too, if it is the same
  const char *way, *own;       // "wgmma 128x256 264": how it is made here, and in the step
  int replaced, num_replaced;  // the step's launches
  int first_launch, num_launches;
} md_gpu_trial;
typedef struct md_gpu_variant {
  const char
      *target;  // "cuda:sm_90a": cubins; "cuda:compute_80": PTX, for that device and later ones
  int first_launch, num_launches, first_kernel, num_kernels;
  int num_tried;  // launches of trials, behind those of the step
  int first_trial, num_trials;
  int64_t workspace_bytes;
  const char *predicted_for;   // a device; NULL: nothing was predicted
  const double *predicted_us;  // by launch, from its first one on, trials too
} md_gpu_variant;

typedef struct md_program {
  md_arena *arena;  // owns everything below but the code
  // target: "cpu:" NAME and "+FEATURE" for all that the code needs, an instruction set or less, as
  // machine.c knows them: "cpu:avx2+x86-64-v3", "cpu:aarch64+armv8-a". NAME is for people. Or the
  // targets of a CUDA program: "cuda:sm_80,cuda:sm_90a,cuda:compute_80".
  const char *name, *target;
  const char *path;  // of the artefact it was loaded from; NULL: made here
  md_digest graph;   // of the compiled graph
  int64_t arena_bytes, workspace_bytes;
  int num_inputs, num_states, num_results, num_launches, num_phases, num_args, num_copies;
  int num_counts;
  int num_convs;  // of a CUDA program
  md_spec *input, *state, *result;
  md_arg *result_at;  // where result i lies after the step
  md_launch *launch;
  md_phase *phase;
  md_arg *arg;
  int64_t *count;
  md_copy *copy;
  md_conv_group *conv;
  int num_variants, num_kernels;  // of a CUDA program; which has launches for each variant
  md_gpu_variant *variant;
  md_gpu_kernel *kernel;
  md_gpu_trial *trial;
  int num_trials;
  // Code: the address of a symbol. `code` is destroyed with the program.
  void *code;
  void *(*lookup)(void *code, const char *symbol);
  void (*code_free)(void *code);
  const void *image;
  size_t image_bytes;      // position-independent shared object, when there is one
  const char *graph_text;  // of the compiled graph, for --verify; may be NULL
} md_program;
md_program *md_program_create(const char *name);
void md_program_destroy(md_program *p);
// Checks every index, offset and size; what a file says is not trusted before. One error (E0632).
// Beyond the obvious: results, states and inputs are row-major; a copy does not read a state that
// the step's copies write, and no state is the target of two.
bool md_program_check(const md_program *p, md_diags *d);
bool md_conv_is_fused(const md_conv_group *g);  // more than a convolution alone
// "f32[2,3,8]". Returns buf.
enum { MD_SPEC_CHARS = 160 };
char *md_spec_text(const md_spec *s, char buf[MD_SPEC_CHARS]);
int64_t md_spec_elements(const md_spec *s);
const md_spec *md_program_state(const md_program *p, const char *name);  // NULL: no such state

// --- zip.c: archives -----------------------------------------------------------------------------
// Only what the writer below makes is read: members stored or deflated, no gaps, no comments, CRC-32 of
// every member; each header must be, byte for byte, what the writer would have written.
typedef struct md_member {
  const char *name;
  const void *data;
  size_t bytes;
  bool deflate;       // is worth compressing / was compressed
  bool shared;        // not in the archive but beside it, see kernels.c
  size_t file_bytes;  // read: its bytes in the file
} md_member;
enum { MD_MAX_MEMBERS = 8192, MD_MEMBER_CHARS = 64 };
// Of all deflated members together: a small file must not fill the memory.
#define MD_MAX_INFLATED ((int64_t)512 << 20)
bool md_member_name_is_fine(const char *s, size_t len);
void md_zip_write(const md_member *m, int num, md_text *to);  // names: [a-z0-9_.]+, each once
// Members point into `file` or, like the array and the names, into `a`. -1: reported (E0630).
int md_zip_read(const char *path, const void *file, size_t bytes, md_arena *a, md_member **m,
                md_diags *d);

// --- kernels.c: kernels that the artefacts of a folder have in common, each a file of the folder MD_KERNELS beside them
#define MD_KERNELS "kernels"
// Writes those of the members that are `shared`, where they are not there yet.
bool md_kernels_save(const char *artefact, const md_member *m, int num, md_diags *d);
// A member of this name and size, with this digest: its data, in `a`. False: reported (E0649, E0630).
bool md_kernel_read(const char *artefact, md_digest want, md_member *m, md_arena *a, md_diags *d);

// --- machine.c: may this processor run a target? -------------------------------------------------
bool md_machine_runs(const char *target, char *why, int why_size);  // false: with the reason
const char *md_machine_target(void);  // what --target= takes for this machine

// --- manifest.c, manifest_read.c: a program as JSON -----------------------------------------------
enum { MD_ABI_VERSION = 1 };
#define MD_ARTEFACT_FORMAT "modist.artefact/6"
// `members`: the archive's, but for the manifest itself.
void md_manifest_write(const md_program *p, const md_member *members, int num_members, md_text *to);
// Fills `p` (but code, image and graph_text) from manifest.json, the first of the members, and checks their
// checksums and the program. False: reported. `p->path` is set. The members are those of the archive;
// what it shares with others is read and added to them, in `a`.
bool md_manifest_read(md_program *p, md_member **members, int *num_members, md_arena *a,
                      md_diags *d);

// --- gpu_code.c: is the code of a CUDA program what its launches need? ----------------------------
// Fills in the facts of its kernels. False: reported (E0636).
bool md_gpu_code_check(md_program *p, md_diags *d);
// "cuda:sm_90a" or, PTX, "cuda:compute_80". False: it is neither.
bool md_gpu_target(const char *target, int *sm, char *suffix, bool *is_ptx);
int64_t md_gpu_shared_limit(int sm);           // bytes of shared memory that a block can have
bool md_gpu_runs(const char *target, int sm);  // does code for it run on a device?
// The variant of p that a device runs best; NULL: none runs there.
const md_gpu_variant *md_gpu_variant_for(const md_program *p, int sm);

// --- driver.c: NVIDIA's driver, opened at run time ------------------------------------------------
typedef struct md_gpu_device {
  char name[128];
  int sm;
  int driver;     // CUDA version that it speaks, 13000 is 13.0
  int count;      // devices that the driver shows
  int64_t bytes;  // of memory
} md_gpu_device;
// Why there is none that can be used.
typedef struct md_gpu_lack {
  md_code code;
  int error;      // of the driver; 0: no call of it failed
  char why[600];  // what was looked for and what is missing, or the driver's words
} md_gpu_lack;
const char *md_gpu_lack_hint(const md_gpu_lack *l);  // what to do
// False: *l says why.
bool md_gpu_find(int index, md_gpu_device *device, md_gpu_lack *l);
// The same; false: reported.
bool md_gpu_require(int index, md_gpu_device *device, md_diags *d);
// The same as md_gpu_find, asked apart: this process has not used the driver, and can fork one that does.
bool md_gpu_ask(int index, md_gpu_device *device, md_gpu_lack *l);
// Reports what those say; `path`: of the artefact, or NULL. False.
bool md_driver_unusable(const char *path, const md_gpu_lack *l, md_diags *d);

// Does a driver load cubins of a CUDA 13 (or 12)? What it speaks is 13000 for 13.0.
bool md_gpu_loads(int driver, int cuda_major);

// --- nvml.c: NVIDIA's management library
// The driver's own version, "580.65.06". False: `why` says why it is not known.
bool md_nvml_version(char *version, int size, char *why, int why_size);

// --- artefact.c, inspect.c: .mdx, a zip with manifest.json, code and graph.mdg ---------------------
// The code is host.so, or a file for each CUDA kernel and target. Both need it.
bool md_program_write(const md_program *p, md_text *to, md_diags *d);  // the bytes of the artefact
bool md_program_save(const md_program *p, const char *path, md_diags *d);
// The same, but the code of CUDA kernels is shared with other artefacts in its folder.
bool md_program_save_sharing(const md_program *p, const char *path, md_diags *d);
// Host code through a memfd; whether there is a device for a CUDA program, md_exec_create tells.
md_program *md_program_load(const char *path, md_diags *d);
// All that load checks, but for the machine; loads no host code.
md_program *md_artefact_check(const char *path, md_diags *d);
// Into an object: target, members, memory, inputs, states, results, launches. Loads no code.
void md_inspect_program(const md_program *p, const md_member *members, int num, md_json *to);
bool md_artefact_inspect(const char *path, md_json *to, md_diags *d);

// --- pool.c: threads -----------------------------------------------------------------------------
typedef struct md_pool md_pool;
md_pool *md_pool_create(int threads);  // 0: one for each core that the process may use
void md_pool_destroy(md_pool *p);
int md_pool_threads(const md_pool *p);
int md_pool_default(void);  // what 0 stands for above
// Cores that a control group may keep busy by its file cpu.max, rounded up; INT_MAX: no limit is known.
int md_cpu_quota(const char *path);
// Calls fn(ctx, item, thread) for items 0 .. n-1; returns when all are done. The caller takes part. Thread t begins with
// the t-th part of them, in order, and finds in its caches what it had of the same part in the call before.
enum { MD_MAX_ITEMS = INT32_MAX };
void md_pool_run(md_pool *p, int64_t n, void (*fn)(void *ctx, int64_t item, int thread), void *ctx);

// --- fill.c: first values of states, random values of inputs -------------------------------------
void md_fill_states(const md_program *p, uint64_t seed, md_pool *pool, void *const *state);
// Random values for the n elements of an input, from (seed, name, element) alone: floats in [-1, 1),
// bytes in 0..255, other integers 0 or 1, which are an index or a label wherever there are two.
void md_fill_input(const char *name, md_dtype t, int64_t n, uint64_t seed, void *to);

// --- executor.c ----------------------------------------------------------------------------------
typedef struct md_exec md_exec;
typedef enum md_conv_engine {
  MD_ENGINE_MODIST,
  MD_ENGINE_CUDNN,    // a GPU's convolutions are cuDNN's where that can do them (E0637, E0638)
  MD_ENGINE_FASTEST,  // where it is faster there; without it, or where it can do none, none are
  MD_NUM_ENGINES
} md_conv_engine;
extern const char *const md_conv_engine_names[MD_NUM_ENGINES + 1];  // NULL at the end
// False: reported, as the fastest one is another one in another run.
bool md_conv_engine_suits(md_conv_engine e, bool deterministic, md_diags *d);
typedef struct md_exec_options {
  const char *device;     // "cpu", "cuda:1"; NULL: the first that the program is for
  int threads;            // of the CPU; 0: all
  uint64_t seed;          // of the initial states
  bool check_nan;         // stop at the first launch that writes a NaN or infinity
  bool time;              // keep times of launches
  int64_t memory_limit;   // bytes; 0: only what the device has free
  md_conv_engine engine;  // not the fastest, where that is `deterministic`
  bool deterministic;     // plans of cuDNN are the same however much memory is free, or refused
  bool
      no_cache;  // plans of cuDNN and records are neither read from the cache folder nor written there
  bool tries_cudnn;  // of a GPU: its plans are made, but run in an order alone that names them
} md_exec_options;
typedef struct md_launch_time {
  int64_t total_ns, min_ns, calls;
} md_launch_time;

// Checks the program, the memory limit (E0803) and free memory (E0802, of a GPU E0643), allocates arena,
// states, inputs, workspace and initialises the states. `p` is borrowed. One thread at a time may use an
// executor.
md_exec *md_exec_create(const md_program *p, const md_exec_options *o, md_diags *d);
void md_exec_destroy(md_exec *e);
// Memory for the next steps' values; it keeps its place and its content.
void *md_exec_input(md_exec *e, const char *name, const md_spec **spec);  // NULL: no such input
// The state's own memory on the CPU. On a GPU a copy in the host's, brought up to date by this call if a
// step has run since the last one; what is then written there before the next step counts from that
// step on. A state that is only looked at need not go back. The copy keeps its place. NULL: there is no
// such state, or md_exec_is_alive tells why it cannot be read.
void *md_exec_state(md_exec *e, const char *name, const md_spec **spec);
const void *md_exec_view_state(md_exec *e, const char *name, const md_spec **spec);
// Of the last step. NULL as for states.
const void *md_exec_result(md_exec *e, const char *name, const md_spec **spec);
// False, reported: the device has failed, and nothing can be read from it any more.
bool md_exec_is_alive(md_exec *e, md_diags *d);
// Allocates nothing, on a GPU from the third on. False: reported, and no copy was applied; states that
// launches write in place may have been written.
bool md_exec_step(md_exec *e, md_diags *d);
// The same in two halves. Between them a GPU works, and the caller may fill the next step's inputs and
// send them on; the CPU does the step in the first half.
bool md_exec_start(md_exec *e, md_diags *d);
bool md_exec_finish(md_exec *e, md_diags *d);
bool md_exec_is_busy(const md_exec *e);  // between them: there is still something to wait for
// Inputs are as the next step is to find them, and are left alone until it starts. Not needed, but on a
// GPU they can arrive while a step runs.
bool md_exec_send(md_exec *e, md_diags *d);
// For taps: address of an argument; on a GPU of a copy, until the next call. NULL as for states.
void *md_exec_arg(md_exec *e, const md_arg *a);
// Called after (before: `before` true) each launch; for taps. NULL removes it.
typedef bool (*md_exec_tap)(void *ctx, md_exec *e, int launch, bool before);
void md_exec_set_tap(md_exec *e, md_exec_tap tap, void *ctx);
// The launches of the next steps: trials in place of what they replace, some of them several times; under a tap
// any. Or, on a GPU, that what its L2 cache holds is driven out; or, behind the last launch of the program, the
// convolution of that number by cuDNN. Borrowed; NULL: the program's.
enum { MD_EXEC_FLUSH = -1 };
void md_exec_set_order(md_exec *e, const int *launch, int num);
// ns that each of those took in the last step, if times are kept; -1: unknown.
const int64_t *md_exec_order_ns(const md_exec *e);
// The same for good, and as a part of the CUDA graph: before the first step of a GPU's program, which then has no
// times of its regions.
void md_exec_set_step(md_exec *e, const int *launch, int num);
// For taps on a GPU: whoever does not write it reads NaN there.
bool md_exec_spoil(md_exec *e, const md_arg *a, md_diags *d);
const md_launch_time *md_exec_times(const md_exec *e);  // one for each launch of the program
int md_exec_launches(const md_exec *e, int *first);     // how many of those the device does
// "cuDNN 9.19.0: 6 convolutions in place of 12 of 14 launches"; NULL: all launches are the program's own.
const char *md_exec_engine(const md_exec *e);
bool md_exec_by_engine(const md_exec *e, int launch);  // it does this one
// Under which records tell who does the program's convolution faster. False: cuDNN has no plan for it.
// What its launches run, kernels and how many blocks of them, or plans of cuDNN: equal texts compute equal bits from
// the same graph. On the CPU that is left to the graph and the target: nothing.
void md_exec_code(const md_exec *e, md_text *to);
bool md_exec_conv_key(const md_exec *e, int conv, char key[33]);
const md_gpu_variant *md_exec_variant(const md_exec *e);  // that a GPU runs; NULL: the CPU
int64_t md_exec_grown(const md_exec *e);  // resident bytes of the process since before its creation
int64_t md_exec_bytes(const md_exec *e);  // md_program_bytes with its threads
const md_program *md_exec_program(const md_exec *e);
const char *md_exec_device(const md_exec *e);  // "cpu", "cuda:0, NVIDIA H200 (sm_90)"
const char *md_exec_gpu(const md_exec *e);     // "NVIDIA H200", as records name it; empty: a CPU
// "cpu": *index is -1; "cuda", "cuda:1". False: reported (E0401).
bool md_device_parse(const char *text, int *index, md_diags *d);

// --- demand.c: the memory of a run
// All of it on so many threads (0: one for each core): arena, states, inputs, results, workspace, and
// scratch of each thread. A GPU has the inputs twice. Everything that shows or limits a plan asks here.
int64_t md_program_bytes(const md_program *p, int threads);
// The launches of its first target; programs for the CPU have one.
int md_program_launches(const md_program *p, int *first);
// What of them makes values once more, to need less memory: launches, and their share of all
// FLOPs and bytes.
typedef struct md_again {
  int launches, of;  // all
  double flops, bytes;
} md_again;
md_again md_program_again(const md_program *p);
bool md_launch_is_again(const md_launch *l);
// False: it is more than `limit` (0: no limit); reported (E0803).
bool md_program_fits(const md_program *p, int threads, int64_t limit, md_diags *d);
// A GPU has so much memory, all in all; false: reported (E0643).
bool md_program_fits_on(const md_program *p, int64_t bytes, const char *device, md_diags *d);

// --- memory.c: large buffers ---------------------------------------------------------------------
typedef struct md_block {
  void *at;
  size_t bytes;
  bool mapped;
} md_block;
// Zeroed (in the hostile build: NaN everywhere), aligned to 64 bytes, huge pages where it is large.
bool md_block_create(md_block *b, int64_t bytes);  // false: the system has no memory
void md_block_destroy(md_block *b);
int64_t md_memory_resident(void);  // of this process; 0: unknown
int64_t
md_memory_free(void);  // what the machine and the control group have left; INT64_MAX: unknown

// --- finite.c: the search for NaN and infinity ---------------------------------------------------
typedef enum md_finite {
  MD_FINITE,
  MD_MINUS_INF,   // the others are -inf
  MD_NOT_FINITE,  // NaN or inf is among them
} md_finite;
// Looks at the real elements of a float argument at `at` (not at the padding of blocks). MD_FINITE when
// all are, or it is not a float; else the text says what was found and where.
md_finite md_arg_look(const md_arg *a, const void *at, char *what, int what_size);

// --- npy.c: NumPy's file of one array ------------------------------------------------------------
// bf16 is read from and written as f32, bool as b1. The file must have the type and shape of `s`.
bool md_npy_read(const char *path, const md_spec *s, void *to, md_diags *d);
// Type and shape of what a file holds; `name` and the rest of *s are zero.
bool md_npy_shape(const char *path, md_spec *s, md_diags *d);
bool md_npy_write(const char *path, const md_spec *s, const void *from, md_diags *d);

// --- expect.c
// Each element of `at` differs from the file's by at most `tolerance` times the largest finite value in it; where the
// file has NaN or an infinity, it is the same. False: reported (E0701), or the file cannot be read.
bool md_npy_expect(const char *path, const md_spec *s, const void *at, double tolerance,
                   md_diags *d);

// --- clocks.c: how fast a device ran while it was measured
typedef struct md_clocks {
  char driver[80];                                   // "580.65.06", or what it speaks: "CUDA 13.0"
  int sm_least, sm_most, memory_least, memory_most;  // MHz; 0: not known
  int looks;      // times that somebody looked; 0: those are the highest that the device can have
  int throttled;  // of them the device held itself back
  char why[200];  // "power limit, heat"; or why nobody could look
  uint64_t reasons;  // for who looks
} md_clocks;
// "SM 1605 to 1980 MHz, memory 2619 MHz; held back in 12 of 80 steps: power limit". NULL: "not known".
enum { MD_CLOCKS_CHARS = 480 };
char *md_clocks_text(const md_clocks *c, char buf[MD_CLOCKS_CHARS]);

// --- records.c: what tuning has found, as lines of JSON
typedef struct md_record_way {
  const char *way;
  double us;  // of the region's launches; < 0: it was not measured
  double cold_us,
      warm_us;         // the same behind an empty L2 cache, and behind itself; < 0: not measured
  const char *failed;  // why; NULL: it did not
} md_record_way;
typedef struct md_record {
  const char *key, *target, *device;  // of the product; "cuda:sm_90a"; "NVIDIA H200"
  const char *region;                 // where it was met
  bool is_predicted;                  // nothing was measured
  const char *own, *best;             // ways
  double own_us, best_us;
  double own_cold_us, own_warm_us;  // as above
  const md_clocks *clocks;          // while it was measured; NULL: nobody has noted them
  bool is_checked;                  // all results were compared, at their begin and end
  md_record_way *way;               // all that were tried
  int num_ways;
} md_record;
typedef struct md_records {
  md_arena *arena;
  md_record *row;
  int num, cap;
} md_records;
md_records *md_records_create(void);
void md_records_destroy(md_records *r);
// The lines of a file behind those that there are. False: reported (E0650).
bool md_records_read(md_records *r, const char *path, md_diags *d);
void md_record_put(const md_record *r, md_text *to);                       // a line
bool md_records_save(const md_records *r, const char *path, md_diags *d);  // '-': standard output
// The records of this machine, in the cache folder: tuning.jsonl, or NULL where there is no folder.
char *md_records_path(md_arena *a);
// Those. Lines that are no records are left out, with a warning.
md_records *md_records_kept(md_diags *d);
bool md_records_keep(const md_records *r, md_diags *d);  // adds them; false: reported (E0801)
// Leaves out those that later ones stand in for, and lines that are no records. How many records went; -1:
// reported.
int md_records_compact(md_diags *d);
#define MD_OWN_ENGINE \
  "modist"  // the own way where a record tells who does a convolution faster, cuDNN or we
// "2 products, 6 other ways of them, 0 failed; 1 have a better one: 2.3 ms -> 2.2 ms", and of convolutions by cuDNN.
enum { MD_RECORDS_CHARS = 300 };
char *md_records_text(const md_records *r, char buf[MD_RECORDS_CHARS]);
// Is it a device of that name? One word, in whatever case, may stand for words in a row: "h200" for "NVIDIA
// H200", "rtx4090" for "NVIDIA GeForce RTX 4090", but "l4" not for "NVIDIA L40S".
bool md_is_named(const char *device, const char *name);
// The last one that was measured for the product on a device of that name (NULL: on any with that target),
// one of this very name sooner than others. NULL: there is none.
const md_record *md_records_find(const md_records *r, const char *target, const char *key,
                                 const char *device);
// Row i counts: none behind it is of the same product and device.
bool md_records_is_last(const md_records *r, int i);

// --- take.c: the launches of a step with the best way of each product that is among the program's trials;
// *taken: of how many another one than their own. Malloc'ed.
int *md_take_best(const md_program *p, const md_gpu_variant *v, const md_records *known,
                  const char *device, int *num, int *taken);

// --- apart.c: work in a process of its own, which ends when this one does
void *md_shared_create(int64_t bytes);  // zeroed memory that a child has in common with its parent
void md_shared_destroy(void *at, int64_t bytes);
// A child that does the work and exits with its status; -1: the system has none (errno).
int md_apart(md_status (*work)(void *ctx), void *ctx);
enum { MD_APART_LATE = -1000, MD_APART_STUCK };
// Its exit code; < 0: the signal that ended it. After *until_ns (NULL: whenever) it is killed: LATE, or STUCK,
// when the driver does not let go of it.
int md_apart_wait(int child, const _Atomic int64_t *until_ns);

// --- tune.c: trials on a device
enum { MD_TUNE_LEAST_ROUNDS = 3, MD_TUNE_ROUNDS = 7, MD_TUNE_SECONDS = 600 };
typedef struct md_tune_options {
  md_exec_options exec;  // MD_ENGINE_FASTEST: convolutions by cuDNN are measured, too, where it is
  double seconds;        // for all of it, about
  int rounds;            // steps with each way, at most; MD_TUNE_LEAST_ROUNDS or more
  bool (*set_inputs)(void *ctx, md_exec *e, md_diags *d);
  void (*told)(void *ctx, int step, int of);  // of progress; may be NULL
  void *ctx;
} md_tune_options;
// What an input that nobody gives is: as md_fill_input has it, but a single float is a rate, 0.001: with any
// number there states would grow beyond all bounds.
void md_tune_input(const md_spec *s, uint64_t seed, void *to);
// Measures, for each product of the program that has trials for this device, each of its ways within the
// step, and adds a record; then the same for cuDNN's plans. Ways that fail, hang, or whose results differ, are named
// there and left out. False: reported (E0448: nothing is to be tried); what enough rounds had measured by then is
// there all the same.
// The driver is used in other processes alone: this one must not have used it.
bool md_tune(const md_program *p, const md_tune_options *o, md_records *to, md_diags *d);
// The version of cuDNN, as it has it; 0: it is not here. Asked apart, like the driver.
int md_tune_cudnn(void);
// The same from the program's predictions, where there is no device.
bool md_tune_predicted(const md_program *p, md_records *to, md_diags *d);

// --- trace.c: Chrome / Perfetto JSON of what ran when --------------------------------------------
typedef struct md_trace md_trace;
enum { MD_TRACE_SPANS = 1 << 20 };  // later ones are only counted
// Tracks: 0 is the caller's thread, then those that help it; and what a GPU does.
enum { MD_TRACE_GPU = -1, MD_TRACE_SENDER = -2 };
md_trace *md_trace_create(void);
void md_trace_destroy(md_trace *t);
// Thread-safe, allocates nothing. Name and kind are borrowed until the trace is destroyed.
void md_trace_span(md_trace *t, const char *name, const char *kind, int thread, int64_t start_ns,
                   int64_t end_ns);
// What part of the time from the first launch to the end of the last one the threads had items; 0: none had any.
double md_trace_busy(const md_trace *t);
bool md_trace_save(const md_trace *t, const char *path,
                   md_diags *d);  // no span may be in the making
// Launches on thread 0's track, the share of every thread on its own; of a GPU on two tracks of its own,
// launches and inputs on their way. NULL removes it.
void md_exec_set_trace(md_exec *e, md_trace *t);

#endif
