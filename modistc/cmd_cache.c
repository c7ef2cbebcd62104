// SPDX-License-Identifier: Apache-2.0
// cache: compiled kernels and records of tuning, kept on disk.
#include "modistc/modistc.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KEY_SHOWN = 12 };

static const md_option cache_options[] = {
    {"older", 0, "DAYS", "prune: remove only what was not used for so many days"},
    {"max-size", 0, "BYTES",
     "prune: what was not used for longest, until the rest needs no more (2G)"},
    {"records", 0, NULL, "prune: remove the records of tuning, too, all of them"},
    {"device", 0, "NAME", "ls, export: records of that device, as h200"},
    {0}};
static const md_option_rule cache_rules[] = {
    {"!:prune", "older max-size records", "only prune removes anything", NULL},
    {"!:ls|export", "device", "only ls and export go through the records", NULL},
    {0}};

// --- objects: files of the folder; nothing else is touched

static bool is_object(const char *name) {
  size_t len = strlen(name);
  return len > 2 && strcmp(name + len - 2, ".o") == 0;
}

typedef struct Object {
  const char *path;
  int64_t bytes, used_ns;  // when last: each hit sets the time of access (base/cache.c)
} Object;

typedef struct Objects {
  Object *at;
  int num, cap;
  int64_t bytes;
} Objects;

static int64_t ns_of(struct timespec t) { return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec; }

static Objects find_objects(md_cli *cli) {
  const char *dir = md_cache_dir(cli->arena);
  DIR *d = dir ? opendir(dir) : NULL;
  Objects all = {0};
  for (struct dirent *e; d && (e = readdir(d));) {
    const char *path = md_format(cli->arena, "%s/%s", dir, e->d_name);
    struct stat s;
    if (!is_object(e->d_name) || lstat(path, &s) != 0 || !S_ISREG(s.st_mode)) continue;
    Object o = {path, s.st_size, MD_MAX(ns_of(s.st_atim), ns_of(s.st_mtim))};
    MD_PUSH(all.at, all.num, all.cap, o);
    all.bytes += o.bytes;
  }
  if (d) closedir(d);
  return all;
}

static void show_objects(md_cli *cli, const char *what, int num, int64_t bytes) {
  const char *dir = md_cache_dir(cli->arena);
  char text[MD_FLOAT_CHARS];
  printf("%s %d objects, %s in %s\n", what, num, md_bytes_text((double)bytes, text),
         dir ? dir : "-");
}

static void sum_up_objects(md_cli *cli) {
  Objects all = find_objects(cli);
  show_objects(cli, "cache:", all.num, all.bytes);
  free(all.at);
}

static int by_use(const void *a, const void *b) {
  const Object *x = a, *y = b;
  int later = (x->used_ns > y->used_ns) - (x->used_ns < y->used_ns);
  return later ? later : strcmp(x->path, y->path);
}

// Those that were not used since then, and then as many as have to go until the rest has no more than `most`
// bytes.
static void remove_objects(md_cli *cli, int64_t since_ns, int64_t most) {
  Objects all = find_objects(cli);
  if (all.num) qsort(all.at, (size_t)all.num, sizeof *all.at, by_use);
  int num = 0;
  int64_t bytes = 0;
  for (int i = 0; i < all.num && (all.at[i].used_ns < since_ns || all.bytes - bytes > most); i++) {
    if (unlink(all.at[i].path) != 0) continue;
    num++;
    bytes += all.at[i].bytes;
  }
  show_objects(cli, "removed", num, bytes);
  if (num < all.num) show_objects(cli, "kept", all.num - num, all.bytes - bytes);
  free(all.at);
}

// --- records

static bool is_wanted(const md_cli *cli, const md_record *r) {
  const char *device = md_cli_get(cli, "device");
  return !device || md_is_named(r->device, device);
}

static void show_record(const md_record *r) {
  char region[60], device[60];
  printf("%.*s  %-13s %-24s %-22s %9.1f us  %-22s %5.1f %%  %s\n", KEY_SHOWN, r->key, r->target,
         md_clean(r->device, device, sizeof device), r->best, r->best_us, r->own,
         r->own_us > 0 ? 100 * (1 - r->best_us / r->own_us) : 0,
         md_clean(r->region, region, sizeof region));
}

