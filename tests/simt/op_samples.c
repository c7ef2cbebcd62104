// SPDX-License-Identifier: Apache-2.0
// Graphs for the ops that are neither pointwise nor views nor reductions: odd sizes, layouts of every
// kind between nodes, what stands before and behind, ties, NaN and infinities.
#include "tests/simt/samples.h"

#include <string.h>

#include "tests/samples.h"

typedef struct Written {
  const char *name, *text;
} Written;

// --- data movement

static const Written moves[] = {
    {"pieces along each axis",
     "graph @s(%x: f32[3,4,5], %y: f32[3,1,5], %z: f32[3,4,2]) {\n"
     "  %a = concat %x, %y, %x {axis=1}\n  %b = concat %z, %x {axis=2}\n  %c = concat %x, %x "
     "{axis=0}\n"
     "  %d = pad %x {axis=0, before=2}\n  %e = pad %x {axis=1, after=1}\n"
     "  %f = pad %x {axis=2, before=3, after=2}\n  %g = pad %x {axis=1}\n"
     "  %h = concat %x {axis=1}\n  return %a, %b, %c, %d, %e, %f, %g, %h\n}\n"},
    {"pieces inside of pointwise nodes",
     "graph @s(%x: f32[7,11], %y: f32[7,3]) {\n  region @r {\n    %e = exp %x\n"
     "    %a = concat %e, %y {axis=1}\n    %b = tanh %a\n    %s = sum %b {axes=[1]}\n  }\n"
     "  region @q {\n    %n = neg %x\n    %p = pad %n {axis=1, before=1, after=2}\n"
     "    %t = transpose %p {axes=[1,0]}\n    %u = slice %t {axis=0, start=1, size=1}\n  }\n"
     "  return %b, %s, %t, %u\n}\n"},
    {"eight neighbours on the last axis",
     "graph @s(%x: u8[2,3,5,16], %g: bf16[2,1,5,16], %i: i32[2,3,5,16], %f: f32[2]) {\n"
     "  region @r {\n    %a = cast %x {to=f32}\n    %b = cast %g {to=f32}\n"
     "    %c = broadcast %b {shape=[2,3,5,16], axes=[0,1,2,3]}\n"
     "    %d = broadcast %f {shape=[2,3,5,16], axes=[0]}\n    %e = mul %a, %c\n"
     "    %h = add %e, %d\n    %o = cast %h {to=bf16}\n    %p = cast %h {to=u8}\n  }\n"
     "  region @q {\n    %s = slice %o {axis=1, start=2, size=1}\n    %t = cast %s {to=f32}\n"
     "    %u = mul %t, %t\n  }\n  region @w {\n    %j = add %i, %i\n  }\n  return %o, %p, %u, "
     "%j\n}\n"},
    {"pieces of integers and bytes",
     "graph @s(%x: i64[5], %y: i64[2], %u: u8[5,3], %v: u8[5,4], %h: bf16[3,2]) {\n"
     "  %a = concat %x, %y {axis=0}\n  %b = concat %u, %v {axis=1}\n  %c = crop %b {top=1, left=2, "
     "h=3, w=4}\n  %d = pad %h {axis=1, before=1}\n  return %a, %b, %c, %d\n}\n"},
    {"pieces of channels, in blocks",
     "graph @s(%x: f32[2,7,2,5,4]) {\n  %a = relu %x\n  %b = concat %a, %x, %a {axis=1}\n"
     "  %c = pad %b {axis=1, before=3, after=1}\n  %d = pad %c {axis=3, before=1, after=2}\n"
     "  %e = crop %d {top=1, left=1, h=6, w=2}\n  %f = tanh %e\n  return %f\n}\n"},
    {"what becomes channels, made on the way",
     "graph @s(%u: u8[2,3,2,5,19], %s: f32[3], %x: f32[2,9,2,5,6]) {\n  region @r {\n"
     "    %f = flip %u {axis=4}\n    %a = cast %f {to=f32}\n"
     "    %c = broadcast %s {shape=[2,3,2,5,19], axes=[1]}\n    %d = mul %a, %c\n"
     "    %e = cast %d {to=bf16}\n"
     "    %y = space_to_depth %e {by=[1,2,2], before=[0,1,3], size=[2,3,11]}\n"
     "    %t = relu %y\n  }\n  region @q {\n    %n = exp %x\n"
     "    %z = space_to_depth %n {by=[2,1,3], before=[0,0,1], size=[1,5,2]}\n  }\n"
     "  return %t, %z\n}\n"},
    {"rows by index, from either end",
     "graph @s(%x: f32[5,7], %i: i32[9], %l: i64[6], %b: i64[5], %y: f32[9,7], %z: bf16[6,2,3]) {\n"
     "  %a = gather_rows %x, %i\n  %c = gather_rows %b, %l\n  %d = scatter_rows %y, %i {rows=4}\n"
     "  %e = scatter_rows %z, %l {rows=11}\n  %f = scatter_rows %y, %i {rows=1}\n"
     "  return %a, %c, %d, %e, %f\n}\n"},
    {"rows by index inside of pointwise nodes",
     "graph @s(%x: f32[5,7], %i: i32[9], %y: f32[9,7]) {\n  region @r {\n    %e = exp %x\n"
     "    %j = add %i, %i\n    %a = gather_rows %e, %j\n    %b = mul %a, %y\n  }\n"
     "  region @q {\n    %t = tanh %y\n    %d = scatter_rows %t, %i {rows=4}\n"
     "    %f = transpose %d {axes=[1,0]}\n    %g = sum %d {axes=[0]}\n  }\n"
     "  return %b, %d, %f, %g\n}\n"},
    {"pictures mixed element by element",
     "graph @s(%x: f32[2,3,4,5,6], %y: f32[2,3,5], %z: f32[2,5,3,2,2]) {\n  %a = grayscale %x\n"
     "  %b = grayscale %y {r=0.5, g=0.25, b=0.25}\n  %c = frame_difference %x\n"
     "  %d = frame_difference %x {signed=true}\n  %t = relu %z\n  %e = frame_difference %t\n"
     "  return %a, %b, %c, %d, %e\n}\n"},
    {"NaN and infinities move as they are",
     "graph @s(%x: f32[4,6], %i: i32[5]) {\n  %l = log %x\n  %z = constant {value=0} : f32[4,6]\n"
     "  %k = log %z\n  %a = concat %l, %k {axis=0}\n  %b = pad %l {axis=1, before=1}\n"
     "  %c = gather_rows %l, %i\n  return %a, %b, %c\n}\n"},
    {"f64 through every kind of node",
     "graph @s(%x: f64[4,3,2,5,4], %g: f64[3], %l: i64[7,5], %y: f32[7,5], %k: i64[3,4]) {\n"
     "  %m, %pv = moments %x {groups=2}\n  %n = batch_norm %x, %g, %g, %m, %pv\n"
     "  %a = sigmoid %n\n  %b = softplus %x\n  %c = tanh %b\n  %d = sum %c {axes=[1,2]}\n"
     "  %e = max %x {axes=[0]}\n  %f = cast %x {to=bf16}\n  %h = affine %x {scale=1000}\n"
     "  %i = cast %h {to=i32}\n  %j = cast %h {to=u8}\n  %o = cast %l {to=f64}\n"
     "  %p = cast %y {to=f64}\n  %q = add %o, %p\n  %r = less %o, %p\n  %s = cast %q {to=f32}\n"
     "  %t = relu %q\n  %u = abs %q\n  %v = log %q\n  %w = sqrt %u\n  %z = rsqrt %u\n"
     "  %md, %mx = batch_norm_sums %x, %a, %m, %pv\n  %ll = cast %q {to=i64}\n"
     "  return %a, %b, %c, %d, %e, %f, %i, %j, %r, %s, %t, %v, %w, %z, %md, %mx, %ll\n}\n"},
    {"a result over an operand that another result reads",
     "graph @s(%x: f32[40,16], %y: f32[16,16], %i: i32[40]) {\n"
     "  region @q {\n    %r = exp %x\n  }\n  region @r {\n"
     "    %g = scatter_rows %x, %i {rows=40}\n    %s = neg %r\n    %t = transpose %g {axes=[1,0]}\n"
     "    %u = transpose %t {axes=[1,0]}\n    %z = add %u, %r\n  }\n  return %s, %z\n}\n"},
};

