// SPDX-License-Identifier: Apache-2.0
// One face for compiled programs, on the CPU or a GPU, and the interpreter, so that everything above can
// run on any of them.
#include "runtime/train/train.h"

#include "base/log.h"
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

// Memory that the interpreter's double tensors are read from and written to.
typedef struct Mirror {
  md_tensor *tensor;
  void *data;
} Mirror;

struct md_engine {
  md_graph *graph;
  bool check_nan;
  md_program *program;
  md_exec *exec;
  md_interp *interp;
  Mirror *mirror;  // by md_val of input or state; interpreter only
  int num_states;
  const char **state;  // names
};

static void list_states(md_engine *e) {
  const md_graph *g = e->graph;
  e->state = md_calloc((size_t)g->num_nodes + 1, sizeof *e->state);
  for (int i = 0; i < g->num_nodes; i++)
    if (g->node[i]->op == MD_OP_state) e->state[e->num_states++] = g->node[i]->name;
}

static bool make_interp(md_engine *e, const md_engine_options *o, md_diags *d) {
  const md_graph *g = e->graph;
  if (o->memory_limit) {
    md_error(d, E0401, MD_NOWHERE,
             "the interpreter has no memory plan that a limit could be put on");
    md_hint(d, "--memory-limit goes with --backend=cpu");
    return false;
  }
  e->interp = md_interp_create(g, true);
  e->mirror = calloc((size_t)g->num_values + 1, sizeof *e->mirror);
  if (!e->interp || !e->mirror)
    return md_error(d, E0802, MD_NOWHERE, "not enough memory for the interpreter");
  for (int i = 0; i < g->num_nodes; i++) {
    const md_node *n = g->node[i];
    if (n->op != MD_OP_state && n->op != MD_OP_input) continue;
    md_tensor *t = n->op == MD_OP_state ? md_interp_state(e->interp, n->name)
                                        : md_interp_input(e->interp, n->name);
    if (n->op == MD_OP_state) md_state_fill(g, n->out, o->seed, t);
    Mirror *m = &e->mirror[n->out];
    m->tensor = t;
    m->data = calloc(1, (size_t)md_type_bytes(&t->type));
    if (!m->data) return md_error(d, E0802, MD_NOWHERE, "not enough memory for the interpreter");
    md_tensor_write(t, m->data);
  }
  return true;
}

// Some more do no harm. With many, each step waits for threads that have no core.
void md_engine_warn_of_threads(int threads, md_diags *d) {
  int cores = md_pool_default();
  if (threads <= 2 * cores) return;
  md_warning(d, MD_NOWHERE,
             "%d threads compute, but the process may use %d core%s: steps become slower", threads,
             cores, cores == 1 ? "" : "s");
  md_hint(d, "0 threads take all cores that affinity and control groups allow");
}

static bool start(md_engine *e, const md_engine_options *o, md_diags *d) {
  md_exec_options x = {.device = o->device,
                       .threads = o->threads,
                       .seed = o->seed,
                       .check_nan = o->check_nan,
                       .engine = o->engine,
                       .deterministic = o->deterministic,
                       .no_cache = o->no_cache,
                       .time = o->time || !e->program->num_variants,
                       .memory_limit = o->memory_limit};
  if (!e->program->num_variants) md_engine_warn_of_threads(o->threads, d);
  e->exec = md_exec_create(e->program, &x, d);
  return e->exec != NULL;
}

// What a back end is asked for, and what the passes have to know of it.
typedef struct Backend {
  md_cpu_options cpu;
  md_cuda_options cuda;
  md_gpu_device device;
  char target[32];      // of the GPU
  md_records *records;  // of tuning
} Backend;

