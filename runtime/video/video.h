// SPDX-License-Identifier: Apache-2.0
// Videos in, uint8 clips out: safe decoding, a 30 fps time base, clip sampling, motion maps, data
// sets, and a loader whose batches do not depend on the number of its threads.
#ifndef RUNTIME_VIDEO_VIDEO_H
#define RUNTIME_VIDEO_VIDEO_H

#include "base/diag.h"

#include <stdatomic.h>

// What went wrong with one file, as a value: worker threads make it, one thread reports it.
typedef struct md_fault {
  md_code code;
  char text[256], hint[160];
  bool is_of_gpu;  // the CPU may read it
  bool is_slow;    // it may be read another time
} md_fault;
void md_fault_report(const md_fault *f, const char *path, md_diags *d);

// --- image.c: RGB frames, and the pieces of them that a network sees.
// Packed rows of w RGB triples. disp_* is the size with square pixels, which differs from w and h
// where the frame is on the coder's own grid.
typedef struct md_image {
  uint8_t *rgb;
  size_t cap;
  int w, h, disp_w, disp_h;
} md_image;
// Contents are lost. False: no memory.
bool md_image_resize(md_image *im, int w, int h);
void md_image_free(md_image *im);

typedef struct md_box {
  int x, y, w, h;
} md_box;
// Zero means: area 0.3 to 1, aspect 0.5 to 2 (spec 5.1). centered: the middle square, no draw.
typedef struct md_crop_rule {
  bool centered;
  double area_min, area_max, aspect_min, aspect_max;
} md_crop_rule;
// `key` and `first` name the counters that the draw may use: first .. first + MD_CROP_DRAWS - 1.
enum { MD_CROP_DRAWS = 40 };
md_box md_crop_draw(const md_crop_rule *rule, uint64_t key, uint64_t first, int w, int h);

enum { MD_MAX_CLIP_SIZE = 1024, MD_MAX_CLIP_FRAMES = 256 };
// Where output pixel i of `out` reads a row or column of `in` samples: bilinear, no corners aligned.
typedef struct md_tap {
  int32_t lo, hi;
  float frac;
} md_tap;
// Between four samples: those of the row above (`lo`) and of the one below (`hi`), left and right.
static inline float md_bilinear(int lo_left, int lo_right, int hi_left, int hi_right, md_tap col,
                                md_tap row) {
  float a = (float)lo_left + col.frac * (float)(lo_right - lo_left);
  float b = (float)hi_left + col.frac * (float)(hi_right - hi_left);
  return a + row.frac * (b - a);
}
void md_taps(md_tap *tap, int num, double in_first, double in_per_out, int in_size);
// The whole frame [h,w], which is shown as disp_w x disp_h, resized so that its short side is `size`;
// of it a square: `at` 0 to 1 is its place in what is left, on each axis, 0.5 the middle (spec 5.1).
typedef struct md_square {
  int size;
  md_tap col[MD_MAX_CLIP_SIZE], row[MD_MAX_CLIP_SIZE];
} md_square;
void md_square_make(md_square *s, int w, int h, int disp_w, int disp_h, int size,
                    const double at[2]);
// Bilinear resize of a box to size x size; channel c goes to out + c * plane.
void md_image_crop(const md_image *im, md_box box, int size, uint8_t *out, int64_t plane);

// --- nvdec.c: decoding by a GPU, for decoders of any thread. What it does not do, the CPU does.
typedef struct md_nvdec md_nvdec;
md_nvdec *md_nvdec_open(int device, char *why, int size);  // NULL: there is none, and why
void md_nvdec_close(md_nvdec *n);                          // no decoder uses it any more
// What it was not used for: the first such thing, and that no file goes there any more. Each is told once.
bool md_nvdec_news(md_nvdec *n, char *text, int size);
// A file went there: all was well, or it failed. After some failures in a row no other is tried.
void md_nvdec_count(md_nvdec *n, bool was_well);

// --- decode.c: one file, its main video stream, frame by frame. Only these two and encode.c know FFmpeg.
// Zero is the default. A file beyond a limit is refused, never cut short: a clip must not depend on
// how fast a machine is.
typedef struct md_video_limits {
  int64_t max_pixels;   // of one frame; default 2^25 (8K UHD fits)
  int64_t max_frames;   // and packets, of one pass; default 1,000,000
  double max_seconds;   // wall time of one pass, against hangs; default 120
  atomic_bool *cancel;  // may be NULL; when it becomes true, reading fails soon
  md_nvdec *nvdec;      // decodes what it can; NULL: the CPU does
} md_video_limits;

