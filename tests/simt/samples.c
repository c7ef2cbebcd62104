// SPDX-License-Identifier: Apache-2.0
// Graphs of the slice.
#include "tests/simt/samples.h"

#include <string.h>

// --- by hand

static const struct {
  const char *name, *text;
} written[] = {
    {"chain of pointwise nodes, an odd size",
     "graph @s(%x: f32[7,11,13], %y: f32[7,11,13]) {\n"
     "  %a = mul %x, %y\n  %b = sigmoid %a\n  %c = sub %b, %x\n  %d = relu %c\n"
     "  return %c, %d\n}\n"},
    {"one element", "graph @s(%x: f32[1]) {\n  %y = exp %x\n  return %y\n}\n"},
    {"more elements than threads",
     "graph @s(%x: f32[524291], %y: f32[524291]) {\n  %a = add %x, %y\n  return %a\n}\n"},
    {"batch norm, residual, relu, casts",
     "graph @s(%x: f32[4,5,3,7,7], %r: bf16[4,5,3,7,7], %g: f32[5], %b: f32[5]) {\n"
     "  %m, %pv = moments %x {groups=2}\n  %y = batch_norm %x, %g, %b, %m, %pv\n"
     "  %f = cast %r {to=f32}\n  %z = add %y, %f\n  %o = relu %z\n  %h = cast %o {to=bf16}\n"
     "  return %h, %m, %pv\n}\n"},
    {"batch norm backwards",
     "graph @s(%dy: f32[4,5,3,7,7], %x: f32[4,5,3,7,7], %g: f32[5], %m: f32[2,5], %pv: f32[2,5]) "
     "{\n"
     "  %md, %mx = batch_norm_sums %dy, %x, %m, %pv\n"
     "  %dx = batch_norm_dx %dy, %x, %g, %m, %pv, %md, %mx\n  return %dx, %md, %mx\n}\n"},
    {"channels of a matrix",
     "graph @s(%x: f32[6,5]) {\n  %m, %pv = moments %x {groups=3}\n  return %m, %pv\n}\n"},
    {"sums over every kind of axes, a store on the way",
     "graph @s(%x: f32[5,6,7,9]) {\n  %y = tanh %x\n  %a = sum %y {axes=[1]}\n"
     "  %b = sum %y {axes=[0,2]}\n  %c = sum %y {axes=[3]}\n  %d = sum %y {axes=[0,1,2,3]}\n"
     "  %e = max %y {axes=[1,3]}\n  return %y, %a, %b, %c, %d, %e\n}\n"},
    {"a sum in parts", "graph @s(%x: f32[3,40001], %z: f32[40001]) {\n  %a = sum %x {axes=[1]}\n  "
                       "%b = max %x {axes=[1]}\n"
                       "  %c = affine %a {scale=2.5e-05, shift=1}\n  %d = sum %z {axes=[0]}\n  "
                       "return %a, %b, %c, %d\n}\n"},
    {"means of a large tensor",
     "graph @s(%x: f32[8,3,4,33,31]) {\n  %m, %pv = moments %x {groups=1}\n  return %m, %pv\n}\n"},
    {"a long sum that keeps the last axis",
     "graph @s(%x: f32[2056,16]) {\n  %a = sum %x {axes=[0]}\n  return %a\n}\n"},
    {"channels of a clip that a convolution reads",
     "graph @s(%x: f32[2,3,2,8,8], %w: bf16[8,3,1,3,3]) {\n"
     "  %y = exp %x\n  %r = slice %y {axis=1}\n  %n = neg %r\n"
     "  %b = broadcast %n {shape=[2,3,2,8,8], axes=[0,1,2,3,4]}\n  %z = add %y, %b\n"
     "  %h = cast %z {to=bf16}\n  %c = conv3d %h, %w {pad=[0,1,1]}\n  return %c\n}\n"},
    {"views of views",
     "graph @s(%x: f32[4,6,5], %c: f32[6]) {\n  %t = transpose %x {axes=[2,0,1]}\n"
     "  %f = flip %t {axis=1}\n  %s = slice %f {axis=2, start=1, size=4}\n"
     "  %r = reshape %s {shape=[10,8]}\n  %e = exp %r\n  %w = broadcast %c {shape=[4,6,5], "
     "axes=[1]}\n"
     "  %m = mul %x, %w\n  %q = reshape %m {shape=[120]}\n  %n = neg %q\n  return %e, %n\n}\n"},
    {"integers, bytes, large ids",
     "graph @s(%i: i32[17], %j: i32[17], %l: i64[17], %u: u8[17], %x: f32[17,3], %y: f32[17,3]) {\n"
     "  %a = mul %i, %j\n  %b = cast %l {to=f32}\n  %c = cast %u {to=i64}\n  %d = add %c, %l\n"
     "  %e = cast %b {to=u8}\n  %f = flip_select %x, %y, %u\n  %g = cast %a {to=i64}\n"
     "  %h = cast %f {to=i32}\n  %o = cast %i {to=bool}\n  return %a, %b, %d, %e, %f, %g, %h, "
     "%o\n}\n"},
    {"values as narrow types hold them",
     "graph @s(%x: f32[37], %l: i64[37], %i: i32[37]) {\n"
     "  %a = affine %x {scale=300}\n  %u = cast %a {to=u8}\n  %b = cast %x {to=bool}\n"
     "  %k = constant {value=4294967296} : i64[37]\n  %m = mul %l, %k\n  %c = cast %m {to=bool}\n"
     "  %n = constant {value=300} : i32[37]\n  %o = mul %i, %n\n  %p = cast %o {to=f32}\n"
     "  %q = cast %p {to=u8}\n  %r = cast %o {to=u8}\n  %f = constant {value=255} : u8[37]\n"
     "  %g = add %r, %f\n  return %u, %b, %c, %q, %r, %g\n}\n"},
    {"bf16 read again where it was made",
     "graph @s(%x: bf16[37], %y: bf16[37]) {\n  %k = constant {value=1.3} : bf16[37]\n"
     "  %a = add %x, %y\n  %b = mul %a, %k\n  %z = cast %b {to=f32}\n  return %a, %z\n}\n"},
    // p is what is drawn for the second element
    {"random numbers", "graph @s(%x: f32[3,50], %k: i64[3,50]) {\n"
                       "  %y = dropout %x, %k {p=0.4315279722213745}\n  return %y\n}\n"},
    {"states updated in place",
     "graph @s(%g: f32[37], %lr: f32[1]) {\n  %p = state @p {init=normal, b=1} : f32[37]\n"
     "  %v = state @v {init=uniform, b=1} : f32[37]\n  %l = broadcast %lr {shape=[37], axes=[0]}\n"
     "  %p2, %v2 = sgd %p, %g, %v, %l {momentum=0.9, weight_decay=0.0001, nesterov=true}\n"
     "  update @p = %p2\n  update @v = %v2\n  return %g\n}\n"},
    {"bf16 throughout",
     "graph @s(%x: bf16[3,4,9], %y: bf16[3,4,9]) {\n  %a = add %x, %y\n  %b = softplus %a\n"
     "  %c = sum %b {axes=[2]}\n  return %b, %c\n}\n"},
    {"logits that are masked, outside of a pass",
     "graph @s(%s: f32[5,9], %k: i32[5], %e: i32[9], %dy: f32[5], %lse: f32[5]) {\n"
     "  %z = nce_mask %s, %k, %e {tau=0.5}\n  %d = softmax_grad_row %z, %lse, %dy\n  return %z, "
     "%d\n}\n"},
};

