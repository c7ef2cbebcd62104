// SPDX-License-Identifier: Apache-2.0
// A disk that is full when a run ends. The linker takes these functions for the program's and our
// libraries' calls: no write has room from the creation of one file on, and time passes in no time.
#include "base/file.h"
#include "runtime/train/train.h"
#include "tests/unit/folder.h"
#include "tests/unit/suite.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int files, full_from;  // files that were begun; 0: never full
static int naps, room_after, signal_after;

int mkostemp(char *template, int flags) {
  int (*real)(char *, int);
  *(void **)&real = dlsym(RTLD_NEXT, "mkostemp");  // C has no cast from data to code
  files++;
  return real(template, flags);
}

ssize_t write(int fd, const void *data, size_t len) {
  if (!full_from || files < full_from) return syscall(SYS_write, fd, data, len);
  errno = ENOSPC;
  return -1;
}

unsigned sleep(unsigned seconds) {
  (void)seconds;
  naps++;
  if (naps == room_after) full_from = 0;
  if (naps == signal_after) raise(SIGINT);
  return 0;
}

static char data[64], run_dir[64];

// Five steps, whose first four are in a checkpoint; `minutes` is run.save_minutes.
static md_status train(const char *minutes, md_diags *d) {
  char from[96], to[96], wait[48];
  snprintf(from, sizeof from, "data.train=%s", data);
  snprintf(to, sizeof to, "run.dir=%s", run_dir);
  snprintf(wait, sizeof wait, "run.save_minutes=%s", minutes);
  char *override[] = {from,
                      to,
                      wait,
                      "batch=2",
                      "bank.size=4",
                      "bank.init=empty",
                      "clip.frames=2",
                      "mclip.frames=2",
                      "epochs=3",
                      "run.checkpoint_every=4",
                      "run.tensorboard=false"};
  md_config *c = md_config_load(NULL, override, MD_COUNT(override), d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  md_train_options o = {.engine = {.backend = MD_BACKEND_INTERP, .passes = md_pass_defaults()},
                        .max_steps = 5,
                        .quiet = true,
                        .overwrite = true};
  md_status status = md_train(c, &o, d);
  md_config_destroy(c);
  return status;
}

// The step that --resume goes on from.
static int64_t newest(void) {
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_resume_find(run_dir, d);
  ck_assert_msg(c != NULL, "%s", md_diags_text(d));
  int64_t step = md_checkpoint_step(c);
  md_checkpoint_close(c);
  md_diags_destroy(d);
  return step;
}

// Trains with room for all files but the last one. What was told on the way comes into `told`, the
// error at the end into `d`; 0: room does not come, no signal is sent.
static md_status train_to_full_disk(const char *minutes, int room, int signal, char *told,
                                    size_t size, md_diags *d) {
  make_empty_folder();
  snprintf(data, sizeof data, "%s/videos", folder);
  snprintf(run_dir, sizeof run_dir, "%s/run", folder);
  md_shapes_options o = {.folder = data, .videos = 4, .size = 48, .seconds = 1};
  ck_assert_msg(md_shapes_make(&o, d), "%s", md_diags_text(d));
  files = full_from = 0;
  ck_assert_msg(train(minutes, d) == MD_OK, "%s", md_diags_text(d));
  ck_assert_int_eq(newest(), 5);
  char command[96];
  snprintf(command, sizeof command, "rm -r '%s'", run_dir);
  ck_assert_int_eq(system(command), 0);

  full_from = files;
  files = naps = 0;
  room_after = room;
  signal_after = signal;
  int terminal = dup(STDERR_FILENO);
  ck_assert_ptr_nonnull(freopen(in_folder("told"), "w", stderr));
  md_status status = train(minutes, d);
  fflush(stderr);
  dup2(terminal, STDERR_FILENO);
  close(terminal);
  full_from = 0;
  char *text;
  size_t len;
  ck_assert(md_file_read(in_folder("told"), (int64_t)size - 1, E0101, d, &text, &len));
  strcpy(told, text);
  free(text);
  return status;
}

START_TEST(a_run_waits_for_room_and_keeps_its_weights) {
  char told[2000];
  md_diags *d = md_diags_create();
  ck_assert_int_eq(train_to_full_disk("10", 3, 0, told, sizeof told, d), MD_OK);
  ck_assert_int_eq(naps, 3);
  ck_assert_int_eq(newest(), 5);
  const char *said[] = {"weights.safetensors: warning: cannot be written now: what the last",
                        "No space left on device", " MB are needed there; for 10 minutes"};
  for (int i = 0; i < MD_COUNT(said); i++) ck_assert_msg(strstr(told, said[i]) != NULL, "%s", told);
  ck_assert_ptr_null(strstr(strstr(told, "cannot be written now") + 1, "cannot be written now"));
  md_diags_destroy(d);
  remove_folder();
}
END_TEST

static void expect_loss(const char *minutes, int signal, int most_naps) {
  char told[2000];
  md_diags *d = md_diags_create();
  ck_assert_int_eq(train_to_full_disk(minutes, 0, signal, told, sizeof told, d), MD_ERR_RUN);
  ck_assert_int_le(naps, most_naps);
  ck_assert_msg(strstr(md_diags_text(d), "weights.safetensors: error[E0801]: cannot write: ") !=
                    NULL,
                "%s", md_diags_text(d));
  ck_assert_int_eq(md_diags_errors(d), 1);
  ck_assert_int_eq(newest(), 4);
  md_diags_destroy(d);
  remove_folder();
}

START_TEST(a_signal_ends_the_waiting) { expect_loss("1e6", 2, 2); }
END_TEST
START_TEST(the_waiting_is_bounded) { expect_loss("0.0001", 0, 1000000); }
END_TEST
START_TEST(who_does_not_want_to_wait_is_told_at_once) { expect_loss("0", 0, 0); }
END_TEST

SUITE_MAIN("full disk", a_run_waits_for_room_and_keeps_its_weights, a_signal_ends_the_waiting,
           the_waiting_is_bounded, who_does_not_want_to_wait_is_told_at_once)
