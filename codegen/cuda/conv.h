// SPDX-License-Identifier: Apache-2.0
// Inside the CUDA back end: convolutions as matrix products whose operands are gathered on the way
// (implicit GEMM). A block of threads makes a tile of the result; for each step of some terms it brings a
// tile of both operands into shared memory, applying what stands before the convolution (batch norm,
// ReLU, ...), and multiplies them: bf16 on tensor cores, f32 by FMA. Where there is wgmma and tiles are
// not mostly empty, some warps bring and others multiply (conv_ring.c).
//
//   forward   result [pixel][channel out]       = source [pixel + tap][channel in]   x weights
//   gradient  result [pixel][channel in]        = dy [(pixel - tap) / stride][out]   x weights
//   weights   result [channel out][tap, in]     = dy [pixel][out]                    x source
//
// What stands behind a convolution is made from the tile while it is in shared memory, and so are
// its sums over pixels.
#ifndef CODEGEN_CUDA_CONV_H
#define CODEGEN_CUDA_CONV_H

#include "codegen/cuda/gen.h"

enum {
  MD_CU_STEP = 32,  // terms of a step, but for wgmma
  MD_CU_STEP_CHUNKS = MD_CU_STEP / MD_CU_LANES,
  MD_CU_WGMMA_STEP = 64,     // of wgmma: lines of 128 bytes
  MD_CU_WGMMA_PIXELS = 128,  // of a tile
  MD_CU_WGMMA_BLOCKS = 264,  // about: twice the multiprocessors of an H100 or H200
  MD_CU_SUM_BLOCKS = 1024,   // about, where sums are made: each keeps a part of them
  MD_CU_WGRAD_BLOCKS = 512,  // about, wanted of a weight gradient
};

// --- conv_axis.c: where the elements of a convolution lie

// One axis of a gather: for place q of the result, 0 <= q < num, and tap m, 0 <= m < taps:
//   result at out0 + q * out_step, kernel at tap0 + m * tap_step, source at q * from_q + m * from_m + from0
// and the source is 0 beyond 0 .. size - 1.
typedef struct md_cu_axis_map {
  int64_t num, out0, out_step;
  int64_t taps, tap0, tap_step;
  int64_t from_q, from_m, from0, size;
} md_cu_axis_map;
typedef struct md_cu_map {
  md_cu_axis_map axis[3];  // time, height, width
} md_cu_map;
// Of conv3d, and of conv3d_wgrad with its dy as the result.
md_cu_map md_cu_map_forward(const md_region_view *r, const md_node *n);
// Of conv3d_dgrad: the places of dx that are congruent to `residue` by the stride; no place: false.
bool md_cu_map_backward(const md_region_view *r, const md_node *n, const int64_t residue[3],
                        md_cu_map *to);
int64_t md_cu_map_places(const md_cu_map *a);  // of a sample
int64_t md_cu_map_taps(const md_cu_map *a);
bool md_cu_map_is_identity(
    const md_cu_map *a);  // every place of the result has its own of the source
int64_t md_cu_groups(const md_region_view *r);  // of samples in statistics of this region

// --- conv_pack.c: weights in the order of the terms

typedef struct md_cu_pack {
  md_val weights;
  bool backward;    // the result's channels are the forward source's
  int64_t in, out;  // channels of the source and of the result
  int64_t rows;     // `out`, rounded up to whole tiles
  bool narrow;
  int tile;       // rows of a tile for wgmma; 0: another product
  md_cu_map map;  // which taps
} md_cu_pack;
int64_t md_cu_pack_steps(const md_cu_pack *p);  // a row has as many times md_cu_step terms
int64_t md_cu_pack_bytes(const md_cu_pack *p);
void md_cu_put_pack(md_cu_work *w, const md_cu_pack *p,
                    int64_t place);  // a kernel, if there are terms

// --- conv_tile.c: tiles in shared memory and their product

