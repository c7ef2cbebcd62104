// SPDX-License-Identifier: Apache-2.0
// Tiles of operands in shared memory and their product. Lines of a tile are padded, so that the eight
// rows that ldmatrix takes at once lie in different banks. A thread owns the same elements of the
// result whether tensor cores or FMAs multiply: what mma.m16n8k16 gives it.
//
// Operands lie as [row][term], or `across`, as [term][row]: as activations are stored where the terms
// are pixels. Then ldmatrix transposes.
#include "codegen/cuda/conv.h"

enum { MMA_M = 16, MMA_N = 8, MMA_K = 16, MAX_NARROW = 128, MAX_WIDE = 64 };

// Powers of two up to `most` that hold n.
static int side_of(int64_t n, int least, int most) {
  int size = least;
  while (size < n && size < most) size *= 2;
  return size;
}

// Warps divide the larger side of what each of them has, so that it is about square; columns sooner,
// as the columns' operands stay in registers while those of the rows pass.
md_cu_tile md_cu_tile_sized(int m, int n, bool narrow, bool across) {
  md_cu_tile t = {
      .m = m, .n = n, .warps_m = 1, .warps_n = 1, .narrow = narrow, .across = across, .p = ""};
  while (t.warps_m * t.warps_n < MD_CU_WARPS) {
    int m_left = t.m / t.warps_m, n_left = t.n / t.warps_n;
    bool can_m = m_left > MMA_M, can_n = n_left > MMA_N;
    if (!can_m && !can_n) break;
    if (can_m && (m_left > n_left || !can_n)) t.warps_m *= 2;
    else t.warps_n *= 2;
  }
  t.line_m = md_cu_pitch(&t, t.m);
  t.line_n = md_cu_pitch(&t, t.n);
  return t;
}

md_cu_tile md_cu_tile_of(int64_t m, int64_t n, bool narrow, bool across) {
  int most = narrow ? MAX_NARROW : MAX_WIDE;
  return md_cu_tile_sized(side_of(m, MMA_M, most), side_of(n, MMA_N, most), narrow, across);
}

const char *md_cu_cell(const md_cu_tile *t) { return t->narrow ? "md_bf16" : "float"; }

int md_cu_step(const md_cu_tile *t) { return t->swizzled ? MD_CU_WGMMA_STEP : MD_CU_STEP; }

int md_cu_pitch(const md_cu_tile *t, int rows) {
  if (t->swizzled) return MD_CU_WGMMA_STEP;
  int pad = t->narrow ? 8 : 4;  // 16 bytes
  return (t->across ? rows : MD_CU_STEP) + pad;
}

int md_cu_tile_bytes(const md_cu_tile *t, int rows) {
  return (t->across && !t->swizzled ? MD_CU_STEP : rows) * md_cu_pitch(t, rows) *
         (t->narrow ? 2 : 4);
}

static int frags_m(const md_cu_tile *t) { return t->m / t->warps_m / MMA_M; }
static int frags_n(const md_cu_tile *t) { return t->n / t->warps_n / MMA_N; }

void md_cu_put_accumulators(md_cu_kernel *k, const md_cu_tile *t) {
  md_cu_line(k, NULL, "float %sacc[%d][%d][4] = {{{0}}};", t->p, frags_m(t), frags_n(t));
  md_cu_line(k, "the warp's part of the tile", "const int %swm = md_warp() / %d * %d;", t->p,
             t->warps_n, t->m / t->warps_m);
  md_cu_line(k, NULL, "const int %swn = md_warp() %% %d * %d;", t->p, t->warps_n,
             t->n / t->warps_n);
}

// --- tensor cores

// Columns of 16 terms, two fragments at a time. A single one is brought with 32 terms before the loop.
static void put_columns(md_cu_kernel *k, const md_cu_tile *t, const char *b) {
  int ni = frags_n(t), pitch = t->line_n;
  md_cu_line(k, NULL, "md_u32 fb[%d];", 2 * ni);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int y = 0; y < %d; y++) {", ni / 2);
  if (t->across)
    md_cu_line(k, NULL,
               "md_ldmatrix4t(fb + y * 4, %s + (z * 16 + md_lane() %% 16) * %d + %swn + y * 16 + "
               "md_lane() / 16 * 8);",
               b, pitch, t->p);
  else
    md_cu_line(
        k, NULL,
        "md_ldmatrix4(fb + y * 4, %s + (%swn + y * 16 + md_lane() / 16 * 8 + md_lane() %% 8) * "
        "%d + z * 16 + md_lane() / 8 %% 2 * 8);",
        b, t->p, pitch);
  md_cu_close(k, m);
}

static void put_column(md_cu_kernel *k, const md_cu_tile *t, const char *b) {
  int pitch = t->line_n;
  md_cu_line(k, NULL, "md_u32 fb[4];");
  if (t->across)
    md_cu_line(k, "32 terms x 8", "md_ldmatrix4t(fb, %s + md_lane() * %d + %swn);", b, pitch, t->p);
  else
    md_cu_line(k, "8 x 32 terms",
               "md_ldmatrix4(fb, %s + (%swn + md_lane() %% 8) * %d + md_lane() / 8 * 8);", b, t->p,
               pitch);
}

