// SPDX-License-Identifier: Apache-2.0
// Convolutions as dense problems, and how their pixels are cut into tiles.
#include "codegen/cpu/conv.h"

#include <string.h>

// Of L2: a whole packed window, a chunk of it, the results of a tile that are kept between chunks.
static int64_t window_budget(const md_conv *c) { return c->k->e.cpu->l2_bytes * 5 / 8; }
static int64_t chunk_budget(const md_conv *c) { return c->k->e.cpu->l2_bytes / 4; }
static int64_t result_budget(const md_conv *c) { return c->k->e.cpu->l2_bytes / 2; }
enum {
  MAX_TILE_PIXELS = 640,
  MAX_TILE_RESULTS = 1920,  // of all residues, two blocks of channels of which stay in L2
  MIN_ITEMS = 8,
  MIN_LIST = 14,
  AHEAD_PIXELS = 168,
  LEAST_AHEAD = 64,
  AHEAD_WEIGHTS = 4096,
  FEW_CHANNELS = 4
};

md_conv md_conv_in_halves(md_conv c) {
  c.cell = MD_I64;
  c.in_cell = (int)(md_dtype_size(c.cell) / md_dtype_size(c.packed));
  return c;
}

md_conv md_conv_of(md_kernel *k, md_val src, md_val w, md_val dst) {
  const md_node *node = k->r->anchor;
  const md_graph *g = k->r->g;
  md_conv c = {.k = k,
               .node = node,
               .src = src,
               .w = w,
               .dst = dst,
               .lanes = k->e.cpu->lanes,
               .min_tiles = MIN_ITEMS};
  if (node->op == MD_OP_conv3d && node->num_in == 3) c.bias = node->in[2];
  c.flipped = node->op == MD_OP_conv3d_dgrad;
  const md_type *from = md_type_in(g, src);
  const md_shape *x = &from->shape, *y = &md_type_in(g, dst)->shape;
  c.dtype = md_type_in(g, node->in[0])->dtype;
  c.type = md_compute_type(&k->e, c.dtype);
  c.wide = c.packed = c.cell = c.dtype == MD_F64 ? MD_F64 : MD_F32;
  c.in_cell = 1;
  if (k->e.cpu->bf16_dot && c.dtype == MD_BF16) {
    c.packed = MD_BF16;
    c.cell = MD_I32;
    c.in_cell = 2;
  }
  c.bytes = md_dtype_size(c.packed);
  c.n = x->dim[0];
  c.src_c = x->dim[1];
  c.dst_c = y->dim[1];
  c.src_blocks = md_ceil_div(c.src_c, c.lanes);
  c.dst_blocks = md_ceil_div(c.dst_c, c.lanes);
  for (int i = 0; i < 3; i++) {
    c.src_size[i] = x->dim[2 + i];
    c.dst_size[i] = y->dim[2 + i];
    c.kernel[i] = md_type_in(g, w)->shape.dim[2 + i];
  }
  // Few products for what is read would not pay for more packing.
  bool several = c.kernel[0] * c.kernel[1] * c.kernel[2] > 1;
  md_conv halves = md_conv_in_halves(c);
  bool planar = !c.flipped && !from->block && c.src_c <= FEW_CHANNELS && c.kernel[2] > 1;
  bool fills = !planar || c.kernel[2] >= halves.in_cell;
  if (k->e.cpu->is_half && c.packed != MD_F64 && several && fills) c = halves;
  // A cell is of taps along w then, which must lie side by side.
  c.planar = planar && (c.in_cell == 1 || node->attr.conv3d.dilation.d[2] == 1);
  return c;
}

md_conv md_conv_in_f32(md_conv c) {
  c.packed = c.cell = MD_F32;
  c.in_cell = 1;
  c.bytes = md_dtype_size(c.packed);
  return c;
}

static bool in_halves(const md_conv *c) { return c->cell == MD_I64; }

md_ir md_cell_of(const md_conv *c, const md_ir *x) {
  md_emit *e = &c->k->e;
  if (c->packed != MD_BF16) return in_halves(c) ? md_pair_lanes(e, x[0], x[1]) : x[0];
  md_ir low = md_bf16_pair(e, x[0], x[1]);
  return in_halves(c) ? md_pair_lanes(e, low, md_bf16_pair(e, x[2], x[3])) : low;
}

