// SPDX-License-Identifier: Apache-2.0
// Convolutions with wgmma. A block has a multiprocessor for itself. Two warpgroups multiply: 64 pixels
// of the tile each, sums in registers, operands in shared memory. The other warps bring the source, with
// what stands before the convolution applied, and have the weights copied. Between them goes a ring of
// stages, each with a step's tiles of both operands:
//
//   full[stage]   counts the warps that have stored their lines, and the bytes of the weights
//   empty[stage]  counts the warps that have read all of it
//
// While the tile of the result is finished, stages are filled for the next one.
#include "codegen/cuda/conv.h"

enum {
  PIXELS = 128,        // of a tile
  LEAST = 64,          // channels of either side: with fewer, tiles are mostly empty
  INTENSITY = 128,     // FLOPs for a byte: with fewer, memory takes longer than mma.sync
  BLOCKS = 264,        // about: twice the multiprocessors of an H100 or H200
  SHARED = 227 << 10,  // bytes that a block may have
  MIN_STAGES = 2,
  MAX_STAGES = 4,
  BARRIERS = 128,  // bytes
  LINE = MD_CU_WGMMA_STEP,
  AT_ONCE = 128,              // columns of one wgmma: ptxas wants room for its sums in REGISTERS
  CONSUMERS = MD_CU_THREADS,  // the first threads; as many others produce
  REGISTERS = 128,            // of a thread, at first: they share 65536
};

// Sums of 256 columns take 128 registers of a thread; to find the source of several taps takes some too.
static int consumer_registers(const md_cu_tile *t, const md_cu_map *a) {
  if (t->n <= 128) return 112;
  return md_cu_map_taps(a) > 1 ? 160 : 168;
}

// --- shared memory

typedef struct Layout {
  int stages, source, weights;  // bytes of a stage
  int barriers, finish, sums, tables;
} Layout;

static Layout layout_of(const md_cu_convolution *c, int tables) {
  const md_cu_tile *t = &c->tile;
  Layout l = {.source = md_cu_tile_bytes(t, t->m), .weights = md_cu_tile_bytes(t, t->n)};
  int finish = (int)md_round_up(md_cu_finish_bytes(&c->finish, t), 128);
  int rest = BARRIERS + finish + md_cu_sums_bytes(&c->finish, t) + tables;
  l.stages = MD_MIN((SHARED - rest) / (l.source + l.weights), MAX_STAGES);
  l.barriers = l.stages * (l.source + l.weights);
  l.finish = l.barriers + BARRIERS;
  l.sums = l.finish + finish;
  l.tables = l.sums + md_cu_sums_bytes(&c->finish, t);
  return l;
}

// --- the tile

static double flops_of_byte(const md_cu_convolution *c, const md_cu_map *a, int num) {
  const md_graph *g = c->w->r->g;
  double products = 0;
  for (int i = 0; i < num; i++)
    products += (double)md_cu_map_places(&a[i]) * (double)md_cu_map_taps(&a[i]);
  double bytes = 2.0 * (double)(md_elements(&md_type_in(g, c->n->in[0])->shape) +
                                md_elements(&md_type_in(g, c->n->out)->shape));
  return 2.0 * products * (double)(c->samples * c->in * c->out) / bytes;
}

bool md_cu_wgmma_tile(md_cu_convolution *c, const md_cu_map *a, int num) {
  if (!md_cuda_has_wgmma(c->w->arch) || MD_MIN(c->in, c->out) < LEAST) return false;
  if (flops_of_byte(c, a, num) < INTENSITY) return false;
  int n = LEAST;
  while (n < c->out && n < 256) n *= 2;
  for (; n >= LEAST; n /= 2) {
    c->tile = (md_cu_tile){
        .m = PIXELS, .n = n, .warps_m = 8, .warps_n = 1, .narrow = true, .swizzled = true, .p = ""};
    md_cu_needs needs = md_cu_measure(c);
    bool has_registers = n <= 128 || needs.vectors <= 1;
    if (has_registers && layout_of(c, needs.tables).stages >= MIN_STAGES) return true;
  }
  return false;
}

