// SPDX-License-Identifier: Apache-2.0
// Trials on a device. A way to make a product is good where it runs: behind what runs before it, with what
// that has left in the caches. So it is measured within the step:
//
//   one step   each product is made its own way, then all others on the same inputs, and what they write
//              is compared; a way that fails is left out, after which the device may have to be opened anew
//   the rest   step after step, each with the next way of every product at once; of each the fastest counts
//
// Steps of all ways alternate, so that what slows the device down does so to all of them.
#include "runtime/exec/exec.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  PIECE = 8 << 20,  // bytes that are compared at the begin and at the end of a tensor
  MAX_FAILURES = 2,
  NONE = -2,        // of an entry: nothing ends with it
  OWN = -1,         // the product is there, made its own way
};
static const double worth = 0.98;  // of the own way's time: less of a gain is chance

// A product: its trials are neighbours.
typedef struct Site {
  int replaced, num_replaced, first, num;  // first: trial of the program
  bool is_checked;
} Site;

// A launch of a step, and what it ends.
typedef struct Entry {
  int launch, site, trial;
} Entry;

typedef struct Piece {
  md_arg arg;
  double *value;  // made the own way
  int64_t num;
  double largest;
} Piece;

typedef struct Tuner {
  const md_program *p;
  const md_tune_options *o;
  md_exec *e;
  const md_gpu_variant *v;
  md_records *to;
  md_gpu_device device;
  Site *site;
  int num_sites, most;  // most: ways of a site
  const char **failed;  // by trial of the program; in the records' arena
  Entry *entry;         // of the step to be done
  int *order, num_entries, cap_entries, cap_order;
  int at;  // entry that runs
  Piece *piece;
  int num_pieces, cap_pieces;
  char differs[160];  // what the way that was just tried is told by; "": nothing
} Tuner;

static void *zeroed(int num, size_t size) {
  void *rows = calloc((size_t)num + 1, size);
  if (!rows) md_out_of_memory((size_t)num * size);
  return rows;
}

// --- sites

static bool overlap(const md_arg *a, const md_arg *b) {
  return a->space == b->space && a->index == b->index && a->offset < b->offset + b->bytes &&
         b->offset < a->offset + a->bytes;
}

// Does launch l write over what it or one before it, from `first` on, reads and none of them had made?
static bool writes_over_input(const md_program *p, int first, int num) {
  int begin = p->launch[first].first_arg;
  const md_launch *last = &p->launch[first + num - 1];
  int end = last->first_arg + last->num_args;
  for (int w = begin; w < end; w++) {
    if (!p->arg[w].write || p->arg[w].space == MD_IN_WORKSPACE) continue;
    for (int r = begin; r < end; r++) {
      if (p->arg[r].write || !overlap(&p->arg[w], &p->arg[r])) continue;
      bool is_made = false;
      for (int k = begin; k < r; k++) is_made |= p->arg[k].write && overlap(&p->arg[k], &p->arg[r]);
      if (!is_made) return true;
    }
  }
  return false;
}

static void find_sites(Tuner *t) {
  const md_program *p = t->p;
  t->site = zeroed(t->v->num_trials, sizeof *t->site);
  for (int i = t->v->first_trial; i < t->v->first_trial + t->v->num_trials; i++) {
    const md_gpu_trial *x = &p->trial[i];
    Site *s = t->num_sites ? &t->site[t->num_sites - 1] : NULL;
    if (!s || s->replaced != x->replaced) {
      s = &t->site[t->num_sites++];
      *s = (Site){.replaced = x->replaced, .num_replaced = x->num_replaced, .first = i};
      s->is_checked = !writes_over_input(p, s->replaced, s->num_replaced);
    }
    s->num++;
    t->most = MD_MAX(t->most, s->num);
  }
}

// The site whose launches begin with `launch`, or NULL.
static Site *site_at(const Tuner *t, int launch) {
  for (int i = 0; i < t->num_sites; i++)
    if (t->site[i].replaced == launch) return &t->site[i];
  return NULL;
}

// --- orders

static void add(Tuner *t, int first, int num, int site, int trial) {
  for (int i = 0; i < num; i++) {
    Entry e = {first + i, site, i == num - 1 ? trial : NONE};
    int n = t->num_entries;
    MD_PUSH(t->order, n, t->cap_order, e.launch);
    MD_PUSH(t->entry, t->num_entries, t->cap_entries, e);
  }
}