static const int pushed[] = {1, 4, 11, 25};

static void put_push(int num, md_text *to) {
  md_put(to,
         "graph @s(%%k: f32[%d,21], %%i: i64[%d]) {\n"
         "  %%bank = state @bank {init=normal, b=1} : f32[11,21]\n  %%ids = state @ids : i64[11]\n"
         "  %%other = state @other {init=normal, b=1} : f32[11,21]\n"
         "  %%ptr = state @ptr {init=fill, a=-2} : i32[1]\n  %%kn = neg %%k\n"
         "  %%b = bank_push %%bank, %%kn, %%ptr\n  %%j = bank_push %%ids, %%i, %%ptr\n"
         "  %%o = bank_push %%other, %%k, %%ptr\n  %%late = neg %%other\n"
         "  %%p = ring_next %%ptr {push=%d, size=11}\n"
         "  update @bank = %%b\n  update @ids = %%j\n  update @other = %%o\n  update @ptr = %%p\n"
         "  return %%late, old=%%other\n}\n",
         num, num, num);
}

// --- pools

static const struct Pool {
  int channels;
  const char *window, *type;
} pools[] = {
    {1, "kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]", "f32"},
    {3, "kernel=[2,2,2], stride=[2,2,2]", "f32"},
    {7, "kernel=[3,1,2], stride=[1,3,1], pad=[2,0,1]", "f32"},
    {17, "kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]", "f32"},
    {65, "kernel=[3,9,8]", "f32"},
    {5, "kernel=[1,2,2], stride=[2,4,3]", "f32"},
    {4, "kernel=[1,1,1], stride=[1,2,2]", "f32"},
    {8, "kernel=[3,3,3], pad=[2,2,2]", "bf16"},
    {9, "kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]", "f64"},
    {7, "kernel=[1,5,3], stride=[1,3,2], pad=[0,4,2]", "bf16"},
    // bf16 hides a small one among many
    {8, "kernel=[3,3,3], pad=[2,2,2]", "f32"},
    {7, "kernel=[1,5,3], stride=[1,3,2], pad=[0,4,2]", "f32"},
    {9, "kernel=[3,10,9], pad=[1,1,2]", "f32"},  // more places than a u8 counts
};

