// SPDX-License-Identifier: Apache-2.0
// One SVG, which any browser shows: curves of losses, a panel for each term, a line for each run,
// dotted where guessing would be; and under them the sheet of what the networks see (sheet.c). Each point is the mean of a span of steps, so that a long run does
// not become a long file.
#include "runtime/train/probe.h"

#include "base/file.h"
#include "base/json_tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS = 120, PANEL_W = 300, PANEL_H = 190, LEFT = 44, TOP = 40, GAP = 26, PER_ROW = 3 };
enum { LOSS, CHANCE = 1 + MD_NUM_TERMS, NUM_CURVES };  // loss, its terms, what guessing gives
#define MAX_LOG ((int64_t)1 << 32)
// Told apart by people who see few colours (Okabe and Ito).
static const char *const colors[] = {"#0072b2", "#d55e00", "#009e73",
                                     "#cc79a7", "#e69f00", "#56b4e9"};

typedef struct Run {
  const char *name;
  int64_t num, cap;
  double (*row)[NUM_CURVES];  // [num], NaN: the run has no such term
} Run;

static const char *key_of(int curve, char buf[32]) {
  if (curve == LOSS) return "loss";
  if (curve == CHANCE) return "chance";
  snprintf(buf, 32, "loss_%s", md_term_names[curve - 1]);
  return buf;
}

static bool read_line(Run *r, const char *path, int line, char *text, md_diags *d) {
  md_arena *a = md_arena_create();
  const md_tree *t = md_json_read(path, text, strlen(text), E0885, a, NULL);
  double row[NUM_CURVES];
  char buf[32];
  for (int i = 0; i < NUM_CURVES; i++)
    if (!md_tree_float(md_tree_get(t, key_of(i, buf)), &row[i])) row[i] = NAN;
  md_arena_destroy(a);
  if (isnan(row[LOSS]))
    return md_error(d, E0885, (md_place){.file = path, .line = line},
                    "is not a step of a run, which is a JSON object with a number 'loss'");
  if (r->num == r->cap) {
    r->cap = r->cap ? 2 * r->cap : 256;
    void *more = realloc(r->row, (size_t)r->cap * sizeof *r->row);
    if (!more) md_out_of_memory((size_t)r->cap * sizeof *r->row);
    r->row = more;
  }
  memcpy(r->row[r->num++], row, sizeof row);
  return true;
}

static bool read_run(Run *r, const char *dir, md_arena *a, md_diags *d) {
  const char *slash = strrchr(dir, '/');
  r->name = slash && slash[1] ? slash + 1 : dir;
  const char *path = md_format(a, "%s/log.jsonl", dir);
  char *text, *next = NULL;
  size_t len;
  bool ok = md_file_read(path, MAX_LOG, E0885, d, &text, &len);
  if (!ok) {
    md_hint(d, "name the folder of a run: 'modistc train' writes log.jsonl to run.dir");
    return false;
  }
  int line = 1;
  for (char *p = strtok_r(text, "\n", &next); ok && p; p = strtok_r(NULL, "\n", &next))
    ok = read_line(r, path, line++, p, d);
  free(text);
  if (!ok) md_hint(d, "remove the line, if only the log was damaged");
  return ok && (r->num || md_error(d, E0885, MD_IN_FILE(path), "holds no steps"));
}

static bool has_curve(const Run *r, int num, int curve) {
  for (int i = 0; i < num; i++)
    for (int64_t n = 0; n < r[i].num; n++)
      if (!isnan(r[i].row[n][curve])) return true;
  return false;
}

// The mean of each of at most POINTS equal spans; nothing where the run has no such term.
static void put_curve(md_text *to, const Run *r, int curve, double steps, double top,
                      const char *style) {
  int64_t points = MD_MIN(r->num, POINTS);
  md_text path = {0};
  for (int64_t i = 0; i < points; i++) {
    int64_t lo = i * r->num / points, hi = (i + 1) * r->num / points;
    double sum = 0;
    for (int64_t n = lo; n < hi; n++) sum += r->row[n][curve];
    double y = sum / (double)(hi - lo), x = (double)(lo + hi + 1) / 2;
    if (isnan(y)) continue;
    md_put(&path, "%.1f,%.1f ", x / steps * (double)PANEL_W,
           (double)PANEL_H * (1 - fmin(y / top, 1)));
  }
  if (path.len) md_put(to, "<polyline points=\"%s\" %s/>\n", path.s, style);
  md_text_free(&path);
}

