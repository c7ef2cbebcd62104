// SPDX-License-Identifier: Apache-2.0
// --verify must find what is wrong: programs are saved beside a graph text that says something else.
#include "codegen/cpu/cpu.h"
#include "runtime/train/train.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

static const char stem[] = "graph @stem(%x: f32[1,4,2,6,6], %dy: f32[1,8,2,6,6]) {\n"
                           "  %w = state @w {init=normal, b=0.1} : f32[8,4,1,3,3]\n"
                           "  %y = conv3d %x, %w {pad=[0,1,1]}\n"
                           "  %r = relu %y\n"
                           "  %z = affine %r {scale=2}\n"
                           "  %dx = conv3d_dgrad %dy, %w {pad=[0,1,1], shape=[1,4,2,6,6]}\n"
                           "  %dw = conv3d_wgrad %dy, %x {pad=[0,1,1], shape=[8,4,1,3,3]}\n"
                           "  return z=%z, dx=%dx, dw=%dw\n"
                           "}\n";

// What is rounded to bf16 within a region was computed there, or came from outside.
static const char computed[] = "graph @computed(%x: f32[4096]) {\n"
                               "  %a = affine %x {scale=3.01}\n"
                               "  %h = cast %a {to=bf16}\n"
                               "  %z = cast %h {to=f32}\n"
                               "  return z=%z\n"
                               "}\n";
static const char given[] = "graph @given(%x: f32[4096]) {\n"
                            "  %h = cast %x {to=bf16}\n"
                            "  %a = cast %h {to=f32}\n"
                            "  %z = affine %a {scale=3.01}\n"
                            "  return z=%z\n"
                            "}\n";

static const char pooled[] =
    "graph @pooled(%x: f32[1,2,1,9,9]) {\n"
    "  %a = affine %x {scale=20000, shift=3}\n"
    "  %m, %i = max_pool3d %a {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}\n"
    "  return i=%i\n"
    "}\n";