// Small integers make ties; at level 2 what lies between pools is in blocks.
static void put_pool(const struct Pool *p, md_text *to) {
  const char *w = p->window, *t = p->type;
  int c = p->channels;
  md_put(to,
         "graph @s(%%x: %s[2,%d,3,9,8]) {\n  %%i = cast %%x {to=i32}\n  %%f = cast %%i {to=%s}\n"
         "  %%r = relu %%x\n"
         "  %%y, %%at = max_pool3d %%r {%s}\n  %%u, %%ties = max_pool3d %%f {%s}\n"
         "  %%z = avg_pool3d %%r {%s}\n  %%s = affine %%y {scale=2}\n"
         "  %%dy = max_pool3d_grad %%s, %%at {%s, shape=[2,%d,3,9,8]}\n"
         "  %%du = max_pool3d_grad %%s, %%ties {%s, shape=[2,%d,3,9,8]}\n"
         "  %%dz = avg_pool3d_grad %%z {%s, shape=[2,%d,3,9,8]}\n"
         "  %%g = relu_grad %%dy, %%r\n  %%d = add %%g, %%dz\n"
         "  return %%y, %%at, %%u, %%ties, %%z, %%dy, %%du, %%dz, %%d\n}\n",
         t, c, t, w, w, w, w, c, w, c, w, c);
}

