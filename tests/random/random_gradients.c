// SPDX-License-Identifier: Apache-2.0
// Gradients of random graphs against finite differences, on the interpreter in f64.
//   random_gradients [--count=N] [--seed=S]
// Central differences D(h) and D(h/2) of some elements of each leaf. Their distance tells what h costs
// (curvature, or a kink that lies nearer than inputs are drawn); elements where it is not small are
// counted and left out. Ends with the ops that a gradient went through, and those that none did.
#include "tests/random/random.h"

#include "passes/passes.h"
#include "tests/tolerance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DRAWS = 60, ELEMENTS = 6 };

typedef struct Totals {
  int64_t graphs, gave_up, leaves, elements, unclear, failures;
  bool seen[MD_NUM_OPS];
} Totals;

typedef struct Case {
  const md_reference *ref;
  md_interp *run;
  uint64_t seed;
} Case;

static double loss_at(const Case *c, md_val leaf, int64_t i, double x) {
  const md_graph *g = c->ref->g;
  md_tensor *to = NULL;
  for (int k = 0; k < g->num_nodes; k++) {
    const md_node *n = g->node[k];
    md_tensor *t = n->op == MD_OP_input   ? md_interp_input(c->run, n->name)
                   : n->op == MD_OP_state ? md_interp_state(c->run, n->name)
                                          : NULL;
    const md_tensor *from = c->ref->value[0][n->out];
    size_t num = t ? (size_t)md_elements(&t->type.shape) : 0;
    if (t && t->f) memcpy(t->f, from->f, num * sizeof *t->f);
    if (t && t->i) memcpy(t->i, from->i, num * sizeof *t->i);
    if (n->out == leaf) to = t;
  }
  if (i >= 0) to->f[i] = x;
  MD_ASSERT(md_interp_step(c->run, NULL), "the graph ran before");
  return md_interp_value(c->run, md_find_result(g, "loss"))->f[0];
}

static double difference(const Case *c, md_val leaf, int64_t i, double h) {
  double x = c->ref->value[0][leaf]->f[i];
  return (loss_at(c, leaf, i, x + h) - loss_at(c, leaf, i, x - h)) / (2 * h);
}

static void check_leaf(const Case *c, md_val leaf, md_val grad, Totals *t) {
  const md_tensor *d = c->ref->value[0][grad];
  const char *name = md_def(c->ref->g, leaf)->name;
  int64_t n = md_elements(&d->type.shape);
  double loss = loss_at(c, leaf, -1, 0);
  t->leaves++;
  for (int64_t k = 0; k < MD_MIN(n, ELEMENTS); k++) {
    int64_t i = n <= ELEMENTS
                    ? k
                    : (int64_t)(md_hash_at(md_hash_key(name, c->seed), (uint64_t)k) % (uint64_t)n);
    double wide = difference(c, leaf, i, MD_DIFFERENCE_STEP);
    double near = difference(c, leaf, i, MD_DIFFERENCE_STEP / 2);
    double size = fmax(fabs(d->f[i]), fabs(loss)), away = fabs(wide - near);
    if (away > 1e-4 * (1 + fabs(near))) {
      t->unclear++;
      continue;
    }
    t->elements++;
    if (fabs(near - d->f[i]) <= md_difference_tolerance(size) + 4 * away) continue;
    printf("FAILED seed %llu: d_%s[%lld] is %.12g, but differences give %.12g and %.12g\n",
           (unsigned long long)c->seed, name, (long long)i, d->f[i], wide, near);
    t->failures++;
    return;
  }
}

// Ops between the leaves and the loss.
static void mark_seen(const md_graph *g, Totals *t) {
  bool *reached = calloc((size_t)g->num_values + 1, 1);
  for (int i = 0; i < g->num_results; i++)
    if (!strcmp(g->result[i].name, "loss")) reached[g->result[i].val] = true;
  for (int i = g->num_nodes - 1; i >= 0; i--) {
    const md_node *n = g->node[i];
    bool any = false;
    for (int k = 0; k < n->num_out; k++) any |= reached[n->out + (md_val)k];
    for (int k = 0; any && k < n->num_in; k++) reached[n->in[k]] = true;
    if (any) t->seen[n->op] = true;
  }
  free(reached);
}

static md_graph *expanded(md_graph *g, const char *passes, md_diags *d) {
  md_pass_options o = md_pass_defaults();
  o.passes = passes;
  o.verify_each = true;
  return md_run_passes(g, &o, NULL, d);
}

static void check_seed(uint64_t seed, bool print, Totals *t) {
  md_dice dice = md_dice_seeded(seed);
  md_diags *d = md_diags_create();
  md_graph *g = md_random_graph(&dice, MD_GEN_SMOOTH, d);
  t->graphs++;
  if (g && print) md_graph_dump(g);
  if (g) mark_seen(g, t);
  if (g) g = expanded(g, seed % 2 ? "autodiff,dce" : "fuse-infonce,autodiff,dce", d);
  if (!g) {
    printf("FAILED seed %llu: %s", (unsigned long long)seed, md_diags_text(d));
    t->failures++;
  }
  md_reference ref;
  if (g && md_reference_create(&ref, g, seed, MOST_DRAWS)) {
    Case c = {.ref = &ref, .run = md_interp_create(g, false), .seed = seed};
    for (int i = 0; i < g->num_results; i++) {
      const char *name = g->result[i].name;
      if (strncmp(name, "d_", 2) != 0) continue;
      md_val leaf = md_find_input(g, name + 2);
      if (leaf == MD_NONE) leaf = md_find_state(g, name + 2);
      if (leaf != MD_NONE) check_leaf(&c, leaf, g->result[i].val, t);
    }
    md_interp_destroy(c.run);
  } else if (g) {
    t->gave_up++;
  }
  if (g) md_reference_destroy(&ref);
  if (g) md_graph_destroy(g);
  md_diags_destroy(d);
}

int main(int argc, char **argv) {
  int64_t count = 300, seed = 1;
  for (int i = 1; i < argc; i++) {
    bool ok = (!strncmp(argv[i], "--count=", 8) && md_parse_int(argv[i] + 8, &count)) ||
              (!strncmp(argv[i], "--seed=", 7) && md_parse_int(argv[i] + 7, &seed));
    if (ok) continue;
    fprintf(stderr, "usage: random_gradients [--count=N] [--seed=S]\n");
    return MD_ERR_USAGE;
  }
  printf("seed %lld\n", (long long)seed);
  Totals t = {0};
  for (int64_t s = seed; s < seed + count; s++) check_seed((uint64_t)s, count == 1, &t);
  printf("ops without a gradient here:");
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++)
    if (md_ops[op].grad && !t.seen[op]) printf(" %s", md_ops[op].name);
  printf("\n%lld graphs, %lld without good inputs; %lld leaves, %lld elements agree, %lld unclear; "
         "%lld failed\n",
         (long long)t.graphs, (long long)t.gave_up, (long long)t.leaves, (long long)t.elements,
         (long long)t.unclear, (long long)t.failures);
  return t.failures || t.elements == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
