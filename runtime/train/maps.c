// SPDX-License-Identifier: Apache-2.0
// Motion clips from files of maps: what the settings ask for and whether the folder has it. A single
// video without a usable map is the loader's business; here the mistakes that concern all of them.
#include "runtime/train/train.h"

#include "runtime/video/motion.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

// What mclip.input says.
typedef struct Input {
  const char *name;
  md_map_kind kind;
  bool signed_rgb, magnitude;
} Input;
static const Input inputs[] = {{.name = "diff", .kind = MD_MAP_DIFF},
                               {.name = "signed_rgb", .kind = MD_MAP_DIFF, .signed_rgb = true},
                               {.name = "edge", .kind = MD_MAP_EDGE},
                               {.name = "flow", .kind = MD_MAP_FLOW},
                               {.name = "mag3", .kind = MD_MAP_FLOW, .magnitude = true}};

static int word_index(const md_config *c, const char *key, const char *const *words) {
  int i = 0;
  while (words[i] && strcmp(md_config_text(c, key), words[i]) != 0) i++;
  MD_ASSERT(words[i], "%s is '%s'", key, md_config_text(c, key));
  return i;
}

static const Input *input_of(const md_config *c) {
  const char *name = md_config_text(c, "mclip.input");
  int i = 0;
  while (i < MD_COUNT(inputs) && strcmp(name, inputs[i].name) != 0) i++;
  MD_ASSERT(i < MD_COUNT(inputs), "mclip.input is '%s'", name);
  return &inputs[i];
}

// The command that makes what is missing, to be pasted.
static void hint_command(const md_config *c, md_diags *d) {
  const char *data = md_config_text(c, "data.train"), *maps = md_config_text(c, "data.maps");
  const char *prefix = md_config_text(c, "data.prefix");
  md_hint(d, "modistc dataset flow '%s'%s%s%s -o '%s' --kind=%s%s", *data ? data : "VIDEOS",
          *prefix ? " --prefix='" : "", prefix, *prefix ? "'" : "", *maps ? maps : "maps",
          md_map_kind_names[input_of(c)->kind], *maps ? "" : ", then data.maps=maps");
}

bool md_train_check_maps(const md_config *c, const md_step *s, md_diags *d) {
  if (s->mode != MD_MODE_MODIST) return true;
  const char *maps = md_config_text(c, "data.maps");
  const Input *input = input_of(c);
  if (!*maps && input->kind != MD_MAP_DIFF) {
    md_error(d, E0853, md_config_place(c, "mclip.input"),
             "mclip.input is %s, but data.maps is empty", input->name);
    hint_command(c, d);
    return false;
  }
  if (*maps && input->signed_rgb) {
    md_error(d, E0207, md_config_place(c, "mclip.input"),
             "mclip.input is signed_rgb, but maps hold no signed differences");
    md_hint(d, "leave data.maps out: they are made on the fly");
    return false;
  }
  if (!*maps && md_config_given(c, "mclip.gamma") && md_config_float(c, "mclip.gamma") > 0 &&
      md_config_bool(c, "clip.jitter")) {
    md_error(d, E0854, md_config_place(c, "mclip.gamma"),
             "mclip.gamma chooses clips by the scores of maps, but data.maps is empty");
    if (input->signed_rgb)
      md_hint(d, "maps of mclip.input=diff have scores, signed ones have none");
    else hint_command(c, d);
    return false;
  }
  struct stat st;
  if (!*maps) return true;
  if (stat(maps, &st) == 0 && S_ISDIR(st.st_mode)) return true;
  bool is_there = stat(maps, &st) == 0;
  md_error(d, E0850, MD_IN_FILE(maps), "folder of motion maps cannot be used: %s",
           is_there ? "it is no folder" : strerrordesc_np(errno));
  hint_command(c, d);
  return false;
}

bool md_maps_about(const char *folder, const md_dataset *data, md_map_info *about, md_diags *d) {
  md_arena *a = md_arena_create();
  md_map *found = NULL;
  md_fault f = {0};
  for (int i = 0; i < data->num_items && !found; i++)
    found = md_map_open(md_map_path(a, folder, data, i), &f);
  if (found) {
    *about = *md_map_about(found);
  } else {
    md_error(d, f.code, MD_IN_FILE(md_map_path(a, folder, data, data->num_items - 1)), "%s",
             f.text);
    if (data->num_items > 1)
      md_note(d, MD_NOWHERE, "nor has any other of %d videos its map", data->num_items);
  }
  bool ok = found != NULL;
  md_map_close(found);
  md_arena_destroy(a);
  return ok;
}

// Maps that are not there or damaged are the loader's business.
static bool are_alike(const char *folder, const md_dataset *data, const char *first, md_diags *d) {
  md_arena *a = md_arena_create();
  char other[MD_MAP_WORDS];
  bool ok = true;
  for (int i = 0; i < data->num_items && ok; i++) {
    md_map_info info;
    const char *path = md_map_path(a, folder, data, i);
    ok = !md_map_peek(path, &info) || strcmp(md_map_words(&info, other), first) == 0;
    if (ok) continue;
    md_error(d, E0851, MD_IN_FILE(path), "holds %s", other);
    md_note(d, MD_NOWHERE, "the first of the folder hold %s", first);
    md_hint(
        d,
        "'modistc dataset flow' into this folder, with one set of options, makes those anew that "
        "differ");
  }
  md_arena_destroy(a);
  return ok;
}

char *md_train_maps_name(const md_config *c, const md_step *s, const md_dataset *data,
                         md_diags *d) {
  const char *folder = md_config_text(c, "data.maps");
  char words[MD_MAP_WORDS] = "";
  if (*folder && s->mode == MD_MODE_MODIST) {
    md_map_info about;
    bool is_there = md_maps_about(folder, data, &about, d);
    if (!is_there) hint_command(c, d);
    if (!is_there || !md_maps_apart(folder, data, d) ||
        !are_alike(folder, data, md_map_words(&about, words), d))
      return NULL;
  }
  char *name = strdup(words);
  if (!name) md_out_of_memory(sizeof words);
  return name;
}

bool md_train_maps(const md_config *c, const md_dataset *data, md_motion_rule *r, md_diags *d) {
  static const char *const rules[] = {
      [MD_GAMMA_MEAN] = "clip_mean", [MD_GAMMA_ALL] = "all", [MD_GAMMA_FIRST] = "first", NULL};
  const char *folder = md_config_text(c, "data.maps");
  const Input *input = input_of(c);
  *r = (md_motion_rule){.maps = *folder ? folder : NULL,
                        .kind = input->kind,
                        .signed_rgb = input->signed_rgb,
                        .magnitude = input->magnitude,
                        .random_place = strcmp(md_config_text(c, "mclip.crop"), "random") == 0,
                        .gamma = md_config_float(c, "mclip.gamma"),
                        .rule = (md_gamma_rule)word_index(c, "mclip.rule", rules)};
  if (!r->maps) return true;
  md_map_info about;
  if (!md_maps_about(folder, data, &about, d)) {
    hint_command(c, d);
    return false;
  }
  if (about.kind == r->kind) return true;
  md_error(d, E0851, md_config_place(c, "mclip.input"), "mclip.input is %s, but '%s' holds %s maps",
           input->name, folder, md_map_kind_names[about.kind]);
  md_hint(d, "mclip.input=%s takes these", md_map_kind_names[about.kind]);
  return false;
}
