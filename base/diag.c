// SPDX-License-Identifier: Apache-2.0
// Diagnostics are kept as a list of items and rendered in order:
//
//   <place>: error[<code>]: <text>     an error or warning opens a group,
//      14 |   <line of the source>
//         |   ^~~~
//      note: <text>                    notes and hints belong to it
//      hint: <text>
//
// The plain text grows with each item, so that it can be read at any time; with colour the list is
// rendered again. What was dropped after the limits is one line at the end.
#include "base/diag.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WARNINGS = 100, LINE_SHOWN = 120, LINE_BEFORE = 60 };

typedef enum item_kind { ERROR, WARNING, NOTE, HINT } item_kind;
static const char *const kind_names[] = {"error", "warning", "note", "hint"};
static const char *const kind_colors[] = {"\033[1;31m", "\033[1;35m", "\033[1;36m", "\033[1;32m"};

typedef struct item {
  item_kind kind;
  md_code code;
  md_place at;
  const char *text;
} item;
typedef struct source {
  const char *file, *text;
  size_t len;
} source;

struct md_diags {
  md_arena *arena;
  item *items;
  int num_items, cap_items;
  source *sources;
  int num_sources, cap_sources;
  int num_errors, num_warnings;
  bool is_dropping;  // the last error or warning was over its limit: so are its notes
  md_status status;
  md_code code;
  md_text text;
  size_t body_len;  // text without the line about dropped items
};

const md_code_row md_codes[MD_NUM_CODES] = {
#define CODE(id, status, title, text) [id] = {#id, status, title, text},
#include "base/codes.def"
#undef CODE
};

// Line `number` of the source of `file`; false when it is not known.
static bool find_line(const md_diags *d, md_place at, const char **line, int *len) {
  for (int i = 0; i < d->num_sources; i++) {
    const source *s = &d->sources[i];
    if (strcmp(s->file, at.file)) continue;
    const char *p = s->text, *end = s->text + s->len;
    for (int n = 1; n < at.line && p; n++) {
      p = memchr(p, '\n', (size_t)(end - p));
      if (p) p++;
    }
    if (!p) return false;
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    ptrdiff_t length = (stop ? stop : end) - p;
    if (length > 1 << 20) return false;
    *line = p;
    *len = (int)length;
    if (*len && p[*len - 1] == '\r') --*len;
    return true;
  }
  return false;
}

// The characters of s[0..len), one terminal cell each as far as we know: tabs become a space, what
// is no text becomes '?'. Returns their number; `out` may be NULL.
static int put_cells(md_text *out, const char *s, int len) {
  int cells = 0;
  for (int i = 0; i < len; cells++) {
    uint32_t code;
    int n = md_utf8(s + i, &code);  // the source ends in NUL, so this stays inside
    if (n > len - i) n = 0;
    char one[5] = "?", shown[5];
    if (n) memcpy(one, s + i, (size_t)n);
    if (n) one[n] = '\0';
    if (one[0] == '\t') one[0] = ' ';
    md_clean(one[0] ? one : "?", shown, sizeof shown);
    if (out) md_put_bytes(out, shown, strlen(shown));
    i += MD_MAX(n, 1);
  }
  return cells;
}

static void put_snippet(md_text *out, const md_diags *d, md_place at, bool color) {
  const char *line;
  int len;
  if (!at.file || at.line <= 0 || !find_line(d, at, &line, &len)) return;
  int col = MD_MIN(MD_MAX(at.col, 1) - 1, len);  // from 0, in bytes
  int from = 0, to = len;
  if (len > LINE_SHOWN) {
    from = MD_MAX(0, MD_MIN(col - LINE_BEFORE, len - LINE_SHOWN));
    to = from + LINE_SHOWN;
    while (from > 0 && ((unsigned char)line[from] & 0xC0) == 0x80) from--;  // not inside a letter
  }
  md_put(out, "%5d | %s", at.line, from > 0 ? "..." : "");
  put_cells(out, line + from, to - from);
  md_put(out, "%s\n", to < len ? "..." : "");
  if (at.col <= 0) return;
  int before = put_cells(NULL, line + from, col - from) + (from > 0 ? 3 : 0);
  int marked = put_cells(NULL, line + col, MD_MIN(MD_MAX(at.len, 1), to - col));
  md_put(out, "      | %*s%s^", before, "", color ? kind_colors[HINT] : "");
  for (int i = 1; i < marked; i++) md_put_bytes(out, "~", 1);
  md_put(out, "%s\n", color ? "\033[0m" : "");
}

// Our own line breaks are kept, and indented; nothing else in a text may steer a terminal.
static void put_message(md_text *out, const char *s) {
  for (const char *p = s;;) {
    size_t len = strcspn(p, "\n");
    char *line = md_malloc(2 * (len + 1));
    char *shown = line + len + 1;
    memcpy(line, p, len);
    line[len] = '\0';
    md_put(out, "%s\n", md_clean(line, shown, len + 1));
    free(line);
    if (!p[len]) return;
    p += len + 1;
    if (!*p) return;
    md_put(out, "         ");
  }
}

static void put_place(md_text *out, md_place at) {
  if (!at.file) return;
  put_cells(out, at.file, (int)MD_MIN(strlen(at.file), (size_t)4096));
  if (at.line > 0) md_put(out, ":%d", at.line);
  if (at.line > 0 && at.col > 0) md_put(out, ":%d", at.col);
  md_put(out, ": ");
}