typedef struct md_video md_video;
typedef struct md_video_info {
  char format[32], codec[32];
  int rotation;      // 0, 90, 180, 270 clockwise: what makes the picture upright
  double rates[2];   // what the header says about frames a second, best first; 0: nothing
  double time_base;  // seconds of one tick of `pts`
  int64_t declared;  // frames the header promises; 0: it does not say
  bool one_to_one;   // container and codec where a packet is a shown frame, with its time
} md_video_info;
typedef struct md_frame_info {
  int64_t pts;  // in ticks of time_base
  bool has_pts, damaged, key;
} md_frame_info;
typedef enum md_video_step { MD_VIDEO_FRAME, MD_VIDEO_END, MD_VIDEO_FAILED } md_video_step;

// Rules, for files that are not as they should be:
// - Opened without blocking; only a regular file is read, through that one descriptor. No other
//   file, no network, only containers and codecs on our lists.
// - The stream: the first video stream marked default, else the first; never cover art or a still.
// - Accepted if at least one frame decodes. Damaged frames are kept as concealed and counted.
// - Sizes come from decoded frames, not headers. All frames get the geometry of the first one.
// - A display matrix is rounded to the nearest quarter turn (37 degrees: 0); a singular one and
//   mirroring are ignored. A pixel aspect outside 1/4..4 is taken as 1.
// NULL: see *f.
md_video *md_video_open(const char *path, const md_video_limits *limits, md_fault *f);
void md_video_close(md_video *v);
md_video_info md_video_about(const md_video *v);
// Frames in presentation order. After END and FAILED the last frame stays readable.
md_video_step md_video_next(md_video *v, md_frame_info *info, md_fault *f);
// Packets only, without decoding; not to be mixed with md_video_next on one handle.
md_video_step md_video_packet(md_video *v, md_frame_info *info, md_fault *f);
// Packets before the key frame with this time are not decoded; no effect when it was read already.
void md_video_start_at(md_video *v, int64_t pts);
// From now on frames that are not wanted need not come, where no other frame depends on them. Wanted
// frames are the same bit for bit. For files whose packets are frames; no effect on others.
void md_video_want(md_video *v, bool (*is_wanted)(const void *ctx, int64_t pts), const void *ctx);
int64_t md_video_damaged(const md_video *v);  // frames and packets with errors so far
int64_t md_video_gpu_frames(const md_video *v);
int64_t md_video_packets(const md_video *v);
int64_t md_video_seek_ns(const md_video *v);  // processor time of packets passed over so far
// The current frame, upright. short_side 0: the coder's grid; otherwise square pixels, short side at
// most this (never enlarged).
bool md_video_rgb(md_video *v, int short_side, md_image *out, md_fault *f);
// MD5 of the current frame's native planes is fed into a running digest (for bit-exact checks).
typedef struct md_video_md5 md_video_md5;
md_video_md5 *md_video_md5_create(void);
void md_video_md5_add(md_video_md5 *m, const md_video *v);
void md_video_md5_text(md_video_md5 *m, char out[33]);  // frees m
void md_video_library_version(char *text, int size);    // FFmpeg and its libraries

// --- timeline.c: which frame is shown at which time of a 30 fps base (spec 4.5).
// Time stamps are used if each frame has one and they strictly increase; otherwise frames are taken
// as equally spaced at the rate of the header. A rate outside 1/1000..1000 is taken as 30.
typedef struct md_timeline {
  int64_t num_frames;
  double fps;     // mean rate
  bool constant;  // frames lie on the grid i / fps: spec 4.5's formula holds as written
  double time_base;
  int64_t *pts;  // [num_frames] ticks, increasing; NULL: frames are found by counting
  int32_t *key;  // [num_keys] frames at which decoding can start
  int num_keys, cap_keys;
  int64_t damaged, missing;  // seen while it was made; missing: promised by the header, not there
  int64_t file_bytes;        // of the video; 0: made from times alone
} md_timeline;
md_timeline *md_timeline_read(const char *path, const md_video_limits *limits, md_fault *f);
// The same from frame times alone. Takes pts (malloc'ed, may be NULL).
md_timeline *md_timeline_make(int64_t num_frames, int64_t *take_pts, double time_base,
                              const double rates[2]);
