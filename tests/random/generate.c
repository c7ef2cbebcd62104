// SPDX-License-Identifier: Apache-2.0
// A valid graph from decisions. Values that exist are operands of what comes; leaves appear when one
// is needed. Shapes fit by construction, sizes of elements stay moderate by estimate, and every
// value that nobody read becomes a result, so that nothing is dead unless a decision says so.
#include "tests/random/random.h"

#include <math.h>
#include <string.h>

// Small graphs find most mistakes; the few large ones are for loops with several rounds.
enum { MOST_ELEMENTS = 600, MOST_IN_LARGE = 6000, LARGE_ONE_IN = 8 };

typedef void (*move)(md_gen *g);
typedef struct choice {
  move add;
  int weight, nodes;  // about how many nodes
  bool smooth;
} choice;

static const choice choices[] = {
    {md_random_pointwise, 9, 1, true}, {md_random_view, 5, 1, true},
    {md_random_reduce, 3, 2, true},    {md_random_rows, 3, 1, true},
    {md_random_data, 3, 1, true},      {md_random_integer, 2, 2, false},
    {md_random_conv, 6, 4, true},      {md_random_matmul, 3, 2, true},
    {md_random_pool, 2, 1, true},      {md_random_nce, 2, 6, true},
    {md_random_picture, 1, 2, false},  {md_random_backward, 2, 1, false},
};

static void add_move(md_gen *g, int *left) {
  int64_t total = 0;
  for (int i = 0; i < MD_COUNT(choices); i++)
    if (choices[i].smooth || !g->smooth) total += choices[i].weight;
  int64_t at = md_roll(g->dice, total);
  for (int i = 0; i < MD_COUNT(choices); i++) {
    if (!choices[i].smooth && g->smooth) continue;
    at -= choices[i].weight;
    if (at >= 0) continue;
    choices[i].add(g);
    *left -= choices[i].nodes;
    return;
  }
}

// --- loss, gradients, updates

// Leaves from which a gradient can come: their every path to the loss has one. `from` gets them.
static int differentiable(const md_graph *g, md_val loss, md_val *from, int most) {
  bool *reached = md_alloc(g->arena, (size_t)g->num_values + 1);
  bool *blocked = md_alloc(g->arena, (size_t)g->num_values + 1);
  int num = 0;
  reached[loss] = true;
  for (int i = g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = g->node[i];
    bool on_path = false, block = false;
    for (int k = 0; k < n->num_out; k++) {
      on_path |= reached[n->out + (md_val)k];
      block |= blocked[n->out + (md_val)k];
    }
    // What stands beside lse carries none.
    if (n->op == MD_OP_nce_lse && (reached[n->out + 1] || reached[n->out + 2])) block = true;
    if (!on_path) continue;
    bool leaf = n->op == MD_OP_input || n->op == MD_OP_state;
    if (leaf && !block && md_dtype_is_float(md_type_in(g, n->out)->dtype) && num < most)
      from[num++] = n->out;
    for (int k = 0; k < n->num_in; k++) {
      reached[n->in[k]] = true;
      blocked[n->in[k]] |= block || !md_ops[n->op].grad || md_op_is_constant(n->op, k);
    }
  }
  return num;
}

static bool has_update(const md_graph *g, md_val state) {
  for (int i = 0; i < g->num_updates; i++)
    if (g->update[i].state == state) return true;
  return false;
}

static md_val rate(md_gen *g, md_val like) {
  md_type one = md_type_of(md_dtype_of(&g->b, like), 1, (int64_t[]){1});
  return md_broadcast(&g->b,
                      md_input(&g->b, md_format(g->b.g->arena, "pos_rate%d", g->num_leaves++), one),
                      md_shape_of(&g->b, like), (md_dims){1, {0}});
}

