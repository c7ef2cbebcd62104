// SPDX-License-Identifier: Apache-2.0
// Runs a program. All memory, every address and every kernel is found when the executor is made; a
// step is then nothing but calls:
//
//   for each launch:  tap, its phases one after another (items spread over the pool), checks, tap
//   at the end:       copies of new values into the states, all of them or none
#include "runtime/exec/exec.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef void (*kernel)(void *const *arg, int64_t item, void *scratch);

// What a thread did of a phase; only kept for a trace. A cache line each.
typedef struct share {
  _Alignas(64) int64_t start_ns, end_ns;
} share;

struct md_exec {
  const md_program *p;
  md_exec_options options;
  md_pool *pool;
  md_block arena, workspace;
  md_block *input, *state, *result;  // a result has one only where it lies outside of the others
  md_block *scratch, shares;         // scratch: one a thread
  kernel *kernel;                    // by phase
  void **arg;                        // addresses, by argument
  md_launch_time *time;
  int64_t bytes, num_steps, resident_before;
  md_exec_tap tap;
  void *tap_ctx;
  md_trace *trace;
};

typedef struct job {
  md_exec *e;
  kernel run;
  void *const *arg;
  share *shares;
} job;

static void *zeroed(int64_t count, size_t size) {
  void *p = calloc((size_t)MD_MAX(count, 1), size);
  if (!p) md_out_of_memory((size_t)count * size);
  return p;
}

static md_place place_of(const md_program *p) { return p->path ? MD_IN_FILE(p->path) : MD_NOWHERE; }

// --- Memory

typedef struct demand {
  int64_t arena, workspace, inputs, states, results, scratch, total;  // scratch: of one thread
} demand;

static int64_t sum_of(const md_spec *s, int num) {
  int64_t sum = 0;
  for (int i = 0; i < num; i++)
    if (!md_add_size(sum, s[i].bytes, &sum)) return INT64_MAX;
  return sum;
}

static demand demand_of(const md_program *p, int threads) {
  demand n = {.arena = p->arena_bytes, .workspace = p->workspace_bytes};
  n.inputs = sum_of(p->input, p->num_inputs);
  n.states = sum_of(p->state, p->num_states);
  for (int i = 0; i < p->num_results; i++)
    if (p->result_at[i].space == MD_IN_RESULT) n.results += p->result[i].bytes;
  for (int i = 0; i < p->num_phases; i++) n.scratch = MD_MAX(n.scratch, p->phase[i].scratch_bytes);
  const int64_t parts[] = {n.arena,  n.workspace, n.inputs,
                           n.states, n.results,   n.scratch * threads};
  for (int i = 0; i < MD_COUNT(parts); i++)
    if (!md_add_size(n.total, parts[i], &n.total)) n.total = INT64_MAX;
  return n;
}

bool md_launch_is_again(const md_launch *l) {
  size_t len = strlen(l->name), end = strlen(MD_AGAIN);
  return len > end && strcmp(l->name + len - end, MD_AGAIN) == 0;
}

md_again md_program_again(const md_program *p) {
  md_again again = {0};
  double flops = 0, bytes = 0;
  for (int i = 0; i < p->num_launches; i++) {
    const md_launch *l = &p->launch[i];
    flops += l->flops;
    bytes += l->bytes;
    if (!md_launch_is_again(l)) continue;
    again.launches++;
    again.flops += l->flops;
    again.bytes += l->bytes;
  }
  again.flops /= MD_MAX(flops, 1);
  again.bytes /= MD_MAX(bytes, 1);
  return again;
}

static int threads_or_default(int threads) { return threads > 0 ? threads : md_pool_default(); }

static bool no_memory(const md_program *p, const demand *n, int threads, md_code code,
                      const char *why, md_diags *d) {
  char t[6][MD_FLOAT_CHARS];
  md_error(d, code, place_of(p), "program '%s' needs %s of memory, but %s", p->name,
           md_bytes_text((double)n->total, t[0]), why);
  md_note(d, MD_NOWHERE, "arena %s, states %s, inputs %s, workspace %s, scratch %s",
          md_bytes_text((double)n->arena, t[1]), md_bytes_text((double)n->states, t[2]),
          md_bytes_text((double)n->inputs, t[3]), md_bytes_text((double)n->workspace, t[4]),
          md_bytes_text((double)n->scratch * threads, t[5]));
  md_again again = md_program_again(p);
  if (again.launches)
    md_note(d, MD_NOWHERE, "that is with %d of %d kernels computing values again", again.launches,
            p->num_launches);
  md_hint(d, "a smaller batch, clip or bank needs less");
  return false;
}

