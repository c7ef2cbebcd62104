// SPDX-License-Identifier: Apache-2.0
// A streaming JSON writer. `need_comma` says that something stands before, in the same container.
#include "base/base.h"

#include <math.h>

static void new_line(md_json *j) {
  if (!j->compact) md_put(&j->out, "\n%*s", 2 * j->depth, "");
}

// What stands before a key, or before a value that has none.
static void before_item(md_json *j) {
  if (j->after_key) {
    j->after_key = false;
    return;
  }
  if (j->need_comma) md_put_bytes(&j->out, ",", 1);
  if (j->depth > 0) new_line(j);
}

static void put_string(md_text *t, const char *s) {
  md_put_bytes(t, "\"", 1);
  while (*s) {
    uint32_t code;
    int len = md_utf8(s, &code);
    if (len == 0) {
      md_put(t, "\\ufffd");
      len = 1;
    } else if (code == '"' || code == '\\') {
      md_put(t, "\\%c", (int)code);
    } else if (code == '\n') {
      md_put(t, "\\n");
    } else if (code < 0x20 || code == 0x7F) {
      md_put(t, "\\u%04x", (unsigned)code);
    } else {
      md_put_bytes(t, s, (size_t)len);
    }
    s += len;
  }
  md_put_bytes(t, "\"", 1);
}

void md_json_begin(md_json *j, char bracket) {
  before_item(j);
  md_put_bytes(&j->out, &bracket, 1);
  j->depth++;
  j->need_comma = false;
}

void md_json_end(md_json *j, char bracket) {
  MD_ASSERT(j->depth > 0 && !j->after_key, "json: '%c' without its value or its begin", bracket);
  j->depth--;
  if (j->need_comma) new_line(j);
  md_put_bytes(&j->out, &bracket, 1);
  j->need_comma = true;
}

void md_json_key(md_json *j, const char *key) {
  MD_ASSERT(!j->after_key, "json: key '%s' after a key", key);
  before_item(j);
  put_string(&j->out, key);
  md_put(&j->out, j->compact ? ":" : ": ");
  j->after_key = true;
}

void md_json_str(md_json *j, const char *s) {
  before_item(j);
  put_string(&j->out, s);
  j->need_comma = true;
}

void md_json_int(md_json *j, int64_t x) {
  before_item(j);
  md_put(&j->out, "%lld", (long long)x);
  j->need_comma = true;
}

void md_json_float(md_json *j, double x) {
  char buf[MD_FLOAT_CHARS];
  before_item(j);
  md_put(&j->out, "%s", isfinite(x) ? md_float_text(x, buf) : "null");
  j->need_comma = true;
}

void md_json_put_str(md_json *j, const char *key, const char *s) {
  md_json_key(j, key);
  md_json_str(j, s);
}

void md_json_put_int(md_json *j, const char *key, int64_t x) {
  md_json_key(j, key);
  md_json_int(j, x);
}

void md_json_put_float(md_json *j, const char *key, double x) {
  md_json_key(j, key);
  md_json_float(j, x);
}

void md_json_bool(md_json *j, bool x) {
  before_item(j);
  md_put(&j->out, x ? "true" : "false");
  j->need_comma = true;
}
