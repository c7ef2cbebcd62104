// SPDX-License-Identifier: Apache-2.0
// compile: a graph becomes an artefact, or any of the stages on the way.
#include "modistc/compile.h"

#include "base/file.h"
#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static const char *const emits[] = {"artefact", "graph", "fused", "dot",    "llvm", "asm",
                                    "cuda",     "ptx",   "cubin", "report", NULL};

static const md_option compile_options[] = {
    {"output", 'o', "FILE", "where to write; '-' is standard output"},
    {"config", 'c', "FILE", "settings of the model; key=value arguments override them"},
    {"target", 't', "TARGET",
     "cpu (this machine, default), cpu:NAME, cuda:sm_80 or several, with commas; 'modistc targets' "
     "lists them"},
    {"emit", 0, "WHAT",
     "artefact (default), graph (as declared), fused (after the passes), dot, llvm, asm, "
     "cuda, ptx, cubin, report"},
    {"report", 0, "PARTS", "print reports: summary, fusion, memory, kernels, roofline"},
    MD_PASS_OPTIONS,
    MD_CPU_OPTIONS,
    MD_MEMORY_OPTION,
    {"jobs", 'j', "N", "threads that compile kernels (default: one for each core)"},
    {"target-spec", 0, "FILE", "facts of the CUDA device that predictions are for"},
    {"tune", 0, "WHEN",
     "take the best known ways to make convolutions: cached (default: those that 'modistc cache "
     "ls' "
     "shows), off, or require: nothing else"},
    {"trials", 0, "[=N]",
     "put up to N other ways of each convolution into the artefact, for 'modistc tune' (8)"},
    {"no-ptx", 0, NULL, "leave out the PTX from which a driver compiles for later CUDA devices"},
    {"share-kernels", 0, NULL,
     "keep the code of CUDA kernels in the folder 'kernels' beside the artefact, once for all "
     "artefacts there"},
    {"apart", 0, NULL,
     "every CUDA kernel has a launch of its own: --verify and --engine=cudnn see all regions"},
    {0}};

static const md_option_rule compile_rules[] = {
    {"emit=graph !passes",
     "target cpu disable-pass opt-level precision print-ir-after print-changed dump-dir "
     "time-passes "
     "max-rewrites verify-each memory-limit",
     "--emit=graph shows the graph as it is declared", "take --emit=fused"},
    {"emit=graph|fused|dot", "report jit-asan no-cache jobs no-ptx share-kernels apart",
     "no program is made of the graph", "take --emit=report"},
    {"emit=cuda|ptx|cubin !target", "emit", "the target is the CPU", "add --target=cuda:sm_90"},
    {"emit=cuda|ptx|cubin target=cpu|cpu:*", "emit", "the target is the CPU",
     "take --target=cuda:sm_90"},
    {"target=cuda:*", "cpu jit-asan", "the target is not the CPU", NULL},
    {"emit=cuda|ptx|cubin",
     "report no-cache jobs no-ptx share-kernels apart target-spec tune trials",
     "the text of all kernels is one piece", "take --emit=report"},
    {"!target", "no-ptx share-kernels apart target-spec tune trials", "the target is the CPU",
     "add --target=cuda:sm_90"},
    {"target=cpu|cpu:*", "no-ptx share-kernels apart target-spec tune trials",
     "the target is the CPU", "take --target=cuda:sm_90"},
    {"trials", "tune", "every way is to be tried beside the generator's own", NULL},
    {"emit=report", "share-kernels", "no artefact is made", "take -o FILE.mdx"},
    {"!emit !output", "share-kernels", "nothing is written", "add -o FILE.mdx"},
    {"output=-", "share-kernels", "standard output is in no folder", "take -o FILE.mdx"},
    {"emit=report|graph|fused|dot", "trials", "no artefact is made", "take -o FILE.mdx"},
    {"target=cpu:*", "cpu", "--target names the CPU", NULL},
    {0}};

bool md_compile_to_stdout(const md_compile_job *j) {
  return !j->output || strcmp(j->output, "-") == 0;
}

bool md_compile_write(const md_compile_job *j, const char *text, size_t len) {
  if (!md_compile_to_stdout(j)) return md_file_save(j->output, text, len, j->cli->diags);
  fwrite(text, 1, len, stdout);
  return true;
}

