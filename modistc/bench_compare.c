// SPDX-License-Identifier: Apache-2.0
// Two reports, line by line: the ratio of the medians, and whether chance alone would explain it.
// Only lines that differ beyond chance count as faster or slower.
#include "modistc/bench.h"

#include "base/file.h"
#include "base/json_tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_REPORT = 256 << 20 };

typedef struct Row {
  const char *what;
  md_samples samples;
} Row;
typedef struct Report {
  const char *path, *machine;
  Row *row;
  const Row **by_name;  // sorted
  int num;
} Report;

static int compare_names(const void *a, const void *b) {
  return strcmp((*(const Row *const *)a)->what, (*(const Row *const *)b)->what);
}

static const Row *find(const Report *r, const char *what) {
  const Row wanted = {.what = what}, *key = &wanted;
  const Row *const *at =
      bsearch(&key, r->by_name, (size_t)r->num, sizeof(const Row *), compare_names);
  return at ? *at : NULL;
}

// --- reading

static bool unfit(md_diags *d, const char *path, const char *why) {
  return md_error(d, E0890, MD_IN_FILE(path), "%s", why);
}

static const char *text_of(const md_tree *map, const char *key) {
  const char *s = md_tree_str(md_tree_get(map, key));
  return s ? s : "unknown";
}

static bool read_row(const md_tree *t, const char *path, md_arena *a, Row *row, md_diags *d) {
  const md_tree *list = md_tree_get(md_tree_get(t, "fused"), "samples_ms");
  if (!list) return true;  // the loader's has no rounds
  const char *what = md_tree_str(md_tree_get(t, "what"));
  if (!what || list->kind != MD_JSON_LIST || list->num == 0)
    return unfit(d, path, "a row has no name, or no list of samples");
  size_t size = strlen(what) + 1;
  row->what = md_clean(what, md_alloc(a, size), size);
  row->samples = (md_samples){.ms = MD_NEW_ARRAY(a, double, list->num), .num = list->num};
  for (int i = 0; i < list->num; i++)
    if (!md_tree_float(&list->item[i], &row->samples.ms[i]) || !(row->samples.ms[i] > 0) ||
        isinf(row->samples.ms[i]))
      return unfit(d, path, "a sample is no positive number");
  return true;
}

static bool read_report(const char *path, md_arena *a, Report *r, md_diags *d) {
  char *text;
  size_t len;
  *r = (Report){.path = path};
  if (!md_file_read(path, MAX_REPORT, E0890, d, &text, &len)) return false;
  const md_tree *t = md_json_read(path, text, len, E0890, a, d);
  free(text);
  if (!t) return false;
  const char *schema = md_tree_str(md_tree_get(t, "schema"));
  if (!schema || strcmp(schema, MD_BENCH_SCHEMA) != 0) {
    char clean[64];
    md_error(d, E0890, MD_IN_FILE(path), "its schema is '%s', but comparing needs " MD_BENCH_SCHEMA,
             schema ? md_clean(schema, clean, sizeof clean) : "none");
    if (schema && strncmp(schema, "modist.", 7) == 0)
      md_hint(d, "reports of other versions do not keep every sample: measure again");
    return false;
  }
  const md_tree *machine = md_tree_get(t, "machine"), *rows = md_tree_get(t, "rows");
  int64_t threads = 0;
  md_tree_int(md_tree_get(machine, "threads"), &threads);
  char cpu[128], level[32], gpu[160] = "";
  const char *device = md_tree_str(md_tree_get(machine, "device"));
  if (device) md_clean(device, gpu, sizeof gpu);
  r->machine =
      md_format(a, "%s, %s, %lld threads%s%s", md_clean(text_of(machine, "cpu"), cpu, sizeof cpu),
                md_clean(text_of(machine, "instructions"), level, sizeof level), (long long)threads,
                device ? "; " : "", gpu);
  if (!rows || rows->kind != MD_JSON_LIST) return unfit(d, path, "it has no list of rows");
  r->row = MD_NEW_ARRAY(a, Row, rows->num + 1);
  r->by_name = MD_NEW_ARRAY(a, const Row *, rows->num + 1);
  for (int i = 0; i < rows->num; i++) {
    Row *row = &r->row[r->num];
    if (!read_row(&rows->item[i], path, a, row, d)) return false;
    if (row->what) r->by_name[r->num++] = row;
  }
  qsort(r->by_name, (size_t)r->num, sizeof(const Row *), compare_names);
  for (int i = 1; i < r->num; i++)
    if (strcmp(r->by_name[i - 1]->what, r->by_name[i]->what) == 0)
      return unfit(d, path, "two rows have the same name");
  return true;
}

