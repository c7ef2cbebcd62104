// SPDX-License-Identifier: Apache-2.0
// compile: a graph becomes an artefact, or any of the stages on the way.
#include "modistc/modistc.h"

#include "base/file.h"
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

enum Emit {
  EMIT_ARTEFACT,
  EMIT_GRAPH,
  EMIT_FUSED,
  EMIT_DOT,
  EMIT_LLVM,
  EMIT_ASM,
  EMIT_CUDA,
  EMIT_PTX,
  EMIT_CUBIN,
  EMIT_REPORT
};
static const char *const emits[] = {"artefact", "graph", "fused", "dot",    "llvm", "asm",
                                    "cuda",     "ptx",   "cubin", "report", NULL};

static const md_option compile_options[] = {
    {"output", 'o', "FILE", "where to write; '-' is standard output"},
    {"config", 'c', "FILE", "settings of the model; key=value arguments override them"},
    {"target", 't', "TARGET",
     "cpu (this machine, default), cpu:NAME, cuda:sm_80 and so on; 'modistc targets' lists them"},
    {"emit", 0, "WHAT",
     "artefact (default), graph (as declared), fused (after the passes), dot, llvm, asm, "
     "cuda, ptx, cubin, report"},
    {"report", 0, "PARTS", "print reports: summary, fusion, memory, kernels"},
    MD_PASS_OPTIONS,
    MD_CPU_OPTIONS,
    MD_MEMORY_OPTION,
    {0}};

static const md_option_rule compile_rules[] = {
    {"emit=graph !passes",
     "target cpu disable-pass opt-level precision print-ir-after print-changed dump-dir "
     "time-passes "
     "max-rewrites verify-each memory-limit",
     "--emit=graph shows the graph as it is declared", "take --emit=fused"},
    {"emit=graph|fused|dot", "report jit-asan no-cache", "no program is made of the graph",
     "take --emit=report"},
    {"emit=cuda|ptx|cubin !target=cuda:*", "emit", "the target is the CPU",
     "add --target=cuda:sm_90"},
    {"target=cuda:*", MD_CPU_NAMES " report", "the target is not the CPU", NULL},
    {"target=cpu:*", "cpu", "--target names the CPU", NULL},
    {0}};

typedef struct Job {
  md_cli *cli;
  enum Emit emit;
  const char *output, *target;
  const char *cpu;  // of a CPU target; NULL: this machine's
  bool cuda;
  int64_t memory_limit;  // bytes; 0: none
  md_pass_options passes;
  md_pass_report report;
} Job;

static bool to_stdout(const Job *j) { return !j->output || strcmp(j->output, "-") == 0; }

static bool write_text(const Job *j, const char *text, size_t len) {
  if (!to_stdout(j)) return md_file_save(j->output, text, len, j->cli->diags);
  fwrite(text, 1, len, stdout);
  return true;
}

static bool write_artefact(const Job *j, const md_program *p, int64_t start) {
  md_text bytes = {0};
  bool ok = md_program_write(p, &bytes, j->cli->diags) && write_text(j, bytes.s, bytes.len);
  md_text_free(&bytes);
  if (ok && !j->cli->quiet && !to_stdout(j))
    fprintf(stderr, "wrote %s in %.1f s\n", j->output, (double)(md_now_ns() - start) / 1e9);
  return ok;
}

static bool write_graph(Job *j, const md_graph *g, bool dot) {
  md_text t = {0};
  if (dot) md_graph_dot(g, &t);
  else md_graph_print(g, &t);
  bool ok = write_text(j, t.s, t.len);
  md_text_free(&t);
  return ok;
}

static bool wants(const char *list, const char *part) {
  if (!list) return false;
  size_t n = strlen(part);
  for (const char *s = list; *s;) {
    size_t len = strcspn(s, ",");
    if ((len == n && strncmp(s, part, n) == 0) || (len == 3 && strncmp(s, "all", 3) == 0))
      return true;
    s += len + (s[len] == ',');
  }
  return false;
}

static bool check_parts(Job *j, const char *list) {
  static const char *const parts[] = {"all", "summary", "fusion", "memory", "kernels"};
  for (const char *s = list ? list : ""; *s;) {
    size_t len = strcspn(s, ",");
    bool known = false;
    for (int i = 0; i < MD_COUNT(parts); i++)
      known |= strlen(parts[i]) == len && !strncmp(s, parts[i], len);
    if (!known) {
      md_error(j->cli->diags, E0401, MD_NOWHERE, "--report: there is no report '%.*s'", (int)len,
               s);
      md_hint(j->cli->diags, "reports are: all, summary, fusion, memory, kernels");
      return false;
    }
    s += len + (s[len] == ',');
  }
  return true;
}

