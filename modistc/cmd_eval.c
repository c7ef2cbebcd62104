// SPDX-License-Identifier: Apache-2.0
// features, export, eval, plot: what a run has learnt, as numbers, as a file, as a score, as a
// picture.
#include "modistc/modistc.h"

#include "runtime/train/probe.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FEATURE_OPTIONS                                                                            \
  {"clips", 0, "N", "clips of a video, whose features are averaged (3)"},                          \
      {"to-end", 0, NULL,                                                                          \
       "the last clip ends with the video, in place of starts "                                    \
       "at i/N of what is left"},                                                                  \
      {"prefix", 0, "DIR", "folder in front of a list's paths"},                                   \
      {"threads", 0, "N", "threads that decode and, without a GPU, compute (all cores)"},          \
      MD_DEVICE_OPTION, {"precision", 0, "TYPE", "fp32 (default) or bf16 storage of activations"}, \
      MD_CPU_OPTIONS

#define FEATURE_RULE {"device=cuda*", "cpu jit-asan", MD_DEVICE_WHY, NULL}

static bool read_options(md_cli *cli, md_features_options *o) {
  int64_t clips = 0, threads = 0;
  if (!md_cli_int(cli, "clips", 1, 1000, &clips) || !md_cli_int(cli, "threads", 1, 1024, &threads))
    return false;
  *o = (md_features_options){.clips = (int)clips,
                             .to_end = md_cli_has(cli, "to-end"),
                             .engine = {.cpu = md_cli_get(cli, "cpu"),
                                        .asan = md_cli_has(cli, "jit-asan"),
                                        .no_cache = md_cli_has(cli, "no-cache"),
                                        .threads = (int)threads}};
  return md_source_backend(cli, &o->engine) && md_source_passes(cli, &o->engine.passes);
}

static md_checkpoint *open_weights(md_cli *cli, const char *path) {
  md_checkpoint *c = md_checkpoint_open(path, cli->diags);
  if (!c && access(path, F_OK) != 0)
    md_hint(cli->diags, "'modistc train' writes weights.safetensors to run.dir");
  return c;
}

static md_features *compute(md_cli *cli, const char *weights, const char *videos,
                            const md_features_options *o) {
  md_dataset_options set = {.path = videos, .prefix = md_cli_get(cli, "prefix")};
  md_checkpoint *c = open_weights(cli, weights);
  md_dataset *data = c ? md_dataset_open(&set, cli->diags) : NULL;
  md_features *f = data ? md_features_compute(c, data, o, cli->diags) : NULL;
  md_dataset_destroy(data);
  md_checkpoint_close(c);
  return f;
}

// False: reported. The output is what a command is for, so it is always named.
static bool output_named(md_cli *cli) {
  if (md_cli_get(cli, "output")) return true;
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc %s: -o is missing", cli->command->name);
  md_hint(cli->diags, "usage: modistc %s %s", cli->command->name, cli->command->usage);
  return false;
}

// --- features

static md_status features(md_cli *cli) {
  md_features_options o;
  if (!md_cli_args(cli, 2, 2, "takes a file of weights, and a folder or list of videos") ||
      !output_named(cli) || !read_options(cli, &o))
    return MD_ERR_USAGE;
  const char *folder = md_cli_get(cli, "output");
  md_features *f = NULL;
  if (md_features_may_save(folder, cli->diags)) f = compute(cli, cli->arg[0], cli->arg[1], &o);
  if (!f) return md_diags_status(cli->diags);
  bool ok = md_features_save(f, folder, cli->diags);
  if (ok && !cli->quiet)
    printf("wrote features.npy [%lld,%lld] and features.csv to %s\n", (long long)f->num,
           (long long)f->width, folder);
  md_features_destroy(f);
  return md_diags_status(cli->diags);
}

static const md_option features_options[] = {
    {"output", 'o', "DIR", "where features.npy and features.csv are written"},
    FEATURE_OPTIONS,
    {0}};
static const md_option_rule features_rules[] = {FEATURE_RULE, {0}};
static const char *const features_examples[] = {
    "modistc features runs/mini_modist/weights.safetensors mini/train.csv -o train_features", NULL};
const md_command md_cmd_features = {.name = "features",
                                    .group = "Evaluate",
                                    .usage = "WEIGHTS VIDEOS -o DIR [options]",
                                    .doc = "what the visual network makes of videos, for NumPy",
                                    .examples = features_examples,
                                    .options = features_options,
                                    .rules = features_rules,
                                    .run = features};

// --- export

static md_status export(md_cli *cli) {
  if (!md_cli_args(cli, 1, 1, "takes a file of weights") || !output_named(cli)) return MD_ERR_USAGE;
  md_checkpoint *c = open_weights(cli, cli->arg[0]);
  const char *path = md_cli_get(cli, "output");
  bool ok = c && md_visual_export(c, path, cli->diags);
  md_checkpoint_close(c);
  if (ok && !cli->quiet) printf("wrote %s: the visual backbone alone\n", path);
  return md_diags_status(cli->diags);
}

