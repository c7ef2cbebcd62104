// SPDX-License-Identifier: Apache-2.0
// Predicted times: they follow the work, the rates and the threads, and stay near the roof.
#include "codegen/cpu/cpu.h"
#include "codegen/work.h"
#include "tests/unit/suite.h"

#include <string.h>

static const md_cpu_roof rates = {.f32_flops = 1e12, .bf16_flops = 2e12, .read_bytes = 1e11};

// The kernels of a text in `a`, for a target that need not run here.
static md_cpu_report planned(const char *text, const char *target, md_dtype precision,
                             md_arena *a) {
  md_diags *d = md_diags_create();
  md_pass_options o = md_pass_defaults();
  o.precision = precision;
  o.facts = md_cpu_facts(md_cpu_find(target, false, d));
  md_graph *g = md_parse_graph("test", text, strlen(text), d);
  if (g) g = md_run_passes(g, &o, NULL, d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  md_cpu_report r = {.arena = a};
  md_program *p = md_cpu_compile(g, &(md_cpu_options){.cpu = target, .plan_only = true}, &r, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  md_program_destroy(p);
  md_graph_destroy(g);
  md_diags_destroy(d);
  return r;
}

static double total(const md_cpu_report *r, const md_cpu_roof *roof, int threads) {
  double seconds = 0;
  for (int i = 0; i < r->num_kernels; i++) seconds += md_cpu_predict(&r->kernel[i], roof, threads);
  return seconds;
}

// A fused convolution, norm and ReLU on so many channels.
static md_cpu_report block(int channels, const char *target, md_dtype precision, md_arena *a) {
  const char *text =
      md_format(a,
                "graph @g(%%x: f32[2,%d,4,28,28], %%w: f32[%d,%d,1,3,3], %%g: f32[%d]) {\n"
                "  %%c = conv3d %%x, %%w {pad=[0,1,1]}\n  %%m, %%v = moments %%c {groups=1}\n"
                "  %%n = batch_norm %%c, %%g, %%g, %%m, %%v {eps=1e-05, batch_stats=true}\n"
                "  %%y = relu %%n\n  %%z = conv3d %%y, %%w {pad=[0,1,1]}\n  return %%z\n}\n",
                channels, channels, channels, channels);
  return planned(text, target, precision, a);
}

START_TEST(a_fused_graph_is_predicted_near_its_roof) {
  md_arena *a = md_arena_create();
  md_cpu_report r = block(128, "avx512,-winograd", MD_F32, a);
  double flops = 2 * 2.0 * 2 * 4 * 28 * 28 * 128 * 128 * 9;
  double seconds = total(&r, &rates, 2);
  ck_assert_double_gt(seconds, flops / rates.f32_flops);
  ck_assert_double_lt(seconds, 2 * flops / rates.f32_flops);
  md_cpu_report winograd = block(128, "avx512", MD_F32, a);
  ck_assert_double_lt(total(&winograd, &rates, 2), 0.8 * seconds);
  md_arena_destroy(a);
}
END_TEST

START_TEST(more_work_takes_longer_and_faster_machines_less) {
  md_arena *a = md_arena_create();
  md_cpu_report narrow = block(64, "avx512", MD_F32, a), wide = block(256, "avx512", MD_F32, a);
  double seconds = total(&wide, &rates, 2);
  ck_assert_double_gt(seconds, 4 * total(&narrow, &rates, 2));
  md_cpu_roof better = rates;
  better.f32_flops *= 2;
  ck_assert_double_lt(total(&wide, &better, 2), 0.7 * seconds);
  better = rates;
  better.read_bytes *= 2;
  ck_assert_double_lt(total(&wide, &better, 2), seconds);
  md_arena_destroy(a);
}
END_TEST

START_TEST(pairs_of_bf16_are_predicted_faster_where_there_are_any) {
  md_arena *a = md_arena_create();
  md_cpu_report f32 = block(128, "avx512-bf16,-winograd", MD_F32, a),
                pairs = block(128, "avx512-bf16,-winograd", MD_BF16, a),
                none = block(128, "avx512,-winograd", MD_BF16, a);
  ck_assert_double_lt(total(&pairs, &rates, 2), 0.7 * total(&f32, &rates, 2));
  ck_assert_double_gt(total(&none, &rates, 2), 0.9 * total(&f32, &rates, 2));
  md_cpu_report filtered = block(128, "avx512-bf16", MD_BF16, a);
  for (int i = 0; i < filtered.num_kernels; i++) {
    const md_cpu_kernel_report *k = &filtered.kernel[i];
    if (strstr(k->lowering, "conv3d"))
      ck_assert_int_eq(k->work.is_bf16, !strstr(k->lowering, "winograd"));
  }
  md_arena_destroy(a);
}
END_TEST

// Whose result is f32.
START_TEST(a_weight_gradient_multiplies_pairs_of_bf16) {
  const char *text = "graph @g(%dy: bf16[2,64,4,28,28], %x: bf16[2,64,4,28,28]) {\n"
                     "  %dw = conv3d_wgrad %dy, %x {shape=[64,64,1,1,1]}\n  return %dw\n}\n";
  md_arena *a = md_arena_create();
  md_cpu_report r = planned(text, "avx512-bf16,-winograd", MD_BF16, a);
  ck_assert_int_eq(r.num_kernels, 1);
  ck_assert_str_eq(r.kernel[0].lowering, "conv3d weight gradient");
  ck_assert(r.kernel[0].work.is_bf16);
  md_arena_destroy(a);
}
END_TEST

START_TEST(one_item_uses_one_thread) {
  md_cpu_kernel_report k = {.lowering = "conv3d direct", .work = {.flops = 1e9, .nodes = 1}};
  k.items = 1;
  double alone = md_cpu_predict(&k, &rates, 4);
  k.items = 100;
  ck_assert_double_eq_tol(alone / md_cpu_predict(&k, &rates, 4), 4, 0.01);
}
END_TEST

START_TEST(a_bank_that_is_pushed_into_costs_its_new_rows) {
  md_arena *a = md_arena_create();
  md_cpu_report r =
      planned("graph @g(%k: f32[2,128]) {\n"
              "  %bank = state @bank : f32[65536,128]\n"
              "  %ptr = state @ptr : i32[1]\n"
              "  %n = bank_push %bank, %k, %ptr\n  update @bank = %n\n  return %k\n}\n",
              "avx2", MD_F32, a);
  ck_assert_int_eq(r.num_kernels, 1);
  const md_cpu_work *w = &r.kernel[0].work;
  ck_assert_double_lt(w->flops + w->memory_bytes + w->cache_bytes, 4 * 2 * 128 * 4);
  ck_assert_double_lt(total(&r, &rates, 2), 1e-6);
  md_arena_destroy(a);
}
END_TEST

// Bytes that region 1 moves of the first input of the graph.
static double bytes_of_first(const char *text) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  md_graph *g = md_parse_graph("test", text, strlen(text), d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  const md_region_view *r = md_region_view_of(g, 1, NULL, a);
  md_work w = md_work_of_region(r);
  double others = 0;
  for (int i = 0; i < r->num_inputs; i++)
    others += r->input[i] == 1 ? 0 : (double)md_type_bytes(md_type_in(g, r->input[i]));
  for (int i = 0; i < r->num_outputs; i++)
    others += (double)md_type_bytes(md_type_in(g, r->output[i]));
  md_graph_destroy(g);
  md_arena_destroy(a);
  md_diags_destroy(d);
  return w.leaf_bytes + w.made_bytes - others;
}

START_TEST(a_strided_convolution_reads_what_its_kernel_meets) {
  static const struct {
    const char *x, *w, *attr;
    double bytes;
  } t[] = {
      {"[2,16,4,8,8].c16", "[16,16,1,1,1]", "stride=[1,2,2]", 2 * 16 * 4 * 4 * 4 * 4},
      {"[2,16,4,8,8].c16", "[16,16,1,1,1]", "", 2 * 16 * 4 * 8 * 8 * 4},
      {"[2,16,4,8,8].c16", "[16,16,1,3,3]", "stride=[1,2,2], pad=[0,1,1]", 2 * 16 * 4 * 8 * 8 * 4},
      // A pixel of eight channels is half a line of memory, so whole rows come.
      {"[2,8,4,8,8].c8", "[16,8,1,1,1]", "stride=[1,2,2]", 2 * 8 * 4 * 4 * 8 * 4},
      {"[2,16,4,8,8]", "[16,16,1,1,1]", "stride=[1,2,2]", 2 * 16 * 4 * 4 * 8 * 4},
  };
  for (int i = 0; i < MD_COUNT(t); i++) {
    char text[400];
    snprintf(
        text, sizeof text,
        "graph @g(%%x: f32%s, %%w: f32%s) {\n  region @r {\n    %%y = conv3d %%x, %%w {%s}\n  }\n"
        "  return %%y\n}\n",
        t[i].x, t[i].w, t[i].attr);
    ck_assert_double_eq(bytes_of_first(text), t[i].bytes);
  }
  ck_assert_double_eq(
      bytes_of_first("graph @g(%x: f32[2,16,4,8,8].c16, %d: f32[2,16,4,4,4].c16) {\n  region @r {\n"
                     "    %dw = conv3d_wgrad %d, %x {stride=[1,2,2], shape=[16,16,1,1,1]}\n"
                     "  }\n  return %dw\n}\n"),
      2 * 16 * 4 * 4 * 4 * 4);
}
END_TEST

START_TEST(a_target_without_a_machine_has_nominal_rates) {
  md_cpu_roof roof = md_cpu_nominal_roof(md_cpu_find("aarch64", false, NULL), 2);
  ck_assert_double_eq(roof.f32_flops, 96e9);
  ck_assert_double_eq(roof.bf16_flops, 0);
  ck_assert_double_gt(md_cpu_nominal_roof(md_cpu_find("avx512-bf16", false, NULL), 2).bf16_flops,
                      roof.f32_flops);
}
END_TEST

SUITE_MAIN("cost", a_fused_graph_is_predicted_near_its_roof,
           more_work_takes_longer_and_faster_machines_less,
           pairs_of_bf16_are_predicted_faster_where_there_are_any,
           a_weight_gradient_multiplies_pairs_of_bf16, one_item_uses_one_thread,
           a_bank_that_is_pushed_into_costs_its_new_rows,
           a_strided_convolution_reads_what_its_kernel_meets,
           a_target_without_a_machine_has_nominal_rates)
