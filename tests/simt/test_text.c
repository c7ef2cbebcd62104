// SPDX-License-Identifier: Apache-2.0
// What the CUDA text is, whatever it computes: the same each time, free of what a user wrote but for
// comments, one kernel for equal regions; and what is said where there is no kernel.
#include "codegen/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static int failed;

static void check(bool ok, const char *claim, const char *seen) {
  if (!ok) printf("FAILED %s\n%s\n", claim, seen ? seen : "");
  failed += !ok;
}

static md_graph *graph_of(const char *text, int level, md_diags *d) {
  md_pass_options o = md_pass_defaults();
  o.level = level;
  md_graph *g = md_parse_graph("text", text, strlen(text), d);
  return g && md_cuda_facts("cuda:sm_80", &o.facts, d) ? md_run_passes(g, &o, NULL, d) : NULL;
}

static char *text_of(const char *text, int level, int *num_kernels) {
  md_diags *d = md_diags_create();
  md_graph *g = graph_of(text, level, d);
  md_cuda_module *m =
      g ? md_cuda_generate(g, (md_cuda_arch){80, 0}, &(md_cuda_how){.is_apart = true}, d) : NULL;
  char *s = m ? strdup(m->text.s) : strdup(md_diags_text(d));
  *num_kernels = m ? m->num_kernels : -1;
  md_cuda_module_free(m);
  if (g) md_graph_destroy(g);
  md_diags_destroy(d);
  return s;
}

static void without_comments(char *s) {
  char *to = s;
  for (; *s; s++) {
    if (s[0] == '/' && s[1] == '/') s += strcspn(s, "\n");
    *to++ = *s;
    if (!*s) return;
  }
  *to = '\0';
}

static void names_stay_in_comments(void) {
  static const char text[] =
      "graph @evil(%asm: f32[7], %__global__: f32[7]) {\n  %return.x = add %asm, %__global__\n"
      "  %while$-2 = relu %return.x\n  return %while$-2\n}\n";
  int num;
  char *s = text_of(text, 2, &num), *again = text_of(text, 2, &num);
  check(num == 1 && !strcmp(s, again), "the text is the same each time", s);
  check(strstr(s, "%while$-2") != NULL, "comments name the nodes", s);
  without_comments(s);
  check(!strstr(s, "asm") && !strstr(s, "__global__") && !strstr(s, "while") &&
            !strstr(s, "%return"),
        "what a user named stays in comments", s);
  check(!strchr(s, '#') && !strstr(s, "include"), "the text needs no header", s);
  free(s);
  free(again);
}

static void equal_regions_share(void) {
  int num;
  char *s = text_of("graph @s(%x: f32[9], %y: f32[9], %z: f32[8]) {\n  %a = exp %x\n  %b = exp %y\n"
                    "  %c = exp %z\n  return %a, %b, %c\n}\n",
                    0, &num);
  check(num == 2, "equal regions share a kernel, others do not", s);
  free(s);
}

// A layer's step with so many samples.
static int occurrences(const char *s, const char *what) {
  int num = 0;
  while ((s = strstr(s, what))) {
    s += strlen(what);
    num++;
  }
  return num;
}

// A thread takes eight places with their three channels: each is loaded and made once, though the sum reads two of
// them and the result all. What stands mirrored is loaded as it lies.
static void channels_are_made_once(void) {
  static const char sum[] =
      "graph @sum(%x: u8[2,3,4,16,64], %u: u8[2]) {\n"
      "  %a = cast %x {to=f32}\n  %m = flip %a {axis=4}\n  %k = flip_select %a, %m, %u\n"
      "  %y = exp %k\n  %r = slice %y {axis=1}\n  %g = slice %y {axis=1, start=1}\n"
      "  %d = sub %r, %g\n  %s = sum %d {axes=[1,2,3,4]}\n  return %y, %s\n}\n";
  static const char all[] =
      "graph @all(%x: f32[2,3,4,16,64]) {\n"
      "  %y = exp %x\n  %r = slice %y {axis=1}\n  %n = neg %r\n"
      "  %b = broadcast %n {shape=[2,3,4,16,64], axes=[0,1,2,3,4]}\n  %z = add %y, %b\n"
      "  return %z\n}\n";
  static const struct Row {
    const char *graph, *load;
    int loads;
  } rows[] = {{sum, "= md_ld_u8x8(", 6}, {all, "= md_ld_f8(", 3}};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    int num;
    char *s = text_of(rows[i].graph, 2, &num);
    bool once = num == 1 && occurrences(s, "= md_exp(") == 3 && occurrences(s, "md_st_f8(") == 3 &&
                occurrences(s, rows[i].load) == rows[i].loads;
    check(once, "three channels are loaded, made and stored once", s);
    free(s);
  }
}

