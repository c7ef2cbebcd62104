// SPDX-License-Identifier: Apache-2.0
// Direct convolution on packed tiles: what conv_plan.c, conv_window.c, conv_dense.c and conv_wgrad.c share.
//
// Forward and data gradient are the same dense problem
//     dst[n, o, first + step*m] = sum over i, taps k of src[n, i, in_step*m + off(k)] * w(o, i, k)
// a strided data gradient being one such problem for each residue of the output index. An item packs
// the window of src that its tile of m needs - prologue applied, zeros outside - into scratch as
// [i-block][t][h][w][lane], then runs a register tile of pixels x channel blocks over it, for one residue after the
// other.
#ifndef CODEGEN_CPU_CONV_H
#define CODEGEN_CPU_CONV_H

#include "codegen/cpu/emit.h"

// Taps along one axis: kernel index k0 + j*dk, input offset off0 + j*doff, j = 0..num-1.
typedef struct md_taps {
  int64_t num, k0, dk, off0, doff;
} md_taps;

// One dense problem. Axes are t, h, w. Where h and w have one tap and nothing strided or padded, a plane
// is a list of pixels on the last axis; where t is the same, all pixels are.
typedef struct md_dense {
  int64_t grid[3];            // extent of m
  int64_t first[3], step[3];  // of the output
  int64_t in_step[3];
  int64_t in_size[3];
  md_taps tap[3];
  int tail;                  // of the tensors: axes from here on are one list, 2 or 3; 5: none are
  int64_t tile[3];           // of m, divides grid (but for the last tile of a list)
  int64_t chunk;             // source blocks packed at a time; all of them where they fit
  int64_t lo[3], window[3];  // packed window of a tile: first input offset, extent
  bool planar;               // in the window each row of a channel stands alone
  bool ahead;                // what the next tile packs is fetched while this one is multiplied
} md_dense;

// A convolution: one dense problem, or the residues of a strided data gradient, which share a source. `from` has the
// window that a tile of m needs for all of them, and the largest grid, which is also that of the first.
enum { MD_MAX_DENSE = 64 };
typedef struct md_conv_parts {
  int num;
  md_dense part[MD_MAX_DENSE], from;
} md_conv_parts;

// Where a convolution node's parts are.
typedef struct md_conv {
  md_kernel *k;
  const md_node *node;
  md_val src, w, bias, dst;
  md_dtype dtype;    // of what is multiplied
  LLVMTypeRef type;  // compute type, scalar
  md_dtype wide;     // of accumulators: f64 or f32
  md_dtype packed;   // of windows and panels: wide, or bf16 where the target multiplies pairs of it
  md_dtype cell;     // what a multiplication takes of them: an element, or several as an integer
  int in_cell;       // elements in it: 2 of bf16; twice as many in half a register
  int64_t bytes;     // of a window for each of its elements
  int lanes;
  int64_t n, src_c, dst_c, src_blocks, dst_blocks;
  int64_t src_size[3], dst_size[3], kernel[3];
  bool planar;       // src is row-major and of few channels
  bool flipped;      // data gradient: w[src, dst, k] instead of w[dst, src, k]
  bool whole_tiles;  // lists too are cut into tiles of one size
  // Bytes beside the window in L2 for each pixel. Not 0: tiles leave room for one block of channels at least.
  int64_t beside;
  int64_t min_tiles;  // of all samples together, if it can be
} md_conv;

md_ir md_cell_of(const md_conv *c, const md_ir *x);                      // of in_cell elements
md_ir md_multiply_cells(const md_conv *c, md_ir x, md_ir y, md_ir acc);  // acc + x y
// Sums of such products on their way: from and to one value a lane. Both halves of a register have a sum for it.
md_ir md_accumulator(const md_conv *c, md_ir value);
md_ir md_accumulated(const md_conv *c, md_ir acc);
// Emits code for `most` (1, 2, 4) of `num` channel blocks at a time (those from `block` on), then for what is left.
typedef void md_block_group(const void *ctx, int blocks, md_ir block);
void md_in_groups(md_emit *e, int64_t num, int most, md_block_group *group, const void *ctx);
void md_in_pairs(md_emit *e, int64_t num, md_block_group *group, const void *ctx);

