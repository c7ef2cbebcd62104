// SPDX-License-Identifier: Apache-2.0
// A data set: the paths of its videos, from a folder, a list, or an index (catalog.c). The position in the sorted
// folder, or the line order of the list, is the video's id.
#include "runtime/video/video.h"

#include "base/file.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const char default_extensions[] = "mp4,m4v,mov,3gp,3g2,mkv,webm,avi,flv,ts,m2ts,mts,mpg,"
                                         "mpeg,vob,ogv,ogg,wmv,asf,rm,mxf,y4m,ivf,h264,"
                                         "264,hevc,265";
enum { MAX_DEPTH = 64 };
static const int64_t max_list_bytes = (int64_t)1 << 30;

// Folders already read, so that links cannot lead in circles: an open hash table.
typedef struct folder_id {
  dev_t dev;
  ino_t ino;
  bool is_used;
} folder_id;
typedef struct walk {
  md_dataset *set;
  md_diags *diags;
  const char *extensions;
  folder_id *seen;
  int64_t num_seen, cap_seen;
} walk;

// True if it was not there before.
static bool insert(folder_id *table, int64_t cap, dev_t dev, ino_t ino) {
  uint64_t at = md_hash_at((uint64_t)dev, (uint64_t)ino);
  for (;; at++) {
    folder_id *slot = &table[at & (uint64_t)(cap - 1)];
    if (slot->is_used && slot->dev == dev && slot->ino == ino) return false;
    if (slot->is_used) continue;
    *slot = (folder_id){dev, ino, true};
    return true;
  }
}

static bool is_new_folder(walk *w, const struct stat *st) {
  if (2 * w->num_seen >= w->cap_seen) {
    int64_t cap = w->cap_seen ? 2 * w->cap_seen : 64;
    folder_id *table = md_calloc((size_t)cap, sizeof *table);
    for (int64_t i = 0; i < w->cap_seen; i++)
      if (w->seen[i].is_used) insert(table, cap, w->seen[i].dev, w->seen[i].ino);
    free(w->seen);
    w->seen = table;
    w->cap_seen = cap;
  }
  if (!insert(w->seen, w->cap_seen, st->st_dev, st->st_ino)) return false;
  w->num_seen++;
  return true;
}

static bool has_extension(const char *name, const char *list) {
  const char *dot = strrchr(name, '.');
  if (!dot || !dot[1]) return false;
  size_t len = strlen(dot + 1);
  for (const char *p = list; *p;) {
    size_t item = strcspn(p, ",");
    if (item == len && !strncasecmp(p, dot + 1, len)) return true;
    p += item + (p[item] == ',');
  }
  return false;
}

static void add(md_dataset *s, const char *path, int32_t label, int line) {
  MD_PUSH(s->items, s->num_items, s->cap_items, ((md_data_item){path, label, line}));
}

static int by_bytes(const void *a, const void *b) {
  return strcmp(((const md_data_item *)a)->path, ((const md_data_item *)b)->path);
}

static bool folder_error(const walk *w, const char *path) {
  char words[128];
  return md_error(w->diags, E0503, MD_IN_FILE(path), "folder cannot be read: %s",
                  strerror_r(errno, words, sizeof words));
}

static bool walk_folder(walk *w, const char *path, int depth) {
  md_arena *arena = w->set->arena;
  if (depth > MAX_DEPTH)
    return md_error(w->diags, E0503, MD_IN_FILE(path), "folders are nested more than %d deep",
                    MAX_DEPTH);
  DIR *folder = opendir(path);
  if (!folder) return folder_error(w, path);
  bool ok = true;
  int fd = dirfd(folder);
  struct dirent *e;
  while (ok && fd >= 0 && (errno = 0, e = readdir(folder))) {
    if (e->d_name[0] == '.') continue;
    struct stat st;
    bool exists = !fstatat(fd, e->d_name, &st, 0);  // follows links
    bool is_folder = exists && S_ISDIR(st.st_mode);
    if (is_folder && !is_new_folder(w, &st)) continue;
    if (!is_folder && !has_extension(e->d_name, w->extensions)) continue;
    bool has_slash = path[0] && path[strlen(path) - 1] == '/';
    char *full = md_format(arena, "%s%s%s", path, has_slash ? "" : "/", e->d_name);
    // What is no readable file, such as a link to nothing, stays listed: it is reported when used.
    if (is_folder) ok = walk_folder(w, full, depth + 1);
    else add(w->set, full, -1, 0);
  }
  if (ok && errno) ok = folder_error(w, path);
  closedir(folder);
  return ok;
}

