// SPDX-License-Identifier: Apache-2.0
// Weight gradient by Winograd's filtering (filter.h): squares of x and of dy become pixels of planes, some frames at a
// time (if the filter is along t: samples; with other taps along t: rows of tiles in all frames), so that the caches
// hold them. In a plane, for each pair of channels, it is the sum over pixels of x times dy, with x shifted by as many
// frames as the other tap is. Sums of all planes become dw. Taps along h and w, beside a filter along t, meet pixels of a
// plane that lie elsewhere, and with a stride not side by side: there all squares of a pixel follow one another.
//
// Where L2 has room for the sums of all planes, an item walks over its split of the frames, with planes of its own.
// Otherwise planes lie in the workspace, for the last cache, and a plane is an item.
#include "codegen/cpu/conv.h"
#include "codegen/cpu/filter.h"
#include "codegen/cpu/parts.h"

#include <math.h>

// Each round has code of its own.
enum {
  STRIP = 128,
  MAX_ACC = 24,
  SPARE_REGISTERS = 8,
  MAX_ROUNDS = 8,
  SPLITS = 4,
  LEAST_PIXELS = 32,
  LEAST_RUN = 16
};

// x or dy in the planes: [block][unit][frame][square][lane].
typedef struct Operand {
  md_val val;
  md_dense d;  // its window for a tile of dy
  int64_t channels, blocks;
  int64_t tiles, pixels;  // of a unit: windows, pixels of a plane
  int64_t step;           // elements from a plane to the next
  md_ir planes;           // the first one
  md_filter_part *part;
  int size, apart;  // pixels of a square along an axis, and from it to the next
} Operand;

typedef struct Wgrad {
  md_kernel *k;
  md_conv c;  // as if a forward convolution x -> dy
  const md_filter *f;
  Operand x, dy;
  int64_t size[3];           // of dy: t, h, w
  int64_t num[3];            // squares in a tile
  int64_t units, all_units;  // frames, samples or rows of tiles in the planes, and in all
  int64_t splits;            // items with planes of their own; 0: planes are items
  int64_t taps;              // beside the filter
  bool shifts_frames;        // they are along t
  bool images;               // they are along h and w, or have a stride there: a unit is a sample
  int64_t image[3];          // of x with its pads, as far as it is read
  int64_t elements;          // vectors in a unit's planes
  int64_t inner;             // input channels of a block that exist at most
  int64_t place, sums, of_tap;  // sums of a plane: [tap][dst block][src block][inner][lane]
} Wgrad;

// --- the plan

static int64_t vector_bytes(const md_conv *c) { return c->lanes * md_dtype_size(c->wide); }

// Multiply-adds of vectors; an element of a plane is made and, in the workspace, read again.
static double cost_of(const Wgrad *g) {
  const md_conv *c = &g->c;
  double squares = (double)c->n, taps = (double)g->taps;
  for (int i = 0; i < 3; i++) squares *= (double)md_filter_squares(g->f, i, g->size[i]);
  double pairs = (double)md_channel_pairs(c);
  double elements = (double)(g->all_units * g->elements) * (g->splits ? 1 : 2);
  return md_filter_planes(g->f) *
         (squares * pairs * taps + g->f->work * (elements + 2 * pairs * taps));
}

// Sets all_units, by g->num. Bytes of a unit's planes and of all sums; pixels of dy's planes.
typedef struct Room {
  int64_t unit, sums, pixels;
} Room;
static Room set_units(Wgrad *g, const md_dense *d) {
  const md_conv *c = &g->c;
  int64_t squares[3];
  for (int i = 0; i < 3; i++) squares[i] = md_filter_squares(g->f, i, g->size[i]);
  int axis = g->shifts_frames ? 1 : 0;  // a unit is a tile on this one, all of the other two
  int64_t in_dy = g->num[axis] * squares[1 - axis] * squares[2], in_x = in_dy;
  if (g->shifts_frames) in_x += (g->taps - 1) * d->tap[0].doff * g->num[1] * squares[2];
  if (g->images) in_x = squares[0] * g->image[1] * g->image[2];
  g->all_units = c->n * squares[axis] / g->num[axis];
  int64_t planes = md_filter_planes(g->f) * vector_bytes(c);
  g->elements = in_x * c->src_blocks + in_dy * c->dst_blocks;
  return (Room){.unit = planes * g->elements,
                .sums = planes * g->taps * c->dst_blocks * c->src_blocks * g->inner,
                .pixels = in_dy};
}

