// SPDX-License-Identifier: Apache-2.0
// What tuning has found, a JSON object a line, so that files can be joined, read and mended by hand:
//
//   {"key": "5f..", "target": "cuda:sm_90a", "device": "NVIDIA H200", "by": "device", "region": "..",
//    "own": "wgmma 128x256 264", "own_us": 41.2, "own_cold_us": 44, "own_warm_us": 40.1,
//    "best": "wgmma 128x128 264", "best_us": 37.9, "checked": true,
//    "ways": [{"way": "..", "us": 37.9, "cold_us": 43, "warm_us": 37}, {"way": "..", "failed": ".."}],
//    "clocks": {"driver": "580.65.06", "sm_mhz": [1605, 1980], "memory_mhz": [2619, 2619], "looks": 80,
//               "throttled": 12, "why": "power limit"}}
//
// Who does a convolution faster is told the same way: its own way is "modist", the other one "cuDNN 9.19.0".
// What is not known is left out; so it is in lines of an older modist.
#include "runtime/exec/exec.h"

#include "base/file.h"
#include "base/json_tree.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE ((int64_t)256 << 20)
enum { MAX_WAYS = 1000, KEY = 32 };

md_records *md_records_create(void) {
  md_records *r = md_calloc(1, sizeof *r);
  r->arena = md_arena_create();
  return r;
}

void md_records_destroy(md_records *r) {
  if (!r) return;
  md_arena_destroy(r->arena);
  free(r->row);
  free(r);
}

// --- reading

typedef struct Line {
  md_records *to;
  const char *path;
  int number;
  md_diags *d;
  bool ok;
} Line;

static void wrong(Line *l, const char *key, const char *need) {
  if (l->ok)
    md_error(l->d, E0650, (md_place){.file = l->path, .line = l->number},
             "'%s' is missing or is not %s", key, need);
  l->ok = false;
}

static const char *get_text(Line *l, const md_tree *from, const char *key) {
  const char *s = md_tree_str(md_tree_get(from, key));
  size_t size = s ? strlen(s) + 1 : 1;
  char *clean = md_malloc(size);
  bool ok = s && *s && !strcmp(md_clean(s, clean, size), s);
  free(clean);
  if (!ok) wrong(l, key, "a text without control characters");
  return md_strdup(l->to->arena, ok ? s : "");
}

static double get_us(Line *l, const md_tree *from, const char *key) {
  double x = 0;
  if (!md_tree_float(md_tree_get(from, key), &x) || !(x >= 0)) wrong(l, key, "a time");
  return x;
}

static double get_optional_us(Line *l, const md_tree *from, const char *key) {
  return md_tree_get(from, key) ? get_us(l, from, key) : -1;
}

static void get_ways(Line *l, const md_tree *from, md_record *r) {
  const md_tree *list = md_tree_get(from, "ways");
  if (!list || list->kind != MD_JSON_LIST || list->num > MAX_WAYS) {
    wrong(l, "ways", "a list of what was tried");
    return;
  }
  r->num_ways = list->num;
  r->way = MD_NEW_ARRAY(l->to->arena, md_record_way, list->num + 1);
  for (int i = 0; i < list->num; i++) {
    const md_tree *w = &list->item[i];
    r->way[i] =
        (md_record_way){.way = get_text(l, w, "way"), .us = -1, .cold_us = -1, .warm_us = -1};
    if (md_tree_get(w, "failed")) {
      r->way[i].failed = get_text(l, w, "failed");
      continue;
    }
    r->way[i].us = get_optional_us(l, w, "us");
    r->way[i].cold_us = get_optional_us(l, w, "cold_us");
    r->way[i].warm_us = get_optional_us(l, w, "warm_us");
  }
}

static int get_int(Line *l, const md_tree *from, const char *key) {
  int64_t n = 0;
  bool ok = md_tree_int(md_tree_get(from, key), &n) && n >= 0 && n <= INT32_MAX;
  if (!ok) wrong(l, key, "a number");
  return ok ? (int)n : 0;
}

