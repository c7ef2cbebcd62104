// SPDX-License-Identifier: Apache-2.0
// A frame as PNG, which every viewer shows: a signature, then chunks of length, name, data and CRC, all
// numbers big endian. A row is stored as its difference from the row above (filter 2), which is
// mostly 0 in pictures that were scaled up.
#include "runtime/video/video.h"

#include <stdlib.h>

static void put_number(md_text *to, uint32_t x) {
  const char bytes[] = {(char)(x >> 24), (char)(x >> 16), (char)(x >> 8), (char)x};
  md_put_bytes(to, bytes, sizeof bytes);
}

static void put_chunk(md_text *to, const char name[5], const void *data, size_t len) {
  put_number(to, (uint32_t)len);
  size_t begin = to->len;
  md_put_bytes(to, name, 4);
  md_put_bytes(to, data, len);
  put_number(to, md_crc32(to->s + begin, to->len - begin));
}

void md_png_put(md_text *to, const md_image *im) {
  int64_t stride = 3 * (int64_t)im->w, bytes = (stride + 1) * im->h;
  int64_t room = md_deflate_bound(bytes);
  uint8_t *rows = md_malloc((size_t)bytes), *packed = md_malloc((size_t)room), *p = rows;
  for (int y = 0; y < im->h; y++) {
    const uint8_t *row = im->rgb + y * stride;
    *p++ = 2;
    for (int64_t x = 0; x < stride; x++) *p++ = (uint8_t)(row[x] - (y ? row[x - stride] : 0));
  }
  int64_t len = md_deflate(rows, bytes, packed, room);
  md_text header = {0};
  put_number(&header, (uint32_t)im->w);
  put_number(&header, (uint32_t)im->h);
  md_put_bytes(&header, "\x08\x02\0\0\0", 5);  // 8 bits, RGB, and no choice in the rest
  md_put_bytes(to, "\x89PNG\r\n\x1a\n", 8);
  put_chunk(to, "IHDR", header.s, header.len);
  put_chunk(to, "IDAT", packed, (size_t)len);
  put_chunk(to, "IEND", "", 0);
  md_text_free(&header);
  free(rows);
  free(packed);
}
