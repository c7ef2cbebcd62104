// SPDX-License-Identifier: Apache-2.0
// Convolutions with wgmma (conv_ring.c). Two warpgroups multiply: 64 pixels of the tile each, sums in
// registers. The other warps bring the source, as it lies in memory or with what stands before the
// convolution applied, and have the weights copied. While the tile of the result is finished, stages are
// filled for the next one. A source comes
//
//   windows    copied by TMA, as the weights are, if all that is told of a step is a tap (conv_windows.c)
//   copied     by each thread, asynchronously, as many stages ahead as there are
//   in place   made of one tensor of bf16: that is copied, and each thread forms what it copied where it lies
//   formed     made of more: loaded to registers a step ahead
//
// Zeros around the source are zeros of what is formed.
#include "codegen/cuda/conv.h"

enum {
  PIXELS = MD_CU_WGMMA_PIXELS,
  LINE = MD_CU_WGMMA_STEP,
  CONSUMERS = MD_CU_THREADS,  // the first threads; as many others produce
};

// Sums of 256 columns take 128 registers of a thread; to make a source takes more than to copy it.
static int consumer_registers(const md_cu_tile *t, bool copies) {
  if (t->n <= 128) return copies ? 152 : 112;
  return copies ? 192 : 160;
}

// Words that a producer may load for eight channels, for each of its rows and twice, with those that are left.
static int most_words(const md_cu_tile *t) { return t->n <= 128 ? 8 : 4; }

// --- shared memory

typedef struct Layout {
  md_cu_ring ring;
  const md_windows *windows;  // of the source, if TMA copies it
  int finish, sums, tables;
} Layout;

static Layout layout_of(const md_cu_convolution *c, int tables) {
  const md_cu_tile *t = &c->tile;
  int finish = (int)md_round_up(md_cu_finish_bytes(&c->finish, t), 128);
  int rest = finish + md_cu_sums_bytes(&c->finish, t) + tables;
  int a = md_cu_tile_bytes(t, t->m), b = md_cu_tile_bytes(t, t->n);
  Layout l = {.ring = md_cu_ring_of(a, b, rest, c->stages)};
  l.ring.expects = true;
  l.finish = l.ring.end;
  l.sums = l.finish + finish;
  l.tables = l.sums + md_cu_sums_bytes(&c->finish, t);
  return l;
}

// --- the tile

// A step has 64 channels of one tap.
const md_windows *md_cu_source_windows(const md_cu_convolution *c, const md_cu_side *source,
                                       const md_cu_map *a) {
  bool suits = source->is_plain && c->in % LINE == 0;
  return suits ? md_cu_windows_of(c->w, source->val, a, PIXELS) : NULL;
}

static bool is_worth_it(const md_cu_convolution *c, const md_cu_map *a, int num, bool copied) {
  int64_t terms = 0;
  for (int i = 0; i < num; i++) terms = MD_MAX(terms, md_cu_map_taps(&a[i]) * c->in);
  return (copied ? terms : c->in) >= MD_CU_WGMMA_LEAST;
}

bool md_cu_wgmma_tile(md_cu_convolution *c, int columns, const md_cu_map *a, int num) {
  if (!md_cuda_has_wgmma(c->w->arch) || c->out < MD_CU_WGMMA_LEAST) return false;
  c->finish.no_table = false;
  c->tile = (md_cu_tile){.m = PIXELS,
                         .n = columns,
                         .warps_m = 8,
                         .warps_n = 1,
                         .narrow = true,
                         .swizzled = true,
                         .p = ""};
  md_cu_needs needs = md_cu_measure(c);
  return is_worth_it(c, a, num, needs.is_copied) && needs.words <= most_words(&c->tile) &&
         layout_of(c, needs.tables).ring.stages >= MD_CU_MIN_STAGES;
}

int md_cu_wgmma_stages(md_cu_convolution *c) {
  c->stages = 0;
  return layout_of(c, md_cu_measure(c).tables).ring.stages;
}

// --- the kernel

