// SPDX-License-Identifier: Apache-2.0
// A roofline (Williams, Waterman and Patterson, CACM 2009) as an SVG: each kernel by what it computes for a byte of its
// operands and results, and by the rate of its fastest call, as large as its share of the time. Two things lie above the
// roof: filtered convolutions, whose FLOPs are those of the direct one, and what reads from a cache.
#include "modistc/bench.h"
#include "runtime/train/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEFT = 52, TOP = 20, WIDTH = 560, HEIGHT = 340, KEY_W = 260, FOOT = 44 };
// Logarithms to base 2 of what the axes show: FLOPs per byte, and how far below the highest rate.
enum { LEAST_INTENSITY = -4, MOST_INTENSITY = 12, OCTAVES = 10, TICK = 2 };

// By the beginnings of lowerings, the first that fits. Colours of Okabe and Ito, for people who see few.
static const struct {
  const char *begins, *color;
} families[] = {
    {"conv3d direct", "#0072b2"},         {"conv3d winograd weight gradient", "#cc79a7"},
    {"conv3d winograd", "#d55e00"},       {"conv3d weight gradient", "#009e73"},
    {"conv3d both gradients", "#e69f00"}, {"", "#777777"}};

static int family_of(const md_bench_kernel *k) {
  int i = 0;
  while (strncmp(k->report->lowering, families[i].begins, strlen(families[i].begins)) != 0) i++;
  return i;
}

static double bytes_of(const md_bench_kernel *k) {
  return k->report->work.memory_bytes + k->report->work.cache_bytes;
}
static double flops_per_s(const md_bench_kernel *k) {
  return k->report->work.flops / (1e-3 * k->measured_ms);
}

void md_bench_roofline_add(md_bench *b, const md_bench_line *l) {
  for (int i = 0; i < l->num_kernels; i++) MD_PUSH(b->dot, b->num_dots, b->cap_dots, l->kernel[i]);
}

// The highest rate shown: filtered convolutions get to three or four times that of multiply-adds.
static double top_of(const md_bench *b) {
  return 1e9 * exp2(ceil(log2(4 * b->roof.f32_flops / 1e9)));
}

static double x_of(double intensity) {
  double at = (log2(intensity) - LEAST_INTENSITY) / (MOST_INTENSITY - LEAST_INTENSITY);
  return LEFT + WIDTH * fmin(fmax(at, 0), 1);
}
static double y_of(const md_bench *b, double rate) {
  return TOP + HEIGHT * fmin(fmax(log2(top_of(b) / rate) / OCTAVES, 0), 1);
}

static void put_axes(const md_bench *b, md_text *to) {
  md_put(to, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#fff\" stroke=\"#bbb\"/>\n",
         LEFT, TOP, WIDTH, HEIGHT);
  for (int i = LEAST_INTENSITY; i <= MOST_INTENSITY; i += TICK) {
    double x = x_of(exp2(i));
    md_put(to, "<path d=\"M%.1f %dv%d\" stroke=\"#eee\"/>", x, TOP, HEIGHT);
    md_put(to,
           i < 0 ? "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">1/%g</text>\n"
                 : "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%g</text>\n",
           x, TOP + HEIGHT + 15, exp2(abs(i)));
  }
  for (int i = 0; i <= OCTAVES; i += TICK) {
    double rate = top_of(b) / exp2(i), y = y_of(b, rate);
    md_put(to, "<path d=\"M%d %.1fh%d\" stroke=\"#eee\"/>", LEFT, y, WIDTH);
    md_put(to, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%g</text>\n", LEFT - 6, y + 4,
           rate / 1e9);
  }
  md_put(to, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">FLOP per byte</text>\n",
         LEFT + WIDTH / 2, TOP + HEIGHT + 32);
  md_put(to,
         "<text transform=\"translate(13 %d) rotate(-90)\" text-anchor=\"middle\">GFLOP/s</text>\n",
         TOP + HEIGHT / 2);
}

