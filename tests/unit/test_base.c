// SPDX-License-Identifier: Apache-2.0
#include "base/base.h"

#include "base/round.h"

#include "suite.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool all_bytes_are(const unsigned char *p, size_t size, int byte) {
  for (size_t i = 0; i < size; i++)
    if (p[i] != byte) return false;
  return true;
}

START_TEST(memory_is_zeroed_aligned_and_apart) {
  md_arena *a = md_arena_create();
  enum { N = 2000 };
  unsigned char *p[N];
  size_t size[N];
  for (int i = 0; i < N; i++) {
    size[i] = md_hash_at(1, (uint64_t)i) % (i % 100 == 0 ? 600000 : 200);
    p[i] = md_alloc(a, size[i]);
    ck_assert_uint_eq((uintptr_t)p[i] % 16, 0);
    ck_assert(all_bytes_are(p[i], size[i], 0));
    memset(p[i], i & 0xFF, size[i]);
  }
  for (int i = 0; i < N; i++) ck_assert(all_bytes_are(p[i], size[i], i & 0xFF));
  md_arena_destroy(a);
}
END_TEST

START_TEST(reset_frees_and_memory_is_zero_again) {
  md_arena *a = md_arena_create();
  memset(md_alloc(a, 1000), 0xFF, 1000);
  ck_assert_uint_eq(md_arena_bytes(a), 1008);
  md_arena_reset(a);
  ck_assert_uint_eq(md_arena_bytes(a), 0);
  ck_assert(all_bytes_are(md_alloc(a, 1000), 1000, 0));
  md_arena_destroy(a);
}
END_TEST

START_TEST(copies_and_formats_end_in_nul) {
  md_arena *a = md_arena_create();
  ck_assert_str_eq(md_strdup(a, "s4.b2"), "s4.b2");
  ck_assert_str_eq(md_strndup(a, "s4.b2", 2), "s4");
  ck_assert_str_eq(md_strndup(a, "s4", 9), "s4");
  ck_assert_str_eq(md_format(a, "%s.%d", "b", 12), "b.12");
  ck_assert_str_eq(md_format(a, "%s", ""), "");
  md_arena_destroy(a);
}
END_TEST

