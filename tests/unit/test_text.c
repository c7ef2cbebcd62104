// SPDX-License-Identifier: Apache-2.0
// The text form of graphs: round trips, what is normalised, limits, DOT. Messages are in
// tests/errors.
#include "base/file.h"
#include "graph/graph.h"
#include "tests/samples.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <string.h>

static md_graph *parse(const char *text) {
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("test.mdg", text, strlen(text), d);
  ck_assert_msg(g && !md_diags_errors(d), "%s", md_diags_text(d));
  md_diags_destroy(d);
  return g;
}

static char *print(const md_graph *g) {
  md_text t = {0};
  md_graph_print(g, &t);
  return t.s;
}

// `text` prints as `want`, and that prints as itself.
static void check_prints(const char *text, const char *want) {
  md_graph *g = parse(text);
  char *once = print(g);
  ck_assert_str_eq(once, want);
  md_graph *again = parse(once);
  char *twice = print(again);
  ck_assert_str_eq(twice, once);
  free(once);
  free(twice);
  md_graph_destroy(g);
  md_graph_destroy(again);
}

static const char full[] =
    "graph @full(%x: f32[2,3,4,32,32], %gamma: f32[64], %beta: f32[64]) arena 1835008 {\n"
    "  %w = state @s1.conv.w {init=normal, b=0.05} : f32[64,3,1,7,7]\n"
    "  %copy = state @m.s1.conv.w {init=copy, from=@s1.conv.w} : f32[64,3,1,7,7]\n"
    "  %run = state @s1.mean : f32[1,64]\n"
    "  %0 = constant {value=-1.5e-07} : f64[1]\n"
    "  region @r1 {\n"
    "    %c = conv3d %x, %w {stride=[1,2,2], pad=[0,3,3]} : f32[2,64,4,16,16].c8 at 0\n"
    "    %m, %v = moments %c {groups=2} : f32[2,64] at 524288, f32[2,64] at 524800\n"
    "  }\n"
    "  region @r2 {\n"
    "    %n = batch_norm %c, %gamma, %beta, %m, %v {eps=0.001, batch_stats=true}"
    " : f32[2,64,4,16,16].c8\n"
    "    %1 = relu %n : f32[2,64,4,16,16].c8 at 1048576\n"
    "  }\n"
    "  region @r3 {\n"
    "    %2 = cast %1 {to=bf16} : bf16[2,64,4,16,16] at 1572864\n"
    "  }\n"
    "  region @r4 {\n"
    "    %run2 = lerp %run, %run {weight=0.1} : f32[1,64] at @s1.mean\n"
    "  }\n"
    "  update @s1.mean = %run2\n"
    "  return y=%2, %m, again=%m\n"
    "}\n";

START_TEST(every_part_of_a_graph_survives_a_round_trip) {
  check_prints(full, full);
  check_prints("graph @none() arena 0 {\n}\n", "graph @none() arena 0 {\n}\n");
}
END_TEST

