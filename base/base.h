// SPDX-License-Identifier: Apache-2.0
// The few things that every folder needs: assertions, checked sizes, numbers as text, growable
// arrays, text buffers, files, the counter-based hash.
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include "base/arena.h"
#include "modist/dtype.h"
#include "modist/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

// --- assert.c: our own mistakes. On in release; prints place and text, runs the hook, aborts.
#define MD_ASSERT(cond, ...) \
  ((cond) ? (void)0 : md_assert_failed(__FILE__, __LINE__, #cond, __VA_ARGS__))
_Noreturn void md_assert_failed(const char *file, int line, const char *cond, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
// Called once before abort, e.g. to save the graph at hand. NULL removes it.
void md_assert_hook(void (*hook)(void *), void *ctx);

#define MD_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define MD_MIN(a, b) ((a) < (b) ? (a) : (b))
#define MD_MAX(a, b) ((a) > (b) ? (a) : (b))

// --- num.c: checked arithmetic. False on overflow or on a negative operand; *out is then untouched.
bool md_mul_size(int64_t a, int64_t b, int64_t *out);
bool md_add_size(int64_t a, int64_t b, int64_t *out);
int64_t md_round_up(int64_t x, int64_t to);  // to > 0
int64_t md_ceil_div(int64_t x, int64_t by);  // x >= 0, by > 0

// Numbers as text, whatever the locale. Parsing takes the whole string or fails.
bool md_parse_int(const char *s, int64_t *out);
bool md_parse_float(const char *s, double *out);
// "1400M", "1.4G" or "1.4GiB", "1048576"; the units are powers of 1024. At least one byte.
bool md_parse_bytes(const char *s, int64_t *out);
// Shortest decimal text that reads back to the same double ("0.1", "1e-05", "inf"). Returns buf.
#define MD_FLOAT_CHARS 32
char *md_float_text(double x, char buf[MD_FLOAT_CHARS]);
// "1.5 GiB", "312 B". Returns buf.
char *md_bytes_text(double bytes, char buf[MD_FLOAT_CHARS]);

// A region that makes a value once more, to save memory, has the name of the first with this behind.
#define MD_AGAIN ".again"

uint16_t md_bf16_from_float(float x);  // round to nearest even; NaN stays NaN
float md_bf16_to_float(uint16_t x);

// --- dtype.c: element types
const char *md_dtype_name(md_dtype d);     // "f32"
md_dtype md_dtype_from(const char *name);  // MD_NO_DTYPE when unknown
int md_dtype_size(md_dtype d);             // bytes of an element; 0: there is no such type
bool md_dtype_is_float(md_dtype d);

// --- hash.c
// Counter-based random numbers (the generator of the golden sets): value i of stream `key`.
uint64_t md_hash_key(const char *name, uint64_t seed);
uint64_t md_hash_at(uint64_t key, uint64_t i);    // 64 well mixed bits
double md_hash_unit(uint64_t key, uint64_t i);    // [-1, 1) in steps of 2^-23
double md_hash_01(uint64_t key, uint64_t i);      // [0, 1) in steps of 2^-24
double md_hash_normal(uint64_t key, uint64_t i);  // N(0, 1), Box-Muller on two sub-counters
typedef struct md_digest {
  uint64_t lo, hi;
} md_digest;
md_digest md_digest_of(const void *data, size_t bytes);    // XXH3-128
bool md_digest_of_file(const char *path, md_digest *out);  // false: errno says why
char *md_digest_text(md_digest d, char buf[33]);           // 32 hex digits; returns buf
bool md_digest_parse(const char *text, md_digest *out);
// The same digest, of data that comes piece by piece.
typedef struct md_hasher md_hasher;
md_hasher *md_hasher_create(void);
void md_hasher_add(md_hasher *h, const void *data, size_t bytes);
md_digest md_hasher_end(md_hasher *h);               // frees h
uint32_t md_crc32c(const void *data, size_t bytes);  // Castagnoli's polynomial, as TFRecord has it

// --- deflate.c
uint32_t md_crc32(const void *data, size_t bytes);
int64_t md_deflate_bound(int64_t bytes);
// Bytes of the zlib stream; room is at least md_deflate_bound(bytes).
int64_t md_deflate(const void *data, int64_t bytes, void *to, int64_t room);
bool md_inflate(const void *data, int64_t bytes, void *to, int64_t want);  // exactly `want` bytes
// The same without header and checksum, as zip archives have it, of less than 4 GiB. -1: no room.
int64_t md_deflate_bare(const void *data, int64_t bytes, void *to, int64_t room);
bool md_inflate_bare(const void *data, int64_t bytes, void *to, int64_t want);

// --- vec.c: a growable array: `T *v; int num_v, cap_v;`. MD_PUSH grows it (malloc family).
#define MD_PUSH(v, num, cap, item)                                             \
  ((num) == (cap) ? (void)((v) = md_grow((v), &(cap), sizeof *(v))) : (void)0, \
   (void)((v)[(num)++] = (item)))
void *md_grow(void *data, int *cap, size_t size);

// --- text.c: a text buffer that grows.
typedef struct md_text {
  char *s;
  size_t len, cap;
} md_text;  // zero is empty; s is NUL-terminated
void md_put(md_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void md_put_bytes(md_text *t, const char *s, size_t len);
void md_put_base64(md_text *t, const void *data, size_t len);
void md_text_free(md_text *t);
// Length of the valid UTF-8 sequence at s, and its code point; 0 where there is none.
int md_utf8(const char *s, uint32_t *code);
// The nearest of `names` for a did-you-mean, or NULL when nothing is near.
const char *md_nearest(const char *name, const char *const *names, int num_names);
// Control characters and terminal escapes become '?'; for text that came from a file. Returns buf.
char *md_clean(const char *s, char *buf, size_t size);

// --- json.c: a streaming writer. Commas, quotes and escapes are its business.
typedef struct md_json {
  md_text out;
  int depth;
  bool need_comma, after_key, compact;
} md_json;
void md_json_begin(md_json *j, char bracket);  // '{' or '['
void md_json_end(md_json *j, char bracket);    // '}' or ']'
void md_json_key(md_json *j, const char *key);
void md_json_str(md_json *j, const char *s);
void md_json_int(md_json *j, int64_t x);
void md_json_float(md_json *j, double x);                          // NaN and infinities become null
void md_json_put_str(md_json *j, const char *key, const char *s);  // "key": value
void md_json_put_int(md_json *j, const char *key, int64_t x);
void md_json_put_float(md_json *j, const char *key, double x);
void md_json_bool(md_json *j, bool x);

// --- clock.c
int64_t md_now_ns(void);         // monotonic
int64_t md_thread_cpu_ns(void);  // processor time of this thread

#endif
