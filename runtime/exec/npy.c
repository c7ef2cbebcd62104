// SPDX-License-Identifier: Apache-2.0
// NumPy's .npy: magic, version, length of the header, the header as a Python dict, the elements.
//
//   \x93NUMPY 1 0 <118, 2 bytes> {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } <data>
#include "runtime/exec/exec.h"

#include "base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
enum { MAGIC_LEN = 6, ALIGN = 64 };
#define MAX_FILE ((int64_t)1 << 40)

// clang-format off
static const char *const descriptions[MD_NUM_DTYPES] = {
  [MD_F32] = "<f4", [MD_BF16] = "<f4", [MD_F64] = "<f8", [MD_I32] = "<i4",
  [MD_I64] = "<i8", [MD_U8] = "|u1",   [MD_BOOL] = "|b1",
};
// clang-format on

// What lies in the file: NumPy has no bf16.
static md_dtype stored_type(md_dtype t) { return t == MD_BF16 ? MD_F32 : t; }

typedef struct header {
  char descr[16];
  bool is_fortran;
  int rank;
  int64_t dim[MD_SPEC_RANK];
} header;

static const char *skip(const char *p) { return p + strspn(p, " \n"); }

// Past `word`, or NULL (also for a NULL p, so that calls can be chained).
static const char *accept(const char *p, const char *word) {
  if (!p) return NULL;
  p = skip(p);
  return strncmp(p, word, strlen(word)) ? NULL : p + strlen(word);
}

static const char *parse_shape(const char *p, header *h) {
  p = accept(p, "(");
  h->rank = 0;
  while (p && *(p = skip(p)) != ')') {
    char *end;
    long long n = strtoll(p, &end, 10);
    if (end == p || n < 0 || h->rank == MD_SPEC_RANK) return NULL;
    h->dim[h->rank++] = n;
    p = skip(end);
    if (*p == ',') p++;
    else if (*p != ')') return NULL;
  }
  return accept(p, ")");
}

static const char *parse_entry(const char *p, header *h) {
  const char *value = accept(accept(p, "'descr'"), ":");
  if (value) {
    value = accept(value, "'");
    const char *end = value ? strchr(value, '\'') : NULL;
    if (!end || (size_t)(end - value) >= sizeof h->descr) return NULL;
    memcpy(h->descr, value, (size_t)(end - value));
    return end + 1;
  }
  value = accept(accept(p, "'fortran_order'"), ":");
  if (value) {
    h->is_fortran = accept(value, "True") != NULL;
    return accept(value, h->is_fortran ? "True" : "False");
  }
  return parse_shape(accept(accept(p, "'shape'"), ":"), h);
}

static bool parse_header(const char *p, header *h) {
  *h = (header){.rank = -1};
  p = accept(p, "{");
  while (p && !accept(p, "}")) {
    p = parse_entry(p, h);
    if (p && !accept(p, "}")) p = accept(p, ",");
  }
  return p && *skip(accept(p, "}")) == '\0' && h->descr[0] && h->rank >= 0;
}

static bool same_shape(const header *h, const md_spec *s) {
  bool same = h->rank == s->rank;
  for (int i = 0; same && i < s->rank; i++) same = h->dim[i] == s->dim[i];
  return same;
}

static void shape_text(const header *h, char *buf, size_t size) {
  size_t n = (size_t)snprintf(buf, size, "[");
  for (int i = 0; i < h->rank && n < size; i++)
    n += (size_t)snprintf(buf + n, size - n, i ? ",%" PRId64 : "%" PRId64, h->dim[i]);
  if (n < size) snprintf(buf + n, size - n, "]");
}

// Length of what stands before the elements, and the header as text; 0: no npy file.
static size_t split(char *file, size_t bytes, char **text) {
  if (bytes < MAGIC_LEN + 4 || memcmp(file, MAGIC, MAGIC_LEN)) return 0;
  const unsigned char *u = (const unsigned char *)file;
  size_t len = u[8] | (size_t)u[9] << 8, start = MAGIC_LEN + 4;
  if (u[6] == 2 || u[6] == 3) {
    if (bytes < MAGIC_LEN + 6) return 0;
    len |= (size_t)u[10] << 16 | (size_t)u[11] << 24;
    start += 2;
  } else if (u[6] != 1) {
    return 0;
  }
  if (len == 0 || len > bytes - start || file[start + len - 1] != '\n') return 0;
  file[start + len - 1] = '\0';
  *text = file + start;
  return start + len;
}

