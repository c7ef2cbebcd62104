// SPDX-License-Identifier: Apache-2.0
// Motion maps from pixels (spec 4): optical flow, edges of its magnitude, the files they are kept in,
// the tool that makes them, and what training draws by their scores.
#ifndef RUNTIME_VIDEO_MOTION_H
#define RUNTIME_VIDEO_MOTION_H

#include "runtime/video/video.h"

// --- flow.c: TV-L1 optical flow (spec 4.4b). One thread a call; the same bits on every machine.
// Zero is the default.
typedef struct md_flow_options {
  int levels, warps;         // of the pyramid (5), and linearisations a level (5)
  int outer, inner;          // a warp: (1) median filters, each followed by at most (30) iterations
  int min_side;              // no level is smaller (16 pixels)
  float step;                // size of a level by the one below (0.5)
  float tau, lambda, theta;  // step of the dual (0.25), data term (0.15), coupling (0.3)
  float epsilon;             // stops when the mean change is less (0.01 pixels); negative: never
  float blur;                // Gaussian before each level (0.8 pixels); negative: none
  bool no_median;            // 5x5 of both fields, before each outer round
} md_flow_options;

typedef struct md_flow md_flow;                                   // buffers for one size of frames
md_flow *md_flow_create(const md_flow_options *o, int w, int h);  // o may be NULL
void md_flow_destroy(md_flow *f);
// Grey planes from[w*h], to[w*h] in 0..255, finite. A point (x, y) of `from` is seen in `to` at
// (x + u, y + v), in pixels: with from = I_t and to = I_{t-lag} this is the flow of spec 4.3.
void md_flow_run(md_flow *f, const float *from, const float *to, float *u, float *v);
int64_t md_flow_work(const md_flow *f);  // pixels times iterations of the last run

// --- edges.c: a flow as bytes, one value a pixel and plane
extern const char *const md_map_kind_names[MD_NUM_MAP_KINDS + 1];  // NULL-terminated
int md_map_planes(md_map_kind k);                                  // 1, or 3 for flow
// E = sqrt(gx^2 + gy^2 + 1e-12), gx and gy the Sobel sums of the magnitude m[w*h] times `scale`,
// replicate border; q = round(255 min(E, clamp) / clamp) (spec 4.3; recipes: scale 1/8, clamp 10).
void md_motion_edges(const float *m, int w, int h, float scale, float clamp, uint8_t *q);
// q = 128 + round(127 max(-1, min(x / clamp, 1))): the network sees (q - 128) / 127 in [-1, 1], and no
// motion is exactly 0 (spec 4.2).
void md_motion_signed(const float *x, int64_t n, float clamp, uint8_t *q);
void md_motion_magnitude(const float *u, const float *v, int64_t n, float *m);
// Y = 0.299 R + 0.587 G + 0.114 B, 0..255.
void md_motion_grey(const md_image *im, float *grey);

// --- mapfile.c: .mmap1, the maps of one video, readable frame by frame
// magic "MMAP1\0", u8 kind, u8 planes, u32 frames h w, u32 fps_num fps_den, u32 lag lag30 short_side,
// f32 unit scale clamp, u32 is_true, u64 bytes and i64 mtime (ns) of the video, u64 checksum: 80 bytes. Then
// f32 score[T], u64 offset[T+1], u64 checksum[T], and for each frame its planes [P,h,w] as a zlib
// stream. Little endian. A checksum is the low half of XXH3-128: of header and tables with that field
// 0; of a frame's planes.
enum { MD_MAP_MAX_FRAMES = 1000000, MD_MAP_MAX_SIDE = 8192, MD_MAP_MAX_BYTES = 1 << 26 };
typedef struct md_map_info {
  md_map_kind kind;
  int frames, w, h;
  int fps_num, fps_den;   // mean rate of the video
  int lag;                // native frames between the two that are compared; 0: there is only one
  int lag30, short_side;  // what was asked for: frames of 1/30 s, pixels
  float unit;             // a pixel of the map is this many pixels of flow
  float scale, clamp;     // of Sobel's sums; of the values
  bool is_true;           // from the known motion of a made video, not estimated
  int64_t source_bytes, source_mtime;
} md_map_info;

