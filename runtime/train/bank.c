// SPDX-License-Identifier: Apache-2.0
// The ids beside the banks' rows, and what guessing among these rows costs.
#include "runtime/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool md_bank_ids_read(md_bank_ids *b, md_engine *e, md_diags *d) {
  md_type type;
  const int32_t *ids = md_engine_view_state(e, "bank.ids", &type);
  const int32_t *next = ids ? md_engine_view_state(e, "bank.ptr", NULL) : NULL;
  *b = (md_bank_ids){0};
  if (!next) return md_engine_is_alive(e, d);
  b->rows = type.shape.dim[0];
  b->next = (*next % b->rows + b->rows) % b->rows;
  b->id = md_malloc((size_t)b->rows * sizeof *b->id);
  memcpy(b->id, ids, (size_t)b->rows * sizeof *b->id);
  return true;
}

// As bank_push does: a batch longer than the ring overwrites its own first rows.
void md_bank_ids_push(md_bank_ids *b, const int32_t *ids, int64_t batch) {
  for (int64_t i = 0; b->id && i < batch; i++) {
    b->id[b->next] = ids[i];
    b->next = (b->next + 1) % b->rows;
  }
}

void md_bank_ids_free(md_bank_ids *b) { free(b->id); }

double md_chance(const int32_t *bank_ids, int64_t rows, const int32_t *ids, int64_t batch,
                 double *masked) {
  double sum = 0, not_counted = 0;
  for (int64_t i = 0; i < batch; i++) {
    int64_t counted = 0;
    for (int64_t n = 0; n < rows; n++) counted += bank_ids[n] != -2 && bank_ids[n] != ids[i];
    sum += log1p((double)counted);
    not_counted += (double)(rows - counted);
  }
  *masked = not_counted / (double)batch;
  return sum / (double)batch;
}
