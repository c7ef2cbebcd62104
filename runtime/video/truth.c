// SPDX-License-Identifier: Apache-2.0
// The maps of a made video. Its motion is known, so nothing is estimated: what `maps.c` makes of the
// pixels is made of the true flow (spec 4.4d, 12), and training takes either without a difference.
#include "runtime/video/motion.h"

#include "base/file.h"

#include <stdlib.h>

typedef struct Field {
  float *u, *v, *m;
  uint8_t *planes;
} Field;

static Field make_field(int64_t pixels) {
  size_t floats = (size_t)pixels * sizeof(float);
  return (Field){md_malloc(floats), md_malloc(floats), md_malloc(floats),
                 md_malloc((size_t)pixels * 3)};
}

static void free_field(Field *f) {
  free(f->u);
  free(f->v);
  free(f->m);
  free(f->planes);
}

// N(0, sigma^2), the same numbers for the same video.
static void add_noise(Field *f, int64_t pixels, uint64_t key, uint64_t first, double sigma) {
  for (int64_t i = 0; i < pixels; i++) {
    uint64_t at = 2 * (first + (uint64_t)i);
    f->u[i] += (float)(sigma * md_hash_normal(key, at));
    f->v[i] += (float)(sigma * md_hash_normal(key, at + 1));
  }
}

// Frames before the lag show the map of the first pair, as everywhere.
static bool write_frames(const md_truth_rule *r, const md_map_info *i, const md_scene *s,
                         uint64_t key, md_map_writer *w) {
  int64_t pixels = (int64_t)i->w * i->h;
  Field f = make_field(pixels);
  bool ok = true;
  for (int t = i->lag; t < i->frames && ok; t++) {
    md_scene_flow(s, t, t - i->lag, i->w, f.u, f.v);
    if (r->noise > 0)
      add_noise(&f, pixels, key, (uint64_t)(t * pixels), r->noise / (double)i->unit);
    md_map_planes_from(i, f.u, f.v, f.m, f.planes);
    ok = md_map_add_until(w, t, f.planes, md_map_score(i, f.planes));
  }
  free_field(&f);
  return ok;
}

bool md_truth_make(const md_scene_set *o, const md_scene *s, const char *name, md_diags *d) {
  const md_truth_rule *r = &o->truth;
  md_map_rule rule = md_map_rule_full(r->maps);
  MD_ASSERT(rule.kind != MD_MAP_DIFF, "differences are no motion");
  md_arena *a = md_arena_create();
  const char *video = md_format(a, "%s/%s", o->folder, name);
  const char *path = md_format(a, "%s/%s.mmap1", r->folder, name);
  md_map_info i;
  if (!md_map_info_of(&rule, video, &i)) {
    md_arena_destroy(a);
    return md_error(d, E0801, MD_IN_FILE(o->folder),
                    "a video was removed while its maps were made");
  }
  i.frames = o->frames;
  i.w = i.h = MD_MIN(rule.short_side, o->size);
  i.fps_num = MD_SCENE_FPS * 1000;
  i.fps_den = 1000;
  i.lag = MD_MIN(rule.lag30, o->frames - 1);
  i.unit = md_map_unit(i.w, i.h);
  i.is_true = true;
  md_map_writer *w = md_make_parents(path, d) ? md_map_create(path, &i, d) : NULL;
  bool ok = w && write_frames(r, &i, s, md_hash_key(name, o->seed), w);
  if (ok) ok = md_map_commit(w);
  else md_map_abort(w);
  md_arena_destroy(a);
  return ok;
}
