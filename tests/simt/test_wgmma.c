// SPDX-License-Identifier: Apache-2.0
// A convolution with wgmma as it is generated, with each line taken out or changed that keeps its warps
// in step: the checker must say so. And as one block that makes all tiles, which must change nothing.
//   test_wgmma [letters of kernels]
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

// Two taps and more: the source is copied; 11 steps.
static const char copied[] =
    "graph @s(%x: f32[3,5,1,9,11], %w0: f32[72,5,1,1,1], %w: f32[136,72,1,3,3], %g: f32[72], "
    "%p_b: f32[72]) {\n"
    "  %x1 = cast %x {to=bf16}\n  %w1 = cast %w0 {to=bf16}\n  %w2 = cast %w {to=bf16}\n"
    "  %a = conv3d %x1, %w1\n  %a1 = cast %a {to=f32}\n  %m, %v = moments %a1 {groups=1}\n"
    "  %n = batch_norm %a1, %g, %p_b, %m, %v {batch_stats=true}\n  %r = relu %n\n"
    "  %r1 = cast %r {to=bf16}\n  %y = conv3d %r1, %w2 {pad=[0,1,1]}\n  return %y\n}\n";

// One tap, of two tensors: it is made on the way; 9 steps.
static const char formed[] =
    "graph @s(%x: f32[3,5,1,9,11], %w0: f32[520,5,1,1,1], %w3: f32[520,5,1,1,1], "
    "%w: f32[128,520,1,1,1], %g: f32[520], %p_b: f32[520]) {\n"
    "  %x1 = cast %x {to=bf16}\n  %w1 = cast %w0 {to=bf16}\n  %w2 = cast %w {to=bf16}\n"
    "  %w4 = cast %w3 {to=bf16}\n  %e = conv3d %x1, %w4\n  %e1 = cast %e {to=f32}\n"
    "  %a = conv3d %x1, %w1\n  %a1 = cast %a {to=f32}\n  %m, %v = moments %a1 {groups=1}\n"
    "  %n = batch_norm %a1, %g, %p_b, %m, %v {batch_stats=true}\n  %s = add %n, %e1\n"
    "  %r = relu %s\n  %r1 = cast %r {to=bf16}\n  %y = conv3d %r1, %w2\n  return %y\n}\n";

// Nine taps, of one tensor: it is formed in place, and stored at each pixel's own tap; 11 steps.
static const char in_place[] =
    "graph @s(%x: f32[3,5,1,9,11], %w0: f32[72,5,1,1,1], %w: f32[256,72,1,3,3], %g: f32[72], "
    "%p_b: f32[72]) {\n"
    "  %x1 = cast %x {to=bf16}\n  %w1 = cast %w0 {to=bf16}\n  %w2 = cast %w {to=bf16}\n"
    "  %a = conv3d %x1, %w1\n  %a1 = cast %a {to=f32}\n  %m, %v = moments %a1 {groups=1}\n"
    "  %n = batch_norm %a1, %g, %p_b, %m, %v {batch_stats=true}\n  %r = relu %n\n"
    "  %r1 = cast %r {to=bf16}\n  %y = conv3d %r1, %w2 {pad=[0,1,1]}\n"
    "  %dw = conv3d_wgrad %y, %r1 {shape=[256,72,1,1,1]}\n  return %y, %dw\n}\n";

// Nine taps of one that lies in memory: TMA copies it; 9 steps.
static const char windows[] =
    "graph @s(%x: bf16[5,8,1,9,11], %w0: bf16[64,8,1,1,1], %w: bf16[136,64,1,3,3]) {\n"
    "  region @a {\n    %a = conv3d %x, %w0\n  }\n"
    "  region @y {\n    %y = conv3d %a, %w {pad=[0,1,1], stride=[1,2,1]}\n  }\n"
    "  return %y\n}\n";

// Two operands in memory, across; 19 steps in parts.
static const char weights[] =
    "graph @s(%x: bf16[1,8,1,33,35], %u: bf16[1,8,1,33,35], %w0: bf16[72,8,1,1,1], "
    "%w1: bf16[136,8,1,1,1]) {\n"
    "  region @a {\n    %a = conv3d %x, %w0\n  }\n  region @d {\n    %d = conv3d %u, %w1\n  }\n"
    "  region @w {\n    %dw = conv3d_wgrad %d, %a {pad=[0,1,1], shape=[136,72,1,3,3]}\n  }\n"
    "  return %dw\n}\n";

