// SPDX-License-Identifier: Apache-2.0
// The sheet of frames and motion maps. Its pictures are read back by FFmpeg, and each pixel of them is
// that of a made video or a made map, scaled up.
#include "runtime/train/probe.h"

#include "base/file.h"
#include "tests/unit/folder.h"
#include "tests/unit/suite.h"
#include "tests/video/make_video.h"

#include <libavcodec/avcodec.h>
#include <sys/stat.h>

// The middle square of 48x32 begins at column 8; its pixels become squares of 3, so that a cell has
// 96. Of 19 frames, 4 at equal distances are 0, 6, 12 and 18.
enum { W = 48, H = 32, LEFT = 8, ZOOM = 3, CELL = H * ZOOM, GAP = 2, T = 19, SHOWN = 4, EVERY = 6 };

static uint32_t slopes(int t, int x, int y) {
  return (uint32_t)(t * 12) << 16 | (uint32_t)(x * 5) << 8 | (uint32_t)(y * 7);
}

// Darker on the right from frame to frame, by 4 of 255.
static uint32_t right_changes(int t, int x, int y) {
  (void)y;
  return 0x010101U * (uint32_t)(x < W / 2 ? 9 : 200 - 4 * t);
}

static void write_video(const char *name, made_pixel *pixel) {
  make_video(&(made_video){.path = in_folder(name),
                           .is_lossless = true,
                           .w = W,
                           .h = H,
                           .frames = T,
                           .fps_num = 30,
                           .fps_den = 1,
                           .pixel = pixel});
}

// The byte of a plane of map t at (x, y).
typedef uint8_t made_map(int plane, int t, int x, int y);

static uint8_t stripes(int plane, int t, int x, int y) {
  (void)plane, (void)y;
  static const uint8_t level[] = {0, 50, 100};
  return level[(x + t) % 3];
}

// Columns that came from the right, from below, and that rest; as far as a map can say.
static uint8_t ways(int plane, int t, int x, int y) {
  (void)t, (void)y;
  static const uint8_t flow[3][3] = {{255, 128, 255}, {128, 255, 255}, {128, 128, 128}};
  return flow[x % 3][plane];
}

static void write_maps(const char *path, md_map_kind kind, made_map *map) {
  struct stat video;
  ck_assert_int_eq(stat(in_folder("v.mkv"), &video), 0);
  md_map_info info = {.kind = kind,
                      .frames = T,
                      .w = W,
                      .h = H,
                      .lag = 3,
                      .lag30 = 3,
                      .unit = 1,
                      .clamp = 20,
                      .source_bytes = video.st_size};
  md_diags *d = md_diags_create();
  md_map_writer *w = md_map_create(path, &info, d);
  ck_assert_msg(w != NULL, "%s", md_diags_text(d));
  for (int t = 0; t < T; t++) {
    uint8_t planes[3 * W * H], *q = planes;
    for (int p = 0; p < md_map_planes(kind); p++)
      for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) *q++ = map(p, t, x, y);
    ck_assert(md_map_add(w, planes, 0));
  }
  ck_assert_msg(md_map_commit(w), "%s", md_diags_text(d));
  md_diags_destroy(d);
}

// A folder with a list `set` of v.mkv, maps of it, and what is not there.
static void make_set(made_pixel *pixel, md_map_kind kind, made_map *map) {
  make_empty_folder();
  write_video("v.mkv", pixel);
  static const char list[] = "nowhere.mkv,1\nv.mkv,7\n";
  ck_assert(md_file_save(in_folder("set"), list, sizeof list - 1, NULL));
  ck_assert_int_eq(mkdir(in_folder("maps"), 0700), 0);
  if (map) write_maps(in_folder("maps/v.mkv.mmap1"), kind, map);
}

// --- reading back

static md_image read_png(const uint8_t *data, int len) {
  AVCodecContext *c = avcodec_alloc_context3(avcodec_find_decoder(AV_CODEC_ID_PNG));
  AVPacket *packet = av_packet_alloc();
  AVFrame *frame = av_frame_alloc();
  ck_assert(c && packet && frame && avcodec_open2(c, NULL, NULL) >= 0);
  ck_assert_int_ge(av_new_packet(packet, len), 0);
  memcpy(packet->data, data, (size_t)len);
  ck_assert_int_ge(avcodec_send_packet(c, packet), 0);
  ck_assert_int_ge(avcodec_receive_frame(c, frame), 0);
  ck_assert_int_eq(frame->format, AV_PIX_FMT_RGB24);
  md_image im = {0};
  ck_assert(md_image_resize(&im, frame->width, frame->height));
  for (int y = 0; y < im.h; y++)
    memcpy(im.rgb + 3 * y * im.w, frame->data[0] + y * frame->linesize[0], 3 * (size_t)im.w);
  av_frame_free(&frame);
  av_packet_free(&packet);
  avcodec_free_context(&c);
  return im;
}