// --- InfoNCE in odd sizes

static const struct Nce {
  int queries, rows, dim;
  const char *mask, *type, *id;
  double tau;
  const char *results;
} passes[] = {
    {1, 1, 8, "e", "f32", "i32", 0.1, "%lse, %top, %mean"},
    {3, 5, 24, "e", "f32", "i64", 0.07, "%lse"},
    {43, 300, 128, "e", "f32", "i32", 0.1, "%lse, %mean"},
    {64, 777, 33, "e", "f32", "i64", 0.07, "%lse, %top, %mean"},
    {64, 777, 33, "e", "f32", "i64", 0.07, "%top"},
    {3, 300, 16, "m", "f32", "i32", 0.1, "%lse, %top, %mean"},
    {67, 129, 160, "e", "bf16", "i32", 0.1, "%mean, %top"},
    {5, 300, 300, "e", "f32", "i32", 0.1, "%mean, %lse"},
    {130, 1024, 24, "e", "f32", "i64", 0.01, "%lse, %top, %mean"},
};

static void put_nce(const struct Nce *s, md_text *to) {
  md_put(to,
         "graph @s(%%n_q: %s[%d,%d], %%%s_ids: %s[%d], %%n_bank: %s[%d,%d], %%%s_rows: %s[%d]) {\n"
         "  %%lse, %%top, %%mean = nce_lse %%n_q, %%%s_ids, %%n_bank, %%%s_rows {tau=%g}\n"
         "  return %s\n}\n",
         s->type, s->queries, s->dim, *s->mask == 'm' ? "m" : "k", s->id, s->queries, s->type,
         s->rows, s->dim, s->mask, s->id, s->rows, *s->mask == 'm' ? "m" : "k", s->mask, s->tau,
         s->results);
}

