// SPDX-License-Identifier: Apache-2.0
// Shadow memory: cells that are split where an access takes a part of their bytes.
#include "tests/simt/shadow.h"

#include <stdlib.h>

#include "base/base.h"

void simt_shadow_create(Shadow *s, int64_t bytes, bool is_set, bool is_forgetful) {
  size_t blocks = (size_t)md_ceil_div(MD_MAX(bytes, 1), SHADOW_BLOCK);
  *s = (Shadow){.whole = calloc(blocks, sizeof(Cell)),
                .part = calloc(blocks * SHADOW_BLOCK, sizeof(Cell)),  // mostly never touched
                .grain = calloc(blocks, 1),
                .born = is_forgetful ? calloc(blocks, sizeof *s->born) : NULL,
                .bytes = bytes,
                .unset = is_set ? 0 : bytes};
  MD_ASSERT(s->whole && s->part && s->grain && (s->born || !is_forgetful), "out of memory");
  for (size_t b = 0; is_set && b < blocks; b++) s->whole[b].is_set = true;
}

void simt_shadow_free(Shadow *s) {
  free(s->whole);
  free(s->part);
  free(s->grain);
  free(s->born);
  *s = (Shadow){0};
}

void simt_shadow_split(Shadow *s, int64_t block, int grain) {
  int old = s->grain[block] ? s->grain[block] : SHADOW_BLOCK;
  Cell *part = &s->part[block * SHADOW_BLOCK];
  if (old == SHADOW_BLOCK) part[0] = s->whole[block];
  for (int i = SHADOW_BLOCK / grain - 1; i >= 0; i--) part[i] = part[i * grain / old];
  s->grain[block] = (uint8_t)grain;
}

void simt_shadow_set(Shadow *s, int64_t off, int64_t bytes) {
  for (int64_t end = off + bytes; off < end;) {
    Cells c = simt_shadow_at(s, off, end - off);
    for (int i = 0; i < c.num; i++) {
      if (!c.at[i].is_set) s->unset -= c.grain;
      c.at[i].is_set = true;
    }
    off += (int64_t)c.num * c.grain;
  }
}
