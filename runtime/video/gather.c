// SPDX-License-Identifier: Apache-2.0
// All clips of a sample from one forward pass: decoding starts at the last key frame that serves the
// earliest frame wanted, goes over to a later key frame across what nobody wants, leaves out frames
// that nobody wants and no other needs, and ends with the last one wanted. A frame is converted when it is there, written to
// every place that wants it, and forgotten; a motion frame waits only for its partner. So memory does
// not grow with the length of the video or of the clips.
#include "runtime/video/video.h"

#include <stdlib.h>
#include <string.h>

// One place that wants a frame: frame j of the clip of a slot.
typedef struct want {
  int64_t frame, base;
  md_slot slot;
  int j;
  bool is_done;
} want;
// A native frame kept until every motion frame that is compared with it has come.
typedef struct kept {
  int64_t frame;
  md_image image;
  bool is_used;
} kept;

struct md_gather {
  want *wants;
  int num_wants, cap_wants;
  kept *bases;
  int num_bases, cap_bases;
  md_image small, native;
  uint16_t *diff;
  int64_t diff_pixels;
  int64_t diff_frame, diff_base;  // what diff holds; -1: nothing
  int64_t lap_ns;                 // when the work at hand began
};

const char *const md_work_names[MD_NUM_WORKS] = {"times",   "open", "seek",  "decode",
                                                 "convert", "crop", "motion"};

// What was done since the last lap was `work`.
static void lap(md_gather *g, md_sample_out *out, md_work work) {
  int64_t now = md_thread_cpu_ns();
  out->work_ns[work] += now - g->lap_ns;
  g->lap_ns = now;
}

static bool is_motion(md_slot s) { return s == MD_MQ || s == MD_MK; }

static bool no_memory(md_fault *f) {
  *f = (md_fault){.code = E0501, .text = "out of memory for its frames"};
  return false;
}

static void plan(md_gather *g, const md_timeline *t, const md_sample_rule *r, uint64_t key) {
  double starts[MD_NUM_SLOTS];
  md_sample_starts(r, key, t, starts);
  int64_t lag = md_timeline_motion_lag(t);
  g->num_wants = 0;
  for (int s = 0; s < MD_NUM_SLOTS; s++) {
    if (is_motion((md_slot)s) && r->from.maps) continue;
    md_clip_shape shape = is_motion((md_slot)s) ? r->motion : r->visual;
    for (int j = 0; j < shape.frames; j++) {
      int64_t frame = md_clip_frame(t, shape, starts[s], j);
      if (is_motion((md_slot)s)) frame = MD_MAX(frame, lag);  // D_0 = D_1
      int64_t base = is_motion((md_slot)s) ? frame - lag : frame;
      want w = {.frame = frame, .base = base, .slot = (md_slot)s, .j = j};
      MD_PUSH(g->wants, g->num_wants, g->cap_wants, w);
    }
  }
}

static kept *find_base(md_gather *g, int64_t frame) {
  for (int i = 0; i < g->num_bases; i++)
    if (g->bases[i].is_used && g->bases[i].frame == frame) return &g->bases[i];
  return NULL;
}

// Keeps a copy of the native frame under the name of the frame that was wanted.
static bool keep_base(md_gather *g, int64_t frame, md_fault *f) {
  kept *free_one = NULL;
  for (int i = 0; i < g->num_bases && !free_one; i++)
    if (!g->bases[i].is_used) free_one = &g->bases[i];
  if (!free_one) {
    MD_PUSH(g->bases, g->num_bases, g->cap_bases, (kept){0});
    free_one = &g->bases[g->num_bases - 1];
  }
  if (!md_image_resize(&free_one->image, g->native.w, g->native.h)) return no_memory(f);
  memcpy(free_one->image.rgb, g->native.rgb, (size_t)g->native.w * (size_t)g->native.h * 3);
  free_one->frame = frame;
  free_one->is_used = true;
  return true;
}

static void drop_bases(md_gather *g) {
  for (int i = 0; i < g->num_bases; i++) {
    kept *k = &g->bases[i];
    bool is_needed = false;
    for (int w = 0; w < g->num_wants && !is_needed; w++)
      is_needed =
          !g->wants[w].is_done && is_motion(g->wants[w].slot) && g->wants[w].base == k->frame;
    if (!is_needed) k->is_used = false;
  }
}

