// SPDX-License-Identifier: Apache-2.0
// Winograd's minimal filtering F(m x m, r x r): a square of m x m results from n x n pixels, n = m + r - 1, by n^2
// products where the direct way takes r^2 m^2 (Lavin and Gray, "Fast Algorithms for Convolutional Neural
// Networks", arXiv:1509.09308); along time alone F(m, r): m results by n products instead of r m.
//
//     Y = A' [ (G g G') . (B d B') ] A,   d: n x n pixels of the source, g: r x r weights
//
// and, as it is linear in g, dg = G' [ (A dY A') . (B d B') ] G; along time without the factors on the right.
// docs/winograd.md has the error analysis.
//
// With a stride of 2 even pixels meet the outer taps, F(2, 2), and odd ones the middle tap alone: two results of three
// taps by 5 products instead of 6. A data gradient has two results of two taps and two of one from three pixels.
#ifndef CODEGEN_CPU_FILTER_H
#define CODEGEN_CPU_FILTER_H

#include "codegen/cpu/conv.h"

enum { MD_FILTERS = 7, MD_FILTER_N = 6 };

// Of each matrix `single` rows stand for themselves, further ones for a pair of planes: that of a point -p is the row of
// +p with other signs in odd columns. Where the stride is 1, single are the points 0 and infinity.
typedef struct md_filter {
  int m, r, n, single, pairs;  // n planes: single + 2 pairs
  int in, in_step;  // pixels of the source: of a square, from it to the next; results: m, m
  int stride;       // of the convolution
  int work;         // multiply-adds that take the time of a transform, for each plane
  bool transposed;  // for the data gradient of that stride
  bool along_t;     // a "square" is a column of frames: x[.][0]
  double b[5][MD_FILTER_N], g[5][MD_FILTER_N], a[5][MD_FILTER_N];
} md_filter;
extern const md_filter md_filters[MD_FILTERS];
int md_filter_planes(const md_filter *f);
bool md_filters_axis(const md_filter *f, int axis);    // t, h, w
int64_t md_filter_step(const md_filter *f, int axis);  // results, from a square to the next
int64_t md_filter_squares(const md_filter *f, int axis, int64_t size);  // that cover `size` results
// What a plane of so many vectors takes: not a power of two, or lines of all planes would share a few sets of L1.
int64_t md_plane_vectors(int64_t vectors);

// The convolution as a filter sees it; false: it does not suit. Results of a `transposed` filter are one problem, whose
// source is half as many pixels along h and w.
bool md_filter_split(const md_conv *c, const md_filter *f, md_conv_parts *p);
// NULL: so many multiply-adds of vectors are well below those of the convolution as it is. Or why not.
const char *md_filter_refuse(const md_conv *direct, double cost);

// Values (vectors of channels) in place, in the upper left corner of x.
typedef md_ir md_square[MD_FILTER_N][MD_FILTER_N];
void md_filter_source(md_emit *e, const md_filter *f, md_square x);           // in x in -> n x n
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
  int size, step;         // pixels of a square along an axis, and from it to the next
  int64_t apart[3];       // pixels lie so many places apart
  int64_t in_plane[3];    // pixels of a plane from a square to the next
} md_squares;
// Pixels side by side, squares row by row.
md_squares md_squares_in_order(const md_conv *c, const md_filter *f, const int64_t num[3]);
// The first plane, where the first square's pixel is in each, and how far apart planes lie, in elements.
typedef struct md_planes {
  md_ir at, first;
  int64_t step;
} md_planes;
typedef void md_filter_part(md_emit *e, const md_filter *f, md_square x);
void md_squares_to_planes(const md_squares *q, md_filter_part *part, md_ir window,
                          const md_planes *to);
// Sums in the planes become m x m results each.
void md_squares_from_planes(const md_squares *q, const md_planes *from, md_ir window);

#endif
