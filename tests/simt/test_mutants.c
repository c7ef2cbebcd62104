// SPDX-License-Identifier: Apache-2.0
// Would the tests notice mistakes in the kernels? One mistake at a time goes into the text of a sample's
// kernels, which then run: the checker or a wrong result must tell. A mutant that nobody can tell from
// the kernel is no mistake, and counted apart:
//   same   the expression depends on thread and block alone, extents are numbers in the text, and in no
//          thread of the grid, which is the only one, has it another value; or they alone decide whether
//          it is evaluated, and in no thread is it
//   idle   a barrier, a wait or a fence that is reached, and without which nothing in that grid meets what
//          it should not, by the checker's clocks: in ORDERS further schedules, as of the readers of a byte
//          the checker keeps two, which the order chooses. It costs time alone
// For sm_90a mutants are made in kernels with wgmma alone; the others are those of sm_80. A mutant stands for a mistake of the generator, which is then in every kernel that has the same line
// between the same lines, but for numbers. One that its own kernel survives is tried in those
//   other  one of them tells, also of what is idle where it was made
// Never made are those in a name that nobody reads, `+ 0` to `- 0`, and `<` to `<=` in `a < b ? a : b`, whose arms are equal then. The
// rest that survives is printed, to be read; the test fails when it is too much.
//   test_mutants [--each=N] [--seed=S] [--only=TEXT] [--kind=NAME]
//     N places of each kind in each sample, drawn by the seed
#include "tests/simt/expression.h"
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_PLACES = 4096, SECONDS = 30, FLOOR = 95 };  // per cent killed
enum { ORDERS = 8, FIRST_SEED = 2 };
enum {
  AROUND = 4,
  MOST_OTHERS = 24,
  MOST_OF_IDLE = 4
};  // lines that are compared, places that are tried

static const struct Kind {
  const char *name, *from, *to;
} kinds[] = {
    {"barrier", "md_sync();", "        ;"},
    {"barrier", "md_sync_warp();", ";"},
    {"barrier", "md_sync_part(1, 256);", ";"},
    {"wait", "md_cp_wait(0)", "md_cp_wait(1)"},
    {"wait", "md_cp_wait(1)", "md_cp_wait(2)"},
    {"wait", "md_wgmma_wait(0)", "md_wgmma_wait(1)"},
    {"wait", "md_wgmma_wait(1)", "md_wgmma_wait(2)"},
    {"wait", "md_bar_wait(", "(void)("},
    {"fence", "md_fence_async();", ";"},
    {"fence", "md_wgmma_fence();", ";"},
    {"fence", "md_bar_fence();", ";"},
    {"fence", "md_tmap_acquire(", "(void)("},
    {"bound", " < ", " <= "},
    {"bound", " >= ", " > "},
    {"condition", " && ", " || "},
    {"sign", " + ", " - "},
    {"index", " % ", " / "},
    {"index", " * ", " + "},
    {"swizzle", " ^ ", " + "},
};
static const char *const names[] = {"barrier",   "wait", "fence", "bound",
                                    "condition", "sign", "index", "swizzle"};

// What became of a mutant. No code: the compiler refuses it.
typedef enum Verdict {
  SURVIVED,
  SEEN,
  WRONG,
  HANGS,
  OTHER,
  SAME,
  IDLE,
  NO_CODE,
  NUM_VERDICTS
} Verdict;
static int tally[MD_COUNT(names)][NUM_VERDICTS];

// A sample and the text of its kernels.
typedef struct Text {
  char *graph, *kernels, name[80];
  md_cuda_arch arch;
} Text;
static Text *texts;
static int num_texts, cap_texts;

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

// A mutant that is the kernel, whatever runs it.
static bool is_nothing(const char *text, int64_t at, const struct Kind *k) {
  const char *next = text + at + strlen(k->from);
  if (expression_is_unread(text, at)) return true;
  if (!strcmp(k->name, "sign")) return *next == '0' && !strchr("0123456789.ex", next[1]);
  return !strcmp(k->from, " < ") && expression_is_clamp(text, at);
}

// What a mutant would only be warned of is no reason to leave it out.
static void put_head(md_text *t) {
  md_put(t, "#pragma GCC diagnostic ignored \"-Wparentheses\"\n");
  md_put(t, "#pragma GCC diagnostic ignored \"-Wtautological-compare\"\n");
  md_put(t, "#pragma GCC diagnostic ignored \"-Wunused-value\"\n");
  md_put(t, "void simt_same(int same);\n");
}

