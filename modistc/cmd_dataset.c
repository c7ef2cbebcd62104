// SPDX-License-Identifier: Apache-2.0
// dataset: look at the videos of a set before training on them; make a small one to try things.
#include "modistc/modistc.h"

#include "runtime/video/motion.h"

#include <string.h>

static const md_option dataset_options[] = {
    {"prefix", 0, "DIR", "folder in front of a list's paths"},
    {"output", 'o', "PATH",
     "index: the csv; flow: folder of the maps; shapes, mini: of the videos"},
    {"workers", 'j', "N", "videos looked at in parallel (all cores)"},
    {"format", 0, "FORM", "check, stat: table (default), json or csv"},
    {"full-decode", 0, NULL, "check: decode every frame, not only the first"},
    {"quarantine", 0, "FILE", "check: write a csv of broken videos and the reasons"},
    {"no-hash", 0, NULL, "index: leave the digests of the files out"},
    {"span", 0, "N", "stat: length of a clip in frames of 1/30 s (64)"},
    {"kind", 0, "KIND", "maps: edge (default; edges of optical flow), flow, or diff (of frames)"},
    {"lag", 0, "N", "maps: compared frames lie N/30 s apart (5; diff: 1)"},
    {"short-side", 0, "N", "maps: their size; smaller videos stay as they are (128)"},
    {"sobel-scale", 0, "X", "maps: of the sums of an edge (0.125; OpenCV's: 1)"},
    {"clamp", 0, "X", "maps: their largest value (edge: 10; flow: 20 pixels)"},
    {"videos", 0, "N", "how many (shapes: 12; mini: 480 to train, 240 to tune or test)"},
    {"size", 0, "N", "width and height in pixels (shapes: even, 96; mini: 36, 64 or 96, 36)"},
    {"seconds", 0, "T", "shapes: length of each (4)"},
    {"seed", 0, "K", "shapes, mini: of what is drawn (0)"},
    {"maps", 0, "DIR", "shapes, mini: write motion maps as well, from the true motion"},
    {"noise", 0, "X", "shapes, mini: deviation of the maps' flow from the truth (0 pixels)"},
    {"split", 0, "NAME", "mini: train, tune or test; no two of them share a video (train)"},
    {"start", 0, "K", "mini: number of the first video (0)"},
    {0}};

#define MAP_NAMES "kind lag short-side sobel-scale clamp"
static const md_option_rule dataset_rules[] = {
    {":check|stat", "output", "it prints what it finds", NULL},
    {"!:check", "full-decode quarantine", "only check judges videos", NULL},
    {"!:index", "no-hash", "only index keeps digests", NULL},
    {"!:stat", "span", "only stat asks for clips", NULL},
    {":index|flow|shapes|mini", "format", "only check and stat have other forms", NULL},
    {"!:flow|shapes|mini", MAP_NAMES, "only flow, shapes and mini make motion maps", NULL},
    {":shapes|mini !maps", MAP_NAMES " noise", "without --maps there are none", "add --maps=DIR"},
    {"kind=flow|diff", "sobel-scale", "only edges are Sobel sums", NULL},
    {"kind=diff", "clamp", "differences lie in [0,1]", NULL},
    {"!:shapes|mini", "videos size seed maps noise", "only shapes and mini make videos", NULL},
    {"!:shapes", "seconds", "only shapes lets the length be chosen", NULL},
    {"!:mini", "split start", "only mini makes splits", NULL},
    {":shapes|mini", "prefix workers", "it reads no videos", NULL},
    {0}};

static bool read_truth(md_cli *cli, md_truth_rule *r) {
  r->folder = md_cli_get(cli, "maps");
  if (!md_cli_map_rule(cli, &r->maps) || !md_cli_float(cli, "noise", 0, 1e3, &r->noise))
    return false;
  if (r->maps.kind != MD_MAP_DIFF) return md_cli_maps_named(cli);
  md_error(cli->diags, E0401, MD_NOWHERE,
           "--kind is 'diff', but differences of frames are not made from the true motion");
  md_hint(cli->diags, "training takes them on the fly; 'modistc dataset flow' writes them");
  return false;
}

static void say_made(const md_cli *cli, int videos, int size, const char *length, const char *list,
                     const char *folder, const md_truth_rule *r) {
  if (cli->quiet) return;
  printf("wrote %d videos of %dx%d, %s each, and %s with their motions to %s", videos, size, size,
         length, list, folder);
  if (r->folder)
    printf("; %s maps of the true motion to %s", md_map_kind_names[r->maps.kind], r->folder);
  putchar('\n');
}

