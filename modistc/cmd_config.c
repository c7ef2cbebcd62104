// SPDX-License-Identifier: Apache-2.0
// config: the settings as they are resolved, whether they make sense, and what there is to set.
#include "modistc/modistc.h"

#include "runtime/train/train.h"

#include <string.h>

static const md_option config_options[] = {
    {"config", 'c', "FILE", "settings; key=value arguments override them"},
    {"origin", 0, NULL, "show: say where each value comes from"},
    {0}};

static const md_option_rule config_rules[] = {
    {":schema", "config origin", "the schema is the same whatever is set", "take show"},
    {":check", "origin", "check prints no values", "take show"},
    {0}};

static bool is_setting(const char *arg) { return strchr(arg, '=') != NULL; }

static md_status run(md_cli *cli) {
  static const char *const verbs[] = {"show", "check", "schema"};
  int verb = -1;
  if (cli->num_args > 0 && !is_setting(cli->arg[0]))
    for (int i = 0; i < MD_COUNT(verbs); i++)
      if (strcmp(cli->arg[0], verbs[i]) == 0) verb = i;
  if (verb < 0) {
    char clean[80];
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc config: takes show, check or schema, not '%s'",
             cli->num_args > 0 ? md_clean(cli->arg[0], clean, sizeof clean) : "");
    md_hint(cli->diags, "usage: modistc config %s", cli->command->usage);
    return MD_ERR_USAGE;
  }
  if (verb == 2 && !md_cli_args(cli, 1, 1, "schema takes no settings")) return MD_ERR_USAGE;
  md_text text = {0};
  if (verb == 2) {
    md_config_schema(&text);
  } else {
    md_config *c =
        md_config_load(md_cli_get(cli, "config"), cli->arg + 1, cli->num_args - 1, cli->diags);
    md_step s;
    bool ok = c && md_train_step(c, &s, cli->diags);
    if (ok && verb == 0) md_config_print(c, md_cli_has(cli, "origin"), &text);
    if (ok && verb == 1)
      md_put(&text, "settings of %s are fine\n", md_config_text(c, "model.name"));
    md_config_destroy(c);
  }
  if (text.s) fputs(text.s, stdout);
  md_text_free(&text);
  return md_diags_status(cli->diags);
}

static const char *const examples[] = {"modistc config schema",
                                       "modistc config show -c configs/modist_tiny.yaml --origin",
                                       "modistc config check -c my.yaml opt.lr=0.03", NULL};
const md_command md_cmd_config = {.name = "config",
                                  .group = "Train",
                                  .usage = "show|check|schema [-c FILE] [key=value ...] [--origin]",
                                  .doc = "show or check settings, or list what there is to set",
                                  .examples = examples,
                                  .options = config_options,
                                  .rules = config_rules,
                                  .run = run};