static char *mutated(const char *text, int64_t at, const struct Kind *k) {
  md_text t = {0};
  put_head(&t);
  md_put_bytes(&t, text, (size_t)at);
  md_put(&t, "%s%s", k->to, text + at + strlen(k->from));
  return t.s;
}

// The kernel, which tells that it comes by that place.
static char *reached(const char *text, int64_t at) {
  md_text t = {0};
  put_head(&t);
  md_put_bytes(&t, text, (size_t)at);
  md_put(&t, "simt_same(1), %s", text + at);
  return t.s;
}

// The kernel, which tells at that place whether the mutant's expression has the same value.
static char *compared(const char *text, int64_t at, const struct Kind *k) {
  Span e = expression_around(text, at);
  int before = (int)(at - e.from), behind = (int)(e.to - at - (int64_t)strlen(k->from));
  const char *own = text + e.from, *rest = text + at + strlen(k->from);
  md_text t = {0};
  put_head(&t);
  md_put_bytes(&t, text, (size_t)e.from);
  md_put(&t, "({ __typeof__(%.*s) own_ = (%.*s); simt_same(own_ == (%.*s%s%.*s)); own_; })",
         (int)(e.to - e.from), own, (int)(e.to - e.from), own, before, own, k->to, behind, rest);
  md_put(&t, "%s", text + e.to);
  return t.s;
}