// Planes of as many units as L2 holds beside the sums. With taps along t units are smaller where tiles have fewer of
// the `squares` along an axis. False: no unit fits, or pixels are too few to add up.
static bool cut_into_splits(Wgrad *g, const md_dense *d, int axis, int64_t squares) {
  int64_t l2 = g->c.k->e.cpu->l2_bytes, most = g->num[axis];
  for (; g->num[axis] > 0; g->num[axis]--) {
    if (squares % g->num[axis]) continue;
    Room room = set_units(g, d);
    if (room.sums > l2 / 4) break;
    int64_t units = MD_MIN((l2 * 3 / 4 - room.sums) / room.unit, g->all_units);
    if (units < 1) continue;
    while (g->all_units % units) units--;
    if (units * room.pixels < LEAST_PIXELS) break;
    int64_t steps = g->all_units / units;
    g->units = units;
    g->splits = md_ceil_div(steps, md_ceil_div(steps, SPLITS));
    return true;
  }
  g->num[axis] = most;
  return false;
}

// Tiles whose rows of squares share the pixels between them, and that a strip holds.
static void cut(Wgrad *g, const md_dense *d) {
  const md_conv *c = &g->c;
  int64_t squares[3];
  for (int i = 0; i < 3; i++) {
    g->size[i] = d->grid[i];
    squares[i] = g->num[i] = md_filter_squares(g->f, i, d->grid[i]);
  }
  const int64_t *kernel = c->kernel;
  g->taps = g->f->along_t ? kernel[1] * kernel[2] : kernel[0];
  g->shifts_frames = !g->f->along_t && g->taps > 1;
  g->images = g->f->along_t && d->tail == 5;
  g->inner = MD_MIN(c->src_c, c->lanes);
  for (int i = 0; i < 3; i++)
    g->image[i] = (d->grid[i] - 1) * d->in_step[i] + (d->tap[i].num - 1) * d->tap[i].doff + 1;
  int shrinks = g->f->along_t ? 2 : 1;
  if (!g->f->along_t) g->num[0] = 1;
  int64_t *rows = &g->num[shrinks];
  while (!g->images && *rows > 1 &&
         (squares[shrinks] % *rows || g->num[0] * g->num[1] * g->num[2] > STRIP))
    --*rows;
  if (!g->images && cut_into_splits(g, d, shrinks, squares[shrinks])) return;
  Room room = set_units(g, d);
  int64_t rounds = md_ceil_div(g->all_units * room.unit, c->k->e.cpu->cache_bytes * 3 / 4);
  g->units = md_ceil_div(g->all_units, MD_MIN(rounds, MAX_ROUNDS));
}

// A window is an image. Sums are loaded and stored once for a pixel's squares in all units, which should be some.
static bool images_fit(const Wgrad *g) {
  int64_t bytes = vector_bytes(&g->c) * g->image[0] * g->image[1] * g->image[2];
  return g->units * g->num[0] >= LEAST_RUN && bytes <= g->c.k->e.cpu->l2_bytes / 2;
}

// The best filter, and how it is cut; its cost, infinite where none suits.
static double choose(Wgrad *g, md_conv_parts *problem) {
  double least = INFINITY;
  Wgrad best = *g;
  for (int i = 0; i < MD_FILTERS; i++) {
    Wgrad w = *g;
    md_conv_parts p;
    w.f = &md_filters[i];
    if (!md_filter_split(&g->c, w.f, &p)) continue;
    cut(&w, &p.part[0]);
    if (w.images && !images_fit(&w)) continue;
    double cost = cost_of(&w);
    if (cost >= least) continue;
    least = cost;
    best = w;
    *problem = p;
  }
  *g = best;
  return least;
}

static md_conv conv_of(md_kernel *k) {
  const md_node *node = k->r->anchor;
  return md_conv_of(k, node->in[1], node->out, node->in[0]);
}

