// SPDX-License-Identifier: Apache-2.0
// Trains the tiny MoDist through the library alone. The videos are made up: each has a pattern of its
// own that drifts, and two clips of one video differ by where they start and by noise. MoDist has to
// tell the videos apart by what they look like and by how they move.
//   train_tiny [STEPS]
#include <modist/modist.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { VIDEOS = 64, BATCH = 8, FRAMES = 4, SIZE = 32, AREA = SIZE * SIZE };

static uint32_t draw(uint32_t *state) { return *state = *state * 1664525U + 1013904223U; }

// Brightness of pixel (x, y) of channel c at time t: a wave of the video's own direction and speed.
static double pattern(int video, int c, double t, int y, int x) {
  double angle = 0.4 * video, speed = 0.3 + 0.05 * (video % 16);
  return sin((0.2 + 0.02 * (video % 11)) * (x * cos(angle) + y * sin(angle)) + speed * t +
             c * 0.05 * video);
}

// A clip [3, FRAMES, SIZE, SIZE] and, as motion, how much each pixel changes from frame to frame.
static void make_clip(int video, double start, uint32_t *noise, uint8_t *clip, uint8_t *motion) {
  for (int t = 0; t < FRAMES; t++)
    for (int i = 0; i < AREA; i++) {
      double change = 0;
      for (int c = 0; c < 3; c++) {
        double now = pattern(video, c, start + t, i / SIZE, i % SIZE);
        change += fabs(pattern(video, c, start + t + 1, i / SIZE, i % SIZE) - now) / 3;
        double grain = (double)(draw(noise) >> 24) / 16;
        clip[(c * FRAMES + t) * AREA + i] = (uint8_t)(112 + 100 * now + grain);
      }
      motion[t * AREA + i] = (uint8_t)fmin(255, 100 * change);
    }
}

static void make_batch(modist_run *r, int step, uint32_t *random) {
  static const char *const names[2][2] = {{"vq", "mq"}, {"vk", "mk"}};
  int32_t *ids = modist_run_input(r, "ids", NULL);
  for (int b = 0; b < BATCH; b++) ids[b] = (step * BATCH + b) % VIDEOS;
  for (int view = 0; view < 2; view++) {
    uint8_t *clip = modist_run_input(r, names[view][0], NULL);
    uint8_t *motion = modist_run_input(r, names[view][1], NULL);
    for (int b = 0; b < BATCH; b++)
      make_clip(ids[b], draw(random) >> 26, random, clip + b * 3 * FRAMES * AREA,
                motion + b * FRAMES * AREA);
  }
  *(float *)modist_run_input(r, "lr", NULL) = 0.05F;
}

static int fail(const char *what, const char *text) {
  fprintf(stderr, "%s: %s\n", what, text);
  return 1;
}

int main(int argc, char **argv) {
  int steps = argc > 1 ? atoi(argv[1]) : 600;
  const char *settings[] = {
      "batch=8",         "clip.frames=4", "clip.size=32",       "bank.size=32",
      "bank.init=empty", "ema=0.99",      "loss.cross_neg=key", "loss.tau=0.2"};
  modist_graph *g;
  if (modist_step_graph("modist-tiny", settings, 8, &g) != MD_OK)
    return fail("step graph", modist_last_error());
  modist_program *p;
  if (modist_compile(g, NULL, &p) != MD_OK) return fail("compile", modist_graph_error(g));
  modist_run *r;
  modist_run_options o = {.struct_size = sizeof o, .seed = 1};
  if (modist_run_create(p, &o, &r) != MD_OK) return fail("run", modist_last_error());

  static const char *const terms[] = {"loss", "loss_v", "loss_m", "loss_vm", "loss_mv"};
  double mean[5] = {0};
  uint32_t random = 7;
  printf("each of the four terms, by guessing: %.3f\n", log(1 + 32));
  int every = steps < 10 ? 1 : steps / 10;
  for (int i = 1; i <= steps; i++) {
    make_batch(r, i, &random);
    if (modist_run_step(r) != MD_OK) return fail("step", modist_run_error(r));
    for (int t = 0; t < 5; t++)
      mean[t] += (double)*(const float *)modist_run_result(r, terms[t], NULL) / every;
    if (i % every) continue;
    printf("step %4d ", i);
    for (int t = 0; t < 5; t++) printf(" %s %6.3f", terms[t], mean[t]), mean[t] = 0;
    puts("");
  }
  modist_run_destroy(r);
  modist_program_destroy(p);
  modist_graph_destroy(g);
  return 0;
}