// An optimiser's step for a state, or any use of the gradient of another leaf.
static void use_gradient(md_gen *g, md_val p, md_val grad) {
  md_builder *b = &g->b;
  bool state = md_def(b->g, p)->op == MD_OP_state;
  if (!state || has_update(b->g, p)) return;
  md_type t = *md_type_in(b->g, p);
  md_val lr = rate(g, p);
  if (md_gen_one_in(g, 3)) {
    md_val m = md_gen_state(g, "x", t), v = md_gen_state(g, "pos", t);
    md_attr a = {.adamw = {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-3, .weight_decay = 0.01}};
    md_val next =
        md_add_node(b, MD_OP_adamw, (md_val[]){p, grad, m, v, lr, rate(g, p), rate(g, p)}, 7, &a);
    md_update_state(b, m, md_result_of(b, next, 1));
    md_update_state(b, v, md_result_of(b, next, 2));
    md_update_state(b, p, next);
    return;
  }
  md_val buf = md_gen_state(g, "x", t);
  md_attr a = {.sgd = {.momentum = 0.9, .nesterov = md_gen_one_in(g, 2)}};
  if (md_gen_one_in(g, 2)) a.sgd.weight_decay = 0.01;
  md_val next = md_add_node(b, MD_OP_sgd, (md_val[]){p, grad, buf, lr}, 4, &a);
  md_update_state(b, buf, md_result_of(b, next, 1));
  md_update_state(b, p, next);
  if (!md_gen_one_in(g, 3)) return;
  md_val average = md_gen_state(g, "x", t);
  md_update_state(
      b, average,
      md_add_node(b, MD_OP_lerp, (md_val[]){average, next}, 2, &(md_attr){.f = {.value = 0.25}}));
}

// Mean of all elements of some values.
static md_val loss_of(md_gen *g) {
  md_val loss = MD_NONE;
  for (int64_t n = 1 + md_roll(g->dice, 2); n > 0; n--) {
    md_val term = md_mean(&g->b, md_gen_pick(g, g->wide ? 5 : 0), (md_dims){0});
    loss = loss == MD_NONE ? term : md_add(&g->b, loss, term);
  }
  return loss;
}

static void add_gradients(md_gen *g) {
  md_builder *b = &g->b;
  md_val wrt[16], loss = loss_of(g);
  if (b->failed) return;
  int num = differentiable(b->g, loss, wrt, MD_COUNT(wrt));
  int kept = 0;
  for (int i = 0; i < num; i++)
    if (g->smooth || !md_gen_one_in(g, 4)) wrt[kept++] = wrt[i];
  if (kept == 0) return;
  md_val grads = md_gradient(b, loss, wrt, kept);
  md_return(b, "loss", loss);
  for (int i = 0; i < kept && !b->failed; i++) {
    md_val grad = md_result_of(b, grads, i);
    if (g->smooth || md_gen_one_in(g, 2))
      md_return(b, md_format(b->g->arena, "d_%s", md_def(b->g, wrt[i])->name), grad);
    if (!g->smooth) use_gradient(g, wrt[i], grad);
  }
}

static void update_states(md_gen *g) {
  md_builder *b = &g->b;
  int num_nodes = b->g->num_nodes;
  for (int i = 0; i < num_nodes && !b->failed; i++) {
    const md_node *n = b->g->node[i];
    if (n->op != MD_OP_state || has_update(b->g, n->out) || md_gen_one_in(g, 3)) continue;
    md_type t = *md_type_in(b->g, n->out);
    md_val next = MD_NONE;
    for (int k = g->num - 1; k >= 0 && next == MD_NONE; k--)
      if (g->value[k] != n->out && md_type_equal(md_type_in(b->g, g->value[k]), &t) &&
          !md_gen_one_in(g, 4))
        next = g->value[k];
    if (next == MD_NONE && !md_dtype_is_float(t.dtype)) continue;
    if (next == MD_NONE) next = md_affine(b, n->out, -0.5, 0.125);
    if (md_dtype_is_float(t.dtype) && !strncmp(n->name, "x", 1) && md_gen_one_in(g, 2))
      next = md_add_node(b, MD_OP_lerp, (md_val[]){n->out, next}, 2,
                         &(md_attr){.f = {.value = 0.125}});
    // What must stay positive stays as it is.
    if (!strncmp(n->name, "x", 1)) md_update_state(b, n->out, next);
  }
}

