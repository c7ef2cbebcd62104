// SPDX-License-Identifier: Apache-2.0
// When something goes wrong on the driver's stand-in: kernels that spoil their context, faults where they
// are told to be, and what is not given back.
#include "tests/device/stand_in_fixture.h"

#include <sys/wait.h>
#include <unistd.h>

// An error of a kernel shows where somebody waits for it; from then on the context gives nothing else.
static void expect_spoiled(int error) {
  Address at;
  is(cuStreamSynchronize(stream), error);
  is(cuMemAlloc_v2(&at, BYTES), error);
  is(cuMemFree_v2(a), error);
  is(cuCtxSynchronize(), error);
}

START_TEST(an_argument_that_is_no_memory_spoils_the_context) {
  start_with_arrays();
  works(cuMemcpyHtoD_v2(a, x, BYTES));
  works(launch(a, (Address)(uintptr_t)y, stream));
  works(cuMemcpyDtoHAsync_v2(y, a, BYTES, stream));
  expect_spoiled(ILLEGAL_ADDRESS);
  ck_assert(y[1] != 1);  // what comes after is not done
}
END_TEST

START_TEST(an_address_of_nothing_spoils_the_context) {
  start_with_arrays();
  works(cuMemcpyHtoD_v2(a, x, BYTES));
  works(launch(a, BYTES, stream));
  expect_spoiled(ILLEGAL_ADDRESS);
}
END_TEST

START_TEST(a_write_beyond_memory_spoils_the_context) {
  start_with_arrays();
  Address small = memory(BYTES / 2);
  works(cuMemcpyHtoD_v2(a, x, BYTES));
  works(launch(a, small, stream));
  bool is_checked = getenv("MODIST_STAND_IN_CHECK") != NULL;
  expect_spoiled(is_checked ? LAUNCH_FAILED : ILLEGAL_ADDRESS);
}
END_TEST

START_TEST(a_read_of_what_nobody_wrote_is_seen_by_the_checker) {
  start_with_arrays();
  works(launch(a, b, stream));
  bool is_checked = getenv("MODIST_STAND_IN_CHECK") != NULL;
  is(cuStreamSynchronize(stream), is_checked ? LAUNCH_FAILED : 0);
  if (!is_checked) finish_with_arrays();
}
END_TEST

START_TEST(code_that_is_gone_spoils_the_context) {
  start_with_arrays();
  works(launch(a, b, stream));
  works(cuLibraryUnload(library));
  expect_spoiled(INVALID_PC);
}
END_TEST

START_TEST(faults_happen_where_they_are_told_to) {
  setenv("MODIST_STAND_IN_FAULT", "cuMemAlloc_v2:2:2", 1);
  start();
  Address one = memory(BYTES), two;
  is(cuMemAlloc_v2(&two, BYTES), OUT_OF_MEMORY);
  two = memory(BYTES);
  works(cuMemFree_v2(one));
  works(cuMemFree_v2(two));
  finish();
}
END_TEST

START_TEST(what_a_failing_call_releases_is_released) {
  setenv("MODIST_STAND_IN_FAULT", "cuMemFree_v2:1:999", 1);
  start();
  Address at = memory(BYTES);
  is(cuMemFree_v2(at), 999);
  is(cuMemFree_v2(at), INVALID_VALUE);
  finish();
}
END_TEST

START_TEST(a_sticky_fault_spoils_the_context) {
  setenv("MODIST_STAND_IN_FAULT", "cuStreamSynchronize:1:719", 1);
  start_with_arrays();
  expect_spoiled(LAUNCH_FAILED);
}
END_TEST

START_TEST(a_fault_of_a_kernel_shows_where_somebody_waits) {
  setenv("MODIST_STAND_IN_FAULT", "kernel:2:700", 1);
  start_with_arrays();
  works(cuMemcpyHtoD_v2(a, x, BYTES));
  works(launch(a, b, stream));
  works(cuStreamSynchronize(stream));
  works(launch(a, b, stream));
  expect_spoiled(ILLEGAL_ADDRESS);
}
END_TEST

START_TEST(a_spoiled_process_gets_no_other_context) {
  setenv("MODIST_STAND_IN_FAULT", "kernel:1:700", 1);
  start_with_arrays();
  works(launch(a, b, stream));
  expect_spoiled(ILLEGAL_ADDRESS);
  works(cuDevicePrimaryCtxRelease_v2(0));
  void *again;
  is(cuDevicePrimaryCtxRetain(&again, 0), ILLEGAL_ADDRESS);
}
END_TEST

// A process of its own; how it ends.
static int run_apart(void (*part)(void)) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    part();
    exit(0);
  }
  int status = 0;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  return status;
}

static void leave_memory(void) {
  start();
  memory(BYTES);
  finish();
}

static void leave_nothing(void) {
  start();
  finish();
}

static void ask_again(void) {
  int count;
  is(cuInit(0), NOT_INITIALIZED);
  is(cuDeviceGetCount(&count), NOT_INITIALIZED);
  _exit(0);  // what the parent has is not the child's to give back
}

START_TEST(a_child_of_who_has_used_the_driver_cannot_use_it) {
  works(cuInit(0));
  ck_assert_int_eq(run_apart(ask_again), 0);
}
END_TEST

START_TEST(what_is_not_given_back_shows_at_the_end) {
  char log[] = "/tmp/modist_test_XXXXXX", line[200];
  int file = mkstemp(log);
  ck_assert_int_ge(file, 0);
  ck_assert(WIFSIGNALED(run_apart(leave_memory)));
  ck_assert_int_eq(run_apart(leave_nothing), 0);
  setenv("MODIST_STAND_IN_LOG", log, 1);
  ck_assert_int_eq(run_apart(leave_memory), 0);
  unsetenv("MODIST_STAND_IN_LOG");
  FILE *f = fdopen(file, "r");
  ck_assert_ptr_nonnull(f);
  int leaks = 0;
  while (fgets(line, sizeof line, f)) leaks += !strcmp(line, "leak: 256 bytes of cuMemAlloc_v2\n");
  ck_assert_int_eq(leaks, 1);
  fclose(f);
  unlink(log);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {an_address_of_nothing_spoils_the_context, NULL};
  const TTest *const alone[] = {an_argument_that_is_no_memory_spoils_the_context,
                                a_write_beyond_memory_spoils_the_context,
                                a_read_of_what_nobody_wrote_is_seen_by_the_checker,
                                code_that_is_gone_spoils_the_context,
                                faults_happen_where_they_are_told_to,
                                what_a_failing_call_releases_is_released,
                                a_sticky_fault_spoils_the_context,
                                a_fault_of_a_kernel_shows_where_somebody_waits,
                                a_spoiled_process_gets_no_other_context,
                                a_child_of_who_has_used_the_driver_cannot_use_it,
                                what_is_not_given_back_shows_at_the_end,
                                NULL};
  return run_with_texts("faults", tests, alone, NULL);
}