void md_timeline_destroy(md_timeline *t);
int64_t md_timeline_bytes(const md_timeline *t);
double md_timeline_length(const md_timeline *t);                  // in frames of the 30 fps base
int64_t md_timeline_index(const md_timeline *t, double frame30);  // nearest frame, clamped
int64_t md_timeline_find(const md_timeline *t, int64_t pts);      // frame with this time, or -1
int64_t md_timeline_motion_lag(const md_timeline *t);             // native frames in 1/30 s, >= 1

// --- augment.c: what is drawn for the look of one visual clip (spec 5.1).
typedef enum md_slot { MD_VQ, MD_VK, MD_MQ, MD_MK, MD_NUM_SLOTS } md_slot;
typedef enum md_color_kind {
  MD_BRIGHTNESS,
  MD_CONTRAST,
  MD_SATURATION,
  MD_COLOR_KINDS
} md_color_kind;
// Probabilities, and ranges of what is drawn then. Zero: nothing is ever done.
typedef struct md_augment_rule {
  double color, strength[MD_COLOR_KINDS];  // factors from max(0, 1 - strength) to 1 + strength
  double gray;
  double blur, sigma_min, sigma_max;  // pixels
} md_augment_rule;
// Numbers for the compiled step (models/augment.c).
typedef struct md_look {
  float color[MD_COLOR_KINDS][3];  // x' = clamp(a x + m mean + g gray): (a, m, g), in random order
  uint8_t gray;                    // 0 or 1
  float sigma;                     // 0: not blurred
} md_look;
md_look md_look_draw(const md_augment_rule *r, uint64_t sample_key, md_slot slot);

// --- sample.c: what is drawn for one sample. Pure functions of (seed, epoch, video id, try).
typedef struct md_clip_shape {
  int frames, stride, size;
} md_clip_shape;
typedef enum md_map_kind { MD_MAP_DIFF, MD_MAP_EDGE, MD_MAP_FLOW, MD_NUM_MAP_KINDS } md_map_kind;
// How maps are made. Zeros are the defaults.
typedef struct md_map_rule {
  md_map_kind kind;
  int lag30, short_side;  // 5 (diff: 1) frames of 1/30 s; 128 pixels
  float scale, clamp;     // of Sobel's sums (1/8); of the values (10 for edges, 20 for flow)
} md_map_rule;
// A clip is drawn if the mean of its scores, all of them, or the first is above gamma (spec 4.5).
typedef enum md_gamma_rule { MD_GAMMA_MEAN, MD_GAMMA_ALL, MD_GAMMA_FIRST } md_gamma_rule;
// Where motion clips come from: files of maps (motion.h), or differences of frames on the fly.
typedef struct md_motion_rule {
  const char *maps;  // their folder; NULL: frame differences, computed on the fly
  md_map_kind kind;
  bool signed_rgb;    // on the fly: I_t - I_{t-1} of each colour, in place of D (spec 4.1)
  bool magnitude;     // of flow: |f| in all three planes, in place of u, v, |f| (spec 4.2)
  bool random_place;  // of the square that a clip shows; else the middle
  double gamma;       // with maps; 0: any clip; not used where clips are in sync
  md_gamma_rule rule;
} md_motion_rule;
int md_motion_planes(const md_motion_rule *r);  // of a motion clip: 1 or 3
typedef struct md_sample_rule {
  md_clip_shape visual, motion;  // motion.frames 0: no motion clips
  md_motion_rule from;           // where motion clips come from
  bool in_sync;                  // temporal_jitter = 0: mk starts with vq, mq with vk
  md_crop_rule crop;
  double flip;  // probability
  md_augment_rule augment;
  int short_side;        // of decoded visual frames; 0: size * 10/7, so 320 for 224
  const double *starts;  // [MD_NUM_SLOTS], in place of drawn ones; NULL: drawn
} md_sample_rule;
uint64_t md_sample_key(uint64_t seed, int64_t epoch, int64_t video, int attempt);
// starts[s] in frames of the 30 fps base.
void md_sample_starts(const md_sample_rule *r, uint64_t key, const md_timeline *t,
                      double starts[MD_NUM_SLOTS]);
