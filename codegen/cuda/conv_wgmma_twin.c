// SPDX-License-Identifier: Apache-2.0
// Both gradients of a 1x1x1 convolution with wgmma (conv_ring.c), where dy or the source has 64 channels and
// the other a multiple of 128. What it costs is to read dy, the source and what they are made from: a block
// reads all of it once, for 128 pixels at a time, in panels of 64 channels, each a stage of the ring:
//
//   kept    the panel of the side that has one; it stays while the others pass
//   passing the panels of the other side, two by two: a warpgroup makes the gradient for the weights from its
//           own of the two
//
//   dx [pixel][in]  = dy [pixel][out] x weights             64 columns at a time, by the finish, as in conv.c
//   dw [out][in]   += dy^T [out][pixel] x source            stays in registers to the end: a part
//
// The weights stay in shared memory. Panels lie there as lines of 64 channels for each pixel: dx reads them as
// they lie, dw across.
#include "codegen/cuda/conv.h"

enum {
  PIXELS = MD_CU_WGMMA_PIXELS,
  LINE = MD_CU_WGMMA_STEP,  // channels of a panel
  PANEL = PIXELS * LINE,
  WEIGHTS = LINE * LINE,  // of a panel of either side
  CONSUMERS = MD_CU_THREADS,
  BLOCKS = 132,       // the multiprocessors of an H100 or H200
  REGISTERS = 136,    // of a thread that multiplies
  MOST_WORDS = 12,    // that a thread loads for eight channels of both sides
  FINISH_WORDS = 16,  // at once, beside the sums of dw
  LEAST_STAGES = 4,   // the panel that is kept, two that pass, and one on its way
};

typedef struct Twins {
  md_cu_work *w;
  const md_node *dgrad, *wgrad;
  int64_t in, out, samples, groups, parts;  // channels of dx and dy; parts: blocks of a group
  bool keeps_dy;                            // or else the source
  int pairs;                                // of panels that pass
  md_cu_map map;
  md_cu_pack pack;
  md_cu_tile dx;
  md_cu_finish finish;
  int64_t weights, dw_at;  // places in the workspace
  md_cu_side kept, passing;
  md_cu_ring ring;
  int finish_at, sums_at, tables_at;  // in shared memory
  md_cu_kernel k;
} Twins;

// --- shared memory

static int columns(const Twins *t) { return (int)(t->in / LINE); }

static int sums_bytes(const Twins *t) { return columns(t) * md_cu_sums_bytes(&t->finish, &t->dx); }

static int tables_bytes(const Twins *t) {
  return md_cu_table_bytes(&t->kept.lanes) + md_cu_table_bytes(&t->passing.lanes) +
         md_cu_table_bytes(&t->finish.lanes);
}

// The weights lie between the stages and the barriers, where rings of two operands have the other one.
static void lay_out(Twins *t) {
  int weights = 2 * t->pairs * WEIGHTS * 2;
  int finish = (int)md_round_up(md_cu_finish_bytes(&t->finish, &t->dx), 128);
  t->ring = md_cu_ring_of(PANEL * 2, 0, weights + finish + sums_bytes(t) + tables_bytes(t), 0);
  t->ring.barriers += weights;
  t->ring.end += weights;
  t->finish_at = t->ring.end;
  t->sums_at = t->finish_at + finish;
  t->tables_at = t->sums_at + sums_bytes(t);
}

static int put_table(Twins *t, const md_cu_lanes *l, int at) {
  if (l->num_slots)
    md_cu_line(&t->k, NULL, "float *const %stable = (float *)(ring + %d);", l->prefix, at);
  return at + md_cu_table_bytes(l);
}

// A loop over columns of dx, 64 at a time, with the sums of each.
static md_cu_mark open_columns(Twins *t) {
  md_cu_kernel *k = &t->k;
  md_cu_line(k, NULL, "MD_NO_UNROLL");
  md_cu_mark m =
      md_cu_open(k, NULL, "for (int n0 = 0; n0 < %lld; n0 += %d) {", (long long)t->in, LINE);
  if (t->finish.num_sums)
    md_cu_line(k, "[sum][column]", "double *const sums = all_sums + n0 * %d;", t->finish.num_sums);
  return m;
}