// A line for each pass that saw places where it could apply, then every place.
static void report_fusion(const md_pass_report *r, FILE *to) {
  fprintf(to, "fusion  %-20s %6s %6s\n", "pass", "done", "kept");
  for (int p = 0; p < md_num_passes; p++) {
    int done = 0, kept = 0;
    for (int i = 0; i < r->num_sites; i++) {
      if (strcmp(r->site[i].pass, md_passes[p]->name) != 0) continue;
      done += r->site[i].done;
      kept += !r->site[i].done;
    }
    if (done + kept) fprintf(to, "        %-20s %6d %6d\n", md_passes[p]->name, done, kept);
  }
  for (int i = 0; i < r->num_sites; i++) {
    const md_site *s = &r->site[i];
    fprintf(to, "  %-20s %-32s %s%s%s\n", s->pass, s->node, s->done ? "done" : "kept",
            s->why && s->why[0] ? ": " : "", s->why ? s->why : "");
  }
}

// What is computed again so as to keep the limit: each value's bytes and work.
static void report_again(const md_program *p, int64_t saved, bool list, FILE *to) {
  md_again again = md_program_again(p);
  if (!again.launches) return;
  char text[MD_FLOAT_CHARS];
  fprintf(
      to,
      "again   %d of %d kernels compute values again: %.1f%% of FLOPs, %.1f%% of bytes; saves %s\n",
      again.launches, p->num_launches, 100 * again.flops, 100 * again.bytes,
      md_bytes_text((double)saved, text));
  for (int i = 0; i < p->num_launches && list; i++) {
    const md_launch *l = &p->launch[i];
    if (!md_launch_is_again(l)) continue;
    const md_arg *made = &p->arg[l->first_arg];
    while (!made->write) made++;
    fprintf(to, "  %-40s %10s %10.2f MFLOP\n", l->name, md_bytes_text((double)made->bytes, text),
            l->flops / 1e6);
  }
}

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

static void report_summary(const Job *j, int declared, const md_graph *g, const md_program *p,
                           FILE *to) {
  double flops = 0, bytes = 0;
  for (int i = 0; p && i < p->num_launches; i++) {
    flops += p->launch[i].flops;
    bytes += p->launch[i].bytes;
  }
  fprintf(to, "target  %s\n", p ? p->target : j->target);
  fprintf(to, "graph   %d -> %d nodes in %d regions", declared, g->num_nodes, g->num_regions);
  if (p) fprintf(to, "   %.3f GFLOP and %.1f MB a step", flops / 1e9, bytes / 1e6);
  fputc('\n', to);
}

