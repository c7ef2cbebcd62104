// SPDX-License-Identifier: Apache-2.0
// The maps of a data set, one file a video, made by threads that each take the next video.
//
//   frames  0 .. lag .. t .. T-1      kept: the last lag + 1
//   map[t] = map of (frame t, frame t - lag) for t >= lag; map[t] = map[lag] before
//
// A map belongs to a native frame, so that clips index maps as they index frames. What is complete is
// kept, so a run that was stopped goes on where it was.
#include "runtime/video/motion.h"

#include "base/file.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const int64_t max_ring_bytes = (int64_t)1 << 30;

typedef enum Result { WAITING, MADE, KEPT, BROKEN } Result;

typedef struct Maker {
  md_maps_options o;
  Result *result;
  md_fault **why;  // of broken videos
  int next, running;
  md_maps_progress now;
  bool has_failed;  // the disk or the system: no use in going on
  char fail_path[512], fail_text[256];
  atomic_bool stop;
  pthread_mutex_t lock;
  pthread_cond_t ended;
} Maker;

// Buffers of one thread, and the video that it works on.
typedef struct Work {
  Maker *maker;
  md_image *rgb;  // [lag + 1], frame t at t % (lag + 1); diff alone needs them
  float **grey;   // likewise, for flow
  int ring;       // lag + 1
  md_image image;
  md_flow *flow;
  int flow_w, flow_h;
  float *u, *v, *m;
  uint16_t *diff;
  uint8_t *planes;
  md_map_info info;
  md_map_writer *out;
  int done;  // frames that were seen
} Work;

static void *grow(void *old, int64_t n, size_t size) {
  void *p = realloc(old, (size_t)MD_MAX(n, 1) * size);
  if (!p) md_out_of_memory((size_t)n * size);
  return p;
}

static void start_ring(Work *w, int ring) {
  for (; w->ring < ring; w->ring++) {
    w->rgb = grow(w->rgb, w->ring + 1, sizeof *w->rgb);
    w->grey = grow(w->grey, w->ring + 1, sizeof *w->grey);
    w->rgb[w->ring] = (md_image){0};
    w->grey[w->ring] = NULL;
  }
}

static void free_work(Work *w) {
  for (int i = 0; i < w->ring; i++) {
    md_image_free(&w->rgb[i]);
    free(w->grey[i]);
  }
  md_image_free(&w->image);
  md_flow_destroy(w->flow);
  void *all[] = {w->rgb, w->grey, w->u, w->v, w->m, w->diff, w->planes};
  for (int i = 0; i < MD_COUNT(all); i++) free(all[i]);
}

// --- one map

// D as bytes, resized from the coder's grid to the map's (spec 4.1; the same as on the fly).
static void fill_diff(Work *w, const md_image *now, const md_image *before, uint8_t *q) {
  w->diff = grow(w->diff, (int64_t)now->w * now->h, sizeof *w->diff);
  md_motion_diff(now, before, w->diff);
  md_tap *tap = grow(NULL, w->info.w + w->info.h, sizeof *tap), *col = tap, *row = tap + w->info.w;
  md_taps(col, w->info.w, 0, (double)now->w / w->info.w, now->w);
  md_taps(row, w->info.h, 0, (double)now->h / w->info.h, now->h);
  md_motion_resize(w->diff, now->w, false, row, w->info.h, col, w->info.w, q);
  free(tap);
}

static void fill_flow(Work *w, const float *now, const float *before, uint8_t *q) {
  const md_map_info *i = &w->info;
  if (!w->flow || w->flow_w != i->w || w->flow_h != i->h) {
    md_flow_destroy(w->flow);
    w->flow = md_flow_create(NULL, i->w, i->h);
    w->flow_w = i->w;
    w->flow_h = i->h;
  }
  md_flow_run(w->flow, now, before, w->u, w->v);
  md_map_planes_from(i, w->u, w->v, w->m, q);
}

// Frame number w->done has come; its picture is in w->image.
static bool take_frame(Work *w) {
  int t = w->done++, lag = w->info.lag, at = t % (lag + 1), from = (t + 1) % (lag + 1);
  int64_t pixels = (int64_t)w->info.w * w->info.h;
  bool is_diff = w->info.kind == MD_MAP_DIFF;
  if (is_diff) {
    md_image *to = &w->rgb[at];
    if (!md_image_resize(to, w->image.w, w->image.h)) md_out_of_memory(to->cap);
    memcpy(to->rgb, w->image.rgb, (size_t)to->w * (size_t)to->h * 3);
  } else {
    w->grey[at] = grow(w->grey[at], pixels, sizeof **w->grey);
    md_motion_grey(&w->image, w->grey[at]);
  }
  if (t < lag) return true;
  // With lag 0 the only frame is compared with itself: nothing moves.
  if (is_diff) fill_diff(w, &w->rgb[at], &w->rgb[from], w->planes);
  else fill_flow(w, w->grey[at], w->grey[from], w->planes);
  return md_map_add_until(w->out, t, w->planes, md_map_score(&w->info, w->planes));
}

