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
void md_taps(md_tap *tap, int num, double in_first, double in_per_out, int in_size);
// Bilinear resize of a box to size x size; channel c goes to out + c * plane.
void md_image_crop(const md_image *im, md_box box, int size, uint8_t *out, int64_t plane);

// --- decode.c: the only file that knows FFmpeg. One file, its main video stream, frame by frame.
// Zero is the default. A file beyond a limit is refused, never cut short: a clip must not depend on
// how fast a machine is.
typedef struct md_video_limits {
  int64_t max_pixels;   // of one frame; default 2^25 (8K UHD fits)
  int64_t max_frames;   // and packets, of one pass; default 1,000,000
  double max_seconds;   // wall time of one pass, against hangs; default 120
  atomic_bool *cancel;  // may be NULL; when it becomes true, reading fails soon
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
// Before the first md_video_next: packets before the key frame with this time are not decoded.
void md_video_start_at(md_video *v, int64_t pts);
int64_t md_video_damaged(const md_video *v);  // frames and packets with errors so far
int64_t md_video_packets(const md_video *v);
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

// --- sample.c: what is drawn for one sample. Pure functions of (seed, epoch, video id, try).
typedef struct md_clip_shape {
  int frames, stride, size;
} md_clip_shape;
typedef enum md_slot { MD_VQ, MD_VK, MD_MQ, MD_MK, MD_NUM_SLOTS } md_slot;
typedef struct md_sample_rule {
  md_clip_shape visual, motion;  // motion.frames 0: no motion clips
  bool in_sync;                  // temporal_jitter = 0: mk starts with vq, mq with vk
  md_crop_rule crop;
  double flip;     // probability
  int short_side;  // of decoded visual frames; 0: size * 10/7, so 320 for 224
} md_sample_rule;
uint64_t md_sample_key(uint64_t seed, int64_t epoch, int64_t video, int attempt);
// starts[s] in frames of the 30 fps base.
void md_sample_starts(const md_sample_rule *r, uint64_t key, const md_timeline *t,
                      double starts[MD_NUM_SLOTS]);
bool md_sample_flip(const md_sample_rule *r, uint64_t key, md_slot slot);
md_box md_sample_crop(const md_sample_rule *r, uint64_t key, md_slot slot, int w, int h);
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
// Whole frame resized so that its short side (square pixels) is `size`; middle size x size.
void md_motion_plane(const uint16_t *diff, const md_image *geometry, int size, uint8_t *out);

// --- gather.c: one forward pass over a video fills all clips of a sample.
typedef struct md_gather md_gather;  // buffers of one thread
md_gather *md_gather_create(void);
void md_gather_destroy(md_gather *g);
typedef struct md_sample_out {
  uint8_t *clip[MD_NUM_SLOTS];  // [3,T,H,W] for visual, [1,T,S,S] for motion slots
  int64_t decoded, damaged;     // frames
  int64_t missing;              // places in clips that a neighbour had to fill
} md_sample_out;
// A frame that is promised but does not decode is replaced by the next one that does, and counted.
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
  md_arena *arena;
} md_dataset;
typedef struct md_dataset_options {
  const char *path;        // a folder, or a list with a line `path[<sep>label]` for each video
  const char *prefix;      // of relative paths in a list; NULL: the folder of the list
  char separator;          // of a list: ' ' or ','; 0: comma in lines that have one, else space
  const char *extensions;  // of a folder, "mp4,webm"; NULL: all that we can read
} md_dataset_options;
// A folder is walked to all depths; linked folders are followed, each folder is read once, names
// that start with a dot are not videos. Sorted by bytes of the path. NULL: reported.
md_dataset *md_dataset_open(const md_dataset_options *o, md_diags *d);
void md_dataset_destroy(md_dataset *s);

// --- loader.c: batches in a fixed order, made by worker threads.
typedef struct md_loader_options {
  const md_dataset *data;  // borrowed for the life of the loader
  md_sample_rule rule;
  int batch;
  int workers;  // 0: md_loader_next does the work itself
  int queue;    // batches that may be ready or in work; 0: 2
  uint64_t seed;
  int64_t first_sample;    // where to start, for a resumed run
  md_video_limits limits;  // `cancel` is the loader's own
} md_loader_options;

// Samples go on without end: sample n belongs to epoch n / videos, so that a batch may hold the end
// of one epoch and the start of the next, and none is dropped.
typedef struct md_batch {
  int64_t first_sample;
  int size;
  uint8_t *clip[MD_NUM_SLOTS];  // [B,3,T,H,W] visual, [B,1,T,S,S] motion (NULL without motion)
  uint8_t *flip[2];             // [B] for vq, vk: 0 or 1, applied in the compiled step
  int32_t *id, *label;          // [B]
} md_batch;

typedef struct md_loader_stats {
  int64_t batches, samples, replaced;  // delivered; samples that are substitutes
  int64_t decoded_frames, damaged_frames, missing_frames;
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
md_loader_stats md_loader_stats_now(md_loader *l);
// The i-th video given up, in order of video id; NULL beyond the last.
const char *md_loader_quarantined(md_loader *l, int i, md_fault *why);

// --- encode.c: RGB frames (packed, w * h) into a file, MPEG-4 in the container of its extension.
typedef struct md_encoder md_encoder;
md_encoder *md_encoder_open(const char *path, int w, int h, int fps,
                            md_diags *d);                  // NULL: reported
bool md_encoder_frame(md_encoder *e, const uint8_t *rgb);  // false: reported once
bool md_encoder_close(md_encoder *e);  // frees e; false: reported, nothing left behind

// --- shapes.c: a set of small videos with eight kinds of motion, and videos.csv with their labels
typedef struct md_shapes_options {
  const char *folder;
  int videos, size;
  double seconds;
  uint64_t seed;
} md_shapes_options;
bool md_shapes_make(const md_shapes_options *o, md_diags *d);

#endif
