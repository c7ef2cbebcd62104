// SPDX-License-Identifier: Apache-2.0
// Any bytes as a video: opened, decoded and sampled within limits, or refused with one reason. The
// file lives in memory only. Built for libFuzzer, or with fuzz_main.c for a run with a seed.
#include "runtime/video/video.h"

#include "tests/fuzz/fuzz.h"
#include "tests/video/make_video.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_FRAMES = 200, CLIP = 16 };
static const md_video_limits limits = {
    .max_pixels = 1 << 20, .max_frames = MAX_FRAMES, .max_seconds = 20};

static void check_fault(const md_fault *f) {
  MD_ASSERT((f->code == E0501 || f->code == E0502) && f->text[0], "refused without a reason");
}

static int64_t decode(const char *path) {
  md_fault f = {0};
  md_video *v = md_video_open(path, &limits, &f);
  if (!v) {
    check_fault(&f);
    return 0;
  }
  md_image im = {0};
  md_frame_info info;
  md_video_step step;
  int64_t frames = 0;
  while ((step = md_video_next(v, &info, &f)) == MD_VIDEO_FRAME) {
    MD_ASSERT(++frames <= MAX_FRAMES, "more frames than the limit");
    if (frames > 3) continue;
    if (md_video_rgb(v, frames % 2 ? 0 : CLIP, &im, &f))
      MD_ASSERT((int64_t)im.w * im.h <= limits.max_pixels && im.w > 0 && im.h > 0, "%d x %d", im.w,
                im.h);
    else check_fault(&f);
  }
  if (step == MD_VIDEO_FAILED) check_fault(&f);
  MD_ASSERT(step == MD_VIDEO_FAILED || frames > 0, "accepted without a frame");
  md_image_free(&im);
  md_video_close(v);
  return frames;
}

static void sample(const char *path) {
  md_fault f = {0};
  md_timeline *t = md_timeline_read(path, &limits, &f);
  if (!t) {
    check_fault(&f);
    return;
  }
  MD_ASSERT(t->num_frames > 0 && t->num_frames <= MAX_FRAMES, "%lld frames",
            (long long)t->num_frames);
  md_sample_rule rule = {.visual = {4, 8, CLIP}, .motion = {4, 4, CLIP}};
  static uint8_t clip[MD_NUM_SLOTS][3 * 4 * CLIP * CLIP];
  md_sample_out out = {0};
  for (int s = 0; s < MD_NUM_SLOTS; s++) out.clip[s] = clip[s];
  md_gather *g = md_gather_create();
  if (!md_gather_sample(g, path, t, &rule, 1, &limits, &out, &f)) check_fault(&f);
  md_gather_destroy(g);
  md_timeline_destroy(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  int fd = memfd_create("video", MFD_CLOEXEC);
  MD_ASSERT(fd >= 0, "no memory file");
  for (size_t done = 0; done < size;) {
    ssize_t n = write(fd, data + done, size - done);
    MD_ASSERT(n > 0, "memory file is not written");
    done += (size_t)n;
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  decode(path);
  sample(path);
  close(fd);
  return 0;
}

// Small files of several containers; real ones come from the command line.
void fuzz_seeds(void (*add)(const char *s, size_t len)) {
  static const char *const extensions[] = {"mp4", "mov", "mkv", "avi", "ts"};
  for (int i = 0; i < MD_COUNT(extensions); i++) {
    char path[64];
    snprintf(path, sizeof path, "fuzz-seed-%ld.%s", (long)getpid(), extensions[i]);
    make_video(&(made_video){.path = path,
                             .w = 32,
                             .h = 32,
                             .frames = 12,
                             .fps_num = 30,
                             .fps_den = 1,
                             .key_every = 5,
                             .b_frames = i % 3,
                             .pixel = made_square});
    static char bytes[1 << 16];
    FILE *f = fopen(path, "rb");
    MD_ASSERT(f, "%s is not there", path);
    add(bytes, fread(bytes, 1, sizeof bytes, f));
    fclose(f);
    remove(path);
  }
}
