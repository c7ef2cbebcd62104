// SPDX-License-Identifier: Apache-2.0
// JSON text as a tree in an arena. The parser behind it is strict: UTF-8 only, no key twice in one
// object, nothing after the value, integers within 64 bits.
#ifndef BASE_JSON_TREE_H
#define BASE_JSON_TREE_H

#include "base/diag.h"

typedef enum md_json_kind {
  MD_JSON_NULL,
  MD_JSON_BOOL,
  MD_JSON_INT,
  MD_JSON_REAL,
  MD_JSON_STR,
  MD_JSON_LIST,
  MD_JSON_MAP
} md_json_kind;

typedef struct md_tree md_tree;
struct md_tree {
  md_json_kind kind;
  const char *key;  // inside a map
  const char *str;  // MD_JSON_STR
  int64_t i;        // MD_JSON_INT; MD_JSON_BOOL: 0 or 1
  double x;         // MD_JSON_INT and MD_JSON_REAL
  int num;          // items of a list or map, in the order of the text
  md_tree *item;
};

// NULL: reported as `code` with the line in `file`.
const md_tree *md_json_read(const char *file, const char *text, size_t len, md_code code,
                            md_arena *a, md_diags *d);

// All of these take NULL, so that a path into a tree needs one check at its end.
const md_tree *md_tree_get(const md_tree *map, const char *key);  // NULL: no such key, or no map
const char *md_tree_str(const md_tree *t);                        // NULL: not a string
bool md_tree_int(const md_tree *t, int64_t *out);                 // false: not an integer
bool md_tree_float(const md_tree *t, double *out);                // false: not a number
bool md_tree_true(const md_tree *t);                              // true: the value true

#endif
