// SPDX-License-Identifier: Apache-2.0
// One graph through passes, compiler and executor, against its reference:
//
//   text -> parse -> print is the same text, before and after the passes
//   the verifier after every pass; a second run of cse, dce, fold changes nothing, repeated canon ends
//   interpreter(passes(graph)) = reference, to the last bits of double
//   compiled(passes(graph))    = reference, within the bounds of rounding, over several steps
//   one thread = two threads, fresh code = code from the cache, bit for bit
//   values computed again = values kept, bit for bit
#include "tests/random/random.h"

#include "codegen/cpu/cpu.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_DRAWS = 60, CACHED_ONE_IN = 16 };
// What a pass may change in double, as a part of what rounding may change in f32: 2^-29 is the
// distance of the two types, the rest is for shorter types. Folded constants are of their own type.
static const double pass_part = 0x1p-16, folded_part = 0.5;

// clang-format off
#define TAIL ",regions,schedule,memory"
const md_random_variant md_variants[] = {
  {.name = "full", .level = 2, .jit = true},
  {.name = "level0", .level = 0, .jit = true},
  {.name = "level1", .level = 1, .jit = true},
  {.name = "full-avx2", .level = 2, .cpu = "avx2", .jit = true},
  {.name = "full-sse4.2", .level = 2, .cpu = "sse4.2", .jit = true},
  {.name = "full-generic", .level = 2, .cpu = "generic", .jit = true},
  {.name = "level1-generic", .level = 1, .cpu = "generic", .jit = true},
{.name = "full-bf16", .level = 2, .jit = true, .bf16 = true},
  {.name = "shuffled", .jit = true, .shuffled = true},
  {.name = "limited", .level = 2, .jit = true, .limited = true},
  {.name = "again", .passes = "autodiff,dce,fuse-conv-bn-relu,fuse-pointwise,layout,recompute,memory", .jit = true, .again = true},
  {.name = "again-alone", .passes = "autodiff,dce,regions,recompute,memory", .jit = true, .again = true},
  {.name = "layout", .passes = "autodiff,dce,regions,layout,schedule,memory", .jit = true},
  {.name = "fuse-pointwise", .passes = "autodiff,dce,fuse-pointwise,schedule,memory", .jit = true},
  {.name = "fuse-conv-bn-relu", .passes = "autodiff,dce,fuse-conv-bn-relu,fuse-pointwise,schedule,memory", .jit = true},
  {.name = "fuse-infonce", .passes = "fuse-infonce,autodiff,dce" TAIL, .jit = true},
  {.name = "fold", .passes = "autodiff,fold,dce" TAIL},
  {.name = "canon", .passes = "autodiff,canon,dce" TAIL},
  {.name = "cse", .passes = "autodiff,cse,dce" TAIL},
  {.name = "fold-bn", .passes = "autodiff,dce,fold-bn,dce" TAIL},
  {.name = "no-dce", .passes = "autodiff,fold,canon,cse,fuse-conv-bn-relu,fuse-pointwise,layout,schedule,memory"},
};
// clang-format on
static const char narrowing[] =
    "fuse-infonce,autodiff,fold,canon,cse,dce,fold-bn,fold,canon,cse,dce,precision";
const int md_num_variants = MD_COUNT(md_variants);

typedef struct Check {
  const md_graph *plain;  // as generated
  md_reference *ref;
  const md_random_variant *variant;
  md_check_stats *stats;
  md_finding *finding;
  md_diags *d;
  uint64_t seed;
} Check;

__attribute__((format(printf, 3, 4))) static bool found(Check *c, const char *kind, const char *fmt,
                                                        ...) {
  md_finding *f = c->finding;
  if (f->kind) return false;
  f->kind = kind;
  int at = snprintf(f->text, sizeof f->text, "%s: ", c->variant ? c->variant->name : "graph");
  va_list args;
  va_start(args, fmt);
  vsnprintf(f->text + at, sizeof f->text - (size_t)at, fmt, args);
  va_end(args);
  return false;
}

static bool refused(Check *c, const char *who) {
  return found(c, who, "%s refused: %s", who, md_diags_text(c->d));
}

// --- text

static md_graph *parsed(Check *c, const md_text *t) {
  md_graph *g = md_parse_graph("random.mdg", t->s, t->len, c->d);
  if (g && md_graph_verify(g, c->d)) return g;
  if (g) md_graph_destroy(g);
  refused(c, "parser");
  return NULL;
}

