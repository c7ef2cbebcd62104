// SPDX-License-Identifier: Apache-2.0
// Each call of a save, of the opening of a run's folder and of the search for its newest checkpoint
// fails once, in each way. A child does it; what it tells, how it ends and what is left is looked at.
#include "tests/survive/faults.h"
#include "tests/unit/folder.h"
#include "tests/unit/small_engine.h"
#include "tests/unit/suite.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static const int fault[] = {ENOSPC, EIO, EINTR, EMFILE, FAULT_SHORT, FAULT_KILL};
enum { UNCLEAR = 99 };  // exit code where a message is not as it should be

static void save(md_engine *e, int64_t step, md_diags *d) {
  md_checkpoint_info info = {.step = step, .config = "batch: 2\n"};
  char *path = md_run_checkpoint_path(folder, step);
  if (md_checkpoint_save(e, path, &info, d)) md_run_keep_newest(folder, step, 2);
  free(path);
}

// One error that says what the system refused, or none.
static int exit_code(const md_diags *d) {
  int errors = md_diags_errors(d);
  if (errors == 0) return 0;
  bool is_clean = errors == 1 && strstr(md_diags_text(d), "error[E0801]: ");
  if (!is_clean) fprintf(stderr, "%s", md_diags_text(d));
  return is_clean ? (int)md_diags_status(d) : UNCLEAR;
}

// What a child does, to its exit code.
typedef int Deed(md_engine *e);

static int save_next(md_engine *e) {
  md_diags *d = md_diags_create();
  save(e, 4, d);
  return exit_code(d);
}

static int open_folder(md_engine *e) {
  (void)e;
  md_diags *d = md_diags_create();
  md_run_folder *f = md_run_folder_open(folder, false, d);
  int code = exit_code(d);
  if (!f != !!code) code = UNCLEAR;
  md_run_folder_close(f);
  return code;
}

// The newest that can be read is found, and what was skipped is named.
static int find_newest(md_engine *e) {
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_resume_find(folder, d);
  int64_t step = c ? md_checkpoint_step(c) : -1;
  bool is_fine = !c || (md_checkpoint_restore(c, e, NULL, d) && step == 3 - md_diags_warnings(d));
  int code = is_fine ? exit_code(d) : UNCLEAR;
  md_checkpoint_close(c);
  return code;
}

// A folder that holds a run, or cannot be looked at, is never taken for a new one.
static int refuse_new_run(md_engine *e) {
  (void)e;
  md_diags *d = md_diags_create();
  if (md_run_protect(folder, false, d)) return UNCLEAR;
  return strstr(md_diags_text(d), "error[E0208]") ? 0 : exit_code(d);
}

static int count_calls(md_engine *e, Deed *deed) {
  faults_begin(0, 0);
  int code = deed(e), calls = faults_end();
  return code ? UNCLEAR : calls;
}

static int wait_for(pid_t child) {
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int in_child(md_engine *e, Deed *deed, int nth, int how) {
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child > 0) return wait_for(child);
  if (!nth) _exit(count_calls(e, deed));
  faults_begin(nth, how);
  _exit(deed(e));
}

// --- what is left

static int num_leftovers(void) {
  char command[96];
  snprintf(command, sizeof command, "exit $(ls -A '%s/checkpoints' | grep -c modist)", folder);
  return WEXITSTATUS(system(command));
}

static int64_t found_step(void) {
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_resume_find(folder, d);
  ck_assert_msg(c && !md_diags_warnings(d), "%s", md_diags_text(d));
  int64_t step = md_checkpoint_step(c);
  md_checkpoint_close(c);
  md_diags_destroy(d);
  return step;
}

// A folder with the checkpoints of steps 2 and 3.
static void make_run(md_engine *e) {
  make_empty_folder();
  md_diags *d = md_diags_create();
  md_run_folder *f = md_run_folder_open(folder, true, d);
  for (int64_t step = 1; step <= 3; step++) save(e, step, d);
  ck_assert_msg(md_diags_errors(d) == 0, "%s", md_diags_text(d));
  md_run_folder_close(f);
  md_diags_destroy(d);
}

static void fail_once(md_engine *e, Deed *deed, int nth, int how) {
  make_run(e);
  int code = in_child(e, deed, nth, how);
  ck_assert_msg(code == (how == FAULT_KILL ? 128 + SIGKILL
                         : code            ? MD_ERR_RUN
                                           : 0),
                "call %d, fault %d: exit %d", nth, how, code);
  int64_t step = found_step();
  ck_assert_msg(step == 4 || (step == 3 && (code || deed != save_next)),
                "call %d, fault %d: exit %d, step %d", nth, how, code, (int)step);
  if (how == FAULT_KILL) {  // who works next in the folder cleans it
    md_run_folder *f = md_run_folder_open(folder, false, NULL);
    ck_assert_ptr_nonnull(f);
    md_run_folder_close(f);
  }
  ck_assert_msg(num_leftovers() == 0, "call %d, fault %d: leftovers", nth, how);
  remove_folder();
}

static void fail_each_call(Deed *deed) {
  md_engine *e = engine_of(small, 1);
  make_run(e);
  int calls = in_child(e, deed, 0, 0);
  ck_assert_int_gt(calls, 0);
  ck_assert_int_lt(calls, UNCLEAR);
  remove_folder();
  for (int nth = 1; nth <= calls; nth++)
    for (int i = 0; i < MD_COUNT(fault); i++) fail_once(e, deed, nth, fault[i]);
  printf("%d calls, each failed in %d ways\n", calls, MD_COUNT(fault));
  md_engine_destroy(e);
}

START_TEST(each_call_of_a_save) { fail_each_call(save_next); }
END_TEST
START_TEST(each_call_of_the_opening_of_a_folder) { fail_each_call(open_folder); }
END_TEST
START_TEST(each_call_of_the_search_for_the_newest) { fail_each_call(find_newest); }
END_TEST
START_TEST(each_call_of_the_look_for_an_older_run) { fail_each_call(refuse_new_run); }
END_TEST

SUITE_MAIN("I/O faults", each_call_of_a_save, each_call_of_the_opening_of_a_folder,
           each_call_of_the_search_for_the_newest, each_call_of_the_look_for_an_older_run)
