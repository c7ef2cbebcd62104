// SPDX-License-Identifier: Apache-2.0
// Measuring: all sides take turns (a, b, a, b, ...), so that a machine that slows down slows all of
// them, and none has the cooler start.
#include "modistc/bench.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { MIN_ROUNDS = 5, MAX_ROUNDS = 200, MAX_WARMUP = 20 };
static const double max_warmup_ms = 10e3;

typedef struct Side {
  md_bench_side *to;
  md_engine *engine;    // one of the two
  md_bench_peer *peer;  // NULL as well: it could not be started, or has ended
  md_samples warmup;
} Side;

typedef struct Turns {
  md_bench *b;
  const md_bench_job *job;
  Side side[MD_BENCH_SIDES];
  int num;
} Turns;

static void fill(md_engine *e) {
  const md_graph *g = md_engine_graph(e);
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op != MD_OP_input) continue;
    md_type type;
    void *to = md_engine_input(e, n->name, &type);
    md_fill_input(n->name, type.dtype, md_elements(&type.shape), 0, to);
  }
}

static Side *add_side(Turns *t, const char *name, md_bench_line *l) {
  md_bench_side *to = &l->side[l->num_sides++];
  to->name = name;
  t->side[t->num].to = to;
  return &t->side[t->num++];
}

static md_engine *engine_of(Turns *t, int level, md_backend backend, bool uses_cudnn, md_diags *d) {
  md_bench *b = t->b;
  md_engine_options o = {.backend = backend,
                         .device = backend == MD_BACKEND_CUDA ? b->on.device : NULL,
                         .time = t->job->only != NULL,
                         .engine = uses_cudnn ? MD_ENGINE_CUDNN : MD_ENGINE_MODIST,
                         .passes = md_pass_defaults(),
                         .threads = (int)b->threads,
                         .memory_limit = backend == MD_BACKEND_INTERP ? 0 : b->memory_limit,
                         .cpu = md_cli_get(b->cli, "cpu"),
                         .asan = md_cli_has(b->cli, "jit-asan"),
                         .no_cache = md_cli_has(b->cli, "no-cache")};
  o.passes.level = level;
  o.passes.precision = t->b->precision;
  md_graph *g = t->job->make(t->job->ctx, d);
  md_engine *e = g ? md_engine_create(g, &o, d) : NULL;
  if (e) fill(e);
  return e;
}

static bool start(Turns *t, const char *name, int level, md_backend backend, md_bench_line *l) {
  Side *s = add_side(t, name, l);
  s->engine = engine_of(t, level, backend, false, t->b->cli->diags);
  return s->engine != NULL;
}

// cuDNN in place of a convolution. That it is not there, or that it cannot do it, is told in the report and
// stops nothing.
static void start_cudnn(Turns *t, md_bench_line *l) {
  Side *s = add_side(t, "cudnn", l);
  md_diags *d = md_diags_create();
  md_arena *a = t->b->cli->arena;
  s->engine = engine_of(t, 1, t->b->on.backend, true, d);
  if (s->engine) {
    const char *version = md_exec_engine(md_engine_exec(s->engine)) + strlen("cuDNN ");
    size_t len = strcspn(version, ":");
    s->to->version = md_strndup(a, version, len);
    s->to->note = md_strdup(a, version + len + strlen(": "));
  } else {
    const char *text = md_diags_text(d);
    s->to->unmeasured = md_strndup(a, text, strcspn(text, "\n"));
  }
  md_diags_destroy(d);
}

// That the peer is not there is told in the report and stops nothing.
static void start_peer(Turns *t, md_bench_line *l) {
  char why[200];
  Side *s = add_side(t, "torch", l);
  s->peer = md_bench_peer_start(t->b, t->job->torch, why, sizeof why);
  if (s->peer) s->to->version = md_strdup(t->b->cli->arena, md_bench_peer_version(s->peer));
  else s->to->unmeasured = md_strdup(t->b->cli->arena, why);
}

