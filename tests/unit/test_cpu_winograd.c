// SPDX-License-Identifier: Apache-2.0
// Convolutions by Winograd's filtering: they are taken, on every target, they agree with the interpreter, and
// they round as docs/winograd.md says.
#include "tests/unit/against_interpreter.h"
#include "tests/unit/suite.h"

typedef struct Shape {
  int n, in, out, size[3], kernel[3], pad[3];
  int dilation;   // along t
  int stride[2];  // along t; along h and w
} Shape;
// Whole squares and parts of them, one and several items, an odd number of blocks, any padding; other taps
// along t beside those along h and w, and apart; taps along t alone; four taps; a stride of 2. Then filters along t in
// images: any pads, residues without taps or of unequal size, one and several strips and items, planes that are apart.
static const Shape shapes[] = {
    {1, 64, 64, {2, 8, 8}, {1, 3, 3}, {0, 1, 1}, 1, {1, 1}},
    {2, 33, 48, {3, 13, 15}, {1, 3, 3}, {0, 1, 1}, 1, {1, 1}},
    {2, 80, 48, {8, 7, 9}, {3, 1, 1}, {1, 0, 0}, 1, {1, 1}},
    {1, 64, 33, {3, 7, 9}, {3, 3, 3}, {1, 1, 1}, 1, {1, 1}},
    {2, 65, 64, {2, 10, 9}, {1, 3, 3}, {0, 0, 2}, 1, {1, 1}},
    {2, 32, 80, {4, 12, 10}, {1, 3, 3}, {0, 2, 0}, 1, {1, 1}},
    {1, 48, 64, {4, 6, 6}, {2, 3, 3}, {0, 1, 1}, 1, {1, 1}},
    {2, 96, 97, {10, 8, 9}, {3, 1, 1}, {0, 0, 0}, 1, {1, 1}},
    {3, 96, 64, {4, 5, 5}, {3, 1, 1}, {1, 0, 0}, 1, {1, 1}},
    {1, 512, 256, {4, 7, 7}, {1, 3, 3}, {0, 1, 1}, 1, {1, 1}},
    {1, 64, 48, {2, 10, 11}, {1, 4, 4}, {0, 1, 2}, 1, {1, 1}},
    {2, 12, 64, {4, 14, 13}, {3, 4, 4}, {1, 0, 0}, 1, {1, 1}},
    {2, 32, 64, {7, 8, 9}, {3, 3, 3}, {1, 1, 1}, 2, {1, 1}},
    {2, 96, 64, {4, 16, 24}, {1, 3, 3}, {0, 1, 1}, 1, {1, 2}},
    {2, 65, 80, {3, 13, 15}, {3, 3, 3}, {1, 1, 1}, 1, {1, 2}},
    {6, 80, 112, {8, 4, 4}, {3, 3, 3}, {1, 1, 1}, 1, {1, 2}},
    {4, 256, 256, {2, 12, 11}, {1, 3, 3}, {0, 1, 1}, 1, {1, 2}},
    {2, 96, 128, {6, 17, 13}, {2, 3, 3}, {0, 0, 0}, 2, {1, 2}},
    {2, 96, 128, {6, 13, 12}, {3, 3, 3}, {1, 2, 2}, 1, {1, 2}},
    {9, 64, 80, {8, 9, 8}, {3, 3, 3}, {1, 0, 2}, 1, {1, 2}},
    {9, 65, 64, {8, 10, 7}, {3, 2, 5}, {1, 1, 1}, 1, {1, 2}},
    {8, 160, 176, {8, 7, 6}, {3, 1, 1}, {1, 0, 0}, 1, {1, 2}},
    {70, 33, 48, {8, 5, 4}, {3, 3, 3}, {1, 1, 1}, 1, {1, 2}},
    {12, 128, 64, {4, 3, 2}, {3, 3, 3}, {1, 1, 1}, 1, {1, 1}},
    {6, 48, 64, {10, 12, 14}, {3, 3, 3}, {0, 1, 1}, 1, {1, 3}},
};

static void put_tensor(md_text *to, const char *name, const char *of, int n, int c,
                       const int size[3]) {
  md_put(to, "%%%s: %s[%d,%d,%d,%d,%d]", name, of, n, c, size[0], size[1], size[2]);
}

