// SPDX-License-Identifier: Apache-2.0
// Looks at every video of a set: opens it, decodes its first frame or all, reads the times of all
// frames. Workers take the next video; rows are handed out in the order of the set.
#include "runtime/video/video.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *const md_verdict_names[MD_NUM_VERDICTS] = {"good", "damaged", "broken"};

typedef struct Survey {
  const md_survey_options *o;
  md_survey_row *row;
  bool *is_done;
  int next;
  bool must_stop;
  pthread_mutex_t lock;
  pthread_cond_t has_row;
} Survey;

static void give_up(md_survey_row *r, const md_fault *f) {
  r->verdict = MD_BROKEN;
  r->why = md_malloc(sizeof *r->why);
  *r->why = *f;
}

// The first frame, or all of them. False: broken, *f says why.
static bool read_frames(md_survey_row *r, bool full, md_fault *f) {
  md_video *v = md_video_open(r->path, NULL, f);
  if (!v) return false;
  md_video_info about = md_video_about(v);
  memcpy(r->codec, about.codec, sizeof r->codec);
  r->rotation = about.rotation;
  md_frame_info info;
  md_video_step step = md_video_next(v, &info, f);
  md_image im = {0};
  bool ok = step == MD_VIDEO_FRAME && md_video_rgb(v, 0, &im, f);
  r->w = im.w;
  r->h = im.h;
  md_image_free(&im);
  while (ok && full && step == MD_VIDEO_FRAME) step = md_video_next(v, &info, f);
  r->damaged = md_video_damaged(v);
  md_video_close(v);
  return ok && step != MD_VIDEO_FAILED;
}

static bool read_times(md_survey_row *r, md_fault *f) {
  md_timeline *t = md_timeline_read(r->path, NULL, f);
  if (!t) return false;
  r->frames = t->num_frames;
  r->missing = t->missing;
  r->damaged = MD_MAX(r->damaged, t->damaged);
  r->fps = t->fps;
  r->seconds = (double)t->num_frames / t->fps;
  md_timeline_destroy(t);
  return true;
}

static void look(const md_survey_options *o, md_survey_row *r) {
  struct stat st;
  if (stat(r->path, &st) == 0) r->bytes = st.st_size;
  if (o->known && o->known(o->ctx, r)) return;
  md_fault f = {0};
  if (!read_frames(r, o->full_decode, &f) || !read_times(r, &f)) {
    give_up(r, &f);
    return;
  }
  r->verdict = r->damaged || r->missing ? MD_DAMAGED : MD_GOOD;
  r->has_hash = o->hash && md_digest_of_file(r->path, &r->hash);
}

static void *work(void *arg) {
  Survey *s = arg;
  pthread_mutex_lock(&s->lock);
  while (!s->must_stop && s->next < s->o->data->num_items) {
    int i = s->next++;
    pthread_mutex_unlock(&s->lock);
    look(s->o, &s->row[i]);
    pthread_mutex_lock(&s->lock);
    s->is_done[i] = true;
    pthread_cond_signal(&s->has_row);
  }
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

static bool hand_out(Survey *s) {
  for (int i = 0; i < s->o->data->num_items; i++) {
    pthread_mutex_lock(&s->lock);
    while (!s->is_done[i]) pthread_cond_wait(&s->has_row, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (!s->o->each(s->o->ctx, &s->row[i])) return false;
  }
  return true;
}

bool md_survey(const md_survey_options *o, md_diags *d) {
  enum { MAX_WORKERS = 64 };
  int num = o->data->num_items, workers = MD_MIN(MD_MAX(o->workers, 1), MAX_WORKERS), started = 0;
  Survey s = {.o = o,
              .row = md_calloc((size_t)num, sizeof *s.row),
              .is_done = md_calloc((size_t)num, sizeof *s.is_done)};
  for (int i = 0; i < num; i++)
    s.row[i] = (md_survey_row){.path = o->data->items[i].path, .label = o->data->items[i].label};
  pthread_mutex_init(&s.lock, NULL);
  pthread_cond_init(&s.has_row, NULL);
  pthread_t thread[MAX_WORKERS];
  while (started < workers && !pthread_create(&thread[started], NULL, work, &s)) started++;
  bool ok = started > 0;
  if (ok) ok = hand_out(&s);
  else md_error(d, E0801, MD_NOWHERE, "no thread can be started to look at the videos");
  pthread_mutex_lock(&s.lock);
  s.must_stop = true;
  pthread_mutex_unlock(&s.lock);
  for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
  for (int i = 0; i < num; i++) free(s.row[i].why);
  pthread_cond_destroy(&s.has_row);
  pthread_mutex_destroy(&s.lock);
  free(s.row);
  free(s.is_done);
  return ok;
}