static void put_mma(md_cu_kernel *k, const md_cu_tile *t, const char *a, const char *b) {
  int mi = frags_m(t), ni = frags_n(t), pitch = t->line_m;
  if (ni == 1) put_column(k, t, b);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark m = md_cu_open(k, NULL, "for (int z = 0; z < %d; z++) {", MD_CU_STEP / MMA_K);
  if (ni > 1) put_columns(k, t, b);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark row = md_cu_open(k, NULL, "for (int x = 0; x < %d; x++) {", mi);
  md_cu_line(k, NULL, "md_u32 fa[4];");
  if (t->across)
    md_cu_line(
        k, NULL,
        "md_ldmatrix4t(fa, %s + (z * 16 + md_lane() / 16 * 8 + md_lane() %% 8) * %d + %swm + "
        "x * 16 + md_lane() / 8 %% 2 * 8);",
        a, pitch, t->p);
  else
    md_cu_line(
        k, NULL,
        "md_ldmatrix4(fa, %s + (%swm + x * 16 + md_lane() %% 16) * %d + z * 16 + md_lane() / "
        "16 * 8);",
        a, t->p, pitch);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark col = md_cu_open(k, NULL, "for (int y = 0; y < %d; y++) {", ni);
  md_cu_line(k, NULL, "md_mma(%sacc[x][y], fa, fb + %s * 2);", t->p, ni == 1 ? "z" : "y");
  md_cu_close(k, col);
  md_cu_close(k, row);
  md_cu_close(k, m);
}

// --- FMAs

static const char *element(md_cu_kernel *k, const md_cu_tile *t, const char *base, int pitch,
                           const char *row) {
  return t->across ? md_format(k->w->arena, "%s[z * %d + %s]", base, pitch, row)
                   : md_format(k->w->arena, "%s[(%s) * %d + z]", base, row, pitch);
}

static void put_fma(md_cu_kernel *k, const md_cu_tile *t, const char *a, const char *b) {
  int mi = frags_m(t), ni = frags_n(t);
  md_cu_mark m = md_cu_open(k, NULL, "for (int z = 0; z < %d; z++) {", MD_CU_STEP);
  md_cu_line(k, NULL, "float fb[%d][2];", ni);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark col = md_cu_open(k, NULL, "for (int y = 0; y < %d * 2; y++) {", ni);
  md_cu_line(
      k, NULL, "fb[y / 2][y %% 2] = %s;",
      element(k, t, b, t->line_n,
              md_format(k->w->arena, "%swn + y / 2 * 8 + md_lane() %% 4 * 2 + y %% 2", t->p)));
  md_cu_close(k, col);
  md_cu_line(k, NULL, "MD_UNROLL");
  md_cu_mark row = md_cu_open(k, NULL, "for (int x = 0; x < %d * 2; x++) {", mi);
  md_cu_line(
      k, NULL, "const float fa = %s;",
      element(k, t, a, t->line_m, md_format(k->w->arena, "%swm + x * 8 + md_lane() / 4", t->p)));
  md_cu_line(k, NULL, "MD_UNROLL");
  col = md_cu_open(k, NULL, "for (int y = 0; y < %d * 2; y++) {", ni);
  md_cu_line(k, NULL, "%sacc[x / 2][y / 2][x %% 2 * 2 + y %% 2] += fa * fb[y / 2][y %% 2];", t->p);
  md_cu_close(k, col);
  md_cu_close(k, row);
  md_cu_close(k, m);
}

void md_cu_put_product(md_cu_kernel *k, const md_cu_tile *t, const char *a, const char *b) {
  bool idle = t->warps_m * t->warps_n < MD_CU_WARPS;
  md_cu_mark m = {0};
  if (idle) m = md_cu_open(k, NULL, "if (md_warp() < %d) {", t->warps_m * t->warps_n);
  if (t->narrow) put_mma(k, t, a, b);
  else put_fma(k, t, a, b);
  if (idle) md_cu_close(k, m);
}

// --- elements of a thread

void md_cu_open_tile(md_cu_kernel *k, const md_cu_tile *t, md_cu_mark mark[4]) {
  mark[0] = md_cu_open(k, NULL, "if (md_warp() < %d) {", t->warps_m * t->warps_n);
  md_cu_line(k, NULL, "MD_UNROLL");
  mark[1] = md_cu_open(k, NULL, "for (int x = 0; x < %d * 2; x++) {", frags_m(t));
  md_cu_line(k, NULL, "const int row = %swm + x * 8 + md_lane() / 4;", t->p);
  md_cu_line(k, NULL, "MD_UNROLL");
  mark[2] = md_cu_open(k, NULL, "for (int y = 0; y < %d; y++) {", frags_n(t));
  md_cu_line(k, NULL, "const int col = %swn + y * 8 + md_lane() %% 4 * 2;", t->p);
  md_cu_line(k, NULL, "MD_UNROLL");
  mark[3] = md_cu_open(k, NULL, "for (int z = 0; z < 2; z++) {");
  md_cu_line(k, NULL, "const float sum = %sacc[x / 2][y][x %% 2 * 2 + z];", t->p);
}

void md_cu_close_tile(md_cu_kernel *k, const md_cu_mark mark[4]) {
  for (int i = 3; i >= 0; i--) md_cu_close(k, mark[i]);
}
