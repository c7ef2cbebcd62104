// SPDX-License-Identifier: Apache-2.0
// bench: what is measured, how long, and in which form it is told.
#include "modistc/bench.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 1000 };

static const md_option bench_options[] = {
    {"op", 0, "SPEC", "measure one op: OP:KEY SIZE..., as in conv3d:n2c64t8h56w56o64k1x3x3"},
    {"direction", 0, "WAY", "of --op: forward, dgrad, wgrad, both (in one program), all"},
    {"sweep", 0, "KEY=LIST", "measure for each value: 4,8..64*2; several: all combinations"},
    {"config", 'c', "FILE", "settings of the model (step, loader)"},
    {"precision", 0, "TYPE", "fp32 (default) or bf16 storage of activations"},
    {"baseline", 0, "LIST",
     "unfused, interp, torch, cudnn: measured in turn with the fused program"},
    {"torch-python", 0, "PYTHON", "of the baseline torch: a Python that has it (python3)"},
    {"torch-reference", 0, "DIR", "of the baseline torch: folder with reference/bench_torch.py"},
    {"torch-compile", 0, NULL, "of the baseline torch: networks and losses by torch.compile"},
    {"predict", 0, NULL, "beside the time of each kind of kernel what its costs predict"},
    {"roofline", 0, "FILE.svg", "draw all kernels by their FLOPs per byte and rates"},
    {"rounds", 'n', "N", "counted rounds (5 or more, for --min-time); loader: batches (one epoch)"},
    {"min-time", 0, "SECONDS", "without --rounds: measure a line at least so long (0.5)"},
    {"warmup", 0, "N", "rounds before counting starts (auto: until steady; loader: 0)"},
    {"step-ms", 0, "T", "loader: pretend that a step takes so long (0)"},
    {"max-regress", 0, "SHARE", "compare: by how much a line may be slower (5%)"},
    {"threads", 'j', "N", "threads (all cores)"},
    {"format", 0, "FORM", "table (default), json or csv"},
    {"output", 'o', "FILE", "where to write the report; '-' or nothing: standard output"},
    MD_DEVICE_OPTION,
    MD_MEMORY_OPTION,
    MD_CPU_OPTIONS,
    {0}};

static const md_option_rule bench_rules[] = {
    {":conv|fused|infonce|motion|train-mini|roof|compare", "config",
     "only `bench step` has settings", NULL},
    {"op", "config", "only `bench step` has settings", NULL},
    {"!op", "direction", "no op is named", "add --op=SPEC"},
    {":loader|roof|compare", "sweep baseline precision memory-limit predict roofline",
     "nothing is compiled", NULL},
    {"format=csv", "predict", "a line of CSV is a side of a line", "take table or json"},
    {"!baseline=*torch*", "torch-python torch-reference torch-compile", "torch is no baseline",
     "add --baseline=torch"},
    {":loader|roof|compare", "device", "no program runs", NULL},
    {"device=cuda*", "cpu jit-asan threads predict roofline", MD_DEVICE_WHY, NULL},
    {"!device=cuda* baseline=*cudnn*", "baseline", "cuDNN computes on a GPU",
     "add --device=cuda:0"},
    {"device=cuda* baseline=*torch*", "baseline", "the peer runs on the CPU", "measure it alone"},
    {":loader", "threads", "no kernels run", "take data.workers=N"},
    {":loader", "min-time " MD_CPU_NAMES, "no kernels run", NULL},
    {":roof", "rounds min-time warmup jit-asan no-cache", "it takes the best of some runs", NULL},
    {":compare", "rounds min-time warmup threads " MD_CPU_NAMES, "nothing is measured", NULL},
    {"!:compare", "max-regress", "only `bench compare` has a limit", NULL},
    {"!:loader", "step-ms", "only `bench loader` waits for a step", NULL},
    {":loader|roof format=csv", "format", "it has no rows of times", "take json"},
    {"rounds", "min-time", "--rounds says how long", NULL},
    {0}};

