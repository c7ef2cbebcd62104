// SPDX-License-Identifier: Apache-2.0
// The CPU back end against the interpreter: every op with its samples, graphs that fuse, layouts,
// updates; elementary functions against libm; cache, artefact images, W^X.
#include "base/file.h"
#include "codegen/cpu/cpu.h"
#include "tests/samples.h"
#include "tests/tolerance.h"
#include "tests/unit/suite.h"

#include <elf.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct setup {
  int level;
  const char *cpu;
  int steps;
  bool bitwise;  // the interpreter rounds every value, and compiled code must give the same bits
} setup;

static md_graph *parse(const char *text) {
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("test.mdg", text, strlen(text), d);
  ck_assert_msg(g != NULL, "%s\n%s", md_diags_text(d), text);
  md_diags_destroy(d);
  return g;
}

static md_graph *prepared(const char *text, const setup *s) {
  md_diags *d = md_diags_create();
  const md_cpu *cpu = md_cpu_find(s->cpu, true, d);
  ck_assert_msg(cpu != NULL, "%s", md_diags_text(d));
  md_pass_options o = md_pass_defaults();
  o.level = s->level;
  o.verify_each = true;
  o.facts = md_cpu_facts(cpu);
  md_graph *g = md_run_passes(parse(text), &o, NULL, d);
  ck_assert_msg(g != NULL, "%s\n%s", md_diags_text(d), text);
  md_diags_destroy(d);
  return g;
}