int64_t md_cu_wgmma_parts(const md_cu_convolution *c) {
  return MD_MAX(BLOCKS / (md_cu_columns(c) * c->groups), 1);
}

// --- the kernel

static void put_shared(md_cu_product *p, const Layout *l) {
  const md_cu_convolution *c = p->c;
  md_cu_kernel *k = &p->k;
  md_cu_line(k, NULL, "MD_SHARED(ring);");
  md_cu_line(k, "stages of the source", "md_bf16 *const as = (md_bf16 *)ring;");
  md_cu_line(k, "and of the weights", "md_bf16 *const bs = (md_bf16 *)(ring + %d);",
             l->stages * l->source);
  md_cu_line(k, NULL, "md_u64 *const full = (md_u64 *)(ring + %d), *const empty = full + %d;",
             l->barriers, l->stages);
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
  m = md_cu_open(k, NULL, "if (md_thread() == 0) {");
  md_cu_mark each = md_cu_open(k, NULL, "for (int i = 0; i < %d; i++) {", l->stages);
  md_cu_line(k, "and who expects the weights", "md_bar_init(full + i, %d);", MD_CU_WARPS + 1);
  md_cu_line(k, NULL, "md_bar_init(empty + i, %d);", MD_CU_WARPS);
  md_cu_close(k, each);
  md_cu_line(k, NULL, "md_bar_fence();");
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_sync();");
}

static md_cu_mark open_tiles(md_cu_product *p, const char *count) {
  return md_cu_open(&p->k, NULL, "for (int m0 = part * %d; m0 < %s; m0 += %lld) {", PIXELS, count,
                    (long long)(p->parts * PIXELS));
}

// Steps that are written out would have ptxas wait for each wgmma.
static md_cu_mark open_steps(md_cu_product *p) {
  md_cu_line(&p->k, NULL, "MD_NO_UNROLL");
  return md_cu_open(&p->k, NULL, "for (int step = 0; step < %lld; step++) {", (long long)p->steps);
}

static void put_next_stage(md_cu_kernel *k, const Layout *l) {
  md_cu_line(k, NULL, "if (++stage == %d) stage = 0, parity ^= 1;", l->stages);
}

static void put_weights(md_cu_product *p, const Layout *l) {
  md_cu_kernel *k = &p->k;
  int cells = p->c->tile.n * LINE;
  const char *all = md_cu_workspace(k, p->weights, md_cu_pack_bytes(&p->pack), "md_bf16", false);
  md_cu_mark m = md_cu_open(k, NULL, "if (md_thread() == %d) {", CONSUMERS);
  md_cu_line(k, NULL, "md_bar_expect(full + stage, %d);", l->weights);
  md_cu_line(k, NULL,
             "md_bulk_load(bs + stage * %d, %s + (n0 / %d * %lld + step) * %d, %d, full + stage);",
             cells, all, p->c->tile.n, (long long)p->steps, cells, l->weights);
  md_cu_close(k, m);
}

static void put_production(md_cu_product *p, const Layout *l, const char *count) {
  md_cu_kernel *k = &p->k;
  md_cu_line(k, NULL, "int stage = 0, parity = 1;");
  md_cu_mark tiles = open_tiles(p, count);
  md_cu_put_rows(p, count);
  md_cu_mark steps = open_steps(p);
  md_cu_put_source(p, "step");
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  put_weights(p, l);
  md_cu_side_store(k, &p->source, md_format(k->w->arena, "as + stage * %d", PIXELS * LINE));
  md_cu_line(k, NULL, "md_fence_async();");
  md_cu_line(k, NULL, "md_sync_warp();");
  md_cu_line(k, NULL, "if (md_lane() == 0) md_bar_arrive(full + stage);");
  put_next_stage(k, l);
  md_cu_close(k, steps);
  md_cu_close(k, tiles);
}

