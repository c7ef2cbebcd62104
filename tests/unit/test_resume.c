// SPDX-License-Identifier: Apache-2.0
// Runs that are stopped, killed or short of disk end in the same bytes as one that is left alone. The
// command itself is started and killed here; files are compared whole.
//   MODIST_KILLS=N  kills of the last test; 5
#include "base/file.h"
#include "runtime/train/train.h"
#include "tests/unit/made_videos.h"
#include "tests/unit/suite.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_ARGS = 32, MORE = 23 };  // steps after an interruption

// --- the command

// A small run in which everything that must survive is in use: momentum, averages, random banks, the
// ring, warm-up, a learning rate that falls, batches across epochs.
static const char *const settings[] = {"batch=2",        "bank.size=7",    "clip.frames=2",
                                       "mclip.frames=2", "epochs=10000",   "warmup=9",
                                       "opt.lr=0.001",   "run.log_every=1"};

typedef struct Command {
  bool resume;
  const char *args[12];  // to the first NULL
  int64_t max_steps;
  rlim_t max_file;  // bytes of a file; 0: no limit
} Command;

static pid_t start(const Command *c) {
  char path[512], steps[48], dir[128], videos[128];
  const char *bin = getenv("MODIST_BIN");
  snprintf(path, sizeof path, "%s/modistc", bin ? bin : "build/bin");
  snprintf(dir, sizeof dir, "run.dir=%s", in_folder("run"));
  snprintf(videos, sizeof videos, "data.train=%s", in_folder("videos"));
  snprintf(steps, sizeof steps, "--max-steps=%lld", (long long)c->max_steps);
  const char *argv[MAX_ARGS] = {path, "train", dir};
  int num = 3;
  if (c->resume) argv[num++] = "--resume";
  if (c->max_steps) argv[num++] = steps;
  if (!c->resume) argv[num++] = videos;
  for (int i = 0; !c->resume && i < MD_COUNT(settings); i++) argv[num++] = settings[i];
  for (int i = 0; c->args[i]; i++) argv[num++] = c->args[i];
  const char *err = in_folder("err");
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child > 0) return child;
  int told = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0600), nothing = open("/dev/null", O_WRONLY);
  dup2(told, STDERR_FILENO);
  dup2(nothing, STDOUT_FILENO);
  if (c->max_file) {
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){c->max_file, c->max_file});
  }
  execv(path, (char *const *)argv);
  _exit(127);
}

static const char *told(void) {
  static char text[1 << 14];
  FILE *f = fopen(in_folder("err"), "r");
  size_t len = f ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f) fclose(f);
  text[len] = 0;
  return text;
}

