// SPDX-License-Identifier: Apache-2.0
// Types and attributes from text. The op table says what an attribute takes; nothing here knows an
// op. Bounds are checked here too, because a zero word later means "the default".
#include "graph/read.h"

#include <string.h>

static bool not_this_kind(md_reader *r, const md_attr_spec *spec) {
  static const char *const kinds[] = {
      [MD_AT_INT] = "an integer",        [MD_AT_FLOAT] = "a number",
      [MD_AT_BOOL] = "true or false",    [MD_AT_DIM3] = "three integers [t,h,w]",
      [MD_AT_DIMS] = "a list [a,b,...]", [MD_AT_ENUM] = "a word",
      [MD_AT_DTYPE] = "an element type", [MD_AT_NAME] = "the name of a state, @name",
  };
  const md_token *t = &r->tok;
  if (t->kind == MD_TOK_END || t->kind == MD_TOK_BAD || t->starts_line)
    return md_unexpected(r, kinds[spec->type]);
  return md_read_error(r, E0109, t, "%s takes %s, not '%.*s'", spec->name, kinds[spec->type],
                       MD_MIN(t->len, 60), t->s);
}

// The number `t`, which was given for `spec`, fits its bound and can be told from "not given".
static bool in_bounds(md_reader *r, const md_attr_spec *spec, const md_token *t, double x) {
  char bound[MD_FLOAT_CHARS];
  if (spec->has_min && !(x >= spec->min))
    return md_read_error(r, E0110, t, "%s is %.*s, but at least %s is needed", spec->name, t->len,
                         t->s, md_float_text(spec->min, bound));
  if (x == 0 && spec->preset != 0)
    return md_read_error(r, E0110, t, "%s cannot be 0, which stands for its default %s", spec->name,
                         md_float_text(spec->preset, bound));
  return true;
}

static bool read_int_of(md_reader *r, const md_attr_spec *spec, int64_t *out) {
  md_token t = r->tok;
  if (t.kind != MD_TOK_NUMBER || memchr(t.s, '.', (size_t)t.len)) return not_this_kind(r, spec);
  return md_read_int(r, "an integer", out) && in_bounds(r, spec, &t, (double)*out);
}

static bool read_float_of(md_reader *r, const md_attr_spec *spec, double *out) {
  md_token t = r->tok;
  bool is_word = md_is_word(r, "inf") || md_is_word(r, "nan");
  if (t.kind != MD_TOK_NUMBER && !is_word) return not_this_kind(r, spec);
  // The C library also takes hexadecimal digits and other spellings of infinity.
  const char *digits = t.s + (*t.s == '-');
  size_t len = (size_t)(t.s + t.len - digits), num = 0;
  while (num < len && digits[num] && strchr("0123456789.eE+-", digits[num])) num++;
  is_word = is_word || (len == 3 && (!memcmp(digits, "inf", 3) || !memcmp(digits, "nan", 3)));
  if ((!is_word && num < len) || !md_parse_float(md_token_text(r, &t), out))
    return md_read_error(r, E0103, &t, "'%.*s' is not a number that a float can hold",
                         MD_MIN(t.len, 60), t.s);
  md_take(r);
  return in_bounds(r, spec, &t, *out);
}

// `max` integers at most; their number goes to *num.
static bool read_list(md_reader *r, const md_attr_spec *spec, int max, int64_t *out, int *num) {
  md_token t = r->tok;
  if (!md_is_punct(r, '[')) return not_this_kind(r, spec);
  md_take(r);
  *num = 0;
  while (!md_is_punct(r, ']')) {
    if (*num && !md_expect(r, ',')) return false;
    if (*num == max)
      return md_read_error(r, E0109, &r->tok, "%s takes %s%d integers", spec->name,
                           spec->type == MD_AT_DIMS ? "at most " : "", max);
    if (!read_int_of(r, spec, &out[(*num)++])) return false;
  }
  md_take(r);
  if (spec->type == MD_AT_DIMS || *num == max) return true;
  return md_read_error(r, E0109, &t, "%s takes %d integers [t,h,w], not %d", spec->name, max, *num);
}

static bool read_choice(md_reader *r, const md_attr_spec *spec, int64_t *out) {
  if (r->tok.kind != MD_TOK_WORD) return not_this_kind(r, spec);
  const char *names[MD_COUNT(spec->choice)], *word = md_token_text(r, &r->tok);
  for (*out = 0; *out < spec->num_choices; ++*out) {
    names[*out] = spec->choice[*out];
    if (!strcmp(word, names[*out])) return md_take(r), true;
  }
  md_read_error(r, E0111, &r->tok, "%s has no choice '%s'", spec->name, word);
  const char *near = md_nearest(word, names, spec->num_choices);
  md_text all = {0};
  for (int i = 0; i < spec->num_choices; i++) md_put(&all, "%s%s", i ? ", " : "", names[i]);
  if (near) md_hint(r->diags, "did you mean %s?", near);
  else md_hint(r->diags, "one of %s", all.s);
  md_text_free(&all);
  return false;
}

static bool read_dtype(md_reader *r, md_dtype *out) {
  const char *names[MD_NUM_DTYPES], *word = md_token_text(r, &r->tok);
  *out = md_dtype_from(word);
  if (*out != MD_NO_DTYPE) return md_take(r), true;
  for (int d = MD_NO_DTYPE + 1; d < MD_NUM_DTYPES; d++) names[d - 1] = md_dtype_name((md_dtype)d);
  md_read_error(r, E0112, &r->tok, "no element type '%s'", word);
  const char *near = md_nearest(word, names, MD_NUM_DTYPES - 1);
  if (near) md_hint(r->diags, "did you mean %s?", near);
  else md_hint(r->diags, "one of f32, bf16, f64, i32, i64, u8, bool");
  return false;
}