// --- one video

static bool same_parameters(const md_map_info *a, const md_map_info *b) {
  return a->kind == b->kind && a->lag30 == b->lag30 && a->short_side == b->short_side &&
         a->clamp == b->clamp && a->scale == b->scale && a->is_true == b->is_true &&
         a->source_bytes == b->source_bytes && a->source_mtime == b->source_mtime;
}

static bool is_there(const char *path, const md_map_info *want) {
  md_fault f;
  md_map *m = md_map_open(path, &f);
  bool same = m && same_parameters(md_map_about(m), want);
  md_map_close(m);
  return same;
}

static bool get_picture(Work *w, md_video *v, md_fault *f) {
  return md_video_rgb(v, w->info.kind == MD_MAP_DIFF ? 0 : w->info.short_side, &w->image, f);
}

// Size of the maps, from the first picture.
static bool set_size(Work *w, md_fault *f) {
  md_map_info *i = &w->info;
  const md_image *im = &w->image;
  int shorter = MD_MIN(im->disp_w, im->disp_h);
  double by =
      i->kind == MD_MAP_DIFF && i->short_side < shorter ? (double)i->short_side / shorter : 1;
  i->w = (int)MD_MAX(1, lround(im->disp_w * by));
  i->h = (int)MD_MAX(1, lround(im->disp_h * by));
  int64_t pixels = (int64_t)i->w * i->h;
  if (i->w > MD_MAP_MAX_SIDE || i->h > MD_MAP_MAX_SIDE || 3 * pixels > MD_MAP_MAX_BYTES) {
    *f = (md_fault){.code = E0502};
    snprintf(f->text, sizeof f->text, "maps of %dx%d pixels are too large", i->w, i->h);
    return false;
  }
  // Native frames for differences, grey planes for flow. A rate that a header makes up may ask for many.
  bool is_diff = i->kind == MD_MAP_DIFF;
  int64_t kept = (i->lag + 1) * (is_diff ? 3 * (int64_t)im->w * im->h : 4 * pixels);
  if (kept > max_ring_bytes) {
    char need[MD_FLOAT_CHARS];
    *f = (md_fault){.code = E0502, .hint = "a smaller --lag or --short-side needs less"};
    snprintf(f->text, sizeof f->text, "%d frames between the two that are compared take %s", i->lag,
             md_bytes_text((double)kept, need));
    return false;
  }
  i->unit = md_map_unit(i->w, i->h);
  w->u = grow(w->u, pixels, sizeof *w->u);
  w->v = grow(w->v, pixels, sizeof *w->v);
  w->m = grow(w->m, pixels, sizeof *w->m);
  w->planes = grow(w->planes, 3 * pixels, 1);
  return true;
}

// A frame that does not come is replaced by the next one that does, at the end by the last one.
static bool read_frames(Work *w, md_video *v, const md_timeline *t, const char *path, md_diags *d,
                        md_fault *f) {
  int64_t counted = -1, now = -1;
  md_video_step step;
  md_frame_info info;
  while (w->done < w->info.frames && (step = md_video_next(v, &info, f)) != MD_VIDEO_END) {
    if (step == MD_VIDEO_FAILED || !get_picture(w, v, f)) return false;
    counted++;
    int64_t found = t->pts && info.has_pts ? md_timeline_find(t, info.pts) : -1;
    int64_t at = !t->pts ? counted : found >= 0 ? found : now + 1;
    if (at < now) continue;
    now = MD_MIN(at, w->info.frames - 1);
    if (!w->out && (!set_size(w, f) || !(w->out = md_map_create(path, &w->info, d)))) return false;
    while (w->done <= now)
      if (!take_frame(w)) return false;
    pthread_mutex_lock(&w->maker->lock);
    w->maker->now.frames++;
    pthread_mutex_unlock(&w->maker->lock);
  }
  if (!w->out) {
    *f = (md_fault){.code = E0501, .text = "no frame can be decoded"};
    return false;
  }
  while (w->done < w->info.frames)
    if (!take_frame(w)) return false;
  return true;
}

