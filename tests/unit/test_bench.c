// SPDX-License-Identifier: Apache-2.0
// Statistics of benchmarks, against values worked out by hand; problems and sweeps as text.
#include "modistc/bench_spec.h"
#include "modistc/bench_stats.h"
#include "tests/unit/suite.h"

#include <math.h>
#include <string.h>

static const double tiny = 1e-12;

#define SAMPLES(...)                           \
  ((md_samples){.ms = (double[]){__VA_ARGS__}, \
                .num = (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double))})

START_TEST(the_median_and_quantiles_go_by_rank) {
  md_samples odd = SAMPLES(9, 1, 5), even = SAMPLES(4, 1, 3, 2), one = SAMPLES(7);
  ck_assert_double_eq(md_samples_median(&odd), 5);
  ck_assert_double_eq(md_samples_median(&even), 2.5);
  ck_assert_double_eq(md_samples_median(&one), 7);
  ck_assert_double_eq(md_samples_quantile(&even, 0), 1);
  ck_assert_double_eq(md_samples_quantile(&even, 1), 4);
  ck_assert_double_eq(md_samples_quantile(&even, 0.25), 1.75);  // at 0.75 between 1 and 2
  ck_assert_double_eq(odd.ms[0], 9);                            // the order stays
}
END_TEST

START_TEST(one_far_sample_does_not_move_the_spread) {
  md_samples s = SAMPLES(10, 11, 12, 13, 1000);  // from 12: 2, 1, 0, 1, 988
  ck_assert_double_eq(md_samples_mad(&s), 1);
  md_samples same = SAMPLES(3, 3, 3);
  ck_assert_double_eq(md_samples_mad(&same), 0);
}
END_TEST

START_TEST(the_interval_holds_the_median_and_is_repeatable) {
  md_samples s = SAMPLES(1, 2, 3, 4, 5, 6, 7, 8, 9);
  double low, high, again_low, again_high;
  md_samples_interval(&s, 0.95, &low, &high);
  md_samples_interval(&s, 0.95, &again_low, &again_high);
  ck_assert_double_eq(low, again_low);
  ck_assert_double_eq(high, again_high);
  // A median of 9 draws is at most k when 5 of them are: k = 1 in 0.1 % of all cases, 2 in 3.1 %.
  ck_assert(low >= 2 && low <= 3);
  ck_assert(high >= 7 && high <= 8);
  double narrow_low, narrow_high;
  md_samples_interval(&s, 0.5, &narrow_low, &narrow_high);
  ck_assert(narrow_low > low && narrow_high < high);
  md_samples same = SAMPLES(3, 3, 3);
  md_samples_interval(&same, 0.95, &low, &high);
  ck_assert_double_eq(low, 3);
  ck_assert_double_eq(high, 3);
}
END_TEST

START_TEST(warm_up_ends_when_two_rounds_bring_nothing) {
  ck_assert(!md_samples_are_steady(&SAMPLES(10, 10)));
  ck_assert(md_samples_are_steady(&SAMPLES(10, 10, 10)));
  ck_assert(!md_samples_are_steady(&SAMPLES(30, 20, 10)));
  ck_assert(!md_samples_are_steady(&SAMPLES(30, 10, 10)));
  ck_assert(md_samples_are_steady(&SAMPLES(30, 10, 10, 10)));
  ck_assert(!md_samples_are_steady(&SAMPLES(30, 10, 11, 9)));  // it goes on falling
  ck_assert(md_samples_are_steady(&SAMPLES(30, 10, 9.9, 10)));
}
END_TEST

START_TEST(apart_sets_have_the_least_p) {
  // 6 ways to choose 2 ranks of 4; the sets apart in one direction or the other: 2 of them.
  ck_assert_double_eq_tol(md_samples_p(&SAMPLES(1, 2), &SAMPLES(3, 4)), 2.0 / 6, tiny);
  ck_assert_double_eq_tol(md_samples_p(&SAMPLES(1, 2, 3, 4, 5), &SAMPLES(10, 9, 8, 7, 6)),
                          2.0 / 252, tiny);
  ck_assert_double_eq_tol(md_samples_least_p(5, 5), 2.0 / 252, tiny);
  ck_assert_double_eq_tol(md_samples_least_p(2, 2), 2.0 / 6, tiny);
  ck_assert_double_eq_tol(md_samples_least_p(1, 1), 1, tiny);
}
END_TEST

