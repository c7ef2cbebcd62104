// SPDX-License-Identifier: Apache-2.0
// Random graphs, interpreter against compiled code.
//   random_graphs [--count=N] [--seed=S] [--variant=NAME|all] [--no-shrink] [--print] [FILE.mdg...]
// Every graph is compiled at the full level and in one other variant that its seed chooses. Work is
// done in a child, so that a crash is a finding too. A failure is shrunk; the smallest graph is
// written to random-<seed>.mdg, with the command that repeats it. FILEs: checks these graphs instead.
#include "tests/random/random.h"

#include "base/file.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PATIENCE_S = 120 };

typedef struct Options {
  int64_t count, seed;
  int variant;  // -1: full and another; -2: all
  bool shrink, print;
  char **path;  // into argv
  int num_paths;
} Options;

// What a child says of one graph.
typedef struct Verdict {
  uint64_t seed;
  int nodes;
  bool built;
  md_check_stats stats;
  char kind[24];
  char text[MD_FINDING_TEXT];
} Verdict;

typedef struct Totals {
  int64_t graphs, refused, gave_up, again, draws, steps, elements, nodes, failures;
  uint64_t worst_seed;
  double worst, draw_s, pass_s, compile_s, run_s;
} Totals;

static unsigned variants_of(const Options *o, uint64_t seed) {
  if (o->variant == -2) return (1u << md_num_variants) - 1;
  if (o->variant >= 0) return 1u << o->variant;
  uint64_t other =
      1 + md_hash_at(md_hash_key("variant", seed), 0) % (uint64_t)(md_num_variants - 1);
  return 1u | 1u << other;
}

static md_graph *graph_of(uint64_t seed) {
  md_dice dice = md_dice_seeded(seed);
  md_diags *d = md_diags_create();
  md_graph *g = md_random_graph(&dice, MD_GEN_ANY, d);
  if (!g) printf("seed %llu: %s", (unsigned long long)seed, md_diags_text(d));
  md_diags_destroy(d);
  return g;
}

static void judge(const Options *o, const md_graph *g, uint64_t seed, Verdict *v) {
  md_finding f;
  v->nodes = g->num_nodes;
  if (md_check_graph(g, seed, variants_of(o, seed), &v->stats, &f)) return;
  snprintf(v->kind, sizeof v->kind, "%s", f.kind);
  snprintf(v->text, sizeof v->text, "%s", f.text);
}

static bool read_all(int fd, void *to, size_t len) {
  for (size_t at = 0; at < len;) {
    ssize_t n = read(fd, (char *)to + at, len - at);
    if (n <= 0) return false;
    at += (size_t)n;
  }
  return true;
}

static void write_all(int fd, const void *from, size_t len) {
  for (size_t at = 0; at < len;) {
    ssize_t n = write(fd, (const char *)from + at, len - at);
    if (n <= 0) _exit(3);
    at += (size_t)n;
  }
}

// --- shrinking

typedef struct Case {
  const Options *o;
  uint64_t seed;
  char kind[24];  // that must stay
} Case;

// In a child: what crashes is found again without crashing here.
static void judge_apart(const Options *o, const md_graph *g, uint64_t seed, Verdict *v) {
  int fd[2];
  memset(v, 0, sizeof *v);
  if (pipe(fd) < 0) return;
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    alarm(PATIENCE_S);
    if (!freopen("/dev/null", "w", stderr)) _exit(3);
    judge(o, g, seed, v);
    write_all(fd[1], v, sizeof *v);
    _exit(0);
  }
  close(fd[1]);
  if (!read_all(fd[0], v, sizeof *v)) snprintf(v->kind, sizeof v->kind, "crash");
  close(fd[0]);
  waitpid(pid, NULL, 0);
}

static bool fails(void *ctx, const md_graph *g) {
  Case *c = ctx;
  Verdict v;
  judge_apart(c->o, g, c->seed, &v);
  return !strcmp(v.kind, c->kind);
}

