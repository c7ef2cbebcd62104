// SPDX-License-Identifier: Apache-2.0
// compile for CUDA devices: texts, the program, its reports.
#include "modistc/compile.h"

#include "codegen/cuda/cuda.h"
#include "runtime/train/config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool emit_text(md_compile_job *j, const md_graph *g) {
  static const md_cuda_emit kind[] = {
      [EMIT_CUDA] = MD_CUDA_TEXT, [EMIT_PTX] = MD_CUDA_PTX, [EMIT_CUBIN] = MD_CUDA_CUBIN};
  if (strchr(j->target, ',')) {
    md_error(j->cli->diags, E0401, MD_NOWHERE,
             "--emit=cuda, ptx and cubin show the code of one target");
    md_hint(j->cli->diags, "-o FILE.mdx holds that of all");
    return false;
  }
  md_text out = {0};
  bool ok = md_cuda_compile(g, j->target, kind[j->emit], &out, j->cli->diags) &&
            md_compile_write(j, out.s, out.len);
  md_text_free(&out);
  return ok;
}

static void report_memory(const md_graph *g, const md_program *p, FILE *to) {
  md_memory_report m;
  md_memory_of(g, &m);
  char t[5][MD_FLOAT_CHARS];
  int64_t inputs = 0;
  for (int i = 0; i < p->num_inputs; i++) inputs += p->input[i].bytes;
  fprintf(to,
          "memory  arena %s (%s without reuse), states %s, inputs %s, workspace %s; peak at region "
          "%s\n",
          md_bytes_text((double)p->arena_bytes, t[0]), md_bytes_text((double)m.without_reuse, t[1]),
          md_bytes_text((double)m.states, t[2]), md_bytes_text((double)inputs, t[3]),
          md_bytes_text((double)p->workspace_bytes, t[4]),
          m.peak_region > 0 ? g->region[m.peak_region].name : "-");
}

// --- predictions

static void report_launches(const md_program *p, const md_gpu_variant *v, const md_cuda_report *r,
                            const md_cuda_spec *spec, FILE *to) {
  fprintf(to, "  %-28s %-17s %7s %5s %5s %7s %6s %10s %10s %10s  %s\n", "region", "kernel",
          "blocks", "thr.", "regs", "shared", "per SM", "KiB", "MFLOP", "us", "limit");
  for (int i = v->first_launch; i < v->first_launch + v->num_launches; i++) {
    const md_launch *l = &p->launch[i];
    const md_phase *f = &p->phase[l->first_phase];
    const md_kernel_facts *k = &md_cuda_kernel_of(p, v, l)->facts;
    fprintf(to, "  %-28s %-17s %7lld %5d %5d %7lld", l->name, f->symbol, (long long)f->items,
            f->threads, k->registers, (long long)(k->shared_bytes + f->shared_bytes));
    if (!spec) {
      fprintf(to, " %6s %10.1f %10.3f %10s\n", "-", l->bytes / 1024, l->flops / 1e6, "-");
      continue;
    }
    md_cuda_cost c = md_cuda_cost_of(p, v, l, r, spec);
    fprintf(to, " %6d %10.1f %10.3f %10.2f  %s\n", c.blocks_per_sm, l->bytes / 1024, l->flops / 1e6,
            c.us, md_cuda_limit_names[c.limit]);
  }
}

// Videos of a step: as many as it has ids or labels. 0: it is no training step.
static int64_t videos_of(const md_program *p) {
  static const char *const names[] = {"ids", "labels"};
  for (int n = 0; n < MD_COUNT(names); n++)
    for (int i = 0; i < p->num_inputs; i++)
      if (!strcmp(p->input[i].name, names[n]) && p->input[i].rank == 1) return p->input[i].dim[0];
  return 0;
}

static void report_roofline(const md_program *p, const md_gpu_variant *v, const md_cuda_report *r,
                            const md_cuda_spec *spec, FILE *to) {
  md_cuda_forecast f = md_cuda_forecast_of(p, v, r, spec);
  fprintf(to, "  limited by");
  for (int i = 0; i < MD_NUM_LIMITS; i++)
    fprintf(to, "%s %s %d launches, %.3f ms", i ? ";" : "", md_cuda_limit_names[i], f.launches[i],
            f.us[i] / 1e3);
  fprintf(to, "\n  step: %.3f ms predicted, %.1f TFLOP/s, %.2f TB/s", f.all_us / 1e3,
          f.all_us > 0 ? f.flops / f.all_us / 1e6 : 0, f.all_us > 0 ? f.bytes / f.all_us / 1e6 : 0);
  if (videos_of(p) && f.all_us > 0)
    fprintf(to, ", %.0f videos/s", 1e6 * (double)videos_of(p) / f.all_us);
  fputc('\n', to);
}

