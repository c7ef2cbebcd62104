// SPDX-License-Identifier: Apache-2.0
// `batch=max`: the largest batch whose program fits into --memory-limit with every value kept. Whoever
// compiles then sees that number as if it had been given.
//
// Memory grows with the batch, and by nearly as much for each video. So a line through two batches
// that are known tells the next one to plan, and bisection ends what lines do not. Nothing is compiled
// for a plan.
#include "modistc/compile.h"

#include "base/log.h"
#include "runtime/train/config.h"

#include <string.h>

enum { MAX_BATCH = 65536, BY_LINE = 8 };  // plans that a line chooses

typedef struct Plan {
  int64_t groups;  // the batch is so many times bn.groups
  int64_t bytes;   // 0: refused, whatever the limit
} Plan;

typedef struct Search {
  md_compile_job *j;
  char **setting;      // the argument that is "batch=max"
  int64_t group_size;  // bn.groups: batches are its multiples
  int plans;
} Search;

static Plan plan_of(Search *s, int64_t groups) {
  const md_compile_job *j = s->j;
  md_cli cli = *j->cli;
  cli.diags = md_diags_create();  // the batch that is taken reports again what is wrong
  *s->setting = md_format(cli.arena, "batch=%lld", (long long)(groups * s->group_size));
  md_pass_options o = j->passes;
  o.memory.bytes = 0;
  o.print_after = o.dump_dir = NULL;
  o.print_changed = o.time = false;
  md_pass_report report = {0};
  md_graph *g = md_source_graph(&cli, cli.arg[0]);
  if (g) g = md_run_passes(g, &o, &report, cli.diags);
  Plan p = {groups, g ? o.memory.needs(g, &o.memory) : 0};
  md_pass_report_free(&report);
  md_graph_destroy(g);
  md_diags_destroy(cli.diags);
  s->plans++;
  md_log(MD_LOG_MEM, MD_LEVEL_INFO, "%s needs %lld bytes", *s->setting, (long long)p.bytes);
  return p;
}

// Where the line through two plans reaches the limit.
static int64_t on_line(Plan a, Plan b, int64_t limit) {
  double each = (double)(b.bytes - a.bytes) / (double)(b.groups - a.groups);
  double more = (double)(limit - a.bytes) / MD_MAX(each, 1);
  return a.groups + (int64_t)MD_MIN(MD_MAX(more, 0), MAX_BATCH);
}

// `fits` does, and `next`, the batch behind it in the end, does not or is MAX_BATCH + 1.
static void search(Search *s, Plan *fits, Plan *next) {
  int64_t limit = s->j->memory_limit;
  Plan before = *fits;
  while (next->groups - fits->groups > 1) {
    int64_t guess = fits->groups + (next->groups - fits->groups) / 2;
    if (before.groups == fits->groups) guess = fits->groups + 1;
    else if (s->plans < BY_LINE) guess = on_line(*fits, next->bytes ? *next : before, limit);
    guess = MD_MIN(MD_MAX(guess, fits->groups + 1), next->groups - 1);
    Plan p = plan_of(s, guess);
    bool is_in = p.bytes && p.bytes <= limit;
    if (is_in) before = *fits;
    *(is_in ? fits : next) = p;
  }
}

// With a digit that tells neighbours apart.
static const char *mib(const Search *s, int64_t bytes) {
  return md_format(s->j->cli->arena, "%.1f MiB", (double)bytes / (1 << 20));
}

static const char *found(const Search *s, Plan fits, Plan next) {
  md_arena *a = s->j->cli->arena;
  long long batch = fits.groups * s->group_size, more = next.groups * s->group_size;
  const char *bytes = mib(s, fits.bytes), *limit = mib(s, s->j->memory_limit);
  const char *text = md_format(a, "%lld needs %s of %s", batch, bytes, limit);
  if (next.bytes) return md_format(a, "%s; %lld would need %s", text, more, mib(s, next.bytes));
  if (more > MAX_BATCH) return md_format(a, "%s; no step takes more videos", text);
  return md_format(a, "%s; %lld is refused whatever the limit (batch=%lld says why)", text, more,
                   more);
}

// A report has it in its summary. What does not fit may still do with values that are computed again.
static void tell(Search *s, Plan fits, Plan next) {
  md_compile_job *j = s->j;
  if (!fits.bytes) return;
  bool is_in = fits.bytes <= j->memory_limit;
  if (is_in) j->batch_text = found(s, fits, next);
  if (j->cli->quiet || (is_in && j->emit == EMIT_REPORT)) return;
  if (is_in) fprintf(stderr, "batch   %s\n", j->batch_text);
  else
    fprintf(stderr, "batch   %lld, the smallest, needs %s of %s with every value kept\n",
            (long long)s->group_size, mib(s, fits.bytes), mib(s, j->memory_limit));
}

static char **setting_of(const md_cli *cli) {
  if (!md_model_from(cli->arg[0])) return NULL;  // what is no model has no settings
  for (int i = cli->num_args - 1; i > 0; i--)
    if (!strncmp(cli->arg[i], "batch=", 6))
      return strcmp(cli->arg[i], "batch=max") ? NULL : &cli->arg[i];
  return NULL;
}

static bool read_group_size(Search *s) {
  md_cli *cli = s->j->cli;
  *s->setting = "batch=1";
  md_config *c =
      md_config_load(md_cli_get(cli, "config"), cli->arg + 1, cli->num_args - 1, cli->diags);
  if (c) s->group_size = md_config_int(c, "bn.groups");
  md_config_destroy(c);
  return c != NULL;
}

bool md_compile_batch(md_compile_job *j) {
  md_cli *cli = j->cli;
  Search s = {.j = j, .setting = setting_of(cli)};
  if (!s.setting) return true;
  if (!j->memory_limit) {
    md_error(cli->diags, E0401, MD_NOWHERE,
             "batch=max is the largest batch that fits into a limit, and there is none");
    md_hint(cli->diags, "add --memory-limit=BYTES, such as 26G");
    return false;
  }
  if (!read_group_size(&s)) return false;
  Plan fits = plan_of(&s, 1), next = {.groups = MAX_BATCH / s.group_size + 1};
  if (fits.bytes && fits.bytes <= j->memory_limit) search(&s, &fits, &next);
  *s.setting = md_format(cli->arena, "batch=%lld", (long long)(fits.groups * s.group_size));
  tell(&s, fits, next);
  return true;
}
