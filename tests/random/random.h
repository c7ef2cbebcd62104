// SPDX-License-Identifier: Apache-2.0
// Random graphs: what compiled code must agree with the interpreter on. The map of this folder.
//
//   dice.c       decisions, from a seed or from the bytes of a fuzzer
//   generate.c   a valid graph from decisions        moves.c, blocks.c   what one decision adds
//   reference.c  what the graph means, in double, and how far rounding may lead away from it
//   margin.c     is any element so near to a discontinuity that rounding decides?
//   check.c      passes, compiler and executor against the reference
//   shrink.c     the smallest graph that still fails
#ifndef TESTS_RANDOM_RANDOM_H
#define TESTS_RANDOM_RANDOM_H

#include "graph/graph.h"

// --- dice.c

// With `data`: its bytes, then zeros. Without: the hash of a seed.
typedef struct md_dice {
  const uint8_t *data;
  size_t len, at;
  uint64_t key, i;
} md_dice;
md_dice md_dice_seeded(uint64_t seed);
md_dice md_dice_of(const uint8_t *data, size_t len);
int64_t md_roll(md_dice *d, int64_t sides);  // 0 .. sides-1

// --- generate.c

enum { MD_GEN_VALUES = 512 };
typedef enum md_gen_kind {
  MD_GEN_ANY,
  MD_GEN_SMOOTH,  // for finite differences; its results are a `loss` and the gradients d_<leaf>
  MD_GEN_WIDE,    // as many channels as tensor cores want; what bf16 storage does not decide
} md_gen_kind;
typedef struct md_gen {
  md_builder b;
  md_dice *dice;
  md_dtype dtype;  // of most floats
  bool smooth;     // in f64 and only what has a gradient, for finite differences
  bool large;      // tensors of some thousand elements
  bool wide;       // with channels for tensor cores
  bool has_loss;   // of a wide one: nothing whose gradient jumps
  int num, num_leaves;
  md_val value[MD_GEN_VALUES];  // what later nodes may read
  double size[MD_GEN_VALUES];   // about the largest element
} md_gen;

// A graph of some 5 to 40 nodes. NULL: the builder refused a node, which is a mistake of this generator;
// reported.
md_graph *md_random_graph(md_dice *dice, md_gen_kind kind, md_diags *d);

// For moves. Results of the node can be read by later ones; the first is returned. `size`: about its
// largest element.
md_val md_gen_node(md_gen *g, md_op op, const md_val *in, int num_in, const md_attr *a,
                   double size);
md_val md_gen_keep(md_gen *g, md_val v, double size);  // what another builder made
double md_gen_size(const md_gen *g, md_val v);
bool md_gen_may_jump(const md_gen *g);  // bf16 is too coarse to stay away from jumps
bool md_gen_one_in(md_gen *g, int64_t n);
int64_t md_gen_dim(md_gen *g);
int64_t md_gen_channels(md_gen *g);
md_type md_gen_type(md_gen *g, int rank);  // of the graph's dtype, not too large
// What to draw for a leaf is in its name (md_draw): "x" anything, "pos" positive, "label<k>" 0..k-1,
// "int" small integers, "flag" 0 or 1.
md_val md_gen_leaf(md_gen *g, const char *kind, md_type type);
md_val md_gen_state(md_gen *g, const char *kind, md_type type);
// A value of the graph's dtype with that rank (0: any), perhaps a new leaf.
md_val md_gen_pick(md_gen *g, int rank);
// A value of that type, perhaps broadcast from a smaller one, perhaps a new leaf.
md_val md_gen_like(md_gen *g, md_val x);
// Divided by about its size when that is large.
md_val md_gen_tame(md_gen *g, md_val v);

// --- moves.c, blocks.c: one decision
void md_random_pointwise(md_gen *g);
void md_random_view(md_gen *g);
void md_random_reduce(md_gen *g);
void md_random_rows(md_gen *g);
void md_random_data(md_gen *g);
void md_random_integer(md_gen *g);
void md_random_conv(md_gen *g);
void md_random_matmul(md_gen *g);
void md_random_pool(md_gen *g);
void md_random_nce(md_gen *g);
void md_random_picture(md_gen *g);
void md_random_backward(md_gen *g);  // backward ops by themselves

// --- reference.c

enum { MD_RANDOM_STEPS = 2 };
typedef struct md_reference {
  const md_graph *g;  // without `gradient`
  int num_steps;
  uint64_t seed;
  int draws;                           // how many sets of inputs were looked at
  const char *refused;                 // why the last one was not good
  md_dtype squares;                    // in which a variance adds them up
  md_tensor **value[MD_RANDOM_STEPS];  // by md_val; leaves: what the step reads
  md_tensor **bound[MD_RANDOM_STEPS];  // by md_val: by how much an element may be off
} md_reference;
// Element of a leaf by its name (see md_gen_leaf).
void md_draw(md_tensor *t, const char *name, uint64_t seed);
// Draws inputs until no element is near a discontinuity. False: `most` draws were not enough for
// even one step.
bool md_reference_create(md_reference *r, const md_graph *g, uint64_t seed, int most);
// For kernels that add up squares in that type; the other one takes f64.
bool md_reference_create_for(md_reference *r, const md_graph *g, uint64_t seed, int most,
                             md_dtype squares);
void md_reference_destroy(md_reference *r);
// State `s` after the step, and by how much it may be off.
const md_tensor *md_state_after(const md_reference *r, int step, md_val s, const md_tensor **bound);

// --- margin.c

// `bound` by md_val, or NULL. NULL: no element of the step's values is near a discontinuity; else
// the op.
const char *md_near_jump(const md_graph *g, md_tensor *const *value, md_tensor *const *bound);

// --- check.c

typedef struct md_random_variant {
  const char *name, *passes;
  int level;
  const char *cpu;
  bool jit;       // false: passes only
  bool bf16;      // storage of activations
  bool shuffled;  // rewriting passes in an order that the seed chooses
  bool limited;   // only as many rewrites as the seed says
  bool again;     // all values that may be computed again are
} md_random_variant;
extern const md_random_variant md_variants[];
extern const int md_num_variants;       // the first is the full level
int md_variant_from(const char *name);  // -1: unknown

enum { MD_FINDING_TEXT = 1000 };
typedef struct md_finding {
  const char *kind;  // NULL: all is well
  char text[MD_FINDING_TEXT];
} md_finding;
typedef struct md_check_stats {
  int draws, steps, gave_up, again;  // again: graphs of which something was computed again
  char why[24];                      // it gave up
  int64_t draw_ns, pass_ns, compile_ns, run_ns;
  int64_t elements;
  double worst;  // largest part of its bound that an element was off
} md_check_stats;
// The whole differential test of one graph. `variants`: a bit for each.
bool md_check_graph(const md_graph *g, uint64_t seed, unsigned variants, md_check_stats *stats,
                    md_finding *f);

// --- shrink.c

// Graphs made from g by one removal each are offered to `fails`, greedily, until none fails. Takes g.
md_graph *md_shrink(md_graph *g, bool (*fails)(void *ctx, const md_graph *g), void *ctx);

#endif