const char *md_winograd_wgrad_refuse(const md_region_view *r, const md_cpu *cpu) {
  md_kernel k = {.r = r, .e.cpu = cpu};  // enough to plan with
  md_conv plain = conv_of(&k), c = md_conv_in_f32(plain);
  if (!cpu->winograd || c.dtype == MD_F64) return "";
  md_conv_parts p;
  Wgrad g = {.k = &k, .c = c};
  double cost = choose(&g, &p);
  return cost == INFINITY ? "" : md_filter_refuse(&plain, cost);
}

static void set_operand(Wgrad *g, Operand *o, md_val v, int64_t channels, const md_dense *d) {
  const md_conv *c = &g->c;
  o->val = v;
  o->d = *d;
  o->channels = channels;
  o->blocks = md_ceil_div(channels, c->lanes);
  for (int i = 0; i < 3; i++) {
    o->d.tile[i] = g->num[i] * md_filter_step(g->f, i);
    o->d.grid[i] = md_round_up(g->size[i], o->d.tile[i]);
  }
  if (g->shifts_frames) {  // frames one by one, those that other taps reach as well
    o->d.grid[0] += (d->tap[0].num - 1) * d->tap[0].doff;
    o->d.tap[0].num = 1;
  }
  md_set_window(&o->d);
  o->tiles = md_dense_tiles(&o->d) * c->n / g->all_units;
  o->pixels = o->tiles * g->num[0] * g->num[1] * g->num[2];
  if (g->images) o->pixels = g->num[0] * o->d.window[1] * o->d.window[2];
  o->step = md_plane_vectors(o->blocks * g->units * o->pixels) * c->lanes;
}
static int64_t planes_bytes(const Wgrad *g, const Operand *o) {
  return md_filter_planes(g->f) * o->step * md_dtype_size(g->c.wide);
}
static int64_t window_bytes(const Wgrad *g, const Operand *o) {
  return md_round_up(md_window_bytes(&g->c, &o->d), 64);
}

// Units of the round that begins there.
static int64_t units_from(const Wgrad *g, int64_t unit) {
  return MD_MIN(g->units, g->all_units - unit);
}

// --- planes

// Squares of tile `index` of `units` units, from `unit` on, for all channels.
static void tile_to_planes(const Wgrad *g, const Operand *o, md_ir unit, int64_t units, md_ir index,
                           md_ir window) {
  const md_conv *c = &g->c;
  const md_dense *d = &o->d;
  md_emit *e = &g->k->e;
  const int64_t num[3] = {g->num[0], g->images ? d->window[1] : g->num[1],
                          g->images ? d->window[2] : g->num[2]};
  md_squares q = md_squares_in_order(c, g->f, num);
  q.height = d->window[1];
  q.width = d->window[2];
  q.size = o->size;
  q.step = o->apart;
  int64_t of_tile = num[0] * num[1] * num[2];
  if (g->images) {  // a pixel's squares of all units
    of_tile = num[0];
    q.in_plane[0] = 1;
    q.in_plane[2] = g->units * num[0];
    q.in_plane[1] = num[2] * q.in_plane[2];
  }
  int64_t along[3], in_sample = g->all_units / c->n;  // units
  for (int i = 0; i < 3; i++) along[i] = d->grid[i] / d->tile[i];
  int64_t tiles[2] = {units, o->tiles};
  md_ir at[2], tile[3], zero = md_i64(e, 0);
  md_split_index(e, index, 2, tiles, at);
  md_ir u = md_iadd(e, at[0], unit), n = md_idivc(e, u, in_sample);
  md_ir in_n = md_imodc(e, u, in_sample);
  if (g->shifts_frames) {
    tile[0] = at[1];
    tile[1] = in_n;
    tile[2] = zero;
  } else {
    md_split_index(e, md_iadd(e, md_imulc(e, in_n, tiles[1]), at[1]), 3, along, tile);
  }
  md_ir m0[3];
  for (int i = 0; i < 3; i++) m0[i] = md_imulc(e, tile[i], d->tile[i]);
  md_loop b = md_loop_begin(e, zero, md_i64(e, o->blocks), 1, "block");
  md_pack_window(c, d, o->val, o->channels, b.i, md_i64(e, 1), n, m0, d->tile, window, NULL);
  md_ir first = md_iadd(e, md_imulc(e, b.i, g->units * o->pixels), md_imulc(e, index, of_tile));
  md_planes to = {o->planes, md_imulc(e, first, c->lanes), o->step};
  md_squares_to_planes(&q, o->part, window, &to);
  md_loop_end(e, &b);
}

