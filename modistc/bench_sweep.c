// SPDX-License-Identifier: Apache-2.0
// All combinations of the values of several sweeps, the last one fastest.
#include "modistc/bench.h"

bool md_bench_sweeps_read(md_cli *cli, md_bench_sweeps *s) {
  *s = (md_bench_sweeps){0};
  const char *text;
  for (int at = 0; (text = md_cli_next(cli, "sweep", &at)); s->num++) {
    if (s->num == MD_COUNT(s->sweep))
      return md_error(cli->diags, E0401, MD_NOWHERE, "more than %d sweeps", MD_COUNT(s->sweep));
    if (!md_sweep_parse("--sweep", text, cli->arena, &s->sweep[s->num], cli->diags)) return false;
  }
  return true;
}

bool md_bench_sweeps_next(md_bench_sweeps *s) {
  for (int i = s->num - 1; i >= 0; i--) {
    if (++s->at[i] < s->sweep[i].num) return true;
    s->at[i] = 0;
  }
  return false;
}

const char *md_bench_sweeps_value(const md_bench_sweeps *s, int i) {
  return s->sweep[i].value[s->at[i]];
}