static md_status list(md_cli *cli) {
  if (!md_cli_args(cli, 1, 1, "ls takes options only")) return MD_ERR_USAGE;
  md_records *all = md_records_kept(cli->diags);
  int num = 0;
  for (int i = 0; i < all->num; i++) {
    if (!md_records_is_last(all, i) || !is_wanted(cli, &all->row[i])) continue;
    if (!num++)
      printf("%-*s  %-13s %-24s %-22s %12s  %-22s %7s  %s\n", KEY_SHOWN, "key", "target", "device",
             "best way", "time", "untuned", "gain", "first met in");
    show_record(&all->row[i]);
  }
  printf("tuning: %d records\n", num);
  sum_up_objects(cli);
  md_records_destroy(all);
  return MD_OK;
}

static void put_us(double us) {
  if (us >= 0) printf(" %10.1f", us);
  else printf(" %10s", "-");
}

static void explain_way(const char *way, const char *best, double us, double cold, double warm,
                        const char *more) {
  printf("  %-26s", way);
  put_us(us);
  put_us(cold);
  put_us(warm);
  printf("%s%s\n", more, strcmp(way, best) ? "" : "  the best");
}

// The time in a step decides; those of a cold and a warm L2 cache explain it.
static void explain_record(const md_record *r) {
  char text[160], clocks[MD_CLOCKS_CHARS];
  printf("product %s\n  target    %s\n", r->key, r->target);
  printf("  device    %s%s%s\n", md_clean(r->device, text, sizeof text),
         r->clocks ? ", driver " : "", r->clocks ? r->clocks->driver : "");
  printf("  clocks    %s\n", md_clocks_text(r->clocks, clocks));
  printf("  met in    %s\n", md_clean(r->region, text, sizeof text));
  printf("  results   %s\n", r->is_checked ? "were compared" : "were not all compared");
  printf("  %-26s %10s %10s %10s\n", "times in us", "in a step", "L2 cold", "L2 warm");
  explain_way(r->own, r->best, r->own_us, r->own_cold_us, r->own_warm_us, "  untuned");
  for (int i = 0; i < r->num_ways; i++) {
    const md_record_way *w = &r->way[i];
    if (w->failed)
      printf("  %-26s %10s  %s\n", w->way, "failed", md_clean(w->failed, text, sizeof text));
    else explain_way(w->way, r->best, w->us, w->cold_us, w->warm_us, "");
  }
}

static bool explain_object(md_cli *cli, const char *key) {
  const char *dir = md_cache_dir(cli->arena);
  const char *path = dir ? md_format(cli->arena, "%s/%s.o", dir, key) : NULL;
  struct stat s;
  if (!path || strchr(key, '/') || lstat(path, &s) != 0 || !S_ISREG(s.st_mode)) return false;
  char size[MD_FLOAT_CHARS], when[40] = "";
  struct tm t;
  if (localtime_r(&s.st_mtime, &t)) strftime(when, sizeof when, "%Y-%m-%d %H:%M", &t);
  printf("object  %s\n  size      %s\n  made      %s\n"
         "  key       the digest of all that it is made from, and of what made it\n",
         key, md_bytes_text((double)s.st_size, size), when);
  return true;
}

static md_status explain(md_cli *cli) {
  if (!md_cli_args(cli, 2, 2, "explain takes a key, or how it begins")) return MD_ERR_USAGE;
  const char *key = cli->arg[1];
  md_records *all = md_records_kept(cli->diags);
  int num = 0;
  for (int i = 0; i < all->num; i++) {
    if (strncmp(all->row[i].key, key, strlen(key)) != 0 || !md_records_is_last(all, i)) continue;
    explain_record(&all->row[i]);
    num++;
  }
  md_records_destroy(all);
  if (num || explain_object(cli, key)) return MD_OK;
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE, "modistc cache: nothing is kept under '%s'",
           md_clean(key, clean, sizeof clean));
  md_hint(cli->diags,
          "'modistc cache ls' shows the keys of records; objects have names of 32 digits");
  return MD_ERR_USAGE;
}

static void remove_records(md_cli *cli) {
  const char *path = md_records_path(cli->arena);
  if (!path) return;
  if (unlink(path) == 0) printf("removed the records of tuning\n");
  else if (errno == ENOENT) printf("there were no records of tuning\n");
  else md_error(cli->diags, E0801, MD_IN_FILE(path), "%s", strerror(errno));
}

