// SPDX-License-Identifier: Apache-2.0
// train: from a folder of videos to trained weights.
#include "modistc/modistc.h"

#include "runtime/train/train.h"

#include <string.h>

static const md_option train_options[] = {
    {"config", 'c', "FILE", "settings; key=value arguments override them"},
    {"dry-run", 'n', NULL,
     "show parameters, FLOPs, planned memory and the data found; train nothing"},
    {"target", 't', "TARGET",
     "with --dry-run: plan for this GPU, such as cuda:h200, which need not be here; 'modistc "
     "targets' "
     "lists them"},
    {"target-spec", 0, "FILE", "with --target: facts of another GPU, for predictions"},
    {"max-steps", 0, "N", "stop after step N; the learning rate goes as for the whole run"},
    {"overwrite", 0, NULL, "replace the run that run.dir may hold"},
    {"resume", 0, "[=FILE]", "go on from the newest checkpoint in run.dir, or from this one"},
    {"backend", 0, "NAME", "cpu (default) or interp: the slow interpreter, behind the same passes"},
    MD_DEVICE_OPTION,
    MD_ENGINE_OPTIONS,
    {"check-nan", 0, NULL, "stop at the first kernel that makes a NaN or infinity"},
    {"trace", 0, "FILE", "Chrome/Perfetto trace of kernels and waits for data"},
    MD_MEMORY_OPTION,
    MD_PASS_OPTIONS,
    MD_CPU_OPTIONS,
    {0}};

static const md_option_rule train_rules[] = {
    {"backend=interp", MD_CPU_NAMES " device check-nan trace", MD_INTERP_WHY, "take --backend=cpu"},
    {"device=cuda*", "cpu jit-asan backend", MD_DEVICE_WHY, NULL},
    {"!device=cuda*", "engine", "the CPU runs the program", "add --device=cuda:0"},
    {"dry-run", "engine check-nan trace overwrite", "no program runs", NULL},
    {"!dry-run", "target target-spec", "a run takes a GPU that is here",
     "add --dry-run; --device=cuda:N trains"},
    {"target dry-run", "device backend cpu jit-asan", "--target names what is planned for", NULL},
    {"dry-run !target", "target-spec", "the GPU that is planned for has facts of its own",
     "add --target=cuda:sm_90a"},
    {0}};

static md_status run(md_cli *cli) {
  md_train_options o = {.dry_run = md_cli_has(cli, "dry-run"),
                        .quiet = cli->quiet,
                        .overwrite = md_cli_has(cli, "overwrite"),
                        .resume = md_cli_has(cli, "resume"),
                        .trace = md_cli_get(cli, "trace"),
                        .target = md_cli_get(cli, "target")};
  const char *from = md_cli_get(cli, "resume");
  o.resume_from = from && *from ? from : NULL;
  md_engine_options *e = &o.engine;
  e->cpu = md_cli_get(cli, "cpu");
  e->asan = md_cli_has(cli, "jit-asan");
  e->no_cache = md_cli_has(cli, "no-cache");
  e->check_nan = md_cli_has(cli, "check-nan");
  if (!md_source_engine(cli, e) || !md_source_backend(cli, e) ||
      !md_cli_int(cli, "max-steps", 1, INT64_MAX, &o.max_steps) ||
      !md_cli_bytes(cli, "memory-limit", &e->memory_limit) || !md_source_passes(cli, &e->passes))
    return MD_ERR_USAGE;
  if (o.resume && o.overwrite)
    return md_error(cli->diags, E0401, MD_NOWHERE, "--resume and --overwrite exclude one another"),
           MD_ERR_USAGE;
  if (o.target && !md_cli_cuda_spec(cli, o.target, &o.spec)) return md_diags_status(cli->diags);
  if (!o.dry_run && !md_cli_may_write(cli, "trace")) return md_diags_status(cli->diags);
  md_config *c = md_config_load(md_cli_get(cli, "config"), cli->arg, cli->num_args, cli->diags);
  if (!c) return md_diags_status(cli->diags);
  md_status status = md_train(c, &o, cli->diags);
  md_config_destroy(c);
  return status;
}

static const char *const examples[] = {
    "modistc train -c configs/modist_tiny.yaml data.train=videos --dry-run",
    "modistc train -c configs/modist_tiny.yaml data.train=videos --dry-run --target=cuda:h200",
    "modistc train -c configs/modist_tiny.yaml data.train=videos run.dir=runs/first",
    "modistc train --resume run.dir=runs/first",
    "modistc train -c configs/clips_r3d18_slow_112.yaml data.train=clips epochs=2 opt.lr=0.01",
    NULL};
const md_command md_cmd_train = {.name = "train",
                                 .group = "Train",
                                 .usage = "[-c CONFIG] [key=value ...] [options]",
                                 .doc = "train on a folder or list of videos",
                                 .examples = examples,
                                 .options = train_options,
                                 .rules = train_rules,
                                 .run = run};