// What rule and video say; size, frames and lag are still 0. False: the video is not there.
bool md_map_info_of(const md_map_rule *full, const char *video, md_map_info *i);

typedef struct md_map_writer md_map_writer;
md_map_writer *md_map_create(const char *path, const md_map_info *info,
                             md_diags *d);  // NULL: reported
// The next frame: planes [P,h,w]; score: mean of the network's input, 0..1. Sticky failure.
bool md_map_add(md_map_writer *w, const uint8_t *planes, float score);
// The map of frame t, and of the frames before it that have none.
bool md_map_add_until(md_map_writer *w, int t, const uint8_t *planes, float score);
bool md_map_commit(md_map_writer *w);  // after the last frame; frees w. False: reported, no file
void md_map_abort(md_map_writer *w);   // frees w, leaves nothing; NULL is fine

typedef struct md_map md_map;
// Trusts nothing: sizes, offsets and checksums are checked. NULL: E0850 not there, E0851 not usable.
md_map *md_map_open(const char *path, md_fault *f);
void md_map_close(md_map *m);
const md_map_info *md_map_about(const md_map *m);
// The header alone, whose checksum is not looked at. False: there is none.
bool md_map_peek(const char *path, md_map_info *i);
const float *md_map_scores(const md_map *m);  // [frames]
// Planes [P,h,w] of frame t; valid until the next call. NULL: see *f.
const uint8_t *md_map_frame(md_map *m, int t, md_fault *f);
void md_map_plane(const uint8_t *plane, int w, const md_square *s, uint8_t *out);
// How maps were made, whatever their video: kind and options. Equal texts: alike.
enum { MD_MAP_WORDS = 160 };
const char *md_map_words(const md_map_info *i, char text[MD_MAP_WORDS]);

// --- edges.c, too: what maps of estimated and of true flow share
// The rule with its defaults written out.
md_map_rule md_map_rule_full(md_map_rule r);
float md_map_unit(int w, int h);  // of md_map_info
// u, v[w*h] in pixels of the map, of kind edge or flow; they are changed, m[w*h] is room to work in.
void md_map_planes_from(const md_map_info *i, float *u, float *v, float *m, uint8_t *planes);
float md_map_score(const md_map_info *i, const uint8_t *planes);  // for md_map_add

// --- maps.c: the maps of a data set
// folder/<path of the video below the data set>.mmap1. A step up in that path is spelled `__`.
char *md_map_path(md_arena *a, const char *folder, const md_dataset *set, int video);
// False: reported, two videos would share a map.
bool md_maps_apart(const char *folder, const md_dataset *set, md_diags *d);

typedef struct md_maps_progress {
  int videos, made, kept, failed;  // of the set; so far
  int64_t frames;                  // of those that were made
  double seconds;                  // since the start
} md_maps_progress;
typedef struct md_maps_options {
  const md_dataset *set;
  const char *folder;
  md_map_rule rule;
  int jobs;  // threads; at least 1
  // Called by the caller's thread some ten times a second; false stops. NULL: none.
  bool (*tick)(void *ctx, const md_maps_progress *p);
  void *ctx;
} md_maps_options;
// Maps that are complete, with these parameters and of the same file (size, time), are kept. A video
// that fails is a warning and a line `path<tab>reason` of folder/quarantine.txt. False: reported (the
// folder, the disk); *out is filled in any case.
bool md_maps_make(const md_maps_options *o, md_maps_progress *out, md_diags *d);

// --- gamma.c: starts of clips in which something moves (spec 4.5)
// Of the starts 0, 1, 2, ... (frames of 1/30 s) whose clip lies in the video, one whose scores are
// above gamma, all equally likely by unit in [0, 1); if there is none, the first with the largest mean
// (rule first: the largest first score). score: one for each frame of t.
double md_gamma_start(const md_timeline *t, const float *score, md_clip_shape clip, double gamma,
                      md_gamma_rule rule, double unit);

// --- mapclip.c: motion clips of a sample from the file of its video
// Fills out->clip[MD_MQ] and [MD_MK], [P,T,S,S]. False: the file is missing, damaged, of another kind,
// or not of this video; *f says which.
bool md_map_clips(const char *path, const md_timeline *t, const md_sample_rule *r, uint64_t key,
                  md_sample_out *out, md_fault *f);

#endif