// A graph of one convolution or gradient; `length` of its sums.
static void put_graph(md_text *to, const Shape *s, const char *op, const char *of,
                      int64_t *length) {
  const int *x = s->size, *kernel = s->kernel;
  int y[3], dilation = s->dilation, stride[2] = {s->stride[0], s->stride[1]};
  for (int i = 0; i < 3; i++) {
    int reach = (kernel[i] - 1) * (i ? 1 : dilation);
    y[i] = (x[i] + 2 * s->pad[i] - reach - 1) / stride[i > 0] + 1;
  }
  bool forward = !strcmp(op, "conv3d"), data = !strcmp(op, "conv3d_dgrad");
  md_put(to, "graph @g(");
  if (forward) put_tensor(to, "a", of, s->n, s->in, x);
  else put_tensor(to, "a", of, s->n, s->out, y);
  md_put(to, ", ");
  if (forward || data) put_tensor(to, "b", of, s->out, s->in, kernel);
  else put_tensor(to, "b", of, s->n, s->in, x);
  md_put(to, ") {\n  %%r = %s %%a, %%b {pad=[%d,%d,%d], dilation=[%d,1,1], stride=[%d,%d,%d]", op,
         s->pad[0], s->pad[1], s->pad[2], dilation, stride[0], stride[1], stride[1]);
  if (data) md_put(to, ", shape=[%d,%d,%d,%d,%d]", s->n, s->in, x[0], x[1], x[2]);
  else if (!forward)
    md_put(to, ", shape=[%d,%d,%d,%d,%d]", s->out, s->in, kernel[0], kernel[1], kernel[2]);
  md_put(to, "}\n  return %%r\n}\n");
  int64_t taps = (int64_t)kernel[0] * kernel[1] * kernel[2];
  *length = forward ? taps * s->in : data ? taps * s->out : (int64_t)s->n * y[0] * y[1] * y[2];
}

// The kernel that takes the graph's only convolution.
static const md_cpu_kernel_report *kernel_of(const char *text, const char *name, md_arena *a) {
  md_diags *d = md_diags_create();
  const md_cpu *cpu = md_cpu_find(name, true, d);
  md_pass_options o = md_pass_defaults();
  o.facts = md_cpu_facts(cpu);
  md_graph *g = md_run_passes(parse(text), &o, NULL, d);
  md_cpu_report report = {.arena = a};
  md_program *p = md_cpu_compile(g, &(md_cpu_options){.cpu = name, .plan_only = true}, &report, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  const md_cpu_kernel_report *found = NULL;
  for (int i = 0; i < report.num_kernels; i++)
    if (strstr(report.kernel[i].lowering, "conv3d")) found = &report.kernel[i];
  ck_assert_msg(found != NULL, "%s", text);
  md_program_destroy(p);
  md_graph_destroy(g);
  md_diags_destroy(d);
  return found;
}

static const char *lowering_of(const char *text, const char *name, md_arena *a) {
  return kernel_of(text, name, a)->lowering;
}

// Of the residues of a stride, whose parts change places with the pad, a filter of images takes those of stride 2 and
// pad 1 alone; one along t takes any.
static bool is_direct(const Shape *s, const char *op) {
  if (strcmp(op, "conv3d_dgrad") != 0 || s->stride[1] == 1 || s->kernel[0] == 3) return false;
  return s->stride[1] > 2 || s->pad[1] != 1;
}

static void check_op(const char *op, const char *filtered, const char *direct) {
  for (int i = 0; i < MD_COUNT(shapes); i++) {
    const Shape *s = &shapes[i];
    const char *lowering = is_direct(s, op) ? direct : filtered;
    md_text t = {0};
    int64_t length;
    put_graph(&t, &shapes[i], op, "f32", &length);
    md_arena *a = md_arena_create();
    if (!is_elsewhere()) {
      ck_assert_msg(!strcmp(lowering_of(t.s, "native", a), lowering), "%s", t.s);
      ck_assert_str_eq(lowering_of(t.s, "native,-winograd", a), direct);
      if (i < 3) check_text(t.s, &(Setup){.level = 2, .cpu = "native,-winograd"});  // exact
    }
    const Setup setup = {.level = 2, .length = length};
    if (i < 3 || is_elsewhere()) check_targets(t.s, &setup);
    else check_text(t.s, &setup);
    md_arena_destroy(a);
    md_text_free(&t);
  }
}

START_TEST(forward) { check_op("conv3d", "conv3d winograd", "conv3d direct"); }
END_TEST
START_TEST(data_gradient) { check_op("conv3d_dgrad", "conv3d winograd", "conv3d direct"); }
END_TEST
START_TEST(weight_gradient) {
  check_op("conv3d_wgrad", "conv3d winograd weight gradient", "conv3d weight gradient");
}
END_TEST

// Transformed and multiplied in f32, if that spares enough against products of pairs.
START_TEST(bf16_is_multiplied_in_f32) {
  const Shape s = {1, 64, 64, {2, 28, 28}, {1, 3, 3}, {0, 1, 1}, 1, {1, 1}};
  const char *rows[][2] = {{"conv3d", "conv3d winograd"},
                           {"conv3d_dgrad", "conv3d winograd"},
                           {"conv3d_wgrad", "conv3d winograd weight gradient"}};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    md_text t = {0};
    int64_t length;
    put_graph(&t, &s, rows[i][0], "bf16", &length);
    md_arena *a = md_arena_create();
    if (!is_elsewhere()) ck_assert_str_eq(lowering_of(t.s, "native", a), rows[i][1]);
    check_targets(t.s, &(Setup){.level = 2, .length = length});
    md_arena_destroy(a);
    md_text_free(&t);
  }
}
END_TEST