static bool write_motion(md_gather *g, const want *w, const md_sample_rule *r, uint64_t key,
                         uint8_t *clip, md_fault *f) {
  int planes = md_motion_planes(&r->from);
  bool is_signed = r->from.signed_rgb;
  const md_image *now = &g->native;
  if (g->diff_frame != w->frame || g->diff_base != w->base) {
    int64_t pixels = (int64_t)planes * now->w * now->h;
    if (pixels > g->diff_pixels) {
      free(g->diff);
      g->diff = malloc((size_t)pixels * sizeof *g->diff);
      g->diff_pixels = g->diff ? pixels : 0;
      if (!g->diff) return no_memory(f);
    }
    const kept *base = find_base(g, w->base);
    MD_ASSERT(base, "motion frame %lld without its base", (long long)w->frame);
    if (is_signed) md_motion_signed_diff(now, &base->image, g->diff);
    else md_motion_diff(now, &base->image, g->diff);
    g->diff_frame = w->frame;
    g->diff_base = w->base;
  }
  double at[2];
  md_square square;
  md_sample_place(r, key, w->slot, at);
  md_square_make(&square, now->w, now->h, now->disp_w, now->disp_h, r->motion.size, at);
  int64_t pixels = (int64_t)r->motion.size * r->motion.size;
  for (int p = 0; p < planes; p++)
    md_motion_resize(g->diff + (int64_t)p * now->w * now->h, now->w, is_signed, square.row,
                     square.size, square.col, square.size,
                     clip + (p * r->motion.frames + w->j) * pixels);
  return true;
}

// The current frame serves all that waits for frame `now` or an earlier one that did not come.
static bool serve(md_gather *g, md_video *v, int64_t now, const md_sample_rule *r, uint64_t key,
                  md_sample_out *out, md_fault *f) {
  bool has_small = false, has_native = false;
  int64_t pixels = (int64_t)r->visual.size * r->visual.size;
  int short_side = r->short_side ? r->short_side : (r->visual.size * 10 + 6) / 7;
  for (int i = 0; i < g->num_wants; i++) {
    const want *w = &g->wants[i];
    if (w->is_done || !is_motion(w->slot) || w->base > now || find_base(g, w->base)) continue;
    if (!has_native && !md_video_rgb(v, 0, &g->native, f)) return false;
    lap(g, out, MD_WORK_CONVERT);
    has_native = true;
    if (!keep_base(g, w->base, f)) return false;
    lap(g, out, MD_WORK_MOTION);
    if (w->base < now) out->missing++;
  }
  for (int i = 0; i < g->num_wants; i++) {
    want *w = &g->wants[i];
    if (w->is_done || w->frame > now) continue;
    bool motion = is_motion(w->slot);
    if (motion && !has_native && !md_video_rgb(v, 0, &g->native, f)) return false;
    has_native = has_native || motion;
    if (!motion && !has_small && !md_video_rgb(v, short_side, &g->small, f)) return false;
    has_small = has_small || !motion;
    lap(g, out, MD_WORK_CONVERT);
    if (motion) {
      if (!write_motion(g, w, r, key, out->clip[w->slot], f)) return false;
    } else {
      md_box box = md_sample_crop(r, key, w->slot, g->small.w, g->small.h);
      md_image_crop(&g->small, box, r->visual.size, out->clip[w->slot] + w->j * pixels,
                    r->visual.frames * pixels);
    }
    lap(g, out, motion ? MD_WORK_MOTION : MD_WORK_CROP);
    w->is_done = true;
    if (w->frame < now) out->missing++;
  }
  drop_bases(g);
  return true;
}

// Nothing is done, nothing kept.
static void begin(md_gather *g) {
  for (int i = 0; i < g->num_bases; i++) g->bases[i].is_used = false;
  for (int i = 0; i < g->num_wants; i++) g->wants[i].is_done = false;
}

static bool all_done(const md_gather *g) {
  for (int i = 0; i < g->num_wants; i++)
    if (!g->wants[i].is_done) return false;
  return true;
}

// The last frame at which decoding may start and still bring all that is wanted and not done.
static int64_t start_frame(md_gather *g, const md_timeline *t) {
  int64_t first = t->num_frames, start = 0;
  for (int i = 0; i < g->num_wants; i++) {
    const want *w = &g->wants[i];
    if (w->is_done) continue;
    first = MD_MIN(first, is_motion(w->slot) && find_base(g, w->base) ? w->frame : w->base);
  }
  for (int i = 0; i < t->num_keys; i++)
    if (t->key[i] <= first) start = MD_MAX(start, t->key[i]);
  return start;
}

typedef struct wanted {
  const md_gather *g;
  const md_timeline *t;
} wanted;

static bool is_wanted(const void *ctx, int64_t pts) {
  const wanted *wd = ctx;
  int64_t frame = md_timeline_find(wd->t, pts);
  for (int i = 0; i < wd->g->num_wants; i++)
    if (wd->g->wants[i].frame == frame || wd->g->wants[i].base == frame) return true;
  return frame < 0;
}