md_ir md_accumulator(const md_conv *c, md_ir value) {
  if (!in_halves(c)) return value;
  md_emit *e = &c->k->e;
  return md_f32_of_pairs(e, md_pair_lanes(e, value, md_const_like(e, value, 0)));
}

md_ir md_accumulated(const md_conv *c, md_ir acc) {
  return in_halves(c) ? md_add_pairs(&c->k->e, acc) : acc;
}

md_ir md_multiply_cells(const md_conv *c, md_ir x, md_ir y, md_ir acc) {
  md_emit *e = &c->k->e;
  // The last operand of either may be a number in memory for all lanes, as x is where it is used once.
  if (c->packed == MD_BF16) return md_bf16_dot(e, acc, y, x);
  if (in_halves(c)) return md_fma(e, md_f32_of_pairs(e, x), md_f32_of_pairs(e, y), acc);
  return md_fma(e, x, y, acc);
}

void md_in_groups(md_emit *e, int64_t num, int most, md_block_group *group, const void *ctx) {
  int64_t first = 0;
  for (int blocks = most; blocks >= 1; blocks /= 2) {
    int64_t last = num - (num - first) % blocks;
    if (first == last) continue;
    md_loop o = md_loop_begin(e, md_i64(e, first), md_i64(e, last), blocks, "o_blocks");
    group(ctx, blocks, o.i);
    md_loop_end(e, &o);
    first = last;
  }
}

void md_in_pairs(md_emit *e, int64_t num, md_block_group *group, const void *ctx) {
  md_in_groups(e, num, 2, group, ctx);
}

int64_t md_channel_pairs(const md_conv *c) {
  return c->src_blocks * MD_MIN(c->src_c, c->lanes) * c->dst_blocks;
}

int64_t md_dense_tiles(const md_dense *d) {
  int64_t n = 1;
  for (int i = 0; i < 3; i++) n *= md_ceil_div(d->grid[i], d->tile[i]);
  return n;
}

int64_t md_window_bytes(const md_conv *c, const md_dense *d) {
  int64_t channels = d->planar ? c->src_c : c->lanes;
  return d->window[0] * d->window[1] * d->window[2] * channels * c->bytes;
}

bool md_is_chunked(const md_conv *c, const md_dense *d) { return d->chunk < c->src_blocks; }

void md_set_window(md_dense *d) {
  for (int i = 0; i < 3; i++) {
    const md_taps *t = &d->tap[i];
    int64_t last = t->off0 + (t->num - 1) * t->doff;
    int64_t hi = t->num ? MD_MAX(t->off0, last) : 0;
    d->lo[i] = t->num ? MD_MIN(t->off0, last) : 0;
    d->window[i] = (d->tile[i] - 1) * d->in_step[i] + hi - d->lo[i] + 1;
  }
}

// Results for each of m.
static int64_t residues_of(const md_conv *c) {
  const md_dim3 *stride = &c->node->attr.conv3d.stride;
  return c->flipped ? stride->d[0] * stride->d[1] * stride->d[2] : 1;
}

static bool fits(const md_conv *c, md_dense *d) {
  md_set_window(d);
  int64_t pixels = d->tile[0] * d->tile[1] * d->tile[2], results = pixels * residues_of(c);
  int64_t block_bytes = md_window_bytes(c, d);
  if (c->beside) return block_bytes + pixels * c->beside <= window_budget(c);
  if (pixels > MAX_TILE_PIXELS || results > MAX_TILE_RESULTS) return false;
  if (c->n * md_dense_tiles(d) < c->min_tiles) return false;
  if (block_bytes * c->src_blocks <= window_budget(c)) return true;
  return results * c->dst_blocks * c->lanes * md_dtype_size(c->wide) <= result_budget(c);
}

// Where the window of all source channels is too large, results stay and channels come in chunks.
static void choose_chunk(const md_conv *c, md_dense *d) {
  int64_t block_bytes = md_window_bytes(c, d);
  d->chunk = c->src_blocks;
  int64_t room = chunk_budget(c);
  if (c->beside) room = window_budget(c) - d->tile[0] * d->tile[1] * d->tile[2] * c->beside;
  else if (block_bytes * c->src_blocks <= window_budget(c)) return;
  d->chunk = MD_MAX(MD_MIN(room / block_bytes, c->src_blocks), 1);
}

