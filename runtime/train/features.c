// SPDX-License-Identifier: Apache-2.0
// Features of videos: clips at equal distances through the visual network, their mean, a row a video.
// With running statistics a clip's features do not depend on the clips beside it.
//
//   all threads   clips of a window, in any order      window
//   this one      in order: into the input, 8 at once  network; a GPU works while the next window is read
#include "runtime/train/probe.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { AT_ONCE = 8, USUAL_CLIPS = 3, MOST_CLIPS = 32 };
static const int64_t window_bytes = (int64_t)256 << 20;
#define MAX_CSV ((int64_t)1 << 30)

// A clip that is read ahead.
typedef struct Clip {
  int video, number;
  bool is_read;
  md_fault why;
} Clip;

typedef struct Reader {
  md_visual *net;
  const md_dataset *data;
  md_features *f;
  double *sum;     // [num,width]
  double *result;  // [AT_ONCE,width]
  uint8_t *input;
  int64_t clip_bytes, owner[AT_ONCE];  // row that a waiting clip belongs to
  int num_waiting;
  int64_t running[AT_ONCE];  // rows of the clips that are in the network
  int num_running;
  int clips;  // of a video
  bool to_end;
  md_diags *diags;

  md_pool *pool;
  md_gather **gather;   // by thread
  uint8_t *spare;       // by thread: a clip that nobody wants
  md_timeline **times;  // by video; only of the window's, NULL where there are none
  int num_times;        // videos that were looked at
  Clip clip[MOST_CLIPS];
  int num_clips;
  uint8_t *window;
} Reader;

static void *zeroed(int64_t num, size_t size) { return md_calloc((size_t)num + 1, size); }

static bool collect(Reader *r) {
  int64_t width = r->f->width;
  if (!r->num_running) return true;
  if (!md_engine_finish(r->net->engine, r->diags)) return false;
  if (!md_engine_result(r->net->engine, "features", r->result, AT_ONCE * width)) {
    MD_ASSERT(!md_engine_is_alive(r->net->engine, r->diags), "a features graph without features");
    return false;
  }
  for (int i = 0; i < r->num_running; i++)
    for (int64_t j = 0; j < width; j++)
      r->sum[r->running[i] * width + j] += r->result[i * width + j];
  r->num_running = 0;
  return true;
}

// Sends the clips that wait through the network. A GPU works on them while the next ones are decoded.
static bool flush(Reader *r) {
  if (!collect(r)) return false;
  if (!r->num_waiting) return true;
  if (!md_engine_start(r->net->engine, r->diags)) return false;
  memcpy(r->running, r->owner, sizeof r->running);
  r->num_running = r->num_waiting;
  r->num_waiting = 0;
  return true;
}

static double start_of(const Reader *r, const md_timeline *t, int i) {
  double length = md_timeline_length(t);
  double frames = (double)r->net->step.clip.frames, stride = r->net->stride;
  if (!r->to_end) return MD_MAX(length - frames * stride, 0) * i / r->clips;
  double room = MD_MAX(length - ((frames - 1) * stride + 1), 0);
  return r->clips > 1 ? room * i / (r->clips - 1) : room / 2;
}

// --- a window, by all threads

static void read_times(void *ctx, int64_t i, int thread) {
  Reader *r = ctx;
  (void)thread;
  int64_t v = r->num_times + i;
  // The first clip of a video that is new is in the window, and ends the video if there are no times.
  Clip *first = &r->clip[(v - r->clip[0].video) * r->clips - r->clip[0].number];
  r->times[v] = md_timeline_read(r->data->items[v].path, &(md_video_limits){0}, &first->why);
}

