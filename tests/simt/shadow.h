// SPDX-License-Identifier: Apache-2.0
// Shadow memory: a cell for each byte says who wrote and who read it last, and when. Bytes that were
// always touched together have one cell: 16 at first, halved where an access takes a part of them. So
// nothing is lost: a cell stands for bytes that have the same history.
#ifndef TESTS_SIMT_SHADOW_H
#define TESTS_SIMT_SHADOW_H

#include <stdbool.h>
#include <stdint.h>

enum { SHADOW_BLOCK = 16 };

// Of the readers since the last barrier two are kept, of different warps when there are.
typedef struct Cell {
  uint32_t written, read;  // epochs; 0: not in this program
  uint32_t foreign;        // launch in which another block has read it
  uint16_t writer, write_clock, reader[2], read_clock[2];
  bool two_readers, is_set, in_flight;
  uint8_t units;  // that read it now
} Cell;

typedef struct Shadow {
  Cell *whole;     // by block, while its bytes are together
  Cell *part;      // 16 a block, the first 16 / grain of them in use
  uint8_t *grain;  // by block: bytes of a cell; 0: 16
  uint32_t *born;  // by block: epoch in which it was forgotten; NULL: never
  int64_t bytes;
  int64_t unset;  // bytes that nobody has written
} Shadow;

// Some bytes of one block. Grains are powers of two: nothing is divided by them, as every access comes here.
typedef struct Cells {
  Cell *at;
  int num, grain;
} Cells;

void simt_shadow_create(Shadow *s, int64_t bytes, bool is_set, bool is_forgetful);
void simt_shadow_free(Shadow *s);
void simt_shadow_split(Shadow *s, int64_t block, int grain);
void simt_shadow_set(Shadow *s, int64_t off, int64_t bytes);

// The cells of the bytes from `off` that lie in its block.
static inline Cells simt_shadow_at(Shadow *s, int64_t off, int64_t bytes) {
  int64_t block = off / SHADOW_BLOCK;
  int in = (int)(off & (SHADOW_BLOCK - 1)), room = SHADOW_BLOCK - in,
      num = bytes < room ? (int)bytes : room, grain = s->grain[block] ? s->grain[block] : 16;
  if ((in | num) & (grain - 1)) {
    grain = (in | num) & -(in | num);
    simt_shadow_split(s, block, grain);
  }
  int shift = __builtin_ctz((unsigned)grain);
  Cell *at = grain == SHADOW_BLOCK ? &s->whole[block] : &s->part[off - in + (in >> shift)];
  return (Cells){at, num >> shift, grain};
}

// Blocks that were last known before `epoch` begin anew.
static inline void simt_shadow_forget(Shadow *s, int64_t off, int64_t bytes, uint32_t epoch) {
  for (int64_t b = off / SHADOW_BLOCK; b <= (off + bytes - 1) / SHADOW_BLOCK; b++) {
    if (s->born[b] >= epoch) continue;
    s->born[b] = epoch;
    s->grain[b] = 0;
    s->whole[b] = (Cell){0};
  }
}

#endif