static void add_trial(Tuner *t, int site, int trial) {
  const md_gpu_trial *x = &t->p->trial[trial];
  add(t, x->first_launch, x->num_launches, site, trial);
}

// With `way` 0 all products are made their own way; with -1 each every way, its own at first and last.
static void make_order(Tuner *t, int way) {
  int begin = t->v->first_launch, end = begin + t->v->num_launches;
  t->num_entries = 0;
  for (int i = begin; i < end;) {
    Site *s = site_at(t, i);
    int num = s ? s->num_replaced : 1, site = s ? (int)(s - t->site) : 0;
    int trial = s && way > 0 && way <= s->num ? s->first + way - 1 : OWN;
    if (trial >= 0 && !t->failed[trial]) add_trial(t, site, trial);
    else add(t, i, num, site, s && way < 0 ? OWN : NONE);
    for (int k = 0; way < 0 && s && s->is_checked && k < s->num; k++) {
      if (t->failed[s->first + k]) continue;
      add_trial(t, site, s->first + k);
      if (k == s->num - 1) add(t, i, num, site, NONE);
    }
    i += num;
  }
  md_exec_set_order(t->e, t->order, t->num_entries);
}

// --- comparing

static void forget_pieces(Tuner *t) {
  for (int i = 0; i < t->num_pieces; i++) free(t->piece[i].value);
  t->num_pieces = 0;
}

// As numbers, malloc'ed; NULL: the device has failed.
static double *values_of(Tuner *t, const md_arg *a, int64_t *num) {
  const void *at = md_exec_arg(t->e, a);
  if (!at) return NULL;
  *num = a->bytes / md_element_bytes(a->dtype);
  double *x = zeroed((int)*num, sizeof *x);
  for (int64_t i = 0; i < *num; i++) x[i] = md_element_load(a->dtype, at, i);
  return x;
}

static bool keep_piece(Tuner *t, md_arg a, int64_t from, int64_t bytes) {
  a.offset += from;
  a.bytes = bytes;
  Piece x = {.arg = a, .value = values_of(t, &a, &x.num)};
  if (!x.value) return false;
  for (int64_t i = 0; i < x.num; i++) x.largest = fmax(x.largest, fabs(x.value[i]));
  MD_PUSH(t->piece, t->num_pieces, t->cap_pieces, x);
  return true;
}

// Blocks of channels with some that nobody counts hold anything there.
static bool is_comparable(const md_arg *a) {
  return a->write && a->space != MD_IN_WORKSPACE && a->dtype != MD_NO_DTYPE &&
         (!a->block || (a->rank > 1 && a->dim[1] % a->block == 0));
}

static bool keep_own(Tuner *t, const Site *s) {
  forget_pieces(t);
  for (int l = s->replaced; l < s->replaced + s->num_replaced; l++) {
    const md_launch *x = &t->p->launch[l];
    for (int k = x->first_arg; k < x->first_arg + x->num_args; k++) {
      const md_arg *a = &t->p->arg[k];
      if (!is_comparable(a)) continue;
      int64_t head = MD_MIN(a->bytes, PIECE), tail = MD_MIN(a->bytes - head, PIECE);
      if (!keep_piece(t, *a, 0, head) || (tail && !keep_piece(t, *a, a->bytes - tail, tail)))
        return false;
    }
  }
  return true;
}

// Sums in another order, then a rounding: of bf16 eight of its steps; of f32 what so many roundings of up to
// 2^20 terms, a random walk, add up to. Both of the largest value.
static double tolerance_of(md_dtype t) {
  return t == MD_BF16 ? ldexp(8, -8) : t == MD_F64 ? ldexp(8, -43) : ldexp(8, -14);
}