static void put_item(md_text *out, const md_diags *d, const item *it, bool color) {
  const char *on = color ? kind_colors[it->kind] : "", *off = color ? "\033[0m" : "";
  bool is_head = it->kind == ERROR || it->kind == WARNING;
  if (is_head) put_place(out, it->at);
  md_put(out, "%s%s%s", is_head ? "" : "   ", on, kind_names[it->kind]);
  if (it->code != MD_NO_CODE) md_put(out, "[%s]", md_codes[it->code].name);
  md_put(out, "%s: ", off);
  if (!is_head) put_place(out, it->at);
  put_message(out, it->text);
  put_snippet(out, d, it->at, color);
}

static void put_dropped(md_text *out, const md_diags *d) {
  int errors = d->num_errors - MD_MAX_ERRORS, warnings = d->num_warnings - MAX_WARNINGS;
  if (errors > 0) md_put(out, "%d more error%s not shown\n", errors, errors > 1 ? "s" : "");
  if (warnings > 0) md_put(out, "%d more warning%s not shown\n", warnings, warnings > 1 ? "s" : "");
}

static void add(md_diags *d, item_kind kind, md_code code, md_place at, const char *fmt,
                va_list args) {
  if (kind == ERROR) d->is_dropping = d->num_errors++ >= MD_MAX_ERRORS;
  if (kind == WARNING) d->is_dropping = d->num_warnings++ >= MAX_WARNINGS;
  if (kind == ERROR && d->num_errors == 1) {
    d->code = code;
    d->status = md_codes[code].status;
  }
  if (d->text.s) d->text.s[d->text.len = d->body_len] = '\0';
  if (!d->is_dropping) {
    char *text;
    int len = vasprintf(&text, fmt, args);
    if (len < 0) md_out_of_memory(strlen(fmt));
    item it = {kind, code, at, md_strdup(d->arena, text)};
    free(text);
    if (at.file) it.at.file = md_strdup(d->arena, at.file);
    MD_PUSH(d->items, d->num_items, d->cap_items, it);
    put_item(&d->text, d, &it, false);
    d->body_len = d->text.len;
  }
  put_dropped(&d->text, d);
}

md_diags *md_diags_create(void) {
  md_diags *d = md_calloc(1, sizeof *d);
  d->arena = md_arena_create();
  return d;
}

void md_diags_clear(md_diags *d) {
  md_arena_reset(d->arena);
  free(d->items);
  free(d->sources);
  md_text_free(&d->text);
  *d = (md_diags){.arena = d->arena};
}

void md_diags_destroy(md_diags *d) {
  if (!d) return;
  md_diags_clear(d);
  md_arena_destroy(d->arena);
  free(d);
}

void md_diags_source(md_diags *d, const char *file, const char *text, size_t len) {
  if (!d) return;
  char *copy = md_alloc(d->arena, len + 1);
  if (len) memcpy(copy, text, len);
  source s = {md_strdup(d->arena, file), copy, len};
  for (int i = 0; i < d->num_sources; i++) {
    if (strcmp(d->sources[i].file, file)) continue;
    d->sources[i] = s;
    return;
  }
  MD_PUSH(d->sources, d->num_sources, d->cap_sources, s);
}

bool md_error(md_diags *d, md_code code, md_place at, const char *fmt, ...) {
  MD_ASSERT(code > MD_NO_CODE && code < MD_NUM_CODES, "error code %d", (int)code);
  if (!d) return false;
  va_list args;
  va_start(args, fmt);
  add(d, ERROR, code, at, fmt, args);
  va_end(args);
  return false;
}

void md_warning(md_diags *d, md_place at, const char *fmt, ...) {
  if (!d) return;
  va_list args;
  va_start(args, fmt);
  add(d, WARNING, MD_NO_CODE, at, fmt, args);
  va_end(args);
}

void md_note(md_diags *d, md_place at, const char *fmt, ...) {
  if (!d) return;
  va_list args;
  va_start(args, fmt);
  add(d, NOTE, MD_NO_CODE, at, fmt, args);
  va_end(args);
}

void md_hint(md_diags *d, const char *fmt, ...) {
  if (!d) return;
  va_list args;
  va_start(args, fmt);
  add(d, HINT, MD_NO_CODE, MD_NOWHERE, fmt, args);
  va_end(args);
}

bool md_told(md_diags *d, md_status status) {
  if (d && d->num_errors++ == 0) d->status = status;
  return false;
}

int md_diags_errors(const md_diags *d) { return d->num_errors; }

int md_diags_warnings(const md_diags *d) { return d->num_warnings; }

md_status md_diags_status(const md_diags *d) { return d->status; }
md_code md_diags_code(const md_diags *d) { return d->code; }

const char *md_diags_text(const md_diags *d) { return d->text.s ? d->text.s : ""; }

void md_diags_reason(const md_diags *d, char *to, size_t size) {
  const char *text = md_diags_text(d), *begin = strstr(text, "]: ");
  if (begin) text = begin + strlen("]: ");
  snprintf(to, size, "%.*s", (int)strcspn(text, "\n"), text);
}

void md_diags_print(const md_diags *d, FILE *to, bool color) {
  if (!color) {
    fputs(md_diags_text(d), to);
    return;
  }
  md_text t = {0};
  for (int i = 0; i < d->num_items; i++) put_item(&t, d, &d->items[i], true);
  put_dropped(&t, d);
  if (t.s) fputs(t.s, to);
  md_text_free(&t);
}

// no-color.org and bixense.com/clicolors: a variable that is empty says nothing.
static bool is_set(const char *variable) {
  const char *value = getenv(variable);
  return value && *value;
}

bool md_likes_color(int fd) {
  return !is_set("NO_COLOR") && (is_set("CLICOLOR_FORCE") || isatty(fd));
}