static bool read_value(md_reader *r, const md_attr_spec *spec, md_arena *keep, md_attr *attr) {
  int64_t *word = &attr->word[spec->word];
  int num;
  switch (spec->type) {
  case MD_AT_INT: return read_int_of(r, spec, word);
  case MD_AT_FLOAT: return read_float_of(r, spec, &attr->real[spec->word]);
  case MD_AT_DIM3: return read_list(r, spec, 3, word, &num);
  case MD_AT_ENUM: return read_choice(r, spec, word);
  case MD_AT_DIMS:
    if (!read_list(r, spec, MD_MAX_RANK, word + 1, &num)) return false;
    *word = num;
    return true;
  case MD_AT_BOOL:
    if (!md_is_word(r, "true") && !md_is_word(r, "false")) return not_this_kind(r, spec);
    *word = md_is_word(r, "true");
    return md_take(r), true;
  case MD_AT_DTYPE: {
    md_dtype dtype;
    if (r->tok.kind != MD_TOK_WORD) return not_this_kind(r, spec);
    if (!read_dtype(r, &dtype)) return false;
    *word = dtype;
    return true;
  }
  case MD_AT_NAME:
    if (r->tok.kind != MD_TOK_AT) return not_this_kind(r, spec);
    *word = (int64_t)(intptr_t)md_strdup(keep, md_token_text(r, &r->tok));
    return md_take(r), true;
  }
  return false;
}

static const md_attr_spec *find_attr(md_reader *r, md_op op, int *index) {
  const char *names[MD_ROW_ATTR], *name = md_token_text(r, &r->tok);
  int num = md_op_num_attr(op);
  for (*index = 0; *index < num; ++*index) {
    names[*index] = md_op_attr(op, *index)->name;
    if (!strcmp(names[*index], name)) return md_op_attr(op, *index);
  }
  md_read_error(r, E0107, &r->tok, "%s has no attribute '%s'", md_ops[op].name, name);
  const char *near = md_nearest(name, names, num);
  md_text all = {0};
  for (int i = 0; i < num; i++) md_put(&all, "%s%s", i ? ", " : "", names[i]);
  if (near) md_hint(r->diags, "did you mean %s?", near);
  else if (num) md_hint(r->diags, "one of %s", all.s);
  else md_hint(r->diags, "%s takes no attributes", md_ops[op].name);
  md_text_free(&all);
  return NULL;
}

bool md_read_int(md_reader *r, const char *what, int64_t *out) {
  md_token t = r->tok;
  if (t.kind != MD_TOK_NUMBER) return md_unexpected(r, what);
  if (!md_parse_int(md_token_text(r, &t), out))
    return md_read_error(r, E0103, &t, "'%.*s' is not an integer of 64 bits", MD_MIN(t.len, 60),
                         t.s);
  md_take(r);
  return true;
}

bool md_read_type(md_reader *r, md_type *t) {
  md_token first = r->tok;
  *t = (md_type){0};
  if (first.kind != MD_TOK_WORD) return md_unexpected(r, "a type such as f32[2,3]");
  if (!read_dtype(r, &t->dtype) || !md_expect(r, '[')) return false;
  do {
    if (t->shape.rank == MD_MAX_RANK)
      return md_read_error(r, E0113, &r->tok, "a tensor has at most %d axes", MD_MAX_RANK);
    if (!md_read_int(r, "a size", &t->shape.dim[t->shape.rank++])) return false;
  } while (md_accept(r, ','));
  if (!md_expect(r, ']')) return false;
  if (md_is_punct(r, '.')) {
    md_take(r);
    int64_t block;
    bool fits = r->tok.kind == MD_TOK_WORD && r->tok.len > 1 && *r->tok.s == 'c' &&
                md_parse_int(md_token_text(r, &r->tok) + 1, &block);
    if (!fits) return md_unexpected(r, "a layout such as .c8");
    t->block = (int)MD_MIN(MD_MAX(block, -1), INT32_MAX);
    if (!t->block) t->block = -1;  // ".c0" is no layout
    md_take(r);
  }
  const char *why;
  if (md_type_check(t, &why)) return true;
  first.len = r->last.line == first.line ? r->last.col + r->last.len - first.col : first.len;
  return md_read_error(r, E0113, &first, "type is not possible: %s", why);
}

bool md_read_attrs(md_reader *r, md_op op, md_arena *keep, md_attr *attr, md_place *place) {
  unsigned given = 0;
  *attr = (md_attr){0};
  if (!md_expect(r, '{')) return false;
  while (!md_is_punct(r, '}')) {
    if (given && !md_expect(r, ',')) return false;
    if (r->tok.kind != MD_TOK_WORD) return md_unexpected(r, "an attribute");
    int index;
    const md_attr_spec *spec = find_attr(r, op, &index);
    if (!spec) return false;
    if (given & 1u << index)
      return md_read_error(r, E0108, &r->tok, "attribute %s stands twice", spec->name);
    given |= 1u << index;
    md_token word = md_take(r);
    if (!md_expect(r, '=') || !read_value(r, spec, keep, attr)) return false;
    if (place) place[index] = md_span(r, &word, &r->last);
  }
  md_take(r);
  return true;
}

bool md_parse_attrs(const char *text, md_op op, md_arena *a, md_attr *attr, md_diags *d) {
  md_reader r;
  md_arena *scratch = md_arena_create();
  bool ok = md_reader_init(&r, "attributes", text, strlen(text), scratch, d) &&
            md_read_attrs(&r, op, a, attr, NULL);
  if (ok && r.tok.kind != MD_TOK_END) ok = md_unexpected(&r, "the end of the text");
  md_arena_destroy(scratch);
  return ok;
}
