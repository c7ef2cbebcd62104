// SPDX-License-Identifier: Apache-2.0
// A memory limit is kept by computing values again, and no bit of the training step changes.
#include "codegen/cpu/cpu.h"
#include "runtime/train/train.h"
#include "tests/unit/suite.h"

#include <string.h>

static md_graph *tiny_step(md_diags *d) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.batch = 2;
  s.clip.frames = s.mclip.frames = 4;
  s.bank = 8;
  md_graph *g = md_step_graph(&s, d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  return g;
}

// --- plans

typedef struct Plan {
  int64_t bytes;
  int again;
} Plan;

static Plan plan_for(md_dtype precision, int level, int threads, int64_t limit) {
  md_diags *d = md_diags_create();
  const md_cpu *cpu = md_cpu_find(NULL, false, d);
  md_pass_options o = md_pass_defaults();
  o.level = level;
  o.precision = precision;
  o.facts = md_cpu_facts(cpu);
  o.memory = md_cpu_memory(cpu, limit, threads);
  md_graph *g = md_run_passes(tiny_step(d), &o, NULL, d);
  ck_assert_msg(g != NULL, "%s", md_diags_text(d));
  md_program *p = md_cpu_compile(g, &(md_cpu_options){.plan_only = true}, NULL, d);
  ck_assert_msg(p != NULL, "%s", md_diags_text(d));
  Plan plan = {md_program_bytes(p, threads), md_program_again(p).launches};
  md_program_destroy(p);
  md_graph_destroy(g);
  md_diags_destroy(d);
  return plan;
}

static Plan plan_of(int level, int64_t limit) { return plan_for(MD_F32, level, 1, limit); }

START_TEST(nothing_is_computed_again_within_the_limit) {
  Plan free_plan = plan_of(2, 0), same = plan_of(2, free_plan.bytes);
  ck_assert_int_eq(free_plan.again, 0);
  ck_assert_int_eq(same.again, 0);
  ck_assert_int_eq(same.bytes, free_plan.bytes);
}
END_TEST

// Whatever is told as the least is a limit that can be kept, and so is all above it.
START_TEST(every_limit_from_the_least_on_is_kept) {
  for (int level = 1; level <= 2; level++) {
    Plan most = plan_of(level, 0), least = plan_of(level, 1);
    ck_assert_int_lt(least.bytes, most.bytes);
    for (int i = 0; i < 4; i++) {
      int64_t limit = least.bytes + (most.bytes - least.bytes) * i / 4;
      Plan p = plan_of(level, limit);
      ck_assert_msg(p.bytes <= limit, "-O%d: %lld bytes of %lld", level, (long long)p.bytes,
                    (long long)limit);
      ck_assert_int_gt(p.again, 0);
    }
  }
}
END_TEST

// --- runs

static md_engine *engine_of(md_dtype precision, int level, int64_t limit) {
  md_diags *d = md_diags_create();
  md_engine_options o = {.passes = md_pass_defaults(),
                         .threads = 2,
                         .asan = JIT_ASAN,
                         .seed = 7,
                         .memory_limit = limit};
  o.passes.level = level;
  o.passes.precision = precision;
  md_engine *e = md_engine_create(tiny_step(d), &o, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  md_diags_destroy(d);
  return e;
}

static void step(md_engine *e, uint64_t seed) {
  const md_graph *g = md_engine_graph(e);
  md_diags *d = md_diags_create();
  for (int i = 0; i < g->num_nodes; i++) {
    const char *name = g->node[i]->name;
    if (g->node[i]->op != MD_OP_input) continue;
    md_type type;
    void *to = md_engine_input(e, name, &type);
    md_fill_input(name, type.dtype, md_elements(&type.shape), seed, to);
  }
  ck_assert_msg(md_engine_step(e, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

static void expect_same(md_exec *a, md_exec *b, int at) {
  const md_program *p = md_exec_program(a);
  for (int i = 0; i < p->num_results; i++) {
    const char *name = p->result[i].name;
    ck_assert_msg(!memcmp(md_exec_result(a, name, NULL), md_exec_result(b, name, NULL),
                          (size_t)p->result[i].bytes),
                  "step %d: result %s differs", at, name);
  }
  for (int i = 0; i < p->num_states; i++) {
    const char *name = p->state[i].name;
    ck_assert_msg(!memcmp(md_exec_state(a, name, NULL), md_exec_state(b, name, NULL),
                          (size_t)p->state[i].bytes),
                  "step %d: state %s differs", at, name);
  }
}

static void expect_same_run(md_dtype precision, int level) {
  md_engine *a = engine_of(precision, level, 0);
  int64_t most = md_exec_bytes(md_engine_exec(a));
  int64_t limit = most - (most - plan_for(precision, level, 2, 1).bytes) * 3 / 4;
  md_engine *b = engine_of(precision, level, limit);
  ck_assert_int_le(md_exec_bytes(md_engine_exec(b)), limit);
  ck_assert_int_gt(md_program_again(md_exec_program(md_engine_exec(b))).launches, 0);
  for (int i = 0; i < 3; i++) {
    step(a, (uint64_t)i);
    step(b, (uint64_t)i);
    expect_same(md_engine_exec(a), md_engine_exec(b), i);
  }
  md_engine_destroy(a);
  md_engine_destroy(b);
}

START_TEST(a_step_within_a_tight_limit_is_the_same_bit_for_bit) { expect_same_run(MD_F32, 2); }
END_TEST

START_TEST(so_is_one_in_bf16) { expect_same_run(MD_BF16, 2); }
END_TEST

START_TEST(so_is_one_that_is_not_fused) { expect_same_run(MD_F32, 1); }
END_TEST

SUITE_MAIN("recompute", nothing_is_computed_again_within_the_limit,
           every_limit_from_the_least_on_is_kept,
           a_step_within_a_tight_limit_is_the_same_bit_for_bit, so_is_one_in_bf16,
           so_is_one_that_is_not_fused)
