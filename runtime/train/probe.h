// SPDX-License-Identifier: Apache-2.0
// What a trained visual network knows: its features of a set of videos, and how well labels can be
// read from them (spec §7, §9). Useful without training.
#ifndef RUNTIME_TRAIN_PROBE_H
#define RUNTIME_TRAIN_PROBE_H

#include "runtime/train/train.h"

// --- visual.c: the visual backbone of a checkpoint, with running statistics
typedef struct md_visual {
  md_step step;
  int stride;  // between the frames of a clip, in 1/30 s
  md_engine *engine;
} md_visual;
// Settings are those in the checkpoint; `clips` go through the network at once. NULL: reported.
md_visual *md_visual_create(const md_checkpoint *c, const md_engine_options *o, int clips,
                            md_diags *d);
void md_visual_destroy(md_visual *v);
// A checkpoint of the v.* tensors alone, without head, optimiser, keys and banks (spec §6). Features
// from it equal those from the whole file bit for bit.
bool md_visual_export(const md_checkpoint *c, const char *path, md_diags *d);

// --- features.c: a row of numbers for each video
typedef struct md_features {
  int64_t num, width;
  float *x;        // [num,width]
  int32_t *label;  // [num]; -1: none
  char **path;     // [num]
} md_features;
typedef struct md_features_options {
  int clips;    // of a video; their features are averaged; 0: 3
  bool to_end;  // starts (F - reach) i / (N - 1): the last clip ends with the video (spec §12.7);
                // else (F - span) i / N (spec §5.1)
  md_engine_options engine;
} md_features_options;
// Middle squares, no augmentation. A video that cannot be read is left out with a warning.
// NULL: reported (E0881: none could be read).
md_features *md_features_compute(const md_checkpoint *c, const md_dataset *data,
                                 const md_features_options *o, md_diags *d);
void md_features_destroy(md_features *f);
// <folder>/features.npy, f32 [num,width], and features.csv with the lines path,label,row. A folder
// that holds some already is refused (E0884).
bool md_features_may_save(const char *folder, md_diags *d);  // to be asked before hours of work
bool md_features_save(const md_features *f, const char *folder, md_diags *d);
md_features *md_features_load(const char *folder, md_diags *d);  // NULL: reported (E0880)

// --- lbfgs.c: the minimum of a smooth function
typedef struct md_minimum {
  double value, gradient;  // there; the largest component
  int steps;
  bool converged;
} md_minimum;
// Value at x[n], and its gradient to g[n].
typedef double md_function(const void *ctx, const double *x, double *g);
// Starts at x, ends where no component of the gradient exceeds `gradient`, or after max_steps, or
// where rounding lets no step descend. x is then the best point seen. Deterministic.
md_minimum md_lbfgs(md_function *f, const void *ctx, int64_t n, double gradient, int max_steps,
                    double *x);

// --- score.c: how often a guess is right
typedef struct md_score {
  int64_t num, hits;
  int classes;
  int64_t *confusion;  // [classes,classes]: row = label, column = guess
} md_score;
md_score md_score_of(const int32_t *label, const int32_t *guess, int64_t num, int classes);
void md_score_free(md_score *s);
double md_score_top1(const md_score *s);
double md_score_error(const md_score *s);  // standard error of top1: sqrt(p (1 - p) / num)
// Number of classes of both sets, labels counted from 0. 0: reported (labels missing, widths differ,
// fewer than two classes to learn, a number that is not finite).
int md_score_classes(const md_features *train, const md_features *test, md_diags *d);

// --- knn.c: the k training rows of largest cosine vote; equal votes go to the larger sum of cosines,
// then to the smaller label. k is at most train->num.
void md_knn(const md_features *train, const md_features *test, int k, int32_t *guess);

// --- linear.c: multinomial logistic regression on standardised features,
//     min_W,b  mean_i -log softmax(W x_i + b)[label_i] + l2/2 |W|^2
typedef struct md_linear_options {
  double l2;        // 0: 0.01
  double gradient;  // where it stops; 0: 1e-6
  int max_steps;    // 0: 1000
} md_linear_options;
typedef struct md_linear_probe md_linear_probe;
md_linear_probe *md_linear_fit(const md_features *train, int classes, const md_linear_options *o);
md_minimum md_linear_minimum(const md_linear_probe *p);
void md_linear_guess(const md_linear_probe *p, const md_features *f, int32_t *guess);
void md_linear_destroy(md_linear_probe *p);
// The function above at w [classes, width + 1], bias last; x is [num,width].
typedef struct md_linear_problem {
  const double *x;
  const int32_t *label;
  int64_t num, width;
  int classes;
  double l2;
} md_linear_problem;
double md_linear_loss(const void *problem, const double *w, double *gradient);

// --- sheet.c: what the two networks see of the first videos of a set
typedef struct md_sheet_options {
  const char *videos, *prefix;  // md_dataset_options
  const char *maps;             // folder of motion maps; NULL: differences of frames
  int rows, frames;             // videos at most; frames of each, evenly spaced; at least 1
} md_sheet_options;
// SVG elements from (0, 0) on, and their size. A video that cannot be shown is left out with a
// warning. False: reported (E0887: none can be shown).
bool md_sheet_put(const md_sheet_options *o, md_text *to, int *w, int *h, md_diags *d);

// --- picture.c: an SVG of curves of log.jsonl files, one panel a term, one line a run, and under
// them a sheet, if there is one (NULL: none). False: reported.
bool md_picture_save(const char *const *run_dir, int num_runs, const md_sheet_options *sheet,
                     const char *path, md_diags *d);
bool md_svg_save(const md_text *body, int w, int h, const char *path,
                 md_diags *d);                     // false: reported
void md_svg_put_text(md_text *to, const char *s);  // escaped, and nothing a terminal would obey

#endif