static void read_clip(void *ctx, int64_t i, int thread) {
  Reader *r = ctx;
  Clip *c = &r->clip[i];
  const md_timeline *t = r->times[c->video];
  if (!t) return;
  double start = start_of(r, t, c->number);
  double starts[MD_NUM_SLOTS] = {start, start, start, start};
  md_sample_rule rule = {.visual = {.frames = (int)r->net->step.clip.frames,
                                    .stride = r->net->stride,
                                    .size = (int)r->net->step.clip.size},
                         .crop = {.centered = true},
                         .starts = starts};
  md_sample_out out = {
      .clip = {
          [MD_VQ] = r->window + i * r->clip_bytes, [MD_VK] = r->spare + thread * r->clip_bytes}};
  c->is_read = md_gather_sample(r->gather[thread], r->data->items[c->video].path, t, &rule, 0,
                                &(md_video_limits){0}, &out, &c->why);
}

// The clips from number `*next` on, counted over all videos. False: there are no more.
static bool read_window(Reader *r, int64_t *next) {
  int64_t most = MD_MIN(MD_MAX(window_bytes / r->clip_bytes, 1), MOST_CLIPS);
  int64_t all = (int64_t)r->data->num_items * r->clips;
  r->num_clips = (int)MD_MIN(most, all - *next);
  if (!r->num_clips) return false;
  for (int i = 0; i < r->num_clips; i++, ++*next)
    r->clip[i] = (Clip){.video = (int)(*next / r->clips), .number = (int)(*next % r->clips)};
  int num = r->clip[r->num_clips - 1].video + 1;
  md_pool_run(r->pool, num - r->num_times, read_times, r);
  r->num_times = num;
  md_pool_run(r->pool, r->num_clips, read_clip, r);
  return true;
}

// --- all of it, in order

// False: the network failed, reported.
static bool leave_out(Reader *r, const char *path, const md_fault *why) {
  md_warning(r->diags, MD_IN_FILE(path), "is left out: %s", why->text);
  if (!collect(r)) return false;  // some may be of it
  while (r->num_waiting && r->owner[r->num_waiting - 1] == r->f->num) r->num_waiting--;
  memset(r->sum + r->f->num * r->f->width, 0, (size_t)r->f->width * sizeof *r->sum);
  return true;
}

static void end_row(Reader *r, const md_data_item *item) {
  r->f->label[r->f->num] = item->label;
  r->f->path[r->f->num] = strdup(item->path);
  if (!r->f->path[r->f->num++]) md_out_of_memory(strlen(item->path));
}

// Only a failure of ours ends everything.
static bool use_window(Reader *r, int *left_out) {
  for (int i = 0; i < r->num_clips; i++) {
    const Clip *c = &r->clip[i];
    const md_data_item *item = &r->data->items[c->video];
    bool is_last = c->number == r->clips - 1, is_out = c->video == *left_out;
    if (!is_out && !c->is_read) {
      if (!leave_out(r, item->path, &c->why)) return false;
      *left_out = c->video;
      is_out = true;
    }
    if (!is_out) {
      if (r->num_waiting == AT_ONCE && !flush(r)) return false;
      memcpy(r->input + r->num_waiting * r->clip_bytes, r->window + i * r->clip_bytes,
             (size_t)r->clip_bytes);
      r->owner[r->num_waiting++] = r->f->num;
      if (is_last) end_row(r, item);
    }
    if (!is_last) continue;
    md_timeline_destroy(r->times[c->video]);
    r->times[c->video] = NULL;
  }
  return true;
}

static bool read_all(Reader *r) {
  md_type type;
  r->input = md_engine_input(r->net->engine, "clip", &type);
  uint8_t *flip = md_engine_input(r->net->engine, "clip_flip", NULL);
  MD_ASSERT(r->input && flip, "a features graph without its inputs");
  memset(flip, 0, AT_ONCE);
  r->clip_bytes = md_type_bytes(&type) / AT_ONCE;
  r->spare = zeroed(md_pool_threads(r->pool) * r->clip_bytes, 1);
  r->window = zeroed(MD_MAX(MD_MIN(window_bytes, MOST_CLIPS * r->clip_bytes), r->clip_bytes), 1);
  int64_t next = 0;
  int left_out = -1;
  bool ok = true;
  while (ok && read_window(r, &next)) ok = use_window(r, &left_out);
  ok = ok && flush(r) && collect(r);
  if (ok && !r->f->num) {
    ok = md_error(r->diags, E0881, MD_NOWHERE, "none of %d videos could be read",
                  r->data->num_items);
    md_hint(r->diags, "'modistc dataset check' says what is wrong with each");
  }
  for (int64_t i = 0; ok && i < r->f->num * r->f->width; i++)
    r->f->x[i] = (float)(r->sum[i] / r->clips);
  return ok;
}

