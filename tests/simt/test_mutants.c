// SPDX-License-Identifier: Apache-2.0
// Would the tests notice mistakes in the kernels? One mistake at a time goes into the text of a sample's
// kernels, which then run: the checker or a wrong result must tell. Some change nothing (a loop that
// goes round once needs no barrier, a term is 0), so what survives is to be read, and the test fails only
// when so much does that the checks must have become blind.
//   test_mutants [--each=N] [--seed=S] [--only=TEXT] [--kind=NAME]
//     N places of each kind in each sample, drawn by the seed
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_PLACES = 4096, SECONDS = 30, FLOOR = 80 };  // per cent killed

static const struct Kind {
  const char *name, *from, *to;
} kinds[] = {
    {"barrier", "md_sync();", "        ;"},
    {"barrier", "md_sync_warp();", ";"},
    {"wait", "md_cp_wait(0)", "md_cp_wait(1)"},
    {"wait", "md_cp_wait(1)", "md_cp_wait(2)"},
    {"bound", " < ", " <= "},
    {"bound", " >= ", " > "},
    {"condition", " && ", " || "},
    {"sign", " + ", " - "},
    {"index", " % ", " / "},
    {"index", " * ", " + "},
    {"swizzle", " ^ ", " + "},
};
static const char *const names[] = {"barrier", "wait",  "bound",  "condition",
                                    "sign",    "index", "swizzle"};

// What became of a mutant. No code: the compiler refuses it.
typedef enum Verdict { SURVIVED, SEEN, WRONG, HANGS, NO_CODE, NUM_VERDICTS } Verdict;
static int tally[MD_COUNT(names)][NUM_VERDICTS];

typedef struct Options {
  int64_t each, seed;
  const char *only, *kind;
} Options;

// Places of a word in code, not in comments.
static int find_places(const char *text, const char *word, int64_t at[MAX_PLACES]) {
  int num = 0;
  for (const char *line = text; *line && num < MAX_PLACES;) {
    size_t len = strcspn(line, "\n");
    const char *comment = strstr(line, "//");
    const char *end = comment && comment < line + len ? comment : line + len;
    for (const char *s = line; (s = strstr(s, word)) && s < end && num < MAX_PLACES; s++)
      at[num++] = s - text;
    line += len + (line[len] == '\n');
  }
  return num;
}

// What a mutant would only be warned of is no reason to leave it out.
static char *mutated(const char *text, int64_t at, const struct Kind *k) {
  md_text t = {0};
  md_put(&t, "#pragma GCC diagnostic ignored \"-Wparentheses\"\n");
  md_put(&t, "#pragma GCC diagnostic ignored \"-Wtautological-compare\"\n");
  md_put_bytes(&t, text, (size_t)at);
  md_put(&t, "%s%s", k->to, text + at + strlen(k->from));
  return t.s;
}

static void silence(int saved[2]) {
  fflush(NULL);
  int null = open("/dev/null", O_WRONLY);
  for (int i = 0; i < 2; i++) {
    saved[i] = dup(i + 1);
    dup2(null, i + 1);
  }
  close(null);
}

static void speak(const int saved[2]) {
  fflush(NULL);
  for (int i = 0; i < 2; i++) {
    dup2(saved[i], i + 1);
    close(saved[i]);
  }
}

static Verdict run(const Program *p, const simt_code *code) {
  static const simt_options options[] = {{SIMT_FORWARD, 0}, {SIMT_RANDOM, 1}};
  for (int i = 0; i < MD_COUNT(options); i++) {
    char **data;
    md_text why = {0};
    if (!run_program(p, code, options[i], &data, &why)) return SEEN;
    if (!program_check(p, data, &why)) return WRONG;
    simt_free_buffers();
  }
  return SURVIVED;
}

// In a process of its own: a mutant may loop for ever or touch what it likes.
static Verdict try(const Program *p, const char *text) {
  int saved[2], status = 0;
  silence(saved);
  simt_code *code = simt_build(text);
  pid_t child = code ? fork() : -1;
  if (child == 0) {
    alarm(SECONDS);
    _exit((int)run(p, code));
  }
  if (child > 0) waitpid(child, &status, 0);
  simt_code_free(code);
  speak(saved);
  if (!code) return NO_CODE;
  return child > 0 && WIFEXITED(status) ? (Verdict)WEXITSTATUS(status) : HANGS;
}

