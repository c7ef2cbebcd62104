// SPDX-License-Identifier: Apache-2.0
// CRC-32 and zlib streams: the only file that speaks to zlib.
#include "base/base.h"

#include <zlib.h>

uint32_t md_crc32(const void *data, size_t bytes) { return (uint32_t)crc32_z(0, data, bytes); }

int64_t md_deflate_bound(int64_t bytes) { return (int64_t)compressBound((uLong)bytes); }

int64_t md_deflate(const void *data, int64_t bytes, void *to, int64_t room) {
  uLongf len = (uLongf)room;
  int rc = compress2(to, &len, data, (uLong)bytes, Z_DEFAULT_COMPRESSION);
  if (rc != Z_OK) md_out_of_memory((size_t)bytes);  // the only reason, as the room is enough
  return (int64_t)len;
}

bool md_inflate(const void *data, int64_t bytes, void *to, int64_t want) {
  uLongf len = (uLongf)want;
  return uncompress(to, &len, data, (uLong)bytes) == Z_OK && (int64_t)len == want;
}
