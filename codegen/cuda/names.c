// SPDX-License-Identifier: Apache-2.0
// Texts of kernels that are written already.
#include "codegen/cuda/names.h"

int md_cu_names_find(md_cu_names *n, md_digest text) {
  for (int i = 0; i < n->num; i++)
    if (n->text[i].lo == text.lo && n->text[i].hi == text.hi) return i;
  MD_PUSH(n->text, n->num, n->cap, text);
  return n->num - 1;
}
