// SPDX-License-Identifier: Apache-2.0
// What was compiled for one batch runs another: of each kind of kernel that is no convolution (those are in
// test_conv) the texts are equal, and give what the interpreter says. The batches of a pair divide their work
// in the same way: a few samples are added up by a thread, many by a block.
#include "tests/simt/run.h"

#include <stdlib.h>
#include <string.h>

typedef struct Sample {
  const char *name, *text;  // $: samples, $2: twice as many, $/: one over them
  int pairs;  // of batches; what is added up by parts is divided in another way by others
} Sample;

static const Sample samples[] = {
    {"walks",
     "graph @s(%x: f32[$,37], %l: f32[$], %y: f32[$,5,16], %u: u8[$,3,5,24], %i: i32[$]) {\n"
     "  %a = affine %x {scale=$/}\n  %b = exp %l\n  %c = affine %b {scale=$}\n"
     "  %d = concat %x, %a {axis=0}\n  %e = slice %d {axis=0, start=$, size=$}\n"
     "  %f = transpose %y {axes=[0,2,1]}\n  %g = tanh %f\n  %h = cast %u {to=f32}\n"
     "  %j = affine %h {scale=0.00392156862745098, shift=-0.5}\n"
     "  %k = scatter_rows %x, %i {rows=7}\n  %n = neg %e\n  %o = relu %k\n"
     "  return %c, %n, %g, %j, %o\n}\n",
     3},
    {"sums",
     "graph @s(%x: f32[$,37], %u: f32[$,6], %z: f32[$,12,16,24], %w: f32[$,8200], "
     "%c: f32[$,3,1,7,5]) {\n"
     "  %a = sum %x {axes=[1]}\n  %b = sum %x {axes=[0]}\n  %d = sum %u {axes=[1]}\n"
     "  %e = max %u {axes=[0]}\n  %f = sum %z\n  %g = sum %z {axes=[0,2,3]}\n"
     "  %h = sum %w {axes=[1]}\n  %m, %v = moments %c {groups=1}\n"
     "  %o, %p = moments %c {groups=2}\n  %q = exp %c\n  %r, %t = moments %q {groups=2}\n"
     "  return %a, %b, %d, %e, %f, %g, %h, %m, %v, %o, %p, %r, %t\n}\n",
     2},
    {"rows",
     "graph @s(%x: f32[$,37], %y: f32[$,1037], %dy: f32[$,37], %dl: f32[$], %r37_k: i32[$]) {\n"
     "  %a = logsumexp %x\n  %b = softmax %y\n  %c = cross_entropy %x, %r37_k\n"
     "  %d = cross_entropy_grad %dl, %x, %r37_k\n  %e = l2_normalize %y\n"
     "  %f = l2_normalize_grad %dy, %x\n  %g = argmax %x\n  %h = topk_hit %x, %r37_k {k=3}\n"
     "  return %a, %b, %c, %d, %e, %f, %g, %h\n}\n",
     3},
    {"products",
     "graph @s(%x: f32[$,300], %y: f32[300,21], %yt: f32[70,300], %dz: f32[$,70]) {\n"
     "  %a = matmul %x, %y\n  %b = matmul %x, %yt {ty=true}\n  %c = matmul %dz, %x {tx=true}\n"
     "  %d = relu %a\n  return %d, %b, %c\n}\n",
     3},
    {"contrast",
     "graph @s(%n_q: f32[$,40], %k_ids: i32[$], %n_keys: f32[$2,40], %e_rows: i32[$2]) {\n"
     "  %bank = state @bank {init=normal, b=1} : f32[333,40]\n"
     "  %bank_ids = state @ids : i32[333]\n  %ptr = state @ptr {init=fill, a=-2} : i32[1]\n"
     "  %other = state @other {init=normal, b=1} : f32[311,40]\n"
     "  %a, %ta, %ma = nce_lse %n_q, %k_ids, %bank, %bank_ids {tau=0.1}\n"
     "  %b, %tb, %mb = nce_lse %n_q, %k_ids, %n_keys, %e_rows {tau=0.5}\n"
     "  %c = bank_push %bank, %n_q, %ptr\n  %d = bank_push %bank_ids, %k_ids, %ptr\n"
     "  %p = ring_next %ptr {push=$, size=333}\n  %o = bank_push %other, %n_q, %ptr\n"
     "  update @other = %o\n  update @bank = %c\n  update @ids = %d\n  update @ptr = %p\n"
     "  return %a, %ma, %tb, %mb, old=%other\n}\n",
     3},
    {"pictures",
     "graph @s(%x: f32[$,3,12,17], %p_s: f32[$], %c: f32[$,3,2,6,9]) {\n"
     "  %a = resize %x {size=[7,20]}\n  %b = resize %x {size=[9,8], antialias=true}\n"
     "  %d = gaussian_blur %x, %p_s {size=3}\n"
     "  %e, %i = max_pool3d %c {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}\n"
     "  %f = pad %x {axis=3, before=1}\n  return %a, %b, %d, %e, %f\n}\n",
     3},
};

