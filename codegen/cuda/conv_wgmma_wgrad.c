// SPDX-License-Identifier: Apache-2.0
// Gradients for weights with wgmma (conv_ring.c). Both operands are copied as they lie in memory, a line
// of channels for each pixel, by TMA (conv_windows.c) or by each thread, and multiplied across: terms are pixels. Two warpgroups share the tile by
// its rows, or by its columns where there are 64 rows.
#include "codegen/cuda/conv.h"

enum {
  BLOCKS = 132,     // at once: the multiprocessors of an H100 or H200
  MAX_WAVES = 4,    // of blocks
  REGISTERS = 168,  // of a thread that multiplies
  // Products that an H200 makes of an element while the sum of a part is written and read again: 8 bytes at
  // 4.2 TB/s, products at 3.7e14 a second.
  PART_TERMS = 700,
  LINE = MD_CU_WGMMA_STEP,  // pixels of a step; channels of a panel
  PANEL = LINE * LINE,
};

// The share of the device that works while so many blocks are done.
static double share(int64_t blocks) {
  return (double)blocks / (double)(md_ceil_div(blocks, BLOCKS) * BLOCKS);
}

// What a gradient of so many pixels takes in `parts`, each a tile of sums to be added up later, in products of an
// element.
static double cost_of(int64_t pixels, int64_t tiles, int64_t parts) {
  return (double)pixels / share(parts * tiles) + (double)(PART_TERMS * parts);
}

static int64_t parts_for(int64_t pixels, int64_t tiles, int waves) {
  int64_t best = 1;
  for (int64_t parts = 2; parts * tiles <= waves * BLOCKS; parts++)
    if (cost_of(pixels, tiles, parts) < cost_of(pixels, tiles, best)) best = parts;
  return best;
}

static md_cu_ring ring_of(const md_cu_gradient *g) {
  return md_cu_ring_of(md_cu_tile_bytes(&g->tile, g->tile.m), md_cu_tile_bytes(&g->tile, g->tile.n),
                       0, g->stages);
}

static bool are_plain(md_cu_gradient *g) {
  md_cu_kernel k;
  md_cu_begin(&k, g->w, "to be looked at");
  md_cu_gradient_sides(g, &k);
  md_cu_lanes_free(&g->dy.lanes);
  md_cu_lanes_free(&g->x.lanes);
  return g->dy.is_plain && g->x.is_plain;
}

// What TMA copies of both operands: a panel each, 64 channels of a tap.
typedef struct Windows {
  const md_windows *dy, *x;  // NULL: it does not
} Windows;

static Windows windows_of(const md_cu_gradient *g) {
  md_cu_map own = g->a;  // a pixel of dy is its own window
  for (int i = 0; i < 3; i++)
    own.axis[i] =
        (md_cu_axis_map){.num = g->a.axis[i].num, .taps = 1, .from_q = 1, .size = g->a.axis[i].num};
  Windows w = {0};
  if (g->in % LINE == 0) w.x = md_cu_windows_of(g->w, g->n->in[1], &g->a, LINE);
  if (w.x) w.dy = md_cu_windows_of(g->w, g->n->in[0], &own, LINE);
  return w;
}

static void set_tile(md_cu_gradient *g, int m, int n) {
  g->tile = (md_cu_tile){
      .m = m, .n = n, .warps_m = 4, .warps_n = 1, .narrow = true, .across = true, .swizzled = true};
}

static md_cuda_schedule schedule_of(const md_cu_gradient *g, int m, int n, int waves) {
  int64_t tiles = md_ceil_div(g->out, m) * md_ceil_div(g->columns, n);
  int64_t blocks = parts_for(g->pixels, tiles, waves) * tiles;
  return md_cu_way(MD_CUDA_WGMMA, m, n, (int)blocks);
}

bool md_cu_wgmma_gradient_schedule(md_cu_gradient *g, md_cuda_schedule *s) {
  if (!md_cuda_has_wgmma(g->w->arch) || MD_MIN(g->out, g->columns) < MD_CU_WGMMA_LEAST)
    return false;
  int m = g->out > 64 ? 128 : 64, n = m == 64 ? 128 : 64;
  while (n < g->columns && n < 256) n *= 2;
  set_tile(g, m, n);
  if (!are_plain(g)) return false;
  *s = schedule_of(g, m, n, MAX_WAVES);
  return true;
}

