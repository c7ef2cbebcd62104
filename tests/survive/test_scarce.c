// SPDX-License-Identifier: Apache-2.0
// Each allocation of three tasks fails once. A child works; it either succeeds all the same, or ends
// with the exit code of too little memory and says so. Checkpoints from before are still there.
#include "passes/passes.h"
#include "tests/survive/scarce.h"
#include "tests/unit/folder.h"
#include "tests/unit/small_engine.h"
#include "tests/unit/suite.h"

#include <sys/wait.h>
#include <unistd.h>

// A task's exit code; begins to count when it is ready.
typedef int Task(int nth, int *calls);

static int code_of(md_diags *d) {
  md_diags_print(d, stderr, false);
  return (int)md_diags_status(d);
}

// --- the tasks

// A training step of one tiny network, as a text and parsed.
static md_text step_text;
static md_graph *step_graph;

static void make_step(void) {
  md_step s = md_step_defaults();
  md_model_from("modist-tiny")->fill(&s);
  s.mode = MD_MODE_RGB;
  step_graph = md_step_graph(&s, NULL);
  md_graph_print(step_graph, &step_text);
}

static int parse_and_verify(int nth, int *calls) {
  scarce_begin(nth);
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("step.mdg", step_text.s, step_text.len, d);
  bool ok = g && md_graph_verify(g, d);
  *calls = scarce_end();
  return ok ? 0 : code_of(d);
}

static int run_passes_and_plan(int nth, int *calls) {
  md_diags *d = md_diags_create();
  md_pass_options o = md_pass_defaults();
  scarce_begin(nth);
  md_graph *g = md_run_passes(step_graph, &o, NULL, d);
  md_memory_report memory;
  if (g) md_memory_of(g, &memory);
  *calls = scarce_end();
  return g ? 0 : code_of(d);
}

static md_engine *make_engine(md_diags *d) {
  md_graph *g = md_parse_graph("small.mdg", small, sizeof small - 1, d);
  md_engine_options o = {.backend = MD_BACKEND_INTERP, .passes = md_pass_defaults()};
  return g ? md_engine_create(g, &o, d) : NULL;
}

static int save_and_load(int nth, int *calls) {
  scarce_begin(nth);
  char *path = md_run_checkpoint_path(folder, 4);
  md_diags *d = md_diags_create();
  md_engine *e = make_engine(d);
  md_run_folder *f = md_run_folder_open(folder, false, d);
  md_checkpoint_info info = {.step = 4, .config = "batch: 2\n"};
  bool ok = e && f && md_checkpoint_save(e, path, &info, d);
  if (ok) md_run_keep_newest(folder, 4, 2);
  md_checkpoint *c = ok ? md_resume_find(folder, d) : NULL;
  ok = c && md_checkpoint_restore(c, e, NULL, d);
  *calls = scarce_end();
  return ok && md_checkpoint_step(c) == 4 ? 0 : code_of(d);
}

// --- the child

// Its exit code and what it told; nth 0: how many allocations there are.
static int in_child(Task *task, int nth, char *told, size_t room) {
  int end[2], status;
  ck_assert_int_eq(pipe(end), 0);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    dup2(end[1], STDERR_FILENO);
    int calls = 0, code = task(nth, &calls);
    if (!nth) fprintf(stderr, "%d", calls);
    _exit(code);
  }
  close(end[1]);
  ssize_t len = 0;
  for (ssize_t n; (n = read(end[0], told + len, room - 1 - (size_t)len)) > 0;) len += n;
  told[len] = 0;
  close(end[0]);
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void fail_each(Task *task, const char *name) {
  char told[2000];
  ck_assert_int_eq(in_child(task, 0, told, sizeof told), 0);
  int calls = (int)strtol(told, NULL, 10), survived = 0, wrong = 0;
  ck_assert_int_gt(calls, 0);
  for (int nth = 1; nth <= calls; nth++) {
    int code = in_child(task, nth, told, sizeof told);
    survived += code == 0;
    if (code == 0 || (code == MD_ERR_MEMORY && strstr(told, "memory"))) continue;
    fprintf(stderr, "%s: allocation %d of %d: exit %d: %s\n", name, nth, calls, code, told);
    wrong++;
  }
  printf("%s: each of %d allocations failed, %d did not matter\n", name, calls, survived);
  ck_assert_int_eq(wrong, 0);
}

START_TEST(each_allocation_of_a_graph_that_is_read) {
  make_step();
  fail_each(parse_and_verify, "read");
  md_text_free(&step_text);
  md_graph_destroy(step_graph);
}
END_TEST

START_TEST(each_allocation_of_passes_and_plan) {
  make_step();
  fail_each(run_passes_and_plan, "passes");
  md_text_free(&step_text);
  md_graph_destroy(step_graph);
}
END_TEST

START_TEST(each_allocation_of_a_checkpoint) {
  make_empty_folder();
  md_diags *d = md_diags_create();
  md_run_folder *f = md_run_folder_open(folder, true, d);
  md_engine *e = engine_of(small, 1);
  char *path = md_run_checkpoint_path(folder, 3);
  md_checkpoint_info info = {.step = 3, .config = "batch: 2\n"};
  ck_assert(f && md_checkpoint_save(e, path, &info, d));
  md_run_folder_close(f);
  fail_each(save_and_load, "checkpoint");
  md_run_folder_close(md_run_folder_open(folder, false, d));
  char command[96];  // what was begun is gone
  snprintf(command, sizeof command, "! ls -A '%s/checkpoints' | grep modist", folder);
  ck_assert_int_eq(system(command), 0);
  md_checkpoint *c = md_resume_find(folder, d);
  ck_assert_msg(c && !md_diags_warnings(d), "%s", md_diags_text(d));
  md_checkpoint_close(c);
  free(path);
  md_engine_destroy(e);
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

SUITE_MAIN("scarce memory", each_allocation_of_a_graph_that_is_read,
           each_allocation_of_passes_and_plan, each_allocation_of_a_checkpoint)