typedef struct md_cu_tile {
  int m, n;              // rows and columns of the result
  int warps_m, warps_n;  // of the block; further warps do not multiply
  bool narrow;           // bf16, on tensor cores
  bool across;           // operands lie as [term][row] instead of [row][term]
  bool swizzled;         // for wgmma: lines of 128 bytes, chunk c of line r at c ^ r % 8
  int line_m, line_n;    // elements from line to line of the operands
  const char *p;         // names of accumulators begin so
} md_cu_tile;
md_cu_tile md_cu_tile_of(int64_t m, int64_t n, bool narrow, bool across);
// The same, m and n being powers of two, 16 and 8 at least.
md_cu_tile md_cu_tile_sized(int m, int n, bool narrow, bool across);
int md_cu_pitch(const md_cu_tile *t, int rows);  // elements from line to line of a step's operand
int md_cu_step(const md_cu_tile *t);             // terms
int md_cu_tile_bytes(const md_cu_tile *t, int rows);  // one operand's tile of a step
const char *md_cu_cell(const md_cu_tile *t);          // "md_bf16" or "float"
void md_cu_put_accumulators(md_cu_kernel *k, const md_cu_tile *t);
// acc += product of the tiles at a and b (names of pointers).
void md_cu_put_product(md_cu_kernel *k, const md_cu_tile *t, const char *a, const char *b);
// Loops over a thread's elements: row, col + z of the tile, and their sum.
void md_cu_open_tile(md_cu_kernel *k, const md_cu_tile *t, md_cu_mark mark[4]);
void md_cu_close_tile(md_cu_kernel *k, const md_cu_mark mark[4]);

// --- conv_side.c: an operand on its way into shared memory

// A vector of eight channels for each of a thread's `rows`, held in registers between its load and its
// store. Names begin with `p`.
typedef struct md_cu_side {
  const char *p;
  md_val val;
  const md_cu_tile *tile;
  int lines, chunks;   // of the tile: a chunk is eight elements of a line
  const char *thread;  // text of the number of one of those that bring it
  int sets;            // of rows; with two, `set` says which is loaded or stored
  bool by_pixel;       // places are numbers of pixels, pp[i], in place of indices on axes
  md_cu_lanes lanes;
  const char *stored_if;  // the value is stored where that holds as it is loaded; NULL: nowhere
  bool is_made;           // goes through registers in any case
  bool is_plain;          // it lies in memory as it is to be in a swizzled tile: it is copied there
  bool in_place;          // so is what it is made of, and the copy becomes the value in the tile;
                          // of a form: it may
  md_val copied;          // the value that is copied so, or MD_NONE
} md_cu_side;
int md_cu_side_rows(const md_cu_side *s);  // of a thread
// Makes the texts; `form` says the fields from `tile` to `by_pixel`, is_made and in_place. The vector of row i
// lies in sample pn[i] at time pt[i], height ph[i], width pw[i], and begins with channel pc (or pc[set]); it is
// 0 where pin[i] is.
md_cu_side md_cu_side_of(md_cu_kernel *k, const char *p, md_val v, const md_cu_side *form,
                         int64_t groups, bool no_table);
void md_cu_side_declare(md_cu_kernel *k, const md_cu_side *s);
// A loop over the thread's rows, in which `line` is the line of the tile.
md_cu_mark md_cu_side_open(md_cu_kernel *k, const md_cu_side *s);
void md_cu_side_load(md_cu_kernel *k,
                     const md_cu_side *s);  // in such a loop, coordinates being set
void md_cu_side_store(md_cu_kernel *k, const md_cu_side *s, const char *to);
// Its parts: before the loop over the rows, and in it.
void md_cu_side_prepare(md_cu_kernel *k, const md_cu_side *s);
void md_cu_side_store_row(md_cu_kernel *k, const md_cu_side *s, const char *to);
// In place of both, for one that is copied, in such a loop: asynchronous copies, from the pointer `from` or, if
// that is NULL, by the coordinates.
void md_cu_side_copy(md_cu_kernel *k, const md_cu_side *s, const char *to, const char *from);
// What the thread has copied to the tile at `to` becomes the value there, if it is formed in place. Row i lies
// in the source where `inside` holds. Where it is stored, the tile begins with pixel `first`.
void md_cu_side_form(md_cu_kernel *k, const md_cu_side *s, const char *to, const char *inside,
                     const char *first);
// Chunk number `chunk` of the terms -> pc (first channel), pm (tap), pm0, pm1, pm2 (its digits), pok (there is
// one).
void md_cu_put_tap(md_cu_kernel *k, const md_cu_side *s, const md_cu_map *a, int64_t channels,
                   const char *chunk);
