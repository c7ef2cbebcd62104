// SPDX-License-Identifier: Apache-2.0
// The search for NaN and infinity: both are an exponent of all ones. A tensor is looked at in runs
// of real elements, so that the padding of channel blocks, which may hold anything, is passed over:
//
//   block 8, 11 channels:  [n][0][t h w] cccccccc   one run for all of t h w
//                          [n][1][t h w] ccc.....   a run of 3 for each of t h w
#include "runtime/exec/exec.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

typedef struct finding {
  int64_t num_bad, num_low, first;
} finding;  // of the bad ones -inf; first: offset in elements as stored

// Eight bytes at a time: where an exponent is all ones, adding its lowest bit carries into the sign, which
// is masked out before. Branch-free over a stretch, so that it runs at the speed of memory.
static bool run_is_finite(md_dtype t, const void *at, int64_t first, int64_t n) {
  uint64_t every = t == MD_BF16 ? 0x0001000100010001u : t == MD_F32 ? 0x0000000100000001u : 1;
  uint64_t low = every << (t == MD_BF16 ? 7 : t == MD_F32 ? 23 : 52);
  uint64_t sign = every << (t == MD_BF16 ? 15 : t == MD_F32 ? 31 : 63), exponent = sign - low;
  int64_t bytes = n * md_dtype_size(t);
  const char *x = (const char *)at + first * md_dtype_size(t);
  uint64_t all = 0, word = 0;
  for (; bytes >= 8; bytes -= 8, x += 8) {
    memcpy(&word, x, 8);
    all |= (word & exponent) + low;
  }
  word = 0;
  memcpy(&word, x, (size_t)bytes);
  all |= (word & exponent) + low;
  return !(all & sign);
}

static void look_at(md_dtype t, const void *at, int64_t first, int64_t n, finding *f) {
  if (run_is_finite(t, at, first, n)) return;
  for (int64_t i = first; i < first + n; i++) {
    double x = md_element_load(t, at, i);
    if (isfinite(x)) continue;
    f->num_low += isinf(x) && x < 0;
    if (f->num_bad++ == 0) f->first = i;
  }
}

// Index on every axis of the element stored at `offset`.
static void index_of(const md_arg *a, int64_t offset, int64_t idx[MD_SPEC_RANK]) {
  int64_t block = MD_MAX(a->block, 1), lane = offset % block;
  offset /= block;
  for (int i = a->rank - 1; i >= 0; i--) {
    int64_t n = i == 1 ? md_ceil_div(a->dim[1], block) : a->dim[i];
    idx[i] = offset % n;
    if (i == 1) idx[i] = idx[i] * block + lane;
    offset /= n;
  }
}

md_finite md_arg_look(const md_arg *a, const void *at, char *what, int what_size) {
  if (!md_dtype_is_float(a->dtype)) return MD_FINITE;
  finding f = {0};
  int64_t elements = 1;
  for (int i = 0; i < a->rank; i++) elements *= a->dim[i];
  if (a->block == 0 || a->rank < 2 || a->dim[1] % a->block == 0) {
    look_at(a->dtype, at, 0, elements, &f);
  } else {
    int64_t blocks = md_ceil_div(a->dim[1], a->block), last = a->dim[1] % a->block;
    int64_t places = elements / (a->dim[0] * a->dim[1]), offset = 0;
    for (int64_t i = 0; i < a->dim[0]; i++) {
      look_at(a->dtype, at, offset, (blocks - 1) * places * a->block, &f);
      offset += (blocks - 1) * places * a->block;
      for (int64_t k = 0; k < places; k++, offset += a->block)
        look_at(a->dtype, at, offset, last, &f);
    }
  }
  if (f.num_bad == 0) return MD_FINITE;

  int64_t idx[MD_SPEC_RANK];
  index_of(a, f.first, idx);
  double x = md_element_load(a->dtype, at, f.first);
  int n = snprintf(what, (size_t)what_size,
                   "%" PRId64 " of %" PRId64 " elements, the first is %s at [", f.num_bad, elements,
                   isnan(x) ? "nan"
                   : x < 0  ? "-inf"
                            : "inf");
  for (int i = 0; i < a->rank && n < what_size; i++)
    n += snprintf(what + n, (size_t)(what_size - n), i ? ",%" PRId64 : "%" PRId64, idx[i]);
  if (n < what_size) snprintf(what + n, (size_t)(what_size - n), "]");
  return f.num_low == f.num_bad ? MD_MINUS_INF : MD_NOT_FINITE;
}