bool md_bench_is_timed(const md_bench_job *job, const md_launch *l) {
  return !job->only || strstr(l->name, job->only);
}

// Time so far of the kernels that count; false: the passes left none of them, or there are no kernels.
static bool timed_ns(const md_bench_job *job, md_exec *x, int64_t *ns) {
  bool found = false;
  *ns = 0;
  for (int i = 0; job->only && x && i < md_exec_program(x)->num_launches; i++) {
    if (!md_bench_is_timed(job, &md_exec_program(x)->launch[i])) continue;
    *ns += md_exec_times(x)[i].total_ns;
    found = true;
  }
  return found;
}

// Time of one step: of the kernels that count, or of the whole.
static bool run_engine(Turns *t, md_engine *e, double *ms) {
  md_exec *x = md_engine_exec(e);
  int64_t before, after;
  if (!timed_ns(t->job, x, &before)) before = md_now_ns();
  if (!md_engine_step(e, t->b->cli->diags)) return false;
  if (!timed_ns(t->job, x, &after)) after = md_now_ns();
  *ms = (double)MD_MAX(after - before, 1) / 1e6;  // the clock's own step at least
  return true;
}

// Adds one sample to `to`. A peer that ends is unmeasured from then on.
static bool take_turn(Turns *t, Side *s, md_samples *to) {
  char why[200];
  double ms = 0;
  if (s->engine) {
    if (!run_engine(t, s->engine, &ms)) return false;
  } else if (!md_bench_peer_run(s->peer, &ms, why, sizeof why)) {
    md_bench_peer_stop(s->peer);
    s->peer = NULL;
    md_samples_free(&s->to->samples);
    s->to->unmeasured = md_strdup(t->b->cli->arena, why);
    return true;
  }
  md_samples_add(to, ms);
  return true;
}

// Work of what is timed, and the least time for it: launches run one after another, and each needs
// its arithmetic and its bytes.
static void size_up(const Turns *t, md_bench_line *l) {
  md_exec *e = md_engine_exec(t->side[0].engine);
  const md_program *p = md_exec_program(e);
  const md_cpu_roof *roof = &t->b->roof;
  int first, num = md_exec_launches(e, &first);
  for (int i = first; i < first + num; i++) {
    const md_launch *x = &p->launch[i];
    if (!md_bench_is_timed(t->job, x)) continue;
    l->gflop += x->flops / 1e9;
    // Only convolutions multiply bf16.
    bool is_bf16 = t->b->precision == MD_BF16 && strstr(x->name, "conv3d") && roof->bf16_flops > 0;
    double flops = is_bf16 ? roof->bf16_flops : roof->f32_flops;
    if (flops > 0) l->roof_ms += 1e3 * fmax(x->flops / flops, x->bytes / roof->read_bytes);
  }
}

static bool warm_up(Turns *t) {
  int64_t most = t->b->warmup < 0 ? MAX_WARMUP : t->b->warmup;
  double spent = 0;
  for (int64_t round = 0; round < most; round++) {
    bool is_steady = true;
    for (int i = 0; i < t->num; i++) {
      Side *s = &t->side[i];
      if (s->to->unmeasured) continue;
      int64_t begin = md_now_ns();
      if (!take_turn(t, s, &s->warmup)) return false;
      spent += (double)(md_now_ns() - begin) / 1e6;
      is_steady = is_steady && md_samples_are_steady(&s->warmup);
    }
    if (t->b->warmup < 0 && (is_steady || spent > max_warmup_ms)) return true;
  }
  return true;
}

static bool count(Turns *t) {
  int64_t begin = md_now_ns();
  for (int64_t round = 0;; round++) {
    double spent = (double)(md_now_ns() - begin) / 1e6;
    bool is_enough = round >= MAX_ROUNDS || (round >= MIN_ROUNDS && spent >= t->b->min_ms);
    if (t->b->rounds ? round >= t->b->rounds : is_enough) return true;
    for (int i = 0; i < t->num; i++) {
      Side *s = &t->side[i];
      if (!s->to->unmeasured && !take_turn(t, s, &s->to->samples)) return false;
    }
  }
}