static void get_range(Line *l, const md_tree *from, const char *key, int *least, int *most) {
  const md_tree *x = md_tree_get(from, key);
  int64_t a = 0, b = 0;
  if (!x || x->kind != MD_JSON_LIST || x->num != 2 || !md_tree_int(&x->item[0], &a) ||
      !md_tree_int(&x->item[1], &b) || a < 0 || b < a || b > INT32_MAX) {
    wrong(l, key, "the least and the largest number of MHz");
    return;
  }
  *least = (int)a;
  *most = (int)b;
}

static const md_clocks *get_clocks(Line *l, const md_tree *from) {
  if (!from) return NULL;
  md_clocks *c = MD_NEW(l->to->arena, md_clocks);
  *c = (md_clocks){.looks = get_int(l, from, "looks"), .throttled = get_int(l, from, "throttled")};
  snprintf(c->driver, sizeof c->driver, "%s", get_text(l, from, "driver"));
  if (md_tree_get(from, "why")) snprintf(c->why, sizeof c->why, "%s", get_text(l, from, "why"));
  get_range(l, from, c->looks ? "sm_mhz" : "peak_sm_mhz", &c->sm_least, &c->sm_most);
  get_range(l, from, c->looks ? "memory_mhz" : "peak_memory_mhz", &c->memory_least,
            &c->memory_most);
  return c;
}

static void get_record(Line *l, const md_tree *from) {
  md_record r = {.key = get_text(l, from, "key"),
                 .target = get_text(l, from, "target"),
                 .device = get_text(l, from, "device"),
                 .region = get_text(l, from, "region"),
                 .own = get_text(l, from, "own"),
                 .best = get_text(l, from, "best"),
                 .own_us = get_us(l, from, "own_us"),
                 .best_us = get_us(l, from, "best_us"),
                 .own_cold_us = get_optional_us(l, from, "own_cold_us"),
                 .own_warm_us = get_optional_us(l, from, "own_warm_us"),
                 .is_checked = md_tree_true(md_tree_get(from, "checked"))};
  const char *by = get_text(l, from, "by");
  r.is_predicted = !strcmp(by, "prediction");
  if (!r.is_predicted && strcmp(by, "device") != 0) wrong(l, "by", "'device' or 'prediction'");
  if (strlen(r.key) != KEY || strspn(r.key, "0123456789abcdef") != KEY)
    wrong(l, "key", "32 hexadecimal digits");
  get_ways(l, from, &r);
  r.clocks = get_clocks(l, md_tree_get(from, "clocks"));
  if (l->ok) MD_PUSH(l->to->row, l->to->num, l->to->cap, r);
}

static bool read_line(md_records *r, const char *path, int number, const char *text, size_t len,
                      md_diags *d) {
  md_arena *a = md_arena_create();
  Line l = {.to = r, .path = path, .number = number, .d = d, .ok = true};
  const md_tree *root =
      md_json_read(md_format(a, "%s, line %d", path, number), text, len, E0650, a, d);
  if (root) get_record(&l, root);
  md_arena_destroy(a);
  return root && l.ok;
}

// The number of lines that are no records. Stops at the first one, unless it is `lenient`.
static int read_lines(md_records *r, const char *path, const char *data, size_t len, bool lenient,
                      md_diags *d) {
  int number = 0, bad = 0;
  for (const char *s = data; s < data + len && (lenient || !bad);) {
    const char *end = memchr(s, '\n', (size_t)(data + len - s));
    if (!end) end = data + len;
    number++;
    if (strspn(s, " \t\r") < (size_t)(end - s))
      bad += !read_line(r, path, number, s, (size_t)(end - s), d);
    s = end + 1;
  }
  return bad;
}

bool md_records_read(md_records *r, const char *path, md_diags *d) {
  char *data;
  size_t len;
  if (!md_file_read(path, MAX_FILE, E0650, d, &data, &len)) return false;
  bool ok = read_lines(r, path, data, len, false, d) == 0;
  free(data);
  return ok;
}

// --- writing

static void put_range(md_json *j, const char *key, int least, int most) {
  md_json_key(j, key);
  md_json_begin(j, '[');
  md_json_int(j, least);
  md_json_int(j, most);
  md_json_end(j, ']');
}

