// SPDX-License-Identifier: Apache-2.0
#include "base/diag.h"
#include "base/log.h"

#include "suite.h"

#include <string.h>

static md_place at(const char *file, int line, int col, int len) {
  return (md_place){file, line, col, len};
}

START_TEST(error_shows_place_line_caret_note_and_hint) {
  md_diags *d = md_diags_create();
  const char *text = "a: 1\n  momentum_coef: 0.999\nb: 2\n";
  md_diags_source(d, "k400.yaml", text, strlen(text));
  ck_assert(!md_error(d, E0201, at("k400.yaml", 2, 3, 13), "unknown key '%s'", "momentum_coef"));
  md_note(d, MD_NOWHERE, "keys of this mapping: lr, momentum");
  md_note(d, at("k400.yaml", 1, 1, 0), "first used here");
  md_hint(d, "did you mean '%s'?", "momentum");
  ck_assert_str_eq(md_diags_text(d), "k400.yaml:2:3: error[E0201]: unknown key 'momentum_coef'\n"
                                     "    2 |   momentum_coef: 0.999\n"
                                     "      |   ^~~~~~~~~~~~~\n"
                                     "   note: keys of this mapping: lr, momentum\n"
                                     "   note: k400.yaml:1:1: first used here\n"
                                     "    1 | a: 1\n"
                                     "      | ^\n"
                                     "   hint: did you mean 'momentum'?\n");
  md_diags_destroy(d);
}
END_TEST

START_TEST(place_may_be_a_file_or_nothing) {
  md_diags *d = md_diags_create();
  md_error(d, E0401, MD_NOWHERE, "no command");
  md_warning(d, MD_IN_FILE("a.mp4"), "3 frames damaged");
  ck_assert_str_eq(md_diags_text(d), "error[E0401]: no command\n"
                                     "a.mp4: warning: 3 frames damaged\n");
  ck_assert_int_eq(md_diags_errors(d), 1);
  ck_assert_int_eq(md_diags_warnings(d), 1);
  md_diags_destroy(d);
}
END_TEST

START_TEST(status_is_that_of_the_first_error) {
  md_diags *d = md_diags_create();
  ck_assert_int_eq(md_diags_status(d), MD_OK);
  md_warning(d, MD_NOWHERE, "careful");
  ck_assert_int_eq(md_diags_status(d), MD_OK);
  md_error(d, E0601, MD_NOWHERE, "damaged");
  md_error(d, E0201, MD_NOWHERE, "not YAML");
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  md_diags_clear(d);
  ck_assert_int_eq(md_diags_status(d), MD_OK);
  ck_assert_int_eq(md_diags_errors(d), 0);
  ck_assert_str_eq(md_diags_text(d), "");
  md_diags_destroy(d);
}
END_TEST

START_TEST(after_twenty_errors_the_rest_is_counted) {
  md_diags *d = md_diags_create();
  for (int i = 0; i < 23; i++) {
    md_error(d, E0101, MD_NOWHERE, "number %d", i);
    md_hint(d, "of number %d", i);
  }
  ck_assert_int_eq(md_diags_errors(d), 23);
  const char *s = md_diags_text(d);
  ck_assert_ptr_nonnull(strstr(s, "number 19\n   hint: of number 19\n3 more errors not shown\n"));
  ck_assert_ptr_null(strstr(s, "number 20"));
  md_warning(d, MD_NOWHERE, "also");
  s = md_diags_text(d);
  ck_assert_ptr_nonnull(strstr(s, "warning: also\n3 more errors not shown\n"));
  ck_assert_ptr_eq(strstr(s, "more errors"), strstr(s, "more errors not shown\n"));
  md_diags_destroy(d);
}
END_TEST