static int wait_for(pid_t child) {
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void run(const Command *c, int exit_code) {
  int code = wait_for(start(c));
  ck_assert_msg(code == exit_code, "exit %d, not %d:\n%s", code, exit_code, told());
}

// --- what it leaves

static int64_t newest(void) {
  int num;
  int64_t *steps;
  ck_assert(md_run_checkpoints(in_folder("run"), &steps, &num, NULL));
  int64_t step = num ? steps[num - 1] : 0;
  free(steps);
  return step;
}

static void wait_for_checkpoint(int64_t step) {
  for (int i = 0; i < 60000 && newest() < step; i++) usleep(1000);
  ck_assert_int_ge(newest(), step);
}

static int64_t resumed_at(void) {
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_resume_find(in_folder("run"), d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  ck_assert_int_eq(md_diags_warnings(d), 0);
  int64_t step = md_checkpoint_step(c);
  md_checkpoint_close(c);
  md_diags_destroy(d);
  return step;
}

// Steps 1..last, each once, and the same losses in both.
static void check_logs(const char *a_path, const char *b_path, int64_t last) {
  FILE *a = fopen(a_path, "r"), *b = fopen(b_path, "r");
  ck_assert(a && b);
  char x[2048], y[2048];
  for (int64_t step = 1; step <= last; step++) {
    ck_assert_ptr_nonnull(fgets(x, sizeof x, a));
    ck_assert_msg(fgets(y, sizeof y, b) != NULL, "no line of step %lld", (long long)step);
    const char *from_x = strstr(x, "\"step\":"), *from_y = strstr(y, "\"step\":");
    ck_assert_int_eq(strtoll(from_y + 7, NULL, 10), step);
    int len = (int)(strstr(from_x, "\"step_s\"") - from_x);
    ck_assert_msg(strncmp(from_x, from_y, (size_t)len) == 0, "%s%s", x, y);
  }
  ck_assert(!fgets(x, sizeof x, a) && !fgets(y, sizeof y, b));
  fclose(a);
  fclose(b);
}

// The run in `run` did `last` steps; a new one that nobody interrupts ends in the same bytes.
static void check_against_undisturbed(const Command *like, int64_t last) {
  md_diags *d = md_diags_create();
  ck_assert_int_eq(rename(in_folder("run"), in_folder("disturbed")), 0);
  Command alone = *like;
  alone.resume = false;
  alone.max_steps = last;
  alone.max_file = 0;
  run(&alone, 0);
  char *a, *b;
  size_t len, len2;
  ck_assert(md_file_read(in_folder("run/weights.safetensors"), 1 << 30, E0601, d, &a, &len));
  ck_assert(md_file_read(in_folder("disturbed/weights.safetensors"), 1 << 30, E0601, d, &b, &len2));
  ck_assert_uint_eq(len, len2);
  ck_assert(memcmp(a, b, len) == 0);
  free(a);
  free(b);
  check_logs(in_folder("run/log.jsonl"), in_folder("disturbed/log.jsonl"), last);
  md_diags_destroy(d);
}

static const char *const adam[] = {"opt.name=adamw", "bn.groups=2", "bank.enqueue=before",
                                   "model.mode=rgb", "data.workers=2"};

START_TEST(a_run_in_two_parts_ends_in_the_same_bytes) {
  for (int k = 0; k < 3; k++) {
    make_folder_of_videos();
    Command c = {.max_steps = 17,
                 .args = {"run.checkpoint_every=5", k == 1 ? "run.threads=2" : "run.threads=1"}};
    for (int i = 0; k == 2 && i < MD_COUNT(adam); i++) c.args[2 + i] = adam[i];
    run(&c, 0);
    run(&(Command){.resume = true, .max_steps = 17 + MORE}, 0);
    ck_assert_ptr_nonnull(strstr(told(), "weights.safetensors, step 17 of 40"));
    check_against_undisturbed(&c, 17 + MORE);
    remove_folder();
  }
}
END_TEST

static void interrupted_by(int signal_number, int code, const char *threads) {
  make_folder_of_videos();
  Command c = {.args = {"run.checkpoint_every=1", threads}};
  pid_t child = start(&c);
  wait_for_checkpoint(17);
  kill(child, signal_number);
  ck_assert_int_eq(wait_for(child), code);
  int64_t step = resumed_at();
  run(&(Command){.resume = true, .max_steps = step + MORE}, 0);
  check_against_undisturbed(&c, step + MORE);
  remove_folder();
}

START_TEST(sigterm_and_resume_end_in_the_same_bytes) {
  interrupted_by(SIGTERM, MD_STOPPED, "run.threads=2");
}
END_TEST
START_TEST(sigkill_and_resume_end_in_the_same_bytes) {
  interrupted_by(SIGKILL, 128 + SIGKILL, "run.threads=1");
  interrupted_by(SIGKILL, 128 + SIGKILL, "run.threads=2");
}
END_TEST

// With another number of threads and workers in the second part, the states are still the same.
START_TEST(the_number_of_threads_may_change) {
  make_folder_of_videos();
  Command c = {.max_steps = 9, .args = {"run.threads=1", "data.workers=0"}};
  run(&c, 0);
  run(&(Command){.resume = true, .max_steps = 20, .args = {"run.threads=2", "data.workers=1"}}, 0);
  ck_assert_ptr_null(strstr(told(), "compiled in another way"));
  ck_assert_int_eq(rename(in_folder("run"), in_folder("disturbed")), 0);
  c.max_steps = 20;
  run(&c, 0);
  char command[400];
  // Behind the header, which holds the settings: the last 380,000 bytes are states.
  snprintf(command, sizeof command, "tail -c 380000 '%s' > '%s'; tail -c 380000 '%s' | cmp - '%s'",
           in_folder("run/weights.safetensors"), in_folder("a"),
           in_folder("disturbed/weights.safetensors"), in_folder("a"));
  ck_assert_int_eq(system(command), 0);
  remove_folder();
}
END_TEST

START_TEST(a_damaged_checkpoint_is_skipped_and_named) {
  make_folder_of_videos();
  Command c = {.max_steps = 17, .args = {"run.checkpoint_every=5"}};
  run(&c, 0);
  FILE *f = fopen(in_folder("run/weights.safetensors"), "r+b");
  fseek(f, 100000, SEEK_SET);
  int byte = fgetc(f);
  fseek(f, 100000, SEEK_SET);
  fputc(byte ^ 1, f);
  fclose(f);
  ck_assert_int_eq(truncate(in_folder("run/checkpoints/step-00000015.safetensors"), 1000), 0);
  run(&(Command){.resume = true, .max_steps = 17 + MORE}, 0);
  static const char *const says[] = {"weights.safetensors: warning: this checkpoint cannot be used",
                                     "E0860", "step-00000015.safetensors: warning: this checkpoint",
                                     "step-00000010.safetensors, step 10 of 40"};
  for (int i = 0; i < MD_COUNT(says); i++)
    ck_assert_msg(strstr(told(), says[i]) != NULL, "no '%s' in\n%s", says[i], told());
  check_against_undisturbed(&c, 17 + MORE);
  remove_folder();
}
END_TEST

// No file may grow beyond 100 kB, so the log can be written and no checkpoint.
START_TEST(a_full_disk_costs_no_checkpoint_that_is_there) {
  make_folder_of_videos();
  Command c = {.max_steps = 17, .args = {"run.checkpoint_every=5"}};
  run(&c, 0);
  run(&(Command){.resume = true,
                 .max_steps = 17 + MORE,
                 .max_file = 100000,
                 .args = {"run.save_minutes=0"}},
      MD_ERR_RUN);
  static const char *const says[] = {
      "step-00000020.safetensors: warning: no checkpoint is written now; training goes on",
      "step-00000035.safetensors: warning", "weights.safetensors: error[E0801]: cannot write"};
  for (int i = 0; i < MD_COUNT(says); i++)
    ck_assert_msg(strstr(told(), says[i]) != NULL, "no '%s' in\n%s", says[i], told());
  ck_assert_int_eq(resumed_at(), 17);
  run(&(Command){.resume = true, .max_steps = 17 + MORE}, 0);
  check_against_undisturbed(&c, 17 + MORE);
  remove_folder();
}
END_TEST

START_TEST(the_newest_are_kept_and_leftovers_removed) {
  make_folder_of_videos();
  Command c = {.max_steps = 10, .args = {"run.checkpoint_every=2", "run.keep=2"}};
  run(&c, 0);
  FILE *f = fopen(in_folder("run/checkpoints/.modist-abcdef"), "w");
  ck_assert_ptr_nonnull(f);
  fclose(f);
  f = fopen(in_folder("run/checkpoints/mine.safetensors"), "w");
  fclose(f);
  run(&(Command){.resume = true, .max_steps = 13, .args = {"run.keep=1"}}, 0);
  char command[200];
  snprintf(command, sizeof command,
           "cd '%s' && test \"$(ls -A checkpoints | tr '\\n' ' ')\" = "
           "'mine.safetensors step-00000012.safetensors '",
           in_folder("run"));
  ck_assert_int_eq(system(command), 0);
  remove_folder();
}
END_TEST

START_TEST(an_overwritten_run_leaves_nothing_to_resume) {
  make_folder_of_videos();
  Command c = {.max_steps = 10, .args = {"run.checkpoint_every=2"}};
  run(&c, 0);
  run(&c, MD_ERR_USAGE);  // a run is there
  ck_assert_ptr_nonnull(strstr(told(), "E0208"));
  run(&(Command){.max_steps = 5, .args = {"run.checkpoint_every=2", "--overwrite"}}, 0);
  char command[240];
  snprintf(command, sizeof command,
           "cd '%s' && test \"$(ls -A checkpoints | tr '\\n' ' ')\" = "
           "'step-00000002.safetensors step-00000004.safetensors ' && "
           "test $(ls | grep -c tfevents) = 1 && test $(wc -l < log.jsonl) = 5",
           in_folder("run"));
  ck_assert_int_eq(system(command), 0);
  ck_assert_int_eq(resumed_at(), 5);
  remove_folder();
}
END_TEST

START_TEST(two_processes_do_not_share_a_folder) {
  make_folder_of_videos();
  run(&(Command){.max_steps = 1}, 0);
  int fd = open(in_folder("run"), O_RDONLY | O_DIRECTORY);
  ck_assert_int_eq(flock(fd, LOCK_EX), 0);
  run(&(Command){.resume = true, .max_steps = 2}, MD_ERR_USAGE);
  ck_assert_ptr_nonnull(strstr(told(), "E0866"));
  close(fd);
  run(&(Command){.resume = true, .max_steps = 2}, 0);
  remove_folder();
}
END_TEST

START_TEST(a_checkpoint_from_elsewhere_starts_a_run_of_its_own) {
  make_folder_of_videos();
  run(&(Command){.max_steps = 9}, 0);
  ck_assert_int_eq(rename(in_folder("run"), in_folder("first")), 0);
  char from[160], command[400];
  snprintf(from, sizeof from, "--resume=%s", in_folder("first/weights.safetensors"));
  run(&(Command){.max_steps = 20, .args = {from}}, 0);
  ck_assert_int_eq(rename(in_folder("run"), in_folder("second")), 0);
  run(&(Command){.max_steps = 20}, 0);
  snprintf(command, sizeof command, "cmp '%s' '%s' && test $(wc -l < '%s') = 11",
           in_folder("run/weights.safetensors"), in_folder("second/weights.safetensors"),
           in_folder("second/log.jsonl"));
  ck_assert_int_eq(system(command), 0);
  remove_folder();
}
END_TEST

START_TEST(other_code_is_warned_of) {
  make_folder_of_videos();
  run(&(Command){.max_steps = 1}, 0);
  run(&(Command){.resume = true, .max_steps = 2, .args = {"--precision=bf16"}}, 0);
  ck_assert_msg(strstr(told(), "warning: the step was compiled in another way") != NULL, "%s",
                told());
  remove_folder();
}
END_TEST

// Whether the GPU is asked is what counts, not whether it is there.
START_TEST(another_decoder_is_warned_of) {
  static const char warned[] = "and is 'auto': the run goes on, but not bit for bit";
  make_folder_of_videos();
  run(&(Command){.max_steps = 1}, 0);
  run(&(Command){.resume = true, .max_steps = 2, .args = {"data.decode=cpu"}}, 0);
  ck_assert_msg(strstr(told(), "bit for bit") == NULL, "%s", told());
  run(&(Command){.resume = true, .max_steps = 3, .args = {"data.decode=auto"}}, 0);
  ck_assert_msg(strstr(told(), warned) != NULL, "%s", told());
  run(&(Command){.resume = true, .max_steps = 4, .args = {"data.decode=nvdec"}}, 0);
  ck_assert_msg(strstr(told(), "bit for bit") == NULL, "%s", told());
  remove_folder();
}
END_TEST

// A complete run may be resumed: nothing is left to do, and its bytes stay.
START_TEST(resuming_a_complete_run_changes_nothing) {
  make_folder_of_videos();
  Command c = {.max_steps = 4};
  run(&c, 0);
  run(&(Command){.resume = true, .max_steps = 4}, 0);
  check_against_undisturbed(&c, 4);
  remove_folder();
}
END_TEST

// Kills at random moments: every other one between or during saves, the rest possibly at the start.
START_TEST(kills_at_random_moments_cost_nothing) {
  const char *text = getenv("MODIST_KILLS");
  int kills = text ? atoi(text) : 5;
  make_folder_of_videos();
  Command c = {.args = {"run.checkpoint_every=1"}};
  pid_t child = start(&c);
  wait_for_checkpoint(1);
  uint64_t key = md_hash_key("kill", 1);
  int64_t step = 0;
  for (int i = 0; i < kills; i++) {
    double draw = md_hash_01(key, (uint64_t)i);
    if (i % 2) wait_for_checkpoint(step + 1 + (int64_t)(draw * 10));
    usleep((useconds_t)(md_hash_01(key, (uint64_t)(kills + i)) * (i % 2 ? 30000 : 700000)));
    kill(child, SIGKILL);
    ck_assert_int_eq(wait_for(child), 128 + SIGKILL);
    int64_t at = resumed_at();  // the newest file is whole
    ck_assert_int_eq(at, newest());
    ck_assert_int_ge(at, step);
    step = at;
    child = start(&(Command){.resume = true});
  }
  kill(child, SIGKILL);
  wait_for(child);
  step = resumed_at();
  char expected[64];
  snprintf(expected, sizeof expected, "safetensors, step %lld of %lld", (long long)step,
           (long long)step + 3);
  run(&(Command){.resume = true, .max_steps = step + 3}, 0);
  ck_assert_ptr_nonnull(strstr(told(), expected));
  printf("%d kills, %lld steps\n", kills, (long long)step + 3);
  check_against_undisturbed(&c, step + 3);
  remove_folder();
}
END_TEST

SUITE_MAIN("resume", a_run_in_two_parts_ends_in_the_same_bytes,
           sigterm_and_resume_end_in_the_same_bytes, sigkill_and_resume_end_in_the_same_bytes,
           the_number_of_threads_may_change, a_damaged_checkpoint_is_skipped_and_named,
           a_full_disk_costs_no_checkpoint_that_is_there, the_newest_are_kept_and_leftovers_removed,
           an_overwritten_run_leaves_nothing_to_resume, two_processes_do_not_share_a_folder,
           resuming_a_complete_run_changes_nothing, other_code_is_warned_of,
           another_decoder_is_warned_of, a_checkpoint_from_elsewhere_starts_a_run_of_its_own,
           kills_at_random_moments_cost_nothing)