// A copy of g by way of its text, which must come back as it was.
static md_graph *copied(Check *c, const md_graph *g) {
  md_text first = {0}, second = {0};
  md_graph_print(g, &first);
  md_graph *copy = parsed(c, &first);
  if (copy) md_graph_print(copy, &second);
  if (copy && strcmp(first.s, second.s) != 0) {
    found(c, "round trip", "the text changed:\n%s\n%s", first.s, second.s);
    md_graph_destroy(copy);
    copy = NULL;
  }
  md_text_free(&first);
  md_text_free(&second);
  return copy;
}

// --- passes

static uint64_t chosen(const Check *c, uint64_t i) {
  return md_hash_at(md_hash_key("pass", c->seed), i);
}

// Three to ten rewriting passes between those that must be there.
static void put_shuffled(const Check *c, md_text *list) {
  static const char *const pass[] = {"fold", "canon", "cse", "dce", "fold-bn"};
  uint64_t at = 0, num = 3 + chosen(c, at++) % 8;
  md_put(list, chosen(c, at++) % 2 ? "fuse-infonce,autodiff" : "autodiff");
  for (uint64_t i = 0; i < num; i++)
    md_put(list, ",%s", pass[chosen(c, at++) % (uint64_t)MD_COUNT(pass)]);
  switch (chosen(c, at) % 3) {
  case 0: md_put(list, ",regions"); break;
  case 1: md_put(list, ",fuse-pointwise"); break;
  default: md_put(list, ",fuse-conv-bn-relu,fuse-pointwise");
  }
  md_put(list, chosen(c, at) % 2 ? ",layout,schedule,memory" : ",schedule,memory");
}

// Each value that is computed again is taken for a gain.
static int64_t needs_less(const md_graph *planned, const md_memory_limit *limit) {
  (void)limit;
  return INT32_MAX - planned->num_regions;
}

static md_graph *run_passes(Check *c, const char *passes, int level, const md_target_facts *facts) {
  md_graph *g = copied(c, c->plain);
  if (!g) return NULL;
  md_pass_options o = md_pass_defaults();
  o.passes = passes;
  o.level = level;
  o.verify_each = true;
  if (c->variant && c->variant->bf16) o.precision = MD_BF16;
  if (c->variant && c->variant->limited) o.max_rewrites = (int64_t)(chosen(c, 0) % 30);
  if (c->variant && c->variant->again)
    o.memory = (md_memory_limit){.bytes = 1, .needs = needs_less};
  if (facts) o.facts = *facts;
  g = md_run_passes(g, &o, NULL, c->d);
  if (!g) refused(c, "passes");
  return g;
}

// After `runs` runs another one changes nothing.
static bool ends_after(Check *c, const char *pass, int runs) {
  md_text list = {0};
  md_put(&list, "autodiff");
  for (int i = 0; i < runs; i++) md_put(&list, ",%s", pass);
  md_graph *a = run_passes(c, list.s, 0, NULL);
  md_put(&list, ",%s", pass);
  md_graph *b = a ? run_passes(c, list.s, 0, NULL) : NULL;
  md_text_free(&list);
  md_text x = {0}, y = {0};
  if (a) md_graph_print(a, &x);
  if (b) md_graph_print(b, &y);
  bool ok = a && b && !strcmp(x.s, y.s);
  if (a && b && !ok) found(c, "idempotence", "%s after %d runs changes the graph", pass, runs);
  if (a) md_graph_destroy(a);
  if (b) md_graph_destroy(b);
  md_text_free(&x);
  md_text_free(&y);
  return ok;
}

// --- comparison

// `part`: of the bound that is allowed.
static bool compare(Check *c, const char *what, const char *name, int step, const md_tensor *got,
                    const md_tensor *want, const md_tensor *bound, double part) {
  if (!md_shape_equal(&got->type.shape, &want->type.shape) || got->type.dtype != want->type.dtype)
    return found(c, "type", "%s %s has another type", what, name);
  int64_t n = md_elements(&want->type.shape);
  bool shorter = want->f && want->type.dtype != MD_F64;
  for (int64_t i = 0; i < n; i++) {
    double a = got->f ? got->f[i] : (double)got->i[i];
    double b = want->f ? want->f[i] : (double)want->i[i];
    double allowed = want->f ? bound->f[i] * (shorter ? part : 1) : 0, off = fabs(a - b);
    if (a == b) continue;
    if (allowed > 0 && off / allowed > c->stats->worst && part == 1)
      c->stats->worst = off / allowed;
    if (off <= allowed) continue;
    return found(c, part == 1 ? "compiled" : "interpreted",
                 "step %d: %s %s[%lld] of %lld is %.9g, not %.9g; off by %.3g, allowed %.3g", step,
                 what, name, (long long)i, (long long)n, a, b, off, allowed);
  }
  if (part == 1) c->stats->elements += n;
  return true;
}

