// SPDX-License-Identifier: Apache-2.0
// The memory of a run. All of it is known before anything runs: everything that shows or limits a plan
// asks here.
#include "runtime/exec/device.h"

#include <string.h>

static int64_t sum_of(const md_spec *s, int num, int64_t align) {
  int64_t sum = 0;
  for (int i = 0; i < num; i++)
    if (!md_add_size(sum, md_round_up(s[i].bytes, align), &sum)) return INT64_MAX;
  return sum;
}

int64_t md_tensor_maps_bytes(const md_program *p) {
  int64_t bytes = 0;
  for (int i = 0; i < p->num_args; i++) bytes += p->arg[i].windows ? MD_TENSOR_MAP_BYTES : 0;
  return bytes;
}

// A GPU has the inputs twice: while one set is read, the next one arrives. Tensor maps lie behind the workspace.
md_demand md_demand_of(const md_program *p, int threads) {
  int64_t align = p->num_variants ? MD_DEVICE_ALIGN : 1, scratch = 0;
  md_demand n = {.arena = md_round_up(p->arena_bytes, align),
                 .workspace = md_round_up(p->workspace_bytes, align)};
  n.workspace += md_round_up(md_tensor_maps_bytes(p), align);
  n.inputs = sum_of(p->input, p->num_inputs, align);
  if (p->num_variants && !md_add_size(n.inputs, n.inputs, &n.inputs)) n.inputs = INT64_MAX;
  n.states = sum_of(p->state, p->num_states, align);
  for (int i = 0; i < p->num_results; i++)
    if (p->result_at[i].space == MD_IN_RESULT) n.results += md_round_up(p->result[i].bytes, align);
  for (int i = 0; i < p->num_phases; i++) scratch = MD_MAX(scratch, p->phase[i].scratch_bytes);
  n.scratch = scratch * threads;
  const int64_t parts[] = {n.arena, n.workspace, n.inputs, n.states, n.results, n.scratch};
  for (int i = 0; i < MD_COUNT(parts); i++)
    if (!md_add_size(n.total, parts[i], &n.total)) n.total = INT64_MAX;
  return n;
}

bool md_launch_is_again(const md_launch *l) {
  size_t len = strlen(l->name), end = strlen(MD_AGAIN);
  return len > end && strcmp(l->name + len - end, MD_AGAIN) == 0;
}

int md_program_launches(const md_program *p, int *first) {
  *first = p->num_variants ? p->variant[0].first_launch : 0;
  return p->num_variants ? p->variant[0].num_launches : p->num_launches;
}

md_again md_program_again(const md_program *p) {
  int first;
  md_again again = {.of = md_program_launches(p, &first)};
  double flops = 0, bytes = 0;
  for (int i = first; i < first + again.of; i++) {
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

static void put_parts(const md_program *p, const md_demand *n, const char *whose, md_diags *d) {
  char t[5][MD_FLOAT_CHARS];
  md_note(d, MD_NOWHERE, "%sarena %s, states %s, inputs %s, workspace %s, scratch %s", whose,
          md_bytes_text((double)n->arena, t[0]), md_bytes_text((double)n->states, t[1]),
          md_bytes_text((double)n->inputs, t[2]), md_bytes_text((double)n->workspace, t[3]),
          md_bytes_text((double)n->scratch, t[4]));
  md_again again = md_program_again(p);
  if (again.launches)
    md_note(d, MD_NOWHERE, "that is with %d of %d kernels computing values again", again.launches,
            again.of);
}

void md_demand_tell(const md_program *p, md_diags *d) {
  md_demand n = md_demand_of(p, 1);
  char whose[400], text[MD_FLOAT_CHARS];
  if (n.total == 0) return;
  snprintf(whose, sizeof whose, "the plan of program '%.*s' takes %s of memory: ", 300, p->name,
           md_bytes_text((double)n.total, text));
  put_parts(p, &n, whose, d);
}

bool md_demand_refused(const md_program *p, const md_demand *n, md_code code, const char *why,
                       md_diags *d) {
  char text[MD_FLOAT_CHARS];
  md_place at = p->path ? MD_IN_FILE(p->path) : MD_NOWHERE;
  md_error(d, code, at, "program '%s' needs %s of memory, but %s", p->name,
           md_bytes_text((double)n->total, text), why);
  put_parts(p, n, "", d);
  md_hint(d, "a smaller batch, clip or bank needs less");
  return false;
}

bool md_demand_within(const md_program *p, const md_demand *n, int64_t limit, md_diags *d) {
  if (limit <= 0 || n->total <= limit) return true;
  char why[64], text[MD_FLOAT_CHARS];
  snprintf(why, sizeof why, "%s are allowed", md_bytes_text((double)limit, text));
  return md_demand_refused(p, n, E0803, why, d);
}

static int threads_or_default(int threads) { return threads > 0 ? threads : md_pool_default(); }

int64_t md_program_bytes(const md_program *p, int threads) {
  return md_demand_of(p, threads_or_default(threads)).total;
}

bool md_program_fits(const md_program *p, int threads, int64_t limit, md_diags *d) {
  md_demand n = md_demand_of(p, threads_or_default(threads));
  return md_demand_within(p, &n, limit, d);
}

bool md_program_fits_on(const md_program *p, int64_t bytes, const char *device, md_diags *d) {
  md_demand n = md_demand_of(p, 0);
  if (n.total <= bytes) return true;
  char why[300], text[MD_FLOAT_CHARS];
  snprintf(why, sizeof why, "%s has %s", device, md_bytes_text((double)bytes, text));
  return md_demand_refused(p, &n, E0643, why, d);
}
