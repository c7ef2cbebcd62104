// SPDX-License-Identifier: Apache-2.0
// A folder for a test that trains: five small videos to train on, and a cache of its own.
#ifndef TESTS_UNIT_MADE_VIDEOS_H
#define TESTS_UNIT_MADE_VIDEOS_H

#include "runtime/video/video.h"
#include "tests/unit/folder.h"

static void make_folder_of_videos(void) {
  make_empty_folder();
  md_diags *d = md_diags_create();
  md_shapes_options o = {.folder = in_folder("videos"), .videos = 5, .size = 48, .seconds = 2};
  ck_assert_msg(md_shapes_make(&o, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
  setenv("MODIST_CACHE", in_folder("cache"), 0);
}

#endif
