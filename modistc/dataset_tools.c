// SPDX-License-Identifier: Apache-2.0
// dataset check, index and stat: what is in a set of videos, row by row, as an index, and in sum.
// Each looks at the videos in parallel and reports them in the order of the set.
#include "modistc/modistc.h"

#include "base/file.h"
#include "runtime/video/video.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum Form { TABLE, JSON, CSV } Form;

typedef struct Tool {
  md_cli *cli;
  md_dataset *data;
  Form form;
  int64_t workers;
  int num[MD_NUM_VERDICTS];
  double seconds;
  md_json json;
} Tool;

static bool open_tool(Tool *t, md_cli *cli) {
  static const char *const forms[] = {"table", "json", "csv", NULL};
  char what[80];
  *t = (Tool){.cli = cli, .workers = md_pool_default()};
  snprintf(what, sizeof what, "%s takes a folder of videos or a list of them", cli->arg[0]);
  int form = md_cli_choice(cli, "format", forms, TABLE);
  if (form < 0 || !md_cli_args(cli, 2, 2, what) || !md_cli_int(cli, "workers", 1, 64, &t->workers))
    return false;
  t->form = (Form)form;
  md_dataset_options o = {.path = cli->arg[1], .prefix = md_cli_get(cli, "prefix")};
  t->data = md_dataset_open(&o, cli->diags);
  return t->data != NULL;
}

static md_status close_tool(Tool *t) {
  md_dataset_destroy(t->data);
  md_text_free(&t->json.out);
  return md_diags_status(t->cli->diags);
}

static void count(Tool *t, const md_survey_row *r) {
  t->num[r->verdict]++;
  t->seconds += r->seconds;
}

static void begin_json(Tool *t, const char *schema) {
  md_json_begin(&t->json, '{');
  md_json_put_str(&t->json, "schema", schema);
}

static void end_json(Tool *t) {
  md_json_put_int(&t->json, "videos", t->data->num_items);
  for (int i = 0; i < MD_NUM_VERDICTS; i++)
    md_json_put_int(&t->json, md_verdict_names[i], t->num[i]);
  md_json_put_float(&t->json, "seconds", t->seconds);
  md_json_end(&t->json, '}');
  puts(t->json.out.s);
}

// --- check

typedef struct Check {
  Tool tool;
  md_text quarantine;
} Check;

static void check_table(const md_survey_row *r) {
  char shown[200], why[256], size[32];
  md_clean(r->path, shown, sizeof shown);
  if (r->why) {
    printf("broken   %-10s %9s %7s %8s  %s: %s\n", "", "", "", "", shown,
           md_clean(r->why->text, why, sizeof why));
    return;
  }
  snprintf(size, sizeof size, "%dx%d", r->w, r->h);
  printf("%-8s %-10s %9s %7lld %7.1fs  %s", md_verdict_names[r->verdict], r->codec, size,
         (long long)r->frames, r->seconds, shown);
  if (r->damaged) printf(" (%lld frames damaged)", (long long)r->damaged);
  if (r->missing) printf(" (%lld frames missing)", (long long)r->missing);
  putchar('\n');
}

static void check_csv(const md_survey_row *r) {
  md_text line = {0};
  char seconds[MD_FLOAT_CHARS];
  md_csv_put(&line, r->path);
  md_put(&line, ",%s,%s,%d,%d,%lld,%s,%lld,%lld,", md_verdict_names[r->verdict], r->codec, r->w,
         r->h, (long long)r->frames, md_float_text(r->seconds, seconds), (long long)r->damaged,
         (long long)r->missing);
  if (r->why) md_csv_put(&line, r->why->text);
  puts(line.s);
  md_text_free(&line);
}

static void check_json(md_json *j, const md_survey_row *r) {
  md_json_begin(j, '{');
  md_json_put_str(j, "path", r->path);
  md_json_put_str(j, "verdict", md_verdict_names[r->verdict]);
  if (r->why) {
    md_json_put_str(j, "reason", r->why->text);
  } else {
    md_json_put_str(j, "codec", r->codec);
    md_json_put_int(j, "width", r->w);
    md_json_put_int(j, "height", r->h);
    md_json_put_int(j, "frames", r->frames);
    md_json_put_float(j, "seconds", r->seconds);
    md_json_put_int(j, "damaged", r->damaged);
    md_json_put_int(j, "missing", r->missing);
  }
  md_json_end(j, '}');
}

static bool check_row(void *ctx, const md_survey_row *r) {
  Check *c = ctx;
  count(&c->tool, r);
  if (r->why) {
    md_csv_put(&c->quarantine, r->path);
    md_put(&c->quarantine, ",");
    md_csv_put(&c->quarantine, r->why->text);
    md_put(&c->quarantine, "\n");
  }
  if (c->tool.form == JSON) check_json(&c->tool.json, r);
  else if (c->tool.form == CSV) check_csv(r);
  else if (!c->tool.cli->quiet) check_table(r);
  return true;
}

