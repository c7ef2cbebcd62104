// SPDX-License-Identifier: Apache-2.0
// Numbers as text in a process whose locale writes a decimal comma. The locale is compiled on the
// spot, so that none needs to be installed; without locale sources the test is skipped (77).
#include "base/base.h"

#include "suite.h"

#include <locale.h>

START_TEST(numbers_have_a_point_where_the_locale_has_a_comma) {
  char buf[MD_FLOAT_CHARS];
  double x = 0;
  snprintf(buf, sizeof buf, "%g", 0.5);
  ck_assert_str_eq(buf, "0,5");  // or this test tests nothing
  ck_assert_str_eq(md_float_text(0.1, buf), "0.1");
  ck_assert_str_eq(md_bytes_text(1536, buf), "1.5 KiB");
  ck_assert(md_parse_float("0.25", &x) && x == 0.25);
  ck_assert(!md_parse_float("0,25", &x));
  md_json j = {0};
  md_json_float(&j, 1.25);
  ck_assert_str_eq(j.out.s, "1.25");
  md_text_free(&j.out);
  snprintf(buf, sizeof buf, "%g", 0.5);
  ck_assert_str_eq(buf, "0,5");  // and the caller's locale is left as it was
}
END_TEST

int main(void) {
  char folder[] = "/tmp/modist-locale-XXXXXX", command[256];
  if (!mkdtemp(folder)) return EXIT_FAILURE;
  snprintf(command, sizeof command, "localedef --no-archive -i de_DE -f UTF-8 %s/comma 2>/dev/null",
           folder);
  int built = system(command);
  setenv("LOCPATH", folder, 1);
  bool is_there = built == 0 && setlocale(LC_ALL, "comma");
  snprintf(command, sizeof command, "rm -rf %s", folder);
  if (system(command) != 0) return EXIT_FAILURE;
  if (!is_there) {
    puts("skipped: no sources of locale de_DE (apt-get install locales)");
    return 77;
  }
  const TTest *const tests[] = {numbers_have_a_point_where_the_locale_has_a_comma};
  return run_suite("locale", tests, MD_COUNT(tests));
}
