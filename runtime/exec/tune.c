// SPDX-License-Identifier: Apache-2.0
// Trials on a device. A way to make a product is good where it runs: behind what runs before it, with what
// that has left in the caches. So it is measured within the step:
//
//   one step   each product is made its own way, then all others on the same inputs, and what they write
//              is compared; a way that fails is left out, after which the device is opened anew
//   rounds     step after step, each with the next way of every product at once
//
// In a round each way runs once, its own too, so what slows the device down does so to all of them, and a way
// is judged by what it gains in each round.
#include "runtime/exec/exec.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  PIECE = 1 << 20,   // bytes that are compared at the begin and at the end of a tensor
  MAX_FAILURES = 2,  // of the step itself, one after another
  NONE = -2,         // of an entry: nothing ends with it
  OWN = -1,          // the product is there, made its own way
};
// A smaller gain is chance: of the own way's time, and of what events tell apart.
static const double least_share = 0.02, least_us = 1;

// A product: its trials are neighbours.
typedef struct Site {
  int replaced, num_replaced, first, num;  // first: trial of the program
  bool is_over_input;  // what it writes lies over what it reads: it cannot be made twice in a step
  bool is_compared;
  double *own;  // us, by round
} Site;

// A launch of a step, and what it ends.
typedef struct Entry {
  int launch, site, trial;
} Entry;

typedef struct Piece {
  md_arg arg;
  double *value;  // made the own way
  int64_t num;
  double largest;  // of the finite ones
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
  double **us;          // by trial: us, by round
  int64_t *total;       // by launch: ns, of all steps so far
  int num_rounds;       // that are whole
  Entry *entry;         // of the step to be done
  int *order, num_entries, cap_entries, cap_order;
  int at;  // entry that runs
  Piece *piece;
  int num_pieces, cap_pieces;
} Tuner;

static void *zeroed(int64_t num, size_t size) {
  void *rows = calloc((size_t)num + 1, size);
  if (!rows) md_out_of_memory((size_t)num * size);
  return rows;
}

// --- sites

static bool overlap(const md_arg *a, const md_arg *b) {
  return a->space == b->space && a->index == b->index && a->offset < b->offset + b->bytes &&
         b->offset < a->offset + a->bytes;
}

// Does one of the launches write over what one of them reads that none before had made?
static bool writes_over_input(const md_program *p, int first, int num) {
  int begin = p->launch[first].first_arg;
  const md_launch *last = &p->launch[first + num - 1];
  int end = last->first_arg + last->num_args;
  for (int w = begin; w < end; w++) {
    if (!p->arg[w].write || p->arg[w].space == MD_IN_WORKSPACE) continue;
    for (int l = first; l < first + num; l++) {
      const md_launch *reader = &p->launch[l];
      for (int r = reader->first_arg; r < reader->first_arg + reader->num_args; r++) {
        if (p->arg[r].write || !overlap(&p->arg[w], &p->arg[r])) continue;
        bool is_made = false;
        for (int k = begin; k < reader->first_arg; k++)
          is_made |= p->arg[k].write && overlap(&p->arg[k], &p->arg[r]);
        if (!is_made) return true;
      }
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
      s->is_over_input = writes_over_input(p, s->replaced, s->num_replaced);
      s->own = zeroed(t->o->rounds, sizeof *s->own);
    }
    t->us[i] = zeroed(t->o->rounds, sizeof **t->us);
    s->num++;
    if (!s->is_over_input) t->most = MD_MAX(t->most, s->num);
  }
}

// The site whose launches begin with `launch`, or NULL.
static Site *site_at(const Tuner *t, int launch) {
  for (int i = 0; i < t->num_sites; i++)
    if (t->site[i].replaced == launch) return &t->site[i];
  return NULL;
}

