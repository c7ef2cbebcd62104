// SPDX-License-Identifier: Apache-2.0
// Passes keep the meaning: the interpreter before equals the interpreter after, on random operands,
// for each pass alone and for the pipelines; plans are carried out on real bytes.
#include "models/models.h"
#include "passes/passes.h"
#include "tests/tolerance.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <string.h>

// --- graphs that every pass is tried on

static const char *const texts[] = {
    // a block in training: residual, two branches, pooling, running statistics, an optimiser
    "graph @train(%x: f32[2,3,2,9,8], %lr: f32[1]) {\n"
    "  %w1 = state @w1 {init=normal, b=0.2} : f32[8,3,1,3,3]\n"
    "  %g1 = state @g1 {init=uniform, a=1, b=0.5} : f32[8]\n"
    "  %b1 = state @b1 {init=uniform, a=0.3, b=0.5} : f32[8]\n"
    "  %w2 = state @w2 {init=normal, b=0.2} : f32[8,8,1,1,1]\n"
    "  %g2 = state @g2 {init=uniform, a=1, b=0.5} : f32[8]\n"
    "  %b2 = state @b2 {init=uniform, b=0.5} : f32[8]\n"
    "  %wf = state @wf {init=normal, b=0.5} : f32[5,8]\n"
    "  %bf = state @bf : f32[5]\n"
    "  %run = state @run : f32[8]\n"
    "  %mom = state @mom : f32[8,8,1,1,1]\n"
    "  %avg = state @avg {init=copy, from=@w2} : f32[8,8,1,1,1]\n"
    "  %c1 = conv3d %x, %w1 {stride=[1,2,2], pad=[0,1,1]}\n"
    "  %m1, %v1 = moments %c1\n"
    "  %n1 = batch_norm %c1, %g1, %b1, %m1, %v1 {batch_stats=true}\n"
    "  %a1 = relu %n1\n"
    "  %p, %index = max_pool3d %a1 {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}\n"
    "  %c2 = conv3d %p, %w2\n"
    "  %m2, %v2 = moments %c2 {groups=2}\n"
    "  %n2 = batch_norm %c2, %g2, %b2, %m2, %v2 {batch_stats=true}\n"
    "  %s = add %n2, %p\n"
    "  %a2 = relu %s\n"
    "  %c3 = conv3d %a2, %w2\n"
    "  %m3, %v3 = moments %c3\n"
    "  %n3 = batch_norm %c3, %g2, %b2, %m3, %v3 {batch_stats=true}\n"
    "  %s3 = add %n3, %a2\n"
    "  %a3 = relu %s3\n"
    "  %pool = sum %a3 {axes=[2,3,4]}\n"
    "  %feat = affine %pool {scale=0.1}\n"
    "  %lin = matmul %feat, %wf {ty=true}\n"
    "  %bias = broadcast %bf {shape=[2,5], axes=[1]}\n"
    "  %logits = add %lin, %bias\n"
    "  %soft = softplus %logits\n"
    "  %loss = sum %soft\n"
    "  %dw1, %dw2, %dg1, %db1, %dwf, %dbf = gradient %loss, %w1, %w2, %g1, %b1, %wf, %bf\n"
    "  %mm = sum %m1 {axes=[0]}\n"
    "  %run2 = lerp %run, %mm {weight=0.1}\n"
    "  %rate = broadcast %lr {shape=[8,8,1,1,1], axes=[0]}\n"
    "  %new, %mom2 = sgd %w2, %dw2, %mom, %rate {momentum=0.9, weight_decay=0.01}\n"
    "  %avg2 = lerp %avg, %new {weight=0.1}\n"
    "  update @run = %run2\n"
    "  update @w2 = %new\n"
    "  update @mom = %mom2\n"
    "  update @avg = %avg2\n"
    "  return loss=%loss, dw1=%dw1, dg1=%dg1, db1=%db1, dwf=%dwf, dbf=%dbf, logits=%logits\n"
    "}\n",
    // evaluation: frozen statistics, one of them behind a convolution with two readers
    "graph @eval(%x: f32[2,3,2,6,6], %m: f32[1,4], %v: f32[1,4]) {\n"
    "  %w = state @w {init=normal, b=0.5} : f32[4,3,1,3,3]\n"
    "  %u = state @u {init=normal, b=0.5} : f32[4,4,1,1,1]\n"
    "  %g = state @g {init=uniform, a=1, b=0.5} : f32[4]\n"
    "  %b = state @b {init=uniform, b=0.5} : f32[4]\n"
    "  %e = exp %v\n"
    "  %c = conv3d %x, %w, %b {pad=[0,1,1]}\n"
    "  %n = batch_norm %c, %g, %b, %m, %e\n"
    "  %a = relu %n\n"
    "  %d = conv3d %a, %u\n"
    "  %k = batch_norm %d, %g, %b, %m, %e\n"
    "  %s = add %k, %a\n"
    "  %r = relu %s\n"
    "  %f = conv3d %r, %u\n"
    "  %o = batch_norm %f, %g, %b, %m, %e\n"
    "  %q = sum %o {axes=[2,3,4]}\n"
    "  return %q, raw=%f\n"
    "}\n",
    // views, constants, casts, chains that canon and fold shorten
    "graph @views(%x: f32[4,6], %u: u8[4,6], %flag: u8[4], %i: i32[4]) {\n"
    "  %zero = constant {value=0} : f32[4,6]\n"
    "  %two = constant {value=2} : f32[1]\n"
    "  %twos = broadcast %two {shape=[4,6], axes=[0]}\n"
    "  %f = cast %u {to=f32}\n"
    "  %mirror = flip %f {axis=1}\n"
    "  %sel = flip_select %f, %mirror, %flag\n"
    "  %a = mul %sel, %twos\n"
    "  %b = add %a, %zero\n"
    "  %c = affine %b {scale=0.01, shift=-0.5}\n"
    "  %d = affine %c {scale=3, shift=0.25}\n"
    "  %r1 = reshape %d {shape=[24]}\n"
    "  %r2 = reshape %r1 {shape=[6,4]}\n"
    "  %t1 = transpose %r2 {axes=[1,0]}\n"
    "  %t2 = transpose %t1 {axes=[1,0]}\n"
    "  %t3 = reshape %t2 {shape=[4,6]}\n"
    "  %n1 = neg %t3\n"
    "  %n2 = neg %n1\n"
    "  %y = relu %n2\n"
    "  %z = relu %y\n"
    "  %w = sub %z, %x\n"
    "  %s1 = slice %w {axis=1, start=1, size=4}\n"
    "  %s2 = slice %s1 {axis=1, start=1, size=2}\n"
    "  %cat = concat %x, %w {axis=0}\n"
    "  %part = slice %cat {axis=0, start=5, size=2}\n"
    "  %one = constant {value=1} : f32[3,5]\n"
    "  %e = exp %one\n"
    "  %total = sum %e {axes=[1]}\n"
    "  %wide = cast %x {to=f64}\n"
    "  %back = cast %wide {to=f32}\n"
    "  %same = add %x, %w\n"
    "  %again = add %w, %x\n"
    "  %both = mul %same, %again\n"
    "  %top = max %both {axes=[1]}\n"
    "  %sums = sum %both {axes=[1]}\n"
    "  %j = add %i, %i\n"
    "  return %s2, %part, %total, %back, %both, %top, %sums, %j, %t3\n"
    "}\n",
    // InfoNCE: two banks, queries shared and different, one after the other, logits wanted
    "graph @nce(%q: f32[3,8], %k: f32[3,8], %ids: i32[3], %keep: f32[3,8]) {\n"
    "  %w = state @w {init=normal, b=0.5} : f32[8,8]\n"
    "  %bank = state @bank {init=unit_rows} : f32[11,8]\n"
    "  %bids = state @ids {init=fill, a=-1} : i32[11]\n"
    "  %ptr = state @ptr : i32[1]\n"
    "  %e = matmul %q, %w\n"
    "  %h = matmul %k, %w {ty=true}\n"
    "  %s1 = matmul %e, %bank {ty=true}\n"
    "  %z1 = nce_mask %s1, %ids, %bids {tau=0.5}\n"
    "  %l1 = logsumexp %z1\n"
    "  %t1 = max %z1 {axes=[1]}\n"
    "  %s2 = matmul %e, %bank {ty=true}\n"
    "  %z2 = nce_mask %s2, %ids, %bids {tau=0.5}\n"
    "  %l2 = logsumexp %z2\n"
    "  %late = affine %h {scale=0.5}\n"
    "  %s3 = matmul %late, %bank {ty=true}\n"
    "  %z3 = nce_mask %s3, %ids, %bids {tau=0.5}\n"
    "  %l3 = logsumexp %z3\n"
    "  %on = broadcast %l1 {shape=[3,8], axes=[0]}\n"
    "  %dep = mul %on, %keep\n"
    "  %s4 = matmul %dep, %bank {ty=true}\n"
    "  %z4 = nce_mask %s4, %ids, %bids {tau=0.5}\n"
    "  %l4 = logsumexp %z4\n"
    "  %s5 = matmul %keep, %bank {ty=true}\n"
    "  %z5 = nce_mask %s5, %ids, %bids {tau=0.5}\n"
    "  %l5 = logsumexp %z5\n"
    "  %a = add %l1, %l2\n"
    "  %b = add %a, %l3\n"
    "  %c = softplus %b\n"
    "  %loss = sum %c\n"
    "  %dw = gradient %loss, %w\n"
    "  %next = bank_push %bank, %k, %ptr\n"
    "  %nids = bank_push %bids, %ids, %ptr\n"
    "  %nptr = ring_next %ptr {push=3, size=11}\n"
    "  update @bank = %next\n"
    "  update @ids = %nids\n"
    "  update @ptr = %nptr\n"
    "  return loss=%loss, dw=%dw, top=%t1, l3=%l3, l4=%l4, l5=%l5, z5=%z5\n"
    "}\n",
    // in place and not: a state read after its update, a swap of two, one value for two
    "graph @states(%x: f32[2,3]) {\n"
    "  %a = state @a {init=normal, b=1} : f32[2,3]\n"
    "  %b = state @b {init=normal, b=1} : f32[2,3]\n"
    "  %c = state @c {init=ones} : f32[2,3]\n"
    "  %d = state @d {init=ones} : f32[2,3]\n"
    "  %e = state @e {init=ones} : f32[2,3]\n"
    "  %n = add %c, %x\n"
    "  %t = transpose %c {axes=[1,0]}\n"
    "  %old = matmul %n, %t\n"
    "  %m = flip %d {axis=1}\n"
    "  %dm = mul %d, %m\n"
    "  %y = relu %dm\n"
    "  %late = sub %e, %y\n"
    "  update @a = %b\n"
    "  update @b = %a\n"
    "  update @c = %n\n"
    "  update @d = %dm\n"
    "  update @e = %dm\n"
    "  return %old, %late, %a\n"
    "}\n",
};

