// SPDX-License-Identifier: Apache-2.0
// What ptxas says of the kernels that it compiled:
//
//   ptxas info    : Compiling entry function 'k3' for 'sm_80'
//   ptxas info    : Function properties for k3
//   ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
//   ptxas info    : Used 12 registers, used 1 barriers, 400 bytes smem, 376 bytes cmem[0]
#include "codegen/cuda/cuda.h"

#include <stdlib.h>
#include <string.h>

// What ptxas only mentions, but makes a kernel useless: it would run, at a fraction of its speed.
static const struct {
  const char *text, *why;
} lints[] = {
    {"C7508", "setmaxnreg is ignored"},
    // C7510, C7511 and others, by the reason.
    {"Potential Performance Loss: wgmma", "wgmma instructions wait for one another"},
    {"Potential Performance Loss", "it loses speed"},
    {"warpgroup.wait is injected",
     "wgmma instructions are waited for sooner than the text says"},  // C7517
};

// The number that stands before `words` in the line, or 0.
static int number_before(const char *line, const char *end, const char *words) {
  const char *at = strstr(line, words);
  if (!at || at >= end) return 0;
  while (at > line && at[-1] >= '0' && at[-1] <= '9') at--;
  return atoi(at);
}

static void take_line(md_cuda_usage *u, const char *line, const char *end) {
  const char *used = strstr(line, " : Used ");
  u->facts.frame_bytes += number_before(line, end, " bytes stack frame");
  u->spill_stores += number_before(line, end, " bytes spill stores");
  u->spill_loads += number_before(line, end, " bytes spill loads");
  if (!used || used >= end) return;
  u->facts.registers = number_before(line, end, " registers");
  u->facts.shared_bytes = number_before(line, end, " bytes smem");
}

int md_cuda_usage_of_log(const char *log, md_cuda_usage **usage) {
  int num = 0, cap = 0;
  *usage = NULL;
  for (const char *s = log; *s;) {
    const char *end = s + strcspn(s, "\n"), *entry = strstr(s, "Compiling entry function '");
    if (entry && entry < end) {
      md_cuda_usage u = {.spill_stores = 0};
      sscanf(entry, "Compiling entry function '%63[^']", u.facts.name);
      MD_PUSH(*usage, num, cap, u);
    } else if (num) {
      take_line(&(*usage)[num - 1], s, end);
    }
    s = end + (*end == '\n');
  }
  return num;
}

bool md_cuda_check_log(const char *log, const char *name, md_diags *d) {
  md_cuda_usage *u;
  int num = md_cuda_usage_of_log(log, &u);
  bool ok = true;
  for (int i = 0; i < num && ok; i++) {
    if (!u[i].facts.frame_bytes && !u[i].spill_stores && !u[i].spill_loads) continue;
    ok = md_error(d, E0444, MD_NOWHERE,
                  "kernel %s spills registers (%d bytes of stack, %d stored, %d loaded)",
                  u[i].facts.name, u[i].facts.frame_bytes, u[i].spill_stores, u[i].spill_loads);
  }
  for (int i = 0; i < MD_COUNT(lints) && ok; i++) {
    const char *at = strstr(log, lints[i].text);
    if (!at) continue;
    while (at > log && at[-1] != '\n') at--;
    char line[200], clean[200];
    snprintf(line, sizeof line, "%.*s", (int)MD_MIN(strcspn(at, "\n"), sizeof line - 1), at);
    ok = md_error(d, E0444, MD_NOWHERE, "%s: %s", name, lints[i].why);
    md_note(d, MD_NOWHERE, "ptxas says: %s", md_clean(line, clean, sizeof clean));
  }
  free(u);
  return ok;
}