// --- judging

typedef struct Pair {
  const Row *a, *b;
  double ratio, p;
  const char *verdict;
  bool is_regression;
} Pair;

static Pair pair_of(const Row *a, const Row *b, double limit) {
  Pair x = {.a = a, .b = b, .verdict = "noise"};
  x.ratio = md_samples_median(&b->samples) / md_samples_median(&a->samples);
  x.p = md_samples_p(&a->samples, &b->samples);
  if (x.p < MD_BENCH_ALPHA && x.ratio != 1) x.verdict = x.ratio > 1 ? "slower" : "faster";
  x.is_regression = x.p < MD_BENCH_ALPHA && x.ratio > 1 + limit;
  if (x.is_regression) x.verdict = "regression";
  return x;
}

// Fewer rounds than this cannot differ beyond chance, whatever they say.
static int least_rounds(void) {
  int num = 1;
  while (md_samples_least_p(num, num) >= MD_BENCH_ALPHA) num++;
  return num;
}

static void warn(const Report *a, const Report *b, const Pair *pair, int num, md_diags *d) {
  if (strcmp(a->machine, b->machine) != 0) {
    md_warning(d, MD_IN_FILE(b->path), "measured on another machine or in another way");
    md_note(d, MD_IN_FILE(a->path), "%s", a->machine);
    md_note(d, MD_IN_FILE(b->path), "%s", b->machine);
  }
  int few = 0;
  for (int i = 0; i < num; i++)
    few += md_samples_least_p(pair[i].a->samples.num, pair[i].b->samples.num) >= MD_BENCH_ALPHA;
  if (few) {
    md_warning(d, MD_NOWHERE, "%d line%s too few rounds to tell a difference from noise", few,
               few == 1 ? " has" : "s have");
    md_hint(d, "--rounds=%d is enough", least_rounds());
  }
  const Report *both[] = {a, b, a};
  for (int i = 0; i < 2; i++) {
    int only = 0;
    for (int k = 0; k < both[i]->num; k++) only += !find(both[i + 1], both[i]->row[k].what);
    if (only)
      md_warning(d, MD_IN_FILE(both[i]->path), "%d line%s not in the other report", only,
                 only == 1 ? " is" : "s are");
  }
}

// --- telling

static void put_table(FILE *to, const Pair *pair, int num) {
  fprintf(to, "%-48s %12s %12s %8s %8s\n", "line", "A ms", "B ms", "B/A", "p");
  for (int i = 0; i < num; i++) {
    const Pair *x = &pair[i];
    fprintf(to, "%-48s %12.5g %12.5g %8.3f %8.2g  %s\n", x->a->what,
            md_samples_median(&x->a->samples), md_samples_median(&x->b->samples), x->ratio, x->p,
            x->verdict);
  }
}

static void put_csv(FILE *to, const Pair *pair, int num) {
  fputs("what,a_ms,b_ms,ratio,p,verdict\n", to);
  for (int i = 0; i < num; i++) {
    const Pair *x = &pair[i];
    md_bench_field(to, x->a->what);
    fprintf(to, ",%.6g,%.6g,%.4g,%.3g,%s\n", md_samples_median(&x->a->samples),
            md_samples_median(&x->b->samples), x->ratio, x->p, x->verdict);
  }
}