static md_program *compiled(const md_graph *g, const setup *s, md_cpu_report *report) {
  md_diags *d = md_diags_create();
  md_cpu_options o = {.cpu = s->cpu, .no_cache = true, .asan = JIT_ASAN};
  md_program *p = md_cpu_compile(g, &o, report, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  ck_assert_msg(md_program_check(p, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
  return p;
}

// Multiples of 1/64 away from 0: exact in every type, no ties at relu's kink. Integers are 0, 1, 2.
static void fill(md_tensor *t, const char *name, int seed) {
  uint64_t key = md_hash_key(name, (uint64_t)seed);
  int64_t n = md_elements(&t->type.shape);
  for (int64_t i = 0; i < n; i++) {
    uint64_t h = md_hash_at(key, (uint64_t)i);
    if (t->i) t->i[i] = t->type.dtype == MD_BOOL ? (int64_t)(h & 1) : (int64_t)(h % 3);
    else t->f[i] = (double)(16 + h % 97) / 64 * (h >> 40 & 1 ? -1 : 1);
  }
}

static double root_mean_square(const md_tensor *t) {
  int64_t n = md_elements(&t->type.shape);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += isfinite(t->f[i]) ? t->f[i] * t->f[i] : 0;
  return sqrt(sum / (double)n);
}

// Assertions that hold cost a system call each, so only failures are told to Check.
static void compare(const char *what, const md_tensor *want, const void *memory, const char *text,
                    bool bitwise) {
  md_type type = want->type;
  type.block = 0;
  md_tensor *got = md_tensor_create(type);
  md_tensor_read(got, memory);
  int64_t n = md_elements(&type.shape);
  double rms = want->f ? root_mean_square(want) : 0;
  for (int64_t i = 0; i < n; i++) {
    if (want->i) {
      if (got->i[i] == want->i[i]) continue;
      ck_abort_msg("%s[%lld]: %lld, not %lld\n%s", what, (long long)i, (long long)got->i[i],
                   (long long)want->i[i], text);
    }
    double a = got->f[i], b = want->f[i];
    // Sums of bf16 are formed in f32 and rounded once. Operands are of size 1, and may cancel.
    int64_t length = type.dtype == MD_BF16 ? 1 : 64;
    double bound = bitwise ? 0 : md_tolerance(type.dtype, length, fabs(b) + rms + 0.25);
    bool ok = isnan(b) ? isnan(a) : a == b || fabs(a - b) <= bound;
    if (!ok) ck_abort_msg("%s[%lld]: %.9g, not %.9g\n%s", what, (long long)i, a, b, text);
  }
  md_tensor_destroy(got);
}

// Compiles, runs, and compares results and states after each step.
static void check_text(const char *text, const setup *s) {
  md_graph *plain = parse(text), *g = prepared(text, s);
  md_program *p = compiled(g, s, NULL);
  md_diags *d = md_diags_create();
  md_exec_options o = {.threads = 2, .seed = 7};
  md_exec *e = md_exec_create(p, &o, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  md_interp *in = md_interp_create(plain, s->bitwise);
  for (int step = 0; step < MD_MAX(s->steps, 1); step++) {
    for (int i = 0; i < p->num_inputs; i++) {
      md_tensor *t = md_interp_input(in, p->input[i].name);
      fill(t, p->input[i].name, step);
      md_tensor_write(t, md_exec_input(e, p->input[i].name, NULL));
    }
    for (int i = 0; step == 0 && i < p->num_states; i++) {
      md_tensor *t = md_interp_state(in, p->state[i].name);
      fill(t, p->state[i].name, 99);
      md_tensor_write(t, md_exec_state(e, p->state[i].name, NULL));
    }
    ck_assert_msg(md_interp_step(in, d), "%s", md_diags_text(d));
    ck_assert_msg(md_exec_step(e, d), "%s", md_diags_text(d));
    for (int i = 0; i < plain->num_results; i++) {
      const char *name = p->result[i].name;
      compare(name, md_interp_value(in, plain->result[i].val), md_exec_result(e, name, NULL), text,
              s->bitwise);
    }
    for (int i = 0; i < p->num_states; i++) {
      const char *name = p->state[i].name;
      compare(name, md_interp_state(in, name), md_exec_state(e, name, NULL), text, s->bitwise);
    }
  }
  md_interp_destroy(in);
  md_exec_destroy(e);
  md_program_destroy(p);
  md_graph_destroy(g);
  md_graph_destroy(plain);
  md_diags_destroy(d);
}

static void check_levels(const char *text, int steps) {
  for (int level = 0; level <= 2; level++)
    check_text(text, &(setup){.level = level, .steps = steps});
}

static void check_samples(md_op op, const char *cpu) {
  for (int i = 0; i < MD_ROW_SAMPLES; i++) {
    md_text t = {0};
    int num_out = op == MD_OP_moments || op == MD_OP_max_pool3d ? 2 : MD_MAX(md_op_num_out(op), 1);
    if (!sample_text(op, i, num_out, &t)) break;
    check_text(t.s, &(setup){.level = i % 3, .cpu = cpu});
    md_text_free(&t);
  }
}

// One test a target, so that each has its own time limit.
static void check_ops(const char *name) {
  const md_cpu *cpu = md_cpu_find(name, false, NULL);
  if (!md_cpu_runs_here(cpu)) return;
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    if (md_ops[op].role != MD_META) check_samples((md_op)op, cpu->name);
  }
}

START_TEST(every_op_agrees_with_the_interpreter_generic) { check_ops("x86-64"); }
END_TEST
START_TEST(every_op_agrees_with_the_interpreter_sse42) { check_ops("x86-64-v2"); }
END_TEST
START_TEST(every_op_agrees_with_the_interpreter_avx2) { check_ops("x86-64-v3"); }
END_TEST
START_TEST(every_op_agrees_with_the_interpreter_avx512) { check_ops("x86-64-v4"); }
END_TEST
START_TEST(every_op_agrees_with_the_interpreter_avx512_bf16) { check_ops("avx512-bf16"); }
END_TEST

// ld.lld refuses undefined symbols: code for any target stands alone.
static void link_ops(const char *cpu) {
  md_diags *d = md_diags_create();
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++) {
    if (md_ops[op].role == MD_META) continue;
    md_text t = {0};
    bool two = op == MD_OP_moments || op == MD_OP_max_pool3d;
    int num_out = two ? 2 : MD_MAX(md_op_num_out((md_op)op), 1);
    if (sample_text((md_op)op, 0, num_out, &t)) {
      md_graph *g = prepared(t.s, &(setup){.level = 1});
      md_cpu_options o = {.cpu = cpu, .no_cache = true, .no_code = true, .want_image = true};
      md_program *p = md_cpu_compile(g, &o, NULL, d);
      if (!p) ck_abort_msg("%s\n%s", md_diags_text(d), t.s);
      md_program_destroy(p);
      md_graph_destroy(g);
    }
    md_text_free(&t);
  }
  md_diags_destroy(d);
}

START_TEST(host_code_stands_alone_generic) { link_ops("generic"); }
END_TEST
START_TEST(host_code_stands_alone_avx512) { link_ops("avx512"); }
END_TEST
START_TEST(host_code_stands_alone_aarch64) { link_ops("aarch64"); }
END_TEST

START_TEST(the_gradient_of_a_maximum_goes_to_its_place) {
  check_levels("graph @g(%x: f32[2,9,2,7,6], %dy: f32[2,9,2,4,3]) {\n"
               "  %y, %i = max_pool3d %x {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1]}\n"
               "  %dx = max_pool3d_grad %dy, %i {kernel=[1,3,3], stride=[1,2,2], pad=[0,1,1], "
               "shape=[2,9,2,7,6]}\n  return %y, %dx\n}\n",
               1);
}
END_TEST

// Rank 5 activations become blocked; 11 channels leave lanes over in every block size.
START_TEST(channel_blocks_with_a_rest_are_right) {
  check_levels("graph @g(%x: f32[2,11,2,5,3], %gamma: f32[11], %beta: f32[11]) {\n"
               "  %a = affine %x {scale=1.5, shift=0.25}\n"
               "  %m, %v = moments %a {groups=2}\n"
               "  %n = batch_norm %a, %gamma, %beta, %m, %v\n"
               "  %r = relu %n\n"
               "  %g = relu_grad %a, %r\n"
               "  %p, %q = batch_norm_sums %g, %a, %m, %v\n"
               "  %d = batch_norm_dx %g, %a, %gamma, %m, %v, %p, %q\n"
               "  %s = sum %g {axes=[0,2,3,4]}\n"
               "  %t = sum %r {axes=[2,3,4]}\n"
               "  %u = sum %r {axes=[1]}\n"
               "  %w = max %r {axes=[0,1,2,3,4]}\n"
               "  return %d, %m, %v, %s, %t, %u, %w\n}\n",
               1);
}
END_TEST

START_TEST(views_inside_a_region_are_index_maps) {
  check_levels("graph @g(%x: f32[4,6,5,7], %c: f32[6], %k: f32[5]) {\n"
               "  %b = broadcast %c {shape=[4,6,5,7], axes=[1]}\n"
               "  %k4 = broadcast %k {shape=[4,6,5,7], axes=[2]}\n"
               "  %y = mul %x, %b\n  %y1 = add %y, %k4\n"
               "  %f = flip %y1 {axis=3}\n  %g = flip %x {axis=0}\n  %z = add %f, %g\n"
               "  %r = reshape %z {shape=[24,35]}\n"
               "  %t = transpose %r {axes=[1,0]}\n"
               "  %s = slice %t {axis=0, start=3, size=30}\n"
               "  %n = neg %s\n"
               "  %q = reshape %n {shape=[2,15,4,6]}\n  %q2 = affine %q {scale=2}\n"
               "  return %n, %z, %q2\n}\n",
               1);
}
END_TEST

START_TEST(reductions_over_any_axes_are_right) {
  const char *axes[] = {"0", "1", "2", "0,1", "1,2", "0,2", "0,1,2"};
  for (int i = 0; i < MD_COUNT(axes); i++) {
    md_text t = {0};
    md_put(&t,
           "graph @g(%%x: f32[37,19,530]) {\n  %%y = affine %%x {scale=0.5}\n"
           "  %%s = sum %%y {axes=[%s]}\n  %%m = max %%x {axes=[%s]}\n"
           "  %%z = affine %%s {scale=0.125}\n  return %%z, %%m, %%y\n}\n",
           axes[i], axes[i]);
    check_levels(t.s, 1);
    md_text_free(&t);
  }
}
END_TEST

START_TEST(results_do_not_depend_on_the_number_of_threads) {
  const char *text =
      "graph @g(%x: f32[5,9,3,40,41], %y: f32[300000]) {\n"
      "  %a = affine %x {scale=1.5}\n  %m, %v = moments %a\n  %s = sum %y {axes=[0]}\n"
      "  %t = sum %a {axes=[1,2,3,4]}\n  %e = exp %y\n  return %m, %v, %s, %t, %e\n}\n";
  setup s = {.level = 2};
  md_graph *g = prepared(text, &s);
  md_program *p = compiled(g, &s, NULL);
  md_digest first[8] = {0};
  for (int threads = 1; threads <= 5; threads += 2) {
    md_exec *e = md_exec_create(p, &(md_exec_options){.threads = threads}, NULL);
    for (int i = 0; i < p->num_inputs; i++) {
      float *x = md_exec_input(e, p->input[i].name, NULL);
      for (int64_t k = 0; k < p->input[i].bytes / 4; k++)
        x[k] = (float)md_hash_unit(7, (uint64_t)k);
    }
    ck_assert(md_exec_step(e, NULL));
    for (int i = 0; i < p->num_results; i++) {
      const md_spec *spec;
      const void *at = md_exec_result(e, p->result[i].name, &spec);
      md_digest d = md_digest_of(at, (size_t)spec->bytes);
      if (threads == 1) first[i] = d;
      ck_assert_msg(d.lo == first[i].lo && d.hi == first[i].hi, "result %d, %d threads", i,
                    threads);
    }
    md_exec_destroy(e);
  }
  md_program_destroy(p);
  md_graph_destroy(g);
}
END_TEST

START_TEST(variance_survives_a_large_offset) {
  check_levels("graph @g(%x: f32[4,5,300]) {\n  %y = affine %x {scale=0.015625, shift=100}\n"
               "  %z = affine %y {scale=1, shift=-100}\n"
               "  %m, %v = moments %y {groups=2}\n  %m1, %v1 = moments %z {groups=2}\n"
               "  %d = sub %v, %v1\n  return %d, %m\n}\n",
               1);
}
END_TEST

START_TEST(states_are_updated_in_place_and_by_copy) {
  check_levels("graph @g(%g: f32[1000], %lr: f32[1]) {\n"
               "  %p = state @p : f32[1000]\n  %b = state @b : f32[1000]\n"
               "  %old = state @old : f32[1000]\n  %one = state @one : f32[3]\n"
               "  %l = broadcast %lr {shape=[1000], axes=[0]}\n"
               "  %p2, %b2 = sgd %p, %g, %b, %l {momentum=0.9, weight_decay=0.01}\n"
               "  %c = constant {value=2} : f32[3]\n"
               "  update @p = %p2\n  update @b = %b2\n  update @old = %p\n  update @one = %c\n"
               "  return old=%p, new=%p2\n}\n",
               3);
}
END_TEST

START_TEST(types_convert_as_the_interpreter_says) {
  check_levels("graph @g(%u: u8[67], %i: i32[67], %l: i64[67], %b: bool[67], %f: f32[67]) {\n"
               "  %a = cast %u {to=f32}\n  %c = cast %i {to=f64}\n  %d = cast %l {to=f32}\n"
               "  %e = cast %b {to=f32}\n  %h = cast %f {to=i32}\n  %k = cast %f {to=i64}\n"
               "  %m = cast %f {to=bf16}\n  %n = cast %m {to=f32}\n  %o = add %n, %f\n"
               "  %q = add %a, %d\n  %r = mul %q, %e\n"
               "  return %a, %c, %d, %e, %h, %k, %m, %o, %r\n}\n",
               1);
}
END_TEST

// Outside of the range, between integers, across 32 bits: floats saturate, integers wrap, a bool asks
// for 0.
START_TEST(narrow_types_convert_as_the_interpreter_says) {
  check_levels("graph @g(%f: f32[67], %d: f64[67], %l: i64[67], %i: i32[67]) {\n"
               "  %a = affine %f {scale=300}\n  %au = cast %a {to=u8}\n  %ab = cast %f {to=bool}\n"
               "  %b = affine %d {scale=300}\n  %bu = cast %b {to=u8}\n  %bb = cast %d {to=bool}\n"
               "  %big = constant {value=4294967299} : i64[67]\n  %c = mul %l, %big\n"
               "  %even = constant {value=4294967296} : i64[67]\n  %e = mul %l, %even\n"
               "  %ci = cast %c {to=i32}\n  %cu = cast %c {to=u8}\n  %eb = cast %e {to=bool}\n"
               "  %k = constant {value=300} : i32[67]\n  %n = mul %i, %k\n  %w = cast %n {to=f64}\n"
               "  %wu = cast %w {to=u8}\n  %nu = cast %n {to=u8}\n"
               "  %full = constant {value=255} : u8[67]\n  %half = constant {value=0.5} : f32[67]\n"
               "  %hb = cast %half {to=bool}\n  %y = add %nu, %full\n"
               "  return %au, %ab, %bu, %bb, %ci, %cu, %eb, %wu, %nu, %hb, %y\n}\n",
               1);
}
END_TEST

// What a region keeps to itself is rounded as if it had been stored.
START_TEST(bf16_is_rounded_inside_of_a_region_too) {
  const char *text =
      "graph @g(%x: bf16[33], %y: bf16[33], %i: bf16[2,20,1,3,3], %w: bf16[20,20,1,1,1]) {\n"
      "  %a = add %x, %y : bf16[33]\n  %z = cast %a {to=f32}\n  %d = cast %a {to=f64}\n"
      "  %k = constant {value=1.25} : bf16[33]\n  %m = add %a, %k\n  %n = cast %m {to=f32}\n"
      "  %s = sub %m, %y\n  %v = reshape %s {shape=[3,11]}\n  %r = neg %v\n"
      "  %c = conv3d %i, %w\n  %dw = conv3d_wgrad %i, %i {shape=[20,20,1,1,1]}\n"
      "  %dn = cast %dw {to=bf16}\n  %cd = cast %c {to=f32}\n  %e = cast %dn {to=f32}\n"
      "  %cb = cast %cd {to=bf16}\n  %eb = cast %e {to=bf16}\n  %cs = sub %c, %cb\n"
      "  %es = sub %dn, %eb\n  %o = constant {value=1.3} : bf16[33]\n"
      "  %p = cast %o {to=f32}\n  return %z, %d, %n, %s, %r, %cs, %es, %p\n}\n";
  for (int level = 0; level <= 2; level++)
    check_text(text, &(setup){.level = level, .bitwise = true});
}
END_TEST

// Each type takes what it can of the same drawn numbers.
START_TEST(states_begin_as_the_interpreter_says) {
  static const char *const types[] = {"f32", "bf16", "f64", "i32", "i64", "u8", "bool"};
  for (int i = 0; i < MD_COUNT(types); i++) {
    md_text t = {0};
    md_put(&t,
           "graph @g() {\n  %%a = state @a {init=fill, a=2.7} : %s[5]\n"
           "  %%b = state @b {init=uniform, b=400} : %s[129]\n"
           "  %%c = state @c {init=normal, b=3} : %s[129]\n  return %%a, %%b, %%c\n}\n",
           types[i], types[i], types[i]);
    md_graph *plain = parse(t.s), *g = prepared(t.s, &(setup){0});
    md_program *p = compiled(g, &(setup){0}, NULL);
    md_exec *e = md_exec_create(p, &(md_exec_options){.threads = 1}, NULL);
    ck_assert_ptr_nonnull(e);
    md_interp *in = md_interp_create(plain, true);
    for (int k = 0; k < p->num_states; k++) {
      const char *name = p->state[k].name;
      compare(name, md_interp_state(in, name), md_exec_state(e, name, NULL), t.s, true);
    }
    md_interp_destroy(in);
    md_exec_destroy(e);
    md_program_destroy(p);
    md_graph_destroy(g);
    md_graph_destroy(plain);
    md_text_free(&t);
  }
}
END_TEST

START_TEST(dropout_draws_the_documented_numbers) {
  check_levels("graph @g(%x: f32[5,131], %k: i64[1]) {\n"
               "  %key = broadcast %k {shape=[5,131], axes=[1]}\n"
               "  %y = dropout %x, %key {p=0.4}\n  return %y\n}\n",
               2);
}
END_TEST

// --- elementary functions

static double ulps(md_dtype d, double got, double want) {
  if (got == want || (isnan(got) && isnan(want))) return 0;
  double unit = d == MD_F64
                    ? nextafter(fabs(want), INFINITY) - fabs(want)
                    : (double)(nextafterf(fabsf((float)want), INFINITY) - fabsf((float)want));
  return fabs(got - want) / unit;
}

typedef struct function {
  const char *op;
  double (*f)(double);
  double lo, hi;
} function;

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void check_function(const function *f, md_dtype d, const char *cpu) {
  enum { N = 4099 };
  md_text t = {0};
  md_put(&t, "graph @g(%%x: %s[%d]) {\n  %%y = %s %%x\n  return y=%%y\n}\n", md_dtype_name(d), N,
         f->op);
  setup s = {.level = 2, .cpu = cpu};
  md_graph *g = prepared(t.s, &s);
  md_program *p = compiled(g, &s, NULL);
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = 1}, NULL);
  const double special[] = {0, -0.0, INFINITY, -INFINITY, NAN,  1e-40,
                            1, -1,   88.7,     -87.5,     -100, 1e30};
  void *x = md_exec_input(e, "x", NULL);
  double in[N];
  for (int i = 0; i < N; i++) {
    double at = f->lo + (f->hi - f->lo) * i / (N - 1);
    in[i] = i < MD_COUNT(special) ? special[i] : at;
    if (d == MD_F32) in[i] = ((float *)x)[i] = (float)in[i];
    else ((double *)x)[i] = in[i];
  }
  ck_assert(md_exec_step(e, NULL));
  const void *y = md_exec_result(e, "y", NULL);
  for (int i = 0; i < N; i++) {
    double got = d == MD_F32 ? (double)((const float *)y)[i] : ((const double *)y)[i];
    double want = f->f(in[i]);
    if (d == MD_F32) want = (double)(float)want;
    // 1 / (1 + e^-x) as the formula says has no subnormal results: e^-x is infinite first.
    if (f->f == sigmoid && want < FLT_MIN) want = got;
    if (ulps(d, got, want) <= 2) continue;
    ck_abort_msg("%s %s (%s) at %a: %a, not %a: %g ulp", md_dtype_name(d), f->op, cpu, in[i], got,
                 want, ulps(d, got, want));
  }
  md_exec_destroy(e);
  md_program_destroy(p);
  md_graph_destroy(g);
  md_text_free(&t);
}