START_TEST(parsed_graphs_hold_what_the_text_says) {
  md_graph *g = parse(full);
  ck_assert_str_eq(g->name, "full");
  ck_assert_int_eq(g->arena_bytes, 1835008);
  ck_assert_int_eq(g->num_regions, 4);
  ck_assert_str_eq(g->region[1].name, "r1");
  ck_assert_int_eq(g->region[1].num, 2);
  ck_assert_int_eq(g->num_updates, 1);
  md_val state = md_find_state(g, "s1.mean"), next = g->update[0].val;
  ck_assert_uint_eq(g->update[0].state, state);
  ck_assert_uint_eq(g->value[next].storage, state);
  ck_assert_int_eq(g->value[next].offset, -1);
  const md_node *run2 = md_def(g, next);
  ck_assert_int_eq(run2->op, MD_OP_lerp);
  ck_assert_double_eq(run2->attr.real[0], 0.1);
  ck_assert_int_eq(run2->place.line, 18);
  ck_assert_int_eq(run2->place.col, 13);
  ck_assert_str_eq(run2->place.file, "test.mdg");
  const md_node *cast = md_def(g, md_find_result(g, "y"));
  ck_assert_int_eq(cast->attr.dtype.dtype, MD_BF16);
  ck_assert_ptr_null(g->value[cast->out].name);
  const md_node *norm = md_def(g, md_def(g, cast->in[0])->in[0]);
  ck_assert_int_eq(norm->attr.batch_norm.batch_stats, 1);
  ck_assert_double_eq(norm->attr.batch_norm.eps, 0.001);
  const md_node *conv = md_def(g, norm->in[0]);
  ck_assert_int_eq(conv->attr.conv3d.stride.d[2], 2);
  ck_assert_int_eq(conv->attr.conv3d.dilation.d[2], 1);
  ck_assert_int_eq(g->value[conv->out].type.block, 8);
  ck_assert_int_eq(g->value[conv->out].offset, 0);
  const md_node *copy = md_def(g, md_find_state(g, "m.s1.conv.w"));
  ck_assert_int_eq(copy->attr.state.init, MD_INIT_copy);
  ck_assert_str_eq(copy->attr.state.from, "s1.conv.w");
  md_graph_destroy(g);
}
END_TEST

START_TEST(what_is_implied_is_printed_and_what_is_default_is_not) {
  check_prints("graph @a(%x: f32[2,3],\r\n  %y: f32[2,3]) { // none\n"
               "\t%9 = affine %x {shift=-0.50, scale=1}\n\n"
               "  %a-b.$c = add %9,\n %y\n"
               "  // nothing\n"
               "  return a=%a-b.$c,\n    %x }",
               "graph @a(%x: f32[2,3], %y: f32[2,3]) {\n"
               "  %0 = affine %x {shift=-0.5} : f32[2,3]\n"
               "  %a-b.$c = add %0, %y : f32[2,3]\n"
               "  return a=%a-b.$c, %x\n}\n");
}
END_TEST

START_TEST(numbers_are_given_in_order_of_printing) {
  check_prints("graph @a(%x: f32[2]) {\n  %7 = relu %x\n  %0 = exp %7\n  %k = exp %0\n"
               "  %3 = add %7, %k\n  return r=%3\n}\n",
               "graph @a(%x: f32[2]) {\n  %0 = relu %x : f32[2]\n  %1 = exp %0 : f32[2]\n"
               "  %k = exp %1 : f32[2]\n  %2 = add %0, %k : f32[2]\n  return r=%2\n}\n");
}
END_TEST

START_TEST(absent_operands_at_the_end_are_left_out) {
  check_prints("graph @a(%x: f32[1,2,3,4,5], %w: f32[4,2,1,1,1]) {\n"
               "  %y = conv3d %x, %w, _\n}\n",
               "graph @a(%x: f32[1,2,3,4,5], %w: f32[4,2,1,1,1]) {\n"
               "  %y = conv3d %x, %w : f32[1,4,3,4,5]\n}\n");
}
END_TEST

START_TEST(floats_are_exact) {
  static const double numbers[] = {0.1,       1e-05, 1.0 / 3, 5e-324, 1.7976931348623157e308,
                                   -INFINITY, 3};
  for (int i = 0; i < MD_COUNT(numbers); i++) {
    md_graph *g = md_graph_create("a");
    md_builder b;
    md_builder_init(&b, g, NULL);
    int64_t dim = 1;
    md_return(&b, "y", md_constant(&b, md_type_of(MD_F64, 1, &dim), numbers[i]));
    char *text = print(g);
    md_graph *back = parse(text);
    ck_assert(back->node[0]->attr.value.value == numbers[i]);
    md_graph_destroy(g);
    md_graph_destroy(back);
    free(text);
  }
}
END_TEST

