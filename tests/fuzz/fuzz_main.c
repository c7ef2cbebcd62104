// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target without libFuzzer: inputs are mutated by a seeded generator, so a run can be
// repeated on any machine.
//   fuzz_text [--seed=N] [--seconds=N] [--runs=N] [--write-seeds=FOLDER] FILE|FOLDER...
// The input at hand is kept in fuzz-<pid>.bin and removed after a clean end.
#include "tests/fuzz/fuzz.h"

#include "base/base.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LONGEST = 1 << 16 };

typedef struct input {
  char *s;
  size_t len;
} input;
static struct {
  input *item;
  int num, cap;
} corpus;  // of this program only

static void add(const char *s, size_t len) {
  input in = {malloc(len + 1), len};
  if (!in.s) md_out_of_memory(len);
  memcpy(in.s, s, len);
  MD_PUSH(corpus.item, corpus.num, corpus.cap, in);
}

static void add_file(const char *path) {
  static char buf[LONGEST];
  FILE *f = fopen(path, "rb");
  if (!f) return;
  add(buf, fread(buf, 1, sizeof buf, f));
  fclose(f);
}

static void add_path(const char *path) {
  DIR *folder = opendir(path);
  if (!folder) {
    add_file(path);
    return;
  }
  for (struct dirent *e; (e = readdir(folder));) {
    md_text t = {0};
    md_put(&t, "%s/%s", path, e->d_name);
    if (e->d_name[0] != '.') add_file(t.s);
    md_text_free(&t);
  }
  closedir(folder);
}

typedef struct dice {
  uint64_t key, i;
} dice;
static uint64_t roll(dice *d, uint64_t sides) { return md_hash_at(d->key, d->i++) % sides; }

static void replace(input *to, size_t at, size_t gone, const char *s, size_t len) {
  gone = MD_MIN(gone, to->len - at);
  len = MD_MIN(len, LONGEST - (to->len - gone));
  memmove(to->s + at + len, to->s + at + gone, to->len - at - gone);
  memcpy(to->s + at, s, len);
  to->len = to->len - gone + len;
}

// Words and marks move within and between inputs: texts stay nearly right, which goes deepest.
static void word_at(const input *in, size_t at, size_t *from, size_t *len) {
  static const char marks[] = " \t\n(){}[],:=";
  *from = at;
  while (*from && !strchr(marks, in->s[*from - 1])) --*from;
  *len = 0;
  while (*from + *len < in->len && !strchr(marks, in->s[*from + *len])) ++*len;
  if (!*len && in->len) *len = 1;
}

static void mutate(dice *d, input *to) {
  static const char *const words[] = {"%x",          "_",
                                      "0",           "-1",
                                      "at 64",       "at @w",
                                      ".c8",         "9223372036854775807",
                                      "1e999",       "f32[2]",
                                      "}",           "{",
                                      "region @r {", "update @w = %x",
                                      "return %x",   "\n",
                                      ", ",          " arena 4096",
                                      "inf",         "%0"};
  size_t at = roll(d, to->len + 1), from, len, from2, len2;
  const input *other = &corpus.item[roll(d, (uint64_t)corpus.num)];
  char byte = (char)roll(d, 256);
  switch (roll(d, 8)) {
  case 0: replace(to, at, 1, &byte, 1); break;
  case 1: replace(to, at, roll(d, 20), "", 0); break;
  case 2: {
    const char *word = words[roll(d, (uint64_t)MD_COUNT(words))];
    replace(to, at, roll(d, 2) * 4, word, strlen(word));
    break;
  }
  case 3:
  case 4:
  case 5:  // a word for a word
    word_at(other, roll(d, other->len + 1), &from, &len);
    word_at(to, at, &from2, &len2);
    replace(to, from2, len2, other->s + from, MD_MIN(len, other->len - from));
    break;
  default:  // a run of another input
    from = roll(d, other->len + 1);
    len = roll(d, 120);
    len = MD_MIN(len, other->len - from);
    replace(to, at, roll(d, 2) * len, other->s + from, len);
  }
}

static void write_seeds(const char *folder) {
  for (int i = 0; i < corpus.num; i++) {
    md_text t = {0};
    md_put(&t, "%s/seed%d", folder, i);
    FILE *f = fopen(t.s, "wb");
    if (f) {
      fwrite(corpus.item[i].s, 1, corpus.item[i].len, f);
      fclose(f);
    }
    md_text_free(&t);
  }
}

// What crashes is found in the file.
static void run(const char *path, const input *in) {
  FILE *f = fopen(path, "wb");
  if (f) {
    fwrite(in->s, 1, in->len, f);
    fclose(f);
  }
  LLVMFuzzerTestOneInput((const uint8_t *)in->s, in->len);
}

static int64_t option(const char *arg, const char *name, int64_t old) {
  size_t len = strlen(name);
  int64_t x = old;
  if (!strncmp(arg, name, len)) md_parse_int(arg + len, &x);
  return x;
}

int main(int argc, char **argv) {
  int64_t seed = 1, seconds = 10, runs = INT64_MAX, done = 0;
  fuzz_seeds(add);
  for (int i = 1; i < argc; i++) {
    seed = option(argv[i], "--seed=", seed);
    seconds = option(argv[i], "--seconds=", seconds);
    runs = option(argv[i], "--runs=", runs);
    if (argv[i][0] != '-') add_path(argv[i]);
  }
  for (int i = 1; i < argc; i++)
    if (!strncmp(argv[i], "--write-seeds=", 14)) {
      write_seeds(argv[i] + 14);
      return EXIT_SUCCESS;
    }
  char path[64];
  snprintf(path, sizeof path, "fuzz-%ld.bin", (long)getpid());
  printf("seed %lld, %d inputs to begin with\n", (long long)seed, corpus.num);
  fflush(stdout);
  for (int i = 0; i < corpus.num; i++) run(path, &corpus.item[i]);
  input now = {malloc(LONGEST + 1), 0};
  if (!now.s) md_out_of_memory(LONGEST);
  int64_t end = md_now_ns() + seconds * 1000000000;
  for (; done < runs && md_now_ns() < end; done++) {
    dice d = {md_hash_key("fuzz", (uint64_t)seed ^ (uint64_t)done << 20), 0};
    const input *from = &corpus.item[roll(&d, (uint64_t)corpus.num)];
    now.len = 0;
    replace(&now, 0, 0, from->s, from->len);
    for (uint64_t n = 1 + roll(&d, 6); n; n--) mutate(&d, &now);
    run(path, &now);
  }
  printf("%lld runs\n", (long long)done);
  remove(path);
  for (int i = 0; i < corpus.num; i++) free(corpus.item[i].s);
  free(corpus.item);
  free(now.s);
  return EXIT_SUCCESS;
}