static bool compare(Tuner *t) {
  t->differs[0] = '\0';
  for (int i = 0; i < t->num_pieces; i++) {
    const Piece *x = &t->piece[i];
    int64_t num;
    double *y = values_of(t, &x->arg, &num), off = 0;
    if (!y) return false;
    for (int64_t k = 0; k < num; k++) {
      bool same = y[k] == x->value[k] || (isnan(y[k]) && isnan(x->value[k]));
      off = fmax(off, same ? 0 : isfinite(y[k] - x->value[k]) ? fabs(y[k] - x->value[k]) : INFINITY);
    }
    free(y);
    if (off > tolerance_of(x->arg.dtype) * x->largest)
      snprintf(t->differs, sizeof t->differs, "'%.60s' is off by %.3g, its largest value is %.3g",
               x->arg.name ? x->arg.name : "?", off, x->largest);
  }
  return true;
}

// The first line of what was said, without its place and code.
static const char *keep(Tuner *t, const char *text) {
  const char *begin = strstr(text, "]: ");
  if (begin) text = begin + strlen("]: ");
  return md_strndup(t->to->arena, text, strcspn(text, "\n"));
}

static bool watch(void *ctx, md_exec *e, int launch, bool before) {
  (void)e, (void)launch;
  Tuner *t = ctx;
  const Entry *x = &t->entry[t->at];
  if (before) return true;
  t->at++;
  if (x->trial == OWN) return keep_own(t, &t->site[x->site]);
  if (x->trial < 0) return true;
  if (!compare(t)) return false;
  if (t->differs[0]) t->failed[x->trial] = keep(t, t->differs);
  return true;
}

// --- steps

static bool open_device(Tuner *t, md_diags *d) {
  md_exec_options o = t->o->exec;
  o.time = true;
  t->e = md_exec_create(t->p, &o, d);
  return t->e && (!t->o->set_inputs || t->o->set_inputs(t->o->ctx, t->e, d));
}

// The trial that entry number `at` belongs to; < 0: it is the step's own.
static int trial_of(const Tuner *t, int at) {
  while (at < t->num_entries && t->entry[at].trial == NONE) at++;
  return at < t->num_entries ? t->entry[at].trial : OWN;
}

// All ways are tried once. After a failure the device may be of no use: it is opened anew. When the step's own
// launches fail, they do so again or it was the device.
static bool check_all(Tuner *t, md_diags *d) {
  for (int own_failures = 0;;) {
    md_diags *said = md_diags_create();
    t->at = 0;
    md_exec_set_tap(t->e, watch, t);
    make_order(t, -1);
    bool ok = md_exec_step(t->e, said);
    int trial = ok ? OWN : trial_of(t, t->at);
    md_exec_set_order(t->e, NULL, 0);
    md_exec_set_tap(t->e, NULL, NULL);
    forget_pieces(t);
    if (!ok && trial >= 0) {
      const char *text = md_diags_errors(said) ? md_diags_text(said) : "the device has failed";
      t->failed[trial] = keep(t, text);
      md_log(MD_LOG_EXEC, MD_LEVEL_WARN, "%s of %s: %s", t->p->trial[trial].way,
             t->p->launch[t->p->trial[trial].replaced].name, t->failed[trial]);
    }
    md_diags_destroy(said);
    if (ok) return true;
    md_exec_destroy(t->e);
    t->e = NULL;
    if (!open_device(t, d)) return false;
    if (trial < 0 && (own_failures++ == MAX_FAILURES || !md_exec_step(t->e, d)))
      return md_diags_errors(d)
                 ? false
                 : md_error(d, E0647, MD_NOWHERE, "%s fails now and then", t->p->name);
  }
}

static bool measure_all(Tuner *t, int64_t start, md_diags *d) {
  int of = t->o->rounds * (t->most + 1);
  for (int i = 0; i < of; i++) {
    bool is_late = (double)(md_now_ns() - start) > t->o->seconds * 1e9;
    if (is_late && i > t->most) break;
    make_order(t, i % (t->most + 1));
    if (!md_exec_step(t->e, d)) return false;
    if (t->o->told) t->o->told(t->o->ctx, i + 1, of);
  }
  return true;
}

// --- results

static double time_of(const Tuner *t, int first, int num) {
  const md_launch_time *time = md_exec_times(t->e);
  double ns = 0;
  for (int i = first; i < first + num; i++) {
    if (!time[i].calls) return -1;
    ns += (double)time[i].min_ns;
  }
  return ns / 1e3;
}

static void choose(md_record *r) {
  r->best = r->own;
  r->best_us = r->own_us;
  for (int i = 0; i < r->num_ways; i++) {
    const md_record_way *w = &r->way[i];
    if (w->failed || w->us < 0 || w->us >= r->best_us || w->us >= worth * r->own_us) continue;
    r->best = w->way;
    r->best_us = w->us;
  }
}

