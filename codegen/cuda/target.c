// SPDX-License-Identifier: Apache-2.0
// CUDA targets by name, and what passes ask of them. Compiling for a machine that is not here is the
// normal case, so the list does not depend on what is installed.
#include "codegen/cuda/cuda.h"

#include <string.h>

// What NVRTC 13 compiles for, from the first with bf16 arithmetic on. `suffix`: the name with `a` too.
static const struct {
  int sm;
  bool suffix;
} archs[] = {
    {80, false}, {86, false}, {87, false}, {88, false}, {89, false}, {90, true},
    {100, true}, {103, true}, {110, true}, {120, true}, {121, true},
};

static void nearest(const char *target, md_diags *d) {
  char text[2 * MD_COUNT(archs)][16];
  const char *name[2 * MD_COUNT(archs)];
  int num = 0;
  md_text all = {0};
  for (int i = 0; i < MD_COUNT(archs); i++) {
    for (int a = 0; a <= archs[i].suffix; a++) {
      snprintf(text[num], sizeof text[num], "cuda:sm_%d%s", archs[i].sm, a ? "a" : "");
      name[num] = text[num];
      md_put(&all, "%s%s", num ? ", " : "", text[num] + 5);
      num++;
    }
  }
  const char *best = md_nearest(target, name, num);
  if (best) md_hint(d, "did you mean --target=%s?", best);
  else md_hint(d, "CUDA targets are cuda: and one of %s", all.s);
  md_text_free(&all);
}

bool md_cuda_parse(const char *target, md_cuda_arch *arch, md_diags *d) {
  static const char prefix[] = "cuda:sm_";
  size_t len = strlen(prefix);
  if (!strncmp(target, prefix, len)) {
    for (int i = 0; i < MD_COUNT(archs); i++) {
      char name[16];
      snprintf(name, sizeof name, "%d", archs[i].sm);
      size_t digits = strlen(name);
      if (strncmp(target + len, name, digits) != 0) continue;
      const char *rest = target + len + digits;
      *arch = (md_cuda_arch){.sm = archs[i].sm, .suffix = *rest};
      if (!*rest || (archs[i].suffix && !strcmp(rest, "a"))) return true;
    }
  }
  char clean[80];
  md_error(d, E0441, MD_NOWHERE, "unknown target '%s'", md_clean(target, clean, sizeof clean));
  nearest(target, d);
  return false;
}

// Channels last, rounded up to the 16 bytes of bf16 that one load takes.
bool md_cuda_facts(const char *target, md_target_facts *facts, md_diags *d) {
  md_cuda_arch arch;
  if (!md_cuda_parse(target, &arch, d)) return false;
  *facts = (md_target_facts){
      .channel_block = 8, .channels_last = true, .max_prologue = 4, .alignment = 256};
  return true;
}
