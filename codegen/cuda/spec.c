// SPDX-License-Identifier: Apache-2.0
// The facts of a device as a file: a key and a value a line, in YAML. What reads the file hands over one
// key after another.
#include "codegen/cuda/cuda.h"

#include <stddef.h>
#include <string.h>

typedef struct Key {
  const char *name, *doc;
  size_t at;      // in md_cuda_spec
  double lo, hi;  // of a number; lo 0: a text
} Key;
#define NUMBER(field, lo, hi, doc) {#field, doc, offsetof(md_cuda_spec, field), lo, hi}
#define TEXT(field, doc) {#field, doc, offsetof(md_cuda_spec, field), 0, 0}
static const Key keys[] = {
    TEXT(title, "what the device is called"),
    TEXT(source, "where the figures are from"),
    NUMBER(sms, 1, 4096, "multiprocessors"),
    NUMBER(clock_mhz, 1, 1e5, "boost clock"),
    NUMBER(registers, 1, 1 << 20, "of a multiprocessor"),
    NUMBER(threads, 32, 1 << 16, "of a multiprocessor, at most"),
    NUMBER(blocks, 1, 1024, "of a multiprocessor, at most"),
    NUMBER(shared_bytes, 1024, 1 << 24, "of a multiprocessor"),
    NUMBER(block_shared_bytes, 1024, 1 << 24, "of a block, at most"),
    NUMBER(l2_bytes, 1, 1e12, "second-level cache"),
    NUMBER(memory_bytes, 1, 1e15, "device memory"),
    NUMBER(bandwidth, 1e6, 1e16, "bytes a second, to memory"),
    NUMBER(fma_flops, 1e6, 1e18, "a second, in f32"),
    NUMBER(tensor_flops, 1e6, 1e19, "a second, bf16 products added in f32, not sparse"),
};

static bool is_text(const Key *k) { return k->lo == 0; }

static double *number_of(const md_cuda_spec *s, const Key *k) {
  return (double *)(void *)((char *)(uintptr_t)s + k->at);
}

static const char **text_of(const md_cuda_spec *s, const Key *k) {
  return (const char **)(void *)((char *)(uintptr_t)s + k->at);
}

void md_cuda_spec_print(const md_cuda_spec *s, md_text *to) {
  md_put(to, "# %s, as modistc knows it. For --target-spec=FILE.\n", s->title);
  char target[32];
  snprintf(target, sizeof target, "sm_%d%.1s", s->arch.sm, &s->arch.suffix);
  md_put(to, "target: %-32s # the best code for it\n", target);
  for (int i = 0; i < MD_COUNT(keys); i++) {
    char number[MD_FLOAT_CHARS];
    if (is_text(&keys[i])) {
      md_put(to, "%s: \"%s\"\n", keys[i].name, *text_of(s, &keys[i]));
      continue;
    }
    md_put(to, "%s: %-*s # %s\n", keys[i].name, MD_MAX(1, 38 - (int)strlen(keys[i].name)),
           md_float_text(*number_of(s, &keys[i]), number), keys[i].doc);
  }
}

static bool unknown(const char *key, md_place at, md_diags *d) {
  const char *names[MD_COUNT(keys) + 1] = {"target"};
  for (int i = 0; i < MD_COUNT(keys); i++) names[i + 1] = keys[i].name;
  char clean[100];
  md_error(d, E0445, at, "unknown key '%s'", md_clean(key, clean, sizeof clean));
  const char *near = md_nearest(key, names, MD_COUNT(names));
  if (near) md_hint(d, "did you mean '%s'?", near);
  else md_hint(d, "'modistc targets --spec=h200' prints a file with every key");
  return false;
}

static bool set_target(md_cuda_spec *s, const char *text, md_place at, md_diags *d) {
  char target[80], clean[80];
  md_diags *quiet = md_diags_create();
  snprintf(target, sizeof target, "cuda:%s", text);
  bool ok = !strncmp(text, "sm_", 3) && md_cuda_parse(target, &s->arch, quiet);
  md_diags_destroy(quiet);
  if (ok) return true;
  md_error(d, E0445, at, "target is '%s', but must be one that code can be made for",
           md_clean(text, clean, sizeof clean));
  md_hint(d, "'modistc targets' lists them: sm_80, sm_90a and so on");
  return false;
}

bool md_cuda_spec_set(md_cuda_spec *s, const char *key, const char *text, md_place key_at,
                      md_place at, md_arena *a, md_diags *d) {
  if (!strcmp(key, "target")) return set_target(s, text, at, d);
  const Key *k = keys;
  while (k < keys + MD_COUNT(keys) && strcmp(k->name, key) != 0) k++;
  if (k == keys + MD_COUNT(keys)) return unknown(key, key_at, d);
  if (is_text(k)) {
    *text_of(s, k) = md_strdup(a, text);
    return true;
  }
  double x;
  char clean[100];
  md_clean(text, clean, sizeof clean);
  if (!md_parse_float(text, &x) || x != x)
    return md_error(d, E0445, at, "%s is '%s', but must be a number (%s)", key, clean, k->doc);
  if (x < k->lo || x > k->hi)
    return md_error(d, E0445, at, "%s is %s, but must lie between %g and %g (%s)", key, clean,
                    k->lo, k->hi, k->doc);
  *number_of(s, k) = x;
  return true;
}

bool md_cuda_spec_check(const md_cuda_spec *s, const char *file, md_diags *d) {
  md_text missing = {0};
  if (!s->arch.sm) md_put(&missing, "target");
  for (int i = 0; i < MD_COUNT(keys); i++) {
    if (is_text(&keys[i]) || *number_of(s, &keys[i]) > 0) continue;
    md_put(&missing, "%s%s", missing.len ? ", " : "", keys[i].name);
  }
  bool ok = !missing.len;
  if (!ok) {
    md_error(d, E0445, MD_IN_FILE(file), "no value for %s", missing.s);
    md_hint(d, "'modistc targets --spec=h200' prints a file with every key");
  } else if (s->block_shared_bytes > s->shared_bytes) {
    ok = md_error(d, E0445, MD_IN_FILE(file),
                  "block_shared_bytes is more than a multiprocessor has (shared_bytes)");
  }
  md_text_free(&missing);
  return ok;
}
