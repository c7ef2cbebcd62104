// SPDX-License-Identifier: Apache-2.0
// The way of a graph through this folder: regions -> distinct jobs -> IR -> objects (from the cache
// where it has them) -> code. Jobs know nothing of each other, so threads share them.
#include "codegen/cpu/assemble.h"

#include "base/cache.h"
#include "base/log.h"
#include "base/round.h"

#include <llvm-c/Analysis.h>
#include <llvm-c/BitWriter.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
enum { HAS_ASAN = 1 };
#elif defined(__has_feature)
enum { HAS_ASAN = __has_feature(address_sanitizer) };
#else
enum { HAS_ASAN = 0 };
#endif

typedef struct Run {
  md_assembly *assembly;
  const md_cpu_options *o;
  const char *options;
} Run;

// --- one job

// Element by element, whatever the layout: both sides have the same. The input and the output are
// the same value, so they are told apart by number.
static void emit_snapshot(md_kernel *k) {
  md_emit *e = &k->e;
  md_val v = k->r->output[0];
  const md_type *t = md_type_in(k->r->g, v);
  int64_t bytes = md_type_bytes(t), per_item;
  int64_t total = bytes / md_dtype_size(t->dtype), items = md_split_items(total, 64, &per_item);
  md_phase_begin(k, "snapshot", items, 0);
  md_ir arg[2];
  for (int i = 0; i < 2; i++) {
    md_ir at = md_i64(e, i);
    at = LLVMBuildInBoundsGEP2(e->b, e->ptr, LLVMGetParam(e->fn, 0), &at, 1, "");
    arg[i] = i <= k->r->num_inputs ? LLVMBuildLoad2(e->b, e->ptr, at, "") : NULL;
  }
  md_ir first = md_imulc(e, k->item, per_item);
  md_ir last = md_imin(e, md_iaddc(e, first, per_item), md_i64(e, total));
  md_loop l = md_loop_begin(e, first, last, 1, "i");
  if (k->r->num_inputs) {
    md_store(e, t->dtype, arg[1], l.i, md_load(e, t->dtype, arg[0], l.i, 1, NULL), NULL);
  } else {
    double value = md_rounded(t->dtype, md_def(k->r->g, v)->attr.value.value);
    md_store(e, t->dtype, arg[0], l.i, md_const(e, md_compute_type(e, t->dtype), 1, value), NULL);
  }
  md_loop_end(e, &l);
  md_phase_end(k);
}

// Emits the job's module. False: no row takes the region.
static bool emit_job(md_job *j, md_kernel *k) {
  md_emit *e = &k->e;
  if (j->is_snapshot) {
    j->lowering = "snapshot";
    emit_snapshot(k);
  } else {
    const md_lowering *row = md_lower(j->view, e->cpu, &j->refusals);
    if (!row) {
      const md_node *n = j->view->anchor ? j->view->anchor : j->view->node[0];
      return md_error(j->diags, E0355, n->place, "%s: the CPU back end has no kernel for it (%s)",
                      md_ops[n->op].name, j->refusals.len ? j->refusals.s : "no row wants it");
    }
    j->lowering = row->name;
    row->emit(k);
  }
  char *why = NULL;
  bool broken = LLVMVerifyModule(e->mod, LLVMReturnStatusAction, &why);
  MD_ASSERT(!broken, "kernel of '%s' is not valid: %s", j->lowering, why);
  LLVMDisposeMessage(why);
  j->in_f32 = k->in_f32;
  j->phase = k->phase;
  j->num_phases = k->num_phases;
  j->workspace_bytes = k->workspace_bytes;
  return true;
}

// The module itself and all else that decides what its object is.
static md_digest cache_key(LLVMModuleRef mod, const char *options) {
  LLVMMemoryBufferRef code = LLVMWriteBitcodeToMemoryBuffer(mod);
  md_text t = {0};
  md_put(&t, "%s\n", options);
  md_put_bytes(&t, LLVMGetBufferStart(code), LLVMGetBufferSize(code));
  md_digest d = md_digest_of(t.s, t.len);
  md_text_free(&t);
  LLVMDisposeMemoryBuffer(code);
  return d;
}