START_TEST(elementary_functions_are_within_two_ulp) {
  const function functions[] = {
      {"exp", exp, -110, 90}, {"exp", exp, -1, 1},           {"log", log, 0, 1000},
      {"log", log, 0.9, 1.1}, {"tanh", tanh, -10, 10},       {"tanh", tanh, -0.7, 0.7},
      {"sqrt", sqrt, 0, 100}, {"sigmoid", sigmoid, -30, 30},
  };
  for (int c = 0; c < md_cpu_count(); c++) {
    if (!md_cpu_runs_here(md_cpu_at(c))) continue;
    for (int i = 0; i < MD_COUNT(functions); i++) {
      check_function(&functions[i], MD_F32, md_cpu_at(c)->name);
      check_function(&functions[i], MD_F64, md_cpu_at(c)->name);
    }
  }
}
END_TEST

// --- programs

static const char small[] = "graph @g(%x: f32[3,700], %y: f32[3,700]) {\n  %s = add %x, %y\n"
                            "  %e = exp %s\n  %t = sum %e {axes=[0,1]}\n  return %e, %t\n}\n";

START_TEST(equal_regions_compile_once) {
  md_text t = {0};
  md_put(&t, "graph @g(%%x: f32[64]) {\n");
  for (int i = 0; i < 5; i++) {
    md_put(&t, "  %%y%d = neg %%%s", i, i ? "" : "x");
    if (i) md_put(&t, "y%d", i - 1);
    md_put(&t, "\n");
  }
  md_put(&t, "  return %%y4\n}\n");
  setup s = {.level = 0};
  md_graph *g = prepared(t.s, &s);
  md_cpu_report r = {.arena = md_arena_create()};
  md_program *p = compiled(g, &s, &r);
  ck_assert_int_eq(r.launches, 5);
  // The last writes over nothing that is read, the others may: at most two structures.
  ck_assert_int_le(r.distinct, 2);
  ck_assert_int_eq(r.num_kernels, 5);
  ck_assert_str_eq(r.kernel[0].lowering, "stream");
  md_program_destroy(p);
  md_graph_destroy(g);
  md_arena_destroy(r.arena);
  md_text_free(&t);
}
END_TEST