static bool within(const md_program *p, const demand *n, int threads, int64_t limit, md_diags *d) {
  if (limit <= 0 || n->total <= limit) return true;
  char why[64], text[MD_FLOAT_CHARS];
  snprintf(why, sizeof why, "%s are allowed", md_bytes_text((double)limit, text));
  return no_memory(p, n, threads, E0803, why, d);
}

static bool allocate(md_exec *e, md_diags *d) {
  const md_program *p = e->p;
  int threads = md_pool_threads(e->pool);
  demand n = demand_of(p, threads);
  e->bytes = n.total;
  if (!within(p, &n, threads, e->options.memory_limit, d)) return false;
  int64_t left = md_memory_free();
  if (n.total > left) {
    char why[64], text[MD_FLOAT_CHARS];
    snprintf(why, sizeof why, "%s are free", md_bytes_text((double)left, text));
    return no_memory(p, &n, threads, E0802, why, d);
  }
  bool ok = md_block_create(&e->arena, n.arena) && md_block_create(&e->workspace, n.workspace) &&
            md_block_create(&e->shares, threads * (int64_t)sizeof(share));
  for (int i = 0; i < p->num_inputs; i++)
    ok = ok && md_block_create(&e->input[i], p->input[i].bytes);
  for (int i = 0; i < p->num_states; i++)
    ok = ok && md_block_create(&e->state[i], p->state[i].bytes);
  for (int i = 0; i < p->num_results; i++)
    if (p->result_at[i].space == MD_IN_RESULT)
      ok = ok && md_block_create(&e->result[i], p->result[i].bytes);
  for (int i = 0; i < threads; i++) ok = ok && md_block_create(&e->scratch[i], n.scratch);
  return ok || no_memory(p, &n, threads, E0802, "the system did not give it", d);
}

static void destroy_blocks(md_block *b, int num) {
  for (int i = 0; b && i < num; i++) md_block_destroy(&b[i]);
  free(b);
}

// --- Code

static bool find_kernels(md_exec *e, md_diags *d) {
  const md_program *p = e->p;
  if (p->num_phases > 0 && !p->lookup)
    return md_error(d, E0634, place_of(p), "program '%s' has no code", p->name);
  for (int i = 0; i < p->num_phases; i++) {
    void *address = p->lookup(p->code, p->phase[i].symbol);
    if (!address)
      return md_error(d, E0634, place_of(p), "the code of '%s' has no kernel '%s'", p->name,
                      p->phase[i].symbol);
    memcpy(&e->kernel[i], &address, sizeof address);  // POSIX promises it, ISO C has no cast for it
  }
  return true;
}

static void run_item(void *ctx, int64_t item, int thread) {
  const job *j = ctx;
  j->run(j->arg, item, j->e->scratch[thread].at);
}

static void run_item_timed(void *ctx, int64_t item, int thread) {
  const job *j = ctx;
  share *s = &j->shares[thread];
  if (s->start_ns == 0) s->start_ns = md_now_ns();
  j->run(j->arg, item, j->e->scratch[thread].at);
  s->end_ns = md_now_ns();
}

static void run_phase_traced(md_exec *e, const md_phase *f, job *j) {
  int threads = md_pool_threads(e->pool);
  j->shares = e->shares.at;
  memset(j->shares, 0, (size_t)threads * sizeof *j->shares);
  md_pool_run(e->pool, f->items, run_item_timed, j);
  for (int t = 0; t < threads; t++) {
    const share *s = &j->shares[t];
    if (s->start_ns) md_trace_span(e->trace, f->symbol, "share", t, s->start_ns, s->end_ns);
  }
}

// --- The search for NaN