START_TEST(equal_names_are_told_apart) {
  md_graph *g = md_graph_create("a");
  md_builder b;
  md_builder_init(&b, g, NULL);
  int64_t dim = 4;
  md_val x = md_input(&b, "x", md_type_of(MD_F32, 1, &dim));
  md_val y = md_relu(&b, x), z = md_relu(&b, y), u = md_relu(&b, z);
  md_set_name(&b, y, "x");
  md_set_name(&b, z, "x.2");
  md_set_name(&b, u, "x");
  md_return(&b, "x", u);
  ck_assert(!b.failed);
  char *text = print(g);
  check_prints(text, "graph @a(%x: f32[4]) {\n  %x.2 = relu %x : f32[4]\n"
                     "  %x.2.2 = relu %x.2 : f32[4]\n  %x.3 = relu %x.2.2 : f32[4]\n"
                     "  return x=%x.3\n}\n");
  free(text);
  md_graph_destroy(g);
}
END_TEST

// A sample with as many results as its op turns out to have.
static md_graph *parse_sample(md_op op, int i) {
  md_graph *g = NULL;
  for (int num_out = 1; !g && num_out <= 4; num_out++) {
    md_text t = {0};
    if (sample_text(op, i, num_out, &t)) g = md_parse_graph("sample.mdg", t.s, t.len, NULL);
    md_text_free(&t);
  }
  return g;
}

START_TEST(every_sample_of_every_op_survives_a_round_trip) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++)
    for (int i = 0; i < MD_ROW_SAMPLES && md_ops[op].samples[i]; i++) {
      md_graph *g = parse_sample((md_op)op, i);
      ck_assert_msg(g, "%s: sample %d is refused", md_ops[op].name, i);
      char *text = print(g);
      check_prints(text, text);
      md_text line = {0};
      md_node_print(g, g->node[g->num_nodes - 1], &line);
      ck_assert_ptr_nonnull(strstr(text, line.s));
      ck_assert_ptr_nonnull(strstr(line.s, md_ops[op].name));
      md_text_free(&line);
      free(text);
      md_graph_destroy(g);
    }
}
END_TEST

START_TEST(several_graphs_stand_in_a_text) {
  static const char text[] = "graph @a(%x: f32[1]) {\n  return %x\n}\ngraph @b() {}";
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  int num = 0;
  md_graph **g = md_parse_graphs("two.mdg", text, strlen(text), a, &num, d);
  ck_assert_ptr_nonnull(g);
  ck_assert_int_eq(num, 2);
  ck_assert_str_eq(g[1]->name, "b");
  ck_assert_ptr_null(md_parse_graph("two.mdg", text, strlen(text), d));
  for (int i = 0; i < num; i++) md_graph_destroy(g[i]);
  md_arena_destroy(a);
  md_diags_destroy(d);
}
END_TEST

START_TEST(attributes_are_read_alone) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  md_attr attr;
  ck_assert(md_parse_attrs("{stride=[1,2,2], dilation=[3,1,1]}", MD_OP_conv3d, a, &attr, d));
  ck_assert_int_eq(attr.conv3d.stride.d[1], 2);
  ck_assert_int_eq(attr.conv3d.dilation.d[0], 3);
  ck_assert_int_eq(attr.conv3d.pad.d[0], 0);
  ck_assert(md_parse_attrs("{}", MD_OP_relu, a, &attr, d));
  ck_assert(md_parse_attrs("{init=copy, from=@other}", MD_OP_state, a, &attr, d));
  ck_assert_str_eq(attr.state.from, "other");
  ck_assert(md_parse_attrs("{value=-inf}", MD_OP_constant, a, &attr, d));
  ck_assert(attr.value.value == -INFINITY);
  ck_assert_int_eq(md_diags_errors(d), 0);
  ck_assert(!md_parse_attrs("{scale=2} x", MD_OP_affine, a, &attr, d));
  ck_assert_str_eq(md_diags_text(d), "attributes:1:11: error[E0101]: expected the end of the text, "
                                     "found 'x'\n"
                                     "    1 | {scale=2} x\n"
                                     "      |           ^\n");
  ck_assert(!md_parse_attrs("{scale=2", MD_OP_affine, a, &attr, NULL));
  ck_assert(!md_parse_attrs("", MD_OP_affine, a, &attr, NULL));
  md_arena_destroy(a);
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_text_over_the_limit_is_refused_unread) {
  size_t len = (64 << 20) + 1;
  char *text = malloc(len);
  memset(text, ' ', len);
  md_diags *d = md_diags_create();
  ck_assert_ptr_null(md_parse_graph("big.mdg", text, len, d));
  ck_assert_str_eq(md_diags_text(d),
                   "big.mdg: error[E0102]: graph text of 67108865 bytes; 67108864 is the limit\n");
  md_diags_destroy(d);
  free(text);
}
END_TEST