static int rwx_maps(void) {
  FILE *f = fopen("/proc/self/maps", "r");
  ck_assert_ptr_nonnull(f);
  char line[512];
  int found = 0;
  while (fgets(line, sizeof line, f)) found += strstr(line, "rwxp") != NULL;
  fclose(f);
  return found;
}

START_TEST(no_memory_is_writable_and_executable) {
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  int before = rwx_maps();
  md_program *p = compiled(g, &s, NULL);
  ck_assert_int_eq(rwx_maps(), before);
  md_program_destroy(p);
  md_graph_destroy(g);
}
END_TEST

// Stands before libc's for LLVM too: as under a kernel that lets no memory become executable.
static bool may_execute = true;
__attribute__((visibility("default"))) int mprotect(void *at, size_t len, int prot) {
  if (may_execute || !(prot & PROT_EXEC)) return (int)syscall(SYS_mprotect, at, len, prot);
  errno = EACCES;
  return -1;
}

START_TEST(a_kernel_that_refuses_executable_memory_is_told_of) {
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  md_diags *d = md_diags_create();
  may_execute = false;
  md_program *p = md_cpu_compile(g, &(md_cpu_options){.no_cache = true}, NULL, d);
  may_execute = true;
  ck_assert_ptr_null(p);
  ck_assert_int_eq(md_diags_status(d), MD_ERR_RUN);
  ck_assert_int_eq(md_diags_errors(d), 1);
  ck_assert_msg(strstr(md_diags_text(d), "error[E0830]: LLVM could not ") &&
                    strstr(md_diags_text(d), "Permission denied"),
                "%s", md_diags_text(d));
  md_diags_destroy(d);
  md_graph_destroy(g);
}
END_TEST

