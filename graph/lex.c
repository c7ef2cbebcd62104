// SPDX-License-Identifier: Apache-2.0
// Graph text to tokens, one ahead of the reader. Words, numbers, %values, @names and single marks;
// whether a token opens a line is kept, because a line break ends a statement.
#include "graph/read.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_first(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool is_name(char c) {
  return is_first(c) || is_digit(c) || c == '.' || c == '$' || c == '-';
}

static const char *name_end(const md_reader *r, const char *p) {
  if (p == r->end || !is_first(*p)) return p;
  while (p < r->end && is_name(*p)) p++;
  return p;
}

static const char *digits_end(const md_reader *r, const char *p) {
  while (p < r->end && is_digit(*p)) p++;
  return p;
}

// What is glued to a number belongs to it, so that "3x" is one bad number and not two tokens.
static const char *number_end(const md_reader *r, const char *p) {
  for (p++; p < r->end && (is_name(*p) || *p == '+'); p++)
    if ((*p == '+' || *p == '-') && p[-1] != 'e' && p[-1] != 'E') break;
  return p;
}

static void skip_blanks(md_reader *r) {
  for (; r->pos < r->end; r->pos++) {
    char c = *r->pos;
    if (c == '\n') {
      r->line++;
      r->line_start = r->pos + 1;
      r->tok.starts_line = true;
    } else if (c == '/' && r->pos + 1 < r->end && r->pos[1] == '/') {
      const char *stop = memchr(r->pos, '\n', (size_t)(r->end - r->pos));
      r->pos = (stop ? stop : r->end) - 1;
    } else if (c != ' ' && c != '\t' && c != '\r') {
      return;
    }
  }
}

static void scan(md_reader *r) {
  r->tok = (md_token){.kind = MD_TOK_END, .starts_line = r->pos == r->line_start};
  skip_blanks(r);
  const char *s = r->pos, *stop = s;
  r->tok.s = s;
  r->tok.line = r->line;
  r->tok.col = (int)(s - r->line_start) + 1;
  if (s == r->end) {
    r->tok.starts_line = true;
    return;
  }
  r->tok.kind = MD_TOK_BAD;
  if (is_first(*s)) {
    stop = name_end(r, s);
    r->tok.kind = MD_TOK_WORD;
  } else if (is_digit(*s) || (*s == '-' && s + 1 < r->end && is_name(s[1]))) {
    stop = number_end(r, s);
    r->tok.kind = MD_TOK_NUMBER;
  } else if (*s == '%') {
    stop = digits_end(r, s + 1);
    if (stop == s + 1) stop = name_end(r, s + 1);
    if (stop > s + 1) r->tok.kind = MD_TOK_VALUE;
  } else if (*s == '@') {
    stop = name_end(r, s + 1);
    if (stop > s + 1) r->tok.kind = MD_TOK_AT;
  } else if (*s && strchr("(){}[],:=.", *s)) {
    stop = s + 1;
    r->tok.kind = MD_TOK_PUNCT;
  }
  if (stop == s) stop = s + 1;
  r->tok.len = (int)(stop - s);
  r->pos = stop;
}

md_place md_token_place(const md_reader *r, const md_token *t) {
  return (md_place){r->file, t->line, t->col, MD_MAX(t->len, 1)};
}

md_place md_span(const md_reader *r, const md_token *first, const md_token *last) {
  md_place at = md_token_place(r, first);
  if (last->line == first->line) at.len = last->col + last->len - first->col;
  return at;
}

char *md_token_text(const md_reader *r, const md_token *t) {
  int mark = t->kind == MD_TOK_VALUE || t->kind == MD_TOK_AT;
  return md_strndup(r->scratch, t->s + mark, (size_t)(t->len - mark));
}

bool md_read_error(md_reader *r, md_code code, const md_token *at, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  char *text;
  int len = vasprintf(&text, fmt, args);
  va_end(args);
  if (len < 0) md_out_of_memory(strlen(fmt));
  md_error(r->diags, code, md_token_place(r, at), "%s", text);
  free(text);
  r->errors++;
  return false;
}

bool md_unexpected_start(md_reader *r, const char *what) {
  const md_token *t = &r->tok;
  if (t->kind == MD_TOK_END) return md_unexpected(r, what);
  if (t->kind == MD_TOK_BAD && (*t->s == '%' || *t->s == '@'))
    return md_read_error(r, E0101, t, "expected %s, found '%c' without a name", what, *t->s);
  if (t->kind == MD_TOK_BAD && (*t->s < ' ' || *t->s > '~'))
    return md_read_error(r, E0101, t, "expected %s, found the byte 0x%02x", what,
                         (unsigned char)*t->s);
  return md_read_error(r, E0101, t, "expected %s, found '%.*s'", what, MD_MIN(t->len, 60), t->s);
}

bool md_unexpected(md_reader *r, const char *what) {
  bool is_end = r->tok.kind == MD_TOK_END;
  if (!is_end && (!r->tok.starts_line || !r->last.s)) return md_unexpected_start(r, what);
  md_token gap = r->tok;
  if (r->last.s) gap = (md_token){.line = r->last.line, .col = r->last.col + r->last.len};
  return md_read_error(r, E0101, &gap, "expected %s, found the end of the %s", what,
                       is_end ? "text" : "line");
}

md_token md_take(md_reader *r) {
  r->last = r->tok;
  if (md_is_punct(r, '{')) r->braces++;
  if (md_is_punct(r, '}')) r->braces--;
  scan(r);
  return r->last;
}

bool md_is_punct(const md_reader *r, char c) {
  return r->tok.kind == MD_TOK_PUNCT && *r->tok.s == c;
}

bool md_is_word(const md_reader *r, const char *word) {
  return r->tok.kind == MD_TOK_WORD && strlen(word) == (size_t)r->tok.len &&
         !memcmp(word, r->tok.s, (size_t)r->tok.len);
}

bool md_accept(md_reader *r, char c) {
  if (!md_is_punct(r, c)) return false;
  md_take(r);
  return true;
}

bool md_expect(md_reader *r, char c) {
  if (md_accept(r, c)) return true;
  char what[] = {'\'', c, '\'', '\0'};
  return md_unexpected(r, what);
}

bool md_reader_init(md_reader *r, const char *file, const char *text, size_t len, md_arena *scratch,
                    md_diags *d) {
  *r = (md_reader){.file = file, .pos = text, .line_start = text, .line = 1};
  r->scratch = scratch;
  r->diags = d;
  r->end = text + MD_MIN(len, (size_t)MD_MAX_TEXT);
  if (len > MD_MAX_TEXT) {
    md_error(d, E0102, MD_IN_FILE(file), "graph text of %zu bytes; %d is the limit", len,
             MD_MAX_TEXT);
    r->errors++;
    return false;
  }
  md_diags_source(d, file, text, len);
  scan(r);
  return true;
}