// The largest divisor of `size` that keeps the tile within its budget.
static void grow(const md_conv *c, md_dense *d, int axis) {
  for (int64_t x = d->grid[axis]; x > 1; x--) {
    if (d->grid[axis] % x) continue;
    d->tile[axis] = x;
    if (fits(c, d)) return;
  }
  d->tile[axis] = 1;
  md_set_window(d);
}

// A list of one tap reads much for what it multiplies: small tiles then, each fetched while the one before is
// multiplied. Two windows should leave most of L2 to weights or their gradient, which every tile reads again, and a
// tile of a forward convolution be some work. Returns how many pixels a tile has at most; 0: nothing is fetched.
static int64_t pixels_ahead(const md_conv *c, const md_dense *d) {
  int64_t l2 = c->k->e.cpu->l2_bytes, block = c->lanes * c->bytes;
  int64_t weights = c->src_blocks * c->dst_blocks * c->lanes * block;
  int64_t room = l2 * 3 / 8 / ((c->src_blocks + (c->whole_tiles ? c->dst_blocks : 0)) * block);
  bool pays = c->whole_tiles || c->src_c * c->dst_c >= AHEAD_WEIGHTS;
  if (!pays || d->tap[0].num != 1 || c->beside || d->grid[2] <= AHEAD_PIXELS) return 0;
  return weights <= l2 && room >= LEAST_AHEAD ? MD_MIN(room, AHEAD_PIXELS) : 0;
}

// A divisor of the pixels spares a second version of the code. Without one, whole register tiles.
static void choose_list_tile(const md_conv *c, md_dense *d) {
  int64_t pixels = d->grid[2], ahead = pixels_ahead(c, d);
  d->ahead = ahead > 0;
  int64_t most = c->beside ? pixels : d->ahead ? ahead : MAX_TILE_PIXELS;
  for (int64_t x = MD_MIN(pixels, most); x >= MD_MIN(pixels, MIN_LIST); x--) {
    d->tile[2] = x;
    bool is_even = x % 2 == 0 || x == pixels || c->whole_tiles;
    if (pixels % x == 0 && is_even && fits(c, d)) return;
  }
  d->tile[2] = MD_MIN(pixels, 3 * MIN_LIST);
  while (d->tile[2] > MIN_LIST && !fits(c, d)) d->tile[2] = MD_MAX(d->tile[2] - MIN_LIST, MIN_LIST);
  for (int64_t x = d->tile[2]; c->whole_tiles && pixels % d->tile[2]; x--) d->tile[2] = x;
  md_set_window(d);
}

static void choose_tile(const md_conv *c, md_dense *d) {
  d->tile[0] = d->tile[1] = 1;
  d->tile[2] = d->grid[2];
  // A temporal kernel reads every frame for each output frame: all frames of a tile are packed once.
  if (d->tap[0].num > 1) d->tile[0] = d->grid[0];
  if (d->tail < 5) {
    choose_list_tile(c, d);
    return;
  }
  grow(c, d, 1);
  // With a stride along t the results of all residues are many frames.
  bool too_large = residues_of(c) > 1 && !fits(c, d);
  if (too_large || (d->tile[1] == d->grid[1] && d->tap[0].num <= 1)) grow(c, d, 0);
  md_set_window(d);
}

// One tap at offset 0 and steps of 1.
static bool is_plain_axis(const md_conv *c, const md_dense *d, int i) {
  return d->tap[i].num == 1 && d->tap[i].off0 == 0 && d->in_step[i] == 1 && d->step[i] == 1 &&
         d->first[i] == 0 && c->src_size[i] == c->dst_size[i] && d->grid[i] == c->dst_size[i];
}

static void make_list(const md_conv *c, md_dense *d) {
  d->tail = 5;
  if (!is_plain_axis(c, d, 1) || !is_plain_axis(c, d, 2)) return;
  d->tail = is_plain_axis(c, d, 0) ? 2 : 3;
  for (int i = d->tail - 2; i < 2; i++) {
    d->grid[2] *= d->grid[i];
    d->in_size[2] *= d->in_size[i];
    d->grid[i] = d->in_size[i] = 1;
  }
}