static bool read_folder(md_dataset *s, const md_dataset_options *o, const struct stat *st,
                        md_diags *d) {
  s->root = md_strdup(s->arena, o->path);
  walk w = {.set = s, .diags = d, .extensions = o->extensions ? o->extensions : default_extensions};
  is_new_folder(&w, st);
  bool ok = walk_folder(&w, o->path, 0);
  free(w.seen);
  if (ok && s->num_items) qsort(s->items, (size_t)s->num_items, sizeof *s->items, by_bytes);
  return ok;
}

// One line of a list, [p, end): path, or "path", then separator and label.
static bool read_line(md_dataset *s, const md_dataset_options *o, const char *prefix, const char *p,
                      const char *end, int line, md_diags *d) {
  const char *begin = p;
  while (p < end && (*p == ' ' || *p == '\t')) p++;
  while (end > p && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r')) end--;
  if (p == end || *p == '#') return true;
  md_place at = {o->path, line, (int)(p - begin) + 1, (int)(end - p)};
  bool comma = o->separator ? o->separator == ',' : memchr(p, ',', (size_t)(end - p)) != NULL;

  const char *path = p, *path_end = NULL, *label = NULL;
  if (*p == '"') {
    path = p + 1;
    path_end = memchr(path, '"', (size_t)(end - path));
    if (!path_end) return md_error(d, E0504, at, "quote is not closed");
    label = path_end + 1;
    while (label < end && (*label == ' ' || *label == '\t')) label++;
    if (label < end && *label == ',') label++;
  } else {
    for (const char *q = p; q < end; q++)
      if (comma ? *q == ',' : *q == ' ' || *q == '\t') label = q;
    path_end = label ? label : end;
    label = label ? label + 1 : end;
    while (path_end > path && (path_end[-1] == ' ' || path_end[-1] == '\t')) path_end--;
  }
  while (label < end && (*label == ' ' || *label == '\t')) label++;
  if (path_end == path) return md_error(d, E0504, at, "line has no path");

  int64_t value = -1;
  if (label < end) {
    char text[24];
    md_place there = {o->path, line, (int)(label - begin) + 1, (int)(end - label)};
    snprintf(text, sizeof text, "%.*s", (int)(end - label), label);
    bool fits = end - label < (ptrdiff_t)sizeof text;
    if (!fits || !md_parse_int(text, &value) || value < -1 || value > INT32_MAX) {
      char shown[64];
      md_error(d, E0504, there, "label '%s' is not an integer from -1 to 2147483647",
               md_clean(text, shown, sizeof shown));
      md_hint(d, "a path that contains the separator stands in double quotes");
      return false;
    }
  }
  int len = (int)(path_end - path);
  char *full = *path == '/' || !*prefix ? md_strndup(s->arena, path, (size_t)len)
                                        : md_format(s->arena, "%s/%.*s", prefix, len, path);
  add(s, full, (int32_t)value, line);
  return true;
}

// One line of an index (catalog.c): path and label are its first fields.
static bool read_index_line(md_dataset *s, const md_dataset_options *o, const char *prefix,
                            const char *p, const char *end, int line, md_diags *d) {
  if (end > p && end[-1] == '\r') end--;
  if (p == end) return true;
  md_place at = {o->path, line, 1, (int)(end - p)};
  md_text path = {0}, label = {0};
  int64_t value = -1;
  bool ok = md_csv_field(&p, end, &path);
  if (ok && p < end) {
    ok = *p == ',';
    p++;
  }
  ok = ok && md_csv_field(&p, end, &label);
  if (!ok) md_error(d, E0504, at, "quote is not closed");
  else if (!path.len) ok = md_error(d, E0504, at, "row has no path");
  else if (label.len && (!md_parse_int(label.s, &value) || value < -1 || value > INT32_MAX)) {
    char shown[64];
    ok = md_error(d, E0504, at, "label '%s' is not an integer from -1 to 2147483647",
                  md_clean(label.s, shown, sizeof shown));
  }
  if (ok)
    add(s,
        *path.s == '/' || !*prefix ? md_strdup(s->arena, path.s)
                                   : md_format(s->arena, "%s/%s", prefix, path.s),
        (int32_t)value, line);
  md_text_free(&path);
  md_text_free(&label);
  return ok;
}

// A video in place of the folder it lies in is a usual slip.
static bool refuse_binary(const char *path, md_diags *d) {
  bool is_video = has_extension(path, default_extensions);
  const char *slash = strrchr(path, '/');
  md_error(d, E0504, MD_IN_FILE(path), "this is no list of videos: it holds a zero byte");
  if (is_video)
    md_hint(d, "this is a video; name its folder: %.*s", slash ? (int)(slash - path) + 1 : 1,
            slash ? path : ".");
  else md_hint(d, "a list is plain text with a line `path label` for each video");
  return false;
}

static bool read_list(md_dataset *s, const md_dataset_options *o, md_diags *d) {
  char *text = NULL;
  size_t len = 0;
  if (!md_file_read(o->path, max_list_bytes, E0503, d, &text, &len)) return false;
  if (memchr(text, '\0', len)) {
    free(text);
    return refuse_binary(o->path, d);
  }
  md_diags_source(d, o->path, text, len);
  const char *prefix = o->prefix;
  if (!prefix) {
    const char *slash = strrchr(o->path, '/');
    prefix = !slash             ? ""
             : slash == o->path ? "/."
                                : md_strndup(s->arena, o->path, (size_t)(slash - o->path));
  }
  s->root = md_strdup(s->arena, prefix);
  int before = md_diags_errors(d);
  const char *p = text, *end = text + len;
  if (len >= 3 && !memcmp(p, "\xEF\xBB\xBF", 3)) p += 3;  // byte order mark
  bool is_index = md_catalog_begins(p, (size_t)(end - p));
  for (int line = 1; p < end && md_diags_errors(d) < before + MD_MAX_ERRORS; line++) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop) stop = end;
    if (!is_index) read_line(s, o, prefix, p, stop, line, d);
    else if (line > 1) read_index_line(s, o, prefix, p, stop, line, d);
    p = stop + (stop < end);
  }
  free(text);
  return md_diags_errors(d) == before;
}