// Neighbours become channels first (pass fold-stride), so that a first convolution of stride 2 is filtered too.
START_TEST(a_stride_becomes_channels) {
  const char *conv = "graph @g(%a: f32[2,3,4,22,25], %b: f32[40,3,3,7,7]) {\n"
                     "  %r = conv3d %a, %b {stride=[1,2,2], pad=[1,3,3]}\n  return %r\n}\n";
  const char *weights = "graph @g(%a: f32[2,40,4,11,13], %b: f32[2,3,4,22,25]) {\n"
                        "  %r = conv3d_wgrad %a, %b {stride=[1,2,2], pad=[1,3,3], "
                        "shape=[40,3,3,7,7]}\n  return %r\n}\n";
  md_arena *a = md_arena_create();
  if (!is_elsewhere()) {
    const char *text[] = {conv, weights};
    ck_assert_str_eq(lowering_of(conv, "native", a), "conv3d winograd");
    ck_assert_str_eq(lowering_of(weights, "native", a), "conv3d winograd weight gradient");
    for (int i = 0; i < 2; i++)  // taps that were filled up are no work
      ck_assert_double_eq(kernel_of(text[i], "native", a)->work.flops,
                          kernel_of(text[i], "native,-winograd", a)->work.flops);
  }
  check_targets(conv, &(Setup){.level = 2, .length = 3 * 3 * 7 * 7});
  check_targets(weights, &(Setup){.level = 2, .length = 2 * 4 * 11 * 13});
  md_arena_destroy(a);
}
END_TEST

START_TEST(a_stride_along_time_is_direct) {
  const Shape s = {1, 64, 64, {4, 12, 12}, {3, 3, 3}, {1, 1, 1}, 1, {2, 1}};
  const char *ops[] = {"conv3d", "conv3d_wgrad"};
  for (int i = 0; i < MD_COUNT(ops); i++) {
    md_text t = {0};
    int64_t length;
    put_graph(&t, &s, ops[i], "f32", &length);
    md_arena *a = md_arena_create();
    ck_assert_ptr_null(strstr(lowering_of(t.s, "native", a), "winograd"));
    md_arena_destroy(a);
    md_text_free(&t);
  }
}
END_TEST

// Weight gradients that have so many phases, and are right.
static void check_phases(const Shape *s, int num, int phases) {
  for (int i = 0; i < num; i++) {
    md_text t = {0};
    int64_t length;
    put_graph(&t, &s[i], "conv3d_wgrad", "f32", &length);
    md_arena *a = md_arena_create();
    const md_cpu_kernel_report *k = kernel_of(t.s, "native", a);
    ck_assert_str_eq(k->lowering, "conv3d winograd weight gradient");
    ck_assert_msg(k->phases == phases, "%d phases: %s", k->phases, t.s);
    md_arena_destroy(a);
    check_text(t.s, &(Setup){.level = 2, .length = length});
    md_text_free(&t);
  }
}

// Planes that the last cache would not hold: rounds of frames, or of rows of tiles, of which the last has fewer.
START_TEST(planes_come_in_rounds) {
  const Shape large[] = {{2, 32, 32, {2, 116, 96}, {1, 3, 3}, {0, 1, 1}, 1, {1, 1}},
                         {1, 16, 16, {9, 148, 96}, {2, 3, 3}, {0, 1, 1}, 1, {1, 1}}};
  check_phases(large, MD_COUNT(large), 2 * 3 + 1);  // planes of both operands, products; results
}
END_TEST

// Sums that L2 holds: items walk over frames, rows of tiles in all frames, or samples; some have fewer.
START_TEST(planes_stay_with_an_item) {
  const Shape small[] = {{7, 16, 24, {1, 28, 28}, {1, 3, 3}, {0, 1, 1}, 1, {1, 1}},
                         {3, 12, 16, {8, 16, 16}, {5, 3, 3}, {2, 1, 1}, 1, {1, 1}},
                         {4, 16, 16, {5, 20, 24}, {3, 3, 3}, {1, 1, 1}, 2, {1, 1}},
                         {5, 32, 32, {8, 14, 14}, {3, 1, 1}, {1, 0, 0}, 1, {1, 1}},
                         {4, 16, 32, {5, 16, 16}, {3, 3, 3}, {1, 1, 1}, 1, {1, 2}}};
  check_phases(small, MD_COUNT(small), 2);  // splits; results
}
END_TEST

