// SPDX-License-Identifier: Apache-2.0
// Batches in a fixed order, whatever the number of threads.
//
//   sample n = first_sample + i  ->  batch i / B, place i % B  ->  slab (batch % slabs)
//
// A worker takes the next sample number and writes straight into its place; a slab is handed out when
// its samples are all there, and taken back at the next call. What a sample is depends on its number
// and on the files alone: a video that fails is replaced by one drawn under the same key, and whether
// a failure was known already only saves the attempt.
#include "runtime/video/motion.h"

#include "base/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TRIES = 10, MAX_WORKERS = 256, MAX_QUEUE = 64, MAX_BATCH = 1 << 16 };
// Timelines are kept up to this; beyond it they are read again each time.
static const int64_t max_timeline_bytes = (int64_t)256 << 20;

// What became of one video. The fields are guarded by the loader's lock.
typedef struct video_state {
  md_timeline *timeline;  // never replaced once set
  md_fault *fault;        // the first one met
  bool is_given_up;       // no frame of the file can be had, whatever is drawn
  bool was_reported, was_damage_reported;
} video_state;

// What became of one sample, for the thread that hands out the batch.
typedef struct sample_record {
  int failed[MAX_TRIES + 1], num_failed;
  int video;     // -1: none could be read
  bool is_slow;  // the last one that failed took too long
  int64_t decoded, gpu_frames, damaged, missing;
  int64_t file_damaged, file_missing;  // found when the video was first looked at
  char codec[32];
  int64_t work_ns[MD_NUM_WORKS];
} sample_record;

typedef struct slab {
  md_batch batch;
  sample_record *records;
  int num_done;
} slab;

struct md_loader {
  md_loader_options options;
  md_diags *diags;
  md_order *order;
  video_state *videos;
  int64_t timeline_bytes;
  slab *slabs;
  int num_slabs;
  int64_t next_sample;      // relative to first_sample: the next one to take
  int64_t delivered;        // batches handed out
  bool is_held, is_broken;  // the last one is still with the caller; no more batches
  md_loader_stats stats;
  md_loader_work *work;
  int num_work, cap_work;
  atomic_bool must_stop;
  pthread_mutex_t lock;
  pthread_cond_t has_room, has_batch;
  pthread_t *threads;
  int num_threads;
  md_gather *own;  // of the caller's thread, when there are no workers
};

static int64_t clip_bytes(const md_sample_rule *r, md_slot s) {
  md_clip_shape shape = s == MD_MQ || s == MD_MK ? r->motion : r->visual;
  int64_t channels = 3;
  if (s == MD_MQ || s == MD_MK) channels = md_motion_planes(&r->from);
  return channels * shape.frames * shape.size * shape.size;
}

// The timeline of a video, read if need be. *owned: the caller destroys it. NULL: it failed.
static md_timeline *timeline_of(md_loader *l, int video, bool *owned, md_fault *f) {
  video_state *s = &l->videos[video];
  *owned = false;
  pthread_mutex_lock(&l->lock);
  md_timeline *known = s->timeline;
  bool has_failed = s->is_given_up;
  if (has_failed) *f = *s->fault;
  pthread_mutex_unlock(&l->lock);
  if (known || has_failed) return known;

  md_video_limits limits = l->options.limits;
  limits.nvdec = NULL;  // times are those of packets, or of all frames
  md_timeline *t = md_timeline_read(l->options.data->items[video].path, &limits, f);
  if (!t) return NULL;
  pthread_mutex_lock(&l->lock);
  int64_t bytes = md_timeline_bytes(t);
  *owned = true;
  if (!s->timeline && l->timeline_bytes + bytes <= max_timeline_bytes) {
    s->timeline = t;
    l->timeline_bytes += bytes;
    *owned = false;
  }
  pthread_mutex_unlock(&l->lock);
  return t;
}

static void note_failure(md_loader *l, int video, const md_fault *f, bool is_final) {
  video_state *s = &l->videos[video];
  pthread_mutex_lock(&l->lock);
  if (!s->fault) {
    s->fault = md_malloc(sizeof *s->fault);
    *s->fault = *f;
  }
  s->is_given_up = s->is_given_up || is_final;
  pthread_mutex_unlock(&l->lock);
}

