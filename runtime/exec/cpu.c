// SPDX-License-Identifier: Apache-2.0
// The processor as a device. All memory, every address and every kernel is found when it is opened; a
// launch is then its phases one after another, each with its items spread over the threads.
#include "runtime/exec/device.h"

#include <stdlib.h>
#include <string.h>

typedef void (*kernel)(void *const *arg, int64_t item, void *scratch);

// What a thread did of a phase; only kept for a trace. A cache line each.
typedef struct share {
  _Alignas(64) int64_t start_ns, end_ns;
} share;

typedef struct cpu {
  md_device base;
  md_pool *pool;
  md_block arena, workspace;
  md_block *input, *state, *result;  // a result has one only where it lies outside of the others
  md_block *scratch, shares;         // scratch: one a thread
  kernel *kernel;                    // by phase
  void **arg;                        // addresses, by argument
  int64_t *mark_ns;
} cpu;

typedef struct job {
  cpu *c;
  kernel run;
  void *const *arg;
  share *shares;
} job;

static md_place place_of(const md_program *p) { return p->path ? MD_IN_FILE(p->path) : MD_NOWHERE; }

static void *zeroed(int64_t count, size_t size) { return md_calloc((size_t)count, size); }

// --- memory

static bool allocate(cpu *c, int64_t limit, md_diags *d) {
  const md_program *p = c->base.p;
  int threads = md_pool_threads(c->pool);
  md_demand n = md_demand_of(p, threads);
  c->base.bytes = n.total;
  if (!md_demand_within(p, &n, limit, d)) return false;
  int64_t left = md_memory_free();
  if (n.total > left) {
    char why[64], text[MD_FLOAT_CHARS];
    snprintf(why, sizeof why, "%s are free", md_bytes_text((double)left, text));
    return md_demand_refused(p, &n, E0802, why, d);
  }
  bool ok = md_block_create(&c->arena, n.arena) && md_block_create(&c->workspace, n.workspace) &&
            md_block_create(&c->shares, threads * (int64_t)sizeof(share));
  for (int i = 0; i < p->num_inputs; i++)
    ok = ok && md_block_create(&c->input[i], p->input[i].bytes);
  for (int i = 0; i < p->num_states; i++)
    ok = ok && md_block_create(&c->state[i], p->state[i].bytes);
  for (int i = 0; i < p->num_results; i++)
    if (p->result_at[i].space == MD_IN_RESULT)
      ok = ok && md_block_create(&c->result[i], p->result[i].bytes);
  for (int i = 0; i < threads; i++) ok = ok && md_block_create(&c->scratch[i], n.scratch / threads);
  return ok || md_demand_refused(p, &n, E0802, "the system did not give it", d);
}

static void destroy_blocks(md_block *b, int num) {
  for (int i = 0; b && i < num; i++) md_block_destroy(&b[i]);
  free(b);
}

static void *cpu_at(md_device *v, const md_arg *a) {
  cpu *c = (cpu *)v;
  const md_block *b = NULL;
  switch (a->space) {
  case MD_IN_ARENA: b = &c->arena; break;
  case MD_IN_WORKSPACE: b = &c->workspace; break;
  case MD_IN_STATE: b = &c->state[a->index]; break;
  case MD_IN_INPUT: b = &c->input[a->index]; break;
  case MD_IN_RESULT: b = &c->result[a->index]; break;
  case MD_NUM_SPACES: break;
  }
  MD_ASSERT(b, "argument in space %d", (int)a->space);
  return b->at ? (char *)b->at + a->offset : NULL;  // a space of no bytes has no address
}

// --- code

static bool find_kernels(cpu *c, md_diags *d) {
  const md_program *p = c->base.p;
  if (p->num_phases > 0 && !p->lookup)
    return md_error(d, E0634, place_of(p), "program '%s' has no code", p->name);
  for (int i = 0; i < p->num_phases; i++) {
    void *address = p->lookup(p->code, p->phase[i].symbol);
    if (!address)
      return md_error(d, E0634, place_of(p), "the code of '%s' has no kernel '%s'", p->name,
                      p->phase[i].symbol);
    memcpy(&c->kernel[i], &address, sizeof address);  // POSIX promises it, ISO C has no cast for it
  }
  return true;
}

static void run_item(void *ctx, int64_t item, int thread) {
  const job *j = ctx;
  j->run(j->arg, item, j->c->scratch[thread].at);
}

