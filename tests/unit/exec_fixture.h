// SPDX-License-Identifier: Apache-2.0
// A small program for tests of the executor and of artefacts, with the kernels of exec_kernels.c:
//
//   launch scale:  y = 2 x + w     x: input f32[4096], w: state f32[4096], y: arena
//   launch sum:    loss = sum(y)   partial sums in the workspace, then one item; step: state i32[]
//   at the end:    w takes y       (step is updated in place)
#ifndef TESTS_UNIT_EXEC_FIXTURE_H
#define TESTS_UNIT_EXEC_FIXTURE_H

#include "base/init.h"
#include "runtime/exec/exec.h"

#include <dlfcn.h>
#include <string.h>

enum { ELEMENTS = 4096, PIECES = 16, Y_AT = 128 };  // y lies at 128 in the arena

static void *find_symbol(void *code, const char *symbol) { return dlsym(code, symbol); }

static void close_code(void *code) { dlclose(code); }

static md_spec f32_spec(const char *name, int64_t n) {
  return (md_spec){.name = name, .dtype = MD_F32, .rank = 1, .dim = {n}, .bytes = 4 * n};
}

static md_arg f32_arg(md_space space, int index, int64_t offset, int64_t n, const char *name,
                      bool write) {
  return (md_arg){.space = space,
                  .index = index,
                  .offset = offset,
                  .bytes = 4 * n,
                  .write = write,
                  .name = name,
                  .dtype = MD_F32,
                  .rank = 1,
                  .dim = {n}};
}

static md_arg scalar_arg(md_space space, int index, md_dtype t, const char *name) {
  return (md_arg){
      .space = space, .index = index, .bytes = 4, .write = true, .name = name, .dtype = t};
}

// Without code.
static md_program *bare_program(void) {
  md_program *p = md_program_create("fixture");
  md_arena *a = p->arena;
  p->target = "cpu:generic";
  p->graph = (md_digest){0x0123456789ABCDEF, 0xFEDCBA9876543210};
  p->arena_bytes = Y_AT + 4 * ELEMENTS;
  p->workspace_bytes = 4 * PIECES;
  p->graph_text = "graph @fixture() {}\n";

  p->input = MD_NEW_ARRAY(a, md_spec, p->num_inputs = 1);
  p->input[0] = f32_spec("x", ELEMENTS);
  p->state = MD_NEW_ARRAY(a, md_spec, p->num_states = 3);
  p->state[0] = f32_spec("w", ELEMENTS);
  p->state[0].init = MD_INIT_uniform;
  p->state[0].a = 0.25;
  p->state[0].b = 0.1;
  p->state[1] = (md_spec){.name = "step", .dtype = MD_I32, .bytes = 4};
  p->state[2] = f32_spec("w_ema", ELEMENTS);
  p->state[2].init = MD_INIT_copy;
  p->state[2].from = "w";
  p->result = MD_NEW_ARRAY(a, md_spec, p->num_results = 2);
  p->result_at = MD_NEW_ARRAY(a, md_arg, p->num_results);
  p->result[0] = (md_spec){.name = "loss", .dtype = MD_F32, .bytes = 4};
  p->result_at[0] = scalar_arg(MD_IN_RESULT, 0, MD_F32, "loss");
  p->result[1] = f32_spec("y", ELEMENTS);
  p->result_at[1] = f32_arg(MD_IN_ARENA, 0, Y_AT, ELEMENTS, "y", false);

  p->phase = MD_NEW_ARRAY(a, md_phase, p->num_phases = 3);
  p->phase[0] = (md_phase){.symbol = "scale", .items = PIECES, .scratch_bytes = 1024};
  p->phase[1] = (md_phase){.symbol = "partial", .items = PIECES, .scratch_bytes = 0};
  p->phase[2] = (md_phase){.symbol = "total", .items = 1, .scratch_bytes = 0};
  p->arg = MD_NEW_ARRAY(a, md_arg, p->num_args = 7);
  p->arg[0] = f32_arg(MD_IN_INPUT, 0, 0, ELEMENTS, "x", false);
  p->arg[1] = f32_arg(MD_IN_STATE, 0, 0, ELEMENTS, "w", false);
  p->arg[2] = f32_arg(MD_IN_ARENA, 0, Y_AT, ELEMENTS, "y", true);
  p->arg[3] = f32_arg(MD_IN_ARENA, 0, Y_AT, ELEMENTS, "y", false);
  p->arg[4] = (md_arg){.space = MD_IN_WORKSPACE, .bytes = 4 * PIECES, .write = true};
  p->arg[5] = scalar_arg(MD_IN_RESULT, 0, MD_F32, "loss");
  p->arg[6] = scalar_arg(MD_IN_STATE, 1, MD_I32, "step");
  p->launch = MD_NEW_ARRAY(a, md_launch, p->num_launches = 2);
  p->launch[0] = (md_launch){.name = "scale",
                             .num_phases = 1,
                             .num_args = 3,
                             .flops = 2 * ELEMENTS,
                             .bytes = 12 * ELEMENTS};
  p->launch[1] = (md_launch){.name = "sum",
                             .first_phase = 1,
                             .num_phases = 2,
                             .first_arg = 3,
                             .num_args = 4,
                             .flops = ELEMENTS,
                             .bytes = 18432};
  p->copy = MD_NEW_ARRAY(a, md_copy, p->num_copies = 1);
  p->copy[0] = (md_copy){0, f32_arg(MD_IN_ARENA, 0, Y_AT, ELEMENTS, "y", false)};
  return p;
}

// `kernels`: path of the shared object.
static md_program *fixture(const char *kernels) {
  md_program *p = bare_program();
  p->code = dlopen(kernels, RTLD_NOW | RTLD_LOCAL);
  p->lookup = find_symbol;
  p->code_free = close_code;
  return p;
}

static inline void set_input(md_exec *e, int64_t step) {
  float *x = md_exec_input(e, "x", NULL);
  uint64_t key = md_hash_key("x", (uint64_t)step);
  for (int64_t i = 0; i < ELEMENTS; i++) x[i] = (float)md_hash_unit(key, (uint64_t)i);
}

#endif