// The barrier behind those of the ring tells that the weights are there.
static void put_shared(Twins *t) {
  md_cu_kernel *k = &t->k;
  md_cu_ring_put(k, &t->ring);
  md_cu_line(k, NULL, "unsigned char *const shared = ring + %d;", t->finish_at);
  md_cu_line(k, NULL, "md_u64 *const loaded = full + %d;", 2 * t->ring.stages);
  if (t->finish.num_sums)
    md_cu_line(k, NULL, "double *const all_sums = (double *)(ring + %d);", t->sums_at);
  int at = put_table(t, &t->kept.lanes, t->tables_at);
  at = put_table(t, &t->passing.lanes, at);
  k->shared_bytes = put_table(t, &t->finish.lanes, at);
  md_cu_mark m = md_cu_open(k, NULL, "if (md_thread() == 0) {");
  md_cu_line(k, NULL, "md_bar_init(loaded, 1);");
  md_cu_line(k, NULL, "md_bar_fence();");
  md_cu_close(k, m);
  m = md_cu_open(k, NULL, "if (md_thread() < %d) {", MD_CU_THREADS);
  md_cu_put_table(k, &t->kept.lanes);
  md_cu_put_table(k, &t->passing.lanes);
  md_cu_put_table(k, &t->finish.lanes);
  if (t->finish.num_sums) {
    md_cu_mark c = open_columns(t);
    md_cu_put_sums(k, &t->finish, &t->dx);
    md_cu_close(k, c);
  }
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
}

static md_cu_mark open_tiles(Twins *t) {
  return md_cu_open(&t->k, NULL, "for (int m0 = part * %d; m0 < pixels; m0 += stride) {", PIXELS);
}

static void put_next(Twins *t) {
  md_cu_line(&t->k, NULL, "if (++stage == %d) stage = 0, parity ^= 1;", t->ring.stages);
}

// --- bringing

static void put_weights(Twins *t) {
  md_cu_kernel *k = &t->k;
  int bytes = 2 * t->pairs * WEIGHTS * 2;
  const char *from = md_cu_workspace(k, t->weights, md_cu_pack_bytes(&t->pack), "md_bf16", false);
  md_cu_mark m = md_cu_open(k, NULL, "if (md_thread() == %d) {", CONSUMERS);
  md_cu_line(k, NULL, "md_bar_expect(loaded, %d);", bytes);
  md_cu_line(k, NULL, "md_bulk_load(bs, %s, %d, loaded);", from, bytes);
  md_cu_close(k, m);
}

// In a loop over the rows: the thread's vector of a panel, of the pixels from `first` on.
static void put_load(Twins *t, const md_cu_side *s, const char *first) {
  md_cu_kernel *k = &t->k;
  const char *p = s->p;
  md_cu_line(k, NULL, "const int p = %s + line;", first);
  md_cu_line(k, NULL, "%sp[i] = sample0 * %lld + p;", p, (long long)md_cu_map_places(&t->map));
  if (t->groups > 1)
    md_cu_line(k, NULL, "%sn[i] = sample0 + p / %lld;", p, (long long)md_cu_map_places(&t->map));
  md_cu_line(k, NULL, "%sin[i] = p < pixels;", p);
  md_cu_side_load(k, s);
}

static const char *chunk_of(Twins *t, const md_cu_side *s, const char *panel) {
  return md_format(t->w->arena, "%s * %d + %s %% %d * 8", panel, LINE, s->thread, s->chunks);
}

// Those of the block's first tile.
static void put_first(Twins *t, const md_cu_side *s) {
  md_cu_kernel *k = &t->k;
  md_cu_side_declare(k, s);
  md_cu_line(k, NULL, "%s = %s;", s->lanes.first, chunk_of(t, s, "0"));
  md_cu_mark m = md_cu_side_open(k, s);
  put_load(t, s, md_format(t->w->arena, "part * %d", PIXELS));
  md_cu_close(k, m);
}

// A row is made and stored, and then its registers take that of panel `panel` of the tile of pixel `first`.
static void put_panel(Twins *t, const md_cu_side *s, const char *first, const char *panel) {
  md_cu_kernel *k = &t->k;
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  md_cu_side_prepare(k, s);
  md_cu_mark m = md_cu_side_open(k, s);
  md_cu_mark in = md_cu_open(k, NULL, "{");
  md_cu_side_store_row(k, s, md_format(t->w->arena, "as + stage * %d", PANEL));
  md_cu_close(k, in);
  in = md_cu_open(k, NULL, "{");
  if (panel) md_cu_line(k, NULL, "const int %s = %s;", s->lanes.first, chunk_of(t, s, panel));
  put_load(t, s, first);
  md_cu_close(k, in);
  md_cu_close(k, m);
  md_cu_ring_brought(k, &t->ring);
}