md_status md_dataset_check(md_cli *cli) {
  Check c = {0};
  Tool *t = &c.tool;
  if (!open_tool(t, cli)) return md_diags_status(cli->diags);
  if (!md_cli_may_write(cli, "quarantine")) return close_tool(t);
  if (t->form == JSON) {
    begin_json(t, "modist.dataset.check/1");
    md_json_key(&t->json, "rows");
    md_json_begin(&t->json, '[');
  } else if (t->form == CSV) {
    puts("path,verdict,codec,width,height,frames,seconds,damaged,missing,reason");
  } else if (!cli->quiet) {
    printf("%-8s %-10s %9s %7s %8s  %s\n", "verdict", "codec", "size", "frames", "length", "file");
  }
  md_put(&c.quarantine, "path,reason\n");
  md_survey_options o = {.data = t->data,
                         .workers = (int)t->workers,
                         .full_decode = md_cli_has(cli, "full-decode"),
                         .each = check_row,
                         .ctx = &c};
  const char *list = md_cli_get(cli, "quarantine");
  bool ok = md_survey(&o, cli->diags);
  if (ok && t->form == JSON) {
    md_json_end(&t->json, ']');
    end_json(t);
  } else if (ok && t->form == TABLE) {
    printf("%d videos, %.1f s: %d good, %d damaged, %d broken\n", t->data->num_items, t->seconds,
           t->num[MD_GOOD], t->num[MD_DAMAGED], t->num[MD_BROKEN]);
  }
  if (ok && list) md_file_save(list, c.quarantine.s, c.quarantine.len, cli->diags);
  if (t->num[MD_BROKEN])
    md_error(cli->diags, E0840, MD_IN_FILE(cli->arg[1]), "%d of %d videos cannot be used",
             t->num[MD_BROKEN], t->data->num_items);
  md_text_free(&c.quarantine);
  return close_tool(t);
}

// --- index

typedef struct Index {
  Tool tool;
  const char *path, *part;  // rows so far, for a run that was stopped, are in `part`
  md_catalog *before;
  bool want_hash;
  FILE *part_file;
  md_text text;
} Index;

// Runs on several threads; only reads.
static bool is_known(void *ctx, md_survey_row *r) {
  const Index *x = ctx;
  const md_survey_row *old = md_catalog_find(x->before, r->path);
  if (!old || old->bytes != r->bytes || (x->want_hash && !old->has_hash)) return false;
  const char *path = r->path;
  int32_t label = r->label >= 0 ? r->label : old->label;
  *r = *old;
  r->path = path;
  r->label = label;
  return true;
}

static bool index_row(void *ctx, const md_survey_row *r) {
  Index *x = ctx;
  md_diags *d = x->tool.cli->diags;
  count(&x->tool, r);
  if (r->why) {
    md_warning(d, MD_IN_FILE(r->path), "left out: %s", r->why->text);
    return true;
  }
  size_t from = x->text.len;
  if (!md_catalog_put(&x->text, x->path, r, d)) return true;
  size_t len = x->text.len - from;
  if (fwrite(x->text.s + from, 1, len, x->part_file) == len && fflush(x->part_file) == 0)
    return true;
  return md_error(d, E0801, MD_IN_FILE(x->part), "row cannot be written: %s", strerror(errno));
}

// What an earlier run found. A file of another kind is never written over.
static bool read_before(Index *x) {
  md_diags *d = x->tool.cli->diags;
  x->before = md_catalog_create();
  if (access(x->path, F_OK) == 0) {
    char begin[16] = "";
    FILE *f = fopen(x->path, "rb");
    size_t len = f ? fread(begin, 1, sizeof begin, f) : 0;
    if (f) fclose(f);
    if (len && !md_catalog_begins(begin, len)) {
      md_error(d, E0870, MD_IN_FILE(x->path), "is there already and is no index of videos");
      md_hint(d, "name another file with -o");
      return false;
    }
    if (len && !md_catalog_read(x->before, x->path, false, d)) return false;
  }
  return access(x->part, F_OK) != 0 || md_catalog_read(x->before, x->part, true, d);
}

// Holds what is known from the start, so that stopping again loses nothing.
static bool open_part(Index *x) {
  md_diags *d = x->tool.cli->diags;
  md_text known = {0};
  md_put(&x->text, "%s\n", md_catalog_header);
  md_put(&known, "%s\n", md_catalog_header);
  for (int i = 0; i < x->before->num; i++)
    md_catalog_put(&known, x->path, &x->before->row[i], d);  // it was read, so it can be written
  bool ok = md_file_save(x->part, known.s, known.len, d);
  md_text_free(&known);
  if (ok && !(x->part_file = fopen(x->part, "abe")))
    ok = md_error(d, E0801, MD_IN_FILE(x->part), "cannot be written: %s", strerror(errno));
  return ok;
}