static bool ask_cpu(Backend *b, const md_engine_options *o, md_pass_options *passes, md_diags *d) {
  const md_cpu *cpu = md_cpu_find(o->cpu, true, d);
  if (!cpu) return false;
  b->cpu = (md_cpu_options){
      .cpu = o->cpu, .asan = o->asan, .no_cache = o->no_cache, .want_graph_text = true};
  passes->facts = md_cpu_facts(cpu);
  passes->memory = md_cpu_memory(cpu, o->memory_limit, o->threads);
  return true;
}

static bool ask_cuda(Backend *b, const md_engine_options *o, md_pass_options *passes, md_diags *d) {
  int index;
  if (!md_device_parse(o->device ? o->device : "cuda:0", &index, d) ||
      !md_gpu_require(index, &b->device, d) ||
      !md_cuda_target_for(b->device.sm, b->target, sizeof b->target, d) ||
      !md_cuda_is_loaded_by(b->device.driver, d) || !md_cuda_facts(b->target, &passes->facts, d))
    return false;
  if (!o->no_cache && !o->deterministic) b->records = md_records_kept(d);
  bool is_apart = o->verifies || o->check_nan || o->engine == MD_ENGINE_CUDNN;
  b->cuda = (md_cuda_options){
      .targets = b->target,
      .how = {.is_apart = is_apart, .records = b->records, .device = b->device.name},
      .no_ptx = true,
      .no_cache = o->no_cache,
      .want_graph_text = true};
  passes->memory = md_cuda_memory(&b->cuda, o->memory_limit);
  return true;
}

static bool make_program(md_engine *e, const md_engine_options *o, const Backend *b, md_diags *d) {
  md_cuda_report r = {0};
  e->program = o->backend == MD_BACKEND_CUDA ? md_cuda_program(e->graph, &b->cuda, &r, d)
                                             : md_cpu_compile(e->graph, &b->cpu, NULL, d);
  if (r.known)
    md_log(MD_LOG_EXEC, MD_LEVEL_INFO, "tuned: %d of %d products by records, %d other than untuned",
           r.known, r.products, r.changed);
  return e->program && start(e, o, d);
}

static bool make_graph(md_engine *e, md_graph *take_g, const md_engine_options *o, Backend *b,
                       md_diags *d) {
  md_pass_options passes = o->passes;
  bool ok = true;
  if (o->backend == MD_BACKEND_CPU) ok = ask_cpu(b, o, &passes, d);
  if (o->backend == MD_BACKEND_CUDA) ok = ask_cuda(b, o, &passes, d);
  if (ok) e->graph = md_run_passes(take_g, &passes, NULL, d);
  else md_graph_destroy(take_g);
  if (e->graph) list_states(e);
  return e->graph != NULL;
}

md_engine *md_engine_create(md_graph *g, const md_engine_options *o, md_diags *d) {
  md_engine *e = md_calloc(1, sizeof *e);
  Backend b = {0};
  bool ok = make_graph(e, g, o, &b, d);
  if (ok) ok = o->backend == MD_BACKEND_INTERP ? make_interp(e, o, d) : make_program(e, o, &b, d);
  md_records_destroy(b.records);
  if (ok) return e;
  md_engine_destroy(e);
  return NULL;
}

md_engine *md_engine_load(const char *path, const md_engine_options *o, md_diags *d) {
  md_engine *e = md_calloc(1, sizeof *e);
  e->program = md_program_load(path, d);
  const char *text = e->program ? e->program->graph_text : NULL;
  if (text) e->graph = md_parse_graph(path, text, strlen(text), d);
  else if (e->program) md_error(d, E0601, MD_IN_FILE(path), "the artefact holds no graph text");
  bool ok = e->graph && md_graph_verify(e->graph, d);
  if (ok) list_states(e);
  if (ok && start(e, o, d)) return e;
  md_engine_destroy(e);
  return NULL;
}

void md_engine_destroy(md_engine *e) {
  if (!e) return;
  for (int v = 0; e->mirror && v <= e->graph->num_values; v++) free(e->mirror[v].data);
  free(e->mirror);
  md_exec_destroy(e->exec);
  md_program_destroy(e->program);
  if (e->interp) md_interp_destroy(e->interp);
  if (e->graph) md_graph_destroy(e->graph);
  free(e->state);
  free(e);
}