static bool is_state(const md_node *n) { return n->op == MD_OP_state; }

static void set_leaf(const Check *c, md_tensor *to, const md_node *n, int step) {
  const md_tensor *from = c->ref->value[step][n->out];
  size_t num = (size_t)md_elements(&from->type.shape);
  if (to->f) memcpy(to->f, from->f, num * sizeof *to->f);
  else memcpy(to->i, from->i, num * sizeof *to->i);
}

// The interpreter on g, which came from the reference's graph.
static bool interpret(Check *c, const md_graph *g, double part) {
  const md_graph *r = c->ref->g;
  md_interp *in = md_interp_create(g, false);
  bool ok = in != NULL;
  for (int step = 0; ok && step < c->ref->num_steps; step++) {
    for (int i = 0; i < r->num_nodes; i++) {
      const md_node *n = r->node[i];
      md_tensor *to = n->op == MD_OP_input       ? md_interp_input(in, n->name)
                      : step == 0 && is_state(n) ? md_interp_state(in, n->name)
                                                 : NULL;
      if (to) set_leaf(c, to, n, step);
    }
    ok = md_interp_step(in, c->d) || refused(c, "interpreter");
    for (int i = 0; ok && i < r->num_results; i++) {
      md_val v = md_find_result(g, r->result[i].name), w = r->result[i].val;
      if (v == MD_NONE) ok = found(c, "result", "result %s is gone", r->result[i].name);
      else
        ok = compare(c, "result", r->result[i].name, step, md_interp_value(in, v),
                     c->ref->value[step][w], c->ref->bound[step][w], part);
    }
    for (int i = 0; ok && i < r->num_nodes; i++) {
      const md_node *n = r->node[i];
      const md_tensor *bound, *want, *got = is_state(n) ? md_interp_state(in, n->name) : NULL;
      if (!got) continue;
      want = md_state_after(c->ref, step, n->out, &bound);
      ok = compare(c, "state", n->name, step, got, want, bound, part);
    }
  }
  md_interp_destroy(in);
  return ok;
}

// --- compiled code

static bool compare_memory(Check *c, const char *what, const char *name, int step, const void *got,
                           const md_tensor *want, const md_tensor *bound) {
  if (!got) return found(c, "result", "%s %s is gone", what, name);
  md_tensor *t = md_tensor_create(want->type);
  md_tensor_read(t, got);
  bool ok = compare(c, what, name, step, t, want, bound, 1);
  md_tensor_destroy(t);
  return ok;
}

static void feed(const Check *c, md_exec *e, int step) {
  const md_graph *r = c->ref->g;
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    void *to = n->op == MD_OP_input       ? md_exec_input(e, n->name, NULL)
               : step == 0 && is_state(n) ? md_exec_state(e, n->name, NULL)
                                          : NULL;
    if (to) md_tensor_write(c->ref->value[step][n->out], to);
  }
}

static bool same_bits(Check *c, md_exec *a, md_exec *b, const char *how) {
  const md_program *p = md_exec_program(a);
  for (int i = 0; i < p->num_results; i++) {
    const char *name = p->result[i].name;
    if (memcmp(md_exec_result(a, name, NULL), md_exec_result(b, name, NULL),
               (size_t)p->result[i].bytes) != 0)
      return found(c, "bits", "result %s depends on %s", name, how);
  }
  for (int i = 0; i < p->num_states; i++) {
    const char *name = p->state[i].name;
    if (memcmp(md_exec_state(a, name, NULL), md_exec_state(b, name, NULL),
               (size_t)p->state[i].bytes) != 0)
      return found(c, "bits", "state %s depends on %s", name, how);
  }
  return true;
}

static bool compare_step(Check *c, md_exec *e, int step) {
  const md_graph *r = c->ref->g;
  for (int i = 0; i < r->num_results; i++) {
    md_val w = r->result[i].val;
    const char *name = r->result[i].name;
    if (!compare_memory(c, "result", name, step, md_exec_result(e, name, NULL),
                        c->ref->value[step][w], c->ref->bound[step][w]))
      return false;
  }
  for (int i = 0; i < r->num_nodes; i++) {
    const md_node *n = r->node[i];
    const void *at = is_state(n) ? md_exec_state(e, n->name, NULL) : NULL;
    const md_tensor *bound, *want;
    if (!at) continue;
    want = md_state_after(c->ref, step, n->out, &bound);
    if (!compare_memory(c, "state", n->name, step, at, want, bound)) return false;
  }
  return true;
}

