// SPDX-License-Identifier: Apache-2.0
// CUDA text on the fiber machine against the interpreter: every sample at two pass levels and random
// graphs, in three schedules that must agree bit by bit. Kernels tell of undefined arithmetic, as in test_ways, which
// has convolutions.
//   test_simt [--random=N] [--seed=S] [--only=TEXT]
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

typedef struct Tally {
  int passed, failed;
} Tally;

static bool same_images(const Program *p, char *const *a, char *const *b) {
  for (int i = 0; i + 1 < p->num_images; i++)
    if (memcmp(a[i], b[i], (size_t)p->image[i].bytes) != 0) return false;
  return true;
}

static char **copy_of(const Program *p, char *const *data) {
  char **c = calloc((size_t)p->num_images, sizeof *c);
  for (int i = 0; c && i < p->num_images; i++) {
    c[i] = malloc((size_t)MD_MAX(p->image[i].bytes, 1));
    if (c[i]) memcpy(c[i], data[i], (size_t)p->image[i].bytes);
  }
  return c;
}

static bool run_orders(const Program *p, uint64_t seed, md_text *why) {
  static const simt_order orders[] = {SIMT_FORWARD, SIMT_REVERSE, SIMT_RANDOM};
  static const char *const names[] = {"forward", "reverse", "random"};
  char **first = NULL;
  bool ok = true;
  for (int i = 0; ok && i < MD_COUNT(orders); i++) {
    char **data = NULL;
    ok = run_program(p, NULL, (simt_options){orders[i], seed}, &data, why) &&
         program_check(p, data, why);
    if (ok && first && !same_images(p, first, data)) {
      md_put(why, "results differ from those of the forward schedule");
      ok = false;
    }
    if (!ok) md_put(why, "; schedule %s", names[i]);
    if (ok && !first) first = copy_of(p, data);
    free(data);
    simt_free_buffers();
  }
  for (int i = 0; first && i < p->num_images; i++) free(first[i]);
  free(first);
  return ok;
}

// Programs wait for one another, so that the compiler is called once for all.
typedef struct Waiting {
  Program *p;
  char name[96];
  uint64_t seed;
  md_diags *d;
} Waiting;
static Waiting waiting[32];
static int num_waiting;

static void try(const Waiting *w, Tally *t) {
  md_text why = {0};
  bool ok = false;
  if (!w->p) md_put(&why, "%s", md_diags_text(w->d));
  else if (w->p->m->num_refused) md_put(&why, "refused: %s", w->p->m->refused[0].why);
  else if (!run_build(w->p)) md_put(&why, "the host's compiler refuses the text");
  else ok = run_is_known(w->p) || run_orders(w->p, w->seed, &why);
  if (!ok) printf("FAILED %s: %s\n", w->name, why.s ? why.s : "");
  if (!ok && w->p) run_print(w->p);
  t->passed += ok;
  t->failed += !ok;
  program_destroy(w->p);
  md_text_free(&why);
  md_diags_destroy(w->d);
}

// What all of it does not build, each builds alone, to say whose it is.
static void try_waiting(Tally *t) {
  Program *p[MD_COUNT(waiting)];
  for (int i = 0; i < num_waiting; i++) p[i] = waiting[i].p;
  run_build_all(p, num_waiting);
  for (int i = 0; i < num_waiting; i++) try(&waiting[i], t);
  num_waiting = 0;
}

// Takes p and d.
static void wait_for(Program *p, const char *name, uint64_t seed, md_diags *d, Tally *t) {
  Waiting *w = &waiting[num_waiting++];
  *w = (Waiting){.p = p, .seed = seed, .d = d};
  snprintf(w->name, sizeof w->name, "%s", name);
  if (num_waiting == MD_COUNT(waiting)) try_waiting(t);
}

static bool option(const char *arg, const char *name, const char **value) {
  size_t len = strlen(name);
  if (strncmp(arg, name, len) != 0) return false;
  *value = arg + len;
  return true;
}

int main(int argc, char **argv) {
  int64_t num_random = 40, first = 1;
  const char *only = NULL, *value;
  for (int i = 1; i < argc; i++) {
    if (option(argv[i], "--only=", &only)) continue;
    if (option(argv[i], "--random=", &value) && md_parse_int(value, &num_random)) continue;
    if (option(argv[i], "--seed=", &value) && md_parse_int(value, &first)) continue;
    fprintf(stderr, "usage: test_simt [--random=N] [--seed=S] [--only=TEXT]\n");
    return 2;
  }
  simt_check_numbers(true);
  Tally t = {0};
  md_text text = {0};
  char name[64], full[96];
  for (int i = 0; simt_sample(i, &text, name); i++) {
    for (int level = 0; level <= 2; level += 2) {
      if (only && !strstr(name, only)) continue;
      md_diags *d = md_diags_create();
      snprintf(full, sizeof full, "%s, level %d", name, level);
      wait_for(program_create(text.s, level, 1, d), full, 1, d, &t);
    }
    md_text_free(&text);
    text = (md_text){0};
  }
  printf("random graphs: seeds %lld .. %lld\n", (long long)first,
         (long long)(first + num_random - 1));
  for (int64_t seed = first; seed < first + num_random; seed++) {
    for (int fused = 0; fused < 2; fused++) {
      snprintf(name, sizeof name, "%s graph (repeat: --random=1 --seed=%lld)",
               fused ? "fused" : "random", (long long)seed);
      if (only && !strstr(name, only)) continue;
      md_diags *d = md_diags_create();
      md_graph *g =
          fused ? simt_fused_graph((uint64_t)seed, d) : simt_random_graph((uint64_t)seed, d);
      Program *p = g ? program_of(g, seed % 3 == 0 ? 0 : 2, (uint64_t)seed, d) : NULL;
      wait_for(p, name, (uint64_t)seed, d, &t);
    }
  }
  try_waiting(&t);
  simt_forget();
  printf("%d passed, %d failed\n", t.passed, t.failed);
  return t.failed || !t.passed;
}