// One step is on its way while the next one's are begun: a stage is free when the step after it has been.
static void put_steps(md_cu_product *p, const Layout *l) {
  md_cu_kernel *k = &p->k;
  int n = p->c->tile.n;
  md_cu_mark steps = open_steps(p);
  md_cu_line(k, NULL, "md_bar_wait(full + stage, parity);");
  md_cu_line(k, NULL, "const md_bf16 *const a = as + stage * %d + md_warp() / 4 * %d;",
             PIXELS * LINE, PIXELS / 2 * LINE);
  md_cu_line(k, NULL, "const md_bf16 *const b = bs + stage * %d;", n * LINE);
  md_cu_line(k, NULL, "md_wgmma_fence();");
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int z = 0; z < %d; z++) {", LINE / 16);
  int part = MD_MIN(n, AT_ONCE);
  for (int i = 0; i < n; i += part)
    md_cu_line(k, NULL,
               "md_wgmma%d(acc[0][%d], md_desc128(a + z * 16), md_desc128(b + %d + z * 16));", part,
               i / 8, i * LINE);
  md_cu_close(k, m);
  md_cu_line(k, NULL, "md_wgmma_commit();");
  md_cu_line(k, "of the step before", "md_wgmma_wait(1);");
  md_cu_line(k, NULL, "if (step > 0 && md_lane() == 0) md_bar_arrive(empty + before);");
  md_cu_line(k, NULL, "before = stage;");
  put_next_stage(k, l);
  md_cu_close(k, steps);
  md_cu_line(k, NULL, "md_wgmma_wait(0);");
  for (int i = 0; i < n; i += part)
    md_cu_line(k, NULL, "md_wgmma_ready(acc[0][%d], %d);", i / 8, part / 2);
  md_cu_line(k, NULL, "if (md_lane() == 0) md_bar_arrive(empty + before);");
}

static void put_consumption(md_cu_product *p, const Layout *l, const char *count) {
  const md_cu_convolution *c = p->c;
  md_cu_kernel *k = &p->k;
  k->sync = "md_sync_part(1, 256);";
  md_cu_mark tiles = open_tiles(p, count);
  md_cu_put_accumulators(k, &c->tile);
  if (p->steps) put_steps(p, l);
  md_cu_put_finish(k, &c->finish, &c->tile, &p->a, count);
  md_cu_line(k, NULL, "%s", k->sync);
  md_cu_close(k, tiles);
  md_cu_put_part(p);
}

static void put_registers(md_cu_kernel *k, int registers) {
  md_cu_line(k, NULL, "md_regs_%s(%d);", registers > REGISTERS ? "inc" : "dec", registers);
}

void md_cu_wgmma(md_cu_product *p) {
  const md_cu_convolution *c = p->c;
  md_cu_kernel *k = &p->k;
  Layout l =
      layout_of(c, md_cu_table_bytes(&p->source.lanes) + md_cu_table_bytes(&c->finish.lanes));
  int registers = consumer_registers(&c->tile, &p->a);
  k->threads = 2 * CONSUMERS;
  p->source.thread = "(md_thread() - 256)";
  put_shared(p, &l);
  const char *count = md_cu_number(k, md_cu_pixels(c, &p->a));
  md_cu_put_block(p);
  md_cu_mark m = md_cu_open(k, "bring operands", "if (md_thread() >= %d) {", CONSUMERS);
  put_registers(k, 2 * REGISTERS - registers);
  if (p->steps) put_production(p, &l, count);
  md_cu_line(k, NULL, "return;");
  md_cu_close(k, m);
  put_registers(k, registers);
  if (p->steps) md_cu_line(k, NULL, "int stage = 0, parity = 0, before = 0;");
  put_consumption(p, &l, count);
}