static bool step_both(Check *c, md_exec *a, md_exec *b, const char *how) {
  for (int step = 0; step < c->ref->num_steps; step++) {
    feed(c, a, step);
    feed(c, b, step);
    if (!md_exec_step(a, c->d) || !md_exec_step(b, c->d)) return refused(c, "executor");
    if (!compare_step(c, a, step) || !same_bits(c, a, b, how)) return false;
  }
  return true;
}

static bool execute(Check *c, const md_program *p, const md_program *other, const char *how) {
  int64_t start = md_now_ns();
  md_exec *a = md_exec_create(p, &(md_exec_options){.threads = 1}, c->d);
  md_exec *b = md_exec_create(other ? other : p, &(md_exec_options){.threads = 2}, c->d);
  bool ok = a && b ? step_both(c, a, b, how) : refused(c, "executor");
  md_exec_destroy(a);
  md_exec_destroy(b);
  c->stats->run_ns += md_now_ns() - start;
  return ok;
}

static md_program *compiled(Check *c, const md_graph *g, bool cache, md_cpu_report *report) {
  md_cpu_options o = {.cpu = c->variant->cpu, .no_cache = !cache};
#ifdef __SANITIZE_ADDRESS__
  o.asan = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  o.asan = true;
#endif
#endif
  int64_t start = md_now_ns();
  md_program *p = md_cpu_compile(g, &o, report, c->d);
  c->stats->compile_ns += md_now_ns() - start;
  if (p && md_program_check(p, c->d)) return p;
  md_program_destroy(p);
  refused(c, "compiler");
  return NULL;
}

static bool run_compiled(Check *c, const md_graph *g) {
  md_program *p = compiled(c, g, false, NULL);
  bool ok = p && execute(c, p, NULL, "the number of threads");
  if (ok && getenv("MODIST_CACHE") && c->seed % CACHED_ONE_IN == 0) {
    md_cpu_report report = {0};
    md_program *fill = compiled(c, g, true, NULL),
               *hit = fill ? compiled(c, g, true, &report) : NULL;
    ok = hit && execute(c, p, hit, "the cache");
    if (ok && report.cache_hits < report.distinct)
      ok = found(c, "cache", "%d of %d kernels came from the cache", report.cache_hits,
                 report.distinct);
    md_program_destroy(fill);
    md_program_destroy(hit);
  }
  md_program_destroy(p);
  return ok;
}

// With activations in bf16 a graph means something else: the reference is what the passes up to
// `precision` make of it, casts and all.
static bool run_narrow(Check *c, const md_graph *g) {
  md_graph *narrow = run_passes(c, narrowing, 2, NULL);
  md_reference ref, *plain = c->ref;
  bool ok = narrow != NULL;
  if (ok && md_reference_create(&ref, narrow, c->seed, MOST_DRAWS)) {
    c->ref = &ref;
    ok = run_compiled(c, g);
    c->ref = plain;
  }
  if (narrow) md_reference_destroy(&ref);
  if (narrow) md_graph_destroy(narrow);
  return ok;
}

// The same graph with all values kept.
static bool agrees_with_kept(Check *c, const md_graph *g, const md_target_facts *facts) {
  md_random_variant kept = *c->variant;
  const md_random_variant *again = c->variant;
  kept.again = false;
  c->variant = &kept;
  md_graph *plain = run_passes(c, kept.passes, kept.level, facts);
  c->variant = again;
  bool ok = plain != NULL;
  if (ok && plain->num_regions < g->num_regions) {
    c->stats->again++;
    md_program *p = compiled(c, g, false, NULL), *q = p ? compiled(c, plain, false, NULL) : NULL;
    ok = q && execute(c, p, q, "what is computed again");
    md_program_destroy(p);
    md_program_destroy(q);
  }
  if (plain) md_graph_destroy(plain);
  return ok;
}

