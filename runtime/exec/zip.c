// SPDX-License-Identifier: Apache-2.0
// Zip archives, members stored or deflated: `unzip` and every other tool read them.
//
//   [local header | data] ...  [central header] ...  [end record]
//
// Reading is strict by construction: from what the central directory says of a member, both of its
// headers are made anew and must be in the file byte for byte, one after another without gaps; so
// must the end record. Thus every byte of the file is either such a header or covered by a CRC-32. A
// deflated stream must end where its member does, and give as many bytes as the headers say.
#include "runtime/exec/exec.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
  CENTRAL = 46,  // bytes of a central header without its name
  END = 22,      // bytes of the end record
  STORED = 0,
  DEFLATED = 8,
};
// Without ZIP64 all sizes and offsets are 32 bits.
#define MAX_BYTES ((size_t)UINT32_MAX)

typedef struct entry {
  char name[MD_MEMBER_CHARS + 1];
  uint32_t crc, bytes, offset;  // bytes: in the file
  uint32_t real_bytes;          // of the member
  uint32_t method;
  uint32_t stamp;  // DOS date << 16 | DOS time
} entry;

typedef struct record {
  unsigned char at[CENTRAL + MD_MEMBER_CHARS];
  size_t len;
} record;

static void put(record *r, uint32_t x, int bytes) {
  for (int i = 0; i < bytes; i++) r->at[r->len++] = (unsigned char)(x >> 8 * i);
}

static uint32_t get(const unsigned char *p, int bytes) {
  uint32_t x = 0;
  for (int i = 0; i < bytes; i++) x |= (uint32_t)p[i] << 8 * i;
  return x;
}

// What both headers say: needs version 2.0, no flags, method, stamp, CRC, sizes, lengths.
static void put_common(record *r, const entry *e) {
  put(r, 20, 2);
  put(r, 0, 2);
  put(r, e->method, 2);
  put(r, e->stamp, 4);
  put(r, e->crc, 4);
  put(r, e->bytes, 4);
  put(r, e->real_bytes, 4);
  put(r, (uint32_t)strlen(e->name), 2);
  put(r, 0, 2);  // no extra field
}

static void put_name(record *r, const entry *e) {
  memcpy(r->at + r->len, e->name, strlen(e->name));
  r->len += strlen(e->name);
}

static record local_header(const entry *e) {
  record r = {.len = 0};
  put(&r, 0x04034B50, 4);
  put_common(&r, e);
  put_name(&r, e);
  return r;
}

static record central_header(const entry *e) {
  record r = {.len = 0};
  put(&r, 0x02014B50, 4);
  put(&r, 3 << 8 | 20, 2);  // made on Unix
  put_common(&r, e);
  put(&r, 0, 2);  // no comment
  put(&r, 0, 2);  // one disk
  put(&r, 0, 2);
  put(&r, 0100644u << 16, 4);  // a regular file, rw-r--r--
  put(&r, e->offset, 4);
  put_name(&r, e);
  return r;
}

static record end_record(int num, size_t central_at, size_t central_bytes) {
  record r = {.len = 0};
  put(&r, 0x06054B50, 4);
  put(&r, 0, 4);
  put(&r, (uint32_t)num, 2);
  put(&r, (uint32_t)num, 2);
  put(&r, (uint32_t)central_bytes, 4);
  put(&r, (uint32_t)central_at, 4);
  put(&r, 0, 2);
  return r;
}

bool md_member_name_is_fine(const char *s, size_t len) {
  if (len == 0 || len > MD_MEMBER_CHARS || s[0] == '.') return false;
  for (size_t i = 0; i < len; i++)
    if (!s[i] || !strchr("abcdefghijklmnopqrstuvwxyz0123456789_.", s[i])) return false;
  return true;
}

// The same bytes from the same program: 1980-01-01 unless SOURCE_DATE_EPOCH says otherwise.
static uint32_t stamp_wanted(void) {
  const char *text = getenv("SOURCE_DATE_EPOCH");
  int64_t seconds;
  struct tm t = {.tm_year = 80, .tm_mday = 1};
  if (text && md_parse_int(text, &seconds)) {
    time_t when = (time_t)seconds;
    struct tm utc;
    if (gmtime_r(&when, &utc) && utc.tm_year >= 80 && utc.tm_year <= 207) t = utc;
  }
  uint32_t date = (uint32_t)((t.tm_year - 80) << 9 | (t.tm_mon + 1) << 5 | t.tm_mday);
  return date << 16 | (uint32_t)(t.tm_hour << 11 | t.tm_min << 5 | t.tm_sec / 2);
}

typedef struct reader {
  const char *path;
  const unsigned char *file;
  size_t bytes;
  md_diags *d;
} reader;

static int damaged(const reader *r, const char *what) {
  md_error(r->d, E0630, MD_IN_FILE(r->path), "artefact is damaged: %s", what);
  md_hint(r->d, "modistc compile ... -o %s", r->path);
  return -1;
}

static bool stands_at(const reader *r, size_t at, const record *want) {
  return at <= r->bytes && want->len <= r->bytes - at && !memcmp(r->file + at, want->at, want->len);
}

// The entry that the central header at `at` describes; false when there is none.
static bool read_entry(const reader *r, size_t at, size_t end, entry *e) {
  const unsigned char *p = r->file + at;
  if (end - at < CENTRAL) return false;
  size_t len = get(p + 28, 2);
  if (end - at < CENTRAL + len || !md_member_name_is_fine((const char *)p + CENTRAL, len))
    return false;
  *e = (entry){.method = get(p + 10, 2),
               .stamp = get(p + 12, 4),
               .crc = get(p + 16, 4),
               .bytes = get(p + 20, 4),
               .real_bytes = get(p + 24, 4),
               .offset = get(p + 42, 4)};
  if (e->method != DEFLATED && (e->method != STORED || e->real_bytes != e->bytes)) return false;
  memcpy(e->name, p + CENTRAL, len);
  record want = central_header(e);
  return stands_at(r, at, &want);
}