static char *layer(int samples) {
  md_text t = {0};
  md_put(&t,
         "graph @s(%%x: f32[%d,16,4,16,16], %%w: f32[24,16,3,3,3], %%g: f32[24], %%b: f32[24], "
         "%%dy: f32[%d,24,4,16,16]) {\n"
         "  %%a = conv3d %%x, %%w {pad=[1,1,1]}\n  %%m, %%v = moments %%a {groups=1}\n"
         "  %%n = batch_norm %%a, %%g, %%b, %%m, %%v {batch_stats=true}\n  %%r = relu %%n\n"
         "  %%dx = conv3d_dgrad %%dy, %%w {pad=[1,1,1], shape=[%d,16,4,16,16]}\n"
         "  %%dw = conv3d_wgrad %%dy, %%x {pad=[1,1,1], shape=[24,16,3,3,3]}\n"
         "  return %%r, %%dx, %%dw\n}\n",
         samples, samples, samples);
  return t.s;
}

static md_cuda_module *layer_module(int samples, md_cuda_arch arch, bool narrow, bool apart) {
  md_diags *d = md_diags_create();
  md_pass_options o = md_pass_defaults();
  o.level = 2;
  if (narrow) o.precision = MD_BF16;
  char *text = layer(samples);
  md_graph *g = md_parse_graph("text", text, strlen(text), d);
  g = g && md_cuda_facts("cuda:sm_80", &o.facts, d) ? md_run_passes(g, &o, NULL, d) : NULL;
  md_cuda_module *m = g ? md_cuda_generate(g, arch, &(md_cuda_how){.is_apart = apart}, d) : NULL;
  check(m && !m->num_refused, "a layer has kernels", md_diags_text(d));
  if (g) md_graph_destroy(g);
  free(text);
  md_diags_destroy(d);
  return m;
}

static bool has_text(const md_cuda_module *m, const char *text) {
  for (int i = 0; i < m->num_kernels; i++)
    if (!strcmp(m->kernel[i].text, text)) return true;
  return false;
}

static void batches_share_kernels(void) {
  static const md_cuda_arch archs[] = {{80, 0}, {90, 'a'}};
  for (int i = 0; i < 8; i++) {
    md_cuda_arch arch = archs[i % 2];
    md_cuda_module *a = layer_module(64, arch, i & 2, i & 4),
                   *b = layer_module(96, arch, i & 2, i & 4);
    int same = 0, counts = 0;
    for (int k = 0; k < b->num_kernels; k++) {
      same += has_text(a, b->kernel[k].text);
      counts += b->kernel[k].num_counts;
    }
    char seen[100];
    snprintf(seen, sizeof seen, "%d of %d, with %d counts", same, b->num_kernels, counts);
    check(counts > 0 && same == b->num_kernels, "batches share a layer's kernels", seen);
    md_cuda_module_free(a);
    md_cuda_module_free(b);
  }
}

static void missing_kernels_are_named(void) {
  static const char mixed[] = "graph @s(%x: f64[4,4], %y: f64[4,4], %i: i32[4]) {\n  %a = exp %x\n"
                              "  %b, %t, %m = nce_lse %a, %i, %y, %i\n  return %a, %b\n}\n";
  static const char all[] = "graph @s(%x: f64[4,4], %y: f64[4,4], %i: i32[4]) {\n"
                            "  %b, %t, %m = nce_lse %x, %i, %y, %i\n  return %b\n}\n";
  for (int i = 0; i < 3; i++) {
    md_diags *d = md_diags_create();
    md_graph *g = graph_of(i == 2 ? all : mixed, 2, d);
    md_text out = {0};
    bool ok = md_cuda_compile(g, "cuda:sm_80", i == 1 ? MD_CUDA_PTX : MD_CUDA_TEXT, &out, d);
    if (i == 0) {
      check(ok && strstr(out.s, "// MISSING region") &&
                strstr(out.s, "nce_lse of f64 is not there yet") && strstr(out.s, "md_expd("),
            "text shows what is there and names what is missing", out.s);
    } else {
      check(!ok && strstr(md_diags_text(d), "E0440") &&
                strstr(md_diags_text(d), "nce_lse of f64 is not there yet"),
            "an artefact that would be incomplete is refused by name", md_diags_text(d));
    }
    md_text_free(&out);
    md_graph_destroy(g);
    md_diags_destroy(d);
  }
}

