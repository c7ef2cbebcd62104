// SPDX-License-Identifier: Apache-2.0
// CRC-32, zlib streams, and what zip archives have of them: the only file that speaks to zlib.
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

// Without zlib's header and checksum. The best compression takes four times as long as the default and leaves 2 % less
// of an artefact's kernels.
enum { BARE = -15 };

int64_t md_deflate_bare(const void *data, int64_t bytes, void *to, int64_t room) {
  z_stream z = {.next_in = (z_const Bytef *)(uintptr_t)data,
                .avail_in = (uInt)bytes,
                .next_out = to,
                .avail_out = (uInt)room};
  if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, BARE, 9, Z_DEFAULT_STRATEGY) != Z_OK)
    md_out_of_memory((size_t)bytes);
  bool fits = deflate(&z, Z_FINISH) == Z_STREAM_END;
  int64_t len = (int64_t)z.total_out;
  deflateEnd(&z);
  return fits ? len : -1;
}

bool md_inflate_bare(const void *data, int64_t bytes, void *to, int64_t want) {
  z_stream z = {.next_in = (z_const Bytef *)(uintptr_t)data,
                .avail_in = (uInt)bytes,
                .next_out = to,
                .avail_out = (uInt)want};
  if (inflateInit2(&z, BARE) != Z_OK) return false;
  bool ok = inflate(&z, Z_FINISH) == Z_STREAM_END && z.avail_in == 0 && z.avail_out == 0;
  inflateEnd(&z);
  return ok;
}
