// SPDX-License-Identifier: Apache-2.0
// Any bytes as graph text: no crash, and what is accepted survives a round trip byte for byte. Built
// for libFuzzer, or with fuzz_main.c for a run with a seed.
#include "graph/graph.h"
#include "tests/fuzz/fuzz.h"
#include "tests/samples.h"

#include <string.h>

static void check_round_trip(const md_graph *g) {
  md_text once = {0}, twice = {0}, dot = {0};
  md_graph_print(g, &once);
  md_diags *d = md_diags_create();
  md_graph *back = md_parse_graph("printed", once.s, once.len, d);
  MD_ASSERT(back, "a printed graph is refused:\n%s\n%s", once.s, md_diags_text(d));
  md_graph_print(back, &twice);
  MD_ASSERT(!strcmp(once.s, twice.s), "printed first\n%s\nand then\n%s", once.s, twice.s);
  MD_ASSERT(md_graph_verify(back, d), "%s", md_diags_text(d));
  md_graph_dot(g, &dot);
  md_graph_destroy(back);
  md_diags_destroy(d);
  md_text_free(&once);
  md_text_free(&twice);
  md_text_free(&dot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  int num = 0;
  md_graph **g = md_parse_graphs("fuzz.mdg", (const char *)data, size, a, &num, d);
  MD_ASSERT(!g == (md_diags_errors(d) > 0), "%d errors, but the text is %s", md_diags_errors(d),
            g ? "accepted" : "refused");
  for (int i = 0; g && i < num; i++) {
    check_round_trip(g[i]);
    md_graph_destroy(g[i]);
  }
  md_arena_destroy(a);
  md_diags_destroy(d);
  return 0;
}

// A graph of every op; files of graphs come from the command line.
void fuzz_seeds(void (*add)(const char *s, size_t len)) {
  for (int op = MD_OP_none + 1; op < MD_NUM_OPS; op++)
    for (int i = 0; i < MD_ROW_SAMPLES; i++)
      for (int num_out = 1; num_out <= 3; num_out++) {
        md_text t = {0};
        if (sample_text((md_op)op, i, num_out, &t)) add(t.s, t.len);
        md_text_free(&t);
      }
}
