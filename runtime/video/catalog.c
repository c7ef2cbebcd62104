// SPDX-License-Identifier: Apache-2.0
// The index of a data set: a csv with a header and a row for each usable video. Paths below the
// folder of the file are relative to it, so that both can be moved together; others are absolute.
#include "runtime/video/video.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char md_catalog_header[] =
    "path,label,frames,fps,seconds,width,height,rotation,codec,bytes,damaged,missing,hash";
enum { NUM_FIELDS = 13 };
static const int64_t max_bytes = (int64_t)1 << 30;

bool md_csv_field(const char **p, const char *end, md_text *field) {
  const char *s = *p;
  field->len = 0;
  md_put_bytes(field, "", 0);
  bool is_quoted = s < end && *s == '"';
  if (!is_quoted) {
    const char *from = s;
    while (s < end && *s != ',') s++;
    md_put_bytes(field, from, (size_t)(s - from));
    *p = s;
    return true;
  }
  for (s++; s < end; s++) {
    if (*s == '"' && (s + 1 == end || s[1] != '"')) {
      *p = s + 1;
      return true;
    }
    if (*s == '"') s++;
    md_put_bytes(field, s, 1);
  }
  return false;
}

void md_csv_put(md_text *to, const char *field) {
  if (!strpbrk(field, ",\"#\r\n") && field[0] != ' ' && *field) {
    md_put(to, "%s", field);
    return;
  }
  md_put(to, "\"");
  for (const char *s = field; *s; s++) md_put(to, *s == '"' ? "\"\"" : "%c", *s);
  md_put(to, "\"");
}

bool md_catalog_begins(const char *text, size_t len) {
  static const char begin[] = "path,label,";
  return len >= strlen(begin) && !memcmp(text, begin, strlen(begin));
}

md_catalog *md_catalog_create(void) {
  md_catalog *c = md_calloc(1, sizeof *c);
  c->arena = md_arena_create();
  return c;
}

void md_catalog_destroy(md_catalog *c) {
  if (!c) return;
  md_arena_destroy(c->arena);
  free(c->row);
  free(c->slot);
  free(c);
}

// Where the path is or would be.
static int *slot_of(const md_catalog *c, const char *path) {
  for (uint64_t at = md_hash_key(path, 0);; at++) {
    int *slot = &c->slot[at % (uint64_t)c->num_slots];
    if (*slot < 0 || !strcmp(c->row[*slot].path, path)) return slot;
  }
}

static void make_room(md_catalog *c) {
  if (2 * (c->num + 1) < c->num_slots) return;
  free(c->slot);
  c->num_slots = MD_MAX(64, 4 * (c->num + 1));
  c->slot = md_malloc((size_t)c->num_slots * sizeof *c->slot);
  for (int i = 0; i < c->num_slots; i++) c->slot[i] = -1;
  for (int i = 0; i < c->num; i++) *slot_of(c, c->row[i].path) = i;
}

// The folder of a file, ending with a slash; "" for the working folder.
static const char *folder_of(md_arena *a, const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? md_strndup(a, path, (size_t)(slash + 1 - path)) : "";
}

static const char *absolute(md_arena *a, const char *path) {
  char here[4096];
  while (path[0] == '.' && path[1] == '/') path += 2;
  if (path[0] == '/' || !getcwd(here, sizeof here)) return path;
  return md_format(a, "%s/%s", strcmp(here, "/") ? here : "", path);
}

const md_survey_row *md_catalog_find(const md_catalog *c, const char *path) {
  if (!c->num_slots) return NULL;
  md_arena *a = md_arena_create();
  int at = *slot_of(c, absolute(a, path));
  md_arena_destroy(a);
  return at < 0 ? NULL : &c->row[at];
}

static bool whole(const char *text, int64_t *to) { return md_parse_int(text, to) && *to >= 0; }

static const struct {
  const char *name, *need;
} columns[NUM_FIELDS] = {{"path", "not empty"},
                         {"label", "an integer from -1"},
                         {"frames", "a whole number above 0"},
                         {"fps", "a number above 0"},
                         {"seconds", "a number above 0"},
                         {"width", "a whole number above 0"},
                         {"height", "a whole number above 0"},
                         {"rotation", "0, 90, 180 or 270"},
                         {"codec", "a short name"},
                         {"bytes", "a whole number"},
                         {"damaged", "a whole number"},
                         {"missing", "a whole number"},
                         {"hash", "empty or 32 hex digits"}};