static void put_clocks(md_json *j, const md_clocks *c) {
  md_json_key(j, "clocks");
  md_json_begin(j, '{');
  md_json_put_str(j, "driver", c->driver);
  put_range(j, c->looks ? "sm_mhz" : "peak_sm_mhz", c->sm_least, c->sm_most);
  put_range(j, c->looks ? "memory_mhz" : "peak_memory_mhz", c->memory_least, c->memory_most);
  md_json_put_int(j, "looks", c->looks);
  md_json_put_int(j, "throttled", c->throttled);
  if (*c->why) md_json_put_str(j, "why", c->why);
  md_json_end(j, '}');
}

static void put_us(md_json *j, const char *key, double us) {
  if (us >= 0) md_json_put_float(j, key, us);
}

void md_record_put(const md_record *r, md_text *to) {
  md_json w = {.compact = true}, *j = &w;
  md_json_begin(j, '{');
  md_json_put_str(j, "key", r->key);
  md_json_put_str(j, "target", r->target);
  md_json_put_str(j, "device", r->device);
  md_json_put_str(j, "by", r->is_predicted ? "prediction" : "device");
  md_json_put_str(j, "region", r->region);
  md_json_put_str(j, "own", r->own);
  md_json_put_float(j, "own_us", r->own_us);
  put_us(j, "own_cold_us", r->own_cold_us);
  put_us(j, "own_warm_us", r->own_warm_us);
  md_json_put_str(j, "best", r->best);
  md_json_put_float(j, "best_us", r->best_us);
  md_json_key(j, "checked");
  md_json_bool(j, r->is_checked);
  md_json_key(j, "ways");
  md_json_begin(j, '[');
  for (int i = 0; i < r->num_ways; i++) {
    md_json_begin(j, '{');
    md_json_put_str(j, "way", r->way[i].way);
    if (r->way[i].failed) md_json_put_str(j, "failed", r->way[i].failed);
    put_us(j, "us", r->way[i].us);
    put_us(j, "cold_us", r->way[i].cold_us);
    put_us(j, "warm_us", r->way[i].warm_us);
    md_json_end(j, '}');
  }
  md_json_end(j, ']');
  if (r->clocks && *r->clocks->driver) put_clocks(j, r->clocks);
  md_json_end(j, '}');
  md_put(to, "%s\n", j->out.s);
  md_text_free(&j->out);
}

// --- the machine's own

char *md_records_path(md_arena *a) {
  const char *dir = md_cache_dir(a);
  return dir ? md_format(a, "%s/tuning.jsonl", dir) : NULL;
}

md_records *md_records_kept(md_diags *d) {
  md_records *r = md_records_create();
  const char *path = md_records_path(r->arena);
  char *data;
  size_t len;
  if (!path || access(path, F_OK) != 0) return r;
  md_diags *said = md_diags_create();
  int bad = 0;
  bool is_read = md_file_read(path, MAX_FILE, E0650, said, &data, &len);
  if (is_read) {
    bad = read_lines(r, path, data, len, true, said);
    free(data);
  }
  if (!is_read || bad) {
    md_warning(d, MD_IN_FILE(path),
               is_read ? "%d lines are no records of tuning and are left out"
                       : "records of tuning cannot be read",
               bad);
    md_hint(d, "'modistc cache prune --records' removes all of them");
  }
  md_diags_destroy(said);
  return r;
}

static void put_all(const md_records *r, md_text *to) {
  for (int i = 0; i < r->num; i++) md_record_put(&r->row[i], to);
}

// One process at a time writes. Who has waited may hold a file that another one has replaced.
static int open_locked(const char *path, int flags) {
  struct stat here, there;
  for (;;) {
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) return fd;  // not every file system has locks
    if (fstat(fd, &here) != 0 || (stat(path, &there) == 0 && here.st_ino == there.st_ino))
      return fd;
    close(fd);
  }
}

// Behind what others have added; a line that was cut off ends here.
bool md_records_keep(const md_records *r, md_diags *d) {
  md_text all = {0};
  md_put(&all, "\n");
  put_all(r, &all);
  md_arena *a = md_arena_create();
  const char *path = md_records_path(a);
  errno = 0;
  int fd = path ? open_locked(path, O_WRONLY | O_APPEND | O_CREAT) : -1;
  bool ok = fd >= 0 && md_write_all(fd, all.s, all.len);
  int error = errno;
  if (fd >= 0) ok = close(fd) == 0 && ok;
  if (!ok) {
    md_error(d, E0801, path ? MD_IN_FILE(path) : MD_NOWHERE, "records of tuning are not kept: %s",
             path ? strerror(error) : "there is no cache folder");
    md_hint(d, "-o FILE.jsonl writes them elsewhere; 'modistc cache import FILE.jsonl' takes them");
  }
  md_text_free(&all);
  md_arena_destroy(a);
  return ok;
}