START_TEST(caret_stands_under_the_letter_after_tabs_and_utf8) {
  md_diags *d = md_diags_create();
  const char *text = "\tn\xC3\xA9: \xFF x\r\n";
  md_diags_source(d, "f", text, strlen(text));
  md_error(d, E0201, at("f", 1, 9, 1), "x");
  ck_assert_str_eq(md_diags_text(d), "f:1:9: error[E0201]: x\n"
                                     "    1 |  n\xC3\xA9: ? x\n"
                                     "      |        ^\n");
  md_diags_destroy(d);
}
END_TEST

START_TEST(long_line_is_cut_around_the_caret) {
  md_diags *d = md_diags_create();
  char *text = malloc(100001);
  memset(text, 'a', 100000);
  text[100000] = '\0';
  text[5000] = 'X';
  md_diags_source(d, "f", text, 100000);
  md_error(d, E0101, at("f", 1, 5001, 1), "here");
  const char *s = md_diags_text(d);
  ck_assert_uint_lt(strlen(s), 400);
  const char *line = strstr(s, "    1 | ...aaa"), *marks = strstr(s, "      | ");
  ck_assert(line && marks);
  ck_assert_int_eq(strchr(line, 'X') - line, strchr(marks, '^') - marks);
  free(text);
  md_diags_destroy(d);
}
END_TEST

START_TEST(places_outside_the_source_do_no_harm) {
  md_diags *d = md_diags_create();
  md_diags_source(d, "f", "ab", 2);
  md_error(d, E0101, at("f", 1, 3, 5), "at the end");
  md_error(d, E0101, at("f", 1, 900, 5), "behind the end");
  md_error(d, E0101, at("f", 7, 1, 1), "no such line");
  md_error(d, E0101, at("g", 1, 1, 1), "no such file");
  ck_assert_str_eq(md_diags_text(d), "f:1:3: error[E0101]: at the end\n"
                                     "    1 | ab\n"
                                     "      |   ^\n"
                                     "f:1:900: error[E0101]: behind the end\n"
                                     "    1 | ab\n"
                                     "      |   ^\n"
                                     "f:7:1: error[E0101]: no such line\n"
                                     "g:1:1: error[E0101]: no such file\n");
  md_diags_destroy(d);
}
END_TEST

START_TEST(names_from_files_cannot_steer_a_terminal) {
  md_diags *d = md_diags_create();
  md_error(d, E0101, MD_IN_FILE("a\033[2J"), "tensor '%s'", "b\033]0;x\007");
  md_note(d, MD_NOWHERE, "two\nlines");
  ck_assert_str_eq(md_diags_text(d), "a?[2J: error[E0101]: tensor 'b?]0;x?'\n"
                                     "   note: two\n         lines\n");
  md_diags_destroy(d);
}
END_TEST

START_TEST(without_a_collector_errors_still_return_false) {
  ck_assert(!md_error(NULL, E0101, MD_NOWHERE, "x"));
  md_warning(NULL, MD_NOWHERE, "x");
  md_note(NULL, MD_NOWHERE, "x");
  md_hint(NULL, "x");
}
END_TEST

START_TEST(colour_adds_only_escapes) {
  md_diags *d = md_diags_create();
  md_diags_source(d, "f", "ab", 2);
  md_error(d, E0101, at("f", 1, 1, 2), "x");
  char *shown = NULL;
  size_t len = 0;
  FILE *to = open_memstream(&shown, &len);
  md_diags_print(d, to, true);
  fclose(to);
  ck_assert_ptr_nonnull(strstr(shown, "\033[1;31merror[E0101]\033[0m: x\n"));
  char *w = shown;
  for (const char *p = shown; *p; p++) {
    if (*p == '\033') p = strchr(p, 'm');
    else *w++ = *p;
  }
  *w = '\0';
  ck_assert_str_eq(shown, md_diags_text(d));
  free(shown);
  md_diags_destroy(d);
}
END_TEST