// The same of the thread's chunk in step `step`.
void md_cu_put_tap_of_step(md_cu_kernel *k, const md_cu_side *s, const md_cu_map *a,
                           int64_t channels, const char *step);
extern const char md_cu_axis_letters[3];  // in names of coordinates
// -> pin[i]: there is a chunk, `also` (or NULL) holds, and the row's place is one of the source's.
void md_cu_put_inside(md_cu_kernel *k, const md_cu_side *s, const md_cu_map *a, const char *also);
// Number `place` of the result's places, from sample0 on -> sample, q0, q1, q2.
void md_cu_put_place(md_cu_kernel *k, const md_cu_map *a, const char *place, const char *sample0);

// --- vectors.c: values and sums of activations, eight channels at a time

typedef struct md_cu_finish {
  const md_shape *shape;  // [n, c, t, h, w] of all of them
  const md_node *anchor;  // the convolution whose tile they are made from; NULL: there is none
  md_val *store;
  int num_stores;
  const md_node **reduce;
  int num_reduces, num_sums;
  int64_t groups;      // of samples: those whose sums are apart
  int64_t statistics;  // those with statistics of their own
  bool narrow;         // the tile is bf16
  bool no_table;       // there is no room for it
  bool by_pixel;       // places are numbers of pixels: those of the map are all that there are
  int most_words;      // that a thread may load at once; 0: as many as are good
  md_cu_lanes lanes;
  int64_t parts, place, tickets;  // of sums
} md_cu_finish;
void md_cu_finish_texts(md_cu_kernel *k, md_cu_finish *f);
// Shared memory for sums of the block, [sum][column] of double, and on the way there for those of threads.
int md_cu_sums_bytes(const md_cu_finish *f, const md_cu_tile *t);
void md_cu_put_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t);  // cleared
int md_cu_thread_sums_bytes(const md_cu_finish *f, const md_cu_tile *t);
// The vectors of pixels m0 .. m0 + rows of t from column n0 on; `stage` is the convolution's tile.
void md_cu_put_each_vector(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                           const md_cu_map *a, const char *places);
void md_cu_put_thread_sums(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t);

// --- sums.c: sums over pixels
// Before the kernels: memory for parts, so many of the pixels, and for results.
void md_cu_sums_place(md_cu_work *w, md_cu_finish *f, const md_cu_tile *t, int64_t parts);
// The last that a kernel does: the block's sums in shared memory are part number `part`, and the last
// block of all makes the results.
void md_cu_put_parts(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t, const char *part);

// --- conv_finish.c: what stands behind a convolution

// The outputs and reductions that one element of the anchor's result decides.
md_cu_finish md_cu_finish_of(md_cu_work *w, const md_node *anchor, int64_t groups);
int md_cu_stage_pitch(const md_cu_finish *f, const md_cu_tile *t);  // elements from row to row
// The shared memory that it takes: the tile and, after it, sums of threads.
int md_cu_finish_bytes(const md_cu_finish *f, const md_cu_tile *t);
void md_cu_put_finish(md_cu_kernel *k, const md_cu_finish *f, const md_cu_tile *t,
                      const md_cu_map *a, const char *places);
// Before the kernels, of so many `parts` of the pixels: memory for what they store. Behind: it is there.
void md_cu_finish_place(md_cu_work *w, md_cu_finish *f, const md_cu_tile *t, int64_t parts);
void md_cu_finish_ready(md_cu_work *w, const md_cu_finish *f);

// --- conv.c: a convolution, or its gradient for the source, and its kernels

