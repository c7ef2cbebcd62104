// SPDX-License-Identifier: Apache-2.0
// From batches to the inputs of the step. An input that the graph does not have is skipped: rgb-only
// training has no motion clips, a supervised step only one clip.
#include "runtime/train/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void fill(md_engine *e, const char *name, const void *from) {
  md_type type;
  void *to = md_engine_input(e, name, &type);
  if (to && from) memcpy(to, from, (size_t)md_type_bytes(&type));
}

static void fill_scalar(md_engine *e, const char *name, double x) {
  float value = (float)x;
  fill(e, name, &value);
}

static void fill_looks(md_engine *e, const char *clip, const md_batch *b, int i) {
  const struct {
    const char *name;
    const void *from;
  } each[] = {
      {"flip", b->flip[i]}, {"color", b->color[i]}, {"gray", b->gray[i]}, {"sigma", b->sigma[i]}};
  for (int k = 0; k < MD_COUNT(each); k++) {
    char name[32];
    snprintf(name, sizeof name, "%s_%s", clip, each[k].name);
    fill(e, name, each[k].from);
  }
}

// A permutation of the batch for the key networks and its inverse (spec §3.3), from (seed, step).
static void fill_orders(md_engine *e, const md_step *s, int64_t at, uint64_t seed) {
  int32_t *perm = md_engine_input(e, "perm", NULL), *unperm = md_engine_input(e, "unperm", NULL);
  if (!perm || !unperm) return;
  uint64_t key = md_hash_key("shuffle", seed);
  for (int64_t i = 0; i < s->batch; i++) perm[i] = (int32_t)i;
  for (int64_t i = s->batch - 1; i > 0; i--) {
    uint64_t draw = md_hash_at(key, (uint64_t)(at * s->batch + i));
    int64_t j = (int64_t)(draw % (uint64_t)(i + 1));
    int32_t swap = perm[i];
    perm[i] = perm[j];
    perm[j] = swap;
  }
  for (int64_t i = 0; i < s->batch; i++) unperm[perm[i]] = (int32_t)i;
}

static bool check_labels(const md_step *s, const md_batch *b, md_diags *d) {
  for (int i = 0; i < b->size; i++) {
    if (b->label[i] >= 0 && b->label[i] < s->classes) continue;
    md_error(d, E0842, MD_NOWHERE, "video %d has label %d, but labels lie in 0 to %lld", b->id[i],
             b->label[i], (long long)s->classes - 1);
    md_hint(d, "a list of videos has a line 'path label' for each; model.classes=N says how many");
    return false;
  }
  return true;
}

static md_crop_rule crop_rule(const md_config *c) {
  return (md_crop_rule){.centered = strcmp(md_config_text(c, "aug.crop"), "center") == 0,
                        .area_min = md_config_float(c, "aug.area_min"),
                        .area_max = md_config_float(c, "aug.area_max"),
                        .aspect_min = md_config_float(c, "aug.aspect_min"),
                        .aspect_max = md_config_float(c, "aug.aspect_max")};
}

static md_augment_rule augment_rule(const md_config *c) {
  return (md_augment_rule){.color = md_config_float(c, "aug.color"),
                           .strength = {[MD_BRIGHTNESS] = md_config_float(c, "aug.brightness"),
                                        [MD_CONTRAST] = md_config_float(c, "aug.contrast"),
                                        [MD_SATURATION] = md_config_float(c, "aug.saturation")},
                           .gray = md_config_float(c, "aug.gray"),
                           .blur = md_config_float(c, "aug.blur"),
                           .sigma_min = md_config_float(c, "aug.sigma_min"),
                           .sigma_max = md_config_float(c, "aug.sigma_max")};
}

static bool check_list(const md_dataset *data, const char *path, const md_step *s, md_diags *d) {
  for (int i = 0; i < data->num_items; i++) {
    const md_data_item *item = &data->items[i];
    if (item->label >= 0 && item->label < s->classes) continue;
    md_place at = {.file = path, .line = item->line};
    if (item->label < 0) md_error(d, E0842, at, "'%s' has no label", item->path);
    else
      md_error(d, E0842, at, "'%s' has label %d, but labels lie in 0 to %lld", item->path,
               item->label, (long long)s->classes - 1);
    md_hint(d, "supervised training takes a list with a line 'path label' for each video; "
               "model.classes=N says how many labels there are");
    return false;
  }
  return true;
}

md_dataset *md_train_data(const md_config *c, const md_step *s, md_diags *d) {
  const char *path = md_config_text(c, "data.train"), *prefix = md_config_text(c, "data.prefix");
  md_dataset *data =
      md_dataset_open(&(md_dataset_options){.path = path, .prefix = *prefix ? prefix : NULL}, d);
  if (!data || s->mode != MD_MODE_SUPERVISED || check_list(data, path, s, d)) return data;
  md_dataset_destroy(data);
  return NULL;
}

static md_decode decode_of(const md_config *c) {
  const char *text = md_config_text(c, "data.decode");
  return !strcmp(text, "nvdec")  ? MD_DECODE_NVDEC
         : !strcmp(text, "auto") ? MD_DECODE_AUTO
                                 : MD_DECODE_CPU;
}

md_loader *md_train_loader(const md_config *c, const md_step *s, const md_dataset *data,
                           const md_feed_options *from, md_diags *d) {
  md_loader_options o = {.data = data,
                         .first_sample = from->first,
                         .rule = {.visual = {.frames = (int)s->clip.frames,
                                             .stride = (int)md_config_int(c, "clip.stride"),
                                             .size = (int)s->clip.size},
                                  .in_sync = !md_config_bool(c, "clip.jitter"),
                                  .crop = crop_rule(c),
                                  .flip = md_config_float(c, "aug.flip"),
                                  .augment = augment_rule(c)},
                         .batch = (int)s->batch,
                         .workers = (int)md_config_int(c, "data.workers"),
                         .queue = (int)md_config_int(c, "data.queue"),
                         .decode = decode_of(c),
                         .gpu = from->gpu,
                         .deterministic = from->deterministic,
                         .seed = (uint64_t)md_config_int(c, "run.seed")};
  if (s->mode == MD_MODE_MODIST)
    o.rule.motion = (md_clip_shape){.frames = (int)s->mclip.frames,
                                    .stride = (int)md_config_int(c, "mclip.stride"),
                                    .size = (int)s->mclip.size};
  if (o.rule.motion.frames && !md_train_maps(c, data, &o.rule.from, d)) return NULL;
  return md_loader_create(&o, d);
}

bool md_train_feed(md_engine *e, const md_step *s, const md_batch *b, int64_t at, uint64_t seed,
                   double lr, md_diags *d) {
  static const char *const clips[MD_NUM_SLOTS] = {"vq", "vk", "mq", "mk"};
  if (s->mode == MD_MODE_SUPERVISED && !check_labels(s, b, d)) return false;
  for (int i = 0; i < MD_NUM_SLOTS; i++) fill(e, clips[i], b->clip[i]);
  for (int i = 0; i < 2; i++) fill_looks(e, clips[i], b, i);
  fill(e, "ids", b->id);
  fill(e, "labels", b->label);
  fill_orders(e, s, at, seed);
  fill_scalar(e, "lr", lr);
  fill_scalar(e, "c1", 1 - pow(s->beta1, (double)(at + 1)));
  fill_scalar(e, "c2", 1 - pow(s->beta2, (double)(at + 1)));
  return true;
}
