// SPDX-License-Identifier: Apache-2.0
// Code for another processor would die of an illegal instruction in the middle of a step, so what a
// target needs is compared with what the processor has before anything is loaded.
#include "runtime/exec/exec.h"

#include <string.h>

// Where there is no compiler, the target to ask another machine's for has to have a name.
#if defined(__x86_64__)
#define HERE "x86-64"
#define TARGET "cpu:host"
#elif defined(__aarch64__)
#define HERE "AArch64"
#define TARGET "cpu:aarch64"
#else
#define HERE "of another architecture"
#define TARGET "cpu:host"
#endif

typedef enum answer { NO, YES, UNKNOWN } answer;

// The architecture whose instruction set this names; NULL: it names a feature.
static const char *architecture_of(const char *isa) {
  if (!strncmp(isa, "x86-64", 6)) return "x86-64";
  if (!strncmp(isa, "armv8", 5)) return "AArch64";
  return NULL;
}

// The compiler's builtin takes literals only. It also knows whether the system saves the registers.
static answer has_feature(const char *name) {
#if defined(__x86_64__)
#define FEATURE(text) \
  if (!strcmp(name, text)) return __builtin_cpu_supports(text) ? YES : NO
  __builtin_cpu_init();
  FEATURE("sse3");
  FEATURE("ssse3");
  FEATURE("sse4.1");
  FEATURE("sse4.2");
  FEATURE("popcnt");
  FEATURE("avx");
  FEATURE("avx2");
  FEATURE("fma");
  FEATURE("bmi");
  FEATURE("bmi2");
  FEATURE("avx512f");
  FEATURE("avx512cd");
  FEATURE("avx512bw");
  FEATURE("avx512dq");
  FEATURE("avx512vl");
  FEATURE("avx512vnni");
  FEATURE("avx512bf16");
  FEATURE("x86-64");
  FEATURE("x86-64-v2");
  FEATURE("x86-64-v3");
  FEATURE("x86-64-v4");
#undef FEATURE
#elif defined(__aarch64__)
  if (!strcmp(name, "armv8-a")) return YES;  // with NEON, which Linux programs may rely on
#endif
  (void)name;
  return UNKNOWN;
}

const char *md_machine_target(void) { return TARGET; }

bool md_machine_runs(const char *target, char *why, int why_size) {
  if (strncmp(target, "cpu:", 4)) {
    snprintf(why, (size_t)why_size, "only targets that start with 'cpu:' run here");
    return false;
  }
  const char *p = strchr(target, '+');
  while (p) {
    const char *start = p + 1;
    p = strchr(start, '+');
    size_t len = p ? (size_t)(p - start) : strlen(start);
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)MD_MIN(len, sizeof name), start);
    const char *arch = architecture_of(name);
    if (arch && strcmp(arch, HERE)) {
      snprintf(why, (size_t)why_size, "it is code for %s, and this machine is " HERE, arch);
      return false;
    }
    answer has = has_feature(name);
    if (has == YES) continue;
    snprintf(why, (size_t)why_size,
             has == NO ? "this processor has no %.*s" : "'%.*s' is no feature known here",
             (int)MD_MIN(len, 64), start);
    return false;
  }
  return true;
}
