// SPDX-License-Identifier: Apache-2.0
// Kernels as text: each by itself, without comments, and all of a module for the reader. A kernel may
// also be a part of others: then it is a function that is told which of its blocks it is.
#include "codegen/cuda/gen.h"

#include <string.h>

static void put_params(md_text *to, const md_cuda_kernel *k) {
  int column = 20, num = k->num_params + k->num_counts;
  for (int i = 0; i < num; i++) {
    bool is_count = i >= k->num_params;
    const char *type = is_count ? "md_i64 " : k->param[i], *name = is_count ? "count" : "a";
    int len = (int)strlen(type) + (is_count ? 9 : 5);
    if (column + len > 96) {
      md_put(to, "\n   ");
      column = 4;
    }
    md_put(to, "%s%s%s%d%s", i ? " " : "", type, name, is_count ? i - k->num_params : i,
           i + 1 < num ? "," : "");
    column += len;
  }
}

static void put_kernel(md_text *to, const md_cuda_kernel *k, const char *name, const char *code) {
  bool alone = k->threads != MD_CU_THREADS;
  md_put(to, "MD_KERNEL(%d%s) %s(", k->threads, alone ? ", 1" : "", name);
  put_params(to, k);
  md_put(to, ") {\n%s}\n", code);
}

md_cuda_kernel md_cu_kernel_of(const char *before, int threads, int num_params, const char **param,
                               int num_counts, const char *code, md_arena *a) {
  md_cuda_kernel k = {.threads = threads,
                      .num_params = num_params,
                      .num_counts = num_counts,
                      .param = param,
                      .code = md_strdup(a, code)};
  md_text unit = {0};
  md_put(&unit, "%s", before);
  put_kernel(&unit, &k, "", code);
  char hex[33];
  snprintf(k.symbol, sizeof k.symbol, "k%.16s",
           md_digest_text(md_digest_of(unit.s, unit.len), hex));
  md_text_free(&unit);
  md_put(&unit, "%s", before);
  put_kernel(&unit, &k, k.symbol, code);
  k.text = md_strndup(a, unit.s, unit.len);
  md_text_free(&unit);
  return k;
}

// The texts name their block by the prelude's word alone.
static void put_for_block(md_text *to, const char *code) {
  static const char word[] = "md_block()";
  for (const char *at; (at = strstr(code, word)) != NULL; code = at + strlen(word)) {
    md_put_bytes(to, code, (size_t)(at - code));
    md_put(to, "block");
  }
  md_put(to, "%s", code);
}

void md_cu_put_function(const md_cuda_kernel *k, bool comments, md_text *to) {
  if (comments) md_put(to, "\n// part: %s", k->title);
  md_put(to, "MD_PART p%s(const int block%s", k->symbol + 1,
         k->num_params + k->num_counts ? ", " : "");
  put_params(to, k);
  md_put(to, ") {\n");
  put_for_block(to, comments ? k->listing : k->code);
  md_put(to, "}\n");
}

void md_cu_list(md_cuda_module *m, const md_cuda_kernel *part, int num_parts) {
  for (int i = 0; i < num_parts; i++) md_cu_put_function(&part[i], true, &m->text);
  for (int i = 0; i < m->num_kernels; i++) {
    const md_cuda_kernel *k = &m->kernel[i];
    char name[32];
    snprintf(name, sizeof name, "k%d", i);
    md_put(&m->text, "\n// %s: %s", name, k->title);
    put_kernel(&m->text, k, name, k->listing);
  }
}
