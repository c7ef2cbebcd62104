// SPDX-License-Identifier: Apache-2.0
// The training steps that can be compiled by name.
#include "models/models.h"

#include <string.h>

static void nets(md_step *s, const char *visual, const char *motion) {
  s->visual = *md_net_from(visual);
  s->motion = *md_net_from(motion);
}

static void modist_r3d50(md_step *s) { nets(s, "r3d50", "frames2d"); }

static void modist_r3d18(md_step *s) {
  nets(s, "r3d18", "motion18");
  s->clip = (md_clip){8, 128};
  s->mclip = (md_clip){16, 128};
}

static void modist_r3d18_slow(md_step *s) {
  modist_r3d18(s);
  s->visual = *md_net_from("r3d18_slow");
}

static void modist_tiny(md_step *s) {
  nets(s, "tiny_visual", "tiny_motion");
  s->augment = (md_augment){0};  // crop and flip only: fast above all
  s->clip = (md_clip){4, 32};
  s->mclip = (md_clip){4, 32};
  s->bank = 64;
}

// The settings that learnt in the prototype (spec §9.2, §9.4).
static void modist_mini(md_step *s) {
  nets(s, "mini_visual", "mini_motion");
  s->augment = (md_augment){0};  // it was tuned with crops alone
  s->clip = (md_clip){8, 32};
  s->mclip = (md_clip){8, 32};
  s->batch = 48;
  s->bank = 192;
  s->ema = 0.9;
  s->cross_key = s->enqueue_before = true;
  s->opt = MD_OPT_ADAMW;
  s->weight_decay = 0.01;
}

static void rgb_r3d50(md_step *s) {
  modist_r3d50(s);
  s->mode = MD_MODE_RGB;
}

static void supervised_r3d50(md_step *s) {
  modist_r3d50(s);
  s->mode = MD_MODE_SUPERVISED;
  s->augment = (md_augment){0};  // crop and flip only (spec §6)
  s->zero_init = true;
  s->classes = 400;
}

const md_model md_models[] = {
    {"modist-r3d50", "MoDist, R3D-50 and motion ResNet-50/8, 224x224", modist_r3d50},
    {"modist-r3d18", "MoDist, full 3D ResNet-18 and motion ResNet-18/8, 128x128", modist_r3d18},
    {"modist-r3d18-slow", "the same with temporal kernels in res4 and res5 only",
     modist_r3d18_slow},
    {"modist-tiny", "MoDist of one block a stage, 32x32: seconds on a CPU", modist_tiny},
    {"modist-mini", "MoDist of the miniature experiment, 32x32", modist_mini},
    {"rgb-r3d50", "the RGB-only baseline: L_v alone", rgb_r3d50},
    {"supervised-r3d50", "cross-entropy on labels", supervised_r3d50},
};
const int md_num_models = MD_COUNT(md_models);

void md_model_hint(const char *wrong, md_diags *d) {
  const char *names[64];
  MD_ASSERT(md_num_models <= MD_COUNT(names), "more models than expected");
  for (int i = 0; i < md_num_models; i++) names[i] = md_models[i].name;
  const char *near = md_nearest(wrong, names, md_num_models);
  if (near) md_hint(d, "did you mean '%s'?", near);
  else md_hint(d, "'modistc models' lists the models");
}

const md_model *md_model_from(const char *name) {
  for (int i = 0; i < md_num_models; i++)
    if (strcmp(md_models[i].name, name) == 0) return &md_models[i];
  return NULL;
}
