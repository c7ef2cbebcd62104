// SPDX-License-Identifier: Apache-2.0
// Problems and sweeps as text. A message shows the text with a caret under what does not fit.
#include "modistc/bench_spec.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

// Where the parser stands in a text of one line.
typedef struct Cursor {
  const char *where, *text, *at;
  md_diags *diags;
} Cursor;

static Cursor cursor_of(const char *where, const char *text, md_diags *d) {
  md_diags_source(d, where, text, strlen(text));
  return (Cursor){where, text, text, d};
}

static md_place place_of(const Cursor *c, const char *at, size_t len) {
  return (md_place){.file = c->where,
                    .line = 1,
                    .col = (int)(at - c->text) + 1,
                    .len = (int)MD_MAX(len, (size_t)1)};
}

static bool is_number(const Cursor *c) { return isdigit((unsigned char)*c->at); }

// A number of at most MD_PROBLEM_MOST.
static bool number(Cursor *c, int64_t *x) {
  size_t len = strspn(c->at, "0123456789");
  if (!len) return md_error(c->diags, E0401, place_of(c, c->at, 1), "a number is missing here");
  *x = 0;
  for (size_t i = 0; i < len && *x <= MD_PROBLEM_MOST; i++) *x = 10 * *x + (c->at[i] - '0');
  if (*x > MD_PROBLEM_MOST)
    return md_error(c->diags, E0401, place_of(c, c->at, len), "more than %d", MD_PROBLEM_MOST);
  c->at += len;
  return true;
}

// --- problems

static int key_of(const md_problem_op *op, char letter) {
  for (int i = 0; i < MD_PROBLEM_KEYS && op->key[i].letter; i++)
    if (op->key[i].letter == letter) return i;
  return -1;
}

static void hint_keys(const md_problem_op *op, md_diags *d) {
  md_text list = {0};
  for (int i = 0; i < MD_PROBLEM_KEYS && op->key[i].letter; i++)
    md_put(&list, "%s%c %s", i ? ", " : "", op->key[i].letter, op->key[i].doc);
  md_hint(d, "%s has %s", op->name, list.s);
  md_text_free(&list);
}

// size = number ("x" number)*
static bool size_of(Cursor *c, const md_problem_key *k, int64_t *size) {
  const char *start = c->at;
  int num = 0;
  do {
    c->at += num > 0;
    if (num == k->axes)
      return md_error(c->diags, E0401, place_of(c, c->at, strspn(c->at, "0123456789")),
                      "%c takes no more than %d number%s", k->letter, k->axes,
                      k->axes == 1 ? "" : "s");
    if (!number(c, &size[num++])) return false;
  } while (*c->at == 'x');
  if (num != 1 && num != k->axes)
    return md_error(c->diags, E0401, place_of(c, start, (size_t)(c->at - start)),
                    "%c takes one number for all axes, or %d", k->letter, k->axes);
  for (int i = num; i < k->axes; i++) size[i] = size[0];
  for (int i = 0; i < k->axes; i++)
    if (size[i] < k->least)
      return md_error(c->diags, E0401, place_of(c, start, (size_t)(c->at - start)),
                      "%c is at least %lld", k->letter, (long long)k->least);
  return true;
}

static const md_problem_op *op_of(Cursor *c, const md_problem_op *const *ops, int num_ops) {
  char name[64];
  const char *names[16];
  size_t len = strcspn(c->at, ":");
  snprintf(name, sizeof name, "%.*s", (int)MD_MIN(len, sizeof name - 1), c->at);
  MD_ASSERT(num_ops <= MD_COUNT(names), "more ops than expected");
  for (int i = 0; i < num_ops; i++) {
    names[i] = ops[i]->name;
    if (strcmp(name, names[i]) != 0) continue;
    if (c->at[len] == ':') {
      c->at += len + 1;
      return ops[i];
    }
    md_error(c->diags, E0401, place_of(c, c->at + len, 1), "':' and the sizes are missing here");
    md_hint(c->diags, "for example: %s", ops[i]->example);
    return NULL;
  }
  md_error(c->diags, E0401, place_of(c, c->at, len), "no op of this name can be measured alone");
  const char *near = md_nearest(name, names, num_ops);
  if (near) {
    md_hint(c->diags, "did you mean %s?", near);
  } else {
    md_text list = {0};
    for (int i = 0; i < num_ops; i++) md_put(&list, "%s%s", i ? ", " : "", names[i]);
    md_hint(c->diags, "ops are: %s; any other runs as a graph text: bench step FILE.mdg", list.s);
    md_text_free(&list);
  }
  return NULL;
}

