// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers and content digests.
//
// Element i of stream (name, seed) is splitmix64 at position i + 1 of a sequence that starts at
// FNV-1a(name) ^ seed * odd. Nothing is carried from one number to the next, so results do not
// depend on workers, ranks or order; the golden sets are made with the same function.
#include "base/base.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

uint64_t md_hash_key(const char *name, uint64_t seed) {
  uint64_t h = 0xCBF29CE484222325u;
  for (const unsigned char *p = (const unsigned char *)name; *p; p++) h = (h ^ *p) * 0x100000001B3u;
  return h ^ seed * 0xD1B54A32D192ED03u;
}

uint64_t md_hash_at(uint64_t key, uint64_t i) {
  uint64_t z = key + (i + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

double md_hash_01(uint64_t key, uint64_t i) { return (double)(md_hash_at(key, i) >> 40) * 0x1p-24; }

double md_hash_unit(uint64_t key, uint64_t i) { return 2 * md_hash_01(key, i) - 1; }

double md_hash_normal(uint64_t key, uint64_t i) {
  const double two_pi = 6.283185307179586;
  double u = (double)((md_hash_at(key, 2 * i) >> 11) + 1) * 0x1p-53;  // (0, 1]: log is finite
  double v = (double)(md_hash_at(key, 2 * i + 1) >> 11) * 0x1p-53;
  return sqrt(-2 * log(u)) * cos(two_pi * v);
}

md_digest md_digest_of(const void *data, size_t bytes) {
  XXH128_hash_t h = XXH3_128bits(data, bytes);
  return (md_digest){.lo = h.low64, .hi = h.high64};
}

md_hasher *md_hasher_create(void) {
  XXH3_state_t *state = XXH3_createState();
  if (!state) md_out_of_memory(0);
  XXH3_128bits_reset(state);
  return (md_hasher *)state;
}

void md_hasher_add(md_hasher *h, const void *data, size_t bytes) {
  XXH3_128bits_update((XXH3_state_t *)h, data, bytes);
}

md_digest md_hasher_end(md_hasher *h) {
  XXH128_hash_t x = XXH3_128bits_digest((XXH3_state_t *)h);
  XXH3_freeState((XXH3_state_t *)h);
  return (md_digest){.lo = x.low64, .hi = x.high64};
}

bool md_digest_of_file(const char *path, md_digest *out) {
  FILE *f = fopen(path, "rb");
  if (!f) return false;
  md_hasher *h = md_hasher_create();
  char chunk[1 << 14];
  while (!feof(f) && !ferror(f)) md_hasher_add(h, chunk, fread(chunk, 1, sizeof chunk, f));
  bool ok = !ferror(f);
  int error = errno;
  fclose(f);
  *out = md_hasher_end(h);
  errno = error;
  return ok;
}

char *md_digest_text(md_digest d, char buf[33]) {
  snprintf(buf, 33, "%016llx%016llx", (unsigned long long)d.hi, (unsigned long long)d.lo);
  return buf;
}

bool md_digest_parse(const char *text, md_digest *out) {
  static const char digits[] = "0123456789abcdef";
  uint64_t half[2] = {0};
  if (strlen(text) != 32) return false;
  for (int i = 0; i < 32; i++) {
    const char *digit = strchr(digits, text[i]);
    if (!digit) return false;
    half[i / 16] = half[i / 16] << 4 | (uint64_t)(digit - digits);
  }
  *out = (md_digest){.hi = half[0], .lo = half[1]};
  return true;
}

// Bit by bit: it serves records of some hundred bytes.
uint32_t md_crc32c(const void *data, size_t bytes) {
  const unsigned char *p = data;
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < bytes; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
  }
  return ~crc;
}