// The description given by --target-spec, else that of the device named by --target, else of the best
// device that takes the variant.
static const md_cuda_spec *spec_for(const char *target, const md_cuda_spec *given,
                                    const md_gpu_variant *v) {
  int sm;
  char suffix;
  bool is_ptx;
  md_gpu_target(v->target, &sm, &suffix, &is_ptx);
  if (given && given->arch.sm == sm) return given;
  const md_cuda_spec *named = md_cuda_named_device(target, sm);
  return named ? named : md_cuda_device_of((md_cuda_arch){.sm = sm});
}

void md_compile_predict(const char *target, const md_cuda_spec *spec_given, md_program *p,
                        const md_cuda_report *r) {
  int sm;
  char suffix;
  bool is_ptx;
  for (int i = 0; i < p->num_variants; i++) {
    md_gpu_variant *v = &p->variant[i];
    const md_cuda_spec *spec = spec_for(target, spec_given, v);
    md_gpu_target(v->target, &sm, &suffix, &is_ptx);
    if (is_ptx || !spec) continue;
    int num = v->num_launches + v->num_tried;
    double *us = MD_NEW_ARRAY(p->arena, double, num + 1);
    for (int k = 0; k < num; k++)
      us[k] = round(1e3 * md_cuda_cost_of(p, v, &p->launch[v->first_launch + k], r, spec).us) / 1e3;
    v->predicted_for = md_strdup(p->arena, spec->title);
    v->predicted_us = us;
  }
}

static void report_variant(const md_compile_job *j, const md_program *p, const md_gpu_variant *v,
                           const md_cuda_report *r, FILE *to) {
  const md_cuda_spec *spec = spec_for(j->target, j->spec, v);
  fprintf(to, "%s: %d launches of %d kernels", v->target, v->num_launches, v->num_kernels);
  if (spec)
    fprintf(to, "; on %s: %.0f multiprocessors, %.2f TB/s, %.1f TFLOP/s, %.1f in bf16", spec->title,
            spec->sms, spec->bandwidth / 1e12, spec->fma_flops / 1e12, spec->tensor_flops / 1e12);
  fputc('\n', to);
  if (!spec)
    fprintf(to,
            "  no device of this target is described here: --target-spec=FILE predicts times\n");
  if (md_compile_wants(j, "kernels")) report_launches(p, v, r, spec, to);
  if (spec && md_compile_wants(j, "roofline")) report_roofline(p, v, r, spec, to);
}

static void report_variants(const md_compile_job *j, const md_program *p, const md_cuda_report *r,
                            FILE *to) {
  int sm;
  char suffix;
  bool is_ptx;
  if (!md_compile_wants(j, "kernels") && !md_compile_wants(j, "roofline")) return;
  for (int i = 0; i < p->num_variants; i++) {
    md_gpu_target(p->variant[i].target, &sm, &suffix, &is_ptx);
    if (!is_ptx) report_variant(j, p, &p->variant[i], r, to);
  }
}

// --- all of it

typedef struct Taker {
  md_cuda_spec *spec;
  md_cli *cli;
} Taker;

static bool take_key(void *ctx, const char *key, const char *text, md_place key_at, md_place at) {
  const Taker *t = ctx;
  return md_cuda_spec_set(t->spec, key, text, key_at, at, t->cli->arena, t->cli->diags);
}

bool md_cli_cuda_spec(md_cli *cli, const char *target, const md_cuda_spec **out) {
  const char *path = md_cli_get(cli, "target-spec");
  if (!path) return true;
  md_cuda_spec *spec = MD_NEW(cli->arena, md_cuda_spec);
  *spec = (md_cuda_spec){.title = path, .source = ""};
  md_cuda_arch arch[MD_CUDA_TARGETS];
  int num = md_cuda_targets(target, arch, MD_CUDA_TARGETS, cli->diags);
  if (!num || !md_config_pairs(path, take_key, &(Taker){spec, cli}, cli->diags) ||
      !md_cuda_spec_check(spec, path, cli->diags))
    return false;
  *out = spec;
  for (int i = 0; i < num; i++)
    if (arch[i].sm == spec->arch.sm) return true;
  md_error(cli->diags, E0445, MD_IN_FILE(path), "it describes a device for sm_%d%.1s, not for %s",
           spec->arch.sm, &spec->arch.suffix, target);
  md_hint(cli->diags, "add --target=cuda:sm_%d%.1s", spec->arch.sm, &spec->arch.suffix);
  return false;
}

