// SPDX-License-Identifier: Apache-2.0
// Frame times of one video, and the map from the 30 fps base to its frames.
//
// Times come from packets alone where a packet is a shown frame with its own time (no decoding, a
// millisecond); elsewhere from decoding the file once. Nearly all videos lie on a grid, i / fps: then
// spec 4.5's formula holds, round(s * fps / 30); otherwise the frame nearest in time is taken.
#include "runtime/video/video.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const double min_rate = 1e-3, max_rate = 1e3, base_rate = 30;

// What one pass over the file saw. order[i] is the time of the i-th packet or frame as it came.
typedef struct seen {
  int64_t *time;
  bool *key;
  int64_t num, cap;
  bool has_times;
} seen;

static bool add_frame(seen *s, const md_frame_info *info, md_fault *f) {
  if (s->num == s->cap) {
    int64_t cap = s->cap ? 2 * s->cap : 512;
    int64_t *time = realloc(s->time, (size_t)cap * sizeof *time);
    if (time) s->time = time;
    bool *key = realloc(s->key, (size_t)cap * sizeof *key);
    if (key) s->key = key;
    if (!time || !key) {
      *f = (md_fault){.code = E0501, .text = "out of memory for the times of its frames"};
      return false;
    }
    s->cap = cap;
  }
  s->has_times = s->has_times && info->has_pts;
  s->time[s->num] = info->pts;
  s->key[s->num++] = info->key;
  return true;
}

