// SPDX-License-Identifier: Apache-2.0
// The parser is jansson; its types end here.
#include "base/json_tree.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

// As deep as the parser allows, which is 2048 levels.
static void copy_value(json_t *from, md_tree *to, md_arena *a) {
  switch (json_typeof(from)) {
  case JSON_OBJECT: {
    const char *key;
    json_t *value;
    to->kind = MD_JSON_MAP;
    to->item = MD_NEW_ARRAY(a, md_tree, json_object_size(from));
    json_object_foreach(from, key, value) {
      md_tree *item = &to->item[to->num++];
      item->key = md_strdup(a, key);
      copy_value(value, item, a);
    }
    break;
  }
  case JSON_ARRAY:
    to->kind = MD_JSON_LIST;
    to->num = (int)json_array_size(from);
    to->item = MD_NEW_ARRAY(a, md_tree, to->num);
    for (int i = 0; i < to->num; i++) copy_value(json_array_get(from, (size_t)i), &to->item[i], a);
    break;
  case JSON_STRING:
    to->kind = MD_JSON_STR;
    to->str = md_strdup(a, json_string_value(from));
    break;
  case JSON_INTEGER:
    to->kind = MD_JSON_INT;
    to->i = json_integer_value(from);
    to->x = (double)to->i;
    break;
  case JSON_REAL:
    to->kind = MD_JSON_REAL;
    to->x = json_real_value(from);
    break;
  case JSON_TRUE:
  case JSON_FALSE:
    to->kind = MD_JSON_BOOL;
    to->i = json_is_true(from);
    break;
  case JSON_NULL: break;
  }
}

const md_tree *md_json_read(const char *file, const char *text, size_t len, md_code code,
                            md_arena *a, md_diags *d) {
  json_error_t error;
  errno = 0;
  json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
  if (!root && errno == ENOMEM) md_out_of_memory(len);  // the error would blame the text
  if (!root) {
    char clean[sizeof error.text];
    md_place at = {.file = file, .line = error.line, .col = error.column};
    md_error(d, code, at, "not valid JSON: %s", md_clean(error.text, clean, sizeof clean));
    return NULL;
  }
  md_tree *tree = MD_NEW(a, md_tree);
  copy_value(root, tree, a);
  json_decref(root);
  return tree;
}

const md_tree *md_tree_get(const md_tree *map, const char *key) {
  for (int i = 0; map && map->kind == MD_JSON_MAP && i < map->num; i++)
    if (!strcmp(map->item[i].key, key)) return &map->item[i];
  return NULL;
}

const char *md_tree_str(const md_tree *t) { return t && t->kind == MD_JSON_STR ? t->str : NULL; }

bool md_tree_int(const md_tree *t, int64_t *out) {
  if (!t || t->kind != MD_JSON_INT) return false;
  *out = t->i;
  return true;
}

bool md_tree_float(const md_tree *t, double *out) {
  if (!t || (t->kind != MD_JSON_INT && t->kind != MD_JSON_REAL)) return false;
  *out = t->x;
  return true;
}

bool md_tree_true(const md_tree *t) { return t && t->kind == MD_JSON_BOOL && t->i; }