static const Written pools_written[] = {
    {"pools with what surrounds them",
     "graph @s(%x: f32[2,9,2,7,6], %b: f32[9]) {\n  region @r {\n"
     "    %c = broadcast %b {shape=[2,9,2,7,6], axes=[1]}\n    %t = mul %x, %c\n"
     "    %y, %i = max_pool3d %t {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}\n"
     "    %m, %v = moments %y\n    %e = exp %y\n  }\n  region @q {\n    %n = neg %x\n"
     "    %a = avg_pool3d %n {kernel=[2,7,6]}\n    %z = tanh %a\n  }\n  region @p {\n"
     "    %dy = max_pool3d_grad %e, %i {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1], "
     "shape=[2,9,2,7,6]}\n    %dx = relu_grad %dy, %x\n  }\n"
     "  return %y, %t, %m, %v, %z, %dx, %a\n}\n"},
    {"NaN, infinities and ties in a pool",
     "graph @s(%x: f32[2,5,3,6,5]) {\n  %s = affine %x {scale=20}\n  %n = log %x\n"
     "  %z = constant {value=0} : f32[2,5,3,6,5]\n  %l = log %z\n  %i = cast %x {to=i32}\n  %f = "
     "cast %i {to=f32}\n"
     "  %a, %p = max_pool3d %n {kernel=[1,2,2], stride=[1,2,2]}\n"
     "  %b, %q = max_pool3d %l {kernel=[2,3,3], pad=[1,1,1]}\n"
     "  %c, %r = max_pool3d %f {kernel=[3,2,2]}\n  %d = avg_pool3d %n {kernel=[1,2,2]}\n"
     "  %e, %t = max_pool3d %z {kernel=[2,2,2]}\n"
     "  return %a, %p, %b, %q, %c, %r, %d, %e, %t, %s\n}\n"},
    {"a mean on the way of a sum",
     "graph @s(%x: f32[3,6,5,5,1], %y: f32[3,6,5,5,1]) {\n  region @r {\n"
     "    %a = avg_pool3d %x {kernel=[1,3,1], stride=[1,1,2], pad=[0,1,0]}\n"
     "    %b = sum %y {axes=[3]}\n  }\n  return %a, %b\n}\n"},
    {"sums over the pixels of each sample",
     "graph @s(%x: f32[3,20,2,7,6], %b: f32[20]) {\n"
     "  %r = relu %x\n  %y, %i = max_pool3d %r {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}\n"
     "  %c = broadcast %b {shape=[3,20,2,4,3], axes=[1]}\n  %z = mul %y, %c\n  %t = tanh %z\n"
     "  %s = sum %z {axes=[2,3,4]}\n  %u = sum %t {axes=[2,3,4]}\n"
     "  %w, %v = max_pool3d %t {kernel=[1,2,2]}\n  return %i, %s, %u, %w\n}\n"},
    {"a pool whose places nobody asks for",
     "graph @s(%x: f32[1,2,1,5,5]) {\n  %y, %i = max_pool3d %x {kernel=[1,3,3], stride=[1,2,2]}\n"
     "  return %y\n}\n"},
};

// --- matrices

static const struct Matrix {
  int m, n, inner;
  const char *type;
} matrices[] = {{1, 1, 1, "f32"},     {1, 17, 33, "f32"},   {7, 5, 1300, "f32"},
                {65, 64, 13, "f32"},  {130, 67, 35, "f32"}, {64, 128, 700, "f32"},
                {33, 70, 50, "bf16"}, {5, 66, 300, "f64"}};

// All four transpositions, bias and ReLU around some.
static void put_matrix(const struct Matrix *s, md_text *to) {
  const char *t = s->type;
  int m = s->m, n = s->n, k = s->inner;
  md_put(to,
         "graph @s(%%x: %s[%d,%d], %%xt: %s[%d,%d], %%y: %s[%d,%d], %%yt: %s[%d,%d], %%b: %s[%d]) "
         "{\n"
         "  %%r = relu %%x\n  %%a = matmul %%r, %%y\n"
         "  %%bb = broadcast %%b {shape=[%d,%d], axes=[1]}\n  %%c = add %%a, %%bb\n"
         "  %%d = relu %%c\n  %%e = matmul %%x, %%yt {ty=true}\n"
         "  %%f = matmul %%xt, %%y {tx=true}\n  %%g = matmul %%xt, %%yt {tx=true, ty=true}\n"
         "  return %%d, %%e, %%f, %%g\n}\n",
         t, m, k, t, k, m, t, k, n, t, n, k, t, n, m, n);
}

