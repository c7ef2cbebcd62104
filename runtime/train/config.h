// SPDX-License-Identifier: Apache-2.0
// Settings: a YAML file over its base files over the schema's defaults, then key=value overrides.
// The schema (config.def) is one table: key, type, bounds, default, sentence.
#ifndef RUNTIME_TRAIN_CONFIG_H
#define RUNTIME_TRAIN_CONFIG_H

#include "base/diag.h"
#include "models/models.h"

typedef struct md_config md_config;

// `path` NULL: defaults only. Unknown, duplicate or ill-typed keys: reported with place and hint.
md_config *md_config_load(const char *path, char *const *override, int num_overrides, md_diags *d);
// The same from a text that md_config_print wrote; it may not name other files.
md_config *md_config_parse(const char *name, const char *text, size_t len, md_diags *d);
void md_config_destroy(md_config *c);

// The key must be a row of the schema (ours to get right).
const char *md_config_text(const md_config *c, const char *key);
int64_t md_config_int(const md_config *c, const char *key);
double md_config_float(const md_config *c, const char *key);
bool md_config_bool(const md_config *c, const char *key);
bool md_config_given(const md_config *c, const char *key);      // not the default
md_place md_config_place(const md_config *c, const char *key);  // where its value was written
const char *md_config_key(int i);                               // NULL beyond the last
bool md_config_equal(const md_config *a, const md_config *b, const char *key);
void md_config_set(md_config *c, const char *key, const char *text);  // a value that was checked

// A YAML file of single values whose keys are not settings: each pair goes to `take`, which reports what
// it does not like and returns false. Texts and places live during the call. False: reported.
typedef bool (*md_pair_taker)(void *ctx, const char *key, const char *text, md_place key_at,
                              md_place at);
bool md_config_pairs(const char *path, md_pair_taker take, void *ctx, md_diags *d);

// Fills the training step: model.name first (when given), then every given key on top of *s.
// Consistency of several keys is checked here.
bool md_config_step(const md_config *c, md_step *s, md_diags *d);

// The resolved settings as YAML; `origin` adds where each value came from as a comment.
void md_config_print(const md_config *c, bool origin, md_text *to);
void md_config_schema(md_text *to);  // every key, its type, default and meaning

#endif