static int64_t evaluated, differed;
__attribute__((visibility("default"))) void simt_same(int same) {  // called by kernels
  evaluated++;
  differed += !same;
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

static Verdict run_mutant(const Program *p, const simt_code *code) {
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

static Verdict run_orders(const Program *p, const simt_code *code) {
  for (int i = 0; i < ORDERS; i++) {
    char **data;
    md_text why = {0};
    if (!run_program(p, code, (simt_options){SIMT_RANDOM, FIRST_SEED + (uint64_t)i}, &data, &why))
      return SEEN;
    if (!program_check(p, data, &why)) return WRONG;
    simt_free_buffers();
  }
  return IDLE;
}

// In a process of its own: a mutant may loop for ever or touch what it likes.
static Verdict try(const Program *p, const char *text,
                   Verdict (*run)(const Program *p, const simt_code *code)) {
  int saved[2], status = 0;
  silence(saved);
  simt_code *code = simt_build(text);
  pid_t child = code ? fork() : -1;
  if (child == 0) {
    // Of the processor: the machine may be busy.
    setrlimit(RLIMIT_CPU, &(struct rlimit){SECONDS, SECONDS});
    _exit((int)run(p, code));
  }
  if (child > 0) waitpid(child, &status, 0);
  simt_code_free(code);
  speak(saved);
  if (!code) return NO_CODE;
  return child > 0 && WIFEXITED(status) ? (Verdict)WEXITSTATUS(status) : HANGS;
}

static bool run_alone(const Program *p, const simt_code *code) {
  char **data;
  md_text why = {0};
  return run_program(p, code, (simt_options){SIMT_FORWARD, 0}, &data, &why);
}

static Verdict run_compared(const Program *p, const simt_code *code) {
  return run_alone(p, code) && evaluated && !differed ? SAME : SURVIVED;
}

static Verdict run_reached(const Program *p, const simt_code *code) {
  return run_alone(p, code) && !evaluated ? SAME : SURVIVED;
}

// A mutant that survived may be none.
static Verdict explain(const Program *p, const char *text, int64_t at, const struct Kind *k) {
  bool is_index = expression_is_index(text, expression_around(text, at));
  bool is_reached = expression_is_reached_by_indices(text, at);
  char *both = compared(text, at, k);
  Verdict v = is_index ? try(p, both, run_compared) : SURVIVED;
  if (v != SAME && is_reached) v = try(p, both, run_reached);
  free(both);
  return v == SAME ? SAME : SURVIVED;
}

static bool orders_memory(const struct Kind *k) {
  return !strcmp(k->name, "barrier") || !strcmp(k->name, "wait") || !strcmp(k->name, "fence");
}

static Verdict explain_order(const Program *p, const char *text, int64_t at, const char *mutant) {
  char *tells = reached(text, at);
  Verdict v = try(p, tells, run_reached);
  free(tells);
  return v == SAME ? SAME : try(p, mutant, run_orders);
}

// --- the same mistake in another sample

// Where the line begins that is so many before or behind that of a place.
static const char *line_near(const char *text, const char *s, int lines) {
  for (int i = lines; i <= 0; i++) {
    while (s > text && s[-1] != '\n') s--;
    if (i < 0 && s > text) s--;
  }
  for (int i = 0; i < lines; i++) s += strcspn(s, "\n") + (*s != 0);
  return s;
}

// The lines around a place, and the place, without indentation, comments and numbers.
static char *form_of(const char *text, int64_t at) {
  md_text t = {0};
  const char *end = line_near(text, line_near(text, text + at, 0), AROUND + 1);
  for (const char *s = line_near(text, text + at, -AROUND); s < end; s++) {
    bool begins = s == text || s[-1] == '\n';
    if (begins) s += strspn(s, " ");
    if (!strncmp(s, "//", 2)) s += strcspn(s, "\n");
    if (s == text + at) md_put(&t, "@");
    char *number;
    if (*s >= '0' && *s <= '9' && strtod(s, &number) >= 0) {
      s = number - 1;
      md_put(&t, "#");
    } else {
      md_put(&t, "%c", *s);
    }
  }
  return t.s;
}

static bool is_killed(Verdict v) { return v == SEEN || v == WRONG || v == HANGS || v == OTHER; }

static Program *program_at(const char *graph, md_cuda_arch arch, md_diags *d) {
  md_graph *g = md_parse_graph("sample", graph, strlen(graph), d);
  return g ? program_for(arch, g, 2, MD_F32, 1, d) : NULL;
}

static Verdict try_in(const Text *t, int64_t at, const struct Kind *k) {
  md_diags *d = md_diags_create();
  Program *p = program_at(t->graph, t->arch, d);
  char *mutant = mutated(t->kernels, at, k);
  Verdict v = p ? try(p, mutant, run_mutant) : SURVIVED;
  free(mutant);
  program_destroy(p);
  md_diags_destroy(d);
  return v;
}

// The name of the sample that notices; the own one may have other kernels.
static const char *other_that_sees(const Text *own, int64_t at, const struct Kind *k, int most) {
  static int64_t places[MAX_PLACES];
  const char *name = NULL;
  char *want = form_of(own->kernels, at);
  for (int i = 0, tried = 0; !name && i < num_texts; i++) {
    const Text *t = &texts[(own - texts + i) % num_texts];
    int num = find_places(t->kernels, k->from, places);
    for (int j = 0; !name && j < num && tried < most; j++) {
      if (t == own && places[j] == at) continue;
      char *form = form_of(t->kernels, places[j]);
      if (!strcmp(form, want) && (tried++, is_killed(try_in(t, places[j], k)))) name = t->name;
      free(form);
    }
  }
  free(want);
  return name;
}

// --- the run

static int group_of(const struct Kind *k) {
  int i = 0;
  while (strcmp(names[i], k->name) != 0) i++;
  return i;
}

// "k3+17": line 17 of that kernel.
static void print_survivor(const char *sample, const char *text, int64_t at, const struct Kind *k,
                           const char *how, const char *other) {
  const char *line = text + at, *s;
  while (line > text && line[-1] != '\n') line--;
  int lines = 0;
  for (s = line; s > text && strncmp(s, "MD_KERNEL(", 10) && strncmp(s, "MD_PART ", 8); s--)
    lines += *s == '\n';
  char kernel[32] = "?";
  if (!sscanf(s, "MD_KERNEL(%*[^)]) %31[a-z0-9_]", kernel))
    sscanf(s, "MD_PART %31[a-z0-9_]", kernel);
  int column = (int)(text + at - line) + 1;
  while (*line == ' ') line++;
  printf("%s %s, %s, %s+%d:%d: %.*s%s%s\n", how, k->name, sample, kernel, lines, column,
         (int)strcspn(line, "\n"), line, other ? " | seen by " : "", other ? other : "");
}

static void mutate_at(const Program *p, const Text *t, int64_t at, const struct Kind *k) {
  static const char *const how[NUM_VERDICTS] = {
      [SURVIVED] = "SURVIVED", [OTHER] = "other", [SAME] = "same", [IDLE] = "idle"};
  const char *other = NULL;
  char *mutant = mutated(t->kernels, at, k);
  Verdict v = try(p, mutant, run_mutant);
  if (v == SURVIVED)
    v = orders_memory(k) ? explain_order(p, t->kernels, at, mutant) : explain(p, t->kernels, at, k);
  free(mutant);
  int most = v == SURVIVED ? MOST_OTHERS : v == IDLE ? MOST_OF_IDLE : 0;
  if (most && (other = other_that_sees(t, at, k, most))) v = OTHER;
  tally[group_of(k)][v]++;
  if (how[v]) print_survivor(t->name, t->kernels, at, k, how[v], other);
  fflush(stdout);
}

// Has the architecture kernels of its own there?
static bool is_own(const Text *t, int64_t at) {
  if (!md_cuda_has_wgmma(t->arch)) return true;
  const char *text = t->kernels, *begin = text, *end = text;
  while (*end && end <= text + at) {
    begin = end;
    const char *part = strstr(end + 1, "\nMD_PART "), *kernel = strstr(end + 1, "\nMD_KERNEL(");
    end = part && (!kernel || part < kernel) ? part : kernel ? kernel : text + strlen(text);
  }
  const char *wgmma = strstr(begin, "md_wgmma");
  return wgmma && wgmma < end;
}

static void mutate(const Program *p, const Text *t, const Options *o) {
  static int64_t at[MAX_PLACES];
  if (try(p, t->kernels, run_mutant) != SURVIVED) {
    printf("left out: %s fails without a mistake\n", t->name);
    return;
  }
  for (int k = 0; k < MD_COUNT(kinds); k++) {
    if (!strstr(kinds[k].name, o->kind)) continue;
    // The entries behind the kernels hold none of the words.
    int num = 0, all = find_places(t->kernels, kinds[k].from, at);
    for (int i = 0; i < all; i++)
      if (is_own(t, at[i]) && !is_nothing(t->kernels, at[i], &kinds[k])) at[num++] = at[i];
    for (int i = 0; i < num && i < o->each; i++) {
      uint64_t draw = md_hash_at(md_hash_key(t->name, (uint64_t)o->seed), (uint64_t)(100 * k + i));
      int64_t *chosen = &at[i + (int)(draw % (uint64_t)(num - i))], place = *chosen;
      *chosen = at[i];
      mutate_at(p, t, place, &kinds[k]);
    }
  }
}

static void collect(bool (*sample)(int, md_text *, char[64]), md_cuda_arch arch) {
  md_text graph = {0};
  char name[64];
  bool has_wgmma = md_cuda_has_wgmma(arch);
  for (int i = 0; sample(i, &graph, name); i++) {
    md_diags *d = md_diags_create();
    Program *p = program_at(graph.s, arch, d);
    bool is_wanted = p && (!has_wgmma || strstr(p->m->text.s, "md_wgmma"));
    Text t = {.graph = graph.s, .kernels = is_wanted ? run_text(p) : NULL, .arch = arch};
    snprintf(t.name, sizeof t.name, "%s%s", name, has_wgmma ? ", sm_90a" : "");
    if (is_wanted) MD_PUSH(texts, num_texts, cap_texts, t);
    else md_text_free(&graph);
    program_destroy(p);
    md_diags_destroy(d);
    graph = (md_text){0};
  }
}

static void mutate_all(const Options *o) {
  for (int i = 0; i < num_texts; i++) {
    md_diags *d = md_diags_create();
    bool is_wanted = strstr(texts[i].name, o->only);
    Program *p = is_wanted ? program_at(texts[i].graph, texts[i].arch, d) : NULL;
    if (p) mutate(p, &texts[i], o);
    program_destroy(p);
    md_diags_destroy(d);
  }
  for (int i = 0; i < num_texts; i++) {
    free(texts[i].graph);
    free(texts[i].kernels);
  }
  free(texts);
}

static int print_tally(void) {
  int all[NUM_VERDICTS] = {0};
  printf("%-10s %8s %8s %8s %8s %8s %8s %8s %8s\n", "", "checker", "wrong", "hangs", "other",
         "survived", "same", "idle", "no code");
  for (int i = 0; i < MD_COUNT(names); i++) {
    const int *n = tally[i];
    printf("%-10s %8d %8d %8d %8d %8d %8d %8d %8d\n", names[i], n[SEEN], n[WRONG], n[HANGS],
           n[OTHER], n[SURVIVED], n[SAME], n[IDLE], n[NO_CODE]);
    for (int v = 0; v < NUM_VERDICTS; v++) all[v] += n[v];
  }
  int own = all[SEEN] + all[WRONG] + all[HANGS], killed = own + all[OTHER],
      num = killed + all[SURVIVED];
  printf("%d mutants; %d more are the same on their grid, %d cost time alone\n", num, all[SAME],
         all[IDLE]);
  printf("%d killed by their own sample (%.1f %%), %d of them by the checker; %d with others (%.1f "
         "%%)\n",
         own, num ? 100.0 * own / num : 0.0, all[SEEN], killed, num ? 100.0 * killed / num : 0.0);
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
  const md_cuda_arch sm_80 = {80, 0}, sm_90a = {90, 'a'};
  collect(simt_conv_sample, sm_90a);
  collect(simt_sample, sm_80);
  collect(simt_conv_sample, sm_80);
  mutate_all(&o);
  return print_tally();
}
