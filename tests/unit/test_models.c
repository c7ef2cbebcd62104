// SPDX-License-Identifier: Apache-2.0
// Networks have the sizes that the paper's tables and the reference say (spec §1, README of the golden
// sets).
#include "models/models.h"
#include "tests/unit/suite.h"

#include <math.h>

static md_net_size size_of(const char *name, int64_t frames, int64_t size, bool with_head) {
  const md_net *net = md_net_from(name);
  ck_assert_msg(net != NULL, "no network %s", name);
  return md_net_measure(net, frames, size, with_head);
}

// Multiply-accumulates are stated with so many digits of a giga.
static void expect_macs(const char *name, int64_t frames, int64_t size, double giga, int digits) {
  double found = (double)size_of(name, frames, size, false).macs / 1e9;
  ck_assert_msg(fabs(found - giga) <= 0.5 * pow(10, -digits) + 1e-12, "%s: %.6f GMAC, not %g", name,
                found, giga);
}

START_TEST(networks_have_the_parameters_of_the_tables) {
  static const struct {
    const char *name;
    int64_t params;
  } want[] = {{"r3d50", 31672128},        {"r3d18_slow", 20061504}, {"frames2d", 374152},
              {"frames2d_stem5", 378856}, {"stack48", 391792},      {"motion18", 176712}};
  for (int i = 0; i < MD_COUNT(want); i++)
    ck_assert_int_eq(size_of(want[i].name, 0, 0, false).params, want[i].params);
}
END_TEST

START_TEST(heads_have_theirs) {
  ck_assert_int_eq(size_of("r3d50", 0, 0, true).params - 31672128, 4458624);
}
END_TEST

START_TEST(work_of_a_clip_is_that_of_the_tables) {
  expect_macs("r3d50", 8, 224, 45.52, 2);
  expect_macs("r3d50", 8, 256, 59.45, 2);
  expect_macs("r3d50", 16, 224, 91.03, 2);
  expect_macs("r3d50", 32, 224, 182.07, 2);
  expect_macs("r3d18", 8, 128, 26.58, 2);
  expect_macs("r3d18_slow", 8, 128, 7.783, 3);
  expect_macs("frames2d", 16, 224, 1.228, 3);
  expect_macs("frames2d_stem5", 16, 224, 2.172, 3);
  expect_macs("stack48", 16, 224, 0.298, 3);
  expect_macs("motion18", 16, 128, 0.215, 3);
}
END_TEST

START_TEST(the_usual_clip_stands_for_zeros) {
  ck_assert_int_eq(size_of("r3d50", 0, 0, false).macs, size_of("r3d50", 8, 224, false).macs);
}
END_TEST

SUITE_MAIN("models", networks_have_the_parameters_of_the_tables, heads_have_theirs,
           work_of_a_clip_is_that_of_the_tables, the_usual_clip_stands_for_zeros)