md_gather *md_gather_create(void) { return md_calloc(1, sizeof(md_gather)); }

void md_gather_destroy(md_gather *g) {
  if (!g) return;
  for (int i = 0; i < g->num_bases; i++) md_image_free(&g->bases[i].image);
  md_image_free(&g->small);
  md_image_free(&g->native);
  free(g->wants);
  free(g->bases);
  free(g->diff);
  free(g);
}

// One pass that starts to decode at frame `start`. `sparse`: only as much as is needed.
static bool pass(md_gather *g, const char *path, const md_timeline *t, int64_t start, bool sparse,
                 const md_sample_rule *r, uint64_t key, const md_video_limits *limits,
                 md_sample_out *out, md_fault *f) {
  g->lap_ns = md_thread_cpu_ns();
  md_video *v = md_video_open(path, limits, f);
  if (!v) return false;
  memcpy(out->codec, md_video_about(v).codec, sizeof out->codec);
  lap(g, out, MD_WORK_OPEN);
  begin(g);
  g->diff_frame = g->diff_base = -1;
  out->decoded = out->gpu_frames = out->damaged = out->missing = 0;
  if (start > 0) md_video_start_at(v, t->pts[start]);
  const wanted wd = {g, t};
  if (sparse) md_video_want(v, is_wanted, &wd);
  int64_t counted = -1, now = -1;
  md_video_step step = MD_VIDEO_FRAME;
  bool ok = true;
  while (ok && !all_done(g)) {
    md_frame_info info;
    step = md_video_next(v, &info, f);
    lap(g, out, MD_WORK_DECODE);
    if (step != MD_VIDEO_FRAME) break;
    out->decoded++;
    counted++;
    // A time that the timeline does not know (a damaged frame) belongs to the frame after the last.
    int64_t found = t->pts && info.has_pts ? md_timeline_find(t, info.pts) : -1;
    int64_t at = !t->pts ? counted : found >= 0 ? found : now + 1;
    if (at < start || at < now) continue;  // leading pictures of the key frame
    now = at;
    ok = serve(g, v, now, r, key, out, f);
    int64_t next = sparse && t->pts ? start_frame(g, t) : 0;
    if (next <= now || next <= start || all_done(g)) continue;
    start = next;
    md_video_start_at(v, t->pts[start]);
  }
  // What is still open lies beyond the last frame that decodes.
  if (ok && step == MD_VIDEO_END) ok = serve(g, v, INT64_MAX, r, key, out, f);
  out->damaged = md_video_damaged(v);
  out->gpu_frames = md_video_gpu_frames(v);
  out->work_ns[MD_WORK_SEEK] += md_video_seek_ns(v);
  out->work_ns[MD_WORK_DECODE] -= md_video_seek_ns(v);
  md_video_close(v);
  lap(g, out, MD_WORK_OPEN);
  return ok && step != MD_VIDEO_FAILED;
}

static bool gather(md_gather *g, const char *path, const md_timeline *t, const md_sample_rule *r,
                   uint64_t key, const md_video_limits *limits, md_sample_out *out, md_fault *f) {
  *f = (md_fault){0};
  out->decoded = out->gpu_frames = out->damaged = out->missing = 0;
  plan(g, t, r, key);
  begin(g);
  int64_t start = start_frame(g, t);
  // Key frames are known where packets are: there a file in order gives all that is wanted.
  if (t->num_keys && pass(g, path, t, start, true, r, key, limits, out, f) && !out->missing)
    return true;
  if (f->code == E0502 || f->is_of_gpu) return false;  // a limit; the CPU is asked
  if (pass(g, path, t, start, false, r, key, limits, out, f)) return true;
  // Nothing decodes from that key frame on; an earlier part of a damaged file may.
  return start > 0 && !out->decoded && pass(g, path, t, 0, false, r, key, limits, out, f);
}

bool md_gather_sample(md_gather *g, const char *path, const md_timeline *t, const md_sample_rule *r,
                      uint64_t key, const md_video_limits *limits, md_sample_out *out,
                      md_fault *f) {
  bool ok = gather(g, path, t, r, key, limits, out, f);
  if (f->is_of_gpu || (ok && out->gpu_frames)) md_nvdec_count(limits->nvdec, ok);
  if (ok || !f->is_of_gpu) return ok;
  md_video_limits cpu = *limits;
  cpu.nvdec = NULL;
  return gather(g, path, t, r, key, &cpu, out, f);
}
