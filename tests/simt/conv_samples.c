// SPDX-License-Identifier: Apache-2.0
// Graphs around convolutions: odd sizes and channel counts, strides, dilation, padding beyond the
// source, both element types, with what training puts before and behind them.
#include "tests/simt/samples.h"

typedef struct Sample {
  int n, c, o;
  int size[3], kernel[3], stride[3], pad[3], dilation[3];
} Sample;

static const Sample samples[] = {
    {2, 8, 16, {2, 6, 6}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {3, 3, 8, {2, 9, 11}, {3, 5, 5}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}},
    {2, 17, 65, {1, 5, 7}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    {2, 40, 24, {3, 4, 5}, {3, 1, 1}, {1, 1, 1}, {1, 0, 0}, {1, 1, 1}},
    {1, 7, 1, {5, 1, 1}, {2, 1, 1}, {2, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    {2, 24, 32, {2, 7, 9}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}},
    {2, 16, 8, {2, 7, 6}, {1, 1, 1}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1}},
    {1, 9, 12, {4, 8, 7}, {2, 3, 2}, {3, 2, 1}, {2, 3, 1}, {1, 2, 3}},
    {1, 4, 5, {1, 3, 2}, {1, 3, 3}, {1, 1, 1}, {0, 4, 5}, {1, 1, 1}},
    {2, 1, 4, {4, 9, 9}, {1, 7, 7}, {1, 2, 2}, {0, 3, 3}, {1, 1, 1}},
    {4, 64, 130, {2, 6, 6}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    // whose sums are added up in two rounds
    {3, 8, 8, {4, 19, 19}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    // from here on with wgmma, in bf16 alone: in f32 they have no line that those above have not
    // formed in place and stored by the first of two columns of tiles
    {2, 72, 264, {1, 5, 9}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {3, 72, 136, {1, 7, 9}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {2, 64, 65, {3, 7, 6}, {3, 3, 3}, {1, 2, 2}, {1, 1, 2}, {1, 1, 1}},
    {2, 264, 256, {1, 9, 11}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}},
    {1, 70, 64, {4, 3, 5}, {3, 1, 3}, {1, 1, 1}, {2, 0, 1}, {1, 1, 1}},
    {1, 128, 128, {1, 9, 9}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}},
    {1, 3, 64, {3, 12, 14}, {3, 5, 5}, {1, 2, 2}, {1, 2, 2}, {1, 1, 1}},
    {3, 64, 128, {3, 9, 8}, {2, 3, 3}, {1, 1, 3}, {1, 2, 2}, {1, 2, 1}},
};

enum {
  NUM_BOTH = 12,
  NUM_PLAIN = 7
};  // the first: in both types; the last: also with plain operands

// Only so: its gradient for weights is made in two parts, of more steps than there are stages.
static const Sample large = {1, 64, 65, {1, 33, 35}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};

static void put_dims(md_text *to, const char *name, const int d[3]) {
  md_put(to, "%s=[%d,%d,%d]", name, d[0], d[1], d[2]);
}

static void put_attrs(md_text *to, const Sample *s) {
  put_dims(to, "stride", s->stride);
  put_dims(to, ", pad", s->pad);
  put_dims(to, ", dilation", s->dilation);
}

static int out_size(const Sample *s, int a) {
  return (s->size[a] + 2 * s->pad[a] - s->dilation[a] * (s->kernel[a] - 1) - 1) / s->stride[a] + 1;
}

static void put_sizes(md_text *to, const int d[3]) { md_put(to, ",%d,%d,%d]", d[0], d[1], d[2]); }

static void put_shape(md_text *to, int a, int b, const int d[3]) {
  md_put(to, "[%d,%d", a, b);
  put_sizes(to, d);
}

// The attributes of a gradient, whose shape is that.
static void put_gradient(md_text *to, const Sample *s, int a, int b, const int d[3]) {
  put_attrs(to, s);
  md_put(to, ", shape=");
  put_shape(to, a, b, d);
}

// "cast" makes what follows bf16, and values in f32 of it again.
static void put_narrow(md_text *to, const char *from, const char *name, bool narrow) {
  md_put(to, "  %%%s = cast %%%s {to=%s}\n", name, from, narrow ? "bf16" : "f32");
}

// A 1x1x1 convolution, so that its result is an activation; batch norm and ReLU of that; the
// convolution; its moments. Then what goes back through all of it.
static void put_layer(md_text *to, const Sample *s, bool narrow, int groups) {
  int c = s->c, o = s->o;
  int out[3] = {out_size(s, 0), out_size(s, 1), out_size(s, 2)};
  md_put(to, "graph @s(%%x: f32[%d,%d", s->n, 5);
  put_sizes(to, s->size);
  md_put(to, ", %%w0: f32[%d,5,1,1,1], %%w: f32[%d,%d", c, o, c);
  put_sizes(to, s->kernel);
  md_put(to, ", %%g: f32[%d], %%b: f32[%d], %%e: f32[%d,%d", c, c, s->n, o);
  put_sizes(to, out);
  md_put(to, ") {\n");
  put_narrow(to, "x", "x1", narrow);
  put_narrow(to, "w0", "w1", narrow);
  put_narrow(to, "w", "w2", narrow);
  md_put(to, "  %%a = conv3d %%x1, %%w1\n");
  md_put(to, "  %%a1 = cast %%a {to=f32}\n  %%m, %%v = moments %%a1 {groups=%d}\n", groups);
  md_put(to, "  %%n = batch_norm %%a1, %%g, %%b, %%m, %%v {batch_stats=true}\n  %%r = relu %%n\n");
  put_narrow(to, "r", "r1", narrow);
  md_put(to, "  %%y = conv3d %%r1, %%w2 {");
  put_attrs(to, s);
  md_put(to, "}\n  %%y1 = cast %%y {to=f32}\n  %%my, %%vy = moments %%y1 {groups=%d}\n", groups);
  md_put(to, "  %%d = mul %%e, %%y1\n");
  put_narrow(to, "d", "d1", narrow);
  md_put(to, "  %%i = conv3d_dgrad %%d1, %%w2 {");
  put_gradient(to, s, s->n, c, s->size);
  md_put(to, "}\n  %%i1 = cast %%i {to=f32}\n  %%q = relu_grad %%i1, %%r\n");
  md_put(to, "  %%s0, %%s1 = batch_norm_sums %%q, %%a1, %%m, %%v\n");
  md_put(to, "  %%k = batch_norm_dx %%q, %%a1, %%g, %%m, %%v, %%s0, %%s1\n");
  put_narrow(to, "k", "k1", narrow);
  md_put(to, "  %%dw0 = conv3d_wgrad %%k1, %%x1 {shape=[%d,5,1,1,1]}\n", c);
  md_put(to, "  %%dw = conv3d_wgrad %%d1, %%r1 {");
  put_gradient(to, s, o, c, s->kernel);
  md_put(to, "}\n  return %%y1, %%my, %%vy, %%q, %%s0, %%s1, %%dw0, %%dw\n}\n");
}

// Operands that lie in memory as others left them: regions are drawn around each convolution.
static void put_plain(md_text *to, const Sample *s) {
  int out[3] = {out_size(s, 0), out_size(s, 1), out_size(s, 2)};
  md_put(to, "graph @plain(%%x: bf16[%d,8", s->n);
  put_sizes(to, s->size);
  md_put(to, ", %%u: bf16[%d,8", s->n);
  put_sizes(to, out);
  md_put(to, ", %%w0: bf16[%d,8,1,1,1], %%w1: bf16[%d,8,1,1,1], %%w: bf16[%d,%d", s->c, s->o, s->o,
         s->c);
  put_sizes(to, s->kernel);
  md_put(to, ") {\n  region @a {\n    %%a = conv3d %%x, %%w0\n  }\n"
             "  region @d {\n    %%d = conv3d %%u, %%w1\n  }\n"
             "  region @y {\n    %%y = conv3d %%a, %%w {");
  put_attrs(to, s);
  md_put(to, "}\n    %%y1 = cast %%y {to=f32}\n    %%m, %%v = moments %%y1 {groups=1}\n  }\n"
             "  region @i {\n    %%i = conv3d_dgrad %%d, %%w {");
  put_gradient(to, s, s->n, s->c, s->size);
  md_put(to, "}\n  }\n  region @w {\n    %%dw = conv3d_wgrad %%d, %%a {");
  put_gradient(to, s, s->o, s->c, s->kernel);
  md_put(to, "}\n  }\n  return %%y, %%m, %%v, %%i, %%dw\n}\n");
}

// Both gradients of a 1x1x1 convolution in bf16 in one region: what goes into them is made of two tensors, and
// with statistics the source of one; there are sums behind.
typedef struct Twins {
  int n, c, o, size[3], groups;  // groups 0: the source lies in memory, and nothing stands behind
} Twins;

static const Twins twins[] = {
    {3, 64, 256, {1, 9, 11}, 1}, {4, 64, 128, {2, 5, 7}, 2}, {1, 64, 128, {1, 9, 15}, 0},
    {3, 256, 64, {1, 9, 11}, 1}, {4, 128, 64, {2, 5, 7}, 2}, {1, 128, 64, {1, 9, 15}, 0},
};

static void put_statistics(md_text *to, const char *of, int groups) {
  md_put(to,
         "  %%m%s, %%v%s = moments %%%s1 {groups=%d}\n"
         "  %%n%s = batch_norm %%%s1, %%g%s, %%b%s, %%m%s, %%v%s {batch_stats=true}\n",
         of, of, of, groups, of, of, of, of, of, of);
}

static void put_twins(md_text *to, const Twins *s) {
  md_put(to, "graph @twins(%%x: bf16[%d,8", s->n);
  put_sizes(to, s->size);
  md_put(to, ", %%u: bf16[%d,8", s->n);
  put_sizes(to, s->size);
  md_put(to,
         ", %%w0: bf16[%d,8,1,1,1], %%w1: bf16[%d,8,1,1,1], %%w: bf16[%d,%d,1,1,1], %%ga: f32[%d], "
         "%%ba: f32[%d], %%ge: f32[%d], %%be: f32[%d]) {\n  %%a = conv3d %%x, %%w0\n",
         s->c, s->o, s->o, s->c, s->c, s->c, s->o, s->o);
  const char *source = s->groups ? "r1" : "a";
  if (s->groups) {
    put_narrow(to, "a", "a1", false);
    put_statistics(to, "a", s->groups);
    md_put(to, "  %%r = relu %%na\n");
    put_narrow(to, "r", "r1", true);
  }
  md_put(to, "  %%y = conv3d %%%s, %%w\n  %%e = conv3d %%u, %%w1\n", source);
  put_narrow(to, "y", "y1", false);
  put_narrow(to, "e", "e1", false);
  put_statistics(to, "e", MD_MAX(s->groups, 1));
  md_put(to, "  %%d = mul %%ne, %%y1\n");
  put_narrow(to, "d", "d1", true);
  md_put(to, "  %%i = conv3d_dgrad %%d1, %%w {shape=[%d,%d", s->n, s->c);
  put_sizes(to, s->size);
  md_put(to, "}\n");
  if (s->groups) {
    put_narrow(to, "i", "i1", false);
    md_put(to,
           "  %%q = relu_grad %%i1, %%r\n  %%s0, %%s1 = batch_norm_sums %%q, %%a1, %%ma, %%va\n");
  }
  md_put(to, "  %%dw = conv3d_wgrad %%d1, %%%s {shape=[%d,%d,1,1,1]}\n  return %s%%dw\n}\n", source,
         s->o, s->c, s->groups ? "%q, %s0, %s1, " : "%i, ");
}

// What is read beyond an operand's own terms is multiplied by 0, and only seen where it is infinite.
static void put_infinite(md_text *to, const Sample *s, bool narrow) {
  const char *type = narrow ? "bf16" : "f32";
  int out[3] = {out_size(s, 0), out_size(s, 1), out_size(s, 2)};
  md_put(to, "graph @inf(%%inf_x: %s", type);
  put_shape(to, s->n, s->c, s->size);
  md_put(to, ", %%inf_dy: %s", type);
  put_shape(to, s->n, s->o, out);
  md_put(to, ", %%p_dy: %s", type);
  put_shape(to, s->n, s->o, out);
  md_put(to, ", %%p_w: %s", type);
  put_shape(to, s->o, s->c, s->kernel);
  md_put(to, ") {\n  %%y = conv3d %%inf_x, %%p_w {");
  put_attrs(to, s);
  md_put(to, "}\n  %%dx = conv3d_dgrad %%inf_dy, %%p_w {");
  put_gradient(to, s, s->n, s->c, s->size);
  md_put(to, "}\n  %%dw = conv3d_wgrad %%p_dy, %%inf_x {");
  put_gradient(to, s, s->o, s->c, s->kernel);
  md_put(to, "}\n  return %%y, %%dx, %%dw\n}\n");
}

static const int infinite[] = {0, 1, 2, 7};  // of the samples

// Regions as they are drawn, and groups of samples that differ: what one kernel cannot make.
static const struct {
  const char *name, *text;
} written[] = {
    {"groups of samples before, none behind",
     "graph @mix(%x: f32[4,8,1,8,8], %w0: f32[8,8,1,1,1], %w: f32[16,8,1,3,3], %g: f32[8], %b: "
     "f32[8]) {\n"
     "  %a = conv3d %x, %w0\n"
     "  %m, %v = moments %a {groups=2}\n"
     "  %n = batch_norm %a, %g, %b, %m, %v {batch_stats=true}\n"
     "  %r = relu %n\n"
     "  %y = conv3d %r, %w {pad=[0,1,1]}\n"
     "  %my, %vy = moments %y {groups=1}\n"
     "  return %y, %my, %vy\n"
     "}\n"},
    {"sums by one group and by two", "graph @two(%x: f32[4,8,1,8,8], %w: f32[16,8,1,3,3]) {\n"
                                     "  %y = conv3d %x, %w {pad=[0,1,1]}\n"
                                     "  %m1, %v1 = moments %y {groups=1}\n"
                                     "  %m2, %v2 = moments %y {groups=2}\n"
                                     "  return %m1, %v1, %m2, %v2\n"
                                     "}\n"},
    {"a result over what another walk reads",
     "graph @alias(%x: f32[2,8,2,4,4], %w0: f32[8,8,1,1,1], %w: f32[8,8,1,3,3]) {\n"
     "  region @s1 {\n    %a = conv3d %x, %w0\n  }\n"
     "  region @r {\n"
     "    %y = conv3d %x, %w {pad=[0,1,1]}\n"
     "    %z = add %y, %a\n"
     "    %q = relu %a\n"
     "  }\n"
     "  region @s2 {\n    %o = conv3d %q, %w0\n  }\n"
     "  region @s3 {\n    %p = conv3d %z, %w0\n  }\n"
     "  return %o, %p\n"
     "}\n"},
    {"a source that is wanted, a result that is not",
     "graph @dead(%x: f32[2,8,2,4,4], %w0: f32[8,8,1,1,1]) {\n"
     "  region @s1 {\n    %a = conv3d %x, %w0\n  }\n"
     "  region @r {\n"
     "    %q = relu %a\n"
     "    %y = conv3d %q, %w0\n"
     "  }\n"
     "  region @s2 {\n    %o = conv3d %q, %w0\n  }\n"
     "  return %o\n"
     "}\n"},
    {"a source that is stored at a tap of several",
     "graph @tap(%x: f32[2,8,3,4,4], %w0: f32[8,8,1,1,1], %w: f32[130,8,3,3,3], %w1: "
     "f32[8,8,1,3,1], %w2: f32[8,8,2,1,1]) {\n"
     "  region @s1 {\n    %a = conv3d %x, %w0\n  }\n"
     "  region @r {\n    %q = relu %a\n    %y = conv3d %q, %w {pad=[1,1,1]}\n  }\n"
     "  region @r1 {\n    %q1 = affine %q {shift=1}\n"
     "    %y1 = conv3d %q1, %w1 {pad=[0,2,0], dilation=[1,2,1]}\n  }\n"
     "  region @r2 {\n    %q2 = affine %q1 {scale=2}\n"
     "    %y2 = conv3d %q2, %w2 {pad=[1,0,0], dilation=[2,1,1]}\n  }\n"
     "  region @s2 {\n    %o = conv3d %q2, %w0\n  }\n"
     "  return %y, %y1, %y2, %o\n"
     "}\n"},
    {"many channels stored at a tap of several",
     "graph @tap(%x: bf16[1,128,3,5,5], %w0: bf16[128,128,1,1,1], %w: bf16[128,128,3,1,1]) {\n"
     "  region @s1 {\n    %a = conv3d %x, %w0\n  }\n"
     "  region @r {\n    %q = relu %a\n    %y = conv3d %q, %w {pad=[1,0,0]}\n  }\n"
     "  region @s2 {\n    %o = conv3d %q, %w0\n  }\n"
     "  return %y, %o\n"
     "}\n"},
    {"a flipped source",
     "graph @flip(%x: f32[2,8,2,4,4], %w0: f32[8,8,1,1,1], %w: f32[8,8,1,3,3]) {\n"
     "  region @s1 {\n    %a = conv3d %x, %w0\n  }\n"
     "  region @r {\n"
     "    %f = flip %a {axis=4}\n"
     "    %y = conv3d %f, %w {pad=[0,1,1]}\n"
     "  }\n"
     "  return %y\n"
     "}\n"},
    {"sums of what other sums decide",
     "graph @bns(%x: f32[2,8,2,4,4], %e: f32[2,8,2,4,4], %w: f32[8,8,1,3,3]) {\n"
     "  region @r {\n"
     "    %y = conv3d %x, %w {pad=[0,1,1]}\n"
     "    %m, %v = moments %y {groups=1}\n"
     "    %d = mul %y, %e\n"
     "    %s0, %s1 = batch_norm_sums %d, %y, %m, %v\n"
     "  }\n"
     "  return %s0, %s1\n"
     "}\n"},
    {"sums beside a convolution", "graph @red(%x: f32[2,8,2,4,4], %w0: f32[8,8,1,1,1], %w: "
                                  "f32[8,8,1,3,3], %g: f32[8], %b: f32[8]) {\n"
                                  "  region @s1 {\n    %a = conv3d %x, %w0\n  }\n"
                                  "  region @r {\n"
                                  "    %m, %v = moments %a {groups=1}\n"
                                  "    %y = conv3d %x, %w {pad=[0,1,1]}\n"
                                  "    %n = batch_norm %y, %g, %b, %m, %v {batch_stats=false}\n"
                                  "  }\n"
                                  "  return %n\n"
                                  "}\n"},
    {"a stride far beyond the result",
     "graph @stride(%dy: f32[1,8,1,1,1], %w: f32[8,8,1,1,1]) {\n"
     "  %y = conv3d_dgrad %dy, %w {stride=[20000,20000,1], shape=[1,8,1,1,1]}\n"
     "  return %y\n"
     "}\n"},
};

// Values that are read twice, one behind the other: as many ways through them as 2^20.
static void put_diamonds(md_text *to) {
  md_put(to, "graph @s(%%x: f32[2,8,1,3,3], %%w: f32[8,8,1,1,1]) {\n  %%y0 = conv3d %%x, %%w\n");
  for (int i = 0; i < 20; i++) md_put(to, "  %%y%d = add %%y%d, %%y%d\n", i + 1, i, i);
  md_put(to, "  return %%y20\n}\n");
}

// Four groups of so many channels that their table does not fit into shared memory.
static void put_large_table(md_text *to) {
  md_put(to, "graph @s(%%x: f32[4,2,1,1,1], %%w0: f32[2048,2,1,1,1], %%w: f32[8,2048,1,1,1], "
             "%%g: f32[2048], %%b: f32[2048], %%e: f32[4,8,1,1,1]) {\n"
             "  %%a = conv3d %%x, %%w0\n  %%m, %%v = moments %%x {groups=4}\n"
             "  %%m1 = broadcast %%m {shape=[4,2,1024], axes=[0,1]}\n"
             "  %%v1 = broadcast %%v {shape=[4,2,1024], axes=[0,1]}\n"
             "  %%m2 = reshape %%m1 {shape=[4,2048]}\n  %%v2 = reshape %%v1 {shape=[4,2048]}\n"
             "  %%n = batch_norm %%a, %%g, %%b, %%m2, %%v2 {batch_stats=false}\n  %%r = relu %%n\n"
             "  %%y = conv3d %%r, %%w\n"
             "  %%dw = conv3d_wgrad %%e, %%r {shape=[8,2048,1,1,1]}\n  return %%y, %%dw\n}\n");
}

static const struct {
  const char *name;
  void (*put)(md_text *to);
} made[] = {{"diamonds", put_diamonds}, {"a large table", put_large_table}};

static void layer_sample(int i, md_text *to, char name[64]) {
  int at = i < 2 * NUM_BOTH ? i / 2 : i - NUM_BOTH;
  bool narrow = i < 2 * NUM_BOTH ? i % 2 : true;
  const Sample *s = &samples[at];
  snprintf(name, 64, "convolution %d, %d to %d channels, %s", at, s->c, s->o,
           narrow ? "bf16" : "f32");
  put_layer(to, s, narrow, s->n % 2 == 0 ? 2 : 1);
}

static void plain_sample(int i, md_text *to, char name[64]) {
  const Sample *s = i < NUM_PLAIN ? &samples[MD_COUNT(samples) - NUM_PLAIN + i] : &large;
  snprintf(name, 64, "convolution of plain operands, %d to %d channels", s->c, s->o);
  put_plain(to, s);
}

static void twins_sample(int i, md_text *to, char name[64]) {
  put_twins(to, &twins[i]);
  snprintf(name, 64, "both gradients, %d to %d channels", twins[i].c, twins[i].o);
}

static void infinite_sample(int i, md_text *to, char name[64]) {
  const Sample *s = &samples[infinite[i / 2]];
  snprintf(name, 64, "convolution of infinities, %d to %d channels, %s", s->c, s->o,
           i % 2 ? "bf16" : "f32");
  put_infinite(to, s, i % 2);
}

static void written_sample(int i, md_text *to, char name[64]) {
  md_put(to, "%s", written[i].text);
  snprintf(name, 64, "convolution and %s", written[i].name);
}

static void made_sample(int i, md_text *to, char name[64]) {
  made[i].put(to);
  snprintf(name, 64, "convolution and %s", made[i].name);
}

bool simt_conv_sample(int i, md_text *to, char name[64]) {
  static const struct {
    int num;
    void (*put)(int i, md_text *to, char name[64]);
  } families[] = {{NUM_BOTH + MD_COUNT(samples), layer_sample},
                  {NUM_PLAIN + 1, plain_sample},
                  {MD_COUNT(twins), twins_sample},
                  {2 * MD_COUNT(infinite), infinite_sample},
                  {MD_COUNT(written), written_sample},
                  {MD_COUNT(made), made_sample}};
  for (int f = 0; f < MD_COUNT(families); i -= families[f++].num) {
    if (i >= families[f].num) continue;
    families[f].put(i, to, name);
    return true;
  }
  return false;
}