typedef struct md_cu_convolution {
  md_cu_work *w;
  const md_node *n;
  bool backward;
  int64_t in, out, samples, groups;  // channels of source and result
  bool narrow;                       // bf16
  md_cu_map *map;                    // of each of its kernels
  int num_maps;
  md_cu_tile tile;
  int blocks;   // about, that share the tiles; 0: each has one
  int stages;   // of the ring, as a schedule has them
  bool copies;  // as a schedule has it
  md_cu_finish finish;
  int64_t parts;        // of sums, of all kernels
  md_val formed;        // the source, if it is to be stored
  bool by_pixel;        // result and source have the same places
  int64_t residues[3];  // of places, by the stride: each has kernels of its own
} md_cu_convolution;
typedef struct md_cu_product {  // one of its kernels
  const md_cu_convolution *c;
  md_cu_kernel k;
  md_cu_map a;
  md_cu_pack pack;
  int64_t steps;
  md_cu_side source;
  int64_t weights;       // place of them
  int64_t parts, part0;  // of this kernel; of those before
} md_cu_product;
int64_t md_cu_columns(const md_cu_convolution *c);                     // of tiles
int64_t md_cu_pixels(const md_cu_convolution *c, const md_cu_map *a);  // of a group
typedef struct md_cu_needs {
  int tables;        // bytes of shared memory
  int words;         // that a thread loads for eight channels of the source
  bool is_copied;    // the source, or what it is formed from in place
  bool has_windows;  // TMA can copy it, to one of the kernels at least
} md_cu_needs;
md_cu_needs md_cu_measure(md_cu_convolution *c);
md_cu_side md_cu_source_of(const md_cu_convolution *c, md_cu_kernel *k);
// What the block makes: n0, part, group, sample0. Of each group of samples, `parts` blocks share the pixels
// of a column of tiles.
void md_cu_put_block(md_cu_kernel *k, int64_t columns, int width, int64_t parts, int64_t samples,
                     int64_t groups);
// Where the thread's pixels `first` + line have their source at tap 0.
void md_cu_declare_rows(md_cu_product *p);
void md_cu_set_rows(md_cu_product *p, const char *first, const char *places);
// Terms of the thread in step `next`: md_cu_put_tap_of_step.
void md_cu_put_chunk(md_cu_product *p, const char *next);
// Loads of the thread's vectors of step `next`; of a copied source, copies to the tile at `to`.
void md_cu_put_source(md_cu_product *p, const char *next, const char *to);
// The same loads without rows found before.
void md_cu_put_source_of_tile(md_cu_product *p, const char *places, const char *next);
void md_cu_put_part(md_cu_product *p);  // of the block, to memory
void md_cu_conv(md_cu_work *w, const md_node *n);

// --- conv_ring.c: stages in shared memory, between threads that bring operands and threads that multiply

// With one stage those who multiply would wait for the next before they give it back.
enum { MD_CU_MIN_STAGES = 2, MD_CU_MAX_STAGES = 6 };
typedef struct md_cu_ring {
  int stages, a, b;   // bytes of a stage's operands
  bool expects;       // bytes are copied in bulk, too
  bool is_bulk;       // and nothing else is brought
  bool copies;        // the rest by each thread, asynchronously, or else it is stored
  int barriers, end;  // places in shared memory
} md_cu_ring;
// Beside so many bytes of shared memory, with so many stages at most; 0: as many as there is room for.
md_cu_ring md_cu_ring_of(int a, int b, int rest, int stages);
// The way s, but that threads copy what TMA could.
void md_cu_add_copies(md_cu_ways *w, md_cuda_schedule s);
// Ways that are s but for fewer stages than `most`, which fill shared memory: what is not taken is left to the L1
// cache, and less is on its way at once.
void md_cu_add_stages(md_cu_ways *w, md_cuda_schedule s, int most);
// The kernel's first lines: as, bs, full, empty. The barriers stand after the next md_sync().
void md_cu_ring_put(md_cu_kernel *k, const md_cu_ring *r);
void md_cu_ring_registers(md_cu_kernel *k, int consumer, bool consumes);
// By those that bring: the thread's part of a step is stored, or on its way to `stage`, which goes on.
void md_cu_ring_brought(md_cu_kernel *k, const md_cu_ring *r);
// Its parts.
void md_cu_ring_arrive(md_cu_kernel *k, const md_cu_ring *r, const char *stage);
void md_cu_ring_next(md_cu_kernel *k, const md_cu_ring *r);
void md_cu_ring_end(md_cu_kernel *k);  // by those that copy: all has landed
md_cu_mark md_cu_ring_open_steps(md_cu_kernel *k, const char *steps);
// By those that multiply: acc += the products of `steps` (text; "1": one) steps, 64 rows by `columns`.
// `a`, `b`: " + ...", where the warp's parts begin; across: operands lie as [term][row].
void md_cu_ring_multiply(md_cu_kernel *k, const md_cu_ring *r, const char *steps, int columns,
                         bool across, const char *a, const char *b);

