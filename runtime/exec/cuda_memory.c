// SPDX-License-Identifier: Apache-2.0
// The memory of a program on a GPU, one allocation:
//
//   arena | workspace, tensor maps | arrival | inputs | states | results
//
// Inputs come from host memory that is locked into place, by one copy for all of them, to where they
// arrive; from there the step takes them. So the next ones can be sent while kernels still read. Small
// results go to locked memory at the end of each step; large ones are read when somebody asks.
#include "runtime/exec/cuda.h"

#include <stdlib.h>
#include <string.h>

enum { SMALL = 64 << 10 };  // bytes of a result that comes along with each step

#ifdef MODIST_HOSTILE_ARENA
enum { FRESH = 0xFF };  // every float of it is a NaN
#else
enum { FRESH = 0 };
#endif

static int64_t padded(int64_t bytes) { return md_round_up(bytes, MD_DEVICE_ALIGN); }

static int64_t *offsets(int num) { return md_calloc((size_t)num + 1, sizeof(int64_t)); }

// The offset behind the last is their size.
static int64_t *line_up(const md_spec *s, int num) {
  int64_t *o = offsets(num);
  for (int i = 0; i < num; i++) o[i + 1] = o[i] + padded(s[i].bytes);
  return o;
}

// Sums cannot overflow: md_demand_of has added them up.
static void lay_out(md_cuda *c, const md_demand *n) {
  const md_program *p = c->base.p;
  md_cuda_layout *m = &c->memory;
  m->input = line_up(p->input, p->num_inputs);
  m->state = line_up(p->state, p->num_states);
  m->result = offsets(p->num_results);
  for (int i = 0; i < p->num_results; i++) {
    bool is_own = p->result_at[i].space == MD_IN_RESULT;
    m->result[i + 1] = m->result[i] + (is_own ? padded(p->result[i].bytes) : 0);
  }
  m->inputs_bytes = m->input[p->num_inputs];
  m->workspace = n->arena;
  m->maps = m->workspace + padded(p->workspace_bytes);
  m->arrival = m->workspace + n->workspace;
  m->inputs = m->arrival + m->inputs_bytes;
  m->states = m->inputs + m->inputs_bytes;
  m->results = m->states + n->states;
  m->bytes = n->total;
}

static bool refuse(md_cuda *c, const md_demand *n, const char *why, md_diags *d) {
  md_demand_refused(c->base.p, n, E0643, why, d);
  md_hint(d, "nvidia-smi shows which processes hold memory of the device");
  return false;
}

static bool allocate(md_cuda *c, const md_demand *n, md_diags *d) {
  md_cuda_layout *m = &c->memory;
  size_t left = 0, all = 0;
  char why[300], text[MD_FLOAT_CHARS], words[MD_DRIVER_WORDS];
  if (!md_cuda_did(c, "cuMemGetInfo", -1, c->call.cuMemGetInfo(&left, &all), d)) return false;
  if ((size_t)m->bytes > left) {
    snprintf(why, sizeof why, "%s are free on %s", md_bytes_text((double)left, text),
             c->base.title);
    return refuse(c, n, why, d);
  }
  if (m->bytes == 0) return true;
  int error = c->call.cuMemAlloc(&m->at, (size_t)m->bytes);
  if (error == MD_CUDA_OUT_OF_MEMORY) {
    snprintf(why, sizeof why, "%s did not give it: %s", c->base.title,
             md_driver_words(&c->call, error, words));
    return refuse(c, n, why, d);
  }
  if (!md_cuda_did(c, "cuMemAlloc", -1, error, d)) return false;
  error = c->call.cuMemsetD8Async(m->at, FRESH, (size_t)m->bytes, c->stream);
  if (!md_cuda_did(c, "cuMemsetD8Async", -1, error, d)) return false;
  // The first inputs arrive by another stream.
  return md_cuda_wait(c, -1, d);
}

// It is the host that has too little, not the device.
static bool refuse_lock(md_cuda *c, int64_t bytes, const char *what, int error, md_diags *d) {
  const md_program *p = c->base.p;
  char text[MD_FLOAT_CHARS], words[MD_DRIVER_WORDS];
  md_error(d, E0802, p->path ? MD_IN_FILE(p->path) : MD_NOWHERE,
           "%s of program '%s' need %s of the host's memory, locked into place for %s, but "
           "cuMemHostAlloc fails with %d, %s",
           what, p->name, md_bytes_text((double)bytes, text), c->base.title, error,
           md_driver_words(&c->call, error, words));
  md_hint(d, "too little of it is free, or a limit is in the way: of the container (cgroup) or of "
             "locked memory (ulimit -l)");
  return false;
}

static bool lock(md_cuda *c, char **at, int64_t bytes, const char *what, md_diags *d) {
  if (bytes == 0) return true;
  void *locked = NULL;
  int error = c->call.cuMemHostAlloc(&locked, (size_t)bytes, 0);
  if (error == MD_CUDA_OUT_OF_MEMORY) return refuse_lock(c, bytes, what, error, d);
  if (!md_cuda_did(c, "cuMemHostAlloc", -1, error, d)) return false;
  memset(locked, 0, (size_t)bytes);
  *at = locked;
  return true;
}

bool md_cuda_memory_create(md_cuda *c, int64_t limit, md_diags *d) {
  const md_program *p = c->base.p;
  md_cuda_layout *m = &c->memory;
  md_demand n = md_demand_of(p, 1);
  if (!md_demand_within(p, &n, limit, d)) return false;
  lay_out(c, &n);
  c->base.bytes = m->bytes;
  int64_t small = 0;
  m->result_host = offsets(p->num_results);
  for (int i = 0; i < p->num_results; i++) {
    bool is_small = p->result[i].bytes <= SMALL;
    m->result_host[i] = is_small ? small : -1;
    if (is_small) small += padded(p->result[i].bytes);
  }
  return allocate(c, &n, d) && lock(c, &m->inputs_host, m->inputs_bytes, "inputs", d) &&
         lock(c, &m->results_host, small, "results", d);
}

void md_cuda_memory_destroy(md_cuda *c) {
  md_cuda_layout *m = &c->memory;
  if (m->at) c->call.cuMemFree(m->at);
  if (m->inputs_host) c->call.cuMemFreeHost(m->inputs_host);
  if (m->results_host) c->call.cuMemFreeHost(m->results_host);
  free(m->input);
  free(m->state);
  free(m->result);
  free(m->result_host);
}

md_gpu_place md_cuda_place(const md_cuda *c, const md_arg *a) {
  const md_cuda_layout *m = &c->memory;
  int64_t at = -1;
  switch (a->space) {
  case MD_IN_ARENA: at = 0; break;
  case MD_IN_WORKSPACE: at = m->workspace; break;
  case MD_IN_INPUT: at = m->inputs + m->input[a->index]; break;
  case MD_IN_STATE: at = m->states + m->state[a->index]; break;
  case MD_IN_RESULT: at = m->results + m->result[a->index]; break;
  case MD_NUM_SPACES: break;
  }
  MD_ASSERT(at >= 0, "argument in space %d", (int)a->space);
  return m->at + (md_gpu_place)(at + a->offset);
}
