// SPDX-License-Identifier: Apache-2.0
// Taps: a compiled step is checked region by region with fusion left on. Before a launch the inputs
// of its region are copied; after it the region's nodes run on the interpreter from these copies, and
// every value that the launch wrote is compared. So an error is named where it arises.
//
// Convolutions above a limit of work are computed for some channels only (partial.c), and the region
// twice, with other numbers in place of what was not computed: elements that are the same both times
// do not depend on it, and are compared.
#include "runtime/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Sums are made in f32 at least, so that their errors grow with the root of their length in steps of
// f32; a narrower type rounds once, what is summed or the sum: as in tests/tolerance.h. A kernel
// rounds in every operation, the interpreter once a value.
enum { SAFETY = 16 };
// Of the elements behind a discontinuity, so many may fall on its other side by rounding.
static const double flip_share = 1e-5;

typedef struct Tap {
  md_engine *e;
  const md_graph *g;
  md_arena *scratch;
  md_tensor **value;  // by md_val
  md_tensor **twin;   // of a sampled region: the same with other fills
  double *step;       // see find_steps
  double most_flops;
  md_verify_stats *stats;
  md_diags *d;
  bool ok;
} Tap;

// The region that a launch begins (ends: `before` false). A region may take several launches in a row. 0:
// none, or one that the graph does not have.
static int region_of(const md_graph *g, const md_exec *x, int launch, bool before) {
  int first, num = md_exec_launches(x, &first), beside = before ? launch - 1 : launch + 1;
  const md_launch *l = md_exec_program(x)->launch;
  bool goes_on = beside >= first && beside < first + num && l[beside].region == l[launch].region;
  return goes_on || l[launch].region > g->num_regions ? 0 : l[launch].region;
}

// Memory of a value that exists outside its region.
static const void *place_of(Tap *t, md_val v) {
  const md_graph *g = t->g;
  const md_value *value = &g->value[v];
  if (value->node->op == MD_OP_state) return md_engine_view_state(t->e, value->node->name, NULL);
  if (value->node->op == MD_OP_input) return md_engine_input(t->e, value->node->name, NULL);
  if (value->storage != MD_NONE)
    return md_engine_view_state(t->e, g->value[value->storage].node->name, NULL);
  md_exec *x = md_engine_exec(t->e);
  if (value->offset >= 0) {
    md_arg a = {
        .space = MD_IN_ARENA, .offset = value->offset, .bytes = md_type_bytes(&value->type)};
    return md_exec_arg(x, &a);
  }
  for (int i = 0; i < g->num_results; i++)
    if (g->result[i].val == v) return md_exec_result(x, g->result[i].name, NULL);
  return NULL;
}

static md_tensor *read_value(Tap *t, md_val v) {
  const void *at = place_of(t, v);
  md_tensor *x = at ? md_tensor_create(t->g->value[v].type) : NULL;
  if (x) md_tensor_read(x, at);
  return x;
}

static void forget(Tap *t) {
  for (int v = 1; v <= t->g->num_values; v++) {
    md_tensor_destroy(t->value[v]);
    md_tensor_destroy(t->twin[v]);
    t->value[v] = t->twin[v] = NULL;
  }
  md_arena_reset(t->scratch);
}

// Terms that go into one element: the longest reduction among the region's nodes.
static double reduction_length(const md_graph *g, const md_region *r) {
  double longest = 1;
  for (int i = r->first; i < r->first + r->num; i++) {
    const md_node *n = g->node[i];
    md_role role = md_ops[n->op].role;
    if (role != MD_REDUCE && role != MD_ANCHOR && role != MD_GATHER) continue;
    md_cost c = {0};
    md_node_cost(g, n, &c);
    double out = (double)md_elements(&g->value[n->out].type.shape);
    longest =
        fmax(longest, fmax(c.flops, (double)md_elements(&md_type_in(g, n->in[0])->shape)) / out);
  }
  return longest;
}

static bool is_discontinuous(const md_graph *g, const md_region *r) {
  for (int i = r->first; i < r->first + r->num; i++) {
    md_op op = g->node[i]->op;
    if (op == MD_OP_relu_grad || op == MD_OP_less || op == MD_OP_max_pool3d || op == MD_OP_argmax ||
        op == MD_OP_topk_hit)
      return true;
  }
  return false;
}

static bool is_known(const md_tensor *want, const md_tensor *twin, int64_t i) {
  return !twin || (want->f ? want->f[i] == twin->f[i] : want->i[i] == twin->i[i]);
}