static bool roof_alone(md_bench *b) { return md_bench_begin(b); }

typedef struct Subject {
  const char *name;
  bool (*run)(md_bench *b);
  int most_args;
  bool wants_roof;
} Subject;
static const Subject subjects[] = {
    {"step", md_bench_step, 64, false},
    {"train-mini", md_bench_mini, 64, false},
    {"conv", md_bench_convs, 1, true},
    {"fused", md_bench_fused, 1, false},
    {"infonce", md_bench_infonce, 1, true},
    {"motion", md_bench_motion, 1, false},
    {"roof", roof_alone, 1, true},
    {"loader", md_bench_loader, 64, false},
    {"compare", md_bench_compare, 64, false},
};
static const Subject one_op = {"--op", md_bench_one_op, 0, true};

static const Subject *subject_of(md_cli *cli) {
  if (md_cli_has(cli, "op"))
    return md_cli_args(cli, 0, 0, "--op is a benchmark of its own") ? &one_op : NULL;
  if (!md_cli_args(cli, 1, 64, "takes a benchmark or --op")) return NULL;
  const char *names[MD_COUNT(subjects)];
  for (int i = 0; i < MD_COUNT(subjects); i++) {
    names[i] = subjects[i].name;
    if (strcmp(names[i], cli->arg[0]) != 0) continue;
    bool ok = cli->num_args <= subjects[i].most_args;
    return ok || md_cli_args(cli, 1, 1, "this benchmark takes no more") ? &subjects[i] : NULL;
  }
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc bench: '%s' is no benchmark",
           md_clean(cli->arg[0], clean, sizeof clean));
  const char *near = md_nearest(cli->arg[0], names, MD_COUNT(names));
  if (near) md_hint(cli->diags, "did you mean 'modistc bench %s'?", near);
  else
    md_hint(cli->diags, "benchmarks are: step MODEL, train-mini, conv, fused, infonce, motion, "
                        "roof, loader VIDEOS, compare A.json B.json, --op SPEC");
  return NULL;
}

static bool read_baselines(md_bench *b) {
  const struct {
    const char *name;
    bool *wanted;
  } known[] = {
      {"unfused", &b->unfused}, {"interp", &b->interp}, {"torch", &b->torch}, {"cudnn", &b->cudnn}};
  const char *list = md_cli_get(b->cli, "baseline");
  for (const char *s = list ? list : ""; *s;) {
    size_t len = strcspn(s, ",");
    bool found = false;
    for (int i = 0; i < MD_COUNT(known); i++) {
      if (strlen(known[i].name) != len || strncmp(s, known[i].name, len) != 0) continue;
      *known[i].wanted = found = true;
    }
    if (!found) {
      char clean[80];
      md_error(b->cli->diags, E0401, MD_NOWHERE, "--baseline: there is no baseline '%.*s'",
               (int)len, md_clean(s, clean, sizeof clean));
      md_hint(b->cli->diags, "baselines are: unfused, interp, torch, cudnn");
      return false;
    }
    s += len + (s[len] == ',');
  }
  return true;
}

static bool read_device(md_bench *b) {
  int index = -1;
  md_gpu_device device;
  const char *name = b->on.device = md_cli_get(b->cli, "device");
  if (name && !md_device_parse(name, &index, b->cli->diags)) return false;
  if (index < 0) return true;
  if (!md_gpu_require(index, &device, b->cli->diags)) return false;
  b->on.backend = MD_BACKEND_CUDA;
  b->device_title = md_format(b->cli->arena, "cuda:%d, %s (sm_%d)", index, device.name, device.sm);
  return true;
}