void md_cu_wgmma_gradient_take(md_cu_gradient *g, const md_cuda_schedule *s) {
  set_tile(g, s->m, s->n);
  g->stages = s->stages;
  g->copies = s->copies;
  md_cu_gradient_divide(g, s->blocks);
}

// 64 rows are shared out by columns, of which each warpgroup needs 64.
void md_cu_wgmma_gradient_ways(md_cu_gradient *g, md_cuda_schedule own, md_cu_ways *ways) {
  for (int m = g->out > 64 ? 128 : 64; m >= 64; m /= 2) {
    for (int n = 256; n >= (m == 64 ? 128 : 64); n /= 2) {
      for (int waves = MAX_WAVES; waves >= 1 && n < 2 * MD_MAX(g->columns, 64); waves /= 2)
        md_cu_add_way(ways, schedule_of(g, m, n, waves));
      if (own.m != m || own.n != n) continue;
      md_cu_wgmma_gradient_take(g, &own);
      md_cu_add_stages(ways, own, ring_of(g).stages);
      if (windows_of(g).dy) md_cu_add_copies(ways, own);
    }
  }
}

// --- the kernel

static void put_copies(md_cu_gradient *g, const md_cu_ring *r) {
  md_cu_kernel *k = &g->k;
  md_arena *arena = g->w->arena;
  md_cu_gradient_put_chunks(g);
  md_cu_line(k, NULL, "int stage = 0, parity = 1;");
  md_cu_mark steps = md_cu_ring_open_steps(k, md_cu_gradient_steps(g));
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  md_cu_mark m = md_cu_side_open(k, &g->dy);
  md_cu_gradient_put_dy(g, "step");
  md_cu_side_copy(k, &g->dy, md_format(arena, "as + stage * %d", r->a / 2), NULL);
  md_cu_close(k, m);
  m = md_cu_side_open(k, &g->x);
  md_cu_gradient_put_x(g, "step");
  md_cu_side_copy(k, &g->x, md_format(arena, "bs + stage * %d", r->b / 2), NULL);
  md_cu_close(k, m);
  md_cu_ring_brought(k, r);
  md_cu_close(k, steps);
  md_cu_ring_end(k);
}

// By one thread. Which taps the columns' panels have does not depend on the step. Behind the last column there
// may be panels that nobody reads.
static void put_windows(md_cu_gradient *g, const md_cu_ring *r, const Windows *w) {
  md_cu_kernel *k = &g->k;
  md_arena *arena = g->w->arena;
  md_val dy = g->n->in[0], x = g->n->in[1];
  static const md_cu_ix none[3] = {"0", "0", "0"}, place[3] = {"q0", "q1", "q2"};
  md_cu_ix channel[4], tap[4][3], begin[3];
  md_cu_mark one = md_cu_open(k, NULL, "if (md_thread() == %d) {", MD_CU_THREADS);
  md_cu_line(k, NULL, "md_tmap_acquire(%s);", md_cu_tensor_map(k, dy, w->dy));
  md_cu_line(k, NULL, "md_tmap_acquire(%s);", md_cu_tensor_map(k, x, w->x));
  for (int i = 0; i < g->tile.n / LINE; i++) {
    md_cu_ix column = md_cu_name(k, md_format(arena, "n0 + %d", i * LINE));
    channel[i] = md_cu_digit(k, column, 1, g->in);
    md_cu_window_tap(k, &g->a, md_cu_digit(k, column, g->in, 0), tap[i]);
  }
  md_cu_line(k, NULL, "int stage = 0, parity = 1;");
  md_cu_mark steps = md_cu_ring_open_steps(k, md_cu_gradient_steps(g));
  md_cu_line(k, NULL, "md_bar_wait(empty + stage, parity);");
  md_cu_line(k, NULL, "md_bar_expect(full + stage, %d);", r->a + r->b);
  md_cu_line(k, NULL, "const %s p = begin + step * %d;", md_cu_index_type(k), LINE);
  md_cu_put_place(k, &g->a, "p", "0");
  md_cu_window_begin(k, &g->a, begin);
  for (int i = 0; i < g->tile.m / LINE; i++)
    md_cu_put_window_copy(k, dy, w->dy,
                          md_format(arena, "as + stage * %d + %d", r->a / 2, i * PANEL),
                          md_cu_name(k, md_format(arena, "m0 + %d", i * LINE)), place, none);
  for (int i = 0; i < g->tile.n / LINE; i++)
    md_cu_put_window_copy(k, x, w->x, md_format(arena, "bs + stage * %d + %d", r->b / 2, i * PANEL),
                          channel[i], begin, tap[i]);
  md_cu_ring_next(k, r);
  md_cu_close(k, steps);
  md_cu_close(k, one);
}