md_status md_dataset_index(md_cli *cli) {
  Index x = {.path = md_cli_get(cli, "output"), .want_hash = !md_cli_has(cli, "no-hash")};
  Tool *t = &x.tool;
  if (!x.path) {
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc dataset index: no file to write the index to");
    md_hint(cli->diags, "for example: modistc dataset index videos -o videos.csv");
    return MD_ERR_USAGE;
  }
  if (!open_tool(t, cli)) return md_diags_status(cli->diags);
  x.part = md_format(cli->arena, "%s.part", x.path);
  md_survey_options o = {.data = t->data,
                         .workers = (int)t->workers,
                         .hash = x.want_hash,
                         .known = is_known,
                         .each = index_row,
                         .ctx = &x};
  bool ok = read_before(&x) && open_part(&x) && md_survey(&o, cli->diags);
  if (x.part_file) fclose(x.part_file);
  if (ok) {
    if (t->num[MD_BROKEN] == t->data->num_items)
      md_error(cli->diags, E0840, MD_IN_FILE(cli->arg[1]), "no video of %d can be used",
               t->data->num_items);
    ok = md_diags_errors(cli->diags) == 0;
    // What was found is lost only when it is in its place, or nobody can use it.
    if (!ok || (ok = md_file_save(x.path, x.text.s, x.text.len, cli->diags))) unlink(x.part);
  }
  if (ok && !cli->quiet)
    printf("wrote %s: %d videos, %.2f hours; %d damaged, %d broken and left out\n", x.path,
           t->num[MD_GOOD] + t->num[MD_DAMAGED], t->seconds / 3600, t->num[MD_DAMAGED],
           t->num[MD_BROKEN]);
  md_catalog_destroy(x.before);
  md_text_free(&x.text);
  return close_tool(t);
}

// --- stat

typedef struct Kind {
  char name[40];
  int num;
  double seconds;
} Kind;
typedef struct Kinds {
  const char *what;
  Kind *item;
  int num, cap;
} Kinds;
enum { CODECS, SIZES, RATES, NUM_KINDS, MAX_SHOWN = 10 };
typedef struct Stat {
  Tool tool;
  Kinds kinds[NUM_KINDS];
  double clip_seconds, shortest_s, longest_s;
  char *shortest, *longest;
  int64_t frames, bytes;
  int num_short;
} Stat;

static void add_kind(Kinds *k, const char *name, double seconds) {
  int at = 0;
  while (at < k->num && strcmp(k->item[at].name, name) != 0) at++;
  if (at == k->num) {
    Kind new = {0};
    snprintf(new.name, sizeof new.name, "%s", name);
    MD_PUSH(k->item, k->num, k->cap, new);
  }
  k->item[at].num++;
  k->item[at].seconds += seconds;
}

static int by_number(const void *a, const void *b) {
  const Kind *x = a, *y = b;
  return x->num != y->num ? y->num - x->num : strcmp(x->name, y->name);
}

static bool stat_row(void *ctx, const md_survey_row *r) {
  Stat *s = ctx;
  md_arena *a = s->tool.cli->arena;
  count(&s->tool, r);
  s->bytes += r->bytes;
  if (r->why) return true;
  char name[40];
  s->frames += r->frames;
  s->num_short += r->seconds < s->clip_seconds;
  if (!s->shortest || r->seconds < s->shortest_s) {
    s->shortest_s = r->seconds;
    s->shortest = md_strdup(a, r->path);
  }
  if (!s->longest || r->seconds > s->longest_s) {
    s->longest_s = r->seconds;
    s->longest = md_strdup(a, r->path);
  }
  add_kind(&s->kinds[CODECS], r->codec, r->seconds);
  snprintf(name, sizeof name, "%dx%d", r->w, r->h);
  add_kind(&s->kinds[SIZES], name, r->seconds);
  snprintf(name, sizeof name, "%.4g", r->fps);
  add_kind(&s->kinds[RATES], name, r->seconds);
  return true;
}