// BROKEN: see *f, unless *d has an error of the system.
static Result make_one(Work *w, const char *video, const char *path, md_diags *d, md_fault *f) {
  const md_map_rule *rule = &w->maker->o.rule;
  *f = (md_fault){0};
  if (md_map_info_of(rule, video, &w->info) && is_there(path, &w->info)) return KEPT;
  md_video_limits limits = {.cancel = &w->maker->stop, .max_frames = MD_MAP_MAX_FRAMES};
  md_timeline *t = md_timeline_read(video, &limits, f);
  if (!t) return BROKEN;
  // The clock of a pass runs while flow is computed, too: a second for each frame on top.
  limits.max_seconds = 120 + (double)t->num_frames;
  md_map_info *i = &w->info;
  i->frames = (int)t->num_frames;
  i->fps_num = (int)lround(t->fps * 1000);
  i->fps_den = 1000;
  i->lag = (int)MD_MIN(MD_MAX(1, llround(rule->lag30 * t->fps / 30)), t->num_frames - 1);
  start_ring(w, i->lag + 1);
  w->done = 0;
  w->out = NULL;
  md_video *v = md_video_open(video, &limits, f);
  bool ok = v && md_make_parents(path, d) && read_frames(w, v, t, path, d, f);
  if (v) md_video_close(v);
  md_timeline_destroy(t);
  if (ok) return md_map_commit(w->out) ? MADE : BROKEN;
  md_map_abort(w->out);
  return BROKEN;
}

// --- all videos

static void *run_jobs(void *arg) {
  Maker *m = arg;
  Work w = {.maker = m};
  md_arena *arena = md_arena_create();
  md_diags *d = md_diags_create();
  pthread_mutex_lock(&m->lock);
  while (!atomic_load(&m->stop) && m->next < m->o.set->num_items) {
    int i = m->next++;
    pthread_mutex_unlock(&m->lock);
    const char *path = md_map_path(arena, m->o.folder, m->o.set, i);
    md_fault f;
    Result r = make_one(&w, m->o.set->items[i].path, path, d, &f);
    pthread_mutex_lock(&m->lock);
    if (r == BROKEN && md_diags_errors(d) && !m->has_failed) {
      // The words behind "path: error[E0801]: ", for the one thread that may report.
      const char *text = strstr(md_diags_text(d), "]: ");
      snprintf(m->fail_path, sizeof m->fail_path, "%s", path);
      snprintf(m->fail_text, sizeof m->fail_text, "%s", text ? text + 3 : "cannot be written");
      m->fail_text[strcspn(m->fail_text, "\n")] = 0;
      m->has_failed = true;
      atomic_store(&m->stop, true);
    }
    if (r == BROKEN && atomic_load(&m->stop)) break;  // stopped, not broken
    m->result[i] = r;
    m->now.made += r == MADE;
    m->now.kept += r == KEPT;
    m->now.failed += r == BROKEN;
    if (r == BROKEN) {
      m->why[i] = md_malloc(sizeof f);
      *m->why[i] = f;
    }
  }
  m->running--;
  pthread_cond_signal(&m->ended);
  pthread_mutex_unlock(&m->lock);
  free_work(&w);
  md_diags_destroy(d);
  md_arena_destroy(arena);
  return NULL;
}

// Waits for the threads; meanwhile the caller is told how far they are.
static void watch(Maker *m, int64_t start) {
  pthread_mutex_lock(&m->lock);
  while (m->running > 0) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&m->ended, &m->lock, &until);
    m->now.seconds = (double)(md_now_ns() - start) / 1e9;
    md_maps_progress now = m->now;
    pthread_mutex_unlock(&m->lock);
    if (m->o.tick && !m->o.tick(m->o.ctx, &now)) atomic_store(&m->stop, true);
    pthread_mutex_lock(&m->lock);
  }
  pthread_mutex_unlock(&m->lock);
}

// Warns of what is broken, and lists it in a file.
static bool report(const Maker *m, md_diags *d) {
  md_text list = {0}, path = {0};
  for (int i = 0; i < m->o.set->num_items; i++) {
    if (m->result[i] != BROKEN) continue;
    const char *video = m->o.set->items[i].path;
    char shown[512];
    md_warning(d, MD_IN_FILE(video), "no map: %s", m->why[i]->text);
    if (*m->why[i]->hint) md_hint(d, "%s", m->why[i]->hint);
    md_put(&list, "%s\t%s\n", md_clean(video, shown, sizeof shown), m->why[i]->text);
  }
  md_put(&path, "%s/quarantine.txt", m->o.folder);
  bool ok = true;
  if (list.len) ok = md_file_save(path.s, list.s, list.len, d);
  else unlink(path.s);  // of an earlier run
  md_text_free(&list);
  md_text_free(&path);
  return ok;
}