START_TEST(a_long_chain_takes_linear_time) {
  enum { NODES = 100000 };
  md_text t = {0};
  md_put(&t, "graph @chain(%%v0: f32[1]) {\n");
  for (int i = 1; i <= NODES; i++) md_put(&t, "  %%v%d = relu %%v%d : f32[1]\n", i, i - 1);
  md_put(&t, "  return %%v%d\n}\n", NODES);
  int64_t start = md_now_ns();
  check_prints(t.s, t.s);
  double seconds = (double)(md_now_ns() - start) * 1e-9;
  ck_assert_msg(seconds < 20, "two readings took %g s", seconds);
  md_text_free(&t);
}
END_TEST

START_TEST(dot_shows_regions_states_and_types) {
  md_graph *g = parse(full);
  md_text t = {0};
  md_graph_dot(g, &t);
  ck_assert_ptr_nonnull(strstr(t.s, "digraph \"full\" {"));
  ck_assert_ptr_nonnull(strstr(t.s, "subgraph cluster_r1 {\n    label=\"r1\";"));
  ck_assert_ptr_nonnull(strstr(t.s, "[label=\"s1.mean\\nstate\", shape=box"));
  ck_assert_ptr_nonnull(strstr(t.s, "[label=\"f32[2,64,4,16,16].c8\"]"));
  ck_assert_ptr_nonnull(strstr(t.s, "[label=\"again\", shape=ellipse, peripheries=2]"));
  int open = 0;
  for (const char *s = t.s; *s; s++) open += (*s == '{') - (*s == '}');
  ck_assert_int_eq(open, 0);
  md_text_free(&t);
  md_graph_destroy(g);
}
END_TEST

// The first block of docs/graph.md.
START_TEST(the_manual_shows_a_graph_that_parses) {
  const char *source = getenv("MODIST_SOURCE");
  md_text path = {0};
  md_put(&path, "%s/docs/graph.md", source ? source : ".");
  char *manual;
  size_t len;
  ck_assert(md_file_read(path.s, 1 << 20, E0101, NULL, &manual, &len));
  char *block = strstr(manual, "```\n"), *stop = block ? strstr(block + 4, "```") : NULL;
  ck_assert_ptr_nonnull(stop);
  *stop = '\0';
  md_graph *g = parse(block + 4);
  ck_assert_str_eq(g->name, "stem");
  ck_assert_int_eq(g->num_results, 2);
  md_graph_destroy(g);
  free(manual);
  md_text_free(&path);
}
END_TEST

SUITE_MAIN("text", every_part_of_a_graph_survives_a_round_trip,
           parsed_graphs_hold_what_the_text_says,
           what_is_implied_is_printed_and_what_is_default_is_not,
           numbers_are_given_in_order_of_printing, absent_operands_at_the_end_are_left_out,
           floats_are_exact, equal_names_are_told_apart,
           every_sample_of_every_op_survives_a_round_trip, several_graphs_stand_in_a_text,
           attributes_are_read_alone, a_text_over_the_limit_is_refused_unread,
           a_long_chain_takes_linear_time, dot_shows_regions_states_and_types,
           the_manual_shows_a_graph_that_parses)
