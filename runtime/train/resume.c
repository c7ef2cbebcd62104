// SPDX-License-Identifier: Apache-2.0
// Going on with a run: the newest checkpoint that is whole, and its settings. What makes the run what
// it is cannot change in the middle of it; what only says where and how fast, may.
#include "runtime/train/train.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Everything else is part of the run, above all every setting that is yet to come.
static const char *const may_change[] = {"data.train",
                                         "data.maps",
                                         "data.prefix",
                                         "data.workers",
                                         "data.queue",
                                         "data.decode",
                                         "run.dir",
                                         "run.threads",
                                         "run.log_every",
                                         "run.checkpoint_every",
                                         "run.checkpoint_minutes",
                                         "run.keep",
                                         "run.save_minutes",
                                         "run.tensorboard"};

// A checkpoint that cannot be used is no reason to stop while there are older ones.
static md_checkpoint *try_open(const char *path, md_diags *d) {
  md_diags *own = md_diags_create();
  md_checkpoint *c = md_checkpoint_open(path, own);
  if (!c) {
    md_warning(d, MD_IN_FILE(path), "this checkpoint cannot be used and is skipped");
    char line[400];
    snprintf(line, sizeof line, "%.*s", (int)strcspn(md_diags_text(own), "\n"), md_diags_text(own));
    md_note(d, MD_NOWHERE, "%s", line);
  }
  md_diags_destroy(own);
  return c;
}

md_checkpoint *md_resume_find(const char *dir, md_diags *d) {
  int64_t *steps;
  int num;
  if (!md_run_checkpoints(dir, &steps, &num, d)) {
    free(steps);
    return NULL;
  }
  char *weights = md_run_weights_path(dir);
  bool has_weights = access(weights, F_OK) == 0;
  md_checkpoint *best = has_weights ? try_open(weights, d) : NULL, *c = NULL;
  free(weights);
  for (int i = num - 1; i >= 0 && !c; i--) {
    if (best && steps[i] <= md_checkpoint_step(best)) break;
    char *path = md_run_checkpoint_path(dir, steps[i]);
    c = try_open(path, d);
    free(path);
  }
  free(steps);
  if (c) {
    md_checkpoint_close(best);
    best = c;
  }
  if (best) return best;
  if (num || has_weights)
    md_error(d, E0863, MD_IN_FILE(dir), "no checkpoint of this run can be used");
  else md_error(d, E0863, MD_IN_FILE(dir), "there is no checkpoint to go on from");
  md_hint(d, "run.dir=DIR names the run, --resume=FILE a checkpoint; without --resume a new run "
             "starts");
  return NULL;
}

// A constant rate does not depend on how long the run is; the other curves end at `epochs`.
static bool is_free(const char *key, const md_config *old) {
  for (int i = 0; i < MD_COUNT(may_change); i++)
    if (strcmp(key, may_change[i]) == 0) return true;
  return strcmp(key, "epochs") == 0 && strcmp(md_config_text(old, "sched"), "constant") == 0;
}

// `auto` asks the GPU as `nvdec` does.
static void tell_of_decoder(const md_checkpoint *c, const char *before, const char *now,
                            md_diags *d) {
  if ((strcmp(before, "cpu") == 0) == (strcmp(now, "cpu") == 0)) return;
  md_warning(d, MD_IN_FILE(md_checkpoint_path(c)),
             "data.decode was '%s' and is '%s': the run goes on, but not bit for bit", before, now);
}

md_config *md_resume_config(const md_checkpoint *c, const md_config *given, md_diags *d) {
  const char *text = md_checkpoint_config(c);
  md_config *config = md_config_parse(md_checkpoint_path(c), text, strlen(text), d);
  bool ok = config != NULL;
  for (int i = 0; config && md_config_key(i); i++) {
    const char *key = md_config_key(i);
    if (!md_config_given(given, key) || md_config_equal(given, config, key)) continue;
    char now[120], before[120];
    if (is_free(key, config)) {
      if (strcmp(key, "data.decode") == 0)
        tell_of_decoder(c, md_config_text(config, key), md_config_text(given, key), d);
      md_config_set(config, key, md_config_text(given, key));
    } else {
      ok = md_error(d, E0864, md_config_place(given, key),
                    "%s is '%s', but the run was started with '%s'", key,
                    md_clean(md_config_text(given, key), now, sizeof now),
                    md_clean(md_config_text(config, key), before, sizeof before));
    }
  }
  if (ok) return config;
  if (config) md_hint(d, "without --resume and with another run.dir a new run starts");
  md_config_destroy(config);
  return NULL;
}

char *md_videos_name(const md_dataset *data) {
  md_hasher *h = md_hasher_create();
  for (int i = 0; i < data->num_items; i++) {
    const char *path = data->items[i].path, *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char label[16];
    int len = snprintf(label, sizeof label, "\n%d\n", data->items[i].label);
    md_hasher_add(h, name, strlen(name));
    md_hasher_add(h, label, (size_t)len);
  }
  char digits[33];
  md_text t = {0};
  md_put(&t, "%d %s", data->num_items, md_digest_text(md_hasher_end(h), digits));
  return t.s;
}

bool md_resume_check_videos(const md_checkpoint *c, const char *now, const char *path,
                            md_diags *d) {
  const char *before = md_checkpoint_videos(c);
  if (!*before || strcmp(before, now) == 0) return true;
  int num_before = (int)strtol(before, NULL, 10), num_now = (int)strtol(now, NULL, 10);
  if (num_before != num_now)
    md_error(d, E0865, MD_IN_FILE(path), "holds %d videos, but the run was started on %d", num_now,
             num_before);
  else
    md_error(d, E0865, MD_IN_FILE(path),
             "holds %d videos, but with other names, labels or order than those the run was "
             "started on",
             num_now);
  md_hint(d, "data.train may lie elsewhere now, but must hold the same videos in the same order");
  return false;
}

bool md_resume_check_maps(const md_checkpoint *c, const char *now, const char *folder,
                          md_diags *d) {
  const char *before = md_checkpoint_maps(c);
  if (!*before || strcmp(before, now) == 0) return true;
  char clean[2 * MD_MAP_WORDS];
  md_error(d, E0867, MD_IN_FILE(folder), "holds %s", now);
  md_note(d, MD_NOWHERE, "the run was started on %s", md_clean(before, clean, sizeof clean));
  md_hint(
      d,
      "data.maps may lie elsewhere now, but must hold maps that were made with the same options");
  return false;
}