// Without a limit all objects go.
static md_status prune(md_cli *cli) {
  int64_t days = 0, most = md_cli_has(cli, "older") ? INT64_MAX : 0, since_ns = INT64_MIN;
  if (!md_cli_args(cli, 1, 1, "prune takes options only") ||
      !md_cli_int(cli, "older", 1, 36500, &days) || !md_cli_bytes(cli, "max-size", &most))
    return MD_ERR_USAGE;
  if (days) since_ns = ((int64_t)time(NULL) - days * 24 * 3600) * 1000000000;
  remove_objects(cli, since_ns, most);
  if (md_cli_has(cli, "records")) remove_records(cli);
  else {
    int lines = md_records_compact(cli->diags);
    if (lines > 0) printf("removed %d records of tuning that later ones stand in for\n", lines);
  }
  return md_diags_status(cli->diags);
}

static md_status export(md_cli *cli) {
  if (!md_cli_args(cli, 2, 2, "export takes a file, or - for standard output")) return MD_ERR_USAGE;
  md_records *all = md_records_kept(cli->diags);
  md_records some = {0};
  for (int i = 0; i < all->num; i++)
    if (md_records_is_last(all, i) && is_wanted(cli, &all->row[i]))
      MD_PUSH(some.row, some.num, some.cap, all->row[i]);
  bool ok = md_records_save(&some, cli->arg[1], cli->diags);
  if (ok && strcmp(cli->arg[1], "-") != 0 && !cli->quiet)
    printf("wrote %d records to %s\n", some.num, cli->arg[1]);
  free(some.row);
  md_records_destroy(all);
  return ok ? MD_OK : md_diags_status(cli->diags);
}

static bool is_measured(md_cli *cli, const md_records *r) {
  for (int i = 0; i < r->num; i++)
    if (r->row[i].is_predicted)
      return md_error(cli->diags, E0650, MD_IN_FILE(cli->arg[1]),
                      "record %d was predicted: only what was measured is kept", i + 1);
  return true;
}

static md_status import(md_cli *cli) {
  if (!md_cli_args(cli, 2, 2, "import takes a file of records")) return MD_ERR_USAGE;
  md_records *more = md_records_create();
  bool ok = md_records_read(more, cli->arg[1], cli->diags) && is_measured(cli, more) &&
            md_records_keep(more, cli->diags);
  if (ok && !cli->quiet) printf("took %d records from %s\n", more->num, cli->arg[1]);
  md_records_destroy(more);
  return ok ? MD_OK : md_diags_status(cli->diags);
}

static md_status stat_all(md_cli *cli) {
  if (!md_cli_args(cli, 1, 1, "stat takes no argument")) return MD_ERR_USAGE;
  md_records *all = md_records_kept(cli->diags);
  int num = 0, better = 0;
  for (int i = 0; i < all->num; i++) {
    if (!md_records_is_last(all, i)) continue;
    num++;
    better += strcmp(all->row[i].own, all->row[i].best) != 0;
  }
  printf("tuning: %d records, of %d products another way is the best\n", num, better);
  md_records_destroy(all);
  sum_up_objects(cli);
  return MD_OK;
}

static const struct {
  const char *name;
  md_status (*run)(md_cli *cli);
} verbs[] = {{"ls", list},     {"stat", stat_all}, {"explain", explain},
             {"prune", prune}, {"export", export}, {"import", import}};

static md_status run(md_cli *cli) {
  const char *verb = cli->num_args > 0 ? cli->arg[0] : "", *names[MD_COUNT(verbs)];
  for (int i = 0; i < MD_COUNT(verbs); i++) {
    if (strcmp(verb, verbs[i].name) == 0) return verbs[i].run(cli);
    names[i] = verbs[i].name;
  }
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE,
           "modistc cache: takes ls, stat, explain, prune, export or import, not '%s'",
           md_clean(verb, clean, sizeof clean));
  const char *near = md_nearest(verb, names, MD_COUNT(verbs));
  if (near) md_hint(cli->diags, "did you mean 'modistc cache %s'?", near);
  else md_hint(cli->diags, "usage: modistc cache %s", cli->command->usage);
  return MD_ERR_USAGE;
}

static const char *const examples[] = {"modistc cache ls",
                                       "modistc cache explain 5f0c",
                                       "modistc cache export h200.jsonl --device=h200",
                                       "modistc cache prune --max-size=2G",
                                       "modistc cache import h200.jsonl",
                                       NULL};
const md_command md_cmd_cache = {.name = "cache",
                                 .group = "Compile and run",
                                 .usage =
                                     "ls|stat|prune [options] | explain KEY | export|import FILE",
                                 .doc = "compiled kernels and records of tuning, kept on disk",
                                 .examples = examples,
                                 .options = cache_options,
                                 .rules = cache_rules,
                                 .run = run};
