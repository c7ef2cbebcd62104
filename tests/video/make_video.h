// SPDX-License-Identifier: Apache-2.0
// Small videos for tests, made on the spot with FFmpeg's encoders.
#ifndef TESTS_VIDEO_MAKE_VIDEO_H
#define TESTS_VIDEO_MAKE_VIDEO_H

#include <stdbool.h>
#include <stdint.h>

// The colour of pixel (x, y) of frame t, 0xRRGGBB.
typedef uint32_t made_pixel(int t, int x, int y);

typedef struct made_video {
  const char *path;  // the extension names the container: .mkv, .mp4, .avi
  bool is_lossless;  // ffv1 in RGB (exact pixels); otherwise mpeg4
  int w, h, frames;
  int fps_num, fps_den;
  const int64_t *times;        // of frames, in ms; NULL: evenly spaced
  int rotation;                // display matrix, clockwise degrees; 0: none
  int aspect_num, aspect_den;  // of a pixel; 0: none
  int key_every;               // 0: the encoder's default
  int b_frames;                // mpeg4: at most so many in a row, on which no other depends
  made_pixel *pixel;
} made_video;

// Aborts with a message when it cannot: a test without its input has no meaning.
void make_video(const made_video *m);

// Frame t has the grey value t + 1 everywhere.
uint32_t made_counter(int t, int x, int y);
// A bright square that moves 2 pixels a frame over a gradient.
uint32_t made_square(int t, int x, int y);

#endif
