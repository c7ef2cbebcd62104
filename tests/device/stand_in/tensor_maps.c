// SPDX-License-Identifier: Apache-2.0
// Tensor maps: a simt_tmap in the driver's 128 bytes. It begins with the address of the memory as the
// host knows it; a launch puts the memory's own in its place.
#include "tests/device/stand_in/stand_in.h"

#include <string.h>

#include "tests/simt/simt.h"

enum { BF16 = 9, SWIZZLE_128 = 3, BOX = 256, STEP = 8, ROW = 128 };

static int check_tensor(int type, unsigned rank, Address at, const uint64_t *dim,
                        const uint64_t *stride, const unsigned *step, int interleave, int swizzle,
                        int fill) {
  if (type != BF16 || interleave || (swizzle && swizzle != SWIZZLE_128) || fill)
    return refuse(NOT_SUPPORTED, "bf16 without interleaving or fill, and 128-byte swizzle or none, "
                                 "are what the stand-in can do");
  if (rank < 1 || rank > 5) return refuse(INVALID_VALUE, "rank %u", rank);
  if (at % 16) return refuse(INVALID_VALUE, "its address is no multiple of 16");
  uint64_t bytes = dim[0] * 2;
  for (unsigned i = 0; i < rank; i++) {
    if (!dim[i] || dim[i] > INT32_MAX) return refuse(INVALID_VALUE, "dimension %u", i);
    if (step[i] < 1 || step[i] > STEP) return refuse(INVALID_VALUE, "element stride %u", i);
    if (i && (stride[i - 1] % 16 || stride[i - 1] < bytes || stride[i - 1] > INT32_MAX))
      return refuse(INVALID_VALUE, "stride %u of %llu bytes", i - 1,
                    (unsigned long long)stride[i - 1]);
    if (i) bytes = stride[i - 1] * dim[i];
  }
  uint64_t last = dim[0] * 2;
  for (unsigned i = 1; i < rank; i++) last += stride[i - 1] * (dim[i] - 1);
  return memory_at(at, last) ? 0 : refuse(INVALID_VALUE, "it goes beyond device memory");
}

static simt_tmap tensor(unsigned rank, Address at, const uint64_t *dim, const uint64_t *stride,
                        int swizzle) {
  simt_tmap m = {.rank = (int)rank, .is_swizzled = swizzle != 0};
  memcpy(&m.base, &at, sizeof m.base);
  for (unsigned i = 0; i < rank; i++) {
    m.dim[i] = (int)dim[i];
    m.stride[i] = i ? (int)stride[i - 1] : 2;
    m.box[i] = m.step[i] = 1;
  }
  return m;
}

static void put(void *map, const simt_tmap *m) {
  memset(map, 0, 128);
  memcpy(map, m, sizeof *m);
}

static int check_row(unsigned elements, int swizzle) {
  bool ok = elements >= 1 && elements <= BOX && elements * 2 % 16 == 0 &&
            (!swizzle || elements * 2 <= ROW);
  return ok ? 0 : refuse(INVALID_VALUE, "rows of %u elements", elements);
}

static int tiled(void *map, unsigned rank, Address at, const uint64_t *dim, const uint64_t *stride,
                 const unsigned *box, const unsigned *step, int swizzle) {
  simt_tmap m = tensor(rank, at, dim, stride, swizzle);
  for (unsigned i = 0; i < rank; i++) {
    if (box[i] < 1 || box[i] > BOX) return refuse(INVALID_VALUE, "a box of %u", box[i]);
    if (step[i] != 1) return refuse(NOT_SUPPORTED, "element strides of tiles are not emulated");
    m.box[i] = (int)box[i];
  }
  int error = check_row(box[0], swizzle);
  if (!error) put(map, &m);
  return error;
}

API cuTensorMapEncodeTiled(void *map, int type, unsigned rank, void *address, const uint64_t *dim,
                           const uint64_t *stride, const unsigned *box, const unsigned *step,
                           int interleave, int swizzle, int promotion, int fill) {
  int error = call_begin(__func__, NEEDS_INIT);
  Address at = (Address)(uintptr_t)address;
  (void)promotion;
  if (!error) error = check_tensor(type, rank, at, dim, stride, step, interleave, swizzle, fill);
  return call_end(error ? error : tiled(map, rank, at, dim, stride, box, step, swizzle));
}

static int im2col(void *map, unsigned rank, Address at, const uint64_t *dim, const uint64_t *stride,
                  const int *lower, const int *upper, unsigned channels, unsigned pixels,
                  const unsigned *step, int swizzle) {
  simt_tmap m = tensor(rank, at, dim, stride, swizzle);
  m.is_im2col = true;
  m.pixels = (int)pixels;
  m.box[0] = (int)channels;
  if (rank < 3) return refuse(INVALID_VALUE, "rank %u", rank);
  if (pixels < 1 || pixels > 1024) return refuse(INVALID_VALUE, "%u pixels", pixels);
  int most = 1 << (16 / ((int)rank - 2) - 1);  // corners share 16 bits
  for (unsigned i = 0; i + 2 < rank; i++) {
    m.lower[i] = lower[i];
    m.upper[i] = upper[i];
    m.step[i + 1] = (int)step[i + 1];
    if (MD_MIN(lower[i], upper[i]) < -most || MD_MAX(lower[i], upper[i]) >= most)
      return refuse(INVALID_VALUE, "corners %d and %d", lower[i], upper[i]);
  }
  int error = check_row(channels, swizzle);
  if (!error) put(map, &m);
  return error;
}

API cuTensorMapEncodeIm2col(void *map, int type, unsigned rank, void *address, const uint64_t *dim,
                            const uint64_t *stride, const int *lower, const int *upper,
                            unsigned channels, unsigned pixels, const unsigned *step,
                            int interleave, int swizzle, int promotion, int fill) {
  int error = call_begin(__func__, NEEDS_INIT);
  Address at = (Address)(uintptr_t)address;
  (void)promotion;
  if (!error) error = check_tensor(type, rank, at, dim, stride, step, interleave, swizzle, fill);
  return call_end(
      error ? error
            : im2col(map, rank, at, dim, stride, lower, upper, channels, pixels, step, swizzle));
}
