// SPDX-License-Identifier: Apache-2.0
// Is an array what a file says? Differences count in parts of the largest expected value: errors of
// rounding come from the large terms of a sum, wherever in the array it lands. What is not finite has no
// difference, and is as expected only where it is the same. Integers are not rounded: they must be equal.
#include "runtime/exec/exec.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

// "[2,0,7]", the place of element i; nothing for the only element of an array.
static void place_text(const md_spec *s, int64_t i, char *buf, size_t size) {
  int64_t index[MD_SPEC_RANK];
  for (int k = s->rank - 1; k >= 0; i /= s->dim[k--]) index[k] = i % s->dim[k];
  size_t n = 0;
  buf[0] = '\0';
  for (int k = 0; k < s->rank && n < size && md_spec_elements(s) > 1; k++)
    n += (size_t)snprintf(buf + n, size - n, "%c%" PRId64 "%s", k ? ',' : '[', index[k],
                          k + 1 == s->rank ? "]" : "");
}

// Of the finite elements: one infinity must not allow everything.
static double largest(const md_spec *s, const void *at) {
  double most = 0;
  for (int64_t i = 0; i < md_spec_elements(s); i++) {
    double x = fabs(md_element_load(s->dtype, at, i));
    if (isfinite(x)) most = fmax(most, x);
  }
  return most;
}

static bool is_same(double x, double y) { return x == y || (isnan(x) && isnan(y)); }

bool md_npy_expect(const char *path, const md_spec *s, const void *at, double tolerance,
                   md_diags *d) {
  void *want = md_malloc((size_t)MD_MAX(s->bytes, 1));
  if (!md_npy_read(path, s, want, d)) {
    free(want);
    return false;
  }
  if (!md_dtype_is_float(s->dtype)) tolerance = 0;
  double size = largest(s, want), allowed = tolerance * size, worst = 0;
  int64_t where = -1, num_off = 0;
  for (int64_t i = 0; i < md_spec_elements(s); i++) {
    double x = md_element_load(s->dtype, at, i), y = md_element_load(s->dtype, want, i);
    double off = fabs(x - y);
    if (is_same(x, y) || (isfinite(off) && off <= allowed)) continue;
    num_off++;
    bool is_worse = where < 0 || off > worst || (isnan(off) && !isnan(worst));
    if (!is_worse) continue;
    where = i;
    worst = off;
  }
  if (where >= 0) {
    char place[128], name[256];
    place_text(s, where, place, sizeof place);
    md_error(d, E0701, MD_NOWHERE,
             "%s%s is %.9g, but %.9g is expected: off by %.3g, allowed are %.3g",
             md_clean(s->name, name, sizeof name), place, md_element_load(s->dtype, at, where),
             md_element_load(s->dtype, want, where), worst, allowed);
    md_note(d, MD_IN_FILE(path),
            "%" PRId64 " of %" PRId64 " elements differ by more than %.3g of the largest, %.6g",
            num_off, md_spec_elements(s), tolerance, size);
  }
  free(want);
  return where < 0;
}