char *md_map_path(md_arena *a, const char *folder, const md_dataset *set, int video) {
  const char *path = set->items[video].path;
  size_t root = strlen(set->root);
  bool starts_so = root && strncmp(path, set->root, root) == 0;
  // /data/video is not below /data/vid.
  if (starts_so && (path[root] == '/' || set->root[root - 1] == '/')) path += root;
  md_text t = {0};
  md_put(&t, "%s", folder);
  while (*path) {
    size_t len = strcspn(path, "/");
    if (len == 2 && path[0] == '.' && path[1] == '.') md_put(&t, "/__");
    else if (len && !(len == 1 && path[0] == '.')) md_put(&t, "/%.*s", (int)len, path);
    path += len + (path[len] == '/');
  }
  char *full = md_format(a, "%s.mmap1", t.s);
  md_text_free(&t);
  return full;
}

typedef struct Place {
  const char *map, *video;
} Place;

static int compare_places(const void *a, const void *b) {
  return strcmp(((const Place *)a)->map, ((const Place *)b)->map);
}

// A path below the data set and an absolute one that leads elsewhere may name the same map.
bool md_maps_apart(const char *folder, const md_dataset *set, md_diags *d) {
  md_arena *a = md_arena_create();
  Place *place = MD_NEW_ARRAY(a, Place, set->num_items);
  for (int i = 0; i < set->num_items; i++)
    place[i] = (Place){md_map_path(a, folder, set, i), set->items[i].path};
  qsort(place, (size_t)set->num_items, sizeof *place, compare_places);
  bool ok = true;
  for (int i = 1; i < set->num_items && ok; i++) {
    const Place *x = &place[i - 1], *y = &place[i];
    ok = strcmp(x->map, y->map) != 0 || strcmp(x->video, y->video) == 0;
    if (ok) continue;
    md_error(d, E0851, MD_IN_FILE(y->map), "would be the map of two videos, %s and %s", x->video,
             y->video);
    md_hint(d, "name all videos of a list in one way, below one folder");
  }
  md_arena_destroy(a);
  return ok;
}

bool md_maps_make(const md_maps_options *o, md_maps_progress *out, md_diags *d) {
  MD_ASSERT(o->jobs >= 1 && o->set->num_items > 0, "%d jobs", o->jobs);
  *out = (md_maps_progress){.videos = o->set->num_items};
  Maker m = {.o = *o, .now = *out};
  m.o.rule = md_map_rule_full(o->rule);
  if (!md_maps_apart(o->folder, o->set, d)) return false;
  md_text inside = {0};
  md_put(&inside, "%s/", o->folder);
  bool ok = md_make_parents(inside.s, d);
  md_text_free(&inside);
  if (!ok) return false;
  size_t num = (size_t)o->set->num_items;
  int jobs = MD_MIN(o->jobs, o->set->num_items);
  m.result = md_calloc(num, sizeof *m.result);
  m.why = md_calloc(num, sizeof *m.why);
  pthread_t *thread = md_calloc((size_t)jobs, sizeof *thread);
  pthread_mutex_init(&m.lock, NULL);
  pthread_cond_init(&m.ended, NULL);
  int64_t start = md_now_ns();
  pthread_mutex_lock(&m.lock);
  for (int i = 0; i < jobs; i++)
    m.running += pthread_create(&thread[m.running], NULL, run_jobs, &m) == 0;
  int started = m.running;
  pthread_mutex_unlock(&m.lock);
  if (!started) ok = md_error(d, E0801, MD_NOWHERE, "no thread can be started");
  watch(&m, start);
  for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
  *out = m.now;
  out->seconds = (double)(md_now_ns() - start) / 1e9;
  if (m.has_failed) ok = md_error(d, E0801, MD_IN_FILE(m.fail_path), "%s", m.fail_text);
  else if (started) ok = report(&m, d);
  for (size_t i = 0; i < num; i++) free(m.why[i]);
  pthread_cond_destroy(&m.ended);
  pthread_mutex_destroy(&m.lock);
  free(m.result);
  free(m.why);
  free(thread);
  return ok;
}
