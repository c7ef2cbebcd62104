// SPDX-License-Identifier: Apache-2.0
// wgmma: four warps multiply 64 rows of A by B^T, both in shared memory or A in registers, beside the
// threads. Each warp has 16 of the rows. Work is done at the wait for its group, as late as it may be;
// until then the accumulators are NaN, and what lies in shared memory may not be overwritten.
#include "tests/simt/machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

enum { MAX_N = 256, MAX_OPS = 64, MAX_LIVE = 4, WARPS = SIMT_THREADS / SIMT_LANES, ROWS = 16 };

typedef struct Op {
  float *c[SIMT_LANES];
  bool a_in_registers, across;
  uint32_t a[SIMT_LANES][4];
  uint64_t da, db;
  int n, line;
  int64_t group;
} Op;

// Accumulators under way: what is in them really.
typedef struct Live {
  float *c[SIMT_LANES];
  int n, ops;
  float x[SIMT_LANES][MAX_N / 2];
} Live;

typedef struct Warp {
  Op op[MAX_OPS];
  Live live[MAX_LIVE];
  int num;
  int64_t group, total;
  bool is_fenced;
} Warp;

static Warp *warps;

void simt_wgmma_(int n, float *c, const uint32_t *a, uint64_t da, uint64_t db, bool across,
                 int line);
void simt_wgmma_fence_(int line);
void simt_wgmma_commit_(int line);
void simt_wgmma_wait_(int groups, int line);
void simt_wgmma_ready_(const float *c, int line);
void simt_fence_async_(void);
void simt_regs_(int num, int line);
uint32_t simt_shared_address_(const void *p);

static int my_warp(void) { return simt_current() / SIMT_LANES; }

// Shared memory begins at 1 KiB of its window: what the system keeps for itself.
uint32_t simt_shared_address_(const void *p) {
  return (uint32_t)((const unsigned char *)p - simt_shared_()) + 1024;
}

// --- operands

// 16 bytes of row r, elements 8 half ..
static const unsigned char *chunk(uint64_t desc, int r, int half) {
  uint32_t at = (uint32_t)(desc & 0x3fff) << 4, lead = (uint32_t)(desc >> 16 & 0x3fff) << 4,
           stride = (uint32_t)(desc >> 32 & 0x3fff) << 4;
  at += (uint32_t)(r / 8) * stride;
  if (desc >> 62 == 1) {
    at += (uint32_t)(r % 8 * 128 + half * 16);
    at ^= (at >> 7 & 7) << 4;
  } else {
    at += (uint32_t)(r % 8 * 16) + (uint32_t)half * lead;
  }
  return simt_shared_() + at - 1024;
}

// Operands that lie across: 16 bytes of element k, rows 8 eighth .. Panels of 64 rows follow one another.
static const unsigned char *chunk_across(uint64_t desc, int k, int eighth) {
  uint32_t at = (uint32_t)(desc & 0x3fff) << 4, lead = (uint32_t)(desc >> 16 & 0x3fff) << 4,
           stride = (uint32_t)(desc >> 32 & 0x3fff) << 4;
  at += (uint32_t)(eighth / 8) * lead + (uint32_t)(k / 8) * stride;
  at += (uint32_t)(k % 8 * 128 + eighth % 8 * 16);
  at ^= (at >> 7 & 7) << 4;
  return simt_shared_() + at - 1024;
}

static void check_descriptor(uint64_t desc, bool across, simt_where at) {
  uint32_t begin = (uint32_t)(desc & 0x3fff) << 4;
  bool swizzled = desc >> 62 == 1;
  bool ok = desc >> 62 == 0 || (swizzled && begin % 1024 < 128 && begin % 32 == 0);
  if (across) ok = swizzled && begin % 1024 == 0;
  if (!ok)
    simt_error(true, at, "wgmma: a descriptor of shared memory +%d that is misaligned",
               (int)begin - 1024);
}

static void each_chunk(const Op *o, uint64_t desc, int first, int rows, bool begins) {
  for (int i = 0; i < rows * 2; i++) {
    const unsigned char *p = o->across ? chunk_across(desc, i % 16, first / 8 + i / 16)
                                       : chunk(desc, first + i / 2, i % 2);
    if (begins) simt_read_begins("wgmma", p, o->line);
    else simt_read_ends(p);
  }
}

