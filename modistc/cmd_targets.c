// SPDX-License-Identifier: Apache-2.0
// targets: what can be compiled for, with the text to paste.
#include "modistc/modistc.h"

#include "codegen/cpu/cpu.h"
#include "codegen/cuda/cuda.h"

#include <string.h>

static md_status print_spec(md_cli *cli) {
  const char *name = md_cli_get(cli, "spec");
  const md_cuda_spec *s = md_cuda_device(strncmp(name, "cuda:", 5) ? name : name + 5);
  if (s) {
    md_text t = {0};
    md_cuda_spec_print(s, &t);
    fputs(t.s, stdout);
    md_text_free(&t);
    return MD_OK;
  }
  char clean[80];
  md_text all = {0};
  for (int i = 0; i < md_cuda_num_devices(); i++)
    md_put(&all, "%s%s", i ? ", " : "", md_cuda_device_at(i)->name);
  md_error(cli->diags, E0441, MD_NOWHERE, "no CUDA device '%s' is described here",
           md_clean(name, clean, sizeof clean));
  md_hint(cli->diags, "there are %s", all.len ? all.s : "none");
  md_text_free(&all);
  return MD_ERR_USAGE;
}

static bool is_among(const int *sm, int num, int wanted) {
  for (int i = 0; i < num; i++)
    if (sm[i] == wanted) return true;
  return false;
}

static const char *where_it_runs(md_arena *a, const char *target) {
  md_gpu_device device = {.count = 1};
  md_gpu_lack lack;
  for (int i = 0; i < device.count && md_gpu_find(i, &device, &lack); i++)
    if (md_gpu_runs(target, device.sm)) return md_format(a, "yes: cuda:%d, %s", i, device.name);
  return "no: compile only";
}

// What this table and the NVRTC that is here have in common; an older NVRTC knows older architectures.
static void list_cuda(md_arena *a) {
  bool first_has_suffix;
  int first = md_cuda_arch_at(0, &first_has_suffix).sm;
  int major, minor, sm[64], num = 0;
  md_diags *quiet = md_diags_create();
  bool is_here = md_nvrtc_version(&major, &minor, quiet);
  if (is_here) num = md_nvrtc_archs(sm, MD_COUNT(sm), quiet);
  md_diags_destroy(quiet);
  for (int i = 0; i < num; i++)
    if (sm[i] < first)
      printf("%-24s %-31s no: targets begin with sm_%d\n", "-",
             md_format(a, "NVRTC has sm_%d", sm[i]), first);
  for (int i = 0; i < md_cuda_num_archs(); i++) {
    bool has_suffix;
    md_cuda_arch arch = md_cuda_arch_at(i, &has_suffix);
    char code[64], name[40];
    if (is_here && is_among(sm, num, arch.sm))
      snprintf(code, sizeof code, "NVRTC %d.%d", major, minor);
    else if (is_here) snprintf(code, sizeof code, "not in NVRTC %d.%d", major, minor);
    else snprintf(code, sizeof code, "no NVRTC here: text only");
    for (int k = 0; k <= has_suffix; k++) {
      snprintf(name, sizeof name, "cuda:sm_%d%s", arch.sm, k ? "a" : "");
      printf("--target=%-15s %-31s %s\n", name, code, where_it_runs(a, name));
    }
  }
  for (int i = 0; i < md_cuda_num_devices(); i++) {
    const md_cuda_spec *s = md_cuda_device_at(i);
    char code[32];
    snprintf(code, sizeof code, "sm_%d%.1s", s->arch.sm, &s->arch.suffix);
    printf("--target=cuda:%-10s %-31s %s\n", s->name, code, s->title);
  }
  md_gpu_device device;
  md_gpu_lack lack;
  if (!md_gpu_find(0, &device, &lack)) printf("no GPU runs code here: %s\n", lack.why);
  if (!is_here && md_cuda_num_archs())
    puts("NVRTC compiles CUDA text: MODIST_NVRTC=/path/to/libnvrtc.so names it");
}

static md_status run_targets(md_cli *cli) {
  if (!md_cli_args(cli, 0, 0, "takes no argument")) return MD_ERR_USAGE;
  if (md_cli_has(cli, "spec")) return print_spec(cli);
  printf("%-24s %-31s %s\n", "paste this", "code", "runs here");
  const md_cpu *native = md_cpu_native();
  for (int i = md_cpu_count() - 1; i >= 0; i--) {
    const md_cpu *c = md_cpu_at(i);
    char code[64];
    snprintf(code, sizeof code, "%s, %d lanes", c->isa, c->lanes);
    bool here = md_cpu_runs_here(c);
    printf(here ? "--cpu=%-18s %-31s %s\n" : "--target=cpu:%-11s %-31s %s\n", c->name, code,
           c == native ? "yes (default)"
           : here      ? "yes"
                       : "no: compile only");
  }
  list_cuda(cli->arena);
  return MD_OK;
}
static const md_option targets_options[] = {
    {"spec", 0, "DEVICE", "print what is known of a CUDA device, as a file for --target-spec"},
    {0}};
const md_command md_cmd_targets = {.name = "targets",
                                   .group = "Discovery",
                                   .usage = "[--spec=DEVICE]",
                                   .options = targets_options,
                                   .doc = "list what can be compiled for, with the text to paste",
                                   .run = run_targets};