md_dataset *md_dataset_open(const md_dataset_options *o, md_diags *d) {
  md_dataset *s = md_calloc(1, sizeof *s);
  s->arena = md_arena_create();
  struct stat st;
  bool ok;
  if (stat(o->path, &st)) {
    char words[128];
    ok = md_error(d, E0503, MD_IN_FILE(o->path), "data set cannot be opened: %s",
                  strerror_r(errno, words, sizeof words));
    md_hint(d, "give a folder with videos, or a list with a line `path label` for each video");
  } else {
    ok = S_ISDIR(st.st_mode) ? read_folder(s, o, &st, d) : read_list(s, o, d);
  }
  if (ok && !s->num_items) {
    ok = md_error(d, E0503, MD_IN_FILE(o->path), "data set holds no videos");
    if (S_ISDIR(st.st_mode))
      md_hint(d, "videos are found by their extension: %s",
              o->extensions ? o->extensions : default_extensions);
  }
  if (ok) {
    md_log(MD_LOG_DATA, MD_LEVEL_INFO, "%s: %d videos", o->path, s->num_items);
    return s;
  }
  md_dataset_destroy(s);
  return NULL;
}

void md_dataset_destroy(md_dataset *s) {
  if (!s) return;
  free(s->items);
  md_arena_destroy(s->arena);
  free(s);
}