// --- carrying a graph through

static md_graph *parse(const char *text) {
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("test.mdg", text, strlen(text), d);
  ck_assert_msg(g && md_graph_verify(g, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
  return g;
}

static md_graph *apply_options(md_graph *g, const md_pass_options *o) {
  md_diags *d = md_diags_create();
  md_pass_report report = {0};
  g = md_run_passes(g, o, &report, d);
  ck_assert_msg(g != NULL, "%s: %s", o->passes ? o->passes : "level", md_diags_text(d));
  md_pass_report_free(&report);
  md_diags_destroy(d);
  return g;
}

static md_pass_options options(const char *passes, int level) {
  md_pass_options o = md_pass_defaults();
  o.passes = passes;
  o.level = level;
  o.verify_each = true;
  return o;
}

static md_graph *apply(md_graph *g, const char *passes) {
  md_pass_options o = options(passes, 2);
  return apply_options(g, &o);
}

static char *text_of(const md_graph *g) {
  md_text t = {0};
  md_graph_print(g, &t);
  return t.s;
}

// --- numbers

static void fill_input(const char *name, md_tensor *t, uint64_t step) {
  uint64_t key = md_hash_key(name, step);
  int64_t n = md_elements(&t->type.shape);
  for (int64_t i = 0; i < n; i++) {
    if (t->f) t->f[i] = (double)(float)md_hash_unit(key, (uint64_t)i);
    else t->i[i] = (int64_t)(md_hash_at(key, (uint64_t)i) % (t->type.dtype == MD_U8 ? 256 : 4));
  }
}

// Inputs and states of a graph by name, at the start.
static md_interp *start(const md_graph *g, bool round) {
  md_interp *in = md_interp_create(g, round);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op == MD_OP_input) fill_input(n->name, md_interp_input(in, n->name), 1);
    if (n->op == MD_OP_state) md_state_fill(g, n->out, 7, md_interp_state(in, n->name));
  }
  return in;
}

