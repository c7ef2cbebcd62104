// SPDX-License-Identifier: Apache-2.0
// safetensors files: what is written comes back, and nothing damaged gets in.
#include "base/file.h"
#include "base/safetensors.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[64];

static void make_path(void) {
  snprintf(path, sizeof path, "/tmp/modist-st-XXXXXX");
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  close(fd);
}

static void remove_path(void) { unlink(path); }

// A file of this header, its size in front, then n bytes of data.
static void put_file(const char *header, size_t claimed, int n) {
  char bytes[4096] = {0};
  size_t len = strlen(header);
  ck_assert_uint_lt(8 + len + (size_t)n, sizeof bytes);
  for (int i = 0; i < 8; i++) bytes[i] = (char)(claimed >> (8 * i));
  memcpy(bytes + 8, header, len);
  for (int i = 0; i < n; i++) bytes[8 + len + (size_t)i] = (char)i;
  ck_assert(md_file_save(path, bytes, 8 + len + (size_t)n, NULL));
}

START_TEST(what_is_written_comes_back) {
  float f[6] = {1, 2, 3, 4, 5, -0.5f};
  int64_t i[2] = {-1, (int64_t)1 << 60};
  unsigned char flag[3] = {0, 1, 1};
  double d = 0.1;
  md_st_tensor t[] = {
      {"flag", MD_BOOL, 1, {3}, flag, 3},       {"w", MD_F32, 2, {2, 3}, f, sizeof f},
      {"id\"s\\", MD_I64, 1, {2}, i, sizeof i}, {"scalar", MD_F64, 0, {0}, &d, sizeof d},
      {"none", MD_F32, 2, {0, 4}, f, 0},
  };
  md_st_meta meta[] = {{"format", "modist"}, {"step", "7\n"}};
  md_diags *diags = md_diags_create();
  ck_assert_msg(md_safetensors_write(path, t, 5, meta, 2, diags), "%s", md_diags_text(diags));
  md_safetensors *s = md_safetensors_read(path, diags);
  ck_assert_msg(s, "%s", md_diags_text(diags));
  ck_assert_int_eq(s->num, 5);
  ck_assert_int_eq(s->num_meta, 2);
  ck_assert_str_eq(s->meta[1].value, "7\n");
  for (int k = 0; k < 5; k++) {
    const md_st_tensor *got = md_safetensors_find(s, t[k].name);
    ck_assert_ptr_nonnull(got);
    ck_assert_int_eq(got->dtype, t[k].dtype);
    ck_assert_int_eq(got->rank, t[k].rank);
    for (int a = 0; a < got->rank; a++) ck_assert_int_eq(got->dim[a], t[k].dim[a]);
    ck_assert_uint_eq(got->bytes, t[k].bytes);
    ck_assert(memcmp(got->data, t[k].data, t[k].bytes) == 0);
  }
  ck_assert_ptr_null(md_safetensors_find(s, "other"));
  // Aligned: larger elements first, and the data starts at a multiple of 8.
  ck_assert_uint_eq((uintptr_t)md_safetensors_find(s, "scalar")->data % 8, 0);
  ck_assert_uint_eq((uintptr_t)md_safetensors_find(s, "w")->data % 4, 0);
  md_safetensors_destroy(s);
  md_diags_destroy(diags);
}
END_TEST

START_TEST(a_file_without_tensors_is_a_file) {
  put_file("{}", 2, 0);
  md_safetensors *s = md_safetensors_read(path, NULL);
  ck_assert_ptr_nonnull(s);
  ck_assert_int_eq(s->num, 0);
  ck_assert_ptr_null(md_safetensors_find(s, "x"));
  md_safetensors_destroy(s);
}
END_TEST

#define X(offsets) "\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" offsets "}"
#define Y(offsets) "\"y\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":" offsets "}"

