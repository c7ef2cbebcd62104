// SPDX-License-Identifier: Apache-2.0
// A report of benchmarks as a table, JSON (schema modist.bench/2, all samples kept) or CSV.
#include "modistc/bench.h"

#include <string.h>
#include <unistd.h>

static const char csv_head[] =
    "what,side,rounds,median_ms,mad_ms,low_ms,high_ms,min_ms,gflop_per_s,of_roof,ratio,repro\n";

// The processor's name as the system tells it.
static const char *cpu_model(md_arena *a) {
  static const char key[] = "model name";
  const char *model = "unknown";
  char line[256];
  FILE *f = fopen("/proc/cpuinfo", "re");
  while (f && fgets(line, sizeof line, f)) {
    const char *colon = strchr(line, ':');
    if (strncmp(line, key, sizeof key - 1) != 0 || !colon) continue;
    line[strcspn(line, "\n")] = 0;
    model = md_strdup(a, colon + 1 + strspn(colon + 1, " "));
    break;
  }
  if (f) fclose(f);
  return model;
}

int md_bench_threads(const md_bench *b) { return b->threads ? (int)b->threads : md_pool_default(); }

// --- what was measured on

static void begin_json(md_bench *b, const char *model, int cores) {
  md_json *j = &b->report;
  char llvm[32];
  md_cpu_llvm_version(llvm, sizeof llvm);
  md_json_begin(j, '{');
  md_json_put_str(j, "schema", MD_BENCH_SCHEMA);
  md_json_put_str(j, "version", MODIST_VERSION);
  md_json_key(j, "machine");
  md_json_begin(j, '{');
  md_json_put_str(j, "cpu", model);
  md_json_put_int(j, "cores", cores);
  md_json_put_int(j, "threads", md_bench_threads(b));
  md_json_put_str(j, "instructions", b->cpu->name);
  md_json_put_str(j, "llvm", llvm);
  if (b->device_title) md_json_put_str(j, "device", b->device_title);
  md_json_end(j, '}');
  if (b->roof.f32_flops > 0) {
    md_json_key(j, "roof");
    md_json_begin(j, '{');
    md_json_put_float(j, "f32_gflop_per_s", b->roof.f32_flops / 1e9);
    if (b->roof.bf16_flops > 0) md_json_put_float(j, "bf16_gflop_per_s", b->roof.bf16_flops / 1e9);
    md_json_put_float(j, "read_gb_per_s", b->roof.read_bytes / 1e9);
    md_json_end(j, '}');
  }
  md_json_key(j, "rows");
  md_json_begin(j, '[');
}

static void begin_table(md_bench *b, const char *model, int cores) {
  fprintf(b->out, "machine  %s, %d cores, %s; %d thread%s; modist %s\n", model, cores, b->cpu->name,
          md_bench_threads(b), md_bench_threads(b) == 1 ? "" : "s", MODIST_VERSION);
  if (b->device_title) fprintf(b->out, "device   %s\n", b->device_title);
  if (b->roof.f32_flops == 0) return;
  fprintf(b->out, "roof     %.1f GFLOP/s in f32 multiply-adds", b->roof.f32_flops / 1e9);
  if (b->roof.bf16_flops > 0)
    fprintf(b->out, ", %.1f in dot products of bf16", b->roof.bf16_flops / 1e9);
  fprintf(b->out, "; %.1f GB/s read from memory\n", b->roof.read_bytes / 1e9);
}

bool md_bench_begin(md_bench *b) {
  if (b->has_begun) return true;
  b->has_begun = true;
  if (b->wants_roof && !md_cpu_measure_roof(b->cpu, (int)b->threads, &b->roof, b->cli->diags))
    return false;
  const char *model = cpu_model(b->cli->arena);
  int cores = md_pool_default();
  if (b->format == MD_BENCH_JSON) begin_json(b, model, cores);
  else if (b->format == MD_BENCH_CSV) fputs(csv_head, b->out);
  else begin_table(b, model, cores);
  return true;
}

void md_bench_end(md_bench *b) {
  if (b->format != MD_BENCH_JSON) return;
  md_json_end(&b->report, ']');
  md_json_end(&b->report, '}');
  fprintf(b->out, "%s\n", b->report.out.s);
}

// --- lines

typedef struct Figures {
  double median, mad, low, high, min;
  double gflop_per_s, of_roof;  // 0: not known
  double ratio;                 // to the first side
  bool is_noise;                // no difference from the first side can be told
} Figures;

static Figures figures(const md_bench_line *l, int side) {
  const md_samples *s = &l->side[side].samples, *first = &l->side[0].samples;
  Figures f = {
      .median = md_samples_median(s), .mad = md_samples_mad(s), .min = md_samples_quantile(s, 0)};
  md_samples_interval(s, MD_BENCH_CONFIDENCE, &f.low, &f.high);
  f.gflop_per_s = l->gflop / f.median * 1e3;
  f.of_roof = l->roof_ms / f.median;
  f.ratio = f.median / md_samples_median(first);
  f.is_noise = md_samples_p(s, first) >= MD_BENCH_ALPHA;
  return f;
}