static void report_failure(const Options *o, const md_graph *from, const Verdict *v) {
  Options one = *o;
  char name[32] = "";
  sscanf(v->text, "%31[^:]", name);
  one.variant = md_variant_from(name);
  if (one.variant < 0) one.variant = o->variant;
  Case c = {.o = &one, .seed = v->seed};
  snprintf(c.kind, sizeof c.kind, "%s", v->kind);
  printf("FAILED seed %llu: %s: %s\n", (unsigned long long)v->seed, v->kind, v->text);
  if (!o->shrink) return;
  md_text text = {0}, path = {0};
  md_graph_print(from, &text);
  md_graph *g = md_parse_graph("random.mdg", text.s, text.len, NULL);
  g = md_shrink(g, fails, &c);
  Verdict last;
  judge_apart(&one, g, v->seed, &last);
  text.len = 0;
  md_graph_print(g, &text);
  md_put(&path, "random-%llu.mdg", (unsigned long long)v->seed);
  FILE *f = fopen(path.s, "w");
  if (f) {
    fprintf(f, "// %s: %s\n", last.kind, *last.text ? last.text : "the process ended");
    fwrite(text.s, 1, text.len, f);
    fclose(f);
  }
  printf("  shrunk to %d nodes in %s: %s\n  again: random_graphs --seed=%llu%s%s %s\n%s",
         g->num_nodes, path.s, last.text, (unsigned long long)v->seed,
         one.variant >= 0 ? " --variant=" : "",
         one.variant >= 0 ? md_variants[one.variant].name : "", path.s, text.s);
  fflush(stdout);
  md_graph_destroy(g);
  md_text_free(&text);
  md_text_free(&path);
}

// --- the run

static void count(Totals *t, const Verdict *v) {
  t->graphs++;
  t->refused += !v->built;
  t->gave_up += v->stats.gave_up;
  t->again += v->stats.again;
  t->draws += v->stats.draws;
  t->steps += v->stats.steps;
  t->elements += v->stats.elements;
  t->nodes += v->nodes;
  if (v->stats.worst > t->worst) {
    t->worst = v->stats.worst;
    t->worst_seed = v->seed;
  }
  t->failures += *v->kind != 0;
  t->draw_s += (double)v->stats.draw_ns * 1e-9;
  t->pass_s += (double)v->stats.pass_ns * 1e-9;
  t->compile_s += (double)v->stats.compile_ns * 1e-9;
  t->run_s += (double)v->stats.run_ns * 1e-9;
  if (v->stats.gave_up)
    printf("seed %llu: no inputs: %s\n", (unsigned long long)v->seed, v->stats.why);
}

// Judges seeds from `first` in a child; returns the first seed that is not judged yet.
static uint64_t run_child(const Options *o, uint64_t first, uint64_t end, Totals *t) {
  int fd[2];
  if (pipe(fd) < 0) return end;
  fflush(stdout);
  pid_t pid = fork();
  if (pid == 0) {
    close(fd[0]);
    for (uint64_t s = first; s < end; s++) {
      alarm(PATIENCE_S);
      Verdict v = {.seed = s};
      md_graph *g = graph_of(s);
      v.built = g != NULL;
      if (g) judge(o, g, s, &v);
      if (g) md_graph_destroy(g);
      write_all(fd[1], &v, sizeof v);
    }
    fflush(stdout);
    _exit(0);
  }
  close(fd[1]);
  Verdict v;
  uint64_t next = first;
  for (; next < end && read_all(fd[0], &v, sizeof v); next++) {
    count(t, &v);
    if (!*v.kind) continue;
    md_graph *g = graph_of(v.seed);
    report_failure(o, g, &v);
    md_graph_destroy(g);
  }
  close(fd[0]);
  waitpid(pid, NULL, 0);
  if (next == end) return end;
  v = (Verdict){.seed = next, .built = true, .kind = "crash"};
  count(t, &v);
  md_graph *g = graph_of(next);
  if (g) report_failure(o, g, &v);
  if (g) md_graph_destroy(g);
  return next + 1;
}