// --- colours of clips: of one channel what is made of three, and the other way round

static const struct Clip {
  int channels, width;
  const char *type, *means;  // of what is stored; of samples, or of all
} clips[] = {
    {3, 40, "bf16", "2"}, {3, 37, "bf16", "2"}, {3, 40, "f32", "1"},
    {4, 24, "f32", "2"},  {5, 40, "f32", "2"},
};

static void put_clip(const struct Clip *s, md_text *to) {
  int c = s->channels, w = s->width;
  md_put(to,
         "graph @s(%%x: u8[2,%d,4,32,%d], %%u: u8[2], %%f: f32[2,2]) {\n"
         "  %%a = cast %%x {to=f32}\n  %%m = flip %%a {axis=4}\n  %%s = flip_select %%a, %%m, %%u\n"
         "  %%p = affine %%s {scale=0.0039}\n  %%h = cast %%p {to=%s}\n  %%k = cast %%h {to=f32}\n"
         "  %%r = slice %%k {axis=1}\n  %%g = slice %%k {axis=1, start=%d}\n"
         "  %%n = sub %%r, %%g\n  %%nh = cast %%n {to=%s}\n  %%y = cast %%nh {to=f32}\n"
         "  %%t = sum %%y {axes=[%s1,2,3,4]}\n  %%e = affine %%t {scale=0.0003}\n",
         c, w, s->type, c - 1, s->type, *s->means == '1' ? "0," : "");
  md_put(to,
         "  %%f0 = slice %%f {axis=1}\n  %%f1 = slice %%f {axis=1, start=1}\n"
         "  %%b0 = broadcast %%f0 {shape=[2,%d,4,32,%d], axes=[0,1]}\n"
         "  %%b1 = broadcast %%f1 {shape=[2,%d,4,32,%d], axes=[0,1]}\n"
         "  %%be = broadcast %%e {shape=[2,%d,4,32,%d], axes=[0]}\n"
         "  %%by = broadcast %%y {shape=[2,%d,4,32,%d], axes=[0,1,2,3,4]}\n",
         c, w, c, w, c, w, c, w);
  md_put(to, "  %%q0 = mul %%k, %%b0\n  %%q1 = mul %%by, %%b1\n  %%q2 = add %%q0, %%be\n"
             "  %%q3 = add %%q2, %%q1\n  %%q = clamp %%q3 {hi=1}\n"
             "  %%z1 = slice %%q {axis=1, start=1}\n  %%z2 = slice %%q {axis=1}\n"
             "  %%z = mul %%z1, %%z2\n  %%top = max %%z {axes=[0,1,2,3,4]}\n");
  md_put(to,
         "  %%bz = broadcast %%z {shape=[2,%d,4,32,%d], axes=[0,1,2,3,4]}\n"
         "  %%o = flip_select %%q, %%bz, %%u\n  return %%o, %%top\n}\n",
         c, w);
}

bool simt_sample(int i, md_text *to, char name[64]) {
  if (i < MD_COUNT(written)) {
    md_put(to, "%s", written[i].text);
    snprintf(name, 64, "%s", written[i].name);
    return true;
  }
  i -= MD_COUNT(written);
  if (i >= MD_COUNT(passes) && i - MD_COUNT(passes) < MD_COUNT(clips)) {
    const struct Clip *s = &clips[i - MD_COUNT(passes)];
    put_clip(s, to);
    snprintf(name, 64, "clip of %d channels, %d wide, %s, %s", s->channels, s->width, s->type,
             *s->means == '1' ? "one mean" : "means");
    return true;
  }
  if (i >= MD_COUNT(passes))
    return simt_op_sample(i - MD_COUNT(passes) - MD_COUNT(clips), to, name);
  put_nce(&passes[i], to);
  snprintf(name, 64, "InfoNCE %d x %d x %d %s %s", passes[i].queries, passes[i].rows, passes[i].dim,
           passes[i].type, *passes[i].mask == 'm' ? "all masked" : "");
  return true;
}

// --- at random

typedef struct Maker {
  md_builder b;
  uint64_t key, draws;
  md_val pool[32];
  int num;
  md_dtype dtype;
} Maker;

static int draw(Maker *m, int below) {
  return (int)(md_hash_at(m->key, m->draws++) % (uint64_t)below);
}

static md_val any(Maker *m) { return m->pool[draw(m, m->num)]; }