static void run_job(void *ctx, int64_t item, int thread) {
  (void)thread;
  const Run *run = ctx;
  md_job *j = &run->assembly->job[item];
  int64_t start = md_now_ns();
  j->arena = md_arena_create();
  md_diags *own = md_diags_create();
  if (!j->diags) j->diags = own;
  md_kernel k = {.e = md_emit_open(md_lanes_for(j->view, run->assembly->cpu), j->symbol),
                 .r = j->view,
                 .whole = j->view,
                 .arena = j->arena,
                 .symbol = j->symbol,
                 .asan = run->o->asan};
  bool ok = md_module_setup(k.e.mod, run->assembly->cpu, j->diags) && emit_job(j, &k);
  if (ok && run->o->llvm_ir) {
    char *text = LLVMPrintModuleToString(k.e.mod);
    md_put(&j->ir, "; %s: %s\n%s\n", j->symbol, j->lowering, text);
    LLVMDisposeMessage(text);
  }
  if (ok && run->o->assembly) {
    ok = md_assembly_text(k.e.mod, run->assembly->cpu, &j->assembly, j->diags);
  }
  bool want_code = ok && !run->o->plan_only;
  md_digest key = want_code ? cache_key(k.e.mod, run->options) : (md_digest){0};
  j->report.emit_ms = (double)(md_now_ns() - start) * 1e-6;
  j->hit = want_code && !run->o->no_cache && md_cache_read(key, &j->object.data, &j->object.bytes);
  if (want_code && !j->hit) {
    ok = md_object_compile(k.e.mod, run->assembly->cpu, run->o->asan, &j->object, &j->report,
                           j->diags);
    if (ok && !run->o->no_cache) md_cache_write(key, j->object.data, j->object.bytes);
  }
  j->failed = !ok;
  md_emit_close(&k.e);
  md_diags_destroy(own);
  j->diags = NULL;
}

// --- all of them

static bool run_jobs(const Run *run, md_diags *d) {
  md_assembly *s = run->assembly;
  md_pool *pool = md_pool_create(run->o->threads);
  md_pool_run(pool, s->num_jobs, run_job, (void *)run);
  md_pool_destroy(pool);
  for (int i = 0; i < s->num_jobs; i++) {
    md_job *j = &s->job[i];
    if (!j->failed) continue;
    md_arena_destroy(j->arena);  // once more, to report to the caller
    md_text_free(&j->refusals);
    j->diags = d;
    run_job((void *)run, i, 0);
    return false;
  }
  return true;
}

static void gather_texts(const md_assembly *s, const md_cpu_options *o) {
  for (int i = 0; i < s->num_jobs; i++) {
    const md_job *j = &s->job[i];
    if (o->llvm_ir && j->ir.len) md_put_bytes(o->llvm_ir, j->ir.s, j->ir.len);
    if (o->assembly && j->assembly.len) md_put_bytes(o->assembly, j->assembly.s, j->assembly.len);
  }
}

static int64_t most_items(const md_job *j) {
  int64_t most = 0;
  for (int i = 0; i < j->num_phases; i++) most = MD_MAX(most, j->phase[i].items);
  return most;
}

static void fill_report(const md_assembly *s, md_cpu_report *r) {
  r->launches = s->num_steps;
  r->distinct = s->num_jobs;
  for (int i = 0; i < s->num_jobs; i++) {
    const md_job *j = &s->job[i];
    r->emit_ms += j->report.emit_ms;
    r->optimise_ms += j->report.optimise_ms;
    r->codegen_ms += j->report.codegen_ms;
    r->cache_hits += j->hit;
    r->object_bytes += (int64_t)j->object.bytes;
  }
  if (!r->arena) return;
  r->num_kernels = s->num_steps;
  r->kernel = MD_NEW_ARRAY(r->arena, md_cpu_kernel_report, s->num_steps + 1);
  for (int i = 0; i < s->num_steps; i++) {
    const md_job *j = &s->job[s->step[i].job];
    md_cpu_kernel_report *k = &r->kernel[i];
    *k =
        (md_cpu_kernel_report){.region = md_strdup(r->arena, s->step[i].name),
                               .lowering = md_strdup(r->arena, j->lowering),
                               .why_not = md_strdup(r->arena, j->refusals.len ? j->refusals.s : ""),
                               .phases = j->num_phases,
                               .items = most_items(j),
                               .shared_with = -1,
                               .work = md_work_of(s->step[i].view, j->in_f32, s->cpu)};
    for (int e = 0; e < i && k->shared_with < 0; e++) {
      if (s->step[e].job == s->step[i].job) k->shared_with = e;
    }
  }
}

// The shared object of an artefact. A graph that returns its inputs needs no kernels; its object is
// made of an empty module, for a linker wants something to link.
static bool link_image(const md_assembly *s, const md_object *objects, md_program *p, md_diags *d) {
  if (s->num_jobs)
    return md_link_image(objects, s->num_jobs, p->arena, &p->image, &p->image_bytes, d);
  md_emit e = md_emit_open(s->cpu, "empty");
  md_object empty = {0};
  md_cpu_report times = {0};
  bool ok = md_module_setup(e.mod, s->cpu, d) &&
            md_object_compile(e.mod, s->cpu, false, &empty, &times, d) &&
            md_link_image(&empty, 1, p->arena, &p->image, &p->image_bytes, d);
  free(empty.data);
  md_emit_close(&e);
  return ok;
}

static void log_compiled(const md_assembly *s, const md_program *p) {
  md_cpu_report r = {0};
  fill_report(s, &r);
  md_log(MD_LOG_CACHE, MD_LEVEL_INFO, "%d of %d kernels were there", r.cache_hits, r.distinct);
  md_log(MD_LOG_CODEGEN, MD_LEVEL_INFO,
         "%s for %s: %d launches of %d kernels; emit %.1f ms, optimise %.1f, code %.1f", p->name,
         p->target, r.launches, r.distinct, r.emit_ms, r.optimise_ms, r.codegen_ms);
  for (int i = 0; i < s->num_steps; i++)
    md_log(MD_LOG_CODEGEN, MD_LEVEL_DEBUG, "region %s is %s: %s", s->step[i].name,
           s->job[s->step[i].job].symbol, s->job[s->step[i].job].lowering);
}

