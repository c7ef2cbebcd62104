// SPDX-License-Identifier: Apache-2.0
// Reader and writer of safetensors files.
#include "base/safetensors.h"

#include "base/file.h"
#include "base/json_tree.h"
#include "base/log.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAX_HEADER ((size_t)100 * 1000 * 1000)
#define MAX_FILE ((int64_t)1 << 40)
enum { SIZE_BYTES = 8, ALIGNMENT = 8, SEAL_DIGITS = 32 };

static const struct {
  const char *name;
  md_dtype dtype;
  int size;
} types[] = {
    {"F64", MD_F64, 8},   {"I64", MD_I64, 8}, {"F32", MD_F32, 4},   {"I32", MD_I32, 4},
    {"BF16", MD_BF16, 2}, {"U8", MD_U8, 1},   {"BOOL", MD_BOOL, 1},
};

// What the reader needs for its messages.
typedef struct reader {
  const char *path;
  md_diags *d;
} reader;

static bool damaged(const reader *r, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static bool damaged(const reader *r, const char *name, const char *fmt, ...) {
  char text[300], clean[128];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  if (!name) return md_error(r->d, E0601, MD_IN_FILE(r->path), "%s", text);
  return md_error(r->d, E0601, MD_IN_FILE(r->path), "tensor '%s': %s",
                  md_clean(name, clean, sizeof clean), text);
}

// Header bytes as a number; the file is little-endian whatever the machine.
static uint64_t header_size(const char *file) {
  uint64_t n = 0;
  for (int i = SIZE_BYTES - 1; i >= 0; i--) n = n << 8 | (unsigned char)file[i];
  return n;
}

static bool read_dtype(const reader *r, const md_tree *row, md_st_tensor *t, int *size) {
  const char *name = md_tree_str(md_tree_get(row, "dtype"));
  char clean[32];
  if (!name) return damaged(r, row->key, "has no dtype");
  for (int i = 0; i < MD_COUNT(types); i++) {
    if (strcmp(types[i].name, name) != 0) continue;
    t->dtype = types[i].dtype;
    *size = types[i].size;
    return true;
  }
  damaged(r, row->key, "element type %s is not one of F64 F32 BF16 I64 I32 U8 BOOL",
          md_clean(name, clean, sizeof clean));
  md_hint(r->d, "convert it before, for example to F32");
  return false;
}

static bool read_shape(const reader *r, const md_tree *row, md_st_tensor *t, int64_t *elements) {
  const md_tree *shape = md_tree_get(row, "shape");
  if (!shape || shape->kind != MD_JSON_LIST) return damaged(r, row->key, "has no shape");
  if (shape->num > MD_ST_RANK)
    return damaged(r, row->key, "has %d axes; at most %d are read here", shape->num, MD_ST_RANK);
  t->rank = shape->num;
  *elements = 1;
  for (int i = 0; i < t->rank; i++) {
    if (!md_tree_int(&shape->item[i], &t->dim[i]) || t->dim[i] < 0)
      return damaged(r, row->key, "axis %d is no size", i);
    if (!md_mul_size(*elements, t->dim[i], elements))
      return damaged(r, row->key, "is too large to be true");
  }
  return true;
}

// Sets data to an offset behind the header for now; bytes are checked against the shape.
static bool read_tensor(const reader *r, const md_tree *row, size_t data_bytes, md_st_tensor *t,
                        int64_t *first) {
  int size = 0;
  int64_t elements = 0, want, last;
  if (row->kind != MD_JSON_MAP) return damaged(r, row->key, "is not described by an object");
  for (int i = 0; i < row->num; i++) {
    const char *key = row->item[i].key;
    if (strcmp(key, "dtype") != 0 && strcmp(key, "shape") != 0 && strcmp(key, "data_offsets") != 0)
      return damaged(r, row->key, "has a key other than dtype, shape, data_offsets");
  }
  t->name = row->key;
  if (!read_dtype(r, row, t, &size) || !read_shape(r, row, t, &elements)) return false;
  const md_tree *at = md_tree_get(row, "data_offsets");
  if (!at || at->kind != MD_JSON_LIST || at->num != 2 || !md_tree_int(&at->item[0], first) ||
      !md_tree_int(&at->item[1], &last))
    return damaged(r, row->key, "has no data_offsets");
  if (*first < 0 || last < *first || (uint64_t)last > data_bytes)
    return damaged(r, row->key, "lies at %lld .. %lld, outside of the %zu bytes of data",
                   (long long)*first, (long long)last, data_bytes);
  if (!md_mul_size(elements, size, &want) || want != last - *first)
    return damaged(r, row->key, "has %lld bytes, which its shape and type do not need",
                   (long long)(last - *first));
  t->bytes = (size_t)want;
  return true;
}

static int by_place(const void *x, const void *y) {
  const md_st_tensor *a = x, *b = y;
  if (a->data != b->data) return (const char *)a->data < (const char *)b->data ? -1 : 1;
  return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int by_name(const void *x, const void *y) {
  return strcmp(((const md_st_tensor *)x)->name, ((const md_st_tensor *)y)->name);
}

// In the order of their places, each tensor starts where the last one ended.
static bool check_cover(const reader *r, md_safetensors *s, const char *data, size_t data_bytes) {
  qsort(s->tensor, (size_t)s->num, sizeof *s->tensor, by_place);
  const char *at = data;
  for (int i = 0; i < s->num; i++) {
    const md_st_tensor *t = &s->tensor[i];
    if ((const char *)t->data < at) return damaged(r, t->name, "overlaps the tensor before it");
    if ((const char *)t->data > at) return damaged(r, t->name, "leaves a hole before it");
    at += t->bytes;
  }
  if (at != data + data_bytes)
    return damaged(r, NULL, "%zu bytes at the end belong to no tensor",
                   (size_t)(data + data_bytes - at));
  return true;
}

static bool read_meta(const reader *r, const md_tree *map, md_safetensors *s) {
  if (map->kind != MD_JSON_MAP) return damaged(r, NULL, "__metadata__ is not an object");
  s->meta = MD_NEW_ARRAY(s->arena, md_st_meta, map->num);
  for (int i = 0; i < map->num; i++) {
    const char *value = md_tree_str(&map->item[i]);
    if (!value) return damaged(r, NULL, "__metadata__ holds something other than texts");
    s->meta[s->num_meta++] = (md_st_meta){map->item[i].key, value};
  }
  return true;
}

static bool read_header(const reader *r, md_safetensors *s, size_t len) {
  if (len < SIZE_BYTES) return damaged(r, NULL, "is too short for a safetensors file");
  uint64_t header = header_size(s->file);
  if (header > MAX_HEADER || header > len - SIZE_BYTES)
    return damaged(r, NULL, "is not a safetensors file, or is cut off: a header of %llu bytes",
                   (unsigned long long)header);
  const char *text = s->file + SIZE_BYTES, *data = text + header;
  size_t data_bytes = len - SIZE_BYTES - (size_t)header;
  const md_tree *root = md_json_read(r->path, text, (size_t)header, E0601, s->arena, r->d);
  if (!root) return false;
  if (root->kind != MD_JSON_MAP) return damaged(r, NULL, "its header is not a JSON object");
  s->tensor = MD_NEW_ARRAY(s->arena, md_st_tensor, root->num);
  for (int i = 0; i < root->num; i++) {
    const md_tree *row = &root->item[i];
    if (!strcmp(row->key, "__metadata__")) {
      if (!read_meta(r, row, s)) return false;
      continue;
    }
    md_st_tensor *t = &s->tensor[s->num];
    int64_t first = 0;
    if (!read_tensor(r, row, data_bytes, t, &first)) return false;
    t->data = data + first;
    s->num++;
  }
  if (!check_cover(r, s, data, data_bytes)) return false;
  qsort(s->tensor, (size_t)s->num, sizeof *s->tensor, by_name);
  return true;
}

md_safetensors *md_safetensors_read(const char *path, md_diags *d) {
  reader r = {.path = path, .d = d};
  size_t len;
  char *file;
  if (!md_file_read(path, MAX_FILE, E0601, d, &file, &len)) return NULL;
  md_log(MD_LOG_CKPT, MD_LEVEL_INFO, "read %zu bytes of %s", len, path);
  md_arena *a = md_arena_create();
  md_safetensors *s = MD_NEW(a, md_safetensors);
  s->arena = a;
  s->file = file;
  s->file_bytes = len;
  if (read_header(&r, s, len)) return s;
  md_safetensors_destroy(s);
  return NULL;
}

void md_safetensors_destroy(md_safetensors *s) {
  if (!s) return;
  free(s->file);
  md_arena_destroy(s->arena);  // and s with it
}

const md_st_tensor *md_safetensors_find(const md_safetensors *s, const char *name) {
  md_st_tensor key = {.name = name};
  if (!s->num) return NULL;
  return bsearch(&key, s->tensor, (size_t)s->num, sizeof key, by_name);
}

const char *md_safetensors_meta(const md_safetensors *s, const char *key) {
  for (int i = 0; i < s->num_meta; i++)
    if (strcmp(s->meta[i].key, key) == 0) return s->meta[i].value;
  return NULL;
}

bool md_safetensors_sealed(const md_safetensors *s, const char *key) {
  const char *seal = md_safetensors_meta(s, key);
  if (!seal || strlen(seal) != SEAL_DIGITS) return false;
  // Within a text of the header each quote has a backslash before it, so this is the key itself.
  md_text start = {0};
  md_put(&start, "\"%s\":\"", key);
  const char *header = s->file + SIZE_BYTES, *end = s->file + s->file_bytes;
  const char *digits = memmem(header, (size_t)header_size(s->file), start.s, start.len);
  if (digits) digits += start.len;
  md_text_free(&start);
  if (!digits || end - digits < SEAL_DIGITS) return false;
  md_hasher *h = md_hasher_create();
  md_hasher_add(h, s->file, (size_t)(digits - s->file));
  md_hasher_add(h, digits + SEAL_DIGITS, (size_t)(end - digits) - SEAL_DIGITS);
  char text[SEAL_DIGITS + 1];
  md_digest_text(md_hasher_end(h), text);
  return memcmp(text, digits, SEAL_DIGITS) == 0 && strcmp(text, seal) == 0;
}

// Returns the place of the seal's digits in j->out; 0: there is none.
static size_t put_header(md_json *j, const md_st_tensor *tensor, int num, const md_st_meta *meta,
                         int num_meta) {
  size_t seal = 0;
  j->compact = true;
  md_json_begin(j, '{');
  if (num_meta) {
    md_json_key(j, "__metadata__");
    md_json_begin(j, '{');
    for (int i = 0; i < num_meta; i++) {
      md_json_key(j, meta[i].key);
      md_json_str(j, meta[i].value ? meta[i].value : "00000000000000000000000000000000");
      if (!meta[i].value) seal = j->out.len - SEAL_DIGITS - 1;
    }
    md_json_end(j, '}');
  }
  int64_t at = 0;
  for (int k = 0; k < MD_COUNT(types); k++) {
    for (int i = 0; i < num; i++) {
      if (tensor[i].dtype != types[k].dtype) continue;
      md_json_key(j, tensor[i].name);
      md_json_begin(j, '{');
      md_json_key(j, "dtype");
      md_json_str(j, types[k].name);
      md_json_key(j, "shape");
      md_json_begin(j, '[');
      for (int a = 0; a < tensor[i].rank; a++) md_json_int(j, tensor[i].dim[a]);
      md_json_end(j, ']');
      md_json_key(j, "data_offsets");
      md_json_begin(j, '[');
      md_json_int(j, at);
      md_json_int(j, at += (int64_t)tensor[i].bytes);
      md_json_end(j, ']');
      md_json_end(j, '}');
    }
  }
  md_json_end(j, '}');
  while (j->out.len % ALIGNMENT != 0) md_put_bytes(&j->out, " ", 1);
  return seal;
}

// What follows the header, in the order of put_header.
static void each_data(const md_st_tensor *tensor, int num,
                      void (*take)(void *to, const void *data, size_t bytes), void *to) {
  for (int k = 0; k < MD_COUNT(types); k++)
    for (int i = 0; i < num; i++)
      if (tensor[i].dtype == types[k].dtype) take(to, tensor[i].data, tensor[i].bytes);
}

static void hash_data(void *to, const void *data, size_t bytes) { md_hasher_add(to, data, bytes); }

static void write_data(void *to, const void *data, size_t bytes) { md_file_write(to, data, bytes); }

bool md_safetensors_write(const char *path, const md_st_tensor *tensor, int num,
                          const md_st_meta *meta, int num_meta, md_diags *d) {
  md_log(MD_LOG_CKPT, MD_LEVEL_INFO, "writing %d tensors to %s", num, path);
  md_file_writer *w = md_file_create(path, d);
  if (!w) return false;
  md_json j = {0};
  size_t seal = put_header(&j, tensor, num, meta, num_meta);
  unsigned char size[SIZE_BYTES];
  for (int i = 0; i < SIZE_BYTES; i++) size[i] = (unsigned char)((uint64_t)j.out.len >> (8 * i));
  if (seal) {
    md_hasher *h = md_hasher_create();
    md_hasher_add(h, size, sizeof size);
    md_hasher_add(h, j.out.s, seal);
    md_hasher_add(h, j.out.s + seal + SEAL_DIGITS, j.out.len - seal - SEAL_DIGITS);
    each_data(tensor, num, hash_data, h);
    char digits[SEAL_DIGITS + 1];
    memcpy(j.out.s + seal, md_digest_text(md_hasher_end(h), digits), SEAL_DIGITS);
  }
  md_file_write(w, size, sizeof size);
  md_file_write(w, j.out.s, j.out.len);
  each_data(tensor, num, write_data, w);
  md_text_free(&j.out);
  return md_file_commit(w);
}