// Taps of output index `first + stride*m` in a data gradient: p*stride + k*dilation - pad = q, so
// p = m + (first + pad - k*dilation)/stride for those k that divide.
static md_taps residue_taps(int64_t first, int64_t kernel, int64_t stride, int64_t pad,
                            int64_t dilation) {
  md_taps t = {0};
  for (int64_t k = 0; k < kernel; k++) {
    int64_t a = first + pad - k * dilation;
    if (a % stride) continue;
    if (t.num == 0) {
      t.k0 = k;
      t.off0 = a / stride;
    } else if (t.num == 1) {
      t.dk = k - t.k0;
      t.doff = a / stride - t.off0;
    }
    t.num++;
  }
  return t;
}

// False: no result is of this residue.
static bool residue_problem(const md_conv *c, int64_t residue, md_dense *d) {
  const md_conv3d_attr *a = &c->node->attr.conv3d;  // conv3d_grad begins with the same words
  bool empty = false;
  *d = (md_dense){.planar = c->planar};
  for (int i = 2; i >= 0; i--) {
    d->in_size[i] = c->src_size[i];
    if (!c->flipped) {
      d->grid[i] = c->dst_size[i];
      d->step[i] = 1;
      d->in_step[i] = a->stride.d[i];
      d->tap[i] =
          (md_taps){.num = c->kernel[i], .dk = 1, .off0 = -a->pad.d[i], .doff = a->dilation.d[i]};
      continue;
    }
    int64_t stride = a->stride.d[i];
    d->first[i] = residue % stride;
    residue /= stride;
    d->step[i] = stride;
    d->in_step[i] = 1;
    d->grid[i] = md_ceil_div(MD_MAX(c->dst_size[i] - d->first[i], 0), stride);
    d->tap[i] = residue_taps(d->first[i], c->kernel[i], stride, a->pad.d[i], a->dilation.d[i]);
    empty |= d->grid[i] == 0;
  }
  make_list(c, d);
  return !empty;
}

// All offsets that some part has.
static md_taps joined_taps(const md_conv_parts *p, int axis) {
  int64_t lo = INT64_MAX, hi = INT64_MIN;
  for (int i = 0; i < p->num; i++) {
    const md_taps *t = &p->part[i].tap[axis];
    int64_t last = t->off0 + (t->num - 1) * t->doff;
    if (!t->num) continue;
    lo = MD_MIN(lo, MD_MIN(t->off0, last));
    hi = MD_MAX(hi, MD_MAX(t->off0, last));
  }
  return lo > hi ? (md_taps){0} : (md_taps){.num = hi - lo + 1, .off0 = lo, .doff = 1};
}

void md_share_window(md_conv_parts *p) {
  for (int i = 0; i < p->num; i++) {
    memcpy(p->part[i].lo, p->from.lo, sizeof p->from.lo);
    memcpy(p->part[i].window, p->from.window, sizeof p->from.window);
  }
}

void md_conv_split(const md_conv *c, md_conv_parts *p) {
  p->num = 0;
  for (int64_t r = 0; r < residues_of(c); r++)
    if (residue_problem(c, r, &p->part[p->num])) p->num++;
  p->from = p->part[0];
  for (int i = 0; i < 3 && p->num > 1; i++) p->from.tap[i] = joined_taps(p, i);
  choose_tile(c, &p->from);
  choose_chunk(c, &p->from);
  for (int i = 0; i < p->num; i++) {
    md_dense *d = &p->part[i];
    memcpy(d->tile, p->from.tile, sizeof d->tile);
    d->chunk = p->from.chunk;
    d->ahead = p->from.ahead;
  }
  md_share_window(p);
}

int md_cut_row(int64_t width, int64_t most, md_run run[4]) {
  // b tiles of most and a few of a smaller size that is at least 4; the smaller the rest the better.
  int64_t big = width / most, rest = width % most;
  int num = 0;
  if (rest && rest < 4 && big > 0 && most >= 6) {
    // 6 + 6 + 2 = 6 + 4 + 4, 6 + 3 = 5 + 4: the last big tile and the rest share their pixels
    big--;
    rest += most;
    int64_t half = rest / 2;
    if (big) run[num++] = (md_run){0, most, big};
    run[num++] = (md_run){big * most, rest - half, 1};
    run[num++] = (md_run){big * most + rest - half, half, 1};
    return num;
  }
  if (big) run[num++] = (md_run){0, most, big};
  if (rest) run[num++] = (md_run){big * most, rest, 1};
  return num;
}