static const Written matrices_written[] = {
    {"infinities next to what no row has",
     "graph @s(%x: f32[5,7], %y: f32[7,6]) {\n  %i = constant {value=inf} : f32[5,1]\n"
     "  %j = constant {value=inf} : f32[7,1]\n  %v = concat %i, %x {axis=1}\n"
     "  %w = concat %j, %y {axis=1}\n  %a = matmul %v, %v {ty=true}\n"
     "  %b = matmul %w, %w {tx=true}\n  return %a, %b\n}\n"},
    {"an operand of a product over an operand that a later walk reads",
     "graph @s(%x: f32[2,24], %z: f32[2,24]) {\n  region @q {\n    %r = relu %x\n    %e = exp %z\n"
     "  }\n  region @r {\n    %m = neg %e\n    %a = maximum %m, %r\n    %t = tanh %a\n"
     "    %p = matmul %m, %e {ty=true}\n  }\n  return %m, %t, %p\n}\n"},
    {"a product with what surrounds it",
     "graph @s(%x: f32[9,37], %y: f32[37,11], %b: f32[11]) {\n  region @r {\n    %e = tanh %x\n"
     "    %t = transpose %y {axes=[1,0]}\n    %z = matmul %e, %t {ty=true}\n"
     "    %c = broadcast %b {shape=[9,11], axes=[1]}\n    %a = add %z, %c\n    %r = relu %a\n"
     "    %s = sum %r {axes=[0]}\n  }\n  return %e, %r, %s\n}\n"},
};

// --- rows

static const struct Rows {
  int num, len;
  const char *type;
} rows[] = {{1, 1, "f32"},     {5, 7, "f32"},  {9, 65, "f32"},    {5, 4099, "f32"},
            {300, 10, "bf16"}, {5, 37, "f64"}, {5, 1025, "bf16"}, {5, 1030, "f64"}};

// The first two elements of a row that is ranked are its best, and equal.
static void put_rows(const struct Rows *r, md_text *to) {
  const char *t = r->type;
  int m = r->num, n = r->len;
  md_put(
      to,
      "graph @s(%%x: %s[%d,%d], %%dy: %s[%d,%d], %%dl: %s[%d], %%r%d_l: i64[%d], %%r%d_k: i32[%d], "
      "%%r%d_i: i32[%d]) {\n",
      t, m, n, t, m, n, t, m, n, m, n, m, n + 2, m);
  md_put(to,
         "  %%z = affine %%x {scale=2}\n  %%i = cast %%x {to=i32}\n  %%t = cast %%i {to=%s}\n"
         "  %%u = constant {value=100} : %s[%d,2]\n  %%v = concat %%u, %%t {axis=1}\n"
         "  %%a = logsumexp %%z\n  %%b = softmax %%z\n  %%c = cross_entropy %%z, %%r%d_k\n"
         "  %%d = cross_entropy_grad %%dl, %%z, %%r%d_l\n  %%e = l2_normalize %%z\n",
         t, t, m, n, n);
  md_put(to,
         "  %%f = l2_normalize_grad %%dy, %%z\n  %%g = argmax %%t\n"
         "  %%h = topk_hit %%v, %%r%d_i {k=1}\n  %%q = argmax %%x\n"
         "  return %%a, %%b, %%c, %%d, %%e, %%f, %%g, %%h, %%q\n}\n",
         n + 2);
}

// A region of its own for each, with what surrounds it.
static const char *const surrounded[] = {"logsumexp %a",
                                         "softmax %a",
                                         "cross_entropy %a, %r37",
                                         "argmax %a",
                                         "l2_normalize %a",
                                         "cross_entropy_grad %v, %a, %r37",
                                         "topk_hit %a, %r37 {k=36}",
                                         "l2_normalize_grad %a, %y"};