static bool check_variant(Check *c) {
  const md_cpu *cpu = md_cpu_find(c->variant->cpu, false, c->d);
  if (!cpu) return refused(c, "target");
  if (!md_cpu_runs_here(cpu)) return true;  // does not run here
  md_target_facts facts = md_cpu_facts(cpu);
  md_text shuffled = {0};
  if (c->variant->shuffled) put_shuffled(c, &shuffled);
  const char *passes = shuffled.s ? shuffled.s : c->variant->passes;
  int64_t start = md_now_ns();
  md_graph *g = run_passes(c, passes, c->variant->level, &facts);
  c->stats->pass_ns += md_now_ns() - start;
  md_graph *copy = g ? copied(c, g) : NULL;  // regions, layouts and places in the text
  bool folds = passes ? strstr(passes, ",fold,") != NULL : c->variant->level > 0;
  bool ok = copy && (c->variant->bf16 ? run_narrow(c, g)
                                      : interpret(c, g, folds ? folded_part : pass_part));
  if (ok && c->variant->jit && !c->variant->bf16) ok = run_compiled(c, g);
  if (ok && c->variant->again) ok = agrees_with_kept(c, g, &facts);
  if (g) md_graph_destroy(g);
  if (copy) md_graph_destroy(copy);
  md_text_free(&shuffled);
  return ok;
}

// g with values that are read once more at its end, one after another, in place of its results: most of
// them are in memory for long, as activations are.
static md_graph *read_late(Check *c, const md_graph *from) {
  md_graph *g = copied(c, from);
  if (!g) return NULL;
  md_builder b;
  md_builder_init(&b, g, c->d);
  int num_values = g->num_values;
  g->num_results = 0;
  for (int v = 1; v <= num_values && !b.failed; v++) {
    bool is_leaf = md_ops[md_def(g, (md_val)v)->op].role == MD_LEAF;
    bool is_float = md_dtype_is_float(md_type_in(g, (md_val)v)->dtype);
    if (!is_float || is_leaf || (chosen(c, (uint64_t)v) % 2 && g->num_results)) continue;
    md_return(&b, md_format(g->arena, "late%d", v), md_sum(&b, (md_val)v, (md_dims){0}));
  }
  md_graph *late = g->num_results ? copied(c, g) : NULL;
  md_graph_destroy(g);
  return late;
}

// Everything is computed again that may be, in a graph where much may be.
static bool check_again(Check *c) {
  Check own = *c;
  md_reference ref;
  md_graph *late = read_late(c, c->plain);
  if (!late) return !c->finding->kind;
  own.plain = late;
  own.variant = NULL;
  md_graph *expanded = run_passes(&own, "autodiff", 0, NULL);
  own.variant = c->variant;
  own.ref = &ref;
  bool ok = expanded != NULL;
  if (ok && md_reference_create(&ref, expanded, c->seed, MOST_DRAWS)) ok = check_variant(&own);
  if (expanded) md_reference_destroy(&ref);
  if (expanded) md_graph_destroy(expanded);
  md_graph_destroy(late);
  return ok;
}

int md_variant_from(const char *name) {
  for (int i = 0; i < md_num_variants; i++)
    if (!strcmp(md_variants[i].name, name)) return i;
  return -1;
}

bool md_check_graph(const md_graph *g, uint64_t seed, unsigned variants, md_check_stats *stats,
                    md_finding *f) {
  md_reference ref;
  Check c = {.plain = g, .stats = stats, .finding = f, .d = md_diags_create(), .seed = seed};
  *f = (md_finding){0};
  md_graph *expanded = md_graph_verify(g, c.d) ? run_passes(&c, "autodiff", 0, NULL) : NULL;
  if (!expanded) {
    if (!f->kind) refused(&c, "verifier");
    md_diags_destroy(c.d);
    return false;
  }
  c.ref = &ref;
  int64_t start = md_now_ns();
  bool ok = true, usable = md_reference_create(&ref, expanded, seed, MOST_DRAWS);
  stats->draw_ns += md_now_ns() - start;
  stats->draws += ref.draws;
  stats->gave_up += !usable;
  if (!usable) snprintf(stats->why, sizeof stats->why, "%s", ref.refused);
  stats->steps += ref.num_steps;
  if (usable) {
    // The reference's own evaluation is the interpreter's.
    ok = interpret(&c, expanded, 0);
    ok = ok && ends_after(&c, "cse", 1) && ends_after(&c, "dce", 1) && ends_after(&c, "fold", 1) &&
         ends_after(&c, "canon", 8);
    for (int i = 0; ok && i < md_num_variants; i++) {
      if (!(variants >> i & 1)) continue;
      c.variant = &md_variants[i];
      ok = c.variant->again ? check_again(&c) : check_variant(&c);
    }
  }
  md_reference_destroy(&ref);
  md_graph_destroy(expanded);
  md_diags_destroy(c.d);
  return ok;
}
