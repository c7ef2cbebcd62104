// SPDX-License-Identifier: Apache-2.0
// Settings from YAML (the only file that speaks to libfyaml), base files, and key=value.
//
// Values stay text until the schema converts them, so YAML's own ideas of `no` and `1e-4` never
// matter. Every value remembers where it was written; a mistake is shown there.
#include "runtime/train/config.h"

#include "base/file.h"
#include "base/log.h"
#include "runtime/video/video.h"

#include <libfyaml.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 8, MAX_CONFIG_BYTES = 1 << 20 };
typedef enum Type { TEXT, INT, FLOAT, BOOL, CHOICE } Type;
static const char *const type_names[] = {"text", "whole number", "number", "true or false", "word"};

typedef struct Key {
  const char *name;
  Type type;
  const char *preset;
  double lo, hi;
  const char *choices, *doc;
} Key;
static const Key keys[] = {
#define KEY(name, type, preset, lo, hi, choices, doc) {name, type, preset, lo, hi, choices, doc},
#include "runtime/train/config.def"
#undef KEY
};
enum { NUM_KEYS = MD_COUNT(keys) };
static const char *const mode_names[] = {"modist", "rgb", "supervised"};  // by md_mode

typedef struct Value {
  const char *text;
  md_place place;
  bool given;
  const char *model;  // whose preset it is, where that differs from the schema's
} Value;

struct md_config {
  md_arena *arena;
  Value value[NUM_KEYS];
};

typedef struct Reader {
  md_config *c;
  md_diags *d;
  const char *stack[MAX_DEPTH];  // files being read, against cycles
  int depth;
  bool is_alone;       // no other file may be named
  md_pair_taker take;  // of md_config_pairs: the keys are somebody else's
  void *ctx;
} Reader;

static int key_index(const char *name) {
  for (int i = 0; i < NUM_KEYS; i++)
    if (strcmp(keys[i].name, name) == 0) return i;
  return -1;
}

static bool unknown_key(md_diags *d, md_place at, const char *name) {
  const char *names[NUM_KEYS];
  for (int i = 0; i < NUM_KEYS; i++) names[i] = keys[i].name;
  char clean[120];
  md_error(d, E0203, at, "unknown key '%s'", md_clean(name, clean, sizeof clean));
  const char *near = md_nearest(name, names, NUM_KEYS);
  // A bare last part is a usual slip: `lr` for `opt.lr`.
  for (int i = 0; i < NUM_KEYS && !near; i++) {
    const char *dot = strrchr(names[i], '.');
    if (dot && strcmp(dot + 1, name) == 0) near = names[i];
  }
  if (near) {
    md_hint(d, "did you mean '%s' (%s)?", near, keys[key_index(near)].doc);
    return false;
  }
  // A group that exists tells what it holds.
  md_text list = {0};
  const char *dot = strchr(name, '.');
  size_t group = dot ? (size_t)(dot - name) + 1 : 0;
  for (int i = 0; i < NUM_KEYS && group; i++)
    if (strncmp(names[i], name, group) == 0) md_put(&list, "%s%s", list.len ? ", " : "", names[i]);
  if (list.len) {
    md_hint(d, "there are %s", list.s);
  } else {
    md_hint(d, "'modistc config schema' lists the keys");
  }
  md_text_free(&list);
  return false;
}

static bool is_choice(const char *choices, const char *text) {
  size_t n = strlen(text);
  for (const char *s = choices; *s;) {
    size_t len = strcspn(s, ",");
    if (len == n && strncmp(s, text, n) == 0) return true;
    s += len + (s[len] == ',');
  }
  return false;
}