double md_sample_unit(uint64_t key, md_slot slot);  // what the start is drawn by, in [0, 1)
bool md_sample_flip(const md_sample_rule *r, uint64_t key, md_slot slot);
md_box md_sample_crop(const md_sample_rule *r, uint64_t key, md_slot slot, int w, int h);
void md_sample_place(const md_sample_rule *r, uint64_t key, md_slot slot, double at[2]);
// The native frame that is frame j of a clip.
int64_t md_clip_frame(const md_timeline *t, md_clip_shape shape, double start, int j);
// The video of sample number n: each epoch is a new permutation of all videos.
typedef struct md_order md_order;
md_order *md_order_create(uint64_t seed, int num_videos);
void md_order_destroy(md_order *o);
int md_order_at(md_order *o, int64_t n);  // n / num_videos is the epoch

// --- motion.c: frame difference (spec 4.1), as bytes q = round(255 * D).
// diff[i] = sum over RGB of |a - b|, 0..765; D = diff / 765. a and b have one size.
void md_motion_diff(const md_image *a, const md_image *b, uint16_t *diff);
// diff[c][i] = 255 + a - b of colour c, 0..510.
void md_motion_signed_diff(const md_image *a, const md_image *b, uint16_t *diff);
// Part of such a plane, resized, as bytes: round(255 D); of a signed one, 128 + round(127 (a - b) / 255).
void md_motion_resize(const uint16_t *diff, int w, bool is_signed, const md_tap *rows, int num_rows,
                      const md_tap *cols, int num_cols, uint8_t *out);

// --- gather.c: one forward pass over a video fills all clips of a sample.
typedef struct md_gather md_gather;  // buffers of one thread
md_gather *md_gather_create(void);
void md_gather_destroy(md_gather *g);
// Where the time of a sample goes: reading the times of a video's frames (once a video), opening,
// passing over packets, decoding, conversion to RGB, crop and resize, differences of frames.
typedef enum md_work {
  MD_WORK_TIMES,
  MD_WORK_OPEN,
  MD_WORK_SEEK,
  MD_WORK_DECODE,
  MD_WORK_CONVERT,
  MD_WORK_CROP,
  MD_WORK_MOTION,
  MD_NUM_WORKS
} md_work;
extern const char *const md_work_names[MD_NUM_WORKS];
typedef struct md_sample_out {
  uint8_t *clip[MD_NUM_SLOTS];  // [3,T,H,W] for visual, [P,T,S,S] for motion slots
  int64_t decoded, damaged;     // frames
  int64_t gpu_frames;           // of the decoded ones
  int64_t missing;              // places in clips that a neighbour had to fill
  char codec[32];
  int64_t work_ns[MD_NUM_WORKS];  // of this thread's processor time; added to
} md_sample_out;
// A frame that is promised but does not decode is replaced by the next one that does, and counted.
// Motion clips that come from maps are left alone: md_map_clips.
bool md_gather_sample(md_gather *g, const char *path, const md_timeline *t, const md_sample_rule *r,
                      uint64_t key, const md_video_limits *limits, md_sample_out *out, md_fault *f);

// --- index.c: a data set is a list of paths; the video id is the position.
typedef struct md_data_item {
  const char *path;
  int32_t label;  // -1: none
  int line;       // of the list; 0: found in a folder
} md_data_item;
typedef struct md_dataset {
  md_data_item *items;
  int num_items, cap_items;
  const char *root;  // folder that relative paths of the set start from; "": none
  md_arena *arena;
} md_dataset;
typedef struct md_dataset_options {
  const char *path;        // a folder, an index, or a list with a line `path[<sep>label]` each
  const char *prefix;      // of relative paths in a list; NULL: the folder of the list
  char separator;          // of a list: ' ' or ','; 0: comma in lines that have one, else space
  const char *extensions;  // of a folder, "mp4,webm"; NULL: all that we can read
} md_dataset_options;
// A folder is walked to all depths; linked folders are followed, each folder is read once, names
// that start with a dot are not videos. Sorted by bytes of the path. NULL: reported.
md_dataset *md_dataset_open(const md_dataset_options *o, md_diags *d);
void md_dataset_destroy(md_dataset *s);