// What a convolution makes has 2^30 pixels at most: tiles count them as an int. Indices of all else are
// as wide as they need to be.
static void sizes_are_refused_or_wide(void) {
  static const char many[] = "a convolution of more than 2^30 pixels";
  static const struct {
    const char *graph, *refused, *has, *lacks;  // refused NULL: what its text has and has not
  } rows[] = {
      {"%x: f32[1,1,1024,1024,1024], %w: f32[1,1,1,1,1]) {\n  %y = conv3d %x, %w", NULL, "k1(",
       "MISSING"},
      {"%x: f32[1,1,1024,1024,1025], %w: f32[1,1,1,1,1]) {\n  %y = conv3d %x, %w", many, "", ""},
      {"%x: f32[1025,1,1024,1024,1], %w: f32[1,1,1,1,1]) {\n"
       "  %y = conv3d_dgrad %x, %w {shape=[1025,1,1024,1024,1]}",
       many, "", ""},
      {"%x: f32[1,1,1024,1024,1025], %w: f32[1,1,1024,1024,1025]) {\n"
       "  %y = conv3d_wgrad %x, %w {shape=[1,1,1,1,1]}",
       many, "", ""},
      {"%x: f32[1,1,2048,1024,1024], %w: f32[1,1,1,1,1]) {\n  %y = conv3d %x, %w {stride=[2,1,1]}",
       NULL, "md_i64 an[", "int an["},
      {"%x: f32[1024,1024,1024]) {\n  %y = exp %x", NULL, "int e = md_block()", "md_i64 e"},
      {"%x: f32[1024,1024,1025]) {\n  %y = exp %x", NULL, "md_i64 e", "int e = md_block()"},
      {"%x: f32[1024,1024,1025]) {\n  %y = sum %x", NULL, "(md_i64 j", "(int j = begin"},
  };
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_diags *d = md_diags_create();
    md_text text = {0};
    md_put(&text, "graph @s(%s\n  return %%y\n}\n", rows[i].graph);
    md_graph *g = graph_of(text.s, 0, d);
    md_cuda_module *m = g ? md_cuda_generate(g, (md_cuda_arch){80, 0}, NULL, d) : NULL;
    const char *why = m && m->num_refused ? m->refused[0].why : NULL;
    bool ok = m && (rows[i].refused ? why && !strcmp(why, rows[i].refused)
                                    : !why && strstr(m->text.s, rows[i].has) &&
                                          !strstr(m->text.s, rows[i].lacks));
    check(ok, rows[i].graph, why ? why : m ? m->text.s : md_diags_text(d));
    md_cuda_module_free(m);
    if (g) md_graph_destroy(g);
    md_diags_destroy(d);
    md_text_free(&text);
  }
}

// So many tensors, one after another, in one region. Each node may want two of the workspace.
static void launches_take_so_many_tensors(void) {
  static const int nums[] = {600, 160};
  for (int k = 0; k < MD_COUNT(nums); k++) {
    int num = nums[k];
    md_diags *d = md_diags_create();
    md_text text = {0};
    md_put(&text, "graph @s(");
    for (int i = 0; i < num; i++) md_put(&text, "%s%%x%d: f32[8]", i ? ", " : "", i);
    md_put(&text, ") {\n  region @r {\n    %%a0 = neg %%x0\n");
    for (int i = 1; i < num; i++) md_put(&text, "    %%a%d = add %%a%d, %%x%d\n", i, i - 1, i);
    md_put(&text, "  }\n  return %%a%d\n}\n", num - 1);
    md_graph *g = md_parse_graph("text", text.s, text.len, d);
    md_cuda_module *m = g ? md_cuda_generate(g, (md_cuda_arch){80, 0}, NULL, d) : NULL;
    const char *why = m && m->num_refused ? m->refused[0].why : NULL;
    bool ok = m && (k == 0 ? why && !strcmp(why, "more tensors than a kernel takes") : !why);
    check(ok, "a kernel takes at most 500 tensors", why ? why : md_diags_text(d));
    md_cuda_module_free(m);
    if (g) md_graph_destroy(g);
    md_diags_destroy(d);
    md_text_free(&text);
  }
}