// --- products

typedef struct Product {
  const Wgrad *g;
  md_ir x, dy, sums;  // of the plane
  md_ir first, last;  // pixels of the strip, in dy
  md_ir shift;        // where they are in x, from there
  bool only;          // there is no other strip
} Product;

// acc[row][block] over the strip's pixels; a row is an input channel of the block.
static void register_tile(const Product *t, int64_t row0, int64_t rows, int blocks, md_ir ob,
                          md_ir ib) {
  const Wgrad *g = t->g;
  const md_conv *c = &g->c;
  md_emit *e = &g->k->e;
  md_var acc[MAX_ACC];
  md_ir zero = md_const(e, c->type, c->lanes, 0);
  for (int64_t i = 0; i < rows * blocks; i++)
    acc[i] = md_var_new(e, md_lanes_type(c->type, c->lanes), NULL, "acc");
  for (int64_t i = 0; i < rows * blocks; i++) md_set(e, acc[i], zero);
  md_loop q = md_loop_begin(e, t->first, t->last, 1, "pixel");
  md_ir xi = md_iadd(e, md_imulc(e, ib, g->units * g->x.pixels), md_iadd(e, q.i, t->shift)), y[2];
  xi = md_imulc(e, xi, c->lanes);
  for (int b = 0; b < blocks; b++) {
    md_ir block = md_imulc(e, md_iaddc(e, ob, b), g->units * g->dy.pixels);
    y[b] =
        md_load(e, c->wide, t->dy, md_imulc(e, md_iadd(e, block, q.i), c->lanes), c->lanes, NULL);
  }
  for (int64_t r = 0; r < rows; r++) {
    md_ir x = md_load(e, c->wide, t->x, md_iaddc(e, xi, row0 + r), 1, NULL);
    x = md_splat(e, x, c->lanes);
    for (int b = 0; b < blocks; b++) {
      md_var a = acc[r * blocks + b];
      md_set(e, a, md_fma(e, x, y[b], md_get(e, a)));
    }
  }
  md_loop_end(e, &q);
  for (int64_t i = 0; i < rows * blocks; i++) {
    md_ir at = md_iadd(e, md_imulc(e, md_iaddc(e, ob, i % blocks), c->src_blocks), ib);
    at = md_imulc(e, md_iaddc(e, md_imulc(e, at, g->inner), row0 + i / blocks), c->lanes);
    md_ir sum = md_get(e, acc[i]);
    if (!t->only) sum = md_fadd(e, md_load(e, c->wide, t->sums, at, c->lanes, NULL), sum);
    md_store(e, c->wide, t->sums, at, sum, NULL);
  }
}

static void block_group(const void *product, int blocks, md_ir ob) {
  const Product *t = product;
  const Wgrad *g = t->g;
  md_emit *e = &g->k->e;
  md_loop ib = md_loop_begin(e, md_i64(e, 0), md_i64(e, g->c.src_blocks), 1, "i_block");
  int64_t most = MD_MIN(MAX_ACC, e->cpu->registers - SPARE_REGISTERS) / blocks;
  int64_t each = md_ceil_div(g->inner, md_ceil_div(g->inner, most));
  for (int64_t row = 0; row < g->inner; row += each)
    register_tile(t, row, MD_MIN(each, g->inner - row), blocks, ob, ib.i);
  md_loop_end(e, &ib);
}

// Strips of the plane's pixels stay in L1 while all taps and blocks are run over. A run of pixels is one in both
// operands: with other taps a unit, which has more frames in x, else all.
static void run_strips(const Wgrad *g, Product *t, int64_t pixels) {
  const md_conv *c = &g->c;
  md_emit *e = &g->k->e;
  int64_t run = g->shifts_frames ? g->dy.pixels : pixels;
  int64_t frames = g->num[1] * g->num[2] * g->x.d.tap[0].doff;  // from a tap to the next
  md_ir zero = md_i64(e, 0), sums = t->sums;
  md_loop u = md_loop_begin(e, zero, md_i64(e, pixels / run), 1, "unit");
  md_ir from = md_imulc(e, u.i, run), to = md_iaddc(e, from, run);
  md_loop strip = md_loop_begin(e, from, to, STRIP, "strip");
  t->first = strip.i;
  t->last = md_imin(e, md_iaddc(e, strip.i, STRIP), to);
  md_loop tap = md_loop_begin(e, zero, md_i64(e, g->taps), 1, "tap");
  t->shift = md_iadd(e, md_imulc(e, u.i, g->x.pixels - g->dy.pixels), md_imulc(e, tap.i, frames));
  t->sums = md_at(e, c->wide, sums, md_imulc(e, tap.i, g->of_tap));
  md_in_pairs(e, c->dst_blocks, block_group, t);
  md_loop_end(e, &tap);
  md_loop_end(e, &strip);
  md_loop_end(e, &u);
}