// Code here and, when wanted, as a shared object.
static bool load_code(const md_assembly *s, const md_cpu_options *o, md_program *p, md_diags *d) {
  if (o->plan_only) return true;
  md_object *objects = MD_NEW_ARRAY(s->arena, md_object, s->num_jobs + 1);
  for (int i = 0; i < s->num_jobs; i++) objects[i] = s->job[i].object;
  if (o->want_image && !link_image(s, objects, p, d)) return false;
  if (o->no_code) return true;
  p->code = md_jit_load(objects, s->num_jobs, d);
  if (!p->code) return false;
  p->lookup = md_jit_lookup;
  p->code_free = md_jit_free;
  for (int i = 0; i < p->num_phases; i++) {
    if (md_jit_lookup(p->code, p->phase[i].symbol)) continue;
    return md_error(d, E0830, MD_NOWHERE, "LLVM could not place kernel %s in memory: %s",
                    p->phase[i].symbol, md_jit_reason(p->code));
  }
  return true;
}

static void free_jobs(md_assembly *s) {
  for (int i = 0; i < s->num_jobs; i++) {
    md_job *j = &s->job[i];
    free(j->object.data);
    md_text_free(&j->refusals);
    md_text_free(&j->ir);
    md_text_free(&j->assembly);
    if (j->arena) md_arena_destroy(j->arena);
  }
}

// Instrumented code calls functions of AddressSanitizer, which the program around it must have.
static bool check_asan(const md_cpu_options *o, md_diags *d) {
  if (!o->asan || (o->no_code && !o->want_image)) return true;  // to be looked at only
  if (o->want_image) {
    md_error(
        d, E0424, MD_NOWHERE,
        "code with AddressSanitizer cannot be kept in an artefact: it runs in this program only");
  } else if (!HAS_ASAN) {
    md_error(d, E0424, MD_NOWHERE, "this program was built without AddressSanitizer");
  } else {
    return true;
  }
  md_hint(d, "cmake --preset dev && cmake --build --preset dev; then build-dev/bin/modistc run "
             "--jit-asan");
  return false;
}

md_program *md_cpu_compile(const md_graph *g, const md_cpu_options *o, md_cpu_report *report,
                           md_diags *d) {
  const md_cpu *cpu =
      check_asan(o, d) ? md_cpu_find(o->cpu, !o->no_code && !o->plan_only, d) : NULL;
  if (!cpu) return NULL;
  md_target_facts facts = md_cpu_facts(cpu);
  if (!md_regions_check(g, &facts, d)) return NULL;
  md_assembly s = {.g = g, .cpu = cpu, .arena = md_arena_create()};
  unsigned major, minor, patch;
  LLVMGetVersion(&major, &minor, &patch);
  const char *options =
      md_format(s.arena, "modist %s llvm %u.%u.%u %s %s %s%s", MODIST_VERSION, major, minor, patch,
                cpu->arch, cpu->llvm_cpu, cpu->features, o->asan ? " asan" : "");
  Run run = {&s, o, options};
  md_assembly_plan(&s, options);
  bool ok = run_jobs(&run, d);
  md_program *p = NULL;
  if (ok) {
    p = md_program_create(g->name ? g->name : "graph");
    p->target = md_format(p->arena, "cpu:%s+%s", cpu->name, cpu->isa);
    md_assembly_program(&s, p);
    if (o->want_graph_text) md_places_keep_text(g, p);
    int64_t start = md_now_ns();
    ok = load_code(&s, o, p, d);
    if (report) report->link_ms = (double)(md_now_ns() - start) * 1e-6;
  }
  if (ok) gather_texts(&s, o);
  if (ok && report) fill_report(&s, report);
  if (ok) log_compiled(&s, p);
  if (!ok) {
    md_program_destroy(p);
    p = NULL;
  }
  free_jobs(&s);
  md_arena_destroy(s.arena);
  return p;
}

static int64_t needs(const md_graph *planned, const md_memory_limit *limit) {
  const md_cpu *cpu = limit->target;
  md_diags *d = md_diags_create();  // what is wrong is reported by the compilation that follows
  md_cpu_options o = {.cpu = cpu->name, .plan_only = true};
  md_program *p = md_cpu_compile(planned, &o, NULL, d);
  int64_t bytes = p ? md_program_bytes(p, limit->threads) : 0;
  md_program_destroy(p);
  md_diags_destroy(d);
  return bytes;
}

md_memory_limit md_cpu_memory(const md_cpu *cpu, int64_t bytes, int threads) {
  return (md_memory_limit){.bytes = bytes, .threads = threads, .target = cpu, .needs = needs};
}
