// SPDX-License-Identifier: Apache-2.0
// The samples of the op table as graph texts: "f32[3,5], f32[5,4] {tx=true}" of matmul becomes
//   graph @matmul_0(%a0: f32[3,5], %a1: f32[5,4]) {
//     %r0 = matmul %a0, %a1 {tx=true}
//     return %r0
//   }
#ifndef TESTS_SAMPLES_H
#define TESTS_SAMPLES_H

#include "graph/graph.h"

#include <string.h>

// False: the op has no sample i. `num_out`: results of the op, which only its shape function knows.
static inline bool sample_text(md_op op, int i, int num_out, md_text *to) {
  const char *s = i < MD_ROW_SAMPLES ? md_ops[op].samples[i] : NULL;
  if (!s) return false;
  int num_in = 0;
  size_t types = strcspn(s, "{");
  while (types && s[types - 1] == ' ') types--;
  md_put(to, "graph @%s_%d(", md_ops[op].name, i);
  for (const char *t = s; t < s + types; num_in++) {
    size_t len = strcspn(t, "]") + 1;
    md_put(to, "%s%%a%d: %.*s", num_in ? ", " : "", num_in, (int)len, t);
    t += len;
    while (*t == ',' || *t == ' ') t++;
  }
  md_put(to, ") {\n  ");
  for (int k = 0; k < num_out; k++) md_put(to, "%s%%r%d", k ? ", " : "", k);
  md_put(to, " = %s ", md_ops[op].name);
  for (int k = 0; k < num_in; k++) md_put(to, "%s%%a%d", k ? ", " : "", k);
  const char *attrs = strchr(s, '{');
  md_put(to, "%s%s\n  return ", attrs ? " " : "", attrs ? attrs : "");
  for (int k = 0; k < num_out; k++) md_put(to, "%s%%r%d", k ? ", " : "", k);
  md_put(to, "\n}\n");
  return true;
}

#endif