static const md_option export_options[] = {{"output", 'o', "FILE", "safetensors file to write"},
                                           {0}};
static const char *const export_examples[] = {
    "modistc export runs/mini_modist/weights.safetensors -o visual.safetensors", NULL};
const md_command md_cmd_export = {.name = "export",
                                  .group = "Evaluate",
                                  .usage = "WEIGHTS -o FILE",
                                  .doc = "the visual backbone alone, without what trained it",
                                  .examples = export_examples,
                                  .options = export_options,
                                  .run = export};

// --- eval

static void print_confusion(const md_score *s) {
  printf("label x guess, %d classes\n", s->classes);
  for (int i = 0; i < s->classes; i++) {
    printf("%5d ", i);
    for (int j = 0; j < s->classes; j++)
      printf(" %5lld", (long long)s->confusion[(int64_t)i * s->classes + j]);
    putchar('\n');
  }
}

static const char *const formats[] = {"table", "json", NULL};

static void print_json(const md_score *s, const md_score *train, const char *method,
                       const md_minimum *m) {
  md_json j = {0};
  md_json_begin(&j, '{');
  md_json_key(&j, "schema");
  md_json_str(&j, "modist.eval/1");
  md_json_key(&j, "method");
  md_json_str(&j, method);
  md_json_key(&j, "videos");
  md_json_int(&j, s->num);
  md_json_key(&j, "classes");
  md_json_int(&j, s->classes);
  md_json_key(&j, "top1");
  md_json_float(&j, md_score_top1(s));
  md_json_key(&j, "standard_error");
  md_json_float(&j, md_score_error(s));
  if (train) {
    md_json_key(&j, "train_top1");
    md_json_float(&j, md_score_top1(train));
    md_json_key(&j, "loss");
    md_json_float(&j, m->value);
    md_json_key(&j, "gradient");
    md_json_float(&j, m->gradient);
    md_json_key(&j, "steps");
    md_json_int(&j, m->steps);
    md_json_key(&j, "converged");
    md_json_bool(&j, m->converged);
  }
  md_json_key(&j, "confusion");
  md_json_begin(&j, '[');
  for (int64_t i = 0; i < s->classes; i++) {
    md_json_begin(&j, '[');
    for (int64_t k = 0; k < s->classes; k++) md_json_int(&j, s->confusion[i * s->classes + k]);
    md_json_end(&j, ']');
  }
  md_json_end(&j, ']');
  md_json_end(&j, '}');
  puts(j.out.s);
  md_text_free(&j.out);
}

static void print_score(md_cli *cli, const md_score *s, const md_score *train, const char *method,
                        const md_minimum *m) {
  if (md_cli_choice(cli, "format", formats, 0) == 1) {
    print_json(s, train, method, m);
    return;
  }
  printf("%-6s top-1 %.1f %% +- %.1f (%lld of %lld videos, %d classes)\n", method,
         100 * md_score_top1(s), 100 * md_score_error(s), (long long)s->hits, (long long)s->num,
         s->classes);
  if (train)
    printf("       training videos %.1f %%, loss %.4f, largest gradient %.1e after %d steps\n",
           100 * md_score_top1(train), m->value, m->gradient, m->steps);
  if (md_cli_has(cli, "confusion")) print_confusion(s);
}

static int32_t *guesses(int64_t num) {
  int32_t *g = md_calloc((size_t)num + 1, sizeof *g);
  return g;
}

static void judge_knn(md_cli *cli, const md_features *train, const md_features *test, int classes,
                      int k) {
  int32_t *guess = guesses(test->num);
  md_knn(train, test, (int)MD_MIN(k, train->num), guess);
  md_score s = md_score_of(test->label, guess, test->num, classes);
  print_score(cli, &s, NULL, "knn", NULL);
  md_score_free(&s);
  free(guess);
}

static void judge_linear(md_cli *cli, const md_features *train, const md_features *test,
                         int classes, double l2) {
  md_linear_probe *p = md_linear_fit(train, classes, &(md_linear_options){.l2 = l2});
  md_minimum m = md_linear_minimum(p);
  if (!m.converged)
    md_warning(cli->diags, MD_NOWHERE, "the probe stopped at a gradient of %.1e after %d steps",
               m.gradient, m.steps);
  int32_t *guess = guesses(MD_MAX(train->num, test->num));
  md_linear_guess(p, train, guess);
  md_score known = md_score_of(train->label, guess, train->num, classes);
  md_linear_guess(p, test, guess);
  md_score s = md_score_of(test->label, guess, test->num, classes);
  print_score(cli, &s, &known, "probe", &m);
  md_score_free(&s);
  md_score_free(&known);
  md_linear_destroy(p);
  free(guess);
}