static md_status shapes(md_cli *cli) {
  md_shapes_options o = {.folder = md_cli_get(cli, "output")};
  int64_t videos = 12, size = 96, seed = 0;
  double seconds = 4;
  if (!md_cli_args(cli, 1, 1, "shapes takes options only") ||
      !md_cli_int(cli, "videos", 1, 100000, &videos) || !md_cli_int(cli, "size", 16, 1024, &size) ||
      !md_cli_int(cli, "seed", 0, INT64_MAX, &seed) ||
      !md_cli_float(cli, "seconds", 0.5, 600, &seconds) || !read_truth(cli, &o.truth))
    return MD_ERR_USAGE;
  if (!o.folder || size % 2) {
    md_error(cli->diags, E0401, MD_NOWHERE,
             o.folder ? "--size is %lld, but coders want an even size"
                      : "modistc dataset shapes: no folder to write %lld-pixel videos to",
             (long long)size);
    md_hint(cli->diags, "usage: modistc dataset %s", cli->command->usage);
    return MD_ERR_USAGE;
  }
  o.videos = (int)videos;
  o.size = (int)size;
  o.seconds = seconds;
  o.seed = (uint64_t)seed;
  if (!md_shapes_make(&o, cli->diags)) return md_diags_status(cli->diags);
  const char *length = md_format(cli->arena, "%g s", o.seconds);
  say_made(cli, o.videos, o.size, length, "videos.csv", o.folder, &o.truth);
  return MD_OK;
}

static md_status mini(md_cli *cli) {
  static const char *const sizes[] = {"36", "64", "96", NULL};
  static const int pixels[] = {36, 64, 96};
  md_mini_options o = {.folder = md_cli_get(cli, "output")};
  int split = md_cli_choice(cli, "split", md_mini_splits, MD_MINI_TRAIN);
  int size = md_cli_choice(cli, "size", sizes, 0);
  int64_t seed = 0;
  if (split < 0 || size < 0) return MD_ERR_USAGE;
  int64_t videos = md_mini_usual((md_mini_split)split);
  if (!md_cli_args(cli, 1, 1, "mini takes options only") ||
      !md_cli_int(cli, "videos", 1, 100000, &videos) ||
      !md_cli_int(cli, "start", 0, 1000000000, &o.first) ||
      !md_cli_int(cli, "seed", 0, INT64_MAX, &seed) || !read_truth(cli, &o.truth))
    return MD_ERR_USAGE;
  if (!o.folder) {
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc dataset mini: no folder to write videos to");
    md_hint(cli->diags, "usage: modistc dataset %s", cli->command->usage);
    return MD_ERR_USAGE;
  }
  o.split = (md_mini_split)split;
  o.videos = (int)videos;
  o.size = pixels[size];
  o.seed = (uint64_t)seed;
  if (!md_mini_make(&o, cli->diags)) return md_diags_status(cli->diags);
  const char *length = md_format(cli->arena, "%d frames", MD_MINI_FRAMES);
  const char *list = md_format(cli->arena, "%s.csv", md_mini_splits[split]);
  say_made(cli, o.videos, o.size, length, list, o.folder, &o.truth);
  return MD_OK;
}

static const struct {
  const char *name;
  md_status (*run)(md_cli *cli);
} verbs[] = {{"check", md_dataset_check}, {"index", md_dataset_index}, {"stat", md_dataset_stat},
             {"flow", md_dataset_flow},   {"shapes", shapes},          {"mini", mini}};

static md_status run(md_cli *cli) {
  const char *verb = cli->num_args > 0 ? cli->arg[0] : "", *names[MD_COUNT(verbs)];
  for (int i = 0; i < MD_COUNT(verbs); i++) {
    if (strcmp(verb, verbs[i].name) == 0) return verbs[i].run(cli);
    names[i] = verbs[i].name;
  }
  md_text all = {0};
  for (int i = 0; i < MD_COUNT(verbs); i++)
    md_put(&all, "%s%s", i == 0 ? "" : i < MD_COUNT(verbs) - 1 ? ", " : " or ", verbs[i].name);
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc dataset: takes %s, not '%s'", all.s,
           md_clean(verb, clean, sizeof clean));
  md_text_free(&all);
  const char *near = md_nearest(verb, names, MD_COUNT(verbs));
  if (near) md_hint(cli->diags, "did you mean 'modistc dataset %s'?", near);
  else md_hint(cli->diags, "usage: modistc dataset %s", cli->command->usage);
  return MD_ERR_USAGE;
}

static const char *const examples[] = {
    "modistc dataset check videos",
    "modistc dataset check train.csv --full-decode",
    "modistc dataset index videos -o videos.csv",
    "modistc dataset stat videos.csv",
    "modistc dataset flow videos -o maps --kind=edge -j 2",
    "modistc dataset shapes -o shapes --videos=12 --size=96 --seconds=4",
    "modistc dataset mini -o mini --split=test",
    "modistc dataset mini -o mini --maps=truth --kind=edge --lag=3 --clamp=28",
    NULL};
const md_command md_cmd_dataset = {
    .name = "dataset",
    .group = "Train",
    .usage = "check|index|stat|flow VIDEOS [options] | shapes|mini -o DIR [options]",
    .doc = "check, list and sum up videos, compute their motion maps, or make a few",
    .examples = examples,
    .options = dataset_options,
    .rules = dataset_rules,
    .run = run};