static md_features *features_create(int64_t rows, int64_t width) {
  md_features *f = zeroed(1, sizeof *f);
  f->width = width;
  f->x = zeroed(rows * width, sizeof *f->x);
  f->label = zeroed(rows, sizeof *f->label);
  f->path = zeroed(rows, sizeof *f->path);
  return f;
}

static void reader_free(Reader *r) {
  for (int i = 0; i < md_pool_threads(r->pool); i++) md_gather_destroy(r->gather[i]);
  for (int i = 0; i < r->data->num_items; i++) md_timeline_destroy(r->times[i]);
  free(r->gather);
  free(r->times);
  free(r->spare);
  free(r->window);
  free(r->sum);
  free(r->result);
  md_pool_destroy(r->pool);
  md_visual_destroy(r->net);
}

md_features *md_features_compute(const md_checkpoint *c, const md_dataset *data,
                                 const md_features_options *o, md_diags *d) {
  md_visual *net = md_visual_create(c, &o->engine, AT_ONCE, d);
  if (!net) return NULL;
  int64_t width = md_net_features(&net->step.visual);
  Reader r = {.net = net,
              .data = data,
              .f = features_create(data->num_items, width),
              .sum = zeroed(data->num_items * width, sizeof(double)),
              .result = zeroed(AT_ONCE * width, sizeof(double)),
              .clips = o->clips ? o->clips : USUAL_CLIPS,
              .to_end = o->to_end,
              .diags = d,
              .pool = md_pool_create(o->engine.threads),
              .times = zeroed(data->num_items, sizeof(md_timeline *))};
  int threads = md_pool_threads(r.pool);
  r.gather = zeroed(threads, sizeof *r.gather);
  for (int i = 0; i < threads; i++) r.gather[i] = md_gather_create();
  bool ok = read_all(&r);
  md_features *f = r.f;
  reader_free(&r);
  if (ok) return f;
  md_features_destroy(f);
  return NULL;
}

void md_features_destroy(md_features *f) {
  if (!f) return;
  for (int64_t i = 0; i < f->num; i++) free(f->path[i]);
  free(f->path);
  free(f->label);
  free(f->x);
  free(f);
}

// --- files

static md_spec spec_of(int64_t num, int64_t width) {
  return (md_spec){.name = "features",
                   .dtype = MD_F32,
                   .rank = 2,
                   .dim = {num, width},
                   .bytes = num * width * (int64_t)sizeof(float)};
}

bool md_features_may_save(const char *folder, md_diags *d) {
  md_arena *a = md_arena_create();
  struct stat st;
  bool is_other = stat(folder, &st) == 0 && !S_ISDIR(st.st_mode);
  bool holds_some = access(md_format(a, "%s/features.npy", folder), F_OK) == 0 ||
                    access(md_format(a, "%s/features.csv", folder), F_OK) == 0;
  md_arena_destroy(a);
  if (is_other)
    return md_error(d, E0801, MD_IN_FILE(folder), "a folder is needed here, but this is none");
  if (!holds_some) return true;
  md_error(d, E0884, MD_IN_FILE(folder), "the folder already holds features");
  md_hint(d, "name another folder, or remove this one");
  return false;
}