bool md_problem_parse(const char *where, const char *text, const md_problem_op *const *ops,
                      int num_ops, md_problem *p, md_diags *d) {
  Cursor c = cursor_of(where, text, d);
  bool given[MD_PROBLEM_KEYS] = {0};
  *p = (md_problem){.op = op_of(&c, ops, num_ops)};
  if (!p->op) return false;
  while (*c.at) {
    int key = key_of(p->op, *c.at);
    if (key < 0) {
      md_error(d, E0401, place_of(&c, c.at, 1), "%s has no such key", p->op->name);
      hint_keys(p->op, d);
      return false;
    }
    if (given[key])
      return md_error(d, E0401, place_of(&c, c.at, 1), "%c stands twice", p->op->key[key].letter);
    given[key] = true;
    c.at++;
    if (!size_of(&c, &p->op->key[key], p->size[key])) return false;
  }
  for (int i = 0; i < MD_PROBLEM_KEYS && p->op->key[i].letter; i++) {
    const md_problem_key *k = &p->op->key[i];
    if (!given[i] && k->preset == MD_SIZE_NEEDED) {
      md_error(d, E0401, place_of(&c, c.at, 1), "%c is missing: %s", k->letter, k->doc);
      md_hint(d, "for example: %s", p->op->example);
      return false;
    }
    for (int j = 0; j < k->axes && !given[i]; j++) p->size[i][j] = k->preset;
  }
  return true;
}

bool md_problem_set(md_problem *p, const char *where, const char *key, const char *text,
                    md_diags *d) {
  int i = strlen(key) == 1 ? key_of(p->op, *key) : -1;
  if (i < 0) {
    char clean[64];
    md_error(d, E0401, MD_NOWHERE, "%s: %s has no key '%s'", where, p->op->name,
             md_clean(key, clean, sizeof clean));
    hint_keys(p->op, d);
    return false;
  }
  Cursor c = cursor_of(where, text, d);
  if (!size_of(&c, &p->op->key[i], p->size[i])) return false;
  return !*c.at || md_error(d, E0401, place_of(&c, c.at, 1), "the number ends here");
}

const int64_t *md_problem_size(const md_problem *p, char letter) {
  int i = key_of(p->op, letter);
  MD_ASSERT(i >= 0, "%s has no key '%c'", p->op->name, letter);
  return p->size[i];
}

void md_problem_print(const md_problem *p, md_text *to) {
  md_put(to, "%s:", p->op->name);
  for (int i = 0; i < MD_PROBLEM_KEYS && p->op->key[i].letter; i++) {
    const md_problem_key *k = &p->op->key[i];
    bool all_preset = true, all_same = true;
    for (int j = 0; j < k->axes; j++) {
      all_preset = all_preset && p->size[i][j] == k->preset;
      all_same = all_same && p->size[i][j] == p->size[i][0];
    }
    if (all_preset) continue;
    md_put(to, "%c%lld", k->letter, (long long)p->size[i][0]);
    for (int j = 1; j < k->axes && !all_same; j++) md_put(to, "x%lld", (long long)p->size[i][j]);
  }
}

// --- sweeps

static bool add_value(Cursor *c, const char *at, const char *value, md_sweep *s) {
  if (s->num == MD_SWEEP_VALUES)
    return md_error(c->diags, E0401, place_of(c, at, 1), "more than %d values", MD_SWEEP_VALUES);
  s->value[s->num++] = value;
  return true;
}

// first ".." last [("+" | "*") step]
static bool range(Cursor *c, md_arena *a, md_sweep *s) {
  const char *start = c->at;
  int64_t first = 0, last = 0, step = 1;
  if (!number(c, &first)) return false;
  c->at += 2;
  if (!number(c, &last)) return false;
  char sign = *c->at == '*' ? '*' : '+';
  if (*c->at == '*' || *c->at == '+') {
    c->at++;
    if (!number(c, &step)) return false;
  }
  md_place all = place_of(c, start, (size_t)(c->at - start));
  if (last < first) return md_error(c->diags, E0401, all, "the range ends before it begins");
  if (step < (sign == '*' ? 2 : 1) || (sign == '*' && first == 0))
    return md_error(c->diags, E0401, all, "the range never ends");
  for (int64_t x = first; x <= last; x = sign == '*' ? x * step : x + step)
    if (!add_value(c, start, md_format(a, "%lld", (long long)x), s)) return false;
  return true;
}

static bool is_range(const Cursor *c) {
  return is_number(c) && strncmp(c->at + strspn(c->at, "0123456789"), "..", 2) == 0;
}

bool md_sweep_parse(const char *where, const char *text, md_arena *a, md_sweep *s, md_diags *d) {
  Cursor c = cursor_of(where, text, d);
  size_t len = strcspn(text, "=");
  if (!len || !text[len]) {
    md_error(d, E0401, place_of(&c, text, len), "not of the form KEY=VALUES");
    md_hint(d, "for example: --sweep n=1,4..64*2");
    return false;
  }
  *s = (md_sweep){.key = md_strndup(a, text, len),
                  .value = MD_NEW_ARRAY(a, const char *, MD_SWEEP_VALUES)};
  c.at = text + len;
  do {
    const char *start = ++c.at;
    if (is_range(&c)) {
      if (!range(&c, a, s)) return false;
    } else {
      c.at += strcspn(c.at, ",");
      if (c.at == start)
        return md_error(d, E0401, place_of(&c, start, 1), "a value is missing here");
      if (!add_value(&c, start, md_strndup(a, start, (size_t)(c.at - start)), s)) return false;
    }
    if (*c.at && *c.at != ',') {
      md_error(d, E0401, place_of(&c, c.at, 1), "the range ends here");
      md_hint(d, "a range is FIRST..LAST, FIRST..LAST+STEP or FIRST..LAST*STEP");
      return false;
    }
  } while (*c.at);
  return true;
}