// The same of 64 channels: TMA copies panels of both.
static const char panels[] =
    "graph @s(%x: bf16[1,8,1,33,35], %u: bf16[1,8,1,33,35], %w0: bf16[64,8,1,1,1], "
    "%w1: bf16[136,8,1,1,1]) {\n"
    "  region @a {\n    %a = conv3d %x, %w0\n  }\n  region @d {\n    %d = conv3d %u, %w1\n  }\n"
    "  region @w {\n    %dw = conv3d_wgrad %d, %a {pad=[0,1,1], shape=[136,64,1,3,3]}\n  }\n"
    "  return %dw\n}\n";

// Both gradients of one tap, of 10 tiles: one panel of the source stays, two of dy pass; and the other way
// round.
static const char twins[] =
    "graph @s(%x: bf16[1,8,1,33,35], %u: bf16[1,8,1,33,35], %w0: bf16[64,8,1,1,1], "
    "%w1: bf16[128,8,1,1,1], %w: bf16[128,64,1,1,1]) {\n"
    "  %a = conv3d %x, %w0\n  %r = relu %a\n"
    "  %e = conv3d %u, %w1\n  %f = conv3d %x, %w1\n  %d = mul %e, %f\n"
    "  %dx = conv3d_dgrad %d, %w {shape=[1,64,1,33,35]}\n"
    "  %dw = conv3d_wgrad %d, %r {shape=[128,64,1,1,1]}\n  return %dx, %dw\n}\n";
static const char keeping[] =
    "graph @s(%x: bf16[1,8,1,33,35], %u: bf16[1,8,1,33,35], %w0: bf16[128,8,1,1,1], "
    "%w1: bf16[64,8,1,1,1], %w: bf16[64,128,1,1,1]) {\n"
    "  %a = conv3d %x, %w0\n  %r = relu %a\n"
    "  %e = conv3d %u, %w1\n  %f = conv3d %x, %w1\n  %d = mul %e, %f\n"
    "  %dx = conv3d_dgrad %d, %w {shape=[1,128,1,33,35]}\n"
    "  %dw = conv3d_wgrad %d, %r {shape=[64,128,1,1,1]}\n  return %dx, %dw\n}\n";

// Two products in turns: 4 blocks and 3.
static const char beside[] =
    "graph @s(%x: bf16[1,8,1,17,27], %u: bf16[1,8,1,17,27], %w0: bf16[64,8,1,1,1], "
    "%w1: bf16[128,8,1,1,1], %w: bf16[128,64,1,3,3]) {\n"
    "  %a = conv3d %x, %w0\n  %d = conv3d %u, %w1\n"
    "  %dx = conv3d_dgrad %d, %w {pad=[0,1,1], shape=[1,64,1,17,27]}\n"
    "  %dw = conv3d_wgrad %d, %a {pad=[0,1,1], shape=[128,64,1,3,3]}\n  return %dx, %dw\n}\n";

