// SPDX-License-Identifier: Apache-2.0
// A checkpoint: every state of the step in one safetensors file, with what is needed to make sense of
// them. Weights, averages, momenta, banks, ring and statistics are states; learning rate, counters,
// random numbers and the order of the data follow from the settings and the step number, which stand
// in the metadata. A seal over the whole file tells a damaged one from a good one.
#include "runtime/train/train.h"

#include "base/safetensors.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 5 };  // states that a message names, of each kind

struct md_checkpoint {
  char *path;
  md_safetensors *file;
  int64_t step;
};

// Without its data, which a GPU would have to send.
static md_st_tensor tensor_of(md_engine *e, const char *name) {
  const md_graph *g = md_engine_graph(e);
  md_type type = *md_type_in(g, md_find_state(g, name));
  md_st_tensor t = {.name = name,
                    .dtype = type.dtype,
                    .rank = type.shape.rank,
                    .bytes = (size_t)md_elements(&type.shape) * (size_t)md_dtype_size(type.dtype)};
  memcpy(t.dim, type.shape.dim, sizeof type.shape.dim);
  return t;
}

// The seal is looked at first: in a damaged file no other part means anything.
static bool check(md_checkpoint *c, md_diags *d) {
  md_place at = MD_IN_FILE(c->path);
  const char *format = md_safetensors_meta(c->file, "format");
  const char *step = md_safetensors_meta(c->file, "step");
  if (!md_safetensors_meta(c->file, "checksum")) {
    md_error(d, E0861, at, "is a safetensors file, but no checkpoint: it has no checksum");
    md_hint(d, "checkpoints are written by 'modistc train'; 'modistc inspect %s' shows this one",
            c->path);
    return false;
  }
  if (!md_safetensors_sealed(c->file, "checksum")) {
    md_error(d, E0860, at, "checkpoint is damaged: its checksum differs");
    md_hint(d, "--resume without a file takes the newest one of run.dir that is whole");
    return false;
  }
  if (!format || strcmp(format, MD_CHECKPOINT_FORMAT) != 0) {
    char clean[64];
    md_error(d, E0861, at, "is of format '%s', but '" MD_CHECKPOINT_FORMAT "' is read here",
             md_clean(format ? format : "", clean, sizeof clean));
    md_hint(d, "it was written by another version of modist");
    return false;
  }
  if (!step || !md_parse_int(step, &c->step) || c->step < 0)
    return md_error(d, E0861, at, "does not say after which step it was written");
  if (!md_safetensors_meta(c->file, "config")) return md_error(d, E0861, at, "holds no settings");
  return true;
}

md_checkpoint *md_checkpoint_open(const char *path, md_diags *d) {
  md_safetensors *file = md_safetensors_read(path, d);
  if (!file) return NULL;
  md_checkpoint *c = md_calloc(1, sizeof *c);
  c->path = strdup(path);
  if (!c->path) md_out_of_memory(strlen(path));
  c->file = file;
  if (check(c, d)) return c;
  md_checkpoint_close(c);
  return NULL;
}

void md_checkpoint_close(md_checkpoint *c) {
  if (!c) return;
  md_safetensors_destroy(c->file);
  free(c->path);
  free(c);
}

const char *md_checkpoint_path(const md_checkpoint *c) { return c->path; }
int64_t md_checkpoint_step(const md_checkpoint *c) { return c->step; }

const char *md_checkpoint_config(const md_checkpoint *c) {
  return md_safetensors_meta(c->file, "config");
}

static const char *meta_or_nothing(const md_checkpoint *c, const char *key) {
  const char *text = md_safetensors_meta(c->file, key);
  return text ? text : "";
}

const char *md_checkpoint_videos(const md_checkpoint *c) { return meta_or_nothing(c, "videos"); }
const char *md_checkpoint_maps(const md_checkpoint *c) { return meta_or_nothing(c, "maps"); }
const char *md_checkpoint_code(const md_checkpoint *c) { return meta_or_nothing(c, "code"); }

// Says why a state has no memory here. False.
static bool unread(md_engine *e, const char *path, md_diags *d) {
  return md_engine_is_alive(e, d) &&
         md_error(d, E0802, MD_IN_FILE(path), "not enough memory for a copy of the states");
}

// --- restore

