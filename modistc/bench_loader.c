// SPDX-License-Identifier: Apache-2.0
// bench loader: how many clips a second come out of the loader, and where the processor's time goes.
// Batches are taken as fast as they come, or with --step-ms as slowly as a step would take them; the
// wait that is left is the time that training would stand still.
#include "modistc/bench.h"

#include "runtime/train/train.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

typedef struct Run {
  md_loader *loader;
  int64_t clips_a_sample, batch, rounds;
  double step_ms;
  double seconds, wait_s, cpu_s;  // of the counted rounds
  md_loader_work total;
} Run;

static double cpu_seconds(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void pretend_step(double ms) {
  int64_t ns = (int64_t)(ms * 1e6);
  struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  while (ns && nanosleep(&t, &t) != 0) continue;
}

static bool take(Run *r, int64_t batches) {
  md_batch batch;
  for (int64_t i = 0; i < batches; i++) {
    if (md_loader_next(r->loader, &batch) != MD_OK) return false;
    pretend_step(r->step_ms);
  }
  return true;
}

// b - a
static md_loader_work less(md_loader_work b, const md_loader_work *a) {
  b.samples -= a->samples;
  b.frames -= a->frames;
  for (int i = 0; i < MD_NUM_WORKS; i++) b.work_ns[i] -= a->work_ns[i];
  return b;
}

static double work_ms(const md_loader_work *w) {
  double sum = 0;
  for (int i = 0; i < MD_NUM_WORKS; i++) sum += (double)w->work_ns[i] / 1e6;
  return sum;
}

enum { MAX_CODECS = 64 };
typedef struct Codecs {
  md_loader_work row[MAX_CODECS];
  int num;
} Codecs;

static void read_codecs(md_loader *l, Codecs *c) {
  c->num = 0;
  while (c->num < MAX_CODECS && md_loader_work_of(l, c->num, &c->row[c->num])) c->num++;
}

static void sum_up(Run *r, Codecs *now, const Codecs *before) {
  for (int i = 0; i < now->num; i++) {
    if (i < before->num) now->row[i] = less(now->row[i], &before->row[i]);
    r->total.samples += now->row[i].samples;
    r->total.frames += now->row[i].frames;
    for (int k = 0; k < MD_NUM_WORKS; k++) r->total.work_ns[k] += now->row[i].work_ns[k];
  }
}

static double clip_ms(const Run *r, const md_loader_work *w, double ms) {
  return ms / (double)MD_MAX(1, w->samples * r->clips_a_sample);
}

static void put_table(const Run *r, const Codecs *codecs, FILE *to) {
  int64_t samples = r->rounds * r->batch;
  double clips = (double)(samples * r->clips_a_sample);
  const md_loader_work *t = &r->total;
  fprintf(to, "%.0f clips of %lld samples in %.2f s: %.1f clips/s\n", clips, (long long)samples,
          r->seconds, clips / r->seconds);
  fprintf(to, "%.2f ms of processor time a clip: %.1f clips/s on one core\n",
          r->cpu_s * 1e3 / clips, clips / r->cpu_s);
  fprintf(to, "%.1f %% of the time the caller waited for data\n\n", 100 * r->wait_s / r->seconds);
  fprintf(to, "%-10s %10s %8s\n", "work", "ms a clip", "share");
  for (int i = 0; i < MD_NUM_WORKS; i++) {
    double ms = (double)t->work_ns[i] / 1e6;
    fprintf(to, "%-10s %10.3f %7.1f%%\n", md_work_names[i], clip_ms(r, t, ms),
            100 * ms / work_ms(t));
  }
  fprintf(to, "\n%-12s %8s %14s %10s %18s\n", "codec", "samples", "frames/sample", "ms a clip",
          "clips/s on a core");
  for (int i = 0; i < codecs->num; i++) {
    const md_loader_work *w = &codecs->row[i];
    if (!w->samples) continue;
    double ms = clip_ms(r, w, work_ms(w));
    fprintf(to, "%-12s %8lld %14.1f %10.2f %18.1f\n", w->codec, (long long)w->samples,
            (double)w->frames / (double)w->samples, ms, 1e3 / ms);
  }
}

static void put_work(md_json *j, const Run *r, const md_loader_work *w) {
  md_json_key(j, "samples");
  md_json_int(j, w->samples);
  md_json_key(j, "frames");
  md_json_int(j, w->frames);
  md_json_key(j, "ms_a_clip");
  md_json_begin(j, '{');
  for (int i = 0; i < MD_NUM_WORKS; i++)
    md_json_put_float(j, md_work_names[i], clip_ms(r, w, (double)w->work_ns[i] / 1e6));
  md_json_end(j, '}');
}

static void put_json(const Run *r, const Codecs *codecs, md_json *j) {
  double clips = (double)(r->rounds * r->batch * r->clips_a_sample);
  md_json_begin(j, '{');
  md_json_key(j, "what");
  md_json_str(j, "loader");
  md_json_key(j, "clips");
  md_json_int(j, (int64_t)clips);
  md_json_put_float(j, "seconds", r->seconds);
  md_json_put_float(j, "clips_per_s", clips / r->seconds);
  md_json_put_float(j, "cpu_ms_a_clip", r->cpu_s * 1e3 / clips);
  md_json_put_float(j, "waited", r->wait_s / r->seconds);
  put_work(j, r, &r->total);
  md_json_key(j, "codecs");
  md_json_begin(j, '[');
  for (int i = 0; i < codecs->num; i++) {
    if (!codecs->row[i].samples) continue;
    md_json_begin(j, '{');
    md_json_key(j, "codec");
    md_json_str(j, codecs->row[i].codec);
    put_work(j, r, &codecs->row[i]);
    md_json_end(j, '}');
  }
  md_json_end(j, ']');
  md_json_end(j, '}');
}

static bool measure(Run *r, int64_t warmup, md_bench *b) {
  static Codecs before, now;
  if (!take(r, warmup)) return false;
  read_codecs(r->loader, &before);
  md_loader_stats at_start = md_loader_stats_now(r->loader);
  double cpu = cpu_seconds();
  int64_t begin = md_now_ns();
  if (!take(r, r->rounds)) return false;
  r->seconds = (double)(md_now_ns() - begin) / 1e9;
  r->cpu_s = cpu_seconds() - cpu;
  r->wait_s = (double)(md_loader_stats_now(r->loader).wait_ns - at_start.wait_ns) / 1e9;
  read_codecs(r->loader, &now);
  sum_up(r, &now, &before);
  if (b->format == MD_BENCH_JSON) put_json(r, &now, &b->report);
  else put_table(r, &now, b->out);
  return true;
}

// Settings: those of the command line over the file's, or over a model with the paper's clips.
static md_config *settings(md_cli *cli) {
  char **override = MD_NEW_ARRAY(cli->arena, char *, cli->num_args + 2);
  int num = 0;
  const char *file = md_cli_get(cli, "config");
  if (!file) override[num++] = md_strdup(cli->arena, "model.name=modist-r3d50");
  for (int i = 1; i < cli->num_args; i++)
    override[num++] = i == 1 && !strchr(cli->arg[i], '=')
                          ? md_format(cli->arena, "data.train=%s", cli->arg[i])
                          : cli->arg[i];
  return md_config_load(file, override, num, cli->diags);
}

static md_dataset *open_data(md_cli *cli, const md_config *c) {
  const char *path = md_config_text(c, "data.train"), *prefix = md_config_text(c, "data.prefix");
  if (*path)
    return md_dataset_open(&(md_dataset_options){.path = path, .prefix = *prefix ? prefix : NULL},
                           cli->diags);
  md_error(cli->diags, E0209, MD_NOWHERE, "no videos are named to load");
  md_hint(cli->diags, "for example: modistc bench loader videos data.workers=2");
  return NULL;
}

bool md_bench_loader(md_bench *b) {
  md_cli *cli = b->cli;
  Run r = {0};
  if (!md_cli_float(cli, "step-ms", 0, 1e6, &r.step_ms)) return false;
  md_config *c = settings(cli);
  md_step s;
  md_dataset *data = c && md_train_step(c, &s, cli->diags) ? open_data(cli, c) : NULL;
  r.loader = data ? md_train_loader(c, &s, data, &(md_feed_options){0}, cli->diags) : NULL;
  bool ok = r.loader != NULL;
  if (ok) {
    r.clips_a_sample = s.mode == MD_MODE_MODIST ? MD_NUM_SLOTS : 2;
    r.batch = s.batch;
    r.rounds = b->rounds ? b->rounds : md_ceil_div(data->num_items, s.batch);
    ok = md_bench_begin(b) && measure(&r, MD_MAX(b->warmup, 0), b);
  }
  md_loader_destroy(r.loader);
  md_dataset_destroy(data);
  md_config_destroy(c);
  return ok;
}
