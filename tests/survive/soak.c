// SPDX-License-Identifier: Apache-2.0
// The same thing over and over: after a quarter of the cycles, which warm up, memory grows by less
// than 1 KiB a cycle, and no descriptor stays open.
#include "runtime/train/train.h"
#include "tests/unit/folder.h"
#include "tests/unit/small_engine.h"
#include "tests/unit/suite.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { COMPILATIONS = 2000, VIDEOS = 1000, STEPS = 500, LOOKS = 100 };

typedef struct Usage {
  int64_t rss;  // bytes
  int open;     // descriptors
} Usage;

static Usage usage_of(pid_t process) {
  Usage u = {0};
  char path[64], line[128];
  snprintf(path, sizeof path, "/proc/%d/statm", (int)process);
  FILE *f = fopen(path, "r");
  ck_assert(f && fgets(line, sizeof line, f));
  fclose(f);
  const char *pages = strchr(line, ' ');  // the second number
  ck_assert_ptr_nonnull(pages);
  u.rss = strtoll(pages, NULL, 10) * sysconf(_SC_PAGESIZE);
  snprintf(path, sizeof path, "/proc/%d/fd", (int)process);
  DIR *fds = opendir(path);
  ck_assert_ptr_nonnull(fds);
  while (readdir(fds)) u.open++;
  closedir(fds);
  return u;
}

static void check_flat(const char *what, Usage warm, Usage end, int cycles) {
  int64_t grown = end.rss - warm.rss;
  printf("%s: %lld KiB, %+lld bytes a cycle, %d descriptors\n", what, (long long)end.rss >> 10,
         (long long)grown / cycles, end.open);
  ck_assert_int_lt(grown, (int64_t)cycles * 1024);
  ck_assert_int_le(end.open, warm.open);
}

static void compile_once(void) {
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("small.mdg", small, sizeof small - 1, d);
  md_engine_options o = {.passes = md_pass_defaults(), .no_cache = true};
  md_engine *e = md_engine_create(g, &o, d);
  ck_assert_msg(e != NULL, "%s", md_diags_text(d));
  md_engine_destroy(e);
  md_diags_destroy(d);
}

static void open_once(void) {
  md_fault f;
  md_frame_info info;
  md_video *v = md_video_open(in_folder("videos/shapes_0000.mp4"), NULL, &f);
  ck_assert(v && md_video_next(v, &info, &f) == MD_VIDEO_FRAME);
  md_video_close(v);
}

static void repeat(const char *what, void (*once)(void), int cycles) {
  for (int i = 0; i < cycles / 4; i++) once();
  Usage warm = usage_of(getpid());
  for (int i = cycles / 4; i < cycles; i++) once();
  check_flat(what, warm, usage_of(getpid()), cycles - cycles / 4);
}

static void make_videos(void) {
  make_empty_folder();
  md_diags *d = md_diags_create();
  md_shapes_options o = {.folder = in_folder("videos"), .videos = 4, .size = 48, .seconds = 2};
  ck_assert_msg(md_shapes_make(&o, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

START_TEST(compiling_and_freeing) { repeat("compile", compile_once, COMPILATIONS); }
END_TEST

START_TEST(opening_and_closing_videos) {
  make_videos();
  repeat("open", open_once, VIDEOS);
  remove_folder();
}
END_TEST

// Until it is stopped, with checkpoints.
static int train(void) {
  char data[160], dir[160];
  snprintf(data, sizeof data, "data.train=%s", in_folder("videos"));
  snprintf(dir, sizeof dir, "run.dir=%s", in_folder("run"));
  char *set[] = {data,
                 dir,
                 "batch=2",
                 "bank.size=4",
                 "clip.frames=2",
                 "mclip.frames=2",
                 "epochs=100000",
                 "opt.lr=0.0001",
                 "run.checkpoint_every=20",
                 "data.workers=0"};
  md_diags *d = md_diags_create();
  md_config *c = md_config_load(NULL, set, MD_COUNT(set), d);
  md_train_options o = {.quiet = true, .engine.passes = md_pass_defaults()};
  return c ? (int)md_train(c, &o, d) : EXIT_FAILURE;
}

// The log has a line a step.
static Usage usage_after(pid_t child, int steps) {
  for (int lines = 0; lines < steps; usleep(10000)) {
    ck_assert_int_eq(waitpid(child, NULL, WNOHANG), 0);
    FILE *f = fopen(in_folder("run/log.jsonl"), "r");
    lines = 0;
    for (int c; f && (c = fgetc(f)) != EOF;) lines += c == '\n';
    if (f) fclose(f);
  }
  // The least of many looks: a video or a checkpoint is open, and its memory in use, for moments.
  Usage least = usage_of(child);
  for (int i = 1; i < LOOKS; i++, usleep(2000)) {
    Usage now = usage_of(child);
    least.rss = MD_MIN(least.rss, now.rss);
    least.open = MD_MIN(least.open, now.open);
  }
  return least;
}

START_TEST(training) {
  make_videos();
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) _exit(train());
  Usage warm = usage_after(child, STEPS / 4), end = usage_after(child, STEPS);
  kill(child, SIGTERM);
  int status;
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == MD_STOPPED);
  check_flat("train", warm, end, STEPS - STEPS / 4);
  remove_folder();
}
END_TEST

SUITE_MAIN("soak", compiling_and_freeing, opening_and_closing_videos, training)