// --- survey.c: every video of a set looked at, by several threads.
typedef enum md_verdict { MD_GOOD, MD_DAMAGED, MD_BROKEN, MD_NUM_VERDICTS } md_verdict;
extern const char *const md_verdict_names[MD_NUM_VERDICTS];
typedef struct md_survey_row {
  const char *path;
  int32_t label;
  md_verdict verdict;  // damaged: usable, but frames are damaged or missing
  char codec[32];
  int w, h, rotation;  // upright pixels; clockwise turn that makes them so
  int64_t frames, damaged, missing, bytes;
  double fps, seconds;
  bool has_hash;
  md_digest hash;  // XXH3-128 of the file
  md_fault *why;   // of a broken one, else NULL
} md_survey_row;
typedef struct md_survey_options {
  const md_dataset *data;
  int workers;  // 0: one
  bool full_decode, hash;
  // Whether a row is known already and need not be made; called from several threads. NULL: none is.
  bool (*known)(void *ctx, md_survey_row *row);
  // Takes each row, in the order of the set. False: stop.
  bool (*each)(void *ctx, const md_survey_row *row);
  void *ctx;
} md_survey_options;
bool md_survey(const md_survey_options *o, md_diags *d);  // false: stopped, or reported

// --- catalog.c: an index, what a survey found as a csv with a header. It is also a list of videos.
extern const char md_catalog_header[];
// One field from *p on; false: a quote is not closed. *p is then at the comma or at `end`.
bool md_csv_field(const char **p, const char *end, md_text *field);
void md_csv_put(md_text *to, const char *field);
// Whether a text begins as an index does: path, label, and more columns.
bool md_catalog_begins(const char *text, size_t len);
typedef struct md_catalog {
  md_survey_row *row;
  int num, cap;
  int *slot;  // hash table over paths, -1: empty
  int num_slots;
  md_arena *arena;
} md_catalog;
md_catalog *md_catalog_create(void);
void md_catalog_destroy(md_catalog *c);
// Adds the rows of a file; `partial`: its last line may be cut off. False: reported.
bool md_catalog_read(md_catalog *c, const char *path, bool partial, md_diags *d);
const md_survey_row *md_catalog_find(const md_catalog *c, const char *path);
// A line for a file at `csv`, whose folder paths are relative to. False: reported (E0872).
bool md_catalog_put(md_text *to, const char *csv, const md_survey_row *row, md_diags *d);

// --- loader.c: batches in a fixed order, made by worker threads.
// By the CPU; by a GPU where that can; the same with a warning where it cannot.
typedef enum md_decode { MD_DECODE_CPU, MD_DECODE_AUTO, MD_DECODE_NVDEC } md_decode;
typedef struct md_loader_options {
  const md_dataset *data;  // borrowed for the life of the loader
  md_sample_rule rule;
  int batch;
  int workers;  // 0: md_loader_next does the work itself
  int queue;    // batches that may be ready or in work; 0: 2
  uint64_t seed;
  int64_t first_sample;    // where to start, for a resumed run
  md_video_limits limits;  // `cancel` and `nvdec` are the loader's own
  md_decode decode;
  int gpu;  // that decodes: its number
  // A video that takes longer than the limits allow ends it (E0502), rather than being left out: another time it may
  // be read.
  bool deterministic;
} md_loader_options;

// Samples go on without end: sample n belongs to epoch n / videos, so that a batch may hold the end
// of one epoch and the start of the next, and none is dropped.
typedef struct md_batch {
  int64_t first_sample;
  int size;
  uint8_t *clip[MD_NUM_SLOTS];  // [B,3,T,H,W] visual, [B,P,T,S,S] motion (NULL without motion)
  // For vq, vk, applied in the compiled step:
  uint8_t *flip[2];     // [B] 0 or 1
  float *color[2];      // [B,3,3] md_look's
  uint8_t *gray[2];     // [B]
  float *sigma[2];      // [B]
  int32_t *id, *label;  // [B]
} md_batch;

typedef struct md_loader_stats {
  int64_t batches, samples, replaced;  // delivered; samples that are substitutes
  int64_t decoded_frames, damaged_frames, missing_frames;
  int64_t gpu_frames;        // of the decoded ones
  int quarantined;           // videos given up
  int64_t wait_ns, work_ns;  // of the caller; of all workers together
} md_loader_stats;