static bool check_spec(md_exec *e, const char *what, const md_spec *s, const void *at,
                       md_diags *d) {
  char found[160];
  md_arg a = {.dtype = s->dtype, .rank = s->rank};
  memcpy(a.dim, s->dim, sizeof a.dim);
  if (md_arg_is_finite(&a, at, found, sizeof found)) return true;
  return md_error(d, E0710, place_of(e->p), "%s '%s' is not finite before step %" PRId64 ": %s",
                  what, s->name, e->num_steps + 1, found);
}

// What comes from outside is named before a region is blamed for it.
static bool check_sources(md_exec *e, md_diags *d) {
  const md_program *p = e->p;
  for (int i = 0; i < p->num_inputs; i++)
    if (!check_spec(e, "input", &p->input[i], e->input[i].at, d)) return false;
  for (int i = 0; i < p->num_states; i++)
    if (!check_spec(e, "state", &p->state[i], e->state[i].at, d)) return false;
  return true;
}

static bool check_launch(md_exec *e, int launch, md_diags *d) {
  const md_launch *l = &e->p->launch[launch];
  for (int i = l->first_arg; i < l->first_arg + l->num_args; i++) {
    const md_arg *a = &e->p->arg[i];
    char found[160];
    if (!a->write || md_arg_is_finite(a, e->arg[i], found, sizeof found)) continue;
    return md_error(d, E0710, place_of(e->p),
                    "region '%s' (launch %d of %d, step %" PRId64 ") made '%s' not finite: %s",
                    l->name, launch + 1, e->p->num_launches, e->num_steps + 1,
                    a->name ? a->name : "?", found);
  }
  return true;
}

// --- A step

static bool run_launch(md_exec *e, int launch, md_diags *d) {
  const md_launch *l = &e->p->launch[launch];
  if (e->tap && !e->tap(e->tap_ctx, e, launch, true)) return false;
  bool is_timed = e->options.time || e->trace;
  int64_t start = is_timed ? md_now_ns() : 0;
  for (int i = l->first_phase; i < l->first_phase + l->num_phases; i++) {
    const md_phase *f = &e->p->phase[i];
    job j = {.e = e, .run = e->kernel[i], .arg = e->arg + l->first_arg};
    if (e->trace) run_phase_traced(e, f, &j);
    else md_pool_run(e->pool, f->items, run_item, &j);
  }
  if (is_timed) {
    int64_t end = md_now_ns(), ns = end - start;
    md_launch_time *t = &e->time[launch];
    t->min_ns = t->calls == 0 ? ns : MD_MIN(t->min_ns, ns);
    t->total_ns += ns;
    t->calls++;
    if (e->trace) md_trace_span(e->trace, l->name, "launch", 0, start, end);
  }
  if (e->options.check_nan && !check_launch(e, launch, d)) return false;
  return !e->tap || e->tap(e->tap_ctx, e, launch, false);
}

static int find(const md_spec *s, int num, const char *name) {
  for (int i = 0; i < num; i++)
    if (!strcmp(s[i].name, name)) return i;
  return -1;
}

md_exec *md_exec_create(const md_program *p, const md_exec_options *o, md_diags *d) {
  if (!md_program_check(p, d)) return NULL;
  md_exec *e = zeroed(1, sizeof *e);
  e->p = p;
  e->resident_before = md_memory_resident();
  if (o) e->options = *o;
  e->pool = md_pool_create(e->options.threads);
  e->input = zeroed(p->num_inputs, sizeof *e->input);
  e->state = zeroed(p->num_states, sizeof *e->state);
  e->result = zeroed(p->num_results, sizeof *e->result);
  e->scratch = zeroed(md_pool_threads(e->pool), sizeof *e->scratch);
  e->kernel = zeroed(p->num_phases, sizeof *e->kernel);
  e->arg = zeroed(p->num_args, sizeof *e->arg);
  e->time = zeroed(p->num_launches, sizeof *e->time);
  if (!find_kernels(e, d) || !allocate(e, d)) {
    md_exec_destroy(e);
    return NULL;
  }
  // Arguments that no launch uses were not checked and stay NULL.
  for (int i = 0; i < p->num_launches; i++) {
    const md_launch *l = &p->launch[i];
    for (int k = l->first_arg; k < l->first_arg + l->num_args; k++)
      e->arg[k] = md_exec_arg(e, &p->arg[k]);
  }
  for (int i = 0; i < p->num_inputs; i++) memset(e->input[i].at, 0, e->input[i].bytes);
  void **state = zeroed(p->num_states, sizeof *state);
  for (int i = 0; i < p->num_states; i++) state[i] = e->state[i].at;
  md_fill_states(p, e->options.seed, e->pool, state);
  free(state);
  md_log(MD_LOG_EXEC, MD_LEVEL_INFO, "%s for %s: %d launches on %d threads, %lld bytes in all",
         p->name, p->target, p->num_launches, md_pool_threads(e->pool), (long long)e->bytes);
  return e;
}