static void stat_table(const Stat *s) {
  const Tool *t = &s->tool;
  char bytes[MD_FLOAT_CHARS], path[200];
  printf("videos    %d: %d good, %d damaged, %d broken\n", t->data->num_items, t->num[MD_GOOD],
         t->num[MD_DAMAGED], t->num[MD_BROKEN]);
  printf("length    %.3f hours, %lld frames\n", t->seconds / 3600, (long long)s->frames);
  printf("bytes     %s\n", md_bytes_text((double)s->bytes, bytes));
  if (!s->shortest) return;
  printf("shortest  %.2f s  %s\n", s->shortest_s, md_clean(s->shortest, path, sizeof path));
  printf("longest   %.2f s  %s\n", s->longest_s, md_clean(s->longest, path, sizeof path));
  printf("too short %d: below the %.2f s of a clip, whose last frame then repeats\n", s->num_short,
         s->clip_seconds);
  for (int k = 0; k < NUM_KINDS; k++) {
    printf("\n%-14s %8s %10s\n", s->kinds[k].what, "videos", "hours");
    for (int i = 0; i < MD_MIN(s->kinds[k].num, MAX_SHOWN); i++) {
      const Kind *item = &s->kinds[k].item[i];
      printf("%-14s %8d %10.3f\n", item->name, item->num, item->seconds / 3600);
    }
    if (s->kinds[k].num > MAX_SHOWN) printf("and %d others\n", s->kinds[k].num - MAX_SHOWN);
  }
}

static void stat_csv(const Stat *s) {
  printf("what,value,videos,seconds\n");
  for (int v = 0; v < MD_NUM_VERDICTS; v++)
    printf("verdict,%s,%d,\n", md_verdict_names[v], s->tool.num[v]);
  printf("all,,%d,%.3f\n", s->tool.data->num_items, s->tool.seconds);
  printf("too short,%.4g,%d,\n", s->clip_seconds, s->num_short);
  for (int k = 0; k < NUM_KINDS; k++)
    for (int i = 0; i < s->kinds[k].num; i++) {
      const Kind *item = &s->kinds[k].item[i];
      printf("%s,%s,%d,%.3f\n", s->kinds[k].what, item->name, item->num, item->seconds);
    }
}

static void stat_json(Stat *s) {
  md_json *j = &s->tool.json;
  begin_json(&s->tool, "modist.dataset.stat/1");
  md_json_put_int(j, "frames", s->frames);
  md_json_put_int(j, "bytes", s->bytes);
  md_json_put_float(j, "clip_seconds", s->clip_seconds);
  md_json_put_int(j, "too_short", s->num_short);
  if (s->shortest) {
    md_json_put_str(j, "shortest", s->shortest);
    md_json_put_float(j, "shortest_seconds", s->shortest_s);
    md_json_put_str(j, "longest", s->longest);
    md_json_put_float(j, "longest_seconds", s->longest_s);
  }
  for (int k = 0; k < NUM_KINDS; k++) {
    md_json_key(j, s->kinds[k].what);
    md_json_begin(j, '{');
    for (int i = 0; i < s->kinds[k].num; i++)
      md_json_put_int(j, s->kinds[k].item[i].name, s->kinds[k].item[i].num);
    md_json_end(j, '}');
  }
  end_json(&s->tool);
}

// An index knows everything already.
static bool survey_or_read(Stat *s) {
  md_cli *cli = s->tool.cli;
  char begin[16] = "";
  FILE *f = fopen(cli->arg[1], "rbe");
  size_t len = f ? fread(begin, 1, sizeof begin, f) : 0;
  if (f) fclose(f);
  if (!md_catalog_begins(begin, len)) {
    md_survey_options o = {
        .data = s->tool.data, .workers = (int)s->tool.workers, .each = stat_row, .ctx = s};
    return md_survey(&o, cli->diags);
  }
  md_catalog *c = md_catalog_create();
  bool ok = md_catalog_read(c, cli->arg[1], false, cli->diags);
  for (int i = 0; ok && i < c->num; i++) stat_row(s, &c->row[i]);
  md_catalog_destroy(c);
  return ok;
}

md_status md_dataset_stat(md_cli *cli) {
  Stat s = {.kinds = {{.what = "codec"}, {.what = "size"}, {.what = "rate"}}};
  int64_t span = 64;
  if (!md_cli_int(cli, "span", 1, 1000000, &span)) return MD_ERR_USAGE;
  if (!open_tool(&s.tool, cli)) return md_diags_status(cli->diags);
  s.clip_seconds = (double)span / 30;
  if (survey_or_read(&s)) {
    for (int k = 0; k < NUM_KINDS; k++)
      if (s.kinds[k].num)
        qsort(s.kinds[k].item, (size_t)s.kinds[k].num, sizeof *s.kinds[k].item, by_number);
    if (s.tool.form == JSON) stat_json(&s);
    else if (s.tool.form == CSV) stat_csv(&s);
    else stat_table(&s);
  }
  for (int k = 0; k < NUM_KINDS; k++) free(s.kinds[k].item);
  return close_tool(&s.tool);
}