bool md_npy_shape(const char *path, md_spec *s, md_diags *d) {
  char *file, *text = NULL;
  size_t bytes;
  header h;
  if (!md_file_read(path, MAX_FILE, E0640, d, &file, &bytes)) return false;
  size_t start = split(file, bytes, &text);
  bool ok = start && parse_header(text, &h);
  int type = 0;
  while (ok && type < MD_NUM_DTYPES &&
         (!descriptions[type] || strcmp(h.descr, descriptions[type]) != 0))
    type++;
  int64_t need = ok && type < MD_NUM_DTYPES ? md_dtype_size((md_dtype)type) : 0;
  for (int i = 0; ok && i < h.rank; i++) ok = md_mul_size(need, h.dim[i], &need);
  if (!ok || type == MD_NUM_DTYPES || need != (int64_t)(bytes - start)) {
    ok = md_error(d, E0640, MD_IN_FILE(path), "not an npy file that can be read here");
  } else {
    *s = (md_spec){.dtype = (md_dtype)type, .rank = h.rank, .bytes = need};
    memcpy(s->dim, h.dim, sizeof s->dim);
  }
  free(file);
  return ok;
}

bool md_npy_read(const char *path, const md_spec *s, void *to, md_diags *d) {
  char *file, *text = NULL, found[128], want[MD_SPEC_CHARS];
  size_t bytes;
  header h;
  md_place at = MD_IN_FILE(path);
  if (!md_file_read(path, MAX_FILE, E0640, d, &file, &bytes)) return false;
  size_t start = split(file, bytes, &text);
  int64_t need = md_spec_elements(s) * md_dtype_size(stored_type(s->dtype));
  bool ok = false;
  if (start == 0 || !parse_header(text, &h)) {
    md_error(d, E0640, at, "not an npy file: its header cannot be read");
  } else if (h.is_fortran) {
    md_error(d, E0640, at, "array is in Fortran order, but C order is needed");
    md_hint(d, "numpy.save(path, numpy.ascontiguousarray(x))");
  } else if (strcmp(h.descr, descriptions[s->dtype]) || !same_shape(&h, s)) {
    char clean[sizeof h.descr];
    shape_text(&h, found, sizeof found);
    md_error(d, E0640, at, "array is '%s' %s, but '%s' for %s is needed by '%s'",
             md_clean(h.descr, clean, sizeof clean), found, descriptions[s->dtype],
             md_spec_text(s, want), s->name);
  } else if ((int64_t)(bytes - start) != need) {
    md_error(d, E0640, at, "file holds %zu bytes of elements, but its shape needs %" PRId64,
             bytes - start, need);
  } else {
    ok = true;
  }
  if (ok && s->dtype == MD_BF16) {
    for (int64_t i = 0; i < md_spec_elements(s); i++) {
      float x;
      memcpy(&x, file + start + i * (int64_t)sizeof x, sizeof x);
      md_element_store(MD_BF16, to, i, (double)x);
    }
  } else if (ok) {
    memcpy(to, file + start, (size_t)need);
  }
  if (ok && s->dtype == MD_BOOL)  // kernels rely on 0 and 1
    for (int64_t i = 0; i < need; i++) ((uint8_t *)to)[i] = ((uint8_t *)to)[i] != 0;
  free(file);
  return ok;
}

bool md_npy_write(const char *path, const md_spec *s, const void *from, md_diags *d) {
  md_text dict = {0}, file = {0};
  md_put(&dict, "{'descr': '%s', 'fortran_order': False, 'shape': (", descriptions[s->dtype]);
  for (int i = 0; i < s->rank; i++)
    md_put(&dict, s->rank == 1 ? "%lld," : i ? ", %lld" : "%lld", (long long)s->dim[i]);
  md_put(&dict, "), }");
  size_t start = (size_t)md_round_up((int64_t)(MAGIC_LEN + 4 + dict.len + 1), ALIGN);
  int len = (int)(start - MAGIC_LEN - 4);
  md_put_bytes(&file, MAGIC "\1\0", MAGIC_LEN + 2);
  md_put_bytes(&file, (const char[]){(char)(len & 255), (char)(len >> 8)}, 2);
  md_put(&file, "%-*s\n", len - 1, dict.s);
  if (s->dtype == MD_BF16) {
    for (int64_t i = 0; i < md_spec_elements(s); i++) {
      float x = (float)md_element_load(MD_BF16, from, i);
      md_put_bytes(&file, (const char *)&x, sizeof x);
    }
  } else {
    md_put_bytes(&file, from, (size_t)s->bytes);
  }
  bool ok = md_file_save(path, file.s, file.len, d);
  md_text_free(&dict);
  md_text_free(&file);
  return ok;
}