static void run_item_timed(void *ctx, int64_t item, int thread) {
  const job *j = ctx;
  share *s = &j->shares[thread];
  if (s->start_ns == 0) s->start_ns = md_now_ns();
  j->run(j->arg, item, j->c->scratch[thread].at);
  s->end_ns = md_now_ns();
}

static void run_phase_traced(cpu *c, const md_phase *f, job *j) {
  int threads = md_pool_threads(c->pool);
  j->shares = c->shares.at;
  memset(j->shares, 0, (size_t)threads * sizeof *j->shares);
  md_pool_run(c->pool, f->items, run_item_timed, j);
  for (int t = 0; t < threads; t++) {
    const share *s = &j->shares[t];
    if (s->start_ns) md_trace_span(c->base.trace, f->symbol, "share", t, s->start_ns, s->end_ns);
  }
}

// --- a step

static bool cpu_launch(md_device *v, int launch, md_diags *d) {
  (void)d;
  cpu *c = (cpu *)v;
  const md_launch *l = &v->p->launch[launch];
  for (int i = l->first_phase; i < l->first_phase + l->num_phases; i++) {
    const md_phase *f = &v->p->phase[i];
    job j = {.c = c, .run = c->kernel[i], .arg = c->arg + l->first_arg};
    if (v->trace) run_phase_traced(c, f, &j);
    else md_pool_run(c->pool, f->items, run_item, &j);
  }
  return true;
}

static bool cpu_end(md_device *v, md_diags *d) {
  (void)d;
  cpu *c = (cpu *)v;
  for (int i = 0; i < v->p->num_copies; i++) {
    const md_copy *k = &v->p->copy[i];
    memcpy(c->state[k->state].at, cpu_at(v, &k->src), (size_t)k->src.bytes);
  }
  return true;
}

static bool cpu_step(md_device *v, md_diags *d) {
  for (int i = 0; i < v->num_launches; i++) cpu_launch(v, i, d);
  return cpu_end(v, d);
}

static void cpu_mark(md_device *v, int i) { ((cpu *)v)->mark_ns[i] = md_now_ns(); }
static int64_t cpu_when(md_device *v, int i) { return ((cpu *)v)->mark_ns[i]; }

// --- all of it

static void cpu_close(md_device *v) {
  cpu *c = (cpu *)v;
  md_block_destroy(&c->arena);
  md_block_destroy(&c->workspace);
  md_block_destroy(&c->shares);
  destroy_blocks(c->input, v->p->num_inputs);
  destroy_blocks(c->state, v->p->num_states);
  destroy_blocks(c->result, v->p->num_results);
  destroy_blocks(c->scratch, md_pool_threads(c->pool));
  free(c->kernel);
  free(c->arg);
  free(c->mark_ns);
  free(c);
}

static const md_device_kind kind = {.is_host = true,
                                    .close = cpu_close,
                                    .at = cpu_at,
                                    .step = cpu_step,
                                    .launch = cpu_launch,
                                    .end = cpu_end,
                                    .mark = cpu_mark,
                                    .when = cpu_when};

md_device *md_device_open_cpu(const md_program *p, const md_exec_options *o, md_pool *pool,
                              md_diags *d) {
  cpu *c = zeroed(1, sizeof *c);
  c->base = (md_device){.kind = &kind,
                        .p = p,
                        .name = "cpu",
                        .title = "cpu",
                        .num_launches = p->num_launches,
                        .num_all = p->num_launches};
  c->pool = pool;
  c->input = zeroed(p->num_inputs, sizeof *c->input);
  c->state = zeroed(p->num_states, sizeof *c->state);
  c->result = zeroed(p->num_results, sizeof *c->result);
  c->scratch = zeroed(md_pool_threads(pool), sizeof *c->scratch);
  c->kernel = zeroed(p->num_phases, sizeof *c->kernel);
  c->arg = zeroed(p->num_args, sizeof *c->arg);
  c->mark_ns = zeroed(2 * (int64_t)p->num_launches, sizeof *c->mark_ns);
  if (!find_kernels(c, d) || !allocate(c, o->memory_limit, d)) {
    cpu_close(&c->base);
    return NULL;
  }
  // Arguments that no launch uses were not checked and stay NULL.
  for (int i = 0; i < p->num_launches; i++) {
    const md_launch *l = &p->launch[i];
    for (int k = l->first_arg; k < l->first_arg + l->num_args; k++)
      c->arg[k] = cpu_at(&c->base, &p->arg[k]);
  }
  for (int i = 0; i < p->num_inputs; i++)
    if (c->input[i].at) memset(c->input[i].at, 0, c->input[i].bytes);
  return &c->base;
}