static void put_shared(md_cu_product *p, const Layout *l) {
  const md_cu_convolution *c = p->c;
  md_cu_kernel *k = &p->k;
  md_cu_ring_put(k, &l->ring);
  md_cu_line(k, "the tile of the result", "unsigned char *const shared = ring + %d;", l->finish);
  if (c->finish.num_sums)
    md_cu_line(k, "[sum][column]", "double *const sums = (double *)(ring + %d);", l->sums);
  if (p->source.lanes.num_slots)
    md_cu_line(k, NULL, "float *const atable = (float *)(ring + %d);", l->tables);
  int etable = l->tables + md_cu_table_bytes(&p->source.lanes);
  if (c->finish.lanes.num_slots)
    md_cu_line(k, NULL, "float *const etable = (float *)(ring + %d);", etable);
  k->shared_bytes = etable + md_cu_table_bytes(&c->finish.lanes);
  md_cu_mark m = md_cu_open(k, NULL, "if (md_thread() < %d) {", MD_CU_THREADS);
  md_cu_put_table(k, &p->source.lanes);
  md_cu_put_table(k, &c->finish.lanes);
  md_cu_put_sums(k, &c->finish, &c->tile);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
}

// Pixels from a tile of the block to its next.
static const char *stride_of(md_cu_product *p) {
  return md_cu_count(&p->k, "stride", p->parts * PIXELS);
}

static const char *steps_of(md_cu_product *p) { return md_cu_number(&p->k, p->steps); }

static md_cu_mark open_tiles(md_cu_product *p, const char *count) {
  return md_cu_open(&p->k, NULL, "for (int m0 = part * %d; m0 < %s; m0 += %s) {", PIXELS, count,
                    stride_of(p));
}

// By one thread, which expects so many bytes, with what else it copies.
static void put_weights_copy(md_cu_product *p, const Layout *l, int bytes) {
  md_cu_kernel *k = &p->k;
  int cells = p->c->tile.n * LINE;
  const char *all = md_cu_workspace(k, p->weights, md_cu_pack_bytes(&p->pack), "md_bf16", false);
  md_cu_line(k, NULL, "md_bar_expect(full + stage, %d);", bytes);
  md_cu_line(k, NULL,
             "md_bulk_load(bs + stage * %d, %s + (n0 / %d * %lld + step) * %d, %d, full + stage);",
             cells, all, p->c->tile.n, (long long)p->steps, cells, l->ring.b);
}

static md_cu_mark open_one(md_cu_product *p) {
  return md_cu_open(&p->k, NULL, "if (md_thread() == %d) {", CONSUMERS);
}

static void put_weights(md_cu_product *p, const Layout *l) {
  md_cu_mark m = open_one(p);
  put_weights_copy(p, l, l->ring.b);
  md_cu_close(&p->k, m);
}

static const char *stage_of_source(md_cu_product *p, const char *stage) {
  return md_format(p->k.w->arena, "as + %s * %d", stage, PIXELS * LINE);
}

static void put_all_steps(md_cu_product *p, const char *count) {
  md_cu_line(&p->k, "steps of all tiles of the block",
             "const int all = (%s - part * %d + %s - 1) / %s * %s;", count, PIXELS, stride_of(p),
             stride_of(p), steps_of(p));
}

// A source that TMA copies: one thread brings all.
static void put_windows(md_cu_product *p, const Layout *l, const char *count) {
  md_cu_kernel *k = &p->k;
  int64_t per_tap = p->c->in / LINE;
  md_cu_ix begin[3], at[3];
  md_cu_mark one = open_one(p);
  md_cu_line(k, NULL, "md_tmap_acquire(%s);", md_cu_tensor_map(k, p->source.val, l->windows));
  md_cu_line(k, NULL, "int stage = 0, parity = 1;");
  md_cu_mark tiles = open_tiles(p, count);
  md_cu_put_place(k, &p->a, "m0", "sample0");
  md_cu_window_begin(k, &p->a, begin);
  md_cu_mark steps = md_cu_ring_open_steps(k, steps_of(p));
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  put_weights_copy(p, l, l->ring.a + l->ring.b);
  md_cu_ix tap = md_cu_digit(k, "step", per_tap, 0), rest = md_cu_digit(k, "step", 1, per_tap);
  md_cu_window_tap(k, &p->a, tap, at);
  md_cu_put_window_copy(k, p->source.val, l->windows, stage_of_source(p, "stage"),
                        md_cu_linear(k, 1, &rest, (int64_t[]){LINE}, 0), begin, at);
  md_cu_ring_next(k, &l->ring);
  md_cu_close(k, steps);
  md_cu_close(k, tiles);
  md_cu_close(k, one);
}

