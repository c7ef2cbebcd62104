// SPDX-License-Identifier: Apache-2.0
// Vectors, and what the lanes of a warp do together: shuffles, ldmatrix, mma. None but md_sync_warp
// orders memory.
//
// Fragments of 16-bit elements: a register holds two neighbours of a row, the first in its low half. Of
// an 8 by 8 matrix, lane 4 r + c holds row r, columns 2 c and 2 c + 1.
//   a (16 by 16): registers 0..3 are the matrices up left, down left, up right, down right
//   b (16 by 8):  register 0 is the upper matrix transposed, register 1 the lower one
//   c (16 by 8, f32): elements 0, 1 of row r, 2, 3 of row r + 8, columns 2 c and 2 c + 1
#include "tests/simt/machine.h"

#include <string.h>

enum { BANK_ROWS = 8 };  // rows of 16 bytes that the banks serve at once

void simt_load_(void *to, const void *p, int bytes, int align, int line);
void simt_store_(void *p, const void *from, int bytes, int align, int line);
void simt_sync_warp_(int line);
double simt_shfl_xor_(double x, int lanes, int line);
void simt_ldmatrix4_(uint32_t *r, const void *row, bool trans, int line);
void simt_mma_(float *c, const uint32_t *a, const uint32_t *b, int line);

void simt_load_(void *to, const void *p, int bytes, int align, int line) {
  simt_access(p, bytes, align, false, (simt_where){.line = line});
  memcpy(to, p, (size_t)bytes);
}

void simt_store_(void *p, const void *from, int bytes, int align, int line) {
  simt_access(p, bytes, align, true, (simt_where){.line = line});
  memcpy(p, from, (size_t)bytes);
}

void simt_sync_warp_(int line) {
  if (!simt_meet("md_sync_warp", line, NULL)) return;
  simt_order_warp(simt_current() / SIMT_LANES * SIMT_LANES);
  simt_part();
}

typedef struct Shuffle {
  double x, out;
  int lanes;
} Shuffle;

double simt_shfl_xor_(double x, int lanes, int line) {
  Shuffle s = {.x = x, .lanes = lanes};
  if (simt_meet("shuffle", line, &s)) {
    void *const *all = simt_operands();
    for (int i = 0; i < SIMT_LANES; i++) {
      Shuffle *to = all[i];
      to->out = ((const Shuffle *)all[(i ^ to->lanes) % SIMT_LANES])->x;
    }
    simt_part();
  }
  return s.out;
}

// --- ldmatrix

typedef struct Rows {
  uint32_t *r;
  const void *row;
} Rows;

static void count_conflicts(const unsigned char *const *row) {
  int most = 0, num[BANK_ROWS] = {0};
  for (int i = 0; i < 8; i++) {
    int n = ++num[(uintptr_t)row[i] / 16 % BANK_ROWS];
    most = n > most ? n : most;
  }
  simt_counts()->conflicts += most - 1;
}

// Lanes 8 m .. 8 m + 7 bring the rows of matrix m, which goes to register m.
void simt_ldmatrix4_(uint32_t *r, const void *row, bool trans, int line) {
  Rows mine = {r, row};
  simt_access_shared("ldmatrix", row, 16, 16, false, line);
  if (!simt_meet("ldmatrix", line, &mine)) return;
  void *const *all = simt_operands();
  simt_counts()->ldmatrices++;
  for (int m = 0; m < 4; m++) {
    const unsigned char *at[8];
    uint16_t x[8][8];
    for (int i = 0; i < 8; i++) {
      at[i] = ((const Rows *)all[8 * m + i])->row;
      memcpy(x[i], at[i], sizeof x[i]);
    }
    count_conflicts(at);
    for (int lane = 0; lane < SIMT_LANES; lane++) {
      int i = lane / 4, j = lane % 4 * 2;
      uint32_t low = trans ? x[j][i] : x[i][j], high = trans ? x[j + 1][i] : x[i][j + 1];
      ((const Rows *)all[lane])->r[m] = low | high << 16;
    }
  }
  simt_part();
}

// --- mma

typedef struct Product {
  float *c;
  const uint32_t *a, *b;
} Product;

static float low(uint32_t x) {
  float f;
  x <<= 16;
  memcpy(&f, &x, sizeof f);
  return f;
}

static float high(uint32_t x) {
  float f;
  x &= 0xffff0000u;
  memcpy(&f, &x, sizeof f);
  return f;
}

// Products of bf16 are exact; they are added in the order of k, in f32. Tensor cores take another order.
void simt_mma_(float *c, const uint32_t *a, const uint32_t *b, int line) {
  Product mine = {c, a, b};
  if (!simt_meet("mma", line, &mine)) return;
  void *const *all = simt_operands();
  simt_counts()->mmas++;
  float x[16][16], w[16][8], y[16][8];
  for (int lane = 0; lane < SIMT_LANES; lane++) {
    const Product *p = all[lane];
    int i = lane / 4, j = lane % 4 * 2;
    for (int q = 0; q < 4; q++) {
      x[i + q % 2 * 8][j + q / 2 * 8] = low(p->a[q]);
      x[i + q % 2 * 8][j + q / 2 * 8 + 1] = high(p->a[q]);
    }
    for (int q = 0; q < 2; q++) {
      w[j + q * 8][i] = low(p->b[q]);
      w[j + q * 8 + 1][i] = high(p->b[q]);
    }
    for (int q = 0; q < 4; q++) y[i + q / 2 * 8][j + q % 2] = p->c[q];
  }
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) y[i][n] += x[i][k] * w[k][n];
  for (int lane = 0; lane < SIMT_LANES; lane++) {
    const Product *p = all[lane];
    int i = lane / 4, j = lane % 4 * 2;
    for (int q = 0; q < 4; q++) p->c[q] = y[i + q / 2 * 8][j + q % 2];
  }
  simt_part();
}
