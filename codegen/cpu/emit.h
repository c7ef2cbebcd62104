// SPDX-License-Identifier: Apache-2.0
// Inside the CPU back end: the map of this folder, a section for each file. Only this folder sees
// it.
//
// A region becomes a launch: one or more phases, each a function
//   void sym(void *const *arg, int64_t item, void *scratch)
// with a fixed number of items. What an item computes does not depend on threads; sums over items
// go through partials in the workspace and a last phase that adds them in a fixed order.
//
// Memory rule of this back end: the padding lanes of every blocked tensor hold zeros.
#ifndef CODEGEN_CPU_EMIT_H
#define CODEGEN_CPU_EMIT_H

#include "codegen/cpu/cpu.h"
#include "codegen/region.h"

#include <llvm-c/Core.h>

typedef LLVMValueRef md_ir;  // an LLVM value

// --- emit.c: types, constants, arithmetic --------------------------------------------------------
// Compute types: f32, bf16 -> float; f64 -> double; i32, u8, bool -> i32; i64 -> i64. A value of
// one lane is a scalar, of more lanes a vector <lanes x T>. Every helper takes either.

typedef struct md_emit {
  LLVMContextRef ctx;
  LLVMModuleRef mod;
  LLVMBuilderRef b;
  md_ir fn;                 // function being built
  LLVMBasicBlockRef entry;  // its allocas and arguments
  LLVMTypeRef i1, i8, i16, i32, i64, f32, f64, ptr, void_;
  const md_cpu *cpu;
  unsigned invariant_kind, nontemporal_kind;  // of metadata
  bool needs_fence;  // a store of this function may be seen after later ones
} md_emit;
// An empty module of its own context.
md_emit md_emit_open(const md_cpu *cpu, const char *name);
void md_emit_close(md_emit *e);

LLVMTypeRef md_compute_type(const md_emit *e, md_dtype d);  // scalar
LLVMTypeRef md_memory_type(const md_emit *e, md_dtype d);   // bf16 -> i16, bool -> i8
LLVMTypeRef md_lanes_type(LLVMTypeRef scalar, int lanes);
int md_lanes_of(md_ir v);  // 1 for a scalar
LLVMTypeRef md_scalar_type(md_ir v);

md_ir md_i64(const md_emit *e, int64_t x);
md_ir md_i32(const md_emit *e, int32_t x);
md_ir md_const_like(const md_emit *e, md_ir v, double x);  // of v's type, splat
md_ir md_const(const md_emit *e, LLVMTypeRef scalar, int lanes, double x);
md_ir md_zero(LLVMTypeRef type);
md_ir md_splat(md_emit *e, md_ir scalar, int lanes);
md_ir md_iota(const md_emit *e, LLVMTypeRef scalar, int lanes, int64_t start, int64_t step);
md_ir md_get_lane(md_emit *e, md_ir v, int lane);  // v itself for a scalar
md_ir md_set_lane(md_emit *e, md_ir v, int lane, md_ir x);
md_ir md_shuffle(md_emit *e, md_ir a, md_ir b, const int *lane, int lanes);  // b may be NULL

// Rows of v[lanes] become columns.
void md_turn_lanes(md_emit *e, md_ir *v, int lanes);

// Index arithmetic on i64: folds constants, so that shapes disappear.
md_ir md_iadd(md_emit *e, md_ir a, md_ir b);
md_ir md_isub(md_emit *e, md_ir a, md_ir b);
md_ir md_imul(md_emit *e, md_ir a, md_ir b);
md_ir md_iaddc(md_emit *e, md_ir a, int64_t b);
md_ir md_imulc(md_emit *e, md_ir a, int64_t b);
md_ir md_idivc(md_emit *e, md_ir a, int64_t b);  // a >= 0, b > 0
md_ir md_imodc(md_emit *e, md_ir a, int64_t b);
md_ir md_imin(md_emit *e, md_ir a, md_ir b);  // signed
md_ir md_imax(md_emit *e, md_ir a, md_ir b);
md_ir md_ilt(md_emit *e, md_ir a, md_ir b);  // i1, signed
md_ir md_ieq(md_emit *e, md_ir a, md_ir b);