void md_bench_word(md_text *to, const char *word) {
  bool plain = *word;
  for (const char *s = word; *s; s++)
    plain = plain && (isalnum((unsigned char)*s) || strchr("-_=.,/:@+", *s));
  if (to->len) md_put(to, " ");
  if (plain) {
    md_put(to, "%s", word);
    return;
  }
  md_put(to, "'");
  for (const char *s = word; *s; s++) {
    if (*s == '\'') md_put(to, "'\\''");
    else md_put_bytes(to, s, 1);
  }
  md_put(to, "'");
}

// Where something lies on one machine is no part of what is measured: a report is given to others.
static const char *shown_value(const md_option *o, const char *value) {
  if (strcmp(o->name, "torch-python") == 0) return "PYTHON";
  return strcmp(o->name, "torch-reference") == 0 ? "DIR" : value;
}

// `args` and every option that changes what is measured.
static const char *repro_of(const md_bench *b, const char *args) {
  static const char *const not_repeated[] = {"op",     "direction", "sweep", "format",
                                             "output", "roofline",  "quiet", "verbose",
                                             "color",  "log",       "help",  "no-cache"};
  md_text t = {0};
  md_put(&t, "modistc bench %s", args);
  for (int i = 0; i < b->cli->num_set; i++) {
    const md_option *o = b->cli->set[i].option;
    bool repeat = true;
    for (int k = 0; k < MD_COUNT(not_repeated); k++)
      repeat = repeat && strcmp(o->name, not_repeated[k]) != 0;
    if (!repeat) continue;
    const char *value = shown_value(o, b->cli->set[i].value);
    md_bench_word(&t, o->arg ? md_format(b->cli->arena, "--%s=%s", o->name, value)
                             : md_format(b->cli->arena, "--%s", o->name));
  }
  const char *repro = md_strdup(b->cli->arena, t.s);
  md_text_free(&t);
  return repro;
}

// For cuDNN every kernel has a launch of its own, where the other sides have them joined: what stands around
// a convolution would not be compared.
static bool suits_cudnn(const md_bench *b, const md_bench_job *job) {
  if (job->only) return true;
  md_error(b->cli->diags, E0401, MD_NOWHERE,
           "--baseline=cudnn: '%s' is more than a convolution, and cuDNN would do a part of it",
           job->what);
  md_hint(b->cli->diags, "take conv, or --op conv3d:...");
  return false;
}

bool md_bench_measure(md_bench *b, const md_bench_job *job) {
  if (b->cudnn && !suits_cudnn(b, job)) return false;
  bool is_bf16 = b->precision == MD_BF16;
  md_bench_line l = {.what = is_bf16 ? md_format(b->cli->arena, "%s bf16", job->what) : job->what,
                     .repro = repro_of(b, job->args)};
  Turns t = {.b = b, .job = job};
  bool ok = start(&t, "fused", 2, b->on.backend, &l);
  if (b->unfused) ok = ok && start(&t, "unfused", 1, b->on.backend, &l);
  if (b->interp) ok = ok && start(&t, "interp", 0, MD_BACKEND_INTERP, &l);
  if (ok && b->cudnn) start_cudnn(&t, &l);
  if (ok && b->torch) start_peer(&t, &l);
  ok = ok && md_bench_begin(b);
  if (ok) size_up(&t, &l);
  ok = ok && warm_up(&t) && count(&t);
  if (ok && (b->predict || b->roofline)) ok = md_bench_predict(b, job, t.side[0].engine, &l);
  if (ok && b->roofline) md_bench_roofline_add(b, &l);
  if (ok) md_bench_put(b, &l);
  for (int i = 0; i < t.num; i++) {
    md_samples_free(&t.side[i].to->samples);
    md_samples_free(&t.side[i].warmup);
    md_engine_destroy(t.side[i].engine);
    md_bench_peer_stop(t.side[i].peer);
  }
  return ok;
}