static bool read_maps(md_loader *l, int video, const md_timeline *t, uint64_t key,
                      md_sample_out *out, md_fault *f) {
  const md_sample_rule *r = &l->options.rule;
  if (!r->from.maps || !r->motion.frames) return true;
  md_arena *a = md_arena_create();
  const char *path = md_map_path(a, r->from.maps, l->options.data, video);
  bool ok = md_map_clips(path, t, r, key, out, f);
  md_arena_destroy(a);
  return ok;
}

// On failure *is_final says whether another draw from this video would fail as well; if not, the
// video is tried again another time, as batches must not depend on what was tried before.
static bool read_video(md_loader *l, md_gather *g, int video, uint64_t key, md_sample_out *out,
                       sample_record *rec, bool *is_final, md_fault *f) {
  bool owned;
  int64_t begin = md_thread_cpu_ns();
  md_timeline *t = timeline_of(l, video, &owned, f);
  out->work_ns[MD_WORK_TIMES] += md_thread_cpu_ns() - begin;
  *is_final = !t;
  if (!t) return false;
  bool has_maps = read_maps(l, video, t, key, out, f);
  bool ok = has_maps && md_gather_sample(g, l->options.data->items[video].path, t, &l->options.rule,
                                         key, &l->options.limits, out, f);
  *is_final = !has_maps || out->decoded == 0;
  rec->decoded = out->decoded;
  rec->gpu_frames = out->gpu_frames;
  rec->damaged = out->damaged;
  rec->missing = out->missing;
  rec->file_damaged = t->damaged;
  rec->file_missing = t->missing;
  if (owned) md_timeline_destroy(t);
  return ok;
}

static void draw_looks(const md_sample_rule *r, uint64_t key, md_batch *b, int place) {
  for (int i = 0; i < 2; i++) {
    md_look look = md_look_draw(&r->augment, key, (md_slot)i);
    b->flip[i][place] = md_sample_flip(r, key, (md_slot)i);
    memcpy(b->color[i] + (int64_t)place * MD_COUNT(look.color) * 3, look.color, sizeof look.color);
    b->gray[i][place] = look.gray;
    b->sigma[i][place] = look.sigma;
  }
}

// Fills one place of a batch. False: stopped.
static bool make_sample(md_loader *l, md_gather *g, slab *to, int place, int64_t n,
                        int first_video) {
  const md_loader_options *o = &l->options;
  int num = o->data->num_items;
  int64_t epoch = n / num;
  sample_record *rec = &to->records[place];
  *rec = (sample_record){.video = -1};
  md_sample_out out = {0};
  for (int s = 0; s < MD_NUM_SLOTS; s++)
    if (to->batch.clip[s])
      out.clip[s] = to->batch.clip[s] + place * clip_bytes(&o->rule, (md_slot)s);
  int video = first_video;
  for (int attempt = 0; attempt <= MAX_TRIES; attempt++) {
    uint64_t key = md_sample_key(o->seed, epoch, video, attempt);
    md_fault f = {0};
    bool is_final;
    if (read_video(l, g, video, key, &out, rec, &is_final, &f)) {
      rec->video = video;
      memcpy(rec->codec, out.codec, sizeof rec->codec);
      memcpy(rec->work_ns, out.work_ns, sizeof rec->work_ns);
      to->batch.id[place] = video;
      to->batch.label[place] = o->data->items[video].label;
      draw_looks(&o->rule, key, &to->batch, place);
      return true;
    }
    if (atomic_load(&l->must_stop)) return false;
    note_failure(l, video, &f, is_final);
    rec->failed[rec->num_failed++] = video;
    rec->is_slow = f.is_slow;
    if (f.is_slow && o->deterministic) return true;
    // Drawn by the first video, so that the row of substitutes is known from the sample alone.
    uint64_t draw =
        md_hash_at(md_sample_key(o->seed, epoch, first_video, 0), 1000000U + (uint64_t)attempt);
    video = (int)(draw % (uint64_t)num);
  }
  return true;
}

static void note_work(md_loader *l, const sample_record *rec) {
  if (rec->video < 0) return;
  int at = 0;
  while (at < l->num_work && strcmp(l->work[at].codec, rec->codec) != 0) at++;
  if (at == l->num_work) {
    md_loader_work new = {0};
    memcpy(new.codec, rec->codec, sizeof new.codec);
    MD_PUSH(l->work, l->num_work, l->cap_work, new);
  }
  l->work[at].samples++;
  l->work[at].frames += rec->decoded;
  for (int i = 0; i < MD_NUM_WORKS; i++) l->work[at].work_ns[i] += rec->work_ns[i];
}