bool md_compile_write_artefact(const md_compile_job *j, const md_program *p, int64_t start) {
  md_text bytes = {0};
  bool ok;
  if (md_cli_has(j->cli, "share-kernels"))
    ok = md_program_save_sharing(p, j->output, j->cli->diags);
  else ok = md_program_write(p, &bytes, j->cli->diags) && md_compile_write(j, bytes.s, bytes.len);
  md_text_free(&bytes);
  if (ok && !j->cli->quiet && !md_compile_to_stdout(j))
    fprintf(stderr, "wrote %s in %.1f s\n", j->output, (double)(md_now_ns() - start) / 1e9);
  return ok;
}

bool md_compile_wants(const md_compile_job *j, const char *part) {
  const char *list = md_cli_get(j->cli, "report");
  if (!list) return j->emit == EMIT_REPORT;
  size_t n = strlen(part);
  for (const char *s = list; *s;) {
    size_t len = strcspn(s, ",");
    if ((len == n && strncmp(s, part, n) == 0) || (len == 3 && strncmp(s, "all", 3) == 0))
      return true;
    s += len + (s[len] == ',');
  }
  return false;
}

FILE *md_compile_report_open(md_compile_job *j) {
  if (j->emit != EMIT_REPORT) return stderr;
  FILE *to = open_memstream(&j->report_text, &j->report_bytes);
  if (!to) md_out_of_memory(BUFSIZ);
  return to;
}

bool md_compile_report_close(md_compile_job *j, FILE *to) {
  if (j->emit != EMIT_REPORT) return true;
  fclose(to);
  bool ok = md_compile_write(j, j->report_text, j->report_bytes);
  free(j->report_text);
  return ok;
}