// The fields of one row into *r. Returns the number of the first one that is wrong, or -1.
static int read_fields(char *const field[NUM_FIELDS], md_survey_row *r) {
  int64_t label, w, h, rotation;
  if (!*field[0]) return 0;
  r->path = field[0];
  if (!md_parse_int(field[1], &label) || label < -1 || label > INT32_MAX) return 1;
  if (!whole(field[2], &r->frames) || !r->frames) return 2;
  if (!md_parse_float(field[3], &r->fps) || !(r->fps > 0)) return 3;
  if (!md_parse_float(field[4], &r->seconds) || !(r->seconds > 0)) return 4;
  if (!whole(field[5], &w) || w < 1 || w > INT32_MAX) return 5;
  if (!whole(field[6], &h) || h < 1 || h > INT32_MAX) return 6;
  if (!whole(field[7], &rotation) || rotation > 270 || rotation % 90) return 7;
  if (!*field[8] || strlen(field[8]) >= sizeof r->codec) return 8;
  if (!whole(field[9], &r->bytes)) return 9;
  if (!whole(field[10], &r->damaged)) return 10;
  if (!whole(field[11], &r->missing)) return 11;
  r->has_hash = md_digest_parse(field[12], &r->hash);
  if (*field[12] && !r->has_hash) return 12;
  r->label = (int32_t)label;
  r->w = (int)w;
  r->h = (int)h;
  r->rotation = (int)rotation;
  snprintf(r->codec, sizeof r->codec, "%s", field[8]);
  r->verdict = r->damaged || r->missing ? MD_DAMAGED : MD_GOOD;
  return -1;
}

// One line, [p, end).
static bool read_row(md_catalog *c, const char *file, const char *folder, const char *p,
                     const char *end, int line, md_diags *d) {
  md_place at = {file, line, 1, (int)(end - p)};
  char *field[NUM_FIELDS];
  md_text text = {0};
  int num = 0;
  bool more = true;
  for (; more && num < NUM_FIELDS; num++) {
    if (!md_csv_field(&p, end, &text)) {
      md_text_free(&text);
      return md_error(d, E0871, at, "quote is not closed");
    }
    field[num] = md_strdup(c->arena, text.s);
    more = p < end && *p == ',';
    p += more;
  }
  md_text_free(&text);
  if (num < NUM_FIELDS || more || p < end)
    return md_error(d, E0871, at, "row has %s than the %d fields of the header",
                    num < NUM_FIELDS ? "fewer" : "more", NUM_FIELDS);
  md_survey_row r = {0};
  int wrong = read_fields(field, &r);
  if (wrong >= 0) {
    char shown[80];
    return md_error(d, E0871, at, "%s is '%s', but must be %s", columns[wrong].name,
                    md_clean(field[wrong], shown, sizeof shown), columns[wrong].need);
  }
  if (*r.path != '/') r.path = md_format(c->arena, "%s%s", folder, r.path);
  make_room(c);
  int *slot = slot_of(c, absolute(c->arena, r.path));
  r.path = absolute(c->arena, r.path);
  if (*slot >= 0) {
    c->row[*slot] = r;
    return true;
  }
  *slot = c->num;
  MD_PUSH(c->row, c->num, c->cap, r);
  return true;
}

bool md_catalog_read(md_catalog *c, const char *path, bool partial, md_diags *d) {
  char *text;
  size_t len;
  if (!md_file_read(path, max_bytes, E0503, d, &text, &len)) return false;
  md_diags_source(d, path, text, len);
  const char *folder = folder_of(c->arena, absolute(c->arena, path)), *p = text, *end = text + len;
  int before = md_diags_errors(d);
  for (int line = 1; p < end && md_diags_errors(d) < before + MD_MAX_ERRORS; line++) {
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop && partial) break;
    if (!stop) stop = end;
    const char *last = stop > p && stop[-1] == '\r' ? stop - 1 : stop;
    bool is_header = (size_t)(last - p) == strlen(md_catalog_header) &&
                     !memcmp(p, md_catalog_header, strlen(md_catalog_header));
    if (line == 1 && !is_header) {
      md_error(d, E0871, (md_place){path, 1, 1, (int)(last - p)},
               "is no index: the header is not %s", md_catalog_header);
      break;
    }
    if (line > 1 && last > p) read_row(c, path, folder, p, last, line, d);
    p = stop + (stop < end);
  }
  free(text);
  return md_diags_errors(d) == before;
}

bool md_catalog_put(md_text *to, const char *csv, const md_survey_row *r, md_diags *d) {
  if (strpbrk(r->path, "\n\r"))
    return md_error(d, E0872, MD_IN_FILE(r->path), "path holds a line break and cannot be listed");
  md_arena *a = md_arena_create();
  const char *folder = folder_of(a, absolute(a, csv)), *path = absolute(a, r->path);
  size_t len = strlen(folder);
  if (len && !strncmp(path, folder, len) && path[len] != '/') path += len;
  char number[2][MD_FLOAT_CHARS], hash[33] = "";
  if (r->has_hash) md_digest_text(r->hash, hash);
  md_csv_put(to, path);
  md_put(to, ",%d,%lld,%s,%s,%d,%d,%d,%s,%lld,%lld,%lld,%s\n", (int)r->label, (long long)r->frames,
         md_float_text(r->fps, number[0]), md_float_text(r->seconds, number[1]), r->w, r->h,
         r->rotation, r->codec, (long long)r->bytes, (long long)r->damaged, (long long)r->missing,
         hash);
  md_arena_destroy(a);
  return true;
}
