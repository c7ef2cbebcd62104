// SPDX-License-Identifier: Apache-2.0
// What a person sees while a run goes on. On a terminal two lines that are drawn anew:
//
//   train  ep 0/10  step 31/60 [=====>    ] 52%  loss 7.41 (v 2.31 m 2.02 vm 3.08 mv 0.00, chance 4.16)
//          top1 61%  lr 0.0412  1.62 step/s  26 clip/s  data-wait 2%  mem 31.2 GiB  ETA 00:06:29
//
// Elsewhere a line of key=value now and then. At the end a table of means over equal spans.
#include "runtime/train/train.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_ROWS = 20, BAR = 20, LINE_CHARS = 320 };
static const double redraw_s = 0.1;
static const double memory_of_rates = 0.1;  // weight of the newest step in rates and ETA

typedef struct Row {
  int64_t first, num;  // steps
  md_measure sum;
} Row;

struct md_progress {
  md_progress_options o;
  int64_t shown_ns;
  bool is_drawn;
  double step_s, wait_s;  // running means
  Row row[MAX_ROWS];
  int num_rows;
  int64_t span;  // steps of a full row
};

static void add_measure(md_measure *sum, const md_measure *m) {
  md_measure before = *sum;
  *sum = *m;
  sum->loss += before.loss;
  sum->chance += before.chance;
  sum->supervised_top1 += before.supervised_top1;
  for (int i = 0; i < MD_NUM_TERMS; i++) {
    sum->term[i] += before.term[i];
    sum->top1[i] += before.top1[i];
  }
}

// When all rows are full, neighbours join.
static void add_row(md_progress *p, const md_measure *m) {
  Row *last = p->num_rows ? &p->row[p->num_rows - 1] : NULL;
  if (last && last->num == p->span && p->num_rows == MAX_ROWS) {
    for (ptrdiff_t i = 0; i < MAX_ROWS / 2; i++) {
      Row joined = p->row[2 * i];
      add_measure(&joined.sum, &p->row[2 * i + 1].sum);
      joined.num += p->row[2 * i + 1].num;
      p->row[i] = joined;
    }
    p->num_rows = MAX_ROWS / 2;
    p->span *= 2;
    last = &p->row[p->num_rows - 1];
  }
  if (!last || last->num == p->span) {
    last = &p->row[p->num_rows++];
    *last = (Row){.first = m->step};
  }
  add_measure(&last->sum, m);
  last->num++;
}

static double mean_top1(const md_measure *m) {
  if (m->has_top1) return m->supervised_top1;
  double sum = 0;
  int num = 0;
  for (int i = 0; i < MD_NUM_TERMS; i++) {
    if (!m->has_term[i]) continue;
    sum += m->top1[i];
    num++;
  }
  return num ? sum / num : 0;
}

static void put_terms(md_text *t, const md_measure *m) {
  if (!m->has_term[0]) return;
  md_put(t, " (");
  for (int i = 0; i < MD_NUM_TERMS; i++)
    if (m->has_term[i]) md_put(t, "%s%s %.3f", i ? " " : "", md_term_names[i], m->term[i]);
  if (m->has_chance) md_put(t, ", chance %.3f", m->chance);
  md_put(t, ")");
}

// Cut to the width of the terminal: a line that wraps cannot be drawn over.
static void put_line(const char *text) {
  struct winsize w = {0};
  int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 1 ? w.ws_col - 1 : 100;
  fprintf(stderr, "\r\033[K%.*s", width, text);
}

static void draw(md_progress *p, const md_measure *m, double eta_s) {
  md_text t = {0};
  char bar[BAR + 1], eta[32], mem[MD_FLOAT_CHARS];
  int done = (int)(BAR * m->step / MD_MAX(p->o.steps, 1));
  for (int i = 0; i < BAR; i++) bar[i] = i < done ? '=' : i == done ? '>' : ' ';
  bar[BAR] = 0;
  md_put(&t, "train  epoch %.2f  step %lld/%lld [%s] %lld%%  loss %.4f", m->epoch,
         (long long)m->step, (long long)p->o.steps, bar,
         (long long)(100 * m->step / MD_MAX(p->o.steps, 1)), m->loss);
  put_terms(&t, m);
  if (p->is_drawn) fputs("\033[1A", stderr);
  put_line(t.s);
  fputc('\n', stderr);
  t.len = 0;
  md_duration_text(eta_s, eta, sizeof eta);
  double step_s = p->step_s + p->wait_s;
  md_put(&t,
         "       top1 %.0f%%  lr %.4g  %.2f step/s  %.1f clip/s  data-wait %.0f%%  mem %s  ETA %s",
         100 * mean_top1(m), m->lr, 1 / step_s, (double)p->o.clips / step_s,
         100 * p->wait_s / step_s, md_bytes_text((double)md_memory_resident(), mem), eta);
  put_line(t.s);
  fflush(stderr);
  md_text_free(&t);
  p->is_drawn = true;
}