static double epsilon(md_dtype d) {
  return d == MD_BF16 ? 0x1p-8 : d == MD_F64 ? 0x1p-53 : 0x1p-24;
}

// For each value of the region, the widest rounding in it and on the way to it that may fall otherwise
// than the interpreter's. Values from outside are equal on both sides, and so are their views and casts.
// cuDNN rounds gradients of weights to the type of what it multiplies.
static void find_steps(Tap *t, int region, bool by_engine) {
  const md_graph *g = t->g;
  const md_region *r = &g->region[region];
  for (int i = r->first; i < r->first + r->num; i++) {
    const md_node *n = g->node[i];
    double step = 0;
    for (int j = 0; j < n->num_in; j++)
      if (n->in[j] != MD_NONE && g->value[n->in[j]].node->region == region)
        step = fmax(step, t->step[n->in[j]]);
    bool is_same = step == 0 && (n->op == MD_OP_cast || md_ops[n->op].role == MD_VIEW);
    if (by_engine && n->op == MD_OP_conv3d_wgrad)
      step = fmax(step, epsilon(md_type_in(g, n->in[0])->dtype));
    for (md_val v = n->out; v < n->out + (md_val)n->num_out; v++)
      t->step[v] = is_same ? 0 : fmax(step, epsilon(g->value[v].type.dtype));
  }
}

// Of equal elements rounding chooses the largest. Is what `index` points to as good a maximum for element i of the
// pooling n as the interpreter's, and in its window?
static bool is_other_maximum(const Tap *t, const md_node *n, int64_t i, int64_t index,
                             double epsilons) {
  if (n->op != MD_OP_max_pool3d) return false;
  const md_tensor *x = t->value[n->in[0]], *y = t->value[n->out];
  const md_shape *xs = &x->type.shape, *ys = &y->type.shape;
  int64_t at = md_pool_place(&n->attr.pool3d, xs, ys, i, index);
  if (at < 0) return false;
  int64_t planes = xs->dim[0] * xs->dim[1];
  int64_t from = i / (md_elements(ys) / planes) * (md_elements(xs) / planes) + at;
  double value = x->f[from], most = y->f[i];
  return fabs(value - most) <= SAFETY * epsilons * fabs(most);
}

// False: reported.
static bool compare(Tap *t, int region, md_val v, const md_tensor *want, const md_tensor *got) {
  const md_graph *g = t->g;
  const md_region *r = &g->region[region];
  const md_tensor *twin = t->twin[v];
  int64_t n = md_elements(&want->type.shape), known = 0, off = 0, worst_at = 0;
  double size = 0, worst = 0;
  for (int64_t i = 0; want->f && i < n; i++)
    if (isfinite(want->f[i]) && is_known(want, twin, i)) size = fmax(size, fabs(want->f[i]));
  double sum = epsilon(want->type.dtype == MD_F64 ? MD_F64 : MD_F32) * sqrt(reduction_length(g, r));
  double tolerance = (double)SAFETY * fmax(sum, t->step[v]) * size;
  for (int64_t i = 0; i < n; i++) {
    double a = want->f ? want->f[i] : (double)want->i[i],
           b = got->f ? got->f[i] : (double)got->i[i];
    if (!is_known(want, twin, i)) continue;
    known++;
    if (a == b || (isnan(a) && isnan(b))) continue;
    double excess = want->f ? fabs(a - b) / tolerance : INFINITY;
    const md_node *made = g->value[v].node;
    if (!want->f && is_other_maximum(t, made, i, got->i[i], fmax(sum, t->step[made->in[0]])))
      continue;
    if (!(excess <= 1)) off++;
    if (!(excess <= worst)) {
      worst = excess;
      worst_at = i;
    }
  }
  t->stats->values++;
  t->stats->elements += known;
  if (off == 0 && worst > t->stats->worst) {
    t->stats->worst = worst;
    snprintf(t->stats->at, sizeof t->stats->at, "%s", r->name);
  }
  double allowed = is_discontinuous(g, r) ? ceil(flip_share * (double)n) : 0;
  if ((double)off <= allowed) return true;
  md_text line = {0};
  md_node_print(g, g->value[v].node, &line);
  double a = want->f ? want->f[worst_at] : (double)want->i[worst_at];
  double b = got->f ? got->f[worst_at] : (double)got->i[worst_at];
  md_error(
      t->d, E0702, MD_NOWHERE,
      "region '%s' disagrees with the interpreter in %lld of %lld elements of one result: element "
      "%lld is %.9g, but must be %.9g within %.2g",
      r->name, (long long)off, (long long)n, (long long)worst_at, b, a, tolerance);
  md_note(t->d, MD_NOWHERE, "the result: %s", line.s);
  md_text_free(&line);
  return false;
}