// Takes the next sample that has room and makes it. Called and left with the lock held.
static void take_and_make(md_loader *l, md_gather *g) {
  int64_t i = l->next_sample++, n = l->options.first_sample + i;
  slab *to = &l->slabs[i / l->options.batch % l->num_slabs];
  int place = (int)(i % l->options.batch);
  int video = md_order_at(l->order, n);
  pthread_mutex_unlock(&l->lock);
  int64_t begin = md_now_ns();
  bool ok = make_sample(l, g, to, place, n, video);
  int64_t spent = md_now_ns() - begin;
  pthread_mutex_lock(&l->lock);
  l->stats.work_ns += spent;
  note_work(l, &to->records[place]);
  if (ok && ++to->num_done == l->options.batch) pthread_cond_broadcast(&l->has_batch);
}

static bool has_room(const md_loader *l) {
  int64_t first_kept = l->delivered - (l->is_held ? 1 : 0);
  return l->next_sample / l->options.batch < first_kept + l->num_slabs;
}

static void *work(void *arg) {
  md_loader *l = arg;
  md_gather *g = md_gather_create();
  pthread_mutex_lock(&l->lock);
  while (!atomic_load(&l->must_stop)) {
    if (has_room(l)) take_and_make(l, g);
    else pthread_cond_wait(&l->has_room, &l->lock);
  }
  pthread_mutex_unlock(&l->lock);
  md_gather_destroy(g);
  return NULL;
}

// Tells the user what the batch could not be made from. The order of places makes it repeatable.
static bool report(md_loader *l, const slab *s) {
  const md_dataset *data = l->options.data;
  bool ok = true;
  for (int i = 0; i < s->batch.size; i++) {
    const sample_record *r = &s->records[i];
    for (int k = 0; k < r->num_failed; k++) {
      video_state *v = &l->videos[r->failed[k]];
      if (v->was_reported) continue;
      v->was_reported = true;
      l->stats.quarantined++;
      md_warning(l->diags, MD_IN_FILE(data->items[r->failed[k]].path), "left out: %s",
                 v->fault->text);
      if (*v->fault->hint) md_hint(l->diags, "%s", v->fault->hint);
    }
    if (r->is_slow && l->options.deterministic) {
      ok = md_error(l->diags, E0502, MD_IN_FILE(data->items[r->failed[r->num_failed - 1]].path),
                    "with --deterministic no video is left out because it takes too long");
      md_hint(l->diags,
              "go on with --resume when the disk answers, or leave the video out of the data");
      return ok;
    }
    if (r->video < 0) {
      ok = md_error(l->diags, E0505, MD_IN_FILE(data->items[r->failed[0]].path),
                    "cannot be decoded, nor can %d videos drawn in its place", r->num_failed - 1);
      md_hint(l->diags, "look at the warnings above; the data set seems to be damaged as a whole");
      return ok;
    }
    l->stats.samples++;
    l->stats.replaced += r->num_failed > 0;
    l->stats.decoded_frames += r->decoded;
    l->stats.gpu_frames += r->gpu_frames;
    l->stats.damaged_frames += r->damaged;
    l->stats.missing_frames += r->missing;
    video_state *v = &l->videos[r->video];
    int64_t damaged = MD_MAX(r->damaged, r->file_damaged),
            missing = MD_MAX(r->missing, r->file_missing);
    if ((damaged || missing) && !v->was_damage_reported) {
      v->was_damage_reported = true;
      md_warning(l->diags, MD_IN_FILE(data->items[r->video].path),
                 "used, but %lld of its frames are damaged and %lld missing", (long long)damaged,
                 (long long)missing);
    }
  }
  return ok;
}

static bool check_clip(md_diags *d, const char *what, md_clip_shape s) {
  if (s.frames >= 1 && s.frames <= MD_MAX_CLIP_FRAMES && s.stride >= 1 && s.stride <= 1024 &&
      s.size >= 1 && s.size <= MD_MAX_CLIP_SIZE)
    return true;
  return md_error(
      d, E0506, MD_NOWHERE,
      "%s clip of %d frames, stride %d, size %d: frames 1..%d, stride 1..1024, size 1..%d", what,
      s.frames, s.stride, s.size, MD_MAX_CLIP_FRAMES, MD_MAX_CLIP_SIZE);
}