static const char one_block[] = "one block for all tiles";
static const struct Case {
  const char *
      of;  // kernels: copied, formed, in_place, weights, twins, keeping, beside, or windows, v: panels
  const char *what, *from, *to;
  const char *message[4];  // one of them; NULL: nothing is wrong
} cases[] = {
    {"cfiwtkbov", "as it is", "", "", {NULL}},
    {"cfitko", one_block, "", "", {NULL}},
    // barriers of stages
    {"cfitko", "no fence after their initialisation", "md_bar_fence();", "", {"was not fenced"}},
    {"cfwtkov",
     "producers begin with the other parity",
     "stage = 0, parity = 1;",
     "stage = 0, parity = 0;",
     {"deadlock"}},
    {"i",
     "producers begin with the other parity",
     "stage = 0, parity = 1, step",
     "stage = 0, parity = 0, step",
     {"deadlock"}},
    {"cfiwov",
     "consumers begin with the other parity",
     "stage = 0, parity = 0,",
     "stage = 0, parity = 1,",
     {"which nobody has written", "a copy of thread", "race: ", "deadlock"}},
    {"cfiwtkov",
     "no wait for an empty stage",
     "md_bar_wait(empty + stage, parity);",
     "",
     {"expects nobody", "race: ", "in flight"}},
    {"cfiwtkov",
     "no wait for a full stage",
     "md_bar_wait(full + stage, parity);",
     "",
     {"which nobody has written", "a copy of thread", "race: "}},
    {"cfiwtkov",
     "the parity stays",
     "parity ^= 1;",
     "parity ^= 0;",
     {"deadlock", "race: ", "in flight", "expects nobody"}},
    {"fitk",
     "every lane arrives",
     "if (md_lane() == 0) md_bar_arrive(full",
     "md_bar_arrive(full",
     {"expects nobody", "race: ", "without md_fence_async"}},
    {"cw", "nobody arrives", "md_cp_arrive(full + stage);", "", {"deadlock"}},
    {"cw",
     "threads arrive before their copies",
     "md_cp_arrive(full + stage);",
     "md_bar_arrive(full + stage);",
     {"a copy of thread", "which nobody has written", "race: "}},
    {"cw",
     "threads arrive twice",
     "md_cp_arrive(full + stage);",
     "md_cp_arrive(full + stage); md_cp_arrive(full + stage);",
     {"expects nobody", "a copy of thread", "race: "}},
    {"cw", "threads end before their copies", "md_cp_wait(0);", "", {"ends with a copy"}},
    {"f",
     "the weights are not expected",
     "md_bar_expect(full + stage, 16384);",
     "md_bar_arrive(full + stage);",
     {"into which a copy", "deadlock", "which nobody has written"}},
    {"i",
     "copies are not waited for",
     "md_cp_wait(1);",
     "",
     {"in flight", "a copy of thread", "which nobody has written"}},
    {"i",
     "the last copies are not waited for",
     "md_cp_wait(1);",
     "md_cp_wait(2);",
     {"in flight", "a copy of thread", "which nobody has written"}},
    {"i",
     "steps are not told apart",
     "md_cp_commit();",
     "",
     {"in flight", "a copy of thread", "which nobody has written"}},
    {"i",
     "the stage behind is formed",
     "int ready = 0,",
     "int ready = 1,",
     {"in flight", "a copy of thread", "race: "}},
    {"i",
     "zeros are formed",
     "is_in ? md_round_h8(v) : none",
     "md_round_h8(v)",
     {"by the interpreter"}},
    {"i",
     "zeros of another step",
     "inside >> (i + 4)",
     "inside >> (i + 0)",
     {"by the interpreter", "which nobody has written"}},
    {"i",
     "it is stored at another tap",
     "am1 == 1 &&",
     "am1 == 2 &&",
     {"by the interpreter", "which nobody has written"}},
    {"i",
     "tiles are stored in one place",
     "first += stride",
     "first += 0",
     {"by the interpreter", "which nobody has written"}},
    {"ci",
     "the weights are not expected",
     "md_bar_expect(full + stage, 32768);",
     "md_bar_arrive(full + stage);",
     {"into which a copy", "deadlock", "which nobody has written"}},
    {"ci",
     "too many bytes are expected",
     "md_bar_expect(full + stage, 32768);",
     "md_bar_expect(full + stage, 32784);",
     {"deadlock"}},
    {"tk",
     "consumers begin with the other parity",
     "stage = 0, parity = 0;",
     "stage = 0, parity = 1;",
     {"which nobody has written", "race: "}},
    {"tk",
     "the weights are not expected",
     "md_bar_expect(loaded, 16384);",
     "md_bar_arrive(loaded);",
     {"into which a copy", "deadlock", "which nobody has written"}},
    {"tk",
     "no wait for the weights",
     "md_bar_wait(loaded, 0);",
     "",
     {"a copy of thread", "which nobody has written", "race: "}},
    {"tk",
     "the panel that is kept is never free",
     "md_bar_arrive(empty + kept);",
     "(void)empty;",
     {"deadlock"}},
    {"tk", "a panel is never free", "md_bar_arrive(empty + two);", "(void)empty;", {"deadlock"}},
    {"tk",
     "a panel is free twice",
     "md_bar_arrive(empty + two);",
     "md_bar_arrive(empty + one);",
     {"expects nobody", "race: ", "deadlock"}},
    {"ov",
     "the source is not expected",
     "md_bar_expect(full + stage, 49152);",
     "md_bar_expect(full + stage, 32768);",
     {"deadlock", "which nobody has written", "race: ", "into which a copy"}},
    {"ov",
     "another thread brings the same",
     "if (md_thread() == 256) {",
     "if (md_thread() >= 256 && md_thread() < 258) {",
     {"expects nobody", "race: ", "into which a copy"}},
    {"ov", "a map is not acquired", "md_tmap_acquire(", "(void)(", {"without md_tmap_acquire"}},
    {"o", "a window begins elsewhere", "q1 * 2 - 1;", "q1 * 2;", {"where no window begins"}},
    {"o", "taps of another axis", "step % 3;", "step / 3 % 3;", {"by the interpreter"}},
    {"o", "windows of the tile before", "m0 / 11 % 5", "m0 / 11 % 4", {"by the interpreter"}},
    {"v",
     "a window begins elsewhere",
     "q1 - 1;",
     "q1;",
     {"where no window begins", "by the interpreter"}},
    {"v", "rows of another panel", "m0 + 64;", "m0;", {"by the interpreter"}},
    {"v", "columns of another panel", "n0 + 128;", "n0;", {"by the interpreter"}},
    {"v", "the part before", "begin + step", "step", {"by the interpreter"}},
    // operands
    {"tk", "both warpgroups take one panel", "half ? two : one", "one", {"by the interpreter"}},
    {"tk", "both warpgroups take the same pixels", " + half * 4096", "", {"by the interpreter"}},
    {"tk",
     "weights of another panel",
     " * 4096 + z * 16));",
     " * 0 + z * 16));",
     {"by the interpreter"}},
    {"tk",
     "rows of the next tile are those of this one",
     "m0 + stride + line",
     "m0 + line",
     {"by the interpreter"}},
    {"tk", "the next panel is this one", ": panel + 1;", ": panel;", {"by the interpreter"}},
    {"cfiwtk", "lines without a proxy fence", "md_fence_async();", "", {"without md_fence_async"}},
    {"cfiwtk",
     "a lane without a proxy fence",
     "md_fence_async();",
     "if (md_lane() != 3) md_fence_async();",
     {"without md_fence_async"}},
    {"fitk",
     "lanes do not wait for each other",
     "md_sync_warp();",
     "",
     {"race: ", "which nobody has written", "without md_fence_async"}},
    {"cfiwtk", "lines without swizzle", " ^ line % 8)", ")", {"by the interpreter"}},
    {"cio", "the wrong columns", "b + 8192 +", "b +", {"by the interpreter"}},
    {"w",
     "the columns' panels are elsewhere",
     "md_desc128t(b + 0 + z * 1024, 8192)",
     "md_desc128t(b + 0 + z * 1024, 4096)",
     {"by the interpreter"}},
    {"w",
     "both warpgroups take the same rows",
     " + md_warp() / 4 * 4096",
     "",
     {"by the interpreter"}},
    // launches side by side
    {"b", "the last block is the other's", "even > odd)", "even < odd)", {"conflict: "}},
    {"b", "blocks are not counted by turns", "md_block() / 2 :", "md_block() :", {"conflict: "}},
    // wgmma
    {"cfiwov",
     "a stage is freed while it is read",
     "md_bar_arrive(empty + before);",
     "md_bar_arrive(empty + stage);",
     {"which a wgmma in flight reads", "race: ", "deadlock"}},
    {"cfiwov",
     "a stage is freed without a wait",
     "md_wgmma_wait(1);",
     "",
     {"which a wgmma in flight reads", "race: "}},
    {"cfiwtkov",
     "sums are read in flight",
     "md_wgmma_wait(0);",
     "",
     {"accumulators of a wgmma in flight"}},
    {"cfiwtkov", "no fence before", "md_wgmma_fence();", "", {"without md_wgmma_fence"}},
    {"cfiwtkov",
     "nothing is committed",
     "md_wgmma_commit();",
     "",
     {"accumulators of a wgmma in flight", "which a wgmma in flight reads"}},
    // the tile of the result
    {"cfitko",
     "no barrier around the tile",
     "md_sync_part(1, 256);",
     "",
     {"race: ", "nobody has written"}},
};

