// SPDX-License-Identifier: Apache-2.0
// A folder for the files of one test.
#ifndef TESTS_UNIT_FOLDER_H
#define TESTS_UNIT_FOLDER_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[40];

// Eight paths at a time.
static inline const char *in_folder(const char *name) {
  static char path[8][128];
  static int at;
  char *p = path[at++ % 8];
  snprintf(p, sizeof path[0], "%s/%s", folder, name);
  return p;
}

static void make_empty_folder(void) {
  strcpy(folder, "/tmp/modist_test_XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void remove_folder(void) {
  char command[64];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  ck_assert_int_eq(system(command), 0);
}

#endif