// A line for each pass that saw places where it could apply, then every place.
void md_report_fusion(const md_pass_report *r, FILE *to) {
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

void md_report_summary(const md_compile_job *j, int declared, const md_graph *g,
                       const md_program *p, FILE *to) {
  double flops = 0, bytes = 0;
  int first = 0, num = p ? md_program_launches(p, &first) : 0;
  for (int i = first; i < first + num; i++) {
    flops += p->launch[i].flops;
    bytes += p->launch[i].bytes;
  }
  fprintf(to, "target  %s\n", p ? p->target : j->target);
  if (j->batch_text && j->emit == EMIT_REPORT) fprintf(to, "batch   %s\n", j->batch_text);
  fprintf(to, "graph   %d -> %d nodes in %d regions", declared, g->num_nodes, g->num_regions);
  if (p) fprintf(to, "   %.3f GFLOP and %.1f MB a step", flops / 1e9, bytes / 1e6);
  fputc('\n', to);
}

// What is computed again so as to keep the limit: each value's bytes and work.
void md_report_again(const md_compile_job *j, const md_program *p, FILE *to) {
  md_again again = md_program_again(p);
  if (!again.launches) return;
  char text[MD_FLOAT_CHARS];
  fprintf(
      to,
      "again   %d of %d kernels compute values again: %.1f%% of FLOPs, %.1f%% of bytes; saves %s\n",
      again.launches, again.of, 100 * again.flops, 100 * again.bytes,
      md_bytes_text((double)j->report.saved, text));
  int first, num = md_program_launches(p, &first);
  for (int i = first; i < first + num && md_compile_wants(j, "memory"); i++) {
    const md_launch *l = &p->launch[i];
    if (!md_launch_is_again(l)) continue;
    const md_arg *made = &p->arg[l->first_arg];
    while (!made->write) made++;
    fprintf(to, "  %-40s %10s %10.2f MFLOP\n", l->name, md_bytes_text((double)made->bytes, text),
            l->flops / 1e6);
  }
}

static bool write_graph(md_compile_job *j, const md_graph *g, bool dot) {
  md_text t = {0};
  if (dot) md_graph_dot(g, &t);
  else md_graph_print(g, &t);
  bool ok = md_compile_write(j, t.s, t.len);
  md_text_free(&t);
  return ok;
}

static bool check_parts(md_compile_job *j, const char *list) {
  static const char *const parts[] = {"all", "summary", "fusion", "memory", "kernels", "roofline"};
  for (const char *s = list ? list : ""; *s;) {
    size_t len = strcspn(s, ",");
    bool known = false;
    for (int i = 0; i < MD_COUNT(parts); i++)
      known |= strlen(parts[i]) == len && !strncmp(s, parts[i], len);
    if (!known) {
      md_error(j->cli->diags, E0401, MD_NOWHERE, "--report: there is no report '%.*s'", (int)len,
               s);
      md_hint(j->cli->diags, "reports are: all, summary, fusion, memory, kernels, roofline");
      return false;
    }
    s += len + (s[len] == ',');
  }
  return true;
}

static bool choose_ways(md_compile_job *j) {
  static const char *const whens[] = {"off", "cached", "require", NULL};
  int when = md_cli_choice(j->cli, "tune", whens, 1);
  int64_t trials = 0;
  if (md_cli_has(j->cli, "trials")) trials = MD_CUDA_TRIALS;
  const char *text = md_cli_get(j->cli, "trials");
  if (when < 0 || (text && *text && !md_cli_int(j->cli, "trials", 1, MD_CUDA_WAYS, &trials)))
    return false;
  j->gpu.how.trials = (int)trials;
  j->gpu.how.is_apart |= trials > 0;
  j->requires_records = when == 2;
  if (trials) return true;  // beside the generator's own
  if (when > 0) j->records = md_records_kept(j->cli->diags);
  bool asks = when > 0 && (j->records->num || j->requires_records);
  j->gpu.how.records = asks ? j->records : NULL;
  return true;
}

static bool choose_target(md_compile_job *j) {
  j->target = md_cli_get(j->cli, "target");
  if (!j->target) j->target = "cpu";
  j->cuda = strncmp(j->target, "cuda:", 5) == 0;
  if (j->cuda) {
    j->gpu = (md_cuda_options){.targets = j->target,
                               .how.is_apart = md_cli_has(j->cli, "apart"),
                               .no_ptx = md_cli_has(j->cli, "no-ptx"),
                               .no_cache = md_cli_has(j->cli, "no-cache"),
                               .want_graph_text = true,
                               .threads = (int)j->threads};
    j->passes.memory = md_cuda_memory(&j->gpu, j->memory_limit);
    return choose_ways(j) && md_cuda_facts(j->target, &j->passes.facts, j->cli->diags) &&
           md_compile_cuda_spec(j);
  }
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

static bool run_job(md_compile_job *j) {
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
    else ok = j->cuda ? md_compile_cuda(j, g, declared) : md_compile_cpu(j, g, declared);
    md_pass_report_free(&j->report);
  }
  md_graph_destroy(g);
  return ok;
}

static md_status run(md_cli *cli) {
  md_compile_job j = {.cli = cli};
  if (!md_cli_args(cli, 1, 64, "takes a model, a graph text or a plug-in, then key=value settings"))
    return MD_ERR_USAGE;
  int emit = md_cli_choice(cli, "emit", emits, EMIT_ARTEFACT);
  if (emit < 0 || !md_cli_int(cli, "jobs", 1, 1024, &j.threads) ||
      !md_cli_bytes(cli, "memory-limit", &j.memory_limit) || !md_source_passes(cli, &j.passes) ||
      !check_parts(&j, md_cli_get(cli, "report")))
    return MD_ERR_USAGE;
  j.emit = (md_emit_what)emit;
  j.output = md_cli_get(cli, "output");
  bool ok =
      choose_target(&j) && md_cli_may_write(cli, "output") && md_compile_batch(&j) && run_job(&j);
  md_records_destroy(j.records);
  return ok ? MD_OK : md_diags_status(cli->diags);
}

static const char *const examples[] = {
    "modistc compile modist-tiny -o tiny.mdx", "modistc compile modist-r3d50 batch=2 --emit=report",
    "modistc compile modist-r3d50 batch=max --memory-limit=26G -t cuda:h200 --emit=report",
    "modistc compile step.mdg --passes=fuse-conv-bn-relu --emit=graph -o -", NULL};
const md_command md_cmd_compile = {.name = "compile",
                                   .group = "Compile and run",
                                   .usage = "MODEL|GRAPH.mdg|PLUGIN.so [key=value ...] [options]",
                                   .doc = "compile a graph to an artefact, or show any stage of it",
                                   .examples = examples,
                                   .options = compile_options,
                                   .rules = compile_rules,
                                   .run = run};
