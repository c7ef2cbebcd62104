// SPDX-License-Identifier: Apache-2.0
// What chance decides about a sample: video, starts, flips, crops. All of it is counted, not
// streamed: value i under a key made of (seed, epoch, video, try), so that it is the same for any
// number of threads, processes, and after a restart.
#include "runtime/video/video.h"

#include <stdlib.h>
#include <string.h>

// Counters of one slot; slots follow one another.
enum { AT_START, AT_FLIP, AT_CROP, DRAWS_A_SLOT = AT_CROP + MD_CROP_DRAWS };

struct md_order {
  uint64_t seed;
  int num;
  int64_t epoch[2];  // which permutation each half holds; -1: none
  int *video[2];     // two, as a batch may lie across the end of an epoch
};

static uint64_t counter(md_slot slot, int what) {
  return (uint64_t)slot * DRAWS_A_SLOT + (uint64_t)what;
}

double md_sample_unit(uint64_t key, md_slot slot) {
  return md_hash_01(key, counter(slot, AT_START));
}

static double draw_start(uint64_t key, md_slot slot, double length, int span) {
  return MD_MAX(length - span, 0) * md_sample_unit(key, slot);
}

static void permute(md_order *o, int64_t epoch, int *video) {
  uint64_t key = md_hash_at(md_hash_key("order", o->seed), (uint64_t)epoch);
  for (int i = 0; i < o->num; i++) video[i] = i;
  for (int i = o->num - 1; i > 0; i--) {
    int j = (int)(md_hash_at(key, (uint64_t)i) % (uint64_t)(i + 1));
    int kept = video[i];
    video[i] = video[j];
    video[j] = kept;
  }
}

uint64_t md_sample_key(uint64_t seed, int64_t epoch, int64_t video, int attempt) {
  uint64_t key = md_hash_at(md_hash_key("sample", seed), (uint64_t)epoch);
  return md_hash_at(md_hash_at(key, (uint64_t)video), (uint64_t)attempt);
}

void md_sample_starts(const md_sample_rule *r, uint64_t key, const md_timeline *t,
                      double starts[MD_NUM_SLOTS]) {
  if (r->starts) {
    memcpy(starts, r->starts, MD_NUM_SLOTS * sizeof *starts);
    return;
  }
  int visual = r->visual.frames * r->visual.stride, motion = r->motion.frames * r->motion.stride;
  if (r->in_sync) visual = motion = MD_MAX(visual, motion);
  double length = md_timeline_length(t);
  starts[MD_VQ] = draw_start(key, MD_VQ, length, visual);
  starts[MD_VK] = draw_start(key, MD_VK, length, visual);
  starts[MD_MQ] = r->in_sync ? starts[MD_VK] : draw_start(key, MD_MQ, length, motion);
  starts[MD_MK] = r->in_sync ? starts[MD_VQ] : draw_start(key, MD_MK, length, motion);
}

bool md_sample_flip(const md_sample_rule *r, uint64_t key, md_slot slot) {
  return md_hash_01(key, counter(slot, AT_FLIP)) < r->flip;
}

md_box md_sample_crop(const md_sample_rule *r, uint64_t key, md_slot slot, int w, int h) {
  return md_crop_draw(&r->crop, key, counter(slot, AT_CROP), w, h);
}

void md_sample_place(const md_sample_rule *r, uint64_t key, md_slot slot, double at[2]) {
  for (int i = 0; i < 2; i++)
    at[i] = r->from.random_place ? md_hash_01(key, counter(slot, AT_CROP + i)) : 0.5;
}

int64_t md_clip_frame(const md_timeline *t, md_clip_shape shape, double start, int j) {
  return md_timeline_index(t, start + (double)j * shape.stride);
}

md_order *md_order_create(uint64_t seed, int num_videos) {
  MD_ASSERT(num_videos > 0, "an order of nothing");
  md_order *o = md_calloc(1, sizeof *o);
  *o = (md_order){.seed = seed, .num = num_videos, .epoch = {-1, -1}};
  for (int i = 0; i < 2; i++) {
    o->video[i] = md_calloc((size_t)num_videos, sizeof *o->video[i]);
  }
  return o;
}

void md_order_destroy(md_order *o) {
  if (!o) return;
  free(o->video[0]);
  free(o->video[1]);
  free(o);
}

int md_order_at(md_order *o, int64_t n) {
  int64_t epoch = n / o->num;
  int half = (int)(epoch % 2);
  if (o->epoch[half] != epoch) {
    permute(o, epoch, o->video[half]);
    o->epoch[half] = epoch;
  }
  return o->video[half][n % o->num];
}
