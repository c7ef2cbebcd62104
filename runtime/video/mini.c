// SPDX-License-Identifier: Apache-2.0
// The data of the miniature experiment (spec §9.1, §12): 64 frames a video, eight classes of motion.
// What is drawn for a video follows from (seed, split, number), so that train, tune and test never
// share a video, and a larger set begins with the smaller one.
#include "runtime/video/video.h"

const char *const md_mini_splits[] = {"train", "tune", "test", NULL};
static const int usual[MD_MINI_SPLITS] = {480, 240, 240};

int md_mini_usual(md_mini_split split) { return usual[split]; }

bool md_mini_make(const md_mini_options *o, md_diags *d) {
  static const char *const names[] = {"mini.train", "mini.tune", "mini.test"};
  static const char *const lists[] = {"train.csv", "tune.csv", "test.csv"};
  md_scene_set set = {.folder = o->folder,
                      .name = names[o->split],
                      .stem = md_mini_splits[o->split],
                      .list = lists[o->split],
                      .first = o->first,
                      .videos = o->videos,
                      .size = o->size,
                      .frames = MD_MINI_FRAMES,
                      .seed = o->seed,
                      .truth = o->truth};
  return md_scene_set_make(&set, d);
}