// Pixels of dy along an axis that meet an element of x inside of it at offset `off`: [from, to).
static void meets(const Wgrad *g, int axis, md_ir off, md_ir *from, md_ir *to) {
  md_emit *e = &g->k->e;
  int64_t step = g->x.d.in_step[axis];
  md_ir zero = md_i64(e, 0), before = md_imax(e, md_isub(e, zero, off), zero);
  md_ir left = md_imax(e, md_isub(e, md_i64(e, g->x.d.in_size[axis]), off), zero);
  *from = md_idivc(e, md_iaddc(e, before, step - 1), step);
  *to = md_imin(e, md_idivc(e, md_iaddc(e, left, step - 1), step), md_i64(e, g->size[axis]));
}

// The sums of one tap in images: of the first `units` units, pixel by pixel.
static void run_images(const Wgrad *g, Product *t, md_ir tap, int64_t units) {
  const md_conv *c = &g->c;
  const md_dense *d = &g->x.d;
  md_emit *e = &g->k->e;
  int64_t run = g->units * g->num[0];
  md_ir k[3] = {NULL, md_idivc(e, tap, c->kernel[2]), md_imodc(e, tap, c->kernel[2])};
  md_ir in_x = md_i64(e, 0), in_dy = in_x;
  md_loop at[3];
  for (int i = 1; i < 3; i++) {
    md_ir off = md_iaddc(e, md_imulc(e, k[i], d->tap[i].doff), d->tap[i].off0), from, to;
    meets(g, i, off, &from, &to);
    at[i] = md_loop_begin(e, from, to, 1, "pixel");
    md_ir x = md_iadd(e, md_imulc(e, at[i].i, d->in_step[i]), md_iaddc(e, off, -d->lo[i]));
    in_x = md_iadd(e, md_imulc(e, in_x, d->window[i]), x);
    in_dy = md_iadd(e, md_imulc(e, in_dy, g->size[i]), at[i].i);
  }
  md_ir from = md_imulc(e, in_dy, run), to = md_iaddc(e, from, units * g->num[0]);
  t->shift = md_isub(e, md_imulc(e, in_x, run), from);
  md_loop strip = md_loop_begin(e, from, to, STRIP, "strip");
  t->first = strip.i;
  t->last = md_imin(e, md_iaddc(e, strip.i, STRIP), to);
  md_in_pairs(e, c->dst_blocks, block_group, t);
  md_loop_end(e, &strip);
  for (int i = 2; i > 0; i--) md_loop_end(e, &at[i]);
}

// Adds up the first `pixels` pixels of plane p, in images for one tap; `only`: there are no others.
static void add_products(const Wgrad *g, md_ir p, md_ir tap, md_ir sums, int64_t pixels,
                         bool only) {
  md_emit *e = &g->k->e;
  const md_conv *c = &g->c;
  Product t = {.g = g, .only = only};
  t.x = md_at(e, c->wide, g->x.planes, md_imulc(e, p, g->x.step));
  t.dy = md_at(e, c->wide, g->dy.planes, md_imulc(e, p, g->dy.step));
  t.sums = md_at(e, c->wide, sums, md_imulc(e, p, g->sums));
  if (!g->images) {
    run_strips(g, &t, pixels);
    return;
  }
  t.sums = md_at(e, c->wide, t.sums, md_imulc(e, tap, g->of_tap));
  run_images(g, &t, tap, pixels / g->dy.pixels);
}

