// SPDX-License-Identifier: Apache-2.0
// A run, and what is left of it when the power fails: after every call that it made, on a disk that
// may have forgotten whatever no fsync made certain. What is found then is the newest checkpoint that
// the run could rely on, or a newer one; never one that is not whole.
#include "base/file.h"
#include "runtime/train/train.h"
#include "tests/survive/disk.h"
#include "tests/unit/made_videos.h"
#include "tests/unit/suite.h"

#include <sys/stat.h>

enum { THROWS = 1, WRITES_A_CRASH = 200, LEAST_STATES = 100 };

// What a whole checkpoint of each step holds.
typedef struct Whole {
  int64_t step;
  md_digest digest;
} Whole;

// The same disk may be fine early in a run, and a loss later.
typedef struct Seen {
  md_digest state;
  int64_t promised;
} Seen;

typedef struct Test {
  disk *disk;
  Whole *whole;
  int num_whole, cap_whole;
  int64_t saved, promised;  // steps; -1: none
  Seen *seen;
  int num_seen, cap_seen;
  uint64_t throws;
  int64_t calls;
} Test;

// --- the run

static void train(const char *trace, const char *more) {
  const char *bin = getenv("MODIST_BIN");
  md_text t = {0};
  md_put(&t,
         "LD_PRELOAD='" TRACE_SHIM "' " TRACE_FILE "='%s' " TRACE_ROOT "='%s' '%s/modistc' train "
         "-q run.dir='%s' %s",
         trace, in_folder("disk"), bin ? bin : "build/bin", in_folder("disk/runs/a"), more);
  ck_assert_msg(system(t.s) == 0, "%s", t.s);
  md_text_free(&t);
}

// A run of five steps that keeps two checkpoints, and goes on for three.
static void run_in_two_parts(void) {
  make_folder_of_videos();
  ck_assert_int_eq(mkdir(in_folder("disk"), 0700), 0);
  char settings[300];
  snprintf(settings, sizeof settings,
           "data.train='%s' batch=2 bank.size=4 clip.frames=2 mclip.frames=2 epochs=100 "
           "opt.lr=0.001 run.checkpoint_every=2 run.keep=2 --max-steps=5",
           in_folder("videos"));
  train(in_folder("trace0"), settings);
  train(in_folder("trace1"), "--resume --max-steps=8");
}

// --- what it could rely on

static int64_t step_in(const char *bytes, size_t len, const char *key) {
  const char *at = memmem(bytes, len, key, strlen(key));
  return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}

// A checkpoint is done when the run goes on: when it logs a later step.
static void follow(Test *t, const trace_record *r, const char *data) {
  size_t len;
  if (r->op == TRACE_RENAME && strstr(r->to, ".safetensors")) {
    char *bytes = disk_read(t->disk, r->path, &len);
    t->saved = step_in(bytes, len, "\"step\":\"");
    ck_assert_int_gt(t->saved, 0);
    MD_PUSH(t->whole, t->num_whole, t->cap_whole, ((Whole){t->saved, md_digest_of(bytes, len)}));
    free(bytes);
  }
  if (r->op == TRACE_WRITE && step_in(data, (size_t)r->len, "{\"schema\":\"modist.step/1\"") >= 0 &&
      step_in(data, (size_t)r->len, "\"step\":") > t->saved)
    t->promised = t->saved;
}

// --- what is found

static bool is_whole(const Test *t, const char *path, int64_t step) {
  char *bytes;
  size_t len;
  ck_assert(md_file_read(path, 1 << 30, E0601, NULL, &bytes, &len));
  md_digest found = md_digest_of(bytes, len);
  free(bytes);
  for (int i = 0; i < t->num_whole; i++)
    if (t->whole[i].step == step && !memcmp(&t->whole[i].digest, &found, sizeof found)) return true;
  return false;
}

static void check_state(const Test *t) {
  md_diags *d = md_diags_create();
  md_checkpoint *c = md_resume_find(in_folder("state/runs/a"), d);
  int64_t step = c ? md_checkpoint_step(c) : -1;
  ck_assert_msg(step >= t->promised, "after call %lld step %lld is found, not %lld: %s",
                (long long)t->calls, (long long)step, (long long)t->promised, md_diags_text(d));
  ck_assert_msg(!c || is_whole(t, md_checkpoint_path(c), step), "another step %lld",
                (long long)step);
  // A file has its name only when it is whole, so that none is skipped.
  ck_assert_msg(md_diags_warnings(d) == 0, "after call %lld: %s", (long long)t->calls,
                md_diags_text(d));
  md_checkpoint_close(c);
  md_diags_destroy(d);
}

static bool is_new(Test *t, const disk_state *s) {
  Seen now = {disk_state_digest(s), t->promised};
  for (int i = t->num_seen - 1; i >= 0; i--)
    if (!memcmp(&t->seen[i], &now, sizeof now)) return false;
  MD_PUSH(t->seen, t->num_seen, t->cap_seen, now);
  return true;
}

static void lose_power(Test *t, disk_luck names, disk_luck data) {
  disk_state s = disk_after_loss(t->disk, names, data, t->throws++);
  if (is_new(t, &s)) {
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s'", in_folder("state"),
             in_folder("state"));
    ck_assert_int_eq(system(command), 0);
    ck_assert(disk_state_write(&s, in_folder("state")));
    check_state(t);
  }
  disk_state_free(&s);
}

static void lose_power_in_all_ways(Test *t) {
  for (disk_luck names = DISK_NONE; names <= DISK_ALL; names++)
    for (disk_luck data = DISK_NONE; data <= DISK_ALL; data++)
      for (int i = 0; i < (names == DISK_ANY || data == DISK_ANY ? THROWS : 1); i++)
        lose_power(t, names, data);
}

// --- call by call

static void replay(Test *t, const char *bytes, size_t len) {
  const trace_record *r;
  for (size_t at = 0; at < len; at += sizeof *r + (r->op == TRACE_WRITE ? (size_t)r->len : 0)) {
    r = (const void *)(bytes + at);
    const char *data = bytes + at + sizeof *r;
    follow(t, r, data);
    disk_do(t->disk, r, data);
    // Most calls write one tensor each to a file without a name: some of these are enough.
    if (r->op != TRACE_WRITE || t->calls % WRITES_A_CRASH == 0) lose_power_in_all_ways(t);
    t->calls++;
  }
  t->promised = t->saved;  // the run has ended well
  lose_power_in_all_ways(t);
}

START_TEST(what_is_left_is_the_newest_that_was_promised) {
  run_in_two_parts();
  Test t = {.disk = disk_create(), .saved = -1, .promised = -1};
  char *trace[2];
  size_t len;
  for (int i = 0; i < MD_COUNT(trace); i++) {
    ck_assert(
        md_file_read(in_folder(i ? "trace1" : "trace0"), 1 << 30, E0601, NULL, &trace[i], &len));
    replay(&t, trace[i], len);
  }
  ck_assert_int_eq(t.promised, 8);
  ck_assert_int_eq(t.num_whole, 5);  // after 2, 4, 5; then 6, 8
  printf("%lld calls, %d states of the disk\n", (long long)t.calls, t.num_seen);
  ck_assert_int_ge(t.num_seen, LEAST_STATES);
  disk_destroy(t.disk);
  for (int i = 0; i < MD_COUNT(trace); i++) free(trace[i]);
  free(t.whole);
  free(t.seen);
  remove_folder();
}
END_TEST

SUITE_MAIN("power loss", what_is_left_is_the_newest_that_was_promised)
