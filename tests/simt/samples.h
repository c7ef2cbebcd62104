// SPDX-License-Identifier: Apache-2.0
// Graphs of the slice: what the fiber machine, NVRTC and a device are tried on.
#ifndef TESTS_SIMT_SAMPLES_H
#define TESTS_SIMT_SAMPLES_H

#include "graph/graph.h"

// Sample i as a graph text into `to`, and its name; false: there is no such sample. Odd sizes, every
// element type, every kind of kernel.
bool simt_sample(int i, md_text *to, char name[64]);
// The samples of op_samples.c: they follow in simt_sample.
bool simt_op_sample(int i, md_text *to, char name[64]);
// Those of conv_samples.c, likewise.
bool simt_conv_sample(int i, md_text *to, char name[64]);
// A random graph of pointwise nodes, views and reductions. NULL: the seed led nowhere.
md_graph *simt_random_graph(uint64_t seed, md_diags *d);
// The same with all other ops, and with regions that are drawn too (fused_graphs.c).
md_graph *simt_fused_graph(uint64_t seed, md_diags *d);

#endif
