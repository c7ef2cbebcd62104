// SPDX-License-Identifier: Apache-2.0
// Help, manual pages and shell completion, all from the tables.
#include "modistc/modistc.h"

#include <string.h>

static void option_text(const md_option *o, char *buf, size_t size) {
  const char *arg = o->arg ? o->arg : "";
  const char *equals = o->arg && o->arg[0] != '[' ? "=" : "";
  if (o->letter) {
    snprintf(buf, size, "-%c, --%s%s%s", o->letter, o->name, equals, arg);
  } else {
    snprintf(buf, size, "    --%s%s%s", o->name, equals, arg);
  }
}

static void options(const md_option *table, FILE *to) {
  for (const md_option *o = table; o && o->name; o++) {
    char left[64];
    option_text(o, left, sizeof left);
    fprintf(to, "  %-28s %s\n", left, o->doc);
  }
}

void md_help_overview(FILE *to) {
  fputs("Compile, run and train MoDist graphs on CPU (LLVM) and CUDA (NVRTC).\n"
        "Usage: modistc <command> [options]\n"
        "Start here:\n"
        "  modistc train -c configs/modist_tiny.yaml data.train=VIDEOS --dry-run\n"
        "  modistc compile modist-r3d50 -o step.mdx\n"
        "  modistc bench step modist-tiny --baseline=unfused\n",
        to);
  // Groups in the order in which they first stand in the table.
  for (int first = 0; first < md_num_commands; first++) {
    const char *group = md_commands[first]->group;
    bool seen = false;
    for (int i = 0; i < first; i++) seen |= strcmp(md_commands[i]->group, group) == 0;
    if (seen) continue;
    fprintf(to, "%s:\n", group);
    for (int i = first; i < md_num_commands; i++)
      if (strcmp(md_commands[i]->group, group) == 0)
        fprintf(to, "  %-12s %s\n", md_commands[i]->name, md_commands[i]->doc);
  }
  fputs("Run 'modistc <command> -h' for its options.\n", to);
}

void md_help_command(const md_command *c, FILE *to) {
  fprintf(to, "%s\nUsage: modistc %s%s%s\n", c->doc, c->name, c->usage[0] ? " " : "", c->usage);
  if (c->examples) {
    fputs("Examples:\n", to);
    for (int i = 0; c->examples[i]; i++) fprintf(to, "  %s\n", c->examples[i]);
  }
  if (c->options) {
    fputs("Options:\n", to);
    options(c->options, to);
  }
  fputs("Options of every command:\n", to);
  options(md_global_options, to);
}

static void roff(const char *text, FILE *to) {
  for (; *text; text++) {
    if (*text == '-' || *text == '\\') fputc('\\', to);
    fputc(*text, to);
  }
}

void md_help_manual(const md_command *c, FILE *to) {
  fprintf(to, ".TH MODISTC-%s 1\n.SH NAME\nmodistc-%s \\- %s\n.SH SYNOPSIS\nmodistc %s ", c->name,
          c->name, c->doc, c->name);
  roff(c->usage, to);
  fputs("\n.SH OPTIONS\n", to);
  const md_option *tables[2] = {c->options, md_global_options};
  for (int t = 0; t < 2; t++) {
    for (const md_option *o = tables[t]; o && o->name; o++) {
      char left[64];
      option_text(o, left, sizeof left);
      fputs(".TP\n", to);
      roff(left + strspn(left, " "), to);
      fputc('\n', to);
      roff(o->doc, to);
      fputc('\n', to);
    }
  }
}

static void words(const char *separator, FILE *to) {
  for (int i = 0; i < md_num_commands; i++)
    fprintf(to, "%s%s", i ? separator : "", md_commands[i]->name);
}

static void bash(FILE *to) {
  fputs("_modistc() {\n  local cur=${COMP_WORDS[COMP_CWORD]} opts=\n  case ${COMP_WORDS[1]} in\n",
        to);
  for (int i = 0; i < md_num_commands; i++) {
    fprintf(to, "    %s) opts='", md_commands[i]->name);
    const md_option *tables[2] = {md_commands[i]->options, md_global_options};
    for (int t = 0; t < 2; t++)
      for (const md_option *o = tables[t]; o && o->name; o++)
        fprintf(to, "--%s%s ", o->name, o->arg && o->arg[0] != '[' ? "=" : "");
    fputs("' ;;\n", to);
  }
  fputs("  esac\n  if [ $COMP_CWORD = 1 ]; then\n    COMPREPLY=($(compgen -W '", to);
  words(" ", to);
  fputs("' -- \"$cur\"))\n  elif [[ $cur == -* ]]; then\n    COMPREPLY=($(compgen -W \"$opts\" -- "
        "\"$cur\"))\n  else\n    COMPREPLY=($(compgen -f -- \"$cur\"))\n  fi\n}\ncomplete -F "
        "_modistc "
        "modistc\n",
        to);
}

static void fish(FILE *to) {
  for (int i = 0; i < md_num_commands; i++) {
    const md_command *c = md_commands[i];
    fprintf(to, "complete -c modistc -n __fish_use_subcommand -a %s -d \"%s\"\n", c->name, c->doc);
    for (const md_option *o = c->options; o && o->name; o++)
      fprintf(to, "complete -c modistc -n '__fish_seen_subcommand_from %s' -l %s -d \"%s\"\n",
              c->name, o->name, o->doc);
  }
}

bool md_help_completion(const char *shell, FILE *to) {
  if (strcmp(shell, "bash") == 0) {
    bash(to);
  } else if (strcmp(shell, "zsh") == 0) {
    fputs("autoload -U +X bashcompinit && bashcompinit\n", to);
    bash(to);
  } else if (strcmp(shell, "fish") == 0) {
    fish(to);
  } else {
    return false;
  }
  return true;
}