// `from` -> `to` everywhere in the kernels from the one with wgmma on; NULL: it is not there.
static char *replaced(const char *text, const char *from, const char *to) {
  md_text t = {0};
  int num = 0;
  const char *first = strstr(text, "MD_KERNEL(512");
  if (first) md_put_bytes(&t, text, (size_t)(first - text)), text = first;
  for (const char *at; *from && (at = strstr(text, from)); text = at + strlen(from), num++) {
    md_put_bytes(&t, text, (size_t)(at - text));
    md_put(&t, "%s", to);
  }
  md_put(&t, "%s", text);
  if (num || !*from) return t.s;
  md_text_free(&t);
  return NULL;
}

static const char *run(Program *p, const char *text, simt_options o, md_text *why) {
  simt_code *code = simt_build(text);
  if (!code) return "it cannot be built";
  char **data = NULL;
  bool ok = run_program(p, code, o, &data, why) && program_check(p, data, why);
  free(data);
  simt_free_buffers();
  simt_code_free(code);
  return ok ? "a right result" : why->s;
}

static void change_counts(Program *p, md_cuda_launch *l, int64_t from, int64_t to) {
  int64_t *count = MD_NEW_ARRAY(p->m->arena, int64_t, l->num_counts);
  for (int i = 0; i < l->num_counts; i++) count[i] = l->count[i] == from ? to : l->count[i];
  l->count = count;
}

