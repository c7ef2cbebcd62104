// SPDX-License-Identifier: Apache-2.0
// Convolutions on the fiber machine against the interpreter, region by region, at two pass levels.
//   test_conv [--only=TEXT]
#include "tests/simt/run.h"
#include "tests/simt/samples.h"

#include <stdlib.h>
#include <string.h>

static int try(const char *name, const char *text, int level) {
  md_diags *d = md_diags_create();
  md_graph *g = md_parse_graph("sample", text, strlen(text), d);
  Program *p = g ? program_apart(g, level, MD_F32, 1, d) : NULL;
  simt_code *code = p && !p->m->num_refused ? run_build(p) : NULL;
  int passed = 0, failed = 1;
  char full[96];
  snprintf(full, sizeof full, "%s, level %d", name, level);
  if (code) failed = run_regions(p, code, (simt_options){.order = SIMT_RANDOM}, full, &passed);
  else
    printf("FAILED %s: %s\n", full,
           p && p->m->num_refused ? p->m->refused[0].why : md_diags_text(d));
  if (!passed) failed++;
  simt_code_free(code);
  program_destroy(p);
  md_diags_destroy(d);
  return failed;
}

int main(int argc, char **argv) {
  const char *only = argc > 1 && !strncmp(argv[1], "--only=", 7) ? argv[1] + 7 : NULL;
  int failed = 0, tried = 0;
  md_text text = {0};
  char name[64];
  for (int i = 0; simt_conv_sample(i, &text, name); i++) {
    for (int level = 0; level <= 2; level += 2) {
      if (only && !strstr(name, only)) continue;
      failed += try(name, text.s, level);
      tried++;
    }
    md_text_free(&text);
    text = (md_text){0};
  }
  printf("%d tried, %d failures\n", tried, failed);
  return failed || !tried;
}
