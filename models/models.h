// SPDX-License-Identifier: Apache-2.0
// Networks, heads, losses and the training step, declared as graphs. The map of this folder.
// A new network is one md_net row in nets.c; a new layout of blocks is one short function.
#ifndef MODELS_MODELS_H
#define MODELS_MODELS_H

#include "graph/graph.h"

// --- nets.c: the rows ----------------------------------------------------------------------------

typedef enum md_head { MD_HEAD_NONE, MD_HEAD_LINEAR, MD_HEAD_MLP } md_head;

// A residual network over [n,c,t,h,w] (spec §1; field defaults in nets.c).
typedef struct md_net {
  const char *name, *doc;
  int in_channels;
  bool stacked;     // frames are channels: c*T + t, T = 1 inside (spec §1.3 stack48)
  bool bottleneck;  // else basic blocks
  int stem_width;
  md_dim3 stem_kernel, stem_stride;
  bool pool;                     // max pool 1x3x3, stride 1,2,2 after the stem
  int blocks[4], width[4];       // inner width; a bottleneck's output is four times it
  int kernel_t[4];               // temporal kernel of conv a
  bool both_temporal;            // basic blocks: conv b has it too
  int stride_s[4], stride_t[4];  // of the first block of a stage; 0 means 1
  int res5_dilation;             // 0 means 1; 2 with stride_s[3] = 1: the detector variant
  int frames, size;              // of the clip that it is usually given
  md_head head;
  int hidden, embed;  // hidden 0: as wide as the features
} md_net;
extern const md_net md_nets[];
extern const int md_num_nets;
const md_net *md_net_from(const char *name);
int md_net_features(const md_net *net);  // channels after global pooling
// Size of a network, by building it once for a clip [1,c,frames,size,size]; 0: its usual clip.
// Multiply-accumulates are those of convolutions and matrix products, padding counted.
typedef struct md_net_size {
  int64_t params, macs;
} md_net_size;
md_net_size md_net_measure(const md_net *net, int64_t frames, int64_t size, bool with_head);

// --- net.c: how a network becomes a graph --------------------------------------------------------

// Learnable states in order of declaration.
typedef struct md_param {
  md_val val;
  const char *name;
} md_param;
typedef struct md_params {
  md_param *item;
  int num, cap;
} md_params;

typedef struct md_net_options {
  bool train;             // batch statistics; running statistics are updated
  bool track;             // train: keep running statistics as states (key networks need none)
  int64_t bn_groups;      // ghost batches (spec §3.3); 0 means 1
  bool zero_init;         // gamma of the last norm of a block starts at 0
  md_params *params;      // collects learnable states; NULL: not wanted
  const char *init_from;  // states start as copies of this prefix's, e.g. "v" for the key network
  bool hash_init;         // uniform by fan-in, as the golden sets use
  md_val *stage;          // six values when not NULL: stem, res2..res5, pooled
} md_net_options;

// x [n,in,t,h,w] -> features [n,f]. States are named `<prefix>.s1.conv1.w`, ... (spec §1.1).
md_val md_net_trunk(md_builder *b, const md_net *net, const char *prefix, const md_net_options *o,
                    md_val x);
// features [n,f] -> embedding [n,embed], not normalised; the features for MD_HEAD_NONE.
md_val md_net_head(md_builder *b, const md_net *net, const char *prefix, const md_net_options *o,
                   md_val features);
// Fully connected layer x [n,i] -> [n,o] with bias, states `<scope>.<name>.{w,b}`.
md_val md_linear(md_builder *b, const md_net_options *o, const char *name, int64_t out, md_val x);

// --- augment.c: what happens to a visual clip in front of the network ----------------------------

// Stages that are part of the graph. A stage that no clip will need is left out.
typedef struct md_augment {
  bool color, gray, blur;
} md_augment;
enum { MD_COLOR_STAGES = 3, MD_COLOR_TERMS = 3 };
// raw u8 [b,3,t,s,s], 0..255 -> f32, augmented and normalised: (x/255 - 0.45) / 0.225 (spec §5.1).
// Declares the inputs of what was drawn: <name>_flip u8 [b]; <name>_color f32 [b,3,3], a row (a, m, g)
// for each stage; <name>_gray u8 [b]; <name>_sigma f32 [b] of the 3x3 Gaussian, 0: not blurred.
md_val md_augment_clip(md_builder *b, const md_augment *a, const char *name, md_val raw);

// --- step.c: the training step -------------------------------------------------------------------

typedef enum md_mode { MD_MODE_MODIST, MD_MODE_RGB, MD_MODE_SUPERVISED } md_mode;
typedef enum md_optimizer { MD_OPT_SGD, MD_OPT_ADAMW } md_optimizer;
typedef struct md_clip {
  int64_t frames, size;
} md_clip;

typedef struct md_step {
  md_net visual, motion;
  md_mode mode;
  int64_t batch;
  md_augment augment;          // of visual clips; motion clips are taken as they are
  md_clip clip, mclip;         // visual and motion input, [3,T,S,S] and [P,T,S,S]
  int motion_planes;           // P: 1 (also for 0), or 3 that are stored around 128 (spec 4.1, 4.2)
  double tau, w_v, w_m, w_mv;  // spec §2; a weight of 0 removes the term
  bool cross_key;              // cross_neg = key: negatives from the key's modality
  double ema;                  // lambda
  int64_t bank;                // rows of each bank
  bool bank_empty, enqueue_before;
  int64_t bn_groups;
  bool zero_init;
  md_optimizer opt;
  double momentum, weight_decay, beta1, beta2, adam_eps;
  bool nesterov, decay_1d;
  int64_t classes;  // supervised
  bool raw_inputs, hash_init,
      track_keys;  // golden sets: f32 clips, uniform init, statistics of keys
} md_step;

md_step md_step_defaults(void);
// Inputs: vq, vk u8 [b,3,t,s,s]; with their draws (augment.c); mq, mk u8 [b,P,t,s,s]; ids i32 [b];
// lr f32 [1]; adamw: c1, c2 f32 [1]; bn_groups > 1: perm, unperm i32 [b]; supervised: labels i32 [b].
// Results: loss, and by mode loss_v, loss_m, loss_vm, loss_mv, top1_v, ..., std_v, std_m.
// States: v.* m.* (online), vk.* mk.* (momentum), sgd.* or adam.*, bank.v, bank.m, bank.ids, bank.ptr.
// NULL: reported.
md_graph *md_step_graph(const md_step *s, md_diags *d);
// Evaluation: clip u8 [b,3,t,s,s] -> features [b,f] of the visual network with running statistics.
md_graph *md_features_graph(const md_step *s, md_diags *d);

// --- models.c: what `modistc models` lists -------------------------------------------------------
typedef struct md_model {
  const char *name, *doc;
  void (*fill)(md_step *s);
} md_model;
extern const md_model md_models[];
extern const int md_num_models;
const md_model *md_model_from(const char *name);
void md_model_hint(const char *wrong,
                   md_diags *d);  // of an error: the nearest name, or who lists them

#endif