static bool check(const md_loader_options *o, md_diags *d) {
  if (!check_clip(d, "visual", o->rule.visual)) return false;
  if (o->rule.motion.frames && !check_clip(d, "motion", o->rule.motion)) return false;
  if (o->batch < 1 || o->batch > MAX_BATCH)
    return md_error(d, E0506, MD_NOWHERE, "batch of %d: 1 to %d videos", o->batch, MAX_BATCH);
  if (o->workers < 0 || o->workers > MAX_WORKERS)
    return md_error(d, E0506, MD_NOWHERE, "%d loader workers: 0 to %d", o->workers, MAX_WORKERS);
  if (o->queue < 0 || o->queue > MAX_QUEUE)
    return md_error(d, E0506, MD_NOWHERE, "queue of %d batches: 0 (default) to %d", o->queue,
                    MAX_QUEUE);
  MD_ASSERT(o->first_sample >= 0 && o->data && o->data->num_items > 0, "loader without data");
  return true;
}

static bool make_slab(md_loader *l, slab *s) {
  size_t num = (size_t)l->options.batch;
  bool ok = true;
  for (int c = 0; c < MD_NUM_SLOTS; c++) {
    int64_t bytes = clip_bytes(&l->options.rule, (md_slot)c);
    if (bytes) ok = (s->batch.clip[c] = calloc(num, (size_t)bytes)) && ok;
  }
  for (int i = 0; i < 2; i++) {
    ok = (s->batch.flip[i] = calloc(num, 1)) && ok;
    ok = (s->batch.color[i] = calloc(num, sizeof((md_look){0}.color))) && ok;
    ok = (s->batch.gray[i] = calloc(num, 1)) && ok;
    ok = (s->batch.sigma[i] = calloc(num, sizeof(float))) && ok;
  }
  ok = (s->batch.id = calloc(num, sizeof *s->batch.id)) && ok;
  ok = (s->batch.label = calloc(num, sizeof *s->batch.label)) && ok;
  ok = (s->records = calloc(num, sizeof *s->records)) && ok;
  return ok;
}

// Said once, as a warning where the GPU was asked for by name.
static void tell_of_decoder(const md_loader *l, const char *text) {
  if (l->options.decode == MD_DECODE_NVDEC)
    md_warning(l->diags, MD_NOWHERE, "%s; the CPU does it", text);
  else md_log(MD_LOG_DATA, MD_LEVEL_INFO, "%s; the CPU does it", text);
}

static void open_decoder(md_loader *l) {
  char why[256];
  l->options.limits.nvdec = NULL;
  if (l->options.decode == MD_DECODE_CPU) return;
  l->options.limits.nvdec = md_nvdec_open(l->options.gpu, why, sizeof why);
  if (!l->options.limits.nvdec) tell_of_decoder(l, why);
}

md_loader *md_loader_create(const md_loader_options *o, md_diags *d) {
  if (!check(o, d)) return NULL;
  md_loader *l = md_calloc(1, sizeof *l);
  l->options = *o;
  l->options.limits.cancel = &l->must_stop;
  l->diags = d;
  open_decoder(l);
  pthread_mutex_init(&l->lock, NULL);
  pthread_cond_init(&l->has_room, NULL);
  pthread_cond_init(&l->has_batch, NULL);
  l->order = md_order_create(o->seed, o->data->num_items);
  l->videos = calloc((size_t)o->data->num_items, sizeof *l->videos);
  l->num_slabs = o->workers ? (o->queue ? o->queue : 2) + 1 : 1;  // one is with the caller
  l->slabs = calloc((size_t)l->num_slabs, sizeof *l->slabs);
  l->threads = calloc((size_t)MD_MAX(1, o->workers), sizeof *l->threads);
  l->own = md_gather_create();
  bool ok = l->videos && l->slabs && l->threads;
  for (int i = 0; ok && i < l->num_slabs; i++) ok = make_slab(l, &l->slabs[i]);
  if (!ok) {
    char size[MD_FLOAT_CHARS];
    int64_t bytes = 0;
    for (int s = 0; s < MD_NUM_SLOTS; s++) bytes += clip_bytes(&o->rule, (md_slot)s);
    md_error(d, E0801, MD_NOWHERE, "no memory for %d batches of clips, %s", l->num_slabs,
             md_bytes_text((double)bytes * o->batch * l->num_slabs, size));
  }
  for (int i = 0; ok && i < o->workers; i++) {
    int error = pthread_create(&l->threads[i], NULL, work, l);
    char words[128];
    if (error)
      ok = md_error(d, E0801, MD_NOWHERE, "loader thread cannot be started: %s",
                    strerror_r(error, words, sizeof words));
    else l->num_threads++;
  }
  if (ok) return l;
  md_loader_destroy(l);
  return NULL;
}