// The member whose bytes in the file begin at `data`. False: they are not what its header says.
static bool read_member(const reader *r, const entry *e, size_t data, md_arena *a, size_t *inflated,
                        md_member *m) {
  *m = (md_member){.name = md_strdup(a, e->name),
                   .data = r->file + data,
                   .bytes = e->real_bytes,
                   .deflate = e->method == DEFLATED,
                   .file_bytes = e->bytes};
  if (m->deflate) {
    if (e->real_bytes > (size_t)MD_MAX_INFLATED - *inflated) return false;
    *inflated += e->real_bytes;
    void *to = md_alloc(a, (size_t)e->real_bytes + 1);
    if (!md_inflate_bare(r->file + data, e->bytes, to, e->real_bytes)) return false;
    m->data = to;
  }
  return md_crc32(m->data, m->bytes) == e->crc;
}

static int compare_members(const void *a, const void *b) {
  return strcmp(((const md_member *)a)->name, ((const md_member *)b)->name);
}

static bool names_differ(const md_member *m, int num, md_arena *a) {
  md_member *sorted = MD_NEW_ARRAY(a, md_member, num);
  memcpy(sorted, m, sizeof *m * (size_t)num);
  qsort(sorted, (size_t)num, sizeof *sorted, compare_members);
  for (int i = 1; i < num; i++)
    if (!strcmp(sorted[i - 1].name, sorted[i].name)) return false;
  return true;
}

int md_zip_read(const char *path, const void *file, size_t bytes, md_arena *a, md_member **m,
                md_diags *d) {
  const reader *r = &(reader){path, file, bytes, d};
  if (bytes < 4 || memcmp(file, "PK\3\4", 4)) {
    md_error(d, E0630, MD_IN_FILE(path), "not an artefact: it is no zip archive");
    return -1;
  }
  if (bytes < END || bytes > MAX_BYTES) return damaged(r, "its size is impossible");
  const unsigned char *end = r->file + bytes - END;
  int num = (int)get(end + 10, 2);
  size_t central_bytes = get(end + 12, 4), central = get(end + 16, 4);
  record want = end_record(num, central, central_bytes);
  if (!stands_at(r, bytes - END, &want) || num < 1 || num > MD_MAX_MEMBERS ||
      central > bytes - END || central_bytes != bytes - END - central)
    return damaged(r, "its end is missing or does not fit");

  md_member *members = MD_NEW_ARRAY(a, md_member, num);
  size_t inflated = 0;
  size_t data = 0, header = central;  // where the next member and its central header must stand
  for (int i = 0; i < num; i++) {
    entry e;
    if (!read_entry(r, header, bytes - END, &e)) return damaged(r, "its directory cannot be read");
    header += CENTRAL + strlen(e.name);
    want = local_header(&e);
    if (e.offset != data || !stands_at(r, data, &want) ||
        e.bytes > central - MD_MIN(central, data + want.len))
      return damaged(r, "a member is not where its directory says");
    data += want.len;
    if (!read_member(r, &e, data, a, &inflated, &members[i]))
      return damaged(r, "the checksum of a member differs");
    data += e.bytes;
  }
  if (data != central || header != bytes - END)
    return damaged(r, "it has bytes that nothing describes");
  if (!names_differ(members, num, a)) return damaged(r, "two members have one name");
  *m = members;
  return num;
}

// The bytes of a member in the file, of entry e; what is not smaller deflated is stored.
static void put_member(const md_member *m, entry *e, md_text *to) {
  e->real_bytes = e->bytes = (uint32_t)m->bytes;
  e->crc = md_crc32(m->data, m->bytes);
  char *packed = m->deflate && m->bytes ? malloc(m->bytes) : NULL;
  int64_t len =
      packed ? md_deflate_bare(m->data, (int64_t)m->bytes, packed, (int64_t)m->bytes - 1) : -1;
  if (len >= 0) {
    e->method = DEFLATED;
    e->bytes = (uint32_t)len;
  }
  record r = local_header(e);
  md_put_bytes(to, (const char *)r.at, r.len);
  md_put_bytes(to, len >= 0 ? packed : m->data, e->bytes);
  free(packed);
}

void md_zip_write(const md_member *m, int num, md_text *to) {
  MD_ASSERT(num > 0 && num <= MD_MAX_MEMBERS && to->len == 0, "zip of %d members", num);
  entry *e = md_calloc((size_t)num, sizeof *e);
  uint32_t stamp = stamp_wanted();
  for (int i = 0; i < num; i++) {
    MD_ASSERT(md_member_name_is_fine(m[i].name, strlen(m[i].name)), "zip member '%s'", m[i].name);
    MD_ASSERT(m[i].bytes < MAX_BYTES / 2 - to->len, "zip of %zu bytes", to->len + m[i].bytes);
    e[i] = (entry){.stamp = stamp, .offset = (uint32_t)to->len};
    memcpy(e[i].name, m[i].name, strlen(m[i].name));
    put_member(&m[i], &e[i], to);
  }
  size_t central = to->len;
  for (int i = 0; i < num; i++) {
    record r = central_header(&e[i]);
    md_put_bytes(to, (const char *)r.at, r.len);
  }
  record r = end_record(num, central, to->len - central);
  md_put_bytes(to, (const char *)r.at, r.len);
  free(e);
}