// The stride is the pixels that all blocks make at once. A gradient for weights has one part then.
static void take_one_block(Program *p, md_cuda_launch *l) {
  bool is_last = l + 1 == p->m->launch + p->m->num_launches;
  if (!is_last) change_counts(p, l + 1, l->blocks, 1);
  change_counts(p, l, l->blocks * 128, 128);
  l->blocks = 1;
}

static bool try(Program *p, const struct Case *c, const char *kernels) {
  static const simt_options modes[] = {{SIMT_RANDOM, 0}, {SIMT_RANDOM, 1}, {SIMT_FORWARD, 0}};
  char *text = replaced(kernels, c->from, c->to);
  bool ok = text != NULL;
  if (!text) printf("FAILED %s: '%s' is not in the text\n", c->what, c->from);
  for (int i = 0; ok && i < (c->message[0] ? 1 : MD_COUNT(modes)); i++) {
    md_text why = {0};
    const char *seen = run(p, text, modes[i], &why);
    ok = !c->message[0] && !strcmp(seen, "a right result");
    for (int j = 0; j < MD_COUNT(c->message); j++)
      ok |= c->message[j] && strstr(seen, c->message[j]);
    if (!ok) printf("FAILED %s, mode %d: %s\n", c->what, i, seen);
    md_text_free(&why);
  }
  free(text);
  return ok;
}

static md_cuda_launch *product_of(Program *p) {
  for (int i = 0; p && i < p->m->num_launches; i++)
    if (p->m->launch[i].threads > 256) return &p->m->launch[i];
  return NULL;
}

static int try_all(const char *graph, char which, int *passed, md_diags *d) {
  md_graph *g = md_parse_graph("sample", graph, strlen(graph), d);
  Program *p = g ? program_for((md_cuda_arch){90, 'a'}, g, 2, MD_F32, 1, d) : NULL;
  md_cuda_launch *product = product_of(p);
  int failed = !product;
  char *kernels = product ? run_text(p) : NULL;
  if (kernels && !strstr(kernels, "md_cp_arrive(full") != (strchr("fitkobv", which) != NULL)) {
    printf("FAILED: the source is not brought so\n");
    failed++;
  }
  if (kernels && !strstr(kernels, "md_bar_wait(loaded") != (strchr("cfiwbov", which) != NULL)) {
    printf("FAILED: both gradients are not made together\n");
    failed++;
  }
  if (kernels && !strstr(kernels, "int ready") != (which != 'i')) {
    printf("FAILED: the source is not formed in place, or another is\n");
    failed++;
  }
  if (kernels && !strstr(kernels, "md_tma_im2col(") != !strchr("bov", which)) {
    printf("FAILED: TMA does not copy the source, or another's\n");
    failed++;
  }
  for (int i = 0; product && i < MD_COUNT(cases); i++) {
    if (!strchr(cases[i].of, which)) continue;
    size_t bytes = sizeof *product * (size_t)p->m->num_launches;
    md_cuda_launch *was = md_alloc(p->m->arena, bytes);
    memcpy(was, p->m->launch, bytes);
    // What is wrong between two tiles is seen where a block makes several.
    bool both = strchr("itk", which) && cases[i].message[0];
    if (both || cases[i].what == one_block) take_one_block(p, product);
    bool ok = try(p, &cases[i], kernels);
    memcpy(p->m->launch, was, bytes);
    *passed += ok;
    failed += !ok;
  }
  if (!product) printf("FAILED: no kernel with wgmma\n%s", md_diags_text(d));
  free(kernels);
  program_destroy(p);
  return failed;
}

int main(int argc, char **argv) {
  static const struct {
    const char *graph;
    char which;
  } graphs[] = {{copied, 'c'},  {formed, 'f'}, {weights, 'w'}, {in_place, 'i'}, {twins, 't'},
                {keeping, 'k'}, {beside, 'b'}, {windows, 'o'}, {panels, 'v'}};
  md_diags *d = md_diags_create();
  int passed = 0, failed = 0;
  for (int i = 0; i < MD_COUNT(graphs); i++)
    if (argc < 2 || strchr(argv[1], graphs[i].which))
      failed += try_all(graphs[i].graph, graphs[i].which, &passed, d);
  md_diags_destroy(d);
  printf("%d passed, %d failed\n", passed, failed);
  return failed || !passed;
}