static md_status eval(md_cli *cli) {
  const char *verb = cli->num_args > 0 ? cli->arg[0] : "", *weights = md_cli_get(cli, "weights");
  bool knn = strcmp(verb, "knn") == 0;
  if (!knn && strcmp(verb, "probe") != 0) {
    char clean[80];
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc eval: takes knn or probe, not '%s'",
             md_clean(verb, clean, sizeof clean));
    md_hint(cli->diags, "usage: modistc eval %s", cli->command->usage);
    return MD_ERR_USAGE;
  }
  md_features_options o;
  int64_t k = 20;
  double l2 = 0.01;
  if (!md_cli_args(cli, 3, 3, "takes a set to learn from and a set to test") ||
      md_cli_choice(cli, "format", formats, 0) < 0 || !md_cli_int(cli, "k", 1, 1000000, &k) ||
      !md_cli_float(cli, "l2", 1e-9, 1e9, &l2) || !read_options(cli, &o))
    return MD_ERR_USAGE;
  md_features *set[2] = {0};
  for (int i = 0; i < 2 && (!i || set[0]); i++)
    set[i] = weights ? compute(cli, weights, cli->arg[1 + i], &o)
                     : md_features_load(cli->arg[1 + i], cli->diags);
  int classes = set[1] ? md_score_classes(set[0], set[1], cli->diags) : 0;
  if (classes && knn) judge_knn(cli, set[0], set[1], classes, (int)k);
  else if (classes) judge_linear(cli, set[0], set[1], classes, l2);
  md_features_destroy(set[0]);
  md_features_destroy(set[1]);
  return md_diags_status(cli->diags);
}

static const md_option eval_options[] = {
    {"weights", 0, "FILE", "TRAIN and TEST are videos: make their features with these weights"},
    {"k", 0, "N", "knn: how many neighbours vote (20)"},
    {"l2", 0, "X", "probe: weight of |W|^2 / 2 beside the mean loss (0.01)"},
    {"confusion", 0, NULL, "print how often each label was taken for each other"},
    {"format", 0, "FORM", "table (default) or json"},
    FEATURE_OPTIONS,
    {0}};
static const md_option_rule eval_rules[] = {
    {":probe", "k", "only knn asks neighbours", NULL},
    {":knn", "l2", "only probe is regularised", NULL},
    {"!weights", "clips to-end prefix threads device precision " MD_CPU_NAMES,
     "features are read, not computed", "--weights=FILE computes them from videos"},
    FEATURE_RULE,
    {"format=json", "confusion", "the object always has it", NULL},
    {0}};
static const char *const eval_examples[] = {
    "modistc eval probe train_features test_features --confusion",
    "modistc eval knn mini/train.csv mini/test.csv --weights=runs/mini_modist/weights.safetensors",
    NULL};
const md_command md_cmd_eval = {
    .name = "eval",
    .group = "Evaluate",
    .usage = "knn|probe TRAIN TEST [--weights=FILE] [options]",
    .doc = "read labels from frozen features: nearest neighbours or a linear probe",
    .examples = eval_examples,
    .options = eval_options,
    .rules = eval_rules,
    .run = eval};

// --- plot

static md_status plot(md_cli *cli) {
  md_sheet_options sheet = {.videos = md_cli_get(cli, "videos"),
                            .prefix = md_cli_get(cli, "prefix"),
                            .maps = md_cli_get(cli, "maps")};
  int64_t rows = 4, frames = 10;
  if (!md_cli_args(cli, sheet.videos ? 0 : 1, 32, "takes folders of runs, or --videos, or both") ||
      !md_cli_maps_named(cli) || !output_named(cli) || !md_cli_int(cli, "rows", 1, 50, &rows) ||
      !md_cli_int(cli, "frames", 1, 30, &frames))
    return MD_ERR_USAGE;
  sheet.rows = (int)rows;
  sheet.frames = (int)frames;
  const char *path = md_cli_get(cli, "output");
  if (!md_picture_save((const char *const *)cli->arg, cli->num_args, sheet.videos ? &sheet : NULL,
                       path, cli->diags))
    return md_diags_status(cli->diags);
  if (!cli->quiet) printf("wrote %s\n", path);
  return MD_OK;
}

static const md_option plot_options[] = {
    {"output", 'o', "FILE", "SVG to write"},
    {"videos", 0, "SET", "folder or list: its first videos are shown, as the networks see them"},
    {"maps", 0, "DIR", "motion maps of the videos (`dataset flow`); else differences of frames"},
    {"rows", 0, "N", "how many videos (4)"},
    {"frames", 0, "N", "of each video, evenly spaced (10)"},
    {"prefix", 0, "DIR", "folder in front of a list's paths"},
    {0}};
static const md_option_rule plot_rules[] = {
    {"!videos", "maps rows frames prefix", "no videos are shown", "name some with --videos"}, {0}};
static const char *const plot_examples[] = {
    "modistc plot runs/mini_modist runs/mini_rgb -o losses.svg",
    "modistc plot runs/mini_modist --videos=mini/train.csv --maps=maps -o picture.svg", NULL};
const md_command md_cmd_plot = {
    .name = "plot",
    .group = "Evaluate",
    .usage = "[RUN...] [--videos=SET [--maps=DIR]] -o FILE.svg",
    .doc = "the losses of runs as curves, and what the networks see, in one picture",
    .examples = plot_examples,
    .options = plot_options,
    .rules = plot_rules,
    .run = plot};