static void put_production(Twins *t) {
  md_cu_kernel *k = &t->k;
  put_weights(t);
  md_cu_line(k, NULL, "int stage = 0, parity = 1;");
  put_first(t, &t->kept);
  put_first(t, &t->passing);
  md_cu_mark tiles = open_tiles(t), m = md_cu_open(k, NULL, "{");
  put_panel(t, &t->kept, "m0 + stride", NULL);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "MD_NO_UNROLL");
  m = md_cu_open(k, NULL, "for (int panel = 0; panel < %d; panel++) {", 2 * t->pairs);
  md_cu_line(k, NULL, "const int is_last = panel == %d;", 2 * t->pairs - 1);
  md_cu_line(k, NULL, "const int next0 = is_last ? m0 + stride : m0;");
  md_cu_line(k, NULL, "const int next = is_last ? 0 : panel + 1;");
  md_cu_line(k, NULL, "%s = %s;", t->passing.lanes.first, chunk_of(t, &t->passing, "panel"));
  put_panel(t, &t->passing, "next0", "next");
  md_cu_close(k, m);
  md_cu_close(k, tiles);
}

// --- multiplying

static void put_wait(Twins *t, const char *name) {
  md_cu_kernel *k = &t->k;
  md_cu_line(k, NULL, "const int %s = stage;", name);
  md_cu_line(k, NULL, "md_bar_wait(full + stage, parity);");
  put_next(t);
}

static void put_free(Twins *t, const char *name) {
  md_cu_line(&t->k, NULL, "if (md_lane() == 0) md_bar_arrive(empty + %s);", name);
}

// acc += the warpgroup's 64 pixels of the panel in stage `panel`, times panel `weights` of those.
static void put_dx(Twins *t, const char *panel, const char *weights) {
  md_cu_kernel *k = &t->k;
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int z = 0; z < %d; z++) {", LINE / 16);
  md_cu_line(k, NULL,
             "md_wgmma64(acc[0][0], md_desc128(as + %s * %d + half * %d + z * 16), md_desc128(bs + "
             "%s * %d + z * 16));",
             panel, PANEL, PANEL / 2, weights, WEIGHTS);
  md_cu_close(k, m);
}

static void put_dw(Twins *t, int pair) {
  md_cu_kernel *k = &t->k;
  const char *dy = t->keeps_dy ? "kept" : "mine", *x = t->keeps_dy ? "mine" : "kept";
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int z = 0; z < %d; z++) {", PIXELS / 16);
  md_cu_line(k, NULL,
             "md_wgmma64t(dw[%d][0], md_desc128t(as + %s * %d + z * %d, %d), md_desc128t(as + %s * "
             "%d + z * %d, %d));",
             pair, dy, PANEL, 16 * LINE, PANEL * 2, x, PANEL, 16 * LINE, PANEL * 2);
  md_cu_close(k, m);
}

static void put_begin(Twins *t, int pair) {
  md_cu_kernel *k = &t->k;
  if (pair < 0 || !t->keeps_dy) md_cu_line(k, NULL, "md_wgmma_ready(acc[0][0], 32);");
  if (pair >= 0) md_cu_line(k, NULL, "md_wgmma_ready(dw[%d][0], 32);", pair);
  md_cu_line(k, NULL, "md_wgmma_fence();");
}

static void put_end(Twins *t, int pair) {
  md_cu_kernel *k = &t->k;
  md_cu_line(k, NULL, "md_wgmma_commit();");
  md_cu_line(k, NULL, "md_wgmma_wait(0);");
  if (pair < 0 || !t->keeps_dy) md_cu_line(k, NULL, "md_wgmma_ready(acc[0][0], 32);");
  if (pair >= 0) md_cu_line(k, NULL, "md_wgmma_ready(dw[%d][0], 32);", pair);
}