static bool to_bool(const char *text, bool *out) {
  *out = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
  return *out || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static bool check_value(const Key *k, const char *text, md_place at, md_diags *d) {
  int64_t i;
  double x;
  bool flag, ok = true;
  char clean[120];
  md_clean(text, clean, sizeof clean);
  switch (k->type) {
  case TEXT:
    // Printed settings read back the same: a text stands on one line.
    for (const char *s = text; *s; s++) ok = ok && (unsigned char)*s >= ' ' && *s != 0x7f;
    return ok || md_error(d, E0204, at, "%s is '%s', with a control character", k->name, clean);
  case INT:
    ok = md_parse_int(text, &i);
    x = (double)i;
    break;
  case FLOAT: ok = md_parse_float(text, &x) && x == x; break;
  case BOOL:
    return to_bool(text, &flag) ||
           md_error(d, E0204, at, "%s is '%s', but must be true or false", k->name, clean);
  case CHOICE:
    if (is_choice(k->choices, text)) return true;
    md_error(d, E0204, at, "%s is '%s'", k->name, clean);
    md_hint(d, "it takes one of: %s", k->choices);
    return false;
  }
  if (!ok)
    return md_error(d, E0204, at, "%s is '%s', but must be a %s", k->name, clean,
                    type_names[k->type]);
  if (x >= k->lo && x <= k->hi) return true;
  return md_error(d, E0204, at, "%s is %s, but must lie between %g and %g", k->name, clean, k->lo,
                  k->hi);
}

static bool stands_twice(md_diags *d, const char *name, md_place at, md_place first) {
  char clean[120];
  md_error(d, E0201, at, "'%s' stands twice", md_clean(name, clean, sizeof clean));
  md_note(d, first, "it stands here too");
  md_hint(d, "keep one of them; key=value on the command line overrides it");
  return false;
}

static bool set_value(Reader *r, const char *name, const char *text, md_place key_at, md_place at) {
  int i = key_index(name);
  if (i < 0) return unknown_key(r->d, key_at, name);
  // `clip: {size: 1}` and `clip.size: 2` are one key. Each reading of a file has a name of its own.
  const Value *before = &r->c->value[i];
  if (before->given && before->place.file == at.file)
    return stands_twice(r->d, name, key_at, before->place);
  if (!check_value(&keys[i], text, at, r->d)) return false;
  r->c->value[i] = (Value){md_strdup(r->c->arena, text), at, true, NULL};
  return true;
}

static md_place place_of(const char *file, struct fy_node *n) {
  struct fy_token *t = n ? fy_node_get_scalar_token(n) : NULL;
  const struct fy_mark *m = t ? fy_token_start_mark(t) : NULL;
  if (!m) return MD_IN_FILE(file);
  size_t len = 0;
  fy_token_get_text(t, &len);
  return (md_place){
      .file = file, .line = m->line + 1, .col = m->column + 1, .len = (int)MD_MIN(len, 1000)};
}

// Settings are flat enough to do without; what *x stands for would have no place of its own.
static bool refuse_alias(Reader *r, const char *file, struct fy_node *n) {
  if (!n || !fy_node_is_alias(n)) return true;
  md_error(r->d, E0202, place_of(file, n), "settings take no aliases (*name)");
  md_hint(r->d, "write the value itself, in quotes if it begins with '*'; files share settings by "
                "_base_");
  return false;
}

// `at` is where the file is named, nowhere for the first one.
static bool read_file(Reader *r, const char *path, md_place at);

// `_base_: a.yaml` or `_base_: [a.yaml, b.yaml]`, relative to the file that says so.
static bool read_base(Reader *r, const char *file, struct fy_node *n) {
  void *at = NULL;
  bool is_list = fy_node_is_sequence(n), ok = true;
  for (struct fy_node *item = is_list ? fy_node_sequence_iterate(n, &at) : n; item && ok;
       item = is_list ? fy_node_sequence_iterate(n, &at) : NULL) {
    const char *name = fy_node_get_scalar0(item);
    if (!refuse_alias(r, file, item)) return false;
    if (!name)
      return md_error(r->d, E0202, place_of(file, item), "_base_ takes a file or a list of files");
    const char *slash = strrchr(file, '/');
    const char *path = name[0] == '/' || !slash
                           ? md_strdup(r->c->arena, name)
                           : md_format(r->c->arena, "%.*s/%s", (int)(slash - file), file, name);
    ok = read_file(r, path, place_of(file, item));
  }
  return ok;
}

// The key of an earlier pair of `map` that is the same word; NULL: there is none.
static struct fy_node *earlier_key(struct fy_node *map, const struct fy_node *key) {
  void *at = NULL;
  const char *word = fy_node_get_scalar0((struct fy_node *)key);
  for (struct fy_node_pair *p; (p = fy_node_mapping_iterate(map, &at));) {
    struct fy_node *k = fy_node_pair_key(p);
    if (k == key) return NULL;
    const char *other = k ? fy_node_get_scalar0(k) : NULL;
    if (other && strcmp(other, word) == 0) return k;
  }
  return NULL;
}

// libfyaml 0.7.12 takes 'a''''b' for a'''; its double quotes are right.
static bool misread_quotes(struct fy_node *v, const char *text) {
  return fy_node_get_style(v) == FYNS_SINGLE_QUOTED && strstr(text, "''");
}

static bool read_mapping(Reader *r, const char *file, struct fy_node *map, const char *prefix) {
  bool ok = true;
  void *at = NULL;
  int before = md_diags_errors(r->d);
  for (struct fy_node_pair *p; (p = fy_node_mapping_iterate(map, &at));) {
    if (md_diags_errors(r->d) > before + MD_MAX_ERRORS) break;
    struct fy_node *k = fy_node_pair_key(p), *v = fy_node_pair_value(p);
    const char *word = k ? fy_node_get_scalar0(k) : NULL;
    md_place key_at = place_of(file, k);
    if (!word) {
      ok = md_error(r->d, E0202, key_at, "a key must be a plain word");
      continue;
    }
    if (!refuse_alias(r, file, k) || !refuse_alias(r, file, v)) {
      ok = false;
      continue;
    }
    const char *name =
        *prefix ? md_format(r->c->arena, "%s.%s", prefix, word) : md_strdup(r->c->arena, word);
    struct fy_node *first = earlier_key(map, k);
    if (first) {
      ok = stands_twice(r->d, name, key_at, place_of(file, first));
      continue;
    }
    if (!r->take && !*prefix && strcmp(word, "_base_") == 0) continue;
    if (!r->take && v && fy_node_is_mapping(v) && !*prefix && key_index(name) < 0) {
      ok = read_mapping(r, file, v, name) && ok;
      continue;
    }
    const char *text = v && fy_node_is_scalar(v) ? fy_node_get_scalar0(v) : NULL;
    if (!text) {
      ok = !r->take && key_index(name) < 0
               ? unknown_key(r->d, key_at, name)
               : md_error(r->d, E0204, key_at, "%s needs a single value", name);
      continue;
    }
    md_place at_value = place_of(file, v);
    if (misread_quotes(v, text)) {
      ok = md_error(r->d, E0204, at_value, "%s has two ' side by side", name);
      md_hint(r->d, "put the value in double quotes: in single ones they are not read reliably");
      continue;
    }
    if (!*text || !at_value.line) at_value = key_at;
    ok = (r->take ? r->take(r->ctx, name, text, key_at, at_value)
                  : set_value(r, name, text, key_at, at_value)) &&
         ok;
  }
  return ok;
}

static bool report_yaml(Reader *r, const char *file, struct fy_diag *diag) {
  void *at = NULL;
  struct fy_diag_error *e = diag ? fy_diag_errors_iterate(diag, &at) : NULL;
  if (!e) return md_error(r->d, E0201, MD_IN_FILE(file), "this is not valid YAML");
  char text[200];
  snprintf(text, sizeof text, "%s", e->msg ? e->msg : "not valid YAML");
  text[strcspn(text, "\n")] = 0;
  char clean[200];
  md_place p = {.file = file, .line = e->line, .col = e->column, .len = 1};
  return md_error(r->d, E0201, p, "%s", md_clean(text, clean, sizeof clean));
}

static bool check_utf8(Reader *r, const char *path, const char *text, size_t len) {
  int line = 1;
  for (size_t i = 0; i < len;) {
    uint32_t code;
    int n = md_utf8(text + i, &code);
    if (n == 0 || code == 0)
      return md_error(r->d, E0201, (md_place){path, line, 0, 0}, "this is not UTF-8 text");
    line += code == '\n';
    i += (size_t)n;
  }
  return true;
}

static bool read_root(Reader *r, const char *path, struct fy_node *root) {
  // An empty file changes nothing.
  if (!root || (fy_node_is_scalar(root) && !*fy_node_get_scalar0(root))) return true;
  if (!fy_node_is_mapping(root))
    return md_error(r->d, E0202, MD_IN_FILE(path), "settings must be a mapping of keys to values");
  struct fy_node *base =
      r->take ? NULL : fy_node_mapping_lookup_by_string(root, "_base_", (size_t)-1);
  if (base && r->is_alone)
    return md_error(r->d, E0205, place_of(path, base), "_base_ has no place in these settings");
  bool ok = !base || read_base(r, path, base);
  return read_mapping(r, path, root, "") && ok;
}

static bool read_text(Reader *r, const char *path, const char *text, size_t len) {
  if (!check_utf8(r, path, text, len)) return false;
  struct fy_diag_cfg dc;
  fy_diag_cfg_default(&dc);
  dc.fp = NULL;
  struct fy_diag *diag = fy_diag_create(&dc);
  if (diag) fy_diag_set_collect_errors(diag, true);
  // A key that stands twice is found later, where both places can be shown.
  struct fy_parse_cfg pc = {.flags = FYPCF_QUIET | FYPCF_ALLOW_DUPLICATE_KEYS, .diag = diag};
  struct fy_parser *parser = fy_parser_create(&pc);
  struct fy_document *doc = NULL, *second = NULL;
  if (parser && fy_parser_set_string(parser, text, len) == 0) {
    doc = fy_parse_load_document(parser);
    if (doc) second = fy_parse_load_document(parser);
  }
  void *at = NULL;
  bool ok;
  if (!parser || (diag && fy_diag_errors_iterate(diag, &at))) {
    ok = report_yaml(r, path, diag);
  } else if (second) {
    ok = md_error(r->d, E0202, MD_IN_FILE(path), "settings are one document, not several");
  } else {
    ok = !doc || read_root(r, path, fy_document_root(doc));
  }
  if (second) fy_parse_document_destroy(parser, second);
  if (doc) fy_parse_document_destroy(parser, doc);
  if (parser) fy_parser_destroy(parser);
  if (diag) fy_diag_destroy(diag);
  return ok;
}

static bool read_file(Reader *r, const char *path, md_place at) {
  for (int i = 0; i < r->depth; i++)
    if (strcmp(r->stack[i], path) == 0)
      return md_error(r->d, E0205, at, "'%s' is its own _base_", path);
  if (r->depth == MAX_DEPTH)
    return md_error(r->d, E0205, at, "_base_ files are nested more than %d deep", MAX_DEPTH);
  char *text;
  size_t len;
  if (!md_file_read(path, MAX_CONFIG_BYTES, E0206, r->d, &text, &len)) {
    if (at.file) md_note(r->d, at, "it is named here");
    return false;
  }
  const char *name = md_strdup(r->c->arena, path);
  md_diags_source(r->d, name, text, len);
  r->stack[r->depth++] = name;
  bool ok = read_text(r, name, text, len);
  r->depth--;
  free(text);
  return ok;
}

static bool read_override(Reader *r, const char *text, int index) {
  const char *eq = strchr(text, '=');
  const char *file = md_format(r->c->arena, "argument %d", index + 1);
  md_diags_source(r->d, file, text, strlen(text));
  if (!eq || eq == text) {
    md_error(r->d, E0202, (md_place){file, 1, 1, (int)strlen(text)},
             "'%s' is not of the form key=value", text);
    if (md_model_from(text)) md_hint(r->d, "model.name=%s names the model here", text);
    return false;
  }
  int len = (int)(eq - text);
  char *name = md_strndup(r->c->arena, text, (size_t)len);
  return set_value(r, name, eq + 1, (md_place){file, 1, 1, len},
                   (md_place){file, 1, len + 2, (int)strlen(eq + 1)});
}

static const Value *value_of(const md_config *c, const char *key) {
  int i = key_index(key);
  MD_ASSERT(i >= 0, "the schema has no key %s", key);
  return &c->value[i];
}

static const md_net *net_of(const md_config *c, const char *key, md_diags *d) {
  const md_net *net = md_net_from(md_config_text(c, key));
  if (net) return net;
  const char *names[64];
  for (int i = 0; i < md_num_nets; i++) names[i] = md_nets[i].name;
  md_error(d, E0204, md_config_place(c, key), "%s: there is no network '%s'", key,
           md_config_text(c, key));
  const char *near = md_nearest(md_config_text(c, key), names, md_num_nets);
  if (near) {
    md_hint(d, "did you mean '%s'?", near);
  } else {
    md_hint(d, "'modistc models' lists the networks");
  }
  return NULL;
}

static bool set_nets(const md_config *c, md_step *s, md_diags *d) {
  if (md_config_given(c, "model.visual") && *md_config_text(c, "model.visual")) {
    const md_net *net = net_of(c, "model.visual", d);
    if (!net) return false;
    s->visual = *net;
  }
  if (md_config_given(c, "model.motion") && *md_config_text(c, "model.motion")) {
    const md_net *net = net_of(c, "model.motion", d);
    if (!net) return false;
    s->motion = *net;
  }
  if (md_config_int(c, "head.hidden"))
    s->visual.hidden = s->motion.hidden = (int)md_config_int(c, "head.hidden");
  if (md_config_int(c, "head.dim"))
    s->visual.embed = s->motion.embed = (int)md_config_int(c, "head.dim");
  return true;
}

static void preset(md_config *c, const char *key, const char *text) {
  Value *v = &c->value[key_index(key)];
  if (v->given) return;
  *v = (Value){.text = md_strdup(c->arena, text), .model = c->value[key_index("model.name")].text};
}
static void preset_int(md_config *c, const char *key, int64_t x) {
  preset(c, key, md_format(c->arena, "%lld", (long long)x));
}
static void preset_float(md_config *c, const char *key, double x) {
  char text[MD_FLOAT_CHARS];
  preset(c, key, md_float_text(x, text));
}
static void preset_bool(md_config *c, const char *key, bool x) {
  preset(c, key, x ? "true" : "false");
}

// What nobody wrote is as the model says, so that the settings that are printed are those that are
// used. An unknown model is reported when the step is asked for.
static void take_presets(md_config *c) {
  const md_model *m = md_model_from(c->value[key_index("model.name")].text);
  if (!m) return;
  md_step s = md_step_defaults();
  m->fill(&s);
  preset(c, "model.visual", s.visual.name);
  preset(c, "model.motion", s.motion.name);
  preset(c, "model.mode", mode_names[s.mode]);
  if (s.classes) preset_int(c, "model.classes", s.classes);
  preset_bool(c, "model.zero_init", s.zero_init);
  preset_float(c, "loss.tau", s.tau);
  preset_float(c, "loss.w_v", s.w_v);
  preset_float(c, "loss.w_m", s.w_m);
  preset_float(c, "loss.w_mv", s.w_mv);
  preset(c, "loss.cross_neg", s.cross_key ? "key" : "query");
  preset_int(c, "bank.size", s.bank);
  preset(c, "bank.init", s.bank_empty ? "empty" : "random");
  preset(c, "bank.enqueue", s.enqueue_before ? "before" : "after");
  preset_float(c, "ema", s.ema);
  preset_int(c, "bn.groups", s.bn_groups);
  preset_int(c, "clip.frames", s.clip.frames);
  preset_int(c, "clip.size", s.clip.size);
  preset_int(c, "mclip.frames", s.mclip.frames);
  preset_int(c, "mclip.size", s.mclip.size);
  if (!s.augment.color) preset_float(c, "aug.color", 0);
  if (!s.augment.gray) preset_float(c, "aug.gray", 0);
  if (!s.augment.blur) preset_float(c, "aug.blur", 0);
  if (!*c->value[key_index("data.maps")].text) preset_float(c, "mclip.gamma", 0);  // needs scores
  preset(c, "opt.name", s.opt == MD_OPT_ADAMW ? "adamw" : "sgd");
  preset_float(c, "opt.mom", s.momentum);
  preset_bool(c, "opt.nesterov", s.nesterov);
  preset_float(c, "opt.wd", s.weight_decay);
  preset_bool(c, "opt.decay_1d", s.decay_1d);
  preset_int(c, "batch", s.batch);
}

static void take_int(const md_config *c, const char *key, int64_t *to) {
  if (md_config_given(c, key)) *to = md_config_int(c, key);
}
static void take_float(const md_config *c, const char *key, double *to) {
  if (md_config_given(c, key)) *to = md_config_float(c, key);
}
static void take_bool(const md_config *c, const char *key, bool *to) {
  if (md_config_given(c, key)) *to = md_config_bool(c, key);
}
// True where the value is above 0.
static void take_some(const md_config *c, const char *key, bool *to) {
  if (md_config_given(c, key)) *to = md_config_float(c, key) > 0;
}
// True where the value is `word`.
static void take_word(const md_config *c, const char *key, const char *word, bool *to) {
  if (md_config_given(c, key)) *to = strcmp(md_config_text(c, key), word) == 0;
}

const char *md_config_text(const md_config *c, const char *key) { return value_of(c, key)->text; }

int64_t md_config_int(const md_config *c, const char *key) {
  int64_t x = 0;
  md_parse_int(md_config_text(c, key), &x);
  return x;
}

double md_config_float(const md_config *c, const char *key) {
  double x = 0;
  md_parse_float(md_config_text(c, key), &x);
  return x;
}

bool md_config_bool(const md_config *c, const char *key) {
  bool x;
  to_bool(md_config_text(c, key), &x);
  return x;
}

bool md_config_given(const md_config *c, const char *key) { return value_of(c, key)->given; }
md_place md_config_place(const md_config *c, const char *key) { return value_of(c, key)->place; }

static bool check_range(const md_config *c, const char *lo, const char *hi, md_diags *d) {
  if (md_config_float(c, lo) <= md_config_float(c, hi)) return true;
  const char *given = md_config_given(c, lo) ? lo : hi;
  return md_error(d, E0207, md_config_place(c, given), "%s is %s, above %s, which is %s", lo,
                  md_config_text(c, lo), hi, md_config_text(c, hi));
}

const char *md_config_key(int i) { return i < NUM_KEYS ? keys[i].name : NULL; }

bool md_config_equal(const md_config *a, const md_config *b, const char *key) {
  switch (keys[key_index(key)].type) {
  case INT: return md_config_int(a, key) == md_config_int(b, key);
  case FLOAT: return md_config_float(a, key) == md_config_float(b, key);
  case BOOL: return md_config_bool(a, key) == md_config_bool(b, key);
  default: return strcmp(md_config_text(a, key), md_config_text(b, key)) == 0;
  }
}

void md_config_set(md_config *c, const char *key, const char *text) {
  c->value[key_index(key)] = (Value){.text = md_strdup(c->arena, text), .given = true};
}

bool md_config_step(const md_config *c, md_step *s, md_diags *d) {
  if (md_config_given(c, "model.name")) {
    const md_model *m = md_model_from(md_config_text(c, "model.name"));
    if (!m) {
      const char *name = md_config_text(c, "model.name");
      char clean[120];
      md_error(d, E0204, md_config_place(c, "model.name"), "there is no model '%s'",
               md_clean(name, clean, sizeof clean));
      md_model_hint(name, d);
      return false;
    }
    *s = md_step_defaults();
    m->fill(s);
  }
  if (!set_nets(c, s, d)) return false;
  if (md_config_given(c, "model.mode"))
    for (int i = 0; i < MD_COUNT(mode_names); i++)
      if (strcmp(md_config_text(c, "model.mode"), mode_names[i]) == 0) s->mode = (md_mode)i;
  if (!s->classes || md_config_given(c, "model.classes"))
    s->classes = md_config_int(c, "model.classes");
  take_bool(c, "model.zero_init", &s->zero_init);
  take_word(c, "model.init", "uniform", &s->hash_init);
  take_float(c, "loss.tau", &s->tau);
  take_float(c, "loss.w_v", &s->w_v);
  take_float(c, "loss.w_m", &s->w_m);
  take_float(c, "loss.w_mv", &s->w_mv);
  take_word(c, "loss.cross_neg", "key", &s->cross_key);
  take_int(c, "bank.size", &s->bank);
  take_word(c, "bank.init", "empty", &s->bank_empty);
  take_word(c, "bank.enqueue", "before", &s->enqueue_before);
  take_float(c, "ema", &s->ema);
  take_int(c, "bn.groups", &s->bn_groups);
  take_int(c, "clip.frames", &s->clip.frames);
  take_int(c, "clip.size", &s->clip.size);
  take_int(c, "mclip.frames", &s->mclip.frames);
  take_int(c, "mclip.size", &s->mclip.size);
  take_some(c, "aug.color", &s->augment.color);
  take_some(c, "aug.gray", &s->augment.gray);
  take_some(c, "aug.blur", &s->augment.blur);
  const char *input = md_config_text(c, "mclip.input");
  s->motion_planes = strcmp(input, "diff") == 0 || strcmp(input, "edge") == 0 ? 1 : 3;
  if (md_config_given(c, "opt.name"))
    s->opt = strcmp(md_config_text(c, "opt.name"), "adamw") == 0 ? MD_OPT_ADAMW : MD_OPT_SGD;
  take_float(c, "opt.mom", &s->momentum);
  take_bool(c, "opt.nesterov", &s->nesterov);
  take_float(c, "opt.wd", &s->weight_decay);
  take_bool(c, "opt.decay_1d", &s->decay_1d);
  take_int(c, "batch", &s->batch);
  if (s->w_v + s->w_m + s->w_mv <= 0)
    return md_error(d, E0207, md_config_place(c, "loss.w_v"),
                    "all weights of the loss are 0: nothing would be trained");
  if (s->mode == MD_MODE_MODIST && s->visual.embed != s->motion.embed) {
    md_error(d, E0207, md_config_place(c, "model.motion"),
             "embeddings of %s have %d numbers, those of %s %d: they are compared", s->visual.name,
             s->visual.embed, s->motion.name, s->motion.embed);
    md_hint(d, "head.dim=%d makes them equal", s->visual.embed);
    return false;
  }
  if (s->mode != MD_MODE_SUPERVISED && s->bank < s->batch)
    return md_error(d, E0207, md_config_place(c, "bank.size"),
                    "a bank of %lld rows cannot take the %lld keys of a step", (long long)s->bank,
                    (long long)s->batch);
  if (s->batch % s->bn_groups)
    return md_error(d, E0207, md_config_place(c, "bn.groups"),
                    "a batch of %lld does not fall into %lld equal groups", (long long)s->batch,
                    (long long)s->bn_groups);
  if (md_config_float(c, "warmup") > md_config_float(c, "epochs"))
    return md_error(d, E0207, md_config_place(c, "warmup"),
                    "the warm-up takes %s epochs, but the run has %s", md_config_text(c, "warmup"),
                    md_config_text(c, "epochs"));
  return check_range(c, "aug.area_min", "aug.area_max", d) &&
         check_range(c, "aug.aspect_min", "aug.aspect_max", d) &&
         check_range(c, "aug.sigma_min", "aug.sigma_max", d);
}

static void log_settings(const md_config *c) {
  int num = 0;
  for (int i = 0; i < NUM_KEYS; i++) {
    const Value *v = &c->value[i];
    num += v->given;
    if (v->given)
      md_log(MD_LOG_CONFIG, MD_LEVEL_DEBUG, "%s is '%s', from %s:%d", keys[i].name, v->text,
             v->place.file, v->place.line);
  }
  md_log(MD_LOG_CONFIG, MD_LEVEL_INFO, "%d of %d settings are given, the others are of %s", num,
         NUM_KEYS, md_config_text(c, "model.name"));
}

static md_config *create(void) {
  md_config *c = md_calloc(1, sizeof *c);
  c->arena = md_arena_create();
  for (int i = 0; i < NUM_KEYS; i++) c->value[i] = (Value){.text = keys[i].preset};
  return c;
}

static md_config *finish(md_config *c, bool ok) {
  if (ok) {
    take_presets(c);
    log_settings(c);
    return c;
  }
  md_config_destroy(c);
  return NULL;
}

md_config *md_config_load(const char *path, char *const *override, int num_overrides, md_diags *d) {
  Reader r = {.c = create(), .d = d};
  bool ok = !path || read_file(&r, path, MD_NOWHERE);
  for (int i = 0; i < num_overrides; i++) ok = read_override(&r, override[i], i) && ok;
  return finish(r.c, ok);
}

bool md_config_pairs(const char *path, md_pair_taker take, void *ctx, md_diags *d) {
  md_config c = {.arena = md_arena_create()};
  Reader r = {.c = &c, .d = d, .take = take, .ctx = ctx};
  bool ok = read_file(&r, path, MD_NOWHERE);
  md_arena_destroy(c.arena);
  return ok;
}

md_config *md_config_parse(const char *name, const char *text, size_t len, md_diags *d) {
  Reader r = {.c = create(), .d = d, .is_alone = true};
  name = md_strdup(r.c->arena, name);
  md_diags_source(d, name, text, len);
  return finish(r.c, read_text(&r, name, text, len));
}

void md_config_destroy(md_config *c) {
  if (!c) return;
  md_arena_destroy(c->arena);
  free(c);
}

void md_config_print(const md_config *c, bool origin, md_text *to) {
  char group[32] = "";
  for (int i = 0; i < NUM_KEYS; i++) {
    const char *name = keys[i].name, *dot = strchr(name, '.');
    size_t len = dot ? (size_t)(dot - name) : 0;
    if (dot && (strlen(group) != len || strncmp(group, name, len) != 0)) {
      snprintf(group, sizeof group, "%.*s", (int)len, name);
      md_put(to, "%s:\n", group);
    }
    const Value *v = &c->value[i];
    bool quote = keys[i].type == TEXT;
    md_put(to, dot ? "  %s: " : "%s: ", dot ? dot + 1 : name);
    if (quote) {
      const char *mark = strchr(v->text, '\'') ? "\"" : "'";
      md_put(to, "%s", mark);
      for (const char *s = v->text; *s; s++)
        md_put(to, *mark == '"' && strchr("\"\\", *s) ? "\\%c" : "%c", *s);
      md_put(to, "%s", mark);
    } else {
      md_put(to, "%s", v->text);
    }
    if (origin && v->given) md_put(to, "  # %s:%d", v->place.file, v->place.line);
    else if (origin && v->model) md_put(to, "  # model %s", v->model);
    else if (origin) md_put(to, "  # default");
    md_put(to, "\n");
    if (!dot) group[0] = 0;
  }
}

void md_config_schema(md_text *to) {
  for (int i = 0; i < NUM_KEYS; i++) {
    const Key *k = &keys[i];
    md_put(to, "%-16s %-14s default %-12s %s", k->name,
           k->choices ? k->choices : type_names[k->type], *k->preset ? k->preset : "''", k->doc);
    md_put(to, "\n");
  }
}