// Floats, scalar or vector.
md_ir md_fadd(md_emit *e, md_ir a, md_ir b);
md_ir md_fsub(md_emit *e, md_ir a, md_ir b);
md_ir md_fmul(md_emit *e, md_ir a, md_ir b);
md_ir md_fdiv(md_emit *e, md_ir a, md_ir b);
md_ir md_fneg(md_emit *e, md_ir a);
md_ir md_fma(md_emit *e, md_ir a, md_ir b, md_ir c);  // a*b + c; fused where the target can
md_ir md_fmax(md_emit *e, md_ir a, md_ir b);          // a NaN wins
md_ir md_fmin(md_emit *e, md_ir a, md_ir b);
md_ir md_flt(md_emit *e, md_ir a, md_ir b);  // ordered
md_ir md_select(md_emit *e, md_ir cond, md_ir a, md_ir b);
md_ir md_intrinsic(md_emit *e, const char *name, md_ir *arg, int num, LLVMTypeRef overload);
// To float, double, i32 or i64 `scalar`. Floats to integers go toward zero and saturate.
md_ir md_convert(md_emit *e, md_ir v, LLVMTypeRef scalar);
md_ir md_hsum(md_emit *e, md_ir v);  // fixed tree: halves, quarters, ...
md_ir md_hmax(md_emit *e, md_ir v);
md_ir md_round_bf16(md_emit *e, md_ir v);  // float -> nearest bf16, as float
// acc[i] + a[2i]*b[2i] + a[2i+1]*b[2i+1], for targets with bf16_dot. a, b: pairs of bf16 in lanes of i32.
md_ir md_bf16_dot(md_emit *e, md_ir acc, md_ir a, md_ir b);
md_ir md_bf16_pair(md_emit *e, md_ir low, md_ir high);  // floats that are bf16 -> lanes of i32
// Lanes of i64: the 32 bits of two lanes each. As floats of twice the lanes, and the sum of each pair of those.
md_ir md_pair_lanes(md_emit *e, md_ir low, md_ir high);
md_ir md_f32_of_pairs(md_emit *e, md_ir pairs);
md_ir md_add_pairs(md_emit *e, md_ir v);

// --- memory.c: loads and stores ------------------------------------------------------------------
// `offset` counts elements; `mask` <lanes x i1> or NULL: all lanes. Lanes that are off read
// as zero. Loads give the compute type; stores take it and convert (bf16: round to nearest even).
md_ir md_at(md_emit *e, md_dtype d, md_ir ptr, md_ir offset);  // address
md_ir md_load(md_emit *e, md_dtype d, md_ir ptr, md_ir offset, int lanes, md_ir mask);
void md_store(md_emit *e, md_dtype d, md_ir ptr, md_ir offset, md_ir v, md_ir mask);
// A whole line of MD_LINE bytes, past the caches: what lay there is not read first. Needs md_fence.
enum { MD_LINE = 64 };
void md_store_line(md_emit *e, md_dtype d, md_ir ptr, md_ir offset, md_ir v);
void md_fence(md_emit *e);  // behind it other threads may read what was stored
md_ir md_gather(md_emit *e, md_dtype d, md_ir ptr, md_ir offsets, md_ir mask);  // <lanes x i64>
void md_scatter(md_emit *e, md_dtype d, md_ir ptr, md_ir offsets, md_ir v, md_ir mask);
void md_prefetch(md_emit *e, md_dtype d, md_ir ptr, md_ir offset);  // any offset: nothing faults
md_ir md_invariant(md_emit *e, md_ir load);  // nothing writes there while the function runs
md_ir md_first_lanes(md_emit *e, md_ir count, int lanes);  // mask: lane < count (i64)

// --- flow.c: control flow ------------------------------------------------------------------------
// A loop runs i = begin, begin+step, ... < end; what it carries lives in variables.
typedef struct md_loop {
  md_ir i, end;
  int64_t step;
  LLVMBasicBlockRef body, exit;
} md_loop;
md_loop md_loop_begin(md_emit *e, md_ir begin, md_ir end, int64_t step, const char *name);
void md_loop_end(md_emit *e, md_loop *l);
typedef struct md_if {
  LLVMBasicBlockRef other, join;
  bool has_else;
} md_if;
md_if md_if_begin(md_emit *e, md_ir cond, const char *name);
void md_if_else(md_emit *e, md_if *f);
void md_if_end(md_emit *e, md_if *f);
// A variable: an alloca of the entry block that becomes a register. `init` NULL: unset.
typedef struct md_var {
  md_ir at;
  LLVMTypeRef type;
} md_var;
md_var md_var_new(md_emit *e, LLVMTypeRef type, md_ir init, const char *name);
md_ir md_get(md_emit *e, md_var v);
void md_set(md_emit *e, md_var v, md_ir x);

