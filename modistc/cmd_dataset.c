// SPDX-License-Identifier: Apache-2.0
// dataset: look at the videos of a set before training on them; make a small one to try things.
#include "modistc/modistc.h"

#include "runtime/video/video.h"

#include <string.h>

static const md_option dataset_options[] = {
    {"full-decode", 0, NULL, "check: decode every frame, not only the first"},
    {"prefix", 0, "DIR", "check: folder in front of a list's paths"},
    {"output", 'o', "DIR", "shapes, mini: where the videos are written"},
    {"videos", 0, "N", "how many (shapes: 12; mini: 480 to train, 240 to tune or test)"},
    {"size", 0, "N", "width and height in pixels (shapes: even, 96; mini: 36, 64 or 96, 36)"},
    {"seconds", 0, "T", "shapes: length of each (4)"},
    {"seed", 0, "K", "shapes, mini: of what is drawn (0)"},
    {"split", 0, "NAME", "mini: train, tune or test; no two of them share a video (train)"},
    {"start", 0, "K", "mini: number of the first video (0)"},
    {0}};

typedef enum Verdict { GOOD, DAMAGED, BROKEN, NUM_VERDICTS } Verdict;
static const char *const verdicts[NUM_VERDICTS] = {"good", "damaged", "broken"};

typedef struct Look {
  Verdict verdict;
  md_video_info about;
  int64_t frames, damaged, missing;
  double seconds;
  int w, h;
  md_fault why;
} Look;

// Decodes the first frame, or all; then the times of all frames.
static void look(const char *path, bool full, Look *k) {
  *k = (Look){.verdict = BROKEN};
  md_video_limits limits = {0};
  md_video *v = md_video_open(path, &limits, &k->why);
  if (!v) return;
  k->about = md_video_about(v);
  md_frame_info info;
  md_video_step step = md_video_next(v, &info, &k->why);
  md_image im = {0};
  bool ok = step == MD_VIDEO_FRAME && md_video_rgb(v, 0, &im, &k->why);
  k->w = im.w;
  k->h = im.h;
  md_image_free(&im);
  while (ok && full && step == MD_VIDEO_FRAME) step = md_video_next(v, &info, &k->why);
  ok = ok && step != MD_VIDEO_FAILED;
  k->damaged = md_video_damaged(v);
  md_video_close(v);
  md_timeline *t = ok ? md_timeline_read(path, &limits, &k->why) : NULL;
  if (!t) return;
  k->frames = t->num_frames;
  k->missing = t->missing;
  k->damaged = MD_MAX(k->damaged, t->damaged);
  k->seconds = md_timeline_length(t) / 30;
  k->verdict = k->damaged || k->missing ? DAMAGED : GOOD;
  md_timeline_destroy(t);
}

static void show(const char *path, const Look *k) {
  char shown[200];
  md_clean(path, shown, sizeof shown);
  if (k->verdict == BROKEN) {
    char why[256];
    printf("broken   %-10s %9s %7s %8s  %s: %s\n", "", "", "", "", shown,
           md_clean(k->why.text, why, sizeof why));
    return;
  }
  char size[32];
  snprintf(size, sizeof size, "%dx%d", k->w, k->h);
  printf("%-8s %-10s %9s %7lld %7.1fs  %s", verdicts[k->verdict], k->about.codec, size,
         (long long)k->frames, k->seconds, shown);
  if (k->damaged) printf(" (%lld frames damaged)", (long long)k->damaged);
  if (k->missing) printf(" (%lld frames missing)", (long long)k->missing);
  putchar('\n');
}

static md_status check(md_cli *cli) {
  if (!md_cli_args(cli, 2, 2, "check takes a folder of videos or a list of them"))
    return MD_ERR_USAGE;
  md_dataset_options o = {.path = cli->arg[1], .prefix = md_cli_get(cli, "prefix")};
  md_dataset *data = md_dataset_open(&o, cli->diags);
  if (!data) return md_diags_status(cli->diags);
  int num[NUM_VERDICTS] = {0};
  double seconds = 0;
  if (!cli->quiet)
    printf("%-8s %-10s %9s %7s %8s  %s\n", "verdict", "codec", "size", "frames", "length", "file");
  for (int i = 0; i < data->num_items; i++) {
    Look k;
    look(data->items[i].path, md_cli_has(cli, "full-decode"), &k);
    num[k.verdict]++;
    seconds += k.seconds;
    if (!cli->quiet) show(data->items[i].path, &k);
  }
  printf("%d videos, %.1f s: %d good, %d damaged, %d broken\n", data->num_items, seconds, num[GOOD],
         num[DAMAGED], num[BROKEN]);
  if (num[BROKEN])
    md_error(cli->diags, E0840, MD_IN_FILE(o.path), "%d of %d videos cannot be used", num[BROKEN],
             data->num_items);
  md_dataset_destroy(data);
  return md_diags_status(cli->diags);
}

static md_status shapes(md_cli *cli) {
  md_shapes_options o = {.folder = md_cli_get(cli, "output")};
  int64_t videos = 12, size = 96, seed = 0;
  double seconds = 4;
  if (!md_cli_args(cli, 1, 1, "shapes takes options only") ||
      !md_cli_int(cli, "videos", 1, 100000, &videos) || !md_cli_int(cli, "size", 16, 1024, &size) ||
      !md_cli_int(cli, "seed", 0, INT64_MAX, &seed) ||
      !md_cli_float(cli, "seconds", 0.5, 600, &seconds))
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
  if (!cli->quiet)
    printf("wrote %d videos of %dx%d, %g s each, and videos.csv with their motions to %s\n",
           o.videos, o.size, o.size, o.seconds, o.folder);
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
      !md_cli_int(cli, "seed", 0, INT64_MAX, &seed))
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
  if (!cli->quiet)
    printf("wrote %d videos of %dx%d, %d frames each, and %s.csv with their motions to %s\n",
           o.videos, o.size, o.size, MD_MINI_FRAMES, md_mini_splits[split], o.folder);
  return MD_OK;
}

static md_status run(md_cli *cli) {
  const char *verb = cli->num_args > 0 ? cli->arg[0] : "";
  if (strcmp(verb, "check") == 0) return check(cli);
  if (strcmp(verb, "shapes") == 0) return shapes(cli);
  if (strcmp(verb, "mini") == 0) return mini(cli);
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc dataset: takes check, shapes or mini, not '%s'",
           md_clean(verb, clean, sizeof clean));
  md_hint(cli->diags, "usage: modistc dataset %s", cli->command->usage);
  return MD_ERR_USAGE;
}

static const char *const examples[] = {
    "modistc dataset check videos", "modistc dataset check train.csv --full-decode",
    "modistc dataset shapes -o shapes --videos=12 --size=96 --seconds=4",
    "modistc dataset mini -o mini --split=test", NULL};
const md_command md_cmd_dataset = {
    .name = "dataset",
    .group = "Train",
    .usage = "check PATH [--full-decode] | shapes -o DIR [--videos=N --size=N --seconds=T --seed=K]"
             " | mini -o DIR [--split=NAME --videos=N --size=N --seed=K --start=K]",
    .doc = "check the videos of a data set, or make a small one",
    .examples = examples,
    .options = dataset_options,
    .run = run};