static void clear(const Wgrad *g, md_ir sums, int64_t elements) {
  const md_conv *c = &g->c;
  md_emit *e = &g->k->e;
  md_loop z = md_loop_begin(e, md_i64(e, 0), md_i64(e, elements), c->lanes, "clear");
  md_store(e, c->wide, sums, z.i, md_const(e, c->type, c->lanes, 0), NULL);
  md_loop_end(e, &z);
}

// --- phases

// An item is a split of the units, some of them at a time.
static void emit_splits(Wgrad *g) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  const md_conv *c = &g->c;
  int64_t planes = md_filter_planes(g->f), steps = g->all_units / g->units;
  int64_t window = MD_MAX(window_bytes(g, &g->x), window_bytes(g, &g->dy));
  int64_t of_x = planes_bytes(g, &g->x), each = md_ceil_div(steps, g->splits);
  md_phase_begin(k, "winograd", g->splits, window + of_x + planes_bytes(g, &g->dy));
  g->x.planes = md_at(e, MD_U8, k->scratch, md_i64(e, window));
  g->dy.planes = md_at(e, MD_U8, k->scratch, md_i64(e, window + of_x));
  md_ir zero = md_i64(e, 0), sums = md_workspace(k, g->place);
  sums = md_at(e, c->wide, sums, md_imulc(e, k->item, planes * g->sums));
  clear(g, sums, planes * g->sums);
  md_ir first = md_imulc(e, k->item, each);
  md_ir last = md_imin(e, md_iaddc(e, first, each), md_i64(e, steps));
  md_loop step = md_loop_begin(e, first, last, 1, "step");
  md_ir unit = md_imulc(e, step.i, g->units);
  for (int i = 0; i < 2; i++) {
    const Operand *o = i ? &g->dy : &g->x;
    md_loop tile = md_loop_begin(e, zero, md_i64(e, g->units * o->tiles), 1, "tile");
    tile_to_planes(g, o, unit, g->units, tile.i, k->scratch);
    md_loop_end(e, &tile);
  }
  md_loop p = md_loop_begin(e, zero, md_i64(e, planes), 1, "plane");
  add_products(g, p.i, zero, sums, g->units * g->dy.pixels, false);
  md_loop_end(e, &p);
  md_loop_end(e, &step);
  md_phase_end(k);
}

// A phase: an item is a tile.
static void emit_planes(const Wgrad *g, Operand *o, int64_t place, int64_t unit) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  int64_t units = units_from(g, unit);
  md_phase_begin(k, "planes", units * o->tiles, window_bytes(g, o));
  o->planes = md_workspace(k, place);
  tile_to_planes(g, o, md_i64(e, unit), units, k->item, k->scratch);
  md_phase_end(k);
}

// Rounds of some units: planes of both operands, and a phase in which a plane is an item.
static void emit_rounds(Wgrad *g) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  const md_conv *c = &g->c;
  int64_t x = md_workspace_reserve(k, planes_bytes(g, &g->x));
  int64_t dy = md_workspace_reserve(k, planes_bytes(g, &g->dy));
  for (int64_t unit = 0; unit < g->all_units; unit += g->units) {
    emit_planes(g, &g->x, x, unit);
    emit_planes(g, &g->dy, dy, unit);
    int64_t pixels = units_from(g, unit) * g->dy.pixels;
    bool one_strip = pixels <= STRIP && (!g->shifts_frames || pixels == g->dy.pixels);
    bool only = one_strip && g->units == g->all_units && !g->images;
    // An item is a plane or, in images, a tap of it.
    int64_t taps = g->images ? g->taps : 1, elements = g->images ? g->of_tap : g->sums;
    md_phase_begin(k, "products", md_filter_planes(g->f) * taps, 0);
    g->x.planes = md_workspace(k, x);
    g->dy.planes = md_workspace(k, dy);
    md_ir sums = md_workspace(k, g->place), p = md_idivc(e, k->item, taps);
    md_ir tap = md_imodc(e, k->item, taps);
    md_ir of_item = md_iadd(e, md_imulc(e, p, g->sums), md_imulc(e, tap, g->of_tap));
    if (unit == 0 && !only) clear(g, md_at(e, c->wide, sums, of_item), elements);
    add_products(g, p, tap, sums, pixels, only);
    md_phase_end(k);
  }
}