static void beat(const md_progress *p, const md_measure *m, double eta_s) {
  char now[32];
  time_t seconds = time(NULL);
  struct tm parts;
  strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &parts));
  double step_s = p->step_s + p->wait_s;
  md_text t = {0};
  md_put(&t, "time=%s epoch=%.3f step=%lld/%lld loss=%.4f", now, m->epoch, (long long)m->step,
         (long long)p->o.steps, m->loss);
  for (int i = 0; i < MD_NUM_TERMS; i++)
    if (m->has_term[i]) md_put(&t, " %s=%.3f", md_term_names[i], m->term[i]);
  if (m->has_chance) md_put(&t, " chance=%.3f", m->chance);
  md_put(&t,
         " top1=%.2f lr=%.4g step_per_s=%.3g clip_per_s=%.3g data_wait=%.2f mem_mib=%.0f "
         "eta_s=%.0f\n",
         mean_top1(m), m->lr, 1 / step_s, (double)p->o.clips / step_s, p->wait_s / step_s,
         (double)md_memory_resident() / 0x1p20, eta_s);
  fputs(t.s, stderr);
  md_text_free(&t);
}

void md_duration_text(double seconds, char *to, size_t size) {
  int64_t s = seconds > 0 && seconds < 1e12 ? (int64_t)seconds : 0;
  if (s >= 86400) {
    snprintf(to, size, "%lldd %02lldh", (long long)(s / 86400), (long long)(s / 3600 % 24));
  } else {
    snprintf(to, size, "%02lld:%02lld:%02lld", (long long)(s / 3600), (long long)(s / 60 % 60),
             (long long)(s % 60));
  }
}

md_progress *md_progress_create(const md_progress_options *o) {
  md_progress *p = md_calloc(1, sizeof *p);
  p->o = *o;
  p->span = 1;
  return p;
}

void md_progress_destroy(md_progress *p) { free(p); }

void md_progress_step(md_progress *p, const md_measure *m) {
  add_row(p, m);
  bool is_first = p->step_s == 0;
  double weight = is_first ? 1 : memory_of_rates;
  p->step_s += weight * (MD_MAX((double)m->step_ns, 1) / 1e9 - p->step_s);
  p->wait_s += weight * ((double)m->wait_ns / 1e9 - p->wait_s);
  if (p->o.quiet) return;
  int64_t now = md_now_ns();
  double since = (double)(now - p->shown_ns) / 1e9;
  if (!is_first && m->step < p->o.steps && since < (p->o.tty ? redraw_s : p->o.every_s)) return;
  p->shown_ns = now;
  double eta_s = (double)(p->o.steps - m->step) * (p->step_s + p->wait_s);
  if (p->o.tty) {
    draw(p, m, eta_s);
  } else {
    beat(p, m, eta_s);
  }
}

void md_progress_warnings(md_progress *p, md_diags *d) {
  if (p->o.quiet || md_diags_errors(d) || !md_diags_warnings(d)) return;
  md_progress_end(p);
  md_diags_print(d, stderr, false);
  md_diags_clear(d);
}

void md_progress_end(md_progress *p) {
  if (p->is_drawn) fputc('\n', stderr);
  p->is_drawn = false;
}

void md_progress_table(const md_progress *p, FILE *to) {
  if (!p->num_rows) return;
  const md_measure *any = &p->row[0].sum;
  fprintf(to, "%11s %9s", "steps", "loss");
  for (int i = 0; i < MD_NUM_TERMS; i++)
    if (any->has_term[i]) fprintf(to, " %8s %7s", md_term_names[i], "chance");
  fprintf(to, " %6s\n", "top1");
  for (int r = 0; r < p->num_rows; r++) {
    const Row *row = &p->row[r];
    const md_measure *m = &row->sum;
    double num = (double)row->num;
    char steps[48];
    snprintf(steps, sizeof steps, "%lld-%lld", (long long)row->first,
             (long long)(row->first + row->num - 1));
    fprintf(to, "%11s %9.4f", steps, m->loss / num);
    for (int i = 0; i < MD_NUM_TERMS; i++)
      if (m->has_term[i]) fprintf(to, " %8.4f %7.4f", m->term[i] / num, m->chance / num);
    fprintf(to, " %5.1f%%\n", 100 * mean_top1(m) / num);
  }
  if (any->has_chance) fprintf(to, "chance = ln(1 + negatives counted): the loss of guessing\n");
}