static md_val input(Maker *m, const md_shape *s) {
  char name[16];
  snprintf(name, sizeof name, "x%d", (int)m->draws++);
  md_dtype d = draw(m, 4) ? MD_F32 : m->dtype;
  md_val v = md_input(&m->b, name, md_type_of(d, s->rank, s->dim));
  return d == MD_F32 ? v : md_cast(&m->b, v, MD_F32);
}

static md_val unary(Maker *m, md_val x) {
  static const md_op ops[] = {MD_OP_relu, MD_OP_tanh, MD_OP_sigmoid,
                              MD_OP_abs,  MD_OP_neg,  MD_OP_softplus};
  int i = draw(m, MD_COUNT(ops) + 1);
  if (i == MD_COUNT(ops)) return md_affine(&m->b, x, 0.5, 0.25);
  return md_add_node(&m->b, ops[i], &x, 1, NULL);
}

static md_val binary(Maker *m, md_val x, md_val y) {
  static const md_op ops[] = {MD_OP_add, MD_OP_sub, MD_OP_mul, MD_OP_maximum};
  return md_add_node(&m->b, ops[draw(m, MD_COUNT(ops))], (md_val[]){x, y}, 2, NULL);
}

static md_val view(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x);
  int axis = draw(m, s.rank);
  if (draw(m, 3) == 0) {
    md_dims perm = {.n = s.rank};
    for (int i = 0; i < s.rank; i++) perm.d[i] = (i + axis) % s.rank;
    return md_transpose(&m->b, x, perm);
  }
  if (draw(m, 2)) {
    int start = draw(m, (int)s.dim[axis]);
    return md_slice(&m->b, x, axis, start, 1 + draw(m, (int)s.dim[axis] - start));
  }
  md_attr a = {.word = {axis}};
  return md_add_node(&m->b, MD_OP_flip, &x, 1, &a);
}

static md_val flatten(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x), flat = {.rank = 1, .dim = {md_elements(&s)}};
  return md_reshape(&m->b, x, flat);
}

static md_val reduce(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x);
  if (s.rank >= 2 && draw(m, 3) == 0)
    return md_result_of(&m->b, md_moments(&m->b, x, 1), draw(m, 2));
  md_dims axes = {.n = 0};
  for (int i = 0; i < s.rank; i++)
    if (draw(m, 2)) axes.d[axes.n++] = i;
  if (draw(m, 2)) return md_sum(&m->b, x, axes);
  md_attr a = {.axes = {axes}};
  return md_add_node(&m->b, MD_OP_max, &x, 1, &a);
}

// A value of x's shape: another of the pool, or one repeated along all axes but one.
static md_val partner(Maker *m, md_val x) {
  md_shape s = md_shape_of(&m->b, x);
  for (int i = 0; i < 4; i++) {
    md_val y = any(m);
    md_shape t = md_shape_of(&m->b, y);
    if (md_shape_equal(&s, &t)) return y;
  }
  int axis = draw(m, s.rank);
  md_shape row = {.rank = 1, .dim = {s.dim[axis]}};
  return md_broadcast(&m->b, input(m, &row), s, (md_dims){1, {axis}});
}

md_graph *simt_random_graph(uint64_t seed, md_diags *d) {
  md_graph *g = md_graph_create("random");
  Maker m = {.key = md_hash_key("random graph", seed)};
  m.dtype = seed % 2 ? MD_BF16 : MD_F32;
  md_builder_init(&m.b, g, d);
  md_shape s = {.rank = 1 + draw(&m, 5)};
  for (int i = 0; i < s.rank; i++) s.dim[i] = 1 + draw(&m, 9);
  for (int i = 0; i < 2; i++) m.pool[m.num++] = input(&m, &s);
  int nodes = 4 + draw(&m, 14);
  for (int i = 0; i < nodes; i++) {
    md_val x = any(&m), y;
    int kind = draw(&m, 10);
    if (kind < 3) y = unary(&m, x);
    else if (kind < 6) y = binary(&m, x, partner(&m, x));
    else if (kind < 8) y = draw(&m, 4) ? view(&m, x) : flatten(&m, x);
    else y = reduce(&m, x);
    m.pool[m.num++] = y;
  }
  for (int i = 0; i < m.num; i += 1 + draw(&m, 3)) {
    char name[16];
    snprintf(name, sizeof name, "r%d", i);
    md_return(&m.b, name, m.pool[i]);
  }
  md_return(&m.b, "last", m.pool[m.num - 1]);
  if (!m.b.failed) return g;
  md_graph_destroy(g);
  return NULL;
}
