// SPDX-License-Identifier: Apache-2.0
// Commands that list what there is: passes, ops, models, explain, completion.
#include "modistc/modistc.h"

#include <string.h>
#include <strings.h>

static md_status run_passes(md_cli *cli) {
  if (!md_cli_args(cli, 0, 0, "takes no argument")) return MD_ERR_USAGE;
  for (int i = 0; i < md_num_passes; i++)
    printf("%-20s %s\n", md_passes[i]->name, md_passes[i]->doc);
  for (int level = 0; level <= 2; level++) printf("-O%d: %s\n", level, md_pipeline(level));
  return MD_OK;
}
const md_command md_cmd_passes = {.name = "passes",
                                  .group = "Discovery",
                                  .usage = "",
                                  .doc = "list the passes and the standard pipelines",
                                  .run = run_passes};

static void operand_list(md_text *t, const char *const *pattern, int num) {
  for (int i = 0; i < num; i++) md_put(t, "%s%s", i ? ", " : "", pattern[i]);
}

static void op_signature(const md_op_row *row, md_text *t) {
  md_put(t, "%s%s", row->name, md_op_num_in(row->op) ? " " : "");
  operand_list(t, row->in, md_op_num_in(row->op));
  if (row->flags & MD_VARIADIC) md_put(t, "...");
  if (md_op_num_attr(row->op)) {
    md_put(t, " {");
    operand_list(t, row->attr, md_op_num_attr(row->op));
    md_put(t, "}");
  }
  if (md_op_num_out(row->op)) {
    md_put(t, " -> ");
    operand_list(t, row->out, md_op_num_out(row->op));
  }
}

// The page docs/ops.md.
static void ops_markdown(void) {
  puts("# Ops\n\nMade from the op table by `modistc ops --markdown`. Equal letters mean equal "
       "sizes; `*`"
       " is any trailing axes; attributes show their bound or default.\n");
  for (int op = 1; op < MD_NUM_OPS; op++) {
    const md_op_row *row = &md_ops[op];
    md_text t = {0};
    op_signature(row, &t);
    printf("## %s\n`%s`\n\n%s.\n", row->name, t.s, row->doc);
    if (row->scalar) printf("Formula: `%s`.\n", row->scalar);
    if (row->no_grad) printf("No gradient: %s.\n", row->no_grad);
    if (row->constant)
      printf("No gradient for `%s`, which is taken for a constant.\n", row->constant);
    puts("");
    md_text_free(&t);
  }
}

static md_status run_ops(md_cli *cli) {
  bool markdown = md_cli_has(cli, "markdown");
  if (!md_cli_args(cli, 0, markdown ? 0 : 1,
                   markdown ? "--markdown is a page of all ops" : "takes at most one op's name"))
    return MD_ERR_USAGE;
  if (markdown) {
    ops_markdown();
    return MD_OK;
  }
  md_op only = MD_OP_none;
  if (cli->num_args) {
    only = md_op_from(cli->arg[0]);
    if (only == MD_OP_none) {
      char clean[80];
      md_error(cli->diags, E0301, MD_NOWHERE, "unknown op '%s'",
               md_clean(cli->arg[0], clean, sizeof clean));
      const char *near = md_op_nearest(cli->arg[0]);
      if (near) md_hint(cli->diags, "did you mean '%s'?", near);
      return MD_ERR_USAGE;
    }
  }
  for (int op = 1; op < MD_NUM_OPS; op++) {
    if (only && (int)only != op) continue;
    md_text t = {0};
    op_signature(&md_ops[op], &t);
    printf("%s\n    %s\n", t.s, md_ops[op].doc);
    md_text_free(&t);
  }
  return MD_OK;
}
static const md_option ops_options[] = {{"markdown", 0, NULL, "as the page docs/ops.md"}, {0}};
const md_command md_cmd_ops = {.name = "ops",
                               .group = "Discovery",
                               .usage = "[OP]",
                               .options = ops_options,
                               .doc = "list the ops: operands, attributes, meaning",
                               .run = run_ops};

static md_status run_models(md_cli *cli) {
  if (!md_cli_args(cli, 0, 0, "takes no argument")) return MD_ERR_USAGE;
  puts("training steps, for `modistc compile NAME`:");
  for (int i = 0; i < md_num_models; i++)
    printf("  %-20s %s\n", md_models[i].name, md_models[i].doc);
  puts("networks, for `model.visual` and `model.motion`:");
  for (int i = 0; i < md_num_nets; i++) {
    const md_net *n = &md_nets[i];
    md_net_size size = md_net_measure(n, 0, 0, false);
    printf("  %-16s %10lld parameters %9.4f GMAC a clip of %2d x %-3d  %s\n", n->name,
           (long long)size.params, (double)size.macs / 1e9, n->frames, n->size, n->doc);
  }
  return MD_OK;
}
const md_command md_cmd_models = {.name = "models",
                                  .group = "Discovery",
                                  .usage = "",
                                  .doc = "list the training steps and networks",
                                  .run = run_models};

static md_status run_explain(md_cli *cli) {
  if (!md_cli_args(cli, 0, 1, "takes one code, such as E0301")) return MD_ERR_USAGE;
  bool found = false;
  for (int i = 1; i < MD_NUM_CODES; i++) {
    const md_code_row *row = &md_codes[i];
    if (cli->num_args == 0) printf("%s  exit %d  %s\n", row->name, (int)row->status, row->title);
    if (cli->num_args == 0 || strcasecmp(row->name, cli->arg[0]) != 0) continue;
    printf("%s: %s (exit code %d)\n%s\n", row->name, row->title, (int)row->status, row->text);
    found = true;
  }
  if (cli->num_args == 0 || found) return MD_OK;
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "no diagnostic has the code '%s'",
           md_clean(cli->arg[0], clean, sizeof clean));
  md_hint(cli->diags, "'modistc explain' lists all codes");
  return MD_ERR_USAGE;
}
const md_command md_cmd_explain = {.name = "explain",
                                   .group = "Discovery",
                                   .usage = "[CODE]",
                                   .doc = "what a diagnostic code means",
                                   .run = run_explain};

static md_status run_completion(md_cli *cli) {
  if (!md_cli_args(cli, 1, 1, "takes bash, zsh, fish or man")) return MD_ERR_USAGE;
  if (strcmp(cli->arg[0], "man") == 0) {
    for (int i = 0; i < md_num_commands; i++) md_help_manual(md_commands[i], stdout);
    return MD_OK;
  }
  if (md_help_completion(cli->arg[0], stdout)) return MD_OK;
  md_error(cli->diags, E0401, MD_NOWHERE, "no completion for this shell");
  md_hint(cli->diags, "it takes one of: bash, zsh, fish, man");
  return MD_ERR_USAGE;
}
const md_command md_cmd_completion = {.name = "completion",
                                      .group = "Discovery",
                                      .usage = "SHELL",
                                      .doc =
                                          "completion script for bash, zsh or fish; manual pages",
                                      .run = run_completion};
