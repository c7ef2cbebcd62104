// SPDX-License-Identifier: Apache-2.0
// modist_rt --tune: trials of an artefact, and what was found as a file of records.
#include "runtime/exec/rt_report.h"

#include "base/file.h"

bool rt_tune(const md_program *p, const md_tune_options *o, const char *path, md_diags *d) {
  md_file_writer *w = md_file_create(path, d);  // before the work, not after
  if (!w) return false;
  md_records *found = md_records_create();
  md_text lines = {0};
  bool ok = md_tune(p, o, found, d), is_kept = false;
  for (int i = 0; i < found->num; i++) md_record_put(&found->row[i], &lines);
  if (ok || found->num) {  // even of a run that has ended early
    md_file_write(w, lines.s ? lines.s : "", lines.len);
    is_kept = md_file_commit(w);
  } else {
    md_file_abort(w);
  }
  char text[MD_RECORDS_CHARS], clocks[MD_CLOCKS_CHARS];
  if (is_kept)
    printf("%s; clocks: %s\n", md_records_text(found, text),
           md_clocks_text(found->num ? found->row[0].clocks : NULL, clocks));
  md_text_free(&lines);
  md_records_destroy(found);
  return ok && is_kept;
}