static md_graph *parsed(const char *text, md_diags *d) {
  md_graph *g = md_parse_graph("stem.mdg", text, strlen(text), d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  return g;
}

// The engine of a graph whose text has `from` replaced by `to`; equal lengths.
static md_engine *engine_that_says(const char *graph, const char *from, const char *to,
                                   md_diags *d) {
  md_pass_options passes = md_pass_defaults();
  passes.facts = md_cpu_facts(md_cpu_find(NULL, true, d));
  md_graph *g = md_run_passes(parsed(graph, d), &passes, NULL, d);
  md_cpu_options o = {.no_cache = true, .want_image = true, .want_graph_text = true};
  md_program *p = md_cpu_compile(g, &o, NULL, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  char *text = md_strdup(p->arena, p->graph_text), *at = strstr(text, from);
  ck_assert_msg(at != NULL && strlen(from) == strlen(to), "no '%s' in\n%s", from, text);
  memcpy(at, to, strlen(to));
  p->graph_text = text;
  char path[] = "/tmp/modist_verify_XXXXXX.mdx";
  int fd = mkstemps(path, 4);
  ck_assert_int_ge(fd, 0);
  close(fd);
  ck_assert_msg(md_program_save(p, path, d), "%s", md_diags_text(d));
  md_engine_options e = {.threads = 1};
  md_engine *engine = md_engine_load(path, &e, d);
  ck_assert_msg(engine != NULL, "%s", md_diags_text(d));
  unlink(path);
  md_program_destroy(p);
  md_graph_destroy(g);
  for (int i = 0; i < 2; i++) {
    md_type t;
    float *x = md_engine_input(engine, i ? "dy" : "x", &t);
    if (!x) continue;
    for (int64_t k = 0; k < md_elements(&t.shape); k++)
      x[k] = (float)md_hash_unit(md_hash_key("x", (uint64_t)i), (uint64_t)k);
  }
  return engine;
}

static bool passes(const char *graph, const char *from, const char *to, double most_flops,
                   md_verify_stats *s, const char *message) {
  md_diags *d = md_diags_create();
  md_engine *e = engine_that_says(graph, from, to, d);
  *s = (md_verify_stats){0};
  bool ok = md_engine_verify_step(e, most_flops, s, d);
  if (!ok) ck_assert_msg(strstr(md_diags_text(d), message) != NULL, "%s", md_diags_text(d));
  md_engine_destroy(e);
  md_diags_destroy(d);
  return ok;
}

START_TEST(a_right_program_passes) {
  md_verify_stats s;
  ck_assert(passes(stem, "scale=2", "scale=2", 0, &s, ""));
  ck_assert_int_eq(s.sampled, 0);
  ck_assert_int_eq(s.elements, 1 * 8 * 2 * 6 * 6 + 1 * 4 * 2 * 6 * 6 + 8 * 4 * 3 * 3);
}
END_TEST

START_TEST(a_wrong_epilogue_is_found) {
  md_verify_stats s;
  ck_assert(!passes(stem, "scale=2", "scale=3", 0, &s, "error[E0702]: region '"));
  ck_assert(!passes(stem, "scale=2", "scale=3", 1, &s, "error[E0702]: region '"));
}
END_TEST

START_TEST(two_channels_are_checked_above_the_limit) {
  md_verify_stats s;
  ck_assert(passes(stem, "scale=2", "scale=2", 1, &s, ""));
  ck_assert_int_eq(s.sampled, 3);
  ck_assert_int_eq(s.elements, 2 * (1 * 2 * 6 * 6) + 2 * (1 * 2 * 6 * 6) + 2 * (4 * 3 * 3));
}
END_TEST

// The text says a scale that is a tenth of a step of bf16 away: some elements are a whole step off.
START_TEST(a_step_of_bf16_inside_is_no_mistake) {
  md_verify_stats s;
  ck_assert(passes(computed, "scale=3.01", "scale=3.01", 0, &s, ""));
  ck_assert_int_eq(s.regions, 1);
  ck_assert(passes(computed, "scale=3.01", "scale=3.02", 0, &s, ""));
  ck_assert(!passes(computed, "scale=3.01", "scale=4.01", 0, &s, "error[E0702]: region '"));
}
END_TEST

// Both sides round the same numbers: what comes after is compared as f32.
START_TEST(bf16_of_what_is_given_widens_nothing) {
  md_verify_stats s;
  ck_assert(passes(given, "scale=3.01", "scale=3.01", 0, &s, ""));
  ck_assert_int_eq(s.regions, 1);
  ck_assert(!passes(given, "scale=3.01", "scale=3.02", 0, &s, "error[E0702]: region '"));
}
END_TEST

// Where all elements are equal any of the window's is the largest; where they are not, only one is.
START_TEST(equal_elements_have_no_largest_one) {
  md_verify_stats s;
  ck_assert(passes(pooled, "scale=20000", "scale=20000", 0, &s, ""));
  ck_assert(passes(pooled, "scale=20000", "scale=1e-30", 0, &s, ""));
  ck_assert(!passes(pooled, "scale=20000", "scale=-2000", 0, &s, "error[E0702]: region '"));
  // What the text says is equal all over, too, but in smaller windows.
#define POOLED(scale, kernel) \
  "scale=" scale ", shift=3} : f32[1,2,1,9,9]\n    %m, %i = max_pool3d %0 {kernel=" kernel
  ck_assert(!passes(pooled, POOLED("20000", "[1,3,3]"), POOLED("1e-30", "[1,2,2]"), 0, &s,
                    "error[E0702]: region '"));
#undef POOLED
}
END_TEST

static md_tensor *drawn(md_type t, const char *name) {
  md_tensor *x = md_tensor_create(t);
  for (int64_t i = 0; i < md_elements(&t.shape); i++)
    x->f[i] = md_hash_unit(md_hash_key(name, 1), (uint64_t)i);
  return x;
}

// Of every kind of convolution: `num` channels are those of the whole, the others are huge.
START_TEST(some_channels_are_those_of_the_whole) {
  md_diags *d = md_diags_create();
  md_graph *g = parsed(stem, d);
  int found = 0;
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (md_ops[n->op].role != MD_ANCHOR) continue;
    found++;
    const md_tensor *in[] = {drawn(*md_type_in(g, n->in[0]), "a"),
                             drawn(*md_type_in(g, n->in[1]), "b"), NULL};
    md_tensor *whole = md_tensor_create(*md_type_in(g, n->out));
    md_tensor *part = md_tensor_create(*md_type_in(g, n->out));
    md_eval_node(g, n, in, &whole);
    ck_assert(md_partial_eval(g, n, in, part, 3, -1));
    int64_t same = 0, all = md_elements(&whole->type.shape);
    for (int64_t k = 0; k < all; k++) {
      same += part->f[k] == whole->f[k];
      ck_assert(part->f[k] == whole->f[k] || part->f[k] <= -1e6);
    }
    int64_t channels = whole->type.shape.dim[n->op == MD_OP_conv3d_wgrad ? 0 : 1];
    ck_assert_int_eq(same, all / channels * 3);
    md_tensor_destroy((md_tensor *)in[0]);
    md_tensor_destroy((md_tensor *)in[1]);
    md_tensor_destroy(whole);
    md_tensor_destroy(part);
  }
  ck_assert_int_eq(found, 3);
  md_graph_destroy(g);
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("verify", a_right_program_passes, a_wrong_epilogue_is_found,
           two_channels_are_checked_above_the_limit, a_step_of_bf16_inside_is_no_mistake,
           bf16_of_what_is_given_widens_nothing, equal_elements_have_no_largest_one,
           some_channels_are_those_of_the_whole)
