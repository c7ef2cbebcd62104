// SPDX-License-Identifier: Apache-2.0
// What the two networks see, as a part of a picture: of each video a row of frames and under it the
// row of their motion maps.
//
//         name, label
//   RGB   [ ][ ][ ][ ][ ]
//   edge  [ ][ ][ ][ ][ ]
//
// Maps are dark: few pixels come near the largest value of a byte. So all maps of a sheet are
// brightened by one factor, which the caption tells, and can be compared.
#include "runtime/train/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CELL = 96, GAP = 2, LINE = 16, BELOW = 14, CAPTION_W = 700, MAX_LEFT_OUT = 10 };
static const uint8_t ground = 0xfa;  // of the picture

typedef struct Row {
  const char *name;
  int32_t label;
  int side;         // of a frame and a map, pixels
  double seconds;   // from frame to frame
  uint8_t *frames;  // [3,N,side,side]
  uint8_t *maps;    // [P,N,side,side]
} Row;

typedef struct Sheet {
  const md_sheet_options *o;
  const md_dataset *data;
  md_map_info about;  // the maps; zero: differences of frames that are computed here
  md_gather *gather;
  md_arena *arena;
  Row *row;        // [o->rows]
  int num, white;  // rows that are filled; the byte that is shown as white
} Sheet;

// --- reading

// The short side of frames, CELL at most, as the gather will see them. 0: see *f.
static int side_of(const char *path, const md_video_limits *limits, md_fault *f) {
  md_image im = {0};
  md_frame_info info;
  md_video *v = md_video_open(path, limits, f);
  bool ok = v && md_video_next(v, &info, f) == MD_VIDEO_FRAME && md_video_rgb(v, CELL, &im, f);
  int side = ok ? MD_MIN(im.w, im.h) : 0;
  md_video_close(v);
  md_image_free(&im);
  return side;
}

static bool read_row(Sheet *s, int video, const md_timeline *t, Row *r, md_fault *f) {
  const char *path = s->data->items[video].path;
  md_video_limits limits = {0};
  r->side = side_of(path, &limits, f);
  if (!r->side) return false;
  int frames = s->o->frames, room = (int)fmin(md_timeline_length(t) - 1, INT32_MAX);
  md_clip_shape shape = {frames, MD_MAX(1, room / MD_MAX(1, frames - 1)), r->side};
  r->seconds = shape.stride / 30.0;
  size_t plane = (size_t)frames * (size_t)r->side * (size_t)r->side;
  r->frames = md_calloc(3, plane);
  r->maps = md_calloc((size_t)md_map_planes(s->about.kind), plane);
  static const double starts[MD_NUM_SLOTS];
  md_sample_rule rule = {.visual = shape,
                         .motion = shape,
                         .from = {.maps = s->o->maps, .kind = s->about.kind},
                         .crop = {.centered = true},
                         .short_side = CELL,
                         .starts = starts};
  // Queries and keys start at the same frame, so they may share their places.
  md_sample_out out = {.clip = {[MD_VQ] = r->frames, r->frames, r->maps, r->maps}};
  return md_gather_sample(s->gather, path, t, &rule, 0, &limits, &out, f) &&
         (!s->o->maps ||
          md_map_clips(md_map_path(s->arena, s->o->maps, s->data, video), t, &rule, 0, &out, f));
}

static void free_row(Row *r) {
  free(r->frames);
  free(r->maps);
}

static void add_video(Sheet *s, int video, md_diags *d) {
  const md_data_item *item = &s->data->items[video];
  const char *slash = strrchr(item->path, '/');
  Row r = {.name = slash ? slash + 1 : item->path, .label = item->label};
  md_fault f = {0};
  md_timeline *t = md_timeline_read(item->path, &(md_video_limits){0}, &f);
  if (t && read_row(s, video, t, &r, &f)) {
    s->row[s->num++] = r;
  } else {
    md_warning(d, MD_IN_FILE(item->path), "is left out: %s", f.text);
    if (*f.hint) md_hint(d, "%s", f.hint);
    free_row(&r);
  }
  md_timeline_destroy(t);
}

static bool read_rows(Sheet *s, md_diags *d) {
  int tries = MD_MIN(s->data->num_items, s->o->rows + MAX_LEFT_OUT);
  for (int i = 0; i < tries && s->num < s->o->rows; i++) add_video(s, i, d);
  if (s->num) return true;
  md_error(d, E0887, MD_IN_FILE(s->o->videos), "none of the first %d videos can be shown", tries);
  md_hint(d, "'modistc dataset check' looks at all of them, 'modistc dataset flow' makes maps");
  return false;
}

static int64_t plane_of(const Sheet *s, const Row *r) {
  return (int64_t)s->o->frames * r->side * r->side;
}

// How much moves at a pixel: the byte, or that of the flow's length above no motion (128).
static int strength(const Sheet *s, const Row *r, int64_t at) {
  if (s->about.kind != MD_MAP_FLOW) return r->maps[at];
  return MD_MAX(0, r->maps[2 * plane_of(s, r) + at] - 128);
}

// 99.5 % of the values other than 0 do not exceed it.
static int find_white(const Sheet *s) {
  int64_t num[256] = {0}, all = 0;
  for (int i = 0; i < s->num; i++)
    for (int64_t at = 0; at < plane_of(s, &s->row[i]); at++) num[strength(s, &s->row[i], at)]++;
  for (int q = 1; q < 256; q++) all += num[q];
  int white = 1;
  for (int64_t sum = num[1]; white < 255 && (double)sum < 0.995 * (double)all; sum += num[white])
    white++;
  return white;
}

// --- drawing