bool md_compile_cuda_spec(md_compile_job *j) {
  return md_cli_cuda_spec(j->cli, j->target, &j->spec);
}

// What --tune=require asks for. An architecture alone takes records of whatever device has it: of one, as the
// summary says whose they are, but a mixture is what nobody has measured.
static bool knows_all(const md_compile_job *j, const md_cuda_report *r) {
  if (!j->requires_records) return true;
  if (r->known == r->products && r->num_devices > 1) {
    char names[300];
    md_error(j->cli->diags, E0447, MD_NOWHERE, "the records for %s are of %d devices: %s",
             j->target, r->num_devices, md_clean(r->known_by, names, sizeof names));
    md_hint(j->cli->diags,
            "name the device, as --target=cuda:h200 does: its records alone are taken");
    return false;
  }
  if (r->known == r->products) return true;
  md_error(j->cli->diags, E0447, MD_NOWHERE,
           "%d of %d products have no record for %s, the first is %s", r->products - r->known,
           r->products, r->unknown_for, r->unknown);
  md_hint(j->cli->diags,
          "modistc tune MODEL on such a device; 'modistc cache ls' shows what is known");
  return false;
}

// A plan at first: what does not fit is not compiled, nor is what only its sizes are asked of.
static md_program *program_of(md_compile_job *j, const md_graph *g, md_cuda_report *r) {
  md_cuda_options o = j->gpu;
  o.plan_only = true;
  md_program *plan = md_cuda_program(g, &o, r, j->cli->diags);
  if (!plan) return NULL;
  bool fits = md_program_fits(plan, 0, j->memory_limit, j->cli->diags) && knows_all(j, r);
  bool want_code = j->emit == EMIT_ARTEFACT || md_compile_wants(j, "kernels");
  if (fits && !want_code) return plan;
  md_program_destroy(plan);
  return fits ? md_cuda_program(g, &j->gpu, r, j->cli->diags) : NULL;
}

static bool compile_program(md_compile_job *j, const md_graph *g, int declared) {
  md_cli *cli = j->cli;
  md_cuda_report r = {.arena = cli->arena};
  int64_t start = md_now_ns();
  md_program *p = program_of(j, g, &r);
  if (!p) return false;
  FILE *to = md_compile_report_open(j);
  bool is_said = !cli->quiet && j->emit == EMIT_ARTEFACT;
  if (md_compile_wants(j, "summary") || is_said) md_report_summary(j, declared, g, p, to);
  if (md_compile_wants(j, "fusion")) md_report_fusion(&j->report, to);
  if (md_compile_wants(j, "memory") || is_said) {
    report_memory(g, p, to);
    md_report_again(j, p, to);
  }
  if (md_compile_wants(j, "kernels") || is_said)
    fprintf(to, "kernels %d, %d from cache; NVRTC %.0f ms\n", r.kernels, r.cache_hits,
            r.compile_ms);
  char names[300];
  if (r.known)
    fprintf(to, "tuned   %d of %d products by records of %s, %d of them other than untuned\n",
            r.known, r.products, md_clean(r.known_by, names, sizeof names), r.changed);
  report_variants(j, p, &r, to);
  bool ok = md_compile_report_close(j, to);
  if (j->emit == EMIT_ARTEFACT) md_compile_predict(j->target, j->spec, p, &r);
  if (ok && j->emit == EMIT_ARTEFACT && j->output) ok = md_compile_write_artefact(j, p, start);
  if (ok && j->emit == EMIT_ARTEFACT && !j->output && !cli->quiet)
    fputs("nothing was written; -o FILE.mdx keeps the program\n", stderr);
  md_program_destroy(p);
  return ok;
}

bool md_compile_cuda(md_compile_job *j, const md_graph *g, int declared) {
  switch (j->emit) {
  case EMIT_CUDA:
  case EMIT_PTX:
  case EMIT_CUBIN: return emit_text(j, g);
  case EMIT_LLVM:
  case EMIT_ASM:
    return md_error(
        j->cli->diags, E0401, MD_NOWHERE,
        "--emit=llvm and asm are of CPU targets; CUDA targets have cuda, ptx and cubin");
  default: return compile_program(j, g, declared);
  }
}
