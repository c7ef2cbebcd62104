// SPDX-License-Identifier: Apache-2.0
// A text that is wrong in one place.
#ifndef TESTS_UNIT_EDITED_H
#define TESTS_UNIT_EDITED_H

#include "base/arena.h"

#include <check.h>
#include <string.h>

// `text`, in which `from` stands, with `to` in its place; in `a`.
static const char *edited(md_arena *a, const char *text, const char *from, const char *to) {
  const char *at = strstr(text, from);
  ck_assert_msg(at != NULL, "'%s' is not in %s", from, text);
  return md_format(a, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

#endif
