// SPDX-License-Identifier: Apache-2.0
// All states of a step as one safetensors file: weights, their averages, momenta, banks, statistics.
// The settings travel with them, so that the file alone says what it is.
#include "runtime/train/train.h"

#include "base/safetensors.h"

#include <stdlib.h>
#include <string.h>

static md_st_tensor tensor_of(md_engine *e, const char *name) {
  md_type type;
  void *data = md_engine_state(e, name, &type);
  md_st_tensor t = {.name = name,
                    .dtype = type.dtype,
                    .rank = type.shape.rank,
                    .data = data,
                    .bytes = (size_t)md_elements(&type.shape) * (size_t)md_dtype_size(type.dtype)};
  memcpy(t.dim, type.shape.dim, sizeof type.shape.dim);
  return t;
}

bool md_train_save(md_engine *e, const char *path, const char *config, int64_t steps, md_diags *d) {
  int num = md_engine_num_states(e);
  md_st_tensor *t = calloc((size_t)num + 1, sizeof *t);
  if (!t) return md_error(d, E0802, MD_IN_FILE(path), "not enough memory to save the weights");
  for (int i = 0; i < num; i++) t[i] = tensor_of(e, md_engine_state_name(e, i));
  char step_text[32];
  snprintf(step_text, sizeof step_text, "%lld", (long long)steps);
  const md_st_meta meta[] = {{"format", MD_WEIGHTS_FORMAT},
                             {"modist_version", MODIST_VERSION},
                             {"step", step_text},
                             {"config", config}};
  bool ok = md_safetensors_write(path, t, num, meta, MD_COUNT(meta), d);
  free(t);
  return ok;
}