static void each_operand(const Op *o, bool begins) {
  if (!o->a_in_registers) each_chunk(o, o->da, my_warp() % 4 * ROWS, ROWS, begins);
  each_chunk(o, o->db, 0, o->n, begins);
}

// --- the product

static float f32_of(uint32_t x) {
  float f;
  memcpy(&f, &x, sizeof f);
  return f;
}

static void read_row(const Op *o, uint64_t desc, int r, float x[16]) {
  for (int k = 0; o->across && k < 16; k++) {
    uint16_t raw;
    memcpy(&raw, chunk_across(desc, k, r / 8) + r % 8 * 2, sizeof raw);
    x[k] = f32_of((uint32_t)raw << 16);
  }
  if (o->across) return;
  for (int half = 0; half < 2; half++) {
    uint16_t raw[8];
    memcpy(raw, chunk(desc, r, half), sizeof raw);
    for (int i = 0; i < 8; i++) x[8 * half + i] = f32_of((uint32_t)raw[i] << 16);
  }
}

static void read_a(const Op *o, float a[ROWS][16]) {
  int first = my_warp() % 4 * ROWS;
  for (int i = 0; !o->a_in_registers && i < ROWS; i++) read_row(o, o->da, first + i, a[i]);
  for (int lane = 0; o->a_in_registers && lane < SIMT_LANES; lane++)
    for (int q = 0; q < 4; q++) {
      float *at = &a[lane / 4 + q % 2 * 8][lane % 4 * 2 + q / 2 * 8];
      at[0] = f32_of(o->a[lane][q] << 16);
      at[1] = f32_of(o->a[lane][q] & 0xffff0000u);
    }
}

static Live *live_of(Warp *w, float *const c[SIMT_LANES]) {
  for (int i = 0; i < MAX_LIVE; i++)
    if (w->live[i].ops && w->live[i].c[0] == c[0]) return &w->live[i];
  return NULL;
}

static void multiply(const Op *o, Live *l) {
  static float a[ROWS][16], b[16][MAX_N], y[ROWS][MAX_N];
  read_a(o, a);
  for (int n = 0; n < o->n; n++) {
    float row[16];
    read_row(o, o->db, n, row);
    for (int k = 0; k < 16; k++) b[k][n] = row[k];
  }
  for (int i = 0; i < ROWS; i++) {
    memset(y[i], 0, sizeof y[i]);
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < o->n; n++) y[i][n] += a[i][k] * b[k][n];
  }
  for (int lane = 0; lane < SIMT_LANES; lane++)
    for (int e = 0; e < o->n / 2; e++)
      l->x[lane][e] += y[lane / 4 + e / 2 % 2 * 8][e / 4 * 8 + lane % 4 * 2 + e % 2];
}

static void finish(Warp *w, const Op *o) {
  Live *l = live_of(w, o->c);
  multiply(o, l);
  each_operand(o, false);
  if (--l->ops) return;
  for (int lane = 0; lane < SIMT_LANES; lane++)
    memcpy(l->c[lane], l->x[lane], sizeof(float) * (size_t)l->n / 2);
}

// --- what kernels call

typedef struct Given {
  float *c;
  const uint32_t *a;
  uint64_t da, db;
} Given;

static void begin_live(Warp *w, const Op *o, simt_where at) {
  Live *l = live_of(w, o->c);
  for (int i = 0; !l && i < MAX_LIVE; i++)
    if (!w->live[i].ops) l = &w->live[i];
  if (!l) {
    simt_error(true, at, "too many accumulators under way");
    return;
  }
  if (!l->ops++) {
    l->n = o->n;
    memcpy(l->c, o->c, sizeof l->c);
    for (int lane = 0; lane < SIMT_LANES; lane++) {
      memcpy(l->x[lane], o->c[lane], sizeof(float) * (size_t)o->n / 2);
      for (int e = 0; e < o->n / 2; e++) o->c[lane][e] = NAN;
    }
  }
}

