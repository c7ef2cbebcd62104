// SPDX-License-Identifier: Apache-2.0
// Graphs for the ops that are neither pointwise nor views nor reductions: odd sizes, layouts of every
// kind between nodes, what stands before and behind, ties, NaN and infinities.
#include "tests/simt/samples.h"

#include <string.h>

#include "tests/samples.h"

// --- data movement

static const struct {
  const char *name, *text;
} written[] = {
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
    {"pieces of integers and bytes",
     "graph @s(%x: i64[5], %y: i64[2], %u: u8[5,3], %v: u8[5,4], %h: bf16[3,2]) {\n"
     "  %a = concat %x, %y {axis=0}\n  %b = concat %u, %v {axis=1}\n  %c = crop %b {top=1, left=2, "
     "h=3, w=4}\n  %d = pad %h {axis=1, before=1}\n  return %a, %b, %c, %d\n}\n"},
    {"pieces of channels, in blocks",
     "graph @s(%x: f32[2,7,2,5,4]) {\n  %a = relu %x\n  %b = concat %a, %x, %a {axis=1}\n"
     "  %c = pad %b {axis=1, before=3, after=1}\n  %d = pad %c {axis=3, before=1, after=2}\n"
     "  %e = crop %d {top=1, left=1, h=6, w=2}\n  %f = tanh %e\n  return %f\n}\n"},
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
    {7, "kernel=[1,5,3], stride=[1,3,2], pad=[0,4,2]", "bf16"},
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

static const struct {
  const char *name, *text;
} pools_written[] = {
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
    {"a pool whose places nobody asks for",
     "graph @s(%x: f32[1,2,1,5,5]) {\n  %y, %i = max_pool3d %x {kernel=[1,3,3], stride=[1,2,2]}\n"
     "  return %y\n}\n"},
};

// --- all of them, and the op table's own

static bool table_sample(int i, md_text *to, char name[64]) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    md_role role = md_ops[op].role;
    // An lse that is no smaller than the logits can only be made: the samples of InfoNCE do.
    if (role == MD_META || role == MD_LEAF || op == MD_OP_nce_lse_grad) continue;
    if (op == MD_OP_conv3d || op == MD_OP_conv3d_dgrad || op == MD_OP_conv3d_wgrad) continue;
    if (op == MD_OP_matmul || (op >= MD_OP_logsumexp && op <= MD_OP_topk_hit)) continue;
    if (op == MD_OP_resize || op == MD_OP_gaussian_blur || op == MD_OP_cast) continue;
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

bool simt_op_sample(int i, md_text *to, char name[64]) {
  if (i < MD_COUNT(written)) {
    md_put(to, "%s", written[i].text);
    snprintf(name, 64, "%s", written[i].name);
    return true;
  }
  i -= MD_COUNT(written);
  if (i < MD_COUNT(pushed)) {
    put_push(pushed[i], to);
    snprintf(name, 64, "%d rows into a ring of 11", pushed[i]);
    return true;
  }
  i -= MD_COUNT(pushed);
  if (i < MD_COUNT(pools)) {
    put_pool(&pools[i], to);
    snprintf(name, 64, "pools of %s %s, %d channels", pools[i].type, pools[i].window,
             pools[i].channels);
    return true;
  }
  i -= MD_COUNT(pools);
  if (i < MD_COUNT(pools_written)) {
    md_put(to, "%s", pools_written[i].text);
    snprintf(name, 64, "%s", pools_written[i].name);
    return true;
  }
  return table_sample(i - MD_COUNT(pools_written), to, name);
}