static bool compile_cpu(Job *j, const md_graph *g, int declared) {
  md_cli *cli = j->cli;
  const char *parts = md_cli_get(cli, "report");
  if (j->emit == EMIT_REPORT && !parts) parts = "all";
  md_text text = {0};
  md_cpu_options o = {.cpu = j->cpu,
                      .asan = md_cli_has(cli, "jit-asan"),
                      .no_cache = md_cli_has(cli, "no-cache"),
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
  bool ok = true;
  char *report = NULL;
  size_t report_len = 0;
  FILE *to = j->emit == EMIT_REPORT ? open_memstream(&report, &report_len) : stderr;
  MD_ASSERT(to, "out of memory");
  if (wants(parts, "summary") || (!cli->quiet && j->emit == EMIT_ARTEFACT))
    report_summary(j, declared, g, p, to);
  if (wants(parts, "fusion")) report_fusion(&j->report, to);
  if (wants(parts, "memory") || (!cli->quiet && j->emit == EMIT_ARTEFACT)) {
    report_memory(g, p, to);
    report_again(p, j->report.saved, wants(parts, "memory"), to);
  }
  if (wants(parts, "kernels")) report_kernels(md_cpu_find(j->cpu, false, cli->diags), p, &r, to);
  if (j->emit == EMIT_REPORT) {
    fclose(to);
    ok = write_text(j, report, report_len);
    free(report);
  }
  if (text.s) ok = write_text(j, text.s, text.len);
  if (o.want_image) ok = write_artefact(j, p, start);
  if (ok && j->emit == EMIT_ARTEFACT && !j->output && !cli->quiet)
    fputs("nothing was written; -o FILE.mdx keeps the program\n", stderr);
  md_text_free(&text);
  md_program_destroy(p);
  return ok;
}

static bool compile_cuda(Job *j, const md_graph *g) {
  static const md_cuda_emit kind[] = {
      [EMIT_CUDA] = MD_CUDA_TEXT, [EMIT_PTX] = MD_CUDA_PTX, [EMIT_CUBIN] = MD_CUDA_CUBIN};
  if (j->emit != EMIT_CUDA && j->emit != EMIT_PTX && j->emit != EMIT_CUBIN) {
    md_error(j->cli->diags, E0440, MD_NOWHERE,
             "for CUDA targets only --emit=cuda, ptx and cubin are there so far");
    return false;
  }
  md_text out = {0};
  bool ok = md_cuda_compile(g, j->target, kind[j->emit], &out, j->cli->diags) &&
            write_text(j, out.s, out.len);
  md_text_free(&out);
  return ok;
}

static bool choose_target(Job *j) {
  j->target = md_cli_get(j->cli, "target");
  if (!j->target) j->target = "cpu";
  j->cuda = strncmp(j->target, "cuda:", 5) == 0;
  if (j->cuda && j->memory_limit) {
    md_error(j->cli->diags, E0401, MD_NOWHERE,
             "--memory-limit: programs for CUDA targets have no memory plan so far");
    return false;
  }
  if (j->cuda) return md_cuda_facts(j->target, &j->passes.facts, j->cli->diags);
  bool names_cpu = strncmp(j->target, "cpu:", 4) == 0;
  if (!names_cpu && strcmp(j->target, "cpu") != 0) {
    char clean[80];
    md_error(j->cli->diags, E0441, MD_NOWHERE, "unknown target '%s'",
             md_clean(j->target, clean, sizeof clean));
    md_hint(j->cli->diags, "targets are cpu, cpu:NAME and cuda:sm_NN; 'modistc targets' lists "
                           "them; --cpu=NAME caps the CPU");
    return false;
  }
  j->cpu = names_cpu ? j->target + 4 : md_cli_get(j->cli, "cpu");
  const md_cpu *cpu = md_cpu_find(j->cpu, false, j->cli->diags);
  if (!cpu) return false;
  j->passes.facts = md_cpu_facts(cpu);
  j->passes.memory = md_cpu_memory(cpu, j->memory_limit, 0);
  return true;
}

static bool run_job(Job *j) {
  md_cli *cli = j->cli;
  md_graph *g = md_source_graph(cli, cli->arg[0]);
  if (!g) return false;
  int declared = g->num_nodes;
  bool ok;
  // The declared graph, unless passes were asked for by name.
  if (j->emit == EMIT_GRAPH && !j->passes.passes) {
    ok = write_graph(j, g, false);
  } else {
    g = md_run_passes(g, &j->passes, &j->report, cli->diags);
    if (!g) {
      md_pass_report_free(&j->report);
      return false;
    }
    if (j->emit == EMIT_GRAPH || j->emit == EMIT_FUSED || j->emit == EMIT_DOT)
      ok = write_graph(j, g, j->emit == EMIT_DOT);
    else ok = j->cuda ? compile_cuda(j, g) : compile_cpu(j, g, declared);
    md_pass_report_free(&j->report);
  }
  md_graph_destroy(g);
  return ok;
}

static md_status run(md_cli *cli) {
  Job j = {.cli = cli};
  if (!md_cli_args(cli, 1, 64, "takes a model, a graph text or a plug-in, then key=value settings"))
    return MD_ERR_USAGE;
  int emit = md_cli_choice(cli, "emit", emits, EMIT_ARTEFACT);
  if (emit < 0 || !md_cli_bytes(cli, "memory-limit", &j.memory_limit) ||
      !md_source_passes(cli, &j.passes) || !check_parts(&j, md_cli_get(cli, "report")))
    return MD_ERR_USAGE;
  j.emit = (enum Emit)emit;
  j.output = md_cli_get(cli, "output");
  if (!choose_target(&j)) return md_diags_status(cli->diags);
  return run_job(&j) ? MD_OK : md_diags_status(cli->diags);
}

static const char *const examples[] = {
    "modistc compile modist-tiny -o tiny.mdx", "modistc compile modist-r3d50 batch=2 --emit=report",
    "modistc compile step.mdg --passes=fuse-conv-bn-relu --emit=graph -o -", NULL};
const md_command md_cmd_compile = {.name = "compile",
                                   .group = "Compile and run",
                                   .usage = "MODEL|GRAPH.mdg|PLUGIN.so [key=value ...] [options]",
                                   .doc = "compile a graph to an artefact, or show any stage of it",
                                   .examples = examples,
                                   .options = compile_options,
                                   .rules = compile_rules,
                                   .run = run};