static void put_surrounded(int i, md_text *to) {
  bool by_row = i == 0 || i == 2 || i == 6, integer = i == 3;
  const char *y = i == 0 ? "far_y" : integer ? "nan_y" : "y";
  md_put(to,
         "graph @s(%%x: f32[9,37], %%%s: f32[9,37], %%r37: i32[9], %%v: f32[9]) {\n  region @r {\n"
         "    %%a = mul %%x, %%%s\n    %%o = %s\n    %%z = add %%o, %s\n  }\n"
         "  return %%o, %%a, %%z\n}\n",
         y, y, surrounded[i],
         integer  ? "%r37"
         : by_row ? "%v"
                  : "%x");
}

// Whole numbers are equal to others; the best of the negated row is its last one.
#define EDGES(type, len, last)                                                            \
  "graph @s(%x: " type "[6," len "], %dl: " type "[6]) {\n"                               \
  "  %a = constant {value=-1} : i32[1]\n  %b = constant {value=0} : i32[2]\n"             \
  "  %c = constant {value=" last "} : i32[1]\n  %d = constant {value=" len "} : i32[2]\n" \
  "  %k = concat %a, %b, %c, %d {axis=0}\n  %e = cross_entropy %x, %k\n"                  \
  "  %f = cross_entropy_grad %dl, %x, %k\n  %h = topk_hit %x, %k {k=" len "}\n"           \
  "  %i = cast %x {to=i32}\n  %t = cast %i {to=" type "}\n  %best = argmax %t\n"          \
  "  %n = neg %x\n  %last = argmax %n\n  %u = topk_hit %t, %best {k=1}\n"                 \
  "  %v = topk_hit %x, %last {k=" last "}\n  %w = topk_hit %x, %last {k=" len "}\n"       \
  "  return %e, %f, %h, %u, %v, %w\n}\n"

// Each row is so far from the others that e^x of it overflows or is 0 by their maximum.
#define FAR(type, len)                                                                 \
  "graph @s(%x: " type "[6," len "], %dl: " type "[6], %r" len ": i32[6]) {\n"         \
  "  %y = affine %x {scale=3000}\n  %a = logsumexp %y\n  %b = softmax %y\n"            \
  "  %c = cross_entropy %y, %r" len "\n  %d = cross_entropy_grad %dl, %y, %r" len "\n" \
  "  return %a, %b, %c, %d\n}\n"

static const Written rows_written[] = {
    {"short rows far from one another", FAR("f32", "7")},
    {"long rows far from one another", FAR("f32", "1100")},
    {"rows of f64 far from one another", FAR("f64", "21")},
    {"labels at the edges, the best and the last of short rows", EDGES("f32", "37", "36")},
    {"labels at the edges, the best and the last of long rows", EDGES("f32", "1100", "1099")},
    {"labels at the edges, the best and the last of f64", EDGES("f64", "21", "20")},
    {"rows as long as eps", "graph @s(%y: f32[4,4], %one_x: f32[4,4]) {\n"
                            "  %d = l2_normalize_grad %y, %one_x {eps=2}\n  return %d\n}\n"},
    {"rows of f64 as long as eps", "graph @s(%y: f64[4,4], %one_x: f64[4,4]) {\n"
                                   "  %d = l2_normalize_grad %y, %one_x {eps=2}\n  return %d\n}\n"},
    {"NaN in rows",
     "graph @s(%x: f32[40,3], %r3_l: i32[40]) {\n  %n = log %x\n"
     "  %one = constant {value=-1} : f32[40,3]\n  %all = log %one\n  %a = l2_normalize %n\n"
     "  %b = l2_normalize_grad %x, %n\n  %c = topk_hit %n, %r3_l {k=2}\n  %d = topk_hit %all, "
     "%r3_l\n"
     "  %e = argmax %n\n  %f = argmax %all\n  %g = logsumexp %n\n  %h = softmax %n\n"
     "  %i = cross_entropy_grad %g, %n, %r3_l\n  return %a, %b, %c, %d, %e, %f, %g, %h, %i\n}\n"},
    {"infinities in rows",
     "graph @s(%x: f32[4,21], %r42: i32[4]) {\n  %i = constant {value=inf} : f32[4,21]\n"
     "  %n = neg %i\n  %a = logsumexp %n\n  %b = logsumexp %i\n  %c = concat %x, %n {axis=1}\n"
     "  %d = logsumexp %c\n  %e = softmax %c\n  %f = argmax %n\n  %j = concat %x, %i {axis=1}\n"
     "  %o = softmax %j\n  %p = softmax %n\n  %q = cross_entropy %j, %r42\n"
     "  %r = cross_entropy %n, %r42\n"
     "  return %a, %b, %d, %e, %f, %o, %p, %q, %r\n}\n"},
    {"rows shorter than eps",
     "graph @s(%x: f32[4,21], %y: f32[4,21]) {\n  %z = constant {value=0} : f32[4,21]\n"
     "  %a = l2_normalize %z\n  %b = l2_normalize_grad %x, %z {eps=2}\n"
     "  %c = l2_normalize %x {eps=100}\n  %d = l2_normalize_grad %y, %x {eps=100}\n"
     "  return %a, %b, %c, %d\n}\n"},
};

