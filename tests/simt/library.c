// SPDX-License-Identifier: Apache-2.0
// The kernels that this process has built, by symbols that are digests of their texts: equal kernels of
// many programs are compiled once, and those of several programs by one call of the compiler.
#include "tests/simt/simt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"

typedef struct Known {
  char symbol[24];
  simt_form form;
  simt_entry_point *entry;
} Known;

static struct Library {
  Known *known;
  simt_code **code;
  int num, cap, num_code, cap_code;
} L;

simt_entry_point *simt_known(const char *symbol) {
  for (int i = 0; i < L.num; i++)
    if (L.known[i].form == simt_form_now() && !strcmp(L.known[i].symbol, symbol))
      return L.known[i].entry;
  return NULL;
}

// --- one text of many

// Where the next function of a text begins, behind its first letter; or its end.
static const char *next_function(const char *text) {
  const char *part = strstr(text + 1, "\nMD_PART "), *kernel = strstr(text + 1, "\nMD_KERNEL(");
  const char *next = part && (!kernel || part < kernel) ? part : kernel;
  return next ? next + 1 : text + strlen(text);
}

// Lines are counted from the kernel's own first one.
void simt_put_kernel(md_text *to, const char *text) {
  int line = 1;
  for (const char *end; *text; text = end) {
    end = next_function(text);
    char head[60];
    snprintf(head, sizeof head, "%.*s", (int)strcspn(text, "("), text);
    bool is_there = !strncmp(head, "MD_PART ", 8) && to->s && strstr(to->s, head);
    if (!is_there) {
      md_put(to, "#line %d\n", line);
      md_put_bytes(to, text, (size_t)(end - text));
    }
    for (const char *s = text; s < end; s++) line += *s == '\n';
  }
}

static void put_entry(md_text *to, const simt_kernel *k) {
  md_put(to,
         "void %s_call(void *const *arg);\n__attribute__((no_sanitize(\"thread\"))) void "
         "%s_call(void *const *arg) {\n  %s(",
         k->symbol, k->symbol, k->symbol);
  for (int i = 0; i < k->num_params; i++) md_put(to, "%sarg[%d]", i ? ", " : "", i);
  for (int i = 0; i < k->num_counts; i++)
    md_put(to, "%s(md_i64)arg[%d]", i + k->num_params ? ", " : "", k->num_params + i);
  md_put(to, ");\n}\n");
}

static bool is_before(const simt_kernel *k, int i) {
  for (int j = 0; j < i; j++)
    if (!strcmp(k[j].symbol, k[i].symbol)) return true;
  return false;
}

bool simt_know(const simt_kernel *k, int num) {
  md_text text = {0};
  int first = L.num;
  for (int i = 0; i < num; i++) {
    if (simt_known(k[i].symbol) || is_before(k, i)) continue;
    simt_put_kernel(&text, k[i].text);
    put_entry(&text, &k[i]);
    Known known = {.form = simt_form_now()};
    snprintf(known.symbol, sizeof known.symbol, "%s", k[i].symbol);
    MD_PUSH(L.known, L.num, L.cap, known);
  }
  simt_code *code = text.s ? simt_build_kept(text.s, NULL) : NULL;
  bool ok = code || !text.s;
  md_text_free(&text);
  if (code) MD_PUSH(L.code, L.num_code, L.cap_code, code);
  if (!ok) L.num = first;
  for (int i = first; i < L.num; i++) {
    char name[32];
    snprintf(name, sizeof name, "%s_call", L.known[i].symbol);
    L.known[i].entry = simt_entry(code, name);
  }
  return ok;
}

void simt_forget(void) {
  for (int i = 0; i < L.num_code; i++) simt_code_free(L.code[i]);
  free(L.code);
  free(L.known);
  L = (struct Library){0};
}
