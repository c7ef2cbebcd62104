// SPDX-License-Identifier: Apache-2.0
// The networks as rows (spec §1, §9.2; tiny ones as in the golden sets).
#include "models/models.h"

#include <string.h>

// clang-format off
#define RESNET_STEM .in_channels = 3, .stem_stride = {{1, 2, 2}}
#define RESNET50    .bottleneck = true, .pool = true, .blocks = {3, 4, 6, 3}, .stride_s = {1, 2, 2, 2}
#define VISUAL      .head = MD_HEAD_MLP, .hidden = 2048, .embed = 128
#define CLIP(t, s)  .frames = (t), .size = (s)
#define TINY        .head = MD_HEAD_MLP, .embed = 16, .blocks = {1, 1, 1, 1}

const md_net md_nets[] = {
  {"r3d50", "R3D-50, temporal kernels in res4 and res5 (spec 1.1)", RESNET_STEM, CLIP(8, 224), RESNET50, VISUAL,
   .stem_width = 64, .stem_kernel = {{5, 7, 7}}, .width = {64, 128, 256, 512}, .kernel_t = {1, 1, 3, 3}},
  {"r3d18", "full 3D ResNet-18: 3x3x3 everywhere, no pool", RESNET_STEM, CLIP(8, 128), VISUAL,
   .stem_width = 64, .stem_kernel = {{3, 7, 7}}, .blocks = {2, 2, 2, 2}, .width = {64, 128, 256, 512},
   .kernel_t = {3, 3, 3, 3}, .both_temporal = true, .stride_s = {1, 2, 2, 2}, .stride_t = {1, 2, 2, 2}},
  {"r3d18_slow", "ResNet-18 with temporal kernels in res4 and res5 (spec 1.2)", RESNET_STEM, CLIP(8, 128), VISUAL, .pool = true,
   .stem_width = 64, .stem_kernel = {{5, 7, 7}}, .blocks = {2, 2, 2, 2}, .width = {64, 128, 256, 512},
   .kernel_t = {1, 1, 3, 3}, .stride_s = {1, 2, 2, 2}},
  {"frames2d", "motion ResNet-50 of 1/8 width, frame by frame (spec 1.3)", RESNET_STEM, CLIP(16, 224), RESNET50, VISUAL,
   .stem_width = 8, .stem_kernel = {{1, 7, 7}}, .width = {8, 16, 32, 64}, .kernel_t = {1, 1, 1, 1}},
  {"frames2d_stem5", "the same with a stem over 5 frames", RESNET_STEM, CLIP(16, 224), RESNET50, VISUAL,
   .stem_width = 8, .stem_kernel = {{5, 7, 7}}, .width = {8, 16, 32, 64}, .kernel_t = {1, 1, 1, 1}},
  {"stack48", "the same on 16 frames stacked as 48 channels", RESNET_STEM, CLIP(16, 224), RESNET50, VISUAL, .stacked = true,
   .stem_width = 8, .stem_kernel = {{1, 7, 7}}, .width = {8, 16, 32, 64}, .kernel_t = {1, 1, 1, 1}},
  {"motion18", "motion ResNet-18 of width 8 (spec 1.2)", RESNET_STEM, CLIP(16, 128), VISUAL, .pool = true,
   .stem_width = 8, .stem_kernel = {{1, 7, 7}}, .blocks = {2, 2, 2, 2}, .width = {8, 16, 32, 64},
   .kernel_t = {1, 1, 1, 1}, .stride_s = {1, 2, 2, 2}},
  {"tiny_visual", "R3D of one block a stage", RESNET_STEM, CLIP(4, 32), TINY, .bottleneck = true, .pool = true, .stride_s = {1, 2, 2, 2},
   .stem_width = 8, .stem_kernel = {{5, 7, 7}}, .width = {8, 8, 8, 16}, .kernel_t = {1, 1, 3, 3}},
  {"tiny_motion", "motion network of one block a stage", RESNET_STEM, CLIP(4, 32), TINY, .bottleneck = true, .pool = true, .stride_s = {1, 2, 2, 2},
   .stem_width = 4, .stem_kernel = {{1, 7, 7}}, .width = {4, 4, 8, 8}, .kernel_t = {1, 1, 1, 1}},
  {"tiny_r3d18", "full 3D network of one block a stage", RESNET_STEM, CLIP(4, 32), TINY,
   .stem_width = 8, .stem_kernel = {{3, 7, 7}}, .width = {8, 8, 16, 16}, .kernel_t = {3, 3, 3, 3},
   .both_temporal = true, .stride_s = {1, 2, 2, 2}, .stride_t = {1, 2, 2, 2}},
  {"mini_visual", "visual network of the miniature experiment (spec 9.2)", RESNET_STEM, CLIP(8, 32), .pool = true,
   .head = MD_HEAD_MLP, .hidden = 128, .embed = 64, .blocks = {1, 1, 1, 1}, .stride_s = {1, 1, 2, 2},
   .stem_width = 16, .stem_kernel = {{5, 5, 5}}, .width = {16, 32, 64, 128}, .kernel_t = {1, 1, 3, 3}},
  {"mini_motion", "motion network of the miniature experiment (spec 9.2)", RESNET_STEM, CLIP(8, 32), .pool = true,
   .head = MD_HEAD_MLP, .hidden = 128, .embed = 64, .blocks = {1, 1, 1, 1}, .stride_s = {1, 1, 2, 2},
   .stem_width = 8, .stem_kernel = {{5, 5, 5}}, .width = {8, 16, 32, 64}, .kernel_t = {1, 1, 1, 1}},
};
// clang-format on
const int md_num_nets = MD_COUNT(md_nets);

const md_net *md_net_from(const char *name) {
  for (int i = 0; i < md_num_nets; i++)
    if (strcmp(md_nets[i].name, name) == 0) return &md_nets[i];
  return NULL;
}

int md_net_features(const md_net *net) { return net->width[3] * (net->bottleneck ? 4 : 1); }