// conv_plan.c
// The region's anchor, seen as a convolution (or its transpose) from src to dst.
md_conv md_conv_of(md_kernel *k, md_val src, md_val w, md_val dst);
// The same multiplied in f32, as transforms need it, whatever its tensors are stored in.
md_conv md_conv_in_f32(md_conv c);
md_conv md_conv_in_halves(md_conv c);  // lanes fill half a register
// Splits the node into dense problems, and them into tiles.
void md_conv_split(const md_conv *c, md_conv_parts *p);
void md_share_window(md_conv_parts *p);     // from's becomes that of all parts
int64_t md_dense_tiles(const md_dense *d);  // of one sample
void md_set_window(md_dense *d);            // lo and window of d's tile
bool md_is_chunked(const md_conv *c, const md_dense *d);
// Cuts a row of `width` pixels into runs of tiles of at most `most` and, where possible, at least 4.
typedef struct md_run {
  int64_t start, pixels, count;
} md_run;
int md_cut_row(int64_t width, int64_t most, md_run run[4]);
int64_t md_channel_pairs(const md_conv *c);  // multiply-adds of vectors for a tap and a pixel

int64_t md_window_bytes(const md_conv *c, const md_dense *d);  // of a block of channels

// conv_dense.c
// An item: a tile of m of one sample, all parts of it, for all channels.
typedef struct md_item {
  const md_conv *c;
  const md_dense *d;  // the parts of its problem
  int num;            // of them
  md_sums *sums;
  int64_t tile[3];           // of m, of the version being emitted
  md_ir extent[3];           // how many of its results exist
  bool chunked;              // results of all blocks stay in acc while chunks of the source come
  md_ir n, m0[3], part;      // part: of a sample's sums, a tile of m
  md_ir first, blocks;       // source blocks in the window
  bool in_place;             // the window is the source itself
  md_ir window;              // packed source
  md_ir panels;              // packed weights
  bool fetches_results;      // what its epilogue reads
  md_ir next_n, next_m0[3];  // of the item behind this one; set where something is fetched
  md_ir acc;  // [block][result][lane] in scratch; NULL: they are finished in registers
} md_item;
void md_emit_conv_dense(md_kernel *k);
// The item's place: the tile of m at `tile`, counted in tiles.
void md_item_place(md_item *s, const md_conv_parts *p, const md_ir tile[3]);
int64_t md_item_results(const md_item *s);  // for a channel: those of all parts
// Weights of source channel `src` at tap (t, h, w), lanes along the channels of block dst (which of them
// exist: mask); zero past the ends.
md_ir md_weights_at(const md_conv *c, md_ir dst, md_ir mask, md_ir src, const md_ir tap[3]);
int64_t md_panel_cells(const md_conv *c);              // packed weights of a dst block
void md_pack_panels(const md_conv *c, int64_t place);  // a phase: all of them to the workspace
// The sums of dst blocks block .. block+blocks-1 for all pixels of the tile, of the first part.
void md_item_multiply(const md_item *s, int blocks, md_ir block);
// Their epilogue, from acc.
void md_item_finish(const md_item *s, int blocks, md_ir block);
// Both of an item whose source is packed (an md_block_group).
void md_item_group(const void *item, int blocks, md_ir block);