// dw of a pair of blocks, in scratch: [tap][row][lane].
static md_ir scratch_at(const Wgrad *g, md_ir tap, md_ir row) {
  md_emit *e = &g->k->e;
  return md_imulc(e, md_iadd(e, md_imulc(e, tap, g->inner), row), g->c.lanes);
}
static md_ir from_scratch(const void *wgrad, md_ir ob, md_ir ib, md_ir tap, md_ir row) {
  const Wgrad *g = wgrad;
  (void)ob;
  (void)ib;
  return md_load(&g->k->e, g->c.wide, g->k->scratch, scratch_at(g, tap, row), g->c.lanes, NULL);
}

// A phase: an item is a pair of blocks.
static void emit_results(const Wgrad *g) {
  md_kernel *k = g->k;
  md_emit *e = &k->e;
  const md_conv *c = &g->c;
  int64_t size[2] = {c->dst_blocks, c->src_blocks};
  int cols = g->f->along_t ? 1 : g->f->n, r = g->f->r, of_filter = g->f->along_t ? r : r * r;
  int64_t vectors = g->taps * of_filter * g->inner;
  md_phase_begin(k, "results", size[0] * size[1], vectors * c->lanes * md_dtype_size(c->wide));
  md_ir from = md_workspace(k, g->place), at[2], zero = md_i64(e, 0);
  md_split_index(e, k->item, 2, size, at);
  md_loop tap = md_loop_begin(e, zero, md_i64(e, g->taps), 1, "tap");
  md_loop row = md_loop_begin(e, zero, md_i64(e, g->inner), 1, "i");
  md_ir off = md_iadd(e, md_imulc(e, k->item, g->inner), row.i);
  off = md_iadd(e, md_imulc(e, off, c->lanes), md_imulc(e, tap.i, g->of_tap));
  md_square x;
  for (int i = 0; i < md_filter_planes(g->f); i++) {
    md_ir sum = NULL;
    for (int64_t split = 0; split < MD_MAX(g->splits, 1); split++) {
      md_ir element = md_iaddc(e, off, (split * md_filter_planes(g->f) + i) * g->sums);
      md_ir part = md_load(e, c->wide, from, element, c->lanes, NULL);
      sum = sum ? md_fadd(e, sum, part) : part;
    }
    x[i / cols][i % cols] = sum;
  }
  md_filter_weight_gradient(e, g->f, x);
  for (int i = 0; i < of_filter; i++) {
    md_ir in_dw = g->f->along_t ? md_iaddc(e, tap.i, i * g->taps)
                                : md_iaddc(e, md_imulc(e, tap.i, of_filter), i);
    md_ir to = scratch_at(g, in_dw, row.i);
    md_store(e, c->wide, k->scratch, to, g->f->along_t ? x[i][0] : x[i / r][i % r], NULL);
  }
  md_loop_end(e, &row);
  md_loop_end(e, &tap);
  md_store_weights(c, at[0], at[1], from_scratch, g);
  md_phase_end(k);
}

void md_emit_conv_winograd_wgrad(md_kernel *k) {
  Wgrad g = {.k = k, .c = md_conv_in_f32(conv_of(k))};
  k->in_f32 = true;
  md_conv *c = &g.c;
  md_conv_parts p;
  choose(&g, &p);
  p.part[0].chunk = 1;
  g.x = (Operand){.part = md_filter_source, .size = g.f->in, .apart = g.f->in_step};
  g.dy = (Operand){.part = md_filter_result_gradient, .size = g.f->m, .apart = g.f->m};
  md_dense yd = p.part[0];
  for (int i = 0; i < 3; i++) {
    yd.in_size[i] = g.size[i];
    yd.in_step[i] = 1;
    yd.tap[i] = (md_taps){.num = 1};
  }
  set_operand(&g, &g.x, c->src, c->src_c, &p.part[0]);
  set_operand(&g, &g.dy, k->r->anchor->in[0], c->dst_c, &yd);
  g.of_tap = c->dst_blocks * c->src_blocks * g.inner * c->lanes;
  g.sums = md_plane_vectors(g.taps * g.of_tap / c->lanes) * c->lanes;
  g.place = md_workspace_reserve(k, MD_MAX(g.splits, 1) * md_filter_planes(g.f) * g.sums *
                                        md_dtype_size(c->wide));
  if (g.splits) emit_splits(&g);
  else emit_rounds(&g);
  emit_results(&g);
}