START_TEST(mixed_sets_have_the_exact_p) {
  // Ranks of a: 1, 2, 4, sum 7; the mean is 10.5. Of the 20 sums of three ranks 6 and 7 lie as far
  // below (1 way each), 14 and 15 as far above.
  ck_assert_double_eq_tol(md_samples_p(&SAMPLES(1, 2, 4), &SAMPLES(3, 5, 6)), 4.0 / 20, tiny);
  ck_assert_double_eq_tol(md_samples_p(&SAMPLES(3, 5, 6), &SAMPLES(1, 2, 4)), 4.0 / 20, tiny);
  // The same ranks around the middle: nothing is nearer to it.
  ck_assert_double_eq_tol(md_samples_p(&SAMPLES(1, 4), &SAMPLES(2, 3)), 1, tiny);
}
END_TEST

START_TEST(ties_share_their_rank) {
  // Ranks 1, 2.5 | 2.5, 4: sums of two of 1, 2.5, 2.5, 4 are 3.5 3.5 5 5 6.5 6.5; 3.5 is 1.5 below
  // the mean of 5, as far as 6.5 is above: 4 of 6.
  ck_assert_double_eq_tol(md_samples_p(&SAMPLES(1, 2), &SAMPLES(2, 3)), 4.0 / 6, tiny);
  ck_assert_double_eq_tol(md_samples_p(&SAMPLES(2, 2), &SAMPLES(2, 2)), 1, tiny);
}
END_TEST

static md_samples line(int num, double first, double step) {
  md_samples s = {0};
  for (int i = 0; i < num; i++) md_samples_add(&s, first + i * step);
  return s;
}

START_TEST(many_samples_go_by_the_normal_curve) {
  // 40 + 40, shifted by 10 places of 40: u = sum over a of what lies below = 30 * 29 / 2 + 15 (the
  // halves of ties below), worked out as U = 450 of 1600 with 30 ties of two.
  md_samples a = line(40, 0, 1), b = line(40, 10, 1), c = line(40, 1000, 1), same = line(61, 5, 0);
  double ties = 30 * (8 - 2), n = 80;
  double variance = 1600.0 / 12 * (n + 1 - ties / (n * (n - 1)));
  double z = (800 - 450 - 0.5) / sqrt(variance);
  ck_assert_double_eq_tol(md_samples_p(&a, &b), erfc(z / sqrt(2)), tiny);
  ck_assert(md_samples_p(&a, &b) < 0.01 && md_samples_p(&a, &a) > 0.99);
  ck_assert(md_samples_p(&a, &c) < 1e-12);
  ck_assert_double_eq(md_samples_p(&same, &same), 1);
  // At the border both ways agree.
  md_samples d = line(30, 0, 1), e = line(30, 4.5, 1), f = line(31, 4.5, 1);
  ck_assert_double_eq_tol(md_samples_p(&d, &e), md_samples_p(&d, &f), 0.05);
  md_samples_free(&a), md_samples_free(&b), md_samples_free(&c), md_samples_free(&same);
  md_samples_free(&d), md_samples_free(&e), md_samples_free(&f);
}
END_TEST

static const md_problem_op slide = {"slide",
                                    "slide:n2k3",
                                    {{'n', 1, MD_SIZE_NEEDED, 1, "samples"},
                                     {'k', 3, 1, 1, "kernel"},
                                     {'p', 3, MD_SIZE_DERIVED, 0, "padding"}}};
static const md_problem_op *const ops[] = {&slide};

static bool parse(const char *text, md_problem *p) {
  return md_problem_parse("--op", text, ops, 1, p, NULL);
}

static void check_size(const md_problem *p, char letter, int64_t t, int64_t h, int64_t w) {
  const int64_t *size = md_problem_size(p, letter);
  ck_assert_int_eq(size[0], t);
  ck_assert_int_eq(size[1], h);
  ck_assert_int_eq(size[2], w);
}

static void check_print(const md_problem *p, const char *text) {
  md_text t = {0};
  md_problem_print(p, &t);
  ck_assert_str_eq(t.s, text);
  md_text_free(&t);
}