static void return_sinks(md_gen *g) {
  md_builder *b = &g->b;
  int num = b->g->num_values, returned = b->g->num_results;
  for (int v = 1; v <= num && !b->failed; v++) {
    const md_node *n = b->g->value[v].node;
    bool is_leaf = md_ops[n->op].role == MD_LEAF, sink = b->g->value[v].uses == 0 && !is_leaf;
    if (n->op == MD_OP_gradient) continue;
    bool want = sink ? !md_gen_one_in(g, 12) : md_gen_one_in(g, is_leaf ? 40 : 9);
    if (v == num && b->g->num_results == returned) want = true;
    if (want) md_return(b, md_format(b->g->arena, "r%d", v), (md_val)v);
  }
}

md_graph *md_random_graph(md_dice *dice, md_gen_kind kind, md_diags *d) {
  bool smooth = kind == MD_GEN_SMOOTH, wide = kind == MD_GEN_WIDE;
  md_gen gen = {.dice = dice, .dtype = MD_F32, .smooth = smooth, .wide = wide}, *g = &gen;
  md_graph *graph = md_graph_create("random");
  md_builder_init(&g->b, graph, d);
  if (smooth) g->dtype = MD_F64;
  else if (wide) g->has_loss = !md_gen_one_in(g, 4);
  else if (md_gen_one_in(g, 12)) g->dtype = MD_BF16;
  else if (md_gen_one_in(g, 16)) g->dtype = MD_F64;
  g->large = wide || md_gen_one_in(g, LARGE_ONE_IN);
  int left = 5 + (int)md_roll(dice, 1 + md_roll(dice, smooth || wide ? 12 : 30));
  if (wide) md_random_conv(g);
  while (left > 0 && !g->b.failed && g->num < MD_GEN_VALUES - 64) add_move(g, &left);
  if (wide ? g->has_loss : smooth || (g->dtype != MD_BF16 && md_gen_one_in(g, 3))) add_gradients(g);
  if (!smooth) {
    update_states(g);
    return_sinks(g);
  }
  if (!g->b.failed) return graph;
  md_graph_destroy(graph);
  return NULL;
}

// --- for moves

bool md_gen_may_jump(const md_gen *g) { return !g->smooth && !g->wide && g->dtype != MD_BF16; }

bool md_gen_one_in(md_gen *g, int64_t n) { return md_roll(g->dice, n) == n - 1; }

md_val md_gen_keep(md_gen *g, md_val v, double size) {
  if (v == MD_NONE || g->num == MD_GEN_VALUES) return v;
  g->value[g->num] = v;
  g->size[g->num++] = size;
  return v;
}

double md_gen_size(const md_gen *g, md_val v) {
  for (int i = g->num - 1; i >= 0; i--)
    if (g->value[i] == v) return g->size[i];
  return 2;
}

md_val md_gen_node(md_gen *g, md_op op, const md_val *in, int num_in, const md_attr *a,
                   double size) {
  md_val v = md_add_node(&g->b, op, in, num_in, a);
  if (v == MD_NONE) return v;
  for (int i = 0; i < md_def(g->b.g, v)->num_out; i++) md_gen_keep(g, v + (md_val)i, size);
  return v;
}

int64_t md_gen_dim(md_gen *g) {
  static const int64_t dim[] = {4, 1, 2, 3, 5, 6, 7, 8, 9, 11, 13, 16, 17, 1, 2, 3};
  return dim[md_roll(g->dice, MD_COUNT(dim))];
}

int64_t md_gen_channels(md_gen *g) {
  static const int64_t wide[] = {64, 128, 72, 64, 136};
  if (g->wide && !md_gen_one_in(g, 6)) return wide[md_roll(g->dice, MD_COUNT(wide))];
  static const int64_t dim[] = {8, 1, 3, 7, 9, 16, 17, 2, 4, 15, 31, 33};
  return dim[md_roll(g->dice, MD_COUNT(dim))];
}

md_type md_gen_type(md_gen *g, int rank) {
  md_type t = {.dtype = g->dtype, .shape = {.rank = rank}};
  int64_t num = 1, most = g->large ? MOST_IN_LARGE : MOST_ELEMENTS;
  for (int i = 0; i < rank; i++) {
    int64_t dim = i == 1               ? md_gen_channels(g)
                  : i == 0 && rank > 3 ? 1 + md_roll(g->dice, 4)
                                       : md_gen_dim(g);
    while (num * dim > most) dim = (dim + 1) / 2;
    if (num * dim > most) dim = 1;
    t.shape.dim[i] = dim;
    num *= dim;
  }
  return t;
}

