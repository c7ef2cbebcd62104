// SPDX-License-Identifier: Apache-2.0
// run.dir/quarantine.txt: the videos that training gave up, `path,reason` a line, in order of their
// place in the data set. Written anew when there is another one; not there when there is none.
#include "runtime/train/train.h"

#include "base/file.h"

void md_train_quarantine(md_loader *l, const char *path, int *known, md_diags *d) {
  int num = md_loader_stats_now(l).quarantined;
  if (num == *known) return;
  *known = num;
  md_text text = {0};
  md_fault why;
  const char *video;
  for (int at = 0; (video = md_loader_quarantined(l, &at, &why));) {
    md_csv_put(&text, video);
    md_put(&text, ",");
    md_csv_put(&text, why.text);
    md_put(&text, "\n");
  }
  md_diags *own = md_diags_create();
  if (!md_file_save(path, text.s, text.len, own))
    md_warning(d, MD_IN_FILE(path),
               "the list of broken videos cannot be written; training goes on");
  md_diags_destroy(own);
  md_text_free(&text);
}
