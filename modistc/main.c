// SPDX-License-Identifier: Apache-2.0
// modistc: finds the command, parses its options, runs it, prints what went wrong.
#include "modistc/modistc.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const md_command md_cmd_compile, md_cmd_run, md_cmd_bench, md_cmd_train, md_cmd_verify,
    md_cmd_dataset, md_cmd_features, md_cmd_export, md_cmd_eval, md_cmd_plot, md_cmd_inspect,
    md_cmd_targets, md_cmd_passes, md_cmd_ops, md_cmd_models, md_cmd_config, md_cmd_explain,
    md_cmd_doctor, md_cmd_cache, md_cmd_completion, md_cmd_tune;

const md_command *const md_commands[] = {
    &md_cmd_compile,   &md_cmd_run,     &md_cmd_bench,    &md_cmd_tune,   &md_cmd_verify,
    &md_cmd_train,     &md_cmd_dataset, &md_cmd_features, &md_cmd_export, &md_cmd_eval,
    &md_cmd_plot,      &md_cmd_inspect, &md_cmd_targets,  &md_cmd_passes, &md_cmd_ops,
    &md_cmd_models,    &md_cmd_config,  &md_cmd_explain,  &md_cmd_doctor, &md_cmd_cache,
    &md_cmd_completion};
const int md_num_commands = MD_COUNT(md_commands);

static const md_command *find(const char *name) {
  for (int i = 0; i < md_num_commands; i++)
    if (strcmp(md_commands[i]->name, name) == 0) return md_commands[i];
  return NULL;
}

static bool wants_color(const char *when) {
  if (when && strcmp(when, "always") == 0) return true;
  if (when && strcmp(when, "never") == 0) return false;
  return md_likes_color(STDERR_FILENO);
}

static bool setup(md_cli *cli) {
  static const char *const whens[] = {"auto", "always", "never", NULL};
  if (md_cli_choice(cli, "color", whens, 0) < 0) return false;
  cli->color_err = wants_color(md_cli_get(cli, "color"));
  cli->quiet = md_cli_has(cli, "quiet");
  for (int at = 0; md_cli_next(cli, "verbose", &at);) cli->verbose++;
  const char *topics = md_cli_get(cli, "log");
  if (!topics) topics = getenv("MODIST_LOG");
  if (cli->verbose) {  // every topic; what --log says of one comes after it and holds
    const char *level = cli->verbose > 1 ? "debug" : "info";
    topics = md_format(cli->arena, "all=%s,%s", level, topics ? topics : "");
  }
  char why[200];
  if (topics && !md_log_setup(topics, why, sizeof why))
    return md_error(cli->diags, E0401, MD_NOWHERE, "--log: %s", why);
  return true;
}

static md_status unknown_command(md_cli *cli, const char *name) {
  const char *names[64];
  for (int i = 0; i < md_num_commands; i++) names[i] = md_commands[i]->name;
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "unknown command '%s'",
           md_clean(name, clean, sizeof clean));
  const char *near = md_nearest(name, names, md_num_commands);
  if (near) md_hint(cli->diags, "did you mean 'modistc %s'?", near);
  else if (name[0] == '-') md_hint(cli->diags, "the command comes first, options follow it");
  else md_hint(cli->diags, "'modistc -h' lists the commands");
  return MD_ERR_USAGE;
}

static md_status dispatch(md_cli *cli, int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : NULL;
  bool wants_help =
      !name || strcmp(name, "-h") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "help") == 0;
  if (wants_help && argc > 2) {
    const md_command *c = find(argv[2]);
    if (!c) return unknown_command(cli, argv[2]);
    md_help_command(c, stdout);
    return MD_OK;
  }
  if (wants_help) {
    md_help_overview(stdout);
    return MD_OK;
  }
  if (strcmp(name, "--version") == 0) name = "doctor";
  cli->command = find(name);
  if (!cli->command) return unknown_command(cli, name);
  if (!md_cli_parse(cli, argc - 1, argv + 1) || !setup(cli)) return MD_ERR_USAGE;
  if (md_cli_has(cli, "help")) {
    md_help_command(cli->command, stdout);
    return MD_OK;
  }
  return md_cli_obeys(cli) ? cli->command->run(cli) : MD_ERR_USAGE;
}

int main(int argc, char **argv) {
  md_cli cli = {.diags = md_diags_create(), .arena = md_arena_create()};
  md_status status = dispatch(&cli, argc, argv);
  if (status == MD_OK && md_diags_errors(cli.diags)) status = md_diags_status(cli.diags);
  md_diags_print(cli.diags, stderr, cli.color_err);
  // A full disk or closed pipe behind stdout must not pass for success.
  if ((fflush(stdout) != 0 || ferror(stdout)) && status == MD_OK) {
    fputs("error: the output could not be written\n", stderr);
    status = MD_ERR_RUN;
  }
  md_diags_destroy(cli.diags);
  md_arena_destroy(cli.arena);
  return (int)status;
}
