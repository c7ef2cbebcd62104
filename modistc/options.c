// SPDX-License-Identifier: Apache-2.0
// Parsing by getopt_long, from the option tables.
#include "modistc/modistc.h"

#include "base/file.h"

#include <fnmatch.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 96, FIRST_LONG = 256 };

const md_option md_global_options[] = {
    {"help", 'h', NULL, "what a command does and its options"},
    {"quiet", 'q', NULL, "print results and errors only"},
    {"verbose", 'v', NULL, "log every topic; twice: in detail"},
    {"color", 0, "WHEN", "auto (default), always, never; NO_COLOR and CLICOLOR_FORCE are heard"},
    {"log", 0, "TOPICS",
     "log config, graph, passes, fusion, codegen, cache, mem, exec, data, ckpt or all: "
     "passes,cache=debug"},
    {0}};

static bool may_be_left_out(const md_option *o) { return o->arg && o->arg[0] == '['; }

// Both tables as getopt wants them; `row` maps back.
static int collect(const md_command *c, struct option *longs, const md_option **row,
                   char *letters) {
  int num = 0;
  *letters++ = ':';  // a missing value is told apart
  const md_option *tables[2] = {c->options, md_global_options};
  for (int t = 0; t < 2; t++) {
    for (const md_option *o = tables[t]; o && o->name; o++) {
      MD_ASSERT(num < MAX_OPTIONS, "command %s has too many options", c->name);
      int kind = !o->arg ? no_argument : may_be_left_out(o) ? optional_argument : required_argument;
      longs[num] = (struct option){o->name, kind, NULL, FIRST_LONG + num};
      row[num++] = o;
      if (!o->letter) continue;
      *letters++ = o->letter;
      if (kind != no_argument) *letters++ = ':';
    }
  }
  *letters = 0;
  return num;
}

static bool unknown_option(md_cli *cli, const char *text, const md_option **row, int num) {
  const char *names[MAX_OPTIONS];
  for (int i = 0; i < num; i++) names[i] = row[i]->name;
  char bare[64];
  snprintf(bare, sizeof bare, "%s", text);
  bare[strcspn(bare, "=")] = 0;
  const char *near = md_nearest(bare, names, num);
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc %s: unknown option '--%s'", cli->command->name,
           md_clean(bare, clean, sizeof clean));
  if (near) {
    md_hint(cli->diags, "did you mean '--%s'?", near);
  } else {
    md_hint(cli->diags, "'modistc %s -h' lists the options", cli->command->name);
  }
  return false;
}

// `text` is the option as it was written: "-o" or "--output".
static bool needs_value(md_cli *cli, const char *text, const md_option **row, int num) {
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc %s: option '%s' needs a value",
           cli->command->name, text);
  for (int i = 0; i < num; i++)
    if (row[i]->letter == optopt || (optopt >= FIRST_LONG && i == optopt - FIRST_LONG))
      md_hint(cli->diags, "--%s=%s: %s", row[i]->name, row[i]->arg, row[i]->doc);
  return false;
}

static bool unknown_letter(md_cli *cli, int letter) {
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc %s: unknown option '-%c'", cli->command->name,
           letter > ' ' && letter < 127 ? letter : '?');
  md_hint(cli->diags, "'modistc %s -h' lists the options", cli->command->name);
  return false;
}

bool md_cli_parse(md_cli *cli, int argc, char **argv) {
  struct option longs[MAX_OPTIONS + 1] = {0};
  const md_option *row[MAX_OPTIONS];
  char letters[3 * MAX_OPTIONS];
  int num = collect(cli->command, longs, row, letters);
  opterr = 0;
  optind = 1;
  for (;;) {
    int found = getopt_long(argc, argv, letters, longs, NULL);
    if (found == -1) break;
    const md_option *o = NULL;
    if (found >= FIRST_LONG) o = row[found - FIRST_LONG];
    for (int i = 0; i < num && !o; i++)
      if (row[i]->letter && row[i]->letter == found) o = row[i];
    if (found == ':') return needs_value(cli, argv[optind - 1], row, num);
    if (!o) {
      if (optopt && optopt < FIRST_LONG) return unknown_letter(cli, optopt);
      const char *text = argv[optind - 1];
      if (optopt >= FIRST_LONG)
        return md_error(cli->diags, E0401, MD_NOWHERE, "modistc %s: option '%s' takes no value",
                        cli->command->name, text);
      return unknown_option(cli, strncmp(text, "--", 2) == 0 ? text + 2 : text, row, num);
    }
    if (cli->num_set == MD_COUNT(cli->set))
      return md_error(cli->diags, E0401, MD_NOWHERE, "more than %d options", MD_COUNT(cli->set));
    cli->set[cli->num_set].option = o;
    cli->set[cli->num_set++].value = optarg ? optarg : "";
  }
  cli->arg = argv + optind;
  cli->num_args = argc - optind;
  return true;
}

static bool is_word(const char *s, size_t len, const char *word) {
  return strlen(word) == len && strncmp(s, word, len) == 0;
}

// The row of a command's option; a rule that names another one is our mistake.
static const md_option *option_of(const md_cli *cli, const char *name, size_t len) {
  for (const md_option *o = cli->command->options; o && o->name; o++)
    if (is_word(name, len, o->name)) return o;
  MD_ASSERT(false, "a rule of %s names no option: '%s'", cli->command->name, name);
  return NULL;
}

