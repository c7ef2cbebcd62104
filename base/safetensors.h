// SPDX-License-Identifier: Apache-2.0
// safetensors: named tensors in one file. Eight bytes of header size, a JSON header, then the data.
//
// Nothing in a file is trusted: the header is at most 100 MB, no name stands twice, sizes follow from
// shapes, and the tensors cover the data exactly, without holes or overlap.
#ifndef BASE_SAFETENSORS_H
#define BASE_SAFETENSORS_H

#include "base/diag.h"
#include "modist/dtype.h"

enum { MD_ST_RANK = 8 };
typedef struct md_st_tensor {
  const char *name;
  md_dtype dtype;
  int rank;  // 0: one element
  int64_t dim[MD_ST_RANK];
  const void *data;  // little-endian, row-major; of any alignment
  size_t bytes;
} md_st_tensor;

typedef struct md_st_meta {
  const char *key, *value;
} md_st_meta;

typedef struct md_safetensors {
  int num, num_meta;
  md_st_tensor *tensor;  // sorted by name
  md_st_meta *meta;
  md_arena *arena;  // owns names and shapes
  char *file;       // owns the data
  size_t file_bytes;
} md_safetensors;

md_safetensors *md_safetensors_read(const char *path, md_diags *d);  // NULL: reported (E0601)
void md_safetensors_destroy(md_safetensors *s);
const md_st_tensor *md_safetensors_find(const md_safetensors *s, const char *name);

const char *md_safetensors_meta(const md_safetensors *s, const char *key);  // NULL: no such key
// The metadata under `key` is a seal (see below), and every other byte is as it was written.
bool md_safetensors_sealed(const md_safetensors *s, const char *key);

// The file appears under its name only when complete. Larger element types come first, so that every
// tensor is aligned to its element. A metadata value of NULL becomes a seal, at most one a file: the
// XXH3-128, 32 hex digits, of every byte of the file but these digits.
bool md_safetensors_write(const char *path, const md_st_tensor *tensor, int num,
                          const md_st_meta *meta, int num_meta, md_diags *d);

#endif