// --- math.c: exp, log, ... as polynomials (no libm), scalar or vector, float or double -----------
md_ir md_exp_of(md_emit *e, md_ir x);  // 1 ulp or so; -inf -> 0, +inf -> inf
md_ir md_log_of(md_emit *e, md_ir x);  // 0 -> -inf, < 0 -> NaN
md_ir md_log1p_of(md_emit *e, md_ir x);
md_ir md_tanh_of(md_emit *e, md_ir x);
md_ir md_sqrt_of(md_emit *e, md_ir x);  // correctly rounded
md_ir md_floor_of(md_emit *e, md_ir x);
md_ir md_random_of(md_emit *e, md_ir key, md_ir index, LLVMTypeRef scalar);  // md_hash_01; i64 in

// --- kernel.c: the compile context of one region -------------------------------------------------

typedef struct md_kernel {
  md_emit e;
  const md_region_view *r;  // what is being emitted: `whole`, or one node of it
  const md_region_view *whole;
  md_arena *arena;     // of this compilation
  const char *symbol;  // phases are symbol_0_what, symbol_1_what, ...
  bool asan;
  bool in_f32;  // the emitted kernel multiplies f32, whatever it reads
  md_phase *phase;
  int num_phases, cap_phases;
  int64_t workspace_bytes;
  LLVMBasicBlockRef body;  // first block of the current phase; NULL between phases
  md_ir item, scratch;     // of the current phase
  md_ir *arg_ptr;          // loaded pointers of the current phase, by argument number
  // Values of the region that lie in memory by now: in the workspace, or (place -1) as outputs.
  struct md_made {
    md_val val;
    int64_t place;
    bool ready;
  } *made;
  int num_made, cap_made;
} md_kernel;
// Gives v, a value inside the region, memory in the workspace unless it is an output.
void md_kernel_place(md_kernel *k, md_val v);
void md_kernel_ready(md_kernel *k, md_val v);  // v is in memory: later phases load it
bool md_kernel_is_ready(const md_kernel *k, md_val v);

// Begins a phase; k->item (i64) and k->scratch are then set. `what` is a word for the symbol's
// reader.
void md_phase_begin(md_kernel *k, const char *what, int64_t items, int64_t scratch_bytes);
void md_phase_end(md_kernel *k);
md_ir md_kernel_arg(md_kernel *k, md_val v);          // address of a region input or output
bool md_kernel_writes(const md_kernel *k, md_val v);  // is v's memory written by this launch?
// Reserves workspace (aligned to 64) that lives through all phases of the launch; its address.
int64_t md_workspace_reserve(md_kernel *k, int64_t bytes);
md_ir md_workspace(md_kernel *k, int64_t place);
// Cuts `total` units into items of `*per_item` units, at most `max_items`; returns how many items.
int64_t md_split_items(int64_t total, int64_t max_items, int64_t *per_item);
// Mixed-radix: item -> indices, the last varies fastest.
void md_split_index(md_emit *e, md_ir item, int n, const int64_t *size, md_ir *index);

// --- body.c: what a value is at a place ----------------------------------------------------------

// A place in a value's index space. `at[i]`: index on axis i (i64), that of lane 0 on the lane
// axis, where it is a multiple of `lanes`. Axes tail..rank-1 may be merged: then at[tail] is the
// row-major index over all of them, at[tail+1..] are NULL and the lane axis, if any, is tail or
// before it.
typedef struct md_point {
  int rank;
  md_ir at[MD_MAX_RANK];
  int tail;       // rank: nothing is merged
  int lane_axis;  // -1: one lane
  int lanes;      // 1: scalars
  int64_t step;   // from a lane to the next, lane 0 anywhere; 0: 1, lane 0 at a multiple of `lanes`
  md_ir mask;     // <lanes x i1>, NULL: all lanes exist
} md_point;
// All of `at` given, nothing merged. lanes = 1: lane_axis is ignored.
md_point md_point_of(int rank, md_ir *at, int lane_axis, int lanes, md_ir mask);

// Values of the region (and of its inputs) at points. Remembers what it made, so one body serves
// the code between md_body_reset's: reset it when control flow leaves the block that made its
// values.
typedef struct md_body {
  md_kernel *k;
  struct md_memo *memo;
  int num_memo, cap_memo;  // in k->arena
  // Values given by md_body_set, whatever the point.
  struct {
    md_val val;
    md_ir ir;
  } given[16];
  int num_given;
} md_body;
void md_body_init(md_body *b, md_kernel *k);
void md_body_reset(md_body *b);                       // forgets memo and given values
void md_body_set(md_body *b, md_val v, md_ir value);  // v (the anchor) at the point now evaluated
// v at p, in v's compute type. Masked lanes are unspecified (made from zeros).
md_ir md_body_value(md_body *b, md_val v, const md_point *p);
// Stores into v's memory: converts to the dtype, respects the layout, zeroes masked lanes of
// blocked tensors and leaves those of row-major ones alone.
void md_body_store(md_body *b, md_val v, const md_point *p, md_ir value);