static void put_pair(Twins *t, int pair) {
  md_cu_kernel *k = &t->k;
  md_cu_mark m = md_cu_open(k, NULL, "{");
  put_wait(t, "one");
  put_wait(t, "two");
  md_cu_line(k, NULL, "const int mine = half ? two : one;");
  md_cu_line(k, NULL, "md_fence_async();");
  put_begin(t, pair);
  if (!t->keeps_dy) {
    put_dx(t, "one", md_format(t->w->arena, "%d", 2 * pair));
    put_dx(t, "two", md_format(t->w->arena, "%d", 2 * pair + 1));
  }
  put_dw(t, pair);
  put_end(t, pair);
  put_free(t, "one");
  put_free(t, "two");
  md_cu_close(k, m);
}

static void put_consumption(Twins *t) {
  md_cu_kernel *k = &t->k;
  k->sync = "md_sync_part(1, 256);";
  md_cu_line(k, NULL, "int stage = 0, parity = 0;");
  md_cu_line(k, "number of the warpgroup", "const int half = md_warp() / 4;");
  md_cu_line(k, NULL, "float dw[%d][8][4] = {{{0}}};", t->pairs);
  md_cu_line(k, NULL, "md_bar_wait(loaded, 0);");
  md_cu_mark tiles = open_tiles(t);
  if (!t->keeps_dy) md_cu_put_accumulators(k, &t->dx);
  put_wait(t, "kept");
  for (int i = 0; i < t->pairs; i++) put_pair(t, i);
  if (!t->keeps_dy) put_free(t, "kept");
  md_cu_mark c = open_columns(t);
  if (t->keeps_dy) {
    md_cu_put_accumulators(k, &t->dx);
    put_begin(t, -1);
    put_dx(t, "kept", md_format(t->w->arena, "n0 / %d", LINE));
    put_end(t, -1);
  }
  md_cu_put_finish(k, &t->finish, &t->dx, &t->map, "pixels");
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_close(k, c);
  if (t->keeps_dy) put_free(t, "kept");
  md_cu_close(k, tiles);
}

static int64_t dw_bytes(const Twins *t) { return t->parts * t->groups * t->out * t->in * 4; }

static void put_part(Twins *t) {
  md_cu_kernel *k = &t->k;
  const char *to = md_cu_workspace(k, t->dw_at, dw_bytes(t), "float", true);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark p = md_cu_open(k, NULL, "for (int pair = 0; pair < %d; pair++) {", t->pairs);
  md_cu_line(k, NULL, "const int first = (2 * pair + half) * %d;", LINE);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark x = md_cu_open(k, NULL, "for (int x = 0; x < 2; x++) {");
  md_cu_line(k, NULL, "const int row = %smd_warp() %% 4 * 16 + x * 8 + md_lane() / 4;",
             t->keeps_dy ? "" : "first + ");
  md_cu_line(k, NULL, "float *const to = %s + (md_block() * %lld + row) * %lld%s;", to,
             (long long)t->out, (long long)t->in, t->keeps_dy ? " + first" : "");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark y = md_cu_open(k, NULL, "for (int y = 0; y < 8; y++) {");
  md_cu_line(k, NULL, "to[y * 8 + md_lane() %% 4 * 2] = dw[pair][y][x * 2];");
  md_cu_line(k, NULL, "to[y * 8 + md_lane() %% 4 * 2 + 1] = dw[pair][y][x * 2 + 1];");
  md_cu_close(k, y);
  md_cu_close(k, x);
  md_cu_close(k, p);
}

// --- the kernel

static void make_texts(Twins *t) {
  md_val dy = t->dgrad->in[0], x = t->wgrad->in[1];
  md_cu_side form = {.tile = &t->dx,
                     .lines = PIXELS,
                     .chunks = LINE / MD_CU_LANES,
                     .thread = "(md_thread() & 255)",
                     .sets = 1,
                     .by_pixel = true,
                     .is_made = true};
  t->kept = md_cu_side_of(&t->k, "a", t->keeps_dy ? dy : x, &form, t->groups, false);
  t->passing = md_cu_side_of(&t->k, "b", t->keeps_dy ? x : dy, &form, t->groups, false);
  md_cu_finish_texts(&t->k, &t->finish);
}

static void free_texts(Twins *t) {
  md_cu_lanes_free(&t->kept.lanes);
  md_cu_lanes_free(&t->passing.lanes);
  md_cu_lanes_free(&t->finish.lanes);
}