// The only picture within an SVG.
static md_image read_embedded(const char *svg) {
  static const char head[] = "xlink:href=\"data:image/png;base64,";
  const char *p = strstr(svg, head);
  ck_assert_msg(p && !strstr(p + 1, head), "%s", svg);
  p += sizeof head - 1;
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  uint8_t *data = malloc(strlen(p));
  int len = 0;
  uint32_t bits = 0;
  for (int i = 0; *p != '"' && *p != '='; i++, p++) {
    const char *digit = strchr(digits, *p);
    ck_assert_ptr_nonnull(digit);
    bits = bits << 6 | (uint32_t)(digit - digits);
    if (i % 4) data[len++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
  }
  md_image im = read_png(data, len);
  free(data);
  return im;
}

static bool put_sheet(bool has_maps, md_text *svg, md_diags *d) {
  md_sheet_options o = {.videos = in_folder("set"),
                        .maps = has_maps ? in_folder("maps") : NULL,
                        .rows = 3,
                        .frames = SHOWN};
  int w = 0, h = 0;
  bool ok = md_sheet_put(&o, svg, &w, &h, d);
  ck_assert(!ok || (w > 0 && h > 2 * CELL));
  return ok;
}

typedef uint32_t expected_map(int t, int x, int y);

static void check_picture(const md_image *im, made_pixel *frame, expected_map *map) {
  ck_assert_int_eq(im->w, SHOWN * (CELL + GAP) - GAP);
  ck_assert_int_eq(im->h, 2 * CELL + GAP);
  for (int y = 0; y < im->h; y++)
    for (int x = 0; x < im->w; x++) {
      int in_x = x % (CELL + GAP), in_y = y % (CELL + GAP), t = x / (CELL + GAP) * EVERY;
      uint32_t want = 0xfafafa;
      if (in_x < CELL && in_y < CELL)
        want = (y < CELL ? frame : map)(t, LEFT + in_x / ZOOM, in_y / ZOOM);
      const uint8_t *rgb = im->rgb + 3 * (y * im->w + x);
      uint32_t found = (uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2];
      ck_assert_msg(found == want, "(%d, %d) is %06x, not %06x", x, y, found, want);
    }
}

// One sheet as a whole: the text beside the picture, and every pixel.
static void check_sheet(bool has_maps, const char *text, made_pixel *frame, expected_map *map) {
  md_diags *d = md_diags_create();
  md_text svg = {0};
  ck_assert_msg(put_sheet(has_maps, &svg, d), "%s", md_diags_text(d));
  ck_assert_int_eq(md_diags_warnings(d), 1);  // nowhere.mkv
  ck_assert_msg(strstr(svg.s, text) && strstr(svg.s, ">v.mkv, label 7, a frame every 0.20 s<"),
                "%.1200s", svg.s);
  md_image im = read_embedded(svg.s);
  check_picture(&im, frame, map);
  md_image_free(&im);
  md_text_free(&svg);
  md_diags_destroy(d);
}

START_TEST(a_png_holds_every_pixel) {
  static const int size[][2] = {{1, 1}, {7, 5}, {300, 2}};
  for (int i = 0; i < MD_COUNT(size); i++) {
    md_image im = {0};
    ck_assert(md_image_resize(&im, size[i][0], size[i][1]));
    int bytes = 3 * im.w * im.h;
    for (int k = 0; k < bytes; k++) im.rgb[k] = (uint8_t)md_hash_at(5, (uint64_t)k);
    md_text png = {0};
    md_png_put(&png, &im);
    md_image back = read_png((const uint8_t *)png.s, (int)png.len);
    ck_assert(back.w == im.w && back.h == im.h);
    ck_assert_mem_eq(back.rgb, im.rgb, (size_t)bytes);
    md_text_free(&png);
    md_image_free(&back);
    md_image_free(&im);
  }
}
END_TEST

// Half of what is not 0 is 100, and is white therefore: 20 * 100 / 255 = 7.8.
static uint32_t expected_stripes(int t, int x, int y) {
  static const uint32_t level[] = {0, 0x808080, 0xffffff};
  (void)y;
  return level[(x + t) % 3];
}

START_TEST(frames_stand_over_their_maps_which_are_brightened) {
  make_set(slopes, MD_MAP_EDGE, stripes);
  check_sheet(true, "full brightness is 7.8 of 20; 99.5 %", slopes, expected_stripes);
  remove_folder();
}
END_TEST

// Red, green and blue are the cosines of the angles to 0, 120 and 240 degrees, from -1..1 to 0..255.
static uint32_t expected_ways(int t, int x, int y) {
  (void)t, (void)y;
  static const uint32_t color[] = {0xff4040, 0x80ee11, 0};
  return color[x % 3];
}

START_TEST(flow_has_its_direction_as_colour) {
  make_set(slopes, MD_MAP_FLOW, ways);
  check_sheet(true, "(red: to the right) between frames 3/30 s apart", slopes, expected_ways);
  remove_folder();
}
END_TEST

static uint32_t expected_diff(int t, int x, int y) {
  (void)t, (void)y;
  return x < W / 2 ? 0 : 0xffffff;
}

START_TEST(without_maps_neighbouring_frames_are_compared) {
  make_set(right_changes, MD_MAP_DIFF, NULL);
  check_sheet(false, "the difference of neighbouring frames", right_changes, expected_diff);
  remove_folder();
}
END_TEST

static void check_refused(const char *code) {
  md_diags *d = md_diags_create();
  md_text svg = {0};
  ck_assert(!put_sheet(true, &svg, d));
  ck_assert_msg(strstr(md_diags_text(d), code), "%s", md_diags_text(d));
  md_text_free(&svg);
  md_diags_destroy(d);
}

START_TEST(a_sheet_of_nothing_is_refused) {
  make_set(slopes, MD_MAP_EDGE, NULL);
  check_refused("E0850");  // no maps
  write_maps(in_folder("maps/nowhere.mkv.mmap1"), MD_MAP_EDGE, stripes);
  check_refused("E0887");  // one video is not there, the other has no map
  remove_folder();
}
END_TEST

SUITE_MAIN("sheet", a_png_holds_every_pixel, frames_stand_over_their_maps_which_are_brightened,
           flow_has_its_direction_as_colour, without_maps_neighbouring_frames_are_compared,
           a_sheet_of_nothing_is_refused)