// conv_window.c
md_ir md_channel_mask(md_emit *e, int64_t channels, md_ir block, int lanes);  // NULL: all exist
// Place of a pixel; at: n, c, t, h, w as the problem sees them, lanes along c.
md_point md_pixel_point(const md_conv *c, const md_dense *d, const md_ir at[5], md_ir mask);
// How far apart things lie in a window whose rows are `width` long, in elements or cells.
typedef struct md_steps {
  int64_t pixel, channel, row, block;
} md_steps;
md_steps md_window_steps(const md_conv *c, const md_dense *d, int64_t width);
// Packs channel blocks first .. first+blocks-1 of src, sample n, for the tile whose first m is m0, to
// `to` (of c->packed). Prologue values that are outputs of the region are stored. With `cells`, rows are
// of cells: cell j of lane l holds the pixels j*step + i*apart of channel l.
typedef struct md_cells {
  int64_t step, apart, num;  // num: cells in a row
  md_ir row;                 // scratch of md_cells_row_bytes
} md_cells;
int64_t md_cells_row_bytes(const md_conv *c, const md_dense *d, const md_cells *p);
void md_pack_window(const md_conv *c, const md_dense *d, md_val src, int64_t channels, md_ir first,
                    md_ir blocks, md_ir n, const md_ir m0[3], const int64_t tile[3], md_ir to,
                    const md_cells *cells);
// The same cells from `blocks` packed blocks of a list that they divide.
void md_window_cells(const md_conv *c, const md_dense *d, md_ir from, md_ir blocks, md_ir to,
                     const md_cells *cells);

// A list of pixels that lies in memory as it would in a window need not be packed: blocks of channels of src lie there
// as far apart as all its pixels.
bool md_lies_packed(const md_conv *c, const md_dense *d, md_val src);
md_steps md_steps_in_place(const md_conv *c, const md_dense *d);
md_ir md_window_in_place(const md_conv *c, const md_dense *d, md_val src, md_ir n, md_ir block,
                         const md_ir m0[3]);

// conv_ahead.c
// Fetches what packing reads of channel block `block` of src at pixel `pixel` of a list; there may be no such place.
void md_fetch_pixel(const md_conv *c, const md_dense *d, md_val src, md_ir n, md_ir block,
                    const md_ir m0[3], md_ir pixel);
// Reads an epilogue tensors of the result's shape, and not less than is packed?
bool md_reads_results(const md_conv *c, const md_dense *d);
// The share of what item s fetches that a register tile of pixels w .. and blocks block .. has at source block sb.
void md_item_fetch(const md_item *s, md_ir sb, md_ir w, int64_t pixels, int blocks, md_ir block);

// conv_winograd.c
// For a convolution or data gradient. NULL: takes it; "": it is none of its business.
const char *md_winograd_refuse(const md_region_view *r, const md_cpu *cpu);
void md_emit_conv_winograd(md_kernel *k);

// conv_winograd_wgrad.c
const char *md_winograd_wgrad_refuse(const md_region_view *r, const md_cpu *cpu);  // the same
void md_emit_conv_winograd_wgrad(md_kernel *k);

// conv_wgrad.c
void md_emit_conv_wgrad(md_kernel *k);
// That of k->r, of a 1x1x1 convolution of stride 1, within a kernel that walks over tiles of pixels and has
// packed dy anyway: `tile` is dy's window, the sum over pixels is cut into `splits`.
typedef struct md_wgrad md_wgrad;
md_wgrad *md_wgrad_create(md_kernel *k, const md_dense *tile, int64_t splits);
int64_t md_wgrad_bytes(const md_wgrad *g);  // of scratch
void md_wgrad_begin(md_wgrad *g, md_ir split, md_ir scratch);
// Packs x of the tile at m0 of sample n, whose dy is packed; the next one's place is for what is fetched meanwhile.
void md_wgrad_pack(md_wgrad *g, md_ir dy, md_ir n, const md_ir m0[3], md_ir next_n,
                   const md_ir next_m0[3]);
void md_wgrad_add(md_wgrad *g);          // the tile's products
void md_wgrad_merge(const md_wgrad *g);  // the last phase, k->r as at first

// conv_weights.c
// Sums of output block ob, input block ib, tap [t,h,w] and row (an input channel of the block); lanes along the output.
typedef md_ir md_weight_of(const void *ctx, md_ir ob, md_ir ib, md_ir tap, md_ir row);
void md_store_weights(const md_conv *c, md_ir ob, md_ir ib, md_weight_of *of, const void *ctx);

// conv_twins.c
// For both gradients of a convolution. NULL: takes them; "": they are none of its business.
const char *md_twins_refuse(const md_region_view *r);
void md_emit_conv_twins(md_kernel *k);

#endif
