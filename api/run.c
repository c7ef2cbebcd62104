// SPDX-License-Identifier: Apache-2.0
// Executing programs: named memory for inputs, states and results, and one call for a step.
#include "api/internal.h"

#include <stdlib.h>

struct modist_run {
  md_exec *exec;
  md_diags *diags;  // errors of the last step
};

md_status modist_run_create(const modist_program *p, const modist_run_options *given,
                            modist_run **run) {
  *run = NULL;
  modist_run_options o = {0};
  md_diags *d = md_diags_create();
  if (!md_api_options(&o, sizeof o, given, "modist_run_options", d)) return md_api_fail(d);
  if (o.threads < 0 || o.threads > 1024) {
    md_error(d, E0407, MD_NOWHERE, "threads is %d; it is 0 (all cores) to 1024", o.threads);
    return md_api_fail(d);
  }
  md_exec_options x = {
      .threads = o.threads, .seed = o.seed, .check_nan = o.check_nan != 0, .device = o.device};
  md_exec *exec = md_exec_create(p->program, &x, d);
  if (!exec) return md_api_fail(d);
  *run = md_calloc(1, sizeof **run);
  (*run)->exec = exec;
  (*run)->diags = d;
  return MD_OK;
}

void modist_run_destroy(modist_run *r) {
  if (!r) return;
  md_exec_destroy(r->exec);
  md_diags_destroy(r->diags);
  free(r);
}

// What a GPU does not give is an error of the run; a name that nobody knows is none.
static size_t bytes_at(modist_run *r, const void *at, const md_spec *spec) {
  if (at) return (size_t)spec->bytes;
  if (!spec) return 0;
  md_diags_clear(r->diags);
  if (md_exec_is_alive(r->exec, r->diags))
    md_error(r->diags, E0802, MD_NOWHERE, "no memory for a copy of '%s'", spec->name);
  return 0;
}

void *modist_run_input(modist_run *r, const char *name, size_t *bytes) {
  const md_spec *spec = NULL;
  void *at = md_exec_input(r->exec, name, &spec);
  size_t num = bytes_at(r, at, spec);
  if (bytes) *bytes = num;
  return at;
}

void *modist_run_state(modist_run *r, const char *name, size_t *bytes) {
  const md_spec *spec = NULL;
  void *at = md_exec_state(r->exec, name, &spec);
  size_t num = bytes_at(r, at, spec);
  if (bytes) *bytes = num;
  return at;
}

const void *modist_run_result(modist_run *r, const char *name, size_t *bytes) {
  const md_spec *spec = NULL;
  const void *at = md_exec_result(r->exec, name, &spec);
  size_t num = bytes_at(r, at, spec);
  if (bytes) *bytes = num;
  return at;
}

md_status modist_run_step(modist_run *r) {
  md_diags_clear(r->diags);
  return md_exec_step(r->exec, r->diags) ? MD_OK : md_diags_status(r->diags);
}

const char *modist_run_error(const modist_run *r) { return md_diags_text(r->diags); }
