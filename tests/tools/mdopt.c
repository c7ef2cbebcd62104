// SPDX-License-Identifier: Apache-2.0
// mdopt FILE [--passes=LIST] [...]: runs passes on every graph of a text and prints what comes out.
// The text tests use it; options are those of `modistc compile`.
#include "base/file.h"
#include "passes/passes.h"

#include <stdlib.h>
#include <string.h>

static bool take(const char *arg, const char *option, const char **value) {
  size_t len = strlen(option);
  if (strncmp(arg, option, len) != 0) return false;
  *value = arg + len;
  return true;
}

static void print_sites(const md_pass_report *r) {
  for (int i = 0; i < r->num_sites; i++)
    printf("// %s: %s %s: %s\n", r->site[i].pass, r->site[i].done ? "done" : "kept",
           r->site[i].node, r->site[i].why);
}

static bool run(md_graph *g, const md_pass_options *o, bool sites, bool memory, md_diags *d) {
  md_pass_report report = {0};
  g = md_run_passes(g, o, &report, d);
  if (g) {
    md_text t = {0};
    md_graph_print(g, &t);
    fwrite(t.s, 1, t.len, stdout);
    md_text_free(&t);
    if (sites) print_sites(&report);
    md_memory_report m;
    if (memory) {
      md_memory_of(g, &m);
      printf("// arena %lld states %lld without_reuse %lld peak_region %d\n", (long long)m.arena,
             (long long)m.states, (long long)m.without_reuse, m.peak_region);
    }
    md_graph_destroy(g);
  }
  md_pass_report_free(&report);
  return g != NULL;
}

int main(int argc, char **argv) {
  const char *path = NULL, *value = NULL;
  md_pass_options o = md_pass_defaults();
  bool sites = false, memory = false, good = true;
  o.verify_each = true;
  for (int i = 1; i < argc; i++) {
    int64_t number = 0;
    if (take(argv[i], "--passes=", &o.passes) || take(argv[i], "--disable-pass=", &o.disable) ||
        take(argv[i], "--print-ir-after=", &o.print_after) ||
        take(argv[i], "--dump-dir=", &o.dump_dir))
      continue;
    if (!strcmp(argv[i], "--print-changed")) o.print_changed = true;
    else if (!strcmp(argv[i], "--time-passes")) o.time = true;
    else if (!strcmp(argv[i], "--report=fusion")) sites = true;
    else if (!strcmp(argv[i], "--report=memory")) memory = true;
    else if (!strcmp(argv[i], "--precision=bf16")) o.precision = MD_BF16;
    else if (take(argv[i], "--level=", &value) && md_parse_int(value, &number))
      o.level = (int)number;
    else if (take(argv[i], "--block=", &value) && md_parse_int(value, &number))
      o.facts.channel_block = (int)number;
    else if (take(argv[i], "--half-block=", &value) && md_parse_int(value, &number))
      o.facts.half_block = (int)number;
    else if (take(argv[i], "--max-prologue=", &value) && md_parse_int(value, &number))
      o.facts.max_prologue = (int)number;
    else if (take(argv[i], "--few-channels=", &value) && md_parse_int(value, &number))
      o.facts.few_channels = number;
    else if (take(argv[i], "--again-work=", &value) && md_parse_int(value, &number))
      o.facts.again_work = number;
    else if (take(argv[i], "--twin-weights=", &value) && md_parse_int(value, &number))
      o.facts.twin_weights = number;
    else if (take(argv[i], "--twin-weights-f32=", &value) && md_parse_int(value, &number))
      o.facts.twin_weights_f32 = number;
    else if (take(argv[i], "--twin-side=", &value) && md_parse_int(value, &number))
      o.facts.twin_side = number;
    else if (take(argv[i], "--taps-formed=", &value) && md_parse_int(value, &number))
      o.facts.taps_formed = number;
    else if (take(argv[i], "--stored-wgrad=", &value) && md_parse_int(value, &number))
      o.facts.stored_wgrad = number;
    else if (!strcmp(argv[i], "--channels-last")) o.facts.channels_last = true;
    else if (!strcmp(argv[i], "--pairs")) o.facts.pairs = true;
    else if (!strcmp(argv[i], "--moves-values")) o.facts.moves_values = true;
    else if (!strcmp(argv[i], "--filters-taps")) o.facts.filters_taps = true;
    else if (!strcmp(argv[i], "--packs-weights")) o.facts.packs_weights = true;
    else if (take(argv[i], "--memory-limit=", &value) && md_parse_int(value, &number))
      o.memory.bytes = number;  // of the arena alone
    else if (take(argv[i], "--max-rewrites=", &value) && md_parse_int(value, &number))
      o.max_rewrites = number;
    else if (argv[i][0] != '-' && !path) path = argv[i];
    else {
      fprintf(stderr, "mdopt: '%s' is not understood\n", argv[i]);
      return MD_ERR_USAGE;
    }
  }
  if (!path) {
    fprintf(stderr, "usage: mdopt FILE [--passes=LIST] ...\n");
    return MD_ERR_USAGE;
  }

  char *text = NULL;
  size_t len = 0;
  int num = 0;
  md_diags *d = md_diags_create();
  md_arena *a = md_arena_create();
  md_graph **g = NULL;
  if (md_file_read(path, 64 << 20, E0101, d, &text, &len))
    g = md_parse_graphs(path, text, len, a, &num, d);
  for (int i = 0; i < num; i++) {
    if (good) good = md_graph_verify(g[i], d) && run(g[i], &o, sites, memory, d);
    else md_graph_destroy(g[i]);
  }
  md_diags_print(d, stderr, false);
  int status = (int)md_diags_status(d);
  md_diags_destroy(d);
  md_arena_destroy(a);
  free(text);
  return status;
}
