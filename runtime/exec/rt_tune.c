// SPDX-License-Identifier: Apache-2.0
// modist_rt --tune: trials of an artefact, and what was found as a file of records.
#include "runtime/exec/rt_report.h"

#include "base/file.h"

#include <string.h>

static void sum_up(const md_records *r) {
  int ways = 0, failed = 0, better = 0;
  double own = 0, best = 0;
  for (int i = 0; i < r->num; i++) {
    const md_record *x = &r->row[i];
    better += strcmp(x->own, x->best) != 0;
    own += x->own_us;
    best += x->best_us;
    ways += x->num_ways;
    for (int k = 0; k < x->num_ways; k++) failed += x->way[k].failed != NULL;
  }
  printf("%d products, %d other ways of them, %d failed; %d have a better one: %.3f ms -> %.3f ms\n",
         r->num, ways, failed, better, own / 1e3, best / 1e3);
}

bool rt_tune(const md_program *p, const md_tune_options *o, const char *path, md_diags *d) {
  md_records *found = md_records_create();
  md_text lines = {0};
  bool ok = md_tune(p, o, found, d);
  for (int i = 0; i < found->num; i++) md_record_put(&found->row[i], &lines);
  ok = ok && md_file_save(path, lines.s ? lines.s : "", lines.len, d);
  if (ok) sum_up(found);
  md_text_free(&lines);
  md_records_destroy(found);
  return ok;
}