// Four digits or more, whatever the size.
static int decimals(double ms) { return ms < 0.1 ? 6 : ms < 10 ? 4 : ms < 1000 ? 2 : 0; }

static void put_table(md_bench *b, const md_bench_line *l) {
  fprintf(b->out, "%s\n", l->what);
  for (int i = 0; i < l->num_sides; i++) {
    if (l->side[i].unmeasured) {
      fprintf(b->out, "  %-8s unmeasured: %s\n", l->side[i].name, l->side[i].unmeasured);
      continue;
    }
    Figures f = figures(l, i);
    int n = decimals(f.median);
    fprintf(b->out, "  %-8s %10.*f ms +-%.*f  95%% [%.*f, %.*f]  n=%d  %8.1f GFLOP/s",
            l->side[i].name, n, f.median, n, f.mad, n, f.low, n, f.high, l->side[i].samples.num,
            f.gflop_per_s);
    if (l->roof_ms > 0) fprintf(b->out, "  %3.0f%% of roof", 100 * f.of_roof);
    if (f.of_roof > 1) fputs(" (from cache)", b->out);
    if (i > 0) fprintf(b->out, "  %.2fx%s", f.ratio, f.is_noise ? " (noise)" : "");
    if (l->side[i].version) fprintf(b->out, "  version %s", l->side[i].version);
    if (l->side[i].note) fprintf(b->out, ", %s", l->side[i].note);
    fputc('\n', b->out);
  }
  if (b->predict) md_bench_put_kernels(b, l);
  fprintf(b->out, "  repro: %s\n", l->repro);
  fflush(b->out);
}

static void put_samples(md_json *j, const md_samples *s) {
  md_json_key(j, "samples_ms");
  md_json_begin(j, '[');
  j->compact = true;  // on one line
  for (int i = 0; i < s->num; i++) md_json_float(j, s->ms[i]);
  md_json_end(j, ']');
  j->compact = false;
}

static void put_side(md_json *j, const md_bench_line *l, int i) {
  const md_bench_side *side = &l->side[i];
  const md_samples *s = &side->samples;
  md_json_key(j, side->name);
  md_json_begin(j, '{');
  if (side->version) md_json_put_str(j, "version", side->version);
  if (side->note) md_json_put_str(j, "note", side->note);
  if (side->unmeasured) {
    md_json_put_str(j, "unmeasured", side->unmeasured);
  } else {
    Figures f = figures(l, i);
    md_json_put_float(j, "median_ms", f.median);
    md_json_put_float(j, "mad_ms", f.mad);
    md_json_put_float(j, "low_ms", f.low);
    md_json_put_float(j, "high_ms", f.high);
    md_json_put_float(j, "min_ms", f.min);
    md_json_put_float(j, "q1_ms", md_samples_quantile(s, 0.25));
    md_json_put_float(j, "q3_ms", md_samples_quantile(s, 0.75));
    md_json_put_float(j, "gflop_per_s", f.gflop_per_s);
    if (l->roof_ms > 0) md_json_put_float(j, "of_roof", f.of_roof);
    put_samples(j, s);
  }
  md_json_end(j, '}');
}

static void put_json(md_bench *b, const md_bench_line *l) {
  md_json *j = &b->report;
  md_json_begin(j, '{');
  md_json_put_str(j, "what", l->what);
  md_json_put_str(j, "repro", l->repro);
  md_json_put_float(j, "gflop", l->gflop);
  if (l->roof_ms > 0) md_json_put_float(j, "roof_ms", l->roof_ms);
  for (int i = 0; i < l->num_sides; i++) put_side(j, l, i);
  if (b->predict) md_bench_put_kernels_json(l, j);
  md_json_end(j, '}');
}

void md_bench_field(FILE *to, const char *text) {
  bool quote = strpbrk(text, ",\"\n") != NULL;
  if (quote) fputc('"', to);
  for (const char *s = text; *s; s++) {
    if (*s == '"') fputc('"', to);
    fputc(*s, to);
  }
  if (quote) fputc('"', to);
}

static void put_csv(md_bench *b, const md_bench_line *l) {
  for (int i = 0; i < l->num_sides; i++) {
    if (l->side[i].unmeasured) continue;
    Figures f = figures(l, i);
    md_bench_field(b->out, l->what);
    fprintf(b->out, ",%s,%d,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,", l->side[i].name,
            l->side[i].samples.num, f.median, f.mad, f.low, f.high, f.min, f.gflop_per_s);
    if (l->roof_ms > 0) fprintf(b->out, "%.4g", f.of_roof);
    fprintf(b->out, ",%.4g,", f.ratio);
    md_bench_field(b->out, l->repro);
    fputc('\n', b->out);
  }
}

void md_bench_put(md_bench *b, const md_bench_line *l) {
  if (b->format == MD_BENCH_JSON) put_json(b, l);
  else if (b->format == MD_BENCH_CSV) put_csv(b, l);
  else put_table(b, l);
}