void md_loader_destroy(md_loader *l) {
  if (!l) return;
  pthread_mutex_lock(&l->lock);
  atomic_store(&l->must_stop, true);
  pthread_cond_broadcast(&l->has_room);
  pthread_mutex_unlock(&l->lock);
  for (int i = 0; i < l->num_threads; i++) pthread_join(l->threads[i], NULL);
  for (int i = 0; l->slabs && i < l->num_slabs; i++) {
    slab *s = &l->slabs[i];
    for (int c = 0; c < MD_NUM_SLOTS; c++) free(s->batch.clip[c]);
    for (int k = 0; k < 2; k++) {
      free(s->batch.flip[k]);
      free(s->batch.color[k]);
      free(s->batch.gray[k]);
      free(s->batch.sigma[k]);
    }
    free(s->batch.id);
    free(s->batch.label);
    free(s->records);
  }
  for (int i = 0; l->videos && i < l->options.data->num_items; i++) {
    md_timeline_destroy(l->videos[i].timeline);
    free(l->videos[i].fault);
  }
  md_gather_destroy(l->own);
  md_nvdec_close(l->options.limits.nvdec);
  md_order_destroy(l->order);
  pthread_cond_destroy(&l->has_batch);
  pthread_cond_destroy(&l->has_room);
  pthread_mutex_destroy(&l->lock);
  free(l->videos);
  free(l->slabs);
  free(l->work);
  free(l->threads);
  free(l);
}

static void tell_news(md_loader *l) {
  md_nvdec *n = l->options.limits.nvdec;
  char what[200], text[256];
  while (n && md_nvdec_news(n, what, sizeof what)) {
    snprintf(text, sizeof text, "GPU %d does not decode %s", l->options.gpu, what);
    tell_of_decoder(l, text);
  }
}

md_status md_loader_next(md_loader *l, md_batch *out) {
  if (l->is_broken) return MD_ERR_DATA;
  int64_t begin = md_now_ns();
  pthread_mutex_lock(&l->lock);
  if (l->is_held) {
    l->slabs[(l->delivered - 1) % l->num_slabs].num_done = 0;
    l->is_held = false;
    pthread_cond_broadcast(&l->has_room);
  }
  slab *s = &l->slabs[l->delivered % l->num_slabs];
  while (s->num_done < l->options.batch) {
    if (l->num_threads) pthread_cond_wait(&l->has_batch, &l->lock);
    else take_and_make(l, l->own);
  }
  s->batch.first_sample = l->options.first_sample + l->delivered * l->options.batch;
  s->batch.size = l->options.batch;
  l->delivered++;
  l->is_held = true;
  l->is_broken = !report(l, s);
  l->stats.batches += !l->is_broken;
  l->stats.wait_ns += md_now_ns() - begin;
  pthread_mutex_unlock(&l->lock);
  tell_news(l);
  if (l->is_broken) return MD_ERR_DATA;
  *out = s->batch;
  return MD_OK;
}

bool md_loader_is_ready(md_loader *l) {
  pthread_mutex_lock(&l->lock);
  bool is_other = !l->is_held || l->num_slabs > 1;  // than the batch that was given out
  bool is_ready = l->slabs[l->delivered % l->num_slabs].num_done == l->options.batch && is_other;
  pthread_mutex_unlock(&l->lock);
  return is_ready && !l->is_broken;
}

md_loader_stats md_loader_stats_now(md_loader *l) {
  pthread_mutex_lock(&l->lock);
  md_loader_stats stats = l->stats;
  pthread_mutex_unlock(&l->lock);
  return stats;
}

bool md_loader_work_of(md_loader *l, int i, md_loader_work *work) {
  pthread_mutex_lock(&l->lock);
  bool is_there = i < l->num_work;
  if (is_there) *work = l->work[i];
  pthread_mutex_unlock(&l->lock);
  return is_there;
}

const char *md_loader_quarantined(md_loader *l, int *at, md_fault *why) {
  const char *path = NULL;
  pthread_mutex_lock(&l->lock);
  for (; *at < l->options.data->num_items && !path; ++*at) {
    if (!l->videos[*at].was_reported) continue;
    path = l->options.data->items[*at].path;
    *why = *l->videos[*at].fault;
  }
  pthread_mutex_unlock(&l->lock);
  return path;
}