// --- pictures

static const Written pictures[] = {
    {"pictures grow and shrink",
     "graph @s(%x: f32[2,3,17,20], %v: f32[1,2,5,20,18], %y: f32[2,1,9], %z: f32[1,1,1,5]) {\n"
     "  %a = resize %x {size=[11,13]}\n  %b = resize %x {size=[23,41]}\n"
     "  %c = resize %v {size=[8,11,35]}\n  %d = resize %y {size=[40]}\n"
     "  %e = resize %z {size=[3,33], align_corners=true}\n"
     "  %f = resize %x {size=[1,9], align_corners=true}\n  %g = resize %x {size=[17,20]}\n"
     "  return %a, %b, %c, %d, %e, %f, %g\n}\n"},
    {"pictures shrink without aliasing",
     "graph @s(%x: f32[1,3,50,41], %y: f32[1,3,7,9], %z: bf16[1,2,20,41], %d: f64[1,2,20,11]) {\n"
     "  %a = resize %x {size=[7,18], antialias=true}\n"
     "  %b = resize %y {size=[20,11], antialias=true}\n"
     "  %c = resize %z {size=[7,18], antialias=true}\n  %e = resize %z {size=[7,43]}\n"
     "  %f = resize %x {size=[1,1], antialias=true}\n"
     "  %g = resize %d {size=[7,13], antialias=true}\n  return %a, %b, %c, %e, %f, %g\n}\n"},
    {"pictures are blurred",
     "graph @s(%x: f32[2,3,20,33], %p_s: f32[2], %y: f32[3,5,6], %r: f32[3], %v: f32[2,9,3,7,8], "
     "%z: bf16[2,9,8], %pz: bf16[2], %d: f64[2,9,8], %pd: f64[2]) {\n"
     "  %a = gaussian_blur %x, %p_s {size=7}\n  %b = gaussian_blur %y, %r {size=3}\n"
     "  %w = relu %v\n  %c = gaussian_blur %w, %p_s {size=5}\n  %e = tanh %c\n"
     "  %f = gaussian_blur %z, %pz {size=3}\n  %g = gaussian_blur %d, %pd {size=3}\n"
     "  %h = gaussian_blur %x, %p_s {size=1}\n  return %a, %b, %e, %f, %g, %h\n}\n"},
    {"tiles of pictures are blurred",
     "graph @s(%x: f32[2,2,70,40], %s: f32[2], %y: bf16[1,1,2,100,18], %t: f64[1,100,18], "
     "%z: f32[1,50,51], %p_o: f32[1], %p_d: f64[1], %p_h: bf16[1]) {\n"
     "  %a = gaussian_blur %x, %s {size=3}\n  %b = gaussian_blur %y, %p_h {size=35}\n"
     "  %c = gaussian_blur %t, %p_d {size=33}\n  %d = gaussian_blur %z, %p_o {size=97}\n"
     "  %e = gaussian_blur %z, %p_o {size=99}\n  return %a, %b, %c, %d, %e\n}\n"},
    {"pictures with what surrounds them",
     "graph @s(%x: f32[2,3,20,40], %p_s: f32[2], %r: f32[2,3,9,33], %c: f32[3]) {\n"
     "  region @r {\n    %b = broadcast %c {shape=[2,3,20,40], axes=[1]}\n    %a = mul %x, %b\n"
     "    %o = resize %a {size=[9,33], antialias=true}\n    %y = sub %o, %r\n  }\n"
     "  region @q {\n    %e = tanh %x\n    %t = affine %p_s {scale=2}\n"
     "    %u = gaussian_blur %e, %t {size=5}\n    %v = sub %u, %x\n"
     "    %m = sum %u {axes=[0,2,3]}\n  }\n  region @i {\n    %g = exp %x\n"
     "    %n = neg %g\n    %f = crop %n {top=3, left=5, h=9, w=33}\n  }\n"
     "  return %o, %y, %a, %v, %m, %f\n}\n"},
};