void simt_wgmma_(int n, float *c, const uint32_t *a, uint64_t da, uint64_t db, bool across,
                 int line) {
  Given mine = {c, a, da, db};
  simt_where at = {.line = line};
  if (!simt_meet("wgmma", line, &mine)) return;
  Warp *w = &warps[my_warp()];
  if (!w->is_fenced) simt_error(true, at, "wgmma on registers without md_wgmma_fence");
  if (w->num == MAX_OPS) simt_error(true, at, "too many wgmma in flight");
  Op *o = &w->op[w->num++];
  *o = (Op){.a_in_registers = a,
            .across = across,
            .da = da,
            .db = db,
            .n = n,
            .line = line,
            .group = w->group};
  for (int lane = 0; lane < SIMT_LANES; lane++) {
    const Given *g = simt_operands()[lane];
    o->c[lane] = g->c;
    if (a) memcpy(o->a[lane], g->a, sizeof o->a[lane]);
    if (g->da != da || g->db != db)
      simt_error(true, at, "wgmma: descriptors differ inside of a warp");
  }
  if (!a) check_descriptor(da, across, at);
  check_descriptor(db, across, at);
  each_operand(o, true);
  begin_live(w, o, at);
  w->total++;
  simt_counts()->mmas += n / 8;
  simt_part();
}

void simt_wgmma_fence_(int line) {
  if (!simt_meet("md_wgmma_fence", line, NULL)) return;
  warps[my_warp()].is_fenced = true;
  simt_part();
}

void simt_wgmma_commit_(int line) {
  if (!simt_meet("md_wgmma_commit", line, NULL)) return;
  warps[my_warp()].group++;
  simt_part();
}

// The lanes know of each other's past then: any of them may tell others that operands are read.
void simt_wgmma_wait_(int groups, int line) {
  if (!simt_meet("md_wgmma_wait", line, NULL)) return;
  Warp *w = &warps[my_warp()];
  int done = 0;
  while (done < w->num && w->op[done].group < w->group - groups) finish(w, &w->op[done++]);
  w->num -= done;
  memmove(w->op, w->op + done, sizeof *w->op * (size_t)w->num);
  simt_order_warp(my_warp() * SIMT_LANES);
  simt_part();
}

void simt_wgmma_ready_(const float *c, int line) {
  Warp *w = &warps[my_warp()];
  int lane = simt_current() % SIMT_LANES;
  for (int i = 0; i < MAX_LIVE; i++)
    if (w->live[i].ops && w->live[i].c[lane] == c)
      simt_error(true, (simt_where){.line = line}, "accumulators of a wgmma in flight");
  w->is_fenced = false;
}

void simt_fence_async_(void) { simt_order_fence(); }

void simt_regs_(int num, int line) {
  if (num % 8 || num < 24 || num > 256)
    simt_error(true, (simt_where){.line = line}, "%d registers: a multiple of 8 from 24 to 256",
               num);
}

void simt_wgmma_reset(void) {
  if (!warps) warps = calloc(WARPS, sizeof *warps);
  MD_ASSERT(warps, "out of memory");
  for (int i = 0; i < simt_num_threads() / SIMT_LANES; i++) {
    Warp *w = &warps[i];
    w->num = 0;
    w->group = w->total = 0;
    w->is_fenced = false;
    for (int j = 0; j < MAX_LIVE; j++) w->live[j].ops = 0;
  }
}

void simt_wgmma_exit(void) {
  const Warp *w = &warps[my_warp()];
  if (w->num) simt_error(true, (simt_where){.line = w->op[0].line}, "ends with a wgmma in flight");
}

void simt_wgmma_end(void) {
  int num = simt_num_threads() / SIMT_LANES;
  for (int i = 0; i < num; i++) {
    int first = i / 4 * 4;
    if (warps[i].total == warps[first].total && (first + 4 <= num || !warps[i].total)) continue;
    simt_error(true, (simt_where){0},
               "wgmma by %lld and by %lld times in warps %d and %d of a group",
               (long long)warps[first].total, (long long)warps[i].total, first, i);
  }
}