static bool starts_with(const char *name, const char *prefix) {
  return !prefix || strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_same_type(const md_st_tensor *a, const md_st_tensor *b) {
  return a->dtype == b->dtype && a->rank == b->rank && a->bytes == b->bytes &&
         memcmp(a->dim, b->dim, (size_t)a->rank * sizeof a->dim[0]) == 0;
}

static void put_type(md_text *to, const md_st_tensor *t) {
  md_put(to, "%s[", md_dtype_name(t->dtype));
  for (int i = 0; i < t->rank; i++) md_put(to, "%s%lld", i ? "," : "", (long long)t->dim[i]);
  md_put(to, "]");
}

// What does not fit, of one kind: how many, and the first few as text.
typedef struct Misfit {
  int num;
  md_text names;
} Misfit;

static void add_misfit(Misfit *m, const md_st_tensor *found, const md_st_tensor *needed) {
  char clean[128];
  if (m->num++ >= MAX_LISTED) return;
  md_put(&m->names, "%s%s ", m->num > 1 ? ", " : "",
         md_clean((needed ? needed : found)->name, clean, sizeof clean));
  put_type(&m->names, found ? found : needed);
  if (!found || !needed) return;
  md_put(&m->names, " (needed: ");
  put_type(&m->names, needed);
  md_put(&m->names, ")");
}

static void note_misfit(const Misfit *m, const char *what, md_diags *d) {
  if (m->num)
    md_note(d, MD_NOWHERE, "%s: %s%s", what, m->names.s, m->num > MAX_LISTED ? ", ..." : "");
}

static bool fits(const md_checkpoint *c, md_engine *e, const char *prefix, md_diags *d) {
  Misfit missing = {0}, unexpected = {0}, other = {0};
  int wanted = 0;
  for (int i = 0; i < md_engine_num_states(e); i++) {
    const char *name = md_engine_state_name(e, i);
    if (!starts_with(name, prefix)) continue;
    wanted++;
    md_st_tensor needed = tensor_of(e, name);
    const md_st_tensor *found = md_safetensors_find(c->file, name);
    if (!found) add_misfit(&missing, NULL, &needed);
    else if (!is_same_type(found, &needed)) add_misfit(&other, found, &needed);
  }
  for (int i = 0; !prefix && i < c->file->num; i++) {
    const md_st_tensor *found = &c->file->tensor[i];
    if (md_find_state(md_engine_graph(e), found->name) == MD_NONE)
      add_misfit(&unexpected, found, NULL);
  }
  bool ok = wanted && !missing.num && !unexpected.num && !other.num;
  if (!ok) {
    md_error(d, E0862, MD_IN_FILE(c->path),
             "checkpoint does not fit the network: of %d states %d are missing and %d of another "
             "type; %d are not known",
             wanted, missing.num, other.num, unexpected.num);
    note_misfit(&missing, "missing", d);
    note_misfit(&other, "of another type", d);
    note_misfit(&unexpected, "not known", d);
    md_hint(d, "its own settings are in it: 'modistc inspect %s'", c->path);
  }
  md_text_free(&missing.names);
  md_text_free(&unexpected.names);
  md_text_free(&other.names);
  return ok;
}

bool md_checkpoint_restore(const md_checkpoint *c, md_engine *e, const char *prefix, md_diags *d) {
  if (!fits(c, e, prefix, d)) return false;
  for (int i = 0; i < md_engine_num_states(e); i++) {
    const char *name = md_engine_state_name(e, i);
    const md_st_tensor *t = md_safetensors_find(c->file, name);
    if (!starts_with(name, prefix)) continue;
    void *to = md_engine_state(e, name, NULL);
    if (!to) return unread(e, c->path, d);
    memcpy(to, t->data, t->bytes);
  }
  return true;
}

bool md_checkpoint_save(md_engine *e, const char *path, const md_checkpoint_info *info,
                        md_diags *d) {
  int num = md_engine_num_states(e);
  md_st_tensor *t = calloc((size_t)num + 1, sizeof *t);
  if (!t) return md_error(d, E0802, MD_IN_FILE(path), "not enough memory to save the states");
  bool ok = true;
  for (int i = 0; i < num && ok; i++) {
    t[i] = tensor_of(e, md_engine_state_name(e, i));
    t[i].data = md_engine_view_state(e, t[i].name, NULL);
    ok = t[i].data || unread(e, path, d);
  }
  char step[32];
  snprintf(step, sizeof step, "%lld", (long long)info->step);
  const md_st_meta meta[] = {{"format", MD_CHECKPOINT_FORMAT},
                             {"modist_version", MODIST_VERSION},
                             {"step", step},
                             {"config", info->config},
                             {"videos", info->videos ? info->videos : ""},
                             {"maps", info->maps ? info->maps : ""},
                             {"code", info->code ? info->code : ""},
                             {"checksum", NULL}};
  ok = ok && md_safetensors_write(path, t, num, meta, MD_COUNT(meta), d);
  free(t);
  return ok;
}
