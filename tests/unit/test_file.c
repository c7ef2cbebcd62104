// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include "suite.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// Each test works in a fresh folder, which it must leave empty.
static char *enter_folder(void) {
  char *path = strdup("/tmp/modist-test-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(path));
  ck_assert_int_eq(chdir(path), 0);
  return path;
}

static void leave_folder(char *path) {
  ck_assert_int_eq(chdir("/"), 0);
  ck_assert_msg(rmdir(path) == 0, "%s: %s", path, strerror(errno));
  free(path);
}

static int num_entries(void) {
  DIR *dir = opendir(".");
  ck_assert_ptr_nonnull(dir);
  int n = -2;  // "." and ".."
  while (readdir(dir)) n++;
  closedir(dir);
  return n;
}

static void expect_read(const char *path, const char *want) {
  char *data;
  size_t len;
  ck_assert(md_file_read(path, 100, E0601, NULL, &data, &len));
  ck_assert_uint_eq(len, strlen(want));
  ck_assert_str_eq(data, want);
  free(data);
}

static void expect_refused(const char *path, int64_t limit, const char *message) {
  md_diags *d = md_diags_create();
  char *data = NULL;
  size_t len;
  ck_assert(!md_file_read(path, limit, E0601, d, &data, &len));
  ck_assert_ptr_null(data);
  ck_assert_str_eq(md_diags_text(d), message);
  ck_assert_int_eq(md_diags_status(d), MD_ERR_DATA);
  md_diags_destroy(d);
}

START_TEST(saved_file_reads_back_and_replaces_the_old_one) {
  char *folder = enter_folder();
  ck_assert(md_file_save("a", "first one", 9, NULL));
  ck_assert(md_file_save("a", "second", 6, NULL));
  expect_read("a", "second");
  ck_assert(md_file_save("empty", "", 0, NULL));
  expect_read("empty", "");
  ck_assert_int_eq(num_entries(), 2);
  unlink("a");
  unlink("empty");
  leave_folder(folder);
}
END_TEST

START_TEST(mode_is_what_umask_allows) {
  char *folder = enter_folder();
  struct stat st;
  mode_t old = umask(027);
  ck_assert(md_file_save("a", "x", 1, NULL));
  umask(old);
  ck_assert_int_eq(stat("a", &st), 0);
  ck_assert_uint_eq(st.st_mode & 0777, 0640);
  unlink("a");
  leave_folder(folder);
}
END_TEST

START_TEST(name_appears_only_at_the_commit) {
  char *folder = enter_folder();
  md_file_writer *w = md_file_create("a", NULL);
  ck_assert(md_file_write(w, "half", 4));
  ck_assert_int_ne(access("a", F_OK), 0);
  ck_assert(md_file_write(w, " whole", 6));
  ck_assert(md_file_commit(w));
  expect_read("a", "half whole");
  unlink("a");
  leave_folder(folder);
}
END_TEST

START_TEST(aborted_write_keeps_the_old_file_and_leaves_nothing) {
  char *folder = enter_folder();
  ck_assert(md_file_save("a", "old", 3, NULL));
  md_file_writer *w = md_file_create("a", NULL);
  ck_assert(md_file_write(w, "new", 3));
  md_file_abort(w);
  md_file_abort(NULL);
  expect_read("a", "old");
  ck_assert_int_eq(num_entries(), 1);
  unlink("a");
  leave_folder(folder);
}
END_TEST

START_TEST(full_disk_is_reported_once_and_leaves_nothing) {
  char *folder = enter_folder();
  struct rlimit old, small;
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
  small = old;
  small.rlim_cur = 1000;
  signal(SIGXFSZ, SIG_IGN);
  md_diags *d = md_diags_create();
  char block[600] = {0};
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
  md_file_writer *w = md_file_create("a", d);
  bool first = md_file_write(w, block, sizeof block),
       second = md_file_write(w, block, sizeof block);
  bool third = md_file_write(w, block, sizeof block), committed = md_file_commit(w);
  setrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_DFL);
  ck_assert(first && !second && !third && !committed);
  ck_assert_str_eq(md_diags_text(d), "a: error[E0801]: cannot write: File too large\n");
  ck_assert_int_eq(num_entries(), 0);
  md_diags_destroy(d);
  leave_folder(folder);
}
END_TEST

START_TEST(missing_folder_brings_the_command_that_makes_it) {
  char *folder = enter_folder();
  md_diags *d = md_diags_create();
  ck_assert(!md_file_save("run/1/a", "x", 1, d));
  ck_assert_str_eq(md_diags_text(d),
                   "run/1/a: error[E0801]: cannot create: No such file or directory\n"
                   "   hint: mkdir -p 'run/1/'\n");
  md_diags_destroy(d);
  leave_folder(folder);
}
END_TEST

