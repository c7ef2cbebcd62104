// SPDX-License-Identifier: Apache-2.0
// compile for CUDA devices: texts, the program, its reports.
#include "modistc/compile.h"

#include "codegen/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

static bool emit_text(md_compile_job *j, const md_graph *g) {
  static const md_cuda_emit kind[] = {
      [EMIT_CUDA] = MD_CUDA_TEXT, [EMIT_PTX] = MD_CUDA_PTX, [EMIT_CUBIN] = MD_CUDA_CUBIN};
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

static bool compile_program(md_compile_job *j, const md_graph *g, int declared) {
  md_cli *cli = j->cli;
  md_cuda_options o = {.targets = j->target,
                       .no_ptx = md_cli_has(cli, "no-ptx"),
                       .no_cache = md_cli_has(cli, "no-cache"),
                       .want_graph_text = true,
                       .threads = (int)j->threads};
  md_cuda_report r;
  int64_t start = md_now_ns();
  md_program *p = md_cuda_program(g, &o, &r, cli->diags);
  if (!p) return false;
  FILE *to = md_compile_report_open(j);
  bool is_said = !cli->quiet && j->emit == EMIT_ARTEFACT;
  if (md_compile_wants(j, "summary") || is_said) md_report_summary(j, declared, g, p, to);
  if (md_compile_wants(j, "fusion")) md_report_fusion(&j->report, to);
  if (md_compile_wants(j, "memory") || is_said) report_memory(g, p, to);
  if (md_compile_wants(j, "kernels") || is_said)
    fprintf(to, "kernels %d, %d from cache; NVRTC %.0f ms\n", r.kernels, r.cache_hits,
            r.compile_ms);
  bool ok = md_compile_report_close(j, to);
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