static md_program *with_cache(const md_graph *g, int *hits) {
  md_cpu_report r = {0};
  md_diags *d = md_diags_create();
  md_program *p = md_cpu_compile(g, &(md_cpu_options){0}, &r, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  *hits = r.cache_hits;
  ck_assert_int_ge(r.distinct, 1);
  return p;
}

START_TEST(objects_come_from_the_cache_and_damage_is_only_a_miss) {
  char dir[] = "/tmp/modist-test-XXXXXX", command[256];
  ck_assert_ptr_nonnull(mkdtemp(dir));
  setenv("MODIST_CACHE", dir, 1);
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  int hits;
  md_program_destroy(with_cache(g, &hits));
  ck_assert_int_eq(hits, 0);
  md_program_destroy(with_cache(g, &hits));
  ck_assert_int_ge(hits, 1);
  snprintf(command, sizeof command,
           "for f in %s/*.o; do printf x | dd of=$f bs=1 seek=100 conv=notrunc 2>/dev/null; done",
           dir);
  ck_assert_int_eq(system(command), 0);
  md_program_destroy(with_cache(g, &hits));
  ck_assert_int_eq(hits, 0);
  md_program_destroy(with_cache(g, &hits));
  ck_assert_int_ge(hits, 1);
  snprintf(command, sizeof command, "rm -r %s", dir);
  ck_assert_int_eq(system(command), 0);
  unsetenv("MODIST_CACHE");
  md_graph_destroy(g);
}
END_TEST

START_TEST(an_image_is_a_shared_object) {
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  md_diags *d = md_diags_create();
  md_cpu_options o = {.no_cache = true, .want_image = true, .no_code = true, .cpu = "avx512"};
  md_program *p = md_cpu_compile(g, &o, NULL, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  ck_assert_uint_gt(p->image_bytes, 64);
  ck_assert_int_eq(memcmp(p->image, "\177ELF", 4), 0);
  ck_assert_str_eq(p->target, "cpu:avx512+x86-64-v4");
  md_program_destroy(p);
  o.cpu = "aarch64";
  p = md_cpu_compile(g, &o, NULL, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  ck_assert_str_eq(p->target, "cpu:aarch64+armv8-a");
  const unsigned char *machine = (const unsigned char *)p->image + 18;  // e_machine of ELF
  ck_assert_int_eq(machine[0] | machine[1] << 8, EM_AARCH64);
  md_program_destroy(p);
  setenv("MODIST_LLD", "/no/such/linker", 1);
  ck_assert_ptr_null(md_cpu_compile(g, &o, NULL, d));
  unsetenv("MODIST_LLD");
  ck_assert_int_eq(md_diags_status(d), MD_ERR_MISSING);
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "apt-get install lld-19"));
  md_diags_destroy(d);
  md_graph_destroy(g);
}
END_TEST

// Results of one step on inputs drawn by name.
static void run_small(const md_program *p, float *e_out, float *t_out) {
  md_exec *e = md_exec_create(p, &(md_exec_options){.threads = 1}, NULL);
  ck_assert_ptr_nonnull(e);
  for (int i = 0; i < p->num_inputs; i++) {
    float *x = md_exec_input(e, p->input[i].name, NULL);
    for (int k = 0; k < 2100; k++) x[k] = (float)md_hash_unit((uint64_t)i, (uint64_t)k);
  }
  ck_assert(md_exec_step(e, NULL));
  memcpy(e_out, md_exec_result(e, p->result[0].name, NULL), 2100 * sizeof *e_out);
  memcpy(t_out, md_exec_result(e, p->result[1].name, NULL), sizeof *t_out);
  md_exec_destroy(e);
}

START_TEST(an_artefact_computes_the_same_bits) {
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  md_diags *d = md_diags_create();
  md_cpu_options o = {.no_cache = true, .want_image = true, .want_graph_text = true};
  md_program *here = md_cpu_compile(g, &o, NULL, d);
  ck_assert_msg(here != NULL, "%s", md_diags_text(d));
  char path[] = "/tmp/modist-test-XXXXXX";
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  close(fd);
  ck_assert_msg(md_program_save(here, path, d), "%s", md_diags_text(d));
  md_program *there = md_program_load(path, d);
  ck_assert_msg(there != NULL, "%s", md_diags_text(d));
  float e[2][2100], t[2];
  run_small(here, e[0], &t[0]);
  run_small(there, e[1], &t[1]);
  ck_assert_int_eq(memcmp(e[0], e[1], sizeof e[0]), 0);
  ck_assert_int_eq(memcmp(&t[0], &t[1], sizeof t[0]), 0);
  md_program_destroy(there);
  md_program_destroy(here);
  unlink(path);
  md_diags_destroy(d);
  md_graph_destroy(g);
}
END_TEST

// A kernel is called with an input that is one element short; only instrumented code can notice.
START_TEST(instrumented_kernels_notice_an_overrun) {
  if (!JIT_ASAN) return;
  setup s = {.level = 2};
  md_graph *g = prepared("graph @g(%x: f32[64]) {\n  %y = neg %x\n  return %y\n}\n", &s);
  md_program *p = compiled(g, &s, NULL);
  void (*kernel)(void *const *, int64_t, void *);
  void *address = p->lookup(p->code, p->phase[0].symbol);
  memcpy(&kernel, &address, sizeof kernel);
  pid_t child = fork();
  if (child == 0) {
    if (!freopen("/dev/null", "w", stderr)) _exit(0);
    float *x = calloc(63, sizeof *x), *y = calloc(64, sizeof *y);
    kernel((void *[]){x, y}, 0, NULL);
    _exit(0);
  }
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(!(WIFEXITED(status) && WEXITSTATUS(status) == 0));
  md_program_destroy(p);
  md_graph_destroy(g);
}
END_TEST

START_TEST(an_unknown_cpu_brings_a_hint) {
  md_diags *d = md_diags_create();
  ck_assert_ptr_null(md_cpu_find("avx-2", true, d));
  ck_assert_int_eq(md_diags_status(d), MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(md_diags_text(d), "did you mean 'avx2'?"));
  md_diags_destroy(d);
}
END_TEST

START_TEST(instrumented_code_is_refused_where_it_could_not_run) {
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  md_text ir = {0};
  const struct {
    md_cpu_options o;
    bool works;
  } tries[] = {{{.no_cache = true, .asan = true}, JIT_ASAN},
               {{.no_cache = true, .asan = true, .no_code = true, .want_image = true}, false},
               {{.no_cache = true, .asan = true, .no_code = true, .llvm_ir = &ir}, true}};
  for (int i = 0; i < MD_COUNT(tries); i++) {
    md_diags *d = md_diags_create();
    md_program *p = md_cpu_compile(g, &tries[i].o, NULL, d);
    ck_assert_msg((p != NULL) == tries[i].works, "%d: %s", i, md_diags_text(d));
    if (!p) ck_assert_ptr_nonnull(strstr(md_diags_text(d), "E0424"));
    if (!p) ck_assert_int_eq(md_diags_status(d), MD_ERR_MISSING);
    md_program_destroy(p);
    md_diags_destroy(d);
  }
  md_text_free(&ir);
  md_graph_destroy(g);
}
END_TEST

// The rows of an architecture are in order: what lies above the machine's own it cannot run. Of
// another architecture it runs none.
START_TEST(a_cpu_beyond_this_machine_is_only_compiled_for) {
  const md_cpu *native = md_cpu_native();
  bool above = false;
  for (int i = 0; i < md_cpu_count(); i++) {
    const md_cpu *cpu = md_cpu_at(i);
    bool beyond = above || strcmp(cpu->arch, native->arch) != 0;
    md_diags *d = md_diags_create();
    ck_assert_ptr_eq(md_cpu_find(cpu->name, false, d), cpu);
    ck_assert_ptr_eq(md_cpu_find(cpu->isa, false, d), cpu);
    ck_assert_ptr_eq(md_cpu_find(cpu->name, true, d), beyond ? NULL : cpu);
    ck_assert_int_eq(md_diags_status(d), beyond ? MD_ERR_MISSING : MD_OK);
    ck_assert_ptr_eq(strstr(md_diags_text(d), "error[E0421]") != NULL ? cpu : NULL,
                     beyond ? cpu : NULL);
    ck_assert(md_cpu_runs_here(cpu) == !beyond);
    above |= cpu == native;
    md_diags_destroy(d);
  }
}
END_TEST

START_TEST(a_plan_without_code_has_the_sizes_of_the_program) {
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  md_program *whole = compiled(g, &s, NULL);
  md_diags *d = md_diags_create();
  md_program *plan =
      md_cpu_compile(g, &(md_cpu_options){.asan = JIT_ASAN, .plan_only = true}, NULL, d);
  ck_assert_msg(plan != NULL, "%s", md_diags_text(d));
  ck_assert_ptr_null(plan->code);
  for (int threads = 1; threads < 4; threads++)
    ck_assert_int_eq(md_program_bytes(plan, threads), md_program_bytes(whole, threads));
  ck_assert_int_gt(md_program_bytes(plan, 1), 0);
  md_program_destroy(plan);
  md_program_destroy(whole);
  md_diags_destroy(d);
  md_graph_destroy(g);
}
END_TEST

START_TEST(text_forms_are_given_when_wanted) {
  setup s = {.level = 2};
  md_graph *g = prepared(small, &s);
  md_text ir = {0}, assembly = {0};
  md_diags *d = md_diags_create();
  md_cpu_options o = {
      .no_cache = true, .llvm_ir = &ir, .assembly = &assembly, .want_graph_text = true};
  md_program *p = md_cpu_compile(g, &o, NULL, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  ck_assert_ptr_nonnull(strstr(ir.s, "define void @k"));
  ck_assert_ptr_nonnull(strstr(assembly.s, ".text"));
  ck_assert_ptr_nonnull(strstr(p->graph_text, "graph @g"));
  md_program_destroy(p);
  md_text_free(&ir);
  md_text_free(&assembly);
  md_diags_destroy(d);
  md_graph_destroy(g);
}
END_TEST

START_TEST(the_roof_is_measured_for_every_target_that_runs_here) {
  md_diags *d = md_diags_create();
  for (int i = 0; i < md_cpu_count(); i++) {
    const md_cpu *cpu = md_cpu_at(i);
    if (!md_cpu_find(cpu->name, true, NULL)) continue;
    md_cpu_roof roof;
    ck_assert_msg(md_cpu_measure_roof(cpu, 2, &roof, d), "%s: %s", cpu->name, md_diags_text(d));
    ck_assert(isfinite(roof.f32_flops) && roof.f32_flops > 0);
    ck_assert(isfinite(roof.read_bytes) && roof.read_bytes > 0);
    ck_assert((roof.bf16_flops > 0) == cpu->bf16_dot);
  }
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("cpu", every_op_agrees_with_the_interpreter_generic,
           every_op_agrees_with_the_interpreter_sse42, every_op_agrees_with_the_interpreter_avx2,
           every_op_agrees_with_the_interpreter_avx512,
           every_op_agrees_with_the_interpreter_avx512_bf16, host_code_stands_alone_generic,
           host_code_stands_alone_avx512, host_code_stands_alone_aarch64,
           the_gradient_of_a_maximum_goes_to_its_place, channel_blocks_with_a_rest_are_right,
           views_inside_a_region_are_index_maps, reductions_over_any_axes_are_right,
           results_do_not_depend_on_the_number_of_threads, variance_survives_a_large_offset,
           states_are_updated_in_place_and_by_copy, types_convert_as_the_interpreter_says,
           narrow_types_convert_as_the_interpreter_says, bf16_is_rounded_inside_of_a_region_too,
           states_begin_as_the_interpreter_says, dropout_draws_the_documented_numbers,
           elementary_functions_are_within_two_ulp, equal_regions_compile_once,
           no_memory_is_writable_and_executable, a_kernel_that_refuses_executable_memory_is_told_of,
           objects_come_from_the_cache_and_damage_is_only_a_miss,
           the_roof_is_measured_for_every_target_that_runs_here, an_image_is_a_shared_object,
           an_artefact_computes_the_same_bits, instrumented_kernels_notice_an_overrun,
           an_unknown_cpu_brings_a_hint, instrumented_code_is_refused_where_it_could_not_run,
           a_cpu_beyond_this_machine_is_only_compiled_for,
           a_plan_without_code_has_the_sizes_of_the_program, text_forms_are_given_when_wanted)