bool md_records_save(const md_records *r, const char *path, md_diags *d) {
  md_text all = {0};
  put_all(r, &all);
  bool is_screen = strcmp(path, "-") == 0, ok = true;
  if (is_screen) fwrite(all.s ? all.s : "", 1, all.len, stdout);
  else ok = md_file_save(path, all.s ? all.s : "", all.len, d);
  md_text_free(&all);
  return ok;
}

int md_records_compact(md_diags *d) {
  md_arena *a = md_arena_create();
  const char *path = md_records_path(a);
  int lock = path ? open_locked(path, O_RDONLY) : -1, gone = 0;
  if (lock >= 0) {
    md_records *all = md_records_kept(d), last = {0};
    for (int i = 0; i < all->num; i++)
      if (md_records_is_last(all, i)) MD_PUSH(last.row, last.num, last.cap, all->row[i]);
    gone = all->num - last.num;
    if (gone && !md_records_save(&last, path, d)) gone = -1;
    free(last.row);
    md_records_destroy(all);
    close(lock);
  }
  md_arena_destroy(a);
  return gone;
}

// --- finding

typedef struct Sums {
  int num, ways, failed, better;
  double own_us, best_us;
} Sums;

static Sums sum(const md_records *r, bool of_engines) {
  Sums s = {0};
  for (int i = 0; i < r->num; i++) {
    const md_record *x = &r->row[i];
    if (!strcmp(x->own, MD_OWN_ENGINE) != of_engines) continue;
    s.num++;
    s.better += strcmp(x->own, x->best) != 0;
    s.own_us += x->own_us;
    s.best_us += x->best_us;
    s.ways += x->num_ways;
    for (int k = 0; k < x->num_ways; k++) s.failed += x->way[k].failed != NULL;
  }
  return s;
}

char *md_records_text(const md_records *r, char buf[MD_RECORDS_CHARS]) {
  Sums s = sum(r, false), e = sum(r, true);
  int len = 0;
  if (s.num || !e.num)
    len = snprintf(
        buf, MD_RECORDS_CHARS,
        "%d products, %d other ways of them, %d failed; %d have a better one: %.3f ms -> "
        "%.3f ms%s",
        s.num, s.ways, s.failed, s.better, s.own_us / 1e3, s.best_us / 1e3, e.num ? "; " : "");
  if (e.num)
    snprintf(buf + len, MD_RECORDS_CHARS - (size_t)len,
             "%d convolutions by cuDNN, too, %d failed; %d are faster so: %.3f ms -> %.3f ms",
             e.num, e.failed, e.better, e.own_us / 1e3, e.best_us / 1e3);
  return buf;
}

bool md_is_named(const char *device, const char *name) {
  if (!strcasecmp(device, name)) return true;
  if (strchr(name, ' ')) return false;
  for (const char *word = device; *word; word += strcspn(word, " "), word += *word == ' ') {
    const char *d = word, *n = name;  // blanks between words do not count
    while (*d && *n && (*d == ' ' || tolower((unsigned char)*d) == tolower((unsigned char)*n))) {
      n += *d != ' ';
      d++;
    }
    if (!*n && (!*d || *d == ' ')) return true;
  }
  return false;
}

const md_record *md_records_find(const md_records *r, const char *target, const char *key,
                                 const char *device) {
  const md_record *found = NULL;
  for (int i = 0; i < r->num; i++) {
    const md_record *x = &r->row[i];
    if (x->is_predicted || strcmp(x->key, key) != 0 || strcmp(x->target, target) != 0) continue;
    if (device && !md_is_named(x->device, device)) continue;
    bool is_exact = !device || !strcasecmp(x->device, device);
    if (found && device && !is_exact && !strcasecmp(found->device, device)) continue;
    found = x;
  }
  return found;
}

bool md_records_is_last(const md_records *r, int i) {
  const md_record *x = &r->row[i];
  return md_records_find(r, x->target, x->key, x->device) == x;
}
