// SPDX-License-Identifier: Apache-2.0
// verify: judges a back end against a golden set, numbers of an independent implementation.
#include "modistc/modistc.h"

#include "modistc/verify_golden.h"
#include "runtime/train/train.h"

#include <regex.h>

static const md_option verify_options[] = {
    {"golden", 0, "DIR", "the set: a folder with manifest.json (format modist-golden-1)"},
    {"backend", 0, "NAME",
     "interp (default): the meaning of graphs in f64; cpu: compiled, in f32; simt: the text of "
     "CUDA "
     "kernels, thread by thread on the host"},
    {"arch", 0, "ARCH", "that the text of --backend=simt is for (sm_80)"},
    {"filter", 0, "REGEX", "only cases whose name matches"},
    {"format", 0, "FORM", "table (default) or json"},
    {"threads", 'j', "N", "threads of the compiled program (all cores)"},
    MD_PASS_OPTIONS,
    MD_CPU_OPTIONS,
    {0}};

static const md_option_rule verify_rules[] = {
    {"!backend=cpu|simt", MD_PASS_NAMES, "the interpreter takes graphs as they are",
     "add --backend=cpu"},
    {"!backend=cpu", MD_CPU_NAMES " threads", "no CPU code is compiled", "add --backend=cpu"},
    {"!backend=simt", "arch", "no CUDA text is made", "add --backend=simt"},
    {0}};

static md_status run(md_cli *cli) {
  static const char *const backends[] = {"interp", "cpu", "simt", NULL};
  static const char *const formats[] = {"table", "json", NULL};
  if (!md_cli_args(cli, 0, 0, "takes no argument")) return MD_ERR_USAGE;
  int backend = md_cli_choice(cli, "backend", backends, 0),
      format = md_cli_choice(cli, "format", formats, 0);
  int64_t threads = 0;
  md_engine_options engine = {.backend = MD_BACKEND_CPU,
                              .cpu = md_cli_get(cli, "cpu"),
                              .asan = md_cli_has(cli, "jit-asan"),
                              .no_cache = md_cli_has(cli, "no-cache")};
  if (backend < 0 || format < 0 || !md_cli_int(cli, "threads", 0, 1024, &threads) ||
      !md_source_passes(cli, &engine.passes))
    return MD_ERR_USAGE;
  engine.threads = (int)threads;
  md_verify_backend compiled = md_verify_engine("cpu", &engine);
  md_verify_simt_options simt = {.passes = engine.passes};
  const char *arch = md_cli_get(cli, "arch");
  md_verify_options o = {.dir = md_cli_get(cli, "golden"),
                         .json = format == 1,
                         .verbose = cli->verbose > 0,
                         .backend = backend ? &compiled : &md_verify_interp,
                         .out = stdout};
  if (!o.dir) {
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc verify: needs a golden set");
    md_hint(cli->diags, "for example: modistc verify --golden tests/golden");
    return MD_ERR_USAGE;
  }
  if (backend == 2 && !md_verify_simt(arch ? arch : "sm_80", &simt, &compiled, cli->diags))
    return md_diags_status(cli->diags);
  const char *filter = md_cli_get(cli, "filter");
  regex_t regex;
  if (filter) {
    int code = regcomp(&regex, filter, REG_EXTENDED | REG_NOSUB);
    if (code) {
      char why[120];
      regerror(code, &regex, why, sizeof why);
      md_error(cli->diags, E0401, MD_NOWHERE, "--filter is no regular expression: %s", why);
      return MD_ERR_USAGE;
    }
    o.only = &regex;
  }
  md_status status = md_verify_golden(&o, cli->diags);
  if (filter) regfree(&regex);
  return status;
}

static const char *const examples[] = {
    "modistc verify --golden tests/golden",
    "modistc verify --golden tests/golden --backend=cpu --filter='^conv3d/'",
    "modistc verify --golden tests/golden --backend=simt --arch=sm_90a", NULL};
const md_command md_cmd_verify = {
    .name = "verify",
    .group = "Compile and run",
    .usage = "--golden=DIR [options]",
    .doc = "judge a back end against numbers of an independent implementation",
    .examples = examples,
    .options = verify_options,
    .rules = verify_rules,
    .run = run};