// `patterns` are separated by '|', up to `end`.
static bool matches(const char *value, const char *patterns, const char *end) {
  char one[64];
  for (const char *p = patterns; value && p < end;) {
    size_t len = strcspn(p, "| ");
    snprintf(one, sizeof one, "%.*s", (int)len, p);
    if (fnmatch(one, value, 0) == 0) return true;
    p += len + 1;
  }
  return false;
}

static bool holds(const md_cli *cli, const char *condition, const char *end) {
  if (*condition == '!') return !holds(cli, condition + 1, end);
  if (*condition == ':') return matches(cli->num_args > 0 ? cli->arg[0] : NULL, condition + 1, end);
  size_t len = strcspn(condition, "= ");
  const char *value = md_cli_get(cli, option_of(cli, condition, len)->name);
  return condition[len] == '=' ? matches(value, condition + len + 1, end) : value != NULL;
}

static bool all_hold(const md_cli *cli, const char *when) {
  bool ok = true;
  for (const char *s = when; *s;) {
    size_t len = strcspn(s, " ");
    ok = holds(cli, s, s + len) && ok;
    s += len + (s[len] == ' ');
  }
  return ok;
}

static bool obeys(md_cli *cli, const md_option_rule *r) {
  bool hold = all_hold(cli, r->when), ok = true;
  for (const char *s = r->refused; *s;) {
    size_t len = strcspn(s, " ");
    const md_option *o = option_of(cli, s, len);
    s += len + (s[len] == ' ');
    if (!hold || !md_cli_has(cli, o->name)) continue;
    ok = md_error(cli->diags, E0401, MD_NOWHERE, "modistc %s: --%s would do nothing: %s",
                  cli->command->name, o->name, r->why);
    md_hint(cli->diags, "leave it out%s%s", r->instead ? ", or " : "",
            r->instead ? r->instead : "");
  }
  return ok;
}

bool md_cli_obeys(md_cli *cli) {
  bool ok = true;
  for (const md_option_rule *r = cli->command->rules; r && r->when; r++) ok = obeys(cli, r) && ok;
  return ok;
}

const char *md_cli_next(const md_cli *cli, const char *name, int *at) {
  for (; *at < cli->num_set; (*at)++)
    if (strcmp(cli->set[*at].option->name, name) == 0) return cli->set[(*at)++].value;
  return NULL;
}

const char *md_cli_get(const md_cli *cli, const char *name) {
  const char *last = NULL, *v;
  for (int at = 0; (v = md_cli_next(cli, name, &at));) last = v;
  return last;
}

bool md_cli_has(const md_cli *cli, const char *name) { return md_cli_get(cli, name) != NULL; }

bool md_cli_int(md_cli *cli, const char *name, int64_t lo, int64_t hi, int64_t *value) {
  const char *text = md_cli_get(cli, name);
  if (!text) return true;
  int64_t x;
  if (md_parse_int(text, &x) && x >= lo && x <= hi) {
    *value = x;
    return true;
  }
  char clean[80];
  return md_error(cli->diags, E0401, MD_NOWHERE,
                  "--%s is '%s', but takes a whole number from %lld to %lld", name,
                  md_clean(text, clean, sizeof clean), (long long)lo, (long long)hi);
}

bool md_cli_bytes(md_cli *cli, const char *name, int64_t *value) {
  const char *text = md_cli_get(cli, name);
  if (!text || md_parse_bytes(text, value)) return true;
  char clean[80];
  return md_error(cli->diags, E0401, MD_NOWHERE,
                  "--%s is '%s', but takes a number of bytes such as 1400M or 1.4G", name,
                  md_clean(text, clean, sizeof clean));
}

bool md_cli_float(md_cli *cli, const char *name, double lo, double hi, double *value) {
  const char *text = md_cli_get(cli, name);
  if (!text) return true;
  double x;
  if (md_parse_float(text, &x) && x >= lo && x <= hi) {
    *value = x;
    return true;
  }
  char clean[80];
  return md_error(cli->diags, E0401, MD_NOWHERE, "--%s is '%s', but takes a number from %g to %g",
                  name, md_clean(text, clean, sizeof clean), lo, hi);
}

int md_cli_choice(md_cli *cli, const char *name, const char *const *choices, int preset) {
  const char *text = md_cli_get(cli, name);
  if (!text) return preset;
  int num = 0;
  for (; choices[num]; num++)
    if (strcmp(choices[num], text) == 0) return num;
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "--%s is '%s'", name,
           md_clean(text, clean, sizeof clean));
  const char *near = md_nearest(text, choices, num);
  if (near) {
    md_hint(cli->diags, "did you mean '--%s=%s'?", name, near);
  } else {
    md_text list = {0};
    for (int i = 0; i < num; i++) md_put(&list, "%s%s", i ? ", " : "", choices[i]);
    md_hint(cli->diags, "it takes one of: %s", list.s);
    md_text_free(&list);
  }
  return -1;
}

bool md_cli_may_write(md_cli *cli, const char *name) {
  const char *path = md_cli_get(cli, name);
  return !path || strcmp(path, "-") == 0 || md_file_may_create(path, cli->diags);
}

bool md_cli_args(md_cli *cli, int least, int most, const char *what) {
  if (cli->num_args >= least && cli->num_args <= most) return true;
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc %s: %s, but %d argument%s given",
           cli->command->name, what, cli->num_args, cli->num_args == 1 ? " was" : "s were");
  md_hint(cli->diags, "usage: modistc %s%s%s", cli->command->name,
          cli->command->usage[0] ? " " : "", cli->command->usage);
  return false;
}
