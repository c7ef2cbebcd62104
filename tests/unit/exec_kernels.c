// SPDX-License-Identifier: Apache-2.0
// Kernels as a compiler would make them: a shared object that calls nothing. See exec_fixture.h for
// the program that they belong to.
#include <stdint.h>

enum { PIECE = 256 };

// A word that a test changes in the image, to tell two loaded images apart.
__attribute__((visibility("default"))) const volatile uint32_t image_mark = 0x5EEDFACEu;

// y = 2 x + w on a piece of 256, by way of the scratch memory.
__attribute__((visibility("default"))) void scale(void *const *arg, int64_t item, void *scratch) {
  const float *x = (const float *)arg[0] + item * PIECE, *w = (const float *)arg[1] + item * PIECE;
  float *y = (float *)arg[2] + item * PIECE, *t = scratch;
  for (int i = 0; i < PIECE; i++) t[i] = 2 * x[i];
  for (int i = 0; i < PIECE; i++) y[i] = t[i] + w[i];
}

// Partial sums into the workspace.
__attribute__((visibility("default"))) void partial(void *const *arg, int64_t item, void *scratch) {
  (void)scratch;
  const float *y = (const float *)arg[0] + item * PIECE;
  float sum = 0;
  for (int i = 0; i < PIECE; i++) sum += y[i];
  ((float *)arg[1])[item] = sum;
}

// Their sum in a fixed order; arg[3] counts the steps.
__attribute__((visibility("default"))) void total(void *const *arg, int64_t item, void *scratch) {
  (void)item;
  (void)scratch;
  const float *part = arg[1];
  float sum = 0;
  for (int i = 0; i < 16; i++) sum += part[i];
  *(float *)arg[2] = sum;
  *(int32_t *)arg[3] += 1;
}