void md_exec_destroy(md_exec *e) {
  if (!e) return;
  md_block_destroy(&e->arena);
  md_block_destroy(&e->workspace);
  md_block_destroy(&e->shares);
  destroy_blocks(e->input, e->p->num_inputs);
  destroy_blocks(e->state, e->p->num_states);
  destroy_blocks(e->result, e->p->num_results);
  destroy_blocks(e->scratch, md_pool_threads(e->pool));
  md_pool_destroy(e->pool);
  free(e->kernel);
  free(e->arg);
  free(e->time);
  free(e);
}

void *md_exec_arg(md_exec *e, const md_arg *a) {
  const md_block *b = NULL;
  switch (a->space) {
  case MD_IN_ARENA: b = &e->arena; break;
  case MD_IN_WORKSPACE: b = &e->workspace; break;
  case MD_IN_STATE: b = &e->state[a->index]; break;
  case MD_IN_INPUT: b = &e->input[a->index]; break;
  case MD_IN_RESULT: b = &e->result[a->index]; break;
  case MD_NUM_SPACES: break;
  }
  MD_ASSERT(b, "argument in space %d", (int)a->space);
  return b->at ? (char *)b->at + a->offset : NULL;  // a space of no bytes has no address
}

void *md_exec_input(md_exec *e, const char *name, const md_spec **spec) {
  int i = find(e->p->input, e->p->num_inputs, name);
  if (i >= 0 && spec) *spec = &e->p->input[i];
  return i >= 0 ? e->input[i].at : NULL;
}

void *md_exec_state(md_exec *e, const char *name, const md_spec **spec) {
  int i = find(e->p->state, e->p->num_states, name);
  if (i >= 0 && spec) *spec = &e->p->state[i];
  return i >= 0 ? e->state[i].at : NULL;
}

const void *md_exec_result(md_exec *e, const char *name, const md_spec **spec) {
  int i = find(e->p->result, e->p->num_results, name);
  if (i >= 0 && spec) *spec = &e->p->result[i];
  return i >= 0 ? md_exec_arg(e, &e->p->result_at[i]) : NULL;
}

void md_exec_set_tap(md_exec *e, md_exec_tap tap, void *ctx) {
  e->tap = tap;
  e->tap_ctx = ctx;
}

void md_exec_set_trace(md_exec *e, md_trace *t) { e->trace = t; }

const md_launch_time *md_exec_times(const md_exec *e) { return e->time; }

int64_t md_program_bytes(const md_program *p, int threads) {
  return demand_of(p, threads_or_default(threads)).total;
}

bool md_program_fits(const md_program *p, int threads, int64_t limit, md_diags *d) {
  threads = threads_or_default(threads);
  demand n = demand_of(p, threads);
  return within(p, &n, threads, limit, d);
}

int64_t md_exec_grown(const md_exec *e) { return md_memory_resident() - e->resident_before; }
int64_t md_exec_bytes(const md_exec *e) { return e->bytes; }

const md_program *md_exec_program(const md_exec *e) { return e->p; }

bool md_exec_step(md_exec *e, md_diags *d) {
  const md_program *p = e->p;
  if (e->options.check_nan && !check_sources(e, d)) return false;
  for (int i = 0; i < p->num_launches; i++)
    if (!run_launch(e, i, d)) return false;
  for (int i = 0; i < p->num_copies; i++) {
    const md_copy *c = &p->copy[i];
    memcpy(e->state[c->state].at, md_exec_arg(e, &c->src), (size_t)c->src.bytes);
  }
  e->num_steps++;
  return true;
}