static int group_of(const struct Kind *k) {
  int i = 0;
  while (strcmp(names[i], k->name) != 0) i++;
  return i;
}

// "k3+17": line 17 of that kernel.
static void print_survivor(const char *sample, const char *text, int64_t at, const struct Kind *k) {
  const char *line = text + at, *s;
  while (line > text && line[-1] != '\n') line--;
  int lines = 0;
  for (s = line; s > text && strncmp(s, "MD_KERNEL(", 10) != 0; s--) lines += *s == '\n';
  char kernel[32] = "?";
  sscanf(s, "MD_KERNEL(%*[^)]) %31[a-z0-9_]", kernel);
  int column = (int)(text + at - line) + 1;
  while (*line == ' ') line++;
  printf("SURVIVED %s, %s, %s+%d:%d: %.*s\n", k->name, sample, kernel, lines, column,
         (int)strcspn(line, "\n"), line);
}

static void mutate(const Program *p, const char *sample, const Options *o) {
  static int64_t at[MAX_PLACES];
  char *text = run_text(p);
  if (try(p, text) != SURVIVED) {
    printf("left out: %s fails without a mistake\n", sample);
    free(text);
    return;
  }
  for (int k = 0; k < MD_COUNT(kinds); k++) {
    if (!strstr(kinds[k].name, o->kind)) continue;
    // The entries behind the kernels hold none of the words.
    int num = find_places(text, kinds[k].from, at);
    for (int i = 0; i < num && i < o->each; i++) {
      uint64_t draw = md_hash_at(md_hash_key(sample, (uint64_t)o->seed), (uint64_t)(100 * k + i));
      int64_t *chosen = &at[i + (int)(draw % (uint64_t)(num - i))], place = *chosen;
      *chosen = at[i];
      char *mutant = mutated(text, place, &kinds[k]);
      Verdict v = try(p, mutant);
      free(mutant);
      tally[group_of(&kinds[k])][v]++;
      if (v == SURVIVED) print_survivor(sample, text, place, &kinds[k]);
      fflush(stdout);
    }
  }
  free(text);
}

static void mutate_all(bool (*sample)(int, md_text *, char[64]), const Options *o) {
  md_text text = {0};
  char name[64];
  for (int i = 0; sample(i, &text, name); i++) {
    md_diags *d = md_diags_create();
    Program *p = strstr(name, o->only) ? program_create(text.s, 2, 1, d) : NULL;
    if (p) mutate(p, name, o);
    program_destroy(p);
    md_diags_destroy(d);
    md_text_free(&text);
    text = (md_text){0};
  }
}

static int print_tally(void) {
  int all[NUM_VERDICTS] = {0};
  printf("%-10s %8s %8s %8s %8s %8s\n", "", "checker", "wrong", "hangs", "survived", "no code");
  for (int i = 0; i < MD_COUNT(names); i++) {
    const int *n = tally[i];
    printf("%-10s %8d %8d %8d %8d %8d\n", names[i], n[SEEN], n[WRONG], n[HANGS], n[SURVIVED],
           n[NO_CODE]);
    for (int v = 0; v < NUM_VERDICTS; v++) all[v] += n[v];
  }
  int killed = all[SEEN] + all[WRONG] + all[HANGS], num = killed + all[SURVIVED];
  printf("%d of %d mutants killed (%.1f %%), %d of them by the checker\n", killed, num,
         num ? 100.0 * killed / num : 0.0, all[SEEN]);
  return !num || 100 * killed < FLOOR * num;
}

int main(int argc, char **argv) {
  Options o = {.each = 1, .seed = 1, .only = "", .kind = ""};
  for (int i = 1; i < argc; i++) {
    if (!strncmp(argv[i], "--only=", 7)) o.only = argv[i] + 7;
    else if (!strncmp(argv[i], "--kind=", 7)) o.kind = argv[i] + 7;
    else if (!strncmp(argv[i], "--each=", 7) && md_parse_int(argv[i] + 7, &o.each)) continue;
    else if (!strncmp(argv[i], "--seed=", 7) && md_parse_int(argv[i] + 7, &o.seed)) continue;
    else
      return fprintf(stderr,
                     "usage: test_mutants [--each=N] [--seed=S] [--only=TEXT] [--kind=NAME]\n"),
             2;
  }
  mutate_all(simt_sample, &o);
  mutate_all(simt_conv_sample, &o);
  return print_tally();
}