static bool read_options(md_bench *b) {
  static const char *const formats[] = {"table", "json", "csv", NULL}, *const precisions[] = {
                                                                           "fp32", "bf16", NULL};
  md_cli *cli = b->cli;
  int format = md_cli_choice(cli, "format", formats, 0);
  int precision = md_cli_choice(cli, "precision", precisions, 0);
  const char *warmup = md_cli_get(cli, "warmup");
  bool is_auto = !warmup || strcmp(warmup, "auto") == 0;
  double seconds = 0.5;
  if (format < 0 || precision < 0 || !md_cli_int(cli, "rounds", 1, MAX_ROUNDS, &b->rounds) ||
      !md_cli_float(cli, "min-time", 0, 3600, &seconds) ||
      !md_cli_bytes(cli, "memory-limit", &b->memory_limit) ||
      (!is_auto && !md_cli_int(cli, "warmup", 0, 1000, &b->warmup)) ||
      !md_cli_int(cli, "threads", 0, 1024, &b->threads) || !read_baselines(b))
    return false;
  b->min_ms = 1e3 * seconds;
  b->format = (md_bench_format)format;
  b->precision = precision == 1 ? MD_BF16 : MD_F32;
  b->cpu = md_cpu_find(md_cli_get(cli, "cpu"), true, cli->diags);
  return b->cpu && read_device(b);
}

static md_status run(md_cli *cli) {
  md_bench b = {.cli = cli, .warmup = -1};
  const Subject *subject = subject_of(cli);
  if (!subject || !read_options(&b) || !md_cli_may_write(cli, "output") ||
      !md_cli_may_write(cli, "roofline"))
    return md_diags_status(cli->diags);
  b.predict = md_cli_has(cli, "predict");
  b.roofline = md_cli_get(cli, "roofline");
  b.wants_roof = (subject->wants_roof && !b.device_title) || b.predict || b.roofline;
  const char *path = md_cli_get(cli, "output");
  bool to_file = path && strcmp(path, "-") != 0;
  char *text = NULL;
  size_t len = 0;
  b.out = to_file ? open_memstream(&text, &len) : stdout;
  if (!b.out) md_out_of_memory(BUFSIZ);
  bool ok = subject->run(&b);
  if (ok && b.has_begun) md_bench_end(&b);
  if (ok && b.roofline) ok = md_bench_roofline_save(&b, b.roofline);
  free(b.dot);
  md_text_free(&b.report.out);
  if (to_file) fclose(b.out);
  // A comparison that found something is worth a file as well.
  bool is_whole = ok || md_diags_status(cli->diags) == MD_ERR_MISMATCH;
  if (is_whole && to_file) md_file_save(path, text, len, cli->diags);
  free(text);
  return md_diags_status(cli->diags);
}

static const char *const examples[] = {
    "modistc bench step modist-r3d50 batch=2 --baseline=unfused",
    "modistc bench step modist-tiny --sweep batch=2,4..16*2",
    "modistc bench --op conv3d:n2c64t8h56w56o64k1x3x3 --direction=all --sweep c=32,64",
    "modistc bench conv --format=json -o conv.json",
    "modistc bench step modist-r3d50 batch=2 --baseline=torch --torch-python=PYTHON "
    "--torch-reference=DIR",
    "modistc bench step modist-r3d50 batch=2 --precision=bf16",
    "modistc bench step modist-r3d50 batch=2 --predict --roofline=step.svg",
    "modistc bench infonce --sweep q=8..64*2",
    "modistc bench compare before.json after.json --max-regress=5%",
    "modistc bench loader videos data.workers=2",
    "modistc bench loader -c configs/modist_tiny.yaml data.train=videos --step-ms=50 "
    "--format=json",
    NULL};
const md_command md_cmd_bench = {
    .name = "bench",
    .group = "Compile and run",
    .usage = "step MODEL [key=value ...] | train-mini [key=value ...] | conv | fused | infonce | "
             "motion | --op SPEC | roof | loader VIDEOS [key=value ...] | compare A.json B.json",
    .doc = "time a step, an op, fused regions or the loader; compare reports",
    .examples = examples,
    .options = bench_options,
    .rules = bench_rules,
    .run = run};
