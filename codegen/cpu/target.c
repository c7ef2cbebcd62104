// SPDX-License-Identifier: Apache-2.0
// CPU targets as rows of facts. A wider target of an architecture is a later row; what this machine
// runs is decided by its architecture and the features that LLVM sees. Nominal rates are those of Zen 5
// at 4.2 GHz with a row's instructions, and of a core with two NEON pipes at 3 GHz.
#include "codegen/cpu/cpu.h"

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>
#include <string.h>

// clang-format off
// Of 512 bits, with halves or as a half.
#define WIDE(suffix, winograd, lanes, half, half_bf16)                                             \
  {"avx512" suffix,  "x86-64-v4", "x86_64", "x86-64-v4", "-prefer-256-bit",                        \
                                                          lanes, 32, true,  true,  false, 1 << 20,   \
   winograd, 270e9, 50e9, 32 << 20, half, (lanes) == 8},                                           \
  {"avx512-bf16" suffix, "x86-64-v4+avx512bf16", "x86_64", "x86-64-v4", "-prefer-256-bit,+avx512bf16", \
                                                          lanes, 32, true,  true,  true,  1 << 20,   \
   winograd, 270e9, 50e9, 32 << 20, half_bf16, (lanes) == 8},
static const md_cpu halves[] = {WIDE("", true, 8, NULL, NULL)};
static const md_cpu direct_halves[] = {WIDE(",-winograd", false, 8, NULL, NULL)};
#define ROWS(suffix, winograd, halves)                                                             \
  {"generic" suffix, "x86-64",    "x86_64", "x86-64",    "", 4,  16, false, false, false, 256 << 10, \
   winograd, 67e9, 50e9, 32 << 20, NULL, false},                                                   \
  {"sse4.2" suffix,  "x86-64-v2", "x86_64", "x86-64-v2", "", 4,  16, false, true,  false, 256 << 10, \
   winograd, 67e9, 50e9, 32 << 20, NULL, false},                                                   \
  {"avx2" suffix,    "x86-64-v3", "x86_64", "x86-64-v3", "", 8,  16, true,  true,  false, 512 << 10, \
   winograd, 135e9, 50e9, 32 << 20, NULL, false},                                                  \
  WIDE(suffix, winograd, 16, halves, halves + 1)                                                   \
  {"aarch64" suffix, "armv8-a",   "aarch64", "generic",  "", 4,  32, true,  true,  false, 512 << 10, \
   winograd, 48e9, 50e9, 32 << 20, NULL, false},
static const md_cpu cpus[] = {ROWS("", true, halves)};
static const md_cpu direct[] = {ROWS(",-winograd", false, direct_halves)};
// Features that a machine of the architecture must have for the row.
static const char *const needs[] = {
  "", "+sse4.2,+popcnt", "+avx2,+fma,+bmi,+bmi2,+f16c,+lzcnt,+movbe",
  "+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl", "+avx512bf16",
  "",
};
// clang-format on
#if defined(__aarch64__)
static const char host_arch[] = "aarch64";
#else
static const char host_arch[] = "x86_64";
#endif

// Is every word of the comma list `wanted` a word of `have`?
static bool has_all(const char *have, const char *wanted) {
  while (*wanted) {
    size_t len = strcspn(wanted, ",");
    const char *at = have;
    for (;; at++) {
      if (!(at = strstr(at, "+"))) return false;
      if (!strncmp(at, wanted, len) && (at[len] == ',' || !at[len])) break;
    }
    wanted += len + (wanted[len] == ',');
  }
  return true;
}

static int row_of(const md_cpu *cpu) { return (int)(cpu - (cpu->winograd ? cpus : direct)); }
static bool is_of_host(int row) { return !strcmp(cpus[row].arch, host_arch); }

// The rows of an architecture include one another.
static bool machine_has(int row) {
  if (!is_of_host(row)) return false;
  char *features = LLVMGetHostCPUFeatures();
  bool ok = true;
  for (int i = 0; i <= row; i++) ok = ok && (!is_of_host(i) || has_all(features, needs[i]));
  LLVMDisposeMessage(features);
  return ok;
}

int md_cpu_count(void) { return MD_COUNT(cpus); }
const md_cpu *md_cpu_at(int i) { return &cpus[i]; }
bool md_cpu_runs_here(const md_cpu *cpu) { return machine_has(row_of(cpu)); }

const md_cpu *md_cpu_native(void) {
  const md_cpu *best = NULL;
  for (int i = 0; i < MD_COUNT(cpus); i++) {
    if (machine_has(i)) best = &cpus[i];
  }
  MD_ASSERT(best, "no CPU of the table is of this architecture (%s)", host_arch);
  return best;
}

static const md_cpu *unknown(const char *cap, const char *name, md_diags *d) {
  const char *names[2 * MD_COUNT(cpus) + 1] = {"native"};
  for (int i = 0; i < MD_COUNT(cpus); i++) {
    names[2 * i + 1] = cpus[i].name;
    names[2 * i + 2] = cpus[i].isa;
  }
  char clean[64];
  md_error(d, E0420, MD_NOWHERE, "unknown cpu '%s'", md_clean(cap, clean, sizeof clean));
  const char *near = md_nearest(name, names, MD_COUNT(names));
  if (near) md_hint(d, "did you mean '%s'?", near);
  else md_hint(d, "one of native, generic, sse4.2, avx2, avx512, avx512-bf16, aarch64");
  md_note(d, MD_NOWHERE, "',-winograd' may follow: convolutions are direct ones then");
  return NULL;
}

const md_cpu *md_cpu_find(const char *cap, bool must_run_here, md_diags *d) {
  if (!cap) return md_cpu_native();
  const char *feature = strchr(cap, ',');
  if (feature && strcmp(feature, ",-winograd")) return unknown(cap, cap, d);
  const md_cpu *table = feature ? direct : cpus;
  char name[64];
  snprintf(name, sizeof name, "%.*s", feature ? (int)(feature - cap) : (int)sizeof name, cap);
  if (!strcmp(name, "native") || !strcmp(name, "host")) return &table[row_of(md_cpu_native())];
  for (int i = 0; i < MD_COUNT(cpus); i++) {
    if (strcmp(name, cpus[i].name) && strcmp(name, cpus[i].isa)) continue;
    if (!must_run_here || machine_has(i)) return &table[i];
    md_error(d, E0421, MD_NOWHERE, "this machine cannot run code for cpu '%s'", cap);
    md_hint(d, "--cpu=%s is the most that it can run", md_cpu_native()->name);
    return NULL;
  }
  return unknown(cap, name, d);
}

// More, and both gradients of a convolution are bound by multiplications: one kernel gains nothing then.
enum { TWIN_WEIGHTS = 1 << 14 };

md_target_facts md_cpu_facts(const md_cpu *cpu) {
  return (md_target_facts){.channel_block = cpu->lanes,
                           .half_block = cpu->half ? cpu->half->lanes : 0,
                           .filters_taps = cpu->winograd,
                           .twin_weights = TWIN_WEIGHTS,
                           .twin_weights_f32 = TWIN_WEIGHTS,
                           .max_prologue = 3,
                           .alignment = 64};
}

void md_cpu_llvm_version(char *text, int size) {
  unsigned major, minor, patch;
  LLVMGetVersion(&major, &minor, &patch);
  snprintf(text, (size_t)size, "%u.%u.%u", major, minor, patch);
}