static bool is_sampled(const Tap *t, const md_region *r) {
  for (int i = r->first; i < r->first + r->num; i++)
    if (md_partial_channels(t->g, t->g->node[i], t->most_flops)) return true;
  return false;
}

// Results go to `to`, which is value or twin; operands from outside of the region are in value alone.
static bool evaluate(Tap *t, const md_region *r, md_tensor **to, double sign) {
  const md_graph *g = t->g;
  for (int i = r->first; i < r->first + r->num; i++) {
    const md_node *n = g->node[i];
    const md_tensor *in[MD_MAX_IN];
    md_tensor *out[MD_MAX_OUT] = {NULL};
    bool ok = true;
    for (int j = 0; j < n->num_in; j++) {
      md_val v = n->in[j];
      in[j] = v == MD_NONE ? NULL : to[v] ? to[v] : t->value[v];
    }
    for (int j = 0; j < n->num_out; j++) {
      to[n->out + (md_val)j] = out[j] = md_tensor_create(g->value[n->out + (md_val)j].type);
      ok = ok && out[j];
    }
    int64_t num = md_partial_channels(g, n, t->most_flops);
    if (ok && num) ok = md_partial_eval(g, n, in, out[0], num, sign);
    else if (ok) md_eval_node(g, n, in, out);
    if (!ok) return md_error(t->d, E0802, MD_NOWHERE, "not enough memory to verify '%s'", r->name);
    for (int j = 0; j < n->num_out; j++) md_tensor_round(out[j]);
  }
  return true;
}

static bool check_region(Tap *t, int region, bool by_engine) {
  const md_graph *g = t->g;
  const md_region *r = &g->region[region];
  bool sampled = is_sampled(t, r);
  if (!evaluate(t, r, t->value, 1) || (sampled && !evaluate(t, r, t->twin, -1))) return false;
  t->stats->sampled += sampled;
  find_steps(t, region, by_engine);
  md_val *outputs;
  int num = md_region_outputs(g, region, t->scratch, &outputs);
  bool ok = true;
  for (int i = 0; i < num && ok; i++) {
    md_tensor *got = read_value(t, outputs[i]);
    if (got) ok = compare(t, region, outputs[i], t->value[outputs[i]], got);
    else ok = md_exec_is_alive(md_engine_exec(t->e), t->d);
    md_tensor_destroy(got);
  }
  t->stats->regions++;
  return ok;
}

static bool tap(void *ctx, md_exec *x, int launch, bool before) {
  Tap *t = ctx;
  const md_graph *g = t->g;
  int region = region_of(g, x, launch, before);
  if (!region) return true;
  if (!before) {
    t->ok = check_region(t, region, md_exec_by_engine(x, launch));
    forget(t);
    return t->ok;
  }
  md_val *inputs;
  int num = md_region_inputs(g, region, t->scratch, &inputs);
  for (int i = 0; i < num; i++) {
    md_val v = inputs[i];
    const md_node *n = g->value[v].node;
    if (n->op == MD_OP_constant) {
      t->value[v] = md_tensor_create(g->value[v].type);
      if (t->value[v]) md_eval_node(g, n, NULL, &t->value[v]);
    } else {
      t->value[v] = read_value(t, v);
    }
    if (!t->value[v] && !md_exec_is_alive(x, t->d)) return t->ok = false;
    MD_ASSERT(t->value[v], "value %u of region %s has no place", v, g->region[region].name);
  }
  return true;
}

bool md_engine_verify_step(md_engine *e, double most_flops, md_verify_stats *stats, md_diags *d) {
  md_exec *x = md_engine_exec(e);
  if (!x) return md_engine_step(e, d);
  const md_graph *g = md_engine_graph(e);
  Tap t = {.e = e,
           .g = g,
           .scratch = md_arena_create(),
           .stats = stats,
           .d = d,
           .ok = true,
           .most_flops = most_flops};
  t.value = calloc((size_t)g->num_values + 1, sizeof(md_tensor *));
  t.twin = calloc((size_t)g->num_values + 1, sizeof(md_tensor *));
  t.step = calloc((size_t)g->num_values + 1, sizeof(double));
  md_exec_set_tap(x, tap, &t);
  bool ok = md_exec_step(x, d) && t.ok;
  md_exec_set_tap(x, NULL, NULL);
  forget(&t);
  free(t.value);
  free(t.twin);
  free(t.step);
  md_arena_destroy(t.scratch);
  return ok;
}
