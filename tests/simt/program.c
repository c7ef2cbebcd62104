// SPDX-License-Identifier: Apache-2.0
// A graph ready to run as CUDA kernels.
#include "tests/simt/program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tolerance.h"

// --- inputs

// The smallest tensors too have both signs, a zero where others have one and, the second operand (a1), one
// where they have none; and ids that others have at the same place.
static double float_of(const char *name, uint64_t key, int64_t i, int64_t row) {
  double x = md_hash_normal(key, (uint64_t)i);
  if (i < 2) x = i ? -fabs(x) : fabs(x);
  if (i == 2 || (i == 3 && name[1] == '1')) x = 0;
  char kind = name[0];
  if (kind == 'p') return fabs(x) + 0.1;
  if (kind == 'l') return 0.05;
  bool chosen = md_hash_at(key, (uint64_t)i) % 16 == 0;
  if (!strncmp(name, "inf_", 4) && chosen) return INFINITY;
  if (!strncmp(name, "nan_", 4) && chosen) return NAN;
  if (!strncmp(name, "one_", 4)) return 1;
  if (!strncmp(name, "far_", 4)) return 3000 * x;
  return kind == 'n' ? x / sqrt((double)row) : x;
}

// The label of row i of num: those at the edges of its n elements, and beyond them.
static int64_t label_of(int64_t n, int64_t i, int64_t num) {
  const int64_t edge[] = {0, -1, n - 1, 1};
  return i == num - 1 ? n : edge[i % MD_COUNT(edge)];
}

static int64_t int_of(char kind, md_dtype d, uint64_t key, int64_t i) {
  static const int64_t first[] = {3, 0, 7};
  int64_t x = (int64_t)(md_hash_at(key, (uint64_t)i) % 41);
  if (kind == 'm') return 7;
  if (kind == 'e') return x % 5 == 0 || i == 2 ? -2 : x;
  if (d == MD_BOOL) return x % 2;
  if (d == MD_U8) return x * 6;
  if (i < MD_COUNT(first)) return first[i];
  return kind == 'k' ? x : x - 20;
}

static void fill(md_tensor *t, const char *name, uint64_t seed) {
  int64_t num = md_elements(&t->type.shape), row = t->type.shape.dim[t->type.shape.rank - 1];
  uint64_t key = md_hash_key(name, seed);
  for (int64_t i = 0; i < num; i++) {
    if (t->f) t->f[i] = float_of(name, key, i, row);
    else if (name[0] == 'r') t->i[i] = label_of(atoi(name + 1), i, num);
    else t->i[i] = int_of(name[0], t->type.dtype, key, i);
  }
  md_tensor_round(t);
}

static bool is_leaf(const md_node *n) { return n->op == MD_OP_input || n->op == MD_OP_state; }

// --- images

static int new_image(Program *p, const char *name, int64_t bytes, bool is_set) {
  Image *i = &p->image[p->num_images];
  snprintf(i->name, sizeof i->name, "%s", name);
  i->bytes = bytes;
  i->is_set = is_set;
  i->data = calloc((size_t)MD_MAX(bytes, 1), 1);
  MD_ASSERT(i->data, "out of memory");
  return p->num_images++;
}

static bool same_memory(const md_graph *g, md_val a, md_val b) {
  const md_value *x = &g->value[a], *y = &g->value[b];
  if (is_leaf(x->node) || is_leaf(y->node)) return false;
  return x->storage == MD_NONE && y->storage == MD_NONE && x->offset >= 0 && x->offset == y->offset;
}

// A value over a state has the state's image; one over an operand of its region has the operand's.
static int image_for(Program *p, md_val v) {
  const md_value *x = &p->g->value[v];
  if (x->storage != MD_NONE) return p->image_of[x->storage];
  md_val *in;
  md_arena *a = md_arena_create();
  int found = -1, num = x->node->region ? md_region_inputs(p->g, x->node->region, a, &in) : 0;
  for (int i = 0; i < num; i++)
    if (found < 0 && same_memory(p->g, in[i], v)) found = p->image_of[in[i]];
  md_arena_destroy(a);
  if (found >= 0) return found;
  char name[40];
  snprintf(name, sizeof name, "v%u", (unsigned)v);
  return new_image(p, x->name ? x->name : name, md_type_bytes(&x->type), false);
}