// --- reduce.c: what reductions add up ------------------------------------------------------------
// One or two quantities a result element, in double or, as far as that is exact enough, in f32: `type`.
enum { MD_MAX_QUANTITIES = 2 };
int md_reduce_quantities(const md_node *n);
md_ir md_reduce_neutral(md_emit *e, const md_node *n, LLVMTypeRef type, int lanes);
md_ir md_reduce_join(md_emit *e, const md_node *n, md_ir a, md_ir b);
// What the operands at p (a place in the shape of the first) contribute.
void md_reduce_terms(md_body *b, const md_node *n, const md_point *p, LLVMTypeRef type,
                     md_ir *term);
// Totals over `count` elements -> results, stored at p (a place in the results' shape).
void md_reduce_store(md_body *b, const md_node *n, int64_t count, const md_point *p,
                     const md_ir *total);

// --- stream.c: pointwise, view and reduce nodes --------------------------------------------------
// Emits the phases that bring `vals` (and the reductions they need) into memory.
void md_materialise(md_kernel *k, const md_val *vals, int num);

// --- sums.c: per-channel reductions in an epilogue -----------------------------------------------
// Reduce nodes over [n,c,*] that keep c (or group and c): moments, batch_norm_sums, sum over all
// axes but c. Lanes are channels. Partials in double for each (channel block, sample, part).
typedef struct md_sums md_sums;
// NULL when no node of the region reduces. `parts`: into how many the work on a sample is cut.
// `max_blocks`: channel blocks that one item works on between clear and store.
md_sums *md_sums_create(md_kernel *k, int64_t parts, int max_blocks);
const char *md_sums_refuse(const md_region_view *r);  // NULL: every reduction of r is of this kind
// All take NULL and then do nothing.
void md_sums_clear(md_sums *s, int blocks);                              // inside a phase
void md_sums_add(md_sums *s, int block, md_body *b, const md_point *p);  // values at p join
void md_sums_row(md_sums *s, int blocks);  // a row of pixels is complete
void md_sums_store(md_sums *s, int block, md_ir n, md_ir channel_block, md_ir part);
void md_sums_finish(md_sums *s);  // after the last phase: the phase that merges and stores results

// --- lower.c: choosing a kernel ------------------------------------------------------------------
// An ordered list of rows; the first without an objection emits. Each file below exports its rows,
// ended by one without a name.
typedef struct md_lowering {
  const char *name;
  // NULL: takes it; else why not ("" when the region is none of its business).
  const char *(*refuse)(const md_region_view *r, const md_cpu *cpu);
  void (*emit)(md_kernel *k);
} md_lowering;
extern const md_lowering md_conv_rows[];    // conv.c
extern const md_lowering md_matmul_rows[];  // matmul.c
extern const md_lowering md_nce_rows[];     // nce.c
extern const md_lowering md_pool_rows[];    // pool.c
extern const md_lowering md_row_rows[];     // rows.c
extern const md_lowering md_move_rows[];    // move.c
extern const md_lowering md_image_rows[];   // image.c
extern const md_lowering md_stream_rows[];  // stream.c
// The target with the vectors that all blocks of the region's tensors are multiples of.
const md_cpu *md_lanes_for(const md_region_view *r, const md_cpu *cpu);
const md_lowering *md_lower(const md_region_view *r, const md_cpu *cpu, md_text *refusals);

// --- cost.c: what a region has to do -------------------------------------------------------------
md_cpu_work md_work_of(const md_region_view *r, bool in_f32, const md_cpu *cpu);

// --- jit.c: modules to code ----------------------------------------------------------------------
typedef struct md_object {
  char *data;
  size_t bytes;
} md_object;  // malloc'ed
// Optimises and compiles `mod`. False: reported.
bool md_object_compile(LLVMModuleRef mod, const md_cpu *cpu, bool asan, md_object *out,
                       md_cpu_report *report, md_diags *d);
bool md_module_setup(LLVMModuleRef mod, const md_cpu *cpu, md_diags *d);  // triple, data layout
bool md_assembly_text(LLVMModuleRef mod, const md_cpu *cpu, md_text *to, md_diags *d);
// Takes the objects' bytes by copy. NULL: reported.
void *md_jit_load(const md_object *objects, int num, md_diags *d);
void *md_jit_lookup(void *jit, const char *symbol);
const char *md_jit_reason(const void *jit);  // why a lookup failed, in LLVM's words
void md_jit_free(void *jit);

// --- link.c: objects to a shared object by ld.lld ------------------------------------------------
bool md_link_image(const md_object *objects, int num, md_arena *a, const void **image,
                   size_t *bytes, md_diags *d);

#endif