START_TEST(a_problem_is_read_as_it_is_printed) {
  md_problem p;
  ck_assert(parse("slide:n12k1x2x3p0", &p));
  ck_assert_int_eq(*md_problem_size(&p, 'n'), 12);
  check_size(&p, 'k', 1, 2, 3);
  check_size(&p, 'p', 0, 0, 0);
  check_print(&p, "slide:n12k1x2x3p0");
  ck_assert(parse("slide:k3n2", &p));  // in any order; one size stands for all axes
  check_size(&p, 'k', 3, 3, 3);
  check_size(&p, 'p', MD_SIZE_DERIVED, MD_SIZE_DERIVED, MD_SIZE_DERIVED);
  check_print(&p, "slide:n2k3");
  ck_assert(md_problem_set(&p, "--sweep", "k", "5x5x1", NULL));
  ck_assert(md_problem_set(&p, "--sweep", "n", "4", NULL));
  check_print(&p, "slide:n4k5x5x1");
}
END_TEST

START_TEST(a_problem_that_says_too_little_or_too_much_is_refused) {
  static const char *const wrong[] = {"",
                                      "slide",
                                      "slide:",
                                      "slyde:n2",
                                      "slide:k3",
                                      "slide:n",
                                      "slide:n0",
                                      "slide:n-1",
                                      "slide:n2n3",
                                      "slide:n2x3",
                                      "slide:n2k1x",
                                      "slide:n2k1x3",
                                      "slide:n2k1x1x1x1",
                                      "slide:n2q3",
                                      "slide:n16777217",
                                      "slide:n99999999999999999999",
                                      "slide:n2 k3"};
  md_problem p;
  for (int i = 0; i < MD_COUNT(wrong); i++) ck_assert_msg(!parse(wrong[i], &p), "%s", wrong[i]);
  ck_assert(parse("slide:n16777216", &p));
  ck_assert(!md_problem_set(&p, "--sweep", "nk", "4", NULL));
  ck_assert(!md_problem_set(&p, "--sweep", "n", "4 ", NULL));
}
END_TEST

static void check_sweep(const char *text, const char *key, const char *values) {
  md_arena *a = md_arena_create();
  md_sweep s;
  ck_assert_msg(md_sweep_parse("--sweep", text, a, &s, NULL), "%s", text);
  ck_assert_str_eq(s.key, key);
  md_text all = {0};
  for (int i = 0; i < s.num; i++) md_put(&all, "%s ", s.value[i]);
  ck_assert_str_eq(all.s, values);
  md_text_free(&all);
  md_arena_destroy(a);
}

START_TEST(a_sweep_is_a_list_of_values_and_ranges) {
  check_sweep("batch=4", "batch", "4 ");
  check_sweep("batch=4,8..64*2", "batch", "4 8 16 32 64 ");
  check_sweep("n=1..4", "n", "1 2 3 4 ");
  check_sweep("n=0..10+4,3", "n", "0 4 8 3 ");
  check_sweep("n=5..5", "n", "5 ");
  check_sweep("k=1x3x3,3", "k", "1x3x3 3 ");
  check_sweep("opt.name=sgd,adamw", "opt.name", "sgd adamw ");
  check_sweep("opt.lr=0.1,1e-3", "opt.lr", "0.1 1e-3 ");
}
END_TEST

START_TEST(a_sweep_without_key_value_or_end_is_refused) {
  static const char *const wrong[] = {"",         "n",        "=4",      "n=",       "n=4,",
                                      "n=,4",     "n=4..1",   "n=1..",   "n=1..8*1", "n=0..8*2",
                                      "n=1..8+0", "n=1..8/2", "n=1..65", "n=1..8*2x"};
  md_arena *a = md_arena_create();
  md_sweep s;
  for (int i = 0; i < MD_COUNT(wrong); i++)
    ck_assert_msg(!md_sweep_parse("--sweep", wrong[i], a, &s, NULL), "%s", wrong[i]);
  ck_assert(md_sweep_parse("--sweep", "n=1..64", a, &s, NULL));
  md_arena_destroy(a);
}
END_TEST

SUITE_MAIN("bench", the_median_and_quantiles_go_by_rank, one_far_sample_does_not_move_the_spread,
           the_interval_holds_the_median_and_is_repeatable,
           warm_up_ends_when_two_rounds_bring_nothing, apart_sets_have_the_least_p,
           mixed_sets_have_the_exact_p, ties_share_their_rank, many_samples_go_by_the_normal_curve,
           a_problem_is_read_as_it_is_printed,
           a_problem_that_says_too_little_or_too_much_is_refused,
           a_sweep_is_a_list_of_values_and_ranges, a_sweep_without_key_value_or_end_is_refused)
