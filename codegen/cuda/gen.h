// SPDX-License-Identifier: Apache-2.0
// Inside the CUDA back end: how a region becomes text. The map of this folder's generator, a section
// for each file.
//
// A region becomes one or more kernels. A kernel is a function whose arguments are pointers, and counts of
// what depends on the batch (md_cu_count), so that batches share kernels; all other shapes are numbers in
// its text. Kernel text keeps to the common subset of C11 and CUDA C++, and everything
// that only a GPU has is a name of the prelude, so that the same text also runs on the host (tests).
#ifndef CODEGEN_CUDA_GEN_H
#define CODEGEN_CUDA_GEN_H

#include "codegen/cuda/cuda.h"
#include "codegen/region.h"

enum {
  MD_CU_THREADS = 256,  // of a block; where it has more, of those that do one thing together
  MD_CU_WARPS = MD_CU_THREADS / 32,
  MD_CU_BLOCKS = 2048,  // of a kernel that strides over its elements: several waves on any device
  MD_CU_TWIN_WEIGHTS = 1 << 14,  // whose gradient the registers of a block hold: 64 a thread
  MD_CU_WGMMA_LEAST = 64,  // rows, columns and terms of a product: with fewer, wgmma is mostly idle
  MD_CU_TAPS_FORMED =
      256,  // columns whose product hides that the source is formed for each tap (target.c)
  MD_CU_MAX_ARGS = 500,     // 4 KiB of pointers and counts are what a launch takes
  MD_CU_PLACE_ALIGN = 256,  // of places in the workspace
};

// --- region.c: what the generator asks of a region ------------------------------------------------

bool md_cu_is_wide(const md_region_view *r);  // an index may not fit into an int
// The region reads or writes a state of as many elements: then that is not because of the batch.
bool md_cu_is_of_state(const md_region_view *r, const md_shape *s);
// How the results of an op come about that is neither pointwise nor a view nor a reduction.
struct md_cu_work;
typedef struct md_cu_op {
  void (*emit)(struct md_cu_work *w, const md_node *n);  // kernels of its own
  bool is_value;   // gather.c, pool.c say what a result is at a place
  bool is_long;    // and take a loop for it
  bool is_narrow;  // f32 and bf16 alone
  int reads;       // of an element of an operand, about; 0: one
  bool places;     // emit places what it leaves in memory, and makes of the rest what it can
} md_cu_op;
const md_cu_op *md_cu_op_of(md_op op);  // NULL: there is no kernel yet
// What of a region has no kernel yet; NULL: everything has one. In `a`.
const char *md_cu_refuse(const md_region_view *r, md_arena *a);

// --- kernel.c: kernels in the making ---------------------------------------------------------------

// A value of the region that is made in memory: an output, or a place in the workspace.
typedef struct md_cu_made {
  md_val val;
  int64_t place;
  bool ready;
} md_cu_made;  // place -1: output

// All kernels of one region.
typedef struct md_cu_work {
  const md_region_view *r;
  bool wide;  // its indices need 64 bits
  md_cuda_arch arch;
  md_arena *arena;
  md_cuda_module *module;
  md_printer *printer;        // of nodes, for comments
  struct md_cu_names *names;  // texts of kernels so far, so that equal ones are one
  md_cu_made *made;
  int num_made, cap_made;
  const md_cuda_schedule *schedule;  // of the anchor, one of its ways; NULL: the generator's own
  struct md_cu_ways *ways;           // wanted, its own first; NULL: nobody asks
} md_cu_work;
// target.c: bytes of shared memory that a block may have on every device of the target's kind.
int md_cu_shared_limit(const md_cu_work *w);

int64_t md_cu_reserve(md_cu_work *w, int64_t bytes);  // a place in the workspace, its alone so far
void md_cu_place(md_cu_work *w, md_val v);            // memory for v: output or workspace
void md_cu_ready(md_cu_work *w, md_val v);            // v is in memory: later kernels load it
bool md_cu_is_ready(const md_cu_work *w, md_val v);

// A run of lines and the names that hold in it. Lines go into two texts: as printed, and without
// comments (what equal kernels share).
typedef struct md_cu_stream {
  md_text text, code;
  int indent;
  struct md_cu_named *named;
  int num_named, cap_named;  // index texts that have a name
  struct md_cu_memo *memo;
  int num_memo, cap_memo;  // values at places
} md_cu_stream;