static void put_sums(md_cu_gradient *g, int columns, const char *row0, const char *col0) {
  md_cu_kernel *k = &g->k;
  const char *to = md_cu_workspace(k, g->place, md_cu_gradient_bytes(g), "float", true);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int x = 0; x < 2; x++) {");
  md_cu_line(k, NULL, "const int row = m0 + %smd_warp() %% 4 * 16 + x * 8 + md_lane() / 4;", row0);
  md_cu_line(k, NULL, "float *const to = %s + (part * %lld + row) * %lld;", to, (long long)g->out,
             (long long)g->columns);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark y = md_cu_open(k, NULL, "for (int y = 0; y < %d; y++) {", columns / MD_CU_LANES);
  md_cu_line(k, NULL, "const int col = n0 + %sy * 8 + md_lane() %% 4 * 2;", col0);
  md_cu_mark in = md_cu_open(k, NULL, "if (row < %lld && col < %lld) {", (long long)g->out,
                             (long long)g->columns);
  md_cu_line(k, NULL, "to[col] = acc[0][y][x * 2];");
  md_cu_line(k, NULL, "to[col + 1] = acc[0][y][x * 2 + 1];");
  md_cu_close(k, in);
  md_cu_close(k, y);
  md_cu_close(k, m);
}

void md_cu_wgmma_gradient(md_cu_gradient *g) {
  md_cu_kernel *k = &g->k;
  md_arena *arena = g->w->arena;
  md_cu_ring r = ring_of(g);
  Windows w = g->copies ? (Windows){0} : windows_of(g);
  r.is_bulk = r.expects = w.dy != NULL;
  r.copies = !r.is_bulk;
  md_cu_gradient_sides(g, k);
  md_cu_ring_put(k, &r);
  k->shared_bytes = r.end;
  md_cu_line(k, NULL, "md_sync();");
  md_cu_gradient_put_block(g);
  md_cu_mark m = md_cu_open(k, "bring operands", "if (md_thread() >= %d) {", MD_CU_THREADS);
  md_cu_ring_registers(k, REGISTERS, false);
  if (w.dy) put_windows(g, &r, &w);
  else put_copies(g, &r);
  md_cu_line(k, NULL, "return;");
  md_cu_close(k, m);
  md_cu_ring_registers(k, REGISTERS, true);
  md_cu_line(k, NULL, "int stage = 0, parity = 0, before = 0;");
  bool by_rows = g->tile.m == 128;
  int columns = by_rows ? g->tile.n : g->tile.n / 2;
  const char *mine =
      md_format(arena, " + md_warp() / 4 * %d", by_rows ? PANEL : columns / LINE * PANEL);
  md_cu_line(k, NULL, "float acc[1][%d][4] = {{{0}}};", columns / MD_CU_LANES);
  md_cu_ring_multiply(k, &r, md_cu_gradient_steps(g), columns, true, by_rows ? mine : "",
                      by_rows ? "" : mine);
  put_sums(g, columns, by_rows ? "md_warp() / 4 * 64 + " : "",
           by_rows ? "" : md_format(arena, "md_warp() / 4 * %d + ", columns));
}