static void put_panel(md_text *to, const Run *r, int num, int curve) {
  double steps = 1, top = 0;
  for (int i = 0; i < num; i++) {
    steps = fmax(steps, (double)r[i].num);
    for (int64_t n = 0; n < r[i].num; n++) {
      top = fmax(top, r[i].row[n][curve]);  // fmax skips NaN
      if (curve != LOSS) top = fmax(top, r[i].row[n][CHANCE]);
    }
  }
  top = fmax(ceil(top), 1);
  char buf[32];
  md_put(to, "<rect width=\"%d\" height=\"%d\" fill=\"#fff\" stroke=\"#bbb\"/>\n", PANEL_W,
         PANEL_H);
  md_put(to, "<text x=\"0\" y=\"-7\" font-weight=\"bold\">%s</text>\n", key_of(curve, buf));
  md_put(to, "<text x=\"-6\" y=\"10\" text-anchor=\"end\">%g</text>", top);
  md_put(to, "<text x=\"-6\" y=\"%d\" text-anchor=\"end\">0</text>", PANEL_H);
  md_put(to, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">step %.0f</text>\n", PANEL_W,
         PANEL_H + 14, steps);
  for (int i = 0; i < num; i++) {
    char style[120];
    const char *color = colors[i % MD_COUNT(colors)];
    snprintf(style, sizeof style, "fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\"", color);
    put_curve(to, &r[i], curve, steps, top, style);
    if (curve == LOSS) continue;
    snprintf(style, sizeof style, "fill=\"none\" stroke=\"%s\" stroke-dasharray=\"2 3\"", color);
    put_curve(to, &r[i], CHANCE, steps, top, style);
  }
}

static void put_curves(md_text *to, const Run *r, int num, int *w, int *h) {
  int panels = 0, curves[NUM_CURVES];
  for (int c = 0; c < CHANCE; c++)
    if (has_curve(r, num, c)) curves[panels++] = c;
  int rows = (panels + PER_ROW - 1) / PER_ROW, columns = MD_MIN(panels, PER_ROW);
  *w = columns * (PANEL_W + LEFT) + GAP;
  *h = TOP + rows * (PANEL_H + TOP) + 18 * num;
  for (int i = 0; i < panels; i++) {
    md_put(to, "<g transform=\"translate(%d %d)\">\n", LEFT + i % PER_ROW * (PANEL_W + LEFT),
           TOP + i / PER_ROW * (PANEL_H + TOP));
    put_panel(to, r, num, curves[i]);
    md_put(to, "</g>\n");
  }
  for (int i = 0; i < num; i++) {
    int y = TOP + rows * (PANEL_H + TOP) + 18 * i;
    md_put(to, "<path d=\"M%d %dh24\" stroke=\"%s\" stroke-width=\"3\"/><text x=\"%d\" y=\"%d\">",
           LEFT, y - 4, colors[i % MD_COUNT(colors)], LEFT + 32, y);
    md_svg_put_text(to, r[i].name);
    md_put(to, "%s</text>\n", i ? "" : " (dotted: the loss of guessing)");
  }
}

bool md_svg_save(const md_text *body, int w, int h, const char *path, md_diags *d) {
  md_text svg = {0};
  md_put(&svg,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\""
         " viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"11\">\n"
         "<rect width=\"%d\" height=\"%d\" fill=\"#fafafa\"/>\n",
         w, h, w, h);
  md_put_bytes(&svg, body->s, body->len);
  md_put(&svg, "</svg>\n");
  bool ok = md_file_save(path, svg.s, svg.len, d);
  md_text_free(&svg);
  return ok;
}

void md_svg_put_text(md_text *to, const char *s) {
  char clean[200];
  for (s = md_clean(s, clean, sizeof clean); *s; s++)
    if (strchr("<>&\"", *s)) md_put(to, "&#%d;", *s);
    else md_put(to, "%c", *s);
}

bool md_picture_save(const char *const *run_dir, int num_runs, const md_sheet_options *sheet,
                     const char *path, md_diags *d) {
  md_arena *a = md_arena_create();
  Run *run = md_calloc((size_t)num_runs + 1, sizeof *run);
  bool ok = true;
  for (int i = 0; ok && i < num_runs; i++) ok = read_run(&run[i], run_dir[i], a, d);
  md_text body = {0};
  int w = 0, h = 0, sheet_w = 0, sheet_h = 0;
  if (ok && num_runs) put_curves(&body, run, num_runs, &w, &h);
  if (ok && sheet) {
    h += 12;
    md_put(&body, "<g transform=\"translate(%d %d)\">\n", LEFT, h);
    ok = md_sheet_put(sheet, &body, &sheet_w, &sheet_h, d);
    md_put(&body, "</g>\n");
    w = MD_MAX(w, LEFT + sheet_w + GAP);
  }
  ok = ok && md_svg_save(&body, w, h + sheet_h, path, d);
  md_text_free(&body);
  for (int i = 0; i < num_runs; i++) free(run[i].row);
  free(run);
  md_arena_destroy(a);
  return ok;
}