md_val md_gen_state(md_gen *g, const char *kind, md_type type) {
  char *name = md_format(g->b.g->arena, "%s_s%d", kind, g->num_leaves++);
  return md_gen_keep(g, md_state(&g->b, name, type, NULL), 2);
}

md_val md_gen_leaf(md_gen *g, const char *kind, md_type type) {
  static const double constant[] = {0.5, 0, 1, -1, 2, 0.1, -3};
  bool plain = !strcmp(kind, "x") && !g->smooth;
  if (plain && md_gen_one_in(g, 8)) {
    double c = constant[md_roll(g->dice, MD_COUNT(constant))];
    return md_gen_keep(g, md_constant(&g->b, type, c), 2);
  }
  if (md_gen_one_in(g, 3)) return md_gen_state(g, kind, type);
  char *name = md_format(g->b.g->arena, "%s_i%d", kind, g->num_leaves++);
  return md_gen_keep(g, md_input(&g->b, name, type), 2);
}

md_val md_gen_pick(md_gen *g, int rank) {
  int fits[MD_GEN_VALUES], num = 0;
  for (int i = 0; i < g->num; i++) {
    const md_type *t = md_type_in(g->b.g, g->value[i]);
    if (t->dtype == g->dtype && (rank == 0 || t->shape.rank == rank)) fits[num++] = i;
  }
  if (num == 0 || md_gen_one_in(g, 12))
    return md_gen_leaf(g, "x", md_gen_type(g, rank ? rank : 1 + (int)md_roll(g->dice, 5)));
  // Late values more often: graphs grow deep.
  int64_t back = md_roll(g->dice, num);
  if (!md_gen_one_in(g, 3)) back = MD_MIN(back, md_roll(g->dice, MD_MIN(num, 4)));
  return md_gen_tame(g, g->value[fits[num - 1 - back]]);
}

// A smaller value that can be repeated along some axes, or the type of one: increasing axes of x.
static md_val broadcast_to(md_gen *g, md_val x) {
  md_shape s = md_shape_of(&g->b, x);
  md_type small = {.dtype = md_dtype_of(&g->b, x)};
  md_dims axes = {0};
  for (int a = 0; a < s.rank; a++) {
    if (md_gen_one_in(g, 2)) continue;
    small.shape.dim[axes.n] = md_gen_one_in(g, 5) ? 1 : s.dim[a];
    axes.d[axes.n++] = a;
  }
  if (axes.n == 0) {
    axes = (md_dims){1, {s.rank - 1}};
    small.shape.dim[0] = 1;
  }
  small.shape.rank = (int)axes.n;
  md_val from = md_gen_leaf(g, "x", small);
  for (int i = g->num - 1; i >= 0; i--)
    if (md_type_equal(md_type_in(g->b.g, g->value[i]), &small) && md_gen_one_in(g, 2)) {
      from = md_gen_tame(g, g->value[i]);
      break;
    }
  return md_gen_keep(g, md_broadcast(&g->b, from, s, axes), md_gen_size(g, from));
}

md_val md_gen_like(md_gen *g, md_val x) {
  if (x == MD_NONE) return x;
  if (md_gen_one_in(g, 3)) return broadcast_to(g, x);
  for (int i = g->num - 1; i >= 0; i--)
    if (g->value[i] != x && md_type_equal(md_type_in(g->b.g, g->value[i]), md_type_in(g->b.g, x)) &&
        md_gen_one_in(g, 2))
      return md_gen_tame(g, g->value[i]);
  return md_gen_leaf(g, "x", *md_type_in(g->b.g, x));
}

md_val md_gen_tame(md_gen *g, md_val v) {
  double size = md_gen_size(g, v);
  if (v == MD_NONE || size < 50) return v;
  // A power of two, as models have at such places no odd numbers either.
  return md_gen_keep(g, md_affine(&g->b, v, exp2(-floor(log2(size))), 0), 2);
}
