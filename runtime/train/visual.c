// SPDX-License-Identifier: Apache-2.0
// The visual backbone alone: everything else of a checkpoint has served its turn when training ends.
// Its file is a checkpoint too, so that whatever reads the whole file reads this one.
#include "runtime/train/probe.h"

#include <stdlib.h>
#include <string.h>

static bool open_settings(const md_checkpoint *c, md_visual *v, md_diags *d) {
  const char *text = md_checkpoint_config(c), *path = md_checkpoint_path(c);
  md_config *config = md_config_parse(path, text, strlen(text), d);
  bool ok = config && md_train_step(config, &v->step, d);
  if (ok) v->stride = (int)md_config_int(config, "clip.stride");
  md_config_destroy(config);
  return ok;
}

md_visual *md_visual_create(const md_checkpoint *c, const md_engine_options *o, int clips,
                            md_diags *d) {
  md_visual *v = md_calloc(1, sizeof *v);
  bool ok = open_settings(c, v, d);
  v->step.batch = clips;
  md_graph *g = ok ? md_features_graph(&v->step, d) : NULL;
  if (g) v->engine = md_engine_create(g, o, d);
  if (v->engine && md_checkpoint_restore(c, v->engine, "v.", d)) return v;
  md_visual_destroy(v);
  return NULL;
}

void md_visual_destroy(md_visual *v) {
  if (!v) return;
  md_engine_destroy(v->engine);
  free(v);
}

bool md_visual_export(const md_checkpoint *c, const char *path, md_diags *d) {
  // The interpreter holds the states without compiling anything.
  md_engine_options o = {.backend = MD_BACKEND_INTERP, .passes = {.level = 0}};
  md_visual *v = md_visual_create(c, &o, 1, d);
  if (!v) return false;
  md_checkpoint_info info = {.step = md_checkpoint_step(c), .config = md_checkpoint_config(c)};
  bool ok = md_checkpoint_save(v->engine, path, &info, d);
  md_visual_destroy(v);
  return ok;
}
