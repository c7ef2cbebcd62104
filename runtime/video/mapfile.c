// SPDX-License-Identifier: Apache-2.0
// Motion maps of one video in a file (spec 4.3, "Stored format"; layout in motion.h). Reading fetches
// header and tables once and then any frame by one read; nothing in the file is believed before it is
// checked. Writing leaves room for both and fills them in at the end, so memory does not grow with
// the video.
#include "runtime/video/motion.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER = 80, AT_SUM = 72, MAGIC = 6 };
static const char magic[MAGIC] = "MMAP1";

// --- numbers in little endian

static void put(uint8_t **p, uint64_t x, int bytes) {
  for (int i = 0; i < bytes; i++) *(*p)++ = (uint8_t)(x >> 8 * i);
}

static uint64_t get(const uint8_t **p, int bytes) {
  uint64_t x = 0;
  for (int i = 0; i < bytes; i++) x |= (uint64_t)*(*p)++ << 8 * i;
  return x;
}

static void put_float(uint8_t **p, float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  put(p, bits, 4);
}

static float get_float(const uint8_t **p) {
  uint32_t bits = (uint32_t)get(p, 4);
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static int64_t plane_bytes(const md_map_info *i) {
  return (int64_t)md_map_planes(i->kind) * i->w * i->h;
}

static int64_t table_bytes(int64_t frames) { return frames * (4 + 8 + 8) + 8; }

static uint64_t checksum(const void *data, int64_t bytes) {
  return md_digest_of(data, (size_t)bytes).lo;
}

static void put_header(uint8_t *p, const md_map_info *i) {
  memcpy(p, magic, MAGIC);
  p += MAGIC;
  put(&p, i->kind, 1);
  put(&p, (uint64_t)md_map_planes(i->kind), 1);
  const int words[] = {i->frames,  i->h,   i->w,     i->fps_num,
                       i->fps_den, i->lag, i->lag30, i->short_side};
  for (int k = 0; k < MD_COUNT(words); k++) put(&p, (uint64_t)words[k], 4);
  put_float(&p, i->unit);
  put_float(&p, i->scale);
  put_float(&p, i->clamp);
  put(&p, i->is_true, 4);
  put(&p, (uint64_t)i->source_bytes, 8);
  put(&p, (uint64_t)i->source_mtime, 8);
  put(&p, 0, 8);
}

// --- writing

bool md_map_info_of(const md_map_rule *full, const char *video, md_map_info *i) {
  struct stat st;
  if (stat(video, &st) != 0) return false;
  *i = (md_map_info){.kind = full->kind,
                     .lag30 = full->lag30,
                     .short_side = full->short_side,
                     .scale = full->scale,
                     .clamp = full->clamp,
                     .source_bytes = st.st_size,
                     .source_mtime = st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec};
  return true;
}

struct md_map_writer {
  md_file_writer *file;
  md_map_info info;
  uint8_t *tables, *packed;  // header and tables; one compressed frame
  int64_t packed_room;
  int num;
  int64_t at;
  float *score;
  int64_t *offset;
  uint64_t *sum;
};

md_map_writer *md_map_create(const char *path, const md_map_info *info, md_diags *d) {
  MD_ASSERT(info->frames >= 1 && info->frames <= MD_MAP_MAX_FRAMES && info->w >= 1 &&
                info->h >= 1 && plane_bytes(info) <= MD_MAP_MAX_BYTES,
            "map of %d frames of %dx%d", info->frames, info->w, info->h);
  md_file_writer *file = md_file_create(path, d);
  if (!file) return NULL;
  md_map_writer *w = md_calloc(1, sizeof *w);
  w->file = file;
  w->info = *info;
  size_t frames = (size_t)info->frames;
  w->at = HEADER + table_bytes(info->frames);
  w->packed_room = md_deflate_bound(plane_bytes(info));
  w->tables = md_calloc(1, (size_t)w->at);
  w->packed = md_malloc((size_t)w->packed_room);
  w->score = md_calloc(frames, sizeof *w->score);
  w->offset = md_calloc(frames + 1, sizeof *w->offset);
  w->sum = md_calloc(frames, sizeof *w->sum);
  w->offset[0] = w->at;
  md_file_write(file, w->tables, (size_t)w->at);  // sticky: the commit tells
  return w;
}

bool md_map_add(md_map_writer *w, const uint8_t *planes, float score) {
  MD_ASSERT(w->num < w->info.frames, "more than %d frames", w->info.frames);
  int64_t bytes = plane_bytes(&w->info);
  int64_t len = md_deflate(planes, bytes, w->packed, w->packed_room);
  w->score[w->num] = score;
  w->sum[w->num] = checksum(planes, bytes);
  w->at += len;
  w->offset[++w->num] = w->at;
  return md_file_write(w->file, w->packed, (size_t)len);
}

bool md_map_add_until(md_map_writer *w, int t, const uint8_t *planes, float score) {
  bool ok = true;
  while (ok && w->num <= t) ok = md_map_add(w, planes, score);
  return ok;
}

static void free_writer(md_map_writer *w) {
  free(w->tables);
  free(w->packed);
  free(w->score);
  free(w->offset);
  free(w->sum);
  free(w);
}

bool md_map_commit(md_map_writer *w) {
  MD_ASSERT(w->num == w->info.frames, "%d of %d frames", w->num, w->info.frames);
  int64_t bytes = w->offset[0];
  put_header(w->tables, &w->info);
  uint8_t *p = w->tables + HEADER;
  for (int i = 0; i < w->num; i++) put_float(&p, w->score[i]);
  for (int i = 0; i <= w->num; i++) put(&p, (uint64_t)w->offset[i], 8);
  for (int i = 0; i < w->num; i++) put(&p, w->sum[i], 8);
  uint64_t sum = checksum(w->tables, bytes);
  p = w->tables + AT_SUM;
  put(&p, sum, 8);
  md_file_rewrite(w->file, 0, w->tables, (size_t)bytes);
  bool ok = md_file_commit(w->file);
  free_writer(w);
  return ok;
}

void md_map_abort(md_map_writer *w) {
  if (!w) return;
  md_file_abort(w->file);
  free_writer(w);
}

// --- reading

struct md_map {
  md_map_info info;
  int fd;
  float *score;
  int64_t *offset;
  uint64_t *sum;
  uint8_t *planes, *packed;
  int64_t packed_room;
};

static bool damaged(md_fault *f, const char *what) {
  *f = (md_fault){.code = E0851};
  snprintf(f->text, sizeof f->text, "motion map cannot be used: %s", what);
  snprintf(f->hint, sizeof f->hint, "remove it and run the same 'modistc dataset flow' again");
  return false;
}

static bool read_at(int fd, void *to, int64_t bytes, int64_t at) {
  for (char *p = to; bytes > 0;) {
    ssize_t n = pread(fd, p, (size_t)bytes, (off_t)at);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    p += n;
    at += n;
    bytes -= n;
  }
  return true;
}

static bool is_within(int64_t x, int64_t lo, int64_t hi) { return x >= lo && x <= hi; }

static bool parse_header(const uint8_t *p, md_map_info *i, md_fault *f) {
  if (memcmp(p, magic, MAGIC) != 0) return damaged(f, "it is no file of maps (.mmap1)");
  p += MAGIC;
  int64_t kind = (int64_t)get(&p, 1), planes = (int64_t)get(&p, 1), word[8];
  for (int k = 0; k < MD_COUNT(word); k++) word[k] = (int64_t)get(&p, 4);
  if (kind >= MD_NUM_MAP_KINDS || planes != md_map_planes((md_map_kind)kind))
    return damaged(f, "it holds a kind of map that is not known");
  if (!is_within(word[0], 1, MD_MAP_MAX_FRAMES) || !is_within(word[1], 1, MD_MAP_MAX_SIDE) ||
      !is_within(word[2], 1, MD_MAP_MAX_SIDE) || planes * word[1] * word[2] > MD_MAP_MAX_BYTES)
    return damaged(f, "its sizes are out of range");
  for (int k = 3; k < MD_COUNT(word); k++)
    if (word[k] > INT32_MAX) return damaged(f, "its parameters are out of range");
  *i = (md_map_info){.kind = (md_map_kind)kind,
                     .frames = (int)word[0],
                     .h = (int)word[1],
                     .w = (int)word[2],
                     .fps_num = (int)word[3],
                     .fps_den = (int)word[4],
                     .lag = (int)word[5],
                     .lag30 = (int)word[6],
                     .short_side = (int)word[7]};
  i->unit = get_float(&p);
  i->scale = get_float(&p);
  i->clamp = get_float(&p);
  uint64_t is_true = get(&p, 4);
  if (is_true > 1) return damaged(f, "its parameters are out of range");
  i->is_true = is_true;
  i->source_bytes = (int64_t)get(&p, 8);
  i->source_mtime = (int64_t)get(&p, 8);
  return true;
}

// `all` is header and tables with the checksum's field as it is in the file.
static bool parse_tables(md_map *m, uint8_t *all, int64_t bytes, int64_t file_bytes, md_fault *f) {
  const uint8_t *p = all + AT_SUM;
  uint64_t sum = get(&p, 8);
  memset(all + AT_SUM, 0, 8);
  if (checksum(all, bytes) != sum) return damaged(f, "its header or a table was changed");
  p = all + HEADER;
  int frames = m->info.frames;
  for (int i = 0; i < frames; i++) {
    m->score[i] = get_float(&p);
    if (!(m->score[i] >= 0 && m->score[i] <= 1)) return damaged(f, "a score is out of range");
  }
  m->packed_room = md_deflate_bound(plane_bytes(&m->info));
  for (int i = 0; i <= frames; i++) {
    uint64_t at = get(&p, 8);
    if (at > (uint64_t)file_bytes) return damaged(f, "it is cut off");
    m->offset[i] = (int64_t)at;
    if (i == 0 ? m->offset[0] != bytes
               : !is_within(m->offset[i] - m->offset[i - 1], 1, m->packed_room))
      return damaged(f, "its frames do not follow one another");
  }
  if (m->offset[frames] != file_bytes) return damaged(f, "bytes follow its last frame");
  for (int i = 0; i < frames; i++) m->sum[i] = get(&p, 8);
  return true;
}

static bool read_tables(md_map *m, int64_t file_bytes, md_fault *f) {
  uint8_t header[HEADER];
  if (file_bytes < HEADER || !read_at(m->fd, header, HEADER, 0))
    return damaged(f, "it is shorter than its header");
  if (!parse_header(header, &m->info, f)) return false;
  int64_t bytes = HEADER + table_bytes(m->info.frames);
  if (bytes > file_bytes) return damaged(f, "it is cut off");
  size_t frames = (size_t)m->info.frames;
  uint8_t *all = md_malloc((size_t)bytes);
  m->score = md_calloc(frames, sizeof *m->score);
  m->offset = md_calloc(frames + 1, sizeof *m->offset);
  m->sum = md_calloc(frames, sizeof *m->sum);
  bool ok = read_at(m->fd, all, bytes, 0) || damaged(f, "it cannot be read");
  ok = ok && parse_tables(m, all, bytes, file_bytes, f);
  free(all);
  return ok;
}

bool md_map_peek(const char *path, md_map_info *i) {
  uint8_t header[HEADER];
  md_fault f;
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  bool ok = fd >= 0 && read_at(fd, header, HEADER, 0) && parse_header(header, i, &f);
  if (fd >= 0) close(fd);
  return ok;
}

const char *md_map_words(const md_map_info *i, char text[MD_MAP_WORDS]) {
  char scale[MD_FLOAT_CHARS], clamp[MD_FLOAT_CHARS];
  snprintf(text, MD_MAP_WORDS, "%s maps%s, lag %d, short side %d, scale %s, clamp %s",
           md_map_kind_names[i->kind], i->is_true ? " of known motion" : "", i->lag30,
           i->short_side, md_float_text((double)i->scale, scale),
           md_float_text((double)i->clamp, clamp));
  return text;
}

md_map *md_map_open(const char *path, md_fault *f) {
  *f = (md_fault){0};
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);  // a FIFO must not block
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0) {
    const char *why = strerrordesc_np(errno);
    *f = (md_fault){.code = E0850};
    snprintf(f->text, sizeof f->text, "motion map cannot be opened: %s", why ? why : "unknown");
    snprintf(f->hint, sizeof f->hint, "'modistc dataset flow DATA -o DIR' makes what is missing");
    if (fd >= 0) close(fd);
    return NULL;
  }
  md_map *m = md_calloc(1, sizeof *m);
  m->fd = fd;
  bool ok = S_ISREG(st.st_mode) || damaged(f, "it is not a regular file");
  if (ok && read_tables(m, st.st_size, f)) return m;
  md_map_close(m);
  return NULL;
}