void *md_engine_input(md_engine *e, const char *name, md_type *type) {
  md_val v = md_find_input(e->graph, name);
  if (v == MD_NONE) return NULL;
  if (type) *type = *md_type_in(e->graph, v);
  return e->interp ? e->mirror[v].data : md_exec_input(e->exec, name, NULL);
}

void *md_engine_state(md_engine *e, const char *name, md_type *type) {
  md_val v = md_find_state(e->graph, name);
  if (v == MD_NONE) return NULL;
  if (type) *type = *md_type_in(e->graph, v);
  return e->interp ? e->mirror[v].data : md_exec_state(e->exec, name, NULL);
}

const void *md_engine_view_state(md_engine *e, const char *name, md_type *type) {
  md_val v = md_find_state(e->graph, name);
  if (v == MD_NONE) return NULL;
  if (type) *type = *md_type_in(e->graph, v);
  return e->interp ? e->mirror[v].data : md_exec_view_state(e->exec, name, NULL);
}

int md_engine_num_states(const md_engine *e) { return e->num_states; }
const char *md_engine_state_name(const md_engine *e, int i) { return e->state[i]; }

bool md_engine_result(md_engine *e, const char *name, double *out, int64_t n) {
  md_val v = md_find_result(e->graph, name);
  if (v == MD_NONE) return false;
  if (e->interp) {
    const md_tensor *t = md_interp_value(e->interp, v);
    if (!t || md_elements(&t->type.shape) != n) return false;
    for (int64_t i = 0; i < n; i++) out[i] = t->f ? t->f[i] : (double)t->i[i];
    return true;
  }
  const md_spec *spec;
  const void *src = md_exec_result(e->exec, name, &spec);
  md_tensor *t = md_tensor_create(*md_type_in(e->graph, v));
  bool ok = src && t && md_elements(&t->type.shape) == n;
  if (ok) {
    md_tensor_read(t, src);
    for (int64_t i = 0; i < n; i++) out[i] = t->f ? t->f[i] : (double)t->i[i];
  }
  md_tensor_destroy(t);
  return ok;
}

static bool interp_step(md_engine *e, md_diags *d) {
  const md_graph *g = e->graph;
  for (int v = 1; v <= g->num_values; v++)
    if (e->mirror[v].data) md_tensor_read(e->mirror[v].tensor, e->mirror[v].data);
  if (!md_interp_step(e->interp, d)) return false;
  for (int v = 1; v <= g->num_values; v++) {
    Mirror *m = &e->mirror[v];
    if (!m->data || g->value[v].node->op != MD_OP_state) continue;
    m->tensor = md_interp_state(e->interp, g->value[v].node->name);
    md_tensor_write(m->tensor, m->data);
  }
  return true;
}

bool md_engine_start(md_engine *e, md_diags *d) {
  return e->exec ? md_exec_start(e->exec, d) : interp_step(e, d);
}

bool md_engine_finish(md_engine *e, md_diags *d) { return !e->exec || md_exec_finish(e->exec, d); }

bool md_engine_is_busy(const md_engine *e) { return e->exec && md_exec_is_busy(e->exec); }

bool md_engine_step(md_engine *e, md_diags *d) {
  return md_engine_start(e, d) && md_engine_finish(e, d);
}

bool md_engine_send(md_engine *e, md_diags *d) { return !e->exec || md_exec_send(e->exec, d); }
bool md_engine_is_alive(md_engine *e, md_diags *d) {
  return !e->exec || md_exec_is_alive(e->exec, d);
}
bool md_engine_is_gpu(const md_engine *e) { return e->program && e->program->num_variants; }

const md_graph *md_engine_graph(const md_engine *e) { return e->graph; }
md_exec *md_engine_exec(md_engine *e) { return e->exec; }