// Weights, then both axes at once; a kernel for each axis where a tile would have to lay out too much.
static void a_blur_is_one_kernel(void) {
  static const struct {
    const char *x, *type;
    int size, kernels;
  } rows[] = {{"2,3,4,224,224", "f32", 3, 2},
              {"1,1,300,300", "f64", 97, 2},
              {"1,50,50", "f32", 99, 3},
              {"1,900,900", "f64", 1001, 3},
              {"2,16,3,7,8", "f32", 3, 3}};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_diags *d = md_diags_create();
    md_text text = {0};
    md_put(&text, "graph @s(%%x: %s[%s], %%s: %s[%d]) {\n  %%r = relu %%x\n  %%e = exp %%r\n",
           rows[i].type, rows[i].x, rows[i].type, *rows[i].x - '0');
    md_put(&text, "  %%y = gaussian_blur %%e, %%s {size=%d}\n  %%z = neg %%y\n  return %%z\n}\n",
           rows[i].size);
    md_graph *g = graph_of(text.s, 1, d);  // activations of 16 channels lie in blocks between
    md_cuda_module *m =
        g ? md_cuda_generate(g, (md_cuda_arch){80, 0}, &(md_cuda_how){.is_apart = true}, d) : NULL;
    int num = 0, shared = 0;
    for (int k = 0; m && k < m->num_launches; k++) {
      const md_region *r = &g->region[m->launch[k].region];
      bool blurs = g->node[r->first]->op == MD_OP_gaussian_blur;
      num += blurs;
      if (blurs) shared = MD_MAX(shared, m->launch[k].shared_bytes);
    }
    check(num == rows[i].kernels, "a blur is one kernel behind its weights", text.s);
    check(shared <= 32 << 10, "a tile's rows are bounded", text.s);
    md_cuda_module_free(m);
    if (g) md_graph_destroy(g);
    md_diags_destroy(d);
    md_text_free(&text);
  }
}

static void targets_have_neighbours(void) {
  static const struct {
    const char *target, *hint;
  } rows[] = {
      {"cuda:sm_9O", "cuda:sm_90"},    {"cuda:sm90", "cuda:sm_90"},
      {"cuda:sm_80a", "cuda:sm_80"},   {"cuda:", "sm_75"},
      {"cuda:sm_", "sm_75"},           {"cuda:sm_70", "cuda:sm_75"},
      {"cuda:sm_90aa", "cuda:sm_90a"},
  };
  md_cuda_arch arch;
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_diags *d = md_diags_create();
    bool ok = md_cuda_parse(rows[i].target, &arch, d);
    check(!ok && strstr(md_diags_text(d), "E0441") && strstr(md_diags_text(d), rows[i].hint),
          "a target that is not there brings the nearest", md_diags_text(d));
    md_diags_destroy(d);
  }
  check(md_cuda_parse("cuda:sm_90a", &arch, NULL) && arch.sm == 90 && arch.suffix == 'a', "sm_90a",
        NULL);
  check(md_cuda_parse("cuda:sm_120", &arch, NULL) && arch.sm == 120 && !arch.suffix, "sm_120",
        NULL);
}

static void absent_nvrtc_is_said(void) {
  setenv("MODIST_NVRTC", "/nowhere/libnvrtc.so", 1);
  md_diags *d = md_diags_create();
  int major, minor;
  bool ok = md_nvrtc_version(&major, &minor, d);
  check(!ok && md_diags_status(d) == MD_ERR_MISSING && strstr(md_diags_text(d), "E0442") &&
            strstr(md_diags_text(d), "MODIST_NVRTC=/path/to/libnvrtc.so"),
        "without NVRTC the message says how to name it", md_diags_text(d));
  md_diags_destroy(d);
}

int main(void) {
  names_stay_in_comments();
  equal_regions_share();
  channels_are_made_once();
  batches_share_kernels();
  missing_kernels_are_named();
  sizes_are_refused_or_wide();
  launches_take_so_many_tensors();
  a_blur_is_one_kernel();
  targets_have_neighbours();
  absent_nvrtc_is_said();
  printf("%d failed\n", failed);
  return failed != 0;
}
