// SPDX-License-Identifier: Apache-2.0
// Scenes become small video files and a list of them with their motions as labels: a folder to try
// things on; and motion maps, if they are asked for. A list that is there already is not touched, and is written only when all videos are.
#include "runtime/video/motion.h"

#include "base/file.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool make_video(const md_scene_set *o, const md_scene *s, const char *path, uint8_t *rgb,
                       md_diags *d) {
  md_encoder *e = md_encoder_open(path, o->size, o->size, MD_SCENE_FPS, d);
  if (!e) return false;
  bool ok = true;
  for (int t = 0; ok && t < o->frames; t++) {
    md_scene_frame(s, t, o->size, rgb);
    ok = md_encoder_frame(e, rgb);
  }
  return md_encoder_close(e) && ok;
}

static bool make_one(const md_scene_set *o, int64_t i, const char *name, const char *path,
                     uint8_t *rgb, md_diags *d) {
  md_scene *s = md_scene_create(o->name, i, o->seed, (int)(i % MD_SCENE_MOTIONS), o->frames);
  bool ok = make_video(o, s, path, rgb, d) && (!o->truth.folder || md_truth_make(o, s, name, d));
  md_scene_destroy(s);
  return ok;
}

static bool open_folders(const md_scene_set *o, const char *list_path, md_arena *a, md_diags *d) {
  if (access(list_path, F_OK) == 0) {
    md_error(d, E0211, MD_IN_FILE(list_path), "the folder already holds a set of videos");
    md_hint(d, "name another folder, or remove this one");
    return false;
  }
  const char *maps = o->truth.folder;
  if (maps && !md_make_parents(md_format(a, "%s/", maps), d)) return false;
  if (mkdir(o->folder, 0777) == 0 || errno == EEXIST) return true;
  return md_error(d, E0843, MD_IN_FILE(o->folder), "the folder cannot be made: %s",
                  strerror(errno));
}

bool md_scene_set_make(const md_scene_set *o, md_diags *d) {
  md_arena *a = md_arena_create();
  size_t bytes = (size_t)3 * (size_t)o->size * (size_t)o->size;
  uint8_t *rgb = md_malloc(bytes);
  const char *list_path = md_format(a, "%s/%s", o->folder, o->list);
  md_text list = {0};
  bool ok = open_folders(o, list_path, a, d);
  for (int64_t i = o->first; ok && i < o->first + o->videos; i++) {
    const char *name = md_format(a, "%s_%04lld.%s", o->stem, (long long)i, i % 2 ? "mkv" : "mp4");
    ok = make_one(o, i, name, md_format(a, "%s/%s", o->folder, name), rgb, d);
    md_put(&list, "%s,%d\n", name, (int)(i % MD_SCENE_MOTIONS));
  }
  ok = ok && md_file_save(list_path, list.s, list.len, d);
  md_text_free(&list);
  free(rgb);
  md_arena_destroy(a);
  return ok;
}

bool md_shapes_make(const md_shapes_options *o, md_diags *d) {
  md_scene_set set = {.folder = o->folder,
                      .name = "shapes",
                      .stem = "shapes",
                      .list = "videos.csv",
                      .videos = o->videos,
                      .size = o->size,
                      .frames = (int)lround(o->seconds * (double)MD_SCENE_FPS),
                      .seed = o->seed,
                      .truth = o->truth};
  return md_scene_set_make(&set, d);
}
