// SPDX-License-Identifier: Apache-2.0
// compile for a CPU: the program and its reports.
#include "modistc/compile.h"

#include "codegen/cpu/cpu.h"

static void report_memory(const md_graph *g, const md_program *p, FILE *to) {
  md_memory_report m;
  md_memory_of(g, &m);
  char t[4][MD_FLOAT_CHARS];
  fprintf(to,
          "memory  %s on %d threads: arena %s (%s without reuse), states %s; peak at region %s\n",
          md_bytes_text((double)md_program_bytes(p, 0), t[0]), md_pool_default(),
          md_bytes_text((double)p->arena_bytes, t[1]), md_bytes_text((double)m.without_reuse, t[2]),
          md_bytes_text((double)m.states, t[3]),
          m.peak_region > 0 ? g->region[m.peak_region].name : "-");
}

// What the predictions go by: this machine where it runs the target, else the target's facts.
static md_cpu_roof rates_of(const md_cpu *cpu, FILE *to) {
  md_cpu_roof roof;
  int threads = md_pool_default();
  md_diags *dropped = md_diags_create();
  bool is_measured = md_cpu_runs_here(cpu) && md_cpu_measure_roof(cpu, threads, &roof, dropped);
  md_diags_destroy(dropped);
  if (!is_measured) roof = md_cpu_nominal_roof(cpu, threads);
  fprintf(to, "rates   %s for %d thread%s of %s: %.0f GFLOP/s in f32",
          is_measured ? "measured here" : "nominal", threads, threads == 1 ? "" : "s", cpu->name,
          roof.f32_flops / 1e9);
  if (roof.bf16_flops > 0) fprintf(to, ", %.0f in bf16", roof.bf16_flops / 1e9);
  fprintf(to, ", %.0f GB/s\n", roof.read_bytes / 1e9);
  return roof;
}

static void report_kernels(const md_cpu *cpu, const md_program *p, const md_cpu_report *r,
                           FILE *to) {
  fprintf(to,
          "kernels %d launches, %d distinct, %d from cache; emit %.0f ms, optimise %.0f ms, code "
          "%.0f ms\n",
          r->launches, r->distinct, r->cache_hits, r->emit_ms, r->optimise_ms, r->codegen_ms);
  md_cpu_roof roof = rates_of(cpu, to);
  double total = 0;
  fprintf(to, "  %-28s %-24s %6s %10s %10s %8s %12s\n", "region", "kernel", "phases", "MFLOP",
          "KiB", "FLOP/B", "predicted us");
  for (int i = 0; i < r->num_kernels; i++) {
    const md_cpu_kernel_report *k = &r->kernel[i];
    const md_launch *l = &p->launch[i];
    double us = 1e6 * md_cpu_predict(k, &roof, md_pool_default());
    total += us;
    fprintf(to, "  %-28s %-24s %6d %10.2f %10.1f %8.1f %12.1f\n", k->region, k->lowering, k->phases,
            l->flops / 1e6, l->bytes / 1024, l->bytes > 0 ? l->flops / l->bytes : 0.0, us);
    if (k->why_not && k->why_not[0]) fprintf(to, "      not as: %s\n", k->why_not);
  }
  fprintf(to, "  %-93s %12.1f\n", "all kernels", total);
}

bool md_compile_cpu(md_compile_job *j, const md_graph *g, int declared) {
  md_cli *cli = j->cli;
  md_text text = {0};
  md_cpu_options o = {.cpu = j->cpu,
                      .asan = md_cli_has(cli, "jit-asan"),
                      .no_cache = md_cli_has(cli, "no-cache"),
                      .threads = (int)j->threads,
                      .want_image = j->emit == EMIT_ARTEFACT && j->output,
                      .no_code = true,
                      .want_graph_text = true};
  if (j->emit == EMIT_LLVM) o.llvm_ir = &text;
  if (j->emit == EMIT_ASM) o.assembly = &text;
  md_cpu_report r = {.arena = cli->arena};
  int64_t start = md_now_ns();
  md_program *p = md_cpu_compile(g, &o, &r, cli->diags);
  if (!p) return false;
  if (!md_program_fits(p, 0, j->memory_limit, cli->diags)) {
    md_program_destroy(p);
    md_text_free(&text);
    return false;
  }
  FILE *to = md_compile_report_open(j);
  if (md_compile_wants(j, "summary") || (!cli->quiet && j->emit == EMIT_ARTEFACT))
    md_report_summary(j, declared, g, p, to);
  if (md_compile_wants(j, "fusion")) md_report_fusion(&j->report, to);
  if (md_compile_wants(j, "memory") || (!cli->quiet && j->emit == EMIT_ARTEFACT)) {
    report_memory(g, p, to);
    md_report_again(j, p, to);
  }
  if (md_compile_wants(j, "kernels") || md_compile_wants(j, "roofline"))
    report_kernels(md_cpu_find(j->cpu, false, cli->diags), p, &r, to);
  bool ok = md_compile_report_close(j, to);
  if (text.s) ok = md_compile_write(j, text.s, text.len);
  if (o.want_image) ok = md_compile_write_artefact(j, p, start);
  if (ok && j->emit == EMIT_ARTEFACT && !j->output && !cli->quiet)
    fputs("nothing was written; -o FILE.mdx keeps the program\n", stderr);
  md_text_free(&text);
  md_program_destroy(p);
  return ok;
}