// --- conv_wgmma.c: its kernels with wgmma
// Takes a tile of so many columns; false: there is no wgmma, no room, or too little to multiply.
bool md_cu_wgmma_tile(md_cu_convolution *c, int columns, const md_cu_map *a, int num);
// What TMA copies of a source, NULL: it does not.
const md_windows *md_cu_source_windows(const md_cu_convolution *c, const md_cu_side *source,
                                       const md_cu_map *a);
int md_cu_wgmma_stages(md_cu_convolution *c);  // that its tile, which is taken, has room for
void md_cu_wgmma(md_cu_product *p);

// --- conv_windows.c: operands that TMA copies
// What a tensor map says of v, of which `pixels` places of the map at a time are one copy; NULL: they cannot be.
const md_windows *md_cu_windows_of(const md_cu_work *w, md_val v, const md_cu_map *a, int pixels);
// Where the window of place q0, q1, q2 begins, and how far from there a tap is.
void md_cu_window_begin(md_cu_kernel *k, const md_cu_map *a, md_cu_ix at[3]);
void md_cu_window_tap(md_cu_kernel *k, const md_cu_map *a, md_cu_ix tap, md_cu_ix at[3]);
// By one thread: windows from that of `sample` on, 64 channels of a tap, to shared memory at `to`; they land at the
// stage's barrier.
void md_cu_put_window_copy(md_cu_kernel *k, md_val v, const md_windows *windows, const char *to,
                           md_cu_ix channel, const md_cu_ix begin[3], const md_cu_ix tap[3]);

// --- conv_wgrad.c

typedef struct md_cu_gradient {  // for weights
  md_cu_work *w;
  const md_node *n;
  md_cu_kernel k;
  md_cu_map a;
  md_cu_tile tile;
  md_cu_side dy, x;
  bool no_table;
  int stages;                                // of the ring, as a schedule has them
  bool copies;                               // as a schedule has it
  int64_t out, in, groups, pixels, columns;  // columns: taps times channels, rounded up to eight
  int64_t tiles_m, tiles_n, parts, steps;    // steps of a part
  int64_t place;                             // f32 [part][out][column]
} md_cu_gradient;
int64_t md_cu_gradient_bytes(const md_cu_gradient *g);  // of all parts
void md_cu_gradient_sides(md_cu_gradient *g, md_cu_kernel *k);
void md_cu_gradient_divide(md_cu_gradient *g, int blocks);  // its tile being set; about so many
const char *md_cu_gradient_steps(md_cu_gradient *g);        // as text
// What the block makes: m0, n0, part, begin, end. The thread's channels of both operands.
void md_cu_gradient_put_block(md_cu_gradient *g);
void md_cu_gradient_put_chunks(md_cu_gradient *g);
// In a loop over the rows of either: where the line's vector lies in step `next`.
void md_cu_gradient_put_dy(md_cu_gradient *g, const char *next);
void md_cu_gradient_put_x(md_cu_gradient *g, const char *next);
void md_cu_wgrad(md_cu_work *w, const md_node *n);
int64_t md_cu_weight_columns(const md_region_view *r,
                             const md_node *n);  // taps x channels of 8 each
// Parts of a gradient for weights, f32 [part][channel out][column] at `place` -> the gradient.
void md_cu_merge_weights(md_cu_work *w, const md_node *n, int64_t parts, int64_t place);

// --- conv_wgmma_wgrad.c: gradients for weights with wgmma
// Its own schedule; false: there is no wgmma, or an operand is made on the way.
bool md_cu_wgmma_gradient_schedule(md_cu_gradient *g, md_cuda_schedule *s);
void md_cu_wgmma_gradient_ways(md_cu_gradient *g, md_cuda_schedule own, md_cu_ways *ways);
// Takes one of those.
void md_cu_wgmma_gradient_take(md_cu_gradient *g, const md_cuda_schedule *s);
void md_cu_wgmma_gradient(md_cu_gradient *g);

// --- conv_wgmma_twin.c
// Both gradients of the region, which are of a 1x1x1 convolution in bf16, with wgmma. False: nothing is done.
bool md_cu_wgmma_twins(md_cu_work *w);

// --- conv_twin.c
// Both gradients of the region. False: nothing is done, they take kernels of their own.
bool md_cu_twins(md_cu_work *w);

#endif