static bool is_out(const Tuner *t, const Site *s, int trial) {
  return s->is_over_input || t->failed[trial];
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

// Every product is made every way; at last its own again, for what follows.
static void order_all(Tuner *t) {
  int begin = t->v->first_launch, end = begin + t->v->num_launches;
  t->num_entries = t->at = 0;
  for (int i = begin, num; i < end; i += num) {
    const Site *s = site_at(t, i);
    num = s ? s->num_replaced : 1;
    if (!s || s->is_over_input) {
      add(t, i, num, 0, NONE);
      continue;
    }
    int site = (int)(s - t->site);
    add(t, i, num, site, OWN);
    for (int k = s->first; k < s->first + s->num; k++)
      if (!is_out(t, s, k)) add_trial(t, site, k);
    add(t, i, num, site, NONE);
  }
}

// Every product is made its way number `way`, 0 being its own, where it has one.
static void order_way(Tuner *t, int way) {
  int begin = t->v->first_launch, end = begin + t->v->num_launches;
  t->num_entries = t->at = 0;
  for (int i = begin, num; i < end; i += num) {
    const Site *s = site_at(t, i);
    num = s ? s->num_replaced : 1;
    int site = s ? (int)(s - t->site) : 0, trial = s ? s->first + way - 1 : 0;
    bool tries = s && way > 0 && way <= s->num && !is_out(t, s, trial);
    if (tries) add_trial(t, site, trial);
    else add(t, i, num, site, s && way == 0 ? OWN : NONE);
  }
}

// The trial that the entry at hand belongs to; < 0: it is the step's own.
static int trial_of(const Tuner *t) {
  int at = t->at;
  while (at < t->num_entries && t->entry[at].trial == NONE) at++;
  if (at == t->num_entries || t->entry[at].trial < 0) return OWN;
  const md_gpu_trial *x = &t->p->trial[t->entry[at].trial];
  int launch = t->entry[MD_MIN(t->at, t->num_entries - 1)].launch;
  bool is_its = launch >= x->first_launch && launch < x->first_launch + x->num_launches;
  return is_its ? t->entry[at].trial : OWN;
}

// --- comparing

static void forget_pieces(Tuner *t) {
  for (int i = 0; i < t->num_pieces; i++) free(t->piece[i].value);
  t->num_pieces = 0;
}

// As numbers, malloc'ed; NULL: the device has failed, or there is no memory.
static double *values_of(Tuner *t, const md_arg *a, int64_t *num) {
  const void *at = md_exec_arg(t->e, a);
  if (!at) return NULL;
  *num = a->bytes / md_dtype_size(a->dtype);
  double *x = zeroed(*num, sizeof *x);
  for (int64_t i = 0; i < *num; i++) x[i] = md_element_load(a->dtype, at, i);
  return x;
}

static bool keep_piece(Tuner *t, md_arg a, int64_t from, int64_t bytes) {
  a.offset += from;
  a.bytes = bytes;
  Piece x = {.arg = a, .value = values_of(t, &a, &x.num)};
  if (!x.value) return false;
  for (int64_t i = 0; i < x.num; i++)
    if (isfinite(x.value[i])) x.largest = fmax(x.largest, fabs(x.value[i]));
  MD_PUSH(t->piece, t->num_pieces, t->cap_pieces, x);
  return true;
}

static bool is_output(const md_arg *a) { return a->write && a->space != MD_IN_WORKSPACE; }

// Where the last of several blocks has channels that nobody counts, elements are not told from those.
static bool is_comparable(const md_arg *a) {
  bool known = !a->block || (a->rank > 1 && (a->dim[1] % a->block == 0 || a->dim[1] < a->block));
  return is_output(a) && a->dtype != MD_NO_DTYPE && known;
}

// Of one block, too, some channels may be nobody's.
static bool counts(const md_arg *a, int64_t i) { return !a->block || i % a->block < a->dim[1]; }

static bool keep_own(Tuner *t, Site *s) {
  forget_pieces(t);
  s->is_compared = true;
  for (int l = s->replaced; l < s->replaced + s->num_replaced; l++) {
    const md_launch *x = &t->p->launch[l];
    for (int k = x->first_arg; k < x->first_arg + x->num_args; k++) {
      const md_arg *a = &t->p->arg[k];
      if (!is_comparable(a)) {
        s->is_compared &= !is_output(a);
        continue;
      }
      int64_t row = a->block ? a->block * md_dtype_size(a->dtype) : 1;  // pieces are whole rows
      int64_t head = MD_MIN(a->bytes, PIECE / row * row), tail = MD_MIN(a->bytes - head, head);
      if (!keep_piece(t, *a, 0, head) || (tail && !keep_piece(t, *a, a->bytes - tail, tail)))
        return false;
    }
  }
  return true;
}

// Sums in another order, then a rounding: of bf16 eight of its steps; of f32 what the roundings of up to 2^20
// terms, a random walk, add up to, eightfold. Both of the largest value.
static double tolerance_of(md_dtype t) {
  return t == MD_BF16 ? ldexp(8, -8) : t == MD_F64 ? ldexp(8, -43) : ldexp(8, -14);
}

// How far an element is off; what is no number the own way either does not count.
static double off_by(double own, double x) {
  if (!isfinite(own)) return 0;
  return isfinite(x) ? fabs(own - x) : INFINITY;
}

// False: nothing can be read. `why` stays empty where all is well.
static bool compare(Tuner *t, char *why, int size) {
  why[0] = '\0';
  for (int i = 0; i < t->num_pieces; i++) {
    const Piece *x = &t->piece[i];
    int64_t num;
    double *y = values_of(t, &x->arg, &num), off = 0;
    if (!y) return false;
    for (int64_t k = 0; k < num; k++)
      if (counts(&x->arg, k)) off = fmax(off, off_by(x->value[k], y[k]));
    free(y);
    if (off > tolerance_of(x->arg.dtype) * x->largest)
      snprintf(why, (size_t)size, "'%.60s' is off by %.3g, its largest value is %.3g",
               x->arg.name ? x->arg.name : "?", off, x->largest);
  }
  return true;
}

// Nothing that a way leaves undone is there already.
static bool spoil_results(Tuner *t, const Site *s) {
  for (int l = s->replaced; l < s->replaced + s->num_replaced; l++) {
    const md_launch *x = &t->p->launch[l];
    for (int k = x->first_arg; k < x->first_arg + x->num_args; k++)
      if (is_output(&t->p->arg[k]) && !md_exec_spoil(t->e, &t->p->arg[k], NULL)) return false;
  }
  return true;
}

static bool begins_trial(const Tuner *t, const Entry *x) {
  int trial = trial_of(t);
  return trial >= 0 && t->p->trial[trial].first_launch == x->launch;
}

static bool watch(void *ctx, md_exec *e, int launch, bool before) {
  (void)e, (void)launch;
  Tuner *t = ctx;
  const Entry *x = &t->entry[t->at];
  if (before) return !begins_trial(t, x) || spoil_results(t, &t->site[x->site]);
  char why[200];
  if (x->trial == OWN && !keep_own(t, &t->site[x->site])) return false;
  if (x->trial >= 0) {
    if (!compare(t, why, sizeof why)) return false;
    if (why[0]) t->failed[x->trial] = md_strdup(t->to->arena, why);
  }
  t->at++;
  return true;
}

// For a step in which something fails: what.
static bool count(void *ctx, md_exec *e, int launch, bool before) {
  (void)e, (void)launch;
  ((Tuner *)ctx)->at += !before;
  return true;
}

// --- steps

static bool open_device(Tuner *t, md_diags *d) {
  md_exec_options o = t->o->exec;
  o.time = true;
  t->e = md_exec_create(t->p, &o, d);
  return t->e && (!t->o->set_inputs || t->o->set_inputs(t->o->ctx, t->e, d));
}

static bool reopen(Tuner *t, md_diags *d) {
  md_exec_destroy(t->e);
  t->e = NULL;
  memset(t->total, 0, (size_t)t->p->num_launches * sizeof *t->total);
  return open_device(t, d);
}

static bool run_order(Tuner *t, md_exec_tap tap, md_diags *d) {
  md_exec_set_tap(t->e, tap, t);
  md_exec_set_order(t->e, t->order, t->num_entries);
  bool ok = md_exec_step(t->e, d);
  md_exec_set_order(t->e, NULL, 0);
  md_exec_set_tap(t->e, NULL, NULL);
  return ok;
}

// The first line of what was said, without its place and code.
static const char *line_of(Tuner *t, const md_diags *said) {
  const char *text = md_diags_text(said), *begin = strstr(text, "]: ");
  if (begin) text = begin + strlen("]: ");
  return md_strndup(t->to->arena, text, strcspn(text, "\n"));
}

// After a failed step: the trial that failed is left out, and the device opened anew. False: it was none, or
// the device cannot be opened; reported.
static bool recover(Tuner *t, md_diags *said, int *failures, md_diags *d) {
  int trial = trial_of(t);
  if (!md_diags_errors(said)) md_exec_is_alive(t->e, said);
  if (trial >= 0) {
    const md_gpu_trial *x = &t->p->trial[trial];
    t->failed[trial] = line_of(t, said);
    md_log(MD_LOG_EXEC, MD_LEVEL_WARN, "%s of %s: %s", x->way, t->p->launch[x->replaced].name,
           t->failed[trial]);
  } else if ((*failures)++ == MAX_FAILURES) {
    return md_error(d, E0647, MD_NOWHERE, "a step fails with every way left out: %s",
                    line_of(t, said));
  }
  if (reopen(t, d)) return true;
  if (trial >= 0)
    md_note(d, MD_NOWHERE, "it is of no use since %s of %s has failed: %s", t->p->trial[trial].way,
            t->p->launch[t->p->trial[trial].replaced].name, t->failed[trial]);
  return false;
}

static bool check_all(Tuner *t, md_diags *d) {
  for (int failures = 0;;) {
    md_diags *said = md_diags_create();
    order_all(t);
    bool ok = run_order(t, watch, said);
    forget_pieces(t);
    bool goes_on = ok || recover(t, said, &failures, d);
    md_diags_destroy(said);
    if (ok || !goes_on) return ok;
  }
}

// What the launches took in the last step, us; < 0: unknown.
static double last_us(Tuner *t, int first, int num) {
  const md_launch_time *time = md_exec_times(t->e);
  int64_t ns = 0;
  for (int i = first; i < first + num; i++) {
    if (time[i].total_ns == t->total[i]) return -1;
    ns += time[i].total_ns - t->total[i];
  }
  return (double)ns / 1e3;
}

static void keep_times(Tuner *t, int way, int round) {
  for (int i = 0; i < t->num_sites; i++) {
    Site *s = &t->site[i];
    int trial = s->first + way - 1;
    if (way == 0) s->own[round] = last_us(t, s->replaced, s->num_replaced);
    else if (way <= s->num && !is_out(t, s, trial))
      t->us[trial][round] =
          last_us(t, t->p->trial[trial].first_launch, t->p->trial[trial].num_launches);
  }
  for (int i = 0; i < t->p->num_launches; i++) t->total[i] = md_exec_times(t->e)[i].total_ns;
}

// The step that has failed once more, launch by launch.
static bool find_failure(Tuner *t, md_diags *said, int *failures, md_diags *d) {
  if (!reopen(t, d)) return false;
  md_diags *again = md_diags_create();
  bool goes_on = true;
  if (!run_order(t, count, again)) goes_on = recover(t, again, failures, d);
  else if ((*failures)++ == MAX_FAILURES)
    goes_on = md_error(d, E0647, MD_NOWHERE, "a step fails now and then: %s", line_of(t, said));
  md_diags_destroy(again);
  return goes_on;
}

// A step with way number `way`; done again, launch by launch, when it fails: then it is known what failed.
static bool measure(Tuner *t, int way, int round, int *failures, md_diags *d) {
  for (;;) {
    md_diags *said = md_diags_create();
    order_way(t, way);
    bool ok = run_order(t, NULL, said);
    if (ok) keep_times(t, way, round);
    bool goes_on = ok || find_failure(t, said, failures, d);
    md_diags_destroy(said);
    if (ok || !goes_on) return ok;
  }
}

static bool measure_all(Tuner *t, int64_t start, md_diags *d) {
  int ways = t->most + 1, of = t->o->rounds * ways, failures = 0;
  order_way(t, 0);
  if (!measure(t, 0, 0, &failures, d)) return false;  // to warm up
  for (int i = 0; i < of; i++) {
    bool is_late = (double)(md_now_ns() - start) > t->o->seconds * 1e9;
    if (is_late && t->num_rounds >= MD_TUNE_LEAST_ROUNDS && i % ways == 0) break;
    if (!measure(t, i % ways, i / ways, &failures, d)) return false;
    t->num_rounds = (i + 1) / ways;
    if (t->o->told) t->o->told(t->o->ctx, i + 1, of);
  }
  return true;
}

// --- results

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

// NaN: there is none.
static double median(const double *x, int num) {
  double *sorted = zeroed(num, sizeof *sorted);
  int known = 0;
  for (int i = 0; i < num; i++)
    if (!isnan(x[i])) sorted[known++] = x[i];
  if (known) qsort(sorted, (size_t)known, sizeof *sorted, by_size);
  double m = known ? sorted[known / 2] : NAN;
  free(sorted);
  return m;
}

// By the median of what a way gains in each round.
static double gain_of(const Tuner *t, const Site *s, int trial) {
  double *gain = zeroed(t->num_rounds, sizeof *gain);
  for (int i = 0; i < t->num_rounds; i++)
    gain[i] = s->own[i] < 0 || t->us[trial][i] < 0 ? NAN : s->own[i] - t->us[trial][i];
  double m = median(gain, t->num_rounds);
  free(gain);
  return m;
}

static void choose(md_record *r, const double *gain) {
  double most = fmax(least_us, least_share * r->own_us);
  r->best = r->own;
  r->best_us = r->own_us;
  for (int i = 0; i < r->num_ways; i++) {
    if (r->way[i].failed || r->way[i].us < 0 || !(gain[i] > most)) continue;
    most = gain[i];
    r->best = r->way[i].way;
    r->best_us = r->way[i].us;
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

// Of what cannot be tried, too: it is as good as it gets.
static void put_records(Tuner *t) {
  for (int i = 0; i < t->num_sites; i++) {
    const Site *s = &t->site[i];
    md_record r =
        record_of(t->to, t->p, t->v, t->device.name, s->first, s->is_over_input ? 0 : s->num);
    double *gain = zeroed(s->num, sizeof *gain);
    r.is_checked = s->is_compared;
    r.own_us = median(s->own, t->num_rounds);
    for (int k = 0; k < r.num_ways; k++) {
      int trial = s->first + k;
      r.way[k].failed = t->failed[trial];
      if (!r.way[k].failed) r.way[k].us = median(t->us[trial], t->num_rounds);
      gain[k] = gain_of(t, s, trial);
    }
    choose(&r, gain);
    free(gain);
    if (r.own_us >= 0) MD_PUSH(t->to->row, t->to->num, t->to->cap, r);
  }
}

// --- all of it

void md_tune_input(const md_spec *s, uint64_t seed, void *to) {
  int64_t num = md_spec_elements(s);
  if (num == 1 && md_dtype_is_float(s->dtype)) md_element_store(s->dtype, to, 0, 1e-3);
  else md_fill_input(s->name, s->dtype, num, seed, to);
}

static bool nothing_to_tune(const md_program *p, const char *where, md_diags *d) {
  md_error(d, E0448, p->path ? MD_IN_FILE(p->path) : MD_NOWHERE,
           "%s has nothing that is to be tried on %s", p->name, where);
  if (p->path) md_hint(d, "modistc compile ... --trials -o FILE.mdx, for this target");
  else md_hint(d, "its target is %s, and convolutions alone are made in several ways", p->target);
  return false;
}

static void free_tuner(Tuner *t) {
  md_exec_destroy(t->e);
  for (int i = 0; i < t->num_sites; i++) free(t->site[i].own);
  for (int i = 0; i < t->p->num_trials; i++) free(t->us[i]);
  free(t->us);
  free(t->total);
  free(t->piece);
  free(t->entry);
  free(t->order);
  free(t->site);
  free(t->failed);
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
  t.us = zeroed(p->num_trials, sizeof *t.us);
  t.total = zeroed(p->num_launches, sizeof *t.total);
  find_sites(&t);
  bool ok = open_device(&t, d) && check_all(&t, d) && measure_all(&t, start, d);
  if (ok) put_records(&t);
  free_tuner(&t);
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
    int end = v->first_trial + v->num_trials;
    for (int i = v->first_trial, num; v->predicted_for && i < end; i += num) {
      const md_gpu_trial *x = &p->trial[i];
      num = 1;
      while (i + num < end && x[num].replaced == x->replaced) num++;
      md_record r = record_of(to, p, v, v->predicted_for, i, num);
      double *gain = zeroed(num, sizeof *gain);
      r.is_predicted = true;
      r.own_us = predicted(v, x->replaced, x->num_replaced);
      for (int k = 0; k < num; k++) {
        r.way[k].us = predicted(v, x[k].first_launch, x[k].num_launches);
        gain[k] = r.own_us - r.way[k].us;
      }
      choose(&r, gain);
      free(gain);
      MD_PUSH(to->row, to->num, to->cap, r);
    }
  }
  return to->num > before || nothing_to_tune(p, "any device that is described", d);
}