static bool run_file(const Options *o, const char *path) {
  md_diags *d = md_diags_create();
  char *text = NULL;
  size_t len = 0;
  md_graph *g = md_file_read(path, 64 << 20, E0101, d, &text, &len)
                    ? md_parse_graph(path, text, len, d)
                    : NULL;
  Verdict v = {.seed = (uint64_t)o->seed, .built = true};
  if (g) judge(o, g, v.seed, &v);
  else snprintf(v.kind, sizeof v.kind, "parser");
  printf("%s", md_diags_text(d));
  printf("%s: %s%s%s\n", path,
         *v.kind           ? v.kind
         : v.stats.gave_up ? "no inputs found"
                           : "ok",
         *v.kind ? ": " : "", v.text);
  if (g) md_graph_destroy(g);
  free(text);
  md_diags_destroy(d);
  return !*v.kind && !v.stats.gave_up;
}

static bool take(const char *arg, const char *option, const char **value) {
  size_t len = strlen(option);
  if (strncmp(arg, option, len) != 0) return false;
  *value = arg + len;
  return true;
}

static bool read_options(int argc, char **argv, Options *o) {
  for (int i = 1; i < argc; i++) {
    const char *value = NULL;
    if (take(argv[i], "--count=", &value)) {
      if (!md_parse_int(value, &o->count)) return false;
    } else if (take(argv[i], "--seed=", &value)) {
      if (!md_parse_int(value, &o->seed)) return false;
    } else if (take(argv[i], "--variant=", &value)) {
      o->variant = !strcmp(value, "all") ? -2 : md_variant_from(value);
      if (o->variant == -1) return false;
    } else if (!strcmp(argv[i], "--no-shrink")) {
      o->shrink = false;
    } else if (!strcmp(argv[i], "--print")) {
      o->print = true;
    } else if (argv[i][0] != '-') {
      argv[o->num_paths++] = argv[i];
      o->path = argv;
    } else {
      return false;
    }
  }
  return true;
}

int main(int argc, char **argv) {
  Options o = {.count = 100, .seed = 1, .variant = -1, .shrink = true};
  if (!read_options(argc, argv, &o)) {
    fprintf(stderr, "usage: random_graphs [--count=N] [--seed=S] [--variant=NAME|all] "
                    "[--no-shrink] [--print] [FILE.mdg]\nvariants:");
    for (int i = 0; i < md_num_variants; i++) fprintf(stderr, " %s", md_variants[i].name);
    fprintf(stderr, "\n");
    return MD_ERR_USAGE;
  }
  printf("// seed %lld\n", (long long)o.seed);
  fflush(stdout);
  bool ok = true;
  for (int i = 0; i < o.num_paths; i++) ok &= run_file(&o, o.path[i]);
  if (o.num_paths) return ok ? EXIT_SUCCESS : EXIT_FAILURE;
  if (o.print) {
    md_graph *g = graph_of((uint64_t)o.seed);
    md_text t = {0};
    if (g) md_graph_print(g, &t);
    printf("%s", g ? t.s : "");
    return g ? EXIT_SUCCESS : EXIT_FAILURE;
  }
  Totals t = {0};
  uint64_t end = (uint64_t)(o.seed + o.count);
  for (uint64_t at = (uint64_t)o.seed; at < end;) at = run_child(&o, at, end, &t);
  printf(
      "%lld graphs, %.1f nodes each; %lld refused by the builder, %lld without good inputs, %.2f "
      "draws a graph, %.2f steps; %lld elements compared, worst %.2f of its bound (seed %llu); "
      "%lld with values computed again; %lld failed\n",
      (long long)t.graphs, (double)t.nodes / (double)MD_MAX(t.graphs, 1), (long long)t.refused,
      (long long)t.gave_up, (double)t.draws / (double)MD_MAX(t.graphs, 1),
      (double)t.steps / (double)MD_MAX(t.graphs, 1), (long long)t.elements, t.worst,
      (unsigned long long)t.worst_seed, (long long)t.again, (long long)t.failures);
  printf("seconds: inputs and reference %.1f, passes %.1f, compiler %.1f, execution %.1f\n",
         t.draw_s, t.pass_s, t.compile_s, t.run_s);
  return t.failures || t.refused ? EXIT_FAILURE : EXIT_SUCCESS;
}
