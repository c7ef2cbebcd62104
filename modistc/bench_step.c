// SPDX-License-Identifier: Apache-2.0
// Benchmarks of whole steps, on inputs that are made up: of a model or graph, and of the miniature
// experiment.
#include "modistc/bench.h"

#include "runtime/train/config.h"

#include <fnmatch.h>
#include <string.h>

// What configs/mini_modist.yaml changes in the step of its model; a test compares the two graphs.
static const char *const mini[] = {"modist-mini", "model.init=uniform", "aug.color=1",
                                   "aug.gray=0.5"};

static md_graph *make(void *ctx, md_diags *d) {
  (void)d;
  md_cli *cli = ctx;
  return md_source_graph(cli, cli->arg[0]);
}

static bool is_mini(const md_cli *cli) {
  bool is = cli->num_args >= MD_COUNT(mini);
  for (int i = 0; is && i < MD_COUNT(mini); i++) is = strcmp(cli->arg[i], mini[i]) == 0;
  return is;
}

// The peer knows two steps, each at any size. NULL: this is another one, or not valid.
static const char *task_of(const md_cli *cli) {
  static const char *const sizes[] = {"batch=*",        "clip.frames=*", "clip.size=*",
                                      "mclip.frames=*", "mclip.size=*",  "bank.size=*"};
  bool small = is_mini(cli);
  if ((!small && strcmp(cli->arg[0], "modist-r3d50") != 0) || md_cli_has(cli, "config"))
    return NULL;
  for (int i = small ? MD_COUNT(mini) : 1; i < cli->num_args; i++) {
    bool is_size = false;
    for (int k = 0; k < MD_COUNT(sizes); k++)
      is_size = is_size || fnmatch(sizes[k], cli->arg[i], 0) == 0;
    if (!is_size) return NULL;
  }
  // Sizes that are not given are the model's.
  char **settings = MD_NEW_ARRAY(cli->arena, char *, cli->num_args);
  settings[0] = md_format(cli->arena, "model.name=%s", cli->arg[0]);
  for (int i = 1; i < cli->num_args; i++) settings[i] = cli->arg[i];
  md_config *c = md_config_load(NULL, settings, cli->num_args, NULL);
  if (!c) return NULL;
  const char *task = md_format(
      cli->arena,
      "%s both batch=%lld visual_frames=%lld visual_size=%lld motion_frames=%lld "
      "motion_size=%lld bank=%lld",
      small ? "mini" : "step", (long long)md_config_int(c, "batch"),
      (long long)md_config_int(c, "clip.frames"), (long long)md_config_int(c, "clip.size"),
      (long long)md_config_int(c, "mclip.frames"), (long long)md_config_int(c, "mclip.size"),
      (long long)md_config_int(c, "bank.size"));
  md_config_destroy(c);
  return task;
}

// cli->arg: the model or graph, then its settings. `title`: name of the line in place of the model
// and of the settings that are not the user's.
static bool measure_once(md_bench *b, const char *title) {
  md_cli *cli = b->cli;
  md_text what = {0}, args = {0};
  md_put(&what, "%s", title ? title : cli->arg[0]);
  for (int i = title ? MD_COUNT(mini) : 1; i < cli->num_args; i++)
    md_put(&what, " %s", cli->arg[i]);
  md_put(&args, "step");
  for (int i = 0; i < cli->num_args; i++) md_bench_word(&args, cli->arg[i]);
  md_bench_job job = {.what = what.s,
                      .args = args.s,
                      .make = make,
                      .ctx = cli,
                      .torch = b->torch ? task_of(cli) : NULL};
  bool ok = md_bench_measure(b, &job);
  md_text_free(&what);
  md_text_free(&args);
  return ok;
}

// arg[0] with the settings behind it and those of every combination of the sweeps.
static bool measure(md_bench *b, char *const *arg, int num_args, const char *title) {
  md_cli *cli = b->cli;
  md_bench_sweeps s;
  if (!md_bench_sweeps_read(cli, &s)) return false;
  cli->arg = MD_NEW_ARRAY(cli->arena, char *, num_args + s.num);
  memcpy(cli->arg, arg, (size_t)num_args * sizeof *arg);
  cli->num_args = num_args + s.num;
  do {
    for (int i = 0; i < s.num; i++)
      cli->arg[num_args + i] =
          md_format(cli->arena, "%s=%s", s.sweep[i].key, md_bench_sweeps_value(&s, i));
    if (!measure_once(b, title)) return false;
  } while (md_bench_sweeps_next(&s));
  return true;
}

bool md_bench_step(md_bench *b) {
  if (b->cli->num_args < 2) {
    md_error(b->cli->diags, E0401, MD_NOWHERE, "modistc bench step: needs a model or graph");
    md_hint(b->cli->diags, "for example: modistc bench step modist-tiny");
    return false;
  }
  return measure(b, b->cli->arg + 1, b->cli->num_args - 1, NULL);
}

bool md_bench_mini(md_bench *b) {
  md_cli *cli = b->cli;
  int own = MD_COUNT(mini), more = cli->num_args - 1;
  char **arg = MD_NEW_ARRAY(cli->arena, char *, own + more);
  for (int i = 0; i < own; i++) arg[i] = md_strdup(cli->arena, mini[i]);
  for (int i = 0; i < more; i++) arg[own + i] = cli->arg[1 + i];
  return measure(b, arg, own + more, "train-mini");
}
