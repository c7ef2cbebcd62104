// SPDX-License-Identifier: Apache-2.0
// A graph on another machine: an artefact, its inputs as files, modist_rt, its results as files.
//   MODIST_TEST_CPU  the target, such as aarch64
//   MODIST_TEST_RT   the command that runs an artefact there: "qemu-aarch64 -L ... modist_rt"
// States begin by their rules, and every step has the same inputs.
#include "tests/unit/against_interpreter.h"

#include "base/file.h"
#include "tests/unit/folder.h"

#include <stdlib.h>
#include <string.h>

enum { SEED = 7 };

bool is_elsewhere(void) { return getenv("MODIST_TEST_RT") != NULL; }

static const char *in_arena(md_arena *a, const char *kind, int i) {
  return md_format(a, "%s/%s%d.npy", folder, kind, i);
}

static void write_inputs(const md_program *p, md_interp *in, md_arena *a, md_text *command) {
  for (int i = 0; i < p->num_inputs; i++) {
    const md_spec *s = &p->input[i];
    md_tensor *t = md_interp_input(in, s->name);
    fill(t, s->name, 0);
    void *memory = md_alloc(a, (size_t)s->bytes);
    md_tensor_write(t, memory);
    const char *path = in_arena(a, "input", i);
    ck_assert(md_npy_write(path, s, memory, NULL));
    md_put(command, " '--input=%s=%s'", s->name, path);
  }
}

static void begin_states(const md_program *p, md_interp *in, md_arena *a) {
  void **state = MD_NEW_ARRAY(a, void *, p->num_states + 1);
  for (int i = 0; i < p->num_states; i++) state[i] = md_alloc(a, (size_t)p->state[i].bytes);
  md_pool *pool = md_pool_create(1);
  md_fill_states(p, SEED, pool, state);
  md_pool_destroy(pool);
  for (int i = 0; i < p->num_states; i++)
    md_tensor_read(md_interp_state(in, p->state[i].name), state[i]);
}

static void run_there(const md_text *command, const char *text) {
  int status = system(command->s);
  if (status == 0) return;
  md_text said = {0};
  md_file_read(in_folder("log"), 1 << 20, E0601, NULL, &said.s, &said.len);
  ck_abort_msg("%.2000s: status %d\n%.1000s\n%.2000s", command->s, status, said.s ? said.s : "",
               text);
}

static const void *output(md_arena *a, const char *kind, int i, const md_spec *s) {
  void *memory = md_alloc(a, (size_t)s->bytes);
  md_diags *d = md_diags_create();
  ck_assert_msg(md_npy_read(in_arena(a, kind, i), s, memory, d), "%s", md_diags_text(d));
  md_diags_destroy(d);
  return memory;
}

void check_elsewhere(const char *text, const Setup *s) {
  CpuName cpu = cpu_name(s, getenv("MODIST_TEST_CPU"));
  const md_cpu_options o = {.cpu = cpu.s, .no_cache = true, .no_code = true, .want_image = true};
  Setup there = *s;
  there.cpu = o.cpu;
  md_graph *plain = parse(text);
  md_program *p = compiled(text, &there, &o);
  md_interp *in = md_interp_create(plain, !s->length);
  md_arena *a = md_arena_create();
  make_empty_folder();
  ck_assert(md_program_save(p, in_folder("graph.mdx"), NULL));
  int steps = MD_MAX(s->steps, 1);
  md_text command = {0};
  md_put(&command, "%s '%s' --threads=2 --seed=%d --steps=%d", getenv("MODIST_TEST_RT"),
         in_folder("graph.mdx"), SEED, steps);
  write_inputs(p, in, a, &command);
  begin_states(p, in, a);
  for (int i = 0; i < p->num_results; i++)
    md_put(&command, " '--output=%s=%s'", p->result[i].name, in_arena(a, "result", i));
  for (int i = 0; i < p->num_states; i++)
    md_put(&command, " '--output=%s=%s'", p->state[i].name, in_arena(a, "state", i));
  md_put(&command, " >'%s' 2>&1", in_folder("log"));
  run_there(&command, text);
  for (int i = 0; i < steps; i++) ck_assert(md_interp_step(in, NULL));
  for (int i = 0; i < plain->num_results; i++)
    compare(p->result[i].name, md_interp_value(in, plain->result[i].val),
            output(a, "result", i, &p->result[i]), &there, text);
  for (int i = 0; i < p->num_states; i++)
    compare(p->state[i].name, md_interp_state(in, p->state[i].name),
            output(a, "state", i, &p->state[i]), &there, text);
  remove_folder();
  md_text_free(&command);
  md_arena_destroy(a);
  md_interp_destroy(in);
  md_program_destroy(p);
  md_graph_destroy(plain);
}
