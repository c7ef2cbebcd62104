// SPDX-License-Identifier: Apache-2.0
// Checked sizes, numbers as text in the C locale whatever the process uses, bfloat16.
#include "base/base.h"

#include <errno.h>
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// glibc hands out one shared object for "C": no allocation, nothing to keep.
static locale_t c_locale(void) {
  locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
  MD_ASSERT(c, "the C locale is missing");
  return c;
}

static void print_float(char buf[MD_FLOAT_CHARS], const char *fmt, int digits, double x) {
  locale_t c = c_locale(), old = uselocale(c);
  snprintf(buf, MD_FLOAT_CHARS, fmt, digits, x);
  uselocale(old);
  freelocale(c);
}

bool md_mul_size(int64_t a, int64_t b, int64_t *out) {
  int64_t y;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &y)) return false;
  *out = y;
  return true;
}

bool md_add_size(int64_t a, int64_t b, int64_t *out) {
  int64_t y;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &y)) return false;
  *out = y;
  return true;
}

int64_t md_ceil_div(int64_t x, int64_t by) { return x / by + (x % by != 0); }

int64_t md_round_up(int64_t x, int64_t to) { return md_ceil_div(x, to) * to; }

bool md_parse_int(const char *s, int64_t *out) {
  const char *digits = s + (*s == '-' || *s == '+');
  if (*digits < '0' || *digits > '9') return false;  // strtoll would skip white space
  char *end;
  errno = 0;
  long long x = strtoll(s, &end, 10);
  if (*end || errno) return false;
  *out = x;
  return true;
}

bool md_parse_float(const char *s, double *out) {
  if (!*s || strchr(" \t\n\v\f\r", *s)) return false;
  char *end;
  locale_t c = c_locale();
  double x = strtod_l(s, &end, c);
  freelocale(c);
  if (*end || end == s) return false;
  // "1e999" is a mistake, "inf" is not; a result that underflows is the nearest there is.
  if (isinf(x) && !strchr("iI", s[*s == '-' || *s == '+'])) return false;
  *out = x;
  return true;
}

bool md_parse_bytes(const char *s, int64_t *out) {
  static const char units[] = "KMGTPE";
  char number[64];
  size_t len = strlen(s);
  if (len > 3 && !strcmp(s + len - 2, "iB")) len -= 2;
  const char *unit = len > 1 ? strchr(units, s[len - 1]) : NULL;
  if (!unit && s[len]) return false;
  if (!unit) return md_parse_int(s, out) && *out > 0;
  snprintf(number, sizeof number, "%.*s", (int)MD_MIN(len - 1, sizeof number - 1), s);
  double x;
  if (len > sizeof number || !md_parse_float(number, &x)) return false;
  x = ldexp(x, 10 * (int)(unit - units + 1));
  if (!(x >= 1 && x < 0x1p63)) return false;
  *out = (int64_t)x;
  return true;
}

char *md_float_text(double x, char buf[MD_FLOAT_CHARS]) {
  if (isnan(x)) return strcpy(buf, "nan");
  if (isinf(x)) return strcpy(buf, x < 0 ? "-inf" : "inf");
  // A decimal of up to 15 digits survives a normal double, so %.15g finds every shorter text too.
  for (int digits = fabs(x) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
    double back;
    print_float(buf, "%.*g", digits, x);
    if (md_parse_float(buf, &back) && back == x) break;
  }
  return buf;
}

char *md_bytes_text(double bytes, char buf[MD_FLOAT_CHARS]) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  int unit = 0;
  // 1023.95 would print as 1024.0
  while (unit + 1 < MD_COUNT(units) && fabs(bytes) >= (unit ? 1023.95 : 1023.5)) {
    bytes /= 1024;
    unit++;
  }
  print_float(buf, "%.*f", unit ? 1 : 0, bytes);
  size_t len = strlen(buf);
  snprintf(buf + len, MD_FLOAT_CHARS - len, " %s", units[unit]);
  return buf;
}

uint16_t md_bf16_from_float(float x) {
  uint32_t u;
  memcpy(&u, &x, sizeof u);
  if (isnan(x)) return (uint16_t)(u >> 16 | 0x40);  // quiet, so that the payload cannot become inf
  return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

float md_bf16_to_float(uint16_t x) {
  uint32_t u = (uint32_t)x << 16;
  float y;
  memcpy(&y, &u, sizeof y);
  return y;
}