bool md_features_save(const md_features *f, const char *folder, md_diags *d) {
  md_arena *a = md_arena_create();
  const char *npy = md_format(a, "%s/features.npy", folder);
  const char *list = md_format(a, "%s/features.csv", folder);
  md_text csv = {0};
  md_put(&csv, "path,label,row\n");
  for (int64_t i = 0; i < f->num; i++) {
    md_csv_put(&csv, f->path[i]);
    md_put(&csv, ",%d,%lld\n", f->label[i], (long long)i);
  }
  bool ok = md_features_may_save(folder, d) && md_make_parents(npy, d);
  md_spec spec = spec_of(f->num, f->width);
  ok = ok && md_npy_write(npy, &spec, f->x, d);
  if (ok && !md_file_save(list, csv.s, csv.len, d)) {
    ok = false;
    unlink(npy);
  }
  md_text_free(&csv);
  md_arena_destroy(a);
  return ok;
}

// One record `path,label,row`, as it was written: a path with a comma, quote or line break stands in
// quotes. `at` moves behind it.
static bool parse_record(char **at, md_features *f, int64_t row) {
  const char *p = *at, *end = p + strlen(p);
  bool is_quoted = *p == '"';
  md_text path = {0};
  int64_t label, number;
  bool ok =
      md_csv_field(&p, end, &path) && path.len && *p == ',' && (is_quoted || !strchr(path.s, '\n'));
  char *numbers = *at + (p - *at), *next = numbers + strcspn(numbers, "\n"), *comma = NULL;
  *at = next + (*next == '\n');
  *next = '\0';
  if (ok && (comma = strchr(numbers + 1, ',')) != NULL) *comma = '\0';
  ok = comma && md_parse_int(numbers + 1, &label) && label >= -1 && label <= INT32_MAX &&
       md_parse_int(comma + 1, &number) && number == row;
  if (!ok) return md_text_free(&path), false;
  f->label[row] = (int32_t)label;
  f->path[row] = path.s;
  f->num = row + 1;
  return true;
}

static bool parse_list(char *csv, const char *path, md_features *f, int64_t rows, md_diags *d) {
  static const char header[] = "path,label,row\n";
  if (strncmp(csv, header, strlen(header)) != 0)
    return md_error(d, E0880, (md_place){.file = path, .line = 1}, "is not path,label,row");
  int line = 2;
  for (char *at = csv + strlen(header); *at;) {
    const char *from = at;
    if (f->num >= rows || !parse_record(&at, f, f->num))
      return md_error(d, E0880, (md_place){.file = path, .line = line},
                      "is not a line path,label,row for row %lld of %lld", (long long)f->num,
                      (long long)rows);
    for (line++; from + 1 < at; from++) line += *from == '\n';
  }
  return f->num == rows ||
         md_error(d, E0880, MD_IN_FILE(path), "names %lld videos, but features.npy has %lld rows",
                  (long long)f->num, (long long)rows);
}

md_features *md_features_load(const char *folder, md_diags *d) {
  md_arena *a = md_arena_create();
  const char *npy = md_format(a, "%s/features.npy", folder);
  const char *list = md_format(a, "%s/features.csv", folder);
  md_features *f = NULL;
  md_spec spec = {0};
  char *csv = NULL;
  size_t len;
  bool ok = md_npy_shape(npy, &spec, d);
  if (ok && (spec.rank != 2 || spec.dim[0] < 1 || spec.dim[1] < 1 || spec.dtype != MD_F32)) {
    char found[MD_SPEC_CHARS];
    ok = md_error(d, E0880, MD_IN_FILE(npy), "features are f32[videos,width], but this is %s",
                  md_spec_text(&spec, found));
  }
  ok = ok && md_file_read(list, MAX_CSV, E0880, d, &csv, &len);
  if (ok) {
    int64_t rows = spec.dim[0];
    f = features_create(rows, spec.dim[1]);
    spec = spec_of(rows, f->width);
    ok = md_npy_read(npy, &spec, f->x, d) && parse_list(csv, list, f, rows, d);
    free(csv);
  }
  md_arena_destroy(a);
  if (ok) return f;
  md_hint(d, "'modistc features WEIGHTS VIDEOS -o FOLDER' writes features.npy and features.csv");
  md_features_destroy(f);
  return NULL;
}