// One kernel.
typedef struct md_cu_kernel {
  md_cu_work *w;
  const char *what;  // a word for the reader: "walk", "merge"
  md_cu_stream now;  // where lines go
  int num_index, num_value;
  struct md_cu_lanes *lanes;  // values are made for eight channels at once; NULL: one by one
  md_cuda_arg *arg;
  const char **arg_type;
  int num_args, cap_args;
  int64_t *count;
  const char **count_name;
  int num_counts, cap_counts;
  int threads;       // of a block; other than MD_CU_THREADS: it has the multiprocessor for itself
  const char *sync;  // a barrier of all of them, or of those that do the same
  int shared_bytes;
  double work;  // its share of what the region computes, in any unit; 0 in all: by bytes
  bool is_early, is_beside,
      is_told;  // as in its launch; is_told once it has a count, unless one says else
} md_cu_kernel;
void md_cu_begin(md_cu_kernel *k, md_cu_work *w, const char *what);
void md_cu_end(md_cu_kernel *k, int64_t blocks);  // writes it, or finds its equal; launches it
// One line at the current depth; `comment` may be NULL.
void md_cu_line(md_cu_kernel *k, const char *comment, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
// "for (...) {": what is named inside is forgotten at the end.
typedef struct md_cu_mark {
  int named, memo;
  const char *end;  // of the scope; NULL: "}"
} md_cu_mark;
md_cu_mark md_cu_open(md_cu_kernel *k, const char *comment, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void md_cu_close(md_cu_kernel *k, md_cu_mark mark);
// Opens a loop over elements e of `num`, a thread of the grid each; *blocks is what md_cu_end takes.
// `is_fixed`: whatever the batch, so it is a number.
md_cu_mark md_cu_open_elements(md_cu_kernel *k, int64_t num, bool is_fixed, int64_t *blocks);
const char *md_cu_counter(md_cu_kernel *k);  // a fresh name for the index of a loop
// Name of the pointer to v's memory / to a place of the workspace with elements of C type `type`.
const char *md_cu_pointer(md_cu_kernel *k, md_val v, bool write);
const char *md_cu_workspace(md_cu_kernel *k, int64_t place, int64_t bytes, const char *type,
                            bool write);
// Of a tensor map of v.
const char *md_cu_tensor_map(md_cu_kernel *k, md_val v, const md_windows *windows);
// Name of a variable that the launch says the value of: what follows from the number of samples. A name has
// one value in a kernel.
const char *md_cu_count(md_cu_kernel *k, const char *name, int64_t value);
// The same, but a number where no int holds it.
const char *md_cu_extent(md_cu_kernel *k, const char *name, int64_t value);
// The same, named by its value: for what a kernel may have several of.
const char *md_cu_told(md_cu_kernel *k, int64_t value);
// A positive float that follows from the number of samples, to multiply with.
const char *md_cu_factor(md_cu_kernel *k, double value);
const char *md_cu_index_type(const md_cu_kernel *k);         // "int" or "md_i64"
const char *md_cu_comment(const md_cu_kernel *k, md_val v);  // "%name", safe in a comment

// --- place.c: indices and places -------------------------------------------------------------------

// Text of an index: a number or a name. Sums and products fold numbers and get names of their own.
typedef const char *md_cu_ix;
md_cu_ix md_cu_number(md_cu_kernel *k, int64_t x);
md_cu_ix md_cu_name(md_cu_kernel *k, const char *text);  // names a text once; text in the arena
bool md_cu_is_named(const md_cu_kernel *k, md_cu_ix x);  // by that, in the current stream
// plus + sum of ix[i] * by[i]
md_cu_ix md_cu_linear(md_cu_kernel *k, int n, const md_cu_ix *ix, const int64_t *by, int64_t plus);
md_cu_ix md_cu_digit(md_cu_kernel *k, md_cu_ix x, int64_t div,
                     int64_t mod);  // x / div % mod; mod 0: none

bool md_cu_known(md_cu_ix x, int64_t *number);  // is it a number?

// A place in the index space `shape`: the row-major index, the row-major index over all axes but
// channels (then at[1] is set), the index on each axis, or several of them; what is missing (NULL) is
// made when somebody asks, and named there: ask before a scope opens that ends earlier.
typedef struct md_cu_spot {
  const md_shape *shape;
  md_cu_ix flat, pixel, at[MD_MAX_RANK];
} md_cu_spot;
md_cu_spot md_cu_spot_flat(const md_shape *s, md_cu_ix flat);
// The e-th place of a tensor in the order of its memory, padding of channels left out.
md_cu_spot md_cu_spot_memory(md_cu_kernel *k, const md_type *t, md_cu_ix e);
// The place s with `at` on one axis, in an operand that differs from s's shape on that axis.
md_cu_spot md_cu_spot_moved(md_cu_kernel *k, md_cu_spot *s, const md_shape *in, int axis,
                            md_cu_ix at);
md_cu_ix md_cu_axis(md_cu_kernel *k, md_cu_spot *s, int axis);
md_cu_ix md_cu_flat(md_cu_kernel *k, md_cu_spot *s);
bool md_cu_spot_equal(const md_cu_spot *a, const md_cu_spot *b);
// Operand i of a pointwise node / the operand of a view, for the result at s.
md_cu_spot md_cu_spot_operand(md_cu_kernel *k, const md_node *n, int i, md_cu_spot *s);
md_cu_spot md_cu_spot_view(md_cu_kernel *k, const md_node *n, md_cu_spot *s);
md_cu_ix md_cu_offset(md_cu_kernel *k, const md_type *t, md_cu_spot *s);  // in memory, elements

// --- formula.c: scalar formulas as text ------------------------------------------------------------

// Compute types: f32, bf16 -> float; f64 -> double; i32, u8, bool -> int; i64 -> md_i64; comparisons ->
// a condition.
typedef enum md_cu_type { MD_CU_FLOAT, MD_CU_DOUBLE, MD_CU_INT, MD_CU_LONG, MD_CU_COND } md_cu_type;
typedef struct md_cu_term {
  const char *text;
  md_cu_type type;
  bool known;
  double number;
  bool by_channel;  // with lanes: made once for each channel, in the stream of the table
} md_cu_term;
md_cu_type md_cu_compute_type(md_dtype d);
const char *md_cu_type_name(md_cu_type t);  // "float"
const char *md_cu_memory_type(md_dtype d);  // "md_bf16"
const char *md_cu_literal(md_arena *a, md_cu_type t, double x);
const char *md_cu_as(md_arena *a, const md_cu_term *t, md_cu_type to);
// Steps of n's formula; arg[i]: operand i. The results, in the compute type of each. `s` is asked for
// the row-major index where the formula draws random numbers.
void md_cu_formula(md_cu_kernel *k, const md_node *n, const md_cu_term *arg, md_cu_spot *s,
                   md_cu_term *result);

// --- body.c: what a value is at a place ------------------------------------------------------------

md_cu_term md_cu_value(md_cu_kernel *k, md_val v, md_cu_spot *s);
void md_cu_know(md_cu_kernel *k, md_val v, const md_cu_spot *s, md_cu_term t);  // v is t at s
const char *md_cu_value_as(md_cu_kernel *k, md_val v, md_cu_spot *s, md_cu_type type);
// Declares a variable; `init` NULL: without a value.
const char *md_cu_variable(md_cu_kernel *k, md_cu_type type, const char *init);
const char *md_cu_sum(md_cu_kernel *k);                                      // a double that is 0
const char *md_cu_from_double(md_cu_kernel *k, md_val v, const char *text);  // to v's compute type
void md_cu_store(md_cu_kernel *k, md_val v, md_cu_spot *s,
                 const char *text);  // in v's compute type

// --- gather.c, pool.c: results of data movement and pooling at a place ------------------------------

// Texts in the compute types of n's results.
void md_cu_gather(md_cu_kernel *k, const md_node *n, md_cu_spot *s, const char **result);
bool md_cu_is_pool(md_op op);
void md_cu_pool(md_cu_kernel *k, const md_node *n, md_cu_spot s, const char **result);
void md_cu_push(struct md_cu_work *w, const md_node *n);  // bank_push over its own operand

// --- lanes.c: eight neighbouring channels at once ---------------------------------------------------
//
// Activations keep their channels innermost, so a thread takes eight channels of a pixel with one
// load. The text for them is made in streams, which the caller puts where they belong:
//   table  once for each channel: what depends on the channel alone; it is kept in shared memory
//   load   once for each vector: loads
//   before once for each vector: loops, with loops over the channels inside
//   lane   once for each channel of a vector: formulas
enum { MD_CU_LANES = 8 };
typedef struct md_cu_lanes {
  int64_t channels, groups;  // of the values; statistics may differ by group of samples
  const char *first;         // name of the vector's first channel
  const char *group;         // name of its group, or "0"
  const char *row;  // "[i]" where vectors of several rows are kept; "" where they are used at once
  const char *prefix;  // of names; the table is PREFIXtable: float [slot][half]
                       // [group][vector][4]: halves of vectors, so that banks are shared out
  md_cu_stream table, load, before, lane, outside;
  struct md_cu_lanes *around;  // that these are an inner loop of
  bool is_line;       // the lanes are neighbours on the last axis of tensors that lie in order
  bool is_scattered;  // something that differs from lane to lane is no vector
  bool in_table, no_table;  // no_table: what depends on the channel is made for each element
  int num_vectors;          // of a row that is kept
  md_val vector;            // that the last of them is of
  md_cu_spot vector_at;     // and where
  const char **vector_type;
  const char **slot;  // text of the value in each slot of the table
  int num_slots, cap_vectors, cap_slots;
} md_cu_lanes;
// Between the two, values are made for the channel MD_CU_CHANNEL of a vector, at spots whose index on
// axis 1 is that text.
#define MD_CU_CHANNEL "c"
// With lanes along a line: x is the lane's own index, and that of its mirror image on an axis of `size`.
bool md_cu_is_lane(const md_cu_kernel *k, md_cu_ix x);
md_cu_ix md_cu_mirrored(const md_cu_kernel *k, int64_t size);
void md_cu_lanes_begin(md_cu_kernel *k, md_cu_lanes *l);
void md_cu_lanes_end(md_cu_kernel *k);
void md_cu_lanes_free(md_cu_lanes *l);
// v depends on the channel alone, at s.
bool md_cu_by_channel(const md_cu_kernel *k, md_val v, const md_cu_spot *s);
void md_cu_enter_table(md_cu_kernel *k);
void md_cu_leave_table(md_cu_kernel *k);
md_cu_spot md_cu_table_spot(const md_cu_kernel *k, md_val v);
// The table's value as the lanes have it.
md_cu_term md_cu_carry(md_cu_kernel *k, const md_cu_term *t);
bool md_cu_is_vector(const md_type *t);           // it lies in vectors of eight channels
const char *md_cu_vector_kind(const md_type *t);  // "h8": md_h8; NULL: there is none
const char *md_cu_made_kind(const md_type *t);    // of one that is made lane by lane
void md_cu_make_lane(md_cu_kernel *k, md_val v, const char *made, const char *text);
void md_cu_put_vector(md_cu_kernel *k, md_val v, md_cu_spot *s, const char *made);  // to memory
// Text of lane j of v's vector at s, in its compute type; NULL: v does not lie in vectors there.
const char *md_cu_vector(md_cu_kernel *k, md_val v, const md_cu_spot *s);
// Where the streams go. The table takes md_cu_table_bytes of shared memory.
int md_cu_table_bytes(const md_cu_lanes *l);
void md_cu_put_table(md_cu_kernel *k, const md_cu_lanes *l);
// Declares them.
void md_cu_put_vectors(md_cu_kernel *k, const md_cu_lanes *l, int rows, bool cleared);
int md_cu_vector_words(const md_cu_lanes *l);  // registers that a row of them takes
void md_cu_put_loads(md_cu_kernel *k, const md_cu_lanes *l);
void md_cu_put_lanes(md_cu_kernel *k, const md_cu_lanes *l);
// The two parts of that: what the table has for the vector's channels; the formulas.
void md_cu_put_slots(md_cu_kernel *k, const md_cu_lanes *l);
void md_cu_put_channels(md_cu_kernel *k, const md_cu_lanes *l);
// What takes a loop for a value does so in front of the lanes, for all of them, so that what it loads
// are vectors. False: it cannot, as s or the lanes are not such.
bool md_cu_enter_before(md_cu_kernel *k, const md_cu_spot *s);
void md_cu_leave_before(md_cu_kernel *k);
// Between the two, in such a loop: what is done for each channel, j of the vector.
void md_cu_open_lanes(md_cu_kernel *k, md_cu_lanes *inner);
void md_cu_close_lanes(md_cu_kernel *k);
void md_cu_splice(md_cu_kernel *k, const md_cu_stream *s);     // its lines, at the current depth
md_cu_term md_cu_plain(md_cu_kernel *k, const md_cu_term *t);  // carried, if it is by channel

// --- reduce.c: reductions over a walk --------------------------------------------------------------

enum { MD_CU_FEW_CHANNELS = 4 };  // that a thread takes at once where they are made of one another
// A walk over all places of `shape`: values stored there, reductions over the axes not in `kept`
// (bit i: axis i; with `channels`: group and channel are kept, a group being samples in a row). A value may
// have few channels where `shape` has one: all of them are stored.
typedef struct md_cu_nest {
  const md_shape *shape;
  unsigned kept;
  bool channels;
  int64_t groups;
  md_val *store;
  int num_stores;
  const md_node **reduce;
  int num_reduces;
} md_cu_nest;
void md_cu_walk(md_cu_work *w, const md_cu_nest *n);         // stores only
bool md_cu_vector_walk(md_cu_work *w, const md_cu_nest *n);  // walk.c: false: not by vectors
bool md_cu_line_walk(md_cu_work *w, const md_cu_nest *n);    // line.c: the same
void md_cu_reduce(md_cu_work *w, const md_cu_nest *n);       // both
int md_cu_num_sums(const md_node *n);                        // that a reduction adds up
// Total `to` of n and a term more, texts of doubles.
void md_cu_add_term(md_cu_kernel *k, const md_node *n, const char *to, const char *term);
// `shape` has one channel, and a value of shape s few at each of its places.
bool md_cu_has_channels(const md_shape *shape, const md_shape *s);
// Channels of a stored value that a place of the walk has, and where channel i of them is.
int md_cu_num_channels(const md_cu_nest *n, const md_shape *s);
md_cu_spot md_cu_channel_of(md_cu_kernel *k, md_cu_spot *s, const md_shape *stored, int i);
// line.c: all that is stored and summed up lies in lines of eight neighbours on the last axis. Text for a line
// whose indices are x0, x1, ... (of axes of one: none) and from `first` on, and where it goes.
bool md_cu_is_of_lines(md_cu_work *w, const md_cu_nest *n);
void md_cu_line_texts(md_cu_kernel *k, const md_cu_nest *n, md_cu_lanes *l);
void md_cu_put_line(md_cu_kernel *k, const md_cu_nest *n, md_cu_lanes *l);
// The totals s0, s1, ... of `terms` (text of a double) for result number `result` -> results of the reductions.
void md_cu_put_results(md_cu_kernel *k, const md_cu_nest *n, const char *terms, md_cu_ix result);

// --- nce.c: InfoNCE over a bank --------------------------------------------------------------------
enum { MD_CU_NCE_TILE = 64, MD_CU_NCE_BLOCKS = 256 };  // queries of a block; blocks, about
void md_cu_nce(md_cu_work *w, const md_node *n);

// --- rows.c: work along the rows of a matrix --------------------------------------------------------
void md_cu_rows(md_cu_work *w, const md_node *n);

// --- matmul.c ----------------------------------------------------------------------------------------
void md_cu_matmul(md_cu_work *w, const md_node *n);

// --- image.c: filters of pictures --------------------------------------------------------------------
void md_cu_resize(md_cu_work *w, const md_node *n);
void md_cu_blur(md_cu_work *w, const md_node *n);

// --- conv.c: what a convolution does besides
// The source of a convolution that is made in its region, wanted outside, and met once at one tap by its
// kernels: they store it then. MD_NONE: there is none.
md_val md_cu_formed(const md_region_view *r);

// --- stream.c: the order of a region's kernels -----------------------------------------------------
void md_cu_region_kernels(md_cu_work *w);

// --- schedule.c: ways to make a product --------------------------------------------------------------

typedef struct md_cu_ways {
  md_cuda_schedule at[MD_CUDA_WAYS];
  int num;
} md_cu_ways;
// Once, and while there is room.
md_cuda_schedule md_cu_way(md_cuda_math math, int m, int n, int blocks);
void md_cu_add_way(md_cu_ways *w, md_cuda_schedule s);

// --- choose.c: which of them -------------------------------------------------------------------------

// The kernels of a region, made the way that is known to be best; and, if they are wanted, all others
// as trials.
void md_cu_choose(md_cu_work *w, const md_cuda_how *how);

// --- listing.c: kernels as text ---------------------------------------------------------------------

// Text and symbol; `param` lives in `a`. Without comments so far. `before`: functions that it calls.
md_cuda_kernel md_cu_kernel_of(const char *before, int threads, int num_params, const char **param,
                               int num_counts, const char *code, md_arena *a);
// The kernel k1234 as a function p1234 that is told which of its blocks it is.
void md_cu_put_function(const md_cuda_kernel *k, bool comments, md_text *to);
void md_cu_list(md_cuda_module *m, const md_cuda_kernel *part, int num_parts);  // into its text

// --- join.c, joint.c: launches side by side ---------------------------------------------------------

// Small launches that lie next to one another, or can, become one. What only they touch needs no place
// in the arena.
void md_cu_join(md_cuda_module *m, const md_graph *g);
bool md_cu_same_arg(const md_cuda_arg *a, const md_cuda_arg *b);
// A kernel that stands for `num` launches, each for blocks of its own, and its launch.
md_cuda_kernel md_cu_joint(const md_cuda_module *m, const md_cuda_launch *part, int num,
                           md_cuda_launch *l);

// --- workspace.c ------------------------------------------------------------------------------------

// Places of the workspace that are not used at the same time may share bytes.
void md_cu_share_workspace(md_cuda_module *m);

#endif