// What is said of trials first .. first + num of the program, all of one product.
static md_record record_of(md_records *to, const md_program *p, const md_gpu_variant *v,
                           const char *device, int first, int num) {
  const md_gpu_trial *x = &p->trial[first];
  md_record r = {.key = md_strdup(to->arena, x->key),
                 .target = md_strdup(to->arena, v->target),
                 .device = md_strdup(to->arena, device),
                 .region = md_strdup(to->arena, p->launch[x->replaced].name),
                 .own = md_strdup(to->arena, x->own),
                 .num_ways = num};
  r.way = MD_NEW_ARRAY(to->arena, md_record_way, num + 1);
  for (int i = 0; i < num; i++)
    r.way[i] = (md_record_way){.way = md_strdup(to->arena, p->trial[first + i].way), .us = -1};
  return r;
}

static void put_records(Tuner *t) {
  for (int i = 0; i < t->num_sites; i++) {
    const Site *s = &t->site[i];
    md_record r = record_of(t->to, t->p, t->v, t->device.name, s->first, s->num);
    r.is_checked = s->is_checked;
    r.own_us = time_of(t, s->replaced, s->num_replaced);
    for (int k = 0; k < s->num; k++) {
      const md_gpu_trial *x = &t->p->trial[s->first + k];
      r.way[k].failed = t->failed[s->first + k];
      if (!r.way[k].failed) r.way[k].us = time_of(t, x->first_launch, x->num_launches);
    }
    choose(&r);
    MD_PUSH(t->to->row, t->to->num, t->to->cap, r);
  }
}

// --- all of it

static bool nothing_to_tune(const md_program *p, const char *where, md_diags *d) {
  md_error(d, E0448, p->path ? MD_IN_FILE(p->path) : MD_NOWHERE, "%s has no trials for %s", p->name,
           where);
  md_hint(d, "modistc compile ... --trials -o FILE.mdx");
  return false;
}

bool md_tune(const md_program *p, const md_tune_options *o, md_records *to, md_diags *d) {
  int64_t start = md_now_ns();
  int index;
  Tuner t = {.p = p, .o = o, .to = to};
  if (!md_device_parse(o->exec.device ? o->exec.device : "cuda:0", &index, d)) return false;
  if (index < 0) return nothing_to_tune(p, "the CPU", d);
  if (!md_gpu_require(index, &t.device, d)) return false;
  t.v = md_gpu_variant_for(p, t.device.sm);
  if (!t.v || !t.v->num_trials) return nothing_to_tune(p, t.device.name, d);
  t.failed = zeroed(p->num_trials, sizeof *t.failed);
  find_sites(&t);
  bool ok = open_device(&t, d) && check_all(&t, d) && measure_all(&t, start, d);
  if (ok) put_records(&t);
  md_exec_destroy(t.e);
  free(t.piece);
  free(t.entry);
  free(t.order);
  free(t.site);
  free(t.failed);
  return ok;
}

static double predicted(const md_gpu_variant *v, int first, int num) {
  double us = 0;
  for (int i = 0; i < num; i++) us += v->predicted_us[first - v->first_launch + i];
  return us;
}

bool md_tune_predicted(const md_program *p, md_records *to, md_diags *d) {
  int before = to->num;
  for (const md_gpu_variant *v = p->variant; v < p->variant + p->num_variants; v++) {
    for (int i = v->first_trial, num; v->predicted_for && i < v->first_trial + v->num_trials; i += num) {
      const md_gpu_trial *x = &p->trial[i];
      num = 1;
      while (i + num < v->first_trial + v->num_trials && x[num].replaced == x->replaced) num++;
      md_record r = record_of(to, p, v, v->predicted_for, i, num);
      r.is_predicted = true;
      r.own_us = predicted(v, x->replaced, x->num_replaced);
      for (int k = 0; k < num; k++)
        r.way[k].us = predicted(v, x[k].first_launch, x[k].num_launches);
      choose(&r);
      MD_PUSH(to->row, to->num, to->cap, r);
    }
  }
  return to->num > before || nothing_to_tune(p, "any device that is described", d);
}