// What the process ends with when `bad` runs in a child.
static int exit_of(void (*bad)(void)) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    if (!freopen("/dev/null", "w", stderr)) _Exit(99);
    bad();
    _Exit(98);
  }
  int status = 0;
  ck_assert_int_eq(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void ask_for_too_much(void) {
  md_arena *a = md_arena_create();
  md_alloc_array(a, SIZE_MAX / 8, 16);
}
static void say_hook(void *code) { _Exit(*(int *)code); }
static void break_assertion(void) {
  static int code = 42;
  md_assert_hook(say_hook, &code);
  MD_ASSERT(1 + 1 == 3, "sum is %d", 2);
}
static void break_assertion_without_hook(void) { MD_ASSERT(1 + 1 == 3, "sum is %d", 2); }

START_TEST(impossible_size_ends_with_exit_code_6) {
  ck_assert_int_eq(exit_of(ask_for_too_much), 6);
}
END_TEST

START_TEST(broken_assertion_runs_the_hook_and_aborts) {
  ck_assert_int_eq(exit_of(break_assertion), 42);
  ck_assert_int_eq(exit_of(break_assertion_without_hook), -SIGABRT);
}
END_TEST

START_TEST(sizes_refuse_overflow_and_negatives) {
  int64_t y = -7;
  ck_assert(!md_mul_size(INT64_MAX / 2 + 1, 2, &y));
  ck_assert(!md_mul_size(-1, 2, &y));
  ck_assert(!md_mul_size(0, -1, &y));
  ck_assert(!md_add_size(INT64_MAX, 1, &y));
  ck_assert(!md_add_size(5, -1, &y));
  ck_assert_int_eq(y, -7);
  ck_assert(md_mul_size(1LL << 31, 1LL << 31, &y) && y == 1LL << 62);
  ck_assert(md_add_size(INT64_MAX - 1, 1, &y) && y == INT64_MAX);
  ck_assert_int_eq(md_round_up(0, 64), 0);
  ck_assert_int_eq(md_round_up(65, 64), 128);
  ck_assert_int_eq(md_ceil_div(INT64_MAX, 2), INT64_MAX / 2 + 1);
}
END_TEST

START_TEST(integers_take_the_whole_string) {
  int64_t x = 0;
  ck_assert(md_parse_int("-9223372036854775808", &x) && x == INT64_MIN);
  ck_assert(md_parse_int("+12", &x) && x == 12);
  ck_assert(md_parse_int("007", &x) && x == 7);
  const char *const bad[] = {"",   "-", " 1", "1 ", "1x", "0x10", "1.0", "9223372036854775808",
                             "--1"};
  for (int i = 0; i < MD_COUNT(bad); i++) ck_assert_msg(!md_parse_int(bad[i], &x), "'%s'", bad[i]);
}
END_TEST

START_TEST(floats_take_the_whole_string) {
  double x = 0;
  ck_assert(md_parse_float("1e-05", &x) && x == 1e-5);
  ck_assert(md_parse_float("-inf", &x) && x == -INFINITY);
  ck_assert(md_parse_float("nan", &x) && isnan(x));
  ck_assert(md_parse_float("0x1p-3", &x) && x == 0.125);
  ck_assert(md_parse_float("1e-400", &x) && x == 0);
  const char *const bad[] = {"", "-", " 1", "1 ", "1,5", "1.5f", "1e", "1e999", "-1e999", "x"};
  for (int i = 0; i < MD_COUNT(bad); i++)
    ck_assert_msg(!md_parse_float(bad[i], &x), "'%s'", bad[i]);
}
END_TEST

START_TEST(float_text_is_short_and_reads_back_to_the_same_bits) {
  char buf[MD_FLOAT_CHARS];
  ck_assert_str_eq(md_float_text(0.1, buf), "0.1");
  ck_assert_str_eq(md_float_text(1e-5, buf), "1e-05");
  ck_assert_str_eq(md_float_text(2, buf), "2");
  ck_assert_str_eq(md_float_text(-0.0, buf), "-0");
  ck_assert_str_eq(md_float_text(0.1 + 0.2, buf), "0.30000000000000004");
  ck_assert_str_eq(md_float_text(DBL_TRUE_MIN, buf), "5e-324");
  ck_assert_str_eq(md_float_text(INFINITY, buf), "inf");
  ck_assert_str_eq(md_float_text(-INFINITY, buf), "-inf");
  ck_assert_str_eq(md_float_text(NAN, buf), "nan");
  for (uint64_t i = 0; i < 20000; i++) {
    uint64_t bits = md_hash_at(2, i), back_bits;
    double x, back;
    memcpy(&x, &bits, sizeof x);
    if (!isfinite(x)) continue;
    ck_assert(md_parse_float(md_float_text(x, buf), &back));
    memcpy(&back_bits, &back, sizeof back);
    ck_assert_msg(bits == back_bits, "%a became %s", x, buf);
  }
}
END_TEST

START_TEST(bytes_are_read_as_they_are_shown) {
  int64_t x = -1;
  ck_assert(md_parse_bytes("312", &x) && x == 312);
  ck_assert(md_parse_bytes("1400M", &x) && x == 1400 << 20);
  ck_assert(md_parse_bytes("1.5G", &x) && x == 3 << 29);
  ck_assert(md_parse_bytes("1.5GiB", &x) && x == 3 << 29);
  ck_assert(md_parse_bytes("0.5K", &x) && x == 512);
  ck_assert(md_parse_bytes("2T", &x) && x == (int64_t)2 << 40);
  ck_assert(md_parse_bytes("9223372036854775807", &x) && x == INT64_MAX);
  static const char *const bad[] = {
      "",    "0",    "-1",    "K",   "G1",      "1.5",  "1GB",  "1g", "1 G",
      "1iB", "12iB", "1GiBs", "-1G", "0.0001K", "infG", "nanG", "8E", "9223372036854775808"};
  for (int i = 0; i < MD_COUNT(bad); i++)
    ck_assert_msg(!md_parse_bytes(bad[i], &x), "'%s'", bad[i]);
}
END_TEST

START_TEST(bytes_are_shown_with_the_unit_that_fits) {
  char buf[MD_FLOAT_CHARS];
  ck_assert_str_eq(md_bytes_text(0, buf), "0 B");
  ck_assert_str_eq(md_bytes_text(312, buf), "312 B");
  ck_assert_str_eq(md_bytes_text(1023, buf), "1023 B");
  ck_assert_str_eq(md_bytes_text(1024, buf), "1.0 KiB");
  ck_assert_str_eq(md_bytes_text(1.5 * (1 << 30), buf), "1.5 GiB");
  ck_assert_str_eq(md_bytes_text(1024 * 1024 - 1, buf), "1.0 MiB");
}
END_TEST

START_TEST(bf16_rounds_to_nearest_even) {
  ck_assert_uint_eq(md_bf16_from_float(1), 0x3F80);
  ck_assert_uint_eq(md_bf16_from_float(1 + 0x1p-8f), 0x3F80);      // tie, down to even
  ck_assert_uint_eq(md_bf16_from_float(1 + 3 * 0x1p-8f), 0x3F82);  // tie, up to even
  ck_assert_uint_eq(md_bf16_from_float(1 + 0x1p-8f + 0x1p-20f), 0x3F81);
  ck_assert_uint_eq(md_bf16_from_float(FLT_MAX), 0x7F80);  // rounds to infinity
  ck_assert_uint_eq(md_bf16_from_float(-INFINITY), 0xFF80);
  uint32_t signalling = 0x7F800001;
  float nan_in;
  memcpy(&nan_in, &signalling, sizeof nan_in);
  ck_assert(isnan(md_bf16_to_float(md_bf16_from_float(nan_in))));
  for (uint32_t u = 0; u < 0x10000; u++) {
    float x = md_bf16_to_float((uint16_t)u);
    if (!isnan(x)) ck_assert_uint_eq(md_bf16_from_float(x), u);
  }
}
END_TEST

// From an independent implementation in Python.
START_TEST(element_types_hold_the_nearest_they_can) {
  ck_assert_int_eq(md_integer_of(MD_I32, 2.7), 2);
  ck_assert_int_eq(md_integer_of(MD_I32, -2.7), -2);
  ck_assert_int_eq(md_integer_of(MD_I32, 1e10), INT32_MAX);
  ck_assert_int_eq(md_integer_of(MD_I64, -INFINITY), INT64_MIN);
  ck_assert_int_eq(md_integer_of(MD_I64, NAN), 0);
  ck_assert_int_eq(md_integer_of(MD_U8, 300), 255);
  ck_assert_int_eq(md_integer_of(MD_U8, -5), 0);
  ck_assert_int_eq(md_integer_of(MD_BOOL, 0.5), 1);
  ck_assert_int_eq(md_integer_of(MD_BOOL, -0.0), 0);
  ck_assert_int_eq(md_integer_of(MD_BOOL, NAN), 1);
  ck_assert(md_rounded(MD_BF16, 1.3) == 1.296875);
  ck_assert(md_rounded(MD_F32, 0.1) == (double)0.1f);
  ck_assert(md_rounded(MD_F64, 0.1) == 0.1);
  ck_assert(md_rounded(MD_U8, 41.9) == 41);
}
END_TEST

START_TEST(hash_gives_the_numbers_of_the_golden_sets) {
  uint64_t x1 = md_hash_key("x", 1), conv = md_hash_key("conv1.weight", 7);
  ck_assert_uint_eq(x1, 0x7ed6bf7e5790fa04);
  ck_assert_uint_eq(md_hash_at(x1, 0), 0xb7fd88e08227b782);
  ck_assert_uint_eq(md_hash_at(x1, 1000003), 0x9aca1fc9f86f7607);
  ck_assert_uint_eq(md_hash_key("", 0), 0xcbf29ce484222325);
  ck_assert_uint_eq(conv, 0xd2579d4f5543a941);
  ck_assert_uint_eq(md_hash_at(conv, 1), 0x6720e56302aeb7cd);
  ck_assert_double_eq(md_hash_unit(conv, 0), (2 * 6962203.0 - 16777216) / 16777216);
  ck_assert_double_eq(md_hash_01(x1, 1), 15440673 / 16777216.0);
}
END_TEST

START_TEST(normal_numbers_have_mean_0_and_variance_1) {
  const int N = 200000;
  double sum = 0, squares = 0, fourth = 0;
  for (int i = 0; i < N; i++) {
    double x = md_hash_normal(99, (uint64_t)i);
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  // Five standard errors: 1/sqrt(N), sqrt(2/N), sqrt(96/N).
  ck_assert_double_eq_tol(sum / N, 0, 0.0112);
  ck_assert_double_eq_tol(squares / N, 1, 0.0159);
  ck_assert_double_eq_tol(fourth / N, 3, 0.11);
}
END_TEST

START_TEST(digest_is_xxh3_128) {
  char buf[33];
  ck_assert_str_eq(md_digest_text(md_digest_of("", 0), buf), "99aa06d3014798d86001c324468d497f");
}
END_TEST

START_TEST(pushed_items_stay_in_order) {
  int *v = NULL, num_v = 0, cap_v = 0;
  for (int i = 0; i < 1000; i++) MD_PUSH(v, num_v, cap_v, 3 * i);
  ck_assert_int_eq(num_v, 1000);
  for (int i = 0; i < 1000; i++) ck_assert(v[i] == 3 * i);
  free(v);
}
END_TEST

START_TEST(text_grows_and_keeps_bytes) {
  md_text t = {0};
  for (int i = 0; i < 300; i++) md_put(&t, "%d,", i);
  md_put_bytes(&t, "a\0b", 3);
  ck_assert_uint_eq(t.len, 10 * 2 + 90 * 3 + 200 * 4 + 3);
  ck_assert_mem_eq(t.s, "0,1,2,", 6);
  ck_assert_mem_eq(t.s + t.len - 7, "299,a\0b", 8);  // with the NUL that is always there
  md_text_free(&t);
  ck_assert_ptr_null(t.s);
}
END_TEST

START_TEST(nearest_finds_slips_and_nothing_else) {
  const char *const names[] = {"conv2d", "relu", "batch_norm", "max_pool3d", "momentum", "x"};
  const int n = MD_COUNT(names);
  ck_assert_str_eq(md_nearest("rleu", names, n), "relu");  // a swap is one edit
  ck_assert_str_eq(md_nearest("batchnorm", names, n), "batch_norm");
  ck_assert_str_eq(md_nearest("momentun", names, n), "momentum");
  ck_assert_str_eq(md_nearest("conv", names, n), "conv2d");  // unfinished
  ck_assert_ptr_null(md_nearest("softmax", names, n));
  ck_assert_ptr_null(md_nearest("y", names, n));
  ck_assert_ptr_null(md_nearest("", names, n));
  char *longest = calloc(100001, 1);
  memset(longest, 'a', 100000);
  ck_assert_ptr_null(md_nearest(longest, names, n));
  free(longest);
}
END_TEST

START_TEST(utf8_refuses_what_is_not_utf8) {
  uint32_t code = 0;
  ck_assert(md_utf8("\xC3\xA9", &code) == 2 && code == 0xE9);
  ck_assert(md_utf8("\xF0\x9F\x8E\xA5", &code) == 4 && code == 0x1F3A5);
  const char *const bad[] = {"\x80",         "\xC3",         "\xC0\xAF",
                             "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                             "\xFF",         "\xE2\x82"};
  for (int i = 0; i < MD_COUNT(bad); i++) ck_assert_int_eq(md_utf8(bad[i], &code), 0);
}
END_TEST

START_TEST(base64_pads_to_groups_of_four) {  // the examples of RFC 4648
  static const char *const want[] = {"",         "Zg==",     "Zm8=",    "Zm9v",
                                     "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
  for (size_t len = 0; len <= 6; len++) {
    md_text t = {0};
    md_put(&t, "%s", "");
    md_put_base64(&t, "foobar", len);
    ck_assert_str_eq(t.s, want[len]);
    md_text_free(&t);
  }
  md_text t = {0};
  md_put_base64(&t, "\xfb\xff\xbf", 3);
  ck_assert_str_eq(t.s, "+/+/");
  md_text_free(&t);
}
END_TEST

START_TEST(cleaned_text_cannot_steer_a_terminal) {
  char buf[32], small[4];
  ck_assert_str_eq(md_clean("a\033[31mb\n\x7F", buf, sizeof buf), "a?[31mb??");
  ck_assert_str_eq(md_clean("caf\xC3\xA9", buf, sizeof buf), "caf\xC3\xA9");
  ck_assert_str_eq(md_clean("\xC2\x9B\xE2\x80\xAE\xFFz", buf, sizeof buf), "???z");
  ck_assert_str_eq(md_clean("ab\xC3\xA9", small, sizeof small), "ab");  // no half letter
}
END_TEST

START_TEST(json_needs_no_care_about_commas_and_escapes) {
  md_json j = {.compact = true};
  md_json_begin(&j, '{');
  md_json_key(&j, "a\"b");
  md_json_begin(&j, '[');
  md_json_int(&j, -5);
  md_json_float(&j, 0.5);
  md_json_float(&j, NAN);
  md_json_bool(&j, true);
  md_json_begin(&j, '{');
  md_json_end(&j, '}');
  md_json_end(&j, ']');
  md_json_key(&j, "s");
  md_json_str(&j, "x\n\t\\\xFF\xC3\xA9");
  md_json_end(&j, '}');
  ck_assert_str_eq(j.out.s, "{\"a\\\"b\":[-5,0.5,null,true,{}],"
                            "\"s\":\"x\\n\\u0009\\\\\\ufffd\xC3\xA9\"}");
  md_text_free(&j.out);
}
END_TEST

START_TEST(json_is_indented_unless_compact) {
  md_json j = {0};
  md_json_begin(&j, '{');
  md_json_key(&j, "a");
  md_json_int(&j, 1);
  md_json_key(&j, "b");
  md_json_begin(&j, '[');
  md_json_int(&j, 2);
  md_json_end(&j, ']');
  md_json_end(&j, '}');
  ck_assert_str_eq(j.out.s, "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}");
  md_text_free(&j.out);
}
END_TEST

START_TEST(clock_goes_forward) {
  int64_t before = md_now_ns();
  usleep(2000);
  ck_assert_int_ge(md_now_ns() - before, 2000000);
}
END_TEST

SUITE_MAIN("base", memory_is_zeroed_aligned_and_apart, reset_frees_and_memory_is_zero_again,
           copies_and_formats_end_in_nul, impossible_size_ends_with_exit_code_6,
           broken_assertion_runs_the_hook_and_aborts, sizes_refuse_overflow_and_negatives,
           integers_take_the_whole_string, floats_take_the_whole_string,
           float_text_is_short_and_reads_back_to_the_same_bits, bytes_are_read_as_they_are_shown,
           bytes_are_shown_with_the_unit_that_fits, bf16_rounds_to_nearest_even,
           element_types_hold_the_nearest_they_can, hash_gives_the_numbers_of_the_golden_sets,
           normal_numbers_have_mean_0_and_variance_1, digest_is_xxh3_128,
           pushed_items_stay_in_order, text_grows_and_keeps_bytes,
           nearest_finds_slips_and_nothing_else, utf8_refuses_what_is_not_utf8,
           base64_pads_to_groups_of_four, cleaned_text_cannot_steer_a_terminal,
           json_needs_no_care_about_commas_and_escapes, json_is_indented_unless_compact,
           clock_goes_forward)
