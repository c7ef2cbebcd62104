// SPDX-License-Identifier: Apache-2.0
// dataset flow: the motion maps of a data set, once, before training.
#include "modistc/modistc.h"

#include "runtime/train/train.h"
#include "runtime/video/motion.h"

#include <string.h>
#include <unistd.h>

typedef struct Show {
  md_stop *stop;
  bool quiet, tty;
  double shown_s;
} Show;

static void line(const md_maps_progress *p, char *to, size_t size) {
  int done = p->made + p->kept + p->failed, worked = p->made + p->failed;
  double left = worked ? p->seconds / worked * (p->videos - done) : 0;
  int64_t s = (int64_t)left;
  int n = snprintf(to, size, "flow  %d/%d videos (%d kept, %d failed)  %lld frames  %.1f frame/s",
                   done, p->videos, p->kept, p->failed, (long long)p->frames,
                   p->seconds > 0 ? (double)p->frames / p->seconds : 0);
  if (worked && n > 0 && (size_t)n < size)
    snprintf(to + n, size - (size_t)n, "  ETA %02lld:%02lld:%02lld", (long long)(s / 3600),
             (long long)(s / 60 % 60), (long long)(s % 60));
}

// On a terminal one line that is drawn anew, elsewhere a line now and then.
static bool tick(void *ctx, const md_maps_progress *p) {
  Show *s = ctx;
  double every = s->tty ? 0.2 : 30;
  if (!s->quiet && p->seconds - s->shown_s >= every) {
    char text[200];
    line(p, text, sizeof text);
    fprintf(stderr, s->tty ? "\r\033[K%s" : "%s\n", text);
    s->shown_s = p->seconds;
  }
  return !md_stop_asked(s->stop);
}

static bool read_options(md_cli *cli, md_maps_options *o) {
  int64_t jobs = md_pool_default();
  if (!md_cli_args(cli, 2, 2, "flow takes a folder of videos or a list of them") ||
      !md_cli_map_rule(cli, &o->rule) || !md_cli_int(cli, "workers", 1, 256, &jobs))
    return false;
  o->folder = md_cli_get(cli, "output");
  if (!o->folder || !*o->folder) {
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc dataset flow: no folder to write maps to");
    md_hint(cli->diags, "modistc dataset flow %s -o maps", cli->arg[1]);
    return false;
  }
  o->jobs = (int)jobs;
  return true;
}

static md_status finish(md_cli *cli, const md_maps_options *o, const md_maps_progress *p,
                        int signal) {
  if (!cli->quiet)
    printf(
        "%d of %d videos have %s maps in %s: %d made, %d kept, %d failed; %lld frames in %.1f s\n",
        p->made + p->kept, p->videos, md_map_kind_names[o->rule.kind], o->folder, p->made, p->kept,
        p->failed, (long long)p->frames, p->seconds);
  if (signal) {
    printf("stopped by %s; the same command goes on\n", strsignal(signal));
    return MD_STOPPED;
  }
  if (p->failed) {
    md_error(cli->diags, E0852, MD_IN_FILE(cli->arg[1]), "%d of %d videos have no motion maps",
             p->failed, p->videos);
    md_hint(cli->diags, "%s/quarantine.txt lists them; training leaves them out", o->folder);
  }
  return md_diags_status(cli->diags);
}

bool md_cli_maps_named(md_cli *cli) {
  const char *folder = md_cli_get(cli, "maps");
  if (!folder || *folder) return true;
  md_error(cli->diags, E0401, MD_NOWHERE, "--maps names no folder");
  md_hint(cli->diags, "--maps=DIR");
  return false;
}

bool md_cli_map_rule(md_cli *cli, md_map_rule *r) {
  int64_t lag = 0, side = 0;
  double scale = 0, clamp = 0;
  int kind = md_cli_choice(cli, "kind", md_map_kind_names, MD_MAP_EDGE);
  if (kind < 0 || !md_cli_float(cli, "sobel-scale", 1e-3, 1e3, &scale) ||
      !md_cli_float(cli, "clamp", 1e-3, 1e4, &clamp) || !md_cli_int(cli, "lag", 1, 60, &lag) ||
      !md_cli_int(cli, "short-side", 16, 1024, &side))
    return false;
  *r = (md_map_rule){.kind = (md_map_kind)kind,
                     .lag30 = (int)lag,
                     .short_side = (int)side,
                     .scale = (float)scale,
                     .clamp = (float)clamp};
  return true;
}

md_status md_dataset_flow(md_cli *cli) {
  md_maps_options o = {0};
  if (!read_options(cli, &o)) return MD_ERR_USAGE;
  md_dataset *set = md_dataset_open(
      &(md_dataset_options){.path = cli->arg[1], .prefix = md_cli_get(cli, "prefix")}, cli->diags);
  if (!set) return md_diags_status(cli->diags);
  Show show = {.stop = md_stop_create(), .quiet = cli->quiet, .tty = isatty(STDERR_FILENO)};
  o.set = set;
  o.tick = tick;
  o.ctx = &show;
  md_maps_progress p;
  bool ok = md_maps_make(&o, &p, cli->diags);
  int signal = md_stop_asked(show.stop);
  md_stop_destroy(show.stop);
  if (show.tty && !cli->quiet) fputs("\r\033[K", stderr);
  md_status status = ok ? finish(cli, &o, &p, signal) : md_diags_status(cli->diags);
  md_dataset_destroy(set);
  return status;
}