START_TEST(every_code_has_title_text_and_status) {
  for (int i = MD_NO_CODE + 1; i < MD_NUM_CODES; i++) {
    const md_code_row *row = &md_codes[i];
    ck_assert_msg(row->name && strlen(row->name) == 5 && row->name[0] == 'E', "row %d", i);
    ck_assert_msg(row->title && *row->title && row->text && *row->text, "%s", row->name);
    ck_assert_msg(row->status > MD_OK, "%s", row->name);
    for (int k = 1; k < i; k++) ck_assert_str_ne(row->name, md_codes[k].name);
  }
}
END_TEST

START_TEST(log_topics_are_set_by_name) {
  char why[256] = "";
  ck_assert(!md_log_on(MD_LOG_PASSES, MD_LEVEL_INFO));
  ck_assert(md_log_on(MD_LOG_PASSES, MD_LEVEL_WARN));
  ck_assert(md_log_setup("passes,cache=debug", why, sizeof why));
  ck_assert(md_log_on(MD_LOG_PASSES, MD_LEVEL_INFO) && !md_log_on(MD_LOG_PASSES, MD_LEVEL_DEBUG));
  ck_assert(md_log_on(MD_LOG_CACHE, MD_LEVEL_DEBUG) && !md_log_on(MD_LOG_MEM, MD_LEVEL_INFO));
  ck_assert(md_log_setup("all", why, sizeof why) && md_log_on(MD_LOG_CKPT, MD_LEVEL_INFO));
  ck_assert(md_log_setup("", why, sizeof why) && !md_log_on(MD_LOG_CKPT, MD_LEVEL_INFO));
}
END_TEST

START_TEST(unknown_log_words_change_nothing_and_are_explained) {
  char why[256] = "";
  ck_assert(md_log_setup("", why, sizeof why));
  ck_assert(!md_log_setup("mem,pases", why, sizeof why));
  ck_assert_str_eq(why, "unknown log topic 'pases'; known are config graph passes fusion codegen "
                        "cache mem exec data ckpt all; did you mean 'passes'?");
  ck_assert(!md_log_on(MD_LOG_MEM, MD_LEVEL_INFO));
  ck_assert(!md_log_setup("mem=loud", why, sizeof why));
  ck_assert_str_eq(why, "unknown log level 'loud'; known are warn info debug");
}
END_TEST

START_TEST(what_another_process_told_counts_and_is_not_said_again) {
  md_diags *d = md_diags_create();
  ck_assert(!md_told(d, MD_ERR_MEMORY));
  md_error(d, E0401, MD_NOWHERE, "later");
  ck_assert_int_eq(md_diags_errors(d), 2);
  ck_assert_int_eq(md_diags_status(d), MD_ERR_MEMORY);
  ck_assert_str_eq(md_diags_text(d), "error[E0401]: later\n");
  md_diags_destroy(d);
}
END_TEST

START_TEST(a_reason_is_the_first_line_alone) {
  char why[40];
  md_diags *d = md_diags_create();
  md_diags_reason(d, why, sizeof why);
  ck_assert_str_eq(why, "");
  md_error(d, E0401, MD_IN_FILE("a.mdx"), "what [1]: is wrong");
  md_hint(d, "what to do");
  md_error(d, E0401, MD_NOWHERE, "another");
  md_diags_reason(d, why, sizeof why);
  ck_assert_str_eq(why, "what [1]: is wrong");
  md_diags_destroy(d);
}
END_TEST

SUITE_MAIN("diag", a_reason_is_the_first_line_alone, error_shows_place_line_caret_note_and_hint,
           place_may_be_a_file_or_nothing, status_is_that_of_the_first_error,
           after_twenty_errors_the_rest_is_counted,
           caret_stands_under_the_letter_after_tabs_and_utf8, long_line_is_cut_around_the_caret,
           places_outside_the_source_do_no_harm, names_from_files_cannot_steer_a_terminal,
           without_a_collector_errors_still_return_false, colour_adds_only_escapes,
           every_code_has_title_text_and_status, log_topics_are_set_by_name,
           unknown_log_words_change_nothing_and_are_explained,
           what_another_process_told_counts_and_is_not_said_again)