// A plain source that it cannot.
static void put_copies(md_cu_product *p, const Layout *l, const char *count) {
  md_cu_kernel *k = &p->k;
  md_cu_line(k, NULL, "int stage = 0, parity = 1;");
  md_cu_mark tiles = open_tiles(p, count);
  md_cu_declare_rows(p);
  md_cu_set_rows(p, "m0", count);
  md_cu_mark steps = md_cu_ring_open_steps(k, steps_of(p));
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  put_weights(p, l);
  md_cu_put_source(p, "step", stage_of_source(p, "stage"));
  md_cu_ring_brought(k, &l->ring);
  md_cu_close(k, steps);
  md_cu_close(k, tiles);
  md_cu_ring_end(k);
}

// Step `made` of the tile at `first` lies in stage `ready`, and `ahead` - 1 steps after it are on their way.
static void put_forming(md_cu_product *p, const Layout *l, int ahead) {
  md_cu_kernel *k = &p->k;
  int bits = md_cu_side_rows(&p->source) * (ahead - 1);
  bool stores = p->source.stored_if;
  md_cu_line(k, NULL, "md_cp_wait(%d);", ahead - 1);
  md_cu_put_chunk(p, "made");
  md_cu_side_form(
      k, &p->source, stage_of_source(p, "ready"),
      md_format(k->w->arena, "inside >> (i + %d) & 1", bits),
      md_format(k->w->arena, "sample0 * %lld + first", (long long)md_cu_map_places(&p->a)));
  md_cu_ring_arrive(k, &l->ring, "ready");
  md_cu_line(k, NULL, "if (++ready == %d) ready = 0;", l->ring.stages);
  if (stores)
    md_cu_line(k, NULL, "if (++made == %s) made = 0, first += %s;", steps_of(p), stride_of(p));
  else md_cu_line(k, NULL, "if (++made == %s) made = 0;", steps_of(p));
}

// Copies for step `step` of the tile at `m0`.
static void put_copying(md_cu_product *p, const Layout *l, const char *count) {
  md_cu_kernel *k = &p->k;
  md_cu_mark m = md_cu_open(k, NULL, "if (step == 0) {");
  md_cu_set_rows(p, "m0", count);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  put_weights(p, l);
  md_cu_put_source(p, "step", stage_of_source(p, "stage"));
  m = md_cu_side_open(k, &p->source);
  md_cu_line(k, NULL, "inside |= (md_u32)%sin[i] << i;", p->source.p);
  md_cu_close(k, m);
  md_cu_ring_next(k, &l->ring);
  md_cu_line(k, NULL, "if (++step == %s) step = 0, m0 += %s;", steps_of(p), stride_of(p));
}

// A source that is formed in place. Half of the stages are on their way; the others wait to be multiplied, so that
// while a tile is finished there is something to form.
static void put_in_place(md_cu_product *p, const Layout *l, const char *count) {
  md_cu_kernel *k = &p->k;
  int ahead = (l->ring.stages + 1) / 2;
  md_cu_line(k, "of what is copied", "int stage = 0, parity = 1, step = 0, m0 = part * %d;",
             PIXELS);
  md_cu_line(k, "of what is formed", "int ready = 0, made = 0;");
  if (p->source.stored_if) md_cu_line(k, NULL, "int first = m0;");
  md_cu_line(k, "which rows lie in the source, the last step's first", "md_u32 inside = 0;");
  md_cu_declare_rows(p);
  put_all_steps(p, count);
  md_cu_line(k, NULL, "MD_NO_UNROLL");
  md_cu_mark each = md_cu_open(k, NULL, "for (int next = 0; next < all + %d; next++) {", ahead);
  md_cu_mark m = md_cu_open(k, NULL, "if (next >= %d) {", ahead);
  put_forming(p, l, ahead);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "inside <<= %d;", md_cu_side_rows(&p->source));
  m = md_cu_open(k, NULL, "if (next < all) {");
  put_copying(p, l, count);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_cp_commit();");
  md_cu_close(k, each);
}

