// SPDX-License-Identifier: Apache-2.0
// A Check program with one suite. A table of tests, then SUITE_MAIN.
#ifndef TESTS_UNIT_SUITE_H
#define TESTS_UNIT_SUITE_H

#include <check.h>
#include <stdlib.h>

// Generated code is checked by AddressSanitizer where the test is.
#if defined(__SANITIZE_ADDRESS__)
enum { JIT_ASAN = 1 };
#elif defined(__has_feature)
enum { JIT_ASAN = __has_feature(address_sanitizer) };
#else
enum { JIT_ASAN = 0 };
#endif

// `tests` is an array of const TTest *: the names that START_TEST declares.
static int run_suite(const char *name, const TTest *const *tests, int num_tests) {
  Suite *suite = suite_create(name);
  TCase *tc = tcase_create(name);
  for (int i = 0; i < num_tests; i++) tcase_add_test(tc, tests[i]);
  tcase_set_timeout(tc, 60);
  suite_add_tcase(suite, tc);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int num_failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return num_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define SUITE_MAIN(name, ...)                                           \
  int main(void) {                                                      \
    const TTest *const tests[] = {__VA_ARGS__};                         \
    return run_suite(name, tests, (int)(sizeof tests / sizeof *tests)); \
  }

#endif