static void make_images(Program *p) {
  p->image = calloc((size_t)p->g->num_values + 2, sizeof *p->image);
  p->image_of = malloc(sizeof *p->image_of * (size_t)(p->g->num_values + 1));
  MD_ASSERT(p->image && p->image_of, "out of memory");
  for (int v = 0; v <= p->g->num_values; v++) p->image_of[v] = -1;
  for (int i = 0; i < p->g->num_nodes; i++) {
    const md_node *n = p->g->node[i];
    if (is_leaf(n))
      p->image_of[n->out] = new_image(p, n->name, md_type_bytes(md_type_in(p->g, n->out)), true);
  }
  for (int l = 0; l < p->m->num_launches; l++) {
    for (int i = 0; i < p->m->launch[l].num_args; i++) {
      md_val v = p->m->launch[l].arg[i].val;
      if (v != MD_NONE && p->image_of[v] < 0) p->image_of[v] = image_for(p, v);
    }
  }
  p->image_of[MD_NONE] = new_image(p, "workspace", p->m->workspace_bytes, false);
}

void program_take_leaves(Program *p) {
  for (int i = 0; i < p->g->num_nodes; i++) {
    const md_node *n = p->g->node[i];
    if (is_leaf(n))
      md_tensor_write(md_interp_value(p->ref, n->out), p->image[p->image_of[n->out]].data);
  }
}

// --- tolerance

static double largest(const Program *p, const md_node *n) {
  double size = 0;
  for (int k = 0; k < n->num_out; k++) {
    const md_tensor *t = md_interp_value(p->ref, n->out + (md_val)k);
    for (int64_t j = 0; t && t->f && j < md_elements(&t->type.shape); j++)
      if (isfinite(t->f[j])) size = fmax(size, fabs(t->f[j]));
  }
  return size;
}

// Batch norm divides by a deviation: differences of its operands grow as that shrinks.
static double divided(const Program *p, const md_node *n) {
  if (n->op != MD_OP_batch_norm && n->op != MD_OP_batch_norm_dx) return 0;
  const md_val var = n->in[4];
  const md_tensor *t = md_interp_value(p->ref, var);
  double least = INFINITY, eps = n->attr.f.value, size = 0;
  for (int64_t j = 0; t && j < md_elements(&t->type.shape); j++) least = fmin(least, t->f[j]);
  for (int k = 0; k < n->num_in; k++) size = fmax(size, largest(p, md_def(p->g, n->in[k])));
  return size / sqrt(fmax(least, 0) + eps);
}

static bool is_convolution(md_op op) {
  return op == MD_OP_conv3d || op == MD_OP_conv3d_dgrad || op == MD_OP_conv3d_wgrad;
}

// Products that are added up for an element.
static int64_t terms_of(const md_graph *g, const md_node *n) {
  const md_shape *a = &md_type_in(g, n->in[0])->shape, *w = &md_type_in(g, n->in[1])->shape;
  if (n->op == MD_OP_conv3d_wgrad) return md_elements(a) / a->dim[1];
  return md_elements(w) / w->dim[n->op == MD_OP_conv3d ? 0 : 1];
}

// Roundings of one node after another add up like a random walk, and so do those of the terms of a
// sum. Sums themselves are made in double and rounded once. An exponential turns the error of its
// operand, which the temperature has magnified, into a relative one.
double program_tolerance(const Program *p, int region) {
  const md_graph *g = p->g;
  double gain = 1, term = 1, total = 0;
  int64_t length = 1, nodes = 0;
  bool narrow = false;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (region && n->region != region) continue;
    nodes++;
    for (int k = 0; k < n->num_in; k++) {
      if (n->in[k] == MD_NONE) continue;
      const md_node *from = md_def(g, n->in[k]);
      narrow |= md_type_in(g, n->in[k])->dtype == MD_BF16 && !is_leaf(from);
      if (region && from->region != region) term = fmax(term, largest(p, from));
    }
    term = fmax(term, divided(p, n));
    if (n->op == MD_OP_nce_lse) {
      gain = fmax(gain, 1 / n->attr.f.value);
      length = MD_MAX(length, md_type_in(g, n->in[2])->shape.dim[1]);
    }
    if (is_convolution(n->op)) {
      length = MD_MAX(length, terms_of(g, n));
      term = fmax(term, largest(p, md_def(g, n->in[0])) * largest(p, md_def(g, n->in[1])));
    }
    if (n->op == MD_OP_matmul)
      length = MD_MAX(length, md_type_in(g, n->in[0])->shape.dim[n->attr.matmul.ta ? 0 : 1]);
    if (md_ops[n->op].role == MD_REDUCE) {
      length = MD_MAX(length, md_elements(&md_type_in(g, n->in[0])->shape) /
                                  md_elements(&md_type_in(g, n->out)->shape));
      total = fmax(total, largest(p, n));
    } else {
      term = fmax(term, largest(p, n));
    }
  }
  double f32 =
      md_tolerance(MD_F32, nodes, total) + md_tolerance(MD_F32, nodes * length, term * gain);
  return narrow ? f32 + md_tolerance(MD_BF16, 1, fmax(term, total)) : f32;
}