START_TEST(device_or_folder_is_never_replaced) {
  md_diags *d = md_diags_create();
  ck_assert_ptr_null(md_file_create("/dev/null", d));
  ck_assert_ptr_null(md_file_create("/tmp", d));
  ck_assert_str_eq(md_diags_text(d),
                   "/dev/null: error[E0801]: cannot be replaced by a file: it is a device\n"
                   "/tmp: error[E0801]: cannot be replaced by a file: it is a folder\n");
  md_diags_destroy(d);
}
END_TEST

START_TEST(only_regular_files_within_the_limit_are_read) {
  char *folder = enter_folder();
  ck_assert(md_file_save("a", "0123456789", 10, NULL));
  ck_assert_int_eq(mkfifo("pipe", 0600), 0);
  char *data;
  size_t len;
  ck_assert(md_file_read("a", 10, E0601, NULL, &data, &len));
  free(data);
  expect_refused("a", 9,
                 "a: error[E0601]: file is too large: 10 B, but at most 9 B are read here\n");
  expect_refused("pipe", 9, "pipe: error[E0601]: a regular file is needed, but this is a pipe\n");
  expect_refused(".", 9, ".: error[E0601]: a regular file is needed, but this is a folder\n");
  expect_refused("/dev/zero", 9,
                 "/dev/zero: error[E0601]: a regular file is needed, but this is a device\n");
  expect_refused("b", 9, "b: error[E0601]: cannot open: No such file or directory\n");
  unlink("a");
  unlink("pipe");
  leave_folder(folder);
}
END_TEST

START_TEST(killed_writer_never_leaves_half_a_file) {
  char *folder = enter_folder();
  enum { SIZE = 1 << 20 };
  char *block = malloc(SIZE);
  memset(block, 'a', SIZE);
  ck_assert(md_file_save("f", block, SIZE, NULL));
  for (int round = 0; round < 10; round++) {
    pid_t pid = fork();
    if (pid == 0) {
      for (char c = 'b';; c = c == 'z' ? 'b' : (char)(c + 1)) {
        memset(block, c, SIZE);
        md_file_save("f", block, SIZE, NULL);
      }
    }
    usleep((useconds_t)(3000 * round));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    char *data;
    size_t len;
    ck_assert(md_file_read("f", SIZE, E0601, NULL, &data, &len));
    ck_assert_uint_eq(len, SIZE);
    ck_assert_msg(!memcmp(data, data + 1, len - 1), "two versions in one file");
    free(data);
  }
  free(block);
  ck_assert_int_eq(system("rm -f f .modist-*"), 0);
  leave_folder(folder);
}
END_TEST

START_TEST(cache_folder_is_private_and_follows_the_environment) {
  char *folder = enter_folder();
  md_arena *a = md_arena_create();
  struct stat st;
  char *xdg = md_format(a, "%s/x/y", folder), *own = md_format(a, "%s/own", folder);
  unsetenv("MODIST_CACHE");
  setenv("XDG_CACHE_HOME", xdg, 1);
  ck_assert_str_eq(md_cache_dir(a), md_format(a, "%s/modist", xdg));
  ck_assert_int_eq(stat("x/y/modist", &st), 0);
  ck_assert_uint_eq(st.st_mode & 0777, 0700);
  setenv("MODIST_CACHE", own, 1);
  ck_assert_str_eq(md_cache_dir(a), own);
  ck_assert_int_eq(chmod(own, 0777), 0);
  ck_assert_ptr_null(md_cache_dir(a));  // others could plant code
  ck_assert_int_eq(rmdir(own), 0);
  ck_assert_int_eq(symlink("x", own), 0);
  ck_assert_ptr_null(md_cache_dir(a));
  unsetenv("MODIST_CACHE");
  setenv("XDG_CACHE_HOME", "relative", 1);
  setenv("HOME", folder, 1);
  ck_assert_str_eq(md_cache_dir(a), md_format(a, "%s/.cache/modist", folder));
  unsetenv("HOME");
  ck_assert_ptr_null(md_cache_dir(a));
  unlink(own);
  ck_assert_int_eq(rmdir("x/y/modist") | rmdir("x/y") | rmdir("x"), 0);
  ck_assert_int_eq(rmdir(".cache/modist") | rmdir(".cache"), 0);
  md_arena_destroy(a);
  leave_folder(folder);
}
END_TEST

SUITE_MAIN("file", saved_file_reads_back_and_replaces_the_old_one, mode_is_what_umask_allows,
           name_appears_only_at_the_commit, aborted_write_keeps_the_old_file_and_leaves_nothing,
           full_disk_is_reported_once_and_leaves_nothing,
           missing_folder_brings_the_command_that_makes_it, device_or_folder_is_never_replaced,
           only_regular_files_within_the_limit_are_read, killed_writer_never_leaves_half_a_file,
           cache_folder_is_private_and_follows_the_environment)
