// SPDX-License-Identifier: Apache-2.0
// Compiling, saving and loading programs.
#include "api/internal.h"

#include "codegen/cpu/cpu.h"
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

// The passes take the graph they get, and the caller's stays as it was.
static md_graph *copy_of(const md_graph *g, md_diags *d) {
  md_text t = {0};
  md_graph_print(g, &t);
  md_graph *copy = md_parse_graph(g->name, t.s, t.len, d);
  md_text_free(&t);
  return copy;
}

static bool pass_options(const modist_compile_options *o, md_pass_options *passes, md_diags *d) {
  *passes = md_pass_defaults();
  if (o->opt_level_plus1 < 0 || o->opt_level_plus1 > 3)
    return md_error(d, E0407, MD_NOWHERE, "opt_level_plus1 is %d; it is 0 to 3",
                    o->opt_level_plus1);
  if (o->precision != MD_NO_DTYPE && o->precision != MD_F32 && o->precision != MD_BF16)
    return md_error(d, E0407, MD_NOWHERE, "precision is %d; it is MD_F32, MD_BF16 or 0",
                    (int)o->precision);
  if (o->opt_level_plus1) passes->level = o->opt_level_plus1 - 1;
  passes->precision = o->precision ? o->precision : MD_F32;
  const md_cpu *cpu = md_cpu_find(o->cpu, true, d);
  if (cpu) passes->facts = md_cpu_facts(cpu);
  return cpu != NULL;
}

static bool compile(modist_program *p, const md_graph *g, const modist_compile_options *o,
                    md_diags *d) {
  md_pass_options passes;
  if (!pass_options(o, &passes, d)) return false;
  md_graph *copy = copy_of(g, d);
  p->graph = copy ? md_run_passes(copy, &passes, NULL, d) : NULL;
  if (!p->graph) return false;
  p->no_cache = o->no_cache != 0;
  p->cpu = o->cpu ? strdup(o->cpu) : NULL;
  md_cpu_options c = {.cpu = p->cpu, .no_cache = p->no_cache, .want_graph_text = true};
  p->program = md_cpu_compile(p->graph, &c, NULL, d);
  return p->program != NULL;
}

static modist_program *program_handle(void) {
  modist_program *p = md_calloc(1, sizeof *p);
  p->diags = md_diags_create();
  return p;
}

md_status modist_compile(modist_graph *h, const modist_compile_options *given,
                         modist_program **program) {
  *program = NULL;
  md_diags_clear(h->compile);
  if (md_diags_errors(h->b.diags)) return md_diags_status(h->b.diags);
  modist_compile_options o = {0};
  modist_program *p = program_handle();
  if (md_api_options(&o, sizeof o, given, "modist_compile_options", h->compile) &&
      compile(p, h->b.g, &o, h->compile)) {
    *program = p;
    return MD_OK;
  }
  modist_program_destroy(p);
  return md_diags_status(h->compile);
}

// Most programs are never saved, so the linker is asked only here; the kernels come from the cache.
static bool link_image(modist_program *p) {
  if (p->program->image || !p->graph) return true;
  md_cpu_options o = {.cpu = p->cpu,
                      .no_cache = p->no_cache,
                      .want_image = true,
                      .no_code = true,
                      .want_graph_text = true};
  md_program *linked = md_cpu_compile(p->graph, &o, NULL, p->diags);
  if (!linked) return false;
  // Runs hold the program; it gets the image, and keeps its own code.
  void *image = md_alloc(p->program->arena, linked->image_bytes);
  memcpy(image, linked->image, linked->image_bytes);
  p->program->image = image;
  p->program->image_bytes = linked->image_bytes;
  md_program_destroy(linked);
  return true;
}

md_status modist_program_save(modist_program *p, const char *path) {
  md_diags_clear(p->diags);
  if (link_image(p) && md_program_save(p->program, path, p->diags)) return MD_OK;
  return md_diags_status(p->diags);
}

md_status modist_program_load(const char *path, modist_program **program) {
  *program = NULL;
  md_diags *d = md_diags_create();
  md_program *loaded = md_program_load(path, d);
  if (!loaded) return md_api_fail(d);
  md_diags_destroy(d);
  *program = program_handle();
  (*program)->program = loaded;
  return MD_OK;
}

void modist_program_destroy(modist_program *p) {
  if (!p) return;
  if (p->program) md_program_destroy(p->program);
  if (p->graph) md_graph_destroy(p->graph);
  md_diags_destroy(p->diags);
  free(p->cpu);
  free(p);
}

const char *modist_program_error(const modist_program *p) { return md_diags_text(p->diags); }

int64_t modist_program_arena_bytes(const modist_program *p) { return p->program->arena_bytes; }

int modist_program_launches(const modist_program *p) { return p->program->num_launches; }

const char *modist_program_launch_name(const modist_program *p, int i) {
  return i >= 0 && i < p->program->num_launches ? p->program->launch[i].name : NULL;
}