// Fine numbers, whose products round.
static void fill_finely(md_tensor *t, const char *name) {
  uint64_t key = md_hash_key(name, 3);
  int64_t n = md_elements(&t->type.shape);
  for (int64_t i = 0; i < n; i++) t->f[i] = (float)(md_hash_01(key, (uint64_t)i) - 0.5);
}

// Root mean square of the error of the graph's result, relative to that of the result.
static double error_of(const char *text, const char *cpu) {
  md_graph *plain = parse(text);
  md_program *p = compiled(text, &(Setup){.level = 2, .cpu = cpu}, NULL);
  md_interp *in = md_interp_create(plain, false);
  md_exec *e = executor(p, 2);
  md_diags *d = md_diags_create();
  for (int i = 0; i < p->num_inputs; i++) {
    md_tensor *x = md_interp_input(in, p->input[i].name);
    fill_finely(x, p->input[i].name);
    md_tensor_write(x, md_exec_input(e, p->input[i].name, NULL));
  }
  ck_assert_msg(md_interp_step(in, d) && md_exec_step(e, d), "%s", md_diags_text(d));
  const md_tensor *want = md_interp_value(in, plain->result[0].val);
  const float *got = md_exec_result(e, p->result[0].name, NULL);
  double error = 0, size = 0;
  for (int64_t i = 0; i < md_elements(&want->type.shape); i++) {
    error += pow((double)got[i] - want->f[i], 2);
    size += pow(want->f[i], 2);
  }
  md_exec_destroy(e);
  md_interp_destroy(in);
  md_program_destroy(p);
  md_graph_destroy(plain);
  md_diags_destroy(d);
  return sqrt(error / size);
}

// Units of 2^-24, of a plane's sums of so many terms, that grow in the transforms: docs/winograd.md.
static double bound(double growth, double terms) { return growth * (sqrt(terms / 6) + sqrt(12)); }

START_TEST(rounding_is_as_analysed) {
  if (is_elsewhere()) return;
  const Shape s = {1, 128, 64, {2, 28, 28}, {1, 3, 3}, {0, 1, 1}, 1, {1, 1}},
              u = {1, 128, 64, {2, 28, 28}, {1, 4, 4}, {0, 1, 1}, 1, {1, 1}},
              v = {1, 128, 64, {4, 28, 28}, {1, 3, 3}, {0, 1, 1}, 1, {1, 2}},
              w = {8, 128, 64, {8, 6, 6}, {3, 3, 3}, {1, 1, 1}, 1, {1, 2}};
  const struct {
    const Shape *shape;
    const char *op;
    double growth, terms;
  } rows[] = {{&s, "conv3d", 5.2, s.in},
              {&s, "conv3d_dgrad", 5.2, s.out},
              {&s, "conv3d_wgrad", 5.2, 2 * 49},
              {&u, "conv3d", 5.2, u.in},
              {&u, "conv3d_dgrad", 5.2, u.out},
              {&u, "conv3d_wgrad", 5.2, 128},
              {&v, "conv3d", 5. / 3, v.in},
              {&v, "conv3d_dgrad", 5. / 3, v.out},
              {&v, "conv3d_wgrad", 5. / 3, 128},
              {&w, "conv3d", 2.3, 9 * w.in},
              {&w, "conv3d_dgrad", 2.3, 4 * w.out},
              {&w, "conv3d_wgrad", 2.3, 128}};
  for (int i = 0; i < MD_COUNT(rows); i++) {
    const Shape *shape = rows[i].shape;
    md_text t = {0};
    int64_t length;
    put_graph(&t, shape, rows[i].op, "f32", &length);
    double direct = ldexp(error_of(t.s, "native,-winograd"), 24);
    double winograd = ldexp(error_of(t.s, "native"), 24);
    double most = bound(rows[i].growth, rows[i].terms);
    const int *k = shape->kernel;
    printf("%-14s %dx%dx%d, stride %d: error: direct %.1f, Winograd %.1f, bound %.1f\n", rows[i].op,
           k[0], k[1], k[2], shape->stride[1], direct, winograd, most);
    ck_assert_msg(winograd < most, "%s: %g", rows[i].op, winograd);
    ck_assert(winograd != direct);
    md_text_free(&t);
  }
}
END_TEST

SUITE_MAIN("cpu_winograd", forward, data_gradient, weight_gradient, bf16_is_multiplied_in_f32,
           a_stride_becomes_channels, a_stride_along_time_is_direct, planes_come_in_rounds,
           planes_stay_with_an_item, rounding_is_as_analysed)