// Loads of the vectors of step `at`, counted through all tiles of the block, into set `set`.
static void put_loads(md_cu_product *p, const char *count, const char *at, const char *set) {
  md_cu_kernel *k = &p->k;
  md_cu_mark m = md_cu_open(k, NULL, "if (%s < all) {", at);
  md_cu_line(k, NULL, "const int set = %s;", set);
  md_cu_line(k, NULL, "const int next = (%s) %% %lld;", at, (long long)p->steps);
  md_cu_line(k, NULL, "const int m0 = part * %d + (%s) / %s * %s;", PIXELS, at, steps_of(p),
             stride_of(p));
  md_cu_put_source_of_tile(p, count, "next");
  md_cu_close(k, m);
}

// A source that is made of several tensors: vectors of one step are on their way while those of the one
// before are made and stored.
static void put_formed(md_cu_product *p, const Layout *l, const char *count) {
  md_cu_kernel *k = &p->k;
  md_cu_line(k, NULL, "int stage = 0, parity = 1;");
  md_cu_side_declare(k, &p->source);
  put_all_steps(p, count);
  put_loads(p, count, "0", "0");
  md_cu_line(k, NULL, "MD_NO_UNROLL");
  md_cu_mark pairs = md_cu_open(k, NULL, "for (int pair = 0; pair < all; pair += 2) {");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark each = md_cu_open(k, NULL, "for (int half = 0; half < 2; half++) {");
  md_cu_mark m = md_cu_open(k, NULL, "if (pair + half < all) {");
  put_loads(p, count, "pair + half + 1", "1 - half");
  md_cu_line(k, NULL, "const int set = half;");
  md_cu_line(k, NULL, "const int step = (pair + half) %% %lld;", (long long)p->steps);
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  put_weights(p, l);
  md_cu_side_store(k, &p->source, stage_of_source(p, "stage"));
  md_cu_ring_brought(k, &l->ring);
  md_cu_close(k, m);
  md_cu_close(k, each);
  md_cu_close(k, pairs);
}

static void put_production(md_cu_product *p, const Layout *l, const char *count) {
  if (l->windows) put_windows(p, l, count);
  else if (p->source.is_plain) put_copies(p, l, count);
  else if (p->source.in_place) put_in_place(p, l, count);
  else put_formed(p, l, count);
}

static void put_consumption(md_cu_product *p, const Layout *l, const char *count) {
  const md_cu_convolution *c = p->c;
  md_cu_kernel *k = &p->k;
  k->sync = "md_sync_part(1, 256);";
  md_cu_mark tiles = open_tiles(p, count);
  md_cu_put_accumulators(k, &c->tile);
  if (p->steps)
    md_cu_ring_multiply(k, &l->ring, steps_of(p), c->tile.n, false,
                        md_format(k->w->arena, " + md_warp() / 4 * %d", PIXELS / 2 * LINE), "");
  md_cu_put_finish(k, &c->finish, &c->tile, &p->a, count);
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_close(k, tiles);
  md_cu_put_part(p);
}

void md_cu_wgmma(md_cu_product *p) {
  const md_cu_convolution *c = p->c;
  md_cu_kernel *k = &p->k;
  Layout l =
      layout_of(c, md_cu_table_bytes(&p->source.lanes) + md_cu_table_bytes(&c->finish.lanes));
  l.ring.copies = p->source.is_plain;
  l.windows = p->steps && !c->copies ? md_cu_source_windows(c, &p->source, &p->a) : NULL;
  l.ring.is_bulk = l.windows;
  int registers = consumer_registers(&c->tile, p->source.is_plain);
  put_shared(p, &l);
  const char *count = md_cu_count(k, "pixels", md_cu_pixels(c, &p->a));
  md_cu_put_block(k, md_cu_columns(c), c->tile.n, p->parts, c->samples, c->groups);
  md_cu_mark m = md_cu_open(k, "bring operands", "if (md_thread() >= %d) {", CONSUMERS);
  md_cu_ring_registers(k, registers, false);
  if (p->steps) put_production(p, &l, count);
  md_cu_line(k, NULL, "return;");
  md_cu_close(k, m);
  md_cu_ring_registers(k, registers, true);
  if (p->steps) md_cu_line(k, NULL, "int stage = 0, parity = 0, before = 0;");
  put_consumption(p, &l, count);
}
