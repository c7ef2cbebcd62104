// SPDX-License-Identifier: Apache-2.0
// Motion clips of a sample from the maps of its video: where something moves, if the rule asks for it
// (spec 4.5); the whole frame scaled to the short side, a square of it taken (spec 5.1).
#include "runtime/video/motion.h"

#include <string.h>

static bool refuse(md_fault *f, const char *hint) {
  f->code = E0851;
  snprintf(f->hint, sizeof f->hint, "%s", hint);
  return false;
}

static bool fits(const md_map_info *i, const md_timeline *t, const md_sample_rule *r, md_fault *f) {
  if (i->kind != r->from.kind) {
    snprintf(f->text, sizeof f->text, "motion map holds %s, but %s is asked for",
             md_map_kind_names[i->kind], md_map_kind_names[r->from.kind]);
    return refuse(f, "mclip.input and the --kind of 'modistc dataset flow' must agree");
  }
  if (i->frames != t->num_frames) {
    snprintf(f->text, sizeof f->text, "motion map has %d frames, but the video has %lld", i->frames,
             (long long)t->num_frames);
    return refuse(f, "the video was changed: run the same 'modistc dataset flow' again");
  }
  if (t->file_bytes && i->source_bytes != t->file_bytes) {
    snprintf(f->text, sizeof f->text, "motion map is that of a video of %lld bytes, not %lld",
             (long long)i->source_bytes, (long long)t->file_bytes);
    return refuse(f, "the video was changed: run the same 'modistc dataset flow' again");
  }
  return true;
}

static bool fill_clip(md_map *m, const md_timeline *t, const md_sample_rule *r, double start,
                      const double at[2], uint8_t *clip, md_fault *f) {
  const md_map_info *i = md_map_about(m);
  md_clip_shape shape = r->motion;
  md_square square;
  md_square_make(&square, i->w, i->h, i->w, i->h, shape.size, at);
  int64_t from = (int64_t)i->w * i->h, to = (int64_t)shape.size * shape.size, before = -1;
  int planes = md_map_planes(i->kind);
  for (int j = 0; j < shape.frames; j++) {
    int64_t frame = md_clip_frame(t, shape, start, j);
    // Short videos show their last frame again and again.
    const uint8_t *q = frame == before ? NULL : md_map_frame(m, (int)frame, f);
    if (!q && frame != before) return false;
    for (int p = 0; p < planes; p++) {
      uint8_t *out = clip + (p * shape.frames + j) * to;
      if (q) md_map_plane(q + (r->from.magnitude ? 2 : p) * from, i->w, &square, out);
      else memcpy(out, out - to, (size_t)to);
    }
    before = frame;
  }
  return true;
}

bool md_map_clips(const char *path, const md_timeline *t, const md_sample_rule *r, uint64_t key,
                  md_sample_out *out, md_fault *f) {
  md_map *m = md_map_open(path, f);
  if (!m) return false;
  bool ok = fits(md_map_about(m), t, r, f);
  double starts[MD_NUM_SLOTS];
  md_sample_starts(r, key, t, starts);
  for (int s = MD_MQ; s <= MD_MK && ok; s++) {
    if (r->from.gamma > 0 && !r->in_sync)
      starts[s] = md_gamma_start(t, md_map_scores(m), r->motion, r->from.gamma, r->from.rule,
                                 md_sample_unit(key, (md_slot)s));
    double at[2];
    md_sample_place(r, key, (md_slot)s, at);
    ok = fill_clip(m, t, r, starts[s], at, out->clip[s], f);
  }
  md_map_close(m);
  return ok;
}