bool program_check_value(const Program *p, const char *name, md_val v, const void *data,
                         double tolerance, md_text *why) {
  const md_type *t = md_type_in(p->g, v);
  const md_tensor *want = md_interp_value(p->ref, v);
  md_tensor *got = md_tensor_create(*t);
  MD_ASSERT(got, "out of memory");
  md_tensor_read(got, data);
  double most = 0;
  for (int64_t i = 0; t->dtype == MD_BF16 && i < md_elements(&t->shape); i++)
    if (isfinite(want->f[i])) most = fmax(most, fabs(want->f[i]));
  tolerance += md_tolerance(MD_BF16, 1, most);  // 0 but for bf16
  bool good = true;
  for (int64_t i = 0; good && i < md_elements(&t->shape); i++) {
    if (want->i) good = got->i[i] == want->i[i];
    else if (isfinite(want->f[i])) good = fabs(got->f[i] - want->f[i]) <= tolerance;
    else good = isnan(want->f[i]) ? isnan(got->f[i]) != 0 : got->f[i] == want->f[i];
    if (!good)
      md_put(why, "%s[%lld] is %.9g, but %.9g by the interpreter (tolerance %.2g)", name,
             (long long)i, got->f ? got->f[i] : (double)got->i[i],
             want->f ? want->f[i] : (double)want->i[i], tolerance);
  }
  md_tensor_destroy(got);
  return good;
}

// 1 and 0 are not near each other, however long the sums around them.
static double of_result(const Program *p, md_val v, double tolerance) {
  md_op op = md_def(p->g, v)->op;
  return op == MD_OP_topk_hit || op == MD_OP_less ? fmin(tolerance, 0.5) : tolerance;
}

bool program_check(const Program *p, char *const *data, md_text *why) {
  bool good = true;
  double tolerance = program_tolerance(p, 0);
  for (int i = 0; good && i < p->g->num_results; i++) {
    md_val v = p->g->result[i].val;
    if (p->image_of[v] < 0) continue;  // a leaf nobody reads
    good = program_check_value(p, p->g->result[i].name, v, data[p->image_of[v]],
                               of_result(p, v, tolerance), why);
  }
  for (int i = 0; good && i < p->g->num_updates; i++) {
    md_val v = p->g->update[i].val;
    const char *name = md_def(p->g, p->g->update[i].state)->name;
    if (p->image_of[v] >= 0)
      good = program_check_value(p, name, v, data[p->image_of[v]], tolerance, why);
  }
  return good;
}

static bool has_op(const md_graph *g, int region, md_op op) {
  for (int i = 0; i < g->num_nodes; i++)
    if (g->node[i]->region == region && g->node[i]->op == op) return true;
  return false;
}

int program_wgmmas(const Program *p, md_op op) {
  int num = 0;
  for (int i = 0; i < p->m->num_launches; i++) {
    const md_cuda_launch *l = &p->m->launch[i];
    num += strstr(p->m->kernel[l->number].text, "md_wgmma") && has_op(p->g, l->region, op);
  }
  return num;
}

int program_windows(const Program *p, md_op op) {
  int num = 0;
  for (int i = 0; i < p->m->num_launches; i++) {
    const md_cuda_launch *l = &p->m->launch[i];
    bool is_so = false;
    for (int k = 0; k < l->num_args; k++) is_so |= l->arg[k].windows != NULL;
    num += is_so && has_op(p->g, l->region, op);
  }
  return num;
}

int program_place(const Program *p, const md_cuda_arg *a, int64_t *offset) {
  *offset = a->val == MD_NONE ? a->workspace : 0;
  return p->image_of[a->val];
}