static void step(md_interp *in) {
  md_diags *d = md_diags_create();
  ck_assert_msg(md_interp_step(in, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

// Largest difference over the largest magnitude.
static double distance(const md_tensor *x, const md_tensor *y) {
  double most = 0, size = 1e-3;
  int64_t n = md_elements(&x->type.shape);
  ck_assert(md_shape_equal(&x->type.shape, &y->type.shape));
  for (int64_t i = 0; i < n; i++) {
    double a = x->f ? x->f[i] : (double)x->i[i], b = y->f ? y->f[i] : (double)y->i[i];
    if (isinf(a) && a == b) continue;
    ck_assert(isfinite(a) && isfinite(b));
    most = fmax(most, fabs(a - b));
    size = fmax(size, fabs(a));
  }
  return most / size;
}

// Results and states of two graphs agree after two steps.
static void expect_equal(const md_graph *a, const md_graph *b, double tolerance, const char *what) {
  md_interp *x = start(a, false), *y = start(b, false);
  for (int k = 0; k < 2; k++) {
    step(x);
    step(y);
  }
  ck_assert_int_eq(a->num_results, b->num_results);
  for (int i = 0; i < a->num_results; i++) {
    ck_assert_str_eq(a->result[i].name, b->result[i].name);
    double by =
        distance(md_interp_value(x, a->result[i].val), md_interp_value(y, b->result[i].val));
    ck_assert_msg(by <= tolerance, "%s: %s: result %s differs by %g", a->name, what,
                  a->result[i].name, by);
  }
  for (int i = 0; i < a->num_nodes; i++) {
    const md_node *n = a->node[i];
    if (n->op != MD_OP_state) continue;
    double by = distance(md_interp_state(x, n->name), md_interp_state(y, n->name));
    ck_assert_msg(by <= tolerance, "%s: %s: state %s differs by %g", a->name, what, n->name, by);
  }
  md_interp_destroy(x);
  md_interp_destroy(y);
}

// Constants are rounded to f32 when they are folded; everything else runs in double.
#define FOLDED 1e-6
#define ROUNDED 1e-11

// What must run before a pass so that it has something to do.
static const char *before(const md_pass *p) {
  if (p == &md_pass_fuse_infonce || p == &md_pass_autodiff) return "dce";
  if (p->needs & MD_NEEDS_REGIONS) return "autodiff,dce,fuse-conv-bn-relu,fuse-pointwise";
  return "autodiff,dce";
}

START_TEST(every_pass_keeps_the_meaning) {
  for (int i = 0; i < MD_COUNT(texts); i++) {
    md_graph *plain = apply(parse(texts[i]), "autodiff");
    for (int k = 0; k < md_num_passes; k++) {
      const md_pass *p = md_passes[k];
      md_graph *g = apply(apply(parse(texts[i]), before(p)), p->name);
      if (p == &md_pass_fuse_infonce) g = apply(g, "autodiff");
      double tolerance = p->bitwise                                  ? 0
                         : p == &md_pass_fold || p == &md_pass_canon ? FOLDED
                                                                     : ROUNDED;
      expect_equal(plain, g, tolerance, p->name);
      md_graph_destroy(g);
    }
    md_graph_destroy(plain);
  }
}
END_TEST

START_TEST(every_level_keeps_the_meaning) {
  for (int i = 0; i < MD_COUNT(texts); i++) {
    md_graph *plain = apply(parse(texts[i]), "autodiff");
    for (int level = 0; level <= 2; level++) {
      for (int block = 0; block <= 8; block += 4) {
        md_pass_options o = options(NULL, level);
        o.facts.channel_block = block;
        o.memory.bytes = block == 8;  // out of reach: as much as helps is computed again
        md_graph *g = apply_options(parse(texts[i]), &o);
        expect_equal(plain, g, FOLDED, "level");
        md_graph_destroy(g);
      }
    }
    md_graph_destroy(plain);
  }
}
END_TEST

START_TEST(every_pass_is_idempotent_and_deterministic) {
  for (int i = 0; i < MD_COUNT(texts); i++) {
    for (int k = 0; k < md_num_passes; k++) {
      const md_pass *p = md_passes[k];
      md_graph *g = apply(apply(parse(texts[i]), before(p)), p->name);
      md_graph *h = apply(apply(parse(texts[i]), before(p)), p->name);
      char *once = text_of(g), *other = text_of(h);
      ck_assert_str_eq(once, other);
      g = apply(g, p->name);
      char *twice = text_of(g);
      ck_assert_msg(!strcmp(once, twice), "%s twice:\n%s\n%s", p->name, once, twice);
      free(once), free(other), free(twice);
      md_graph_destroy(g);
      md_graph_destroy(h);
    }
  }
}
END_TEST

// --max-rewrites=N for every N: no half-done pipeline is wrong, so bisecting finds the culprit.
START_TEST(any_number_of_rewrites_keeps_the_meaning) {
  for (int i = 0; i < MD_COUNT(texts); i++) {
    md_graph *plain = apply(parse(texts[i]), "autodiff");
    char *last = NULL;
    for (int n = 0, done = false; !done; n += 1 + n / 8) {
      md_pass_options o = options(NULL, 2);
      o.max_rewrites = n;
      md_graph *g = apply_options(parse(texts[i]), &o);
      char *text = text_of(g);
      done = last && !strcmp(text, last) && n > 400;
      if (!last || strcmp(text, last) != 0) expect_equal(plain, g, FOLDED, "some rewrites");
      free(last);
      last = text;
      md_graph_destroy(g);
    }
    free(last);
    md_graph_destroy(plain);
  }
}
END_TEST

// --- plans on real bytes

typedef struct Memory {
  const md_graph *g;
  char *arena;
  char **state, **input;  // by value
} Memory;

static char *place_of(const Memory *m, md_val v) {
  const md_value *value = &m->g->value[v];
  const md_node *n = value->node;
  if (n->op == MD_OP_input) return m->input[v];
  if (n->op == MD_OP_state) return m->state[v];
  if (value->storage != MD_NONE) return m->state[value->storage];
  return value->offset >= 0 ? m->arena + value->offset : NULL;
}

// A tensor of a value that lies in memory (or is a constant).
static md_tensor *load(const Memory *m, md_val v) {
  md_tensor *t = md_tensor_create(*md_type_in(m->g, v));
  const md_node *n = md_def(m->g, v);
  int64_t num = md_elements(&t->type.shape);
  if (n->op == MD_OP_constant) {
    for (int64_t i = 0; i < num; i++) {
      if (t->f) t->f[i] = n->attr.value.value;
      else t->i[i] = (int64_t)n->attr.value.value;
    }
  } else {
    ck_assert_msg(place_of(m, v) != NULL, "value %u has no place", v);
    md_tensor_read(t, place_of(m, v));
  }
  return t;
}

// Loads all that a region reads, computes, then stores what the plan gives a place.
static void run_region(const Memory *m, const md_region *r, md_tensor **value) {
  const md_graph *g = m->g;
  for (int i = r->first; i < r->first + r->num; i++) {
    const md_node *n = g->node[i];
    const md_tensor *in[MD_MAX_IN];
    for (int j = 0; j < n->num_in; j++) {
      md_val v = n->in[j];
      if (v && !value[v]) value[v] = load(m, v);
      in[j] = v ? value[v] : NULL;
    }
    for (int j = 0; j < n->num_out; j++)
      value[n->out + (md_val)j] = md_tensor_create(*md_type_in(g, n->out + (md_val)j));
    md_eval_node(g, n, in, &value[n->out]);
    for (int j = 0; j < n->num_out; j++) md_tensor_round(value[n->out + (md_val)j]);
  }
  for (int i = r->first; i < r->first + r->num; i++) {
    for (int j = 0; j < g->node[i]->num_out; j++) {
      md_val v = g->node[i]->out + (md_val)j;
      if (place_of(m, v)) md_tensor_write(value[v], place_of(m, v));
    }
  }
  for (int v = 0; v <= g->num_values; v++) {
    if (value[v]) md_tensor_destroy(value[v]);
    value[v] = NULL;
  }
}

static void expect_plan_works(const md_graph *g) {
  md_interp *in = start(g, true);
  int num = g->num_values + 1;
  Memory m = {.g = g, .arena = malloc((size_t)g->arena_bytes + 1)};
  md_tensor **value = calloc((size_t)num, sizeof *value);
  m.state = calloc((size_t)num, sizeof *m.state);
  m.input = calloc((size_t)num, sizeof *m.input);
  memset(m.arena, 0xff, (size_t)g->arena_bytes + 1);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    bool is_input = n->op == MD_OP_input;
    if (!is_input && n->op != MD_OP_state) continue;
    md_tensor *t = is_input ? md_interp_input(in, n->name) : md_interp_state(in, n->name);
    char *bytes = calloc(1, (size_t)md_type_bytes(&t->type));
    md_tensor_write(t, bytes);
    md_tensor_read(t, bytes);  // inputs as their type holds them
    *(is_input ? &m.input[n->out] : &m.state[n->out]) = bytes;
  }
  for (int i = 1; i <= g->num_regions; i++) run_region(&m, &g->region[i], value);
  step(in);
  for (int i = 0; i < g->num_results; i++) {
    md_tensor *t = load(&m, g->result[i].val);
    double by = distance(md_interp_value(in, g->result[i].val), t);
    ck_assert_msg(by == 0, "%s: result %s differs by %g", g->name, g->result[i].name, by);
    md_tensor_destroy(t);
  }
  for (int i = 0; i < g->num_updates; i++) {
    md_tensor *t = load(&m, g->update[i].val);
    const char *name = md_def(g, g->update[i].state)->name;
    double by = distance(md_interp_state(in, name), t);
    ck_assert_msg(by == 0, "%s: state %s differs by %g", g->name, name, by);
    md_tensor_destroy(t);
  }
  for (int v = 0; v < num; v++) free(m.state[v]), free(m.input[v]);
  free(m.state), free(m.input), free(m.arena), free(value);
  md_interp_destroy(in);
}

START_TEST(a_plan_computes_the_same_on_its_bytes) {
  for (int i = 0; i < MD_COUNT(texts); i++) {
    for (int level = 0; level <= 2; level++) {
      for (int k = 0; k < 4; k++) {
        md_pass_options o = options(NULL, level);
        o.facts.channel_block = 4 * level;
        o.precision = k & 1 ? MD_BF16 : MD_F32;
        o.memory.bytes = k / 2;  // 1: out of reach, as much as helps is computed again
        md_graph *g = apply_options(parse(texts[i]), &o);
        expect_plan_works(g);
        md_graph_destroy(g);
      }
    }
  }
}
END_TEST

// Colours of a clip: channels are cut out, summed, read for all; the first values are made again.
static const char colours[] = "graph @colours(%x: u8[2,3,4,32,40], %u: u8[2], %f: f32[2]) {\n"
                              "  %a = cast %x {to=f32}\n"
                              "  %m = flip %a {axis=4}\n"
                              "  %s = flip_select %a, %m, %u\n"
                              "  %p = affine %s {scale=0.0039}\n"
                              "  %h = cast %p {to=bf16}\n"
                              "  %k = cast %h {to=f32}\n"
                              "  %r = slice %k {axis=1}\n"
                              "  %g = slice %k {axis=1, start=2}\n"
                              "  %n = sub %r, %g\n"
                              "  %nh = cast %n {to=bf16}\n"
                              "  %y = cast %nh {to=f32}\n"
                              "  %t = sum %y {axes=[1,2,3,4]}\n"
                              "  %bt = broadcast %t {shape=[2,3,4,32,40], axes=[0]}\n"
                              "  %by = broadcast %y {shape=[2,3,4,32,40], axes=[0,1,2,3,4]}\n"
                              "  %bf = broadcast %f {shape=[2,3,4,32,40], axes=[0]}\n"
                              "  %q0 = mul %k, %bf\n"
                              "  %q1 = add %q0, %by\n"
                              "  %q2 = add %q1, %bt\n"
                              "  %q = clamp %q2 {hi=1}\n"
                              "  %z0 = slice %q {axis=1, start=1}\n"
                              "  %z = neg %z0\n"
                              "  %bz = broadcast %z {shape=[2,3,4,32,40], axes=[0,1,2,3,4]}\n"
                              "  %o = flip_select %q, %bz, %u\n"
                              "  return %o, %t\n"
                              "}\n";

START_TEST(colours_of_clips_are_two_walks_that_compute_the_same) {
  md_graph *plain = parse(colours);
  md_pass_options o = {.level = 2,
                       .max_rewrites = -1,
                       .verify_each = true,
                       .facts = {.max_prologue = 3, .alignment = 64}};
  for (int few = 0; few <= 4; few += 4) {
    for (int work = 0; work <= 3; work += 3) {
      o.facts.few_channels = few;
      o.facts.again_work = work;
      md_graph *g = apply_options(parse(colours), &o);
      ck_assert_int_eq(g->num_regions, few ? 2 : 5);
      int64_t stored = 0;  // bytes beside results
      for (md_val v = 1; v <= (md_val)g->num_values; v++)
        if (g->value[v].offset >= 0) stored += md_type_bytes(&g->value[v].type);
      int64_t clip = (int64_t)2 * 3 * 4 * 32 * 40, result = clip * 4 + 2 * 4;
      if (few) ck_assert_int_eq(stored - result, work ? 0 : clip * 2 + clip / 3 * 2);
      expect_equal(plain, g, 0, "colours");
      expect_plan_works(g);
      md_graph_destroy(g);
    }
  }
  md_graph_destroy(plain);
}
END_TEST

// --- the models

static md_graph *tiny(bool cross_key) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 2;
  s.clip.size = s.mclip.size = 16;
  s.clip.frames = s.mclip.frames = 2;
  s.bank = 8;
  s.cross_key = cross_key;
  md_diags *d = md_diags_create();
  md_graph *g = md_step_graph(&s, d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  return g;
}

static int count(const md_graph *g, md_op op) {
  int num = 0;
  for (int i = 0; i < g->num_nodes; i++) num += g->node[i]->op == op;
  return num;
}

START_TEST(the_training_step_means_the_same_at_every_level) {
  for (int key = 0; key <= 1; key++) {
    md_graph *plain = apply(tiny(key), "autodiff,dce");
    for (int level = 0; level <= 2; level++) {
      md_graph *g = apply_options(
          tiny(key), &(md_pass_options){.level = level,
                                        .max_rewrites = -1,
                                        .verify_each = true,
                                        .facts = {.max_prologue = 3, .alignment = 64}});
      expect_equal(plain, g, 1e-5, "tiny step");
      expect_plan_works(g);
      md_graph_destroy(g);
    }
    md_graph_destroy(plain);
  }
}
END_TEST

START_TEST(each_bank_is_read_once_in_a_step) {
  for (int key = 0; key <= 1; key++) {
    md_graph *g = apply(tiny(key), "fuse-infonce,autodiff,fold,canon,cse,dce");
    ck_assert_int_eq(count(g, MD_OP_nce_lse), 2);
    ck_assert_int_eq(count(g, MD_OP_nce_mask), 0);
    md_graph_destroy(g);
  }
}
END_TEST

// Of the values of a fused step, what lies in memory at the size of an activation: results of
// convolutions, residuals, pooled maps, masked gradients. Nothing normalised, nothing rectified.
START_TEST(normalised_copies_are_not_stored) {
  md_graph *g = apply(tiny(false), NULL);
  for (md_val v = 1; v <= (md_val)g->num_values; v++) {
    const md_value *value = &g->value[v];
    if (value->offset < 0 || value->type.shape.rank != 5) continue;
    md_op op = value->node->op;
    ck_assert_msg(op != MD_OP_batch_norm && op != MD_OP_batch_norm_dx, "%s is stored",
                  md_ops[op].name);
    if (op != MD_OP_relu) continue;
    const md_node *sum = md_def(g, value->node->in[0]);
    ck_assert_msg(sum->op == MD_OP_add, "relu of %s is stored", md_ops[sum->op].name);
  }
  md_graph_destroy(g);
}
END_TEST

START_TEST(no_gradient_is_made_for_inputs_and_key_networks) {
  md_graph *g = apply(tiny(false), "fuse-infonce,autodiff,dce");
  int forward = count(g, MD_OP_conv3d), weights = count(g, MD_OP_conv3d_wgrad);
  ck_assert_int_eq(weights * 2, forward);                       // key networks: none
  ck_assert_int_eq(count(g, MD_OP_conv3d_dgrad), weights - 2);  // the two stems: none
  md_graph_destroy(g);
}
END_TEST

// --- gradients of a whole graph

static double loss_with(const md_graph *g, const char *state, int64_t at, double by) {
  md_interp *in = start(g, false);
  md_interp_state(in, state)->f[at] += by;
  step(in);
  double loss = md_interp_value(in, md_find_result(g, "loss"))->f[0];
  md_interp_destroy(in);
  return loss;
}

// Through convolutions, norms of two groupings, pooling, residuals and a matrix product.
START_TEST(gradients_agree_with_differences) {
  static const char *const pairs[][2] = {
      {"w1", "dw1"}, {"g1", "dg1"}, {"b1", "db1"}, {"wf", "dwf"}, {"bf", "dbf"}};
  md_graph *g = apply(parse(texts[0]), "autodiff,dce");
  md_interp *in = start(g, false);
  step(in);
  for (int i = 0; i < MD_COUNT(pairs); i++) {
    const md_tensor *grad = md_interp_value(in, md_find_result(g, pairs[i][1]));
    int64_t n = md_elements(&grad->type.shape), stride = MD_MAX(n / 5, 1);
    for (int64_t at = 0; at < n; at += stride) {
      double h = MD_DIFFERENCE_STEP;
      double slope =
          (loss_with(g, pairs[i][0], at, h) - loss_with(g, pairs[i][0], at, -h)) / (2 * h);
      double size = fabs(loss_with(g, pairs[i][0], at, 0));
      ck_assert_msg(fabs(slope - grad->f[at]) <= md_difference_tolerance(size),
                    "%s[%lld]: gradient %.12g, difference quotient %.12g", pairs[i][1],
                    (long long)at, grad->f[at], slope);
    }
  }
  md_interp_destroy(in);
  md_graph_destroy(g);
}
END_TEST

// --- the driver

static void expect_error(const char *passes, const char *disable, const char *after,
                         const char *message) {
  md_diags *d = md_diags_create();
  md_pass_options o = options(passes, 2);
  o.disable = disable;
  o.print_after = after;
  md_graph *g = md_run_passes(parse(texts[0]), &o, NULL, d);
  ck_assert_msg(g == NULL, "expected: %s", message);
  ck_assert_msg(strstr(md_diags_text(d), message) != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
}

START_TEST(wrong_pass_lists_are_told) {
  expect_error("canon,cze", NULL, NULL, "--passes: no pass is called 'cze'");
  expect_error("canon,cze", NULL, NULL, "did you mean cse?");
  expect_error("canon", "memory", NULL, "--disable-pass: pass memory does not run here");
  expect_error("canon", NULL, "dce", "--print-ir-after: pass dce does not run here");
  expect_error("fuse-pointwise", NULL, NULL, "run autodiff before it");
  expect_error("autodiff,regions,canon", NULL, NULL, "needs a graph without regions");
  expect_error("autodiff,memory", NULL, NULL, "needs every node in a region");
}
END_TEST

START_TEST(a_disabled_pass_does_not_run) {
  md_pass_options o = options("autodiff,cse,dce", 2);
  o.disable = "cse";
  md_diags *d = md_diags_create();
  md_pass_report report = {0};
  md_graph *g = md_run_passes(parse(texts[0]), &o, &report, d);
  ck_assert_int_eq(report.num_stats, 2);
  ck_assert_str_eq(report.stat[1].name, "dce");
  md_pass_report_free(&report);
  md_diags_destroy(d);
  md_graph_destroy(g);
}
END_TEST

START_TEST(an_op_without_gradient_is_named) {
  md_graph *g = parse("graph @t(%x: f32[3,4]) {\n"
                      "  %w = state @w : f32[3,4]\n"
                      "  %a = maximum %x, %w\n"
                      "  %s = sum %a\n"
                      "  %d = gradient %s, %w\n"
                      "  return %d\n"
                      "}\n");
  md_diags *d = md_diags_create();
  md_pass_options o = options("autodiff", 2);
  ck_assert_ptr_null(md_run_passes(g, &o, NULL, d));
  ck_assert_msg(strstr(md_diags_text(d), "maximum %a, which has no gradient") != NULL, "%s",
                md_diags_text(d));
  md_diags_destroy(d);
}
END_TEST

// A loss through what only tells of the sum over a bank.
START_TEST(beside_the_sum_over_a_bank_there_is_no_gradient) {
  const char *const name[] = {"top", "mean"};
  for (int i = 0; i < 2; i++) {
    char text[400], want[80];
    snprintf(text, sizeof text,
             "graph @t(%%q: f32[3,8], %%ids: i32[3], %%keys: f32[11,8], %%bids: i32[11]) {\n"
             "  %%lse, %%top, %%mean = nce_lse %%q, %%ids, %%keys, %%bids\n"
             "  %%s = sum %%%s\n  %%d = gradient %%s, %%q\n  return %%d\n}\n",
             name[i]);
    snprintf(want, sizeof want, "E0350]: nce_lse: no gradient leads through its result %s",
             name[i]);
    md_diags *d = md_diags_create();
    md_pass_options o = options("autodiff", 2);
    ck_assert_ptr_null(md_run_passes(parse(text), &o, NULL, d));
    ck_assert_msg(strstr(md_diags_text(d), want) != NULL, "%s", md_diags_text(d));
    md_diags_destroy(d);
  }
}
END_TEST

// The bank is a constant of nce_lse: who asks for more is told, and who does not, gets the rest.
START_TEST(the_bank_of_a_sum_has_no_gradient) {
  for (int i = 0; i < 2; i++) {
    char text[400];
    snprintf(text, sizeof text,
             "graph @t(%%q: f32[3,8], %%ids: i32[3], %%keys: f32[11,8], %%bids: i32[11]) {\n"
             "  %%twice = affine %%keys {scale=2}\n"
             "  %%lse, %%top, %%mean = nce_lse %%q, %%ids, %%twice, %%bids\n"
             "  %%s = sum %%lse\n  %%d = gradient %%s, %s\n  return %%d\n}\n",
             i ? "%keys" : "%q");
    md_diags *d = md_diags_create();
    md_pass_options o = options("autodiff", 2);
    md_graph *g = md_run_passes(parse(text), &o, NULL, d);
    ck_assert_msg((g == NULL) == (i == 1), "%s", md_diags_text(d));
    if (g) md_graph_destroy(g);
    else
      ck_assert_msg(strstr(md_diags_text(d),
                           "5:8: error[E0350]: gradient: the loss depends on it through operand "
                           "bank of nce_lse, which takes that for a constant") != NULL,
                    "%s", md_diags_text(d));
    md_diags_destroy(d);
  }
}
END_TEST

// The formula of batch_stats is the whole gradient of x only where mean and var are made from x.
START_TEST(batch_stats_of_another_tensor_have_no_gradient) {
  md_graph *g = parse("graph @t(%x: f32[4,3,2], %m: f32[1,3], %v: f32[1,3]) {\n"
                      "  %w = state @w : f32[3]\n"
                      "  %y = batch_norm %x, %w, %w, %m, %v {batch_stats=true}\n"
                      "  %s = sum %y\n  %d = gradient %s, %w\n  return %d\n}\n");
  md_diags *d = md_diags_create();
  md_pass_options o = options("autodiff", 2);
  ck_assert_ptr_null(md_run_passes(g, &o, NULL, d));
  ck_assert_msg(strstr(md_diags_text(d), "3:8: error[E0350]: batch_norm: no gradient") != NULL,
                "%s", md_diags_text(d));
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "take both from one `moments` of x"));
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("passes", every_pass_keeps_the_meaning, every_level_keeps_the_meaning,
           every_pass_is_idempotent_and_deterministic, any_number_of_rewrites_keeps_the_meaning,
           a_plan_computes_the_same_on_its_bytes,
           colours_of_clips_are_two_walks_that_compute_the_same,
           the_training_step_means_the_same_at_every_level, each_bank_is_read_once_in_a_step,
           normalised_copies_are_not_stored, no_gradient_is_made_for_inputs_and_key_networks,
           gradients_agree_with_differences, wrong_pass_lists_are_told,
           a_disabled_pass_does_not_run, an_op_without_gradient_is_named,
           batch_stats_of_another_tensor_have_no_gradient,
           beside_the_sum_over_a_bank_there_is_no_gradient, the_bank_of_a_sum_has_no_gradient)