// Bright as its strength; the direction of flow is a place on the circle of colours.
static void map_color(const Sheet *s, const Row *r, int64_t at, uint8_t rgb[3]) {
  double bright = 255 * fmin(1, (double)strength(s, r, at) / s->white), hue = 0, depth = 0;
  if (s->about.kind == MD_MAP_FLOW) {
    hue = atan2(r->maps[plane_of(s, r) + at] - 128, r->maps[at] - 128);
    depth = 0.5;
  }
  for (int c = 0; c < 3; c++)
    rgb[c] = (uint8_t)lround(bright * (1 - depth + depth * cos(hue - c * 2 * M_PI / 3)));
}

// Pixels of small videos become squares, so that a viewer need not enlarge and blur them.
static md_image draw_row(const Sheet *s, const Row *r) {
  int zoom = (CELL + r->side - 1) / r->side, cell = r->side * zoom;
  int w = s->o->frames * (cell + GAP) - GAP, h = 2 * cell + GAP;
  md_image im = {0};
  if (!md_image_resize(&im, w, h)) md_out_of_memory(3 * (size_t)w * (size_t)h);
  memset(im.rgb, ground, im.cap);
  for (int y = 0; y < im.h; y++)
    for (int x = 0; x < im.w; x++) {
      int j = x / (cell + GAP), in_x = x % (cell + GAP), in_y = y % (cell + GAP);
      if (in_x >= cell || in_y >= cell) continue;
      int64_t at = ((int64_t)j * r->side + in_y / zoom) * r->side + in_x / zoom;
      uint8_t *rgb = im.rgb + 3 * ((int64_t)y * im.w + x);
      if (y > cell) map_color(s, r, at, rgb);
      else
        for (int c = 0; c < 3; c++) rgb[c] = r->frames[c * plane_of(s, r) + at];
    }
  return im;
}

static void put_row(const Sheet *s, const Row *r, md_text *to, int *w, int *h) {
  md_image im = draw_row(s, r);
  md_text png = {0};
  md_png_put(&png, &im);
  md_put(to, "<text y=\"%d\">", *h + LINE - 5);
  md_svg_put_text(to, r->name);
  if (r->label >= 0) md_put(to, ", label %d", r->label);
  if (s->o->frames > 1) md_put(to, ", a frame every %.*f s", r->seconds < 10 ? 2 : 0, r->seconds);
  md_put(to, "</text>\n");
  int y = *h + LINE, width = s->o->frames * (CELL + GAP) - GAP;
  int height = (width * im.h + im.w / 2) / im.w;
  md_put(to, "<text x=\"-6\" y=\"%d\" text-anchor=\"end\">RGB</text>", y + height / 4 + 4);
  md_put(to, "<text x=\"-6\" y=\"%d\" text-anchor=\"end\">%s</text>\n", y + height * 3 / 4 + 4,
         md_map_kind_names[s->about.kind]);
  md_put(to, "<image y=\"%d\" width=\"%d\" height=\"%d\" xlink:href=\"data:image/png;base64,", y,
         width, height);
  md_put_base64(to, png.s, png.len);
  md_put(to, "\"/>\n");
  *w = MD_MAX(*w, width);
  *h = y + height + BELOW;
  md_text_free(&png);
  md_image_free(&im);
}

static void put_caption(const Sheet *s, md_text *to, int *w, int *h) {
  static const char *const what[] = {[MD_MAP_DIFF] = "the difference of",
                                     [MD_MAP_EDGE] = "edges of optical flow between",
                                     [MD_MAP_FLOW] =
                                         "optical flow back in time (red: to the right) between"};
  const md_map_info *m = &s->about;
  double most = m->kind == MD_MAP_DIFF ? 1 : m->clamp;
  int levels = m->kind == MD_MAP_FLOW ? 127 : 255;
  char pair[40] = "neighbouring frames";
  if (m->lag30) snprintf(pair, sizeof pair, "frames %d/30 s apart", m->lag30);
  md_put(to,
         "<text y=\"%d\"><tspan font-weight=\"bold\">what the networks see</tspan>: middle squares "
         "of frames, and below %s %s</text>\n",
         *h + LINE - 5, what[m->kind], pair);
  md_put(to,
         "<text y=\"%d\">Maps are brightened alike: full brightness is %.2g of %g; 99.5 %% "
         "of the values other than 0 are at most that.</text>\n",
         *h + 2 * LINE - 5, most * s->white / levels, most);
  *w = CAPTION_W;
  *h += 2 * LINE + BELOW;
}

bool md_sheet_put(const md_sheet_options *o, md_text *to, int *w, int *h, md_diags *d) {
  md_dataset *data =
      md_dataset_open(&(md_dataset_options){.path = o->videos, .prefix = o->prefix}, d);
  if (!data) return false;
  Sheet s = {.o = o, .data = data, .gather = md_gather_create(), .arena = md_arena_create()};
  s.row = md_calloc((size_t)o->rows, sizeof *s.row);
  bool ok = true;
  if (o->maps && !md_maps_about(o->maps, data, &s.about, d)) {
    md_hint(d, "modistc dataset flow '%s'%s%s%s -o '%s'", o->videos, o->prefix ? " --prefix='" : "",
            o->prefix ? o->prefix : "", o->prefix ? "'" : "", o->maps);
    ok = false;
  }
  ok = ok && read_rows(&s, d);
  if (ok) {
    s.white = find_white(&s);
    *h = 0;
    put_caption(&s, to, w, h);
    for (int i = 0; i < s.num; i++) put_row(&s, &s.row[i], to, w, h);
  }
  for (int i = 0; i < s.num; i++) free_row(&s.row[i]);
  free(s.row);
  md_gather_destroy(s.gather);
  md_arena_destroy(s.arena);
  md_dataset_destroy(data);
  return ok;
}