typedef struct md_loader md_loader;
// NULL: reported. A video that fails is reported as a warning when the first batch that misses it
// is delivered, and never tried again; another one takes its place (same one in each run).
md_loader *md_loader_create(const md_loader_options *o, md_diags *d);
void md_loader_destroy(md_loader *l);
// Pointers in *out are valid until the next call. MD_ERR_DATA: reported; no batch, now and later.
md_status md_loader_next(md_loader *l, md_batch *out);
bool md_loader_is_ready(md_loader *l);  // md_loader_next would not wait
md_loader_stats md_loader_stats_now(md_loader *l);
// The same by codec, in order of appearance. False: there is no i-th one.
typedef struct md_loader_work {
  char codec[32];
  int64_t samples, frames;
  int64_t work_ns[MD_NUM_WORKS];
} md_loader_work;
bool md_loader_work_of(md_loader *l, int i, md_loader_work *work);
// Each video given up, in order of video id; *at from 0. NULL beyond the last.
const char *md_loader_quarantined(md_loader *l, int *at, md_fault *why);

// --- encode.c: RGB frames (packed, w * h) into a file, MPEG-4 in the container of its extension.
typedef struct md_encoder md_encoder;
md_encoder *md_encoder_open(const char *path, int w, int h, int fps,
                            md_diags *d);                  // NULL: reported
bool md_encoder_frame(md_encoder *e, const uint8_t *rgb);  // false: reported once
bool md_encoder_close(md_encoder *e);  // frees e; false: reported, nothing left behind

// --- png.c
void md_png_put(md_text *to, const md_image *im);

// --- scene.c: a shape that moves over a ground in one of eight ways (spec 12)
enum { MD_SCENE_MOTIONS = 8, MD_SCENE_FPS = 30 };
typedef struct md_scene md_scene;
// All that chance decides follows from (stream, number, seed). motion: 0 .. MD_SCENE_MOTIONS - 1.
md_scene *md_scene_create(const char *stream, int64_t number, uint64_t seed, int motion,
                          int frames);
void md_scene_destroy(md_scene *s);
void md_scene_frame(const md_scene *s, int t, int size, uint8_t *rgb);  // [size,size,3]
// Where in frame `to` that is which frame t shows at (x, y): at (x + u, y + v), in pixels; u, v
// [size,size]. Along its outline the shape's motion blends with the ground's, as the colours do.
void md_scene_flow(const md_scene *s, int t, int to, int size, float *u, float *v);

// --- truth.c: maps of made videos, from the motion that they were drawn with (spec 4.4d)
typedef struct md_truth_rule {
  const char *folder;  // NULL: no maps
  md_map_rule maps;    // of kind edge or flow
  double noise;  // deviation of what is added to u and v; pixels of a frame with short side 256
} md_truth_rule;

// --- shapes.c: sets of small videos, with a csv of their motions
typedef struct md_scene_set {
  const char *folder, *stem, *list;  // <folder>/<stem>_0000.mp4, ..., <folder>/<list>
  const char *name;                  // stream of what is drawn
  int64_t first;                     // number of the first video; its motion is number % 8
  int videos, size, frames;
  uint64_t seed;
  md_truth_rule truth;
} md_scene_set;
bool md_scene_set_make(const md_scene_set *o, md_diags *d);
// The maps of the video <folder>/<name>, which is complete, and shows s. False: reported.
bool md_truth_make(const md_scene_set *o, const md_scene *s, const char *name, md_diags *d);
typedef struct md_shapes_options {
  const char *folder;
  int videos, size;
  double seconds;
  uint64_t seed;
  md_truth_rule truth;
} md_shapes_options;
bool md_shapes_make(const md_shapes_options *o, md_diags *d);

// --- mini.c: the data of the miniature experiment (spec 9.1)
enum { MD_MINI_FRAMES = 64 };
typedef enum md_mini_split {
  MD_MINI_TRAIN,
  MD_MINI_TUNE,
  MD_MINI_TEST,
  MD_MINI_SPLITS
} md_mini_split;
extern const char *const md_mini_splits[];  // names, NULL-terminated
typedef struct md_mini_options {
  const char *folder;
  md_mini_split split;
  int64_t first;  // number of the first video
  int videos, size;
  uint64_t seed;
  md_truth_rule truth;
} md_mini_options;
int md_mini_usual(md_mini_split split);  // videos of the experiment
// Writes the videos and <folder>/<split>.csv.
bool md_mini_make(const md_mini_options *o, md_diags *d);

#endif