// --- all of them, and the op table's own

static bool table_sample(int i, md_text *to, char name[64]) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    md_role role = md_ops[op].role;
    if (role == MD_META || role == MD_LEAF) continue;
    int num_out = MD_MAX(md_op_num_out((md_op)op), 1), num = 0;
    if (op == MD_OP_moments || op == MD_OP_max_pool3d) num_out = 2;
    while (num < MD_ROW_SAMPLES && md_ops[op].samples[num]) num++;
    if (i < num) {
      snprintf(name, 64, "%s, sample %d of the op table", md_ops[op].name, i);
      return sample_text((md_op)op, i, num_out, to);
    }
    i -= num;
  }
  return false;
}

static void push_sample(int i, md_text *to, char name[64]) {
  put_push(pushed[i], to);
  snprintf(name, 64, "%d rows into a ring of 11", pushed[i]);
}

static void pool_sample(int i, md_text *to, char name[64]) {
  put_pool(&pools[i], to);
  snprintf(name, 64, "pools of %s %s, %d channels", pools[i].type, pools[i].window,
           pools[i].channels);
}

static void matrix_sample(int i, md_text *to, char name[64]) {
  put_matrix(&matrices[i], to);
  snprintf(name, 64, "product %d x %d over %d of %s", matrices[i].m, matrices[i].n,
           matrices[i].inner, matrices[i].type);
}

static void row_sample(int i, md_text *to, char name[64]) {
  put_rows(&rows[i], to);
  snprintf(name, 64, "rows %d x %d of %s", rows[i].num, rows[i].len, rows[i].type);
}

static void surrounded_sample(int i, md_text *to, char name[64]) {
  put_surrounded(i, to);
  snprintf(name, 64, "what surrounds %s", surrounded[i]);
}

bool simt_op_sample(int i, md_text *to, char name[64]) {
  static const struct {
    int num;
    const Written *written;  // or
    void (*put)(int i, md_text *to, char name[64]);
  } families[] = {
      {MD_COUNT(moves), moves, NULL},
      {MD_COUNT(pushed), NULL, push_sample},
      {MD_COUNT(pools), NULL, pool_sample},
      {MD_COUNT(pools_written), pools_written, NULL},
      {MD_COUNT(matrices), NULL, matrix_sample},
      {MD_COUNT(matrices_written), matrices_written, NULL},
      {MD_COUNT(rows), NULL, row_sample},
      {MD_COUNT(surrounded), NULL, surrounded_sample},
      {MD_COUNT(rows_written), rows_written, NULL},
      {MD_COUNT(pictures), pictures, NULL},
  };
  for (int f = 0; f < MD_COUNT(families); f++) {
    const Written *w = families[f].written;
    if (i >= families[f].num) {
      i -= families[f].num;
      continue;
    }
    if (w) {
      md_put(to, "%s", w[i].text);
      snprintf(name, 64, "%s", w[i].name);
    } else {
      families[f].put(i, to, name);
    }
    return true;
  }
  return table_sample(i, to, name);
}