void md_map_close(md_map *m) {
  if (!m) return;
  close(m->fd);
  free(m->score);
  free(m->offset);
  free(m->sum);
  free(m->planes);
  free(m->packed);
  free(m);
}

const md_map_info *md_map_about(const md_map *m) { return &m->info; }
const float *md_map_scores(const md_map *m) { return m->score; }

const uint8_t *md_map_frame(md_map *m, int t, md_fault *f) {
  MD_ASSERT(t >= 0 && t < m->info.frames, "frame %d of %d", t, m->info.frames);
  int64_t bytes = plane_bytes(&m->info), packed = m->offset[t + 1] - m->offset[t];
  if (!m->planes) {
    m->planes = md_malloc((size_t)bytes);
    m->packed = md_malloc((size_t)m->packed_room);
  }
  bool ok = read_at(m->fd, m->packed, packed, m->offset[t]) &&
            md_inflate(m->packed, packed, m->planes, bytes) &&
            checksum(m->planes, bytes) == m->sum[t];
  if (ok) return m->planes;
  char what[64];
  snprintf(what, sizeof what, "frame %d is damaged", t);
  damaged(f, what);
  return NULL;
}

void md_map_plane(const uint8_t *plane, int w, const md_square *s, uint8_t *out) {
  for (int y = 0; y < s->size; y++) {
    md_tap row = s->row[y];
    const uint8_t *up = plane + (int64_t)row.lo * w, *low = plane + (int64_t)row.hi * w;
    for (int x = 0; x < s->size; x++) {
      md_tap col = s->col[x];
      *out++ =
          (uint8_t)(md_bilinear(up[col.lo], up[col.hi], low[col.lo], low[col.hi], col, row) + 0.5F);
    }
  }
}
