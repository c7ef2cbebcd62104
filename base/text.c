// SPDX-License-Identifier: Apache-2.0
// Text: a buffer that grows, UTF-8, what is safe to show, and what a user may have meant.
#include "base/base.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static void reserve(md_text *t, size_t more) {
  if (more >= SIZE_MAX / 4 - t->len) md_out_of_memory(more);
  size_t need = t->len + more + 1;
  if (need <= t->cap) return;
  size_t cap = MD_MAX(need, MD_MAX(2 * t->cap, (size_t)128));
  char *s = realloc(t->s, cap);
  if (!s) md_out_of_memory(cap);
  t->s = s;
  t->cap = cap;
}

// Damerau-Levenshtein distance (a swap of neighbours is one edit) of two short words.
enum { LONGEST_NAME = 63 };
static int edits(const char *a, int len_a, const char *b, int len_b) {
  int row[3][LONGEST_NAME + 1];  // rows i, i - 1, i - 2 by i % 3
  for (int i = 0; i <= len_a; i++) {
    int *now = row[i % 3], *above = row[(i + 2) % 3], *above2 = row[(i + 1) % 3];
    for (int j = 0; j <= len_b; j++) {
      if (i == 0 || j == 0) {
        now[j] = i + j;
        continue;
      }
      now[j] = MD_MIN(MD_MIN(above[j], now[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        now[j] = MD_MIN(now[j], above2[j - 2] + 1);
    }
  }
  return row[len_a % 3][len_b];
}

// Controls, and the marks that reorder text on a terminal.
static bool is_unsafe(uint32_t code) {
  return code < 0x20 || (code >= 0x7F && code < 0xA0) || (code >= 0x202A && code <= 0x202E) ||
         (code >= 0x2066 && code <= 0x2069);
}

void md_put_bytes(md_text *t, const char *s, size_t len) {
  reserve(t, len);
  if (len) memcpy(t->s + t->len, s, len);
  t->len += len;
  t->s[t->len] = '\0';
}

void md_put(md_text *t, const char *fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  size_t room = t->cap - t->len;  // mostly enough, and then it is printed once
  int len = vsnprintf(room ? t->s + t->len : NULL, room, fmt, args);
  va_end(args);
  MD_ASSERT(len >= 0, "format '%s' cannot be printed", fmt);
  if ((size_t)len >= room) {
    reserve(t, (size_t)len);
    vsnprintf(t->s + t->len, (size_t)len + 1, fmt, again);
  }
  va_end(again);
  t->len += (size_t)len;
}

void md_put_base64(md_text *t, const void *data, size_t len) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const uint8_t *p = data;
  for (size_t i = 0; i < len; i += 3) {
    size_t have = MD_MIN(len - i, (size_t)3);
    uint32_t bits = (uint32_t)p[i] << 16;
    if (have > 1) bits |= (uint32_t)p[i + 1] << 8;
    if (have > 2) bits |= p[i + 2];
    char four[] = {digits[bits >> 18], digits[bits >> 12 & 63], '=', '='};
    if (have > 1) four[2] = digits[bits >> 6 & 63];
    if (have > 2) four[3] = digits[bits & 63];
    md_put_bytes(t, four, sizeof four);
  }
}

void md_text_free(md_text *t) {
  free(t->s);
  *t = (md_text){0};
}

int md_utf8(const char *s, uint32_t *code) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};  // shorter forms must be used below
  const unsigned char *p = (const unsigned char *)s;
  int len = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
  if (len == 0) return 0;
  uint32_t c = len == 1 ? p[0] : p[0] & (0x7Fu >> len);
  for (int i = 1; i < len; i++) {
    if (p[i] >> 6 != 2) return 0;  // the terminating NUL stops here too
    c = c << 6 | (p[i] & 0x3F);
  }
  if (c < least[len] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
  *code = c;
  return len;
}

const char *md_nearest(const char *name, const char *const *names, int num_names) {
  size_t size = strlen(name);
  if (size == 0 || size > LONGEST_NAME) return NULL;
  int len = (int)size, best = MD_MAX(1, len / 3) + 1;
  if (best > len) best = len;  // an edit of every letter is not a slip
  const char *nearest = NULL;
  for (int i = 0; i < num_names; i++) {
    size_t other = strlen(names[i]);
    if (other > LONGEST_NAME) continue;
    int d = edits(name, len, names[i], (int)other);
    if (d > 1 && len >= 3 && !strncmp(name, names[i], size)) d = 1;  // an unfinished word
    if (d >= best) continue;
    best = d;
    nearest = names[i];
  }
  return nearest;
}

char *md_clean(const char *s, char *buf, size_t size) {
  size_t n = 0;
  if (size == 0) return buf;
  while (*s) {
    uint32_t code = 0;
    int len = md_utf8(s, &code);
    bool keep = len && !is_unsafe(code);
    size_t out = keep ? (size_t)len : 1;
    if (n + out >= size) break;
    if (keep) memcpy(buf + n, s, out);
    else buf[n] = '?';
    n += out;
    s += MD_MAX(len, 1);
  }
  buf[n] = '\0';
  return buf;
}
