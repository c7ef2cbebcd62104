// SPDX-License-Identifier: Apache-2.0
// Clips in which something moves (spec 4.5). Scores are laid out on the 30 fps grid, as clips see the
// frames: r[i] is the score of the frame shown at i / 30 s. A clip from s holds r[s + j stride], so
// sums along steps of `stride` give each clip's mean by one subtraction:
//     sum[i] = r[i] + sum[i - stride]        clip(s) = sum[s + (frames - 1) stride] - sum[s - stride]
#include "runtime/video/motion.h"

#include <stdlib.h>

// Starts that are looked at: some 38 hours. It bounds the memory for a file that claims any length.
static const int64_t max_starts = (int64_t)1 << 22;

// What the rule says about a clip: it is taken where this is above gamma. `sum` counts scores, or
// with rule all, those above gamma.
static double value(const float *score, const md_timeline *t, const double *sum, int64_t s,
                    md_clip_shape clip, md_gamma_rule rule) {
  if (rule == MD_GAMMA_FIRST) return (double)score[md_timeline_index(t, (double)s)];
  int64_t last = s + (int64_t)(clip.frames - 1) * clip.stride;
  return (sum[last] - (s >= clip.stride ? sum[s - clip.stride] : 0)) / clip.frames;
}

// sum[i] for 0 <= i < num, of scores or of ones where they are above the limit.
static void fill(double *sum, int64_t num, const float *score, const md_timeline *t, int stride,
                 bool count, double above) {
  for (int64_t i = 0; i < num; i++) {
    double r = (double)score[md_timeline_index(t, (double)i)];
    sum[i] = (count ? (r > above ? 1 : 0) : r) + (i >= stride ? sum[i - stride] : 0);
  }
}

double md_gamma_start(const md_timeline *t, const float *score, md_clip_shape clip, double gamma,
                      md_gamma_rule rule, double unit) {
  int64_t span = (int64_t)clip.frames * clip.stride;
  int64_t starts = MD_MAX(0, (int64_t)md_timeline_length(t) - span) + 1;
  starts = MD_MIN(starts, max_starts);
  int64_t num = starts + span;
  double *sum = md_calloc((size_t)num, sizeof *sum);
  bool all = rule == MD_GAMMA_ALL;
  // Every frame is above gamma where their count is: the share must be the whole.
  double limit = all ? (clip.frames - 0.5) / clip.frames : gamma;
  fill(sum, num, score, t, clip.stride, all, gamma);
  int64_t valid = 0, start = 0;
  for (int64_t s = 0; s < starts; s++) valid += value(score, t, sum, s, clip, rule) > limit;
  int64_t nth = (int64_t)(unit * (double)valid);
  for (int64_t s = 0; s < starts && valid; s++)
    if (value(score, t, sum, s, clip, rule) > limit && nth-- == 0) start = s;
  if (!valid) {
    if (all) fill(sum, num, score, t, clip.stride, false, 0);
    md_gamma_rule by = all ? MD_GAMMA_MEAN : rule;
    double best = value(score, t, sum, 0, clip, by);
    for (int64_t s = 1; s < starts; s++) {
      double x = value(score, t, sum, s, clip, by);
      if (x > best) best = x, start = s;
    }
  }
  free(sum);
  return (double)start;
}