// The graph's text for so many samples.
static char *text_of(const char *form, int num) {
  md_text t = {0};
  for (const char *s = form; *s; s++) {
    bool twice = s[0] == '$' && s[1] == '2', per = s[0] == '$' && s[1] == '/';
    if (*s != '$') md_put(&t, "%c", *s);
    else if (per) md_put(&t, "%.17g", 1.0 / num);
    else md_put(&t, "%d", twice ? 2 * num : num);
    s += twice || per;
  }
  return t.s;
}

static Program *of_batch(const Sample *s, int num, int level, md_diags *d) {
  char *text = text_of(s->text, num);
  Program *p = program_create(text, level, 1, d);
  free(text);
  return p;
}

static int num_others(const Program *a, const Program *b, md_text *to) {
  int num = 0;
  for (int i = 0; i < b->m->num_kernels; i++) {
    bool is_there = false;
    for (int j = 0; j < a->m->num_kernels; j++)
      is_there |= !strcmp(a->m->kernel[j].text, b->m->kernel[i].text);
    if (!is_there) md_put(to, "%s", b->m->kernel[i].text);
    num += !is_there;
  }
  return num;
}

static bool is_right(const Program *p, md_text *why) {
  char **data = NULL;
  bool ok = run_build(p) && run_program(p, NULL, (simt_options){SIMT_RANDOM, 1}, &data, why) &&
            program_check(p, data, why);
  simt_free_buffers();
  free(data);
  return ok;
}

static int try(const Sample *s, int level, int first, int second, int *kernels) {
  md_diags *d = md_diags_create();
  md_text why = {0};
  Program *a = of_batch(s, first, level, d), *b = of_batch(s, second, level, d);
  bool ok = a && b && !a->m->num_refused;
  if (!ok) md_put(&why, "%s", md_diags_text(d));
  if (ok) ok = !num_others(a, b, &why) && !num_others(b, a, &why);
  if (ok) ok = is_right(a, &why) && is_right(b, &why);
  if (ok) *kernels += a->m->num_kernels;
  else
    printf("FAILED %s, level %d, batches of %d and %d: %s\n", s->name, level, first, second,
           why.s ? why.s : "");
  program_destroy(a);
  program_destroy(b);
  md_text_free(&why);
  md_diags_destroy(d);
  return !ok;
}

int main(void) {
  static const int batches[][2] = {{40, 48}, {8, 16}, {200, 264}};
  int failed = 0, kernels = 0;
  for (int i = 0; i < MD_COUNT(samples); i++)
    for (int k = 0; k < samples[i].pairs; k++)
      for (int level = 0; level <= 2; level += 2)
        failed += try(&samples[i], level, batches[k][0], batches[k][1], &kernels);
  simt_forget();
  printf("%d kernels of two batches each, %d failed\n", kernels, failed);
  return failed || !kernels;
}
