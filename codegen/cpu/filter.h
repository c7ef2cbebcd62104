// SPDX-License-Identifier: Apache-2.0
// Winograd's minimal filtering F(m x m, r x r): a square of m x m results from n x n pixels, n = m + r - 1, by n^2
// products where the direct way takes r^2 m^2 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", arXiv:1509.09308); along time alone F(m, r): m results by n products instead of r m.
//
//     Y = A' [ (G g G') . (B d B') ] A,   d: n x n pixels of the source, g: r x r weights
//
// and, as it is linear in g, dg = G' [ (A dY A') . (B d B') ] G; along time without the factors on the right.
// docs/winograd.md has the error analysis.
#ifndef CODEGEN_CPU_FILTER_H
#define CODEGEN_CPU_FILTER_H

#include "codegen/cpu/conv.h"

enum { MD_FILTERS = 5, MD_FILTER_N = 6 };

// The matrices interpolate polynomials at 0, +-p for one or two p, and infinity. Rows stand in this
// order; the row of -p is that of +p with other signs in odd columns.
typedef struct md_filter {
  int m, r, n, pairs;
  bool along_t;  // a "square" is a column of frames: x[.][0]
  double b[4][MD_FILTER_N], g[4][MD_FILTER_N], a[4][MD_FILTER_N];
} md_filter;
extern const md_filter md_filters[MD_FILTERS];
int md_filter_planes(const md_filter *f);              // pixels of a square
int64_t md_filter_step(const md_filter *f, int axis);  // t, h, w: from a square to the next
int64_t md_filter_squares(const md_filter *f, int axis, int64_t size);  // that cover `size` results
// What a plane of so many vectors takes: not a power of two, or lines of all planes would share a few sets of L1.
int64_t md_plane_vectors(int64_t vectors);
// Has the problem the filter's taps, and steps of 1?
bool md_filter_suits(const md_filter *f, const md_dense *d);

// Values (vectors of channels) in place, in the upper left corner of x.
typedef md_ir md_square[MD_FILTER_N][MD_FILTER_N];
void md_filter_source(md_emit *e, const md_filter *f, md_square x);           // n x n -> n x n
void md_filter_weights(md_emit *e, const md_filter *f, md_square x);          // r x r -> n x n
void md_filter_results(md_emit *e, const md_filter *f, md_square x);          // n x n -> m x m
void md_filter_result_gradient(md_emit *e, const md_filter *f, md_square x);  // m x m -> n x n
void md_filter_weight_gradient(md_emit *e, const md_filter *f, md_square x);  // n x n -> r x r

// Squares in a window [t][h][w][lane], which are pixels of n^2 planes.
typedef struct md_squares {
  const md_conv *c;
  const md_filter *f;
  int64_t num[3];         // along t, h, w
  int64_t height, width;  // of the window's frames, in pixels
} md_squares;
// The first plane, where the first square's pixel is in each, and how far apart planes lie, in elements.
typedef struct md_planes {
  md_ir at, first;
  int64_t step;
} md_planes;
typedef void md_filter_part(md_emit *e, const md_filter *f, md_square x);
// `size`: pixels of a square that `part` takes along an axis; they begin m apart.
void md_squares_to_planes(const md_squares *q, md_filter_part *part, int size, md_ir window,
                          const md_planes *to);
// Sums in the planes become m x m results each.
void md_squares_from_planes(const md_squares *q, const md_planes *from, md_ir window);

#endif