static int by_value(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static bool increases(const int64_t *t, int64_t num) {
  for (int64_t i = 1; i < num; i++)
    if (t[i] <= t[i - 1]) return false;
  return true;
}

// Ticks between two times, without overflow.
static double ticks(int64_t from, int64_t to) { return (double)to - (double)from; }

static bool on_grid(const md_timeline *t, double fps) {
  if (!(fps >= min_rate && fps <= max_rate)) return false;
  for (int64_t i = 0; i < t->num_frames; i++)
    if (fabs(ticks(t->pts[0], t->pts[i]) * t->time_base * fps - (double)i) > 0.25) return false;
  return true;
}

// Times from packets: sorted, as they come in decoding order. NULL: they cannot be trusted, or the
// file failed, which f->code tells.
static md_timeline *from_packets(md_video *v, const md_video_info *about, md_fault *f) {
  seen s = {.has_times = true};
  md_frame_info info;
  md_video_step step;
  bool is_clean = true;
  while ((step = md_video_packet(v, &info, f)) == MD_VIDEO_FRAME) {
    if (!add_frame(&s, &info, f)) step = MD_VIDEO_FAILED;
    if (step == MD_VIDEO_FAILED) break;
    is_clean = is_clean && !info.damaged;
  }
  md_timeline *t = NULL;
  int64_t *sorted = NULL;
  if (step == MD_VIDEO_FAILED || !is_clean || !s.num || !s.has_times || !s.key[0]) goto out;
  sorted = malloc((size_t)s.num * sizeof *sorted);
  if (!sorted) goto out;
  memcpy(sorted, s.time, (size_t)s.num * sizeof *sorted);
  qsort(sorted, (size_t)s.num, sizeof *sorted, by_value);
  // A first frame shown before the first key frame would need what is not in the file.
  if (!increases(sorted, s.num) || sorted[0] != s.time[0]) goto out;
  t = md_timeline_make(s.num, sorted, about->time_base, about->rates);
  sorted = NULL;
  for (int64_t i = 0; t && i < s.num; i++)
    if (s.key[i])
      MD_PUSH(t->key, t->num_keys, t->cap_keys, (int32_t)md_timeline_find(t, s.time[i]));
out:
  free(sorted);
  free(s.time);
  free(s.key);
  return t;
}

static md_timeline *from_frames(md_video *v, const md_video_info *about, md_fault *f) {
  seen s = {.has_times = true};
  md_frame_info info;
  md_video_step step;
  while ((step = md_video_next(v, &info, f)) == MD_VIDEO_FRAME)
    if (!add_frame(&s, &info, f)) {
      step = MD_VIDEO_FAILED;
      break;
    }
  md_timeline *t = NULL;
  if (step == MD_VIDEO_END) {
    bool is_usable = s.has_times && increases(s.time, s.num);
    t = md_timeline_make(s.num, is_usable ? s.time : NULL, about->time_base, about->rates);
    if (is_usable) s.time = NULL;
  }
  free(s.time);
  free(s.key);
  return t;
}

md_timeline *md_timeline_make(int64_t num_frames, int64_t *take_pts, double time_base,
                              const double rates[2]) {
  MD_ASSERT(num_frames > 0, "a timeline needs a frame");
  md_timeline *t = md_calloc(1, sizeof *t);
  *t = (md_timeline){.num_frames = num_frames, .pts = take_pts, .time_base = time_base};
  t->constant = true;
  if (t->pts && num_frames > 1) {
    double seconds = ticks(t->pts[0], t->pts[num_frames - 1]) * time_base;
    double measured = (double)(num_frames - 1) / seconds;
    double found = on_grid(t, rates[0])   ? rates[0]
                   : on_grid(t, rates[1]) ? rates[1]
                   : on_grid(t, measured) ? measured
                                          : 0;
    t->constant = found > 0;
    t->fps = t->constant ? found : measured;
    if (t->fps >= min_rate && t->fps <= max_rate) return t;
    t->constant = true;
    t->fps = base_rate;  // absurd times: by index, at the rate of the base
    return t;
  }
  t->fps = rates[0] >= min_rate && rates[0] <= max_rate ? rates[0] : base_rate;
  return t;
}

void md_timeline_destroy(md_timeline *t) {
  if (!t) return;
  free(t->pts);
  free(t->key);
  free(t);
}

int64_t md_timeline_bytes(const md_timeline *t) {
  return (int64_t)sizeof *t + (t->pts ? 8 * t->num_frames : 0) + 4 * (int64_t)t->cap_keys;
}

double md_timeline_length(const md_timeline *t) {
  return (double)t->num_frames * base_rate / t->fps;
}

int64_t md_timeline_index(const md_timeline *t, double frame30) {
  double last = (double)(t->num_frames - 1);
  if (t->constant)
    return (int64_t)MD_MIN(MD_MAX(floor(frame30 * t->fps / base_rate + 0.5), 0), last);
  double want = frame30 / base_rate / t->time_base;  // ticks after the first frame
  int64_t lo = 0, hi = t->num_frames - 1;            // pts[lo] <= want < pts[hi + 1]
  while (lo < hi) {
    int64_t mid = lo + (hi - lo + 1) / 2;
    if (ticks(t->pts[0], t->pts[mid]) <= want) lo = mid;
    else hi = mid - 1;
  }
  if (lo + 1 >= t->num_frames) return lo;
  double before = want - ticks(t->pts[0], t->pts[lo]),
         after = ticks(t->pts[0], t->pts[lo + 1]) - want;
  return after <= before ? lo + 1 : lo;
}

int64_t md_timeline_find(const md_timeline *t, int64_t pts) {
  if (!t->pts) return -1;
  const int64_t *at = bsearch(&pts, t->pts, (size_t)t->num_frames, sizeof *t->pts, by_value);
  return at ? at - t->pts : -1;
}

int64_t md_timeline_motion_lag(const md_timeline *t) {
  int64_t lag = MD_MAX(1, llround(t->fps / base_rate));
  return MD_MIN(lag, t->num_frames - 1);
}

md_timeline *md_timeline_read(const char *path, const md_video_limits *limits, md_fault *f) {
  *f = (md_fault){0};
  md_video *v = md_video_open(path, limits, f);
  if (!v) return NULL;
  md_video_info about = md_video_about(v);
  md_timeline *t = about.one_to_one ? from_packets(v, &about, f) : NULL;
  if (!t && about.one_to_one && !f->code) {  // packets told too little: start again
    md_video_close(v);
    v = md_video_open(path, limits, f);
    if (!v) return NULL;
  }
  if (!t && !f->code) t = from_frames(v, &about, f);
  if (t) {
    t->damaged = md_video_damaged(v);
    t->missing = MD_MAX(0, about.declared - md_video_packets(v));
    struct stat st;
    if (stat(path, &st) == 0) t->file_bytes = st.st_size;
  }
  md_video_close(v);
  return t;
}
