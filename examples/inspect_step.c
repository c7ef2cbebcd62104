// SPDX-License-Identifier: Apache-2.0
// Compiles the training step of a model without and with fusion, and shows what became of it: how
// many launches a step takes, and how much memory the plan gives to activations.
//   inspect_step [MODEL [key=value ...]]
#include <modist/modist.h>

#include <stdio.h>
#include <string.h>

// A launch is named after the node that its region formed around.
static void count_kinds(const modist_program *p) {
  const char *kind[256];
  int count[256], kinds = 0;
  for (int i = 0; i < modist_program_launches(p); i++) {
    const char *name = modist_program_launch_name(p, i);
    int k = 0;
    while (k < kinds && strcmp(kind[k], name) != 0) k++;
    if (k == kinds && kinds == 256) continue;
    if (k == kinds) kind[kinds] = name, count[kinds++] = 0;
    count[k]++;
  }
  for (int k = 0; k < kinds; k++)
    if (count[k] > 1) printf("  %4d x %s\n", count[k], kind[k]);
}

static int show(modist_graph *g, const char *what, int level) {
  modist_compile_options o = {.struct_size = sizeof o, .opt_level_plus1 = level + 1};
  modist_program *p;
  if (modist_compile(g, &o, &p) != MD_OK) {
    fputs(modist_graph_error(g), stderr);
    return 1;
  }
  printf("%-14s %4d launches, %7.1f KiB of activations\n", what, modist_program_launches(p),
         (double)modist_program_arena_bytes(p) / 1024);
  if (level == 2) count_kinds(p);
  modist_program_destroy(p);
  return 0;
}

int main(int argc, char **argv) {
  const char *model = argc > 1 ? argv[1] : "modist-tiny";
  modist_graph *g;
  if (modist_step_graph(model, (const char *const *)argv + 2, argc > 2 ? argc - 2 : 0, &g) !=
      MD_OK) {
    fputs(modist_last_error(), stderr);
    return 1;
  }
  int failed = show(g, "not fused", 1) || show(g, "fused", 2);
  modist_graph_destroy(g);
  return failed;
}