static void fill_leaf(void *ctx, const md_node *leaf, md_tensor *to) {
  if (leaf->op == MD_OP_input) fill(to, leaf->name, *(const uint64_t *)ctx);
}

static Program *make(md_cuda_arch arch, md_graph *g, const md_pass_options *options,
                     md_cuda_how how, md_diags *d) {
  md_pass_options o = *options;
  char target[24];
  snprintf(target, sizeof target, "cuda:sm_%d%s", arch.sm, arch.suffix ? "a" : "");
  if (!md_cuda_facts(target, &o.facts, d)) {
    md_graph_destroy(g);
    return NULL;
  }
  g = md_run_passes(g, &o, NULL, d);
  if (!g) return NULL;
  Program *p = calloc(1, sizeof *p);
  MD_ASSERT(p, "out of memory");
  p->g = g;
  p->diags = d;
  p->m = md_cuda_generate(g, arch, &how, d);
  p->ref = md_interp_create(g, true);  // as stored: what follows a bf16 sees it rounded
  MD_ASSERT(p->m && p->ref, "out of memory");
  make_images(p);
  return p;
}

// Takes p, which may be NULL.
static Program *feed_and_step(Program *p, program_feed feed, void *ctx, md_diags *d) {
  if (!p) return NULL;
  const md_graph *g = p->g;
  for (int v = 1; v <= g->num_values; v++) md_interp_keep(p->ref, (md_val)v);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op == MD_OP_input) feed(ctx, n, md_interp_input(p->ref, n->name));
    if (n->op == MD_OP_state) feed(ctx, n, md_interp_state(p->ref, n->name));
  }
  program_take_leaves(p);
  if (md_interp_step(p->ref, d)) return p;
  program_destroy(p);
  return NULL;
}

Program *program_made(md_cuda_arch arch, md_graph *g, const md_pass_options *o, md_diags *d) {
  return make(arch, g, o, (md_cuda_how){0}, d);
}

Program *program_fed(md_cuda_arch arch, md_graph *g, const md_pass_options *o, program_feed feed,
                     void *ctx, md_diags *d) {
  return feed_and_step(make(arch, g, o, (md_cuda_how){0}, d), feed, ctx, d);
}

static md_pass_options options_for(const md_graph *g, int level, md_dtype precision) {
  md_pass_options o = md_pass_defaults();
  o.level = level;
  o.precision = precision;
  o.verify_each = true;
  if (g->num_regions) o.passes = "layout,memory";  // a text that says what is fused
  return o;
}

Program *program_for(md_cuda_arch arch, md_graph *g, int level, md_dtype precision, uint64_t seed,
                     md_diags *d) {
  md_pass_options o = options_for(g, level, precision);
  return feed_and_step(make(arch, g, &o, (md_cuda_how){0}, d), fill_leaf, &seed, d);
}

Program *program_apart(md_cuda_arch arch, md_graph *g, int level, md_dtype precision, uint64_t seed,
                       md_diags *d) {
  md_pass_options o = options_for(g, level, precision);
  return feed_and_step(make(arch, g, &o, (md_cuda_how){.is_apart = true}, d), fill_leaf, &seed, d);
}

Program *program_trials(md_cuda_arch arch, md_graph *g, md_dtype precision, uint64_t seed,
                        md_diags *d) {
  md_pass_options o = options_for(g, 2, precision);
  md_cuda_how how = {.is_apart = true, .trials = MD_CUDA_WAYS};
  return feed_and_step(make(arch, g, &o, how, d), fill_leaf, &seed, d);
}

Program *program_with(md_graph *g, int level, md_dtype precision, uint64_t seed, md_diags *d) {
  return program_for((md_cuda_arch){80, 0}, g, level, precision, seed, d);
}

Program *program_of(md_graph *g, int level, uint64_t seed, md_diags *d) {
  return program_with(g, level, MD_F32, seed, d);
}

Program *program_create(const char *text, int level, uint64_t seed, md_diags *d) {
  md_graph *g = md_parse_graph("sample", text, strlen(text), d);
  return g ? program_of(g, level, seed, d) : NULL;
}

void program_destroy(Program *p) {
  if (!p) return;
  for (int i = 0; i < p->num_images; i++) free(p->image[i].data);
  free(p->image);
  free(p->image_of);
  md_interp_destroy(p->ref);
  md_cuda_module_free(p->m);
  md_graph_destroy(p->g);
  free(p);
}