static void put_roof(const md_bench *b, double rate, const char *what, md_text *to) {
  double bandwidth = b->roof.read_bytes, least = top_of(b) / exp2(OCTAVES);
  double start = fmax(exp2(LEAST_INTENSITY), least / bandwidth);
  md_put(to, "<polyline points=\"%.1f,%.1f %.1f,%.1f %d,%.1f\" fill=\"none\" stroke=\"#333\"/>\n",
         x_of(start), y_of(b, start * bandwidth), x_of(rate / bandwidth), y_of(b, rate),
         LEFT + WIDTH, y_of(b, rate));
  md_put(to, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%.0f GFLOP/s, %s</text>\n",
         LEFT + WIDTH - 4, y_of(b, rate) - 5, rate / 1e9, what);
}

static void put_roofs(const md_bench *b, md_text *to) {
  put_roof(b, b->roof.f32_flops, "f32", to);
  if (b->precision == MD_BF16 && b->roof.bf16_flops > 0)
    put_roof(b, b->roof.bf16_flops, "bf16", to);
  double low = 8 * top_of(b) / exp2(OCTAVES);  // where the slope is, away from the corner
  md_put(to, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.0f GB/s</text>\n",
         x_of(low / b->roof.read_bytes) - 8, y_of(b, low), b->roof.read_bytes / 1e9);
}

// The longest first, so that they hide no others. A kernel that only moves has no rate.
static void put_dots(const md_bench *b, double all_ms, md_text *to) {
  for (int i = 0; i < b->num_dots; i++) {
    const md_bench_kernel *k = &b->dot[i];
    if (k->report->work.flops <= 0 || bytes_of(k) <= 0) continue;
    double rate = flops_per_s(k), radius = fmax(60 * sqrt(k->measured_ms / all_ms), 1.5);
    md_put(to, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%.1f\" fill=\"%s\" fill-opacity=\".6\"><title>",
           x_of(k->report->work.flops / bytes_of(k)), y_of(b, rate), radius,
           families[family_of(k)].color);
    md_svg_put_text(to, k->report->region);
    md_put(to, ", %s: %.3f ms, %.1f GFLOP/s, %.1f GB/s</title></circle>\n", k->report->lowering,
           k->measured_ms, rate / 1e9, bytes_of(k) / (1e6 * k->measured_ms));
  }
}

static void put_key(const double ms[], double all_ms, md_text *to) {
  int x = LEFT + WIDTH + 18, y = TOP + 12;
  for (int i = 0; i < MD_COUNT(families); i++) {
    if (ms[i] <= 0) continue;
    const char *name = families[i].begins;
    md_put(to,
           "<circle cx=\"%d\" cy=\"%d\" r=\"6\" fill=\"%s\"/><text x=\"%d\" y=\"%d\">%s, "
           "%.0f%%</text>\n",
           x, y - 4, families[i].color, x + 12, y, *name ? name : "others", 100 * ms[i] / all_ms);
    y += 20;
  }
  md_put(to, "<text x=\"%d\" y=\"%d\">areas and percents are shares of</text>\n", x - 6, y + 6);
  md_put(to, "<text x=\"%d\" y=\"%d\">%.4g ms, the sum of fastest calls</text>\n", x - 6, y + 20,
         all_ms);
}

bool md_bench_roofline_save(md_bench *b, const char *path) {
  double ms[MD_COUNT(families)] = {0}, all_ms = 0;
  if (b->num_dots) qsort(b->dot, (size_t)b->num_dots, sizeof *b->dot, md_bench_longer);
  for (int i = 0; i < b->num_dots; i++) {
    ms[family_of(&b->dot[i])] += b->dot[i].measured_ms;
    all_ms += b->dot[i].measured_ms;
  }
  md_text body = {0};
  put_axes(b, &body);
  put_dots(b, all_ms, &body);
  put_roofs(b, &body);
  put_key(ms, all_ms, &body);
  bool ok = md_svg_save(&body, LEFT + WIDTH + KEY_W, TOP + HEIGHT + FOOT, path, b->cli->diags);
  md_text_free(&body);
  return ok;
}