// A broken file, and a word of what is said about it.
static const struct {
  const char *header;
  int data;
  const char *says;
} broken[] = {
    {"{" X("[0,4]") "," Y("[4,8]") "}", 9, "1 bytes at the end"},
    {"{" X("[0,4]") "," Y("[5,9]") "}", 9, "hole"},
    {"{" X("[1,5]") "}", 5, "hole"},
    {"{" X("[0,4]") "," Y("[3,7]") "}", 7, "overlaps"},
    {"{" X("[0,4]") "," X("[4,8]") "}", 8, "duplicate"},
    {"{" X("[0,5]") "}", 5, "5 bytes"},
    {"{" X("[0,4]") "}", 3, "outside"},
    {"{" X("[-4,0]") "}", 4, "outside"},
    {"{" X("[4,0]") "}", 4, "outside"},
    {"{" X("[0,4,8]") "}", 4, "data_offsets"},
    {"{" X("[0,4.0]") "}", 4, "data_offsets"},
    {"{" X("[0,18446744073709551616]") "}", 4, "JSON"},
    {"{\"x\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "F16"},
    {"{\"x\":{\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "no dtype"},
    {"{\"x\":{\"dtype\":\"U8\",\"data_offsets\":[0,4]}}", 4, "no shape"},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4]}}", 4, "data_offsets"},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[-4],\"data_offsets\":[0,4]}}", 4, "no size"},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4.5],\"data_offsets\":[0,4]}}", 4, "no size"},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,4]}}", 4,
     "too large"},
    {"{\"x\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0,
     "0 bytes"},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,4]}}", 4,
     "9 axes"},
    {"{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4],\"more\":1}}", 4,
     "a key other"},
    {"{\"x\":[4]}", 4, "not described"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "texts"},
    {"{\"__metadata__\":[]}", 0, "not an object"},
    {"[]", 0, "not a JSON object"},
    {"{", 0, "JSON"},
    {"{} x", 0, "JSON"},
    {"{\"\xff\":1}", 0, "JSON"},
};

START_TEST(damaged_files_are_refused) {
  for (int i = 0; i < MD_COUNT(broken); i++) {
    put_file(broken[i].header, strlen(broken[i].header), broken[i].data);
    md_diags *d = md_diags_create();
    ck_assert_msg(!md_safetensors_read(path, d), "%s", broken[i].header);
    ck_assert_int_eq(md_diags_errors(d), 1);
    const char *text = md_diags_text(d);
    ck_assert_msg(strstr(text, "E0601") && strstr(text, broken[i].says), "%s\n%s", broken[i].header,
                  text);
    md_diags_destroy(d);
  }
}
END_TEST

START_TEST(a_header_longer_than_the_file_or_the_limit_is_refused) {
  static const size_t claims[] = {3, 100000001, (size_t)1 << 40, SIZE_MAX, SIZE_MAX - 8};
  for (int i = 0; i < MD_COUNT(claims); i++) {
    put_file("{}", claims[i], 0);
    ck_assert_ptr_null(md_safetensors_read(path, NULL));
  }
  for (int len = 0; len < 8; len++) {
    ck_assert(md_file_save(path, "\2\0\0\0\0\0\0\0", (size_t)len, NULL));
    ck_assert_ptr_null(md_safetensors_read(path, NULL));
  }
}
END_TEST

START_TEST(every_cut_of_a_file_is_refused) {
  float f[5] = {0};
  md_st_tensor t = {"x", MD_F32, 1, {5}, f, sizeof f};
  ck_assert(md_safetensors_write(path, &t, 1, NULL, 0, NULL));
  char *bytes;
  size_t len;
  ck_assert(md_file_read(path, 1 << 20, E0601, NULL, &bytes, &len));
  for (size_t cut = 0; cut < len; cut++) {
    ck_assert(md_file_save(path, bytes, cut, NULL));
    ck_assert_ptr_null(md_safetensors_read(path, NULL));
  }
  free(bytes);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("safetensors");
  TCase *t = tcase_create("all");
  tcase_add_checked_fixture(t, make_path, remove_path);
  tcase_add_test(t, what_is_written_comes_back);
  tcase_add_test(t, a_file_without_tensors_is_a_file);
  tcase_add_test(t, damaged_files_are_refused);
  tcase_add_test(t, a_header_longer_than_the_file_or_the_limit_is_refused);
  tcase_add_test(t, every_cut_of_a_file_is_refused);
  suite_add_tcase(suite, t);
  SRunner *r = srunner_create(suite);
  srunner_run_all(r, CK_NORMAL);
  int failed = srunner_ntests_failed(r);
  srunner_free(r);
  return failed > 0;
}