static bool fits(Twins *t) {
  md_cu_begin(&t->k, t->w, "to be measured");
  make_texts(t);
  lay_out(t);
  int words = md_cu_vector_words(&t->kept.lanes) + md_cu_vector_words(&t->passing.lanes);
  // Lanes that are loaded one by one take more registers than there are.
  bool by_vectors = !t->kept.lanes.is_scattered && !t->passing.lanes.is_scattered;
  free_texts(t);
  return t->ring.stages >= LEAST_STAGES && words <= MOST_WORDS && by_vectors;
}

static void put_kernel(Twins *t) {
  md_cu_kernel *k = &t->k;
  md_cu_begin(k, t->w, "both gradients");
  make_texts(t);
  put_shared(t);
  md_cu_count(k, "pixels", md_cu_map_places(&t->map) * (t->samples / t->groups));
  md_cu_count(k, "stride", t->parts * PIXELS);
  md_cu_put_block(k, 1, LINE, t->parts, t->samples, t->groups);
  md_cu_mark m = md_cu_open(k, "bring operands", "if (md_thread() >= %d) {", CONSUMERS);
  md_cu_ring_registers(k, REGISTERS, false);
  put_production(t);
  md_cu_line(k, NULL, "return;");
  md_cu_close(k, m);
  md_cu_ring_registers(k, REGISTERS, true);
  put_consumption(t);
  put_part(t);
  if (t->finish.num_sums) {
    md_cu_mark c = open_columns(t);
    md_cu_put_parts(k, &t->finish, &t->dx, "part");
    md_cu_close(k, c);
  }
  free_texts(t);
  k->work = 1;
  md_cu_end(k, t->parts * t->groups);
}

static Twins twins_of(md_cu_work *w) {
  const md_node *d = w->r->anchor, *g = w->r->twin;
  const md_shape *dy = &md_type_in(w->r->g, d->in[0])->shape;
  Twins t = {.w = w,
             .dgrad = d,
             .wgrad = g,
             .in = md_type_in(w->r->g, d->out)->shape.dim[1],
             .out = dy->dim[1],
             .samples = dy->dim[0],
             .groups = md_cu_groups(w->r)};
  md_cu_map_backward(w->r, d, (int64_t[3]){0, 0, 0}, &t.map);
  t.keeps_dy = t.out < t.in;
  t.pairs = (int)(MD_MAX(t.in, t.out) / (2 * LINE));
  t.dx = (md_cu_tile){.m = PIXELS,
                      .n = LINE,
                      .warps_m = MD_CU_WARPS,
                      .warps_n = 1,
                      .narrow = true,
                      .swizzled = true,
                      .p = ""};
  t.pack = (md_cu_pack){.weights = d->in[1],
                        .backward = true,
                        .in = t.out,
                        .out = t.in,
                        .rows = t.in,
                        .narrow = true,
                        .tile = LINE,
                        .map = t.map};
  int64_t tiles = md_ceil_div(md_cu_map_places(&t.map) * (t.samples / t.groups), PIXELS);
  t.parts = MD_MIN(tiles, MD_MAX(BLOCKS / t.groups, 1));
  t.finish = md_cu_finish_of(w, d, t.groups);
  t.finish.by_pixel = true;
  t.finish.most_words = FINISH_WORDS;
  return t;
}

bool md_cu_wgmma_twins(md_cu_work *w) {
  Twins t = twins_of(w);
  if (!md_cuda_has_wgmma(w->arch) || MD_MIN(t.in, t.out) != LINE ||
      MD_MAX(t.in, t.out) % (2 * LINE) || t.in * t.out > MD_CU_TWIN_WEIGHTS || !fits(&t))
    return false;
  md_cu_place(w, t.wgrad->out);
  md_cu_finish_place(w, &t.finish, &t.dx, t.parts);
  t.weights = md_cu_reserve(w, md_cu_pack_bytes(&t.pack));
  t.dw_at = md_cu_reserve(w, dw_bytes(&t));
  md_cu_put_pack(w, &t.pack, t.weights);
  put_kernel(&t);
  md_cu_merge_weights(w, t.wgrad, t.parts * t.groups, t.dw_at);
  md_cu_ready(w, t.wgrad->out);
  md_cu_finish_ready(w, &t.finish);
  return true;
}