static void put_json(FILE *to, const Pair *pair, int num, double limit) {
  md_json j = {0};
  md_json_begin(&j, '{');
  md_json_key(&j, "schema");
  md_json_str(&j, "modist.compare/1");
  md_json_put_float(&j, "max_regress", limit);
  md_json_key(&j, "rows");
  md_json_begin(&j, '[');
  for (int i = 0; i < num; i++) {
    md_json_begin(&j, '{');
    md_json_key(&j, "what");
    md_json_str(&j, pair[i].a->what);
    md_json_put_float(&j, "a_ms", md_samples_median(&pair[i].a->samples));
    md_json_put_float(&j, "b_ms", md_samples_median(&pair[i].b->samples));
    md_json_put_float(&j, "ratio", pair[i].ratio);
    md_json_put_float(&j, "p", pair[i].p);
    md_json_key(&j, "verdict");
    md_json_str(&j, pair[i].verdict);
    md_json_end(&j, '}');
  }
  md_json_end(&j, ']');
  md_json_end(&j, '}');
  fprintf(to, "%s\n", j.out.s);
  md_text_free(&j.out);
}

// "5%" -> 0.05
static bool read_limit(md_cli *cli, double *limit) {
  const char *text = md_cli_get(cli, "max-regress");
  *limit = 0.05;
  if (!text) return true;
  size_t len = strlen(text);
  double percent;
  bool ok = len > 1 && text[len - 1] == '%' &&
            md_parse_float(md_strndup(cli->arena, text, len - 1), &percent) && percent >= 0 &&
            percent <= 1000;
  if (ok) {
    *limit = percent / 100;
    return true;
  }
  char clean[80];
  md_error(cli->diags, E0401, MD_NOWHERE,
           "--max-regress is '%s', but takes a share from 0%% to 1000%%",
           md_clean(text, clean, sizeof clean));
  md_hint(cli->diags, "for example: --max-regress=5%%");
  return false;
}

static bool judge(md_bench *b, const Report *first, const Report *second, double limit) {
  md_cli *cli = b->cli;
  Pair *pair = MD_NEW_ARRAY(cli->arena, Pair, first->num + 1), *worst = NULL;
  int num = 0, bad = 0;
  for (int i = 0; i < first->num; i++) {
    const Row *other = find(second, first->row[i].what);
    if (other) pair[num++] = pair_of(&first->row[i], other, limit);
  }
  if (!num) {
    md_error(cli->diags, E0890, MD_IN_FILE(second->path), "has no line in common with %s",
             first->path);
    md_hint(cli->diags, "lines are compared by name: measure the same thing twice");
    return false;
  }
  if (b->format == MD_BENCH_JSON) put_json(b->out, pair, num, limit);
  else if (b->format == MD_BENCH_CSV) put_csv(b->out, pair, num);
  else put_table(b->out, pair, num);
  warn(first, second, pair, num, cli->diags);
  for (int i = 0; i < num; i++) {
    bad += pair[i].is_regression;
    if (pair[i].is_regression && (!worst || pair[i].ratio > worst->ratio)) worst = &pair[i];
  }
  return !worst || md_error(cli->diags, E0703, MD_IN_FILE(second->path),
                            "%d of %d lines slower by more than %g %%; the most: %s, by %.1f %%",
                            bad, num, 100 * limit, worst->a->what, 100 * (worst->ratio - 1));
}

bool md_bench_compare(md_bench *b) {
  md_cli *cli = b->cli;
  double limit;
  Report r[2];
  if (cli->num_args != 3) {
    md_error(cli->diags, E0401, MD_NOWHERE, "modistc bench compare: needs two reports, not %d",
             cli->num_args - 1);
    md_hint(cli->diags, "for example: modistc bench compare before.json after.json");
    return false;
  }
  if (!read_limit(cli, &limit)) return false;
  for (int i = 0; i < 2; i++)
    if (!read_report(cli->arg[1 + i], cli->arena, &r[i], cli->diags)) return false;
  return judge(b, &r[0], &r[1], limit);
}
