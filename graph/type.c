// SPDX-License-Identifier: Apache-2.0
// Shapes and layouts. A blocked type keeps channels (axis 1) innermost:
//   f32[n,c,h,w].c8  lies in memory as  [n][ceil(c/8)][h][w][8]
#include "graph/graph.h"

enum { MAX_BLOCK = 4096 };

// Size of axis i in memory.
static int64_t stored_dim(const md_type *t, int i) {
  int64_t dim = t->shape.dim[i];
  return i == 1 && t->block > 0 ? md_round_up(dim, t->block) : dim;
}

md_type md_type_of(md_dtype d, int rank, const int64_t *dim) {
  md_type t = {.dtype = d, .shape.rank = rank};
  for (int i = 0; i < rank && i < MD_MAX_RANK; i++) t.shape.dim[i] = dim[i];
  return t;
}

bool md_shape_equal(const md_shape *a, const md_shape *b) {
  if (a->rank != b->rank) return false;
  for (int i = 0; i < a->rank; i++)
    if (a->dim[i] != b->dim[i]) return false;
  return true;
}

bool md_type_equal(const md_type *a, const md_type *b) {
  return a->dtype == b->dtype && a->block == b->block && md_shape_equal(&a->shape, &b->shape);
}

int64_t md_elements(const md_shape *s) {
  int64_t n = 1;
  for (int i = 0; i < s->rank; i++) n *= s->dim[i];
  return n;
}

int64_t md_type_bytes(const md_type *t) {
  int64_t n = md_dtype_size(t->dtype);
  for (int i = 0; i < t->shape.rank; i++) n *= stored_dim(t, i);
  return n;
}

int64_t md_type_offset(const md_type *t, const int64_t *idx) {
  int64_t at = 0;
  for (int i = 0; i < t->shape.rank; i++) {
    bool is_blocked = i == 1 && t->block > 0;
    int64_t dim = is_blocked ? stored_dim(t, i) / t->block : t->shape.dim[i];
    at = at * dim + (is_blocked ? idx[i] / t->block : idx[i]);
  }
  return t->block > 0 ? at * t->block + idx[1] % t->block : at;
}

char *md_type_text(const md_type *t, md_arena *a) {
  char dims[MD_MAX_RANK * 24] = "";
  int len = 0;
  for (int i = 0; i < t->shape.rank && i < MD_MAX_RANK; i++)
    len += snprintf(dims + len, sizeof dims - (size_t)len, "%s%lld", i ? "," : "",
                    (long long)t->shape.dim[i]);
  const char *name = md_dtype_name(t->dtype);
  return t->block ? md_format(a, "%s[%s].c%d", name, dims, t->block)
                  : md_format(a, "%s[%s]", name, dims);
}

bool md_shape_check(const md_shape *s, const char **why) {
  *why = NULL;
  if (s->rank < 1 || s->rank > MD_MAX_RANK) *why = "a tensor has 1 to 6 axes";
  int64_t n = 1;
  for (int i = 0; !*why && i < s->rank; i++) {
    if (s->dim[i] < 1) *why = "every axis has at least one element";
    else if (s->dim[i] >= MD_MAX_DIM) *why = "an axis has fewer than 2^31 elements";
    else if (!md_mul_size(n, s->dim[i], &n) || n >= MD_MAX_ELEMENTS)
      *why = "a tensor has fewer than 2^40 elements";
  }
  return !*why;
}

bool md_type_check(const md_type *t, const char **why) {
  if (!md_dtype_size(t->dtype)) {
    *why = "it has no element type";
    return false;
  }
  if (!md_shape_check(&t->shape, why) || !t->block) return !*why;
  if (t->block < 1 || t->block > MAX_BLOCK) *why = "a block has 1 to 4096 channels";
  if (t->shape.rank < 2) *why = "only types with channels (axis 1) are stored in blocks";
  // Padding at most turns a channel into a block: 2^40 * 2^12 elements stay far below 2^63 bytes.
  return !*why;
}
